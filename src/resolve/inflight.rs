//! Questions being resolved, and who waits for each: equal questions are asked once (RFC 5452 §5 counts on it, too).
//!
//! Where there is no more room, the oldest yield: questions to newer ones, clients to those who ask the same after them.

use std::collections::VecDeque;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::room::{self, Claim, Eviction, Guard, Room};
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

/// How many questions one core may hold, those included that have been told to make room and have not ended yet.
#[must_use]
pub const fn questions_in_all_max(section: &config::Forward) -> usize {
    room::members_max(section.inflight_max)
}

/// What became of someone who asks.
#[derive(Debug)]
pub enum Joined<W> {
    /// Nobody asked this yet: resolve it until it has to make room, then [`Inflight::finish`].
    First(Eviction),
    /// Somebody did; the answer will come.
    Waiting,
    /// The same; and this one, who waited for it longest, waits no more.
    InPlaceOf(W),
    /// Too many questions are in flight, and too many of them are ending.
    TooManyQuestions(W),
    /// Too many wait in all, and nobody for this.
    TooManyWaiters(W),
}

/// What is left of a question when it ends.
#[derive(Debug, Eq, PartialEq)]
pub struct Ended<W> {
    /// All who still waited, first come first.
    pub waiters: VecDeque<W>,
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
    /// The questions by age. Those for which nobody waits have a loose claim.
    room: Room,
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
    place: Guard,
    /// The oldest in front.
    waiters: VecDeque<W>,
    /// How many of them joined.
    joined: usize,
    is_ahead: bool,
    is_slow: bool,
    elsewhere: Elsewhere,
}

impl<W> Question<W> {
    fn new(hash: u64, key: &[u8], place: Guard, first: Option<W>) -> Self {
        Self {
            hash,
            key: key.into(),
            place,
            is_ahead: first.is_none(),
            waiters: first.into_iter().collect(),
            joined: 0,
            is_slow: false,
            elsewhere: Elsewhere::Nothing,
        }
    }
}

impl<W> Question<W> {
    /// Who gives the same key another hash means another question: one of another config.
    fn is(&self, hash: u64, key: &[u8]) -> bool {
        self.hash == hash && *self.key == *key
    }
}

impl<W> Inflight<W> {
    /// An empty table with the section's limits.
    #[must_use]
    pub fn new(section: &config::Forward) -> Self {
        Self {
            questions: HashTable::new(),
            questions_max: section.inflight_max,
            room: Room::new(section.inflight_max),
            waiters_max: section.waiters_max,
            ahead: 0,
            joined: 0,
            joined_max: waiters_in_all_max(section),
        }
    }

    /// Lets `waiter` wait for the question `key`, whose hash is `hash`. Where there is no room, the oldest has to yield.
    pub fn join(&mut self, hash: u64, key: &[u8], waiter: W) -> Joined<W> {
        let is_crowded = self.joined >= self.joined_max;
        match entry(&mut self.questions, hash, key) {
            Entry::Occupied(mut known) => {
                let question = known.get_mut();
                if is_crowded || question.waiters.len() >= self.waiters_max {
                    // One for one: no count changes.
                    let Some(oldest) = question.waiters.pop_front() else {
                        return Joined::TooManyWaiters(waiter);
                    };
                    question.waiters.push_back(waiter);
                    return Joined::InPlaceOf(oldest);
                }
                question.place.set_claim(Claim::Firm);
                question.waiters.push_back(waiter);
                question.joined += 1;
                self.joined += 1;
                Joined::Waiting
            }
            Entry::Vacant(vacant) => {
                let Some(place) = self.room.enter(Claim::Firm) else {
                    return Joined::TooManyQuestions(waiter);
                };
                let eviction = place.evicted();
                vacant.insert(Question::new(hash, key, place, Some(waiter)));
                Joined::First(eviction)
            }
        }
    }

    /// Begins the question `key`, for which nobody waits yet: resolve it until it has to make room. `None` when it is
    /// being asked, or there is no room: nothing yields to it.
    pub fn begin_ahead(&mut self, hash: u64, key: &[u8]) -> Option<Eviction> {
        if self.ahead >= self.questions_max / AHEAD_SHARE
            || self.questions.len() >= self.questions_max
        {
            return None;
        }
        match entry(&mut self.questions, hash, key) {
            Entry::Occupied(_) => None,
            Entry::Vacant(vacant) => {
                let place = self.room.enter(Claim::Loose)?;
                let eviction = place.evicted();
                vacant.insert(Question::new(hash, key, place, None));
                self.ahead += 1;
                Some(eviction)
            }
        }
    }

    /// Gives all who wait for the question `key` so far, and notes that it takes long.
    pub fn give_up_waiting(&mut self, hash: u64, key: &[u8]) -> VecDeque<W> {
        let known = self.questions.find_mut(hash, |question| question.is(hash, key));
        known.map_or_else(VecDeque::new, |question| {
            question.is_slow = true;
            question.place.set_claim(Claim::Loose);
            self.joined -= std::mem::take(&mut question.joined);
            std::mem::take(&mut question.waiters)
        })
    }

    /// Whether the question `key` is in flight.
    #[must_use]
    pub fn holds(&self, hash: u64, key: &[u8]) -> bool {
        self.questions.find(hash, |question| question.is(hash, key)).is_some()
    }

    /// Whether the question `key` is known to take long.
    #[must_use]
    pub fn is_slow(&self, hash: u64, key: &[u8]) -> bool {
        let known = self.questions.find(hash, |question| question.is(hash, key));
        known.is_some_and(|question| question.is_slow)
    }

    /// Notes that another core got an answer with that fingerprint to the question `key` meanwhile.
    pub fn note_elsewhere(&mut self, hash: u64, key: &[u8], fingerprint: u64) {
        if let Some(known) = self.questions.find_mut(hash, |question| question.is(hash, key)) {
            known.elsewhere = known.elsewhere.and(fingerprint);
        }
    }

    /// Ends the question `key`.
    pub fn finish(&mut self, hash: u64, key: &[u8]) -> Ended<W> {
        match entry(&mut self.questions, hash, key) {
            Entry::Occupied(known) => {
                let (question, _) = known.remove();
                self.ahead -= usize::from(question.is_ahead);
                self.joined -= question.joined;
                Ended { waiters: question.waiters, elsewhere: question.elsewhere }
            }
            Entry::Vacant(_) => Ended { waiters: VecDeque::new(), elsewhere: Elsewhere::Nothing },
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
}

fn entry<'t, W>(
    questions: &'t mut HashTable<Question<W>>,
    hash: u64,
    key: &[u8],
) -> Entry<'t, Question<W>> {
    questions.entry(hash, |question| question.is(hash, key), |question| question.hash)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use super::*;

    fn table() -> Inflight<u32> {
        let forward = config::Forward { inflight_max: 2, waiters_max: 3, ..Default::default() };
        Inflight::new(&forward)
    }

    fn is_first<W>(joined: &Joined<W>) -> bool {
        matches!(joined, Joined::First(_))
    }

    fn is_waiting<W>(joined: &Joined<W>) -> bool {
        matches!(joined, Joined::Waiting)
    }

    fn in_place_of<W>(joined: Joined<W>) -> Option<W> {
        if let Joined::InPlaceOf(oldest) = joined { Some(oldest) } else { None }
    }

    fn begun<W>(joined: Joined<W>) -> Eviction {
        let Joined::First(eviction) = joined else { panic!("not the first") };
        eviction
    }

    fn is_told(eviction: &mut Eviction) -> bool {
        Pin::new(eviction).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn only_the_first_asks_and_all_get_the_answer() {
        let mut table = table();
        assert!(is_first(&table.join(1, b"a", 1)));
        assert!(is_waiting(&table.join(1, b"a", 2)));
        assert!(is_first(&table.join(1, b"b", 3)), "equal hashes are not equal questions");
        assert_eq!(table.finish(1, b"a").waiters, [1, 2]);
        assert!(table.finish(1, b"a").waiters.is_empty());
        assert!(is_first(&table.join(1, b"a", 4)));
    }

    #[test]
    fn too_many_waiters_make_the_oldest_go() {
        let mut table = table();
        for waiter in 0..3 {
            table.join(1, b"a", waiter);
        }
        for waiter in 3..9 {
            assert_eq!(in_place_of(table.join(1, b"a", waiter)), Some(waiter - 3));
        }
        assert_eq!(table.finish(1, b"a").waiters, [6, 7, 8]);
        assert_eq!(table.joined, 0);
    }

    #[test]
    fn too_many_questions_make_the_oldest_end() {
        let mut table = table();
        let mut evictions = Vec::new();
        for number in 0..5u8 {
            let Joined::First(eviction) = table.join(1, &[number], 0) else { panic!() };
            evictions.push(eviction);
        }
        let told = evictions.iter_mut().map(is_told).collect::<Vec<_>>();
        assert_eq!(told, [true, true, true, false, false]);
        assert!(is_waiting(&table.join(1, &[0], 1)), "until it has ended");
        assert_eq!(table.len(), 5);
        assert_eq!(table.finish(1, &[0]).waiters, [0, 1]);
        let Joined::First(mut again) = table.join(1, &[0], 2) else { panic!() };
        assert!(!is_told(&mut again) && is_told(&mut evictions[3]));
    }

    #[test]
    fn questions_that_have_not_ended_yet_are_bounded() {
        let forward = config::Forward { inflight_max: 2, ..Default::default() };
        let (mut table, max) = (table(), questions_in_all_max(&forward));
        let number = |number: usize| u64::try_from(number).unwrap().to_be_bytes();
        let firsts = (0..10 * max).filter(|&it| is_first(&table.join(1, &number(it), 0))).count();
        assert_eq!((firsts, table.len()), (max, max));
        assert!(matches!(table.join(1, b"a", 9), Joined::TooManyQuestions(9)));
        table.finish(1, &number(0));
        assert!(is_first(&table.join(1, b"a", 9)));
    }

    #[test]
    fn questions_for_which_nobody_waits_yield_first() {
        let forward = config::Forward { inflight_max: 8, ..Default::default() };
        let mut table: Inflight<u32> = Inflight::new(&forward);
        let mut served = begun(table.join(1, b"served", 0));
        let mut joined = table.begin_ahead(1, b"joined").unwrap();
        let mut ahead = table.begin_ahead(1, b"ahead").unwrap();
        assert!(is_waiting(&table.join(1, b"joined", 0)));
        let mut others: Vec<_> = (0..5).map(|it: u8| begun(table.join(1, &[it], 0))).collect();
        table.give_up_waiting(1, b"served");
        let mut yields = |table: &mut Inflight<u32>, number: u8, eviction: &mut Eviction| {
            assert!(!is_told(eviction));
            others.push(begun(table.join(2, &[number], 0)));
            assert!(is_told(eviction), "{number}");
        };
        yields(&mut table, 11, &mut ahead);
        yields(&mut table, 12, &mut served);
        yields(&mut table, 13, &mut joined);
        assert!(!others.iter_mut().any(is_told));
    }

    #[test]
    fn waiters_are_bounded_over_all_questions() {
        let half = WAITERS_IN_ALL_MAX / 2;
        let forward =
            config::Forward { inflight_max: 100, waiters_max: half, ..Default::default() };
        let mut table = Inflight::new(&forward);
        let mut gone = 0;
        for question in 0..3u8 {
            for waiter in 0..half {
                gone += usize::from(in_place_of(table.join(1, &[question], waiter)).is_some());
            }
        }
        // The first askers of the three questions are not among them.
        assert_eq!((gone, table.joined), (half - 3, WAITERS_IN_ALL_MAX));
        assert!(is_first(&table.join(2, b"other", 1)), "questions have their own limit");
        assert_eq!(in_place_of(table.join(2, b"other", 2)), Some(1));
        assert!(table.begin_ahead(2, b"ahead").is_some());
        assert!(matches!(table.join(2, b"ahead", 9), Joined::TooManyWaiters(9)));
        assert_eq!(table.give_up_waiting(1, &[0]).len(), half);
        assert!(is_waiting(&table.join(2, b"ahead", 2)));
        for question in 0..3u8 {
            table.finish(1, &[question]);
        }
        table.finish(2, b"other");
        table.finish(2, b"ahead");
        assert_eq!((table.len(), table.joined, table.room.len()), (0, 0, 0));
    }

    #[test]
    fn as_many_may_wait_in_all_as_for_one_question() {
        let max = WAITERS_IN_ALL_MAX + 2;
        let forward = config::Forward { inflight_max: 1, waiters_max: max, ..Default::default() };
        let mut table = Inflight::new(&forward);
        let gone = (0..max).filter_map(|it| in_place_of(table.join(1, b"a", it))).count();
        assert_eq!(gone, 0);
        assert_eq!(in_place_of(table.join(1, b"a", max)), Some(0));
    }

    #[test]
    fn questions_ahead_of_time_leave_room_for_those_that_somebody_asks() {
        let forward = config::Forward { inflight_max: 8, ..Default::default() };
        let mut table: Inflight<u32> = Inflight::new(&forward);
        let begins = |table: &mut Inflight<u32>, key| table.begin_ahead(1, key).is_some();
        assert!(begins(&mut table, b"a") && !begins(&mut table, b"a"));
        assert!(begins(&mut table, b"b") && !begins(&mut table, b"c"));
        assert!(is_waiting(&table.join(1, b"a", 7)));
        assert_eq!(table.finish(1, b"a").waiters, [7]);
        assert!(begins(&mut table, b"c"));
        for number in 0..6u8 {
            table.join(1, &[number], 0);
        }
        table.finish(1, b"c");
        table.join(1, &[6], 0);
        assert!(!begins(&mut table, b"c"), "nobody makes room for it");
    }

    #[test]
    fn who_gave_up_waiting_is_not_told_twice() {
        let mut table = table();
        table.join(1, b"a", 1);
        assert!(!table.is_slow(1, b"a"));
        assert_eq!(table.give_up_waiting(1, b"a"), [1]);
        assert!(table.is_slow(1, b"a"));
        assert!(is_waiting(&table.join(1, b"a", 2)));
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

    #[test]
    fn same_key_under_another_hash_is_another_question() {
        let mut table = table();
        assert!(is_first(&table.join(1, b"a", 1)));
        assert!(is_first(&table.join(2, b"a", 2)));
        assert_eq!(table.finish(1, b"a").waiters, [1]);
        assert_eq!(table.finish(2, b"a").waiters, [2]);
    }
}
