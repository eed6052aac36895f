//! What to ask and what to believe: questions in flight, choice of upstreams, doubt about their answers.
//!
//! No I/O, no clock: what resolution needs from the world stands in [`ports`], and `upstream` provides it for real.

mod chain;
pub mod exchange;
#[cfg(test)]
mod fixture;
pub mod forward;
mod health;
pub mod inflight;
pub mod ports;
pub mod scrub;

pub use forward::{Failure, Forwarder};
pub use health::{Change, Reason};
pub use inflight::{Elsewhere, Ended, Inflight, Joined};
