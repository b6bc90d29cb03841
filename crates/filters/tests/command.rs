//! Programs as filters.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{HAM, PATIENCE, found, message, passes_the_battery, unchecked, with_body};
use connectord_filter::{Action, Filter, HeaderChange, Kind, Ruling, Verdict, Why};
use connectord_filters::command::{Command, Meaning, Options, Output};
use connectord_mail::Body;

/// A filter that is a shell script.
fn script(directory: &Path, text: &str) -> Options {
    let path = directory.join("filter");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(format!("#!/bin/sh\n{text}\n").as_bytes()).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
    Options::new(path, Vec::new())
}

fn filter(options: Options) -> Command {
    Command::new("ours".into(), options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_statuses_mean_what_getmail_made_of_them_and_any_other_is_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    for (status, expected) in [(0, Action::NoAction), (99, Action::Reject), (100, Action::Reject)] {
        let filter = filter(script(directory.path(), &format!("cat >/dev/null; exit {status}")));
        assert_eq!(found(&filter, HAM).await.action, expected);
    }
    for (text, expected) in [
        ("echo broken >&2; exit 1", Why::Failed),
        ("exit 75", Why::Unavailable),
        ("kill -SEGV $$", Why::Failed),
        ("exec 0<&- 1>&- 2>&-; exit 3", Why::Failed),
    ] {
        let trouble = unchecked(filter(script(directory.path(), text)).check(&message(HAM)).await);
        assert_eq!(trouble.why, expected, "{trouble}");
        assert!(text != "echo broken >&2; exit 1" || trouble.text.ends_with("exit status: 1: \"broken\""), "{trouble}");
    }
}

/// A message on a disk that fails.
struct Unreadable;

impl Body for Unreadable {
    fn size_octets(&self) -> u64 {
        1000
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("the disk is broken"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_our_own_disk_does_is_no_fault_of_the_message_and_the_program_is_not_started() {
    let directory = tempfile::tempdir().unwrap();
    let filter = filter(script(directory.path(), "touch \"${0%/*}/started\""));
    let message = with_body(message(HAM).head, Arc::new(Unreadable));
    let trouble = unchecked(filter.check(&message).await);
    assert!(trouble.why == Why::Unavailable && trouble.text.contains("the disk is broken"), "{trouble}");
    assert!(!directory.path().join("started").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_site_may_say_what_a_status_means() {
    let directory = tempfile::tempdir().unwrap();
    let finding = async |meaning, kind| {
        let mut options = script(directory.path(), "echo; echo Some.Virus; exit 7");
        options.meanings.insert(7, meaning);
        options.kind = kind;
        found(&filter(options), HAM).await
    };
    assert_eq!(finding(Meaning::Spam, Kind::Antispam).await.action, Action::AddHeader);
    assert_eq!(finding(Meaning::Later, Kind::Antispam).await.action, Action::SoftReject);
    assert_eq!(finding(Meaning::Virus, Kind::Antivirus).await.viruses, ["Some.Virus"]);
    assert!(matches!(finding(Meaning::Discard, Kind::Rules).await.ruling, Some(Ruling::Discard(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_gets_the_whole_message_and_a_clean_environment() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = script(directory.path(), "cat >\"$1\"; env | sort >\"$1.env\"");
    let seen = directory.path().join("seen");
    options.arguments = vec![seen.display().to_string()];
    let octets = [HAM.as_bytes(), &b"line\r\n\0\xff".repeat(100_000)].concat();
    let mut message = message(octets.clone());
    message.envelope.reverse_path = Some("news@shop.test".into());
    assert!(matches!(filter(options).check(&message).await, Verdict::Found(_)));
    assert!(std::fs::read(&seen).unwrap() == octets);
    let environment = std::fs::read_to_string(seen.with_extension("env")).unwrap();
    let names: Vec<_> = environment.lines().map(|line| line.split('=').next().unwrap()).collect();
    let known = ["ACCOUNT", "CONNECTORD_ID", "HOME", "LANG", "LOGNAME", "PATH", "PWD", "RECIPIENT", "SENDER", "USER"];
    assert!(names.iter().all(|name| known.contains(name) || *name == "_"), "{names:?}");
    assert!(environment.contains("SENDER=news@shop.test\n") && environment.contains("RECIPIENT=bob@example.org\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_its_output_replace_those_of_the_message_also_when_it_writes_the_whole_message_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut options =
        script(directory.path(), "echo 'X-Bogosity: Ham, tests=bogofilter'; sed 's/^Subject: .*/Subject: dinner/'");
    options.output = Output::Header;
    let expected = [
        HeaderChange::Add { name: "X-Bogosity".into(), value: "Ham, tests=bogofilter".into() },
        HeaderChange::Remove { name: "Subject".into(), nth: 0 },
        HeaderChange::Add { name: "Subject".into(), value: "dinner".into() },
    ];
    let filter = filter(options);
    assert_eq!(found(&filter, HAM).await.headers, expected);
    // However much follows.
    let long = [HAM.as_bytes(), &b"line\r\n".repeat(500_000)].concat();
    assert_eq!(found(&filter, long).await.headers, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_end_and_all_it_started_is_killed_at_the_deadline_and_when_nobody_waits() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let mut options = script(directory.path(), "sleep 600 & echo $! $$ >\"$1.new\"; mv \"$1.new\" \"$1\"; wait");
    options.arguments = vec![pids.display().to_string()];
    let filter = Arc::new(filter(options));
    let mut hung = message(HAM);
    hung.deadline = Instant::now() + Duration::from_secs(2);
    let trouble = unchecked(filter.check(&hung).await);
    assert_eq!(trouble.why, Why::TimedOut, "{trouble}");
    are_gone(&pids).await;

    let checking = filter.clone();
    let check = tokio::spawn(async move { checking.check(&message(HAM)).await });
    while !pids.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    check.abort();
    assert!(check.await.unwrap_err().is_cancelled());
    are_gone(&pids).await;
    assert_eq!((filter.health().running, filter.health().failed), (0, 2));
}

/// Waits until no process of the list runs any more; the list goes.
async fn are_gone(list: &Path) {
    let Ok(pids) = std::fs::read_to_string(list) else { return };
    std::fs::remove_file(list).unwrap();
    let runs = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    let deadline = Instant::now() + PATIENCE;
    while pids.split_whitespace().any(runs) {
        assert!(Instant::now() < deadline, "{pids} still run");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_missing_or_a_user_that_is_none_is_a_mistake_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let missing = filter(Options::new(directory.path().join("missing"), Vec::new()));
    let mut options = script(directory.path(), "exit 0");
    options.run_as = Some("no-such-user-here".into());
    let nobody = filter(options);
    for filter in [missing, nobody] {
        assert_eq!(unchecked(filter.check(&message(HAM)).await).why, Why::Misconfigured);
        assert_eq!(filter.ping(Instant::now() + PATIENCE).await.unwrap_err().why, Why::Misconfigured);
    }
    assert!(Command::new("x".into(), Options::new("bin/relative", Vec::new())).is_err());
    assert!(Command::new("x".into(), Options::new("/bin/true", vec!["a\0b".into()])).is_err());
    assert!(Command::new("two words".into(), Options::new("/bin/true", Vec::new())).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_battery() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = script(directory.path(), "! grep -q fox || { echo fox; exit 7; }");
    options.kind = Kind::Antivirus;
    options.meanings.insert(7, Meaning::Virus);
    passes_the_battery(&filter(options)).await;
}
