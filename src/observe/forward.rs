//! What a core counts of its choice among upstreams.

use std::sync::{Arc, Mutex, PoisonError};

use super::text::{Exposition, Kind};
use super::{Counter, Gauge};

/// The counters of one core's forwarder.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ForwardCounters {
    /// Second upstreams asked because the first was later than it mostly is.
    pub hedges: Counter,
    /// Upstreams asked in the background whether they are back.
    pub probes: Counter,
    /// Of the upstreams in force.
    servers: Mutex<Vec<Arc<ServerCounters>>>,
}

/// What is counted of one upstream.
#[derive(Debug)]
pub struct ServerCounters {
    name: String,
    answers: Counter,
    failures: Counter,
    late: Counter,
    rtt_us: Gauge,
}

impl ForwardCounters {
    /// Counters of upstreams with these names, in the order of the forwarder.
    #[must_use]
    pub fn new(names: impl Iterator<Item = String>) -> Self {
        let counters = Self::default();
        counters.follow(names);
        counters
    }

    /// The counters of upstreams with these names, which are in force from now on, in the same order. What was counted of
    /// one that stays goes on.
    pub fn follow(&self, names: impl Iterator<Item = String>) -> Vec<Arc<ServerCounters>> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let server = |name: String| {
            let known = servers.iter().find(|server| server.name == name).map(Arc::clone);
            known.unwrap_or_else(|| Arc::new(ServerCounters::new(name)))
        };
        *servers = names.map(server).collect();
        servers.clone()
    }

    /// Writes all counters of `core`.
    pub fn expose(&self, core: usize, out: &mut Exposition) {
        let core = core.to_string();
        let labels = [("core", core.as_str())];
        let plain = [
            ("dns_upstream_hedges_total", "Second upstreams asked early", &self.hedges),
            (
                "dns_upstream_probes_total",
                "Resting upstreams asked in the background",
                &self.probes,
            ),
        ];
        for (name, help, count) in plain {
            out.sample(Kind::Counter, name, help, &labels, count.value());
        }
        for server in &*self.servers.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = [("upstream", server.name.as_str()), ("core", core.as_str())];
            let outcomes =
                [("useful", &server.answers), ("failed", &server.failures), ("late", &server.late)];
            for (outcome, count) in outcomes {
                let labels = [labels[0], ("outcome", outcome), labels[1]];
                let name = "dns_upstream_attempts_total";
                out.sample(Kind::Counter, name, "How upstreams did", &labels, count.value());
            }
            let name = "dns_upstream_rtt_microseconds";
            out.sample(
                Kind::Gauge,
                name,
                "Smoothed time to an answer",
                &labels,
                server.rtt_us.value(),
            );
        }
    }
}

impl ServerCounters {
    fn new(name: String) -> Self {
        Self {
            name,
            answers: Counter::default(),
            failures: Counter::default(),
            late: Counter::default(),
            rtt_us: Gauge::default(),
        }
    }

    /// The upstream has answered usefully; its usual time is `rtt_us` now.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "times are positive, and far below the range"
    )]
    pub fn answered(&self, rtt_us: f64) {
        self.answers.bump();
        self.rtt_us.set(rtt_us as u64);
    }

    /// It said something useless, or could not be reached.
    pub fn failed(&self) {
        self.failures.bump();
    }

    /// It was waited for in vain.
    pub fn late(&self) {
        self.late.bump();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_that_stays_keeps_its_counts_and_one_that_goes_is_not_told() {
        let counters = ForwardCounters::default();
        let names =
            |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>().into_iter();
        counters.follow(names(&["a", "b"]))[1].answered(7.0);
        counters.follow(names(&["b", "c"]))[0].answered(9.0);
        let mut out = Exposition::default();
        counters.expose(0, &mut out);
        let text = out.finish();
        let is_told = |line: &str| text.lines().any(|told| told == line);
        assert!(
            is_told("dns_upstream_attempts_total{upstream=\"b\",outcome=\"useful\",core=\"0\"} 2"),
            "{text}"
        );
        assert!(is_told("dns_upstream_rtt_microseconds{upstream=\"b\",core=\"0\"} 9"), "{text}");
        assert!(!text.contains("upstream=\"a\""), "{text}");
    }
}
