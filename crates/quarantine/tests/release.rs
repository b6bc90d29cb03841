//! A release delivers once, whatever cuts it short, and no more than was wanted.

#![allow(clippy::unwrap_used, clippy::or_fun_call, reason = "in a test's helpers a panic is the failure")]

mod common;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use common::{Fate, NOW, directory, for_both, held, id, message, names, open, open_with};
use connectord_deliveries::maildir::{Maildir, Options};
use connectord_delivery::{
    BatchLimits, Delivery, Failure, FailureKind, Note, Outcome, Parcel, Prepared, Presence, RecallRow, Recalled,
    Recipient,
};
use connectord_filter::{Class, Held, Quarantine, QuarantineError, Teacher, Unchecked, Why};
use connectord_mail::Body;
use connectord_quarantine::{DirectoryQuarantine, Release, ReleaseError};

fn maildir(at: &Path) -> Arc<dyn Delivery> {
    let path = format!("{}/{{user}}/Maildir", at.display());
    Arc::new(Maildir::new(Options::new(path.parse().unwrap(), "instance")))
}

fn home(at: &Path, user: &str) {
    std::fs::create_dir_all(at.join(user)).unwrap();
}

/// The messages of a user, as they are in the Maildir.
fn mail(at: &Path, user: &str) -> Vec<String> {
    let read = |sub: &str| -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(at.join(user).join("Maildir").join(sub)) else { return Vec::new() };
        entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    };
    [read("new"), read("cur")].concat()
}

/// What is left of the only message that was held.
fn left() -> Vec<String> {
    let mut left = vec![format!("{}.note", id(1)), "lock".into(), "tmp".into()];
    left.sort();
    left
}

#[tokio::test]
async fn what_is_released_arrives_as_it_came_and_is_held_no_longer() {
    let here = directory();
    home(here.path(), "ann");
    let path = here.path().join("q");
    let quarantine = open(&path);
    quarantine.keep(held(1)).await.unwrap();
    let released = quarantine.release(id(1), &*maildir(here.path()), &Release::at(NOW)).await.unwrap();
    assert!(released.done && released.copies[0].outcome.is_ok() && released.taught.is_none(), "{released:?}");
    let mail = mail(here.path(), "ann");
    let fields = format!(
        "Return-Path: <ann@x.test>\nDelivered-To: ann@here.test\nX-Connectord-Released: {NOW}\nX-Connectord-Id: 1\n\
         X-Connectord-Filter: rspamd; checked\n"
    );
    assert_eq!(mail, [format!("{fields}{}", message(1).replace("\r\n", "\n"))]);
    assert_eq!(names(&path), left());
    let again = quarantine.release(id(1), &*maildir(here.path()), &Release::at(NOW)).await;
    assert_eq!(again, Err(ReleaseError::NotHeld));
}

#[tokio::test]
async fn marks_and_viruses_go_out_only_at_a_persons_word() {
    let here = directory();
    home(here.path(), "ann");
    let quarantine = open(&here.path().join("q"));
    let infected = Held { viruses: vec!["Eicar\u{1b}[2J".into()], ..held(1) };
    quarantine.keep(infected).await.unwrap();
    let delivery = maildir(here.path());
    let refused = quarantine.release(id(1), &*delivery, &Release::at(NOW)).await;
    assert_eq!(refused, Err(ReleaseError::Infected { viruses: vec!["Eicar\\x1b[2J".into()] }));
    assert_eq!(mail(here.path(), "ann"), [""; 0]);
    let release = Release { infected: true, marked: true, ..Release::at(NOW) };
    assert!(quarantine.release(id(1), &*delivery, &release).await.unwrap().done);
    let mail = mail(here.path(), "ann").remove(0);
    for part in ["X-Spam: Yes\n", "X-Spam-Flag: YES\n", "Subject: [SPAM] =?utf-8?Q?Gr=C3=BC=C3=9Fe?= 1\n"] {
        assert!(mail.contains(part), "{part} in {mail}");
    }
}

/// A destination that can be asked for everything, and that may be as good as dead at each step of its own.
struct Mortal {
    inner: Arc<dyn Delivery>,
    fate: Arc<Fate>,
}

impl Mortal {
    /// One more step of this process, or none ever again.
    async fn lives(&self) {
        if !self.fate.goes_on() {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Delivery for Mortal {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn limits(&self) -> BatchLimits {
        self.inner.limits()
    }

    async fn presence(&self, recipient: &Recipient) -> Result<Presence, Failure> {
        self.inner.presence(recipient).await
    }

    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        self.lives().await;
        let batch = MortalBatch { inner: Some(self.inner.prepare(batch).await), fate: Arc::clone(&self.fate) };
        self.lives().await;
        Box::new(batch)
    }

    async fn settled(&self, notes: &[Note]) {
        self.lives().await;
        self.inner.settled(notes).await;
    }

    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        self.lives().await;
        let recalled = self.inner.recall(rows).await;
        self.lives().await;
        recalled
    }
}

struct MortalBatch {
    inner: Option<Box<dyn Prepared>>,
    fate: Arc<Fate>,
}

#[async_trait]
impl Prepared for MortalBatch {
    fn notes(&self) -> &[Result<Option<Note>, Failure>] {
        self.inner.as_ref().unwrap().notes()
    }

    async fn complete(mut self: Box<Self>) -> Vec<Outcome> {
        if !self.fate.goes_on() {
            std::future::pending::<()>().await;
        }
        let outcomes = self.inner.take().unwrap().complete().await;
        if !self.fate.goes_on() {
            std::future::pending::<()>().await;
        }
        outcomes
    }
}

impl Drop for MortalBatch {
    fn drop(&mut self) {
        // The dead undo nothing.
        if self.fate.is_dead() {
            std::mem::forget(self.inner.take());
        }
    }
}

/// What a reader of mail takes away, and what is left.
#[derive(Default)]
struct Got(Vec<String>);

impl Got {
    fn take(&mut self, at: &Path, user: &str) {
        let new = at.join(user).join("Maildir/new");
        for entry in std::fs::read_dir(new).into_iter().flatten() {
            let path = entry.unwrap().path();
            self.0.push(std::fs::read_to_string(&path).unwrap());
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// Waits for a release, or until nothing of it goes on any more.
async fn until_death<T>(fate: &Fate, work: impl Future<Output = T>) -> Option<T> {
    let dead = async {
        while !fate.is_dead() {
            tokio::task::yield_now().await;
        }
        // What was asked of the disk's threads before fails by now, or is done.
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    };
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => Some(done),
        () = dead => None,
    }
}

async fn walk(reader: bool, second: usize) -> usize {
    for step in 1.. {
        let here = directory();
        let at = here.path().to_owned();
        for user in ["ann", "bob"] {
            home(&at, user);
        }
        let path = at.join("q");
        let quarantine = open(&path);
        quarantine.keep(for_both(1)).await.unwrap();
        drop(quarantine);
        let mut got = (Got::default(), Got::default());
        let mut ended = false;
        // Killed at this step, then perhaps once more, then left alone.
        for dead_from in [step + 1, second] {
            let fate = Fate::dead_from(dead_from);
            let quarantine = open_with(&path, fate.options());
            let mortal = Mortal { inner: maildir(&at), fate: Arc::clone(&fate) };
            let released = until_death(&fate, quarantine.release(id(1), &mortal, &Release::at(NOW))).await;
            ended = matches!(&released, Some(Ok(released)) if released.done);
            drop(quarantine);
            if reader {
                got.0.take(&at, "ann");
                got.1.take(&at, "bob");
            }
            if second == 0 || ended {
                break;
            }
        }
        // The next start looks first, and sweeps then, as the program does.
        let quarantine = open(&path);
        let delivery = maildir(&at);
        quarantine.recover(|name| (name == "default").then(|| Arc::clone(&delivery)), NOW).await;
        let users = ["ann", "bob"].map(|user| Recipient { user: user.into(), address: format!("{user}@here.test") });
        delivery.sweep(&users, &[]).await;
        match quarantine.release(id(1), &*delivery, &Release::at(NOW)).await {
            Ok(released) => assert!(released.done, "step {step}: {released:?}"),
            Err(error) => assert_eq!(error, ReleaseError::NotHeld, "step {step}"),
        }
        got.0.0.extend(mail(&at, "ann"));
        got.1.0.extend(mail(&at, "bob"));
        for (user, got) in [("ann", &got.0.0), ("bob", &got.1.0)] {
            assert_eq!(got.len(), 1, "step {step}: {user} got {got:#?}");
            assert!(got[0].ends_with("Hello 1\n") && !got[0].contains("X-Connectord-Attempt"), "{}", got[0]);
            assert_eq!(names(&at.join(user).join("Maildir/tmp")), [""; 0], "step {step}");
        }
        assert_eq!(names(&path), left(), "step {step}");
        if ended {
            return step;
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_a_release_into_a_maildir_comes_once_for_each() {
    let steps = walk(false, 0).await;
    assert!(steps > 20, "{steps}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_it_comes_once_though_a_reader_takes_it_away() {
    walk(true, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_and_again_when_it_is_looked_into_it_comes_once() {
    for second in [3, 5, 7, 9] {
        walk(true, second).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_step_fails_a_release_that_is_tried_again_comes_once_for_each() {
    for step in 1.. {
        let here = directory();
        for user in ["ann", "bob"] {
            home(here.path(), user);
        }
        let path = here.path().join("q");
        let quarantine = open(&path);
        quarantine.keep(for_both(1)).await.unwrap();
        drop(quarantine);
        let fate = Fate::fails_at(step + 1);
        let quarantine = open_with(&path, fate.options());
        let delivery = maildir(here.path());
        for _ in 0..2 {
            match quarantine.release(id(1), &*delivery, &Release::at(NOW)).await {
                Ok(released) => assert!(released.done, "step {step}: {released:?}"),
                Err(ReleaseError::NotHeld) => {}
                Err(ReleaseError::Quarantine(_)) => assert!(fate.was_reached()),
                Err(error) => panic!("step {step}: {error}"),
            }
        }
        for user in ["ann", "bob"] {
            assert_eq!(mail(here.path(), user).len(), 1, "step {step}: {user}");
        }
        assert!(quarantine.entry(id(1)).is_none(), "step {step}");
        drop(quarantine);
        let quarantine = open(&path);
        assert_eq!((quarantine.size(), names(&path)), ((0, 0), left()), "step {step}");
        if !fate.was_reached() {
            assert!(step > 15, "{step}");
            break;
        }
    }
}

/// A destination that cannot be asked afterwards.
#[derive(Default)]
struct Deaf {
    got: Mutex<Vec<(String, u32, String)>>,
    /// What it says to users of these names.
    answers: Mutex<Vec<(String, Outcome)>>,
}

#[async_trait]
impl Delivery for Deaf {
    fn describe(&self) -> String {
        "deaf".into()
    }

    fn limits(&self) -> BatchLimits {
        BatchLimits { parcels: 1, ..BatchLimits::default() }
    }

    async fn presence(&self, _: &Recipient) -> Result<Presence, Failure> {
        Ok(Presence::Here)
    }

    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        assert_eq!(batch.len(), 1);
        let mut answers = self.answers.lock().unwrap();
        let mut outcomes = Vec::new();
        for parcel in batch {
            let trace = String::from_utf8(parcel.trace.to_vec()).unwrap();
            self.got.lock().unwrap().push((parcel.recipient.user.clone(), parcel.attempt, trace));
            let at = answers.iter().position(|(user, _)| *user == parcel.recipient.user);
            outcomes
                .push(at.map_or(Outcome::Delivered { detail: "250 2.0.0 Saved".into() }, |at| answers.remove(at).1));
        }
        Box::new(DeafBatch(vec![Ok(None)], outcomes))
    }

    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        rows.iter().map(|_| Recalled::Unknown).collect()
    }
}

struct DeafBatch(Vec<Result<Option<Note>, Failure>>, Vec<Outcome>);

#[async_trait]
impl Prepared for DeafBatch {
    fn notes(&self) -> &[Result<Option<Note>, Failure>] {
        &self.0
    }

    async fn complete(self: Box<Self>) -> Vec<Outcome> {
        self.1
    }
}

fn refused(text: &str) -> Failure {
    Failure::new(FailureKind::Transient, text)
}

#[tokio::test]
async fn who_has_it_does_not_get_it_again_when_another_fails() {
    let here = directory();
    let path = here.path().join("q");
    let quarantine = open(&path);
    quarantine.keep(for_both(1)).await.unwrap();
    let deaf = Deaf::default();
    deaf.answers.lock().unwrap().push(("bob".into(), Outcome::Failed(refused("451 later"))));
    let released = quarantine.release(id(1), &deaf, &Release::at(NOW)).await.unwrap();
    assert!(!released.done && released.copies[0].outcome.is_ok());
    assert_eq!(released.copies[1].outcome, Err(refused("451 later")));
    assert!(quarantine.entry(id(1)).unwrap().releasing);
    drop(quarantine);
    let quarantine = open(&path);
    assert!(quarantine.entry(id(1)).unwrap().releasing);
    assert_eq!(
        quarantine.details(id(1)).await.unwrap().release,
        [("ann".into(), "delivered"), ("bob".into(), "waiting")]
    );
    assert!(quarantine.release(id(1), &deaf, &Release::at(NOW)).await.unwrap().done);
    let got: Vec<_> = deaf.got.lock().unwrap().iter().map(|(user, attempt, _)| (user.clone(), *attempt)).collect();
    assert_eq!(got, [("ann".into(), 1), ("bob".into(), 1), ("bob".into(), 1)]);
}

#[tokio::test]
async fn who_comes_later_gets_it_too_and_a_release_that_was_cut_short_does_not_end_without_them() {
    for is_cut_short in [false, true] {
        let here = directory();
        let path = here.path().join("q");
        let quarantine = open(&path);
        quarantine.keep(held(1)).await.unwrap();
        let deaf = Arc::new(Deaf::default());
        deaf.answers.lock().unwrap().push(("ann".into(), Outcome::Unknown(refused("no answer"))));
        assert!(!quarantine.release(id(1), &*deaf, &Release::at(NOW)).await.unwrap().done);
        // For bob as well, as the engine keeps it again.
        quarantine.keep(for_both(1)).await.unwrap();
        let quarantine = if is_cut_short {
            drop(quarantine);
            // Ann has it, and that is as far as it was noted.
            let note = path.join(format!("{}.note", id(1)));
            let text = std::fs::read_to_string(&note).unwrap().replace("\"waiting\"", "\"delivered\"");
            std::fs::write(&note, text).unwrap();
            let quarantine = open(&path);
            quarantine.recover(|_| Some(deaf.clone()), NOW).await;
            quarantine
        } else {
            quarantine
        };
        let last = quarantine.release(id(1), &*deaf, &Release::at(NOW)).await.unwrap();
        let copies: Vec<_> = last.copies.iter().map(|copy| (&*copy.user, copy.outcome.is_ok())).collect();
        assert_eq!((last.done, copies), (true, vec![("ann", true), ("bob", true)]));
        assert!(deaf.got.lock().unwrap().iter().any(|(user, ..)| user == "bob"));
    }
}

#[tokio::test]
async fn what_is_being_released_is_not_kept_again_meanwhile() {
    let here = directory();
    let quarantine = open(&here.path().join("q"));
    quarantine.keep(held(1)).await.unwrap();
    let school = Arc::new(Kept { quarantine: quarantine.clone(), again: Mutex::default() });
    let release = Release { teacher: Some(school.clone()), ..Release::at(NOW) };
    assert!(quarantine.release(id(1), &Deaf::default(), &release).await.unwrap().done);
    let again = school.again.lock().unwrap().take().unwrap();
    assert!(matches!(&again, Err(QuarantineError::Failed(text)) if text.contains("try again later")), "{again:?}");
    assert_eq!(quarantine.keep(for_both(1)).await, Ok(()));
}

/// Keeps the message again while it is released.
struct Kept {
    quarantine: DirectoryQuarantine,
    again: Mutex<Option<Result<(), QuarantineError>>>,
}

#[async_trait]
impl Teacher for Kept {
    async fn learn(&self, _: Arc<dyn Body>, _: Class, _: Instant) -> Result<(), Unchecked> {
        let again = self.quarantine.keep(for_both(1)).await;
        *self.again.lock().unwrap() = Some(again);
        Ok(())
    }
}

#[tokio::test]
async fn a_destination_that_cannot_be_asked_gets_it_again_and_is_told_so() {
    let here = directory();
    let path = here.path().join("q");
    let quarantine = open(&path);
    quarantine.keep(held(1)).await.unwrap();
    let deaf = Deaf::default();
    deaf.answers.lock().unwrap().push(("ann".into(), Outcome::Unknown(refused("no answer"))));
    let first = quarantine.release(id(1), &deaf, &Release::at(NOW)).await.unwrap();
    assert_eq!((first.done, first.copies[0].uncertain), (false, 1));
    drop(quarantine);
    // Killed between its answer and the note of it.
    let fate = Arc::new(Fate::default());
    let quarantine = open_with(&path, fate.options());
    // Opening, the note before (create, write, sync, rename, sync), and no more.
    fate.dead_from.store(fate.steps.load(Ordering::SeqCst) + 6, Ordering::SeqCst);
    assert!(quarantine.release(id(1), &deaf, &Release::at(NOW)).await.is_err());
    drop(quarantine);
    let quarantine = open(&path);
    let last = quarantine.release(id(1), &deaf, &Release::at(NOW)).await.unwrap();
    assert_eq!((last.done, last.copies[0].uncertain), (true, 2));
    let got = deaf.got.lock().unwrap();
    assert_eq!(got.iter().map(|(_, attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(got[2].2.starts_with("X-Connectord-Attempt: 3\r\nX-Connectord-Released: "), "{}", got[2].2);
}

#[tokio::test]
async fn a_note_that_cannot_be_read_means_that_it_may_have_arrived() {
    let here = directory();
    home(here.path(), "ann");
    let path = here.path().join("q");
    let quarantine = open(&path);
    quarantine.keep(held(1)).await.unwrap();
    std::fs::write(path.join(format!("{}.note", id(1))), "{").unwrap();
    let released = quarantine.release(id(1), &*maildir(here.path()), &Release::at(NOW)).await.unwrap();
    assert_eq!((released.done, released.copies[0].uncertain), (true, 1));
    assert!(mail(here.path(), "ann")[0].contains("X-Connectord-Attempt: 2\n"));
}

#[tokio::test]
async fn a_damaged_message_is_not_released() {
    let here = directory();
    let path = here.path().join("q");
    let quarantine = open(&path);
    quarantine.keep(held(1)).await.unwrap();
    let file = path.join(format!("{}.held", id(1)));
    let mut octets = std::fs::read(&file).unwrap();
    let at = octets.len() - 80;
    octets[at] ^= 1;
    std::fs::write(&file, octets).unwrap();
    let deaf = Deaf::default();
    let refused = quarantine.release(id(1), &deaf, &Release::at(NOW)).await;
    assert!(matches!(refused, Err(ReleaseError::Damaged(_))), "{refused:?}");
    assert_eq!(deaf.got.lock().unwrap().len(), 0);
    assert_eq!(quarantine.problems().len(), 1);
}

#[derive(Default)]
struct School(Mutex<Vec<(Class, u64)>>, bool);

#[async_trait]
impl Teacher for School {
    async fn learn(&self, body: Arc<dyn Body>, class: Class, deadline: Instant) -> Result<(), Unchecked> {
        assert!(deadline > Instant::now());
        self.0.lock().unwrap().push((class, body.size_octets()));
        if self.1 { Ok(()) } else { Err(Unchecked::new(Why::Unavailable, "nobody is there")) }
    }
}

#[tokio::test]
async fn a_filter_learns_from_what_was_delivered_and_its_failure_stops_nothing() {
    for learns in [true, false] {
        let here = directory();
        let quarantine = open(&here.path().join("q"));
        quarantine.keep(held(1)).await.unwrap();
        let school = Arc::new(School(Mutex::default(), learns));
        let deaf = Deaf::default();
        deaf.answers.lock().unwrap().push(("ann".into(), Outcome::Failed(refused("451 later"))));
        let release = Release { teacher: Some(school.clone()), ..Release::at(NOW) };
        let first = quarantine.release(id(1), &deaf, &release).await.unwrap();
        assert_eq!((first.done, first.taught), (false, None));
        let second = quarantine.release(id(1), &deaf, &release).await.unwrap();
        assert_eq!((second.done, second.taught.map(|taught| taught.is_ok())), (true, Some(learns)));
        assert_eq!(*school.0.lock().unwrap(), [(Class::Ham, message(1).len() as u64)]);
        assert!(quarantine.entry(id(1)).is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_who_decide_at_once_decide_once() {
    let here = directory();
    home(here.path(), "ann");
    let quarantine = open(&here.path().join("q"));
    quarantine.keep(held(1)).await.unwrap();
    let delivery = maildir(here.path());
    let release = Release::at(NOW);
    let all = [0; 8].map(|_| quarantine.release(id(1), &*delivery, &release));
    let [a, b, c, d, e, f, g, h] = all;
    let (a, b, c, d, e, f, g, h, gone) = tokio::join!(a, b, c, d, e, f, g, h, quarantine.discard(id(1), NOW));
    let done = [a, b, c, d, e, f, g, h].into_iter().filter(|one| one.as_ref().is_ok_and(|one| one.done)).count();
    assert_eq!(done, 1);
    assert!(matches!(gone, Ok(false) | Err(QuarantineError::Failed(_))), "{gone:?}");
    assert_eq!(mail(here.path(), "ann").len(), 1);
}
