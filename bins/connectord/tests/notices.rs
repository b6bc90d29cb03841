//! Somebody is told: the program itself, with mail by Maildir and by Dovecot's LMTP, and a real command.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::{Installation, account, dovecot_account};
use connectord_testkit::servers::{Misbehaviour, Pop3Server, ServerOptions};
use connectord_testkit::{Dovecot, DovecotOptions, Service};

fn server() -> Pop3Server {
    Pop3Server::start(ServerOptions::new().user("ann", "secret"))
}

/// A program that appends what it gets, with a line end, to a file.
fn teller(here: &Installation) -> (PathBuf, PathBuf) {
    let (program, record) = (here.path("tell"), here.path("told"));
    std::fs::write(&program, format!("#!/bin/sh\ncat >> {0}\necho >> {0}\n", record.display())).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    (program, record)
}

fn told(record: &PathBuf) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(record).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Parks everything: nothing is as small as that.
const TOO_LARGE: &str = "max_message_size = 10\noversize = \"park\"\n";

#[test]
fn a_parked_message_is_told_once_by_mail_and_by_command_also_when_cron_checks_again_and_again() {
    let server = server();
    server.mailbox("ann").add("From: eve@example.org\nSubject: pictures\n\nmany\n");
    let here = Installation::new();
    let (program, record) = teller(&here);
    let tables = format!(
        "[delivery]\ntype = \"maildir\"\npath = \"{}\"\n[notices]\nmail_to = \"bob\"\nto_users = true\ncommand = [\"{}\"]\n",
        here.path("mail/{user}/Maildir").display(),
        program.display()
    );
    here.configure_with(&tables, &format!("{}{TOO_LARGE}", account("pop3", "none", server.port())));
    for _ in 0..3 {
        here.fetch();
    }
    let told = told(&record);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["notices"][0]["event"], "parked");
    assert_eq!(told[0]["notices"][0]["subject"], "account:ann@example.org");
    for user in ["ann", "bob"] {
        let files = here.files(user);
        assert_eq!(files.len(), 1, "{user}: {files:?}");
        let mail = std::fs::read_to_string(&files[0]).unwrap();
        assert!(mail.contains("Subject: connectord: 1 message of ann@example.org is parked\n"), "{mail}");
        assert!(mail.contains("X-Connectord-Notice: ") && mail.contains(&format!("To: {user}@")), "{mail}");
    }
    // Another one within a day waits for its time.
    server.mailbox("ann").add("Subject: more\n\nmany\n");
    here.fetch();
    assert_eq!(self::told(&record).len(), 1);
}

#[test]
fn a_notice_goes_to_a_local_user_of_dovecot() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret").user("bob", "secret"));
    dovecot.deliver("ann", b"From: eve@example.org\r\nSubject: pictures\r\n\r\nmany\r\n");
    let here = Installation::trusting(dovecot.certificates());
    let tables = format!(
        "[delivery]\ntype = \"lmtp\"\naddress = \"unix:{}\"\n[notices]\nmail_to = \"bob\"\n",
        dovecot.lmtp_socket().display()
    );
    here.configure_with(&tables, &format!("{}{TOO_LARGE}", dovecot_account(&dovecot, Service::Imaps)));
    here.fetch();
    let mail = dovecot.messages("bob", "INBOX");
    assert_eq!(mail.len(), 1);
    let mail = String::from_utf8(mail[0].clone()).unwrap();
    assert!(mail.contains("Subject: connectord: 1 message of ann@example.org is parked"), "{mail}");
    assert!(mail.contains("Return-Path: <>"), "{mail}");
}

#[test]
fn a_login_that_is_refused_is_told_after_a_restart_of_cron() {
    let server = server();
    server.misbehave(Misbehaviour { refuse_login: Some("[AUTH] no".into()), ..Misbehaviour::default() });
    let here = Installation::new();
    let (program, record) = teller(&here);
    let tables = format!(
        "[delivery]\ntype = \"maildir\"\npath = \"{}\"\n[notices]\nafter = \"1m\"\ncommand = [\"{}\"]\n",
        here.path("mail/{user}/Maildir").display(),
        program.display()
    );
    here.configure_with(&tables, &account("pop3", "none", server.port()));
    assert_eq!(here.fetch().code, Some(77));
    assert_eq!(told(&record).len(), 0, "once may be an accident");
    std::thread::sleep(std::time::Duration::from_secs(61));
    assert_eq!(here.fetch().code, Some(77));
    let told_so = told(&record);
    assert_eq!(told_so.len(), 1);
    assert_eq!(told_so[0]["notices"][0]["cause"], "login_refused");
    server.misbehave(Misbehaviour::default());
    here.fetch_well();
    assert_eq!(told(&record)[1]["notices"][0]["event"], "well");
}

#[test]
fn check_notice_tries_every_way_and_says_what_became_of_it() {
    let here = Installation::new();
    let (program, record) = teller(&here);
    let delivery =
        format!("[delivery]\ntype = \"maildir\"\npath = \"{}\"\n", here.path("mail/{user}/Maildir").display());
    here.configure_with(
        &format!("{delivery}[notices]\nmail_to = \"ann\"\ncommand = [\"{}\"]\n", program.display()),
        "",
    );
    let outcome = here.run(&["check", "--notice"]);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(outcome.stdout.contains("ok    notice by mail to ann\n"), "{outcome}");
    assert_eq!((here.files("ann").len(), told(&record).len()), (1, 1));
    // Also while the daemon holds the state; and a way that does not work is said.
    here.configure_with(&format!("{delivery}[notices]\ncommand = [\"/nonexistent\"]\n"), "");
    let daemon = here.serve();
    let outcome = here.run(&["check", "--notice"]);
    assert_eq!(outcome.code, Some(69), "{outcome}");
    assert!(outcome.stdout.contains("FAIL  notice by command /nonexistent: "), "{outcome}");
    drop(daemon);
    here.configure("");
    let outcome = here.run(&["check", "--notice"]);
    assert!(outcome.code == Some(0) && outcome.stdout.contains("nobody is told"), "{outcome}");
}
