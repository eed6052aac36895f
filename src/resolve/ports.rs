//! What resolution needs from the world. `upstream` provides it with sockets; `sim` provides a simulated network.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Upstream;
use crate::time::Monotonic;

/// Why an exchange brought no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExchangeError {
    /// The upstream cannot be reached, refuses us or broke the connection off.
    Unreachable,
    /// No room on this core: too much is under way.
    Exhausted,
    /// What came may be forged; a stream would tell.
    Doubtful(Doubt),
}

/// Why an answer is not to be trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Doubt {
    /// Many datagrams answered what was not asked: somebody guesses (RFC 5452 §9).
    Flood,
    /// The name came back in another casing than it was sent in.
    Casing,
}

/// What the casing of a query's name is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Casing {
    /// It was drawn, and an answer must repeat it.
    Drawn,
    /// It is whatever it is, and need not come back.
    Plain,
}

/// Carries one query to an upstream and its answer back.
///
/// Exchanges have no deadline of their own: who no longer wants the answer drops the future, and that frees all that
/// belongs to the exchange.
pub trait Transport {
    /// Asks over UDP, from a source port that nobody can guess.
    ///
    /// Gives the first datagram that came from `upstream` to that port and answers `query` in the sense of
    /// [`super::exchange::judge`]; all others are none (RFC 5452 §4). In another casing it is doubtful where the casing
    /// was drawn.
    fn datagram(
        &self,
        upstream: SocketAddr,
        query: &[u8],
        casing: Casing,
    ) -> impl Future<Output = Result<Vec<u8>, ExchangeError>>;

    /// Asks over TCP (RFC 7766), or over TLS (RFC 7858) where the upstream is to be spoken to that way. What does not
    /// answer `query` is [`ExchangeError::Unreachable`].
    fn stream(
        &self,
        upstream: &Upstream,
        query: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, ExchangeError>>;
}

/// The monotonic clock.
pub trait Clock {
    /// The present.
    fn monotonic(&self) -> Monotonic;

    /// Waits.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;
}

/// Numbers that nobody outside can foretell (RFC 5452 §9.2).
pub trait Entropy {
    /// Sixteen such bits.
    fn u16(&self) -> u16;
}
