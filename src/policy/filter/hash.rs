//! Hot path. The keyed hash of names: over blocks of sixteen octets from the end on, so that a name and all its ancestors have
//! the blocks in common, and no ancestor waits for the hash of another.
//!
//! Part of the form of an image: a change here is a new version there. The key is secret and drawn anew for every image,
//! so nobody can aim collisions; they would cost time alone, since names are compared in the end.

use super::layout::STEM_WORDS;
use crate::wire::name::NAME_BYTES_MAX;

/// Odd, and without pattern: 2^64 over the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The key of an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Key {
    octets: u64,
    pub(super) root: u64,
}

impl Key {
    /// The key that an image gets from what its maker was handed: without pattern even where that has one. Factors of
    /// `fold` with a pattern, such as eight equal octets, lose part of what they are multiplied with.
    pub(super) fn spread(secret: [u8; 16]) -> [u8; 16] {
        let given = Self::of(secret);
        let octets = mixed(given.octets.wrapping_add(SPREAD));
        let root = mixed(given.root ^ octets);
        let mut key = [0; 16];
        key[..8].copy_from_slice(&octets.to_le_bytes());
        key[8..].copy_from_slice(&root.to_le_bytes());
        key
    }

    pub(super) fn of(bytes: [u8; 16]) -> Self {
        let both = u128::from_le_bytes(bytes);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        let lower = both as u64;
        Self { octets: lower, root: (both >> 64) as u64 }
    }

    /// Takes sixteen octets into a hash.
    #[inline]
    fn chain(self, hash: u64, octets: u128) -> u64 {
        let (front, back) = halves(octets);
        fold(front ^ self.octets, back ^ hash)
    }

    /// Takes in the blocks of a long name but for the last two.
    #[inline(never)]
    fn chain_on(self, octets: &[u8], states: &mut [u64; STATES]) {
        let mut hash = states[2];
        for (state, octets) in states.iter_mut().skip(3).zip(octets.rchunks_exact(BLOCK).skip(2)) {
            hash = self.chain(hash, block(octets, 0));
            *state = hash;
        }
    }
}

/// Octets that are hashed and compared at a time.
pub(super) const BLOCK: usize = 16;

/// Such blocks in a name, and one more for none.
const STATES: usize = NAME_BYTES_MAX / BLOCK + 1;

/// What lies beside a name while it is looked up.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// A name that is shorter than a block.
    short: [u8; BLOCK],
    /// The hashes of no, one, two ... blocks, from the end of the name on. Those that the name does not fill mean nothing.
    states: [u64; STATES],
}

/// A name in wire form, root included, and what is needed to hash and compare it and all its ancestors: each of them is
/// given by its octets, root included, counted from the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suffixes<'a> {
    /// The name; if it is shorter than a block, with zeroes before it.
    octets: &'a [u8],
    key: u64,
    states: &'a [u64; STATES],
}

impl<'a> Suffixes<'a> {
    /// Takes `name` as it is, or, if it is too short, in `room`.
    #[inline]
    pub(super) fn of(key: Key, name: &'a [u8], room: &'a mut Room) -> Self {
        let Room { short, states } = room;
        let octets = if name.len() >= BLOCK {
            name
        } else {
            *short = right_aligned(name);
            short
        };
        // Two blocks, whether the name fills them or not: the processor could not guess.
        let ends = octets.len();
        let first = key.chain(key.root, block(octets, ends - BLOCK));
        let second = key.chain(first, block(octets, ends.saturating_sub(2 * BLOCK)));
        (states[0], states[1], states[2]) = (key.root, first, second);
        if ends >= 3 * BLOCK {
            key.chain_on(octets, states);
        }
        Self { octets, key: key.octets, states }
    }

    /// The hash of the last `len` octets.
    #[inline]
    pub(super) fn hash(&self, len: usize) -> u64 {
        // The first block of the suffix may lie over blocks that are hashed already. Only if the suffix has no more than that
        // block, others could be before it.
        let first = block(self.octets, self.octets.len().wrapping_sub(len.max(BLOCK)));
        let (front, back) = halves(first & LAST[len.min(BLOCK)]);
        let state = self.states[len / BLOCK % STATES];
        let len = (len as u64).wrapping_mul(SPREAD);
        fold(front ^ self.key, (back ^ state).wrapping_add(len))
    }

    /// What is left of the last `len` octets without their first label: at least the root.
    #[inline]
    pub(super) fn parent(&self, len: usize) -> usize {
        let label = self.octets.get(self.octets.len().wrapping_sub(len)).copied();
        len.saturating_sub(usize::from(label.unwrap_or_default()) + 1).max(1)
    }

    /// Whether `bytes` begin with the last `len` octets, the root left out, at least one. A whole block must lie in `bytes`
    /// wherever the name begins; without it, it is not there.
    #[inline]
    pub(super) fn begin(&self, len: usize, bytes: &[u8]) -> bool {
        let (ends, owner) = (self.octets.len(), len - 1);
        let first = block(self.octets, ends.saturating_sub(len.max(BLOCK)));
        let first = first >> ((8 * (BLOCK - len.min(BLOCK))) & 127);
        let Some(there) = bytes.first_chunk() else { return false };
        let other =
            (u128::from_le_bytes(*there) ^ first) << ((8 * (BLOCK - owner.min(BLOCK))) & 127);
        if other != 0 {
            return false;
        }
        // The rest: what a block from the end holds, and for longer names all.
        owner <= BLOCK
            || match (self.octets.get(ends - len + BLOCK..ends - 1), bytes.get(BLOCK..owner)) {
                (Some(ours), Some(theirs)) if owner > 2 * BLOCK => ours == theirs,
                (Some(_), Some(_)) => {
                    block(self.octets, ends - 1 - BLOCK) == block(bytes, owner - BLOCK)
                }
                _ => false,
            }
    }
}

/// The block that begins at `at`; zero if it does not lie within.
#[inline]
fn block(octets: &[u8], at: usize) -> u128 {
    let block = octets.get(at..).and_then(|octets| octets.first_chunk());
    block.map_or(0, |block| u128::from_le_bytes(*block))
}

/// Fewer octets than a block, with zeroes before them.
#[inline]
fn right_aligned(octets: &[u8]) -> [u8; BLOCK] {
    if let (Some(first), Some(last)) = (octets.first_chunk(), octets.last_chunk()) {
        // Where both lie over each other they are the same.
        let first = u128::from(u64::from_le_bytes(*first)) << ((8 * (BLOCK - octets.len())) & 127);
        return (first | u128::from(u64::from_le_bytes(*last)) << 64).to_le_bytes();
    }
    let mut aligned = [0; BLOCK];
    aligned.iter_mut().rev().zip(octets.iter().rev()).for_each(|(to, from)| *to = *from);
    aligned
}

/// What leaves the last octets of a block: none, one, two ... all.
const LAST: [u128; BLOCK + 1] = {
    let mut masks = [0; BLOCK + 1];
    let mut count = 1;
    while count <= BLOCK {
        masks[count] = u128::MAX << (8 * (BLOCK - count));
        count += 1;
    }
    masks
};

/// The last step of SplitMix64.
const fn mixed(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
const fn halves(word: u128) -> (u64, u64) {
    (word as u64, (word >> 64) as u64)
}

/// Both halves of the product, laid over each other: every bit of the result depends on all bits of both.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

/// Which of `stems` stems a hash belongs to, and which of their words: by its upper half, so that sorted hashes fill words in order.
#[inline]
pub(super) fn place(hash: u64, stems: usize) -> (usize, usize) {
    let (within, stem) = halves(u128::from(hash) * stems as u128);
    let (_, word) = halves(u128::from(within) * STEM_WORDS as u128);
    #[expect(clippy::cast_possible_truncation, reason = "both are below what they are places of")]
    (stem as usize, word as usize)
}

/// The bits that a name has in its word of the filter: four at most, by the lower half of the hash.
#[inline]
pub(super) fn filter_bits(hash: u64) -> u64 {
    let bit = |shift: u32| 1_u64 << (hash >> shift & 63);
    bit(0) | bit(6) | bit(12) | bit(18)
}

/// The tag of a name on its page.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "one octet is meant")]
pub(super) const fn tag(hash: u64) -> u8 {
    (hash >> 24) as u8
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn hash(key: Key, suffix: &[u8]) -> u64 {
        let mut room = Room::default();
        let alone = Suffixes::of(key, suffix, &mut room).hash(suffix.len());
        for before in [1, 2, 13, 15, 16, 17, 33, 48] {
            let octets = [&vec![b'<'; before], suffix].concat();
            let mut room = Room::default();
            let within = Suffixes::of(key, &octets, &mut room).hash(suffix.len());
            assert_eq!(within, alone, "{} {before}", suffix.len());
        }
        alone
    }

    #[test]
    fn every_octet_and_length_matters_and_what_stands_before_does_not() {
        let key = Key::of(Key::spread([7; 16]));
        let mut seen = HashSet::new();
        for len in 1..=200 {
            for fill in [0, b'a'] {
                let mut suffix = vec![fill; len];
                assert!(seen.insert(hash(key, &suffix)), "{len}");
                for at in 0..len {
                    suffix[at] = fill ^ 0x80;
                    assert!(seen.insert(hash(key, &suffix)), "{len} {at}");
                    suffix[at] = fill;
                }
            }
        }
        assert!(seen.insert(hash(Key::of(Key::spread([8; 16])), b"a")));
    }

    #[test]
    fn octets_begin_with_a_suffix_only_if_all_are_the_same() {
        let key = Key::of(Key::spread([7; 16]));
        let name: Vec<u8> = (1..255).chain([0]).collect();
        for total in [2, 7, 8, 15, 16, 17, 31, 33, 60, 255] {
            let mut room = Room::default();
            let suffixes = Suffixes::of(key, &name[255 - total..], &mut room);
            for len in 2..=total {
                let mut bytes = [&name[255 - len..254], &[b'>'; BLOCK]].concat();
                assert!(suffixes.begin(len, &bytes), "{len} of {total}");
                assert!(!suffixes.begin(len, &bytes[..len - 2]));
                for at in 0..len - 1 {
                    bytes[at] ^= 1;
                    assert!(!suffixes.begin(len, &bytes), "{at} in {len} of {total}");
                    bytes[at] ^= 1;
                }
            }
        }
    }

    #[test]
    fn places_are_within_and_in_order() {
        assert_eq!((place(0, 10), place(u64::MAX, 10)), ((0, 0), (9, STEM_WORDS - 1)));
        assert!((0..1000).map(|step| place(step << 54, 77)).is_sorted());
    }
}
