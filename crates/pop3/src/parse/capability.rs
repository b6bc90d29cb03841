use nom::Parser;
use nom::bytes::complete::take_while1;
use nom::character::complete::multispace0;
use nom::multi::many0;
use nom::sequence::preceded;

use crate::Capability;

/// Longest part of a line that is looked at, in octets; RFC 2449 §4 allows 512 for the whole line.
const MAX_LOOKED_AT: usize = 1024;

/// Reads a line of the answer to CAPA (RFC 2449 §5): words between white space, of the first 1,024 octets; `None` when
/// there is no word. Octets that are not UTF-8 are replaced.
///
/// ```
/// let expire = connectord_pop3::parse::capability(b"expire 60").expect("a name");
/// assert_eq!((expire.name.as_str(), expire.arguments), ("EXPIRE", vec!["60".to_string()]));
/// ```
pub fn capability(line: &[u8]) -> Option<Capability> {
    let line = &line[..line.len().min(MAX_LOOKED_AT)];
    let word = take_while1::<_, _, nom::error::Error<&[u8]>>(|octet: u8| !octet.is_ascii_whitespace());
    let (_, words) = many0(preceded(multispace0, word)).parse(line).ok()?;
    let mut words = words.into_iter().map(|word| String::from_utf8_lossy(word).into_owned());
    let name = words.next()?.to_ascii_uppercase();
    Some(Capability { name, arguments: words.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parted_by_any_white_space_and_the_line_is_bounded() {
        let login_delay = Capability { name: "LOGIN-DELAY".into(), arguments: vec!["300".into(), "USER".into()] };
        assert_eq!(capability(b" login-delay\t300  USER "), Some(login_delay));
        assert_eq!(capability(b" \t"), None);
        assert_eq!(capability(&[b'x'; 70_000]).expect("a name").name.len(), MAX_LOOKED_AT);
    }
}
