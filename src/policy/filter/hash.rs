//! Hot path. The keyed hash of names: from the root downwards, label by label, so that one pass hashes a name and all its
//! ancestors.
//!
//! Part of the form of an image: a change here is a new version there. The key is secret and drawn anew for every image,
//! so nobody can aim collisions; they would cost time alone, since names are compared in the end.

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

    /// The hash of the name that `label` makes of the name with the hash `parent`.
    #[inline]
    pub(super) fn extend(self, parent: u64, label: &[u8]) -> u64 {
        let len = label.len() as u64;
        let (front, back, parent) = match label {
            [] => (0, 0, parent),
            [first, .., last] if label.len() < 4 => {
                let middle = label[label.len() / 2];
                let three = [*first, middle, *last, 0];
                (u64::from(u32::from_le_bytes(three)), 0, parent)
            }
            [only] => (u64::from(*only), 0, parent),
            _ if label.len() < 8 => (word4(label.first_chunk()), word4(label.last_chunk()), parent),
            _ if label.len() <= 16 => {
                (word8(label.first_chunk()), word8(label.last_chunk()), parent)
            }
            _ => {
                let (pairs, _) = label[..label.len() - 1].as_chunks::<16>();
                let parent = pairs.iter().fold(parent, |hash, pair| {
                    let (front, back) = (word8(pair.first_chunk()), word8(pair.last_chunk()));
                    fold(front ^ self.octets, back ^ hash)
                });
                let end = label.last_chunk::<16>();
                let front = end.and_then(|end| end.first_chunk());
                (word8(front), word8(label.last_chunk()), parent)
            }
        };
        fold(front ^ self.octets, (back ^ parent).wrapping_add(len.wrapping_mul(SPREAD)))
    }
}

/// The last step of SplitMix64.
const fn mixed(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

#[inline]
fn word4(bytes: Option<&[u8; 4]>) -> u64 {
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes).into())
}

#[inline]
fn word8(bytes: Option<&[u8; 8]>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Both halves of the product, laid over each other: every bit of the result depends on all bits of both.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

/// Which of `count` places a hash belongs to: by its upper half, so that sorted hashes fill places in order.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the result is below `count`")]
pub(super) fn place(hash: u64, count: usize) -> usize {
    ((u128::from(hash) * count as u128) >> 64) as usize
}

/// The bits that a name has in its word of the filter: four at most, by the lower half of the hash.
#[inline]
pub(super) fn filter_bits(hash: u64) -> u64 {
    let bit = |shift: u32| 1_u64 << (hash >> shift & 63);
    bit(0) | bit(6) | bit(12) | bit(18)
}

/// The tag of a name in its bucket.
#[inline]
pub(super) fn tag(hash: u64) -> u16 {
    (hash.wrapping_mul(SPREAD) >> 48) as u16
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_octet_length_and_ancestor_matters() {
        let key = Key::of(Key::spread([7; 16]));
        let mut seen = HashSet::new();
        for len in 1..=63 {
            let mut label = vec![b'a'; len];
            assert!(seen.insert(key.extend(key.root, &label)), "{len}");
            for at in 0..len {
                label[at] = b'b';
                assert!(seen.insert(key.extend(key.root, &label)), "{len} {at}");
                label[at] = b'a';
            }
            assert!(seen.insert(key.extend(key.root ^ 1, &label)));
        }
        let other = Key::of(Key::spread([8; 16]));
        assert!(seen.insert(other.extend(other.root, b"a")));
    }

    #[test]
    fn places_are_within_and_in_order() {
        assert_eq!(place(0, 10), 0);
        assert_eq!(place(u64::MAX, 10), 9);
        assert!((0..1000).map(|step| place(step << 54, 77)).is_sorted());
    }
}
