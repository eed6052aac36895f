//! What the cache is for, on small traces of the bench of the same name: it hits more than plain LRU of the same size
//! would, far more when scans pass. Only a change of the policy changes these figures.

#[path = "../benches/cache_hit_rate/lru.rs"]
mod lru;
#[path = "../benches/cache_hit_rate/ours.rs"]
mod ours;
#[path = "../benches/cache_hit_rate/traces.rs"]
mod traces;

use lru::Lru;
use ours::Ours;
use traces::{Extent, Trace};

const REQUESTS: u32 = 250_000;

/// By how many points the shard has to hit more than LRU.
fn margin(trace: Trace) -> f64 {
    match trace {
        Trace::Scans => 6.0,
        Trace::Flat => 4.0,
        Trace::Loops => 2.0,
        Trace::Steep | Trace::Recency => 1.0,
        // LRU is at its best where popularity moves.
        Trace::Shifts | Trace::Drift => -1.5,
    }
}

#[test]
fn shard_hits_more_than_lru_above_all_when_scans_pass() {
    for trace in Trace::ALL {
        let extent = Extent { names: 100_000, requests: REQUESTS, cache: 8_000 };
        let requests = trace.requests(extent);
        let mut shard = Ours::new(1 << 20);
        let ours = requests.iter().filter(|&&name| shard.request(name)).count();
        let mut lru = Lru::new(shard.shard.len());
        let theirs = requests.iter().filter(|&&name| lru.request(name)).count();
        let points = [ours, theirs].map(|hits| hits as f64 * 100.0 / f64::from(REQUESTS));
        let what = format!("{}: {points:.2?}, {} entries", trace.title(), shard.shard.len());
        assert!(shard.shard.tally().evictions > 10_000, "{what}");
        assert!(points[0] > points[1] + margin(trace), "{what}");
    }
}
