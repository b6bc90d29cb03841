use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use connectord_delivery::{Failure, FailureKind};
use connectord_mail::DeliveryId;
use connectord_wire::Escaped;
use serde::{Deserialize, Serialize};

use super::disk::{Disk, DiskDir, Space};
use super::names;
use super::options::{Create, Reserve};
use crate::{pool, trouble};

/// An open Maildir: its directories as descriptors, so that nothing that happens to the path moves our work elsewhere.
#[derive(Clone)]
pub(super) struct Shelf {
    /// For texts and notes.
    pub(super) path: String,
    /// Where `maildirsize` is: the mailbox's own Maildir, for a folder too.
    pub(super) root: Arc<dyn DiskDir>,
    pub(super) tmp: Arc<dyn DiskDir>,
    pub(super) new: Arc<dyn DiskDir>,
    pub(super) cur: Arc<dyn DiskDir>,
    /// Device and inode of `tmp/`.
    pub(super) place: (u64, u64),
    /// Mode of files: ours and what the directory allows its group.
    pub(super) file_mode: u32,
    pub(super) group: u32,
    /// Whether any of its directories was made just now.
    pub(super) made: bool,
}

/// Which Maildir: a mailbox, or a Maildir++ folder below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Where {
    #[serde(rename = "p")]
    pub(super) mailbox: String,
    /// Its directory, `.Junk`.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub(super) folder: Option<String>,
}

impl Where {
    pub(super) fn path(&self) -> String {
        match &self.folder {
            Some(folder) => format!("{}/{folder}", self.mailbox),
            None => self.mailbox.clone(),
        }
    }
}

impl Shelf {
    /// Opens a Maildir, and makes it where that is allowed.
    ///
    /// Its own directories are synced, whoever made them: an earlier process of ours may have been killed before.
    pub(super) fn open(disk: &dyn Disk, at: &Where, create: Create) -> Result<Self, Failure> {
        let mailbox = Path::new(&at.mailbox);
        let fail = |during, error| trouble::failure(during, &at.path(), &error);
        let mut made = false;
        let root = match disk.open_dir(mailbox) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && create == Create::InParent => {
                made = true;
                make_mailbox(disk, mailbox).map_err(|error| fail("making the Maildir", error))?
            }
            other => other.map_err(|error| fail("opening the Maildir", error))?,
        };
        if create == Create::InParent {
            if is_something_else(&*root) {
                let text = format!("{} is there and is no Maildir", Escaped::text(&at.mailbox));
                return Err(Failure::new(FailureKind::Misconfigured, text));
            }
            // Before any folder below: whoever comes meanwhile then sees a Maildir, and no directory of somebody else's.
            for name in ["cur", "new", "tmp"] {
                match root.open_dir(name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        made = true;
                        make_part(&*root, name).map_err(|error| fail("making the Maildir", error))?;
                    }
                    _ => {}
                }
            }
        }
        let maildir = match &at.folder {
            None => root.clone(),
            Some(folder) => match root.open_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && create == Create::InParent => {
                    made = true;
                    make_folder(&*root, folder).map_err(|error| fail("making the folder", error))?
                }
                other => other.map_err(|error| fail("opening the folder", error))?,
            },
        };
        let mut open = |name| {
            let part = match maildir.open_dir(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && create == Create::InParent => {
                    made = true;
                    make_part(&*maildir, name)
                }
                other => other,
            };
            part.map_err(|error| fail("opening cur, new and tmp of the Maildir", error))
        };
        let (cur, new, tmp) = (open("cur")?, open("new")?, open("tmp")?);
        let stat = maildir.stat().map_err(|error| fail("looking at the Maildir", error))?;
        let place = tmp.stat().map_err(|error| fail("looking at tmp of the Maildir", error))?.place;
        Ok(Self {
            path: at.path(),
            root,
            tmp,
            new,
            cur,
            place,
            file_mode: 0o600 | (stat.mode & 0o060),
            group: stat.group,
            made,
        })
    }

    /// Makes the directories themselves durable: once per process and Maildir.
    pub(super) fn sync_directories(disk: &dyn Disk, at: &Where) -> Result<(), Failure> {
        let fail = |error| trouble::failure("syncing the directory of the Maildir", &at.path(), &error);
        let root = disk.open_dir(Path::new(&at.mailbox)).map_err(fail)?;
        if let Some(folder) = &at.folder {
            root.open_dir(folder).map_err(fail)?.sync().map_err(fail)?;
        }
        root.sync().map_err(fail)?;
        match disk.open_dir(parent(Path::new(&at.mailbox))) {
            Ok(above) => above.sync().map_err(fail),
            // A home that we may pass through and not read; then it was not us who made the Maildir.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(fail(error)),
        }
    }

    /// Takes back a Maildir whose directories could not be synced. A sync is not repeated and believed: what was made just
    /// now goes, and is made anew by the next attempt. What was there keeps its owner and mode, and is named anew as long
    /// as nothing is in it: an earlier process of ours may have made it, and been killed before its sync.
    pub(super) fn take_back(&self, disk: &dyn Disk, at: &Where) {
        let mailbox = Path::new(&at.mailbox);
        if let Some(folder) = &at.folder {
            take_back_in(&*self.root, folder, self.made, None);
        }
        if let Some(name) = mailbox.file_name().and_then(|name| name.to_str())
            && let Ok(above) = disk.open_dir(parent(mailbox))
        {
            take_back_in(&*above, name, self.made && at.folder.is_none(), at.folder.as_deref());
        }
    }

    /// Where these messages are, as far as they were delivered: directory and name.
    pub(super) fn delivered(&self, wanted: &HashSet<DeliveryId>) -> io::Result<HashMap<DeliveryId, (Part, String)>> {
        let mut found = HashMap::new();
        // A reader moves from new/ to cur/: in this order none is overlooked.
        for (part, dir) in [(Part::New, &self.new), (Part::Cur, &self.cur)] {
            dir.each_name(&mut |name| {
                pool::beat();
                let id = names::id_of(name).filter(|id| wanted.contains(id));
                if let (Some(id), Ok(name)) = (id, std::str::from_utf8(name)) {
                    found.insert(id, (part, name.to_owned()));
                }
            })?;
        }
        Ok(found)
    }

    /// All messages of ours, ascending.
    pub(super) fn all_delivered(&self) -> Result<Vec<DeliveryId>, Failure> {
        let mut found = Vec::new();
        // A reader moves from new/ to cur/: in this order none is overlooked.
        for dir in [&self.new, &self.cur] {
            let listed = dir.each_name(&mut |name| {
                pool::beat();
                found.extend(names::id_of(name));
            });
            listed.map_err(|error| trouble::failure("searching new/ and cur/", &self.path, &error))?;
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Takes a message from `new/` to `tmp/` and back, so that a sync of `new/` is about its name whatever became of
    /// earlier ones. Killed in between, it is in `tmp/` under the name that a recall looks for.
    pub(super) fn name_anew(&self, name: &str, in_tmp: &str) -> io::Result<()> {
        self.new.rename_into(name, &*self.tmp, in_tmp)?;
        self.tmp.rename_into(in_tmp, &*self.new, name).map_err(|error| match error.kind() {
            // Not to be taken for a reader's work.
            io::ErrorKind::NotFound => io::Error::other("somebody removed it from tmp/"),
            _ => error,
        })
    }

    pub(super) fn part(&self, part: Part) -> &dyn DiskDir {
        match part {
            Part::New => &*self.new,
            Part::Cur => &*self.cur,
        }
    }
}

/// As [`Shelf::take_back`], for one directory of `cur`, `new` and `tmp` that may have `other` in it as well.
fn take_back_in(above: &dyn DiskDir, name: &str, made: bool, other: Option<&str>) {
    let Ok(dir) = above.open_dir(name) else { return };
    if made {
        for part in ["cur", "new", "tmp"] {
            let _ = dir.remove_dir(part);
        }
    }
    let is_empty = |dir: &dyn DiskDir, but: &[&str]| {
        let mut left = 0;
        let listed = dir.each_name(&mut |name| left += usize::from(!but.iter().any(|but| but.as_bytes() == name)));
        listed.is_ok() && left == 0
    };
    if is_empty(&*dir, &["maildirfolder"]) {
        let _ = dir.unlink("maildirfolder");
        let _ = above.remove_dir(name);
    } else if is_empty(&*dir, &["maildirfolder", "cur", "new", "tmp", other.unwrap_or("tmp")])
        && ["cur", "new", "tmp"].iter().all(|part| dir.open_dir(part).is_ok_and(|part| is_empty(&*part, &[])))
    {
        ["cur", "new", "tmp"].iter().for_each(|part| name_directory_anew(&*dir, part));
        name_directory_anew(above, name);
    }
}

/// Names a directory anew, so that the next sync is about its name. No reader takes the name in between for a folder's.
fn name_directory_anew(above: &dyn DiskDir, name: &str) {
    let meanwhile = format!("{}.connectord", name.trim_start_matches('.'));
    if above.rename_into(name, above, &meanwhile).is_ok() {
        let _ = above.rename_into(&meanwhile, above, name);
    }
}

/// Where delivered mail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    New,
    Cur,
}

/// Whether less than the reserve is free.
pub(crate) fn room(disk: &dyn Disk, mailbox: &str, reserve: Reserve) -> Result<(), Failure> {
    let mut path = PathBuf::from(mailbox);
    let Space { free_octets, total_octets } = loop {
        match disk.space(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.parent().is_some() => {
                path = parent(&path).to_owned();
            }
            other => break other.map_err(|error| trouble::failure("asking for free space", mailbox, &error))?,
        }
    };
    let share = (u128::from(total_octets) * u128::from(reserve.percent.min(100)) / 100) as u64;
    let least = reserve.octets.min(share);
    if free_octets >= least {
        return Ok(());
    }
    let text = format!(
        "no room at {}: {free_octets} octets are free, and {least} are kept in reserve",
        Escaped::text(&path.to_string_lossy())
    );
    Err(Failure::new(FailureKind::DiskFull, text))
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn make_mailbox(disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
    let above = disk.open_dir(parent(path))?;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    // A home of mode 0755 lets its group look around, and means no mail by that; one that its group may write in is
    // shared on purpose.
    let mode = above.stat()?.mode;
    make_dir(&*above, name, if mode & 0o020 != 0 { 0o700 | (mode & 0o2070) } else { 0o700 })
}

fn make_folder(root: &dyn DiskDir, name: &str) -> io::Result<Arc<dyn DiskDir>> {
    let folder = make_part(root, name)?;
    match folder.create_new("maildirfolder") {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(folder),
    }
}

/// A directory within a Maildir: like the Maildir's own, without anything for others.
fn make_part(dir: &dyn DiskDir, name: &str) -> io::Result<Arc<dyn DiskDir>> {
    make_dir(dir, name, 0o700 | (dir.stat()?.mode & 0o2070))
}

fn make_dir(dir: &dyn DiskDir, name: &str, mode: u32) -> io::Result<Arc<dyn DiskDir>> {
    match dir.make_dir(name, mode) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => dir.open_dir(name),
    }
}

/// Whether a directory has things in it and none of `cur`, `new` and `tmp`.
fn is_something_else(dir: &dyn DiskDir) -> bool {
    let mut other = false;
    let listed = dir.each_name(&mut |name| other |= !matches!(name, b"cur" | b"new" | b"tmp"));
    // Looked for after the listing, which may overlook what is made while it runs.
    listed.is_ok() && other && ["cur", "new", "tmp"].iter().all(|name| dir.open_dir(name).is_err())
}
