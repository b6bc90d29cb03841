//! connectorctl by the API: each command as a process, over a real Unix socket, beside an installation in memory.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

#[path = "../../../crates/admin/tests/support/sample.rs"]
#[allow(dead_code, unreachable_pub, unused_qualifications, reason = "the sample of another crate's tests")]
mod sample;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use common::{Daemon, Installation, Outcome, control_command, wait_until};
use connectord_admin::{Backend, Keep, Listener, MemoryKeep, serve};
use sample::Sample;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The sample of the API behind `api.sock` in a directory of its own, and on a port of loopback.
struct Here {
    directory: TempDir,
    sample: Arc<Sample>,
    port: SocketAddr,
    runtime: Runtime,
}

impl Here {
    fn new(accounts: usize) -> Self {
        Self::with(Sample::new(accounts))
    }

    fn with(sample: Sample) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sample, keep) = (Arc::new(sample), Arc::new(MemoryKeep::default()));
        let inside = runtime.enter();
        let socket = tokio::net::UnixListener::bind(directory.path().join("api.sock")).unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        let port = tcp.local_addr().unwrap();
        let tcp = tokio::net::TcpListener::from_std(tcp).unwrap();
        for listener in [Listener::Unix(socket), Listener::Tcp(tcp)] {
            let (backend, keep): (Arc<dyn Backend>, Arc<dyn Keep>) = (sample.clone(), keep.clone());
            let options = connectord_admin::Options {
                // Hashing as cheap as Argon2 can: these tests are not about it.
                argon2: argon2::Params::new(64, 1, 1, None).unwrap(),
                here: Some("http://127.0.0.1:8025".to_owned()),
                own_accounts: true,
                socket_admins: vec![rustix::process::getuid().as_raw()],
                ..Default::default()
            };
            runtime.spawn(async move { serve(listener, backend, keep, options, std::future::pending()).await });
        }
        drop(inside);
        Self { directory, sample, port, runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = control_command(self.directory.path());
        command.arg("--socket").arg(self.directory.path()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(arguments), b"")
    }

    #[track_caller]
    fn well(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome}");
        outcome.stdout
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.well(&[&["--json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// A token, by way of the socket.
    fn token(&self, role: &str) -> PathBuf {
        let token = self.well(&["token", "create", &format!("of-{role}"), "--role", role]);
        let file = self.path(&format!("token-{role}"));
        std::fs::write(&file, token).unwrap();
        file
    }

    /// The address of the account `a0`, `a1`, …
    fn address(&self, nth: usize) -> String {
        let account = self.runtime.block_on(self.sample.account(&format!("a{nth:x}")));
        account.unwrap().row.address
    }
}

/// Every command that shows something, by its arguments.
const SHOWING: &[&[&str]] = &[
    &["status"],
    &["users"],
    &["messages"],
    &["message", "m3"],
    &["quarantine", "list"],
    &["quarantine", "show", "q0"],
    &["quarantine", "show", "q1"],
    &["parked", "list"],
    &["audit"],
    &["health"],
    &["log"],
    &["token", "list"],
    &["person", "list"],
];

#[test]
fn every_command_shows_what_the_page_shows() {
    let here = Here::new(800);
    let shown = |arguments: &[&str]| here.well(arguments);
    let has = |arguments: &[&str], words: &[&str]| {
        let text = shown(arguments);
        for word in words {
            assert!(text.contains(word), "{arguments:?} lacks {word:?}: {text}");
        }
    };
    has(&["status"], &["Accounts   800   ", "Now ", "Today ", "ok Rspamd 38 ms", "NEEDS ACTION\n! info@example.org: "]);
    has(&["users", "ann"], &["USER", "NEED ACTION", "! anna ", " 214"]);
    has(&["users"], &["mark", "gone here"]);
    has(&["messages", "--state", "spam"], &["STATE", "spam 14.2 of 6.0", "@shop.test"]);
    has(&["messages", "4711", "--most", "2"], &["Rechnung 4711", "2 of ", "--all shows all"]);
    has(
        &["message", "m3"],
        &["State       spam", "TRAIL\n", "filter          Rspamd 1.2 of 6", "delivered       250 2.0.0 Saved"],
    );
    has(&["quarantine", "list"], &["WHY", "virus Eicar-Test", "spam 21.5 of 15.0", "Invoice.zip"]);
    has(
        &["quarantine", "show", "q1"],
        &["the provider still has it", "Received: from mx.shop.test", "    7.5  URIBL_BLACK"],
    );
    has(&["parked", "list"], &["84.0 MB", "cut short 3 times"]);
    has(&["audit"], &["account.update", "check: 30m to 15m"]);
    has(&["health"], &["PART", "Rspamd", "38 ms"]);
    has(&["log"], &["error  filter rspamd: connection refused"]);
    has(&["export"], &["address,protocol,security,host", "info@example.org"]);
    assert!(!shown(&["log", "--level", "error"]).contains("info "));
    for arguments in SHOWING.iter().filter(|arguments| arguments[0] != "log") {
        assert!(here.json(arguments).is_object(), "{arguments:?}");
    }
    let status = here.json(&["status"]);
    assert_eq!((&status["accounts"]["total"], &status["now"]["queued"].is_u64()), (&800.into(), &true));
    assert!(status["causes"][0]["sentence"].is_string() && status["causes"][0]["code"].is_string(), "{status}");
}

#[test]
fn what_comes_from_outside_does_nothing_to_a_terminal_in_any_field() {
    let here = Here::with(Sample::hostile(21));
    let id_of_first = here.address(0);
    here.well(&["token", "create", "hostile", "--role", "read"]);
    let watched: &[&str] = &["--json", "log", "--level", "debug", "--account", &id_of_first];
    let mut shown = 0;
    for arguments in SHOWING.iter().copied().chain([watched, &["log", "--level", "debug"]]) {
        for json in [false, true] {
            let outcome = here.run(&[if json { &["--json"][..] } else { &[] }, arguments].concat());
            let text = format!("{}{}", outcome.stdout, outcome.stderr);
            for raw in ['\u{1b}', '\u{202e}', '\u{7}', '\u{9b}'] {
                assert!(!text.contains(raw), "{arguments:?} holds {raw:?}: {text:?}");
            }
            shown += usize::from(text.contains("{{7*7}}"));
        }
    }
    assert!(shown >= 20, "only {shown} answers showed what came from outside at all");
}

#[test]
fn a_list_of_any_length_is_shown_page_by_page_and_goes_on_where_it_ended() {
    let here = Here::new(30);
    assert_eq!(here.well(&["messages", "--all"]).lines().count(), 401);
    let all = here.json(&["messages", "--all"]);
    let items = all["items"].as_array().unwrap();
    assert_eq!((items.len(), &all["total"], &all["next"]), (400, &400.into(), &Value::Null));
    let first = here.json(&["messages", "--most", "3"]);
    let next = first["next"].as_str().unwrap();
    let second = here.json(&["messages", "--most", "3", "--after", next]);
    assert_eq!(
        items[..6],
        [first["items"].as_array().unwrap().as_slice(), second["items"].as_array().unwrap()].concat()
    );
}

#[test]
fn messages_are_released_discarded_tried_again_and_left_alone() {
    let here = Here::new(20);
    assert_eq!(
        here.well(&["quarantine", "release", "q0", "q1", "--learn"]),
        "2 messages are delivered without a new scan.\n"
    );
    let refused = here.run(&["quarantine", "discard", "q2"]);
    assert_eq!(refused.code, Some(64), "{refused}");
    assert!(refused.stderr.contains("--yes"), "{refused}");
    assert_eq!(here.json(&["quarantine", "discard", "q2", "--yes"])["count"], 1);
    assert_eq!(here.json(&["quarantine", "list"])["total"], 11);
    assert!(here.well(&["parked", "retry", "p0"]).starts_with("1 message is "));
    here.well(&["parked", "anyway", "p1"]);
    here.well(&["parked", "skip", "p2"]);
    assert_eq!(here.well(&["parked", "list"]), "Nothing is parked.\n");
    let file = here.path("held.eml");
    let file = file.to_str().unwrap();
    here.well(&["quarantine", "show", "q3", "--output", file]);
    assert!(std::fs::read_to_string(file).unwrap().starts_with("Subject: "));
    let again = here.run(&["quarantine", "show", "q3", "--output", file]);
    assert_eq!(again.code, Some(74), "{again}");
    let missing = here.run(&["message", "../../../etc/passwd"]);
    assert_eq!(missing.code, Some(64), "{missing}");
    assert!(missing.stderr.contains("not any more"), "{missing}");
}

#[test]
fn all_or_some_accounts_are_checked_and_stopped() {
    let here = Here::new(200);
    assert!(here.well(&["check-all"]).starts_with("200 accounts are checked now"));
    assert_eq!(here.json(&["check-all", "--state", "delayed"])["count"], 3);
    let (first, second) = (here.address(0), here.address(3));
    assert_eq!(here.json(&["stop", &first, &second.to_uppercase()])["count"], 2);
    assert_eq!(here.json(&["stop", "--all"])["count"], 200);
    assert_eq!(here.run(&["stop"]).code, Some(64));
    let unknown = here.run(&["stop", "nobody@nowhere.test"]);
    assert_eq!(unknown.code, Some(64), "{unknown}");
    assert!(unknown.stderr.contains("there is no account nobody@nowhere.test"), "{unknown}");
}

#[test]
fn accounts_come_in_from_csv_and_go_out_again_without_secrets() {
    let here = Here::new(20);
    let csv = "address,host,deliver_to,secret,note\r\n\
        one@x.test,imap.x.test,anna,s3cret,\"two\r\nlines\"\r\n\
        bad@x.test,imap.x.test,,s3cret,\r\n\
        three@x.test,imap.x.test,bob,s3cret,\r\n";
    let file = here.path("accounts.csv");
    std::fs::write(&file, csv).unwrap();
    let file = file.to_str().unwrap();
    let dry = here.run(&["import", file, "--dry-run"]);
    assert_eq!(dry.code, Some(65), "{dry}");
    assert!(dry.stdout.ends_with("2 to add, 0 to update, 0 the same, 1 refused. Nothing was changed.\n"), "{dry}");
    assert!(!here.well(&["export"]).contains("one@x.test"));
    let done = here.run(&["--json", "import", file]);
    assert_eq!(done.code, Some(65), "{done}");
    let lines: Vec<(u64, String)> = done.report()["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["line"].as_u64().unwrap(), line["outcome"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(lines, [(2, "add".to_owned()), (3, "refused".to_owned()), (4, "add".to_owned())]);
    let export = here.well(&["export"]);
    assert!(export.contains("one@x.test") && export.contains("three@x.test") && !export.contains("s3cret"), "{export}");
    let again = Outcome::of(&mut here.command(&["import", "-", "--untested"]), export.as_bytes());
    assert!(again.stdout.contains("0 added, "), "{again}");
}

#[test]
fn tokens_and_people_are_made_and_taken_away() {
    let here = Here::new(10);
    let link = here.well(&["token", "first-start"]);
    assert!(link.starts_with("http://127.0.0.1:8025/start/"), "{link}");
    let invited = here.run(&["person", "invite", "anna", "--role", "own", "--user", "anna"]);
    assert!(invited.stdout.contains("/start/") && invited.stderr.contains("It works once"), "{invited}");
    here.token("read");
    let listed = here.json(&["token", "list"]);
    assert_eq!((&listed["items"][0]["name"], &listed["items"][0]["role"]), (&"of-read".into(), &"read".into()));
    assert_eq!(here.run(&["token", "revoke", "of-read"]).code, Some(64));
    here.well(&["token", "revoke", "of-read", "--yes"]);
    assert_eq!(here.well(&["token", "list"]).lines().count(), 1);
    assert_eq!(here.run(&["person", "remove", "nobody", "--yes"]).code, Some(64));
}

#[test]
fn from_elsewhere_a_token_is_needed_and_its_role_counts() {
    let here = Here::new(10);
    let url = format!("http://{}", here.port);
    let asked = |arguments: &[&str], token: Option<&Path>| {
        let mut command = control_command(here.directory.path());
        command.args(["--url", &url]).args(arguments);
        if let Some(token) = token {
            command.arg("--token-file").arg(token);
        }
        Outcome::of(&mut command, b"")
    };
    let stranger = asked(&["users"], None);
    assert_eq!(stranger.code, Some(77), "{stranger}");
    assert!(stranger.stderr.contains("hint: ") && stranger.stderr.contains("--token-file"), "{stranger}");
    let reader = here.token("read");
    assert_eq!(asked(&["users"], Some(&reader)).code, Some(0));
    let refused = asked(&["person", "list"], Some(&reader));
    assert_eq!(refused.code, Some(77), "{refused}");
    assert!(refused.stderr.contains("it takes the role admin"), "{refused}");
    let far = Outcome::of(control_command(here.directory.path()).args(["--url", "http://example.org", "users"]), b"");
    assert_eq!(far.code, Some(64), "{far}");
}

#[test]
fn without_a_daemon_it_says_where_it_looked() {
    let nobody = tempfile::tempdir().unwrap();
    let mut command = control_command(nobody.path());
    let asked = Outcome::of(command.arg("--socket").arg(nobody.path()).arg("health"), b"");
    assert_eq!(asked.code, Some(69), "{asked}");
    assert!(asked.stderr.contains("api.sock") && asked.stderr.contains("Do: connectord serve"), "{asked}");
    // One that takes the question and goes away.
    let listener = std::os::unix::net::UnixListener::bind(nobody.path().join("api.sock")).unwrap();
    let gone = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let mut command = control_command(nobody.path());
    let asked = Outcome::of(command.arg("--socket").arg(nobody.path()).arg("health"), b"");
    gone.join().unwrap();
    assert_eq!(asked.code, Some(75), "{asked}");
}

#[test]
fn a_check_is_watched_until_it_has_ended() {
    let here = Here::new(20);
    let address = here.address(1);
    for json in [false, true] {
        here.sample.advance("a1", 300);
        let watch = Daemon::start(
            here.command(&[if json { "--json" } else { "--color=never" }, "watch", &address]).stdin(Stdio::null()),
        );
        wait_until("the tally", || watch.stdout().contains("300"));
        here.sample.advance("a1", 900);
        if json {
            wait_until("the next tally", || watch.stdout().contains("900"));
        }
        here.well(&["stop", &address]);
        let ended = watch.wait(std::time::Duration::from_secs(60));
        assert_eq!(ended.code, Some(0), "{ended}");
        if json {
            let events = ended.reports();
            assert!(
                events.iter().all(|event| event["account"] == address.as_str() && event["at"].is_string()),
                "{ended}"
            );
            assert_eq!(
                events.last().map(|event| (&event["event"], &event["done"])),
                Some((&"done".into(), &900.into()))
            );
        } else {
            assert!(ended.stdout.lines().last().is_some_and(|line| line.contains("  done: ")), "{ended}");
            assert!(ended.stdout.contains("300 of 1,240"), "{ended}");
        }
    }
    let now = here.run(&["watch", "--now"]);
    assert_eq!(now.code, Some(64), "{now}");
}

#[test]
fn all_that_runs_is_watched_a_line_for_each_change() {
    let here = Here::new(20);
    let (second, third) = (here.address(1), here.address(3));
    let watch = Daemon::start(here.command(&["watch"]).stdin(Stdio::null()));
    wait_until("what runs already", || watch.stdout().contains(&format!("{second}  login: SCRAM-SHA-256")));
    here.sample.advance("a3", 7);
    wait_until("what began", || watch.stdout().contains(&format!("{third}  7 of 1,240")));
    here.well(&["stop", "--all"]);
    wait_until("both ends", || watch.stdout().matches("  done: ").count() >= 2);
    watch.signal(nix::sys::signal::Signal::SIGTERM);
    watch.wait(std::time::Duration::from_secs(60));
}

#[test]
fn the_log_goes_on_and_a_line_is_one_line_whatever_it_holds() {
    let here = Here::new(10);
    let log = Daemon::start(here.command(&["log", "--follow", "-n", "3"]).stdin(Stdio::null()));
    wait_until("the last lines", || log.stdout().lines().count() == 3);
    here.sample.log_line("a new line\nerror forged\u{1b}[2J");
    wait_until("the new line", || log.stdout().contains("a new line"));
    log.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = log.wait(std::time::Duration::from_secs(60));
    assert_eq!(ended.stdout.lines().count(), 4, "{ended}");
    assert!(ended.stdout.ends_with("a new line\\nerror forged\\x1b[2J\n"), "{ended}");
}

/// What the command shows on a terminal of 80 columns.
fn on_a_terminal(here: &Here, environment: &str, arguments: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_connectorctl");
    let socket = here.directory.path().display();
    let line = format!("stty cols 80; {environment} exec {program} --socket {socket} {}", arguments.join(" "));
    let mut script = std::process::Command::new("script");
    script.args(["-q", "-e", "-c", &line, "/dev/null"]).env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
    let outcome = Outcome::of(&mut script, b"");
    assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome}");
    outcome.stdout
}

#[test]
fn on_a_terminal_nothing_wraps_and_colour_is_as_wished() {
    let here = Here::new(200);
    for arguments in SHOWING.iter().filter(|arguments| arguments.last() == Some(&"list") || arguments.len() == 1) {
        let shown = on_a_terminal(&here, "NO_COLOR=1", arguments);
        assert!(!shown.contains('\u{1b}'), "{arguments:?}: {shown:?}");
        assert!(!shown.contains(['✓', '▸', '…']), "the C locale has no other marks: {shown}");
        let tables = !["status", "log"].contains(&arguments[0]);
        for line in shown.lines().filter(|_| tables) {
            assert!(line.chars().count() <= 80, "{arguments:?} is wider than the terminal: {line:?}");
        }
    }
    let heads = "\u{1b}[2mID";
    assert!(on_a_terminal(&here, "", &["messages"]).starts_with(heads));
    assert!(!here.well(&["messages"]).contains('\u{1b}'), "a pipe has no colour");
    assert!(here.well(&["--color", "always", "messages"]).starts_with(heads));
    assert!(!on_a_terminal(&here, "", &["--color", "never", "messages"]).contains('\u{1b}'));
    assert!(on_a_terminal(&here, "LC_ALL=C.UTF-8", &["health"]).contains('✓'));
}

#[test]
fn a_shell_completes_commands_and_addresses() {
    let here = Here::new(30);
    let program = env!("CARGO_BIN_EXE_connectorctl");
    for shell in ["bash", "zsh", "fish"] {
        let script = here.well(&["completion", shell]);
        assert!(script.contains("connectorctl") && script.contains("COMPLETE"), "{script}");
    }
    assert_eq!(here.run(&["completion", "elvish"]).code, Some(74));
    let complete = |words: &[&str]| {
        let mut command_line = vec!["--", program, "--socket", here.directory.path().to_str().unwrap()];
        command_line.extend(words);
        let mut command = control_command(here.directory.path());
        command.args(&command_line);
        let index = (command_line.len() - 2).to_string();
        let outcome =
            Outcome::of(command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n"), b"");
        outcome.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(complete(&["quar"]).contains(&"quarantine".to_owned()));
    assert_eq!(complete(&["watch", "info@ex"]), ["info@example.org"]);
    assert_eq!(complete(&["account", "show", "info@ex"]), ["info@example.org"]);
}

#[test]
fn every_command_has_a_manual_page_and_every_page_names_all_options() {
    for (program, least) in [(env!("CARGO_BIN_EXE_connectorctl"), 45), (env!("CARGO_BIN_EXE_connectord"), 20)] {
        let there = tempfile::tempdir().unwrap();
        let pages = there.path().join("man1");
        let mut command = std::process::Command::new(program);
        let outcome = Outcome::of(command.arg("man").arg(&pages), b"");
        assert_eq!(outcome.code, Some(0), "{outcome}");
        let names: Vec<PathBuf> = std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(names.len() >= least, "{program} has {} pages", names.len());
        for page in names {
            let text = std::fs::read_to_string(&page).unwrap();
            let name = page.file_stem().unwrap().to_str().unwrap();
            let words: Vec<&str> = name.split('-').collect();
            assert!(text.contains(".SH NAME") && text.contains(words[0]), "{name}: {text}");
        }
        let page =
            std::fs::read_to_string(pages.join(format!("{}.1", Path::new(program).file_name().unwrap().display())))
                .unwrap();
        assert!(page.contains("Exit status: 0") && page.contains(r"\-\-config"), "{page}");
    }
}

#[test]
fn the_running_daemon_answers_what_the_sample_answers() {
    let here = Installation::new();
    here.configure("");
    let daemon = here.serve();
    for arguments in SHOWING.iter().filter(|arguments| !matches!(arguments, ["message", ..] | [_, "show", ..])) {
        let outcome = here.ask(arguments, "");
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome}");
    }
    let status = here.ask(&["--json", "status"], "").report();
    assert_eq!((&status["accounts"]["total"], status["now"]["checking"].as_u64()), (&0.into(), Some(0)), "{status}");
    for arguments in [&["check-all"][..], &["stop", "--all"], &["export"], &["token", "first-start"]] {
        let outcome = here.ask(arguments, "");
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome}");
    }
    let missing = here.ask(&["message", "m3"], "");
    assert_eq!(missing.code, Some(64), "{missing}");
    assert_eq!(daemon.stop().code, Some(0));
}
