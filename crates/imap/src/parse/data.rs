//! Untagged data from its tokens; unknown extensions at the end are passed over.

use super::lex::Token;
use crate::{Flag, Flags, Listed, MailboxName, MailboxStatus, NameEncoding, Namespace, Namespaces, Uid, UidSet};

impl Token {
    /// The octets of a name or string; `None` for a parenthesis.
    fn octets(&self) -> Option<&[u8]> {
        match self {
            Self::Atom(octets) | Self::String(octets) => Some(octets),
            Self::Open | Self::Close => None,
        }
    }

    fn is_nil(&self) -> bool {
        matches!(self, Self::Atom(octets) if octets.eq_ignore_ascii_case(b"NIL"))
    }

    fn text(&self) -> Option<String> {
        self.octets().map(|octets| String::from_utf8_lossy(octets).into_owned())
    }
}

/// `(\Seen …)`; what is no flag is passed over.
pub(crate) fn flags(tokens: &[Token]) -> Option<Flags> {
    let [Token::Open, inner @ .., Token::Close] = tokens else { return None };
    Some(inner.iter().filter_map(|token| Flag::parse(token.octets()?)).collect())
}

/// LIST: `(attributes) delimiter name`.
pub(crate) fn listed(tokens: &[Token], encoding: NameEncoding) -> Option<Listed> {
    let [Token::Open, rest @ ..] = tokens else { return None };
    let end = rest.iter().position(|token| *token == Token::Close)?;
    let attributes = rest[..end].iter().filter_map(Token::text).map(|text| text.to_ascii_lowercase()).collect();
    // A lone backslash among the attributes (home.pl, 2018) is an attribute that means nothing.
    let [delimiter_token, name, ..] = &rest[end + 1..] else { return None };
    Some(Listed {
        name: MailboxName::from_wire(name.octets()?, encoding),
        delimiter: delimiter(delimiter_token)?,
        attributes,
    })
}

/// `None`: no delimiter; `Some(None)`: NIL. Any character may be one: Domino has a backslash (2013).
fn delimiter(token: &Token) -> Option<Option<char>> {
    if token.is_nil() {
        return Some(None);
    }
    let text = token.text()?;
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (first, None) => Some(first),
        _ => None,
    }
}

/// STATUS: `name (item number …)`.
pub(crate) fn mailbox_status(tokens: &[Token], encoding: NameEncoding) -> Option<MailboxStatus> {
    let [name, Token::Open, items @ .., Token::Close] = tokens else { return None };
    let mut status = MailboxStatus {
        mailbox: MailboxName::from_wire(name.octets()?, encoding),
        messages: None,
        uid_next: None,
        uid_validity: None,
        unseen: None,
        deleted: None,
        size: None,
        highest_modseq: None,
    };
    for item in items.chunks_exact(2) {
        let [name, value] = item else { return None };
        let number = value.octets().and_then(super::number);
        let number32 = number.and_then(|number| u32::try_from(number).ok());
        match name.octets()?.to_ascii_uppercase().as_slice() {
            b"MESSAGES" => status.messages = number32,
            b"UIDNEXT" => status.uid_next = number32.and_then(Uid::new),
            b"UIDVALIDITY" => status.uid_validity = value.octets().and_then(super::uid_validity),
            b"UNSEEN" => status.unseen = number32,
            b"DELETED" => status.deleted = number32,
            b"SIZE" => status.size = number,
            b"HIGHESTMODSEQ" => status.highest_modseq = number,
            _ => {}
        }
    }
    Some(status)
}

/// NAMESPACE: three times NIL or `((prefix delimiter …) …)` (RFC 2342 §6).
pub(crate) fn namespaces(tokens: &[Token], encoding: NameEncoding) -> Option<Namespaces> {
    let mut groups: [Vec<Namespace>; 3] = Default::default();
    let (mut depth, mut group, mut fields) = (0u32, 0, Vec::new());
    for token in tokens {
        match token {
            Token::Open => {
                depth += 1;
                if depth == 2 {
                    fields.clear();
                }
            }
            Token::Close => {
                depth = depth.checked_sub(1)?;
                match depth {
                    0 => group += 1,
                    1 => groups.get_mut(group)?.push(one_namespace(&fields, encoding)?),
                    _ => {}
                }
            }
            token if depth == 0 && token.is_nil() => group += 1,
            token if depth == 2 => fields.push(token),
            // Deeper: extensions of the namespace.
            _ if depth > 2 => {}
            _ => return None,
        }
    }
    let [personal, other, shared] = groups;
    (group >= 3).then_some(Namespaces { personal, other, shared })
}

fn one_namespace(fields: &[&Token], encoding: NameEncoding) -> Option<Namespace> {
    let [prefix, separator, ..] = fields else { return None };
    Some(Namespace { prefix: MailboxName::from_wire(prefix.octets()?, encoding), delimiter: delimiter(separator)? })
}

/// ID: NIL or `("name" "value" …)` (RFC 2971 §3.2).
pub(crate) fn id(tokens: &[Token]) -> Option<Vec<(String, String)>> {
    match tokens {
        [token] if token.is_nil() => Some(Vec::new()),
        [Token::Open, fields @ .., Token::Close] => fields
            .chunks_exact(2)
            .map(|field| {
                let value = if field[1].is_nil() { String::new() } else { field[1].text()? };
                Some((field[0].text()?.to_ascii_lowercase(), value))
            })
            .collect(),
        _ => None,
    }
}

/// VANISHED: `(EARLIER) set` or `set`.
pub(crate) fn vanished(tokens: &[Token]) -> Option<UidSet> {
    // A line bounds the number of ranges.
    UidSet::parse(tokens.last()?.octets()?, usize::MAX).ok()
}
