//! The battery itself: what is a filter passes, what is none does not.

#![allow(clippy::disallowed_methods, reason = "the battery takes the clock as an argument, and this is one")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connectord_filter::{Action, Filter, Finding, Kind, Message, Probe, Unchecked, Verdict, Why, battery};

/// Looks for a word in the whole message, piece by piece, as a filter should.
struct Words {
    /// Leaves out what a filter must not leave out.
    fault: Fault,
}

#[derive(PartialEq)]
enum Fault {
    None,
    PassesWhatItCannotRead,
    ReadsOnlyOnce,
    SaysNothing,
    DoesNotEscape,
    HasNoName,
}

#[async_trait]
impl Filter for Words {
    fn name(&self) -> &str {
        if self.fault == Fault::HasNoName { "two words" } else { "words" }
    }

    fn describe(&self) -> String {
        "words".into()
    }

    fn kind(&self) -> Kind {
        Kind::Antivirus
    }

    async fn check(&self, message: &Message) -> Verdict {
        let (mut offset, mut buffer, mut seam) = (0, vec![0; 16 * 1024], Vec::new());
        let mut viruses = Vec::new();
        loop {
            let count = match message.body.read_at(offset, &mut buffer) {
                Ok(count) => count,
                Err(_) if self.fault == Fault::PassesWhatItCannotRead => break,
                Err(error) => {
                    let text = if self.fault == Fault::SaysNothing { String::new() } else { error.to_string() };
                    return Verdict::Unchecked(Unchecked::new(Why::Unavailable, text));
                }
            };
            seam.extend_from_slice(&buffer[..count]);
            if String::from_utf8_lossy(&seam).contains("last line") && viruses.is_empty() {
                viruses.push(if self.fault == Fault::DoesNotEscape {
                    "Last\r\nLine".into()
                } else {
                    "LastLine".into()
                });
            }
            seam.drain(..seam.len().saturating_sub(12));
            offset += count as u64;
            if count == 0 || (self.fault == Fault::ReadsOnlyOnce && offset < 8000) {
                break;
            }
        }
        let action = if viruses.is_empty() { Action::NoAction } else { Action::Reject };
        if self.fault == Fault::PassesWhatItCannotRead {
            return Verdict::Found(Finding::default());
        }
        Verdict::Found(Finding { action, viruses, ..Finding::default() })
    }

    async fn probe(&self, _: Instant) -> Result<Probe, Unchecked> {
        Ok(Probe { version: "1".into(), found_test_sample: None })
    }
}

/// These filters never wait, so one poll is all.
fn run(fault: Fault) {
    let filter = Words { fault };
    let mut running = pin!(battery::run(&filter, &Instant::now, Duration::from_secs(60)));
    assert!(matches!(running.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(())));
}

#[test]
fn a_filter_that_keeps_the_contract_passes() {
    run(Fault::None);
}

#[test]
#[should_panic(expected = "a message that could not be read was passed as clean")]
fn one_that_passes_what_it_cannot_read_does_not() {
    run(Fault::PassesWhatItCannotRead);
}

#[test]
#[should_panic(expected = "is judged differently in pieces")]
fn one_that_does_not_read_on_does_not() {
    run(Fault::ReadsOnlyOnce);
}

#[test]
#[should_panic(expected = "is not escaped")]
fn one_that_hands_on_control_characters_does_not() {
    run(Fault::DoesNotEscape);
}

#[test]
#[should_panic(expected = "is no name")]
fn one_without_a_usable_name_does_not() {
    run(Fault::HasNoName);
}
