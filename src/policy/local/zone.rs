//! One local zone, compiled: from zone-file text to ready answers for every name and type in it.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use ahash::RandomState;

use super::records::{self, Mistake, Records, RrSet, Sets, folded};
use super::special::Kind;
use super::{Apexes, LocalError};
use crate::config;
use crate::wire::answer::AnswerBuilder;
use crate::wire::encode::Full;
use crate::wire::response::Section;
use crate::wire::{AnswerBuf, Class, Flags, Name, Rcode, Rtype};

/// CNAME records followed within a zone. Unbound's default too; beyond it are loops and mistakes.
const CNAME_CHAIN_MAX: usize = 11;

/// What is answered for one owner.
#[derive(Debug, Default)]
struct Node {
    answers: Vec<(Rtype, AnswerBuf)>,
    /// The answer for all types not in `answers`, when the owner has a CNAME.
    alias: Option<AnswerBuf>,
}

/// A compiled zone.
#[derive(Debug)]
pub(super) struct Zone {
    /// By folded owner. Empty non-terminals (RFC 4592 §2.2.2) have a node without answers.
    nodes: HashMap<Box<[u8]>, Node, RandomState>,
    nodata: AnswerBuf,
    /// For names that the zone lacks.
    missing: AnswerBuf,
    /// Whether DS records of the apex are asked of the parent.
    has_parent: bool,
}

impl Zone {
    /// Compiles the section, whose apex is `apex`, as `kind` wants it. Names below another one of `apexes` that is
    /// within this zone belong to that one.
    ///
    /// # Errors
    /// [`LocalError`] with the place of the first mistake.
    pub(super) fn compile(
        section: &config::LocalZone,
        apex: Name<'_>,
        apexes: &Apexes,
        kind: Kind,
    ) -> Result<Self, LocalError> {
        let fail = |place, problem| LocalError { place, zone: section.zone.clone(), problem };
        let records = records::read(section, apex)
            .map_err(|Mistake { line, problem }| fail(section.place_of(line), problem))?;
        let compiler = Compiler::new(apex, apexes, &records);
        compiler.zone(kind).map_err(|Full| {
            fail(section.place.clone(), "an answer would exceed 65535 bytes".to_owned())
        })
    }

    /// The answer for the folded `qname`, whose part from `apex_at` on is this zone's apex; `None` when that is for the
    /// parent to say.
    pub(super) fn lookup(&self, qname: &[u8], apex_at: usize, qtype: Rtype) -> Option<&AnswerBuf> {
        let is_for_parent = self.has_parent && qtype == Rtype::DS && apex_at == 0;
        if is_for_parent { None } else { Some(self.find(qname, apex_at, qtype)) }
    }

    fn find(&self, qname: &[u8], apex_at: usize, qtype: Rtype) -> &AnswerBuf {
        if let Some(node) = self.nodes.get(qname) {
            return self.at(node, qtype);
        }
        // The closest encloser's wildcard, or nothing (RFC 4592 §3.3.1).
        let mut at = 0;
        while at < apex_at {
            at += 1 + usize::from(qname[at]);
            if self.nodes.contains_key(&qname[at..]) {
                let mut wildcard = [0; 257];
                let len = 2 + qname.len() - at;
                wildcard[..2].copy_from_slice(b"\x01*");
                wildcard[2..len].copy_from_slice(&qname[at..]);
                let node = self.nodes.get(&wildcard[..len]);
                return node.map_or(&self.missing, |node| self.at(node, qtype));
            }
        }
        &self.missing
    }

    fn at<'a>(&'a self, node: &'a Node, qtype: Rtype) -> &'a AnswerBuf {
        let exact = node.answers.iter().find(|(rtype, _)| *rtype == qtype);
        exact.map(|(_, answer)| answer).or(node.alias.as_ref()).unwrap_or(&self.nodata)
    }
}

/// What answers are made of.
struct Compiler<'a> {
    apex: Name<'a>,
    apexes: &'a Apexes,
    records: &'a Records,
    /// All folded names that exist, empty non-terminals included.
    names: BTreeSet<&'a [u8]>,
    soa: Option<&'a RrSet>,
}

/// The aliases from an owner on.
struct Chain<'a> {
    /// Each alias with the name it stands at.
    aliases: Vec<(Vec<u8>, &'a RrSet)>,
    /// The name that the last one leads to.
    last: Vec<u8>,
    end: End<'a>,
}

/// What is at the end of a chain.
enum End<'a> {
    /// A name of the zone and its records; none at an empty non-terminal.
    Exists(Option<&'a Sets>),
    /// A name that the zone lacks.
    Missing,
    /// Nothing that the zone knows: a name outside of it, a loop, or still more aliases.
    Unknown,
}

impl<'a> Compiler<'a> {
    fn new(apex: Name<'a>, apexes: &'a Apexes, records: &'a Records) -> Self {
        let apex_len = apex.as_bytes().len();
        let mut names = BTreeSet::new();
        for owner in records.keys() {
            let Ok(name) = Name::parse(owner) else { continue };
            let within = name.suffixes().map(Name::as_bytes);
            names.extend(within.take_while(|part| part.len() >= apex_len));
        }
        let soa = records.get(&folded(apex)).and_then(|sets| sets.get(&Rtype::SOA));
        Self { apex, apexes, records, names, soa }
    }

    fn zone(&self, kind: Kind) -> Result<Zone, Full> {
        let mut nodes: HashMap<Box<[u8]>, Node, RandomState> = HashMap::default();
        for &name in self.names.iter().filter(|_| kind != Kind::Denied) {
            let node = match self.records.get(name) {
                Some(sets) => self.node(Name::parse(name).map_err(|_| Full)?, sets)?,
                None => Node::default(),
            };
            nodes.insert(name.into(), node);
        }
        Ok(Zone {
            nodes,
            nodata: self.negative(Rcode::NOERROR)?,
            missing: self.negative(kind.missing())?,
            has_parent: kind.has_parent(),
        })
    }

    fn node(&self, owner: Name<'_>, sets: &Sets) -> Result<Node, Full> {
        let mut node = Node::default();
        for (&rtype, set) in sets {
            let mut answer = self.begin(owner, rtype, Rcode::NOERROR)?;
            answer.add(owner, rtype, set)?;
            node.answers.push((rtype, answer.finish()));
        }
        if sets.contains_key(&Rtype::CNAME) {
            let chain = self.follow(owner);
            if let End::Exists(Some(end)) = chain.end {
                for (&rtype, set) in end {
                    node.answers.push((rtype, self.chased(owner, &chain, Some((rtype, set)))?));
                }
            }
            node.alias = Some(self.chased(owner, &chain, None)?);
        }
        Ok(node)
    }

    /// Follows the aliases from `owner` on, through wildcards too (RFC 4592 §3.3).
    fn follow(&self, owner: Name<'_>) -> Chain<'a> {
        let last = owner.as_bytes().to_vec();
        let mut chain = Chain { aliases: Vec::new(), last, end: End::Unknown };
        loop {
            let Ok(name) = Name::parse(&chain.last) else { return chain };
            if !self.holds(name) {
                return chain;
            }
            let Some(source) = self.source(name) else {
                return Chain { end: End::Missing, ..chain };
            };
            let sets = self.records.get(source.as_ref());
            let alias = sets.and_then(|sets| sets.get(&Rtype::CNAME));
            let Some((alias, target)) = alias.and_then(|set| Some((set, set.rdata.first()?)))
            else {
                return Chain { end: End::Exists(sets), ..chain };
            };
            if chain.aliases.len() == CNAME_CHAIN_MAX {
                return chain;
            }
            let target = target.to_ascii_lowercase();
            chain.aliases.push((std::mem::replace(&mut chain.last, target), alias));
            if chain.aliases.iter().any(|(known, _)| *known == chain.last) {
                return chain;
            }
        }
    }

    /// Whether the folded `name` belongs to this zone, and not to one of those below it.
    fn holds(&self, name: Name<'_>) -> bool {
        let mut cuts = name.suffixes().filter(|part| self.apexes.contains(part.as_bytes()));
        cuts.next().is_some_and(|cut| cut.is_same(self.apex))
    }

    /// Whose records answer for the folded `name`: its own or those of its closest encloser's wildcard
    /// (RFC 4592 §3.3.1).
    fn source<'n>(&self, name: Name<'n>) -> Option<Cow<'n, [u8]>> {
        let mut suffixes = name.suffixes().map(Name::as_bytes);
        let encloser = suffixes.find(|part| self.names.contains(part))?;
        if encloser.len() == name.as_bytes().len() {
            return Some(encloser.into());
        }
        let wildcard = [b"\x01*", encloser].concat();
        self.names.contains(wildcard.as_slice()).then(|| wildcard.into())
    }

    /// The answer for an alias: the chain, then the data at its end. Without data the end decides, as if it had been
    /// asked for (RFC 6604 §3, RFC 2308 §2): the zone's SOA, and NXDOMAIN for a missing name. What the zone does not
    /// know is left to the client.
    fn chased(
        &self,
        owner: Name<'_>,
        chain: &Chain<'_>,
        data: Option<(Rtype, &RrSet)>,
    ) -> Result<AnswerBuf, Full> {
        let rcode = match chain.end {
            End::Missing => Rcode::NXDOMAIN,
            End::Exists(_) | End::Unknown => Rcode::NOERROR,
        };
        let question = data.map_or(Rtype::CNAME, |(rtype, _)| rtype);
        let mut answer = self.begin(owner, question, rcode)?;
        for (name, alias) in &chain.aliases {
            answer.add(Name::parse(name).map_err(|_| Full)?, Rtype::CNAME, alias)?;
        }
        match (data, &chain.end) {
            (Some((rtype, set)), _) => {
                answer.add(Name::parse(&chain.last).map_err(|_| Full)?, rtype, set)?;
            }
            (None, End::Exists(_) | End::Missing) => self.add_soa(&mut answer.builder)?,
            (None, End::Unknown) => {}
        }
        Ok(answer.finish())
    }

    /// NXDOMAIN or NODATA with the zone's SOA (RFC 2308 §2), fit for every name of the zone.
    fn negative(&self, rcode: Rcode) -> Result<AnswerBuf, Full> {
        let mut answer = self.begin(self.apex, Rtype::SOA, rcode)?;
        self.add_soa(&mut answer.builder)?;
        Ok(answer.finish())
    }

    fn begin(&self, owner: Name<'_>, rtype: Rtype, rcode: Rcode) -> Result<Writer, Full> {
        let mut builder = AnswerBuilder::new(owner, rtype, Class::IN, rcode)?;
        builder.set_flags(Flags::AA);
        let is_wildcard = owner.as_bytes().starts_with(b"\x01*");
        Ok(Writer { builder, is_wildcard, is_begun: false })
    }

    fn add_soa(&self, builder: &mut AnswerBuilder) -> Result<(), Full> {
        let Some((soa, rdata)) = self.soa.and_then(|soa| Some((soa, soa.rdata.first()?))) else {
            return Ok(());
        };
        let minimum = rdata.last_chunk().map_or(0, |field| u32::from_be_bytes(*field));
        let ttl = soa.ttl.min(minimum);
        builder.write_plain(Section::Authority, self.apex, Rtype::SOA, ttl, rdata)
    }
}

/// Writes the answer section for one owner.
struct Writer {
    builder: AnswerBuilder,
    /// A wildcard's records are written for the name that was asked, and for no other.
    is_wildcard: bool,
    is_begun: bool,
}

impl Writer {
    /// Appends the records of `set`; the first set's owner is the question's name.
    fn add(&mut self, owner: Name<'_>, rtype: Rtype, set: &RrSet) -> Result<(), Full> {
        let Self { builder, is_wildcard, is_begun } = self;
        for rdata in &set.rdata {
            if !*is_begun {
                builder.write_for_question(rtype, Class::IN, set.ttl, rdata)?;
            } else if *is_wildcard {
                builder.write_plain(Section::Answer, owner, rtype, set.ttl, rdata)?;
            } else {
                builder.write(Section::Answer, owner, rtype, Class::IN, set.ttl, rdata)?;
            }
        }
        *is_begun = true;
        Ok(())
    }

    fn finish(self) -> AnswerBuf {
        self.builder.finish()
    }
}

#[cfg(test)]
mod tests;
