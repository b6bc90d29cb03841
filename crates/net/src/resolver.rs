use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::ResolveProblem;

/// Threads of the system resolver; each stuck look-up holds one.
const THREADS: usize = 16;
/// Names that may wait for a thread.
const QUEUE: usize = 1024;
/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

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

/// Names to addresses, on at most 16 threads of its own.
///
/// The system's `getaddrinfo` blocks, for half a minute when a name server is dead. On the runtime's blocking threads that
/// would hold up files and databases too; here it holds up only who asks. Everybody who asks for the same name shares one
/// look-up, so one dead zone takes one thread. At most 1,024 names wait.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    lookup: Box<dyn Lookup>,
    threads: usize,
    queue: usize,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    /// Names nobody looks up yet.
    waiting: VecDeque<String>,
    /// Who wants to know, by name; also for names being looked up.
    asking: HashMap<String, Vec<oneshot::Sender<Answer>>>,
    threads: usize,
    idle: usize,
}

type Answer = Result<Vec<IpAddr>, ResolveProblem>;

impl Resolver {
    /// The system's: `/etc/hosts`, nsswitch and all.
    pub fn system() -> Self {
        Self::new(system_lookup, THREADS, QUEUE)
    }

    /// One of the caller's, on at most `threads` threads, with at most `queue` names waiting for one.
    pub fn new(lookup: impl Lookup, threads: usize, queue: usize) -> Self {
        let (state, work) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { lookup: Box::new(lookup), threads, queue, state, work }))
    }

    /// Every address of `host`, best first; an address is its own answer. Has no deadline of its own.
    ///
    /// # Errors
    /// [`ResolveProblem`].
    pub async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveProblem> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let answer = self.ask(host)?;
        answer.await.unwrap_or_else(|_| Err(ResolveProblem::Unanswered { text: "the resolver failed".to_owned() }))
    }

    fn ask(&self, host: &str) -> Result<oneshot::Receiver<Answer>, ResolveProblem> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.0.lock();
        if let Some(asking) = state.asking.get_mut(host) {
            asking.retain(|other| !other.is_closed());
            asking.push(sender);
            return Ok(receiver);
        }
        if state.waiting.len() >= self.0.queue {
            return Err(ResolveProblem::Overloaded { waiting: state.waiting.len() });
        }
        if state.idle <= state.waiting.len() && state.threads < self.0.threads {
            let shared = self.0.clone();
            let thread = std::thread::Builder::new().name("resolver".to_owned());
            match thread.spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    return Err(ResolveProblem::Unanswered { text: error.to_string() });
                }
                Err(_) => {}
            }
        }
        state.waiting.push_back(host.to_owned());
        state.asking.insert(host.to_owned(), vec![sender]);
        self.0.work.notify_one();
        Ok(receiver)
    }
}

impl Shared {
    /// One thread's life.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            let Some(host) = state.waiting.pop_front() else {
                state.idle += 1;
                let (woken, wait) = self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                state.idle -= 1;
                if wait.timed_out() && state.waiting.is_empty() {
                    state.threads -= 1;
                    return;
                }
                continue;
            };
            if state.asking.get(&host).is_some_and(|asking| asking.iter().all(oneshot::Sender::is_closed)) {
                state.asking.remove(&host);
                continue;
            }
            drop(state);
            // A lookup that panics must not take the thread's place in the count with it.
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.lookup.lookup(&host)));
            let answer = match found {
                Ok(found) => answer(found),
                Err(_) => Err(ResolveProblem::Unanswered { text: "the resolver failed".to_owned() }),
            };
            state = self.lock();
            for sender in state.asking.remove(&host).unwrap_or_default() {
                // Who went away does not need the answer.
                let _ = sender.send(answer.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Resolver").field("waiting", &state.waiting.len()).field("threads", &state.threads).finish()
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
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn the_system_knows_localhost_and_an_address_is_its_own_answer() {
        let resolver = Resolver::system();
        assert!(resolver.resolve("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(resolver.resolve("::1").await, Ok(vec!["::1".parse().unwrap()]));
    }

    #[tokio::test]
    async fn a_dead_zone_takes_one_thread_and_the_others_go_on() {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let stuck = Arc::new(AtomicUsize::new(0));
        let counted = stuck.clone();
        let lookup = move |host: &str| {
            if host == "dead.example" {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = released.lock().unwrap().recv();
            }
            Ok(vec![HERE])
        };
        let resolver = Resolver::new(lookup, 2, 8);
        let asking: Vec<_> = (0..50).map(|_| resolver.ask("dead.example").unwrap()).collect();
        for number in 0..20 {
            assert_eq!(resolver.resolve(&format!("host{number}.example")).await, Ok(vec![HERE]));
        }
        assert_eq!(stuck.load(Ordering::SeqCst), 1);
        release.send(()).unwrap();
        for answer in asking {
            assert_eq!(answer.await.unwrap(), Ok(vec![HERE]));
        }
    }

    #[tokio::test]
    async fn when_every_thread_is_stuck_the_queue_is_bounded_and_who_left_is_not_looked_up() {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let (started, starts) = mpsc::channel::<String>();
        let lookup = move |host: &str| {
            let _ = started.send(host.to_owned());
            let _ = released.lock().unwrap().recv();
            Ok(vec![HERE])
        };
        let resolver = Resolver::new(lookup, 1, 2);
        let first = resolver.ask("a.example").unwrap();
        assert_eq!(starts.recv().unwrap(), "a.example");
        let second = resolver.ask("b.example").unwrap();
        let third = resolver.ask("c.example").unwrap();
        assert_eq!(resolver.resolve("d.example").await, Err(ResolveProblem::Overloaded { waiting: 2 }));
        drop(second);
        drop(release);
        assert_eq!(first.await.unwrap(), Ok(vec![HERE]));
        assert_eq!(third.await.unwrap(), Ok(vec![HERE]));
        assert_eq!(starts.recv().unwrap(), "c.example");
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
