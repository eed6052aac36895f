//! `recvmmsg` and `sendmmsg`: batches of datagrams, one system call each.
//!
//! Invariants:
//! * I1: each vector's pointers lead to elements of boxed slices that live, unmoved, as long as the batch, or to the
//!   bytes of slots that the batch owns.
//! * I2: both calls are synchronous: the kernel keeps no pointer after they return.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;

use super::address;
use super::cmsg::{self, RECEIVE_CONTROL_BYTES};
use super::datagram::{Datagram, NAME_BYTES, NAME_LEN, Refused};
use super::pool::{Pool, Slot};
use super::send_header::SendHeader;

/// Room for the sender's address.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; NAME_BYTES]);

/// Room for control messages, aligned for their headers.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; RECEIVE_CONTROL_BYTES]);

/// Datagrams received together.
pub struct ReceiveBatch {
    slots: Box<[Slot]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    vectors: Box<[libc::iovec]>,
    messages: Box<[libc::mmsghdr]>,
}

impl ReceiveBatch {
    /// A batch of up to `count` buffers of `pool`; fewer if the pool has fewer.
    #[must_use]
    pub fn new(pool: &Rc<Pool>, count: usize) -> Self {
        let mut slots: Box<[Slot]> = std::iter::from_fn(|| pool.take()).take(count).collect();
        let vectors = slots
            .iter_mut()
            .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() });
        let vectors = vectors.collect();
        let count = slots.len();
        Self {
            slots,
            names: vec![Name([0; NAME_BYTES]); count].into(),
            controls: vec![Control([0; RECEIVE_CONTROL_BYTES]); count].into(),
            vectors,
            messages: vec![empty_message(); count].into(),
        }
    }

    /// Datagrams that fit into one call.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Receives what is there, without waiting, and returns how many datagrams that were.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock` when nothing is there.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.reset();
        let count = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        let fd = socket.as_raw_fd();
        let messages = self.messages.as_mut_ptr();
        // SAFETY: `messages` are `count` headers whose pointers are good (I1), and only during the call (I2).
        let received = unsafe {
            libc::recvmmsg(fd, messages, count, libc::MSG_DONTWAIT, std::ptr::null_mut())
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Datagram `index` of the last call.
    #[must_use]
    pub fn datagram(&self, index: usize) -> Datagram<'_> {
        let message = &self.messages[index];
        let header = &message.msg_hdr;
        let name = &self.names[index].0;
        let control = &self.controls[index].0;
        let slot = &self.slots[index];
        let len = message.msg_len as usize;
        Datagram {
            from: address::parse(name.get(..header.msg_namelen as usize).unwrap_or(name)),
            attached: cmsg::parse(control.get(..header.msg_controllen).unwrap_or(control)),
            payload: slot.get(..len).unwrap_or(slot),
            is_truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        }
    }

    /// Points every header at its parts again: the kernel overwrites lengths.
    fn reset(&mut self) {
        let parts = self.names.iter_mut().zip(&mut self.controls).zip(&mut self.vectors);
        for (message, ((name, control), vector)) in self.messages.iter_mut().zip(parts) {
            let header = &mut message.msg_hdr;
            header.msg_name = name.0.as_mut_ptr().cast();
            header.msg_namelen = NAME_LEN;
            header.msg_iov = &raw mut *vector;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = RECEIVE_CONTROL_BYTES;
            header.msg_flags = 0;
        }
    }
}

/// Datagrams sent together from one socket.
pub struct SendBatch {
    headers: Box<[SendHeader]>,
    messages: Box<[libc::mmsghdr]>,
    slots: Vec<Slot>,
}

impl SendBatch {
    /// A batch of up to `capacity` datagrams.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            headers: std::iter::repeat_with(SendHeader::empty).take(capacity).collect(),
            messages: vec![empty_message(); capacity].into(),
            slots: Vec::with_capacity(capacity),
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether no further datagram fits.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.slots.len() == self.headers.len()
    }

    /// Adds the first `len` bytes of `slot`, to `to`, from `local` if that is given.
    ///
    /// # Panics
    /// If the batch is full or `slot` has fewer bytes.
    pub fn push(&mut self, mut slot: Slot, len: usize, to: SocketAddr, local: Option<IpAddr>) {
        assert!(len <= slot.len(), "a datagram ends within its slot");
        let index = self.slots.len();
        let message = self.headers[index].message(slot.as_mut_ptr(), len, to, local);
        self.messages[index].msg_hdr = *message;
        self.slots.push(slot);
    }

    /// Sends all without waiting, returns how many the kernel took and empties the batch.
    ///
    /// A datagram that the kernel refuses is skipped, after `refused` got it.
    pub fn flush(
        &mut self,
        socket: BorrowedFd<'_>,
        mut refused: impl FnMut(&Refused<'_>),
    ) -> usize {
        let (mut done, mut sent) = (0, 0);
        while done < self.slots.len() {
            let rest = &mut self.messages[done..self.slots.len()];
            let count = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            let fd = socket.as_raw_fd();
            // SAFETY: `rest` are headers that `push` has filled (I1), read only during the call (I2).
            let taken = unsafe { libc::sendmmsg(fd, rest.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
            match usize::try_from(taken) {
                Ok(taken) => {
                    done += taken;
                    sent += taken;
                }
                Err(_) => {
                    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
                    if errno != libc::EINTR {
                        refused(&self.headers[done].refused(&self.slots[done], errno));
                        done += 1;
                    }
                }
            }
        }
        self.slots.clear();
        sent
    }
}

const fn empty_message() -> libc::mmsghdr {
    // SAFETY: null pointers and zero lengths are a valid, empty `mmsghdr`.
    unsafe { std::mem::zeroed() }
}
