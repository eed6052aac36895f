//! What `resolve` needs of the world, for real: sockets, streams, the clock and unforeseeable numbers of one core.

mod clock;
mod entropy;
mod report;
mod source_ports;
mod tcp;
mod udp;

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

pub use clock::MonotonicClock;
pub use entropy::ChaCha;
pub use report::Report;
pub use source_ports::SourcePorts;
pub use udp::{DatagramSockets, Pool};

use crate::net::SocketId;
use crate::observe::UpstreamCounters;
use crate::resolve::ports::{Clock, Entropy, ExchangeError, Transport};
use crate::time::{Deadline, Monotonic};

/// The world as one core sees it.
#[derive(Debug)]
pub struct World<S> {
    pool: Rc<Pool<S>>,
    streams: tcp::Streams,
    clock: MonotonicClock,
    entropy: Rc<ChaCha>,
}

impl<S: DatagramSockets> World<S> {
    /// A world with at most `sockets_max` of the source `ports` per address family, opened as they are needed.
    #[must_use]
    pub fn new(
        sockets: Rc<S>,
        sockets_max: usize,
        ports: Arc<SourcePorts>,
        clock: MonotonicClock,
        entropy: ChaCha,
        counters: Arc<UpstreamCounters>,
    ) -> Self {
        let entropy = Rc::new(entropy);
        let streams = tcp::Streams::new(clock, Arc::clone(&counters));
        let pool = Pool::new(sockets, sockets_max, ports, clock, Rc::clone(&entropy), counters);
        Self { pool: Rc::new(pool), streams, clock, entropy }
    }

    /// Ends exchanges whose datagrams could not be sent; never returns. Without it they wait for their deadline.
    pub fn watch_refusals(&self) -> impl Future<Output = ()> + use<S> {
        let pool = Rc::clone(&self.pool);
        async move { pool.watch_refusals().await }
    }

    /// Takes a datagram that arrived on an upstream-facing socket.
    pub fn deliver(&self, socket: SocketId, from: SocketAddr, datagram: &[u8]) {
        self.pool.deliver(socket, from, datagram);
    }
}

impl<S: DatagramSockets> Transport for World<S> {
    fn datagram(
        &self,
        upstream: SocketAddr,
        query: &[u8],
        deadline: Deadline,
    ) -> impl Future<Output = Result<Vec<u8>, ExchangeError>> {
        self.pool.exchange(upstream, query, deadline)
    }

    fn stream(
        &self,
        upstream: SocketAddr,
        query: &[u8],
        deadline: Deadline,
    ) -> impl Future<Output = Result<Vec<u8>, ExchangeError>> {
        self.streams.exchange(upstream, query, deadline)
    }
}

impl<S> Clock for World<S> {
    fn monotonic(&self) -> Monotonic {
        self.clock.monotonic()
    }
}

impl<S> Entropy for World<S> {
    fn u16(&self) -> u16 {
        self.entropy.u16()
    }
}
