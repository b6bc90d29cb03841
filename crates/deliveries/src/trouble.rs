//! What an error of a file call means for the mail.

use std::io;

use connectord_delivery::{Failure, FailureKind};
use connectord_wire::Escaped;
use rustix::io::Errno;

use crate::pool::Lost;

/// The failure for an error `during` something at `path`.
pub(crate) fn failure(during: &str, path: &str, error: &io::Error) -> Failure {
    let path = Escaped::text(path);
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let (kind, hint) = match errno {
        Some(Errno::NOSPC) => (FailureKind::DiskFull, ""),
        Some(Errno::DQUOT) => (FailureKind::OverQuota, ""),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::NXIO | Errno::STALE) => {
            (FailureKind::Unavailable, "")
        }
        Some(Errno::ACCESS | Errno::PERM) => (
            FailureKind::Misconfigured,
            "\nhint: give the user that connectord runs as read, write and search permission there",
        ),
        Some(Errno::ROFS) => (FailureKind::Misconfigured, "\nhint: the file system is mounted read-only"),
        Some(Errno::LOOP) => {
            (FailureKind::Misconfigured, "\nhint: a symbolic link stands where a directory or file must be")
        }
        Some(Errno::NAMETOOLONG) => (FailureKind::Misconfigured, "\nhint: the path is too long for this system"),
        _ => (FailureKind::Transient, ""),
    };
    Failure::new(kind, format!("{error} (during {during} at {path}){hint}"))
}

/// The failure when the disk, or whoever holds the place, did not answer in time.
pub(crate) fn late(during: &str, path: &str, waited: std::time::Duration) -> Failure {
    let path = Escaped::text(path);
    let text = format!("no answer from the disk within {} s (during {during} at {path})", waited.as_secs());
    Failure::new(FailureKind::Unavailable, text)
}

/// The failure when a job on the disk gave no result.
pub(crate) fn lost(during: &str, path: &str, lost: Lost) -> Failure {
    let shown = Escaped::text(path);
    let text = match lost {
        Lost::Panicked => return panicked(during),
        Lost::Late(waited) => return late(during, path, waited),
        Lost::Hung(silent) => format!(
            "the disk has not answered an earlier call for {} s (during {during} at {shown}); it is not asked again before \
             it has",
            silent.as_secs()
        ),
        Lost::Crowded(hung) => format!(
            "{hung} calls to disks have not returned, and no more are made where none has returned before (during \
             {during} at {shown})"
        ),
    };
    Failure::new(FailureKind::Unavailable, text)
}

/// The failure after a panic of ours.
pub(crate) fn panicked(during: &str) -> Failure {
    Failure::new(FailureKind::Transient, format!("our own fault: a panic (during {during}); see standard error"))
}
