//! From an upstream's response to the answer that we keep and pass on: only what belongs to the question, with TTLs that
//! make sense. Everything else in the message is dropped, so nobody can plant what nobody asked for.

use super::chain::{Chain, Kept, covered};
use super::exchange::Question;
use crate::config;
use crate::wire::answer::AnswerBuilder;
use crate::wire::encode::Full;
use crate::wire::rdata::{RdataError, soa_minimum};
use crate::wire::response::Section;
use crate::wire::{
    AnswerBuf, Class, Flags, Header, Name, NameBuf, Rcode, Record, Response, ResponseError, Rtype,
};

/// NSEC, NSEC3, their signatures and SOA in one authority section. A proof needs eight; Unbound and BIND had to learn
/// that padded ones are an attack.
const PROOF_RECORDS_MAX: usize = 64;

/// Octets of an RRSIG's RDATA before the signer's name (RFC 4034 §3.1).
const SIGNER_OFFSET: usize = 18;

/// Why a response is of no use; another upstream may have a better one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unusable {
    /// It cannot be read.
    Malformed(ResponseError),
    /// It was cut: ask over TCP.
    Truncated,
    /// The server failed, refused, or did not understand.
    Rcode(Rcode),
    /// FORMERR or NOTIMP without an OPT record: the server may be older than EDNS (RFC 6891 §6.2.2, §7).
    Edns,
    /// It answers another question, or none.
    OtherQuestion,
    /// It points elsewhere instead of answering: the server does not recurse.
    Referral,
    /// Its aliases form a loop or a chain that is too long.
    AliasChain,
    /// NXDOMAIN and data in one, or a CNAME that its DNAME belies.
    Contradiction,
    /// A record is broken, or there are too many.
    Records,
}

impl From<RdataError> for Unusable {
    fn from(_: RdataError) -> Self {
        Self::Records
    }
}

impl From<Full> for Unusable {
    fn from(_: Full) -> Self {
        Self::Records
    }
}

/// Makes an answer of `message`, an upstream's response to `question`.
///
/// Kept are the chain of aliases from the question's name, in the order in which it leads on, and the records of the
/// asked type at its end; of negative answers the SOA; for those who want DNSSEC signatures and signed proofs. TTLs
/// of one RRset are made equal (RFC 2181 §5.2) and held between the section's bounds. A negative answer lives as long
/// as its SOA says (RFC 2308 §5), without one not at all.
///
/// # Errors
/// [`Unusable`].
pub fn scrub(
    message: &[u8],
    question: &Question<'_>,
    caps: &config::Cache,
) -> Result<AnswerBuf, Unusable> {
    let header = Header::read(message).ok_or(Unusable::Malformed(ResponseError::Short))?;
    // First of all: what was cut in the middle of a record cannot be parsed, but can be asked for again.
    if header.flags.has(Flags::TC) {
        return Err(Unusable::Truncated);
    }
    let response = Response::parse(message).map_err(Unusable::Malformed)?;
    match response.rcode() {
        Rcode::NOERROR | Rcode::NXDOMAIN => scrub_answer(&response, question, caps),
        Rcode::FORMERR | Rcode::NOTIMP if response.edns.is_none() => Err(Unusable::Edns),
        rcode => Err(Unusable::Rcode(rcode)),
    }
}

fn scrub_answer(
    response: &Response<'_>,
    question: &Question<'_>,
    caps: &config::Cache,
) -> Result<AnswerBuf, Unusable> {
    check_question(question, response)?;
    let rcode = response.rcode();
    let chain = Chain::follow(question, response)?;
    if chain.is_answered && rcode == Rcode::NXDOMAIN {
        return Err(Unusable::Contradiction);
    }
    let authority = Authority::pick(&chain, response, question.wants_dnssec)?;
    if chain.kept.is_empty() && rcode == Rcode::NOERROR && authority.is_referral(response) {
        return Err(Unusable::Referral);
    }
    let mut builder = AnswerBuilder::new(question.qname, question.qtype, question.qclass, rcode)?;
    // AD stays behind: we have not validated, and the upstream's word came over an open path (RFC 4035 §4.9.3).
    for kept in &chain.kept {
        write_kept(&mut builder, response, &chain, kept, clamp(chain.ttl(kept), caps))?;
    }
    authority.write(&mut builder, response, caps)?;
    let mut answer = builder.finish();
    if !chain.is_answered && authority.soa.is_none() {
        answer.lifetime = 0;
    }
    Ok(answer)
}

/// `ttl_max` wins where the two contradict.
fn clamp(ttl: u32, caps: &config::Cache) -> u32 {
    ttl.max(caps.ttl_min).min(caps.ttl_max)
}

fn check_question(question: &Question<'_>, response: &Response<'_>) -> Result<(), Unusable> {
    let repeated = response.question.ok_or(Unusable::OtherQuestion)?;
    let is_same = repeated.qtype == question.qtype
        && repeated.qclass == question.qclass
        && repeated.qname.is_same(question.qname);
    if is_same { Ok(()) } else { Err(Unusable::OtherQuestion) }
}

fn write_kept(
    builder: &mut AnswerBuilder,
    response: &Response<'_>,
    chain: &Chain,
    kept: &Kept,
    ttl: u32,
) -> Result<(), Unusable> {
    if !kept.is_implied {
        return Ok(builder.copy(Section::Answer, response, &kept.record, ttl)?);
    }
    // Who does not know DNAME needs the CNAME (RFC 6672 §3.1); an alias always has a target behind it.
    let [alias, target] = [kept.link, kept.link + 1].map(|link| chain.links.get(link));
    let (alias, target) = alias.zip(target).ok_or(Unusable::Records)?;
    let rdata = target.as_name().as_bytes();
    let owner = alias.as_name();
    Ok(builder.write(Section::Answer, owner, Rtype::CNAME, Class::IN, ttl, rdata)?)
}

/// What is kept of the authority section.
struct Authority {
    /// Of a negative answer.
    soa: Option<Record>,
    /// What the SOA says about the lifetime of the answer (RFC 2308 §4), before our own limits.
    negative_ttl: u32,
    /// Signed NSEC and NSEC3 records and the signatures of all that is kept.
    proofs: Vec<Record>,
}

impl Authority {
    fn pick(chain: &Chain, response: &Response<'_>, wants_dnssec: bool) -> Result<Self, Unusable> {
        let soa = if chain.is_answered { None } else { find_soa(chain.end(), response)? };
        let proofs = if wants_dnssec { proofs(chain, response, soa.as_ref())? } else { Vec::new() };
        let Some((soa, _)) = soa else {
            return Ok(Self { soa: None, negative_ttl: u32::MAX, proofs });
        };
        let minimum = soa_minimum(response, &soa).ok_or(Unusable::Records)?;
        Ok(Self { soa: Some(soa), negative_ttl: soa.ttl.min(minimum), proofs })
    }

    fn is_referral(&self, response: &Response<'_>) -> bool {
        let mut authority = response.section(Section::Authority);
        self.soa.is_none() && authority.any(|record| record.rtype == Rtype::NS)
    }

    fn write(
        &self,
        builder: &mut AnswerBuilder,
        response: &Response<'_>,
        caps: &config::Cache,
    ) -> Result<(), Unusable> {
        let negative_ttl = self.negative_ttl.min(caps.negative_ttl_max);
        if let Some(soa) = &self.soa {
            builder.copy(Section::Authority, response, soa, negative_ttl)?;
        }
        for record in &self.proofs {
            // A proof must not outlive the answer that it proves (RFC 9077 §3).
            let ttl = if self.soa.is_some() { negative_ttl } else { clamp(record.ttl, caps) };
            builder.copy(Section::Authority, response, record, ttl)?;
        }
        Ok(())
    }
}

/// The SOA of the zone in which `end` would lie: its owner is `end` or an ancestor.
fn find_soa(end: Name<'_>, response: &Response<'_>) -> Result<Option<(Record, NameBuf)>, Unusable> {
    let soas = response.section(Section::Authority);
    let soas = soas.filter(|record| record.rtype == Rtype::SOA && record.class == Class::IN);
    for record in soas.take(PROOF_RECORDS_MAX) {
        let owner = response.owner(record).map_err(|_| Unusable::Records)?;
        if end.is_within(owner.as_name()) {
            return Ok(Some((*record, owner)));
        }
    }
    Ok(None)
}

/// A signature in the authority section whose signer may speak for a name of the chain.
struct Signature {
    record: Record,
    owner: NameBuf,
    covers: Rtype,
}

/// NSEC and NSEC3 records with their signatures, and the signatures of `soa`.
///
/// A proof without a signature of a zone that holds a name of the chain proves nothing to anybody and is dropped.
fn proofs(
    chain: &Chain,
    response: &Response<'_>,
    soa: Option<&(Record, NameBuf)>,
) -> Result<Vec<Record>, Unusable> {
    let signatures = signatures(chain, response)?;
    let signs = |signature: &Signature, owner: &NameBuf, rtype| {
        signature.covers == rtype && signature.owner.as_name().is_same(owner.as_name())
    };
    let mut owners: Vec<(Rtype, NameBuf)> = Vec::new();
    let mut kept: Vec<Record> = Vec::new();
    if let Some((_, owner)) = soa {
        owners.push((Rtype::SOA, owner.clone()));
    }
    for record in denials(response).take(PROOF_RECORDS_MAX + 1) {
        let owner = response.owner(record).map_err(|_| Unusable::Records)?;
        let is_signed = signatures.iter().any(|it| signs(it, &owner, record.rtype));
        if is_signed && !holds(response, &kept, record) {
            kept.push(*record);
            owners.push((record.rtype, owner));
        }
    }
    for signature in &signatures {
        let is_used = owners.iter().any(|(rtype, owner)| signs(signature, owner, *rtype));
        if is_used && !holds(response, &kept, &signature.record) {
            kept.push(signature.record);
        }
    }
    if kept.len() > PROOF_RECORDS_MAX { Err(Unusable::Records) } else { Ok(kept) }
}

fn denials<'r>(response: &'r Response<'_>) -> impl Iterator<Item = &'r Record> {
    response.section(Section::Authority).filter(|record| {
        matches!(record.rtype, Rtype::NSEC | Rtype::NSEC3) && record.class == Class::IN
    })
}

/// Equal in type and data: denials of two owners never are, since they name their successor; nor are signatures.
fn holds(response: &Response<'_>, kept: &[Record], record: &Record) -> bool {
    kept.iter()
        .any(|known| known.rtype == record.rtype && response.rdata(known) == response.rdata(record))
}

fn signatures(chain: &Chain, response: &Response<'_>) -> Result<Vec<Signature>, Unusable> {
    let mut signatures = Vec::new();
    let section = response.section(Section::Authority);
    let all = section.filter(|it| it.rtype == Rtype::RRSIG && it.class == Class::IN);
    for (index, record) in all.enumerate() {
        if index == PROOF_RECORDS_MAX {
            return Err(Unusable::Records);
        }
        let covers = covered(response, record).ok_or(Unusable::Records)?;
        if !matches!(covers, Rtype::SOA | Rtype::NSEC | Rtype::NSEC3) {
            continue;
        }
        let owner = response.owner(record).map_err(|_| Unusable::Records)?;
        let signer = signer(response, record).ok_or(Unusable::Records)?;
        let is_ours = chain.links.iter().any(|link| link.as_name().is_within(signer.as_name()));
        if is_ours && owner.as_name().is_within(signer.as_name()) {
            signatures.push(Signature { record: *record, owner, covers });
        }
    }
    Ok(signatures)
}

/// Senders must not compress the signer's name (RFC 4034 §3.1.7).
fn signer(response: &Response<'_>, record: &Record) -> Option<NameBuf> {
    let rest = response.rdata(record).get(SIGNER_OFFSET..)?;
    Name::parse(rest).ok().map(NameBuf::new)
}

#[cfg(test)]
mod tests;
