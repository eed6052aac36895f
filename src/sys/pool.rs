//! Buffers of equal size in one region of memory. A [`Slot`] is one buffer, owned; dropping it gives it back.
//!
//! Invariants:
//! * I1: slot `i` is the bytes `i * stride .. i * stride + slot_bytes` of the region, within it, apart from all others.
//! * I2: a [`Slot`] exists for an index exactly while the books say `Guard`; the kernel touches only what they call
//!   `Kernel`. So a slot's bytes have one user at a time.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

use super::mmap::Region;
use super::owners::Owners;

const CACHE_LINE_BYTES: usize = 64;

/// Bytes from one slot to the next: an odd number of cache lines, so that the first lines of consecutive buffers
/// spread over all sets of a cache instead of fighting for a few.
#[must_use]
pub const fn stride(slot_bytes: usize) -> usize {
    let lines = slot_bytes.div_ceil(CACHE_LINE_BYTES);
    (lines | 1) * CACHE_LINE_BYTES
}

/// Buffers of equal size.
#[derive(Debug)]
pub struct Pool {
    region: Region,
    slot_bytes: usize,
    count: u16,
    owners: RefCell<Owners>,
}

impl Pool {
    /// A pool of `count` buffers of `slot_bytes` each in `region`; `None` if they do not fit.
    #[must_use]
    pub fn new(region: Region, slot_bytes: usize, count: u16) -> Option<Rc<Self>> {
        let bytes = stride(slot_bytes).checked_mul(usize::from(count))?;
        let owners = RefCell::new(Owners::new(count));
        (bytes <= region.len()).then(|| Rc::new(Self { region, slot_bytes, count, owners }))
    }

    /// Buffers in all.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// Bytes of each buffer.
    #[must_use]
    pub const fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Buffers that nobody uses now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.owners.borrow().free()
    }

    /// Takes a free buffer; its bytes are what the last user left.
    #[must_use]
    #[inline]
    pub fn take(self: &Rc<Self>) -> Option<Slot> {
        let index = self.owners.borrow_mut().take()?;
        Some(Slot { pool: Rc::clone(self), index })
    }

    /// Takes back the buffer at `index`, which the kernel has given up.
    ///
    /// Only a completion of the operation it was lent for may lead here.
    #[inline]
    pub(super) fn reclaim(self: &Rc<Self>, index: u16) -> Slot {
        self.owners.borrow_mut().reclaim(index);
        Slot { pool: Rc::clone(self), index }
    }

    #[inline]
    fn start(&self, index: u16) -> NonNull<u8> {
        // SAFETY: `index < count`, so the offset is within the region (I1).
        unsafe { self.region.base().add(usize::from(index) * stride(self.slot_bytes)) }
    }
}

/// One buffer, owned.
#[derive(Debug)]
pub struct Slot {
    pool: Rc<Pool>,
    index: u16,
}

impl Slot {
    /// Whether this is a buffer of `pool`.
    #[must_use]
    pub fn is_of(&self, pool: &Rc<Pool>) -> bool {
        Rc::ptr_eq(&self.pool, pool)
    }

    /// Index within its pool.
    pub(super) const fn index(&self) -> u16 {
        self.index
    }

    /// Where its bytes begin; good while the slot lives, or while the kernel has it.
    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.pool.start(self.index).as_ptr()
    }

    /// Passes the buffer to the kernel and returns its index, by which [`Pool::reclaim`] takes it back.
    #[inline]
    pub(super) fn lend(self) -> u16 {
        let index = self.index;
        self.pool.owners.borrow_mut().lend(index);
        let mut parts = std::mem::ManuallyDrop::new(self);
        // SAFETY: `parts` is never used again and its own drop does not run, so the count goes down once.
        unsafe { std::ptr::drop_in_place(&raw mut parts.pool) };
        index
    }
}

impl Deref for Slot {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let start = self.pool.start(self.index).as_ptr();
        // SAFETY: the bytes are mapped (I1) and this guard is their one user (I2).
        unsafe { std::slice::from_raw_parts(start, self.pool.slot_bytes) }
    }
}

impl DerefMut for Slot {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let start = self.pool.start(self.index).as_ptr();
        // SAFETY: the bytes are mapped (I1) and this guard, borrowed for writing, is their one user (I2).
        unsafe { std::slice::from_raw_parts_mut(start, self.pool.slot_bytes) }
    }
}

impl Drop for Slot {
    #[inline]
    fn drop(&mut self) {
        self.pool.owners.borrow_mut().put_back(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mmap::Map;

    fn pool(slot_bytes: usize, count: u16) -> Rc<Pool> {
        let len = stride(slot_bytes) * usize::from(count);
        let [region] = Map::anonymous(len).unwrap().split([len]).unwrap();
        Pool::new(region, slot_bytes, count).unwrap()
    }

    #[test]
    fn strides_are_odd_in_cache_lines() {
        for bytes in [1, 64, 65, 128, 2048, 2049] {
            assert!(stride(bytes) >= bytes);
            assert_eq!(stride(bytes) / CACHE_LINE_BYTES % 2, 1);
        }
    }

    #[test]
    fn slots_do_not_share_bytes() {
        let pool = pool(100, 3);
        let mut slots: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(slots.len(), 3);
        for (mark, slot) in (1..).zip(&mut slots) {
            slot.fill(mark);
        }
        for (mark, slot) in (1..).zip(&slots) {
            assert!(slot.iter().all(|byte| *byte == mark));
        }
    }

    #[test]
    fn a_dropped_slot_is_free_again_and_a_lent_one_is_not() {
        let pool = pool(64, 1);
        drop(pool.take().unwrap());
        let index = pool.take().unwrap().lend();
        assert!(pool.take().is_none());
        drop(pool.reclaim(index));
        assert_eq!(pool.free(), 1);
        assert_eq!(Rc::strong_count(&pool), 1);
    }

    #[test]
    fn a_pool_that_does_not_fit_is_refused() {
        let [region] = Map::anonymous(4096).unwrap().split([4096]).unwrap();
        assert!(Pool::new(region, 4096, 1).is_none());
    }
}
