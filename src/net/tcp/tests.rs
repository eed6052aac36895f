//! Real sockets against a responder that answers at once, later, out of order or never.
#![expect(
    clippy::disallowed_types,
    reason = "the clients of these tests are ordinary blocking ones"
)]

mod crowd;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::*;
use crate::net::{Path, SocketId, TcpPath};
use crate::sys::listen::tcp_listener;

/// How long a test waits for what must happen; passing tests never come near.
const PATIENCE: Duration = Duration::from_secs(20);

/// The third byte of a query: how the fake answers it. The next two are a number for it.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Mode {
    /// The query itself, at once.
    Echo,
    /// Nothing until a `Release`; then the query itself.
    Hold,
    /// Like `Hold`, with as many bytes as the number says.
    HoldBig,
    /// Answers all that is held, last first, then itself.
    Release,
    /// Replies through the path, but before `request` returns.
    Inline,
    /// After a timer of as many milliseconds as the number says.
    Late,
    Forget,
    Never,
    /// As many bytes as the number says, at once.
    Big,
}

#[derive(Default)]
struct Fake {
    held: RefCell<Vec<(Vec<u8>, TcpPath)>>,
    batches: Cell<usize>,
}

impl Fake {
    fn release(&self) {
        for (reply, path) in self.held.take().into_iter().rev() {
            send(&path, &reply);
        }
    }
}

fn send(path: &TcpPath, reply: &[u8]) {
    if let Some(connection) = path.connection.upgrade() {
        connection.reply(reply);
    }
}

impl Respond for Fake {
    fn foresee<'d>(&self, _requests: impl Iterator<Item = &'d [u8]>) {}

    fn begin(&self) {
        self.batches.set(self.batches.get() + 1);
    }

    fn request(&self, request: &[u8], path: &Path, reply: &mut [u8]) -> usize {
        assert!(self.batches.get() > 0, "a batch begins before its first query");
        let Path::Tcp(path) = path else { panic!("queries come over TCP") };
        let number = usize::from(u16::from_be_bytes([request[3], request[4]]));
        let echo = request.to_vec();
        let mut big = echo.clone();
        big.resize(number.max(12), 0);
        let answer = |reply: &mut [u8], bytes: &[u8]| {
            reply[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        };
        match request[2] {
            mode if mode == Mode::Hold as u8 => {
                self.held.borrow_mut().push((echo, path.clone()));
                0
            }
            mode if mode == Mode::HoldBig as u8 => {
                self.held.borrow_mut().push((big, path.clone()));
                0
            }
            mode if mode == Mode::Release as u8 => {
                self.release();
                answer(reply, &echo)
            }
            mode if mode == Mode::Inline as u8 => {
                send(path, &echo);
                0
            }
            mode if mode == Mode::Late as u8 => {
                let path = path.clone();
                glommio::spawn_local(async move {
                    Timer::new(Duration::from_millis(number as u64)).await;
                    send(&path, &echo);
                })
                .detach();
                0
            }
            mode if mode == Mode::Forget as u8 => {
                path.connection.upgrade().expect("the asker is alive").forget();
                0
            }
            mode if mode == Mode::Never as u8 => 0,
            mode if mode == Mode::Big as u8 => answer(reply, &big),
            _ => answer(reply, &echo),
        }
    }

    fn response(&self, _: SocketId, _: SocketAddr, _: &[u8]) {
        unreachable!("TCP tests have no upstream");
    }
}

const CLOSE: u8 = 1;
const RELEASE: u8 = 2;
const STOP: u8 = 4;

/// A core with TCP listeners on a thread of its own.
struct Server {
    addrs: Vec<SocketAddr>,
    counters: Arc<Counters>,
    orders: Arc<AtomicU8>,
    drained: mpsc::Receiver<()>,
    core: Option<ExecutorJoinHandle<()>>,
}

impl Server {
    fn start(config: config::Tcp) -> Self {
        Self::start_on(config, &["127.0.0.1:0"])
    }

    fn start_on(config: config::Tcp, locals: &[&str]) -> Self {
        Self::start_with(
            config,
            locals.iter().map(|local| tcp_listener(local.parse().unwrap(), 64).unwrap()).collect(),
        )
    }

    fn start_with(config: config::Tcp, sockets: Vec<OwnedFd>) -> Self {
        Self::start_within(config, 64 << 20, sockets)
    }

    fn start_within(config: config::Tcp, bytes_max: usize, sockets: Vec<OwnedFd>) -> Self {
        let counters = Arc::new(Counters::default());
        let orders = Arc::new(AtomicU8::new(0));
        let (addr_sender, addrs) = mpsc::channel();
        let (drained_sender, drained) = mpsc::channel();
        let (their_counters, their_orders) = (Arc::clone(&counters), Arc::clone(&orders));
        let core = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(64 << 10)
            .spawn(move || async move {
                let tcp = Tcp::new(&config, bytes_max, their_counters);
                let fake = Rc::new(Fake::default());
                for socket in sockets {
                    let listener = tcp.listen(socket, 0);
                    addr_sender.send(listener.local_addr().unwrap()).unwrap();
                    glommio::spawn_local(listener.serve(Rc::clone(&fake))).detach();
                }
                drop(addr_sender);
                obey(&their_orders, &tcp, &fake, &drained_sender).await;
            })
            .unwrap();
        Self { addrs: addrs.iter().collect(), counters, orders, drained, core: Some(core) }
    }

    fn order(&self, order: u8) {
        self.orders.fetch_or(order, Ordering::SeqCst);
    }

    fn client(&self) -> Client {
        Client::connect(self.addrs[0])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.order(STOP);
        let ended = self.core.take().expect("a server is dropped once").join();
        assert!(ended.is_ok() || thread::panicking(), "the core ended well");
    }
}

async fn obey(orders: &AtomicU8, tcp: &Tcp, fake: &Fake, drained: &mpsc::Sender<()>) {
    loop {
        Timer::new(Duration::from_millis(2)).await;
        let order = orders.swap(0, Ordering::SeqCst);
        if order & RELEASE != 0 {
            fake.release();
        }
        if order & CLOSE != 0 {
            tcp.close();
            let (tcp, drained) = (tcp.clone(), drained.clone());
            glommio::spawn_local(async move {
                tcp.drained().await;
                let _ = drained.send(());
            })
            .detach();
        }
        if order & STOP != 0 {
            return;
        }
    }
}

struct Client(TcpStream);

impl Client {
    fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn ask(&mut self, id: u16, mode: Mode) {
        self.send(&query(id, mode, 0));
    }

    /// The next reply, without its prefix.
    fn reply(&mut self) -> Vec<u8> {
        let mut prefix = [0; 2];
        self.0.read_exact(&mut prefix).unwrap();
        let mut message = vec![0; usize::from(u16::from_be_bytes(prefix))];
        self.0.read_exact(&mut message).unwrap();
        message
    }

    fn reply_id(&mut self) -> u16 {
        let message = self.reply();
        u16::from_be_bytes([message[0], message[1]])
    }

    fn reply_ids(&mut self, count: usize) -> Vec<u16> {
        (0..count).map(|_| self.reply_id()).collect()
    }

    fn assert_served(&mut self, id: u16) {
        self.ask(id, Mode::Echo);
        assert_eq!(self.reply_id(), id);
    }

    fn assert_closed(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => assert!(rest.is_empty(), "the server has nothing more to say"),
        }
    }

    /// Reads on until the server resets the connection; returns the bytes that came before.
    fn read_until_reset(&mut self) -> usize {
        let mut rest = Vec::new();
        let error = self.0.read_to_end(&mut rest).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        rest.len()
    }
}

fn query_of(id: u16, mode: Mode, number: u16, len: usize) -> Vec<u8> {
    let mut framed = u16::try_from(len).unwrap().to_be_bytes().to_vec();
    framed.extend(id.to_be_bytes());
    framed.push(mode as u8);
    framed.extend(number.to_be_bytes());
    framed.resize(2 + len, 7);
    framed
}

fn query(id: u16, mode: Mode, number: u16) -> Vec<u8> {
    query_of(id, mode, number, 17)
}

fn config() -> config::Tcp {
    let patient = config::Tcp::default();
    config::Tcp {
        idle_timeout: PATIENCE,
        write_timeout: PATIENCE,
        answer_timeout: 3 * PATIENCE,
        ..patient
    }
}

fn quick(idle_timeout_ms: u64) -> config::Tcp {
    config::Tcp { idle_timeout: Duration::from_millis(idle_timeout_ms), ..config() }
}

/// Waits until `claim` holds.
fn eventually(what: &str, claim: impl Fn() -> bool) {
    const STEP: Duration = Duration::from_millis(2);
    for _ in 0..PATIENCE.as_millis() / STEP.as_millis() {
        if claim() {
            return;
        }
        thread::sleep(STEP);
    }
    panic!("never came true: {what}");
}

#[test]
fn hundred_pipelined_queries_overtake_the_slow_first() {
    let server = Server::start(config::Tcp { pipeline_max: 128, ..config() });
    let mut client = server.client();
    let mut stream = query(0, Mode::Hold, 0);
    (1..99).for_each(|id| stream.extend(query(id, Mode::Echo, 0)));
    stream.extend(query(99, Mode::Release, 0));
    client.send(&stream);
    let expected: Vec<u16> = (1..99).chain([0, 99]).collect();
    assert_eq!(client.reply_ids(100), expected);
    assert_eq!(server.counters.queries.value(), 100);
    assert_eq!(server.counters.replies.value(), 100);
}

#[test]
fn late_and_immediate_answers_all_arrive() {
    let server = Server::start(config());
    let mut client = server.client();
    for id in 0..300 {
        let mode = [Mode::Late, Mode::Echo, Mode::Inline][usize::from(id % 3)];
        client.send(&query(id, mode, id % 7));
    }
    let mut ids = client.reply_ids(300);
    ids.sort_unstable();
    assert_eq!(ids, (0..300).collect::<Vec<_>>());
}

#[test]
fn full_pipeline_stops_reading_until_an_answer_comes() {
    let server = Server::start(config::Tcp { pipeline_max: 4, ..config() });
    let (mut client, mut other) = (server.client(), server.client());
    let mut stream = Vec::new();
    (0..4).for_each(|id| stream.extend(query(id, Mode::Hold, 0)));
    (4..50).for_each(|id| stream.extend(query(id, Mode::Echo, 0)));
    client.send(&stream);
    eventually("four queries are in flight", || server.counters.queries.value() == 4);
    other.assert_served(1);
    assert_eq!(server.counters.queries.value(), 5);
    other.ask(2, Mode::Release);
    let expected: Vec<u16> = [3, 2, 1, 0].into_iter().chain(4..50).collect();
    assert_eq!(client.reply_ids(50), expected);
}

#[test]
fn forgotten_queries_free_their_places() {
    let server = Server::start(config::Tcp { pipeline_max: 2, ..config() });
    let mut client = server.client();
    (0..20).for_each(|id| client.ask(id, Mode::Forget));
    client.assert_served(20);
}

#[test]
fn query_in_single_bytes_is_served() {
    let server = Server::start(config());
    let mut client = server.client();
    for id in 0..3 {
        query(id, Mode::Echo, 0).iter().for_each(|&byte| client.send(&[byte]));
        assert_eq!(client.reply(), query(id, Mode::Echo, 0)[2..]);
    }
}

#[test]
fn queries_split_anywhere_are_served() {
    let server = Server::start(config());
    let mut client = server.client();
    let stream = [query(1, Mode::Echo, 0), query(2, Mode::Echo, 0)].concat();
    for cut in 1..stream.len() {
        client.send(&stream[..cut]);
        thread::yield_now();
        client.send(&stream[cut..]);
        assert_eq!(client.reply_ids(2), [1, 2]);
    }
}

#[test]
fn largest_and_smallest_messages_are_served() {
    let server = Server::start(config());
    let mut client = server.client();
    for len in [12, 4096, 16_382, 16_383, 16_384, 65_535] {
        let framed = query_of(9, Mode::Echo, 0, len);
        client.send(&framed);
        assert!(client.reply() == framed[2..], "a query of {len} bytes comes back whole");
    }
    client.send(&query(1, Mode::Big, 65_535));
    assert_eq!(client.reply().len(), 65_535);
}

#[test]
fn message_too_short_for_a_header_ends_the_connection() {
    let server = Server::start(config());
    for length in 0..12 {
        let mut client = server.client();
        client.send(&query(1, Mode::Echo, 0));
        client.send(&[0, length]);
        client.send(&vec![0; usize::from(length)]);
        assert_eq!(client.reply_id(), 1);
        client.assert_closed();
    }
    assert_eq!(server.counters.malformed.value(), 12);
    assert_eq!(server.counters.queries.value(), 12);
}

#[test]
fn half_closed_client_gets_what_is_in_flight() {
    let server = Server::start(config::Tcp { pipeline_max: 2, ..config() });
    let mut client = server.client();
    let mut stream = query(1, Mode::Hold, 0);
    stream.extend(query(2, Mode::Late, 5));
    (3..6).for_each(|id| stream.extend(query(id, Mode::Echo, 0)));
    stream.extend(&query(6, Mode::Echo, 0)[..9]);
    client.send(&stream);
    client.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.reply_ids(4), [2, 3, 4, 5]);
    eventually("the trailing half is noticed", || server.counters.malformed.value() == 1);
    server.order(RELEASE);
    assert_eq!(client.reply_id(), 1);
    client.assert_closed();
}

#[test]
fn trailing_half_of_a_prefix_ends_quietly() {
    let server = Server::start(config());
    let mut client = server.client();
    client.send(&[0]);
    client.0.shutdown(Shutdown::Write).unwrap();
    client.assert_closed();
    assert_eq!(server.counters.malformed.value(), 1);
}

#[test]
fn idle_connection_is_closed_and_a_used_one_before_it_served() {
    let server = Server::start(quick(500));
    let (mut client, mut silent) = (server.client(), server.client());
    client.assert_served(1);
    client.assert_closed();
    silent.assert_closed();
    assert_eq!(server.counters.closed_idle.value(), 2);
    eventually("nobody is left", || server.counters.open.value() == 0);
}

#[test]
fn trickled_query_is_cut_though_bytes_keep_coming() {
    let server = Server::start(quick(500));
    let mut client = server.client();
    client.send(&[255, 255]);
    eventually("the trickle is cut", || {
        let _ = (&client.0).write(&[0]);
        server.counters.closed_idle.value() == 1
    });
    client.assert_closed();
    assert_eq!(server.counters.queries.value(), 0);
}

#[test]
fn trickle_beside_work_in_flight_is_cut_and_the_work_answered() {
    let server = Server::start(quick(500));
    let mut client = server.client();
    client.ask(1, Mode::Hold);
    client.send(&query(2, Mode::Echo, 0)[..5]);
    eventually("the trickle is cut", || server.counters.closed_idle.value() == 1);
    server.order(RELEASE);
    assert_eq!(client.reply_id(), 1);
    client.assert_closed();
}

#[test]
fn lost_query_does_not_hold_its_connection() {
    let answer_timeout = Duration::from_millis(300);
    let server = Server::start(config::Tcp { answer_timeout, ..config() });
    let mut client = server.client();
    client.ask(1, Mode::Never);
    client.assert_closed();
    assert_eq!(server.counters.closed_unanswered.value(), 1);
}

#[test]
fn slow_reader_stops_our_reading_and_is_closed() {
    const QUERIES: u16 = 500;
    let server = Server::start(config::Tcp {
        output_bytes_max: 32 << 10,
        write_timeout: Duration::from_millis(200),
        ..config()
    });
    let mut client = server.client();
    (0..QUERIES).for_each(|id| client.send(&query(id, Mode::Big, 60_000)));
    eventually("the slow reader is closed", || server.counters.closed_slow.value() == 1);
    assert!(server.counters.queries.value() < u64::from(QUERIES) / 2);
    let taken = client.read_until_reset();
    assert!(taken < usize::from(QUERIES) / 2 * 60_002);
    server.client().assert_served(1);
}

#[test]
fn reader_that_catches_up_gets_everything() {
    let server = Server::start(config::Tcp { output_bytes_max: 32 << 10, ..config() });
    let mut client = server.client();
    (0..300).for_each(|id| client.send(&query(id, Mode::Big, 60_000)));
    for id in 0..300 {
        let reply = client.reply();
        assert_eq!((reply.len(), &reply[..2]), (60_000, &u16::to_be_bytes(id)[..]));
    }
}

#[test]
fn burst_of_late_answers_beyond_the_bound_leaves_through_the_kernel() {
    let server = Server::start(config::Tcp { output_bytes_max: 16 << 10, ..config() });
    let mut client = server.client();
    (0..3).for_each(|id| client.send(&query(id, Mode::HoldBig, 40_000)));
    client.ask(3, Mode::Release);
    assert_eq!(client.reply_ids(4), [2, 1, 0, 3]);
    assert_eq!(server.counters.closed_slow.value(), 0);
}

#[test]
fn burst_of_late_answers_nobody_reads_is_not_kept() {
    let server = Server::start(config::Tcp { output_bytes_max: 16 << 10, ..config() });
    let mut client = server.client();
    (0..60).for_each(|id| client.send(&query(id, Mode::HoldBig, 65_535)));
    eventually("all are in flight", || server.counters.queries.value() == 60);
    server.order(RELEASE);
    eventually("the client is given up", || server.counters.closed_slow.value() == 1);
    assert!(client.read_until_reset() < 60 * 65_537);
}

#[test]
fn full_listener_refuses_when_nobody_is_idle() {
    let server = Server::start(config::Tcp { connections_max: 2, ..config() });
    let (mut one, mut two) = (server.client(), server.client());
    one.ask(1, Mode::Hold);
    two.ask(2, Mode::Hold);
    eventually("both are busy", || server.counters.queries.value() == 2);
    server.client().assert_closed();
    assert_eq!(server.counters.refused_full.value(), 1);
    server.order(RELEASE);
    assert_eq!((one.reply_id(), two.reply_id()), (1, 2));
}

#[test]
fn full_listener_closes_the_longest_idle_for_a_newcomer() {
    let server = Server::start(config::Tcp { connections_max: 2, ..config() });
    let mut one = server.client();
    one.assert_served(1);
    let mut two = server.client();
    two.assert_served(2);
    one.assert_served(3);
    let mut three = server.client();
    three.assert_served(4);
    two.assert_closed();
    one.assert_served(5);
    assert_eq!(server.counters.evicted_idle.value(), 1);
    assert_eq!(server.counters.refused_full.value(), 0);
}

#[test]
fn half_a_query_does_not_protect_from_eviction() {
    let server = Server::start(config::Tcp { connections_max: 1, ..config() });
    let mut trickler = server.client();
    trickler.send(&[0, 99, 1]);
    eventually("it is in", || server.counters.open.value() == 1);
    server.client().assert_served(1);
    trickler.assert_closed();
}

#[test]
fn client_beyond_its_share_is_refused_over_all_listeners() {
    let server = Server::start_on(
        config::Tcp { connections_per_client_max: 2, ..config() },
        &["127.0.0.1:0", "127.0.0.1:0"],
    );
    let mut one = Client::connect(server.addrs[0]);
    let mut two = Client::connect(server.addrs[1]);
    one.assert_served(1);
    two.assert_served(2);
    Client::connect(server.addrs[0]).assert_closed();
    Client::connect(server.addrs[1]).assert_closed();
    assert_eq!(server.counters.refused_client.value(), 2);
    drop(two);
    eventually("its seat is free", || server.counters.open.value() == 1);
    Client::connect(server.addrs[1]).assert_served(3);
}

#[test]
fn reset_in_the_middle_frees_everything_and_late_replies_are_dropped() {
    let server = Server::start(config());
    let mut client = server.client();
    client.ask(1, Mode::Hold);
    client.ask(2, Mode::Echo);
    let mut prefix = [0; 2];
    client.0.read_exact(&mut prefix).unwrap();
    drop(client); // bytes unread: the kernel sends RST
    eventually("the connection is gone", || server.counters.open.value() == 0);
    let mut other = server.client();
    other.ask(3, Mode::Release);
    assert_eq!(other.reply_id(), 3);
    assert_eq!(server.counters.replies.value(), 2);
}

#[test]
fn drain_closes_the_idle_and_answers_the_rest() {
    let server = Server::start(config());
    let (mut idle, mut busy) = (server.client(), server.client());
    idle.assert_served(1);
    busy.ask(2, Mode::Hold);
    eventually("it is in flight", || server.counters.queries.value() == 2);
    server.order(CLOSE);
    idle.assert_closed();
    assert!(server.drained.try_recv().is_err(), "one is still in flight");
    server.order(RELEASE);
    assert_eq!(busy.reply_id(), 2);
    busy.assert_closed();
    drop(busy);
    server.drained.recv_timeout(PATIENCE).unwrap();
    eventually("newcomers are not let in", || TcpStream::connect(server.addrs[0]).is_err());
    assert_eq!(server.counters.accepted.value(), 2);
}

#[test]
fn drain_of_an_unused_core_ends_at_once() {
    let server = Server::start(config());
    server.order(CLOSE);
    server.drained.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn failing_accept_is_counted_and_ends_only_with_the_drain() {
    let unbound = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = Server::start_with(config(), vec![unbound.into()]);
    eventually("accept fails again and again", || server.counters.accept_errors.value() >= 3);
    server.order(CLOSE);
    server.drained.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn want_of_descriptors_evicts_the_idle_and_pauses() {
    let core = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10).spawn(|| async {
        let tcp = Tcp::new(&config(), 1 << 20, Arc::default());
        let listener = tcp.listen(tcp_listener("127.0.0.1:0".parse().unwrap(), 4).unwrap(), 0);
        let _client = Client::connect(listener.local_addr().unwrap());
        let stream = listener.socket.accept().await.unwrap();
        listener.welcome(stream, &Rc::new(Fake::default())).await;

        let mut pause = ACCEPT_PAUSE_MIN;
        let error = io::Error::from(ErrorKind::ConnectionAborted);
        listener.wait_out(&GlommioError::IoError(error), &mut pause).await;
        assert_eq!((pause, tcp.core.counters.evicted_idle.value()), (ACCEPT_PAUSE_MIN, 0));

        const EMFILE: i32 = 24;
        let error = io::Error::from_raw_os_error(EMFILE);
        listener.wait_out(&GlommioError::IoError(error), &mut pause).await;
        assert_eq!((pause, tcp.core.counters.evicted_idle.value()), (ACCEPT_PAUSE_MIN * 2, 1));
        assert_eq!(tcp.core.counters.accept_errors.value(), 2);
        tcp.drained().await;
    });
    core.unwrap().join().unwrap();
}
