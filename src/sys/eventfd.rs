//! An eventfd: a counter that wakes whoever reads it.
//!
//! Invariants:
//! * I1: the descriptor is open as long as the [`EventFd`] lives.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A wake-up counter.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Opens a counter at zero. Reads wait: a non-blocking eventfd would answer `EAGAIN` to an executor's ring.
    ///
    /// # Errors
    /// The kernel's, when descriptors run out.
    pub fn open() -> io::Result<Self> {
        // SAFETY: `eventfd` takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made `fd` for us and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Another descriptor of the same counter.
    ///
    /// # Errors
    /// The kernel's, when descriptors run out.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Wakes the reader, now or at its next read.
    pub fn signal(&self) {
        let one = 1u64;
        // SAFETY: `one` is 8 readable bytes, and the descriptor is open (I1). The only failure is a counter that
        // is full, and then the reader is awake anyway.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn signals_add_up() {
        let event = EventFd::open().unwrap();
        event.signal();
        event.signal();
        let mut file: std::fs::File = crate::sys::adopt::adopt(event.duplicate().unwrap());
        let mut count = [0; 8];
        file.read_exact(&mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 2);
    }
}
