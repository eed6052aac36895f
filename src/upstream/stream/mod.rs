//! Queries to upstreams over TCP (RFC 7766) and TLS (RFC 7858): on each core one connection per upstream, opened when it
//! is needed and kept while it is used, on which queries are pipelined and answered in any order.
//!
//! An exchange has no deadline: who drops it gives it up, and a late answer is counted and thrown away. When a
//! connection dies that has carried an answer before, the queries on it are sent once more over a fresh one: its server
//! may just have closed it as idle. No query gets lost without a word.

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
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ahash::RandomState;

use self::backoff::Backoff;
use self::channel::Fault;
use self::connection::Connection;
use self::refusals::Refusals;
use self::tls::Sessions;
pub use self::tls::{Roots, Trust, TrustError};
use super::{ChaCha, MonotonicClock};
use crate::config::{Authentication, Protocol, Upstream};
use crate::observe::{StreamCounters, UpstreamCounters};
use crate::resolve::ports::ExchangeError;

/// Connections per core, those included that are being opened or end with their last answers: one per upstream and a
/// few that part, for more upstreams than anyone configures.
const CONNECTIONS_MAX: u64 = 256;

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

/// The way to one upstream: its connection, if there is one, and whether there is a point in opening another.
#[derive(Debug)]
struct Line {
    upstream: Upstream,
    current: RefCell<Option<Rc<Connection>>>,
    backoff: Cell<Backoff>,
}

impl Line {
    fn authentication(&self) -> Option<&Authentication> {
        authentication(&self.upstream)
    }

    /// Puts no more queries on `connection`.
    fn part_with(&self, connection: &Connection) {
        let mut current = self.current.borrow_mut();
        if current.as_ref().is_some_and(|current| std::ptr::eq(&raw const **current, connection)) {
            *current = None;
        }
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
        let line = self.line(upstream).ok_or(ExchangeError::Exhausted)?;
        let counters = self.core.counters(line.authentication().is_some());
        let mut is_resent = false;
        loop {
            let (connection, is_reused) = self.connection(&line)?;
            let flight = connection.begin(query).ok_or(ExchangeError::Exhausted)?;
            if is_reused {
                counters.reused.bump();
            }
            match flight.answer().await {
                Ok(answer) => return Ok(answer),
                Err(lost) if lost.was_proven && !is_resent => {
                    is_resent = true;
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
                line.current.borrow().is_some() || line.backoff.get().forbids(now)
            };
            lines.retain(|_, lines| {
                lines.retain(is_in_use);
                !lines.is_empty()
            });
            if lines.values().map(Vec::len).sum::<usize>() >= LINES_MAX {
                return None;
            }
        }
        let line = Rc::new(Line {
            upstream: upstream.clone(),
            current: RefCell::default(),
            backoff: Cell::default(),
        });
        lines.entry(upstream.address).or_default().push(Rc::clone(&line));
        Some(line)
    }

    /// The connection for the next query, and whether it was there already.
    fn connection(&self, line: &Rc<Line>) -> Result<(Rc<Connection>, bool), ExchangeError> {
        let current = line.current.borrow().clone();
        match current {
            Some(connection) if connection.is_of_use() => return Ok((connection, true)),
            Some(connection) => connection.retire(),
            None => {}
        }
        if line.backoff.get().forbids(self.core.clock.monotonic()) {
            return Err(ExchangeError::Unreachable);
        }
        let UpstreamCounters { tcp, tls, .. } = &*self.core.upstream_counters;
        if tcp.connections.value() + tls.connections.value() >= CONNECTIONS_MAX {
            return Err(ExchangeError::Exhausted);
        }
        let is_tls = line.authentication().is_some();
        let connection = Rc::new(Connection::new(Rc::clone(&self.core), is_tls));
        line.current.replace(Some(Rc::clone(&connection)));
        let kept = connection::keep(Rc::clone(&self.core), Rc::clone(line), Rc::clone(&connection));
        glommio::spawn_local(kept).detach();
        Ok((connection, false))
    }
}

impl Drop for Streams {
    /// Lets each connection end as soon as nobody waits for an answer on it.
    fn drop(&mut self) {
        for line in self.lines.get_mut().values().flatten() {
            if let Some(connection) = line.current.take() {
                connection.retire();
            }
        }
    }
}
