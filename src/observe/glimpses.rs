//! Datagrams seen by chance: the latest few that a core came across when it was told to look, for others to read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// How many are kept.
const KEPT: usize = 256;

/// Octets kept of each.
const WORDS: usize = 34;
const WORD_BYTES: usize = size_of::<u64>();

/// One of them. Whoever reads while it is written sees parts of two.
#[derive(Debug)]
struct Glimpse {
    len: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Default for Glimpse {
    fn default() -> Self {
        Self { len: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] }
    }
}

/// The latest datagrams of one core, which alone writes them.
#[derive(Debug)]
pub struct Glimpses {
    kept: Box<[Glimpse]>,
    count: AtomicU64,
    are_wanted: AtomicBool,
}

impl Default for Glimpses {
    fn default() -> Self {
        Self {
            kept: std::iter::repeat_with(Glimpse::default).take(KEPT).collect(),
            count: AtomicU64::new(0),
            are_wanted: AtomicBool::new(false),
        }
    }
}

impl Glimpses {
    /// Octets that one core's take.
    pub const BYTES: usize = KEPT * size_of::<Glimpse>();

    /// Octets kept of a datagram.
    pub const EACH_BYTES_MAX: usize = WORDS * WORD_BYTES;

    /// Whether any are kept from now on.
    pub fn want(&self, are_wanted: bool) {
        self.are_wanted.store(are_wanted, Relaxed);
    }

    /// Whether any are kept.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.are_wanted.load(Relaxed)
    }

    /// Keeps the beginning of `datagram` in the place of the oldest, if any are wanted. Only the owning core may call this.
    pub fn note(&self, datagram: &[u8]) {
        if !self.is_wanted() {
            return;
        }
        let count = self.count.load(Relaxed);
        let Some(glimpse) = self.kept.get(place(count)) else { return };
        let head = datagram.get(..Self::EACH_BYTES_MAX).unwrap_or(datagram);
        glimpse.len.store(head.len() as u64, Relaxed);
        for (word, octets) in glimpse.words.iter().zip(head.chunks(WORD_BYTES)) {
            let mut bytes = [0; WORD_BYTES];
            if let Some(front) = bytes.get_mut(..octets.len()) {
                front.copy_from_slice(octets);
            }
            word.store(u64::from_ne_bytes(bytes), Relaxed);
        }
        self.count.store(count.wrapping_add(1), Relaxed);
    }

    /// How many have come in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Shows those that came after the first `seen`, as far as they are kept, and says how many have come in all.
    pub fn read(&self, seen: u64, mut show: impl FnMut(&[u8])) -> u64 {
        let count = self.count();
        let unseen = count.wrapping_sub(seen).min(KEPT as u64);
        let mut octets = [0; Self::EACH_BYTES_MAX];
        for number in 0..unseen {
            let glimpse = &self.kept[place(count.wrapping_sub(unseen).wrapping_add(number))];
            for (bytes, word) in octets.chunks_mut(WORD_BYTES).zip(&glimpse.words) {
                bytes.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
            }
            let len = usize::try_from(glimpse.len.load(Relaxed)).unwrap_or(0);
            show(&octets[..len.min(Self::EACH_BYTES_MAX)]);
        }
        count
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a remainder below KEPT")]
const fn place(count: u64) -> usize {
    (count % KEPT as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(glimpses: &Glimpses, seen: u64) -> (Vec<Vec<u8>>, u64) {
        let mut shown = Vec::new();
        let count = glimpses.read(seen, |datagram| shown.push(datagram.to_vec()));
        (shown, count)
    }

    #[test]
    fn what_was_not_wanted_is_not_kept() {
        let glimpses = Glimpses::default();
        glimpses.note(b"early");
        glimpses.want(true);
        glimpses.note(b"a datagram of more than one word");
        glimpses.note(&[7; 1_000]);
        let (shown, count) = read(&glimpses, 0);
        let expected = [b"a datagram of more than one word".to_vec(), vec![7; 272]];
        assert_eq!((shown, count), (expected.to_vec(), 2));
        assert_eq!(read(&glimpses, 1).0.len(), 1);
        assert_eq!(read(&glimpses, 2), (vec![], 2));
    }

    #[test]
    fn latest_are_kept_in_their_order() {
        let glimpses = Glimpses::default();
        glimpses.want(true);
        for number in 0..1_000u32 {
            glimpses.note(&number.to_be_bytes());
        }
        let (shown, count) = read(&glimpses, 3);
        assert_eq!((shown.len(), count), (KEPT, 1_000));
        let last = (0..1_000u32).map(|number| number.to_be_bytes().to_vec()).skip(1_000 - KEPT);
        assert!(shown.into_iter().eq(last));
    }
}
