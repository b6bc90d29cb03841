//! Ten thousand messages, one of them of 50 MB, and what happens to a mailbox in its life: nothing is lost, nothing
//! comes twice.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::time::{Duration, Instant};

use common::{Installation, Outcome, Sums, arrived, dovecot_account, light};
use connectord_testkit::{Dovecot, DovecotOptions, Message, Service, corpus};
use nix::sys::signal::Signal;

const COUNT: usize = 10_000;

#[test]
fn ten_thousand_by_imaps() {
    ten_thousand(Service::Imaps);
}

#[test]
fn ten_thousand_by_pop3s() {
    ten_thousand(Service::Pop3s);
}

fn ten_thousand(service: Service) {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret"));
    dovecot.seed("ann", "INBOX", &sample());
    let expected = at_dovecot(&dovecot, service);
    assert_eq!(expected.count(), COUNT);
    let account = dovecot_account(&dovecot, service);

    killed_in_the_middle(&dovecot, service, &account, &expected);

    let here = Installation::trusting(dovecot.certificates());
    here.configure(&account);
    let first = here.fetch_well();
    tell(service, "10,000 messages", &first);
    let count = COUNT as u64;
    assert_eq!(first.counts(), (count, count, 0));
    here.mail("ann").must_equal(&expected, "after the first run");

    let second = here.fetch_well();
    tell(service, "nothing new", &second);
    assert_eq!((second.number("listed"), second.counts()), (count, (0, 0, 0)));

    // Another client removes some, more come, and the mailbox is put back from a backup.
    dovecot.expunge("ann", "INBOX", 50);
    let later: Vec<Message> = (0..100).map(|n| light(COUNT + n)).collect();
    dovecot.seed("ann", "INBOX", &later);
    if service == Service::Imaps {
        dovecot.change_uid_validity("ann", "INBOX");
    }
    let third = here.fetch_well();
    tell(service, "100 came, 50 gone, UIDVALIDITY changed if there is one", &third);
    assert_eq!((third.number("listed"), third.counts()), (count + 50, (100, 100, 0)));
    let mut all = expected;
    later.iter().for_each(|message| all.add(&arrived(&dovecot, service, &message.octets)));
    here.mail("ann").must_equal(&all, "after the third run");
    assert_eq!(here.fetch_well().counts(), (0, 0, 0));
}

/// A new installation is killed (SIGKILL) when it has about half, and started again.
fn killed_in_the_middle(dovecot: &Dovecot, service: Service, account: &str, expected: &Sums) {
    let here = Installation::trusting(dovecot.certificates());
    here.configure(account);
    let mut running = here.start_fetch();
    let deadline = Instant::now() + Duration::from_secs(120);
    while here.files("ann").len() < COUNT / 2 {
        assert!(running.is_running() && Instant::now() < deadline, "{} messages came", here.files("ann").len());
        std::thread::sleep(Duration::from_millis(50));
    }
    running.signal(Signal::SIGKILL);
    let killed = running.wait(Duration::from_secs(10));
    assert_eq!(killed.code, None);
    let had = here.files("ann").len();
    assert!((COUNT / 2..COUNT).contains(&had), "{had} when it was killed");
    let again = here.fetch_well();
    tell(service, &format!("again, after it was killed with {had}"), &again);
    here.mail("ann").must_equal(expected, "after a kill and another run");
    let retrieved = again.number("retrieved");
    // What was on its way when it died comes again over the line, and nothing else.
    assert!(retrieved <= (COUNT - had) as u64 + 2000, "{retrieved} retrieved again, {had} were there");
    assert_eq!(here.fetch_well().counts(), (0, 0, 0));
}

fn tell(service: Service, what: &str, outcome: &Outcome) {
    let Outcome { duration, peak_kib, .. } = outcome;
    eprintln!("{service:?}: {what}: {duration:.1?}, at most {} MiB resident", peak_kib / 1024);
}

fn at_dovecot(dovecot: &Dovecot, service: Service) -> Sums {
    Sums::of(dovecot.messages("ann", "INBOX").iter().map(|octets| arrived(dovecot, service, octets)))
}

/// 9,899 small messages, a hundred with everything that goes wrong with mail, and one of 50 MB in the middle.
fn sample() -> Vec<Message> {
    let mut messages = corpus::messages(100, 1);
    messages.extend((0..COUNT - 101).map(light));
    messages.insert(COUNT / 4, corpus::large(50_000_000, 1));
    messages
}
