//! Special names: answered by the node itself, and never heard of by an upstream.

use crate::client::{Reply, dig};
use crate::message;
use crate::node::{Node, Setup};
use crate::scripted::{Scripted, Step};

/// A node whose upstream answers everything; names under `test.` are special, as for everybody but these tests.
fn node(config: &str) -> (Scripted, Node) {
    let upstream = Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
    });
    let setup = Setup::new().upstream(upstream.address).config(config);
    (upstream, setup.environment("HEIMDALL_SPECIAL_TEST", "true").start())
}

fn soa_of(reply: &Reply) -> &str {
    let [soa] = &reply.authority[..] else { panic!("one SOA\n{}", reply.text) };
    assert_eq!((soa.rtype.as_str(), soa.ttl), ("SOA", 10_800), "{}", reply.text);
    &soa.owner
}

#[test]
fn special_names_are_answered_and_never_forwarded() {
    let (upstream, node) = node("");
    let ask = |question: &str| dig(node.address, question);
    for name in ["localhost", "a.b.localhost"] {
        assert_eq!(ask(&format!("{name} A")).rdata("A"), ["127.0.0.1"]);
        assert_eq!(ask(&format!("{name} AAAA")).rdata("AAAA"), ["::1"]);
        let other = ask(&format!("{name} MX"));
        assert_eq!((other.status.as_str(), soa_of(&other)), ("NOERROR", "localhost."));
    }
    for (question, apex) in [
        ("www.invalid A", "invalid."),
        ("invalid A", "invalid."),
        ("www.test AAAA", "test."),
        ("duckduckgo.onion A", "onion."),
        ("onion NS", "onion."),
        ("name.alt A", "alt."),
        ("printer.home.arpa A", "home.arpa."),
        ("-x 10.1.2.3", "10.in-addr.arpa."),
        ("-x 172.31.2.3", "31.172.in-addr.arpa."),
        ("-x 192.168.0.1", "168.192.in-addr.arpa."),
        ("-x 100.127.0.1", "127.100.in-addr.arpa."),
        ("-x 169.254.1.1", "254.169.in-addr.arpa."),
        ("-x fd12:3456::1", "d.f.ip6.arpa."),
        ("-x fe80::1", "8.e.f.ip6.arpa."),
        ("-x 2001:db8::1", "8.b.d.0.1.0.0.2.ip6.arpa."),
    ] {
        let reply = ask(question);
        assert_eq!((reply.status.as_str(), soa_of(&reply)), ("NXDOMAIN", apex), "{question}");
    }
    let designated = ask("_dns.resolver.arpa SVCB");
    assert_eq!((designated.status.as_str(), soa_of(&designated)), ("NOERROR", "resolver.arpa."));
    assert_eq!(ask("-x 127.0.0.1").rdata("PTR"), ["localhost."]);
    assert_eq!(ask("-x ::1").rdata("PTR"), ["localhost."]);
    let zone = "10.in-addr.arpa. nobody.invalid. 1 3600 1200 604800 10800";
    assert_eq!(ask("10.in-addr.arpa SOA").rdata("SOA"), [zone]);
    assert_eq!(ask("10.in-addr.arpa NS").rdata("NS"), ["10.in-addr.arpa."]);
    let heard: Vec<_> = upstream.asked().iter().map(|asked| asked.qname()).collect();
    assert_eq!(heard, Vec::<String>::new());
    assert!(node.counters().sum("dns_local_total", "") >= 24);
}

#[test]
fn ds_of_a_locally_served_zone_is_asked_of_the_upstream() {
    let (upstream, node) = node("");
    dig(node.address, "+dnssec home.arpa DS");
    assert_eq!(upstream.count("home.arpa."), 1);
}

#[test]
fn what_the_operator_says_counts_more() {
    let own = Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 2]))]
    });
    let config = format!(
        "[special]\nonion = false\n\
         [[forward]]\nzone = ['10.1.0.0/16', 'corp.test']\nupstreams = ['{}']\n\
         [[local]]\nzone = 'home.arpa.'\nrecords = 'nas A 192.168.1.2'\n",
        own.address
    );
    let (upstream, node) = node(&config);
    let ask = |name: &str| dig(node.address, &format!("{name} A"));
    assert_eq!(ask("4.3.1.10.in-addr.arpa").rdata("A"), ["192.0.2.2"]);
    assert_eq!(ask("www.corp.test").rdata("A"), ["192.0.2.2"]);
    assert_eq!(ask("4.3.2.10.in-addr.arpa").status, "NXDOMAIN");
    assert_eq!(ask("nas.home.arpa").rdata("A"), ["192.168.1.2"]);
    assert_eq!(ask("a.onion").rdata("A"), ["192.0.2.1"]);
    assert_eq!(upstream.asked().len(), 1, "only the name that is switched off");
}

#[test]
fn special_names_of_a_warm_up_list_are_not_asked() {
    let directory = crate::ports::Directory::create();
    let list = directory.write("names", "localhost\nwww.invalid\nwww.example\n");
    let config = format!("[cache]\nwarm_up = '{}'", list.display());
    let (upstream, node) = node(&config);
    upstream.wait_for("www.example.");
    node.wait_for_line("warm-up is over");
    assert_eq!((upstream.count("localhost."), upstream.count("www.invalid.")), (0, 0));
    assert!(upstream.asked().iter().all(|asked| asked.qname() == "www.example."));
}
