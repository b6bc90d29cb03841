//! LMTP to a real Dovecot, with Sieve.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use bytes::Bytes;
use connectord_deliveries::battery::Bench;
use connectord_deliveries::lmtp::{Lmtp, Options};
use connectord_delivery::{Delivery, FailureKind, Outcome, Parcel, Presence, Recipient};
use connectord_mail::{Body, DeliveryId, Identity};
use connectord_net::Connector;
use connectord_testkit::{Dovecot, DovecotOptions, Service};

const TRACE: &str = "Received: from pop.example.org by connectord\r\nX-Connectord-Id: 1\r\n";

fn parcels(key: &str, body: Arc<dyn Body>, users: &[&str]) -> Vec<Parcel> {
    let message = DeliveryId::new(Identity {
        account: "a@example.org",
        mailbox: "INBOX",
        uid_validity: 1,
        key: key.as_bytes(),
        generation: 0,
    });
    users
        .iter()
        .map(|user| Parcel {
            id: message.for_recipient("default", user),
            message,
            recipient: recipient(user),
            reverse_path: "bounce+ann=example.org@lists.example.net".into(),
            trace: Bytes::from_static(TRACE.as_bytes()),
            body: body.clone(),
            arrived_at: None,
            folder: None,
            attempt: 1,
        })
        .collect()
}

fn text(message: &str) -> Arc<dyn Body> {
    Arc::new(Bytes::copy_from_slice(message.as_bytes()))
}

fn recipient(user: &str) -> Recipient {
    Recipient { user: user.into(), address: user.into() }
}

fn over_unix(dovecot: &Dovecot) -> Lmtp {
    let address = format!("unix:{}", dovecot.lmtp_socket().display());
    Lmtp::new(Options::new(address.parse().unwrap()), Connector::new())
}

fn over_tcp(dovecot: &Dovecot) -> Lmtp {
    Lmtp::new(Options::new(dovecot.address(Service::Lmtp).to_string().parse().unwrap()), Connector::new())
}

async fn deliver(lmtp: &Lmtp, batch: Vec<Parcel>) -> Vec<Outcome> {
    lmtp.prepare(batch).await.complete().await
}

fn saved(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Delivered { detail } if detail.starts_with("250 2.0.0") && detail.ends_with("Saved"))
}

#[tokio::test]
async fn the_envelope_sender_reaches_sieve_and_the_file() {
    let script = "require [\"fileinto\", \"envelope\", \"mailbox\"];\n\
        if envelope :is \"from\" \"bounce+ann=example.org@lists.example.net\" { fileinto :create \"Lists\"; }";
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "x").sieve("ann", script));
    for lmtp in [over_unix(&dovecot), over_tcp(&dovecot)] {
        lmtp.probe().await.unwrap();
        let message = "Subject: hi\r\n\r\n.dot\n..\nlast line without end";
        let outcomes = deliver(&lmtp, parcels("1", text(message), &["ann"])).await;
        assert!(saved(&outcomes[0]), "{outcomes:?}");
    }
    let lists = dovecot.messages("ann", "Lists");
    assert_eq!(lists.len(), 2);
    for stored in lists {
        let stored = String::from_utf8(stored).unwrap();
        assert!(
            stored.starts_with("Return-Path: <bounce+ann=example.org@lists.example.net>\nDelivered-To: ann\n"),
            "{stored}"
        );
        let sent = TRACE.replace("\r\n", "\n") + "Subject: hi\n\n.dot\n..\nlast line without end\n";
        assert!(stored.ends_with(&sent), "{stored}");
    }
}

#[tokio::test]
async fn a_user_that_does_not_exist_costs_the_others_nothing() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "x").user("cid", "x"));
    let lmtp = over_unix(&dovecot);
    assert_eq!(lmtp.presence(&recipient("ann")).await, Ok(Presence::Here));
    assert!(matches!(lmtp.presence(&recipient("bob")).await, Ok(Presence::Absent(_))));
    let outcomes = deliver(&lmtp, parcels("1", text("Subject: x\r\n\r\n"), &["ann", "bob", "cid"])).await;
    assert!(saved(&outcomes[0]) && saved(&outcomes[2]), "{outcomes:?}");
    let Outcome::Failed(failure) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!(failure.kind, FailureKind::NoUser, "{failure}");
    assert_eq!(dovecot.messages("ann", "INBOX").len(), 1);
    assert_eq!(dovecot.messages("cid", "INBOX").len(), 1);
}

#[tokio::test]
async fn a_sender_that_dovecot_finds_odd_is_left_out_and_the_message_arrives() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "x"));
    let lmtp = over_unix(&dovecot);
    for (n, reverse_path) in ["a@b@c", "ä@example.org", "x y@example.org", "", "MAILER-DAEMON"].iter().enumerate() {
        let parcels = parcels(&n.to_string(), text("Subject: x\r\n\r\n"), &["ann"]);
        let batch = parcels.into_iter().map(|p| Parcel { reverse_path: (*reverse_path).into(), ..p }).collect();
        let outcomes = deliver(&lmtp, batch).await;
        assert!(saved(&outcomes[0]), "{reverse_path}: {outcomes:?}");
    }
    assert_eq!(dovecot.messages("ann", "INBOX").len(), 5);
}

#[tokio::test]
async fn a_batch_of_eight_messages_arrives_whole_again_and_again() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "x").user("bob", "x"));
    let lmtp = over_unix(&dovecot);
    for round in 0..5 {
        let message = |n: usize| text(&format!("Subject: {round}-{n}\r\n\r\nbody\r\n"));
        let batch: Vec<Parcel> = (0..8)
            .flat_map(|n| parcels(&format!("{round}-{n}"), message(n), &[if n % 2 == 0 { "ann" } else { "bob" }]))
            .collect();
        let outcomes = deliver(&lmtp, batch).await;
        assert!(outcomes.iter().all(saved), "{outcomes:?}");
    }
    assert_eq!(dovecot.messages("ann", "INBOX").len(), 20);
    assert_eq!(dovecot.messages("bob", "INBOX").len(), 20);
}

#[tokio::test]
async fn a_full_mailbox_is_told_from_a_missing_one() {
    let quota = "mail_plugins = quota\nplugin {\n quota = maildir:User quota\n quota_rule = *:storage=10K\n}\n\
        protocol lmtp {\n mail_plugins = quota sieve\n}";
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "x").extra(quota));
    let lmtp = over_unix(&dovecot);
    let message = format!("Subject: large\r\n\r\n{}", "line of text\r\n".repeat(2000));
    let outcomes = deliver(&lmtp, parcels("1", text(&message), &["ann"])).await;
    let Outcome::Failed(failure) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(failure.kind, FailureKind::OverQuota, "{failure}");
    assert_eq!(lmtp.presence(&recipient("ann")).await, Ok(Presence::Here));
}

#[tokio::test]
async fn a_server_killed_between_the_steps_has_nothing_and_that_is_known() {
    let mut dovecot = Dovecot::start(DovecotOptions::new().user("ann", "x"));
    let lmtp = over_unix(&dovecot);
    let prepared = lmtp.prepare(parcels("1", text("Subject: x\r\n\r\n"), &["ann"])).await;
    assert_eq!(prepared.notes(), [Ok(None)]);
    dovecot.kill();
    let outcomes = prepared.complete().await;
    let Outcome::Failed(failure) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
    dovecot.restart();
    let outcomes = deliver(&lmtp, parcels("1", text("Subject: x\r\n\r\n"), &["ann"])).await;
    assert!(saved(&outcomes[0]), "{outcomes:?}");
    assert_eq!(dovecot.messages("ann", "INBOX").len(), 1);
}

/// What a message is in Dovecot's Maildir after LMTP: every line end is LF, and the last line has one.
fn stored(octets: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut stuffer = connectord_wire::dot::stuff();
    stuffer.push(octets, &mut wire);
    stuffer.finish(&mut wire);
    let (mut inbox, mut unstuffer) = (connectord_wire::Inbox::new(), connectord_wire::dot::Unstuffer::new());
    inbox.extend(&wire);
    let mut message = Vec::new();
    while let connectord_wire::dot::Piece::Octets(octets) = unstuffer.next(&mut inbox) {
        message.extend(octets.iter().filter(|octet| **octet != b'\r'));
    }
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_battery_of_all_destinations() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "x").user("bob", "x"));
    for lmtp in [over_unix(&dovecot), over_tcp(&dovecot)] {
        for user in ["ann", "bob"] {
            dovecot.expunge(user, "INBOX", dovecot.messages(user, "INBOX").len());
        }
        let bench = Bench {
            delivery: Arc::new(lmtp),
            recipients: [recipient("ann"), recipient("bob")],
            read: &|recipient| dovecot.messages(&recipient.user, "INBOX"),
            form: stored,
        };
        bench.run().await;
    }
}
