//! The walk from the top of real headers to the hand-off, and what forgers do about it.

#![allow(clippy::unwrap_used, clippy::or_fun_call, reason = "in a test's helpers a panic is the failure")]

use connectord_mail::relay::Origin::{Foreign, Forged, Provider};
use connectord_mail::relay::{Client, Handoff, Profile, Unknown, propose};
use connectord_mail::{Envelope, Head, Relays};

/// A header from `tests/headers`, without its comments, with CRLF.
macro_rules! header {
    ($name:literal) => {
        crlf(include_str!(concat!("headers/", $name, ".txt")))
    };
}

fn crlf(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.starts_with("# "));
    lines.flat_map(|line| [line, "\r\n"]).collect::<String>().into_bytes()
}

fn relays(profile: &str) -> Relays {
    Profile::named(profile).expect("a profile").relays()
}

fn client(header: &[u8], relays: &Relays) -> Client {
    Envelope::recover_trusting(Head::of(header), relays).client
}

fn handoff(header: &[u8], relays: &Relays) -> Handoff {
    match client(header, relays) {
        Client::Known(handoff) => *handoff,
        Client::Unknown(why) => panic!("{why}"),
    }
}

fn unknown(header: &[u8], relays: &Relays) -> Unknown {
    match client(header, relays) {
        Client::Known(handoff) => panic!("believed {handoff:?}"),
        Client::Unknown(why) => why,
    }
}

/// `name [address] helo by`, which is what a filter is told first of all.
fn shown(handoff: &Handoff) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or("-".into());
    format!("{} [{}] {} {} {}", text(&handoff.name), handoff.address, text(&handoff.helo), handoff.by, handoff.hops)
}

#[test]
fn outlook_s_inner_hosts_are_walked_to_the_front_end() {
    let header = header!("outlook-2023");
    let relays = relays("outlook");
    let handoff = handoff(&header, &relays);
    assert_eq!(
        shown(&handoff),
        "- [159.27.24.86] mail.mail04.zhanlingol.com BN1NAM02FT046.mail.protection.outlook.com 3"
    );
    assert_eq!(handoff.tls, None);
    let envelope = Envelope::recover_trusting(Head::of(&header), &relays);
    assert_eq!(envelope.reverse_path.as_deref(), Some("ghulammustafa@cyber.net.pk"));
    assert_eq!(envelope.authentication.len(), 1);
    assert_eq!(envelope.authentication[0].result("spf"), Some("softfail"));
    assert_eq!(envelope.authentication[0].result("dmarc"), Some("fail"));
}

#[test]
fn a_machine_rented_from_the_provider_is_not_the_provider() {
    let header = String::from_utf8(header!("outlook-2023")).unwrap();
    let forged = "Received: from bank.test (192.0.2.1) by BN1NAM02FT046.mail.protection.outlook.com (10.13.3.181) with Microsoft SMTP\r\n";
    let header = header
        .replace(
            "mail.mail04.zhanlingol.com (159.27.24.86)",
            "BN1NAM02FT046.mail.protection.outlook.com (2603:1030:7::86)",
        )
        .replace("Received: from User", &format!("{forged}Received: from User"));
    assert_eq!(handoff(header.as_bytes(), &relays("outlook")).address.to_string(), "2603:1030:7::86");
}

#[test]
fn gmail_s_own_results_are_found_below_its_hand_off() {
    let header = header!("gmail-2023");
    let relays = relays("gmail");
    let handoff = handoff(&header, &relays);
    assert_eq!(
        shown(&handoff),
        "mail-co1nam11olkn20811.outbound.protection.outlook.com [2a01:111:f400:7eab::811] \
         NAM11-CO1-obe.outbound.protection.outlook.com mx.google.com 1"
    );
    assert_eq!(handoff.recipient.as_deref(), Some("Phish.me.again@gmail.com"));
    assert_eq!(handoff.tls.and_then(|tls| tls.bits), Some(128));
    let results = relays.authentication_results(Head::of(&header));
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].result("dmarc"), Some("pass"));
}

#[test]
fn gmx_hands_over_to_itself_and_the_walk_goes_no_further() {
    let header = header!("gmx-2022");
    let relays = relays("gmx");
    assert_eq!(shown(&handoff(&header, &relays)), "- [212.227.17.20] mout.gmx.net mx-ha.gmx.net 0");
    assert_eq!(relays.authentication_results(Head::of(&header))[0].result("dkim"), Some("pass"));
}

#[test]
fn another_retriever_s_field_on_top_is_not_the_provider_s() {
    let header = header!("webde-2020");
    assert_eq!(unknown(&header, &relays("gmx")), Unknown::NotTrusted { hop: 1, by: "localhost".into() });
    let mut trusted = relays("gmx");
    trusted.hosts.push("localhost".into());
    // The address of the POP3 server: whoever fetches through another retriever has to name it as one of the provider's.
    assert_eq!(handoff(&header, &trusted).address.to_string(), "212.227.17.177");
    trusted.networks.push("212.227.17.177".parse().unwrap());
    trusted.gaps = true;
    assert_eq!(shown(&handoff(&header, &trusted)), "- [128.105.6.16] jeeves.cs.wisc.edu mx-ha.web.de 1");
}

#[test]
fn mail_that_never_left_the_provider_has_no_client() {
    assert_eq!(unknown(&header!("fastmail-2016"), &relays("fastmail")), Unknown::NoHandoff);
}

#[test]
fn a_content_filter_on_the_way_inside_is_passed_through() {
    let header = header!("amavis-2020");
    let relays = Relays::parse(["freedesktop.org"]).unwrap();
    assert_eq!(
        shown(&handoff(&header, &relays)),
        "mail.netline.ch [148.251.143.178] netline-mail3.netline.ch gabe.freedesktop.org 1"
    );
    // The same through amavis, as the sender's own server wrote it.
    let text = String::from_utf8(header).unwrap();
    let at = text.find("Received: from localhost (localhost").unwrap();
    let relays = Relays::parse(["netline.ch"]).unwrap();
    let handoff = handoff(&text.as_bytes()[at..], &relays);
    assert_eq!((handoff.address.to_string().as_str(), handoff.hops), ("83.76.80.252", 2));
    assert!(handoff.authenticated);
}

#[test]
fn a_company_s_way_inside_needs_its_networks_named() {
    let header = header!("suse-2022");
    let relays = Relays::parse(["suse.de", "149.44.160.0/23"]).unwrap();
    let handoff = handoff(&header, &relays);
    assert_eq!(
        shown(&handoff),
        "de-smtp-delivery-102.mimecast.com [194.104.111.102] de-smtp-delivery-102.mimecast.com mx2.suse.de 5"
    );
    assert!(handoff.name_confirmed);
    assert_eq!(handoff.tls.and_then(|tls| tls.version).as_deref(), Some("TLSv1.2"));
    // The domain alone ends at the company's own relay. That is what the number of clients in a proposal shows.
    let domain = Relays::parse(["suse.de"]).unwrap();
    assert_eq!(self::handoff(&header, &domain).address.to_string(), "149.44.160.134");
    let sample = [Head::of(&header); 3];
    let proposals = propose(&sample);
    assert_eq!((proposals[0].domain.as_str(), proposals[0].handoffs, proposals[0].clients), ("suse.de", 3, 1));
    // And a service that filters for the company is one of its relays, if it is trusted.
    let service = Relays::parse(["suse.de", "149.44.160.0/23", "relay.mimecast.com", "194.104.111.0/24"]).unwrap();
    assert_eq!(client(&header, &service), Client::Unknown(Unknown::Gap { hop: 7 }));
    let service = Relays { gaps: true, ..service };
    assert_eq!(self::handoff(&header, &service).address.to_string(), "104.47.17.171");
}

// Forgers.

const TRUE: &str =
    "Received: from evil.test (evil.test [198.51.100.66]) by mx.provider.test (Postfix) with ESMTP id 1\r\n";

fn provider() -> Relays {
    Relays::parse(["provider.test"]).unwrap()
}

fn assert_evil(header: String) {
    let header = header.into_bytes();
    assert_eq!(
        handoff(&header, &provider()).address.to_string(),
        "198.51.100.66",
        "{}",
        String::from_utf8_lossy(&header)
    );
}

#[test]
fn nothing_below_the_hand_off_is_believed() {
    for forged in [
        "Received: from bank.test (bank.test [192.0.2.1]) by mx.provider.test (Postfix) with ESMTPS id 2\r\n",
        "Received: from localhost (localhost [127.0.0.1]) by mx.provider.test (Postfix) with ESMTP id 2\r\n",
        "Received: from bank.test (bank.test [192.0.2.1]) by evil.test (Postfix) with ESMTP id 2\r\n",
    ] {
        assert_evil(format!("{TRUE}{forged}\r\n"));
        assert_evil(format!("{TRUE}{}\r\n", forged.repeat(3)));
    }
    // The same field twice, and the provider's own of another day.
    assert_evil(format!("{TRUE}{TRUE}\r\n"));
    assert_evil(format!("{TRUE}{}\r\n", TRUE.replace("198.51.100.66", "192.0.2.1")));
}

#[test]
fn a_helo_makes_nobody_an_insider() {
    let next = "Received: from bank.test (bank.test [192.0.2.1]) by mx.provider.test (Postfix) with ESMTPS id 2\r\n";
    for helo in ["mx.provider.test", "localhost", "[127.0.0.1]", "[10.0.0.1]", "by", "from", "unknown", "127.0.0.1"] {
        let field = format!(
            "Received: from {helo} (unknown [198.51.100.66]) by mx.provider.test (Postfix) with ESMTP id 1\r\n"
        );
        assert_evil(format!("{field}{next}\r\n"));
        let exim =
            format!("Received: from [198.51.100.66] (helo={helo}) by mx.provider.test with esmtp (Exim 4.9)\r\n");
        assert_evil(format!("{exim}{next}\r\n"));
        let gmx = format!(
            "Received: from {helo} ([198.51.100.66]) by mx.provider.test (mx1 [192.0.2.99]) with ESMTPS (Nemesis) id 1\r\n"
        );
        assert_evil(format!("{gmx}{next}\r\n"));
    }
    // A name that the forger's own DNS gives its address.
    assert_evil(format!(
        "Received: from x (mx.provider.test [198.51.100.66]) by mx.provider.test (other) with SMTP id 1\r\n{next}\r\n"
    ));
}

#[test]
fn a_helo_full_of_grammar_is_not_taken_for_the_field() {
    // Servers clean a HELO; where one did not, the field has two meanings, and none of them is believed, or the
    // server's own address, which comes last, counts.
    let two = "Received: from x (a [192.0.2.1]) by mx.provider.test with ESMTP (evil.test [198.51.100.66]) by mx.provider.test\r\n\r\n";
    assert_eq!(unknown(two.as_bytes(), &provider()), Unknown::Ambiguous { hop: 1 });
    assert_evil(
        "Received: from x (a [192.0.2.1]) (evil.test [198.51.100.66]) by mx.provider.test (Postfix)\r\n\r\n".into(),
    );
    // A HELO that opens what the sender's own address, which the server writes down too, closes.
    for (open, close) in [("\"", "\""), ("<", ">"), ("(", "))"), ("(\\", ")))"), ("x (", ")")] {
        let forged = format!("{close} (z [192.0.2.1]) by mx.provider.test (Postfix) with ESMTP id 9 ");
        let header = format!(
            "Received: from {open} (evil.test [198.51.100.66]) by mx.provider.test (Haraka/2.8) with ESMTP id 1 \
             envelope-from <\"{forged}\"@evil.test>; Sun, 22 Nov 2026 19:31:00 +0000\r\n\r\n"
        );
        if let Client::Known(handoff) = client(header.as_bytes(), &provider()) {
            assert_eq!(handoff.address.to_string(), "198.51.100.66", "{header}");
        }
        let header = header.replace("envelope-from <", "(envelope-from <").replace("@evil.test>", "@evil.test>)");
        if let Client::Known(handoff) = client(header.as_bytes(), &provider()) {
            assert_eq!(handoff.address.to_string(), "198.51.100.66", "{header}");
        }
    }
    // https://github.com/rspamd/rspamd/issues/1727 (2017).
    assert_evil(
        "Received: from x ([198.51.100.66] helo=x [192.0.2.1]) by mx.provider.test with esmtp (Exim 4.9)\r\n\r\n"
            .into(),
    );
    assert_evil(
        "Received: from x ([198.51.100.66] helo=[192.0.2.1]) by mx.provider.test with esmtp (Exim 4.9)\r\n\r\n".into(),
    );
    let from = "Received: from x from y ([192.0.2.1]) by mx.provider.test\r\n\r\n";
    assert_eq!(unknown(from.as_bytes(), &provider()), Unknown::Ambiguous { hop: 1 });
}

#[test]
fn a_field_on_top_that_is_not_the_provider_s_ends_the_walk() {
    // A mailbox whose provider writes none: the sender's own field is the topmost, and no trust, no client.
    let forged =
        "Received: from bank.test (bank.test [192.0.2.1]) by mx.provider.test (Postfix) with ESMTPS id 2\r\n\r\n";
    assert_eq!(unknown(forged.as_bytes(), &Relays::default()), Unknown::NobodyTrusted);
    let other = Relays::parse(["other.test"]).unwrap();
    assert_eq!(unknown(forged.as_bytes(), &other), Unknown::NotTrusted { hop: 1, by: "mx.provider.test".into() });
    for almost in
        ["provider.test.evil.test", "evilprovider.test", "provider", "provider.test@evil.test", "[10.0.0.1]", ""]
    {
        let field =
            format!("Received: from bank.test (bank.test [192.0.2.1]) by {almost} with ESMTPS id 2\r\n{TRUE}\r\n");
        assert!(matches!(unknown(field.as_bytes(), &provider()), Unknown::NotTrusted { .. }), "{almost}");
    }
}

#[test]
fn a_gap_inside_the_provider_is_not_jumped_over() {
    let inner = "Received: from web1.provider.test (web1.provider.test [10.0.0.5]) by mx.provider.test (Postfix) with ESMTP id 1\r\n";
    let forged =
        "Received: from bank.test (bank.test [192.0.2.1]) by mx2.provider.test (Postfix) with ESMTPS id 2\r\n\r\n";
    let header = format!("{inner}{forged}");
    assert_eq!(unknown(header.as_bytes(), &provider()), Unknown::Gap { hop: 2 });
    let honest = header.replace("by mx2.provider", "by web1.provider");
    assert_eq!(handoff(honest.as_bytes(), &provider()).address.to_string(), "192.0.2.1");
    let lenient = Relays { gaps: true, ..provider() };
    assert_eq!(handoff(header.as_bytes(), &lenient).address.to_string(), "192.0.2.1");
}

#[test]
fn a_customer_inside_is_not_walked_through() {
    let customer =
        "Received: from mx.provider.test (pc [10.9.9.9]) by mx.provider.test (Postfix) with ESMTPSA id 1\r\n";
    let forged =
        "Received: from bank.test (bank.test [192.0.2.1]) by mx.provider.test (Postfix) with ESMTPS id 2\r\n\r\n";
    assert_eq!(unknown(format!("{customer}{forged}").as_bytes(), &provider()), Unknown::NoHandoff);
}

#[test]
fn no_address_is_no_client() {
    for field in [
        "Received: from bank.test by mx.provider.test with ESMTP id 1\r\n\r\n",
        "Received: from [192.0.2.1] by mx.provider.test with ESMTP id 1\r\n\r\n",
        "Received: from bank.test (no address at all) by mx.provider.test with ESMTP id 1\r\n\r\n",
    ] {
        assert_eq!(unknown(field.as_bytes(), &provider()), Unknown::NoAddress { hop: 1 }, "{field}");
    }
    assert_eq!(unknown(b"Subject: none\r\n\r\n", &provider()), Unknown::NoHandoff);
}

#[test]
fn folds_do_not_hide_or_make_a_field() {
    let folded = TRUE.replace(' ', "\r\n\t");
    assert_evil(format!("{folded}\r\n"));
    assert_evil(format!("{}\r\n", TRUE.replace("\r\n", "\n")));
    // A fold that looks like a field of its own, and a field whose name is folded away.
    assert_evil(format!("X-Note: hi\r\n Received: from bank.test ([192.0.2.1]) by mx.provider.test\r\n{TRUE}\r\n"));
    assert_evil(format!("Received : {}\r\n", &TRUE["Received: ".len()..]));
    assert_evil(format!("rEcEiVeD:{}\r\n", &TRUE["Received:".len()..]));
    // An empty line ends the header; what a forger has in the body is no field.
    assert_eq!(unknown(format!("A: 1\r\n\r\n{TRUE}\r\n").as_bytes(), &provider()), Unknown::NoHandoff);
}

#[test]
fn forged_results_are_not_the_provider_s() {
    let own = "Authentication-Results: mx.provider.test; spf=fail smtp.mailfrom=evil.test\r\n";
    let forged = "Authentication-Results: mx.provider.test; spf=pass smtp.mailfrom=bank.test\r\n";
    let stranger = "Authentication-Results: evil.test; spf=pass smtp.mailfrom=bank.test\r\n";
    let header = format!("{stranger}{own}{TRUE}{forged}{stranger}\r\n");
    let found = provider().authentication_results(Head::of(header.as_bytes()));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].result("spf"), Some("fail"));
    // Gmail writes below: its own comes first, and only the first counts; nothing beyond the next Received does.
    let below = Relays { results: connectord_mail::relay::Results::Below, ..provider() };
    let header = format!("{TRUE}{own}{forged}Received: from a by b\r\n{forged}\r\n");
    let found = below.authentication_results(Head::of(header.as_bytes()));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].result("spf"), Some("fail"));
    let header = format!("{TRUE}Received: from a by b\r\n{forged}\r\n");
    assert_eq!(below.authentication_results(Head::of(header.as_bytes())), []);
    // Without a hand-off nobody knows where the provider's part ends.
    assert_eq!(Relays::default().authentication_results(Head::of(header.as_bytes())), []);
    assert_eq!(below.authentication_results(Head::of(forged.as_bytes())), []);
}

#[test]
fn a_field_that_claims_to_be_the_provider_s_and_is_not_known_to_be_is_forged() {
    let origins =
        |relays: &Relays, header: &str| Envelope::recover_trusting(Head::of(header.as_bytes()), relays).origins;
    let field = |value: &str| format!("Authentication-Results: {value}; spf=pass\r\n");
    let (own, stranger, rubbish) = (field("mx.provider.test"), field("evil.test"), field("mx.provider.test what"));
    let header = format!("{stranger}{own}{rubbish}{TRUE}{own}{stranger}{rubbish}\r\n");
    let expected = [Foreign, Provider, Foreign, Forged, Foreign, Forged];
    assert_eq!(origins(&provider(), &header), expected, "above the hand-off the provider let all stand");
    let below = Relays { results: connectord_mail::relay::Results::Below, ..provider() };
    let header = format!("{own}{TRUE}{stranger}{own}{own}Received: from a by b\r\n{own}\r\n");
    assert_eq!(origins(&below, &header), [Forged, Foreign, Provider, Forged, Forged]);
    for other in [
        "MX.Provider.TEST 1",
        "\"mx.provider.test\"",
        "\"mx\\.provider.test\"",
        "(x) mx.provider.test (y)",
        "provider.test.",
    ] {
        assert_eq!(origins(&provider(), &format!("{TRUE}{}\r\n", field(other))), [Forged], "{other}");
    }
    // Without a hand-off none is known to be the provider's; without trust none can claim anything.
    assert_eq!(origins(&provider(), &format!("{own}{stranger}\r\n")), [Forged, Foreign]);
    assert_eq!(origins(&Relays::default(), &format!("{own}{rubbish}{TRUE}\r\n")), [Foreign, Foreign]);
    // Nor does one hide behind fields that nobody reads.
    let many = "X: y\r\n".repeat(2000);
    assert_eq!(origins(&provider(), &format!("{TRUE}{many}{own}\r\n")), [Forged]);
}

#[test]
fn ten_thousand_fields_cost_little_and_change_nothing() {
    let forged = "Received: from bank.test (bank.test [192.0.2.1]) by mx.provider.test (Postfix) with ESMTPS id 2\r\n";
    assert_evil(format!("{TRUE}{}\r\n", forged.repeat(10_000)));
    let inner =
        "Received: from mx.provider.test (localhost [127.0.0.1]) by mx.provider.test (Postfix) with ESMTP id 1\r\n";
    assert_eq!(unknown(format!("{}{TRUE}\r\n", inner.repeat(10_000)).as_bytes(), &provider()), Unknown::NoHandoff);
    let results = "Authentication-Results: mx.provider.test; spf=pass\r\n".repeat(10_000);
    assert!(provider().authentication_results(Head::of(format!("{results}{TRUE}\r\n").as_bytes())).len() <= 16);
    let deep = format!("Received: from {}x ([198.51.100.66]) by mx.provider.test\r\n\r\n", "(".repeat(100_000));
    assert!(matches!(client(deep.as_bytes(), &provider()), Client::Unknown(_)));
}

#[test]
fn proposals_count_what_trust_would_bring() {
    let (outlook, gmx, gmail) = (header!("outlook-2023"), header!("gmx-2022"), header!("gmail-2023"));
    let sample = [&outlook, &outlook, &gmx, &gmail].map(|header| Head::of(header));
    let proposals = propose(&sample);
    let shown: Vec<_> = proposals.iter().map(|p| (p.domain.as_str(), p.messages, p.handoffs)).collect();
    // Outlook's inner networks are nobody's guess: what is proposed would end at its own front end, and a person sees
    // that all mail would come from there. Gmail's topmost fields name addresses, so its domain alone leads nowhere.
    assert_eq!(shown, [("outlook.com", 2, 2), ("gmx.net", 1, 1), ("google.com", 1, 0)]);
    assert_eq!(proposals[0].clients, 1);
    assert_eq!(proposals[1].authserv_ids, [("gmx.net".to_owned(), 1)]);
    assert_eq!(propose(&[]), []);
}

mod octets {
    use connectord_mail::fuzzing;
    use proptest::prelude::*;

    fn words() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            Just("from "),
            Just("by "),
            Just("with "),
            Just("for "),
            Just("id "),
            Just("("),
            Just(")"),
            Just("; "),
            Just("["),
            Just("]"),
            Just("\r\n "),
            Just("\r\nReceived: "),
            Just("<"),
            Just(">"),
            Just("\""),
            Just("\\"),
            Just("helo="),
            Just("HELO "),
            Just("127.0.0.1"),
            Just("192.0.2.1"),
            Just("[IPv6:::1]"),
            Just("mx.provider.test "),
            Just("mx.google.com "),
            Just("using "),
            Just("cipher="),
            Just("envelope-from "),
            Just("ESMTPSA "),
            Just("\r\nAuthentication-Results: "),
            Just("spf=pass "),
            Just("a.b=c "),
            Just("reason=\""),
            Just("\u{fc}"),
        ];
        proptest::collection::vec(word, 0..60).prop_map(|words| words.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_readers_are_total(data in prop_oneof![words(), proptest::collection::vec(any::<u8>(), 0..400)]) {
            fuzzing::received(&data);
            fuzzing::authentication_results(&data);
            fuzzing::relay(&data);
            fuzzing::header_fields(&data);
        }
    }
}
