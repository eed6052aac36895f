//! Who asks most, and for what, in bounded memory: the Space-Saving sketch (Metwally, Agrawal, El Abbadi 2005).
//!
//! A sketch holds so many counters. What has none takes over the smallest one, together with its count: so nothing that makes up
//! more than one in so many of all can be missing, and no count is too low.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

/// One of those that were seen most.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hitter {
    /// What was seen.
    pub key: Arc<[u8]>,
    /// How often, at most.
    pub count: u64,
    /// By how much that may be too high.
    pub error: u64,
}

/// The counters.
#[derive(Clone, Debug)]
pub struct Sketch {
    counters: Vec<Counter>,
    /// Numbers of counters, as a heap: that of the smallest one first.
    heap: Vec<usize>,
    /// Numbers of counters, by the hashes of their keys.
    numbers: HashTable<usize>,
    hashing: RandomState,
    counters_max: usize,
}

#[derive(Clone, Debug)]
struct Counter {
    hitter: Hitter,
    hash: u64,
    /// Its place in the heap.
    place: usize,
}

impl Sketch {
    /// A sketch with as many counters, at least one.
    #[must_use]
    pub fn new(counters_max: usize) -> Self {
        Self {
            counters: Vec::new(),
            heap: Vec::new(),
            numbers: HashTable::new(),
            hashing: RandomState::new(),
            counters_max: counters_max.max(1),
        }
    }

    /// Counts `key` as seen so many times.
    pub fn add(&mut self, key: &[u8], times: u64) {
        let Self { counters, heap, numbers, hashing, counters_max } = self;
        let hash = hashing.hash_one(key);
        if let Some(&number) = numbers.find(hash, |&number| *counters[number].hitter.key == *key) {
            let counter = &mut counters[number];
            counter.hitter.count += times;
            let place = counter.place;
            return self.sink(place);
        }
        if counters.len() < *counters_max {
            let (number, place) = (counters.len(), heap.len());
            let hitter = Hitter { key: key.into(), count: times, error: 0 };
            counters.push(Counter { hitter, hash, place });
            heap.push(number);
            numbers.insert_unique(hash, number, |&number| counters[number].hash);
            return self.rise(place);
        }
        let number = heap[0];
        if let Ok(known) = numbers.find_entry(counters[number].hash, |&known| known == number) {
            known.remove();
        }
        let least = &mut counters[number];
        let error = least.hitter.count;
        least.hitter = Hitter { key: key.into(), count: error + times, error };
        least.hash = hash;
        numbers.insert_unique(hash, number, |&number| counters[number].hash);
        self.sink(0);
    }

    /// Halves all counts, so that what was seen of late weighs more.
    pub fn age(&mut self) {
        for Counter { hitter, .. } in &mut self.counters {
            // Order among the counts stays, and with it the heap.
            hitter.count /= 2;
            hitter.error /= 2;
        }
    }

    /// How often something may have been seen that has no counter.
    #[must_use]
    pub fn unseen_max(&self) -> u64 {
        if self.heap.len() < self.counters_max { 0 } else { self.count(0) }
    }

    /// The count at `place` of the heap.
    fn count(&self, place: usize) -> u64 {
        self.counters[self.heap[place]].hitter.count
    }

    fn swap(&mut self, left: usize, right: usize) {
        self.heap.swap(left, right);
        for place in [left, right] {
            self.counters[self.heap[place]].place = place;
        }
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.count(parent) <= self.count(place) {
                return;
            }
            self.swap(parent, place);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let children = [2 * place + 1, 2 * place + 2];
            let children = children.into_iter().filter(|&child| child < self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.count(child)) else { return };
            if self.count(place) <= self.count(least) {
                return;
            }
            self.swap(place, least);
            place = least;
        }
    }
}

/// The `n` that were seen most in all of `sketches` together, most first; equals in the order of their keys.
///
/// What a sketch has no counter for, it may have seen as often as its smallest one says: that counts, and as error, too.
#[must_use]
pub fn merge<'s>(sketches: impl IntoIterator<Item = &'s Sketch>, n: usize) -> Vec<Hitter> {
    let mut unseen_in_all = 0;
    let mut sums: HashMap<Arc<[u8]>, (u64, u64, u64)> = HashMap::new();
    for sketch in sketches {
        let unseen = sketch.unseen_max();
        unseen_in_all += unseen;
        for Counter { hitter, .. } in &sketch.counters {
            let (count, error, covered) = sums.entry(Arc::clone(&hitter.key)).or_default();
            *count += hitter.count;
            *error += hitter.error;
            *covered += unseen;
        }
    }
    let hitters = sums.into_iter().map(|(key, (count, error, covered))| {
        let missing = unseen_in_all - covered;
        Hitter { key, count: count + missing, error: error + missing }
    });
    let mut hitters: Vec<Hitter> = hitters.filter(|hitter| hitter.count > 0).collect();
    hitters.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
    hitters.truncate(n);
    hitters
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(hitters: &[Hitter]) -> Vec<(&[u8], u64, u64)> {
        hitters.iter().map(|hitter| (&*hitter.key, hitter.count, hitter.error)).collect()
    }

    #[test]
    fn newcomer_takes_over_the_smallest_counter() {
        let mut sketch = Sketch::new(2);
        sketch.add(b"a", 5);
        sketch.add(b"b", 2);
        assert_eq!(sketch.unseen_max(), 2);
        sketch.add(b"c", 1);
        assert_eq!(told(&merge([&sketch], 9)), [(&b"a"[..], 5, 0), (b"c", 3, 2)]);
        sketch.age();
        assert_eq!(told(&merge([&sketch], 1)), [(&b"a"[..], 2, 0)]);
    }

    #[test]
    fn what_a_core_may_have_forgotten_counts_in_the_sum() {
        let (mut full, mut roomy) = (Sketch::new(1), Sketch::new(8));
        full.add(b"a", 4);
        roomy.add(b"a", 1);
        roomy.add(b"b", 3);
        assert_eq!(told(&merge([&full, &roomy], 9)), [(&b"b"[..], 7, 4), (b"a", 5, 0)]);
        assert!(merge([], 3).is_empty());
    }

    proptest! {
        #[test]
        fn no_count_is_too_low_or_off_by_more_than_it_says(
            seen in prop::collection::vec((0..2_usize, prop_oneof![0..4_u8, 0..60_u8], 1..5_u64), 0..400),
            counters_max in 1..20_usize,
        ) {
            let mut sketches = [Sketch::new(counters_max), Sketch::new(counters_max)];
            let mut truth: HashMap<u8, u64> = HashMap::new();
            let mut totals = [0, 0];
            for (core, key, times) in seen {
                sketches[core].add(&[key], times);
                *truth.entry(key).or_default() += times;
                totals[core] += times;
            }
            let merged = merge(&sketches, usize::MAX);
            for hitter in &merged {
                let exact = truth[&hitter.key[0]];
                prop_assert!(hitter.count >= exact && hitter.count - hitter.error <= exact);
            }
            for (sketch, total) in sketches.iter().zip(totals) {
                prop_assert!(sketch.unseen_max() <= total / counters_max as u64);
                prop_assert!(sketch.counters.len() <= counters_max);
                let counts = sketch.counters.iter().map(|counter| counter.hitter.count);
                prop_assert_eq!(counts.sum::<u64>(), total);
            }
            let unseen: u64 = sketches.iter().map(Sketch::unseen_max).sum();
            for (key, exact) in truth {
                let is_told = merged.iter().any(|hitter| *hitter.key == [key]);
                prop_assert!(is_told || exact <= unseen);
            }
        }
    }
}
