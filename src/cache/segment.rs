//! Hot path. The order in which entries leave: queues of pages, one per segment, filled at the back and read at the front.

use std::collections::VecDeque;
use std::ops::Range;

use super::slab::{PAGE_BYTES, Place, Slab, footprint};
use crate::config;

/// How far an entry has come (segmented LRU, with a layer above).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Segment {
    /// Nobody has asked for it since it came.
    Probation,
    /// Asked for again, or it came back soon after it had to go.
    Protected,
    /// Asked for often.
    Hot,
}

impl Segment {
    pub(super) const ALL: [Self; 3] = [Self::Probation, Self::Protected, Self::Hot];

    /// As a number below three.
    pub(super) const fn number(self) -> u8 {
        self as u8
    }

    /// The segment with that number.
    pub(super) const fn of(number: u8) -> Self {
        match number {
            0 => Self::Probation,
            1 => Self::Protected,
            _ => Self::Hot,
        }
    }
}

/// A page and how much of it is filled.
#[derive(Clone, Copy, Debug)]
struct Filled {
    page: u32,
    bytes: usize,
}

/// The pages of one segment, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pages: VecDeque<Filled>,
    /// Bytes of the first page that have been read.
    read: usize,
    /// Whether the last page takes more.
    is_open: bool,
    /// Pages that have left the queue: the serial number of the first one.
    left: u64,
}

impl Queue {
    /// A queue that never allocates up to `pages` pages.
    pub(super) fn new(pages: usize) -> Self {
        Self { pages: VecDeque::with_capacity(pages), read: 0, is_open: false, left: 0 }
    }

    /// Bytes from the first unread entry to the end of the last page's filling.
    pub(super) fn bytes(&self) -> usize {
        let Some(last) = self.pages.back() else { return 0 };
        (self.pages.len() - 1) * PAGE_BYTES + last.bytes - self.read
    }

    /// Whether there is a full page at the front.
    pub(super) fn is_readable(&self) -> bool {
        self.pages.len() > 1 || (self.pages.len() == 1 && !self.is_open)
    }

    /// Lets the last page be read although it is not full.
    pub(super) const fn close(&mut self) {
        self.is_open = false;
    }

    /// Room for `len` bytes at the back; `None` when that takes a page and there is none.
    pub(super) fn append(&mut self, slab: &mut Slab, len: usize) -> Option<Place> {
        let size = footprint(len);
        if let Some(last) = self.pages.back_mut()
            && self.is_open
            && last.bytes + size <= PAGE_BYTES
        {
            let place = Place::new(last.page, last.bytes);
            last.bytes += size;
            return Some(place);
        }
        let page = slab.take_page()?;
        self.pages.push_back(Filled { page, bytes: size });
        self.is_open = true;
        Some(Place::new(page, 0))
    }

    /// The oldest unread entry. Pages that were read to their end go back to `slab`.
    pub(super) fn front(&mut self, slab: &mut Slab) -> Option<Place> {
        while self.is_readable() {
            let first = self.pages.front()?;
            if self.read < first.bytes {
                return Some(Place::new(first.page, self.read));
            }
            slab.give_page(first.page);
            self.pages.pop_front();
            self.left += 1;
            self.read = 0;
        }
        None
    }

    /// Leaves the oldest entry, of `len` bytes, behind.
    pub(super) fn advance(&mut self, slab: &mut Slab, len: usize) {
        self.read += footprint(len);
        // The page goes back with its last entry, not when somebody looks.
        self.front(slab);
    }

    /// The serial numbers of the pages in the queue, oldest first. A page keeps its number as long as it is there.
    pub(super) fn serials(&self) -> Range<u64> {
        self.left..self.left + self.pages.len() as u64
    }

    /// The page with that serial number, and which of its bytes hold entries that nobody has left behind yet.
    pub(super) fn page(&self, serial: u64) -> Option<(u32, Range<usize>)> {
        let at = usize::try_from(serial.checked_sub(self.left)?).ok()?;
        let &Filled { page, bytes } = self.pages.get(at)?;
        Some((page, if at == 0 { self.read..bytes } else { 0..bytes }))
    }

    /// Forgets all pages; whose they are is the slab's business.
    pub(super) fn clear(&mut self) {
        self.left += self.pages.len() as u64;
        self.pages.clear();
        self.read = 0;
        self.is_open = false;
    }
}

/// Where probation ends: a share of the memory that follows what would have hit.
#[derive(Debug)]
pub(super) struct Border {
    /// Share of the memory for entries on probation, of 1.
    pub(super) share: f64,
    /// Accesses that lead from the protected segment to the hot one.
    pub(super) hot_after: u8,
    /// There is a hot segment.
    pub(super) is_hot_kept: bool,
    /// How far one entry that came back moves the border.
    step: f64,
    /// Protected entries drained since a hot one was.
    turns: u8,
    hot_bytes: usize,
    capacity_bytes: usize,
}

impl Border {
    const SHARE_MIN: f64 = 0.02;
    const SHARE_MAX: f64 = 0.9;

    /// Steps that returning names as many as the memory has room for make: fewer, and it follows a shift of popularity
    /// too late; more, and it trembles. From 2 to 8 the hit rates of `benches/cache_hit_rate.rs` are much the same.
    const STEPS: f64 = 4.0;

    /// For so many protected entries that are drained, a hot one is looked at.
    const HOT_TURN: u8 = 8;

    /// Most steps at once towards the protected segment: a burst must not starve probation.
    const STEPS_MAX: f64 = 50.0;

    /// The border of a cache for some `entries` entries in `capacity_bytes` bytes.
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    pub(super) fn new(section: &config::Cache, entries: usize, capacity_bytes: usize) -> Self {
        Self {
            share: f64::from(section.probation_percent) / 100.0,
            hot_after: section.hot_after,
            is_hot_kept: true,
            step: Self::STEPS / entries.max(1) as f64,
            turns: 0,
            hot_bytes: capacity_bytes / 100 * usize::from(section.hot_percent),
            capacity_bytes,
        }
    }

    /// An entry came back that had to leave `from`; `counts` are the names remembered from probation and protection.
    ///
    /// Probation grows by what it lost, and the other way round; who has fewer losses pulls harder, and nobody by
    /// less than a step, as in ARC.
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    pub(super) fn shift(&mut self, from: Segment, counts: [usize; 2]) {
        let [probation, protected] = counts.map(|count| count.max(1) as f64);
        let change = match from {
            Segment::Probation => self.step * (protected / probation).max(1.0),
            Segment::Protected | Segment::Hot => {
                -self.step * (probation / protected).clamp(1.0, Self::STEPS_MAX)
            }
        };
        self.share = (self.share + change).clamp(Self::SHARE_MIN, Self::SHARE_MAX);
    }

    /// Bytes that probation may fill.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a share of the capacity is no larger, and need not be exact"
    )]
    pub(super) fn probation_bytes(&self) -> usize {
        (self.capacity_bytes as f64 * self.share) as usize
    }

    /// Whether it is a hot entry's turn, before one more protected one.
    pub(super) const fn turn_hot(&mut self) -> bool {
        self.turns = (self.turns + 1) % Self::HOT_TURN;
        self.turns == 0
    }

    /// Bytes that the hot segment may fill.
    pub(super) const fn hot_bytes(&self) -> usize {
        if self.is_hot_kept { self.hot_bytes } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_leave_in_the_order_in_which_they_came_and_pages_come_back() {
        let mut slab = Slab::new(4 * PAGE_BYTES, 4);
        let mut queue = Queue::new(4);
        let len = 30_001;
        let places: Vec<Place> = (0..5).map(|_| queue.append(&mut slab, len).unwrap()).collect();
        assert_eq!(slab.free_pages(), 1);
        assert_eq!(queue.bytes(), 2 * PAGE_BYTES + footprint(len));
        for &place in &places[..4] {
            assert_eq!(queue.front(&mut slab), Some(place));
            queue.advance(&mut slab, len);
        }
        assert_eq!(slab.free_pages(), 3);
        assert_eq!(queue.front(&mut slab), None, "the last page is still open");
        queue.close();
        assert_eq!(queue.front(&mut slab), Some(places[4]));
        queue.advance(&mut slab, len);
        assert_eq!((slab.free_pages(), queue.bytes()), (4, 0));
    }

    #[test]
    fn pages_keep_their_numbers_while_others_leave() {
        let mut slab = Slab::new(4 * PAGE_BYTES, 4);
        let mut queue = Queue::new(4);
        let len = 40_000;
        for _ in 0..3 {
            queue.append(&mut slab, len).unwrap();
        }
        assert_eq!(queue.serials(), 0..3);
        let second = queue.page(1).unwrap();
        queue.front(&mut slab);
        queue.advance(&mut slab, len);
        assert_eq!((queue.serials(), queue.page(0)), (1..3, None));
        assert_eq!(queue.page(1), Some(second));
        queue.clear();
        queue.append(&mut slab, len).unwrap();
        assert_eq!(queue.serials(), 3..4);
        assert_eq!((queue.page(3).unwrap().1, queue.page(4)), (0..len, None));
    }

    #[test]
    fn border_moves_towards_what_was_lost_and_stays_within_its_bounds() {
        let mut border = Border::new(&config::Cache::default(), 1000, 1 << 20);
        let begin = border.share;
        border.shift(Segment::Probation, [10, 10]);
        assert!(border.share > begin);
        border.shift(Segment::Protected, [10, 10]);
        assert!((border.share - begin).abs() < 1e-9);
        for _ in 0..10_000 {
            border.shift(Segment::Hot, [1000, 1]);
        }
        assert!((border.share - Border::SHARE_MIN).abs() < 1e-9);
        for _ in 0..10_000 {
            border.shift(Segment::Probation, [1, 1000]);
        }
        assert_eq!(border.probation_bytes(), 943_718, "nine tenths");
    }

    #[test]
    fn queue_says_when_there_is_no_page() {
        let mut slab = Slab::new(PAGE_BYTES, 1);
        let mut queue = Queue::new(1);
        assert!(queue.append(&mut slab, PAGE_BYTES - 8).is_some());
        assert!(queue.append(&mut slab, 9).is_none());
        assert!(queue.append(&mut slab, 8).is_some());
    }
}
