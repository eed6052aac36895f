//! Which core gets a datagram: programs for the kernel that choose among the sockets of the cores, which stand in their group in
//! the order of the cores. Nothing here runs per packet; what does, runs in the kernel.
//!
//! A program that finds no question gives a datagram back, and the kernel spreads those by its hash of addresses and ports,
//! as it does everything without a program.

mod assemble;
mod cpu;
#[cfg(test)]
mod interpret;
mod qname;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::BorrowedFd;

pub use self::cpu::by_cpu;
pub use self::qname::{GLIMPSE_BYTES, KEY_WORDS, Key, by_qname, owner};
use crate::sys::errno;
use crate::sys::reuseport::{self, Instruction};

/// Names that may be spread over all cores at a time; each costs a comparison per datagram.
pub const SPREAD_MAX: usize = 8;

/// A program that chooses a core, or the kernel's own choice.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// The kernel's hash of addresses and ports.
    #[must_use]
    pub const fn by_flow() -> Self {
        Self(Vec::new())
    }

    /// Instructions; none for the kernel's own choice.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }

    /// Puts it in force for all sockets that share the address of `socket`, in the place of the one before.
    ///
    /// # Errors
    /// The kernel's; then the one before stays.
    pub fn attach(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        if self.0.is_empty() {
            reuseport::detach(socket)
        } else {
            reuseport::attach(socket, &self.0)
        }
    }
}

/// Why the kernel refused a program, and what to do about it.
#[must_use]
pub fn explain(cause: &io::Error) -> String {
    match cause.raw_os_error() {
        Some(errno::ENOMEM) => {
            "the program is too long for net.core.optmem_max; raise that to 65536".to_owned()
        }
        Some(errno::EPERM | errno::EACCES) => "a sandbox forbids it".to_owned(),
        _ => cause.to_string(),
    }
}
