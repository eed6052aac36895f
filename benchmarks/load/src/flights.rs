//! Questions of one socket that wait for their answers, by ID. IDs go round; so the oldest flight is always the one that comes first
//! after the last that was given out.

/// One question under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Flight {
    /// When it was due, in nanoseconds since the start.
    pub(crate) due_ns: u64,
    /// When it was sent; never before the flights that were begun earlier.
    pub(crate) sent_ns: u64,
    /// Which question it is.
    pub(crate) number: u32,
}

/// The flights of one socket.
#[derive(Debug)]
pub(crate) struct Flights {
    /// By ID; IDs that are a multiple of this apart share a place. From `oldest` to `next` lie those under way; elsewhere those that
    /// expired, until their place is given out again.
    flights: Box<[Option<Flight>]>,
    /// The ID that the next question gets.
    next: u16,
    /// No flight is older than the one with this ID, which is under way if any is.
    oldest: u16,
    /// IDs from `oldest` to `next`.
    span: u32,
}

impl Flights {
    /// None yet, and room for `room` of them, a power of two up to 65536; the first ID will be `first`.
    pub(crate) fn new(first: u16, room: usize) -> Self {
        Self { flights: vec![None; room].into(), next: first, oldest: first, span: 0 }
    }

    fn place(&self, id: u16) -> usize {
        usize::from(id) & (self.flights.len() - 1)
    }

    /// Whether `id` has been given out and may not have been answered.
    fn is_open(&self, id: u16) -> bool {
        u32::from(id.wrapping_sub(self.oldest)) < self.span
    }

    /// The ID of the next question, if one is free: all of them may be under way, or wait for an older one.
    pub(crate) fn vacancy(&self) -> Option<u16> {
        ((self.span as usize) < self.flights.len()).then_some(self.next)
    }

    /// Begins the flight with the ID that [`Self::vacancy`] named.
    pub(crate) fn begin(&mut self, flight: Flight) {
        let place = self.place(self.next);
        self.flights[place] = Some(flight);
        self.next = self.next.wrapping_add(1);
        self.span += 1;
    }

    /// The flight with this ID.
    pub(crate) fn at(&self, id: u16) -> Option<Flight> {
        if self.is_open(id) { self.flights[self.place(id)] } else { None }
    }

    /// Ends the flight with this ID.
    pub(crate) fn end(&mut self, id: u16) {
        if self.is_open(id) {
            let place = self.place(id);
            self.flights[place] = None;
            self.pass_ended();
        }
    }

    /// Ends the oldest flight if it was sent before `limit_ns`. It is remembered until its place is given out again.
    pub(crate) fn expire(&mut self, limit_ns: u64) -> Option<Flight> {
        if self.span == 0 {
            return None;
        }
        let late = self.flights[self.place(self.oldest)].filter(|late| late.sent_ns < limit_ns)?;
        self.pass();
        self.pass_ended();
        Some(late)
    }

    /// The flight with this ID that expired, if its place has not been given out again.
    pub(crate) fn expired(&self, id: u16) -> Option<Flight> {
        // 0 is the ID that comes next, and was given out 65 536 questions ago.
        let age = usize::from(self.next.wrapping_sub(id).wrapping_sub(1)) + 1;
        if self.is_open(id) || age > self.flights.len() {
            return None;
        }
        self.flights[self.place(id)]
    }

    /// Forgets a flight that [`Self::expired`] named.
    pub(crate) fn forget(&mut self, id: u16) {
        if self.expired(id).is_some() {
            let place = self.place(id);
            self.flights[place] = None;
        }
    }

    fn pass(&mut self) {
        self.oldest = self.oldest.wrapping_add(1);
        self.span -= 1;
    }

    /// Goes on to the oldest flight that is under way.
    fn pass_ended(&mut self) {
        while self.span > 0 && self.flights[self.place(self.oldest)].is_none() {
            self.pass();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(sent_ns: u64) -> Flight {
        Flight { due_ns: sent_ns / 2, sent_ns, number: 3 }
    }

    #[test]
    fn ids_go_round_and_the_oldest_expire_first() {
        let mut flights = Flights::new(65_535, 4);
        for sent in 0..3 {
            flights.begin(flight(sent));
        }
        assert_eq!(flights.at(65_535), Some(flight(0)));
        assert_eq!(flights.at(0), Some(flight(1)));
        flights.end(0);
        assert_eq!(flights.expire(1), Some(flight(0)));
        assert_eq!(flights.expire(2), None);
        assert_eq!(flights.expire(3), Some(flight(2)));
        assert_eq!((flights.expire(u64::MAX), flights.span), (None, 0));
    }

    #[test]
    fn an_id_is_free_again_only_when_all_older_ones_are_over() {
        let mut flights = Flights::new(0, 65_536);
        for sent in 0..65_536 {
            assert!(flights.vacancy().is_some());
            flights.begin(flight(sent));
        }
        assert_eq!(flights.vacancy(), None);
        (1..=65_535).for_each(|id| flights.end(id));
        assert_eq!(flights.vacancy(), None);
        flights.end(0);
        assert_eq!((flights.vacancy(), flights.span), (Some(0), 0));
    }

    #[test]
    fn ids_are_given_out_anew_for_ever_while_few_are_open() {
        for room in [16, 1_024, 65_536] {
            let mut flights = Flights::new(9, room);
            let mut open = std::collections::VecDeque::new();
            for sent in 0..200_000 {
                let id = flights.vacancy().unwrap();
                flights.begin(flight(sent));
                open.push_back(id);
                if open.len() == 10 {
                    // The second oldest is answered first, as now and then it is.
                    let id = open.remove(usize::from(sent % 3 == 0)).unwrap();
                    assert!(flights.at(id).is_some());
                    flights.end(id);
                }
            }
        }
    }

    #[test]
    fn what_expired_is_known_until_its_place_is_given_out() {
        let mut flights = Flights::new(0, 4);
        assert_eq!(flights.expired(0), None);
        for sent in 0..3 {
            flights.begin(flight(sent));
        }
        flights.end(1);
        assert_eq!(flights.expire(1), Some(flight(0)));
        assert_eq!((flights.at(0), flights.expired(0)), (None, Some(flight(0))));
        assert_eq!((flights.expired(1), flights.expired(2)), (None, None));
        // An ID that was never given out, though its place was.
        assert_eq!(flights.expired(65_532), None);
        flights.forget(2);
        assert_eq!(flights.at(2), Some(flight(2)));
        flights.begin(flight(3));
        assert_eq!(flights.expired(0), Some(flight(0)));
        flights.begin(flight(4));
        assert_eq!((flights.expired(0), flights.at(4)), (None, Some(flight(4))));
        assert_eq!(flights.expire(3), Some(flight(2)));
        flights.forget(2);
        assert_eq!(flights.expired(2), None);
    }
}
