//! Who waits for a thread, who has one, and who gets the next: counting only, no threads and no waiting.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::ResolverLimits;
use super::history::Standing;

/// Names that wait and names that are being looked up.
#[derive(Debug, Default)]
pub(super) struct Queue {
    answered: VecDeque<String>,
    unknown: VecDeque<String>,
    suspect: VecDeque<String>,
    running: HashMap<String, Running>,
    /// Look-ups that are not slow, by standing.
    busy: Counts,
    /// Slow ones.
    pub(super) slow: usize,
    slow_suspects: usize,
}

#[derive(Debug, Default)]
struct Counts {
    answered: usize,
    unknown: usize,
    suspect: usize,
}

#[derive(Debug)]
struct Running {
    standing: Standing,
    since: Instant,
    slow: bool,
}

impl Queue {
    pub(super) fn waiting(&self) -> usize {
        self.answered.len() + self.unknown.len() + self.suspect.len()
    }

    /// Puts a name behind those of its standing. When too many wait it takes the place of a less trusted one, which is
    /// given back; or of none, and is given back itself.
    pub(super) fn push(&mut self, host: String, standing: Standing, limits: &ResolverLimits) -> Option<String> {
        let full = self.waiting() >= limits.queue;
        let out = match standing {
            _ if !full => None,
            Standing::Suspect => return Some(host),
            Standing::Unknown => match self.suspect.pop_front() {
                None => return Some(host),
                out => out,
            },
            Standing::Answered => match self.suspect.pop_front().or_else(|| self.unknown.pop_front()) {
                None => return Some(host),
                out => out,
            },
        };
        self.line(standing).push_back(host);
        out
    }

    /// Forgets names that nobody waits for any more.
    pub(super) fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        for line in [&mut self.answered, &mut self.unknown, &mut self.suspect] {
            line.retain(|host| wanted(host));
        }
    }

    /// How many of those that wait could begin, had they a thread.
    pub(super) fn startable(&self, limits: &ResolverLimits) -> usize {
        let (for_others, for_suspects) = self.room(limits);
        let suspects = self.suspect.len().min(for_suspects);
        self.answered.len() + (self.unknown.len() + suspects).min(for_others)
    }

    /// The next name to look up.
    pub(super) fn next(&mut self, limits: &ResolverLimits, now: Instant) -> Option<String> {
        let (for_others, for_suspects) = self.room(limits);
        let (host, standing) = if let Some(host) = self.answered.pop_front() {
            (host, Standing::Answered)
        } else if for_others == 0 {
            return None;
        } else if let Some(host) = self.unknown.pop_front() {
            (host, Standing::Unknown)
        } else if for_suspects > 0 {
            (self.suspect.pop_front()?, Standing::Suspect)
        } else {
            return None;
        };
        *self.count(standing) += 1;
        self.running.insert(host.clone(), Running { standing, since: now, slow: false });
        Some(host)
    }

    /// Room for names that were not answered in time last time, and of that for suspects.
    fn room(&self, limits: &ResolverLimits) -> (usize, usize) {
        let others = limits.threads - limits.threads / 4;
        let suspects = (limits.threads / 2).max(1);
        let for_others = others.saturating_sub(self.busy.unknown + self.busy.suspect);
        let too_many_slow = self.slow_suspects >= limits.slow_threads / 2 && self.slow_suspects > 0;
        let for_suspects = if too_many_slow { 0 } else { suspects.saturating_sub(self.busy.suspect) };
        (for_others, for_suspects.min(for_others))
    }

    /// Takes look-ups that are too slow out of the count, as long as there is room for such; gives their names.
    pub(super) fn write_off(&mut self, limits: &ResolverLimits, now: Instant) -> Vec<String> {
        let mut written_off = Vec::new();
        let mut running = std::mem::take(&mut self.running);
        for (host, look_up) in &mut running {
            if look_up.slow || self.slow >= limits.slow_threads {
                continue;
            }
            if now.saturating_duration_since(look_up.since) >= limits.slow_after {
                look_up.slow = true;
                self.slow += 1;
                self.slow_suspects += usize::from(look_up.standing == Standing::Suspect);
                *self.count(look_up.standing) -= 1;
                written_off.push(host.clone());
            }
        }
        self.running = running;
        written_off
    }

    /// How long a name has been looked up.
    pub(super) fn under_way(&self, host: &str, now: Instant) -> Option<Duration> {
        self.running.get(host).map(|running| now.saturating_duration_since(running.since))
    }

    /// A look-up is over: how long it took, and whether it had been written off.
    pub(super) fn done(&mut self, host: &str, now: Instant) -> (Duration, bool) {
        let Some(Running { standing, since, slow }) = self.running.remove(host) else { return (Duration::ZERO, false) };
        if slow {
            self.slow -= 1;
            self.slow_suspects -= usize::from(standing == Standing::Suspect);
        } else {
            *self.count(standing) -= 1;
        }
        (now.saturating_duration_since(since), slow)
    }

    fn line(&mut self, standing: Standing) -> &mut VecDeque<String> {
        match standing {
            Standing::Answered => &mut self.answered,
            Standing::Unknown => &mut self.unknown,
            Standing::Suspect => &mut self.suspect,
        }
    }

    fn count(&mut self, standing: Standing) -> &mut usize {
        match standing {
            Standing::Answered => &mut self.busy.answered,
            Standing::Unknown => &mut self.busy.unknown,
            Standing::Suspect => &mut self.busy.suspect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(threads: usize, slow_threads: usize, queue: usize) -> ResolverLimits {
        ResolverLimits { threads, slow_threads, queue, ..ResolverLimits::default() }
    }

    fn push(queue: &mut Queue, limits: &ResolverLimits, standing: Standing, names: std::ops::Range<usize>) {
        for number in names {
            assert_eq!(queue.push(format!("{standing:?}{number}"), standing, limits), None);
        }
    }

    #[test]
    fn who_was_answered_goes_first_and_suspects_have_at_most_half_the_threads() {
        let (mut queue, limits, now) = (Queue::default(), limits(8, 8, 100), Instant::now());
        push(&mut queue, &limits, Standing::Suspect, 0..20);
        assert_eq!(queue.startable(&limits), 4);
        let next = |queue: &mut Queue| queue.next(&limits, now);
        assert!((0..4).all(|_| next(&mut queue).is_some()));
        assert_eq!(next(&mut queue), None);
        push(&mut queue, &limits, Standing::Unknown, 0..20);
        assert_eq!((next(&mut queue), next(&mut queue)), (Some("Unknown0".into()), Some("Unknown1".into())));
        // A quarter is for those that were answered last time.
        assert_eq!(next(&mut queue), None);
        push(&mut queue, &limits, Standing::Answered, 0..2);
        assert_eq!(queue.startable(&limits), 2);
        assert_eq!(next(&mut queue), Some("Answered0".into()));
    }

    #[test]
    fn a_slow_look_up_gives_its_place_to_the_next_up_to_a_bound() {
        let (mut queue, limits, now) = (Queue::default(), limits(4, 5, 100), Instant::now());
        push(&mut queue, &limits, Standing::Unknown, 0..20);
        for round in [3, 2, 0] {
            while queue.next(&limits, now).is_some() {}
            assert_eq!(queue.write_off(&limits, now), [""; 0]);
            assert_eq!(queue.write_off(&limits, now + limits.slow_after).len(), round);
        }
        assert_eq!((queue.slow, queue.waiting()), (5, 12));
        let late = now + limits.slow_after * 3;
        let slow = queue.running.iter().find(|(_, running)| running.slow).map(|(host, _)| host.clone()).unwrap();
        assert_eq!(queue.done(&slow, late), (limits.slow_after * 3, true));
        assert_eq!((queue.write_off(&limits, late).len(), queue.next(&limits, late).is_some()), (1, true));
    }

    #[test]
    fn suspects_that_hang_take_at_most_half_of_the_places_for_slow_ones() {
        let (mut queue, limits, now) = (Queue::default(), limits(8, 8, 100), Instant::now());
        push(&mut queue, &limits, Standing::Suspect, 0..20);
        for _ in 0..5 {
            while queue.next(&limits, now).is_some() {}
            queue.write_off(&limits, now + limits.slow_after);
        }
        assert_eq!(queue.slow, 4);
        push(&mut queue, &limits, Standing::Unknown, 0..1);
        assert_eq!(queue.next(&limits, now), Some("Unknown0".into()));
    }

    #[test]
    fn when_too_many_wait_a_suspect_gives_way_first() {
        let (mut queue, limits) = (Queue::default(), limits(4, 4, 3));
        push(&mut queue, &limits, Standing::Suspect, 0..1);
        push(&mut queue, &limits, Standing::Unknown, 0..2);
        let mut push = |name: &str, standing| queue.push(name.into(), standing, &limits);
        assert_eq!(push("s", Standing::Suspect), Some("s".into()));
        assert_eq!(push("u", Standing::Unknown), Some("Suspect0".into()));
        assert_eq!(push("v", Standing::Unknown), Some("v".into()));
        assert_eq!(push("a", Standing::Answered), Some("Unknown0".into()));
        assert_eq!(queue.waiting(), 3);
        queue.retain(|host| host == "a");
        assert_eq!(queue.waiting(), 1);
    }
}
