//! One message as an upstream's answer: nothing that does not belong to the question may come through.

use heimdall_uring::config;
use heimdall_uring::resolve::exchange::{self, Question};
use heimdall_uring::resolve::scrub::scrub;
use heimdall_uring::time::CacheTime;
use heimdall_uring::wire::patch::{self, Framing};
use heimdall_uring::wire::response::Section;
use heimdall_uring::wire::{Class, Query, Response};

/// Runs one case: the message answers its own question, so that every path behind that check is reached.
pub(crate) fn run(message: &[u8]) {
    let Ok(parsed) = Response::parse(message) else { return };
    let Some(repeated) = parsed.question else { return };
    let question = Question {
        qname: repeated.qname,
        qtype: repeated.qtype,
        qclass: repeated.qclass,
        wants_dnssec: message.len().is_multiple_of(2),
        is_checking_disabled: false,
    };
    let query = exchange::query(&question, 7, true).expect("a query always fits");
    let caps = config::Cache::default();
    let Ok(answer) = scrub(message, &question, &caps) else { return };
    assert!(answer.lifetime <= caps.ttl_max);
    let query = Query::parse(&query).expect("our own query is well-formed");
    let mut out = vec![0; 65_535];
    for limit in [65_535, 1_232, 512] {
        let framing = Framing { limit, payload_bytes: 1232, ede: None };
        let view = answer.view(CacheTime::default());
        let Some(len) = patch::reply(&query, &view, 5, framing, &mut out) else { continue };
        assert!(len <= limit);
        check(&out[..len], &question);
    }
}

/// The reply is well-formed for two parsers; alias targets lead from the question to every answer's owner.
fn check(reply: &[u8], question: &Question<'_>) {
    let response = Response::parse(reply).expect("our own parser reads it");
    let message = domain::base::Message::from_octets(reply).expect("it has a header");
    for section in [message.answer(), message.authority(), message.additional()] {
        for record in section.expect("the sections before are well-formed") {
            record.expect("each record is well-formed");
        }
    }
    let mut chain = vec![heimdall_uring::wire::NameBuf::new(question.qname)];
    for record in response.section(Section::Answer) {
        if record.rtype.0 == 5 {
            chain.push(response.target(record).expect("a written target is well-formed"));
        }
    }
    for record in response.section(Section::Answer) {
        assert_eq!(record.class, Class::IN);
        let owner = response.owner(record).expect("a written owner is well-formed");
        let belongs = chain.iter().any(|name| name.as_name().is_within(owner.as_name()));
        assert!(belongs, "{owner:?} does not belong to {chain:?}");
    }
    assert_eq!(response.section(Section::Additional).count(), 0);
}
