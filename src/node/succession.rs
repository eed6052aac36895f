//! The configs of a running node, one after the other: each core goes from one to the next by itself, in the moment in which
//! it takes up the policy that belongs to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cache::Flush;
use crate::config::Config;
use crate::upstream::Trust;

/// What a core goes by beside the policy.
#[derive(Debug)]
pub(super) struct Settings {
    /// Which config it is; that of the start is 0.
    pub(super) generation: u64,
    pub(super) config: Config,
    /// By which the certificates of upstreams are judged.
    pub(super) trust: Trust,
    /// What the config before it has put into the cache and this one would not.
    pub(super) flushes: Vec<Flush>,
}

/// The settings in force, and those that some core may still have to go through.
#[derive(Debug)]
pub(super) struct Succession(Mutex<Vec<Arc<Settings>>>);

impl Succession {
    /// Begins with `first`.
    pub(super) fn new(first: Settings) -> Self {
        Self(Mutex::new(vec![Arc::new(first)]))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Settings>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `next`, whose policy comes into force behind it.
    pub(super) fn add(&self, next: Settings) {
        self.lock().push(Arc::new(next));
    }

    /// The newest.
    pub(super) fn newest(&self) -> Arc<Settings> {
        Arc::clone(self.lock().last().expect("there are settings from the start"))
    }

    /// Those after the one with the number `after`, up to `generation`.
    pub(super) fn between(&self, after: u64, generation: u64) -> Vec<Arc<Settings>> {
        let all = self.lock();
        let steps = all
            .iter()
            .filter(|settings| settings.generation > after && settings.generation <= generation);
        steps.map(Arc::clone).collect()
    }

    /// Lets go of all but the newest: every core has taken it up.
    pub(super) fn settle(&self) {
        let mut all = self.lock();
        let last = all.len() - 1;
        all.drain(..last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Roots;

    fn settings(generation: u64) -> Settings {
        let trust = Trust::load(&Roots::System, &[]).unwrap();
        Settings { generation, config: Config::default(), trust, flushes: Vec::new() }
    }

    #[test]
    fn core_that_is_late_goes_through_every_step() {
        let succession = Succession::new(settings(0));
        succession.add(settings(1));
        succession.add(settings(2));
        let numbers = |after, generation| -> Vec<u64> {
            let steps = succession.between(after, generation);
            steps.iter().map(|settings| settings.generation).collect()
        };
        assert_eq!((numbers(0, 2), numbers(1, 2), numbers(0, 1)), (vec![1, 2], vec![2], vec![1]));
        succession.settle();
        assert_eq!((numbers(0, 2), succession.newest().generation), (vec![2], 2));
    }
}
