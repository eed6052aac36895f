//! The forwarder's UDP sockets: on ports drawn at random, and replaced by age, use and flood, as the pool of `upstream`
//! does it with real ones.

use std::time::Duration;

use super::chance::Chance;
use crate::time::Monotonic;

/// Lowest source port.
const PORT_MIN: u16 = 1_024;

/// Queries that a socket serves at most.
const USES_MAX: u32 = 64;

/// How long a socket serves at most.
const AGE_MAX: Duration = Duration::from_secs(60);

/// A socket, named by its port.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Port(pub(super) u16);

#[derive(Debug)]
struct Socket {
    port: Port,
    uses_left: u32,
    worn_at: Monotonic,
    in_flight: u32,
    is_retired: bool,
}

/// The sockets of one core.
#[derive(Debug)]
pub(super) struct Sockets {
    all: Vec<Socket>,
    count_max: usize,
}

impl Sockets {
    pub(super) const fn new(count_max: usize) -> Self {
        Self { all: Vec::new(), count_max }
    }

    /// A socket for a query: another one while there are few, else a random one. With it a socket that is closed now.
    pub(super) fn draw(&mut self, now: Monotonic, chance: &Chance) -> (Port, Option<Port>) {
        let serving: Vec<usize> =
            (0..self.all.len()).filter(|&place| !self.all[place].is_retired).collect();
        if serving.len() < self.count_max {
            return (self.open(now, chance), None);
        }
        let place = chance.pick(&serving);
        let socket = &mut self.all[place];
        if socket.uses_left > 0 && now < socket.worn_at {
            return (socket.port, None);
        }
        socket.is_retired = true;
        let port = socket.port;
        let closed = self.close_if_done(port);
        (self.open(now, chance), closed)
    }

    /// A query goes out from it.
    pub(super) fn enter(&mut self, port: Port) {
        let socket = self.socket(port).expect("only sockets that are open are entered");
        socket.in_flight += 1;
        socket.uses_left = socket.uses_left.saturating_sub(1);
    }

    /// A query is over; gives the socket if that is closed now.
    pub(super) fn leave(&mut self, port: Port) -> Option<Port> {
        let socket = self.socket(port).expect("sockets with queries in flight stay open");
        socket.in_flight -= 1;
        self.close_if_done(port)
    }

    /// Somebody knows its port.
    pub(super) fn wear(&mut self, port: Port) {
        if let Some(socket) = self.socket(port) {
            socket.uses_left = 0;
        }
    }

    pub(super) fn is_open(&self, port: Port) -> bool {
        self.all.iter().any(|socket| socket.port == port)
    }

    /// All that are open.
    pub(super) fn ports(&self) -> Vec<Port> {
        self.all.iter().map(|socket| socket.port).collect()
    }

    fn socket(&mut self, port: Port) -> Option<&mut Socket> {
        self.all.iter_mut().find(|socket| socket.port == port)
    }

    fn open(&mut self, now: Monotonic, chance: &Chance) -> Port {
        let port = loop {
            let port = Port(chance.u16());
            if port.0 >= PORT_MIN && !self.is_open(port) {
                break port;
            }
        };
        let uses_left = USES_MAX / 2 + u32::from(chance.u16()) % (USES_MAX / 2);
        let worn_at = now.after(AGE_MAX / 2 + chance.millis(0, 30_000));
        self.all.push(Socket { port, uses_left, worn_at, in_flight: 0, is_retired: false });
        port
    }

    fn close_if_done(&mut self, port: Port) -> Option<Port> {
        let is_done =
            |socket: &Socket| socket.port == port && socket.is_retired && socket.in_flight == 0;
        let place = self.all.iter().position(is_done)?;
        self.all.remove(place);
        Some(port)
    }
}
