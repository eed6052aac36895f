//! Questions being resolved, and who waits for each: equal questions are asked once (RFC 5452 §5 counts on it, too).

use std::collections::HashMap;

use ahash::RandomState;

use crate::config;

/// What became of someone who asks.
#[derive(Debug, Eq, PartialEq)]
pub enum Joined<W> {
    /// Nobody asked this yet: resolve it, then [`Inflight::finish`].
    First,
    /// Somebody did; the answer will come.
    Waiting,
    /// Too many questions are in flight.
    TooManyQuestions(W),
    /// Too many wait for this one.
    TooManyWaiters(W),
}

/// All questions in flight on one core, by cache key.
#[derive(Debug)]
pub struct Inflight<W> {
    waiters: HashMap<Box<[u8]>, Vec<W>, RandomState>,
    questions_max: usize,
    waiters_max: usize,
}

impl<W> Inflight<W> {
    /// An empty table with the section's limits.
    #[must_use]
    pub fn new(section: &config::Forward) -> Self {
        Self {
            waiters: HashMap::default(),
            questions_max: section.inflight_max,
            waiters_max: section.waiters_max,
        }
    }

    /// Lets `waiter` wait for the question `key`.
    pub fn join(&mut self, key: &[u8], waiter: W) -> Joined<W> {
        if let Some(waiters) = self.waiters.get_mut(key) {
            if waiters.len() >= self.waiters_max {
                return Joined::TooManyWaiters(waiter);
            }
            waiters.push(waiter);
            return Joined::Waiting;
        }
        if self.waiters.len() >= self.questions_max {
            return Joined::TooManyQuestions(waiter);
        }
        self.waiters.insert(key.into(), vec![waiter]);
        Joined::First
    }

    /// Ends the question `key` and gives all who waited, first come first.
    pub fn finish(&mut self, key: &[u8]) -> Vec<W> {
        self.waiters.remove(key).unwrap_or_default()
    }

    /// Questions in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nothing is being resolved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Inflight<u32> {
        let forward = config::Forward {
            upstreams: Vec::new(),
            attempt_timeout: std::time::Duration::ZERO,
            deadline: std::time::Duration::ZERO,
            sockets: 0,
            inflight_max: 2,
            waiters_max: 3,
        };
        Inflight::new(&forward)
    }

    #[test]
    fn only_the_first_asks_and_all_get_the_answer() {
        let mut table = table();
        assert_eq!(table.join(b"a", 1), Joined::First);
        assert_eq!(table.join(b"a", 2), Joined::Waiting);
        assert_eq!(table.join(b"b", 3), Joined::First);
        assert_eq!(table.finish(b"a"), [1, 2]);
        assert_eq!(table.finish(b"a"), []);
        assert_eq!(table.join(b"a", 4), Joined::First);
    }

    #[test]
    fn both_limits_hold_and_give_the_waiter_back() {
        let mut table = table();
        for waiter in 0..3 {
            table.join(b"a", waiter);
        }
        assert_eq!(table.join(b"a", 9), Joined::TooManyWaiters(9));
        assert_eq!(table.join(b"b", 1), Joined::First);
        assert_eq!(table.join(b"c", 9), Joined::TooManyQuestions(9));
        assert_eq!(table.len(), 2);
    }
}
