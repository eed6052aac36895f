//! Time as plain values. The core never reads a clock: `node` reads both clocks after each wake-up and hands them in.
//!
//! Two clocks, apart by type: [`Monotonic`] for network timers (retries, round trips, idle limits) and
//! [`CacheTime`] for ages, TTLs and signature times, which an operator or a test may move.

use std::time::Duration;

/// A point on the monotonic clock, in nanoseconds since an origin that is fixed for the process.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Monotonic(u64);

impl Monotonic {
    /// Makes a point from nanoseconds since the process's origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the process's origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point `duration` later, saturating at the end of the clock.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A point on the cache clock (wall clock plus a test offset), in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct CacheTime(u64);

impl CacheTime {
    /// Makes a point from milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds from `earlier` to `self`, zero when `earlier` is later: the age by which TTLs are reduced.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> u32 {
        u32::try_from(self.0.saturating_sub(earlier.0) / 1000).unwrap_or(u32::MAX)
    }

    /// The point `seconds` later, saturating at the end of the clock.
    #[must_use]
    pub const fn after_seconds(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds as u64 * 1000))
    }
}

/// Both clocks, read together once per batch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// For network timers.
    pub monotonic: Monotonic,
    /// For cache ages and TTLs.
    pub cache: CacheTime,
}

/// The point on the monotonic clock after which a piece of work is given up.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Deadline(Monotonic);

impl Deadline {
    /// The deadline `allowance` after `now`.
    #[must_use]
    pub fn after(now: Monotonic, allowance: Duration) -> Self {
        Self(now.after(allowance))
    }

    /// Time left at `now`; `None` once the deadline has passed.
    #[must_use]
    pub fn remaining(self, now: Monotonic) -> Option<Duration> {
        let left = self.0.since(now);
        (!left.is_zero()).then_some(left)
    }

    /// The earlier of this deadline and `allowance` from `now`: one attempt within a whole.
    #[must_use]
    pub fn at_most(self, now: Monotonic, allowance: Duration) -> Self {
        self.min(Self::after(now, allowance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_zero_when_the_clock_jumps_back() {
        let stored = CacheTime::from_millis(10_000);
        assert_eq!(CacheTime::from_millis(4_000).seconds_since(stored), 0);
        assert_eq!(CacheTime::from_millis(12_999).seconds_since(stored), 2);
    }

    #[test]
    fn deadline_counts_down_and_ends() {
        let start = Monotonic::from_nanos(5);
        let deadline = Deadline::after(start, Duration::from_nanos(10));
        assert_eq!(deadline.remaining(Monotonic::from_nanos(9)), Some(Duration::from_nanos(6)));
        assert_eq!(deadline.remaining(Monotonic::from_nanos(15)), None);
    }

    #[test]
    fn attempt_never_outlives_the_whole() {
        let start = Monotonic::default();
        let whole = Deadline::after(start, Duration::from_secs(1));
        assert_eq!(whole.at_most(start, Duration::from_secs(5)), whole);
        assert!(whole.at_most(start, Duration::from_millis(1)) < whole);
    }
}
