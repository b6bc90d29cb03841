//! Who waits for a thread and who has one: counting only, no threads and no waiting.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::{Lost, PoolLimits};

/// Something to do.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// Places remembered as well; beyond that they have to show it again.
const MAX_PROVEN: usize = 100_000;

/// When a job's last call returned.
#[derive(Clone)]
pub(super) struct Pulse {
    began: Instant,
    millis: Arc<AtomicU64>,
}

impl Pulse {
    fn new(began: Instant) -> Self {
        Self { began, millis: Arc::default() }
    }

    pub(super) fn beat(&self) {
        self.millis.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long its present call takes already.
    fn silent(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.millis.load(Ordering::Relaxed));
        now.saturating_duration_since(self.began).saturating_sub(last)
    }
}

/// Jobs by place.
#[derive(Default)]
pub(super) struct Queue {
    shares: HashMap<Arc<str>, Share>,
    /// Places with jobs that wait, in turn.
    turn: VecDeque<Arc<str>>,
    running: HashMap<u64, Running>,
    next: u64,
    /// Places where a job has ended in time.
    proven: HashSet<Arc<str>>,
    /// Threads, those aside that are away.
    pub(super) threads: usize,
    /// Those without a job.
    pub(super) idle: usize,
    /// Those that are away.
    slow: usize,
    /// Jobs that are not slow.
    busy: usize,
    /// Of these, those in places of which nothing was known.
    busy_unproven: usize,
    pub(super) watcher: Watcher,
}

/// The thread that looks for jobs that have become slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Watcher {
    /// There is none.
    #[default]
    None,
    /// It is there, and waits for a job to begin.
    Rests,
    /// It looks now and then.
    Looks,
}

struct Share {
    waiting: VecDeque<Job>,
    running: usize,
    slow: usize,
    room: Arc<Semaphore>,
}

struct Running {
    place: Arc<str>,
    pulse: Pulse,
    slow: bool,
    proven: bool,
}

impl Queue {
    fn share(&mut self, place: &str, limits: &PoolLimits) -> (Arc<str>, &mut Share) {
        let place = self.shares.get_key_value(place).map_or_else(|| Arc::from(place), |(place, _)| place.clone());
        let share = self.shares.entry(place.clone()).or_insert_with(|| Share {
            waiting: VecDeque::new(),
            running: 0,
            slow: 0,
            room: Arc::new(Semaphore::new(limits.waiting_per_place)),
        });
        (place, share)
    }

    /// The place's name and its room for jobs that wait.
    pub(super) fn room(&mut self, place: &str, limits: &PoolLimits) -> (Arc<str>, Arc<Semaphore>) {
        self.forget();
        let (place, share) = self.share(place, limits);
        let room = share.room.clone();
        (place, room)
    }

    /// Forgets places where nothing is done or wanted, now and then.
    fn forget(&mut self) {
        if self.shares.len() >= 64 && self.shares.len() >= 2 * (self.running.len() + self.turn.len()) {
            let idle = |share: &Share| share.running == 0 && share.waiting.is_empty();
            self.shares.retain(|_, share| !idle(share) || Arc::strong_count(&share.room) > 1);
        }
    }

    pub(super) fn push(&mut self, place: &str, job: Job, limits: &PoolLimits) {
        let (place, share) = self.share(place, limits);
        share.waiting.push_back(job);
        if share.waiting.len() == 1 {
            self.turn.push_back(place);
        }
    }

    /// Takes out all that waits.
    pub(super) fn clear(&mut self) -> Vec<Job> {
        self.turn.clear();
        self.shares.values_mut().flat_map(|share| share.waiting.drain(..)).collect()
    }

    /// How many jobs of this place could begin.
    fn can_begin(&self, place: &Arc<str>, limits: &PoolLimits) -> usize {
        let Some(share) = self.shares.get(place) else { return 0 };
        if share.slow > 0 || (self.is_crowded(limits) && !self.proven.contains(place)) {
            return 0;
        }
        // The first of a place may take any thread, the others leave some for other places' first.
        let first = usize::from(share.running == 0);
        let spare = (limits.threads - limits.threads / 4).saturating_sub(self.busy + first);
        let more = (limits.threads_per_place - first).saturating_sub(share.running).min(spare);
        share.waiting.len().min(first + more)
    }

    /// Whether places of which nothing is known have all that they may have.
    fn is_crowded(&self, limits: &PoolLimits) -> bool {
        self.slow >= limits.slow_threads && self.busy_unproven >= (limits.threads / 2).max(1)
    }

    /// How many jobs could begin, had they a thread each; a few more than can is no harm.
    pub(super) fn startable(&self, limits: &PoolLimits) -> usize {
        self.turn.iter().map(|place| self.can_begin(place, limits)).sum()
    }

    /// The next job of the next place.
    pub(super) fn next(&mut self, limits: &PoolLimits, now: Instant) -> Option<(u64, Pulse, Job)> {
        let at = self.turn.iter().position(|place| self.can_begin(place, limits) > 0)?;
        let place = self.turn.remove(at)?;
        let share = self.shares.get_mut(&place)?;
        let job = share.waiting.pop_front()?;
        share.running += 1;
        if !share.waiting.is_empty() {
            self.turn.push_back(place.clone());
        }
        let (number, pulse, proven) = (self.next, Pulse::new(now), self.proven.contains(&place));
        (self.next, self.busy) = (number + 1, self.busy + 1);
        self.busy_unproven += usize::from(!proven);
        self.running.insert(number, Running { place, pulse: pulse.clone(), slow: false, proven });
        Some((number, pulse, job))
    }

    /// Takes jobs whose call does not return out of the count, as long as there is room for such; says how many.
    pub(super) fn write_off(&mut self, limits: &PoolLimits, now: Instant) -> usize {
        let before = self.slow;
        for running in self.running.values_mut() {
            if self.slow >= limits.slow_threads {
                break;
            }
            if !running.slow && running.pulse.silent(now) >= limits.slow_after {
                running.slow = true;
                (self.slow, self.busy) = (self.slow + 1, self.busy - 1);
                self.busy_unproven -= usize::from(!running.proven);
                self.proven.remove(&running.place);
                if let Some(share) = self.shares.get_mut(&running.place) {
                    share.slow += 1;
                }
            }
        }
        self.slow - before
    }

    /// A job is over; whether it had been written off.
    pub(super) fn done(&mut self, number: u64) -> bool {
        let Some(Running { place, slow, proven, .. }) = self.running.remove(&number) else { return false };
        if let Some(share) = self.shares.get_mut(&place) {
            (share.running, share.slow) = (share.running - 1, share.slow - usize::from(slow));
        }
        if slow {
            self.slow -= 1;
            return true;
        }
        self.busy -= 1;
        self.busy_unproven -= usize::from(!proven);
        if self.proven.len() >= MAX_PROVEN {
            self.proven.clear();
        }
        self.proven.insert(place);
        false
    }

    /// Why a job in this place would be in vain.
    pub(super) fn hung(&self, place: &str, limits: &PoolLimits, now: Instant) -> Option<Lost> {
        let here = self.running.values().filter(|running| *running.place == *place);
        let silent = here.map(|running| running.pulse.silent(now)).max();
        match silent {
            Some(silent) if silent >= limits.hung_after => Some(Lost::Hung(silent)),
            Some(_) => None,
            None if self.is_crowded(limits) && !self.proven.contains(place) => {
                Some(Lost::Crowded(self.slow + self.busy_unproven))
            }
            None => None,
        }
    }

    /// Threads that are away.
    pub(super) fn slow(&self) -> usize {
        self.slow
    }

    /// Jobs that are not slow.
    pub(super) fn busy(&self) -> usize {
        self.busy
    }
}
