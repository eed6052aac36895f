//! What the operator says of names, as it was read: who has a name, and what is there (RFC 1034 §4.3.2). Ready answers are
//! made from this; at work it is asked only for names below a DNAME.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ahash::RandomState;

use super::Apexes;
use super::hosts::Hosts;
use super::records::{Records, RrSet, Sets, folded};
use super::special::Kind;
use crate::wire::name::NAME_BYTES_MAX;
use crate::wire::{Name, NameBuf, Rtype};

/// A zone as it was read.
#[derive(Debug)]
pub(super) struct Contents {
    /// In lower case.
    pub(super) apex: NameBuf,
    pub(super) kind: Kind,
    pub(super) records: Records,
    /// All folded names that exist, empty non-terminals (RFC 4592 §2.2.2) and zone cuts included, but nothing below those.
    pub(super) names: BTreeSet<Vec<u8>>,
}

/// All zones and single names.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) zones: HashMap<Box<[u8]>, Contents, RandomState>,
    /// Apexes of forward zones within special names.
    pub(super) upstreams: Apexes,
    /// Rewritten names.
    pub(super) single: HashMap<Box<[u8]>, Sets, RandomState>,
    /// What all names below these are rewritten to.
    pub(super) below: HashMap<Box<[u8]>, Sets, RandomState>,
    pub(super) hosts: Arc<Hosts>,
}

/// What there is at a name.
#[derive(Debug)]
pub(super) enum At<'a> {
    /// Records, none at an empty non-terminal.
    Exists(Option<&'a Sets>, &'a Contents),
    /// Records of a name of its own, which belongs to no zone.
    Listed(Cow<'a, Sets>),
    /// Nothing; the zone would know.
    Missing(&'a Contents),
    /// A zone cut, at or above the name.
    Cut(&'a Contents, Name<'a>),
    /// A DNAME above the name.
    Dname(Name<'a>, &'a RrSet),
    /// Nothing of the operator's.
    Outside,
}

impl World {
    pub(super) fn insert(&mut self, contents: Contents) {
        self.zones.insert(contents.apex.as_name().as_bytes().into(), contents);
    }

    pub(super) fn leave_to_upstreams(&mut self, apex: Name<'_>) {
        self.upstreams.insert(folded(apex).into());
    }

    pub(super) fn zones(&self) -> impl Iterator<Item = &Contents> {
        self.zones.values()
    }

    /// Whether names below a DNAME may be asked for.
    pub(super) fn has_dnames(&self) -> bool {
        let mut owners = self.zones.values().flat_map(|zone| zone.records.values());
        owners.any(|sets| sets.contains_key(&Rtype::DNAME))
    }

    /// What there is at the folded `name`.
    pub(super) fn at(&self, name: Name<'_>) -> At<'_> {
        if let Some(sets) = self.single.get(name.as_bytes()) {
            return At::Listed(Cow::Borrowed(sets));
        }
        if let Some(sets) = self.hosts.sets(name) {
            return At::Listed(Cow::Owned(sets));
        }
        for (above, part) in name.suffixes().enumerate() {
            let key = part.as_bytes();
            if let Some(sets) = self.below.get(key).filter(|_| above > 0) {
                return At::Listed(Cow::Borrowed(sets));
            }
            if self.upstreams.contains(key) {
                return At::Outside;
            }
            if let Some(zone) = self.zones.get(key) {
                return zone.at(name);
            }
        }
        At::Outside
    }
}

impl Contents {
    pub(super) fn new(apex: Name<'_>, kind: Kind, records: Records) -> Self {
        let mut apex = NameBuf::new(apex);
        apex.make_lower();
        let mut contents = Self { apex, kind, records, names: BTreeSet::new() };
        let mut names = BTreeSet::new();
        for owner in contents.records.keys() {
            let Ok(name) = Name::parse(owner) else { continue };
            let cut = contents.cut(name).unwrap_or(name);
            names.extend(contents.within(cut).map(|part| part.as_bytes().to_vec()));
        }
        contents.names = names;
        contents
    }

    /// The zone's SOA record.
    pub(super) fn soa(&self) -> Option<&RrSet> {
        self.sets(self.apex.as_name()).and_then(|sets| sets.get(&Rtype::SOA))
    }

    pub(super) fn sets(&self, name: Name<'_>) -> Option<&Sets> {
        self.records.get(name.as_bytes())
    }

    /// Whether the folded `name` is delegated here.
    pub(super) fn is_cut(&self, name: Name<'_>) -> bool {
        let is_apex = name.as_bytes() == self.apex.as_name().as_bytes();
        !is_apex && self.sets(name).is_some_and(|sets| sets.contains_key(&Rtype::NS))
    }

    /// The folded `name` and those above it, up to the apex.
    fn within<'n>(&self, name: Name<'n>) -> impl Iterator<Item = Name<'n>> + use<'n> {
        let apex_len = self.apex.as_name().as_bytes().len();
        name.suffixes().take_while(move |part| part.as_bytes().len() >= apex_len)
    }

    /// The highest zone cut at or above the folded `name`.
    pub(super) fn cut<'n>(&self, name: Name<'n>) -> Option<Name<'n>> {
        self.within(name).filter(|part| self.is_cut(*part)).last()
    }

    /// What there is at the folded `name`, which is within this zone.
    pub(super) fn at(&self, name: Name<'_>) -> At<'_> {
        if self.kind == Kind::Denied {
            return At::Missing(self);
        }
        let mut suffixes = self.within(name);
        let Some(encloser) = suffixes.find_map(|part| self.names.get(part.as_bytes())) else {
            return At::Missing(self);
        };
        let Ok(encloser) = Name::parse(encloser) else { return At::Missing(self) };
        if self.is_cut(encloser) {
            return At::Cut(self, encloser);
        }
        let sets = self.sets(encloser);
        if encloser.as_bytes().len() == name.as_bytes().len() {
            return At::Exists(sets, self);
        }
        if let Some(dname) = sets.and_then(|sets| sets.get(&Rtype::DNAME)) {
            return At::Dname(encloser, dname);
        }
        // The closest encloser's wildcard, or nothing (RFC 4592 §3.3.1).
        let wildcard = [b"\x01*", encloser.as_bytes()].concat();
        if self.names.contains(&wildcard) {
            At::Exists(self.records.get(&wildcard), self)
        } else {
            At::Missing(self)
        }
    }
}

/// Where a DNAME at `owner` with `target` leads the folded `name` below it (RFC 6672 §2.2); `None` when that is no name
/// any more.
pub(super) fn substitute(name: Name<'_>, owner: Name<'_>, target: &[u8]) -> Option<Vec<u8>> {
    let prefix_len = name.as_bytes().len().checked_sub(owner.as_bytes().len())?;
    let substituted = [&name.as_bytes()[..prefix_len], target].concat();
    (substituted.len() <= NAME_BYTES_MAX).then_some(substituted)
}
