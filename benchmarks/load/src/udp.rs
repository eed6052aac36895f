//! Datagrams on a ring of our own, each from the address that it is to come from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;

use heimdall_uring::sys::datagram::{Datagram, PREFIX_BYTES};
use heimdall_uring::sys::mmap::Map;
use heimdall_uring::sys::pool::{Pool, stride};
use heimdall_uring::sys::sockopt::{UdpSettings, bind_udp};
use heimdall_uring::sys::uring::{Event, GroupId, Ring, RingSize, Target};

use crate::arguments::Plan;
use crate::door::{Arrival, Door, Refusal, Troubles};
use crate::questions::QUESTION_BYTES_MAX;
use crate::sources;

/// Answers that the kernel may lay down before they are looked at.
const RECEIVE_BUFFERS: u16 = 4096;

/// Bytes of each: answers over UDP stay below 1400 bytes, or are cut.
const RECEIVE_BYTES: usize = PREFIX_BYTES + 1472;

/// Questions that may wait for the kernel.
const SEND_BUFFERS: u16 = 1024;

/// Events looked at before questions are sent again: a queue of answers takes milliseconds when it is long.
const EVENTS_MAX: usize = 512;

const SOCKET_BUFFER_BYTES: usize = 4 << 20;

struct Socket {
    /// Open as long as the ring names it.
    _fd: OwnedFd,
    target: Target,
    /// What the kernel had dropped in front of it when it was told last.
    drops: u32,
}

/// The sockets of one thread, a lane each.
pub(crate) struct Datagrams<'a> {
    plan: &'a Plan,
    ring: Ring,
    group: GroupId,
    pool: Rc<Pool>,
    sockets: Vec<Socket>,
    unarmed: Vec<u16>,
    troubles: Troubles,
}

impl<'a> Datagrams<'a> {
    /// Opens ring and sockets, on the thread that will use them.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(plan: &'a Plan) -> io::Result<Self> {
        let too_small = || io::Error::from(io::ErrorKind::OutOfMemory);
        let lens = [
            stride(RECEIVE_BYTES) * usize::from(RECEIVE_BUFFERS),
            stride(QUESTION_BYTES_MAX) * usize::from(SEND_BUFFERS),
        ];
        let [receive, send] =
            Map::anonymous(lens.iter().sum())?.split(lens).ok_or_else(too_small)?;
        let receive = Pool::new(receive, RECEIVE_BYTES, RECEIVE_BUFFERS).ok_or_else(too_small)?;
        let pool = Pool::new(send, QUESTION_BYTES_MAX, SEND_BUFFERS).ok_or_else(too_small)?;
        let size = RingSize { submissions: 512, completions: 4 * u32::from(RECEIVE_BUFFERS) };
        let mut ring = Ring::open(size, Rc::clone(&pool))?;
        ring.register_files(plan.lanes);
        let group = ring.add_group(receive)?;
        let anywhere = match plan.server {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let settings = UdpSettings { is_shared: false, buffer_bytes: Some(SOCKET_BUFFER_BYTES) };
        let mut sockets = Vec::new();
        for index in 0..plan.lanes {
            let bound = bind_udp(SocketAddr::new(anywhere, 0), settings)?;
            let target = ring.attach(index, bound.fd.as_fd());
            sockets.push(Socket { _fd: bound.fd, target, drops: 0 });
        }
        let unarmed = (0..plan.lanes).collect();
        Ok(Self { plan, ring, group, pool, sockets, unarmed, troubles: Troubles::default() })
    }

    /// Has the kernel lay down what comes to sockets that are not listened to.
    fn arm(&mut self) {
        while let Some(index) = self.unarmed.pop() {
            let target = self.sockets[usize::from(index)].target;
            if self.ring.receive(target, self.group, index).is_err() {
                self.unarmed.push(index);
                break;
            }
        }
    }

    /// The datagram's payload, if it is from the server.
    fn payload<'d>(&mut self, index: u16, filled: &'d [u8]) -> Option<&'d [u8]> {
        let datagram = Datagram::parse(filled)?;
        if let Some(drops) = datagram.attached.drops {
            let socket = &mut self.sockets[usize::from(index)];
            self.troubles.dropped += u64::from(drops.wrapping_sub(socket.drops));
            socket.drops = drops;
        }
        (datagram.from == Some(self.plan.server)).then_some(datagram.payload)
    }

    /// A source that is not ours will never work; for all else one question is lost.
    fn judge(&self, errno: i32) -> Result<(), String> {
        let error = io::Error::from_raw_os_error(errno);
        let is_for_good = matches!(
            error.kind(),
            io::ErrorKind::AddrNotAvailable
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::NetworkUnreachable
        );
        match self.plan.from {
            _ if !is_for_good => Ok(()),
            Some((prefix, _)) => Err(sources::advice(prefix)),
            None => Err(format!("cannot ask {}: {error}", self.plan.server)),
        }
    }
}

impl Door for Datagrams<'_> {
    fn lanes(&self) -> usize {
        self.sockets.len()
    }

    fn send(
        &mut self,
        lane: usize,
        from: Option<IpAddr>,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), Refusal> {
        let mut slot = self.pool.take().ok_or(Refusal::Full)?;
        let len = write(&mut slot);
        let sent = self.ring.send(self.sockets[lane].target, slot, len, self.plan.server, from);
        sent.map_err(|_| Refusal::Broken("the ring takes no more questions".to_owned()))
    }

    fn turn(&mut self, take: &mut impl FnMut(usize, Arrival<'_>)) -> Result<bool, String> {
        self.arm();
        self.ring.enter().map_err(|cause| format!("the ring is broken: {cause}"))?;
        let mut is_busy = false;
        for _ in 0..EVENTS_MAX {
            let Some(event) = self.ring.next_event() else { break };
            is_busy = true;
            match event {
                Event::Received { socket, buffer, len, is_armed } => {
                    if !is_armed {
                        self.unarmed.push(socket);
                    }
                    if let Some(payload) = self.payload(socket, &buffer[..len]) {
                        take(usize::from(socket), Arrival::Answer(payload));
                    }
                }
                Event::Ended { socket, .. } => {
                    self.unarmed.push(socket);
                    self.troubles.starved += 1;
                }
                Event::Refused { socket, buffer, errno } => {
                    self.judge(errno)?;
                    if let Some(&[high, low]) = buffer.first_chunk::<2>() {
                        let id = u16::from_be_bytes([high, low]);
                        take(usize::from(socket), Arrival::Unsent(id));
                    }
                }
                Event::Sent | Event::Readable { .. } | Event::Cancelled { .. } => {}
            }
        }
        Ok(is_busy)
    }

    fn troubles(&self) -> Troubles {
        self.troubles
    }
}
