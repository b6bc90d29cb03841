//! What is kept is kept: across crashes, failing disks, damaged files, and for as long as it is to be.

#![allow(clippy::unwrap_used, clippy::or_fun_call, reason = "in a test's helpers a panic is the failure")]

mod common;

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{Fate, NOW, directory, for_both, held, id, message, names, open, open_with};
use connectord_filter::{Quarantine, QuarantineError};
use connectord_mail::{Body, UnixTime};
use connectord_quarantine::{
    DirectoryQuarantine, Faults, OpenError, Options, Query, Sort, Step, Unreadable, read_message,
};

const DAY: u64 = 24 * 3600;

fn octets(body: &dyn Body) -> Vec<u8> {
    let mut octets = vec![0; usize::try_from(body.size_octets()).unwrap()];
    let mut at = 0;
    while at < octets.len() {
        at += body.read_at(at as u64, &mut octets[at..]).unwrap();
    }
    octets
}

#[tokio::test]
async fn what_is_kept_is_there_after_reopening_with_all_that_was_known() {
    let here = directory();
    let path = here.path().join("quarantine");
    let quarantine = open(&path);
    let original = for_both(1);
    quarantine.keep(original.clone()).await.unwrap();
    drop(quarantine);
    let quarantine = open(&path);
    let details = quarantine.details(id(1)).await.unwrap();
    assert_eq!((details.answers, details.viruses), (original.answers, original.viruses));
    assert_eq!(
        (details.reason, details.mailbox, details.reverse_path),
        (original.reason, original.mailbox, original.reverse_path)
    );
    let entry = quarantine.entry(id(1)).unwrap();
    assert_eq!((&*entry.from, &*entry.subject, entry.held_at), ("Ann <ann@x.test>", "Grüße 1", NOW));
    assert_eq!(entry.recipients, [("ann".into(), "ann@here.test".into()), ("bob".into(), "bob@here.test".into())]);
    // Also from outside, while somebody has it.
    assert_eq!(octets(&*read_message(&path, id(1)).unwrap()), message(1).into_bytes());
    assert_eq!(quarantine.problems(), []);
}

#[tokio::test]
async fn it_is_durable_before_it_is_said_to_be() {
    let here = directory();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    let faults = Faults::new(move |step| {
        seen.lock().unwrap().push(step);
        Ok(())
    });
    let quarantine = open_with(&here.path().join("q"), Options { faults, ..Options::default() });
    steps.lock().unwrap().clear();
    quarantine.keep(held(1)).await.unwrap();
    let mut steps = std::mem::take(&mut *steps.lock().unwrap());
    steps.dedup();
    assert_eq!(steps, [Step::Create, Step::Write, Step::SyncFile, Step::Publish, Step::SyncDirectory]);
}

#[tokio::test]
async fn killed_before_any_step_it_is_held_whole_or_not_and_can_be_kept_again() {
    let mut held_whole = 0;
    for step in 1.. {
        let here = directory();
        let path = here.path().join("q");
        drop(open(&path));
        // The opening syncs the directory.
        let fate = Fate::dead_from(step + 1);
        let quarantine = open_with(&path, fate.options());
        let mut large = held(1);
        large.body = Arc::new(Bytes::from("x".repeat(200_000)));
        let kept = quarantine.keep(large.clone()).await;
        assert_eq!(quarantine.entry(id(1)).is_some(), kept.is_ok(), "step {step}");
        drop(quarantine);
        let quarantine = open(&path);
        assert_eq!((names(&path.join("tmp")), quarantine.problems()), (vec![], vec![]), "step {step}");
        let is_held = quarantine.holds(id(1)).await.unwrap();
        assert!(is_held || kept.is_err(), "step {step}");
        if is_held {
            held_whole += 1;
            assert_eq!(octets(&*read_message(&path, id(1)).unwrap()).len(), 200_000);
        }
        quarantine.keep(large).await.unwrap();
        assert_eq!(quarantine.size().0, 1);
        if kept.is_ok() {
            assert!(step > 8, "{step} steps");
            break;
        }
    }
    // Between the rename and the end, too.
    assert_eq!(held_whole, 2);
}

#[tokio::test]
async fn a_step_that_fails_keeps_nothing_and_leaves_nothing_behind() {
    for step in 1.. {
        let here = directory();
        let path = here.path().join("q");
        let fate = Fate::fails_at(step + 1);
        let quarantine = open_with(&path, fate.options());
        let kept = quarantine.keep(held(1)).await;
        if !fate.was_reached() {
            assert_eq!(kept, Ok(()));
            break;
        }
        assert!(
            matches!(&kept, Err(QuarantineError::Failed(text)) if text.contains("keeping a message")),
            "{step}: {kept:?}"
        );
        assert_eq!(quarantine.holds(id(1)).await, Ok(false), "step {step}");
        assert_eq!(
            (names(&path), names(&path.join("tmp"))),
            (vec!["lock".into(), "tmp".into()], vec![]),
            "step {step}"
        );
        assert_eq!(quarantine.size(), (0, 0));
        quarantine.keep(held(1)).await.unwrap();
        assert_eq!(quarantine.size().0, 1);
    }
}

#[tokio::test]
async fn a_full_disk_and_a_full_quarantine_say_so_and_push_nothing_out() {
    let here = directory();
    // ENOSPC
    let faults = Faults::new(|step| if step == Step::Write { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) });
    let full = open_with(&here.path().join("disk"), Options { faults, ..Options::default() });
    let error = full.keep(held(1)).await.unwrap_err();
    assert!(matches!(&error, QuarantineError::Full(text) if text.contains("No space left")), "{error}");

    let few = open_with(&here.path().join("few"), Options { max_messages: 2, ..Options::default() });
    few.keep(held(1)).await.unwrap();
    few.keep(held(2)).await.unwrap();
    // One that is held already needs no more room.
    few.keep(held(2)).await.unwrap();
    let error = few.keep(held(3)).await.unwrap_err();
    assert!(matches!(&error, QuarantineError::Full(text) if text.contains("limit of 2 messages")), "{error}");
    assert!(few.discard(id(1), NOW).await.unwrap());
    few.keep(held(3)).await.unwrap();
    assert_eq!(few.list(&Query::default()).total, 2);

    let small = open_with(&here.path().join("small"), Options { max_octets: 3000, ..Options::default() });
    small.keep(held(1)).await.unwrap();
    let mut large = held(2);
    large.body = Arc::new(Bytes::from("x".repeat(2900)));
    assert!(matches!(small.keep(large).await, Err(QuarantineError::Full(_))));
    assert_eq!(small.list(&Query::default()).total, 1);
}

#[tokio::test]
async fn nobody_else_reads_what_is_held() {
    let here = directory();
    let path = here.path().join("q");
    let quarantine = open(&path);
    quarantine.keep(held(1)).await.unwrap();
    let mode = |name: &str| std::fs::metadata(path.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("."), mode("tmp"), mode(&format!("{}.held", id(1)))), (0o700, 0o700, 0o600));
    drop(quarantine);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    drop(open(&path));
    assert_eq!(mode("."), 0o700);
}

#[tokio::test]
async fn no_symbolic_link_is_followed() {
    let here = directory();
    let (real, link) = (here.path().join("real"), here.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    let refused = DirectoryQuarantine::open(&link, Options::default());
    let Err(error @ OpenError::Directory { .. }) = refused else { panic!("it was followed") };
    assert!(error.to_string().contains("no symbolic link"), "{error}");
    assert_eq!(names(&real), [""; 0]);

    let path = here.path().join("q");
    let quarantine = open(&path);
    quarantine.keep(held(1)).await.unwrap();
    drop(quarantine);
    let name = format!("{}.held", id(1));
    std::fs::rename(path.join(&name), here.path().join("elsewhere")).unwrap();
    symlink(here.path().join("elsewhere"), path.join(&name)).unwrap();
    let quarantine = open(&path);
    assert_eq!((quarantine.size().0, quarantine.problems().len()), (0, 1));
    assert!(read_message(&path, id(1)).is_err());
    // A message of this name takes its place, and does not go where it points to.
    quarantine.keep(held(1)).await.unwrap();
    assert!(path.join(&name).symlink_metadata().unwrap().is_file());
}

#[tokio::test]
async fn torn_damaged_and_foreign_files_are_told_of_and_left_alone() {
    let here = directory();
    let path = here.path().join("q");
    let quarantine = open(&path);
    for number in 1..=6 {
        quarantine.keep(held(number)).await.unwrap();
    }
    drop(quarantine);
    let file = |number: u32| path.join(format!("{}.held", id(number)));
    let change = |number: u32, change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = std::fs::read(file(number)).unwrap();
        change(&mut octets);
        std::fs::write(file(number), octets).unwrap();
    };
    change(1, &|octets| octets.truncate(octets.len() - 1));
    change(2, &|octets| {
        let at = octets.windows(4).position(|four| four == b"info").unwrap();
        octets[at] = b'j';
    });
    change(3, &|octets| {
        let at = octets.windows(7).position(|seven| seven == b"Hello 3").unwrap();
        octets[at] = b'J';
    });
    std::fs::rename(file(4), path.join(format!("{}.held", id(40)))).unwrap();
    change(5, &|octets| octets[22] = b'2');
    std::fs::write(path.join("README\u{1b}[2J"), "no mail").unwrap();
    let before = names(&path);
    let quarantine = open(&path);
    let mut problems: Vec<_> = quarantine.problems().into_iter().map(|problem| (problem.name, problem.why)).collect();
    problems.sort_by(|one, other| one.0.cmp(&other.0));
    let name = |number: u32| format!("{}.held", id(number));
    let mut expected = vec![
        (name(2), Unreadable::Header),
        (name(40), Unreadable::Name(id(4))),
        (name(5), Unreadable::Version("2".into())),
        ("README\u{1b}[2J".into(), Unreadable::Foreign),
    ];
    let length = std::fs::metadata(file(1)).unwrap().len();
    expected.push((name(1), Unreadable::Length { expected: length + 1, is: length }));
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(problems, expected);
    // The damage within a message shows when it is read.
    assert_eq!(
        quarantine.list(&Query::default()).entries.iter().map(|entry| entry.id).collect::<Vec<_>>(),
        [id(6), id(3)]
    );
    assert_eq!(quarantine.holds(id(3)).await, Ok(false));
    assert_eq!(read_message(&path, id(3)).err(), Some(Unreadable::Message));
    assert_eq!(names(&path), before);
    // It comes again from the server.
    quarantine.keep(held(1)).await.unwrap();
    assert_eq!(quarantine.holds(id(1)).await, Ok(true));
}

#[tokio::test]
async fn one_process_has_it_at_a_time() {
    let here = directory();
    let path = here.path().join("q");
    let quarantine = open(&path);
    assert!(matches!(DirectoryQuarantine::open(&path, Options::default()), Err(OpenError::Locked { .. })));
    drop(quarantine);
    open(&path);
}

#[tokio::test]
async fn a_message_is_held_once_whatever_is_kept_again() {
    let here = directory();
    let path = here.path().join("q");
    let quarantine = open(&path);
    quarantine.keep(held(1)).await.unwrap();
    quarantine.keep(held(2)).await.unwrap();
    let again = connectord_filter::Held { reason: "another".into(), ..held(1) };
    quarantine.keep(again).await.unwrap();
    let page = quarantine.list(&Query::default());
    assert_eq!(page.total, 2);
    // In its old place.
    assert_eq!((page.entries[1].id, &*page.entries[1].reason, page.entries[1].serial), (id(1), "another", 1));
    let octets: u64 = (1..=2).map(|n| std::fs::metadata(path.join(format!("{}.held", id(n)))).unwrap().len()).sum();
    assert_eq!(quarantine.size(), (2, octets));
}

/// The disk hangs before a file is durable; whoever waits gives up; the message is kept again and decided about.
#[tokio::test]
async fn what_was_given_up_is_not_held_later_when_somebody_has_decided_about_it() {
    let here = directory();
    let path = here.path().join("q");
    let (hang, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new((Mutex::new(false), Condvar::new())));
    let (first, gate) = (Arc::clone(&hang), Arc::clone(&go_on));
    let faults = Faults::new(move |step| {
        if step == Step::SyncFile && first.swap(false, Ordering::SeqCst) {
            let (is_open, changed) = &*gate;
            let _open = changed.wait_while(is_open.lock().unwrap(), |is_open| !*is_open).unwrap();
        }
        Ok(())
    });
    let quarantine = open_with(&path, Options { faults, ..Options::default() });
    hang.store(true, Ordering::SeqCst);
    let mut given_up = Box::pin(quarantine.keep(held(1)));
    while hang.load(Ordering::SeqCst) {
        let step = tokio::time::timeout(Duration::from_millis(5), &mut given_up).await;
        assert!(step.is_err(), "{step:?}");
    }
    drop(given_up);
    quarantine.keep(held(1)).await.unwrap();
    assert_eq!(quarantine.discard(id(1), NOW).await, Ok(true));
    *go_on.0.lock().unwrap() = true;
    go_on.1.notify_all();
    while !names(&path.join("tmp")).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(quarantine.entry(id(1)).is_none() && !path.join(format!("{}.held", id(1))).exists());
    drop(quarantine);
    assert_eq!(open(&path).list(&Query::default()).total, 0);
}

#[tokio::test]
async fn what_was_found_at_the_start_is_written_anew_before_it_counts_as_held() {
    let here = directory();
    let path = here.path().join("q");
    let quarantine = open(&path);
    quarantine.keep(held(1)).await.unwrap();
    let inode = || std::fs::metadata(path.join(format!("{}.held", id(1)))).unwrap().ino();
    let first = inode();
    assert_eq!(quarantine.holds(id(1)).await, Ok(true));
    assert_eq!(inode(), first);
    drop(quarantine);
    // The sync of the name is what fails.
    let fails = Arc::new(Fate::default());
    let quarantine = open_with(&path, fails.options());
    let syncs = fails.steps.load(Ordering::SeqCst) + 5;
    fails.fails_at.store(syncs, Ordering::SeqCst);
    assert!(quarantine.holds(id(1)).await.is_err());
    assert_ne!(inode(), first);
    assert_eq!(quarantine.holds(id(1)).await, Ok(true));
    assert_eq!(octets(&*read_message(&path, id(1)).unwrap()), message(1).into_bytes());
}

#[tokio::test]
async fn discarded_killed_before_any_step_it_is_held_or_gone_and_once_gone_never_back() {
    for step in 1.. {
        let here = directory();
        let path = here.path().join("q");
        let quarantine = open(&path);
        quarantine.keep(held(1)).await.unwrap();
        quarantine.keep(held(2)).await.unwrap();
        drop(quarantine);
        let fate = Fate::dead_from(step + 1);
        let quarantine = open_with(&path, fate.options());
        let discarded = quarantine.discard(id(1), NOW).await;
        drop(quarantine);
        let quarantine = open(&path);
        let was_noted = path.join(format!("{}.note", id(1))).exists();
        assert_eq!(quarantine.entry(id(1)).is_none(), was_noted, "step {step}");
        assert!(discarded.is_err() || was_noted, "step {step}");
        // Somebody has decided about it, or it is there.
        assert_eq!(quarantine.holds(id(1)).await, Ok(true), "step {step}");
        assert!(quarantine.entry(id(2)).is_some());
        if discarded == Ok(true) {
            assert!(step > 5);
            assert_eq!(quarantine.discard(id(1), NOW).await, Ok(false));
            break;
        }
    }
}

#[tokio::test]
async fn what_was_held_long_enough_goes_and_a_wrong_clock_removes_nothing() {
    let here = directory();
    let path = here.path().join("q");
    let after = |days: u64| NOW.plus(Duration::from_secs(days * DAY));
    let quarantine = open(&path);
    quarantine.keep(held(1)).await.unwrap();
    quarantine.keep(connectord_filter::Held { held_at: after(10), ..held(2) }).await.unwrap();
    // The first look of all has nothing to compare with.
    assert_eq!(quarantine.tidy(after(31)).await.unwrap(), []);
    // Back by ten years, and ahead again by as much.
    assert_eq!(quarantine.tidy(UnixTime(NOW.0 - 3650 * DAY as i64)).await.unwrap(), []);
    assert_eq!(quarantine.tidy(after(31)).await.unwrap(), []);
    drop(quarantine);
    let quarantine = open(&path);
    assert_eq!(quarantine.size().0, 2);
    let gone = quarantine.tidy(after(31)).await.unwrap();
    assert_eq!(gone.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id(1)]);
    drop(quarantine);
    let quarantine = open(&path);
    assert_eq!(quarantine.list(&Query::default()).entries[0].id, id(2));
    // It is remembered for a while that somebody discarded one, and then forgotten.
    assert!(quarantine.discard(id(2), after(31)).await.unwrap());
    for day in 32..=61 {
        quarantine.tidy(after(day)).await.unwrap();
    }
    assert_eq!(quarantine.holds(id(2)).await, Ok(true));
    quarantine.tidy(after(62)).await.unwrap();
    assert_eq!(quarantine.holds(id(2)).await, Ok(false));
    assert_eq!(names(&path), ["clock", "lock", "tmp"]);

    // Kept while the clock was wrong, which NTP then corrected.
    let wrong = open(&here.path().join("wrong"));
    wrong
        .keep(connectord_filter::Held { held_at: UnixTime(60), arrived_at: Some(after(50)), ..held(1) })
        .await
        .unwrap();
    wrong.tidy(after(51)).await.unwrap();
    assert_eq!(wrong.tidy(after(51)).await.unwrap(), []);
    // No date keeps it for longer than it came.
    wrong.keep(connectord_filter::Held { arrived_at: Some(after(3650)), ..held(2) }).await.unwrap();
    assert_eq!(wrong.tidy(after(51)).await.unwrap().len(), 1);

    let for_ever = open_with(&here.path().join("ever"), Options { keep_for: Duration::ZERO, ..Options::default() });
    for_ever.keep(held(1)).await.unwrap();
    for_ever.tidy(after(3649)).await.unwrap();
    assert_eq!(for_ever.tidy(after(3650)).await.unwrap(), []);
}

#[tokio::test]
async fn lists_are_filtered_and_come_in_pages() {
    let here = directory();
    let quarantine = open(&here.path().join("q"));
    for number in 1..=6 {
        let mut held = if number == 2 { for_both(number) } else { held(number) };
        if number == 3 {
            held.viruses = vec!["Eicar".into()];
        }
        held.spam = number != 4;
        if number == 5 {
            held.account = "other@example.org".into();
        }
        quarantine.keep(held).await.unwrap();
    }
    let ids = |query: Query| {
        let page = quarantine.list(&query);
        (page.entries.iter().map(|entry| entry.serial).collect::<Vec<_>>(), page.total)
    };
    let all = Query::default;
    assert_eq!(ids(all()), (vec![6, 5, 4, 3, 2, 1], 6));
    assert_eq!(ids(Query { offset: 1, limit: Some(2), ..all() }), (vec![5, 4], 6));
    assert_eq!(ids(Query { offset: 9, ..all() }), (vec![], 6));
    assert_eq!(ids(Query { user: Some("bob".into()), ..all() }), (vec![2], 1));
    assert_eq!(ids(Query { account: Some("OTHER@example.org".into()), ..all() }), (vec![5], 1));
    assert_eq!(ids(Query { sort: Some(Sort::Virus), ..all() }), (vec![3], 1));
    assert_eq!(ids(Query { sort: Some(Sort::Other), ..all() }), (vec![4], 1));
    assert_eq!(ids(Query { sort: Some(Sort::Spam), limit: Some(0), ..all() }), (vec![], 4));
    assert_eq!(ids(Query { text: Some("GRÜSSE".into()), ..all() }), (vec![], 0));
    assert_eq!(ids(Query { text: Some("GRÜßE 4".into()), ..all() }), (vec![4], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_messages_are_opened_listed_and_counted() {
    // Ten thousand syncs of a real disk would be a test of that.
    let memory = std::path::Path::new("/dev/shm");
    let here = if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { directory() };
    let path = here.path().join("q");
    let quarantine = open(&path);
    for number in 0..10_000 {
        quarantine.keep(held(number)).await.unwrap();
    }
    let size = quarantine.size();
    drop(quarantine);
    let began = std::time::Instant::now();
    let quarantine = open(&path);
    eprintln!("opened in {:?}", began.elapsed());
    assert_eq!((quarantine.size(), quarantine.problems().len()), (size, 0));
    let began = std::time::Instant::now();
    let page =
        quarantine.list(&Query { text: Some("grüße 77".into()), offset: 10, limit: Some(5), ..Query::default() });
    eprintln!("listed in {:?}", began.elapsed());
    assert_eq!((page.entries.len(), page.total), (5, 111));
}
