//! Notices that arrive: in a real Maildir, at a real program, at a web server; and ways that do not work.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::Duration;

use common::{Answer, Hook, Installation, until};
use connectord_engine::Cause;
use connectord_notices::{Program, Webhook};
use serde_json::Value;

#[tokio::test]
async fn a_notice_arrives_by_mail_by_program_and_at_the_web_address() {
    let hook = Hook::start(Answer::Status(204)).await;
    let here = Installation::new();
    let record = here.path("told");
    let script = here.script(&format!("cat > {}", record.display()));
    let token = here.path("token");
    std::fs::write(&token, "s3cret\nsecond line\n").unwrap();
    let setup = here.setup(3, |ways| {
        ways.mail_to = vec![here.reader("postmaster")];
        ways.program = Some(Program::new(script, Vec::new()));
        ways.webhook = Some(Webhook::new(&hook.url("/path"), Some(token.clone()), None).unwrap());
    });
    here.fails(0, Cause::LoginRefused);
    here.once(&setup).await;
    assert_eq!(here.mail("postmaster").len(), 0, "not yet");
    here.pass(3600);
    here.fails(0, Cause::LoginRefused);
    here.once(&setup).await;

    let mail = here.mail("postmaster").pop().unwrap();
    assert!(mail.contains("Subject: connectord: a0@example.org: user name or password refused\n"), "{mail}");
    assert!(mail.contains("X-Connectord-Notice: ") && mail.contains("Auto-Submitted: auto-generated\n"), "{mail}");
    assert!(mail.contains("What you can do: enter the right password"), "{mail}");
    assert!(mail.contains("Return-Path: <>\n"), "{mail}");

    let json: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    assert_eq!(json["notices"][0]["event"], "trouble");
    assert_eq!(json["notices"][0]["subject"], "account:a0@example.org");
    assert_eq!(json["notices"][0]["cause"], "login_refused");
    assert_eq!((json["machine"].as_str(), json["more"].as_u64()), (Some("mail.example.org"), Some(0)));

    let request = hook.requests().pop().unwrap();
    assert!(request.starts_with("POST /path HTTP/1.1\r\n"), "{request}");
    assert!(request.to_ascii_lowercase().contains("authorization: bearer s3cret\r\n"), "{request}");
    let body: Value = serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body, json);

    // Told: neither again, nor after another restart.
    here.fails(0, Cause::LoginRefused);
    here.once(&setup).await;
    assert_eq!((here.mail("postmaster").len(), hook.requests().len()), (1, 1));
    here.is_well(0);
    here.once(&setup).await;
    let well = here.mail("postmaster").into_iter().find(|mail| mail.contains("well again")).unwrap();
    assert!(well.contains("Subject: connectord: well again: the account a0@example.org\n"), "{well}");
    assert_eq!(hook.requests().len(), 2);
}

#[tokio::test]
async fn users_hear_of_their_own_accounts_only() {
    let here = Installation::new();
    let setup = here.setup(4, |ways| ways.to_users = true);
    (0..4).for_each(|account| here.fails(account, Cause::NoAnswer));
    here.pass(86_400);
    here.once(&setup).await;
    for user in 0..4 {
        let mail = here.mail(&format!("user{user}"));
        assert_eq!(mail.len(), 1);
        assert!(mail[0].contains(&format!("a{user}@example.org")), "{}", mail[0]);
        let others: Vec<_> = (0..4).filter(|n| *n != user && mail[0].contains(&format!("a{n}@example.org"))).collect();
        assert!(others.is_empty(), "{}", mail[0]);
    }
    // A missing user or a full disk is nothing for users.
    (0..4).for_each(|account| here.fails(account, Cause::DiskFull));
    here.once(&setup).await;
    assert_eq!(here.mail("user0").len(), 1);
}

#[tokio::test]
async fn many_matters_at_once_are_one_notice_that_lists_fifty() {
    let here = Installation::new();
    let setup = here.setup(1000, |ways| ways.mail_to = vec![here.reader("postmaster")]);
    (0..1000).for_each(|account| here.fails(account, Cause::NoCredential));
    here.pass(2 * 3600);
    here.once(&setup).await;
    let mail = here.mail("postmaster");
    assert_eq!(mail.len(), 1);
    assert!(mail[0].contains("Subject: connectord: 1000 notices\n"));
    assert_eq!(mail[0].matches("* a").count(), 50);
    assert!(mail[0].contains("and 950 more"));
}

#[tokio::test]
async fn no_more_than_so_many_notices_an_hour_whatever_happens() {
    let here = Installation::new();
    let setup = here.setup(30, |ways| ways.mail_to = vec![here.reader("postmaster")]);
    // Each time another account has something to tell, five minutes apart, each time in another process.
    for account in 0..30 {
        here.pass(300);
        here.parked(account).await;
        here.once(&setup).await;
    }
    // Twelve times in an hour, of which ten are told; what was left out then is in the next one.
    let mail = here.mail("postmaster");
    assert_eq!(mail.len(), 26);
    let named = |n| mail.iter().filter(|mail| mail.contains(&format!(" a{n}@example.org is parked"))).count();
    assert!((0..28).all(|n| named(n) == 1), "each was told once");
}

#[tokio::test]
async fn a_way_that_does_not_work_keeps_no_other_from_working_and_nobody_waiting() {
    let here = Installation::new();
    let hanging = Hook::start(Answer::Nothing).await;
    let mut program = Program::new(here.script("sleep 600 & sleep 600"), Vec::new());
    program.deadline = Duration::from_millis(500);
    let setup = here.setup(1, |ways| {
        ways.mail_to = vec![here.reader("postmaster")];
        ways.program = Some(program);
        ways.webhook = Some(Webhook::new(&hanging.url("/"), None, None).unwrap());
    });
    here.fails(0, Cause::DiskFull);
    let began = std::time::Instant::now();
    here.once_within(&setup, Duration::from_secs(4)).await;
    assert!(began.elapsed() < Duration::from_secs(40));
    assert_eq!(here.mail("postmaster").len(), 1);
}

#[tokio::test]
async fn a_web_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    for (answer, requests) in [(Answer::Status(503), 2), (Answer::Status(404), 1), (Answer::Status(302), 1)] {
        let here = Installation::new();
        let hook = Hook::start(answer).await;
        let setup = here.setup(1, |ways| ways.webhook = Some(Webhook::new(&hook.url("/"), None, None).unwrap()));
        here.fails(0, Cause::DiskFull);
        here.once(&setup).await;
        assert_eq!(hook.requests().len(), requests, "{answer:?}");
        // It was tried as often as it is tried: it is not tried for ever.
        here.once(&setup).await;
        assert_eq!(hook.requests().len(), requests, "{answer:?}");
    }
}

#[tokio::test]
async fn a_program_gets_a_bare_environment_and_its_complaint_is_told() {
    let here = Installation::new();
    let record = here.path("environment");
    let program =
        Program::new(here.script(&format!("env > {}; echo broken >&2; exit 3", record.display())), Vec::new());
    let setup = here.setup(1, |ways| ways.program = Some(program));
    let tried = setup.ways.try_all(&setup.test(here.now())).await;
    let error = tried[0].1.clone().unwrap_err();
    assert!(error.ends_with("exit status: 3: \"broken\""), "{error}");
    let environment = std::fs::read_to_string(record).unwrap();
    let names: Vec<&str> = environment.lines().filter_map(|line| line.split('=').next()).collect();
    for name in names {
        assert!(
            ["PATH", "HOME", "LANG", "CONNECTORD_TITLE", "PWD", "OLDPWD", "SHLVL", "_"].contains(&name),
            "{environment}"
        );
    }
}

#[tokio::test]
async fn a_test_notice_says_of_each_way_whether_it_works() {
    let here = Installation::new();
    let hook = Hook::start(Answer::Status(200)).await;
    let setup = here.setup(1, |ways| {
        ways.mail_to = vec![here.reader("postmaster")];
        ways.program = Some(Program::new("/nonexistent/program", Vec::new()));
        ways.webhook = Some(Webhook::new(&hook.url("/secret-path"), None, None).unwrap());
    });
    let tried = setup.ways.try_all(&setup.test(here.now())).await;
    let shown: Vec<String> = tried.iter().map(|(way, result)| format!("{way}: {}", result.is_ok())).collect();
    assert_eq!(
        shown,
        ["mail to postmaster: true", "command /nonexistent/program: false", &format!("webhook {}: true", hook.url("")),]
    );
    assert!(here.mail("postmaster")[0].contains("Subject: connectord: a test\n"));
}

#[tokio::test]
async fn parked_messages_are_named_and_notices_that_come_back_are_not() {
    let here = Installation::new();
    let setup = here.setup(2, |ways| ways.mail_to = vec![here.reader("postmaster")]);
    here.parked_as(0, "<connectord-notice.0000000000000007@mail.example.org>").await;
    here.once(&setup).await;
    assert_eq!(here.mail("postmaster").len(), 0, "a notice about a notice would never end");
    here.parked_as(1, "<1@example.org>").await;
    here.once(&setup).await;
    let mail = here.mail("postmaster").pop().unwrap();
    assert!(mail.contains("Subject: connectord: 1 message of a1@example.org is parked\n"), "{mail}");
    assert!(mail.contains("from ann@example.org: hello") && mail.contains("refused here"), "{mail}");
}

#[tokio::test]
async fn the_daemon_gathers_tells_and_ends_at_once() {
    let here = Installation::new();
    let hanging = Hook::start(Answer::Nothing).await;
    let setup = here.setup(20, |ways| {
        ways.mail_to = vec![here.reader("postmaster")];
        ways.webhook = Some(Webhook::new(&hanging.url("/"), None, None).unwrap());
    });
    let running = here.run(setup, Duration::from_millis(500));
    // Before the end of the minute (half a second here) there are twenty.
    for account in 0..20 {
        here.parked(account).await;
    }
    until("a notice", async || here.mail("postmaster").len() == 1).await;
    assert!(here.mail("postmaster")[0].contains("Subject: connectord: 20 notices\n"));
    // It is still at the web address, which says nothing.
    let began = std::time::Instant::now();
    running.end().await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn what_was_not_told_before_the_stop_is_told_after_the_next_start() {
    let here = Installation::new();
    let setup = |here: &Installation| here.setup(1, |ways| ways.mail_to = vec![here.reader("postmaster")]);
    let running = here.run(setup(&here), Duration::from_secs(600));
    here.parked(0).await;
    until("it is remembered", async || here.remembered().await > 0).await;
    running.end().await;
    assert_eq!(here.mail("postmaster").len(), 0);
    here.once(&setup(&here)).await;
    assert_eq!(here.mail("postmaster").len(), 1);
}

#[tokio::test]
async fn what_nobody_got_is_tried_again_later_and_told_once() {
    let here = Installation::new();
    let hook = Hook::start(Answer::Status(404)).await;
    let setup = |here: &Installation, url: &str| {
        here.setup(1, |ways| ways.webhook = Some(Webhook::new(url, None, None).unwrap()))
    };
    here.parked(0).await;
    // Once a minute for three hours, each time in another process.
    let refused = setup(&here, &hook.url("/"));
    for _ in 0..180 {
        here.once(&refused).await;
        here.pass(60);
    }
    assert_eq!(hook.requests().len(), 4, "at once, after 15 minutes, 30, 60");
    let well = Hook::start(Answer::Status(200)).await;
    here.pass(4 * 3600);
    let taken = setup(&here, &well.url("/"));
    for _ in 0..3 {
        here.once(&taken).await;
        here.pass(4 * 3600);
    }
    assert_eq!(well.requests().len(), 1);
}
