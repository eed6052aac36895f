//! From the rules of all lists to one image. See `layout` for its form.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ahash::RandomState;
use ipnet::IpNet;
use thiserror::Error;

use super::extras;
use super::hash::{self, Key, Room, Suffixes};
use super::layout::{COVERED_AT, HEAD_BYTES, Head, STEM_BYTES, STEM_WORDS, TAIL_BYTES};
use super::page::{Page, Stem};
use super::rule::{Kind, Owner, Rule};
use super::stored::{StoredRule, class};
use crate::wire::Name;

/// Names per word of the filter. Of strangers, some 1 in 70 get through, to a page: with more, fewer stems have room in the
/// processor's caches; with fewer, more look-ups read a page in vain (benches/filter.rs).
const NAMES_PER_WORD: usize = 6;

/// Different rules, their names apart. They share a word with the length of a name while they are sorted.
const RULES_MAX: u32 = 1 << 24;

/// Rules of one owner, in all lists, that have conditions or data of their own (types, clients, exceptions, a record): all of them
/// are weighed for every question at or below the owner. No list has so many for a name that is meant so.
pub(super) const RULES_PER_OWNER_MAX: usize = 64;

/// Rules of one owner in one list that have none and still differ: by what they cover, rank and do.
const VARIANTS_MAX: usize = 64;

/// Rules of one bundle: those with conditions, and of each list those without.
pub(super) const BUNDLE_RULES_MAX: usize = RULES_PER_OWNER_MAX + VARIANTS_MAX * 256;

/// Why an image cannot be built, or no further rule be taken.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum CompileError {
    /// More rules that differ in more than their names than an image can hold.
    #[error("there are more than {RULES_MAX} different rules")]
    Rules,
    /// Too many rules of one owner have conditions or data of their own.
    #[error(
        "there are more than {RULES_PER_OWNER_MAX} rules with conditions or data of their own for one owner"
    )]
    Owner,
    /// More octets of names than an image can hold.
    #[error("the names take more than 4 GiB")]
    Names,
    /// A set of types or clients, or a record, is too large.
    #[error("a rule names more than 255 types or clients, or too long a record")]
    Extras,
    /// Too many hashes lie close together; with another key they will not.
    #[error("the names crowd under this key: take another")]
    Crowded,
}

/// A name and one rule for it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    /// Where the name begins among all names.
    name: u32,
    /// The rule, and above it the octets of the name. After grouping, the bundle.
    rule_and_len: u32,
}

impl Entry {
    const fn rule(self) -> u32 {
        self.rule_and_len & (RULES_MAX - 1)
    }

    fn name(self, names: &[u8]) -> &[u8] {
        let start = self.name as usize;
        &names[start..start + (self.rule_and_len >> 24) as usize]
    }
}

/// A name and its bundle, on the way onto its page.
struct Placed {
    entry: Entry,
    bundle: u32,
}

/// Takes rules and makes an image of them.
///
/// It needs 16 octets and the length of its name for each rule, until the image is built.
#[derive(Debug)]
pub struct Compiler {
    key_octets: [u8; 16],
    key: Key,
    names: Vec<u8>,
    entries: Vec<Entry>,
    lengths: [u64; 4],
    root: Owned,
    networks: BTreeMap<(u8, u128), Owned>,
    /// How many rules of a name have conditions, by its hash; for names that have such rules. Two names that share a hash, which
    /// nobody can aim at, share the number.
    conditions: HashMap<u64, u8, RandomState>,
    rules: Vec<StoredRule>,
    numbers: HashMap<StoredRule, u32, RandomState>,
    /// The rule of the line before, which mostly is that of this line, too.
    last: Option<(StoredRule, u32)>,
    extras: Vec<u8>,
    places: HashMap<Box<[u8]>, u32, RandomState>,
}

impl Compiler {
    /// Begins an image under a secret key.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        let key_octets = Key::spread(key);
        Self {
            key_octets,
            key: Key::of(key_octets),
            names: Vec::new(),
            entries: Vec::new(),
            lengths: [0; 4],
            root: Owned::default(),
            networks: BTreeMap::new(),
            conditions: HashMap::default(),
            rules: Vec::new(),
            numbers: HashMap::default(),
            last: None,
            // 0 means that a rule has none.
            extras: vec![0],
            places: HashMap::default(),
        }
    }

    /// Adds a rule of the list with the number `list`. The order of a list's rules is kept where nothing else decides.
    ///
    /// # Errors
    /// [`CompileError`] when there is no room; what was added before stays.
    pub fn add(&mut self, list: u8, kind: Kind, rule: &Rule<'_>) -> Result<(), CompileError> {
        let is_plain = is_plain(rule);
        match rule.owner {
            Owner::Addresses(net) => {
                let net = network(net);
                if !is_plain {
                    self.networks.entry(net).or_default().count()?;
                }
                let number = self.number(list, kind, rule)?;
                self.networks.entry(net).or_default().rules.push(number);
                Ok(())
            }
            Owner::Name(name) if name.is_root() => {
                if !is_plain {
                    self.root.count()?;
                }
                let number = self.number(list, kind, rule)?;
                self.root.rules.push(number);
                Ok(())
            }
            Owner::Name(name) => {
                if !is_plain {
                    let folded = name.as_bytes().to_ascii_lowercase();
                    let mut room = Room::default();
                    let hash = Suffixes::of(self.key, &folded, &mut room).hash(folded.len());
                    count(self.conditions.entry(hash).or_default())?;
                }
                let number = self.number(list, kind, rule)?;
                self.add_name(name, number)
            }
        }
    }

    fn add_name(&mut self, name: Name<'_>, number: u32) -> Result<(), CompileError> {
        let start = u32::try_from(self.names.len()).map_err(|_| CompileError::Names)?;
        self.names.extend(name.as_bytes());
        let folded = &mut self.names[start as usize..];
        folded.make_ascii_lowercase();
        let hash = Suffixes::of(self.key, folded, &mut Room::default()).hash(folded.len());
        self.lengths[folded.len() / 64] |= 1 << (folded.len() % 64);
        // The root is no part of what is kept.
        let len = u32::try_from(folded.len() - 1).map_err(|_| CompileError::Names)?;
        self.names.pop();
        self.entries.push(Entry { hash, name: start, rule_and_len: number | len << 24 });
        Ok(())
    }

    /// The number of the rule without its owner.
    fn number(&mut self, list: u8, kind: Kind, rule: &Rule<'_>) -> Result<u32, CompileError> {
        let mut stored = StoredRule::of(list, kind, rule);
        if !rule.types.is_all() {
            stored.types = self.place(|out| extras::write_types(rule.types, out))?;
        }
        if !rule.clients.is_all() {
            stored.clients = self.place(|out| extras::write_clients(rule.clients, out))?;
        }
        if !rule.except.is_empty() {
            stored.except = self.place(|out| extras::write_names(rule.except, out))?;
        }
        if let Some(record) = rule.record.filter(|_| stored.has_record()) {
            stored.record = self.place(|out| extras::write_record(&record, out))?;
        }
        if let Some((_, number)) = self.last.filter(|(last, _)| *last == stored) {
            return Ok(number);
        }
        let number = match self.numbers.get(&stored) {
            Some(&number) => number,
            None if self.rules.len() >= RULES_MAX as usize => return Err(CompileError::Rules),
            None => {
                let number = u32::try_from(self.rules.len()).map_err(|_| CompileError::Rules)?;
                self.rules.push(stored);
                self.numbers.insert(stored, number);
                number
            }
        };
        self.last = Some((stored, number));
        Ok(number)
    }

    /// Where the octets lie among the extras that `write` writes.
    fn place(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Option<()>,
    ) -> Result<u32, CompileError> {
        let mut octets = Vec::new();
        write(&mut octets).ok_or(CompileError::Extras)?;
        if let Some(&at) = self.places.get(octets.as_slice()) {
            return Ok(at);
        }
        let at = u32::try_from(self.extras.len()).map_err(|_| CompileError::Extras)?;
        self.extras.extend(&octets);
        self.places.insert(octets.into(), at);
        Ok(at)
    }

    /// Builds the image. `stamp` is kept in it for the caller: say, a fingerprint of what it was made of.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn finish(mut self, stamp: u64) -> Result<Vec<u8>, CompileError> {
        let mut bundles = Bundles::default();
        let placed = self.group(&mut bundles)?;
        let root = &mut self.root.rules;
        let root = (!root.is_empty()).then(|| bundles.number(root, &self.rules));
        let networks: Vec<_> = std::mem::take(&mut self.networks)
            .into_iter()
            .map(|(net, mut owned)| (net, bundles.number(&mut owned.rules, &self.rules)))
            .collect();
        let too_many = |_| CompileError::Rules;
        let common = common(&placed, bundles.ends.len());
        let table = Table::fill(&placed, common, &self.names)?;
        let mut head = Head {
            stamp,
            key: self.key_octets,
            lengths: self.lengths,
            root,
            common,
            stems: u32::try_from(table.stems.len()).map_err(too_many)?,
            bundles: u32::try_from(bundles.ends.len()).map_err(too_many)?,
            rules: u32::try_from(bundles.rules.len()).map_err(too_many)?,
            networks: u32::try_from(networks.len()).map_err(too_many)?,
            ..Head::default()
        };
        head.extras_bytes = self.extras.len() as u64;
        head.pages_bytes = table.pages.len() as u64;
        head.names = placed.len() as u64;
        let end = head.parts().ok_or(CompileError::Names)?.pages.end;
        let mut image = Vec::with_capacity(end);
        image.extend(head.write(end));
        image.extend(table.stems.as_flattened());
        image.extend([0; 4]);
        image.extend(bundles.ends.iter().flat_map(|end| end.to_le_bytes()));
        for &number in &bundles.rules {
            image.extend(self.rules[number as usize].to_bytes());
        }
        for ((bits, address), bundle) in networks {
            image.extend(address.to_be_bytes());
            image.extend([bits, 0, 0, 0]);
            image.extend(bundle.to_le_bytes());
        }
        image.extend(&self.extras);
        image.extend(&table.pages);
        assert_eq!(image.len(), end, "the head says what follows it");
        let checksum = crc32fast::hash(&image[COVERED_AT..]);
        image[12..COVERED_AT].copy_from_slice(&checksum.to_le_bytes());
        Ok(image)
    }

    /// Sorts the entries by hash and joins those of one name.
    fn group(&mut self, bundles: &mut Bundles) -> Result<Vec<Placed>, CompileError> {
        let names = &self.names;
        // Two names with one hash are apart in this order, too; the rules of one name stand as they came.
        self.entries.sort_unstable_by(|left, right| {
            let by_name = || left.name(names).cmp(right.name(names));
            left.hash.cmp(&right.hash).then_with(by_name).then(left.name.cmp(&right.name))
        });
        let is_same = |left: &Entry, right: &Entry| {
            left.hash == right.hash && left.name(names) == right.name(names)
        };
        let mut placed = Vec::with_capacity(self.entries.len());
        let mut numbers = Vec::new();
        for group in self.entries.chunk_by(is_same) {
            numbers.clear();
            numbers.extend(group.iter().map(|entry| entry.rule()));
            let bundle = bundles.number(&mut numbers, &self.rules);
            placed.push(Placed { entry: group[0], bundle });
        }
        self.entries = Vec::new();
        if bundles.ends.len() >= u32::MAX as usize { Err(CompileError::Rules) } else { Ok(placed) }
    }
}

/// Whether nothing but the owner tells `rule` from many others.
const fn is_plain(rule: &Rule<'_>) -> bool {
    rule.types.is_all() && rule.clients.is_all() && rule.except.is_empty() && rule.record.is_none()
}

/// Counts one more rule with conditions.
fn count(held: &mut u8) -> Result<(), CompileError> {
    if usize::from(*held) >= RULES_PER_OWNER_MAX {
        return Err(CompileError::Owner);
    }
    *held += 1;
    Ok(())
}

/// The rules of one owner.
#[derive(Debug, Default)]
struct Owned {
    rules: Vec<u32>,
    /// How many have conditions.
    conditions: u8,
}

impl Owned {
    fn count(&mut self) -> Result<(), CompileError> {
        count(&mut self.conditions)
    }
}

/// The rules of names, each combination once.
#[derive(Default)]
struct Bundles {
    rules: Vec<u32>,
    ends: Vec<u32>,
    /// The bundle of one rule, plus one.
    singles: Vec<u32>,
    numbers: HashMap<Box<[u32]>, u32, RandomState>,
}

impl Bundles {
    /// The number of the bundle of `rules`: brought into the order in which they are to be weighed, without repetitions.
    fn number(&mut self, rules: &mut Vec<u32>, stored: &[StoredRule]) -> u32 {
        self.singles.resize(stored.len(), 0);
        if rules.iter().any(|&number| stored[number as usize].cancels()) {
            take_back(rules, stored);
        }
        if let &mut [only] = rules.as_mut_slice() {
            if self.singles[only as usize] == 0 {
                self.singles[only as usize] = self.push(&[only]) + 1;
            }
            return self.singles[only as usize] - 1;
        }
        // Stable: within a list and class, lines keep their order.
        rules.sort_by_key(|&number| {
            let rule = &stored[number as usize];
            (std::cmp::Reverse(class(rule)), rule.list)
        });
        let mut seen = std::collections::HashSet::<u32, RandomState>::default();
        rules.retain(|&number| seen.insert(number));
        // No list can make as many: those with conditions were counted when they came.
        rules.truncate(BUNDLE_RULES_MAX);
        if rules.len() == 1 {
            return self.number(rules, stored);
        }
        if let Some(&number) = self.numbers.get(rules.as_slice()) {
            return number;
        }
        let number = self.push(rules);
        self.numbers.insert(rules.as_slice().into(), number);
        number
    }

    #[expect(clippy::cast_possible_truncation, reason = "`finish` and `group` check the counts")]
    fn push(&mut self, rules: &[u32]) -> u32 {
        self.rules.extend(rules);
        self.ends.push(self.rules.len() as u32);
        self.ends.len() as u32 - 1
    }
}

/// Takes out the rules that others take back, and these others.
fn take_back(rules: &mut Vec<u32>, stored: &[StoredRule]) {
    let of = |number: u32| &stored[number as usize];
    let taken: std::collections::HashSet<StoredRule, RandomState> =
        rules.iter().filter_map(|&number| of(number).taken_back()).collect();
    rules.retain(|&number| !of(number).cancels() && !taken.contains(&of(number).in_any_list()));
}

/// The bundle that most names have.
fn common(placed: &[Placed], bundles: usize) -> u32 {
    let mut counts = vec![0_u32; bundles];
    placed.iter().for_each(|placed| counts[placed.bundle as usize] += 1);
    (0..).zip(counts).max_by_key(|&(_, count)| count).map_or(0, |(bundle, _)| bundle)
}

/// Stems and the pages behind them.
struct Table {
    stems: Vec<[u8; STEM_BYTES]>,
    pages: Vec<u8>,
}

impl Table {
    /// Puts every name on the page of its word.
    fn fill(placed: &[Placed], common: u32, names: &[u8]) -> Result<Self, CompileError> {
        let count = placed.len().div_ceil(NAMES_PER_WORD * STEM_WORDS).max(1);
        let mut stems = Vec::with_capacity(count);
        let mut pages = Vec::with_capacity(names.len().min(placed.len() * 32));
        let mut entries = Vec::new();
        let mut rest = placed;
        for stem in 0..count {
            let (mut words, mut starts) = ([0; STEM_WORDS], [0; STEM_WORDS]);
            for (nth, (word, start)) in (0..).zip(words.iter_mut().zip(&mut starts)) {
                *start = pages.len();
                let is_here =
                    |placed: &&Placed| hash::place(placed.entry.hash, count) == (stem, nth);
                let (here, behind) = rest.split_at(rest.iter().take_while(is_here).count());
                rest = behind;
                if here.is_empty() {
                    continue;
                }
                *word = here.iter().fold(0, |bits, name| bits | hash::filter_bits(name.entry.hash));
                entries.clear();
                entries.extend(here.iter().map(|Placed { entry, bundle }| {
                    let own = (*bundle != common).then_some(*bundle);
                    (hash::tag(entry.hash), own, entry.name(names))
                }));
                Page::write(&entries, &mut pages).ok_or(CompileError::Crowded)?;
            }
            if u32::try_from(pages.len()).is_err() {
                return Err(CompileError::Names);
            }
            stems.push(Stem::write(&words, &starts).ok_or(CompileError::Crowded)?);
        }
        pages.extend([0; TAIL_BYTES]);
        Ok(Self { stems, pages })
    }
}

/// How networks are sorted: by the length of the prefix, as one of IPv6, then by address.
fn network(net: IpNet) -> (u8, u128) {
    let bits = match net {
        IpNet::V4(net) => 96 + net.prefix_len(),
        IpNet::V6(net) => net.prefix_len(),
    };
    (bits, mapped(net.network()))
}

/// An address as one of IPv6.
pub(super) fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

const _: () = assert!(HEAD_BYTES.is_multiple_of(STEM_BYTES));
