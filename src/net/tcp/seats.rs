//! Who may have a connection: seats per listener, shares per client, and who leaves when there is no room. No I/O.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

/// Open connections per client of one core. A client is an IPv4 address or an IPv6 /64: one host has a whole /64.
#[derive(Debug)]
pub(super) struct Clients {
    share_max: usize,
    open: RefCell<HashMap<u128, usize>>,
}

impl Clients {
    /// Each client gets at most `share_max` connections.
    pub(super) fn new(share_max: usize) -> Self {
        Self { share_max, open: RefCell::default() }
    }

    fn has_room(&self, client: u128) -> bool {
        self.open.borrow().get(&client).copied().unwrap_or(0) < self.share_max
    }

    fn enter(&self, client: u128) {
        *self.open.borrow_mut().entry(client).or_insert(0) += 1;
    }

    fn leave(&self, client: u128) {
        let mut open = self.open.borrow_mut();
        let count = open.get_mut(&client).expect("who leaves has entered");
        *count -= 1;
        if *count == 0 {
            open.remove(&client);
        }
    }
}

fn client_key(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits() >> 64 << 64,
    }
}

/// Why a newcomer gets no seat.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// Its client has its share already.
    Client,
    /// All seats are taken and nobody idle could leave.
    Full,
}

/// The seats of one listener. `T` is how an idle connection is told to leave.
#[derive(Debug)]
pub(super) struct Seats<T> {
    seats_max: usize,
    taken: Cell<usize>,
    clients: Rc<Clients>,
    /// Idle connections by the order in which they became idle.
    idle: RefCell<BTreeMap<u64, T>>,
    next_turn: Cell<u64>,
}

impl<T> Seats<T> {
    /// `seats_max` seats, shared among `clients`.
    pub(super) fn new(seats_max: usize, clients: Rc<Clients>) -> Self {
        Self {
            seats_max,
            taken: Cell::new(0),
            clients,
            idle: RefCell::default(),
            next_turn: Cell::new(0),
        }
    }

    /// Gives the client at `address` a seat; when all are taken, `evict` must free one: it is called with the
    /// connection that has been idle longest.
    pub(super) fn take(
        self: &Rc<Self>,
        address: IpAddr,
        evict: impl FnOnce(T),
    ) -> Result<Seat<T>, Refusal> {
        let client = client_key(address);
        if !self.clients.has_room(client) {
            return Err(Refusal::Client);
        }
        if self.taken.get() >= self.seats_max {
            evict(self.longest_idle().ok_or(Refusal::Full)?);
        }
        if self.taken.get() >= self.seats_max {
            return Err(Refusal::Full);
        }
        self.clients.enter(client);
        self.taken.set(self.taken.get() + 1);
        Ok(Seat { seats: Rc::clone(self), client, turn: Cell::new(None), held: Cell::new(true) })
    }

    /// Takes the connection that has been idle longest out of the queue.
    pub(super) fn longest_idle(&self) -> Option<T> {
        self.idle.borrow_mut().pop_first().map(|(_, connection)| connection)
    }
}

/// A place at a listener; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat<T> {
    seats: Rc<Seats<T>>,
    client: u128,
    turn: Cell<Option<u64>>,
    held: Cell<bool>,
}

impl<T> Seat<T> {
    /// Notes that `connection` became idle now: it goes to the end of the queue.
    pub(super) fn idle(&self, connection: T) {
        self.busy();
        let turn = self.seats.next_turn.get();
        self.seats.next_turn.set(turn + 1);
        self.seats.idle.borrow_mut().insert(turn, connection);
        self.turn.set(Some(turn));
    }

    /// Notes that work is in flight: nobody may evict this connection.
    pub(super) fn busy(&self) {
        if let Some(turn) = self.turn.take() {
            self.seats.idle.borrow_mut().remove(&turn);
        }
    }

    /// Whether this connection stands in the queue of the idle.
    pub(super) fn is_idle(&self) -> bool {
        self.turn.get().is_some()
    }

    /// Frees the seat before the connection is gone.
    pub(super) fn leave(&self) {
        self.busy();
        if self.held.replace(false) {
            self.seats.taken.set(self.seats.taken.get() - 1);
            self.seats.clients.leave(self.client);
        }
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn seats(seats_max: usize, share_max: usize) -> Rc<Seats<u8>> {
        Rc::new(Seats::new(seats_max, Rc::new(Clients::new(share_max))))
    }

    #[test]
    fn share_is_per_ipv4_address_and_ipv6_64() {
        let seats = seats(99, 1);
        let refused = |text| seats.take(address(text), |_| ()).map(drop).unwrap_err();
        let _first = seats.take(address("192.0.2.1"), |_| ()).unwrap();
        let _second = seats.take(address("192.0.2.2"), |_| ()).unwrap();
        let _third = seats.take(address("2001:db8::1"), |_| ()).unwrap();
        let _fourth = seats.take(address("2001:db8:0:1::1"), |_| ()).unwrap();
        assert_eq!(refused("192.0.2.1"), Refusal::Client);
        assert_eq!(refused("::ffff:192.0.2.2"), Refusal::Client);
        assert_eq!(refused("2001:db8::ffff:0:0:1"), Refusal::Client);
    }

    #[test]
    fn share_is_free_again_and_forgotten() {
        let seats = seats(9, 1);
        drop(seats.take(address("192.0.2.1"), |_| ()).unwrap());
        drop(seats.take(address("192.0.2.1"), |_| ()).unwrap());
        assert!(seats.clients.open.borrow().is_empty());
        assert_eq!(seats.taken.get(), 0);
    }

    #[test]
    fn shares_are_counted_over_all_listeners() {
        let clients = Rc::new(Clients::new(1));
        let one = Rc::new(Seats::<u8>::new(9, Rc::clone(&clients)));
        let two = Rc::new(Seats::<u8>::new(9, clients));
        let _seat = one.take(address("192.0.2.1"), |_| ()).unwrap();
        let refusal = two.take(address("192.0.2.1"), |_| ()).map(drop).unwrap_err();
        assert_eq!(refusal, Refusal::Client);
    }

    #[test]
    fn longest_idle_leaves_and_the_busy_stay() {
        let seats = seats(3, 9);
        let client = address("192.0.2.1");
        let taken: Vec<_> = (0..3).map(|_| seats.take(client, |_| ()).unwrap()).collect();
        for (name, seat) in (0..).zip(&taken) {
            seat.idle(name);
        }
        taken[0].idle(0); // was active again, so 1 is the longest idle
        let mut evicted = None;
        let newcomer = seats.take(client, |name| {
            evicted = Some(name);
            taken[usize::from(name)].leave();
        });
        assert_eq!(evicted, Some(1));
        taken[2].busy();
        taken[0].busy();
        let refusal = seats.take(client, |_| unreachable!("nobody is idle")).map(drop).unwrap_err();
        assert_eq!(refusal, Refusal::Full);
        drop(newcomer);
        assert_eq!(seats.taken.get(), 2);
    }
}
