//! DNS over TCP for one core (RFC 1035 §4.2.2, RFC 7766, RFC 9210): accepts, keeps the limits, drains.
//!
//! One task per connection polls its reads, writes and one timer; see `connection`. What a message means is
//! [`Respond`]'s business.
//!
//! Memory: an idle connection holds no buffers and costs about 1.6 kB, glommio's share included, the kernel's not
//! (`idle_connections_cost_little_memory` in tests/e2e): reads and synchronous replies go through one scratch area
//! per core. A busy one holds at most one partial query and one read more, and twice `output_bytes_max` (or that and
//! one largest message) of replies. All together hold at most what [`Tcp::new`] is told: beyond that, connections whose
//! client does not take its replies at once, or sends a query in pieces, are closed. The kernel's side is bounded by
//! the listener's socket buffers (`sys::listen`).

mod connection;
mod counters;
pub(crate) mod frame;
mod seats;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_lite::future::{or, yield_now};
use glommio::GlommioError;
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::Timer;

use self::connection::Connection;
pub use self::counters::Counters;
use self::seats::{Clients, Refusal, Seats};
use crate::config;
use crate::net::{Respond, Responder};
use crate::sys::adopt::adopt;
use crate::sys::listen::is_out_of_descriptors;

/// Bytes read from a socket at a time; also how much of a client's stream may wait here unparsed.
const READ_BYTES: usize = 16 << 10;
/// Largest message (RFC 1035 §4.2.2: a 16-bit length).
const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;
/// First pause after accept failed for want of something; doubles with each failure in a row.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest such pause.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// The TCP side of one core: limits, scratch memory and counters that its listeners share.
#[derive(Clone, Debug)]
pub struct Tcp {
    core: Rc<Core>,
}

impl Tcp {
    /// Makes the TCP side of a core, which holds at most `bytes_max` bytes of requests and replies for all connections
    /// together; `counters` are this core's alone to write.
    #[must_use]
    pub fn new(config: &config::Tcp, bytes_max: usize, counters: Arc<Counters>) -> Self {
        Self {
            core: Rc::new(Core {
                config: Cell::new(*config),
                counters,
                clients: Rc::new(Clients::new(config.connections_per_client_max)),
                held: Cell::new(0),
                held_max: bytes_max,
                closing: Cell::new(false),
                doors: RefCell::default(),
                scratch: RefCell::new(Scratch {
                    input: vec![0; READ_BYTES].into(),
                    reply: vec![0; MESSAGE_BYTES_MAX].into(),
                }),
                emptied: Bell::default(),
            }),
        }
    }

    /// Takes over a listening, blocking socket (`sys::listen::tcp_listener`): number `number` of `config::Node::listen`.
    ///
    /// # Panics
    /// Outside a glommio executor.
    #[must_use]
    pub fn listen(&self, socket: OwnedFd, number: u16) -> Listener {
        let seats =
            Seats::new(self.core.config.get().connections_max, Rc::clone(&self.core.clients));
        let door = Rc::new(Door { seats: Rc::new(seats), acceptor: Bell::default() });
        self.core.doors.borrow_mut().push(Rc::downgrade(&door));
        Listener { core: Rc::clone(&self.core), door, socket: adopt(socket), number }
    }

    /// Goes by the timeouts and the lengths of queues of `config` from now on; how many connections there may be stays.
    pub fn adopt(&self, config: &config::Tcp) {
        self.core.config.set(*config);
    }

    /// Begins the drain: no more connections, no more queries. Idle connections are closed now, the others once
    /// their queries in flight are answered and the answers taken, or a timeout has passed.
    pub fn close(&self) {
        self.core.closing.set(true);
        for door in self.core.doors.borrow_mut().drain(..).filter_map(|door| door.upgrade()) {
            door.acceptor.ring();
            while let Some(connection) = door.seats.longest_idle() {
                if let Some(connection) = connection.upgrade() {
                    connection.wake();
                }
            }
        }
    }

    /// Waits until no connection is open. One waiter at a time; the caller sets the limit.
    pub async fn drained(&self) {
        poll_fn(|cx| {
            if self.core.counters.open.value() == 0 {
                return Poll::Ready(());
            }
            self.core.emptied.listen(cx.waker());
            Poll::Pending
        })
        .await;
    }
}

/// A socket that accepts connections for one core.
#[derive(Debug)]
pub struct Listener {
    core: Rc<Core>,
    door: Rc<Door>,
    socket: TcpListener,
    number: u16,
}

impl Listener {
    /// The bound address.
    ///
    /// # Errors
    /// What the kernel says about the descriptor, if it is no bound socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr().map_err(io::Error::from)
    }

    /// Accepts until [`Tcp::close`]; each connection becomes a task on the current task queue.
    ///
    /// Errors of accept are counted, waited out and never end it.
    pub async fn serve<R: Respond>(self, responder: Responder<R>) {
        let mut pause = ACCEPT_PAUSE_MIN;
        while let Some(accepted) = self.until_closing(self.socket.accept()).await {
            match accepted {
                Ok(stream) => {
                    pause = ACCEPT_PAUSE_MIN;
                    self.welcome(stream, &responder).await;
                    // Lets an evicted connection end before the next newcomer evicts another.
                    yield_now().await;
                }
                Err(error) => self.wait_out(&error, &mut pause).await,
            }
        }
    }

    /// Gives a newcomer a seat and a task, or hangs up.
    async fn welcome<R: Respond>(&self, stream: TcpStream, responder: &Responder<R>) {
        let counters = &self.core.counters;
        let Ok(peer) = stream.peer_addr() else {
            // Reset before it was accepted.
            counters.accept_errors.add(1);
            return;
        };
        match self.door.seats.take(peer.ip(), |connection| self.core.evict(&connection)) {
            Ok(seat) => {
                let connection = Connection::open(Rc::clone(&self.core), stream, seat);
                let responder = Rc::clone(responder);
                let caller = connection::Caller { peer, listener: self.number };
                glommio::spawn_local(connection::converse(connection, caller, responder)).detach();
            }
            Err(refusal) => {
                match refusal {
                    Refusal::Client => counters.refused_client.add(1),
                    Refusal::Full => counters.refused_full.add(1),
                }
                // Not left to the drop: a poll that the ring still holds would delay the FIN. It fails only when
                // the client was faster.
                let _ = stream.shutdown(Shutdown::Both).await;
            }
        }
    }

    async fn wait_out(&self, error: &GlommioError<()>, pause: &mut Duration) {
        self.core.counters.accept_errors.add(1);
        let error = match error {
            GlommioError::IoError(error) => Some(error),
            _ => None,
        };
        if error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionAborted) {
            // That newcomer's trouble alone: pausing would let it slow the others.
            return yield_now().await;
        }
        if error.is_some_and(is_out_of_descriptors)
            && let Some(connection) = self.door.seats.longest_idle()
        {
            self.core.evict(&connection);
        }
        self.until_closing(Timer::new(*pause)).await;
        *pause = (*pause * 2).min(ACCEPT_PAUSE_MAX);
    }

    /// Runs `work`, or gives it up for the drain.
    async fn until_closing<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let closing = poll_fn(|cx| {
            if self.core.closing.get() {
                return Poll::Ready(None);
            }
            self.door.acceptor.listen(cx.waker());
            Poll::Pending
        });
        or(closing, async { Some(work.await) }).await
    }
}

/// Wakes the one task that listens for it.
#[derive(Default)]
pub(crate) struct Bell(Cell<Option<Waker>>);

impl Bell {
    pub(crate) fn listen(&self, waker: &Waker) {
        let known = self.0.take().filter(|known| known.will_wake(waker));
        self.0.set(Some(known.unwrap_or_else(|| waker.clone())));
    }

    pub(crate) fn ring(&self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Bell")
    }
}

/// What the listeners and connections of one core share.
#[derive(Debug)]
struct Core {
    config: Cell<config::Tcp>,
    counters: Arc<Counters>,
    clients: Rc<Clients>,
    /// Bytes of requests and replies that wait, on all connections.
    held: Cell<usize>,
    held_max: usize,
    closing: Cell<bool>,
    doors: RefCell<Vec<Weak<Door>>>,
    scratch: RefCell<Scratch>,
    /// Who waits for the last connection to end.
    emptied: Bell,
}

impl Core {
    /// Whether the connections together hold more than they may. Those whose bytes cannot leave at once must then go.
    fn is_crowded(&self) -> bool {
        self.held.get() > self.held_max
    }

    /// A buffer that held `before` bytes of memory now holds `after`.
    fn account(&self, before: &Cell<usize>, after: usize) {
        self.held.set(self.held.get() + after - before.replace(after));
    }

    /// Most reply bytes a connection may hold: late answers to queries already in flight may pass the limit that
    /// stops reading, by as much again or one largest message.
    fn output_bytes_cap(&self) -> usize {
        output_bytes_cap(&self.config.get())
    }

    fn evict(&self, connection: &Weak<Connection>) {
        if let Some(connection) = connection.upgrade() {
            self.counters.evicted_idle.add(1);
            connection.evict();
        }
    }
}

fn output_bytes_cap(config: &config::Tcp) -> usize {
    let limit = config.output_bytes_max;
    limit.saturating_add(limit.max(MESSAGE_BYTES_MAX + 2))
}

/// Most bytes that one connection may hold: half a query and one read more, and replies.
#[must_use]
pub fn connection_bytes_max(config: &config::Tcp) -> usize {
    MESSAGE_BYTES_MAX + READ_BYTES + output_bytes_cap(config)
}

/// One listener as its connections see it.
#[derive(Debug)]
struct Door {
    seats: Rc<Seats<Weak<Connection>>>,
    acceptor: Bell,
}

/// Memory that is used only while a connection's task runs, so one piece serves all of a core.
#[derive(Debug)]
struct Scratch {
    input: Box<[u8]>,
    reply: Box<[u8]>,
}
