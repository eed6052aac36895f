//! Streams to servers on loopback, which do what they should not.

mod tls;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_lite::future::{or, poll_once, zip};
use glommio::LocalExecutor;
use glommio::timer::Timer;

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

#[test]
fn second_death_is_the_end_of_a_query() {
    let (address, served) = server(2, |_, stream| {
        let query = receive(stream).unwrap();
        send(stream, &reply(&query));
        receive(stream).unwrap();
    });
    let counters = run(async move |streams| {
        let (upstream, asked) = (tcp(address), [query(1), query(2), query(3)]);
        assert_eq!(streams.exchange(&upstream, &asked[0]).await, Ok(reply(&query(1))));
        let ask = |number: usize| streams.exchange(&upstream, &asked[number]);
        // Together on the first connection's end: one of them is answered by the second connection, which then ends.
        let answers = zip(ask(1), ask(2)).await;
        let unanswered = [&answers.0, &answers.1].into_iter().filter(|&a| *a == UNREACHABLE);
        assert_eq!(unanswered.count(), 1, "{answers:?}");
    });
    assert_eq!((counters.tcp.opened.value(), counters.tcp.resent.value()), (2, 2));
    served.join().unwrap();
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
fn more_queries_than_a_connection_carries_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = tcp(listener.local_addr().unwrap());
    let counters = run(async move |streams| {
        let asked = query(1);
        let mut asking = Vec::new();
        loop {
            let mut exchange = Box::pin(streams.exchange(&upstream, &asked));
            match poll_once(&mut exchange).await {
                None => asking.push(exchange),
                Some(outcome) => break assert_eq!(outcome, Err(ExchangeError::Exhausted)),
            }
        }
        assert_eq!(asking.len(), 4096);
        asking.pop();
        assert_eq!(poll_once(streams.exchange(&upstream, &asked)).await, None, "room again");
    });
    assert_eq!((counters.exhausted.value(), counters.tcp.in_flight.value()), (1, 0));
}

#[test]
fn long_queries_are_refused_before_they_take_much_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = tcp(listener.local_addr().unwrap());
    run(async move |streams| {
        let long = [&query(1)[..], &[0; 60_000]].concat();
        let mut asking: Vec<_> =
            (0..5).map(|_| Box::pin(streams.exchange(&upstream, &long))).collect();
        for exchange in &mut asking[..4] {
            assert_eq!(poll_once(exchange).await, None);
        }
        let fifth = poll_once(&mut asking[4]).await;
        assert_eq!(fifth, Some(Err(ExchangeError::Exhausted)));
        let too_long = [&query(1)[..], &[0; 66_000]].concat();
        let outcome = streams.exchange(&upstream, &too_long).await;
        assert_eq!(outcome, Err(ExchangeError::Exhausted));
    });
}
