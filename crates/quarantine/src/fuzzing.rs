//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use bytes::Bytes;

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
}
