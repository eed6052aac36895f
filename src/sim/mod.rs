//! A world that exists only in memory: time that moves when all wait, and chance that follows a seed.
//!
//! What happens in it depends on nothing else, so a run that fails fails again.

mod time;

pub use time::{Sleep, Time};
