//! The content of an attachment as it passes: its first octets, its last ones, and what is looked for in between.

use super::zip::{self, Listing};
use super::{Attachment, Class, Limits, names};

/// Octets kept of the start: an ISO image shows itself at 32,769.
const FRONT: usize = 36 * 1024;

/// Octets kept of the end: a zip archive's list is there.
const BACK: usize = 128 * 1024;

/// Marks of macros in old Office files: names in UTF-16, as directories of compound files have them.
const VBA: &[u8] = b"_\0V\0B\0A\0_\0P\0R\0O\0J\0E\0C\0T\0";

/// Looks at octets as they come.
pub(super) struct Sniffer {
    limits: Limits,
    front: Vec<u8>,
    /// The last octets, up to twice as many as are wanted, so that moving them costs little.
    back: Vec<u8>,
    size: u64,
    /// The end of the last block, for marks that lie across two.
    seam: Vec<u8>,
    vba: bool,
    listing: Listing,
}

impl Sniffer {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            front: Vec::new(),
            back: Vec::new(),
            size: 0,
            seam: Vec::new(),
            vba: false,
            listing: Listing::default(),
        }
    }

    pub(super) fn push(&mut self, octets: &[u8]) {
        self.size += octets.len() as u64;
        let room = FRONT - self.front.len();
        self.front.extend_from_slice(&octets[..octets.len().min(room)]);
        // Only what may be an archive or an old Office file is looked at further.
        let compound = self.front.starts_with(b"\xd0\xcf\x11\xe0");
        let zipped = self.front.starts_with(b"PK") || self.front.starts_with(b"MZ");
        if !compound && !zipped {
            return;
        }
        let last = &octets[octets.len().saturating_sub(BACK)..];
        self.back.extend_from_slice(last);
        if self.back.len() > 2 * BACK {
            self.back.drain(..self.back.len() - BACK);
        }

        self.seam.extend_from_slice(octets);
        if compound {
            self.vba |= memchr::memmem::find(&self.seam, VBA).is_some();
            let keep = self.seam.len().saturating_sub(VBA.len() - 1);
            self.seam.drain(..keep);
        } else {
            let used = self.listing.local_headers(&self.seam, self.limits.entries);
            self.seam.drain(..used);
        }
    }

    /// What was found, for the attachment.
    pub(super) fn finish(mut self, attachment: &mut Attachment) {
        attachment.size_octets = self.size;
        let front = &self.front[..];
        let at = |offset: usize, mark: &[u8]| front.get(offset..).is_some_and(|rest| rest.starts_with(mark));
        let executable = [
            (&b"\x7fELF"[..], "ELF"),
            (b"\xfe\xed\xfa\xce", "Mach-O"),
            (b"\xfe\xed\xfa\xcf", "Mach-O"),
            (b"\xce\xfa\xed\xfe", "Mach-O"),
            (b"\xcf\xfa\xed\xfe", "Mach-O"),
            (b"\xca\xfe\xba\xbe", "Mach-O or Java"),
            (b"#!/", "script"),
            (b"L\0\0\0\x01\x14\x02\0", "shortcut"),
            (b"\0asm", "WebAssembly"),
        ];
        if let Some((_, kind)) = executable.iter().find(|(mark, _)| at(0, mark)) {
            attachment.add(Class::Executable, &format!("content: {kind}"));
        }
        // `MZ` alone also starts texts; a program has a header of 64 octets with zeros.
        if at(0, b"MZ") && front.get(2..64).is_some_and(|header| header.contains(&0)) {
            attachment.add(Class::Executable, "content: MZ");
        }
        let archive = [
            (&b"Rar!\x1a\x07"[..], "rar"),
            (b"7z\xbc\xaf\x27\x1c", "7z"),
            (b"\x1f\x8b", "gzip"),
            (b"BZh", "bzip2"),
            (b"\xfd7zXZ\0", "xz"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"MSCF\0", "cab"),
            (b"\x60\xea", "arj"),
            (b"conectix", "vhd"),
            (b"vhdxfile", "vhdx"),
            (b"MSWIM\0", "wim"),
        ];
        if let Some((_, kind)) = archive.iter().find(|(mark, _)| at(0, mark)) {
            attachment.add(Class::Archive, &format!("content: {kind}"));
        }
        for (offset, mark, kind) in [(257, &b"ustar"[..], "tar"), (7, b"**ACE**", "ace"), (32_769, b"CD001", "iso")] {
            if at(offset, mark) {
                attachment.add(Class::Archive, &format!("content: {kind}"));
            }
        }
        if self.vba {
            attachment.add(Class::Macro, "content: VBA project");
        }
        if at(0, b"PK") || (at(0, b"MZ") && self.listing.found()) {
            let back = &self.back[self.back.len().saturating_sub(BACK)..];
            zip::central_directory(back, self.size, &mut self.listing, self.limits.entries);
            self.listed(attachment);
        }
    }

    /// What the list of a zip archive's entries tells.
    fn listed(self, attachment: &mut Attachment) {
        let Listing { names, packed, unpacked, encrypted, flooded } = self.listing;
        let office = names.iter().any(|name| name == "[Content_Types].xml" || name == "mimetype");
        if !office {
            attachment.add(Class::Archive, "content: zip");
        }
        if names.iter().any(|name| name == "META-INF/MANIFEST.MF") && names.iter().any(|name| name.ends_with(".class"))
        {
            attachment.add(Class::Executable, "content: Java archive");
        }
        for name in &names {
            let last = names::base(name);
            if last.eq_ignore_ascii_case("vbaProject.bin") {
                attachment.add(Class::Macro, name);
            }
            // What is an archive in an archive says nothing new of it; in an Office file it is an embedded object.
            if let Some((class, _)) = names::class(name).filter(|(class, _)| !office && *class != Class::Archive) {
                attachment.add(class, name);
            }
        }
        if encrypted {
            attachment.add(Class::Encrypted, "content: zip");
        }
        let ratio = unpacked > 1 << 20 && unpacked / packed.max(self.size).max(1) > self.limits.ratio;
        if flooded || ratio || unpacked > self.limits.unpacked_octets {
            attachment.add(Class::Bomb, &format!("{} entries, {unpacked} octets unpacked", names.len()));
        }
        attachment.entries = names.iter().map(|name| names::base(name)).filter(|name| !name.is_empty()).collect();
    }
}
