use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use connectord_mail::UnixTime;
use rustix::fs::{
    AtFlags, Dir as Entries, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps,
    UTIME_OMIT, fchmod, fchown, fcntl_lock, fstat, fsync, futimens, linkat, mkdirat, open, openat, renameat_with,
    statat, statvfs, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// What Maildir and mbox delivery ask of the machine: its disk, its clock, and which boot this is.
///
/// All calls block. Tests put a simulated disk here, which forgets what was not synced.
pub trait Disk: Send + Sync {
    /// Opens a directory by its path. Symbolic links on the way are followed: an administrator may have put them.
    ///
    /// # Errors
    /// What the system says, as for every call here.
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>>;

    /// Opens a directory by its path for what is in it, which needs no permission to read the directory itself. It can
    /// be neither synced nor listed.
    ///
    /// # Errors
    /// What the system says.
    fn pass_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>>;

    /// Free and total octets of the file system that holds `path`.
    ///
    /// # Errors
    /// What the system says.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// The time.
    fn now(&self) -> UnixTime;

    /// A text that is another one after each start of the machine; empty where that is not known.
    fn boot_id(&self) -> String;

    /// Two lines that name this process in a lock file: its number, and of which machine, boot and container.
    fn owner(&self) -> String;

    /// Whether the process that such lines name is certainly no more.
    fn is_gone(&self, owner: &str) -> bool;
}

/// An open directory. Names are single components; a symbolic link is never followed.
pub trait DiskDir: Send + Sync {
    /// Device, inode, mode and group.
    ///
    /// # Errors
    /// What the system says, as for every call here.
    fn stat(&self) -> io::Result<Stat>;

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// What the system says.
    fn open_dir(&self, name: &str) -> io::Result<Arc<dyn DiskDir>>;

    /// Makes a directory in this one; `mode` as it is, whatever the umask.
    ///
    /// # Errors
    /// `EEXIST` when it is there.
    fn make_dir(&self, name: &str, mode: u32) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOTEMPTY` when there is something in it.
    fn remove_dir(&self, name: &str) -> io::Result<()>;

    /// Makes a file that is not there, mode 0600, for reading and writing.
    ///
    /// # Errors
    /// `EEXIST` when it is there.
    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// What the system says.
    fn open_file(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that is there for reading and writing.
    ///
    /// # Errors
    /// What the system says.
    fn open_update(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// What is under a name.
    ///
    /// # Errors
    /// `ENOENT` when nothing is.
    fn stat_of(&self, name: &str) -> io::Result<Stat>;

    /// Opens a file that is there for appending.
    ///
    /// # Errors
    /// What the system says.
    fn open_append(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file into another directory of the same Maildir, never over an existing one.
    ///
    /// # Errors
    /// `EEXIST` when the new name is there.
    fn rename_into(&self, name: &str, into: &dyn DiskDir, new_name: &str) -> io::Result<()>;

    /// Unlinks a file.
    ///
    /// # Errors
    /// What the system says.
    fn unlink(&self, name: &str) -> io::Result<()>;

    /// Makes the names in this directory durable.
    ///
    /// # Errors
    /// `EIO`: nothing is known about any change since the last sync that succeeded.
    fn sync(&self) -> io::Result<()>;

    /// Shows each name, without `.` and `..`, in no order.
    ///
    /// # Errors
    /// What the system says; some names may have been shown.
    fn each_name(&self, show: &mut dyn FnMut(&[u8])) -> io::Result<()>;

    /// The descriptor, for the real disk's own use.
    fn descriptor(&self) -> Option<&OwnedFd> {
        None
    }

    /// The inode, for a simulated disk's own use.
    fn simulated(&self) -> Option<u64> {
        None
    }
}

/// An open file.
pub trait DiskFile: Send {
    /// Writes some octets and says how many.
    ///
    /// # Errors
    /// What the system says, as for every call here.
    fn write(&mut self, octets: &[u8]) -> io::Result<usize>;

    /// Reads some octets; 0 at the end.
    ///
    /// # Errors
    /// What the system says.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Reads some octets from an offset on; 0 at the end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some octets at an offset and says how many.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&mut self, octets: &[u8], offset: u64) -> io::Result<usize>;

    /// Cuts the file off.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&mut self, size_octets: u64) -> io::Result<()>;

    /// Takes the fcntl lock of the whole file; false when another process has it. It is this process's, and goes when any
    /// descriptor of the file is closed.
    ///
    /// # Errors
    /// What the system says.
    fn try_lock(&self) -> io::Result<bool>;

    /// Sets the time of the last change.
    ///
    /// # Errors
    /// What the system says.
    fn set_modified(&mut self, time: UnixTime) -> io::Result<()>;

    /// Gives the file this group and then this mode.
    ///
    /// # Errors
    /// `EPERM` when we may not give it to this group.
    fn set_group_and_mode(&mut self, group: Option<u32>, mode: u32) -> io::Result<()>;

    /// Makes the octets durable.
    ///
    /// # Errors
    /// `EIO`: nothing is known about any octet since the last sync that succeeded, and a second call that succeeds
    /// says nothing about them either.
    fn sync(&mut self) -> io::Result<()>;

    /// Size, device, inode, mode and group.
    ///
    /// # Errors
    /// What the system says.
    fn stat(&self) -> io::Result<Stat>;
}

/// What is asked about a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Device and inode.
    pub place: (u64, u64),
    /// Permission bits, without the type.
    pub mode: u32,
    /// Group.
    pub group: u32,
    /// Size in octets.
    pub size_octets: u64,
    /// Time of the last change.
    pub modified: UnixTime,
    /// Whether it is a regular file.
    pub is_file: bool,
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Octets that we may still use.
    pub free_octets: u64,
    /// All octets.
    pub total_octets: u64,
}

/// The machine's own disk.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        Ok(Arc::new(RealDir(open(path, DIRECTORY, Mode::empty())?)))
    }

    fn pass_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        Ok(Arc::new(RealDir(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let space = statvfs(path)?;
        let octets = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        Ok(Space { free_octets: octets(space.f_bavail), total_octets: octets(space.f_blocks) })
    }

    fn now(&self) -> UnixTime {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        UnixTime(i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX))
    }

    fn boot_id(&self) -> String {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    }

    fn owner(&self) -> String {
        format!("{}\n{}\n", std::process::id(), self.realm())
    }

    fn is_gone(&self, owner: &str) -> bool {
        let mut lines = owner.lines();
        let (pid, realm) = (lines.next().and_then(|line| line.parse().ok()).and_then(Pid::from_raw), lines.next());
        realm == Some(&self.realm()) && pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
    }
}

impl RealDisk {
    /// Where process numbers mean the same: this boot of this machine, and within it this namespace of processes.
    fn realm(&self) -> String {
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        format!("connectord {} {}", self.boot_id(), namespace.display())
    }
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

struct RealDir(OwnedFd);

impl DiskDir for RealDir {
    fn stat(&self) -> io::Result<Stat> {
        Ok(stat_from(fstat(&self.0)?))
    }

    fn open_dir(&self, name: &str) -> io::Result<Arc<dyn DiskDir>> {
        Ok(Arc::new(Self(openat(&self.0, name, DIRECTORY.union(OFlags::NOFOLLOW), Mode::empty())?)))
    }

    fn make_dir(&self, name: &str, mode: u32) -> io::Result<()> {
        mkdirat(&self.0, name, Mode::from_raw_mode(0o700))?;
        if mode != 0o700 {
            let made = openat(&self.0, name, DIRECTORY.union(OFlags::NOFOLLOW), Mode::empty())?;
            fchmod(made, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }

    fn remove_dir(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let flags = FILE.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::RDWR);
        Ok(Box::new(RealFile(openat(&self.0, name, flags, Mode::from_raw_mode(0o600))?.into())))
    }

    fn open_file(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file: File = openat(&self.0, name, FILE.union(OFlags::RDONLY), Mode::empty())?.into();
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        Ok(Box::new(RealFile(file)))
    }

    fn open_update(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(openat(&self.0, name, FILE.union(OFlags::RDWR), Mode::empty())?.into())))
    }

    fn stat_of(&self, name: &str) -> io::Result<Stat> {
        Ok(stat_from(statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn open_append(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let flags = FILE.union(OFlags::WRONLY).union(OFlags::APPEND);
        Ok(Box::new(RealFile(openat(&self.0, name, flags, Mode::empty())?.into())))
    }

    fn rename_into(&self, name: &str, into: &dyn DiskDir, new_name: &str) -> io::Result<()> {
        let into = into.descriptor().ok_or_else(|| io::Error::other("the directories are on different disks"))?;
        match renameat_with(&self.0, name, into, new_name, RenameFlags::NOREPLACE) {
            // File systems without RENAME_NOREPLACE (NFS, older ZFS) say EINVAL.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                linkat(&self.0, name, into, new_name, AtFlags::empty())?;
                Ok(unlinkat(&self.0, name, AtFlags::empty())?)
            }
            other => Ok(other?),
        }
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    fn sync(&self) -> io::Result<()> {
        match fsync(&self.0) {
            // Some file systems (CIFS, some FUSE) sync no directories; there the names are theirs to keep.
            Err(Errno::INVAL) => Ok(()),
            other => Ok(other?),
        }
    }

    fn each_name(&self, show: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        for entry in Entries::read_from(&self.0)? {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                show(name.to_bytes());
            }
        }
        Ok(())
    }

    fn descriptor(&self) -> Option<&OwnedFd> {
        Some(&self.0)
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write(octets)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.0, buffer, offset)
    }

    fn write_at(&mut self, octets: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(&self.0, octets, offset)
    }

    fn truncate(&mut self, size_octets: u64) -> io::Result<()> {
        self.0.set_len(size_octets)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match fcntl_lock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::ACCESS | Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn set_modified(&mut self, time: UnixTime) -> io::Result<()> {
        let last_modification = Timespec { tv_sec: time.0, tv_nsec: 0 };
        // The time of the last access stays: programs that clean `tmp/` go by it.
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        Ok(futimens(&self.0, &Timestamps { last_access, last_modification })?)
    }

    fn set_group_and_mode(&mut self, group: Option<u32>, mode: u32) -> io::Result<()> {
        if let Some(group) = group {
            fchown(&self.0, None, Some(Gid::from_raw(group)))?;
        }
        Ok(fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(stat_from(fstat(&self.0)?))
    }
}

fn stat_from(stat: rustix::fs::Stat) -> Stat {
    Stat {
        place: (stat.st_dev, stat.st_ino),
        mode: stat.st_mode & 0o7777,
        group: stat.st_gid,
        size_octets: u64::try_from(stat.st_size).unwrap_or(0),
        modified: UnixTime(stat.st_mtime),
        is_file: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
    }
}
