//! Plain LRU: who was not asked for longest has to go.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

/// The same in every run.
pub(super) fn hasher() -> RandomState {
    RandomState::with_seeds(1, 2, 3, 4)
}

/// A cache of names that keeps those asked for last.
pub(super) struct Lru {
    entries: usize,
    /// When each name was asked for last.
    last: HashMap<u32, u64, RandomState>,
    /// All requests in order; those that are not the last for their name are passed over.
    requests: VecDeque<(u32, u64)>,
    clock: u64,
}

impl Lru {
    /// An empty cache for `entries` entries.
    pub(super) fn new(entries: usize) -> Self {
        let last = HashMap::with_hasher(hasher());
        Self { entries, last, requests: VecDeque::new(), clock: 0 }
    }

    /// Asks for `name`, and stores it if it is not there; says whether it was.
    pub(super) fn request(&mut self, name: u32) -> bool {
        self.clock += 1;
        self.requests.push_back((name, self.clock));
        let is_hit = self.last.insert(name, self.clock).is_some();
        while self.last.len() > self.entries {
            let (oldest, then) = self.requests.pop_front().expect("each name has a request");
            if self.last[&oldest] == then {
                self.last.remove(&oldest);
            }
        }
        is_hit
    }
}
