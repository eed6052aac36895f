//! The network between a core's forwarder and its upstreams: datagrams that get lost, late, double and forged, and
//! streams that break.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::chance::Chance;
use super::message;
use super::scenario::{Role, Scenario};
use super::server::Traits;
use super::sockets::{Port, Sockets};
use super::streams::Connection;
use super::tasks::Tasks;
use super::trace::{Event, Fault, Tally, Trace};
use super::{Time, truth};
use crate::config::Upstream;
use crate::resolve::flights::{Flight, Flights};
use crate::resolve::ports::{Casing, Clock, Entropy, ExchangeError, Transport};
use crate::time::Monotonic;
use crate::wire::{Header, Query, Rtype};

/// Sockets tried for a query whose ID is in flight on the first.
const COLLISIONS_MAX: u32 = 8;

/// A query as it left the forwarder.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When.
    pub at: Monotonic,
    /// The task that asked.
    pub task: u64,
    /// To which server of the scenario.
    pub place: usize,
    /// Over a stream.
    pub is_stream: bool,
    /// It asks whether the server is back.
    pub is_probe: bool,
    /// It belongs to the zone with upstreams of its own.
    pub is_corp: bool,
}

/// Everything outside of the forwarder.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) time: Time,
    pub(super) tasks: Tasks,
    pub(super) scenario: Scenario,
    /// What the network and its servers do.
    pub(super) chance: Chance,
    /// What the forwarder draws: IDs and casings.
    entropy: Chance,
    pub(super) flights: Flights<Port>,
    pub(super) sockets: RefCell<Sockets>,
    pub(super) connections: RefCell<BTreeMap<SocketAddr, Rc<Connection>>>,
    /// Exchanges over streams that are under way.
    pub(super) streams_open: Cell<usize>,
    /// IDs in flight, which no forger may guess.
    ids: RefCell<BTreeMap<(Port, u16), u32>>,
    /// The latest query by datagram, which a forger may know of.
    pub(super) latest: RefCell<Option<(SocketAddr, Vec<u8>)>>,
    pub(super) sent: RefCell<Vec<Sent>>,
    pub(super) tally: Tally,
    trace: RefCell<Trace>,
}

impl Network {
    pub(super) fn new(scenario: &Scenario, chance: &Chance) -> Self {
        let addresses = scenario.forward();
        let addresses = addresses.all_upstreams().flat_map(|upstream| {
            // Answers by datagram come from there, too, where TLS cannot be had.
            [upstream.address, upstream.plain_address()]
        });
        Self {
            time: Time::default(),
            tasks: Tasks::default(),
            scenario: scenario.clone(),
            chance: chance.fork(),
            entropy: chance.fork(),
            flights: Flights::new(addresses),
            sockets: RefCell::new(Sockets::new(scenario.sockets_max)),
            connections: RefCell::default(),
            streams_open: Cell::default(),
            ids: RefCell::default(),
            latest: RefCell::default(),
            sent: RefCell::default(),
            tally: Tally::default(),
            trace: RefCell::default(),
        }
    }

    pub(super) fn trace_value(&self) -> u64 {
        self.trace.borrow().value()
    }

    pub(super) fn note(&self, event: Event, bytes: &[u8]) {
        self.trace.borrow_mut().event(self.time.now(), event, bytes);
    }

    pub(super) fn traits(&self, place: usize) -> &Traits {
        &self.scenario.roles[place].traits
    }

    /// The server at an address.
    ///
    /// # Panics
    /// When there is none: the forwarder asks whom the config names.
    pub(super) fn place_of(&self, address: SocketAddr) -> usize {
        let place = (0..self.scenario.roles.len())
            .find(|&place| IpAddr::V4(Role::address(place)) == address.ip());
        place.expect("the forwarder asks only upstreams of the config")
    }

    /// Whether `fault` strikes, which it does in so many of a thousand cases.
    pub(super) fn strikes(&self, fault: Fault, permille: u16) -> bool {
        let strikes = self.chance.hits(permille);
        if strikes {
            self.tally.strike(fault);
        }
        strikes
    }

    /// Whether a query with that ID is in flight on a socket.
    pub(super) fn is_in_flight(&self, port: Port, id: u16) -> bool {
        self.ids.borrow().contains_key(&(port, id))
    }

    /// Brings a datagram to a socket, if that is still open.
    pub(super) fn deliver(&self, port: Port, from: SocketAddr, datagram: &[u8]) {
        if !self.sockets.borrow().is_open(port) {
            return;
        }
        self.note(Event::Arrived, datagram);
        let delivery = self.flights.deliver(port, from, datagram);
        self.tally.arrive(delivery.arrival, delivery.is_flooded);
        if delivery.is_flooded {
            self.sockets.borrow_mut().wear(port);
        }
    }

    fn note_query(&self, place: usize, query: &[u8], is_stream: bool) {
        let asked = Query::parse(query).expect("our own queries can be read");
        self.sent.borrow_mut().push(Sent {
            at: self.time.now(),
            task: self.tasks.current(),
            place,
            is_stream,
            is_probe: asked.qtype == Rtype::SOA,
            is_corp: truth::is_corp(asked.qname),
        });
        self.note(if is_stream { Event::StreamSent } else { Event::Sent }, query);
    }

    /// Puts a query in flight on a socket where its ID is free.
    fn begin(&self, upstream: SocketAddr, query: &[u8], casing: Casing) -> Option<Booking<'_>> {
        let id = Header::read(query)?.id;
        (0..COLLISIONS_MAX).find_map(|_| {
            let drawn = self.sockets.borrow_mut().draw(self.time.now(), &self.chance);
            let (port, closed) = drawn;
            closed.into_iter().for_each(|closed| self.flights.forget(closed));
            let flight = self.flights.begin(port, upstream, query, casing)?;
            self.sockets.borrow_mut().enter(port);
            *self.ids.borrow_mut().entry((port, id)).or_default() += 1;
            Some(Booking { flight, _place: Place { network: self, port, id } })
        })
    }

    /// What becomes of a query on its way.
    async fn carry(self: Rc<Self>, port: Port, upstream: SocketAddr, query: Vec<u8>) {
        let place = self.place_of(upstream);
        let link = self.traits(place).link;
        if self.strikes(Fault::Lost, link.losses) {
            return;
        }
        self.time.sleep(link.delay(&self.chance, &self.tally)).await;
        let now = self.time.now();
        match self.traits(place).outage(now) {
            Some(outage) if outage.is_refused => {
                self.tally.strike(Fault::Refused);
                self.time.sleep(link.delay(&self.chance, &self.tally)).await;
                let id = Header::read(&query).map_or(0, |header| header.id);
                self.note(Event::Refused, &id.to_be_bytes());
                self.flights.refuse(port, id, Some(upstream), ExchangeError::Unreachable);
            }
            Some(_) => self.tally.strike(Fault::Silence),
            None => {
                let traits = self.traits(place);
                let reply = traits.answer(&query, (now, false), &self.chance, &self.tally);
                self.bring_back(port, upstream, &reply).await;
            }
        }
    }

    async fn bring_back(&self, port: Port, upstream: SocketAddr, reply: &[u8]) {
        let link = self.traits(self.place_of(upstream)).link;
        if self.strikes(Fault::Lost, link.losses) {
            return;
        }
        self.time.sleep(link.delay(&self.chance, &self.tally)).await;
        if self.strikes(Fault::Garbage, link.garbage) {
            let mut garbage: Vec<u8> =
                (0..self.chance.below(40)).map(|_| self.chance.u16().to_be_bytes()[0]).collect();
            if self.chance.hits(500) && garbage.len() >= 2 {
                // From its ID on it looks like the answer.
                message::set_id(&mut garbage, Header::read(reply).map_or(0, |header| header.id));
            }
            self.deliver(port, upstream, &garbage);
        }
        self.deliver(port, upstream, reply);
        if self.strikes(Fault::Doubled, link.doubles) {
            self.time.sleep(link.delay(&self.chance, &self.tally)).await;
            self.deliver(port, upstream, reply);
        }
    }
}

/// A query in flight and its place on a socket; over when dropped, the query first.
struct Booking<'a> {
    flight: Flight<'a, Port>,
    _place: Place<'a>,
}

struct Place<'a> {
    network: &'a Network,
    port: Port,
    id: u16,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut ids = self.network.ids.borrow_mut();
        if let Some(count) = ids.get_mut(&(self.port, self.id)) {
            *count -= 1;
        }
        ids.retain(|_, count| *count > 0);
        let closed = self.network.sockets.borrow_mut().leave(self.port);
        closed.into_iter().for_each(|closed| self.network.flights.forget(closed));
    }
}

/// The world as one core sees it.
#[derive(Clone, Debug)]
pub(super) struct Core(pub(super) Rc<Network>);

impl Transport for Core {
    async fn datagram(
        &self,
        upstream: SocketAddr,
        query: &[u8],
        casing: Casing,
    ) -> Result<Vec<u8>, ExchangeError> {
        let network = &self.0;
        network.note_query(network.place_of(upstream), query, false);
        let booking = network.begin(upstream, query, casing).ok_or(ExchangeError::Exhausted)?;
        let port = booking.flight.socket();
        network.latest.replace(Some((upstream, query.to_vec())));
        network.miss_nearly(port, upstream, query, casing);
        network.tasks.spawn(Rc::clone(network).carry(port, upstream, query.to_vec()));
        booking.flight.answer().await
    }

    async fn stream(&self, upstream: &Upstream, query: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        let network = &self.0;
        network.note_query(network.place_of(upstream.address), query, true);
        network.converse(upstream, query).await
    }
}

impl Clock for Core {
    fn monotonic(&self) -> Monotonic {
        self.0.time.now()
    }

    async fn sleep(&self, duration: std::time::Duration) {
        self.0.time.sleep(duration).await;
    }
}

impl Entropy for Core {
    fn u16(&self) -> u16 {
        self.0.entropy.u16()
    }
}
