//! What every [`Trail`] with its [`Recorder`] does.

use std::sync::Arc;

use connectord_account::Key;
use connectord_mail::{DeliveryId, Identity, UnixTime};

use super::{NOW, later};
use crate::{
    About, HourRow, MAX_STEPS, Of, Recorder, TallyBy, Trail, TrailEntry, TrailId, TrailKey, TrailName, TrailPage,
    TrailQuery, TrailRow, TrailState, TrailStep, What,
};

/// Runs each check on a trail that `fresh` has made: an empty one. `written` resolves when all is written that was recorded.
pub async fn trail<T: Trail + Recorder>(fresh: impl AsyncFn() -> T, written: impl AsyncFn(&T)) {
    macro_rules! run {
        ($($check:ident),* $(,)?) => {$(
            eprintln!("battery: {}", stringify!($check));
            $check(&fresh().await, &written).await;
        )*};
    }
    run![
        a_message_is_found_with_all_that_happened_to_it,
        the_worst_for_any_recipient_counts_and_a_new_attempt_begins_anew,
        spam_is_told_from_other_mail_until_the_next_attempt,
        what_was_kept_back_is_known_by_its_identity,
        of_what_nobody_told_what_it_is_nothing_is_kept,
        texts_and_steps_are_bounded,
        a_text_is_found_in_whatever_field_case_aside,
        each_filter_leaves_what_it_asks_for,
        pages_follow_each_other_and_miss_nothing,
        hours_are_counted_for_all_for_an_account_and_for_a_user,
        what_was_delivered_is_told_by_account_and_by_user,
    ];
}

fn key(account: &str, uid: u32) -> TrailKey {
    TrailKey { account: account.into(), mailbox: "INBOX".into(), uid_validity: 7, key: Key::Uid(uid), generation: 0 }
}

fn id(account: &str, uid: u32) -> DeliveryId {
    let key = uid.to_be_bytes();
    DeliveryId::new(Identity { account, mailbox: "INBOX", uid_validity: 7, key: &key, generation: 0 })
}

fn about(account: &str, uid: u32, subject: &str) -> About {
    About {
        delivery: id(account, uid),
        on_server: uid.to_string(),
        subject: subject.to_owned(),
        from: "Bob <bob@shop.test>".to_owned(),
        message_id: format!("<{uid}@shop.test>"),
        users: Arc::new(["ann".to_owned()]),
        octets: 100,
        seen_at: NOW,
    }
}

fn step(what: What, who: &str) -> TrailStep {
    TrailStep::new(NOW, what, who, "")
}

/// What is recorded first of a message.
fn retrieved(account: &str, uid: u32, subject: &str) -> TrailEntry {
    TrailEntry {
        name: TrailName::Key(key(account, uid)),
        at: later(1),
        about: Some(Box::new(about(account, uid, subject))),
        steps: vec![step(What::Seen, ""), step(What::Retrieved, "")],
    }
}

fn then(account: &str, uid: u32, at: UnixTime, steps: &[(What, &str)]) -> TrailEntry {
    let steps = steps.iter().map(|(what, who)| step(*what, who)).collect();
    TrailEntry { name: TrailName::Key(key(account, uid)), at, about: None, steps }
}

fn all() -> TrailQuery {
    TrailQuery { limit: 100, ..TrailQuery::default() }
}

async fn found<T: Trail>(trail: &T, query: TrailQuery) -> TrailPage {
    trail.messages(&query).await.unwrap()
}

async fn only<T: Trail>(trail: &T) -> TrailRow {
    let page = found(trail, all()).await;
    assert_eq!((page.rows.len(), page.total, page.next), (1, 1, None));
    page.rows.into_iter().next().unwrap()
}

async fn a_message_is_found_with_all_that_happened_to_it<T: Trail + Recorder>(trail: &T, written: &impl AsyncFn(&T)) {
    assert_eq!(found(trail, all()).await, TrailPage::default());
    trail.record(retrieved("ann@x", 1, "Hi"));
    let scored = TrailStep { milli_score: Some(-1_200), milli_limit: Some(6_000), ..step(What::Filter, "rspamd") };
    trail.record(TrailEntry { steps: vec![scored.clone()], ..then("ann@x", 1, later(2), &[]) });
    written(trail).await;
    let delivered = TrailStep::new(NOW, What::Delivered, "ann", "250 2.0.0 Saved");
    trail.record(TrailEntry { steps: vec![delivered.clone()], ..then("ann@x", 1, later(3), &[]) });
    trail.record(then("ann@x", 1, later(4), &[(What::Removed, "")]));
    written(trail).await;
    let row = only(trail).await;
    let wanted = TrailRow {
        id: row.id,
        at: later(4),
        state: TrailState::Delivered,
        removed_at: Some(later(4)),
        maybe_twice: false,
        is_spam: false,
        account: "ann@x".to_owned(),
        mailbox: "INBOX".to_owned(),
        about: about("ann@x", 1, "Hi"),
        milli_score: Some(-1_200),
        milli_limit: Some(6_000),
    };
    assert_eq!(row, wanted);
    let steps = vec![
        TrailStep { at: later(1), ..step(What::Seen, "") },
        TrailStep { at: later(1), ..step(What::Retrieved, "") },
        TrailStep { at: later(2), ..scored },
        TrailStep { at: later(3), ..delivered },
        TrailStep { at: later(4), ..step(What::Removed, "") },
    ];
    assert_eq!(trail.message(row.id).await.unwrap(), Some((wanted, steps)));
    assert_eq!(trail.message(TrailId(row.id.0 + 1)).await.unwrap(), None);
}

async fn the_worst_for_any_recipient_counts_and_a_new_attempt_begins_anew<T: Trail + Recorder>(
    trail: &T,
    written: &impl AsyncFn(&T),
) {
    let state = async |entry| {
        trail.record(entry);
        written(trail).await;
        only(trail).await.state
    };
    assert_eq!(state(retrieved("ann@x", 1, "Hi")).await, TrailState::Retrieved);
    let both = then("ann@x", 1, later(2), &[(What::Deferred, "bob"), (What::Delivered, "ann")]);
    assert_eq!(state(both).await, TrailState::Waiting);
    assert_eq!(state(retrieved("ann@x", 1, "Hi")).await, TrailState::Retrieved);
    assert_eq!(state(then("ann@x", 1, later(3), &[(What::Parked, "bob")])).await, TrailState::Parked);
    // Ann waits, and bob's is for a person all the same.
    assert_eq!(state(then("ann@x", 1, later(3), &[(What::Deferred, "ann")])).await, TrailState::Parked);
    assert_eq!(state(then("ann@x", 1, later(4), &[(What::Retried, "anna")])).await, TrailState::Waiting);
    assert_eq!(state(retrieved("ann@x", 1, "Hi")).await, TrailState::Retrieved);
    let again = then("ann@x", 1, later(5), &[(What::Repeated, "bob"), (What::Delivered, "bob")]);
    assert_eq!(state(again).await, TrailState::Delivered);
    assert!(only(trail).await.maybe_twice);
    assert_eq!(state(then("ann@x", 1, later(6), &[(What::Skipped, "anna")])).await, TrailState::Skipped);
}

async fn spam_is_told_from_other_mail_until_the_next_attempt<T: Trail + Recorder>(
    trail: &T,
    written: &impl AsyncFn(&T),
) {
    trail.record(retrieved("ann@x", 1, "Hi"));
    trail.record(then("ann@x", 1, later(2), &[(What::Filter, "rspamd"), (What::Spam, "")]));
    trail.record(then("ann@x", 1, later(3), &[(What::Delivered, "ann")]));
    written(trail).await;
    let row = only(trail).await;
    assert_eq!((row.state, row.is_spam), (TrailState::Spam, true));
    trail.record(retrieved("ann@x", 1, "Hi"));
    trail.record(then("ann@x", 1, later(4), &[(What::Delivered, "ann")]));
    written(trail).await;
    let row = only(trail).await;
    assert_eq!((row.state, row.is_spam), (TrailState::Delivered, false));
}

async fn what_was_kept_back_is_known_by_its_identity<T: Trail + Recorder>(trail: &T, written: &impl AsyncFn(&T)) {
    for uid in [1, 2] {
        trail.record(retrieved("ann@x", uid, "Hi"));
    }
    trail.record(then("ann@x", 1, later(2), &[(What::Quarantined, "")]));
    written(trail).await;
    let released = |uid| TrailEntry {
        name: TrailName::Delivery(id("ann@x", uid)),
        ..then("ann@x", uid, later(9), &[(What::Released, "ann")])
    };
    trail.record(released(1));
    // Nobody kept this one back.
    trail.record(released(2));
    written(trail).await;
    let states: Vec<_> = found(trail, all()).await.rows.iter().map(|row| (row.state, row.at)).collect();
    assert_eq!(states, [(TrailState::Retrieved, later(1)), (TrailState::Delivered, later(9))]);
    let hours = trail.hours(Of::All, NOW, NOW).await.unwrap();
    assert_eq!((hours[0].quarantined, hours[0].delivered, hours[0].octets), (1, 1, 100));
}

async fn of_what_nobody_told_what_it_is_nothing_is_kept<T: Trail + Recorder>(trail: &T, written: &impl AsyncFn(&T)) {
    trail.record(then("ann@x", 1, later(1), &[(What::Removed, "")]));
    written(trail).await;
    assert_eq!(found(trail, all()).await, TrailPage::default());
}

async fn texts_and_steps_are_bounded<T: Trail + Recorder>(trail: &T, written: &impl AsyncFn(&T)) {
    let long = "ä".repeat(5_000);
    let users: Vec<String> = (0..500).map(|number| format!("u{number}")).collect();
    let about = About { from: long.clone(), users: users.into(), ..about("ann@x", 1, &long) };
    trail.record(TrailEntry { about: Some(Box::new(about)), ..retrieved("ann@x", 1, "") });
    for number in 0..200 {
        let step = TrailStep { who: long.clone(), detail: long.clone(), ..step(What::Deferred, "") };
        trail.record(TrailEntry { steps: vec![step], ..then("ann@x", 1, later(10 + number), &[]) });
    }
    written(trail).await;
    let (row, steps) = trail.message(only(trail).await.id).await.unwrap().unwrap();
    assert!(row.about.subject.len() <= 255 && row.about.from.len() <= 255 && row.about.users.len() <= 32);
    assert!(steps.len() <= MAX_STEPS && steps.iter().all(|step| step.who.len() <= 255 && step.detail.len() <= 500));
    // How it began and how it ended is known all the same.
    assert_eq!((steps[1].what, steps.last().map(|step| step.at)), (What::Retrieved, Some(later(209))));
}

async fn a_text_is_found_in_whatever_field_case_aside<T: Trail + Recorder>(trail: &T, written: &impl AsyncFn(&T)) {
    trail.record(retrieved("ann@x", 1, "Rechnung Nr. \"4711\" für März"));
    let mut other = retrieved("carla@y", 2, "(no subject)");
    if let Some(about) = &mut other.about {
        about.from = "Éric <eric@b.test>".to_owned();
        about.users = Arc::new(["carla".to_owned(), "dora".to_owned()]);
    }
    trail.record(other);
    written(trail).await;
    let uids = async |text: &str| -> Vec<String> {
        let page = found(trail, TrailQuery { text: text.to_owned(), ..all() }).await;
        assert_eq!(page.total, page.rows.len() as u64, "{text}");
        page.rows.into_iter().map(|row| row.about.on_server).collect()
    };
    for text in [
        "rechnung",
        "4711\" FÜR",
        "MÄRZ",
        "bob@SHOP",
        "<1@shop.test>",
        "ann@x",
        " ann ",
        "Rechnung Nr. \"4711\" für März",
    ] {
        assert_eq!(uids(text).await, ["1"], "{text}");
    }
    for text in ["éric", "DORA", "no subject)", "carla@y"] {
        assert_eq!(uids(text).await, ["2"], "{text}");
    }
    for text in ["", " ", "o", "SH", "@shop.test"] {
        assert_eq!(uids(text).await, ["2", "1"], "{text}");
    }
    for text in ["4712", "%", "_", "*", "rechnung AND nr", "bob\nshop", "\\", "annx", "zz"] {
        assert_eq!(uids(text).await, [""; 0], "{text}");
    }
}

async fn each_filter_leaves_what_it_asks_for<T: Trail + Recorder>(trail: &T, written: &impl AsyncFn(&T)) {
    trail.record(retrieved("ann@x", 1, "first"));
    trail.record(then("ann@x", 1, later(2), &[(What::Delivered, "ann"), (What::Removed, "")]));
    trail.record(retrieved("bob@x", 2, "second"));
    trail.record(then("bob@x", 2, later(2), &[(What::Repeated, "ann"), (What::Delivered, "ann")]));
    let mut third = retrieved("bob@x", 3, "third");
    if let Some(about) = &mut third.about {
        (about.users, about.seen_at) = (Arc::new(["anna".to_owned(), "bob".to_owned()]), later(7200));
    }
    trail.record(third);
    trail.record(then("bob@x", 3, later(7300), &[(What::Parked, "bob")]));
    written(trail).await;
    let uids = async |query: TrailQuery| -> Vec<String> {
        found(trail, query).await.rows.into_iter().map(|row| row.about.on_server).collect()
    };
    let state = |state| TrailQuery { state: Some(state), ..all() };
    assert_eq!(uids(state(TrailState::Delivered)).await, ["2", "1"]);
    assert_eq!(uids(state(TrailState::Parked)).await, ["3"]);
    assert_eq!(uids(state(TrailState::Spam)).await, [""; 0]);
    assert_eq!(uids(TrailQuery { removed: true, ..all() }).await, ["1"]);
    assert_eq!(uids(TrailQuery { maybe_twice: true, ..all() }).await, ["2"]);
    let of = |account: &str| TrailQuery { account: Some(account.to_owned()), ..all() };
    assert_eq!(uids(of("Bob@X")).await, ["3", "2"]);
    assert_eq!(uids(of("nobody@x")).await, [""; 0]);
    assert_eq!(uids(TrailQuery { text: "sec".to_owned(), ..of("bob@x") }).await, ["2"]);
    assert_eq!(uids(TrailQuery { state: Some(TrailState::Parked), ..of("bob@x") }).await, ["3"]);
    let user = |user: &str| TrailQuery { user: Some(user.to_owned()), ..all() };
    assert_eq!(uids(user("ann")).await, ["2", "1"]);
    assert_eq!(uids(user("anna")).await, ["3"]);
    assert_eq!(uids(TrailQuery { account: Some("ann@x".to_owned()), ..user("bob") }).await, [""; 0]);
    let since = |seconds| TrailQuery { since: Some(later(seconds)), ..all() };
    assert_eq!(uids(since(0)).await, ["3", "2", "1"]);
    assert_eq!(uids(since(1)).await, ["3"]);
    assert_eq!(uids(since(7201)).await, [""; 0]);
    assert_eq!(uids(since(100_000)).await, [""; 0]);
}

async fn pages_follow_each_other_and_miss_nothing<T: Trail + Recorder>(trail: &T, written: &impl AsyncFn(&T)) {
    for uid in 0..1_500 {
        let subject = if uid % 3 == 0 { "third one" } else { "another" };
        trail.record(retrieved("ann@x", uid, subject));
        if uid % 400 == 0 {
            written(trail).await;
        }
    }
    written(trail).await;
    for (text, wanted) in [("", 1_500), ("third", 500), ("th", 1_500)] {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let query = TrailQuery { text: text.to_owned(), before, limit: 70, ..TrailQuery::default() };
            let page = found(trail, query).await;
            assert_eq!(page.total, TrailPage::COUNTED.min(wanted), "{text}");
            seen.extend(page.rows.iter().map(|row| row.id));
            before = page.next;
            if before.is_none() {
                break;
            }
            assert_eq!(page.rows.len(), 70);
        }
        assert!(seen.len() as u64 == wanted && seen.is_sorted_by(|a, b| a > b), "{text}: {}", seen.len());
    }
}

async fn hours_are_counted_for_all_for_an_account_and_for_a_user<T: Trail + Recorder>(
    trail: &T,
    written: &impl AsyncFn(&T),
) {
    let hour = HourRow::SECONDS;
    for (account, uid, at, steps) in [
        ("ann@x", 1, 0, &[(What::Delivered, "ann"), (What::Delivered, "bob")][..]),
        ("ann@x", 2, hour - 1, &[(What::Spam, ""), (What::Delivered, "ann")]),
        ("bob@x", 3, hour, &[(What::Delivered, "bob")]),
        ("bob@x", 4, 2 * hour, &[(What::Quarantined, "")]),
    ] {
        trail.record(retrieved(account, uid, "Hi"));
        trail.record(then(account, uid, later(at), steps));
    }
    // What happens to it later counts no second time.
    trail.record(then("ann@x", 1, later(hour), &[(What::Removed, "")]));
    written(trail).await;
    let counts = async |of| -> Vec<(i64, u64, u64, u64, u64)> {
        let hours = trail.hours(of, later(0), later(2 * hour)).await.unwrap();
        hours
            .iter()
            .map(|row| ((row.at.0 - NOW.0) / hour, row.delivered, row.spam, row.quarantined, row.octets))
            .collect()
    };
    assert_eq!(counts(Of::All).await, [(0, 1, 1, 0, 200), (1, 1, 0, 0, 100), (2, 0, 0, 1, 0)]);
    assert_eq!(counts(Of::Account("Bob@x")).await, [(0, 0, 0, 0, 0), (1, 1, 0, 0, 100), (2, 0, 0, 1, 0)]);
    assert_eq!(counts(Of::User("bob")).await, [(0, 1, 0, 0, 100), (1, 1, 0, 0, 100), (2, 0, 0, 0, 0)]);
    let long = trail.hours(Of::All, UnixTime(i64::MIN), UnixTime(i64::MAX)).await.unwrap();
    assert!(long.len() <= HourRow::MOST);
}

async fn what_was_delivered_is_told_by_account_and_by_user<T: Trail + Recorder>(trail: &T, written: &impl AsyncFn(&T)) {
    for (account, uid, at) in [("ann@x", 1, 0), ("ann@x", 2, 7200), ("bob@x", 3, 7300)] {
        trail.record(retrieved(account, uid, "Hi"));
        trail.record(then(account, uid, later(at), &[(What::Delivered, "ann"), (What::Delivered, "bob")]));
    }
    trail.record(retrieved("eve@x", 4, "Hi"));
    trail.record(then("eve@x", 4, later(7300), &[(What::Parked, "eve")]));
    written(trail).await;
    let told = async |by, since| trail.delivered(by, later(since)).await.unwrap();
    let rows = |rows: &[(&str, u64)]| rows.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<Vec<_>>();
    assert_eq!(told(TallyBy::Account, 0).await, rows(&[("ann@x", 2), ("bob@x", 1)]));
    assert_eq!(told(TallyBy::Account, 7200).await, rows(&[("ann@x", 1), ("bob@x", 1)]));
    assert_eq!(told(TallyBy::User, 7200).await, rows(&[("ann", 2), ("bob", 2)]));
    assert_eq!(told(TallyBy::User, 20_000).await, rows(&[]));
}
