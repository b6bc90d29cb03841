//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use crate::received::{MAX_FIELD, MAX_TEXT};
use crate::relay::{Client, Origin, PROFILES, Relays, is_routable, propose};
use crate::{AuthenticationResults, Envelope, Fingerprint, Head, LineEnds, Received, Status, UnixTime, head, loops};

/// Any octets have a header; its fields are disjoint slices of it in order; what is read from it is usable.
pub fn header_fields(data: &[u8]) {
    let scanned = Head::of(data);
    assert!(data.starts_with(scanned.octets()));
    assert!(scanned.octets().len() <= head::MAX_HEAD);
    let mut total = 0;
    for field in scanned.fields() {
        total += field.octets.len();
        assert!(!field.name.is_empty() && field.octets.len() > field.value.len());
        assert!(!field.unfolded().contains(&b'\n'));
    }
    assert!(total <= scanned.octets().len());

    let envelope = Envelope::recover(scanned);
    if let Some(path) = envelope.reverse_path {
        assert!(!path.contains(['\r', '\n', ' ', '<', '>']));
    }
    let fingerprint = Fingerprint::new(scanned, data.len() as u64);
    assert!(fingerprint.same_header(&Fingerprint::new(scanned, 0)));
    let _ = (loops(scanned, "a@b"), UnixTime::parse_rfc5322(data), Status::split_from(data));

    let (mut out, mut line_ends) = (Vec::new(), LineEnds::default());
    for piece in data.chunks(3) {
        line_ends.push(piece, &mut out);
    }
    line_ends.finish(&mut out);
    assert_eq!(data.len() - out.len(), memchr::memmem::find_iter(data, b"\r\n").count());
}

/// Any octets are a Received field; what is read from it is bounded and may travel on.
pub fn received(data: &[u8]) {
    let field = Received::parse(data);
    let from = field.from.clone().unwrap_or_default();
    let tls = field.tls.clone().unwrap_or_default();
    let texts = [
        from.helo,
        from.name,
        field.by,
        field.via,
        field.id,
        field.recipient,
        field.envelope_from,
        tls.version,
        tls.cipher,
    ];
    for text in texts.into_iter().flatten() {
        assert!(text.len() <= MAX_TEXT && !text.chars().any(|c| c.is_control() || c.is_whitespace()), "{text:?}");
    }
    for text in [field.with, field.software].into_iter().flatten() {
        assert!(text.len() <= MAX_TEXT && !text.chars().any(char::is_control), "{text:?}");
    }
    assert!(from.address.is_none_or(|address| address == address.to_canonical()));
    assert_eq!(Received::parse(data), Received::parse(&data[..data.len().min(MAX_FIELD)]));
}

/// Any octets may stand in an Authentication-Results field.
pub fn authentication_results(data: &[u8]) {
    let Some(field) = AuthenticationResults::parse(data) else { return };
    assert!(field.results.len() <= 64);
    for result in &field.results {
        assert!(result.properties.len() <= 32);
        let texts = result.properties.iter().flat_map(|(name, value)| [name, value]);
        for text in texts.chain([&result.method, &result.result]).chain(&result.reason).chain([&field.authserv_id]) {
            assert!(text.len() <= 512 && !text.chars().any(char::is_control), "{text:?}");
        }
    }
}

/// Whatever stands below the hand-off changes nothing, and no client is ever an unroutable address.
pub fn relay(data: &[u8]) {
    let hosts = Relays::parse(["provider.test", "198.51.100.0/24"]).expect("a domain and a range");
    for relays in PROFILES.iter().map(|profile| profile.relays()).chain([hosts.clone(), Relays::default()]) {
        let envelope = Envelope::recover_trusting(Head::of(data), &relays);
        let results = Head::of(data).every_field().filter(|field| field.is("Authentication-Results"));
        assert_eq!(envelope.origins.len(), results.count());
        let own = envelope.origins.iter().filter(|origin| **origin == Origin::Provider);
        assert_eq!(own.count(), envelope.authentication.len());
        if let Client::Known(handoff) = envelope.client {
            assert!(is_routable(handoff.address) && !relays.is_inside(handoff.address), "{}", handoff.address);
        }
    }
    let _ = propose(&[Head::of(data)]);

    let own = b"Received: from x (y.test [192.0.2.7]) by mx.provider.test (Postfix) with ESMTPS id 1\r\n";
    let alone = hosts.client(Head::of(&[&own[..], b"\r\n"].concat()));
    // What follows may continue the last line; only from a line of its own on is it a field below.
    if !matches!(data.first(), Some(b' ' | b'\t')) {
        assert_eq!(hosts.client(Head::of(&[&own[..], data].concat())), alone);
    }
}
