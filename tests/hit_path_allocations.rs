//! The hit path allocates nothing: a counting allocator watches whole answers, from datagram to reply.
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use heimdall_uring::cache::Shard;
use heimdall_uring::config;
use heimdall_uring::observe::log::{LogCounters, Octets, Tap, queue};
use heimdall_uring::observe::{Decisions, Transport};
use heimdall_uring::policy::filter::syntax::{self, Syntax};
use heimdall_uring::policy::filter::{Compiler, Image, Kind, Lists, Rule};
use heimdall_uring::policy::{
    Acl, Action, Filtering, HostsFile, Identity, LocalData, Override, Overrides, Policy,
    RateLimiter, Switches, local,
};
use heimdall_uring::serve::{Admission, Client, Core, Sections, Unresolved, Verdict};
use heimdall_uring::time::{CacheTime, Monotonic, Now};
use heimdall_uring::wire::answer::AnswerBuilder;
use heimdall_uring::wire::response::Section;
use heimdall_uring::wire::{Class, Ede, Encoder, Flags, Header, NameBuf, Rcode, Rtype};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged; only a thread-local number is touched beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `alloc` above with the same layout, so from the system allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CLIENT: Client = Client {
    port: 4_000,
    listener: 0,
    address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    transport: Transport::Udp,
};

fn core() -> Core<()> {
    core_with(config::Optimizations::default())
}

fn core_with(optimizations: config::Optimizations) -> Core<()> {
    let forward = config::Forward::default();
    let local = config::LocalZone {
        zone: "local.test.".into(),
        records: "@ SOA ns host 1 2 3 4 5\nwww A 192.0.2.1".into(),
        place: String::new(),
    };
    let rewrite = config::Rewrite {
        name: "*.apps.test.".into(),
        to: config::RewriteTarget::Addresses(vec![[192, 0, 2, 1].into()]),
        ttl: 60,
        place: String::new(),
    };
    let hosts = HostsFile { place: String::new(), text: b"192.0.2.2 nas.home".to_vec() };
    let sections = local::Sections {
        zones: &[local],
        special: config::Special::NONE,
        forward: &forward,
        rewrites: &[rewrite],
        hosts: &config::Hosts::default(),
        hosts_files: &[hosts],
    };
    let policy = Policy::new(
        Acl::new(&config::Acl::default()),
        Identity::new(&config::Identity::default()),
        LocalData::compile(&sections).unwrap().0,
    );
    let policy = policy.filtered(Some(Arc::new(filtering()))).switched(switches());
    let policy = policy.pre_filtered(optimizations.filter_pre_filter);
    let shard =
        Shard::new(&config::Cache::default(), 1 << 20, ahash::RandomState::with_seeds(1, 2, 3, 4));
    let (udp, cache) = (config::Udp::default(), config::Cache::default());
    let zones = [NameBuf::from_text("corp.test.").unwrap()];
    let sections =
        Sections { forward: &forward, zones: &zones, udp: &udp, cache: &cache, optimizations };
    let core = Core::new(Arc::new(policy), shard, sections, Arc::default());
    core.recorded(Decisions::new(16, 1))
}

/// One name blocked by hand, and one with all below allowed that the list blocks.
fn switches() -> Switches {
    let names = ["news.test", "shop.ads.test"].map(|name| NameBuf::from_text(name).unwrap());
    let said = [
        Override { action: Action::Block, is_subtree: false },
        Override { action: Action::Allow, is_subtree: true },
    ];
    let overrides = Overrides::new(names.iter().map(NameBuf::as_name).zip(said));
    Switches { overrides: Some(Arc::new(overrides)), ..Switches::default() }
}

/// A list that blocks one name and the names below, and allows one of these.
fn filtering() -> Filtering {
    let mut compiler = Compiler::new([1; 16]);
    let mut take = |rule: &Rule<'_>| compiler.add(0, Kind::Block, rule).is_ok();
    let text = b"||ads.test^\n@@||fine.ads.test^";
    assert_eq!(syntax::read(text, Syntax::Adblock, &mut take).rules, 2);
    let image = Image::open(compiler.finish(0).unwrap().into()).unwrap();
    let source = config::ListSource::File("/list".into());
    let list = config::List::new("ads".into(), source, String::new());
    Filtering::new(image, &[list], Box::new([Lists::ALL]))
}

fn query(name: &str, qtype: Rtype, with_edns: bool) -> Vec<u8> {
    let additional = u16::from(with_edns);
    let header = Header { id: 7, flags: Flags(Flags::RD), counts: [1, 0, 0, additional] };
    let mut encoder = Encoder::new(header, 512);
    let name = NameBuf::from_text(name).unwrap();
    encoder.question(name.as_name(), qtype, Class::IN).unwrap();
    if with_edns {
        encoder.bytes(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]).unwrap();
    }
    encoder.into_message()
}

/// Lets the question of `message` end in NXDOMAIN, or fail.
fn end(core: &mut Core<()>, message: &[u8], is_denied: bool) {
    let now = Now::default();
    let mut out = [0; 4096];
    let Verdict::Miss(ticket) = core.answer(message, CLIENT, now, &mut out) else { panic!() };
    let Admission::Ask(mut asking) = core.admit(ticket, (), now, &mut out, |(), _| {}) else {
        panic!()
    };
    let query = asking.query();
    let (name, qtype) = (query.qname, query.qtype);
    let mut denial = AnswerBuilder::new(name, qtype, Class::IN, Rcode::NXDOMAIN).unwrap();
    denial.write(Section::Authority, name, Rtype::SOA, Class::IN, 300, &[0; 22]).unwrap();
    let failure = Unresolved { ede: Ede::NETWORK_ERROR, is_ours: false };
    let outcome = if is_denied { Ok(denial.finish()) } else { Err(failure) };
    core.finish(&mut asking, outcome, now, &mut out, |(), _| {});
}

/// Asserts that answering `message` at `now` gives a reply and allocates nothing.
fn assert_free(core: &mut Core<()>, what: &str, client: Client, message: &[u8], now: Now) {
    let mut out = [0; 1232];
    let before = ALLOCATIONS.with(Cell::get);
    let verdict = core.answer(message, client, now, &mut out);
    let after = ALLOCATIONS.with(Cell::get);
    assert!(matches!(verdict, Verdict::Reply(_)), "{what}: {verdict:?}");
    assert_eq!(after - before, 0, "{what} allocated");
}

fn resolve(core: &mut Core<()>, message: &[u8], addresses: u8) {
    let now = Now::default();
    let mut out = [0; 4096];
    let Verdict::Miss(ticket) = core.answer(message, CLIENT, now, &mut out) else { panic!() };
    let Admission::Ask(mut asking) = core.admit(ticket, (), now, &mut out, |(), _| {}) else {
        panic!()
    };
    let query = asking.query();
    let mut builder =
        AnswerBuilder::new(query.qname, query.qtype, query.qclass, Rcode::NOERROR).unwrap();
    for last in 0..addresses {
        let rdata = [192, 0, 2, last];
        builder.write(Section::Answer, query.qname, query.qtype, Class::IN, 300, &rdata).unwrap();
    }
    core.finish(&mut asking, Ok(builder.finish()), now, &mut out, |(), _| {});
}

#[test]
fn hits_local_answers_refusals_and_malformed_messages_allocate_nothing() {
    assert_all_free(core());
}

#[test]
fn they_allocate_nothing_either_with_everything_switched_off() {
    let optimizations = config::Optimizations {
        zero_copy_parsing: false,
        simd: false,
        hot_cache: false,
        filter_pre_filter: false,
    };
    assert_all_free(core_with(optimizations));
}

fn assert_all_free(mut core: Core<()>) {
    resolve(&mut core, &query("www.example.com.", Rtype::A, false), 1);
    resolve(&mut core, &query("many.example.com.", Rtype::A, false), 90);
    resolve(&mut core, &query("fine.ads.test.", Rtype::A, false), 1);
    resolve(&mut core, &query("a.shop.ads.test.", Rtype::A, false), 1);
    let stranger = Client { address: [8, 8, 8, 8].into(), ..CLIENT };
    let mut broken = query("www.example.com.", Rtype::A, true);
    broken.truncate(30);
    let cases = [
        ("hit", CLIENT, query("WWW.example.com.", Rtype::A, false)),
        ("hit with EDNS", CLIENT, query("www.EXAMPLE.com.", Rtype::A, true)),
        ("truncated hit", CLIENT, query("many.example.com.", Rtype::A, false)),
        ("local answer", CLIENT, query("www.local.test.", Rtype::A, true)),
        ("local NXDOMAIN", CLIENT, query("no.local.test.", Rtype::A, true)),
        ("hosts file", CLIENT, query("nas.home.", Rtype::A, true)),
        ("hosts file, NODATA", CLIENT, query("nas.home.", Rtype::MX, true)),
        ("rewrite", CLIENT, query("x.apps.test.", Rtype::A, true)),
        ("blocked name", CLIENT, query("Www.ads.test.", Rtype::A, true)),
        ("blocked name, other type", CLIENT, query("ads.test.", Rtype::HTTPS, true)),
        ("allowed name", CLIENT, query("fine.ads.test.", Rtype::A, true)),
        ("name blocked by hand", CLIENT, query("News.test.", Rtype::A, true)),
        ("name below one allowed by hand", CLIENT, query("a.shop.ads.test.", Rtype::A, true)),
        ("ANY", CLIENT, query("www.example.com.", Rtype::ANY, true)),
        ("stranger", stranger, query("www.example.com.", Rtype::A, true)),
        ("malformed", CLIENT, broken),
    ];
    for (what, client, message) in &cases {
        for second in 0..100 {
            let now = Now { cache: CacheTime::from_millis(second * 1000), ..Now::default() };
            assert_free(&mut core, what, *client, message, now);
        }
    }
}

#[test]
fn denials_stale_answers_and_failures_of_a_moment_ago_allocate_nothing() {
    let mut core = core();
    let denied = query("no.example.com.", Rtype::A, true);
    end(&mut core, &denied, true);
    let below = query("a.b.no.example.com.", Rtype::TXT, true);
    let failed = query("failed.example.com.", Rtype::A, true);
    end(&mut core, &failed, false);
    let late = query("late.example.com.", Rtype::A, true);
    resolve(&mut core, &late, 1);
    let now = Now::default();
    assert_free(&mut core, "denied name", CLIENT, &denied, now);
    assert_free(&mut core, "name below a denied one", CLIENT, &below, now);
    assert_free(&mut core, "failure of a moment ago", CLIENT, &failed, now);
    // Past its lifetime, and the upstream has failed again just now.
    let now = Now { cache: CacheTime::from_millis(301_000), ..now };
    let mut out = [0; 1232];
    let Verdict::Miss(ticket) = core.answer(&late, CLIENT, now, &mut out) else { panic!() };
    let Admission::Ask(mut asking) = core.admit(ticket, (), now, &mut out, |(), _| {}) else {
        panic!()
    };
    let failure = Unresolved { ede: Ede::NETWORK_ERROR, is_ours: false };
    core.finish(&mut asking, Err(failure), now, &mut out, |(), _| {});
    assert_free(&mut core, "stale answer", CLIENT, &late, now);
}

#[test]
fn clients_within_and_over_their_limit_allocate_nothing() {
    let rate = config::Rate {
        queries_per_second: 1,
        slip: 1,
        allow: Vec::new(),
        clients_max: 64,
        ..Default::default()
    };
    let limiter = RateLimiter::new(&rate, ahash::RandomState::with_seeds(1, 2, 3, 4));
    let mut core = core().limited(limiter);
    let hit = query("www.example.com.", Rtype::A, true);
    resolve(&mut core, &hit, 1);
    let later = |second: u64| Now {
        monotonic: Monotonic::from_nanos(second * 1_000_000_000),
        ..Now::default()
    };
    for second in 1..100 {
        assert_free(&mut core, "hit within the limit", CLIENT, &hit, later(second));
        assert_free(&mut core, "query over the limit", CLIENT, &hit, later(second));
    }
    let stream = Client { transport: Transport::Tcp, ..CLIENT };
    for what in ["hit over a stream", "refusal", "refusal"] {
        assert_free(&mut core, what, stream, &hit, later(100));
    }
    for [.., high, low] in (0..1_000u32).map(u32::to_be_bytes) {
        let stranger = Client { address: [10, 0, high, low].into(), ..CLIENT };
        assert_free(&mut core, "one of more clients than buckets", stranger, &hit, later(100));
    }
    assert!(core.counters().rate_forgotten.value() > 900, "the table was full");
    assert_eq!(core.counters().rate_refused.value(), 2);
    assert_eq!(core.counters().rate_slipped.value(), 99);
}

#[test]
fn telling_the_query_log_allocates_nothing_even_when_nobody_listens() {
    let (producer, _consumer) = queue(4_096);
    let counters = Arc::<LogCounters>::default();
    let octets = Octets { queries: true, replies: true };
    let mut core = core();
    let hit = query("www.example.com.", Rtype::A, true);
    resolve(&mut core, &hit, 1);
    let mut core = core.tapped(Some(Tap::new(producer, Arc::clone(&counters), octets, 1)));
    for _ in 0..100 {
        assert_free(&mut core, "hit that is told", CLIENT, &hit, Now::default());
    }
    assert!(counters.queue_dropped.value() > 50, "the queue was full");
}

#[test]
fn counting_allocator_counts() {
    let before = ALLOCATIONS.with(Cell::get);
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 1);
}
