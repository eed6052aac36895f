//! What could not be resolved a moment ago, so that it is not tried again with every query (RFC 9520).

use std::time::Duration;

use crate::time::CacheTime;

/// Questions remembered; those nearest their end make room. At 40 bytes each, 320 KiB per core.
const FAILURES_MAX: usize = 8_192;

/// Places in which one question may lie.
const WAYS: usize = 8;

/// How long a question is left alone after its first failure (RFC 9520 §3.2 asks for at least a second).
const FIRST_MILLIS: u64 = 1_000;

/// A failed question counts as failing again if it does so within this many times its last pause.
const MEMORY: u64 = 4;

/// The failures of one core, by the hash of their cache keys.
#[derive(Debug)]
pub struct Failures {
    buckets: Box<[[Failure; WAYS]]>,
    pause_millis_max: u64,
}

/// A question that failed. The hash is keyed and has 64 bits: two questions never share one but by a miracle.
#[derive(Clone, Copy, Debug, Default)]
struct Failure {
    hash: u64,
    /// What clients were told.
    reason: &'static str,
    /// When it failed last, on the cache clock.
    failed_millis: u64,
    pause_millis: u64,
}

impl Failures {
    /// Remembers failures for at most `ttl_max`.
    #[must_use]
    pub fn new(ttl_max: Duration) -> Self {
        let buckets = vec![[Failure::default(); WAYS]; FAILURES_MAX / WAYS].into_boxed_slice();
        let pause_millis_max = u64::try_from(ttl_max.as_millis()).unwrap_or(u64::MAX);
        Self { buckets, pause_millis_max }
    }

    /// Remembers what fails from now on for at most `ttl_max`.
    pub fn adopt(&mut self, ttl_max: Duration) {
        self.pause_millis_max = u64::try_from(ttl_max.as_millis()).unwrap_or(u64::MAX);
    }

    /// Why the question with `hash` failed, if that was so lately that it must not be tried again at `now`.
    #[must_use]
    pub fn recent(&self, hash: u64, now: CacheTime) -> Option<&'static str> {
        let bucket = &self.buckets[bucket_of(hash)];
        let known = bucket.iter().find(|failure| failure.hash == hash && failure.is_recent(now));
        known.map(|failure| failure.reason)
    }

    /// Notes that the question with `hash` failed at `now`, for `reason`: the pause doubles from failure to failure.
    pub fn note(&mut self, hash: u64, reason: &'static str, now: CacheTime) {
        let now = now.as_millis();
        let pause_max = self.pause_millis_max;
        let at = bucket_of(hash);
        let bucket = &mut self.buckets[at];
        let known = bucket.iter().position(|failure| failure.hash == hash);
        let oldest = || bucket.iter().enumerate().min_by_key(|(_, failure)| failure.end());
        let place = known.or_else(|| oldest().map(|(place, _)| place)).expect("buckets have ways");
        let last = bucket[place];
        let is_again =
            known.is_some() && now.saturating_sub(last.failed_millis) <= last.pause_millis * MEMORY;
        let pause = if is_again { last.pause_millis * 2 } else { FIRST_MILLIS };
        let pause_millis = pause.min(pause_max);
        bucket[place] = Failure { hash, reason, failed_millis: now, pause_millis };
    }

    /// Notes that the question with `hash` was answered.
    pub fn forget(&mut self, hash: u64) {
        let at = bucket_of(hash);
        for failure in self.buckets[at].iter_mut().filter(|failure| failure.hash == hash) {
            *failure = Failure::default();
        }
    }

    /// Forgets all failures.
    pub fn clear(&mut self) {
        self.buckets.fill([Failure::default(); WAYS]);
    }
}

impl Failure {
    const fn end(&self) -> u64 {
        self.failed_millis.saturating_add(self.pause_millis)
    }

    /// A clock that was set back must not prolong the pause: what failed in the future has not failed.
    const fn is_recent(&self, now: CacheTime) -> bool {
        let now = now.as_millis();
        self.failed_millis <= now && now < self.end()
    }
}

fn bucket_of(hash: u64) -> usize {
    const BUCKETS: u64 = (FAILURES_MAX / WAYS) as u64;
    const _: () = assert!(BUCKETS.is_power_of_two());
    usize::try_from(hash % BUCKETS).expect("the number of buckets fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> CacheTime {
        CacheTime::from_millis(1_000_000 + millis)
    }

    #[test]
    fn pause_doubles_up_to_its_bound_and_starts_anew_after_success_or_peace() {
        let mut failures = Failures::new(Duration::from_secs(5));
        let mut now = 0;
        for pause in [1_000, 2_000, 4_000, 5_000, 5_000] {
            failures.note(7, "why", at(now));
            assert!(
                failures.recent(7, at(now)).is_some()
                    && failures.recent(7, at(now + pause - 1)).is_some()
            );
            assert!(failures.recent(7, at(now + pause)).is_none());
            now += pause;
        }
        assert_eq!(failures.recent(7, at(now - 1)), Some("why"));
        failures.forget(7);
        assert!(failures.recent(7, at(now)).is_none());
        failures.note(7, "why", at(now));
        assert!(failures.recent(7, at(now + 1_000)).is_none());
        failures.note(7, "why", at(now + 4_001));
        assert!(failures.recent(7, at(now + 5_001)).is_none(), "after peace the first pause again");
    }

    #[test]
    fn clock_that_jumps_back_ends_the_pause() {
        let mut failures = Failures::new(Duration::from_secs(30));
        failures.note(7, "why", at(1_000_000));
        assert!(failures.recent(7, at(0)).is_none());
    }

    #[test]
    fn full_bucket_forgets_what_ends_first() {
        let mut failures = Failures::new(Duration::from_secs(30));
        let hash = |number: u64| number << 32;
        for number in 1..=9 {
            failures.note(hash(number), "why", at(number));
        }
        assert!(failures.recent(hash(1), at(10)).is_none());
        assert!((2..=9).all(|number| failures.recent(hash(number), at(10)).is_some()));
        failures.clear();
        assert!(failures.recent(hash(9), at(10)).is_none());
    }
}
