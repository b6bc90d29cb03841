//! Authentication-Results that are not the provider's: neither filters nor readers get to see what a forger wrote.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::disallowed_methods, reason = "a message has a deadline, and a test a clock")]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use connectord_filter::{Action, Answer, Finding, HeaderChange, History, Kind, Message, Policy, Verdict};
use connectord_mail::relay::Origin;
use connectord_mail::{Body, DeliveryId, Envelope, Head, Identity, Relays};

const OWN: &str = "Authentication-Results: mx.provider.test;\r\n\tspf=fail smtp.mailfrom=evil.test\r\n";
const FORGED: &str = "authentication-results:mx.provider.test; spf=pass smtp.mailfrom=bank.test\r\n";
const STRANGER: &str = "Authentication-Results: evil.test; dkim=pass header.d=bank.test\r\n";
const SPF: &str = "Received-SPF: pass (mx.provider.test: all is well)\r\n";
const HANDOFF: &str = "Received: from evil (unknown [198.51.100.66]) by mx.provider.test (Postfix) with ESMTP id 1\r\n";
const REST: &str = "From: a@bank.test\r\n \r\nSubject: =?x\r\nrubbish\r\nX: y\r\n\r\nbody\r\nAuthentication-Results: mx.provider.test; spf=pass\r\n";

/// Read by pieces, as from a file.
struct OnDisk(Bytes);

impl Body for OnDisk {
    fn size_octets(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(7);
        self.0.read_at(offset, &mut buffer[..most])
    }
}

fn octets(body: &dyn Body) -> String {
    let mut octets = vec![0; usize::try_from(body.size_octets()).unwrap()];
    let mut at = 0;
    while at < octets.len() {
        let count = body.read_at(at as u64, &mut octets[at..]).unwrap();
        assert!(count > 0, "it ends after {at} octets");
        at += count;
    }
    String::from_utf8(octets).unwrap()
}

fn message(text: &str, trust: &[&str]) -> Message {
    let text = Bytes::from(text.to_owned());
    let head = text.slice(..Head::of(&text).octets().len());
    Message {
        id: DeliveryId::new(Identity { account: "a", mailbox: "", uid_validity: 0, key: b"1", generation: 0 }),
        account: "ann@example.org".into(),
        recipients: vec!["ann".into()],
        envelope: Envelope::recover_trusting(Head::of(&head), &Relays::parse(trust).unwrap()),
        head,
        body: Arc::new(OnDisk(text)),
        deadline: Instant::now(),
    }
}

/// What is delivered of it, without what is put in front.
fn delivered(message: &Message, finding: Finding) -> String {
    let answer = Answer { filter: "rspamd".into(), kind: Kind::Antispam, verdict: Verdict::Found(finding) };
    let edits = Policy::default().decide(&[answer], History::default()).edits;
    octets(&*edits.without_forged(&message.envelope.origins).apply(message.head(), message.body.clone()).1)
}

#[test]
fn filters_see_the_provider_s_own_and_readers_all_but_the_forged_and_nothing_else_changes() {
    let text = [STRANGER, OWN, HANDOFF, SPF, FORGED, "X-A: 1\r\n", STRANGER, FORGED, REST].concat();
    let trusting = message(&text, &["provider.test"]);
    assert_eq!(octets(&*trusting.as_believed()), [OWN, HANDOFF, "X-A: 1\r\n", REST].concat());
    let expected = [STRANGER, OWN, HANDOFF, SPF, "X-A: 1\r\n", STRANGER, REST].concat();
    assert_eq!(delivered(&trusting, Finding::default()), expected);

    // Where nobody is trusted no filter sees any, and nothing is taken from the reader.
    let trusting_nobody = message(&text, &[]);
    assert_eq!(octets(&*trusting_nobody.as_believed()), [HANDOFF, "X-A: 1\r\n", REST].concat());
    assert_eq!(delivered(&trusting_nobody, Finding::default()), text);

    // A message without any is the same one.
    let plain = message(&[HANDOFF, REST].concat(), &["provider.test"]);
    assert!(Arc::ptr_eq(&plain.as_believed(), &plain.body));
}

#[test]
fn a_flood_of_forged_fields_takes_all_with_it() {
    let text = [OWN, HANDOFF, &FORGED.repeat(20_000 / FORGED.len()), REST].concat();
    let flooded = message(&text, &["provider.test"]);
    assert!(flooded.envelope.origins.iter().filter(|origin| **origin == Origin::Forged).count() > 50);
    assert_eq!(delivered(&flooded, Finding::default()), [HANDOFF, REST].concat());
    assert_eq!(octets(&*flooded.as_believed()), [OWN, HANDOFF, REST].concat());
}

#[test]
fn a_filter_that_does_not_see_all_of_them_takes_out_all_or_none() {
    let text = [STRANGER, OWN, HANDOFF, REST].concat();
    let message = message(&text, &["provider.test"]);
    let remove = |nth| HeaderChange::Remove { name: "authentication-results".into(), nth };
    let finding = |nth| Finding { action: Action::NoAction, headers: vec![remove(nth)], ..Finding::default() };
    assert_eq!(delivered(&message, finding(1)), text, "the first it saw is our second");
    assert_eq!(delivered(&message, finding(0)), [HANDOFF, REST].concat());
}
