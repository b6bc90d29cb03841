use super::super::Misbehaviour;
use super::super::mailbox::Entry;
use super::parse::Arg;
use crate::date::internal_date;

/// What FETCH was asked for.
pub(super) struct Wanted {
    items: Vec<Item>,
}

enum Item {
    Uid,
    Flags,
    InternalDate,
    Size,
    Body { label: String, section: Section, range: Option<(usize, usize)>, peek: bool },
}

enum Section {
    Whole,
    Header,
    Fields(Vec<String>),
    Text,
}

impl Wanted {
    /// Understands the items; the first that is unknown comes back.
    pub(super) fn parse(argument: &Arg) -> Result<Self, String> {
        let mut items = vec![Item::Uid];
        for element in argument.elements() {
            let word = element.keyword().ok_or("a list in the list")?;
            items.push(match word.as_str() {
                "UID" => continue,
                "FLAGS" => Item::Flags,
                "INTERNALDATE" => Item::InternalDate,
                "RFC822.SIZE" => Item::Size,
                _ => body(&word).ok_or(word)?,
            });
        }
        Ok(Self { items })
    }

    /// Whether whole messages are asked for.
    pub(super) fn is_retrieval(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Body { section: Section::Whole, range: None, .. }))
    }

    /// Whether reading makes messages `\Seen`.
    pub(super) fn marks_seen(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Body { peek: false, .. }))
    }

    /// Appends the response of one message.
    pub(super) fn respond(
        &self,
        number: usize,
        uid: u32,
        entry: &Entry,
        misbehaviour: &Misbehaviour,
        out: &mut Vec<u8>,
    ) {
        let octets = entry.sent(misbehaviour.bare_lf);
        out.extend_from_slice(format!("* {number} FETCH (").as_bytes());
        for (n, item) in self.items.iter().enumerate() {
            if n > 0 {
                out.push(b' ');
            }
            match item {
                Item::Uid => out.extend_from_slice(format!("UID {uid}").as_bytes()),
                Item::Flags => {
                    let flags: Vec<_> = entry.flags.iter().map(String::as_str).collect();
                    out.extend_from_slice(format!("FLAGS ({})", flags.join(" ")).as_bytes());
                }
                Item::InternalDate => {
                    out.extend_from_slice(format!("INTERNALDATE \"{}\"", internal_date(entry.received)).as_bytes());
                }
                Item::Size => {
                    let size = (octets.len() as u64).saturating_add_signed(misbehaviour.size_error);
                    out.extend_from_slice(format!("RFC822.SIZE {size}").as_bytes());
                }
                Item::Body { label, section, range, .. } => {
                    let part = section.of(octets);
                    let (shown, origin) = match range {
                        Some((origin, count)) => {
                            let begin = (*origin).min(part.len());
                            (&part[begin..begin.saturating_add(*count).min(part.len())], format!("<{origin}>"))
                        }
                        None => (&part[..], String::new()),
                    };
                    out.extend_from_slice(format!("{label}{origin} {{{}}}\r\n", shown.len()).as_bytes());
                    out.extend_from_slice(shown);
                }
            }
        }
        out.extend_from_slice(b")\r\n");
    }
}

/// `BODY[…]` or `BODY.PEEK[…]`, with a range or without.
fn body(word: &str) -> Option<Item> {
    let (peek, rest) = match word.strip_prefix("BODY.PEEK[") {
        Some(rest) => (true, rest),
        None => (false, word.strip_prefix("BODY[")?),
    };
    let (section, range) = rest.split_once(']')?;
    let range = match range {
        "" => None,
        range => {
            let (origin, count) = range.strip_prefix('<')?.strip_suffix('>')?.split_once('.')?;
            Some((origin.parse().ok()?, count.parse().ok()?))
        }
    };
    let label = format!("BODY[{section}]");
    let section = match section {
        "" => Section::Whole,
        "HEADER" => Section::Header,
        "TEXT" => Section::Text,
        section => {
            let names = section.strip_prefix("HEADER.FIELDS (")?.strip_suffix(')')?;
            Section::Fields(names.split(' ').map(str::to_owned).collect())
        }
    };
    Some(Item::Body { label, section, range, peek })
}

impl Section {
    fn of<'a>(&self, octets: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        match self {
            Self::Whole => octets.into(),
            Self::Header => octets[..header_end(octets)].into(),
            Self::Text => octets[header_end(octets)..].into(),
            Self::Fields(names) => {
                let mut out = Vec::new();
                let mut wanted = false;
                for line in octets[..header_end(octets)].split_inclusive(|octet| *octet == b'\n') {
                    if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                        let name = line.split(|octet| *octet == b':').next().unwrap_or_default();
                        wanted = names.iter().any(|n| n.as_bytes().eq_ignore_ascii_case(name.trim_ascii_end()));
                    }
                    if wanted {
                        out.extend_from_slice(line);
                    }
                }
                out.extend_from_slice(b"\r\n");
                out.into()
            }
        }
    }
}

/// Behind the empty line, or the end of a message that has none.
fn header_end(octets: &[u8]) -> usize {
    let mut end = 0;
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        end += line.len();
        if line == b"\r\n" || line == b"\n" {
            break;
        }
    }
    end
}
