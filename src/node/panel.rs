//! The node as its operator sees it: all counters, whatever the door, and the desks of the cores.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::clock::Clocks;
use super::lists::Lists;
use super::log;
use super::queries::Queries;
use super::reload::Requests;
use super::start::Shared;
use super::steering::Steering;
use super::switches;
use crate::config::{Config, Group, List, LogLevel};
use crate::control::api::{About, ApiCounters, Node, Owner, Reloaded, Steered, Tally};
use crate::control::desk::Desk;
use crate::control::log::Recorder;
use crate::control::process;
use crate::control::switches::Switchboard;
use crate::net::{tcp, udp};
use crate::observe::log::LogCounters;
use crate::observe::{
    Exposition, Format, ForwardCounters, Glimpses, Kind, ListCounters, ReloadCounters,
    ServingCounters, UpstreamCounters,
};
use crate::time::CacheTime;
use crate::wire::{NameBuf, Rtype};

/// All counters of one core.
#[derive(Clone)]
pub(super) struct Counters {
    pub(super) serving: Arc<ServingCounters>,
    pub(super) glimpses: Arc<Glimpses>,
    pub(super) upstream: Arc<UpstreamCounters>,
    pub(super) forward: Arc<ForwardCounters>,
    pub(super) udp: Arc<udp::Counts>,
    pub(super) tcp: Arc<tcp::Counters>,
}

/// What is asked of the node as a whole.
pub(super) struct Panel {
    /// Exchanged by reloads.
    pub(super) about: Mutex<Arc<About>>,
    pub(super) cores: Vec<Counters>,
    pub(super) desks: Vec<Desk>,
    pub(super) steering: Steering,
    /// Where lists, the snapshot file and the policy in force are found.
    pub(super) shared: Arc<Shared>,
    /// Of queries written down, by core; empty where they are not.
    pub(super) queries: Vec<Arc<LogCounters>>,
    pub(super) reloads: ReloadCounters,
    pub(super) requests: Requests,
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
        log::say(tracing::Level::INFO, &out.finish(Format::Classic));
    }

    /// Tells the operator of another config from now on, where that says something else.
    pub(super) fn adopt(&self, config: &Config, words: Vec<(&'static str, String)>) {
        let mut about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
        let fixed = About::clone(&about);
        *about = Arc::new(About {
            optimizations: switches::of(config),
            config: words,
            toml: config.to_toml(),
            groups: Group::names(&config.groups),
            ..fixed
        });
    }

    /// How unevenly the cores are asked: the busiest by the mean of all.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    fn imbalance(&self) -> Option<f64> {
        let queries = self.cores.iter().map(|core| core.serving.queries());
        let (sum, most) = queries.fold((0, 0), |(sum, most), count| (sum + count, count.max(most)));
        (sum > 0).then(|| (most * self.cores.len() as u64) as f64 / sum as f64)
    }
}

/// That of `upstream`, which begins with nothing.
fn tally_of<'t>(tallies: &'t mut Vec<Tally>, upstream: &str) -> &'t mut Tally {
    let place = tallies.iter().position(|tally| tally.upstream == upstream).unwrap_or_else(|| {
        tallies.push(Tally { upstream: upstream.to_owned(), ..Tally::default() });
        tallies.len() - 1
    });
    &mut tallies[place]
}

impl Node for Panel {
    fn about(&self) -> Arc<About> {
        Arc::clone(&self.about.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn serving(&self) -> Vec<&ServingCounters> {
        self.cores.iter().map(|core| &*core.serving).collect()
    }

    fn steering(&self) -> Steered {
        self.steering.told()
    }

    fn owner(&self, name: &NameBuf) -> Option<Owner> {
        self.steering.owner(name.as_name())
    }

    fn kernel_drops(&self) -> Vec<u64> {
        self.cores.iter().map(|core| core.udp.snapshot().kernel_drops).collect()
    }

    fn upstream_tallies(&self) -> Vec<Tally> {
        let mut tallies: Vec<Tally> = Vec::new();
        for Counters { forward, upstream, .. } in &self.cores {
            for server in forward.servers() {
                let tally = tally_of(&mut tallies, &server.name);
                tally.useful += server.answers.value();
                tally.failed += server.failures.value();
                tally.late += server.waits.value();
            }
            for line in upstream.lines() {
                let tally = tally_of(&mut tallies, &line.upstream);
                tally.stream_queries += line.counters.queries.value();
                tally.stream_queries_reusing += line.counters.reused.value();
                tally.streams_opened += line.counters.opened.value();
            }
        }
        tallies
    }

    fn expose(&self, out: &mut Exposition) {
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        out.sample(Kind::Gauge, "heimdall_build_info", "What runs, by its labels; 1", &labels, 1);
        for (core, counters) in self.cores.iter().enumerate() {
            let Counters { serving, glimpses: _, upstream, forward, udp, tcp } = counters;
            if let Some(log) = self.queries.get(core) {
                log.expose(core, out);
            }
            serving.expose(core, out);
            serving.filter.expose(core, out);
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
        self.steering.expose(out);
        self.reloads.expose(out);
        self.shared.switchboard.expose(out);
        if let Some(snapshots) = &self.shared.snapshots {
            snapshots.counters().expose(out);
        }
        if let Some(lists) = self.shared.lists.get() {
            lists.counters().expose(out);
        }
        if let Some(api) = &self.api {
            api.expose(out);
        }
        process::expose(out);
    }

    fn desks(&self) -> &[Desk] {
        &self.desks
    }

    fn now(&self) -> CacheTime {
        Clocks::new(self.shared.clock).read().cache
    }

    fn switchboard(&self) -> &Switchboard {
        &self.shared.switchboard
    }

    fn holds(&self, name: &NameBuf) -> bool {
        let mut folded = name.clone();
        folded.make_lower();
        let (_, policy) = self.shared.published.current();
        let folded = folded.as_name().as_bytes();
        [Rtype::A, Rtype::AAAA].into_iter().any(|qtype| policy.holds(folded, qtype))
    }

    fn lists(&self) -> Vec<(List, Option<Arc<ListCounters>>)> {
        self.shared.lists.get().map(Lists::all).unwrap_or_default()
    }

    fn refresh_lists(&self, one: Option<&str>) {
        if let Some(lists) = self.shared.lists.get() {
            one.map_or_else(|| lists.refresh(), |name| lists.refresh_one(name));
        }
    }

    fn recorder(&self) -> Option<&Recorder> {
        self.shared.queries.as_ref().map(Queries::recorder)
    }

    fn snapshot(&self) -> bool {
        let has_file = self.shared.snapshots.is_some();
        if has_file {
            (self.save)();
        }
        has_file
    }

    fn reload(&self, back: oneshot::Sender<Reloaded>) -> bool {
        self.requests.ask_for_report(back)
    }

    fn log_level(&self) -> LogLevel {
        log::level()
    }

    fn set_log_level(&self, level: LogLevel) {
        log::set_level(level);
    }
}
