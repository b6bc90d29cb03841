use std::time::Duration;

use tokio::time::Instant;

use crate::{Timeouts, Wait};

/// How many times the silence may pass with octets coming and nothing that the machine has a use for: a server that
/// says for ever that it is still there is as good as silent.
const CHATTER: u32 = 10;

/// When a peer has been silent, or too slow, for too long.
#[derive(Debug)]
pub(super) struct Patience {
    silence: Duration,
    window_length: Duration,
    window_octets: u64,
    session: Option<(Instant, Duration)>,
    /// Whether the peer owes us something, or must take octets from us.
    waiting: bool,
    /// When something moved last; counts while waiting.
    moved: Instant,
    /// When something came last that the machine had a use for, and how many octets came since; counts while waiting.
    useful: Instant,
    useless_octets: u64,
    window: Option<Window>,
    /// The window before was too slow, but it ended in a pause, as when a server thinks within an answer.
    was_slow: bool,
    paused: Option<Instant>,
}

#[derive(Debug)]
struct Window {
    begun: Instant,
    last: Instant,
    octets: u64,
}

impl Patience {
    pub(super) fn new(timeouts: &Timeouts, now: Instant) -> Self {
        Self {
            silence: timeouts.silence,
            window_length: timeouts.rate_window,
            window_octets: u64::try_from(u128::from(timeouts.minimum_rate) * timeouts.rate_window.as_millis() / 1000)
                .unwrap_or(u64::MAX),
            session: timeouts.session.map(|length| (now + length, length)),
            waiting: false,
            moved: now,
            useful: now,
            useless_octets: 0,
            window: None,
            was_slow: false,
            paused: None,
        }
    }

    /// The caller went away: until [`Patience::resume`] nobody reads, so nobody is silent.
    pub(super) fn pause(&mut self, now: Instant) {
        self.paused = Some(now);
    }

    pub(super) fn resume(&mut self, now: Instant) {
        let Some(away) = self.paused.take().map(|paused| now.saturating_duration_since(paused)) else { return };
        self.moved += away;
        self.useful += away;
        if let Some(window) = &mut self.window {
            window.begun += away;
            window.last += away;
        }
    }

    pub(super) fn set_waiting(&mut self, waiting: bool, now: Instant) {
        if waiting && !self.waiting {
            self.asked(now);
        }
        self.waiting = waiting;
    }

    /// A question was put: the peer gets its whole time for the answer.
    pub(super) fn asked(&mut self, now: Instant) {
        (self.moved, self.window, self.was_slow) = (now, None, false);
        self.used(now);
    }

    /// The machine had a use for what came.
    pub(super) fn used(&mut self, now: Instant) {
        (self.useful, self.useless_octets) = (now, 0);
    }

    /// The peer took octets.
    pub(super) fn sent(&mut self, now: Instant) {
        self.moved = now;
    }

    pub(super) fn received(&mut self, octets: u64, now: Instant) {
        self.moved = now;
        self.useless_octets += octets;
        let window = self.window.get_or_insert(Window { begun: now, last: now, octets: 0 });
        window.octets += octets;
        window.last = now;
    }

    /// The deadline that passed, with how long was waited.
    pub(super) fn lost(&mut self, now: Instant) -> Option<(Wait, Duration)> {
        if let Some(length) = self.session_over(now) {
            return Some((Wait::Session, length));
        }
        if !self.waiting {
            self.window = None;
            return None;
        }
        if now >= self.moved + self.silence {
            return Some((Wait::Silence, self.silence));
        }
        let chatter = self.silence * CHATTER;
        if now >= self.useful + chatter {
            return Some((Wait::Chatter { octets: self.useless_octets }, chatter));
        }
        if let Some(window) = self.window.take_if(|window| now >= window.begun + self.window_length) {
            let slow = window.octets < self.window_octets;
            let drips = now.saturating_duration_since(window.last) < self.window_length / 2;
            if slow && (drips || self.was_slow) {
                return Some((Wait::Rate { octets: window.octets }, self.window_length));
            }
            self.was_slow = slow;
        }
        None
    }

    /// How long the session might live, when it has.
    pub(super) fn session_over(&self, now: Instant) -> Option<Duration> {
        self.session.filter(|(end, _)| now >= *end).map(|(_, length)| length)
    }

    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        let session = self.session.map(|(end, _)| end);
        let silence = self.waiting.then(|| self.moved + self.silence);
        let window = self.window.as_ref().filter(|_| self.waiting).map(|window| window.begun + self.window_length);
        let chatter = self.waiting.then(|| self.useful + self.silence * CHATTER);
        [session, silence, window, chatter].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Plays a peer that sends `octets(second)` each second, all of use; says when and why patience ended.
    fn play(timeouts: &Timeouts, seconds: u32, octets: impl Fn(u32) -> u64) -> Option<(u32, Wait)> {
        let begun = Instant::now();
        let mut patience = Patience::new(timeouts, begun);
        patience.set_waiting(true, begun);
        for second in 1..=seconds {
            let now = begun + SECOND * second;
            if let Some((wait, _)) = patience.lost(now) {
                return Some((second, wait));
            }
            if octets(second) > 0 {
                patience.received(octets(second), now);
                patience.used(now);
            }
        }
        None
    }

    #[test]
    fn silence_ends_it_after_its_time_and_not_before() {
        assert_eq!(play(&Timeouts::default(), 200, |_| 0), Some((60, Wait::Silence)));
        assert_eq!(play(&Timeouts::default(), 59, |_| 0), None);
    }

    #[test]
    fn one_octet_a_second_counts_as_silent_after_the_window() {
        assert_eq!(play(&Timeouts::default(), 200, |_| 1), Some((31, Wait::Rate { octets: 30 })));
        // An octet every 59 s keeps within the time for silence; the second slow window ends it.
        let rare = play(&Timeouts::default(), 600, |second| u64::from(second % 59 == 1));
        assert!(matches!(rare, Some((31..=120, Wait::Rate { .. } | Wait::Silence))), "{rare:?}");
    }

    #[test]
    fn a_slow_line_at_the_minimum_rate_goes_on_for_ever() {
        assert_eq!(play(&Timeouts::default(), 3600, |_| 101), None);
    }

    #[test]
    fn a_server_that_only_says_that_it_is_still_there_counts_as_silent_in_the_end() {
        let begun = Instant::now();
        let mut patience = Patience::new(&Timeouts::default(), begun);
        patience.set_waiting(true, begun);
        let mut ended = None;
        for second in 1..1000 {
            let now = begun + SECOND * second;
            if second == 100 {
                patience.used(now);
            }
            if let Some(lost) = patience.lost(now) {
                ended = Some((second, lost));
                break;
            }
            patience.received(200, now);
        }
        assert_eq!(ended, Some((700, (Wait::Chatter { octets: 120_000 }, SECOND * 600))));
    }

    #[test]
    fn a_server_that_thinks_within_an_answer_gets_the_time_for_silence() {
        let thinks = |second| if second == 1 { 20 } else { u64::from(second > 45) * 5000 };
        assert_eq!(play(&Timeouts::default(), 600, thinks), None);
    }

    #[test]
    fn what_the_caller_does_between_calls_is_nobodys_silence() {
        let begun = Instant::now();
        let mut patience = Patience::new(&Timeouts::default(), begun);
        patience.set_waiting(true, begun);
        patience.pause(begun + SECOND);
        patience.resume(begun + SECOND * 500);
        assert_eq!(patience.lost(begun + SECOND * 558), None);
        assert_eq!(patience.lost(begun + SECOND * 559), Some((Wait::Silence, SECOND * 60)));
    }

    #[test]
    fn nobody_is_silent_who_owes_nothing_but_the_session_still_ends() {
        let begun = Instant::now();
        let timeouts = Timeouts { session: Some(SECOND * 1000), ..Timeouts::default() };
        let mut patience = Patience::new(&timeouts, begun);
        patience.set_waiting(false, begun);
        assert_eq!(patience.lost(begun + SECOND * 999), None);
        assert_eq!(patience.lost(begun + SECOND * 1000), Some((Wait::Session, SECOND * 1000)));
    }
}
