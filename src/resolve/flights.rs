//! The queries in flight on a core's UDP sockets, and what becomes of the datagrams that arrive there: answers, late
//! ones, and forgeries (RFC 5452).
//!
//! Sockets are whatever the transport names them by. A socket to which somebody sends answers at random is found out
//! by their number: then the queries in flight on it are asked over streams, where guessing does not help.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::hash::Hash;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};

use ahash::RandomState;
use hashbrown::{HashMap, HashSet};

use super::exchange::{self, Judgement, Mismatch};
use super::ports::{Casing, Doubt, ExchangeError};
use crate::wire::Header;

/// Datagrams from an upstream's address that answer nothing, after which a socket's port is taken to be known to
/// somebody who guesses IDs. At this point he has had one chance in four thousand, for each query in flight there.
const STRAYS_MAX: u32 = 16;

/// Answers that make up for one such datagram: few enough to forgive what the network garbles, and so many that nobody can
/// guess unnoticed behind the traffic of a busy port.
const ANSWERS_PER_STRAY: u32 = 256;

/// Answered queries that are remembered, because the network may double their answers: it does so at once.
const ANSWERED_MAX: usize = 256;

/// Sixty-fours of IDs.
const ID_WORDS: usize = (u16::MAX as usize + 1) / 64;

/// What a datagram turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrival {
    /// The answer to a query in flight.
    Answer,
    /// As that, but for the casing of the name: the query is in doubt.
    OtherCasing,
    /// The answer to a query that is over.
    Late,
    /// From an upstream, to nothing that is in flight there.
    WrongId,
    /// From an address that was not asked.
    WrongSource,
    /// To a query in flight, with another question.
    WrongQuestion,
    /// To a query in flight, with another client's cookie.
    WrongCookie,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// What it was.
    pub arrival: Arrival,
    /// The socket has got too many that were nothing: its queries are in doubt, and it should be given up.
    pub is_flooded: bool,
}

/// All queries in flight on the sockets of one core.
#[derive(Debug)]
pub struct Flights<K> {
    state: RefCell<State<K>>,
    upstreams: RefCell<HashSet<SocketAddr, RandomState>>,
}

#[derive(Debug)]
struct State<K> {
    pending: HashMap<(K, u16), Pending, RandomState>,
    pasts: HashMap<K, Past, RandomState>,
    /// The latest that have been answered.
    answered: VecDeque<(K, u16)>,
}

/// What has been on one socket.
#[derive(Debug)]
struct Past {
    /// One bit for each ID of a query that was given up: its late answer is no forgery. A socket has far fewer queries than
    /// there are IDs, so who guesses is found out all the same.
    used: Box<[u64; ID_WORDS]>,
    /// Datagrams that were nothing and have not been made up for.
    strays: u32,
    /// Answers since one was.
    answers: u32,
}

impl Default for Past {
    fn default() -> Self {
        Self { used: Box::new([0; ID_WORDS]), strays: 0, answers: 0 }
    }
}

impl Past {
    fn note(&mut self, id: u16) {
        self.used[usize::from(id / 64)] |= 1 << (id % 64);
    }

    fn note_answer(&mut self) {
        self.answers += 1;
        if self.answers == ANSWERS_PER_STRAY {
            self.answers = 0;
            self.strays = self.strays.saturating_sub(1);
        }
    }

    fn knows(&self, id: u16) -> bool {
        self.used[usize::from(id / 64)] >> (id % 64) & 1 != 0
    }
}

#[derive(Debug)]
struct Pending {
    upstream: SocketAddr,
    query: Box<[u8]>,
    casing: Casing,
    slot: Rc<Slot>,
}

/// Where the answer is put, or why none will come.
#[derive(Debug, Default)]
struct Slot {
    outcome: RefCell<Option<Result<Vec<u8>, ExchangeError>>>,
    waker: RefCell<Option<Waker>>,
}

impl Slot {
    /// Ends the exchange, if nothing has yet.
    fn fill(&self, outcome: impl FnOnce() -> Result<Vec<u8>, ExchangeError>) {
        self.outcome.borrow_mut().get_or_insert_with(outcome);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<K: Copy + Eq + Hash> Flights<K> {
    /// None in flight; only datagrams from `upstreams` are taken for attempts to forge.
    #[must_use]
    pub fn new(upstreams: impl Iterator<Item = SocketAddr>) -> Self {
        let state = State {
            pending: HashMap::default(),
            pasts: HashMap::default(),
            answered: VecDeque::with_capacity(ANSWERED_MAX),
        };
        Self { state: RefCell::new(state), upstreams: RefCell::new(upstreams.map(plain).collect()) }
    }

    /// From now on datagrams from `upstreams`, and from those to whom queries are in flight, are taken for attempts to forge.
    pub fn expect(&self, upstreams: impl Iterator<Item = SocketAddr>) {
        let state = self.state.borrow();
        let asked = state.pending.values().map(|pending| pending.upstream);
        self.upstreams.replace(upstreams.map(plain).chain(asked).collect());
    }

    /// Queries in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.borrow().pending.len()
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts `query` to `upstream` in flight on `socket`; `None` when its ID is in flight there already.
    #[must_use]
    pub fn begin(
        &self,
        socket: K,
        upstream: SocketAddr,
        query: &[u8],
        casing: Casing,
    ) -> Option<Flight<'_, K>> {
        let key = (socket, Header::read(query)?.id);
        let state = &mut *self.state.borrow_mut();
        if state.pending.contains_key(&key) {
            return None;
        }
        let slot = Rc::new(Slot::default());
        let (upstream, query) = (plain(upstream), query.into());
        state.pending.insert(key, Pending { upstream, query, casing, slot: Rc::clone(&slot) });
        Some(Flight { flights: self, key, slot, is_answered: Cell::new(false) })
    }

    /// Takes a datagram that came from `from` to `socket`.
    pub fn deliver(&self, socket: K, from: SocketAddr, datagram: &[u8]) -> Delivery {
        let arrival = self.judge(socket, plain(from), datagram);
        let is_stray =
            matches!(arrival, Arrival::WrongId | Arrival::WrongQuestion | Arrival::WrongCookie);
        if arrival == Arrival::Answer
            && let Some(past) = self.state.borrow_mut().pasts.get_mut(&socket)
        {
            past.note_answer();
        }
        let is_flooded = is_stray && self.note_stray(socket);
        Delivery { arrival, is_flooded }
    }

    /// The query with that `id`, in flight on `socket` to `upstream` where that is known, could not be sent or
    /// delivered.
    pub fn refuse(&self, socket: K, id: u16, upstream: Option<SocketAddr>, error: ExchangeError) {
        let state = self.state.borrow();
        // It may be over already.
        let Some(pending) = state.pending.get(&(socket, id)) else { return };
        if upstream.is_none_or(|upstream| plain(upstream) == pending.upstream) {
            pending.slot.fill(|| Err(error));
        }
    }

    /// `socket` is closed: what is remembered of it goes.
    pub fn forget(&self, socket: K) {
        let state = &mut *self.state.borrow_mut();
        state.pasts.remove(&socket);
        state.answered.retain(|&(answered, _)| answered != socket);
    }

    fn judge(&self, socket: K, from: SocketAddr, datagram: &[u8]) -> Arrival {
        let id = Header::read(datagram).map(|header| header.id);
        let state = self.state.borrow();
        let pending = id.and_then(|id| state.pending.get(&(socket, id)));
        let Some(pending) = pending else {
            let is_late = id.is_some_and(|id| {
                state.pasts.get(&socket).is_some_and(|past| past.knows(id))
                    || state.answered.contains(&(socket, id))
            });
            return match self.upstreams.borrow().contains(&from) {
                false => Arrival::WrongSource,
                true if is_late => Arrival::Late,
                true => Arrival::WrongId,
            };
        };
        if from != pending.upstream {
            return Arrival::WrongSource;
        }
        match exchange::judge(&pending.query, datagram) {
            Judgement::OtherCasing if pending.casing == Casing::Drawn => {
                pending.slot.fill(|| Err(ExchangeError::Doubtful(Doubt::Casing)));
                Arrival::OtherCasing
            }
            // The first one counts; what follows is a copy of it, or a forgery that came too late.
            Judgement::Answer | Judgement::OtherCasing => {
                pending.slot.fill(|| Ok(datagram.to_vec()));
                Arrival::Answer
            }
            Judgement::Foreign(Mismatch::Question) => Arrival::WrongQuestion,
            Judgement::Foreign(Mismatch::Cookie) => Arrival::WrongCookie,
        }
    }

    /// Counts a datagram that was nothing; whether `socket` has got too many now.
    fn note_stray(&self, socket: K) -> bool {
        let state = &mut *self.state.borrow_mut();
        let strays = &mut state.pasts.entry(socket).or_default().strays;
        *strays += 1;
        if *strays < STRAYS_MAX {
            return false;
        }
        *strays = 0;
        for ((at, _), pending) in &state.pending {
            if *at == socket {
                pending.slot.fill(|| Err(ExchangeError::Doubtful(Doubt::Flood)));
            }
        }
        true
    }
}

/// Address and port alone: what the kernel adds to an IPv6 address says nothing about who it is.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

/// A query in flight, as who waits for its answer holds it; over when dropped.
#[derive(Debug)]
pub struct Flight<'a, K: Copy + Eq + Hash> {
    flights: &'a Flights<K>,
    key: (K, u16),
    slot: Rc<Slot>,
    is_answered: Cell<bool>,
}

impl<K: Copy + Eq + Hash> Flight<'_, K> {
    /// The socket it is on.
    #[must_use]
    pub const fn socket(&self) -> K {
        self.key.0
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn answer(&self) -> Result<Vec<u8>, ExchangeError> {
        poll_fn(|cx| match self.slot.outcome.take() {
            Some(outcome) => {
                self.is_answered.set(outcome.is_ok());
                Poll::Ready(outcome)
            }
            None => {
                self.slot.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

impl<K: Copy + Eq + Hash> Drop for Flight<'_, K> {
    fn drop(&mut self) {
        let state = &mut *self.flights.state.borrow_mut();
        state.pending.remove(&self.key);
        if !self.is_answered.get() {
            return state.pasts.entry(self.key.0).or_default().note(self.key.1);
        }
        if state.answered.len() == ANSWERED_MAX {
            state.answered.pop_front();
        }
        state.answered.push_back(self.key);
    }
}

#[cfg(test)]
mod tests;
