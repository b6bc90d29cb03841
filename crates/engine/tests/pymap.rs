//! Retrieval from a real pymap (0.36.7), an IMAP server from PyPI.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod interop;

use common::{Installation, once, token_mail, with_lf};
use connectord_account::{Check, Folder, Removal};
use connectord_testkit::{Message, Pymap, Service, corpus};
use connectord_wire::Security;
use interop::{ANN, brings_all_once, brings_nothing, is_told_of_new_mail, job, removing};

const PLAIN: (Service, Security) = (Service::Imap, Security::None);
const STARTTLS: (Service, Security) = (Service::Imap, Security::StartTls);

fn letters(count: usize) -> Vec<Message> {
    token_mail(count).into_iter().map(Message::new).collect()
}

/// Started, and logged in once, as it makes the Maildir then.
fn pymap() -> Pymap {
    let pymap = Pymap::start(ANN);
    pymap.say("ann", &["NOOP"]);
    pymap
}

#[tokio::test]
async fn every_message_of_the_sample_arrives_once_with_and_without_encryption() {
    let pymap = pymap();
    let messages = corpus::messages(100, 5);
    assert!(pymap.append("ann", "INBOX", &messages).iter().all(Result::is_ok));
    for way in [PLAIN, STARTTLS] {
        let here = Installation::new();
        let job = job(&here, pymap.port(way.0), pymap.certificates(), way, |_| {});
        let expected = messages.iter().map(|message| as_kept(&message.octets)).collect();
        brings_all_once(&here, &job, expected, &format!("{way:?}")).await;
    }
}

/// What pymap makes of a message, as a Maildir gets it: where there is no header, it puts an empty one, and a
/// bare CR becomes a line end.
fn as_kept(octets: &[u8]) -> Vec<u8> {
    let first = octets.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let line: &[u8] = if first.contains(&b':') || first.is_empty() { b"" } else { b"\n" };
    [line, &with_lf(octets)].concat().iter().map(|octet| if *octet == b'\r' { b'\n' } else { *octet }).collect()
}

#[tokio::test]
async fn what_was_delivered_is_removed() {
    let pymap = pymap();
    pymap.seed("ann", "INBOX", &letters(20));
    let here = Installation::new();
    let job = job(&here, pymap.port(Service::Imap), pymap.certificates(), STARTTLS, removing);
    let report = here.run_well(&job).await;
    assert_eq!((report.delivered, report.removed), (20, 20));
    assert_eq!((here.tokens("ann"), pymap.messages("ann", "INBOX").len()), (once(20), 0));
    brings_nothing(&here, &job, "a second check").await;
}

#[tokio::test]
async fn mailboxes_with_odd_names_are_found_and_emptied() {
    let pymap = pymap();
    // As on the wire; the last but one is "Grüße & Küsse".
    let names = ["Work", "Work/2024", "it's (here)", "back\\\\slash", "Gr&APwA3w-e &- K&APw-sse", "&ZeVnLIqe-"];
    let mail = letters(names.len() + 1);
    assert_eq!(pymap.append("ann", "INBOX", &mail[..1]), [Ok(())]);
    for (name, message) in names.iter().zip(&mail[1..]) {
        pymap.say("ann", &[&format!("CREATE \"{name}\"")]);
        assert_eq!(pymap.append("ann", name, std::slice::from_ref(message)), [Ok(())]);
    }
    let here = Installation::new();
    let job = job(&here, pymap.port(Service::Imap), pymap.certificates(), STARTTLS, |account| {
        removing(account);
        account.folders = vec![Folder::Pattern("*".into())];
    });
    here.run_well(&job).await;
    assert_eq!(here.tokens("ann"), once(mail.len()));
    for name in names {
        let said = pymap.say("ann", &[&format!("STATUS \"{name}\" (MESSAGES)")]).concat();
        assert!(said.contains("MESSAGES 0"), "{said}");
    }
    brings_nothing(&here, &job, "a second check").await;
}

#[tokio::test]
async fn a_mailbox_that_was_made_anew_delivers_nothing_again() {
    let pymap = pymap();
    let fill = || {
        pymap.say("ann", &["CREATE Work"]);
        assert!(pymap.append("ann", "Work", &letters(10)).iter().all(Result::is_ok));
        pymap.say("ann", &["STATUS Work (UIDVALIDITY)"])
    };
    let before = fill();
    let here = Installation::new();
    let job = job(&here, pymap.port(Service::Imap), pymap.certificates(), STARTTLS, |account| {
        account.folders = vec![Folder::Name("Work".into())];
    });
    here.run_well(&job).await;
    pymap.say("ann", &["DELETE Work"]);
    assert_ne!(fill(), before);
    brings_nothing(&here, &job, "a new mailbox").await;
    assert_eq!(here.tokens("ann"), once(10));
}

#[tokio::test]
async fn new_mail_is_heard_of_at_once() {
    let pymap = pymap();
    let mail = letters(2);
    assert_eq!(pymap.append("ann", "INBOX", &mail[..1]), [Ok(())]);
    let here = Installation::new();
    let job = job(&here, pymap.port(Service::Imap), pymap.certificates(), STARTTLS, |account| {
        account.check = Check::Idle;
    });
    is_told_of_new_mail(&here, job, 1, || {
        assert_eq!(pymap.append("ann", "INBOX", &mail[1..]), [Ok(())]);
    })
    .await;
    assert_eq!(here.tokens("ann"), once(2));
}

#[tokio::test]
async fn delivered_messages_are_moved() {
    let pymap = pymap();
    pymap.seed("ann", "INBOX", &letters(5));
    pymap.say("ann", &["CREATE Done"]);
    let here = Installation::new();
    let job = job(&here, pymap.port(Service::Imap), pymap.certificates(), STARTTLS, |account| {
        removing(account);
        account.removal = Removal::MoveTo("Done".into());
    });
    here.run_well(&job).await;
    assert_eq!((here.tokens("ann"), pymap.messages("ann", "INBOX").len()), (once(5), 0));
    assert_eq!(pymap.messages("ann", "Done").len(), 5);
}
