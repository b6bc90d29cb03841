/// One argument of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arg {
    /// As it stands, with brackets and what is in them: `BODY.PEEK[HEADER.FIELDS (A B)]<0.10>`.
    Atom(String),
    /// A quoted string or a literal.
    Text(Vec<u8>),
    /// In parentheses.
    List(Vec<Self>),
}

impl Arg {
    /// The octets of an atom or a string, as text.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Atom(atom) => Some(atom.clone()),
            Self::Text(octets) => Some(String::from_utf8_lossy(octets).into_owned()),
            Self::List(_) => None,
        }
    }

    /// An atom in upper case.
    pub(super) fn keyword(&self) -> Option<String> {
        match self {
            Self::Atom(atom) => Some(atom.to_ascii_uppercase()),
            _ => None,
        }
    }

    /// The elements of a list, or this alone.
    pub(super) fn elements(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            one => std::slice::from_ref(one),
        }
    }
}

/// If the line ends with the announcement of a literal: its length, and whether the client waits for us.
pub(super) fn literal(line: &[u8]) -> Option<(usize, bool)> {
    let inner = line.strip_suffix(b"}")?;
    let open = inner.iter().rposition(|octet| *octet == b'{')?;
    let number = std::str::from_utf8(&inner[open + 1..]).ok()?;
    let (number, waits) = number.strip_suffix('+').map_or((number, true), |number| (number, false));
    Some((number.parse().ok()?, waits))
}

/// The arguments of a command, literals being `{n}` CRLF and their octets; nothing if it has no such form.
pub(super) fn arguments(input: &[u8]) -> Option<Vec<Arg>> {
    let mut parser = Parser { input, at: 0, depth: 0 };
    let list = parser.list(None)?;
    (parser.at == input.len()).then_some(list)
}

struct Parser<'a> {
    input: &'a [u8],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    fn list(&mut self, end: Option<u8>) -> Option<Vec<Arg>> {
        let mut list = Vec::new();
        loop {
            match self.peek() {
                octet if octet == end => {
                    self.at += usize::from(end.is_some());
                    return Some(list);
                }
                Some(b' ') => self.at += 1,
                None => return None,
                Some(_) => list.push(self.argument()?),
            }
        }
    }

    fn argument(&mut self) -> Option<Arg> {
        match self.peek()? {
            b'(' if self.depth < 8 => {
                self.at += 1;
                self.depth += 1;
                let list = self.list(Some(b')'))?;
                self.depth -= 1;
                Some(Arg::List(list))
            }
            b'"' => self.quoted(),
            b'{' => self.literal(),
            b'(' | b')' => None,
            _ => self.atom(),
        }
    }

    fn quoted(&mut self) -> Option<Arg> {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(Arg::Text(text));
                }
                b'\\' => {
                    text.push(*self.input.get(self.at + 1)?);
                    self.at += 2;
                }
                octet => {
                    text.push(octet);
                    self.at += 1;
                }
            }
        }
    }

    fn literal(&mut self) -> Option<Arg> {
        let end = self.at + self.input[self.at..].iter().position(|octet| *octet == b'\n')?;
        let announced = self.input[self.at..end].strip_suffix(b"\r")?;
        let (length, _) = literal(announced)?;
        let octets = self.input.get(end + 1..(end + 1).checked_add(length)?)?;
        self.at = end + 1 + length;
        Some(Arg::Text(octets.to_vec()))
    }

    fn atom(&mut self) -> Option<Arg> {
        let start = self.at;
        while let Some(octet) = self.peek() {
            match octet {
                b'[' => self.at += self.input[self.at..].iter().position(|octet| *octet == b']')? + 1,
                b' ' | b'(' | b')' | b'"' | b'{' => break,
                _ => self.at += 1,
            }
        }
        Some(Arg::Atom(String::from_utf8_lossy(&self.input[start..self.at]).into_owned()))
    }
}

/// The members of `known` (ascending) that a set such as `1:3,7,9:*` names; nothing if it is no set.
pub(super) fn in_set(set: &str, known: &[u32]) -> Option<Vec<u32>> {
    let last = known.last().copied().unwrap_or(0);
    let number = |text: &str| if text == "*" { Some(last) } else { text.parse::<u32>().ok().filter(|n| *n > 0) };
    let mut ranges = Vec::new();
    for part in set.split(',') {
        let (from, to) = part.split_once(':').unwrap_or((part, part));
        let (from, to) = (number(from)?, number(to)?);
        ranges.push(from.min(to)..=from.max(to));
    }
    ranges.sort_by_key(|range| *range.start());
    let mut found: Vec<u32> = Vec::new();
    for range in ranges {
        let begin = known.partition_point(|uid| uid < range.start());
        let end = known.partition_point(|uid| uid <= range.end());
        found.extend(
            known[begin..end]
                .iter()
                .filter(|uid| found.last().is_none_or(|last| last < uid))
                .copied()
                .collect::<Vec<_>>(),
        );
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_apart() {
        let atom = |text: &str| Arg::Atom(text.to_owned());
        let text = |text: &str| Arg::Text(text.as_bytes().to_vec());
        assert_eq!(
            arguments(b"FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (A B)]<0.10>)"),
            Some(vec![
                atom("FETCH"),
                atom("1:*"),
                Arg::List(vec![atom("UID"), atom("BODY.PEEK[HEADER.FIELDS (A B)]<0.10>")])
            ])
        );
        assert_eq!(arguments(b"LOGIN {3+}\r\na\"b \"c\\\"d\""), Some(vec![atom("LOGIN"), text("a\"b"), text("c\"d")]));
        assert_eq!(arguments(b"X (a (b)) ()"), {
            let inner = Arg::List(vec![atom("b")]);
            Some(vec![atom("X"), Arg::List(vec![atom("a"), inner]), Arg::List(vec![])])
        });
        for wrong in [&b"X ("[..], b"X )", b"X \"a", b"X {9}\r\nabc", b"X BODY["] {
            assert_eq!(arguments(wrong), None);
        }
    }

    #[test]
    fn sets_name_what_is_there() {
        let known = [2, 3, 5, 8, 13];
        assert_eq!(in_set("3:8", &known), Some(vec![3, 5, 8]));
        assert_eq!(in_set("9:*", &known), Some(vec![13]));
        assert_eq!(in_set("99:*", &known), Some(vec![13]));
        assert_eq!(in_set("13,2,3:5,4:8", &known), Some(vec![2, 3, 5, 8, 13]));
        assert_eq!(in_set("1:*", &[]), Some(vec![]));
        assert_eq!(in_set("0", &known), None);
    }

    #[test]
    fn literals_are_seen_at_the_end_of_a_line() {
        assert_eq!(literal(b"a LOGIN {3}"), Some((3, true)));
        assert_eq!(literal(b"a LOGIN {12+}"), Some((12, false)));
        assert_eq!(literal(b"a LOGIN \"{3}\""), None);
        assert_eq!(literal(b"a LOGIN {x}"), None);
    }
}
