//! The program with the real Rspamd, clamd and spamd between a real Dovecot and its destinations.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::path::Path;

use common::{Installation, Outcome, dovecot_account, files, light, wait_until};
use connectord_testkit::{Clamd, Dovecot, DovecotOptions, Message, Rspamd, Service, Spamd};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What every antispam filter finds, in two halves so that none finds this program.
const GTUBE: [&str; 2] = ["XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"];

/// The same for viruses, in base64.
const EICAR: [&str; 2] =
    ["WDVPIVAlQEFQWzRcUFpYNTQoUF4pN0NDKTd9JEVJQ0FSLVNUQU5EQVJELUFO", "VElWSVJVUy1URVNULUZJTEUhJEgrSCo="];

fn ann() -> DovecotOptions {
    DovecotOptions::new().user("ann", "secret")
}

fn clean(number: usize) -> Message {
    light(number * 10)
}

fn spam() -> Message {
    Message::new(format!(
        "Return-Path: <a@x.test>\nFrom: a@x.test\nTo: ann@example.org\nSubject: pills\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n\
         Message-ID: <spam@x.test>\nX-Spam: No\n\n{}\n",
        GTUBE.concat()
    ))
}

fn virus() -> Message {
    Message::new(format!(
        "From: a@x.test\nTo: ann@example.org\nSubject: invoice\nDate: Thu, 1 Jan 2026 00:00:00 +0000\nMessage-ID: <v@x.test>\n\
         MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nsee below\n\
         --b\nContent-Type: application/octet-stream; name=\"invoice.com\"\nContent-Transfer-Encoding: base64\n\
         Content-Disposition: attachment; filename=\"invoice.com\"\n\n{}\n--b--\n",
        EICAR.concat()
    ))
}

fn rspamd_table(rspamd: &Rspamd) -> String {
    format!("[filter.rspamd]\nurl = \"http://{}\"\n", rspamd.address())
}

fn clamav_table(clamd: &Clamd) -> String {
    format!("[filter.clamav]\naddress = \"unix:{}\"\n", clamd.socket().display())
}

/// Behind an account: Dovecot at this machine is no provider whose hosts could be trusted.
const NOBODY: &str = "trusted_relays = []\n";

/// The messages of a Maildir, as text.
fn texts(maildir: &Path) -> Vec<String> {
    files(maildir).iter().map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned()).collect()
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {report}"))
}

/// A check of all accounts that must go well, sooner or later: on a machine under load a filter may not answer in time.
#[track_caller]
fn fetch_well(here: &Installation) -> Outcome {
    let mut last = None;
    wait_until("a check with all filters there", || {
        let outcome = here.fetch();
        let is_slow = outcome.reports().iter().any(|report| report["cause"] == "filter_down");
        assert!(is_slow || outcome.code == Some(0), "{outcome}");
        last = Some(outcome);
        !is_slow
    });
    last.unwrap()
}

/// What is in the quarantine.
fn held(here: &Installation) -> Vec<Value> {
    let list = here.run(&["quarantine", "list", "--json"]);
    assert_eq!(list.code, Some(0), "{list}");
    list.reports().into_iter().filter(|row| row["id"].is_string()).collect()
}

#[test]
fn spam_is_filed_and_a_virus_kept_back_until_somebody_releases_it() {
    let (rspamd, clamd) = (Rspamd::start(None, &[]), Clamd::start(""));
    for service in [Service::Imaps, Service::Pop3s] {
        let dovecot = Dovecot::start(ann());
        dovecot.seed("ann", "INBOX", &[clean(1), spam(), virus()]);
        let here = Installation::trusting(dovecot.certificates());
        let tables = format!(
            "delete = \"immediately\"\n{NOBODY}[filter]\non_reject = \"folder:Junk\"\n[filter.rules]\nsubject_prefix = \"[SPAM]\"\n{}{}",
            rspamd_table(&rspamd),
            clamav_table(&clamd)
        );
        here.configure(&format!("{}{tables}", dovecot_account(&dovecot, service)));
        let outcome = fetch_well(&here);
        let report = outcome.report();
        let counts = ["retrieved", "delivered", "quarantined", "spam", "removed"].map(|name| number(&report, name));
        assert_eq!(counts, [3, 2, 1, 1, 3], "{outcome}");
        assert!(dovecot.messages("ann", "INBOX").is_empty());

        let inbox = texts(&here.maildir("ann"));
        assert_eq!(inbox.len(), 1, "{inbox:?}");
        for filter in ["rspamd", "clamav"] {
            assert_eq!(
                inbox[0].matches(&format!("X-Connectord-Filter: {filter}; checked; ")).count(),
                1,
                "{}",
                inbox[0]
            );
        }
        assert!(!inbox[0].contains("X-Spam: "), "{}", inbox[0]);
        let junk = texts(&here.maildir("ann").join(".Junk"));
        assert_eq!(junk.len(), 1, "{junk:?}");
        assert!(junk[0].contains("\nSubject: [SPAM] pills\n") && junk[0].contains("X-Spam: Yes\n"), "{}", junk[0]);
        assert!(!junk[0].contains("X-Spam: No"), "{}", junk[0]);

        let rows = held(&here);
        assert_eq!(
            (rows.len(), rows[0]["kind"].as_str(), rows[0]["subject"].as_str()),
            (1, Some("virus"), Some("invoice"))
        );
        let id = rows[0]["id"].as_str().unwrap();
        let shown = here.run(&["quarantine", "show", id]);
        assert!(shown.code == Some(0) && shown.stdout.contains("Eicar-Test-Signature"), "{shown}");
        assert!(shown.stdout.contains("invoice.com") && !shown.stdout.contains(EICAR[0]), "{shown}");
        let refused = here.run(&["quarantine", "release", id]);
        assert!(refused.code == Some(64) && files(&here.maildir("ann")).len() == 1, "{refused}");
        let released = here.run(&["quarantine", "release", "--infected", id]);
        assert_eq!(released.code, Some(0), "{released}");
        assert!(texts(&here.maildir("ann")).iter().any(|text| text.contains(EICAR[0])), "{released}");
        assert!(held(&here).is_empty());
        assert_eq!(fetch_well(&here).counts(), (0, 0, 0));
    }
}

#[test]
fn over_lmtp_a_field_tells_sieve_the_folder_and_an_account_may_say_otherwise_than_the_site() {
    let spamd = Spamd::start(&[]);
    let script = "require [\"fileinto\", \"mailbox\"];\nif header :is \"X-Connectord-Folder\" \"Junk\" { fileinto :create \"Junk\"; }\n";
    let dovecot = Dovecot::start(ann().user("bob", "secret").user("carol", "secret").sieve("bob", script));
    for user in ["ann", "carol"] {
        dovecot.seed(user, "INBOX", &[clean(1), spam()]);
    }
    let here = Installation::trusting(dovecot.certificates());
    let account = |user: &str, to: &str, keys: &str| {
        dovecot_account(&dovecot, Service::Imaps)
            .replace("\"ann\"", &format!("{user:?}"))
            .replace("ann@", &format!("{user}@"))
            .replace(&format!("deliver_to = {user:?}"), &format!("deliver_to = {to:?}\n{keys}{NOBODY}"))
    };
    let tables = format!(
        "[delivery]\ntype = \"lmtp\"\naddress = \"unix:{}\"\n[filter]\non_spam = \"folder:Junk\"\n[filter.spamassassin]\n\
         address = \"{}\"\n",
        dovecot.lmtp_socket().display(),
        spamd.address()
    );
    let accounts = account("ann", "bob", "") + &account("carol", "bob", "on_spam = \"discard\"\n");
    here.configure_with(&tables, &accounts);
    let outcome = fetch_well(&here);
    let counts = |address: &str| {
        let report = outcome.reports().into_iter().find(|report| report["account"] == address).unwrap();
        ["delivered", "spam", "discarded"].map(|name| number(&report, name))
    };
    assert_eq!((counts("ann@example.org"), counts("carol@example.org")), ([2, 1, 0], [1, 1, 1]), "{outcome}");
    let (inbox, junk) = (dovecot.messages("bob", "INBOX"), dovecot.messages("bob", "Junk"));
    assert_eq!((inbox.len(), junk.len()), (2, 1));
    let junk = String::from_utf8_lossy(&junk[0]).into_owned();
    assert!(junk.contains("X-Spam: Yes") && junk.contains("GTUBE"), "{junk}");
    assert!(!inbox.iter().any(|message| String::from_utf8_lossy(message).contains("X-Connectord-Folder")));
}

#[test]
fn while_rspamd_is_dead_nothing_is_delivered_unchecked_and_all_of_it_when_it_is_back() {
    const MESSAGES: usize = 300;
    let mut rspamd = Rspamd::start(None, &[]);
    let dovecot = Dovecot::start(ann());
    let mail: Vec<_> = (0..MESSAGES).map(clean).collect();
    dovecot.seed("ann", "INBOX", &mail);
    let here = Installation::trusting(dovecot.certificates());
    let keys = format!("delete = \"immediately\"\ncheck_every = \"10s\"\n{NOBODY}{}", rspamd_table(&rspamd));
    here.configure(&format!("{}{keys}", dovecot_account(&dovecot, Service::Imaps)));
    let mut daemon = here.serve();
    wait_until("the first messages are delivered", || here.files("ann").len() >= 10);
    rspamd.kill();
    daemon.wait_for(&["ann@example.org", "filter rspamd:http://"]);
    // Twice more in vain, so that nothing of it is left over from before.
    daemon.wait_for_times(3, &["ann@example.org", "filter rspamd:http://"]);
    let delivered = here.files("ann").len();
    assert!(delivered < MESSAGES, "all of it was delivered before it was dead");
    let there = || files(&dovecot.maildir("ann")).len();
    let left = there();
    assert!(left >= MESSAGES - delivered, "{delivered} are here and {left} there");

    rspamd.restart();
    wait_until("all of it is delivered", || here.files("ann").len() >= MESSAGES);
    wait_until("all of it is removed there", || there() == 0);
    let texts = texts(&here.maildir("ann"));
    assert_eq!(texts.len(), MESSAGES);
    for text in &texts {
        assert!(text.contains("X-Connectord-Filter: rspamd; checked; "), "delivered unchecked: {text}");
    }
    let mut numbers: Vec<_> =
        texts.iter().filter_map(|text| text.split("\nSubject: number ").nth(1)?.lines().next()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), MESSAGES);
    assert!(held(&here).is_empty());
    let end = daemon.stop();
    assert_eq!(end.code, Some(0), "{end}");
}

#[test]
fn check_online_says_of_every_filter_whether_it_works() {
    let (mut rspamd, mut clamd, mut spamd) = (Rspamd::start(None, &[]), Clamd::start(""), Spamd::start(&[]));
    let here = Installation::new();
    let account = common::account("imap", "tls", 1);
    here.configure(&format!(
        "{account}enabled = false\n{NOBODY}{}{}[filter.spamassassin]\naddress = \"unix:{}\"\n[filter.command.never]\n\
         program = \"/nowhere/at-all\"\n",
        rspamd_table(&rspamd),
        clamav_table(&clamd),
        spamd.socket().display()
    ));
    let lines = |outcome: &Outcome| -> Vec<String> {
        let all = outcome.stdout.lines().map(str::to_owned);
        all.filter(|line| line.contains("rspamd") || line.contains("clamav") || line.contains("spamassassin")).collect()
    };
    let all = here.run(&["check", "--online"]);
    let expected = |marks: [&str; 3], outcome: &Outcome| {
        let lines = lines(outcome);
        assert_eq!(lines.len(), 3, "{outcome}");
        for ((line, mark), filter) in
            lines.iter().zip(marks).zip(["rspamd:http://", "clamav:unix:", "spamassassin:unix:"])
        {
            assert!(line.starts_with(&format!("{mark}  {filter}")), "{line:?} in {outcome}");
            assert_eq!(mark == "ok  ", line.contains(", finds the test "), "{line:?} in {outcome}");
        }
    };
    expected(["ok  ", "ok  ", "ok  "], &all);
    // A program that is not there is nobody's trouble but its own.
    assert!(all.stdout.contains("FAIL  command:/nowhere/at-all: ") && all.code == Some(78), "{all}");

    let without = std::fs::read_to_string(here.configuration()).unwrap();
    here.write_configuration(without.split("[filter.command.never]").next().unwrap());
    let well = here.run(&["check", "--online"]);
    assert_eq!(well.code, Some(0), "{well}");
    clamd.kill();
    let outcome = here.run(&["check", "--online"]);
    expected(["ok  ", "FAIL", "ok  "], &outcome);
    assert!(outcome.code == Some(69) && outcome.stdout.contains("hint: does it run"), "{outcome}");
    rspamd.kill();
    spamd.kill();
    let outcome = here.run(&["check", "--online"]);
    expected(["FAIL", "FAIL", "FAIL"], &outcome);
    clamd.restart();
    let outcome = here.run(&["check", "--online"]);
    expected(["FAIL", "ok  ", "FAIL"], &outcome);
}

#[test]
fn filters_that_come_with_a_reload_look_at_the_next_message_and_those_that_go_do_not() {
    let clamd = Clamd::start("");
    let dovecot = Dovecot::start(ann());
    let here = Installation::trusting(dovecot.certificates());
    let account = format!("{}check_every = \"10s\"\n", dovecot_account(&dovecot, Service::Imaps));
    here.configure(&account);
    let mut daemon = here.serve();
    here.configure(&format!("{account}{}", clamav_table(&clamd)));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("the configuration was read again");
    dovecot.deliver("ann", virus().octets.as_slice());
    wait_until("the virus is kept back", || !held(&here).is_empty());
    assert!(here.files("ann").is_empty());

    here.configure(&account);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_times(2, &["the configuration was read again"]);
    dovecot.deliver("ann", clean(1).octets.as_slice());
    wait_until("the next message comes", || here.files("ann").len() == 1);
    assert!(!texts(&here.maildir("ann"))[0].contains("X-Connectord-Filter"));
    assert_eq!(held(&here).len(), 1);
    daemon.stop();
}

#[test]
fn relays_are_proposed_from_the_mail_and_believed_only_once_they_are_written() {
    let message = |number: usize| {
        Message::new(format!(
            "Received: from out{number}.shop.test (out{number}.shop.test [192.0.2.{number}])\n\tby mx1.provider.test (Postfix) with \
             ESMTPS id {number}; Thu, 1 Jan 2026 00:00:00 +0000\nReceived: from forged (forged [198.51.100.1]) by mx.shop.test \
             with ESMTP id x\nFrom: a@shop.test\nSubject: {number}\n\nbody\n"
        ))
    };
    let dovecot = Dovecot::start(ann());
    dovecot.seed("ann", "INBOX", &(1..=12).map(message).collect::<Vec<_>>());
    for service in [Service::Imaps, Service::Pop3s] {
        let here = Installation::trusting(dovecot.certificates());
        let account = dovecot_account(&dovecot, service);
        here.configure(&account);
        let proposed = here.run(&["relays", "ann@example.org", "--messages", "10"]);
        assert_eq!(proposed.code, Some(0), "{proposed}");
        for part in [
            "the newest 10 messages were looked at\n",
            "now: nobody is believed; the host that handed the message over is known for 0\n",
            "    trusted_relays = [\"provider.test\"]\n",
        ] {
            assert!(proposed.stdout.contains(part), "{part:?} is not in {proposed}");
        }
        assert!(!proposed.stdout.contains("shop.test"), "{proposed}");
        here.configure(&format!("{account}trusted_relays = [\"provider.test\"]\n"));
        let row = here.run(&["relays", "ann@example.org", "--json"]).report();
        assert_eq!((number(&row, "messages"), number(&row, "clients_known")), (12, 12), "{row}");
        assert_eq!(row["proposals"][0]["domain"], "provider.test", "{row}");
    }
    assert_eq!(dovecot.messages("ann", "INBOX").len(), 12);
    assert_eq!(dovecot.doveadm(&["search", "-u", "ann", "mailbox", "INBOX", "seen"]), "");

    let here = Installation::new();
    here.configure(&common::account("imap", "none", 1));
    let refused = here.run(&["relays", "ann@example.org"]);
    assert!(refused.code == Some(69) && refused.stdout.starts_with("FAIL  ann@example.org: "), "{refused}");
    assert_eq!(here.run(&["relays", "bob@example.org"]).code, Some(64));
}
