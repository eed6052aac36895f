//! What resolution needs from the world. `upstream` provides it with sockets; tests provide a scripted world.

use std::future::Future;
use std::net::SocketAddr;

use crate::time::{Deadline, Monotonic};

/// Why an exchange brought no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExchangeError {
    /// Nothing that answers the query came in time.
    TimedOut,
    /// The upstream cannot be reached or broke the connection off.
    Unreachable,
    /// No room on this core: too much is under way.
    Exhausted,
}

/// Carries one query to an upstream and its answer back.
pub trait Transport {
    /// Asks over UDP, from a source port that nobody can guess.
    ///
    /// Gives the first datagram that came from `upstream` to that port and answers `query` in the sense of
    /// [`super::exchange::answers`]; all others are none (RFC 5452 §4).
    fn datagram(
        &self,
        upstream: SocketAddr,
        query: &[u8],
        deadline: Deadline,
    ) -> impl Future<Output = Result<Vec<u8>, ExchangeError>>;

    /// Asks over TCP (RFC 7766). What does not answer `query` is [`ExchangeError::Unreachable`].
    fn stream(
        &self,
        upstream: SocketAddr,
        query: &[u8],
        deadline: Deadline,
    ) -> impl Future<Output = Result<Vec<u8>, ExchangeError>>;
}

/// The monotonic clock.
pub trait Clock {
    /// The present.
    fn monotonic(&self) -> Monotonic;
}

/// Numbers that nobody outside can foretell (RFC 5452 §9.2).
pub trait Entropy {
    /// Sixteen such bits.
    fn u16(&self) -> u16;
}
