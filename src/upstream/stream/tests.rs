//! Streams to servers on loopback, which do what they should not.

mod tls;

use std::future::Future as _;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_lite::future::{poll_once, zip};
use glommio::LocalExecutor;

use super::*;
use crate::time::Monotonic;

/// One connection as a server sees it.
trait Talk: Read + Write {}

impl<T: Read + Write> Talk for T {}

/// A server that has `count` connections, one after the other, and talks on each as it is told.
fn server(
    count: usize,
    mut talk: impl FnMut(usize, &mut dyn Talk) + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        for number in 0..count {
            let (mut stream, _) = listener.accept().unwrap();
            talk(number, &mut stream);
        }
    };
    (address, std::thread::spawn(serve))
}

/// Lets `test` use the streams of a core, and gives what it counted.
fn run(test: impl AsyncFnOnce(&Streams)) -> Arc<UpstreamCounters> {
    run_with(&Roots::System, test)
}

fn run_with(roots: &Roots, test: impl AsyncFnOnce(&Streams)) -> Arc<UpstreamCounters> {
    let counters = Arc::new(UpstreamCounters::default());
    let entropy = Rc::new(ChaCha::from_seed([5; 32]));
    let strict = match roots {
        Roots::System => None,
        Roots::File(_) => Some(Upstream {
            address: SocketAddr::from(([127, 0, 0, 1], 853)),
            protocol: Protocol::Tls(Authentication::default()),
        }),
    };
    let trust = Trust::load(roots, strict.as_slice()).unwrap();
    let shared = Arc::clone(&counters);
    LocalExecutor::default().run(async move {
        let streams = Streams::new(3, MonotonicClock::start(), entropy, trust, shared);
        test(&streams).await;
        let core = Rc::clone(&streams.core);
        drop(streams);
        let UpstreamCounters { tcp, tls, .. } = &*core.upstream_counters;
        until(|| tcp.connections.value() + tls.connections.value() == 0).await;
    });
    counters
}

fn tcp(address: SocketAddr) -> Upstream {
    Upstream { address, protocol: Protocol::Tcp }
}

/// A query for the address of a name that is `number`.
fn query(number: usize) -> Vec<u8> {
    let mut query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04".to_vec();
    query.extend(format!("{number:04}").bytes());
    query.extend(b"\x00\x00\x01\x00\x01");
    query
}

fn reply(query: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply
}

/// The reply with an OPT record that holds edns-tcp-keepalive.
fn reply_with_timeout(query: &[u8], tenths: u16) -> Vec<u8> {
    let mut reply = reply(query);
    reply[11] = 1;
    reply.extend(b"\x00\x00\x29\x04\xD0\x00\x00\x00\x00\x00\x06\x00\x0B\x00\x02");
    reply.extend(tenths.to_be_bytes());
    reply
}

/// The next query on a connection; none when the client has closed it.
fn receive(stream: &mut dyn Talk) -> Option<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).ok()?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut query).unwrap();
    Some(query)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).unwrap();
    [&len.to_be_bytes(), message].concat()
}

fn send(stream: &mut dyn Talk, message: &[u8]) {
    stream.write_all(&framed(message)).unwrap();
}

/// Answers everything until the client closes.
fn answer_all(stream: &mut dyn Talk) {
    while let Some(query) = receive(stream) {
        send(stream, &reply(&query));
    }
}

/// Waits for `condition`, which only the tasks of this executor can bring about.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        Timer::new(Duration::from_millis(1)).await;
    }
}

const UNREACHABLE: Result<Vec<u8>, ExchangeError> = Err(ExchangeError::Unreachable);

#[test]
fn answers_in_any_order_and_any_pieces_find_their_queries() {
    let (address, served) = server(1, |_, stream| {
        let queries: Vec<_> = (0..3).map(|_| receive(stream).unwrap()).collect();
        for query in queries.iter().rev() {
            for octet in framed(&reply(query)) {
                stream.write_all(&[octet]).unwrap();
            }
        }
        assert_eq!(receive(stream), None);
    });
    let counters = run(async move |streams| {
        let (upstream, asked) = (tcp(address), [query(1), query(2), query(3)]);
        let ask = |number: usize| streams.exchange(&upstream, &asked[number]);
        let ((first, second), third) = zip(zip(ask(0), ask(1)), ask(2)).await;
        assert_eq!([first, second, third], [query(1), query(2), query(3)].map(|q| Ok(reply(&q))));
    });
    assert_eq!((counters.tcp.opened.value(), counters.tcp.reused.value()), (1, 2));
    assert_eq!(counters.tcp.in_flight.value(), 0);
    served.join().unwrap();
}

#[test]
fn thousand_queries_go_over_one_connection() {
    let (address, served) = server(1, |_, stream| answer_all(stream));
    let counters = run(async move |streams| {
        let (upstream, asked) = (tcp(address), (0..1000).map(query).collect::<Vec<_>>());
        let mut asking = Vec::new();
        for query in &asked {
            let mut exchange = Box::pin(streams.exchange(&upstream, query));
            // Queued, and in flight with all before it.
            assert_eq!(poll_once(&mut exchange).await, None);
            asking.push(exchange);
        }
        for (number, asking) in asking.into_iter().enumerate() {
            assert_eq!(asking.await, Ok(reply(&query(number))));
        }
    });
    let tcp = &counters.tcp;
    assert_eq!((tcp.opened.value(), tcp.queries.value(), tcp.reused.value()), (1, 1000, 999));
    assert_eq!((counters.responses.value(), tcp.in_flight.value()), (1000, 0));
    served.join().unwrap();
}

#[test]
fn queries_on_a_connection_that_dies_of_age_are_sent_once_more() {
    let (address, served) = server(2, |number, stream| match number {
        0 => {
            let query = receive(stream).unwrap();
            send(stream, &reply(&query));
            // Two are read, and then nobody is there any more.
            assert!(receive(stream).is_some() && receive(stream).is_some());
        }
        _ => answer_all(stream),
    });
    let counters = run(async move |streams| {
        let (upstream, asked) = (tcp(address), [query(1), query(2), query(3)]);
        assert_eq!(streams.exchange(&upstream, &asked[0]).await, Ok(reply(&query(1))));
        let ask = |number: usize| streams.exchange(&upstream, &asked[number]);
        let answers = zip(ask(1), ask(2)).await;
        assert_eq!(answers, (Ok(reply(&query(2))), Ok(reply(&query(3)))));
    });
    let tcp = &counters.tcp;
    assert_eq!((tcp.opened.value(), tcp.resent.value(), tcp.queries.value()), (2, 2, 5));
    assert_eq!(counters.unreachable.value(), 0);
    served.join().unwrap();
}

/// A server that answers one query on each connection and then closes it; connections of which `is_useless` says so it
/// closes without. Serves until [`Fickle::stop`].
struct Fickle {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    serving: JoinHandle<()>,
}

impl Fickle {
    fn start(is_useless: fn(usize) -> bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let serving = std::thread::spawn(move || {
            let mut number = 0;
            while !told.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                if let Some(query) = receive(&mut stream)
                    && !is_useless(number)
                {
                    send(&mut stream, &reply(&query));
                }
                number += 1;
            }
        });
        Self { address, is_over, serving }
    }

    fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.serving.join().unwrap();
    }
}

/// Asks `count` queries at once and wants all answered.
async fn ask_at_once(streams: &Streams, upstream: &Upstream, count: usize) {
    let asked: Vec<_> = (0..count).map(query).collect();
    let mut asking = Vec::new();
    for query in &asked {
        let exchange = async move { streams.exchange(upstream, query).await };
        let mut exchange = Box::pin(exchange);
        assert_eq!(poll_once(&mut exchange).await, None);
        asking.push(exchange);
    }
    // All of them go on while one is awaited: each is polled whenever this task is.
    let mut answers = vec![None; count];
    poll_fn(|cx| {
        for (asking, answer) in asking.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let Poll::Ready(outcome) = asking.as_mut().poll(cx)
            {
                *answer = Some(outcome);
            }
        }
        if answers.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let right: Vec<_> = asked.iter().map(|query| Some(Ok(reply(query)))).collect();
    assert_eq!(answers, right);
}

#[test]
fn server_of_one_answer_per_connection_answers_all() {
    let server = Fickle::start(|_| false);
    let upstream = tcp(server.address);
    let counters = run(async move |streams| {
        ask_at_once(streams, &upstream, 100).await;
        let resent = &streams.core.upstream_counters.tcp.resent;
        let before = resent.value();
        // Its ways are known: each query has a connection of its own, but for a rare try whether it takes more.
        ask_at_once(streams, &upstream, 50).await;
        let lost = resent.value() - before;
        assert!(lost <= 8, "{lost}");
    });
    assert_eq!((counters.unreachable.value(), counters.exhausted.value()), (0, 0));
    server.stop();
}

#[test]
fn server_that_closes_a_connection_unused_now_and_then_answers_all() {
    let server = Fickle::start(|number| number % 10 == 1);
    let upstream = tcp(server.address);
    let counters = run(async move |streams| ask_at_once(streams, &upstream, 30).await);
    assert_eq!(counters.unreachable.value(), 0);
    server.stop();
}

#[test]
fn query_whose_every_connection_dies_is_given_up() {
    let server = Fickle::start(|number| number > 0);
    let upstream = tcp(server.address);
    let counters = run(async move |streams| {
        assert_eq!(streams.exchange(&upstream, &query(1)).await, Ok(reply(&query(1))));
        assert_eq!(streams.exchange(&upstream, &query(2)).await, UNREACHABLE);
    });
    assert_eq!(counters.tcp.resent.value(), 8);
    server.stop();
}

#[test]
fn silent_connection_gets_no_more_queries_and_its_late_answers_count() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (mut silent, _) = listener.accept().unwrap();
        let first = receive(&mut silent).unwrap();
        send(&mut silent, &reply(&first));
        let late = receive(&mut silent).unwrap();
        let (mut fresh, _) = listener.accept().unwrap();
        let prompt = receive(&mut fresh).unwrap();
        send(&mut fresh, &reply(&prompt));
        send(&mut silent, &reply(&late));
        answer_all(&mut fresh);
    });
    let counters = run(async move |streams| {
        let (upstream, asked) = (tcp(address), [query(1), query(2), query(3)]);
        let ask = |number: usize| streams.exchange(&upstream, &asked[number]);
        assert_eq!(ask(0).await, Ok(reply(&query(1))));
        let prompt = async {
            let line = streams.line(&upstream).unwrap();
            let connection = Rc::clone(&line.connections.borrow()[0]);
            let is_avoided =
                || !connection.takes(&asked[2], streams.core.clock.monotonic(), line.patience());
            until(is_avoided).await;
            ask(2).await
        };
        assert_eq!(zip(ask(1), prompt).await, (Ok(reply(&query(2))), Ok(reply(&query(3)))));
    });
    let tcp = &counters.tcp;
    assert_eq!((tcp.opened.value(), tcp.queries.value(), tcp.resent.value()), (2, 3, 0));
    served.join().unwrap();
}

#[test]
fn what_answers_usually_take_decides_what_silence_is() {
    run(async move |streams| {
        let line = streams.line(&tcp("127.0.0.1:53".parse().unwrap())).unwrap();
        assert_eq!(line.patience(), SILENCE_MIN);
        line.note(Duration::from_secs(1));
        assert_eq!(line.patience(), SILENCE_MIN, "one slow answer is not usual");
        (0..99).for_each(|_| line.note(Duration::from_secs(1)));
        assert!(line.patience() > 3 * SILENCE_MIN);
        (0..99).for_each(|_| line.note(Duration::from_millis(1)));
        assert_eq!(line.patience(), SILENCE_MIN);
    });
}

#[test]
fn fresh_connection_that_dies_is_not_tried_twice() {
    for last_words in [Vec::new(), vec![0, 99, 1, 2], vec![0, 3, 1, 2, 3]] {
        let (address, served) = server(1, move |_, stream| {
            receive(stream).unwrap();
            stream.write_all(&last_words).unwrap();
        });
        let counters = run(async move |streams| {
            assert_eq!(streams.exchange(&tcp(address), &query(1)).await, UNREACHABLE);
        });
        assert_eq!((counters.tcp.opened.value(), counters.tcp.resent.value()), (1, 0));
        assert_eq!(counters.unreachable.value(), 1);
        served.join().unwrap();
    }
}

#[test]
fn nobody_listening_is_unreachable_at_once_for_a_while() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    const ASKED: u64 = 20;
    let counters = run(async move |streams| {
        for _ in 0..ASKED {
            assert_eq!(streams.exchange(&tcp(address), &query(1)).await, UNREACHABLE);
        }
    });
    // With the pauses between them, as many connects would take the better part of a minute.
    let refused = counters.tcp.refused.value();
    assert!((1..ASKED).contains(&refused), "{refused}");
    assert_eq!((counters.unreachable.value(), counters.tcp.opened.value()), (ASKED, 0));
}

#[test]
fn useless_connection_brings_a_pause_and_an_answer_ends_it() {
    let (address, served) = server(2, |number, stream| match number {
        0 => drop(receive(stream)),
        _ => answer_all(stream),
    });
    run(async move |streams| {
        let upstream = tcp(address);
        let line = streams.line(&upstream).unwrap();
        // Whoever has no pause would not wait at the beginning of time either.
        let has_pause = || line.backoff.get().forbids(Monotonic::default());
        assert!(!has_pause());
        assert_eq!(streams.exchange(&upstream, &query(1)).await, UNREACHABLE);
        assert!(has_pause());
        until(|| !line.backoff.get().forbids(streams.core.clock.monotonic())).await;
        assert_eq!(streams.exchange(&upstream, &query(1)).await, Ok(reply(&query(1))));
        assert!(!has_pause());
    });
    served.join().unwrap();
}

#[test]
fn connection_closed_while_idle_is_no_failure() {
    let (address, served) = server(3, |_, stream| {
        let query = receive(stream).unwrap();
        send(stream, &reply(&query));
    });
    let counters = run(async move |streams| {
        for number in 0..3 {
            let answer = streams.exchange(&tcp(address), &query(number)).await;
            assert_eq!(answer, Ok(reply(&query(number))));
            let counters = &streams.core.upstream_counters;
            until(|| counters.tcp.connections.value() == 0).await;
        }
    });
    assert_eq!((counters.tcp.opened.value(), counters.tcp.reused.value()), (3, 0));
    assert_eq!(counters.unreachable.value(), 0);
    served.join().unwrap();
}

#[test]
fn dropped_exchange_frees_its_place_and_its_late_answer_is_ignored() {
    let (address, served) = server(1, |_, stream| {
        let given_up = receive(stream).unwrap();
        let waited_for = receive(stream).unwrap();
        send(stream, &reply(&given_up));
        send(stream, &reply(&waited_for));
        assert_eq!(receive(stream), None);
    });
    let counters = run(async move |streams| {
        let (upstream, asked) = (tcp(address), [query(1), query(2)]);
        let given_up = async {
            let counters = &streams.core.upstream_counters;
            let answered = Box::pin(streams.exchange(&upstream, &asked[0]));
            or(async { drop(answered.await) }, async {
                until(|| counters.tcp.opened.value() == 1).await;
                assert_eq!(counters.tcp.in_flight.value(), 1);
            })
            .await;
            assert_eq!(counters.tcp.in_flight.value(), 0);
        };
        given_up.await;
        assert_eq!(streams.exchange(&upstream, &asked[1]).await, Ok(reply(&query(2))));
    });
    assert_eq!((counters.tcp.late.value(), counters.tcp.queries.value()), (1, 2));
    assert_eq!((counters.tcp.opened.value(), counters.responses.value()), (1, 1));
    served.join().unwrap();
}

#[test]
fn answer_to_another_question_breaks_the_connection() {
    let (address, served) = server(1, |_, stream| {
        let mut foreign = reply(&receive(stream).unwrap());
        foreign[13] ^= 1;
        send(stream, &foreign);
        assert_eq!(receive(stream), None);
    });
    let counters = run(async move |streams| {
        assert_eq!(streams.exchange(&tcp(address), &query(1)).await, UNREACHABLE);
    });
    assert_eq!(counters.wrong_question.value(), 1);
    served.join().unwrap();
}

#[test]
fn flood_of_answers_that_nobody_asked_for_ends_the_connection() {
    let (address, served) = server(1, |_, stream| {
        let mut unasked = reply(&receive(stream).unwrap());
        unasked[0] ^= 1;
        // Ends with an error once the client has had enough.
        while stream.write_all(&framed(&unasked)).is_ok() {}
    });
    let counters = run(async move |streams| {
        assert_eq!(streams.exchange(&tcp(address), &query(1)).await, UNREACHABLE);
    });
    assert_eq!(counters.tcp.unasked.value(), 65);
    served.join().unwrap();
}

#[test]
fn server_that_wants_the_connection_closed_is_heeded() {
    let (address, served) = server(2, |_, stream| {
        let queries = [receive(stream).unwrap(), receive(stream).unwrap()];
        send(stream, &reply_with_timeout(&queries[0], 0));
        send(stream, &reply(&queries[1]));
        assert_eq!(receive(stream), None, "closed when the queries in flight were done");
    });
    let counters = run(async move |streams| {
        for _ in 0..2 {
            let (upstream, asked) = (tcp(address), [query(1), query(2)]);
            let ask = |number: usize| streams.exchange(&upstream, &asked[number]);
            let (first, second) = zip(ask(0), ask(1)).await;
            assert!(first.is_ok() && second.is_ok());
            let counters = &streams.core.upstream_counters;
            until(|| counters.tcp.connections.value() == 0).await;
        }
    });
    assert_eq!((counters.tcp.opened.value(), counters.tcp.reused.value()), (2, 2));
    served.join().unwrap();
}

#[test]
fn more_queries_than_a_connection_carries_go_over_few_more_and_then_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = tcp(listener.local_addr().unwrap());
    const ROOM: usize = 4 * 1024;
    let counters = run(async move |streams| {
        let asked = query(1);
        let mut asking = Vec::new();
        for _ in 0..=ROOM {
            let mut exchange = Box::pin(streams.exchange(&upstream, &asked));
            assert_eq!(poll_once(&mut exchange).await, None);
            asking.push(exchange);
        }
        let line = streams.line(&upstream).unwrap();
        let counters = &streams.core.upstream_counters.tcp;
        let state = || (counters.in_flight.value(), line.waiting.borrow().len());
        assert_eq!((state(), line.connections.borrow().len()), ((ROOM as u64, 1), 4));
        drop(asking.swap_remove(0));
        assert_eq!(state(), ((ROOM - 1) as u64, 0), "told of the room");
        assert_eq!(poll_once(&mut asking[0]).await, None);
        assert_eq!(state(), (ROOM as u64, 0));
    });
    assert_eq!((counters.exhausted.value(), counters.tcp.in_flight.value()), (0, 0));
}

#[test]
fn those_who_wait_for_a_connection_are_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = tcp(listener.local_addr().unwrap());
    run(async move |streams| {
        let asked = query(1);
        let mut asking: Vec<_> =
            (0..4 * 1024).map(|_| Box::pin(streams.exchange(&upstream, &asked))).collect();
        for exchange in &mut asking {
            assert_eq!(poll_once(exchange).await, None);
        }
        // Each with a waker of its own.
        let wakers: Vec<_> = (0..=WAITING_MAX).map(|_| Waker::from(Arc::new(Nobody))).collect();
        let mut waiting: Vec<_> =
            wakers.iter().map(|_| Box::pin(streams.exchange(&upstream, &asked))).collect();
        let outcomes: Vec<_> = waiting
            .iter_mut()
            .zip(&wakers)
            .map(|(exchange, waker)| exchange.as_mut().poll(&mut Context::from_waker(waker)))
            .collect();
        assert!(outcomes[..WAITING_MAX].iter().all(Poll::is_pending));
        assert_eq!(outcomes[WAITING_MAX], Poll::Ready(Err(ExchangeError::Exhausted)));
    });
}

/// Is woken in vain.
struct Nobody;

impl std::task::Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn long_queries_wait_before_they_take_much_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = tcp(listener.local_addr().unwrap());
    run(async move |streams| {
        let long = [&query(1)[..], &[0; 60_000]].concat();
        let mut asking: Vec<_> =
            (0..5).map(|_| Box::pin(streams.exchange(&upstream, &long))).collect();
        for exchange in &mut asking {
            assert_eq!(poll_once(exchange).await, None);
        }
        // One on each connection, and one that waits.
        assert_eq!(streams.core.upstream_counters.tcp.in_flight.value(), 4);
        let too_long = [&query(1)[..], &[0; 66_000]].concat();
        let outcome = streams.exchange(&upstream, &too_long).await;
        assert_eq!(outcome, Err(ExchangeError::Exhausted));
    });
}
