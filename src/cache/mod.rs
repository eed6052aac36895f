//! What a core remembers: its private shard of answers, and the form in which it survives a restart. No I/O, no clock,
//! nothing shared.

mod apexes;
pub mod coherence;
mod entry;
mod evict;
pub mod failure;
mod ghost;
mod index;
pub mod inspect;
pub mod invalidate;
pub mod key;
mod origins;
mod restore;
mod segment;
pub mod shard;
mod slab;
pub mod snapshot;

pub use coherence::{Batch, Notice, Outbox, Stored};
pub use failure::Failures;
pub use inspect::{Explanation, Inspection, State};
pub use invalidate::{Flush, Scope};
pub use key::{Key, KeyParts};
pub use origins::Origins;
pub use restore::Restored;
pub use segment::Segment;
pub use shard::{Insertion, Lookup, Shard, Tally};
pub use slab::SHARD_BYTES_MAX;
