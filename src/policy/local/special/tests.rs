//! Special names as a client would see them, and what the operator's own zones make of them.

use super::super::{Local, LocalData, Wants};
use crate::config::{Config, File};
use crate::time::CacheTime;
use crate::wire::{Answer, NameBuf, Rcode, Rtype};

const PTR: Rtype = Rtype(12);

const WANTS: Wants = Wants { recursion: true, dnssec: false };

fn compiled(text: &str) -> LocalData {
    let config = Config::load(Some(File { name: "node.toml", text }), [], &[]).unwrap();
    LocalData::beside(&config.local, config.special, &config.forward).unwrap()
}

fn find<'d>(data: &'d LocalData, name: &str, qtype: Rtype) -> Option<Answer<'d>> {
    let mut name = NameBuf::from_text(name).unwrap();
    name.make_lower();
    match data.lookup(name.as_name().as_bytes(), qtype, WANTS, CacheTime::default())? {
        Local::Answer(answer) => Some(answer),
        other => panic!("{other:?}"),
    }
}

/// RCODE and the counts of answer and authority; `None` when upstreams are asked.
fn seen(data: &LocalData, name: &str, qtype: Rtype) -> Option<(Rcode, u16, u16)> {
    let shape = find(data, name, qtype)?.shape;
    Some((shape.rcode, shape.counts[0], shape.counts[1]))
}

/// As [`seen`], with nothing configured.
fn by_default(name: &str, qtype: Rtype) -> Option<(Rcode, u16, u16)> {
    seen(&compiled(""), name, qtype)
}

const DATA: Option<(Rcode, u16, u16)> = Some((Rcode::NOERROR, 1, 0));
const NODATA: Option<(Rcode, u16, u16)> = Some((Rcode::NOERROR, 0, 1));
const NXDOMAIN: Option<(Rcode, u16, u16)> = Some((Rcode::NXDOMAIN, 0, 1));

#[test]
fn localhost_is_this_machine_under_every_name() {
    let data = compiled("");
    for name in ["localhost.", "LOCALHOST.", "a.localhost.", "a.b.c.localhost."] {
        assert_eq!(seen(&data, name, Rtype::A), DATA, "{name}");
        assert!(find(&data, name, Rtype::A).unwrap().body.ends_with(&[127, 0, 0, 1]));
        let v6 = find(&data, name, Rtype::AAAA).unwrap();
        assert!(v6.body.ends_with(&std::net::Ipv6Addr::LOCALHOST.octets()), "{name}");
        for qtype in [Rtype::MX, Rtype::TXT, Rtype::NS, Rtype::DS, PTR] {
            assert_eq!(seen(&data, name, qtype), NODATA, "{name} {qtype:?}");
        }
    }
}

#[test]
fn names_that_never_exist_get_nxdomain_with_an_soa() {
    for apex in ["invalid.", "test.", "onion.", "alt."] {
        for name in [apex.to_owned(), format!("www.{apex}"), format!("a.b.{apex}")] {
            for qtype in [Rtype::A, Rtype::NS, Rtype::SOA, Rtype::DS, Rtype(65)] {
                assert_eq!(by_default(&name, qtype), NXDOMAIN, "{name} {qtype:?}");
            }
        }
    }
    for name in ["example.", "local.", "mytest.", "test.example.", "alt.example.", "com."] {
        assert_eq!(by_default(name, Rtype::A), None, "{name}");
    }
}

#[test]
fn locally_served_zones_are_empty_but_for_their_apex() {
    for apex in [
        "home.arpa.",
        "10.in-addr.arpa.",
        "16.172.in-addr.arpa.",
        "31.172.in-addr.arpa.",
        "168.192.in-addr.arpa.",
        "64.100.in-addr.arpa.",
        "127.100.in-addr.arpa.",
        "255.255.255.255.in-addr.arpa.",
        "d.f.ip6.arpa.",
        "b.e.f.ip6.arpa.",
        "8.b.d.0.1.0.0.2.ip6.arpa.",
    ] {
        assert_eq!(by_default(apex, Rtype::SOA), DATA, "{apex}");
        assert_eq!(by_default(apex, Rtype::NS), DATA, "{apex}");
        assert_eq!(by_default(apex, PTR), NODATA, "{apex}");
        assert_eq!(by_default(&format!("1.2.{apex}"), PTR), NXDOMAIN, "{apex}");
        // The proof that the zone is not signed is its parent's (RFC 8375 §4).
        assert_eq!(by_default(apex, Rtype::DS), None, "{apex}");
        assert_eq!(by_default(&format!("1.{apex}"), Rtype::DS), NXDOMAIN, "{apex}");
    }
    for beside in [
        "15.172.in-addr.arpa.",
        "32.172.in-addr.arpa.",
        "63.100.in-addr.arpa.",
        "128.100.in-addr.arpa.",
        "1.1.1.1.in-addr.arpa.",
        "in-addr.arpa.",
        "arpa.",
        "c.e.f.ip6.arpa.",
    ] {
        assert_eq!(by_default(beside, PTR), None, "{beside}");
    }
}

#[test]
fn loopback_addresses_have_their_name() {
    let v6 = format!("1.{}ip6.arpa.", "0.".repeat(31));
    for name in ["1.0.0.127.in-addr.arpa.", v6.as_str()] {
        let data = compiled("");
        assert!(find(&data, name, PTR).unwrap().body.ends_with(b"\x09localhost\0"), "{name}");
    }
    assert_eq!(by_default("2.0.0.127.in-addr.arpa.", PTR), NXDOMAIN);
}

#[test]
fn resolver_arpa_says_nothing() {
    for name in ["resolver.arpa.", "_dns.resolver.arpa.", "a.b.resolver.arpa."] {
        assert_eq!(by_default(name, Rtype(64)), NODATA, "{name}");
        assert_eq!(by_default(name, Rtype::A), NODATA, "{name}");
    }
    assert_eq!(by_default("resolver.arpa.", Rtype::DS), None);
}

#[test]
fn each_group_has_its_switch() {
    for (key, name) in [
        ("localhost", "a.localhost."),
        ("invalid", "a.invalid."),
        ("test", "a.test."),
        ("onion", "a.onion."),
        ("alt", "a.alt."),
        ("home_arpa", "a.home.arpa."),
        ("resolver_arpa", "_dns.resolver.arpa."),
        ("reverse", "1.1.1.10.in-addr.arpa."),
    ] {
        let data = compiled(&format!("[special]\n{key} = false\n"));
        assert_eq!(seen(&data, name, Rtype::A), None, "{key}");
        let other = if key == "alt" { "a.onion." } else { "a.alt." };
        assert_eq!(seen(&data, other, Rtype::A), NXDOMAIN, "{key}");
    }
}

#[test]
fn zones_of_the_operator_count_more_above_at_and_below_a_special_name() {
    let data = compiled(
        "[[local]]\nzone = 'lab.home.arpa.'\nrecords = 'host A 192.0.2.1'\n\
         [[local]]\nzone = 'test.'\nrecords = 'www A 192.0.2.1'\n\
         [[local]]\nzone = '172.in-addr.arpa.'\nrecords = '1.0.16 PTR host.'\n",
    );
    assert_eq!(seen(&data, "host.lab.home.arpa.", Rtype::A), DATA);
    assert_eq!(seen(&data, "host.home.arpa.", Rtype::A), NXDOMAIN);
    assert_eq!(seen(&data, "www.test.", Rtype::A), DATA);
    assert_eq!(seen(&data, "1.0.16.172.in-addr.arpa.", PTR), DATA);
    // That zone has no SOA, so its answers have none.
    assert_eq!(seen(&data, "2.0.16.172.in-addr.arpa.", PTR), Some((Rcode::NXDOMAIN, 0, 0)));
}

#[test]
fn forward_zones_count_more_above_at_and_below_a_special_name() {
    let forward =
        |zone: &str| compiled(&format!("[[forward]]\nzone = {zone}\nupstreams = ['192.0.2.1']\n"));
    let at = forward("['10.0.0.0/8', 'home.arpa']");
    assert_eq!(seen(&at, "1.2.3.10.in-addr.arpa.", PTR), None);
    assert_eq!(seen(&at, "a.home.arpa.", Rtype::A), None);
    assert_eq!(seen(&at, "1.2.168.192.in-addr.arpa.", PTR), NXDOMAIN);
    let above = forward("'in-addr.arpa'");
    assert_eq!(seen(&above, "1.2.3.10.in-addr.arpa.", PTR), None);
    assert_eq!(seen(&above, "1.d.f.ip6.arpa.", PTR), NXDOMAIN);
    let below = forward("['10.1.0.0/16', 'corp.test']");
    assert_eq!(seen(&below, "1.2.1.10.in-addr.arpa.", PTR), None);
    assert_eq!(seen(&below, "1.2.2.10.in-addr.arpa.", PTR), NXDOMAIN);
    assert_eq!(seen(&below, "www.corp.test.", Rtype::A), None);
    assert_eq!(seen(&below, "www.other.test.", Rtype::A), NXDOMAIN);
}

#[test]
fn local_zone_within_a_forward_zone_within_a_special_name_is_answered_here() {
    let data = compiled(
        "[[forward]]\nzone = 'corp.test'\nupstreams = ['192.0.2.1']\n\
         [[forward]]\nzone = 'sub.lab.test'\nupstreams = ['192.0.2.1']\n\
         [[local]]\nzone = 'own.corp.test.'\nrecords = 'www A 192.0.2.1'\n\
         [[local]]\nzone = 'lab.test.'\nrecords = 'www A 192.0.2.1'\n",
    );
    assert_eq!(seen(&data, "www.own.corp.test.", Rtype::A), DATA);
    assert_eq!(seen(&data, "www.corp.test.", Rtype::A), None);
    // As everywhere, a local zone is asked before any upstream.
    assert_eq!(seen(&data, "a.sub.lab.test.", Rtype::A), Some((Rcode::NXDOMAIN, 0, 0)));
}
