//! The kernel's doors: rings, mappings, socket options, control messages. The home of `unsafe`.
//!
//! Everything public here is safe to call. Each file that needs `unsafe` begins with its numbered invariants. No file
//! here knows what a datagram means, and none names an executor.
#![expect(
    unsafe_code,
    reason = "system calls and memory shared with the kernel; STYLE's first door"
)]

pub mod address;
pub mod adopt;
pub mod cmsg;
pub mod datagram;
pub mod errno;
pub mod error_queue;
pub mod eventfd;
pub mod file;
pub mod frozen;
pub mod interfaces;
pub mod listen;
pub mod mmap;
pub mod mmsg;
mod owners;
pub mod pool;
pub mod priority;
mod provided;
pub mod reuseport;
pub mod rlimit;
mod send_header;
pub mod sockopt;
pub mod uring;
