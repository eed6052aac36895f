//! What a core counts of each list.

use std::sync::{Mutex, PoisonError, TryLockError};

use super::Counter;
use super::text::{Exposition, Kind};

/// The number that stands for no list, but for what the operator blocks or allows by hand.
pub const OVERRIDES: u8 = u8::MAX;

/// Most lists that are told apart; as many as a config may have.
const LISTS_MAX: usize = OVERRIDES as usize;

/// What the operator's own words are called among the lists.
const OVERRIDES_NAME: &str = "overrides";

/// The counters of one core's lists, by number. Made once for all there may be; when other lists come into force,
/// [`FilterHits::follow`] has each counter go with the name of its list.
#[derive(Debug)]
#[repr(align(128))]
pub struct FilterHits {
    lists: Box<[Hits; LISTS_MAX + 1]>,
    /// Whose counters they are, by number. Held while they change places.
    names: Mutex<Vec<&'static str>>,
}

#[derive(Debug, Default)]
struct Hits {
    blocked: Counter,
    blocked_answers: Counter,
    allowed: Counter,
}

impl Hits {
    fn all(&self) -> [&Counter; 3] {
        [&self.blocked, &self.blocked_answers, &self.allowed]
    }
}

impl Default for FilterHits {
    fn default() -> Self {
        Self { lists: Box::new(std::array::from_fn(|_| Hits::default())), names: Mutex::default() }
    }
}

impl FilterHits {
    /// A question for a name that the list blocks.
    #[inline]
    pub fn blocked(&self, list: u8) {
        self.lists[usize::from(list)].blocked.bump();
    }

    /// A question whose answer leads to what the list blocks.
    pub fn blocked_answer(&self, list: u8) {
        self.lists[usize::from(list)].blocked_answers.bump();
    }

    /// A question for a name that the list allows.
    #[inline]
    pub fn allowed(&self, list: u8) {
        self.lists[usize::from(list)].allowed.bump();
    }

    /// From now on the list with the number *n* is the one that is called `names[n]`: what was counted of a name goes on
    /// under its new number, a name that was not there begins at zero. For the core that counts alone; `false` while somebody
    /// reads what it counts: the core has to try again, before it goes by other lists.
    pub fn follow(&self, names: Vec<&'static str>) -> bool {
        let mut known = match self.names.try_lock() {
            Ok(known) => known,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if *known == names {
            return true;
        }
        let counts = |name: &&str| {
            let number = known.iter().position(|other| other == name);
            number.map(|number| self.lists[number].all().map(Counter::value))
        };
        let counts: Vec<Option<[u64; 3]>> = names.iter().map(counts).collect();
        let counts = counts.into_iter().chain(std::iter::repeat(None));
        for (hits, counts) in self.lists[..LISTS_MAX].iter().zip(counts) {
            for (counter, count) in hits.all().into_iter().zip(counts.unwrap_or_default()) {
                counter.become_another(count);
            }
        }
        *known = names;
        true
    }

    /// What was counted of each list, as of one moment, and last of what the operator overrides: questions blocked, answers
    /// blocked, questions allowed. The names are held for no longer than that: a core has to come back for them.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, [u64; 3])> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let overrides = std::iter::once((&OVERRIDES_NAME, &self.lists[usize::from(OVERRIDES)]));
        let lists = names.iter().zip(self.lists.iter()).chain(overrides);
        lists.map(|(name, hits)| (*name, hits.all().map(Counter::value))).collect()
    }

    /// Writes the counters of `core`, of the lists that it goes by.
    pub fn expose(&self, core: usize, out: &mut Exposition) {
        let core = core.to_string();
        for (name, counts) in self.counts() {
            for (outcome, count) in ["blocked", "blocked_answer", "allowed"].into_iter().zip(counts)
            {
                let labels = [("list", name), ("outcome", outcome), ("core", core.as_str())];
                let (family, help) =
                    ("dns_filter_hits_total", "Questions that lists have decided over");
                out.sample(Kind::Counter, family, help, &labels, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Format;

    fn exposed(hits: &FilterHits) -> String {
        let mut out = Exposition::default();
        hits.expose(0, &mut out);
        out.finish(Format::Classic)
    }

    #[test]
    fn counters_go_with_the_names_of_their_lists() {
        let hits = FilterHits::default();
        assert!(hits.follow(vec!["ads", "games"]));
        hits.blocked(0);
        hits.allowed(1);
        assert!(hits.follow(vec!["news", "games", "ads"]));
        hits.blocked(2);
        let text = exposed(&hits);
        for (list, outcome, count) in [
            ("ads", "blocked", 2),
            ("games", "allowed", 1),
            ("news", "blocked", 0),
            ("news", "allowed", 0),
        ] {
            let line = format!(
                "dns_filter_hits_total{{list=\"{list}\",outcome=\"{outcome}\",core=\"0\"}} {count}"
            );
            assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
        }
    }

    #[test]
    fn list_that_was_away_begins_at_zero() {
        let hits = FilterHits::default();
        assert!(hits.follow(vec!["ads"]));
        hits.blocked(0);
        assert!(hits.follow(Vec::new()));
        assert!(!exposed(&hits).contains("list=\"ads\""));
        assert!(hits.follow(vec!["ads"]));
        assert!(exposed(&hits).contains("list=\"ads\",outcome=\"blocked\",core=\"0\"} 0"));
    }

    #[test]
    fn core_does_not_wait_for_whoever_reads() {
        let hits = FilterHits::default();
        assert!(hits.follow(vec!["ads"]));
        hits.blocked(0);
        let reader = hits.names.lock().unwrap();
        assert!(!hits.follow(vec!["games", "ads"]));
        drop(reader);
        assert_eq!(hits.counts()[0], ("ads", [1, 0, 0]));
        assert!(hits.follow(vec!["games", "ads"]));
        assert_eq!(hits.counts()[1], ("ads", [1, 0, 0]));
    }

    #[test]
    fn overrides_count_on_whatever_lists_come_and_go() {
        let hits = FilterHits::default();
        hits.blocked(OVERRIDES);
        assert!(hits.follow(vec!["ads"]));
        hits.blocked(OVERRIDES);
        assert!(hits.follow(Vec::new()));
        assert_eq!(hits.counts(), [("overrides", [2, 0, 0])]);
    }
}
