//! What every filter must pass, whatever it looks for.
//!
//! A stranger runs it against their filter from a test of their own, with whatever runtime that filter needs:
//!
//! ```no_run
//! # use std::{future::Future, time::{Duration, Instant}};
//! # use connectord_filter::{battery, Filter};
//! # async fn example(filter: impl Filter, now: impl Fn() -> Instant + Sync) {
//! battery::run(&filter, &now, Duration::from_secs(30)).await;
//! # }
//! ```

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connectord_mail::{Body, DeliveryId, Envelope, Head, Identity};

use crate::{Action, Filter, Message, Verdict};

/// Messages with every oddity that octets can have; the last two have 120 kB and 3 MB.
pub fn samples() -> Vec<Bytes> {
    let mut samples: Vec<Bytes> = [
        &b"From: ann@example.org\r\nTo: bob@example.org\r\nSubject: plain\r\nDate: Sun, 22 Nov 2026 19:31:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\nbody\r\n"[..],
        b"Subject: nul\r\n\r\na\0b\r\n",
        b"Subject: \xff\xfe\xe4\xf6\xfc\r\n\r\n\xff\xfe\r\n",
        b"Subject: bare\rcr\r\n\r\na\rb\r\r\nc\r\n",
        b"Subject: bare lf\n\na\nb\n",
        b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n",
        b"Subject: no body\r\n\r\n",
        b"Subject: header only",
        b"no header at all\r\n",
        b"\r\nno header\r\n",
        b"",
    ]
    .map(Bytes::from_static)
    .to_vec();
    let folded = format!("Subject: {}\r\n\r\nx\r\n", "fold\r\n ".repeat(2000));
    let fields = format!("{}\r\nx\r\n", "X-Field: value\r\n".repeat(1500));
    samples.extend([Bytes::from(folded), Bytes::from(fields)]);
    for lines in [2500, 60_000] {
        let lines = b"The quick brown fox jumps over the lazy dog \xe2\x82\xac\r\n".repeat(lines);
        samples.push(Bytes::from([&b"Subject: big\r\n\r\n"[..], &lines[..], b"the last line\r\n"].concat()));
    }
    samples
}

/// A body that gives little at a time, and that may break.
struct Pieces {
    octets: Bytes,
    breaks_at: Option<u64>,
}

impl Body for Pieces {
    fn size_octets(&self) -> u64 {
        self.octets.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if self.breaks_at.is_some_and(|at| offset >= at) {
            return Err(io::Error::other("the file is gone"));
        }
        let most = buffer.len().min(7001);
        self.octets.read_at(offset, &mut buffer[..most])
    }
}

fn message(octets: &Bytes, body: Arc<dyn Body>, deadline: Instant) -> Message {
    let head = Head::of(octets);
    Message {
        id: DeliveryId::new(Identity { account: "battery", mailbox: "", uid_validity: 0, key: octets, generation: 0 }),
        account: "battery@example.org".into(),
        recipients: vec!["bob@example.org".into()],
        envelope: Envelope::recover(head),
        head: octets.slice(..head.octets().len()),
        body,
        deadline,
    }
}

/// Runs all checks. `now` is the clock that deadlines are told by; `patience` is how long one check may take.
///
/// # Panics
/// When one fails.
pub async fn run(filter: &dyn Filter, now: &(dyn Fn() -> Instant + Sync), patience: Duration) {
    describes_itself(filter);
    let largest = filter.limits().max_octets.unwrap_or(u64::MAX);
    let samples: Vec<_> = samples().into_iter().filter(|octets| octets.len() as u64 <= largest).collect();
    for (number, octets) in samples.iter().enumerate() {
        let whole = filter.check(&message(octets, Arc::new(octets.clone()), now() + patience)).await;
        is_usable(&whole, number);
        // However the body is read, the answer is the same in what counts.
        let pieces = Arc::new(Pieces { octets: octets.clone(), breaks_at: None });
        let pieces = filter.check(&message(octets, pieces, now() + patience)).await;
        is_usable(&pieces, number);
        assert_eq!(what_counts(&whole), what_counts(&pieces), "sample {number} is judged differently in pieces");
    }
    // A body that cannot be read was not checked, and the filter goes on with the next.
    let octets = samples.last().cloned().unwrap_or_default();
    if octets.len() > 100_000 {
        let broken = Arc::new(Pieces { octets: octets.clone(), breaks_at: Some(50_000) });
        let verdict = filter.check(&message(&octets, broken, now() + patience)).await;
        let acts = matches!(&verdict, Verdict::Found(finding) if finding.action == Action::NoAction && finding.ruling.is_none());
        assert!(!acts || !reads_bodies(filter), "a message that could not be read was passed as clean");
        let verdict = filter.check(&message(&octets, Arc::new(octets.clone()), now() + patience)).await;
        assert!(matches!(verdict, Verdict::Found(_)), "after a body that broke: {verdict:?}");
    }
    // A deadline that is over already is an answer soon, of either sort, and no panic.
    let _ = filter.check(&message(&samples[0], Arc::new(samples[0].clone()), now())).await;
}

/// Rules may do without the body, so that a broken one is nothing to them.
fn reads_bodies(filter: &dyn Filter) -> bool {
    filter.kind() != crate::Kind::Rules && filter.kind() != crate::Kind::Antispam
}

fn describes_itself(filter: &dyn Filter) {
    let name = filter.name();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    assert!(!name.is_empty() && name.len() <= 64 && name.chars().all(plain), "{name:?} is no name");
    let description = filter.describe();
    assert!(!description.is_empty() && !description.chars().any(char::is_control), "{description:?}");
    assert!(filter.limits().at_once > 0, "a filter that takes nothing at a time never answers");
}

fn is_usable(verdict: &Verdict, number: usize) {
    match verdict {
        Verdict::Unchecked(trouble) => {
            assert!(!trouble.text.trim().is_empty(), "sample {number}: a trouble without a text helps nobody");
            assert!(!trouble.text.chars().any(char::is_control), "sample {number}: {:?} is not escaped", trouble.text);
        }
        Verdict::Found(finding) => {
            let texts = finding.text.iter().chain(&finding.viruses).chain(finding.symbols.iter().map(|s| &s.name));
            for text in texts {
                assert!(!text.chars().any(char::is_control), "sample {number}: {text:?} is not escaped");
            }
        }
    }
}

fn what_counts(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Found(finding) => format!("{} {:?} {:?}", finding.action.name(), finding.viruses, finding.ruling),
        Verdict::Unchecked(trouble) => format!("{:?}", trouble.why),
    }
}
