//! Copies: what goes through `AnswerBuilder::copy` and `patch::reply` comes out with the same content, as both oracles
//! read it; RDATA that one side takes for broken is broken for all, or the reason stands here.

use heimdall_uring::time::CacheTime;
use heimdall_uring::wire::answer::AnswerBuilder;
use heimdall_uring::wire::patch::{self, Framing};
use heimdall_uring::wire::{AnswerBuf, Flags, Query, Rcode, Response};
use hickory_proto::op::Message as HickoryMessage;
use proptest::prelude::*;

use super::budget;
use super::messages::{as_hickory_writes, damaged, damages, name, plain_response, specs, wire};
use super::oracle::{Line, domain_reads, hickory_records};

/// QR, RD, RA.
const FLAGS: u16 = 0x8180;

/// Types whose RDATA we read as a whole, so that we refuse what is broken.
const READ: [u16; 18] = [1, 28, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 15, 17, 33, 35, 39, 107];

/// Why one side refuses an RDATA that the other takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Difference {
    /// We copy octets that hold no names as they come: TXT strings, signatures, digests, bitmaps, parameters
    /// (RFC 3597 §2: what a cache does not need to know it passes on).
    Opaque,
    /// We know the layout of A and AAAA only in class IN (RFC 1035 §3.4.1; CHAOS has another). `domain` never looks.
    OtherClass,
    /// We refuse a pointer into its own name: it must lead to a prior name (RFC 1035 §4.1.4). `domain` wants it to lead
    /// backwards only.
    OwnName,
    /// We know types with names that `domain` takes for opaque (AFSDB, RT, SIG, NXT, KX, PX, LP, TALINK).
    Unknown,
}

fn query(qname: &[u8], qtype: u16, with_edns: bool) -> Vec<u8> {
    let header = [0xBE, 0xEF, 1, 0x10, 0, 1, 0, 0, 0, 0, 0, u8::from(with_edns)];
    let opt: &[u8] = if with_edns { b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00" } else { b"" };
    [&header[..], qname, &qtype.to_be_bytes(), &[0, 1], opt].concat()
}

fn copied(query: &Query<'_>, response: &Response<'_>) -> Option<AnswerBuf> {
    let mut builder =
        AnswerBuilder::new(query.qname, query.qtype, query.qclass, Rcode::NOERROR).unwrap();
    for record in &response.records {
        builder.copy(record.section, response, record, record.ttl).ok()?;
    }
    Some(builder.finish())
}

fn replied(query: &Query<'_>, answer: &AnswerBuf, age: u32, limit: usize) -> Option<Vec<u8>> {
    let mut out = vec![0xEE; 65_535];
    let framing = Framing { limit, payload_bytes: 1232, ede: None };
    let view = answer.view(CacheTime::default());
    let len = patch::reply(query, &view, patch::Aging::By(age), framing, &mut out)?;
    out.truncate(len);
    Some(out)
}

/// Checks `reply` against the records it was made of, `age` seconds ago.
fn check(query: &Query<'_>, reply: &[u8], age: u32, source: &[Line], limit: usize) {
    assert!(reply.len() <= limit);
    let content = domain_reads(reply).expect("domain reads our replies");
    let hickory = HickoryMessage::from_vec(reply).expect("hickory reads our replies");
    assert_eq!(content.id, query.header.id);
    assert_eq!(
        content.questions,
        [(query.qname.as_bytes().to_vec(), query.qtype.0, query.qclass.0)]
    );
    assert_eq!((content.trailing, content.opts.len()), (0, usize::from(query.edns.is_some())));
    assert_eq!(hickory.all_sections().count(), content.lines.len());
    let is_cut = content.flags & Flags::TC != 0;
    let expected = source.iter().filter(|line| !is_cut && line.section < 2);
    let whole = content.lines.len() == source.len();
    let expected = expected.chain(source.iter().filter(|line| whole && line.section == 2));
    let aged = expected.map(|line| Line { ttl: line.ttl.saturating_sub(age), ..line.clone() });
    assert_eq!(content.lines, aged.collect::<Vec<_>>());
}

/// Both sides' view of one record's RDATA.
fn compare_rdata(response: &Response<'_>, at: usize, line: &Line) -> Option<Difference> {
    let record = &response.records[at];
    let query = query(&[0], 1, false);
    let query = Query::parse(&query).unwrap();
    let mut alone = response.clone();
    alone.records = vec![*record];
    let copy = copied(&query, &alone);
    match (&copy, &line.rdata) {
        (Some(answer), Some(rdata)) => {
            let reply = replied(&query, answer, 0, 65_535).expect("one record fits");
            let content = domain_reads(&reply).expect("domain reads our replies");
            assert_eq!(content.lines[0].rdata.as_ref(), Some(rdata));
            None
        }
        (None, None) => None,
        (Some(_), None) if matches!(record.rtype.0, 1 | 28) => {
            assert_ne!(record.class.0, 1, "domain refuses {record:?}");
            Some(Difference::OtherClass)
        }
        (Some(_), None) => {
            assert!(!READ.contains(&record.rtype.0), "domain refuses {record:?}");
            Some(Difference::Opaque)
        }
        (None, Some(_)) if matches!(record.rtype.0, 18 | 21 | 24 | 26 | 30 | 36 | 58 | 107) => {
            Some(Difference::Unknown)
        }
        (None, Some(_)) => {
            let holds_pointer = response.rdata(record).iter().any(|&octet| octet >= 0xC0);
            assert!(holds_pointer, "only domain takes {record:?} {:?}", response.rdata(record));
            assert!(is_refused_by_hickory(response, at), "both oracles take {record:?}");
            Some(Difference::OwnName)
        }
    }
}

/// Whether `hickory-proto` refuses the record too. Others are made opaque, so that only this one can be at fault.
fn is_refused_by_hickory(response: &Response<'_>, at: usize) -> bool {
    let mut message = response.message().to_vec();
    for (number, record) in response.records.iter().enumerate() {
        // It leaves DNAME, RRSIG and NSEC unread without its DNSSEC features; CNAME has DNAME's form.
        let rtype = match record.rtype.0 {
            39 if number == at => 5,
            46 | 47 if number == at => return true,
            own if number == at => own,
            _ => 65_280u16,
        };
        message[record.rdata_at - 10..][..2].copy_from_slice(&rtype.to_be_bytes());
    }
    HickoryMessage::from_vec(&message).is_err()
}

fn compare(message: &[u8]) -> Vec<Option<Difference>> {
    let Ok(response) = Response::parse(message) else { return Vec::new() };
    let content = domain_reads(message).expect("see `responses`");
    let lines = content.lines.iter().enumerate();
    lines.map(|(at, line)| compare_rdata(&response, at, line)).collect()
}

#[test]
fn each_difference_has_its_message() {
    let of = |rtype: u16, class: u8, rdata: &[u8]| {
        let specs = [(0, wire("www.example"), rtype, 60, rdata.to_vec())];
        let mut message = plain_response(FLAGS, &wire("www.example"), rtype, &specs, b"");
        let class_at = message.len() - rdata.len() - 7;
        message[class_at] = class;
        message
    };
    for (message, expected) in [
        (of(16, 1, b"\x09abc"), Some(Difference::Opaque)),
        (of(43, 1, b"\x01"), Some(Difference::Opaque)),
        (of(65, 1, b"\x00\x01\x00\x00\x01\x00\x09"), Some(Difference::Opaque)),
        (of(1, 3, b"\x01a\x00\x12\x34"), Some(Difference::OtherClass)),
        (of(5, 1, b"\x03\x01a\x00\xC0\x35"), Some(Difference::OwnName)),
        (of(18, 1, b"\x00\x01\x09a"), Some(Difference::Unknown)),
        (of(1, 1, b"\x01\x02\x03"), None),
        (of(5, 1, b"\x01a\x00\x00"), None),
        (of(46, 1, b"\x01"), None),
    ] {
        assert_eq!(compare(&message), [expected], "{}", message.escape_ascii());
    }
}

proptest! {
    #![proptest_config(budget(500))]

    #[test]
    fn replies_hold_what_the_upstream_said(
        qname in name(),
        specs in specs(),
        with_edns in any::<bool>(),
        age in prop_oneof![Just(0u32), 1..200_000u32, Just(u32::MAX)],
        limit in prop_oneof![Just(65_535usize), 12..1_500usize],
    ) {
        let plain = plain_response(FLAGS, &qname, 255, &specs, b"");
        let source = domain_reads(&plain).unwrap().lines;
        let query = query(&qname, 255, with_edns);
        let query = Query::parse(&query).unwrap();
        for message in [as_hickory_writes(&plain), plain] {
            let response = Response::parse(&message).unwrap();
            let answer = copied(&query, &response).unwrap();
            let Some(reply) = replied(&query, &answer, age, limit) else {
                let least = 12 + query.question().len() + if with_edns { 11 } else { 0 };
                prop_assert!(limit < least, "{} {}", limit, least);
                continue;
            };
            check(&query, &reply, age, &source, limit);
            let whole = replied(&query, &answer, 0, 65_535).unwrap();
            let theirs = HickoryMessage::from_vec(&whole).unwrap();
            let upstream = HickoryMessage::from_vec(&message).unwrap();
            prop_assert_eq!(hickory_records(&theirs), hickory_records(&upstream));
        }
    }

    #[test]
    fn damaged_rdata_differs_for_known_reasons(specs in specs(), damages in damages()) {
        let plain = plain_response(FLAGS, &wire("www.example.com"), 1, &specs, b"");
        compare(&damaged(&plain, &damages));
        compare(&damaged(&as_hickory_writes(&plain), &damages));
    }
}
