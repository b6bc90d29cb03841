use connectord_mail::{DeliveryId, Head, UnixTime};
use connectord_wire::is_deceptive;

use crate::edit::{encoded, write_field};

/// Most octets of a line of the original header that are shown.
const MAX_SHOWN: usize = 200;

/// The message that is delivered in place of an infected one ([`crate::Disposition::Notice`]).
///
/// Plain text; what it shows of the original is made inert and cut, and nothing of its body is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice<'a> {
    /// Who gets it.
    pub recipient: &'a str,
    /// The account the original came through.
    pub account: &'a str,
    /// This machine's name.
    pub hostname: &'a str,
    /// Identity of the original message, by which the quarantine is asked for it.
    pub id: DeliveryId,
    /// What was found, as [`crate::Decision::reason`] says it.
    pub reason: &'a str,
    /// Now.
    pub now: UnixTime,
}

impl Notice<'_> {
    /// Writes the notice, header and text, with CRLF.
    ///
    /// ```
    /// use connectord_filter::Notice;
    /// use connectord_mail::{DeliveryId, Head, Identity, UnixTime};
    /// let id = DeliveryId::new(Identity { account: "a", mailbox: "", uid_validity: 0, key: b"1", generation: 0 });
    /// let notice = Notice {
    ///     recipient: "ann@here.test", account: "ann@there.test", hostname: "mail.here.test", id,
    ///     reason: "virus found: Eicar", now: UnixTime(0),
    /// };
    /// let text = String::from_utf8(notice.message(Head::of(b"Subject: cute kittens\r\n\r\n"))).unwrap();
    /// assert!(text.contains("Subject: [VIRUS] cute kittens\r\n"));
    /// assert!(text.contains("virus found: Eicar"));
    /// ```
    pub fn message(&self, original: Head<'_>) -> Vec<u8> {
        let shown = |name: &str| {
            let field =
                original.fields().find(|field| field.is(name)).map(|field| field.unfolded()).unwrap_or_default();
            let text = String::from_utf8_lossy(&field[..field.len().min(MAX_SHOWN)]).into_owned();
            text.chars().map(|c| if is_unseen(c) { ' ' } else { c }).collect::<String>().trim().to_owned()
        };
        let inert =
            |text: &str| -> String { text.chars().filter(|c| !is_unseen(*c) && !matches!(c, '<' | '>')).collect() };
        let (hostname, recipient) = (inert(self.hostname), inert(self.recipient));
        let mut out = Vec::new();
        let subject = shown("Subject");
        for (name, value) in [
            ("From", format!("connectord <postmaster@{hostname}>")),
            ("To", format!("<{recipient}>")),
            // As it stands when it is encoded already: mail programs decode what is behind the prefix.
            (
                "Subject",
                if subject.is_ascii() { format!("[VIRUS] {subject}") } else { encoded(&format!("[VIRUS] {subject}")) },
            ),
            ("Date", self.now.to_string()),
            ("Message-ID", format!("<{}.notice@{hostname}>", self.id)),
            // RFC 3834 §5: nobody answers it.
            ("Auto-Submitted", "auto-generated".to_owned()),
            ("MIME-Version", "1.0".to_owned()),
            ("Content-Type", "text/plain; charset=utf-8".to_owned()),
            ("Content-Transfer-Encoding", "8bit".to_owned()),
        ] {
            write_field(&mut out, name, &value);
        }
        let text = format!(
            "A message to you was held back: {}.\n\n    From:       {}\n    Subject:    {}\n    Date:       {}\n    \
             Message-ID: {}\n    Account:    {}\n\nIt is in the quarantine as {}. Whoever runs this mail server can show it, \
             release it or discard it.\n",
            inert(self.reason),
            shown("From"),
            subject,
            shown("Date"),
            shown("Message-ID"),
            inert(self.account),
            self.id,
        );
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(text.replace('\n', "\r\n").as_bytes());
        out
    }
}

/// Whether a character acts instead of being seen: it moves the cursor, or turns the text around it.
fn is_unseen(c: char) -> bool {
    c.is_control() || is_deceptive(c)
}

#[cfg(test)]
mod tests {
    use connectord_mail::Identity;

    use super::*;

    #[test]
    fn nothing_of_the_original_gets_out_of_its_place() {
        let id = DeliveryId::new(Identity { account: "a", mailbox: "", uid_validity: 0, key: b"1", generation: 0 });
        let notice = Notice {
            recipient: "ann@here.test>\r\nBcc: <x@y",
            account: "a\r\n\r\nb",
            hostname: "h",
            id,
            reason: "virus found: A\r\nB",
            now: UnixTime(0),
        };
        let subject = format!("Subject: {}\r\n\tX\x1b[2J\r\nFrom: <script>\r\n\r\n", "long ".repeat(100));
        let message = notice.message(Head::of(subject.as_bytes()));
        let head = Head::of(&message);
        let names: Vec<_> = head.fields().map(|field| String::from_utf8_lossy(field.name).into_owned()).collect();
        assert_eq!(
            names,
            [
                "From",
                "To",
                "Subject",
                "Date",
                "Message-ID",
                "Auto-Submitted",
                "MIME-Version",
                "Content-Type",
                "Content-Transfer-Encoding"
            ]
        );
        assert!(!message.contains(&0x1b));
        assert!(message.split(|o| *o == b'\n').all(|line| line.len() < 998));
        let mut utf8 = notice;
        utf8.reason = "x";
        let message = utf8.message(Head::of("Subject: Grüße\r\n\r\n".as_bytes()));
        assert_eq!(Head::of(&message).field("Subject"), Some(&b"=?utf-8?B?W1ZJUlVTXSBHcsO8w59l?="[..]));
    }
}
