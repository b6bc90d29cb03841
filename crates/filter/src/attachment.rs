//! What is attached to a message: by name, by type and by the first octets of its content.
//!
//! A message is read once, block by block, and nothing is unpacked: of a zip archive the list of its entries is read, as
//! it stands at its end and as it stands between the entries, so that neither can hide what the other shows. Memory is
//! bounded whatever the message: 64 KiB of it at a time, of an attachment its first 36 KiB, its last 128 KiB and the names
//! of at most 10,000 entries, and 4 MiB of such names for the whole message.
//!
//! Reading is blocking work, as [`Body::read_at`] may read a file: it belongs on a thread of its own, with a deadline that
//! `go_on` watches.
//!
//! Not seen: what is inside rar, 7z and tar archives, archives inside archives (their names are), encrypted content
//! (that is a class), uuencoded text, and messages attached in base64. Those are an antivirus filter's work.

mod mime;
mod names;
mod sniff;
mod zip;

use std::fmt;
use std::io;

use connectord_mail::Body;

pub use names::decode_words;

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most parts of a message; default 1,000.
    pub parts: usize,
    /// Deepest nesting of multiparts and messages; default 32.
    pub depth: usize,
    /// Most entries of one archive that are looked at; default 10,000. An archive with more is a bomb.
    pub entries: usize,
    /// How many times its size an archive may say to hold; default 200. More is a bomb, from 1 MiB on.
    pub ratio: u64,
    /// How many octets an archive may say to hold; default 4 GiB. More is a bomb.
    pub unpacked_octets: u64,
    /// Most octets of names of archives' entries that are kept of one message; default 4 MiB.
    pub name_octets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { parts: 1000, depth: 32, entries: 10_000, ratio: 200, unpacked_octets: 4 << 30, name_octets: 4 << 20 }
    }
}

/// What an attachment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Programs and scripts, and what starts some: exe, js, lnk.
    Executable,
    /// Archives and disk images.
    Archive,
    /// Office documents with macros.
    Macro,
    /// Archives with encrypted entries: nobody can look inside.
    Encrypted,
    /// Archives that say to hold far more than they can, or more entries than anybody reads.
    Bomb,
}

impl Class {
    /// As the configuration names it.
    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::Executable, Self::Archive, Self::Macro, Self::Encrypted, Self::Bomb];
        all.into_iter().find(|class| class.to_string() == name)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Executable => "executable",
            Self::Archive => "archive",
            Self::Macro => "macro",
            Self::Encrypted => "encrypted",
            Self::Bomb => "bomb",
        })
    }
}

/// What is attached to one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Parts that have a name, or whose content is of a class; texts without a name are not listed.
    pub attachments: Vec<Attachment>,
    /// Whether all of the message was looked at: not when it has more parts, a deeper nesting or more names in archives
    /// than are allowed.
    pub complete: bool,
}

/// One attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Its name, decoded; without directories.
    pub name: Option<String>,
    /// Its type as it says: `application/zip`, in lower case.
    pub content_type: String,
    /// Length of the decoded content, in octets.
    pub size_octets: u64,
    /// What it is, and what says so: a name, `content`, or an entry of the archive; each class once.
    pub classes: Vec<(Class, String)>,
    /// Names in the archive, as far as they were read.
    pub entries: Vec<String>,
}

impl Attachment {
    /// The extensions of its name and of its entries' names, in lower case, without the dot.
    pub fn extensions(&self) -> impl Iterator<Item = String> {
        self.name.iter().chain(&self.entries).filter_map(|name| names::extension(name))
    }

    fn add(&mut self, class: Class, why: &str) {
        if !self.classes.iter().any(|(known, _)| *known == class) {
            self.classes.push((class, why.to_owned()));
        }
    }
}

/// Why a message could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// `go_on` said no.
    #[error("looking at the attachments took too long: stopped after {0} octets")]
    Stopped(u64),
    /// The message could not be read.
    #[error("reading the message to look at its attachments: {0}")]
    Read(io::Error),
}

/// Octets that are read at a time; `go_on` is asked before each.
const BLOCK: usize = 64 * 1024;

/// Lists what is attached. `go_on` is asked every 64 KiB; once it says no, reading ends.
///
/// # Errors
/// [`InspectError::Stopped`] when `go_on` said no, [`InspectError::Read`] when the body cannot be read.
///
/// ```
/// use bytes::Bytes;
/// use connectord_filter::attachment::{self, Class, Limits};
/// let body = Bytes::from_static(
///     b"Content-Type: application/octet-stream; name=\"invoice.pdf.exe\"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n",
/// );
/// let found = attachment::inspect(&body, Limits::default(), &mut || true).unwrap();
/// assert_eq!(found.attachments[0].classes[0].0, Class::Executable);
/// ```
pub fn inspect(body: &dyn Body, limits: Limits, go_on: &mut dyn FnMut() -> bool) -> Result<Inspection, InspectError> {
    let mut walker = mime::Walker::new(limits);
    let mut buffer = vec![0; BLOCK];
    let mut offset = 0;
    loop {
        if !go_on() {
            return Err(InspectError::Stopped(offset));
        }
        let count = body.read_at(offset, &mut buffer).map_err(InspectError::Read)?;
        if count == 0 {
            return Ok(walker.finish());
        }
        walker.push(&buffer[..count]);
        offset += count as u64;
    }
}
