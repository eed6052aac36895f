//! Public names that lead to addresses of this site, with protection and without.

use crate::client::dig;
use crate::message;
use crate::node::{Node, Setup};
use crate::scripted::{Scripted, Step};

/// A node whose upstream gives 192.168.1.1 to names that begin with `in`, and 192.0.2.1 to all others.
fn node(config: &str) -> (Scripted, Node) {
    let upstream = Scripted::start(|asked| {
        let is_inside = asked.qname().starts_with("in");
        let address = if is_inside { [192, 168, 1, 1] } else { [192, 0, 2, 1] };
        vec![Step::Reply(message::address(&asked.message, 300, address))]
    });
    let node = Setup::new().upstream(upstream.address).config(config).start();
    (upstream, node)
}

#[test]
fn private_addresses_of_public_names_are_withheld_with_ede_15() {
    let (upstream, node) = node("[rebinding]\nprotect = true\nallow = ['home.example']");
    for round in ["miss", "hit"] {
        let reply = dig(node.address, "in.attacker.example A");
        assert_eq!((reply.status.as_str(), reply.answer.len()), ("NOERROR", 0), "{round}");
        assert!(reply.text.contains("EDE: 15 (Blocked)"), "{round}\n{}", reply.text);
        assert!(reply.text.contains("private address for a public name"), "{}", reply.text);
        let [soa] = &reply.authority[..] else { panic!("{}", reply.text) };
        assert_eq!((soa.owner.as_str(), soa.rtype.as_str()), ("in.attacker.example.", "SOA"));
        assert!(soa.ttl <= 60, "{}", reply.text);
        let other = dig(node.address, "out.attacker.example A");
        assert_eq!(other.rdata("A"), ["192.0.2.1"], "{round}");
        assert!(!other.text.contains("EDE"), "{}", other.text);
        assert_eq!(dig(node.address, "in.home.example A").rdata("A"), ["192.168.1.1"], "{round}");
    }
    assert_eq!(upstream.count("in.attacker.example."), 1, "it is kept");
    assert_eq!(node.counters().sum("dns_rebinding_answers_total", ""), 1);
}

#[test]
fn zones_with_upstreams_of_their_own_and_local_zones_may_have_private_addresses() {
    let own = Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [10, 1, 2, 3]))]
    });
    let config = format!(
        "[rebinding]\nprotect = true\n\
         [[forward]]\nzone = 'corp.example'\nupstreams = ['{}']\n\
         [[local]]\nzone = 'lab.example.'\nrecords = 'nas A 192.168.1.2'",
        own.address
    );
    let (_upstream, node) = node(&config);
    assert_eq!(dig(node.address, "www.corp.example A").rdata("A"), ["10.1.2.3"]);
    assert_eq!(dig(node.address, "nas.lab.example A").rdata("A"), ["192.168.1.2"]);
    assert_eq!(dig(node.address, "in.example A").answer.len(), 0);
}

#[test]
fn private_addresses_pass_by_default() {
    let (_upstream, node) = node("");
    assert_eq!(dig(node.address, "in.example A").rdata("A"), ["192.168.1.1"]);
    assert_eq!(node.counters().sum("dns_rebinding_answers_total", ""), 0);
}
