//! Hosts and name servers that are dead, hung, silent, slow, or lie: what they cost their own accounts, and that they cost
//! no other's.

#![allow(clippy::unwrap_used, reason = "a test")]

mod light;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connectord_account::{Account, Check, Protocol, Retention};
use connectord_delivery::{BatchLimits, Delivery, Failure, Parcel, Prepared, Presence, RecallRow, Recalled, Recipient};
use connectord_engine::{Job, Limits, Observer, Progress, Quiet, Scheduler};
use connectord_net::{Connector, Proxy, Resolver, ResolverLimits};
use connectord_testkit::servers::{ImapServer, Misbehaviour, Pop3Server, Server, ServerOptions};
use connectord_testkit::{Fault, FaultProxy, Faults};
use connectord_wire::{Endpoint, Security};
use light::{Light, until};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Good accounts among the bad ones.
const GOOD: usize = 20;
/// So long that nothing which depends on it happens in a test.
const NEVER: Duration = Duration::from_secs(3600);

/// Names that hang in the resolver until this is dropped; all others are here.
#[derive(Default)]
struct BlackHole {
    open: Mutex<bool>,
    opened: Condvar,
    asked: AtomicUsize,
}

impl BlackHole {
    fn connector(self: &Arc<Self>) -> Connector {
        let hole = Arc::clone(self);
        let lookup = move |host: &str| {
            if host.starts_with("dead") {
                hole.asked.fetch_add(1, Ordering::SeqCst);
                drop(hole.opened.wait_while(hole.open.lock().unwrap(), |open| !*open).unwrap());
            }
            Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
        };
        Connector::with_resolver(Resolver::with_limits(lookup, ResolverLimits::default()))
    }
}

/// Opens the hole at the end of a test, however that ends: threads that hang would keep the process.
struct Opens(Arc<BlackHole>);

impl Drop for Opens {
    fn drop(&mut self) {
        *self.0.open.lock().unwrap() = true;
        self.0.opened.notify_all();
    }
}

/// Counts the checks that are over, of accounts whose address begins with `bad`.
#[derive(Default)]
struct Ended(AtomicUsize);

impl Observer for Ended {
    fn progress(&self, account: &str, progress: Progress<'_>) {
        if matches!(progress, Progress::Finished(_)) && account.starts_with("bad") {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn good_server() -> Pop3Server {
    let server = Pop3Server::start(ServerOptions::new().users(GOOD));
    for number in 0..GOOD {
        server.mailbox(&format!("user{number}")).add(format!("Subject: hi\r\n\r\ntoken-{number} \r\n").into_bytes());
    }
    server
}

fn good(here: &Light, server: &Server, number: usize, host: &str) -> Job {
    let user = format!("user{number}");
    here.job(Protocol::Pop3, server.port(), |account| {
        (account.address, account.username) = (format!("{user}@example.org"), user.clone());
        account.deliver_to = vec![user];
        account.endpoint = Endpoint::new(host, server.port()).unwrap();
    })
}

/// An account that no other shares anything with but its host.
fn bad(here: &Light, name: &str, host: &str, port: u16) -> Job {
    let mut job = here.job(Protocol::Pop3, port, |account| {
        account.address = format!("bad-{name}@example.org");
        account.endpoint = Endpoint::new(host, port).unwrap();
        account.deliver_to = vec!["nobody".into()];
    });
    (job.route.timeouts.silence, job.route.timeouts.connect) = (NEVER, NEVER);
    job
}

/// A scheduler under way. Its accounts: those given, and more later.
struct Running {
    jobs: watch::Sender<Vec<Job>>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(here: &Light, jobs: Vec<Job>) -> Self {
        let scheduler = Scheduler::new(here.site.clone(), Limits { jitter: 0.0, ..Limits::default() });
        let (jobs, watched) = watch::channel(jobs);
        let (stop, stopped) = watch::channel(false);
        Self { jobs, stop, task: tokio::spawn(async move { scheduler.run(watched, stopped).await }) }
    }

    fn add(&self, more: impl IntoIterator<Item = Job>) {
        self.jobs.send_modify(|jobs| jobs.extend(more));
    }

    async fn end(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(60), self.task).await.expect("it ends when it is told to").unwrap();
    }
}

/// A destination that takes what it is given and never answers.
struct Hangs;

#[async_trait]
impl Delivery for Hangs {
    fn describe(&self) -> String {
        "hangs".into()
    }
    fn limits(&self) -> BatchLimits {
        BatchLimits::default()
    }
    async fn presence(&self, _: &Recipient) -> Result<Presence, Failure> {
        Ok(Presence::Here)
    }
    async fn prepare(&self, _: Vec<Parcel>) -> Box<dyn Prepared> {
        std::future::pending().await
    }
    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        vec![Recalled::Unknown; rows.len()]
    }
}

fn delivered(here: &Light) -> usize {
    (0..GOOD).filter(|number| here.tokens(&format!("user{number}")).len() == 1).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_names_that_hang_in_the_resolver_for_ever_keep_no_other_account_waiting() {
    let hole = Arc::new(BlackHole::default());
    let _opens = Opens(Arc::clone(&hole));
    let (server, here) = (good_server(), Light::with(hole.connector(), Arc::new(Quiet)));
    let mut jobs: Vec<Job> = (0..1000).map(|n| bad(&here, &n.to_string(), &format!("dead{n}.example"), 1)).collect();
    jobs.extend((0..GOOD / 2).map(|n| good(&here, &server, n, &format!("good{n}.example"))));
    let began = Instant::now();
    let running = Running::start(&here, jobs);
    until("hundreds of names are asked for", || hole.asked.load(Ordering::SeqCst) >= 100).await;
    running.add((GOOD / 2..GOOD).map(|n| good(&here, &server, n, &format!("good{n}.example"))));
    until("the good accounts' mail", || delivered(&here) == GOOD).await;
    println!("{GOOD} good ones after {:?}, {} names hang", began.elapsed(), hole.asked.load(Ordering::SeqCst));
    running.end().await;
}

/// A thousand accounts at one host that accepts and says nothing, three hundred at such hosts of their own, two hundred at
/// one that refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_are_silent_or_refuse_keep_no_other_account_waiting_and_are_not_hammered() {
    let silent = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ended = Arc::new(Ended::default());
    let (server, here) = (good_server(), Light::with(Connector::new(), ended.clone()));
    let mut jobs: Vec<Job> = (0..1000).map(|n| bad(&here, &format!("same{n}"), "127.0.0.2", port)).collect();
    let own = |n: usize| format!("127.1.{}.{}", n / 100, n % 100 + 1);
    jobs.extend((0..300).map(|n| bad(&here, &format!("own{n}"), &own(n), port)));
    jobs.extend((0..200).map(|n| bad(&here, &format!("refused{n}"), "127.0.0.3", refusing)));
    jobs.extend((0..GOOD / 2).map(|n| good(&here, &server, n, "127.0.0.1")));
    let began = Instant::now();
    let running = Running::start(&here, jobs);
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.add((GOOD / 2..GOOD).map(|n| good(&here, &server, n, "127.0.0.1")));
    until("the good accounts' mail", || delivered(&here) == GOOD).await;
    until("the refused accounts' ends", || ended.0.load(Ordering::SeqCst) >= 200).await;
    println!("{GOOD} good ones and 200 refused after {:?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(ended.0.load(Ordering::SeqCst), 200, "each once, for a minute at least");
    running.end().await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destinations_that_hang_keep_no_account_with_another_destination_waiting() {
    let hole = Arc::new(BlackHole::default());
    let (server, here) = (good_server(), Light::with(hole.connector(), Arc::new(Quiet)));
    let hanging = Pop3Server::start(ServerOptions::new().users(40));
    let stuck = |n: usize| {
        hanging.mailbox(&format!("user{n}")).add(large(n));
        let job = here.job(Protocol::Pop3, hanging.port(), |account| {
            (account.address, account.username) = (format!("bad-{n}@example.org"), format!("user{n}"));
            // Hosts of their own.
            account.endpoint = Endpoint::new(&format!("host{n}.example"), hanging.port()).unwrap();
        });
        Job { delivery: Arc::new(Hangs), ..job }
    };
    let running = Running::start(&here, (0..40).map(stuck).collect());
    until("all places are taken", || hanging.counters().retrieved >= 20).await;
    running.add((0..GOOD).map(|n| good(&here, &server, n, "127.0.0.1")));
    until("the good accounts' mail", || delivered(&here) == GOOD).await;
    running.end().await;
}

#[tokio::test]
async fn a_server_that_accepts_and_closes_at_once_is_connected_to_ever_more_rarely() {
    for protocol in [Protocol::Pop3, Protocol::Imap] {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, over) = (server.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let connections = Arc::new(AtomicUsize::new(0));
        let (ends, counts) = (Arc::clone(&over), Arc::clone(&connections));
        let closing = std::thread::spawn(move || {
            for connection in server.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                counts.fetch_add(1, Ordering::SeqCst);
                drop(connection);
            }
        });
        let here = Light::new();
        let job = here.job(protocol, port, |account| account.check = Check::Every(Duration::from_secs(60)));
        let (mut passed, mut checks) = (0, 0);
        while passed < 86_400 {
            let report = here.run(&job).await;
            assert!(report.error.is_some());
            let wait = report.next_check.unwrap().as_secs().cast_signed();
            assert!(wait >= 60, "{wait}");
            here.pass(wait);
            (passed, checks) = (passed + wait, checks + 1);
        }
        // 1,440 regular checks; a dozen with four hours between them in the end.
        println!("{protocol:?}: {checks} checks in a day");
        assert!(checks < 100, "{checks}");
        assert_eq!(connections.load(Ordering::SeqCst), checks);
        over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", port));
        closing.join().unwrap();
    }
}

/// Where the other side stops.
enum Silent {
    /// In the resolver.
    Resolver,
    /// No answer to SYN.
    Connect,
    /// The connection is accepted, and nothing follows.
    Accepted,
    /// The same at a proxy.
    Socks,
    Http,
    /// The same where TLS is spoken from the beginning.
    Tls,
    /// At a command.
    At(&'static str),
    /// So many octets have come from the server.
    After(u64),
}

/// How long it is borne in these tests; short, and long enough for a loaded machine to answer in.
const BORNE: Duration = Duration::from_secs(5);
/// A message, in octets.
const LARGE: usize = 20_000;

fn large(number: usize) -> Vec<u8> {
    format!("Subject: {number}\r\n\r\ntoken-{number} \r\n{}", "0123456789abcdef0123456789abcdef\r\n".repeat(LARGE / 34))
        .into_bytes()
}

struct Phase {
    protocol: Protocol,
    silent: Silent,
    /// What the error says was waited for; nothing where the check ends well.
    during: Option<&'static str>,
    /// Messages that are here all the same.
    kept: usize,
}

impl Phase {
    /// Checks; then checks again without a fault.
    async fn visit(self) {
        let options = ServerOptions::new().user("ann", "secret");
        let (pop3, imap);
        let server: &Server = match self.protocol {
            Protocol::Pop3 => {
                pop3 = Pop3Server::start(options);
                &pop3
            }
            Protocol::Imap => {
                imap = ImapServer::start(options);
                &imap
            }
        };
        for number in 0..4 {
            server.mailbox("ann").add(large(number));
        }
        let line = FaultProxy::start(server.address());
        let hole = Arc::new(BlackHole::default());
        let opens = Opens(Arc::clone(&hole));
        let here = Light::with(hole.connector(), Arc::new(Quiet));
        let removing = |account: &mut Account| account.retention = Retention::Immediately;
        let well = here.job(self.protocol, line.port(), removing);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::new("127.0.0.1", silent.local_addr().unwrap().port()).unwrap();
        let mut job = well.clone();
        (job.route.timeouts.silence, job.route.timeouts.connect) = (BORNE, BORNE);
        let mut backlog = Vec::new();
        match self.silent {
            Silent::Resolver => job.route.endpoint = Endpoint::new("dead.example", 1).unwrap(),
            Silent::Connect => {
                backlog = full_backlog();
                job.route.endpoint = Endpoint::new("127.0.0.1", backlog[0].peer_addr().unwrap().port()).unwrap();
            }
            Silent::Accepted => job.route.endpoint = endpoint,
            Silent::Socks => job.route.proxy = Some(Proxy::Socks5 { endpoint, auth: None }),
            Silent::Http => job.route.proxy = Some(Proxy::Http { endpoint, auth: None }),
            Silent::Tls => (job.route.endpoint, job.route.security) = (endpoint, Security::Tls),
            Silent::At(command) => {
                server.misbehave(Misbehaviour { hang_at: Some(command.into()), ..Misbehaviour::default() });
            }
            Silent::After(octets) => line.next(Faults::to_client(Fault::none().stall_after(octets))),
        }
        let what = format!("{:?}, {:?}", self.protocol, self.during);
        let began = Instant::now();
        let report = here.run(&job).await;
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {:?}", began.elapsed());
        let error = report.error.as_ref().map(ToString::to_string);
        println!("{:?}, {} here: {}", self.protocol, here.tokens("ann").len(), error.as_deref().unwrap_or("no error"));
        match self.during {
            None => assert_eq!(error, None, "{what}"),
            Some(during) => assert!(error.as_deref().is_some_and(|error| error.contains(during)), "{what}: {error:?}"),
        }
        assert_eq!(here.tokens("ann").len(), self.kept, "{what}");
        drop((backlog, opens));
        server.misbehave(Misbehaviour::default());
        for _ in 0..2 {
            here.pass(4 * 3600);
            let report = here.run(&well).await;
            assert!(report.error.is_none(), "{what}: {:?}", report.error);
        }
        assert!(here.tokens("ann").values().eq(&[1; 4]), "{what}: {:?}", here.tokens("ann"));
        assert!(server.mailbox("ann").is_empty(), "{what}");
    }
}

/// Connections that fill the backlog of a listener that never accepts: further ones get no answer.
fn full_backlog() -> Vec<TcpStream> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let mut connections = Vec::new();
    while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        connections.push(connection);
    }
    // It is to listen as long as the process runs.
    std::mem::forget(listener);
    connections
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_in_any_phase_ends_the_check_says_what_was_waited_for_and_keeps_what_is_done() {
    use Protocol::{Imap, Pop3};
    let phase = |protocol, silent, during: &'static str, kept| Phase {
        protocol,
        silent,
        during: (!during.is_empty()).then_some(during),
        kept,
    };
    let phases = [
        phase(Pop3, Silent::Resolver, "while resolving the host name", 0),
        phase(Pop3, Silent::Connect, "while connecting", 0),
        phase(Imap, Silent::Socks, "while asking the proxy", 0),
        phase(Imap, Silent::Http, "while asking the proxy", 0),
        phase(Imap, Silent::Tls, "while starting TLS", 0),
        phase(Pop3, Silent::Accepted, "while receiving the greeting", 0),
        phase(Imap, Silent::Accepted, "while receiving the greeting", 0),
        phase(Pop3, Silent::After(3), "while receiving the greeting", 0),
        phase(Imap, Silent::After(3), "while receiving the greeting", 0),
        phase(Pop3, Silent::At("CAPA"), "while receiving the capabilities", 0),
        phase(Pop3, Silent::At("AUTH"), "while waiting for the answer to AUTH", 0),
        phase(Pop3, Silent::At("STAT"), "while waiting for the answer to STAT", 0),
        phase(Pop3, Silent::At("UIDL"), "while waiting for the answer to UIDL", 0),
        phase(Pop3, Silent::At("RETR"), "while waiting for the answer to RETR", 0),
        phase(Pop3, Silent::After(2 * LARGE as u64 + 10_000), "while retrieving a message", 2),
        phase(Pop3, Silent::At("DELE"), "while waiting for the answer to DELE", 4),
        phase(Pop3, Silent::At("QUIT"), "while waiting for the answer to QUIT", 4),
        phase(Imap, Silent::At("AUTHENTICATE"), "while logging in", 0),
        phase(Imap, Silent::At("SELECT"), "while opening a mailbox", 0),
        phase(Imap, Silent::At("UID SEARCH"), "while searching a mailbox", 0),
        phase(Imap, Silent::At("UID FETCH"), "while waiting for messages", 0),
        phase(Imap, Silent::After(2 * LARGE as u64 + 10_000), "while receiving a message", 2),
        phase(Imap, Silent::At("UID STORE"), "while setting flags", 4),
        phase(Imap, Silent::At("UID EXPUNGE"), "while removing messages", 4),
        // All is done by then.
        phase(Imap, Silent::At("LOGOUT"), "", 4),
    ];
    let mut visits = JoinSet::new();
    for phase in phases {
        visits.spawn(phase.visit());
    }
    let mut failed = 0;
    while let Some(visit) = visits.join_next().await {
        failed += usize::from(visit.is_err());
    }
    assert_eq!(failed, 0, "what failed is above");
}

/// An octet now and then, and a line for ever that means nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_drips_or_chatters_is_as_good_as_silent() {
    let server = Pop3Server::start(ServerOptions::new().user("ann", "secret"));
    server.mailbox("ann").add(large(0));
    let line = FaultProxy::start(server.address());
    line.next(Faults::to_client(Fault::none().drip(1, Duration::from_millis(100))));
    let here = Light::new();
    let mut job = here.job(Protocol::Pop3, line.port(), |_| {});
    job.route.timeouts.rate_window = Duration::from_secs(2);
    let error = here.run(&job).await.error.unwrap().to_string();
    assert!(error.contains("only ") && error.contains(" octets from "), "{error}");
    here.pass(4 * 3600);
    assert_eq!(here.run(&job).await.delivered, 1);

    let chatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = chatter.local_addr().unwrap().port();
    let talking = std::thread::spawn(move || {
        let (mut connection, _) = chatter.accept().unwrap();
        let _ = connection.write_all(b"* OK [CAPABILITY IMAP4rev1] hello\r\n");
        while connection.write_all(b"* OK still here, and quite busy with other things at the moment\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let here = Light::new();
    let mut job = here.job(Protocol::Imap, port, |_| {});
    (job.route.timeouts.silence, job.route.timeouts.minimum_rate) = (Duration::from_secs(1), 1);
    let error = here.run(&job).await.error.unwrap().to_string();
    assert!(error.starts_with("nothing of use from ") && error.contains(" for 10 s, in "), "{error}");
    talking.join().unwrap();
}
