//! What a forwarder knows of its upstreams, for people.

use std::rc::Rc;

use super::forward::Forwarder;
use super::health::Reason;
use super::server::Server;
use crate::time::Monotonic;

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

impl Forwarder {
    /// What is known of each upstream at `now`, in the order of their counters.
    #[must_use]
    pub fn states(&self, now: Monotonic) -> Vec<State> {
        let state = |server: &Rc<Server>| State {
            upstream: server.upstream.to_string(),
            protocol: server.upstream.protocol.label(),
            rest: server
                .health(|health| health.rest())
                .map(|(reason, until)| (reason, until.since(now).as_secs_f64())),
            rtt_us: server.rtt(|rtt| rtt.smoothed_us()),
            in_flight: server.in_flight(),
            is_in_clear: server.is_in_clear(),
        };
        self.servers().iter().map(state).collect()
    }
}
