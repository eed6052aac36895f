//! More than there is room for: the oldest yield, the newest are let in, and nothing grows beyond its bound.

use std::collections::BTreeMap;

use crate::client::{Datagrams, Stream};
use crate::message::{self, A, Message, NOERROR, SERVFAIL, query_with};
use crate::node::{Node, Setup};
use crate::scripted::{Gate, Scripted, Step};

const NETWORK_ERROR: u16 = 23;

const INFLIGHT_MAX: u64 = 8;

/// Questions beyond that which may still be about to end.
const LEAVING_MAX: u64 = 128;

/// Answers for `live.test` and below at once, silence for everything else.
fn mostly_silent() -> Scripted {
    Scripted::start(|asked| match asked.qname().ends_with("live.test.") {
        true => vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))],
        false => vec![],
    })
}

/// A node with little room, whose questions otherwise end by themselves long after the test.
fn narrow(upstream: &Scripted, backend: &str) -> Node {
    let config = format!(
        "[forward]\ninflight_max = {INFLIGHT_MAX}\nattempt_timeout = \"60s\"\ndeadline = \"60s\""
    );
    let setup = Setup::new().upstream(upstream.address).config(&config);
    setup.argument("--io").argument(backend).start()
}

fn query(id: u16, qname: &str) -> Vec<u8> {
    query_with(id, qname, A, &[message::opt(1232, 0, 0, &[])])
}

fn failure(reply: &Message) -> (u16, Option<u16>) {
    (reply.rcode(), reply.extended_error())
}

#[test]
fn newest_questions_are_let_in_and_the_oldest_end_in_order() {
    for backend in ["uring", "mmsg"] {
        let upstream = mostly_silent();
        let node = narrow(&upstream, backend);
        let socket = Datagrams::to(node.address);
        let ask = |id: u16| socket.send(&query(id, &format!("name{id}.silent.test")));
        (0..8).for_each(ask);
        upstream.wait_for("name7.silent.test.");
        for id in 8..40 {
            ask(id);
            let reply = socket.receive();
            assert_eq!((reply.id, failure(&reply)), (id - 8, (SERVFAIL, Some(NETWORK_ERROR))));
        }
        upstream.wait_for("name39.silent.test.");
        let counters = node.counters();
        assert_eq!(counters.sum("dns_evicted_questions_total", ""), 32, "{backend}");
        assert_eq!(counters.sum("dns_questions_in_flight", ""), INFLIGHT_MAX);
        assert_eq!(counters.sum("dns_questions_in_flight_peak", ""), INFLIGHT_MAX + 1);
        assert_eq!(counters.sum("dns_overload_total", ""), 0);
    }
}

#[test]
fn live_upstream_answers_during_a_flood_of_questions_that_nobody_answers() {
    const ROUNDS: u16 = 30;
    const BURST: u16 = 50;
    let upstream = mostly_silent();
    let node = narrow(&upstream, "uring");
    let socket = Datagrams::to(node.address);
    let mut failed = 0;
    for round in 0..ROUNDS {
        for number in 0..BURST {
            socket.send(&query(1, &format!("name{number}.round{round}.silent.test")));
        }
        socket.send(&query(2, &format!("round{round}.live.test")));
        loop {
            let reply = socket.receive();
            if reply.id == 2 {
                assert_eq!((reply.rcode(), reply.counts[1]), (NOERROR, 1));
                break;
            }
            assert_eq!(failure(&reply), (SERVFAIL, Some(NETWORK_ERROR)));
            failed += 1;
        }
        let in_flight = node.counters().sum("dns_questions_in_flight", "");
        assert!(in_flight <= INFLIGHT_MAX + LEAVING_MAX, "{in_flight}");
    }
    // All but those that are still in flight.
    let all = u64::from(ROUNDS * BURST);
    while failed < all - INFLIGHT_MAX {
        assert_eq!(failure(&socket.receive()), (SERVFAIL, Some(NETWORK_ERROR)));
        failed += 1;
    }
    let counters = node.counters();
    let peak = counters.sum("dns_questions_in_flight_peak", "");
    assert!((INFLIGHT_MAX..=INFLIGHT_MAX + LEAVING_MAX).contains(&peak), "{peak}");
}

#[test]
fn oldest_of_too_many_clients_gets_servfail_over_udp_and_tcp() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Scripted::start(move |asked| {
        let answer = message::address(&asked.message, 300, [192, 0, 2, 1]);
        vec![Step::When(held.clone(), answer)]
    });
    let config = "[forward]\nattempt_timeout = \"60s\"\ndeadline = \"60s\"\nwaiters_max = 3";
    let node = Setup::new().upstream(upstream.address).config(config).start();
    let (socket, mut stream) = (Datagrams::to(node.address), Stream::connect(node.address));
    stream.send(&query(0, "slow.test"));
    upstream.wait_for("slow.test.");
    stream.send(&query(1, "slow.test"));
    node.wait_for_count("dns_coalesced_total", 1);
    (2..5).for_each(|id| socket.send(&query(id, "slow.test")));
    let mut failures: BTreeMap<u16, _> = BTreeMap::new();
    for _ in 0..2 {
        let reply = stream.receive().unwrap();
        failures.insert(reply.id, failure(&reply));
    }
    // Over the stream that has just been told, in place of a datagram.
    stream.send(&query(5, "slow.test"));
    let reply = socket.receive();
    failures.insert(reply.id, failure(&reply));
    let expected = (0..3).map(|id| (id, (SERVFAIL, Some(NETWORK_ERROR)))).collect();
    assert_eq!(failures, expected);
    gate.open();
    let mut ids = [socket.receive(), socket.receive(), stream.receive().unwrap()].map(|reply| {
        assert_eq!((reply.rcode(), reply.counts[1]), (NOERROR, 1));
        reply.id
    });
    ids.sort_unstable();
    assert_eq!(ids, [3, 4, 5]);
    assert_eq!(node.counters().sum("dns_overload_total", ""), 3);
    assert_eq!(upstream.count("slow.test."), 1);
}
