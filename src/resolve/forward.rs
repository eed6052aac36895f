//! Forwarding: questions to the upstreams of the config, among them the ones that are of use.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::attempt::{Attempt, Lap, Rules};
use super::contest::Contest;
use super::cookie::CookieSecret;
use super::exchange::Question;
pub use super::failure::Failure;
use super::health::Change;
use super::ports::{Clock, Entropy, Transport};
use super::race::join_all;
use super::server::Server;
use super::zones::{Group, Zones};
use crate::config::{self, ForwardZone, Upstream};
use crate::observe::{ForwardCounters, ServerCounters, Via};
use crate::time::{Deadline, Monotonic};
use crate::wire::{AnswerBuf, Class, NameBuf, Rtype};

/// Exchanges with upstreams for one question, whatever their number: datagrams, repetitions without EDNS, hedges and
/// streams all count. A budget against amplification.
pub(super) const EXCHANGES_MAX: usize = 8;

/// Changes of upstreams that wait to be told. They are few: each begins or ends a rest of seconds.
const CHANGES_MAX: usize = 64;

/// Hedges that may have been saved up, so that a quiet hour does not allow a storm.
const HEDGES_SAVED_MAX: u32 = 10;

/// What one hedge costs, when each question pays in as many parts as the config has percent.
const HEDGE_COST: u32 = 100;

/// Forwards questions to the upstreams of the config; one per core.
#[derive(Debug)]
pub struct Forwarder {
    /// Each once; those that stay outlive this forwarder.
    servers: Box<[Rc<Server>]>,
    zones: Zones,
    pub(super) section: config::Forward,
    rules: Rules,
    counters: Arc<ForwardCounters>,
    /// Those of `servers`, in their order.
    server_counters: Box<[Arc<ServerCounters>]>,
    hedges_saved: Cell<u32>,
    board: Rc<Board>,
}

/// What has become of upstreams, whichever forwarder has asked them: one and those that went before.
#[derive(Debug, Default)]
struct Board {
    changes: RefCell<Vec<(Upstream, Change)>>,
    /// Who asks in the background, while nothing is to be asked yet.
    prober: RefCell<Option<Waker>>,
}

impl Forwarder {
    /// A forwarder that trusts all upstreams until they fail. `caps` bounds the TTLs of answers; `counters` are made for the
    /// same section by [`Forwarder::counters`].
    #[must_use]
    pub fn new(
        section: &config::Forward,
        caps: config::Cache,
        secret: &CookieSecret,
        counters: Arc<ForwardCounters>,
    ) -> Self {
        Self::made(section, caps, secret, counters, None)
    }

    /// A forwarder for another `section`, with other `caps`, in the place of this one, which goes on with the questions that
    /// it has. What is known of upstreams that stay, stays.
    #[must_use]
    pub fn succeeded_by(
        &self,
        section: &config::Forward,
        caps: config::Cache,
        secret: &CookieSecret,
    ) -> Self {
        Self::made(section, caps, secret, Arc::clone(&self.counters), Some(self))
    }

    fn made(
        section: &config::Forward,
        caps: config::Cache,
        secret: &CookieSecret,
        counters: Arc<ForwardCounters>,
        before: Option<&Self>,
    ) -> Self {
        let upstreams = distinct(section);
        let room = section.upstream_inflight_max;
        let server = |&(upstream, zone): &(&Upstream, &ForwardZone)| {
            let zones = section.all_zones().filter(|zone| zone.upstreams.contains(upstream));
            let patience = zones.map(|zone| zone.attempt_timeout).max().unwrap_or_default();
            let (apex, known) =
                (apex(zone), before.and_then(|before| before.known(upstream, room)));
            let is_same = |known: &&Rc<Server>| {
                known.patience == patience && known.apex.as_name().is_same(apex.as_name())
            };
            known.filter(is_same).map_or_else(
                || Rc::new(Server::new(upstream, apex.clone(), patience, room, secret)),
                Rc::clone,
            )
        };
        let servers = upstreams.iter().map(server).collect();
        let server_counters = counters.follow(named(&upstreams)).into();
        let zones = Zones::new(section, |zone, number| {
            let upstream = &zone.upstreams[number];
            let place = upstreams.iter().position(|&(known, _)| known == upstream);
            place.expect("each upstream of each zone is among them")
        });
        Self {
            servers,
            zones,
            section: section.clone(),
            rules: Rules {
                caps,
                mixes_casing: section.case_randomization,
                has_cookies: section.cookies,
            },
            counters,
            server_counters,
            hedges_saved: Cell::new(before.map_or(0, |before| before.hedges_saved.get())),
            board: before.map_or_else(Rc::default, |before| Rc::clone(&before.board)),
        }
    }

    /// What is known of `upstream`, if as many attempts at a time were allowed for it as are now.
    fn known(&self, upstream: &Upstream, room: usize) -> Option<&Rc<Server>> {
        let mut servers = self.servers.iter();
        servers
            .find(|server| server.upstream == *upstream)
            .filter(|_| self.section.upstream_inflight_max == room)
    }

    /// What a forwarder of `section` counts, from zero.
    #[must_use]
    pub fn counters(section: &config::Forward) -> Arc<ForwardCounters> {
        Arc::new(ForwardCounters::new(named(&distinct(section))))
    }

    /// What has become of upstreams since this was last asked, oldest first.
    #[must_use]
    pub fn take_changes(&self) -> Vec<(Upstream, Change)> {
        self.board.changes.take()
    }

    /// Resolves `question` for clients of `view`.
    ///
    /// It goes to the closest zone with upstreams of its own that holds the name, else to the upstreams of the view. These are asked by their policy, those that have been silent or failing last. When one is
    /// later than usual the next is asked, too, and whoever is first to give something useful wins; those that were silent
    /// are asked again until the deadline, or once more when another has failed. One that said something, however useless, or
    /// that cannot be reached, is not asked a second time. No question costs more than [`EXCHANGES_MAX`] exchanges.
    ///
    /// # Errors
    /// [`Failure`] of the last upstream that said anything; [`Failure::NobodyAnswered`] if none did, and
    /// [`Failure::Unreachable`] if none could even be asked.
    ///
    /// # Panics
    /// When the config has no such view.
    pub async fn resolve<W>(
        &self,
        world: &W,
        view: u8,
        question: &Question<'_>,
    ) -> Result<AnswerBuf, Failure>
    where
        W: Transport + Clock + Entropy,
    {
        self.resolve_telling(world, view, question, &Cell::new(None)).await
    }

    /// As [`Forwarder::resolve`]; leaves in `speaker` who answered, or who failed last, or was at least asked.
    ///
    /// # Errors
    /// As [`Forwarder::resolve`].
    ///
    /// # Panics
    /// As [`Forwarder::resolve`].
    pub async fn resolve_telling<W>(
        &self,
        world: &W,
        view: u8,
        question: &Question<'_>,
        speaker: &Cell<Option<Via>>,
    ) -> Result<AnswerBuf, Failure>
    where
        W: Transport + Clock + Entropy,
    {
        self.save_hedge();
        let group = self.zones.group(question.qname, view);
        let budget = Cell::new(EXCHANGES_MAX);
        Contest::new(self, world, question, group, (&budget, speaker)).run().await
    }

    /// Asks those that rest whether they are back, as each rest ends, and calls `after_each` then; never returns.
    ///
    /// They are asked for the SOA of a zone that they serve. Does nothing where the config forbids it; then clients'
    /// questions try them.
    pub async fn probe<W>(&self, world: &W, after_each: impl Fn())
    where
        W: Transport + Clock + Entropy,
    {
        if !self.section.probe {
            return std::future::pending().await;
        }
        let after_each = &after_each;
        let watches = self.servers.iter().map(async |server| {
            loop {
                self.rest_ends(world, server).await;
                if server.health(|health| health.take_try(world.monotonic())) {
                    self.try_out(world, server).await;
                    after_each();
                }
            }
        });
        // Each for itself: a silent one keeps no other waiting.
        join_all(watches.collect()).await;
    }

    /// Waits until a rest of `server` is over.
    async fn rest_ends<W: Clock>(&self, world: &W, server: &Server) {
        let due_at = || server.health(|health| health.due_at());
        loop {
            let due = due_at();
            let mut alarm = pin!(async {
                match due {
                    Some(due) => world.sleep(due.since(world.monotonic())).await,
                    None => std::future::pending().await,
                }
            });
            let is_over = poll_fn(|cx| {
                self.board.prober.replace(Some(cx.waker().clone()));
                // It may have come back and gone again: then another rest counts.
                let is_other = due_at() != due;
                if is_other { Poll::Ready(false) } else { alarm.as_mut().poll(cx).map(|()| true) }
            });
            if is_over.await {
                return;
            }
        }
    }

    /// Asks one that rests for what it must have.
    async fn try_out<W>(&self, world: &W, server: &Server)
    where
        W: Transport + Clock + Entropy,
    {
        self.counters.probes.bump();
        let question = Question {
            qname: server.apex.as_name(),
            qtype: Rtype::SOA,
            qclass: Class::IN,
            wants_dnssec: false,
            is_checking_disabled: false,
        };
        let now = world.monotonic();
        let patience = server.patience;
        let deadline = Deadline::after(now, self.section.deadline);
        let (lap, budget) = (Lap::new(deadline, 1, now, patience), Cell::new(EXCHANGES_MAX / 2));
        let mut asking = pin!(self.attempt(world, server, &question, &lap, &budget, patience));
        loop {
            // The attempt may take another lap, over a stream.
            let mut alarm = pin!(world.sleep(lap.end().since(world.monotonic())));
            let outcome = poll_fn(|cx| match asking.as_mut().poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending => alarm.as_mut().poll(cx).map(|()| None),
            });
            match outcome.await {
                Some(Ok(_)) => {
                    let change = server.answered();
                    return self.note(server, change);
                }
                Some(Err(failure)) => {
                    if failure.is_the_upstreams() {
                        self.note(server, server.spoke());
                    }
                    return;
                }
                None if world.monotonic() >= lap.end() => return,
                None => {}
            }
        }
    }

    /// One upstream's attempt at `question`.
    pub(super) async fn attempt<W>(
        &self,
        world: &W,
        server: &Server,
        question: &Question<'_>,
        lap: &Lap,
        budget: &Cell<usize>,
        patience: std::time::Duration,
    ) -> Result<AnswerBuf, Failure>
    where
        W: Transport + Clock + Entropy,
    {
        let Some(place) = server.enter() else { return Err(Failure::Displaced) };
        let rules = &self.rules;
        let attempt = Attempt { world, rules, server, question, lap, budget, patience };
        let (mut attempt, mut eviction) = (pin!(attempt.run()), place.evicted());
        let outcome = poll_fn(|cx| match attempt.as_mut().poll(cx) {
            Poll::Pending => Pin::new(&mut eviction).poll(cx).map(|()| Err(Failure::Displaced)),
            ended => ended,
        });
        let outcome = outcome.await;
        self.note(server, server.take_news());
        outcome
    }

    /// The order in which the servers of `group` are asked one question.
    pub(super) fn order(
        &self,
        group: &Group,
        entropy: &impl Entropy,
        now: Monotonic,
    ) -> Vec<usize> {
        let is_tried =
            |server: &Server| !self.section.probe && server.health(|health| health.take_try(now));
        group.order(&self.servers, entropy, is_tried)
    }

    /// All of them, in the order of their counters.
    pub(super) fn servers(&self) -> &[Rc<Server>] {
        &self.servers
    }

    pub(super) const fn zones(&self) -> &Zones {
        &self.zones
    }

    pub(super) fn server(&self, place: usize) -> &Server {
        &self.servers[place]
    }

    pub(super) fn count_server(&self, place: usize) -> &ServerCounters {
        &self.server_counters[place]
    }

    pub(super) fn count(&self) -> &ForwardCounters {
        &self.counters
    }

    /// Notes what has become of `server`.
    pub(super) fn note(&self, server: &Server, change: Option<Change>) {
        let Some(change) = change else { return };
        let mut changes = self.board.changes.borrow_mut();
        if changes.len() < CHANGES_MAX {
            changes.push((server.upstream.clone(), change));
        }
        if let Some(prober) = self.board.prober.take() {
            prober.wake();
        }
    }

    /// Each question pays in for the hedges of all.
    fn save_hedge(&self) {
        let saved = self.hedges_saved.get() + u32::from(self.section.hedge_percent);
        self.hedges_saved.set(saved.min(HEDGES_SAVED_MAX * HEDGE_COST));
    }

    /// Pays for a hedge; `false` when not enough has been saved.
    pub(super) fn pay_hedge(&self) -> bool {
        let left = self.hedges_saved.get().checked_sub(HEDGE_COST);
        left.map(|left| self.hedges_saved.set(left)).is_some()
    }
}

/// By which names their counters go, and how they are spoken to.
fn named(upstreams: &[(&Upstream, &ForwardZone)]) -> impl Iterator<Item = (String, &'static str)> {
    upstreams.iter().map(|(upstream, _)| (upstream.to_string(), upstream.protocol.label()))
}

/// All upstreams, each once, with the first zone that it serves.
fn distinct(section: &config::Forward) -> Vec<(&Upstream, &ForwardZone)> {
    let mut known: Vec<(&Upstream, &ForwardZone)> = Vec::new();
    for zone in section.all_zones() {
        for upstream in &zone.upstreams {
            if !known.iter().any(|&(other, _)| other == upstream) {
                known.push((upstream, zone));
            }
        }
    }
    known
}

fn apex(zone: &ForwardZone) -> NameBuf {
    match zone.apexes.first() {
        Some(apex) => NameBuf::new(apex.as_name()),
        None => NameBuf::from_text(".").expect("the root is a name"),
    }
}

#[cfg(test)]
mod tests;
