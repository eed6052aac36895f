//! What the operator hears about upstreams: who rests and returns, and that questions stay without an answer; at a
//! bounded rate.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::Duration;

use crate::config::Upstream;
use crate::resolve::{Change, Failure, Reason};
use crate::time::Monotonic;

/// One core says at most one line about unanswered questions, and [`CHANGES_MAX`] about upstreams, in this time.
const PERIOD: Duration = Duration::from_secs(10);

/// Changes of upstreams that are told within [`PERIOD`]: more say only that the network flaps.
const CHANGES_MAX: u32 = 8;

/// One core's news about its upstreams.
#[derive(Debug)]
pub struct Report {
    core: usize,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    changes: Window,
    unanswered: Window,
}

/// Counts what is said within one period, and what is not.
#[derive(Debug, Default)]
pub(super) struct Window {
    begun: Option<Monotonic>,
    said: u32,
    unsaid: u64,
}

impl Window {
    /// Whether another line may be said at `now`; then with how many have not been since the last.
    pub(super) fn admit(&mut self, now: Monotonic, max: u32) -> Option<u64> {
        if self.begun.is_none_or(|begun| now.since(begun) >= PERIOD) {
            self.begun = Some(now);
            self.said = 0;
        }
        if self.said >= max {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Report {
    /// The news of `core`.
    #[must_use]
    pub fn new(core: usize) -> Self {
        Self { core, state: RefCell::default() }
    }

    /// Tells what has become of upstreams.
    pub fn changed(&self, changes: &[(Upstream, Change)], now: Monotonic) {
        for &(ref upstream, change) in changes {
            let Some(text) = self.change(upstream, change, now) else { continue };
            match change {
                Change::Rests { .. } | Change::InClear => tracing::warn!("{text}"),
                Change::Returned | Change::Encrypted => tracing::info!("{text}"),
            }
        }
    }

    /// Tells that a question got no answer, if that is because nobody gave any, or because the upstreams are not for us.
    pub fn failed(&self, failure: Failure, now: Monotonic) {
        if let Some(text) = self.failure(failure, now) {
            tracing::warn!("{text}");
        }
    }

    fn change(&self, upstream: &Upstream, change: Change, now: Monotonic) -> Option<String> {
        let unsaid = self.state.borrow_mut().changes.admit(now, CHANGES_MAX)?;
        let core = self.core;
        let mut text = match change {
            Change::Rests { reason, length } => {
                let why = match reason {
                    Reason::Silence => "is silent or cannot be reached",
                    Reason::Failures => "fails at what others answer",
                };
                format!("core {core}: upstream {upstream} {why}: it is asked last for {length:?}")
            }
            Change::Returned => format!("core {core}: upstream {upstream} answers again"),
            Change::InClear => format!(
                "core {core}: upstream {upstream}: TLS cannot be had, questions go in clear"
            ),
            Change::Encrypted => format!("core {core}: upstream {upstream} speaks TLS again"),
        };
        if unsaid > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, " ({unsaid} such change(s) before were not told)");
        }
        Some(text)
    }

    fn failure(&self, failure: Failure, now: Monotonic) -> Option<String> {
        // What one name alone may be the cause of is told to its client only.
        let is_general = matches!(
            failure,
            Failure::NobodyAnswered | Failure::Unreachable | Failure::Refused | Failure::Lame
        );
        if !is_general {
            return None;
        }
        let count = 1 + self.state.borrow_mut().unanswered.admit(now, 1)?;
        let why = failure.ede().text;
        Some(format!("core {}: {count} question(s) got no answer: {why}", self.core))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn unanswered_questions_are_told_with_their_count_once_in_a_period() {
        let report = Report::new(3);
        let first = report.failure(Failure::NobodyAnswered, at(1)).unwrap();
        assert_eq!(first, "core 3: 1 question(s) got no answer: no upstream answered in time");
        for second in 2..=10 {
            assert_eq!(report.failure(Failure::Unreachable, at(second)), None);
        }
        let next = report.failure(Failure::Unreachable, at(11)).unwrap();
        assert_eq!(next, "core 3: 10 question(s) got no answer: no upstream can be reached");
        assert_eq!(report.failure(Failure::Servfail, at(60)), None, "somebody has answered");
    }

    #[test]
    fn flapping_upstream_does_not_fill_the_log() {
        let report = Report::new(0);
        let upstream = Upstream::udp("192.0.2.1:53".parse().unwrap());
        let rest = Change::Rests { reason: Reason::Silence, length: Duration::from_secs(2) };
        let told = |second| report.change(&upstream, rest, at(second));
        let first = told(1).unwrap();
        assert!(first.contains("192.0.2.1:53") && first.ends_with("for 2s"), "{first}");
        assert_eq!((0..100).filter_map(|_| told(2)).count(), CHANGES_MAX as usize - 1);
        let next = report.change(&upstream, Change::Returned, at(11)).unwrap();
        assert!(next.contains("answers again (93 such"), "{next}");
    }
}
