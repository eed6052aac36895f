//! Who is not asked and answers all the same. From off the path he guesses port and ID; and some forgeries of his are
//! right in everything but one thing, so that each check has to hold alone.
//!
//! One thing he is never granted: a guess that hits both the socket and an ID in flight there. That is a matter of
//! arithmetic, one in 65 536 for each query in flight, and no check could tell such a datagram from the answer where
//! neither casing nor cookie does.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::message::{self, Opt, Reply};
use super::network::Network;
use super::scenario::{Flood, Role};
use super::server::{CookieHabit, StreamHabit};
use super::sockets::Port;
use super::trace::Fault;
use crate::resolve::ports::Casing;
use crate::wire::{Header, Query, options};

/// Octets of a client's part of a cookie (RFC 7873 §4).
const CLIENT_BYTES: usize = 8;

/// How long a guess lies behind the one before, at most.
const GUESS_US_MAX: u64 = 200;

impl Network {
    /// Sends forgeries that answer `query` but for one thing each.
    pub(super) fn miss_nearly(
        self: &Rc<Self>,
        port: Port,
        upstream: SocketAddr,
        query: &[u8],
        casing: Casing,
    ) {
        let permille = self.scenario.near_misses;
        let cookie = options::option(query, options::COOKIE);
        let forgery = forgery(query, cookie);
        if self.chance.hits(permille) {
            let mut other = forgery.clone();
            let id = Header::read(query).map_or(0, |header| header.id);
            message::set_id(&mut other, self.free_id(port, id ^ 1 << self.chance.below(16)));
            self.forge(Fault::ForgedId, port, upstream, other);
        }
        if self.chance.hits(permille) {
            self.forge(Fault::ForgedQuestion, port, upstream, other_question(query));
        }
        if self.chance.hits(permille) {
            let from = self.other_source(upstream);
            self.forge(Fault::ForgedSource, port, from, forgery.clone());
        }
        // Where it was not drawn, another casing is nothing to tell a forgery by.
        if casing == Casing::Drawn && self.chance.hits(permille) {
            let mut other = forgery;
            if message::turn_casing(&mut other) {
                self.forge(Fault::ForgedCasing, port, upstream, other);
            }
        }
        let Some(cookie) = cookie else { return };
        if self.chance.hits(permille) {
            let mut foreign = cookie.to_vec();
            foreign[self.chance.below(CLIENT_BYTES)] ^= 1 << self.chance.below(8);
            let forged = self::forgery(query, Some(&foreign));
            self.forge(Fault::ForgedCookie, port, upstream, forged);
        }
        // Of one who may stop giving cookies an answer without is as good as any, and so, after three of them, is one of who
        // cannot be asked over a stream.
        let traits = self.traits(self.place_of(upstream));
        let gives = matches!(traits.cookies, CookieHabit::Gives | CookieHabit::Demands);
        let has_streams = traits.streams == StreamHabit::Works && traits.outages.is_empty();
        if gives && has_streams && cookie.len() > CLIENT_BYTES && self.chance.hits(permille) {
            self.forge(Fault::ForgedNoCookie, port, upstream, self::forgery(query, None));
        }
    }

    /// Guesses, one soon after the other.
    pub(super) async fn flood(self: Rc<Self>, flood: Flood) {
        self.time.sleep(flood.at).await;
        for _ in 0..flood.count {
            self.time.sleep(Duration::from_micros(self.chance.bits() % GUESS_US_MAX)).await;
            self.guess(flood.socket_hits);
        }
    }

    fn guess(&self, socket_hits: u16) {
        let Some((upstream, query)) = self.latest.borrow().clone() else { return };
        let open = self.sockets.borrow().ports();
        let port = if self.chance.hits(socket_hits) {
            self.chance.pick(&open)
        } else {
            Port(self.chance.u16())
        };
        self.tally.strike(Fault::Guessed);
        if open.contains(&port) {
            self.tally.strike(Fault::GuessedSocket);
        }
        // He knows what is asked, but has not seen the query: neither its casing nor its cookie.
        let mut guess = forgery(&query, None);
        message::lower_casing(&mut guess);
        message::set_id(&mut guess, self.free_id(port, self.chance.u16()));
        self.deliver(port, upstream, &guess);
    }

    /// `id`, or the next one that is not in flight on that socket.
    fn free_id(&self, port: Port, id: u16) -> u16 {
        let ids = (0..=u16::MAX).map(|step| id.wrapping_add(step));
        ids.into_iter().find(|&id| !self.is_in_flight(port, id)).unwrap_or(id)
    }

    /// Another upstream, or a stranger.
    fn other_source(&self, upstream: SocketAddr) -> SocketAddr {
        let place = self.chance.below(self.scenario.roles.len() + 1);
        let other = SocketAddr::from((Role::address(place), upstream.port()));
        // One past the last is nobody's address.
        if other == upstream { SocketAddr::new(upstream.ip(), 54) } else { other }
    }

    /// A forgery on its way: it may overtake the answer.
    fn forge(self: &Rc<Self>, fault: Fault, port: Port, from: SocketAddr, forged: Vec<u8>) {
        self.tally.strike(fault);
        let network = Rc::clone(self);
        let delay = self.chance.millis(0, 4);
        self.tasks.spawn(async move {
            network.time.sleep(delay).await;
            network.deliver(port, from, &forged);
        });
    }
}

/// What a forger answers who has seen all of `query`.
fn forgery(query: &[u8], cookie: Option<&[u8]>) -> Vec<u8> {
    let asked = Query::parse(query).expect("our own queries can be read");
    let forged = Reply::forged(asked.qname, asked.qtype);
    let opt = asked.edns.map(|_| Opt { cookie: cookie.map(whole_cookie) });
    Reply { opt, ..forged }.to(query)
}

/// Our part of a cookie, and some server's.
fn whole_cookie(sent: &[u8]) -> Vec<u8> {
    let mut whole = sent.to_vec();
    if whole.len() == CLIENT_BYTES {
        whole.extend(b"forged!!");
    }
    whole
}

/// As [`forgery`], with another type in its question.
fn other_question(query: &[u8]) -> Vec<u8> {
    let asked = Query::parse(query).expect("our own queries can be read");
    let mut forged = forgery(query, options::option(query, options::COOKIE));
    let type_at = crate::wire::HEADER_BYTES + asked.qname.as_bytes().len();
    if let Some(low) = forged.get_mut(type_at + 1) {
        *low ^= 1;
    }
    forged
}
