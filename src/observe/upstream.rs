//! What a core counts of its traffic with upstreams.

use std::sync::{Arc, Mutex, PoisonError};

use super::text::{Exposition, Kind};
use super::{Counter, Gauge};

/// The counters of one core's upstream traffic. Padded, so that no two cores write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct UpstreamCounters {
    /// Queries sent over UDP.
    pub datagrams: Counter,
    /// What went over TCP.
    pub tcp: StreamCounters,
    /// What went over TLS.
    pub tls: StreamCounters,
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
    /// Exchanges over UDP under way.
    pub in_flight: Gauge,
    /// What went over streams to each upstream; locked when one is new, and to be read.
    lines: Mutex<Vec<UpstreamLine>>,
}

/// The streams to one upstream.
#[derive(Clone, Debug)]
pub struct UpstreamLine {
    /// Its name, as in the config.
    pub upstream: String,
    transport: &'static str,
    /// What is counted of them.
    pub counters: Arc<LineCounters>,
}

/// The counters of the streams to one upstream.
#[derive(Debug, Default)]
pub struct LineCounters {
    /// Queries put on a connection, again or for the first time.
    pub queries: Counter,
    /// Of these, on a connection that an earlier one had opened.
    pub reused: Counter,
    /// Connections that were ready for queries; over TLS, after the handshake.
    pub opened: Counter,
}

/// The counters of one kind of stream.
#[derive(Debug, Default)]
pub struct StreamCounters {
    /// Queries put on a connection, again or for the first time.
    pub queries: Counter,
    /// Of these, on a connection that an earlier one had opened.
    pub reused: Counter,
    /// Queries sent again because their connection had died.
    pub resent: Counter,
    /// Connections that were ready for queries; over TLS, after the handshake.
    pub opened: Counter,
    /// Of these, with a session from before (TLS only).
    pub resumed: Counter,
    /// Connections that could not be made, up to the handshake.
    pub refused: Counter,
    /// Handshakes that failed because of the upstream's certificate or key (TLS only).
    pub certificates_refused: Counter,
    /// Handshakes that failed for another cause (TLS only).
    pub handshakes_failed: Counter,
    /// Answers to queries that had been given up.
    pub late: Counter,
    /// Messages with an ID that no query on the connection had.
    pub unasked: Counter,
    /// Queries whose answer is awaited.
    pub in_flight: Gauge,
    /// Connections, those that are being opened included.
    pub connections: Gauge,
}

impl UpstreamCounters {
    /// Those of the streams to `upstream` over `transport`, the same as before if there were some.
    #[must_use]
    pub fn line(&self, upstream: String, transport: &'static str) -> Arc<LineCounters> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |line: &&UpstreamLine| line.upstream == upstream && line.transport == transport;
        if let Some(known) = lines.iter().find(is_it) {
            return Arc::clone(&known.counters);
        }
        let counters = Arc::<LineCounters>::default();
        lines.push(UpstreamLine { upstream, transport, counters: Arc::clone(&counters) });
        counters
    }

    /// The streams to each upstream.
    ///
    /// Locked for no longer than a copy takes: the core must not wait for whoever looks.
    #[must_use]
    pub fn lines(&self) -> Vec<UpstreamLine> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes what is counted of the streams to each upstream.
    fn expose_lines(&self, core: &str, out: &mut Exposition) {
        for line in self.lines() {
            let labels = [
                ("upstream", line.upstream.as_str()),
                ("transport", line.transport),
                ("core", core),
            ];
            let LineCounters { queries, reused, opened } = &*line.counters;
            for (name, help, count) in [
                ("dns_upstream_stream_queries_total", "Queries on streams to an upstream", queries),
                (
                    "dns_upstream_stream_queries_reusing_total",
                    "Of these, on a connection that an earlier one had opened",
                    reused,
                ),
                ("dns_upstream_streams_opened_total", "Connections made to an upstream", opened),
            ] {
                out.sample(Kind::Counter, name, help, &labels, count.value());
            }
        }
    }

    /// Writes all counters of `core`.
    pub fn expose(&self, core: usize, out: &mut Exposition) {
        let core = core.to_string();
        let labels = [("core", core.as_str())];
        let queries =
            [("udp", &self.datagrams), ("tcp", &self.tcp.queries), ("tls", &self.tls.queries)];
        for (transport, count) in queries {
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
            "Exchanges over UDP under way",
            &labels,
            in_flight,
        );
        self.expose_lines(&core, out);
        self.tcp.expose("tcp", &core, out);
        self.tls.expose("tls", &core, out);
        for (cause, count) in [
            ("certificate", &self.tls.certificates_refused),
            ("other", &self.tls.handshakes_failed),
        ] {
            let labels = [("cause", cause), ("core", core.as_str())];
            let name = "dns_upstream_handshakes_failed_total";
            out.sample(Kind::Counter, name, "TLS handshakes that failed", &labels, count.value());
        }
        let name = "dns_upstream_handshakes_resumed_total";
        let help = "TLS connections that took up an earlier session";
        out.sample(Kind::Counter, name, help, &labels, self.tls.resumed.value());
    }
}

impl StreamCounters {
    /// Writes what TCP and TLS have in common.
    fn expose(&self, transport: &str, core: &str, out: &mut Exposition) {
        let labels = [("transport", transport), ("core", core)];
        for (name, help, count) in [
            (
                "dns_upstream_queries_reusing_total",
                "Queries on a connection that an earlier one had opened",
                &self.reused,
            ),
            (
                "dns_upstream_queries_resent_total",
                "Queries sent again because their connection had died",
                &self.resent,
            ),
            (
                "dns_upstream_connections_opened_total",
                "Connections made to upstreams",
                &self.opened,
            ),
            (
                "dns_upstream_connects_failed_total",
                "Connections to upstreams that could not be made",
                &self.refused,
            ),
            (
                "dns_upstream_late_answers_total",
                "Answers on streams that nobody waited for any more",
                &self.late,
            ),
            (
                "dns_upstream_unasked_answers_total",
                "Messages on streams with an ID that was not asked with",
                &self.unasked,
            ),
        ] {
            out.sample(Kind::Counter, name, help, &labels, count.value());
        }
        for (name, help, count) in [
            ("dns_upstream_connections_open", "Connections to upstreams", &self.connections),
            ("dns_upstream_stream_in_flight", "Exchanges over streams under way", &self.in_flight),
        ] {
            out.sample(Kind::Gauge, name, help, &labels, count.value());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;

    #[test]
    fn streams_are_told_by_transport_so_that_reuse_can_be_reckoned() {
        let counters = UpstreamCounters::default();
        counters.tls.queries.add(8);
        counters.tls.reused.add(6);
        counters.tls.certificates_refused.bump();
        counters.line("192.0.2.1:853".into(), "tls").queries.bump();
        counters.line("192.0.2.1:853".into(), "tls").queries.bump();
        let mut out = Exposition::default();
        counters.expose(2, &mut out);
        let text = out.finish(Format::Classic);
        for line in [
            "dns_upstream_queries_total{transport=\"tls\",core=\"2\"} 8",
            "dns_upstream_queries_reusing_total{transport=\"tls\",core=\"2\"} 6",
            "dns_upstream_queries_reusing_total{transport=\"tcp\",core=\"2\"} 0",
            "dns_upstream_stream_queries_total{upstream=\"192.0.2.1:853\",transport=\"tls\",core=\"2\"} 2",
            "dns_upstream_handshakes_failed_total{cause=\"certificate\",core=\"2\"} 1",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}");
        }
        let mut families: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let told = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), told);
    }
}
