//! Questions of one socket that wait for their answers, by ID. IDs go round; so the oldest flight is always the one that comes first
//! after the last that was given out.

/// One question under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Flight {
    /// When it was due, in nanoseconds since the start.
    pub(crate) due_ns: u64,
    /// Which question it is.
    pub(crate) number: u32,
}

/// The flights of one socket.
#[derive(Debug)]
pub(crate) struct Flights {
    /// By ID; IDs that are a multiple of this apart share a place.
    flights: Box<[Option<Flight>]>,
    /// The ID that the next question gets.
    next: u16,
    /// No flight is older than the one with this ID.
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

    /// The ID of the next question, if one is free: all of them may be under way.
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
        }
    }

    /// Ends the oldest flight if it was due before `limit_ns`.
    pub(crate) fn expire(&mut self, limit_ns: u64) -> Option<Flight> {
        while self.span > 0 {
            let place = self.place(self.oldest);
            let place = &mut self.flights[place];
            if place.is_some_and(|flight| flight.due_ns >= limit_ns) {
                return None;
            }
            let late = place.take();
            self.oldest = self.oldest.wrapping_add(1);
            self.span -= 1;
            if late.is_some() {
                return late;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(due_ns: u64) -> Flight {
        Flight { due_ns, number: 3 }
    }

    #[test]
    fn ids_go_round_and_the_oldest_expire_first() {
        let mut flights = Flights::new(65_535, 4);
        for due in 0..3 {
            flights.begin(flight(due));
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
        for due in 0..65_536 {
            assert!(flights.vacancy().is_some());
            flights.begin(flight(due));
        }
        assert_eq!(flights.vacancy(), None);
        (1..=65_535).for_each(|id| flights.end(id));
        assert_eq!(flights.expire(0), None);
        assert_eq!(flights.vacancy(), None);
        flights.end(0);
        assert_eq!(flights.expire(0), None);
        assert_eq!(flights.vacancy(), Some(0));
    }
}
