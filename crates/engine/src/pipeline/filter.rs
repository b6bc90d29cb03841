//! Filters look at messages side by side, as many as each bears, and in the order in which they are done the messages go on.
//!
//! One message that a filter hangs on delays itself alone. A filter that is down is no message's fault: where nothing may
//! be delivered unchecked the run ends, and what was not looked at keeps no row.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use connectord_filter::{Decision, Disposition, History, Message, OnFailure, Unchecked, Verdict, Why};
use connectord_mail::head::MAX_HEAD;
use connectord_mail::relay::Origin;
use connectord_mail::{Body, Envelope, Head, Relays};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};

use super::Item;
use super::fate::{Fate, Findings, Instead, QUARANTINE};
use super::incoming::Incoming;
use crate::filters::{Asked, Gate};
use crate::run::{Run, stopped};
use crate::trouble::RunError;

/// Messages of one account that are looked at, or wait for that, at most.
const SIDE_BY_SIDE: usize = 64;

/// Has filters look at messages.
pub(super) struct Stage<'a> {
    run: &'a Run<'a>,
    gates: Vec<Arc<Gate>>,
    relays: Arc<Relays>,
    /// Filters that were found down in this run, where messages are delivered all the same: they are not asked again.
    down: Mutex<HashMap<usize, Unchecked>>,
}

/// What a task brings back.
struct Looked {
    /// The header, and whose its Authentication-Results are.
    read: std::io::Result<(Bytes, Vec<Origin>)>,
    /// What came of asking each filter.
    asked: Vec<Asked>,
}

impl<'a> Stage<'a> {
    /// Nothing where no filter is to be asked.
    pub(super) fn wanted(run: &'a Run<'a>) -> Option<Self> {
        let gates = run.site.filters.wanted(&run.job.policy);
        let relays = || Arc::new(run.job.relays.clone());
        (!gates.is_empty()).then(|| Self { run, gates, relays: relays(), down: Mutex::default() })
    }

    /// Takes from `queue` until it is closed, and hands on what was decided about.
    ///
    /// # Errors
    /// [`RunError::Filter`] when a filter is down and nothing is delivered unchecked.
    pub(super) async fn run(
        &self,
        mut queue: mpsc::Receiver<Item>,
        decided: mpsc::Sender<Item>,
    ) -> Result<(), RunError> {
        let mut stop = self.run.stop.clone();
        // Dropped with this future, which ends all of them.
        let mut looking: JoinSet<Looked> = JoinSet::new();
        let mut waiting: HashMap<Id, Box<Incoming>> = HashMap::new();
        let (mut flush, mut is_open) = (None, true);
        loop {
            let may_take = is_open && flush.is_none() && waiting.len() < SIDE_BY_SIDE;
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return Err(RunError::Stopped),
                // A filter that hangs keeps no other account from retrieving.
                Some(looked) = self.run.delivering(looking.join_next_with_id()) => {
                    let (id, Looked { read, asked }) = match looked {
                        Ok(looked) => looked,
                        // A filter that panics is caught where it is asked: this is our own fault, and told as such.
                        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                        Err(_) => return Err(RunError::Stopped),
                    };
                    let mut message = *waiting.remove(&id).expect("each task has its message");
                    message.more |= !waiting.is_empty();
                    let (head, origins) = read.map_err(RunError::Spool)?;
                    let message = Box::new(self.decide(message, head, &origins, asked)?);
                    decided.send(Item::Message(message)).await.map_err(|_| RunError::Stopped)?;
                }
                item = queue.recv(), if may_take => match item {
                    Some(Item::Message(message)) => {
                        let id = looking.spawn(self.look(&message)).id();
                        waiting.insert(id, message);
                    }
                    Some(Item::Flush(answer)) => flush = Some(answer),
                    None => is_open = false,
                },
            }
            if waiting.is_empty() {
                if let Some(answer) = flush.take() {
                    decided.send(Item::Flush(answer)).await.map_err(|_| RunError::Stopped)?;
                }
                if !is_open {
                    return Ok(());
                }
            }
        }
    }

    /// Asks every filter about one message; nobody where a person wants it delivered whatever filters say.
    fn look(&self, message: &Incoming) -> impl Future<Output = Looked> + Send + use<> {
        let run = self.run;
        let body = Arc::clone(message.body.as_ref().expect("the parcels come later"));
        // A person's word is for the message they saw, which another with the same header is not.
        let is_another = message.adopted.is_some_and(|known| !known.same_content(&message.fingerprint));
        let gates = if message.anyway && !is_another { Vec::new() } else { self.gates.clone() };
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (relays, patience) = (Arc::clone(&self.relays), run.site.filters.patience());
        let (id, account) = (message.id, run.job.address().to_owned());
        let recipients: Vec<String> = run.job.recipients.iter().map(|to| to.address.clone()).collect();
        async move {
            let head = match head_of(&body).await {
                Ok(head) => head,
                Err(error) => return Looked { read: Err(error), asked: Vec::new() },
            };
            let envelope = Envelope::recover_trusting(Head::of(&head), &relays);
            let read = Ok((head.clone(), envelope.origins.clone()));
            if gates.is_empty() {
                return Looked { read, asked: Vec::new() };
            }
            let deadline = std::time::Instant::now();
            let message = Message { id, account, recipients, envelope, head, body, deadline };
            Looked { read, asked: ask_all(&gates, &down, &message, patience).await }
        }
    }

    fn decide(
        &self,
        mut message: Incoming,
        head: Bytes,
        origins: &[Origin],
        asked: Vec<Asked>,
    ) -> Result<Incoming, RunError> {
        let run = self.run;
        let policy = &run.job.policy;
        let mut first_down = None;
        let mut answers = Vec::with_capacity(asked.len());
        for (place, Asked { answer, down, is_there }) in asked.into_iter().enumerate() {
            if let Some(trouble) = down {
                first_down.get_or_insert_with(|| (place, trouble.clone(), is_there));
                // Where nothing is delivered unchecked the next message asks again, and ends the run.
                if policy.on_failure == OnFailure::Deliver {
                    self.down.lock().unwrap_or_else(PoisonError::into_inner).insert(place, trouble);
                }
            }
            answers.push(answer);
        }
        let history = if message.anyway { History::default() } else { run.history(message.message) };
        let mut decision = policy.decide(&answers, history);
        decision.edits = decision.edits.without_forged(origins);
        let stays = matches!(decision.disposition, Disposition::Later { postponed: false, .. } | Disposition::Park);
        if let (Some((place, trouble, is_there)), true, OnFailure::Keep) = (first_down, stays, policy.on_failure) {
            return Err(RunError::Filter { filter: self.gates[place].describe(), trouble, is_there });
        }
        run.tally.filtered(run, decision.spam);
        run.take_down_filtered(message.message, &answers, decision.spam, &decision.reason);
        message.verdict.clone_from(&decision.reason);
        let told = |decision: Decision, answers, head| {
            let reason = Some(&decision.reason).filter(|reason| !reason.is_empty());
            let reason = reason.map_or_else(|| "it was kept back".to_owned(), String::clone);
            let instead = Some(Box::new(Instead { head, reason }));
            Fate::Quarantine(Box::new(Findings { decision, answers, instead }))
        };
        message.fate = match decision.disposition.clone() {
            Disposition::Later { wait, postponed } => Fate::Later { wait, postponed },
            Disposition::Notice => told(decision, answers, head),
            // What is in the quarantine already has been decided about; only the notice is missing.
            _ if self.is_held(&message) => told(decision, answers, head),
            Disposition::Quarantine => Fate::Quarantine(Box::new(Findings { decision, answers, instead: None })),
            Disposition::Discard => Fate::Discard,
            Disposition::Park => Fate::Park,
            Disposition::Deliver { folder } => {
                if answers.iter().any(|answer| matches!(answer.verdict, Verdict::Unchecked(_))) {
                    run.tally.unchecked();
                }
                let body = message.body.take().expect("the parcels come later");
                let (front, body) = decision.edits.apply(Head::of(&head), body);
                (message.front, message.body, message.folder) = (front, Some(body), folder);
                Fate::Deliver
            }
        };
        Ok(message)
    }

    /// Whether a message is in the quarantine, and not all that follows from that has been done.
    fn is_held(&self, message: &Incoming) -> bool {
        let known = self.run.known_deliveries(message.message);
        self.run.job.recipients.iter().any(|to| {
            let rows = || known.iter().filter(|row| row.recipient.user == to.user);
            rows().any(|row| row.destination == QUARANTINE && row.step == connectord_store::Step::Delivered)
                && rows().any(|row| row.destination != QUARANTINE)
        })
    }
}

/// Asks filters side by side.
async fn ask_all(
    gates: &[Arc<Gate>],
    down: &HashMap<usize, Unchecked>,
    message: &Message,
    patience: Duration,
) -> Vec<Asked> {
    let mut asking = JoinSet::new();
    let mut places = HashMap::new();
    let mut answers: Vec<Option<Asked>> = gates.iter().map(|_| None).collect();
    for (place, gate) in gates.iter().enumerate() {
        if let Some(trouble) = down.get(&place) {
            answers[place] = Some(Asked { answer: gate.unasked(trouble.clone()), down: None, is_there: true });
            continue;
        }
        let (gate, message) = (Arc::clone(gate), message.clone());
        let id = asking.spawn(async move { gate.ask(&message, patience).await }).id();
        places.insert(id, place);
    }
    while let Some(asked) = asking.join_next_with_id().await {
        match asked {
            Ok((id, asked)) => answers[places[&id]] = Some(asked),
            Err(error) => {
                let trouble = Unchecked::new(Why::Failed, "it panicked");
                answers[places[&error.id()]] =
                    Some(Asked { answer: gates[places[&error.id()]].unasked(trouble), down: None, is_there: true });
            }
        }
    }
    answers.into_iter().map(|asked| asked.expect("each was asked")).collect()
}

/// The header of a body; from a file on a thread for that.
async fn head_of(body: &Arc<dyn Body>) -> std::io::Result<Bytes> {
    if let Some(whole) = body.as_slice() {
        return Ok(Bytes::copy_from_slice(Head::of(whole).octets()));
    }
    let body = Arc::clone(body);
    let read = tokio::task::spawn_blocking(move || {
        let size = usize::try_from(body.size_octets()).unwrap_or(usize::MAX).min(MAX_HEAD);
        let mut octets = vec![0; size];
        let mut filled = 0;
        while filled < size {
            match body.read_at(filled as u64, &mut octets[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        octets.truncate(filled);
        let end = Head::of(&octets).octets().len();
        Ok(Bytes::from(octets).slice(..end))
    });
    read.await.map_err(std::io::Error::other)?
}
