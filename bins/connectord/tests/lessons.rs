//! What people decide about mail that is kept back, under the configuration that is in force: a real Rspamd learns, and
//! a reload changes the quarantine.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Installation, dovecot_account, wait_until};
use connectord_testkit::{Dovecot, DovecotOptions, Message, Rspamd, Service};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What every antispam filter finds, in two halves so that none finds this program.
const GTUBE: [&str; 2] = ["XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"];

/// With words enough to learn from, which are others in each.
fn spam(number: usize) -> Message {
    let words: Vec<_> =
        ["apples", "oranges", "pears", "plums", "cherries", "grapes", "melons", "figs", "dates", "quinces"]
            .iter()
            .flat_map(|word| [format!("{word}{}", "abcdefgh".repeat(number)), format!("some{word}{number}")])
            .collect();
    Message::new(format!(
        "From: a@spam.test\nTo: ann@example.org\nSubject: pills {number}\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n\
         Message-ID: <{number}@spam.test>\n\n{}\n{}\n",
        GTUBE.concat(),
        words.join(" ")
    ))
}

fn held(here: &Installation) -> Vec<String> {
    let list = here.run(&["quarantine", "list", "--json"]);
    assert_eq!(list.code, Some(0), "{list}");
    list.reports().iter().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect()
}

/// How many lessons an Rspamd has had.
fn lessons(rspamd: &Rspamd) -> u64 {
    let mut stream = TcpStream::connect(rspamd.controller()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.write_all(b"GET /stat HTTP/1.0\r\nPassword: secret\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let answer: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    answer["total_learns"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn what_is_released_teaches_the_rspamd_of_the_configuration_in_force() {
    let rspamd = Rspamd::start(None, &[]);
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret"));
    dovecot.seed("ann", "INBOX", &[spam(1), spam(2), spam(3)]);
    let here = Installation::trusting(dovecot.certificates());
    let without = format!(
        "{}check_every = \"never\"\ntrusted_relays = []\n[filter.rspamd]\nurl = \"http://{}\"\n",
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
    let before = lessons(&rspamd);
    let ids = held(&here);
    let release = |id: &str| here.run(&["quarantine", "release", id, "--teach", "--json"]);
    let taught = release(&ids[0]);
    assert_eq!((taught.code, &taught.report()["taught"]), (Some(0), &Value::Bool(true)), "{taught}");
    assert_eq!((lessons(&rspamd), here.files("ann").len()), (before + 1, 1));

    // A daemon that began without a controller has the one that came with a reload, and its password.
    here.configure(&without);
    let mut daemon = here.serve();
    let refused = release(&ids[1]);
    assert!(refused.code == Some(64) && refused.stderr.contains("no filter is configured that learns"), "{refused}");
    here.configure(&with("wrong"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_times(1, &["the configuration was read again"]);
    let untaught = release(&ids[1]);
    let why = untaught.report()["taught"].as_str().unwrap_or_default().to_owned();
    assert!(untaught.code == Some(0) && why.contains("its password is another one"), "{untaught}");
    assert_eq!((lessons(&rspamd), here.files("ann").len()), (before + 1, 2), "it is delivered all the same");
    here.configure(&with("secret"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_times(2, &["the configuration was read again"]);
    let taught = release(&ids[2]);
    assert_eq!((taught.code, &taught.report()["taught"]), (Some(0), &Value::Bool(true)), "{taught}");
    assert_eq!((lessons(&rspamd), here.files("ann").len()), (before + 2, 3));
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
