use connectord_mail::UnixTime;

/// The line that begins a message: sender and time, `From s@example.org Sun Nov 22 19:31:00 2026`.
pub(crate) fn from_line(reverse_path: &str, time: UnixTime) -> String {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    let sender: String = reverse_path.chars().map(|c| if odd(c) { '_' } else { c }).take(320).collect();
    let sender = if sender.is_empty() { "MAILER-DAEMON" } else { &sender };
    // `Sun, 22 Nov 2026 19:31:00 +0000`
    let date = time.to_string();
    let words: Vec<_> = date.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    match words[..] {
        [weekday, day, month, year, clock, ..] => {
            let day = day.trim_start_matches('0');
            format!("From {sender} {weekday} {month} {day:>2} {clock} {year}\n")
        }
        _ => format!("From {sender} Thu Jan  1 00:00:00 1970\n"),
    }
}

const FROM: &[u8] = b"From ";

/// Puts a `>` in front of lines that begin with any number of `>` and `From `, so that they begin no message.
///
/// That is mboxrd: it can be undone without loss. Works by blocks; what it holds back is bounded.
#[derive(Debug)]
pub(crate) struct Quoter {
    state: At,
    last: u8,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// At the start of a line, after this many `>` and this many octets of `From `.
    Start {
        quotes: u64,
        matched: usize,
    },
    Inside,
}

impl Default for Quoter {
    fn default() -> Self {
        Self { state: At::Start { quotes: 0, matched: 0 }, last: b'\n' }
    }
}

impl Quoter {
    pub(crate) fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        if let Some(last) = piece.last() {
            self.last = *last;
        }
        while let Some(first) = piece.first() {
            match &mut self.state {
                At::Inside => {
                    let end = memchr::memchr(b'\n', piece).map_or(piece.len(), |at| at + 1);
                    out.extend_from_slice(&piece[..end]);
                    if piece[end - 1] == b'\n' {
                        self.state = At::Start { quotes: 0, matched: 0 };
                    }
                    piece = &piece[end..];
                }
                At::Start { quotes, matched: 0 } if *first == b'>' => {
                    // Written at once: that a `>` more is needed may come out later, and all are alike.
                    *quotes += 1;
                    out.push(b'>');
                    piece = &piece[1..];
                }
                At::Start { matched, .. } if *first == FROM[*matched] => {
                    *matched += 1;
                    piece = &piece[1..];
                    if *matched == FROM.len() {
                        out.push(b'>');
                        out.extend_from_slice(FROM);
                        self.state = At::Inside;
                    }
                }
                At::Start { .. } => self.release(out),
            }
        }
    }

    /// Ends the message: with a line end, and an empty line.
    pub(crate) fn finish(mut self, out: &mut Vec<u8>) {
        self.release(out);
        if self.last != b'\n' {
            out.push(b'\n');
        }
        out.push(b'\n');
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        if let At::Start { matched, .. } = self.state {
            out.extend_from_slice(&FROM[..matched]);
        }
        self.state = At::Inside;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut quoter, mut out) = (Quoter::default(), Vec::new());
        pieces.iter().for_each(|piece| quoter.push(piece, &mut out));
        quoter.finish(&mut out);
        out
    }

    #[test]
    fn the_from_line_has_the_time_as_asctime_writes_it() {
        assert_eq!(from_line("s@x", UnixTime(1_795_375_860)), "From s@x Sun Nov 22 19:31:00 2026\n");
        assert_eq!(from_line("", UnixTime(0)), "From MAILER-DAEMON Thu Jan  1 00:00:00 1970\n");
        assert_eq!(from_line("a b\n", UnixTime(0)), "From a_b_ Thu Jan  1 00:00:00 1970\n");
    }

    #[test]
    fn lines_that_begin_like_a_message_are_quoted() {
        assert_eq!(
            quoted(&[b"From a\n>From b\nFro\nFromage\n > From c\nxFrom \n"]),
            b">From a\n>>From b\nFro\nFromage\n > From c\nxFrom \n\n"
        );
        assert_eq!(quoted(&[b""]), b"\n");
        assert_eq!(quoted(&[b"a"]), b"a\n\n");
        assert_eq!(quoted(&[b">>Fr"]), b">>Fr\n\n");
        assert_eq!(quoted(&[b"From "]), b">From \n\n");
    }

    proptest! {
        #[test]
        fn it_can_be_undone_and_splits_do_not_matter(text in "(>|From |F|\n|x){0,12}", cut in 0usize..40) {
            let text = text.into_bytes();
            let cut = cut.min(text.len());
            let out = quoted(&[&text]);
            prop_assert_eq!(&quoted(&[&text[..cut], &text[cut..]]), &out);
            let lines = out.split(|o| *o == b'\n').map(|line| {
                let quotes = line.iter().take_while(|o| **o == b'>').count();
                assert!(quotes > 0 || !line.starts_with(FROM));
                if quotes > 0 && line[quotes..].starts_with(FROM) { &line[1..] } else { line }
            });
            let back = lines.collect::<Vec<_>>().join(&b'\n');
            let whole = if text.ends_with(b"\n") || text.is_empty() { [&text[..], b"\n"].concat() } else { [&text[..], b"\n\n"].concat() };
            prop_assert_eq!(back, whole);
        }
    }
}
