//! Datagrams to upstreams that the kernel refused to send or the network returned, on their way back to who waits for
//! their answers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

use crate::net::SocketId;
use crate::sys::errno;
use crate::sys::error_queue::HEAD_BYTES;

/// Refusals that wait to be taken; more are forgotten, and who sent those datagrams waits in vain.
const WAITING_MAX: usize = 1_024;

/// A datagram that will not be sent, or will not arrive.
///
/// Anyone can forge the network's part of it: it concerns a query only if that was sent from the socket, to the address and
/// with the octets that stand here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The upstream-facing socket.
    pub socket: SocketId,
    /// The datagram's first octets.
    pub head: [u8; HEAD_BYTES],
    /// Where it was to go, if that could be read.
    pub to: Option<SocketAddr>,
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
    /// The kernel refused `datagram` to `to` with `error`.
    #[cold]
    pub(super) fn note(
        &self,
        socket: SocketId,
        datagram: &[u8],
        to: Option<SocketAddr>,
        error: i32,
    ) {
        let Some(&head) = datagram.first_chunk() else { return };
        let is_want_of_room = matches!(error, errno::EAGAIN | errno::ENOBUFS | errno::ENOMEM);
        self.push(Refusal { socket, head, to, is_want_of_room });
    }

    /// Takes a refusal in, if there is room.
    #[cold]
    pub(super) fn push(&self, refusal: Refusal) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < WAITING_MAX {
            waiting.push_back(refusal);
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
        let to = Some(SocketAddr::from(([192, 0, 2, 1], 53)));
        refusals.note(SocketId(1), b"\x12\x34 and more", to, errno::ENETUNREACH);
        refusals.note(SocketId(2), b"\x56\x78", to, errno::EAGAIN);
        refusals.note(SocketId(3), b"?", to, errno::EPERM);
        let next = || block_on(poll_once(refusals.next()));
        let first = Refusal { socket: SocketId(1), head: [0x12, 0x34], to, is_want_of_room: false };
        assert_eq!(next(), Some(first));
        let second = Refusal { socket: SocketId(2), head: [0x56, 0x78], to, is_want_of_room: true };
        assert_eq!(next(), Some(second));
        assert_eq!(next(), None);
        for _ in 0..2 * WAITING_MAX {
            refusals.note(SocketId(1), b"\x12\x34", to, errno::EPERM);
        }
        assert_eq!(refusals.waiting.borrow().len(), WAITING_MAX);
    }
}
