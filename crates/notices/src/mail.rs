//! Notices by mail: one RFC 5322 message, through a destination like any other mail.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use connectord_delivery::{Delivery, FailureKind, Outcome, Parcel, Recipient};
use connectord_mail::{DeliveryId, Identity, UnixTime};
use lettre::message::header::{ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::message::{Mailbox, Message};

use crate::Bundle;

/// What the Message-ID of every notice begins with: how a notice that comes back is recognised.
pub(crate) const MESSAGE_ID: &str = "connectord-notice.";

/// Longest wait for one delivery.
const DEADLINE: Duration = Duration::from_secs(90);

/// Somebody who gets notices by mail.
#[derive(Clone)]
pub struct Reader {
    /// The local user, and the address the mail is sent to.
    pub recipient: Recipient,
    /// How it gets there.
    pub delivery: Arc<dyn Delivery>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({} by {})", self.recipient.address, self.delivery.describe())
    }
}

/// What goes wrong with a mail.
pub(crate) struct Undelivered {
    pub(crate) text: String,
    /// Whether trying again may help.
    pub(crate) again: bool,
    /// Whether others at the same destination need not be tried now.
    pub(crate) destination: bool,
}

/// Makes the message. `from` and the reader's address are mailboxes; names without a domain get this machine's.
pub fn message(bundle: &Bundle, from: &str, to: &str) -> Result<Vec<u8>, String> {
    let domain = domain(&bundle.machine);
    let mailbox = |name: &str| -> Result<Mailbox, String> {
        let address = if name.contains('@') { name.to_owned() } else { format!("{name}@{domain}") };
        address.parse().map_err(|error| format!("{name:?} is no mail address: {error}"))
    };
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(bundle.made().0).unwrap_or_default());
    let field =
        |name: &'static str, value: &str| HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned());
    let message = Message::builder()
        .from(mailbox(from)?)
        .to(mailbox(to)?)
        .date(date)
        .subject(bundle.title())
        .message_id(Some(format!("<{MESSAGE_ID}{}@{domain}>", bundle.id)))
        // RFC 3834: nobody answers it by a program.
        .raw_header(field("Auto-Submitted", "auto-generated"))
        .raw_header(field("Precedence", "bulk"))
        .raw_header(field("X-Connectord-Notice", &bundle.id))
        .header(MIME_VERSION_1_0)
        .header(ContentType::TEXT_PLAIN)
        .body(bundle.text())
        .map_err(|error| format!("the notice cannot be written as a mail: {error}"))?;
    Ok(message.formatted())
}

/// A name that can stand behind an `@`.
fn domain(machine: &str) -> &str {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if !machine.is_empty() && machine.chars().all(fine) { machine } else { "localhost" }
}

/// Delivers one notice to one reader.
pub(crate) async fn deliver(bundle: &Bundle, from: &str, reader: &Reader, attempt: u32) -> Result<(), Undelivered> {
    let fatal = |text: String| Undelivered { text, again: false, destination: false };
    let octets = message(bundle, from, &reader.recipient.address).map_err(fatal)?;
    let identity = |account| Identity {
        account,
        mailbox: &reader.recipient.user,
        uid_validity: 0,
        key: bundle.id.as_bytes(),
        generation: 0,
    };
    let parcel = Parcel {
        id: DeliveryId::new(identity("connectord-notice")),
        message: DeliveryId::new(identity("connectord-notices")),
        recipient: reader.recipient.clone(),
        // Nobody gets a bounce of it.
        reverse_path: String::new(),
        trace: Bytes::new(),
        body: Arc::new(Bytes::from(octets)),
        arrived_at: Some(UnixTime(bundle.made().0)),
        folder: None,
        attempt,
    };
    let delivery = Arc::clone(&reader.delivery);
    let delivered = async move {
        let prepared = delivery.prepare(vec![parcel]).await;
        let notes: Vec<_> = prepared.notes().iter().filter_map(|note| note.clone().ok().flatten()).collect();
        let outcome = prepared.complete().await.into_iter().next();
        delivery.settled(&notes).await;
        outcome
    };
    let by = reader.delivery.describe();
    let failure = match tokio::time::timeout(DEADLINE, delivered).await {
        Ok(Some(Outcome::Delivered { .. })) => return Ok(()),
        Ok(Some(Outcome::Failed(failure) | Outcome::Unknown(failure))) => failure,
        Ok(_) => return Err(fatal(format!("{by} does not say what became of it"))),
        Err(_) => {
            let text = format!("{by} did not take it within {} s", DEADLINE.as_secs());
            return Err(Undelivered { text, again: true, destination: true });
        }
    };
    Err(Undelivered {
        text: format!("{by}: {failure}"),
        again: !matches!(failure.kind, FailureKind::Permanent | FailureKind::NoUser | FailureKind::Misconfigured),
        destination: matches!(failure.kind, FailureKind::Unavailable | FailureKind::DiskFull),
    })
}

/// Destinations that do not take mail now, so that a thousand notices do not wait for each.
#[derive(Default)]
pub(crate) struct Down(BTreeSet<String>);

impl Down {
    pub(crate) fn is(&self, reader: &Reader) -> bool {
        self.0.contains(&reader.delivery.describe())
    }

    pub(crate) fn note(&mut self, reader: &Reader) {
        self.0.insert(reader.delivery.describe());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(machine: &str) -> Bundle {
        let matter = crate::Matter {
            event: crate::Event::Test,
            subject: crate::Subject::Host("imap.müller.example".into()),
            accounts: Vec::new(),
        };
        Bundle::new(7, machine, UnixTime(1_700_000_000), vec![crate::Notice::of(&matter)])
    }

    #[test]
    fn a_notice_is_a_proper_message_that_no_program_answers() {
        let octets = message(&bundle("mail.example.org"), "connectord", "postmaster").unwrap();
        let text = String::from_utf8(octets).unwrap();
        for line in [
            "From: connectord@mail.example.org",
            "To: postmaster@mail.example.org",
            "Date: Tue, 14 Nov 2023 22:13:20 +0000",
            "Subject: connectord: a test",
            "Message-ID: <connectord-notice.0000000000000007@mail.example.org>",
            "Auto-Submitted: auto-generated",
            "Precedence: bulk",
            "X-Connectord-Notice: 0000000000000007",
            "Content-Type: text/plain; charset=utf-8",
            "MIME-Version: 1.0",
        ] {
            assert!(text.contains(&format!("{line}\r\n")), "{line} is missing in\n{text}");
        }
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
    }

    #[test]
    fn a_machine_whose_name_is_no_domain_has_notices_all_the_same() {
        let text = String::from_utf8(message(&bundle("my_box ü"), "connectord", "ann").unwrap()).unwrap();
        assert!(text.contains("To: ann@localhost\r\n"));
        assert!(message(&bundle("a"), "connectord", "two words").is_err());
    }
}
