use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use connectord_filter::{Unchecked, Why};
use connectord_mail::Body;
use tokio::task::JoinHandle;

/// Octets of a message that are read at a time, and in memory for one filter.
pub(crate) const PIECE: usize = 64 * 1024;

/// A message, piece by piece. What is not in memory is read on a thread: a disk that hangs holds up nobody else, and of
/// a reader that is dropped there is left at most one read.
pub(crate) struct Pieces {
    body: Arc<dyn Body>,
    offset: u64,
    size: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Pieces {
    pub(crate) fn new(body: Arc<dyn Body>) -> Self {
        let size = body.size_octets();
        Self { body, offset: 0, size, reading: None }
    }

    /// How many octets are still to come.
    pub(crate) fn left(&self) -> u64 {
        self.size - self.offset
    }

    /// The next piece; `None` at the end. All pieces together have the size that the message says to have.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Unchecked> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Unchecked>> {
        if self.left() == 0 {
            return Poll::Ready(Ok(None));
        }
        let wanted = usize::try_from(self.left()).map_or(PIECE, |left| left.min(PIECE));
        let piece = if let Some(octets) = self.body.as_slice() {
            let start = usize::try_from(self.offset).unwrap_or(usize::MAX);
            let rest = octets.get(start..).unwrap_or_default();
            Ok(Bytes::copy_from_slice(&rest[..rest.len().min(wanted)]))
        } else {
            let (body, offset) = (&self.body, self.offset);
            let reading = self.reading.get_or_insert_with(|| {
                let body = Arc::clone(body);
                tokio::task::spawn_blocking(move || read(&*body, offset, wanted))
            });
            let read = ready!(Pin::new(reading).poll(cx));
            self.reading = None;
            read.unwrap_or_else(|lost| Err(io::Error::other(lost)))
        };
        Poll::Ready(match piece {
            Ok(piece) if piece.is_empty() => {
                let text = format!("the message ended after {} of {} octets", self.offset, self.size);
                Err(Unchecked::new(Why::Failed, text))
            }
            Ok(piece) => {
                self.offset += piece.len() as u64;
                Ok(Some(piece))
            }
            Err(error) => {
                // Our own disk: no fault of the message.
                let text = format!("reading the message for the filter: {}", crate::text::chain(&error));
                Err(Unchecked::new(Why::Unavailable, text))
            }
        })
    }
}

/// Fills a piece, however little the body gives at a time.
fn read(body: &dyn Body, offset: u64, wanted: usize) -> io::Result<Bytes> {
    let mut piece = vec![0; wanted];
    let mut filled = 0;
    while filled < wanted {
        match body.read_at(offset + filled as u64, &mut piece[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    piece.truncate(filled);
    Ok(piece.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OnDisk(Bytes, u64);

    impl Body for OnDisk {
        fn size_octets(&self) -> u64 {
            self.1
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(999);
            self.0.read_at(offset, &mut buffer[..most])
        }
    }

    /// The disk under it fails, or panics, behind the first piece.
    struct Failing(bool);

    impl Body for Failing {
        fn size_octets(&self) -> u64 {
            200_000
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            if offset < PIECE as u64 {
                return Ok(buffer.len());
            }
            assert!(!self.0, "as the test wants");
            Err(io::Error::other("the disk is broken"))
        }
    }

    #[tokio::test]
    async fn what_our_own_disk_does_is_no_fault_of_the_message() {
        for panics in [false, true] {
            let mut pieces = Pieces::new(Arc::new(Failing(panics)));
            assert!(pieces.next().await.unwrap().is_some());
            let trouble = pieces.next().await.unwrap_err();
            assert!(trouble.why == Why::Unavailable && !trouble.why.may_be_the_message(), "{trouble}");
            assert!(panics || trouble.text == "reading the message for the filter: the disk is broken", "{trouble}");
        }
    }

    #[tokio::test]
    async fn a_message_comes_whole_however_it_is_kept_and_a_shorter_one_is_not_passed_off_as_whole() {
        let octets: Bytes = (0..200_001u32).map(|at| (at % 251) as u8).collect();
        let bodies: [Arc<dyn Body>; 2] = [Arc::new(octets.clone()), Arc::new(OnDisk(octets.clone(), 200_001))];
        for body in bodies {
            let (mut pieces, mut found) = (Pieces::new(body), Vec::new());
            while let Some(piece) = pieces.next().await.unwrap() {
                assert!(piece.len() <= PIECE);
                found.extend_from_slice(&piece);
            }
            assert!(found == octets);
        }
        let mut pieces = Pieces::new(Arc::new(OnDisk(octets, 300_000)));
        let trouble = loop {
            match pieces.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a message that was cut counts as whole"),
                Err(trouble) => break trouble,
            }
        };
        assert_eq!(trouble.text, "the message ended after 200001 of 300000 octets");
    }
}
