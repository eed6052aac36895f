//! When each list is looked at next.

use std::io;
use std::time::{Duration, Instant};

use super::fingerprint;
use crate::config::{Filter, List};

/// How long a source that failed is left alone; twice as long each time.
const RETRY_MIN: Duration = Duration::from_secs(60);

/// And no longer than this.
const RETRY_MAX: Duration = Duration::from_secs(3_600);

/// By how much an interval may be shorter or longer than stated, in parts of a thousand: nodes that were started together
/// shall not ask together for ever.
const JITTER: u64 = 100;

/// One list.
#[derive(Clone, Copy, Debug)]
struct Turn {
    interval: Duration,
    /// `None` for never, unless told.
    due: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

/// When each list is looked at next.
#[derive(Debug)]
pub(super) struct Schedule {
    turns: Vec<Turn>,
    seed: [u8; 16],
    draws: u64,
}

impl Schedule {
    /// For `lists`, of which none is due yet.
    pub(super) fn new(filter: &Filter, lists: &[List], draw: fn() -> io::Result<[u8; 16]>) -> Self {
        let interval = |list: &List| list.refresh.unwrap_or(filter.refresh);
        let turn = |list| Turn { interval: interval(list), due: None, failures: 0 };
        // Without a seed nodes may ask together: that is no reason not to ask.
        let seed = draw().unwrap_or_default();
        Self { turns: lists.iter().map(turn).collect(), seed, draws: 0 }
    }

    /// The numbers of the lists that are due.
    pub(super) fn due(&self, now: Instant) -> Vec<usize> {
        let is_due = |turn: &Turn| turn.due.is_some_and(|due| due <= now);
        let numbered = self.turns.iter().enumerate();
        numbered.filter(|(_, turn)| is_due(turn)).map(|(number, _)| number).collect()
    }

    /// How long nothing is due.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        let soonest = self.turns.iter().filter_map(|turn| turn.due).min();
        soonest.map_or(Duration::MAX, |due| due.saturating_duration_since(now))
    }

    /// How long the list is not due; `None` when it is looked at only when told.
    pub(super) fn rest_of(&self, number: usize, now: Instant) -> Option<Duration> {
        self.turns[number].due.map(|due| due.saturating_duration_since(now))
    }

    /// Makes all lists due.
    pub(super) fn all(&mut self, now: Instant) {
        self.turns.iter_mut().for_each(|turn| turn.due = Some(now));
    }

    /// Notes that the list is known to be what its source had `age` ago; says how often it could not be had before.
    ///
    /// At the start, one that is only looked at when told is due.
    pub(super) fn confirmed(&mut self, number: usize, now: Instant, age: Duration) -> u32 {
        let interval = self.turns[number].interval;
        let wait = self.jittered(interval).saturating_sub(age);
        let turn = &mut self.turns[number];
        turn.due = if interval.is_zero() { None } else { now.checked_add(wait) };
        std::mem::take(&mut turn.failures)
    }

    /// Whether the list could not be had the last time.
    pub(super) fn is_failing(&self, number: usize) -> bool {
        self.turns[number].failures > 0
    }

    /// Makes the list due.
    pub(super) fn at_once(&mut self, number: usize, now: Instant) {
        self.turns[number].due = Some(now);
    }

    /// Notes that the list could not be had; says how often in a row.
    pub(super) fn failed(&mut self, number: usize, now: Instant) -> u32 {
        let Turn { interval, failures, .. } = self.turns[number];
        let pause = RETRY_MIN.saturating_mul(1 << failures.min(6)).min(RETRY_MAX);
        let pause = if interval.is_zero() { pause } else { pause.min(interval) };
        let wait = self.jittered(pause);
        let turn = &mut self.turns[number];
        turn.due = now.checked_add(wait);
        turn.failures = failures.saturating_add(1);
        turn.failures
    }

    /// `duration`, give or take a tenth.
    fn jittered(&mut self, duration: Duration) -> Duration {
        self.draws += 1;
        let mut octets = self.seed.to_vec();
        octets.extend(self.draws.to_le_bytes());
        let part = fingerprint(&octets) % (2 * JITTER + 1) + 1_000 - JITTER;
        let parts = u32::try_from(part).unwrap_or(1_000);
        duration.saturating_mul(parts) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListSource;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn schedule(refresh: &[Option<Duration>]) -> Schedule {
        let list = |refresh: &Option<Duration>| {
            let list = List::new("a".into(), ListSource::Url(String::new()), String::new());
            List { refresh: *refresh, ..list }
        };
        let lists: Vec<List> = refresh.iter().map(list).collect();
        Schedule::new(&Filter { refresh: HOUR, ..Filter::default() }, &lists, || Ok([1; 16]))
    }

    fn is_about(duration: Duration, expected: Duration) -> bool {
        duration >= expected * 9 / 10 && duration <= expected * 11 / 10
    }

    #[test]
    fn each_list_has_its_interval_give_or_take_a_tenth() {
        let now = super::super::monotonic();
        let mut schedule = schedule(&[None, Some(5 * HOUR), Some(Duration::ZERO)]);
        assert_eq!((schedule.due(now), schedule.rest(now)), (vec![], Duration::MAX));
        let mut waits = std::collections::BTreeSet::new();
        for _ in 0..100 {
            schedule.confirmed(0, now, Duration::ZERO);
            assert!(is_about(schedule.rest(now), HOUR));
            waits.insert(schedule.rest(now));
        }
        assert!(waits.len() > 10);
        schedule.confirmed(1, now, 4 * HOUR);
        schedule.confirmed(2, now, Duration::ZERO);
        assert_eq!(schedule.due(now + 2 * HOUR), [0, 1]);
        assert_eq!(schedule.due(now + 1_000 * HOUR), [0, 1], "one is looked at when told only");
        schedule.all(now);
        assert_eq!(schedule.due(now), [0, 1, 2]);
        schedule.confirmed(0, now, 100 * HOUR);
        assert!(schedule.due(now).contains(&0), "what is older than its interval is due at once");
    }

    #[test]
    fn source_that_fails_is_asked_ever_more_rarely_until_it_is_back() {
        let now = super::super::monotonic();
        let mut schedule = schedule(&[None, Some(Duration::ZERO)]);
        for (count, pause) in (1..).zip([1, 2, 4, 8, 16, 32, 60, 60, 60]) {
            assert_eq!(schedule.failed(0, now), count);
            assert!(is_about(schedule.rest(now), pause * Duration::from_secs(60)));
        }
        assert_eq!(schedule.confirmed(0, now, Duration::ZERO), 9);
        schedule.failed(0, now);
        assert!(is_about(schedule.rest(now), Duration::from_secs(60)));
        schedule.confirmed(0, now, Duration::ZERO);
        schedule.failed(1, now);
        assert!(is_about(schedule.rest(now), Duration::from_secs(60)), "tried again all the same");
    }
}
