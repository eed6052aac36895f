//! Addresses and names within the data of records, as far as policy looks at them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::Name;

/// Parameters of SVCB and HTTPS records that hold addresses (RFC 9460 §14.3.2).
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;

/// The address that is the data of an A or AAAA record.
pub(super) fn address(rdata: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(rdata).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(rdata).ok().map(IpAddr::from))
}

/// The name that an SVCB or HTTPS record leads to; `None` where that is its owner (RFC 9460 §2.5.2), or cannot be read.
pub(super) fn service_target(rdata: &[u8]) -> Option<Name<'_>> {
    // No names are compressed in this type (RFC 9460 §2.2).
    Name::parse(rdata.get(2..)?).ok().filter(|target| !target.is_root())
}

/// The addresses in the parameters of an SVCB or HTTPS record (RFC 9460 §2.2), as far as they can be read.
pub(super) fn hints(rdata: &[u8]) -> impl Iterator<Item = IpAddr> {
    let behind_name = |octets| {
        let name = Name::parse(octets).ok()?;
        octets.get(name.as_bytes().len()..)
    };
    let mut rest = rdata.get(2..).and_then(behind_name).unwrap_or_default();
    let parameters = std::iter::from_fn(move || {
        let (key, behind) = rest.split_first_chunk::<2>()?;
        let (len, behind) = behind.split_first_chunk::<2>()?;
        let (value, behind) = behind.split_at_checked(u16::from_be_bytes(*len).into())?;
        rest = behind;
        Some((u16::from_be_bytes(*key), value))
    });
    parameters.flat_map(|(key, value)| {
        let v4s = if key == IPV4_HINT { value.as_chunks::<4>().0 } else { &[] };
        let v6s = if key == IPV6_HINT { value.as_chunks::<16>().0 } else { &[] };
        let v4s = v4s.iter().map(|octets| IpAddr::V4(Ipv4Addr::from(*octets)));
        v4s.chain(v6s.iter().map(|octets| IpAddr::V6(Ipv6Addr::from(*octets))))
    })
}
