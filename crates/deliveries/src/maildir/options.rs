use std::sync::Arc;
use std::time::Duration;

use connectord_delivery::Template;

use super::disk::{Disk, RealDisk};
use crate::DiskPool;

/// How mail goes into Maildirs. [`Options::new`] has the defaults; every field may be changed.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where a recipient's Maildir is, the directory that holds `cur`, `new` and `tmp`.
    pub path: Template,
    /// Whether a Maildir that is not there is made; default [`Create::InParent`].
    pub create: Create,
    /// Free space that mail never takes; default 1 GiB or 5 %, the smaller.
    pub reserve: Reserve,
    /// Whether limits in a Maildir++ `maildirsize` file are kept; default true.
    pub quota: bool,
    /// Name of this host in file names; default the system's. Odd characters are written as `\ooo`.
    pub hostname: String,
    /// Which installation of ours this is, letters and digits that stay the same over restarts and are kept with the
    /// state; marks our files in `tmp/`. Only files with this mark are ever swept, so that two installations that share
    /// a Maildir need two marks.
    pub instance: String,
    /// When `new/` and `cur/` are searched for an earlier copy before writing; default [`CheckExisting::Repeats`].
    pub check_existing: CheckExisting,
    /// Longest wait for the disk, or for another batch into the same Maildir; default 5 min.
    ///
    /// A call into a disk that hangs cannot be ended; its thread stays with it, and the Maildir stays closed for
    /// others until it comes back. Once it has hung for 30 s they are told so at once ([`crate::PoolLimits::hung_after`]).
    pub disk_timeout: Duration,
    /// The threads that do the work; default those of the process, [`DiskPool::shared`].
    pub pool: DiskPool,
    /// The disk; default the real one.
    pub disk: Arc<dyn Disk>,
}

impl Options {
    /// The defaults, for Maildirs at `path`, of the installation `instance`.
    pub fn new(path: Template, instance: impl Into<String>) -> Self {
        Self {
            path,
            create: Create::default(),
            reserve: Reserve::default(),
            quota: true,
            hostname: host_name(),
            instance: instance.into(),
            check_existing: CheckExisting::default(),
            disk_timeout: Duration::from_secs(300),
            pool: DiskPool::shared(),
            disk: Arc::new(RealDisk),
        }
    }
}

/// Whether a Maildir that is not there is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Create {
    /// Never: a recipient without a Maildir does not exist.
    Never,
    /// When its parent directory is there: `cur`, `new` and `tmp`, mode 0700, or with the parent's group bits if
    /// its group may write there. Nothing is made above the Maildir, so that a volume which is not mounted is not mistaken for an empty one.
    #[default]
    InParent,
}

/// Free space that mail never takes: the smaller of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// In octets; default 1 GiB.
    pub octets: u64,
    /// In per cent of the file system, 0 to 100; default 5.
    pub percent: u8,
}

impl Default for Reserve {
    fn default() -> Self {
        Self { octets: 1 << 30, percent: 5 }
    }
}

/// When `new/` and `cur/` are searched for an earlier copy before writing.
///
/// A search reads both directories once per batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckExisting {
    /// For parcels whose `attempt` is above 1.
    #[default]
    Repeats,
    /// For all: after the state was lost, or restored from an old backup.
    Always,
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".into())
}
