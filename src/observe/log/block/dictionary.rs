//! Keys that stand once each in a block, numbered in the order in which they were met.

use ahash::RandomState;
use hashbrown::HashTable;

use super::{Seen, short};

/// Places in which keys of late are looked for first: as many as a block has records, so that few share one.
const PLACES: usize = super::RECORDS_MAX;

const WORD_BYTES: usize = 8;

/// Octets of all keys, and what is known of each.
#[derive(Debug)]
pub(super) struct Dictionary {
    hashing: RandomState,
    octets: Vec<u8>,
    known: Vec<Known>,
    numbers: HashTable<u16>,
    /// The number of the key that was met last of all that have this place.
    recent: Box<[u16; PLACES]>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    hash: u64,
    /// Where it begins. A block is full long before there are more octets than this can say.
    begin: u32,
    len: u32,
    count: u32,
    blocked: u32,
}

impl Known {
    #[inline]
    fn key<'o>(&self, octets: &'o [u8]) -> &'o [u8] {
        let [begin, len] = [self.begin, self.len].map(|number| number as usize);
        octets.get(begin..begin + len).unwrap_or_default()
    }

    #[inline]
    fn note(&mut self, is_blocked: bool) {
        self.count += 1;
        self.blocked += u32::from(is_blocked);
    }
}

impl Dictionary {
    pub(super) fn new(hashing: RandomState) -> Self {
        Self {
            hashing,
            octets: Vec::new(),
            known: Vec::new(),
            numbers: HashTable::new(),
            recent: Box::new([0; PLACES]),
        }
    }

    /// The number of `key`, which is seen once more, and once more blocked, if it is met where it was met last.
    #[inline]
    pub(super) fn recent(&mut self, key: &[u8], is_blocked: bool) -> Option<u16> {
        let number = self.recent[place(key)];
        let known = self.known.get_mut(usize::from(number))?;
        if !is_same(known.key(&self.octets), key) {
            return None;
        }
        known.note(is_blocked);
        Some(number)
    }

    /// The number of `key`, which is seen once more, and once more blocked.
    #[inline]
    pub(super) fn number(&mut self, key: &[u8], is_blocked: bool) -> u16 {
        let recent = self.recent(key, is_blocked);
        recent.unwrap_or_else(|| self.searched(key, is_blocked))
    }

    fn searched(&mut self, key: &[u8], is_blocked: bool) -> u16 {
        let Self { hashing, octets, known, numbers, recent } = self;
        let hash = hashing.hash_one(key);
        let is_it = |&number: &u16| known[usize::from(number)].key(octets) == key;
        let number = match numbers.find(hash, is_it) {
            Some(&number) => number,
            None => {
                let number = short(known.len());
                let [begin, len] = [octets.len(), key.len()].map(long);
                octets.extend_from_slice(key);
                known.push(Known { hash, begin, len, count: 0, blocked: 0 });
                numbers.insert_unique(hash, number, |&number| known[usize::from(number)].hash);
                number
            }
        };
        recent[place(key)] = number;
        known[usize::from(number)].note(is_blocked);
        number
    }

    pub(super) fn seen(&self) -> impl Iterator<Item = Seen<'_>> {
        self.known.iter().map(|known| Seen {
            key: known.key(&self.octets),
            count: known.count,
            blocked: known.blocked,
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

    /// Numbers in `recent` stay: a key is compared before one counts.
    pub(super) fn clear(&mut self) {
        self.octets.clear();
        self.known.clear();
        self.numbers.clear();
    }
}

/// Where `key` is looked for first, by its length and its first and last octets: keys that share a place cost a search each.
#[inline]
fn place(key: &[u8]) -> usize {
    /// Odd and of no pattern, so that a product's upper bits hang on all bits of what is multiplied (Fibonacci hashing).
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    const BITS: u32 = PLACES.trailing_zeros();
    let word = |chunk: Option<&[u8; WORD_BYTES]>| chunk.map_or(0, |it| u64::from_le_bytes(*it));
    let (first, last) = (word(key.first_chunk()), word(key.last_chunk()));
    let second = word(key.get(WORD_BYTES..).and_then(<[u8]>::first_chunk));
    let mixed = (first ^ key.len() as u64).wrapping_mul(FACTOR) ^ second;
    let mixed = (mixed.wrapping_mul(FACTOR) ^ last).wrapping_mul(FACTOR);
    usize::try_from(mixed >> (u64::BITS - BITS)).unwrap_or(0)
}

const _: () = assert!(PLACES.is_power_of_two());

/// Whether both are the same; most are some words long, for which a call would cost more.
#[inline]
fn is_same(left: &[u8], right: &[u8]) -> bool {
    let (words, rest) = left.as_chunks::<WORD_BYTES>();
    let (others, other_rest) = right.as_chunks();
    let is_equal = |(left, right): (&[u8; WORD_BYTES], &[u8; WORD_BYTES])| {
        u64::from_le_bytes(*left) == u64::from_le_bytes(*right)
    };
    if left.len() != right.len() || !words.iter().zip(others).all(is_equal) {
        return false;
    }
    // Octets in front of the rest are compared twice, together with it.
    let ends = (left.last_chunk(), right.last_chunk());
    if let (Some(left), Some(right)) = ends { is_equal((left, right)) } else { rest == other_rest }
}

/// A count of octets: see [`Known::begin`].
fn long(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keys of few octets, so that some are the same and some share a place.
    fn keys() -> impl Strategy<Value = Vec<(Vec<u8>, bool)>> {
        let key = prop::collection::vec(0..2_u8, 0..20);
        prop::collection::vec((key, any::<bool>()), 0..300)
    }

    proptest! {
        #[test]
        fn each_key_has_one_number_and_is_counted(blocks in prop::collection::vec(keys(), 1..4)) {
            let mut dictionary = Dictionary::new(RandomState::new());
            for keys in blocks {
                let mut model: Vec<(Vec<u8>, u32, u32)> = Vec::new();
                for (key, is_blocked) in keys {
                    let at = model.iter().position(|(known, ..)| *known == key);
                    let at = at.unwrap_or_else(|| {
                        model.push((key.clone(), 0, 0));
                        model.len() - 1
                    });
                    model[at].1 += 1;
                    model[at].2 += u32::from(is_blocked);
                    prop_assert_eq!(usize::from(dictionary.number(&key, is_blocked)), at);
                }
                let seen = dictionary.seen().map(|seen| (seen.key.to_vec(), seen.count, seen.blocked));
                prop_assert_eq!(seen.collect::<Vec<_>>(), model);
                // Nothing of a block is left in the next one.
                dictionary.clear();
                prop_assert_eq!((dictionary.len(), dictionary.bytes()), (0, 0));
            }
        }

        #[test]
        fn octets_are_the_same_only_if_all_are(octets in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(is_same(&octets, &octets.clone()));
            for at in 0..octets.len() {
                let mut other = octets.clone();
                other[at] ^= 1;
                prop_assert!(!is_same(&octets, &other) && !is_same(&octets, &octets[..at]));
            }
        }
    }
}
