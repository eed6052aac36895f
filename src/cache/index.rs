//! Hot path. From hash to slot: many small hash tables instead of one large.
//!
//! hashbrown leaves tombstones where a full neighbourhood loses an entry, and clears them by rehashing the whole table,
//! or doubles it when more than half of its capacity is in use. In one table of a million entries that is a stall of
//! tens of milliseconds; in segments of at most [`SEGMENT_ENTRIES`] it is some ten microseconds, and never a doubling.

use hashbrown::HashTable;

use super::slab::SlotId;

/// Entries per segment at the most, on average: 2 048 buckets rehash in place up to 896 entries, and three standard
/// deviations must lie between.
const SEGMENT_ENTRIES: usize = 800;

/// Bytes of a segment: 2 048 buckets of a slot number and a control byte.
const SEGMENT_BYTES: usize = 2_048 * (size_of::<SlotId>() + 1) + size_of::<HashTable<SlotId>>();

/// A segmented hash index of slots.
#[derive(Debug)]
pub(super) struct Index {
    segments: Box<[HashTable<SlotId>]>,
    len: usize,
}

impl Index {
    /// An index for at least `entries` entries, at their full number already at its final size.
    pub(super) fn new(entries: usize) -> Self {
        let count = entries.div_ceil(SEGMENT_ENTRIES).max(1);
        Self { segments: (0..count).map(|_| HashTable::new()).collect(), len: 0 }
    }

    /// Bytes that an index for `entries` entries takes when full.
    pub(super) fn bytes_for(entries: usize) -> usize {
        entries.div_ceil(SEGMENT_ENTRIES).max(1) * SEGMENT_BYTES
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.segments.iter().map(|table| table.allocation_size() + size_of_val(table)).sum()
    }

    /// Entries held.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether one more entry would crowd the segments.
    pub(super) fn is_full(&self) -> bool {
        self.len >= self.segments.len() * SEGMENT_ENTRIES
    }

    /// The slot with `hash` that `is_it`.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl FnMut(&SlotId) -> bool) -> Option<SlotId> {
        self.segments[self.segment(hash)].find(hash, is_it).copied()
    }

    /// Adds a slot whose key is not there yet.
    pub(super) fn insert(&mut self, hash: u64, id: SlotId, rehash: impl Fn(&SlotId) -> u64) {
        self.len += 1;
        self.segments[self.segment(hash)].insert_unique(hash, id, rehash);
    }

    /// Takes out the slot with `hash` that `is_it`.
    pub(super) fn remove(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&SlotId) -> bool,
    ) -> Option<SlotId> {
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::cache::slab::{Claim, Slab};

    /// A hash with well-mixed bits (the finalizer of SplitMix64).
    fn mix(number: u64) -> u64 {
        let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ number >> 31
    }

    #[test]
    fn churn_at_full_size_never_grows_the_index() {
        let entries = 40_000;
        let mut slab = Slab::new(64 << 20);
        let ids: Vec<SlotId> = (0..entries)
            .map(|_| match slab.claim(64, |_| false) {
                Claim::Slot(id) => id,
                other => panic!("{other:?}"),
            })
            .collect();
        let mut index = Index::new(entries);
        let mut hashes: Vec<u64> = (0..entries as u64).map(mix).collect();
        let places: HashMap<SlotId, usize> = ids.iter().copied().zip(0..).collect();
        for (hash, &id) in hashes.iter().zip(&ids) {
            index.insert(*hash, id, |id| hashes[places[id]]);
        }
        assert!(index.is_full());
        for round in 0..400_000u64 {
            let place = usize::try_from(mix(round) % entries as u64).unwrap();
            assert_eq!(index.remove(hashes[place], |&id| id == ids[place]), Some(ids[place]));
            hashes[place] = mix(round + 1_000_000);
            index.insert(hashes[place], ids[place], |id| hashes[places[id]]);
        }
        assert_eq!(index.len(), entries);
        assert!(index.bytes() <= Index::bytes_for(entries) * 21 / 20, "{}", index.bytes());
        for (hash, id) in hashes.iter().zip(&ids) {
            assert_eq!(index.find(*hash, |other| other == id), Some(*id));
        }
    }
}
