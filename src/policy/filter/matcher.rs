//! Hot path. Which rule decides over a name: the name and all its ancestors in one pass over the octets of an image.
//!
//! Per name and ancestor: eight octets of the filter; where it says "maybe", a page; where a tag on it is the same, the
//! name itself. Only what is equal octet by octet is a hit. Reads are bounded by the image, steps by the labels of the
//! name and the names of a page, 255 at most.
//!
//! First all ancestors are looked up in the filter, then those are followed up that may be listed: so no load waits for another, and the
//! processor, which cannot guess at which ancestor there will be something, has but one thing to guess: how many.

use std::net::IpAddr;

use super::compile::mapped;
use super::extras;
use super::hash::{self, Key, Octets};
use super::layout::{Head, NETWORK_BYTES, RULE_BYTES, STEM_BYTES, STEM_WORDS, u32_at};
use super::page::{Page, Stem};
use super::rule::{Lists, LocalRecord, Reach, Trigger, Verb};
use super::stored::{StoredRule, class};
use crate::wire::Rtype;

/// Most labels of a name: 127 of one octet each.
const LABELS_MAX: usize = 127;

/// Ancestors that are looked up in the filter at a time: all that most names have.
const STRIDE: usize = 8;

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
    key: Key,
    depths: u128,
    root: Option<u32>,
    common: u32,
    stems: &'a [[u8; STEM_BYTES]],
    bundles: &'a [[u8; 4]],
    rules: &'a [[u8; RULE_BYTES]],
    networks: &'a [[u8; NETWORK_BYTES]],
    extras: &'a [u8],
    pages: &'a [u8],
}

impl<'a> Matcher<'a> {
    #[inline]
    pub(super) fn of(
        head: &Head,
        stems: &'a [[u8; STEM_BYTES]],
        bundles: &'a [[u8; 4]],
        rules: &'a [[u8; RULE_BYTES]],
        networks: &'a [[u8; NETWORK_BYTES]],
        extras: &'a [u8],
        pages: &'a [u8],
    ) -> Self {
        let (depths, root, common) = (head.depths, head.root, head.common);
        let key = Key::of(head.key);
        Self { key, depths, root, common, stems, bundles, rules, networks, extras, pages }
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
        let mut starts = [0_u8; LABELS_MAX + 1];
        let (mut at, mut depth) = (0_u8, 0);
        while let Some(&len @ 1..) = folded.get(usize::from(at)) {
            *starts.get_mut(depth)? = at;
            depth += 1;
            at = at.checked_add(len)?.checked_add(1)?;
        }
        let (name, rest) = folded.split_at_checked(at.into())?;
        if rest.is_empty() {
            // Cut before the root.
            return None;
        }
        let question = Question { trigger, asker, name: folded };
        let mut scales = Scales::default();
        if let Some(root) = self.root {
            self.weigh(&mut scales, root, name.len(), &question, depth == 0);
        }
        let mut room = [0; 16];
        let octets = Octets::of(folded, &mut room);
        let (mut hash, mut end) = (self.key.root, name.len());
        let mut depths = self.depths >> 1;
        for starts in starts.get(..depth)?.rchunks(STRIDE) {
            let (mut hashes, mut maybe) = ([0; STRIDE], 0_u32);
            for (nth, (held, &start)) in hashes.iter_mut().zip(starts.iter().rev()).enumerate() {
                hash = self.key.extend(hash, octets, usize::from(start) + 1, end);
                *held = hash;
                end = start.into();
                if depths & 1 != 0 {
                    maybe |= u32::from(self.may_hold(hash)) << nth;
                }
                depths >>= 1;
            }
            while maybe != 0 {
                let nth = maybe.trailing_zeros() as usize;
                maybe &= maybe - 1;
                let start = usize::from(*starts.get(starts.len() - 1 - nth)?);
                if let Some(bundle) = self.find(*hashes.get(nth)?, name.get(start..)?) {
                    self.weigh(&mut scales, bundle, start, &question, start == 0);
                }
            }
        }
        // Most names are not listed, and need not pay for what comes now.
        if scales.has_any { scales.outcome() } else { None }
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
        let mut rest = self.networks;
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
                self.weigh(&mut scales, bundle, above, &question, true);
            }
        }
        scales.outcome()
    }

    #[inline]
    fn may_hold(&self, hash: u64) -> bool {
        let bits = hash::filter_bits(hash);
        self.stem(hash).is_some_and(|(stem, nth)| stem.word(nth) & bits == bits)
    }

    /// The stem of the names with this hash, and which of its words is theirs.
    #[inline]
    fn stem(&self, hash: u64) -> Option<(Stem<'a>, usize)> {
        let word = hash::place(hash, self.stems.len() * STEM_WORDS);
        Some((Stem(self.stems.get(word / STEM_WORDS)?), word % STEM_WORDS))
    }

    /// The bundle of the name `owner` (without the root), if it is listed.
    #[inline]
    fn find(&self, hash: u64, owner: &[u8]) -> Option<u32> {
        let (stem, nth) = self.stem(hash)?;
        let page = self.pages.get(stem.page_at(nth)..)?;
        touch(page);
        let found = Page::read(page)?.find(hash::tag(hash), owner)?;
        Some(found.bundle.unwrap_or(self.common))
    }

    /// Lays the rules of a bundle on the scales, as far as they are for this question.
    #[inline(never)]
    fn weigh(
        &self,
        scales: &mut Scales<'a>,
        bundle: u32,
        owner_at: usize,
        question: &Question<'_>,
        is_at: bool,
    ) {
        let Some(rules) = self.rules_of(bundle) else { return };
        for bytes in rules {
            let rule = StoredRule::of_bytes(bytes);
            let applies = rule.trigger() == question.trigger
                && rule.reach().covers(is_at)
                && self.is_for(&rule, question);
            if applies {
                let found = Decision {
                    list: rule.list,
                    verb: rule.verb(),
                    is_important: rule.is_important(),
                    reach: rule.reach(),
                    owner_at,
                    rule,
                    bundle: rules,
                    extras: self.extras,
                };
                scales.add(found);
            }
        }
    }

    #[inline]
    fn rules_of(&self, bundle: u32) -> Option<&'a [[u8; RULE_BYTES]]> {
        let end = |at: usize| Some(u32::from_le_bytes(*self.bundles.get(at)?) as usize);
        let bundle = bundle as usize;
        self.rules.get(end(bundle)?..end(bundle + 1)?)
    }

    #[inline]
    fn is_for(&self, rule: &StoredRule, question: &Question<'_>) -> bool {
        let at = |place: u32| self.extras.get(place as usize..).unwrap_or_default();
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
        let record = self.extras.get(rule.record as usize..).and_then(extras::read_record);
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

/// Has the processor fetch the names of a page while it looks at the tags.
#[inline]
fn touch(page: &[u8]) {
    let lines = (64..PAGE_BYTES_TOUCHED).step_by(64);
    std::hint::black_box(lines.fold(0, |sum, at| sum ^ page.get(at).copied().unwrap_or_default()));
}

/// What weighs most so far. Owners come from the root downwards, so of equals the later one is nearer to the name.
#[derive(Default)]
struct Scales<'a> {
    plain: Option<Decision<'a>>,
    zoned: Option<Decision<'a>>,
    /// Rewrites: those that are not important, then those that are.
    rewrites: [Option<Decision<'a>>; 2],
    /// How many of these an allowance takes back.
    muted: usize,
    has_any: bool,
}

impl<'a> Scales<'a> {
    #[inline]
    fn add(&mut self, found: Decision<'a>) {
        self.has_any = true;
        // Within a bundle the rules stand in order: there, the first of equals wins.
        let is_nearer = |held: &Decision<'_>| found.owner_at < held.owner_at;
        let outranks = |held: &Decision<'_>| {
            let (theirs, ours) = (class(&held.rule), class(&found.rule));
            ours > theirs || (ours == theirs && is_nearer(held))
        };
        let (side, wins) = if found.rule.is_zoned() {
            let wins = self.zoned.as_ref().is_none_or(|held| {
                found.list < held.list || (found.list == held.list && is_nearer(held))
            });
            (&mut self.zoned, wins)
        } else if found.rule.is_rewrite() {
            let is_important = usize::from(found.is_important);
            if found.verb == Verb::Allow {
                self.muted = self.muted.max(1 + is_important);
                return;
            }
            let [side, important] = &mut self.rewrites;
            let side = if found.is_important { important } else { side };
            let wins = side.as_ref().is_none_or(outranks);
            (side, wins)
        } else {
            let wins = self.plain.as_ref().is_none_or(outranks);
            (&mut self.plain, wins)
        };
        if wins {
            *side = Some(found);
        }
    }

    fn outcome(self) -> Option<Decision<'a>> {
        let rank = |decision: &Decision<'_>| {
            let (owner_at, list) = (decision.owner_at, decision.list);
            (std::cmp::Reverse(class(&decision.rule)), owner_at, list)
        };
        // `min_by_key` keeps the first of equals.
        let standing = self.rewrites.into_iter().skip(self.muted).flatten();
        self.plain.into_iter().chain(self.zoned).chain(standing).min_by_key(rank)
    }
}
