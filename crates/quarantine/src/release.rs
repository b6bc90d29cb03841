//! Release: a message that was kept back is delivered as any other, and what a crash cuts short is known the next time.
//!
//! For each recipient the note beside the message says how far it has come, and it is durable before and after each second
//! step of the delivery, as rows of the engine's store are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use connectord_delivery::{Delivery, Failure, FailureKind, Outcome, Parcel, RecallRow, Recalled};
use connectord_filter::{Class, Held, QuarantineError, Teacher, Unchecked};
use connectord_mail::{Body, DeliveryId, Head, UnixTime};
use tracing::{info, warn};

use crate::directory::{Claim, DirectoryQuarantine, Inner, read_head};
use crate::file::{HeldBody, Unreadable};
use crate::note::{Note, Row, Step};

/// Longest wait for a destination to take a batch; its own deadlines are shorter.
const DEADLINE: Duration = Duration::from_secs(600);

/// Longest wait for a filter to learn.
const LESSON: Duration = Duration::from_secs(60);

/// How a message is released.
#[derive(Clone)]
pub struct Release {
    /// The time, which is written into the message's header.
    pub now: UnixTime,
    /// With the marks that filters asked for: the subject's prefix, `X-Spam`. Without, the message is taken for no spam.
    pub marked: bool,
    /// Although a virus was found in it.
    pub infected: bool,
    /// Who learns that it is wanted.
    pub teacher: Option<Arc<dyn Teacher>>,
}

impl Release {
    /// Without marks, not if infected, and nobody learns.
    pub fn at(now: UnixTime) -> Self {
        Self { now, marked: false, infected: false, teacher: None }
    }
}

/// What came of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// What became of it for each recipient.
    pub copies: Vec<Copy>,
    /// Everybody has it, and it is not held any more.
    pub done: bool,
    /// Whether somebody learnt from it; nothing when nobody was to.
    pub taught: Option<Result<(), Unchecked>>,
}

/// What became of a release for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The local user.
    pub user: String,
    /// What the destination says, or why they do not have it. A copy may be there all the same when `uncertain` says so.
    pub outcome: Result<String, Failure>,
    /// How many attempts may have arrived without an answer.
    pub uncertain: u32,
}

/// Why a message is not released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// It is not there.
    #[error("there is no such message in the quarantine")]
    NotHeld,
    /// Nobody said that it is to be released though it is infected.
    #[error("it is infected with {}", .viruses.join(", "))]
    Infected {
        /// With what; escaped.
        viruses: Vec<String>,
    },
    /// Its file says that nobody would have got it.
    #[error("nobody would have got it")]
    NoRecipient,
    /// Its file is damaged: nothing of it is delivered.
    #[error("its file cannot be used: {0}")]
    Damaged(#[from] Unreadable),
    /// The destination cannot be asked what became of an earlier attempt, or did not answer.
    #[error("{0}")]
    Destination(Failure),
    /// The quarantine's disk.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
}

impl DirectoryQuarantine {
    /// Delivers a message to those who would have got it and do not have it yet, then removes it.
    ///
    /// `delivery` is the destination that the [entry](crate::Entry) names. Where it fails for somebody the message stays,
    /// and the next call delivers to those who are left. Into a Maildir it comes once, whatever cuts it short; a
    /// destination that cannot be asked may get it again, with `X-Connectord-Attempt`.
    ///
    /// # Errors
    /// [`ReleaseError`], with the message still held.
    pub async fn release(
        &self,
        id: DeliveryId,
        delivery: &dyn Delivery,
        release: &Release,
    ) -> Result<Released, ReleaseError> {
        let claim = self.0.claim(id)?.ok_or(ReleaseError::NotHeld)?;
        let (held, head) = self.0.whole(id).await?;
        if !held.viruses.is_empty() && !release.infected {
            let viruses = held.viruses.iter().map(|virus| connectord_wire::Escaped::text(virus).to_string()).collect();
            return Err(ReleaseError::Infected { viruses });
        }
        if held.recipients.is_empty() {
            return Err(ReleaseError::NoRecipient);
        }
        let mut course = Course { inner: Arc::clone(&self.0), id, note: self.0.note_of(&held).await?, _claim: claim };
        course.recall(delivery).await?;
        let message = Message::new(&held, &head, release);
        let mut copies = course.copies();
        for batch in course.batches(delivery, message.body.size_octets()) {
            course.deliver(delivery, &message, &batch, &mut copies).await?;
        }
        let mut released = Released { copies, done: course.note.is_done(), taught: None };
        if released.done {
            if let Some(teacher) = &release.teacher {
                released.taught = Some(teach(&**teacher, &held, &head).await);
            }
            course.end(release.now).await?;
        }
        Ok(released)
    }

    /// Finds out what became of releases and reports that a crash cut short, and ends releases that everybody has; whose
    /// destination is not there or does not answer is asked at the next release or report.
    ///
    /// To be called before anything else looks into the destinations: what a Maildir keeps to tell, a sweep takes away.
    pub async fn recover(&self, destination: impl Fn(&str) -> Option<Arc<dyn Delivery>>, now: UnixTime) {
        if let Err(error) = self.recover_reports(&destination, now).await {
            warn!(%error, "reports that were cut short cannot be looked into");
        }
        let open: Vec<_> = self.0.index().all().filter(|entry| entry.releasing).cloned().collect();
        for entry in open {
            let Some(delivery) = destination(&entry.destination) else { continue };
            let recovered = async {
                let Some(claim) = self.0.claim(entry.id)? else { return Ok(false) };
                let note = self.0.on_disk("reading how far a release has come", {
                    let id = entry.id;
                    move |inner| inner.read_note(id).map_err(QuarantineError::Failed)
                });
                let Some(mut note) = note.await? else { return Ok(false) };
                note.cover(entry.recipients.iter().map(|(user, address)| (&**user, &**address)));
                let mut course = Course { inner: Arc::clone(&self.0), id: entry.id, note, _claim: claim };
                course.recall(&*delivery).await?;
                let done = course.note.is_done();
                if done {
                    course.end(now).await?;
                }
                Ok::<_, ReleaseError>(done)
            };
            match recovered.await {
                Ok(done) => info!(spool_id = %entry.id, done, "a release that was cut short was looked into"),
                Err(error) => warn!(spool_id = %entry.id, %error, "a release that was cut short cannot be looked into"),
            }
        }
    }
}

impl Inner {
    /// The message and its header, from a file that is whole.
    async fn whole(self: &Arc<Self>, id: DeliveryId) -> Result<(Held, Vec<u8>), ReleaseError> {
        let read = self.on_disk("reading a message", move |inner| {
            let read = inner.open_whole(id).and_then(|(file, opened)| {
                let body: Arc<dyn Body> = Arc::new(HeldBody::new(file, &opened));
                let head = read_head(&*body).map_err(|error| Unreadable::Io(error.to_string()))?;
                Ok((opened.header.held(body).ok_or(Unreadable::Header)?, head))
            });
            Ok(read)
        });
        Ok(read.await??)
    }

    /// How far its release has come. Where that cannot be read it may have arrived, at everybody.
    async fn note_of(self: &Arc<Self>, held: &Held) -> Result<Note, QuarantineError> {
        let id = held.id;
        let read = self.on_disk("reading how far a release has come", move |inner| Ok(inner.read_note(id))).await?;
        let is_unreadable = read.is_err();
        let mut note = read.ok().flatten().filter(|note| !note.rows.is_empty()).unwrap_or_default();
        note.cover(held.recipients.iter().map(|to| (&*to.user, &*to.address)));
        if is_unreadable {
            note.rows.iter_mut().for_each(|row| row.uncertain = 1);
        }
        Ok(note)
    }
}

/// A release under way.
struct Course {
    inner: Arc<Inner>,
    id: DeliveryId,
    note: Note,
    _claim: Claim,
}

impl Course {
    /// Settles what an earlier release left between its two steps.
    async fn recall(&mut self, delivery: &dyn Delivery) -> Result<(), ReleaseError> {
        if !self.note.is_open() {
            return Ok(());
        }
        let open: Vec<_> = (0..self.note.rows.len()).filter(|at| self.note.rows[*at].step.is_begun()).collect();
        let rows: Vec<_> = open.iter().map(|at| &self.note.rows[*at]).map(recall_row).collect();
        let mut notes: Vec<_> = rows.iter().filter_map(|row| row.note.clone()).collect();
        let recalled = tokio::time::timeout(DEADLINE, delivery.recall(rows)).await.map_err(|_| late(delivery))?;
        let mut wait = None;
        for (nth, at) in open.into_iter().enumerate() {
            let row = &mut self.note.rows[at];
            match recalled.get(nth) {
                Some(Recalled::Delivered { .. }) => row.step = Step::Delivered,
                Some(Recalled::Absent) => row.step = Step::Waiting,
                Some(Recalled::Wait(failure)) => wait = Some(failure.clone()),
                _ => {
                    row.step = Step::Waiting;
                    row.uncertain = row.uncertain.saturating_add(1);
                    warn!(
                        spool_id = %self.id, to = %connectord_wire::Escaped::text(&row.user),
                        "a release that was cut short may have arrived; the message may come twice"
                    );
                }
            }
        }
        self.remember().await?;
        match wait {
            // A row that waits may need what its whole batch was kept for.
            Some(failure) => Err(ReleaseError::Destination(failure)),
            None => {
                delivery.settled(&std::mem::take(&mut notes)).await;
                Ok(())
            }
        }
    }

    /// What is known before anything is delivered.
    fn copies(&self) -> Vec<Copy> {
        let copy = |row: &Row| {
            let outcome = match row.step {
                Step::Delivered => Ok("delivered earlier".to_owned()),
                _ => Err(Failure::new(FailureKind::Transient, "not tried")),
            };
            Copy { user: row.user.clone(), outcome, uncertain: row.uncertain }
        };
        self.note.rows.iter().map(copy).collect()
    }

    /// Those who do not have it, as the destination wants them together.
    fn batches(&self, delivery: &dyn Delivery, size: u64) -> Vec<Vec<usize>> {
        let limits = delivery.limits();
        let by_size = usize::try_from(limits.octets / size.max(1)).unwrap_or(usize::MAX);
        let most = limits.parcels.min(by_size).max(1);
        let waiting: Vec<_> =
            (0..self.note.rows.len()).filter(|at| self.note.rows[*at].step == Step::Waiting).collect();
        waiting.chunks(most).map(<[usize]>::to_vec).collect()
    }

    async fn deliver(
        &mut self,
        delivery: &dyn Delivery,
        message: &Message<'_>,
        batch: &[usize],
        copies: &mut [Copy],
    ) -> Result<(), ReleaseError> {
        let parcels = batch.iter().map(|at| message.parcel(&self.note.rows[*at])).collect();
        let prepared = tokio::time::timeout(DEADLINE, delivery.prepare(parcels)).await.map_err(|_| late(delivery))?;
        let mut notes = Vec::new();
        for (at, note) in batch.iter().zip(prepared.notes()) {
            match note {
                Ok(note) => {
                    self.note.rows[*at].step = Step::begun(note.as_ref());
                    notes.extend(note.clone());
                }
                Err(failure) => copies[*at].outcome = Err(failure.clone()),
            }
        }
        if batch.iter().all(|at| self.note.rows[*at].step == Step::Waiting) {
            return Ok(());
        }
        // What is prepared is undone when this fails.
        self.remember().await?;
        // Given up here, its outcome is known to a recall alone.
        let outcomes = tokio::time::timeout(DEADLINE, prepared.complete()).await.map_err(|_| late(delivery))?;
        for (at, outcome) in batch.iter().zip(outcomes) {
            let (row, copy) = (&mut self.note.rows[*at], &mut copies[*at]);
            match outcome {
                Outcome::Delivered { detail } => {
                    row.step = Step::Delivered;
                    copy.outcome = Ok(detail);
                }
                Outcome::Failed(failure) => {
                    row.step = Step::Waiting;
                    copy.outcome = Err(failure);
                }
                Outcome::Unknown(failure) => {
                    row.step = Step::Waiting;
                    row.uncertain = row.uncertain.saturating_add(1);
                    copy.outcome = Err(failure);
                }
                _ => {
                    copy.outcome =
                        Err(Failure::new(FailureKind::Transient, "the destination does not say what became of it"));
                }
            }
            copy.uncertain = row.uncertain;
        }
        self.remember().await?;
        delivery.settled(&notes).await;
        Ok(())
    }

    /// Writes down how far it has come; durable when it returns.
    async fn remember(&self) -> Result<(), QuarantineError> {
        let (id, note) = (self.id, self.note.clone());
        let write = self.inner.on_disk("noting how far a release has come", move |inner| {
            inner.write_note(id, &note).map_err(|error| inner.trouble("noting how far a release has come", &error))?;
            if let Some(entry) = inner.index().entry_mut(id) {
                entry.releasing = true;
            }
            Ok(())
        });
        write.await
    }

    /// Everybody has it.
    async fn end(&self, now: UnixTime) -> Result<(), QuarantineError> {
        let id = self.id;
        let ended =
            self.inner.on_disk("removing a message that was released", move |inner| inner.let_go(id, now)).await;
        match ended {
            // All that is left is a file, which goes at the next start.
            Err(error) if self.inner.index().entry(id).is_none() => {
                warn!(spool_id = %id, %error, "a message that was released cannot be removed yet");
                Ok(())
            }
            other => other,
        }
    }
}

/// A message as it is delivered.
struct Message<'a> {
    held: &'a Held,
    front: Vec<u8>,
    body: Arc<dyn Body>,
}

impl<'a> Message<'a> {
    fn new(held: &'a Held, head: &[u8], release: &Release) -> Self {
        let edits = if release.marked { held.edits.clone() } else { held.edits.without_marks() };
        let (fields, body) = edits.apply(Head::of(head), Arc::clone(&held.body));
        let mut front = format!("X-Connectord-Released: {}\r\n", release.now).into_bytes();
        front.extend_from_slice(&held.trace);
        front.extend_from_slice(&fields);
        Self { held, front, body }
    }

    fn parcel(&self, row: &Row) -> Parcel {
        let attempt = row.uncertain.saturating_add(1);
        let mut trace = self.front.clone();
        if attempt > 1 {
            trace.splice(0..0, format!("X-Connectord-Attempt: {attempt}\r\n").into_bytes());
        }
        Parcel {
            // As if it had been delivered at once: whatever delivers it again meets this one.
            id: self.held.id.for_recipient(&self.held.destination, &row.user),
            message: self.held.id,
            recipient: row.recipient(),
            reverse_path: self.held.reverse_path.clone().unwrap_or_default(),
            trace: trace.into(),
            body: Arc::clone(&self.body),
            arrived_at: self.held.arrived_at,
            folder: None,
            attempt,
        }
    }
}

async fn teach(teacher: &dyn Teacher, held: &Held, head: &[u8]) -> Result<(), Unchecked> {
    // Without what marks it, and what a forger wrote.
    let (_, body) = held.edits.without_marks().apply(Head::of(head), Arc::clone(&held.body));
    let lesson = teacher.learn(body, Class::Ham, Instant::now() + LESSON);
    // It keeps its own deadline; this one is for whoever does not.
    tokio::time::timeout(LESSON * 2, lesson).await.unwrap_or_else(|_| {
        let text = format!("no end within {} s (during learning)", (LESSON * 2).as_secs());
        Err(Unchecked::new(connectord_filter::Why::TimedOut, text))
    })
}

fn recall_row(row: &Row) -> RecallRow {
    RecallRow { recipient: row.recipient(), note: row.step.note() }
}

fn late(delivery: &dyn Delivery) -> ReleaseError {
    let text = format!("{} did not answer within {} s (during a release)", delivery.describe(), DEADLINE.as_secs());
    ReleaseError::Destination(Failure::new(FailureKind::Unavailable, text))
}
