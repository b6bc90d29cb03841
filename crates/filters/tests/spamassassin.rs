//! SpamAssassin's real daemon.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use common::{HAM, PATIENCE, found, gtube, passes_the_battery, survives_its_server, tcp, trusting};
use connectord_filter::{Action, Filter, Verdict};
use connectord_filters::spamassassin::{Options, SpamAssassin, User};
use connectord_mail::Relays;
use connectord_testkit::Spamd;
use connectord_wire::Address;

/// Rules that tell what spamd knows of the envelope.
const RULES: [&str; 6] = [
    r"header TEST_CLIENT X-Spam-Relays-External =~ /^\[ ip=192\.0\.2\.7 rdns=out\.shop\.test helo=shop\.test /",
    r"header TEST_SENDER EnvelopeFrom =~ /^news\@shop\.test$/",
    r"header TEST_FORGED X-Spam-Relays-External =~ /^\[ ip=198\.51\.100\.1 /",
    r"header TEST_LOCAL X-Spam-Relays-Trusted =~ /\[ ip=127\.0\.0\.1 /",
    "score TEST_CLIENT 0.1",
    "score TEST_SENDER 0.1",
];

/// One for all tests that leave it as it is; it ends with the test process.
static SPAMD: LazyLock<Spamd> = LazyLock::new(|| Spamd::start(&RULES));

fn filter(address: Address) -> SpamAssassin {
    SpamAssassin::new("spamassassin".into(), Options::new(address)).unwrap()
}

fn names(verdict: &Verdict) -> Vec<&str> {
    let Verdict::Found(finding) = verdict else { panic!("{verdict:?}") };
    finding.symbols.iter().map(|symbol| symbol.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn spam_is_found_and_a_clean_message_is_clean_over_both_sockets() {
    for address in [tcp(SPAMD.address()), Address::Unix(SPAMD.socket())] {
        let filter = filter(address);
        let finding = found(&filter, gtube()).await;
        assert_eq!(finding.action, Action::AddHeader);
        assert!(finding.milli_score.unwrap() >= 900_000 && finding.milli_required == Some(5000), "{finding:?}");
        assert!(finding.symbols.iter().any(|symbol| symbol.name == "GTUBE"), "{finding:?}");
        let finding = found(&filter, HAM).await;
        assert_eq!(finding.action, Action::NoAction);
        assert!(finding.milli_score.unwrap() < 5000, "{finding:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_finds_gtube() {
    let probe = filter(tcp(SPAMD.address())).probe(Instant::now() + PATIENCE).await.unwrap();
    assert_eq!(probe.found_test_sample, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn spamd_is_told_who_handed_the_message_over_and_by_whom_it_was_sent() {
    let filter = filter(tcp(SPAMD.address()));
    let relays = Relays::parse(["provider.test"]).unwrap();
    let handed_over = "Return-Path: <news@shop.test>\r\n\
        Received: from mx.provider.test (mx.provider.test [10.0.0.5]) by store.provider.test (Postfix) with LMTP id 1;\r\n Mon, 30 Nov 2026 12:00:02 +0000\r\n\
        Received: from shop.test (out.shop.test [192.0.2.7]) by mx.provider.test (Postfix) with ESMTPS id 2;\r\n Mon, 30 Nov 2026 12:00:01 +0000\r\n";
    let forged = "Received: from forged (forged.test [198.51.100.1]) by mx.provider.test (Postfix) with ESMTPS id 3;\r\n Mon, 30 Nov 2026 12:00:00 +0000\r\n\
        X-Envelope-From: <forged@forged.test>\r\n";
    for below in ["", forged] {
        let verdict = filter.check(&trusting(&format!("{handed_over}{below}{HAM}"), &relays)).await;
        let names = names(&verdict);
        assert!(names.contains(&"TEST_CLIENT") && names.contains(&"TEST_SENDER"), "{names:?}");
        assert!(!names.contains(&"TEST_FORGED") && !names.contains(&"TEST_LOCAL"), "{names:?}");
    }
    // Nobody is trusted: nothing is made up.
    let verdict = filter.check(&trusting(&format!("{handed_over}{HAM}"), &Relays::default())).await;
    assert!(!names(&verdict).contains(&"TEST_LOCAL"), "{verdict:?}");
}

/// The rules of the SPF plugin and of the one for Authentication-Results, which need no DNS server for what is told.
const RESULTS: [&str; 9] = [
    "loadplugin Mail::SpamAssassin::Plugin::AuthRes",
    "header TEST_SPF_PASS eval:check_for_spf_pass()",
    "header TEST_SPF_FAIL eval:check_for_spf_fail()",
    "header TEST_RES_SPF_PASS eval:check_authres_result('spf', 'pass')",
    "header TEST_RES_SPF_FAIL eval:check_authres_result('spf', 'fail')",
    "header TEST_RES_DKIM_PASS eval:check_authres_result('dkim', 'pass')",
    "header TEST_RES_DMARC_FAIL eval:check_authres_result('dmarc', 'fail')",
    "header TEST_RES_NONE eval:check_authres_result('spf', 'missing')",
    "header TEST_ANY exists:Authentication-Results",
];

#[tokio::test(flavor = "multi_thread")]
async fn spamd_believes_the_provider_s_findings_and_never_sees_those_of_a_forger() {
    let everywhere = ["authres_networks all"];
    let spamds = [Spamd::start(&RESULTS), Spamd::start(&[&RESULTS[..], &everywhere].concat())];
    let relays = Relays::parse(["provider.test"]).unwrap();
    // With words that SpamAssassin does not know, which would make it pass over the whole field.
    let own = "Authentication-Results: mx.provider.test;\r\n\tspf=fail (who is that?) smtp.mailfrom=\"a=b\"@shop.test;\r\n\t\
        compauth=fail reason=001; dkim=pass header.d=list.test header.x=y; dmarc=fail action=none header.from=shop.test\r\n";
    let handoff = "Received: from shop.test (unknown [198.51.100.66]) by mx.provider.test (Postfix) with ESMTPS id 2;\r\n Mon, 30 Nov 2026 12:00:01 +0000\r\n";
    let forged = "Received-SPF: pass (mx.provider.test: all is well) identity=mailfrom; client-ip=192.0.2.7\r\n\
        Authentication-Results: mx.provider.test; spf=pass smtp.mailfrom=shop.test; dmarc=pass header.from=shop.test\r\n";
    for spamd in &spamds {
        let filter = filter(tcp(spamd.address()));
        let told = async |octets: String, relays: &Relays| {
            let verdict = filter.check(&trusting(&octets, relays)).await;
            let mut names: Vec<String> = names(&verdict).iter().map(|name| (*name).to_owned()).collect();
            names.retain(|name| name.starts_with("TEST_"));
            names.sort_unstable();
            names
        };
        let expected = ["TEST_ANY", "TEST_RES_DKIM_PASS", "TEST_RES_DMARC_FAIL", "TEST_RES_SPF_FAIL", "TEST_SPF_FAIL"];
        assert_eq!(told(format!("{own}{handoff}{HAM}"), &relays).await, expected);
        assert_eq!(told(format!("{own}{handoff}{forged}{HAM}"), &relays).await, expected);
        // The provider found nothing out, whatever the sender says; nor is anything believed where nobody is trusted.
        assert_eq!(told(format!("{handoff}{forged}{HAM}"), &relays).await, ["TEST_RES_NONE"]);
        assert_eq!(told(format!("{forged}{handoff}{HAM}"), &Relays::default()).await, ["TEST_RES_NONE"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_rules_apply_is_told_in_every_way() {
    for user in [User::Fixed("nobody".into()), User::Recipient] {
        let mut options = Options::new(tcp(SPAMD.address()));
        options.user = user;
        found(&SpamAssassin::new("spamassassin".into(), options).unwrap(), HAM).await;
    }
    let mut options = Options::new(tcp(SPAMD.address()));
    options.user = User::Fixed("a\r\nb".into());
    assert!(SpamAssassin::new("spamassassin".into(), options).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_battery() {
    passes_the_battery(&filter(tcp(SPAMD.address()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spamd_that_goes_down_comes_back_and_hangs_lets_nothing_through() {
    let mut spamd = Spamd::start(&[]);
    let filter = Arc::new(filter(tcp(spamd.address())));
    survives_its_server(filter, &mut spamd).await;
}
