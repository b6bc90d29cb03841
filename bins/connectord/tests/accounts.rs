//! Accounts that are kept in the state: added, changed and removed by command while the daemon runs.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{Daemon, Installation, Outcome, account_of, at_dovecot, control_command, wait_until};
use connectord_testkit::{Dovecot, DovecotOptions, Message, Service, corpus};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What nothing may ever show.
const PASSWORD: &str = "correct horse battery";

/// Writes the configuration; saved accounts may connect to this machine.
fn configure(here: &Installation, accounts: &str) {
    let path = here.path("mail/{user}/Maildir");
    let tables = format!(
        "[saved]\nnetworks = \"127.0.0.1\"\nports = \"1024-65535\"\n[delivery]\ntype = \"maildir\"\npath = \"{}\"\n",
        path.display()
    );
    here.configure_with(&tables, accounts);
}

fn start() -> Dovecot {
    Dovecot::start(DovecotOptions::new().user("ann", PASSWORD).user("bob", "secret"))
}

/// A daemon without any account in its file.
struct Here {
    dovecot: Dovecot,
    here: Installation,
    daemon: Daemon,
}

impl Here {
    fn new() -> Self {
        let dovecot = start();
        let here = Installation::trusting(dovecot.certificates());
        configure(&here, "");
        let daemon = here.serve();
        Self { dovecot, here, daemon }
    }

    /// Adds Ann's account, by IMAP.
    fn add(&self, password: &str, more: &[&str]) -> Outcome {
        let port = self.dovecot.port(Service::Imaps).to_string();
        let mut all = vec!["account", "add", "Ann@example.org", "--protocol", "imap", "--host", "127.0.0.1"];
        all.extend(["--port", &port, "--username", "ann", "--deliver-to", "ann"]);
        all.extend(more);
        self.here.ask(&all, password)
    }

    #[track_caller]
    fn add_well(&self) {
        let added = self.add(PASSWORD, &[]);
        assert_eq!(added.code, Some(0), "{added}");
    }

    #[track_caller]
    fn show(&self) -> Value {
        let shown = self.here.ask(&["--json", "account", "show", "ann@example.org"], "");
        assert_eq!(shown.code, Some(0), "{shown}");
        shown.report()
    }
}

#[test]
fn an_account_that_is_added_to_a_running_daemon_has_its_mail_delivered_at_once() {
    let mut it = Here::new();
    it.dovecot.seed("ann", "INBOX", &corpus::messages(20, 1));
    let added = it.add(PASSWORD, &[]);
    assert_eq!(added.code, Some(0), "{added}");
    for step in ["name", "connection", "encryption", "greeting", "login", "mailbox", "delivery"] {
        assert!(added.stdout.lines().any(|line| line.starts_with(&format!("ok    {step} "))), "{step}: {added}");
    }
    assert!(added.stdout.contains("20 messages"), "{added}");
    it.daemon.wait_for(&[" run ", "account=ann@example.org", "delivered=20", "status=done"]);
    it.here.mail("ann").must_equal(&at_dovecot(&it.dovecot, Service::Imaps, "ann", "INBOX"), "ann");

    let listed = it.here.ask(&["account", "list"], "");
    let line = listed.stdout.lines().find(|line| line.contains("ann@example.org")).unwrap_or_default();
    assert!(line.trim_start().starts_with("ok ") && line.contains("127.0.0.1"), "{listed}");
    let shown = it.show();
    assert_eq!((&shown["health"], &shown["source"], &shown["etag"]), (&"ok".into(), &"page".into(), &"1".into()));
    assert_eq!((&shown["secret"]["set"], &shown["settings"]["host"]), (&true.into(), &"127.0.0.1".into()));

    // It is there after a restart, and has forgotten nothing.
    assert_eq!(it.daemon.stop().code, Some(0));
    assert_eq!(it.here.fetch_well().counts(), (0, 0, 0));
    it.daemon = it.here.serve();
    it.dovecot.seed("ann", "INBOX", &corpus::messages(2, 2));
    assert_eq!(it.here.ask(&["account", "check-now", "ann@example.org"], "").code, Some(0));
    it.daemon.wait_for(&[" run ", "account=ann@example.org", "delivered=2", "status=done"]);
    assert_eq!(it.here.files("ann").len(), 22);
}

#[test]
fn a_wrong_password_is_refused_with_the_reason_and_the_old_settings_stay() {
    let mut it = Here::new();
    let refused = it.add("wrong", &[]);
    assert_eq!(refused.code, Some(77), "{refused}");
    assert!(refused.stderr.contains("the test failed at login: login refused by 127.0.0.1"), "{refused}");
    assert!(refused.stderr.contains("nothing was saved"), "{refused}");
    assert_eq!(it.here.ask(&["--json", "account", "list"], "").report()["total"], 0);

    it.add_well();
    it.daemon.wait_for(&[" run ", "account=ann@example.org", "status=done"]);
    let before = it.show();
    let refused = it.here.ask(&["account", "edit", "ann@example.org", "--password"], "wrong");
    assert_eq!(refused.code, Some(77), "{refused}");
    assert_eq!(it.show()["etag"], before["etag"]);
    // The old password still works.
    it.dovecot.seed("ann", "INBOX", &corpus::messages(1, 1));
    assert_eq!(it.here.fetch_well().counts(), (1, 1, 0));

    // Whoever insists gets it, and the account says what it lacks.
    let anyway = it.here.ask(&["account", "edit", "ann@example.org", "--password", "--anyway"], "wrong");
    assert_eq!(anyway.code, Some(0), "{anyway}");
    wait_until("a refused login", || it.show()["health"] == "action");
    assert_eq!(it.show()["cause"]["code"], "login_refused");
    // A password that is right mends it at once.
    let mended = it.here.ask(&["account", "edit", "ann@example.org", "--password"], PASSWORD);
    assert_eq!(mended.code, Some(0), "{mended}");
    wait_until("a login that succeeds", || it.show()["health"] == "ok");
}

#[test]
fn of_two_edits_of_the_same_version_the_second_is_refused_by_name() {
    let it = Here::new();
    it.add_well();
    let edit = |every: &str| {
        let all = ["account", "edit", "ann@example.org", "--check-every", every, "--etag", "1"];
        it.here.ask(&all, "")
    };
    assert_eq!(edit("5m").code, Some(0));
    let second = edit("7m");
    assert_eq!(second.code, Some(75), "{second}");
    assert!(second.stderr.contains("ann@example.org was changed meanwhile, by root at "), "{second}");
    let shown = it.show();
    assert_eq!((&shown["settings"]["check_every"], &shown["etag"]), (&"5m".into(), &"2".into()));
    let removed = it.here.ask(&["account", "remove", "ann@example.org", "--yes", "--etag", "1"], "");
    assert_eq!(removed.code, Some(75), "{removed}");

    // Who did what is on record.
    let changes = it.here.ask(&["account", "changes", "ann@example.org"], "");
    let lines: Vec<&str> = changes.stdout.lines().map(str::trim).collect();
    assert!(lines[0].ends_with("root  edited  ann@example.org"), "{changes}");
    assert!(lines.contains(&"+ check_every = \"5m\""), "{changes}");
    assert!(lines.iter().any(|line| line.ends_with("root  added  ann@example.org")), "{changes}");
}

#[test]
fn a_disabled_account_is_checked_no_more_and_a_removed_one_leaves_its_mail() {
    let mut it = Here::new();
    it.dovecot.seed("ann", "INBOX", &corpus::messages(3, 1));
    it.add_well();
    it.daemon.wait_for(&[" run ", "account=ann@example.org", "delivered=3"]);
    let off = it.here.ask(&["account", "disable", "ann@example.org"], "");
    assert_eq!(off.code, Some(0), "{off}");
    assert_eq!(it.show()["health"], "off");
    let asked = it.here.ask(&["account", "check-now", "ann@example.org"], "");
    assert_eq!(asked.code, Some(64), "{asked}");
    assert_eq!(it.here.ask(&["account", "enable", "ann@example.org"], "").code, Some(0));
    it.daemon.wait_for_times(2, &[" run ", "account=ann@example.org", "status=done"]);

    // Elsewhere than on a terminal it wants to be sure.
    assert_eq!(it.here.ask(&["account", "remove", "ann@example.org"], "").code, Some(64));
    let removed = it.here.ask(&["account", "remove", "ann@example.org", "--yes"], "");
    assert_eq!(removed.code, Some(0), "{removed}");
    assert_eq!(it.here.files("ann").len(), 3);
    let gone = it.here.ask(&["account", "show", "an@example.org"], "");
    assert_eq!(gone.code, Some(64), "{gone}");
    // What was fetched is remembered: added again, nothing comes twice.
    it.add_well();
    it.daemon.wait_for(&[" run ", "account=ann@example.org", "listed=3", "delivered=0", "status=done"]);
    assert_eq!(it.here.files("ann").len(), 3);
}

#[test]
fn accounts_of_the_file_are_shown_changed_by_nobody_and_stronger_than_those_of_the_state() {
    let mut it = Here::new();
    it.add_well();
    let bob = account_of("bob", "imap", "tls", it.dovecot.port(Service::Imaps));
    configure(&it.here, &bob);
    it.daemon.signal(Signal::SIGHUP);
    it.daemon.wait_for(&["the configuration was read again", "accounts=2"]);
    for verb in [&["edit", "bob@example.org", "--check-every", "5m"][..], &["remove", "bob@example.org", "--yes"]] {
        let refused = it.here.ask(&[&["account"], verb].concat(), "");
        assert_eq!(refused.code, Some(64), "{refused}");
        assert!(refused.stderr.contains("stands in the configuration file"), "{refused}");
    }
    let shown = it.here.ask(&["--json", "account", "show", "BOB@example.org"], "");
    assert_eq!(shown.report()["source"], "file", "{shown}");
    let same =
        ["account", "add", "other@example.org", "--protocol", "imap", "--host", "127.0.0.1", "--username", "BOB"];
    let double = it.here.ask(&[&same[..], &["--deliver-to", "bob"]].concat(), "secret");
    assert_eq!(double.code, Some(65), "{double}");
    assert!(double.stderr.contains("bob@example.org has the same server, user name"), "{double}");

    // The same address in the file wins, and the other one says so.
    let ann = account_of("ann", "imap", "tls", it.dovecot.port(Service::Imaps)).replace("\"secret\"", "\"file's own\"");
    configure(&it.here, &format!("{ann}enabled = false\n{bob}"));
    it.daemon.signal(Signal::SIGHUP);
    it.daemon.wait_for(&["a saved account cannot be used", "ann@example.org"]);
    let listed = it.here.ask(&["--json", "account", "list"], "").report();
    let anns: Vec<(&Value, &Value)> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["address"] == "ann@example.org")
        .map(|item| (&item["source"], &item["health"]))
        .collect();
    assert_eq!(anns, [(&"file".into(), &"off".into()), (&"page".into(), &"action".into())]);
}

#[test]
fn filters_look_at_the_mail_of_saved_accounts_whose_own_policy_holds_with_its_next_check() {
    let dovecot = start();
    let here = Installation::trusting(dovecot.certificates());
    configure(&here, "[filter]\non_reject = \"discard\"\n[filter.rules]\nblock_from = \"x.test\"\n");
    let mut it = Here { daemon: here.serve(), dovecot, here };
    let deliver = |it: &Here, from: &str, number: u32| {
        let text =
            format!("From: {from}\nTo: ann@example.org\nSubject: hello\nMessage-ID: <{number}@m.test>\n\nHello\n");
        it.dovecot.deliver("ann", text.as_bytes());
    };
    deliver(&it, "a@x.test", 1);
    deliver(&it, "a@y.test", 2);
    let added = it.add(PASSWORD, &["--set", "on_reject=quarantine"]);
    assert_eq!(added.code, Some(0), "{added}");
    it.daemon.wait_for(&[" run ", "account=ann@example.org", "delivered=1", "quarantined=1", "status=done"]);

    // Another policy, and the filters are there as before.
    let marked = it.here.ask(&["account", "edit", "ann@example.org", "--set", "on_reject=mark"], "");
    assert_eq!(marked.code, Some(0), "{marked}");
    deliver(&it, "b@x.test", 3);
    assert_eq!(it.here.ask(&["account", "check-now", "ann@example.org"], "").code, Some(0));
    it.daemon.wait_for(&[" run ", "account=ann@example.org", "delivered=1", "quarantined=0", "spam=1", "status=done"]);
    assert_eq!(it.here.files("ann").len(), 2);

    // Its destination is known without the daemon, too.
    let Here { here, daemon, .. } = it;
    daemon.stop();
    let held = here.run(&["quarantine", "list", "--json"]).reports();
    let id = held[0]["id"].as_str().unwrap_or_else(|| panic!("nothing is held: {held:?}"));
    let released = here.run(&["quarantine", "release", id]);
    assert_eq!(released.code, Some(0), "{released}");
    assert_eq!(here.files("ann").len(), 3);
}

#[test]
fn where_a_password_goes_is_not_changed_without_the_password() {
    let it = Here::new();
    it.add_well();
    let elsewhere = it.here.ask(&["account", "edit", "ann@example.org", "--host", "localhost"], "");
    assert_eq!(elsewhere.code, Some(78), "{elsewhere}");
    assert!(elsewhere.stderr.contains("the server changes: the password must be given again"), "{elsewhere}");
    let anyway = it.here.ask(&["account", "edit", "ann@example.org", "--host", "localhost", "--anyway"], "");
    assert_eq!(anyway.code, Some(78), "{anyway}");
    let with = it.here.ask(&["account", "edit", "ann@example.org", "--host", "localhost", "--password"], PASSWORD);
    assert_eq!(with.code, Some(0), "{with}");
    // Mistakes are told with their keys, all at once.
    let wrong = ["--json", "account", "edit", "ann@example.org", "--set", "deliver_too=ann", "--set", "port=0"];
    let wrong = it.here.ask(&wrong, "");
    assert_eq!(wrong.code, Some(78), "{wrong}");
    let keys: Vec<String> = wrong.report()["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["deliver_too", "port"]);
    let command = it.here.ask(&["account", "edit", "ann@example.org", "--set", "password_command=[\"id\"]"], "");
    assert_eq!(command.code, Some(78), "{command}");
}

#[test]
fn a_password_is_nowhere_to_be_seen_and_without_the_key_these_accounts_alone_wait() {
    let mut it = Here::new();
    it.dovecot.seed("ann", "INBOX", &corpus::messages(1, 1));
    it.add_well();
    it.daemon.wait_for(&[" run ", "account=ann@example.org", "delivered=1"]);
    let mut said = String::new();
    for arguments in [
        &["account", "list"][..],
        &["--json", "account", "list"],
        &["account", "show", "ann@example.org"],
        &["--json", "account", "show", "ann@example.org"],
        &["account", "changes"],
        &["--json", "account", "changes"],
        &["account", "test", "ann@example.org"],
        &["--json", "account", "test", "ann@example.org"],
        &["status"],
    ] {
        let outcome = it.here.ask(arguments, "");
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome}");
        said += &format!("{outcome}");
    }
    said += &it.daemon.stderr();
    assert!(!said.contains(PASSWORD), "{said}");
    let state = it.here.path("state");
    let backup = it.here.path("backup");
    assert_eq!(it.here.run(&["state", "backup", backup.to_str().unwrap()]).code, Some(0));
    let in_state = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    for file in in_state.chain([backup]) {
        let octets = std::fs::read(&file).unwrap();
        let is_there = octets.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes());
        assert!(!is_there, "{}", file.display());
    }
    let key = state.join("key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o7777, 0o600);

    // Without the key the others go on, and no new one takes its place.
    assert_eq!(it.daemon.stop().code, Some(0));
    std::fs::rename(&key, it.here.path("kept")).unwrap();
    configure(&it.here, &account_of("bob", "imap", "tls", it.dovecot.port(Service::Imaps)));
    it.daemon = it.here.serve();
    it.daemon.wait_for(&["stored passwords cannot be opened", "key is missing"]);
    it.daemon.wait_for(&[" run ", "account=bob@example.org", "status=done"]);
    it.daemon.wait_for(&["account=ann@example.org", "stored passwords cannot be opened"]);
    assert!(!key.exists());
    let refused = it.here.ask(&["account", "edit", "ann@example.org", "--password"], PASSWORD);
    assert_eq!(refused.code, Some(78), "{refused}");
    assert_eq!(it.daemon.stop().code, Some(0));

    // With it again all is well.
    std::fs::rename(it.here.path("kept"), &key).unwrap();
    it.daemon = it.here.serve();
    // It waits as after any failure, but not for a person.
    assert_eq!(it.here.ask(&["account", "check-now", "ann@example.org"], "").code, Some(0));
    it.daemon.wait_for(&[" run ", "account=ann@example.org", "status=done"]);
}

#[test]
fn saved_accounts_reach_no_network_that_the_file_does_not_name() {
    let mut it = Here::new();
    let path = it.here.path("mail/{user}/Maildir");
    let delivery = format!("[delivery]\ntype = \"maildir\"\npath = \"{}\"\n", path.display());
    it.here.configure_with(&format!("[saved]\nports = \"1024-65535\"\n{delivery}"), "");
    it.daemon.signal(Signal::SIGHUP);
    it.daemon.wait_for(&["the configuration was read again"]);
    let refused = it.add(PASSWORD, &[]);
    assert_eq!(refused.code, Some(78), "{refused}");
    assert!(refused.stderr.contains("failed at name") && refused.stderr.contains("it is 127.0.0.1"), "{refused}");
    // Not even for who insists: it is saved, and connects to nothing.
    assert_eq!(it.add(PASSWORD, &["--anyway"]).code, Some(0));
    it.daemon.wait_for(&[" run ", "account=ann@example.org", "status=failed", "it is 127.0.0.1"]);
    it.here.configure_with(&delivery, "");
    it.daemon.signal(Signal::SIGHUP);
    it.daemon.wait_for_times(2, &["the configuration was read again"]);
    let shown = it.show();
    assert_eq!((&shown["health"], &shown["problems"][0]["key"]), (&"action".into(), &"port".into()));
}

#[test]
fn without_a_daemon_it_says_where_it_looked() {
    let here = Installation::new();
    here.configure("");
    let alone = here.ask(&["account", "list"], "");
    assert_eq!(alone.code, Some(69), "{alone}");
    assert!(alone.stderr.contains("state/control.sock"), "{alone}");
    let mut command = control_command(&here.path(""));
    let bare = Outcome::of(command.args(["--socket", "/nowhere", "status"]), b"");
    assert_eq!(bare.code, Some(69), "{bare}");
}

#[test]
fn relays_are_proposed_for_an_account_that_is_saved_with_and_without_the_daemon() {
    let it = Here::new();
    let message = |number: usize| {
        Message::new(format!(
            "Received: from out{number}.shop.test (out{number}.shop.test [192.0.2.{number}])\n\tby mx1.provider.test (Postfix) with \
             ESMTPS id {number}; Thu, 1 Jan 2026 00:00:00 +0000\nFrom: a@shop.test\nSubject: {number}\n\nbody\n"
        ))
    };
    it.dovecot.seed("ann", "INBOX", &(1..=5).map(message).collect::<Vec<_>>());
    it.add_well();
    let Here { dovecot: _dovecot, here, daemon } = it;
    let look = || {
        let row = here.run(&["relays", "ann@example.org", "--json"]);
        assert_eq!(row.code, Some(0), "{row}");
        (row.report()["messages"].clone(), row.report()["proposals"][0]["domain"].clone())
    };
    let expected = (Value::from(5), Value::from("provider.test"));
    assert_eq!(look(), expected);
    assert_eq!(here.run(&["relays", "nobody@example.org"]).code, Some(64));
    daemon.stop();
    assert_eq!(look(), expected);
    let page = here.run(&["relays", "ann@example.org"]);
    assert!(page.stdout.contains("    trusted_relays = [\"provider.test\"]\n"), "{page}");
}
