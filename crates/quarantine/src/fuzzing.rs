//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use bytes::Bytes;

use sha2::{Digest, Sha256};

use crate::file::{self, Unreadable};
use crate::note::Note;

/// Any octets are a file that is read or refused; what is read is written as it was, and its octets are counted.
pub fn quarantine_file(data: &[u8]) {
    // A note lies beside it.
    if let Ok(note) = Note::read(data) {
        assert_eq!(Note::read(&note.octets()[..]).as_ref(), Ok(&note));
    }
    let octets = Bytes::copy_from_slice(data);
    match file::open(&octets) {
        Ok(opened) => {
            assert_eq!(opened.file_octets(), data.len() as u64);
            let mut seen = Vec::new();
            let whole = file::verify(&octets, &opened, |piece| {
                seen.extend_from_slice(piece);
                Ok(())
            });
            if whole.is_ok() {
                let from = usize::try_from(opened.from).expect("within the data");
                assert_eq!(seen, data[from..from + seen.len()]);
            }
            let front = file::front(&opened.header, opened.size_octets).expect("as short as it was");
            let mut again = front.clone();
            again.extend_from_slice(&data[usize::try_from(opened.from).expect("within the data")..]);
            let reread = file::open(&Bytes::from(again)).expect("what is written is read");
            assert_eq!(reread.header, opened.header);
            if let Some(held) = opened.header.held(std::sync::Arc::new(Bytes::new())) {
                assert_eq!(Some(held.id), opened.header.id());
            }
        }
        Err(Unreadable::Length { expected, is }) => assert_ne!(expected, is),
        Err(_) => {}
    }
    whole_file(data);
}

/// The octets as a header and a message, parted by the first NUL, with digests that are right: what is read comes back, and
/// one changed octet, whichever the last one of the data chooses, is noticed.
fn whole_file(data: &[u8]) {
    let at = memchr::memchr(0, data).unwrap_or(data.len());
    let Ok(header) = serde_json::from_slice(&data[..at]) else { return };
    let message = data.get(at + 1..).unwrap_or_default();
    let front = file::front(&header, message.len() as u64).expect("as short as it was");
    let mut octets = [&front[..], message, file::trailer(Sha256::new_with_prefix(message)).as_bytes()].concat();
    let read = |octets: &[u8]| {
        let octets = Bytes::copy_from_slice(octets);
        let opened = file::open(&octets)?;
        file::verify(&octets, &opened, |_| Ok(()))?;
        Ok::<_, Unreadable>((opened.header, opened.size_octets))
    };
    assert_eq!(read(&octets), Ok((header, message.len() as u64)));
    let changed = usize::from(data.last().copied().unwrap_or_default()) * (octets.len() - 1) / 255;
    octets[changed] ^= 1;
    assert!(read(&octets).is_err(), "octet {changed} was changed");
}
