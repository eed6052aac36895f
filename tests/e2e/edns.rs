//! Sizes and extensions: RFC 6891, the probes of dnsflagday.net and of RFC 8906 §8.

use crate::client::{Program, dig, exchange};
use crate::message::{A, Message, NOERROR, TXT, opt, query, query_with};
use crate::node::{Node, Setup};
use crate::upstream::Nsd;

const BADVERS: u16 = 16;
const DO: u16 = 0x8000;

fn forwarding() -> (Nsd, Node) {
    let nsd = Nsd::start();
    let node = Setup::new().upstream(nsd.address).start();
    (nsd, node)
}

fn ask(node: &Node, qname: &str, additional: &[Vec<u8>]) -> Message {
    exchange(node.address, &query_with(77, qname, A, additional))
}

#[test]
fn client_without_edns_gets_at_most_512_octets_and_no_opt() {
    let (_nsd, node) = forwarding();
    let reply = exchange(node.address, &query(1, "medium.example.test", TXT));
    assert!(reply.is_truncated());
    assert_eq!(reply.counts, [1, 0, 0, 0]);
    let reply = exchange(node.address, &query(2, "www.example.test", A));
    assert!(!reply.is_truncated() && reply.opt().is_none());
}

#[test]
fn advertised_size_counts_up_to_1232() {
    let (_nsd, node) = forwarding();
    let truncated = |qname: &str, payload_bytes| {
        let query = query_with(1, qname, TXT, &[opt(payload_bytes, 0, 0, &[])]);
        exchange(node.address, &query).is_truncated()
    };
    assert!(!truncated("medium.example.test", 1232));
    assert!(!truncated("medium.example.test", 4096));
    assert!(truncated("medium.example.test", 600));
    // RFC 6891 §6.2.3: sizes below 512 count as 512.
    assert!(truncated("medium.example.test", 0));
    assert!(truncated("big.example.test", 4096));
    assert!(truncated("big.example.test", 65_535));
}

#[test]
fn tcp_carries_what_udp_cannot() {
    let (_nsd, node) = forwarding();
    for (name, count) in [("big", 20), ("huge", 400)] {
        for program in Program::BOTH {
            let question = format!("+tcp {name}.example.test TXT");
            let reply = program.ask(node.address, &question);
            assert_eq!(reply.rdata("TXT").len(), count);
        }
    }
    // dig goes on to TCP by itself when it sees TC.
    assert_eq!(dig(node.address, "+bufsize=4096 big.example.test TXT").rdata("TXT").len(), 20);
}

#[test]
fn higher_version_gets_badvers_and_ours() {
    let (_nsd, node) = forwarding();
    let reply = ask(&node, "www.example.test", &[opt(1232, 1, 0, &[])]);
    assert_eq!((reply.rcode(), reply.counts[1]), (BADVERS, 0));
    let version = reply.opt().unwrap().ttl >> 16 & 0xFF;
    assert_eq!(version, 0);
    let reply = dig(node.address, "+edns=1 +noednsnegotiation www.example.test A");
    assert_eq!(reply.status, "BADVERS");
}

#[test]
fn unknown_options_and_flags_are_ignored() {
    let (_nsd, node) = forwarding();
    let option = [0, 100, 0, 2, 0xAB, 0xCD];
    for (version, flags, options, expected) in [
        (0, 0, option.as_slice(), NOERROR),
        (0, 0x0040, &[], NOERROR),
        (0, 0x0040, option.as_slice(), NOERROR),
        (1, 0, option.as_slice(), BADVERS),
        (1, 0x0040, &[], BADVERS),
    ] {
        let reply = ask(&node, "www.example.test", &[opt(1232, version, flags, options)]);
        assert_eq!(reply.rcode(), expected, "version {version} flags {flags:#x} {options:?}");
        let ours = reply.opt().unwrap();
        // RFC 8906 §8.2: neither the option nor the flag comes back.
        assert!(ours.rdata.is_empty(), "{ours:?}");
        assert_eq!(ours.ttl & 0x7FFF, 0, "{ours:?}");
    }
}

#[test]
fn flag_day_probes_by_dig_are_answered() {
    let (_nsd, node) = forwarding();
    for probe in [
        "+noedns +noad",
        "+edns=0 +nocookie +noad",
        "+edns=0 +nocookie +noad +ednsopt=100",
        "+edns=0 +nocookie +noad +ednsflags=0x40",
        "+edns=0 +nocookie +noad +dnssec",
        "+edns=0 +cookie",
        "+edns=0 +nsid",
        "+edns=0 +subnet=0.0.0.0/0",
        "+edns=0 +bufsize=512 +dnssec",
        "+edns=0 +ad",
        "+edns=0 +cd",
        "+edns=0 +zflag",
    ] {
        let reply = dig(node.address, &format!("{probe} www.example.test A"));
        assert_eq!(reply.status, "NOERROR", "{probe}");
        assert_eq!(reply.rdata("A"), ["192.0.2.1", "192.0.2.2"], "{probe}");
        assert_eq!(reply.text.contains("EDNS: version: 0"), !probe.contains("noedns"), "{probe}");
    }
}

#[test]
fn opt_is_answered_with_ours_only_when_asked() {
    let (_nsd, node) = forwarding();
    for _ in 0..2 {
        assert_eq!(ask(&node, "www.example.test", &[]).opt(), None);
        let reply = ask(&node, "www.example.test", &[opt(4096, 0, 0, &[])]);
        let ours = reply.opt().unwrap();
        assert_eq!((ours.section, ours.class), (3, 1232));
    }
}

#[test]
fn do_bit_is_kept() {
    let (_nsd, node) = forwarding();
    for flags in [DO, 0, DO, 0] {
        let reply = ask(&node, "www.example.test", &[opt(1232, 0, flags, &[])]);
        assert_eq!(reply.opt().unwrap().ttl, u32::from(flags));
    }
}

#[test]
fn unknown_types_get_answers_not_errors() {
    let (_nsd, node) = forwarding();
    for qtype in [1000, 65_279, 99] {
        let reply = exchange(node.address, &query(3, "www.example.test", qtype));
        assert_eq!((reply.rcode(), reply.counts[1]), (NOERROR, 0), "TYPE{qtype}");
    }
}
