//! Which addresses a public name may have, record by record.

use super::*;
use crate::config::{Config, File};
use crate::wire::NameBuf;

fn compiled(text: &str) -> Rebinding {
    let text = format!("[rebinding]\n{text}\n");
    let config = Config::load(Some(File { name: "node.toml", text: &text }), [], &[]).unwrap();
    Rebinding::new(&config.rebinding, &config.forward)
}

/// What becomes of an answer to `qname` with these records.
fn replaced(rebinding: &Rebinding, qname: &str, records: &[(Rtype, Vec<u8>)]) -> Option<AnswerBuf> {
    let name = NameBuf::from_text(qname).unwrap();
    let (name, qtype) = (name.as_name(), records[0].0);
    let mut builder = AnswerBuilder::new(name, qtype, Class::IN, Rcode::NOERROR).unwrap();
    for (rtype, rdata) in records {
        builder.write(Section::Answer, name, *rtype, Class::IN, 300, rdata).unwrap();
    }
    rebinding.replacement(name, qtype, &builder.finish())
}

fn record(address: &str) -> (Rtype, Vec<u8>) {
    match address.parse().unwrap() {
        IpAddr::V4(v4) => (Rtype::A, v4.octets().to_vec()),
        IpAddr::V6(v6) => (Rtype::AAAA, v6.octets().to_vec()),
    }
}

fn is_withheld(address: &str) -> bool {
    replaced(&compiled("protect = true"), "www.example.", &[record(address)]).is_some()
}

#[test]
fn addresses_of_a_site_are_withheld_in_all_their_clothings() {
    for address in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.0.1",
        "172.16.0.0",
        "172.31.255.255",
        "192.168.0.0",
        "192.168.255.255",
        "::",
        "::1",
        "fc00::1",
        "fdff:ffff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "::ffff:10.0.0.1",
        "::10.0.0.1",
        "64:ff9b::192.168.0.1",
        "64:ff9b:1::808:808",
        "2002:a00:1::1",
        "2002:c0a8:101::1",
    ] {
        assert!(is_withheld(address), "{address}");
    }
}

#[test]
fn addresses_of_the_world_pass() {
    for address in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.0.1",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "192.0.2.1",
        "2001:db8::1",
        "2606:4700::1111",
        "fbff::1",
        "fe00::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "64:ff9a::10.0.0.1",
        "2002:808:808::1",
        "2001:a00:1::1",
    ] {
        assert!(!is_withheld(address), "{address}");
    }
}

#[test]
fn one_private_address_among_others_spoils_the_answer() {
    let rebinding = compiled("protect = true");
    let alias = (Rtype::CNAME, b"\x01a\x07example\0".to_vec());
    let records = [alias.clone(), record("192.0.2.1"), record("192.168.0.1")];
    let answer = replaced(&rebinding, "www.example.", &records).unwrap();
    assert_eq!((answer.shape.rcode, answer.shape.counts), (Rcode::NOERROR, [0, 1, 0]));
    assert_eq!(answer.lifetime, WITHHELD_TTL);
    assert!(answer.body.ends_with(&soa(WITHHELD_TTL)));
    assert_eq!(replaced(&rebinding, "www.example.", &[alias, record("192.0.2.1")]), None);
    // Octets of another type are no addresses.
    assert_eq!(replaced(&rebinding, "www.example.", &[(Rtype::TXT, vec![10, 0, 0, 1])]), None);
}

#[test]
fn hints_of_service_records_are_looked_at() {
    let rebinding = compiled("protect = true");
    let service = |params: &[u8]| [b"\0\x01\x01a\0".as_slice(), params].concat();
    let alpn = b"\0\x01\0\x03\x02h2";
    for (params, is_withheld) in [
        ([alpn.as_slice(), b"\0\x04\0\x08\xC0\0\x02\x01\xC0\xA8\0\x01"].concat(), true),
        ([alpn.as_slice(), b"\0\x04\0\x04\xC0\0\x02\x01"].concat(), false),
        ([alpn.as_slice(), b"\0\x06\0\x10\xFD\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"].concat(), true),
        // Another parameter with the same octets, and values that end too early.
        (b"\0\x07\0\x04\x0A\0\0\x01".to_vec(), false),
        (b"\0\x04\0\x04\x0A\0\0".to_vec(), false),
        (b"\0\x04\0".to_vec(), false),
        (Vec::new(), false),
    ] {
        for rtype in [Rtype::SVCB, Rtype::HTTPS] {
            let answer = replaced(&rebinding, "www.example.", &[(rtype, service(&params))]);
            assert_eq!(answer.is_some(), is_withheld, "{}", params.escape_ascii());
        }
    }
    assert_eq!(
        replaced(&rebinding, "www.example.", &[(Rtype::HTTPS, b"\0\x01\x09a".to_vec())]),
        None
    );
}

#[test]
fn names_of_the_operators_own_zones_may_have_any_address() {
    let rebinding = compiled(
        "protect = true\nallow = ['Plex.direct']\n\
         [[forward]]\nzone = ['corp.example', '10.0.0.0/8']\nupstreams = ['192.0.2.1']",
    );
    for (qname, is_withheld) in [
        ("plex.direct.", false),
        ("a.b.plex.direct.", false),
        ("notplex.direct.", true),
        ("direct.", true),
        ("host.corp.example.", false),
        ("corp.example.", false),
        ("example.", true),
    ] {
        let answer = replaced(&rebinding, qname, &[record("10.0.0.1")]);
        assert_eq!(answer.is_some(), is_withheld, "{qname}");
    }
}

#[test]
fn nothing_is_withheld_unless_asked_for() {
    for rebinding in [Rebinding::default(), compiled(""), compiled("protect = false")] {
        assert_eq!(replaced(&rebinding, "www.example.", &[record("127.0.0.1")]), None);
    }
}
