//! The battery that every destination passes, for those that write local files or start programs.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use connectord_deliveries::battery::{Bench, lf};
use connectord_deliveries::{command, maildir, mbox};
use connectord_delivery::Recipient;

fn recipients() -> [Recipient; 2] {
    ["ann", "bob"].map(|user| Recipient { user: user.into(), address: format!("{user}@example.org") })
}

fn files(dir: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn maildir_passes() {
    let dir = tempfile::tempdir().unwrap();
    for user in ["ann", "bob"] {
        fs::create_dir(dir.path().join(user)).unwrap();
    }
    let path = format!("{}/{{user}}/Maildir", dir.path().display());
    let options = maildir::Options::new(path.parse().unwrap(), "inst");
    let read = |recipient: &Recipient| files(&dir.path().join(&recipient.user).join("Maildir/new"));
    let delivery = Arc::new(maildir::Maildir::new(options));
    Bench { delivery: delivery.clone(), recipients: recipients(), read: &read, form: lf }.run().await;
    delivery.tidy().await;
    for user in ["ann", "bob"] {
        assert_eq!(files(&dir.path().join(user).join("Maildir/tmp")), Vec::<Vec<u8>>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mbox_passes() {
    let dir = tempfile::tempdir().unwrap();
    let options = mbox::Options::new(format!("{}/{{user}}", dir.path().display()).parse().unwrap());
    let read = |recipient: &Recipient| match fs::read(dir.path().join(&recipient.user)) {
        Ok(octets) => messages(&octets),
        Err(_) => Vec::new(),
    };
    // An mbox always ends a message with a line end.
    let form = |octets: &[u8]| {
        let mut octets = lf(octets);
        if !octets.is_empty() && !octets.ends_with(b"\n") {
            octets.push(b'\n');
        }
        octets
    };
    let delivery = Arc::new(mbox::Mbox::new(options));
    Bench { delivery, recipients: recipients(), read: &read, form }.run().await;
    assert!(!dir.path().join("ann.lock").exists());
}

/// Splits an mbox and takes its quoting back.
fn messages(octets: &[u8]) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for line in octets.split_inclusive(|o| *o == b'\n') {
        if line.starts_with(b"From ") {
            messages.push(Vec::new());
            continue;
        }
        let quotes = line.iter().take_while(|o| **o == b'>').count();
        let line = if quotes > 0 && line[quotes..].starts_with(b"From ") { &line[1..] } else { line };
        messages.last_mut().unwrap().extend_from_slice(line);
    }
    for message in &mut messages {
        assert_eq!(message.pop(), Some(b'\n'), "an empty line ends each message");
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn command_passes() {
    let dir = tempfile::tempdir().unwrap();
    for user in ["ann", "bob"] {
        fs::create_dir(dir.path().join(user)).unwrap();
    }
    let script = format!("exec cat > {}/\"$1\"/\"$CONNECTORD_ID\"", dir.path().display());
    let arguments = ["-c", &script, "sh", "{user}"].map(|text| text.parse().unwrap());
    let options = command::Options::new("/bin/sh", arguments.to_vec());
    let read = |recipient: &Recipient| files(&dir.path().join(&recipient.user));
    let delivery = Arc::new(command::Command::new(options));
    Bench { delivery, recipients: recipients(), read: &read, form: lf }.run().await;
}
