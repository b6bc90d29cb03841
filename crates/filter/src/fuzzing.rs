//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use std::sync::Arc;

use bytes::Bytes;
use connectord_mail::head::Field;
use connectord_mail::relay::Origin;
use connectord_mail::{Body, DeliveryId, Head, Identity, UnixTime};

use crate::attachment::{self, Limits};
use crate::edit::as_believed;
use crate::{Edits, Notice};

/// Any octets are a message whose attachments can be listed, the same however it is cut.
pub fn attachments(data: &[u8]) {
    let limits = Limits { parts: 50, depth: 8, entries: 100, ..Limits::default() };
    let whole = attachment::inspect(&Bytes::copy_from_slice(data), limits, &mut || true).expect("memory can be read");
    let cut = attachment::inspect(&Cut(data), limits, &mut || true).expect("memory can be read");
    assert_eq!(whole, cut);
    assert!(whole.attachments.len() <= 51);
    for attachment in &whole.attachments {
        assert!(attachment.entries.len() <= 200 && attachment.classes.len() <= 5);
    }
}

/// Whatever a header is, an edit of it adds and removes what it should and nothing else.
pub fn edits(data: &[u8]) {
    believed(data);
    let edits = Edits {
        add: vec![("X-Added".into(), String::from_utf8_lossy(data).into_owned())],
        remove: vec![("X-Gone".into(), 0), ("Received".into(), 2)],
        subject_prefix: Some("[SPAM]".into()),
        subject: None,
    };
    let body: Arc<dyn Body> = Arc::new(Bytes::copy_from_slice(data));
    let head = Head::of(data);
    let (front, edited) = edits.apply(head, body);
    assert!(front.ends_with(b"\r\n") && front.starts_with(b"X-Added:"));
    let added = [&front[..], b"\r\n"].concat();
    let known = ["X-Added", "Subject"];
    assert!(Head::of(&added).fields().all(|field| known.iter().any(|name| field.is(name))));
    assert!(front.split(|o| *o == b'\n').all(|line| line.len() < 998));

    let octets = octets(&*edited);
    assert!(octets.ends_with(&data[head.octets().len()..]));
    if head.octets().len() < connectord_mail::head::MAX_HEAD / 2 && head.fields().count() < 900 {
        let new = Head::of(&octets);
        assert_eq!(new.field("X-Gone"), None);
    }
}

/// Whatever the header of an infected message is, the notice in its place has the fields it should have and no other, and
/// no line that is too long; nothing of it ends the header or begins a field.
pub fn notice(data: &[u8]) {
    let id = DeliveryId::new(Identity { account: "a", mailbox: "", uid_validity: 0, key: b"1", generation: 0 });
    let reason = String::from_utf8_lossy(data);
    let notice = Notice {
        recipient: "ann@here.test",
        account: "ann@there.test",
        hostname: "mail.here.test",
        id,
        reason: &reason,
        now: UnixTime(0),
    };
    let usual: Vec<Vec<u8>> = names(&notice.message(Head::of(b"")));
    let message = notice.message(Head::of(data));
    assert_eq!(names(&message), usual);
    assert!(message.len() < 16 * 1024 + 2 * data.len());
    // A field that is too long for its line goes on after a tab.
    assert!(!message.iter().any(|octet| octet.is_ascii_control() && !matches!(octet, b'\r' | b'\n' | b'\t')));
    assert!(!String::from_utf8_lossy(&message).contains(connectord_wire::is_deceptive));
    assert!(message.split(|octet| *octet == b'\n').all(|line| line.is_empty() || line.ends_with(b"\r")));
}

fn names(message: &[u8]) -> Vec<Vec<u8>> {
    Head::of(message).fields().map(|field| field.name.to_vec()).collect()
}

/// Whatever a header is, a filter sees all of it but for what is not known to be the provider's.
fn believed(data: &[u8]) {
    let body: Arc<dyn Body> = Arc::new(Bytes::copy_from_slice(data));
    let head = Head::of(data);
    let results = |field: &Field<'_>| field.is("Authentication-Results");
    let first = head.every_field().find(results).map(|field| field.octets.to_vec());
    let seen = octets(&*as_believed(head, &[Origin::Provider], &body));
    assert!(seen.ends_with(&data[head.octets().len()..]) && seen.len() <= data.len());
    if head.octets().len() < connectord_mail::head::MAX_HEAD / 2 {
        // Without the last line's end a field may go on in what follows.
        let left: Vec<_> = Head::of(&seen).every_field().filter(results).map(|field| field.octets.to_vec()).collect();
        assert!(left.len() <= 1 && (left.is_empty() || Some(&left[0]) == first.as_ref()), "{left:?}");
        assert_eq!(Head::of(&seen).field("Received-SPF"), None);
    }
}

fn octets(body: &dyn Body) -> Vec<u8> {
    let mut octets = vec![0; usize::try_from(body.size_octets()).expect("a small message")];
    let mut at = 0;
    while at < octets.len() {
        let count = body.read_at(at as u64, &mut octets[at..]).expect("memory can be read");
        assert!(count > 0);
        at += count;
    }
    assert_eq!(body.read_at(octets.len() as u64, &mut [0; 8]).expect("memory can be read"), 0);
    octets
}

struct Cut<'a>(&'a [u8]);

impl Body for Cut<'_> {
    fn size_octets(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len()).min(5);
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}
