//! When an upstream to which no connection could be made is tried again. No I/O.

use std::time::Duration;

use crate::time::Monotonic;

/// The first pause: a server that restarts is back in about this time.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest: five doublings, about as long as a connect may take.
const PAUSE_MAX: Duration = Duration::from_millis(3_200);

/// Connections in a row that end before their first answer, of a server that has given some: it resets connections now
/// and then, and a pause would only keep it from answering those that it does not reset.
const GRACE: u8 = 8;

/// The pause after failures in a row; none by default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    pause: Duration,
    until: Monotonic,
    grace: u8,
}

impl Backoff {
    /// What follows an answer.
    pub(super) fn after_answer() -> Self {
        Self { grace: GRACE, ..Self::default() }
    }

    /// Whether it is too early to try again.
    pub(super) fn forbids(self, now: Monotonic) -> bool {
        now < self.until
    }

    /// Whether a connection that was of no use may be followed by another one at once.
    pub(super) const fn has_grace(self) -> bool {
        self.grace > 0
    }

    /// What follows a connection that was made and brought no answer to those who waited.
    pub(super) fn after_useless(self, now: Monotonic) -> Self {
        match self.grace.checked_sub(1) {
            Some(grace) => Self { grace, ..self },
            None => self.after_failure(now),
        }
    }

    /// What follows a connection that could not be made.
    pub(super) fn after_failure(self, now: Monotonic) -> Self {
        let pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        Self { pause, until: now.after(pause), grace: 0 }
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

    #[test]
    fn useless_connections_bring_a_pause_at_once_or_after_answers_later() {
        let now = Monotonic::from_nanos(7);
        assert!(Backoff::default().after_useless(now).forbids(now));
        let mut backoff = Backoff::after_answer();
        for _ in 0..GRACE {
            assert!(backoff.has_grace());
            backoff = backoff.after_useless(now);
            assert!(!backoff.forbids(now));
        }
        assert!(!backoff.has_grace() && backoff.after_useless(now).forbids(now));
        let away = Backoff::after_answer().after_failure(now);
        assert!(away.forbids(now) && !away.has_grace());
    }
}
