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

    /// Goes on to the question after it.
    pub(crate) fn advance(&mut self) {
        self.next_ns += match self.arrivals {
            Arrivals::Even => self.gap_ns,
            Arrivals::Poisson => -self.gap_ns * (1.0 - self.rng.f64()).ln(),
        };
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time of a run is positive and far below 2^53 ns"
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
