//! The built-in rules, and what is attached.

#![allow(clippy::unwrap_used, clippy::or_fun_call, reason = "in a test's helpers a panic is the failure")]

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use bytes::Bytes;
use connectord_filter::attachment::{self, Class, InspectError, Inspection, Limits};
use connectord_filter::{Condition, Message, Rule, Rules, Ruling};
use connectord_mail::{DeliveryId, Envelope, Head, Identity, Relays};

#[allow(clippy::disallowed_methods, reason = "a message has a deadline, which rules do not look at")]
fn message(text: &str) -> Message {
    let octets = Bytes::copy_from_slice(text.as_bytes());
    let head = Head::of(&octets);
    let relays = Relays::parse(["provider.test"]).unwrap();
    Message {
        id: DeliveryId::new(Identity { account: "a", mailbox: "", uid_validity: 0, key: b"1", generation: 0 }),
        account: "bob@here.test".into(),
        recipients: vec!["bob@here.test".into(), "sales@here.test".into()],
        envelope: Envelope::recover_trusting(head, &relays),
        head: octets.slice(..head.octets().len()),
        body: Arc::new(octets.clone()),
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

fn ruling(rules: &Rules, text: &str) -> Option<Ruling> {
    let attached = rules.want_attachments().then(|| inspect(text.as_bytes()));
    rules.find(&message(text), attached.as_ref()).ruling
}

fn patterns(patterns: &[&str]) -> Vec<connectord_filter::Pattern> {
    patterns.iter().map(|pattern| pattern.parse().unwrap()).collect()
}

#[test]
fn lists_look_at_the_envelope_and_at_from() {
    let block = Rules { block_from: patterns(&["evil.test"]), ..Rules::default() };
    for text in [
        "Return-Path: <x@evil.test>\r\n\r\n",
        "From: X <x@Evil.Test>\r\n\r\n",
        "From: \"a@good.test\" <x@evil.test>\r\n\r\n",
        "From: x@evil.test (x)\r\n\r\n",
        "Sender: x@evil.test\r\n\r\n",
    ] {
        assert!(matches!(ruling(&block, text), Some(Ruling::Block(_))), "{text}");
    }
    assert_eq!(ruling(&block, "From: \"x@evil.test\" <a@good.test>\r\n\r\n"), None);
    let to = Rules { allow_to: patterns(&["sales@here.test"]), ..Rules::default() };
    assert!(matches!(ruling(&to, "From: a@b.test\r\n\r\n"), Some(Ruling::Allow(_))));
}

#[test]
fn an_allow_list_is_not_heard_for_a_sender_the_provider_found_forged() {
    let rules = Rules { allow_from: patterns(&["bank.test"]), ..Rules::default() };
    let text = |results: &str| {
        format!(
            "Authentication-Results: provider.test; {results}\r\n\
             Received: from x (y [192.0.2.7]) by mx.provider.test (Postfix) with ESMTP id 1\r\nFrom: news@bank.test\r\n\r\n"
        )
    };
    for (results, allowed) in [
        ("none", true),
        ("dmarc=pass", true),
        ("dmarc=fail", false),
        ("spf=softfail", false),
        ("spf=fail; dkim=pass", true),
        ("spf=fail; dkim=pass; dmarc=fail", false),
    ] {
        assert_eq!(ruling(&rules, &text(results)).is_some(), allowed, "{results}");
    }
}

#[test]
fn conditions_file_discard_and_keep() {
    let header = |name: &str, value: &str| Condition::Header { name: name.into(), value: value.into() };
    let rules = Rules {
        rules: vec![
            Rule { when: vec![], then: Ruling::Discard("never".into()) },
            Rule { when: vec![header("List-Id", "*<dev.lists.test>*")], then: Ruling::Folder("Lists".into()) },
            Rule {
                when: vec![header("Subject", "*offer*"), Condition::SmallerThan(100)],
                then: Ruling::Discard("offers".into()),
            },
            Rule { when: vec![Condition::LargerThan(500)], then: Ruling::Keep },
        ],
        ..Rules::default()
    };
    assert_eq!(ruling(&rules, "List-Id: Dev\r\n <dev.lists.test>\r\n\r\n"), Some(Ruling::Folder("Lists".into())));
    assert_eq!(ruling(&rules, "Subject: An OFFER\r\n\r\n"), Some(Ruling::Discard("offers".into())));
    assert_eq!(ruling(&rules, &format!("Subject: offer\r\n\r\n{}", "x".repeat(600))), Some(Ruling::Keep));
    assert_eq!(ruling(&rules, "Subject: hello\r\n\r\n"), None);
}

fn inspect(octets: &[u8]) -> Inspection {
    attachment::inspect(&Bytes::copy_from_slice(octets), Limits::default(), &mut || true).unwrap()
}

fn base64(octets: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(octets);
    text.as_bytes().chunks(76).map(|line| format!("{}\r\n", std::str::from_utf8(line).unwrap())).collect()
}

fn mail(name: &str, content: &[u8]) -> Vec<u8> {
    format!(
        "From: a@b\r\nContent-Type: multipart/mixed; boundary=\"=_x\"\r\n\r\npreamble\r\n--=_x\r\nContent-Type: text/plain\r\n\r\n\
         hello\r\n--=_x\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}--=_x--\r\nepilogue\r\n",
        base64(content)
    )
    .into_bytes()
}

/// The classes of the one attachment.
fn classes(name: &str, content: &[u8]) -> Vec<Class> {
    let found = inspect(&mail(name, content));
    assert_eq!(found.attachments.len(), 1, "{found:?}");
    assert_eq!(found.attachments[0].size_octets, content.len() as u64);
    let mut classes: Vec<_> = found.attachments[0].classes.iter().map(|(class, _)| *class).collect();
    classes.sort();
    classes
}

/// A zip archive without compression; `hidden` entries are not in its list, `listed` ones only there.
fn zip(entries: &[(&str, &[u8], u32)], listed_only: &[&str], hidden: &[&str], flags: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    let mut count = 0u16;
    let head = |out: &mut Vec<u8>, name: &str, packed: u32, size: u32| {
        out.write_all(b"PK\x03\x04\x14\0").unwrap();
        out.write_all(&flags.to_le_bytes()).unwrap();
        out.write_all(&[0; 10]).unwrap();
        out.write_all(&packed.to_le_bytes()).unwrap();
        out.write_all(&size.to_le_bytes()).unwrap();
        out.write_all(&u16::try_from(name.len()).unwrap().to_le_bytes()).unwrap();
        out.write_all(&[0; 2]).unwrap();
        out.write_all(name.as_bytes()).unwrap();
    };
    let mut list = |name: &str, packed: u32, size: u32| {
        count += 1;
        directory.write_all(b"PK\x01\x02\x14\0\x14\0").unwrap();
        directory.write_all(&flags.to_le_bytes()).unwrap();
        directory.write_all(&[0; 10]).unwrap();
        directory.write_all(&packed.to_le_bytes()).unwrap();
        directory.write_all(&size.to_le_bytes()).unwrap();
        directory.write_all(&u16::try_from(name.len()).unwrap().to_le_bytes()).unwrap();
        directory.write_all(&[0; 16]).unwrap();
        directory.write_all(name.as_bytes()).unwrap();
    };
    for (name, content, size) in entries {
        let packed = u32::try_from(content.len()).unwrap();
        head(&mut out, name, packed, *size);
        out.write_all(content).unwrap();
        list(name, packed, *size);
    }
    for name in hidden {
        head(&mut out, name, 0, 0);
    }
    for name in listed_only {
        list(name, 0, 0);
    }
    let offset = u32::try_from(out.len()).unwrap();
    let length = u32::try_from(directory.len()).unwrap();
    out.extend(directory);
    out.write_all(b"PK\x05\x06\0\0\0\0").unwrap();
    out.write_all(&count.to_le_bytes()).unwrap();
    out.write_all(&count.to_le_bytes()).unwrap();
    out.write_all(&length.to_le_bytes()).unwrap();
    out.write_all(&offset.to_le_bytes()).unwrap();
    out.write_all(&[0; 2]).unwrap();
    out
}

#[test]
fn names_and_contents_tell_the_class() {
    use Class::{Archive, Encrypted, Executable, Macro};
    let program = [&b"MZ\x90\0\x03\0\0\0"[..], &[0; 100]].concat();
    let tar = [&[b'a'; 257][..], b"ustar\0", &[0; 300]].concat();
    let mut iso = vec![0; 40_000];
    iso[32_769..32_774].copy_from_slice(b"CD001");
    let document = zip(&[("a.txt", b"hello", 5)], &[], &[], 0);
    let office = zip(&[("[Content_Types].xml", b"x", 1), ("word/vbaProject.bin", b"x", 1)], &[], &[], 0);
    let plain_office = zip(
        &[("[Content_Types].xml", b"x", 1), ("word/document.xml", b"x", 1), ("embedded/a.exe", b"", 0)],
        &[],
        &[],
        0,
    );
    let old_office =
        [&b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"[..], &[7; 70_000], b"_\0V\0B\0A\0_\0P\0R\0O\0J\0E\0C\0T\0"].concat();
    for (name, content, expected) in [
        ("letter.txt", &b"hello"[..], &[][..]),
        ("run.exe", b"hello", &[Executable]),
        ("photo.jpg", &program, &[Executable]),
        (
            "letter.txt",
            b"MZ is how this letter starts, and nothing in it is a program, as one would see from zeros",
            &[],
        ),
        ("photo.jpg", b"\x7fELF\x02\x01", &[Executable]),
        ("tool", b"#!/bin/sh\nrm", &[Executable]),
        ("a.zip", &document, &[Archive]),
        ("photo.jpg", &document, &[Archive]),
        ("a.rar", b"nothing", &[Archive]),
        ("photo.jpg", b"Rar!\x1a\x07\x01\0", &[Archive]),
        ("photo.jpg", b"\x1f\x8b\x08", &[Archive]),
        ("photo.jpg", &tar, &[Archive]),
        ("photo.jpg", &iso, &[Archive]),
        ("a.docm", b"x", &[Macro]),
        ("a.docx", &office, &[Macro]),
        ("a.docx", &plain_office, &[]),
        ("a.doc", &old_office, &[Macro]),
        ("a.zip", &zip(&[("dir/run.EXE", b"x", 1)], &[], &[], 0), &[Executable, Archive]),
        ("a.zip", &zip(&[("a.txt", b"x", 1)], &[], &["run.js"], 0), &[Executable, Archive]),
        ("a.zip", &zip(&[("a.txt", b"x", 1)], &["run.js"], &[], 0), &[Executable, Archive]),
        ("a.zip", &zip(&[("a.txt", b"x", 1)], &[], &[], 1), &[Archive, Encrypted]),
        ("a.zip", &zip(&[("inner.zip", b"x", 1)], &[], &[], 0), &[Archive]),
    ] {
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(classes(name, content), expected, "{name} {:?}", &content[..content.len().min(20)]);
    }
}

#[test]
fn base64_is_read_as_mail_programs_read_it() {
    let of = |text: &str| {
        let message = format!("Content-Type: a/b; name=x\nContent-Transfer-Encoding: BASE64\n\n{text}");
        inspect(message.as_bytes()).attachments[0].size_octets
    };
    for (text, octets) in [
        ("AAAA", 3),
        ("AAA=", 2),
        ("AA==", 1),
        ("AAA", 2),
        ("AA", 1),
        ("A", 0),
        ("AA==AAAA", 4),
        ("A A\nA*A\n", 3),
        ("", 0),
    ] {
        assert_eq!(of(text), octets, "{text:?}");
    }
}

#[test]
fn bombs_are_known_by_what_they_say() {
    let bomb = zip(&[("a", b"x", u32::MAX), ("b", b"x", u32::MAX)], &[], &[], 0);
    assert!(classes("a.zip", &bomb).contains(&Class::Bomb));
    let ratio = zip(&[("a", &[0; 1000], 300_000_000)], &[], &[], 0);
    assert!(classes("a.zip", &ratio).contains(&Class::Bomb));
    let many: Vec<_> = (0..11_000).map(|n| format!("file{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), &b""[..], 0)).collect();
    assert!(classes("a.zip", &zip(&many, &[], &[], 0)).contains(&Class::Bomb));
    // Entries are counted once, though they stand in both lists.
    let names: Vec<_> = (0..6_000).map(|n| format!("file{n}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..], 0)).collect();
    assert_eq!(classes("a.zip", &zip(&entries, &[], &[], 0)), [Class::Archive]);
    let honest = zip(&[("a", &[0; 100_000], 1_500_000)], &[], &[], 0);
    assert_eq!(classes("a.zip", &honest), [Class::Archive]);
}

#[test]
fn a_list_longer_than_what_is_kept_is_read_from_both_ends() {
    let names: Vec<_> =
        (0..4000).map(|n| format!("directory/with/a/long/name/so/that/the/list/is/long/{n}.txt")).collect();
    let mut entries: Vec<_> = names.iter().map(|name| (name.as_str(), &b"x"[..], 1)).collect();
    entries.insert(0, ("first.exe", b"x", 1));
    assert!(classes("a.zip", &zip(&entries, &[], &[], 0)).contains(&Class::Executable));
}

#[test]
fn parts_are_found_however_they_are_nested_and_ended() {
    let names = |text: &str| -> Vec<_> {
        let crlf = text.replace('\n', "\r\n");
        let (lf, crlf) = (inspect(text.as_bytes()), inspect(crlf.as_bytes()));
        assert!(lf.complete);
        let names = |found: Inspection| found.attachments.into_iter().filter_map(|a| a.name).collect::<Vec<_>>();
        let (lf, crlf) = (names(lf), names(crlf));
        assert_eq!(lf, crlf);
        lf
    };
    assert_eq!(
        names(
            "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/alternative; boundary=b\n\n--b\n\
               Content-Type: x/y; name=1\n\nx\n--b--\n--a\nContent-Type: message/rfc822\n\nSubject: inner\n\
               Content-Type: multipart/mixed; boundary=c\n\n--c\nContent-Disposition: attachment; filename=2\n\nx\n--c--\n\
               --a\nContent-Type: x/y; name=3\n\nx\n--a--\n"
        ),
        ["1", "2", "3"]
    );
    // An inner multipart without an end, no last boundary, a part without an empty line, a boundary as prefix of another.
    assert_eq!(
        names(
            "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/mixed; boundary=ab\n\n--ab\n\
               Content-Type: x/y; name=1\n\nx\n--a\nContent-Type: x/y; name=2\n\nx\n--a\nContent-Type: x/y; name=3"
        ),
        ["1", "2", "3"]
    );
    assert_eq!(names("Content-Disposition: attachment; filename=only.exe\n\nx"), ["only.exe"]);
    assert_eq!(names("\nno header"), [""; 0]);
    let deep = "Content-Type: multipart/mixed; boundary=a\n\n--a\n".repeat(100);
    assert!(!inspect(deep.as_bytes()).complete);
    let many = format!(
        "Content-Type: multipart/mixed; boundary=a\n\n{}",
        "--a\nContent-Type: x/y; name=n\n\nx\n".repeat(2000)
    );
    let found = inspect(many.as_bytes());
    assert_eq!((found.attachments.len(), found.complete), (1000, false));
}

#[test]
fn blocked_attachments_say_what_they_are() {
    let rules = Rules {
        blocked_classes: vec![Class::Executable],
        blocked_extensions: vec!["ODT".into(), ".dwg".into()],
        ..Rules::default()
    };
    let of = |name: &str, content: &[u8]| match ruling(&rules, &String::from_utf8(mail(name, content)).unwrap()) {
        Some(Ruling::Block(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(of("invoice.pdf.exe", b"x"), "attachment invoice.pdf.exe is of class executable (name: .exe)");
    assert_eq!(of("letter.odt", b"x"), "attachment letter.odt has the blocked extension odt");
    let archive = zip(&[("plans/house.DWG", b"x", 1)], &[], &[], 0);
    assert_eq!(of("a.zip", &archive), "attachment a.zip has the blocked extension dwg");
    assert_eq!(ruling(&rules, &String::from_utf8(mail("letter.pdf", b"x")).unwrap()), None);
    let many = format!("Content-Type: multipart/mixed; boundary=a\n\n{}", "--a\n\nx\n".repeat(1001));
    assert_eq!(ruling(&rules, &many), Some(Ruling::Block("it has more parts than are looked at".into())));
}

#[test]
fn names_in_archives_fill_no_memory() {
    let names: Vec<_> = (0..100).map(|n| format!("{n}{}", "x".repeat(100))).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..], 0)).collect();
    let archive = base64(&zip(&entries, &[], &[], 0));
    let part = format!("--a\r\nContent-Type: a/b; name=a.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n{archive}");
    let message = format!("Content-Type: multipart/mixed; boundary=a\r\n\r\n{part}{part}{part}");
    let limits = Limits { name_octets: 15_000, ..Limits::default() };
    let found = attachment::inspect(&Bytes::from(message), limits, &mut || true).unwrap();
    let kept: Vec<_> = found.attachments.iter().map(|attachment| attachment.entries.len()).collect();
    assert_eq!((kept, found.complete), (vec![100, 0, 0], false));
}

#[test]
fn looking_ends_when_it_is_told_to() {
    let mut left = 3;
    let body = Bytes::from(vec![b'x'; 1_000_000]);
    let stopped = attachment::inspect(&body, Limits::default(), &mut || {
        left -= 1;
        left >= 0
    });
    assert!(matches!(stopped, Err(InspectError::Stopped(octets)) if octets == 3 * 64 * 1024), "{stopped:?}");
}
