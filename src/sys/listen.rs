//! Listening TCP sockets with the options that one listener per core needs, and how their connections close.
//!
//! Invariants:
//! * I1: a pointer given to the kernel comes from a live Rust value, and the length beside it is that value's size.
//! * I2: a non-negative result of `socket` is a descriptor that nobody else owns.
//!
//! The sockets block: glommio accepts through the ring, which waits on a blocking socket and fails with `EAGAIN`
//! on a non-blocking one.
#![expect(unsafe_code, reason = "std binds before SO_REUSEPORT can be set")]

use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_int, c_void, socklen_t};

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
    let (domain, address) = match addr {
        SocketAddr::V4(v4) => (libc::AF_INET, Address::V4(encode_v4(v4))),
        SocketAddr::V6(v6) => (libc::AF_INET6, Address::V6(encode_v6(v6))),
    };
    // SAFETY: `socket` takes no pointers.
    let raw = unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    check(raw)?;
    // SAFETY: the call above succeeded, so `raw` is open and ours alone (I2).
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER_BYTES)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER_BYTES)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    if addr.is_ipv6() {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    // Best effort: sandboxes and some kernels refuse it, and clients then take the ordinary handshake.
    let _ = set(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, FASTOPEN_PENDING_MAX);
    bind(&socket, &address)?;
    let backlog = c_int::try_from(backlog).unwrap_or(c_int::MAX);
    // SAFETY: `listen` takes no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(socket)
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

/// A socket address in the kernel's form.
enum Address {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

fn encode_v4(addr: std::net::SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: family(libc::AF_INET),
        sin_port: addr.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
        sin_zero: [0; 8],
    }
}

fn encode_v6(addr: std::net::SocketAddrV6) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: family(libc::AF_INET6),
        sin6_port: addr.port().to_be(),
        sin6_flowinfo: addr.flowinfo(),
        sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
        sin6_scope_id: addr.scope_id(),
    }
}

fn family(number: c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).expect("address families are small numbers")
}

fn bind(socket: &OwnedFd, address: &Address) -> io::Result<()> {
    let (pointer, len) = match address {
        Address::V4(v4) => ((&raw const *v4).cast(), size_of::<libc::sockaddr_in>()),
        Address::V6(v6) => ((&raw const *v6).cast(), size_of::<libc::sockaddr_in6>()),
    };
    let len = socklen_t::try_from(len).expect("a socket address is small");
    // SAFETY: `pointer` and `len` are those of `*address`, which outlives the call (I1).
    check(unsafe { libc::bind(socket.as_raw_fd(), pointer, len) })
}

/// `T` is plain data of the C kind: an int or a struct of ints.
fn set<T: Copy>(socket: &impl AsRawFd, level: c_int, option: c_int, value: T) -> io::Result<()> {
    let len = socklen_t::try_from(size_of::<T>()).expect("an option is small");
    let pointer = (&raw const value).cast::<c_void>();
    // SAFETY: `pointer` and `len` are those of `value`, which outlives the call (I1).
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, len) })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
