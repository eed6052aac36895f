//! Beside the data plane: ordinary threads that may block, for files, and what they do by the time of day. No socket, no
//! executor.

pub mod schedule;
pub mod snapshot;
