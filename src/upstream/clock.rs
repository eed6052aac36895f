//! The monotonic clock of the process, as a value.

use std::time::Instant;

use crate::time::Monotonic;

/// Reads the monotonic clock, counted from one origin for the whole process.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    origin: Instant,
}

impl MonotonicClock {
    /// A clock whose origin is now. Copies share the origin; make one per process.
    #[expect(clippy::disallowed_methods, reason = "upstream and node read clocks for the core")]
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The present.
    #[must_use]
    pub fn monotonic(&self) -> Monotonic {
        let nanos = self.origin.elapsed().as_nanos();
        Monotonic::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
