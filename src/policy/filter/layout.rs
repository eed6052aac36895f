//! The form of an image: where its parts lie. Positions are relative to its beginning, numbers little-endian.
//!
//! ```text
//! head       magic 8 · version 4 · CRC-32 of all behind it 4 · bytes in all 8 · stamp 8 · key 16 · lengths 32
//!            · bundle of the root 4, plus one · common bundle 4 · numbers 4 each: stems, bundles, rules, networks
//!            · bytes of extras 8 · bytes of pages 8 · names 8
//! stems      words 6 × 8, with four bits of each name's hash (a Bloom filter in blocks of one word)
//!            · where the page of the first word begins 4 · how far behind that of each word 6 × 2
//! bundles    where each begins among the rules 4; and the end of the last
//! rules      list 1 · verb 1 · bits 1 · class 1 · types 4 · clients 4 · record 4 · exceptions 4; where among the extras, or 0
//! networks   address 16 · bits of its prefix 1 · 0 3 · bundle 4; by prefix length, then address; IPv4 as ::ffff:0:0/96
//! extras     0 1 · type sets, client sets, records, sets of names
//! pages      for each word that is not 0, in their order: names 1 · tags 1 each · lengths 1 each
//!            · for each: bundle 4, if the highest bit of its tag is set (else it has the common one) · wire form without the root
//!            · behind the last page 0 16
//! ```
//!
//! Head and stems are what the look-up of an unlisted name touches; the others are read on a hit.

use std::ops::Range;

use thiserror::Error;

/// The first octets of every image.
pub const MAGIC: [u8; 8] = *b"heimfltr";

/// The form that is written and read.
pub(super) const VERSION: u32 = 3;

/// Bytes of the head; what follows keeps to cache lines.
pub(super) const HEAD_BYTES: usize = 128;

/// Where that begins which the checksum covers.
pub(super) const COVERED_AT: usize = 16;

/// Bytes of a stem: a cache line.
pub(super) const STEM_BYTES: usize = 64;

/// Words of the filter in a stem.
pub(super) const STEM_WORDS: usize = 6;

/// Bytes behind the last page, so that sixteen octets can be read wherever a name begins.
pub(super) const TAIL_BYTES: usize = 16;

/// Bytes of a rule.
pub(super) const RULE_BYTES: usize = 20;

/// Bytes of a network.
pub(super) const NETWORK_BYTES: usize = 24;

/// Bytes of the number of a bundle.
pub(super) const BUNDLE_BYTES: usize = 4;

/// Why bytes are not an image.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Flaw {
    /// They do not begin as an image does.
    #[error("it is no filter image of this program")]
    Foreign,
    /// Another version of this program wrote them.
    #[error("its form is version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// There are fewer or more than the head says.
    #[error("it is torn: its length is not the one that it states")]
    Length,
    /// The checksum does not match.
    #[error("its checksum does not match")]
    Checksum,
    /// The parts do not fit each other.
    #[error("its structure is broken")]
    Structure,
}

/// What the head says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Head {
    pub(super) stamp: u64,
    pub(super) key: [u8; 16],
    /// Bit `n`: some name has `n` octets, its root included.
    pub(super) lengths: [u64; 4],
    pub(super) root: Option<u32>,
    /// The bundle of most names.
    pub(super) common: u32,
    pub(super) stems: u32,
    pub(super) bundles: u32,
    pub(super) rules: u32,
    pub(super) networks: u32,
    pub(super) extras_bytes: u64,
    pub(super) pages_bytes: u64,
    pub(super) names: u64,
}

/// Where the parts lie.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Parts {
    pub(super) stems: Range<usize>,
    pub(super) bundles: Range<usize>,
    pub(super) rules: Range<usize>,
    pub(super) networks: Range<usize>,
    pub(super) extras: Range<usize>,
    pub(super) pages: Range<usize>,
}

impl Head {
    /// The parts in their order; `None` when they exceed what this machine can address.
    pub(super) fn parts(&self) -> Option<Parts> {
        let mut at = HEAD_BYTES;
        let mut take = |count: u64, bytes: usize| {
            let len = usize::try_from(count).ok()?.checked_mul(bytes)?;
            let start = at;
            at = at.checked_add(len)?;
            Some(start..at)
        };
        Some(Parts {
            stems: take(self.stems.into(), STEM_BYTES)?,
            bundles: take(u64::from(self.bundles) + 1, 4)?,
            rules: take(self.rules.into(), RULE_BYTES)?,
            networks: take(self.networks.into(), NETWORK_BYTES)?,
            extras: take(self.extras_bytes, 1)?,
            pages: take(self.pages_bytes, 1)?,
        })
    }

    /// The head of an image of `bytes` bytes, its checksum still to be filled in.
    pub(super) fn write(&self, bytes: usize) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            head[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(&MAGIC);
        put(&VERSION.to_le_bytes());
        put(&[0; 4]);
        put(&(bytes as u64).to_le_bytes());
        put(&self.stamp.to_le_bytes());
        put(&self.key);
        self.lengths.iter().for_each(|lengths| put(&lengths.to_le_bytes()));
        put(&self.root.map_or(0, |bundle| bundle + 1).to_le_bytes());
        put(&self.common.to_le_bytes());
        for count in [self.stems, self.bundles, self.rules, self.networks] {
            put(&count.to_le_bytes());
        }
        for count in [self.extras_bytes, self.pages_bytes, self.names] {
            put(&count.to_le_bytes());
        }
        head
    }

    /// Reads the head; checks that the length is right, and nothing else.
    pub(super) fn read(image: &[u8]) -> Result<Self, Flaw> {
        let head = image.first_chunk::<HEAD_BYTES>().ok_or(Flaw::Foreign)?;
        if !head.starts_with(&MAGIC) {
            return Err(Flaw::Foreign);
        }
        let version = u32_at(head, 8);
        if version != VERSION {
            return Err(Flaw::Version(version));
        }
        if u64_at(head, 16) != image.len() as u64 {
            return Err(Flaw::Length);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&head[32..48]);
        Ok(Self {
            stamp: u64_at(head, 24),
            key,
            lengths: [48, 56, 64, 72].map(|at| u64_at(head, at)),
            root: u32_at(head, 80).checked_sub(1),
            common: u32_at(head, 84),
            stems: u32_at(head, 88),
            bundles: u32_at(head, 92),
            rules: u32_at(head, 96),
            networks: u32_at(head, 100),
            extras_bytes: u64_at(head, 104),
            pages_bytes: u64_at(head, 112),
            names: u64_at(head, 120),
        })
    }
}

/// The number at `at`; 0 beyond the end.
#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_le_bytes(*four))
}

/// The number at `at`; 0 beyond the end.
#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u64::from_le_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_read_as_it_was_written() {
        let head = Head {
            stamp: 1,
            key: [2; 16],
            lengths: [1, 2, 3, 1 << 63 | 4],
            root: Some(0),
            common: 3,
            stems: 4,
            bundles: 5,
            rules: 6,
            networks: 7,
            extras_bytes: 8,
            pages_bytes: 9,
            names: 10,
        };
        let end = head.parts().unwrap().pages.end;
        let mut image = head.write(end).to_vec();
        image.resize(end, 0);
        assert_eq!(Head::read(&image), Ok(head));
        image.push(0);
        assert_eq!(Head::read(&image), Err(Flaw::Length));
        image[8] = 9;
        assert_eq!(Head::read(&image), Err(Flaw::Version(9)));
        image[0] = 9;
        assert_eq!(Head::read(&image), Err(Flaw::Foreign));
    }
}
