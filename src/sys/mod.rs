//! The kernel's doors, and the home of `unsafe`: each file opens with its numbered invariants. No policy here.

pub mod adopt;
pub mod listen;
