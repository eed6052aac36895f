//! What happens per second: the counters of all cores looked at once a second, of which the last ten are kept.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Node;
use crate::observe::{ServingCounters, Spread};

/// How often the counters are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks that are kept: what "recent" means, in seconds.
const KEPT: usize = 10;

/// The counters at one time.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    cores: Vec<CoreLook>,
    hits: Spread,
    misses: Spread,
}

#[derive(Clone, Copy, Debug)]
struct CoreLook {
    queries: u64,
    hits: u64,
    misses: u64,
    kernel_drops: u64,
}

impl Look {
    fn at(node: &dyn Node) -> Self {
        let serving = node.serving();
        let drops = node.kernel_drops();
        let core = |(counters, kernel_drops): (&&ServingCounters, u64)| CoreLook {
            queries: counters.queries(),
            hits: counters.hits.value(),
            misses: counters.misses.value(),
            kernel_drops,
        };
        let (mut hits, mut misses) = (Spread::default(), Spread::default());
        for counters in &serving {
            hits.add(&counters.hit_durations);
            misses.add(&counters.miss_durations);
        }
        let cores = serving.iter().zip(drops).map(core).collect();
        Self { at: Instant::now(), cores, hits, misses }
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
            "hit_rate": share(hits, hits + misses),
            "hit_seconds": quantiles(&self.hits.since(&earlier.hits)),
            "miss_seconds": quantiles(&self.misses.since(&earlier.misses)),
            "imbalance": share(busiest * cores.len() as u64, queries),
            "kernel_drops": sum(|core| core.kernel_drops),
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
    /// What the last second was like.
    second: watch::Sender<Value>,
}

impl Default for Rates {
    fn default() -> Self {
        Self { looks: Mutex::default(), second: watch::Sender::new(Value::Null) }
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
                self.second.send_replace(look.since(last));
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
        let core = |queries, hits, misses| CoreLook { queries, hits, misses, kernel_drops: 1 };
        let (hits, misses) = (Spread::default(), Spread::default());
        let at = Instant::now();
        let then = Look {
            at,
            cores: vec![core(10, 5, 5), core(10, 9, 1)],
            hits: hits.clone(),
            misses: misses.clone(),
        };
        let later = at + Duration::from_secs(2);
        let now = Look { at: later, cores: vec![core(40, 32, 8), core(20, 19, 1)], hits, misses };
        let told = now.since(&then);
        assert_eq!(told["queries_per_second"], 20.0);
        assert_eq!(told["cores"], json!([15.0, 5.0]));
        assert_eq!(told["imbalance"], 1.5);
        assert_eq!(told["hit_rate"], 37.0 / 40.0);
        assert_eq!(told["kernel_drops"], 0);
        assert_eq!(now.since(&now)["hit_rate"], Value::Null);
    }
}
