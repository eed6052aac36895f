//! Single names: from hosts files, and rewritten ones.

use crate::client::dig;
use crate::message;
use crate::node::Setup;
use crate::ports::Directory;
use crate::scripted::{Scripted, Step};

fn upstream() -> Scripted {
    Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [198, 51, 100, 1]))]
    })
}

#[test]
fn names_of_hosts_files_are_answered_with_their_addresses_and_back() {
    let directory = Directory::create();
    let one = directory.write(
        "one",
        "127.0.0.1 localhost\n192.168.1.2 nas.home nas\r\n2001:db8::2 nas.home\nbad line\n",
    );
    let two = directory.write("two", "192.168.1.3 nas.home # more\n");
    let upstream = upstream();
    let config = format!("[hosts]\nfiles = ['{}', '{}']\nttl = 77", one.display(), two.display());
    let node = Setup::new().upstream(upstream.address).config(&config).start();
    node.wait_for_line(":4: \"bad line\" does not begin with an IPv4 or IPv6 address");
    let reply = dig(node.address, "NAS.home A");
    assert_eq!(reply.rdata("A"), ["192.168.1.2", "192.168.1.3"]);
    assert!(reply.has("aa") && reply.answer[0].ttl == 77);
    assert_eq!(dig(node.address, "nas.home AAAA").rdata("AAAA"), ["2001:db8::2"]);
    assert_eq!(dig(node.address, "nas A").rdata("A"), ["192.168.1.2"]);
    assert_eq!(dig(node.address, "-x 192.168.1.3").rdata("PTR"), ["nas.home."]);
    assert_eq!(dig(node.address, "-x 2001:db8::2").rdata("PTR"), ["nas.home."]);
    let nodata = dig(node.address, "nas.home MX");
    assert_eq!((nodata.status.as_str(), nodata.answer.len()), ("NOERROR", 0));
    // Whoever keeps that there is nothing is told for how long (RFC 2308 §3).
    let soa = &nodata.authority[0];
    assert_eq!((soa.owner.as_str(), soa.rtype.as_str(), soa.ttl), ("nas.home.", "SOA", 77));
    assert_eq!(soa.rdata, "nas.home. nobody.invalid. 1 3600 1200 604800 77");
    assert_eq!(upstream.asked().len(), 0);
    for name in ["home", "other.home", "x.nas.home"] {
        assert_eq!(dig(node.address, &format!("{name} A")).rdata("A"), ["198.51.100.1"], "{name}");
    }
}

#[test]
fn rewritten_names_have_other_addresses() {
    let upstream = upstream();
    let config = "[[rewrite]]\nname = 'nas.example'\nto = ['192.168.1.2', '2001:db8::2']\nttl = 30\n\
                  [[rewrite]]\nname = '*.apps.example'\nto = '192.168.1.3'\n\
                  [[rewrite]]\nname = 'db.apps.example'\nto = 'nas.example.'";
    let node = Setup::new().upstream(upstream.address).config(config).start();
    let reply = dig(node.address, "nas.example A");
    assert_eq!(reply.rdata("A"), ["192.168.1.2"]);
    assert!(reply.has("aa") && reply.answer[0].ttl == 30);
    assert_eq!(dig(node.address, "nas.example AAAA").rdata("AAAA"), ["2001:db8::2"]);
    assert_eq!(dig(node.address, "nas.example TXT").status, "NOERROR");
    let wild = dig(node.address, "a.b.apps.example A");
    assert_eq!(
        (wild.rdata("A"), wild.answer[0].owner.as_str()),
        (vec!["192.168.1.3"], "a.b.apps.example.")
    );
    let alias = dig(node.address, "db.apps.example A");
    assert_eq!(
        (alias.rdata("CNAME"), alias.rdata("A")),
        (vec!["nas.example."], vec!["192.168.1.2"])
    );
    assert_eq!(upstream.asked().len(), 0);
    for name in ["apps.example", "x.nas.example"] {
        assert_eq!(dig(node.address, &format!("{name} A")).rdata("A"), ["198.51.100.1"], "{name}");
    }
}

#[test]
fn mistakes_are_told_with_their_place_before_anything_is_served() {
    for (config, expected) in [
        ("[hosts]\nfiles = ['/nowhere/hosts']", "hosts.files: /nowhere/hosts: No such file"),
        ("[hosts]\nfiles = ['hosts']", "node.toml:2: hosts.files = "),
        ("\n[[rewrite]]\nname = 'a.example'\nto = '192.0.2.256'", "node.toml:4: rewrite.to = "),
        (
            "[[local]]\nzone = 'example'\n[[rewrite]]\nname = 'a.example'\nto = '192.0.2.1'",
            "node.toml:3: rewrite \"a.example\": lies in a [[local]] zone",
        ),
    ] {
        for argument in ["--io=uring", "--check"] {
            let mut node = Setup::new().config(config).argument(argument).spawn();
            assert_eq!(node.wait_for_exit().code(), Some(2), "{config}");
            assert!(node.log().contains(expected), "{}", node.log());
        }
    }
}
