//! What is learnt of a message while it passes by: its header, and a digest of what is behind it. And its line ends become LF.

use connectord_mail::{BodyDigest, Digested, Fingerprint, Head, LineEnds, head, names_its_message};

/// A message that is passing by.
#[derive(Default)]
pub(crate) struct Skim {
    head: Vec<u8>,
    /// Where the body begins in what was passed on, once the header is complete.
    from: Option<u64>,
    line_ends: LineEnds,
    body: BodyDigest,
    /// Octets that came.
    size_octets: u64,
    /// Octets that were passed on, and LF among them.
    passed_octets: u64,
    line_feeds: u64,
}

/// What has been seen of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) fingerprint: Fingerprint,
    /// Whether its header names it; else the size says more.
    pub(crate) named: bool,
}

/// What is known of a message that passed whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) seen: Seen,
    /// The header as it came, at most [`head::MAX_HEAD`] octets.
    pub(crate) head: Vec<u8>,
    /// In octets of what was passed on.
    pub(crate) digested: Digested,
    /// Octets that came.
    pub(crate) size_octets: u64,
    /// Octets that were passed on, and LF among them.
    pub(crate) passed_octets: u64,
    pub(crate) line_feeds: u64,
}

impl Skim {
    /// Takes what came, and passes it on to `out` with every CRLF as LF. A CR at its end comes with what follows.
    pub(crate) fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        self.size_octets += octets.len() as u64;
        let mut rest = octets;
        if self.from.is_none() {
            let before = self.head.len();
            let taken = octets.len().min(head::MAX_HEAD - before);
            self.head.extend_from_slice(&octets[..taken]);
            let end = head::end(&self.head).or_else(|| (self.head.len() == head::MAX_HEAD).then_some(head::MAX_HEAD));
            // The end was not there before these octets came.
            let of_head = end.map_or(octets.len(), |end| end - before);
            let start = out.len();
            self.line_ends.push(&octets[..of_head], out);
            self.count(&out[start..]);
            let Some(end) = end else { return };
            self.head.truncate(end);
            self.from = Some(self.passed_octets);
            rest = &octets[of_head..];
        }
        let start = out.len();
        self.line_ends.push(rest, out);
        self.body.update_plain(&out[start..]);
        self.count(&out[start..]);
    }

    /// The message has ended: passes on what was held back.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        std::mem::take(&mut self.line_ends).finish(out);
        if self.from.is_some() {
            self.body.update_plain(&out[start..]);
        }
        self.count(&out[start..]);
    }

    fn count(&mut self, passed: &[u8]) {
        self.passed_octets += passed.len() as u64;
        self.line_feeds += memchr::memchr_iter(b'\n', passed).count() as u64;
    }

    pub(crate) fn size_octets(&self) -> u64 {
        self.size_octets
    }

    /// The header, at most [`head::MAX_HEAD`] octets.
    pub(crate) fn head(&self) -> Head<'_> {
        Head::of(&self.head)
    }

    /// All of the message has passed, and [`Skim::end`] was called.
    pub(crate) fn whole(self) -> Whole {
        let digested = Digested { from: self.from.unwrap_or(self.passed_octets), sha256: self.body.sha256() };
        let head = Head::of(&self.head);
        let fingerprint = Fingerprint::new(head, self.size_octets).with_body_sha256(&digested.sha256);
        let seen = Seen { fingerprint, named: names_its_message(head) };
        let Self { head, size_octets, passed_octets, line_feeds, .. } = self;
        Whole { seen, head, digested, size_octets, passed_octets, line_feeds }
    }
}

/// A message that is not kept.
#[derive(Default)]
pub(crate) struct Glance {
    skim: Skim,
    /// Used again for each piece.
    passed: Vec<u8>,
}

/// Octets looked at together.
const BLOCK: usize = 8 * 1024;

impl Glance {
    pub(crate) fn push(&mut self, octets: &[u8]) {
        for piece in octets.chunks(BLOCK) {
            self.passed.clear();
            self.skim.push(piece, &mut self.passed);
        }
    }

    pub(crate) fn size_octets(&self) -> u64 {
        self.skim.size_octets()
    }

    /// The header, at most [`head::MAX_HEAD`] octets.
    pub(crate) fn head(&self) -> Head<'_> {
        self.skim.head()
    }

    /// All of the message has passed.
    pub(crate) fn whole(mut self) -> Seen {
        self.passed.clear();
        self.skim.end(&mut self.passed);
        self.skim.whole().seen
    }

    /// Only its header has passed; `size_octets` is the server's word.
    pub(crate) fn header_only(&self, size_octets: Option<u64>) -> Seen {
        let fingerprint = Fingerprint::new(self.head(), size_octets.unwrap_or(0));
        Seen { fingerprint, named: names_its_message(self.head()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(pieces: &[&[u8]]) -> (Whole, Vec<u8>) {
        let (mut skim, mut out) = (Skim::default(), Vec::new());
        pieces.iter().for_each(|piece| skim.push(piece, &mut out));
        skim.end(&mut out);
        (skim.whole(), out)
    }

    #[test]
    fn a_message_is_the_same_in_whatever_pieces_it_comes() {
        for message in [
            &b"Message-ID: <1@x>\r\nSubject: a\r\n\r\nbody\r\nof two lines\r\n"[..],
            b"\r\nno header",
            b"Subject: no body\n\n",
            b"Subject: no end",
            b"Subject: a CR\r",
            b"Subject: CRs\n\n\r\r\n\rx\r",
            b"",
        ] {
            let wanted = passed(&[message]);
            let head = Head::of(message);
            let mut body = BodyDigest::default();
            body.update(&message[head.octets().len()..]);
            assert_eq!(wanted.0.seen.fingerprint, Fingerprint::new(head, message.len() as u64).with_body(body));
            assert_eq!(wanted.0.head, head.octets());
            let (mut plain, mut line_ends) = (Vec::new(), LineEnds::default());
            line_ends.push(message, &mut plain);
            line_ends.finish(&mut plain);
            assert_eq!(wanted.1, plain);
            let Whole { digested, size_octets, passed_octets, line_feeds, .. } = wanted.0.clone();
            assert_eq!((size_octets, passed_octets), (message.len() as u64, plain.len() as u64));
            assert_eq!(line_feeds, plain.iter().filter(|octet| **octet == b'\n').count() as u64);
            let mut behind = BodyDigest::default();
            behind.update_plain(&plain[usize::try_from(digested.from).unwrap()..]);
            assert_eq!(behind.sha256(), digested.sha256);
            for from in 0..=message.len() {
                for to in from..=message.len() {
                    let pieces = [&message[..from], &message[from..to], &message[to..]];
                    assert_eq!(passed(&pieces), wanted, "{from} {to}");
                }
            }
        }
    }

    #[test]
    fn a_header_without_end_is_cut_and_the_rest_is_body() {
        // Cut behind the header's last octet, and between the octets of a CRLF.
        for (filling, behind) in [(b'x', &b"\r\n\r\nbody"[..]), (b'\r', b"\nbody"), (b'\r', b"body")] {
            let mut long = vec![b'x'; head::MAX_HEAD];
            long[head::MAX_HEAD - 1] = filling;
            long.extend_from_slice(behind);
            let pieces: Vec<&[u8]> = long.chunks(1000).collect();
            let (whole, out) = passed(&pieces);
            assert_eq!((whole.clone(), out.clone()), passed(&[&long]));
            assert_eq!(whole.head.len(), head::MAX_HEAD);
            let mut body = BodyDigest::default();
            body.update_plain(&out[usize::try_from(whole.digested.from).unwrap()..]);
            assert_eq!(body.sha256(), whole.digested.sha256);
        }
    }
}
