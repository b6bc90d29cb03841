use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use connectord_store::StoreError;

/// Makes the state directory when it is missing (its last part only, 0700), and takes its lock.
///
/// The lock is the file `lock`, held by flock(2) as long as the value lives; our process id is written in it, until
/// [`ended`].
pub(super) fn take(directory: &Path) -> Result<Lock, StoreError> {
    let failed = |what: &str| {
        let what = format!("{what} {}", directory.display());
        move |error: io::Error| StoreError::Failed { during: "opening the state", text: format!("{what}: {error}") }
    };
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("cannot make")(error)),
        _ => {}
    }
    refuse_network(directory)?;
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join("lock"))
        .map_err(failed("cannot open the lock in"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Whoever has the lock may not have written yet who it is.
            let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(StoreError::Locked { path: directory.display().to_string(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(failed("cannot lock")(error)),
    }
    let was_held = lock.metadata().is_ok_and(|lock| lock.len() > 0);
    let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
    written.map_err(failed("cannot write the lock in"))?;
    Ok(Lock { file: lock, was_held })
}

/// The lock on a state directory.
pub(super) struct Lock {
    pub(super) file: File,
    /// The process that had it before did not end in order, or is of a version that did not say so.
    pub(super) was_held: bool,
}

/// Says in the lock that the state was closed in order.
pub(super) fn ended(lock: &File) {
    if let Err(error) = lock.set_len(0) {
        tracing::debug!(%error, "state: the next start will take this for an unclean end");
    }
}

/// SQLite's WAL needs memory shared by all who open it and locks that work: network file systems have neither.
#[cfg(target_os = "linux")]
fn refuse_network(directory: &Path) -> Result<(), StoreError> {
    // linux/magic.h
    const NETWORKED: [(u32, &str); 4] = [(0x6969, "NFS"), (0x517B, "SMB"), (0xFE53_4D42, "SMB"), (0xFF53_4D42, "CIFS")];
    let found = rustix::fs::statfs(directory).map_err(|errno| StoreError::Failed {
        during: "opening the state",
        text: format!("cannot ask for the file system of {}: {errno}", directory.display()),
    })?;
    // The type is signed on some targets and 32 bits wide on all.
    let magic = (found.f_type as u64 & 0xFFFF_FFFF) as u32;
    match NETWORKED.iter().find(|(known, _)| *known == magic) {
        Some((_, name)) => Err(StoreError::Failed {
            during: "opening the state",
            text: format!(
                "{} is on {name}, where the state cannot be kept safely; use a local disk",
                directory.display()
            ),
        }),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_: &Path) -> Result<(), StoreError> {
    Ok(())
}
