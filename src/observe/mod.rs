//! What a core tells about itself: counters that only their core writes and anyone may read, and their text form.

mod counter;
pub mod decisions;
mod durations;
mod filter;
mod forward;
mod glimpses;
mod lists;
pub mod log;
mod questions;
mod reload;
mod serving;
mod snapshot;
mod steering;
mod text;
mod upstream;

pub use counter::{Counter, Gauge};
pub use decisions::{Decision, Decisions, Via};
pub use durations::{Durations, Sampling, Spread};
pub use filter::{FilterHits, OVERRIDES};
pub use forward::{ForwardCounters, ServerCounters};
pub use glimpses::Glimpses;
pub use lists::{FilterCounters, ListCounters};
pub use reload::ReloadCounters;
pub use serving::{Fault, ServingCounters, Transport};
pub use snapshot::SnapshotCounters;
pub use steering::SteeringCounters;
pub use text::{Exposition, Format, Kind};
pub use upstream::{LineCounters, StreamCounters, UpstreamCounters, UpstreamLine};
