//! Hot path. Zones that the operator answers himself, and special names. Everything is an answer in wire form before the first query comes.

mod apexes;
mod compile;
mod endings;
mod hosts;
mod join;
mod records;
mod rewrite;
mod special;
mod world;
mod writer;
mod zone;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use ahash::RandomState;
use thiserror::Error;

use super::Detour;
use crate::config;
use crate::time::CacheTime;
use crate::wire::answer::AnswerBuilder;
use crate::wire::{Answer, AnswerBuf, Class, Flags, Name, Rcode, Rtype};
use apexes::Apexes;
use endings::Endings;
use hosts::Hosts;
pub use hosts::text::HostsFile;
use world::World;
use zone::{Found, Node, Zone};

/// The answer for types that a rewritten name lacks. Without an SOA: there is no zone.
static NODATA: LazyLock<AnswerBuf> = LazyLock::new(|| {
    let mut nodata = AnswerBuf::empty(Rcode::NOERROR);
    nodata.shape.flags = Flags::AA;
    nodata
});

/// TTL of the answer to ANY, in seconds (RFC 8482 §4.2 advises a long one).
const ANY_TTL: u32 = 3_600;

/// Most labels of a name: 127 of one octet each, and the root.
const LABELS_MAX: usize = 127;

/// Why what the config says of local names cannot be served.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{place}: {what} \"{zone}\": {problem}")]
pub struct LocalError {
    /// What it is: a local zone or a rewrite.
    pub what: &'static str,
    /// Where the mistake stands, or where the records begin: `file:line`.
    pub place: String,
    /// The apex or name as configured.
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

/// What the operator has for a question.
#[derive(Debug)]
pub enum Local<'a> {
    /// This answer.
    Answer(Answer<'a>),
    /// An answer that was made for this question alone.
    Made(Box<AnswerBuf>),
    /// The way to a name that the node has to ask for. Those who ask without recursion never get this.
    Follow(&'a Detour),
    /// As [`Local::Follow`], for a way that was made for this question alone.
    FollowMade(Box<Detour>),
}

/// What the operator's answer to a question comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// A hosts file.
    Hosts,
    /// A rewrite of this name.
    Rewrite,
    /// A rewrite of all names below one.
    RewriteBelow,
    /// A zone of the config.
    Zone,
    /// A zone that is there without being written into the config.
    Special,
    /// Nothing: within a special name, upstreams have these names.
    Upstreams,
}

/// What a query wants beside its question.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Wants {
    /// RD: to have others asked.
    pub recursion: bool,
    /// DO: to have what proves that data is right.
    pub dnssec: bool,
}

/// Everything that local names are made of.
#[derive(Clone, Copy, Debug)]
pub struct Sections<'a> {
    /// Zones of the config.
    pub zones: &'a [config::LocalZone],
    /// Which special names are answered.
    pub special: config::Special,
    /// Zones with upstreams of their own.
    pub forward: &'a config::Forward,
    /// Single names.
    pub rewrites: &'a [config::Rewrite],
    /// How hosts files are read.
    pub hosts: &'a config::Hosts,
    /// The hosts files.
    pub hosts_files: &'a [HostsFile],
}

/// All local names.
#[derive(Debug, Default)]
pub struct LocalData {
    /// Keyed by the folded wire form of the apex.
    zones: HashMap<Box<[u8]>, Held, RandomState>,
    /// Rewritten names.
    single: HashMap<Box<[u8]>, Node, RandomState>,
    /// What all names below these are rewritten to.
    below: HashMap<Box<[u8]>, Node, RandomState>,
    /// Bit `n` is set when some apex or rewritten name has `n` labels: other suffixes need no look-up.
    depths: u128,
    endings: Endings,
    /// Which of the zones are not the operator's.
    specials: Apexes,
    /// What names below a DNAME are answered from, if there are any.
    world: Option<Box<World>>,
    hosts: Arc<Hosts>,
}

impl LocalData {
    /// Compiles the zones of the config, and nothing beside them.
    ///
    /// # Errors
    /// [`LocalError`] for the first zone that is broken or named twice.
    pub fn new(zones: &[config::LocalZone]) -> Result<Self, LocalError> {
        Self::beside(zones, config::Special::NONE, &config::Forward::default())
    }

    /// Compiles the zones of the config and those special names that are neither answered by one of them nor forwarded
    /// to upstreams of their own.
    ///
    /// # Errors
    /// [`LocalError`] for the first zone that is broken or named twice.
    pub fn beside(
        zones: &[config::LocalZone],
        special: config::Special,
        forward: &config::Forward,
    ) -> Result<Self, LocalError> {
        let hosts = &config::Hosts::default();
        let sections = Sections { zones, special, forward, rewrites: &[], hosts, hosts_files: &[] };
        Ok(Self::compile(&sections)?.0)
    }

    /// What the operator has for `qtype` at the name that is `folded` (lower case, wire form): `None` when no zone of his
    /// holds the name, nor is it special, nor did he delegate it and recursion is wanted. `now` becomes the time of local
    /// answers, which have no age.
    #[inline]
    #[must_use]
    pub fn lookup(
        &self,
        folded: &[u8],
        qtype: Rtype,
        wants: Wants,
        now: CacheTime,
    ) -> Option<Local<'_>> {
        self.lookup_noting(folded, qtype, wants, now, |_, _| {})
    }

    /// As [`LocalData::lookup`]; tells `note` what the answer comes from, and where in the name its owner or apex begins.
    #[inline]
    pub(in crate::policy) fn lookup_noting(
        &self,
        folded: &[u8],
        qtype: Rtype,
        wants: Wants,
        now: CacheTime,
        mut note: impl FnMut(Source, usize),
    ) -> Option<Local<'_>> {
        if let Some(answer) = self.hosts.lookup(folded, qtype, now) {
            note(Source::Hosts, 0);
            return Some(Local::Answer(answer));
        }
        if !self.endings.may_end(folded) {
            return None;
        }
        match self.find(folded, qtype, note)? {
            Found::Held(zone::Held::Answer(answer)) | Found::Negative(answer) => {
                Some(Local::Answer(answer.view(now)))
            }
            Found::Held(zone::Held::Follow(beyond)) => Some(beyond.local(wants, now)),
            Found::Referral(_) if wants.recursion => None,
            Found::Referral(referral) => Some(Local::Answer(referral.answer(wants).view(now))),
            Found::Redirected => self.redirected(folded, qtype, wants),
            Found::Parent => None,
        }
    }

    /// Octets that hosts files take.
    #[must_use]
    pub fn hosts_bytes(&self) -> usize {
        self.hosts.bytes()
    }

    /// How many names hosts files give, those of addresses included.
    #[must_use]
    pub fn hosts_names(&self) -> usize {
        self.hosts.len()
    }

    fn find(
        &self,
        folded: &[u8],
        qtype: Rtype,
        mut note: impl FnMut(Source, usize),
    ) -> Option<Found<'_>> {
        let mut starts = [0_u8; LABELS_MAX + 1];
        let mut depth = 0;
        let mut at = 0_u8;
        while let Some(&len @ 1..) = folded.get(usize::from(at)) {
            // A name has 255 octets at most, its last label begins below.
            at += 1 + len;
            depth += 1;
            starts[depth] = at;
        }
        let mut apex = None;
        // The longest apex wins: it is found first.
        for (above, &start) in starts[..=depth].iter().enumerate() {
            if self.depths >> (depth - above) & 1 == 0 {
                continue;
            }
            let start = usize::from(start);
            let part = &folded[start..];
            let rewrites = if above == 0 { &self.single } else { &self.below };
            if let Some(node) = rewrites.get(part).filter(|_| apex.is_none()) {
                note(if above == 0 { Source::Rewrite } else { Source::RewriteBelow }, start);
                return Some(node.held(qtype).map_or(Found::Negative(&NODATA), Found::Held));
            }
            let held = self.zones.get(part);
            if let Some(held) = held {
                note(self.source(held, part), start);
            }
            match held {
                // DS of an apex stands in the parent, if that is here, too (RFC 4035 §3.1.4.1).
                Some(Held::Zone(zone)) if above == 0 && qtype == Rtype::DS => apex = Some(zone),
                Some(Held::Zone(zone)) => {
                    let Some(apex) = apex else { return Some(zone.lookup(folded, start, qtype)) };
                    let ds = zone.ds(folded).map(Found::Held);
                    return Some(ds.unwrap_or_else(|| apex.lookup(folded, 0, qtype)));
                }
                Some(Held::Upstreams) if apex.is_none() => return None,
                Some(Held::Upstreams) => break,
                None => {}
            }
        }
        apex.map(|zone| zone.lookup(folded, 0, qtype))
    }

    /// What answers come from for names of `held`, whose apex is `apex`.
    #[inline]
    fn source(&self, held: &Held, apex: &[u8]) -> Source {
        match held {
            Held::Upstreams => Source::Upstreams,
            Held::Zone(_) if self.specials.contains(apex) => Source::Special,
            Held::Zone(_) => Source::Zone,
        }
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
