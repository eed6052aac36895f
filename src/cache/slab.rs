//! Hot path. Memory of a shard: one block, cut into pages; entries lie in a page one behind the other, without gaps.
//!
//! No size classes, no heap block per entry, no links: whoever fills a page in order can read it in order (`segment`),
//! and a page that has been read to its end is free for entries of any size.

/// Bytes of one page. Also the largest entry.
pub(super) const PAGE_BYTES: usize = 64 << 10;

/// Entries begin at multiples of this many bytes, so that 32 bits name a place in 16 GiB.
const GRANULE: usize = 4;

const PAGE_GRANULES: usize = PAGE_BYTES / GRANULE;

/// Most pages of one slab.
const PAGES_MAX: usize = (u32::MAX as usize + 1) / PAGE_GRANULES;

/// Most bytes of a shard, its index included: as many as places can name.
pub const SHARD_BYTES_MAX: usize = PAGES_MAX * PAGE_BYTES;

const _: () = assert!(PAGE_BYTES.is_multiple_of(GRANULE));

/// Bytes that an entry of `len` bytes takes up.
pub(super) const fn footprint(len: usize) -> usize {
    len.next_multiple_of(GRANULE)
}

/// Where an entry begins.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Place(u32);

impl Place {
    /// The place `offset` bytes into `page`.
    #[expect(clippy::cast_possible_truncation, reason = "`Slab::new` bounds the number of pages")]
    pub(super) const fn new(page: u32, offset: usize) -> Self {
        Self(page * PAGE_GRANULES as u32 + (offset / GRANULE) as u32)
    }

    const fn offset(self) -> usize {
        self.0 as usize * GRANULE
    }

    /// The first offset behind this place's page.
    const fn page_end(self) -> usize {
        (self.offset() / PAGE_BYTES + 1) * PAGE_BYTES
    }
}

/// The block and its free pages.
#[derive(Debug)]
pub(super) struct Slab {
    /// Untouched parts take no memory: the kernel gives it out page by page.
    memory: Box<[u8]>,
    /// Pages that were used and are free again.
    freed: Vec<u32>,
    /// Pages from here on were never used.
    unused: u32,
    pages: u32,
}

impl Slab {
    /// A slab of at most `bytes`, and at least `pages_min` pages.
    pub(super) fn new(bytes: usize, pages_min: usize) -> Self {
        let pages = (bytes / PAGE_BYTES).clamp(pages_min, PAGES_MAX);
        let memory = vec![0; pages * PAGE_BYTES].into_boxed_slice();
        let pages = u32::try_from(pages).expect("the number of pages is bounded");
        Self { memory, freed: Vec::with_capacity(pages as usize), unused: 0, pages }
    }

    /// The bytes from `place` to the end of its page.
    #[inline]
    pub(super) fn entry(&self, place: Place) -> &[u8] {
        &self.memory[place.offset()..place.page_end()]
    }

    /// As [`Slab::entry`], to be written.
    #[inline]
    pub(super) fn entry_mut(&mut self, place: Place) -> &mut [u8] {
        &mut self.memory[place.offset()..place.page_end()]
    }

    /// Copies `len` bytes from one place to another.
    pub(super) fn copy(&mut self, from: Place, to: Place, len: usize) {
        self.memory.copy_within(from.offset()..from.offset() + len, to.offset());
    }

    /// A page that holds nothing.
    pub(super) fn take_page(&mut self) -> Option<u32> {
        if let Some(page) = self.freed.pop() {
            return Some(page);
        }
        (self.unused < self.pages).then(|| {
            self.unused += 1;
            self.unused - 1
        })
    }

    /// Gives a page back.
    pub(super) fn give_page(&mut self, page: u32) {
        self.freed.push(page);
    }

    /// Pages that can be taken.
    pub(super) fn free_pages(&self) -> usize {
        self.freed.len() + (self.pages - self.unused) as usize
    }

    /// All pages.
    pub(super) const fn pages(&self) -> usize {
        self.pages as usize
    }

    /// Bytes that have ever been touched.
    pub(super) const fn bytes(&self) -> usize {
        self.unused as usize * PAGE_BYTES
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.freed.clear();
        self.freed.extend((0..self.unused).rev());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap_and_end_with_their_page() {
        let mut slab = Slab::new(2 * PAGE_BYTES, 1);
        assert_eq!(slab.entry(Place::new(0, 8)).len(), PAGE_BYTES - 8);
        slab.entry_mut(Place::new(0, PAGE_BYTES - 4)).fill(1);
        slab.entry_mut(Place::new(1, 0))[..4].fill(2);
        assert_eq!(slab.entry(Place::new(0, PAGE_BYTES - 4)), [1; 4]);
        slab.copy(Place::new(0, PAGE_BYTES - 4), Place::new(1, 64), 4);
        assert_eq!(slab.entry(Place::new(1, 64))[..5], [1, 1, 1, 1, 0]);
    }

    #[test]
    fn pages_come_back_and_never_exceed_the_bound() {
        let mut slab = Slab::new(3 * PAGE_BYTES + 5, 1);
        let pages: Vec<u32> = std::iter::from_fn(|| slab.take_page()).collect();
        assert_eq!(pages, [0, 1, 2]);
        slab.give_page(1);
        assert_eq!((slab.free_pages(), slab.take_page()), (1, Some(1)));
        assert_eq!(slab.take_page(), None);
        slab.clear();
        assert_eq!(slab.free_pages(), 3);
    }
}
