//! Values to octets: a client's commands and a server's replies.

use crate::{Address, Capabilities, Reply};

/// `LHLO` (RFC 2033 §4.1); octets that no host name or address literal has are sent as `-`.
pub fn lhlo(host_name: &str) -> Vec<u8> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let name: String = host_name.chars().take(255).map(|c| if allowed(c) { c } else { '-' }).collect();
    format!("LHLO {}\r\n", if name.is_empty() { "localhost" } else { &name }).into_bytes()
}

/// `MAIL FROM` with the parameters that were offered and are of use (RFC 5321 §4.1.1.2).
///
/// SIZE goes with a known size (RFC 1870 §6); BODY=8BITMIME always, since the message is sent as it is (RFC 6152 §2);
/// SMTPUTF8 when asked for (RFC 6531 §3.4).
pub fn mail(reverse_path: &Address, size_octets: Option<u64>, smtp_utf8: bool, offered: &Capabilities) -> Vec<u8> {
    let mut line = format!("MAIL FROM:<{reverse_path}>");
    if let (Some(octets), Some(_)) = (size_octets, offered.size) {
        line += &format!(" SIZE={octets}");
    }
    if offered.eight_bit_mime {
        line += " BODY=8BITMIME";
    }
    if smtp_utf8 && offered.smtp_utf8 {
        line += " SMTPUTF8";
    }
    line += "\r\n";
    line.into_bytes()
}

/// `RCPT TO` (RFC 5321 §4.1.1.3).
pub fn rcpt(recipient: &Address) -> Vec<u8> {
    format!("RCPT TO:<{recipient}>\r\n").into_bytes()
}

/// A server's reply, with the enhanced status code on every line (RFC 2034 §3).
///
/// Text must not contain LF; the session's never does.
pub fn reply(reply: &Reply) -> Vec<u8> {
    let mut out = Vec::new();
    let last = reply.lines.len().saturating_sub(1);
    for (at, line) in reply.lines.iter().enumerate() {
        out.extend_from_slice(reply.code.to_string().as_bytes());
        out.push(if at < last { b'-' } else { b' ' });
        if let Some(status) = reply.status {
            out.extend_from_slice(status.to_string().as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse::{self, Limits};

    #[test]
    fn parameters_are_sent_only_when_offered() {
        let path = Address::parse("ü@x").unwrap();
        let text = |offered: &Capabilities| String::from_utf8(mail(&path, Some(7), true, offered)).unwrap();
        assert_eq!(text(&Capabilities::default()), "MAIL FROM:<ü@x>\r\n");
        let all = Capabilities { size: Some(0), eight_bit_mime: true, smtp_utf8: true, ..Capabilities::default() };
        assert_eq!(text(&all), "MAIL FROM:<ü@x> SIZE=7 BODY=8BITMIME SMTPUTF8\r\n");
        assert_eq!(mail(&Address::null(), None, false, &all), b"MAIL FROM:<> BODY=8BITMIME\r\n");
    }

    #[test]
    fn no_host_name_ends_the_command() {
        assert_eq!(lhlo("a b\r\nRSET"), b"LHLO a-b--RSET\r\n");
        assert_eq!(lhlo("[::1]"), b"LHLO [::1]\r\n");
        assert_eq!(lhlo(""), b"LHLO localhost\r\n");
    }

    proptest! {
        #[test]
        fn what_a_server_says_is_what_the_client_reads(
            code in 200u16..600,
            status in proptest::option::of((0u16..1000, 0u16..1000)),
            lines in proptest::collection::vec("[a-z][ -~äö]{0,30}", 1..6),
        ) {
            let class = u8::try_from(code / 100).unwrap();
            let status = status.filter(|_| class != 3)
                .map(|(subject, detail)| connectord_mail::Status { class, subject, detail });
            let said = Reply::new(code, status, lines);
            let octets = reply(&said);
            let read = parse::reply(&octets, Limits { line_octets: 4096, lines: 100 });
            prop_assert_eq!(read, Ok((said, octets.len())));
        }

        #[test]
        fn capabilities_come_back(
            pipelining: bool, eight_bit_mime: bool, smtp_utf8: bool, enhanced_status_codes: bool, size: Option<u64>,
        ) {
            let offered = Capabilities { pipelining, size, eight_bit_mime, smtp_utf8, enhanced_status_codes };
            prop_assert_eq!(Capabilities::from_lhlo(&offered.to_lhlo("host")), offered);
        }
    }
}
