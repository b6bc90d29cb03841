/// Turns CRLF into LF by blocks, and keeps every other octet: a bare CR stays a CR.
///
/// ```
/// let mut out = Vec::new();
/// let mut line_ends = connectord_mail::LineEnds::default();
/// line_ends.push(b"a\r", &mut out);
/// line_ends.push(b"\nb\rc\n", &mut out);
/// line_ends.finish(&mut out);
/// assert_eq!(out, b"a\nb\rc\n");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LineEnds {
    held_cr: bool,
}

impl LineEnds {
    /// Adds one piece of the message; a CR at its end is held back until it is known what follows.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        let Some(first) = octets.first() else { return };
        if self.held_cr && *first != b'\n' {
            out.push(b'\r');
        }
        self.held_cr = octets.last() == Some(&b'\r');
        let octets = if self.held_cr { &octets[..octets.len() - 1] } else { octets };
        out.reserve(octets.len());
        let mut copied = 0;
        for at in memchr::memchr_iter(b'\r', octets) {
            if octets.get(at + 1) == Some(&b'\n') {
                out.extend_from_slice(&octets[copied..at]);
                copied = at + 1;
            }
        }
        out.extend_from_slice(&octets[copied..]);
    }

    /// Whether a CR is held back.
    pub fn holds_cr(&self) -> bool {
        self.held_cr
    }

    /// Ends the message: a CR that was held back is the message's last octet.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.held_cr {
            out.push(b'\r');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_split_is_a_plain_replacement(text in "[a\r\n]{0,24}", cuts in proptest::collection::vec(0usize..24, 0..4)) {
            let (mut out, mut line_ends) = (Vec::new(), LineEnds::default());
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let mut from = 0;
            for cut in cuts {
                line_ends.push(&text.as_bytes()[from..cut], &mut out);
                from = cut;
            }
            line_ends.finish(&mut out);
            prop_assert_eq!(out, text.replace("\r\n", "\n").into_bytes());
        }
    }
}
