//! What is each switch of `[optimizations]` worth: a hit with queries viewed or copied, names folded by vectors or by words, lists
//! asked with the filter before their tables or without it, and the share of hits with the hot segment or without it?
//!
//! `cargo bench --no-default-features --bench switches`. Times are the fastest of many short runs, on and off by turns, so that other
//! work on the machine disturbs both alike.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking, and prints"
)]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use heimdall_uring::cache::Shard;
use heimdall_uring::config::{self, Optimizations};
use heimdall_uring::observe::Transport;
use heimdall_uring::policy::filter::syntax::{self, Syntax};
use heimdall_uring::policy::filter::{Asker, Compiler, Image, Kind, Lists, Rule};
use heimdall_uring::policy::{Acl, Identity, LocalData, Policy};
use heimdall_uring::serve::{Admission, Client, Core, Sections, Verdict};
use heimdall_uring::time::{CacheTime, Now};
use heimdall_uring::wire::answer::AnswerBuilder;
use heimdall_uring::wire::response::Section;
use heimdall_uring::wire::{Class, Encoder, Flags, Header, NameBuf, Query, Rcode, Rtype};

/// The hasher of all shards here.
mod lru {
    pub(super) fn hasher() -> ahash::RandomState {
        ahash::RandomState::with_seeds(1, 2, 3, 4)
    }
}
#[path = "cache_hit_rate/ours.rs"]
mod ours;
#[path = "cache_hit_rate/traces.rs"]
mod traces;

use ours::Ours;
use traces::{Extent, Trace};

const CLIENT: Client = Client {
    port: 4_000,
    listener: 0,
    address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    transport: Transport::Udp,
};

/// Names that are asked for: what fits a processor's cache.
const NAMES: usize = 1_000;

/// Names of the list.
const LISTED: u64 = 500_000;

/// Things done in a run: a fraction of a millisecond.
const RUN: usize = 2_000;

/// Runs of each way.
const RUNS: usize = 1_000;

const ALL_ON: Optimizations =
    Optimizations { zero_copy_parsing: true, simd: true, hot_cache: true, filter_pre_filter: true };

fn now() -> Now {
    Now { cache: CacheTime::from_millis(1_000_000), ..Now::default() }
}

/// Two names in three of some twenty octets, the third long enough for vectors.
fn query(number: usize) -> Vec<u8> {
    let header = Header { id: 7, flags: Flags(Flags::RD), counts: [1, 0, 0, 1] };
    let mut encoder = Encoder::new(header, 512);
    let first = if number.is_multiple_of(3) { "A-Name-That-Takes-More-Octets-" } else { "Host" };
    let name = NameBuf::from_text(&format!("{first}{number:05}.example.com.")).unwrap();
    encoder.question(name.as_name(), Rtype::A, Class::IN).unwrap();
    encoder.bytes(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]).unwrap();
    encoder.into_message()
}

/// A core that holds an answer to each of `queries`.
fn core(optimizations: Optimizations, queries: &[Vec<u8>]) -> Core<()> {
    let (forward, udp, cache) =
        (config::Forward::default(), config::Udp::default(), config::Cache::default());
    let policy = Policy::new(
        Acl::new(&config::Acl::default()),
        Identity::new(&config::Identity::default()),
        LocalData::beside(&[], config::Special::default(), &forward).unwrap(),
    );
    let shard = Shard::new(&cache, 64 << 20, lru::hasher());
    let sections =
        Sections { forward: &forward, zones: &[], udp: &udp, cache: &cache, optimizations };
    let mut core = Core::new(Arc::new(policy), shard, sections, Arc::default());
    let mut out = [0; 1232];
    for message in queries {
        let Verdict::Miss(ticket) = core.answer(message, CLIENT, now(), &mut out) else { panic!() };
        let Admission::Ask(mut asking) = core.admit(ticket, (), now(), &mut out, |(), _| {}) else {
            panic!()
        };
        let query = Query::parse(message).unwrap();
        let mut builder =
            AnswerBuilder::new(query.qname, query.qtype, query.qclass, Rcode::NOERROR).unwrap();
        let rdata = [192, 0, 2, 1];
        builder.write(Section::Answer, query.qname, Rtype::A, Class::IN, 3_600, &rdata).unwrap();
        core.finish(&mut asking, Ok(builder.finish()), now(), &mut out, |(), _| {});
    }
    core
}

/// Nanoseconds for one of the things that `on` and `off` do [`RUN`] times.
fn fastest_ns(mut on: impl FnMut(), mut off: impl FnMut()) -> [f64; 2] {
    let mut fastest = [f64::INFINITY; 2];
    for _ in 0..RUNS {
        for (way, fastest) in [&mut on as &mut dyn FnMut(), &mut off].into_iter().zip(&mut fastest)
        {
            let begun = Instant::now();
            way();
            *fastest = fastest.min(begun.elapsed().as_secs_f64() * 1e9 / RUN as f64);
        }
    }
    fastest
}

fn tell(what: &str, [on, off]: [f64; 2], unit: &str) {
    println!("{what:<52} on {on:>7.2} {unit}, off {off:>7.2} {unit}, off/on {:.2}", off / on);
}

fn hits() {
    let queries: Vec<Vec<u8>> = (0..NAMES).map(query).collect();
    for (switch, off) in [
        ("zero_copy_parsing", Optimizations { zero_copy_parsing: false, ..ALL_ON }),
        ("simd", Optimizations { simd: false, ..ALL_ON }),
    ] {
        let [mut with, mut without] = [ALL_ON, off].map(|ways| core(ways, &queries));
        let run = |core: &mut Core<()>| {
            let mut out = [0; 1232];
            for message in queries.iter().cycle().take(RUN) {
                let verdict = core.answer(black_box(message), CLIENT, now(), &mut out);
                assert!(matches!(verdict, Verdict::Reply(_)));
            }
        };
        let figures = fastest_ns(|| run(&mut with), || run(&mut without));
        tell(&format!("{switch}: a hit"), figures, "ns");
    }
}

fn list_name(number: u64, kind: char) -> String {
    let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    format!("{kind}{spread:x}.site{}.example{}.com", number % 97, number % 13)
}

fn lookups() {
    let text: String =
        (0..LISTED).map(|number| format!("||{}^\n", list_name(number, 'x'))).collect();
    let mut compiler = Compiler::new(*b"a key of a bench");
    let report = syntax::read(text.as_bytes(), Syntax::Adblock, &mut |rule: &Rule<'_>| {
        compiler.add(0, Kind::Block, rule).is_ok()
    });
    assert_eq!(report.rules, LISTED);
    let image = Image::open(compiler.finish(0).unwrap()).unwrap();
    let asker = Asker { lists: &Lists::ALL, qtype: Rtype::A, address: CLIENT.address, name: None };
    for (what, kind) in [("a name that is not listed", 'y'), ("a listed name", 'x')] {
        let names: Vec<NameBuf> = (0..NAMES as u64)
            .map(|number| NameBuf::from_text(&list_name(number * 499, kind)).unwrap())
            .collect();
        let run = |is_exact: bool| {
            for name in names.iter().cycle().take(RUN) {
                let matcher = image.matcher().exact(is_exact);
                let decision = matcher.decide(black_box(name.as_name().as_bytes()), &asker);
                assert_eq!(decision.is_some(), kind == 'x');
            }
        };
        let figures = fastest_ns(|| run(false), || run(true));
        tell(&format!("filter_pre_filter: {what}"), figures, "ns");
    }
}

fn hit_rates() {
    const BYTES: usize = 2 << 20;
    for trace in Trace::ALL {
        let requests =
            trace.requests(Extent { names: 1_000_000, requests: 3_000_000, cache: 20_000 });
        let rate = |is_hot: bool| {
            let mut ours = Ours::new(BYTES);
            ours.shard.keep_hot_segment(is_hot);
            let hits = requests.iter().filter(|&&name| ours.request(name)).count();
            hits as f64 * 100.0 / requests.len() as f64
        };
        tell(&format!("hot_cache: {}", trace.title()), [rate(true), rate(false)], "%");
    }
}

fn main() {
    hits();
    lookups();
    hit_rates();
}
