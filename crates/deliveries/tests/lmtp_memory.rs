//! The size of a message does not matter to memory. Alone in its process, whose memory is measured.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use connectord_deliveries::lmtp::{Lmtp, Options};
use connectord_delivery::{Delivery, Outcome, Parcel, Recipient};
use connectord_mail::{Body, DeliveryId, Identity};
use connectord_net::Connector;
use connectord_testkit::{Dovecot, DovecotOptions};

const TRACE: &str = "Received: from pop.example.org by connectord\r\n";

/// A message made while it is read; remembers the largest read.
struct Large {
    lines: u64,
    largest: AtomicUsize,
}

const LINE: &[u8] = b"0123456789012345678901234567890123456789012345678901234567890123456789\r\n";

impl Body for Large {
    fn size_octets(&self) -> u64 {
        self.lines * LINE.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.largest.fetch_max(buffer.len(), Ordering::Relaxed);
        let left = usize::try_from(self.size_octets().saturating_sub(offset)).unwrap();
        let count = buffer.len().min(left);
        for (i, octet) in buffer[..count].iter_mut().enumerate() {
            *octet = LINE[(usize::try_from(offset).unwrap() + i) % LINE.len()];
        }
        Ok(count)
    }
}

/// The most memory this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn fifty_megabytes_pass_in_pieces() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "x"));
    let address = format!("unix:{}", dovecot.lmtp_socket().display());
    let lmtp = Lmtp::new(Options::new(address.parse().unwrap()), Connector::new());
    let body = Arc::new(Large { lines: 50_000_000 / LINE.len() as u64, largest: AtomicUsize::new(0) });
    let message =
        DeliveryId::new(Identity { account: "a@x", mailbox: "", uid_validity: 0, key: b"large", generation: 0 });
    let parcel = Parcel {
        id: message.for_recipient("default", "ann"),
        message,
        recipient: Recipient { user: "ann".into(), address: "ann".into() },
        reverse_path: String::new(),
        trace: Bytes::from_static(TRACE.as_bytes()),
        body: body.clone(),
        arrived_at: None,
        folder: None,
        attempt: 1,
    };
    let before = peak_kib();
    let outcomes = lmtp.prepare(vec![parcel]).await.complete().await;
    let grown = peak_kib() - before;
    assert!(matches!(outcomes[0], Outcome::Delivered { .. }), "{outcomes:?}");
    assert_eq!(body.largest.load(Ordering::Relaxed), 64 * 1024);
    assert!(grown < 8 * 1024, "memory grew by {grown} KiB");
    let stored = dovecot.messages("ann", "INBOX").pop().unwrap();
    let ours = usize::try_from(body.lines).unwrap() * (LINE.len() - 1) + TRACE.len() - 1;
    assert!(stored.len() > ours && stored.len() < ours + 1000, "{} octets stored", stored.len());
}
