//! What a core tells about itself: counters that only their core writes and anyone may read, and their text form.

mod counter;
mod durations;
mod forward;
mod questions;
mod serving;
mod snapshot;
mod text;
mod upstream;

pub use counter::{Counter, Gauge};
pub use durations::{Durations, Sampling, Spread};
pub use forward::ForwardCounters;
pub use serving::{Fault, ServingCounters, Transport};
pub use snapshot::SnapshotCounters;
pub use text::{Exposition, Format, Kind};
pub use upstream::{LineCounters, StreamCounters, UpstreamCounters};
