//! Small messages, of which many are made fast.

use connectord_testkit::Message;

/// A message of 2 to 4 kB; of every ten, some have a NUL, 8-bit octets, or no final line end.
pub(crate) fn light(n: usize) -> Message {
    let mut octets = format!(
        "Return-Path: <list@example.net>\nMessage-ID: <light.{n}@example.net>\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n\
         From: list@example.net\nTo: info@example.org\nSubject: number {n}\n\n"
    )
    .into_bytes();
    let lines = 25 + n * 7 % 27;
    octets.extend((0..lines).flat_map(|line| {
        format!("line {line:02} of message {n:05}, which is like the others, and is no different\n").into_bytes()
    }));
    match n % 10 {
        3 => octets.extend_from_slice(b"a\0b\n\0\n"),
        5 => octets.extend_from_slice(b"Gr\xfc\xdfe \xe2\x82\xac\n.\n..\n"),
        7 => octets.extend_from_slice(b"no line end at the end"),
        _ => {}
    }
    Message::new(octets)
}
