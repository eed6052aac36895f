//! Dice that follow a seed: SplitMix64 (Steele, Lea and Flood, 2014). For simulations only, since whoever has seen one
//! number knows the next.

use std::cell::Cell;
use std::time::Duration;

/// A sequence of numbers.
#[derive(Debug)]
pub struct Chance(Cell<u64>);

impl Chance {
    /// The sequence of a seed.
    #[must_use]
    pub const fn from_seed(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Another sequence, which draws from this one do not disturb.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::from_seed(self.bits())
    }

    /// Sixty-four random bits.
    pub fn bits(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// Sixteen random bits.
    pub fn u16(&self) -> u16 {
        let [high, low, ..] = self.bits().to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&self, bound: usize) -> usize {
        let wide = u128::from(self.bits()) * bound as u128;
        usize::try_from(wide >> 64).expect("it is below the bound")
    }

    /// Whether something happens that happens `permille` times in a thousand.
    pub fn hits(&self, permille: u16) -> bool {
        // Nothing is drawn for what cannot happen, and so a fault that is switched off shifts no other.
        permille > 0 && self.below(1_000) < usize::from(permille)
    }

    /// A number of milliseconds from `least` up to, not including, `end`.
    pub fn millis(&self, least: u64, end: u64) -> Duration {
        Duration::from_micros(least * 1_000 + self.bits() % (1_000 * (end - least).max(1)))
    }

    /// One of several.
    pub fn pick<T: Copy>(&self, among: &[T]) -> T {
        among[self.below(among.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_is_that_of_the_reference() {
        // The first numbers of `splitmix64.c` by Sebastiano Vigna, seed 1234567.
        let chance = Chance::from_seed(1_234_567);
        let drawn = [chance.bits(), chance.bits(), chance.bits()];
        assert_eq!(
            drawn,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn draws_stay_within_their_bounds_and_reach_them() {
        let chance = Chance::from_seed(1);
        let mut seen = [false; 7];
        for _ in 0..1_000 {
            seen[chance.below(7)] = true;
            assert!(!chance.hits(0) && chance.hits(1_000));
            let drawn = chance.millis(5, 6);
            assert!(drawn >= Duration::from_millis(5) && drawn < Duration::from_millis(6));
        }
        assert_eq!(seen, [true; 7]);
    }
}
