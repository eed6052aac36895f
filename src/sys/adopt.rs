//! Hands a descriptor that we own to a type that wants a raw one.
//!
//! Invariants:
//! * I1: the descriptor is open, and nobody else will close it: `OwnedFd` says so.
//! * I2: from then on the adopting type alone closes it.
#![expect(unsafe_code, reason = "FromRawFd is unsafe; glommio's sockets know no safe way in")]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// Makes a `T` of `fd`; the `T` closes it.
///
/// The caller chooses a `T` that suits the descriptor: a listener for a listening socket, and so on. The wrong one
/// is memory-safe, but each of its calls fails.
#[must_use]
pub fn adopt<T: FromRawFd>(fd: OwnedFd) -> T {
    let raw = fd.into_raw_fd();
    // SAFETY: `raw` was owned until the line above gave it up (I1), and is not used after this call (I2).
    unsafe { T::from_raw_fd(raw) }
}
