//! Responses as upstreams send them, honest and not, and what is left of them.

use super::*;
use crate::time::CacheTime;
use crate::wire::patch::{self, Framing};
use crate::wire::{Encoder, Flags, Header, Query};

const CAPS: config::Cache =
    config::Cache { bytes: 0, ttl_min: 0, ttl_max: 86_400, negative_ttl_max: 3_600 };

/// One record of a scripted response: section (0 to 2), owner, type, TTL, and RDATA as a name or as octets.
type Line<'a> = (usize, &'a str, Rtype, u32, Data<'a>);

#[derive(Clone, Copy)]
enum Data<'a> {
    Name(&'a str),
    Bytes(&'a [u8]),
    /// MNAME and RNAME at the root, and this MINIMUM.
    Soa(u32),
}

fn response(rcode: Rcode, qname: &str, qtype: Rtype, lines: &[Line<'_>]) -> Vec<u8> {
    let mut counts = [1, 0, 0, 0];
    lines.iter().for_each(|line| counts[line.0 + 1] += 1);
    let header = Header { id: 1, flags: Flags(0x8180 | rcode.0), counts };
    let mut encoder = Encoder::new(header, 65_535);
    let name = |text: &str| NameBuf::from_text(text).unwrap();
    encoder.question(name(qname).as_name(), qtype, Class::IN).unwrap();
    for &(_, owner, rtype, ttl, data) in lines {
        let owner = name(owner);
        let (_, open) = encoder.begin_record(owner.as_name(), rtype, Class::IN, ttl).unwrap();
        match data {
            Data::Name(target) => encoder.name(name(target).as_name()).unwrap(),
            Data::Bytes(bytes) => encoder.bytes(bytes).unwrap(),
            Data::Soa(minimum) => {
                encoder.bytes(&[0; 18]).unwrap();
                encoder.bytes(&minimum.to_be_bytes()).unwrap();
            }
        }
        encoder.end_rdata(open).unwrap();
    }
    encoder.into_message()
}

fn scrubbed(
    message: &[u8],
    qname: &str,
    qtype: Rtype,
    wants_dnssec: bool,
) -> Result<AnswerBuf, Unusable> {
    let name = NameBuf::from_text(qname).unwrap();
    let question = Question {
        qname: name.as_name(),
        qtype,
        qclass: Class::IN,
        wants_dnssec,
        is_checking_disabled: false,
    };
    scrub(message, &question, &CAPS)
}

/// What a client reads in `answer`: "section owner type ttl" per record.
fn read(answer: &AnswerBuf, qname: &str, qtype: Rtype) -> Vec<String> {
    let header = Header { id: 1, flags: Flags(0), counts: [1, 0, 0, 0] };
    let mut encoder = Encoder::new(header, 512);
    let name = NameBuf::from_text(qname).unwrap();
    encoder.question(name.as_name(), qtype, Class::IN).unwrap();
    let query = encoder.into_message();
    let query = Query::parse(&query).unwrap();
    let mut out = vec![0; 65_535];
    let framing = Framing { limit: 65_535, payload_bytes: 1232, ede: None };
    let view = answer.view(CacheTime::default());
    let len = patch::reply(&query, &view, 0, framing, &mut out).unwrap();
    let response = Response::parse(&out[..len]).unwrap();
    let lines = response.records.iter().map(|record| {
        let owner = response.owner(record).unwrap();
        format!("{:?} {owner:?} {} {}", record.section, record.rtype.0, record.ttl)
    });
    lines.collect()
}

const ADDRESS: Data<'_> = Data::Bytes(&[192, 0, 2, 1]);

#[test]
fn only_the_alias_chain_and_its_end_are_kept() {
    let message = response(
        Rcode::NOERROR,
        "www.a.",
        Rtype::A,
        &[
            (0, "www.a.", Rtype::CNAME, 300, Data::Name("cdn.b.")),
            (0, "evil.c.", Rtype::A, 9_999, Data::Bytes(&[6, 6, 6, 6])),
            (0, "cdn.b.", Rtype::A, 60, ADDRESS),
            (0, "cdn.b.", Rtype::TXT, 60, Data::Bytes(b"\x01x")),
            (1, "b.", Rtype::NS, 60, Data::Name("ns.b.")),
            (1, "a.", Rtype::SOA, 60, Data::Soa(5)),
            (2, "ns.b.", Rtype::A, 60, Data::Bytes(&[6, 6, 6, 6])),
        ],
    );
    let answer = scrubbed(&message, "www.a.", Rtype::A, false).unwrap();
    assert_eq!(read(&answer, "www.a.", Rtype::A), ["Answer www.a. 5 300", "Answer cdn.b. 1 60"]);
    assert_eq!(answer.lifetime, 60);
}

#[test]
fn casing_of_the_chain_does_not_matter() {
    let message = response(
        Rcode::NOERROR,
        "wWw.a.",
        Rtype::A,
        &[
            (0, "WWW.a.", Rtype::CNAME, 300, Data::Name("CDN.b.")),
            (0, "cdn.B.", Rtype::A, 60, ADDRESS),
        ],
    );
    assert_eq!(scrubbed(&message, "www.A.", Rtype::A, false).unwrap().shape.counts, [2, 0, 0]);
}

#[test]
fn one_rrset_has_one_ttl_and_keeps_no_record_twice() {
    let message = response(
        Rcode::NOERROR,
        "a.",
        Rtype::A,
        &[
            (0, "a.", Rtype::A, 300, ADDRESS),
            (0, "a.", Rtype::A, 40, Data::Bytes(&[192, 0, 2, 2])),
            (0, "a.", Rtype::A, 90, ADDRESS),
        ],
    );
    let answer = scrubbed(&message, "a.", Rtype::A, false).unwrap();
    assert_eq!(read(&answer, "a.", Rtype::A), ["Answer a. 1 40", "Answer a. 1 40"]);
}

#[test]
fn ttl_caps_hold() {
    let name = NameBuf::from_text("a.").unwrap();
    let question = Question {
        qname: name.as_name(),
        qtype: Rtype::A,
        qclass: Class::IN,
        wants_dnssec: false,
        is_checking_disabled: false,
    };
    let caps = config::Cache { ttl_min: 10, ttl_max: 100, ..CAPS };
    for (ttl, kept) in [(0, 10), (50, 50), (101, 100), (u32::MAX, 10)] {
        let line = (0, "a.", Rtype::A, ttl, ADDRESS);
        let message = response(Rcode::NOERROR, "a.", Rtype::A, &[line]);
        assert_eq!(scrub(&message, &question, &caps).unwrap().lifetime, kept, "{ttl}");
    }
}

#[test]
fn negative_answers_live_by_their_soa() {
    for (soa_ttl, minimum, lifetime) in [(900, 60, 60), (30, 60, 30), (9_999, 99_999, 3_600)] {
        for rcode in [Rcode::NXDOMAIN, Rcode::NOERROR] {
            let line = (1, "zone.", Rtype::SOA, soa_ttl, Data::Soa(minimum));
            let message = response(rcode, "no.zone.", Rtype::A, &[line]);
            let answer = scrubbed(&message, "no.zone.", Rtype::A, false).unwrap();
            assert_eq!((answer.shape.rcode, answer.lifetime), (rcode, lifetime));
            let expected = format!("Authority zone. 6 {lifetime}");
            assert_eq!(read(&answer, "no.zone.", Rtype::A), [expected]);
        }
    }
}

#[test]
fn negative_answer_without_a_soa_of_the_names_zone_is_not_kept() {
    for soa_owner in ["other.", "www.no.zone.", "one."] {
        let line = (1, soa_owner, Rtype::SOA, 900, Data::Soa(60));
        let message = response(Rcode::NXDOMAIN, "no.zone.", Rtype::A, &[line]);
        let answer = scrubbed(&message, "no.zone.", Rtype::A, false).unwrap();
        assert_eq!((answer.lifetime, answer.shape.counts), (0, [0; 3]), "{soa_owner}");
    }
}

#[test]
fn alias_to_nothing_keeps_alias_and_soa() {
    let message = response(
        Rcode::NXDOMAIN,
        "www.a.",
        Rtype::A,
        &[
            (0, "www.a.", Rtype::CNAME, 300, Data::Name("gone.b.")),
            (1, "b.", Rtype::SOA, 900, Data::Soa(60)),
        ],
    );
    let answer = scrubbed(&message, "www.a.", Rtype::A, false).unwrap();
    assert_eq!(answer.lifetime, 60);
    let expected = ["Answer www.a. 5 300", "Authority b. 6 60"];
    assert_eq!(read(&answer, "www.a.", Rtype::A), expected);
}

#[test]
fn signatures_and_proofs_are_for_those_who_want_them() {
    let over = |rtype: u8| [0, rtype, 8, 1, 0, 0, 0, 60];
    let (over_a, over_nsec) = (over(1), over(47));
    let message = response(
        Rcode::NOERROR,
        "a.b.",
        Rtype::A,
        &[
            (0, "a.b.", Rtype::A, 300, ADDRESS),
            (0, "a.b.", Rtype::RRSIG, 300, Data::Bytes(&over_a)),
            (1, "x.b.", Rtype::NSEC, 300, Data::Bytes(b"\x00\x00\x01\x40")),
            (1, "x.b.", Rtype::RRSIG, 300, Data::Bytes(&over_nsec)),
            (1, "b.", Rtype::NS, 300, Data::Name("ns.b.")),
        ],
    );
    let counts = |dnssec| scrubbed(&message, "a.b.", Rtype::A, dnssec).unwrap().shape.counts;
    assert_eq!(counts(false), [1, 0, 0]);
    assert_eq!(counts(true), [2, 2, 0]);
}

#[test]
fn dname_above_the_name_stays_and_others_go() {
    let message = response(
        Rcode::NOERROR,
        "www.old.",
        Rtype::A,
        &[
            (0, "old.", Rtype::DNAME, 300, Data::Name("new.")),
            (0, "other.", Rtype::DNAME, 300, Data::Name("new.")),
            (0, "www.old.", Rtype::CNAME, 300, Data::Name("www.new.")),
            (0, "www.new.", Rtype::A, 300, ADDRESS),
        ],
    );
    assert_eq!(scrubbed(&message, "www.old.", Rtype::A, false).unwrap().shape.counts, [3, 0, 0]);
}

#[test]
fn loops_long_chains_and_contradictions_are_of_no_use() {
    let looping = response(
        Rcode::NOERROR,
        "a.",
        Rtype::A,
        &[
            (0, "a.", Rtype::CNAME, 1, Data::Name("b.")),
            (0, "b.", Rtype::CNAME, 1, Data::Name("A.")),
        ],
    );
    assert_eq!(scrubbed(&looping, "a.", Rtype::A, false), Err(Unusable::AliasChain));
    for (links, outcome) in [(11, Ok(())), (12, Err(Unusable::AliasChain))] {
        let names: Vec<String> = (0..=links).map(|number| format!("n{number}.")).collect();
        let mut lines: Vec<Line<'_>> = names
            .windows(2)
            .map(|pair| (0, &*pair[0], Rtype::CNAME, 1, Data::Name(&pair[1])))
            .collect();
        lines.push((0, &names[links], Rtype::A, 1, ADDRESS));
        let message = response(Rcode::NOERROR, "n0.", Rtype::A, &lines);
        assert_eq!(scrubbed(&message, "n0.", Rtype::A, false).map(drop), outcome, "{links}");
    }
    let both = response(Rcode::NXDOMAIN, "a.", Rtype::A, &[(0, "a.", Rtype::A, 1, ADDRESS)]);
    assert_eq!(scrubbed(&both, "a.", Rtype::A, false), Err(Unusable::Contradiction));
}

#[test]
fn what_is_no_answer_has_its_name() {
    let good = response(Rcode::NOERROR, "a.", Rtype::A, &[(0, "a.", Rtype::A, 1, ADDRESS)]);
    assert_eq!(scrubbed(&good, "b.", Rtype::A, false), Err(Unusable::OtherQuestion));
    assert_eq!(scrubbed(&good, "a.", Rtype::AAAA, false), Err(Unusable::OtherQuestion));
    let mut cut = good.clone();
    cut[2] |= 2;
    assert_eq!(scrubbed(&cut, "a.", Rtype::A, false), Err(Unusable::Truncated));
    let referral =
        response(Rcode::NOERROR, "a.b.", Rtype::A, &[(1, "b.", Rtype::NS, 1, Data::Name("ns."))]);
    assert_eq!(scrubbed(&referral, "a.b.", Rtype::A, false), Err(Unusable::Referral));
    let failed = response(Rcode::SERVFAIL, "a.", Rtype::A, &[]);
    let servfail = Err(Unusable::Rcode(Rcode::SERVFAIL));
    assert_eq!(scrubbed(&failed, "a.", Rtype::A, false), servfail);
    let short =
        response(Rcode::NOERROR, "a.", Rtype::A, &[(0, "a.", Rtype::A, 1, Data::Bytes(&[1]))]);
    assert_eq!(scrubbed(&short, "a.", Rtype::A, false), Err(Unusable::Records));
    let many: Vec<[u8; 4]> = (0..=1024u32).map(u32::to_be_bytes).collect();
    let many: Vec<Line<'_>> =
        many.iter().map(|octets| (0, "a.", Rtype::A, 1, Data::Bytes(octets))).collect();
    let many = response(Rcode::NOERROR, "a.", Rtype::A, &many);
    assert_eq!(scrubbed(&many, "a.", Rtype::A, false), Err(Unusable::Records));
}
