//! What a forwarder knows of its upstreams, for people.

use super::forward::Forwarder;
use super::health::Reason;
use super::server::Server;
use crate::config::Selection;
use crate::time::Monotonic;
use crate::wire::{Name, NameBuf};

/// One upstream as this core knows it.
#[derive(Clone, Debug)]
pub struct State {
    /// Its name, as in the config.
    pub upstream: String,
    /// How it is spoken to.
    pub protocol: &'static str,
    /// Why it is asked last, and for how many seconds more until it is tried.
    pub rest: Option<(Reason, f64)>,
    /// Its usual time to an answer, in microseconds, once it has given one.
    pub rtt_us: Option<f64>,
    /// Attempts under way.
    pub in_flight: usize,
    /// Its questions go in clear for want of TLS.
    pub is_in_clear: bool,
}

/// Who would be asked one question.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// The apex of the forward zone that holds the name; `None` where the client's view decides.
    pub zone: Option<NameBuf>,
    /// How one is chosen.
    pub selection: Selection,
    /// Those who would be asked, in that order; where chance decides, the one that it favours first.
    pub upstreams: Vec<State>,
}

impl Forwarder {
    /// What is known of each upstream at `now`, in the order of their counters.
    #[must_use]
    pub fn states(&self, now: Monotonic) -> Vec<State> {
        self.servers().iter().map(|server| State::of(server, now)).collect()
    }

    /// Who would be asked for `qname` at `now` for clients of `view`; nothing is asked, and nobody's turn is taken.
    #[must_use]
    pub fn outlook(&self, qname: Name<'_>, view: u8, now: Monotonic) -> Outlook {
        let (zone, group) = (self.zones().apex(qname), self.zones().group(qname, view));
        let is_tried = |server: &Server| {
            let due_at = server.health(|health| health.due_at());
            !self.section.probe && due_at.is_some_and(|due| now >= due)
        };
        let order = group.outlook(self.servers(), is_tried);
        let upstreams = order.into_iter().map(|place| State::of(self.server(place), now));
        Outlook { zone, selection: group.selection(), upstreams: upstreams.collect() }
    }
}

impl State {
    fn of(server: &Server, now: Monotonic) -> Self {
        Self {
            upstream: server.upstream.to_string(),
            protocol: server.upstream.protocol.label(),
            rest: server
                .health(|health| health.rest())
                .map(|(reason, until)| (reason, until.since(now).as_secs_f64())),
            rtt_us: server.rtt(|rtt| rtt.smoothed_us()),
            in_flight: server.in_flight(),
            is_in_clear: server.is_in_clear(),
        }
    }
}
