//! One query in, one reply out: joins policy, cache and resolution, and counts what happened. No I/O, no clock.
//!
//! Every transport, the fuzzer and the benches call the same [`Core::answer`].

mod answer;
mod blocked;
mod coherence;
mod detour;
mod excess;
mod explain;
mod log;
mod miss;
mod reply;
mod tell;

pub use answer::{Client, Core, FORESEEN_MAX, Sections, Verdict, Warmth};
pub use explain::{Explained, Fate, Stage, Step};
pub use miss::{Admission, Asking, Onward, Ticket, Unresolved};
