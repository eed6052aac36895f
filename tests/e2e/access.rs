//! Who is answered, and from which address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::client::{Datagrams, Program, dig};
use crate::message::{self, A, NOERROR, REFUSED};
use crate::node::Setup;
use crate::ports;

const LOCAL: &str = "[[local]]\nzone = \"local.test.\"\nrecords = \"www 60 A 192.0.2.1\"";
const PROHIBITED: u16 = 18;

#[test]
fn only_allowed_clients_are_answered() {
    let node = Setup::new().config("[acl]\nallow = [\"127.0.0.2/32\"]").config(LOCAL).start();
    let query = message::query_with(1, "www.local.test", A, &[message::opt(1232, 0, 0, &[])]);
    let ask = |source| Datagrams::from(source, node.address).exchange(&query);
    let refusal = ask(Ipv4Addr::LOCALHOST);
    assert_eq!((refusal.rcode(), refusal.counts[1]), (REFUSED, 0));
    assert_eq!(refusal.extended_error(), Some(PROHIBITED));
    assert_eq!(ask(Ipv4Addr::new(127, 0, 0, 2)).rcode(), NOERROR);
    assert_eq!(ask(Ipv4Addr::new(127, 0, 0, 3)).rcode(), REFUSED);
    for transport in ["+notcp", "+tcp"] {
        let status =
            |source| dig(node.address, &format!("-b {source} {transport} www.local.test")).status;
        assert_eq!(
            (status("127.0.0.1").as_str(), status("127.0.0.2").as_str()),
            ("REFUSED", "NOERROR")
        );
    }
}

#[test]
fn refused_clients_cause_no_upstream_query() {
    let node = Setup::new().config("[acl]\nallow = [\"127.0.0.2/32\"]").start();
    assert_eq!(dig(node.address, "-b 127.0.0.1 name.test").status, "REFUSED");
    let counters = node.counters();
    assert_eq!(counters.sum("dns_upstream_queries_total", ""), 0);
    assert_eq!(counters.sum("dns_responses_total", "rcode=\"REFUSED\""), 1);
}

#[test]
fn wildcard_listener_answers_from_the_address_that_was_asked() {
    for backend in ["uring", "mmsg"] {
        let wildcard = ports::free(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let setup = Setup::new().listen(wildcard).config(LOCAL);
        let _node = setup.argument("--io").argument(backend).start();
        let asked = ["127.0.0.1", "127.0.0.3"].map(|ip| ip.parse().unwrap());
        for ip in asked.into_iter().chain([ports::loopback().into()]) {
            let address = SocketAddr::new(ip, wildcard.port());
            // Both programs refuse a reply from elsewhere.
            for program in Program::BOTH {
                let reply = program.ask(address, "www.local.test");
                assert_eq!(reply.rdata("A"), ["192.0.2.1"], "{backend} {address}");
            }
        }
    }
}

#[test]
fn ipv6_wildcard_listener_answers_from_the_address_that_was_asked() {
    for backend in ["uring", "mmsg"] {
        let wildcard = ports::free(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let setup = Setup::new().listen(wildcard).config(LOCAL);
        let _node = setup.argument("--io").argument(backend).start();
        let address = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), wildcard.port());
        for program in Program::BOTH {
            let reply = program.ask(address, "www.local.test");
            assert_eq!(reply.rdata("A"), ["192.0.2.1"], "{backend}");
        }
    }
}
