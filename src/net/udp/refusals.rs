//! Datagrams to upstreams that the kernel refused to send, on their way back to who waits for their answers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use crate::net::SocketId;
use crate::sys::errno;

/// Refusals that wait to be taken; more are forgotten, and who sent those datagrams waits in vain.
const WAITING_MAX: usize = 1_024;

/// Octets of a refused datagram by which its sender knows it again.
const HEAD_BYTES: usize = 2;

/// A datagram that will not be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The upstream-facing socket.
    pub socket: SocketId,
    /// The datagram's first octets.
    pub head: [u8; HEAD_BYTES],
    /// There was no room for it now. Otherwise there is no way to the receiver, or it is forbidden.
    pub is_want_of_room: bool,
}

/// Those of one plane.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    waiting: RefCell<VecDeque<Refusal>>,
    taker: RefCell<Option<Waker>>,
}

impl Refusals {
    /// The kernel refused `datagram` with `error`.
    #[cold]
    pub(super) fn note(&self, socket: SocketId, datagram: &[u8], error: i32) {
        let Some(&head) = datagram.first_chunk() else { return };
        let is_want_of_room = matches!(error, errno::EAGAIN | errno::ENOBUFS | errno::ENOMEM);
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < WAITING_MAX {
            waiting.push_back(Refusal { socket, head, is_want_of_room });
        }
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
    }

    /// Takes the next one; one task may wait for it.
    pub(super) async fn next(&self) -> Refusal {
        poll_fn(|cx| match self.waiting.borrow_mut().pop_front() {
            Some(refusal) => Poll::Ready(refusal),
            None => {
                self.taker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn refusals_come_in_order_with_their_cause_and_are_bounded() {
        let refusals = Refusals::default();
        refusals.note(SocketId(1), b"\x12\x34 and more", errno::ENETUNREACH);
        refusals.note(SocketId(2), b"\x56\x78", errno::EAGAIN);
        refusals.note(SocketId(3), b"?", errno::EPERM);
        let next = || block_on(poll_once(refusals.next()));
        let first = Refusal { socket: SocketId(1), head: [0x12, 0x34], is_want_of_room: false };
        assert_eq!(next(), Some(first));
        let second = Refusal { socket: SocketId(2), head: [0x56, 0x78], is_want_of_room: true };
        assert_eq!(next(), Some(second));
        assert_eq!(next(), None);
        for _ in 0..2 * WAITING_MAX {
            refusals.note(SocketId(1), b"\x12\x34", errno::EPERM);
        }
        assert_eq!(refusals.waiting.borrow().len(), WAITING_MAX);
    }
}
