//! Single-writer counters: plain loads and stores for the core that owns them, no locked instruction, no lost count.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows. One thread writes it; every thread may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning core may call this: with two writers, counts get lost.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Adds one, under the same rule.
    #[inline]
    pub fn bump(&self) {
        self.add(1);
    }

    /// Goes on from `count`: it counts something else from now on. Only the owning core may call this.
    pub(super) fn become_another(&self, count: u64) {
        self.0.store(count, Relaxed);
    }

    /// The present value, from any thread.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down, under the same rule as [`Counter`].
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the value. Only the owning core may call this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// One more. Only the owning core may call this.
    #[inline]
    pub fn raise(&self) {
        self.set(self.value().wrapping_add(1));
    }

    /// One less. Only the owning core may call this.
    #[inline]
    pub fn lower(&self) {
        self.set(self.value().wrapping_sub(1));
    }

    /// The present value, from any thread.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_seen_by_other_threads() {
        let counter = std::sync::Arc::new(Counter::default());
        counter.add(2);
        counter.bump();
        let seen = std::sync::Arc::clone(&counter);
        assert_eq!(std::thread::spawn(move || seen.value()).join().unwrap(), 3);
    }
}
