//! Hot path. Which rule decides over a name: the name and all its ancestors in one pass over the octets of an image.
//!
//! Per name and ancestor: eight octets of the filter; where it says "maybe", a page; where a tag on it is the same, the
//! name itself. Only what is equal octet by octet is a hit. Reads are bounded by the image, steps by the labels of the
//! name and the names of a page, 255 at most.
//!
//! Four ancestors at a time are looked up in the filter, without asking whether there are so many, and only then those are followed
//! up that may be listed: no load waits for another, and the processor, which cannot guess how many labels there will be and at
//! which of them there will be something, has nothing to guess. Lengths that no listed name has are not followed up at all.

use std::net::IpAddr;
use std::ops::Range;

use super::compile::mapped;
use super::extras;
use super::hash::{self, Key, Room, Suffixes};
use super::layout::{Head, NETWORK_BYTES, Parts, RULE_BYTES, STEM_BYTES, u32_at};
use super::page::{Page, Stem};
use super::rule::{Lists, LocalRecord, Reach, Trigger, Verb};
use super::stored::{StoredRule, class};
use crate::wire::Rtype;
use crate::wire::name::NAME_BYTES_MAX;

/// Ancestors that are looked up in the filter at a time: all that most names have.
const STRIDE: usize = 4;

/// Octets of a page that are touched before it is known where on it the name is: most pages have little more.
const PAGE_BYTES_TOUCHED: usize = 192;

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The lists that count for him.
    pub lists: &'a Lists,
    /// The type that he asks for.
    pub qtype: Rtype,
    /// His address.
    pub address: IpAddr,
    /// What the operator calls him.
    pub name: Option<&'a str>,
}

/// The rule that decides.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// The list that it stands in.
    pub list: u8,
    /// What is to happen.
    pub verb: Verb,
    /// Whether its list calls it important.
    pub is_important: bool,
    /// Which names it covers.
    pub reach: Reach,
    /// Where its owner begins in the name that was looked up; of addresses, the bits behind the prefix. The nearer, the less.
    pub owner_at: usize,
    rule: StoredRule,
    bundle: &'a [[u8; RULE_BYTES]],
    extras: &'a [u8],
}

impl<'a> Decision<'a> {
    /// The records of [`Verb::Local`].
    pub fn records(&self) -> impl Iterator<Item = LocalRecord<'a>> + use<'a> {
        let (chosen, extras) = (self.rule, self.extras);
        let same = self.bundle.iter().map(StoredRule::of_bytes);
        let same = same.filter(move |rule| rule.is_same_but_for_record(&chosen));
        same.filter(|rule| rule.record != 0)
            .filter_map(move |rule| extras::read_record(extras.get(rule.record as usize..)?))
    }

    /// What the rule's owner was compared with.
    #[must_use]
    pub fn trigger(&self) -> Trigger {
        self.rule.trigger()
    }

    /// Whether this comes before `other`, which was found for another reason: that of the earlier of two response policy
    /// zones; else the one of the higher class, then of the earlier list.
    #[must_use]
    pub fn outranks(&self, other: &Self) -> bool {
        if self.rule.is_zoned() && other.rule.is_zoned() {
            return self.list < other.list;
        }
        let rank = |decision: &Self| (std::cmp::Reverse(class(&decision.rule)), decision.list);
        rank(self) < rank(other)
    }
}

/// Reads an [`Image`](super::Image).
#[derive(Clone, Copy, Debug)]
pub struct Matcher<'a> {
    bytes: &'a [u8],
    head: &'a Head,
    parts: &'a Parts,
    lengths: &'a [i8; 256],
    /// No name is passed over because the filter does not know it.
    is_exact: bool,
}

impl<'a> Matcher<'a> {
    #[inline]
    pub(super) const fn of(
        bytes: &'a [u8],
        head: &'a Head,
        parts: &'a Parts,
        lengths: &'a [i8; 256],
    ) -> Self {
        Self { bytes, head, parts, lengths, is_exact: false }
    }

    /// The same, which looks every name up in the table, whatever the filter before it says, if `is_exact`.
    #[inline]
    #[must_use]
    pub const fn exact(self, is_exact: bool) -> Self {
        Self { is_exact, ..self }
    }

    /// The rule that decides over a question for the name that is `folded` (lower case, wire form, root included).
    #[inline]
    #[must_use]
    pub fn decide(&self, folded: &[u8], asker: &Asker<'_>) -> Option<Decision<'a>> {
        self.decide_by(Trigger::Qname, folded, asker)
    }

    /// The rule that decides over an answer because a server of the zone is called `folded`.
    #[must_use]
    pub fn decide_nsdname(&self, folded: &[u8], asker: &Asker<'_>) -> Option<Decision<'a>> {
        self.decide_by(Trigger::Nsdname, folded, asker)
    }

    #[inline]
    fn decide_by(
        &self,
        trigger: Trigger,
        folded: &[u8],
        asker: &Asker<'_>,
    ) -> Option<Decision<'a>> {
        if folded.is_empty() || folded.len() > NAME_BYTES_MAX {
            return None;
        }
        let question = Question { trigger, asker, name: folded };
        let mut scales = Scales::default();
        if let Some(root) = self.head.root {
            self.weigh_root(&mut scales, root, &question);
        }
        let mut room = Room::default();
        let suffixes = Suffixes::of(Key::of(self.head.key), folded, &mut room);
        if self.is_exact {
            self.follow_all(&mut scales, &suffixes, &question);
            return self.outcome(&scales);
        }
        let stems = self.stems();
        let mut len = folded.len();
        while len > 1 {
            let (mut probes, mut maybe) = ([Probe::default(); STRIDE], 0_u32);
            for probe in &mut probes {
                // Without branches: a length that no name has leads to the first stem, which is close at hand.
                let is_length = i64::from(self.lengths[len % 256]).cast_unsigned();
                let hash = suffixes.hash(len) & is_length;
                *probe = Probe { hash, len };
                maybe = 2 * maybe + u32::from(may_hold(stems, hash, !is_length));
                // Behind the root comes the root again.
                len = suffixes.parent(len);
            }
            if maybe != 0 {
                self.follow(&mut scales, maybe, &probes, &suffixes, &question);
            }
        }
        // Most names are not listed, and need not pay for what comes now.
        if scales.has_any { self.outcome(&scales) } else { None }
    }

    /// Lays on the scales what is said about the root, and so about every name.
    #[inline(never)]
    fn weigh_root(&self, scales: &mut Scales<'a>, bundle: u32, question: &Question<'_>) {
        if is_whole(question.name) {
            self.weigh(scales, bundle, question.name.len() - 1, question);
        }
    }

    /// Lays on the scales what is said about those of some ancestors that are listed: of the last one, if the lowest bit is set.
    #[inline(never)]
    fn follow(
        &self,
        scales: &mut Scales<'a>,
        mut maybe: u32,
        probes: &[Probe; STRIDE],
        name: &Suffixes<'_>,
        question: &Question<'_>,
    ) {
        while maybe != 0 {
            let nth = STRIDE - 1 - maybe.trailing_zeros() as usize % STRIDE;
            maybe &= maybe - 1;
            let probe = probes[nth];
            if let Some(bundle) = self.find(probe, name) {
                self.weigh(scales, bundle, question.name.len() - probe.len, question);
            }
        }
    }

    /// Lays on the scales what is said about the name and all its ancestors.
    #[cold]
    fn follow_all(&self, scales: &mut Scales<'a>, name: &Suffixes<'_>, question: &Question<'_>) {
        let mut len = question.name.len();
        while len > 1 {
            let probe = Probe { hash: name.hash(len), len };
            if let Some(bundle) = self.find(probe, name) {
                self.weigh(scales, bundle, question.name.len() - len, question);
            }
            len = name.parent(len);
        }
    }

    /// The rule that decides over an answer because `address` is in it.
    #[must_use]
    pub fn decide_address(&self, address: IpAddr, asker: &Asker<'_>) -> Option<Decision<'a>> {
        self.decide_by_address(Trigger::Qname, address, asker)
    }

    /// The rule that decides over every question because of who asks. In a response policy zone it comes before those for names.
    #[must_use]
    pub fn decide_client(&self, asker: &Asker<'_>) -> Option<Decision<'a>> {
        self.decide_by_address(Trigger::Client, asker.address.to_canonical(), asker)
    }

    fn decide_by_address(
        &self,
        trigger: Trigger,
        address: IpAddr,
        asker: &Asker<'_>,
    ) -> Option<Decision<'a>> {
        let wanted = mapped(address);
        let question = Question { trigger, asker, name: &[] };
        let mut scales = Scales::default();
        let mut rest = self.part(&self.parts.networks).as_chunks::<NETWORK_BYTES>().0;
        // By the length of the prefix, the shortest first: of equals, the last one weighed wins.
        while let Some(first) = rest.first() {
            let bits = first[16];
            let (same, longer) = rest.split_at(rest.partition_point(|net| net[16] == bits));
            rest = longer;
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            let of = |net: &[u8; NETWORK_BYTES]| {
                net.first_chunk().map_or(0, |octets| u128::from_be_bytes(*octets))
            };
            if let Ok(at) = same.binary_search_by_key(&(wanted & mask), of) {
                let above = usize::from(128 - bits);
                let bundle = u32_at(&same[at], 20);
                self.weigh(&mut scales, bundle, above, &question);
            }
        }
        self.outcome(&scales)
    }

    #[inline]
    fn part(&self, range: &Range<usize>) -> &'a [u8] {
        self.bytes.get(range.start..range.end).unwrap_or_default()
    }

    #[inline]
    fn stems(&self) -> &'a [[u8; STEM_BYTES]] {
        self.part(&self.parts.stems).as_chunks().0
    }

    /// The bundle of an ancestor, if it is listed.
    #[inline]
    fn find(&self, probe: Probe, name: &Suffixes<'_>) -> Option<u32> {
        let stems = self.stems();
        let (stem, nth) = hash::place(probe.hash, stems.len());
        let page_at = Stem(stems.get(stem)?).page_at(nth);
        let page = self.part(&self.parts.pages).get(page_at..)?;
        touch(page);
        let found = Page::read(page)?.find(hash::tag(probe.hash), name, probe.len)?;
        Some(found.bundle.unwrap_or(self.head.common))
    }

    /// Lays the rules of a bundle on the scales, as far as they are for this question.
    #[inline]
    fn weigh(
        &self,
        scales: &mut Scales<'a>,
        bundle: u32,
        owner_at: usize,
        question: &Question<'_>,
    ) {
        let bundle = self.rules_of(bundle);
        let is_at = owner_at == 0 || question.name.is_empty();
        for bytes in bundle {
            let rule = StoredRule::of_bytes(bytes);
            let applies = rule.trigger() == question.trigger
                && rule.reach().covers(is_at)
                && self.is_for(&rule, question);
            if applies {
                scales.add(Weight { bundle, rule, owner_at });
            }
        }
    }

    #[inline]
    fn rules_of(&self, bundle: u32) -> &'a [[u8; RULE_BYTES]] {
        let ends = self.part(&self.parts.bundles).as_chunks().0;
        let end = |at: usize| ends.get(at).map_or(0, |end| u32::from_le_bytes(*end) as usize);
        let (start, end) = (end(bundle as usize), end(bundle as usize + 1));
        let rules = self.part(&self.parts.rules).get(start * RULE_BYTES..end * RULE_BYTES);
        rules.unwrap_or_default().as_chunks().0
    }

    /// What the heaviest rule says.
    #[inline]
    fn outcome(&self, scales: &Scales<'a>) -> Option<Decision<'a>> {
        let Weight { bundle, rule, owner_at } = scales.heaviest()?;
        Some(Decision {
            list: rule.list,
            verb: rule.verb(),
            is_important: rule.is_important(),
            reach: rule.reach(),
            owner_at,
            rule,
            bundle,
            extras: self.part(&self.parts.extras),
        })
    }

    #[inline]
    fn is_for(&self, rule: &StoredRule, question: &Question<'_>) -> bool {
        let extras = || self.part(&self.parts.extras);
        let at = |place: u32| extras().get(place as usize..).unwrap_or_default();
        let asker = question.asker;
        asker.lists.contains(rule.list)
            && (rule.types == 0
                || extras::has_type(at(rule.types), asker.qtype).unwrap_or_default())
            && (rule.clients == 0
                || extras::has_client(at(rule.clients), asker.address, asker.name)
                    .unwrap_or_default())
            && (rule.except == 0
                || !extras::has_name(at(rule.except), question.name).unwrap_or(true))
            && !(rule.is_rewrite() && self.is_to(rule, question.name))
    }

    /// Whether a rule rewrites `folded` to itself.
    fn is_to(&self, rule: &StoredRule, folded: &[u8]) -> bool {
        let record = self.part(&self.parts.extras).get(rule.record as usize..);
        let record = record.and_then(extras::read_record);
        let target = record.filter(|record| rule.record != 0 && record.rtype == Rtype::CNAME);
        target.is_some_and(|target| target.rdata == folded)
    }
}

/// What the rules are weighed for.
struct Question<'q> {
    trigger: Trigger,
    asker: &'q Asker<'q>,
    /// Folded, root included; nothing where addresses decide.
    name: &'q [u8],
}

/// An ancestor that is looked up: the octets that it has, root included, and the hash of them.
#[derive(Clone, Copy, Debug, Default)]
struct Probe {
    hash: u64,
    len: usize,
}

/// Whether a name with this hash may be listed. `never`: no bit, or all of them if it cannot be.
#[inline]
fn may_hold(stems: &[[u8; STEM_BYTES]], hash: u64, never: u64) -> bool {
    let (stem, nth) = hash::place(hash, stems.len());
    let word = stems.get(stem).map_or(0, |stem| Stem(stem).word(nth));
    !word & hash::filter_bits(hash) | never == 0
}

/// Whether `folded` ends with its root, and only there.
fn is_whole(folded: &[u8]) -> bool {
    let mut rest = folded;
    while let Some((&len @ 1.., behind)) = rest.split_first() {
        rest = behind.get(usize::from(len)..).unwrap_or_default();
    }
    rest == [0]
}

/// Has the processor fetch the names of a page while it looks at the tags.
#[inline]
fn touch(page: &[u8]) {
    let lines = (64..PAGE_BYTES_TOUCHED).step_by(64);
    std::hint::black_box(lines.fold(0, |sum, at| sum ^ page.get(at).copied().unwrap_or_default()));
}

/// A rule that applies.
#[derive(Clone, Copy, Debug)]
struct Weight<'a> {
    bundle: &'a [[u8; RULE_BYTES]],
    rule: StoredRule,
    owner_at: usize,
}

impl Weight<'_> {
    /// Whether it stands before what has been held so far. Within a bundle the rules stand in order: there, the first of equals
    /// wins.
    #[inline]
    fn outranks(&self, held: &Self) -> bool {
        let (ours, theirs) = (class(&self.rule), class(&held.rule));
        ours > theirs || (ours == theirs && self.owner_at < held.owner_at)
    }

    /// The same among the rules of zones.
    #[inline]
    fn outranks_in_zones(&self, held: &Self) -> bool {
        let (ours, theirs) = (self.rule.list, held.rule.list);
        ours < theirs || (ours == theirs && self.owner_at < held.owner_at)
    }
}

/// What weighs most so far, in whatever order it came.
#[derive(Debug, Default)]
struct Scales<'a> {
    plain: Option<Weight<'a>>,
    zoned: Option<Weight<'a>>,
    /// Rewrites: those that are not important, then those that are.
    rewrites: [Option<Weight<'a>>; 2],
    /// How many of these an allowance takes back.
    muted: usize,
    has_any: bool,
    /// Whether there is any but plain ones.
    has_others: bool,
}

impl<'a> Scales<'a> {
    #[inline]
    fn add(&mut self, found: Weight<'a>) {
        self.has_any = true;
        if found.rule.is_zoned() || found.rule.is_rewrite() {
            self.add_other(found);
        } else if self.plain.as_ref().is_none_or(|held| found.outranks(held)) {
            self.plain = Some(found);
        }
    }

    #[inline(never)]
    fn add_other(&mut self, found: Weight<'a>) {
        self.has_others = true;
        let is_important = usize::from(found.rule.is_important());
        if found.rule.is_zoned() {
            if self.zoned.as_ref().is_none_or(|held| found.outranks_in_zones(held)) {
                self.zoned = Some(found);
            }
        } else if found.rule.verb() == Verb::Allow {
            self.muted = self.muted.max(1 + is_important);
        } else {
            let side = &mut self.rewrites[is_important];
            if side.as_ref().is_none_or(|held| found.outranks(held)) {
                *side = Some(found);
            }
        }
    }

    #[inline]
    fn heaviest(&self) -> Option<Weight<'a>> {
        if self.has_others { self.heaviest_of_all() } else { self.plain }
    }

    #[inline(never)]
    fn heaviest_of_all(&self) -> Option<Weight<'a>> {
        let rank = |weight: &Weight<'_>| {
            let (owner_at, list) = (weight.owner_at, weight.rule.list);
            (std::cmp::Reverse(class(&weight.rule)), owner_at, list)
        };
        // `min_by_key` keeps the first of equals.
        let standing = self.rewrites.into_iter().skip(self.muted).flatten();
        self.plain.into_iter().chain(self.zoned).chain(standing).min_by_key(rank)
    }
}
