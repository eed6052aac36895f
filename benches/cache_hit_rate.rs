//! Does the cache keep the right answers: what share of requests does it hit, beside other policies of the same size?
//!
//! `cargo bench --bench cache_hit_rate`. Replays traces through our own shard, a look-up each and an insertion after a
//! miss, and through other caches for as many entries as the shard holds on average. The clock stands still.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

#[path = "cache_hit_rate/lru.rs"]
mod lru;
#[path = "cache_hit_rate/ours.rs"]
mod ours;
#[path = "cache_hit_rate/policies.rs"]
mod policies;
#[path = "cache_hit_rate/traces.rs"]
mod traces;

use lru::Lru;
use ours::Ours;
use policies::{Moka, S3Fifo};
use traces::{Extent, Trace};

const NAMES: u32 = 1_000_000;

const REQUESTS: u32 = 3_000_000;

/// Sizes of the shard: some 20 000 entries and some 100 000.
const SHARD_BYTES: [usize; 2] = [2 << 20, 9 << 20];

/// Requests between two looks at how many entries ours has.
const SAMPLE: usize = 1_000;

/// So many of the traces the policy is held to.
const HELD: usize = 4;

/// There ours may lie so many points below the best.
const POINTS_BELOW_MAX: f64 = 0.5;

/// A cache of names.
trait Cache {
    /// Asks for `name`, and stores it if it is not there; says whether it was.
    fn request(&mut self, name: u32) -> bool;
}

impl Cache for Ours {
    fn request(&mut self, name: u32) -> bool {
        Self::request(self, name)
    }
}

/// Percent of `requests` that `cache` hits.
fn hit_rate(cache: &mut dyn Cache, requests: &[u32]) -> f64 {
    let hits = requests.iter().filter(|&&name| cache.request(name)).count();
    percent(hits as u64, requests.len() as u64)
}

#[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

/// Entries in a shard of `bytes` that only ever saw names for the first time.
fn entries_when_full(bytes: usize) -> u32 {
    let mut ours = Ours::new(bytes);
    for name in 0..NAMES {
        ours.request(name);
    }
    assert!(ours.shard.tally().evictions > 0, "it is full");
    u32::try_from(ours.shard.len()).expect("there are no more entries than names")
}

/// Hit rate of `cache`, and how many entries it had on average once it was full. Their number moves up and down by a few
/// pages.
fn replay_ours(cache: &mut Ours, requests: &[u32]) -> (f64, usize) {
    let (filling, full) = requests.split_at(requests.len() / 4);
    let mut hits = filling.iter().filter(|&&name| cache.request(name)).count();
    let (mut samples, mut entries) = (0, 0);
    for part in full.chunks(SAMPLE) {
        hits += part.iter().filter(|&&name| cache.request(name)).count();
        samples += 1;
        entries += cache.shard.len();
    }
    (percent(hits as u64, requests.len() as u64), entries / samples)
}

/// Replays `trace` and prints its line; says how far ours lies above the best of the others, in points.
fn replay(trace: Trace, bytes: usize, extent: Extent) -> f64 {
    let requests = trace.requests(extent);
    let mut shard = Ours::new(bytes);
    let (ours, entries) = replay_ours(&mut shard, &requests);
    let lru = hit_rate(&mut Lru::new(entries), &requests);
    let s3_fifo = hit_rate(&mut S3Fifo::new(entries), &requests);
    let moka = hit_rate(&mut Moka::new(entries), &requests);
    let ahead = ours - lru.max(s3_fifo).max(moka);
    let misses = percent(requests.len() as u64, 100) * (100.0 - ours) / 100.0;
    let tally = shard.shard.tally();
    println!(
        "{:20} {entries:>8} {lru:>7.2} {s3_fifo:>8.2} {moka:>7.2} {ours:>7.2} {ahead:>+12.2} {:>8.2} {:>10.3}",
        trace.title(),
        tally.moves as f64 / misses,
        shard.shard.probation_share(),
    );
    ahead
}

fn main() {
    println!("What percentage of {REQUESTS} requests for {NAMES} names does each cache hit?");
    let mut is_kept = true;
    for bytes in SHARD_BYTES {
        let cache = entries_when_full(bytes);
        println!("\nshard of {} KiB: {cache} entries when filled with names in a row", bytes >> 10);
        println!(
            "{:20} {:>8} {:>7} {:>8} {:>7} {:>7} {:>12} {:>8} {:>10}",
            "trace",
            "entries",
            "LRU",
            "S3-FIFO",
            "moka",
            "ours",
            "ours - best",
            "moves",
            "probation"
        );
        let extent = Extent { names: NAMES, requests: REQUESTS, cache };
        for (number, trace) in Trace::ALL.into_iter().enumerate() {
            let ahead = replay(trace, bytes, extent);
            is_kept &= number >= HELD || ahead >= -POINTS_BELOW_MAX;
        }
    }
    println!(
        "\nmoves: entries copied within the shard per insertion; probation: the border at the end, of 1"
    );
    let verdict = if is_kept { "yes" } else { "NO" };
    println!("first {HELD} traces at most {POINTS_BELOW_MAX} points below the best: {verdict}");
}
