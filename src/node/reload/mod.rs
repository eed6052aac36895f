//! The config read anew while the node serves: what differs is put in force without losing a query, what cannot change is
//! named. One reload at a time; whoever asks for one meanwhile gets one behind it.

mod difference;
mod report;

use std::sync::Arc;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel,
};
use std::time::Duration;

use tokio::sync::oneshot;

pub use difference::fixed_keys;
pub use report::{Later, Report};

use super::clock::Clocks;
use super::lists::Lists;
use super::memory::Plan;
use super::notify::Notifier;
use super::panel::Panel;
use super::start::{self, Shared};
use super::succession::Settings;
use super::topology::Topology;
use super::{NodeError, hosts, log, placement, switches};
use crate::config::Config;
use crate::control::api::{Credentials, Papers, Reloaded};
use crate::control::desk::Request;
use crate::control::schedule;
use crate::policy::{Filtering, LocalData, Policy};
use crate::time::{CacheTime, Deadline};
use crate::upstream::Trust;

/// How long the cores together have to take up what is in force. A core goes between two batches, in far less.
const PATIENCE: Duration = Duration::from_secs(5);

/// A config as read from file, environment and flags.
#[derive(Debug)]
pub struct Reading {
    /// What they say.
    pub config: Config,
    /// Where its upstreams come from.
    pub upstream_source: String,
    /// What an operator should know of it.
    pub warnings: Vec<String>,
}

/// Reads the config anew, as at the start.
pub type Source = dyn Fn() -> Result<Reading, String> + Send + Sync;

/// Says in words what stands in a config, section by section, when its upstreams come from there and memory is split so.
pub type Describe = fn(&Config, &str, &Plan) -> Vec<(&'static str, String)>;

/// Reloads a node.
pub(super) struct Reloader {
    source: Box<Source>,
    describe: Describe,
    shared: Arc<Shared>,
    panel: Arc<Panel>,
    /// Those of the API, if there is one.
    credentials: Option<Credentials>,
    in_force: InForce,
}

/// What the last reload, or the start, has left.
pub(super) struct InForce {
    /// As far as it is in force: what needs a restart is as it was at the start.
    pub(super) config: Config,
    /// What hosts files said.
    pub(super) hosts_digest: u64,
    /// How the memory would be split.
    pub(super) plan: Plan,
}

/// A config that could be started with, and what is made of it.
struct Candidate {
    config: Config,
    local: LocalData,
    upstream_source: String,
    trust: Trust,
    hosts_digest: u64,
    plan: Plan,
    /// For the API, if there is one.
    papers: Option<Papers>,
}

impl Reloader {
    pub(super) fn new(
        (source, describe): (Box<Source>, Describe),
        shared: Arc<Shared>,
        (panel, credentials): (Arc<Panel>, Option<Credentials>),
        in_force: InForce,
    ) -> Self {
        Self { source, describe, shared, panel, credentials, in_force }
    }

    /// Starts the thread that carries out what is `asked`, and tells the service manager, who knows `status`.
    ///
    /// # Errors
    /// [`NodeError::System`] without a thread.
    pub(super) fn begin(self, asked: Receiver<Asked>, status: String) -> Result<(), NodeError> {
        let work = move || self.carry_out(&asked, &status);
        let spawned = std::thread::Builder::new().name("reload".into()).spawn(work);
        spawned.map_err(|cause| NodeError::System { what: "cannot start a thread", cause })?;
        Ok(())
    }

    fn carry_out(mut self, asked: &Receiver<Asked>, status: &str) {
        let notifier = Notifier::new();
        while let Ok(back) = asked.recv() {
            notifier.reloading();
            let report = self.reload();
            notifier.ready(&format!("{status}; {}", report.summary()));
            if let Some(back) = back {
                // Whoever does not wait any more gets none.
                let _ = back.send(report.told());
            }
        }
    }

    /// Reads the config anew and puts in force what differs and can change. Waits for the cores to take up what is new; lists that have to be compiled or downloaded come into force behind it.
    ///
    /// The log tells what the report says.
    fn reload(&mut self) -> Report {
        let report = match self.candidate() {
            Ok((candidate, report)) => self.apply(candidate, report),
            Err(error) => Report::refused(error),
        };
        match &report.error {
            Some(_) => {
                self.panel.reloads.refused.bump();
                tracing::error!("{}", report.summary());
            }
            None => {
                self.panel.reloads.applied.bump();
                tracing::info!("{}", report.summary());
            }
        }
        for later in &report.needs_restart {
            tracing::warn!(target: log::REPORT, "reload: {later}");
        }
        for warning in &report.warnings {
            tracing::warn!(target: log::REPORT, "reload: {warning}");
        }
        report
    }

    /// The config as it is now, checked as at a start, with what cannot change as it was.
    fn candidate(&self) -> Result<(Candidate, Report), String> {
        let Reading { config, upstream_source, warnings } = (self.source)()?;
        let mut report = Report { warnings, ..Report::default() };
        let candidate = self.check(config, upstream_source, &mut report);
        Ok((candidate.map_err(|error| error.to_string())?, report))
    }

    fn check(
        &self,
        mut config: Config,
        upstream_source: String,
        report: &mut Report,
    ) -> Result<Candidate, NodeError> {
        placement::choose(&Topology::detect(), &config.node.cores)?;
        let (local, complaints, hosts_digest) = hosts::local(&config)?;
        let trust = start::trust_of(&config.forward)?;
        report.warnings.extend(complaints);
        report.warnings.extend(schedule::warning(&config.groups));
        report.needs_restart = difference::keep_fixed(&self.in_force.config, &mut config);
        let plan = Plan::new(&config, self.panel.desks.len(), local.hosts_bytes())?;
        if let Some(more) = plan.beyond(&self.in_force.plan) {
            report.warnings.push(format!(
                "memory: this takes up to {more} MiB more than was planned at the start; the cache keeps its size until the \
                 next start"
            ));
        }
        let papers = self.credentials.as_ref().map(|_| Papers::read(&config.api)).transpose()?;
        Ok(Candidate { config, local, upstream_source, trust, hosts_digest, plan, papers })
    }

    fn apply(&mut self, candidate: Candidate, mut report: Report) -> Report {
        let Candidate { config, local, upstream_source, trust, hosts_digest, plan, papers } =
            candidate;
        let in_force = &self.in_force;
        let (mut different, mut same) = difference::compare(&in_force.config, &config);
        let mut is_other = |name: &'static str, is_different: bool| {
            if is_different && let Some(place) = same.iter().position(|known| *known == name) {
                different.push(same.remove(place));
            }
        };
        is_other("hosts", hosts_digest != in_force.hosts_digest);
        is_other("forward", !trust.is_same(&self.shared.succession.newest().trust));
        different.extend(self.take_up(papers));
        (report.applied, report.unchanged) = (different, same);
        let is_applied = |name: &str| report.applied.contains(&name);
        let is_of_others =
            |name: &&str| matches!(*name, "filter" | "list" | "log" | "api" | "node");
        if is_applied("log") {
            log::set_level(config.log.level);
            log::set_format(config.log.format);
        }
        if is_applied("node") {
            report.warnings.extend(self.panel.steering.adopt(&config.node));
        }
        if is_applied("optimizations") {
            tracing::info!("switches: {}", switches::told(&config));
        }
        if !report.applied.iter().all(is_of_others) {
            report.warnings.extend(self.exchange(&in_force.config, &config, local, trust));
        }
        let are_lists_other = is_applied("list") || is_applied("filter");
        report.warnings.extend(self.keep_lists(&config, are_lists_other).err());
        self.shared.published.reap();
        let described = (self.describe)(&config, &upstream_source, &self.shared.memory);
        self.panel.adopt(&config, described);
        self.in_force = InForce { config, hosts_digest, plan };
        report
    }

    /// Has the API go by what its files hold now; gives its section if that is something else.
    fn take_up(&self, papers: Option<Papers>) -> Option<&'static str> {
        let news = self.credentials.as_ref()?.adopt(papers?);
        if news.is_empty() {
            return None;
        }
        tracing::info!("api: from now on it goes by another {}", news.join(" and another "));
        Some("api")
    }

    /// Has all cores go by `new`; gives a warning where one is late.
    fn exchange(
        &self,
        old: &Config,
        new: &Config,
        local: LocalData,
        trust: Trust,
    ) -> Option<String> {
        let Shared { succession, published, snapshots, .. } = &*self.shared;
        let generation = succession.newest().generation + 1;
        let flushes = difference::flushes(old, new);
        if let Some(snapshots) = snapshots {
            snapshots.adopt(&new.forward);
        }
        succession.add(Settings { generation, config: new.clone(), trust, flushes });
        let policy = start::policy_of(new, local).of_generation(generation);
        let now = self.now();
        published.replace(|current| {
            let regrouped = |filtering: &Filtering| {
                let groups = schedule::in_force(&new.groups, filtering.lists(), now);
                Arc::new(filtering.regrouped(groups))
            };
            let switched = Policy::clone(&policy).switched(current.switches().clone());
            switched.filtered(current.filtering().map(regrouped))
        });
        let late = self.wait_for_cores();
        if late == 0 {
            succession.settle();
            return None;
        }
        Some(format!("{late} core(s) have not taken it up within {PATIENCE:?}; they will"))
    }

    fn now(&self) -> CacheTime {
        Clocks::new(self.shared.clock).read().cache
    }

    /// Wakes all cores and waits until each has taken up what is in force; says how many have not.
    fn wait_for_cores(&self) -> usize {
        let (done, all_done) = channel();
        // One that has no room for the request looks by itself within a second.
        let asked = self.panel.desks.iter().map(|desk| desk.ask(Request::TakeUp(done.clone())));
        let busy = asked.filter(Result::is_err).count();
        drop(done);
        let clock = self.shared.clock;
        let deadline = Deadline::after(clock.monotonic(), PATIENCE);
        let mut waited_for = self.panel.desks.len() - busy;
        while waited_for > 0
            && let Some(patience) = deadline.remaining(clock.monotonic())
        {
            match all_done.recv_timeout(patience) {
                Ok(()) => waited_for -= 1,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        busy + waited_for
    }

    /// Has the lists of `config` kept, if they are others than before, and all of them looked at.
    fn keep_lists(&self, config: &Config, are_other: bool) -> Result<(), String> {
        let lists = &self.shared.lists;
        match lists.get() {
            Some(lists) if are_other => lists.keep(config),
            Some(lists) => lists.refresh(),
            None if config.lists.is_empty() => {}
            None => {
                let begun = Lists::begin(config, self.now(), &self.shared.published);
                if let Some(begun) = begun.map_err(|error| error.to_string())? {
                    lists.get_or_init(|| begun).go_on();
                }
            }
        }
        Ok(())
    }
}

/// Who wants to know what a reload has come to, if somebody does.
pub(super) type Asked = Option<oneshot::Sender<Reloaded>>;

/// Where reloads are asked for.
#[derive(Debug)]
pub(super) struct Requests(SyncSender<Asked>);

impl Requests {
    /// Both ends. One request waits while a reload is under way: it will find whatever was written until it begins.
    pub(super) fn open() -> (Self, Receiver<Asked>) {
        let (requests, asked) = sync_channel(1);
        (Self(requests), asked)
    }

    /// Asks for a reload, unless one waits already.
    pub(super) fn ask(&self) {
        match self.0.try_send(None) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Asks for a reload and has its report sent; `false` when one waits already.
    pub(super) fn ask_for_report(&self, back: oneshot::Sender<Reloaded>) -> bool {
        self.0.try_send(Some(back)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_who_ask_during_a_reload_one_waits() {
        let (reloads, requests) = Requests::open();
        reloads.ask();
        requests.recv().unwrap();
        // That one is under way.
        for _ in 0..3 {
            reloads.ask();
        }
        assert!(!reloads.ask_for_report(oneshot::channel().0));
        assert_eq!((requests.try_recv().is_ok(), requests.try_recv().is_ok()), (true, false));
        assert!(reloads.ask_for_report(oneshot::channel().0));
        assert!(requests.try_recv().is_ok_and(|back| back.is_some()));
        drop(requests);
        reloads.ask();
    }
}
