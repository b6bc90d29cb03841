//! What is learnt of a message while it passes by: its header, and digests of all of it.

use connectord_mail::{BodyDigest, Digested, Fingerprint, Head, head, names_its_message};

/// A message that is passing by.
#[derive(Default)]
pub(crate) struct Skim {
    head: Vec<u8>,
    head_complete: bool,
    body: BodyDigest,
    size_octets: u64,
}

/// What has been seen of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) fingerprint: Fingerprint,
    /// Whether its header names it; else the size says more.
    pub(crate) named: bool,
}

impl Skim {
    pub(crate) fn push(&mut self, octets: &[u8]) {
        self.size_octets += octets.len() as u64;
        let mut rest = octets;
        if !self.head_complete {
            let before = self.head.len();
            let taken = octets.len().min(head::MAX_HEAD - before);
            self.head.extend_from_slice(&octets[..taken]);
            let end = head::end(&self.head).or_else(|| (self.head.len() == head::MAX_HEAD).then_some(head::MAX_HEAD));
            let Some(end) = end else { return };
            self.head.truncate(end);
            self.head_complete = true;
            // The end was not there before these octets came.
            rest = &octets[end - before..];
        }
        self.body.update(rest);
    }

    pub(crate) fn size_octets(&self) -> u64 {
        self.size_octets
    }

    /// The header, at most [`head::MAX_HEAD`] octets.
    pub(crate) fn head(&self) -> Head<'_> {
        Head::of(&self.head)
    }

    /// All of the message has passed.
    pub(crate) fn whole(self) -> (Seen, Vec<u8>, Digested) {
        let digested = Digested { from: self.head.len() as u64, sha256: self.body.sha256() };
        let head = Head::of(&self.head);
        let fingerprint = Fingerprint::new(head, self.size_octets).with_body_sha256(&digested.sha256);
        (Seen { fingerprint, named: names_its_message(head) }, self.head, digested)
    }

    /// Only its header has passed; `size_octets` is the server's word.
    pub(crate) fn header_only(&self, size_octets: Option<u64>) -> Seen {
        Seen {
            fingerprint: Fingerprint::new(self.head(), size_octets.unwrap_or(0)),
            named: names_its_message(self.head()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_same_in_whatever_pieces_it_comes() {
        for message in [
            &b"Message-ID: <1@x>\r\nSubject: a\r\n\r\nbody\r\nof two lines\r\n"[..],
            b"\r\nno header",
            b"Subject: no body\n\n",
            b"Subject: no end",
            b"",
        ] {
            let seen = |cuts: [usize; 2]| {
                let mut skim = Skim::default();
                for piece in [&message[..cuts[0]], &message[cuts[0]..cuts[1]], &message[cuts[1]..]] {
                    skim.push(piece);
                }
                skim.whole()
            };
            let wanted = seen([0, 0]);
            let head = Head::of(message);
            let mut body = BodyDigest::default();
            body.update(&message[head.octets().len()..]);
            assert_eq!(wanted.0.fingerprint, Fingerprint::new(head, message.len() as u64).with_body(body));
            assert_eq!(wanted.1, head.octets());
            for from in 0..=message.len() {
                for to in from..=message.len() {
                    assert_eq!(seen([from, to]), wanted, "{from} {to}");
                }
            }
        }
    }

    #[test]
    fn a_header_without_end_is_cut_and_the_rest_is_body() {
        let long = [&b"Subject: "[..], &vec![b'x'; head::MAX_HEAD], b"\r\n\r\nbody"].concat();
        let (mut skim, mut other) = (Skim::default(), Skim::default());
        long.chunks(1000).for_each(|piece| skim.push(piece));
        other.push(&long);
        let (seen, head, _) = skim.whole();
        assert_eq!((seen, head.len()), (other.whole().0, head::MAX_HEAD));
    }
}
