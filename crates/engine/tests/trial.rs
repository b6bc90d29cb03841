//! The test of an account: which step fails is said, and nothing is retrieved, marked or remembered.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::Installation;
use connectord_account::{Account, Folder, Protocol};
use connectord_delivery::{Failure, Presence};
use connectord_engine::{
    Board, Cause, Filters, Job, Logins, Quiet, Site, Spool, Trial, TrialOutcome, TrialStep, Users, trial,
};
use connectord_net::{CertificateDer, Connector, Resolver, ResolverLimits, certificates_from_pem};
use connectord_sasl::{Credential, StaticCredentials};
use connectord_store::Store;
use connectord_testkit::Certificates;
use connectord_testkit::servers::{ImapServer, Pop3Server, ServerOptions};
use connectord_wire::Security;

/// Everybody is here, but `nobody`.
struct ButNobody;

#[async_trait]
impl Users for ButNobody {
    async fn presence(&self, user: &str) -> Result<Option<Presence>, Failure> {
        Ok(Some(if user == "nobody" { Presence::Absent("it is not there".into()) } else { Presence::Here }))
    }
}

/// The installation's site, where `gone.example.org` has no address and all other names are here.
fn site(here: &Installation) -> Site {
    let lookup = |host: &str| match host {
        "gone.example.org" => Err(ErrorKind::NotFound.into()),
        _ => Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
    };
    Site {
        store: here.store.clone(),
        connector: Connector::with_resolver(Resolver::with_limits(lookup, ResolverLimits::default())),
        spool: Spool::new(here.directory.path().into(), 64 << 20),
        hostname: "test".into(),
        clock: here.site.clock.clone(),
        logins: Logins::default(),
        users: Arc::new(ButNobody),
        observer: Arc::new(Quiet),
        filters: Filters::none(),
        board: Board::default(),
        trail: Arc::new(connectord_store::NoTrail),
    }
}

/// What each step came to: `ok`, `note`, `-`, or the cause of its failure.
fn states(trial: &Trial) -> Vec<&'static str> {
    let state = |outcome: &TrialOutcome| match outcome {
        TrialOutcome::Ok(_) => "ok",
        TrialOutcome::Note(_) => "note",
        TrialOutcome::Failed { cause, .. } => cause.code(),
        TrialOutcome::NotReached => "-",
    };
    assert!(trial.steps.iter().map(|(step, ..)| *step).eq(TrialStep::ALL));
    trial.steps.iter().map(|(_, outcome, _)| state(outcome)).collect()
}

fn roots(certificates: &Certificates) -> Vec<CertificateDer<'static>> {
    certificates_from_pem(&std::fs::read(certificates.ca_file()).unwrap()).unwrap()
}

const WELL: [&str; 7] = ["ok"; 7];
const IN_CLEAR: [&str; 7] = ["ok", "ok", "note", "ok", "ok", "ok", "ok"];

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_works_is_said_step_by_step_and_nothing_is_changed_by_it() {
    let here = Installation::new();
    let site = site(&here);
    let certificates = Certificates::new();
    let user = || ServerOptions::new().user("ann", "secret");
    let mail = "Subject: hello\n\nHow are you?\n";
    for security in [Security::None, Security::StartTls, Security::Tls] {
        let options = || match security {
            Security::None => user(),
            Security::StartTls => user().starttls(certificates.server_config()),
            Security::Tls => user().tls(certificates.server_config()),
        };
        let (imap, pop3) = (ImapServer::start(options()), Pop3Server::start(options()));
        imap.mailbox("ann").add(mail);
        pop3.mailbox("ann").add(mail);
        for (protocol, port) in [(Protocol::Imap, imap.port()), (Protocol::Pop3, pop3.port())] {
            let mut job = here.job(protocol, port, |account| account.security = security);
            job.route.tls.roots = roots(&certificates);
            let found = trial(&site, &job, None).await;
            let wanted = if security == Security::None { IN_CLEAR } else { WELL };
            assert_eq!(states(&found), wanted, "{protocol:?} {security:?}: {found:?}");
            let (_, mailbox, _) = &found.steps[5];
            assert!(matches!(mailbox, TrialOutcome::Ok(text) if text.starts_with("1 messages")), "{mailbox:?}");
            assert!(found.is_logged_in());
        }
        assert_eq!(imap.mailbox("ann").messages().len(), 1);
        assert!(imap.mailbox("ann").messages().iter().all(|message| message.flags.is_empty()));
    }
    assert_eq!(here.store.accounts().await.unwrap(), []);
}

/// Tests a job; the state of each step and the text of the failure.
async fn failing(site: &Site, job: &Job) -> (Vec<&'static str>, String) {
    let found = trial(site, job, None).await;
    let (_, outcome) = found.failure().unwrap_or_else(|| panic!("it went well: {found:?}"));
    let TrialOutcome::Failed { text, .. } = outcome else { unreachable!("a failure is a failure") };
    (states(&found), text.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_step_that_fails_is_named_and_what_comes_after_it_was_not_reached() {
    let here = Installation::new();
    let site = site(&here);
    let imap = ImapServer::start(ServerOptions::new().user("ann", "secret"));
    let certificates = Certificates::new();
    let secure = ImapServer::start(ServerOptions::new().user("ann", "secret").tls(certificates.server_config()));
    let job = |port: u16, change: fn(&mut Account)| here.job(Protocol::Imap, port, change);

    let mut gone = job(993, |_| {});
    gone.route.endpoint = "gone.example.org:993".parse().unwrap();
    assert_eq!(failing(&site, &gone).await.0, ["name_unknown", "-", "-", "-", "-", "-", "-"]);

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(failing(&site, &job(closed, |_| {})).await.0, ["ok", "no_answer", "-", "-", "-", "-", "-"]);

    // Nobody vouches for its certificate.
    let strange = job(secure.port(), |account| account.security = Security::Tls);
    assert_eq!(failing(&site, &strange).await.0, ["ok", "ok", "tls", "-", "-", "-", "-"]);
    let without = job(imap.port(), |account| account.security = Security::StartTls);
    assert_eq!(failing(&site, &without).await.0, ["ok", "ok", "tls_not_offered", "-", "-", "-", "-"]);

    let mut wrong = job(imap.port(), |_| {});
    wrong.credentials = Arc::new(StaticCredentials::new(Credential::password("ann", "wrong")));
    let (found, text) = failing(&site, &wrong).await;
    assert_eq!(found, ["ok", "ok", "note", "ok", "login_refused", "-", "-"]);
    assert!(!text.contains("wrong\""), "{text}");

    let no_folder = job(imap.port(), |account| account.folders = vec![Folder::Name("Nowhere".into())]);
    assert_eq!(failing(&site, &no_folder).await.0, ["ok", "ok", "note", "ok", "ok", "folder_gone", "-"]);
    let no_such = job(imap.port(), |account| account.folders = vec![Folder::Pattern("No*".into())]);
    assert_eq!(failing(&site, &no_such).await.0, ["ok", "ok", "note", "ok", "ok", "folder_gone", "-"]);

    let nobody = job(imap.port(), |account| account.deliver_to = vec!["nobody".into()]);
    assert_eq!(failing(&site, &nobody).await.0, ["ok", "ok", "note", "ok", "ok", "ok", "user_gone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_another_protocol_fails_at_the_greeting_and_its_octets_are_not_shown_raw() {
    let here = Installation::new();
    let site = site(&here);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 \x1b[2J<script>alert(1)</script>\r\n").unwrap();
    });
    let (found, text) = failing(&site, &here.job(Protocol::Imap, port, |_| {})).await;
    server.join().unwrap();
    assert_eq!(found, ["ok", "ok", "-", "protocol", "-", "-", "-"]);
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_ends_the_test_by_the_account_s_own_patience() {
    let here = Installation::new();
    let site = site(&here);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut job = here.job(Protocol::Pop3, silent.local_addr().unwrap().port(), |_| {});
    job.route.timeouts.silence = Duration::from_millis(300);
    let (found, text) = failing(&site, &job).await;
    assert_eq!(found, ["ok", "ok", "-", Cause::NoAnswer.code(), "-", "-", "-"], "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_under_way_is_waited_for() {
    let here = Installation::new();
    let site = site(&here);
    let pop3 = Pop3Server::start(ServerOptions::new().user("ann", "secret"));
    let job = here.job(Protocol::Pop3, pop3.port(), |_| {});
    let account = here.store.open_account(job.address()).await.unwrap().id;
    let lease = here.store.lease(account).await.unwrap();
    let testing = trial(&site, &job, Some(account));
    tokio::pin!(testing);
    let early = tokio::time::timeout(Duration::from_millis(500), &mut testing).await;
    assert!(early.is_err(), "{early:?}");
    drop(lease);
    assert!(testing.await.failure().is_none());
    assert!(here.store.lease(account).await.is_ok(), "the lease is given back");
}
