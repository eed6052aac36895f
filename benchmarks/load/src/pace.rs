//! When questions are due: in steps as even as the rate, or at random as independent clients would ask. Times are nanoseconds since the
//! start of the run.

use clap::ValueEnum;
use fastrand::Rng;

/// How questions follow each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Arrivals {
    /// In equal steps.
    Even,
    /// At random, independent of each other (a Poisson process).
    Poisson,
}

/// The times at which one thread's questions are due.
#[derive(Debug)]
pub(crate) struct Pace {
    arrivals: Arrivals,
    gap_ns: f64,
    next_ns: f64,
    rng: Rng,
}

impl Pace {
    /// Of `share` questions per second, the first after `offset` of a gap, so that threads do not ask at one time.
    pub(crate) fn new(share: f64, offset: f64, arrivals: Arrivals, seed: u64) -> Self {
        let gap_ns = 1e9 / share;
        Self { arrivals, gap_ns, next_ns: gap_ns * offset, rng: Rng::with_seed(seed) }
    }

    /// When the next question is due.
    pub(crate) fn next_ns(&self) -> u64 {
        to_ns(self.next_ns)
    }

    /// Leaves out what was due before `time_ns` and has not been asked.
    pub(crate) fn skip_to(&mut self, time_ns: u64) {
        if self.next_ns() >= time_ns {
            return;
        }
        match self.arrivals {
            Arrivals::Even => self.next_ns += self.due_before(time_ns) * self.gap_ns,
            Arrivals::Poisson => {
                // Seen from any time, the next one is as far off as from the one before it.
                self.next_ns = to_f64(time_ns);
                self.advance();
            }
        }
    }

    /// How many questions are due before `time_ns` from the next one on; of random ones, how many that is on average.
    pub(crate) fn left_before(&self, time_ns: u64) -> u64 {
        to_ns(self.due_before(time_ns))
    }

    fn due_before(&self, time_ns: u64) -> f64 {
        if self.next_ns() >= time_ns {
            return 0.0;
        }
        ((to_f64(time_ns) - self.next_ns) / self.gap_ns).ceil()
    }

    /// Goes on to the question after it.
    pub(crate) fn advance(&mut self) {
        self.next_ns += match self.arrivals {
            Arrivals::Even => self.gap_ns,
            Arrivals::Poisson => -self.gap_ns * (1.0 - self.rng.f64()).ln(),
        };
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time of a run is far below 2^53 ns")]
fn to_f64(time_ns: u64) -> f64 {
    time_ns as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time of a run is positive and far below 2^53 ns, and so is a count of questions"
)]
fn to_ns(time: f64) -> u64 {
    time as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(mut pace: Pace, until_ns: u64) -> u32 {
        let mut count = 0;
        while pace.next_ns() < until_ns {
            count += 1;
            pace.advance();
        }
        count
    }

    #[test]
    fn even_questions_are_as_many_as_asked_for() {
        assert_eq!(count(Pace::new(100_000.0, 0.5, Arrivals::Even, 1), 1_000_000_000), 100_000);
        assert_eq!(count(Pace::new(3.0, 0.0, Arrivals::Even, 1), 1_000_000_000), 3);
    }

    #[test]
    fn what_is_left_out_is_what_would_have_been_asked() {
        for (rate, offset) in [(50_000_000.0, 0.0), (100_000.0, 0.5), (3.0, 0.3)] {
            for time_ns in [0, 1, 333_333_334, 500_000_001] {
                let pace = || Pace::new(rate, offset, Arrivals::Even, 1);
                let mut skipped = pace();
                skipped.skip_to(time_ns);
                assert!(skipped.next_ns() >= time_ns && skipped.left_before(time_ns) == 0);
                assert_eq!(pace().left_before(time_ns), u64::from(count(pace(), time_ns)));
                let rest = count(skipped, 1_000_000_000);
                assert_eq!(rest + count(pace(), time_ns), count(pace(), 1_000_000_000));
            }
        }
        let mut random = Pace::new(1_000.0, 0.0, Arrivals::Poisson, 1);
        assert_eq!(random.left_before(1_000_000_000), 1_000);
        random.skip_to(500_000_000);
        assert!(random.next_ns() >= 500_000_000);
        let next_ns = random.next_ns();
        random.skip_to(next_ns);
        assert_eq!(random.next_ns(), next_ns);
    }

    #[test]
    fn random_questions_are_about_as_many_and_as_uneven_as_chance() {
        let mut pace = Pace::new(100_000.0, 0.0, Arrivals::Poisson, 7);
        let mut in_each = vec![0u32; 1_000];
        while pace.next_ns() < 1_000_000_000 {
            in_each[usize::try_from(pace.next_ns() / 1_000_000).unwrap()] += 1;
            pace.advance();
        }
        let total: u32 = in_each.iter().sum();
        assert!((98_500..101_500).contains(&total), "{total}");
        // The count in a millisecond varies as its own mean: 100.
        let spread = in_each.iter().map(|&n| (f64::from(n) - 100.0).powi(2)).sum::<f64>() / 1_000.0;
        assert!((70.0..130.0).contains(&spread), "{spread}");
    }
}
