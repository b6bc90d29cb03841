//! The connection is cut after every octet of a session, in order and by a reset, in both directions: afterwards clean
//! checks end with each message exactly once, nothing in `tmp/`, and at the server what the account wants there.
//!
//! `CONNECTORD_CUTS=all` visits every octet, `CONNECTORD_CUTS=7` every seventh, `CONNECTORD_CUTS=7/3` every seventh from the
//! third (from 0); by default every [`STEP`]th (of TLS every [`TLS_STEP`]th), from another one each day. The line printed
//! for each session says which points were visited: `cargo test --test cuts -- --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod light;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use connectord_account::{Protocol, Retention};
use connectord_engine::{Job, Quiet};
use connectord_net::{CertificateDer, Connector};
use connectord_testkit::servers::{ImapServer, Pop3Server, Server, ServerOptions};
use connectord_testkit::{Certificates, Cut, Direction, Fault, FaultProxy, Faults};
use connectord_wire::Security;
use light::Light;
use tokio::task::JoinSet;

/// By default one octet of so many is visited.
const STEP: u64 = 7;
/// The same under TLS, where a round costs more.
const TLS_STEP: u64 = 61;
/// Rounds at once. Most of a round is waiting.
const AT_ONCE: usize = 24;
/// Checks after the cut until all must be well.
const CHECKS: usize = 5;

/// Small, and each odd in its own way.
const MESSAGES: [&[u8]; 5] = [
    b"Message-ID: <0@example.org>\r\nSubject: plain\r\n\r\ntoken-0 \r\n",
    b"Message-ID: <1@example.org>\r\nSubject: dots\r\n\r\n.\r\n..\r\n. token-1 \r\n.\r\n",
    b"Subject: token-2 has no body and no id\r\n\r\n",
    b"Message-ID: <3@example.org>\r\nSubject: octets\r\n\r\n\x00\xff\x80 token-3 \r\r\n)\r\nA1 OK\r\n+OK\r\n\r\n\r\n",
    b"Message-ID: <4@example.org>\r\nSubject: no line end\r\n\r\ntoken-4 end",
];

/// One kind of session.
#[derive(Clone)]
struct Session {
    protocol: Protocol,
    security: Security,
    retention: Retention,
    certificates: Option<Certificates>,
    /// One for all rounds, as reading the system's authorities takes longer than a round.
    connector: Connector,
}

/// One point of it.
#[derive(Clone, Copy, Debug)]
struct Point {
    direction: Direction,
    cut: Cut,
    octets: u64,
}

/// What was wrong at a point in the end.
#[derive(Debug, Default)]
struct Found {
    lost: usize,
    duplicated: usize,
    stuck: usize,
    leftovers: usize,
    /// Taken from the server without being here.
    unsafe_removals: usize,
}

impl Found {
    fn is_well(&self) -> bool {
        self.lost + self.duplicated + self.stuck + self.leftovers + self.unsafe_removals == 0
    }
}

enum Any {
    Pop3(Pop3Server),
    Imap(ImapServer),
}

impl Any {
    fn server(&self) -> &Server {
        match self {
            Self::Pop3(server) => server,
            Self::Imap(server) => server,
        }
    }
}

impl Session {
    fn new(protocol: Protocol, security: Security, retention: Retention) -> Self {
        let certificates = (security != Security::None).then(Certificates::new);
        Self { protocol, security, retention, certificates, connector: Connector::new() }
    }

    fn server(&self) -> Any {
        let mut options = ServerOptions::new().user("ann", "secret");
        if let Some(certificates) = &self.certificates {
            let config = certificates.server_config();
            options = if self.security == Security::Tls { options.tls(config) } else { options.starttls(config) };
        }
        let server = match self.protocol {
            Protocol::Pop3 => Any::Pop3(Pop3Server::start(options)),
            Protocol::Imap => Any::Imap(ImapServer::start(options)),
        };
        for message in MESSAGES {
            server.server().mailbox("ann").add(message.to_vec());
        }
        server
    }

    fn installation(&self) -> Light {
        Light::with(self.connector.clone(), Arc::new(Quiet))
    }

    fn job(&self, here: &Light, port: u16) -> Job {
        let mut job = here.job(self.protocol, port, |account| {
            account.retention = self.retention;
            account.security = self.security;
        });
        if let Some(certificates) = &self.certificates {
            job.route.tls.roots.push(CertificateDer::from(certificates.ca_der().to_vec()));
        }
        job
    }

    /// Octets in both directions of a check in which nothing goes wrong.
    async fn measure(&self) -> [(Direction, u64); 2] {
        let (server, here) = (self.server(), self.installation());
        let proxy = FaultProxy::start(server.server().address());
        let report = here.run(&self.job(&here, proxy.port())).await;
        assert!(report.error.is_none() && report.delivered == MESSAGES.len() as u64, "{report:?}");
        assert_eq!(proxy.connections(), 1, "each point is a point of one connection");
        [Direction::ToClient, Direction::ToServer].map(|direction| (direction, proxy.octets(direction)))
    }

    /// A check that is cut at this point, then clean ones.
    async fn visit(&self, point: Point) -> Found {
        let (server, here) = (self.server(), self.installation());
        let mailbox = server.server().mailbox("ann");
        let proxy = FaultProxy::start(server.server().address());
        let fault = Fault::none().cut_after(point.octets, point.cut);
        proxy.next(match point.direction {
            Direction::ToClient => Faults::to_client(fault),
            Direction::ToServer => Faults::to_server(fault),
        });
        let job = self.job(&here, proxy.port());
        here.run(&job).await;
        let missing_here = MESSAGES.len() - here.tokens("ann").len().min(MESSAGES.len());
        let unsafe_removals = missing_here.saturating_sub(mailbox.len());
        for _ in 0..CHECKS {
            // The waits after failures, and not long enough to make the clock unbelievable.
            here.pass(4 * 3600);
            here.run(&job).await;
        }
        // A marker whose batch's outcome may or may not be committed stays until the destination goes.
        drop(job);
        let tokens = here.tokens("ann");
        let wanted_there = if self.retention == Retention::Never { MESSAGES.len() } else { 0 };
        Found {
            lost: (0..MESSAGES.len()).filter(|token| !tokens.contains_key(&token.to_string())).count(),
            duplicated: tokens.values().map(|count| count - 1).sum(),
            stuck: mailbox.len().abs_diff(wanted_there),
            leftovers: here.leftovers("ann"),
            unsafe_removals,
        }
    }

    /// Visits points, prints what was found, and stops the test at what should not be.
    async fn walk(self, step: Step) {
        let began = std::time::Instant::now();
        let (mut points, mut whole) = (Vec::new(), 0);
        for (direction, total) in self.measure().await {
            for (cut, shift) in [(Cut::Fin, 0), (Cut::Rst, 1)] {
                // The two ways to end take different octets when not all are visited.
                let first = (step.first + shift * (step.every / 2)) % step.every;
                let visited = (first..=total).step_by(usize::try_from(step.every).unwrap());
                points.extend(visited.map(|octets| Point { direction, cut, octets }));
                whole += total + 1;
            }
        }
        let (visited, session) = (points.len(), Arc::new(self));
        let (mut points, mut rounds, mut wrong) = (points.into_iter(), JoinSet::new(), BTreeMap::new());
        loop {
            while rounds.len() < AT_ONCE
                && let Some(point) = points.next()
            {
                let session = Arc::clone(&session);
                rounds.spawn(async move { (point, session.visit(point).await) });
            }
            let Some(round) = rounds.join_next().await else { break };
            let (point, found) = round.unwrap();
            if !found.is_well() {
                wrong.insert(format!("{point:?}"), found);
            }
        }
        let sum = |of: fn(&Found) -> usize| wrong.values().map(of).sum::<usize>();
        println!(
            "{:?} {:?} {:?}: {visited} of {whole} points (every {} from {}), lost {}, duplicated {}, stuck {}, left in tmp {}, \
             removed too early {}, {:?}",
            session.protocol,
            session.security,
            session.retention,
            step.every,
            step.first,
            sum(|f| f.lost),
            sum(|f| f.duplicated),
            sum(|f| f.stuck),
            sum(|f| f.leftovers),
            sum(|f| f.unsafe_removals),
            began.elapsed(),
        );
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[derive(Clone, Copy)]
struct Step {
    every: u64,
    first: u64,
}

/// What the environment wants, else every `default`th, from another one each day.
fn step(default: u64) -> Step {
    let today = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400;
    let wanted = std::env::var("CONNECTORD_CUTS").unwrap_or_default();
    let number =
        |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("CONNECTORD_CUTS={wanted:?}: all, 7 or 7/3"));
    let (every, first) = match (wanted.as_str(), wanted.split_once('/')) {
        ("", _) => (default, today),
        ("all", _) => (1, 0),
        (_, Some((every, first))) => (number(every), number(first)),
        (every, None) => (number(every), today),
    };
    let every = every.max(1);
    Step { every, first: first % every }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pop3_cut_anywhere_delivers_each_message_once_and_removes_it() {
    Session::new(Protocol::Pop3, Security::None, Retention::Immediately).walk(step(STEP)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imap_cut_anywhere_delivers_each_message_once_and_removes_it() {
    Session::new(Protocol::Imap, Security::None, Retention::Immediately).walk(step(STEP)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pop3_cut_anywhere_delivers_each_message_once_and_leaves_it_there() {
    Session::new(Protocol::Pop3, Security::None, Retention::Never).walk(step(STEP)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imap_cut_anywhere_delivers_each_message_once_and_leaves_it_there() {
    Session::new(Protocol::Imap, Security::None, Retention::Never).walk(step(STEP)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pop3_cut_anywhere_under_tls_delivers_each_message_once_and_removes_it() {
    Session::new(Protocol::Pop3, Security::StartTls, Retention::Immediately).walk(step(TLS_STEP)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imap_cut_anywhere_under_tls_delivers_each_message_once_and_removes_it() {
    Session::new(Protocol::Imap, Security::Tls, Retention::Immediately).walk(step(TLS_STEP)).await;
}

/// Not cut, but so slow that every octet comes by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn octets_that_come_one_at_a_time_are_the_same_octets() {
    for protocol in [Protocol::Pop3, Protocol::Imap] {
        for security in [Security::None, Security::StartTls] {
            let session = Session::new(protocol, security, Retention::Immediately);
            let (server, here) = (session.server(), session.installation());
            let proxy = FaultProxy::start(server.server().address());
            let drip = Fault::none().drip(1, Duration::from_micros(100));
            proxy.set(Faults { to_client: drip, to_server: drip });
            let report = here.run(&session.job(&here, proxy.port())).await;
            assert!(report.error.is_none(), "{protocol:?}: {:?}", report.error);
            assert_eq!((report.delivered, report.removed), (5, 5), "{protocol:?}");
            assert!(here.tokens("ann").values().all(|count| *count == 1) && server.server().mailbox("ann").is_empty());
        }
    }
}
