//! How long queries take: histograms that one core writes, and which few of many queries are timed.

use std::cell::Cell;
use std::time::Duration;

use super::Counter;

/// Upper bounds of the buckets. Hits fill the first ones, answers of far servers the last.
pub(super) const BOUNDS: [Duration; 22] = {
    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }
    const fn us_2_5(tens: u64) -> Duration {
        Duration::from_nanos(tens * 2_500)
    }
    [
        us(1),
        us_2_5(1),
        us(5),
        us(10),
        us_2_5(10),
        us(50),
        us(100),
        us_2_5(100),
        us(500),
        us(1_000),
        us_2_5(1_000),
        us(5_000),
        us(10_000),
        us_2_5(10_000),
        us(50_000),
        us(100_000),
        us_2_5(100_000),
        us(500_000),
        us(1_000_000),
        us_2_5(1_000_000),
        us(5_000_000),
        us(10_000_000),
    ]
};

/// Durations on one core, by size.
#[derive(Debug, Default)]
pub struct Durations {
    /// Those up to each bound and above the one before; the last place takes the rest.
    counts: [Counter; BOUNDS.len() + 1],
    sum_nanos: Counter,
}

impl Durations {
    /// Notes a duration that stands for `weight` of them. Only the owning core may call this.
    pub fn note(&self, duration: Duration, weight: u64) {
        let place = BOUNDS.partition_point(|&bound| bound < duration);
        self.counts[place].add(weight);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.add(nanos.saturating_mul(weight));
    }
}

/// The durations of several cores together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Spread {
    /// As those of [`Durations`].
    pub(super) counts: [u64; BOUNDS.len() + 1],
    pub(super) sum: Duration,
}

impl Spread {
    /// Adds those of one core.
    pub fn add(&mut self, durations: &Durations) {
        for (sum, count) in self.counts.iter_mut().zip(&durations.counts) {
            *sum += count.value();
        }
        self.sum += Duration::from_nanos(durations.sum_nanos.value());
    }

    /// What has come since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut spread = self.clone();
        for (count, before) in spread.counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(before);
        }
        spread.sum = self.sum.saturating_sub(earlier.sum);
        spread
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The bound below which the part `share` (0 to 1) of all durations lies; `None` without any, or when that is beyond the
    /// last bound.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among counts far below 2^52"
    )]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        let place = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        place.and_then(|place| BOUNDS.get(place)).copied()
    }
}

/// Says which queries are timed: one of [`Sampling::PERIOD`] on average, at gaps that no pattern of batches can follow.
#[derive(Debug)]
pub struct Sampling {
    left: Cell<u32>,
    state: Cell<u32>,
}

impl Sampling {
    /// How many queries one that is timed stands for.
    pub const PERIOD: u64 = 64;

    /// From the beginning; `seed` tells cores apart.
    #[must_use]
    pub const fn new(seed: u32) -> Self {
        Self { left: Cell::new(1), state: Cell::new(seed) }
    }

    /// Whether the next query is to be timed.
    #[inline]
    pub fn is_due(&self) -> bool {
        let left = self.left.get() - 1;
        self.left.set(left);
        left == 0 && self.draw()
    }

    /// Draws the gap to the next one: 33 to 95, evenly.
    #[cold]
    fn draw(&self) -> bool {
        let state = self.state.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.state.set(state);
        self.left.set(33 + (state >> 8) % 63);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_grow() {
        assert!(BOUNDS.is_sorted_by(|low, high| low < high));
    }

    #[test]
    fn bound_belongs_to_its_own_bucket() {
        let durations = Durations::default();
        for bound in BOUNDS {
            durations.note(bound, 1);
            durations.note(bound + Duration::from_nanos(1), 1);
        }
        let counts = durations.counts.each_ref().map(Counter::value);
        assert_eq!((counts[0], counts[1], counts[22]), (1, 2, 1));
        assert_eq!(counts.iter().sum::<u64>(), 44);
    }

    #[test]
    fn quantiles_are_the_bounds_that_hold_them() {
        let mut spread = Spread::default();
        assert_eq!(spread.quantile(0.5), None);
        let durations = Durations::default();
        durations.note(Duration::from_micros(7), 98);
        durations.note(Duration::from_millis(3), 2);
        spread.add(&durations);
        assert_eq!(spread.quantile(0.5), Some(Duration::from_micros(10)));
        assert_eq!(spread.quantile(0.98), Some(Duration::from_micros(10)));
        assert_eq!(spread.quantile(0.99), Some(Duration::from_millis(5)));
        durations.note(Duration::from_secs(99), 1_000);
        spread = Spread::default();
        spread.add(&durations);
        assert_eq!(spread.quantile(0.99), None);
    }

    #[test]
    fn one_query_of_a_period_is_timed_whatever_the_batches() {
        let sampling = Sampling::new(7);
        let mut at_place = [0u32; 32];
        const QUERIES: usize = 1 << 20;
        for query in 0..QUERIES {
            at_place[query % 32] += u32::from(sampling.is_due());
        }
        let timed: u32 = at_place.iter().sum();
        assert!((15_900..16_900).contains(&timed), "{timed}");
        let least = at_place.iter().min().unwrap();
        assert!(*least > 400, "each place of a batch has its turn: {at_place:?}");
    }
}
