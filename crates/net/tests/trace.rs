//! What a wire trace shows; alone in its process, as tracing remembers who listens for all threads at once.
#![allow(clippy::unwrap_used, reason = "a test may stop where its premise fails")]

mod common;

use std::io;

use common::{Lines, quick};
use connectord_net::{Driver, Stream};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn what_a_login_sends_and_receives_is_not_in_the_trace() {
    let seen = Seen::default();
    let writer = seen.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (mut driver, mut theirs) = {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        (Driver::new(Stream::from_io(ours, "mail.example.org:110"), Lines::new(), quick()), theirs)
    };
    theirs.write_all(b"+OK \x1b[2J\r\n").await.unwrap();
    driver.next().await.unwrap();
    driver.machine().confidential = true;
    driver.machine().say("PASS hunter2\r\n");
    driver.flush().await.unwrap();
    theirs.write_all(b"+OK you said hunter2\r\n").await.unwrap();
    driver.next().await.unwrap();
    driver.machine().confidential = false;
    driver.machine().say("STAT\r\n");
    driver.flush().await.unwrap();
    theirs.write_all(&[b'm'; 3000]).await.unwrap();
    theirs.write_all(b"\r\n").await.unwrap();
    driver.next().await.unwrap();
    let seen = String::from_utf8(seen.0.lock().unwrap().clone()).unwrap();
    assert!(!seen.contains("hunter2") && !seen.contains('\x1b'), "{seen}");
    for expected in [
        "connectord::wire: wire peer=\"mail.example.org:110\" way=received length=10 octets=+OK \\x1b[2J\\r\\n",
        "connectord::wire::auth: wire peer=\"mail.example.org:110\" way=sent octets=\"***\"",
        "connectord::wire::auth: wire peer=\"mail.example.org:110\" way=received octets=\"***\"",
        "connectord::wire: wire peer=\"mail.example.org:110\" way=sent length=6 octets=STAT\\r\\n",
        "connectord::wire::data: wire peer=\"mail.example.org:110\" way=received octets=mmm",
    ] {
        assert!(seen.contains(expected), "{expected}\n{seen}");
    }
}

/// Collects what a subscriber writes.
#[derive(Clone, Default)]
struct Seen(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Seen {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
