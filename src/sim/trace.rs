//! What happened in a run, in one number, and how often each fault struck.

use std::cell::Cell;

use crate::resolve::flights::Arrival;
use crate::time::Monotonic;

/// A hash over all that happened: FNV-1a with 64 bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Trace {
    /// Takes up octets.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for octet in bytes {
            self.0 = (self.0 ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    /// The hash so far.
    #[must_use]
    pub(super) const fn value(self) -> u64 {
        self.0
    }

    /// Takes up what happened at `now`.
    pub(super) fn event(&mut self, now: Monotonic, kind: Event, bytes: &[u8]) {
        self.bytes(&now.as_nanos().to_be_bytes());
        self.bytes(&[kind as u8]);
        self.bytes(bytes);
    }
}

/// What a trace takes up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Begun,
    Ended,
    Sent,
    Arrived,
    Refused,
    StreamSent,
    StreamArrived,
}

/// What can go wrong on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// A datagram got lost.
    Lost,
    /// A datagram took many times the usual.
    Straggled,
    /// A datagram came twice.
    Doubled,
    /// Random octets came.
    Garbage,
    /// A dead server was asked.
    Silence,
    /// Nobody listens, and the network says so.
    Refused,
    /// A server gave an error code.
    Failed,
    /// A server could not read EDNS.
    Choked,
    /// A server did not keep the casing.
    Lowered,
    /// An answer was cut.
    Cut,
    /// A server wanted its cookie.
    CookieDemanded,
    /// A server that had given cookies gave none.
    CookieStopped,
    /// A server said what is not true or not its business.
    Lied,
    /// A stream was refused.
    StreamRefused,
    /// A stream brought nothing.
    StreamHung,
    /// A stream broke.
    StreamBroken,
    /// A forgery that is right but for the ID.
    ForgedId,
    /// A forgery that is right but for the question.
    ForgedQuestion,
    /// A forgery that is right but for the source.
    ForgedSource,
    /// A forgery that is right but for the casing.
    ForgedCasing,
    /// A forgery that is right but for our cookie.
    ForgedCookie,
    /// A forgery that is right but for the cookie, which the server has given before.
    ForgedNoCookie,
    /// A forged answer of who guesses.
    Guessed,
    /// One that hit an open socket.
    GuessedSocket,
    /// A question whose answer was no longer wanted.
    Abandoned,
}

/// How many faults there are.
const FAULTS: usize = Fault::Abandoned as usize + 1;

impl Fault {
    /// All faults.
    pub const ALL: [Self; FAULTS] = [
        Self::Lost,
        Self::Straggled,
        Self::Doubled,
        Self::Garbage,
        Self::Silence,
        Self::Refused,
        Self::Failed,
        Self::Choked,
        Self::Lowered,
        Self::Cut,
        Self::CookieDemanded,
        Self::CookieStopped,
        Self::Lied,
        Self::StreamRefused,
        Self::StreamHung,
        Self::StreamBroken,
        Self::ForgedId,
        Self::ForgedQuestion,
        Self::ForgedSource,
        Self::ForgedCasing,
        Self::ForgedCookie,
        Self::ForgedNoCookie,
        Self::Guessed,
        Self::GuessedSocket,
        Self::Abandoned,
    ];
}

/// How many things a datagram can turn out to be.
const ARRIVALS: usize = Arrival::WrongCookie as usize + 1;

/// How often everything happened.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    faults: [Cell<u64>; FAULTS],
    arrivals: [Cell<u64>; ARRIVALS],
    floods: Cell<u64>,
}

fn bump(count: &Cell<u64>, by: u64) {
    count.set(count.get() + by);
}

impl Tally {
    /// How often `fault` struck.
    #[must_use]
    pub const fn of(&self, fault: Fault) -> u64 {
        self.faults[fault as usize].get()
    }

    /// How many datagrams turned out to be that.
    #[must_use]
    pub const fn arrived(&self, arrival: Arrival) -> u64 {
        self.arrivals[arrival as usize].get()
    }

    /// How often a socket was found to be flooded.
    #[must_use]
    pub const fn floods(&self) -> u64 {
        self.floods.get()
    }

    /// Adds all of `other`.
    pub fn add(&self, other: &Self) {
        let ours = self.faults.iter().chain(&self.arrivals).chain([&self.floods]);
        let theirs = other.faults.iter().chain(&other.arrivals).chain([&other.floods]);
        for (count, more) in ours.zip(theirs) {
            bump(count, more.get());
        }
    }

    pub(super) fn strike(&self, fault: Fault) {
        bump(&self.faults[fault as usize], 1);
    }

    pub(super) fn arrive(&self, arrival: Arrival, is_flooded: bool) {
        bump(&self.arrivals[arrival as usize], 1);
        bump(&self.floods, u64::from(is_flooded));
    }
}
