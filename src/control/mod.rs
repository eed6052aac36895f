//! Beside the data plane: ordinary threads that may block, for files and for whoever operates the node. No executor of a
//! core, no datagram.

pub mod api;
pub mod desk;
pub mod process;
pub mod snapshot;
