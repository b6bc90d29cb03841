//! Retrieval from a real Courier (imapd 5.0.13, pop3d 1.0.16).

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod interop;

use common::{Installation, once, token_mail};
use connectord_account::{Check, Folder, Removal};
use connectord_testkit::{Courier, Message, Service, corpus};
use connectord_wire::Security;
use interop::{
    ANN, BOTH, WAYS, brings_all_once, brings_nothing, is_told_of_new_mail, job, removing, with_last_line_end,
};

const IMAPS: (Service, Security) = (Service::Imaps, Security::Tls);

fn letters(count: usize) -> Vec<Message> {
    token_mail(count).into_iter().map(Message::new).collect()
}

#[tokio::test]
async fn every_message_of_the_sample_arrives_once_by_each_protocol_with_and_without_encryption() {
    let courier = Courier::start(ANN);
    let messages = corpus::messages(100, 5);
    courier.seed("ann", "INBOX", &messages);
    for way in WAYS {
        let here = Installation::new();
        let job = job(&here, courier.port(way.0), courier.certificates(), way, |_| {});
        let expected = messages.iter().map(|message| as_sent(way.0, &message.octets)).collect();
        brings_all_once(&here, &job, expected, &format!("{way:?}")).await;
    }
}

/// What Courier makes of a file, as a Maildir gets it: a CR before each LF, also before one that has a CR.
fn as_sent(service: Service, octets: &[u8]) -> Vec<u8> {
    with_last_line_end(service, octets.to_vec())
}

#[tokio::test]
async fn what_was_delivered_is_removed() {
    let courier = Courier::start(ANN);
    for way in BOTH {
        courier.seed("ann", "INBOX", &letters(20));
        let here = Installation::new();
        let job = job(&here, courier.port(way.0), courier.certificates(), way, removing);
        let report = here.run_well(&job).await;
        assert_eq!((report.delivered, report.removed), (20, 20), "{way:?}");
        assert_eq!((here.tokens("ann"), courier.messages("ann", "INBOX").len()), (once(20), 0), "{way:?}");
        brings_nothing(&here, &job, &format!("{way:?}")).await;
    }
}

#[tokio::test]
async fn mailboxes_with_odd_names_are_found_and_emptied() {
    let courier = Courier::start(ANN);
    let names = ["Work", "Work/2024", "Grüße & Küsse", "it's (here) 100% *star*", "back\\slash \"quoted\"", "日本語"];
    let mail = letters(names.len() + 1);
    courier.seed("ann", "INBOX", &mail[..1]);
    for (name, message) in names.iter().zip(&mail[1..]) {
        courier.seed("ann", name, std::slice::from_ref(message));
    }
    let here = Installation::new();
    let job = job(&here, courier.port(Service::Imaps), courier.certificates(), IMAPS, |account| {
        removing(account);
        account.folders = vec![Folder::Pattern("*".into())];
    });
    here.run_well(&job).await;
    assert_eq!(here.tokens("ann"), once(mail.len()));
    for name in names {
        assert_eq!(courier.messages("ann", name).len(), 0, "{name}");
    }
    brings_nothing(&here, &job, "a second check").await;
}

#[tokio::test]
async fn a_new_uidvalidity_delivers_nothing_again() {
    let courier = Courier::start(ANN);
    courier.seed("ann", "INBOX", &letters(10));
    let here = Installation::new();
    let job = job(&here, courier.port(Service::Imaps), courier.certificates(), IMAPS, |_| {});
    here.run_well(&job).await;
    // Somebody opens it for writing, and the number is kept; then the list is lost.
    courier.say("ann", &["SELECT INBOX"]);
    brings_nothing(&here, &job, "the number is kept").await;
    courier.change_uid_validity("ann", "INBOX");
    brings_nothing(&here, &job, "a new number").await;
    assert_eq!(here.tokens("ann"), once(10));
}

#[tokio::test]
async fn new_mail_is_heard_of_at_once() {
    let courier = Courier::start(ANN);
    let mail = letters(2);
    courier.seed("ann", "INBOX", &mail[..1]);
    let here = Installation::new();
    let job = job(&here, courier.port(Service::Imaps), courier.certificates(), IMAPS, |account| {
        account.check = Check::Idle;
    });
    is_told_of_new_mail(&here, job, 1, || courier.seed("ann", "INBOX", &mail[1..])).await;
    assert_eq!(here.tokens("ann"), once(2));
}

#[tokio::test]
async fn delivered_messages_are_moved_to_a_mailbox_that_is_not_there_yet() {
    let courier = Courier::start(ANN);
    courier.seed("ann", "INBOX", &letters(5));
    let here = Installation::new();
    let job = job(&here, courier.port(Service::Imaps), courier.certificates(), IMAPS, |account| {
        removing(account);
        account.removal = Removal::MoveTo("INBOX.Done".into());
    });
    courier.say("ann", &["CREATE INBOX.Done"]);
    here.run_well(&job).await;
    assert_eq!(here.tokens("ann"), once(5));
    assert_eq!((courier.messages("ann", "INBOX").len(), courier.messages("ann", "Done").len()), (0, 5));
}

#[tokio::test]
async fn a_message_that_sorts_before_the_others_is_not_taken_for_one_of_them() {
    let courier = Courier::start(ANN);
    let mail = letters(3);
    courier.seed("ann", "INBOX", &mail[..1]);
    courier.say("ann", &["SELECT INBOX"]);
    let here = Installation::new();
    let job = job(&here, courier.port(Service::Imaps), courier.certificates(), IMAPS, |_| {});
    courier.seed("ann", "INBOX", &mail[1..2]);
    here.run_well(&job).await;
    // Its file was made by a machine whose clock is behind.
    let early = courier.maildir("ann").join("new/1000000000.early");
    std::fs::write(&early, &mail[2].octets).unwrap();
    std::os::unix::fs::chown(&early, Some(8), Some(8)).unwrap();
    here.pass(3600);
    here.run_well(&job).await;
    assert_eq!(here.tokens("ann"), once(3));
}
