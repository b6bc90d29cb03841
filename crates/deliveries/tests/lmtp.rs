//! LMTP against servers that follow a script.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connectord_deliveries::lmtp::{Lmtp, LmtpAddress, Options};
use connectord_delivery::{
    Delivery, Failure, FailureKind, Outcome, Parcel, Prepared, Presence, RecallRow, Recalled, Recipient,
};
use connectord_mail::{Body, DeliveryId, Identity, Status};
use connectord_net::Connector;
use connectord_testkit::{Script, ScriptServer};
use connectord_wire::Endpoint;

const TRACE: &str = "Received: by connectord\r\n";

fn parcel(message: &str, user: &str) -> Parcel {
    let message_id = DeliveryId::new(Identity {
        account: "a@example.org",
        mailbox: "INBOX",
        uid_validity: 1,
        key: message.as_bytes(),
        generation: 0,
    });
    Parcel {
        id: message_id.for_recipient("default", user),
        message: message_id,
        recipient: recipient(user),
        reverse_path: "sender@example.org".into(),
        trace: Bytes::from_static(TRACE.as_bytes()),
        body: Arc::new(Bytes::copy_from_slice(message.as_bytes())),
        arrived_at: None,
        folder: None,
        attempt: 1,
    }
}

fn recipient(user: &str) -> Recipient {
    Recipient { user: user.into(), address: user.into() }
}

/// One message for several users.
fn parcels(message: &str, users: &[&str]) -> Vec<Parcel> {
    let first = parcel(message, users[0]);
    users
        .iter()
        .map(|user| Parcel {
            id: first.message.for_recipient("default", user),
            recipient: recipient(user),
            ..first.clone()
        })
        .collect()
}

fn lmtp_with(server: &ScriptServer, change: impl FnOnce(&mut Options)) -> Lmtp {
    let endpoint = Endpoint::new("127.0.0.1", server.port()).unwrap();
    let mut options = Options::new(LmtpAddress::Tcp(endpoint));
    change(&mut options);
    Lmtp::new(options, Connector::new())
}

fn lmtp(server: &ScriptServer) -> Lmtp {
    lmtp_with(server, |_| {})
}

fn hello() -> Script {
    Script::new()
        .server("220 ready")
        .client("LHLO localhost")
        .server_raw("250-host\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 1000000\r\n")
}

fn mail(script: Script, octets: usize) -> Script {
    script.client(&format!("MAIL FROM:<sender@example.org> SIZE={octets} BODY=8BITMIME"))
}

async fn deliver(lmtp: &Lmtp, batch: Vec<Parcel>) -> Vec<Outcome> {
    lmtp.prepare(batch).await.complete().await
}

fn delivered(detail: &str) -> Outcome {
    Outcome::Delivered { detail: detail.into() }
}

/// Kind of a failure, and whether the message may have arrived.
fn verdict(outcome: &Outcome) -> (Option<FailureKind>, &'static str) {
    match outcome {
        Outcome::Delivered { .. } => (None, "delivered"),
        Outcome::Failed(failure) => (Some(failure.kind), "failed"),
        Outcome::Unknown(failure) => (Some(failure.kind), "unknown"),
        other => panic!("{other:?}"),
    }
}

fn verdicts(outcomes: &[Outcome]) -> Vec<(Option<FailureKind>, &'static str)> {
    outcomes.iter().map(verdict).collect()
}

fn failures(prepared: &dyn Prepared) -> Vec<Option<Failure>> {
    prepared.notes().iter().map(|note| note.as_ref().err().cloned()).collect()
}

#[tokio::test]
async fn parcels_of_one_message_share_a_transaction_and_each_gets_its_own_answer() {
    let message = "Subject: x\n\n.dot\nbare\rcr\n";
    let server = mail(hello(), TRACE.len() + message.len())
        .client("RCPT TO:<ann>")
        .client("RCPT TO:<bob>")
        .client("RCPT TO:<cid>")
        .server_raw("250 2.1.0 ok\r\n250 2.1.5 ok\r\n550 5.1.1 <bob> User doesn't exist\r\n250 2.1.5 ok\r\n")
        .client("DATA")
        .server("354 go")
        .client_data()
        .server_raw("250 2.0.0 Saved\r\n451 4.2.0 later\r\n")
        .listen();
    let lmtp = lmtp(&server);
    let prepared = lmtp.prepare(parcels(message, &["ann", "bob", "cid"])).await;
    let text = format!(
        "LMTP server 127.0.0.1:{} answered \"550 5.1.1 <bob> User doesn't exist\" (during RCPT TO)",
        server.port()
    );
    let no_bob = Failure::new(FailureKind::NoUser, text).with_status(Status::parse(b"5.1.1"));
    assert_eq!(prepared.notes(), [Ok(None), Err(no_bob.clone()), Ok(None)]);
    let outcomes = prepared.complete().await;
    assert_eq!(outcomes[..2], [delivered("250 2.0.0 Saved"), Outcome::Failed(no_bob)]);
    assert_eq!(verdict(&outcomes[2]), (Some(FailureKind::Transient), "failed"));
    let heard = server.finish();
    assert_eq!(heard[0].last().unwrap(), &format!("{TRACE}Subject: x\r\n\r\n..dot\r\nbare\r\ncr\r\n"));
}

#[tokio::test]
async fn a_server_without_pipelining_and_with_long_answers_is_served_one_command_at_a_time() {
    let message = "x\r\n";
    let server = Script::new()
        .server_raw("220-hello\r\n220 there\r\n")
        .client("LHLO localhost")
        .server("250 host")
        .client("MAIL FROM:<sender@example.org>")
        .server_raw("250-2.1.0 fine\r\n250 2.1.0 indeed\r\n")
        .client("RCPT TO:<ann>")
        .server_raw("250\n")
        .client("RCPT TO:<bob>")
        .server_raw("452-4.2.2 full\r\n452-4.2.2 really\r\n452 4.2.2\r\n")
        .client("DATA")
        .server("354")
        .client_data()
        .server_raw("250-2.0.0 Saved\r\n250 2.0.0 <id>\r\n")
        .listen();
    let outcomes = deliver(&lmtp(&server), parcels(message, &["ann", "bob"])).await;
    assert_eq!(outcomes[0], delivered("250 2.0.0 Saved / <id>"));
    assert_eq!(verdict(&outcomes[1]), (Some(FailureKind::OverQuota), "failed"));
    server.finish();
}

#[tokio::test]
async fn a_server_that_dies_before_it_answers_the_dot_leaves_the_outcome_unknown() {
    let message = "x\r\n";
    for reset in [false, true] {
        let script = mail(hello(), TRACE.len() + message.len())
            .client("RCPT TO:<ann>")
            .client("RCPT TO:<bob>")
            .server_raw("250 ok\r\n250 ok\r\n250 ok\r\n")
            .client("DATA")
            .server("354 go")
            .client_data();
        let server = if reset { script.reset() } else { script.server("250 saved").close() }.listen();
        let outcomes = deliver(&lmtp(&server), parcels(message, &["ann", "bob"])).await;
        let unknown = (Some(FailureKind::Transient), "unknown");
        let first = if reset { unknown } else { (None, "delivered") };
        assert_eq!(verdicts(&outcomes), [first, unknown], "{outcomes:?}");
        server.finish();
    }
}

#[tokio::test]
async fn a_server_that_is_silent_after_the_dot_leaves_the_outcome_unknown_and_before_it_does_not() {
    let message = "x\r\n";
    let envelope = || mail(hello(), TRACE.len() + message.len()).client("RCPT TO:<ann>");
    let silent_after = |script: Script| async move {
        let server = script.client_closes().listen();
        let times = |options: &mut Options| {
            options.reply = Duration::from_millis(150);
            options.final_reply = Duration::from_millis(300);
        };
        let outcomes = deliver(&lmtp_with(&server, times), parcels(message, &["ann"])).await;
        server.finish();
        outcomes
    };
    let ok = "250 ok\r\n250 ok\r\n";
    let outcomes = silent_after(envelope()).await;
    assert_eq!(verdicts(&outcomes), [(Some(FailureKind::Unavailable), "failed")], "{outcomes:?}");
    let outcomes = silent_after(envelope().server_raw(ok).client("DATA")).await;
    assert_eq!(verdicts(&outcomes), [(Some(FailureKind::Unavailable), "failed")], "{outcomes:?}");
    let outcomes = silent_after(envelope().server_raw(ok).client("DATA").server("354 go").client_data()).await;
    assert_eq!(verdicts(&outcomes), [(Some(FailureKind::Transient), "unknown")], "{outcomes:?}");
    let Outcome::Unknown(failure) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(failure.text.ends_with("for 0.300 s while waiting for the answer to the message"), "{failure}");
}

#[tokio::test]
async fn a_421_before_the_dot_blames_the_server_and_not_the_message() {
    let message = "x\r\n";
    let envelope = || mail(hello(), TRACE.len() + message.len()).client("RCPT TO:<ann>");
    for script in [
        Script::new().server("421 4.3.2 busy"),
        Script::new().server("220 x").client("LHLO localhost").server("421 4.3.2 busy"),
        envelope().server("421 4.3.2 busy"),
        envelope().server("250 ok").server("421 4.3.2 busy"),
        envelope().server_raw("250 ok\r\n250 ok\r\n").client("DATA").server("421 4.3.2 busy"),
    ] {
        let server = script.close().listen();
        let outcomes = deliver(&lmtp(&server), parcels(message, &["ann"])).await;
        assert_eq!(verdicts(&outcomes), [(Some(FailureKind::Unavailable), "failed")], "{outcomes:?}");
        let Outcome::Failed(failure) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(failure.status, Status::parse(b"4.3.2"), "{failure}");
        server.finish();
    }
}

#[tokio::test]
async fn a_server_that_turns_us_away_for_good_is_for_a_person_to_look_at() {
    for script in [
        Script::new().server("554 5.7.1 not you"),
        Script::new().server("220 x").client("LHLO localhost").server("500 what is LHLO"),
    ] {
        let server = script.close().listen();
        let failure = lmtp(&server).probe().await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Misconfigured, "{failure}");
        server.finish();
    }
}

#[tokio::test]
async fn a_refused_data_or_sender_fails_every_recipient() {
    let message = "x\r\n";
    let envelope = || mail(hello(), TRACE.len() + message.len()).client("RCPT TO:<ann>").client("RCPT TO:<bob>");
    for (script, kind) in [
        (
            envelope().server_raw("250 ok\r\n250 ok\r\n250 ok\r\n").client("DATA").server("451 4.3.0 no"),
            FailureKind::Transient,
        ),
        (
            envelope().server_raw("250 ok\r\n250 ok\r\n250 ok\r\n").client("DATA").server("554 5.5.1 no"),
            FailureKind::Permanent,
        ),
        (
            envelope().server_raw("552 5.3.4 too large\r\n503 x\r\n503 x\r\n").client("RSET").server("250 ok"),
            FailureKind::Permanent,
        ),
        (
            envelope().server_raw("451 4.7.1 grey\r\n503 x\r\n503 x\r\n").client("RSET").server("250 ok"),
            FailureKind::Transient,
        ),
    ] {
        let server = script.listen();
        let outcomes = deliver(&lmtp(&server), parcels(message, &["ann", "bob"])).await;
        assert_eq!(verdicts(&outcomes), [(Some(kind), "failed"); 2], "{outcomes:?}");
        server.finish();
    }
}

#[tokio::test]
async fn a_senders_address_that_the_server_does_not_take_is_replaced_by_the_null_one() {
    let message = "x\r\n";
    let octets = TRACE.len() + message.len();
    let server = mail(hello(), octets)
        .client("RCPT TO:<ann>")
        .server_raw("501 5.1.7 bad address\r\n503 x\r\n")
        .client(&format!("MAIL FROM:<> SIZE={octets} BODY=8BITMIME"))
        .client("RCPT TO:<ann>")
        .server_raw("250 ok\r\n250 ok\r\n")
        .client("DATA")
        .server("354 go")
        .client_data()
        .server("250 saved")
        .listen();
    assert_eq!(deliver(&lmtp(&server), parcels(message, &["ann"])).await, [delivered("250 saved")]);
    server.finish();

    // One that would leave its brackets, or needs SMTPUTF8 that is not offered, is never sent.
    for reverse_path in ["a> SIZE=1", "ä@example.org"] {
        let server = hello()
            .client(&format!("MAIL FROM:<> SIZE={octets} BODY=8BITMIME"))
            .client("RCPT TO:<ann>")
            .server_raw("250 ok\r\n250 ok\r\n")
            .client("DATA")
            .server("354 go")
            .client_data()
            .server("250 saved")
            .listen();
        let batch = vec![Parcel { reverse_path: reverse_path.into(), ..parcel(message, "ann") }];
        assert_eq!(deliver(&lmtp(&server), batch).await, [delivered("250 saved")]);
        server.finish();
    }
}

#[tokio::test]
async fn smtputf8_is_said_when_an_address_needs_it_and_missed_when_it_is_not_offered() {
    let message = "x\r\n";
    let octets = TRACE.len() + message.len();
    let server = Script::new()
        .server("220 x")
        .client("LHLO localhost")
        .server_raw("250-x\r\n250-SIZE\r\n250 SMTPUTF8\r\n")
        .client(&format!("MAIL FROM:<sender@example.org> SIZE={octets} SMTPUTF8"))
        .server("250 ok")
        .client("RCPT TO:<jürgen>")
        .server("250 ok")
        .client("DATA")
        .server("354 go")
        .client_data()
        .server("250 saved")
        .listen();
    assert_eq!(deliver(&lmtp(&server), parcels(message, &["jürgen"])).await, [delivered("250 saved")]);
    server.finish();

    let server = hello().client("RSET").server("250 ok").listen();
    let outcomes = deliver(&lmtp(&server), parcels(message, &["jürgen"])).await;
    assert_eq!(verdicts(&outcomes), [(Some(FailureKind::Misconfigured), "failed")]);
    server.finish();
}

#[tokio::test]
async fn an_address_that_is_none_is_never_connected_for() {
    let server = hello().listen();
    let lmtp = lmtp(&server);
    for address in ["", "a\r\nRSET", "a>b"] {
        let batch = vec![Parcel {
            recipient: Recipient { user: "x".into(), address: address.into() },
            ..parcel("x\r\n", "ann")
        }];
        assert_eq!(verdicts(&deliver(&lmtp, batch).await), [(Some(FailureKind::Misconfigured), "failed")]);
    }
}

#[tokio::test]
async fn dropping_what_is_prepared_closes_without_a_message() {
    let message = "x\r\n";
    let server = mail(hello(), TRACE.len() + message.len())
        .client("RCPT TO:<ann>")
        .server_raw("250 ok\r\n250 ok\r\n")
        .client_closes()
        .listen();
    let prepared = lmtp(&server).prepare(parcels(message, &["ann"])).await;
    assert_eq!(prepared.notes(), [Ok(None)]);
    drop(prepared);
    server.finish();
}

/// A body that ends before its time, or fails.
struct Broken(&'static [u8], Option<io::ErrorKind>);

impl Body for Broken {
    fn size_octets(&self) -> u64 {
        1000
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.0.read_at_slice(offset, buffer), self.1) {
            (0, Some(kind)) => Err(kind.into()),
            (count, _) => Ok(count),
        }
    }
}

trait ReadAtSlice {
    fn read_at_slice(&self, offset: u64, buffer: &mut [u8]) -> usize;
}

impl ReadAtSlice for &[u8] {
    fn read_at_slice(&self, offset: u64, buffer: &mut [u8]) -> usize {
        Bytes::copy_from_slice(self).read_at(offset, buffer).unwrap()
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_to_its_end_is_never_ended() {
    for error in [None, Some(io::ErrorKind::InvalidData)] {
        let server = mail(hello(), TRACE.len() + 1000)
            .client("RCPT TO:<ann>")
            .server_raw("250 ok\r\n250 ok\r\n")
            .client("DATA")
            .server("354 go")
            .client("Received: by connectord")
            .client("half a")
            .client_closes()
            .listen();
        let batch = vec![Parcel { body: Arc::new(Broken(b"half a\r\n", error)), ..parcel("", "ann") }];
        let outcomes = deliver(&lmtp(&server), batch).await;
        assert_eq!(verdicts(&outcomes), [(Some(FailureKind::Transient), "failed")], "{outcomes:?}");
        server.finish();
    }
}

#[tokio::test]
async fn a_server_that_refuses_a_large_message_within_is_heard_and_nothing_is_unknown() {
    let message = "x".repeat(40).add_line().repeat(500_000);
    let octets = TRACE.len() + message.len();
    let server = mail(hello(), octets)
        .client("RCPT TO:<ann>")
        .server_raw("250 ok\r\n250 ok\r\n")
        .client("DATA")
        .server("354 go")
        .client("Received: by connectord")
        .server("552 5.3.4 too large")
        .close()
        .listen();
    let outcomes = deliver(&lmtp(&server), parcels(&message, &["ann"])).await;
    // A reset may overtake the reply; what it never may become is unknown.
    assert_eq!(verdict(&outcomes[0]).1, "failed", "{outcomes:?}");
    server.finish();
}

trait AddLine {
    fn add_line(self) -> String;
}

impl AddLine for String {
    fn add_line(self) -> String {
        self + "\r\n"
    }
}

#[tokio::test]
async fn one_connection_serves_batch_after_batch_and_a_stale_one_is_replaced() {
    let transaction = |script: Script, message: &str| {
        mail(script, TRACE.len() + message.len())
            .client("RCPT TO:<ann>")
            .server_raw("250 ok\r\n250 ok\r\n")
            .client("DATA")
            .server("354 go")
            .client_data()
            .server("250 saved")
    };
    let first = transaction(transaction(hello(), "one"), "three").close();
    let server = ScriptServer::start(vec![first, transaction(hello(), "five")]);
    let lmtp = lmtp(&server);
    for message in ["one", "three", "five"] {
        assert_eq!(deliver(&lmtp, parcels(message, &["ann"])).await, [delivered("250 saved")], "{message}");
    }
    drop(lmtp);
    server.finish();
}

#[tokio::test]
async fn an_unused_connection_is_closed_in_order_after_a_while() {
    let server = hello()
        .client("MAIL FROM:<> BODY=8BITMIME")
        .client("RCPT TO:<ann>")
        .server_raw("250 ok\r\n250 ok\r\n")
        .client("RSET")
        .server("250 ok")
        .client("QUIT")
        .server("221 bye")
        .client_closes()
        .listen();
    let lmtp = lmtp_with(&server, |options| options.idle = Duration::from_millis(50));
    assert_eq!(lmtp.presence(&recipient("ann")).await, Ok(Presence::Here));
    tokio::time::sleep(Duration::from_millis(400)).await;
    server.finish();
}

#[tokio::test]
async fn messages_of_a_batch_are_under_way_at_once() {
    let one = |name: &str| {
        mail(hello(), TRACE.len() + 3)
            .client(&format!("RCPT TO:<{name}>"))
            .server_raw("250 ok\r\n250 ok\r\n")
            .client("DATA")
            .server("354 go")
            .client_data()
            .server("250 saved")
    };
    // Which connection comes first is open.
    let any = |_: usize| {
        hello()
            .client_prefix("MAIL FROM:")
            .client_prefix("RCPT TO:")
            .server_raw("250 ok\r\n250 ok\r\n")
            .client("DATA")
            .server("354 go")
            .client_data()
            .server("250 saved")
    };
    let server = ScriptServer::start((0..8).map(any).collect());
    let batch: Vec<Parcel> = (0..8).map(|n| parcel(&format!("{n}\r\n"), "ann")).collect();
    let lmtp = lmtp(&server);
    let prepared = lmtp.prepare(batch).await;
    assert_eq!(failures(prepared.as_ref()), vec![None; 8]);
    assert_eq!(prepared.complete().await, vec![delivered("250 saved"); 8]);
    server.finish();

    // With one connection a batch has one message; the next waits its turn.
    let server = ScriptServer::start(vec![one("ann")]);
    let lmtp = lmtp_with(&server, |options| options.connections = 1);
    assert_eq!(lmtp.limits().parcels, 1);
    let outcomes = deliver(&lmtp, vec![parcel("1\r\n", "ann"), parcel("2\r\n", "ann")]).await;
    assert_eq!(verdicts(&outcomes), [(None, "delivered"), (Some(FailureKind::Transient), "failed")]);
    server.finish();
}

#[tokio::test]
async fn presence_is_asked_once_and_remembered() {
    let ask = |script: Script, name: &str, answer: &str| {
        script
            .client("MAIL FROM:<> BODY=8BITMIME")
            .client(&format!("RCPT TO:<{name}>"))
            .server("250 ok")
            .server(answer)
            .client("RSET")
            .server("250 ok")
    };
    let script = ask(hello(), "ann", "250 2.1.5 ok");
    let script = ask(script, "bob", "550 5.1.1 no such user");
    let script = ask(script, "cid", "451 4.3.0 directory down");
    let script = ask(script, "cid", "452 4.2.2 full");
    let server = script.listen();
    let lmtp = lmtp(&server);
    for _ in 0..2 {
        assert_eq!(lmtp.presence(&recipient("ann")).await, Ok(Presence::Here));
        let Presence::Absent(text) = lmtp.presence(&recipient("bob")).await.unwrap() else { panic!("bob is here") };
        assert!(text.contains("\"550 5.1.1 no such user\""), "{text}");
    }
    let failure = lmtp.presence(&recipient("cid")).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Transient);
    assert_eq!(lmtp.presence(&recipient("cid")).await, Ok(Presence::Here), "a full mailbox is somebody's");
    server.finish();
}

#[tokio::test]
async fn who_had_no_room_is_asked_for_again_and_nobody_else_is() {
    let ask = |script: Script, answer: &str| {
        script
            .client("MAIL FROM:<> BODY=8BITMIME")
            .client("RCPT TO:<cid>")
            .server("250 ok")
            .server(answer)
            .client("RSET")
            .server("250 ok")
    };
    let script = ask(hello(), "452 4.2.2 full");
    let script = ask(script, "452 4.2.2 full");
    let server = ask(script, "250 2.1.5 ok").listen();
    let lmtp = lmtp(&server);
    assert_eq!(lmtp.room(&recipient("ann")).await, Ok(()));
    assert_eq!(lmtp.presence(&recipient("cid")).await, Ok(Presence::Here));
    assert_eq!(lmtp.room(&recipient("cid")).await.unwrap_err().kind, FailureKind::OverQuota);
    for _ in 0..2 {
        assert_eq!(lmtp.room(&recipient("cid")).await, Ok(()));
    }
    server.finish();
}

#[tokio::test]
async fn a_server_that_is_not_there_makes_nothing_wrong_with_the_message() {
    let refused = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for address in [refused.as_str(), "unix:/nonexistent/lmtp"] {
        let lmtp = Lmtp::new(Options::new(address.parse().unwrap()), Connector::new());
        let outcomes = deliver(&lmtp, parcels("x\r\n", &["ann", "bob"])).await;
        assert_eq!(verdicts(&outcomes), [(Some(FailureKind::Unavailable), "failed"); 2], "{outcomes:?}");
        assert_eq!(lmtp.probe().await.unwrap_err().kind, FailureKind::Unavailable);
        assert_eq!(lmtp.presence(&recipient("ann")).await.unwrap_err().kind, FailureKind::Unavailable);
    }
}

#[tokio::test]
async fn nothing_can_be_recalled() {
    let lmtp = Lmtp::new(Options::new("unix:/nonexistent/lmtp".parse().unwrap()), Connector::new());
    let row = RecallRow { recipient: recipient("ann"), note: None };
    assert_eq!(lmtp.recall(vec![row.clone(), row]).await, [Recalled::Unknown, Recalled::Unknown]);
}
