//! What to ask and what to believe: questions in flight, choice of upstreams, doubt about their answers.
//!
//! No I/O, no clock: what resolution needs from the world stands in [`ports`], and `upstream` provides it for real.

mod attempt;
mod chain;
mod contest;
mod cookie;
pub mod exchange;
mod failure;
#[cfg(test)]
mod fixture;
pub mod flights;
pub mod forward;
mod health;
pub mod inflight;
pub mod ports;
mod race;
pub mod room;
mod rtt;
pub mod scrub;
mod server;
mod state;
mod zones;

pub use cookie::CookieSecret;
pub use forward::{Failure, Forwarder};
pub use health::{Change, Reason};
pub use inflight::{Elsewhere, Ended, Inflight, Joined};
pub use room::Eviction;
pub use state::{Outlook, State};
