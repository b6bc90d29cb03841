//! The built-in rules as a filter.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{HAM, PATIENCE, eicar, found, message, passes_the_battery, unchecked, with_body};
use connectord_filter::attachment::Class;
use connectord_filter::{Condition, Filter, Rule, Rules, Ruling, Why};
use connectord_filters::rules::{Options, RulesFilter};
use connectord_mail::Body;

fn filter(rules: Rules) -> RulesFilter {
    RulesFilter::new("rules".into(), Options::new(rules)).unwrap()
}

fn blocking() -> Rules {
    Rules { blocked_classes: vec![Class::Executable], ..Rules::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_attachment_and_a_condition_are_found() {
    let ruling = found(&filter(blocking()), eicar()).await.ruling;
    assert!(matches!(&ruling, Some(Ruling::Block(why)) if why.contains("invoice.com")), "{ruling:?}");
    assert_eq!(found(&filter(blocking()), HAM).await.ruling, None);
    let when = vec![Condition::Header { name: "Subject".into(), value: "*lunch*".into() }];
    let rule = Rule { when, then: Ruling::Folder("Food".into()) };
    let rules = Rules { rules: vec![rule], ..Rules::default() };
    assert_eq!(found(&filter(rules), HAM).await.ruling, Some(Ruling::Folder("Food".into())));
}

/// A body without end, as far as a reader's patience goes; tells when the reader is gone.
struct Endless(mpsc::Sender<()>);

impl Body for Endless {
    fn size_octets(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(b'\n');
        Ok(buffer.len())
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_end_is_left_at_the_deadline_and_its_thread_with_it() {
    let (gone, is_gone) = mpsc::channel();
    let filter = filter(blocking());
    let mut endless = with_body(Bytes::from_static(b"Subject: x\r\n\r\n"), Arc::new(Endless(gone)));
    endless.deadline = Instant::now() + Duration::from_millis(200);
    let trouble = unchecked(filter.check(&endless).await);
    assert_eq!(trouble.why, Why::TimedOut, "{trouble}");
    drop(endless);
    tokio::task::spawn_blocking(move || is_gone.recv_timeout(PATIENCE)).await.unwrap().expect("the thread ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_given_up_ends_its_thread() {
    let (gone, is_gone) = mpsc::channel();
    // No deadline ends it before the test does.
    let mut options = Options::new(blocking());
    options.timeout = 10 * PATIENCE;
    let filter = Arc::new(RulesFilter::new("rules".into(), options).unwrap());
    let mut endless = with_body(Bytes::from_static(b"Subject: x\r\n\r\n"), Arc::new(Endless(gone)));
    endless.deadline = Instant::now() + 10 * PATIENCE;
    let checking = filter.clone();
    let check = tokio::spawn(async move { checking.check(&endless).await });
    while filter.health().running == 0 {
        tokio::task::yield_now().await;
    }
    check.abort();
    assert!(check.await.unwrap_err().is_cancelled());
    tokio::task::spawn_blocking(move || is_gone.recv_timeout(PATIENCE)).await.unwrap().expect("the thread ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_rule_about_attachments_a_body_is_not_read() {
    let (gone, _is_gone) = mpsc::channel();
    let filter = filter(Rules { allow_from: vec!["shop.test".parse().unwrap()], ..Rules::default() });
    let head = Bytes::from_static(b"From: ann@shop.test\r\n\r\n");
    let verdict = filter.check(&with_body(head, Arc::new(Endless(gone)))).await;
    assert!(matches!(verdict, connectord_filter::Verdict::Found(finding) if finding.ruling.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_battery() {
    passes_the_battery(&filter(blocking())).await;
    assert!(
        filter(Rules::default()).check(&message(HAM)).await == connectord_filter::Verdict::Found(Default::default())
    );
}
