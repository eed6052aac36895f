//! Single names that the operator has mean something else.

use std::collections::HashMap;
use std::net::IpAddr;

use ahash::RandomState;

use super::LocalError;
use super::apexes::{Apexes, key_of};
use super::records::{Sets, folded};
use crate::config::{self, RewriteTarget};
use crate::wire::{Name, NameBuf, Rtype};

/// What an error calls a `[[rewrite]]` table.
pub(super) const WHAT: &str = "rewrite";

/// All rewritten names, by their folded wire form.
#[derive(Debug, Default)]
pub(super) struct Rewrites {
    /// Those that are named.
    pub(super) single: HashMap<Box<[u8]>, Sets, RandomState>,
    /// Those below which all names are meant.
    pub(super) below: HashMap<Box<[u8]>, Sets, RandomState>,
}

/// Reads `sections`. `local` are the apexes of local zones.
///
/// # Errors
/// [`LocalError`] for the first that is no name, stands twice, belongs to a local zone or leads to itself.
pub(super) fn read(sections: &[config::Rewrite], local: &Apexes) -> Result<Rewrites, LocalError> {
    let mut rewrites = Rewrites::default();
    for section in sections {
        let fail = |problem: &str| LocalError {
            what: WHAT,
            place: section.place.clone(),
            zone: section.name.clone(),
            problem: problem.to_owned(),
        };
        let name = NameBuf::from_text(&section.name).map_err(|_| {
            fail("is not a domain name such as \"nas.example\" or \"*.apps.example\"")
        })?;
        let name = name.as_name();
        let is_below = name.as_bytes().starts_with(b"\x01*");
        let owner = if is_below { name.parent().unwrap_or(name) } else { name };
        if owner.is_root() || owner.labels().any(|label| label == b"*") {
            return Err(fail("is neither a name nor \"*.\" before one"));
        }
        let key = key_of(owner);
        if Name::parse(&key)
            .is_ok_and(|key| key.suffixes().any(|part| local.contains(part.as_bytes())))
        {
            return Err(fail("lies in a [[local]] zone: write its records there"));
        }
        let sets = sets(section, name).ok_or_else(|| fail("leads to itself"))?;
        let table = if is_below { &mut rewrites.below } else { &mut rewrites.single };
        if table.insert(key, sets).is_some() {
            return Err(fail("is rewritten twice: join the two"));
        }
    }
    Ok(rewrites)
}

/// What `section` has for `name`; `None` when that is `name`.
fn sets(section: &config::Rewrite, name: Name<'_>) -> Option<Sets> {
    let mut sets = Sets::new();
    let mut add = |rtype, rdata| {
        let set = sets.entry(rtype).or_default();
        set.ttl = section.ttl;
        set.rdata.insert(rdata);
    };
    match &section.to {
        RewriteTarget::Addresses(addresses) => {
            for address in addresses {
                match address {
                    IpAddr::V4(address) => add(Rtype::A, address.octets().to_vec()),
                    IpAddr::V6(address) => add(Rtype::AAAA, address.octets().to_vec()),
                }
            }
        }
        RewriteTarget::Name(target) => {
            if target.as_name().is_same(name) {
                return None;
            }
            add(Rtype::CNAME, folded(target.as_name()));
        }
    }
    Some(sets)
}
