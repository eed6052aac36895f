//! Both backends over real sockets on loopback, inside an executor.

use std::net::SocketAddr;
use std::time::Duration;

use glommio::net::UdpSocket;
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement};

use super::*;
use crate::sys::cmsg::Attached;

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(5);
/// Long enough for an idle plane to fall asleep, or for something unwanted to arrive.
const LULL: Duration = Duration::from_millis(30);

/// Echoes queries, keeps those that begin with `late`, and notes answers of upstreams.
#[derive(Default)]
struct Echo {
    plane: RefCell<Option<Rc<Plane>>>,
    kept: RefCell<Vec<UdpPath>>,
    responses: RefCell<Vec<(SocketId, SocketAddr, Vec<u8>)>>,
    batches: Cell<u64>,
}

impl Respond for Echo {
    fn foresee<'d>(&self, _requests: impl Iterator<Item = &'d [u8]>) {}

    fn begin(&self) {
        self.batches.set(self.batches.get() + 1);
    }

    fn request(&self, request: &[u8], path: &Path, reply: &mut [u8]) -> usize {
        let Path::Udp(path) = path else { panic!("no streams here") };
        if request.starts_with(b"late") {
            self.kept.borrow_mut().push(*path);
            return 0;
        }
        if request.starts_with(b"twice") {
            self.plane.borrow().as_ref().unwrap().send(path, request);
        }
        reply[..request.len()].copy_from_slice(request);
        request.len()
    }

    fn response(&self, socket: SocketId, from: SocketAddr, datagram: &[u8]) {
        self.responses.borrow_mut().push((socket, from, datagram.to_vec()));
    }
}

impl Plane {
    /// Where an open upstream-facing socket is bound.
    fn socket_address(&self, socket: SocketId) -> SocketAddr {
        let sockets = self.sockets.borrow();
        sockopt::local_address(sockets.fd(sockets.index_of(socket)).unwrap()).unwrap()
    }
}

/// What a test of a plane wants.
struct Wishes {
    listen: Vec<SocketAddr>,
    udp: config::Udp,
    ring: Option<RingSize>,
    upstream_sockets_max: u16,
    spin: Duration,
}

impl Default for Wishes {
    fn default() -> Self {
        let udp = config::Udp { receive_buffers: 64, send_buffers: 64, ..Default::default() };
        let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        Self { listen, udp, ring: None, upstream_sockets_max: 4, spin: Duration::ZERO }
    }
}

/// Runs `body` beside a serving plane, once per backend, and ends the plane afterwards.
fn each_backend(wishes: &Wishes, body: impl AsyncFn(Rc<Plane>, Rc<Echo>)) {
    for io in [IoBackend::Uring, IoBackend::Mmsg] {
        one_backend(io, wishes, &body);
    }
}

fn one_backend(io: IoBackend, wishes: &Wishes, body: &impl AsyncFn(Rc<Plane>, Rc<Echo>)) {
    // Little locked memory: tests run side by side, and a fresh machine allows a user 8 MiB in all.
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10).ring_depth(16);
    builder.make().unwrap().run(async {
        let setup = Setup {
            udp: &wishes.udp,
            io,
            listen: &wishes.listen,
            upstream_sockets_max: wishes.upstream_sockets_max,
            spin_before_sleep: wishes.spin,
            ring: wishes.ring.unwrap_or(RingSize { submissions: 64, completions: 256 }),
        };
        let plane = Plane::open(&setup).unwrap();
        let echo = Rc::new(Echo::default());
        *echo.plane.borrow_mut() = Some(Rc::clone(&plane));
        // Within the executor's one task a future beside `body`: spawning wants 'static.
        let running = glommio::spawn_local(Rc::clone(&plane).run(Rc::clone(&echo))).detach();
        body(Rc::clone(&plane), echo).await;
        plane.close();
        let ended = patiently(running).await;
        ended.expect("the task was not cancelled").expect("the ring held");
    });
}

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    let limit = async {
        sleep(PATIENCE).await;
        panic!("it did not happen in time");
    };
    futures_lite::future::or(future, limit).await
}

async fn until(mut condition: impl FnMut() -> bool) {
    patiently(async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

fn client(address: &str) -> UdpSocket {
    UdpSocket::bind(address).unwrap()
}

async fn receive(client: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = [0; 4096];
    let (len, from) = patiently(client.recv_from(&mut bytes)).await.unwrap();
    (bytes[..len].to_vec(), from)
}

async fn ask(client: &UdpSocket, server: SocketAddr, query: &[u8]) -> (Vec<u8>, SocketAddr) {
    client.send_to(query, server).await.unwrap();
    receive(client).await
}

/// Sends numbered queries to `to` as `from`, without letting the plane run in between.
///
/// A first poll sends: the loopback device takes a datagram at once.
async fn burst(from: &UdpSocket, to: SocketAddr, count: u32) {
    for number in 0..count {
        let bytes = number.to_be_bytes();
        let sending = std::pin::pin!(from.send_to(&bytes, to));
        let sent = futures_lite::future::poll_once(sending).await;
        assert_eq!(sent.expect("sent at once").unwrap(), bytes.len());
    }
}

#[test]
fn queries_are_echoed_over_both_families() {
    let listen = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    each_backend(&Wishes { listen, ..Wishes::default() }, async |plane, echo| {
        for (server, own) in plane.addresses().iter().zip(["127.0.0.1:0", "[::1]:0"]) {
            let (reply, from) = ask(&client(own), *server, b"query").await;
            assert_eq!((reply.as_slice(), from), (b"query".as_slice(), *server));
        }
        let counts = plane.counts().snapshot();
        assert_eq!((counts.datagrams_received, counts.send_errors()), (2, 0));
        assert!(echo.batches.get() >= 1);
        until(|| plane.counts().snapshot().datagrams_sent == 2).await;
    });
}

#[test]
fn a_wildcard_listener_answers_from_the_address_that_was_asked() {
    let listen = vec!["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
    each_backend(&Wishes { listen, ..Wishes::default() }, async |plane, echo| {
        let [v4, v6] = plane.addresses() else { panic!("two listeners") };
        let asked = SocketAddr::from(([127, 0, 0, 2], v4.port()));
        assert_eq!(ask(&client("127.0.0.1:0"), asked, b"query").await.1, asked);
        let asked: SocketAddr = format!("[::1]:{}", v6.port()).parse().unwrap();
        assert_eq!(ask(&client("[::1]:0"), asked, b"query").await.1, asked);

        let late = client("127.0.0.1:0");
        let asked = SocketAddr::from(([127, 0, 0, 3], v4.port()));
        late.send_to(b"late", asked).await.unwrap();
        until(|| !echo.kept.borrow().is_empty()).await;
        let path = echo.kept.borrow()[0];
        plane.send(&path, b"answer");
        assert_eq!(receive(&late).await, (b"answer".to_vec(), asked));
    });
}

#[test]
fn a_burst_beyond_the_receive_buffers_is_answered_in_full() {
    let udp = config::Udp { receive_buffers: 8, send_buffers: 4, ..Default::default() };
    let wishes = Wishes { udp, ..Wishes::default() };
    each_backend(&wishes, async |plane, _| {
        let client = client("127.0.0.1:0");
        burst(&client, plane.addresses()[0], 150).await;
        for number in 0..150u32 {
            assert_eq!(receive(&client).await.0, number.to_be_bytes());
        }
        let counts = plane.counts().snapshot();
        assert_eq!((counts.datagrams_received, counts.no_send_slot), (150, 0));
        if matches!(plane.io, Io::Uring(_)) {
            assert!(counts.buffer_starvation > 0 && counts.rearmed >= counts.buffer_starvation);
        }
    });
}

#[test]
fn a_ring_too_small_for_the_traffic_loses_nothing() {
    let ring = Some(RingSize { submissions: 2, completions: 2 });
    each_backend(&Wishes { ring, ..Wishes::default() }, async |plane, echo| {
        let client = client("127.0.0.1:0");
        burst(&client, plane.addresses()[0], 100).await;
        for number in 0..100u32 {
            assert_eq!(receive(&client).await.0, number.to_be_bytes());
        }
        if matches!(plane.io, Io::Uring(_)) {
            assert!(plane.counts().snapshot().completion_overflows > 0);
        }
        client.send_to(b"late", plane.addresses()[0]).await.unwrap();
        until(|| !echo.kept.borrow().is_empty()).await;
        let path = echo.kept.borrow()[0];
        for number in 0..100u32 {
            plane.send(&path, &number.to_be_bytes());
        }
        for number in 0..100u32 {
            assert_eq!(receive(&client).await.0, number.to_be_bytes());
        }
        assert_eq!(plane.counts().snapshot().no_send_slot, 0);
    });
}

#[test]
fn a_reply_without_a_free_send_buffer_is_dropped_and_counted() {
    let udp = config::Udp { send_buffers: 1, ..Wishes::default().udp };
    each_backend(&Wishes { udp, ..Wishes::default() }, async |plane, _| {
        let client = client("127.0.0.1:0");
        // The reply's buffer is the only one while the responder tries to send another.
        ask(&client, plane.addresses()[0], b"twice").await;
        assert_eq!(plane.counts().snapshot().no_send_slot, 1);
        assert_eq!(ask(&client, plane.addresses()[0], b"once").await.0, b"once");
    });
}

#[test]
fn a_late_reply_leaves_while_the_plane_sleeps() {
    each_backend(&Wishes::default(), async |plane, echo| {
        let client = client("127.0.0.1:0");
        client.send_to(b"late", plane.addresses()[0]).await.unwrap();
        until(|| !echo.kept.borrow().is_empty() && !plane.is_awake.get()).await;
        let path = echo.kept.borrow()[0];
        for _ in 0..5 {
            sleep(LULL).await;
            plane.send(&path, b"answer");
            assert_eq!(receive(&client).await.0, b"answer");
        }
    });
}

#[test]
fn a_sleeping_plane_wakes_for_every_query() {
    each_backend(&Wishes::default(), async |plane, _| {
        let client = client("127.0.0.1:0");
        for number in 0..200u32 {
            let query = number.to_be_bytes();
            assert_eq!(ask(&client, plane.addresses()[0], &query).await.0, query);
        }
        assert!(plane.counts().snapshot().wakeups > 0);
    });
}

#[test]
fn a_spinning_plane_answers_and_then_sleeps() {
    let spin = Duration::from_millis(2);
    each_backend(&Wishes { spin, ..Wishes::default() }, async |plane, _| {
        let client = client("127.0.0.1:0");
        for _ in 0..20 {
            ask(&client, plane.addresses()[0], b"query").await;
        }
        until(|| !plane.is_awake.get()).await;
        ask(&client, plane.addresses()[0], b"query").await;
    });
}

#[test]
fn datagrams_that_nobody_can_use_are_counted_and_forgotten() {
    each_backend(&Wishes::default(), async |plane, echo| {
        let client = client("127.0.0.1:0");
        let server = plane.addresses()[0];
        client.send_to(&[7; 3000], server).await.unwrap();
        client.send_to(&[], server).await.unwrap();
        assert_eq!(ask(&client, server, b"query").await.0, b"query");
        let forged = Datagram {
            from: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            attached: Attached::default(),
            payload: b"query",
            is_truncated: false,
        };
        plane.deliver(&*echo, 0, &forged);
        let counts = plane.counts().snapshot();
        assert_eq!((counts.receive_truncated, counts.source_port_zero), (1, 1));
        assert_eq!(counts.datagrams_received, 3);
        until(|| plane.counts().snapshot().datagrams_sent == 1).await;
    });
}

#[test]
fn what_the_kernel_drops_is_counted() {
    let udp = config::Udp { socket_buffer_bytes: 1, ..Wishes::default().udp };
    each_backend(&Wishes { udp, ..Wishes::default() }, async |plane, _| {
        let client = client("127.0.0.1:0");
        let server = plane.addresses()[0];
        until(|| !plane.is_awake.get()).await;
        burst(&client, server, 50).await;
        let first = receive(&client).await.0;
        assert_eq!(first, 0u32.to_be_bytes());
        // The count travels with the next datagram that finds room.
        until(|| !plane.is_awake.get()).await;
        client.send_to(b"last", server).await.unwrap();
        while receive(&client).await.0 != b"last" {}
        let counts = plane.counts().snapshot();
        // A ring whose receives are not deferred takes datagrams in while the client still sends.
        if plane.fallbacks().is_empty() {
            assert!(counts.kernel_drops > 0);
        }
        assert_eq!(counts.kernel_drops + counts.datagrams_received, 51);
    });
}

#[test]
fn upstream_sockets_carry_queries_out_and_answers_in() {
    let listen = vec![];
    each_backend(&Wishes { listen, ..Wishes::default() }, async |plane, echo| {
        let server = client("127.0.0.1:0");
        let sockets: Vec<_> =
            (0..4).map(|_| plane.open_socket("127.0.0.1:0".parse().unwrap()).unwrap()).collect();
        let beyond = plane.open_socket("127.0.0.1:0".parse().unwrap()).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::QuotaExceeded);
        for socket in &sockets {
            plane.send_from(*socket, server.local_addr().unwrap(), b"question").unwrap();
            let (question, from) = receive(&server).await;
            assert_eq!(question, b"question");
            assert_eq!(from, plane.socket_address(*socket));
            server.send_to(b"answer", from).await.unwrap();
            until(|| !echo.responses.borrow().is_empty()).await;
            let response = echo.responses.borrow_mut().pop().unwrap();
            assert_eq!(response, (*socket, server.local_addr().unwrap(), b"answer".to_vec()));
        }
    });
}

#[test]
fn an_upstream_socket_is_alone_on_its_port() {
    each_backend(&Wishes::default(), async |plane, _| {
        let first = plane.open_socket("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = plane.socket_address(first);
        let error = plane.open_socket(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    });
}

#[test]
fn a_closed_socket_delivers_nothing_and_its_id_waits_for_the_kernel() {
    let wishes = Wishes { upstream_sockets_max: 1, ..Wishes::default() };
    each_backend(&wishes, async |plane, echo| {
        let server = client("127.0.0.1:0");
        let bind = "127.0.0.1:0".parse().unwrap();
        for round in 0..20u32 {
            until(|| plane.sockets.borrow().vacancy().is_some()).await;
            let socket = plane.open_socket(bind).unwrap();
            let address = plane.socket_address(socket);
            if round % 2 == 0 {
                sleep(Duration::from_millis(1)).await;
            }
            plane.send_from(socket, server.local_addr().unwrap(), b"question").unwrap();
            burst(&server, address, 10).await;
            plane.close_socket(socket);
            plane.close_socket(socket);
            assert!(plane.open_socket(bind).is_err(), "its id is still named by operations");
            assert_eq!(plane.send_from(socket, address, b"too late"), Err(Full));
            assert_eq!(receive(&server).await, (b"question".to_vec(), address));
        }
        until(|| plane.sockets.borrow().vacancy().is_some()).await;
        assert!(echo.responses.borrow().is_empty());
        assert_eq!(ask(&client("127.0.0.1:0"), plane.addresses()[0], b"query").await.0, b"query");
    });
}

#[test]
fn a_flood_of_queries_does_not_keep_answers_out() {
    let udp = config::Udp { receive_buffers: 8, ..Wishes::default().udp };
    each_backend(&Wishes { udp, ..Wishes::default() }, async |plane, echo| {
        let socket = plane.open_socket("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = plane.socket_address(socket);
        sleep(LULL).await;
        let flood = client("127.0.0.1:0");
        burst(&flood, plane.addresses()[0], 200).await;
        client("127.0.0.1:0").send_to(b"answer", address).await.unwrap();
        until(|| !echo.responses.borrow().is_empty()).await;
        until(|| plane.counts().snapshot().datagrams_received == 201).await;
    });
}

#[test]
fn a_send_that_the_kernel_refuses_is_counted_and_its_buffer_is_free_again() {
    let udp = config::Udp { send_buffers: 2, ..Wishes::default().udp };
    each_backend(&Wishes { udp, ..Wishes::default() }, async |plane, _| {
        let socket = plane.open_socket("0.0.0.0:0".parse().unwrap()).unwrap();
        // Broadcast needs a permission that the socket does not ask for.
        let broadcast = "255.255.255.255:9".parse().unwrap();
        for _ in 0..10 {
            plane.send_from(socket, broadcast, b"question").unwrap();
            let refusal =
                Refusal { socket, head: *b"qu", to: Some(broadcast), is_want_of_room: false };
            assert_eq!(plane.refused().await, refusal);
        }
        until(|| plane.counts().snapshot().send_not_permitted == 10).await;
        assert_eq!(plane.send_from(socket, broadcast, &[0; 5000]), Err(Full));
        until(|| plane.arena.send.free() == 2).await;
        let counts = plane.counts().snapshot();
        assert_eq!((counts.send_too_big, counts.datagrams_sent), (1, 0));
    });
}

/// An address of loopback on which nobody listens.
fn closed(is_v4: bool) -> SocketAddr {
    // The discard service: below the ports that the kernel gives out.
    if is_v4 { SocketAddr::from(([127, 0, 0, 1], 9)) } else { "[::1]:9".parse().unwrap() }
}

fn refusal_of(socket: SocketId, head: [u8; 2], to: SocketAddr) -> Refusal {
    Refusal { socket, head, to: Some(to), is_want_of_room: false }
}

/// The next refusal, with an address of IPv6 without scope and flow.
async fn refused(plane: &Plane) -> Refusal {
    let mut refusal = patiently(plane.refused()).await;
    refusal.to = refusal.to.map(|to| SocketAddr::new(to.ip(), to.port()));
    refusal
}

#[test]
fn a_closed_port_is_told_at_once_and_answers_keep_arriving() {
    each_backend(&Wishes::default(), async |plane, echo| {
        for (is_v4, any, own) in [(true, "0.0.0.0:0", "127.0.0.1:0"), (false, "[::]:0", "[::1]:0")]
        {
            let server = client(own);
            let socket = plane.open_socket(any.parse().unwrap()).unwrap();
            let port = plane.socket_address(socket).port();
            let near = SocketAddr::new(server.local_addr().unwrap().ip(), port);
            for round in 0..20u8 {
                // Sometimes while the plane sleeps, sometimes not.
                if round % 4 == 0 {
                    until(|| !plane.is_awake.get()).await;
                }
                plane.send_from(socket, closed(is_v4), &[round, 0x34, 1, 2, 3]).unwrap();
                // Sent after a report that is still on its way to us: refused for another, and sent all the same.
                plane.send_from(socket, server.local_addr().unwrap(), b"question").unwrap();
                assert_eq!(receive(&server).await, (b"question".to_vec(), near));
                server.send_to(&[round], near).await.unwrap();
                assert_eq!(refused(&plane).await, refusal_of(socket, [round, 0x34], closed(is_v4)));
                until(|| !echo.responses.borrow().is_empty()).await;
                assert_eq!(echo.responses.borrow_mut().pop().unwrap().2, [round]);
            }
        }
        let counts = plane.counts().snapshot();
        assert_eq!((counts.icmp_errors, counts.receive_errors, counts.send_errors()), (40, 0, 0));
        until(|| plane.counts().snapshot().datagrams_sent == 80).await;
        assert_eq!(ask(&client("127.0.0.1:0"), plane.addresses()[0], b"query").await.0, b"query");
    });
}

#[test]
fn a_flood_of_reports_reaches_its_senders_and_holds_up_nobody() {
    // More than one turn takes, from two sockets, with the answers of a third between them.
    const ROUNDS: u16 = 200;
    let udp = config::Udp { send_buffers: 512, ..Wishes::default().udp };
    each_backend(&Wishes { udp, ..Wishes::default() }, async |plane, echo| {
        let server = client("127.0.0.1:0");
        let open = || plane.open_socket("0.0.0.0:0".parse().unwrap()).unwrap();
        let (first, second, answered) = (open(), open(), open());
        let port = plane.socket_address(answered).port();
        for id in 0..ROUNDS {
            plane.send_from(first, closed(true), &id.to_be_bytes()).unwrap();
            plane.send_from(second, closed(true), &id.to_be_bytes()).unwrap();
            let near = SocketAddr::from(([127, 0, 0, 1], port));
            burst(&server, near, u32::from(id % 16 == 0)).await;
        }
        let mut told = Vec::new();
        for _ in 0..2 * ROUNDS {
            let refusal = refused(&plane).await;
            assert_eq!(refusal, refusal_of(refusal.socket, refusal.head, closed(true)));
            told.push((refusal.socket.0, u16::from_be_bytes(refusal.head)));
        }
        told.sort_unstable();
        let all = |socket: SocketId| (0..ROUNDS).map(move |id| (socket.0, id));
        assert_eq!(told, Vec::from_iter(all(first).chain(all(second))));
        until(|| echo.responses.borrow().len() == usize::from(ROUNDS.div_ceil(16))).await;
        assert_eq!(plane.counts().snapshot().icmp_errors, 2 * u64::from(ROUNDS));
        until(|| plane.failing.is_empty()).await;
    });
}

#[test]
fn what_anyone_may_forge_does_not_end_the_plane() {
    each_backend(&Wishes::default(), async |plane, _| {
        let socket = plane.open_socket("0.0.0.0:0".parse().unwrap()).unwrap();
        let index = plane.sockets.borrow().index_of(socket);
        // "Source route failed" becomes this error; from a listener it means that the kernel is too old.
        plane.receive_failed(index, errno::EOPNOTSUPP).unwrap();
        assert!(plane.receive_failed(0, errno::EOPNOTSUPP).is_err());
        assert!(plane.receive_failed(index, errno::EBADF).is_err());
        until(|| plane.failing.is_empty()).await;
        assert_eq!(plane.counts().snapshot().icmp_errors, 0);
    });
}

#[test]
fn reports_of_a_closed_socket_are_nobodys() {
    let wishes = Wishes { upstream_sockets_max: 1, ..Wishes::default() };
    each_backend(&wishes, async |plane, _| {
        for _ in 0..20 {
            until(|| plane.sockets.borrow().vacancy().is_some()).await;
            let socket = plane.open_socket("0.0.0.0:0".parse().unwrap()).unwrap();
            plane.send_from(socket, closed(true), b"question").unwrap();
            plane.close_socket(socket);
        }
        until(|| plane.sockets.borrow().vacancy().is_some()).await;
        let socket = plane.open_socket("0.0.0.0:0".parse().unwrap()).unwrap();
        plane.send_from(socket, closed(true), b"last").unwrap();
        assert_eq!(refused(&plane).await, refusal_of(socket, *b"la", closed(true)));
        until(|| plane.failing.is_empty()).await;
    });
}

/// A stream whose sender's buffer and receiver's window are full, sender first.
///
/// It stands in for a datagram socket with a full send buffer, which loopback never has (the device lets go of each
/// datagram before the call returns): a stream ignores the address to send to, and refuses with the same `EAGAIN`.
#[expect(clippy::disallowed_types, reason = "the test needs a socket that is full")]
async fn full_stream() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    let mut is_full = false;
    while !is_full {
        // What the kernel moved on in the lull made room again.
        sleep(LULL).await;
        is_full = true;
        while io::Write::write(&mut &near, &[0; 4096]).is_ok() {
            is_full = false;
        }
    }
    (near, far)
}

#[test]
fn a_send_that_would_block_is_counted_and_dropped_for_good() {
    let udp = config::Udp { send_buffers: 2, ..Wishes::default().udp };
    each_backend(&Wishes { udp, ..Wishes::default() }, async |plane, _| {
        let (near, far) = full_stream().await;
        let index = plane.sockets.borrow().vacancy().unwrap();
        let target = plane.io.ring().borrow_mut().attach(index, near.as_fd());
        plane.sockets.borrow_mut().insert(index, near.into(), target);
        let socket = plane.sockets.borrow().id_of(index);
        let anywhere = "192.0.2.1:53".parse().unwrap();
        for _ in 0..10 {
            plane.send_from(socket, anywhere, b"refused").unwrap();
        }
        until(|| plane.counts().snapshot().send_would_block == 10).await;
        until(|| plane.arena.send.free() == 2).await;
        assert_eq!(plane.counts().snapshot().datagrams_sent, 0);
        // Others are not held up, and later sends of the same socket go through; what was refused never comes.
        ask(&client("127.0.0.1:0"), plane.addresses()[0], b"query").await;
        let mut rest = vec![0; 1 << 16];
        let mut taken = Vec::new();
        until(|| {
            plane.send_from(socket, anywhere, b"taken").unwrap();
            while let Ok(len) = io::Read::read(&mut &far, &mut rest) {
                taken.extend(rest[..len].iter().filter(|byte| **byte != 0));
            }
            taken.ends_with(b"taken")
        })
        .await;
        assert!(taken.chunks(5).all(|piece| piece == b"taken"), "{}", taken.escape_ascii());
    });
}

#[test]
fn a_plane_that_stopped_listening_still_sends() {
    each_backend(&Wishes::default(), async |plane, echo| {
        let client = client("127.0.0.1:0");
        let server = plane.addresses()[0];
        client.send_to(b"late", server).await.unwrap();
        until(|| !echo.kept.borrow().is_empty()).await;
        plane.stop_listening();
        sleep(LULL).await;
        client.send_to(b"query", server).await.unwrap();
        sleep(LULL).await;
        let path = echo.kept.borrow()[0];
        plane.send(&path, b"answer");
        assert_eq!(receive(&client).await.0, b"answer");
        assert_eq!(plane.counts().snapshot().datagrams_received, 1);
    });
}

#[test]
fn a_plane_closed_before_it_runs_ends_at_once() {
    each_backend(&Wishes::default(), async |plane, _| plane.close());
}

#[test]
fn two_planes_share_an_address() {
    each_backend(&Wishes::default(), async |plane, _| {
        let wishes = Wishes::default();
        let node = config::Node { listen: plane.addresses().to_vec(), ..Default::default() };
        let second = Plane::open(&Setup::new(&node, &wishes.udp, 0)).unwrap();
        assert_eq!(second.addresses(), plane.addresses());
        assert!(second.fallbacks().is_empty() || !second.fallbacks()[0].to_string().is_empty());
    });
}
