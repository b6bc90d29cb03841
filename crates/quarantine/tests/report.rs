//! Users are told what is held for them: once, boundedly, and with nothing in it that a mail program obeys.

#![allow(clippy::unwrap_used, clippy::or_fun_call, reason = "in a test's helpers a panic is the failure")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::{Fate, NOW, directory, for_both, held, open, open_with};
use connectord_deliveries::maildir::{Maildir, Options};
use connectord_delivery::{Delivery, Recipient};
use connectord_filter::{Held, Quarantine};
use connectord_quarantine::{DirectoryQuarantine, Report, Reporter};

fn destination(at: &Path) -> impl Fn(&str) -> Option<Arc<dyn Delivery>> {
    for user in ["ann", "bob"] {
        std::fs::create_dir_all(at.join(user)).unwrap();
    }
    let path = format!("{}/{{user}}/Maildir", at.display());
    let maildir: Arc<dyn Delivery> = Arc::new(Maildir::new(Options::new(path.parse().unwrap(), "instance")));
    move |name| (name == "default").then(|| Arc::clone(&maildir))
}

fn reporter() -> Reporter {
    Reporter { machine: "mail.here.test".into(), now: NOW, user: None, dry_run: false }
}

async fn report(quarantine: &DirectoryQuarantine, at: &Path) -> Vec<(String, usize, bool)> {
    let reports = quarantine.report(&reporter(), destination(at)).await.unwrap();
    reports.iter().map(|one: &Report| (one.user.clone(), one.messages, matches!(one.outcome, Some(Ok(_))))).collect()
}

/// The reports that a user got: header and text.
fn got(at: &Path, user: &str) -> Vec<(String, String)> {
    let mut got = Vec::new();
    for entry in std::fs::read_dir(at.join(user).join("Maildir/new")).into_iter().flatten() {
        let mail = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let (head, body) = mail.split_once("\n\n").unwrap();
        let text = STANDARD.decode(body.replace('\n', "")).unwrap();
        got.push((head.to_owned(), String::from_utf8(text).unwrap()));
    }
    got
}

#[tokio::test]
async fn each_user_is_told_once_of_what_is_held_for_them() {
    let here = directory();
    let path = here.path().join("q");
    let quarantine = open(&path);
    quarantine.keep(held(1)).await.unwrap();
    quarantine.keep(for_both(2)).await.unwrap();
    let dry = Reporter { dry_run: true, ..reporter() };
    let would = quarantine.report(&dry, destination(here.path())).await.unwrap();
    assert_eq!(
        would.iter().map(|one| (&*one.user, one.messages, one.outcome.is_none())).collect::<Vec<_>>(),
        [("ann", 2, true), ("bob", 1, true)]
    );
    assert!(quarantine.report_is_due(NOW));
    assert_eq!(report(&quarantine, here.path()).await, [("ann".into(), 2, true), ("bob".into(), 1, true)]);
    assert!(!quarantine.report_is_due(NOW.plus(Duration::from_secs(3600))));
    assert!(quarantine.report_is_due(NOW.plus(Duration::from_secs(24 * 3600))));
    assert_eq!(report(&quarantine, here.path()).await, []);
    drop(quarantine);
    // Also across a restart, and when the last message went meanwhile.
    let quarantine = open(&path);
    assert_eq!(report(&quarantine, here.path()).await, []);
    assert!(quarantine.discard(common::id(2), NOW).await.unwrap());
    drop(quarantine);
    let quarantine = open(&path);
    quarantine.keep(held(3)).await.unwrap();
    let only_bob = Reporter { user: Some("bob".into()), ..reporter() };
    assert_eq!(quarantine.report(&only_bob, destination(here.path())).await.unwrap(), []);
    assert_eq!(report(&quarantine, here.path()).await, [("ann".into(), 1, true)]);

    let bob = got(here.path(), "bob").remove(0);
    for field in [
        "From: connectord@mail.here.test",
        "To: bob@here.test",
        "Subject: 1 message is held back",
        "Auto-Submitted: auto-generated",
        "Content-Type: text/plain; charset=utf-8",
    ] {
        assert!(bob.0.lines().any(|line| line == field), "{field} in {}", bob.0);
    }
    assert!(bob.1.contains(&common::id(2).to_string()) && bob.1.contains("Subject: Grüße 2\n"), "{}", bob.1);
    assert_eq!(got(here.path(), "ann").len(), 2);
}

#[tokio::test]
async fn a_destination_that_is_gone_or_fails_is_told_of_and_tried_again() {
    let here = directory();
    let quarantine = open(&here.path().join("q"));
    quarantine.keep(held(1)).await.unwrap();
    let reports = quarantine.report(&reporter(), |_| None).await.unwrap();
    assert!(matches!(&reports[0].outcome, Some(Err(failure)) if failure.text.contains("no destination default")));
    assert_eq!(report(&quarantine, here.path()).await, [("ann".into(), 1, true)]);
}

#[tokio::test]
async fn killed_before_any_step_of_its_own_a_report_comes_once() {
    for step in 1.. {
        let here = directory();
        let path = here.path().join("q");
        let quarantine = open(&path);
        quarantine.keep(held(1)).await.unwrap();
        drop(quarantine);
        let fate = Fate::dead_from(step + 1);
        let quarantine = open_with(&path, fate.options());
        let told = quarantine.report(&reporter(), destination(here.path())).await;
        drop(quarantine);
        // A reader has seen it, and deleted it.
        let seen = got(here.path(), "ann").len();
        let _ = std::fs::remove_dir_all(here.path().join("ann/Maildir/new"));
        let _ = std::fs::create_dir(here.path().join("ann/Maildir/new"));
        // The next start looks first, and sweeps then, as the program does.
        let quarantine = open(&path);
        let destination = destination(here.path());
        quarantine.recover(&destination, NOW).await;
        let ann = Recipient { user: "ann".into(), address: "ann@here.test".into() };
        destination("default").unwrap().sweep(&[ann], &[]).await;
        let later = Reporter { now: NOW.plus(Duration::from_secs(60)), ..reporter() };
        let reports = quarantine.report(&later, &destination).await.unwrap();
        assert!(reports.iter().all(|report| matches!(report.outcome, Some(Ok(_)))), "step {step}: {reports:?}");
        assert_eq!(quarantine.report(&later, &destination).await.unwrap(), [], "step {step}");
        assert_eq!(seen + got(here.path(), "ann").len(), 1, "step {step}");
        if told.is_ok() {
            assert!(step > 10);
            break;
        }
    }
}

#[tokio::test]
async fn a_report_is_bounded_and_inert() {
    let here = directory();
    let quarantine = open(&here.path().join("q"));
    for number in 0..250 {
        let mut held = held(number);
        held.body = Arc::new(Bytes::from(format!(
            "From: \u{1b}]0;owned\u{7} <x@x.test>\r\nSubject: =?utf-8?B?{}?= {}\r\n\r\n",
            STANDARD.encode("\u{202e}fdp.exe\r\nBcc: all https://evil.test/ www.evil.test \u{9b}2J"),
            "long ".repeat(1000)
        )));
        quarantine.keep(Held { reason: "r\u{2028}\n".repeat(5000), ..held }).await.unwrap();
    }
    report(&quarantine, here.path()).await;
    let (head, text) = got(here.path(), "ann").remove(0);
    assert!(head.contains("Subject: 250 messages are held back"));
    assert!(text.contains("And 50 more.\n") && text.len() < 200_000, "{} octets", text.len());
    let obeyed = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{2028}');
    assert!(!text.contains(obeyed) && !text.contains("://") && !text.contains("www."));
    assert!(text.contains("\\u{202e}fdp.exe\\r\\nBcc: all https:/ /evil"), "{}", &text[..2000]);
}
