//! The error queue of a datagram socket: what the network reported about datagrams sent from it (`IP_RECVERR`,
//! `IPV6_RECVERR`), and what such reports do to later sends.
//!
//! Invariants:
//! * I1: pointers passed to the kernel lead to local buffers of the stated sizes, and it keeps none after the call.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::address::{self, RawAddress};
use super::cmsg::{self, ERROR_CONTROL_BYTES, Icmp};
use super::datagram::{NAME_BYTES, NAME_LEN};

/// Octets of a datagram by which its sender knows it again.
pub const HEAD_BYTES: usize = 2;

/// Further tries of a send: each takes away the report that it meets. Under a flood of reports (800 000 per second, all to
/// the one port of a core) two tries were too few for three of 1 500 sends.
const TRIES_MAX: u32 = 8;

/// What came back about one datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Report {
    /// Where the datagram was sent to, as the report quotes it.
    pub to: Option<SocketAddr>,
    /// How the datagram began; `None` when less of it came back.
    pub head: Option<[u8; HEAD_BYTES]>,
    /// What a router or the receiving host said; `None` when the kernel itself reports.
    pub icmp: Option<Icmp>,
}

/// Room for control messages, aligned for their headers.
#[repr(C, align(8))]
struct Control([u8; ERROR_CONTROL_BYTES]);

/// Takes the next report from the queue of `socket`; `None` when it is empty. Never waits.
///
/// # Errors
/// The kernel's.
pub fn next(socket: BorrowedFd<'_>) -> io::Result<Option<Report>> {
    let mut name = [0; NAME_BYTES];
    let mut control = Control([0; ERROR_CONTROL_BYTES]);
    let mut head = [0; HEAD_BYTES];
    let mut vector = libc::iovec { iov_base: head.as_mut_ptr().cast(), iov_len: HEAD_BYTES };
    // SAFETY: null pointers and zero lengths are a valid, empty `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = NAME_LEN;
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = ERROR_CONTROL_BYTES;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the header names local buffers with their sizes, for the time of the call (I1).
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let Ok(len) = usize::try_from(len) else {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    };
    let name = name.get(..message.msg_namelen as usize).unwrap_or(&name);
    let control = control.0.get(..message.msg_controllen).unwrap_or(&control.0);
    Ok(Some(Report {
        to: address::parse(name),
        head: (len >= HEAD_BYTES).then_some(head),
        icmp: cmsg::parse_icmp(control),
    }))
}

/// Whether `errno` may be a report about an earlier datagram of the socket, not about the call that returned it.
///
/// These are the errors that the kernel makes of ICMP messages (`icmp_err_convert`, `icmpv6_err_convert`). Anyone who
/// guesses a port can send such a message, so nothing but a look into the error queue may follow from them.
#[must_use]
pub const fn may_be_report(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENOPROTOOPT
            | libc::ECONNREFUSED
            | libc::EMSGSIZE
            | libc::EOPNOTSUPP
            | libc::ENONET
            | libc::EHOSTDOWN
            | libc::EPROTO
            | libc::EACCES
    )
}

/// Sends a datagram that was refused: a send returns what an earlier datagram met, and only thereafter what it meets.
///
/// # Errors
/// The kernel's `errno`, about this datagram as far as can be known.
pub fn send_again(socket: BorrowedFd<'_>, datagram: &[u8], to: SocketAddr) -> Result<(), i32> {
    let to = RawAddress::new(to);
    let mut errno = 0;
    for _ in 0..TRIES_MAX {
        // SAFETY: `datagram` and `to` are readable for the lengths given, for the time of the call (I1).
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                datagram.as_ptr().cast(),
                datagram.len(),
                libc::MSG_DONTWAIT,
                to.as_ptr(),
                to.len(),
            )
        };
        if sent >= 0 {
            return Ok(());
        }
        errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        if !may_be_report(errno) {
            break;
        }
    }
    Err(errno)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::sockopt::{Bound, UdpSettings, bind_udp, keep_reports};

    const ALONE: UdpSettings = UdpSettings { is_shared: false, buffer_bytes: None };

    /// An address on which nobody listens: the discard service, below the ports that the kernel gives out.
    fn closed(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 9)
    }

    /// The next report. On loopback it is nearly always there before the send returns.
    fn arrival(bound: &Bound) -> Report {
        for _ in 0..1_000_000 {
            if let Some(report) = next(bound.fd.as_fd()).unwrap() {
                return report;
            }
            std::thread::yield_now();
        }
        panic!("no report came");
    }

    #[test]
    fn report_names_the_datagram_and_where_it_went() {
        for ip in ["127.0.0.1", "::1"] {
            let any = if ip.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
            let bound = bind_udp(any.parse().unwrap(), ALONE).unwrap();
            keep_reports(&bound.fd, bound.address).unwrap();
            assert_eq!(next(bound.fd.as_fd()).unwrap(), None);
            send_again(bound.fd.as_fd(), b"question", closed(ip)).unwrap();
            let report = arrival(&bound);
            assert_eq!(report.to.map(|to| (to.ip(), to.port())), Some((ip.parse().unwrap(), 9)));
            assert_eq!(report.head, Some(*b"qu"));
            assert!(report.icmp.unwrap().is_dead_end());
            assert_eq!(next(bound.fd.as_fd()).unwrap(), None);
        }
    }

    #[test]
    fn short_datagram_is_reported_without_its_head() {
        let bound = bind_udp("0.0.0.0:0".parse().unwrap(), ALONE).unwrap();
        keep_reports(&bound.fd, bound.address).unwrap();
        send_again(bound.fd.as_fd(), b"?", closed("127.0.0.1")).unwrap();
        assert_eq!(arrival(&bound).head, None);
    }

    #[test]
    fn send_after_a_report_goes_through() {
        let bound = bind_udp("0.0.0.0:0".parse().unwrap(), ALONE).unwrap();
        keep_reports(&bound.fd, bound.address).unwrap();
        for _ in 0..10 {
            assert_eq!(send_again(bound.fd.as_fd(), b"question", closed("127.0.0.1")), Ok(()));
        }
        for _ in 0..10 {
            assert_eq!(arrival(&bound).head, Some(*b"qu"));
        }
    }

    #[test]
    fn refusal_of_the_datagram_itself_stays_one() {
        let bound = bind_udp("0.0.0.0:0".parse().unwrap(), ALONE).unwrap();
        let broadcast = "255.255.255.255:9".parse().unwrap();
        assert_eq!(send_again(bound.fd.as_fd(), b"question", broadcast), Err(libc::EACCES));
    }
}
