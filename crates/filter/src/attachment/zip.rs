//! The list of a zip archive's entries, from its central directory and from the headers in front of the entries.
//!
//! Nothing is unpacked. Programs that unpack go by either list, so both are read and joined.

use std::collections::BTreeSet;

/// Longest name of an entry that is read, in octets.
const MAX_NAME: usize = 512;

/// What is known of the entries.
#[derive(Default)]
pub(super) struct Listing {
    /// Names as they stand, lossy UTF-8; each once.
    pub(super) names: BTreeSet<String>,
    /// Octets of all entries as they are in the archive.
    pub(super) packed: u64,
    /// Octets of all entries as they say to be outside of it.
    pub(super) unpacked: u64,
    /// Whether an entry is encrypted.
    pub(super) encrypted: bool,
    /// Whether there are more entries than are read.
    pub(super) flooded: bool,
}

impl Listing {
    pub(super) fn found(&self) -> bool {
        !self.names.is_empty()
    }

    fn add(&mut self, name: &[u8], most: usize) {
        let name = String::from_utf8_lossy(name).into_owned();
        if self.names.len() < most {
            self.names.insert(name);
        } else {
            self.flooded |= !self.names.contains(&name);
        }
    }

    /// Reads the headers in front of entries that lie whole in `octets`; returns how many octets are done with. What is
    /// left is offered again with what follows.
    pub(super) fn local_headers(&mut self, octets: &[u8], most: usize) -> usize {
        let mut at = 0;
        while let Some(found) = memchr::memmem::find(&octets[at..], b"PK\x03\x04") {
            at += found;
            let Some(header) = octets.get(at..at + 30) else { return at };
            let length = usize::from(u16_at(header, 26));
            if length == 0 || length > MAX_NAME {
                at += 4;
                continue;
            }
            let Some(name) = octets.get(at + 30..at + 30 + length) else { return at };
            // In packed data the mark may stand by chance; a name has no control characters.
            if name.iter().all(|o| *o >= 0x20) {
                self.encrypted |= u16_at(header, 6) & 1 == 1;
                self.add(name, most);
            }
            at += 4;
        }
        octets.len().saturating_sub(3).max(at)
    }
}

/// Reads the central directory in the last octets of an archive of `size` octets (APPNOTE.TXT 4.3.12 and 4.3.16).
pub(super) fn central_directory(back: &[u8], size: u64, listing: &mut Listing, most: usize) {
    let Some(end) = memchr::memmem::rfind(back, b"PK\x05\x06") else { return };
    let Some(record) = back.get(end..end + 22) else { return };
    let (entries, length, offset) = (u16_at(record, 10), u32_at(record, 12), u32_at(record, 16));
    if usize::from(entries) > most {
        listing.flooded = true;
    }
    // The directory ends where its end record starts; where it says to start may be off by what stands in front.
    let start = end.saturating_sub(length as usize);
    let first = size.saturating_sub(back.len() as u64);
    let said = u64::from(offset).checked_sub(first).and_then(|at| usize::try_from(at).ok());
    let is_entry = |at: usize| back.get(at..).is_some_and(|rest| rest.starts_with(b"PK\x01\x02"));
    let start = if is_entry(start) {
        Some(start)
    } else {
        // A directory longer than what was kept: from the first entry that is there.
        said.filter(|at| is_entry(*at)).or_else(|| memchr::memmem::find(back, b"PK\x01\x02"))
    };
    let Some(mut at) = start else { return };
    let mut count = 0;
    while let Some(entry) = back.get(at..at + 46).filter(|entry| entry.starts_with(b"PK\x01\x02")) {
        count += 1;
        if count > most {
            listing.flooded = true;
            return;
        }
        listing.encrypted |= u16_at(entry, 8) & 1 == 1;
        listing.packed = listing.packed.saturating_add(u64::from(u32_at(entry, 20)));
        // 0xFFFFFFFF says that the true size stands elsewhere (zip64): that is at least 4 GiB.
        listing.unpacked = listing.unpacked.saturating_add(u64::from(u32_at(entry, 24)));
        let (name, extra, comment) = (u16_at(entry, 28), u16_at(entry, 30), u16_at(entry, 32));
        if let Some(name) = back.get(at + 46..at + 46 + usize::from(name).min(MAX_NAME)) {
            listing.add(name, most);
        }
        at += 46 + usize::from(name) + usize::from(extra) + usize::from(comment);
    }
}

fn u16_at(octets: &[u8], at: usize) -> u16 {
    octets.get(at..at + 2).map_or(0, |o| u16::from_le_bytes([o[0], o[1]]))
}

fn u32_at(octets: &[u8], at: usize) -> u32 {
    octets.get(at..at + 4).map_or(0, |o| u32::from_le_bytes([o[0], o[1], o[2], o[3]]))
}
