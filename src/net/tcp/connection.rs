//! One TCP connection: whole queries in, replies out in any order, within bounded memory and time.
//!
//! Everything happens in one task; a reply that comes later is queued by [`Connection`] and wakes that task.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use glommio::timer::Timer;

use super::frame::{self, Frame, Input, Output};
use super::seats::Seat;
use super::{Bell, Core, Scratch};
use crate::net::streams::OpenStream;
use crate::net::{Path, Respond, Responder, TcpPath, TcpReply};
use crate::sys::listen::reset_on_close;

/// Queries and reads one connection gets before the others have their turn.
const TURN_WORK_MAX: usize = 128;
/// A client has to take this much per write timeout, or all that waits: single bytes do not buy time.
const WRITE_PROGRESS_BYTES: usize = 1024;
/// How long we wait for the client's FIN after ours: closing with unread bytes would reset the connection, and the
/// client could lose replies that it has not read yet.
const LINGER: Duration = Duration::from_millis(500);

/// Why a conversation ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// Everything said, or the drain.
    Done,
    /// The client or the network broke off.
    Broken,
    /// Made room for a newcomer.
    Evicted,
    /// No complete query for too long.
    Idle,
    /// The client does not take its replies.
    Slow,
    /// All connections together hold too much, and this one's bytes cannot leave at once.
    Crowded,
    /// A query was never answered.
    Unanswered,
}

/// The part of a connection that others may reach: its queue of replies and its place at the listener.
pub(super) struct Connection {
    core: Rc<Core>,
    stream: RefCell<TcpStream>,
    seat: Seat<Weak<Self>>,
    output: RefCell<Output>,
    /// Bytes that its output and its input are known to hold.
    output_held: Cell<usize>,
    input_held: Cell<usize>,
    unanswered: Cell<usize>,
    /// A reply came since the task last looked.
    answered: Cell<bool>,
    fate: Cell<Option<End>>,
    /// The task is running: it sees what changes without being woken.
    running: Cell<bool>,
    bell: Bell,
    _open: OpenStream,
}

impl Connection {
    /// Opens an idle connection on `seat`.
    pub(super) fn open(core: Rc<Core>, stream: TcpStream, seat: Seat<Weak<Self>>) -> Rc<Self> {
        core.counters.accepted.add(1);
        core.counters.open.raise();
        let connection = Rc::new(Self {
            core,
            stream: RefCell::new(stream),
            seat,
            output: RefCell::default(),
            output_held: Cell::new(0),
            input_held: Cell::new(0),
            unanswered: Cell::new(0),
            answered: Cell::new(false),
            fate: Cell::new(None),
            running: Cell::new(false),
            bell: Bell::default(),
            _open: OpenStream::new(),
        });
        connection.seat.idle(Rc::downgrade(&connection));
        connection
    }

    /// Ends an idle connection; its seat is free at once.
    pub(super) fn evict(&self) {
        self.seat.leave();
        self.fate.set(Some(End::Evicted));
        self.wake();
    }

    /// Lets the task look again.
    pub(super) fn wake(&self) {
        if !self.running.get() {
            self.bell.ring();
        }
    }

    fn is_settled(&self) -> bool {
        self.unanswered.get() == 0 && self.output.borrow().is_empty()
    }

    fn has_room(&self) -> bool {
        let config = self.core.config.get();
        self.unanswered.get() < config.pipeline_max
            && self.output.borrow().len() < config.output_bytes_max
    }

    fn fits(&self, message: &[u8]) -> bool {
        self.output.borrow().len() + frame::span(message) <= self.core.output_bytes_cap()
    }

    /// Writes once; 0 when nothing waits.
    fn write(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut output = self.output.borrow_mut();
        if output.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut stream = self.stream.borrow_mut();
        let count = ready!(Pin::new(&mut *stream).poll_write(cx, output.waiting()))?;
        output.consume(count);
        self.core.account(&self.output_held, output.memory());
        Poll::Ready(if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) })
    }

    fn read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buf)
    }

    /// Sends FIN.
    fn finish(&self, cx: &mut Context<'_>) {
        // Done at once; fails only when the client was faster, and then the next read says so.
        let _ = Pin::new(&mut *self.stream.borrow_mut()).poll_close(cx);
    }

    /// The last act, before the drop closes the socket.
    fn hang_up(&self, end: End, cx: &mut Context<'_>) {
        match end {
            // Who does not read gets no FIN behind data that stays in the kernel. Fails only on a closed socket.
            End::Slow | End::Crowded => drop(reset_on_close(&*self.stream.borrow())),
            // Not left to the drop: a poll that the ring still holds would delay the FIN.
            End::Done | End::Broken | End::Evicted | End::Idle | End::Unanswered => self.finish(cx),
        }
    }

    /// Writes what the kernel takes now. The task is woken later and registers for the rest; errors come back there.
    fn write_at_once(&self) {
        let mut nobody = Context::from_waker(Waker::noop());
        while matches!(self.write(&mut nobody), Poll::Ready(Ok(1..))) {}
    }

    fn push(&self, message: &[u8], length: u16) {
        let mut output = self.output.borrow_mut();
        output.push(message, length, self.core.output_bytes_cap());
        self.core.account(&self.output_held, output.memory());
        self.core.counters.replies.add(1);
    }

    /// Closes one query. False when none is open: then the responder spoke twice.
    fn close_query(&self) -> bool {
        let unanswered = self.unanswered.get();
        debug_assert!(unanswered > 0, "each query is answered or forgotten once");
        self.unanswered.set(unanswered.saturating_sub(1));
        self.answered.set(true);
        unanswered > 0
    }
}

impl TcpReply for Connection {
    fn reply(&self, message: &[u8]) {
        let Ok(length) = u16::try_from(message.len()) else {
            debug_assert!(false, "a message has a 16-bit length");
            return self.forget();
        };
        if !self.close_query() {
            return;
        }
        if !self.fits(message) {
            // Many answers at once are not the client's fault: what the kernel takes now need not wait here.
            self.write_at_once();
        }
        if self.fits(message) {
            self.push(message, length);
        } else {
            self.fate.set(Some(End::Slow));
        }
        if self.core.is_crowded() {
            self.write_at_once();
            if !self.output.borrow().is_empty() && self.core.is_crowded() {
                self.fate.set(Some(End::Crowded));
            }
        }
        self.wake();
    }

    fn forget(&self) {
        self.close_query();
        self.wake();
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("unanswered", &self.unanswered.get())
            .field("output_bytes", &self.output.borrow().len())
            .field("fate", &self.fate.get())
            .finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.core.account(&self.output_held, 0);
        self.core.account(&self.input_held, 0);
        self.core.counters.open.lower();
        if self.core.counters.open.value() == 0 {
            self.core.emptied.ring();
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) peer: SocketAddr,
    /// As [`TcpPath::listener`].
    pub(super) listener: u16,
}

/// The task of one connection.
pub(super) async fn converse<R: Respond>(
    connection: Rc<Connection>,
    caller: Caller,
    responder: Responder<R>,
) {
    let mut conversation = Conversation::new(connection, caller, responder);
    poll_fn(|cx| {
        let end = ready!(conversation.poll(cx));
        let counters = &conversation.connection.core.counters;
        match end {
            End::Done | End::Broken | End::Evicted => {}
            End::Idle => counters.closed_idle.add(1),
            End::Slow => counters.closed_slow.add(1),
            End::Crowded => counters.closed_crowded.add(1),
            End::Unanswered => counters.closed_unanswered.add(1),
        }
        conversation.connection.hang_up(end, cx);
        Poll::Ready(())
    })
    .await;
}

/// What the task alone knows of its connection.
struct Conversation<R> {
    connection: Rc<Connection>,
    responder: Responder<R>,
    /// Always `Path::Tcp`, back to `connection`.
    path: Path,
    input: Input,
    /// We still want queries.
    reading: bool,
    /// The client sent FIN.
    finished: bool,
    /// The responder knows that this turn's batch began.
    begun: bool,
    /// What is left of this turn's share.
    work_left: usize,
    /// A query came or a reply left in this turn.
    active: bool,
    /// When that last happened.
    active_at: Instant,
    /// Since when half a query waits for its rest.
    partial_since: Option<Instant>,
    /// Since when the client takes too little.
    stalled_since: Option<Instant>,
    /// What it took since then, in bytes.
    stalled_taken: usize,
    linger_until: Option<Instant>,
    timer: Timer,
    /// When the timer will wake us; may be earlier than needed.
    armed_for: Option<Instant>,
}

impl<R: Respond> Conversation<R> {
    fn new(connection: Rc<Connection>, caller: Caller, responder: Responder<R>) -> Self {
        let Caller { peer, listener } = caller;
        let weak: Weak<Connection> = Rc::downgrade(&connection);
        Self {
            responder,
            path: Path::Tcp(TcpPath { listener, peer, connection: weak }),
            input: Input::default(),
            reading: true,
            finished: false,
            begun: false,
            work_left: 0,
            active: false,
            active_at: clock(),
            partial_since: None,
            stalled_since: None,
            stalled_taken: 0,
            linger_until: None,
            timer: Timer::new(connection.core.config.get().idle_timeout),
            armed_for: None,
            connection,
        }
    }

    /// One turn: writes, answers and reads what is possible now, then decides how long to wait for more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let connection = Rc::clone(&self.connection);
        connection.bell.listen(cx.waker());
        if let Some(end) = connection.fate.get() {
            return Poll::Ready(end);
        }
        if connection.core.closing.get() && self.reading {
            if connection.is_settled() {
                return Poll::Ready(End::Done);
            }
            self.stop_reading();
        }
        let now = clock();
        self.active = connection.answered.take();
        self.begun = false;
        self.work_left = TURN_WORK_MAX;
        connection.running.set(true);
        let outcome = self.advance(cx, now);
        connection.running.set(false);
        connection.core.account(&connection.input_held, self.input.memory());
        self.active |= connection.answered.take();
        match (connection.fate.get(), outcome) {
            (Some(end), _) | (None, Err(end)) => Poll::Ready(end),
            (None, Ok(())) => self.rest(cx, now),
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        while self.work_left > 0 {
            self.flush(cx, now)?;
            self.account()?;
            if self.answer_waiting() {
                continue;
            }
            if !self.reading || !self.connection.has_room() || !self.read(cx)? {
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Keeps the books of what waits to be understood.
    fn account(&self) -> Result<(), End> {
        let core = &self.connection.core;
        core.account(&self.connection.input_held, self.input.memory());
        if core.is_crowded() && !self.input.is_empty() { Err(End::Crowded) } else { Ok(()) }
    }

    /// Writes until nothing waits or the kernel takes no more.
    fn flush(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        loop {
            match self.connection.write(cx) {
                Poll::Pending => {
                    self.stalled_since.get_or_insert(now);
                    return Ok(());
                }
                Poll::Ready(Ok(0)) => {
                    self.stalled_since = None;
                    self.stalled_taken = 0;
                    return Ok(());
                }
                Poll::Ready(Ok(count)) => {
                    self.active = true;
                    self.stalled_taken += count;
                    if self.stalled_taken >= WRITE_PROGRESS_BYTES {
                        self.stalled_since = None;
                        self.stalled_taken = 0;
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(_)) => return Err(End::Broken),
            }
        }
    }

    /// Answers whole queries that had to wait for room or for their last byte. True if there were any.
    fn answer_waiting(&mut self) -> bool {
        if self.input.is_empty() {
            return false;
        }
        let core = Rc::clone(&self.connection.core);
        let mut input = std::mem::take(&mut self.input);
        let used = self.answer(input.waiting(), &mut core.scratch.borrow_mut().reply);
        let Some(used) = used else {
            return true;
        };
        input.consume(used);
        self.input = input;
        used > 0
    }

    /// Reads once. False when nothing is there yet.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        self.work_left -= 1;
        let core = Rc::clone(&self.connection.core);
        let scratch = &mut *core.scratch.borrow_mut();
        let Scratch { input, reply } = scratch;
        match self.connection.read(cx, input) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => {
                self.finished = true;
                // Whole queries were taken before this read, so what waits is the half of one.
                if self.input.is_empty() { self.stop_reading() } else { self.distrust() }
            }
            Poll::Ready(Ok(count)) if self.input.is_empty() => {
                let arrived = &input[..count];
                if let Some(used) = self.answer(arrived, reply) {
                    self.input.append(&arrived[used..]);
                }
            }
            Poll::Ready(Ok(count)) => self.input.append(&input[..count]),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Poll::Ready(Err(_)) => return Err(End::Broken),
        }
        Ok(true)
    }

    /// Hands the whole queries at the beginning of `stream` to the responder, while there is room.
    ///
    /// Returns the bytes used, `None` when the stream is not DNS and what follows is not to be looked at.
    fn answer(&mut self, stream: &[u8], reply: &mut [u8]) -> Option<usize> {
        let mut used = 0;
        while self.work_left > 0 && self.connection.has_room() {
            match frame::first(&stream[used..]) {
                Frame::Message(message) => {
                    self.ask(message, reply);
                    used += frame::span(message);
                }
                Frame::Partial => break,
                Frame::TooShort => {
                    self.distrust();
                    return None;
                }
            }
        }
        Some(used)
    }

    fn ask(&mut self, message: &[u8], reply: &mut [u8]) {
        if !self.begun {
            self.begun = true;
            self.responder.begin();
        }
        self.work_left -= 1;
        self.active = true;
        self.partial_since = None;
        self.connection.core.counters.queries.add(1);
        self.connection.unanswered.set(self.connection.unanswered.get() + 1);
        let len = self.responder.request(message, &self.path, reply);
        if len > 0 {
            self.connection.reply(&reply[..len]);
        }
    }

    /// The stream does not hold whole DNS messages: what is in flight is answered, nothing more.
    fn distrust(&mut self) {
        self.connection.core.counters.malformed.add(1);
        self.stop_reading();
    }

    fn stop_reading(&mut self) {
        self.reading = false;
        self.input = Input::default();
        self.partial_since = None;
    }

    /// After a turn: ends, or says when to look again.
    fn rest(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<End> {
        if self.active {
            self.active_at = now;
        }
        let settled = self.connection.is_settled();
        if !settled {
            self.connection.seat.busy();
        } else if self.active || !self.connection.seat.is_idle() {
            self.connection.seat.idle(Rc::downgrade(&self.connection));
        }
        let awaits_rest = self.reading && !self.input.is_empty() && self.connection.has_room();
        // While we do not read, the rest is late through no fault of the client.
        self.partial_since = awaits_rest.then(|| self.partial_since.unwrap_or(now));
        if self.must_cut(now) {
            self.connection.core.counters.closed_idle.add(1);
            self.stop_reading();
        }
        if settled && !self.reading && self.input.is_empty() {
            return self.part(cx, now);
        }
        let (deadline, end) = self.deadline();
        if deadline <= now {
            return Poll::Ready(end);
        }
        self.arm(cx, now, deadline);
        Poll::Pending
    }

    /// Whether half a query has waited too long, on a connection that has other work in flight.
    fn must_cut(&self, now: Instant) -> bool {
        let idle_timeout = self.connection.core.config.get().idle_timeout;
        !self.connection.is_settled()
            && self.partial_since.is_some_and(|since| since + idle_timeout <= now)
    }

    /// The next moment at which something may have to end, and how the connection ends if it comes to that.
    fn deadline(&self) -> (Instant, End) {
        let config = self.connection.core.config.get();
        let partial = self.partial_since.map(|since| (since + config.idle_timeout, End::Idle));
        let whole = if let Some(since) = self.stalled_since {
            (since + config.write_timeout, End::Slow)
        } else if self.connection.unanswered.get() > 0 {
            // The responder has a deadline of its own, a shorter one; this is for a query that it lost.
            (self.active_at + config.answer_timeout, End::Unanswered)
        } else {
            (self.active_at + config.idle_timeout, End::Idle)
        };
        partial.map_or(whole, |partial| if partial.0 < whole.0 { partial } else { whole })
    }

    /// Says goodbye: our FIN, then the client's or the end of [`LINGER`].
    fn part(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<End> {
        if self.finished {
            return Poll::Ready(End::Done);
        }
        let until = *self.linger_until.get_or_insert_with(|| {
            self.connection.finish(cx);
            now + LINGER
        });
        if until <= now {
            return Poll::Ready(End::Done);
        }
        let core = Rc::clone(&self.connection.core);
        let scratch = &mut core.scratch.borrow_mut().input;
        for _ in 0..TURN_WORK_MAX {
            match self.connection.read(cx, scratch) {
                Poll::Pending => {
                    self.arm(cx, now, until);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(End::Done),
                Poll::Ready(Ok(_)) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Makes sure that the task is woken at `deadline` or earlier. An earlier alarm stays: one idle wake-up is
    /// cheaper than moving the timer with every query.
    fn arm(&mut self, cx: &mut Context<'_>, now: Instant, deadline: Instant) {
        if self.armed_for.is_some_and(|alarm| now < alarm && alarm <= deadline) {
            return;
        }
        self.armed_for = Some(deadline);
        self.timer.reset(deadline - now);
        if Pin::new(&mut self.timer).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "net may read the monotonic clock; timers here are real"
)]
fn clock() -> Instant {
    Instant::now()
}
