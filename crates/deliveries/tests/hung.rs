//! Maildirs on disks that hang: calls that do not return until a gate is opened. The others get their mail meanwhile.

#![allow(clippy::unwrap_used, reason = "a test may stop where its premise fails")]

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use connectord_deliveries::maildir::simdisk::SimDisk;
use connectord_deliveries::maildir::{Disk, DiskDir, DiskFile, Maildir, Options, Space, Stat};
use connectord_deliveries::{DiskPool, PoolLimits, command, mbox};
use connectord_delivery::{Delivery, FailureKind, Outcome, Parcel, Presence, Recipient};
use connectord_mail::{DeliveryId, Identity, UnixTime};

const LONG: Duration = Duration::from_secs(60);

/// What hangs while it is shut.
#[derive(Default)]
struct Gate {
    shut: Mutex<Option<Hangs>>,
    opened: Condvar,
}

#[derive(Clone, Copy, PartialEq)]
enum Hangs {
    /// Every call below a path with `hung` in it.
    All,
    /// Only the moves to `new/` there.
    Moves,
}

impl Gate {
    fn set(&self, shut: Option<Hangs>) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }

    fn pass(&self, hung: bool, by: Hangs) {
        let hangs = |shut: &mut Option<Hangs>| hung && shut.is_some_and(|what| what == by || what == Hangs::All);
        drop(self.opened.wait_while(self.shut.lock().unwrap(), hangs).unwrap());
    }
}

struct GatedDisk {
    disk: SimDisk,
    gate: Arc<Gate>,
}

struct GatedDir {
    dir: Arc<dyn DiskDir>,
    hung: bool,
    gate: Arc<Gate>,
}

impl GatedDir {
    fn through(&self) -> &dyn DiskDir {
        self.gate.pass(self.hung, Hangs::All);
        &*self.dir
    }
}

impl Disk for GatedDisk {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        let hung = path.to_string_lossy().contains("hung");
        self.gate.pass(hung, Hangs::All);
        Ok(Arc::new(GatedDir { dir: self.disk.open_dir(path)?, hung, gate: self.gate.clone() }))
    }
    fn pass_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        self.open_dir(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.gate.pass(path.to_string_lossy().contains("hung"), Hangs::All);
        self.disk.space(path)
    }
    fn now(&self) -> UnixTime {
        self.disk.now()
    }
    fn boot_id(&self) -> String {
        self.disk.boot_id()
    }
    fn owner(&self) -> String {
        self.disk.owner()
    }
    fn is_gone(&self, owner: &str) -> bool {
        self.disk.is_gone(owner)
    }
}

impl DiskDir for GatedDir {
    fn stat(&self) -> io::Result<Stat> {
        self.through().stat()
    }
    fn open_dir(&self, name: &str) -> io::Result<Arc<dyn DiskDir>> {
        let dir = self.through().open_dir(name)?;
        Ok(Arc::new(Self { dir, hung: self.hung || name.contains("hung"), gate: self.gate.clone() }))
    }
    fn make_dir(&self, name: &str, mode: u32) -> io::Result<()> {
        self.through().make_dir(name, mode)
    }
    fn remove_dir(&self, name: &str) -> io::Result<()> {
        self.through().remove_dir(name)
    }
    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.through().create_new(name)
    }
    fn open_file(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.through().open_file(name)
    }
    fn open_update(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.through().open_update(name)
    }
    fn stat_of(&self, name: &str) -> io::Result<Stat> {
        self.through().stat_of(name)
    }
    fn open_append(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.through().open_append(name)
    }
    fn rename_into(&self, name: &str, into: &dyn DiskDir, new_name: &str) -> io::Result<()> {
        self.gate.pass(self.hung, Hangs::Moves);
        self.through().rename_into(name, into, new_name)
    }
    fn unlink(&self, name: &str) -> io::Result<()> {
        self.through().unlink(name)
    }
    fn sync(&self) -> io::Result<()> {
        self.through().sync()
    }
    fn each_name(&self, show: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.through().each_name(show)
    }
    fn descriptor(&self) -> Option<&OwnedFd> {
        self.dir.descriptor()
    }
    fn simulated(&self) -> Option<u64> {
        self.dir.simulated()
    }
}

/// Maildirs `/mail/<user>`, of which those of users with `hung` in their name hang while the gate is shut.
struct House {
    disk: SimDisk,
    gate: Arc<Gate>,
    pool: DiskPool,
    maildir: Arc<Maildir>,
}

impl House {
    fn new(disk_timeout: Duration) -> Self {
        let (slow_after, hung_after) = (Duration::from_millis(50), Duration::from_millis(300));
        let pool = DiskPool::with_limits(PoolLimits { threads: 8, slow_after, hung_after, ..PoolLimits::default() });
        let (disk, gate) = (SimDisk::default(), Arc::new(Gate::default()));
        disk.make_dirs("/mail");
        let mut options = Options::new("/mail/{user}".parse().unwrap(), "inst");
        options.disk = Arc::new(GatedDisk { disk: disk.clone(), gate: gate.clone() });
        (options.pool, options.disk_timeout) = (pool.clone(), disk_timeout);
        Self { disk, gate, pool, maildir: Arc::new(Maildir::new(options)) }
    }

    fn delivered(&self, user: &str) -> usize {
        self.disk.files(&format!("/mail/{user}/new")).len()
    }

    fn left(&self, user: &str) -> usize {
        self.disk.files(&format!("/mail/{user}/tmp")).len()
    }
}

fn recipient(user: &str) -> Recipient {
    Recipient { user: user.into(), address: user.into() }
}

fn parcel(user: &str, attempt: u32) -> Parcel {
    let id = DeliveryId::new(Identity { account: user, mailbox: "", uid_validity: 0, key: b"1", generation: 0 });
    Parcel {
        id,
        message: id,
        recipient: recipient(user),
        reverse_path: String::new(),
        trace: Bytes::new(),
        body: Arc::new(Bytes::from_static(b"Subject: hi\r\n\r\nbody\r\n")),
        arrived_at: None,
        folder: None,
        attempt,
    }
}

async fn deliver(delivery: &dyn Delivery, user: &str, attempt: u32) -> Outcome {
    let once = async { delivery.prepare(vec![parcel(user, attempt)]).await.complete().await.remove(0) };
    tokio::time::timeout(LONG, once).await.expect("an outcome")
}

#[tokio::test]
async fn forty_maildirs_that_hang_keep_no_other_from_its_mail_and_get_theirs_when_they_are_back() {
    let house = House::new(LONG);
    let hung: Vec<String> = (0..40).map(|n| format!("hung{n}")).collect();
    house.gate.set(Some(Hangs::All));
    let mut waiting = tokio::task::JoinSet::new();
    for user in hung.clone() {
        let maildir = house.maildir.clone();
        waiting.spawn(async move { deliver(&*maildir, &user, 1).await });
    }
    tokio::task::yield_now().await;
    for user in (0..40).map(|n| format!("well{n}")) {
        assert_eq!(house.maildir.presence(&recipient(&user)).await, Ok(Presence::Here));
        assert!(matches!(deliver(&*house.maildir, &user, 1).await, Outcome::Delivered { .. }));
        house.maildir.settled(&[]).await;
        assert_eq!(house.delivered(&user), 1);
    }
    // Who waited is told why, and whoever asks now is told at once.
    for outcome in tokio::time::timeout(LONG, waiting.join_all()).await.expect("all are told") {
        let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
        assert_eq!(failure.kind, FailureKind::Unavailable);
        assert!(failure.text.starts_with("the disk has not answered an earlier call for "), "{failure:?}");
        assert!(failure.text.contains("(during opening the Maildir at /mail/hung"), "{failure:?}");
    }
    for user in &hung {
        assert_eq!(house.maildir.presence(&recipient(user)).await.unwrap_err().kind, FailureKind::Unavailable);
    }
    assert_eq!(house.pool.slow(), 40);
    house.gate.set(None);
    for user in &hung {
        while !matches!(deliver(&*house.maildir, user, 1).await, Outcome::Delivered { .. }) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(house.delivered(user), 1);
    }
}

#[tokio::test]
async fn a_disk_that_hangs_while_messages_are_published_is_known_to_be_uncertain_and_delivers_once() {
    let house = House::new(Duration::from_millis(500));
    house.gate.set(Some(Hangs::Moves));
    let Outcome::Unknown(failure) = deliver(&*house.maildir, "hung", 1).await else { panic!("it cannot be known") };
    assert!(failure.text.contains("(during publishing the messages at /mail/hung)"), "{failure:?}");
    assert!(matches!(deliver(&*house.maildir, "well", 1).await, Outcome::Delivered { .. }));
    assert!(matches!(deliver(&*house.maildir, "hung", 2).await, Outcome::Failed(_)));
    house.gate.set(None);
    while !matches!(deliver(&*house.maildir, "hung", 2).await, Outcome::Delivered { .. }) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    house.maildir.tidy().await;
    assert_eq!((house.delivered("hung"), house.left("hung")), (1, 0));
}

/// The waits for locks and programs take no thread.
#[tokio::test]
async fn mailboxes_locked_by_others_and_programs_that_hang_keep_no_other_from_its_mail() {
    let dir = tempfile::tempdir().unwrap();
    let pool = DiskPool::new(4);
    let mut options = mbox::Options::new(format!("{}/{{user}}", dir.path().display()).parse().unwrap());
    options.pool = pool.clone();
    let mbox = Arc::new(mbox::Mbox::new(options));
    let mut options = command::Options::new("/bin/sleep", vec!["600".parse().unwrap()]);
    (options.pool, options.concurrency) = (pool.clone(), 4);
    let program = Arc::new(command::Command::new(options));
    let mut waiting = tokio::task::JoinSet::new();
    for user in (0..40).map(|n| format!("locked{n}")) {
        std::fs::write(dir.path().join(format!("{user}.lock")), "1\n").unwrap();
        let (mbox, program) = (mbox.clone(), program.clone());
        let whose = user.clone();
        waiting.spawn(async move { deliver(&*mbox, &whose, 1).await });
        waiting.spawn(async move { deliver(&*program, &user, 1).await });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let house = House::new(LONG);
    let mut options = Options::new("/mail/{user}".parse().unwrap(), "inst");
    (options.pool, options.disk) = (pool, Arc::new(house.disk.clone()));
    let maildir = Maildir::new(options);
    for user in (0..10).map(|n| format!("well{n}")) {
        assert!(matches!(deliver(&*mbox, &user, 1).await, Outcome::Delivered { .. }));
        assert!(matches!(deliver(&maildir, &user, 1).await, Outcome::Delivered { .. }));
    }
    assert_eq!(waiting.len(), 80, "all of them wait still");
    waiting.shutdown().await;
}
