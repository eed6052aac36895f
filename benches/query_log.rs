//! What does one query cost to write down, step by step: told by the core, taken out of its queue, packed for the store, counted, and
//! written as dnstap?
//!
//! `cargo bench --bench query_log`. A thousand names and sixteen clients, as `scripts/query-log-cost` asks for them; `strangers` are names
//! of which each comes once.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use heimdall_uring::observe::Transport;
use heimdall_uring::observe::log::{
    Block, Encoder, Entry, How, LogCounters, Octets, Packer, RECORDS_MAX, Sketch, Tap, Told, queue,
};
use heimdall_uring::time::CacheTime;
use heimdall_uring::wire::NameBuf;

const RECORDS: usize = RECORDS_MAX;

/// Bytes of the messages that dnstap tells.
const QUERY: [u8; 45] = [1; 45];
const REPLY: [u8; 61] = [2; 61];

fn names(count: usize) -> Vec<NameBuf> {
    let name = |number: usize| NameBuf::from_text(&format!("name{number}.example.test.")).unwrap();
    (0..count).map(name).collect()
}

/// A query for each place in a block, with names in an order of no order.
fn entries(names: &[NameBuf]) -> Vec<Entry<'_>> {
    (0..RECORDS)
        .map(|at| Entry {
            time: CacheTime::from_millis(1_700_000_000_000 + at as u64 / 100),
            latency_us: None,
            address: IpAddr::from([127, 0, 0, 1]),
            port: 40_000 + u16::try_from(at % 16).unwrap(),
            listener: 0,
            transport: Transport::Udp,
            group: 0,
            how: How::Cache,
            list: None,
            rcode: Some(0),
            qname: names[at * 7_919 % names.len()].as_name().as_bytes(),
            qtype: 1,
            reply_len: 61,
            query: &QUERY,
            reply: &REPLY,
        })
        .collect()
}

fn packer() -> Packer {
    Packer::new(false, RandomState::with_seeds(1, 2, 3, 4))
}

fn fill(packer: &mut Packer, entries: &[Entry<'_>]) {
    packer.clear();
    entries.iter().for_each(|entry| packer.add(entry, |label| format!("{label:?}")));
}

fn told_and_taken(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("query_log");
    group.throughput(Throughput::Elements(RECORDS as u64));
    let few = names(1_000);
    let entries = entries(&few);
    for (label, octets) in [
        ("told and taken", Octets::default()),
        ("told and taken with messages", Octets { queries: true, replies: true }),
    ] {
        let (producer, mut consumer) = queue(4 << 20);
        let tap = Tap::new(producer, Arc::<LogCounters>::default(), octets, 1);
        group.bench_function(label, |bencher| {
            bencher.iter(|| {
                entries.iter().for_each(|entry| tap.tell(entry));
                consumer.drain(|record| {
                    black_box(Entry::read(record));
                });
            });
        });
    }
    group.finish();
}

fn packed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("query_log");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for (label, count) in [("packed", 1_000), ("packed, strangers", RECORDS)] {
        let names = names(count);
        let entries = entries(&names);
        let mut packer = packer();
        group.bench_function(label, |bencher| {
            bencher.iter(|| {
                fill(&mut packer, &entries);
                black_box(packer.packed());
            });
        });
        let octets = packer.packed().octets;
        group.bench_function(format!("{label}: opened"), |bencher| {
            bencher.iter(|| black_box(Block::open(&octets).unwrap().len()));
        });
        group.bench_function(format!("{label}: counted"), |bencher| {
            let mut sketch = Sketch::new(1_000);
            bencher.iter(|| {
                packer.names_seen().for_each(|seen| sketch.add(seen.key, seen.count.into()));
            });
        });
    }
    group.finish();
}

fn framed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("query_log");
    group.throughput(Throughput::Elements(RECORDS as u64));
    let few = names(1_000);
    let entries = entries(&few);
    let listeners = vec!["127.0.0.1:53".parse().unwrap()];
    let mut encoder = Encoder::new("here", "heimdall-uring 0.1.0", listeners, false);
    let mut frames = Vec::new();
    group.bench_function("query and reply as dnstap", |bencher| {
        bencher.iter(|| {
            frames.clear();
            for entry in &entries {
                encoder.append(Told::Query, entry, None, &mut frames);
                encoder.append(Told::Response, entry, None, &mut frames);
            }
            black_box(frames.len());
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = told_and_taken, packed, framed
}
criterion_main!(benches);
