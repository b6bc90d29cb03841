//! What is tried when a server refuses the mechanisms that it offers.

#![allow(clippy::unwrap_used, reason = "a test")]

mod light;

use std::sync::Arc;

use connectord_account::Protocol;
use connectord_engine::{Job, Quiet, RunError};
use connectord_net::{CertificateDer, Connector};
use connectord_testkit::Certificates;
use connectord_testkit::servers::{ImapServer, Misbehaviour, Pop3Server, Server, ServerOptions};
use connectord_wire::Security;
use light::Light;

const PLUS: &str = "SCRAM-SHA-256-PLUS";
const SCRAM: &str = "SCRAM-SHA-256";

/// Over TLS, with and without a mechanism that binds the login to it.
async fn with_servers(check: impl AsyncFn(&Server, &Light, &Job)) {
    for protocol in [Protocol::Pop3, Protocol::Imap] {
        let certificates = Certificates::new();
        let options = ServerOptions::new().user("ann", "secret").tls(certificates.server_config());
        let (pop3, imap);
        let server: &Server = if protocol == Protocol::Pop3 {
            pop3 = Pop3Server::start(options);
            &pop3
        } else {
            imap = ImapServer::start(options);
            &imap
        };
        let here = Light::with(Connector::new(), Arc::new(Quiet));
        let mut job = here.job(protocol, server.port(), |account| account.security = Security::Tls);
        job.route.tls.roots.push(CertificateDer::from(certificates.ca_der().to_vec()));
        check(server, &here, &job).await;
    }
}

fn refusing(mechanisms: &[&str]) -> Misbehaviour {
    let refused_mechanisms = mechanisms.iter().map(|name| (*name).to_owned()).collect();
    Misbehaviour { refused_mechanisms, ..Misbehaviour::default() }
}

#[tokio::test]
async fn what_a_server_refuses_though_it_offers_it_is_tried_once_a_day() {
    with_servers(async |server, here, job| {
        server.misbehave(refusing(&[SCRAM, PLUS]));
        for day in 1..=2 {
            for _ in 0..3 {
                assert!(here.run(job).await.error.is_none());
                assert_eq!(server.counters().refused_logins, 2 * day, "day {day}");
            }
            here.pass(25 * 3600);
        }
        assert_eq!(server.counters().logins, 6);
    })
    .await;
}

/// As commands do, one process each, that share a state.
#[tokio::test]
async fn the_next_process_begins_with_what_led_in_while_the_server_offers_the_same() {
    with_servers(async |server, here, job| {
        let check = async |misbehaviour, refused| {
            server.misbehave(misbehaviour);
            assert!(here.another_process(job).await.error.is_none());
            assert_eq!(server.counters().refused_logins, refused);
        };
        for _ in 0..3 {
            check(refusing(&[PLUS]), 1).await;
        }
        // It is forgotten when the server does not offer what it refused.
        check(refusing(&[]), 1).await;
        check(refusing(&[PLUS]), 2).await;
        check(refusing(&[PLUS]), 2).await;
        // And after a day.
        here.pass(25 * 3600);
        check(refusing(&[PLUS]), 3).await;
        // A check that failed at something else remembers it, too.
        server.misbehave(Misbehaviour { close_after_octets: Some(1), ..Misbehaviour::default() });
        assert!(here.another_process(job).await.error.is_some());
        check(refusing(&[PLUS]), 3).await;
    })
    .await;
}

#[tokio::test]
async fn a_password_that_is_wrong_is_shown_once_also_where_another_way_led_in_before() {
    with_servers(async |server, here, job| {
        server.misbehave(refusing(&[PLUS, SCRAM]));
        assert!(here.run(job).await.error.is_none());
        let before = server.counters().refused_logins;
        server.misbehave(Misbehaviour {
            refuse_login: Some("[AUTHENTICATIONFAILED] no".into()),
            ..refusing(&[PLUS, SCRAM])
        });
        let error = here.run(job).await.error;
        assert!(matches!(error, Some(RunError::Login { .. })), "{error:?}");
        assert_eq!(server.counters().refused_logins, before + 1);
    })
    .await;
}

#[tokio::test]
async fn what_binds_the_login_is_followed_by_the_same_proof_without_it_and_by_nothing_that_is_not_allowed() {
    with_servers(async |server, here, job| {
        server.misbehave(refusing(&[PLUS, SCRAM]));
        let mut job = job.clone();
        let mut account = (*job.account).clone();
        account.mechanisms = vec![PLUS.into(), SCRAM.into()];
        job.account = Arc::new(account);
        let error = here.run(&job).await.error;
        assert!(matches!(error, Some(RunError::Login { .. })), "{error:?}");
        // Both were tried, and nothing else.
        assert_eq!((server.counters().refused_logins, server.counters().logins), (2, 0));
    })
    .await;
}
