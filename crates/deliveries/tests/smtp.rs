//! SMTP against servers that follow a script.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connectord_deliveries::smtp::{Login, Options, Smtp};
use connectord_delivery::{Delivery, FailureKind, Outcome, Parcel, Presence, Recipient};
use connectord_mail::{Body, DeliveryId, Identity, Status};
use connectord_net::{Connector, certificates_from_pem};
use connectord_testkit::{Certificates, Script, ScriptServer};
use connectord_wire::{Endpoint, Security};

const TRACE: &str = "Received: by connectord\r\n";

fn recipient(user: &str) -> Recipient {
    Recipient { user: user.into(), address: format!("{user}@example.org") }
}

fn parcels(message: &str, users: &[&str]) -> Vec<Parcel> {
    let body: Arc<dyn Body> = Arc::new(Bytes::copy_from_slice(message.as_bytes()));
    let identity =
        Identity { account: "a@x", mailbox: "INBOX", uid_validity: 1, key: message.as_bytes(), generation: 0 };
    let message = DeliveryId::new(identity);
    users
        .iter()
        .map(|user| Parcel {
            id: message.for_recipient("default", user),
            message,
            recipient: recipient(user),
            reverse_path: "sender@example.org".into(),
            trace: Bytes::from_static(TRACE.as_bytes()),
            body: body.clone(),
            arrived_at: None,
            folder: None,
            attempt: 1,
        })
        .collect()
}

fn options(server: &ScriptServer, security: Security) -> Options {
    Options::new(Endpoint::new("localhost", server.port()).unwrap(), security)
}

fn smtp(server: &ScriptServer) -> Smtp {
    Smtp::new(options(server, Security::None), Connector::new())
}

fn trusting(server: &ScriptServer, security: Security, certificates: &Certificates) -> Options {
    let mut options = options(server, security);
    options.tls.roots = certificates_from_pem(&std::fs::read(certificates.ca_file()).unwrap()).unwrap();
    options
}

fn ann_logs_in(mut options: Options) -> Options {
    options.login = Some(Login { username: "ann".into(), password: "tulip".into() });
    options
}

const HELLO: &str = "250-host\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n";

fn hello() -> Script {
    Script::new().server("220 ready").client("EHLO localhost").server_raw(HELLO)
}

fn mail(script: Script) -> Script {
    script.client("MAIL FROM:<sender@example.org> BODY=8BITMIME").server("250 2.1.0 ok")
}

fn rcpt(script: Script, user: &str, answer: &str) -> Script {
    script.client(&format!("RCPT TO:<{user}@example.org>")).server(answer)
}

fn data(script: Script, answer: &str) -> Script {
    script.client("DATA").server("354 go").client_data().server(answer)
}

async fn deliver(smtp: &Smtp, batch: Vec<Parcel>) -> Vec<Outcome> {
    smtp.prepare(batch).await.complete().await
}

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

#[tokio::test]
async fn a_refused_recipient_costs_the_others_nothing_and_one_answer_counts_for_them() {
    let script = rcpt(rcpt(mail(hello()), "ann", "250 2.1.5 ok"), "bob", "550 5.1.1 no such user");
    let script = rcpt(script, "cid", "452-4.2.2 mailbox\r\n452 4.2.2 full");
    let server = data(rcpt(script, "dan", "251 2.1.5 will forward"), "250 2.0.0 queued as 1").listen();
    let outcomes = deliver(&smtp(&server), parcels("x\r\n", &["ann", "bob", "cid", "dan"])).await;
    let queued = Outcome::Delivered { detail: "250 2.0.0 queued as 1".into() };
    assert_eq!((&outcomes[0], &outcomes[3]), (&queued, &queued));
    let (no_user, full) = (FailureKind::NoUser, FailureKind::OverQuota);
    assert_eq!(verdicts(&outcomes[1..3]), [(Some(no_user), "failed"), (Some(full), "failed")]);
    let Outcome::Failed(failure) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!(failure.status, Status::parse(b"5.1.1"));
    let said = "answered \"550 5.1.1 no such user\" (during RCPT TO)";
    assert_eq!(failure.text, format!("SMTP server localhost:{} {said}", server.port()));
    server.finish();
}

#[tokio::test]
async fn the_message_arrives_octet_by_octet_with_its_line_ends_as_crlf() {
    for (message, expected) in [
        ("Subject: x\r\n\r\nbody\r\n", "Subject: x\r\n\r\nbody\r\n"),
        ("Subject: x\n\nbody", "Subject: x\r\n\r\nbody\r\n"),
        ("a\n.\nb\r.\rc", "a\r\n..\r\nb\r\n..\r\nc\r\n"),
        ("\r\n\r\n", "\r\n\r\n"),
        (".", "..\r\n"),
        ("caf\u{e9}\r\n", "caf\u{e9}\r\n"),
    ] {
        let server = data(rcpt(mail(hello()), "ann", "250 ok"), "250 ok").listen();
        let outcomes = deliver(&smtp(&server), parcels(message, &["ann"])).await;
        assert_eq!(verdicts(&outcomes), [(None, "delivered")], "{outcomes:?}");
        assert_eq!(server.finish()[0].last().unwrap(), &format!("{TRACE}{expected}"), "{message:?}");
    }
}

#[tokio::test]
async fn a_message_longer_than_any_buffer_arrives_whole() {
    let message: String = (0..40_000).map(|n| format!(".line {n}\n")).collect();
    let server = data(rcpt(mail(hello()), "ann", "250 ok"), "250 ok").listen();
    let outcomes = deliver(&smtp(&server), parcels(&message, &["ann"])).await;
    assert_eq!(verdicts(&outcomes), [(None, "delivered")], "{outcomes:?}");
    let expected = TRACE.to_owned() + &message.replace('\n', "\r\n").replace(".line", "..line");
    assert_eq!(server.finish()[0].last().unwrap(), &expected);
}

#[tokio::test]
async fn a_server_that_dies_before_it_answers_the_dot_leaves_the_outcome_unknown() {
    let before_the_answer = || rcpt(mail(hello()), "ann", "250 ok").client("DATA").server("354 go").client_data();
    for script in [before_the_answer().close(), before_the_answer().reset(), before_the_answer().client_closes()] {
        let server = script.listen();
        let mut options = options(&server, Security::None);
        options.final_reply = Duration::from_millis(300);
        let outcomes = deliver(&Smtp::new(options, Connector::new()), parcels("x\r\n", &["ann"])).await;
        assert_eq!(verdicts(&outcomes), [(Some(FailureKind::Transient), "unknown")], "{outcomes:?}");
        server.finish();
    }
}

#[tokio::test]
async fn what_fails_before_the_dot_is_not_unknown() {
    let envelope = || rcpt(mail(hello()), "ann", "250 ok");
    let (unavailable, transient) = (FailureKind::Unavailable, FailureKind::Transient);
    for (script, kind) in [
        (Script::new().close(), unavailable),
        (Script::new().server("421 4.3.2 busy").close(), unavailable),
        (Script::new().server("554 5.7.1 not you").close(), FailureKind::Misconfigured),
        (Script::new().client_closes(), unavailable),
        (hello().client_prefix("MAIL").server("421 4.3.2 busy").close(), unavailable),
        (
            hello().client_prefix("MAIL").server("552 5.3.4 large").client("RSET").server("250 ok"),
            FailureKind::Permanent,
        ),
        (mail(hello()).client_prefix("RCPT").close(), unavailable),
        (mail(hello()).client_prefix("RCPT").client_closes(), unavailable),
        (envelope().client("DATA").server("451 4.3.0 later"), transient),
        (envelope().client("DATA").server("554 5.5.1 never"), FailureKind::Permanent),
        (envelope().client("DATA").server("421 4.3.2 bye").close(), unavailable),
        (data(envelope(), "554 5.6.0 bad message"), FailureKind::Permanent),
        (data(envelope(), "452 4.3.1 disk full"), FailureKind::DiskFull),
        (data(envelope(), "421 4.3.2 bye"), unavailable),
        (Script::new().server_raw([b'2'; 70_000]).close(), unavailable),
    ] {
        let server = script.listen();
        let mut options = options(&server, Security::None);
        options.reply = Duration::from_millis(300);
        let outcomes = deliver(&Smtp::new(options, Connector::new()), parcels("x\r\n", &["ann"])).await;
        assert_eq!(verdicts(&outcomes), [(Some(kind), "failed")], "{outcomes:?}");
        server.finish();
    }
}

/// A body that is shorter than it says.
struct Short;

impl Body for Short {
    fn size_octets(&self) -> u64 {
        1000
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Bytes::from_static(b"half a\r\nmess").read_at(offset, buffer)
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_to_its_end_is_never_ended() {
    let server = rcpt(mail(hello()), "ann", "250 ok")
        .client("DATA")
        .server("354 go")
        .client("Received: by connectord")
        .client("half a")
        .client_octets(4)
        .client_closes()
        .listen();
    let batch = parcels("", &["ann"]).into_iter().map(|p| Parcel { body: Arc::new(Short), ..p }).collect();
    let outcomes = deliver(&smtp(&server), batch).await;
    assert_eq!(verdicts(&outcomes), [(Some(FailureKind::Transient), "failed")], "{outcomes:?}");
    server.finish();
}

#[tokio::test]
async fn answers_in_latin_1_are_understood() {
    let server = mail(hello())
        .client_prefix("RCPT TO:")
        .server_raw(b"550 5.1.1 Empf\xe4nger unbekannt\r\n")
        .client("RSET")
        .server("250 ok")
        .listen();
    let outcomes = deliver(&smtp(&server), parcels("x", &["ann"])).await;
    assert_eq!(verdicts(&outcomes), [(Some(FailureKind::NoUser), "failed")], "{outcomes:?}");
    server.finish();
}

#[tokio::test]
async fn a_password_goes_over_tls_and_one_connection_serves_batch_after_batch() {
    let certificates = Certificates::new();
    let hello = "250-host\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN\r\n";
    let script = Script::new().tls(&certificates).server("220 ready").client("EHLO localhost").server_raw(hello);
    // AUTH PLAIN: NUL ann NUL tulip.
    let script = script.client("AUTH PLAIN AGFubgB0dWxpcA==").server("235 2.7.0 in");
    let script = data(rcpt(mail(script), "ann", "250 ok"), "250 one");
    let server = data(rcpt(mail(script), "ann", "250 ok"), "250 two").listen();
    let options = ann_logs_in(trusting(&server, Security::Tls, &certificates));
    let smtp = Smtp::new(options, Connector::new());
    for (message, answer) in [("1", "250 one"), ("2", "250 two")] {
        let outcomes = deliver(&smtp, parcels(message, &["ann"])).await;
        assert_eq!(outcomes, [Outcome::Delivered { detail: answer.into() }]);
    }
    server.finish();
}

#[tokio::test]
async fn starttls_comes_before_the_password() {
    let certificates = Certificates::new();
    let script = Script::new()
        .server("220 ready")
        .client("EHLO localhost")
        .server_raw("250-host\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n")
        .client("STARTTLS")
        .starttls("220 2.0.0 go", &certificates)
        .client("EHLO localhost")
        .server_raw("250-host\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN\r\n")
        .client_prefix("AUTH PLAIN ")
        .server("235 2.7.0 in");
    let server = data(rcpt(mail(script), "ann", "250 ok"), "250 ok").listen();
    let options = ann_logs_in(trusting(&server, Security::StartTls, &certificates));
    let outcomes = deliver(&Smtp::new(options, Connector::new()), parcels("x", &["ann"])).await;
    assert_eq!(verdicts(&outcomes), [(None, "delivered")], "{outcomes:?}");
    server.finish();
}

#[tokio::test]
async fn without_starttls_nothing_is_said_that_must_be_encrypted() {
    let certificates = Certificates::new();
    let hello = || Script::new().server("220 ready").client("EHLO localhost");
    let offered = || hello().server_raw("250-host\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n").client("STARTTLS");
    for (script, kind) in [
        (hello().server_raw("250-host\r\n250 AUTH PLAIN\r\n").client_closes(), FailureKind::Misconfigured),
        (offered().server("454 4.7.0 not now").client_closes(), FailureKind::Unavailable),
        (offered().server("501 5.5.1 never").client_closes(), FailureKind::Misconfigured),
        (offered().server_raw("220 go\r\n250 injected\r\n").client_closes(), FailureKind::Unavailable),
        (hello().server("502 what").client_closes(), FailureKind::Misconfigured),
        (Script::new().server("554 no").client_closes(), FailureKind::Misconfigured),
    ] {
        let server = script.listen();
        let options = ann_logs_in(trusting(&server, Security::StartTls, &certificates));
        let smtp = Smtp::new(options, Connector::new());
        assert_eq!(smtp.probe().await.map_err(|failure| failure.kind), Err(kind));
        server.finish();
    }
    // A certificate that nobody we trust has signed.
    let server = offered().starttls("220 go", &Certificates::new()).listen();
    let options = ann_logs_in(trusting(&server, Security::StartTls, &certificates));
    let failure = Smtp::new(options, Connector::new()).probe().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Misconfigured);
    assert!(failure.text.contains("no secure connection") && failure.text.contains("\nhint: "), "{failure}");
}

#[tokio::test]
async fn a_refused_login_is_for_a_person_to_look_at() {
    let hello = || Script::new().server("220 x").client("EHLO localhost");
    for (script, text) in [
        (
            hello().server_raw("250-x\r\n250 AUTH PLAIN\r\n").client_prefix("AUTH PLAIN ").server("535 5.7.8 wrong"),
            "answered \"535 5.7.8 wrong\" (during AUTH)",
        ),
        (hello().server("250 x"), "offers neither AUTH PLAIN nor AUTH LOGIN"),
    ] {
        let server = script.listen();
        let failure =
            Smtp::new(ann_logs_in(options(&server, Security::None)), Connector::new()).probe().await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Misconfigured);
        assert!(failure.text.ends_with(text), "{failure}");
        assert!(!failure.text.contains("tulip"));
        drop(server);
    }
}

/// fetchmail crashed at such (CVE-2025-61962, 2025).
#[tokio::test]
async fn a_challenge_of_nothing_of_no_base64_or_of_something_else_is_an_error_and_gets_no_password() {
    for challenge in ["334", "334 ", "334 %%%", "334 Zm9v", "334-Zm9v\r\n334 ", "334 \u{1b}[2J"] {
        let hello = Script::new().server("220 x").client("EHLO localhost").server_raw("250-x\r\n250 AUTH LOGIN\r\n");
        let server = hello.client_prefix("AUTH LOGIN").server(challenge).listen();
        let smtp = Smtp::new(ann_logs_in(options(&server, Security::None)), Connector::new());
        let failure = tokio::time::timeout(Duration::from_secs(60), smtp.probe()).await.unwrap().unwrap_err();
        assert!(!failure.text.contains("tulip") && !failure.text.contains('\u{1b}'), "{challenge:?}: {failure}");
        drop(server);
    }
}

#[tokio::test]
async fn presence_is_asked_without_a_message() {
    let script = hello().client("MAIL FROM:<> BODY=8BITMIME").server("250 ok");
    let script = rcpt(script, "ann", "250 ok").client("RSET").server("250 ok");
    let script = script.client("MAIL FROM:<> BODY=8BITMIME").server("250 ok");
    let server = rcpt(script, "bob", "550 5.1.1 no").client("RSET").server("250 ok").listen();
    let smtp = smtp(&server);
    assert_eq!(smtp.presence(&recipient("ann")).await, Ok(Presence::Here));
    assert!(matches!(smtp.presence(&recipient("bob")).await, Ok(Presence::Absent(_))));
    assert_eq!(smtp.presence(&recipient("ann")).await, Ok(Presence::Here));
    server.finish();
}
