//! The query log's side of the data plane: what is told of a query, and the queue in which a core leaves it for the thread
//! that writes it down. Nothing here waits: what does not fit is counted and left out.

mod block;
mod dnstap;
mod entry;
mod queue;
mod tap;
mod top;

pub use block::{
    BYTES_MAX as BLOCK_BYTES_MAX, Block, BlockError, Fact, Label, NameOctets, Packed, Packer,
    Place, RECORDS_MAX, Row, Seen, may_hold,
};
pub use dnstap::{CONTENT_TYPE, Encoder, Told};
pub use entry::{Account, Entry, How, anonymous};
pub use queue::{Consumer, Producer, queue};
pub use tap::{LogCounters, Octets, Tap};
pub use top::{Hitter, Sketch, merge};
