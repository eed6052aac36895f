//! Hot path. The parts of rules that few rules have: sets of types and of clients, and records, as octets of an image.
//!
//! ```text
//! types    only 1 · except 1 · type 2 each
//! clients  only 1 · except 1 · for each: 4, 6 or 0 · octets 1 · address and bits of its prefix, or name
//! record   type 2 · TTL 4 · octets 2 · data
//! names    names 1 · for each: octets 1 · wire form
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::rule::{Client, ClientSet, LocalRecord, TypeSet};
use crate::wire::{NameBuf, Rtype};

const NAMED: u8 = 0;
const AT_V4: u8 = 4;
const AT_V6: u8 = 6;

/// A cursor over octets that were checked when the image was opened; what is missing ends it.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn octet(&mut self) -> Option<u8> {
        let (&octet, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(octet)
    }

    fn pair(&mut self) -> Option<u16> {
        let (pair, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_le_bytes(*pair))
    }

    fn octets(&mut self, len: usize) -> Option<&'a [u8]> {
        let (octets, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(octets)
    }
}

/// Writes a set of types; `None` when it has too many.
pub(super) fn write_types(types: &TypeSet, out: &mut Vec<u8>) -> Option<()> {
    out.push(u8::try_from(types.only.len()).ok()?);
    out.push(u8::try_from(types.except.len()).ok()?);
    out.extend(types.only.iter().chain(&types.except).flat_map(|rtype| rtype.0.to_le_bytes()));
    Some(())
}

/// Whether the set of types at the front of `bytes` has `qtype` in it; `None` when there is none.
pub(super) fn has_type(bytes: &[u8], qtype: Rtype) -> Option<bool> {
    let mut cursor = Cursor(bytes);
    let (only, except) = (cursor.octet()?, cursor.octet()?);
    let mut is_named = only == 0;
    for _ in 0..only {
        is_named |= cursor.pair()? == qtype.0;
    }
    for _ in 0..except {
        is_named &= cursor.pair()? != qtype.0;
    }
    Some(is_named)
}

/// Writes a set of clients; `None` when it has too many, or too long a name.
pub(super) fn write_clients(clients: &ClientSet, out: &mut Vec<u8>) -> Option<()> {
    out.push(u8::try_from(clients.only.len()).ok()?);
    out.push(u8::try_from(clients.except.len()).ok()?);
    for client in clients.only.iter().chain(&clients.except) {
        match client {
            Client::At(IpNet::V4(net)) => {
                out.extend([AT_V4, 5]);
                out.extend(net.network().octets());
                out.push(net.prefix_len());
            }
            Client::At(IpNet::V6(net)) => {
                out.extend([AT_V6, 17]);
                out.extend(net.network().octets());
                out.push(net.prefix_len());
            }
            Client::Named(name) => {
                out.extend([NAMED, u8::try_from(name.len()).ok()?]);
                out.extend(name.as_bytes());
            }
        }
    }
    Some(())
}

/// Whether the set of clients at the front of `bytes` has the one at `address`, called `name`, in it; `None` when there is
/// no set.
pub(super) fn has_client(bytes: &[u8], address: IpAddr, name: Option<&str>) -> Option<bool> {
    let mut cursor = Cursor(bytes);
    let (only, except) = (cursor.octet()?, cursor.octet()?);
    let mut is_named = only == 0;
    for _ in 0..only {
        is_named |= is_client(&mut cursor, address, name)?;
    }
    for _ in 0..except {
        is_named &= !is_client(&mut cursor, address, name)?;
    }
    Some(is_named)
}

fn is_client(cursor: &mut Cursor<'_>, address: IpAddr, name: Option<&str>) -> Option<bool> {
    let (kind, len) = (cursor.octet()?, cursor.octet()?);
    let octets = cursor.octets(len.into())?;
    let net = match (kind, octets) {
        (NAMED, octets) => return Some(name.is_some_and(|name| name.as_bytes() == octets)),
        (AT_V4, [address @ .., bits]) => {
            let address = <[u8; 4]>::try_from(address).ok()?;
            IpNet::new(Ipv4Addr::from(address).into(), *bits).ok()?
        }
        (AT_V6, [address @ .., bits]) => {
            let address = <[u8; 16]>::try_from(address).ok()?;
            IpNet::new(Ipv6Addr::from(address).into(), *bits).ok()?
        }
        _ => return None,
    };
    Some(net.contains(&address.to_canonical()))
}

/// Writes a record; `None` when its data is too long.
pub(super) fn write_record(record: &LocalRecord<'_>, out: &mut Vec<u8>) -> Option<()> {
    out.extend(record.rtype.0.to_le_bytes());
    out.extend(record.ttl.to_le_bytes());
    out.extend(u16::try_from(record.rdata.len()).ok()?.to_le_bytes());
    out.extend(record.rdata);
    Some(())
}

/// The record at the front of `bytes`; `None` when there is none.
pub(super) fn read_record(bytes: &[u8]) -> Option<LocalRecord<'_>> {
    let mut cursor = Cursor(bytes);
    let rtype = Rtype(cursor.pair()?);
    let ttl = u32::from(cursor.pair()?) | u32::from(cursor.pair()?) << 16;
    let len = cursor.pair()?;
    Some(LocalRecord { rtype, ttl, rdata: cursor.octets(len.into())? })
}

/// Writes a set of names; `None` when it has too many.
pub(super) fn write_names(names: &[NameBuf], out: &mut Vec<u8>) -> Option<()> {
    out.push(u8::try_from(names.len()).ok()?);
    for name in names {
        let wire = name.as_name().as_bytes();
        out.push(u8::try_from(wire.len()).ok()?);
        out.extend(wire.iter().map(u8::to_ascii_lowercase));
    }
    Some(())
}

/// Whether `folded` or a name above it is in the set of names at the front of `bytes`; `None` when there is no set.
pub(super) fn has_name(bytes: &[u8], folded: &[u8]) -> Option<bool> {
    let mut cursor = Cursor(bytes);
    let mut is_named = false;
    for _ in 0..cursor.octet()? {
        let len = cursor.octet()?;
        let wanted = cursor.octets(len.into())?;
        let mut rest = folded;
        while rest.len() > wanted.len() {
            let (&len, behind) = rest.split_first()?;
            rest = behind.get(usize::from(len)..).unwrap_or_default();
        }
        is_named |= rest == wanted;
    }
    Some(is_named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_named_but_for_those_excepted() {
        let has = |only: &[Rtype], except: &[Rtype], qtype| {
            let mut bytes = Vec::new();
            write_types(&TypeSet { only: only.into(), except: except.into() }, &mut bytes).unwrap();
            has_type(&bytes, qtype).unwrap()
        };
        assert!(has(&[Rtype::A, Rtype::AAAA], &[], Rtype::AAAA));
        assert!(!has(&[Rtype::A, Rtype::AAAA], &[], Rtype::MX));
        assert!(has(&[], &[Rtype::A], Rtype::MX) && !has(&[], &[Rtype::A], Rtype::A));
        assert!(has(&[], &[], Rtype::A));
    }

    #[test]
    fn clients_are_known_by_address_or_name() {
        let at = |text: &str| Client::At(text.parse().unwrap());
        let set = ClientSet {
            only: vec![at("192.0.2.0/24"), at("2001:db8::/32"), Client::Named("tv".into())],
            except: vec![at("192.0.2.9/32")],
        };
        let mut bytes = Vec::new();
        write_clients(&set, &mut bytes).unwrap();
        let has = |address: &str, name| has_client(&bytes, address.parse().unwrap(), name).unwrap();
        assert!(
            has("192.0.2.1", None) && has("::ffff:192.0.2.1", None) && has("2001:db8::1", None)
        );
        assert!(!has("192.0.2.9", None) && !has("192.0.2.9", Some("tv")));
        assert!(has("10.0.0.1", Some("tv")) && !has("10.0.0.1", Some("t")) && !has("::1", None));
        for len in 0..bytes.len() {
            assert_eq!(has_client(&bytes[..len], IpAddr::from([10, 0, 0, 1]), None), None);
        }
    }

    #[test]
    fn names_are_those_named_and_all_below() {
        let named = |text: &str| NameBuf::from_text(text).unwrap();
        let mut bytes = Vec::new();
        write_names(&[named("a.Example"), named("b.c.example")], &mut bytes).unwrap();
        let has = |text| has_name(&bytes, named(text).as_name().as_bytes()).unwrap();
        assert!(has("a.example") && has("x.y.a.example") && has("b.c.example"));
        assert!(!has("example") && !has("xa.example") && !has("c.example") && !has(""));
        assert_eq!(has_name(&bytes, b""), Some(false));
        for len in 0..bytes.len() {
            assert_eq!(has_name(&bytes[..len], b"\0"), None);
        }
    }
}
