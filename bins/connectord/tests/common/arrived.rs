//! What a message looks like after it came: our fields in front of what the server sent.

use connectord_testkit::{Dovecot, Service};

use super::with_lf;

/// What a Maildir has of a message that is so on Dovecot's disk, behind our fields.
pub(crate) fn arrived(dovecot: &Dovecot, service: Service, octets: &[u8]) -> Vec<u8> {
    let mut octets = with_lf(&dovecot.as_sent(service, octets));
    // POP3 cannot say that a message has no final line end.
    let ends = octets.last().is_none_or(|octet| *octet == b'\n');
    if matches!(service, Service::Pop3 | Service::Pop3s) && !ends {
        octets.push(b'\n');
    }
    octets
}

/// The fields that were put in front of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) return_path: Option<String>,
    pub(crate) delivered_to: Option<String>,
    /// `Received`, unfolded.
    pub(crate) received: String,
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) attempt: Option<String>,
}

impl Trace {
    /// Takes our fields off the front; panics where they are not as they have to be.
    pub(crate) fn split(message: &[u8]) -> (Self, &[u8]) {
        let mut rest = message;
        let (return_path, delivered_to) = (field(&mut rest, "Return-Path"), field(&mut rest, "Delivered-To"));
        let mut needed = |name: &str| {
            field(&mut rest, name).unwrap_or_else(|| {
                panic!("no {name} where it has to be: {}", message[..message.len().min(600)].escape_ascii())
            })
        };
        let (received, id) = (needed("Received"), needed("X-Connectord-Id"));
        let account = needed("X-Connectord-Account");
        let attempt = field(&mut rest, "X-Connectord-Attempt");
        (Self { return_path, delivered_to, received, id, account, attempt }, rest)
    }
}

/// What the server sent.
pub(crate) fn without_trace(message: &[u8]) -> Vec<u8> {
    Trace::split(message).1.to_vec()
}

/// Takes one field and its folded lines off the front.
fn field(rest: &mut &[u8], name: &str) -> Option<String> {
    let mut value = rest.strip_prefix(name.as_bytes())?.strip_prefix(b": ")?;
    let mut text = String::new();
    loop {
        let end = value.iter().position(|octet| *octet == b'\n')?;
        text += &String::from_utf8_lossy(&value[..end]);
        value = &value[end + 1..];
        match value.strip_prefix(b"\t") {
            Some(folded) => value = folded,
            None => break,
        }
        text.push(' ');
    }
    *rest = value;
    Some(text)
}
