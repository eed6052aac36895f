//! Hot path. The datagram plane of one core: its listeners, its upstream-facing sockets, one ring, one task.
//!
//! [`Plane::run`] is the task. It turns the backend (take what arrived, answer it, send) until nothing is left, and
//! then sleeps on an eventfd through the executor. What the bytes mean is [`Respond`]'s business.
//!
//! Why no wake-up is lost. Before it sleeps, the task (1) makes completions signal the eventfd, with a full barrier,
//! (2) lets the other tasks run, (3) turns the backend once more, and sleeps only if that found nothing, without
//! yielding in between. A datagram that arrives before (1) is found by (3); one that arrives after (1) raises the
//! eventfd's counter, which stays raised until it is read, so the read returns at once or later, but returns. What
//! tasks send before (3) is submitted by (3); after it, [`Plane::send`] sees that the plane sleeps and submits itself.
//! [`Plane::close`] raises the counter too.
//!
//! Sleeping through the executor takes a dozen calls into the kernel. So for a millisecond after the last datagram the task waits
//! in the ring itself, with the whole thread ([`Plane::doze`]): where queries come in steps of less, each costs two calls.
//!
//! The executor looks at its timers and files when no task can run, and under load that may never come, nor while the task waits in the
//! ring. So it waits once a millisecond, and ten times as often while streams are open on this core, for a read of its own
//! eventfd, which it has raised: that is over at once, but not without such a look. The executor's own timer for this
//! stays off, see `node::start`.

mod counts;
mod listen;
mod mmsg;
mod refusals;
mod reports;
mod sockets;
mod uring;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future::yield_now;
use glommio::io::BufferedFile;

pub use self::counts::{Counts, Snapshot};
pub use self::listen::{OpenError, ensure_free};
use self::mmsg::Mmsg;
pub use self::refusals::Refusal;
use self::refusals::Refusals;
use self::reports::Failing;
use self::sockets::{Role, Sockets};
use self::uring::Uring;
use super::arena::Arena;
use super::{Path, Respond, SocketId, UdpPath, streams};
use crate::config::{self, IoBackend};
use crate::sys::adopt::adopt;
use crate::sys::datagram::Datagram;
use crate::sys::errno;
use crate::sys::error_queue;
use crate::sys::eventfd::EventFd;
use crate::sys::pool::Slot;
use crate::sys::sockopt::{self, UdpSettings};
pub use crate::sys::uring::{Fallback, Full, RingSize};
use crate::sys::uring::{Ring, Target};

/// Datagrams handled between two looks at the other tasks of the core.
const BATCH: usize = 64;

/// How long the executor's timers and files may wait while datagrams pour in.
const SHARE_AFTER: Duration = Duration::from_millis(1);

/// The same while streams are open on this core and the plane waits in the ring: what they wait for is not seen there.
const SHARE_AFTER_WITH_STREAMS: Duration = Duration::from_micros(100);

/// How long after the last datagram the plane waits in the ring and not in the executor.
const LIVELY: Duration = Duration::from_millis(1);

/// How often tasks may wake each other, one after the other, before the plane waits in the ring.
const YIELDS: usize = 3;

/// What a plane is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// Sizes.
    pub udp: &'a config::Udp,
    /// How datagrams cross the kernel's door.
    pub io: IoBackend,
    /// Addresses to serve; [`UdpPath::listener`] is an index into them.
    pub listen: &'a [SocketAddr],
    /// Upstream-facing sockets that can be open at a time.
    pub upstream_sockets_max: u16,
    /// How long an idle plane polls before it sleeps.
    pub spin_before_sleep: Duration,
    /// Entries of the ring.
    pub ring: RingSize,
}

impl<'a> Setup<'a> {
    /// The setup that the sections of the config ask for.
    #[must_use]
    pub fn new(node: &'a config::Node, udp: &'a config::Udp, upstream_sockets_max: u16) -> Self {
        Self {
            udp,
            io: node.io,
            listen: &node.listen,
            upstream_sockets_max,
            spin_before_sleep: node.spin_before_sleep,
            ring: ring_size(udp),
        }
    }
}

/// Room for every receive buffer to be filled and every send of some batches to be over before we look.
#[must_use]
pub fn ring_size(udp: &config::Udp) -> RingSize {
    const SUBMISSIONS: u32 = 512;
    let completions = 2 * u32::from(udp.receive_buffers) + 2 * SUBMISSIONS;
    RingSize { submissions: SUBMISSIONS, completions }
}

/// The datagram plane of one core.
pub struct Plane {
    io: Io,
    sockets: RefCell<Sockets<Target>>,
    arena: Arena,
    addresses: Vec<SocketAddr>,
    event: EventFd,
    counts: Arc<Counts>,
    refusals: Refusals,
    failing: Failing,
    fallbacks: Vec<Fallback>,
    spin_before_sleep: Duration,
    is_awake: Cell<bool>,
    is_closed: Cell<bool>,
    /// When the executor last had the core.
    shared: Cell<Instant>,
    /// When a turn last had something to do.
    busy: Cell<Instant>,
}

enum Io {
    Uring(Uring),
    Mmsg(Mmsg),
}

impl Plane {
    /// Binds the listeners and opens the ring. Call it on the core's own thread: the ring belongs to that thread, and
    /// the buffers to the NUMA node whose memory it gets.
    ///
    /// # Errors
    /// [`OpenError`], in words for the operator.
    pub fn open(setup: &Setup<'_>) -> Result<Rc<Self>, OpenError> {
        let arena = Arena::new(setup.udp).map_err(|cause| OpenError::Memory { cause })?;
        let refused = |cause| OpenError::Ring { cause };
        let event = EventFd::open().map_err(refused)?;
        let count = u16::try_from(setup.listen.len()).unwrap_or(u16::MAX);
        let mut ring = Ring::open(setup.ring, Rc::clone(&arena.send)).map_err(refused)?;
        ring.register_files(count.saturating_add(setup.upstream_sockets_max));
        ring.register_eventfd(event.as_fd()).map_err(refused)?;
        ring.wake_on_completion(false);

        let mut sockets = Sockets::new(count, setup.upstream_sockets_max);
        let mut addresses = Vec::with_capacity(setup.listen.len());
        for (index, address) in (0..count).zip(setup.listen) {
            let bound = listen::bind_listener(*address, setup.udp)?;
            let target = ring.attach(index, bound.fd.as_fd());
            sockets.insert(index, bound.fd, target);
            addresses.push(bound.address);
        }
        let fallbacks = ring.fallbacks().to_vec();
        let io = match setup.io {
            IoBackend::Uring => Io::Uring(Uring::new(ring, &arena).map_err(refused)?),
            IoBackend::Mmsg => Io::Mmsg(Mmsg::new(ring, &arena)),
        };
        Ok(Rc::new(Self {
            io,
            sockets: RefCell::new(sockets),
            arena,
            addresses,
            event,
            counts: Arc::default(),
            refusals: Refusals::default(),
            failing: Failing::default(),
            fallbacks,
            spin_before_sleep: setup.spin_before_sleep,
            is_awake: Cell::new(false),
            is_closed: Cell::new(false),
            shared: Cell::new(now()),
            busy: Cell::new(now()),
        }))
    }

    /// What the kernel refused and the plane does without; worth one warning.
    #[must_use]
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    /// Where the listeners are bound, in the order of [`Setup::listen`].
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The sockets that listen there, once more.
    ///
    /// # Errors
    /// The kernel's, when descriptors run out.
    pub fn duplicate_listeners(&self) -> io::Result<Vec<OwnedFd>> {
        let sockets = self.sockets.borrow();
        let listeners = (0..sockets.listeners()).filter_map(|index| sockets.fd(index));
        listeners.map(|listener| listener.try_clone_to_owned()).collect()
    }

    /// The plane's counters, readable from any thread.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Serves until [`Self::close`].
    ///
    /// # Errors
    /// The kernel's, when the ring breaks: nothing can be received or sent any more.
    pub async fn run<R: Respond>(self: Rc<Self>, responder: Rc<R>) -> io::Result<()> {
        let event: BufferedFile = adopt(self.event.duplicate()?);
        self.is_awake.set(true);
        let result = self.serve(&event, &*responder).await;
        self.is_awake.set(false);
        self.is_closed.set(true);
        event.close().await.map_err(io::Error::from)?;
        result
    }

    async fn serve<R: Respond>(&self, event: &BufferedFile, responder: &R) -> io::Result<()> {
        while !self.is_closed.get() {
            if self.turn(responder)? {
                let now = now();
                self.busy.set(now);
                self.share(event, now).await?;
                self.doze(event, now).await?;
                continue;
            }
            if !self.spin_before_sleep.is_zero() && self.spin(event, responder).await? {
                continue;
            }
            if self.doze(event, now()).await? {
                continue;
            }
            self.wake_on_completion(true);
            yield_now().await;
            if !self.turn(responder)? && !self.is_closed.get() {
                self.is_awake.set(false);
                event.read_at(0, size_of::<u64>()).await.map_err(io::Error::from)?;
                self.shared.set(now());
                self.is_awake.set(true);
                self.counts.wakeups.add(1);
            }
            self.wake_on_completion(false);
        }
        self.flush()
    }

    /// Waits in the ring, with the thread, for as long as datagrams came of late and the executor can do without a look. Whether
    /// it did: the next turn may find something.
    async fn doze(&self, event: &BufferedFile, now: Instant) -> io::Result<bool> {
        let Io::Uring(io) = &self.io else { return Ok(false) };
        if !self.spin_before_sleep.is_zero() || now.duration_since(self.busy.get()) >= LIVELY {
            return Ok(false);
        }
        for _ in 0..YIELDS {
            if !io.is_drained() {
                return Ok(true);
            }
            yield_now().await;
        }
        let patience = if streams::are_open() { SHARE_AFTER_WITH_STREAMS } else { SHARE_AFTER };
        let left = patience.saturating_sub(now.duration_since(self.shared.get()));
        if left.is_zero() {
            self.let_executor_look(event).await?;
        } else if !self.is_closed.get() {
            io.wait(self, left)?;
            self.counts.wakeups.add(1);
        }
        Ok(true)
    }

    /// Polls for as long as configured; whether anything came.
    async fn spin<R: Respond>(&self, event: &BufferedFile, responder: &R) -> io::Result<bool> {
        let start = now();
        let mut at = start;
        while at.duration_since(start) < self.spin_before_sleep && !self.is_closed.get() {
            self.share(event, at).await?;
            if self.turn(responder)? {
                return Ok(true);
            }
            at = now();
        }
        Ok(false)
    }

    /// Lets others have the core: tasks that a batch has woken after each batch, the executor itself when it has waited long.
    async fn share(&self, event: &BufferedFile, now: Instant) -> io::Result<()> {
        if now.duration_since(self.shared.get()) >= SHARE_AFTER {
            self.let_executor_look(event).await?;
        }
        glommio::yield_if_needed().await;
        yield_now().await;
        Ok(())
    }

    /// Has the executor look at its timers and files.
    async fn let_executor_look(&self, event: &BufferedFile) -> io::Result<()> {
        self.flush()?;
        self.event.signal();
        event.read_at(0, size_of::<u64>()).await.map_err(io::Error::from)?;
        self.shared.set(now());
        Ok(())
    }

    /// Stops taking queries; replies and upstream traffic go on.
    pub fn stop_listening(&self) {
        let listeners = self.sockets.borrow().listeners();
        for index in 0..listeners {
            let must_end = self.sockets.borrow_mut().mute(index);
            if must_end {
                self.cancel(index);
            }
        }
        self.wake_if_asleep();
    }

    /// Ends [`Self::run`] once what is queued has been handed to the kernel.
    pub fn close(&self) {
        self.is_closed.set(true);
        self.event.signal();
    }

    /// Sends `reply` along `path`, now or with the batch under way. What cannot be sent is dropped and counted.
    pub fn send(&self, path: &UdpPath, reply: &[u8]) {
        // The client will ask again; the counter has it.
        let _ = self.send_to(path.listener, path.peer, path.local, reply);
    }

    /// Sends `datagram` to `to` from an upstream-facing socket.
    ///
    /// What the kernel refuses later, or the network returns, [`Self::refused`] tells.
    ///
    /// # Errors
    /// [`Full`] when no send buffer is free, or `socket` is closed: as if the datagram had been lost on its way.
    pub fn send_from(&self, socket: SocketId, to: SocketAddr, datagram: &[u8]) -> Result<(), Full> {
        let index = self.sockets.borrow().index_of(socket);
        self.send_to(index, to, None, datagram)
    }

    /// Waits until the kernel has refused a datagram of an upstream-facing socket, or the network has reported that it
    /// will not arrive; one task may do so.
    pub async fn refused(&self) -> Refusal {
        self.refusals.next().await
    }

    /// Opens an upstream-facing socket, alone on its port.
    ///
    /// # Errors
    /// `AddrInUse` when the port is taken: try another. `QuotaExceeded` at [`Setup::upstream_sockets_max`].
    pub fn open_socket(&self, bind: SocketAddr) -> io::Result<SocketId> {
        let vacancy = self.sockets.borrow().vacancy();
        let index = vacancy.ok_or_else(|| io::Error::from(io::ErrorKind::QuotaExceeded))?;
        let bound = sockopt::bind_udp(bind, UdpSettings { is_shared: false, buffer_bytes: None })?;
        sockopt::keep_reports(&bound.fd, bound.address)?;
        let target = self.io.ring().borrow_mut().attach(index, bound.fd.as_fd());
        let mut sockets = self.sockets.borrow_mut();
        sockets.insert(index, bound.fd, target);
        let id = sockets.id_of(index);
        drop(sockets);
        self.wake_if_asleep();
        Ok(id)
    }

    /// Closes an upstream-facing socket: what is queued is still sent, nothing more is delivered. Its id is given out
    /// again only after the kernel has let go of it.
    pub fn close_socket(&self, socket: SocketId) {
        let is_news = {
            let mut sockets = self.sockets.borrow_mut();
            let index = sockets.index_of(socket);
            sockets.close(index).then_some(index)
        };
        if let Some(index) = is_news {
            self.cancel(index);
            self.wake_if_asleep();
        }
    }

    fn turn<R: Respond>(&self, responder: &R) -> io::Result<bool> {
        let is_busy = match &self.io {
            Io::Uring(io) => io.turn(self, responder)?,
            Io::Mmsg(io) => io.turn(self, responder)?,
        };
        Ok(self.take_reports() || is_busy)
    }

    /// Hands one datagram to the responder, and its reply to the backend.
    #[inline]
    fn deliver<R: Respond>(&self, responder: &R, index: u16, datagram: &Datagram<'_>) {
        if let Some(drops) = datagram.attached.drops {
            let new = self.sockets.borrow_mut().note_drops(index, drops);
            self.counts.kernel_drops.add(u64::from(new));
        }
        if datagram.is_truncated {
            return self.counts.receive_truncated.add(1);
        }
        let Some(from) = datagram.from else { return self.counts.receive_errors.add(1) };
        if from.port() == 0 {
            return self.counts.source_port_zero.add(1);
        }
        let role = self.sockets.borrow().role(index);
        match role {
            Role::Listener => {
                let local = datagram.attached.local;
                let path = UdpPath { listener: index, peer: from, local };
                self.answer(responder, datagram.payload, path);
            }
            Role::Upstream(id) => responder.response(id, from, datagram.payload),
            Role::Closing => {}
        }
    }

    #[inline]
    fn answer<R: Respond>(&self, responder: &R, request: &[u8], path: UdpPath) {
        let Some(mut slot) = self.take_slot() else { return };
        let len = responder.request(request, &Path::Udp(path), &mut slot);
        if len > 0 {
            // A refusal is counted where it happens.
            let _ = self.queue(path.listener, path.peer, path.local, slot, len);
        }
    }

    fn send_to(
        &self,
        index: u16,
        to: SocketAddr,
        local: Option<IpAddr>,
        datagram: &[u8],
    ) -> Result<(), Full> {
        let mut slot = self.take_slot().ok_or(Full)?;
        let Some(room) = slot.get_mut(..datagram.len()) else {
            self.counts.send_too_big.add(1);
            return Err(Full);
        };
        room.copy_from_slice(datagram);
        self.queue(index, to, local, slot, datagram.len())?;
        self.flush_if_asleep();
        Ok(())
    }

    fn queue(
        &self,
        index: u16,
        to: SocketAddr,
        local: Option<IpAddr>,
        slot: Slot,
        len: usize,
    ) -> Result<(), Full> {
        let target = self.sockets.borrow().target(index).ok_or(Full)?;
        let queued = match &self.io {
            Io::Uring(io) => io.send(self, target, slot, len, to, local),
            Io::Mmsg(io) => io.send(self, index, slot, len, to, local),
        };
        if queued.is_err() {
            self.counts.no_send_slot.add(1);
        }
        queued
    }

    /// A free send buffer; when all wait for the kernel, they are handed over first.
    #[inline]
    fn take_slot(&self) -> Option<Slot> {
        if let Some(slot) = self.arena.send.take() {
            return Some(slot);
        }
        // A broken ring shows in the next turn, which ends `run`.
        let _ = self.flush();
        let slot = self.arena.send.take();
        if slot.is_none() {
            self.counts.no_send_slot.add(1);
        }
        slot
    }

    /// Hands what is queued to the kernel and takes note of sends that are over.
    fn flush(&self) -> io::Result<()> {
        match &self.io {
            Io::Uring(io) => io.flush(self),
            Io::Mmsg(io) => {
                io.flush(self);
                Ok(())
            }
        }
    }

    fn flush_if_asleep(&self) {
        if !self.is_awake.get() {
            // As in `take_slot`.
            let _ = self.flush();
        }
    }

    /// Makes the task look for sockets that come or go.
    fn wake_if_asleep(&self) {
        if !self.is_awake.get() {
            self.event.signal();
        }
    }

    fn cancel(&self, index: u16) {
        match &self.io {
            Io::Uring(io) => io.cancel(index),
            Io::Mmsg(io) => io.cancel(index),
        }
    }

    fn wake_on_completion(&self, wakes: bool) {
        self.io.ring().borrow_mut().wake_on_completion(wakes);
    }

    /// Frees the number of a socket whose last operation is over.
    fn reap_socket(&self, index: u16) {
        let fd = self.sockets.borrow_mut().reap(index);
        if let Some(fd) = fd {
            self.io.ring().borrow_mut().detach(index);
            drop(fd);
        }
    }

    /// The standing operation of a socket ended by `error`: arms it again unless that cannot help.
    fn operation_ended(&self, index: u16, error: i32) -> io::Result<()> {
        match error {
            0 | errno::ECANCELED => {}
            errno::ENOBUFS => self.counts.buffer_starvation.add(1),
            _ => self.receive_failed(index, error)?,
        }
        if self.sockets.borrow_mut().ended(index) {
            self.counts.rearmed.add(1);
        }
        self.reap_socket(index);
        Ok(())
    }

    /// A receive failed: counts it, unless it is the sign of a report.
    ///
    /// # Errors
    /// `error` itself if it will come again every time: the kernel or the socket is not what we need.
    fn receive_failed(&self, index: u16, error: i32) -> io::Result<()> {
        // Some of these errors would be fatal, and from a listener they are; here anyone may have forged them.
        if index >= self.sockets.borrow().listeners() && error_queue::may_be_report(error) {
            self.note_reports(index);
            return Ok(());
        }
        self.counts.receive_errors.add(1);
        match error {
            errno::EINVAL | errno::EBADF | errno::ENOTSOCK | errno::EOPNOTSUPP => {
                Err(io::Error::from_raw_os_error(error))
            }
            _ => Ok(()),
        }
    }
}

impl Io {
    const fn ring(&self) -> &RefCell<Ring> {
        match self {
            Self::Uring(io) => io.ring(),
            Self::Mmsg(io) => io.ring(),
        }
    }
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "net is the edge: how long the executor waits is real time"
)]
fn now() -> Instant {
    Instant::now()
}
