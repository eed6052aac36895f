//! The policy in force: one thread replaces it as a whole, the cores take it up between two batches.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Policy;

/// Where the policy in force is found.
#[derive(Debug)]
pub struct Published {
    epoch: AtomicU64,
    current: Mutex<Arc<Policy>>,
    /// Replaced, but perhaps still in use.
    retired: Mutex<Vec<Arc<Policy>>>,
}

impl Published {
    /// Begins with `policy`, as epoch 0.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            epoch: AtomicU64::new(0),
            current: Mutex::new(Arc::new(policy)),
            retired: Mutex::default(),
        }
    }

    /// How often the policy was replaced: a reader whose number is another one takes up [`Published::current`].
    #[inline]
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The policy in force, and an epoch that is not later than it.
    #[must_use]
    pub fn current(&self) -> (u64, Arc<Policy>) {
        let epoch = self.epoch();
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (epoch, Arc::clone(&current))
    }

    /// Puts what `change` makes of the policy in force in its place.
    ///
    /// The old one is kept until [`Published::reap`] finds that nobody uses it: giving back the memory of a large one takes
    /// longer than a core may pause.
    pub fn replace(&self, change: impl FnOnce(&Policy) -> Policy) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let replacement = Arc::new(change(&current));
        let old = std::mem::replace(&mut *current, replacement);
        self.epoch.fetch_add(1, Ordering::Release);
        drop(current);
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(old);
    }

    /// Drops what nobody uses any more; says how many are still in use. For the thread that replaces, from time to time.
    pub fn reap(&self) -> usize {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|policy| Arc::strong_count(policy) > 1);
        retired.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Config};
    use crate::policy::{Acl, Identity, LocalData};

    fn policy() -> Policy {
        let config = Config::default();
        Policy::new(Acl::new(&config.acl), Identity::new(&config.identity), LocalData::default())
    }

    #[test]
    fn reader_finds_what_was_published_last() {
        let published = Published::new(policy());
        let (epoch, first) = published.current();
        assert_eq!((epoch, published.epoch()), (0, 0));
        assert!(first.serves([127, 0, 0, 1].into()));
        let nobody = Acl::new(&config::Acl { allow: Vec::new() });
        published.replace(|_| {
            Policy::new(nobody, Identity::new(&config::Identity::default()), LocalData::default())
        });
        assert_eq!(published.epoch(), 1);
        assert!(!published.current().1.serves([127, 0, 0, 1].into()));
    }

    #[test]
    fn replaced_policy_stays_as_long_as_it_is_used() {
        let published = Published::new(policy());
        let (_, used) = published.current();
        published.replace(|_| policy());
        assert_eq!(published.reap(), 1);
        drop(used);
        assert_eq!(published.reap(), 0);
    }
}
