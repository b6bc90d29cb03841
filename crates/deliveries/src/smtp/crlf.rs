/// Makes every line end CRLF and leaves out the last one, which lettre writes itself before the final dot.
///
/// Bare CR and bare LF become CRLF: lettre stuffs dots only behind CRLF, and a server that takes a bare LF for a line end
/// would let the message end where its sender wants (CVE-2023-51764).
#[derive(Debug, Default)]
pub(crate) struct Crlf {
    after_cr: bool,
    held: bool,
}

impl Crlf {
    /// The next piece of the message; it may end anywhere.
    pub(crate) fn push(&mut self, octets: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(octets.len() + octets.len() / 32 + 2);
        let mut rest = octets;
        while let Some(first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            if std::mem::replace(&mut self.held, false) {
                out.extend_from_slice(b"\r\n");
            }
            let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
                out.extend_from_slice(rest);
                break;
            };
            out.extend_from_slice(&rest[..end]);
            self.held = true;
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(message: &[u8], pieces: usize) -> Vec<u8> {
        let mut crlf = Crlf::default();
        message.chunks(pieces.max(1)).flat_map(|piece| crlf.push(piece)).collect()
    }

    #[test]
    fn only_the_last_line_end_is_left_out() {
        for (message, expected) in [
            (&b"a\r\nb\r\n"[..], &b"a\r\nb"[..]),
            (b"a\nb\n\n", b"a\r\nb\r\n"),
            (b"a\rb\r", b"a\r\nb"),
            (b"a\n\r\n.\r", b"a\r\n\r\n."),
            (b"a", b"a"),
            (b"\r\n", b""),
            (b"", b""),
        ] {
            assert_eq!(whole(message, 99), expected, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_as_the_stuffer(message in "([a.\r\n]|\r\n){0,40}", pieces in 1usize..9) {
            let mut wire = Vec::new();
            let mut stuffer = connectord_wire::dot::stuff();
            stuffer.push(message.replace('.', "_").as_bytes(), &mut wire);
            stuffer.finish(&mut wire);
            let mut ours = whole(message.replace('.', "_").as_bytes(), pieces);
            ours.extend_from_slice(b"\r\n.\r\n");
            // An empty message: lettre writes one empty line.
            if wire == b".\r\n" { wire = b"\r\n.\r\n".to_vec() }
            prop_assert_eq!(ours, wire);
        }
    }
}
