//! Queries in flight on one connection, and what the messages that arrive on it are to them (RFC 7766 §6.2.1, §7). No I/O.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use ahash::RandomState;

use crate::net::tcp::Bell;
use crate::resolve::exchange;
use crate::resolve::ports::Entropy;
use crate::wire::Header;

/// Queries whose answer is awaited, per connection: one ID in sixty-four. More go over another connection.
pub(super) const ASKED_MAX: usize = 1_024;

/// Queries that were given up and are still unanswered, per connection: their IDs cannot be used again. Beyond it the
/// connection is spent and another one opened.
const GIVEN_UP_MAX: usize = 768;

/// IDs drawn before a query is refused. One in thirty-six is taken at worst, so this many in vain never happen.
const DRAWS_MAX: u32 = 64;

/// Places that an idle connection may keep.
const PLACES_KEPT_MAX: usize = 64;

/// Buckets of the table of places at worst: it holds seven eighths of them, and is made anew at the same size, not
/// larger, as long as half of that is in use.
const BUCKETS_MAX: usize = 4_096;

/// Bytes of that table: each bucket has a place and one byte of the table's own.
pub(super) const PLACES_BYTES_MAX: usize = BUCKETS_MAX * (size_of::<(u16, Place)>() + 1);

const _: () = assert!(ASKED_MAX + GIVEN_UP_MAX <= BUCKETS_MAX / 8 * 7 / 2);

/// The connection died before the answer came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lost {
    /// The server answers on other connections, or did on this one: it is worth to send the query once more.
    pub(super) is_worth_another: bool,
}

/// What a message that arrived was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Arrival {
    /// The answer that somebody waits for.
    Answer,
    /// The answer to a query that was given up.
    Late,
    /// Its ID is that of no query.
    Unasked,
    /// Its ID is known, but it does not answer that query.
    Foreign,
}

/// Where an answer is put, or that none will come.
#[derive(Debug, Default)]
pub(super) struct Slot {
    outcome: RefCell<Option<Result<Vec<u8>, Lost>>>,
    bell: Bell,
}

impl Slot {
    fn fill(&self, outcome: Result<Vec<u8>, Lost>) {
        self.outcome.replace(Some(outcome));
        self.bell.ring();
    }

    /// Waits for the answer.
    pub(super) fn outcome(&self) -> impl Future<Output = Result<Vec<u8>, Lost>> {
        poll_fn(|cx| match self.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                self.bell.listen(cx.waker());
                Poll::Pending
            }
        })
    }
}

/// What an ID on the wire stands for.
#[derive(Debug)]
enum Place {
    Asked(Box<Asked>),
    GivenUp,
}

/// A query whose answer is awaited.
#[derive(Debug)]
struct Asked {
    /// As it was sent.
    query: Box<[u8]>,
    /// The query's own ID.
    id: [u8; 2],
    slot: Rc<Slot>,
}

/// The queries of one connection that are not answered yet, by their IDs on the wire.
#[derive(Debug, Default)]
pub(super) struct Flights {
    places: HashMap<u16, Place, RandomState>,
    given_up: usize,
}

impl Flights {
    /// Queries whose answer somebody waits for.
    pub(super) fn asked(&self) -> usize {
        self.places.len() - self.given_up
    }

    /// Queries that were sent and not answered, those that were given up included.
    pub(super) fn unanswered(&self) -> usize {
        self.places.len()
    }

    /// Whether too many of its IDs are lost to queries that were given up.
    const fn is_spent(&self) -> bool {
        self.given_up >= GIVEN_UP_MAX
    }

    /// Whether one more query may be begun.
    pub(super) fn has_room(&self) -> bool {
        self.asked() < ASKED_MAX && !self.is_spent()
    }

    /// Gives `query` an ID that is free on this connection, writes it into the query, and `queue`s it.
    ///
    /// `None` without room, or when the query has no header.
    pub(super) fn begin(
        &mut self,
        query: &[u8],
        entropy: &impl Entropy,
        queue: impl FnOnce(&[u8]),
    ) -> Option<(u16, Rc<Slot>)> {
        if self.asked() >= ASKED_MAX {
            return None;
        }
        let mut query: Box<[u8]> = query.into();
        Header::read(&query)?;
        let own = query.first_chunk_mut::<2>()?;
        let on_wire =
            (0..DRAWS_MAX).map(|_| entropy.u16()).find(|id| !self.places.contains_key(id))?;
        let id = std::mem::replace(own, on_wire.to_be_bytes());
        queue(&query);
        let slot = Rc::new(Slot::default());
        let asked = Asked { query, id, slot: Rc::clone(&slot) };
        self.places.insert(on_wire, Place::Asked(Box::new(asked)));
        Some((on_wire, slot))
    }

    /// Nobody waits at `slot` any more, which belonged to the query with the ID `on_wire`.
    pub(super) fn give_up(&mut self, on_wire: u16, slot: &Rc<Slot>) {
        // Once it is answered, its ID may be another query's.
        if let Some(place) = self.places.get_mut(&on_wire)
            && matches!(place, Place::Asked(asked) if Rc::ptr_eq(&asked.slot, slot))
        {
            *place = Place::GivenUp;
            self.given_up += 1;
        }
    }

    /// Takes a message: hands it to who waits for it, with the ID that it was asked with.
    pub(super) fn arrive(&mut self, message: &[u8]) -> Arrival {
        let Some(header) = Header::read(message) else { return Arrival::Foreign };
        let arrival = match self.places.get(&header.id) {
            None => return Arrival::Unasked,
            Some(Place::GivenUp) => {
                self.given_up -= 1;
                Arrival::Late
            }
            Some(Place::Asked(asked)) if !exchange::answers(&asked.query, message) => {
                return Arrival::Foreign;
            }
            Some(Place::Asked(asked)) => {
                let mut answer = message.to_vec();
                if let Some(on_wire) = answer.first_chunk_mut() {
                    *on_wire = asked.id;
                }
                asked.slot.fill(Ok(answer));
                Arrival::Answer
            }
        };
        self.places.remove(&header.id);
        if self.places.is_empty() && self.places.capacity() > PLACES_KEPT_MAX {
            self.places = HashMap::default();
        }
        arrival
    }

    /// Ends all: the connection is no more.
    pub(super) fn lose(&mut self, lost: Lost) {
        for (_, place) in self.places.drain() {
            if let Place::Asked(asked) = place {
                asked.slot.fill(Err(lost));
            }
        }
        self.given_up = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_lite::future::{block_on, poll_once};

    use super::*;

    /// IDs from 0 on, sixteen bits wide.
    #[derive(Default)]
    struct Counting(Cell<u16>);

    impl Entropy for Counting {
        fn u16(&self) -> u16 {
            self.0.replace(self.0.get().wrapping_add(1))
        }
    }

    const QUERY: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";

    fn reply(on_wire: u16) -> Vec<u8> {
        let [high, low] = on_wire.to_be_bytes();
        [&[high, low, 0x81], &QUERY[3..]].concat()
    }

    fn outcome(slot: &Slot) -> Option<Result<Vec<u8>, Lost>> {
        block_on(poll_once(slot.outcome()))
    }

    #[test]
    fn answer_gets_its_own_id_back() {
        let mut flights = Flights::default();
        let mut queued = Vec::new();
        let entropy = Counting(Cell::new(0xFFFE));
        let begun = flights.begin(QUERY, &entropy, |query| queued.extend_from_slice(query));
        let (on_wire, slot) = begun.unwrap();
        assert_eq!((on_wire, &queued[..2], &queued[2..]), (0xFFFE, &[0xFF, 0xFE][..], &QUERY[2..]));
        assert_eq!(outcome(&slot), None);
        assert_eq!(flights.arrive(&reply(on_wire)), Arrival::Answer);
        assert_eq!(outcome(&slot), Some(Ok([&QUERY[..2], &reply(on_wire)[2..]].concat())));
        assert_eq!(flights.arrive(&reply(on_wire)), Arrival::Unasked, "only once");
        assert_eq!(flights.unanswered(), 0);
    }

    #[test]
    fn answers_may_come_in_any_order() {
        let (mut flights, entropy) = (Flights::default(), Counting::default());
        let slots: Vec<_> =
            (0..100).map(|_| flights.begin(QUERY, &entropy, |_| ()).unwrap()).collect();
        for (on_wire, slot) in slots.iter().rev() {
            assert_eq!(outcome(slot), None);
            assert_eq!(flights.arrive(&reply(*on_wire)), Arrival::Answer);
            assert!(outcome(slot).unwrap().is_ok());
        }
    }

    #[test]
    fn other_question_under_a_known_id_is_foreign() {
        let (mut flights, entropy) = (Flights::default(), Counting::default());
        let (on_wire, slot) = flights.begin(QUERY, &entropy, |_| ()).unwrap();
        let mut other = reply(on_wire);
        other[13] = b'b';
        assert_eq!(flights.arrive(&other), Arrival::Foreign);
        assert_eq!(flights.arrive(&QUERY[..2]), Arrival::Foreign, "no header");
        assert_eq!((outcome(&slot), flights.asked()), (None, 1));
    }

    #[test]
    fn id_of_a_query_given_up_stays_taken_until_its_answer_comes() {
        let mut flights = Flights::default();
        let (on_wire, slot) = flights.begin(QUERY, &Counting::default(), |_| ()).unwrap();
        flights.give_up(on_wire, &slot);
        flights.give_up(on_wire, &slot);
        assert_eq!((flights.asked(), flights.unanswered()), (0, 1));
        let (next, other) = flights.begin(QUERY, &Counting::default(), |_| ()).unwrap();
        assert_eq!((on_wire, next), (0, 1));
        assert_eq!(flights.arrive(&reply(on_wire)), Arrival::Late);
        // Free again, and no longer the business of the first.
        let (again, _) = flights.begin(QUERY, &Counting::default(), |_| ()).unwrap();
        assert_eq!(again, on_wire);
        flights.give_up(on_wire, &slot);
        assert_eq!((flights.asked(), outcome(&other)), (2, None));
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let (mut flights, entropy) = (Flights::default(), Counting::default());
        let mut slots: Vec<_> =
            std::iter::from_fn(|| flights.begin(QUERY, &entropy, |_| ())).collect();
        assert_eq!(slots.len(), ASKED_MAX);
        let (on_wire, slot) = slots.pop().unwrap();
        flights.give_up(on_wire, &slot);
        assert!(flights.begin(QUERY, &entropy, |_| ()).is_some());
        assert!(flights.begin(QUERY, &entropy, |_| ()).is_none());
        assert!(flights.begin(&QUERY[..11], &entropy, |_| ()).is_none(), "no header");
    }

    #[test]
    fn connection_with_too_many_queries_given_up_is_spent() {
        let (mut flights, entropy) = (Flights::default(), Counting::default());
        for _ in 0..GIVEN_UP_MAX {
            assert!(!flights.is_spent());
            let (on_wire, slot) = flights.begin(QUERY, &entropy, |_| ()).unwrap();
            flights.give_up(on_wire, &slot);
        }
        assert!(flights.is_spent());
        assert_eq!(flights.arrive(&reply(0)), Arrival::Late);
        assert!(!flights.is_spent());
    }

    #[test]
    fn all_who_wait_hear_of_the_end_and_memory_goes_back() {
        let (mut flights, entropy) = (Flights::default(), Counting::default());
        let slots: Vec<_> =
            (0..1000).map(|_| flights.begin(QUERY, &entropy, |_| ()).unwrap()).collect();
        for (on_wire, _) in &slots[..999] {
            flights.arrive(&reply(*on_wire));
        }
        let lost = Lost { is_worth_another: true };
        flights.lose(lost);
        assert_eq!(outcome(&slots[999].1), Some(Err(lost)));
        assert!(outcome(&slots[0].1).unwrap().is_ok(), "what came stays");
        assert_eq!(flights.unanswered(), 0);

        let (on_wire, _) = flights.begin(QUERY, &entropy, |_| ()).unwrap();
        assert!(flights.places.capacity() > PLACES_KEPT_MAX);
        flights.arrive(&reply(on_wire));
        assert_eq!(flights.places.capacity(), 0);
    }
}
