//! Servers as they really are: what they send is delivered octet for octet, or it is said why not, and the others come.

#![allow(clippy::unwrap_used, reason = "a test")]

mod answering;
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use answering::{Answer, asked, fetched, imap, pop3, say};
use common::{Installation, once, sorted, token_mail, with_lf};
use connectord_account::{Protocol, Start};
use connectord_engine::RunError;
use connectord_store::Store;

fn by_uid(mail: Vec<Vec<u8>>) -> Vec<(u32, Vec<u8>)> {
    (1..).zip(mail).collect()
}

fn is_fetch_of(command: &str, uid: u32) -> bool {
    command.starts_with("UID FETCH") && asked(command)(uid)
}

/// Messages with all that is wrong with messages.
fn odd_mail() -> Vec<Vec<u8>> {
    let mut mail: Vec<Vec<u8>> = [
        &b"Subject: bare LF\n\nline\nline\n"[..],
        b"Subject: bare CR\r\rline\rline\r",
        b"Subject: NUL\r\n\r\na\0b\0\0\r\n",
        b"Subject: caf\xe9\r\nFrom: J\xf6rg <j@example.org>\r\n\r\n8 bit: \xff\xfe\x80\r\n",
        b"\r\nno header\r\n",
        b"no header and no empty line\r\n",
        b"Subject: no body\r\n",
        b"Subject: no body but its line\r\n\r\n",
        b"Subject: no final newline\r\n\r\nend",
        b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n",
        b"Subject: responses\r\n\r\n* BYE gone\r\nC5 OK done\r\n)\r\n+OK\r\n-ERR\r\n* 1 FETCH (UID 9 BODY[] {3}\r\nabc)\r\n",
        b"Subject: {12}\r\n\r\nliteral {99999}\r\n~{1}\r\n\"quote\\\r\n",
        b"x",
    ]
    .map(<[u8]>::to_vec)
    .into();
    mail.push([b"Subject: long\r\n\r\n".to_vec(), vec![b'x'; 3_000_000], b"\r\n".to_vec()].concat());
    mail
}

#[tokio::test]
async fn odd_messages_arrive_octet_for_octet() {
    let mail = odd_mail();
    let server = imap(by_uid(mail.clone()), |_| None).await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |_| {});
    here.run_well(&job).await;
    assert_eq!(here.mail("ann"), sorted(mail.iter().map(|message| with_lf(message)).collect()));
    assert_eq!(here.run_well(&job).await.delivered, 0);
    // POP3 cannot say that a last line has no end.
    let complete = |message: &Vec<u8>| match message.ends_with(b"\n") {
        true => message.clone(),
        false => [&message[..], b"\r\n"].concat(),
    };
    let uidls = mail.iter().enumerate().map(|(n, message)| (format!("u{n}").into_bytes(), message.clone()));
    let server = pop3(uidls.collect(), |_| None).await;
    let here = Installation::new();
    let job = here.job(Protocol::Pop3, server.port, |_| {});
    here.run_well(&job).await;
    assert_eq!(here.mail("ann"), sorted(mail.iter().map(|message| with_lf(&complete(message))).collect()));
}

#[tokio::test]
async fn bodies_may_be_quoted_nil_or_literal8_and_come_in_any_order_and_in_pieces() {
    let server = imap(by_uid(vec![b"x".to_vec(); 5]), |command| {
        // Asked for alone after it was NIL: then it is NIL again.
        let answers = "* 5 FETCH (BODY[] {3+}\r\nfiv UID 5)\r\n* 4 FETCH (FLAGS (\\Seen) UID 4)\r\n\
                       * 4 fetch (uid 4 body[] ~{4}\r\nfo\0r)\r\n* 99 FETCH (UID 99 BODY[] {3}\r\nbad)\r\n\
                       * 6 EXISTS\r\n* 9 EXPUNGE\r\n* 3 FETCH (UID 3 BODY[] NIL)\r\n\
                       * 2 FETCH (UID 2 INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" BODY[] \"t\\\"w\\\\o\")\r\n\
                       * 1 FETCH (BODY[HEADER] {2}\r\nno RFC822 \"one\" UID 1)\r\n* X-NEWS {3}\r\n\")(\r\n\
                       * 1 FETCH (UID 1 BODY[] {5}\r\nagain)\r\n{tag} OK FETCH completed\r\n";
        command.starts_with("UID FETCH").then(|| say(answers))
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |_| {});
    let report = here.run_well(&job).await;
    assert_eq!((report.delivered, report.deferred), (4, 1), "one was NIL");
    assert_eq!(here.mail("ann"), sorted([&b"one"[..], b"t\"w\\o", b"fo\0r", b"fiv"].map(<[u8]>::to_vec).into()));
}

#[tokio::test]
async fn a_message_that_is_answered_with_nothing_no_or_bad_waits_and_is_parked_and_the_others_come() {
    // OK and nothing: Exchange. NO for the whole command: Yahoo.
    for answer in ["{tag} OK FETCH completed.\r\n", "{tag} NO [UNAVAILABLE] Server error\r\n", "{tag} BAD what?\r\n"] {
        let server = imap(by_uid(token_mail(4)), move |command| {
            let others: Vec<u8> = token_mail(4)
                .iter()
                .zip(1..)
                .filter(|(_, uid)| *uid != 2 && answer.contains("OK") && is_fetch_of(command, *uid))
                .flat_map(|(message, uid)| fetched(uid, message))
                .collect();
            is_fetch_of(command, 2).then(|| say([&others[..], answer.as_bytes()].concat()))
        })
        .await;
        let here = Installation::new();
        let job = here.job(Protocol::Imap, server.port, |_| {});
        let report = here.run_well(&job).await;
        assert_eq!((report.delivered, report.deferred), (3, 1), "{answer}");
        for _ in 0..10 {
            here.pass(5 * 3600);
            here.run_well(&job).await;
        }
        assert_eq!(here.store.troubled(None, false).await.unwrap().len(), 1, "{answer}");
        assert_eq!(here.mail("ann").len(), 3);
    }
}

#[tokio::test]
async fn a_literal_of_the_wrong_length_delivers_nothing_cut_and_the_others_come() {
    for wrong in ["{3}", "{300000}"] {
        let server = imap(by_uid(token_mail(4)), move |command| {
            let broken =
                format!("* 2 FETCH (UID 2 BODY[] {wrong}\r\nSubject: domino\r\n\r\ntext\r\n)\r\n{{tag}} OK x\r\n");
            is_fetch_of(command, 2).then(|| Answer::Close(broken.into()))
        })
        .await;
        let here = Installation::new();
        let job = here.job(Protocol::Imap, server.port, |_| {});
        for _ in 0..12 {
            here.run(&job).await;
            here.pass(5 * 3600);
        }
        let mut tokens = once(4);
        tokens.remove("1");
        assert_eq!(here.tokens("ann"), tokens, "{wrong}");
        assert_eq!(here.store.troubled(None, false).await.unwrap().len(), 1, "{wrong}");
        assert!(here.run(&job).await.error.is_none(), "{wrong}");
    }
}

#[tokio::test]
async fn uids_may_be_doubled_and_as_high_as_they_get() {
    let mut messages = by_uid(token_mail(3));
    messages[1].0 = 2_147_483_648;
    messages[2].0 = u32::MAX;
    let server = imap(messages, |command| {
        command.starts_with("UID SEARCH").then(|| say("* SEARCH 4294967295 1 2147483648 1 1\r\n{tag} OK x\r\n"))
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |_| {});
    assert_eq!(here.run_well(&job).await.delivered, 3);
    assert_eq!((here.run_well(&job).await.delivered, here.tokens("ann")), (0, once(3)));
}

#[tokio::test]
async fn a_uidvalidity_of_nothing_or_of_milliseconds_is_remembered_like_another() {
    for number in ["0", "1666390893380"] {
        let server = imap(by_uid(token_mail(2)), move |command| {
            let answer = format!("* 2 EXISTS\r\n* OK [UIDVALIDITY {number}] x\r\n{{tag}} OK x\r\n");
            (command.starts_with("EXAMINE") || command.starts_with("SELECT")).then(|| say(answer))
        })
        .await;
        let here = Installation::new();
        let job = here.job(Protocol::Imap, server.port, |_| {});
        assert_eq!(here.run_well(&job).await.delivered, 2, "{number}");
        assert_eq!((here.run_well(&job).await.delivered, here.tokens("ann")), (0, once(2)), "{number}");
    }
}

#[tokio::test]
async fn a_bye_at_any_moment_loses_nothing_and_doubles_nothing() {
    for at in ["", "LOGIN", "SELECT", "UID SEARCH", "UID FETCH", "LOGOUT"] {
        let server = imap(by_uid(token_mail(3)), move |command| {
            let greeting = at.is_empty() && command.is_empty();
            let is_here = greeting || (!at.is_empty() && command.replace("EXAMINE", "SELECT").starts_with(at));
            let some = if at == "UID FETCH" { fetched(1, &token_mail(1)[0]) } else { Vec::new() };
            is_here.then(|| Answer::Close([&some[..], b"* BYE [UNAVAILABLE] going down\r\n"].concat()))
        })
        .await;
        let here = Installation::new();
        let report = here.run(&here.job(Protocol::Imap, server.port, |_| {})).await;
        let well = at == "LOGOUT";
        assert_eq!(report.error.is_none(), well, "{at}: {:?}", report.error);
        if let Some(error) = report.error {
            assert!(error.to_string().contains("going down"), "{at}: {error}");
            assert!(matches!(error.trouble().exit.code(), 69 | 75), "{at}: {error}");
        }
        let server = imap(by_uid(token_mail(3)), |_| None).await;
        here.pass(5 * 3600);
        here.run_well(&here.job(Protocol::Imap, server.port, |_| {})).await;
        assert_eq!(here.tokens("ann"), once(3), "{at}");
    }
}

#[tokio::test]
async fn exchange_lets_in_whom_it_does_not_connect_and_its_words_are_shown() {
    let server = imap(Vec::new(), |command| {
        let is_open = command.starts_with("EXAMINE") || command.starts_with("SELECT");
        is_open.then(|| say("{tag} BAD User is authenticated but not connected.\r\n"))
    })
    .await;
    let here = Installation::new();
    let report = here.run(&here.job(Protocol::Imap, server.port, |_| {})).await;
    let Some(error @ RunError::Mailbox { .. }) = report.error else { panic!("{:?}", report.error) };
    assert!(error.to_string().contains("User is authenticated but not connected"), "{error}");
}

#[tokio::test]
async fn netease_opens_no_mailbox_for_who_does_not_say_who_it_is() {
    let introduced = Arc::new(AtomicUsize::new(0));
    let server = imap(by_uid(token_mail(2)), move |command| {
        if command.starts_with("CAPABILITY") || command.starts_with("LOGIN") {
            return Some(say("{tag} OK [CAPABILITY IMAP4rev1 ID] x\r\n"));
        }
        if command.starts_with("ID (") {
            introduced.fetch_add(1, Ordering::SeqCst);
            return Some(say("* ID (\"name\" \"Coremail\")\r\n{tag} OK ID completed\r\n"));
        }
        let is_open = command.starts_with("EXAMINE") || command.starts_with("SELECT");
        let unsafe_login = "{tag} NO SELECT Unsafe Login. Please contact kefu@188.com for help\r\n";
        (is_open && introduced.load(Ordering::SeqCst) == 0).then(|| say(unsafe_login))
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |_| {});
    assert_eq!(here.run_well(&job).await.delivered, 2);
}

#[tokio::test]
async fn a_renumbering_in_the_middle_of_a_check_ends_it_and_the_next_one_delivers_nothing_twice() {
    let times = Arc::new(AtomicUsize::new(0));
    let server = imap(by_uid(token_mail(3)), move |command| {
        let first = command.starts_with("UID FETCH") && times.fetch_add(1, Ordering::SeqCst) == 0;
        let some =
            [fetched(1, &token_mail(1)[0]), b"* OK [UIDVALIDITY 8] renumbered\r\n{tag} OK x\r\n".to_vec()].concat();
        first.then(|| say(some))
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |_| {});
    let report = here.run(&job).await;
    assert!(report.error.is_some());
    here.pass(5 * 3600);
    here.run_well(&job).await;
    assert_eq!(here.tokens("ann"), once(3));
}

#[tokio::test]
async fn of_a_hundred_thousand_messages_the_new_one_is_retrieved() {
    let listed = Arc::new(AtomicUsize::new(100_000));
    let count = Arc::clone(&listed);
    let mail = token_mail(1).remove(0);
    let server = imap(Vec::new(), move |command| {
        let count = count.load(Ordering::SeqCst);
        if command.starts_with("SELECT") || command.starts_with("EXAMINE") {
            return Some(say(format!("* {count} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n{{tag}} OK x\r\n")));
        }
        if command.starts_with("UID SEARCH") {
            let uids: Vec<_> = (1..=count).map(|n| (2 * n).to_string()).collect();
            return Some(say(format!("* SEARCH {}\r\n{{tag}} OK x\r\n", uids.join(" "))));
        }
        is_fetch_of(command, 200_002).then(|| say([&fetched(200_002, &mail)[..], b"{tag} OK x\r\n"].concat()))
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |account| account.start = Start::FromNowOn);
    assert_eq!(here.run_well(&job).await.delivered, 0);
    listed.store(100_001, Ordering::SeqCst);
    assert_eq!((here.run_well(&job).await.delivered, here.tokens("ann")), (1, once(1)));
}

#[tokio::test]
async fn five_thousand_tiny_messages_arrive_once() {
    let tiny: Vec<Vec<u8>> = (0..5000).map(|n| format!("\r\ntoken-{n} \r\n").into_bytes()).collect();
    let server = imap(by_uid(tiny), |_| None).await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |_| {});
    assert_eq!(here.run_well(&job).await.delivered, 5000);
    assert_eq!(here.tokens("ann"), once(5000));
}

#[tokio::test]
async fn fifty_megabytes_arrive_octet_for_octet_by_each_protocol() {
    let large = [b"Subject: large\r\n\r\n".to_vec(), b"0123456789\r\n".repeat(50_000_000 / 12)].concat();
    for protocol in [Protocol::Imap, Protocol::Pop3] {
        let server = match protocol {
            Protocol::Imap => imap(by_uid(vec![large.clone()]), |_| None).await,
            _ => pop3(vec![(b"u1".to_vec(), large.clone())], |_| None).await,
        };
        let here = Installation::new();
        here.run_well(&here.job(protocol, server.port, |_| {})).await;
        assert!(here.mail("ann") == [with_lf(&large)], "{protocol:?}");
    }
}

#[tokio::test]
async fn unique_ids_of_any_octets_are_remembered() {
    let uidls: [Vec<u8>; 6] = [
        b"a".to_vec(),
        b".".to_vec(),
        b"\xff\xfe\x80".to_vec(),
        vec![b'u'; 1024],
        b"%<>&'\"\\".to_vec(),
        b"-ERR".to_vec(),
    ];
    let messages: Vec<_> = uidls.into_iter().zip(token_mail(6)).collect();
    let server = pop3(messages, |_| None).await;
    let here = Installation::new();
    let job = here.job(Protocol::Pop3, server.port, |_| {});
    assert_eq!(here.run_well(&job).await.delivered, 6);
    assert_eq!((here.run_well(&job).await.delivered, here.tokens("ann")), (0, once(6)));
}

#[tokio::test]
async fn uidl_is_asked_for_although_capa_does_not_list_it() {
    // AOL and Verizon (JPOP, 2018).
    let messages: Vec<_> = [b"u1".to_vec(), b"u2".to_vec()].into_iter().zip(token_mail(2)).collect();
    let server = pop3(messages, |line| {
        (line == "CAPA").then(|| say("+OK CAPA list follows\r\nIMPLEMENTATION jpop-0.1\r\nTOP\r\nUSER\r\n.\r\n"))
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Pop3, server.port, |_| {});
    assert_eq!(here.run_well(&job).await.delivered, 2);
    assert!(server.heard().contains(&"UIDL".to_owned()));
    assert_eq!((here.run_well(&job).await.delivered, here.tokens("ann")), (0, once(2)));
}

#[tokio::test]
async fn a_listing_that_is_refused_for_now_is_no_server_without_unique_ids() {
    // STAT is asked the first time only, and when something is missing.
    for (refused, at) in [("UIDL", 1), ("STAT", 0)] {
        let messages: Vec<_> = [b"u1".to_vec(), b"u2".to_vec()].into_iter().zip(token_mail(2)).collect();
        let asked = AtomicUsize::new(0);
        let server = pop3(messages, move |line| {
            let again = line == refused && asked.fetch_add(1, Ordering::Relaxed) == at;
            again.then(|| say("-ERR [SYS/TEMP] try again later\r\n"))
        })
        .await;
        let here = Installation::new();
        let job = here.job(Protocol::Pop3, server.port, |_| {});
        for _ in 0..at {
            assert_eq!(here.run_well(&job).await.delivered, 2);
        }
        let report = here.run(&job).await;
        assert!(matches!(report.error, Some(RunError::Mailbox { temporary: true, .. })), "{:?}", report.error);
        here.run_well(&job).await;
        assert_eq!((report.retrieved, here.run_well(&job).await.retrieved), (0, 0), "{refused}");
        assert_eq!(here.tokens("ann"), once(2), "{refused}");
    }
}

#[tokio::test]
async fn a_pop3_server_that_ends_its_lines_with_lf_only_is_understood() {
    let server = pop3(Vec::new(), |line| {
        Some(say(match line.split(' ').next().unwrap_or_default() {
            "" => "+OK ready\n",
            "CAPA" => "+OK\nUSER\nUIDL\n.\n",
            "STAT" => "+OK 1 20\n",
            "UIDL" => "+OK\n1 u1\n.\n",
            "LIST" => "+OK\n1 20\n.\n",
            "RETR" => "+OK\nSubject: x\n\n..dot token-0 \n.\n",
            _ => "+OK\n",
        }))
    })
    .await;
    let here = Installation::new();
    here.run_well(&here.job(Protocol::Pop3, server.port, |_| {})).await;
    assert_eq!(here.mail("ann"), [b"Subject: x\n\n.dot token-0 \n".to_vec()]);
}

#[tokio::test]
async fn sizes_that_lie_change_nothing_by_either_protocol() {
    // OpenMail and Exchange round them; Exchange is wrong by a third.
    let messages: Vec<_> = [b"u1".to_vec()].into_iter().zip(token_mail(1)).collect();
    let server = pop3(messages, |line| match line {
        "LIST" => Some(say("+OK\r\n1 1024\r\n.\r\n")),
        "LIST 1" => Some(say("+OK 1 1024\r\n")),
        "RETR 1" => Some(say([b"+OK 99999 octets\r\n", &token_mail(1)[0][..], b".\r\n"].concat())),
        _ => None,
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Pop3, server.port, |account| account.max_message_octets = Some(100_000));
    assert_eq!((here.run_well(&job).await.delivered, here.tokens("ann")), (1, once(1)));
    let server = imap(by_uid(token_mail(1)), |command| {
        let is_size = command.starts_with("UID FETCH") && command.contains("RFC822.SIZE") && !command.contains("BODY");
        is_size.then(|| say("* 1 FETCH (UID 1 RFC822.SIZE 3)\r\n{tag} OK x\r\n"))
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |account| account.max_message_octets = Some(100_000));
    assert_eq!((here.run_well(&job).await.delivered, here.tokens("ann")), (1, once(1)));
}
