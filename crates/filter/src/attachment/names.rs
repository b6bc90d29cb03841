//! Names of attachments, and what they tell.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::Class;

/// What Windows, macOS or Linux start when it is opened; among them what Outlook has blocked since 2003.
const EXECUTABLE: &[&str] = &[
    "ade",
    "adp",
    "apk",
    "app",
    "application",
    "appref-ms",
    "appx",
    "bat",
    "chm",
    "cmd",
    "com",
    "cpl",
    "deb",
    "dll",
    "dmg",
    "drv",
    "exe",
    "gadget",
    "grp",
    "hlp",
    "hta",
    "inf",
    "ins",
    "isp",
    "jar",
    "js",
    "jse",
    "lnk",
    "mde",
    "msc",
    "msi",
    "msix",
    "msp",
    "mst",
    "ocx",
    "osd",
    "pif",
    "pkg",
    "pl",
    "ps1",
    "psc1",
    "psm1",
    "py",
    "pyw",
    "reg",
    "rpm",
    "scf",
    "scr",
    "sct",
    "settingcontent-ms",
    "sh",
    "shb",
    "shs",
    "sys",
    "theme",
    "url",
    "vb",
    "vbe",
    "vbs",
    "vbscript",
    "ws",
    "wsc",
    "wsf",
    "wsh",
    "xbap",
    "xll",
];

const ARCHIVE: &[&str] = &[
    "7z", "ace", "alz", "arc", "arj", "bz", "bz2", "cab", "cpio", "egg", "gz", "img", "iso", "lha", "lz", "lzh",
    "lzma", "rar", "rev", "tar", "taz", "tbz", "tbz2", "tgz", "txz", "tzst", "udf", "vhd", "vhdx", "vmdk", "wim", "xz",
    "z", "zip", "zipx", "zoo", "zst",
];

const MACRO: &[&str] =
    &["docm", "dotm", "potm", "ppam", "ppsm", "pptm", "sldm", "xla", "xlam", "xlm", "xlsb", "xlsm", "xltm"];

/// The class that a name says, and the extension that says it.
pub(super) fn class(name: &str) -> Option<(Class, String)> {
    let extension = extension(name)?;
    let lists = [(Class::Executable, EXECUTABLE), (Class::Macro, MACRO), (Class::Archive, ARCHIVE)];
    let (class, _) = lists.into_iter().find(|(_, list)| list.contains(&extension.as_str()))?;
    Some((class, extension))
}

/// The last extension of a name in lower case. Windows does not count dots and spaces at the end; nor do we.
pub(super) fn extension(name: &str) -> Option<String> {
    let name = base(name);
    let name = name.trim_end_matches(['.', ' ']);
    let (front, extension) = name.rsplit_once('.')?;
    // `x.exe:stream` opens x.exe.
    let extension = extension.split(':').next().unwrap_or(extension).trim_end();
    let plain = !extension.is_empty() && extension.len() <= 20 && !extension.contains(char::is_whitespace);
    (plain && !(front.is_empty() && extension.is_empty())).then(|| extension.to_lowercase())
}

/// The name without directories, and without characters that no name shows: control characters, and those that turn
/// the direction of writing around to make `exe.fdp` of `pdf.exe`.
pub(super) fn base(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let hidden = |c: &char| {
        c.is_control()
            || matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    last.chars().filter(|c| !hidden(c)).take(255).collect::<String>().trim().to_owned()
}

/// A parameter of a structured field (RFC 2045 §5.1), put together from its pieces and decoded (RFC 2231), or with
/// encoded words inside as many mail programs write them.
pub(super) fn parameter(value: &[u8], name: &str) -> Option<String> {
    let mut pieces: Vec<(usize, bool, Vec<u8>)> = Vec::new();
    for (key, value) in parameters(value) {
        let key = key.to_ascii_lowercase();
        let Some(rest) = key.strip_prefix(name) else { continue };
        if rest.is_empty() {
            pieces.push((usize::MAX, false, value));
            continue;
        }
        let Some(rest) = rest.strip_prefix('*') else { continue };
        let (number, extended) = match rest.strip_suffix('*') {
            Some(number) => (number, true),
            None => (rest, rest.is_empty()),
        };
        let number = if number.is_empty() { 0 } else { number.parse().unwrap_or(usize::MAX - 1) };
        if number < 1000 && pieces.len() < 100 {
            pieces.push((number, extended, value));
        }
    }
    // RFC 2231 pieces win over the plain one beside them, as in mail programs.
    let plain_only = pieces.iter().all(|(number, ..)| *number == usize::MAX);
    if plain_only {
        let (.., value) = pieces.into_iter().next()?;
        return Some(decode_words(&String::from_utf8_lossy(&value)));
    }
    pieces.retain(|(number, ..)| *number != usize::MAX);
    pieces.sort_by_key(|(number, ..)| *number);
    let mut octets = Vec::new();
    for (at, (_, extended, value)) in pieces.into_iter().enumerate() {
        if !extended {
            octets.extend(value);
            continue;
        }
        // The first piece starts with charset'language'.
        let mut parts = value.splitn(3, |o| *o == b'\'');
        let text = match (at, parts.next(), parts.next(), parts.next()) {
            (0, Some(_), Some(_), Some(text)) => text,
            _ => &value[..],
        };
        octets.extend(percent(text));
    }
    Some(String::from_utf8_lossy(&octets).into_owned())
}

/// The main value of a structured field, in lower case: `multipart/mixed`.
pub(super) fn main_value(value: &[u8]) -> String {
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    let text = String::from_utf8_lossy(&value[..end]);
    text.chars().filter(|c| !c.is_whitespace() && !c.is_control()).take(100).collect::<String>().to_ascii_lowercase()
}

fn parameters(value: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut parameters = Vec::new();
    let mut rest = value;
    // What stands before the first semicolon is the value itself; but `attachment filename=x` is read as it is meant.
    while parameters.len() < 100 {
        let Some(equals) = memchr::memchr(b'=', rest) else { break };
        let key = rest[..equals].rsplit(|o| matches!(o, b';' | b' ' | b'\t' | b'\r' | b'\n')).find(|k| !k.is_empty());
        let key = String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
        rest = rest[equals + 1..].trim_ascii_start();
        let mut value = Vec::new();
        if let Some(mut inside) = rest.strip_prefix(b"\"") {
            loop {
                match inside {
                    [b'\\', octet, after @ ..] => {
                        value.push(*octet);
                        inside = after;
                    }
                    [b'"', after @ ..] => {
                        inside = after;
                        break;
                    }
                    [b'\r' | b'\n', after @ ..] => inside = after,
                    [octet, after @ ..] => {
                        value.push(*octet);
                        inside = after;
                    }
                    [] => break,
                }
            }
            rest = inside;
        } else {
            // Names with spaces and no quotes are common; only a semicolon ends them.
            let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
            value.extend(rest[..end].trim_ascii().iter().filter(|o| !matches!(o, b'\r' | b'\n')));
            rest = &rest[end..];
        }
        parameters.push((key, value));
    }
    parameters
}

fn percent(text: &[u8]) -> Vec<u8> {
    let hex = |o: u8| (o as char).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [octet, after @ ..] = rest {
        match (octet, after) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                out.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                rest = after;
            }
            _ => {
                out.push(*octet);
                rest = after;
            }
        }
    }
    out
}

/// A field's value with its encoded words (RFC 2047) decoded; of other charsets than UTF-8 only the ASCII is kept.
///
/// What comes out may have any characters in it: it is escaped where it is shown.
pub fn decode_words(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("=?") {
        let decoded = (|| {
            let mut parts = rest[at + 2..].splitn(4, '?');
            let (_, encoding, coded, after) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            let after = after.strip_prefix('=')?;
            let octets = match encoding {
                "B" | "b" => STANDARD_NO_PAD.decode(coded.trim_end_matches('=')).ok()?,
                "Q" | "q" => percent(&coded.replace('=', "%").replace('_', " ").into_bytes()),
                _ => return None,
            };
            Some((String::from_utf8_lossy(&octets).into_owned(), after))
        })();
        out.push_str(&rest[..at]);
        match decoded {
            Some((text, after)) => {
                out.push_str(&text);
                // White space between encoded words is none of the text.
                rest = if after.trim_start().starts_with("=?") { after.trim_start() } else { after };
            }
            None => {
                out.push_str("=?");
                rest = &rest[at + 2..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_mail_programs_read_them() {
        for (field, expected) in [
            ("attachment; filename=\"a b.exe\"", "a b.exe"),
            ("attachment; filename=a b.exe", "a b.exe"),
            ("attachment;\r\n\tfilename*=utf-8''r%C3%A9sum%C3%A9.js", "résumé.js"),
            ("attachment; filename*0=\"in\"; filename*1=\"voice.\"; filename*2=vbs", "invoice.vbs"),
            ("attachment; filename*1*=%2Eexe; filename*0*=utf-8'en'a", "a.exe"),
            ("attachment; filename=ok.txt; filename*=utf-8''bad.exe", "bad.exe"),
            ("attachment; filename=\"=?utf-8?B?cnVuLmV4ZQ==?=\"", "run.exe"),
            ("attachment; filename=\"=?utf-8?Q?run=2Ee?= =?utf-8?Q?xe?=\"", "run.exe"),
            ("attachment; filename=\"a\\\"b.com\"", "a\"b.com"),
            ("attachment filename=x.bat", "x.bat"),
        ] {
            assert_eq!(parameter(field.as_bytes(), "filename").as_deref(), Some(expected), "{field}");
        }
        assert_eq!(parameter(b"attachment", "filename"), None);
        assert_eq!(parameter(b"attachment; filename", "filename"), None);
    }

    #[test]
    fn an_extension_is_what_would_be_started() {
        for (name, expected) in [
            ("a.pdf.EXE", Some("exe")),
            ("a.exe. . ", Some("exe")),
            ("x.exe:hidden", Some("exe")),
            ("dir.d/file", None),
            ("C:\\x\\run.cmd", Some("cmd")),
            ("gpj.\u{202e}exe", Some("exe")),
            ("noext", None),
            ("trailing.", None),
        ] {
            assert_eq!(extension(name).as_deref(), expected, "{name:?}");
        }
        assert_eq!(class("a.docm").map(|(class, _)| class), Some(Class::Macro));
        assert_eq!(class("a.tar.gz").map(|(class, _)| class), Some(Class::Archive));
        assert_eq!(class("a.pdf"), None);
    }
}
