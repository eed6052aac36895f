//! What the TCP listeners of one core count. One core writes, any thread reads.

use crate::observe::{Counter, Exposition, Gauge, Kind};

/// The counters of one core. Padded, so that no other core's writes share a cache line (two, with the prefetcher).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Connections that got a seat.
    pub accepted: Counter,
    /// Newcomers turned away: the listener was full and no connection idle.
    pub refused_full: Counter,
    /// Newcomers turned away: their client had its share.
    pub refused_client: Counter,
    /// Closed without a complete query for the idle timeout, half a query included.
    pub closed_idle: Counter,
    /// Closed because the client did not take its replies.
    pub closed_slow: Counter,
    /// Closed because all connections together held too much.
    pub closed_crowded: Counter,
    /// Closed because a query got no answer and no refusal: the responder lost it.
    pub closed_unanswered: Counter,
    /// Idle connections closed to make room for a newcomer.
    pub evicted_idle: Counter,
    /// Streams with a message too short for a header, or that ended inside a message.
    pub malformed: Counter,
    /// Messages handed to the responder.
    pub queries: Counter,
    /// Replies queued for writing.
    pub replies: Counter,
    /// Failures of accept itself.
    pub accept_errors: Counter,
    /// Open connections now.
    pub open: Gauge,
}

impl Counters {
    /// Writes all counters of `core`.
    pub fn expose(&self, core: usize, out: &mut Exposition) {
        let core = core.to_string();
        let labels = [("core", core.as_str())];
        for (name, help, count) in [
            ("tcp_connections_accepted_total", "Connections that got a seat", &self.accepted),
            ("tcp_messages_total", "Messages read from streams", &self.queries),
            ("tcp_replies_total", "Replies queued for writing", &self.replies),
            ("tcp_malformed_total", "Streams that were no DNS", &self.malformed),
            ("tcp_accept_errors_total", "Failures of accept", &self.accept_errors),
        ] {
            out.sample(Kind::Counter, name, help, &labels, count.value());
        }
        for (cause, count) in [("full", &self.refused_full), ("client", &self.refused_client)] {
            let labels = [("cause", cause), ("core", core.as_str())];
            let name = "tcp_connections_refused_total";
            out.sample(Kind::Counter, name, "Newcomers turned away", &labels, count.value());
        }
        for (cause, count) in [
            ("idle", &self.closed_idle),
            ("slow", &self.closed_slow),
            ("crowded", &self.closed_crowded),
            ("unanswered", &self.closed_unanswered),
            ("evicted", &self.evicted_idle),
        ] {
            let labels = [("cause", cause), ("core", core.as_str())];
            let name = "tcp_connections_closed_total";
            out.sample(Kind::Counter, name, "Connections that we closed", &labels, count.value());
        }
        let open = self.open.value();
        out.sample(Kind::Gauge, "tcp_connections_open", "Open connections", &labels, open);
    }
}
