use crate::{DeliveryId, Head, UnixTime};

/// The header fields put in front of a message at delivery, and what goes into them.
///
/// Values are made inert: control characters and line ends become `?`, so that no name from outside adds a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace<'a> {
    /// The account's address.
    pub account: &'a str,
    /// The server the message was retrieved from.
    pub server: &'a str,
    /// This machine's name.
    pub hostname: &'a str,
    /// `POP3`, `POP3S`, `IMAP` or `IMAPS`.
    pub protocol: &'a str,
    /// The message's identity.
    pub id: DeliveryId,
    /// When it was retrieved.
    pub retrieved_at: UnixTime,
    /// 1 for the first attempt; more where an earlier one may have arrived.
    pub attempt: u32,
}

impl Trace<'_> {
    /// Writes the fields with CRLF: Received (RFC 5321 §4.4), X-Connectord-Id, X-Connectord-Account (what ends mail
    /// loops), and X-Connectord-Attempt when an earlier attempt may have arrived.
    pub fn fields(&self) -> Vec<u8> {
        let Self { id, attempt, .. } = self;
        let (account, server) = (inert(self.account), inert(self.server));
        let (hostname, protocol) = (inert(self.hostname), inert(self.protocol));
        let date = self.retrieved_at;
        let mut fields = format!(
            "Received: from {server} by {hostname} with {protocol}\r\n\t(connectord, account {account})\r\n\t\
             id {id}; {date}\r\nX-Connectord-Id: {id}\r\nX-Connectord-Account: {account}\r\n"
        );
        if *attempt > 1 {
            fields.push_str(&format!("X-Connectord-Attempt: {attempt}\r\n"));
        }
        fields.into_bytes()
    }
}

/// How often this account has delivered the message already: its X-Connectord-Account fields that name `account`.
///
/// A message that comes back from where it was delivered is in a loop.
pub fn loops(head: Head<'_>, account: &str) -> usize {
    let account = inert(account);
    head.fields()
        .filter(|field| field.is("X-Connectord-Account") && field.value.eq_ignore_ascii_case(account.as_bytes()))
        .count()
}

fn inert(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '(' | ')' | '\\') { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    #[test]
    fn no_value_can_add_a_field_and_a_loop_is_counted() {
        let id = DeliveryId::new(Identity { account: "a", mailbox: "", uid_validity: 0, key: b"1", generation: 0 });
        let trace = Trace {
            account: "a@b\r\nBcc: x",
            server: "pop.example.org",
            hostname: "mail",
            protocol: "POP3S",
            id,
            retrieved_at: UnixTime(0),
            attempt: 2,
        };
        let fields = String::from_utf8(trace.fields()).unwrap();
        assert_eq!(
            fields,
            format!(
                "Received: from pop.example.org by mail with POP3S\r\n\t(connectord, account a@b??Bcc: x)\r\n\tid {id}; \
                 Thu, 01 Jan 1970 00:00:00 +0000\r\nX-Connectord-Id: {id}\r\nX-Connectord-Account: a@b??Bcc: x\r\n\
                 X-Connectord-Attempt: 2\r\n"
            )
        );
        assert_eq!(loops(Head::of(fields.as_bytes()), "A@b\r\nBcc: x"), 1);
        assert_eq!(loops(Head::of(fields.as_bytes()), "c@d"), 0);
    }
}
