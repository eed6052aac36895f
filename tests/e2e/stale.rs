//! What is served when the upstream is late or gone, and how seldom it is bothered: stale answers, cached failures,
//! refreshment ahead of time, names below a name that does not exist.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::{dig, exchange};
use crate::message::{self, A, NOERROR, NXDOMAIN, SERVFAIL, opt, query, query_with};
use crate::node::{Clock, Node, Setup, eventually};
use crate::scripted::{Gate, Scripted, Step};

const HASTY: &str = "[forward]\nattempt_timeout = \"50ms\"\ndeadline = \"200ms\"";

/// An upstream with a switch: answers with addresses of TTL 300, or keeps silent.
fn switched() -> (Scripted, Arc<AtomicBool>) {
    let is_up = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&is_up);
    let upstream = Scripted::start(move |asked| {
        if !switch.load(Ordering::Acquire) {
            return vec![];
        }
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
    });
    (upstream, is_up)
}

fn with_clock(upstream: &Scripted, config: &str) -> (Clock, Node) {
    let clock = Clock::new();
    let setup = Setup::new().upstream(upstream.address).config(config);
    let node = setup.environment("DNS_TEST_CLOCK", &clock.path()).start();
    (clock, node)
}

/// RCODE, extended error and TTL of the first record of what `qname` gets.
fn ask(node: &Node, qname: &str) -> (u16, Option<u16>, Option<u32>) {
    let asked = query_with(7, qname, A, &[opt(1232, 0, 0, &[])]);
    let reply = exchange(node.address, &asked);
    let ttl = reply.records.iter().find(|record| record.rtype == A).map(|record| record.ttl);
    (reply.rcode(), reply.extended_error(), ttl)
}

#[test]
fn dead_upstream_leaves_stale_answers_with_ttl_30_and_ede_3() {
    let (upstream, is_up) = switched();
    let (clock, node) = with_clock(&upstream, HASTY);
    assert_eq!(ask(&node, "name.test"), (NOERROR, None, Some(300)));
    is_up.store(false, Ordering::Release);
    clock.set(301);
    eventually("a stale answer", || {
        (ask(&node, "name.test") == (NOERROR, Some(3), Some(30))).then_some(())
    });
    let reply = dig(node.address, "name.test A");
    assert!(reply.text.contains("EDE: 3 (Stale Answer)"), "{}", reply.text);
    is_up.store(true, Ordering::Release);
    clock.set(400);
    eventually("a fresh answer", || {
        (ask(&node, "name.test") == (NOERROR, None, Some(300))).then_some(())
    });
}

#[test]
fn stale_answers_can_be_switched_off() {
    let (upstream, is_up) = switched();
    let (clock, node) = with_clock(&upstream, &format!("{HASTY}\n[cache]\nstale_max = \"0s\""));
    ask(&node, "name.test");
    is_up.store(false, Ordering::Release);
    clock.set(301);
    eventually("a failure", || (ask(&node, "name.test").0 == SERVFAIL).then_some(()));
}

#[test]
fn slow_upstream_costs_a_client_no_more_than_its_patience() {
    let gate = Gate::default();
    let held = gate.clone();
    let is_first = AtomicBool::new(true);
    let upstream = Scripted::start(move |asked| {
        let answer = message::address(&asked.message, 300, [192, 0, 2, 1]);
        let is_first = is_first.swap(false, Ordering::AcqRel);
        vec![if is_first { Step::Reply(answer) } else { Step::When(held.clone(), answer) }]
    });
    let config = "[forward]\nattempt_timeout = \"20s\"\ndeadline = \"20s\"\n\
                  [cache]\nstale_after = \"100ms\"";
    let (clock, node) = with_clock(&upstream, config);
    assert_eq!(ask(&node, "slow.test"), (NOERROR, None, Some(300)));
    clock.set(301);
    eventually("a stale answer", || {
        (ask(&node, "slow.test") == (NOERROR, Some(3), Some(30))).then_some(())
    });
    assert_eq!(ask(&node, "slow.test"), (NOERROR, Some(3), Some(30)), "at once");
    assert_eq!(node.counters().sum("dns_refreshes_total", ""), 0, "one question is on its way");
    gate.open();
    eventually("a fresh answer", || {
        (ask(&node, "slow.test") == (NOERROR, None, Some(300))).then_some(())
    });
}

#[test]
fn stale_nxdomain_says_so_by_ede_19() {
    let is_up = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&is_up);
    let upstream = Scripted::start(move |asked| {
        let soa = message::soa("test", 60, 60);
        let denial = message::response(&asked.message, NXDOMAIN, &[], &[soa]);
        if switch.load(Ordering::Acquire) { vec![Step::Reply(denial)] } else { vec![] }
    });
    let (clock, node) = with_clock(&upstream, HASTY);
    assert_eq!(ask(&node, "no.test"), (NXDOMAIN, None, None));
    is_up.store(false, Ordering::Release);
    clock.set(61);
    eventually("a stale denial", || (ask(&node, "no.test").1 == Some(19)).then_some(()));
}

#[test]
fn failure_is_not_tried_again_for_a_while() {
    let (upstream, is_up) = switched();
    is_up.store(false, Ordering::Release);
    let config = "[forward]\nattempt_timeout = \"50ms\"\ndeadline = \"50ms\"";
    let (clock, node) = with_clock(&upstream, config);
    assert_eq!(ask(&node, "name.test").1, Some(22));
    let asked = upstream.count("name.test.");
    for _ in 0..5 {
        let (rcode, ede, _) = ask(&node, "name.test");
        // On a machine that stood still for a second it is tried once more.
        assert!(rcode == SERVFAIL && [Some(13), Some(22)].contains(&ede), "{rcode} {ede:?}");
    }
    assert!(upstream.count("name.test.") <= asked + 1);
    is_up.store(true, Ordering::Release);
    clock.set(40);
    eventually("an answer", || (ask(&node, "name.test").0 == NOERROR).then_some(()));
}

#[test]
fn popular_name_is_refreshed_before_its_end() {
    let (upstream, _is_up) = switched();
    let (clock, node) = with_clock(&upstream, "");
    for _ in 0..3 {
        ask(&node, "popular.test");
    }
    assert_eq!(upstream.count("popular.test."), 1);
    clock.set(280);
    eventually("a second question", || {
        let (rcode, ede, _) = ask(&node, "popular.test");
        assert_eq!((rcode, ede), (NOERROR, None));
        (upstream.count("popular.test.") == 2).then_some(())
    });
    eventually("the fresh answer", || ask(&node, "popular.test").2.filter(|&ttl| ttl > 200));
    assert_eq!(upstream.count("popular.test."), 2);
    assert_eq!(node.counters().sum("dns_cache_misses_total", ""), 1);
}

#[test]
fn refreshment_can_be_switched_off() {
    let (upstream, _is_up) = switched();
    let (clock, node) = with_clock(&upstream, "[cache]\nprefetch = false");
    for _ in 0..3 {
        ask(&node, "popular.test");
    }
    clock.set(280);
    eventually("an aged answer", || ask(&node, "popular.test").2.filter(|&ttl| ttl < 30));
    ask(&node, "popular.test");
    assert_eq!(upstream.count("popular.test."), 1);
}

/// NXDOMAIN for all but `exists.test`.
fn mostly_nothing() -> Scripted {
    Scripted::start(|asked| {
        if asked.qname() == "exists.test." {
            return vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))];
        }
        let soa = message::soa("test", 300, 300);
        vec![Step::Reply(message::response(&asked.message, NXDOMAIN, &[], &[soa]))]
    })
}

#[test]
fn name_that_does_not_exist_has_no_types_and_nothing_below() {
    let upstream = mostly_nothing();
    let node = Setup::new().upstream(upstream.address).start();
    assert_eq!(dig(node.address, "no.test A").status, "NXDOMAIN");
    for (name, rtype) in [("no.test", "AAAA"), ("a.no.test", "A"), ("b.a.no.test", "MX")] {
        let reply = dig(node.address, &format!("{name} {rtype}"));
        assert_eq!(reply.status, "NXDOMAIN");
        assert!(reply.text.contains("\tSOA\t"), "{}", reply.text);
        assert_eq!(upstream.count(&format!("{name}.")), usize::from(name == "no.test"));
    }
    assert_eq!(dig(node.address, "exists.test A").status, "NOERROR");
    assert_eq!(dig(node.address, "other.test A").status, "NXDOMAIN");
    assert_eq!(upstream.count("other.test."), 1);
}

#[test]
fn names_below_are_asked_for_when_the_cut_is_switched_off() {
    let upstream = mostly_nothing();
    let config = "[cache]\nnxdomain_cut = false";
    let node = Setup::new().upstream(upstream.address).config(config).start();
    exchange(node.address, &query(1, "no.test", A));
    exchange(node.address, &query(1, "a.no.test", A));
    assert_eq!(upstream.count("a.no.test."), 1);
}

#[test]
fn flood_of_expiring_names_is_refreshed_within_bounds() {
    const NAMES: usize = 200;
    let upstream = Scripted::start(|asked| {
        let answer = message::address(&asked.message, 300, [192, 0, 2, 1]);
        vec![Step::After(Duration::from_millis(20), answer)]
    });
    let config = "[forward]\ninflight_max = 40\n[cache]\nstale_max = \"0s\"";
    let (clock, node) = with_clock(&upstream, config);
    let names: Vec<String> = (0..NAMES).map(|number| format!("host{number}.test")).collect();
    for name in &names {
        ask(&node, name);
        ask(&node, name);
    }
    clock.set(275);
    // Once through them all, as fast as they come: all are served, and ten at most are refreshed at a time.
    for name in &names {
        assert_eq!(ask(&node, name).0, NOERROR);
    }
    assert_eq!(node.counters().sum("dns_overload_total", ""), 0);
}
