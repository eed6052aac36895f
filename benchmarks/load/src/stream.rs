//! Connections over TCP or TLS, a lane each, with as many questions on the way as there are (RFC 7766 §6.2.1.1).

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use mio::{Events, Interest, Poll, Token};
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, Socket, Type};

use crate::arguments::{Plan, Transport};
use crate::certificate;
use crate::door::{Arrival, Door, Refusal, Troubles};
use crate::questions::QUESTION_BYTES_MAX;
use crate::sources;

/// Octets that may wait on one connection before it takes no more questions.
const OUT_MAX: usize = 16 << 10;

/// Octets read at a time.
const READ_BYTES: usize = 64 << 10;

/// How long a lane stays without a connection after it has lost one.
const PAUSE: Duration = Duration::from_millis(50);

const EVENTS: usize = 1024;

/// The connections of one thread.
pub(crate) struct Streams<'a> {
    plan: &'a Plan,
    tls: Option<Arc<ClientConfig>>,
    poll: Poll,
    events: Events,
    lanes: Vec<Lane>,
    /// Lanes with something to send that the kernel has not refused.
    unflushed: Vec<usize>,
    buffer: Box<[u8]>,
    rng: Rng,
    reopened: u64,
    /// A connection has been open: the server is there.
    has_answered: bool,
}

enum Lane {
    Open(Box<Connection>),
    Down(Instant),
}

struct Connection {
    stream: mio::net::TcpStream,
    tls: Option<ClientConnection>,
    out: Outgoing,
    /// The start of a message whose end is still to come.
    incoming: Vec<u8>,
    is_unflushed: bool,
}

/// Octets that are to be sent.
#[derive(Debug, Default)]
struct Outgoing {
    /// From `sent` on; what is before has gone.
    octets: Vec<u8>,
    sent: usize,
}

impl<'a> Streams<'a> {
    /// Begins all connections.
    ///
    /// # Errors
    /// What the system refuses, in words.
    pub(crate) fn open(plan: &'a Plan, thread: u32) -> Result<Self, String> {
        let poll = Poll::new().map_err(|cause| format!("cannot poll: {cause}"))?;
        let tls = (plan.transport == Transport::Dot).then(certificate::anybody).transpose()?;
        let mut streams = Self {
            plan,
            tls,
            poll,
            events: Events::with_capacity(EVENTS),
            lanes: Vec::new(),
            unflushed: Vec::new(),
            buffer: vec![0; READ_BYTES].into(),
            rng: Rng::with_seed(plan.seed.wrapping_add(u64::from(thread) << 32)),
            reopened: 0,
            has_answered: false,
        };
        for lane in 0..usize::from(plan.lanes) {
            let connection = streams.connect(lane).map_err(|cause| streams.cannot(&cause))?;
            streams.lanes.push(Lane::Open(Box::new(connection)));
        }
        Ok(streams)
    }

    fn cannot(&self, cause: &io::Error) -> String {
        match self.plan.from {
            Some((prefix, _)) if cause.kind() == ErrorKind::AddrNotAvailable => {
                sources::advice(prefix)
            }
            _ => format!("cannot connect to {}: {cause}", self.plan.server),
        }
    }

    /// Begins a connection, from a random one of the sources.
    fn connect(&mut self, lane: usize) -> io::Result<Connection> {
        let server = self.plan.server;
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some((prefix, clients)) = self.plan.from {
            let from = sources::address(prefix, self.rng.u32(0..clients));
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        match socket.connect(&server.into()) {
            Ok(()) => {}
            // EINPROGRESS: it goes on by itself.
            Err(cause) if cause.raw_os_error() == Some(IN_PROGRESS) => {}
            Err(cause) => return Err(cause),
        }
        let mut stream = mio::net::TcpStream::from_std(socket.into());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(lane), interest)?;
        let tls = self.tls.as_ref().map(|config| {
            ClientConnection::new(Arc::clone(config), server.ip().into()).map_err(io::Error::other)
        });
        Ok(Connection {
            stream,
            tls: tls.transpose()?,
            out: Outgoing::default(),
            incoming: Vec::new(),
            is_unflushed: false,
        })
    }

    /// Opens lanes anew that have been down for a while.
    fn reopen(&mut self) -> Result<(), String> {
        for lane in 0..self.lanes.len() {
            if let Lane::Down(since) = self.lanes[lane]
                && since.elapsed() >= PAUSE
            {
                let connection = self.connect(lane).map_err(|cause| self.cannot(&cause))?;
                self.lanes[lane] = Lane::Open(Box::new(connection));
                self.reopened += 1;
            }
        }
        Ok(())
    }

    /// Sends what waits on `lane`; whether that worked as far as it can.
    fn flush(&mut self, lane: usize) -> io::Result<()> {
        match &mut self.lanes[lane] {
            Lane::Open(connection) => connection.flush(),
            Lane::Down(_) => Ok(()),
        }
    }

    /// Hands what has come on `lane` to `take`.
    fn read(&mut self, lane: usize, take: &mut impl FnMut(usize, Arrival<'_>)) -> io::Result<()> {
        let Lane::Open(connection) = &mut self.lanes[lane] else { return Ok(()) };
        connection.read(&mut self.buffer, &mut |message| take(lane, Arrival::Answer(message)))?;
        self.has_answered = true;
        Ok(())
    }

    /// What to do when `outcome` on `lane` was an error: a server that never was there ends the run.
    fn judge(
        &mut self,
        lane: usize,
        outcome: io::Result<()>,
        take: &mut impl FnMut(usize, Arrival<'_>),
    ) -> Result<(), String> {
        match outcome {
            Ok(()) => Ok(()),
            Err(cause) if !self.has_answered && cause.kind() != ErrorKind::UnexpectedEof => {
                Err(self.cannot(&cause))
            }
            Err(_) => {
                if let Lane::Open(connection) = &mut self.lanes[lane] {
                    // It is closed by being dropped in any case.
                    let _ = self.poll.registry().deregister(&mut connection.stream);
                }
                self.lanes[lane] = Lane::Down(now());
                take(lane, Arrival::Closed);
                Ok(())
            }
        }
    }
}

/// `EINPROGRESS` of Linux.
const IN_PROGRESS: i32 = 115;

impl Door for Streams<'_> {
    fn lanes(&self) -> usize {
        self.lanes.len()
    }

    fn send(
        &mut self,
        lane: usize,
        _: Option<IpAddr>,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), Refusal> {
        let Lane::Open(connection) = &mut self.lanes[lane] else { return Err(Refusal::Full) };
        if !connection.takes_more() {
            return Err(Refusal::Full);
        }
        let mut message = [0; 2 + QUESTION_BYTES_MAX];
        let len = write(&mut message[2..]);
        let prefix = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
        message[..2].copy_from_slice(&prefix);
        connection
            .queue(&message[..2 + len])
            .map_err(|cause| Refusal::Broken(cause.to_string()))?;
        if !std::mem::replace(&mut connection.is_unflushed, true) {
            self.unflushed.push(lane);
        }
        Ok(())
    }

    fn turn(&mut self, take: &mut impl FnMut(usize, Arrival<'_>)) -> Result<bool, String> {
        while let Some(lane) = self.unflushed.pop() {
            if let Lane::Open(connection) = &mut self.lanes[lane] {
                connection.is_unflushed = false;
            }
            let flushed = self.flush(lane);
            self.judge(lane, flushed, take)?;
        }
        self.reopen()?;
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, Some(Duration::ZERO));
        if let Err(cause) = polled
            && cause.kind() != ErrorKind::Interrupted
        {
            return Err(format!("cannot poll: {cause}"));
        }
        let is_busy = !events.is_empty();
        for event in &events {
            let Token(lane) = event.token();
            let done = self.read(lane, take).and_then(|()| self.flush(lane));
            self.judge(lane, done, take)?;
        }
        self.events = events;
        Ok(is_busy)
    }

    fn troubles(&self) -> Troubles {
        Troubles { reopened: self.reopened, ..Troubles::default() }
    }
}

impl Connection {
    /// Whether a message may be queued. None while TLS is being agreed on: it would be kept where nobody counts it.
    fn takes_more(&self) -> bool {
        let is_agreed = self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking());
        is_agreed && self.out.waiting().len() <= OUT_MAX
    }

    /// Takes a whole message, to be sent with the next [`Self::flush`].
    fn queue(&mut self, message: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(message)?;
            self.out.encrypt(tls)
        } else {
            self.out.octets.extend_from_slice(message);
            Ok(())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            self.out.encrypt(tls)?;
        }
        self.out.flush(&mut self.stream)
    }

    /// Reads until nothing is left; each whole message goes to `take`.
    fn read(&mut self, buffer: &mut [u8], take: &mut impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let count = match &mut self.tls {
                None => self.stream.read(buffer),
                Some(tls) => match tls.read_tls(&mut self.stream) {
                    Ok(0) => Ok(0),
                    Ok(_) => {
                        tls.process_new_packets().map_err(io::Error::other)?;
                        take_plain(tls, &mut self.incoming)?;
                        deliver(&mut self.incoming, take);
                        continue;
                    }
                    Err(cause) => Err(cause),
                },
            };
            match count {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.incoming.extend_from_slice(&buffer[..count]);
                    deliver(&mut self.incoming, take);
                }
                Err(cause) => return harmless(cause),
            }
        }
    }
}

impl Outgoing {
    fn waiting(&self) -> &[u8] {
        &self.octets[self.sent..]
    }

    /// Takes what `tls` has to send.
    fn encrypt(&mut self, tls: &mut ClientConnection) -> io::Result<()> {
        while tls.wants_write() && tls.write_tls(&mut self.octets)? > 0 {}
        Ok(())
    }

    /// Sends what `stream` takes. What has gone is let go of, at the latest when it is more than may wait.
    fn flush(&mut self, stream: &mut impl io::Write) -> io::Result<()> {
        while self.sent < self.octets.len() {
            match stream.write(self.waiting()) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(cause) => {
                    if self.sent > OUT_MAX {
                        self.octets.drain(..self.sent);
                        self.sent = 0;
                    }
                    return harmless(cause);
                }
            }
        }
        self.octets.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Everything that has been decrypted.
fn take_plain(tls: &mut ClientConnection, incoming: &mut Vec<u8>) -> io::Result<()> {
    match tls.reader().read_to_end(incoming) {
        Ok(_) => Ok(()),
        Err(cause) => harmless(cause),
    }
}

/// Hands over the whole messages in `incoming` and leaves the rest.
fn deliver(incoming: &mut Vec<u8>, take: &mut impl FnMut(&[u8])) {
    let mut at = 0;
    while let Some((&prefix, rest)) = incoming[at..].split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(prefix));
        let Some(message) = rest.get(..len) else { break };
        take(message);
        at += 2 + len;
    }
    incoming.drain(..at);
}

/// What only means that it has to be tried later is no error.
fn harmless(cause: io::Error) -> io::Result<()> {
    match cause.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected => Ok(()),
        _ => Err(cause),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long to wait is real time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many octets, then none until it is given more room.
    struct Narrow {
        room: usize,
        taken: Vec<u8>,
    }

    impl io::Write for Narrow {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let count = octets.len().min(self.room);
            self.room -= count;
            self.taken.extend_from_slice(&octets[..count]);
            if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_sent_is_let_go_of_though_something_always_waits() {
        let (mut out, mut stream) = (Outgoing::default(), Narrow { room: 0, taken: Vec::new() });
        let mut given = Vec::new();
        for round in 0..2_000u32 {
            while out.waiting().len() <= OUT_MAX {
                let message = round.to_be_bytes().repeat(100);
                given.extend_from_slice(&message);
                out.octets.extend_from_slice(&message);
            }
            stream.room = 1_000;
            out.flush(&mut stream).unwrap();
            assert!(!out.waiting().is_empty());
            assert!(out.octets.len() <= 2 * OUT_MAX + 2_000, "{}", out.octets.len());
        }
        stream.room = usize::MAX;
        out.flush(&mut stream).unwrap();
        assert!(out.octets.is_empty() && stream.taken == given);
    }

    #[test]
    fn messages_are_handed_over_once_they_are_whole() {
        let stream = [0, 3, 1, 2, 3, 0, 0, 0, 1, 9];
        for cut in 0..=stream.len() {
            let (mut incoming, mut messages) = (Vec::new(), Vec::new());
            for part in [&stream[..cut], &stream[cut..]] {
                incoming.extend_from_slice(part);
                deliver(&mut incoming, &mut |message| messages.push(message.to_vec()));
            }
            assert_eq!(messages, [vec![1, 2, 3], vec![], vec![9]]);
            assert!(incoming.is_empty());
        }
    }
}
