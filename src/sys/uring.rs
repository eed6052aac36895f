//! A raw io_uring for datagrams: multishot receives into provided buffers, sends, polls, cancellation.
//!
//! Invariants:
//! * I1: memory that an operation names outlives the ring: buffers lie in pools that the ring holds, headers and the
//!   receive template are boxed and held by it, and the ring's descriptor closes first ([`Ring`]'s field order).
//! * I2: a buffer named by a send, and its header, are the kernel's from `push` to the completion; the pool's books say
//!   so. `Send` and `SendMsg` post exactly one completion, whose user data names that buffer.
//! * I3: a completion with a buffer number names a buffer of the group in its user data, which the kernel has filled
//!   and given up.
//! * I4: the ring is entered by the thread that opened it (`Ring` is not `Send`).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use io_uring::squeue::{self, Flags};
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{IoUring, Probe, cqueue, opcode};

use super::cmsg::RECEIVE_CONTROL_BYTES;
use super::datagram::{NAME_LEN, Refused};
use super::pool::{Pool, Slot};
use super::provided::Group;
use super::send_header::SendHeader;

/// Entries asked for; the kernel rounds up to powers of two and clamps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RingSize {
    /// Operations that can wait for one submission.
    pub submissions: u32,
    /// Completions that can wait for us; more go to a slower list in the kernel.
    pub completions: u32,
}

/// Something the kernel refused that the ring can do without, at a cost in speed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fallback {
    /// Completions are not deferred to our own calls (`DEFER_TASKRUN`, Linux 6.1).
    TaskrunNotDeferred,
    /// The ring's descriptor is looked up on every call.
    RingNotRegistered,
    /// Sockets are looked up on every operation.
    FilesNotRegistered,
}

impl std::fmt::Display for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TaskrunNotDeferred => "io_uring without DEFER_TASKRUN (needs Linux 6.1)",
            Self::RingNotRegistered => "io_uring descriptor not registered (needs Linux 5.18): each call costs a look-up more",
            Self::FilesNotRegistered => "sockets not registered with io_uring: the descriptor limit is below their number, or the kernel refuses; each packet costs a look-up more (raise LimitNOFILE)",
        })
    }
}

/// A socket as operations of one ring name it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    socket: u16,
    fd: RawFd,
    flags: Flags,
}

/// Buffers provided for receives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GroupId(u8);

/// The submission queue stays full: the kernel takes nothing now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A datagram lies in the first `len` bytes of `buffer`, for [`super::datagram::Datagram::parse`].
    Received {
        /// As given to [`Ring::receive`].
        socket: u16,
        /// Holds the datagram.
        buffer: Slot,
        /// Bytes filled.
        len: usize,
        /// Whether more will follow without a new [`Ring::receive`].
        is_armed: bool,
    },
    /// A receive or poll ended without a datagram.
    Ended {
        /// As given to [`Ring::receive`] or [`Ring::poll`].
        socket: u16,
        /// Why; `ENOBUFS` when no buffer was provided.
        errno: i32,
    },
    /// A polled socket is readable.
    Readable {
        /// As given to [`Ring::poll`].
        socket: u16,
        /// Whether reports wait ([`super::error_queue`]).
        is_failing: bool,
        /// Whether the poll goes on.
        is_armed: bool,
    },
    /// A send is over; its buffer is back in the pool.
    Sent,
    /// The kernel refused a send.
    Refused {
        /// As given to [`Ring::attach`].
        socket: u16,
        /// Begins with what was to be sent, for [`Ring::refused`].
        buffer: Slot,
        /// Why.
        errno: i32,
    },
    /// A cancellation is over, and with it everything queued for the socket before it.
    Cancelled {
        /// As given to [`Ring::cancel`].
        socket: u16,
    },
}

/// The ring of one core's data plane.
pub struct Ring {
    ring: IoUring,
    enter_fd: RawFd,
    enter_flags: u32,
    fallbacks: Vec<Fallback>,
    files: bool,
    headers: Box<[SendHeader]>,
    send_pool: Rc<Pool>,
    groups: Vec<Group>,
    receive_template: Box<libc::msghdr>,
}

impl Ring {
    /// Opens a ring on the calling thread, which alone may use it, for sends from the buffers of `send_pool`.
    ///
    /// # Errors
    /// The kernel's: `PermissionDenied` where io_uring is forbidden, `OutOfMemory` where memlock is too small.
    pub fn open(size: RingSize, send_pool: Rc<Pool>) -> io::Result<Self> {
        Self::open_from(0, size, send_pool)
    }

    /// As [`Self::open`], from the set of flags `first` on.
    fn open_from(first: usize, size: RingSize, send_pool: Rc<Pool>) -> io::Result<Self> {
        let mut fallbacks = Vec::new();
        let ring = build(first, size, &mut fallbacks)?;
        // SAFETY: null pointers and zero lengths are a valid, empty `msghdr`.
        let mut template: libc::msghdr = unsafe { std::mem::zeroed() };
        template.msg_namelen = NAME_LEN;
        template.msg_controllen = RECEIVE_CONTROL_BYTES;
        let headers = std::iter::repeat_with(SendHeader::empty);
        let mut ring = Self {
            enter_fd: ring.as_raw_fd(),
            enter_flags: 0,
            ring,
            fallbacks,
            files: false,
            headers: headers.take(usize::from(send_pool.count())).collect(),
            send_pool,
            groups: Vec::new(),
            receive_template: Box::new(template),
        };
        ring.register_self();
        Ok(ring)
    }

    /// What the kernel refused so far.
    #[must_use]
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    /// Makes room for `count` sockets that operations name by number.
    pub fn register_files(&mut self, count: u16) {
        self.files = self.ring.submitter().register_files_sparse(u32::from(count)).is_ok();
        if !self.files {
            self.fallbacks.push(Fallback::FilesNotRegistered);
        }
    }

    /// Makes `fd` usable as number `index`. The caller keeps it open until [`Self::detach`].
    pub fn attach(&mut self, index: u16, fd: BorrowedFd<'_>) -> Target {
        let raw = fd.as_raw_fd();
        let submitter = self.ring.submitter();
        if self.files && submitter.register_files_update(u32::from(index), &[raw]).is_ok() {
            Target { socket: index, fd: RawFd::from(index), flags: Flags::FIXED_FILE }
        } else {
            Target { socket: index, fd: raw, flags: Flags::empty() }
        }
    }

    /// Forgets number `index`; no operation may be under way on it.
    pub fn detach(&mut self, index: u16) {
        if self.files {
            // A number that was never registered is no loss: the socket was used by its descriptor.
            let _ = self.ring.submitter().register_files_update(u32::from(index), &[-1]);
        }
    }

    /// Signals `event` for completions while [`Self::wake_on_completion`] says so.
    ///
    /// # Errors
    /// The kernel's.
    pub fn register_eventfd(&mut self, event: BorrowedFd<'_>) -> io::Result<()> {
        self.ring.submitter().register_eventfd(event.as_raw_fd())
    }

    /// Provides the buffers of `pool`, a power of two of them, to receives that name the returned group.
    ///
    /// # Errors
    /// The kernel's; `Unsupported` before Linux 6.0, which has the rings of buffers but not the receives that take them.
    pub fn add_group(&mut self, pool: Rc<Pool>) -> io::Result<GroupId> {
        if !self.receives_multishot() {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        let id = u8::try_from(self.groups.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut group = Group::new(pool)?;
        let (address, count) = group.registration();
        let submitter = self.ring.submitter();
        // SAFETY: `address` begins `count` mapped entries that live as long as the ring (I1).
        unsafe { submitter.register_buf_ring_with_flags(address, count, u16::from(id), 0) }?;
        group.refill();
        self.groups.push(group);
        Ok(GroupId(id))
    }

    /// Whether the kernel has multishot `recvmsg`. Flags cannot be probed, but `SEND_ZC` can, which came with the same
    /// version. A sandbox that allows no probe is believed to be new enough.
    fn receives_multishot(&self) -> bool {
        let mut probe = Probe::new();
        let probed = self.ring.submitter().register_probe(&mut probe);
        probed.is_err() || probe.is_supported(opcode::SendZc::CODE)
    }

    /// Queues a multishot receive on `target`; its events carry `socket`.
    ///
    /// # Errors
    /// [`Full`].
    pub fn receive(&mut self, target: Target, group: GroupId, socket: u16) -> Result<(), Full> {
        let template = &raw const *self.receive_template;
        let entry = opcode::RecvMsgMulti::new(Fd(target.fd), template, u16::from(group.0)).build();
        let data = UserData { kind: Kind::Receive, group: group.0, index: socket, sender: 0 };
        self.push(&entry.flags(target.flags).user_data(data.pack()))
    }

    /// Queues a multishot poll for readability on `target`; its events carry `socket`.
    ///
    /// # Errors
    /// [`Full`].
    pub fn poll(&mut self, target: Target, socket: u16) -> Result<(), Full> {
        let readable = u32::from(libc::POLLIN.unsigned_abs());
        let entry = opcode::PollAdd::new(Fd(target.fd), readable).multi(true).build();
        let data = UserData { kind: Kind::Poll, group: 0, index: socket, sender: 0 };
        self.push(&entry.flags(target.flags).user_data(data.pack()))
    }

    /// Queues the end of the receive or poll on `socket`; [`Event::Cancelled`] follows in any case.
    ///
    /// # Errors
    /// [`Full`].
    pub fn cancel(&mut self, kind: Multishot, socket: u16) -> Result<(), Full> {
        let aim = match kind {
            Multishot::Receive(group) => {
                UserData { kind: Kind::Receive, group: group.0, index: socket, sender: 0 }
            }
            Multishot::Poll => UserData { kind: Kind::Poll, group: 0, index: socket, sender: 0 },
        };
        let data = UserData { kind: Kind::Cancel, group: 0, index: socket, sender: 0 };
        let entry = opcode::AsyncCancel::new(aim.pack()).build();
        self.push(&entry.user_data(data.pack()))
    }

    /// Queues the first `len` bytes of `slot` to `to`, from `local` if that is given.
    ///
    /// The kernel takes the datagram or refuses it at once; it never keeps it to try again later.
    ///
    /// # Errors
    /// [`Full`]; the slot is back in its pool.
    ///
    /// # Panics
    /// If `slot` is of another pool or has fewer bytes.
    #[inline]
    pub fn send(
        &mut self,
        target: Target,
        mut slot: Slot,
        len: usize,
        to: SocketAddr,
        local: Option<IpAddr>,
    ) -> Result<(), Full> {
        assert!(slot.is_of(&self.send_pool) && len <= slot.len(), "a slot of this ring's pool");
        if !self.has_room() {
            self.make_room()?;
        }
        let payload = slot.as_mut_ptr();
        let header = &mut self.headers[usize::from(slot.index())];
        let entry = match local {
            None => {
                let address = header.address(len, to);
                opcode::Send::new(Fd(target.fd), payload, u32::try_from(len).unwrap_or(u32::MAX))
                    .flags(libc::MSG_DONTWAIT)
                    .dest_addr(address.as_ptr())
                    .dest_addr_len(address.len())
                    .build()
            }
            Some(_) => opcode::SendMsg::new(Fd(target.fd), header.message(payload, len, to, local))
                .flags(libc::MSG_DONTWAIT.unsigned_abs())
                .build(),
        };
        let sender = target.socket;
        let data = UserData { kind: Kind::Send, group: 0, index: slot.lend(), sender };
        let pushed = self.push(&entry.flags(target.flags).user_data(data.pack()));
        if pushed.is_err() {
            drop(self.send_pool.reclaim(data.index));
        }
        pushed
    }

    /// What was to be sent, of an [`Event::Refused`] and with its error.
    ///
    /// # Panics
    /// If `buffer` is of another pool.
    #[must_use]
    pub fn refused<'a>(&self, buffer: &'a Slot, errno: i32) -> Refused<'a> {
        assert!(buffer.is_of(&self.send_pool), "a slot of this ring's pool");
        self.headers[usize::from(buffer.index())].refused(buffer, errno)
    }

    /// Whether another operation can be queued without handing over those that wait.
    #[must_use]
    #[inline]
    pub fn has_room(&mut self) -> bool {
        !self.ring.submission().is_full()
    }

    /// Hands queued operations to the kernel; nothing else. Whether there were any.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub fn submit(&mut self) -> io::Result<bool> {
        if self.ring.submission().is_empty() { Ok(false) } else { self.call(0).map(|()| true) }
    }

    /// Provides the free buffers, hands queued operations to the kernel and lets it post completions; never waits.
    ///
    /// # Errors
    /// The kernel's, when the ring is broken.
    pub fn enter(&mut self) -> io::Result<()> {
        for group in &mut self.groups {
            group.refill();
        }
        self.call(GETEVENTS)
    }

    /// As [`Self::enter`], but waits up to `at_most` for a completion when there is none.
    ///
    /// # Errors
    /// The kernel's, when the ring is broken.
    pub fn wait(&mut self, at_most: Duration) -> io::Result<()> {
        for group in &mut self.groups {
            group.refill();
        }
        let span = Timespec::from(at_most);
        let argument =
            WaitArgument { sigmask: 0, sigmask_size: 0, min_wait_us: 0, span: &raw const span };
        self.call_for(GETEVENTS | ENTER_EXT_ARG, 1, Some(&argument))
    }

    /// Takes the next completion.
    #[inline]
    pub fn next_event(&mut self) -> Option<Event> {
        let entry = self.ring.completion().next()?;
        let data = UserData::unpack(entry.user_data());
        let is_armed = cqueue::more(entry.flags());
        let socket = data.index;
        let errno = -entry.result().min(0);
        Some(match data.kind {
            Kind::Send => {
                let buffer = self.send_pool.reclaim(data.index);
                match errno {
                    0 => Event::Sent,
                    errno => Event::Refused { socket: data.sender, buffer, errno },
                }
            }
            Kind::Receive => {
                // A failed receive may name a buffer too; reclaiming it gives it back when it drops.
                let group = &self.groups[usize::from(data.group)];
                let buffer = cqueue::buffer_select(entry.flags()).map(|bid| group.filled(bid));
                match (buffer, usize::try_from(entry.result())) {
                    (Some(buffer), Ok(len)) => Event::Received { socket, buffer, len, is_armed },
                    _ => Event::Ended { socket, errno },
                }
            }
            Kind::Poll if errno == 0 => {
                let is_failing = entry.result() & i32::from(libc::POLLERR) != 0;
                Event::Readable { socket, is_failing, is_armed }
            }
            Kind::Poll => Event::Ended { socket, errno },
            Kind::Cancel => Event::Cancelled { socket },
        })
    }

    /// Whether operations still wait although they were handed over: the kernel was short of memory for them.
    #[must_use]
    pub fn is_held_up(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Whether completions wait in the kernel's slow list for room in the queue; [`Self::enter`] fetches them.
    #[must_use]
    pub fn is_overflowing(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// Completions the kernel lost for want of memory; after one, the books are wrong for good.
    #[must_use]
    pub fn lost_completions(&mut self) -> u32 {
        self.ring.completion().overflow()
    }

    /// Chooses whether completions signal the registered eventfd.
    ///
    /// Full barrier: a completion either finds the new choice, or is found by the next [`Self::enter`].
    pub fn wake_on_completion(&mut self, wakes: bool) {
        let completions = self.ring.completion();
        if wakes {
            completions.enable_eventfd();
        } else {
            completions.disable_eventfd();
        }
        drop(completions);
        fence(Ordering::SeqCst);
    }

    #[inline]
    fn push(&mut self, entry: &squeue::Entry) -> Result<(), Full> {
        if !self.has_room() {
            self.make_room()?;
        }
        let mut submissions = self.ring.submission();
        // SAFETY: the entry names only memory of this ring (I1), in the kernel's hands from here (I2).
        unsafe { submissions.push(entry) }.map_err(|_| Full)
    }

    #[cold]
    fn make_room(&mut self) -> Result<(), Full> {
        self.submit().map_err(|_| Full)?;
        if self.has_room() { Ok(()) } else { Err(Full) }
    }

    fn call(&mut self, flags: u32) -> io::Result<()> {
        self.call_for(flags, 0, None)
    }

    fn call_for(
        &mut self,
        flags: u32,
        completions: libc::c_long,
        argument: Option<&WaitArgument>,
    ) -> io::Result<()> {
        let size = argument.map_or(0, size_of_val);
        let argument = argument.map_or(std::ptr::null(), std::ptr::from_ref);
        loop {
            let waiting = libc::c_long::try_from(self.ring.submission().len()).unwrap_or(0);
            let fd = libc::c_long::from(self.enter_fd);
            let flags = libc::c_long::from(flags | self.enter_flags);
            // SAFETY: the argument, if any, is one `io_uring_getevents_arg` that names a live timespec, as its size and the flags say;
            // queued entries name live memory only (I1) and the thread is right (I4).
            let result = unsafe {
                libc::syscall(
                    libc::SYS_io_uring_enter,
                    fd,
                    waiting,
                    completions,
                    flags,
                    argument,
                    size,
                )
            };
            if result >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // A wait that a signal ends is over.
                Some(libc::EINTR) if completions == 0 => {}
                // Out of memory for requests, or completions overflowed: what is queued stays queued and goes later.
                Some(libc::EAGAIN | libc::EBUSY | libc::ETIME | libc::EINTR) => return Ok(()),
                _ => return Err(error),
            }
        }
    }

    /// Registers the ring's own descriptor with this thread, which saves a look-up per call.
    fn register_self(&mut self) {
        let fd = self.ring.as_raw_fd();
        let mut update = RegisterUpdate { offset: u32::MAX, reserved: 0, data: 0 };
        update.data = u64::from(fd.unsigned_abs());
        if register_ring(fd, REGISTER_RING_FDS, &mut update) == 1
            && let Ok(index) = RawFd::try_from(update.offset)
        {
            self.enter_fd = index;
            self.enter_flags = ENTER_REGISTERED_RING;
        } else {
            self.fallbacks.push(Fallback::RingNotRegistered);
        }
    }
}

impl Drop for Ring {
    /// Ends every operation before buffers can be unmapped: closing alone does so some time later.
    fn drop(&mut self) {
        let _ = self.ring.submitter().register_sync_cancel(None, CancelBuilder::any());
        if self.enter_flags != 0 {
            let offset = self.enter_fd.unsigned_abs();
            let mut update = RegisterUpdate { offset, reserved: 0, data: 0 };
            register_ring(self.ring.as_raw_fd(), UNREGISTER_RING_FDS, &mut update);
        }
    }
}

/// Which kind of standing operation [`Ring::cancel`] ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Multishot {
    /// A receive into this group.
    Receive(GroupId),
    /// A poll.
    Poll,
}

const GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 8;
const ENTER_REGISTERED_RING: u32 = 16;
const REGISTER_RING_FDS: libc::c_long = 20;
const UNREGISTER_RING_FDS: libc::c_long = 21;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct WaitArgument {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_us: u32,
    span: *const Timespec,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

impl From<Duration> for Timespec {
    fn from(duration: Duration) -> Self {
        Self {
            seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(duration.subsec_nanos()),
        }
    }
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RegisterUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

fn register_ring(fd: RawFd, operation: libc::c_long, update: &mut RegisterUpdate) -> libc::c_long {
    let fd = libc::c_long::from(fd);
    let one: libc::c_long = 1;
    // SAFETY: `update` is one writable `io_uring_rsrc_update`, used during the call only.
    unsafe { libc::syscall(libc::SYS_io_uring_register, fd, operation, &raw mut *update, one) }
}

/// Opens the least of a ring and lets it go, to learn whether this process may have any.
///
/// # Errors
/// The kernel's, or its filter's: `PermissionDenied` and `Unsupported` are what seccomp profiles say to io_uring.
pub fn try_open() -> io::Result<()> {
    IoUring::new(1).map(drop)
}

/// Opens the ring with the best set of flags that the kernel takes, from the set `first` on.
fn build(first: usize, size: RingSize, fallbacks: &mut Vec<Fallback>) -> io::Result<IoUring> {
    let attempts: [fn(&mut io_uring::Builder); 4] = [
        |b| {
            b.setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun().setup_submit_all();
        },
        |b| {
            b.setup_single_issuer().setup_coop_taskrun().setup_submit_all();
        },
        |b| {
            b.setup_coop_taskrun().setup_submit_all();
        },
        |_| {},
    ];
    let mut refusal = io::Error::from(io::ErrorKind::Unsupported);
    for (step, set_flags) in attempts.into_iter().enumerate().skip(first) {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(size.completions.max(size.submissions));
        set_flags(&mut builder);
        match builder.build(size.submissions) {
            Ok(ring) => {
                if step > 0 {
                    fallbacks.push(Fallback::TaskrunNotDeferred);
                }
                return Ok(ring);
            }
            // The kernel does not know a flag.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = error,
            Err(error) => return Err(error),
        }
    }
    Err(refusal)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Receive,
    Send,
    Poll,
    Cancel,
}

/// What an operation was, as the 64 bits that its completions carry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct UserData {
    kind: Kind,
    group: u8,
    index: u16,
    /// Of a send, the number of its socket.
    sender: u16,
}

impl UserData {
    #[inline]
    fn pack(self) -> u64 {
        let [low, high] = self.index.to_le_bytes();
        let [sender_low, sender_high] = self.sender.to_le_bytes();
        let kind = self.kind as u8;
        u64::from_le_bytes([low, high, self.group, kind, sender_low, sender_high, 0, 0])
    }

    #[inline]
    fn unpack(bits: u64) -> Self {
        let [low, high, group, kind, sender_low, sender_high, ..] = bits.to_le_bytes();
        let kind = match kind {
            0 => Kind::Receive,
            1 => Kind::Send,
            2 => Kind::Poll,
            _ => Kind::Cancel,
        };
        let sender = u16::from_le_bytes([sender_low, sender_high]);
        Self { kind, group, index: u16::from_le_bytes([low, high]), sender }
    }
}

#[cfg(test)]
mod tests;
