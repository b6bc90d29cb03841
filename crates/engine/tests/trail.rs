//! What is taken down of each message on its way.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod light;
mod sieve;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::wrappers::{Scripted, delivered, token};
use common::{Any, BOTH};
use connectord_account::Oversize;
use connectord_delivery::{Failure, FailureKind, Outcome};
use connectord_engine::Job;
use connectord_filter::{Kind, OnSpam, Policy};
use connectord_mail::Relays;
use connectord_store::memory::MemoryTrail;
use connectord_store::{Trail, TrailQuery, TrailRow, TrailState, TrailStep, What};
use light::Light;
use sieve::{Judge, Shelf, clean, reject, removing, spam, with_filters};

fn watched(mut here: Light) -> (Light, Arc<MemoryTrail>) {
    let trail = Arc::new(MemoryTrail::new());
    Arc::get_mut(&mut here.site).unwrap().trail = trail.clone();
    (here, trail)
}

/// What is known of the message with this subject.
async fn of(trail: &MemoryTrail, subject: &str) -> (TrailRow, Vec<TrailStep>) {
    let query = TrailQuery { text: subject.to_owned(), limit: 10, ..TrailQuery::default() };
    let page = trail.messages(&query).await.unwrap();
    assert_eq!(page.rows.len(), 1, "{subject}: {page:?}");
    trail.message(page.rows[0].id).await.unwrap().unwrap()
}

fn whats(steps: &[TrailStep]) -> Vec<What> {
    steps.iter().map(|step| step.what).collect()
}

fn letter(token: &str, subject: &str) -> Vec<u8> {
    let head = "Received: from out.shop.test (out.shop.test [192.0.2.7]) by mx.provider.test (Postfix) with ESMTPS id 1; \
                Sun, 22 Nov 2026 19:31:00 +0000\r\n";
    format!(
        "{head}From: =?utf-8?Q?Bj=C3=B6rn?= <bob@shop.test>\r\nMessage-ID: <{token}@shop.test>\r\n\
             Subject: {subject}\r\n\r\ntoken-{token} \r\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn each_message_has_its_way_from_the_listing_to_its_removal_in_the_trail() {
    use What::{Delivered, Filter, Quarantined, Relay, Removed, Retrieved, Seen, Spam};
    for protocol in BOTH {
        let mail = [letter("0", "=?utf-8?B?TcOkcno=?="), letter("1", "win\x1b[2J"), letter("2", "held")];
        let server = Any::with(protocol, mail);
        let antispam = Judge::new(Kind::Antispam, |token| match token {
            "1" => spam(),
            "2" => reject(),
            _ => clean(),
        });
        let here = with_filters(Light::new(), vec![antispam], Arc::new(Shelf::default()));
        let (here, trail) = watched(here);
        let policy = Policy { on_spam: OnSpam::Folder("Junk".into()), ..Policy::default() };
        let relays = Relays::parse(["provider.test"]).unwrap();
        let job = Job { policy, relays, ..here.job(protocol, server.port(), removing) };
        let report = here.run(&job).await;
        assert!(report.error.is_none(), "{:?}", report.error);

        let (row, steps) = of(&trail, "märz").await;
        assert_eq!(whats(&steps), [Seen, Retrieved, Relay, Filter, Delivered, Removed], "{protocol:?}");
        assert_eq!((row.state, row.removed_at.is_some(), row.maybe_twice), (TrailState::Delivered, true, false));
        assert_eq!((row.about.subject.as_str(), row.about.from.as_str()), ("März", "Björn <bob@shop.test>"));
        assert_eq!((row.about.message_id.as_str(), &row.about.users[..]), ("<0@shop.test>", &["ann".to_owned()][..]));
        assert_eq!(row.about.octets, letter("0", "=?utf-8?B?TcOkcno=?=").len() as u64);
        assert_eq!((steps[2].who.as_str(), steps[2].detail.as_str()), ("192.0.2.7", "out.shop.test"));
        assert_eq!((steps[3].who.as_str(), steps[4].who.as_str()), ("antispam", "ann"));
        assert!(!steps[4].detail.is_empty(), "the destination's answer");

        let (row, steps) = of(&trail, "win").await;
        assert_eq!(whats(&steps), [Seen, Retrieved, Relay, Filter, Spam, Delivered, Removed]);
        assert_eq!((row.state, row.milli_score), (TrailState::Spam, steps[3].milli_score));
        assert!(row.milli_score.is_some() && !row.about.subject.contains('\x1b'), "{row:?}");

        let (row, steps) = of(&trail, "held").await;
        assert_eq!(row.state, TrailState::Quarantined);
        assert!(whats(&steps).contains(&Quarantined), "{steps:?}");
    }
}

#[tokio::test]
async fn what_is_put_off_parked_and_tried_again_is_told() {
    for protocol in BOTH {
        let server = Any::with(protocol, [letter("0", "later"), letter("1", "never")]);
        let (here, trail) = watched(Light::new());
        let is_first = AtomicBool::new(true);
        let delivery = Scripted::new(8, move |parcel| match token(parcel).as_str() {
            "0" if is_first.swap(false, Ordering::SeqCst) => {
                Outcome::Failed(Failure::new(FailureKind::Transient, "451 come back"))
            }
            "0" => delivered(),
            _ => Outcome::Failed(Failure::new(FailureKind::Permanent, "550 no")),
        });
        let job = Job { delivery, ..here.job(protocol, server.port(), removing) };
        here.run(&job).await;
        let (row, steps) = of(&trail, "later").await;
        assert_eq!(
            (row.state, steps.last().map(|step| step.detail.as_str())),
            (TrailState::Waiting, Some("451 come back"))
        );
        let (row, steps) = of(&trail, "never").await;
        assert_eq!((row.state, steps.last().map(|step| step.detail.as_str())), (TrailState::Parked, Some("550 no")));
        here.pass(86_400);
        here.run(&job).await;
        let (row, steps) = of(&trail, "later").await;
        assert_eq!((row.state, row.removed_at.is_some()), (TrailState::Delivered, true), "{steps:?}");
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_in_the_trail_though_it_was_not_retrieved() {
    for protocol in BOTH {
        let server = Any::with(protocol, [letter("0", "large")]);
        let (here, trail) = watched(Light::new());
        let job = here.job(protocol, server.port(), |account| {
            account.max_message_octets = Some(10);
            account.oversize = Oversize::Skip;
        });
        here.run(&job).await;
        let page = trail.messages(&TrailQuery { limit: 10, ..TrailQuery::default() }).await.unwrap();
        let states: Vec<_> = page.rows.iter().map(|row| row.state).collect();
        assert_eq!(states, [TrailState::Skipped], "{protocol:?}");
    }
}
