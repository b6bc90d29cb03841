//! The engine: from a small server over TLS through the filters into a Maildir, everything durable.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connectord_account::{Account, Protocol};
use connectord_deliveries::maildir::{Maildir, Options};
use connectord_delivery::{Failure, Presence, Recipient};
use connectord_engine::{Ambiguous, Board, Clock, Filters, Job, Logins, Mode, Quiet, Site, Spool, Users};
use connectord_filter::{Chain, Filter, OnSpam, Policy};
use connectord_mail::Relays;
use connectord_net::{Connector, Route};
use connectord_sasl::{Credential, StaticCredentials};
use connectord_stores::sqlite::{self, SqliteStore};
use connectord_testkit::servers::{ImapServer, Pop3Server, Server, ServerOptions};
use connectord_testkit::{Certificates, Message};
use connectord_wire::{Endpoint, Security};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

/// Servers that have the mail. It stays there.
pub(crate) struct Retrieval {
    imap: ImapServer,
    pop3: Pop3Server,
    certificates: Certificates,
    connector: Connector,
}

struct Everybody;

#[async_trait]
impl Users for Everybody {
    async fn presence(&self, _: &str) -> Result<Option<Presence>, Failure> {
        Ok(None)
    }
}

impl Retrieval {
    pub(crate) fn start(mail: &[Message]) -> Self {
        let certificates = Certificates::new();
        let options = || ServerOptions::new().user("ann", "secret").tls(certificates.server_config());
        let (imap, pop3) = (ImapServer::start(options()), Pop3Server::start(options()));
        for message in mail {
            imap.mailbox("ann").add(message.clone());
            pop3.mailbox("ann").add(message.clone());
        }
        Self { imap, pop3, certificates, connector: Connector::new() }
    }

    /// Retrieves all of it with a state and a Maildir that know nothing, and says how long that took: from the connection
    /// to the last commit.
    pub(crate) async fn run(&self, protocol: Protocol, filters: &[Arc<dyn Filter>], bodies: &[Vec<u8>]) -> Duration {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let store = SqliteStore::open(directory.path().join("state"), sqlite::Options::default());
        let store = Arc::new(store.expect("a state can be made in our directory"));
        let path = format!("{}/{{user}}", directory.path().display());
        let delivery = Maildir::new(Options::new(path.parse().expect("a path with one place"), store.instance()));
        let site = Site {
            store: store.clone(),
            connector: self.connector.clone(),
            spool: Spool::new(directory.path().into(), 64 << 20),
            hostname: "bench".to_owned(),
            clock: Clock::system(),
            logins: Logins::default(),
            users: Arc::new(Everybody),
            observer: Arc::new(Quiet),
            board: Board::default(),
            trail: Arc::new(connectord_store::NoTrail),
            filters: Filters::new(Chain { filters: filters.to_vec() }, None),
        };
        let job = self.job(protocol, delivery);
        let (_stop, stopped) = watch::channel(false);
        let began = Instant::now();
        let report = connectord_engine::run(&site, &job, Mode::default(), stopped).await;
        let took = began.elapsed();
        assert!(report.error.is_none(), "the check failed: {:?}", report.error);
        assert_eq!((report.delivered, report.unchecked), (bodies.len() as u64, 0), "delivered, unchecked");
        verify(&directory.path().join("ann"), bodies, filters);
        store.close().await;
        took
    }

    fn job(&self, protocol: Protocol, delivery: Maildir) -> Job {
        let server: &Server = match protocol {
            Protocol::Imap => &self.imap,
            Protocol::Pop3 => &self.pop3,
        };
        let endpoint = Endpoint::new("127.0.0.1", server.port()).expect("it is an address");
        let account = Account::new("ann@example.org", protocol, endpoint.clone(), "ann");
        let mut route = Route::new(endpoint, Security::Tls);
        route.tls.roots.push(CertificateDer::from(self.certificates.ca_der().to_vec()));
        Job {
            route,
            credentials: Arc::new(StaticCredentials::new(Credential::password("ann", "secret"))),
            destination: "default".to_owned(),
            delivery: Arc::new(delivery),
            recipients: vec![Recipient { user: "ann".to_owned(), address: "ann".to_owned() }],
            account: Arc::new(account),
            ambiguous: Ambiguous::default(),
            // Whatever the filters say is delivered: there is no quarantine here.
            policy: Policy { on_reject: OnSpam::Mark, postpone: false, ..Policy::default() },
            relays: Relays::default(),
        }
    }
}

/// Every message must be there, once, as it was on the server, and in front of it what each filter said, and no other.
fn verify(maildir: &Path, bodies: &[Vec<u8>], filters: &[Arc<dyn Filter>]) {
    let files = std::fs::read_dir(maildir.join("new")).expect("the Maildir is there");
    let read = |file: std::io::Result<std::fs::DirEntry>| file.and_then(|file| std::fs::read(file.path()));
    let mut found: Vec<Vec<u8>> = files.map(|file| read(file).expect("our file can be read")).collect();
    assert_eq!(found.len(), bodies.len(), "messages in the Maildir");
    // Longer ones first: a short one might be another one's end.
    let mut expected: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    expected.sort_by_key(|body| std::cmp::Reverse(body.len()));
    for body in expected {
        let front = |file: &[u8]| -> Option<usize> {
            // POP3 has no message without a line end at its end.
            let front = file.strip_suffix(body).or_else(|| file.strip_suffix(b"\n")?.strip_suffix(body))?;
            Some(front.len())
        };
        let (place, length) = found
            .iter()
            .enumerate()
            .find_map(|(place, file)| Some((place, front(file)?)))
            .unwrap_or_else(|| panic!("a message of {} octets is missing or was changed", body.len()));
        let file = found.swap_remove(place);
        let front = String::from_utf8_lossy(&file[..length]);
        let traces: Vec<&str> = front.lines().filter_map(|line| line.strip_prefix("X-Connectord-Filter: ")).collect();
        assert_eq!(traces.len(), filters.len(), "filters that looked at a message: {front}");
        for filter in filters {
            let checked = format!("{}; checked;", filter.name());
            assert!(traces.iter().any(|trace| trace.starts_with(&checked)), "no {checked} before a message: {front}");
        }
    }
}
