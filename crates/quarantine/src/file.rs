//! One file per message: a line that says what it is, a header with all that is known of the message, the message, and a
//! digest of it.
//!
//! ```text
//! connectord-quarantine 1 header=412 sha256=5e88… message=1432
//! {"id":"…","account":"info@example.org",…}
//! <1432 octets>
//! sha256=9f86…
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use connectord_mail::{Body, DeliveryId};
use connectord_wire::Escaped;
use sha2::{Digest, Sha256};

use crate::record::Header;

/// What each file begins with.
const MAGIC: &str = "connectord-quarantine ";

/// The only version there is.
const VERSION: &str = "1";

/// Longest first line, in octets.
const MAX_LINE: usize = 160;

/// Longest header, in octets.
pub(crate) const MAX_HEADER: usize = 4 * 1024 * 1024;

/// Octets behind the message: a line end, `sha256=`, 64 digits, a line end.
const TRAILER: u64 = 73;

/// Octets read or written at a time.
pub(crate) const BLOCK: usize = 64 * 1024;

/// Why a file in the quarantine is no message that can be used. It is left where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// It does not begin as ours do.
    #[error("it is not a file of the quarantine")]
    Foreign,
    /// A newer connectord wrote it.
    #[error("it is of version {0}, and this connectord knows version 1")]
    Version(String),
    /// It ends too early, or goes on behind its end.
    #[error("it has {is} octets instead of {expected}")]
    Length {
        /// What the first line says.
        expected: u64,
        /// What is there.
        is: u64,
    },
    /// What it says of the message does not have the digest it says.
    #[error("its header is damaged")]
    Header,
    /// The message does not have the digest it says.
    #[error("its message is damaged")]
    Message,
    /// It is of another message than its name says.
    #[error("it holds the message {0}, which is not its name")]
    Name(DeliveryId),
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(String),
}

/// A file as far as it was read: the header, and where the message is.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) header: Header,
    /// Offset of the message.
    pub(crate) from: u64,
    /// Length of the message.
    pub(crate) size_octets: u64,
}

impl Opened {
    /// Octets of the whole file.
    pub(crate) fn file_octets(&self) -> u64 {
        size_octets(self.from, self.size_octets)
    }
}

/// Octets of a file with so many in front of a message of so many.
pub(crate) fn size_octets(front: u64, message: u64) -> u64 {
    front.saturating_add(message).saturating_add(TRAILER)
}

/// What is in front of the message.
pub(crate) fn front(header: &Header, size_octets: u64) -> Option<Vec<u8>> {
    let mut text = serde_json::to_vec(header).expect("strings, numbers and lists are always JSON");
    text.push(b'\n');
    if text.len() > MAX_HEADER {
        return None;
    }
    let digest = hex(&Sha256::digest(&text));
    let mut front =
        format!("{MAGIC}{VERSION} header={} sha256={digest} message={size_octets}\n", text.len()).into_bytes();
    front.append(&mut text);
    Some(front)
}

/// What is behind the message.
pub(crate) fn trailer(digest: Sha256) -> String {
    format!("\nsha256={}\n", hex(&digest.finalize()))
}

/// Reads the header of a file; the message is not looked at.
pub(crate) fn open(file: &dyn Body) -> Result<Opened, Unreadable> {
    let mut buffer = [0; MAX_LINE];
    let count = fill(file, 0, &mut buffer)?;
    let line = first_line(&buffer[..count])?;
    let is = file.size_octets();
    let expected = (line.length as u64)
        .checked_add(line.header as u64)
        .and_then(|at| at.checked_add(line.message)?.checked_add(TRAILER))
        .ok_or(Unreadable::Header)?;
    if is != expected {
        return Err(Unreadable::Length { expected, is });
    }
    let mut text = vec![0; line.header];
    if fill(file, line.length as u64, &mut text)? != text.len() || hex(&Sha256::digest(&text)) != line.sha256 {
        return Err(Unreadable::Header);
    }
    let header = serde_json::from_slice(&text).map_err(|_| Unreadable::Header)?;
    Ok(Opened { header, from: (line.length + line.header) as u64, size_octets: line.message })
}

/// Reads the message to its end and compares its digest; `see` is shown each piece.
pub(crate) fn verify(
    file: &dyn Body,
    opened: &Opened,
    mut see: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Unreadable> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BLOCK];
    let mut done = 0;
    while done < opened.size_octets {
        let wanted = usize::try_from(opened.size_octets - done).unwrap_or(BLOCK).min(BLOCK);
        let count = fill(file, opened.from + done, &mut buffer[..wanted])?;
        if count != wanted {
            return Err(Unreadable::Message);
        }
        digest.update(&buffer[..count]);
        see(&buffer[..count]).map_err(|error| Unreadable::Io(error.to_string()))?;
        done += count as u64;
    }
    let expected = trailer(digest);
    let mut is = vec![0; expected.len()];
    let count = fill(file, opened.from + opened.size_octets, &mut is)?;
    if is[..count] == *expected.as_bytes() { Ok(()) } else { Err(Unreadable::Message) }
}

struct FirstLine<'a> {
    /// With its end.
    length: usize,
    header: usize,
    sha256: &'a str,
    message: u64,
}

fn first_line(octets: &[u8]) -> Result<FirstLine<'_>, Unreadable> {
    let rest = octets.strip_prefix(MAGIC.as_bytes()).ok_or(Unreadable::Foreign)?;
    let end = memchr::memchr(b'\n', rest).ok_or(Unreadable::Header)?;
    let line = std::str::from_utf8(&rest[..end]).map_err(|_| Unreadable::Header)?;
    let mut words = line.split(' ');
    let version = words.next().unwrap_or_default();
    if version != VERSION {
        return Err(Unreadable::Version(Escaped::text(version).to_string()));
    }
    let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
    let read = (|| Some((value("header")?, value("sha256")?, value("message")?)))();
    let (header, sha256, message) = read.filter(|_| words.next().is_none()).ok_or(Unreadable::Header)?;
    let header = number(header).and_then(|header| usize::try_from(header).ok()).filter(|header| *header <= MAX_HEADER);
    let (Some(header), Some(message)) = (header, number(message)) else { return Err(Unreadable::Header) };
    Ok(FirstLine { length: MAGIC.len() + end + 1, header, sha256, message })
}

/// Digits alone: `parse` would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Reads as much as there is, up to the end of the buffer.
fn fill(file: &dyn Body, offset: u64, buffer: &mut [u8]) -> Result<usize, Unreadable> {
    let mut count = 0;
    while count < buffer.len() {
        match file.read_at(offset + count as u64, &mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Unreadable::Io(error.to_string())),
        }
    }
    Ok(count)
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A whole file.
pub(crate) struct FileBody {
    file: File,
    size_octets: u64,
}

impl FileBody {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        Ok(Self { size_octets: file.metadata()?.len(), file })
    }
}

impl Body for FileBody {
    fn size_octets(&self) -> u64 {
        self.size_octets
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(&self.file, buffer, offset)
    }
}

/// The message in a file, as it was kept.
pub(crate) struct HeldBody {
    file: Arc<FileBody>,
    from: u64,
    size_octets: u64,
    line_feeds: Option<u64>,
}

impl HeldBody {
    pub(crate) fn new(file: Arc<FileBody>, opened: &Opened) -> Self {
        let line_feeds = opened.header.line_feeds;
        Self { file, from: opened.from, size_octets: opened.size_octets, line_feeds }
    }
}

impl Body for HeldBody {
    fn size_octets(&self) -> u64 {
        self.size_octets
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.size_octets.saturating_sub(offset);
        let wanted = usize::try_from(rest).unwrap_or(buffer.len()).min(buffer.len());
        self.file.read_at(self.from + offset.min(self.size_octets), &mut buffer[..wanted])
    }

    fn line_feeds(&self) -> Option<u64> {
        self.line_feeds
    }
}
