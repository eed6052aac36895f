//! What a shard holds and why it answers as it does, for people: nothing here counts as an access.

use super::entry::{self, Entry};
use super::key::{Key, KeyParts};
use super::segment::Segment;
use super::shard::{Found, Shard};
use super::slab::Place;
use crate::time::CacheTime;
use crate::wire::Answer;

/// What an entry is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It answers.
    Fresh,
    /// It answers when nothing better can be had.
    Stale,
    /// Its time is over, or cannot be known since the clock was set back; its memory is not needed yet.
    Over,
    /// It was flushed; the sweep has not come by yet.
    Flushed,
}

/// One entry.
#[derive(Clone, Copy, Debug)]
pub struct Inspection<'a> {
    /// What it answers.
    pub key: KeyParts<'a>,
    /// The answer, with TTLs as of its time.
    pub answer: Answer<'a>,
    /// When it ceases to be fresh.
    pub expiry: CacheTime,
    /// What it is good for now.
    pub state: State,
    /// How far it has come.
    pub segment: Segment,
    /// How often it was asked for since it came or was last moved, as far as that is counted.
    pub accesses: u8,
    /// Its refreshment ahead of time has been asked for.
    pub is_refreshing: bool,
    /// Bytes of the slab that it takes, its place in the index apart.
    pub bytes: usize,
}

/// What a lookup would find, and why.
#[derive(Clone, Copy, Debug)]
pub enum Explanation<'a> {
    /// This answers.
    Fresh(Inspection<'a>),
    /// This says that the name, or one above it, does not exist.
    Denied(Inspection<'a>),
    /// This answers if nobody can be asked.
    Stale(Inspection<'a>),
    /// This would have answered, but is over or flushed.
    Useless(Inspection<'a>),
    /// Nothing is known.
    Absent,
}

impl Shard {
    /// What a lookup of `key` would find.
    #[must_use]
    pub fn explain(&self, key: &mut Key, now: CacheTime) -> Explanation<'_> {
        match self.search(key, now) {
            Some(Found::Fresh(place)) => Explanation::Fresh(self.inspection(place, now)),
            Some(Found::Denied(place)) => Explanation::Denied(self.inspection(place, now)),
            Some(Found::Stale(place)) => Explanation::Stale(self.inspection(place, now)),
            None => match self.place_of(key) {
                Some(place) => Explanation::Useless(self.inspection(place, now)),
                None => Explanation::Absent,
            },
        }
    }

    /// All entries, some at a time: hands those of part `cursor` to `visit` and gives the next part. Begin with 0; entries
    /// that stay throughout are visited exactly once, whatever comes and goes meanwhile. A part has some thousand at most.
    pub fn visit(
        &self,
        cursor: usize,
        now: CacheTime,
        mut visit: impl FnMut(Inspection<'_>),
    ) -> Option<usize> {
        if cursor >= self.index.segments() {
            return None;
        }
        for place in self.index.segment_places(cursor) {
            visit(self.inspection(place, now));
        }
        Some(cursor + 1).filter(|&next| next < self.index.segments())
    }

    fn inspection(&self, place: Place, now: CacheTime) -> Inspection<'_> {
        let bytes = self.slab.entry(place);
        let Entry { mark, key, answer } = Entry::view(bytes);
        let expiry = entry::expiry(bytes);
        let state = if self.is_flushed(bytes) {
            State::Flushed
        } else if entry::is_ahead_of(bytes, now) {
            State::Over
        } else if now < expiry {
            State::Fresh
        } else if now < expiry.after_seconds(self.stale_seconds) {
            State::Stale
        } else {
            State::Over
        };
        Inspection {
            key: KeyParts::of(key).expect("keys in a shard are whole"),
            answer,
            expiry,
            state,
            segment: Segment::of(mark.segment()),
            accesses: mark.accesses(),
            is_refreshing: mark.is_refreshing(),
            bytes: Entry::view(bytes).len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cache::{Flush, Lookup};
    use crate::config;
    use crate::time::Now;
    use crate::wire::answer::AnswerBuilder;
    use crate::wire::response::Section;
    use crate::wire::{AnswerBuf, Class, NameBuf, Rcode, Rtype};

    fn at(seconds: u64) -> Now {
        Now { cache: CacheTime::from_millis(seconds * 1000), ..Now::default() }
    }

    fn answer(name: &str, rcode: Rcode) -> AnswerBuf {
        let name = NameBuf::from_text(name).unwrap();
        let name = name.as_name();
        let mut builder = AnswerBuilder::new(name, Rtype::A, Class::IN, rcode).unwrap();
        let section = if rcode == Rcode::NXDOMAIN { Section::Authority } else { Section::Answer };
        builder.write(section, name, Rtype::A, Class::IN, 60, &[1, 2, 3, 4]).unwrap();
        builder.finish()
    }

    fn shard(names: &[(&str, Rcode)]) -> Shard {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let mut shard = Shard::new(&config::Cache::default(), 4 << 20, hasher);
        for (name, rcode) in names {
            let answer = answer(name, *rcode);
            shard.insert(&mut key(name), &answer, at(0).cache, at(0));
        }
        shard
    }

    fn key(name: &str) -> Key {
        Key::plain(NameBuf::from_text(name).unwrap().as_name(), Rtype::A)
    }

    #[test]
    fn explanation_says_what_a_lookup_would_do_and_changes_nothing() {
        let mut shard = shard(&[("a.", Rcode::NOERROR), ("no.", Rcode::NXDOMAIN)]);
        for _ in 0..9 {
            let Explanation::Fresh(it) = shard.explain(&mut key("a."), at(1).cache) else {
                panic!()
            };
            assert_eq!((it.accesses, it.segment, it.state), (0, Segment::Probation, State::Fresh));
            assert_eq!((it.key.name.to_string(), it.expiry), ("a.".into(), at(60).cache));
        }
        assert!(matches!(shard.lookup(&mut key("a."), at(1)), Lookup::Fresh { .. }));
        let Explanation::Fresh(it) = shard.explain(&mut key("a."), at(1).cache) else { panic!() };
        assert_eq!(it.accesses, 1);
        let Explanation::Denied(it) = shard.explain(&mut key("b.no."), at(1).cache) else {
            panic!()
        };
        assert_eq!((it.key.name.to_string(), it.key.qtype), ("no.".into(), None));
        assert!(matches!(shard.explain(&mut key("b."), at(1).cache), Explanation::Absent));
        assert!(matches!(shard.explain(&mut key("a."), at(60).cache), Explanation::Stale(_)));
        let Explanation::Useless(it) = shard.explain(&mut key("a."), at(90_000).cache) else {
            panic!()
        };
        assert_eq!(it.state, State::Over);
        shard.flush(Flush::Type(Rtype::A), at(1).cache);
        let Explanation::Useless(it) = shard.explain(&mut key("a."), at(1).cache) else { panic!() };
        assert_eq!(it.state, State::Flushed);
    }

    #[test]
    fn every_entry_is_visited_once() {
        let names: Vec<String> = (0..5_000).map(|number| format!("host{number}.")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), Rcode::NOERROR)).collect();
        let shard = shard(&all);
        let mut seen = BTreeSet::new();
        let mut cursor = Some(0);
        while let Some(at_cursor) = cursor {
            cursor = shard.visit(at_cursor, at(1).cache, |it| {
                assert!(seen.insert(it.key.name.to_string()));
                assert_eq!(it.state, State::Fresh);
            });
        }
        assert_eq!(seen, names.into_iter().collect());
        assert_eq!(shard.visit(100_000, at(1).cache, |_| panic!()), None);
    }
}
