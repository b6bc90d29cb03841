//! ClamAV's real daemon.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use common::{HAM, PATIENCE, eicar, found, message, passes_the_battery, survives_its_server, tcp, unchecked};
use connectord_filter::{Action, Filter, Why};
use connectord_filters::clamav::{Clamav, Options};
use connectord_testkit::Clamd;
use connectord_wire::Address;

/// One for all tests that leave it as it is; it ends with the test process.
static CLAMD: LazyLock<Clamd> =
    LazyLock::new(|| Clamd::start("StreamMaxLength 4M\nAlertExceedsMax yes\nMaxFileSize 2M"));

fn clamav(address: Address) -> Clamav {
    Clamav::new("clamav".into(), Options::new(address)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virus_is_found_as_an_attachment_and_a_clean_message_is_clean_over_both_sockets() {
    for address in [tcp(CLAMD.address()), Address::Unix(CLAMD.socket())] {
        let clamav = clamav(address);
        let finding = found(&clamav, eicar()).await;
        assert_eq!(
            (finding.action, &*finding.viruses),
            (Action::Reject, &["Eicar-Test-Signature.UNOFFICIAL".to_owned()][..])
        );
        assert_eq!(found(&clamav, HAM).await, connectord_filter::Finding::default());
        assert_eq!((clamav.health().checked, clamav.health().failed), (2, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_says_which_clamd_it_is_and_that_it_finds_eicar() {
    let probe = clamav(tcp(CLAMD.address())).probe(Instant::now() + PATIENCE).await.unwrap();
    assert!(probe.version.starts_with("ClamAV "), "{probe:?}");
    assert_eq!(probe.found_test_sample, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_clamd_was_not_checked() {
    let clamav = clamav(tcp(CLAMD.address()));
    // Twice what it takes, so that it stops in the middle; and what it takes but does not look at to the end.
    for megabytes in [8, 3] {
        let octets = [HAM.as_bytes(), &vec![b'x'; megabytes << 20]].concat();
        let trouble = unchecked(clamav.check(&message(octets)).await);
        assert_eq!(trouble.why, Why::TooLarge, "{megabytes} {trouble}");
        assert!(!trouble.why.is_temporary());
    }
    assert_eq!(clamav.health().trouble(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_battery() {
    let clamd = Clamd::start("");
    passes_the_battery(&clamav(tcp(clamd.address()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clamd_that_goes_down_comes_back_and_hangs_lets_nothing_through() {
    let mut clamd = Clamd::start("");
    let clamav = Arc::new(clamav(tcp(clamd.address())));
    survives_its_server(clamav, &mut clamd).await;
}
