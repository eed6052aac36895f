//! DNS over TCP: pipelines, limits, odd lengths, clients that leave early (RFC 7766).

use crate::client::{Stream, dig, framed};
use crate::message::{self, A, FORMERR, NOERROR, query};
use crate::node::{Node, Setup, eventually};
use crate::scripted::{Gate, Scripted, Step};

const LOCAL: &str = "[[local]]\nzone = \"local.test.\"\nrecords = \"www 60 A 192.0.2.1\"";
const NAME: &str = "www.local.test";

fn local(tcp: &str) -> Node {
    Setup::new().config("[tcp]").config(tcp).config(LOCAL).start()
}

/// Answers at once, but for `slow.test.`, which waits for the gate.
fn one_slow_name(gate: Gate) -> Scripted {
    Scripted::start(move |asked| {
        let answer = message::address(&asked.message, 300, [192, 0, 2, 1]);
        let is_slow = asked.qname() == "slow.test.";
        vec![if is_slow { Step::When(gate.clone(), answer) } else { Step::Reply(answer) }]
    })
}

#[test]
fn hundred_pipelined_queries_overtake_a_slow_one() {
    let gate = Gate::default();
    let upstream = one_slow_name(gate.clone());
    let waits = "[forward]\nattempt_timeout = \"10s\"\ndeadline = \"20s\"";
    let node = Setup::new().upstream(upstream.address).config(waits).start();
    let mut stream = Stream::connect(node.address);
    let mut pipeline = framed(&query(0, "slow.test", A));
    for id in 1..100 {
        pipeline.extend(framed(&query(id, &format!("name{id}.test"), A)));
    }
    stream.write(&pipeline);
    let mut ids: Vec<u16> = Vec::new();
    for _ in 1..100 {
        let reply = stream.receive().expect("quick answers do not wait for the slow one");
        assert_eq!(reply.qname, format!("name{}.test.", reply.id));
        assert_eq!(reply.counts[1], 1);
        ids.push(reply.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..100).collect::<Vec<_>>());
    gate.open();
    let last = stream.receive().unwrap();
    assert_eq!((last.id, last.qname.as_str(), last.rcode()), (0, "slow.test.", NOERROR));
}

#[test]
fn many_queries_on_one_connection_are_answered() {
    let node = local("");
    let mut stream = Stream::connect(node.address);
    for id in 0..300 {
        assert_eq!(stream.exchange(&query(id, NAME, A)).id, id);
    }
}

#[test]
fn idle_connection_is_closed() {
    // A deadline for answers may not outlast three idle timeouts.
    let node = local("idle_timeout = \"1s\"\n[forward]\ndeadline = \"2s\"");
    let mut silent = Stream::connect(node.address);
    let mut quiet = Stream::connect(node.address);
    quiet.exchange(&query(1, NAME, A));
    let mut half = Stream::connect(node.address);
    half.write(&framed(&query(1, NAME, A))[..20]);
    for stream in [&mut silent, &mut quiet, &mut half] {
        assert!(stream.receive().is_none(), "nothing was asked");
    }
}

#[test]
fn client_that_finishes_early_still_gets_its_answers() {
    let gate = Gate::default();
    let upstream = one_slow_name(gate.clone());
    let waits = "[forward]\nattempt_timeout = \"10s\"\ndeadline = \"20s\"";
    let node = Setup::new().upstream(upstream.address).config(waits).start();
    let mut stream = Stream::connect(node.address);
    stream.send(&query(1, "quick.test", A));
    stream.send(&query(2, "slow.test", A));
    stream.finish();
    assert_eq!(stream.receive().unwrap().id, 1);
    upstream.wait_for("slow.test.");
    gate.open();
    assert_eq!(stream.receive().unwrap().id, 2);
    assert!(stream.receive().is_none());
}

#[test]
fn message_cut_anywhere_is_put_together() {
    let node = local("");
    let message = framed(&query(7, NAME, A));
    let mut stream = Stream::connect(node.address);
    for at in 1..message.len() {
        let (first, rest) = message.split_at(at);
        stream.write(first);
        std::thread::yield_now();
        stream.write(rest);
        assert_eq!(stream.receive().unwrap().id, 7, "cut at {at}");
    }
    for octet in &message {
        stream.write(&[*octet]);
    }
    assert_eq!(stream.receive().unwrap().id, 7);
}

#[test]
fn message_too_short_for_a_header_ends_the_connection() {
    let node = local("");
    for len in [0, 1, 11] {
        let mut stream = Stream::connect(node.address);
        stream.send(&vec![0; len]);
        assert!(stream.receive().is_none(), "length {len}");
    }
    assert_eq!(dig(node.address, "+tcp www.local.test").status, "NOERROR");
}

#[test]
fn largest_message_is_read_whole() {
    let node = local("");
    let mut stream = Stream::connect(node.address);
    let mut message = query(3, NAME, A);
    message.resize(65_535, 0);
    assert_eq!(stream.exchange(&message).rcode(), FORMERR);
    assert_eq!(stream.exchange(&query(4, NAME, A)).rcode(), NOERROR);
}

#[test]
fn client_gone_amid_a_message_harms_nobody() {
    let node = local("");
    for len in 1..20 {
        let mut stream = Stream::connect(node.address);
        stream.write(&framed(&query(1, NAME, A))[..len]);
        drop(stream);
    }
    assert_eq!(dig(node.address, "+tcp www.local.test").status, "NOERROR");
}

#[test]
fn one_client_gets_no_more_than_its_connections() {
    let node = local("connections_per_client_max = 4");
    let mut streams: Vec<_> = (0..4).map(|_| Stream::connect(node.address)).collect();
    for stream in &mut streams {
        stream.exchange(&query(1, NAME, A));
    }
    assert!(Stream::connect(node.address).receive().is_none(), "the fifth is turned away");
    for stream in &mut streams {
        assert_eq!(stream.exchange(&query(2, NAME, A)).id, 2);
    }
    drop(streams.pop());
    eventually("a free place", || {
        Stream::connect(node.address).try_exchange(&query(3, NAME, A)).map(drop)
    });
}

#[test]
fn newcomer_takes_the_place_of_the_longest_idle() {
    let node = local("connections_max = 3\nconnections_per_client_max = 100");
    let mut streams: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = Stream::connect(node.address);
            stream.exchange(&query(1, NAME, A));
            stream
        })
        .collect();
    let mut newcomer = Stream::connect(node.address);
    assert_eq!(newcomer.exchange(&query(2, NAME, A)).id, 2);
    assert!(streams[0].receive().is_none(), "the longest idle made room");
    for stream in &mut streams[1..] {
        assert_eq!(stream.exchange(&query(3, NAME, A)).id, 3);
    }
}

#[test]
fn idle_connections_cost_little_memory() {
    const CONNECTIONS: usize = 300;
    /// Twice what `net::tcp` says of itself, for the allocator's pages.
    const BYTES_MAX: usize = 4 << 10;
    /// The allocator's next huge page may become resident meanwhile, as a whole.
    const HUGE_PAGE_BYTES: usize = 2 << 20;
    let limits = "connections_max = 2000\nconnections_per_client_max = 2000\nidle_timeout = \"1m\"";
    let node = local(limits);
    let mut streams = Vec::new();
    let mut fill = || {
        for id in 0..u16::try_from(CONNECTIONS).unwrap() {
            let mut stream = Stream::connect(node.address);
            assert_eq!(stream.exchange(&query(id, NAME, A)).id, id);
            streams.push(stream);
        }
    };
    fill();
    let before = node.resident_bytes();
    fill();
    let each = node.resident_bytes().saturating_sub(before + HUGE_PAGE_BYTES) / CONNECTIONS;
    assert!(each <= BYTES_MAX, "an idle connection takes {each} bytes");
}
