//! A ring of buffers provided to the kernel: it takes one per datagram, from the head, as datagrams come.
//!
//! Invariants:
//! * I1: `entries` holds `count` entries, `count` a power of two, mapped as long as the [`Group`] lives; the group
//!   lives as long as the ring that it is registered with.
//! * I2: an entry names a buffer only while the pool's books say that the kernel owns it. A buffer is in at most one
//!   entry, so at most `count` entries are ahead of the kernel's head and none is overwritten before it is consumed.
//! * I3: only this type writes entries and tail; the kernel reads entries below the tail it has seen.

use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::mmap::Map;
use super::pool::{Pool, Slot};

/// Buffers provided to the kernel under one group number.
#[derive(Debug)]
pub(super) struct Group {
    entries: Map,
    pool: Rc<Pool>,
    tail: u16,
    mask: u16,
}

impl Group {
    /// A group that provides the buffers of `pool`, whose count must be a power of two up to 32768.
    pub(super) fn new(pool: Rc<Pool>) -> io::Result<Self> {
        let count = pool.count();
        if !count.is_power_of_two() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let entries = Map::anonymous(usize::from(count) * size_of::<BufRingEntry>())?;
        Ok(Self { entries, pool, tail: 0, mask: count - 1 })
    }

    /// Where the entries begin, and how many there are, for the registration.
    pub(super) fn registration(&self) -> (u64, u16) {
        (self.entries.base().as_ptr().expose_provenance() as u64, self.pool.count())
    }

    /// Provides every free buffer of the pool.
    #[inline]
    pub(super) fn refill(&mut self) {
        let before = self.tail;
        while let Some(slot) = self.pool.take() {
            self.write(slot);
        }
        if self.tail != before {
            self.publish();
        }
    }

    /// The buffer `index`, which a completion says is filled.
    #[inline]
    pub(super) fn filled(&self, index: u16) -> Slot {
        self.pool.reclaim(index)
    }

    #[inline]
    fn write(&mut self, mut slot: Slot) {
        let address = slot.as_mut_ptr().expose_provenance() as u64;
        let len = u32::try_from(slot.len()).unwrap_or(u32::MAX);
        let index = slot.lend();
        let mut entry = self.entry(self.tail & self.mask);
        // SAFETY: the entry is mapped (I1), consumed (I2), and nobody else has a reference to it (I3).
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address);
        entry.set_len(len);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        let first = self.entry(0).as_ptr().cast_const();
        // SAFETY: `first` is the first entry of a mapped, zeroed ring (I1).
        let tail = unsafe { BufRingEntry::tail(first) };
        // SAFETY: the tail is 2 aligned bytes within the first entry, shared with the kernel only by atomics (I3).
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    #[inline]
    fn entry(&self, index: u16) -> NonNull<BufRingEntry> {
        // SAFETY: callers mask `index`, so it is below `count` (I1).
        unsafe { self.entries.base().cast::<BufRingEntry>().add(usize::from(index)) }
    }
}
