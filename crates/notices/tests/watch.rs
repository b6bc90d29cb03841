//! What is told and when, by a clock that the test sets.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use connectord_engine::Cause;
use connectord_mail::UnixTime;
use connectord_notices::{Event, Fault, Finding, Kind, Matter, Place, Policy, Subject, Watch};

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// A watch with its own clock, and a memory that survives it.
struct World {
    watch: Watch,
    memory: BTreeMap<String, String>,
    places: BTreeMap<String, Place>,
    policy: Policy,
    now: i64,
}

impl World {
    /// Accounts `a0` and so on, each of a user of its own, at these hosts in turn.
    fn new(accounts: usize, hosts: &[&str]) -> Self {
        let place = |n: usize| Place {
            host: hosts[n % hosts.len()].to_owned(),
            destination: "default".into(),
            users: vec![format!("user{n}")],
        };
        let places: BTreeMap<_, _> = (0..accounts).map(|n| (format!("a{n:04}"), place(n))).collect();
        let policy = Policy::default();
        let mut watch = Watch::default();
        watch.configure(policy.clone(), places.clone());
        Self { watch, memory: BTreeMap::new(), places, policy, now: 1_000_000 }
    }

    fn fails(&mut self, account: usize, cause: Cause) {
        let fault = Fault { cause, user: None, error: format!("{cause:?}"), hint: None, next: None };
        self.ends(account, Finding { fault: Some(fault), ..Finding::default() });
    }

    fn is_well(&mut self, account: usize) {
        self.ends(account, Finding::default());
    }

    fn ends(&mut self, account: usize, finding: Finding) {
        self.watch.observe(&format!("a{account:04}"), &finding, UnixTime(self.now));
    }

    fn pass(&mut self, seconds: i64) {
        self.now += seconds;
    }

    /// What is due, told.
    fn tell(&mut self) -> Vec<Matter> {
        let now = UnixTime(self.now);
        self.watch.tidy(now);
        let due = self.watch.due(now);
        self.watch.told(&due, now);
        self.save();
        assert!(self.watch.due(now).is_empty(), "told once");
        due
    }

    /// As words: the event and the subject of each.
    fn words(&mut self) -> Vec<String> {
        self.tell().iter().map(|matter| format!("{} {}", matter.event.word(), matter.subject)).collect()
    }

    fn save(&mut self) {
        for (key, text) in self.watch.changes() {
            match text {
                Some(text) => self.memory.insert(key, text),
                None => self.memory.remove(&key),
            };
        }
    }

    fn restart(&mut self) {
        self.save();
        self.watch = Watch::new(self.policy.clone(), self.memory.clone().into_iter().collect());
        self.watch.configure(self.policy.clone(), self.places.clone());
    }
}

#[test]
fn a_thousand_accounts_at_one_dead_host_are_one_notice_and_one_word_when_it_is_well() {
    let mut world = World::new(1000, &["imap.example.org"]);
    let mut told = Vec::new();
    for _ in 0..30 {
        (0..1000).for_each(|n| world.fails(n, Cause::NoAnswer));
        told.extend(world.words());
        world.pass(HOUR);
    }
    assert_eq!(told, ["trouble host:imap.example.org"]);
    world.is_well(7);
    assert_eq!(world.words(), ["well host:imap.example.org"]);
    // The others have not been looked at again: that is no new trouble.
    world.pass(MINUTE);
    assert_eq!(world.words(), [""; 0]);
    (0..1000).for_each(|n| world.is_well(n));
    world.pass(10 * DAY);
    assert_eq!(world.words(), [""; 0]);
    assert!(world.memory.is_empty(), "{:?}", world.memory);
}

#[test]
fn a_thousand_accounts_at_a_hundred_hosts_are_a_hundred_matters_and_nothing_before_the_time() {
    let hosts: Vec<String> = (0..100).map(|n| format!("h{n}")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut world = World::new(1000, &hosts);
    (0..1000).for_each(|n| world.fails(n, Cause::NoAnswer));
    world.pass(DAY - 1);
    assert_eq!(world.words(), [""; 0]);
    world.pass(1);
    assert_eq!(world.words().len(), 100);
}

#[test]
fn what_was_told_is_not_told_again_after_a_restart() {
    let mut world = World::new(3, &["h"]);
    world.fails(0, Cause::NoAnswer);
    world.pass(DAY / 2);
    world.restart();
    world.fails(0, Cause::NoAnswer);
    world.pass(DAY / 2);
    assert_eq!(world.words(), ["trouble host:h"], "the time before the restart counts");
    for _ in 0..10 {
        world.restart();
        world.fails(0, Cause::NoAnswer);
        assert_eq!(world.words(), [""; 0]);
    }
    world.restart();
    world.is_well(0);
    assert_eq!(world.words(), ["well host:h"]);
}

#[test]
fn reminders_become_rarer() {
    let mut world = World::new(1, &["h"]);
    let mut days = Vec::new();
    for hour in 0..40 * 24 {
        world.fails(0, Cause::NoAnswer);
        for matter in world.tell() {
            days.push((hour / 24, matter.event.word()));
        }
        world.pass(HOUR);
    }
    let reminder = |day| (day, "reminder");
    assert_eq!(
        days,
        [(1, "trouble"), reminder(2), reminder(4), reminder(8), reminder(15), reminder(22), reminder(29), reminder(36)]
    );
}

#[test]
fn a_refused_login_is_told_when_the_second_try_was_refused_too() {
    let mut world = World::new(1, &["h"]);
    world.fails(0, Cause::LoginRefused);
    world.pass(HOUR + 5 * MINUTE);
    assert_eq!(world.words(), [""; 0]);
    world.fails(0, Cause::LoginRefused);
    let told = world.tell();
    let Event::Trouble(trouble) = &told[0].event else { panic!("{told:?}") };
    assert_eq!((trouble.cause, trouble.since), (Cause::LoginRefused, UnixTime(1_000_000)));
    assert_eq!(told[0].subject, Subject::Account("a0000".into()));
    // A command that is run every five minutes tries more often, which is no reason to tell sooner.
    let mut often = World::new(1, &["h"]);
    for _ in 0..12 {
        often.fails(0, Cause::LoginRefused);
        assert_eq!(often.words(), [""; 0]);
        often.pass(5 * MINUTE);
    }
    often.fails(0, Cause::LoginRefused);
    assert_eq!(often.words(), ["trouble account:a0000"]);
}

#[test]
fn five_accounts_refused_within_an_hour_are_the_hosts_trouble() {
    let mut world = World::new(6, &["h"]);
    for account in 0..5 {
        world.fails(account, Cause::LoginRefused);
        world.pass(10 * MINUTE);
    }
    world.pass(30 * MINUTE);
    world.fails(0, Cause::LoginRefused);
    let told = world.tell();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0].subject, told[0].accounts.len()), (&Subject::Host("h".into()), 5));
    // Others that are refused later belong to it, also after a restart.
    world.pass(5 * HOUR);
    world.restart();
    world.fails(5, Cause::LoginRefused);
    world.pass(3 * HOUR);
    world.fails(5, Cause::LoginRefused);
    assert_eq!(world.words(), [""; 0]);
    // One gets in: the host is well. Who is still refused then has a trouble of their own.
    world.is_well(2);
    assert_eq!(world.words(), ["well host:h"]);
    (0..2).for_each(|account| world.fails(account, Cause::LoginRefused));
    (3..6).for_each(|account| world.is_well(account));
    assert_eq!(world.words(), [""; 0]);
    world.pass(HOUR);
    (0..2).for_each(|account| world.fails(account, Cause::LoginRefused));
    assert_eq!(world.words(), ["trouble account:a0000", "trouble account:a0001"]);
}

#[test]
fn wrong_passwords_among_right_ones_are_not_the_hosts_trouble() {
    let mut world = World::new(50, &["h"]);
    for _ in 0..2 {
        (0..5).for_each(|account| world.fails(account, Cause::LoginRefused));
        world.pass(1);
        (5..50).for_each(|account| world.is_well(account));
        world.pass(HOUR);
    }
    assert_eq!(world.words().len(), 5);
}

#[test]
fn an_account_that_alone_gets_no_answer_is_not_the_hosts_trouble() {
    let mut world = World::new(3, &["h"]);
    let mut told = Vec::new();
    for _ in 0..3 * 24 {
        world.fails(0, Cause::NoAnswer);
        world.pass(MINUTE);
        world.is_well(1);
        world.is_well(2);
        world.pass(HOUR - MINUTE);
        world.fails(0, Cause::NoAnswer);
        told.extend(world.words());
    }
    assert_eq!(told, ["trouble account:a0000", "reminder account:a0000"]);
    world.is_well(0);
    assert_eq!(world.words(), ["well account:a0000"]);
}

#[test]
fn a_host_that_has_just_come_back_is_not_told_about() {
    let mut world = World::new(3, &["h"]);
    (0..3).for_each(|account| world.fails(account, Cause::NoAnswer));
    world.pass(DAY - MINUTE);
    world.is_well(1);
    world.pass(2 * MINUTE);
    assert_eq!(world.words(), [""; 0]);
}

#[test]
fn a_host_that_nobody_asks_is_not_well() {
    let mut world = World::new(2, &["h"]);
    (0..2).for_each(|account| world.fails(account, Cause::NoAnswer));
    world.pass(DAY);
    assert_eq!(world.words(), ["trouble host:h"]);
    world.pass(MINUTE);
    (0..2).for_each(|account| world.fails(account, Cause::DiskFull));
    assert_eq!(world.words(), ["trouble disk"]);
    world.pass(MINUTE);
    world.fails(0, Cause::LoginRefused);
    world.is_well(1);
    assert_eq!(world.words(), ["well host:h", "well disk"]);
}

#[test]
fn a_destination_that_is_down_is_told_once_and_well_when_all_are() {
    let mut world = World::new(400, &["h", "i", "j"]);
    (0..400).for_each(|account| world.fails(account, Cause::DestinationDown));
    assert_eq!(world.words(), [""; 0]);
    world.pass(HOUR);
    assert_eq!(world.words(), ["trouble destination:default"]);
    (0..399).for_each(|account| world.is_well(account));
    assert_eq!(world.words(), [""; 0], "accounts without new mail say nothing about it");
    world.is_well(399);
    assert_eq!(world.words(), ["well destination:default"]);
}

#[test]
fn a_filter_that_is_down_is_told_once_for_the_site_and_well_when_all_are() {
    let mut world = World::new(400, &["h", "i", "j"]);
    (0..400).for_each(|account| world.fails(account, Cause::FilterDown));
    assert_eq!(world.words(), [""; 0]);
    world.pass(HOUR);
    assert_eq!(world.words(), ["trouble filters"]);
    (0..399).for_each(|account| world.is_well(account));
    assert_eq!(world.words(), [""; 0], "one has not asked it since");
    world.is_well(399);
    assert_eq!(world.words(), ["well filters"]);
}

#[test]
fn a_missing_user_is_told_as_the_user_and_many_as_the_destination() {
    let mut world = World::new(8, &["h"]);
    world.places.insert("a0001".into(), Place { users: vec!["user0".into()], ..world.places["a0001"].clone() });
    world.watch.configure(world.policy.clone(), world.places.clone());
    (0..2).for_each(|account| world.fails(account, Cause::UserGone));
    world.pass(HOUR);
    let told = world.tell();
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0].subject, told[0].accounts.len()), (&Subject::User("user0".into()), 2));
    // A file system that is not mounted: everybody is missing.
    let mut world = World::new(300, &["h"]);
    (0..300).for_each(|account| world.fails(account, Cause::UserGone));
    world.pass(HOUR);
    assert_eq!(world.words(), ["trouble destination:default"]);
}

#[test]
fn a_full_disk_is_told_at_once_for_all() {
    let mut world = World::new(100, &["h"]);
    (0..100).for_each(|account| world.fails(account, Cause::DiskFull));
    assert_eq!(world.words(), ["trouble disk"]);
    (0..100).for_each(|account| world.is_well(account));
    assert_eq!(world.words(), ["well disk"]);
}

#[test]
fn parked_messages_and_changes_are_told_at_once_and_then_at_most_daily() {
    let mut world = World::new(2, &["h"]);
    let parked = || Finding { parked: true, changes: vec!["renumbered".into()], ..Finding::default() };
    world.ends(0, parked());
    assert_eq!(world.words(), ["parked account:a0000", "changed account:a0000"]);
    for hour in 1..48 {
        world.pass(HOUR);
        world.ends(0, parked());
        if hour % 7 == 0 {
            world.restart();
        }
        let expected: &[&str] = if hour == 24 { &["parked account:a0000", "changed account:a0000"] } else { &[] };
        assert_eq!(world.words(), expected, "hour {hour}");
    }
}

#[test]
fn an_account_that_fails_for_another_reason_is_told_again_but_not_as_well() {
    let mut world = World::new(1, &["h"]);
    world.fails(0, Cause::LoginRefused);
    world.pass(2 * HOUR);
    assert_eq!(world.words(), ["trouble account:a0000"]);
    world.fails(0, Cause::NoAnswer);
    world.pass(23 * HOUR);
    assert_eq!(world.words(), [""; 0]);
    world.fails(0, Cause::NoAnswer);
    world.pass(HOUR);
    assert_eq!(world.words(), ["trouble host:h"]);
    world.is_well(0);
    assert_eq!(world.words(), ["well account:a0000", "well host:h"]);
}

#[test]
fn what_is_left_out_is_not_told_and_not_kept() {
    let mut world = World::new(2, &["h"]);
    world.policy.leave_out = [Kind::Well, Kind::Parked, Kind::Reminder].into();
    world.policy.after = Duration::from_secs(120);
    world.watch.configure(world.policy.clone(), world.places.clone());
    world.ends(1, Finding { parked: true, ..Finding::default() });
    world.fails(0, Cause::LoginRefused);
    world.pass(240);
    assert_eq!(world.words(), ["trouble account:a0000"], "after two minutes, as `after` says");
    world.pass(3 * DAY);
    assert_eq!(world.words(), [""; 0]);
    world.is_well(0);
    assert_eq!(world.words(), [""; 0]);
    assert!(world.memory.is_empty(), "{:?}", world.memory);
}

#[test]
fn accounts_that_are_configured_no_more_are_forgotten_without_a_word() {
    let mut world = World::new(2, &["h"]);
    world.fails(0, Cause::LoginRefused);
    world.fails(1, Cause::NoAnswer);
    world.pass(DAY);
    assert_eq!(world.words().len(), 2);
    world.places.clear();
    world.watch.configure(world.policy.clone(), world.places.clone());
    assert_eq!(world.words(), [""; 0]);
    assert!(world.memory.is_empty(), "{:?}", world.memory);
}

#[test]
fn a_memory_that_cannot_be_read_is_forgotten() {
    let rows = ["failing a0000", "told host:h", "told nonsense", "news a0000"];
    let mut watch = Watch::new(Policy::default(), rows.map(|key| (key.to_owned(), "{".to_owned())).into());
    assert_eq!(
        watch.changes(),
        rows.map(|key| (key.to_owned(), None)).into_iter().collect::<BTreeMap<_, _>>().into_iter().collect::<Vec<_>>()
    );
    assert!(watch.due(UnixTime(0)).is_empty());
}

#[test]
fn a_clock_that_goes_back_tells_nothing_and_forgets_nothing() {
    let mut world = World::new(1, &["h"]);
    world.fails(0, Cause::NoAnswer);
    world.pass(DAY);
    assert_eq!(world.words().len(), 1);
    world.pass(-10 * DAY);
    world.fails(0, Cause::NoAnswer);
    assert_eq!(world.words(), [""; 0]);
}
