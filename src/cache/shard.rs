//! Hot path. The private cache of one core: a hash index over a slab of answers in wire form.
//!
//! A hit reads the index and, most often, one or two cache lines of the slab; how room is made stands in `evict`.

use ahash::RandomState;

use super::apexes::Apexes;
use super::coherence::Echoes;
use super::entry::{self, Entry, Mark};
use super::ghost::Ghosts;
use super::index::Index;
use super::invalidate::Rules;
use super::key::{Key, labels};
use super::segment::{Border, Queue, Segment};
use super::slab::{PAGE_BYTES, Place, Slab, footprint};
use crate::config;
use crate::time::{CacheTime, Now};
use crate::wire::{Answer, AnswerBuf, NameBuf};

/// Bytes of the shard per entry that the index is laid out for, the index's share included. A and AAAA answers lie
/// above; if answers should be shorter still, they fill the index before they fill the slab.
const ENTRY_BYTES_MIN: usize = 72;

/// The smallest slab that works: each segment's open page, the reserve, and something to read.
const PAGES_MIN: usize = 16;

/// Entries that live shorter are not refreshed ahead of time: asking every other second for them would be worse than a
/// miss now and then.
const REFRESH_LIFETIME_MIN: u32 = 10;

/// A slab beyond this does not fit the second-level cache of a core.
const LARGE_BYTES: usize = 2 << 20;

/// Keys that are fetched at a time.
const FETCH_MAX: usize = 64;

const CACHE_LINE_BYTES: usize = 64;

/// What the shard knows about a key.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// An answer within its lifetime.
    Fresh {
        /// The answer.
        answer: Answer<'a>,
        /// It is popular and near its end, and nobody was told so before: resolve it anew. Said once per entry.
        is_due: bool,
    },
    /// The name, or one above it in its zone, is known not to exist (RFC 8020 §2): an answer that fits the question.
    Denied(Answer<'a>),
    /// An answer past its lifetime, for want of a better one (RFC 8767 §4).
    Stale(Answer<'a>),
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
    /// It is longer than any entry may be.
    TooLarge,
    /// It was asked for before something that it may contradict was flushed.
    Flushed,
}

/// What a shard has done so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Entries that had to make room for others while they could still be used.
    pub evictions: u64,
    /// Entries that left because their time was over.
    pub expirations: u64,
    /// Entries that came back soon after they had made room.
    pub returns: u64,
    /// Entries that were flushed.
    pub flushed: u64,
    /// Entries that were forgotten because another core got something else.
    pub superseded: u64,
    /// Entries that were copied within the slab, to stay.
    pub moves: u64,
    /// Those of them that came to the hot segment.
    pub promotions: u64,
}

/// One core's cache.
#[derive(Debug)]
pub struct Shard {
    pub(super) index: Index,
    pub(super) slab: Slab,
    pub(super) queues: [Queue; 3],
    pub(super) ghosts: Ghosts,
    pub(super) border: Border,
    pub(super) rules: Rules,
    pub(super) echoes: Echoes,
    pub(super) tally: Tally,
    /// Entries that deny a whole name: without any, nobody looks for them.
    pub(super) denials: usize,
    /// Bit `n` is set when a name of `n` labels was denied since there was no denial: other ancestors need no look-up.
    denial_depths: u128,
    /// What is denied above one of them says nothing about names below.
    apexes: Apexes,
    pub(super) stale_seconds: u32,
    is_cutting: bool,
    is_prefetching: bool,
    hasher: RandomState,
}

/// Where an entry was found and what it is good for.
pub(super) enum Found {
    Fresh(Place),
    Denied(Place),
    Stale(Place),
}

impl Shard {
    /// A shard of at most `bytes`, index and all else included. Its hash is keyed by `hasher`, which nobody outside must
    /// know.
    #[must_use]
    pub fn new(section: &config::Cache, bytes: usize, hasher: RandomState) -> Self {
        let entries = bytes / ENTRY_BYTES_MIN;
        let beside = Index::bytes_for(entries) + Ghosts::bytes_for(entries);
        let slab = Slab::new(bytes.saturating_sub(beside), PAGES_MIN);
        let pages = slab.pages();
        Self {
            index: Index::new(entries),
            queues: Segment::ALL.map(|_| Queue::new(pages)),
            ghosts: Ghosts::new(entries),
            border: Border::new(section, entries, pages * PAGE_BYTES),
            rules: Rules::default(),
            echoes: Echoes::none(),
            tally: Tally::default(),
            denials: 0,
            denial_depths: 0,
            apexes: Apexes::new(&[], &hasher),
            stale_seconds: section.stale_seconds(),
            is_cutting: section.nxdomain_cut,
            is_prefetching: section.prefetch,
            slab,
            hasher,
        }
    }

    /// The same where `zones` have servers of their own: a denial above the apex of a zone says nothing about the names in
    /// it, and what exists in it says nothing about the names above.
    #[must_use]
    pub fn divided_at(mut self, zones: &[NameBuf]) -> Self {
        self.apexes = Apexes::new(zones, &self.hasher);
        self
    }

    /// Divides what is there at other `zones`, as [`Shard::divided_at`] does at the start.
    pub fn divide_at(&mut self, zones: &[NameBuf]) {
        self.apexes = Apexes::new(zones, &self.hasher);
    }

    /// The same, with or without a segment for entries that are asked for often.
    #[must_use]
    pub const fn with_hot_segment(mut self, is_kept: bool) -> Self {
        self.keep_hot_segment(is_kept);
        self
    }

    /// Keeps a segment for entries that are asked for often, or has what is there go back to the protected one, as room is made.
    pub const fn keep_hot_segment(&mut self, is_kept: bool) {
        self.border.is_hot_kept = is_kept;
    }

    /// Whether there is a segment for entries that are asked for often.
    #[must_use]
    pub const fn has_hot_segment(&self) -> bool {
        self.border.is_hot_kept
    }

    /// Goes by the switches and bounds of `section` from now on that have nothing to do with the layout of its memory.
    pub fn adopt(&mut self, section: &config::Cache) {
        self.stale_seconds = section.stale_seconds();
        self.is_cutting = section.nxdomain_cut;
        self.is_prefetching = section.prefetch;
    }

    /// Looks `key` up.
    #[inline(always)]
    pub fn lookup(&mut self, key: &mut Key, now: Now) -> Lookup<'_> {
        match self.search(key, now.cache) {
            Some(Found::Fresh(place)) => {
                let bytes = self.slab.entry_mut(place);
                entry::touch(bytes, self.border.hot_after);
                let is_due = self.is_prefetching && is_due(bytes, now.cache);
                if is_due {
                    entry::note_refreshing(bytes);
                }
                Lookup::Fresh { answer: Entry::view(bytes).answer, is_due }
            }
            Some(Found::Denied(place)) => {
                let bytes = self.slab.entry_mut(place);
                entry::touch(bytes, self.border.hot_after);
                Lookup::Denied(Entry::view(bytes).answer)
            }
            Some(Found::Stale(place)) => Lookup::Stale(Entry::view(self.slab.entry(place)).answer),
            None => Lookup::Absent,
        }
    }

    /// Whether the entries are more than a processor's own cache holds.
    #[must_use]
    pub const fn is_large(&self) -> bool {
        self.slab.bytes() > LARGE_BYTES
    }

    /// Touches what lookups of the keys with these hashes will read. One loop per level of indirection, each so short that
    /// the processor runs ahead and waits for many of them at once.
    pub fn fetch(&self, hashes: &[u64]) {
        let mut places = [None; FETCH_MAX];
        for (place, &hash) in places.iter_mut().zip(hashes) {
            *place = self.index.find(hash, |_| true);
        }
        let mut sum = 0;
        for place in places.into_iter().flatten() {
            let bytes = self.slab.entry(place);
            // The entry's first cache line and, most often, its last.
            sum ^= bytes[0] ^ bytes.get(CACHE_LINE_BYTES).copied().unwrap_or_default();
        }
        std::hint::black_box(sum);
    }

    /// Stores `answer` under `key`, as of `now`; what was there under the same key is gone, even when this cannot stay.
    ///
    /// `begun` is when it was asked for: what was flushed since then is not stored.
    pub fn insert(
        &mut self,
        key: &mut Key,
        answer: &AnswerBuf,
        begun: CacheTime,
        now: Now,
    ) -> Insertion {
        if answer.is_denial() {
            self.remove(key);
            return key.as_denial(|key| self.store(key, answer, begun, now));
        }
        self.acknowledge(key);
        self.store(key, answer, begun, now)
    }

    /// Forgets `key`; says whether it was there.
    pub fn remove(&mut self, key: &Key) -> bool {
        let Some(place) = self.place_of(key) else { return false };
        self.take_out(self.hash(key.as_bytes()), place);
        true
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.tally.flushed += self.index.len() as u64;
        self.empty();
    }

    /// Forgets everything, as if it had never been there.
    pub fn empty(&mut self) {
        self.index.clear();
        self.queues.iter_mut().for_each(Queue::clear);
        self.slab.clear();
        self.denials = 0;
    }

    /// The keyed hash of a key's octets.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The keyed hash of two runs of octets.
    pub(super) fn hash_parts(&self, first: &[u8], second: &[u8]) -> u64 {
        self.hasher.hash_one((first, second))
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

    /// Bytes of memory in use, index and ghosts included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slab.bytes() + self.index.bytes() + self.ghosts.bytes()
    }

    /// What has happened so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// The share of the memory that entries on probation get now, of 1.
    #[must_use]
    pub const fn probation_share(&self) -> f64 {
        self.border.share
    }

    /// The best that there is for `key`.
    #[inline]
    pub(super) fn search(&self, key: &mut Key, now: CacheTime) -> Option<Found> {
        match self.place_of(key) {
            Some(place) if self.is_fresh(place, now) => Some(Found::Fresh(place)),
            exact => self.second_choice(exact, key, now),
        }
    }

    /// Where the entry of `key` lies.
    #[inline]
    pub(super) fn place_of(&self, key: &Key) -> Option<Place> {
        self.place_of_bytes(key.as_bytes())
    }

    #[inline]
    pub(super) fn place_of_bytes(&self, key: &[u8]) -> Option<Place> {
        self.place_hashed(self.hash(key), key)
    }

    /// Where the entry of `key`, which hashes to `hash`, lies.
    #[inline]
    pub(super) fn place_hashed(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let slab = &self.slab;
        self.index.find(hash, |&place| entry::key_of(slab.entry(place)) == key)
    }

    /// Takes the entry at `place` out of the index; its bytes stay until its page is drained.
    pub(super) fn take_out(&mut self, hash: u64, place: Place) {
        let removed = self.index.remove(hash, |&other| other == place);
        assert!(removed.is_some(), "index entry exists: index and slab change together");
        let bytes = self.slab.entry_mut(place);
        entry::kill(bytes);
        self.denials -= usize::from(entry::is_denial(bytes));
    }

    /// Adds the entry at `place` to the index.
    pub(super) fn put_in(&mut self, hash: u64, place: Place) {
        let (slab, hasher) = (&self.slab, &self.hasher);
        let bytes = slab.entry(place);
        if entry::is_denial(bytes) {
            self.denial_depths = if self.denials == 0 { 0 } else { self.denial_depths };
            self.denial_depths |= 1 << labels(entry::key_of(bytes));
            self.denials += 1;
        }
        self.index.insert(hash, place, |&id| hasher.hash_one(entry::key_of(slab.entry(id))));
    }

    #[inline]
    fn is_fresh(&self, place: Place, now: CacheTime) -> bool {
        let bytes = self.slab.entry(place);
        now < entry::expiry(bytes) && !entry::is_ahead_of(bytes, now) && !self.is_flushed(bytes)
    }

    #[inline]
    pub(super) fn is_flushed(&self, bytes: &[u8]) -> bool {
        self.rules.are_unswept() && self.rules.forbid(entry::key_of(bytes), entry::stored(bytes))
    }

    /// What to say when there is no fresh answer to exactly this question at `exact`.
    #[cold]
    fn second_choice(&self, exact: Option<Place>, key: &mut Key, now: CacheTime) -> Option<Found> {
        let is_stale = |&place: &Place| {
            let bytes = self.slab.entry(place);
            now < entry::expiry(bytes).after_seconds(self.stale_seconds)
                && !entry::is_ahead_of(bytes, now)
                && !self.is_flushed(bytes)
        };
        let mut stale = exact.filter(is_stale);
        if self.denials > 0 {
            let denial = key.as_denial(|key| {
                let own = self.place_of(key);
                if let Some(place) = own
                    && self.is_fresh(place, now)
                {
                    return Some(Found::Denied(place));
                }
                // Of two the one that was learnt last: the name may have come or gone since the other.
                let learnt = |place: &Place| entry::stored(self.slab.entry(*place));
                stale = [stale, own.filter(is_stale)].into_iter().flatten().max_by_key(learnt);
                let cut = self.cut_above(key, now)?;
                Some(Found::Denied(cut))
            });
            if denial.is_some() {
                return denial;
            }
        }
        stale.map(Found::Stale)
    }

    /// A fresh denial of an ancestor in the same zone (RFC 8020 §2). `key` is that of a denial.
    fn cut_above(&self, key: &Key, now: CacheTime) -> Option<Place> {
        if !self.is_cutting {
            return None;
        }
        let mut depth = labels(key.folded_name());
        let nearest = key.ancestors().find_map(|ancestor| {
            depth -= 1;
            if self.denial_depths >> depth & 1 == 0 {
                return None;
            }
            self.place_of_bytes(ancestor).filter(|&place| self.is_fresh(place, now))
        });
        // Others would lie higher still.
        nearest.filter(|_| depth >= self.apexes.floor(key.folded_name()))
    }

    /// The name of `key` exists: forgets that it, or a name above it in the same zone, was denied.
    pub(super) fn acknowledge(&mut self, key: &mut Key) {
        if self.denials == 0 {
            return;
        }
        key.as_denial(|denial| {
            self.remove(denial);
            let mut depth = labels(denial.folded_name());
            let floor = self.apexes.floor(denial.folded_name());
            for ancestor in denial.ancestors() {
                depth -= 1;
                if depth < floor {
                    break;
                }
                if self.denial_depths >> depth & 1 != 0
                    && let Some(place) = self.place_of_bytes(ancestor)
                {
                    self.take_out(self.hash(ancestor), place);
                }
            }
        });
    }

    fn store(&mut self, key: &Key, answer: &AnswerBuf, begun: CacheTime, now: Now) -> Insertion {
        let hash = self.hash(key.as_bytes());
        let former = self.place_of(key);
        let len = Entry::len_of(key, answer);
        let obstacle = if answer.lifetime == 0 {
            Some(Insertion::NotCacheable)
        } else if len > PAGE_BYTES {
            Some(Insertion::TooLarge)
        } else {
            self.rules.turns_away(key.as_bytes(), begun, now.cache).then_some(Insertion::Flushed)
        };
        if let Some(obstacle) = obstacle {
            if let Some(place) = former {
                self.take_out(hash, place);
            }
            return obstacle;
        }
        let (segment, accesses) = match former {
            Some(place) => {
                let bytes = self.slab.entry_mut(place);
                let Entry { mark, .. } = Entry::view(bytes);
                let (segment, accesses) = (mark.segment(), mark.accesses());
                if footprint(Entry::view(bytes).len()) == footprint(len) {
                    entry::write(Mark::new(segment, accesses), key, answer, now.cache, bytes);
                    return Insertion::Stored;
                }
                self.take_out(hash, place);
                (Segment::of(segment), accesses)
            }
            None => (self.welcome(hash), 0),
        };
        let place = self.make_room(segment, len, now.cache);
        let mark = Mark::new(segment.number(), accesses);
        entry::write(mark, key, answer, now.cache, self.slab.entry_mut(place));
        self.put_in(hash, place);
        Insertion::Stored
    }
}

/// Whether the entry at the front of `bytes` should be refreshed: it was asked for more than once, has but a tenth of its
/// life left, and is not being refreshed yet.
#[inline]
fn is_due(bytes: &[u8], now: CacheTime) -> bool {
    let lifetime = entry::lifetime(bytes);
    let left = entry::expiry(bytes).as_millis().saturating_sub(now.as_millis());
    // A tenth of the lifetime, in milliseconds, is a hundred times the lifetime in seconds.
    left <= u64::from(lifetime) * 100
        && lifetime >= REFRESH_LIFETIME_MIN
        && entry::mark(bytes).accesses() > 1
        && !entry::mark(bytes).is_refreshing()
}

#[cfg(test)]
mod tests;
