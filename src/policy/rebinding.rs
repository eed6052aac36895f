//! What upstreams may say of the world's names: not that they live at addresses of this site. Such an answer lets a web
//! page reach, by a name of its own, what only the site may reach (DNS rebinding).
//!
//! Asked once of each answer, before it is stored; what is stored has been asked.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ahash::RandomState;

use super::outcome::soa;
use super::parts;
use crate::config;
use crate::wire::answer::AnswerBuilder;
use crate::wire::encode::Full;
use crate::wire::response::Section;
use crate::wire::{AnswerBuf, Class, Ede, Flags, Name, Rcode, Rtype};

/// What clients are told beside the empty answer.
pub const WITHHELD: Ede = Ede::BLOCKED.with_text("private address for a public name");

/// How long an answer stays withheld, in seconds: who mends his records or our config does not wait for long.
const WITHHELD_TTL: u32 = 60;

/// Who may have which addresses.
#[derive(Clone, Debug, Default)]
pub struct Rebinding {
    is_on: bool,
    /// Folded wire forms of the zones whose names may have any address.
    exempt: HashSet<Box<[u8]>, RandomState>,
}

impl Rebinding {
    /// Compiles the section. Zones of `forward` with upstreams of their own are exempt: the operator knows them.
    #[must_use]
    pub fn new(section: &config::Rebinding, forward: &config::Forward) -> Self {
        let own = forward.zones.iter().flat_map(|zone| &zone.apexes);
        let exempt = section.allow.iter().chain(own);
        let exempt = exempt.map(|apex| apex.as_name().as_bytes().into()).collect();
        Self { is_on: section.protect, exempt }
    }

    /// What is to be stored and told instead of `answer`, which an upstream gave for `qtype` at `qname` (in lower case):
    /// NODATA, if it holds an address that a public name must not have.
    #[must_use]
    pub fn replacement(
        &self,
        qname: Name<'_>,
        qtype: Rtype,
        answer: &AnswerBuf,
    ) -> Option<AnswerBuf> {
        let is_suspect =
            self.is_on && answer.answers().any(|(rtype, rdata)| is_private(rtype, rdata));
        if !is_suspect || qname.suffixes().any(|part| self.exempt.contains(part.as_bytes())) {
            return None;
        }
        // The message is new and the name fits: there is room.
        withheld(qname, qtype).ok()
    }
}

/// NODATA. AA tells it from all that upstreams say: what we keep of their answers never has it.
fn withheld(qname: Name<'_>, qtype: Rtype) -> Result<AnswerBuf, Full> {
    let mut builder = AnswerBuilder::new(qname, qtype, Class::IN, Rcode::NOERROR)?;
    builder.set_flags(Flags::AA);
    builder.write(
        Section::Authority,
        qname,
        Rtype::SOA,
        Class::IN,
        WITHHELD_TTL,
        &soa(WITHHELD_TTL),
    )?;
    Ok(builder.finish())
}

/// Whether only this site or this machine has `address`.
#[must_use]
pub fn is_private_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

/// Whether a record leads to an address that only this site or this machine has.
fn is_private(rtype: Rtype, rdata: &[u8]) -> bool {
    match rtype {
        Rtype::A | Rtype::AAAA => parts::address(rdata).is_some_and(is_private_address),
        Rtype::SVCB | Rtype::HTTPS => parts::hints(rdata).any(is_private_address),
        _ => false,
    }
}

/// This network, private, shared, loopback and link-local addresses (RFC 6890 §2.2.2, RFC 6598 §7).
fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_shared = first == 100 && second & 0b1100_0000 == 64;
    first == 0
        || is_shared
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
}

/// Unspecified, loopback, unique local, link-local and site-local addresses, and IPv4 ones in IPv6 clothing: mapped,
/// compatible (RFC 4291 §2.5.5), translated (RFC 6052 §2.1) and 6to4 (RFC 3056 §2). Addresses behind a translator of this
/// site are its own (RFC 8215 §3).
fn is_private_v6(address: Ipv6Addr) -> bool {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = address.segments();
    let embedded = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high, low].map(u16::to_be_bytes);
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match [s0, s1, s2, s3, s4, s5] {
        // Unspecified and loopback are 0.0.0.0 and 0.0.0.1 here.
        [0, 0, 0, 0, 0, 0 | 0xFFFF] | [0x64, 0xFF9B, 0, 0, 0, 0] => embedded(s6, s7),
        [0x64, 0xFF9B, 1, ..] => true,
        [0x2002, high, low, ..] => embedded(high, low),
        [first, ..] => {
            let is_site_local = first & 0xFFC0 == 0xFEC0;
            IpAddr::V6(address).is_loopback()
                || is_site_local
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests;
