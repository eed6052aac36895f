//! Anonymous memory straight from the kernel: page-aligned, huge pages where it can, present before it is used.
//!
//! Invariants:
//! * I1: `base..base + len` is mapped, readable, writable and initialised (zero) as long as the [`Map`] lives.
//! * I2: the [`Region`]s of a split map do not overlap, and each keeps the map alive.

use std::io;
use std::ptr::NonNull;
use std::rc::Rc;

/// An anonymous private mapping.
#[derive(Debug)]
pub struct Map {
    base: NonNull<u8>,
    len: usize,
}

impl Map {
    /// Maps `len` bytes of zeroes and touches them on the calling thread, so that they lie on its NUMA node.
    ///
    /// # Errors
    /// The kernel's, when memory or address space runs out.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;
        let map = Self { base, len };
        // Both are wishes: an old kernel or a full machine refuses them and the map works all the same.
        map.advise(libc::MADV_HUGEPAGE);
        map.advise(libc::MADV_POPULATE_WRITE);
        Ok(map)
    }

    fn advise(&self, advice: i32) {
        // SAFETY: the range is ours (I1); neither advice changes contents.
        unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, advice) };
    }

    /// Where the map begins, page-aligned.
    #[must_use]
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped; never, for a map that was made.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cuts the map into consecutive regions of these lengths; `None` if they exceed it.
    #[must_use]
    pub fn split<const N: usize>(self, lens: [usize; N]) -> Option<[Region; N]> {
        let total = lens.iter().try_fold(0usize, |sum, len| sum.checked_add(*len))?;
        if total > self.len {
            return None;
        }
        let map = Rc::new(self);
        let mut offset = 0;
        Some(lens.map(|len| {
            let region = Region { map: Rc::clone(&map), offset, len };
            offset += len;
            region
        }))
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is ours (I1), and whoever borrowed from it is gone (I2).
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// A part of a [`Map`] that nobody else has.
#[derive(Debug)]
pub struct Region {
    map: Rc<Map>,
    offset: usize,
    len: usize,
}

impl Region {
    /// Where the region begins.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        // SAFETY: `split` made sure that `offset` lies within the map (I1, I2).
        unsafe { self.map.base.add(self.offset) }
    }

    /// Bytes of the region.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the region holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_lie_side_by_side_within_the_map() {
        let map = Map::anonymous(8192).unwrap();
        let start = map.base();
        let [first, second] = map.split([4096, 1024]).unwrap();
        assert_eq!(first.base(), start);
        assert_eq!(second.base().as_ptr() as usize, start.as_ptr() as usize + 4096);
        assert_eq!(second.len(), 1024);
    }

    #[test]
    fn a_map_is_not_split_beyond_its_end() {
        assert!(Map::anonymous(4096).unwrap().split([4096, 1]).is_none());
        assert!(Map::anonymous(4096).unwrap().split([usize::MAX, 2]).is_none());
    }
}
