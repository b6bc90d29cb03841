//! What people decide about mail that is kept back, under the configuration that is in force: a real Rspamd learns, and
//! a reload changes the quarantine.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::collections::BTreeMap;

use common::{Installation, dovecot_account, wait_until};
use connectord_testkit::{Dovecot, DovecotOptions, Message, Rspamd, Service};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What a rule blocks, with words enough to learn from, which are others in each.
fn spam(number: usize) -> Message {
    let words: Vec<_> =
        ["apples", "oranges", "pears", "plums", "cherries", "grapes", "melons", "figs", "dates", "quinces"]
            .iter()
            .flat_map(|word| [format!("{word}{}", "abcdefgh".repeat(number)), format!("some{word}{number}")])
            .collect();
    Message::new(format!(
        "From: a@spam.test\nTo: ann@example.org\nSubject: pills {number}\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n\
         Message-ID: <{number}@spam.test>\n\n{}\n",
        words.join(" ")
    ))
}

/// The ids of what is kept back, by subject.
fn held(here: &Installation) -> BTreeMap<String, String> {
    let list = here.run(&["quarantine", "list", "--json"]);
    assert_eq!(list.code, Some(0), "{list}");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    list.reports().iter().filter_map(|row| Some((text(&row["subject"])?, text(&row["id"])?))).collect()
}

/// Whether an Rspamd says in its log that it learned this message.
fn has_learned(rspamd: &Rspamd, number: usize) -> bool {
    rspamd.log().contains(&format!("learned message as ham: {number}@spam.test"))
}

#[test]
fn what_is_released_teaches_the_rspamd_of_the_configuration_in_force() {
    let rspamd = Rspamd::start(None, &Rspamd::BAYES);
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret"));
    dovecot.seed("ann", "INBOX", &[spam(1), spam(2), spam(3)]);
    let here = Installation::trusting(dovecot.certificates());
    let without = format!(
        "{}check_every = \"never\"\ntrusted_relays = []\n[filter.rules]\nblock_from = [\"spam.test\"]\n[filter.rspamd]\nurl = \"http://{}\"\n",
        dovecot_account(&dovecot, Service::Imaps),
        rspamd.address()
    );
    let with = |password: &str| {
        format!(
            "{without}[filter.rspamd.controller]\nurl = \"http://{}\"\npassword = \"{password}\"\n",
            rspamd.controller()
        )
    };
    here.configure(&with("secret"));
    wait_until("all are kept back", || {
        here.fetch();
        held(&here).len() == 3
    });
    let ids = held(&here);
    let release =
        |number: usize| here.run(&["quarantine", "release", &ids[&format!("pills {number}")], "--teach", "--json"]);
    let taught = release(1);
    assert_eq!((taught.code, &taught.report()["taught"]), (Some(0), &Value::Bool(true)), "{taught}");
    assert_eq!((has_learned(&rspamd, 1), here.files("ann").len()), (true, 1));

    // A daemon that began without a controller has the one that came with a reload, and its password.
    here.configure(&without);
    let mut daemon = here.serve();
    let refused = release(2);
    assert!(refused.code == Some(64) && refused.stderr.contains("no filter is configured that learns"), "{refused}");
    here.configure(&with("wrong"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_times(1, &["the configuration was read again"]);
    let untaught = release(2);
    let why = untaught.report()["taught"].as_str().unwrap_or_default().to_owned();
    assert!(untaught.code == Some(0) && why.contains("its password is another one"), "{untaught}");
    assert_eq!((has_learned(&rspamd, 2), here.files("ann").len()), (false, 2), "it is delivered all the same");
    here.configure(&with("secret"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_times(2, &["the configuration was read again"]);
    let taught = release(3);
    assert_eq!((taught.code, &taught.report()["taught"]), (Some(0), &Value::Bool(true)), "{taught}");
    assert_eq!((has_learned(&rspamd, 3), here.files("ann").len()), (true, 3));
    daemon.stop();
}

#[test]
fn a_reload_changes_how_much_the_quarantine_holds_and_whether_users_are_told_and_says_what_waits_for_a_restart() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret"));
    dovecot.seed("ann", "INBOX", &[spam(1), spam(2)]);
    let here = Installation::trusting(dovecot.certificates());
    let configure = |quarantine: &str| {
        here.configure(&format!(
            "{}check_every = \"never\"\ntrusted_relays = []\n[filter.rules]\nblock_from = [\"spam.test\"]\n[quarantine]\n{quarantine}",
            dovecot_account(&dovecot, Service::Imaps),
        ));
    };
    configure("max_messages = 1\n");
    let mut daemon = here.serve();
    let full = here.fetch();
    assert_eq!((held(&here).len(), full.number("deferred")), (1, 1), "{full}");
    assert!(here.files("ann").is_empty(), "nobody is to be told");

    let elsewhere = here.path("elsewhere");
    configure(&format!("max_messages = 2\nreport = \"daily\"\npath = \"{}\"\n", elsewhere.display()));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for(&["the quarantine moves at the next start", "elsewhere"]);
    wait_until("ann is told", || here.files("ann").len() == 1);
    // A check by hand waits for no time.
    let room = here.fetch();
    assert_eq!((held(&here).len(), room.number("quarantined")), (2, 1), "{room}");
    assert!(!elsewhere.exists());
    daemon.stop();
}
