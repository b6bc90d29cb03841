//! The demonstration, as a person runs it: the built program, its output, and the Maildirs it leaves.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Deliveries of the first round: 40 and 36 messages to anna, 24 to anna and to bob.
const FIRST_ROUND: (usize, usize) = (100, 24);

fn demo(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_connectord"));
    command.arg("demo").arg("--dir").arg(directory).args(arguments).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
}

/// Messages of anna and of bob.
fn delivered(directory: &Path) -> (usize, usize) {
    let count = |user: &str| {
        let folders = ["new", "cur"].map(|folder| directory.join("mail").join(user).join(folder));
        folders.iter().map(|folder| folder.read_dir().unwrap().count()).sum()
    };
    (count("anna"), count("bob"))
}

#[test]
fn a_second_round_in_the_same_directory_delivers_nothing_twice() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("demo with a space");
    for (new, said) in [("124", "Everything is in"), ("0", "It is from an earlier demonstration")] {
        let output = demo(&directory, &["--once"]).output().unwrap();
        let (text, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{text}\n{log}");
        assert!(text.contains(said), "{text}");
        assert!(text.contains("Counted by Message-ID: 100 messages at the servers"), "{text}");
        assert!(text.contains("124 to deliver, 124 in the Maildirs; 0 missing, 0 came twice."), "{text}");
        let total = text.lines().find(|line| line.starts_with("3 accounts")).unwrap_or_else(|| panic!("{text}"));
        // ACCOUNT STATE LISTED NEW DELIVERED …: "3 accounts", "3 ok", then numbers.
        let fields: Vec<_> = total.split_whitespace().collect();
        assert_eq!((fields[4], fields[6]), ("100", new), "{text}");
        assert_eq!(delivered(&directory), FIRST_ROUND);
    }
}

#[test]
fn a_mail_that_is_lost_or_doubled_behind_our_back_is_told() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("demo");
    let exit = || demo(&directory, &["--once"]).output().unwrap().status.code();
    assert_eq!(exit(), Some(0));
    let new = directory.join("mail/anna/new");
    let file = new.read_dir().unwrap().next().unwrap().unwrap().path();
    std::fs::copy(&file, new.join("1.copy.host")).unwrap();
    assert_eq!(exit(), Some(74));
    std::fs::remove_file(new.join("1.copy.host")).unwrap();
    std::fs::remove_file(file).unwrap();
    assert_eq!(exit(), Some(75));
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("holiday.jpg"), "x").unwrap();
    let output = demo(directory.path(), &["--once"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not empty"), "{output:?}");
}

#[test]
fn it_goes_on_receiving_and_ends_within_five_seconds_of_a_signal() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("demo");
    let mut running = Running(demo(&directory, &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let (sender, lines) = mpsc::channel();
    let out = BufReader::new(running.0.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            sender.send(line).unwrap();
        }
    });
    let mut said = Vec::new();
    // Past the introduction, where accounts have arrows too.
    let mut wait_for = |what: &dyn Fn(&str) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("waited in vain: {said:#?}"));
            said.push(line.clone());
            if what(&line) {
                return line;
            }
        }
    };
    wait_for(&|line| line.contains("Now it goes on"));
    let live = wait_for(&|line| line.contains(" -> "));
    assert!(live.trim_end().ends_with('s'), "no duration: {live}");
    let pid = Pid::from_raw(running.0.id().try_into().unwrap());
    let (told, began) = (kill(pid, Signal::SIGTERM), Instant::now());
    told.unwrap();
    let status = running.0.wait().unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(status.code(), Some(0));
    wait_for(&|line| line.starts_with("Stopped after"));
    wait_for(&|line| line.contains(" missing, 0 came twice."));
    reader.join().unwrap();
    let (anna, bob) = delivered(&directory);
    assert!(anna + bob > FIRST_ROUND.0 + FIRST_ROUND.1, "{anna} and {bob}");

    // What arrived while it ran is known to the servers and to us at the next start.
    let output = demo(&directory, &["--once"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// Killed when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
