//! What the pieces of a field mean.

use std::net::IpAddr;

use super::pieces::{Piece, pieces};
use super::{MAX_TEXT, Peer, Received, Tls, address};
use crate::UnixTime;

/// The clause a piece stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clause {
    /// Before the first keyword: qmail's `(qmail 123 invoked by uid 7)`.
    Front,
    From,
    By,
    Via,
    With,
    Id,
    For,
    Tls,
    EnvelopeFrom,
    /// Behind the last semicolon.
    Date,
}

pub(super) fn read(value: &[u8]) -> Received {
    let pieces = pieces(value);
    let last_semicolon = pieces.iter().rposition(|piece| matches!(piece, Piece::Semicolon(_)));
    let mut field = Received::default();
    let mut from = FromClause::default();
    let mut clause = Clause::Front;
    let mut fresh = false;
    for (at, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Semicolon(left) if Some(at) == last_semicolon => {
                field.date = UnixTime::parse_rfc5322(date(&value[value.len() - left..]));
                clause = Clause::Date;
            }
            Piece::Semicolon(_) => {}
            Piece::Comment(comment) => {
                let comment = String::from_utf8_lossy(comment);
                if !remark(&comment, &mut field) {
                    // A client that calls itself `(` has put what the server wrote into a comment.
                    let swallowed = |word: &str| matches!(keyword(word), Some(Clause::By | Clause::From));
                    field.ambiguous |= clause == Clause::From && comment.split_whitespace().any(swallowed);
                    match clause {
                        Clause::From => from.comment(&comment),
                        Clause::By | Clause::With | Clause::Id => writer(&comment, &mut field),
                        _ => {}
                    }
                }
                fresh &= clause == Clause::From;
            }
            Piece::Word(word) => {
                let word = String::from_utf8_lossy(word);
                match keyword(&word) {
                    // Whatever stands right behind a keyword is its value: a client may call itself "by".
                    Some(next) if !fresh || (clause == Clause::From && from.started()) => {
                        let again = match next {
                            Clause::From => from.seen,
                            Clause::By => field.by.is_some(),
                            _ => false,
                        };
                        field.ambiguous |= again && clause != Clause::Date;
                        if clause != Clause::Date || next == Clause::Id {
                            from.seen |= next == Clause::From;
                            clause = next;
                            fresh = true;
                        }
                    }
                    _ => {
                        take(clause, fresh, &word, &mut field, &mut from);
                        fresh = false;
                    }
                }
            }
        }
    }
    finish(field, from)
}

fn keyword(word: &str) -> Option<Clause> {
    let keywords = [
        ("from", Clause::From),
        ("by", Clause::By),
        ("via", Clause::Via),
        ("with", Clause::With),
        ("id", Clause::Id),
        ("for", Clause::For),
        ("tls", Clause::Tls),
        ("envelope-from", Clause::EnvelopeFrom),
    ];
    keywords.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, clause)| clause)
}

/// A word in its clause; `fresh` is the first one.
fn take(clause: Clause, fresh: bool, word: &str, field: &mut Received, from: &mut FromClause) {
    match clause {
        Clause::From => from.word(word),
        Clause::By if fresh => {
            field.by = text(word.trim_matches(['[', ']']));
            field.by_address = address(word);
        }
        Clause::By => field.by_address = field.by_address.or_else(|| bracketed(word)),
        Clause::Via if fresh => field.via = text(word),
        // `Microsoft SMTP Server`, `Local SMTP`, `ECDHE-RSA-AES256-GCM-SHA384 encrypted SMTP` are several words.
        Clause::With => match &mut field.with {
            Some(with) if with.len() + word.len() < MAX_TEXT && text(word).is_some() => {
                with.push(' ');
                with.push_str(word);
            }
            Some(_) => {}
            None => field.with = text(word),
        },
        Clause::Id if fresh => field.id = text(word.trim_matches(['<', '>'])),
        Clause::For if fresh => field.recipient = text(word.trim_matches(['<', '>'])),
        Clause::Tls if fresh => field.tls.get_or_insert_default().cipher = text(word),
        Clause::EnvelopeFrom if fresh => field.envelope_from = path(word),
        _ => {}
    }
}

/// The `from` clause while it is read.
#[derive(Default)]
struct FromClause {
    seen: bool,
    /// The word right behind `from`: HELO or name, which of them depends on the software.
    head: Option<String>,
    helo: Option<String>,
    /// Out of a comment with an address.
    name: Option<String>,
    /// The last one wins: the server's own comes behind whatever the client made up.
    address: Option<IpAddr>,
    /// The address was alone in its comment and without brackets, as qmail and Exchange write it.
    bare: bool,
    forged: bool,
    verified: bool,
    commented: bool,
    /// More words than a host has: `from mail pickup service`.
    prose: bool,
}

impl FromClause {
    fn started(&self) -> bool {
        self.head.is_some() || self.commented
    }

    fn word(&mut self, word: &str) {
        if self.head.is_none() && !self.commented {
            self.head = text(word);
        } else if let Some(found) = bracketed(word) {
            self.address = Some(found);
        } else if let Some(helo) = after(word, "helo=") {
            self.helo = text(helo);
        } else {
            self.prose = true;
        }
    }

    /// `(name [address])`, `([address]:port helo=x)`, `(HELO x)`, `(ident@address)` and their mixtures.
    fn comment(&mut self, comment: &str) {
        self.commented = true;
        let mut words = comment.split(|c: char| c.is_whitespace() || c == '"' || c == '(' || c == ')');
        let (mut name, mut found, mut bare, mut count, mut helo) = (None, None, false, 0, false);
        while let Some(word) = words.next() {
            if word.is_empty() {
                continue;
            }
            count += 1;
            if ["HELO", "EHLO", "HELLO"].iter().any(|helo| word.eq_ignore_ascii_case(helo)) {
                self.helo = words.find(|word| !word.is_empty()).and_then(text);
                helo = true;
            } else if let Some(said) = after(word, "helo=") {
                self.helo = text(said);
                helo = true;
            } else if word.eq_ignore_ascii_case("forged") || word.eq_ignore_ascii_case("unverified") {
                self.forged = true;
            } else if word.eq_ignore_ascii_case("verified") {
                self.verified = true;
            } else if helo {
                // What follows a HELO may still be the client's words: `helo=x [192.0.2.1]`.
            } else if let Some(address) = bracketed(word) {
                // `[192.168.30.103] [188.223.62.1]`: where there is no name, some write an address in its place.
                (found, bare) = (Some(address), false);
            } else if let Some(address) = address(word.rsplit_once('@').map_or(word, |(_, host)| host)) {
                (found, bare) = (Some(address), true);
            } else if name.is_none() && found.is_none() && !word.contains(['=', ':']) {
                name = text(word.trim_matches(['<', '>']).trim_end_matches('.'));
            }
        }
        if found.is_some() {
            self.address = found;
            self.bare = bare && count == 1;
            self.name = name;
        } else if count == 1 && self.address.is_none() && self.helo.is_none() {
            // smail: `helene8.example (helene.example) [192.0.2.7]`: the name, then the HELO.
            self.helo = name.filter(|name| name.contains('.'));
        }
    }
}

fn finish(mut field: Received, mut from: FromClause) -> Received {
    field.with = field.with.take().map(|with| protocol(with, &mut field.tls));
    let with = field.with.as_deref().unwrap_or_default();
    let says = |names: &[&str]| names.iter().any(|name| with.eq_ignore_ascii_case(name));
    field.authenticated |= says(&["ESMTPA", "ESMTPSA", "ASMTP", "UTF8SMTPA", "UTF8SMTPSA", "HTTP", "HTTPU"]);
    let microsoft = with.to_ascii_lowercase().starts_with("microsoft");
    let software = field.software.as_deref().unwrap_or_default();
    let exim = software.starts_with("Exim");
    let looks_up_twice = exim
        || ["Postfix", "Postcow", "OpenSMTPD"].iter().any(|name| software.starts_with(name))
        // Sendmail gives version and configuration: 8.17.1/8.17.1.
        || (software.starts_with("8.") && software.contains('/'));

    if from.address.is_none() {
        // The head may be the address, but also a HELO: only where the HELO is told apart, or there is none.
        let apart = from.helo.is_some() || says(&["HTTP", "HTTPS", "HTTPU", "NNFMP"]);
        let literal = from.head.as_deref().and_then(address);
        if apart && literal.is_some() {
            from.address = literal;
            from.head = None;
        }
    }
    if from.prose && from.address.is_none() {
        from.head = None;
    }
    let peer = if let Some(helo) = from.helo.take() {
        // Exim, qmail, CommuniGate, Yahoo: the head is the name, and the HELO stands apart.
        let name = from.name.take().or_else(|| from.head.take());
        Peer { helo: Some(helo), name: name.filter(|name| address(name).is_none()), ..Peer::default() }
    } else {
        let head = from.head.take();
        // Alone before an address the head is name and HELO at once in Exim and qmail; to all others it is the HELO.
        let qmail = from.bare && !microsoft && !says(&["HTTPS", "mapi"]);
        let both = (exim || from.verified || qmail) && from.name.is_none();
        let name = if both { head.clone().filter(|name| name.contains('.')) } else { from.name.take() };
        let name = name.filter(|name| address(name).is_none());
        Peer { helo: head, name, ..Peer::default() }
    };
    let known = |name: &String| !["unknown", "softdnserr", "RDNS"].iter().any(|no| name.eq_ignore_ascii_case(no));
    let name = peer.name.filter(known);
    let confirmed = name.is_some() && !from.forged && (looks_up_twice || from.verified);
    let helo = peer.helo.filter(known);
    if from.seen {
        field.from = Some(Peer { helo, name, confirmed, address: from.address });
    }
    field
}

/// The writing host's comment: its address, or its software.
fn writer(comment: &str, field: &mut Received) {
    // Without brackets only alone: `Scalix SMTP Relay 10.0.1.3` is a version.
    let addresses = comment.split_whitespace().find_map(bracketed).or_else(|| address(comment.trim()));
    if let Some(address) = addresses {
        field.by_address.get_or_insert(address);
    } else if field.software.is_none() && !comment.trim().is_empty() {
        let end = comment.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_TEXT).last();
        let software = comment[..end.unwrap_or(0)].split_whitespace().collect::<Vec<_>>().join(" ");
        field.software = Some(software).filter(|software| !software.chars().any(char::is_control));
    }
}

/// Comments that say something wherever they stand: of TLS, of the login, of the envelope sender.
fn remark(comment: &str, field: &mut Received) -> bool {
    let words: Vec<&str> = comment.split_whitespace().collect();
    let Some(first) = words.first() else { return true };
    let is = |word: &str, wanted: &str| word.eq_ignore_ascii_case(wanted);
    if is(first, "using") {
        // Postfix: `using TLSv1.2 with cipher ECDHE-RSA-AES256-GCM-SHA384 (256/256 bits)`.
        let next = |name: &str| words.iter().position(|w| is(w, name)).and_then(|at| words.get(at + 1)).copied();
        let bits = words.iter().find_map(|word| word.strip_prefix('(')?.split_once('/')?.0.parse().ok());
        field.tls = Some(Tls { version: next("using").and_then(text), cipher: next("cipher").and_then(text), bits });
        return true;
    }
    if is(first, "envelope-from") || is(first, "envelope-sender") {
        field.envelope_from = words.get(1).and_then(|word| path(word)).or_else(|| field.envelope_from.take());
        return true;
    }
    if words.len() == 2 && is(words[1], "encrypted") {
        field.tls.get_or_insert_default().cipher = text(first);
        return true;
    }
    let comment = words.join(" ");
    let lower = comment.to_ascii_lowercase();
    if lower.starts_with("authenticated") || lower.starts_with("auth:") || lower.contains("authenticated user") {
        field.authenticated = true;
        return true;
    }
    if lower.starts_with("account ") {
        // CommuniGate: `(account ann@example.org HELO [10.10.10.10])`; the HELO is left to the caller.
        field.authenticated = true;
        return !lower.contains("helo ");
    }
    if lower.contains("cipher=") || lower.contains("version=tls") || lower.contains("version=ssl") {
        let value = |name: &str| {
            let at = lower.find(name)? + name.len();
            comment.get(at..)?.split([' ', ',', ')']).next()
        };
        let bits = value("bits=").and_then(|bits| bits.split('/').next()?.parse().ok());
        field.tls =
            Some(Tls { version: value("version=").and_then(text), cipher: value("cipher=").and_then(text), bits });
        return true;
    }
    if lower.starts_with("tls") {
        // Exim `TLS1.2:ECDHE_RSA_AES_256_GCM_SHA384:256`, OpenSMTPD `TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO`, `TLS1.2`.
        let mut parts = first.split(':');
        let version = parts.next().and_then(text);
        let cipher = parts.next().and_then(text);
        let bits = parts.next().and_then(|bits| bits.parse().ok());
        field.tls = Some(Tls { version, cipher, bits });
        return true;
    }
    ["no client certificate", "client did not present", "client cn ", "client certificate", "orcpt ", "single-drop"]
        .iter()
        .any(|start| lower.starts_with(start))
}

/// Takes what is said of TLS out of a protocol: `ESMTP/TLS/AES256-SHA256` (IronPort), `AES256-SHA encrypted SMTP` (qmail).
fn protocol(with: String, tls: &mut Option<Tls>) -> String {
    if let Some((cipher, protocol)) = with.split_once(" encrypted ") {
        tls.get_or_insert_default().cipher = text(cipher);
        return protocol.to_owned();
    }
    let mut parts = with.split('/');
    if let (Some(protocol), Some("TLS"), Some(cipher)) = (parts.next(), parts.next(), parts.next()) {
        tls.get_or_insert_default().cipher = text(cipher);
        return protocol.to_owned();
    }
    with
}

/// A date without what some put behind it.
fn date(rest: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'(', rest).unwrap_or(rest.len());
    rest[..end].trim_ascii()
}

fn bracketed(word: &str) -> Option<IpAddr> {
    let at = word.find('[')?;
    let inside = &word[at..];
    // `ident@[192.0.2.7]` (qmail-ldap), `[192.0.2.7]:40525`; but not a name with something in brackets behind it.
    (at == 0 || word.as_bytes()[at - 1] == b'@').then(|| address(inside)).flatten()
}

fn after<'a>(word: &'a str, prefix: &str) -> Option<&'a str> {
    word.get(..prefix.len()).filter(|front| front.eq_ignore_ascii_case(prefix)).map(|_| &word[prefix.len()..])
}

/// An envelope sender; `<>` is the null reverse-path.
fn path(word: &str) -> Option<String> {
    let path = word.trim_matches(['<', '>', ',']);
    if path.is_empty() { Some(String::new()) } else { text(path) }
}

/// A word that may travel on in a header, a log line or a command: bounded, without control characters and white space.
fn text(word: &str) -> Option<String> {
    let usable =
        !word.is_empty() && word.len() <= MAX_TEXT && !word.chars().any(|c| c.is_control() || c.is_whitespace());
    usable.then(|| word.to_owned())
}
