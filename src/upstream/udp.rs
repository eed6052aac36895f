//! The core's pool of upstream-facing UDP sockets: unforeseeable ports, and for each query in flight the one datagram
//! that answers it.
//!
//! Every port is drawn by the same rule from the same range on every core, so that the ports of one core tell nothing
//! about it (mapping them was CVE-2026-50252). A socket is replaced by use and age: ports that an observer
//! has learnt are soon worth nothing.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{ChaCha, MonotonicClock, SourcePorts};
use crate::net::SocketId;
use crate::net::udp::{Plane, Refusal};
use crate::observe::UpstreamCounters;
use crate::resolve::flights::{Arrival, Delivery, Flight, Flights};
use crate::resolve::ports::{Casing, ExchangeError};
use crate::time::Monotonic;

/// Ports tried before a socket is given up for now: a machine with most ports taken has other troubles.
const DRAWS_MAX: u32 = 64;

/// A socket is replaced by one with a fresh port after at most this many queries, and half of them at least.
const USES_MAX: u32 = 4_096;

/// A socket is replaced after at most this time, and half of it at least: each has its own, so that they do not all end
/// at once.
const AGE_MAX: Duration = Duration::from_secs(60);

/// Equal steps in which the second half of a socket's life is drawn.
const LIFE_STEPS: u32 = 1_024;

/// Sockets tried for a query whose ID is already in flight on the first.
const COLLISIONS_MAX: u32 = 8;

/// What the pool needs of the data plane.
pub trait DatagramSockets {
    /// Opens a socket, alone on its port.
    ///
    /// # Errors
    /// `AddrInUse` when the port is taken; others when no socket can be had.
    fn open(&self, bind: SocketAddr) -> io::Result<SocketId>;

    /// Closes a socket; its id may come back only when nothing of it is left.
    fn close(&self, socket: SocketId);

    /// Sends a datagram; says whether there was room for it.
    fn send(&self, socket: SocketId, to: SocketAddr, datagram: &[u8]) -> bool;

    /// Waits for a datagram that could not be sent after all; one task may do so.
    fn refused(&self) -> impl Future<Output = Refusal>;
}

impl DatagramSockets for Plane {
    fn open(&self, bind: SocketAddr) -> io::Result<SocketId> {
        self.open_socket(bind)
    }

    fn close(&self, socket: SocketId) {
        self.close_socket(socket);
    }

    fn send(&self, socket: SocketId, to: SocketAddr, datagram: &[u8]) -> bool {
        self.send_from(socket, to, datagram).is_ok()
    }

    async fn refused(&self) -> Refusal {
        Self::refused(self).await
    }
}

#[derive(Debug)]
struct Usage {
    uses_left: u32,
    worn_at: Monotonic,
    in_flight: u32,
    is_retired: bool,
}

/// Those of all sockets, by their numbers, which are small.
#[derive(Debug, Default)]
struct Usages(Vec<Option<Usage>>);

impl Usages {
    fn get(&self, socket: SocketId) -> Option<&Usage> {
        self.0.get(usize::from(socket.0))?.as_ref()
    }

    fn get_mut(&mut self, socket: SocketId) -> Option<&mut Usage> {
        self.0.get_mut(usize::from(socket.0))?.as_mut()
    }

    fn insert(&mut self, socket: SocketId, usage: Usage) {
        let place = usize::from(socket.0);
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || None);
        }
        self.0[place] = Some(usage);
    }

    fn remove(&mut self, socket: SocketId) {
        if let Some(usage) = self.0.get_mut(usize::from(socket.0)) {
            *usage = None;
        }
    }
}

#[derive(Debug, Default)]
struct State {
    v4: Vec<SocketId>,
    v6: Vec<SocketId>,
    usage: Usages,
}

/// What a core's pool is made of.
#[derive(Debug)]
pub struct Setting<S> {
    /// Where sockets come from.
    pub sockets: Rc<S>,
    /// Sockets per address family.
    pub sockets_max: usize,
    /// The ports to draw from.
    pub ports: Arc<SourcePorts>,
    /// For the age of sockets.
    pub clock: MonotonicClock,
    /// What the core counts of its upstream traffic.
    pub counters: Arc<UpstreamCounters>,
}

/// The sockets and the queries in flight of one core.
#[derive(Debug)]
pub struct Pool<S> {
    sockets: Rc<S>,
    sockets_max: usize,
    ports: Arc<SourcePorts>,
    clock: MonotonicClock,
    entropy: Rc<ChaCha>,
    counters: Arc<UpstreamCounters>,
    flights: Flights<SocketId>,
    state: RefCell<State>,
}

impl<S: DatagramSockets> Pool<S> {
    /// An empty pool with the sockets and numbers of `setting`, for queries to `upstreams`.
    #[must_use]
    pub fn new(
        setting: Setting<S>,
        upstreams: impl Iterator<Item = SocketAddr>,
        entropy: Rc<ChaCha>,
    ) -> Self {
        let Setting { sockets, sockets_max, ports, clock, counters } = setting;
        let (flights, state) = (Flights::new(upstreams), RefCell::default());
        Self { sockets, sockets_max, ports, clock, entropy, counters, flights, state }
    }

    /// Goes on for queries to `upstreams`.
    pub fn expect(&self, upstreams: impl Iterator<Item = SocketAddr>) {
        self.flights.expect(upstreams);
    }

    /// As [`crate::resolve::ports::Transport::datagram`].
    ///
    /// # Errors
    /// [`ExchangeError::Exhausted`] when there is no socket or no room, [`ExchangeError::Unreachable`] when there is no
    /// way to the upstream or nobody listens there, [`ExchangeError::Doubtful`].
    pub async fn exchange(
        &self,
        upstream: SocketAddr,
        query: &[u8],
        casing: Casing,
    ) -> Result<Vec<u8>, ExchangeError> {
        let Some(booking) = self.begin(upstream, query, casing) else {
            self.counters.exhausted.bump();
            return Err(ExchangeError::Exhausted);
        };
        // Waiting for the answer to what was never sent would blame the upstream.
        if !self.sockets.send(booking.flight.socket(), upstream, query) {
            self.counters.exhausted.bump();
            return Err(ExchangeError::Exhausted);
        }
        self.counters.datagrams.bump();
        let outcome = booking.flight.answer().await;
        match outcome {
            Ok(_) => self.counters.responses.bump(),
            Err(ExchangeError::Unreachable) => self.counters.unreachable.bump(),
            Err(ExchangeError::Exhausted) => self.counters.exhausted.bump(),
            Err(ExchangeError::Doubtful(_)) => self.counters.doubtful.bump(),
        }
        outcome
    }

    /// Takes a datagram: the answer to a query in flight, or nothing.
    pub fn deliver(&self, socket: SocketId, from: SocketAddr, datagram: &[u8]) {
        let Delivery { arrival, is_flooded } = self.flights.deliver(socket, from, datagram);
        match arrival {
            Arrival::Answer | Arrival::OtherCasing => {}
            Arrival::Late => self.counters.late.bump(),
            Arrival::WrongId => self.counters.wrong_id.bump(),
            Arrival::WrongSource => self.counters.wrong_source.bump(),
            Arrival::WrongQuestion => self.counters.wrong_question.bump(),
            Arrival::WrongCookie => self.counters.wrong_cookie.bump(),
        }
        if is_flooded {
            self.counters.floods.bump();
            // Somebody knows this port: the next query goes out from another one.
            if let Some(usage) = self.state.borrow_mut().usage.get_mut(socket) {
                usage.uses_left = 0;
            }
        }
    }

    /// Ends exchanges whose query could not be sent or delivered, for ever.
    pub async fn watch_refusals(&self) {
        loop {
            self.refuse(&self.sockets.refused().await);
        }
    }

    fn refuse(&self, refusal: &Refusal) {
        let error = if refusal.is_want_of_room {
            ExchangeError::Exhausted
        } else {
            ExchangeError::Unreachable
        };
        self.flights.refuse(refusal.socket, u16::from_be_bytes(refusal.head), refusal.to, error);
    }

    /// Gives `query` a socket on which its ID is free.
    fn begin(&self, upstream: SocketAddr, query: &[u8], casing: Casing) -> Option<Booking<'_, S>> {
        for _ in 0..COLLISIONS_MAX {
            let socket = self.draw_socket(upstream.is_ipv4())?;
            let Some(flight) = self.flights.begin(socket, upstream, query, casing) else {
                continue;
            };
            self.counters.in_flight.set(self.flights.len() as u64);
            let mut state = self.state.borrow_mut();
            let usage = state.usage.get_mut(socket).expect("a socket in the pool has its usage");
            usage.uses_left = usage.uses_left.saturating_sub(1);
            usage.in_flight += 1;
            return Some(Booking { flight, _place: Place { pool: self, socket } });
        }
        None
    }

    /// A random socket of the family: a new one while the pool is filling, a replaced one when it is worn.
    fn draw_socket(&self, is_v4: bool) -> Option<SocketId> {
        let count = self.state.borrow_mut().sockets(is_v4).len();
        if count < self.sockets_max
            && let Some(socket) = self.open(is_v4)
        {
            self.state.borrow_mut().sockets(is_v4).push(socket);
            return Some(socket);
        }
        if count == 0 {
            return None;
        }
        let place = self.entropy.below(count);
        let socket = self.state.borrow_mut().sockets(is_v4)[place];
        let now = self.clock.monotonic();
        let is_worn = |usage: &Usage| usage.uses_left == 0 || now >= usage.worn_at;
        let is_worn = self.state.borrow().usage.get(socket).is_some_and(is_worn);
        match if is_worn { self.open(is_v4) } else { None } {
            Some(fresh) => {
                self.state.borrow_mut().sockets(is_v4)[place] = fresh;
                self.retire(socket);
                Some(fresh)
            }
            None => Some(socket),
        }
    }

    fn open(&self, is_v4: bool) -> Option<SocketId> {
        let any: IpAddr =
            if is_v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        for _ in 0..DRAWS_MAX {
            match self.sockets.open(SocketAddr::new(any, self.ports.draw(&self.entropy))) {
                Ok(socket) => {
                    self.counters.sockets_opened.bump();
                    self.state.borrow_mut().usage.insert(socket, self.life());
                    return Some(socket);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// How long a new socket will serve.
    fn life(&self) -> Usage {
        let draw = || {
            let step = self.entropy.below(LIFE_STEPS as usize);
            LIFE_STEPS + u32::try_from(step).expect("steps are few")
        };
        let uses_left = USES_MAX / (2 * LIFE_STEPS) * draw();
        let age = AGE_MAX / (2 * LIFE_STEPS) * draw();
        let worn_at = self.clock.monotonic().after(age);
        Usage { uses_left, worn_at, in_flight: 0, is_retired: false }
    }

    /// Lets a socket go as soon as nothing is in flight on it.
    fn retire(&self, socket: SocketId) {
        if let Some(usage) = self.state.borrow_mut().usage.get_mut(socket) {
            usage.is_retired = true;
        }
        self.close_if_done(socket);
    }

    fn close_if_done(&self, socket: SocketId) {
        let mut state = self.state.borrow_mut();
        let is_done = |usage: &Usage| usage.is_retired && usage.in_flight == 0;
        if state.usage.get(socket).is_some_and(is_done) {
            state.usage.remove(socket);
            self.flights.forget(socket);
            self.sockets.close(socket);
        }
    }
}

impl State {
    const fn sockets(&mut self, is_v4: bool) -> &mut Vec<SocketId> {
        if is_v4 { &mut self.v4 } else { &mut self.v6 }
    }
}

/// A query in flight and its place on a socket; over when dropped, the query first.
struct Booking<'a, S: DatagramSockets> {
    flight: Flight<'a, SocketId>,
    _place: Place<'a, S>,
}

/// A place on a socket.
struct Place<'a, S: DatagramSockets> {
    pool: &'a Pool<S>,
    socket: SocketId,
}

impl<S: DatagramSockets> Drop for Place<'_, S> {
    fn drop(&mut self) {
        let pool = self.pool;
        pool.counters.in_flight.set(pool.flights.len() as u64);
        let is_retired = pool.state.borrow_mut().usage.get_mut(self.socket).is_some_and(|usage| {
            usage.in_flight -= 1;
            usage.is_retired
        });
        if is_retired {
            pool.close_if_done(self.socket);
        }
    }
}

#[cfg(test)]
mod tests;
