//! Listening TCP sockets with the options that one listener per core needs.
//!
//! The sockets block: glommio accepts through the ring, which waits on a blocking socket and fails with `EAGAIN`
//! on a non-blocking one.
//!
//! Invariants:
//! * I1: what is given to the kernel here are descriptors that live during the call, and numbers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::c_int;

use super::sockopt::{bind, check, open, set};

/// Kernel send buffer of a connection, in bytes. Fixed, because autotuning gives a slow reader megabytes.
const SEND_BUFFER_BYTES: c_int = 128 << 10;
/// Kernel receive buffer of a connection, in bytes: queries are small, unread ones wait here.
const RECEIVE_BUFFER_BYTES: c_int = 64 << 10;
/// Connections with data in their SYN that wait for the handshake's end (RFC 7413 §5.1 asks for a bound).
const FASTOPEN_PENDING_MAX: c_int = 256;

/// Opens, binds and listens: `SO_REUSEADDR`, `SO_REUSEPORT`, IPv6 only for IPv6, no Nagle delay.
///
/// Accepted connections inherit buffer sizes and `TCP_NODELAY`. TCP Fast Open (RFC 7413) is offered where the
/// kernel allows it. `backlog` counts connections that wait to be accepted; the kernel may cap it.
///
/// # Errors
/// What the kernel says: the address in use or not ours, no permission for the port, no descriptors.
pub fn tcp_listener(addr: SocketAddr, backlog: u32) -> io::Result<OwnedFd> {
    let socket = open(addr, libc::SOCK_STREAM)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER_BYTES)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER_BYTES)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    // Best effort: sandboxes and some kernels refuse it, and clients then take the ordinary handshake.
    let _ = set(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, FASTOPEN_PENDING_MAX);
    bind(&socket, addr)?;
    let backlog = c_int::try_from(backlog).unwrap_or(c_int::MAX);
    // SAFETY: `listen` takes no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(socket)
}

/// Checks that no other process listens on `addr`, which `SO_REUSEPORT` would let us share with it.
///
/// # Errors
/// As for [`tcp_listener`].
pub fn ensure_free(addr: SocketAddr) -> io::Result<()> {
    let socket = open(addr, libc::SOCK_STREAM)?;
    // Connections of an earlier run may still be closing; only listeners count.
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    bind(&socket, addr)
}

/// Makes the close of `socket` a reset: what waits in its send buffer is freed at once, instead of being offered to
/// the client for minutes.
///
/// # Errors
/// What the kernel says, if this is no open socket.
pub fn reset_on_close(socket: &impl AsRawFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set(socket, libc::SOL_SOCKET, libc::SO_LINGER, linger)
}

/// Whether accept failed because the process, the system or the kernel's memory is full.
#[must_use]
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    let full = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| full.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn two_listeners_share_one_port() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            if TcpListener::bind(local).is_err() {
                continue; // a machine without IPv6
            }
            let first = tcp_listener(local.parse().unwrap(), 16).unwrap();
            let addr = TcpListener::from(first.try_clone().unwrap()).local_addr().unwrap();
            tcp_listener(addr, 16).unwrap();
            assert!(ensure_free(addr).is_err());
        }
    }

    #[test]
    fn wildcards_of_both_families_share_one_port() {
        if TcpListener::bind("[::1]:0").is_err() {
            return; // a machine without IPv6
        }
        let v4 = tcp_listener((Ipv4Addr::UNSPECIFIED, 0).into(), 16).unwrap();
        let port = TcpListener::from(v4.try_clone().unwrap()).local_addr().unwrap().port();
        tcp_listener(format!("[::]:{port}").parse().unwrap(), 16).unwrap();
    }

    #[test]
    fn foreign_address_is_refused() {
        let error = tcp_listener("192.0.2.1:0".parse().unwrap(), 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
