//! What every reply must be, whatever came in.

use domain::base::Message;
use domain::base::iana::{Class as OracleClass, Rtype as OracleRtype};
use domain::base::name::ParsedName;
use domain::rdata::AllRecordData;
use heimdall_uring::wire::{Flags, Query, Response};

/// Types whose RDATA we understand; all others are copied as they come.
const UNDERSTOOD: [OracleRtype; 12] = [
    OracleRtype::A,
    OracleRtype::AAAA,
    OracleRtype::NS,
    OracleRtype::CNAME,
    OracleRtype::SOA,
    OracleRtype::PTR,
    OracleRtype::MX,
    OracleRtype::SRV,
    OracleRtype::NAPTR,
    OracleRtype::DNAME,
    OracleRtype::MINFO,
    OracleRtype::RP,
];

/// Asserts that `reply` is a well-formed reply to `query` of at most `limit` bytes.
pub(crate) fn reply(query: &Query<'_>, reply: &[u8], limit: usize) {
    assert!(reply.len() <= limit, "{} > {limit}", reply.len());
    let response = Response::parse(reply).expect("we read what we write");
    assert_eq!(response.header.id, query.header.id);
    let kept = Flags::RD | Flags::CD;
    assert_eq!(response.header.flags.0 & kept, query.header.flags.0 & kept);
    let question = response.question.expect("the question stays");
    assert_eq!(question.qname.as_bytes(), query.qname.as_bytes(), "casing is echoed");
    assert_eq!((question.qtype, question.qclass), (query.qtype, query.qclass));
    assert_eq!(response.edns.is_some(), query.edns.is_some(), "OPT answers OPT");
    if response.header.flags.has(Flags::TC) {
        assert!(response.records.is_empty(), "a cut reply has no records");
    }
    for record in &response.records {
        response.owner(record).expect("owners are names");
        assert!(record.ttl <= i32::MAX as u32);
    }
    oracle(reply);
}

/// Asserts that `domain` reads all of `message`, and that it has the length of what it holds.
pub(crate) fn oracle(message: &[u8]) {
    let oracle = Message::from_octets(message).expect("a header");
    let mut question = oracle.question();
    for item in question.by_ref() {
        item.expect("a question");
    }
    let mut sections = vec![question.answer().expect("an answer section")];
    let mut end = 0;
    while let Some(mut section) = sections.pop() {
        for record in section.by_ref() {
            let record = record.expect("a record");
            let is_understood = UNDERSTOOD.contains(&record.rtype())
                && record.class() == OracleClass::IN
                || record.rtype() == OracleRtype::OPT;
            if is_understood {
                let typed = record.to_any_record::<AllRecordData<&[u8], ParsedName<&[u8]>>>();
                typed.expect("RDATA of its type");
            }
        }
        end = section.pos();
        sections.extend(section.next_section().expect("the next section"));
    }
    assert_eq!(end, message.len(), "nothing behind the last record");
}
