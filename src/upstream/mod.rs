//! What `resolve` needs of the world, for real: sockets, streams, the clock and unforeseeable numbers of one core.

mod clock;
mod entropy;
mod report;
mod source_ports;
mod stream;
mod udp;

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use glommio::timer::Timer;

pub use clock::MonotonicClock;
pub use entropy::{ChaCha, octets_from_kernel, words_from_kernel};
pub use report::Report;
pub use source_ports::SourcePorts;
pub(crate) use stream::{CONNECTION_BYTES, connections_max};
pub use stream::{Roots, Streams, Trust, TrustError};
pub use udp::{DatagramSockets, Pool, Setting};

use crate::config::{self, Upstream};
use crate::net::SocketId;
use crate::resolve::ports::{Casing, Clock, Entropy, ExchangeError, Transport};
use crate::time::Monotonic;

/// The world as one core sees it.
#[derive(Debug)]
pub struct World<S> {
    pool: Rc<Pool<S>>,
    streams: Rc<Streams>,
    clock: MonotonicClock,
    entropy: Rc<ChaCha>,
}

impl<S: DatagramSockets> World<S> {
    /// A world with the sockets and numbers of `setting`, opened as they are needed, and the upstreams of `forward`.
    #[must_use]
    pub fn new(
        setting: Setting<S>,
        streams: Streams,
        forward: &config::Forward,
        entropy: Rc<ChaCha>,
    ) -> Self {
        let clock = setting.clock;
        let upstreams = forward.all_upstreams().map(Upstream::plain_address);
        let pool = Rc::new(Pool::new(setting, upstreams, Rc::clone(&entropy)));
        Self { pool, streams: Rc::new(streams), clock, entropy }
    }

    /// The same sockets and numbers for the upstreams of another `forward`, spoken to over other `streams` if there are any.
    /// Exchanges under way end with the world that they began in.
    #[must_use]
    pub fn succeeded_by(&self, forward: &config::Forward, streams: Option<Streams>) -> Self {
        self.pool.expect(forward.all_upstreams().map(Upstream::plain_address));
        Self {
            pool: Rc::clone(&self.pool),
            streams: streams.map_or_else(|| Rc::clone(&self.streams), Rc::new),
            clock: self.clock,
            entropy: Rc::clone(&self.entropy),
        }
    }

    /// The unforeseeable numbers of the core.
    #[must_use]
    pub const fn numbers(&self) -> &Rc<ChaCha> {
        &self.entropy
    }

    /// Ends exchanges whose datagrams could not be sent or delivered; never returns. Without it they wait in vain.
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
        casing: Casing,
    ) -> impl Future<Output = Result<Vec<u8>, ExchangeError>> {
        self.pool.exchange(upstream, query, casing)
    }

    async fn stream(&self, upstream: &Upstream, query: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        self.streams.exchange(upstream, query).await
    }
}

impl<S> Clock for World<S> {
    fn monotonic(&self) -> Monotonic {
        self.clock.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        Timer::new(duration).await;
    }
}

impl<S> Entropy for World<S> {
    fn u16(&self) -> u16 {
        self.entropy.u16()
    }
}
