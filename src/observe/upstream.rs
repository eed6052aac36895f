//! What a core counts of its traffic with upstreams.

use super::text::{Exposition, Kind};
use super::{Counter, Gauge};

/// The counters of one core's upstream traffic. Padded, so that no two cores write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct UpstreamCounters {
    /// Queries sent over UDP.
    pub datagrams: Counter,
    /// Queries sent over TCP.
    pub streams: Counter,
    /// Answers that ended an exchange.
    pub responses: Counter,
    /// Connections that failed, and datagrams that the kernel would not send.
    pub unreachable: Counter,
    /// Exchanges refused because too much was under way on this core.
    pub exhausted: Counter,
    /// Exchanges given up because an answer may be forged, for a stream.
    pub doubtful: Counter,
    /// Datagrams that answer what is over.
    pub late: Counter,
    /// Sockets that got so many forgeries that their queries went to streams.
    pub floods: Counter,
    /// Datagrams from an upstream with an ID that is not in flight there.
    pub wrong_id: Counter,
    /// Datagrams from an address that was not asked.
    pub wrong_source: Counter,
    /// Datagrams from the right address with a question that was not asked.
    pub wrong_question: Counter,
    /// Datagrams from the right address with another client's cookie.
    pub wrong_cookie: Counter,
    /// Sockets opened, rotation included.
    pub sockets_opened: Counter,
    /// Exchanges under way.
    pub in_flight: Gauge,
}

impl UpstreamCounters {
    /// Writes all counters of `core`.
    pub fn expose(&self, core: usize, out: &mut Exposition) {
        let core = core.to_string();
        let labels = [("core", core.as_str())];
        for (transport, count) in [("udp", &self.datagrams), ("tcp", &self.streams)] {
            let labels = [("transport", transport), ("core", core.as_str())];
            let name = "dns_upstream_queries_total";
            out.sample(Kind::Counter, name, "Queries sent to upstreams", &labels, count.value());
        }
        for (cause, count) in [
            ("id", &self.wrong_id),
            ("source", &self.wrong_source),
            ("question", &self.wrong_question),
            ("cookie", &self.wrong_cookie),
        ] {
            let labels = [("wrong", cause), ("core", core.as_str())];
            let name = "dns_upstream_mismatches_total";
            let help = "Datagrams that answer nothing we asked";
            out.sample(Kind::Counter, name, help, &labels, count.value());
        }
        let plain = [
            ("dns_upstream_responses_total", "Answers from upstreams", &self.responses),
            (
                "dns_upstream_unreachable_total",
                "Upstreams that could not be reached",
                &self.unreachable,
            ),
            ("dns_upstream_late_total", "Answers to what was over", &self.late),
            ("dns_upstream_doubtful_total", "Exchanges left for a stream", &self.doubtful),
            ("dns_upstream_floods_total", "Ports given up for forgeries", &self.floods),
            ("dns_upstream_exhausted_total", "Exchanges refused for want of room", &self.exhausted),
            ("dns_upstream_sockets_opened_total", "Source ports drawn", &self.sockets_opened),
        ];
        for (name, help, count) in plain {
            out.sample(Kind::Counter, name, help, &labels, count.value());
        }
        let in_flight = self.in_flight.value();
        out.sample(
            Kind::Gauge,
            "dns_upstream_in_flight",
            "Exchanges under way",
            &labels,
            in_flight,
        );
    }
}
