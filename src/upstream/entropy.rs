//! Numbers that nobody can foretell: query IDs and source ports are the lock on every answer (RFC 5452 §9.2).

use std::cell::RefCell;
use std::io;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::resolve::ports::Entropy;

/// A ChaCha12 stream of one core, seeded by the kernel: what one core draws tells nothing about another's draws, and
/// all draw from the same population.
pub struct ChaCha(RefCell<ChaCha12Rng>);

impl std::fmt::Debug for ChaCha {
    /// Says nothing about the state.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChaCha")
    }
}

impl ChaCha {
    /// Seeds from the kernel.
    ///
    /// # Errors
    /// When the kernel gives no random numbers: then nothing may be asked.
    pub fn from_kernel() -> io::Result<Self> {
        octets_from_kernel().map(Self::from_seed)
    }

    /// The stream of a known seed, for tests.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(RefCell::new(ChaCha12Rng::from_seed(seed)))
    }

    /// A uniform number below `bound`, without bias.
    ///
    /// # Panics
    /// When `bound` is zero.
    #[must_use]
    pub fn below(&self, bound: usize) -> usize {
        assert!(bound > 0, "nothing is below zero");
        let bound = bound as u64;
        // Numbers at the top that would favour the small remainders are drawn again.
        let fair_end = u64::MAX - u64::MAX % bound;
        loop {
            let number = self.0.borrow_mut().next_u64();
            if number < fair_end {
                return usize::try_from(number % bound).expect("it is below a usize");
            }
        }
    }
}

/// Octets that the kernel draws.
///
/// # Errors
/// When it gives none.
pub fn octets_from_kernel<const N: usize>() -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).map_err(io::Error::other)?;
    Ok(octets)
}

/// Words that the kernel draws.
///
/// # Errors
/// When it gives none.
pub fn words_from_kernel<const N: usize>() -> io::Result<[u32; N]> {
    let mut words = [0; N];
    for word in &mut words {
        *word = u32::from_ne_bytes(octets_from_kernel()?);
    }
    Ok(words)
}

impl Entropy for ChaCha {
    fn u16(&self) -> u16 {
        let [.., high, low] = self.0.borrow_mut().next_u32().to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_streams_from_the_kernel_differ() {
        let draw = || {
            let stream = ChaCha::from_kernel().unwrap();
            (0..8).map(|_| stream.u16()).collect::<Vec<u16>>()
        };
        assert_ne!(draw(), draw());
    }

    #[test]
    fn draws_fill_their_range_evenly() {
        let stream = ChaCha::from_seed([7; 32]);
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[stream.below(10)] += 1;
        }
        // Chi-square with nine degrees of freedom: 27.9 is the 99.9th percentile.
        let chi: f64 = counts.iter().map(|&count| (f64::from(count) - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 27.9, "{counts:?}");
    }
}
