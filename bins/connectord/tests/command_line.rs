//! What the program says to a person, and what it ends with.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::{Installation, account, account_of, at_dovecot, dovecot_account};
use connectord_testkit::{Dovecot, DovecotOptions, Service, corpus};

const BARE: [(&str, &str); 0] = [];

#[test]
fn help_names_the_verbs_and_ends_well() {
    let here = Installation::new();
    let help = here.run_bare(&["--help"], &BARE, b"");
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for verb in ["serve", "fetch", "check", "parked", "demo"] {
        assert!(help.stdout.lines().any(|line| line.trim_start().starts_with(&format!("{verb} "))), "{verb}: {help}");
        let of_verb = here.run_bare(&[verb, "--help"], &BARE, b"");
        assert_eq!(of_verb.code, Some(0), "{of_verb}");
    }
    let version = here.run_bare(&["--version"], &BARE, b"");
    assert_eq!((version.code, version.stdout), (Some(0), format!("connectord {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_use_ends_with_64() {
    let here = Installation::new();
    here.configure(&account("imap", "tls", 993));
    let configuration = here.configuration().display().to_string();
    let cases: [(&[&str], &str); 12] = [
        (&[], "Usage"),
        (&["fech"], "fetch"),
        (&["fetch", "--dry"], "--dry-run"),
        (&["parked", "retry"], "<IDS"),
        (&["--config", &configuration, "parked", "retry", "x"], "\"x\" is no number of a parked message"),
        (&["--config", &configuration, "parked", "list", "eve@example.org"], "there is no account eve@example.org"),
        (
            &["--config", &configuration, "fetch", "an@example.org"],
            "there is no account an@example.org; known: ann@example.org",
        ),
        (&["fetch", "imaps://ann@localhost"], "--to"),
        (&["fetch", "imaps://ann@localhost", "imaps://bob@localhost"], "a URL stands alone"),
        (&["fetch", "imaps://ann:secret@localhost", "--to", "Maildir"], "a password must not be in the URL"),
        (&["fetch", "smtp://ann@localhost", "--to", "Maildir"], "expected imaps://user@host"),
        (&["fetch", "imaps://ann@localhost", "--to", "Maildir"], "no password: give --password-file"),
    ];
    for (arguments, said) in cases {
        let outcome = here.run_bare(arguments, &BARE, b"");
        assert_eq!(outcome.code, Some(64), "{arguments:?}: {outcome}");
        assert!(outcome.stderr.contains(said), "{arguments:?}: {outcome}");
        assert!(!outcome.stderr.contains("secret"), "{outcome}");
    }
    assert!(!here.path("Maildir").exists());
}

#[test]
fn a_configuration_without_mistakes_is_ok() {
    let here = Installation::new();
    here.configure(&account("imap", "tls", 993));
    let outcome = here.run(&["check"]);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(0), "ok    configuration: 1 account, 0 warnings\n"),
        "{outcome}"
    );
    assert!(!here.path("state").exists(), "a check leaves nothing behind");
}

#[test]
fn mistakes_are_shown_with_their_lines_and_end_with_78() {
    let here = Installation::new();
    let file = here.configuration().display().to_string();
    let good = format!("[delivery]\ntype = \"maildir\"\npath = \"/mail/{{user}}\"\n{}", account("imap", "tls", 993));
    let cases = [
        ("username", "usrname", ":10:1: unknown key \"usrname\" in [[account]]; did you mean \"username\"?"),
        ("username", "usrname", "\n   10 | usrname = \"ann\"\n      | ^^^^^^^\n"),
        ("\"imap\"", "\"imp\"", ":6:12: "),
        ("port = 993", "port = 99300", ":8:8: "),
        ("\"tls\"", "\"tls", ":9:"),
        ("[delivery]\ntype = \"maildir\"\npath = \"/mail/{user}\"\n", "", "delivery"),
    ];
    for (right, wrong, said) in cases {
        assert!(good.contains(right));
        here.write_configuration(&good.replacen(right, wrong, 1));
        for arguments in [&["check"][..], &["fetch"], &["serve"], &["parked", "list"]] {
            let outcome = here.run(arguments);
            assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(78), ""), "{wrong}: {outcome}");
            assert!(outcome.stderr.starts_with(&format!("connectord: {file}:")), "{wrong}: {outcome}");
            assert!(outcome.stderr.contains(said), "{wrong}: {outcome}");
            assert!(!outcome.stderr.contains("secret"), "{wrong}: {outcome}");
        }
    }
    let missing = here.run_bare(&["--config", "none.toml", "check"], &BARE, b"");
    assert_eq!(missing.code, Some(78), "{missing}");
    assert_eq!(missing.stderr, "connectord: none.toml: cannot be read: No such file or directory (os error 2)\n");
}

#[test]
fn a_password_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let here = Installation::new();
    here.configure(&account("imap", "tls", 993));
    std::fs::set_permissions(here.configuration(), PermissionsExt::from_mode(0o644)).unwrap();
    let outcome = here.run(&["fetch"]);
    assert_eq!(outcome.code, Some(78), "{outcome}");
    assert!(
        outcome.stderr.contains("this is secret, and others can read the file") && outcome.stderr.contains("chmod"),
        "{outcome}"
    );
    assert!(!outcome.stderr.contains("\"secret\""), "{outcome}");
}

#[test]
fn one_mailbox_is_fetched_without_a_configuration() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "s\u{e4}cret"));
    dovecot.seed("ann", "INBOX", &corpus::messages(10, 1));
    dovecot.seed("ann", "Work/2026", &corpus::messages(3, 2));
    let here = Installation::new();
    let ca = dovecot.certificates().ca_file().display().to_string();
    let imaps = format!("imaps://ann@localhost:{}", dovecot.port(Service::Imaps));
    let maildir = here.maildir("ann").display().to_string();
    let fetch = |url: &str, more: &[&str], variables: &[(&str, &str)], input: &[u8]| {
        let arguments = [&["fetch", url, "--to", &maildir, "--ca-file", &ca, "--json"], more].concat();
        here.run_bare(&arguments, variables, input)
    };
    let password = "s\u{e4}cret";
    let line = format!("{password}\r\nand more\n");

    let dry = fetch(&imaps, &["--dry-run", "--password-stdin"], &BARE, line.as_bytes());
    assert_eq!((dry.code, dry.number("new"), dry.counts()), (Some(0), 10, (0, 0, 0)), "{dry}");
    assert_eq!(here.files("ann").len(), 0);

    let first = fetch(&imaps, &["--password-stdin"], &BARE, line.as_bytes());
    assert_eq!((first.code, first.counts()), (Some(0), (10, 10, 0)), "{first}");
    here.mail("ann").must_equal(&at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX"), "by a URL");
    assert!(here.path(".local/state/connectord").exists());

    let variable = [("CONNECTORD_PASSWORD", password)];
    let second = fetch(&imaps, &[], &variable, b"");
    assert_eq!((second.code, second.counts()), (Some(0), (0, 0, 0)), "{second}");

    let file = here.path("password");
    std::fs::write(&file, &line).unwrap();
    let file = file.display().to_string();
    let folder = fetch(&format!("{imaps}/Work%2F2026"), &["--password-file", &file], &BARE, b"");
    assert_eq!((folder.code, folder.counts()), (Some(0), (3, 3, 0)), "{folder}");

    // The same account by POP3 is another memory; what has gone is gone for both.
    let pop3 = format!("pop3://ann@localhost:{}", dovecot.port(Service::Pop3));
    let removed = fetch(&pop3, &["--delete", "immediately"], &variable, b"");
    assert_eq!(removed.code, Some(0), "{removed}");
    assert_eq!((removed.number("removed"), dovecot.messages("ann", "INBOX").len()), (10, 0), "{removed}");

    let pin = format!("sha256:{}", dovecot.certificates().fingerprint());
    let arguments = ["fetch", &imaps, "--to", &maildir, "--pin", &pin, "--json"];
    let pinned = here.run_bare(&arguments, &variable, b"");
    assert_eq!((pinned.code, pinned.number("listed")), (Some(0), 0), "{pinned}");

    let wrong = fetch(&imaps, &["--password-stdin"], &BARE, b"wrong\n");
    assert_eq!(wrong.code, Some(77), "{wrong}");
    let state = here.path("elsewhere").display().to_string();
    let again = fetch(&format!("{imaps}/Work%2F2026"), &["--state", &state], &variable, b"");
    assert_eq!(again.code, Some(0), "{again}");
    // The Maildir has them, whatever the state says.
    assert_eq!(here.files("ann").len(), 10 + 3 + 10, "{again}");
}

#[test]
fn the_table_the_json_and_the_dry_run_say_the_same() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret"));
    dovecot.seed("ann", "INBOX", &corpus::messages(4, 1));
    let here = Installation::trusting(dovecot.certificates());
    let dead = account_of("bob", "pop3", "tls", 9);
    here.configure(&format!("{}{dead}", dovecot_account(&dovecot, Service::Imaps)));
    let dry = here.run(&["fetch", "--dry-run", "--json", "ann@example.org"]);
    assert_eq!((dry.code, dry.number("new"), dry.number("due"), dry.counts()), (Some(0), 4, 0, (0, 0, 0)), "{dry}");
    let table = here.run(&["fetch"]);
    assert_eq!(table.code, Some(69), "the worst account counts: {table}");
    for part in ["ann@example.org", "bob@example.org", "cannot connect to 127.0.0.1"] {
        assert!(table.stdout.contains(part), "{part}: {table}");
    }
    assert!(!table.stdout.contains('\u{1b}') && !table.stderr.contains('\u{1b}'), "no colour for a file: {table}");
    let json = here.run(&["fetch", "--json"]);
    let exits: Vec<u64> = json.reports().iter().map(|report| report["exit"].as_u64().unwrap()).collect();
    assert_eq!((json.code, exits), (Some(69), vec![0, 69]), "{json}");
    let quiet = here.run(&["fetch", "--quiet"]);
    assert_eq!((quiet.code, quiet.stdout.as_str()), (Some(69), ""), "{quiet}");
}

#[test]
fn check_online_logs_in_everywhere_and_changes_nothing() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret"));
    dovecot.seed("ann", "INBOX", &corpus::messages(4, 1));
    let here = Installation::trusting(dovecot.certificates());
    let bob = account_of("bob", "pop3", "tls", dovecot.port(Service::Pop3s));
    here.configure(&format!("{}{bob}", dovecot_account(&dovecot, Service::Imaps)));
    let outcome = here.run(&["check", "--online"]);
    assert_eq!(outcome.code, Some(77), "{outcome}");
    assert!(outcome.stdout.contains("ok    ann@example.org: 4 messages, 4 new, 0 to remove\n"), "{outcome}");
    assert!(outcome.stdout.contains("FAIL  bob@example.org: login refused by 127.0.0.1"), "{outcome}");
    assert_eq!((here.files("ann").len(), dovecot.messages("ann", "INBOX").len()), (0, 4));
    let one = here.run(&["check", "--online", "ann@example.org"]);
    assert_eq!(one.code, Some(0), "{one}");
}

#[test]
fn too_large_a_message_is_parked_shown_and_retrieved_when_a_person_says_so() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret"));
    dovecot.seed("ann", "INBOX", &[corpus::large(200_000, 1), corpus::large(200_000, 2), corpus::large(1000, 3)]);
    let here = Installation::trusting(dovecot.certificates());
    here.configure(&format!("{}max_message_size = \"100 kB\"\n", dovecot_account(&dovecot, Service::Imaps)));
    let first = here.fetch();
    assert_eq!((first.code, first.number("delivered"), first.number("parked")), (Some(65), 1, 2), "{first}");
    let list = here.run(&["parked", "list", "--json"]);
    let rows = list.reports();
    assert_eq!((list.code, rows.len()), (Some(0), 2), "{list}");
    let id = |n: usize| rows[n]["id"].as_str().unwrap().to_owned();
    let shown = here.run(&["parked", "list"]);
    assert!(shown.stdout.contains(&id(0)) && shown.stdout.contains("ann@example.org"), "{shown}");
    let retry = here.run(&["parked", "retry", &id(0)]);
    assert_eq!((retry.code, retry.stdout), (Some(0), format!("{}: is tried again at the next check\n", id(0))));
    let skip = here.run(&["parked", "skip", &id(1)]);
    assert_eq!((skip.code, skip.stdout), (Some(0), format!("{}: is left alone; its remote copy stays\n", id(1))));
    let second = here.fetch();
    assert_eq!((second.code, second.counts()), (Some(0), (1, 1, 0)), "{second}");
    assert_eq!((here.files("ann").len(), dovecot.messages("ann", "INBOX").len()), (2, 3));
    assert_eq!(here.run(&["parked", "list"]).stdout, "");
    let unknown = here.run(&["parked", "retry", "999.1.0"]);
    assert!(unknown.stdout.contains("there is no such message in trouble"), "{unknown}");
}
