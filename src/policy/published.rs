//! The policy in force: one thread replaces it as a whole, the cores take it up between two batches.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use super::Policy;

/// Where the policy in force is found.
#[derive(Debug)]
pub struct Published {
    epoch: AtomicU64,
    /// Held for the moment of an exchange: cores wait for nobody who may be slow.
    current: Mutex<Arc<Policy>>,
    /// Held while a replacement is made: two that are made at a time would lose one of them.
    writer: Mutex<()>,
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
            writer: Mutex::new(()),
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

    /// As [`Published::current`]; `None` while it is being exchanged: the next batch is early enough.
    #[must_use]
    pub fn current_if_free(&self) -> Option<(u64, Arc<Policy>)> {
        let epoch = self.epoch();
        let current = match self.current.try_lock() {
            Ok(current) => current,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some((epoch, Arc::clone(&current)))
    }

    /// Puts what `change` makes of the policy in force in its place.
    ///
    /// The old one is kept until [`Published::reap`] finds that nobody uses it: giving back the memory of a large one takes
    /// longer than a core may pause.
    pub fn replace(&self, change: impl FnOnce(&Policy) -> Policy) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, old) = self.current();
        let replacement = Arc::new(change(&old));
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = replacement;
        self.epoch.fetch_add(1, Ordering::Release);
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(old);
    }

    /// Drops what nobody uses any more; says how many are still in use. For the thread that replaces, from time to time.
    pub fn reap(&self) -> usize {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let (unused, used): (Vec<_>, Vec<_>) =
            retired.drain(..).partition(|policy| Arc::strong_count(policy) == 1);
        let count = used.len();
        *retired = used;
        drop(retired);
        // Only now, because it may take long: others want to retire theirs meanwhile.
        drop(unused);
        count
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
    fn core_does_not_wait_for_an_exchange() {
        let published = Published::new(policy());
        let exchange = published.current.lock().unwrap();
        assert!(published.current_if_free().is_none());
        drop(exchange);
        assert_eq!(published.current_if_free().map(|(epoch, _)| epoch), Some(0));
        // While a replacement is made, the old policy counts.
        published.replace(|_| {
            assert!(published.current_if_free().is_some());
            policy()
        });
        assert_eq!(published.epoch(), 1);
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
