//! Upstreams that cut, lie, die and keep silent, and what clients see of it.

use std::time::Duration;

use crate::client::{Datagrams, Program, dig, exchange};
use crate::message::{self, A, Message, NOERROR, REFUSED, SERVFAIL, TC, TXT, query_with};
use crate::node::{Node, Setup, allowed_cpus};
use crate::ports;
use crate::scripted::{Asked, Gate, Scripted, Step};
use crate::upstream::Nsd;

const QUERIES: &str = "dns_upstream_queries_total";
const NO_REACHABLE_AUTHORITY: u16 = 22;
const NETWORK_ERROR: u16 = 23;
const PATIENT: &str =
    "[forward]\npolicy = \"ordered\"\nattempt_timeout = \"10s\"\ndeadline = \"20s\"";
const HASTY: &str = "[forward]\nattempt_timeout = \"200ms\"\ndeadline = \"1s\"";

fn answer(asked: &Asked) -> Vec<u8> {
    message::address(&asked.message, 300, [192, 0, 2, 1])
}

fn forward_to(upstream: &Scripted, config: &str) -> Node {
    Setup::new().upstream(upstream.address).config(config).start()
}

/// Asks with EDNS, so that extended errors can be told.
fn ask(node: &Node, qname: &str) -> Message {
    exchange(node.address, &query_with(5, qname, A, &[message::opt(1232, 0, 0, &[])]))
}

#[test]
fn truncated_answer_is_fetched_over_tcp() {
    let upstream = Scripted::start(|asked| {
        let texts: Vec<_> = (0..30u8)
            .map(|number| {
                message::record("big.test", TXT, 300, &[&[99], [number; 99].as_slice()].concat())
            })
            .collect();
        let whole = message::response(&asked.message, NOERROR, &texts, &[]);
        let cut = message::response(&asked.message, TC, &[], &[]);
        vec![Step::Reply(if asked.is_tcp { whole } else { cut })]
    });
    let node = forward_to(&upstream, "");
    assert_eq!(dig(node.address, "+tcp big.test TXT").rdata("TXT").len(), 30);
    let transports: Vec<_> = upstream.asked().iter().map(|asked| asked.is_tcp).collect();
    assert_eq!(transports, [false, true]);
    assert_eq!(node.counters().sum(QUERIES, "transport=\"tcp\""), 1);
}

#[test]
fn large_answers_of_a_real_server_come_over_tcp() {
    let nsd = Nsd::start();
    let node = Setup::new().upstream(nsd.address).start();
    assert_eq!(dig(node.address, "huge.example.test TXT").rdata("TXT").len(), 400);
    assert_eq!(node.counters().sum(QUERIES, "transport=\"tcp\""), 1);
}

#[test]
fn log_tells_when_an_upstream_goes_and_comes_back() {
    let upstream = Scripted::start(|asked| match asked.qname().as_str() {
        "live.test." => vec![Step::Reply(answer(asked))],
        _ => vec![],
    });
    let node = forward_to(&upstream, HASTY);
    assert_eq!(ask(&node, "first.test").rcode(), SERVFAIL);
    assert_eq!(ask(&node, "second.test").rcode(), SERVFAIL);
    let address = upstream.address.to_string();
    assert!(node.wait_for_line("is asked last for").contains(&address), "{}", node.log());
    node.wait_for_line("1 question(s) got no answer: no upstream answered in time");
    assert_eq!(node.log().matches("got no answer").count(), 1, "{}", node.log());
    assert_eq!(ask(&node, "live.test").rcode(), NOERROR);
    assert!(node.wait_for_line("answers again").contains(&address), "{}", node.log());
}

#[test]
fn second_upstream_answers_for_a_dead_first() {
    let dead = Scripted::start(|_| vec![]);
    let alive = Scripted::start(|asked| vec![Step::Reply(answer(asked))]);
    let timeouts =
        "[forward]\npolicy = \"ordered\"\nattempt_timeout = \"200ms\"\ndeadline = \"5s\"";
    let setup = Setup::new().upstream(dead.address).upstream(alive.address);
    let node = setup.config(timeouts).start();
    let reply = ask(&node, "name.test");
    assert_eq!((reply.rcode(), reply.counts[1]), (NOERROR, 1));
    assert_eq!(dead.count("name.test."), 1);
    assert_eq!(node.counters().sum("dns_upstream_attempts_total", "outcome=\"late\""), 1);
}

#[test]
fn second_upstream_answers_at_once_where_the_kernel_will_not_send_to_the_first() {
    for backend in ["uring", "mmsg"] {
        // Broadcast, here on the loopback network, needs a permission that no socket asks for.
        let forbidden: std::net::SocketAddr = "127.255.255.255:53".parse().unwrap();
        let alive = Scripted::start(|asked| vec![Step::Reply(answer(asked))]);
        let setup = Setup::new().upstream(forbidden).upstream(alive.address).config(PATIENT);
        let node = setup.argument("--io").argument(backend).start();
        assert_eq!(ask(&node, "name.test").rcode(), NOERROR);
        let counters = node.counters();
        assert_eq!(counters.sum("dns_upstream_unreachable_total", ""), 1, "{backend}");
        let late = counters.sum("dns_upstream_attempts_total", "outcome=\"late\"");
        assert_eq!(late, 0, "{backend}");
    }
}

#[test]
fn second_upstream_answers_at_once_where_the_port_of_the_first_is_closed() {
    for backend in ["uring", "mmsg"] {
        for closed in [ports::own(), ports::free("::1".parse().unwrap())] {
            let alive = Scripted::start(|asked| vec![Step::Reply(answer(asked))]);
            let setup = Setup::new().upstream(closed).upstream(alive.address).config(PATIENT);
            let node = setup.argument("--io").argument(backend).start();
            assert_eq!(ask(&node, "name.test").rcode(), NOERROR);
            let counters = node.counters();
            assert_eq!(counters.sum("udp_icmp_errors_total", ""), 1, "{backend} {closed}");
            assert_eq!(counters.sum("dns_upstream_unreachable_total", ""), 1, "{backend} {closed}");
            let late = counters.sum("dns_upstream_attempts_total", "outcome=\"late\"");
            assert_eq!(late, 0, "{backend} {closed}");
        }
    }
}

#[test]
fn second_upstream_answers_for_a_failing_first() {
    for rcode in [SERVFAIL, REFUSED] {
        let failing = Scripted::start(move |asked| {
            vec![Step::Reply(message::response(&asked.message, rcode, &[], &[]))]
        });
        let alive = Scripted::start(|asked| vec![Step::Reply(answer(asked))]);
        let setup = Setup::new().upstream(failing.address).upstream(alive.address);
        let node = setup.config("[forward]\npolicy = \"ordered\"").start();
        assert_eq!(ask(&node, "name.test").rcode(), NOERROR);
        assert_eq!(failing.count("name.test."), 1);
    }
}

#[test]
fn silence_of_all_upstreams_is_servfail_with_its_reason() {
    let dead = Scripted::start(|_| vec![]);
    let setup = Setup::new().upstream(dead.address).upstream(ports::own());
    let node = setup.config(HASTY).start();
    let reply = ask(&node, "name.test");
    assert_eq!(reply.rcode(), SERVFAIL);
    assert_eq!(reply.extended_error(), Some(NO_REACHABLE_AUTHORITY));
    for (program, name) in Program::BOTH.into_iter().zip(["dig.test", "kdig.test"]) {
        for ede in ["EDE: 22", "EDE: 13"] {
            let reply = program.ask(node.address, &format!("+edns=0 {name} A"));
            assert_eq!(reply.status, "SERVFAIL");
            assert!(reply.text.contains(ede), "{}", reply.text);
            assert!(reply.text.contains("no upstream answered in time"), "{}", reply.text);
        }
    }
}

#[test]
fn errors_of_all_upstreams_are_servfail_with_their_reason() {
    let failing = Scripted::start(|asked| {
        vec![Step::Reply(message::response(&asked.message, REFUSED, &[], &[]))]
    });
    let node = forward_to(&failing, HASTY);
    let reply = ask(&node, "name.test");
    assert_eq!(reply.rcode(), SERVFAIL);
    assert_eq!(reply.extended_error(), Some(NETWORK_ERROR));
}

#[test]
fn forged_replies_are_ignored_and_the_right_one_is_taken() {
    let upstream = Scripted::start(|asked| {
        let forged = message::address(&asked.message, 300, [203, 0, 113, 66]);
        let mut wrong_id = forged.clone();
        wrong_id[1] ^= 0x55;
        let mut wrong_question = forged.clone();
        // The first letter of the name.
        wrong_question[13] ^= 0x01;
        let mut wrong_type = forged.clone();
        let type_at = 12 + message::name(&asked.qname()).len() + 1;
        wrong_type[type_at] = 28;
        let mut no_response = forged.clone();
        no_response[2] &= 0x7F;
        vec![
            Step::Reply(wrong_id),
            Step::Reply(wrong_question),
            Step::Reply(wrong_type),
            Step::Reply(no_response),
            Step::Reply(forged[..7].to_vec()),
            Step::FromOtherPort(forged.clone()),
            Step::FromOtherAddress(forged),
            Step::After(Duration::from_millis(50), answer(asked)),
        ]
    });
    let node = forward_to(&upstream, PATIENT);
    let reply = ask(&node, "name.test");
    assert_eq!(reply.records[0].rdata, [192, 0, 2, 1]);
    assert_eq!(upstream.count("name.test."), 1);
    let counters = node.counters();
    let mismatches = |cause| counters.sum("dns_upstream_mismatches_total", cause);
    assert_eq!(mismatches("wrong=\"source\""), 2);
    assert!(mismatches("wrong=\"id\"") >= 1 && mismatches("wrong=\"question\"") >= 2);
}

#[test]
fn records_nobody_asked_for_are_left_out() {
    let upstream = Scripted::start(|asked| {
        let records = [
            message::record("name.test", A, 300, &[192, 0, 2, 1]),
            message::record("bank.test", A, 300, &[203, 0, 113, 66]),
        ];
        vec![Step::Reply(message::response(&asked.message, NOERROR, &records, &[]))]
    });
    let node = forward_to(&upstream, "");
    assert_eq!(dig(node.address, "name.test A").rdata("A"), ["192.0.2.1"]);
}

#[test]
fn thousand_askers_of_one_slow_name_cause_one_upstream_query() {
    const SOCKETS: u16 = 10;
    const PER_SOCKET: u16 = 100;
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Scripted::start(move |asked| vec![Step::When(held.clone(), answer(asked))]);
    let node = forward_to(&upstream, &format!("{PATIENT}\nwaiters_max = 2000"));
    // Several sockets: the kernel's default buffer of one would not hold a thousand replies at once.
    let sockets: Vec<_> = (0..SOCKETS).map(|_| Datagrams::to(node.address)).collect();
    for (socket, sent) in sockets.iter().zip(1..) {
        for id in 0..PER_SOCKET {
            socket.send(&message::query(id, "slow.test", A));
        }
        node.wait_for_count("dns_cache_misses_total", sent * u64::from(PER_SOCKET));
    }
    gate.open();
    for socket in &sockets {
        let mut ids: Vec<_> = (0..PER_SOCKET)
            .map(|_| {
                let reply = socket.receive();
                assert_eq!((reply.rcode(), reply.counts[1]), (NOERROR, 1));
                reply.id
            })
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..PER_SOCKET).collect::<Vec<_>>());
    }
    assert_eq!(upstream.asked().len(), 1);
    assert_eq!(node.counters().sum("dns_coalesced_total", ""), 999);
}

#[test]
fn every_core_asks_once_for_all_of_its_own_askers() {
    let cpus = allowed_cpus();
    let [first, second, ..] = cpus.as_slice() else {
        return eprintln!("only one CPU is allowed here: there are no two cores to compare");
    };
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Scripted::start(move |asked| vec![Step::When(held.clone(), answer(asked))]);
    let node = Setup::new()
        .upstream(upstream.address)
        .cores(&format!("{first},{second}"))
        .config(PATIENT)
        .start();
    // 64 source ports: that all fall to one core happens once in 2^63 runs.
    let sockets: Vec<_> = (0..64).map(|_| Datagrams::to(node.address)).collect();
    for socket in &sockets {
        socket.send(&message::query(7, "slow.test", A));
    }
    node.wait_for_count("dns_cache_misses_total", 64);
    gate.open();
    for socket in &sockets {
        let reply = socket.receive();
        assert_eq!((reply.rcode(), reply.counts[1]), (NOERROR, 1));
    }
    assert_eq!(upstream.count("slow.test."), 2);
    let counters = node.counters();
    assert_eq!(counters.sum("dns_coalesced_total", ""), 62);
    for core in ["core=\"0\"", "core=\"1\""] {
        assert!(counters.sum("dns_cache_misses_total", core) > 0, "{core}");
    }
}

#[test]
fn cached_names_are_answered_when_the_upstream_is_gone() {
    let mut nsd = Nsd::start();
    let node = Setup::new().upstream(nsd.address).config(HASTY).start();
    for question in ["www.example.test A", "example.test MX", "no.example.test A"] {
        dig(node.address, question);
    }
    nsd.stop();
    assert_eq!(dig(node.address, "www.example.test A").rdata("A"), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(dig(node.address, "example.test MX").rdata("MX").len(), 2);
    assert_eq!(dig(node.address, "no.example.test A").status, "NXDOMAIN");
    assert_eq!(dig(node.address, "text.example.test TXT").status, "SERVFAIL");
}

#[test]
fn upstream_sees_unforeseeable_ids_and_ports() {
    let upstream = Scripted::start(|asked| vec![Step::Reply(answer(asked))]);
    let node = forward_to(&upstream, "");
    let socket = Datagrams::to(node.address);
    for id in 0..64 {
        socket.exchange(&message::query(id, &format!("name{id}.test"), A));
    }
    let asked = upstream.asked();
    let distinct = |mut values: Vec<u16>| {
        values.sort_unstable();
        values.dedup();
        values.len()
    };
    let ids = asked.iter().map(|asked| Message::parse(&asked.message).id).collect();
    let source_ports = asked.iter().map(|asked| asked.from.port()).collect();
    // 64 of 65 536 drawn at random: eight or more coincidences happen once in many lifetimes.
    assert!(distinct(ids) > 56, "IDs repeat");
    assert!(distinct(source_ports) > 8, "source ports repeat");
}

#[test]
fn upstreams_over_ipv6_are_asked() {
    let address = ports::free(std::net::Ipv6Addr::LOCALHOST.into());
    let upstream = Scripted::start_at(address, |asked| vec![Step::Reply(answer(asked))]);
    let node = forward_to(&upstream, "");
    assert_eq!(ask(&node, "name.test").rcode(), NOERROR);
}
