//! A world that exists only in memory: time that moves when all wait, chance that follows a seed, a network that loses and
//! forges, and upstreams of which each name's truth is known.
//!
//! What happens in it depends on nothing else, so a run that fails fails again. No I/O, no clock.

mod chance;
mod forger;
mod message;
mod network;
mod run;
mod scenario;
mod server;
mod sockets;
mod streams;
mod tasks;
mod time;
mod trace;
mod truth;

pub use chance::Chance;
pub use network::Sent;
pub use run::{Asked, Outcome, Report, Turn, run};
pub use scenario::{Duty, Flood, Role, Scenario, Spoken};
pub use server::{CookieHabit, EdnsHabit, Link, Outage, StreamHabit, Traits};
pub use time::{Sleep, Time};
pub use trace::{Fault, Tally};
