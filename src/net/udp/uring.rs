//! Hot path. Datagrams by multishot receives into provided buffers and sends on the ring.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::{BATCH, Plane};
use crate::net::Respond;
use crate::net::arena::Arena;
use crate::sys::datagram::Datagram;
use crate::sys::pool::Slot;
use crate::sys::uring::{Event, Full, GroupId, Multishot, Ring, Target};

/// Datagrams that leave the tasks of the core too little to do for replies to wait for.
const FEW: u64 = 4;

/// The ring backend.
pub(super) struct Uring {
    ring: RefCell<Ring>,
    clients: GroupId,
    upstreams: GroupId,
    /// Events in the order of their completions. Bounded: each holds a receive buffer or is the last of a socket's
    /// operation. Sends are settled when their completions are seen, so that their few buffers stay warm.
    pending: RefCell<VecDeque<Event>>,
    /// Sockets whose receive is to end, behind everything queued for them.
    cancels: RefCell<Vec<u16>>,
}

impl Uring {
    /// Provides the arena's receive buffers to `ring`.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new(mut ring: Ring, arena: &Arena) -> io::Result<Self> {
        Ok(Self {
            clients: ring.add_group(Rc::clone(&arena.receive))?,
            upstreams: ring.add_group(Rc::clone(&arena.upstream))?,
            ring: RefCell::new(ring),
            pending: RefCell::default(),
            cancels: RefCell::default(),
        })
    }

    pub(super) const fn ring(&self) -> &RefCell<Ring> {
        &self.ring
    }

    /// Handles up to a batch of what arrived and sends what is queued. Whether there was anything to do.
    pub(super) fn turn<R: Respond>(&self, plane: &Plane, responder: &R) -> io::Result<bool> {
        if self.pending.borrow().is_empty() {
            let is_unfinished = self.enter(plane, Duration::ZERO)?;
            if self.pending.borrow().is_empty() {
                return Ok(is_unfinished);
            }
        }
        responder.begin();
        self.foresee(responder);
        let mut received = 0;
        for _ in 0..BATCH {
            let Some(event) = self.pending.borrow_mut().pop_front() else { break };
            received += u64::from(matches!(event, Event::Received { .. }));
            self.handle(plane, responder, event)?;
        }
        plane.counts.datagrams_received.add(received);
        // Replies to a few go with the call that comes next anyhow.
        if received > FEW || !self.is_drained() {
            self.enter(plane, Duration::ZERO)?;
        }
        Ok(true)
    }

    /// Whether all that has been taken in is handled.
    pub(super) fn is_drained(&self) -> bool {
        self.pending.borrow().is_empty()
    }

    /// Sends what is queued and waits up to `at_most` for completions, with the thread.
    pub(super) fn wait(&self, plane: &Plane, at_most: Duration) -> io::Result<()> {
        self.enter(plane, at_most).map(drop)
    }

    /// Shows the responder the batch, if it is one.
    fn foresee<R: Respond>(&self, responder: &R) {
        let pending = self.pending.borrow();
        if pending.len() > 1 {
            responder.foresee(pending.iter().take(BATCH).filter_map(|event| match event {
                Event::Received { buffer, len, .. } => {
                    Some(Datagram::parse(buffer.get(..*len)?)?.payload)
                }
                _ => None,
            }));
        }
    }

    #[inline]
    fn handle<R: Respond>(&self, plane: &Plane, responder: &R, event: Event) -> io::Result<()> {
        match event {
            Event::Received { socket, buffer, len, is_armed } => {
                match buffer.get(..len).and_then(Datagram::parse) {
                    Some(datagram) => plane.deliver(responder, socket, &datagram),
                    None => plane.counts.receive_errors.add(1),
                }
                drop(buffer);
                if !is_armed {
                    plane.operation_ended(socket, 0)?;
                }
            }
            Event::Ended { socket, errno } => plane.operation_ended(socket, errno)?,
            Event::Cancelled { socket } => {
                plane.sockets.borrow_mut().cancelled(socket);
                plane.reap_socket(socket);
            }
            // Sends are settled in `settle`; nothing is polled.
            Event::Sent | Event::Refused { .. } | Event::Readable { .. } => {}
        }
        Ok(())
    }

    /// Starts receives that wait for it, sends what is queued, fetches completions, for which it waits up to `at_most`. Whether
    /// something is left that no completion will announce: the plane must come back soon instead of sleeping.
    fn enter(&self, plane: &Plane, at_most: Duration) -> io::Result<bool> {
        let mut ring = self.ring.borrow_mut();
        let mut sockets = plane.sockets.borrow_mut();
        let mut is_unfinished = false;
        while let Some((index, target)) = sockets.arm_next() {
            let group = if index < sockets.listeners() { self.clients } else { self.upstreams };
            if ring.receive(target, group, index).is_err() {
                is_unfinished = sockets.ended(index);
                break;
            }
        }
        is_unfinished |= !self.queue_cancels(&mut ring, sockets.listeners());
        drop(sockets);
        if at_most.is_zero() || is_unfinished { ring.enter() } else { ring.wait(at_most) }?;
        plane.counts.enters.add(1);
        is_unfinished |= self.settle(plane, &mut ring)?;
        Ok(is_unfinished || ring.is_held_up())
    }

    /// Takes completions in: sends are over, all else waits its turn. Whether more wait in the kernel.
    fn settle(&self, plane: &Plane, ring: &mut Ring) -> io::Result<bool> {
        let mut pending = self.pending.borrow_mut();
        let mut sent = 0;
        while let Some(event) = ring.next_event() {
            match event {
                Event::Sent => sent += 1,
                Event::Refused { socket, buffer, errno } => {
                    plane.send_refused(socket, &ring.refused(&buffer, errno));
                }
                event => pending.push_back(event),
            }
        }
        plane.counts.datagrams_sent.add(sent);
        if ring.lost_completions() > 0 {
            return Err(io::Error::other("the kernel lost completions of the ring"));
        }
        let is_overflowing = ring.is_overflowing();
        plane.counts.completion_overflows.add(u64::from(is_overflowing));
        Ok(is_overflowing)
    }

    #[inline]
    pub(super) fn send(
        &self,
        plane: &Plane,
        target: Target,
        slot: Slot,
        len: usize,
        to: SocketAddr,
        local: Option<IpAddr>,
    ) -> Result<(), Full> {
        let mut ring = self.ring.borrow_mut();
        if ring.has_room() {
            return ring.send(target, slot, len, to, local);
        }
        // Completions may have to leave before operations can enter.
        ring.submit().map_err(|_| Full)?;
        self.settle(plane, &mut ring).map_err(|_| Full)?;
        ring.send(target, slot, len, to, local)
    }

    /// Ends the receive on a socket after what is queued for it.
    pub(super) fn cancel(&self, index: u16) {
        self.cancels.borrow_mut().push(index);
    }

    /// Whether all could be queued.
    fn queue_cancels(&self, ring: &mut Ring, listeners: u16) -> bool {
        let mut cancels = self.cancels.borrow_mut();
        while let Some(index) = cancels.pop() {
            let group = if index < listeners { self.clients } else { self.upstreams };
            if ring.cancel(Multishot::Receive(group), index).is_err() {
                cancels.push(index);
                return false;
            }
        }
        true
    }

    pub(super) fn flush(&self, plane: &Plane) -> io::Result<()> {
        let mut ring = self.ring.borrow_mut();
        let listeners = plane.sockets.borrow().listeners();
        self.queue_cancels(&mut ring, listeners);
        if ring.submit()? {
            plane.counts.enters.add(1);
        }
        self.settle(plane, &mut ring)?;
        Ok(())
    }
}
