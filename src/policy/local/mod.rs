//! Hot path. Zones that the operator answers himself, and special names. Everything is an answer in wire form before the first query comes.

mod apexes;
mod endings;
mod records;
mod special;
mod zone;

use std::collections::HashMap;

use ahash::RandomState;
use thiserror::Error;

use crate::config;
use crate::wire::answer::AnswerBuilder;
use crate::wire::{AnswerBuf, Class, Name, Rcode, Rtype};
use apexes::{Apexes, key_of};
use endings::Endings;
use special::{Kind, Special};
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

/// Who has the names at and below an apex.
#[derive(Debug)]
enum Held {
    /// This zone.
    Zone(Zone),
    /// Upstreams, though a special name above is answered here.
    Upstreams,
}

/// All local zones by apex.
#[derive(Debug, Default)]
pub struct LocalData {
    /// Keyed by the folded wire form of the apex.
    zones: HashMap<Box<[u8]>, Held, RandomState>,
    /// Bit `n` is set when some apex has `n` labels: other suffixes need no look-up.
    apex_depths: u128,
    endings: Endings,
}

impl LocalData {
    /// Compiles the zones of the config, and nothing beside them.
    ///
    /// # Errors
    /// [`LocalError`] for the first zone that is broken or named twice.
    pub fn new(sections: &[config::LocalZone]) -> Result<Self, LocalError> {
        Self::beside(sections, config::Special::NONE, &config::Forward::default())
    }

    /// Compiles the zones of the config and those special names that are neither answered by one of them nor forwarded
    /// to upstreams of their own.
    ///
    /// # Errors
    /// [`LocalError`] for the first zone that is broken or named twice.
    pub fn beside(
        sections: &[config::LocalZone],
        special: config::Special,
        forward: &config::Forward,
    ) -> Result<Self, LocalError> {
        let (apexes, mut keys) = apexes::of_sections(sections)?;
        let specials = special::zones(special, &keys, forward);
        let upstreams = apexes::of_upstreams(&specials, &keys, forward);
        keys.extend(specials.iter().map(|special| key_of(special.apex.as_name())));
        keys.extend(upstreams.iter().map(|&apex| key_of(apex)));
        let mut data = Self { endings: Endings::new(&keys), ..Self::default() };
        for (section, apex) in sections.iter().zip(&apexes) {
            let zone = Zone::compile(section, apex.as_name(), &keys, Kind::Whole)?;
            data.insert(apex.as_name(), Held::Zone(zone));
        }
        for Special { zone, apex, kind } in &specials {
            let zone = Zone::compile(zone, apex.as_name(), &keys, *kind)?;
            data.insert(apex.as_name(), Held::Zone(zone));
        }
        for apex in upstreams {
            data.insert(apex, Held::Upstreams);
        }
        Ok(data)
    }

    fn insert(&mut self, apex: Name<'_>, held: Held) {
        self.apex_depths |= 1 << apex.labels().count();
        self.zones.insert(key_of(apex), held);
    }

    /// The operator's answer to `qtype` at the name that is `folded` (lower case, wire form): `None` when no zone of his
    /// holds the name, nor is it special.
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
            match self.zones.get(&folded[start..]) {
                Some(Held::Zone(zone)) => return zone.lookup(folded, start, qtype),
                Some(Held::Upstreams) => return None,
                None => {}
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
