//! Beside the data plane: ordinary threads that may block, for files, downloads, and what they do by the time of day. No
//! executor.

pub mod desk;
pub mod files;
pub mod lists;
pub mod schedule;
pub mod snapshot;
