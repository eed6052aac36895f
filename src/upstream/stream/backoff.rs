//! When an upstream to which no connection could be made is tried again. No I/O.

use std::time::Duration;

use crate::time::Monotonic;

/// The first pause: a server that restarts is back in about this time.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest: five doublings, about as long as a connect may take.
const PAUSE_MAX: Duration = Duration::from_millis(3_200);

/// The pause after failures in a row; none by default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    pause: Duration,
    until: Monotonic,
}

impl Backoff {
    /// Whether it is too early to try again.
    pub(super) fn forbids(self, now: Monotonic) -> bool {
        now < self.until
    }

    /// What follows one more failure.
    pub(super) fn after_failure(self, now: Monotonic) -> Self {
        let pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        Self { pause, until: now.after(pause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_doubles_with_each_failure_up_to_its_limit() {
        let now = Monotonic::from_nanos(7);
        let mut backoff = Backoff::default();
        assert!(!backoff.forbids(now));
        for pause_ms in [100, 200, 400, 800, 1_600, 3_200, 3_200] {
            backoff = backoff.after_failure(now);
            let end = now.after(Duration::from_millis(pause_ms));
            assert!(backoff.forbids(Monotonic::from_nanos(end.as_nanos() - 1)), "{pause_ms}");
            assert!(!backoff.forbids(end), "{pause_ms}");
        }
    }
}
