//! Hot path. From hash to place: many small hash tables instead of one large.
//!
//! hashbrown leaves tombstones where a full neighbourhood loses an entry; once they have used a table up, it rehashes or
//! doubles it. In one table of a million entries that is a stall of tens of milliseconds; in segments of some
//! [`SEGMENT_ENTRIES`] entries it hashes at most [`SEGMENT_CAPACITY`] keys out of the slab: some ten microseconds while
//! they lie in the CPU's cache, more where they do not. A segment is rebuilt at its size, never doubled.

use hashbrown::HashTable;

use super::slab::Place;

/// Buckets of a segment that is not overcrowded.
const SEGMENT_BUCKETS: usize = 2_048;

/// What hashbrown puts into so many buckets before it grows.
const SEGMENT_CAPACITY: usize = SEGMENT_BUCKETS / 8 * 7;

/// Entries per segment on average, as laid out: ten standard deviations below the capacity, so that there is room for
/// tombstones.
const SEGMENT_ENTRIES: usize = 1_400;

/// Entries per segment on average, at most.
const SEGMENT_ENTRIES_MAX: usize = 1_420;

/// Bytes of a segment: buckets of a place and a control byte.
const SEGMENT_BYTES: usize =
    SEGMENT_BUCKETS * (size_of::<Place>() + 1) + size_of::<HashTable<Place>>();

/// A segmented hash index of places.
#[derive(Debug)]
pub(super) struct Index {
    segments: Box<[HashTable<Place>]>,
    len: usize,
    bytes: usize,
}

impl Index {
    /// An index for at least `entries` entries, at their full number already at its final size.
    pub(super) fn new(entries: usize) -> Self {
        let count = entries.div_ceil(SEGMENT_ENTRIES).max(1);
        let segments: Box<[_]> = (0..count).map(|_| HashTable::new()).collect();
        Self { len: 0, bytes: size_of_val(&*segments), segments }
    }

    /// Bytes that an index for `entries` entries takes when full.
    pub(super) fn bytes_for(entries: usize) -> usize {
        entries.div_ceil(SEGMENT_ENTRIES).max(1) * SEGMENT_BYTES
    }

    /// Bytes in use.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Entries held.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// How many segments there are. An entry stays in its segment as long as it lives.
    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    /// All places of one segment, in no order.
    pub(super) fn segment_places(&self, number: usize) -> impl Iterator<Item = Place> {
        self.segments[number].iter().copied()
    }

    /// Whether there are as many entries as it was laid out for.
    pub(super) const fn is_crowded(&self) -> bool {
        self.len >= self.segments.len() * SEGMENT_ENTRIES
    }

    /// Whether there must not be any more.
    pub(super) const fn is_full(&self) -> bool {
        self.len >= self.segments.len() * SEGMENT_ENTRIES_MAX
    }

    /// The place with `hash` that `is_it`.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl FnMut(&Place) -> bool) -> Option<Place> {
        self.segments[self.segment(hash)].find(hash, is_it).copied()
    }

    /// Adds a place whose key is not there yet.
    pub(super) fn insert(&mut self, hash: u64, id: Place, rehash: impl Fn(&Place) -> u64) {
        self.len += 1;
        let place = self.segment(hash);
        let table = &mut self.segments[place];
        if table.len() < table.capacity() {
            table.insert_unique(hash, id, rehash);
            return;
        }
        self.bytes -= table.allocation_size();
        // With tombstones its capacity sinks, its allocation does not.
        if table.allocation_size() >= SEGMENT_BUCKETS * size_of::<Place>() {
            rebuild(table, &rehash);
        }
        table.insert_unique(hash, id, rehash);
        self.bytes += table.allocation_size();
    }

    /// Puts `to` where `from` stands.
    ///
    /// # Panics
    /// When `from` is not there: index and slab change together.
    pub(super) fn replace(&mut self, hash: u64, from: Place, to: Place) {
        let place = self.segment(hash);
        let entry = self.segments[place].find_mut(hash, |&id| id == from);
        *entry.expect("index entry exists: index and slab change together") = to;
    }

    /// Forgets all entries.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.segments.iter_mut().for_each(HashTable::clear);
    }

    /// Takes out the place with `hash` that `is_it`.
    pub(super) fn remove(&mut self, hash: u64, is_it: impl FnMut(&Place) -> bool) -> Option<Place> {
        let entry = self.segments[self.segment(hash)].find_entry(hash, is_it).ok()?;
        self.len -= 1;
        Some(entry.remove().0)
    }

    /// Bits 16 to 47 choose the segment: hashbrown uses those below for the bucket and those above for the tag.
    fn segment(&self, hash: u64) -> usize {
        let chosen = hash >> 16 & u64::from(u32::MAX);
        ((chosen * self.segments.len() as u64) >> 32) as usize
    }
}

/// Rids `table` of its tombstones. It keeps its size unless the entries themselves fill it.
fn rebuild(table: &mut HashTable<Place>, rehash: &impl Fn(&Place) -> u64) {
    let mut rebuilt = HashTable::with_capacity(table.len().max(SEGMENT_CAPACITY));
    for place in table.drain() {
        rebuilt.insert_unique(rehash(&place), place, rehash);
    }
    *table = rebuilt;
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A hash with well-mixed bits (the finalizer of SplitMix64).
    fn mix(number: u64) -> u64 {
        let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ number >> 31
    }

    #[test]
    fn churn_at_full_size_never_grows_the_index() {
        let entries = 42_000;
        let places: Vec<Place> =
            (0..entries).map(|at| Place::new(at / 1000, at as usize % 1000 * 4)).collect();
        let mut index = Index::new(entries as usize);
        let mut hashes: Vec<u64> = (0..u64::from(entries)).map(mix).collect();
        let numbers: HashMap<Place, usize> = places.iter().copied().zip(0..).collect();
        for (hash, &place) in hashes.iter().zip(&places) {
            index.insert(*hash, place, |place| hashes[numbers[place]]);
        }
        assert!(index.is_crowded() && !index.is_full());
        for round in 0..3_000_000u64 {
            let at = usize::try_from(mix(round) % u64::from(entries)).unwrap();
            assert_eq!(index.remove(hashes[at], |&id| id == places[at]), Some(places[at]));
            hashes[at] = mix(round + 10_000_000);
            index.insert(hashes[at], places[at], |place| hashes[numbers[place]]);
        }
        assert_eq!(index.len(), entries as usize);
        assert_eq!(index.bytes(), index.segments.len() * allocation());
        assert!(index.bytes() <= Index::bytes_for(entries as usize) * 21 / 20);
        for (hash, place) in hashes.iter().zip(&places) {
            assert_eq!(index.find(*hash, |other| other == place), Some(*place));
        }
        index.replace(hashes[0], places[0], Place::new(999, 0));
        let moved = Place::new(999, 0);
        assert_eq!(index.find(hashes[0], |&place| place == moved), Some(moved));
        index.clear();
        assert_eq!((index.len(), index.find(hashes[1], |_| true)), (0, None));
    }

    fn allocation() -> usize {
        let table = HashTable::<Place>::with_capacity(SEGMENT_CAPACITY);
        table.allocation_size() + size_of_val(&table)
    }
}
