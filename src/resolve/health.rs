//! Which upstreams are of use, as one core has seen it: silent and failing ones are asked last for a while, then tried
//! again.

use std::time::Duration;

use crate::time::Monotonic;

/// Timeouts in a row after which an upstream rests. One is a lost packet.
const TIMEOUTS_BEFORE_REST: u8 = 2;

/// Questions in a row that an upstream failed and another one answered, after which it rests. More than timeouts: a
/// failure may be a matter of opinion about the question, as between a validating resolver and one that is not.
const FAILURES_BEFORE_REST: u8 = 4;

/// The first rest; doubles with each vain try after it.
const REST_MIN: Duration = Duration::from_secs(2);

/// The longest rest: an upstream that comes back is used again within a minute.
const REST_MAX: Duration = Duration::from_secs(60);

/// What has become of an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// It is asked last.
    Rests {
        /// Why.
        reason: Reason,
        /// Until it is tried again.
        length: Duration,
    },
    /// It has answered usefully, and stands in its old place.
    Returned,
}

/// Why an upstream rests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// It is silent, or cannot be reached.
    Silence,
    /// It fails at what others answer.
    Failures,
}

/// What one core knows about its upstreams, by index in `config::Forward::upstreams`.
#[derive(Debug)]
pub(super) struct Health {
    upstreams: Box<[Upstream]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Upstream {
    timeouts_in_row: u8,
    failures_in_row: u8,
    rest: Option<Rest>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Monotonic,
    length: Duration,
}

impl Rest {
    fn begin(now: Monotonic, length: Duration) -> Self {
        Self { until: now.after(length), length }
    }
}

impl Health {
    /// `count` upstreams of which nothing bad is known.
    pub(super) fn new(count: usize) -> Self {
        Self { upstreams: vec![Upstream::default(); count].into() }
    }

    /// The order in which one question goes through the upstreams: as configured, but the resting ones last.
    ///
    /// An upstream whose rest is over stands in its old place for this one question, and rests on for all others until
    /// it has answered usefully: a dead one then costs one question its patience, not all.
    pub(super) fn order(&mut self, now: Monotonic) -> Vec<usize> {
        let mut awake = Vec::with_capacity(self.upstreams.len());
        let mut resting = Vec::new();
        for (index, upstream) in self.upstreams.iter_mut().enumerate() {
            match upstream.rest {
                Some(rest) if now < rest.until => resting.push(index),
                Some(rest) => {
                    upstream.rest = Some(Rest::begin(now, (rest.length * 2).min(REST_MAX)));
                    awake.push(index);
                }
                None => awake.push(index),
            }
        }
        awake.append(&mut resting);
        awake
    }

    /// Upstream `index` sent something, whatever it is worth: it is not silent.
    pub(super) fn spoke(&mut self, index: usize) {
        if let Some(upstream) = self.upstreams.get_mut(index) {
            upstream.timeouts_in_row = 0;
        }
    }

    /// Upstream `index` sent a useful answer.
    pub(super) fn answered(&mut self, index: usize) -> Option<Change> {
        let before = std::mem::take(self.upstreams.get_mut(index)?);
        before.rest.map(|_| Change::Returned)
    }

    /// Upstream `index` was silent. Many that time out at once are one reason to rest, not many.
    pub(super) fn timed_out(&mut self, index: usize, now: Monotonic) -> Option<Change> {
        let upstream = self.upstreams.get_mut(index)?;
        upstream.timeouts_in_row = upstream.timeouts_in_row.saturating_add(1);
        let is_enough = upstream.timeouts_in_row >= TIMEOUTS_BEFORE_REST;
        is_enough.then(|| upstream.rest(Reason::Silence, now)).flatten()
    }

    /// Upstream `index` failed at a question that another one then answered. What nobody can answer says nothing.
    pub(super) fn failed(&mut self, index: usize, now: Monotonic) -> Option<Change> {
        let upstream = self.upstreams.get_mut(index)?;
        upstream.failures_in_row = upstream.failures_in_row.saturating_add(1);
        let is_enough = upstream.failures_in_row >= FAILURES_BEFORE_REST;
        is_enough.then(|| upstream.rest(Reason::Failures, now)).flatten()
    }
}

impl Upstream {
    /// Begins the first rest, unless it rests already.
    fn rest(&mut self, reason: Reason, now: Monotonic) -> Option<Change> {
        if self.rest.is_some() {
            return None;
        }
        self.rest = Some(Rest::begin(now, REST_MIN));
        Some(Change::Rests { reason, length: REST_MIN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn silent_upstream_goes_last_after_two_timeouts_and_returns_with_an_answer() {
        let mut health = Health::new(3);
        health.timed_out(0, at(0));
        assert_eq!(health.order(at(0)), [0, 1, 2]);
        health.timed_out(0, at(0));
        assert_eq!(health.order(at(1)), [1, 2, 0]);
        health.answered(0);
        assert_eq!(health.order(at(1)), [0, 1, 2]);
    }

    #[test]
    fn answer_between_timeouts_starts_the_count_anew() {
        let mut health = Health::new(2);
        for _ in 0..5 {
            health.timed_out(0, at(0));
            assert_eq!(health.order(at(0)), [0, 1]);
            health.answered(0);
        }
    }

    #[test]
    fn after_its_rest_one_question_tries_it_and_rests_grow_to_a_minute() {
        let mut health = Health::new(2);
        health.timed_out(0, at(0));
        health.timed_out(0, at(0));
        let mut tries = Vec::new();
        for second in 0..300 {
            for _ in 0..2 {
                if health.order(at(second)) == [0, 1] {
                    tries.push(second);
                    health.timed_out(0, at(second));
                }
            }
        }
        assert_eq!(tries, [2, 6, 14, 30, 62, 122, 182, 242]);
    }

    #[test]
    fn failing_upstream_goes_last_until_it_answers_usefully() {
        let mut health = Health::new(2);
        for _ in 0..FAILURES_BEFORE_REST {
            assert_eq!(health.order(at(0)), [0, 1]);
            health.spoke(0);
            health.failed(0, at(0));
        }
        assert_eq!(health.order(at(1)), [1, 0]);
        assert_eq!(health.order(at(2)), [0, 1], "one question tries it");
        health.spoke(0);
        health.failed(0, at(2));
        assert_eq!(health.order(at(3)), [1, 0]);
        health.answered(0);
        assert_eq!(health.order(at(3)), [0, 1]);
    }

    #[test]
    fn useful_answer_between_failures_starts_the_count_anew() {
        let mut health = Health::new(2);
        for _ in 0..3 * FAILURES_BEFORE_REST {
            health.failed(0, at(0));
            health.answered(0);
            assert_eq!(health.order(at(0)), [0, 1]);
        }
    }

    #[test]
    fn changes_are_told_once() {
        let mut health = Health::new(1);
        assert_eq!(health.answered(0), None);
        assert_eq!(health.timed_out(0, at(0)), None);
        let rests = |reason| Some(Change::Rests { reason, length: REST_MIN });
        assert_eq!(health.timed_out(0, at(0)), rests(Reason::Silence));
        assert_eq!(health.timed_out(0, at(1)), None);
        assert_eq!(health.answered(0), Some(Change::Returned));
        assert_eq!(health.answered(0), None);
        let told: Vec<_> = (0..10).filter_map(|_| health.failed(0, at(2))).collect();
        assert_eq!(told.first().copied(), rests(Reason::Failures));
        assert_eq!(told.len(), 1);
    }

    #[test]
    fn many_timeouts_at_once_are_one_rest() {
        let mut health = Health::new(2);
        for _ in 0..100 {
            health.timed_out(0, at(0));
        }
        assert_eq!(health.order(at(1)), [1, 0]);
        assert_eq!(health.order(at(2)), [0, 1]);
    }
}
