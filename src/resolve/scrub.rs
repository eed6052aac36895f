//! Doubt: from an upstream's response, only what belongs to the question and its alias chain is kept.
//!
//! (The classic word for such tests is "in bailiwick"; RFC 9499 retires it.) Everything kept is written anew, so a
//! stored answer never holds an octet that was not understood.

use std::collections::{HashMap, HashSet};

use ahash::RandomState;

use super::exchange::Question;
use crate::config;
use crate::wire::answer::AnswerBuilder;
use crate::wire::rdata::{self, RdataError};
use crate::wire::response::{Record, Section};
use crate::wire::{AnswerBuf, Class, Name, NameBuf, Rcode, Response, ResponseError, Rtype};

/// Aliases followed within one answer. Unbound's default too; beyond it are loops and attacks.
const CNAME_CHAIN_MAX: usize = 11;

/// Records looked at in one response. The largest honest RRsets have a few hundred.
const RECORDS_MAX: usize = 1_024;

/// Why a response is of no use; another upstream may have a better one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unusable {
    /// It cannot be read.
    Malformed(ResponseError),
    /// It was cut: ask over TCP.
    Truncated,
    /// The server failed, refused, or did not understand.
    Rcode(Rcode),
    /// It answers another question, or none.
    OtherQuestion,
    /// It points elsewhere instead of answering: the server does not recurse.
    Referral,
    /// Its aliases form a loop or a chain that is too long.
    AliasChain,
    /// NXDOMAIN and data in one.
    Contradiction,
    /// A record's RDATA is broken, or there are too many records.
    Records,
}

impl From<RdataError> for Unusable {
    fn from(_: RdataError) -> Self {
        Self::Records
    }
}

/// Makes an answer of `message`, an upstream's response to `question`.
///
/// Positive answers keep the alias chain and the records asked for (and, with DO, their signatures and the denials
/// that prove a wildcard). Negative ones keep the SOA (and, with DO, the proofs) with the TTL that RFC 2308 §3 and §5
/// give; without a SOA they have no lifetime. TTLs are made equal within an RRset (RFC 2181 §5.2) and held between
/// the section's bounds.
///
/// # Errors
/// [`Unusable`].
pub fn scrub(
    message: &[u8],
    question: &Question<'_>,
    caps: &config::Cache,
) -> Result<AnswerBuf, Unusable> {
    let response = Response::parse(message).map_err(Unusable::Malformed)?;
    if response.header.flags.has(crate::wire::Flags::TC) {
        return Err(Unusable::Truncated);
    }
    let rcode = response.rcode();
    if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN {
        return Err(Unusable::Rcode(rcode));
    }
    let repeats_question = response.question.is_some_and(|repeated| {
        repeated.qname.is_same(question.qname)
            && (repeated.qtype, repeated.qclass) == (question.qtype, question.qclass)
    });
    if !repeats_question {
        return Err(Unusable::OtherQuestion);
    }
    if response.records.len() > RECORDS_MAX {
        return Err(Unusable::Records);
    }
    Scrubber::new(&response, question, caps)?.answer(rcode)
}

/// A record with its owner in lower case.
struct Owned<'a> {
    record: &'a Record,
    owner: NameBuf,
}

impl Owned<'_> {
    fn is_at(&self, name: &NameBuf) -> bool {
        self.owner.as_name().as_bytes() == name.as_name().as_bytes()
    }
}

struct Scrubber<'a> {
    response: &'a Response<'a>,
    question: &'a Question<'a>,
    caps: &'a config::Cache,
    /// Records of class IN in answer and authority section, in order.
    records: Vec<Owned<'a>>,
    /// The name asked for and the aliases after it, in lower case.
    chain: Vec<NameBuf>,
    /// Whether records of the type asked for stand at the chain's end.
    is_positive: bool,
}

impl<'a> Scrubber<'a> {
    fn new(
        response: &'a Response<'a>,
        question: &'a Question<'a>,
        caps: &'a config::Cache,
    ) -> Result<Self, Unusable> {
        let mut records = Vec::with_capacity(response.records.len());
        for record in &response.records {
            if record.class == Class::IN && record.section != Section::Additional {
                let mut owner = response.owner(record).map_err(|_| Unusable::Records)?;
                owner.make_lower();
                records.push(Owned { record, owner });
            }
        }
        let mut qname = NameBuf::new(question.qname);
        qname.make_lower();
        let chain = vec![qname];
        let mut scrubber = Self { response, question, caps, records, chain, is_positive: false };
        scrubber.follow_aliases()?;
        Ok(scrubber)
    }

    fn follow_aliases(&mut self) -> Result<(), Unusable> {
        while let Some(last) = self.chain.last() {
            let here =
                || self.answers().filter(|owned| owned.is_at(last)).map(|owned| owned.record);
            if here().any(|record| record.rtype == self.question.qtype) {
                self.is_positive = true;
                return Ok(());
            }
            let alias = here().find(|record| record.rtype == Rtype::CNAME);
            let Some(alias) = alias else { return Ok(()) };
            let mut target = self.response.target(alias).map_err(|_| Unusable::Records)?;
            target.make_lower();
            let is_loop = self.chain.iter().any(|seen| seen.as_name().is_same(target.as_name()));
            if is_loop || self.chain.len() > CNAME_CHAIN_MAX {
                return Err(Unusable::AliasChain);
            }
            self.chain.push(target);
        }
        Ok(())
    }

    fn answers(&self) -> impl Iterator<Item = &Owned<'a>> {
        self.records.iter().filter(|owned| owned.record.section == Section::Answer)
    }

    fn answer(&self, rcode: Rcode) -> Result<AnswerBuf, Unusable> {
        if self.is_positive && rcode == Rcode::NXDOMAIN {
            return Err(Unusable::Contradiction);
        }
        let soa = if self.is_positive { None } else { self.soa() };
        if !self.is_positive && soa.is_none() && self.is_referral() {
            return Err(Unusable::Referral);
        }
        let Question { qname, qtype, qclass, .. } = *self.question;
        let builder = AnswerBuilder::new(qname, qtype, qclass, rcode);
        let mut builder = builder.map_err(|_| Unusable::Records)?;
        let ttls = self.rrset_ttls();
        let negative_ttl = soa.map(|soa| self.negative_ttl(soa));
        let mut seen = HashSet::with_hasher(RandomState::new());
        for owned in &self.records {
            let Owned { record, owner } = owned;
            let keeps = match record.section {
                Section::Answer => self.belongs_to_chain(owned),
                Section::Authority => self.belongs_to_proof(owned, soa.is_some()),
                Section::Additional => false,
            };
            let name = owner.as_name().as_bytes();
            if !keeps || !seen.insert((name, record.rtype, self.response.rdata(record))) {
                continue;
            }
            let own = ttls.get(&set_key(self.response, owned)).copied().unwrap_or(record.ttl);
            let own = own.clamp(self.caps.ttl_min, self.caps.ttl_max);
            // Proofs must not outlive what they prove, nor the SOA its negative TTL (RFC 2308 §3, RFC 9077 §3).
            let ttl = match (record.section, negative_ttl) {
                (Section::Authority, Some(negative)) => own.min(negative),
                _ => own,
            };
            builder.copy(record.section, self.response, record, ttl)?;
        }
        let mut answer = builder.finish();
        if !self.is_positive && soa.is_none() {
            answer.lifetime = 0;
        }
        Ok(answer)
    }

    fn belongs_to_chain(&self, owned: &Owned<'_>) -> bool {
        let rtype = owned.record.rtype;
        let covered = self.covered(owned.record);
        let is_wanted = |rtype: Rtype| rtype == self.question.qtype || rtype == Rtype::CNAME;
        let is_signature = rtype == Rtype::RRSIG && self.question.wants_dnssec;
        if self.chain.iter().any(|name| owned.is_at(name)) {
            return is_wanted(rtype) || is_signature && covered.is_some_and(is_wanted);
        }
        // A DNAME stands above the name that it redirects (RFC 6672 §2.2).
        let is_dname = rtype == Rtype::DNAME || is_signature && covered == Some(Rtype::DNAME);
        let owner = owned.owner.as_name();
        is_dname && self.chain.iter().any(|name| name.as_name().is_within(owner))
    }

    fn belongs_to_proof(&self, owned: &Owned<'_>, is_negative: bool) -> bool {
        let rtype = owned.record.rtype;
        let is_soa = |rtype| is_negative && rtype == Rtype::SOA;
        let is_denial = |rtype| rtype == Rtype::NSEC || rtype == Rtype::NSEC3;
        let is_kept = if self.question.wants_dnssec {
            let proves = |rtype| is_soa(rtype) || is_denial(rtype);
            proves(rtype) || rtype == Rtype::RRSIG && self.covered(owned.record).is_some_and(proves)
        } else {
            is_soa(rtype)
        };
        is_kept && (!is_soa(rtype) || self.encloses_end(owned.owner.as_name()))
    }

    /// The type that a signature covers (RFC 4034 §3.1.1).
    fn covered(&self, record: &Record) -> Option<Rtype> {
        let field = self.response.rdata(record).first_chunk()?;
        (record.rtype == Rtype::RRSIG).then(|| Rtype(u16::from_be_bytes(*field)))
    }

    fn encloses_end(&self, zone: Name<'_>) -> bool {
        self.chain.last().is_some_and(|end| end.as_name().is_within(zone))
    }

    fn soa(&self) -> Option<&'a Record> {
        let authority =
            self.records.iter().filter(|owned| owned.record.section == Section::Authority);
        let mut soas = authority.filter(|owned| {
            owned.record.rtype == Rtype::SOA && self.encloses_end(owned.owner.as_name())
        });
        soas.next().map(|owned| owned.record)
    }

    /// An empty NOERROR with name servers instead of a SOA is a referral (RFC 2308 §2.2).
    fn is_referral(&self) -> bool {
        self.response.header.flags.rcode() == Rcode::NOERROR
            && self.answers().next().is_none()
            && self.records.iter().any(|owned| owned.record.rtype == Rtype::NS)
    }

    fn negative_ttl(&self, soa: &Record) -> u32 {
        let minimum = rdata::soa_minimum(self.response, soa).unwrap_or(0);
        soa.ttl.min(minimum).min(self.caps.negative_ttl_max)
    }

    /// The smallest TTL of each RRset.
    fn rrset_ttls(&self) -> HashMap<SetKey<'_>, u32, RandomState> {
        let mut ttls: HashMap<SetKey<'_>, u32, RandomState> = HashMap::default();
        for owned in &self.records {
            let ttl = ttls.entry(set_key(self.response, owned)).or_insert(u32::MAX);
            *ttl = (*ttl).min(owned.record.ttl);
        }
        ttls
    }
}

/// Section, owner, type, and for signatures the first octets, which say what they cover.
type SetKey<'a> = (Section, &'a [u8], Rtype, &'a [u8]);

fn set_key<'a>(response: &'a Response<'a>, owned: &'a Owned<'_>) -> SetKey<'a> {
    let record = owned.record;
    let covered_len = if record.rtype == Rtype::RRSIG { 2 } else { 0 };
    let covered = response.rdata(record).get(..covered_len).unwrap_or_default();
    (record.section, owned.owner.as_name().as_bytes(), record.rtype, covered)
}

#[cfg(test)]
mod tests;
