//! How long an upstream takes: smoothed and its spread (RFC 6298), and the time within which nineteen of twenty answers
//! come.

use std::time::Duration;

/// Answers before the time for hedging is known well enough.
const SAMPLES_MIN: u32 = 20;

/// Shortest wait before a question is asked again, whatever the upstream's habit: recursive resolvers are quick for what
/// they know and slow for what they do not.
pub(super) const RETRY_MIN: Duration = Duration::from_millis(100);

/// No estimate falls below this: timers are not finer.
const ESTIMATE_US_MIN: f64 = 50.0;

/// Nor does it rise above this: nobody waits longer (`forward.deadline`). A silence in which hundreds of questions are late would
/// else double it again and again, beyond what a duration holds.
const ESTIMATE_US_MAX: f64 = 60e6;

/// What the answers of one upstream have taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rtt {
    samples: u32,
    smoothed_us: f64,
    deviation_us: f64,
    /// Moves up by nineteen parts for what is later and down by one for what is not, and so rests where one in twenty is
    /// later.
    late_us: f64,
}

impl Rtt {
    /// An answer came after `elapsed`.
    pub(super) fn note(&mut self, elapsed: Duration) {
        let us = micros(elapsed);
        if self.samples == 0 {
            (self.smoothed_us, self.deviation_us, self.late_us) = (us, us / 2.0, 2.0 * us);
        } else {
            let error = us - self.smoothed_us;
            self.deviation_us += (error.abs() - self.deviation_us) / 4.0;
            self.smoothed_us += error / 8.0;
            self.move_late(us > self.late_us);
        }
        self.samples = self.samples.saturating_add(1);
    }

    /// An answer that was asked for was later than [`Rtt::late`], and nobody waits for it any more.
    pub(super) fn note_late(&mut self) {
        self.move_late(true);
    }

    /// It was not chosen: it may have become better meanwhile, and a small part of its past is forgiven, so that it
    /// is tried again now and then.
    pub(super) fn forgive(&mut self) {
        const PART: f64 = 512.0;
        self.smoothed_us -= self.smoothed_us / PART;
    }

    /// The usual time, in microseconds; `None` while nothing is known.
    pub(super) fn smoothed_us(&self) -> Option<f64> {
        (self.samples > 0).then_some(self.smoothed_us)
    }

    /// After how long one is late in one case of twenty; `None` while too little is known.
    pub(super) fn late(&self) -> Option<Duration> {
        (self.samples >= SAMPLES_MIN).then(|| duration(self.late_us))
    }

    /// After how long it should be asked again; `most` while nothing is known.
    pub(super) fn retry(&self, most: Duration) -> Duration {
        if self.samples == 0 {
            return most;
        }
        duration(self.smoothed_us + 4.0 * self.deviation_us).max(RETRY_MIN).min(most)
    }

    fn move_late(&mut self, is_late: bool) {
        // A step of a part of the estimate itself: it adapts within some dozen answers, on every scale.
        const STEP: f64 = 1.0 / 8.0;
        let step = self.late_us * STEP;
        let moved = if is_late { step * 0.95 } else { -step * 0.05 };
        self.late_us = (self.late_us + moved).clamp(ESTIMATE_US_MIN, ESTIMATE_US_MAX);
    }
}

fn micros(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e6).max(1.0)
}

fn duration(us: f64) -> Duration {
    Duration::from_secs_f64(us / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(millis: impl Iterator<Item = u64>) -> Rtt {
        let mut rtt = Rtt::default();
        millis.for_each(|ms| rtt.note(Duration::from_millis(ms)));
        rtt
    }

    #[test]
    fn nothing_known_gives_no_hedge_and_the_longest_wait() {
        let most = Duration::from_millis(800);
        assert_eq!(Rtt::default().late(), None);
        assert_eq!(Rtt::default().retry(most), most);
        assert_eq!(after(0..19).late(), None);
        assert!(after(1..40).late().is_some());
    }

    #[test]
    fn one_answer_in_twenty_is_later_than_late() {
        // A third of the answers is quick, a third slow, in no order that repeats soon.
        let mut state = 1u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % 1_000
        };
        let mut rtt = after((0..2_000).map(|_| 1 + draw()));
        let mut later = 0u32;
        for _ in 0..10_000 {
            let elapsed = Duration::from_millis(1 + draw());
            later += u32::from(elapsed > rtt.late().unwrap());
            rtt.note(elapsed);
        }
        assert!((400..600).contains(&later), "{later} of 10 000");
    }

    #[test]
    fn thousands_of_late_answers_are_no_more_than_the_longest_wait() {
        let mut rtt = after((0..50).map(|_| 10));
        (0..10_000).for_each(|_| rtt.note_late());
        assert_eq!(rtt.late(), Some(Duration::from_secs(60)));
        (0..2_000).for_each(|_| rtt.note(Duration::from_millis(10)));
        assert!(rtt.late().unwrap() < Duration::from_millis(20), "{:?}", rtt.late());
    }

    #[test]
    fn retry_follows_the_spread_between_its_bounds() {
        let most = Duration::from_millis(800);
        assert_eq!(after((0..50).map(|_| 1)).retry(most), RETRY_MIN);
        assert_eq!(after((0..50).map(|n| 100 + 900 * (n % 2))).retry(most), most);
        let between = after((0..50).map(|n| 100 + 20 * (n % 2))).retry(most);
        assert!(between > RETRY_MIN && between < Duration::from_millis(250), "{between:?}");
    }

    #[test]
    fn forgiven_often_enough_the_slowest_is_tried_again() {
        let mut slow = after((0..50).map(|_| 100));
        let fast = after((0..50).map(|_| 1));
        let turns = (0..100_000).take_while(|_| {
            slow.forgive();
            slow.smoothed_us() > fast.smoothed_us()
        });
        let turns = turns.count();
        assert!((1_000..5_000).contains(&turns), "{turns}");
    }
}
