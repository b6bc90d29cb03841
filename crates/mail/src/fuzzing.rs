//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use crate::{Envelope, Fingerprint, Head, LineEnds, Status, UnixTime, head, loops};

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
    assert!(fingerprint.same_message(&Fingerprint::new(scanned, 0)));
    let _ = (loops(scanned, "a@b"), UnixTime::parse_rfc5322(data), Status::split_from(data));

    let (mut out, mut line_ends) = (Vec::new(), LineEnds::default());
    for piece in data.chunks(3) {
        line_ends.push(piece, &mut out);
    }
    line_ends.finish(&mut out);
    assert_eq!(data.len() - out.len(), memchr::memmem::find_iter(data, b"\r\n").count());
}
