//! Bytes that do not change any more, for all threads: the part that is read all the time in memory of our own, which no
//! shortage sends back to a file, in huge pages where the kernel has them; the rest as it lies in the file; all of it present
//! before it is used.
//!
//! Invariants:
//! * I1: `reservation..reservation + reserved` is one reservation that nobody else has, as long as the [`Frozen`] lives.
//! * I2: `base..base + len` lies within it, is mapped and may be read from construction on; nobody may write to it.
//! * I3: a file that is mapped is never written to nor cut short again: whoever replaces it puts another file in its place.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;

/// A huge page, on every machine with pages of 4 KiB.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// More than a page has anywhere that io_uring is; what is mapped from a file begins at a multiple of it.
const PAGE_BYTES_MAX: usize = 64 << 10;

/// Bytes that are read and never written.
#[derive(Debug)]
pub struct Frozen {
    reservation: NonNull<u8>,
    reserved: usize,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: nobody writes to the bytes (I2, I3), so it makes no difference which thread reads or unmaps them.
unsafe impl Send for Frozen {}
// SAFETY: as above.
unsafe impl Sync for Frozen {}

impl Frozen {
    /// A copy of `bytes`.
    ///
    /// # Errors
    /// The kernel's, when memory or address space runs out.
    pub fn copied(bytes: &[u8]) -> io::Result<Self> {
        let frozen = Self::reserve(bytes.len())?;
        frozen.fill(bytes.len(), |memory| {
            memory.copy_from_slice(bytes);
            Ok(())
        })?;
        Ok(frozen)
    }

    /// The `len` bytes of `file`, which must never be written to again (I3): the first `hot` of them, or a few more, are
    /// copied into memory, the others mapped.
    ///
    /// # Errors
    /// The kernel's, and when the file is shorter.
    pub fn mapped(file: &File, len: usize, hot: usize) -> io::Result<Self> {
        if file.metadata()?.len() < len as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let frozen = Self::reserve(len)?;
        let copied = hot.min(len).next_multiple_of(HUGE_PAGE_BYTES).min(len);
        frozen.fill(copied, |memory| file.read_exact_at(memory, 0))?;
        if copied < len {
            frozen.map_behind(file, copied)?;
        }
        Ok(frozen)
    }

    /// Address space for `len` bytes that begins with a huge page.
    fn reserve(len: usize) -> io::Result<Self> {
        let reserved = len
            .checked_next_multiple_of(PAGE_BYTES_MAX)
            .and_then(|len| len.checked_add(HUGE_PAGE_BYTES))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), reserved, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let reservation = NonNull::new(start.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;
        let slack = reservation.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: the reservation is a huge page longer than what is asked for (I1).
        let base = unsafe { reservation.add(slack) };
        Ok(Self { reservation, reserved, base, len })
    }

    /// Puts memory to the front and lets `write` fill its first `len` bytes, for the last time.
    fn fill(&self, len: usize, write: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
        let whole = len.next_multiple_of(PAGE_BYTES_MAX);
        self.protect(whole, libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: the range is ours (I1). A wish: without huge pages it is all the same.
        unsafe { libc::madvise(self.base.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
        // SAFETY: the range is ours, zeroes that may be written, and nobody else has it yet (I1).
        let memory = unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), len) };
        write(memory)?;
        self.protect(whole, libc::PROT_READ)
    }

    fn protect(&self, len: usize, protection: i32) -> io::Result<()> {
        // SAFETY: the range is ours (I1), and nobody holds a reference into it while it is made.
        let outcome = unsafe { libc::mprotect(self.base.as_ptr().cast(), len, protection) };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Maps what `file` has from `at` on, which is a multiple of every page, behind the front.
    fn map_behind(&self, file: &File, at: usize) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_POPULATE;
        let offset = libc::off_t::try_from(at).map_err(io::Error::other)?;
        // SAFETY: `at` is below `len`, so the place is within the reservation (I1).
        let place = unsafe { self.base.add(at) };
        let (len, fd) = (self.len - at, file.as_raw_fd());
        // SAFETY: the place is ours, holds nothing yet, and nobody else refers to it (I1).
        let start =
            unsafe { libc::mmap(place.as_ptr().cast(), len, libc::PROT_READ, flags, fd, offset) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: they are mapped, may be read, and do not change as long as this lives (I2, I3).
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // SAFETY: the reservation is ours (I1), and whoever borrowed from it is gone.
        unsafe { libc::munmap(self.reservation.as_ptr().cast(), self.reserved) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251).to_le_bytes()[0]).collect()
    }

    /// A file with these bytes that has no name any more.
    fn file(name: &str, bytes: &[u8]) -> File {
        let path =
            std::env::temp_dir().join(format!("heimdall-frozen-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let file = super::super::file::open_warily(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file
    }

    #[test]
    fn bytes_are_the_same_wherever_the_front_ends() {
        let bytes = pattern(2 * HUGE_PAGE_BYTES + 12_345);
        let file = file("front", &bytes);
        for hot in [0, 1, 4_096, HUGE_PAGE_BYTES, HUGE_PAGE_BYTES + 1, bytes.len(), usize::MAX / 2]
        {
            let frozen = Frozen::mapped(&file, bytes.len(), hot).unwrap();
            assert!(frozen.as_ref() == bytes, "{hot}");
        }
    }

    #[test]
    fn copy_is_what_was_copied_and_all_threads_may_read_it() {
        for len in [0, 1, 4_096, HUGE_PAGE_BYTES + 1] {
            let bytes = pattern(len);
            let frozen = Frozen::copied(&bytes).unwrap();
            assert_eq!(frozen.as_ref().as_ptr() as usize % HUGE_PAGE_BYTES, 0);
            let seen = std::thread::spawn(move || frozen.as_ref().to_vec()).join().unwrap();
            assert!(seen == bytes, "{len}");
        }
    }

    #[test]
    fn file_that_is_too_short_is_refused() {
        let file = file("short", b"12345");
        assert!(Frozen::mapped(&file, 6, 0).is_err());
        assert_eq!(Frozen::mapped(&file, 5, 0).unwrap().as_ref(), b"12345");
    }
}
