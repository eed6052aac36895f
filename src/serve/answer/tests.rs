//! The whole core without a socket: what a client sends and what it gets.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::super::{Admission, Asking, Unresolved};
use super::*;
use crate::config;
use crate::policy::{Acl, Identity, LocalData};
use crate::time::CacheTime;
use crate::wire::answer::AnswerBuilder;
use crate::wire::response::Section;
use crate::wire::{Class, Ede, Encoder, Flags, Header, NameBuf, Rcode, Response, Rtype};

const CLIENT: Client =
    Client { address: IpAddr::V4(Ipv4Addr::LOCALHOST), transport: Transport::Udp };

fn core() -> Core<u32> {
    let forward = config::Forward {
        upstreams: Vec::new(),
        attempt_timeout: Duration::ZERO,
        deadline: Duration::ZERO,
        sockets: 0,
        inflight_max: 2,
        waiters_max: 3,
    };
    let acl = Acl::new(&config::Acl::default());
    let identity = Identity::new(&config::Identity::default());
    let policy = Policy::new(acl, identity, LocalData::default());
    let shard = Shard::new(1 << 20, ahash::RandomState::with_seeds(1, 2, 3, 4));
    Core::new(Arc::new(policy), shard, &forward, &config::Udp::default(), Arc::default())
}

fn at(seconds: u64) -> Now {
    Now { cache: CacheTime::from_millis(seconds * 1000), ..Now::default() }
}

fn query(id: u16, name: &str) -> Vec<u8> {
    let header = Header { id, flags: Flags(Flags::RD), counts: [1, 0, 0, 0] };
    let mut encoder = Encoder::new(header, 512);
    let name = NameBuf::from_text(name).unwrap();
    encoder.question(name.as_name(), Rtype::A, Class::IN).unwrap();
    encoder.into_message()
}

fn with_opt(mut query: Vec<u8>, payload_bytes: u16) -> Vec<u8> {
    query[11] = 1;
    query.extend([0, 0, 41]);
    query.extend(payload_bytes.to_be_bytes());
    query.extend([0; 6]);
    query
}

fn answer(asking: &Asking, addresses: u8) -> AnswerBuf {
    let query = asking.query();
    let mut builder =
        AnswerBuilder::new(query.qname, query.qtype, query.qclass, Rcode::NOERROR).unwrap();
    for last in 0..addresses {
        let rdata = [192, 0, 2, last];
        builder.write(Section::Answer, query.qname, Rtype::A, Class::IN, 300, &rdata).unwrap();
    }
    builder.finish()
}

fn asking(core: &mut Core<u32>, message: &[u8], path: u32) -> Option<Box<Asking>> {
    let mut out = [0; 4096];
    let Verdict::Miss(ticket) = core.answer(message, CLIENT, at(0), &mut out) else {
        panic!("not a miss")
    };
    match core.admit(ticket, path, at(0), &mut out) {
        Admission::Ask(asking) => Some(asking),
        Admission::Joined => None,
        Admission::Refused(_) => panic!("refused"),
    }
}

fn replied(core: &mut Core<u32>, message: &[u8], now: Now) -> Option<Vec<u8>> {
    let mut out = [0; 4096];
    match core.answer(message, CLIENT, now, &mut out) {
        Verdict::Reply(len) => Some(out[..len].to_vec()),
        Verdict::Drop => None,
        Verdict::Miss(_) => panic!("a miss"),
    }
}

#[test]
fn one_resolution_answers_all_who_wait_each_in_his_own_casing() {
    let mut core = core();
    let first = asking(&mut core, &query(1, "WWW.example."), 10).unwrap();
    assert!(asking(&mut core, &query(2, "www.EXAMPLE."), 20).is_none());
    let mut sent = Vec::new();
    let outcome = Ok(answer(&first, 2));
    core.finish(&first, outcome, at(1), &mut [0; 4096], |&path, reply| {
        let response = Response::parse(reply).unwrap();
        let name = response.question.unwrap().qname.to_string();
        sent.push((path, response.header.id, name, response.records.len()));
    });
    let expected = [(10, 1, "WWW.example.".to_owned(), 2), (20, 2, "www.EXAMPLE.".to_owned(), 2)];
    assert_eq!(sent, expected);
    assert_eq!(core.in_flight(), 0);
    assert_eq!(core.counters.coalesced.value(), 1);
}

#[test]
fn resolved_answer_is_a_hit_with_aged_ttls_until_it_expires() {
    let mut core = core();
    let first = asking(&mut core, &query(1, "www.example."), 0).unwrap();
    let outcome = Ok(answer(&first, 1));
    core.finish(&first, outcome, at(100), &mut [0; 4096], |_, _| {});
    let reply = replied(&mut core, &query(7, "wWw.example."), at(160)).unwrap();
    let response = Response::parse(&reply).unwrap();
    assert_eq!((response.header.id, response.records[0].ttl), (7, 240));
    let mut out = [0; 512];
    let late = core.answer(&query(8, "www.example."), CLIENT, at(400), &mut out);
    assert!(matches!(late, Verdict::Miss(_)));
    assert_eq!(core.counters.hits.value(), 1);
}

#[test]
fn failure_is_servfail_with_its_reason_and_is_not_remembered() {
    let mut core = core();
    let message = with_opt(query(1, "www.example."), 1232);
    let first = asking(&mut core, &message, 0).unwrap();
    let mut sent = 0;
    let outcome = Err(Unresolved(Ede::NO_REACHABLE_AUTHORITY));
    core.finish(&first, outcome, at(1), &mut [0; 4096], |_, reply| {
        sent += 1;
        assert_eq!(Response::parse(reply).unwrap().rcode(), Rcode::SERVFAIL);
        assert!(reply.ends_with(&[0, 15, 0, 2, 0, 22]));
    });
    assert_eq!(sent, 1);
    assert!(asking(&mut core, &message, 0).is_some());
}

#[test]
fn too_many_questions_and_too_many_waiters_get_servfail() {
    let mut core = core();
    let mut refused = 0;
    for (id, name) in (0u16..).zip(["a.", "a.", "a.", "a.", "b.", "c."]) {
        let mut out = [0; 512];
        let Verdict::Miss(ticket) = core.answer(&query(id, name), CLIENT, at(0), &mut out) else {
            panic!("not a miss")
        };
        if let Admission::Refused(len) = core.admit(ticket, 0, at(0), &mut out) {
            assert_eq!(Response::parse(&out[..len]).unwrap().rcode(), Rcode::SERVFAIL);
            refused += 1;
        }
    }
    assert_eq!((refused, core.counters.overload.value()), (2, 2));
}

#[test]
fn size_limits_follow_transport_and_edns() {
    let mut core = core();
    let plain = query(1, "www.example.");
    let first = asking(&mut core, &plain, 0).unwrap();
    let outcome = Ok(answer(&first, 60));
    core.finish(&first, outcome, at(0), &mut [0; 4096], |_, _| {});
    let is_cut = |reply: &[u8]| Response::parse(reply).unwrap().header.flags.has(Flags::TC);
    let whole = 12 + 17 + 60 * 16;
    for (message, limit) in [
        (plain.clone(), 512),
        (with_opt(plain.clone(), 100), 512),
        (with_opt(plain.clone(), 900), 900),
        (with_opt(plain.clone(), 65_535), 1232),
    ] {
        let reply = replied(&mut core, &message, at(0)).unwrap();
        assert!(reply.len() <= limit);
        assert_eq!(is_cut(&reply), whole + message.len() - plain.len() > limit, "{limit}");
    }
    let stream = Client { transport: Transport::Tcp, ..CLIENT };
    let mut out = [0; 4096];
    let Verdict::Reply(len) = core.answer(&plain, stream, at(0), &mut out) else { panic!() };
    assert_eq!(len, whole);
}

#[test]
fn what_is_no_query_gets_formerr_notimp_or_silence() {
    let mut core = core();
    let good = query(0x0102, "www.example.");
    let changed = |at: usize, octet: u8| {
        let mut message = good.clone();
        message[at] = octet;
        message
    };
    let rcode = |core: &mut Core<u32>, message: &[u8]| {
        let reply = replied(core, message, at(0))?;
        assert_eq!(reply.len(), 12);
        let header = Header::read(&reply).unwrap();
        assert_eq!((header.id, header.counts), (0x0102, [0; 4]));
        Some(header.flags.rcode())
    };
    assert_eq!(rcode(&mut core, &good[..11]), None);
    assert_eq!(rcode(&mut core, &changed(2, 0x81)), None);
    assert_eq!(rcode(&mut core, &changed(2, 0x21)), Some(Rcode::NOTIMP));
    assert_eq!(rcode(&mut core, &changed(5, 2)), Some(Rcode::FORMERR));
    assert_eq!(rcode(&mut core, &good[..good.len() - 1]), Some(Rcode::FORMERR));
    assert_eq!(rcode(&mut core, &[&good[..], b"x"].concat()), Some(Rcode::FORMERR));
}

#[test]
fn stranger_is_refused_with_the_reason() {
    let mut core = core();
    let stranger = Client { address: [8, 8, 8, 8].into(), ..CLIENT };
    let mut out = [0; 512];
    let message = with_opt(query(1, "www.example."), 1232);
    let Verdict::Reply(len) = core.answer(&message, stranger, at(0), &mut out) else { panic!() };
    let response = Response::parse(&out[..len]).unwrap();
    assert_eq!(response.rcode(), Rcode::REFUSED);
    assert!(out[..len].ends_with(&[0, 15, 0, 2, 0, 18]));
}
