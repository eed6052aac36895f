//! What is remembered and for how long, with the cache clock moved by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::client::{Datagrams, Stream, dig, exchange};
use crate::message::{self, A, NXDOMAIN, query};
use crate::node::{Clock, Node, Setup, allowed_cpus, eventually};
use crate::ports::{self, Directory};
use crate::scripted::{Scripted, Step};

const HITS: &str = "dns_cache_hits_total";
const MISSES: &str = "dns_cache_misses_total";

fn with_clock(upstream: &Scripted, config: &str) -> (Clock, Node) {
    let clock = Clock::new();
    let setup = Setup::new().upstream(upstream.address).config(config);
    let node = setup.environment("DNS_TEST_CLOCK", &clock.path()).start();
    (clock, node)
}

fn addresses(ttl: u32) -> Scripted {
    Scripted::start(move |asked| {
        vec![Step::Reply(message::address(&asked.message, ttl, [192, 0, 2, 1]))]
    })
}

/// NXDOMAIN with a SOA that a careless server did not adjust.
fn negative(ttl: u32, minimum: u32) -> Scripted {
    Scripted::start(move |asked| {
        let soa = message::soa("test", ttl, minimum);
        vec![Step::Reply(message::response(&asked.message, NXDOMAIN, &[], &[soa]))]
    })
}

/// The TTL of the first record in the reply to an address question.
fn ttl(node: &Node, qname: &str) -> u32 {
    exchange(node.address, &query(9, qname, A)).records[0].ttl
}

#[test]
fn second_query_is_a_hit() {
    let upstream = addresses(300);
    let node = Setup::new().upstream(upstream.address).start();
    for _ in 0..3 {
        assert_eq!(dig(node.address, "name.test A").rdata("A"), ["192.0.2.1"]);
    }
    let counters = node.counters();
    assert_eq!((counters.sum(HITS, ""), counters.sum(MISSES, "")), (2, 1));
    assert_eq!(upstream.count("name.test."), 1);
}

#[test]
fn hit_over_tcp_finds_what_udp_left() {
    let upstream = addresses(300);
    let node = Setup::new().upstream(upstream.address).start();
    dig(node.address, "+notcp name.test A");
    assert_eq!(dig(node.address, "+tcp name.test A").rdata("A"), ["192.0.2.1"]);
    assert_eq!(upstream.count("name.test."), 1);
}

#[test]
fn ttl_counts_down_and_the_end_brings_the_upstream_back() {
    let upstream = addresses(300);
    let (clock, node) = with_clock(&upstream, "");
    assert_eq!(ttl(&node, "name.test"), 300);
    clock.set(120);
    let aged = eventually("an aged TTL", || Some(ttl(&node, "name.test")).filter(|&ttl| ttl < 200));
    assert!((150..=180).contains(&aged), "{aged}");
    assert_eq!(upstream.count("name.test."), 1);
    clock.set(301);
    let fresh =
        eventually("a fresh TTL", || Some(ttl(&node, "name.test")).filter(|&ttl| ttl > 200));
    assert_eq!((fresh, upstream.count("name.test.")), (300, 2));
}

#[test]
fn ttl_caps_are_obeyed() {
    let upstream = addresses(100_000);
    let config = "[cache]\nttl_max = 600\nttl_min = 5";
    let (_clock, node) = with_clock(&upstream, config);
    assert_eq!(ttl(&node, "long.test"), 600);
    let upstream = addresses(1);
    let (_clock, node) = with_clock(&upstream, config);
    assert_eq!(ttl(&node, "short.test"), 5);
}

#[test]
fn answer_with_ttl_zero_is_given_but_not_kept() {
    let upstream = addresses(0);
    let node = Setup::new().upstream(upstream.address).start();
    for _ in 0..2 {
        assert_eq!(ttl(&node, "zero.test"), 0);
    }
    assert_eq!(upstream.count("zero.test."), 2);
}

#[test]
fn negative_answer_lives_for_the_lesser_of_soa_ttl_and_minimum() {
    for (soa_ttl, minimum) in [(30, 900), (900, 30)] {
        let upstream = negative(soa_ttl, minimum);
        let (clock, node) = with_clock(&upstream, "");
        assert_eq!(ttl(&node, "no.test"), 30, "SOA TTL {soa_ttl}, MINIMUM {minimum}");
        assert!(ttl(&node, "no.test") <= 30);
        assert_eq!(upstream.count("no.test."), 1);
        clock.set(31);
        eventually("a second question", || {
            assert_eq!(exchange(node.address, &query(1, "no.test", A)).rcode(), NXDOMAIN);
            (upstream.count("no.test.") == 2).then_some(())
        });
    }
}

#[test]
fn negative_ttl_is_capped_by_the_config() {
    let upstream = negative(7200, 7200);
    let (_clock, node) = with_clock(&upstream, "[cache]\nnegative_ttl_max = 90");
    assert_eq!(ttl(&node, "no.test"), 90);
}

#[test]
fn negative_answer_without_soa_is_not_kept() {
    let upstream = Scripted::start(|asked| {
        vec![Step::Reply(message::response(&asked.message, NXDOMAIN, &[], &[]))]
    });
    let node = Setup::new().upstream(upstream.address).start();
    for _ in 0..2 {
        let reply = exchange(node.address, &query(1, "no.test", A));
        assert_eq!(reply.rcode(), NXDOMAIN);
    }
    assert_eq!(upstream.count("no.test."), 2);
}

#[test]
fn dnssec_and_plain_answers_are_kept_apart() {
    let upstream = addresses(300);
    let node = Setup::new().upstream(upstream.address).start();
    dig(node.address, "+nodnssec name.test A");
    dig(node.address, "+dnssec name.test A");
    dig(node.address, "+dnssec name.test A");
    assert_eq!(upstream.count("name.test."), 2);
}

#[test]
fn full_cache_stays_within_its_bytes() {
    const NAMES: u32 = 40_000;
    /// What the allocator may keep beside the cache.
    const BESIDE: usize = 3 << 20;
    let upstream = Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 3_600, [192, 0, 2, 1]))]
    });
    let config = "[cache]\nsize = \"2MiB\"";
    let node = Setup::new().upstream(upstream.address).config(config).start();
    let mut stream = Stream::connect(node.address);
    let mut at_first = 0;
    for number in 0..NAMES {
        if number == 1_000 {
            // Threads, rings and buffers are there by now.
            at_first = node.resident_bytes();
        }
        let id = u16::try_from(number % 60_000).unwrap();
        stream.exchange(&query(id, &format!("host{number}.site.test"), A));
    }
    let counters = node.counters();
    assert!(counters.sum("dns_cache_bytes", "") <= 2 << 20);
    assert!(counters.sum("dns_cache_evictions_total", "") > u64::from(NAMES) / 5);
    let grown = node.resident_bytes().saturating_sub(at_first);
    assert!(grown <= (2 << 20) + BESIDE, "{grown} bytes more than at first");
}

#[test]
fn one_number_bounds_the_node_and_the_plan_is_printed() {
    let setup = || Setup::new().upstream(ports::own()).config("");
    let plan = setup().argument("--memory").argument("1GiB").argument("--check").printed();
    assert!(plan.contains("memory:    1024 MiB at most: cache "), "{plan}");
    let node = setup().argument("--memory").argument("1GiB").start();
    assert!(node.log().contains("memory: 1024 MiB at most: cache "), "{}", node.log());
    let mut poor = setup().argument("--memory").argument("40MiB").spawn();
    assert_eq!(poor.wait_for_exit().code(), Some(2));
    assert!(
        poor.log().contains("node.memory: 40 MiB are too little for 1 core(s)"),
        "{}",
        poor.log()
    );
}

#[test]
fn core_that_refreshes_a_changed_answer_makes_the_others_forget_theirs() {
    let cpus = allowed_cpus();
    let [first, second, ..] = cpus.as_slice() else {
        return eprintln!("only one CPU is allowed here: there are no others");
    };
    let last = Arc::new(AtomicU8::new(1));
    let current = Arc::clone(&last);
    let upstream = Scripted::start(move |asked| {
        let address = [192, 0, 2, current.load(Ordering::Acquire)];
        vec![Step::Reply(message::address(&asked.message, 300, address))]
    });
    let clock = Clock::new();
    let setup = Setup::new().upstream(upstream.address).config("[cache]\nprefetch = false");
    let setup = setup.environment("DNS_TEST_CLOCK", &clock.path());
    let node = setup.cores(&format!("{first},{second}")).start();
    // Two clients whose port makes them each core's.
    let seen = |core: &str| node.counters().sum("dns_queries_total", &format!("core=\"{core}\""));
    let client_of = |core: &str| {
        eventually("a client of that core", || {
            let before = seen(core);
            let client = Datagrams::to(node.address);
            client.exchange(&query(1, "warm.test", A));
            (seen(core) > before).then_some(client)
        })
    };
    let clients = [client_of("0"), client_of("1")];
    let ask = |client: &Datagrams| {
        let record = client.exchange(&query(2, "name.test", A)).records.remove(0);
        (record.rdata[3], record.ttl)
    };
    assert_eq!(ask(&clients[0]), (1, 300));
    clock.set(200);
    eventually("time passes", || (ask(&clients[0]).1 <= 100).then_some(()));
    assert_eq!(ask(&clients[1]), (1, 300), "the other core asks for itself");
    last.store(2, Ordering::Release);
    clock.set(301);
    eventually("the first core learns better", || (ask(&clients[0]).0 == 2).then_some(()));
    eventually("the second one, too", || (ask(&clients[1]).0 == 2).then_some(()));
    // More only where a busy machine makes an attempt time out.
    assert!(upstream.count("name.test.") >= 4);
    assert!(node.counters().sum("dns_cache_superseded_total", "") >= 1);
}

#[test]
fn warm_up_list_is_resolved_before_anybody_asks() {
    let upstream = addresses(300);
    let directory = Directory::create();
    let list = directory.path().join("names");
    let mut text = "# warm\nfirst.test\nsecond.test A\nnot..a.name\n".to_owned();
    (0..40).for_each(|number| text.push_str(&format!("host{number}.test A\n")));
    std::fs::write(&list, text).unwrap();
    let config = format!("[cache]\nwarm_up = {list:?}\nwarm_up_rate = 400\n");
    let node = Setup::new().upstream(upstream.address).config(&config).start();
    let bad = node.wait_for_line("not..a.name");
    assert!(bad.contains(":4: \"not..a.name\": not a domain name"), "{bad}");
    let done = node.wait_for_line("warm-up is over");
    assert!(done.contains("core 0: warm-up is over: 43 questions asked, 0 known before"), "{done}");
    eventually("all answers", || {
        // The upstream has nothing for AAAA.
        (node.counters().sum("dns_cache_inserts_total", "") == 42).then_some(())
    });
    assert_eq!(dig(node.address, "first.test A").rdata("A"), ["192.0.2.1"]);
    assert_eq!(dig(node.address, "host39.test A").rdata("A"), ["192.0.2.1"]);
    assert_eq!(node.counters().sum(MISSES, ""), 0);
    let mut lost = Setup::new().config("[cache]\nwarm_up = \"/nonexistent/list\"").spawn();
    assert_eq!(lost.wait_for_exit().code(), Some(2));
    assert!(lost.log().contains("cache.warm_up: /nonexistent/list: "), "{}", lost.log());
}
