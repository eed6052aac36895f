//! This machine's interfaces: their addresses (getifaddrs(3)) and numbers (if_nametoindex(3)).
//!
//! Invariants:
//! * I1: `List` holds what `getifaddrs` gave, which nobody else frees; its entries and all that they point to live until
//!   the list is dropped.
//! * I2: an entry's `ifa_addr` is null or a socket address of its family's own size, and its `ifa_name` is a C string.
//! * I3: a name given to the C library is a C string that lives during the call.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::net::IpAddr;

use super::address::{self, ADDRESS_BYTES_MAX};
use super::sockopt::check;

/// All addresses that interfaces of this machine have now, loopback included.
///
/// # Errors
/// The kernel's: no memory, no descriptors, or a sandbox without netlink.
pub fn addresses() -> io::Result<BTreeSet<IpAddr>> {
    Ok(by_interface()?.into_iter().map(|(_, ip)| ip).collect())
}

/// The same, each behind the name of its interface.
///
/// # Errors
/// As those of [`addresses`].
pub fn by_interface() -> io::Result<BTreeSet<(String, IpAddr)>> {
    let list = List::read()?;
    let mut found = BTreeSet::new();
    let mut next = list.0;
    while !next.is_null() {
        // SAFETY: `next` is an entry of the list, which is alive (I1).
        let entry = unsafe { &*next };
        if let Some(ip) = ip_of(entry) {
            found.insert((name_of(entry), ip));
        }
        next = entry.ifa_next;
    }
    Ok(found)
}

/// The number of the interface `name`, by which addresses name their scope.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: `name` is a C string that lives during the call (I3).
    let number = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (number != 0).then_some(number)
}

/// Labels of further addresses (`eth0:1`) are names of their interface here.
fn name_of(entry: &libc::ifaddrs) -> String {
    // SAFETY: the name is a C string that lives with the entry (I2).
    let name = unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy();
    name.split(':').next().unwrap_or_default().to_owned()
}

fn ip_of(entry: &libc::ifaddrs) -> Option<IpAddr> {
    if entry.ifa_addr.is_null() {
        return None;
    }
    // SAFETY: the address is not null, so it has at least a family (I2), and lives with the entry (I1).
    let family = unsafe { (*entry.ifa_addr).sa_family };
    let len = match i32::from(family) {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    debug_assert!(len <= ADDRESS_BYTES_MAX);
    // SAFETY: an address of this family has `len` bytes (I2), which live with the entry and are not written (I1).
    let bytes = unsafe { std::slice::from_raw_parts(entry.ifa_addr.cast::<u8>(), len) };
    address::parse(bytes).map(|address| address.ip())
}

/// A list that is freed with this value.
struct List(*mut libc::ifaddrs);

impl List {
    fn read() -> io::Result<Self> {
        let mut first = std::ptr::null_mut();
        // SAFETY: `first` is a live, writable pointer, which the call sets on success.
        check(unsafe { libc::getifaddrs(&raw mut first) })?;
        Ok(Self(first))
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list came from `getifaddrs` and is freed here alone (I1).
        unsafe { libc::freeifaddrs(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::sys::sockopt::{UdpSettings, bind_udp};

    #[test]
    fn loopback_has_a_number_and_nonsense_has_none() {
        assert!(number("lo").is_some());
        for name in ["", "no such interface", "l\0o"] {
            assert_eq!(number(name), None, "{name:?}");
        }
    }

    #[test]
    fn addresses_of_loopback_stand_with_its_name() {
        let all = by_interface().unwrap();
        assert!(all.contains(&("lo".to_owned(), "127.0.0.1".parse().unwrap())), "{all:?}");
    }

    #[test]
    fn every_address_found_can_be_bound() {
        let found = addresses().unwrap();
        assert!(found.contains(&"127.0.0.1".parse().unwrap()), "{found:?}");
        let settings = UdpSettings { is_shared: false, buffer_bytes: None };
        // Link-local addresses need a scope, and those still being probed for duplicates are not ready.
        for &ip in found.iter().filter(|ip| ip.is_ipv4()) {
            bind_udp(SocketAddr::new(ip, 0), settings).unwrap();
        }
    }
}
