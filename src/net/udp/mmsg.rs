//! Hot path. Datagrams by `recvmmsg` and `sendmmsg`; the ring says only which sockets are readable.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::{BATCH, Plane};
use crate::net::Respond;
use crate::net::arena::Arena;
use crate::sys::mmsg::{ReceiveBatch, SendBatch};
use crate::sys::pool::Slot;
use crate::sys::uring::{Event, Full, Multishot, Ring};

/// The backend of batched system calls.
pub(super) struct Mmsg {
    ring: RefCell<Ring>,
    /// Readable sockets, each once, in the order in which they get their turn.
    ready: RefCell<VecDeque<u16>>,
    receive: RefCell<ReceiveBatch>,
    /// Datagrams to send. Bounded: each holds a send buffer.
    outgoing: RefCell<VecDeque<Outgoing>>,
    send: RefCell<SendBatch>,
    /// Sockets whose poll is to end.
    cancels: RefCell<Vec<u16>>,
}

struct Outgoing {
    socket: u16,
    slot: Slot,
    len: usize,
    to: SocketAddr,
    local: Option<IpAddr>,
}

impl Mmsg {
    pub(super) fn new(ring: Ring, arena: &Arena) -> Self {
        Self {
            ring: RefCell::new(ring),
            ready: RefCell::default(),
            receive: RefCell::new(ReceiveBatch::new(&arena.receive, BATCH)),
            outgoing: RefCell::default(),
            send: RefCell::new(SendBatch::new(BATCH)),
            cancels: RefCell::default(),
        }
    }

    pub(super) const fn ring(&self) -> &RefCell<Ring> {
        &self.ring
    }

    /// Handles about a batch of what arrived and sends what is queued. Whether there was anything to do.
    pub(super) fn turn<R: Respond>(&self, plane: &Plane, responder: &R) -> io::Result<bool> {
        let mut is_busy = !self.outgoing.borrow().is_empty();
        self.flush(plane);
        is_busy |= self.look(plane)?;
        let mut received = 0;
        // Sockets that are readable now; one that stays so waits behind the others.
        let count = self.ready.borrow().len();
        for _ in 0..count {
            let Some(index) = self.ready.borrow_mut().pop_front() else { break };
            received += self.receive(plane, responder, index, received == 0)?;
            is_busy = true;
            if received >= BATCH {
                break;
            }
        }
        self.flush(plane);
        Ok(is_busy)
    }

    /// Takes one batch from a socket, at most.
    fn receive<R: Respond>(
        &self,
        plane: &Plane,
        responder: &R,
        index: u16,
        is_first: bool,
    ) -> io::Result<usize> {
        let mut batch = self.receive.borrow_mut();
        let received = match plane.sockets.borrow().receiving(index) {
            Some(fd) => batch.receive(fd),
            None => return Ok(0),
        };
        let count = match received {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                // An error is told once and is then forgotten; datagrams may wait behind it.
                plane.receive_failed(index, error.raw_os_error().unwrap_or(0))?;
                self.ready.borrow_mut().push_back(index);
                return Ok(0);
            }
        };
        if count == batch.capacity() {
            self.ready.borrow_mut().push_back(index);
        } else {
            // Fewer than asked for: drained, and whatever comes next makes the poll speak again.
            plane.sockets.borrow_mut().clear_ready(index);
        }
        if count > 0 && is_first {
            responder.begin();
        }
        if count > 1 {
            responder.foresee((0..count).map(|position| batch.datagram(position).payload));
        }
        for position in 0..count {
            plane.deliver(responder, index, &batch.datagram(position));
        }
        plane.counts.datagrams_received.add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }

    /// Starts polls that wait for it and takes note of readable sockets. Whether something is left that no completion
    /// will announce.
    fn look(&self, plane: &Plane) -> io::Result<bool> {
        let mut ring = self.ring.borrow_mut();
        let mut sockets = plane.sockets.borrow_mut();
        let mut is_unfinished = false;
        while let Some((index, target)) = sockets.arm_next() {
            if ring.poll(target, index).is_err() {
                is_unfinished = sockets.ended(index);
                break;
            }
        }
        drop(sockets);
        is_unfinished |= !self.queue_cancels(&mut ring);
        ring.enter()?;
        plane.counts.enters.add(1);
        while let Some(event) = ring.next_event() {
            // Noting an event may free a socket's number, which the ring must hear.
            drop(ring);
            self.note(plane, &event)?;
            ring = self.ring.borrow_mut();
        }
        if ring.lost_completions() > 0 {
            return Err(io::Error::other("the kernel lost completions of the ring"));
        }
        let is_overflowing = ring.is_overflowing();
        plane.counts.completion_overflows.add(u64::from(is_overflowing));
        Ok(is_unfinished || is_overflowing || ring.is_held_up())
    }

    fn note(&self, plane: &Plane, event: &Event) -> io::Result<()> {
        match *event {
            Event::Readable { socket, is_failing, is_armed } => {
                // `sendmmsg` may have swallowed the error that would have told.
                if is_failing && socket >= plane.sockets.borrow().listeners() {
                    plane.note_reports(socket);
                }
                if plane.sockets.borrow_mut().mark_ready(socket) {
                    self.ready.borrow_mut().push_back(socket);
                }
                if !is_armed {
                    plane.operation_ended(socket, 0)?;
                }
            }
            Event::Ended { socket, errno } => plane.operation_ended(socket, errno)?,
            Event::Cancelled { socket } => {
                plane.sockets.borrow_mut().cancelled(socket);
                plane.reap_socket(socket);
            }
            // The ring neither receives nor sends here.
            Event::Received { .. } | Event::Sent | Event::Refused { .. } => {}
        }
        Ok(())
    }

    pub(super) fn send(
        &self,
        plane: &Plane,
        socket: u16,
        slot: Slot,
        len: usize,
        to: SocketAddr,
        local: Option<IpAddr>,
    ) -> Result<(), Full> {
        let waiting = {
            let mut outgoing = self.outgoing.borrow_mut();
            outgoing.push_back(Outgoing { socket, slot, len, to, local });
            outgoing.len()
        };
        if waiting >= BATCH {
            self.flush(plane);
        }
        Ok(())
    }

    /// Ends the poll on a socket, after what is queued for it has been sent.
    pub(super) fn cancel(&self, index: u16) {
        self.cancels.borrow_mut().push(index);
    }

    /// Whether all could be queued.
    fn queue_cancels(&self, ring: &mut Ring) -> bool {
        let mut cancels = self.cancels.borrow_mut();
        while let Some(index) = cancels.pop() {
            if ring.cancel(Multishot::Poll, index).is_err() {
                cancels.push(index);
                return false;
            }
        }
        true
    }

    /// Sends what is queued, one call per run of datagrams from the same socket.
    pub(super) fn flush(&self, plane: &Plane) {
        let mut outgoing = self.outgoing.borrow_mut();
        let mut batch = self.send.borrow_mut();
        let sockets = plane.sockets.borrow();
        while let Some(first) = outgoing.pop_front() {
            let socket = first.socket;
            let Some(fd) = sockets.fd(socket) else { continue };
            batch.push(first.slot, first.len, first.to, first.local);
            while !batch.is_full() && outgoing.front().is_some_and(|next| next.socket == socket) {
                let Some(next) = outgoing.pop_front() else { break };
                batch.push(next.slot, next.len, next.to, next.local);
            }
            let sent = batch.flush(fd, |refused| plane.send_refused(socket, refused));
            plane.counts.datagrams_sent.add(u64::try_from(sent).unwrap_or(u64::MAX));
        }
    }
}
