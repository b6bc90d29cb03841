//! Who handed a message over, in the running program: a real Dovecot, a real Rspamd, and a DNS zone with SPF for one address.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Installation, account_of, files, wait_until};
use connectord_testkit::{Dns, Dovecot, DovecotOptions, Message, Rspamd, Service};
use serde_json::Value;

/// Who handed the same message over: the user whose mailbox has it, its true client, and what is below the hand-off.
const ROWS: [(&str, &str, &str, &str); 4] = [
    ("host", "the right host", RIGHT, ""),
    ("forger", "a forger", FORGER, ""),
    ("hop", "a forger, with a forged hop", FORGER, HOP),
    ("unknown", "nobody is trusted: unknown", FORGER, HOP),
];

const RIGHT: &str = "192.0.2.7";
const FORGER: &str = "198.51.100.66";

/// What the forger writes: the right host's hand-off, and what the provider would say of it.
const HOP: &str = "Received: from out.shop.test (out.shop.test [192.0.2.7])\n\tby mx.provider.test (Postfix) with ESMTPS id 3;\n\
    \tMon, 30 Nov 2026 12:00:00 +0000\nAuthentication-Results: mx.provider.test; spf=pass smtp.mailfrom=shop.test\n";

/// What the provider says of the forger.
const OWN: &str = "Authentication-Results: mx.provider.test; spf=fail smtp.mailfrom=shop.test\n";

const MESSAGE: &str = "From: Ann <ann@shop.test>\nTo: Bob <bob@example.org>\nSubject: lunch\nDate: Mon, 30 Nov 2026 12:00:00 +0000\n\
    Message-ID: <1@shop.test>\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n\
    Shall we meet at noon, as every Monday, in the small place by the river?\n";

/// What the provider's hosts wrote in front, without their findings.
fn way(client: &str) -> String {
    let name = if client == RIGHT { "out.shop.test" } else { "unknown" };
    format!(
        "Received: from mx.provider.test (mx.provider.test [10.0.0.5])\n\tby store.provider.test (Postfix) with LMTP id 1;\n\
         \tMon, 30 Nov 2026 12:00:02 +0000\nReceived: from out.shop.test ({name} [{client}])\n\
         \tby mx.provider.test (Postfix) with ESMTPS id 2 for <bob@example.org>;\n\tMon, 30 Nov 2026 12:00:01 +0000\n"
    )
}

fn stored(client: &str, below: &str) -> String {
    let own = if client == FORGER { OWN } else { "" };
    format!("Return-Path: <news@shop.test>\n{own}{}{below}{MESSAGE}", way(client))
}

/// What Rspamd found.
struct Found {
    score: f64,
    action: String,
    symbols: Vec<String>,
}

impl Found {
    /// From the trace field of a delivered message.
    fn of(delivered: &str) -> Self {
        let trace =
            delivered.split("X-Connectord-Filter: rspamd; checked; ").nth(1).unwrap_or_else(|| panic!("{delivered}"));
        let trace = trace.replace("\n\t", " ");
        let trace = trace.lines().next().unwrap();
        let between = |start: &str, end: &str| trace.split(start).nth(1).unwrap().split(end).next().unwrap().to_owned();
        let symbols = between("symbols=", "\n");
        let name = |symbol: &str| symbol.split('(').next().unwrap().to_owned();
        Self {
            score: between("score=", "/").parse().unwrap(),
            action: between("action=\"", "\""),
            symbols: symbols.split(", ").map(name).collect(),
        }
    }

    /// As the retriever before this one asked: every message comes from this machine.
    fn as_from_this_machine(rspamd: &Rspamd, message: &str) -> Self {
        let message = message.replace('\n', "\r\n");
        let mut stream = TcpStream::connect(rspamd.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let head = format!(
            "POST /checkv2 HTTP/1.0\r\nIP: 127.0.0.1\r\nHelo: out.shop.test\r\nFrom: <news@shop.test>\r\nRcpt: <bob@example.org>\r\n\
             Content-Length: {}\r\n\r\n",
            message.len()
        );
        stream.write_all((head + &message).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        Self {
            score: answer["score"].as_f64().unwrap(),
            action: answer["action"].as_str().unwrap().to_owned(),
            symbols: answer["symbols"].as_object().unwrap().keys().cloned().collect(),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.symbols.iter().any(|symbol| symbol == name)
    }
}

#[test]
fn the_same_message_is_judged_by_who_handed_it_over_and_a_forger_s_word_is_neither_believed_nor_delivered() {
    let dns = Dns::start(&Dns::SHOP);
    let rspamd = Rspamd::start(Some(&dns), &[]);
    let users = ROWS.iter().fold(DovecotOptions::new(), |options, (user, ..)| options.user(user, "secret"));
    let dovecot = Dovecot::start(users);
    let here = Installation::trusting(dovecot.certificates());
    let mut accounts = String::new();
    for (user, _, client, below) in ROWS {
        dovecot.seed(user, "INBOX", &[Message::new(stored(client, below))]);
        here.add_home(user);
        accounts += &account_of(user, "imap", "tls", dovecot.port(Service::Imaps));
        let trusted = if user == "unknown" { "[]" } else { "[\"provider.test\"]" };
        accounts += &format!("trusted_relays = {trusted}\ncheck_every = \"10s\"\n");
    }
    here.configure(&format!("{accounts}[filter.rspamd]\nurl = \"http://{}\"\n", rspamd.address()));
    let daemon = here.serve();
    let maildir = |user: &str| files(&here.maildir(user));
    wait_until("each has its message", || ROWS.iter().all(|(user, ..)| maildir(user).len() == 1));
    let end = daemon.stop();
    assert_eq!(end.code, Some(0), "{end}");

    let delivered: Vec<_> = ROWS.map(|(user, ..)| std::fs::read_to_string(&maildir(user)[0]).unwrap()).into();
    let original = Found::as_from_this_machine(&rspamd, &stored(FORGER, ""));
    let found: Vec<_> = delivered.iter().map(|message| Found::of(message)).collect();
    let names = ROWS.iter().map(|(_, name, ..)| *name);
    println!("{:<34} {:>7} {:<14} SPF, DMARC", "handed over by", "score", "action");
    for (name, found) in ["127.0.0.1, as before"].into_iter().chain(names).zip([&original].into_iter().chain(&found)) {
        let told = |symbol: &&String| symbol.contains("SPF") || symbol.contains("DMARC");
        let told: Vec<_> = found.symbols.iter().filter(told).map(String::as_str).collect();
        println!("{name:<34} {:>7.1} {:<14} {}", found.score, found.action, told.join(", "));
    }
    let [host, forger, hop, unknown] = &found[..] else { panic!("four rows") };
    assert!(!original.has("R_SPF_FAIL") && !original.has("R_SPF_ALLOW"), "from 127.0.0.1 SPF is blind");
    assert!(host.has("R_SPF_ALLOW") && host.has("DMARC_POLICY_ALLOW"), "{:?}", host.symbols);
    for forger in [forger, hop] {
        assert!(forger.has("R_SPF_FAIL") && forger.has("DMARC_POLICY_REJECT"), "{:?}", forger.symbols);
        assert!(!forger.has("R_SPF_ALLOW"), "{:?}", forger.symbols);
    }
    assert!(!unknown.has("R_SPF_FAIL") && !unknown.has("R_SPF_ALLOW"), "{:?}", unknown.symbols);
    assert!((forger.score - hop.score).abs() < 0.01, "a forged hop changes nothing");
    assert!(host.score < unknown.score && unknown.score < forger.score, "the order of the scores");
    assert!(original.score < forger.score - 5.0, "what the true host is worth");
    assert_eq!(
        [&host.action, &forger.action, &hop.action, &unknown.action].map(|action| action == "add header"),
        [false, true, true, false]
    );

    // Octet for octet: our fields, and behind them all that came, without what claims to be the provider's and is not.
    for ((user, _, client, below), delivered) in ROWS.into_iter().zip(&delivered) {
        let expected = match user {
            "hop" => stored(client, &below[..below.find("Authentication-Results").unwrap()]),
            _ => stored(client, below),
        };
        let ours = delivered.strip_suffix(&expected).unwrap_or_else(|| panic!("{user}: {delivered}"));
        assert!(!ours.contains("Authentication-Results"), "{user}: {ours}");
    }
}
