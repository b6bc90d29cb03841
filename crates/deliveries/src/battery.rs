//! What every destination must pass, whatever it is.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use connectord_delivery::{Delivery, Failure, Outcome, Parcel, Recipient};
use connectord_mail::{Body, DeliveryId, Identity, UnixTime};

/// A destination under test, and how to look into it.
pub struct Bench<'a> {
    /// The destination.
    pub delivery: Arc<dyn Delivery>,
    /// Two users that exist.
    pub recipients: [Recipient; 2],
    /// What has arrived for a recipient, in any order; each message as the destination keeps it.
    pub read: &'a (dyn Fn(&Recipient) -> Vec<Vec<u8>> + Sync),
    /// What becomes of a message's octets there.
    pub form: fn(&[u8]) -> Vec<u8>,
}

/// CRLF as LF, and nothing else: a Maildir, a command.
pub fn lf(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut line_ends = connectord_mail::LineEnds::default();
    line_ends.push(octets, &mut out);
    line_ends.finish(&mut out);
    out
}

/// A body that is read piece by piece, and that may break.
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
            return Err(io::Error::other("the connection is closed"));
        }
        let most = buffer.len().min(70_001);
        self.octets.read_at(offset, &mut buffer[..most])
    }
}

/// Messages with every oddity that octets can have; the last one is 5 MB.
pub fn samples() -> Vec<Vec<u8>> {
    let mut samples: Vec<Vec<u8>> = [
        &b"Subject: plain\r\n\r\nbody\r\n"[..],
        b"Subject: nul\r\n\r\na\0b\r\n",
        b"Subject: eight bits\r\n\r\n\xff\xfe\xe4\xf6\xfc\r\n",
        b"Subject: bare cr\r\n\r\na\rb\r\r\nc\r\n",
        b"Subject: bare lf\r\n\r\na\nb\n\nc\r\n",
        b"Subject: no end\r\n\r\nno line end",
        b"Subject: cr at the end\r\n\r\nx\r",
        b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n",
        b"Subject: froms\r\n\r\nFrom here\r\n>From there\r\n",
        b"Subject: no body\r\n\r\n",
        b"Subject: header only",
        b"no header at all\r\n",
        b"",
    ]
    .iter()
    .map(|sample| sample.to_vec())
    .collect();
    let line = b"The quick brown fox jumps over the lazy dog \xe2\x82\xac\r\n".repeat(100_000);
    samples.push([&b"Subject: big\r\n\r\n"[..], &line[..]].concat());
    samples
}

impl Bench<'_> {
    /// Runs all checks.
    ///
    /// # Panics
    /// When one fails.
    pub async fn run(&self) {
        self.octets_are_kept().await;
        self.one_failure_fails_nobody_else().await;
        self.a_dropped_batch_is_undone().await;
        self.many_at_once().await;
    }

    fn parcel(&self, key: &str, whose: usize, octets: &[u8]) -> Parcel {
        let recipient = self.recipients[whose].clone();
        let message = DeliveryId::new(Identity {
            account: "a@b",
            mailbox: "",
            uid_validity: 0,
            key: key.as_bytes(),
            generation: 0,
        });
        Parcel {
            id: message.for_recipient("battery", &recipient.user),
            message,
            recipient,
            reverse_path: "sender@example.net".into(),
            trace: Bytes::from(format!("X-Battery: {key}.\r\n")),
            body: Arc::new(Bytes::copy_from_slice(octets)),
            arrived_at: Some(UnixTime(1_700_000_000)),
            folder: None,
            attempt: 1,
        }
    }

    /// The messages of a recipient by the key that [`Bench::parcel`] gave, each from behind the trace.
    fn arrived(&self, whose: usize) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut arrived: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for message in (self.read)(&self.recipients[whose]) {
            let mark = b"X-Battery: ";
            let at = memchr::memmem::find(&message, mark).expect("the trace stands in every message") + mark.len();
            let dot = at + memchr::memchr(b'.', &message[at..]).expect("a key ends with a dot");
            let line = dot + memchr::memchr(b'\n', &message[dot..]).expect("the trace ends with a line end") + 1;
            let key = String::from_utf8(message[at..dot].to_vec()).expect("keys are ASCII");
            assert!(
                memchr::memmem::find(&message[..at], b"Return-Path: <sender@example.net>").is_some_and(|at| at < 200)
            );
            arrived.entry(key).or_default().push(message[line..].to_vec());
        }
        arrived
    }

    async fn deliver(&self, parcels: Vec<Parcel>) -> Vec<Outcome> {
        deliver(&*self.delivery, parcels).await
    }

    async fn octets_are_kept(&self) {
        let samples = samples();
        let mut parcels = Vec::new();
        for (number, sample) in samples.iter().enumerate() {
            parcels.push(self.parcel(&format!("whole{number}"), 0, sample));
            let mut parcel = self.parcel(&format!("pieces{number}"), 1, sample);
            parcel.body = Arc::new(Pieces { octets: Bytes::copy_from_slice(sample), breaks_at: None });
            parcels.push(parcel);
        }
        assert_all_delivered(&self.deliver(parcels).await);
        let (whole, pieces) = (self.arrived(0), self.arrived(1));
        for (number, sample) in samples.iter().enumerate() {
            let wanted = vec![(self.form)(sample)];
            assert!(whole.get(&format!("whole{number}")) == Some(&wanted), "sample {number}, whole");
            assert!(pieces.get(&format!("pieces{number}")) == Some(&wanted), "sample {number}, in pieces");
        }
    }

    async fn one_failure_fails_nobody_else(&self) {
        let mut parcels: Vec<_> =
            (0..4).map(|n| self.parcel(&format!("among{n}"), 0, b"Subject: x\r\n\r\nok\r\n")).collect();
        let octets = Bytes::from(vec![b'x'; 300_000]);
        parcels[1].body = Arc::new(Pieces { octets, breaks_at: Some(200_000) });
        let outcomes = self.deliver(parcels).await;
        let delivered: Vec<_> = outcomes.iter().map(|o| matches!(o, Outcome::Delivered { .. })).collect();
        assert_eq!(delivered, [true, false, true, true], "{outcomes:?}");
        let arrived = self.arrived(0);
        let counts: Vec<_> = (0..4).map(|n| arrived.get(&format!("among{n}")).map_or(0, Vec::len)).collect();
        assert_eq!(counts, [1, 0, 1, 1]);
    }

    async fn a_dropped_batch_is_undone(&self) {
        let parcels = || (0..3).map(|n| self.parcel(&format!("dropped{n}"), 1, b"Subject: x\r\n\r\nok\r\n")).collect();
        let prepared = self.delivery.prepare(parcels()).await;
        assert!(prepared.notes().iter().all(Result::is_ok), "{:?}", prepared.notes());
        drop(prepared);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(!self.arrived(1).contains_key("dropped0"));
        assert_all_delivered(&self.deliver(parcels()).await);
        let arrived = self.arrived(1);
        assert!((0..3).all(|n| arrived.get(&format!("dropped{n}")).map(Vec::len) == Some(1)));
    }

    async fn many_at_once(&self) {
        let mut running = tokio::task::JoinSet::new();
        for task in 0..8 {
            let parcels: Vec<_> = (0..12)
                .map(|n| self.parcel(&format!("many{task}-{n}"), (task + n) % 2, b"Subject: many\r\n\r\nx\r\n"))
                .collect();
            let delivery = self.delivery.clone();
            running.spawn(async move { deliver(&*delivery, parcels).await });
        }
        while let Some(outcomes) = running.join_next().await {
            assert_all_delivered(&outcomes.expect("no task panics"));
        }
        let (first, second) = (self.arrived(0), self.arrived(1));
        for (task, n) in (0..8).flat_map(|task| (0..12).map(move |n| (task, n))) {
            let arrived = if (task + n) % 2 == 0 { &first } else { &second };
            assert_eq!(arrived.get(&format!("many{task}-{n}")).map(Vec::len), Some(1), "{task} {n}");
        }
    }
}

/// Delivers in batches within the destination's limits.
async fn deliver(delivery: &dyn Delivery, parcels: Vec<Parcel>) -> Vec<Outcome> {
    let limits = delivery.limits();
    let (mut outcomes, mut batch, mut octets) = (Vec::new(), Vec::new(), 0);
    let mut parcels = parcels.into_iter().peekable();
    while let Some(parcel) = parcels.next() {
        octets += parcel.body.size_octets();
        batch.push(parcel);
        let next = parcels.peek().map(|next| next.body.size_octets());
        if batch.len() >= limits.parcels || next.is_none_or(|next| octets + next > limits.octets) {
            let prepared = delivery.prepare(std::mem::take(&mut batch)).await;
            let failures: Vec<Option<Failure>> = prepared.notes().iter().map(|note| note.clone().err()).collect();
            let completed = prepared.complete().await;
            assert_eq!(completed.len(), failures.len());
            for (outcome, failure) in completed.iter().zip(failures) {
                assert!(failure.is_none_or(|failure| *outcome == Outcome::Failed(failure)));
            }
            outcomes.extend(completed);
            octets = 0;
        }
    }
    outcomes
}

fn assert_all_delivered(outcomes: &[Outcome]) {
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Delivered { .. })), "{outcomes:?}");
}
