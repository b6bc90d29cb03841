//! Names to addresses on threads of its own.
//!
//! `getaddrinfo` blocks, cannot be called off, and may hang as long as the name servers of a zone do. What keeps such
//! names from each other and from all others:
//!
//! - Who asks for a name that is being looked up shares that look-up: a dead zone has one thread per name, whoever asks
//!   and however often.
//! - 64 look-ups run at once. One that takes longer than a quarter of a second does not count among them any more:
//!   another thread takes its place, until 1,024 threads (or a quarter of the files that may be open, as each has a
//!   socket) are away with slow ones. So a thousand names that hang for ever have been set aside in some four seconds.
//! - Names that the resolver answered in time last time go first, and a quarter of the 64 is for them alone; then come
//!   unknown ones; those that hung last time come last, have at most half of the 64, and at most half of the slow ones.
//! - At most 1,024 names wait. One more takes the place of one that is trusted less, or is refused at once.
//! - A name that has been looked up for ten seconds already is not waited for again: whoever asks is told at once.
//! - The last good addresses of 4,096 names are kept. When the resolver has not answered in two seconds, cannot answer, or
//!   has no room, they are used for up to seven days; not when it says that there is no such host. So hosts that were
//!   reached before are reached while every name server is dead.

mod history;
mod limits;
mod queue;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::ResolveProblem;
use history::History;
use queue::Queue;

pub use limits::ResolverLimits;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);
/// Stack of a thread, in octets: what a name service of a directory or of another machine may want.
const STACK: usize = 1 << 20;

/// How a name becomes addresses; may block.
pub trait Lookup: Send + Sync + 'static {
    /// Every address of `host`, best first.
    ///
    /// # Errors
    /// The resolver's error.
    fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

impl<F: Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static> Lookup for F {
    fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self(host)
    }
}

/// Names to addresses, on threads of its own, so that names which hang hold up only who asks for them.
///
/// Clones share the threads and what is known of names. Look-ups share a thread per name; slow ones are set aside, names
/// that hung last time come last, and addresses from before serve while the resolver is silent ([`ResolverLimits`]).
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    lookup: Box<dyn Lookup>,
    limits: ResolverLimits,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: Queue,
    history: History,
    /// Who wants to know, by name: for those that wait and those that are looked up.
    asking: HashMap<String, Vec<oneshot::Sender<Answer>>>,
    /// Threads that are not away with a slow look-up.
    threads: usize,
    /// Those without a look-up.
    idle: usize,
    tended: Option<Instant>,
}

type Answer = Result<Vec<IpAddr>, ResolveProblem>;

impl Resolver {
    /// The system's: `/etc/hosts`, nsswitch and all.
    pub fn system() -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
        let mut limits = ResolverLimits::default();
        limits.slow_threads = limits.slow_threads.min(files / 4);
        Self::with_limits(system_lookup, limits)
    }

    /// One of the caller's, with at most `threads` look-ups at once that are not slow, and `queue` names waiting.
    pub fn new(lookup: impl Lookup, threads: usize, queue: usize) -> Self {
        Self::with_limits(lookup, ResolverLimits { threads, queue, ..ResolverLimits::default() })
    }

    /// One of the caller's, with bounds of the caller's.
    pub fn with_limits(lookup: impl Lookup, mut limits: ResolverLimits) -> Self {
        limits.threads = limits.threads.max(1);
        Self(Arc::new(Shared { lookup: Box::new(lookup), limits, state: Mutex::default(), work: Condvar::new() }))
    }

    /// Every address of `host`, best first; an address is its own answer. Has no deadline of its own.
    ///
    /// # Errors
    /// [`ResolveProblem`].
    pub async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveProblem> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let Shared { limits, .. } = &*self.0;
        let began = tokio::time::Instant::now();
        let mut answer = match self.0.ask(host) {
            Ok(answer) => answer,
            Err(problem) => return self.0.stale(host).ok_or(problem),
        };
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => {
                    let failed = || ResolveProblem::Unanswered { text: "the resolver failed".to_owned() };
                    return match answer.unwrap_or_else(|_| Err(failed())) {
                        Err(problem @ ResolveProblem::NoSuchHost { .. }) => Err(problem),
                        Err(problem) => self.0.stale(host).ok_or(problem),
                        found => found,
                    };
                }
                () = tokio::time::sleep(limits.slow_after.min(limits.stale_after)) => {
                    self.0.tend();
                    if began.elapsed() >= limits.stale_after && let Some(stale) = self.0.stale(host) {
                        return Ok(stale);
                    }
                }
            }
        }
    }
}

impl Shared {
    fn ask(self: &Arc<Self>, host: &str) -> Result<oneshot::Receiver<Answer>, ResolveProblem> {
        let (sender, receiver) = oneshot::channel();
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(asking) = state.asking.get_mut(host) {
            match state.queue.under_way(host, Instant::now()) {
                Some(after) if after >= self.limits.silent_after => return Err(ResolveProblem::Silent { after }),
                _ => {}
            }
            asking.retain(|other| !other.is_closed());
            asking.push(sender);
            return Ok(receiver);
        }
        if state.queue.waiting() >= self.limits.queue {
            state.forget_unwanted();
        }
        let (waiting, standing) = (state.queue.waiting(), state.history.standing(host));
        state.asking.insert(host.to_owned(), vec![sender]);
        if let Some(out) = state.queue.push(host.to_owned(), standing, &self.limits) {
            for sender in state.asking.remove(&out).unwrap_or_default() {
                // Who went away does not need the answer.
                let _ = sender.send(Err(ResolveProblem::Overloaded { waiting }));
            }
        }
        if let Err(error) = self.staff(state) {
            state.queue.retain(|other| other != host);
            state.asking.remove(host);
            return Err(ResolveProblem::Unanswered { text: error.to_string() });
        }
        Ok(receiver)
    }

    /// Sets slow look-ups aside and gives their places to those that wait. Whoever waits for an answer calls it now and
    /// then: nobody else needs it.
    fn tend(self: &Arc<Self>) {
        let mut guard = self.lock();
        let (state, now) = (&mut *guard, Instant::now());
        if state.tended.is_some_and(|last| now.saturating_duration_since(last) < self.limits.slow_after / 8) {
            return;
        }
        state.tended = Some(now);
        for host in state.queue.write_off(&self.limits, now) {
            state.threads -= 1;
            state.history.hangs(&host, now);
        }
        // With a thread there already the others only wait a little longer.
        let _ = self.staff(state);
    }

    /// Starts threads for what can begin.
    fn staff(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let startable = state.queue.startable(&self.limits);
        for _ in state.idle..startable.min(self.limits.threads - (state.threads - state.idle)) {
            let (shared, thread) = (Arc::clone(self), std::thread::Builder::new().name("resolver".to_owned()));
            match thread.stack_size(STACK).spawn(move || shared.work()) {
                Ok(_) => (state.threads, state.idle) = (state.threads + 1, state.idle + 1),
                Err(error) if state.threads == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if startable > 0 {
            self.work.notify_all();
        }
        Ok(())
    }

    /// One thread's life.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            let Some(host) = state.queue.next(&self.limits, Instant::now()) else {
                let (woken, wait) = self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                if wait.timed_out() && state.queue.startable(&self.limits) == 0 {
                    (state.threads, state.idle) = (state.threads - 1, state.idle - 1);
                    return;
                }
                continue;
            };
            if state.asking.get(&host).is_none_or(|asking| asking.iter().all(oneshot::Sender::is_closed)) {
                state.asking.remove(&host);
                state.queue.done(&host, Instant::now());
                continue;
            }
            state.idle -= 1;
            drop(state);
            // A look-up that panics must not take the thread's place in the count with it.
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.lookup.lookup(&host)));
            let answer = match found {
                Ok(found) => answer(found),
                Err(_) => Err(ResolveProblem::Unanswered { text: "the resolver failed".to_owned() }),
            };
            state = self.lock();
            let was_slow = state.over(&host, answer, &self.limits);
            if was_slow && state.threads >= self.limits.threads {
                return;
            }
            (state.threads, state.idle) = (state.threads + usize::from(was_slow), state.idle + 1);
        }
    }

    /// The addresses from before.
    fn stale(&self, host: &str) -> Option<Vec<IpAddr>> {
        let stale = self.lock().history.stale(host, self.limits.stale_for, Instant::now())?;
        if stale.first {
            let age_seconds = stale.age.as_secs();
            tracing::warn!(host, age_seconds, "the resolver does not answer; the last addresses are used");
        }
        Some(stale.addresses)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A look-up is over; whether it had been set aside.
    fn over(&mut self, host: &str, answer: Answer, limits: &ResolverLimits) -> bool {
        let now = Instant::now();
        let (took, was_slow) = self.queue.done(host, now);
        let in_time = took < limits.stale_after;
        match &answer {
            Ok(addresses) => self.history.found(host, addresses, in_time, now),
            Err(ResolveProblem::NoSuchHost { .. }) => self.history.gone(host, in_time, now),
            Err(_) => self.history.unanswered(host, in_time, now),
        }
        for sender in self.asking.remove(host).unwrap_or_default() {
            // Who went away does not need the answer.
            let _ = sender.send(answer.clone());
        }
        was_slow
    }

    /// Names in the queue that nobody waits for any more make room.
    fn forget_unwanted(&mut self) {
        let asking = &mut self.asking;
        self.queue.retain(|host| {
            let wanted = asking.get(host).is_some_and(|asking| asking.iter().any(|sender| !sender.is_closed()));
            if !wanted {
                asking.remove(host);
            }
            wanted
        });
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Resolver")
            .field("waiting", &state.queue.waiting())
            .field("threads", &state.threads)
            .field("slow", &state.queue.slow)
            .finish()
    }
}

fn system_lookup(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

fn answer(found: io::Result<Vec<IpAddr>>) -> Answer {
    match found {
        Ok(addresses) if addresses.is_empty() => Err(ResolveProblem::NoSuchHost { text: "no address".to_owned() }),
        Ok(addresses) => Ok(addresses),
        Err(error) => {
            let text = error.to_string();
            let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned();
            // std keeps getaddrinfo's EAI_ code only as glibc's and musl's words for it.
            let is_final =
                ["Name or service not known", "No address associated", "Name does not resolve", "Name has no"]
                    .iter()
                    .any(|words| text.contains(words));
            Err(if is_final { ResolveProblem::NoSuchHost { text } } else { ResolveProblem::Unanswered { text } })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const LONG: Duration = Duration::from_secs(60);

    /// Names that begin with `dead` hang while the gate is shut, all of them when it is shut to all.
    #[derive(Default)]
    struct Gate {
        open: Mutex<bool>,
        opened: Condvar,
        hangs_all: AtomicBool,
        asked: AtomicUsize,
    }

    impl Gate {
        fn lookup(self: &Arc<Self>) -> impl Lookup {
            let gate = Arc::clone(self);
            move |host: &str| {
                gate.asked.fetch_add(1, Ordering::SeqCst);
                if host.starts_with("dead") || gate.hangs_all.load(Ordering::SeqCst) {
                    let open = gate.open.lock().unwrap();
                    drop(gate.opened.wait_while(open, |open| !*open).unwrap());
                }
                Ok(vec![HERE])
            }
        }

        fn open(&self) {
            *self.open.lock().unwrap() = true;
            self.opened.notify_all();
        }
    }

    fn limits() -> ResolverLimits {
        ResolverLimits {
            slow_after: Duration::from_millis(100),
            stale_after: Duration::from_millis(300),
            ..ResolverLimits::default()
        }
    }

    async fn in_time(answer: impl Future<Output = Answer>) -> Answer {
        tokio::time::timeout(LONG, answer).await.expect("an answer")
    }

    fn ask_in_vain(resolver: &Resolver, names: impl Iterator<Item = String>) -> tokio::task::JoinSet<()> {
        let mut asking = tokio::task::JoinSet::new();
        for name in names {
            let resolver = resolver.clone();
            asking.spawn(async move { drop(resolver.resolve(&name).await) });
        }
        asking
    }

    #[tokio::test]
    async fn the_system_knows_localhost_and_an_address_is_its_own_answer() {
        let resolver = Resolver::system();
        assert!(resolver.resolve("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(resolver.resolve("::1").await, Ok(vec!["::1".parse().unwrap()]));
    }

    #[tokio::test]
    async fn a_dead_zone_takes_one_thread_however_many_ask() {
        let gate = Arc::new(Gate::default());
        let resolver = Resolver::with_limits(gate.lookup(), ResolverLimits { threads: 2, ..limits() });
        let asking = ask_in_vain(&resolver, (0..50).map(|_| "dead.example".to_owned()));
        for number in 0..20 {
            assert_eq!(in_time(resolver.resolve(&format!("host{number}.example"))).await, Ok(vec![HERE]));
        }
        assert_eq!(gate.asked.load(Ordering::SeqCst), 21);
        gate.open();
        tokio::time::timeout(LONG, asking.join_all()).await.expect("all are answered");
    }

    /// Before, between and after names that hang for ever.
    #[tokio::test]
    async fn a_thousand_names_that_hang_for_ever_do_not_hold_up_twenty_that_do_not() {
        let gate = Arc::new(Gate::default());
        let resolver = Resolver::with_limits(gate.lookup(), limits());
        let dead = 1000;
        let mut asking = ask_in_vain(&resolver, (0..dead / 2).map(|n| format!("dead{n}.example")));
        let mut between = tokio::task::JoinSet::new();
        for number in 0..20 {
            let resolver = resolver.clone();
            between.spawn(async move { resolver.resolve(&format!("between{number}.example")).await });
        }
        let mut more = ask_in_vain(&resolver, (dead / 2..dead).map(|n| format!("dead{n}.example")));
        for answer in tokio::time::timeout(LONG, between.join_all()).await.expect("all are answered") {
            assert_eq!(answer, Ok(vec![HERE]));
        }
        for number in 0..20 {
            assert_eq!(in_time(resolver.resolve(&format!("after{number}.example"))).await, Ok(vec![HERE]));
        }
        // Each hangs once.
        let all = async {
            while gate.asked.load(Ordering::SeqCst) < dead + 40 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONG, all).await.expect("every name is looked up");
        assert_eq!(gate.asked.load(Ordering::SeqCst), dead + 40);
        asking.abort_all();
        more.abort_all();
        assert_eq!(in_time(resolver.resolve("again.example")).await, Ok(vec![HERE]));
        gate.open();
    }

    #[tokio::test]
    async fn with_all_name_servers_dead_known_hosts_are_still_found_and_unknown_ones_are_not() {
        let gate = Arc::new(Gate::default());
        let resolver =
            Resolver::with_limits(gate.lookup(), ResolverLimits { silent_after: limits().slow_after, ..limits() });
        assert_eq!(resolver.resolve("known.example").await, Ok(vec![HERE]));
        gate.hangs_all.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(in_time(resolver.resolve("known.example")).await, Ok(vec![HERE]));
        }
        let asking = ask_in_vain(&resolver, ["unknown.example".to_owned()].into_iter());
        let silent = loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let asked = tokio::time::timeout(Duration::from_millis(20), resolver.resolve("unknown.example")).await;
            if let Ok(answer) = asked {
                break answer.unwrap_err();
            }
        };
        assert!(matches!(silent, ResolveProblem::Silent { after } if after >= limits().slow_after), "{silent}");
        gate.open();
        tokio::time::timeout(LONG, asking.join_all()).await.expect("it is answered");
        assert_eq!(in_time(resolver.resolve("unknown.example")).await, Ok(vec![HERE]));
    }

    #[tokio::test]
    async fn a_host_that_is_gone_is_gone_and_one_that_cannot_be_asked_for_is_where_it_was() {
        let answers = Mutex::new(vec![
            Err(io::Error::other("Name or service not known")),
            Err(io::Error::other("Temporary failure in name resolution")),
            Ok(vec![HERE]),
        ]);
        let resolver = Resolver::new(move |_: &str| answers.lock().unwrap().pop().unwrap(), 1, 1);
        for _ in 0..2 {
            assert_eq!(resolver.resolve("a.example").await, Ok(vec![HERE]));
        }
        assert!(matches!(resolver.resolve("a.example").await, Err(ResolveProblem::NoSuchHost { .. })));
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_who_left_is_not_looked_up() {
        let gate = Arc::new(Gate::default());
        let limits = ResolverLimits { threads: 1, slow_threads: 0, queue: 2, ..limits() };
        let resolver = Resolver::with_limits(gate.lookup(), limits);
        let first = resolver.0.ask("dead1.example").unwrap();
        while gate.asked.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let second = resolver.0.ask("b.example").unwrap();
        let third = resolver.0.ask("c.example").unwrap();
        assert_eq!(resolver.resolve("d.example").await, Err(ResolveProblem::Overloaded { waiting: 2 }));
        drop(second);
        // There is room again.
        let fourth = resolver.0.ask("e.example").unwrap();
        gate.open();
        for answer in [first, third, fourth] {
            assert_eq!(answer.await.unwrap(), Ok(vec![HERE]));
        }
        assert_eq!(gate.asked.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn the_resolvers_words_decide_whether_asking_again_can_help() {
        let error = |text: &str| answer(Err(io::Error::other(format!("failed to lookup address information: {text}"))));
        let text = "Name or service not known".to_owned();
        assert_eq!(error(&text), Err(ResolveProblem::NoSuchHost { text }));
        let text = "Temporary failure in name resolution".to_owned();
        assert_eq!(error(&text), Err(ResolveProblem::Unanswered { text }));
    }
}
