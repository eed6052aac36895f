//! Sockets, bound and set up: UDP for the data plane, and what TCP listeners (`listen`) share with it.
//!
//! Invariants:
//! * I1: option values and addresses are passed with their true size and live during the call.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::address::{self, RawAddress};

/// How a UDP socket is set up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UdpSettings {
    /// Whether other sockets, one per core, share the address (`SO_REUSEPORT`).
    pub is_shared: bool,
    /// `SO_RCVBUF` and `SO_SNDBUF` asked for, in bytes; `None` leaves the system's default.
    pub buffer_bytes: Option<usize>,
}

/// A bound socket and what the kernel made of the wishes.
#[derive(Debug)]
pub struct Bound {
    /// The socket, non-blocking.
    pub fd: OwnedFd,
    /// Where it is bound, with the port the kernel chose if none was asked for.
    pub address: SocketAddr,
    /// Receive buffer granted, in bytes (the kernel doubles what is asked for, for its own books).
    pub receive_buffer_bytes: usize,
}

/// Opens and binds a UDP socket.
///
/// A shared socket bound to a wildcard address says for each datagram where it was sent to (`IP_PKTINFO`), so that replies
/// leave from there; each socket says how many it had to drop (`SO_RXQ_OVFL`). Datagrams carry DF and path-MTU messages are not believed (`IP_PMTUDISC_PROBE`), so
/// whoever forges one can neither make us fragment nor make sends fail (RFC 9715 §3.1); what exceeds the interface's
/// own MTU is refused with `EMSGSIZE`. Without DF the kernel also chooses an IPv4 ID for each datagram: 2.6 % of an
/// echo's CPU samples (`perf record` on `benchmarks/echo.rs`).
///
/// # Errors
/// The kernel's: address in use, not ours, or a port that needs privileges.
pub fn bind_udp(address: SocketAddr, settings: UdpSettings) -> io::Result<Bound> {
    let fd = open(address, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK)?;
    if settings.is_shared {
        set(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    if settings.is_shared && address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => set(&fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
            SocketAddr::V6(_) => set(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
        }
    }
    set(&fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    ignore_path_mtu(&fd, address)?;
    if let Some(bytes) = settings.buffer_bytes {
        set_buffers(&fd, bytes)?;
    }
    bind(&fd, address)?;
    let receive_buffer_bytes = usize::try_from(get(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF)?);
    Ok(Bound {
        address: local_address(&fd)?,
        receive_buffer_bytes: receive_buffer_bytes.unwrap_or(0),
        fd,
    })
}

/// Makes the kernel keep what the network reports about datagrams sent from a socket bound to `address`, for
/// [`super::error_queue`] (`IP_RECVERR`).
///
/// From then on a report also ends one call on the socket, receive or send, with an error that says nothing about that
/// call.
///
/// # Errors
/// The kernel's.
pub fn keep_reports(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => set(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1),
        SocketAddr::V6(_) => set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
    }
}

/// Where `socket` is bound.
///
/// # Errors
/// The kernel's, for a descriptor that is no Internet socket.
pub fn local_address(socket: impl AsFd) -> io::Result<SocketAddr> {
    let mut bytes = [0u8; address::ADDRESS_BYTES_MAX];
    let mut len = address::ADDRESS_LEN_MAX;
    let name = bytes.as_mut_ptr().cast();
    // SAFETY: `name` is `len` writable bytes, and `len` is writable (I1).
    check(unsafe { libc::getsockname(socket.as_fd().as_raw_fd(), name, &raw mut len) })?;
    address::parse(&bytes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Opens a socket of `kind` (with flags); an IPv6 one never takes IPv4 traffic, so that `[::]` and `0.0.0.0` are two listeners
/// everywhere and a client's address has one form.
pub(super) fn open(address: SocketAddr, kind: i32) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = kind | libc::SOCK_CLOEXEC;
    // SAFETY: `socket` takes no pointers.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the kernel has just made `fd` for us and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if address.is_ipv6() {
        set(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    Ok(fd)
}

pub(super) fn bind(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let raw = RawAddress::new(address);
    // SAFETY: `raw` is `len` readable bytes of a socket address (I1).
    check(unsafe { libc::bind(fd.as_raw_fd(), raw.as_ptr(), raw.len()) }).map(drop)
}

fn ignore_path_mtu(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => {
            set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
        }
        SocketAddr::V6(_) => {
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
        }
    }
}

/// Asks past the system's limit first (needs CAP_NET_ADMIN), then within it.
fn set_buffers(fd: &OwnedFd, bytes: usize) -> io::Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    for (force, plain) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        set(fd, libc::SOL_SOCKET, force, bytes)
            .or_else(|_| set(fd, libc::SOL_SOCKET, plain, bytes))?;
    }
    Ok(())
}

/// Acknowledges what has arrived on a TCP connection at once, and what arrives next; the kernel goes back to waiting by
/// itself (tcp(7), `TCP_QUICKACK`). A peer that holds small writes back until the last one is acknowledged (Nagle) else
/// keeps the next answer until we send something.
///
/// # Errors
/// The kernel's, for what is no TCP socket.
pub fn acknowledge_at_once(stream: &impl AsRawFd) -> io::Result<()> {
    set(stream, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1i32)
}

/// Bytes of an integer option.
const OPTION_LEN: libc::socklen_t = 4;
const _: () = assert!(OPTION_LEN as usize == size_of::<i32>());

/// Sets an option whose value is a plain C type.
pub(super) fn set<T: Copy>(fd: &impl AsRawFd, level: i32, option: i32, value: T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("option values are small");
    let pointer = (&raw const value).cast();
    // SAFETY: `value` is `len` readable bytes (I1).
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, pointer, len) }).map(drop)
}

fn get(fd: &OwnedFd, level: i32, option: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut len = OPTION_LEN;
    let pointer = (&raw mut value).cast();
    // SAFETY: `value` is `len` writable bytes, and `len` is writable (I1).
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, pointer, &raw mut len) })?;
    Ok(value)
}

pub(super) fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: UdpSettings = UdpSettings { is_shared: true, buffer_bytes: Some(1 << 16) };
    const ALONE: UdpSettings = UdpSettings { is_shared: false, buffer_bytes: None };

    #[test]
    fn shared_sockets_share_and_a_lone_one_does_not() {
        let first = bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)), SHARED).unwrap();
        assert!(first.receive_buffer_bytes >= 1 << 16);
        bind_udp(first.address, SHARED).unwrap();
        let error = bind_udp(first.address, ALONE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn both_wildcards_can_be_bound_to_one_port() {
        let v6 = bind_udp("[::]:0".parse().unwrap(), SHARED).unwrap();
        let v4 = SocketAddr::from(([0, 0, 0, 0], v6.address.port()));
        bind_udp(v4, SHARED).unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = bind_udp("192.0.2.1:0".parse().unwrap(), ALONE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
