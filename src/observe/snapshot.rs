//! What became of the snapshots of the cache: one block per node, written by the thread that writes the file.

use super::Counter;
use super::text::{Exposition, Kind};

/// The counters of the snapshot file.
#[derive(Debug, Default)]
pub struct SnapshotCounters {
    /// Snapshots written whole.
    pub written: Counter,
    /// Snapshots that could not be written.
    pub failed: Counter,
    /// Snapshots given up for a later one, or because something was flushed meanwhile.
    pub abandoned: Counter,
}

impl SnapshotCounters {
    /// Writes all counters.
    pub fn expose(&self, out: &mut Exposition) {
        for (outcome, count) in
            [("written", &self.written), ("failed", &self.failed), ("abandoned", &self.abandoned)]
        {
            let labels = [("outcome", outcome)];
            let name = "dns_cache_snapshots_total";
            out.sample(Kind::Counter, name, "Snapshots of the cache", &labels, count.value());
        }
    }
}
