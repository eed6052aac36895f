//! Socket addresses as the kernel writes them (`sockaddr_in`, `sockaddr_in6`), converted as plain bytes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of the larger of the two forms.
pub const ADDRESS_BYTES_MAX: usize = size_of::<libc::sockaddr_in6>();

/// The same, as a `socklen_t`.
pub(super) const ADDRESS_LEN_MAX: libc::socklen_t = 28;

const V4_BYTES: usize = size_of::<libc::sockaddr_in>();
const FAMILY_V4: u16 = 2;
const FAMILY_V6: u16 = 10;
const _: () = assert!(FAMILY_V4 as i32 == libc::AF_INET && FAMILY_V6 as i32 == libc::AF_INET6);
const _: () = assert!(V4_BYTES == 16 && ADDRESS_BYTES_MAX == 28);
const _: () = assert!(ADDRESS_LEN_MAX as usize == ADDRESS_BYTES_MAX);

/// A socket address in the kernel's form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C, align(8))]
pub struct RawAddress {
    bytes: [u8; ADDRESS_BYTES_MAX],
    len: u32,
}

impl RawAddress {
    /// An address of no family.
    pub const EMPTY: Self = Self { bytes: [0; ADDRESS_BYTES_MAX], len: 0 };

    /// The kernel's form of `address`, IPv6 flow label and scope included.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let mut raw = Self::EMPTY;
        let bytes = &mut raw.bytes;
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                bytes[..2].copy_from_slice(&FAMILY_V4.to_ne_bytes());
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                raw.len = 16;
            }
            SocketAddr::V6(v6) => {
                bytes[..2].copy_from_slice(&FAMILY_V6.to_ne_bytes());
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                raw.len = ADDRESS_LEN_MAX;
            }
        }
        raw
    }

    /// Bytes in use, as a `socklen_t`.
    #[must_use]
    pub const fn len(&self) -> libc::socklen_t {
        self.len
    }

    /// Whether it holds no address.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address in our form; `None` when there is none.
    #[must_use]
    pub fn read(&self) -> Option<SocketAddr> {
        parse(self.bytes.get(..self.len as usize)?)
    }

    /// Where the bytes begin; valid for [`Self::len`] bytes as long as `self` stays where it is.
    #[must_use]
    pub const fn as_ptr(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }
}

/// Reads an address in the kernel's form; `None` for another family or too few bytes.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match family {
        FAMILY_V4 => {
            let octets: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(octets), port).into())
        }
        FAMILY_V6 => {
            let flow = u32::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
            let octets: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, flow, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(raw: &RawAddress) -> &[u8] {
        &raw.bytes[..raw.len as usize]
    }

    proptest! {
        #[test]
        fn addresses_survive_the_round_trip(
            v4: [u8; 4], v6: [u8; 16], port: u16, flow: u32, scope: u32
        ) {
            let first = SocketAddr::from((v4, port));
            let second = SocketAddr::from(SocketAddrV6::new(v6.into(), port, flow, scope));
            prop_assert_eq!(RawAddress::EMPTY.read(), None);
            prop_assert_eq!(RawAddress::new(first).read(), Some(first));
            prop_assert_eq!(parse(bytes_of(&RawAddress::new(first))), Some(first));
            prop_assert_eq!(parse(bytes_of(&RawAddress::new(second))), Some(second));
        }

        #[test]
        fn any_bytes_are_read_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(address) = parse(&bytes) {
                let needed = if address.is_ipv4() { 8 } else { 28 };
                prop_assert!(bytes.len() >= needed);
            }
        }
    }
}
