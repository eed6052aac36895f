//! What to tell the operator when an address cannot be bound.

use std::io;
use std::net::SocketAddr;

use crate::sys::errno;

/// Why the kernel would not bind `address`, and what to do about it.
#[must_use]
pub fn explain(address: SocketAddr, cause: &io::Error) -> String {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    match cause.raw_os_error() {
        Some(errno::EAFNOSUPPORT) => {
            return format!("this machine has no {family}; leave the address out of node.listen");
        }
        Some(errno::EINVAL) => return "nobody can listen on such an address".to_owned(),
        Some(errno::ENODEV) => return "no interface has the number behind its %".to_owned(),
        _ => {}
    }
    match cause.kind() {
        io::ErrorKind::AddrInUse => "the address is in use by another process".to_owned(),
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has it".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 need CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => cause.to_string(),
    }
}
