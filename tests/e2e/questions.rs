//! What clients ask every day, over every transport and backend, with both programs.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::client::{Program, Reply, dig, exchange};
use crate::message;
use crate::node::{Node, Setup};
use crate::ports;
use crate::upstream::Nsd;

/// A zone of the config, and an identity.
const LOCAL: &str = r#"
[identity]
version = "heimdall under test"
id = "node-7"

[[local]]
zone = "local.test."
records = """
@     3600 SOA ns hostmaster 1 2 3 4 5
@          NS  ns
ns         A   192.0.2.53
hello  60  TXT "hello world"
hello  60  A   192.0.2.7
"""
"#;

fn forwarding() -> (Nsd, Node) {
    let nsd = Nsd::start();
    let node = Setup::new().upstream(nsd.address).start();
    (nsd, node)
}

/// Each program over UDP and over TCP: `check` must not see a difference.
fn by_all_means(server: SocketAddr, question: &str, check: impl Fn(&Reply)) {
    for program in Program::BOTH {
        for transport in ["+notcp", "+tcp"] {
            let reply = program.ask(server, &format!("{transport} {question}"));
            assert!(reply.has("ra") && reply.has("qr"), "{program:?} {transport}\n{}", reply.text);
            check(&reply);
        }
    }
}

#[test]
fn address_questions_are_answered_over_udp_and_tcp() {
    let (_nsd, node) = forwarding();
    by_all_means(node.address, "www.example.test A", |reply| {
        assert_eq!(reply.status, "NOERROR");
        assert_eq!(reply.rdata("A"), ["192.0.2.1", "192.0.2.2"]);
    });
    by_all_means(node.address, "www.example.test AAAA", |reply| {
        assert_eq!(reply.rdata("AAAA"), ["2001:db8::1"]);
    });
}

#[test]
fn mx_txt_soa_and_unknown_types_arrive_unchanged() {
    let (_nsd, node) = forwarding();
    by_all_means(node.address, "example.test MX", |reply| {
        assert_eq!(reply.rdata("MX"), ["10 mail.example.test.", "20 mail.example.net."]);
    });
    by_all_means(node.address, "text.example.test TXT", |reply| {
        assert_eq!(reply.rdata("TXT"), [r#""one string" "another; with \"quotes\"""#]);
    });
    by_all_means(node.address, "example.test SOA", |reply| {
        let soa = "ns.example.test. hostmaster.example.test. 1 7200 3600 1209600 60";
        assert_eq!(reply.rdata("SOA"), [soa]);
    });
    by_all_means(node.address, "unknown.example.test TYPE65280", |reply| {
        assert_eq!(reply.rdata("TYPE65280"), [r"\# 4 0A000001"]);
    });
}

#[test]
fn cname_chain_arrives_whole_and_in_order() {
    let (_nsd, node) = forwarding();
    by_all_means(node.address, "alias.example.test A", |reply| {
        let types: Vec<_> = reply.answer.iter().map(|record| record.rtype.as_str()).collect();
        assert_eq!(types, ["CNAME", "CNAME", "A", "A"]);
        assert_eq!(reply.answer[0].rdata, "hop.example.test.");
        assert_eq!(reply.answer[1].rdata, "www.example.test.");
    });
}

#[test]
fn nxdomain_and_nodata_carry_the_soa() {
    let (_nsd, node) = forwarding();
    for (question, status) in
        [("no.example.test A", "NXDOMAIN"), ("www.example.test MX", "NOERROR")]
    {
        by_all_means(node.address, question, |reply| {
            assert_eq!(reply.status, status);
            assert!(reply.answer.is_empty(), "{}", reply.text);
            let [soa] = reply.authority.as_slice() else { panic!("no SOA:\n{}", reply.text) };
            assert_eq!((soa.owner.as_str(), soa.rtype.as_str()), ("example.test.", "SOA"));
            assert!(soa.ttl <= 60, "{}", reply.text);
        });
    }
}

#[test]
fn any_gets_a_small_answer_and_no_upstream_is_asked() {
    let (_nsd, node) = forwarding();
    by_all_means(node.address, "example.test ANY", |reply| {
        assert_eq!(reply.status, "NOERROR");
        assert_eq!(reply.rdata("HINFO"), [r#""RFC8482" """#]);
        assert_eq!(reply.answer.len(), 1);
        assert!(!reply.has("tc"));
    });
    assert_eq!(node.counters().sum("dns_upstream_queries_total", ""), 0);
}

#[test]
fn local_zone_is_answered_offline() {
    let node = Setup::new().config(LOCAL).start();
    by_all_means(node.address, "hello.local.test TXT", |reply| {
        assert_eq!(reply.status, "NOERROR");
        assert_eq!(reply.rdata("TXT"), [r#""hello world""#]);
        assert_eq!(reply.answer[0].ttl, 60);
    });
    by_all_means(node.address, "no.local.test A", |reply| assert_eq!(reply.status, "NXDOMAIN"));
    by_all_means(node.address, "hello.local.test MX", |reply| {
        assert_eq!((reply.status.as_str(), reply.answer.len()), ("NOERROR", 0));
        assert_eq!(reply.authority[0].rtype, "SOA");
    });
    assert_eq!(node.counters().sum("dns_upstream_queries_total", ""), 0);
}

#[test]
fn chaos_questions_learn_what_is_configured() {
    let node = Setup::new().config(LOCAL).start();
    by_all_means(node.address, "version.bind CH TXT", |reply| {
        assert_eq!(reply.rdata("TXT"), [r#""heimdall under test""#]);
    });
    by_all_means(node.address, "id.server CH TXT", |reply| {
        assert_eq!(reply.rdata("TXT"), [r#""node-7""#]);
    });
    let silent = Setup::new().start();
    by_all_means(silent.address, "version.bind CH TXT", |reply| {
        assert_eq!(reply.status, "REFUSED")
    });
}

#[test]
fn casing_of_the_question_is_kept_in_miss_and_hit() {
    let (_nsd, node) = forwarding();
    for (id, qname) in
        [(1, "wWw.eXample.TEST."), (2, "WWW.example.test."), (3, "www.EXAMPLE.tesT.")]
    {
        let reply = exchange(node.address, &message::query(id, qname, message::A));
        assert_eq!((reply.id, reply.qname.as_str()), (id, qname));
        assert_eq!(reply.counts[1], 2);
    }
    assert_eq!(node.counters().sum("dns_cache_hits_total", ""), 2);
}

#[test]
fn ipv6_clients_are_served() {
    let nsd = Nsd::start();
    let address = ports::free(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let node = Setup::new().listen(address).upstream(nsd.address).start();
    by_all_means(node.address, "www.example.test AAAA", |reply| {
        assert_eq!(reply.rdata("AAAA"), ["2001:db8::1"]);
    });
}

#[test]
fn one_node_serves_several_addresses() {
    let v6 = ports::free(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let addresses = [ports::own(), ports::own(), v6];
    let setup = addresses.into_iter().fold(Setup::new().config(LOCAL), Setup::listen);
    let _node = setup.start();
    for address in addresses {
        by_all_means(address, "hello.local.test A", |reply| {
            assert_eq!(reply.rdata("A"), ["192.0.2.7"]);
        });
    }
}

#[test]
fn both_backends_answer_the_same() {
    let nsd = Nsd::start();
    for backend in ["uring", "mmsg"] {
        let setup = Setup::new().upstream(nsd.address).config(LOCAL);
        let node = setup.argument("--io").argument(backend).start();
        let hello = dig(node.address, "hello.local.test A");
        assert_eq!(hello.rdata("A"), ["192.0.2.7"], "{backend}");
        for _ in 0..2 {
            let www = dig(node.address, "www.example.test A");
            assert_eq!(www.rdata("A"), ["192.0.2.1", "192.0.2.2"], "{backend}");
        }
        assert_eq!(dig(node.address, "no.example.test A").status, "NXDOMAIN", "{backend}");
        let big = dig(node.address, "+ignore big.example.test TXT");
        assert!(big.has("tc"), "{backend}\n{}", big.text);
        let counters = node.counters();
        assert_eq!(counters.sum("dns_cache_hits_total", ""), 1, "{backend}");
        assert_eq!(counters.sum("dns_responses_total", "rcode=\"NXDOMAIN\""), 1, "{backend}");
    }
}

#[test]
fn zone_transfers_are_refused() {
    let (_nsd, node) = forwarding();
    let query = message::query(5, "example.test", 252);
    assert_eq!(exchange(node.address, &query).rcode(), message::REFUSED);
}
