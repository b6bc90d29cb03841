//! The program against servers that mean harm: it ends by itself, with 69 or what fits, says why in words that do nothing
//! to a terminal, and never has more than 200 MiB.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Installation, Outcome, account};

/// Most memory, in KiB, whatever comes.
const MOST: u64 = 200 * 1024;

/// Turns text, clears the screen, forges a line.
const EVIL: &str = "\x1b]0;owned\x07\x1b[2J\u{202e}\u{2028}\u{9b}31m ok\r level=info fake=1 ../../etc/passwd \"";

/// What a server does at a line.
#[derive(Clone)]
enum Answer {
    Say(Vec<u8>),
    /// And the connection ends.
    Close(Vec<u8>),
    /// The first once, the second until the client has gone.
    Flood(Vec<u8>, Vec<u8>),
    /// The first once, then what this makes of 1, 2, 3 and so on.
    Count(Vec<u8>, fn(u64) -> String),
    /// The same, with a pause before each.
    Drip(Vec<u8>, Duration),
}

fn say(text: impl AsRef<[u8]>) -> Answer {
    Answer::Say(text.as_ref().to_vec())
}

fn flood(once: &str, again: impl AsRef<[u8]>) -> Answer {
    // Many at once: it is the client that is tried.
    let again = again.as_ref();
    Answer::Flood(once.into(), again.repeat((64 << 10) / again.len() + 1))
}

/// Listens as long as the test runs; `""` is asked for the greeting.
fn serve(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.unwrap(), Arc::clone(&answer));
            std::thread::spawn(move || converse(stream, &*answer));
        }
    });
    port
}

fn converse(mut stream: TcpStream, answer: &dyn Fn(&str) -> Answer) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    loop {
        let (tag, command) = match line.trim_end().split_once(' ') {
            Some((tag, command)) if tag.starts_with('C') => (tag, command),
            _ => ("", line.trim_end()),
        };
        let tagged = |octets: Vec<u8>| String::from_utf8(octets).map(|text| text.replace("{tag}", tag).into_bytes());
        match answer(command) {
            Answer::Say(octets) => stream.write_all(&tagged(octets.clone()).unwrap_or(octets))?,
            Answer::Close(octets) => return stream.write_all(&tagged(octets.clone()).unwrap_or(octets)),
            Answer::Flood(once, again) => {
                stream.write_all(&once)?;
                loop {
                    stream.write_all(&again)?;
                }
            }
            Answer::Count(once, of) => {
                stream.write_all(&once)?;
                for thousand in 0.. {
                    let piece: String = (1..=1000).map(|n| of(1000 * thousand + n)).collect();
                    stream.write_all(piece.as_bytes())?;
                }
            }
            Answer::Drip(octets, pause) => loop {
                std::thread::sleep(pause);
                stream.write_all(&octets)?;
            },
        }
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
    }
}

/// An IMAP server with one message, but for what `odd` says.
fn imap(odd: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) -> u16 {
    serve(move |command| {
        odd(command).unwrap_or_else(|| {
            say(match command.split(' ').take(2).collect::<Vec<_>>()[..] {
                [""] => "* OK [CAPABILITY IMAP4rev1] ready\r\n",
                ["CAPABILITY"] => "* CAPABILITY IMAP4rev1\r\n{tag} OK done\r\n",
                ["SELECT" | "EXAMINE", _] => "* 1 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n{tag} OK done\r\n",
                ["LIST", _] => "* LIST () \"/\" INBOX\r\n{tag} OK done\r\n",
                ["UID", "SEARCH"] => "* SEARCH 1\r\n{tag} OK done\r\n",
                ["UID", "FETCH"] => "* 1 FETCH (UID 1 BODY[] {6}\r\nA: b\r\n)\r\n{tag} OK done\r\n",
                _ => "{tag} OK done\r\n",
            })
        })
    })
}

/// A POP3 server with one message, but for what `odd` says.
fn pop3(odd: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) -> u16 {
    serve(move |line| {
        odd(line).unwrap_or_else(|| {
            say(match line.split(' ').next().unwrap_or_default() {
                "CAPA" | "TOP" => "-ERR what?\r\n",
                "STAT" => "+OK 1 6\r\n",
                "UIDL" => "+OK\r\n1 u1\r\n.\r\n",
                "LIST" => "+OK\r\n1 6\r\n.\r\n",
                "RETR" => "+OK\r\nA: b\r\n.\r\n",
                _ => "+OK\r\n",
            })
        })
    })
}

/// At commands that start so.
fn at(place: &'static str, answer: Answer) -> impl Fn(&str) -> Option<Answer> + Send + Sync + 'static {
    move |command| {
        let is_here = if place.is_empty() { command.is_empty() } else { command.starts_with(place) };
        is_here.then(|| answer.clone())
    }
}

/// Runs the program with short waits, as JSON and as a table; each must end within the patience of [`Outcome`].
fn fetch(protocol: &str, port: u16, what: &str) -> Outcome {
    let here = Installation::new();
    let timeouts = "[timeouts]\nsilence = \"2s\"\nrate_window = \"2s\"\nsession = \"10s\"\n";
    let path = here.path("mail/{user}/Maildir");
    let delivery = format!("[delivery]\ntype = \"maildir\"\npath = \"{}\"\n", path.display());
    let account = format!("{}folders = [\"*\"]\nmax_message_size = \"1 MiB\"\n", account(protocol, "none", port));
    let account = if protocol == "pop3" { account.replace("folders = [\"*\"]\n", "") } else { account };
    here.configure_with(&format!("{timeouts}{delivery}"), &account);
    let (shown, outcome) = (here.run(&["fetch"]), here.fetch());
    for outcome in [&shown, &outcome] {
        assert!(outcome.peak_kib < MOST, "{what}: {} KiB\n{outcome}", outcome.peak_kib);
        for text in [&outcome.stdout, &outcome.stderr] {
            let harmful = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202e}' | '\u{2028}'));
            assert!(!text.contains(harmful), "{what}: {text:?}");
            assert!(text.len() < 64 << 10, "{what}: {} octets are said", text.len());
        }
    }
    assert!(here.files("ann").is_empty(), "{what}");
    println!("{what}: {} KiB, {:?}", outcome.peak_kib, outcome.duration);
    outcome
}

/// It ends with 69, and no message was taken for one.
fn must_fail(protocol: &str, port: u16, what: &str) {
    let outcome = fetch(protocol, port, what);
    assert_eq!(outcome.code, Some(69), "{what}: {outcome}");
}

#[test]
fn what_never_ends_over_imap_ends_in_bounded_memory() {
    let attacks: [(&str, &'static str, Answer); 14] = [
        ("a greeting", "", flood("", "x")),
        ("a line", "SELECT", flood("* OK ", "x")),
        ("a quoted string", "LIST", flood("* LIST () \"/\" \"", "x")),
        ("a listing", "LIST", flood("", "* LIST (\\HasNoChildren) \"/\" \"some mailbox\"\r\n")),
        ("responses", "UID SEARCH", flood("", "* OK still here\r\n")),
        ("capabilities", "LOGIN", flood("* CAPABILITY IMAP4rev1", " X-MORE")),
        ("numbers", "SELECT", flood("* ", "9")),
        ("a search", "UID SEARCH", flood("* SEARCH", " 1")),
        ("other UIDs", "UID SEARCH", Answer::Count(b"* SEARCH".into(), |n| format!(" {}", 2 * n))),
        ("answers", "UID FETCH", flood("", "* 1 FETCH (UID 9 FLAGS (\\Seen))\r\n")),
        ("attributes", "UID FETCH", flood("* 1 FETCH (UID 1", " X-MORE 1")),
        ("literals", "UID FETCH", flood("* 1 FETCH (UID 1", " X-MORE {1}\r\nx")),
        ("parentheses", "UID FETCH", flood("* 1 FETCH ", "(")),
        ("a message", "UID FETCH", flood("* 1 FETCH (UID 1 BODY[] {18446744073709551614}\r\n", "0123456789\r\n")),
    ];
    for (what, place, answer) in attacks {
        must_fail("imap", imap(at(place, answer)), what);
    }
}

#[test]
fn what_never_ends_over_pop3_ends_in_bounded_memory() {
    let attacks: [(&str, &'static str, Answer); 8] = [
        ("a greeting", "", flood("+OK ", "x")),
        ("capabilities", "CAPA", flood("+OK\r\n", "X-MORE\r\n")),
        ("empty lines", "PASS", flood("", "\r\n")),
        ("a count", "STAT", flood("+OK ", "9")),
        ("a unique-id", "UIDL", flood("+OK\r\n1 ", "x")),
        ("other unique-ids", "UIDL", Answer::Count(b"+OK\r\n".into(), |n| format!("{n} uid-{n}\r\n"))),
        ("the same line of a listing", "UIDL", flood("+OK\r\n", "1 u1\r\n")),
        ("a message", "RETR", flood("+OK\r\n", "0123456789\r\n")),
    ];
    for (what, place, answer) in attacks {
        must_fail("pop3", pop3(at(place, answer)), what);
    }
}

#[test]
fn what_is_only_announced_costs_no_memory() {
    for octets in ["2147483648", "4294967296", "18446744073709551615", "99999999999999999999"] {
        let body = format!("* 1 FETCH (UID 1 BODY[] {{{octets}}}\r\nSubject: huge\r\n\r\nand then nothing");
        let name = format!("* LIST () \"/\" {{{octets}}}\r\nINBOX\r\n");
        for (place, answer) in [("UID FETCH", body), ("LIST", name)] {
            let what = format!("{octets} octets at {place}");
            let outcome = fetch("imap", imap(at(place, Answer::Close(answer.into()))), &what);
            assert!(outcome.code.is_some_and(|code| code != 0), "{what}: {outcome}");
        }
    }
}

#[test]
fn who_speaks_slowly_or_of_nothing_is_left_in_the_end() {
    let pause = Duration::from_millis(500);
    must_fail("imap", imap(at("", Answer::Drip(b"*".into(), pause))), "an octet now and then, as the greeting");
    must_fail("imap", imap(at("UID FETCH", Answer::Drip(b" ".into(), pause))), "an octet now and then");
    must_fail("imap", imap(at("SELECT", Answer::Drip(b"* OK still here\r\n".into(), pause))), "a line now and then");
    must_fail("pop3", pop3(at("UIDL", Answer::Drip(b"+".into(), pause))), "an octet now and then over POP3");
}

#[test]
fn what_a_server_says_does_nothing_to_a_terminal_a_table_or_a_log() {
    for place in ["", "LOGIN", "LIST", "SELECT", "UID SEARCH", "UID FETCH"] {
        let tag = if place.is_empty() { "*" } else { "{tag}" };
        for verb in ["NO", "BAD", "BYE"] {
            let line = format!("{} {verb} [ALERT] {EVIL}\r\n", if verb == "BYE" { "*" } else { tag });
            let outcome = fetch("imap", imap(at(place, Answer::Close(line.into()))), &format!("{verb} at {place:?}"));
            assert_ne!(outcome.code, Some(0), "{outcome}");
        }
    }
    for place in ["", "PASS", "UIDL", "STAT", "RETR"] {
        let line = format!("-ERR [AUTH] {EVIL}\r\n");
        let outcome = fetch("pop3", pop3(at(place, Answer::Close(line.into()))), &format!("-ERR at {place:?}"));
        assert_ne!(outcome.code, Some(0), "{outcome}");
    }
}

#[test]
fn a_maildrop_of_millions_is_taken_in_parts() {
    // Without unique-ids a number is enough to say so; with them, a listing that ends.
    let counted = |line: &str| match line.split(' ').next() {
        Some("STAT") => Some(say("+OK 9999999 6\r\n")),
        Some("UIDL") => Some(say("-ERR what?\r\n")),
        Some("RETR") => Some(Answer::Close(b"-ERR gone\r\n".into())),
        _ => None,
    };
    must_fail("pop3", pop3(counted), "ten million messages, by STAT");
    let listing: String = (1..=400_000).map(|n| format!("{n} uid-{n}\r\n")).collect();
    let listed = move |line: &str| match line.split(' ').next() {
        Some("STAT") => Some(say("+OK 400000 6\r\n")),
        Some("UIDL") => Some(say(format!("+OK\r\n{listing}.\r\n"))),
        Some("RETR") => Some(Answer::Close(b"-ERR gone\r\n".into())),
        _ => None,
    };
    let outcome = fetch("pop3", pop3(listed), "a listing of 400,000 messages");
    assert!(outcome.code.is_some_and(|code| code != 0), "{outcome}");
}

/// Most are too large and skipped without being retrieved, which is what makes this quick.
#[test]
fn more_messages_than_one_session_deals_with_are_dealt_with_in_several() {
    const MESSAGES: u32 = 230_000;
    let is_small = |number: u32| number.is_multiple_of(23_000);
    let uids: String = (1..=MESSAGES).map(|n| format!("{n} uid-{n}\r\n")).collect();
    let sizes: String =
        (1..=MESSAGES).map(|n| format!("{n} {}\r\n", if is_small(n) { 6 } else { 9_999_999 })).collect();
    let heard = Arc::new(Mutex::new(Vec::<String>::new()));
    let hears = Arc::clone(&heard);
    let port = pop3(move |line| {
        let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
        hears.lock().unwrap().push(command.to_owned());
        let number = argument.parse().unwrap_or(0);
        match command {
            "STAT" => Some(say(format!("+OK {MESSAGES} 6\r\n"))),
            "UIDL" => Some(say(format!("+OK\r\n{uids}.\r\n"))),
            "LIST" if argument.is_empty() => Some(say(format!("+OK\r\n{sizes}.\r\n"))),
            "RETR" => {
                assert!(is_small(number), "{line}");
                Some(say(format!("+OK\r\nMessage-ID: <{number}@x>\r\n\r\n{number}\r\n.\r\n")))
            }
            _ => None,
        }
    });
    let here = Installation::new();
    let account = account("pop3", "none", port);
    here.configure(&format!("{account}max_message_size = \"1 MiB\"\noversize = \"skip\"\n"));
    for (check, sessions) in [(1, 2), (2, 1)] {
        let outcome = here.fetch_well();
        assert!(outcome.peak_kib < MOST, "check {check}: {} KiB\n{outcome}", outcome.peak_kib);
        println!("check {check}: {} KiB, {:?}", outcome.peak_kib, outcome.duration);
        let commands = std::mem::take(&mut *heard.lock().unwrap());
        let count = |name: &str| commands.iter().filter(|command| *command == name).count();
        assert_eq!((count("QUIT"), count("UIDL")), (sessions, sessions), "check {check}");
        assert_eq!(count("RETR"), if check == 1 { 10 } else { 0 }, "check {check}");
        assert!(commands.len() < 100, "check {check}: {} commands", commands.len());
        assert_eq!(here.files("ann").len(), 10, "check {check}");
    }
}
