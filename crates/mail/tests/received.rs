//! Received fields as providers and mail servers really write them, and what is read from each.
//!
//! `tests/received/README.md` says where the samples come from.

use connectord_mail::{Head, Received};

const CORPORA: [(&str, &str); 2] =
    [("providers.txt", include_str!("received/providers.txt")), ("servers.txt", include_str!("received/servers.txt"))];

struct Sample<'a> {
    name: &'a str,
    source: &'a str,
    year: u16,
    field: String,
    expected: Vec<&'a str>,
}

fn samples(text: &str) -> Vec<Sample<'_>> {
    let mut samples: Vec<Sample<'_>> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("name: ") {
            samples.push(Sample { name, source: "", year: 0, field: String::new(), expected: Vec::new() });
            continue;
        }
        let Some(sample) = samples.last_mut() else { continue };
        if let Some(source) = line.strip_prefix("source: ") {
            sample.source = source;
        } else if let Some(year) = line.strip_prefix("year: ") {
            sample.year = year.parse().expect("a year");
        } else if let Some(expected) = line.strip_prefix("> ") {
            sample.expected.push(expected);
        } else if !line.is_empty() {
            sample.field.push_str(line);
            sample.field.push_str("\r\n");
        }
    }
    samples
}

/// What was read, one fact a line.
fn facts(field: &Received) -> Vec<String> {
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: Option<String>| facts.extend(value.map(|value| format!("{name} {value}")));
    if let Some(from) = &field.from {
        fact("helo", from.helo.clone());
        fact(if from.confirmed { "name, confirmed" } else { "name" }, from.name.clone());
        fact("address", from.address.map(|address| address.to_string()));
        if *from == connectord_mail::received::Peer::default() {
            fact("from", Some("nobody".into()));
        }
    }
    fact("by", field.by.clone());
    fact("by address", field.by_address.map(|address| address.to_string()));
    fact("software", field.software.clone());
    fact("via", field.via.clone());
    fact("with", field.with.clone());
    fact("id", field.id.clone());
    fact("for", field.recipient.clone());
    fact("envelope-from", field.envelope_from.clone());
    if let Some(tls) = &field.tls {
        fact("tls", Some(tls.version.clone().unwrap_or_else(|| "?".into())));
        fact("cipher", tls.cipher.clone());
        fact("bits", tls.bits.map(|bits| bits.to_string()));
    }
    fact("authenticated", field.authenticated.then(|| "yes".into()));
    fact("ambiguous", field.ambiguous.then(|| "yes".into()));
    fact("date", field.date.map(|date| date.to_string()));
    facts
}

#[test]
fn the_fields_of_real_mail_are_read_as_a_person_reads_them() {
    let mut faults = Vec::new();
    for (file, text) in CORPORA {
        for sample in samples(text) {
            let head = Head::of(sample.field.as_bytes());
            let field = head.field("Received").expect("each sample is one field");
            let read = facts(&Received::parse(field));
            if read != sample.expected {
                faults.push(format!("{file}: {}\n> {}\n", sample.name, read.join("\n> ")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn each_sample_names_its_public_source_and_year() {
    let all: Vec<_> = CORPORA.iter().flat_map(|(_, text)| samples(text)).collect();
    assert!(all.len() >= 80, "{} samples", all.len());
    for sample in all {
        assert!(sample.source.starts_with("http"), "{} has no source", sample.name);
        assert!((2000..2100).contains(&sample.year), "{} has no year", sample.name);
        assert!(sample.field.starts_with("Received:"), "{} is no field", sample.name);
    }
}
