//! Servers that mean harm: no credential leaves, memory stays bounded, time ends, and the error says what it was.

#![allow(clippy::unwrap_used, reason = "a test")]

mod answering;
mod common;

use std::time::Duration;

use answering::{Answer, Answering, fetched, imap, pop3, say};
use common::{Installation, once, token_mail};
use connectord_account::{Oversize, Protocol};
use connectord_engine::{Job, Report};
use connectord_store::Store;
use connectord_wire::Security;

/// Ends by itself well before the ten seconds of silence that a job bears, or after them; never later.
async fn run_to_its_end(here: &Installation, job: &Job) -> Report {
    tokio::time::timeout(Duration::from_secs(120), here.run(job)).await.expect("the check ends")
}

/// The check fails, says this, and ends with 69; nothing that was heard has the password in it.
async fn refused(here: &Installation, job: &Job, server: &Answering, says: &str) {
    let report = run_to_its_end(here, job).await;
    let error = report.error.unwrap_or_else(|| panic!("{says}: the check went well"));
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    assert!(text.contains(says), "{says}: {text}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert_eq!(error.trouble().exit.code(), 69, "{text}");
    assert_no_credential(server, says);
}

fn assert_no_credential(server: &Answering, what: &str) {
    // The password, and beginnings of it in base64 at each of the three offsets.
    for line in server.heard() {
        let upper = line.to_ascii_uppercase();
        let verb = |name: &str| upper.split(' ').any(|word| word == name);
        assert!(
            !verb("LOGIN") && !verb("AUTHENTICATE") && !verb("USER") && !verb("PASS") && !verb("AUTH"),
            "{what}: {line}"
        );
        for secret in ["secret", "c2VjcmV0", "NlY3Jld", "zZWNyZX"] {
            assert!(!line.contains(secret), "{what}: {line}");
        }
    }
}

fn with_starttls(account: &mut connectord_account::Account) {
    account.security = Security::StartTls;
}

#[tokio::test]
async fn whoever_takes_tls_away_from_imap_gets_no_credential() {
    const OFFERS: &str = "* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] hi\r\n";
    // The classes of "Why TLS is better without STARTTLS" (2021): greeting, answer to STARTTLS, and what is said.
    let cases: [(&str, &str, &str); 10] = [
        ("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n", "", "STARTTLS is required but the server does not offer it"),
        ("* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] hi\r\n", "", "STARTTLS is required"),
        ("* PREAUTH [CAPABILITY IMAP4rev1] hi\r\n", "", "PREAUTH, which forbids the STARTTLS"),
        ("* BYE [REFERRAL imap://evil.example/] go there\r\n", "", "go there"),
        (OFFERS, "{tag} NO not today\r\n", "STARTTLS refused"),
        (OFFERS, "{tag} BAD what?\r\n", "STARTTLS not understood"),
        (OFFERS, "{tag} NO [REFERRAL imap://evil.example/] go there\r\n", "go there"),
        (OFFERS, "{tag} OK go\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n", "in plaintext after the answer to STARTTLS"),
        (
            OFFERS,
            "{tag} OK go\r\nC2 OK [CAPABILITY IMAP4rev1] you are in\r\n",
            "in plaintext after the answer to STARTTLS",
        ),
        (OFFERS, "* BYE no\r\n", "BYE no"),
    ];
    for (greeting, answer, says) in cases {
        let server = imap(Vec::new(), move |command| match command {
            "" => Some(say(greeting)),
            "STARTTLS" => Some(say(answer)),
            "CAPABILITY" => Some(say("* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n{tag} OK x\r\n")),
            _ => None,
        })
        .await;
        let here = Installation::new();
        let job = here.job(Protocol::Imap, server.port, with_starttls);
        refused(&here, &job, &server, says).await;
    }
}

#[tokio::test]
async fn whoever_takes_tls_away_from_pop3_gets_no_credential() {
    let cases: [(&str, &str, &str); 5] = [
        ("+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n", "", "STLS"),
        ("+OK\r\nSTLS\r\n.\r\n", "-ERR not now\r\n", "not now"),
        ("-ERR what?\r\n", "-ERR what?\r\n", "what?"),
        ("+OK\r\nSTLS\r\n.\r\n", "+OK go\r\n+OK\r\nUSER\r\n.\r\n", "plaintext"),
        ("+OK\r\nSTLS\r\n.\r\n", "+OK go\r\n+", "plaintext"),
    ];
    for (capabilities, answer, says) in cases {
        let server = pop3(Vec::new(), move |line| match line {
            "CAPA" => Some(say(capabilities)),
            "STLS" => Some(say(answer)),
            _ => None,
        })
        .await;
        let here = Installation::new();
        let job = here.job(Protocol::Pop3, server.port, with_starttls);
        refused(&here, &job, &server, says).await;
    }
}

#[tokio::test]
async fn tls_below_1_2_is_not_spoken() {
    // A ServerHello of TLS 1.1 (RFC 4346 §7.4.1.3), and the alert of a server that has nothing newer (§7.2).
    let hello = [&b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02"[..], &[7; 32], b"\x00\x00\x2f\x00"].concat();
    for answer in [hello, b"\x15\x03\x02\x00\x02\x02\x46".to_vec()] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; 5];
            stream.read_exact(&mut heard).await.unwrap();
            stream.write_all(&answer).await.unwrap();
            let _ = stream.read_to_end(&mut heard).await;
            heard
        });
        let here = Installation::new();
        let job = here.job(Protocol::Imap, port, |account| account.security = Security::Tls);
        let error = run_to_its_end(&here, &job).await.error.unwrap();
        let trouble = error.trouble();
        assert_eq!((trouble.exit.code(), trouble.cause.code()), (69, "tls"), "{error}");
        let heard = server.await.unwrap();
        assert!(!heard.windows(6).any(|window| window == b"secret"));
    }
}

#[tokio::test]
async fn a_server_that_knows_us_before_we_say_who_we_are_is_not_believed() {
    let server =
        imap(by_uid(1), |command| command.is_empty().then(|| say("* PREAUTH [CAPABILITY IMAP4rev1] hi\r\n"))).await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |_| {});
    refused(&here, &job, &server, "PREAUTH").await;
    assert_eq!(here.files("ann").len(), 0);
}

fn by_uid(count: usize) -> Vec<(u32, Vec<u8>)> {
    (1..).zip(token_mail(count)).collect()
}

#[tokio::test]
async fn endless_lines_lists_and_responses_end_with_an_error_at_each_place_of_imap() {
    let endless: [(&str, &[u8]); 5] = [
        ("line", b"* xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("responses", b"* OK still here\r\n* 3 EXISTS\r\n"),
        ("capabilities", b"* CAPABILITY IMAP4rev1 X1 X2\r\n"),
        ("searches", b"* SEARCH\r\n"),
        ("parentheses", b"* LIST ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((\r\n"),
    ];
    for (what, octets) in endless {
        for place in ["CAPABILITY", "LOGIN", "EXAMINE", "UID SEARCH", "UID FETCH"] {
            if what == "searches" && place == "CAPABILITY" {
                continue;
            }
            let server = imap(by_uid(1), move |command| match command {
                "" => Some(say("* OK hi\r\n")),
                _ if command.replace("SELECT", "EXAMINE").starts_with(place) => Some(Answer::Flood(octets.to_vec())),
                _ => None,
            })
            .await;
            let here = Installation::new();
            let report = run_to_its_end(&here, &here.job(Protocol::Imap, server.port, |_| {})).await;
            let error = report.error.unwrap_or_else(|| panic!("{what} at {place}"));
            assert_eq!(error.trouble().exit.code(), 69, "{what} at {place}: {error}");
            assert_eq!(here.files("ann").len(), 0);
        }
    }
}

#[tokio::test]
async fn endless_lines_and_lists_end_with_an_error_at_each_place_of_pop3() {
    let cases: [(&str, &[u8]); 6] = [
        ("", b"+OK xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("CAPA", b"+OK\r\nX-MORE\r\n"),
        ("USER", b"+OK xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("PASS", b"\r\n\r\n\r\n\r\n"),
        ("UIDL", b"+OK xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("RETR", b"+OK xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ];
    for (place, octets) in cases {
        let messages = vec![(b"u1".to_vec(), token_mail(1).remove(0))];
        let server = pop3(messages, move |line| {
            let is_here = line.split(' ').next() == Some(place);
            is_here.then(|| Answer::Flood(octets.to_vec()))
        })
        .await;
        let here = Installation::new();
        let report = run_to_its_end(&here, &here.job(Protocol::Pop3, server.port, |_| {})).await;
        let error = report.error.unwrap_or_else(|| panic!("at {place:?}"));
        assert_eq!(error.trouble().exit.code(), 69, "at {place:?}: {error}");
        assert_eq!(here.files("ann").len(), 0);
    }
}

#[tokio::test]
async fn a_literal_of_gigabytes_costs_no_memory_and_is_parked_where_there_is_a_limit() {
    for octets in [2_147_483_648u64, 4_294_967_296] {
        let server = imap(by_uid(1), move |command| {
            let body = format!("* 1 FETCH (UID 1 BODY[] {{{octets}}}\r\nSubject: huge\r\n\r\nand then nothing");
            let is_whole = command.starts_with("UID FETCH") && command.contains("BODY.PEEK[]");
            is_whole.then(|| Answer::Close(body.into()))
        })
        .await;
        let here = Installation::new();
        let before = resident_octets();
        let report = run_to_its_end(&here, &here.job(Protocol::Imap, server.port, |_| {})).await;
        assert!(report.error.is_some() && here.files("ann").is_empty());
        assert!(resident_octets() < before + (64 << 20), "{octets} octets were announced");
    }
    // Announced as large, it is parked without being asked for.
    let server = imap(by_uid(2), |command| {
        let sizes = "* 1 FETCH (UID 1 RFC822.SIZE 4294967296)\r\n* 2 FETCH (UID 2 RFC822.SIZE 99)\r\n{tag} OK x\r\n";
        (command.starts_with("UID FETCH") && command.contains("RFC822.SIZE")).then(|| say(sizes))
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |account| {
        account.max_message_octets = Some(1 << 20);
        account.oversize = Oversize::Park;
    });
    let report = run_to_its_end(&here, &job).await;
    assert_eq!((report.error.is_none(), report.delivered, report.parked), (true, 1, 1));
}

#[tokio::test]
async fn an_endless_message_ends_at_the_limit_of_its_account() {
    for protocol in [Protocol::Pop3, Protocol::Imap] {
        let flood = b"0123456789012345678901234567890123456789\r\n".repeat(1000);
        let server = match protocol {
            Protocol::Pop3 => {
                pop3(vec![(b"u1".to_vec(), b"x".to_vec())], move |line| {
                    let octets = [b"+OK\r\n", &flood[..]].concat();
                    (line == "RETR 1").then_some(Answer::Flood(octets))
                })
                .await
            }
            _ => {
                imap(by_uid(1), move |command| {
                    let start = b"* 1 FETCH (UID 1 BODY[] {18446744073709551614}\r\n";
                    let is_whole = command.starts_with("UID FETCH") && command.contains("BODY.PEEK[]");
                    is_whole.then(|| Answer::Flood([&start[..], &flood].concat()))
                })
                .await
            }
        };
        let here = Installation::new();
        let mut job = here.job(protocol, server.port, |account| account.max_message_octets = Some(1 << 20));
        // A server may send what nobody keeps as long as the connection may live.
        job.route.timeouts.session = Some(Duration::from_secs(3));
        let before = resident_octets();
        let report = run_to_its_end(&here, &job).await;
        assert!(report.error.is_some(), "{protocol:?}");
        assert!(here.files("ann").is_empty() && resident_octets() < before + (64 << 20), "{protocol:?}");
    }
}

#[tokio::test]
async fn an_octet_a_second_and_lines_for_ever_come_to_an_end() {
    // Octets that never become an answer, slower than the slowest honest server.
    let drips = imap(by_uid(1), |command| match command {
        "" => Some(say("* OK hi\r\n")),
        _ => Some(say("*")),
    })
    .await;
    let here = Installation::new();
    let mut job = here.job(Protocol::Imap, drips.port, |_| {});
    job.route.timeouts.silence = Duration::from_secs(1);
    assert!(run_to_its_end(&here, &job).await.error.is_some());
    // Lines that keep the connection alive: the connection's longest life ends them.
    let chatters = imap(by_uid(1), |command| {
        command.starts_with("UID SEARCH").then(|| Answer::Flood(b"* OK still here\r\n+ idling\r\n".to_vec()))
    })
    .await;
    let here = Installation::new();
    let mut job = here.job(Protocol::Imap, chatters.port, |_| {});
    job.route.timeouts.session = Some(Duration::from_secs(5));
    assert!(run_to_its_end(&here, &job).await.error.is_some());
}

#[tokio::test]
async fn numbers_of_any_length_and_sign_do_no_harm() {
    for number in
        ["-1", "0", "+7", "4294967296", "18446744073709551616", "99999999999999999999999999", "1e9", "0x10", ""]
    {
        let server = imap(by_uid(2), move |command| {
            if command.starts_with("SELECT") || command.starts_with("EXAMINE") {
                let answer = format!(
                    "* {number} EXISTS\r\n* {number} RECENT\r\n* {number} EXPUNGE\r\n* OK [UIDVALIDITY 7] x\r\n\
                     * OK [UIDNEXT {number}] x\r\n* OK [UNSEEN {number}] x\r\n* OK [HIGHESTMODSEQ {number}] x\r\n{{tag}} OK x\r\n"
                );
                return Some(say(answer));
            }
            let is_size = command.starts_with("UID FETCH") && command.contains("RFC822.SIZE");
            is_size.then(|| say(format!("* 1 FETCH (UID 1 RFC822.SIZE {number})\r\n{{tag}} OK x\r\n")))
        })
        .await;
        let here = Installation::new();
        let job = here.job(Protocol::Imap, server.port, |_| {});
        let report = run_to_its_end(&here, &job).await;
        assert!(report.error.is_none(), "{number}: {:?}", report.error);
        assert_eq!(here.tokens("ann"), once(2), "{number}");
        // A search that lies is an error; nothing comes of it.
        let lies = imap(by_uid(2), move |command| {
            let answer = format!("* SEARCH 1 {number}x\r\n{{tag}} OK x\r\n");
            command.starts_with("UID SEARCH").then(|| say(answer))
        })
        .await;
        let here = Installation::new();
        assert!(run_to_its_end(&here, &here.job(Protocol::Imap, lies.port, |_| {})).await.error.is_some(), "{number}");
    }
}

#[tokio::test]
async fn what_a_server_says_is_inert_in_errors_reasons_and_file_names() {
    const EVIL: &str = "\x1b]0;owned\x07\x1b[2J\u{202e}\u{2028}login ok\r fake=1 ../../etc/passwd \"";
    let greets = imap(Vec::new(), |command| command.is_empty().then(|| say(format!("* BYE {EVIL}\r\n")))).await;
    let here = Installation::new();
    let error = here.run(&here.job(Protocol::Imap, greets.port, |_| {})).await.error.unwrap().to_string();
    assert!(
        error.contains("owned") && !error.chars().any(|c| c.is_control() || c == '\u{202e}' || c == '\u{2028}'),
        "{error:?}"
    );
    // A unique-id is part of no file name, and a refusal is shown escaped.
    let server = pop3(vec![(b"../../../../tmp/evil\x80".to_vec(), token_mail(1).remove(0))], |line| {
        (line == "RETR 1").then(|| say(format!("-ERR {EVIL}\r\n")))
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Pop3, server.port, |_| {});
    for _ in 0..12 {
        here.run(&job).await;
        here.pass(5 * 3600);
    }
    let parked = here.store.troubled(None, false).await.unwrap();
    assert_eq!(parked.len(), 1);
    let shown = format!("{:?}", parked[0]);
    assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
    let server = pop3(vec![(b"../../../../tmp/evil\x80".to_vec(), token_mail(1).remove(0))], |_| None).await;
    let here = Installation::new();
    here.run_well(&here.job(Protocol::Pop3, server.port, |_| {})).await;
    let names: Vec<_> = here.files("ann").iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 1);
    assert!(!names[0].to_string_lossy().contains("evil"));
}

#[tokio::test]
async fn answers_to_other_questions_end_pop3() {
    for (place, answer) in
        [("STAT", "+OK two\r\n"), ("UIDL", "+ what?\r\n"), ("UIDL", "* OK imap\r\n"), ("RETR", "250 smtp\r\n")]
    {
        let server = pop3(vec![(b"u1".to_vec(), b"x".to_vec())], move |line| {
            (line.split(' ').next() == Some(place)).then(|| say(answer))
        })
        .await;
        let here = Installation::new();
        let report = run_to_its_end(&here, &here.job(Protocol::Pop3, server.port, |_| {})).await;
        assert!(report.error.is_some() && here.files("ann").is_empty(), "{place} {answer:?}");
    }
}

#[tokio::test]
async fn one_body_pushed_again_and_again_is_delivered_once() {
    let server = imap(by_uid(1), |command| {
        let body = fetched(1, &token_mail(1)[0]);
        let answer = [body.repeat(1000), b"{tag} OK x\r\n".to_vec()].concat();
        command.starts_with("UID FETCH").then(|| say(answer))
    })
    .await;
    let here = Installation::new();
    run_to_its_end(&here, &here.job(Protocol::Imap, server.port, |_| {})).await;
    assert_eq!(here.tokens("ann"), once(1));
}

/// What this process has in memory now.
fn resident_octets() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}
