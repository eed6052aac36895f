//! Where a datagram goes and whence, in the form in which the kernel reads it.
//!
//! Invariants:
//! * I1: pointers within a header point into that same header or to the payload; so a filled header must stay where it
//!   is, and unchanged, until the kernel has read it.

use std::net::{IpAddr, SocketAddr};

use super::address::RawAddress;
use super::cmsg::SendControl;
use super::datagram::Refused;

/// `msghdr` of one datagram, and all it points to but the payload.
pub(super) struct SendHeader {
    message: libc::msghdr,
    vector: libc::iovec,
    address: RawAddress,
    control: SendControl,
}

impl SendHeader {
    /// A header that names nothing.
    pub(super) fn empty() -> Self {
        Self {
            // SAFETY: null pointers and zero lengths are a valid, empty `msghdr`.
            message: unsafe { std::mem::zeroed() },
            vector: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            address: RawAddress::EMPTY,
            control: SendControl::EMPTY,
        }
    }

    /// Sets receiver and length alone: enough for a send that names buffer and address itself.
    #[inline]
    pub(super) fn address(&mut self, len: usize, to: SocketAddr) -> &RawAddress {
        self.address = RawAddress::new(to);
        self.vector.iov_len = len;
        &self.address
    }

    /// The datagram that was last to be sent by this header; `buffer` begins with it.
    pub(super) fn refused<'a>(&self, buffer: &'a [u8], errno: i32) -> Refused<'a> {
        let datagram = buffer.get(..self.vector.iov_len).unwrap_or(buffer);
        Refused { datagram, to: self.address.read(), errno }
    }

    /// Fills the whole header for `len` bytes at `payload`, leaving from `local` if that is given.
    pub(super) fn message(
        &mut self,
        payload: *mut u8,
        len: usize,
        to: SocketAddr,
        local: Option<IpAddr>,
    ) -> &libc::msghdr {
        self.address = RawAddress::new(to);
        self.vector = libc::iovec { iov_base: payload.cast(), iov_len: len };
        self.message.msg_name = self.address.as_ptr().cast_mut().cast();
        self.message.msg_namelen = self.address.len();
        self.message.msg_iov = &raw mut self.vector;
        self.message.msg_iovlen = 1;
        match local {
            Some(local) => {
                self.control = SendControl::from_local(local);
                let control = self.control.as_bytes();
                self.message.msg_control = control.as_ptr().cast_mut().cast();
                self.message.msg_controllen = control.len();
            }
            None => {
                self.message.msg_control = std::ptr::null_mut();
                self.message.msg_controllen = 0;
            }
        }
        &self.message
    }
}
