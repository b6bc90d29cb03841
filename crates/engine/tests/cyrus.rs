//! Retrieval from a real Cyrus (3.6).

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod interop;

use std::sync::atomic::Ordering;

use common::{Installation, once, token_mail, with_lf};
use connectord_account::{Account, Check, Folder, Removal};
use connectord_engine::{Job, RunError};
use connectord_store::Store;
use connectord_testkit::{Cyrus, Message, Service, corpus};
use connectord_wire::Security;
use interop::{ANN, BOTH, WAYS, brings_all_once, brings_nothing, is_told_of_new_mail, removing, with_last_line_end};

const IMAPS: (Service, Security) = (Service::Imaps, Security::Tls);

/// Ann's account, with a mechanism that this server does not refuse first.
fn job(here: &Installation, cyrus: &Cyrus, way: (Service, Security), change: impl FnOnce(&mut Account)) -> Job {
    interop::job(here, cyrus.port(way.0), cyrus.certificates(), way, |account| {
        account.mechanisms = vec!["SCRAM-SHA-256".into()];
        change(account);
    })
}

fn letters(count: usize) -> Vec<Message> {
    token_mail(count).into_iter().map(Message::new).collect()
}

#[tokio::test]
async fn every_message_of_the_sample_arrives_once_by_each_protocol_with_and_without_encryption() {
    let cyrus = Cyrus::start(ANN);
    let messages = corpus::messages(100, 5);
    cyrus.place("ann", "INBOX", &messages);
    for way in WAYS {
        let here = Installation::new();
        let job = job(&here, &cyrus, way, |_| {});
        let expected = messages.iter().map(|message| as_sent(way.0, &message.octets)).collect();
        brings_all_once(&here, &job, expected, &format!("{way:?}")).await;
    }
}

/// What Cyrus makes of a message, as a Maildir gets it: by POP3 a line ends at its first NUL, without a line end.
fn as_sent(service: Service, octets: &[u8]) -> Vec<u8> {
    let whole = |line: &[u8]| line.iter().position(|octet| *octet == 0).unwrap_or(line.len());
    let cut = |line: &[u8]| line[..whole(line)].to_vec();
    match service {
        Service::Pop3 | Service::Pop3s => {
            let lines: Vec<_> = with_lf(octets).split_inclusive(|octet| *octet == b'\n').map(cut).collect();
            with_last_line_end(service, lines.concat())
        }
        _ => with_lf(octets),
    }
}

#[tokio::test]
async fn what_a_client_appends_arrives_and_what_is_refused_is_what_no_client_may_append() {
    let cyrus = Cyrus::start(ANN);
    let mut expected = Vec::new();
    let mut refusals = Vec::new();
    let messages = corpus::messages(100, 5);
    for (message, result) in messages.iter().zip(cyrus.append("ann", "INBOX", &messages)) {
        match result {
            Ok(()) => expected.push(&message.octets),
            Err(refusal) => refusals.push(refusal),
        }
    }
    refusals.sort();
    let nul = "NO Message contains NUL characters";
    let header = "NO Message contains invalid header";
    assert_eq!(refusals, [nul, nul, header, header]);
    for way in BOTH {
        let here = Installation::new();
        let job = job(&here, &cyrus, way, |_| {});
        brings_all_once(
            &here,
            &job,
            expected.iter().map(|octets| as_sent(way.0, octets)).collect(),
            &format!("{way:?}"),
        )
        .await;
    }
}

#[tokio::test]
async fn what_was_delivered_is_removed() {
    let cyrus = Cyrus::start(ANN);
    for way in BOTH {
        cyrus.place("ann", "INBOX", &letters(20));
        let here = Installation::new();
        let job = job(&here, &cyrus, way, removing);
        let report = here.run_well(&job).await;
        assert_eq!((report.delivered, report.removed), (20, 20), "{way:?}");
        assert_eq!(here.tokens("ann"), once(20), "{way:?}");
        assert_eq!(count(&cyrus, "INBOX"), 0, "{way:?}");
        brings_nothing(&here, &job, &format!("{way:?}")).await;
    }
}

/// How many messages are in a mailbox, named as on the wire.
fn count(cyrus: &Cyrus, mailbox: &str) -> usize {
    let said = cyrus.say("ann", &[&format!("STATUS \"{mailbox}\" (MESSAGES)")]).concat();
    let count = said.split("MESSAGES ").nth(1).and_then(|rest| rest.split(')').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("{said}"))
}

#[tokio::test]
async fn mailboxes_with_odd_names_are_found_and_emptied() {
    let cyrus = Cyrus::start(ANN);
    // As on the wire; the last but one is "Grüße & Küsse".
    let names = ["Work", "Work/2024", "it's (here)", "with.dot", "Gr&APwA3w-e &- K&APw-sse", "&ZeVnLIqe-"];
    let mail = letters(names.len() + 1);
    assert_eq!(cyrus.append("ann", "INBOX", &mail[..1]), [Ok(())]);
    for (name, message) in names.iter().zip(&mail[1..]) {
        cyrus.say("ann", &[&format!("CREATE \"{name}\"")]);
        assert_eq!(cyrus.append("ann", name, std::slice::from_ref(message)), [Ok(())]);
    }
    let here = Installation::new();
    let job = job(&here, &cyrus, IMAPS, |account| {
        removing(account);
        account.folders = vec![Folder::Pattern("*".into())];
    });
    here.run_well(&job).await;
    assert_eq!(here.tokens("ann"), once(mail.len()));
    for name in names {
        assert_eq!(count(&cyrus, name), 0, "{name}");
    }
    brings_nothing(&here, &job, "a second check").await;
}

#[tokio::test]
async fn a_mailbox_that_was_made_anew_delivers_nothing_again() {
    let cyrus = Cyrus::start(ANN);
    let fill = || {
        cyrus.say("ann", &["CREATE Work"]);
        cyrus.place("ann", "Work", &letters(10));
        cyrus.say("ann", &["STATUS Work (UIDVALIDITY)"])
    };
    let before = fill();
    let here = Installation::new();
    let job = job(&here, &cyrus, IMAPS, |account| {
        account.folders = vec![Folder::Name("Work".into())];
    });
    here.run_well(&job).await;
    cyrus.say("ann", &["DELETE Work"]);
    assert_ne!(fill(), before);
    brings_nothing(&here, &job, "a new mailbox").await;
    assert_eq!(here.tokens("ann"), once(10));
}

#[tokio::test]
async fn new_mail_is_heard_of_at_once() {
    let cyrus = Cyrus::start(ANN);
    let mail = letters(2);
    assert_eq!(cyrus.append("ann", "INBOX", &mail[..1]), [Ok(())]);
    let here = Installation::new();
    let job = job(&here, &cyrus, IMAPS, |account| {
        account.check = Check::Idle;
    });
    is_told_of_new_mail(&here, job, 1, || {
        assert_eq!(cyrus.append("ann", "INBOX", &mail[1..]), [Ok(())]);
    })
    .await;
    assert_eq!(here.tokens("ann"), once(2));
}

#[tokio::test]
async fn delivered_messages_are_moved() {
    let cyrus = Cyrus::start(ANN);
    cyrus.place("ann", "INBOX", &letters(5));
    cyrus.say("ann", &["CREATE Done"]);
    let here = Installation::new();
    let job = job(&here, &cyrus, IMAPS, |account| {
        removing(account);
        account.removal = Removal::MoveTo("Done".into());
    });
    here.run_well(&job).await;
    assert_eq!((here.tokens("ann"), count(&cyrus, "INBOX"), count(&cyrus, "Done")), (once(5), 0, 5));
}

#[tokio::test]
async fn our_channel_binding_is_refused_and_scram_without_it_leads_in() {
    let cyrus = Cyrus::start(ANN);
    cyrus.place("ann", "INBOX", &letters(1));
    for way in BOTH {
        let with = |mechanisms: &[&str]| {
            let here = Installation::new();
            let mechanisms = mechanisms.iter().map(|name| (*name).to_owned()).collect();
            let job = job(&here, &cyrus, way, |account| account.mechanisms = mechanisms);
            (here, job)
        };
        let (here, job) = with(&["SCRAM-SHA-256-PLUS"]);
        let error = here.run(&job).await.error;
        assert!(matches!(error, Some(RunError::Login { .. })), "{way:?}: {error:?}");
        // Whatever is offered: it is tried first, and then SCRAM without it, which shows no password.
        for mechanisms in [&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"][..], &[]] {
            let (here, job) = with(mechanisms);
            assert_eq!(here.run_well(&job).await.delivered, 1, "{way:?}, {mechanisms:?}");
        }
        // The next process begins with it: had the binding been refused anew, the time would be another one.
        let (here, job) = with(&[]);
        here.run_well(&job).await;
        let learnt = async |here: &Installation| here.store.accounts().await.unwrap()[0].health.login.clone().unwrap();
        let first = learnt(&here).await;
        assert!(first.contains(" SCRAM-SHA-256 SCRAM-SHA-256-PLUS,"), "{way:?}: {first}");
        let here = here.restarted().await;
        here.ahead.fetch_add(60, Ordering::Relaxed);
        let job = interop::job(&here, cyrus.port(way.0), cyrus.certificates(), way, |_| {});
        here.run_well(&job).await;
        assert_eq!(learnt(&here).await, first, "{way:?}");
        for mechanism in ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"] {
            let (here, job) = with(&[mechanism]);
            assert_eq!(here.run_well(&job).await.delivered, 1, "{way:?}, {mechanism}");
        }
    }
}
