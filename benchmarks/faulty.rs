//! Question: what does a client notice when the way to an upstream is bad?
//!
//! A proxy for DNS over UDP and TCP that does to the traffic what networks do: loses, delays, doubles, reorders, cuts, resets,
//! mutes, swallows, refuses. `scripts/faults` puts it between a node and real servers. All chances are drawn in the order in
//! which queries arrive, from one seed. Memory is bounded: what exceeds a bound is dropped.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a tool of its own with blocking sockets and real time, one thread per direction"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

/// Answers that can be on their way at a time.
const DELAYED_MAX: usize = 1 << 16;
/// Connections open at a time.
const CONNECTIONS_MAX: usize = 512;
/// Pieces of answers on their way over one connection.
const PIECES_MAX: usize = 256;
/// Bytes of one such piece.
const PIECE_BYTES: usize = 4096;
/// Stack of a connection's threads.
const STACK_BYTES: usize = 128 << 10;
/// How much longer an answer takes that others are to overtake.
const REORDER: Duration = Duration::from_millis(20);
/// The flag of truncated answers, in the third octet.
const TC: u8 = 0b10;
/// How long to wait for a connection to the server.
const CONNECT: Duration = Duration::from_secs(5);

/// What to do to the traffic.
#[derive(Clone, Copy, Debug, Parser)]
struct Faults {
    /// Address to serve.
    #[arg(long)]
    listen: SocketAddr,
    /// The server.
    #[arg(long)]
    to: SocketAddr,
    /// Percent of exchanges over UDP that lose a datagram, the query or its answer.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    loss: u8,
    /// Milliseconds that every answer takes longer.
    #[arg(long, default_value_t = 0)]
    delay: u16,
    /// Milliseconds that every answer over TCP takes longer, beside that.
    #[arg(long, default_value_t = 0)]
    delay_tcp: u16,
    /// Percent of answers over UDP that are marked as truncated.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    cut: u8,
    /// Seconds after which nothing is carried any more on the TCP connections that are open then, without a word;
    /// those opened later are sound.
    #[arg(long)]
    mute_after: Option<u16>,
    /// Percent of TCP connections that are reset when their first query arrives.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    reset: u8,
    /// Percent of queries over TCP at which the connection is reset, whatever else is under way on it.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    reset_queries: u8,
    /// Percent of answers over UDP that come twice.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    duplicate: u8,
    /// Percent of answers over UDP that take 20 ms longer, so that others overtake them.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    reorder: u8,
    /// Swallow everything.
    #[arg(long, conflicts_with = "refuse")]
    dead: bool,
    /// Listen on no port: the kernel refuses whoever comes.
    #[arg(long)]
    refuse: bool,
    /// Where chance begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> io::Result<()> {
    let faults = Faults::parse();
    if faults.refuse {
        loop {
            thread::park();
        }
    }
    let udp = UdpSocket::bind(faults.listen)?;
    let tcp = TcpListener::bind(faults.listen)?;
    if faults.dead {
        // Connections wait in the kernel's queue until it is full.
        let mut bytes = [0; 1];
        loop {
            let _ = udp.recv_from(&mut bytes);
        }
    }
    thread::spawn(move || serve_streams(&tcp, faults));
    Datagrams::open(udp, faults)?.serve()
}

/// Chance from a seed: SplitMix64.
struct Chance(u64);

impl Chance {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    const fn happens(&mut self, percent: u8) -> bool {
        self.next() % 100 < percent as u64
    }
}

/// What becomes of one exchange, drawn when its query arrives.
#[derive(Clone, Copy)]
struct Fate {
    loses_query: bool,
    loses_answer: bool,
    comes_twice: bool,
    is_overtaken: bool,
    is_cut: bool,
}

impl Fate {
    const fn draw(chance: &mut Chance, faults: &Faults) -> Self {
        let is_lost = chance.happens(faults.loss);
        let is_query = chance.happens(50);
        Self {
            loses_query: is_lost && is_query,
            loses_answer: is_lost && !is_query,
            comes_twice: chance.happens(faults.duplicate),
            is_overtaken: chance.happens(faults.reorder),
            is_cut: chance.happens(faults.cut),
        }
    }
}

/// A query on its way, under an ID of ours.
#[derive(Clone, Copy)]
struct Exchange {
    client: SocketAddr,
    id: [u8; 2],
    fate: Fate,
}

/// An answer on its way: when it is due, its number, for whom.
type Delayed = Reverse<(Instant, u64, SocketAddr, Vec<u8>)>;

/// The datagrams' part: one thread per direction, and one for answers that are late.
struct Datagrams {
    clients: UdpSocket,
    server: UdpSocket,
    faults: Faults,
    exchanges: Mutex<Vec<Option<Exchange>>>,
    delayed: Mutex<BinaryHeap<Delayed>>,
    is_due: Condvar,
}

impl Datagrams {
    fn open(clients: UdpSocket, faults: Faults) -> io::Result<Arc<Self>> {
        let any = if faults.to.is_ipv4() {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        } else {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        };
        let server = UdpSocket::bind(any)?;
        server.connect(faults.to)?;
        Ok(Arc::new(Self {
            clients,
            server,
            faults,
            exchanges: Mutex::new(vec![None; 1 << 16]),
            delayed: Mutex::default(),
            is_due: Condvar::new(),
        }))
    }

    fn serve(self: Arc<Self>) -> ! {
        let answers = Arc::clone(&self);
        thread::spawn(move || answers.carry_answers());
        let late = Arc::clone(&self);
        thread::spawn(move || late.deliver_late());
        self.carry_queries()
    }

    fn carry_queries(&self) -> ! {
        let mut chance = Chance(self.faults.seed);
        let mut bytes = [0; 4096];
        let mut number = 0u16;
        loop {
            let Ok((len, client)) = self.clients.recv_from(&mut bytes) else { continue };
            let Some(&[high, low]) = bytes[..len].first_chunk() else { continue };
            let fate = Fate::draw(&mut chance, &self.faults);
            if fate.loses_query {
                continue;
            }
            number = number.wrapping_add(1);
            let exchange = Exchange { client, id: [high, low], fate };
            locked(&self.exchanges)[usize::from(number)] = Some(exchange);
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            // What cannot be sent is lost: this is what the proxy is for.
            let _ = self.server.send(&bytes[..len]);
        }
    }

    fn carry_answers(&self) -> ! {
        let mut bytes = [0; 4096];
        let mut number = 0;
        loop {
            let Ok(len) = self.server.recv(&mut bytes) else { continue };
            let Some(&[high, low, _flags]) = bytes[..len].first_chunk() else { continue };
            let place = usize::from(u16::from_be_bytes([high, low]));
            let Some(exchange) = locked(&self.exchanges)[place].take() else { continue };
            if exchange.fate.loses_answer {
                continue;
            }
            bytes[..2].copy_from_slice(&exchange.id);
            if exchange.fate.is_cut {
                bytes[2] |= TC;
            }
            let mut delay = Duration::from_millis(u64::from(self.faults.delay));
            if exchange.fate.is_overtaken {
                delay += REORDER;
            }
            for _ in 0..=u8::from(exchange.fate.comes_twice) {
                number += 1;
                self.send_after(delay, number, exchange.client, &bytes[..len]);
            }
        }
    }

    fn send_after(&self, delay: Duration, number: u64, client: SocketAddr, answer: &[u8]) {
        if delay.is_zero() {
            let _ = self.clients.send_to(answer, client);
            return;
        }
        let mut delayed = locked(&self.delayed);
        if delayed.len() < DELAYED_MAX {
            delayed.push(Reverse((Instant::now() + delay, number, client, answer.to_vec())));
            self.is_due.notify_one();
        }
    }

    fn deliver_late(&self) -> ! {
        let mut delayed = locked(&self.delayed);
        loop {
            let due = delayed.peek().map(|Reverse((due, ..))| *due);
            let now = Instant::now();
            delayed = match due {
                None => self.is_due.wait(delayed).unwrap_or_else(PoisonError::into_inner),
                Some(due) if due > now => {
                    let waited = self.is_due.wait_timeout(delayed, due - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    if let Some(Reverse((_, _, client, answer))) = delayed.pop() {
                        let _ = self.clients.send_to(&answer, client);
                    }
                    delayed
                }
            };
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The streams' part: three threads per connection.
fn serve_streams(listener: &TcpListener, faults: Faults) {
    let open = Arc::new(AtomicUsize::new(0));
    // Its own sequence: how many datagrams came before must not matter.
    let chance = Arc::new(Mutex::new(Chance(!faults.seed)));
    let all_mute = faults.mute_after.map(|s| Instant::now() + Duration::from_secs(u64::from(s)));
    for client in listener.incoming().flatten() {
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (open, chance) = (Arc::clone(&open), Arc::clone(&chance));
        let mute = Mute(all_mute.filter(|&from| Instant::now() < from));
        let started = spawn_small({
            let open = Arc::clone(&open);
            move || {
                // A broken connection is the end of it, for whatever reason.
                let _ = carry_stream(client, &chance, faults, mute);
                open.fetch_sub(1, Ordering::Relaxed);
            }
        });
        if started.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// From when on nothing is carried on a connection any more, if ever.
#[derive(Clone, Copy)]
struct Mute(Option<Instant>);

impl Mute {
    fn has_begun(self) -> bool {
        self.0.is_some_and(|from| from <= Instant::now())
    }
}

fn spawn_small(body: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().stack_size(STACK_BYTES).spawn(body)
}

/// Carries one connection until either side ends it, or chance resets it.
fn carry_stream(
    client: TcpStream,
    chance: &Mutex<Chance>,
    faults: Faults,
    mute: Mute,
) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&faults.to, CONNECT)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (queue, pieces) = mpsc::sync_channel(PIECES_MAX);
    let delay = Duration::from_millis(u64::from(faults.delay) + u64::from(faults.delay_tcp));
    let (answers, replies) = (server.try_clone()?, client.try_clone()?);
    let reader = spawn_small(move || read_answers(answers, &queue, delay))?;
    let is_reset = Arc::new(AtomicBool::new(false));
    let writer = spawn_small({
        let is_reset = Arc::clone(&is_reset);
        move || {
            write_answers(&replies, &pieces, mute);
            if !is_reset.load(Ordering::Acquire) {
                let _ = replies.shutdown(Shutdown::Both);
            }
        }
    })?;
    let must_reset = carry_messages(&client, &server, chance, faults, mute).unwrap_or(false);
    is_reset.store(must_reset, Ordering::Release);
    // The threads end with the server's side, and with them their descriptors of the client's: the one that closes last,
    // with a query unread, makes the kernel send RST, not FIN.
    let _ = server.shutdown(Shutdown::Both);
    let _ = reader.join();
    let _ = writer.join();
    Ok(())
}

/// Carries queries, two octets of length and a message each; whether one was left unread to reset the connection.
fn carry_messages(
    mut client: &TcpStream,
    mut server: &TcpStream,
    chance: &Mutex<Chance>,
    faults: Faults,
    mute: Mute,
) -> io::Result<bool> {
    let is_doomed = locked(chance).happens(faults.reset);
    let mut message = Vec::new();
    loop {
        if client.peek(&mut [0; 1])? == 0 {
            return Ok(false);
        }
        if is_doomed || locked(chance).happens(faults.reset_queries) {
            return Ok(true);
        }
        let mut length = [0; 2];
        client.read_exact(&mut length)?;
        message.clear();
        message.extend(length);
        message.resize(2 + usize::from(u16::from_be_bytes(length)), 0);
        client.read_exact(&mut message[2..])?;
        if !mute.has_begun() {
            server.write_all(&message)?;
        }
    }
}

fn read_answers(mut server: TcpStream, queue: &SyncSender<(Instant, Vec<u8>)>, delay: Duration) {
    let mut bytes = [0; PIECE_BYTES];
    while let Ok(len @ 1..) = server.read(&mut bytes) {
        if queue.send((Instant::now() + delay, bytes[..len].to_vec())).is_err() {
            break;
        }
    }
}

fn write_answers(mut client: &TcpStream, pieces: &Receiver<(Instant, Vec<u8>)>, mute: Mute) {
    for (due, piece) in pieces {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if !mute.has_begun() && client.write_all(&piece).is_err() {
            break;
        }
    }
}
