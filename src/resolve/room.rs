//! A room for so many members: who enters when it is full makes the one who has been there longest leave.
//!
//! Nobody is thrown out: a member is told, by the future [`Eviction`], and goes by dropping its [`Guard`] when its task
//! gets there. Until then there are more than the room is for, so that is bounded, too.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Members that were told and have not left yet, in a small room: as many as one turn of a listener brings before the
/// tasks that it has told may run.
const LEAVING_MIN: usize = 128;

/// In a large room they are one in so many.
const LEAVING_SHARE: usize = 8;

/// The turn of a member that stands in no line any more.
const GONE: u64 = u64::MAX;

/// Who is told to leave first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claim {
    /// Leaves before any with a firm claim, and makes none of those leave.
    Loose,
    /// Leaves when no loose claim is left.
    Firm,
}

/// The most members that a room for `max` can have, those included that have been told and have not left yet.
#[must_use]
pub const fn members_max(max: usize) -> usize {
    max.saturating_add(leaving_max(max))
}

const fn leaving_max(max: usize) -> usize {
    let share = max / LEAVING_SHARE;
    if share > LEAVING_MIN { share } else { LEAVING_MIN }
}

/// The room. Its clones are the same room.
#[derive(Clone, Debug)]
pub struct Room(Rc<RefCell<Lines>>);

impl Room {
    /// An empty room for `max` members.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let lines = [Line::default(), Line::default()];
        Self(Rc::new(RefCell::new(Lines { max, lines, leaving: 0 })))
    }

    /// Enters the room; in a full one the oldest member with the weakest claim is told to leave.
    ///
    /// `None` when nobody may be told for this claim, or too many have been told and have not left yet.
    #[must_use]
    pub fn enter(&self, claim: Claim) -> Option<Guard> {
        let mut lines = self.0.borrow_mut();
        let told = if lines.staying() < lines.max { None } else { Some(lines.tell_oldest(claim)?) };
        let member = Rc::new(Member {
            claim: Cell::new(claim),
            turn: Cell::new(0),
            is_told: Cell::new(false),
            waker: Cell::new(None),
        });
        lines.of(claim).admit(&member);
        // Whoever is woken may come back here at once.
        drop(lines);
        if let Some(waker) = told.and_then(|told| told.waker.take()) {
            waker.wake();
        }
        Some(Guard { room: Self::clone(self), member })
    }

    /// Members, those included that have been told and have not left yet.
    #[must_use]
    pub fn len(&self) -> usize {
        let lines = self.0.borrow();
        lines.staying() + lines.leaving
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A member's place; free again when this is dropped.
#[derive(Debug)]
pub struct Guard {
    room: Room,
    member: Rc<Member>,
}

impl Guard {
    /// Comes true when the member has to leave. Of several of these only the one that was polled last is woken.
    pub fn evicted(&self) -> Eviction {
        Eviction(Rc::clone(&self.member))
    }

    /// Changes the claim. Among those who have the other one, the member is then the newest.
    pub fn set_claim(&self, claim: Claim) {
        let former = self.member.claim.replace(claim);
        if former == claim || self.member.turn.get() == GONE {
            return;
        }
        let mut lines = self.room.0.borrow_mut();
        self.member.turn.set(self.member.turn.get() + 1);
        lines.of(former).forget_one();
        lines.of(claim).admit(&self.member);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Whatever hangs on the waker may come back here: not while the lines are borrowed.
        drop(self.member.waker.take());
        let mut lines = self.room.0.borrow_mut();
        if self.member.is_told.get() {
            lines.leaving -= 1;
        } else {
            self.member.turn.set(GONE);
            lines.of(self.member.claim.get()).forget_one();
        }
    }
}

/// Ready when the member has to leave; never when its guard was dropped before.
#[derive(Clone, Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Eviction(Rc<Member>);

impl Future for Eviction {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let member = &self.0;
        if member.is_told.get() {
            return Poll::Ready(());
        }
        if member.turn.get() != GONE {
            let known = member.waker.take().filter(|known| known.will_wake(cx.waker()));
            member.waker.set(Some(known.unwrap_or_else(|| cx.waker().clone())));
        }
        Poll::Pending
    }
}

struct Member {
    claim: Cell<Claim>,
    /// Which of the places that were given to it is its own: the last one, or [`GONE`].
    turn: Cell<u64>,
    is_told: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut member = f.debug_struct("Member");
        member.field("claim", &self.claim.get()).field("is_told", &self.is_told.get());
        member.finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Lines {
    max: usize,
    /// By claim, the oldest in front. Who has been told stands in none.
    lines: [Line; 2],
    /// Members that were told and have not left yet.
    leaving: usize,
}

impl Lines {
    fn staying(&self) -> usize {
        self.lines.iter().map(Line::staying).sum()
    }

    const fn of(&mut self, claim: Claim) -> &mut Line {
        let [loose, firm] = &mut self.lines;
        match claim {
            Claim::Loose => loose,
            Claim::Firm => firm,
        }
    }

    /// Tells the oldest member that has to make room for one with this `claim`.
    fn tell_oldest(&mut self, claim: Claim) -> Option<Rc<Member>> {
        if self.leaving >= leaving_max(self.max) {
            return None;
        }
        let told = match (self.of(Claim::Loose).take_oldest(), claim) {
            (None, Claim::Firm) => self.of(Claim::Firm).take_oldest(),
            (told, _) => told,
        }?;
        told.turn.set(GONE);
        told.is_told.set(true);
        self.leaving += 1;
        Some(told)
    }
}

/// Members in the order in which they came, with places whose member has gone in between.
#[derive(Debug, Default)]
struct Line {
    places: VecDeque<Place>,
    /// Places whose member has gone. Never more than the others.
    vacant: usize,
}

#[derive(Debug)]
struct Place {
    member: Rc<Member>,
    turn: u64,
}

impl Place {
    fn is_vacant(&self) -> bool {
        self.member.turn.get() != self.turn
    }
}

impl Line {
    fn staying(&self) -> usize {
        self.places.len() - self.vacant
    }

    fn admit(&mut self, member: &Rc<Member>) {
        self.places.push_back(Place { member: Rc::clone(member), turn: member.turn.get() });
    }

    fn take_oldest(&mut self) -> Option<Rc<Member>> {
        self.clear_front();
        let oldest = self.places.pop_front().map(|place| place.member);
        self.tidy();
        oldest
    }

    /// A member has gone whose place is still here.
    fn forget_one(&mut self) {
        self.vacant += 1;
        self.clear_front();
        self.tidy();
    }

    /// Most members go in the order in which they came.
    fn clear_front(&mut self) {
        while self.places.front().is_some_and(Place::is_vacant) {
            self.places.pop_front();
            self.vacant -= 1;
        }
    }

    /// Each walk is paid for by the members that have gone since the last one.
    fn tidy(&mut self) {
        if self.vacant > self.staying() {
            self.places.retain(|place| !place.is_vacant());
            self.vacant = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    fn is_told(guard: &Guard) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(guard.evicted()).poll(&mut cx).is_ready()
    }

    #[test]
    fn newcomer_makes_the_oldest_leave() {
        let room = Room::new(2);
        let first = room.enter(Claim::Firm).unwrap();
        let second = room.enter(Claim::Firm).unwrap();
        assert!(!is_told(&first) && !is_told(&second));
        let third = room.enter(Claim::Firm).unwrap();
        assert_eq!([&first, &second, &third].map(is_told), [true, false, false]);
        assert_eq!(room.len(), 3);
        drop(first);
        assert_eq!(room.len(), 2);
        drop(third);
        let _fourth = room.enter(Claim::Firm).unwrap();
        assert!(!is_told(&second), "there was room");
    }

    #[test]
    fn loose_claims_yield_first_and_make_no_firm_one_yield() {
        let room = Room::new(2);
        let firm = room.enter(Claim::Firm).unwrap();
        let loose = room.enter(Claim::Loose).unwrap();
        let newer = room.enter(Claim::Firm).unwrap();
        assert_eq!([&firm, &loose, &newer].map(is_told), [false, true, false]);
        assert!(room.enter(Claim::Loose).is_none());
        firm.set_claim(Claim::Loose);
        let other = room.enter(Claim::Loose).unwrap();
        assert!(is_told(&firm) && !is_told(&other));
        other.set_claim(Claim::Firm);
        let _newest = room.enter(Claim::Firm).unwrap();
        assert_eq!([&newer, &other].map(is_told), [true, false], "it has just become firm");
    }

    #[test]
    fn those_who_linger_are_bounded() {
        for max in [0, 1, 8, 5_000] {
            let room = Room::new(max);
            let guards: Vec<_> = std::iter::from_fn(|| room.enter(Claim::Firm)).collect();
            let expected = if max == 0 { 0 } else { members_max(max) };
            assert_eq!((guards.len(), room.len()), (expected, expected));
            let told = guards.iter().take_while(|guard| is_told(guard)).count();
            assert_eq!(told, expected - max, "the oldest");
            drop(guards);
            assert!(room.is_empty());
        }
        assert_eq!([members_max(8), members_max(5_000)], [136, 5_625]);
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_to_be_told_is_woken_once() {
        let room = Room::new(1);
        let guard = room.enter(Claim::Firm).unwrap();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut eviction = pin!(guard.evicted());
        for _ in 0..3 {
            let poll = eviction.as_mut().poll(&mut Context::from_waker(&waker));
            assert_eq!(poll, Poll::Pending);
        }
        let _other = room.enter(Claim::Firm).unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let poll = eviction.as_mut().poll(&mut Context::from_waker(&waker));
        assert_eq!(poll, Poll::Ready(()));
        drop(guard);
        assert_eq!(room.len(), 1);
    }

    #[test]
    fn eviction_that_outlives_its_guard_holds_no_waker() {
        let room = Room::new(1);
        let guard = room.enter(Claim::Firm).unwrap();
        let mut eviction = pin!(guard.evicted());
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        assert!(eviction.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(guard);
        assert!(eviction.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    /// The same by a plain list: who is in the room, the oldest first.
    #[derive(Default)]
    struct Model {
        staying: Vec<(u64, Claim)>,
        told: Vec<u64>,
    }

    impl Model {
        fn enter(&mut self, number: u64, claim: Claim, max: usize) -> bool {
            if self.staying.len() >= max {
                let loose = self.staying.iter().position(|(_, other)| *other == Claim::Loose);
                let any = (claim == Claim::Firm && !self.staying.is_empty()).then_some(0);
                let Some(place) = loose.or(any) else { return false };
                if self.told.len() >= leaving_max(max) {
                    return false;
                }
                self.told.push(self.staying.remove(place).0);
            }
            self.staying.push((number, claim));
            true
        }

        fn leave(&mut self, number: u64) {
            self.staying.retain(|(other, _)| *other != number);
            self.told.retain(|other| *other != number);
        }

        fn set_claim(&mut self, number: u64, claim: Claim) {
            let place = self.staying.iter().position(|(other, _)| *other == number);
            if let Some(place) = place.filter(|&place| self.staying[place].1 != claim) {
                let (number, _) = self.staying.remove(place);
                self.staying.push((number, claim));
            }
        }
    }

    #[test]
    fn room_does_what_a_plain_list_does() {
        for max in [0, 1, 2, 7, 40] {
            let (room, mut model) = (Room::new(max), Model::default());
            let mut guards: Vec<(u64, Guard)> = Vec::new();
            // xorshift64.
            let mut state = 0x9E37_79B9_7F4A_7C15_u64 + max as u64;
            let mut draw = |bound: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                usize::try_from(state % bound as u64).unwrap()
            };
            for number in 0..20_000 {
                // Sometimes more come than go, sometimes fewer.
                let newcomers = 2 + 4 * usize::from(number / 500 % 2 == 0);
                let claim = if draw(3) == 0 { Claim::Loose } else { Claim::Firm };
                match draw(10) {
                    kind if kind < newcomers => {
                        let guard = room.enter(claim);
                        assert_eq!(guard.is_some(), model.enter(number, claim, max));
                        guards.extend(guard.map(|guard| (number, guard)));
                    }
                    0..8 if !guards.is_empty() => {
                        let (left, guard) = guards.swap_remove(draw(guards.len()));
                        drop(guard);
                        model.leave(left);
                    }
                    8..10 if !guards.is_empty() => {
                        let (changed, guard) = &guards[draw(guards.len())];
                        guard.set_claim(claim);
                        model.set_claim(*changed, claim);
                    }
                    _ => {}
                }
                for (number, guard) in &guards {
                    assert_eq!(is_told(guard), model.told.contains(number), "{max} {number}");
                }
                assert_eq!(room.len(), guards.len());
                assert!(room.len() <= members_max(max));
                for line in &room.0.borrow().lines {
                    assert!(line.vacant <= line.staying());
                    let vacant = line.places.iter().filter(|place| place.is_vacant()).count();
                    assert_eq!(vacant, line.vacant);
                }
            }
        }
    }
}
