//! What a core counts of its choice among upstreams.

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
    servers: Box<[Server]>,
}

/// What is counted of one upstream.
#[derive(Debug)]
struct Server {
    name: String,
    protocol: &'static str,
    answers: Counter,
    failures: Counter,
    late: Counter,
    rtt_us: Gauge,
}

impl ForwardCounters {
    /// Counters of upstreams with these names, spoken to over these protocols, in the order of the forwarder.
    #[must_use]
    pub fn new(upstreams: impl Iterator<Item = (String, &'static str)>) -> Self {
        let server = |(name, protocol)| Server {
            name,
            protocol,
            answers: Counter::default(),
            failures: Counter::default(),
            late: Counter::default(),
            rtt_us: Gauge::default(),
        };
        Self { servers: upstreams.map(server).collect(), ..Self::default() }
    }

    /// The upstream at `place` has answered usefully; its usual time is `rtt_us` now.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "times are positive, and far below the range"
    )]
    pub fn answered(&self, place: usize, rtt_us: f64) {
        if let Some(server) = self.servers.get(place) {
            server.answers.bump();
            server.rtt_us.set(rtt_us as u64);
        }
    }

    /// It said something useless, or could not be reached.
    pub fn failed(&self, place: usize) {
        if let Some(server) = self.servers.get(place) {
            server.failures.bump();
        }
    }

    /// It was waited for in vain.
    pub fn late(&self, place: usize) {
        if let Some(server) = self.servers.get(place) {
            server.late.bump();
        }
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
        for server in &self.servers {
            let labels = [
                ("upstream", server.name.as_str()),
                ("protocol", server.protocol),
                ("core", core.as_str()),
            ];
            let outcomes =
                [("useful", &server.answers), ("failed", &server.failures), ("late", &server.late)];
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
