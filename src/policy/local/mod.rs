//! Hot path. Zones that the operator answers himself. Everything is an answer in wire form before the first query comes.

mod endings;
mod records;
mod zone;

use std::collections::{HashMap, HashSet};

use ahash::RandomState;
use thiserror::Error;

use crate::config;
use crate::wire::answer::AnswerBuilder;
use crate::wire::{AnswerBuf, Class, Name, NameBuf, Rcode, Rtype};
use endings::Endings;
use zone::Zone;

/// TTL of the answer to ANY, in seconds (RFC 8482 §4.2 advises a long one).
const ANY_TTL: u32 = 3_600;

/// Most labels of a name: 127 of one octet each, and the root.
const LABELS_MAX: usize = 127;

/// Why a zone in the config cannot be served.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{place}: local zone \"{zone}\": {problem}")]
pub struct LocalError {
    /// Where the mistake stands, or where the records begin: `file:line`.
    pub place: String,
    /// The apex as configured.
    pub zone: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// The folded wire forms of all apexes.
type Apexes = HashSet<Box<[u8]>, RandomState>;

/// All local zones by apex.
#[derive(Debug, Default)]
pub struct LocalData {
    /// Keyed by the folded wire form of the apex.
    zones: HashMap<Box<[u8]>, Zone, RandomState>,
    /// Bit `n` is set when some apex has `n` labels: other suffixes need no look-up.
    apex_depths: u128,
    endings: Endings,
}

impl LocalData {
    /// Compiles the zones of the config.
    ///
    /// # Errors
    /// [`LocalError`] for the first zone that is broken or named twice.
    pub fn new(sections: &[config::LocalZone]) -> Result<Self, LocalError> {
        let fail = |section: &config::LocalZone, problem: &str| LocalError {
            place: section.place.clone(),
            zone: section.zone.clone(),
            problem: problem.into(),
        };
        let mut apexes = Vec::with_capacity(sections.len());
        let mut keys = Apexes::default();
        for section in sections {
            let apex = NameBuf::from_text(&section.zone)
                .map_err(|_| fail(section, "is not a domain name such as \"corp.example.\""))?;
            if !keys.insert(apex.as_name().as_bytes().to_ascii_lowercase().into()) {
                return Err(fail(section, "is defined twice: join the two"));
            }
            apexes.push(apex);
        }
        let mut data = Self { endings: Endings::new(&keys), ..Self::default() };
        for (section, apex) in sections.iter().zip(&apexes) {
            let apex = apex.as_name();
            let zone = Zone::compile(section, apex, &keys)?;
            data.apex_depths |= 1 << apex.labels().count();
            data.zones.insert(apex.as_bytes().to_ascii_lowercase().into(), zone);
        }
        Ok(data)
    }

    /// The operator's answer to `qtype` at the name that is `folded` (lower case, wire form): `None` when no zone of his
    /// holds the name.
    #[inline]
    #[must_use]
    pub fn lookup(&self, folded: &[u8], qtype: Rtype) -> Option<&AnswerBuf> {
        if self.endings.may_end(folded) { self.lookup_zones(folded, qtype) } else { None }
    }

    fn lookup_zones(&self, folded: &[u8], qtype: Rtype) -> Option<&AnswerBuf> {
        let mut starts = [0_u8; LABELS_MAX + 1];
        let mut depth = 0;
        let mut at = 0_u8;
        while let Some(&len @ 1..) = folded.get(usize::from(at)) {
            // A name has 255 octets at most, its last label begins below.
            at += 1 + len;
            depth += 1;
            starts[depth] = at;
        }
        // The longest apex wins: it is found first.
        for (above, &start) in starts[..=depth].iter().enumerate() {
            if self.apex_depths >> (depth - above) & 1 == 0 {
                continue;
            }
            let start = usize::from(start);
            if let Some(zone) = self.zones.get(&folded[start..]) {
                return Some(zone.lookup(folded, start, qtype));
            }
        }
        None
    }
}

/// The one small answer to ANY: a HINFO record that says why (RFC 8482 §4.2).
#[must_use]
pub fn any_answer() -> AnswerBuf {
    let mut builder = AnswerBuilder::new(Name::ROOT, Rtype::ANY, Class::IN, Rcode::NOERROR)
        .expect("an empty message has room");
    // The owner must be the name asked for, whatever it is: a pointer to the question, not the root.
    let written = builder.write_for_question(Rtype::HINFO, Class::IN, ANY_TTL, b"\x07RFC8482\x00");
    written.expect("an empty message has room");
    builder.finish()
}
