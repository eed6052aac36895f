//! How long do the steps of a cache hit take, and the whole of it, from datagram bytes to reply bytes?
//!
//! `cargo bench --bench dns_performance`. Names are drawn at random from all that are resident, so that the caches of the
//! machine see what a busy resolver shows them; the one-name figures stand beside.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[path = "dns_performance/material.rs"]
mod material;

use criterion::{Criterion, criterion_group, criterion_main};
use heimdall_uring::cache::{Key, Lookup, Shard};
use heimdall_uring::config;
use heimdall_uring::observe::log::{Octets, Tap, queue};
use heimdall_uring::observe::{Sampling, ServingCounters, Transport};
use heimdall_uring::policy::local::Wants;
use heimdall_uring::policy::{LocalData, RateLimiter};
use heimdall_uring::serve::Verdict;
use heimdall_uring::time::{CacheTime, Monotonic, Now};
use heimdall_uring::wire::case::Folding;
use heimdall_uring::wire::{AnswerBuf, NameBuf, Query, Rtype};
use material::{
    CLIENT, Filled, ORDER, answer, blocked_name, filled, key_of, listing, name, now, query,
};

const MILLION: usize = 1_000_000;

/// Datagrams that the node takes at a time, more or less.
const BATCH: usize = 32;

fn parse(criterion: &mut Criterion) {
    for (title, with_edns) in [("parse/plain", false), ("parse/edns", true)] {
        let message = query("www.example.com.", with_edns);
        criterion.bench_function(title, |bencher| {
            bencher.iter(|| Query::parse(black_box(&message)).unwrap());
        });
    }
}

/// From datagram to reply. The datagrams of a batch are warm when their turn comes, as the kernel leaves them; all else is
/// as cold as the number of names makes it.
fn hit(criterion: &mut Criterion) {
    for (title, count) in
        [("one name", 1), ("10 thousand names", 10_000), ("1 million names", MILLION)]
    {
        let mut filled_core = None;
        for (manner, is_foreseen) in [("one by one", false), ("in batches", true)] {
            criterion.bench_function(&format!("hit {manner}/{title}"), |bencher| {
                let filled = filled_core.get_or_insert_with(|| filled(count));
                bencher.iter_custom(|hits| time_hits(filled, hits, is_foreseen));
            });
        }
    }
}

/// How long `hits` hits take, in batches of [`BATCH`].
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn time_hits(filled: &mut Filled, hits: u64, is_foreseen: bool) -> Duration {
    let Filled { core, queries, order } = filled;
    let mut out = vec![0; 1232];
    let mut arena = vec![Vec::new(); BATCH];
    let mut taken = Duration::ZERO;
    let mut left = usize::try_from(hits).unwrap();
    let start = usize::try_from(hits * 7_919).unwrap() % ORDER;
    let mut messages = order.iter().cycle().skip(start).map(|&number| &queries[number]);
    while left > 0 {
        let count = left.min(BATCH);
        for (datagram, message) in arena[..count].iter_mut().zip(&mut messages) {
            datagram.clone_from(message);
        }
        let begin = Instant::now();
        if is_foreseen {
            core.foresee(arena[..count].iter().map(Vec::as_slice));
        }
        for datagram in &arena[..count] {
            let verdict = core.answer(black_box(datagram), CLIENT, now(), &mut out);
            assert!(matches!(verdict, Verdict::Reply(_)));
        }
        taken += begin.elapsed();
        left -= count;
    }
    taken
}

/// A shard of `bytes` with the answers of a million names, or of as many as fit.
fn filled_shard(bytes: usize) -> Shard {
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    let mut shard = Shard::new(&config::Cache::default(), bytes, hasher);
    for number in 0..MILLION {
        let answer = answer(&query(&name(number), true));
        shard.insert(&mut key_of(number), &answer, now().cache, now());
    }
    shard
}

fn shard(criterion: &mut Criterion) {
    let mut roomy = None;
    criterion.bench_function("miss lookup/1 million names", |bencher| {
        let shard = roomy.get_or_insert_with(|| filled_shard(256 << 20));
        // Few enough keys that they do not push the index out of the cache: a node has one key, not thousands.
        let mut absent: Vec<Key> = (0..4096).map(|number| key_of(2 * MILLION + number)).collect();
        let mut turn = 0;
        bencher.iter(|| {
            turn = (turn + 1) % absent.len();
            assert!(matches!(shard.lookup(&mut absent[turn], now()), Lookup::Absent));
        });
    });
    // Room for 1.4 million; in a larger one the index still grows, and each doubling of a segment reads its keys again.
    insert(criterion, "insert/1 million names", 96 << 20);
    insert(criterion, "insert/1 million names, index grows", 256 << 20);
    insert(criterion, "insert/full, one must go", 48 << 20);
}

/// A new name into a shard of `bytes`, as it comes after a miss: the lookup was just before.
fn insert(criterion: &mut Criterion, title: &str, bytes: usize) {
    let fresh = answer(&query(&name(0), true));
    let mut next = 3 * MILLION;
    let mut filled = None;
    criterion.bench_function(title, |bencher| {
        let shard = filled.get_or_insert_with(|| filled_shard(bytes));
        bencher.iter_custom(|count| {
            let mut taken = Duration::ZERO;
            let mut left = usize::try_from(count).unwrap();
            while left > 0 {
                let batch = left.min(BATCH);
                let mut keys: Vec<Key> = (next..next + batch).map(key_of).collect();
                next += batch;
                left -= batch;
                taken += time_inserts(shard, &mut keys, &fresh);
            }
            taken
        });
    });
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn time_inserts(shard: &mut Shard, keys: &mut [Key], fresh: &AnswerBuf) -> Duration {
    for key in &mut *keys {
        assert!(matches!(shard.lookup(key, now()), Lookup::Absent));
    }
    let begin = Instant::now();
    for key in keys {
        black_box(shard.insert(key, fresh, now().cache, now()));
    }
    begin.elapsed()
}

/// What do special names cost a question that is none of theirs, and one that is?
fn local(criterion: &mut Criterion) {
    let wants = Wants { recursion: true, dnssec: false };
    let forward = config::Forward::default();
    let special = LocalData::beside(&[], config::Special::default(), &forward).unwrap();
    for (data, set) in [(LocalData::default(), "no zones"), (special, "special names")] {
        for (title, name) in [
            ("another name", "host0000001.site001.example.com."),
            ("reverse name of the world", "1.0.113.8.in-addr.arpa."),
            ("reverse name of a site", "1.0.113.10.in-addr.arpa."),
        ] {
            let name = NameBuf::from_text(name).unwrap();
            criterion.bench_function(&format!("local lookup, {set}/{title}"), |bencher| {
                let name = name.as_name().as_bytes();
                bencher.iter(|| {
                    data.lookup(black_box(name), black_box(Rtype::A), wants, CacheTime::default())
                });
            });
        }
    }
}

/// What does a list of a million names cost a hit of a name that is not in it? What does a blocked name cost?
fn lists(criterion: &mut Criterion) {
    let listing = listing(MILLION);
    for (title, count) in [("one name", 1), ("10 thousand names", 10_000)] {
        let mut filled = filled(count);
        criterion.bench_function(&format!("hit, no lists/{title}"), |bencher| {
            bencher.iter_custom(|hits| time_hits(&mut filled, hits, false));
        });
        filled.core.go_by(Arc::clone(&listing));
        criterion.bench_function(&format!("hit, a million listed/{title}"), |bencher| {
            bencher.iter_custom(|hits| time_hits(&mut filled, hits, false));
        });
        let blocked = |number| query(&format!("{}.", blocked_name(number)), true);
        filled.queries = (0..count).map(blocked).collect();
        criterion.bench_function(&format!("blocked, a million listed/{title}"), |bencher| {
            bencher.iter_custom(|hits| time_hits(&mut filled, hits, false));
        });
    }
}

/// Is a name folded faster by vectors than by words?
fn folding(criterion: &mut Criterion) {
    let kernels = [("words", Some(Folding::WORDS)), ("vectors", Folding::vectors())];
    for len in [12, 20, 40, 120] {
        let name: Vec<u8> = (0..len).map(|at| b"wWw.eXample"[at % 11]).collect();
        for (kernel, folding) in kernels {
            let Some(folding) = folding else { continue };
            criterion.bench_function(&format!("fold {len} octets/{kernel}"), |bencher| {
                let mut target = [0; 256];
                bencher.iter(|| {
                    folding.lower_into(black_box(&name), &mut target);
                    black_box(&mut target);
                });
            });
        }
    }
}

/// What does it cost a hit to be told to the query log: not at all, without and with its messages, and when the queue is full?
fn log(criterion: &mut Criterion) {
    let bare = Octets::default();
    let whole = Octets { queries: true, replies: true };
    for (title, octets, is_read) in [
        ("not told", None, false),
        ("told", Some(bare), true),
        ("told with messages", Some(whole), true),
        ("queue full", Some(whole), false),
    ] {
        let Filled { core, queries, .. } = filled(1);
        let (producer, mut consumer) = queue(1 << 20);
        let tap = octets.map(|octets| Tap::new(producer, Arc::default(), octets, 1));
        let mut core = core.tapped(tap);
        let mut out = vec![0; 1232];
        let mut told = 0;
        criterion.bench_function(&format!("hit of one name, log: {title}"), |bencher| {
            bencher.iter(|| {
                told += 1;
                if is_read && told % 2_048 == 0 {
                    consumer.forget();
                }
                core.answer(black_box(&queries[0]), CLIENT, now(), &mut out)
            });
        });
    }
}

/// What every client may ask, so much that nobody is over it.
fn limiter() -> RateLimiter {
    let rate = config::Rate {
        queries_per_second: 1_000_000,
        burst: Some(1_000_000),
        allow: Vec::new(),
        ..Default::default()
    };
    RateLimiter::new(&rate, ahash::RandomState::with_seeds(5, 6, 7, 8)).unwrap()
}

/// What does it cost that clients are limited: in a hit, and alone, for so many clients at random?
fn rate(criterion: &mut Criterion) {
    let mut nanos = 0;
    let mut tick = || {
        nanos += 2_000;
        Monotonic::from_nanos(nanos)
    };
    for (title, is_limited) in [("not limited", false), ("limited", true)] {
        let Filled { core, queries, .. } = filled(1);
        let mut core = core.limited(is_limited.then(limiter));
        let mut out = vec![0; 1232];
        criterion.bench_function(&format!("hit of one name, clients {title}"), |bencher| {
            bencher.iter(|| {
                let now = Now { monotonic: tick(), ..now() };
                core.answer(black_box(&queries[0]), CLIENT, now, &mut out)
            });
        });
    }
    for clients in [1, 4_096, 1 << 20] {
        let mut limiter = limiter();
        let mut state = 1u32;
        criterion.bench_function(&format!("charge/{clients} clients"), |bencher| {
            bencher.iter(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let client = Ipv4Addr::from_bits(0x0A00_0000 | ((state >> 8) & (clients - 1)));
                limiter.charge(client.into(), Transport::Udp, tick())
            });
        });
    }
}

/// What does it cost each hit that queries are counted by type, and that one hit in 64 is timed?
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn counting(criterion: &mut Criterion) {
    let counters = ServingCounters::default();
    criterion.bench_function("counting/a counter", |bencher| {
        bencher.iter(|| black_box(&counters).misses.bump());
    });
    criterion.bench_function("counting/by type", |bencher| {
        bencher.iter(|| black_box(&counters).query(Transport::Udp, Some(black_box(Rtype::A))));
    });
    let sampling = Sampling::new(1);
    criterion.bench_function("counting/sampling", |bencher| {
        let begin = Instant::now();
        bencher.iter(|| {
            if black_box(&sampling).is_due() {
                counters.hit_durations.note(begin.elapsed(), Sampling::PERIOD);
            }
        });
    });
    criterion.bench_function("counting/a clock", |bencher| {
        bencher.iter(Instant::now);
    });
}

criterion_group!(benches, parse, hit, local, shard, folding, rate, log, lists, counting);
criterion_main!(benches);
