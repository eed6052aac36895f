//! Zones with upstreams of their own, beside the upstreams for all the rest.

use crate::client::{dig, exchange};
use crate::message::{self, A, NOERROR, NXDOMAIN, query};
use crate::node::Setup;
use crate::scripted::{Asked, Scripted, Step};

fn answering(address: [u8; 4]) -> Scripted {
    Scripted::start(move |asked| vec![Step::Reply(message::address(&asked.message, 300, address))])
}

/// Says that nothing exists, as the upstreams of the root do of names that only the company knows.
fn denying(asked: &Asked) -> Vec<Step> {
    let soa = message::soa("example", 300, 300);
    vec![Step::Reply(message::response(&asked.message, NXDOMAIN, &[], &[soa]))]
}

#[test]
fn names_of_a_zone_go_to_its_own_upstreams_and_so_do_its_addresses() {
    let (root, corp, lab) =
        (answering([192, 0, 2, 1]), answering([192, 0, 2, 2]), answering([192, 0, 2, 3]));
    let config = format!(
        "[[forward]]\nzone = [\"corp.example\", \"10.0.0.0/8\"]\nupstreams = [\"{}\"]\n\
         [[forward]]\nzone = \"lab.corp.example\"\nupstreams = [\"tcp://{}\"]\n",
        corp.address, lab.address
    );
    let node = Setup::new().upstream(root.address).config(&config).start();
    for (qname, address) in [
        ("www.example", "192.0.2.1"),
        ("xcorp.example", "192.0.2.1"),
        ("corp.example", "192.0.2.2"),
        ("Host.CORP.example", "192.0.2.2"),
        ("1.2.3.10.in-addr.arpa", "192.0.2.2"),
        ("1.2.3.11.in-addr.arpa", "192.0.2.1"),
        ("a.b.lab.corp.example", "192.0.2.3"),
    ] {
        assert_eq!(dig(node.address, &format!("{qname} A")).rdata("A"), [address], "{qname}");
    }
    assert!(lab.asked().iter().all(|asked| asked.is_tcp));
}

#[test]
fn denial_above_a_zone_says_nothing_about_it() {
    let (root, corp) = (Scripted::start(denying), answering([192, 0, 2, 2]));
    let config =
        format!("[[forward]]\nzone = \"corp.example\"\nupstreams = [\"{}\"]", corp.address);
    let node = Setup::new().upstream(root.address).config(&config).start();
    let rcode = |qname| exchange(node.address, &query(1, qname, A)).rcode();
    assert_eq!(rcode("example"), NXDOMAIN);
    assert_eq!(rcode("other.example"), NXDOMAIN);
    assert_eq!(root.count("other.example."), 0, "what does not exist has nothing below it");
    assert_eq!(rcode("host.corp.example"), NOERROR);
    assert_eq!(rcode("corp.example"), NOERROR);
}
