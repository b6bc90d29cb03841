//! Header scan: tolerant, bounded, without copying (RFC 5322 §2.2).

/// Longest header that is looked at, in octets; what is beyond belongs to the message but is not read.
pub const MAX_HEAD: usize = 256 * 1024;

/// Most fields that are looked at.
pub const MAX_FIELDS: usize = 1000;

/// The header of a message: the octets up to and including the empty line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    octets: &'a [u8],
}

/// One header field, folding and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as written, without the colon and white space before it.
    pub name: &'a [u8],
    /// What follows the colon, without white space around it; folds are still in it.
    pub value: &'a [u8],
    /// The whole field with its line ends.
    pub octets: &'a [u8],
}

impl Field<'_> {
    /// Whether this is the field called `name`, case aside.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value with folds turned into single spaces (RFC 5322 §2.2.3).
    pub fn unfolded(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.value.len());
        for (i, line) in self.value.split(|o| *o == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if i > 0 {
                out.push(b' ');
                out.extend_from_slice(line.trim_ascii_start());
            } else {
                out.extend_from_slice(line);
            }
        }
        out
    }
}

impl<'a> Head<'a> {
    /// Finds the header at the front of `message`: it ends behind the first empty line, at [`MAX_HEAD`], or where the
    /// message ends. A message that starts with an empty line has an empty header.
    pub fn of(message: &'a [u8]) -> Self {
        Self { octets: &message[..end(message).unwrap_or_else(|| message.len().min(MAX_HEAD))] }
    }

    /// The header's octets, the empty line included.
    pub fn octets(self) -> &'a [u8] {
        self.octets
    }

    /// The fields in their order; lines that are no field (an mbox `From ` line, rubbish) are passed over.
    pub fn fields(self) -> impl Iterator<Item = Field<'a>> {
        self.every_field().take(MAX_FIELDS)
    }

    /// The same beyond [`MAX_FIELDS`], for whoever takes fields out: what is not looked at elsewhere would stay.
    pub fn every_field(self) -> impl Iterator<Item = Field<'a>> {
        Fields { rest: self.octets }
    }

    /// The value of the first field called `name`, case aside.
    pub fn field(self, name: &str) -> Option<&'a [u8]> {
        self.fields().find(|field| field.is(name)).map(|field| field.value)
    }
}

/// Where the header of `message` ends: behind its empty line; `None` when no empty line has come within [`MAX_HEAD`].
///
/// While a message arrives in pieces: once this is `Some`, or [`MAX_HEAD`] octets are there, the header is complete.
pub fn end(message: &[u8]) -> Option<usize> {
    let looked_at = &message[..message.len().min(MAX_HEAD)];
    if looked_at.starts_with(b"\n") {
        return Some(1);
    }
    if looked_at.starts_with(b"\r\n") {
        return Some(2);
    }
    memchr::memchr_iter(b'\n', looked_at).find_map(|at| match &looked_at[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        while !self.rest.is_empty() {
            let mut end = 0;
            loop {
                end += memchr::memchr(b'\n', &self.rest[end..]).map_or(self.rest.len() - end, |at| at + 1);
                if !matches!(self.rest.get(end), Some(b' ' | b'\t')) {
                    break;
                }
            }
            let (octets, rest) = self.rest.split_at(end);
            self.rest = rest;
            let Some(colon) = memchr::memchr(b':', octets) else { continue };
            let name = octets[..colon].trim_ascii_end();
            if name.is_empty() || name.iter().any(|o| !(0x21..=0x7e).contains(o)) {
                continue;
            }
            return Some(Field { name, value: octets[colon + 1..].trim_ascii(), octets });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_with_any_line_end_and_any_folding() {
        let head = Head::of(b"From x\nA: 1\r\n\t2\r\nb :  3\n c\n: no\nno colon\nC:\n\nD: body");
        let fields: Vec<_> = head.fields().map(|f| (f.name, f.unfolded())).collect();
        assert_eq!(fields, [(&b"A"[..], b"1 2".to_vec()), (&b"b"[..], b"3 c".to_vec()), (&b"C"[..], Vec::new())]);
        assert_eq!(head.field("d"), None);
    }

    #[test]
    fn the_header_ends_at_the_first_empty_line_of_either_kind() {
        assert_eq!(end(b"A: 1\r\n\r\nx"), Some(8));
        assert_eq!(end(b"A: 1\n\nx"), Some(6));
        assert_eq!(end(b"A: 1\n\r\nx"), Some(7));
        assert_eq!(end(b"\r\nbody"), Some(2));
        assert_eq!(end(b"A: 1\r\n"), None);
        assert_eq!(end(b"A: 1\r\n\r"), None);
        assert_eq!(end(b""), None);
    }
}
