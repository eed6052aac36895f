//! Hot path. Memory of a shard: pages cut into slots of one size class each. No heap block per entry, a fixed number of
//! pages, and a clock hand per class that finds the slot to give up.
//!
//! Who gets a page when all are taken: each class notes how many insertions (of the whole slab) its hand needs for one
//! lap. A class whose laps are short is under pressure; it takes a page from the class with the longest lap, if that
//! lap is at least twice its own. So pages follow demand, and every step is bounded by the slots of one page.

/// Bytes of one page. Also the largest entry.
pub(super) const PAGE_BYTES: usize = 64 << 10;

/// Smallest slot, in bytes.
const SLOT_BYTES_MIN: usize = 64;

/// Slots in a page of the smallest class.
const SLOTS_MAX: usize = PAGE_BYTES / SLOT_BYTES_MIN;

/// Size classes per doubling: at most a fifth of a slot is lost to rounding.
const STEPS: usize = 4;

/// 64, 80, 96, 112, 128, 160 … 65 536.
const CLASSES: usize = 10 * STEPS + 1;

const SLOT_BITS: u32 = SLOTS_MAX.trailing_zeros();

const _: () = assert!(SLOTS_MAX.is_power_of_two());
const _: () = assert!(slot_bytes(CLASSES - 1) == PAGE_BYTES);

/// A slot: page in the upper bits, slot within the page in the lower ones.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct SlotId(u32);

impl SlotId {
    #[expect(clippy::cast_possible_truncation, reason = "`Slab::new` bounds the number of pages")]
    const fn new(page: usize, slot: usize) -> Self {
        Self((page as u32) << SLOT_BITS | slot as u32)
    }

    const fn page(self) -> usize {
        (self.0 >> SLOT_BITS) as usize
    }

    const fn slot(self) -> usize {
        self.0 as usize & (SLOTS_MAX - 1)
    }
}

/// One bit per slot of a page.
#[derive(Debug)]
struct Bits([u64; SLOTS_MAX / 64]);

impl Bits {
    const NONE: Self = Self([0; SLOTS_MAX / 64]);

    const fn has(&self, slot: usize) -> bool {
        self.0[slot / 64] >> (slot % 64) & 1 == 1
    }

    const fn set(&mut self, slot: usize) {
        self.0[slot / 64] |= 1 << (slot % 64);
    }

    const fn clear(&mut self, slot: usize) {
        self.0[slot / 64] &= !(1 << (slot % 64));
    }
}

#[derive(Debug)]
struct Page {
    bytes: Box<[u8]>,
    class: usize,
    live: Bits,
    /// Asked for since the hand came by.
    visited: Bits,
}

#[derive(Debug, Default)]
struct SizeClass {
    pages: Vec<usize>,
    free: Vec<SlotId>,
    /// Position of the hand: index into `pages`, slot within that page.
    hand: (usize, usize),
    lap_began: u64,
    last_lap: Option<u64>,
}

impl SizeClass {
    /// Insertions that the hand needs for a lap: the last one, or the present one when that is already longer.
    fn lap(&self, tick: u64) -> u64 {
        self.last_lap.unwrap_or(0).max(tick - self.lap_began)
    }
}

/// What must happen before a slot can be had.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Claim {
    /// This slot is yours.
    Slot(SlotId),
    /// These entries must be given up first; then release them and claim again.
    Evict(Vec<SlotId>),
    /// Larger than a page.
    TooLarge,
}

/// Pages, classes and their hands.
#[derive(Debug)]
pub(super) struct Slab {
    pages: Vec<Page>,
    pages_max: usize,
    classes: Vec<SizeClass>,
    tick: u64,
}

impl Slab {
    /// A slab of at most `bytes`, at least one page.
    pub(super) fn new(bytes: usize) -> Self {
        let pages_max = (bytes / (PAGE_BYTES + size_of::<Page>())).clamp(1, 1 << (32 - SLOT_BITS));
        let classes = (0..CLASSES).map(|_| SizeClass::default()).collect();
        Self { pages: Vec::new(), pages_max, classes, tick: 0 }
    }

    /// Bytes of all pages in use.
    pub(super) fn bytes(&self) -> usize {
        self.pages.len() * (PAGE_BYTES + size_of::<Page>())
    }

    /// The whole slot.
    pub(super) fn slot(&self, id: SlotId) -> &[u8] {
        let page = &self.pages[id.page()];
        let size = slot_bytes(page.class);
        &page.bytes[id.slot() * size..][..size]
    }

    /// The whole slot, to be written.
    pub(super) fn slot_mut(&mut self, id: SlotId) -> &mut [u8] {
        let page = &mut self.pages[id.page()];
        let size = slot_bytes(page.class);
        &mut page.bytes[id.slot() * size..][..size]
    }

    /// Notes that somebody asked for this slot.
    pub(super) fn visit(&mut self, id: SlotId) {
        self.pages[id.page()].visited.set(id.slot());
    }

    /// Gives a slot back.
    ///
    /// # Panics
    /// When it was not live: index and slab change together.
    pub(super) fn release(&mut self, id: SlotId) {
        let page = &mut self.pages[id.page()];
        assert!(page.live.has(id.slot()), "slab slot is live: index and slab change together");
        page.live.clear(id.slot());
        page.visited.clear(id.slot());
        self.classes[page.class].free.push(id);
    }

    /// Finds a slot for `len` bytes, or says what must go first. `is_expired` tells whether an entry is of no more use.
    pub(super) fn claim(&mut self, len: usize, is_expired: impl Fn(&[u8]) -> bool) -> Claim {
        let Some(class) = class_of(len) else { return Claim::TooLarge };
        if let Some(id) = self.classes[class].free.pop() {
            self.tick += 1;
            let page = &mut self.pages[id.page()];
            page.live.set(id.slot());
            return Claim::Slot(id);
        }
        if self.pages.len() < self.pages_max {
            self.add_page(class);
            return self.claim(len, is_expired);
        }
        match self.donor(class) {
            Some(donor) => self.take_page(donor, class, len, is_expired),
            None => Claim::Evict(vec![self.sweep(class, is_expired)]),
        }
    }

    fn add_page(&mut self, class: usize) {
        let index = self.pages.len();
        let bytes = vec![0; PAGE_BYTES].into_boxed_slice();
        self.pages.push(Page { bytes, class, live: Bits::NONE, visited: Bits::NONE });
        self.give_page(index, class);
    }

    fn give_page(&mut self, index: usize, class: usize) {
        self.pages[index].class = class;
        let tick = self.tick;
        let owner = &mut self.classes[class];
        if owner.pages.is_empty() {
            owner.lap_began = tick;
        }
        owner.pages.push(index);
        // The first slot is handed out first.
        owner.free.extend((0..slots_of(class)).rev().map(|slot| SlotId::new(index, slot)));
    }

    /// The class that must hand a page to `class`; `None` when `class` is to evict one of its own.
    fn donor(&self, class: usize) -> Option<usize> {
        let lap_of = |&other: &usize| self.classes[other].lap(self.tick);
        let others = (0..CLASSES).filter(|&other| other != class);
        let donor =
            others.filter(|&other| !self.classes[other].pages.is_empty()).max_by_key(lap_of)?;
        let taker = &self.classes[class];
        if taker.pages.is_empty() {
            return Some(donor);
        }
        // Only a finished lap says how long one takes here.
        let own = taker.last_lap?;
        (lap_of(&donor) >= own.saturating_mul(2).max(1)).then_some(donor)
    }

    /// Moves the page under the donor's hand to `class`, once its entries are gone.
    fn take_page(
        &mut self,
        donor: usize,
        class: usize,
        len: usize,
        is_expired: impl Fn(&[u8]) -> bool,
    ) -> Claim {
        let giver = &self.classes[donor];
        let position = giver.hand.0.min(giver.pages.len() - 1);
        let index = giver.pages[position];
        let page = &self.pages[index];
        let live = (0..slots_of(donor)).filter(|&slot| page.live.has(slot));
        let live: Vec<SlotId> = live.map(|slot| SlotId::new(index, slot)).collect();
        if !live.is_empty() {
            return Claim::Evict(live);
        }
        let giver = &mut self.classes[donor];
        giver.pages.swap_remove(position);
        giver.free.retain(|id| id.page() != index);
        giver.hand = (0, 0);
        self.give_page(index, class);
        self.classes[class].last_lap = None;
        self.classes[class].lap_began = self.tick;
        self.claim(len, is_expired)
    }

    /// An entry to give up, of the class with the most pages: for when something else than slots is scarce.
    ///
    /// `None` when nothing is held.
    pub(super) fn victim(&mut self, is_expired: impl Fn(&[u8]) -> bool) -> Option<SlotId> {
        let class = (0..CLASSES).max_by_key(|&class| self.classes[class].pages.len())?;
        let owner = &self.classes[class];
        let slots = owner.pages.len() * slots_of(class);
        (owner.free.len() < slots).then(|| self.sweep(class, is_expired))
    }

    /// Moves the hand to the next entry that nobody asked for since the last lap, or that has expired.
    fn sweep(&mut self, class: usize, is_expired: impl Fn(&[u8]) -> bool) -> SlotId {
        let slots = slots_of(class);
        let size = slot_bytes(class);
        let owner = &mut self.classes[class];
        // The class holds an entry, and after one lap all marks are gone: two laps are the most.
        loop {
            let (position, slot) = owner.hand;
            let index = owner.pages[position];
            owner.hand = if slot + 1 < slots { (position, slot + 1) } else { (position + 1, 0) };
            if owner.hand.0 == owner.pages.len() {
                owner.hand = (0, 0);
                owner.last_lap = Some(self.tick - owner.lap_began);
                owner.lap_began = self.tick;
            }
            let page = &mut self.pages[index];
            if !page.live.has(slot) {
                continue;
            }
            if !page.visited.has(slot) || is_expired(&page.bytes[slot * size..][..size]) {
                return SlotId::new(index, slot);
            }
            page.visited.clear(slot);
        }
    }
}

/// Bytes of a slot of `class`.
const fn slot_bytes(class: usize) -> usize {
    let base = SLOT_BYTES_MIN << (class / STEPS);
    base + base / STEPS * (class % STEPS)
}

const fn slots_of(class: usize) -> usize {
    PAGE_BYTES / slot_bytes(class)
}

/// The smallest class whose slots hold `len` bytes.
fn class_of(len: usize) -> Option<usize> {
    if len > PAGE_BYTES {
        return None;
    }
    let len = len.max(SLOT_BYTES_MIN);
    let doublings = (len / SLOT_BYTES_MIN).ilog2() as usize;
    let base = SLOT_BYTES_MIN << doublings;
    let class = doublings * STEPS + (len - base).div_ceil(base / STEPS);
    Some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(slab: &mut Slab, len: usize) -> SlotId {
        loop {
            match slab.claim(len, |_| false) {
                Claim::Slot(id) => return id,
                Claim::Evict(ids) => ids.into_iter().for_each(|id| slab.release(id)),
                Claim::TooLarge => panic!("{len} is too large"),
            }
        }
    }

    #[test]
    fn every_length_gets_the_smallest_class_that_holds_it() {
        for len in 0..=PAGE_BYTES {
            let class = class_of(len).unwrap();
            assert!(slot_bytes(class) >= len);
            assert!(class == 0 || slot_bytes(class - 1) < len.max(SLOT_BYTES_MIN), "{len}");
        }
        assert_eq!(class_of(PAGE_BYTES + 1), None);
    }

    #[test]
    fn slots_do_not_overlap() {
        let mut slab = Slab::new(20 * PAGE_BYTES);
        let ids: Vec<SlotId> = (0..600).map(|number| claim(&mut slab, 60 + number % 200)).collect();
        for (number, &id) in ids.iter().enumerate() {
            slab.slot_mut(id).fill(u8::try_from(number % 251).unwrap());
        }
        for (number, &id) in ids.iter().enumerate() {
            assert!(slab.slot(id).iter().all(|&byte| usize::from(byte) == number % 251));
        }
    }

    #[test]
    fn full_slab_evicts_what_nobody_asked_for() {
        let mut slab = Slab::new(PAGE_BYTES);
        let ids: Vec<SlotId> = (0..SLOTS_MAX).map(|_| claim(&mut slab, 64)).collect();
        for &id in &ids[..10] {
            slab.visit(id);
        }
        assert_eq!(slab.claim(64, |_| false), Claim::Evict(vec![ids[10]]));
    }

    #[test]
    fn expired_entry_goes_even_when_it_was_asked_for() {
        let mut slab = Slab::new(PAGE_BYTES);
        let ids: Vec<SlotId> = (0..SLOTS_MAX).map(|_| claim(&mut slab, 64)).collect();
        ids.iter().for_each(|&id| slab.visit(id));
        slab.slot_mut(ids[5])[0] = 1;
        assert_eq!(slab.claim(64, |slot| slot[0] == 1), Claim::Evict(vec![ids[5]]));
    }

    #[test]
    fn pages_never_exceed_the_bound_and_move_to_the_class_in_need() {
        let mut slab = Slab::new(9 * PAGE_BYTES);
        for _ in 0..8 * SLOTS_MAX {
            claim(&mut slab, 64);
        }
        for _ in 0..20_000 {
            claim(&mut slab, 1000);
        }
        assert_eq!(slab.pages.len(), 8);
        let large = class_of(1000).unwrap();
        assert!(slab.classes[large].pages.len() >= 6, "{}", slab.classes[large].pages.len());
        let owned: usize = slab.classes.iter().map(|class| class.pages.len()).sum();
        assert_eq!(owned, 8);
    }

    #[test]
    fn single_page_serves_all_classes_in_turn() {
        let mut slab = Slab::new(1);
        for len in [64, 5000, PAGE_BYTES, 300, 64] {
            let id = claim(&mut slab, len);
            assert!(slab.slot(id).len() >= len);
        }
    }

    #[test]
    #[should_panic(expected = "live")]
    fn releasing_twice_is_our_own_mistake() {
        let mut slab = Slab::new(PAGE_BYTES);
        let id = claim(&mut slab, 64);
        slab.release(id);
        slab.release(id);
    }
}
