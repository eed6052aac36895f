//! Whether an upstream is of use, as one core has seen it: a silent or failing one is asked last for a while, and comes
//! back when it answers.

use std::time::Duration;

use crate::time::Monotonic;

/// Answers in a row that stay out before an upstream rests. One is a lost packet.
const LATE_BEFORE_REST: u8 = 2;

/// Questions in a row that an upstream failed and another one answered, after which it rests. More than silences: a
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
    /// TLS cannot be had, and as it is opportunistic, questions go in clear.
    InClear,
    /// TLS can be had again.
    Encrypted,
}

/// Why an upstream rests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// It is silent, or cannot be reached.
    Silence,
    /// It fails at what others answer.
    Failures,
}

/// What one core knows about one upstream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    /// Answers in a row that stayed out.
    late_in_row: u8,
    /// When the first of them was asked for.
    late_since: Option<Monotonic>,
    failures_in_row: u8,
    rest: Option<Rest>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    reason: Reason,
    until: Monotonic,
    length: Duration,
}

impl Rest {
    fn begin(reason: Reason, now: Monotonic, length: Duration) -> Self {
        Self { reason, until: now.after(length), length }
    }
}

impl Health {
    /// Whether it is to be asked after those that do not rest.
    pub(super) const fn is_resting(&self) -> bool {
        self.rest.is_some()
    }

    /// Why it rests, if it does, and until when.
    pub(super) fn rest(&self) -> Option<(Reason, Monotonic)> {
        self.rest.map(|rest| (rest.reason, rest.until))
    }

    /// When it is to be tried again; `None` when it does not rest.
    pub(super) fn due_at(&self) -> Option<Monotonic> {
        self.rest.map(|rest| rest.until)
    }

    /// Whether its rest is over: then one try is free, and it rests on, longer, for all others until it has answered
    /// usefully. A dead one then costs one question its patience, not all.
    pub(super) fn take_try(&mut self, now: Monotonic) -> bool {
        match self.rest {
            Some(rest) if now >= rest.until => {
                let length = (rest.length * 2).min(REST_MAX);
                self.rest = Some(Rest::begin(rest.reason, now, length));
                true
            }
            _ => false,
        }
    }

    /// It sent something, whatever it is worth: silence would begin anew.
    pub(super) const fn was_heard(&mut self) {
        self.late_in_row = 0;
        self.late_since = None;
    }

    /// It has had its say, however useless: a rest for its silence is over.
    pub(super) fn spoke(&mut self) -> Option<Change> {
        self.was_heard();
        self.rest.take_if(|rest| rest.reason == Reason::Silence).map(|_| Change::Returned)
    }

    /// It sent a useful answer.
    pub(super) fn answered(&mut self) -> Option<Change> {
        let before = std::mem::take(self);
        before.rest.map(|_| Change::Returned)
    }

    /// The answer to what was asked at `sent` stays out. It rests when that is not the first and nothing has been heard of
    /// it for `patience`: what is late now may only be slow.
    pub(super) fn late(
        &mut self,
        sent: Monotonic,
        now: Monotonic,
        patience: Duration,
    ) -> Option<Change> {
        self.late_in_row = self.late_in_row.saturating_add(1);
        let since = *self.late_since.get_or_insert(sent);
        let is_enough = self.late_in_row >= LATE_BEFORE_REST && now.since(since) >= patience;
        is_enough.then(|| self.begin_rest(Reason::Silence, now)).flatten()
    }

    /// It cannot be reached: nothing is to be waited for.
    pub(super) fn unreachable(&mut self, now: Monotonic) -> Option<Change> {
        self.late(now, now, Duration::ZERO)
    }

    /// It failed at a question that another one then answered. What nobody can answer says nothing.
    pub(super) fn failed(&mut self, now: Monotonic) -> Option<Change> {
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        let is_enough = self.failures_in_row >= FAILURES_BEFORE_REST;
        is_enough.then(|| self.begin_rest(Reason::Failures, now)).flatten()
    }

    /// Begins the first rest, unless it rests already.
    fn begin_rest(&mut self, reason: Reason, now: Monotonic) -> Option<Change> {
        if self.rest.is_some() {
            return None;
        }
        self.rest = Some(Rest::begin(reason, now, REST_MIN));
        Some(Change::Rests { reason, length: REST_MIN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_nanos(seconds * 1_000_000_000)
    }

    /// Asked at `second`, it has said nothing a second later.
    fn silence(health: &mut Health, second: u64) -> Option<Change> {
        health.late(at(second), at(second + 1), PATIENCE)
    }

    #[test]
    fn silent_upstream_rests_after_two_and_returns_with_an_answer() {
        let mut health = Health::default();
        assert_eq!(silence(&mut health, 0), None);
        let rests = Change::Rests { reason: Reason::Silence, length: REST_MIN };
        assert_eq!(silence(&mut health, 1), Some(rests));
        assert_eq!(silence(&mut health, 1), None, "told once");
        assert!(health.is_resting());
        assert_eq!(health.answered(), Some(Change::Returned));
        assert!(!health.is_resting() && health.answered().is_none());
    }

    #[test]
    fn any_word_ends_a_rest_for_silence_and_none_one_for_failures() {
        let mut health = Health::default();
        health.unreachable(at(0));
        health.unreachable(at(0));
        assert_eq!(health.spoke(), Some(Change::Returned));
        assert!(!health.is_resting());
        for _ in 0..FAILURES_BEFORE_REST {
            health.failed(at(0));
        }
        assert!(health.spoke().is_none() && health.is_resting());
    }

    #[test]
    fn answer_between_silences_starts_the_count_anew() {
        let mut health = Health::default();
        for second in 0..5 {
            assert_eq!(silence(&mut health, second), None);
            health.was_heard();
        }
        assert!(!health.is_resting());
    }

    #[test]
    fn late_answers_are_no_silence_before_the_patience_is_over() {
        let mut health = Health::default();
        let at = |millis: u64| Monotonic::from_nanos(millis * 1_000_000);
        for millis in 0..900 {
            assert_eq!(health.late(at(millis), at(millis + 100), PATIENCE), None);
        }
        assert!(health.late(at(900), at(1_000), PATIENCE).is_some());
    }

    #[test]
    fn after_its_rest_one_try_is_free_and_rests_grow_to_a_minute() {
        let mut health = Health::default();
        health.unreachable(at(0));
        health.unreachable(at(0));
        let tries: Vec<u64> = (0..300).filter(|&second| health.take_try(at(second))).collect();
        assert_eq!(tries, [2, 6, 14, 30, 62, 122, 182, 242]);
    }

    #[test]
    fn failing_upstream_rests_until_it_answers_usefully() {
        let mut health = Health::default();
        for _ in 1..FAILURES_BEFORE_REST {
            health.spoke();
            assert_eq!(health.failed(at(0)), None);
        }
        let rests = Change::Rests { reason: Reason::Failures, length: REST_MIN };
        assert_eq!(health.failed(at(0)), Some(rests));
        assert!(!health.take_try(at(1)) && health.take_try(at(2)));
        health.spoke();
        assert!(health.failed(at(2)).is_none() && health.is_resting());
        assert_eq!(health.answered(), Some(Change::Returned));
        assert!(!health.is_resting());
    }

    #[test]
    fn useful_answer_between_failures_starts_the_count_anew() {
        let mut health = Health::default();
        for _ in 0..3 * FAILURES_BEFORE_REST {
            health.failed(at(0));
            health.answered();
        }
        assert!(!health.is_resting());
    }
}
