//! Programs that choose among the sockets of a group that shares one address (`SO_REUSEPORT`), in classic BPF: they need no
//! privileges.
//!
//! What the kernel does with them (net/core/sock_reuseport.c): a program sees a datagram from its payload on, behind the UDP
//! header. What it returns is the index of a socket, in the order in which they were bound; beyond the last one, the kernel
//! chooses by its hash of addresses and ports, as it does without a program. A load outside of the datagram ends the
//! program with 0.
//!
//! Invariants:
//! * I1: option values are passed with their true size and live, with all that they point to, during the call.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::errno;
use super::sockopt::set;

/// One instruction of classic BPF, as the kernel has it (linux/filter.h).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Instruction {
    /// What is done, with which operands.
    pub code: u16,
    /// Instructions that are skipped when a comparison holds.
    pub if_true: u8,
    /// Instructions that are skipped when it does not.
    pub if_false: u8,
    /// A constant: an operand, an offset or a distance.
    pub k: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<Instruction>() == align_of::<libc::sock_filter>());

/// Has `program` choose among the sockets of the group that `socket` belongs to, from now on, in the place of the one before.
///
/// # Errors
/// The kernel's: `EINVAL` for a program that it cannot trust or a socket that shares nothing, `ENOMEM` for one that is longer than
/// `net.core.optmem_max` allows.
pub fn attach(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len());
    let len = len.map_err(|_| io::Error::from_raw_os_error(errno::EINVAL))?;
    // The kernel reads the instructions, and does not write.
    let filter = program.as_ptr().cast::<libc::sock_filter>().cast_mut();
    let option = libc::sock_fprog { len, filter };
    // I1: `program` lives during the call.
    set(&socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, option)
}

/// Has the kernel choose by its own hash again. Nothing is wrong where no program was.
///
/// # Errors
/// The kernel's, for a socket that shares nothing.
pub fn detach(socket: BorrowedFd<'_>) -> io::Result<()> {
    let detached = set(&socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DETACH_REUSEPORT_BPF, 0i32);
    match detached {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::sockopt::{Bound, UdpSettings, bind_udp};

    /// `return k`.
    const fn always(k: u32) -> [Instruction; 1] {
        [Instruction { code: 0x06, if_true: 0, if_false: 0, k }]
    }

    fn bind(is_shared: bool) -> Bound {
        let settings = UdpSettings { is_shared, buffer_bytes: None };
        bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)), settings).unwrap()
    }

    #[test]
    fn group_takes_a_program_and_another_one_and_lets_it_go() {
        let bound = bind(true);
        let socket = bound.fd.as_fd();
        detach(socket).unwrap();
        attach(socket, &always(0)).unwrap();
        attach(socket, &always(1)).unwrap();
        detach(socket).unwrap();
    }

    #[test]
    fn what_is_no_program_and_what_is_no_group_are_refused() {
        let bound = bind(true);
        let socket = bound.fd.as_fd();
        let beyond_the_end = Instruction { code: 0x05, if_true: 0, if_false: 0, k: 7 };
        for program in [&[][..], &[beyond_the_end], &vec![always(0)[0]; 70_000]] {
            assert!(attach(socket, program).is_err(), "{} instructions", program.len());
        }
        assert!(attach(bind(false).fd.as_fd(), &always(0)).is_err());
    }
}
