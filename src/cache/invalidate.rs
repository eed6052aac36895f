//! What must not be used any more, whoever asks: rules that hold from the moment they are made, and a sweep behind them.
//!
//! A rule by name says nothing about where entries lie, so finding them takes a walk through the whole shard. The walk
//! goes in small steps; until it is done, every lookup asks the rules. They outlive the walk by some seconds, for answers
//! that were asked for before the rule and come after it.

use super::entry::{self, AHEAD_MILLIS_MAX};
use super::key::KeyParts;
use super::shard::Shard;
use crate::time::CacheTime;
use crate::wire::{NameBuf, Rtype};

/// Rules that may hold at a time; with more, everything is forgotten at once instead.
const RULES_MAX: usize = 64;

/// How long a rule turns away answers that were asked for before it. Longer than any question may take (`forward.deadline`
/// ends at 60 s).
const GUARD_SECONDS: u32 = 61;

/// Which names a rule is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// The name itself.
    Exact,
    /// The name and all below it.
    Subtree,
}

/// What to forget.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "few exist at a time, and none is ever on the hit path"
)]
pub enum Flush {
    /// Everything.
    All,
    /// All answers of one type, whatever the name.
    Type(Rtype),
    /// The answers of some names, of one type or of all.
    Names {
        /// The name.
        name: NameBuf,
        /// It alone, or all below it, too.
        scope: Scope,
        /// Only answers of this type, and denials.
        rtype: Option<Rtype>,
    },
}

impl Flush {
    /// Whether it is about the answer under `key`. A denial is about all types.
    #[must_use]
    fn covers(&self, key: &KeyParts<'_>) -> bool {
        let is_of = |rtype: Rtype| key.qtype.is_none_or(|qtype| qtype == rtype);
        match self {
            Self::All => true,
            Self::Type(rtype) => is_of(*rtype),
            Self::Names { name, scope, rtype } => {
                rtype.is_none_or(is_of) && {
                    match scope {
                        Scope::Exact => key.name.is_same(name.as_name()),
                        Scope::Subtree => key.name.is_within(name.as_name()),
                    }
                }
            }
        }
    }
}

/// A flush in force.
#[derive(Debug)]
struct Rule {
    flush: Flush,
    /// It is about what was stored until then.
    until: CacheTime,
    /// It turns away what was asked for until then: the same moment, unless the clock was set back since.
    guard: CacheTime,
    /// Index segments that the sweep still has to visit for it.
    unswept: usize,
}

/// The flushes in force, and how far the sweep behind them is.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    /// The index segment that is swept next.
    cursor: usize,
    /// Whether the shard may still hold what a rule forbids.
    is_sweeping: bool,
    /// Flushes so far.
    made: u64,
}

impl Rules {
    /// Whether the shard may still hold what a rule forbids.
    #[inline]
    pub(super) const fn are_unswept(&self) -> bool {
        self.is_sweeping
    }

    /// Lets go of rules that have nothing more to turn away. Where the clock was set back they turn away what was asked
    /// for until now, or would turn away everything until the clock has caught up.
    fn prune(&mut self, now: CacheTime) {
        let latest = now.as_millis().saturating_add(AHEAD_MILLIS_MAX);
        for rule in self.rules.iter_mut().filter(|rule| rule.guard.as_millis() > latest) {
            rule.guard = now;
        }
        let guard_ends = |rule: &Rule| rule.guard.after_seconds(GUARD_SECONDS);
        self.rules.retain(|rule| rule.unswept > 0 || now < guard_ends(rule));
    }

    /// Flushes so far.
    pub(super) const fn made(&self) -> u64 {
        self.made
    }

    /// Whether what lies under `key` since `stored` must not be used.
    pub(super) fn forbid(&self, key: &[u8], stored: CacheTime) -> bool {
        if self.rules.is_empty() {
            return false;
        }
        let parts = KeyParts::of(key).expect("keys in a shard are whole");
        self.rules.iter().any(|rule| stored <= rule.until && rule.flush.covers(&parts))
    }

    /// Whether what was asked for at `begun` must not be stored under `key` at `now`.
    pub(super) fn turns_away(&mut self, key: &[u8], begun: CacheTime, now: CacheTime) -> bool {
        if self.rules.is_empty() {
            return false;
        }
        self.prune(now);
        let parts = KeyParts::of(key).expect("keys in a shard are whole");
        // Asked for in the future: the clock was set back meanwhile, and nobody knows what came first.
        let is_before = |rule: &Rule| begun <= rule.guard || begun > now;
        self.rules.iter().any(|rule| is_before(rule) && rule.flush.covers(&parts))
    }
}

impl Shard {
    /// Forgets what `flush` says, at once for whoever asks; the memory comes free by [`Shard::sweep`].
    pub fn flush(&mut self, flush: Flush, now: CacheTime) {
        self.rules.prune(now);
        self.rules.made += 1;
        let is_too_much = self.rules.rules.len() >= RULES_MAX;
        let flush = if is_too_much { Flush::All } else { flush };
        if is_too_much {
            self.rules.rules.clear();
        }
        let mut unswept = self.index.segments();
        if matches!(flush, Flush::All) {
            self.clear();
            unswept = 0;
        }
        self.rules.rules.push(Rule { flush, until: now, guard: now, unswept });
        self.rules.is_sweeping |= unswept > 0;
    }

    /// Goes one step on behind the flushes; says whether there was anything to do. A step takes some hundred microseconds.
    pub fn sweep(&mut self, now: CacheTime) -> bool {
        self.rules.prune(now);
        self.rules.is_sweeping = self.rules.rules.iter().any(|rule| rule.unswept > 0);
        if !self.rules.is_sweeping {
            return false;
        }
        let segment = self.rules.cursor % self.index.segments();
        self.rules.cursor = segment + 1;
        let flushed: Vec<_> = self
            .index
            .segment_places(segment)
            .filter(|&place| {
                let bytes = self.slab.entry(place);
                self.rules.forbid(entry::key_of(bytes), entry::stored(bytes))
            })
            .collect();
        self.tally.flushed += flushed.len() as u64;
        for place in flushed {
            self.take_out(self.hash(entry::key_of(self.slab.entry(place))), place);
        }
        for rule in &mut self.rules.rules {
            rule.unswept = rule.unswept.saturating_sub(1);
        }
        true
    }
}
