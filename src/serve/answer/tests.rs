//! The whole core without a socket: what a client sends and what it gets.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use super::super::{Admission, Asking, Unresolved};
use super::*;
use crate::config;
use crate::policy::{Acl, Identity, LocalData};
use crate::time::CacheTime;
use crate::wire::answer::AnswerBuilder;
use crate::wire::response::Section;
use crate::wire::{Class, Ede, Encoder, Flags, Header, Name, NameBuf, Rcode, Response, Rtype};

const CLIENT: Client = Client {
    address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    port: 4_000,
    listener: 0,
    transport: Transport::Udp,
};

fn core() -> Core<u32> {
    let forward = config::Forward { inflight_max: 4, waiters_max: 3, ..Default::default() };
    let acl = Acl::new(&config::Acl::default());
    let identity = Identity::new(&config::Identity::default());
    let policy = Policy::new(acl, identity, LocalData::default());
    let shard =
        Shard::new(&config::Cache::default(), 1 << 20, ahash::RandomState::with_seeds(1, 2, 3, 4));
    let (udp, cache) = (config::Udp::default(), config::Cache::default());
    let optimizations = config::Optimizations::default();
    let zones = [NameBuf::from_text("Corp.denied.").unwrap()];
    let sections =
        Sections { forward: &forward, zones: &zones, udp: &udp, cache: &cache, optimizations };
    Core::new(Arc::new(policy), shard, sections, Arc::default())
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

fn nobody_goes(_: &u32, _: &[u8]) {
    panic!("there is room for all");
}

fn asking(core: &mut Core<u32>, message: &[u8], path: u32) -> Option<Box<Asking>> {
    let mut out = [0; 4096];
    let Verdict::Miss(ticket) = core.answer(message, CLIENT, at(0), &mut out) else {
        panic!("not a miss")
    };
    match core.admit(ticket, path, at(0), &mut out, nobody_goes) {
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
        Verdict::Refresh(..) => panic!("a refreshment"),
        Verdict::Miss(_) => panic!("a miss"),
    }
}

#[test]
fn one_resolution_answers_all_who_wait_each_in_his_own_casing() {
    let mut core = core();
    let mut first = asking(&mut core, &query(1, "WWW.example."), 10).unwrap();
    assert!(asking(&mut core, &query(2, "www.EXAMPLE."), 20).is_none());
    let mut sent = Vec::new();
    let outcome = Ok(answer(&first, 2));
    core.finish(&mut first, outcome, at(1), &mut [0; 4096], |&path, reply| {
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
    let mut first = asking(&mut core, &query(1, "www.example."), 0).unwrap();
    let outcome = Ok(answer(&first, 1));
    core.finish(&mut first, outcome, at(100), &mut [0; 4096], |_, _| {});
    let reply = replied(&mut core, &query(7, "wWw.example."), at(160)).unwrap();
    let response = Response::parse(&reply).unwrap();
    assert_eq!((response.header.id, response.records[0].ttl), (7, 240));
    let mut out = [0; 512];
    let late = core.answer(&query(8, "www.example."), CLIENT, at(400), &mut out);
    assert!(matches!(late, Verdict::Miss(_)));
    assert_eq!(core.counters.hits.value(), 1);
}

const FAILURE: Unresolved = Unresolved { ede: Ede::NO_REACHABLE_AUTHORITY, is_ours: false };

/// What `message` gets at `now` and the EDE of it, as one reply or, for a miss, by a resolution with `outcome`.
fn rcode_and_ede(
    core: &mut Core<u32>,
    message: &[u8],
    now: Now,
    outcome: Result<u8, Unresolved>,
) -> (Rcode, Option<u8>, Option<u32>) {
    let mut out = [0; 4096];
    let reply = match core.answer(message, CLIENT, now, &mut out) {
        Verdict::Reply(len) => out[..len].to_vec(),
        Verdict::Miss(ticket) => {
            let Admission::Ask(mut asking) = core.admit(ticket, 0, now, &mut out, nobody_goes)
            else {
                panic!()
            };
            let outcome = outcome.map(|addresses| answer(&asking, addresses));
            let mut replies = Vec::new();
            core.finish(&mut asking, outcome, now, &mut out, |_, it| replies.push(it.to_vec()));
            assert_eq!(replies.len(), 1);
            replies.remove(0)
        }
        Verdict::Refresh(..) | Verdict::Drop => panic!("neither reply nor miss"),
    };
    let response = Response::parse(&reply).unwrap();
    let opt = reply.windows(4).rposition(|part| part[..2] == [0, 15] && part[2] == 0);
    let ede = opt.map(|at| reply[at + 5]);
    (response.rcode(), ede, response.records.first().map(|record| record.ttl))
}

#[test]
fn failure_has_its_reason_and_is_remembered_for_a_while() {
    let mut core = core();
    let message = with_opt(query(1, "www.example."), 1232);
    let mut ask = |millis, outcome| {
        let now = Now { cache: CacheTime::from_millis(millis), ..Now::default() };
        rcode_and_ede(&mut core, &message, now, outcome)
    };
    assert_eq!(ask(10_000, Err(FAILURE)), (Rcode::SERVFAIL, Some(22), None));
    assert_eq!(ask(10_999, Ok(1)), (Rcode::SERVFAIL, Some(13), None), "not tried again yet");
    assert_eq!(ask(11_000, Err(FAILURE)), (Rcode::SERVFAIL, Some(22), None));
    assert_eq!(ask(12_999, Ok(1)), (Rcode::SERVFAIL, Some(13), None), "the pause doubles");
    assert_eq!(ask(13_000, Ok(1)), (Rcode::NOERROR, None, Some(300)));
    assert_eq!((core.counters.failures.value(), core.counters.failures_cached.value()), (2, 2));
}

#[test]
fn want_of_room_here_is_not_held_against_the_question() {
    let mut core = core();
    let message = with_opt(query(1, "www.example."), 1232);
    let ours = Unresolved { ede: Ede::NETWORK_ERROR, is_ours: true };
    assert_eq!(rcode_and_ede(&mut core, &message, at(10), Err(ours)).0, Rcode::SERVFAIL);
    assert_eq!(rcode_and_ede(&mut core, &message, at(10), Ok(1)).0, Rcode::NOERROR);
}

#[test]
fn failure_after_its_lifetime_serves_the_stale_answer_with_ttl_30() {
    let mut core = core();
    let message = with_opt(query(1, "www.example."), 1232);
    rcode_and_ede(&mut core, &message, at(0), Ok(2));
    let stale = (Rcode::NOERROR, Some(3), Some(30));
    assert_eq!(rcode_and_ede(&mut core, &message, at(400), Err(FAILURE)), stale);
    assert_eq!(rcode_and_ede(&mut core, &message, at(400), Ok(1)), stale, "at once, untried");
    assert_eq!(rcode_and_ede(&mut core, &message, at(401), Ok(1)).2, Some(300));
    assert_eq!(core.counters.stale.value(), 2);
}

#[test]
fn who_waits_too_long_gets_the_stale_answer_and_the_resolution_goes_on() {
    let mut core = core();
    let message = with_opt(query(1, "www.example."), 1232);
    rcode_and_ede(&mut core, &message, at(0), Ok(1));
    let mut out = [0; 512];
    let Verdict::Miss(ticket) = core.answer(&message, CLIENT, at(400), &mut out) else { panic!() };
    let Admission::Ask(mut asking) = core.admit(ticket, 7, at(400), &mut out, nobody_goes) else {
        panic!()
    };
    assert_eq!(asking.patience(), Some(Duration::from_millis(1_800)));
    let mut sent = Vec::new();
    core.answer_stale(&mut asking, at(402), &mut out, |&path, reply| {
        sent.push((path, Response::parse(reply).unwrap().records[0].ttl));
    });
    assert_eq!(sent, [(7, 30)]);
    let late = rcode_and_ede(&mut core, &message, at(402), Err(FAILURE));
    assert_eq!(late, (Rcode::NOERROR, Some(3), Some(30)), "who comes later waits no more");
    let outcome = Ok(answer(&asking, 1));
    core.finish(&mut asking, outcome, at(403), &mut out, |_, _| panic!("nobody waits"));
    assert_eq!(rcode_and_ede(&mut core, &message, at(403), Err(FAILURE)).2, Some(300));
}

#[test]
fn client_that_joins_a_refreshment_waits_no_longer_than_others() {
    let mut core = core();
    let message = with_opt(query(1, "www.example."), 1232);
    rcode_and_ede(&mut core, &message, at(0), Ok(1));
    rcode_and_ede(&mut core, &message, at(1), Ok(1));
    let mut out = [0; 512];
    let Verdict::Refresh(_, mut asking) = core.answer(&message, CLIENT, at(299), &mut out) else {
        panic!("not refreshed")
    };
    let Verdict::Miss(ticket) = core.answer(&message, CLIENT, at(300), &mut out) else { panic!() };
    assert!(matches!(core.admit(ticket, 7, at(300), &mut out, nobody_goes), Admission::Joined));
    let mut sent = Vec::new();
    core.answer_stale(&mut asking, at(301), &mut out, |&path, _| sent.push(path));
    assert_eq!(sent, [7]);
}

#[test]
fn failure_gives_way_to_a_denial_that_came_meanwhile() {
    let mut core = core();
    let below = with_opt(query(1, "a.no.example."), 1232);
    let mut out = [0; 512];
    let Verdict::Miss(ticket) = core.answer(&below, CLIENT, at(0), &mut out) else { panic!() };
    let Admission::Ask(mut asking) = core.admit(ticket, 7, at(0), &mut out, nobody_goes) else {
        panic!()
    };
    let above = query(2, "no.example.");
    let Verdict::Miss(ticket) = core.answer(&above, CLIENT, at(0), &mut out) else { panic!() };
    let Admission::Ask(mut denied) = core.admit(ticket, 8, at(0), &mut out, nobody_goes) else {
        panic!()
    };
    let name = NameBuf::from_text("no.example.").unwrap();
    let name = name.as_name();
    let mut denial = AnswerBuilder::new(name, Rtype::A, Class::IN, Rcode::NXDOMAIN).unwrap();
    denial.write(Section::Authority, name, Rtype::SOA, Class::IN, 60, &[0; 22]).unwrap();
    core.finish(&mut denied, Ok(denial.finish()), at(1), &mut out, |_, _| {});
    let mut rcodes = Vec::new();
    core.finish(&mut asking, Err(FAILURE), at(2), &mut out, |_, reply| {
        rcodes.push(Header::read(reply).unwrap().flags.rcode());
    });
    assert_eq!(rcodes, [Rcode::NXDOMAIN]);
}

#[test]
fn denial_above_a_forward_zone_neither_answers_nor_warms_names_in_it() {
    let mut core = core();
    let mut denied = asking(&mut core, &query(1, "denied."), 0).unwrap();
    let name = NameBuf::from_text("denied.").unwrap();
    let name = name.as_name();
    let mut denial = AnswerBuilder::new(name, Rtype::A, Class::IN, Rcode::NXDOMAIN).unwrap();
    denial.write(Section::Authority, name, Rtype::SOA, Class::IN, 60, &[0; 22]).unwrap();
    core.finish(&mut denied, Ok(denial.finish()), at(0), &mut [0; 512], |_, _| {});
    let reply = replied(&mut core, &query(2, "other.denied."), at(1)).unwrap();
    assert_eq!(Header::read(&reply).unwrap().flags.rcode(), Rcode::NXDOMAIN);
    assert!(matches!(core.warm(&query(3, "a.denied."), at(1)), Warmth::Known));
    let message = with_opt(query(4, "host.corp.denied."), 1232);
    let failed = rcode_and_ede(&mut core, &message, at(1), Err(FAILURE));
    assert_eq!(failed, (Rcode::SERVFAIL, Some(22), None), "asked, and not denied when that fails");
    assert!(matches!(core.warm(&query(5, "b.corp.denied."), at(1)), Warmth::Ask(_)));
}

#[test]
fn popular_answer_is_refreshed_while_it_is_served() {
    let mut core = core();
    let message = query(1, "www.example.");
    rcode_and_ede(&mut core, &message, at(0), Ok(1));
    replied(&mut core, &message, at(1));
    let mut out = [0; 512];
    let Verdict::Refresh(len, mut asking) = core.answer(&message, CLIENT, at(280), &mut out) else {
        panic!("not refreshed")
    };
    assert_eq!(Response::parse(&out[..len]).unwrap().records[0].ttl, 20);
    assert_eq!((core.in_flight(), asking.patience()), (1, Some(Duration::from_millis(1_800))));
    core.answer_stale(&mut asking, at(281), &mut out, |_, _| panic!("nothing is stale yet"));
    let reply = replied(&mut core, &message, at(281)).unwrap();
    assert_eq!(Response::parse(&reply).unwrap().records[0].ttl, 19, "asked for once only");
    let outcome = Ok(answer(&asking, 1));
    core.finish(&mut asking, outcome, at(282), &mut out, |_, _| panic!("nobody waits"));
    let reply = replied(&mut core, &message, at(301)).unwrap();
    assert_eq!(Response::parse(&reply).unwrap().records[0].ttl, 281);
}

/// RCODE and code of the extended error.
fn failure_of(reply: &[u8]) -> (Rcode, u8) {
    let ede = reply.windows(4).rposition(|part| part[..2] == [0, 15] && part[2] == 0).unwrap();
    (Response::parse(reply).unwrap().rcode(), reply[ede + 5])
}

#[test]
fn oldest_of_too_many_waiters_gets_servfail_and_the_newcomer_waits() {
    let mut core = core();
    let mut gone = Vec::new();
    let mut first = None;
    for path in 0..5 {
        let mut out = [0; 512];
        let message = with_opt(query(7, "a."), 1232);
        let Verdict::Miss(ticket) = core.answer(&message, CLIENT, at(0), &mut out) else {
            panic!("not a miss")
        };
        let admission = core.admit(ticket, path, at(0), &mut out, |&path, reply| {
            assert!(reply.ends_with(b"too many clients wait"));
            gone.push((path, failure_of(reply)));
        });
        if let Admission::Ask(asking) = admission {
            first = Some(asking);
        }
    }
    assert_eq!(gone, [(0, (Rcode::SERVFAIL, 23)), (1, (Rcode::SERVFAIL, 23))]);
    assert_eq!((core.counters.overload.value(), core.counters.coalesced.value()), (2, 4));
    let mut first = first.unwrap();
    let outcome = Ok(answer(&first, 1));
    let mut served = Vec::new();
    core.finish(&mut first, outcome, at(0), &mut [0; 512], |&path, _| served.push(path));
    assert_eq!(served, [2, 3, 4]);
}

fn is_told(asking: &Asking) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    pin!(asking.evicted()).poll(&mut cx).is_ready()
}

#[test]
fn oldest_of_too_many_questions_ends_with_servfail_and_can_be_asked_again() {
    let mut core = core();
    let message = |number| with_opt(query(number, &format!("name{number}.")), 1232);
    let mut askings: Vec<_> =
        (0..5).map(|number| asking(&mut core, &message(number), number.into()).unwrap()).collect();
    let told: Vec<_> = askings.iter().map(|asking| is_told(asking)).collect();
    assert_eq!(told, [true, false, false, false, false]);
    assert_eq!((core.in_flight(), core.counters.in_flight.value()), (5, 5));
    let mut sent = Vec::new();
    core.evict(&mut askings[0], at(1), &mut [0; 512], |&path, reply| {
        assert!(reply.ends_with(b"made room for newer questions"));
        sent.push((path, failure_of(reply)));
    });
    assert_eq!(sent, [(0, (Rcode::SERVFAIL, 23))]);
    let counters = &core.counters;
    assert_eq!((counters.evicted_questions.value(), counters.failures.value()), (1, 0));
    assert_eq!((counters.in_flight.value(), counters.in_flight_peak.value()), (4, 5));
    assert!(asking(&mut core, &message(0), 9).is_some(), "nothing is held against it");
    assert!(is_told(&askings[1]));
}

#[test]
fn question_that_makes_room_leaves_the_stale_answer() {
    let mut core = core();
    let message = with_opt(query(1, "www.example."), 1232);
    rcode_and_ede(&mut core, &message, at(0), Ok(1));
    let mut out = [0; 512];
    let Verdict::Miss(ticket) = core.answer(&message, CLIENT, at(400), &mut out) else { panic!() };
    let Admission::Ask(mut asking) = core.admit(ticket, 7, at(400), &mut out, nobody_goes) else {
        panic!("not the first")
    };
    let mut ttls = Vec::new();
    core.evict(&mut asking, at(400), &mut out, |_, reply| {
        ttls.push(Response::parse(reply).unwrap().records[0].ttl);
    });
    assert_eq!(ttls, [30]);
    assert_eq!(rcode_and_ede(&mut core, &message, at(400), Ok(1)).2, Some(300), "tried at once");
}

#[test]
fn newcomer_is_refused_when_those_who_should_go_do_not() {
    let mut core = core();
    let bound = crate::resolve::room::members_max(4);
    for number in 0..=bound {
        let mut out = [0; 512];
        let message = with_opt(query(7, &format!("name{number}.")), 1232);
        let Verdict::Miss(ticket) = core.answer(&message, CLIENT, at(0), &mut out) else {
            panic!("not a miss")
        };
        match core.admit(ticket, 0, at(0), &mut out, nobody_goes) {
            Admission::Ask(_) => assert!(number < bound),
            Admission::Refused(len) => {
                assert_eq!((number, failure_of(&out[..len])), (bound, (Rcode::SERVFAIL, 23)));
            }
            Admission::Joined => panic!("nobody has asked this before"),
        }
    }
    assert_eq!((core.in_flight(), core.counters.overload.value()), (bound, 1));
}

#[test]
fn size_limits_follow_transport_and_edns() {
    let mut core = core();
    let plain = query(1, "www.example.");
    let mut first = asking(&mut core, &plain, 0).unwrap();
    let outcome = Ok(answer(&first, 60));
    core.finish(&mut first, outcome, at(0), &mut [0; 4096], |_, _| {});
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
    assert!(out[..len].ends_with(b"\0\x0F\0\x1B\0\x12this client is not served"));
    let broken = &message[..message.len() - 1];
    let Verdict::Reply(len) = core.answer(broken, stranger, at(0), &mut out) else { panic!() };
    assert_eq!((len, Header::read(&out).unwrap().flags.rcode()), (12, Rcode::REFUSED));
}

fn limited(slip: u32) -> Core<u32> {
    let rate = config::Rate {
        queries_per_second: 1,
        burst: Some(2),
        slip,
        allow: Vec::new(),
        ..Default::default()
    };
    core().limited(RateLimiter::new(&rate, ahash::RandomState::with_seeds(5, 6, 7, 8)))
}

#[test]
fn client_over_its_limit_gets_tc_or_silence_over_udp_and_refused_over_tcp() {
    let mut core = limited(2);
    let message = with_opt(query(7, "wWw.example."), 1232);
    let any = with_opt(query(1, "www.example."), 1232);
    assert_eq!(asking(&mut core, &any, 0).map(|_| ()), Some(()));
    assert_eq!(asking(&mut core, &any, 0).map(|_| ()), None, "joins");
    assert_eq!(replied(&mut core, &message, at(0)), None);
    let reply = replied(&mut core, &message, at(0)).unwrap();
    let response = Response::parse(&reply).unwrap();
    assert!(response.header.flags.has(Flags::TC) && response.records.is_empty());
    assert_eq!((response.header.id, response.rcode()), (7, Rcode::NOERROR));
    assert_eq!(response.question.unwrap().qname.to_string(), "wWw.example.");
    assert_eq!(reply.len(), message.len());
    let stream = Client { transport: Transport::Tcp, ..CLIENT };
    let mut out = [0; 512];
    for _ in 0..2 {
        assert!(matches!(core.answer(&message, stream, at(0), &mut out), Verdict::Miss(_)));
    }
    let Verdict::Reply(len) = core.answer(&message, stream, at(0), &mut out) else { panic!() };
    assert_eq!(Response::parse(&out[..len]).unwrap().rcode(), Rcode::REFUSED);
    assert!(out[..len].ends_with(b"\0\x12too many queries from this client"));
    let counters = &core.counters;
    let limited = [&counters.rate_dropped, &counters.rate_slipped, &counters.rate_refused];
    assert_eq!(limited.map(crate::observe::Counter::value), [1, 1, 1]);
    assert_eq!((counters.dropped.value(), counters.truncated.value()), (1, 1));
}

#[test]
fn malformed_messages_count_and_are_dropped_over_the_limit() {
    let mut core = limited(1);
    let message = query(7, "www.example.");
    let broken = &message[..message.len() - 1];
    for _ in 0..2 {
        assert_eq!(replied(&mut core, broken, at(0)).unwrap().len(), 12);
    }
    for end in 0..message.len() {
        assert_eq!(replied(&mut core, &message[..end], at(0)), None, "{end}");
    }
    assert!(replied(&mut core, &message, at(0)).is_some(), "a query slips");
    let stream = Client { transport: Transport::Tcp, ..CLIENT };
    let mut out = [0; 512];
    for rcode in [Rcode::FORMERR, Rcode::FORMERR, Rcode::REFUSED] {
        let Verdict::Reply(len) = core.answer(broken, stream, at(0), &mut out) else { panic!() };
        assert_eq!((len, Header::read(&out).unwrap().flags.rcode()), (12, rcode));
    }
    assert!(matches!(core.answer(&message[..5], stream, at(0), &mut out), Verdict::Drop));
    assert_eq!(core.counters.rate_dropped.value(), message.len() as u64 + 1);
}

#[test]
fn what_is_dropped_for_the_limit_is_not_even_read() {
    let (forward, udp, cache) =
        (config::Forward::default(), config::Udp::default(), config::Cache::default());
    let optimizations =
        config::Optimizations { zero_copy_parsing: false, ..config::Optimizations::default() };
    let sections =
        Sections { forward: &forward, zones: &[], udp: &udp, cache: &cache, optimizations };
    let mut core = limited(2);
    core.adopt(sections);
    let message = query(7, "www.example.");
    // Two within the limit, one that is dropped, one that slips.
    let copied: Vec<u64> = (0..4)
        .map(|_| {
            let _ = core.answer(&message, CLIENT, at(0), &mut [0; 512]);
            core.counters.copied.value()
        })
        .collect();
    assert_eq!(copied, [1, 2, 2, 3]);
}

#[test]
fn client_outside_the_acl_is_refused_and_never_charged() {
    let mut core = limited(0);
    let stranger = Client { address: [8, 8, 8, 8].into(), ..CLIENT };
    let mut out = [0; 512];
    for _ in 0..10 {
        let verdict = core.answer(&query(1, "www.example."), stranger, at(0), &mut out);
        assert!(matches!(verdict, Verdict::Reply(_)));
    }
    assert_eq!(core.counters.rate_dropped.value(), 0);
}

#[test]
fn tokens_come_back_by_the_monotonic_clock() {
    let mut core = limited(0);
    let message = query(1, "www.example.");
    let mut first = asking(&mut core, &message, 0).unwrap();
    let outcome = Ok(answer(&first, 1));
    core.finish(&mut first, outcome, at(0), &mut [0; 4096], |_, _| {});
    let late = |millis: u64| Now {
        monotonic: crate::time::Monotonic::from_nanos(millis * 1_000_000),
        ..Now::default()
    };
    assert!(replied(&mut core, &message, late(0)).is_some());
    for (millis, is_served) in [(999, false), (1_000, true), (1_999, false), (9_000, true)] {
        assert_eq!(replied(&mut core, &message, late(millis)).is_some(), is_served, "{millis}");
    }
}

mod lists;
mod log;

#[test]
fn queries_are_copied_from_the_moment_in_which_that_is_wanted() {
    let mut core = core();
    let (forward, udp, cache) =
        (config::Forward::default(), config::Udp::default(), config::Cache::default());
    let mut first = asking(&mut core, &query(1, "www.example."), 0).unwrap();
    let outcome = Ok(answer(&first, 1));
    core.finish(&mut first, outcome, at(0), &mut [0; 4096], |_, _| {});
    let mut asked = |zero_copy_parsing| {
        let optimizations = config::Optimizations { zero_copy_parsing, ..Default::default() };
        let sections =
            Sections { forward: &forward, zones: &[], udp: &udp, cache: &cache, optimizations };
        core.adopt(sections);
        let broken = &query(9, "www.example.")[..20];
        let replies = [
            replied(&mut core, &with_opt(query(7, "WWW.example."), 1232), at(1)),
            replied(&mut core, broken, at(1)),
        ];
        (replies, core.counters.copied.value())
    };
    let (usual, copied) = asked(true);
    assert_eq!(copied, 0);
    assert_eq!(asked(false), (usual.clone(), 2));
    assert_eq!(asked(true), (usual, 2));
}
