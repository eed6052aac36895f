//! Follows the aliases of an answer section from the question's name to its end, and picks the records on the way.
//!
//! What is not on the way does not belong to the answer, whoever put it there ("in-bailiwick" for a forwarder's answer).

use super::exchange::Question;
use super::scrub::Unusable;
use crate::wire::response::Section;
use crate::wire::{Class, Name, NameBuf, Record, Response, Rtype};

/// Aliases followed from one question. Unbound's limit too; beyond it are loops and attacks.
const ALIASES_MAX: usize = 11;

/// Records of one answer section that we look at. Real RRsets end far below; BIND and PowerDNS stop at 100 and 256 per
/// set. The work is at most this times [`ALIASES_MAX`] comparisons of names, and half its square of RDATA.
const ANSWER_RECORDS_MAX: usize = 512;

/// A record that belongs to the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) record: Record,
    /// Which name of the chain it belongs to.
    pub(super) link: usize,
    /// Its type, or the type that it signs: records of one RRset and their signatures share a TTL.
    pub(super) covers: Rtype,
    /// The record is a DNAME; the CNAME that it implies is to be written instead (RFC 6672 §3.1).
    pub(super) is_implied: bool,
}

/// The way from a question to its answer.
#[derive(Debug)]
pub(super) struct Chain {
    /// The question's name and the target of each alias.
    pub(super) links: Vec<NameBuf>,
    /// The records on the way, link by link.
    pub(super) kept: Vec<Kept>,
    /// Whether the last name has records of the type that was asked.
    pub(super) is_answered: bool,
}

/// An answer record with its owner expanded.
struct Candidate {
    record: Record,
    owner: NameBuf,
}

impl Chain {
    /// Follows the answer section of `response`.
    ///
    /// # Errors
    /// [`Unusable`] for loops, chains without end, aliases that contradict each other, broken names.
    pub(super) fn follow(
        question: &Question<'_>,
        response: &Response<'_>,
    ) -> Result<Self, Unusable> {
        let candidates = candidates(response)?;
        let links = vec![NameBuf::new(question.qname)];
        let walk = Walk { question, response, candidates: &candidates };
        let mut chain = Self { links, kept: Vec::new(), is_answered: false };
        loop {
            let link = chain.links.len() - 1;
            let name = chain.links[link].clone();
            if walk.find(&name, question.qtype).is_some() {
                chain.keep(&walk, link, &name, question.qtype);
                chain.is_answered = true;
                return Ok(chain);
            }
            let Some(target) = chain.step(&walk, link, &name)? else { return Ok(chain) };
            if chain.links.iter().any(|known| known.as_name().is_same(target.as_name())) {
                return Err(Unusable::AliasChain);
            }
            if chain.links.len() > ALIASES_MAX {
                return Err(Unusable::AliasChain);
            }
            chain.links.push(target);
        }
    }

    /// The name at which the chain ends.
    pub(super) fn end(&self) -> Name<'_> {
        self.links.last().map_or(Name::ROOT, NameBuf::as_name)
    }

    /// The least TTL among the records that share one with `kept` (RFC 2181 §5.2, RFC 4034 §3).
    pub(super) fn ttl(&self, kept: &Kept) -> u32 {
        let is_peer = |other: &&Kept| other.link == kept.link && other.covers == kept.covers;
        self.kept.iter().filter(is_peer).map(|peer| peer.record.ttl).min().unwrap_or(0)
    }

    /// Keeps the alias at `name` and gives its target; `None` where the chain ends.
    fn step(
        &mut self,
        walk: &Walk<'_, '_>,
        link: usize,
        name: &NameBuf,
    ) -> Result<Option<NameBuf>, Unusable> {
        let dname = walk.find_dname(name);
        let implied = dname.map(|dname| walk.implied_target(name, dname)).transpose()?;
        let cname = walk.find(name, Rtype::CNAME);
        let stated = cname.map(|cname| walk.target(cname)).transpose()?;
        if let (Some(implied), Some(stated)) = (&implied, &stated)
            && !implied.as_name().is_same(stated.as_name())
        {
            return Err(Unusable::Contradiction);
        }
        if let Some(dname) = dname {
            self.keep(walk, link, &dname.owner, Rtype::DNAME);
        }
        if cname.is_some() {
            self.keep(walk, link, name, Rtype::CNAME);
        } else if let Some(dname) = dname {
            let record = dname.record;
            self.kept.push(Kept { record, link, covers: Rtype::CNAME, is_implied: true });
        }
        Ok(stated.or(implied))
    }

    /// Keeps the records of one RRset and, for those who want them, its signatures, without duplicates.
    fn keep(&mut self, walk: &Walk<'_, '_>, link: usize, owner: &NameBuf, rtype: Rtype) {
        let is_single = matches!(rtype, Rtype::CNAME | Rtype::DNAME);
        let mut has_data = false;
        for Candidate { record, .. } in walk.at(owner) {
            let is_data = record.rtype == rtype;
            let is_signature = record.rtype == Rtype::RRSIG
                && walk.question.wants_dnssec
                && covered(walk.response, record) == Some(rtype);
            // A name has one alias (RFC 2181 §10.1); the first is the one that was followed.
            let is_spare = is_data && is_single && has_data;
            if !(is_data || is_signature) || is_spare || self.holds(walk.response, link, record) {
                continue;
            }
            has_data |= is_data;
            self.kept.push(Kept { record: *record, link, covers: rtype, is_implied: false });
        }
    }

    fn holds(&self, response: &Response<'_>, link: usize, record: &Record) -> bool {
        self.kept.iter().any(|kept| {
            let known = &kept.record;
            known.rdata_at == record.rdata_at
                || kept.link == link
                    && known.rtype == record.rtype
                    && response.rdata(known) == response.rdata(record)
        })
    }
}

/// The type that an RRSIG record signs (RFC 4034 §3.1).
pub(super) fn covered(response: &Response<'_>, record: &Record) -> Option<Rtype> {
    response.rdata(record).first_chunk().map(|field| Rtype(u16::from_be_bytes(*field)))
}

fn candidates(response: &Response<'_>) -> Result<Vec<Candidate>, Unusable> {
    let mut candidates = Vec::new();
    for record in response.section(Section::Answer) {
        if candidates.len() == ANSWER_RECORDS_MAX {
            return Err(Unusable::Records);
        }
        let owner = response.owner(record).map_err(|_| Unusable::Records)?;
        candidates.push(Candidate { record: *record, owner });
    }
    Ok(candidates)
}

struct Walk<'w, 'm> {
    question: &'w Question<'w>,
    response: &'w Response<'m>,
    candidates: &'w [Candidate],
}

impl<'w> Walk<'w, '_> {
    /// The candidates of `owner`.
    fn at(&self, owner: &NameBuf) -> impl Iterator<Item = &'w Candidate> {
        self.candidates.iter().filter(|candidate| {
            candidate.record.class == Class::IN
                && candidate.owner.as_name().is_same(owner.as_name())
        })
    }

    fn find(&self, owner: &NameBuf, rtype: Rtype) -> Option<&'w Candidate> {
        self.at(owner).find(|candidate| candidate.record.rtype == rtype)
    }

    /// A DNAME at a proper ancestor of `name`: it does not redirect its own owner (RFC 6672 §2.3).
    fn find_dname(&self, name: &NameBuf) -> Option<&'w Candidate> {
        let parent = name.as_name().parent()?;
        self.candidates.iter().find(|Candidate { record, owner }| {
            record.rtype == Rtype::DNAME
                && record.class == Class::IN
                && parent.is_within(owner.as_name())
        })
    }

    fn target(&self, alias: &Candidate) -> Result<NameBuf, Unusable> {
        self.response.target(&alias.record).map_err(|_| Unusable::Records)
    }

    /// `name` with the owner of `dname` at its end replaced by the target (RFC 6672 §2.2).
    fn implied_target(&self, name: &NameBuf, dname: &Candidate) -> Result<NameBuf, Unusable> {
        let target = self.target(dname)?;
        let name = name.as_name().as_bytes();
        let kept_len = name.len() - dname.owner.as_name().as_bytes().len();
        let bytes = [&name[..kept_len], target.as_name().as_bytes()].concat();
        Name::parse(&bytes).map(NameBuf::new).map_err(|_| Unusable::Records)
    }
}
