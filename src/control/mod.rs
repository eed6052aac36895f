//! Beside the data plane: ordinary threads that may block, for files. No socket, no executor.

pub mod snapshot;
