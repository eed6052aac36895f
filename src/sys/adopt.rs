//! Hands a descriptor to a type of another crate, without naming that crate here.
//!
//! Invariants:
//! * I1: an `OwnedFd` is open and nobody else owns it.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// Makes a `T` that owns `fd`.
#[must_use]
pub fn adopt<T: FromRawFd>(fd: OwnedFd) -> T {
    // SAFETY: `fd` is open and ours alone (I1), and `into_raw_fd` gives that ownership to `T`.
    unsafe { T::from_raw_fd(fd.into_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_changes_hands() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let adopted: std::os::unix::net::UnixStream = adopt(near.into());
        drop(adopted);
        let read = std::io::Read::read(&mut &far, &mut [0; 1]).unwrap();
        assert_eq!(read, 0, "the adopter closed it");
    }
}
