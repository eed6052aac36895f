//! Rulings over whole queries.

use super::*;
use crate::config;
use crate::wire::{Encoder, Header, NameBuf};

fn message(name: &str, qtype: Rtype, qclass: Class, flags: u16) -> Vec<u8> {
    let header = Header { id: 1, flags: Flags(flags), counts: [1, 0, 0, 0] };
    let mut encoder = Encoder::new(header, 512);
    let name = NameBuf::from_text(name).unwrap();
    encoder.question(name.as_name(), qtype, qclass).unwrap();
    encoder.into_message()
}

/// The ruling in short: `pass`, `answer` or the RCODE's name.
fn ruling(message: &[u8], client: [u8; 4]) -> &'static str {
    let local = config::LocalZone {
        zone: "local.test.".into(),
        records: "www A 192.0.2.1".into(),
        place: String::new(),
    };
    let identity = config::Identity { version: Some("1".into()), id: None };
    let policy = Policy::new(
        Acl::new(&config::Acl::default()),
        Identity::new(&identity),
        LocalData::new(&[local]).unwrap(),
    );
    let query = Query::parse(message).unwrap();
    let folded = query.qname.as_bytes().to_ascii_lowercase();
    let (address, place) = (client.into(), Place::default());
    let is_served = policy.serves(address);
    let asker = Asker { address, place, is_stream: false, is_served };
    match policy.rule(&query, &folded, asker, CacheTime::default()) {
        Ruling::Pass => "pass",
        Ruling::Allow(_) | Ruling::Block(_) => "listed",
        Ruling::Answer(_) | Ruling::Made(_) => "answer",
        Ruling::Follow(_) => "follow",
        Ruling::Refuse(rcode, _) => rcode.mnemonic(),
    }
}

#[test]
fn each_kind_of_query_gets_its_ruling() {
    let in_class = |name, qtype| message(name, qtype, Class::IN, Flags::RD);
    for (query, expected) in [
        (in_class("www.example.", Rtype::A), "pass"),
        (in_class("www.example.", Rtype(65_280)), "pass"),
        (in_class("www.example.", Rtype(130)), "pass"),
        (in_class("www.local.test.", Rtype::A), "answer"),
        (in_class("www.example.", Rtype::ANY), "answer"),
        (in_class("example.", Rtype::AXFR), "REFUSED"),
        (in_class("example.", Rtype::IXFR), "REFUSED"),
        (in_class("example.", Rtype::TKEY), "NOTIMP"),
        (in_class("example.", Rtype::MAILB), "NOTIMP"),
        (in_class("example.", Rtype::OPT), "FORMERR"),
        (in_class("example.", Rtype(0)), "FORMERR"),
        (message("version.bind.", Rtype::TXT, Class::CH, 0), "answer"),
        (message("id.server.", Rtype::TXT, Class::CH, 0), "REFUSED"),
        (message("example.", Rtype::A, Class(4), Flags::RD), "REFUSED"),
        (message("www.example.", Rtype::A, Class::IN, 0), "REFUSED"),
        (message("www.local.test.", Rtype::A, Class::IN, 0), "answer"),
    ] {
        assert_eq!(ruling(&query, [127, 0, 0, 1]), expected, "{}", query.escape_ascii());
        assert_eq!(ruling(&query, [8, 8, 8, 8]), "REFUSED");
    }
}

#[test]
fn unknown_edns_version_is_badvers() {
    let mut query = message("www.example.", Rtype::A, Class::IN, Flags::RD);
    query[11] = 1;
    query.extend([0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0]);
    assert_eq!(ruling(&query, [127, 0, 0, 1]), "BADVERS");
}
