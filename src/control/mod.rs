//! Beside the data plane: ordinary threads that may block, for files, downloads, whoever operates the node, and what is done by
//! the time of day. No executor of a core, no datagram.

pub mod api;
pub mod desk;
pub mod files;
pub mod lists;
pub mod log;
pub mod process;
pub mod schedule;
pub mod snapshot;
pub mod switches;
