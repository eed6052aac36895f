//! Zones with upstreams of their own, beside the upstreams for all the rest.

use crate::client::{dig, exchange};
use crate::message::{self, A, NOERROR, NXDOMAIN, query};
use crate::node::Setup;
use crate::ports::Directory;
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

/// A node with one local zone, in a file that holds `records`.
fn with_zone_file(directory: &Directory, records: &str) -> Setup {
    let path = directory.write("lab.zone", records);
    Setup::new().config(&format!("[[local]]\nzone = 'lab.example.'\nfile = '{}'", path.display()))
}

#[test]
fn zone_file_is_answered_and_its_mistakes_have_their_line() {
    let directory = Directory::create();
    let records = "$TTL 300\n@ SOA @ hostmaster (\n 1 2 3 4\n 60 )\n  NS @\nnas A 192.168.1.2\n\
                   www CNAME nas\n*.app A 192.168.1.3\n";
    let node = with_zone_file(&directory, records).start();
    let reply = dig(node.address, "www.lab.example A");
    assert_eq!(reply.rdata("A"), ["192.168.1.2"]);
    assert!(reply.has("aa"));
    assert_eq!(dig(node.address, "x.app.lab.example A").rdata("A"), ["192.168.1.3"]);
    let missing = dig(node.address, "no.lab.example A");
    assert_eq!((missing.status.as_str(), missing.authority[0].rtype.as_str()), ("NXDOMAIN", "SOA"));
    assert_eq!(missing.authority[0].rdata, "lab.example. hostmaster.lab.example. 1 2 3 4 60");
    for (records, expected) in [
        (
            Some("nas A 192.168.1.2\n\nwww A 300.1.1.1\n"),
            "lab.zone:3: local zone \"lab.example.\": ",
        ),
        (None, "node.toml:1: local.file = \""),
    ] {
        let directory = Directory::create();
        let setup = with_zone_file(&directory, records.unwrap_or_default());
        if records.is_none() {
            std::fs::remove_file(directory.path().join("lab.zone")).unwrap();
        }
        let mut node = setup.spawn();
        assert_eq!(node.wait_for_exit().code(), Some(2));
        assert!(node.log().contains(expected), "{}", node.log());
    }
}
