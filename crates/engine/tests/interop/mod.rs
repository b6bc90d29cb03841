//! What is done with every real server: each way to reach it, and what must hold by all of them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;
use std::time::Duration;

use connectord_account::{Account, Check, Protocol, Retention};
use connectord_engine::{Job, Limits, Scheduler};
use connectord_net::CertificateDer;
use connectord_testkit::{Certificates, Service};
use connectord_wire::Security;
use tokio::sync::watch;

use crate::common::{Installation, sorted};

pub(crate) const ANN: &[(&str, &str)] = &[("ann", "secret")];

/// Every service with every security it offers.
pub(crate) const WAYS: [(Service, Security); 6] = [
    (Service::Pop3, Security::None),
    (Service::Pop3, Security::StartTls),
    (Service::Pop3s, Security::Tls),
    (Service::Imap, Security::None),
    (Service::Imap, Security::StartTls),
    (Service::Imaps, Security::Tls),
];

/// One of each protocol.
pub(crate) const BOTH: [(Service, Security); 2] = [(Service::Pop3s, Security::Tls), (Service::Imaps, Security::Tls)];

/// Ann's account at a server, into the Maildir of `ann`.
pub(crate) fn job(
    here: &Installation,
    port: u16,
    certificates: &Certificates,
    (service, security): (Service, Security),
    change: impl FnOnce(&mut Account),
) -> Job {
    let protocol = match service {
        Service::Pop3 | Service::Pop3s => Protocol::Pop3,
        _ => Protocol::Imap,
    };
    let mut job = here.job(protocol, port, |account| {
        account.security = security;
        change(account);
    });
    job.route.tls.roots.push(CertificateDer::from(certificates.ca_der().to_vec()));
    job
}

/// The first check brings these messages, each octet of them, and a second one nothing.
pub(crate) async fn brings_all_once(here: &Installation, job: &Job, expected: Vec<Vec<u8>>, what: &str) {
    let report = here.run_well(job).await;
    assert_eq!((report.delivered, report.parked), (expected.len() as u64, 0), "{what}");
    must_be(here, expected, what);
    brings_nothing(here, job, what).await;
}

/// A check that delivers nothing.
pub(crate) async fn brings_nothing(here: &Installation, job: &Job, what: &str) {
    here.pass(3600);
    let report = here.run_well(job).await;
    assert_eq!((report.delivered, report.parked, report.retrieved), (0, 0, 0), "{what}");
}

/// Ann's Maildir has these messages and no others.
pub(crate) fn must_be(here: &Installation, expected: Vec<Vec<u8>>, what: &str) {
    let (found, expected) = (here.mail("ann"), sorted(expected));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(&expected) {
        if found != expected {
            let at = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
            let around =
                |octets: &[u8]| octets[at.saturating_sub(60)..octets.len().min(at + 40)].escape_ascii().to_string();
            panic!("{what}: at {at}: found \"{}\", expected \"{}\"", around(found), around(expected));
        }
    }
}

/// By POP3 a message always ends with a line end (RFC 1939 §3).
pub(crate) fn with_last_line_end(service: Service, mut octets: Vec<u8>) -> Vec<u8> {
    if matches!(service, Service::Pop3 | Service::Pop3s) && !octets.ends_with(b"\n") {
        octets.push(b'\n');
    }
    octets
}

pub(crate) fn removing(account: &mut Account) {
    account.retention = Retention::AfterDelivery(Duration::ZERO);
}

/// Runs the account for good, listening by IDLE; once the first `count` messages are there, `more` puts another into the
/// mailbox, which must come long before the next check is due.
pub(crate) async fn is_told_of_new_mail(here: &Installation, job: Job, count: usize, more: impl FnOnce()) {
    assert_eq!(job.account.check, Check::Idle);
    let scheduler = Arc::new(Scheduler::new(here.site.clone(), Limits { jitter: 0.0, ..Limits::default() }));
    let (_jobs, watched) = watch::channel(vec![job]);
    let (stop, stopped) = watch::channel(false);
    let running = Arc::clone(&scheduler);
    let task = tokio::spawn(async move { running.run(watched, stopped).await });
    until(here, count).await;
    // It listens by now, or looks once more before it does.
    tokio::time::sleep(Duration::from_millis(500)).await;
    more();
    until(here, count + 1).await;
    stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(60), task).await.expect("it ends within seconds").unwrap();
}

/// Waits until Ann has so many messages, at most a minute.
async fn until(here: &Installation, count: usize) {
    for _ in 0..600 {
        if here.files("ann").len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} instead of {count} messages within a minute", here.files("ann").len());
}
