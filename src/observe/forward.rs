//! What a core counts of its choice among upstreams.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
    /// Its name, as in the config.
    pub name: String,
    protocol: &'static str,
    /// Useful answers.
    pub answers: Counter,
    /// Useless answers, and attempts to reach it that failed.
    pub failures: Counter,
    /// Attempts that were waited for in vain.
    pub waits: Counter,
    rtt_us: Gauge,
}

impl ForwardCounters {
    /// Counters of upstreams with these names, spoken to over these protocols, in the order of the forwarder.
    #[must_use]
    pub fn new(upstreams: impl Iterator<Item = (String, &'static str)>) -> Self {
        let counters = Self::default();
        counters.follow(upstreams);
        counters
    }

    /// The counters of such upstreams, which are in force from now on, in the same order. What was counted of one that stays
    /// goes on.
    pub fn follow(
        &self,
        upstreams: impl Iterator<Item = (String, &'static str)>,
    ) -> Vec<Arc<ServerCounters>> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let server = |(name, protocol)| {
            let is_same =
                |server: &&Arc<ServerCounters>| server.name == name && server.protocol == protocol;
            let known = servers.iter().find(is_same).map(Arc::clone);
            known.unwrap_or_else(|| Arc::new(ServerCounters::new(name, protocol)))
        };
        *servers = upstreams.map(server).collect();
        servers.clone()
    }

    /// The upstreams in force.
    ///
    /// Locked for no longer than a copy takes: the core must not wait for whoever looks.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<ServerCounters>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        for server in self.servers() {
            let labels = [
                ("upstream", server.name.as_str()),
                ("protocol", server.protocol),
                ("core", core.as_str()),
            ];
            let outcomes = [
                ("useful", &server.answers),
                ("failed", &server.failures),
                ("late", &server.waits),
            ];
            for (outcome, count) in outcomes {
                let labels = [labels[0], labels[1], ("outcome", outcome), labels[2]];
                let name = "dns_upstream_attempts_total";
                out.sample(Kind::Counter, name, "How upstreams did", &labels, count.value());
            }
            let rtt = Duration::from_micros(server.rtt_us.value()).as_secs_f64();
            let help = "Smoothed time to an answer; 0 before the first";
            out.real(Kind::Gauge, "dns_upstream_rtt_seconds", help, &labels, rtt);
        }
    }
}

impl ServerCounters {
    fn new(name: String, protocol: &'static str) -> Self {
        Self {
            name,
            protocol,
            answers: Counter::default(),
            failures: Counter::default(),
            waits: Counter::default(),
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
        self.waits.bump();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Format;

    #[test]
    fn upstream_that_stays_keeps_its_counts_and_one_that_goes_is_not_told() {
        let counters = ForwardCounters::default();
        let names =
            |names: [&'static str; 2]| names.into_iter().map(|name| (name.to_owned(), "udp"));
        counters.follow(names(["a", "b"]))[1].answered(7.0);
        counters.follow(names(["b", "c"]))[0].answered(9.0);
        let mut out = Exposition::default();
        counters.expose(0, &mut out);
        let text = out.finish(Format::Classic);
        let is_told = |line: &str| text.lines().any(|told| told == line);
        assert!(
            is_told(
                "dns_upstream_attempts_total{upstream=\"b\",protocol=\"udp\",outcome=\"useful\",core=\"0\"} 2"
            ),
            "{text}"
        );
        assert!(
            is_told(
                "dns_upstream_rtt_seconds{upstream=\"b\",protocol=\"udp\",core=\"0\"} 0.000009"
            ),
            "{text}"
        );
        assert!(!text.contains("upstream=\"a\""), "{text}");
    }
}
