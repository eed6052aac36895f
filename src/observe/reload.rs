//! What became of reloads: one block per node, written by whoever reloads.

use super::Counter;
use super::text::{Exposition, Kind};

/// The counters of reloads.
#[derive(Debug, Default)]
pub struct ReloadCounters {
    /// The config could be read, and what differed and can change is in force.
    pub applied: Counter,
    /// It could not: nothing has changed.
    pub refused: Counter,
}

impl ReloadCounters {
    /// Writes all counters.
    pub fn expose(&self, out: &mut Exposition) {
        for (outcome, count) in [("applied", &self.applied), ("refused", &self.refused)] {
            let (family, help) =
                ("dns_config_reloads_total", "Times that the config was read anew");
            out.sample(Kind::Counter, family, help, &[("outcome", outcome)], count.value());
        }
    }
}
