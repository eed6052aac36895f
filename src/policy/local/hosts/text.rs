//! The text of hosts files (hosts(5)): an address, and the names that have it. A bad line is told, and spoils no other.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ahash::RandomState;
use hashbrown::HashTable;

use super::{
    A_BYTES, AAAA_BYTES, ADDRESSES_MAX, COUNTS_BYTES, HEAD_BYTES, Hosts, write_entry, write_record,
};
use crate::config;
use crate::wire::name::{LABEL_BYTES_MAX, NAME_BYTES_MAX};
use crate::wire::{Name, Rtype};

/// What every hosts file calls the machine itself and its networks. `[special]` knows `localhost`; the others mean something
/// else on every machine.
const OWN_NAMES: [&[u8]; 12] = [
    b"localhost",
    b"localhost.localdomain",
    b"localhost4",
    b"localhost6",
    b"broadcasthost",
    b"ip6-localhost",
    b"ip6-loopback",
    b"ip6-localnet",
    b"ip6-mcastprefix",
    b"ip6-allnodes",
    b"ip6-allrouters",
    b"ip6-allhosts",
];

/// Bad lines of a file that are told; more are only counted.
const COMPLAINTS_MAX: u64 = 3;

/// Characters of a bad line that are told.
const TOLD_CHARS: usize = 80;

/// A hosts file as it was read.
#[derive(Clone, Debug)]
pub struct HostsFile {
    /// Its name, for the operator.
    pub place: String,
    /// What stands in it.
    pub text: Vec<u8>,
}

/// Why a line, or a name in it, says nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flaw {
    Address,
    NoName,
    Name,
    TooMany,
}

impl Flaw {
    const fn problem(self) -> &'static str {
        match self {
            Self::Address => "does not begin with an IPv4 or IPv6 address",
            Self::NoName => "names nothing",
            Self::Name => "holds what is no host name: letters, digits, hyphens and underscores",
            Self::TooMany => "is beyond what fits into memory",
        }
    }
}

/// What a name has.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Value {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    /// The name with this number.
    Ptr(u32),
}

/// What has been read so far.
#[derive(Debug, Default)]
struct Draft {
    /// The wire forms of all names, one behind the other.
    names: Vec<u8>,
    /// Where each of them begins, by number.
    starts: Vec<u32>,
    /// Their numbers.
    index: HashTable<u32>,
    hasher: RandomState,
    values: Vec<(u32, Value)>,
    /// The first name of each address.
    reverse: HashMap<IpAddr, u32, RandomState>,
}

/// Reads `files`. Names for which `is_held` says yes are left to the zones that hold them.
///
/// Gives the names, and what is to be told to the operator.
pub(in crate::policy::local) fn read(
    section: &config::Hosts,
    files: &[HostsFile],
    is_held: impl Fn(&[u8]) -> bool,
) -> (Hosts, Vec<String>) {
    let mut draft = Draft::default();
    let mut complaints = Vec::new();
    let mut held = 0_u64;
    for HostsFile { place, text } in files {
        let mut bad = 0;
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        for (number, line) in (1..).zip(text.split(|&octet| octet == b'\n')) {
            let Err(flaw) = draft.line(line, section.ptr, &is_held, &mut held) else { continue };
            bad += 1;
            if bad <= COMPLAINTS_MAX {
                let line = String::from_utf8_lossy(line.trim_ascii());
                let line: String = line.chars().take(TOLD_CHARS).collect();
                complaints.push(format!("{place}:{number}: {line:?} {}", flaw.problem()));
            }
        }
        if bad > COMPLAINTS_MAX {
            complaints.push(format!("{place} has {bad} bad lines in all"));
        }
    }
    if held > 0 {
        complaints.push(format!(
            "hosts.files: {held} name(s) belong to [[local]] zones or [[rewrite]] tables, which answer for them"
        ));
    }
    let (hosts, left_out) = draft.finish(section.ttl, &is_held);
    if left_out > 0 {
        complaints.push(format!(
            "hosts.files: {left_out} address(es) are left out: a name has {ADDRESSES_MAX} of a family at most"
        ));
    }
    (hosts, complaints)
}

impl Draft {
    /// Reads one line. A bad name does not spoil its neighbours.
    fn line(
        &mut self,
        line: &[u8],
        with_ptr: bool,
        is_held: &impl Fn(&[u8]) -> bool,
        held: &mut u64,
    ) -> Result<(), Flaw> {
        let line = line.split(|&octet| octet == b'#').next().unwrap_or_default();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let Some(first) = words.next() else { return Ok(()) };
        let mut words = words.peekable();
        if words.peek().is_none() {
            return Err(Flaw::NoName);
        }
        let address = std::str::from_utf8(first).ok().and_then(|text| text.parse().ok());
        let mut outcome = Ok(());
        let mut is_first = true;
        for word in words.filter(|word| !is_own(word)) {
            let address = address.ok_or(Flaw::Address)?;
            let mut name = [0; NAME_BYTES_MAX];
            let Some(name) = read_name(word, &mut name) else {
                outcome = Err(Flaw::Name);
                continue;
            };
            if is_held(name) {
                *held += 1;
                continue;
            }
            let Some(number) = self.number(name) else { return Err(Flaw::TooMany) };
            let value = match address {
                IpAddr::V4(address) => Value::A(address),
                IpAddr::V6(address) => Value::Aaaa(address),
            };
            self.values.push((number, value));
            if std::mem::replace(&mut is_first, false) && with_ptr && has_name(address) {
                self.reverse.entry(address).or_insert(number);
            }
        }
        outcome
    }

    /// The number of `name`; `None` when there are more names than numbers.
    fn number(&mut self, name: &[u8]) -> Option<u32> {
        let Self { names, starts, index, hasher, .. } = self;
        let name_of = |number: u32| {
            let start = starts.get(number as usize).map_or(0, |&start| start as usize);
            let rest = names.get(start..).unwrap_or_default();
            Name::parse(rest).map_or(&[][..], Name::as_bytes)
        };
        let hash = hasher.hash_one(name);
        if let Some(known) = index.find(hash, |&number| name_of(number) == name) {
            return Some(*known);
        }
        let number = u32::try_from(starts.len()).ok()?;
        let start = u32::try_from(names.len()).ok()?;
        index.insert_unique(hash, number, |&number| hasher.hash_one(name_of(number)));
        starts.push(start);
        names.extend(name);
        Some(number)
    }

    fn name(&self, number: u32) -> &[u8] {
        let start = self.starts.get(number as usize).map_or(0, |&start| start as usize);
        let rest = self.names.get(start..).unwrap_or_default();
        Name::parse(rest).map_or(&[], Name::as_bytes)
    }

    /// Joins everything; says how many addresses were too many for their names.
    fn finish(mut self, ttl: u32, is_held: &impl Fn(&[u8]) -> bool) -> (Hosts, usize) {
        for (address, target) in std::mem::take(&mut self.reverse) {
            let name = reverse_name(address);
            if !is_held(&name)
                && let Some(number) = self.number(&name)
            {
                self.values.push((number, Value::Ptr(target)));
            }
        }
        // What is only needed to find names goes before the largest part comes.
        self.index = HashTable::new();
        self.values.sort_unstable();
        self.values.dedup();
        // To the octet: a million names must not lie in memory twice because a vector grows.
        let mut entries = Vec::with_capacity(self.entries_bytes());
        let mut starts = Vec::with_capacity(self.starts.len());
        let mut left_out = 0;
        for group in self.values.chunk_by(|(left, _), (right, _)| left == right) {
            let Some(&(number, _)) = group.first() else { continue };
            let [a, aaaa, ptr] = self.records(group, ttl, &mut left_out);
            let Ok(start) = u32::try_from(entries.len()) else {
                left_out += group.len();
                continue;
            };
            starts.push(start);
            write_entry(&mut entries, self.name(number), [&a, &aaaa, &ptr]);
        }
        (Hosts::new(entries, &starts, ttl), left_out)
    }

    /// How long the entries will be, if all addresses find their place.
    fn entries_bytes(&self) -> usize {
        let records = self.values.iter().map(|(_, value)| match value {
            Value::A(_) => A_BYTES,
            Value::Aaaa(_) => AAAA_BYTES,
            Value::Ptr(target) => HEAD_BYTES + self.name(*target).len(),
        });
        self.names.len() + self.starts.len() * COUNTS_BYTES + records.sum::<usize>()
    }

    /// The records of one name, of type A, AAAA and PTR.
    fn records(&self, group: &[(u32, Value)], ttl: u32, left_out: &mut usize) -> [Vec<u8>; 3] {
        let mut records = [Vec::new(), Vec::new(), Vec::new()];
        let mut counts = [0; 3];
        for (_, value) in group {
            let place = match value {
                Value::A(_) => 0,
                Value::Aaaa(_) => 1,
                Value::Ptr(_) => 2,
            };
            counts[place] += 1;
            if counts[place] > ADDRESSES_MAX {
                *left_out += 1;
                continue;
            }
            let out = &mut records[place];
            match value {
                Value::A(address) => write_record(out, Rtype::A, ttl, &address.octets()),
                Value::Aaaa(address) => write_record(out, Rtype::AAAA, ttl, &address.octets()),
                Value::Ptr(target) => write_record(out, Rtype::PTR, ttl, self.name(*target)),
            }
        }
        records
    }
}

fn is_own(word: &[u8]) -> bool {
    let word = word.strip_suffix(b".").unwrap_or(word);
    OWN_NAMES.iter().any(|own| word.eq_ignore_ascii_case(own))
        || word.len() > 10 && word[word.len() - 10..].eq_ignore_ascii_case(b".localhost")
}

/// Whether an address gets a PTR record: not the one of nobody, nor that of `localhost`, under which lists of blocked names
/// put others.
fn has_name(address: IpAddr) -> bool {
    let is_localhost = address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST;
    !is_localhost && !address.is_unspecified()
}

/// Reads a host name (RFC 952, RFC 1123 §2.1; and underscores, which many have) into lower case and wire form.
fn read_name<'b>(text: &[u8], out: &'b mut [u8; NAME_BYTES_MAX]) -> Option<&'b [u8]> {
    let text = text.strip_suffix(b".").unwrap_or(text);
    let mut at = 0;
    let mut is_number = true;
    for label in text.split(|&octet| octet == b'.') {
        let len =
            u8::try_from(label.len()).ok().filter(|len| (1..=LABEL_BYTES_MAX).contains(len))?;
        let is_edge = |octet: Option<&u8>| octet == Some(&b'-');
        let is_letter = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        if is_edge(label.first()) || is_edge(label.last()) || !label.iter().all(is_letter) {
            return None;
        }
        is_number = label.iter().all(u8::is_ascii_digit);
        // One octet stays for the root.
        let place =
            out.get_mut(at..=at + label.len()).filter(|_| at + label.len() + 1 < NAME_BYTES_MAX)?;
        place[0] = len;
        place[1..].copy_from_slice(label);
        place[1..].make_ascii_lowercase();
        at += label.len() + 1;
    }
    // The last label of a name is no number (RFC 1123 §2.1): it would be an address.
    if is_number {
        return None;
    }
    *out.get_mut(at)? = 0;
    out.get(..=at)
}

/// The name at which the PTR record of `address` stands, in wire form (RFC 1035 §3.5, RFC 3596 §2.5).
fn reverse_name(address: IpAddr) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut name = Vec::with_capacity(74);
    match address {
        IpAddr::V4(address) => {
            for octet in address.octets().into_iter().rev() {
                let text = octet.to_string();
                name.push(u8::try_from(text.len()).unwrap_or_default());
                name.extend(text.as_bytes());
            }
            name.extend(b"\x07in-addr\x04arpa\0");
        }
        IpAddr::V6(address) => {
            for octet in address.octets().into_iter().rev() {
                for nibble in [octet & 0xF, octet >> 4] {
                    name.extend([1, HEX[usize::from(nibble)]]);
                }
            }
            name.extend(b"\x03ip6\x04arpa\0");
        }
    }
    name
}
