//! Authentication-Results fields (RFC 8601).

use nom::bytes::complete::{tag, take_while, take_while1};
use nom::character::complete::char;
use nom::combinator::opt;
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

/// Longest field that is looked at, in octets.
const MAX_FIELD: usize = 16 * 1024;

/// Most results that are taken from one field.
const MAX_RESULTS: usize = 64;

/// Most properties that are taken of one result.
const MAX_PROPERTIES: usize = 32;

/// Longest word or value that is taken, in octets.
const MAX_TEXT: usize = 512;

/// What one Authentication-Results field says: the conclusions of the host that names itself in it (RFC 8601 §2.2).
///
/// Anybody can write one; [`crate::Relays`] says whose are believed.
///
/// ```
/// use connectord_mail::AuthenticationResults;
/// let field = AuthenticationResults::parse(
///     b"mx.provider.test 1; spf=pass (sender is allowed) smtp.mailfrom=shop.test;\r\n\tdkim=fail reason=\"bad signature\" header.d=shop.test",
/// ).unwrap();
/// assert_eq!(field.authserv_id, "mx.provider.test");
/// assert_eq!(field.result("spf"), Some("pass"));
/// assert_eq!(field.results[1].reason.as_deref(), Some("bad signature"));
/// assert_eq!(field.results[1].property("header.d"), Some("shop.test"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthenticationResults {
    /// Who says so; empty where the field does not tell, as Outlook.com's.
    pub authserv_id: String,
    /// One per method, in their order; none for `none`.
    pub results: Vec<MethodResult>,
}

/// What came of one method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodResult {
    /// In lower case: `spf`, `dkim`, `dmarc`, `arc`, `iprev`.
    pub method: String,
    /// In lower case: `pass`, `fail`, `softfail`, `none`, `temperror`.
    pub result: String,
    /// Why, where it is told.
    pub reason: Option<String>,
    /// What was looked at: `smtp.mailfrom`, `header.d`, in lower case, with its value.
    pub properties: Vec<(String, String)>,
}

impl MethodResult {
    /// The value of a property such as `header.d`.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl AuthenticationResults {
    /// Reads the value of a field, folds and comments and all; `None` when it does not start as the standard says, or
    /// is longer than 16 KiB. What does not fit further on is passed over up to the next semicolon.
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > MAX_FIELD {
            return None;
        }
        let mut field = Self::default();
        let mut sections = sections(value).into_iter();
        let first = sections.next()?;
        match method(&first) {
            // Outlook.com and Exchange leave the authserv-id out.
            Some(result) => field.results.push(result),
            None => {
                let (rest, id) = preceded(spaces, word).parse(&first).ok()?;
                // What may follow is a version, and nothing else.
                let version = rest.trim_ascii();
                if version.len() > 9 || !version.iter().all(u8::is_ascii_digit) {
                    return None;
                }
                field.authserv_id = text(id)?.to_ascii_lowercase();
            }
        }
        field.results.extend(sections.filter_map(|section| method(&section)).take(MAX_RESULTS - 1));
        Some(field)
    }

    /// The result of a method, the first where there are several.
    pub fn result(&self, method: &str) -> Option<&str> {
        self.results.iter().find(|result| result.method == method).map(|result| result.result.as_str())
    }
}

/// The field cut at its semicolons, without comments; quoted strings stay whole.
fn sections(value: &[u8]) -> Vec<Vec<u8>> {
    let (mut sections, mut section) = (Vec::new(), Vec::new());
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for octet in value {
        match octet {
            _ if escaped => {
                escaped = false;
                if depth == 0 {
                    section.push(*octet);
                }
            }
            b'\\' => {
                escaped = true;
                if depth == 0 {
                    section.push(*octet);
                }
            }
            b'"' if depth == 0 => {
                quoted = !quoted;
                section.push(*octet);
            }
            b'(' if !quoted => depth += 1,
            b')' if !quoted && depth > 0 => {
                depth -= 1;
                section.push(b' ');
            }
            _ if depth > 0 => {}
            b';' if !quoted => {
                sections.push(std::mem::take(&mut section));
                if sections.len() > MAX_RESULTS {
                    return sections;
                }
            }
            _ => section.push(*octet),
        }
    }
    sections.push(section);
    sections
}

/// `spf=pass reason="..." smtp.mailfrom=a@b header.d=c`.
fn method(section: &[u8]) -> Option<MethodResult> {
    let (mut rest, (name, result)) = pair(section).ok()?;
    // A method may carry a version: `dkim/1`.
    let name = name.split(|o| *o == b'/').next()?.trim_ascii();
    let mut method = MethodResult {
        method: text(name)?.to_ascii_lowercase(),
        result: text(&result)?.to_ascii_lowercase(),
        reason: None,
        properties: Vec::new(),
    };
    if method.method.contains('.') {
        return None;
    }
    while method.properties.len() < MAX_PROPERTIES {
        if let Ok((after, (name, value))) = pair(rest) {
            rest = after;
            let (Some(name), Some(value)) = (text(name), text(&value)) else { continue };
            if name.eq_ignore_ascii_case("reason") {
                method.reason = Some(value);
            } else if name.contains('.') {
                method.properties.push((name.to_ascii_lowercase(), value));
            }
        } else if let Ok((after, _)) = preceded(spaces, word).parse(rest) {
            // A word that is no pair: `action=none header.from=x; compauth` and other inventions.
            rest = after;
        } else {
            break;
        }
    }
    Some(method)
}

/// `name = value`; the value a quoted string or what goes to the next white space.
fn pair(input: &[u8]) -> IResult<&[u8], (&[u8], Vec<u8>)> {
    let (rest, name) = preceded(spaces, take_while1(is_name)).parse(input)?;
    let (rest, _) = delimited(spaces, char('='), spaces).parse(rest)?;
    let (rest, value) = match quoted(rest) {
        Ok((rest, inside)) => (rest, unescaped(inside)),
        Err(_) => {
            let (rest, value) = take_while1(|o: u8| !o.is_ascii_whitespace()).parse(rest)?;
            (rest, value.to_vec())
        }
    };
    Ok((rest, (name, value)))
}

fn quoted(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let inside = |input| {
        let mut at: usize = 0;
        let octets: &[u8] = input;
        while let Some(octet) = octets.get(at) {
            match octet {
                b'\\' => at += 2,
                b'"' => break,
                _ => at += 1,
            }
        }
        let at = at.min(octets.len());
        Ok((&octets[at..], &octets[..at]))
    };
    delimited(tag(&b"\""[..]), inside, opt(tag(&b"\""[..]))).parse(input)
}

fn unescaped(inside: &[u8]) -> Vec<u8> {
    let mut octets = inside.iter();
    let mut out = Vec::with_capacity(inside.len());
    while let Some(octet) = octets.next() {
        out.extend(if *octet == b'\\' { octets.next() } else { Some(octet) });
    }
    out
}

fn word(input: &[u8]) -> IResult<&[u8], &[u8]> {
    take_while1(|o: u8| !o.is_ascii_whitespace()).parse(input)
}

fn spaces(input: &[u8]) -> IResult<&[u8], &[u8]> {
    take_while(|o: u8| o.is_ascii_whitespace()).parse(input)
}

fn is_name(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.' | b'/')
}

/// A value that may travel on: bounded, without control characters; white space inside a quoted reason stays.
fn text(octets: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(octets).ok()?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!text.is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(field: &str) -> Option<String> {
        let field = AuthenticationResults::parse(field.as_bytes())?;
        let results = field.results.iter().map(|r| {
            let properties: String = r.properties.iter().map(|(name, value)| format!(" {name}={value}")).collect();
            format!(
                "; {}={}{}{properties}",
                r.method,
                r.result,
                r.reason.as_ref().map_or(String::new(), |r| format!(" [{r}]"))
            )
        });
        Some(format!("{}{}", field.authserv_id, results.collect::<String>()))
    }

    #[test]
    fn the_standards_examples_are_read() {
        // RFC 8601 appendix B.
        assert_eq!(shown("example.org 1; none").as_deref(), Some("example.org"));
        assert_eq!(
            shown("example.com;\r\n spf=pass smtp.mailfrom=example.net").as_deref(),
            Some("example.com; spf=pass smtp.mailfrom=example.net")
        );
        assert_eq!(
            shown("example.com;\r\n auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n spf=pass smtp.mailfrom=example.net").as_deref(),
            Some("example.com; auth=pass smtp.auth=sender@example.net; spf=pass smtp.mailfrom=example.net")
        );
        assert_eq!(
            shown("example.com;\r\n dkim=pass reason=\"good signature\"\r\n header.i=@mail-router.example.net;\r\n dkim=fail reason=\"bad signature\"\r\n header.i=@newyork.example.com").as_deref(),
            Some("example.com; dkim=pass [good signature] header.i=@mail-router.example.net; dkim=fail [bad signature] header.i=@newyork.example.com")
        );
        // RFC 8601 §B.7: comments and white space anywhere.
        assert_eq!(
            shown("foo.example.net (foobar) 1 (baz);\r\n dkim (Because I like it) / 1 (One yay) = (wait for it) fail\r\n policy (A dot can go here) . (like that) expired\r\n (this surprised me) = (as I wasn't expecting it) 1362471462").as_deref(),
            Some("foo.example.net")
        );
    }

    #[test]
    fn fields_of_providers_are_read() {
        assert_eq!(
            shown("spf=softfail (sender IP is 159.27.24.86)\r\n smtp.mailfrom=cyber.net.pk; dkim=none (message not signed)\r\n header.d=none;dmarc=fail action=quarantine\r\n header.from=cyber.net.pk;compauth=fail reason=000").as_deref(),
            Some("; spf=softfail smtp.mailfrom=cyber.net.pk; dkim=none header.d=none; dmarc=fail header.from=cyber.net.pk; compauth=fail [000]")
        );
        assert_eq!(
            shown("gmx.net; dkim=pass header.i=@gmx.net").as_deref(),
            Some("gmx.net; dkim=pass header.i=@gmx.net")
        );
        assert_eq!(
            shown("mx.google.com;\r\n       spf=pass (google.com: domain of a@b designates 1.2.3.4 as permitted; sender) smtp.mailfrom=a@b;\r\n       dmarc=pass (p=NONE sp=NONE dis=NONE) header.from=b").as_deref(),
            Some("mx.google.com; spf=pass smtp.mailfrom=a@b; dmarc=pass header.from=b")
        );
    }

    #[test]
    fn rubbish_is_refused_and_floods_are_bounded() {
        assert_eq!(shown(""), None);
        assert_eq!(shown("two words; spf=pass"), None);
        let long = format!("a; spf=pass{}", " ".repeat(MAX_FIELD));
        assert_eq!(shown(&long), None);
        assert_eq!(shown(&long[..MAX_FIELD]).as_deref(), Some("a; spf=pass"));
        let flood = format!("a; {}", "spf=pass a.b=c; ".repeat(900));
        assert!(AuthenticationResults::parse(flood.as_bytes()).unwrap().results.len() <= MAX_RESULTS);
        let nested = format!("a{}; spf=pass", "(".repeat(9000));
        assert_eq!(shown(&nested).as_deref(), Some("a"));
        assert_eq!(shown("a; spf=\"pa\\\"ss; dkim=pass"), Some("a; spf=pa\"ss; dkim=pass".into()));
    }
}
