//! What a block may hold: a Bloom filter (Bloom 1970) over what searches ask for, so that they pass over blocks in which there is
//! none of it.

use std::net::IpAddr;

use super::super::entry::How;
use super::octets;
use crate::wire::Name;

/// Bits of the filter for each fact. Most facts come more than once, so there are a dozen bits for each different one, and one
/// block in a hundred is looked at in vain.
const BITS: usize = 8;

/// Places that each fact takes.
const PLACES: u64 = 4;

/// Ancestors of a name, with itself, that are facts: those nearest the root. For a longer one its nearest ancestor is asked for that
/// is a fact.
const DEPTH: usize = 8;

/// Something that holds for some query of a block. Names and labels are those of the block.
#[derive(Clone, Copy, Debug)]
pub enum Fact<'a> {
    /// It asks for this name, in lower case, or for one below it.
    Within(Name<'a>),
    /// This client asks.
    Client(IpAddr),
    /// It is of this group.
    Group(&'a str),
    /// This list decided it.
    List(&'a str),
    /// The answer came from there.
    How(How),
    /// It asks for this type.
    Qtype(u16),
    /// It got this RCODE.
    Rcode(u16),
}

impl Fact<'_> {
    fn hash(&self) -> u64 {
        match self {
            Self::Within(name) => {
                let mut hash = 0;
                each_ancestor(*name, |own| hash = own);
                hash
            }
            Self::Client(address) => mixed(chained(0x11, &octets(address.to_canonical()))),
            Self::Group(label) => mixed(chained(0x22, label.as_bytes())),
            Self::List(label) => mixed(chained(0x33, label.as_bytes())),
            Self::How(how) => mixed(chained(0x44, &[*how as u8])),
            Self::Qtype(qtype) => mixed(chained(0x55, &qtype.to_le_bytes())),
            Self::Rcode(rcode) => mixed(chained(0x66, &rcode.to_le_bytes())),
        }
    }
}

/// Whether the block with these `facts` may hold a query for which `fact` holds. Without any facts, it may.
#[must_use]
pub fn may_hold(facts: &[u8], fact: &Fact<'_>) -> bool {
    // All names end in the root.
    let is_any = matches!(fact, Fact::Within(name) if name.is_root());
    let bit = |place: usize| facts.get(place / 8).is_none_or(|octet| octet >> (place % 8) & 1 == 1);
    facts.is_empty() || is_any || places(fact.hash(), 8 * facts.len()).all(bit)
}

/// Gathers the facts of a block.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    hashes: Vec<u64>,
}

impl Sieve {
    pub(super) fn add(&mut self, fact: &Fact<'_>) {
        self.hashes.push(fact.hash());
    }

    pub(super) fn add_name(&mut self, name: Name<'_>) {
        each_ancestor(name, |hash| self.hashes.push(hash));
    }

    pub(super) fn octets(&self) -> Vec<u8> {
        let mut octets = vec![0; (BITS * self.hashes.len()).div_ceil(8)];
        let bits = 8 * octets.len();
        for place in self.hashes.iter().flat_map(|&hash| places(hash, bits)) {
            octets[place / 8] |= 1 << (place % 8);
        }
        octets
    }
}

/// Where `hash` stands among so many bits.
fn places(hash: u64, bits: usize) -> impl Iterator<Item = usize> {
    // Two halves of one hash do for all places (Kirsch, Mitzenmacher 2006).
    let (first, step) = (hash & 0xFFFF_FFFF, hash >> 32 | 1);
    (0..PLACES).map(move |turn| {
        let place = first.wrapping_add(turn.wrapping_mul(step)) & 0xFFFF_FFFF;
        usize::try_from((place * bits as u64) >> 32).unwrap_or(0)
    })
}

/// Hands the hashes of `name`'s ancestors to `each`, from below the root to itself, or as deep as facts go.
fn each_ancestor(name: Name<'_>, mut each: impl FnMut(u64)) {
    let mut labels = [&[][..]; 128];
    let mut count = 0;
    for (place, label) in labels.iter_mut().zip(name.labels()) {
        *place = label;
        count += 1;
    }
    let mut hash = 0x77;
    for label in labels[..count].iter().rev().take(DEPTH) {
        let [len, ..] = label.len().to_le_bytes();
        hash = chained(chained(hash, &[len]), label);
        each(mixed(hash));
    }
}

/// FNV-1a, continued. What it finds is on disk, so it is the same in every build.
fn chained(hash: u64, octets: &[u8]) -> u64 {
    octets.iter().fold(hash ^ 0xCBF2_9CE4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// Spreads what is known over all bits (the finalizer of MurmurHash3, public domain).
const fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash = (hash ^ hash >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ hash >> 33
}
