//! How room is made: a little with every insertion, so that a full cache costs each the same and nobody waits.
//!
//! The oldest entries of a segment are looked at in the order in which they came. Whoever was asked for meanwhile moves
//! on: from probation to the protected segment, from there to the hot one; whoever was not, leaves. Hits only count, so
//! they write one octet at most; the order is mended here.

use super::entry::{self, Entry};
use super::segment::Segment;
use super::shard::Shard;
use super::slab::{Place, footprint};
use crate::time::CacheTime;

/// Free pages below which room is made: enough for many insertions, so that one that finds none to spare can leave it
/// to the next.
const RESERVE_PAGES: usize = 6;

/// Free pages below which room is made at any price: one for each segment.
const RESERVE_PAGES_MIN: usize = 3;

/// Entries that may move during one insertion: what it costs has a bound.
const MOVES_MAX: usize = 8;

/// Room is made a little faster than it is used up: an eighth more than the new entry takes.
const HASTE: usize = 8;

/// What becomes of the oldest entry of a segment.
enum Fate {
    /// It was taken out before.
    Gone,
    /// It can no longer be used.
    Over,
    /// It has to make room.
    Leaves,
    /// It stays, there, and has to be asked for anew.
    Moves(Segment),
}

impl Shard {
    /// The segment for a newcomer: what had to go only lately went too early, and need not prove itself again.
    pub(super) fn welcome(&mut self, hash: u64) -> Segment {
        let Some(from) = self.ghosts.take(hash) else { return Segment::Probation };
        self.tally.returns += 1;
        self.border.shift(from, self.ghosts.counts());
        Segment::Protected
    }

    /// Room for an entry of `len` bytes at the end of `segment`.
    pub(super) fn make_room(&mut self, segment: Segment, len: usize, now: CacheTime) -> Place {
        let wanted = footprint(len) + footprint(len) / HASTE;
        let (mut freed, mut moves) = (0, 0);
        while self.is_crowded() && freed < wanted {
            let is_urgent = self.slab.free_pages() < RESERVE_PAGES_MIN || self.index.is_full();
            if moves >= MOVES_MAX && !is_urgent {
                break;
            }
            freed += self.drain_one(&mut moves, now);
        }
        loop {
            let queue = &mut self.queues[usize::from(segment.number())];
            if let Some(place) = queue.append(&mut self.slab, len) {
                return place;
            }
            self.drain_one(&mut moves, now);
        }
    }

    /// Whether room must be made with the next insertion.
    pub(super) fn is_crowded(&self) -> bool {
        self.slab.free_pages() < RESERVE_PAGES || self.index.is_crowded()
    }

    /// Leaves the oldest entry of some segment behind; gives the bytes that came free. After [`MOVES_MAX`] moves even
    /// those asked for leave.
    fn drain_one(&mut self, moves: &mut usize, now: CacheTime) -> usize {
        let segment = self.next_to_drain();
        let number = usize::from(segment.number());
        let Some(place) = self.queues[number].front(&mut self.slab) else { return 0 };
        let len = Entry::view(self.slab.entry(place)).len();
        let is_moved = match self.fate(segment, place, now) {
            Fate::Moves(to) if *moves < MOVES_MAX => {
                *moves += 1;
                self.move_to(to, place, len)
            }
            Fate::Gone => true,
            Fate::Over => {
                self.tally.expirations += 1;
                self.take_out(self.hash_at(place), place);
                true
            }
            Fate::Leaves | Fate::Moves(_) => false,
        };
        let is_gone = entry::mark(self.slab.entry(place)).is_dead();
        if !is_moved {
            let hash = self.hash_at(place);
            self.ghosts.remember(hash, segment);
            self.tally.evictions += 1;
            self.take_out(hash, place);
        }
        self.queues[number].advance(&mut self.slab, len);
        if is_moved && !is_gone { 0 } else { footprint(len) }
    }

    /// Probation while it has more than its share, the hot segment likewise, else the protected one.
    fn next_to_drain(&mut self) -> Segment {
        let queues = &self.queues;
        let bytes = |segment: Segment| queues[usize::from(segment.number())].bytes();
        let is_readable = |segment: Segment| queues[usize::from(segment.number())].is_readable();
        if is_readable(Segment::Probation)
            && bytes(Segment::Probation) >= self.border.probation_bytes()
        {
            return Segment::Probation;
        }
        if is_readable(Segment::Hot) && bytes(Segment::Hot) > self.border.hot_bytes() {
            return Segment::Hot;
        }
        let others = [Segment::Protected, Segment::Probation, Segment::Hot];
        let others = others.into_iter().find(|&segment| is_readable(segment));
        // What was hot once must not stay for ever: it is looked at as often as the rest.
        let must_turn = others == Some(Segment::Protected) && is_readable(Segment::Hot);
        if must_turn && self.border.turn_hot() {
            return Segment::Hot;
        }
        if let Some(segment) = others {
            return segment;
        }
        // Three open pages and nothing else: the fullest has to do.
        let fullest = Segment::ALL.into_iter().max_by_key(|&segment| bytes(segment));
        let fullest = fullest.expect("there are three segments");
        self.queues[usize::from(fullest.number())].close();
        fullest
    }

    fn fate(&self, segment: Segment, place: Place, now: CacheTime) -> Fate {
        let bytes = self.slab.entry(place);
        let mark = entry::mark(bytes);
        if mark.is_dead() {
            return Fate::Gone;
        }
        let is_over = now >= entry::expiry(bytes).after_seconds(self.stale_seconds);
        if is_over || entry::is_ahead_of(bytes, now) {
            return Fate::Over;
        }
        let accesses = mark.accesses();
        match segment {
            Segment::Probation | Segment::Protected if accesses == 0 => Fate::Leaves,
            Segment::Probation => Fate::Moves(Segment::Protected),
            Segment::Protected if accesses >= self.border.hot_after && self.border.is_hot_kept => {
                Fate::Moves(Segment::Hot)
            }
            Segment::Protected => Fate::Moves(Segment::Protected),
            Segment::Hot if accesses == 0 || !self.border.is_hot_kept => {
                Fate::Moves(Segment::Protected)
            }
            Segment::Hot => Fate::Moves(Segment::Hot),
        }
    }

    /// Moves an entry to the end of a segment; `false` when there is no room.
    ///
    /// Its accesses are used up: with a credit for several rounds, what was popular once stays for several rounds after
    /// everybody has turned to other names (`cargo bench --bench cache_hit_rate`, the shifting trace).
    fn move_to(&mut self, segment: Segment, from: Place, len: usize) -> bool {
        let queue = &mut self.queues[usize::from(segment.number())];
        let Some(to) = queue.append(&mut self.slab, len) else { return false };
        self.slab.copy(from, to, len);
        let bytes = self.slab.entry_mut(to);
        let was_hot = entry::mark(bytes).segment() == Segment::Hot.number();
        let mark = entry::mark(bytes).moved(segment.number(), 0);
        entry::set_mark(bytes, mark);
        self.index.replace(self.hash_at(to), from, to);
        self.tally.moves += 1;
        self.tally.promotions += u64::from(segment == Segment::Hot && !was_hot);
        true
    }

    fn hash_at(&self, place: Place) -> u64 {
        self.hash(entry::key_of(self.slab.entry(place)))
    }
}
