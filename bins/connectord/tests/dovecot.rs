//! The program retrieves from a real Dovecot in every way it can, and delivers in every way it can.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use common::{Installation, Sums, Trace, account, arrived, at_dovecot, dovecot_account};
use connectord_testkit::{Certificates, Dovecot, DovecotOptions, Message, Script, ScriptServer, Service, corpus};

fn ann() -> DovecotOptions {
    DovecotOptions::new().user("ann", "secret")
}

/// Services, what the account says about them, and whether the line is encrypted.
const WAYS: [(Service, &str, &str); 6] = [
    (Service::Pop3, "pop3", "none"),
    (Service::Pop3, "pop3", "starttls"),
    (Service::Pop3s, "pop3", "tls"),
    (Service::Imap, "imap", "none"),
    (Service::Imap, "imap", "starttls"),
    (Service::Imaps, "imap", "tls"),
];

#[test]
fn every_octet_arrives_by_each_protocol_with_and_without_encryption_and_a_second_run_fetches_nothing() {
    let dovecot = Dovecot::start(ann());
    dovecot.seed("ann", "INBOX", &corpus::messages(50, 1));
    for (service, protocol, security) in WAYS {
        let here = Installation::trusting(dovecot.certificates());
        here.configure(&account(protocol, security, dovecot.port(service)));
        let what = format!("{protocol} with {security}");
        let first = here.fetch_well();
        assert_eq!(first.counts(), (50, 50, 0), "{what}: {first}");
        here.mail("ann").must_equal(&at_dovecot(&dovecot, service, "ann", "INBOX"), &what);
        let second = here.fetch_well();
        assert_eq!(second.counts(), (0, 0, 0), "{what}: {second}");
        assert_eq!((second.number("listed"), here.files("ann").len()), (50, 50), "{what}");
    }
    assert_eq!(dovecot.messages("ann", "INBOX").len(), 50);
}

#[test]
fn imap_leaves_unread_mail_unread_and_gives_files_the_date_of_arrival() {
    let dovecot = Dovecot::start(ann());
    let messages = corpus::messages(3, 2);
    dovecot.seed("ann", "INBOX", &messages);
    let here = Installation::trusting(dovecot.certificates());
    here.configure(&dovecot_account(&dovecot, Service::Imaps));
    here.fetch_well();
    assert_eq!(dovecot.doveadm(&["search", "-u", "ann", "mailbox", "INBOX", "seen"]), "");
    let mut times: Vec<SystemTime> =
        here.files("ann").iter().map(|file| file.metadata().unwrap().modified().unwrap()).collect();
    times.sort();
    assert_eq!(times, messages.iter().map(|message| message.received).collect::<Vec<_>>());
}

#[test]
fn our_fields_stand_in_front_and_name_the_sender_the_recipient_and_the_way() {
    let dovecot = Dovecot::start(ann());
    dovecot.seed("ann", "INBOX", &[Message::new("Return-Path: <ben@example.net>\nSubject: x\n\nbody\n")]);
    let here = Installation::trusting(dovecot.certificates());
    here.configure(&dovecot_account(&dovecot, Service::Imaps));
    here.fetch_well();
    let message = std::fs::read(&here.files("ann")[0]).unwrap();
    let (trace, rest) = Trace::split(&message);
    assert_eq!(
        (trace.return_path.as_deref(), trace.delivered_to.as_deref(), trace.account.as_str(), trace.attempt),
        (Some("<ben@example.net>"), Some("ann"), "ann@example.org", None)
    );
    assert!(trace.received.starts_with("from 127.0.0.1 by "), "{}", trace.received);
    assert!(trace.received.contains(" with IMAPS (connectord, account ann@example.org) id "), "{}", trace.received);
    assert_eq!(rest, b"Return-Path: <ben@example.net>\nSubject: x\n\nbody\n");
    let name = here.files("ann")[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.contains(&format!(",S={}", message.len())) && name.contains(",W="), "{name}");
}

#[test]
fn names_and_passwords_may_be_any_utf8() {
    let (name, password) = ("j\u{f6}rg\u{20ac}", "p\u{e4}\"s\\s w\u{f6}rd\u{20ac}");
    let dovecot = Dovecot::start(DovecotOptions::new().user(name, password));
    dovecot.seed(name, "INBOX", &corpus::messages(1, 1));
    for mechanism in ["", "PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"] {
        for (service, protocol, security) in WAYS {
            let here = Installation::trusting(dovecot.certificates());
            let file = here.path("password");
            std::fs::write(&file, format!("{password}\n")).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
            let account = account(protocol, security, dovecot.port(service))
                .replace("username = \"ann\"", &format!("username = \"{name}\""))
                .replace("password = \"secret\"", &format!("password_file = \"{}\"", file.display()));
            let mechanisms =
                if mechanism.is_empty() { String::new() } else { format!("mechanisms = [\"{mechanism}\"]\n") };
            here.configure(&format!("{account}{mechanisms}"));
            let outcome = here.fetch();
            assert_eq!(outcome.code, Some(0), "{mechanism} by {protocol} with {security}: {outcome}");
            assert_eq!(outcome.counts(), (1, 1, 0), "{mechanism} by {protocol} with {security}: {outcome}");
        }
    }
    let log = dovecot.log();
    for mechanism in ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"] {
        assert!(log.contains(&format!("method={mechanism},")), "{mechanism} was not used:\n{log}");
    }
}

#[test]
fn a_program_may_print_the_password() {
    let dovecot = Dovecot::start(ann());
    dovecot.seed("ann", "INBOX", &corpus::messages(1, 1));
    let here = Installation::trusting(dovecot.certificates());
    let from_program = "password_command = [\"/usr/bin/printf\", \"secret\"]";
    here.configure(&dovecot_account(&dovecot, Service::Imaps).replace("password = \"secret\"", from_program));
    assert_eq!(here.fetch_well().counts(), (1, 1, 0));
}

#[test]
fn mailboxes_are_named_by_name_pattern_and_role() {
    let dovecot = Dovecot::start(ann());
    let mailboxes =
        ["INBOX", "Work/2024", "Work/Gr\u{fc}\u{df}e \u{53f0}\u{5317}", "Tom & Jerry", "Junk", "Other", "Trash"];
    for (n, mailbox) in mailboxes.iter().enumerate() {
        dovecot.seed("ann", mailbox, &[common::light(n)]);
    }
    let here = Installation::trusting(dovecot.certificates());
    let folders = "folders = [\"INBOX\", \"Work/*\", \"Tom & Jerry\", \"\\\\Junk\"]\n";
    here.configure(&format!("{}{folders}", dovecot_account(&dovecot, Service::Imaps)));
    let outcome = here.fetch_well();
    assert_eq!(outcome.counts(), (5, 5, 0), "{outcome}");
    let wanted = mailboxes[..5].iter().map(|mailbox| dovecot.messages("ann", mailbox).remove(0));
    here.mail("ann").must_equal(&Sums::of(wanted.map(|octets| arrived(&dovecot, Service::Imaps, &octets))), "folders");
    assert_eq!(here.fetch_well().counts(), (0, 0, 0));
    // A mailbox that is not there is told, and the others are checked all the same.
    dovecot.seed("ann", "INBOX", &[common::light(9)]);
    here.configure(&format!("{}folders = [\"Nowhere\", \"INBOX\"]\n", dovecot_account(&dovecot, Service::Imaps)));
    let outcome = here.fetch();
    assert_eq!((outcome.code, outcome.counts()), (Some(78), (1, 1, 0)), "{outcome}");
    assert_eq!(outcome.report()["cause"], "folder_gone", "{outcome}");
}

#[test]
fn a_wrong_password_ends_with_77_and_says_so() {
    let dovecot = Dovecot::start(ann());
    dovecot.seed("ann", "INBOX", &corpus::messages(1, 1));
    for (service, protocol, security) in WAYS {
        let here = Installation::trusting(dovecot.certificates());
        here.configure(&account(protocol, security, dovecot.port(service)).replace("\"secret\"", "\"wrong\""));
        let outcome = here.fetch();
        let report = outcome.report();
        assert_eq!((outcome.code, &report["exit"], &report["cause"]), (Some(77), &77.into(), &"login_refused".into()));
        assert!(outcome.error().starts_with("login refused by 127.0.0.1"), "{protocol} {security}: {outcome}");
        assert_eq!(here.files("ann").len(), 0);
        assert!(!outcome.stderr.contains("wrong") && !outcome.stdout.contains("wrong"), "{outcome}");
    }
}

/// Logins that Dovecot has seen, in vain or not.
fn logins(dovecot: &Dovecot) -> usize {
    let log = dovecot.log();
    log.lines().filter(|line| line.contains("Login: user=") || line.contains("auth failed")).count()
}

#[test]
fn a_certificate_of_an_unknown_authority_or_for_another_host_ends_with_69_before_any_login() {
    let elsewhere = Certificates::only_for(&["mail.example.net"]);
    let expired = Certificates::expired();
    for (certificates, trusted) in [(None, false), (Some(&elsewhere), true), (Some(&expired), true)] {
        let options = certificates.map_or_else(ann, |certificates| ann().certificates(certificates));
        let dovecot = Dovecot::start(options);
        for (service, protocol, security) in WAYS.into_iter().filter(|(.., security)| *security != "none") {
            let here = if trusted { Installation::trusting(dovecot.certificates()) } else { Installation::new() };
            here.configure(&account(protocol, security, dovecot.port(service)));
            let outcome = here.fetch();
            assert_eq!((outcome.code, &outcome.report()["cause"]), (Some(69), &"tls".into()), "{outcome}");
            assert!(outcome.error().starts_with("no secure connection to 127.0.0.1"), "{outcome}");
            assert!(outcome.report()["hint"].is_string(), "{outcome}");
        }
        assert_eq!(logins(&dovecot), 0, "{}", dovecot.log());
    }
}

#[test]
fn with_a_pin_no_authority_is_asked_and_another_certificate_is_refused() {
    let dovecot = Dovecot::start(ann());
    dovecot.seed("ann", "INBOX", &corpus::messages(2, 1));
    let certificates = dovecot.certificates();
    for pin in [certificates.fingerprint(), certificates.key_fingerprint()] {
        let here = Installation::new();
        here.configure(&format!("{}pin = \"sha256:{pin}\"\n", dovecot_account(&dovecot, Service::Imaps)));
        assert_eq!(here.fetch_well().counts(), (2, 2, 0));
    }
    let before = logins(&dovecot);
    let here = Installation::trusting(certificates);
    let pin = Certificates::new().fingerprint();
    here.configure(&format!("{}pin = \"sha256:{pin}\"\n", dovecot_account(&dovecot, Service::Imaps)));
    let outcome = here.fetch();
    assert_eq!((outcome.code, &outcome.report()["cause"]), (Some(69), &"tls".into()), "{outcome}");
    assert_eq!(logins(&dovecot), before);
}

#[test]
fn where_nobody_listens_or_no_such_host_is_it_ends_with_69() {
    let mut dovecot = Dovecot::start(ann());
    let port = dovecot.port(Service::Imaps);
    dovecot.kill();
    let here = Installation::new();
    here.configure(&account("imap", "tls", port));
    let outcome = here.fetch();
    assert_eq!((outcome.code, &outcome.report()["cause"]), (Some(69), &"no_answer".into()), "{outcome}");
    assert!(outcome.error().starts_with("cannot connect to 127.0.0.1"), "{outcome}");
    here.configure(&account("imap", "tls", port).replace("127.0.0.1", "no-such-host.invalid"));
    let outcome = here.fetch();
    assert_eq!((outcome.code, &outcome.report()["cause"]), (Some(69), &"name_unknown".into()), "{outcome}");
}

#[test]
fn a_server_that_takes_starttls_away_gets_no_credential() {
    let pop3 = || {
        Script::new().server("+OK ready").client("CAPA").server("+OK").server("USER").server("SASL PLAIN").server(".")
    };
    let imap = || {
        let script = Script::new().server("* OK ready").client_tagged("CAPABILITY");
        script.server("* CAPABILITY IMAP4rev1 AUTH=PLAIN").server("{tag} OK done")
    };
    for (protocol, script) in [("pop3", pop3()), ("imap", imap())] {
        let server = ScriptServer::start(vec![script.close()]);
        let here = Installation::new();
        here.configure(&account(protocol, "starttls", server.port()));
        let outcome = here.fetch();
        let heard = server.finish().concat().join("\n");
        assert_eq!((outcome.code, &outcome.report()["cause"]), (Some(69), &"tls_not_offered".into()), "{outcome}");
        for word in ["USER", "PASS", "AUTH", "LOGIN", "secret"] {
            assert!(!heard.contains(word), "{heard}");
        }
    }
}

#[test]
fn removed_at_once_after_delivery_and_only_then() {
    let dovecot = Dovecot::start(ann());
    for service in [Service::Pop3s, Service::Imaps] {
        dovecot.seed("ann", "INBOX", &corpus::messages(50, 3));
        let expected = at_dovecot(&dovecot, service, "ann", "INBOX");
        let here = Installation::trusting(dovecot.certificates());
        here.configure(&format!("{}delete = \"immediately\"\n", dovecot_account(&dovecot, service)));
        // Where the mail cannot be delivered, nothing is removed.
        std::fs::write(here.maildir("ann"), "in the way").unwrap();
        let refused = here.fetch();
        assert_ne!(refused.code, Some(0), "{refused}");
        assert_eq!(dovecot.messages("ann", "INBOX").len(), 50, "{refused}");
        std::fs::remove_file(here.maildir("ann")).unwrap();
        let fetched = here.fetch_well();
        assert_eq!(fetched.counts(), (50, 50, 50), "{service:?}: {fetched}");
        assert_eq!(dovecot.messages("ann", "INBOX").len(), 0, "{service:?}");
        here.mail("ann").must_equal(&expected, &format!("{service:?}"));
        assert_eq!(here.fetch_well().counts(), (0, 0, 0), "{service:?}");
    }
}

#[test]
fn removal_can_be_a_move_to_the_trash_or_a_folder_or_a_mark() {
    let dovecot = Dovecot::start(ann().user("bob", "secret").user("eve", "secret"));
    let ways = [("ann", "trash", Some("Trash")), ("bob", "move:Archive", Some("Archive")), ("eve", "seen", None)];
    for (user, way, folder) in ways {
        dovecot.seed(user, "INBOX", &corpus::messages(5, 4));
        if folder == Some("Archive") {
            dovecot.folder(user, "Archive");
            dovecot.doveadm(&["mailbox", "subscribe", "-u", user, "Archive"]);
        }
        let here = Installation::trusting(dovecot.certificates());
        let account =
            dovecot_account(&dovecot, Service::Imaps).replace("username = \"ann\"", &format!("username = \"{user}\""));
        here.configure(&format!("{account}delete = \"immediately\"\ndelete_by = \"{way}\"\n"));
        let outcome = here.fetch_well();
        assert_eq!((outcome.number("delivered"), here.files("ann").len()), (5, 5), "{way}: {outcome}");
        let inbox = dovecot.messages(user, "INBOX").len();
        match folder {
            Some(folder) => assert_eq!((inbox, dovecot.messages(user, folder).len()), (0, 5), "{way}: {outcome}"),
            None => {
                let seen = dovecot.doveadm(&["search", "-u", user, "mailbox", "INBOX", "seen"]);
                assert_eq!((inbox, seen.lines().count()), (5, 5), "{way}: {outcome}");
            }
        }
        assert_eq!(here.fetch_well().counts(), (0, 0, 0), "{way}");
    }
}

/// Files mail by who sent it, which is the envelope's sender, not the header's.
const BY_SENDER: &str = "require [\"envelope\", \"fileinto\", \"mailbox\"];\n\
                         if envelope :is \"from\" \"ben@example.net\" { fileinto :create \"Ben\"; }\n";

#[test]
fn lmtp_delivers_into_dovecot_where_sieve_files_by_the_recovered_sender() {
    for unix in [true, false] {
        let source = Dovecot::start(ann());
        let target = Dovecot::start(ann().user("bob", "secret").sieve("ann", BY_SENDER));
        let letters: Vec<Message> = (0..30)
            .map(|n| {
                let sender = if n % 3 == 0 { "ben@example.net" } else { "someone@example.net" };
                let head = format!("Return-Path: <{sender}>\nFrom: x@example.com\nSubject: {n}\n");
                Message::new(format!("{head}\n.dots\n..\nGr\u{fc}\u{df}e\n"))
            })
            .collect();
        source.seed("ann", "INBOX", &letters);
        let address = match unix {
            true => format!("unix:{}", target.lmtp_socket().display()),
            false => target.address(Service::Lmtp).to_string(),
        };
        let here = Installation::trusting(source.certificates());
        let tables = format!("[delivery]\ntype = \"lmtp\"\naddress = \"{address}\"\n");
        let both =
            dovecot_account(&source, Service::Imaps).replace("deliver_to = \"ann\"", "deliver_to = [\"ann\", \"bob\"]");
        here.configure_with(&tables, &both);
        let outcome = here.fetch_well();
        assert_eq!(outcome.counts(), (30, 60, 0), "{outcome}");
        let bodies =
            |user: &str, mailbox: &str| Sums::of(target.messages(user, mailbox).iter().map(|m| behind_ours(m)));
        let expected = |from_ben: bool| {
            let letters = letters.iter().enumerate().filter(|(n, _)| (n % 3 == 0) == from_ben);
            Sums::of(letters.map(|(_, letter)| letter.octets.clone()))
        };
        bodies("ann", "Ben").must_equal(&expected(true), "filed by Sieve");
        bodies("ann", "INBOX").must_equal(&expected(false), "not filed");
        bodies("bob", "INBOX").must_equal(&at_dovecot(&source, Service::Imaps, "ann", "INBOX"), "the second user");
        assert_eq!(here.fetch_well().counts(), (0, 0, 0));
    }
}

/// What is behind our last field, however many others a server has put in front.
fn behind_ours(message: &[u8]) -> Vec<u8> {
    let at = message.windows(10).position(|window| window == b"\nReceived:").unwrap();
    let ours = (at..message.len()).find(|at| message[*at..].starts_with(b"\nX-Connectord-Account: ")).unwrap() + 1;
    let end = message[ours..].iter().position(|octet| *octet == b'\n').unwrap();
    message[ours + end + 1..].to_vec()
}

#[test]
fn an_account_with_one_user_that_lmtp_does_not_know_is_held_and_nothing_is_fetched() {
    let dovecot = Dovecot::start(ann());
    dovecot.seed("ann", "INBOX", &corpus::messages(5, 1));
    let here = Installation::trusting(dovecot.certificates());
    let tables = format!("[delivery]\ntype = \"lmtp\"\naddress = \"unix:{}\"\n", dovecot.lmtp_socket().display());
    let account =
        dovecot_account(&dovecot, Service::Imaps).replace("deliver_to = \"ann\"", "deliver_to = [\"ann\", \"nobody\"]");
    here.configure_with(&tables, &account);
    let outcome = here.fetch();
    let report = outcome.report();
    assert_eq!(
        (outcome.code, &report["cause"], outcome.counts()),
        (Some(78), &"user_gone".into(), (0, 0, 0)),
        "{outcome}"
    );
    assert!(outcome.error().starts_with("there is no local user nobody: "), "{outcome}");
    assert_eq!(logins(&dovecot), 0);
    assert_eq!(dovecot.messages("ann", "INBOX").len(), 5);
}

#[test]
fn while_the_lmtp_server_is_down_mail_stays_where_it_is() {
    let source = Dovecot::start(ann());
    let mut target = Dovecot::start(ann());
    source.seed("ann", "INBOX", &(0..20).map(common::light).collect::<Vec<_>>());
    // A line end at the end is what POP3 and LMTP add.
    let expected = at_dovecot(&source, Service::Pop3s, "ann", "INBOX");
    let here = Installation::trusting(source.certificates());
    let tables = format!("[delivery]\ntype = \"lmtp\"\naddress = \"{}\"\n", target.address(Service::Lmtp));
    here.configure_with(&tables, &format!("{}delete = \"immediately\"\n", dovecot_account(&source, Service::Pop3s)));
    target.kill();
    let down = here.fetch();
    assert_eq!((down.code, &down.report()["cause"]), (Some(75), &"destination_down".into()), "{down}");
    assert_eq!((down.counts(), source.messages("ann", "INBOX").len()), ((0, 0, 0), 20), "{down}");
    target.restart();
    let up = here.fetch_well();
    assert_eq!((up.counts(), source.messages("ann", "INBOX").len()), ((20, 20, 20), 0), "{up}");
    let found = Sums::of(target.messages("ann", "INBOX").iter().map(|message| behind_ours(message)));
    found.must_equal(&expected, "when it was up again");
}

#[test]
fn an_mbox_has_every_message_once_with_its_lines_quoted() {
    let dovecot = Dovecot::start(ann());
    let letters: Vec<Message> =
        (0..20).map(|n| Message::new(format!("Subject: {n}\n\nFrom here on\n>From there\nbody {n}\n"))).collect();
    dovecot.seed("ann", "INBOX", &letters);
    let here = Installation::trusting(dovecot.certificates());
    let tables = format!("[delivery]\ntype = \"mbox\"\npath = \"{}\"\n", here.path("mail/{user}/mbox").display());
    here.configure_with(&tables, &dovecot_account(&dovecot, Service::Pop3s));
    assert_eq!(here.fetch_well().counts(), (20, 20, 0));
    assert_eq!(here.fetch_well().counts(), (0, 0, 0));
    let mbox = String::from_utf8(std::fs::read(here.home("ann").join("mbox")).unwrap()).unwrap();
    let messages: Vec<&str> = mbox.split("\nFrom ").collect();
    assert_eq!(messages.len(), 20);
    for n in 0..20 {
        let body = format!("Subject: {n}\n\n>From here on\n>>From there\nbody {n}\n");
        assert_eq!(messages.iter().filter(|message| message.contains(&body)).count(), 1, "{n} in {mbox}");
    }
}

#[test]
fn a_program_gets_each_message_and_the_message_it_puts_off_waits() {
    let dovecot = Dovecot::start(ann());
    dovecot.seed("ann", "INBOX", &corpus::messages(20, 5));
    let here = Installation::trusting(dovecot.certificates());
    let program = here.path("deliver");
    // Puts off its first message once (EX_TEMPFAIL), and keeps all others.
    let script = "#!/bin/sh\ncd \"$1\" || exit 73\nmkdir once 2>/dev/null && exit 75\n\
                  f=$(mktemp part.XXXXXX) && cat >\"$f\" && mv \"$f\" \"done.$f\" || exit 74\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let tables = format!(
        "[delivery]\ntype = \"command\"\nprogram = \"{}\"\narguments = [\"{}\"]\n",
        program.display(),
        here.path("mail/{user}").display()
    );
    here.configure_with(&tables, &dovecot_account(&dovecot, Service::Imaps));
    let first = here.fetch();
    assert_eq!((first.code, first.number("delivered"), first.number("deferred")), (Some(75), 19, 1), "{first}");
    let second = here.fetch_well();
    assert_eq!(second.number("delivered"), 1, "{second}");
    let files = std::fs::read_dir(here.home("ann")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("done."));
    let found = Sums::of(files.map(|file| common::without_trace(&std::fs::read(file).unwrap())));
    found.must_equal(&at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX"), "what the program got");
}

#[test]
fn one_account_for_two_users_and_two_accounts_for_one_user() {
    let dovecot = Dovecot::start(ann().user("bob", "secret"));
    dovecot.seed("ann", "INBOX", &corpus::messages(20, 6));
    dovecot.seed("bob", "INBOX", &corpus::messages(20, 7));
    let here = Installation::trusting(dovecot.certificates());
    let anns =
        dovecot_account(&dovecot, Service::Imaps).replace("deliver_to = \"ann\"", "deliver_to = [\"ann\", \"bob\"]");
    let bobs = common::account_of("bob", "pop3", "tls", dovecot.port(Service::Pop3s));
    here.configure(&format!("{anns}{bobs}"));
    let outcome = here.fetch_well();
    let delivered: Vec<u64> = outcome.reports().iter().map(|report| report["delivered"].as_u64().unwrap()).collect();
    assert_eq!(delivered, [40, 20], "{outcome}");
    let ann = at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX");
    here.mail("ann").must_equal(&ann, "ann has the mail of one account");
    let mut both = ann;
    both.extend(Sums::of(dovecot.messages("bob", "INBOX").iter().map(|m| arrived(&dovecot, Service::Pop3s, m))));
    here.mail("bob").must_equal(&both, "bob has the mail of both");
}

#[test]
fn a_command_that_is_told_to_stop_ends_within_seconds_and_loses_nothing() {
    let dovecot = Dovecot::start(ann());
    dovecot.seed("ann", "INBOX", &corpus::messages(300, 8));
    let here = Installation::trusting(dovecot.certificates());
    here.configure(&dovecot_account(&dovecot, Service::Imaps));
    let running = here.start_fetch();
    common::wait_until("the first messages", || here.files("ann").len() > 20);
    let asked = std::time::Instant::now();
    let stopped = running.stop();
    assert!(asked.elapsed() < Duration::from_secs(40), "{:?}", asked.elapsed());
    assert!(matches!(stopped.code, Some(0 | 75)), "{stopped}");
    here.fetch_well();
    here.mail("ann").must_equal(&at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX"), "after the second run");
}
