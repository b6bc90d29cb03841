use bytes::{Buf, Bytes, BytesMut};

/// Received octets that a session has not consumed yet, with bounded framing.
///
/// Searching resumes where the last search ended, so a line that arrives octet by octet costs linear time.
#[derive(Debug, Default)]
pub struct Inbox {
    buffer: BytesMut,
    searched: usize,
    closed: bool,
}

/// Room that an empty inbox may keep, in octets.
const KEPT: usize = 1024;

/// A line passed its limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line of more than {limit} octets")]
pub struct LineTooLong {
    /// The limit, in octets, line end included.
    pub limit: usize,
}

impl Inbox {
    /// Starts empty and open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends what arrived; an empty slice marks the end of the stream.
    pub fn extend(&mut self, octets: &[u8]) {
        if octets.is_empty() {
            self.closed = true;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT && octets.len() < KEPT {
            // After much came little: a connection that now waits for hours shall not own the room that much took.
            self.buffer = BytesMut::new();
        }
        self.buffer.extend_from_slice(octets);
    }

    /// Whether the peer has closed its side; what it sent before may still be here.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Octets not consumed yet.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether everything was consumed.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What is there, unconsumed.
    pub fn peek(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes one line off the front, without its CRLF (a bare LF ends a line too: several servers send it).
    ///
    /// # Errors
    /// [`LineTooLong`] when no line end comes within `limit` octets.
    pub fn line(&mut self, limit: usize) -> Result<Option<Bytes>, LineTooLong> {
        match memchr::memchr(b'\n', &self.buffer[self.searched..]) {
            Some(at) => {
                let end = self.searched + at;
                if end + 1 > limit {
                    return Err(LineTooLong { limit });
                }
                self.searched = 0;
                let mut line = self.buffer.split_to(end + 1).freeze();
                line.truncate(if line[..end].ends_with(b"\r") { end - 1 } else { end });
                Ok(Some(line))
            }
            None if self.buffer.len() >= limit => Err(LineTooLong { limit }),
            None => {
                self.searched = self.buffer.len();
                Ok(None)
            }
        }
    }

    /// Takes exactly `count` octets off the front.
    ///
    /// # Panics
    /// When fewer are there; compare with [`Inbox::len`] first.
    pub fn take(&mut self, count: usize) -> Bytes {
        self.searched = self.searched.saturating_sub(count);
        self.buffer.split_to(count).freeze()
    }

    /// Takes at most `count` octets off the front, as many as are there.
    pub fn take_up_to(&mut self, count: u64) -> Bytes {
        let here = usize::try_from(count).unwrap_or(usize::MAX).min(self.buffer.len());
        self.take(here)
    }

    /// Drops `count` octets from the front.
    ///
    /// # Panics
    /// When fewer are there.
    pub fn skip(&mut self, count: usize) {
        self.searched = self.searched.saturating_sub(count);
        self.buffer.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_be_exactly_as_long_as_the_limit() {
        let mut inbox = Inbox::new();
        inbox.extend(b"abc\r\n");
        assert_eq!(inbox.line(5), Ok(Some(Bytes::from_static(b"abc"))));
        inbox.extend(b"abcd\r\n");
        assert_eq!(inbox.line(5), Err(LineTooLong { limit: 5 }));
    }

    #[test]
    fn an_endless_line_is_refused_before_it_fills_memory() {
        let mut inbox = Inbox::new();
        inbox.extend(&[b'x'; 64]);
        assert_eq!(inbox.line(64), Err(LineTooLong { limit: 64 }));
    }

    #[test]
    fn only_the_cr_before_the_lf_belongs_to_the_line_end() {
        let mut inbox = Inbox::new();
        inbox.extend(b"a\rb\r\r\nc\n\n");
        assert_eq!(inbox.line(99), Ok(Some(Bytes::from_static(b"a\rb\r"))));
        assert_eq!(inbox.line(99), Ok(Some(Bytes::from_static(b"c"))));
        assert_eq!(inbox.line(99), Ok(Some(Bytes::new())));
        assert_eq!(inbox.line(99), Ok(None));
    }
}
