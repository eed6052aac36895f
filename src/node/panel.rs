//! The node as its operator sees it: all counters, whatever the door, and the desks of the cores.

use std::sync::Arc;

use super::log;
use crate::config::LogLevel;
use crate::control::api::{About, ApiCounters, Node};
use crate::control::desk::Desk;
use crate::control::process;
use crate::net::{tcp, udp};
use crate::observe::log::LogCounters;
use crate::observe::{
    Exposition, FilterCounters, Format, ForwardCounters, Kind, ServingCounters, SnapshotCounters,
    UpstreamCounters,
};
use crate::policy::{Filtering, Published};

/// All counters of one core.
#[derive(Clone)]
pub(super) struct Counters {
    pub(super) serving: Arc<ServingCounters>,
    pub(super) upstream: Arc<UpstreamCounters>,
    pub(super) forward: Arc<ForwardCounters>,
    pub(super) udp: Arc<udp::Counts>,
    pub(super) tcp: Arc<tcp::Counters>,
}

/// What is asked of the node as a whole.
pub(super) struct Panel {
    pub(super) about: About,
    pub(super) cores: Vec<Counters>,
    pub(super) desks: Vec<Desk>,
    /// Of the snapshot file, if there is one.
    pub(super) snapshots: Option<Arc<SnapshotCounters>>,
    /// Of lists, if there are any.
    pub(super) lists: Option<Arc<FilterCounters>>,
    /// Of queries written down, by core; empty where they are not.
    pub(super) queries: Vec<Arc<LogCounters>>,
    /// The policy in force, which knows what lists are called.
    pub(super) published: Arc<Published>,
    /// Of the API, if there is one.
    pub(super) api: Option<Arc<ApiCounters>>,
    /// Asks the main thread for a snapshot.
    pub(super) save: Box<dyn Fn() + Send + Sync>,
}

impl Panel {
    /// Prints all counters to standard error.
    pub(super) fn dump(&self) {
        let mut out = Exposition::default();
        self.expose(&mut out);
        log::say(&out.finish(Format::Classic));
    }

    /// How unevenly the cores are asked: the busiest by the mean of all.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    fn imbalance(&self) -> Option<f64> {
        let queries = self.cores.iter().map(|core| core.serving.queries());
        let (sum, most) = queries.fold((0, 0), |(sum, most), count| (sum + count, count.max(most)));
        (sum > 0).then(|| (most * self.cores.len() as u64) as f64 / sum as f64)
    }
}

impl Node for Panel {
    fn about(&self) -> &About {
        &self.about
    }

    fn serving(&self) -> Vec<&ServingCounters> {
        self.cores.iter().map(|core| &*core.serving).collect()
    }

    fn kernel_drops(&self) -> Vec<u64> {
        self.cores.iter().map(|core| core.udp.snapshot().kernel_drops).collect()
    }

    fn expose(&self, out: &mut Exposition) {
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        out.sample(Kind::Gauge, "heimdall_build_info", "What runs, by its labels; 1", &labels, 1);
        let (_, policy) = self.published.current();
        let lists = policy.filtering().map_or_else(Vec::new, Filtering::list_names);
        for (core, counters) in self.cores.iter().enumerate() {
            let Counters { serving, upstream, forward, udp, tcp } = counters;
            if let Some(log) = self.queries.get(core) {
                log.expose(core, out);
            }
            serving.expose(core, out);
            serving.filter.expose(core, &lists, out);
            upstream.expose(core, out);
            forward.expose(core, out);
            udp.expose(core, out);
            tcp.expose(core, out);
        }
        ServingCounters::expose_durations(self.cores.iter().map(|core| &*core.serving), out);
        if let Some(imbalance) = self.imbalance() {
            let name = "dns_cores_imbalance_ratio";
            let help = "Queries of the busiest core by the mean of all, since the start; 1 is even";
            out.real(Kind::Gauge, name, help, &[], imbalance);
        }
        if let Some(snapshots) = &self.snapshots {
            snapshots.expose(out);
        }
        if let Some(lists) = &self.lists {
            lists.expose(out);
        }
        if let Some(api) = &self.api {
            api.expose(out);
        }
        process::expose(out);
    }

    fn desks(&self) -> &[Desk] {
        &self.desks
    }

    fn snapshot(&self) -> bool {
        if self.snapshots.is_some() {
            (self.save)();
        }
        self.snapshots.is_some()
    }

    fn log_level(&self) -> LogLevel {
        log::level()
    }

    fn set_log_level(&self, level: LogLevel) {
        log::set_level(level);
    }
}
