//! Received fields, as mail servers really write them (RFC 5321 §4.4).
//!
//! The standard's grammar is kept by few: Exim and qmail put the HELO behind the name, Exchange drops the brackets,
//! CommuniGate starts with the address, Yahoo names 127.0.0.1 as the client. So the reading is in two steps, both total
//! and linear: `pieces` cuts a field into words and comments, and `read` says what each may mean where it stands.
//! Nothing is believed here; whose field it is, and whether that counts, is [`crate::relay`]'s.

mod pieces;
mod read;

use std::net::IpAddr;

use crate::UnixTime;

/// Longest field that is looked at, in octets, folds included; what is beyond is not read.
pub const MAX_FIELD: usize = 8 * 1024;

/// Longest name, protocol, id or address that is taken from a field, in octets; a longer one counts as absent.
pub const MAX_TEXT: usize = 255;

/// What one Received field says. All of it is what the host that wrote the field says; anybody can write one.
///
/// ```
/// use connectord_mail::Received;
/// let field = Received::parse(
///     b"from shop.test (out.shop.test [192.0.2.7])\r\n\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n\t\
///       by mx.provider.test (Postfix) with ESMTPS id 4F1\r\n\tfor <ann@provider.test>; Sun, 22 Nov 2026 19:31:00 +0000",
/// );
/// let from = field.from.unwrap();
/// assert_eq!(from.helo.as_deref(), Some("shop.test"));
/// assert_eq!(from.name.as_deref(), Some("out.shop.test"));
/// assert_eq!(from.address, Some("192.0.2.7".parse().unwrap()));
/// assert_eq!(field.by.as_deref(), Some("mx.provider.test"));
/// assert_eq!(field.with.as_deref(), Some("ESMTPS"));
/// assert_eq!(field.tls.unwrap().version.as_deref(), Some("TLSv1.3"));
/// assert_eq!(field.recipient.as_deref(), Some("ann@provider.test"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The host that handed the message over; `None` where the field names none (a local hand-over).
    pub from: Option<Peer>,
    /// The host that wrote the field, as it calls itself.
    pub by: Option<String>,
    /// The address the writing host gives for itself.
    pub by_address: Option<IpAddr>,
    /// The software that wrote it, as in the comment behind the host: `Postfix`, `Exim 4.94.2`, `8.17.1/8.17.1`.
    pub software: Option<String>,
    /// The link: `UUCP`, `HTTP`; seldom written.
    pub via: Option<String>,
    /// The protocol: `ESMTPS`, `LMTP`, `Microsoft SMTP Server`; case as written.
    pub with: Option<String>,
    /// The writing host's own identifier.
    pub id: Option<String>,
    /// The envelope recipient of the `for` clause, without angle brackets.
    pub recipient: Option<String>,
    /// The envelope sender, where a comment tells it, without angle brackets; empty is the null reverse-path.
    pub envelope_from: Option<String>,
    /// What is said of TLS.
    pub tls: Option<Tls>,
    /// Whether the client had logged in: a protocol of RFC 3848 with an `A`, HTTP, or a remark that says so.
    pub authenticated: bool,
    /// When it was received.
    pub date: Option<UnixTime>,
    /// More than one `from` or `by` clause: no mail server writes this, and which one was meant cannot be known.
    pub ambiguous: bool,
}

/// Who handed a message over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// What the client called itself in HELO or EHLO; its own claim.
    pub helo: Option<String>,
    /// The name of its address (reverse DNS) as the writing host found it; `None` when it found none.
    pub name: Option<String>,
    /// Whether software that looks the name up in both directions wrote it (Postfix, Sendmail, Exim, OpenSMTPD).
    pub confirmed: bool,
    /// Its address. A literal that may be no more than a HELO is not taken.
    pub address: Option<IpAddr>,
}

/// What a field says of the encryption of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// As written: `TLSv1.3`, `TLS1_2`.
    pub version: Option<String>,
    /// As written.
    pub cipher: Option<String>,
    /// Effective key length in bits.
    pub bits: Option<u16>,
}

impl Received {
    /// Reads the value of a Received field, with or without its folds. What is not understood is absent.
    pub fn parse(value: &[u8]) -> Self {
        read::read(&value[..value.len().min(MAX_FIELD)])
    }

    /// Whether the message came over an encrypted connection, by what TLS remark or protocol (RFC 3848) say.
    pub fn encrypted(&self) -> bool {
        let secure = ["ESMTPS", "ESMTPSA", "LMTPS", "LMTPSA", "UTF8SMTPS", "UTF8SMTPSA", "SMTPS", "HTTPS"];
        self.tls.is_some()
            || self.with.as_deref().is_some_and(|with| secure.iter().any(|name| with.eq_ignore_ascii_case(name)))
    }
}

/// An IP address as Received fields write it: with or without brackets, port, `IPv6:` or zone.
///
/// `::ffff:192.0.2.1` is the IPv4 address it stands for.
///
/// ```
/// use connectord_mail::received::address;
/// assert_eq!(address("[192.0.2.7]:40525"), address("192.0.2.7"));
/// assert_eq!(address("[IPv6:2001:db8::7]"), address("2001:db8::7"));
/// assert_eq!(address("[fe80::1%6]"), address("fe80::1"));
/// assert_eq!(address("mail.example.org"), None);
/// ```
pub fn address(text: &str) -> Option<IpAddr> {
    let inner = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => text,
    };
    let inner = inner.split('%').next().unwrap_or(inner);
    let inner = match inner.as_bytes() {
        [b'i' | b'I', b'p' | b'P', b'v' | b'V', b'6', b':', ..] => &inner[5..],
        _ => inner,
    };
    let plain = inner.parse::<IpAddr>().ok();
    // `192.0.2.7:40525` (ecelerity), `192.0.2.7.40525` (smail).
    let with_port = || {
        let (front, port) = inner.rsplit_once([':', '.'])?;
        let digits = (1..=5).contains(&port.len()) && port.bytes().all(|o| o.is_ascii_digit());
        front.parse::<std::net::Ipv4Addr>().ok().filter(|_| digits).map(IpAddr::V4)
    };
    plain.or_else(with_port).map(|address| address.to_canonical())
}
