//! Messages that were kept back, and what a person does about them, with and without a daemon.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Installation, Outcome, account};
use connectord_filter::{Action, Answer, Edits, Finding, Held, HeldFor, Kind, Quarantine, Symbol, Verdict};
use connectord_mail::{DeliveryId, Identity, UnixTime};
use connectord_quarantine::{DirectoryQuarantine, Options};
use connectord_testkit::walk::{self, Mode};

const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}fdp\u{9b}31m";

/// The message in its octets as they came.
fn message(number: u32) -> String {
    format!(
        "Message-ID: <{number}@x.test>\r\nFrom: Ann {HOSTILE} <ann@x.test>\r\nSubject: offer {number} {HOSTILE}\r\n\
         X-{HOSTILE}: {HOSTILE}\r\nX-Odd: {HOSTILE}\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream; \
         name=\"bill.pdf.exe\"\r\n\r\nHello {number} {HOSTILE}\r\n"
    )
}

fn id(number: u32) -> DeliveryId {
    let key = number.to_be_bytes();
    DeliveryId::new(Identity { account: "ann@example.org", mailbox: "", uid_validity: 0, key: &key, generation: 0 })
}

fn held(number: u32, viruses: &[&str]) -> Held {
    let symbol = Symbol { name: format!("GTUBE{HOSTILE}"), milli_score: 15_300 };
    let finding = Finding {
        action: Action::Reject,
        milli_score: Some(15_300),
        milli_required: Some(15_000),
        symbols: vec![symbol],
        text: Some(HOSTILE.into()),
        ..Finding::default()
    };
    Held {
        id: id(number),
        account: "ann@example.org".into(),
        mailbox: String::new(),
        destination: "default".into(),
        recipients: vec![HeldFor { user: "ann".into(), address: "ann".into() }],
        reverse_path: Some(format!("ann{HOSTILE}@x.test")),
        arrived_at: Some(UnixTime(1_794_000_000)),
        held_at: UnixTime(1_795_000_000),
        reason: format!("rspamd with 15.300: {HOSTILE}"),
        spam: true,
        viruses: viruses.iter().map(|virus| format!("{virus}{HOSTILE}")).collect(),
        answers: vec![Answer { filter: "rspamd".into(), kind: Kind::Antispam, verdict: Verdict::Found(finding) }],
        edits: Edits { add: vec![("X-Spam".into(), "Yes".into())], ..Edits::default() },
        trace: octets(&format!("X-Connectord-Id: {}\r\n", id(number))),
        body: Arc::new(octets(&message(number))),
    }
}

fn octets(text: &str) -> bytes::Bytes {
    text.to_owned().into()
}

fn quarantine(here: &Installation) -> PathBuf {
    here.path("state/quarantine")
}

fn keep(here: &Installation, all: Vec<Held>) {
    std::fs::create_dir_all(here.path("state")).unwrap();
    let quarantine = DirectoryQuarantine::open(&quarantine(here), Options::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for held in all {
        runtime.block_on(quarantine.keep(held)).unwrap();
    }
}

/// An account whose server is never asked, and a daemon that reports to nobody by itself.
fn start() -> Installation {
    let here = Installation::new();
    let account = account("pop3", "tls", 1);
    here.configure(&format!("{account}check_every = \"never\"\n[quarantine]\nreport = \"never\"\n"));
    here
}

#[track_caller]
fn inert(outcome: &Outcome) {
    let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!outcome.stdout.contains(obeyed) && !outcome.stderr.contains(obeyed), "{outcome:#}");
}

#[test]
fn a_person_looks_at_them_releases_and_discards_them_and_tells_their_user() {
    for with_daemon in [false, true] {
        let here = start();
        keep(&here, vec![held(1, &[]), held(2, &["Eicar"]), held(3, &[]), held(4, &[])]);
        let daemon = with_daemon.then(|| here.serve());
        let run = |arguments: &[&str]| {
            let outcome = here.run(&[&["quarantine"], arguments].concat());
            inert(&outcome);
            outcome
        };
        let name = |number: u32| id(number).to_string();

        let list = run(&["list"]);
        assert_eq!(list.code, Some(0), "{list}");
        assert!(list.stdout.ends_with("4 held\n") && list.stdout.contains("offer 1 \\x1b]0;owned"), "{list}");
        let viruses = run(&["list", "--kind", "virus", "--json"]).reports();
        assert_eq!((viruses.len(), viruses[0]["id"].as_str()), (2, Some(&*name(2))));
        assert_eq!(viruses[0]["subject"].as_str(), Some(&*format!("offer 2 {HOSTILE}")));
        assert_eq!(viruses[1]["total"].as_u64(), Some(1));
        let page = run(&["list", "--limit", "2", "--user", "ann"]);
        assert!(page.stdout.ends_with("2 of 4 held; --offset 2 shows more\n"), "{page}");
        assert_eq!(run(&["list", "--user", "bob"]).stdout, "nothing is held\n");

        let shown = run(&["show", &name(2)]);
        for part in [
            "virus",
            "15.300  GTUBE",
            "score 15.300 of 15.000",
            "Eicar",
            "bill.pdf.exe",
            "executable",
            "Message-ID: <2@x.test>",
            "for         ann (default)",
        ] {
            assert!(shown.stdout.contains(part), "{part}: {shown}");
        }
        assert!(!shown.stdout.contains("Hello"), "{shown}");
        let details = run(&["show", &name(1), "--json"]).report();
        assert_eq!(details["attachments"][0]["name"].as_str(), Some("bill.pdf.exe"));
        assert_eq!(details["answers"][0]["symbols"][0][1].as_i64(), Some(15_300));

        let raw = here.run(&["quarantine", "show", "--raw", &name(3)]);
        assert_eq!((raw.code, raw.stdout), (Some(0), message(3)));
        let file = here.path("raw.eml");
        let file = file.to_str().unwrap();
        assert_eq!(run(&["show", "--output", file, &name(3)]).code, Some(0));
        assert_eq!(std::fs::read_to_string(file).unwrap(), message(3));
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(run(&["show", "--output", file, &name(3)]).code, Some(74), "it replaced a file");

        let told = run(&["report", "--dry-run"]);
        assert_eq!((told.code, &*told.stdout), (Some(0), "ann: would be told of 4\n"));
        assert_eq!(run(&["report"]).stdout, "ann: was told of 4\n");
        assert_eq!(run(&["report"]).stdout, "");
        assert_eq!(here.files("ann").len(), 1);

        let refused = run(&["release", &name(2), "zzzz"]);
        assert_eq!(refused.code, Some(64), "{refused}");
        assert!(refused.stdout.contains("infected with Eicar") && refused.stdout.contains("--infected"), "{refused}");
        assert!(refused.stdout.contains("zzzz: there is no such message"), "{refused}");
        let released = run(&["release", &name(1)[..6], "--json"]).report();
        assert_eq!((released["done"].as_bool(), released["copies"][0]["user"].as_str()), (Some(true), Some("ann")));
        let released = run(&["release", &name(2), "--infected", "--marked"]);
        assert!(released.stdout.contains(&format!("{}: delivered to ann", name(2))), "{released}");
        let taught = run(&["release", &name(3), "--teach"]);
        assert_eq!(taught.code, Some(64), "{taught}");
        assert_eq!(here.files("ann").len(), 3);
        let texts: Vec<_> = here.files("ann").iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let of = |number: u32| texts.iter().find(|text| text.contains(&format!("<{number}@x.test>"))).unwrap();
        assert!(of(1).contains("X-Connectord-Released: ") && !of(1).contains("X-Spam"), "{}", of(1));
        assert!(of(2).contains("X-Spam: Yes\n"), "{}", of(2));

        let unsure = run(&["discard", &name(3)]);
        assert_eq!(unsure.code, Some(64), "{unsure}");
        assert!(unsure.stderr.contains("--yes"), "{unsure}");
        let gone = run(&["discard", &name(3), "--yes"]);
        assert_eq!((gone.code, gone.stdout), (Some(0), format!("{}: is gone\n", name(3))));
        let again = run(&["discard", &name(3), "--yes"]);
        assert_eq!(again.code, Some(64), "{again}");
        assert!(run(&["list"]).stdout.ends_with("1 held\n"));
        if let Some(daemon) = daemon {
            let log = daemon.stop().stderr;
            assert!(log.contains("status=released") && log.contains("status=discarded"), "{log}");
        }
    }
}

#[test]
fn without_a_quarantine_nothing_is_held() {
    let here = start();
    let list = here.run(&["quarantine", "list"]);
    assert_eq!((list.code, &*list.stdout), (Some(0), "nothing is held\n"), "{list}");
    assert_eq!(here.run(&["quarantine", "release", &id(1).to_string()]).code, Some(64));
    assert!(!quarantine(&here).exists());
}

#[test]
fn damaged_and_foreign_files_are_told_of() {
    let here = start();
    keep(&here, vec![held(1, &[])]);
    std::fs::write(quarantine(&here).join(format!("odd{HOSTILE}")), "no mail").unwrap();
    let list = here.run(&["quarantine", "list"]);
    inert(&list);
    assert!(list.stdout.contains("not a file of the quarantine") && list.stdout.ends_with("1 held\n"), "{list}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// The real program is killed at this and that system call of a release, or the call fails; then it runs once more.
#[test]
fn whichever_call_is_the_last_or_fails_a_release_comes_once() {
    let here = start();
    keep(&here, vec![held(1, &[]), held(2, &[])]);
    let pristine = here.path("pristine");
    copy(&here.path("state"), &pristine);
    let release = || {
        let mut command = common::command(&here.path("."));
        command.arg("--config").arg(here.configuration()).args(["quarantine", "release", &id(1).to_string()]);
        command
    };
    let reset = || {
        for directory in ["state", "mail/ann"] {
            let _ = std::fs::remove_dir_all(here.path(directory));
        }
        copy(&pristine, &here.path("state"));
        std::fs::create_dir_all(here.path("mail/ann")).unwrap();
    };
    for (mode, about) in
        [(Mode::Kill, 40), (Mode::KillAfter, 40), (Mode::Eio, 25), (Mode::Enospc, 15), (Mode::Full, 10)]
    {
        reset();
        let calls = walk::count(&release(), mode);
        let step = (calls / about).max(1);
        // The beginning is the start of the program, which is the same for all commands.
        let mut at = calls / 3;
        while at <= calls {
            reset();
            let struck = walk::strike(&release(), mode, at);
            assert!(!struck.hung, "{mode} {at}: {struck:?}");
            let again = here.run(&["quarantine", "release", &id(1).to_string()]);
            assert!(matches!(again.code, Some(0 | 64)), "{mode} {at} {struck:?}: {again}");
            let got = here.files("ann");
            assert_eq!(got.len(), 1, "{mode} {at} {struck:?}: {again}");
            assert!(
                std::fs::read_to_string(&got[0])
                    .unwrap()
                    .ends_with(&message(1).split("\r\n\r\n").nth(1).unwrap().replace('\r', ""))
            );
            let left = here.run(&["quarantine", "list"]);
            assert!(left.stdout.ends_with("1 held\n"), "{mode} {at} {struck:?}: {left}");
            at += step;
        }
    }
}
