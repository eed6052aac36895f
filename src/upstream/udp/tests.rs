//! The pool over sockets that exist only on paper.

use std::cell::Cell;

use futures_lite::future::{poll_once, zip};
use glommio::LocalExecutor;

use super::*;
use crate::resolve::ports::Entropy as _;

/// Sockets on paper: which are open, and what was sent.
#[derive(Debug, Default)]
struct Paper {
    open: RefCell<Vec<(SocketId, u16)>>,
    opened: Cell<u16>,
    closed: RefCell<Vec<SocketId>>,
    sent: RefCell<Vec<(SocketId, SocketAddr, Vec<u8>)>>,
    is_full: Cell<bool>,
    refusal: Cell<Option<Refusal>>,
}

impl DatagramSockets for Paper {
    fn open(&self, bind: SocketAddr) -> io::Result<SocketId> {
        if self.open.borrow().iter().any(|&(_, port)| port == bind.port()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let socket = SocketId(self.opened.get());
        self.opened.set(socket.0 + 1);
        self.open.borrow_mut().push((socket, bind.port()));
        Ok(socket)
    }

    fn close(&self, socket: SocketId) {
        self.open.borrow_mut().retain(|&(open, _)| open != socket);
        self.closed.borrow_mut().push(socket);
    }

    fn send(&self, socket: SocketId, to: SocketAddr, datagram: &[u8]) -> bool {
        self.sent.borrow_mut().push((socket, to, datagram.to_vec()));
        !self.is_full.get()
    }

    async fn refused(&self) -> Refusal {
        match self.refusal.take() {
            Some(refusal) => refusal,
            None => std::future::pending().await,
        }
    }
}

fn pool(sockets_max: usize) -> (Rc<Paper>, Pool<Paper>) {
    let sockets = Rc::new(Paper::default());
    let entropy = Rc::new(ChaCha::from_seed([3; 32]));
    let ports = Arc::new(SourcePorts::avoiding(""));
    let setting = setting(&sockets, sockets_max, ports);
    (sockets, Pool::new(setting, std::iter::once(upstream()), entropy))
}

fn setting(sockets: &Rc<Paper>, sockets_max: usize, ports: Arc<SourcePorts>) -> Setting<Paper> {
    let (sockets, clock) = (Rc::clone(sockets), MonotonicClock::start());
    Setting { sockets, sockets_max, ports, clock, counters: Arc::default() }
}

fn query(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut query = vec![high, low];
    query.extend(b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01");
    query
}

fn reply(query: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply
}

fn upstream() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 53], 53))
}

#[test]
fn only_the_asked_server_port_id_and_question_end_an_exchange() {
    LocalExecutor::default().run(async {
        let (sockets, pool) = pool(2);
        let asked = query(0x1234);
        let exchange = pool.exchange(upstream(), &asked, Casing::Drawn);
        let forge = async {
            let (socket, _, _) = sockets.sent.borrow()[0].clone();
            let good = reply(&asked);
            let other_port = SocketAddr::from(([192, 0, 2, 53], 54));
            pool.deliver(socket, SocketAddr::from(([192, 0, 2, 54], 53)), &good);
            pool.deliver(socket, other_port, &good);
            pool.deliver(SocketId(socket.0 + 1), upstream(), &good);
            pool.deliver(socket, upstream(), &reply(&query(0x1235)));
            pool.deliver(socket, upstream(), &asked);
            let mut other_name = good.clone();
            other_name[13] = b'b';
            pool.deliver(socket, upstream(), &other_name);
            pool.deliver(socket, upstream(), &good);
        };
        let (outcome, ()) = zip(exchange, forge).await;
        assert_eq!(outcome, Ok(reply(&asked)));
        let given_up = query(0x7777);
        assert!(poll_once(pool.exchange(upstream(), &given_up, Casing::Drawn)).await.is_none());
        let socket = sockets.sent.borrow()[1].0;
        pool.deliver(socket, upstream(), &reply(&given_up));
        let counters = &pool.counters;
        let seen =
            [&counters.wrong_source, &counters.wrong_id, &counters.wrong_question, &counters.late];
        assert_eq!(seen.map(crate::observe::Counter::value), [2, 2, 2, 1]);
        assert!(pool.flights.is_empty());
    });
}

#[test]
fn no_two_queries_in_flight_share_socket_and_id() {
    LocalExecutor::default().run(async {
        let (sockets, pool) = pool(4);
        let asked = query(7);
        let flights: Vec<_> =
            (0..4).filter_map(|_| pool.begin(upstream(), &asked, Casing::Drawn)).collect();
        let mut sockets_used: Vec<_> =
            flights.iter().map(|booking| booking.flight.socket().0).collect();
        sockets_used.sort_unstable();
        sockets_used.dedup();
        assert_eq!((sockets_used.len(), flights.len()), (4, 4));
        assert!(pool.begin(upstream(), &asked, Casing::Drawn).is_none(), "all four are taken");
        drop(flights);
        assert!(pool.begin(upstream(), &asked, Casing::Drawn).is_some());
        assert_eq!(sockets.open.borrow().len(), 4);
    });
}

#[test]
fn worn_socket_is_replaced_and_closed_once_nothing_is_in_flight_on_it() {
    LocalExecutor::default().run(async {
        let (sockets, pool) = pool(1);
        let last = pool.begin(upstream(), &query(0), Casing::Drawn).unwrap();
        let worn = last.flight.socket();
        for id in 1..=u16::try_from(USES_MAX).unwrap() {
            drop(pool.begin(upstream(), &query(id), Casing::Drawn));
        }
        let fresh = pool.begin(upstream(), &query(1), Casing::Drawn).unwrap();
        assert_ne!(fresh.flight.socket(), worn);
        assert!(sockets.closed.borrow().is_empty(), "a query is still in flight on it");
        drop(last);
        assert_eq!(*sockets.closed.borrow(), [worn]);
        assert_eq!(sockets.open.borrow().len(), 1);
    });
}

#[test]
fn aged_socket_is_replaced() {
    LocalExecutor::default().run(async {
        let (sockets, pool) = pool(1);
        let first = pool.begin(upstream(), &query(1), Casing::Drawn).unwrap().flight.socket();
        assert_eq!(
            pool.begin(upstream(), &query(1), Casing::Drawn).unwrap().flight.socket(),
            first
        );
        let (now, worn_at) =
            (pool.clock.monotonic(), pool.state.borrow().usage.get(first).unwrap().worn_at);
        assert!(worn_at.since(now) > AGE_MAX / 3 && worn_at.since(now) <= AGE_MAX);
        pool.state.borrow_mut().usage.get_mut(first).unwrap().worn_at = now;
        assert_ne!(
            pool.begin(upstream(), &query(1), Casing::Drawn).unwrap().flight.socket(),
            first
        );
        assert_eq!(*sockets.closed.borrow(), [first]);
    });
}

#[test]
fn what_finds_no_room_to_be_sent_is_told_at_once() {
    LocalExecutor::default().run(async {
        let (sockets, pool) = pool(1);
        sockets.is_full.set(true);
        let asked = query(1);
        let outcome = poll_once(pool.exchange(upstream(), &asked, Casing::Drawn)).await;
        assert_eq!(outcome, Some(Err(ExchangeError::Exhausted)));
        assert!(pool.flights.is_empty());
        assert_eq!((pool.counters.datagrams.value(), pool.counters.exhausted.value()), (0, 1));
    });
}

#[test]
fn what_the_kernel_refuses_ends_its_exchange_and_no_other() {
    for (is_want_of_room, error) in
        [(false, ExchangeError::Unreachable), (true, ExchangeError::Exhausted)]
    {
        LocalExecutor::default().run(async {
            let (sockets, pool) = pool(1);
            let (refused, other) = (query(0x1234), query(0x1235));
            let mut other = Box::pin(pool.exchange(upstream(), &other, Casing::Drawn));
            assert!(poll_once(&mut other).await.is_none());
            let mut exchange = Box::pin(pool.exchange(upstream(), &refused, Casing::Drawn));
            assert!(poll_once(&mut exchange).await.is_none());
            let socket = sockets.sent.borrow()[1].0;
            let to = Some(upstream());
            sockets.refusal.set(Some(Refusal { socket, head: [0x12, 0x34], to, is_want_of_room }));
            assert!(poll_once(pool.watch_refusals()).await.is_none());
            assert_eq!(poll_once(exchange).await, Some(Err(error)));
            assert!(poll_once(other).await.is_none());
            let counted = [&pool.counters.unreachable, &pool.counters.exhausted];
            let expected = [u64::from(!is_want_of_room), u64::from(is_want_of_room)];
            assert_eq!(counted.map(crate::observe::Counter::value), expected);
        });
    }
}

#[test]
fn a_report_about_another_server_ends_nothing() {
    LocalExecutor::default().run(async {
        let (sockets, pool) = pool(1);
        let asked = query(0x1234);
        let mut exchange = Box::pin(pool.exchange(upstream(), &asked, Casing::Drawn));
        assert!(poll_once(&mut exchange).await.is_none());
        let socket = sockets.sent.borrow()[0].0;
        for other in [([192, 0, 2, 54], 53), ([192, 0, 2, 53], 54)] {
            let to = Some(SocketAddr::from(other));
            let refusal = Refusal { socket, head: [0x12, 0x34], to, is_want_of_room: false };
            sockets.refusal.set(Some(refusal));
            assert!(poll_once(pool.watch_refusals()).await.is_none());
            assert!(poll_once(&mut exchange).await.is_none());
        }
    });
}

#[test]
fn dropped_exchange_is_forgotten() {
    LocalExecutor::default().run(async {
        let (_, pool) = pool(1);
        let asked = query(1);
        let exchange = pool.exchange(upstream(), &asked, Casing::Drawn);
        assert!(poll_once(exchange).await.is_none());
        assert!(pool.flights.is_empty());
    });
}

#[test]
fn ports_of_all_cores_come_from_one_population() {
    // Two hundred cores with their own seeds: the range in 16 bands, chi-square over each core's and over all ports.
    const PORT_MIN: u16 = 1_024;
    let ports = Arc::new(SourcePorts::avoiding(""));
    let mut all = [0u32; 16];
    let mut extreme = 0;
    for core in 0..200u8 {
        let sockets = Rc::new(Paper::default());
        let entropy = Rc::new(ChaCha::from_seed([core; 32]));
        let setting = setting(&sockets, 128, Arc::clone(&ports));
        let pool = Pool::new(setting, std::iter::once(upstream()), entropy);
        let mut bands = [0u32; 16];
        for _ in 0..128 {
            pool.open(true).unwrap();
        }
        for &(_, port) in sockets.open.borrow().iter() {
            assert!(port >= PORT_MIN);
            let span = usize::from(u16::MAX - PORT_MIN) + 1;
            bands[usize::from(port - PORT_MIN) * 16 / span] += 1;
        }
        // 99th percentile of chi-square with 15 degrees of freedom.
        extreme += u32::from(chi_square(&bands, 8.0) > 30.58);
        all.iter_mut().zip(bands).for_each(|(sum, band)| *sum += band);
    }
    assert!(extreme <= 8, "{extreme} of 200 cores stand out, 2 are expected");
    // 99.9th percentile.
    assert!(chi_square(&all, 1_600.0) < 37.70, "{all:?}");
}

#[test]
fn ids_and_casings_of_all_cores_come_from_one_population() {
    // What a forger has to guess beside the port: for each of two hundred cores 4 096 draws in 16 bands, by their high and
    // by their low bits, and by how far one is from the one before.
    const DRAWS: u16 = 4_096;
    let mut extreme = 0;
    let mut all = [0u32; 16];
    for core in 0..200u8 {
        let entropy = ChaCha::from_seed([core; 32]);
        let mut bands = [[0u32; 16]; 3];
        let mut before = entropy.u16();
        for _ in 0..DRAWS {
            let id = entropy.u16();
            let steps = [id >> 12, id & 15, id.wrapping_sub(before) >> 12];
            for (bands, step) in bands.iter_mut().zip(steps) {
                bands[usize::from(step)] += 1;
            }
            before = id;
        }
        // 99th percentile of chi-square with 15 degrees of freedom.
        let expected = f64::from(DRAWS) / 16.0;
        extreme += bands.iter().filter(|bands| chi_square(&bands[..], expected) > 30.58).count();
        all.iter_mut().zip(bands[0]).for_each(|(sum, band)| *sum += band);
    }
    assert!(extreme <= 15, "{extreme} of 600 samples stand out, 6 are expected");
    assert!(chi_square(&all, 200.0 * f64::from(DRAWS) / 16.0) < 37.70, "{all:?}");
}

#[test]
fn core_cannot_be_told_by_the_ports_and_ids_it_uses() {
    // Two cores, each with the ports and IDs of ten thousand queries: whoever maps them to cores must not find one more often
    // in a region than the other. Two samples, 64 regions of the plane; 63 degrees of freedom, 99.9th percentile.
    let sample = |core: u8| {
        let sockets = Rc::new(Paper::default());
        let entropy = Rc::new(ChaCha::from_seed([core; 32]));
        let setting = setting(&sockets, 128, Arc::new(SourcePorts::avoiding("")));
        let pool = Pool::new(setting, std::iter::once(upstream()), Rc::clone(&entropy));
        let mut regions = [0u32; 64];
        for _ in 0..10_000 {
            let id = entropy.u16();
            let booking = pool.begin(upstream(), &query(id), Casing::Drawn).unwrap();
            let socket = booking.flight.socket();
            // Each socket has few uses here, so that the sample is one of ports and not of sockets.
            pool.state.borrow_mut().usage.get_mut(socket).unwrap().uses_left = 0;
            let port = sockets.open.borrow().iter().find(|open| open.0 == socket).unwrap().1;
            regions[usize::from(port >> 13) * 8 + usize::from(id >> 13)] += 1;
        }
        regions
    };
    let [left, right] = [1, 2].map(sample);
    let differences = left.iter().zip(right).map(|(&left, right)| {
        (f64::from(left) - f64::from(right)).powi(2) / f64::from(left + right).max(1.0)
    });
    let distance: f64 = differences.sum();
    assert!(distance < 103.4, "{distance}: {left:?} {right:?}");
}

#[test]
fn sockets_open_on_none_of_the_reserved_ports() {
    let sockets = Rc::new(Paper::default());
    let entropy = Rc::new(ChaCha::from_seed([5; 32]));
    let ports = Arc::new(SourcePorts::avoiding("1024-40000"));
    let pool = Pool::new(setting(&sockets, 500, ports), std::iter::once(upstream()), entropy);
    for _ in 0..500 {
        pool.open(true).unwrap();
    }
    assert!(sockets.open.borrow().iter().all(|&(_, port)| port > 40_000));
}

fn chi_square(counts: &[u32], expected: f64) -> f64 {
    counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
}
