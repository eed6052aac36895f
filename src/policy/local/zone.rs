//! One local zone, compiled: from zone-file text to ready answers for every name and type in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ahash::RandomState;
use domain::base::rdata::ComposeRecordData as _;
use domain::base::{ToName as _, iana};
use domain::zonefile::inplace::{Entry, ScannedRecord, Zonefile};

use super::LocalError;
use crate::config;
use crate::wire::answer::AnswerBuilder;
use crate::wire::encode::Full;
use crate::wire::response::Section;
use crate::wire::{AnswerBuf, Class, Flags, Name, NameBuf, Rcode, Rtype, case};

/// CNAME records followed within a zone. Unbound's default too; beyond it are loops and mistakes.
const CNAME_CHAIN_MAX: usize = 11;

/// The records of one owner and type, with their common TTL.
#[derive(Clone, Debug, Default)]
struct RrSet {
    ttl: u32,
    /// Line of the record read last, for error messages.
    line: usize,
    rdata: BTreeSet<Vec<u8>>,
}

/// Records as read, by folded owner and type.
type Records = BTreeMap<Vec<u8>, BTreeMap<Rtype, RrSet>>;

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
    nxdomain: AnswerBuf,
}

impl Zone {
    /// Compiles the section and gives its apex.
    ///
    /// # Errors
    /// [`LocalError`] with the place of the first mistake.
    pub(super) fn compile(section: &config::LocalZone) -> Result<(NameBuf, Self), LocalError> {
        let fail_at = |place: String, problem: String| LocalError {
            place,
            zone: section.zone.clone(),
            problem,
        };
        let fail = |problem| fail_at(section.place.clone(), problem);
        let apex = NameBuf::from_text(&section.zone)
            .map_err(|_| fail("is not a domain name such as \"corp.example.\"".into()))?;
        let records = read_records(section, apex.as_name())
            .map_err(|Mistake { line, problem }| fail_at(section.place_of(line), problem))?;
        let zone = Self::build(apex.as_name(), &records);
        let zone = zone.map_err(|Full| fail("an answer would exceed 65535 bytes".into()))?;
        Ok((apex, zone))
    }

    fn build(apex: Name<'_>, records: &Records) -> Result<Self, Full> {
        let mut nodes: HashMap<Box<[u8]>, Node, RandomState> = HashMap::default();
        let apex_len = apex.as_bytes().len();
        for (owner, sets) in records {
            let name = Name::parse(owner).map_err(|_| Full)?;
            for ancestor in name.suffixes().take_while(|part| part.as_bytes().len() >= apex_len) {
                nodes.entry(ancestor.as_bytes().into()).or_default();
            }
            let node = Node {
                answers: sets
                    .keys()
                    .map(|&rtype| Ok((rtype, answer(name, Some(rtype), records)?)))
                    .collect::<Result<_, Full>>()?,
                alias: match sets.get(&Rtype::CNAME) {
                    Some(_) => Some(answer(name, None, records)?),
                    None => None,
                },
            };
            nodes.insert(owner.as_slice().into(), node);
        }
        add_chased_answers(&mut nodes, records)?;
        let soa = records.get(&folded(apex)).and_then(|sets| sets.get(&Rtype::SOA));
        Ok(Self {
            nodes,
            nodata: negative(apex, soa, Rcode::NOERROR)?,
            nxdomain: negative(apex, soa, Rcode::NXDOMAIN)?,
        })
    }

    /// The answer for the folded `qname`, whose part from `apex_at` on is this zone's apex.
    pub(super) fn lookup(&self, qname: &[u8], apex_at: usize, qtype: Rtype) -> &AnswerBuf {
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
                return node.map_or(&self.nxdomain, |node| self.at(node, qtype));
            }
        }
        &self.nxdomain
    }

    fn at<'a>(&'a self, node: &'a Node, qtype: Rtype) -> &'a AnswerBuf {
        let exact = node.answers.iter().find(|(rtype, _)| *rtype == qtype);
        exact.map(|(_, answer)| answer).or(node.alias.as_ref()).unwrap_or(&self.nodata)
    }
}

/// For each alias, an answer per type that its chain ends in.
fn add_chased_answers(
    nodes: &mut HashMap<Box<[u8]>, Node, RandomState>,
    records: &Records,
) -> Result<(), Full> {
    for (owner, sets) in records {
        if !sets.contains_key(&Rtype::CNAME) {
            continue;
        }
        let name = Name::parse(owner).map_err(|_| Full)?;
        let chain = chain(owner, records);
        let last = chain.last().and_then(|end| records.get(end));
        let Some(node) = nodes.get_mut(owner.as_slice()) else { continue };
        for &rtype in last.into_iter().flat_map(BTreeMap::keys) {
            if rtype != Rtype::CNAME {
                node.answers.push((rtype, answer(name, Some(rtype), records)?));
            }
        }
    }
    Ok(())
}

/// The owners that the CNAME records at `owner` lead through, `owner` first.
fn chain(owner: &[u8], records: &Records) -> Vec<Vec<u8>> {
    let mut owners = vec![owner.to_vec()];
    while owners.len() <= CNAME_CHAIN_MAX {
        let sets = owners.last().and_then(|last| records.get(last));
        let target = sets.and_then(|sets| sets.get(&Rtype::CNAME)?.rdata.first());
        let Some(target) = target.map(|target| target.to_ascii_lowercase()) else { break };
        if owners.contains(&target) {
            break;
        }
        owners.push(target);
    }
    owners
}

/// The answer for `owner` and `rtype`: the alias chain, then the records at its end; `None` stands for all types that
/// are not there, which get the chain alone.
fn answer(owner: Name<'_>, rtype: Option<Rtype>, records: &Records) -> Result<AnswerBuf, Full> {
    let question = rtype.unwrap_or(Rtype::CNAME);
    let mut builder = AnswerBuilder::new(owner, question, Class::IN, Rcode::NOERROR)?;
    builder.set_flags(Flags::AA);
    // A wildcard's records are written for the name that was asked, and for no other.
    let is_wildcard = owner.as_bytes().starts_with(b"\x01*");
    for (step, link) in chain(owner.as_bytes(), records).iter().enumerate() {
        let Some(sets) = records.get(link) else { break };
        let wanted = rtype.filter(|rtype| sets.contains_key(rtype)).unwrap_or(Rtype::CNAME);
        let Some(set) = sets.get(&wanted) else { break };
        let link = Name::parse(link).map_err(|_| Full)?;
        for rdata in &set.rdata {
            if step == 0 {
                builder.write_for_question(wanted, Class::IN, set.ttl, rdata)?;
            } else if is_wildcard {
                builder.write_plain(Section::Answer, link, wanted, set.ttl, rdata)?;
            } else {
                builder.write(Section::Answer, link, wanted, Class::IN, set.ttl, rdata)?;
            }
        }
        if Some(wanted) == rtype {
            break;
        }
    }
    Ok(builder.finish())
}

/// NXDOMAIN or NODATA with the zone's SOA (RFC 2308 §2), fit for every name of the zone.
fn negative(apex: Name<'_>, soa: Option<&RrSet>, rcode: Rcode) -> Result<AnswerBuf, Full> {
    let mut builder = AnswerBuilder::new(apex, Rtype::SOA, Class::IN, rcode)?;
    builder.set_flags(Flags::AA);
    if let Some((soa, rdata)) = soa.and_then(|soa| Some((soa, soa.rdata.first()?))) {
        let minimum = rdata.last_chunk().map_or(0, |field| u32::from_be_bytes(*field));
        let ttl = soa.ttl.min(minimum);
        builder.write_plain(Section::Authority, apex, Rtype::SOA, ttl, rdata)?;
    }
    Ok(builder.finish())
}

/// What is wrong with the records, and in which of their lines.
struct Mistake {
    line: usize,
    problem: String,
}

fn read_records(section: &config::LocalZone, apex: Name<'_>) -> Result<Records, Mistake> {
    let mut reader = Zonefile::new();
    let origin = domain::base::Name::from_octets(apex.as_bytes().to_vec().into());
    let origin = origin.map_err(|error| Mistake { line: 1, problem: error.to_string() })?;
    reader.set_origin(origin);
    reader.set_default_class(iana::Class::IN);
    let mut records = Records::new();
    let mut line = 1;
    // The reader counts a line too many when it stumbles over a line's last word, and says nothing of the lines of
    // good records; so it gets one entry at a time.
    for text in entries(&section.records) {
        let fail = |problem| Mistake { line, problem };
        reader.extend_from_slice(text.as_bytes());
        if !text.ends_with('\n') {
            reader.extend_from_slice(b"\n");
        }
        while let Some(entry) = reader.next_entry().map_err(|error| fail(without_place(&error)))? {
            match entry {
                Entry::Record(record) => {
                    add_record(&mut records, apex, &record, line).map_err(fail)?;
                }
                Entry::Include { .. } => {
                    return Err(fail("$INCLUDE is not offered: write the records here".into()));
                }
            }
        }
        line += text.matches('\n').count();
    }
    check(&records)?;
    Ok(records)
}

/// What the reader says, without its own `line:column`.
fn without_place(error: &domain::zonefile::inplace::Error) -> String {
    let text = error.to_string();
    text.split_once(": ").map_or(text.as_str(), |(_, problem)| problem).to_owned()
}

/// Cuts zone-file text into entries, line ends included: a line, or several within parentheses (RFC 1035 §5.1).
fn entries(text: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut is_quoted, mut is_comment, mut is_escaped) = (0_usize, false, false, false);
    text.split_inclusive(move |letter: char| {
        let ends = letter == '\n' && depth == 0;
        match letter {
            // A quoted text ends with its line, whether closed or not: the reader will say so.
            '\n' => (is_quoted, is_comment, is_escaped) = (false, false, false),
            _ if is_comment => {}
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            ';' => is_comment = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        ends
    })
}

fn add_record(
    records: &mut Records,
    apex: Name<'_>,
    record: &ScannedRecord,
    line: usize,
) -> Result<(), String> {
    let owner: Vec<u8> = record.owner().to_vec().into_octets();
    let name = Name::parse(&owner).map_err(|error| format!("{}: {error:?}", record.owner()))?;
    if !name.is_within(apex) {
        return Err(format!("{name} lies outside the zone"));
    }
    if record.class() != iana::Class::IN {
        return Err(format!("{name}: only class IN is served"));
    }
    let mut rdata = Vec::new();
    record.data().compose_rdata(&mut rdata).map_err(|_| format!("{name}: RDATA is too long"))?;
    let rtype = Rtype(record.rtype().to_int());
    let set = records.entry(folded(name)).or_default().entry(rtype).or_default();
    let ttl = record.ttl().as_secs();
    // All records of an RRset share one TTL (RFC 2181 §5.2).
    set.ttl = if set.rdata.is_empty() { ttl } else { set.ttl.min(ttl) };
    set.rdata.insert(rdata);
    set.line = line;
    Ok(())
}

fn check(records: &Records) -> Result<(), Mistake> {
    for (owner, sets) in records {
        let last = sets.values().map(|set| set.line).max().unwrap_or(1);
        let fail = |line, problem| Err(Mistake { line, problem });
        let Ok(name) = Name::parse(owner) else {
            return fail(last, "an owner is no name".to_owned());
        };
        if let Some(cname) = sets.get(&Rtype::CNAME) {
            let others = sets
                .keys()
                .any(|rtype| !matches!(*rtype, Rtype::CNAME | Rtype::NSEC | Rtype::RRSIG));
            if others || cname.rdata.len() > 1 {
                return fail(last, format!("{name} has a CNAME and other data (RFC 2181 §10.1)"));
            }
        }
        if let Some(soa) = sets.get(&Rtype::SOA).filter(|soa| soa.rdata.len() > 1) {
            return fail(soa.line, format!("{name} has two SOA records"));
        }
    }
    Ok(())
}

fn folded(name: Name<'_>) -> Vec<u8> {
    let mut bytes = vec![0; name.as_bytes().len()];
    case::lower_into(name.as_bytes(), &mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
