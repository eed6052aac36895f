//! What a core remembers: its private shard of answers. No I/O, no clock, nothing shared.

mod index;
pub mod key;
pub mod shard;
mod slab;

pub use key::Key;
pub use shard::{Insertion, Lookup, Shard};
