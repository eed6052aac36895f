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

    /// The hash of the name that a label makes of the name with the hash `parent`. The label is what lies from `start` to
    /// `end` in `octets`.
    #[inline]
    pub(super) fn extend(self, parent: u64, octets: Octets<'_>, start: usize, end: usize) -> u64 {
        let len = end.wrapping_sub(start);
        let (parent, kept) = if len <= 16 {
            (parent, len)
        } else {
            (self.extend_by_front(parent, octets.0.get(start..end - 1).unwrap_or_default()), 16)
        };
        let (front, back) = octets.last(end, kept);
        let len = (len as u64).wrapping_mul(SPREAD);
        fold(front ^ self.octets, (back ^ parent).wrapping_add(len))
    }

    /// Takes in what stands before the last sixteen octets of a long label, some of these included.
    fn extend_by_front(self, parent: u64, front: &[u8]) -> u64 {
        let (pairs, _) = front.as_chunks::<16>();
        pairs.iter().fold(parent, |hash, pair| {
            let (front, back) = halves(u128::from_le_bytes(*pair));
            fold(front ^ self.octets, back ^ hash)
        })
    }
}

/// The octets of a name, sixteen at least: so that any label can be read by one load, whatever its length.
#[derive(Clone, Copy)]
pub(super) struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    /// Takes `name` as it is, or, if it is too short, in `room`.
    #[inline]
    pub(super) fn of(name: &'a [u8], room: &'a mut [u8; 16]) -> Self {
        if name.len() >= 16 {
            return Self(name);
        }
        room.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        Self(room)
    }

    /// The last `len` octets before `end`, one to sixteen, as two numbers.
    #[inline]
    fn last(self, end: usize, len: usize) -> (u64, u64) {
        // Without branches: lengths follow no pattern, so that the processor would guess wrongly.
        let after = end.max(16);
        let sixteen = self.0.get(after - 16..after).and_then(|octets| octets.first_chunk());
        let word = sixteen.map_or(0, |octets| u128::from_le_bytes(*octets));
        let (behind, before) = (8 * (after - end), 8 * (16 - len.min(16)));
        halves(word << (behind & 127) >> (before & 127))
    }
}

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

    /// The hash of a name of one label, wherever it stands among other octets.
    fn hash(key: Key, parent: u64, label: &[u8]) -> u64 {
        let mut room = [0; 16];
        let alone = key.extend(parent, Octets::of(label, &mut room), 0, label.len());
        for before in [1, 15, 16, 40] {
            for behind in [0, 1, 17] {
                let octets = [&vec![b'<'; before], label, &vec![b'>'; behind]].concat();
                let mut room = [0; 16];
                let octets = Octets::of(&octets, &mut room);
                let among = key.extend(parent, octets, before, before + label.len());
                assert_eq!(among, alone, "{} {before} {behind}", label.len());
            }
        }
        alone
    }

    #[test]
    fn every_octet_length_and_ancestor_matters() {
        let key = Key::of(Key::spread([7; 16]));
        let mut seen = HashSet::new();
        for len in 1..=63 {
            let mut label = vec![b'a'; len];
            assert!(seen.insert(hash(key, key.root, &label)), "{len}");
            for at in 0..len {
                label[at] = b'b';
                assert!(seen.insert(hash(key, key.root, &label)), "{len} {at}");
                label[at] = b'a';
            }
            assert!(seen.insert(hash(key, key.root ^ 1, &label)));
        }
        let other = Key::of(Key::spread([8; 16]));
        assert!(seen.insert(hash(other, other.root, b"a")));
    }

    #[test]
    fn places_are_within_and_in_order() {
        assert_eq!(place(0, 10), 0);
        assert_eq!(place(u64::MAX, 10), 9);
        assert!((0..1000).map(|step| place(step << 54, 77)).is_sorted());
    }
}
