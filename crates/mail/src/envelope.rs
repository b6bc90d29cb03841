use crate::relay::{Client, Origin, Relays};
use crate::{AuthenticationResults, Head, UnixTime};

/// What the header tells of the transport that brought a message to the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The reverse-path of the topmost Return-Path field (RFC 5321 §4.4); empty is the null reverse-path of bounces;
    /// `None` when the provider wrote none that can be used.
    pub reverse_path: Option<String>,
    /// The date of the newest Received field that can be read.
    pub received_at: Option<UnixTime>,
    /// Who handed the message to the provider; unknown unless [`Envelope::recover_trusting`] was told whom to trust.
    pub client: Client,
    /// The provider's own Authentication-Results; empty unless it was told whose they are.
    pub authentication: Vec<AuthenticationResults>,
    /// Whose each Authentication-Results field of the header is, from the top; empty unless it was told whom to trust.
    pub origins: Vec<Origin>,
}

/// Longest path (RFC 5321 §4.5.3.1.3).
const MAX_PATH: usize = 256;

impl Envelope {
    /// Recovers the envelope from a header.
    ///
    /// ```
    /// use connectord_mail::{Envelope, Head};
    /// let head = Head::of(b"Return-Path: <news@shop.test>\r\nReceived: from a by b; Sun, 22 Nov 2026 19:31:00 +0000\r\n\r\n");
    /// let envelope = Envelope::recover(head);
    /// assert_eq!(envelope.reverse_path.as_deref(), Some("news@shop.test"));
    /// assert_eq!(envelope.received_at.map(|t| t.0), Some(1_795_375_860));
    /// ```
    pub fn recover(head: Head<'_>) -> Self {
        let mut envelope = Self::default();
        let mut first_return_path = true;
        for field in head.fields() {
            if first_return_path && field.is("Return-Path") {
                first_return_path = false;
                envelope.reverse_path = reverse_path(field.value);
            } else if envelope.received_at.is_none() && field.is("Received") {
                let value = field.unfolded();
                envelope.received_at =
                    memchr::memrchr(b';', &value).and_then(|at| UnixTime::parse_rfc5322(value[at + 1..].trim_ascii()));
            }
        }
        envelope
    }

    /// Recovers the envelope as [`Envelope::recover`] does, and with it who handed the message to the provider and what
    /// the provider found, as far as the account's `trusted_relays` reach.
    ///
    /// ```
    /// use connectord_mail::relay::Client;
    /// use connectord_mail::{Envelope, Head, Relays};
    /// let head = Head::of(
    ///     b"Return-Path: <news@shop.test>\r\nAuthentication-Results: provider.test; spf=pass smtp.mailfrom=shop.test\r\n\
    ///       Received: from out.shop.test (out.shop.test [192.0.2.7]) by mx.provider.test (Postfix) with ESMTPS id 1\r\n\
    ///       Received: from forged (forged [198.51.100.1]) by mx.provider.test (Postfix) with ESMTPS id 2\r\n\r\n",
    /// );
    /// let envelope = Envelope::recover_trusting(head, &Relays::parse(["provider.test"]).unwrap());
    /// let Client::Known(handoff) = envelope.client else { panic!() };
    /// assert_eq!(handoff.address.to_string(), "192.0.2.7");
    /// assert_eq!(envelope.authentication[0].result("spf"), Some("pass"));
    /// ```
    pub fn recover_trusting(head: Head<'_>, relays: &Relays) -> Self {
        let (client, authentication, origins) = relays.transport(head);
        Self { client, authentication, origins, ..Self::recover(head) }
    }
}

/// A path that can be given to an SMTP or LMTP server: `<>`, or `<local@domain>` without white space, control
/// characters, source route or angle brackets inside.
fn reverse_path(value: &[u8]) -> Option<String> {
    let path = value.strip_prefix(b"<").and_then(|v| v.strip_suffix(b">")).unwrap_or(value).trim_ascii();
    if path.is_empty() {
        return Some(String::new());
    }
    let path = std::str::from_utf8(path).ok()?;
    let (local, domain) = path.rsplit_once('@')?;
    let usable = path.len() <= MAX_PATH
        && !local.is_empty()
        && !domain.is_empty()
        && !path.starts_with('@')
        && !path.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>'));
    usable.then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_that_can_travel_is_taken() {
        let path = |field: &str| Envelope::recover(Head::of(format!("{field}\r\n\r\n").as_bytes())).reverse_path;
        assert_eq!(path("Return-Path: <>"), Some(String::new()));
        assert_eq!(path("return-path: a@b"), Some("a@b".into()));
        assert_eq!(path("Return-Path: <a@b> SIZE=1"), None);
        assert_eq!(path("Return-Path: <a@b>\r\n\tRCPT TO:<x>"), None);
        assert_eq!(path("Return-Path: <@route:a@b>"), None);
        assert_eq!(path("Return-Path: <MAILER-DAEMON>"), None);
        assert_eq!(path("X: y"), None);
    }

    #[test]
    fn a_second_return_path_is_the_senders_own_and_not_believed() {
        let head = Head::of(b"Return-Path: <bad path>\r\nReturn-Path: <forged@x>\r\n\r\n");
        assert_eq!(Envelope::recover(head).reverse_path, None);
    }
}
