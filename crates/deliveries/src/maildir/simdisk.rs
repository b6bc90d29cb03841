//! A disk for tests that forgets what was not synced, and fails where it is told to.
//!
//! A file's octets survive a power failure only if the file was synced, a name only if its directory was; a rename is
//! two changes in two directories, each on its own. What was not synced survives or not, as the seed has it: whole, up to
//! some octet, or with nothing but zeros behind it. A sync that fails loses what it covered for good, and the next one
//! succeeds, as on Linux.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use connectord_mail::UnixTime;
use rustix::io::Errno;

use super::disk::{Disk, DiskDir, DiskFile, Space, Stat};

/// What happens at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done from this call on, as if the process had been killed before it.
    Crash,
    /// The call fails with this error; if it is a sync, what it covered is lost.
    Error(i32),
    /// A write takes one octet; other calls are as ever.
    ShortWrite,
}

/// A kind of call, for telling which one failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// Opening or looking.
    Look,
    /// Making a file or directory.
    Make,
    /// Writing.
    Write,
    /// Cutting a file off.
    Truncate,
    /// Changing time, mode or group.
    Change,
    /// Syncing a file.
    SyncFile,
    /// Syncing a directory.
    SyncDir,
    /// Renaming.
    Rename,
    /// Unlinking.
    Unlink,
}

/// The simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<World>>);

struct World {
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    calls: Vec<Call>,
    fault: Option<(usize, Fault)>,
    second: Option<(usize, Fault)>,
    kill_at: Option<usize>,
    empty_at: Option<(usize, String)>,
    crashed: bool,
    /// Changes at each restart, so that what an earlier process holds open is dead.
    process: u64,
    boot: u64,
    device: u64,
    now: i64,
    free_octets: u64,
}

#[derive(Clone)]
enum Node {
    File { data: Vec<u8>, durable: Vec<u8>, lost: Lost, time: i64 },
    Dir { names: BTreeMap<String, u64>, durable: BTreeMap<String, u64>, lost: BTreeSet<String>, mode: u32 },
}

/// Where octets are in memory and will never be on the disk, as a sync that covered them failed.
type Lost = Option<(usize, usize)>;

/// What a sync that succeeds makes durable: of what was lost, zeros.
fn syncable(data: &[u8], lost: Lost) -> Vec<u8> {
    let mut durable = data.to_vec();
    if let Some((from, to)) = lost {
        let end = to.min(durable.len());
        durable[from.min(end)..end].fill(0);
    }
    durable
}

/// How many octets both begin with.
fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

const ROOT: u64 = 1;

impl Default for SimDisk {
    fn default() -> Self {
        let mut nodes = BTreeMap::new();
        nodes.insert(ROOT, empty_dir());
        Self(Arc::new(Mutex::new(World {
            nodes,
            next_node: 2,
            calls: Vec::new(),
            fault: None,
            second: None,
            kill_at: None,
            empty_at: None,
            crashed: false,
            process: 0,
            boot: 0,
            device: 7,
            now: 1_795_000_000,
            free_octets: 1 << 40,
        })))
    }
}

fn empty_dir() -> Node {
    Node::Dir { names: BTreeMap::new(), durable: BTreeMap::new(), lost: BTreeSet::new(), mode: 0o700 }
}

fn errno(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

impl SimDisk {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a directory and those above it, durably.
    pub fn make_dirs(&self, path: &str) {
        let mut world = self.world();
        let mut at = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let there = world.names(at).get(name).copied();
            at = there.unwrap_or_else(|| world.add(at, name, empty_dir()));
        }
        world.settle();
    }

    /// Puts a file there, durably.
    pub fn put(&self, path: &str, octets: &[u8]) {
        let (dir, name) = path.rsplit_once('/').expect("a test's path has a slash");
        let mut world = self.world();
        let dir = world.find(dir).expect("a test makes directories first");
        let time = world.now;
        world.add(dir, name, Node::File { data: octets.to_vec(), durable: Vec::new(), lost: None, time });
        world.settle();
    }

    /// Names and octets of the files in a directory; empty if it is not there.
    pub fn files(&self, path: &str) -> BTreeMap<String, Vec<u8>> {
        let world = self.world();
        let Some(dir) = world.find(path) else { return BTreeMap::new() };
        let octets = |id| match world.nodes.get(id) {
            Some(Node::File { data, .. }) => Some(data.clone()),
            _ => None,
        };
        world.names(dir).iter().filter_map(|(name, id)| Some((name.clone(), octets(id)?))).collect()
    }

    /// Removes a file or directory, durably, as another program does.
    pub fn remove(&self, path: &str) {
        let (dir, name) = path.rsplit_once('/').expect("a test's path has a slash");
        let mut world = self.world();
        let Some(dir) = world.find(dir) else { return };
        if let Some(Node::Dir { names, durable, .. }) = world.nodes.get_mut(&dir) {
            names.remove(name);
            durable.remove(name);
        }
    }

    /// The call with this number (from 0) has this fault.
    pub fn fail_at(&self, number: usize, fault: Fault) {
        let mut world = self.world();
        world.calls.clear();
        world.fault = Some((number, fault));
    }

    /// The call with this number fails too, beside what [`SimDisk::fail_at`] does.
    pub fn also_fail_at(&self, number: usize, error: i32) {
        self.world().second = Some((number, Fault::Error(error)));
    }

    /// The process is killed before the call with this number, beside what [`SimDisk::fail_at`] does.
    pub fn kill_at(&self, number: usize) {
        self.world().kill_at = Some(number);
    }

    /// Before the call with this number another program removes all files of a directory, durably.
    pub fn empty_at(&self, number: usize, path: &str) {
        self.world().empty_at = Some((number, path.to_owned()));
    }

    /// No fault any more; the calls so far.
    pub fn calls(&self) -> Vec<Call> {
        let mut world = self.world();
        world.fault = None;
        std::mem::take(&mut world.calls)
    }

    /// Whether the crash has happened.
    pub fn crashed(&self) -> bool {
        self.world().crashed
    }

    /// Kills the process now: no call does anything until [`SimDisk::restart`].
    pub fn kill(&self) {
        self.world().crashed = true;
    }

    /// Starts the next process; everything the killed one did is still there.
    pub fn restart(&self) {
        let mut world = self.world();
        world.crashed = false;
        (world.fault, world.second, world.kill_at) = (None, None, None);
        world.process += 1;
    }

    /// The power failed: what was not synced is there or not, by the seed.
    pub fn power_failure(&self, seed: u64) {
        let mut world = self.world();
        world.crashed = false;
        (world.fault, world.second, world.kill_at) = (None, None, None);
        world.process += 1;
        world.boot += 1;
        let mut random = Random(seed);
        for node in world.nodes.values_mut() {
            match node {
                Node::File { data, durable, lost, .. } => {
                    if *data != *durable {
                        let mut whole = syncable(data, *lost);
                        // What was durable before, and not changed since, is not touched.
                        let kept = common(&whole, durable);
                        let end = kept + random.below(whole.len() - kept + 1);
                        *data = match random.below(4) {
                            0 => whole,
                            1 => whole[..end].to_vec(),
                            2 => {
                                whole[end..].fill(0);
                                whole
                            }
                            _ => durable.clone(),
                        };
                        durable.clone_from(data);
                    }
                    *lost = None;
                }
                Node::Dir { names, durable, lost, .. } => {
                    let all: BTreeSet<_> = names.keys().chain(durable.keys()).cloned().collect();
                    for name in all {
                        let (now, then) = (names.get(&name).copied(), durable.get(&name).copied());
                        let kept =
                            if now != then && !lost.contains(&name) && random.below(2) == 0 { now } else { then };
                        match kept {
                            Some(id) => {
                                durable.insert(name, id);
                            }
                            None => {
                                durable.remove(&name);
                            }
                        }
                    }
                    names.clone_from(durable);
                    lost.clear();
                }
            }
        }
    }

    /// Sets the clock.
    pub fn set_now(&self, now: UnixTime) {
        self.world().now = now.0;
    }

    /// Sets the free space.
    pub fn set_free(&self, octets: u64) {
        self.world().free_octets = octets;
    }

    /// Another volume is mounted: devices differ from now on.
    pub fn remount(&self) {
        self.world().device += 1;
    }

    fn call(&self, call: Call, process: u64) -> io::Result<Due> {
        let mut world = self.world();
        if world.crashed || process != world.process {
            return Err(io::Error::other("the process is dead"));
        }
        let number = world.calls.len();
        world.calls.push(call);
        if let Some((_, path)) = world.empty_at.take_if(|(at, _)| *at == number)
            && let Some(dir) = world.find(&path)
            && let Some(Node::Dir { names, durable, .. }) = world.nodes.get_mut(&dir)
        {
            names.clear();
            durable.clear();
        }
        if world.kill_at == Some(number) {
            world.crashed = true;
            return Err(io::Error::other("the process is dead"));
        }
        let fault = world.fault.filter(|(at, _)| *at == number).or(world.second);
        match fault {
            Some((at, Fault::Crash)) if at == number => {
                world.crashed = true;
                Err(io::Error::other("the process is dead"))
            }
            Some((at, Fault::Error(error))) if at == number && !matches!(call, Call::SyncDir | Call::SyncFile) => {
                Err(io::Error::from_raw_os_error(error))
            }
            Some((at, Fault::Error(error))) if at == number => Ok(Due::Fail(error)),
            Some((at, Fault::ShortWrite)) if at == number => Ok(Due::Short),
            _ => Ok(Due::Whole),
        }
    }
}

enum Due {
    Whole,
    Short,
    Fail(i32),
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % limit.max(1) as u64) as usize
    }
}

impl World {
    fn names(&self, dir: u64) -> &BTreeMap<String, u64> {
        match self.nodes.get(&dir) {
            Some(Node::Dir { names, .. }) => names,
            _ => unreachable!("only directories are walked"),
        }
    }

    fn find(&self, path: &str) -> Option<u64> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(ROOT, |at, name| match self.nodes.get(&at) {
            Some(Node::Dir { names, .. }) => names.get(name).copied(),
            _ => None,
        })
    }

    fn add(&mut self, dir: u64, name: &str, node: Node) -> u64 {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, node);
        self.link(dir, name, Some(id));
        id
    }

    fn link(&mut self, dir: u64, name: &str, to: Option<u64>) {
        if let Some(Node::Dir { names, lost, .. }) = self.nodes.get_mut(&dir) {
            lost.remove(name);
            match to {
                Some(id) => names.insert(name.to_owned(), id),
                None => names.remove(name),
            };
        }
    }

    fn settle(&mut self) {
        for node in self.nodes.values_mut() {
            match node {
                Node::File { data, durable, .. } => durable.clone_from(data),
                Node::Dir { names, durable, .. } => durable.clone_from(names),
            }
        }
    }

    fn stat(&self, id: u64) -> Stat {
        let (mode, size_octets, modified) = match self.nodes.get(&id) {
            Some(Node::Dir { mode, .. }) => (*mode, 0, 0),
            Some(Node::File { data, time, .. }) => (0o600, data.len() as u64, *time),
            None => (0, 0, 0),
        };
        let is_file = matches!(self.nodes.get(&id), Some(Node::File { .. }));
        Stat { place: (self.device, id), mode, group: 0, size_octets, modified: UnixTime(modified), is_file }
    }
}

impl Disk for SimDisk {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        let process = self.world().process;
        self.call(Call::Look, process)?;
        let parts = path.components().filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        let path: Vec<_> = parts.collect();
        let world = self.world();
        let id = world.find(&path.join("/")).ok_or_else(|| errno(Errno::NOENT))?;
        match world.nodes.get(&id) {
            Some(Node::Dir { .. }) => Ok(Arc::new(SimDir { disk: self.clone(), id, process })),
            _ => Err(errno(Errno::NOTDIR)),
        }
    }

    fn pass_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        self.open_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.open_dir(path)?;
        Ok(Space { free_octets: self.world().free_octets, total_octets: 1 << 40 })
    }

    fn now(&self) -> UnixTime {
        UnixTime(self.world().now)
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.world().boot)
    }

    fn owner(&self) -> String {
        let world = self.world();
        format!("{}\nboot-{}\n", world.process, world.boot)
    }

    fn is_gone(&self, owner: &str) -> bool {
        let world = self.world();
        let (process, boot) = owner.split_once('\n').unwrap_or_default();
        boot.trim() == format!("boot-{}", world.boot) && process.parse() != Ok(world.process)
    }
}

struct SimDir {
    disk: SimDisk,
    id: u64,
    process: u64,
}

impl SimDir {
    fn child(&self, world: &World, name: &str) -> io::Result<u64> {
        world.names(self.id).get(name).copied().ok_or_else(|| errno(Errno::NOENT))
    }
}

impl DiskDir for SimDir {
    fn stat(&self) -> io::Result<Stat> {
        self.disk.call(Call::Look, self.process)?;
        Ok(self.disk.world().stat(self.id))
    }

    fn open_dir(&self, name: &str) -> io::Result<Arc<dyn DiskDir>> {
        self.disk.call(Call::Look, self.process)?;
        let world = self.disk.world();
        let id = self.child(&world, name)?;
        match world.nodes.get(&id) {
            Some(Node::Dir { .. }) => Ok(Arc::new(Self { disk: self.disk.clone(), id, process: self.process })),
            _ => Err(errno(Errno::NOTDIR)),
        }
    }

    fn make_dir(&self, name: &str, _: u32) -> io::Result<()> {
        self.disk.call(Call::Make, self.process)?;
        let mut world = self.disk.world();
        if self.child(&world, name).is_ok() {
            return Err(errno(Errno::EXIST));
        }
        world.add(self.id, name, empty_dir());
        Ok(())
    }

    fn remove_dir(&self, name: &str) -> io::Result<()> {
        self.disk.call(Call::Unlink, self.process)?;
        let mut world = self.disk.world();
        let id = self.child(&world, name)?;
        if !world.names(id).is_empty() {
            return Err(errno(Errno::NOTEMPTY));
        }
        world.link(self.id, name, None);
        Ok(())
    }

    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.call(Call::Make, self.process)?;
        let mut world = self.disk.world();
        if self.child(&world, name).is_ok() {
            return Err(errno(Errno::EXIST));
        }
        let time = world.now;
        let id = world.add(self.id, name, Node::File { data: Vec::new(), durable: Vec::new(), lost: None, time });
        Ok(Box::new(SimFile { disk: self.disk.clone(), id, process: self.process, at: 0 }))
    }

    fn open_file(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.call(Call::Look, self.process)?;
        let id = self.child(&self.disk.world(), name)?;
        Ok(Box::new(SimFile { disk: self.disk.clone(), id, process: self.process, at: 0 }))
    }

    fn open_update(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.open_file(name)
    }

    fn stat_of(&self, name: &str) -> io::Result<Stat> {
        self.disk.call(Call::Look, self.process)?;
        let world = self.disk.world();
        Ok(world.stat(self.child(&world, name)?))
    }

    fn open_append(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.open_file(name)
    }

    fn rename_into(&self, name: &str, into: &dyn DiskDir, new_name: &str) -> io::Result<()> {
        self.disk.call(Call::Rename, self.process)?;
        let into = into.simulated().ok_or_else(|| errno(Errno::XDEV))?;
        let mut world = self.disk.world();
        let id = self.child(&world, name)?;
        if world.names(into).contains_key(new_name) {
            return Err(errno(Errno::EXIST));
        }
        world.link(into, new_name, Some(id));
        world.link(self.id, name, None);
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.disk.call(Call::Unlink, self.process)?;
        let mut world = self.disk.world();
        self.child(&world, name)?;
        world.link(self.id, name, None);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let due = self.disk.call(Call::SyncDir, self.process)?;
        let mut world = self.disk.world();
        let Some(Node::Dir { names, durable, lost, .. }) = world.nodes.get_mut(&self.id) else {
            return Err(errno(Errno::IO));
        };
        let changed: Vec<_> = names
            .keys()
            .chain(durable.keys())
            .filter(|name| names.get(*name) != durable.get(*name) && !lost.contains(*name))
            .cloned()
            .collect();
        if let Due::Fail(error) = due {
            lost.extend(changed);
            return Err(io::Error::from_raw_os_error(error));
        }
        for name in changed {
            match names.get(&name) {
                Some(id) => durable.insert(name, *id),
                None => durable.remove(&name),
            };
        }
        Ok(())
    }

    fn each_name(&self, show: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.disk.call(Call::Look, self.process)?;
        let names: Vec<_> = self.disk.world().names(self.id).keys().cloned().collect();
        names.iter().for_each(|name| show(name.as_bytes()));
        Ok(())
    }

    fn simulated(&self) -> Option<u64> {
        Some(self.id)
    }
}

struct SimFile {
    disk: SimDisk,
    id: u64,
    process: u64,
    at: usize,
}

impl DiskFile for SimFile {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let taken = match self.disk.call(Call::Write, self.process)? {
            Due::Short => octets.len().min(1),
            _ => octets.len(),
        };
        if let Some(Node::File { data, .. }) = self.disk.world().nodes.get_mut(&self.id) {
            data.extend_from_slice(&octets[..taken]);
        }
        Ok(taken)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.call(Call::Look, self.process)?;
        match self.disk.world().nodes.get(&self.id) {
            Some(Node::File { data, .. }) => {
                let rest = data.get(self.at..).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                self.at += count;
                Ok(count)
            }
            _ => Err(errno(Errno::ISDIR)),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.call(Call::Look, self.process)?;
        match self.disk.world().nodes.get(&self.id) {
            Some(Node::File { data, .. }) => {
                let rest = usize::try_from(offset).ok().and_then(|at| data.get(at..)).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            }
            _ => Err(errno(Errno::ISDIR)),
        }
    }

    fn write_at(&mut self, octets: &[u8], offset: u64) -> io::Result<usize> {
        let taken = match self.disk.call(Call::Write, self.process)? {
            Due::Short => octets.len().min(1),
            _ => octets.len(),
        };
        let at = usize::try_from(offset).map_err(|_| errno(Errno::FBIG))?;
        if let Some(Node::File { data, lost, .. }) = self.disk.world().nodes.get_mut(&self.id) {
            let end = at + taken;
            data.resize(data.len().max(end), 0);
            data[at..end].copy_from_slice(&octets[..taken]);
            // What is written anew is written when it is synced.
            *lost =
                lost.map(|(from, to)| if at <= from { (from.max(end), to) } else { (from, to) }).filter(|l| l.0 < l.1);
        }
        Ok(taken)
    }

    fn truncate(&mut self, size_octets: u64) -> io::Result<()> {
        self.disk.call(Call::Truncate, self.process)?;
        let size = usize::try_from(size_octets).map_err(|_| errno(Errno::FBIG))?;
        if let Some(Node::File { data, lost, .. }) = self.disk.world().nodes.get_mut(&self.id) {
            data.resize(size, 0);
            *lost = lost.map(|(from, to)| (from, to.min(size))).filter(|(from, to)| from < to);
        }
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.disk.call(Call::Look, self.process).map(|_| true)
    }

    fn set_modified(&mut self, to: UnixTime) -> io::Result<()> {
        self.disk.call(Call::Change, self.process)?;
        if let Some(Node::File { time, .. }) = self.disk.world().nodes.get_mut(&self.id) {
            *time = to.0;
        }
        Ok(())
    }

    fn set_group_and_mode(&mut self, _: Option<u32>, _: u32) -> io::Result<()> {
        self.disk.call(Call::Change, self.process).map(|_| ())
    }

    fn sync(&mut self) -> io::Result<()> {
        let due = self.disk.call(Call::SyncFile, self.process)?;
        match (self.disk.world().nodes.get_mut(&self.id), due) {
            (Some(Node::File { data, durable, lost, .. }), Due::Fail(error)) => {
                let from = common(data, durable).min(lost.map_or(usize::MAX, |(from, _)| from));
                *lost = Some((from, data.len())).filter(|(from, to)| from < to);
                Err(io::Error::from_raw_os_error(error))
            }
            (Some(Node::File { data, durable, lost, .. }), _) => {
                *durable = syncable(data, *lost);
                Ok(())
            }
            _ => Err(errno(Errno::IO)),
        }
    }

    fn stat(&self) -> io::Result<Stat> {
        self.disk.call(Call::Look, self.process)?;
        Ok(self.disk.world().stat(self.id))
    }
}
