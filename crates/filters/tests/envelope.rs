//! What Rspamd makes of the recovered envelope, with a DNS zone of our own: the right host passes SPF, a forger does not.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::{HAM, tcp, trusting};
use connectord_filter::{Filter, Finding, Message, Verdict};
use connectord_filters::rspamd::{Options, Rspamd};
use connectord_mail::Relays;
use connectord_mail::relay::Client;
use connectord_testkit::{Dns, Rspamd as Server};

/// The message as the provider stored it: handed over by this address.
fn handed_over_by(address: &str, below: &str) -> String {
    let name = if address == "192.0.2.7" { "out.shop.test" } else { "unknown" };
    format!(
        "Return-Path: <news@shop.test>\r\n\
         Received: from mx.provider.test (mx.provider.test [10.0.0.5])\r\n\tby store.provider.test (Postfix) with LMTP id 1;\r\n\tMon, 30 Nov 2026 12:00:02 +0000\r\n\
         Received: from out.shop.test ({name} [{address}])\r\n\tby mx.provider.test (Postfix) with ESMTPS id 2 for <bob@example.org>;\r\n\tMon, 30 Nov 2026 12:00:01 +0000\r\n\
         {below}{HAM}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_host_passes_spf_a_forger_fails_it_and_a_forged_hop_is_not_believed() {
    let dns = Dns::start(&Dns::SHOP);
    let server = Server::start(Some(&dns), &[]);
    let rspamd = Rspamd::new("rspamd".into(), Options::new(tcp(server.address()))).unwrap();
    let relays = Relays::parse(["provider.test"]).unwrap();

    let trusted = |octets: String| trusting(&octets, &relays);
    let honest = trusted(handed_over_by("192.0.2.7", ""));
    let forger = trusted(handed_over_by("198.51.100.66", ""));
    // The forger writes the honest hand-off below the true one.
    let hop = "Received: from out.shop.test (out.shop.test [192.0.2.7])\r\n\tby mx.provider.test (Postfix) with ESMTPS id 3;\r\n\tMon, 30 Nov 2026 12:00:00 +0000\r\n";
    let forged_hop = trusted(handed_over_by("198.51.100.66", hop));
    let unknown = trusting(&handed_over_by("198.51.100.66", ""), &Relays::default());
    // As the original connector did: the very message of the forger, from this machine.
    let mut original = forger.clone();
    let Client::Known(handoff) = &mut original.envelope.client else { panic!("{:?}", original.envelope) };
    handoff.address = "127.0.0.1".parse().unwrap();

    let mut rows = Vec::new();
    for (who, message) in [
        ("127.0.0.1, as the original does", &original),
        ("the true host", &honest),
        ("a forger", &forger),
        ("a forger, with a forged hop", &forged_hop),
        ("nobody is trusted: unknown", &unknown),
    ] {
        rows.push((who, check(&rspamd, message).await));
    }
    println!("{:<34} {:>7} {:<16} SPF and DMARC", "handed over by", "score", "action");
    for (who, finding) in &rows {
        let names = symbols(finding);
        let shown: Vec<_> = names.iter().filter(|name| name.contains("SPF") || name.contains("DMARC")).collect();
        let score = f64::from(finding.milli_score.unwrap_or_default()) / 1000.0;
        println!("{who:<34} {score:>7.1} {:<16} {shown:?}", finding.action.name());
    }
    let has = |row: usize, name: &str| symbols(&rows[row].1).contains(&name);
    assert!(!has(0, "R_SPF_FAIL") && !has(0, "R_SPF_ALLOW"), "from 127.0.0.1 SPF is blind: {:?}", rows[0]);
    assert!(has(1, "R_SPF_ALLOW") && has(1, "DMARC_POLICY_ALLOW"), "{:?}", rows[1]);
    assert!(has(2, "R_SPF_FAIL") && has(2, "DMARC_POLICY_REJECT"), "{:?}", rows[2]);
    assert!(has(3, "R_SPF_FAIL") && !has(3, "R_SPF_ALLOW"), "{:?}", rows[3]);
    assert!(!has(4, "R_SPF_ALLOW") && !has(4, "R_SPF_FAIL"), "{:?}", rows[4]);
    let nameless: Vec<_> = (0..5).map(|row| has(row, "HFILTER_HOSTNAME_UNKNOWN")).collect();
    assert_eq!(nameless[1..], [false, true, true, false], "only of the forger the provider says that it has no name");
    assert!(rows[2].1.milli_score > rows[1].1.milli_score, "{rows:?}");
}

async fn check(rspamd: &Rspamd, message: &Message) -> Finding {
    match rspamd.check(message).await {
        Verdict::Found(finding) => finding,
        Verdict::Unchecked(trouble) => panic!("{trouble}"),
    }
}

fn symbols(finding: &Finding) -> Vec<&str> {
    finding.symbols.iter().map(|symbol| symbol.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_the_site_may_believe_the_provider_s_findings_as_rspamd_sees_no_others() {
    let map = |symbol: &str, result: &str| {
        format!(
            "{symbol} {{ type = \"header\"; header = \"Authentication-Results\"; regexp = true; score = 2.0; \
             map = [\"/^mx\\.provider\\.test;.*spf={result}/i\"]; }}\n"
        )
    };
    let maps = map("PROVIDER_SPF_PASS", "pass") + &map("PROVIDER_SPF_FAIL", "fail");
    let server = Server::start(None, &[("multimap.conf", &maps)]);
    let rspamd = Rspamd::new("rspamd".into(), Options::new(tcp(server.address()))).unwrap();
    let relays = Relays::parse(["provider.test"]).unwrap();
    let results =
        |result: &str| format!("Authentication-Results: mx.provider.test; spf={result} smtp.mailfrom=shop.test\r\n");
    let told = async |octets: String, relays: &Relays| {
        let finding = check(&rspamd, &trusting(&octets, relays)).await;
        ["PROVIDER_SPF_PASS", "PROVIDER_SPF_FAIL"].map(|name| symbols(&finding).contains(&name))
    };
    let forger = |below: &str| handed_over_by("198.51.100.66", below);
    assert_eq!(told(format!("{}{}", results("fail"), forger("")), &relays).await, [false, true]);
    assert_eq!(told(format!("{}{}", results("fail"), forger(&results("pass"))), &relays).await, [false, true]);
    assert_eq!(told(forger(&results("pass")), &relays).await, [false, false]);
    assert_eq!(told(format!("{}{}", results("pass"), forger("")), &Relays::default()).await, [false, false]);
}
