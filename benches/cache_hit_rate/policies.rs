//! Caches to compare with, all of a given number of entries: plain LRU, S3-FIFO, and moka's W-TinyLFU.

use std::collections::{HashMap, HashSet, VecDeque};

use ahash::RandomState;

use super::Cache;
use super::lru::{Lru, hasher};

impl Cache for Lru {
    fn request(&mut self, name: u32) -> bool {
        Self::request(self, name)
    }
}

/// S3-FIFO: a small queue for newcomers, a main queue with second chances, a queue of names that had to go.
///
/// Yang, Zhang, Qiu, Yue, Vigfusson: FIFO queues are all you need for cache eviction, SOSP 2023, algorithm 1.
pub(super) struct S3Fifo {
    entries: usize,
    small_entries: usize,
    accesses: HashMap<u32, u8, RandomState>,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    ghosts: VecDeque<u32>,
    is_ghost: HashSet<u32, RandomState>,
}

impl S3Fifo {
    /// Counts of accesses end here.
    const ACCESSES_MAX: u8 = 3;

    /// An empty cache for `entries` entries, a tenth of them for newcomers.
    pub(super) fn new(entries: usize) -> Self {
        Self {
            entries,
            small_entries: entries / 10,
            accesses: HashMap::with_hasher(hasher()),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            is_ghost: HashSet::with_hasher(hasher()),
        }
    }

    fn evict(&mut self) {
        if self.small.len() >= self.small_entries || self.main.is_empty() {
            self.evict_from_small();
        } else {
            self.evict_from_main();
        }
    }

    fn evict_from_small(&mut self) {
        while let Some(name) = self.small.pop_front() {
            if self.accesses[&name] > 1 {
                self.accesses.insert(name, 0);
                self.main.push_back(name);
                if self.main.len() >= self.entries - self.small_entries {
                    self.evict_from_main();
                }
                continue;
            }
            self.accesses.remove(&name);
            self.remember(name);
            return;
        }
    }

    fn evict_from_main(&mut self) {
        while let Some(name) = self.main.pop_front() {
            let accesses = self.accesses[&name];
            if accesses == 0 {
                self.accesses.remove(&name);
                return;
            }
            self.accesses.insert(name, accesses - 1);
            self.main.push_back(name);
        }
    }

    fn remember(&mut self, name: u32) {
        self.is_ghost.insert(name);
        self.ghosts.push_back(name);
        if self.ghosts.len() > self.entries - self.small_entries
            && let Some(oldest) = self.ghosts.pop_front()
        {
            self.is_ghost.remove(&oldest);
        }
    }
}

impl Cache for S3Fifo {
    fn request(&mut self, name: u32) -> bool {
        if let Some(accesses) = self.accesses.get_mut(&name) {
            *accesses = (*accesses + 1).min(Self::ACCESSES_MAX);
            return true;
        }
        while self.accesses.len() >= self.entries {
            self.evict();
        }
        self.accesses.insert(name, 0);
        let queue = if self.is_ghost.remove(&name) { &mut self.main } else { &mut self.small };
        queue.push_back(name);
        false
    }
}

/// The crate moka: W-TinyLFU, as Caffeine has it.
pub(super) struct Moka {
    cache: moka::sync::Cache<u32, (), RandomState>,
    requests: u64,
}

impl Moka {
    /// Its upkeep runs after so many accesses; left to itself it does so by the clock.
    const UPKEEP_ACCESSES: u64 = 64;

    /// An empty cache for `entries` entries.
    pub(super) fn new(entries: usize) -> Self {
        let builder = moka::sync::Cache::builder().max_capacity(entries as u64);
        Self { cache: builder.build_with_hasher(hasher()), requests: 0 }
    }
}

impl Cache for Moka {
    fn request(&mut self, name: u32) -> bool {
        self.requests += 1;
        if self.requests.is_multiple_of(Self::UPKEEP_ACCESSES) {
            self.cache.run_pending_tasks();
        }
        let is_hit = self.cache.get(&name).is_some();
        if !is_hit {
            self.cache.insert(name, ());
        }
        is_hit
    }
}
