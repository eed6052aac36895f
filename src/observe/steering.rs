//! What is counted of steering by name. One thread writes at a time.

use super::text::{Exposition, Kind};
use super::{Counter, Gauge};

/// Names that go to all cores, and programs.
#[derive(Debug, Default)]
pub struct SteeringCounters {
    /// Names that are spread over all cores now.
    pub spread: Gauge,
    /// Times a name began to be spread.
    pub spreads: Counter,
    /// Times a name went back to the core that owns it.
    pub returns: Counter,
    /// Programs that the kernel refused.
    pub refusals: Counter,
}

impl SteeringCounters {
    /// Writes them.
    pub fn expose(&self, out: &mut Exposition) {
        let gauge = "dns_steering_spread_names";
        let help = "Names that are too hot for one core and go to all of them";
        out.sample(Kind::Gauge, gauge, help, &[], self.spread.value());
        for (name, help, counter) in [
            (
                "dns_steering_spreads_total",
                "Times a name became too hot for one core",
                &self.spreads,
            ),
            (
                "dns_steering_returns_total",
                "Times such a name went back to one core",
                &self.returns,
            ),
            (
                "dns_steering_refusals_total",
                "Steering programs that the kernel refused",
                &self.refusals,
            ),
        ] {
            out.sample(Kind::Counter, name, help, &[], counter.value());
        }
    }
}
