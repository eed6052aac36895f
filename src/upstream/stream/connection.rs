//! One connection to an upstream: queries out in batches, answers in as they come, within bounded memory and time.
//!
//! Everything happens in one task; exchanges queue their queries with [`Connection`] and wake that task.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use glommio::timer::Timer;

use super::backoff::Backoff;
use super::channel::{Channel, Fault};
use super::flights::{Arrival, Flights, Lost, PLACES_BYTES_MAX, Slot};
use super::{Core, Line, READ_BYTES};
use crate::net::streams::OpenStream;
use crate::net::tcp::Bell;
use crate::net::tcp::frame::{self, Frame, Input, Output};
use crate::observe::StreamCounters;
use crate::time::Monotonic;
use crate::wire::options::{TCP_KEEPALIVE, option};

/// Bytes of queries that wait to be written, per connection: one of the longest, or five hundred of those with padding.
/// More go over another connection.
const OUTPUT_BYTES_MAX: usize = 66 << 10;

/// What an answer takes that is put together: the longest, and what was read with its end.
const INPUT_BYTES_MAX: usize = (64 << 10) + READ_BYTES;

/// What TLS holds: octets that wait to be sent, a record being put together, its cleartext, keys (rustls's own bounds).
const TLS_BYTES_MAX: usize = 96 << 10;

/// What a connection holds at worst, beside the queries and answers of those who wait.
pub(crate) const CONNECTION_BYTES: usize = 320 << 10;

const _: () = assert!(
    OUTPUT_BYTES_MAX + INPUT_BYTES_MAX + TLS_BYTES_MAX + PLACES_BYTES_MAX <= CONNECTION_BYTES
);

/// Reads that one connection gets before others have their turn.
const READS_PER_TURN: usize = 16;

/// A connection on which queries wait and no octet arrives for this time is dead: it is what stub resolvers wait for an
/// answer (resolv.conf(5)), and resolvers need less for all but the slowest names.
const STALL_MAX: Duration = Duration::from_secs(5);

/// How long a connection stays without a query, unless its server says otherwise (RFC 7766 §6.2.3: some seconds).
const IDLE_TCP: Duration = Duration::from_secs(10);

/// The same over TLS, where another connection costs more.
const IDLE_TLS: Duration = Duration::from_secs(30);

/// The longest that a server can have us keep a connection.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// Messages that nobody asked for, per connection: beyond it, the server is out of its mind.
const UNASKED_MAX: u32 = 64;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// Of no more use: idle, or its server wants it closed.
    Done,
    /// The server closed it or is silent, the network broke it, or what came on it was nonsense.
    Broken,
}

/// The part of a connection that exchanges reach.
#[derive(Debug)]
pub(super) struct Connection {
    core: Rc<Core>,
    is_tls: bool,
    flights: RefCell<Flights>,
    output: RefCell<Output>,
    /// It is connected, and TLS is agreed on where it is spoken.
    is_open: Cell<bool>,
    /// Queries that were put on it.
    carried: Cell<usize>,
    /// How many of them were answered.
    answered: Cell<usize>,
    /// Since when an octet is waited for, while one is.
    silent_since: Cell<Option<Monotonic>>,
    /// It takes no more queries, and ends with those that it has.
    is_closing: Cell<bool>,
    bell: Bell,
}

impl Connection {
    pub(super) fn new(core: Rc<Core>, is_tls: bool) -> Self {
        core.counters(is_tls).connections.raise();
        Self {
            core,
            is_tls,
            flights: RefCell::default(),
            output: RefCell::default(),
            is_open: Cell::new(false),
            carried: Cell::default(),
            answered: Cell::default(),
            silent_since: Cell::default(),
            is_closing: Cell::new(false),
            bell: Bell::default(),
        }
    }

    /// Whether `query` may be put on it, at the time `now`: it is not closing, has room, and has not kept those who wait
    /// for an octet waiting for longer than `patience`.
    pub(super) fn takes(&self, query: &[u8], now: Monotonic, patience: Duration) -> bool {
        let is_silent = self.silent_since.get().is_some_and(|since| since.after(patience) <= now);
        let waiting = self.output.borrow().len();
        // A query that is too long for any connection is refused by the first.
        let has_room = waiting == 0 || waiting + frame::span(query) <= OUTPUT_BYTES_MAX;
        !self.is_closing.get() && !is_silent && has_room && self.flights.borrow().has_room()
    }

    /// Whether the way to the server is there.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.get()
    }

    /// Queries that were put on it so far.
    pub(super) fn carried(&self) -> usize {
        self.carried.get()
    }

    /// Lets it end as soon as nobody waits for an answer on it.
    pub(super) fn retire(&self) {
        self.is_closing.set(true);
        self.bell.ring();
    }

    /// Queues a query. `None` without room.
    pub(super) fn begin(self: &Rc<Self>, line: &Rc<Line>, query: &[u8]) -> Option<Flight> {
        let length = u16::try_from(query.len()).ok()?;
        let mut output = self.output.borrow_mut();
        if output.len() + frame::span(query) > OUTPUT_BYTES_MAX {
            return None;
        }
        let queue = |on_wire: &[u8]| output.push(on_wire, length, OUTPUT_BYTES_MAX);
        let (id, slot) = self.flights.borrow_mut().begin(query, &*self.core.entropy, queue)?;
        self.bell.ring();
        self.carried.set(self.carried.get() + 1);
        self.counters().queries.bump();
        line.counters.queries.bump();
        self.counters().in_flight.raise();
        Some(Flight { connection: Rc::clone(self), line: Rc::clone(line), id, slot })
    }

    /// After its end: what that says about the server. Whether those who still wait should try another connection.
    fn learn(&self, line: &Line) -> bool {
        let (carried, answered) = (self.carried.get(), self.answered.get());
        let backoff = line.backoff.get();
        if self.flights.borrow().asked() == 0 {
            line.allowance.set(line.allowance.get().after_good_end(carried));
            return false;
        }
        line.allowance.set(line.allowance.get().after_break(answered));
        if answered > 0 {
            return true;
        }
        line.backoff.set(backoff.after_useless(self.core.clock.monotonic()));
        backoff.has_grace()
    }

    fn counters(&self) -> &StreamCounters {
        self.core.counters(self.is_tls)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.counters().connections.lower();
    }
}

/// A query in flight, as its exchange holds it; given up when dropped.
pub(super) struct Flight {
    connection: Rc<Connection>,
    line: Rc<Line>,
    id: u16,
    slot: Rc<Slot>,
}

impl Flight {
    /// Waits for the answer.
    pub(super) async fn answer(&self) -> Result<Vec<u8>, Lost> {
        self.slot.outcome().await
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.connection.flights.borrow_mut().give_up(self.id, &self.slot);
        self.connection.counters().in_flight.lower();
        if self.connection.is_closing.get() {
            self.connection.bell.ring();
        }
        self.line.tell_waiting();
    }
}

/// The task of one connection, from connect to close.
pub(super) async fn keep(core: Rc<Core>, line: Rc<Line>, connection: Rc<Connection>) {
    let _open = OpenStream::new();
    let is_made = match open(&core, &line).await {
        Ok(channel) => {
            connection.is_open.set(true);
            line.is_in_doubt.set(false);
            connection.counters().opened.bump();
            line.counters.opened.bump();
            if channel.is_resumed() {
                connection.counters().resumed.bump();
            }
            let mut conversation = Conversation::new(&connection, &line, channel);
            poll_fn(|cx| conversation.poll(cx)).await;
            conversation.channel.hang_up();
            true
        }
        Err(fault) => {
            line.is_in_doubt.set(true);
            core.note(&line.upstream, &fault);
            false
        }
    };
    connection.is_closing.set(true);
    let is_worth_another = is_made && connection.learn(&line);
    if !is_made {
        line.backoff.set(line.backoff.get().after_failure(core.clock.monotonic()));
    }
    connection.flights.borrow_mut().lose(Lost { is_worth_another });
    line.forget(&connection);
}

async fn open(core: &Core, line: &Line) -> Result<Channel, Fault> {
    let address = line.upstream.address;
    let session = match line.authentication() {
        Some(authentication) => {
            let session = core.sessions.begin(authentication, address.ip());
            Some(session.map_err(Fault::Certificate)?)
        }
        None => None,
    };
    Channel::open(address, session).await
}

/// What the task alone knows of its connection.
struct Conversation<'a> {
    connection: &'a Connection,
    line: &'a Line,
    channel: Channel,
    input: Input,
    unasked: u32,
    /// How long it may be idle.
    idle_max: Duration,
    /// Something was to come when the last turn ended.
    was_waiting: bool,
    /// When the last octet came, or the wait for one began or ended.
    quiet_since: Monotonic,
    timer: Timer,
    /// When the timer will wake us; may be earlier than needed.
    armed_for: Option<Monotonic>,
}

impl<'a> Conversation<'a> {
    fn new(connection: &'a Connection, line: &'a Line, channel: Channel) -> Self {
        let idle_max = if connection.is_tls { IDLE_TLS } else { IDLE_TCP };
        Self {
            connection,
            line,
            channel,
            input: Input::default(),
            unasked: 0,
            idle_max,
            was_waiting: false,
            quiet_since: connection.core.clock.monotonic(),
            timer: Timer::new(idle_max),
            armed_for: None,
        }
    }

    /// One turn: writes and reads what is possible now, then decides how long to wait for more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.connection.bell.listen(cx.waker());
        let now = self.connection.core.clock.monotonic();
        match self.advance(cx, now) {
            Ok(()) => self.rest(cx, now),
            Err(end) => Poll::Ready(end),
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, now: Monotonic) -> Result<(), End> {
        if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
            return Err(End::Broken);
        }
        for _ in 0..READS_PER_TURN {
            if !self.read(cx, now)? {
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Writes until nothing waits: all queries that were queued since the last turn leave together.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut output = self.connection.output.borrow_mut();
        while !output.is_empty() {
            match ready!(self.channel.poll_write(cx, output.waiting())) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => output.consume(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.channel.poll_flush(cx)
    }

    /// Reads once. False when nothing is there yet.
    fn read(&mut self, cx: &mut Context<'_>, now: Monotonic) -> Result<bool, End> {
        let core = Rc::clone(&self.connection.core);
        let mut scratch = core.scratch.borrow_mut();
        match self.channel.poll_read(cx, &mut scratch) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => return Err(End::Broken),
            Poll::Ready(Ok(count)) => {
                self.quiet_since = now;
                self.take(&scratch[..count])?;
                if self.connection.flights.borrow().unanswered() > 0 {
                    self.channel.acknowledge();
                }
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Poll::Ready(Err(_)) => return Err(End::Broken),
        }
        Ok(true)
    }

    /// Hands out whole messages and keeps the rest.
    fn take(&mut self, arrived: &[u8]) -> Result<(), End> {
        if self.input.is_empty() {
            let used = self.hand_out(arrived)?;
            self.input.append(&arrived[used..]);
            return Ok(());
        }
        self.input.append(arrived);
        let mut input = std::mem::take(&mut self.input);
        let used = self.hand_out(input.waiting())?;
        input.consume(used);
        self.input = input;
        Ok(())
    }

    /// Gives the bytes that the whole messages at the beginning of `stream` took.
    fn hand_out(&mut self, stream: &[u8]) -> Result<usize, End> {
        let mut used = 0;
        loop {
            match frame::first(&stream[used..]) {
                Frame::Message(message) => {
                    self.settle(message)?;
                    used += frame::span(message);
                }
                Frame::Partial => return Ok(used),
                Frame::TooShort => return Err(End::Broken),
            }
        }
    }

    fn settle(&mut self, message: &[u8]) -> Result<(), End> {
        let counters = self.connection.counters();
        let arrival = self.connection.flights.borrow_mut().arrive(message);
        match arrival {
            Arrival::Answer => {}
            Arrival::Late => counters.late.bump(),
            Arrival::Unasked => {
                counters.unasked.bump();
                self.unasked += 1;
                return if self.unasked > UNASKED_MAX { Err(End::Broken) } else { Ok(()) };
            }
            Arrival::Foreign => {
                self.connection.core.upstream_counters.wrong_question.bump();
                return Err(End::Broken);
            }
        }
        let answered = self.connection.answered.get();
        self.connection.answered.set(answered + 1);
        if answered == 0 {
            self.line.backoff.set(Backoff::after_answer());
        }
        match keepalive(message) {
            None => {}
            Some(Duration::ZERO) => self.connection.is_closing.set(true),
            Some(timeout) => self.idle_max = timeout,
        }
        Ok(())
    }

    /// After a turn: ends, or says when to look again.
    fn rest(&mut self, cx: &mut Context<'_>, now: Monotonic) -> Poll<End> {
        let (asked, unanswered) = {
            let flights = self.connection.flights.borrow();
            (flights.asked(), flights.unanswered())
        };
        if self.connection.is_closing.get() && asked == 0 {
            return Poll::Ready(End::Done);
        }
        let is_waiting = unanswered > 0;
        if is_waiting != self.was_waiting {
            self.was_waiting = is_waiting;
            self.quiet_since = now;
        }
        self.connection.silent_since.set(is_waiting.then_some(self.quiet_since));
        let (patience, end) = patience(is_waiting, self.idle_max);
        let deadline = self.quiet_since.after(patience);
        if deadline <= now {
            return Poll::Ready(end);
        }
        self.arm(cx, now, deadline);
        Poll::Pending
    }

    /// Makes sure that the task is woken at `deadline` or earlier. An earlier alarm stays: one idle wake-up is
    /// cheaper than moving the timer with every query.
    fn arm(&mut self, cx: &mut Context<'_>, now: Monotonic, deadline: Monotonic) {
        if self.armed_for.is_some_and(|alarm| now < alarm && alarm <= deadline) {
            return;
        }
        self.armed_for = Some(deadline);
        self.timer.reset(deadline.since(now));
        if Pin::new(&mut self.timer).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

/// How long no octet may come, and what it means if none has; `is_waiting` when one should.
const fn patience(is_waiting: bool, idle_max: Duration) -> (Duration, End) {
    if is_waiting { (STALL_MAX, End::Broken) } else { (idle_max, End::Done) }
}

/// How long a connection may idle after `message`, within [`IDLE_MAX`]; zero when its server wants it closed. It ends
/// before the server's time is over, so that no query meets the server's own close (RFC 7828 §3.2.2).
fn keepalive(message: &[u8]) -> Option<Duration> {
    let timeout: &[u8; 2] = option(message, TCP_KEEPALIVE)?.try_into().ok()?;
    let timeout = Duration::from_millis(100) * u32::from(u16::from_be_bytes(*timeout));
    Some((timeout - timeout / 8).min(IDLE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connection_ends_well_and_a_silent_one_is_broken() {
        let idle_max = Duration::from_secs(77);
        assert_eq!(patience(false, idle_max), (idle_max, End::Done));
        assert_eq!(patience(true, idle_max), (STALL_MAX, End::Broken));
    }

    fn with_option(octets: &[u8]) -> Vec<u8> {
        let mut message = vec![0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0];
        let len = u8::try_from(octets.len()).unwrap();
        message.extend([0, 4 + len, 0, 11, 0, len]);
        message.extend(octets);
        message
    }

    #[test]
    fn keepalive_counts_in_tenths_of_a_second_and_only_with_a_timeout() {
        assert_eq!(keepalive(&with_option(&[0, 80])), Some(Duration::from_secs(7)));
        assert_eq!(keepalive(&with_option(&[0, 0])), Some(Duration::ZERO));
        assert_eq!(keepalive(&with_option(&[255, 255])), Some(IDLE_MAX));
        assert_eq!(keepalive(&with_option(&[])), None, "a client's form");
        assert_eq!(keepalive(&with_option(&[1])), None);
        assert_eq!(keepalive(&with_option(&[1, 2, 3])), None);
        assert_eq!(keepalive(&[0; 12]), None);
    }
}
