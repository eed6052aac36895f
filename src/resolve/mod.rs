//! What to ask and what to believe: questions in flight, choice of upstreams, doubt about their answers. No I/O, no clock.

pub mod inflight;

pub use inflight::{Inflight, Joined};
