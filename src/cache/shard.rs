//! Hot path. The private cache of one core: a hash index over a slab of answers in wire form.
//!
//! A slot holds all of an entry: header, key, TTL offsets, body. A hit reads the index and, most often, one or two
//! cache lines.

use ahash::RandomState;

use super::index::Index;
use super::key::{KEY_BYTES_MAX, Key};
use super::slab::{Claim, PAGE_BYTES, Slab, SlotId};
use crate::time::{CacheTime, Now};
use crate::wire::answer::Shape;
use crate::wire::{Answer, AnswerBuf, Rcode};

/// Bytes of the shard per entry that the index is laid out for, the index's share included. A and AAAA answers lie
/// above; if answers should be shorter still, they fill the index before they fill the slab.
const ENTRY_BYTES_MIN: usize = 90;

/// What the shard knows about a key.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// An answer within its lifetime.
    Fresh(Answer<'a>),
    /// Nothing that may be used.
    Absent,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Insertion {
    /// It is in the cache.
    Stored,
    /// It has no lifetime: for those who wait now only.
    NotCacheable,
    /// It is longer than any slot.
    TooLarge,
}

/// One core's cache.
#[derive(Debug)]
pub struct Shard {
    index: Index,
    slab: Slab,
    hasher: RandomState,
    evictions: u64,
}

impl Shard {
    /// A shard of at most `bytes`, index included. Its hash is keyed by `hasher`, which nobody outside must know.
    #[must_use]
    pub fn new(bytes: usize, hasher: RandomState) -> Self {
        let entries = bytes / ENTRY_BYTES_MIN;
        let index = Index::new(entries);
        let slab = Slab::new(bytes.saturating_sub(Index::bytes_for(entries)));
        Self { index, slab, hasher, evictions: 0 }
    }

    /// Looks `key` up.
    #[inline]
    pub fn lookup(&mut self, key: &Key, now: Now) -> Lookup<'_> {
        let hash = self.hasher.hash_one(key.as_bytes());
        let slab = &self.slab;
        let found = self.index.find(hash, |&id| Entry::view(slab.slot(id)).key == key.as_bytes());
        let Some(id) = found else { return Lookup::Absent };
        self.slab.visit(id);
        let entry = Entry::view(self.slab.slot(id));
        if entry.is_expired(now.cache) {
            return Lookup::Absent;
        }
        Lookup::Fresh(entry.answer)
    }

    /// Stores `answer` under `key`, as of `now`; what was there under the same key is gone.
    pub fn insert(&mut self, key: &Key, answer: &AnswerBuf, now: Now) -> Insertion {
        self.remove(key);
        if answer.lifetime == 0 {
            return Insertion::NotCacheable;
        }
        let len = Entry::len(key.as_bytes(), answer);
        let is_expired = |slot: &[u8]| Entry::view(slot).is_expired(now.cache);
        if self.index.is_full()
            && let Some(id) = self.slab.victim(is_expired)
        {
            self.evict(id);
        }
        let id = loop {
            match self.slab.claim(len, is_expired) {
                Claim::Slot(id) => break id,
                Claim::Evict(ids) => ids.into_iter().for_each(|id| self.evict(id)),
                Claim::TooLarge => return Insertion::TooLarge,
            }
        };
        Entry::write(key.as_bytes(), answer, now.cache, self.slab.slot_mut(id));
        let hash = self.hasher.hash_one(key.as_bytes());
        let (slab, hasher) = (&self.slab, &self.hasher);
        self.index.insert(hash, id, |&id| hasher.hash_one(Entry::view(slab.slot(id)).key));
        Insertion::Stored
    }

    /// Forgets `key`; says whether it was there.
    pub fn remove(&mut self, key: &Key) -> bool {
        let hash = self.hasher.hash_one(key.as_bytes());
        let slab = &self.slab;
        let found = self.index.remove(hash, |&id| Entry::view(slab.slot(id)).key == key.as_bytes());
        let Some(id) = found else { return false };
        self.slab.release(id);
        true
    }

    /// Answers held, expired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// Bytes held, index included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slab.bytes() + self.index.bytes()
    }

    /// Answers that had to make room for others so far.
    #[must_use]
    pub const fn evictions(&self) -> u64 {
        self.evictions
    }

    fn evict(&mut self, id: SlotId) {
        let hash = self.hasher.hash_one(Entry::view(self.slab.slot(id)).key);
        let removed = self.index.remove(hash, |&other| other == id);
        assert!(removed.is_some(), "index entry exists: index and slab change together");
        self.slab.release(id);
        self.evictions += 1;
    }
}

/// An entry as it lies in its slot: [`HEAD_BYTES`] of numbers, the key, the TTL offsets, the body.
struct Entry<'a> {
    key: &'a [u8],
    answer: Answer<'a>,
    lifetime: u32,
}

/// stored 8 · lifetime 4 · flags 2 · rcode 1 · spare 1 · counts 6 · essential 2 · key, TTL and body lengths 6.
const HEAD_BYTES: usize = 30;

const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize && PAGE_BYTES <= 1 << 16);

impl<'a> Entry<'a> {
    fn len(key: &[u8], answer: &AnswerBuf) -> usize {
        HEAD_BYTES + key.len() + answer.ttls.len() + answer.body.len()
    }

    /// Reads a slot that [`Entry::write`] filled.
    #[inline]
    fn view(slot: &'a [u8]) -> Self {
        let (head, rest) = slot.split_first_chunk::<HEAD_BYTES>().expect("a slot holds a head");
        let pair = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let (key, rest) = rest.split_at(usize::from(pair(24)));
        let (ttls, rest) = rest.split_at(usize::from(pair(26)));
        let shape = Shape {
            rcode: Rcode(u16::from(head[14])),
            flags: pair(12),
            counts: [pair(16), pair(18), pair(20)],
            essential_bytes: pair(22),
        };
        let stored = u64::from_le_bytes(*head.first_chunk().expect("eight octets lead the head"));
        let stored = CacheTime::from_millis(stored);
        let lifetime = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        let body = &rest[..usize::from(pair(28))];
        Self { key, answer: Answer { shape, body, ttls, stored }, lifetime }
    }

    fn write(key: &[u8], answer: &AnswerBuf, stored: CacheTime, slot: &mut [u8]) {
        let length = |part: &[u8]| u16::try_from(part.len()).expect("parts of a page fit 16 bits");
        let shape = answer.shape;
        let [answers, authorities, additional] = shape.counts;
        let pairs = [
            shape.flags,
            u16::from(shape.rcode.header_bits()),
            answers,
            authorities,
            additional,
            shape.essential_bytes,
            length(key),
            length(&answer.ttls),
            length(&answer.body),
        ];
        slot[..8].copy_from_slice(&stored.as_millis().to_le_bytes());
        slot[8..12].copy_from_slice(&answer.lifetime.to_le_bytes());
        for (field, pair) in slot[12..HEAD_BYTES].as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
            *field = pair.to_le_bytes();
        }
        let mut at = HEAD_BYTES;
        for part in [key, &answer.ttls, &answer.body] {
            slot[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }

    fn is_expired(&self, now: CacheTime) -> bool {
        now >= self.answer.stored.after_seconds(self.lifetime)
    }
}

#[cfg(test)]
mod tests;
