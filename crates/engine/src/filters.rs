use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use connectord_filter::{Answer, Chain, Filter, Message, Policy, Probe, Quarantine, Unchecked, Verdict, Why};
use connectord_mail::DeliveryId;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

/// For so long a filter may look at one message.
const PATIENCE: Duration = Duration::from_secs(60);

/// A filter that is still silent so long after its time was over is given up.
const GRACE: Duration = Duration::from_secs(2);

/// For so long a filter may take to say that it is there.
const PING_WITHIN: Duration = Duration::from_secs(5);

/// A filter that was there so recently is not asked again whether it is.
const BELIEVED_FOR: Duration = Duration::from_secs(2);

/// The filters of a site, shared by all its accounts: which there are, how much each bears, where messages are kept back.
///
/// All clones are the same ones, and [`Filters::replace`] changes them for all.
///
/// ```
/// use connectord_engine::Filters;
/// use connectord_filter::Chain;
/// let filters = Filters::new(Chain::default(), None);
/// assert!(filters.quarantine().is_none());
/// ```
#[derive(Clone, Default)]
pub struct Filters(Arc<RwLock<Option<Inner>>>);

#[derive(Clone)]
struct Inner {
    gates: Vec<Arc<Gate>>,
    quarantine: Option<Arc<dyn Quarantine>>,
    patience: Duration,
}

impl Filters {
    /// No filters: messages pass unchecked, and at no cost.
    pub fn none() -> Self {
        Self::default()
    }

    /// These filters. What a policy would keep back stays on the server where there is no quarantine.
    pub fn new(chain: Chain, quarantine: Option<Arc<dyn Quarantine>>) -> Self {
        let gates = chain.filters.into_iter().map(|filter| Arc::new(Gate::new(filter))).collect();
        Self(Arc::new(RwLock::new(Some(Inner { gates, quarantine, patience: PATIENCE }))))
    }

    /// As they are, and with so much time for each filter to look at one message; default 60 s. Waiting for a turn at a
    /// filter does not count.
    #[must_use]
    pub fn within(self, patience: Duration) -> Self {
        Self(Arc::new(RwLock::new(self.get().map(|inner| Inner { patience, ..inner }))))
    }

    /// Has others look at messages from now on; messages that are being looked at are not asked about again. A filter
    /// that stays is given no more at a time than before.
    pub fn replace(&self, with: &Self) {
        let mut new = with.get();
        let old = self.get().map(|inner| inner.gates).unwrap_or_default();
        for gate in new.iter_mut().flat_map(|inner| &mut inner.gates) {
            if let Some(known) = old.iter().find(|known| Arc::ptr_eq(&known.filter, &gate.filter)) {
                *gate = Arc::clone(known);
            }
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// Where messages are kept back.
    pub fn quarantine(&self) -> Option<Arc<dyn Quarantine>> {
        self.get()?.quarantine
    }

    /// The filters, in the order of the configuration.
    pub fn chain(&self) -> Chain {
        let gates = self.get().map(|inner| inner.gates).unwrap_or_default();
        Chain { filters: gates.iter().map(|gate| Arc::clone(&gate.filter)).collect() }
    }

    /// Those that a policy asks.
    pub(crate) fn wanted(&self, policy: &Policy) -> Vec<Arc<Gate>> {
        let mut gates = self.get().map(|inner| inner.gates).unwrap_or_default();
        gates.retain(|gate| policy.wants(gate.filter.kind()));
        gates
    }

    pub(crate) fn patience(&self) -> Duration {
        self.get().map_or(PATIENCE, |inner| inner.patience)
    }

    fn get(&self) -> Option<Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chain().fmt(f)
    }
}

/// One filter, with what all accounts together may ask of it.
pub(crate) struct Gate {
    filter: Arc<dyn Filter>,
    room: Semaphore,
    /// Messages that it looked at.
    looked: AtomicU64,
    /// When it was last heard of, and whether it was there.
    heard: Mutex<Option<(Instant, Result<(), Unchecked>)>>,
    /// One asks at a time whether it is there.
    asking: Semaphore,
    /// What came of showing it its own sample, and when.
    shown: Mutex<Option<(Instant, Sample)>>,
    /// One shows it at a time.
    showing: Semaphore,
    /// Messages that it was silent about, with none looked at since; two are enough.
    silent_about: Mutex<Vec<DeliveryId>>,
}

/// What a filter that answers pings makes of its own sample.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sample {
    /// It finds it: it works.
    Found,
    /// It does not answer for that either.
    Unanswered,
    /// It has none, or that tells nothing.
    Mute,
}

/// What came of asking a filter about a message.
pub(crate) struct Asked {
    pub(crate) answer: Answer,
    /// It is down, whatever the message is: nothing is to be concluded about that.
    pub(crate) down: Option<Unchecked>,
    /// It answers a ping all the same: that it does is no sign that it works again.
    pub(crate) is_there: bool,
}

impl Gate {
    fn new(filter: Arc<dyn Filter>) -> Self {
        let room = Semaphore::new(filter.limits().at_once.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            filter,
            room,
            looked: AtomicU64::new(0),
            heard: Mutex::default(),
            asking: Semaphore::new(1),
            shown: Mutex::default(),
            showing: Semaphore::new(1),
            silent_about: Mutex::default(),
        }
    }

    pub(crate) fn describe(&self) -> String {
        self.filter.describe()
    }

    /// The answer for a message that it is not asked about.
    pub(crate) fn unasked(&self, trouble: Unchecked) -> Answer {
        Answer::new(&*self.filter, Verdict::Unchecked(trouble))
    }

    /// Has it look at a message. What goes wrong is told apart: a filter that is down or hangs does not even answer a
    /// ping; one that answers, and fails at this message twice, has trouble with the message.
    pub(crate) async fn ask(&self, message: &Message, patience: Duration) -> Asked {
        if let Some(answer) = Chain::beforehand(&*self.filter, message) {
            return Asked { answer, down: None, is_there: true };
        }
        let looked_before = self.looked.load(Ordering::Relaxed);
        let mut verdict = self.check(message, patience).await;
        let mut down = self.is_down(&verdict).await;
        // A filter that was restarted meanwhile is asked again at once; one that took all its time is not.
        let worth = |verdict: &Verdict| {
            matches!(verdict, Verdict::Unchecked(trouble)
                if matches!(trouble.why, Why::Unavailable | Why::Rubbish | Why::Failed))
        };
        if down.is_none() && worth(&verdict) {
            verdict = self.check(message, patience).await;
            down = self.is_down(&verdict).await;
        }
        let mut is_there = false;
        if let (None, Verdict::Unchecked(trouble)) = (&down, &verdict) {
            // It says so itself, and to everybody.
            is_there = true;
            let works = self.looked.load(Ordering::Relaxed) > looked_before;
            let is_down = match trouble.why {
                Why::Misconfigured => true,
                Why::Unavailable => !works,
                Why::TimedOut => !works && self.hangs(message.id, patience).await,
                _ => false,
            };
            if is_down {
                down = Some(trouble.clone());
            }
        }
        Asked { answer: Answer::new(&*self.filter, verdict), down, is_there }
    }

    /// Whether it is there. What was heard a moment ago is believed, and one account asks for all that wait.
    pub(crate) async fn ping(&self) -> Result<(), Unchecked> {
        let began = Instant::now();
        let heard = || self.heard().clone();
        let believed = |(at, answer): (Instant, Result<(), Unchecked>)| {
            (at >= began || answer.is_ok() && at.elapsed() < BELIEVED_FOR).then_some(answer)
        };
        if let Some(answer) = heard().and_then(believed) {
            return answer;
        }
        // Whoever is in front has its answer within seconds.
        let _turn = self.asking.acquire().await.expect("the semaphore is never closed");
        match heard().and_then(believed) {
            Some(answer) => answer,
            None => self.ping_now().await,
        }
    }

    async fn ping_now(&self) -> Result<(), Unchecked> {
        let deadline = Instant::now() + PING_WITHIN;
        let answer = timeout_at(deadline + GRACE, self.filter.ping(deadline.into_std())).await.unwrap_or_else(|_| {
            let text = format!("no answer to a ping within {} s", (PING_WITHIN + GRACE).as_secs());
            Err(Unchecked::new(Why::TimedOut, text))
        });
        *self.heard() = Some((Instant::now(), answer.clone()));
        answer
    }

    /// Whether it hangs on whatever it is shown, though it answers pings: its own sample tells. Where it has none, the second
    /// message that it is silent about does, when none was looked at between.
    async fn hangs(&self, id: DeliveryId, patience: Duration) -> bool {
        match self.show_sample(patience).await {
            Sample::Found => false,
            Sample::Unanswered => true,
            Sample::Mute => {
                let mut silent_about = self.silent_about();
                if silent_about.len() < 2 && !silent_about.contains(&id) {
                    silent_about.push(id);
                }
                silent_about.len() == 2
            }
        }
    }

    /// Shows it its own sample; for all that wait for that at once.
    async fn show_sample(&self, patience: Duration) -> Sample {
        let began = Instant::now();
        let _turn = self.showing.acquire().await.expect("the semaphore is never closed");
        let shown = || self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, sample)) = shown().filter(|(at, _)| *at >= began) {
            return sample;
        }
        let deadline = Instant::now() + patience;
        let sample = match timeout_at(deadline + GRACE, self.filter.probe(deadline.into_std())).await {
            Ok(Ok(Probe { found_test_sample: Some(true), .. })) => Sample::Found,
            Ok(Ok(_)) => Sample::Mute,
            Ok(Err(trouble)) if !trouble.why.is_temporary() => Sample::Mute,
            Ok(Err(_)) | Err(_) => Sample::Unanswered,
        };
        *shown() = Some((Instant::now(), sample));
        sample
    }

    async fn is_down(&self, verdict: &Verdict) -> Option<Unchecked> {
        match verdict {
            Verdict::Unchecked(trouble) if trouble.why.is_temporary() => self.ping_now().await.err(),
            _ => None,
        }
    }

    async fn check(&self, message: &Message, patience: Duration) -> Verdict {
        let _turn = self.turn().await;
        let deadline = Instant::now() + patience;
        let message = Message { deadline: deadline.into_std(), ..message.clone() };
        let verdict = timeout(patience + GRACE, self.filter.check(&message)).await.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", (patience + GRACE).as_secs());
            Verdict::Unchecked(Unchecked::new(Why::TimedOut, text))
        });
        if let Verdict::Found(_) = verdict {
            self.looked.fetch_add(1, Ordering::Relaxed);
            self.silent_about().clear();
            *self.heard() = Some((Instant::now(), Ok(())));
        }
        verdict
    }

    /// Whoever is in front takes at most its patience, so this wait ends.
    async fn turn(&self) -> SemaphorePermit<'_> {
        self.room.acquire().await.expect("the semaphore is never closed")
    }

    fn silent_about(&self) -> MutexGuard<'_, Vec<DeliveryId>> {
        self.silent_about.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) -> MutexGuard<'_, Option<(Instant, Result<(), Unchecked>)>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
