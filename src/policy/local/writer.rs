//! Writes the sections of one local answer: records, their negative proof, referrals, and the addresses beside them.

use std::collections::BTreeSet;

use super::records::RrSet;
use super::world::{At, Contents};
use crate::wire::answer::AnswerBuilder;
use crate::wire::encode::Full;
use crate::wire::response::Section;
use crate::wire::{AnswerBuf, Class, Flags, Name, Rcode, Rtype};

/// The types of addresses, in the order in which they are given.
const ADDRESSES: [Rtype; 2] = [Rtype::A, Rtype::AAAA];

/// Writes the answer for one owner.
pub(super) struct Writer<'n> {
    builder: AnswerBuilder,
    owner: Name<'n>,
    /// No pointers into the question: a wildcard's records are for the name that was asked, a referral is for all names
    /// below the cut.
    is_plain: bool,
    is_begun: bool,
}

impl<'n> Writer<'n> {
    /// Begins an authoritative answer for the folded `owner`.
    pub(super) fn new(owner: Name<'n>, rtype: Rtype, rcode: Rcode) -> Result<Self, Full> {
        let mut builder = AnswerBuilder::new(owner, rtype, Class::IN, rcode)?;
        builder.set_flags(Flags::AA);
        let is_plain = owner.as_bytes().starts_with(b"\x01*");
        Ok(Self { builder, owner, is_plain, is_begun: false })
    }

    /// Begins a referral for all names at and below `cut`.
    pub(super) fn referral(cut: Name<'n>) -> Result<Self, Full> {
        let builder = AnswerBuilder::new(cut, Rtype::NS, Class::IN, Rcode::NOERROR)?;
        Ok(Self { builder, owner: cut, is_plain: true, is_begun: true })
    }

    /// Appends one record. The first one's owner is the question's name, whatever that is, if it is the answer's.
    pub(super) fn write(
        &mut self,
        section: Section,
        owner: Name<'_>,
        rtype: Rtype,
        ttl: u32,
        rdata: &[u8],
    ) -> Result<(), Full> {
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        let is_owner = owner.as_bytes() == self.owner.as_bytes();
        if is_owner && section == Section::Answer && (is_first || self.is_plain) {
            return self.builder.write_for_question(rtype, Class::IN, ttl, rdata);
        }
        if self.is_plain {
            self.builder.write_plain(section, owner, rtype, ttl, rdata)
        } else {
            self.builder.write(section, owner, rtype, Class::IN, ttl, rdata)
        }
    }

    /// Appends the records of `set`.
    pub(super) fn add(
        &mut self,
        section: Section,
        owner: Name<'_>,
        rtype: Rtype,
        set: &RrSet,
    ) -> Result<(), Full> {
        set.rdata.iter().try_for_each(|rdata| self.write(section, owner, rtype, set.ttl, rdata))
    }

    /// Appends the SOA record that negative answers have, with the TTL that they have (RFC 2308 §3, §5).
    pub(super) fn add_soa(&mut self, zone: Option<&Contents>) -> Result<(), Full> {
        let soa = zone.and_then(|zone| Some((zone, zone.soa()?)));
        let Some((zone, soa)) = soa else { return Ok(()) };
        let Some(rdata) = soa.rdata.first() else { return Ok(()) };
        let minimum = rdata.last_chunk().map_or(0, |field| u32::from_be_bytes(*field));
        let ttl = soa.ttl.min(minimum);
        let apex = zone.apex.as_name();
        self.builder.write_plain(Section::Authority, apex, Rtype::SOA, ttl, rdata)
    }

    /// Appends the addresses of those whom `set` names, as far as they are names of the zone with data of their own
    /// (RFC 1034 §4.3.2, RFC 2782).
    pub(super) fn add_additional(
        &mut self,
        rtype: Rtype,
        set: &RrSet,
        zone: Option<&Contents>,
    ) -> Result<(), Full> {
        let Some(zone) = zone else { return Ok(()) };
        for target in targets(rtype, set) {
            let Ok(target) = Name::parse(&target) else { continue };
            if !target.is_within(zone.apex.as_name()) {
                continue;
            }
            let sets = match zone.at(target) {
                At::Exists(sets, _) => sets,
                // Glue: hosts may live below a cut.
                At::Cut(..) => zone.sets(target),
                _ => None,
            };
            for kind in ADDRESSES {
                if let Some(set) = sets.and_then(|sets| sets.get(&kind)) {
                    self.add(Section::Additional, target, kind, set)?;
                }
            }
        }
        Ok(())
    }

    /// Appends the delegation at `cut`: NS, DS if wanted, and glue. Without the glue of servers within the child
    /// nobody could go on, so it is not left out but cut with TC (RFC 9471 §3.1).
    pub(super) fn add_referral(
        &mut self,
        zone: &Contents,
        cut: Name<'_>,
        with_ds: bool,
    ) -> Result<(), Full> {
        let Some(sets) = zone.sets(cut) else { return Ok(()) };
        for rtype in [Rtype::NS, Rtype::DS].into_iter().take(1 + usize::from(with_ds)) {
            if let Some(set) = sets.get(&rtype) {
                self.add(Section::Authority, cut, rtype, set)?;
            }
        }
        let Some(servers) = sets.get(&Rtype::NS) else { return Ok(()) };
        self.add_additional(Rtype::NS, servers, Some(zone))?;
        let targets = targets(Rtype::NS, servers);
        let mut targets = targets.iter().filter_map(|target| Name::parse(target).ok());
        let has_addresses = |target: Name<'_>| {
            let sets = zone.sets(target);
            sets.is_some_and(|sets| ADDRESSES.iter().any(|kind| sets.contains_key(kind)))
        };
        if targets.any(|target| target.is_within(cut) && has_addresses(target)) {
            self.builder.require_all();
        }
        Ok(())
    }

    pub(super) fn finish(self) -> AnswerBuf {
        self.builder.finish()
    }
}

/// The folded names of hosts in `set`, each once.
fn targets(rtype: Rtype, set: &RrSet) -> BTreeSet<Vec<u8>> {
    let lead = match rtype {
        Rtype::NS => 0,
        Rtype::MX => 2,
        Rtype::SRV => 6,
        _ => return BTreeSet::new(),
    };
    let names = set.rdata.iter().filter_map(|rdata| rdata.get(lead..));
    names.map(<[u8]>::to_ascii_lowercase).collect()
}
