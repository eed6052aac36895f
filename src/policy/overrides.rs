//! Hot path. Names that the operator blocks or allows by hand. They come before all that lists say, and take effect at once: a
//! small table of their own, so that no image has to be made.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ahash::RandomState;

use super::filtering::{Judgement, leads_on, target_of};
use super::outcome::{Blocked, Manner};
use crate::config::{self, ListSource, OVERRIDES_NAME};
use crate::observe::OVERRIDES;
use crate::time::CacheTime;
use crate::wire::{Answer, Name, Query, Rtype};

/// Most names that are overridden at a time.
pub const OVERRIDES_MAX: usize = 10_000;

const _: () = assert!(config::LISTS_MAX == OVERRIDES as usize, "no list has that number");

/// What becomes of questions for a name that is overridden.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Action {
    /// They are blocked, whatever lists say.
    Block,
    /// They are answered, whatever lists say.
    Allow,
}

/// One name that is overridden.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Override {
    /// What becomes of it.
    pub action: Action,
    /// And of all names below it.
    pub is_subtree: bool,
}

/// All names that are overridden; immutable, replaced as a whole.
#[derive(Debug)]
pub struct Overrides {
    /// Keyed by the folded wire form.
    table: HashMap<Box<[u8]>, Override, RandomState>,
    /// Bit `n` is set when some name in the table has `n` labels: other suffixes need no look-up.
    depths: u128,
    /// What those get who ask for a blocked name: as of a list of which nothing is said.
    manner: Manner,
}

impl Overrides {
    /// A table of `all`, names in lower case; of two with one name the later counts.
    #[must_use]
    pub fn new<'n>(all: impl IntoIterator<Item = (Name<'n>, Override)>) -> Self {
        let like = config::List::new(
            OVERRIDES_NAME.to_owned(),
            ListSource::File(std::path::PathBuf::new()),
            String::new(),
        );
        let (mut table, mut depths) = (HashMap::default(), 0);
        for (name, held) in all {
            depths |= 1 << name.labels().count();
            table.insert(name.as_bytes().into(), held);
        }
        Self { table, depths, manner: Manner::new(&like) }
    }

    /// The word that counts for the name that is `folded` (lower case, wire form): of several the one for the nearest name.
    #[inline]
    #[must_use]
    pub fn find(&self, folded: &[u8]) -> Option<Override> {
        let mut depth = 0_u32;
        let mut at = 0;
        while let Some(&len @ 1..) = folded.get(at) {
            at += 1 + usize::from(len);
            depth += 1;
        }
        let mut rest = folded;
        loop {
            if self.depths >> depth & 1 != 0
                && let Some(held) = self.table.get(rest)
                && (held.is_subtree || rest.len() == folded.len())
            {
                return Some(*held);
            }
            let (&len, behind) = rest.split_first()?;
            rest = behind.get(usize::from(len)..)?;
            depth = depth.checked_sub(1)?;
        }
    }

    /// What the operator says to a question for `qtype` at the name that is `folded`, if he says anything.
    #[inline]
    #[must_use]
    pub fn judge(&self, folded: &[u8], qtype: Rtype, now: CacheTime) -> Option<Judgement<'_>> {
        self.find(folded).map(|held| match held.action {
            Action::Allow => Judgement::Allowed(OVERRIDES),
            Action::Block => Judgement::Blocked(self.blocked(qtype, now)),
        })
    }

    /// What the operator objects to in `answer`, which leads through an alias that he blocks; for want of lists.
    #[must_use]
    pub fn object(
        &self,
        query: &Query<'_>,
        answer: &Answer<'_>,
        now: CacheTime,
    ) -> Option<Blocked<'_>> {
        if !leads_on(query, answer) {
            return None;
        }
        let mut targets = answer.records().filter_map(|record| target_of(&record, query.qname));
        let held = targets.find_map(|target| self.find(target.as_name().as_bytes()))?;
        (held.action == Action::Block).then(|| self.blocked(query.qtype, now))
    }

    pub(super) fn blocked(&self, qtype: Rtype, now: CacheTime) -> Blocked<'_> {
        Blocked { list: OVERRIDES, ede: self.manner.ede, outcome: self.manner.own(qtype, now) }
    }
}

/// What the operator has switched by hand while the node runs; no config holds it.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// Names that are blocked or allowed; none of them is there while the table would be empty.
    pub overrides: Option<Arc<Overrides>>,
    /// The names of lists that count for nobody.
    pub disabled: Arc<BTreeSet<String>>,
    /// Nothing is blocked: neither lists nor overrides are asked.
    pub is_paused: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NameBuf;

    fn overrides(all: &[(&str, Action, bool)]) -> Overrides {
        let names: Vec<NameBuf> =
            all.iter().map(|(name, ..)| NameBuf::from_text(name).unwrap()).collect();
        let held = all.iter().map(|&(_, action, is_subtree)| Override { action, is_subtree });
        Overrides::new(names.iter().map(NameBuf::as_name).zip(held))
    }

    fn found(overrides: &Overrides, name: &str) -> Option<Action> {
        let name = NameBuf::from_text(name).unwrap();
        overrides.find(name.as_name().as_bytes()).map(|held| held.action)
    }

    #[test]
    fn nearest_name_counts_and_one_alone_does_not_reach_below() {
        use Action::{Allow, Block};
        let overrides = overrides(&[
            ("example", Block, true),
            ("good.example", Allow, true),
            ("only.good.example", Block, false),
            ("single.test", Allow, false),
        ]);
        for (name, expected) in [
            ("example", Some(Block)),
            ("a.b.example", Some(Block)),
            ("notexample", None),
            ("good.example", Some(Allow)),
            ("www.good.example", Some(Allow)),
            ("only.good.example", Some(Block)),
            ("x.only.good.example", Some(Allow)),
            ("single.test", Some(Allow)),
            ("x.single.test", None),
            ("test", None),
            (".", None),
        ] {
            assert_eq!(found(&overrides, name), expected, "{name}");
        }
    }

    #[test]
    fn longest_names_are_found_and_broken_ones_harm_nobody() {
        let long = "a.".repeat(127);
        let overrides = overrides(&[(&long, Action::Block, false), ("a", Action::Allow, true)]);
        assert_eq!(found(&overrides, &long), Some(Action::Block));
        assert_eq!(found(&overrides, &"a.".repeat(126)), Some(Action::Allow));
        for broken in [&b""[..], b"\x05ab", b"\x01a", b"\xff"] {
            assert_eq!(overrides.find(broken), None);
        }
    }

    #[test]
    fn clients_are_told_by_the_name_under_which_it_is_counted() {
        let overrides = overrides(&[("a", Action::Block, false)]);
        let blocked = overrides.blocked(Rtype::A, CacheTime::default());
        assert_eq!((blocked.list, blocked.ede.text), (OVERRIDES, OVERRIDES_NAME));
        assert_eq!(blocked.ede.code, 15);
        let counts = crate::observe::FilterHits::default().counts();
        assert_eq!(counts.last().map(|(name, _)| *name), Some(OVERRIDES_NAME));
    }
}
