//! What happens per second: the counters of all cores looked at once a second, of which the last ten are kept.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::reply::Reply;
use super::{Node, reply};
use crate::observe::{ServingCounters, Spread};

/// How often the counters are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks that are kept: what "recent" means, in seconds.
const KEPT: usize = 10;

/// Seconds that are kept as they were told.
const HISTORY_SECONDS: usize = 300;

/// Bytes of one of them as text: what all cores have in common, and what each adds.
const SECOND_BYTES: usize = 640;
const CORE_BYTES: usize = 16;

/// Bytes of memory that this takes at most for so many cores.
pub(super) const fn bytes_max(cores: usize) -> usize {
    HISTORY_SECONDS * (SECOND_BYTES + cores * CORE_BYTES)
}

/// The counters at one time.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    cores: Vec<CoreLook>,
    stock: Stock,
    hits: Spread,
    misses: Spread,
}

#[derive(Clone, Copy, Debug)]
struct CoreLook {
    queries: u64,
    hits: u64,
    misses: u64,
    blocked: u64,
    local: u64,
    stale: u64,
    failures: u64,
    evictions: u64,
    kernel_drops: u64,
}

/// What there is at one time.
#[derive(Clone, Copy, Debug, Default)]
struct Stock {
    entries: u64,
    bytes: u64,
    in_flight: u64,
}

impl Look {
    fn at(node: &dyn Node) -> Self {
        let serving = node.serving();
        let drops = node.kernel_drops();
        let core = |(counters, kernel_drops): (&&ServingCounters, u64)| CoreLook {
            queries: counters.queries(),
            hits: counters.hits.value(),
            misses: counters.misses.value(),
            blocked: counters.blocked.value(),
            local: counters.local.value(),
            stale: counters.stale.value(),
            failures: counters.failures.value(),
            evictions: counters.evictions.value(),
            kernel_drops,
        };
        let (mut hits, mut misses) = (Spread::default(), Spread::default());
        let mut stock = Stock::default();
        for counters in &serving {
            stock.entries += counters.entries.value();
            stock.bytes += counters.cache_bytes.value();
            stock.in_flight += counters.in_flight.value();
            hits.add(&counters.hit_durations);
            misses.add(&counters.miss_durations);
        }
        let cores = serving.iter().zip(drops).map(core).collect();
        Self { at: Instant::now(), cores, stock, hits, misses }
    }

    /// What has happened since `earlier`.
    fn since(&self, earlier: &Self) -> Value {
        let seconds = self.at.duration_since(earlier.at).as_secs_f64().max(1e-3);
        let cores: Vec<CoreLook> =
            self.cores.iter().zip(&earlier.cores).map(|(now, then)| now.since(then)).collect();
        let sum = |part: fn(&CoreLook) -> u64| cores.iter().map(part).sum::<u64>();
        let (queries, hits, misses) =
            (sum(|core| core.queries), sum(|core| core.hits), sum(|core| core.misses));
        let busiest = cores.iter().map(|core| core.queries).max().unwrap_or_default();
        json!({
            "seconds": seconds,
            "queries_per_second": per(queries, seconds),
            "queries": queries,
            "hits": hits,
            "misses": misses,
            "hit_rate": share(hits, hits + misses),
            "hit_seconds": quantiles(&self.hits.since(&earlier.hits)),
            "miss_seconds": quantiles(&self.misses.since(&earlier.misses)),
            "imbalance": share(busiest * cores.len() as u64, queries),
            "blocked": sum(|core| core.blocked),
            "local": sum(|core| core.local),
            "stale": sum(|core| core.stale),
            "failures": sum(|core| core.failures),
            "evictions": sum(|core| core.evictions),
            "kernel_drops": sum(|core| core.kernel_drops),
            "entries": self.stock.entries,
            "bytes": self.stock.bytes,
            "in_flight": self.stock.in_flight,
            "cores": cores.iter().map(|core| per(core.queries, seconds)).collect::<Vec<_>>(),
        })
    }
}

impl CoreLook {
    const fn since(&self, earlier: &Self) -> Self {
        Self {
            queries: self.queries.wrapping_sub(earlier.queries),
            hits: self.hits.wrapping_sub(earlier.hits),
            misses: self.misses.wrapping_sub(earlier.misses),
            blocked: self.blocked.wrapping_sub(earlier.blocked),
            local: self.local.wrapping_sub(earlier.local),
            stale: self.stale.wrapping_sub(earlier.stale),
            failures: self.failures.wrapping_sub(earlier.failures),
            evictions: self.evictions.wrapping_sub(earlier.evictions),
            kernel_drops: self.kernel_drops.wrapping_sub(earlier.kernel_drops),
        }
    }
}

/// To one digit behind the point.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn per(count: u64, seconds: f64) -> f64 {
    (10.0 * count as f64 / seconds).round() / 10.0
}

/// `part` of `whole`; nothing of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Bounds that half, and all but a twentieth and a hundredth, of the durations keep.
pub(super) fn quantiles(spread: &Spread) -> Value {
    let at = |share| spread.quantile(share).map(|bound| bound.as_secs_f64());
    json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99) })
}

/// The last looks.
#[derive(Debug)]
pub(super) struct Rates {
    looks: Mutex<VecDeque<Look>>,
    /// The last seconds as text, which takes less room than values do.
    history: Mutex<VecDeque<String>>,
    /// What the last second was like.
    second: watch::Sender<Value>,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            looks: Mutex::default(),
            history: Mutex::default(),
            second: watch::Sender::new(Value::Null),
        }
    }
}

impl Rates {
    /// Looks once a second, for ever.
    pub(super) async fn keep(&self, node: &dyn Node) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let look = Look::at(node);
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(last) = looks.back() {
                let second = look.since(last);
                self.remember(second.to_string());
                self.second.send_replace(second);
            }
            if looks.len() > KEPT {
                looks.pop_front();
            }
            looks.push_back(look);
        }
    }

    /// What the last seconds were like, up to now.
    pub(super) fn recent(&self, node: &dyn Node) -> Value {
        let look = Look::at(node);
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        look.since(looks.front().unwrap_or(&look))
    }

    fn remember(&self, second: String) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY_SECONDS {
            history.pop_front();
        }
        history.push_back(second);
    }

    /// The last seconds, the latest last.
    pub(super) fn history(&self) -> Reply {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = history.make_contiguous().join(",");
        reply::text(reply::JSON, format!("{{\"seconds\":[{seconds}]}}\n"))
    }

    /// Each second from the next one on.
    pub(super) fn seconds(&self) -> watch::Receiver<Value> {
        self.second.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_of_two_looks_is_what_happened_between_them() {
        let core = |queries, hits, misses| CoreLook {
            queries,
            hits,
            misses,
            blocked: queries / 10,
            local: 0,
            stale: 0,
            failures: 0,
            evictions: 0,
            kernel_drops: 1,
        };
        let (hits, misses) = (Spread::default(), Spread::default());
        let at = Instant::now();
        let then = Look {
            at,
            cores: vec![core(10, 5, 5), core(10, 9, 1)],
            stock: Stock::default(),
            hits: hits.clone(),
            misses: misses.clone(),
        };
        let later = at + Duration::from_secs(2);
        let stock = Stock { entries: 7, bytes: 700, in_flight: 1 };
        let cores = vec![core(40, 32, 8), core(20, 19, 1)];
        let now = Look { at: later, cores, stock, hits, misses };
        let told = now.since(&then);
        assert_eq!(told["queries_per_second"], 20.0);
        assert_eq!(told["cores"], json!([15.0, 5.0]));
        assert_eq!(told["imbalance"], 1.5);
        assert_eq!(told["hit_rate"], 37.0 / 40.0);
        assert_eq!(told["kernel_drops"], 0);
        assert_eq!((&told["blocked"], &told["entries"]), (&json!(4), &json!(7)));
        assert_eq!(now.since(&now)["hit_rate"], Value::Null);
    }

    #[test]
    fn history_forgets_the_oldest_and_stays_within_its_bytes() {
        let rates = Rates::default();
        for second in 0..HISTORY_SECONDS + 2 {
            rates.remember(second.to_string());
        }
        let history = rates.history.lock().unwrap();
        assert_eq!((history.len(), history[0].as_str()), (HISTORY_SECONDS, "2"));
        const CORES: usize = 64;
        let most = CoreLook {
            queries: 9_999_999_999,
            hits: 4_999_999_999,
            misses: 4_999_999_999,
            blocked: 999_999_999,
            local: 999_999_999,
            stale: 999_999_999,
            failures: 999_999_999,
            evictions: 999_999_999,
            kernel_drops: 999_999_999,
        };
        let none = most.since(&most);
        let look = |core| Look {
            at: Instant::now(),
            cores: vec![core; CORES],
            stock: Stock { entries: u64::MAX, bytes: u64::MAX, in_flight: u64::MAX },
            hits: Spread::default(),
            misses: Spread::default(),
        };
        let told = look(most).since(&look(none)).to_string().len();
        assert!(HISTORY_SECONDS * told <= bytes_max(CORES), "{told} bytes");
    }
}
