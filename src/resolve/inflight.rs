//! Questions being resolved, and who waits for each: equal questions are asked once (RFC 5452 §5 counts on it, too).

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::config;

/// Of all questions that may be in flight, one in so many may be asked ahead of time: nobody waits for them, so they must
/// not stand in anybody's way.
const AHEAD_SHARE: usize = 4;

/// Clients on one core that wait for questions of others, over all questions: without this bound they could be
/// `inflight_max` times `waiters_max`, more than any memory. A higher `waiters_max` raises it, or no question could have
/// that many.
const WAITERS_IN_ALL_MAX: usize = 16_384;

/// How many clients of one core may wait in all, beside the first askers.
#[must_use]
pub fn waiters_in_all_max(section: &config::Forward) -> usize {
    WAITERS_IN_ALL_MAX.max(section.waiters_max)
}

/// What became of someone who asks.
#[derive(Debug, Eq, PartialEq)]
pub enum Joined<W> {
    /// Nobody asked this yet: resolve it, then [`Inflight::finish`].
    First,
    /// Somebody did; the answer will come.
    Waiting,
    /// Too many questions are in flight.
    TooManyQuestions(W),
    /// Too many wait, for this one or in all.
    TooManyWaiters(W),
}

/// What is left of a question when it ends.
#[derive(Debug, Eq, PartialEq)]
pub struct Ended<W> {
    /// All who still waited, first come first.
    pub waiters: Vec<W>,
    /// What other cores got meanwhile.
    pub elsewhere: Elsewhere,
}

/// What other cores got for a question while it was in flight here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Elsewhere {
    /// Nothing.
    Nothing,
    /// Only answers with this fingerprint.
    Same(u64),
    /// Different answers.
    Different,
}

impl Elsewhere {
    /// Whether an answer with `fingerprint` may be older than one of those: it must not be kept then.
    #[must_use]
    pub fn outdates(self, fingerprint: u64) -> bool {
        match self {
            Self::Nothing => false,
            Self::Same(other) => other != fingerprint,
            Self::Different => true,
        }
    }

    const fn and(self, fingerprint: u64) -> Self {
        match self {
            Self::Nothing => Self::Same(fingerprint),
            Self::Same(known) if known == fingerprint => self,
            Self::Same(_) | Self::Different => Self::Different,
        }
    }
}

/// All questions in flight on one core, by cache key and its hash.
#[derive(Debug)]
pub struct Inflight<W> {
    questions: HashTable<Question<W>>,
    questions_max: usize,
    waiters_max: usize,
    /// Questions that were asked ahead of time.
    ahead: usize,
    /// Those who wait beside the first askers, whom `questions_max` bounds.
    joined: usize,
    joined_max: usize,
}

#[derive(Debug)]
struct Question<W> {
    hash: u64,
    key: Box<[u8]>,
    waiters: Vec<W>,
    /// How many of them joined.
    joined: usize,
    is_ahead: bool,
    is_slow: bool,
    elsewhere: Elsewhere,
}

impl<W> Question<W> {
    fn new(hash: u64, key: &[u8], waiters: Vec<W>) -> Self {
        let is_ahead = waiters.is_empty();
        let key = key.into();
        Self {
            hash,
            key,
            waiters,
            joined: 0,
            is_ahead,
            is_slow: false,
            elsewhere: Elsewhere::Nothing,
        }
    }
}

impl<W> Inflight<W> {
    /// An empty table with the section's limits.
    #[must_use]
    pub fn new(section: &config::Forward) -> Self {
        Self {
            questions: HashTable::new(),
            questions_max: section.inflight_max,
            waiters_max: section.waiters_max,
            ahead: 0,
            joined: 0,
            joined_max: waiters_in_all_max(section),
        }
    }

    /// Lets `waiter` wait for the question `key`, whose hash is `hash`.
    pub fn join(&mut self, hash: u64, key: &[u8], waiter: W) -> Joined<W> {
        let has_room = self.questions.len() < self.questions_max;
        let waiters_max = if self.joined < self.joined_max { self.waiters_max } else { 0 };
        match self.entry(hash, key) {
            Entry::Occupied(mut known) => {
                let question = known.get_mut();
                if question.waiters.len() >= waiters_max {
                    return Joined::TooManyWaiters(waiter);
                }
                question.waiters.push(waiter);
                question.joined += 1;
                self.joined += 1;
                Joined::Waiting
            }
            Entry::Vacant(vacant) if has_room => {
                vacant.insert(Question::new(hash, key, vec![waiter]));
                Joined::First
            }
            Entry::Vacant(_) => Joined::TooManyQuestions(waiter),
        }
    }

    /// Begins the question `key`, for which nobody waits yet; `false` when it is being asked, or there is no room.
    pub fn begin_ahead(&mut self, hash: u64, key: &[u8]) -> bool {
        if self.ahead >= self.questions_max / AHEAD_SHARE
            || self.questions.len() >= self.questions_max
        {
            return false;
        }
        match self.entry(hash, key) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(Question::new(hash, key, Vec::new()));
                self.ahead += 1;
                true
            }
        }
    }

    /// Gives all who wait for the question `key` so far, and notes that it takes long.
    pub fn give_up_waiting(&mut self, hash: u64, key: &[u8]) -> Vec<W> {
        let known = self.questions.find_mut(hash, |question| *question.key == *key);
        known.map_or_else(Vec::new, |question| {
            question.is_slow = true;
            self.joined -= std::mem::take(&mut question.joined);
            std::mem::take(&mut question.waiters)
        })
    }

    /// Whether the question `key` is in flight.
    #[must_use]
    pub fn holds(&self, hash: u64, key: &[u8]) -> bool {
        self.questions.find(hash, |question| *question.key == *key).is_some()
    }

    /// Whether the question `key` is known to take long.
    #[must_use]
    pub fn is_slow(&self, hash: u64, key: &[u8]) -> bool {
        let known = self.questions.find(hash, |question| *question.key == *key);
        known.is_some_and(|question| question.is_slow)
    }

    /// Notes that another core got an answer with that fingerprint to the question `key` meanwhile.
    pub fn note_elsewhere(&mut self, hash: u64, key: &[u8], fingerprint: u64) {
        if let Some(known) = self.questions.find_mut(hash, |question| *question.key == *key) {
            known.elsewhere = known.elsewhere.and(fingerprint);
        }
    }

    /// Ends the question `key`.
    pub fn finish(&mut self, hash: u64, key: &[u8]) -> Ended<W> {
        match self.entry(hash, key) {
            Entry::Occupied(known) => {
                let (question, _) = known.remove();
                self.ahead -= usize::from(question.is_ahead);
                self.joined -= question.joined;
                Ended { waiters: question.waiters, elsewhere: question.elsewhere }
            }
            Entry::Vacant(_) => Ended { waiters: Vec::new(), elsewhere: Elsewhere::Nothing },
        }
    }

    /// Questions in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// Whether nothing is being resolved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    fn entry(&mut self, hash: u64, key: &[u8]) -> Entry<'_, Question<W>> {
        self.questions.entry(hash, |question| *question.key == *key, |question| question.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Inflight<u32> {
        let forward = config::Forward { inflight_max: 2, waiters_max: 3, ..Default::default() };
        Inflight::new(&forward)
    }

    #[test]
    fn only_the_first_asks_and_all_get_the_answer() {
        let mut table = table();
        assert_eq!(table.join(1, b"a", 1), Joined::First);
        assert_eq!(table.join(1, b"a", 2), Joined::Waiting);
        assert_eq!(table.join(1, b"b", 3), Joined::First, "equal hashes are not equal questions");
        assert_eq!(table.finish(1, b"a").waiters, [1, 2]);
        assert!(table.finish(1, b"a").waiters.is_empty());
        assert_eq!(table.join(1, b"a", 4), Joined::First);
    }

    #[test]
    fn both_limits_hold_and_give_the_waiter_back() {
        let mut table = table();
        for waiter in 0..3 {
            table.join(1, b"a", waiter);
        }
        assert_eq!(table.join(1, b"a", 9), Joined::TooManyWaiters(9));
        assert_eq!(table.join(2, b"b", 1), Joined::First);
        assert_eq!(table.join(3, b"c", 9), Joined::TooManyQuestions(9));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn waiters_are_bounded_over_all_questions() {
        let half = WAITERS_IN_ALL_MAX / 2;
        let forward =
            config::Forward { inflight_max: 100, waiters_max: half, ..Default::default() };
        let mut table = Inflight::new(&forward);
        let mut refused = 0;
        for question in 0..3u8 {
            for waiter in 0..half {
                let joined = table.join(1, &[question], waiter);
                refused += usize::from(matches!(joined, Joined::TooManyWaiters(_)));
            }
        }
        // The first askers of the three questions are not among them.
        assert_eq!(refused, half - 3);
        assert_eq!(table.join(2, b"other", 1), Joined::First, "questions have their own limit");
        assert_eq!(table.give_up_waiting(1, &[0]).len(), half);
        assert_eq!(table.join(2, b"other", 2), Joined::Waiting);
        for question in 0..3u8 {
            table.finish(1, &[question]);
        }
        table.finish(2, b"other");
        assert_eq!((table.len(), table.joined), (0, 0));
    }

    #[test]
    fn as_many_may_wait_in_all_as_for_one_question() {
        let max = WAITERS_IN_ALL_MAX + 2;
        let forward = config::Forward { inflight_max: 1, waiters_max: max, ..Default::default() };
        let mut table = Inflight::new(&forward);
        let refused = (0..max)
            .filter(|_| matches!(table.join(1, b"a", 0), Joined::TooManyWaiters(_)))
            .count();
        assert_eq!(refused, 0);
        assert_eq!(table.join(1, b"a", 9), Joined::TooManyWaiters(9));
    }

    #[test]
    fn questions_ahead_of_time_leave_room_for_those_that_somebody_asks() {
        let forward = config::Forward { inflight_max: 8, ..Default::default() };
        let mut table: Inflight<u32> = Inflight::new(&forward);
        assert!(table.begin_ahead(1, b"a") && !table.begin_ahead(1, b"a"));
        assert!(table.begin_ahead(2, b"b") && !table.begin_ahead(3, b"c"));
        assert_eq!(table.join(1, b"a", 7), Joined::Waiting);
        assert_eq!(table.finish(1, b"a").waiters, [7]);
        assert!(table.begin_ahead(3, b"c"));
    }

    #[test]
    fn who_gave_up_waiting_is_not_told_twice() {
        let mut table = table();
        table.join(1, b"a", 1);
        assert!(!table.is_slow(1, b"a"));
        assert_eq!(table.give_up_waiting(1, b"a"), [1]);
        assert!(table.is_slow(1, b"a"));
        assert_eq!(table.join(1, b"a", 2), Joined::Waiting);
        assert_eq!(table.finish(1, b"a").waiters, [2]);
        assert!(!table.is_slow(1, b"a"));
        assert!(table.give_up_waiting(1, b"a").is_empty());
    }

    #[test]
    fn question_remembers_what_other_cores_got() {
        let mut table = table();
        table.join(1, b"a", 1);
        table.join(2, b"b", 1);
        for _ in 0..2 {
            table.note_elsewhere(1, b"a", 77);
        }
        table.note_elsewhere(3, b"c", 78);
        let elsewhere = table.finish(1, b"a").elsewhere;
        assert!(elsewhere.outdates(78) && !elsewhere.outdates(77));
        assert!(!table.finish(2, b"b").elsewhere.outdates(77));
        table.join(1, b"a", 1);
        for fingerprint in [77, 78, 77] {
            table.note_elsewhere(1, b"a", fingerprint);
        }
        assert!(table.finish(1, b"a").elsewhere.outdates(77));
    }
}
