//! Hot path. Names of hosts files: one look-up in one table; an entry holds its name and its answers, ready to be sent.

pub(super) mod text;

use ahash::RandomState;
use hashbrown::HashTable;

use super::records::{RrSet, Sets};
use crate::time::CacheTime;
use crate::wire::answer::Shape;
use crate::wire::{Answer, Flags, Name, Rcode, Rtype};

/// Addresses of one family that a name may have; more would be no answer for anybody.
const ADDRESSES_MAX: usize = 1_024;

/// Octets of a record before its RDATA: the pointer to the question, type, class, TTL and length.
const HEAD_BYTES: usize = 12;

/// Where the TTL stands in a record.
const TTL_AT: usize = 6;

/// A record with an IPv4 or an IPv6 address.
const A_BYTES: usize = HEAD_BYTES + 4;
const AAAA_BYTES: usize = HEAD_BYTES + 16;

/// The names in the SOA record: the one that was asked for, as its server, and nobody (as in empty zones, RFC 6303 §3).
const SOA_NAMES: &[u8] = b"\xC0\x0C\x06nobody\x07invalid\0";

/// Octets between the name and the records of an entry: how many IPv4 and IPv6 addresses, and the length of the PTR record.
const COUNTS_BYTES: usize = 6;

/// All names of the files.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// Where each entry begins, by the hash of its name.
    index: HashTable<u32>,
    hasher: RandomState,
    /// The entries: the name in wire form and lower case, the counts, the records of type A, AAAA and PTR.
    entries: Box<[u8]>,
    /// Offsets of the TTLs in records of type A and PTR, and of type AAAA, one behind the other.
    a_ttls: Box<[u8]>,
    aaaa_ttls: Box<[u8]>,
    /// The SOA record of a name that has nothing of a type, as if each were a zone of its own (RFC 2308 §2.2).
    soa: Box<[u8]>,
}

/// An entry taken apart.
struct Entry<'a> {
    a: &'a [u8],
    aaaa: &'a [u8],
    ptr: &'a [u8],
}

impl Hosts {
    /// Joins `entries`, each written by [`write_entry`] and beginning at one of `starts`; no two have the same name. That a
    /// name has nothing of a type holds for `ttl` seconds.
    fn new(entries: Vec<u8>, starts: &[u32], ttl: u32) -> Self {
        let hasher = RandomState::new();
        let mut index = HashTable::with_capacity(starts.len());
        let hash = |&start: &u32| hasher.hash_one(name_at(&entries, start));
        for start in starts {
            index.insert_unique(hash(start), *start, hash);
        }
        let ttls = |record_bytes: usize| -> Box<[u8]> {
            let offsets = (0..ADDRESSES_MAX).map(|count| count * record_bytes + TTL_AT);
            let offsets = offsets.filter_map(|offset| u16::try_from(offset).ok());
            offsets.flat_map(u16::to_le_bytes).collect()
        };
        let (a_ttls, aaaa_ttls) = (ttls(A_BYTES), ttls(AAAA_BYTES));
        let mut soa = Vec::new();
        let numbers = [1, 3_600, 1_200, 604_800, ttl].map(u32::to_be_bytes);
        let rdata = [SOA_NAMES, numbers.as_flattened()].concat();
        write_record(&mut soa, Rtype::SOA, ttl, &rdata);
        Self { index, hasher, entries: entries.into(), a_ttls, aaaa_ttls, soa: soa.into() }
    }

    /// Octets that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.index.allocation_size() + self.entries.len()
    }

    /// How many names there are, those of addresses included.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The answer to `qtype` at the name that is `folded`.
    #[inline]
    pub(super) fn lookup(&self, folded: &[u8], qtype: Rtype, now: CacheTime) -> Option<Answer<'_>> {
        if self.index.is_empty() {
            return None;
        }
        let Entry { a, aaaa, ptr } = self.entry(folded)?;
        let (body, count, ttls) = match qtype {
            Rtype::A => (a, a.len() / A_BYTES, &self.a_ttls),
            Rtype::AAAA => (aaaa, aaaa.len() / AAAA_BYTES, &self.aaaa_ttls),
            Rtype::PTR => (ptr, usize::from(!ptr.is_empty()), &self.a_ttls),
            _ => (&[][..], 0, &self.a_ttls),
        };
        let answers = u16::try_from(count).unwrap_or(u16::MAX);
        // NODATA has one record, too, in the authority section.
        let (body, counts) =
            if count == 0 { (&*self.soa, [0, 1, 0]) } else { (body, [answers, 0, 0]) };
        let shape = Shape {
            rcode: Rcode::NOERROR,
            flags: Flags::AA,
            counts,
            essential_bytes: u16::try_from(body.len()).unwrap_or(u16::MAX),
        };
        Some(Answer { shape, body, ttls: ttls.get(..2 * count.max(1))?, stored: now })
    }

    fn entry(&self, folded: &[u8]) -> Option<Entry<'_>> {
        let is_same = |&start: &u32| {
            self.entries.get(start as usize..).is_some_and(|rest| rest.starts_with(folded))
        };
        let start = *self.index.find(self.hasher.hash_one(folded), is_same)?;
        let rest = self.entries.get(start as usize + folded.len()..)?;
        let (counts, rest) = rest.split_first_chunk::<COUNTS_BYTES>()?;
        let [a0, a1, b0, b1, p0, p1] = *counts;
        let number = |low, high| usize::from(u16::from_le_bytes([low, high]));
        let (a, rest) = rest.split_at_checked(number(a0, a1) * A_BYTES)?;
        let (aaaa, rest) = rest.split_at_checked(number(b0, b1) * AAAA_BYTES)?;
        Some(Entry { a, aaaa, ptr: rest.get(..number(p0, p1))? })
    }

    /// The records of `name`, which is in lower case, as a zone would have them.
    pub(super) fn sets(&self, name: Name<'_>) -> Option<Sets> {
        if self.index.is_empty() {
            return None;
        }
        let entry = self.entry(name.as_bytes())?;
        let records = [
            (Rtype::A, entry.a, A_BYTES),
            (Rtype::AAAA, entry.aaaa, AAAA_BYTES),
            (Rtype::PTR, entry.ptr, entry.ptr.len()),
        ];
        let mut sets = Sets::new();
        for (rtype, records, record_bytes) in records {
            for record in records.chunks_exact(record_bytes.max(1)) {
                let set: &mut RrSet = sets.entry(rtype).or_default();
                let (head, rdata) = record.split_at_checked(HEAD_BYTES)?;
                set.ttl = u32::from_be_bytes(*head.get(TTL_AT..)?.first_chunk()?);
                set.rdata.insert(rdata.to_vec());
            }
        }
        Some(sets)
    }
}

/// The name at `start`, its octets with the root label.
fn name_at(entries: &[u8], start: u32) -> &[u8] {
    let rest = entries.get(start as usize..).unwrap_or_default();
    Name::parse(rest).map_or(&[], Name::as_bytes)
}

/// Appends an entry for `name` with `records` of type A, AAAA and PTR, each written by [`write_record`].
fn write_entry(out: &mut Vec<u8>, name: &[u8], [a, aaaa, ptr]: [&[u8]; 3]) {
    out.extend(name);
    for count in [a.len() / A_BYTES, aaaa.len() / AAAA_BYTES, ptr.len()] {
        out.extend(u16::try_from(count).unwrap_or_default().to_le_bytes());
    }
    out.extend(a);
    out.extend(aaaa);
    out.extend(ptr);
}

/// Appends a record whose owner is the question's name.
fn write_record(out: &mut Vec<u8>, rtype: Rtype, ttl: u32, rdata: &[u8]) {
    out.extend(b"\xC0\x0C");
    out.extend(rtype.0.to_be_bytes());
    out.extend(b"\0\x01");
    out.extend(ttl.to_be_bytes());
    out.extend(u16::try_from(rdata.len()).unwrap_or_default().to_be_bytes());
    out.extend(rdata);
}

#[cfg(test)]
mod tests;
