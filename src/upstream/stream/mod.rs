//! Queries to upstreams over TCP (RFC 7766) and TLS (RFC 7858): on each core one connection per upstream, opened when it
//! is needed and kept while it is used, on which queries are pipelined and answered in any order. A few more are opened
//! beside it where that one is full, silent, or may carry few queries only because its server closes early.
//!
//! An exchange has no deadline: who drops it gives it up, and a late answer is counted and thrown away. When a
//! connection dies whose server is known to answer, the queries on it are sent again over another one: the server may
//! have closed it as idle, or as having carried enough. No query gets lost without a word.

mod allowance;
mod backoff;
mod channel;
mod connection;
mod flights;
mod refusals;
#[cfg(test)]
mod tests;
mod tls;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ahash::RandomState;
use futures_lite::future::or;
use glommio::timer::Timer;

use self::allowance::Allowance;
use self::backoff::Backoff;
use self::channel::Fault;
pub(crate) use self::connection::CONNECTION_BYTES;
use self::connection::{Connection, Flight};
use self::flights::Lost;
use self::refusals::Refusals;
use self::tls::Sessions;
pub use self::tls::{Roots, Trust, TrustError};
use super::{ChaCha, MonotonicClock};
use crate::config::{Authentication, Forward, Protocol, Upstream};
use crate::observe::{LineCounters, StreamCounters, UpstreamCounters};
use crate::resolve::ports::ExchangeError;

/// Connections per core, those included that are being opened or end with their last answers: for more upstreams than
/// anyone configures.
const CONNECTIONS_MAX: usize = 256;

/// The same per upstream, and in clear and over TLS each where both are tried: one in use and some that are silent or
/// end, or some side by side where each may carry few queries.
const LINE_CONNECTIONS_MAX: usize = 4;

/// Queries that wait for a connection that takes them, per upstream.
const WAITING_MAX: usize = 1_024;

/// How often a query is sent again because its connection died. Enough for any server that answers now and then.
const RESENDS_MAX: u32 = 8;

/// How long a connection on which answers are waited for may be silent and still get more queries: most answers take
/// less, and whoever asks again after this time should not meet the same dead connection.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// Silence is longer than usual at this many times what answers usually take.
const SILENCE_FACTOR: u32 = 4;

/// One answer in so many counts for what is usual.
const USUAL_SHARE: u32 = 8;

/// How long a query waits for a TLS connection where cleartext will do: a handshake takes two or three round trips.
/// The handshake goes on without it.
const OPPORTUNITY_MAX: Duration = Duration::from_millis(500);

/// Upstreams that a core remembers, with or without a connection.
const LINES_MAX: usize = 1_024;

/// Bytes read from a socket at a time.
const READ_BYTES: usize = 16 << 10;

/// One core's streams to its upstreams.
#[derive(Debug)]
pub struct Streams {
    core: Rc<Core>,
    /// By address; several when one address is spoken to in several ways.
    lines: RefCell<HashMap<SocketAddr, Vec<Rc<Line>>, RandomState>>,
}

/// What the connections of one core share.
#[derive(Debug)]
struct Core {
    clock: MonotonicClock,
    entropy: Rc<ChaCha>,
    sessions: Sessions,
    refusals: Refusals,
    upstream_counters: Arc<UpstreamCounters>,
    /// What is read goes through here: used only while a connection's task runs.
    scratch: RefCell<Box<[u8]>>,
}

impl Core {
    fn counters(&self, is_tls: bool) -> &StreamCounters {
        if is_tls { &self.upstream_counters.tls } else { &self.upstream_counters.tcp }
    }

    /// Counts why a connection to `upstream` could not be opened.
    fn note(&self, upstream: &Upstream, fault: &Fault) {
        let is_tls = matches!(upstream.protocol, Protocol::Tls(_));
        let counters = self.counters(is_tls);
        match fault {
            Fault::Connect => counters.refused.bump(),
            Fault::Handshake => counters.handshakes_failed.bump(),
            Fault::Certificate(cause) => {
                counters.certificates_refused.bump();
                self.refusals.tell(upstream, cause, self.clock.monotonic());
            }
        }
    }
}

/// Connections that the upstreams of `forward` may have on one core.
pub(crate) fn connections_max(forward: &Forward) -> usize {
    let lines = |upstream: &Upstream| if upstream.is_opportunistic() { 2 } else { 1 };
    let lines: usize = forward.all_upstreams().map(lines).sum();
    (lines * LINE_CONNECTIONS_MAX).min(CONNECTIONS_MAX)
}

/// The way to one upstream: its connections, and whether there is a point in opening another.
#[derive(Debug)]
struct Line {
    upstream: Upstream,
    /// All that have not ended.
    connections: RefCell<Vec<Rc<Connection>>>,
    /// Who waits for one that takes a query.
    waiting: RefCell<Vec<Waker>>,
    backoff: Cell<Backoff>,
    allowance: Cell<Allowance>,
    /// What answers usually take.
    usual: Cell<Duration>,
    /// The last attempt at a connection failed or takes long.
    is_in_doubt: Cell<bool>,
    counters: Arc<LineCounters>,
}

impl Line {
    fn authentication(&self) -> Option<&Authentication> {
        authentication(&self.upstream)
    }

    /// How long its connections may be silent before a query looks for another one.
    fn patience(&self) -> Duration {
        SILENCE_MIN.max(self.usual.get() * SILENCE_FACTOR)
    }

    /// Notes what an answer took.
    fn note(&self, took: Duration) {
        let usual = self.usual.get();
        self.usual.set(usual - usual / USUAL_SHARE + took / USUAL_SHARE);
    }

    /// `connection` has ended.
    fn forget(&self, connection: &Rc<Connection>) {
        self.connections.borrow_mut().retain(|other| !Rc::ptr_eq(other, connection));
        self.tell_waiting();
    }

    /// A connection may take queries again, or be opened.
    fn tell_waiting(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Whether cleartext is better than waiting for `connection`.
    fn is_not_worth_waiting(&self, connection: &Connection) -> bool {
        self.upstream.is_opportunistic() && self.is_in_doubt.get() && !connection.is_open()
    }
}

/// How it must prove who it is; `None` when it is spoken to in clear.
const fn authentication(upstream: &Upstream) -> Option<&Authentication> {
    match &upstream.protocol {
        Protocol::Udp | Protocol::Tcp => None,
        Protocol::Tls(authentication) => Some(authentication),
    }
}

impl Streams {
    /// The streams of the core with the number `core`, which alone may write `counters`.
    #[must_use]
    pub fn new(
        core: usize,
        clock: MonotonicClock,
        entropy: Rc<ChaCha>,
        trust: Trust,
        counters: Arc<UpstreamCounters>,
    ) -> Self {
        let core = Core {
            clock,
            entropy,
            sessions: Sessions::new(trust),
            refusals: Refusals::new(core),
            upstream_counters: counters,
            scratch: RefCell::new(vec![0; READ_BYTES].into()),
        };
        Self { core: Rc::new(core), lines: RefCell::default() }
    }

    /// Asks `upstream` over TLS if it is spoken to that way, over TCP otherwise.
    ///
    /// Without a deadline; who drops the future gives the exchange up.
    ///
    /// # Errors
    /// [`ExchangeError::Unreachable`] when no connection can be had or the one in use broke,
    /// [`ExchangeError::Exhausted`] when too much is under way.
    ///
    /// # Panics
    /// Outside a glommio executor.
    pub async fn exchange(
        &self,
        upstream: &Upstream,
        query: &[u8],
    ) -> Result<Vec<u8>, ExchangeError> {
        let outcome = self.ask(upstream, query).await;
        let counters = &self.core.upstream_counters;
        match outcome {
            Ok(_) => counters.responses.bump(),
            Err(ExchangeError::Unreachable) => counters.unreachable.bump(),
            Err(ExchangeError::Exhausted) => counters.exhausted.bump(),
            Err(ExchangeError::Doubtful(_)) => {}
        }
        outcome
    }

    async fn ask(&self, upstream: &Upstream, query: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        if query.len() > usize::from(u16::MAX) {
            return Err(ExchangeError::Exhausted);
        }
        let line = self.line(upstream).ok_or(ExchangeError::Exhausted)?;
        let counters = self.core.counters(line.authentication().is_some());
        let mut resends = 0;
        loop {
            let (connection, is_reused) = self.connection(&line, query).await?;
            if line.is_not_worth_waiting(&connection) {
                return Err(ExchangeError::Unreachable);
            }
            let begun = self.core.clock.monotonic();
            let flight = connection.begin(&line, query).ok_or(ExchangeError::Exhausted)?;
            if is_reused {
                counters.reused.bump();
                line.counters.reused.bump();
            }
            if line.allowance.get().is_used_up(connection.carried()) {
                connection.retire();
            }
            match answer(&line, &connection, flight).await {
                Ok(answer) => {
                    line.note(self.core.clock.monotonic().since(begun));
                    return Ok(answer);
                }
                Err(lost) if lost.is_worth_another && resends < RESENDS_MAX => {
                    resends += 1;
                    counters.resent.bump();
                }
                Err(_) => return Err(ExchangeError::Unreachable),
            }
        }
    }

    /// The way to `upstream`; `None` when there are too many.
    fn line(&self, upstream: &Upstream) -> Option<Rc<Line>> {
        let mut lines = self.lines.borrow_mut();
        let is_same = |line: &&Rc<Line>| line.authentication() == authentication(upstream);
        let known = lines.get(&upstream.address).and_then(|lines| lines.iter().find(is_same));
        if let Some(line) = known {
            return Some(Rc::clone(line));
        }
        if lines.values().map(Vec::len).sum::<usize>() >= LINES_MAX {
            let now = self.core.clock.monotonic();
            let is_in_use = |line: &Rc<Line>| {
                !line.connections.borrow().is_empty() || line.backoff.get().forbids(now)
            };
            lines.retain(|_, lines| {
                lines.retain(is_in_use);
                !lines.is_empty()
            });
            if lines.values().map(Vec::len).sum::<usize>() >= LINES_MAX {
                return None;
            }
        }
        let transport = if authentication(upstream).is_some() { "tls" } else { "tcp" };
        let counters = self.core.upstream_counters.line(upstream.to_string(), transport);
        let line = Rc::new(Line {
            upstream: upstream.clone(),
            connections: RefCell::default(),
            waiting: RefCell::default(),
            backoff: Cell::default(),
            allowance: Cell::default(),
            usual: Cell::default(),
            is_in_doubt: Cell::new(false),
            counters,
        });
        lines.entry(upstream.address).or_default().push(Rc::clone(&line));
        Some(line)
    }

    /// The connection for `query`, as soon as there is one, and whether it was there already.
    async fn connection(
        &self,
        line: &Rc<Line>,
        query: &[u8],
    ) -> Result<(Rc<Connection>, bool), ExchangeError> {
        poll_fn(|cx| {
            let now = self.core.clock.monotonic();
            let patience = line.patience();
            let connections = line.connections.borrow();
            let taker =
                connections.iter().find(|connection| connection.takes(query, now, patience));
            if let Some(connection) = taker {
                return Poll::Ready(Ok((Rc::clone(connection), true)));
            }
            if line.backoff.get().forbids(now) {
                return Poll::Ready(Err(ExchangeError::Unreachable));
            }
            if connections.len() < LINE_CONNECTIONS_MAX {
                drop(connections);
                return Poll::Ready(self.open(line).map(|connection| (connection, false)));
            }
            let mut waiting = line.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                if waiting.len() >= WAITING_MAX {
                    return Poll::Ready(Err(ExchangeError::Exhausted));
                }
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Begins to open a connection.
    fn open(&self, line: &Rc<Line>) -> Result<Rc<Connection>, ExchangeError> {
        let UpstreamCounters { tcp, tls, .. } = &*self.core.upstream_counters;
        if tcp.connections.value() + tls.connections.value() >= CONNECTIONS_MAX as u64 {
            return Err(ExchangeError::Exhausted);
        }
        let is_tls = line.authentication().is_some();
        let connection = Rc::new(Connection::new(Rc::clone(&self.core), is_tls));
        line.connections.borrow_mut().push(Rc::clone(&connection));
        let kept = connection::keep(Rc::clone(&self.core), Rc::clone(line), Rc::clone(&connection));
        glommio::spawn_local(kept).detach();
        Ok(connection)
    }
}

/// Waits for what comes of `flight`; where cleartext will do, not for long before `connection` is open.
async fn answer(line: &Line, connection: &Connection, flight: Flight) -> Result<Vec<u8>, Lost> {
    if connection.is_open() || !line.upstream.is_opportunistic() {
        return flight.answer().await;
    }
    let late = async {
        Timer::new(OPPORTUNITY_MAX).await;
        if connection.is_open() {
            return pending().await;
        }
        line.is_in_doubt.set(true);
        Err(Lost { is_worth_another: false })
    };
    or(flight.answer(), late).await
}

impl Drop for Streams {
    /// Lets each connection end as soon as nobody waits for an answer on it.
    fn drop(&mut self) {
        for line in self.lines.get_mut().values().flatten() {
            line.connections.borrow().iter().for_each(|connection| connection.retire());
        }
    }
}
