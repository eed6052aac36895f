//! Keys that stand once each in a block, numbered in the order in which they were met.

use ahash::RandomState;
use hashbrown::HashTable;

use super::{Seen, short};

/// Octets of all keys, and what is known of each.
#[derive(Debug)]
pub(super) struct Dictionary {
    hashing: RandomState,
    octets: Vec<u8>,
    known: Vec<Known>,
    numbers: HashTable<u16>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    hash: u64,
    begin: usize,
    end: usize,
    count: u32,
    blocked: u32,
}

impl Dictionary {
    pub(super) fn new(hashing: RandomState) -> Self {
        Self { hashing, octets: Vec::new(), known: Vec::new(), numbers: HashTable::new() }
    }

    /// The number of `key`, which is seen once more, and once more blocked.
    #[inline]
    pub(super) fn number(&mut self, key: &[u8], is_blocked: bool) -> u16 {
        let Self { hashing, octets, known, numbers } = self;
        let hash = hashing.hash_one(key);
        let is_it = |&number: &u16| {
            let Known { begin, end, .. } = known[usize::from(number)];
            octets[begin..end] == *key
        };
        let number = match numbers.find(hash, is_it) {
            Some(&number) => number,
            None => {
                let number = short(known.len());
                let begin = octets.len();
                octets.extend_from_slice(key);
                known.push(Known { hash, begin, end: octets.len(), count: 0, blocked: 0 });
                numbers.insert_unique(hash, number, |&number| known[usize::from(number)].hash);
                number
            }
        };
        let known = &mut known[usize::from(number)];
        known.count += 1;
        known.blocked += u32::from(is_blocked);
        number
    }

    pub(super) fn seen(&self) -> impl Iterator<Item = Seen<'_>> {
        self.known.iter().map(|&Known { begin, end, count, blocked, .. }| Seen {
            key: &self.octets[begin..end],
            count,
            blocked,
        })
    }

    pub(super) const fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.octets.len()
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    pub(super) fn clear(&mut self) {
        self.octets.clear();
        self.known.clear();
        self.numbers.clear();
    }
}
