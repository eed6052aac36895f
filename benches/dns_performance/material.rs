//! What is measured in the steps of a hit and of a miss: names, messages, a core that is filled with them, a list.
//!
//! Beside the bench on the clock, `benchmarks/instructions` counts with it, so that both speak of the same work. No randomness
//! but a fixed one.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use heimdall_uring::cache::{Key, Shard};
use heimdall_uring::config;
use heimdall_uring::observe::Transport;
use heimdall_uring::policy::filter::syntax::{self, Syntax};
use heimdall_uring::policy::filter::{Compiler, Image, Kind, Lists, Rule};
use heimdall_uring::policy::{Acl, Filtering, Identity, LocalData, Policy};
use heimdall_uring::serve::{Admission, Client, Core, Sections, Verdict};
use heimdall_uring::time::{CacheTime, Now};
use heimdall_uring::wire::answer::AnswerBuilder;
use heimdall_uring::wire::case::Folding;
use heimdall_uring::wire::response::Section;
use heimdall_uring::wire::{
    AnswerBuf, Class, Encoder, Flags, Header, NameBuf, Query, Rcode, Rtype,
};

pub(crate) const CLIENT: Client = Client {
    address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    port: 4_000,
    listener: 0,
    transport: Transport::Udp,
};

/// Queries in one random order; a power of two.
pub(crate) const ORDER: usize = 1 << 16;

pub(crate) fn now() -> Now {
    Now { cache: CacheTime::from_millis(1_000_000), ..Now::default() }
}

pub(crate) fn query(name: &str, with_edns: bool) -> Vec<u8> {
    let additional = u16::from(with_edns);
    let header = Header { id: 7, flags: Flags(Flags::RD), counts: [1, 0, 0, additional] };
    let mut encoder = Encoder::new(header, 512);
    let name = NameBuf::from_text(name).unwrap();
    encoder.question(name.as_name(), Rtype::A, Class::IN).unwrap();
    if with_edns {
        encoder.bytes(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]).unwrap();
    }
    encoder.into_message()
}

pub(crate) fn answer(message: &[u8]) -> AnswerBuf {
    let query = Query::parse(message).unwrap();
    let mut builder =
        AnswerBuilder::new(query.qname, query.qtype, query.qclass, Rcode::NOERROR).unwrap();
    let rdata = [192, 0, 2, 1];
    builder.write(Section::Answer, query.qname, Rtype::A, Class::IN, 3_600, &rdata).unwrap();
    builder.finish()
}

/// Names of some twenty octets, as real ones are.
pub(crate) fn name(number: usize) -> String {
    format!("host{number:07}.site{:03}.example.com.", number % 997)
}

pub(crate) fn core() -> Core<()> {
    let forward = config::Forward::default();
    let local = config::LocalZone {
        zone: "heimdall.test.".into(),
        records: "hello A 192.0.2.53".into(),
        place: String::new(),
    };
    let policy = Policy::new(
        Acl::new(&config::Acl::default()),
        Identity::new(&config::Identity::default()),
        LocalData::beside(&[local], config::Special::default(), &forward).unwrap(),
    );
    let shard = Shard::new(
        &config::Cache::default(),
        256 << 20,
        ahash::RandomState::with_seeds(1, 2, 3, 4),
    );
    let (udp, cache) = (config::Udp::default(), config::Cache::default());
    let optimizations = config::Optimizations::default();
    let sections =
        Sections { forward: &forward, zones: &[], udp: &udp, cache: &cache, optimizations };
    Core::new(Arc::new(policy), shard, sections, Arc::default())
}

/// A core that holds an answer for each of `count` names.
pub(crate) struct Filled {
    pub(crate) core: Core<()>,
    pub(crate) queries: Vec<Vec<u8>>,
    /// Numbers of queries.
    pub(crate) order: Vec<usize>,
}

pub(crate) fn filled(count: usize) -> Filled {
    let mut core = core();
    let mut out = vec![0; 1232];
    let queries: Vec<Vec<u8>> = (0..count).map(|number| query(&name(number), true)).collect();
    for message in &queries {
        let Verdict::Miss(ticket) = core.answer(message, CLIENT, now(), &mut out) else { panic!() };
        let Admission::Ask(mut asking) = core.admit(ticket, (), now(), &mut out, |(), _| {}) else {
            panic!()
        };
        core.finish(&mut asking, Ok(answer(message)), now(), &mut out, |(), _| {});
    }
    let mut state = 1u64;
    let order = (0..ORDER).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % count
    });
    let order = order.collect();
    Filled { core, queries, order }
}

pub(crate) fn key_of(number: usize) -> Key {
    let message = query(&name(number), true);
    let mut key = Key::default();
    key.set(&Query::parse(&message).unwrap(), 0, Folding::WORDS);
    key
}

/// A policy with the [`list`] of `count` names.
pub(crate) fn listing(count: usize) -> Arc<Policy> {
    let image = Image::open(list(count).into()).unwrap();
    let source = config::ListSource::File("/list".into());
    let list = config::List::new("bench".into(), source, String::new());
    let filtering = Filtering::new(image, &[list], Box::new([Lists::ALL]));
    let policy = Policy::new(
        Acl::new(&config::Acl::default()),
        Identity::new(&config::Identity::default()),
        LocalData::beside(&[], config::Special::default(), &config::Forward::default()).unwrap(),
    );
    Arc::new(policy.filtered(Some(Arc::new(filtering))))
}

/// An image of `count` names, all apart from those of [`name`].
pub(crate) fn list(count: usize) -> Vec<u8> {
    let mut compiler = Compiler::new([5; 16]);
    let mut take = |rule: &Rule<'_>| compiler.add(0, Kind::Block, rule).is_ok();
    let listed = |number| format!("||{}^\n", blocked_name(number));
    let text: String = (0..count).map(listed).collect();
    let report = syntax::read(text.as_bytes(), Syntax::Adblock, &mut take);
    assert_eq!(report.rules, count as u64);
    compiler.finish(0).unwrap()
}

pub(crate) fn blocked_name(number: usize) -> String {
    format!("track{number:07}.ads{:03}.net", number % 997)
}
