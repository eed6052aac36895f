//! One message as an upstream's answer: read, copied record by record, scrubbed, replied. What is written is well-formed,
//! and nothing that does not belong to the question comes through.
//!
//! Input: one octet that chooses the client's flags and room, then the message, which answers its own question.

use heimdall_uring::config;
use heimdall_uring::resolve::exchange::{self, Extensions, Form, Question};
use heimdall_uring::resolve::scrub;
use heimdall_uring::time::CacheTime;
use heimdall_uring::wire::answer::AnswerBuilder;
use heimdall_uring::wire::examine::Examiner;
use heimdall_uring::wire::options::Options;
use heimdall_uring::wire::patch::{self, Framing};
use heimdall_uring::wire::response::{self, Section};
use heimdall_uring::wire::{AnswerBuf, Class, Flags, NameBuf, Query, Rcode, Response, Rtype};

use super::check;

/// Runs one input.
pub(crate) fn run(input: &[u8]) {
    let Some((&choice, message)) = input.split_first() else { return };
    let Ok(response) = Response::parse(message) else { return };
    let options = Options::of(message);
    assert_eq!(options.is_some(), response.edns.is_some(), "both find the same OPT record");
    assert!(options.into_iter().flatten().count() <= message.len() / 4);
    for record in &response.records {
        response.owner(record).expect("owners were checked");
        assert_eq!(response.rdata(record).len(), record.rdata_len);
        // Both may fail on an RDATA that holds no name; neither may panic.
        let _ = response.target(record);
        let _ = heimdall_uring::wire::rdata::soa_minimum(&response, record);
    }
    let Some(repeated) = response.question else { return };
    let question = Question {
        qname: repeated.qname,
        qtype: repeated.qtype,
        qclass: repeated.qclass,
        wants_dnssec: choice & 1 != 0,
        is_checking_disabled: choice & 2 != 0,
    };
    let limit = [512, 1232, 4096, 65_535][usize::from(choice >> 2 & 3)];
    let edns = (choice & 16 != 0).then(Extensions::default);
    let form = Form { id: response.header.id, edns };
    let query = exchange::query(&question, form).expect("it fits");
    // Whatever it says, it reads hostile bytes.
    let _ = exchange::judge(&query, message);
    let query = Query::parse(&query).expect("we read what we write");
    if let Some(mut answer) = copied(&response, &question) {
        let reply = replied(&query, &answer, 65_535);
        let again = Response::parse(&reply).expect("we read what we write");
        if !again.header.flags.has(Flags::TC) {
            if query.edns.is_none() && answer.shape.rcode.extended_bits() != 0 {
                answer.shape.rcode = Rcode::SERVFAIL;
            }
            assert_eq!(again.records.len(), response.records.len());
            assert_eq!(copied(&again, &question).as_ref(), Some(&answer), "copies are the same");
        }
        replied(&query, &answer, limit);
        check_survives(&repeated, &answer);
    }
    let caps = config::Cache { ttl_min: u32::from(choice >> 5), ..config::Cache::default() };
    if let Ok(answer) = scrub::scrub(message, &question, &caps) {
        assert!(answer.lifetime <= caps.ttl_max.max(caps.negative_ttl_max));
        check_survives(&repeated, &answer);
        check_origin(&replied(&query, &answer, limit), &question);
    }
}

/// All records of `response`, copied; `None` when one of them is broken or all together are too many.
fn copied(response: &Response<'_>, question: &Question<'_>) -> Option<AnswerBuf> {
    let Question { qname, qtype, qclass, .. } = *question;
    let mut builder =
        AnswerBuilder::new(qname, qtype, qclass, response.rcode()).expect("names fit");
    for record in &response.records {
        builder.copy(record.section, response, record, record.ttl).ok()?;
    }
    Some(builder.finish())
}

/// Alias targets lead from the question to every answer's owner, and nobody is told more than he asked.
fn check_origin(reply: &[u8], question: &Question<'_>) {
    let response = Response::parse(reply).expect("we read what we write");
    let mut chain = vec![NameBuf::new(question.qname)];
    for record in response.section(Section::Answer) {
        if record.rtype == Rtype::CNAME {
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

/// What is kept of an upstream's answer may be read back after a restart: one entry that may not would spoil all.
fn check_survives(question: &response::Question<'_>, answer: &AnswerBuf) {
    let view = answer.view(CacheTime::default());
    let least = Examiner::default().least_ttl(question, &view, answer.is_denial());
    assert!(answer.lifetime == 0 || least >= Some(answer.lifetime), "{least:?} {answer:?}");
}

fn replied(query: &Query<'_>, answer: &AnswerBuf, limit: usize) -> Vec<u8> {
    let mut out = vec![0xEE; 65_535];
    let framing = Framing { limit, payload_bytes: 1232, ede: None };
    let view = answer.view(CacheTime::default());
    let len = patch::reply(query, &view, patch::Aging::By(0), framing, &mut out)
        .expect("question and OPT fit");
    out.truncate(len);
    check::reply(query, &out, limit);
    out
}
