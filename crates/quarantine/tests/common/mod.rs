//! What the tests of this crate share.

#![allow(dead_code, clippy::unwrap_used, reason = "each test uses some of it, and helpers of tests are tests")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use connectord_filter::{Action, Answer, Edits, Finding, Held, HeldFor, Kind, Symbol, Verdict};
use connectord_mail::{DeliveryId, Identity, UnixTime};
use connectord_quarantine::{DirectoryQuarantine, Faults, Options, Step};
use tempfile::TempDir;

pub(crate) const NOW: UnixTime = UnixTime(1_795_000_000);

pub(crate) fn id(number: u32) -> DeliveryId {
    let key = number.to_be_bytes();
    DeliveryId::new(Identity {
        account: "info@example.org",
        mailbox: "INBOX",
        uid_validity: 1,
        key: &key,
        generation: 0,
    })
}

pub(crate) fn message(number: u32) -> String {
    format!(
        "Message-ID: <{number}@x.test>\r\nFrom: Ann <ann@x.test>\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= {number}\r\n\r\nHello \
         {number}\r\n"
    )
}

/// Spam for ann.
pub(crate) fn held(number: u32) -> Held {
    Held {
        id: id(number),
        account: "info@example.org".into(),
        mailbox: "INBOX".into(),
        destination: "default".into(),
        recipients: vec![HeldFor { user: "ann".into(), address: "ann@here.test".into() }],
        reverse_path: Some("ann@x.test".into()),
        arrived_at: Some(UnixTime(1_794_000_000)),
        held_at: NOW,
        reason: "rspamd with 15.300".into(),
        spam: true,
        viruses: Vec::new(),
        answers: vec![Answer {
            filter: "rspamd".into(),
            kind: Kind::Antispam,
            verdict: Verdict::Found(Finding {
                action: Action::Reject,
                milli_score: Some(15_300),
                symbols: vec![Symbol { name: "GTUBE".into(), milli_score: 15_300 }],
                ..Finding::default()
            }),
        }],
        edits: Edits {
            add: vec![
                ("X-Connectord-Filter".into(), "rspamd; checked".into()),
                ("X-Spam".into(), "Yes".into()),
                ("X-Spam-Flag".into(), "YES".into()),
            ],
            remove: vec![("X-Connectord-Filter".into(), 0)],
            subject_prefix: Some("[SPAM]".into()),
            subject: None,
        },
        trace: Bytes::from_static(b"X-Connectord-Id: 1\r\n"),
        body: Arc::new(Bytes::from(message(number))),
    }
}

pub(crate) fn for_both(number: u32) -> Held {
    let mut held = held(number);
    held.recipients.push(HeldFor { user: "bob".into(), address: "bob@here.test".into() });
    held
}

pub(crate) fn open(path: &Path) -> DirectoryQuarantine {
    open_with(path, Options::default())
}

pub(crate) fn open_with(path: &Path, options: Options) -> DirectoryQuarantine {
    DirectoryQuarantine::open(path, options).unwrap()
}

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Counts what is asked of the disk, and lets it end there or fail.
#[derive(Default)]
pub(crate) struct Fate {
    pub(crate) steps: AtomicUsize,
    /// From this step on nothing happens any more, as after a kill; counted from 1, and 0 is never.
    pub(crate) dead_from: AtomicUsize,
    /// This step fails.
    pub(crate) fails_at: AtomicUsize,
}

impl Fate {
    pub(crate) fn dead_from(step: usize) -> Arc<Self> {
        let fate = Self::default();
        fate.dead_from.store(step, Ordering::SeqCst);
        Arc::new(fate)
    }

    pub(crate) fn fails_at(step: usize) -> Arc<Self> {
        let fate = Self::default();
        fate.fails_at.store(step, Ordering::SeqCst);
        Arc::new(fate)
    }

    /// One more step; false when it is not made.
    pub(crate) fn goes_on(&self) -> bool {
        let step = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        let dead_from = self.dead_from.load(Ordering::SeqCst);
        !(dead_from != 0 && step >= dead_from) && step != self.fails_at.load(Ordering::SeqCst)
    }

    pub(crate) fn is_dead(&self) -> bool {
        let dead_from = self.dead_from.load(Ordering::SeqCst);
        dead_from != 0 && self.steps.load(Ordering::SeqCst) >= dead_from
    }

    pub(crate) fn was_reached(&self) -> bool {
        let at = self.dead_from.load(Ordering::SeqCst).max(self.fails_at.load(Ordering::SeqCst));
        self.steps.load(Ordering::SeqCst) >= at
    }

    pub(crate) fn faults(self: &Arc<Self>) -> Faults {
        let fate = Arc::clone(self);
        // EIO
        Faults::new(move |_: Step| if fate.goes_on() { Ok(()) } else { Err(io::Error::from_raw_os_error(5)) })
    }

    pub(crate) fn options(self: &Arc<Self>) -> Options {
        Options { faults: self.faults(), ..Options::default() }
    }
}
