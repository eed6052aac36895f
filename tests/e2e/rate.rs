//! Clients that ask more than they may, beside others that do not.

use std::net::Ipv4Addr;
use std::time::Instant;

use crate::client::{Datagrams, Program, Stream};
use crate::message::{self, A, Message, NOERROR, REFUSED, query_with};
use crate::node::{Node, Setup, eventually};

const LOCAL: &str = "[[local]]\nzone = \"local.test.\"\nrecords = \"www 60 A 192.0.2.1\"";
const PROHIBITED: u16 = 18;

/// As few queries per second as there can be: tests may be slow, and tokens come back meanwhile.
const PER_SECOND: u64 = 1;

const FLOODING: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const MODEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

fn node(backend: &str, rate: &str) -> Node {
    let rate = format!("[rate]\nqueries_per_second = {PER_SECOND}\nallow = []\n{rate}");
    let setup = Setup::new().config(&rate).config(LOCAL);
    setup.argument("--io").argument(backend).start()
}

fn query(id: u16) -> Vec<u8> {
    query_with(id, "www.local.test", A, &[message::opt(1232, 0, 0, &[])])
}

fn limited(node: &Node, verdict: &str) -> u64 {
    node.counters().sum("dns_rate_limited_total", &format!("verdict=\"{verdict}\""))
}

fn is_answer(reply: &Message) -> bool {
    (reply.rcode(), reply.counts[1], reply.is_truncated()) == (NOERROR, 1, false)
}

#[test]
fn flood_from_one_address_is_limited_and_another_is_served_without_loss() {
    // Few enough that the flooding socket holds all replies until they are read.
    const ROUNDS: u64 = 16;
    const BURST: u64 = 12;
    for backend in ["uring", "mmsg"] {
        let node = node(backend, "burst = 20");
        let (flood, modest) =
            (Datagrams::from(FLOODING, node.address), Datagrams::from(MODEST, node.address));
        let begin = Instant::now();
        for round in 0..ROUNDS {
            (0..BURST).for_each(|_| flood.send(&query(7)));
            let id = u16::try_from(round).unwrap();
            let reply = modest.exchange(&query(id));
            assert!(reply.id == id && is_answer(&reply), "{backend} {round}: {reply:?}");
        }
        node.wait_for_count("dns_queries_total", ROUNDS * (BURST + 1));
        let refilled = PER_SECOND * (begin.elapsed().as_secs() + 1);
        let (dropped, slipped) = (limited(&node, "dropped"), limited(&node, "slipped"));
        let granted = ROUNDS * BURST - dropped - slipped;
        assert!((20..=20 + refilled).contains(&granted), "{backend}: {granted}");
        assert!(dropped - slipped <= 1, "every other one slips: {dropped} and {slipped}");
        let (mut answered, mut truncated) = (0, 0);
        for _ in 0..granted + slipped {
            let reply = flood.receive();
            if reply.is_truncated() {
                assert_eq!((reply.id, reply.rcode(), reply.counts), (7, NOERROR, [1, 0, 0, 1]));
                assert_eq!(reply.qname, "www.local.test.");
                truncated += 1;
            } else {
                assert!(is_answer(&reply), "{reply:?}");
                answered += 1;
            }
        }
        assert_eq!((answered, truncated), (granted, slipped), "{backend}");
        assert_eq!(limited(&node, "refused"), 0);
    }
}

#[test]
fn client_whose_datagrams_are_used_up_is_answered_over_tcp() {
    let node = node("uring", "burst = 100\nslip = 1");
    let flood = Datagrams::from(FLOODING, node.address);
    eventually("dig is told to come over TCP", || {
        (0..200).for_each(|_| flood.send(&query(7)));
        let reply = Program::Dig.ask(node.address, &format!("-b {FLOODING} www.local.test"));
        assert_eq!((reply.status.as_str(), reply.rdata("A")), ("NOERROR", vec!["192.0.2.1"]));
        reply.text.contains("Truncated, retrying in TCP mode").then_some(())
    });
    assert!(limited(&node, "slipped") > 0);
    assert_eq!((limited(&node, "dropped"), limited(&node, "refused")), (0, 0));
}

#[test]
fn stream_over_the_limit_is_refused_with_the_reason_and_stays_open() {
    let node = node("uring", "burst = 5");
    let mut stream = Stream::connect(node.address);
    let begin = Instant::now();
    let replies: Vec<Message> = (0..100).map(|id| stream.exchange(&query(id))).collect();
    let granted = replies.iter().filter(|reply| is_answer(reply)).count() as u64;
    let most = 5 + PER_SECOND * (begin.elapsed().as_secs() + 1);
    assert!((5..=most).contains(&granted), "{granted}");
    for reply in replies.iter().filter(|reply| !is_answer(reply)) {
        assert_eq!((reply.rcode(), reply.extended_error()), (REFUSED, Some(PROHIBITED)));
    }
    assert_eq!(limited(&node, "refused"), 100 - granted);
}

#[test]
fn addresses_of_the_list_are_not_limited() {
    let config = format!(
        "[rate]\nqueries_per_second = 1\nburst = 1\nslip = 0\nallow = [\"{FLOODING}\"]\n{LOCAL}"
    );
    let node = Setup::new().config(&config).start();
    let listed = Datagrams::from(FLOODING, node.address);
    for id in 0..100 {
        assert!(is_answer(&listed.exchange(&query(id))), "{id}");
    }
    assert_eq!(limited(&node, "dropped"), 0);
    let other = Datagrams::from(MODEST, node.address);
    (0..100).for_each(|id| other.send(&query(id)));
    node.wait_for_count("dns_rate_limited_total", 1);
}

#[test]
fn nobody_is_limited_unless_told() {
    let node = Setup::new().config(LOCAL).start();
    let address = Datagrams::from(FLOODING, node.address);
    for id in 0..1_000 {
        assert!(is_answer(&address.exchange(&query(id))), "{id}");
    }
    let counters = node.counters();
    assert_eq!(counters.sum("dns_rate_limited_total", ""), 0);
    assert_eq!(counters.sum("dns_rate_forgotten_total", ""), 0);
}
