//! Resource limits of the process (setrlimit(2)).
//!
//! Invariants:
//! * I1: the struct given to the kernel is a live Rust value of the kernel's own layout (libc's).

use std::io;

/// What is limited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resource {
    /// Open descriptors.
    Descriptors,
    /// Locked memory in bytes.
    LockedMemory,
}

/// The limit in force and the one it may be raised to; `u64::MAX` is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    /// In force.
    pub soft: u64,
    /// As far as the process may raise it by itself.
    pub hard: u64,
}

impl Resource {
    const fn number(self) -> libc::__rlimit_resource_t {
        match self {
            Self::Descriptors => libc::RLIMIT_NOFILE,
            Self::LockedMemory => libc::RLIMIT_MEMLOCK,
        }
    }

    /// The present limit.
    ///
    /// # Errors
    /// The kernel's; none is known for these resources.
    pub fn limit(self) -> io::Result<Limit> {
        let mut raw = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `raw` is a live, writable rlimit (I1).
        let result = unsafe { libc::getrlimit(self.number(), &raw mut raw) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Limit { soft: raw.rlim_cur, hard: raw.rlim_max })
    }

    /// Raises the soft limit to the hard one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn raise(self) -> io::Result<Limit> {
        let Limit { hard, .. } = self.limit()?;
        let raw = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: `raw` is a live rlimit (I1).
        let result = unsafe { libc::setrlimit(self.number(), &raw const raw) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Limit { soft: hard, hard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raised_limit_reads_back() {
        let raised = Resource::Descriptors.raise().unwrap();
        assert_eq!(raised.soft, raised.hard);
        assert_eq!(Resource::Descriptors.limit().unwrap(), raised);
        let locked = Resource::LockedMemory.limit().unwrap();
        assert!(locked.soft <= locked.hard);
    }
}
