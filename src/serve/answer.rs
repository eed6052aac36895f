//! Hot path. Answers a query from what this core already holds, or opens a ticket for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::blocked::Elsewhere;
use super::miss::{Asking, Ticket, Waiting};
use super::reply;
use crate::cache::{Explanation, Failures, Key, Lookup, Outbox, Shard};
use crate::config::{self, ROOT_VIEW};
use crate::observe::log::{Account, How, Tap};
use crate::observe::{Decisions, ServingCounters, Transport};
use crate::policy::{Asker, Excess, Filtering, Policy, RateLimiter, Ruling};
use crate::time::Now;
use crate::wire::case::Folding;
use crate::wire::{AnswerBuf, CopiedQuery, Ede, Malformed, NameBuf, Query, Rcode};

/// Messages that are looked at ahead of time.
pub const FORESEEN_MAX: usize = 64;

/// Who asks, and over what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Client {
    /// The client's address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Which listener it asked: the index in `config::Node::listen`.
    pub listener: u16,
    /// How the query came and the reply goes.
    pub transport: Transport,
}

impl Client {
    /// The client as `policy` sees it.
    #[inline]
    pub(super) fn asker(self, policy: &Policy) -> Asker {
        Asker {
            address: self.address,
            place: policy.place(self.address, self.listener),
            is_stream: self.transport == Transport::Tcp,
            is_served: policy.serves(self.address),
        }
    }
}

/// What becomes of a message.
#[derive(Debug)]
pub enum Verdict {
    /// This many bytes of the buffer are the reply.
    Reply(usize),
    /// As [`Verdict::Reply`]; and this is to be resolved anew, for those who ask next.
    Refresh(usize, Box<Asking>),
    /// Nothing is sent.
    Drop,
    /// Somebody must be asked: hand the ticket to [`Core::admit`].
    Miss(Box<Ticket>),
}

/// What becomes of a question that nobody has asked.
#[derive(Debug)]
pub enum Warmth {
    /// Resolve this.
    Ask(Box<Asking>),
    /// It is known already, or soon will be.
    Known,
    /// Too much is being resolved: try again later.
    Busy,
}

/// The serving half of one core. `P` is the way back to a client, whatever the transport makes of it.
#[derive(Debug)]
pub struct Core<P> {
    pub(super) policy: Arc<Policy>,
    pub(super) rate: Option<RateLimiter>,
    pub(super) shard: Shard,
    pub(super) waiting: Waiting<P>,
    pub(super) counters: Arc<ServingCounters>,
    pub(super) limits: reply::Limits,
    pub(super) failures: Failures,
    pub(super) outbox: Outbox,
    pub(super) stale_after: Duration,
    pub(super) folding: Folding,
    /// Queries are copied by the checking reader, not viewed in place.
    is_copying: bool,
    pub(super) key: Key,
    /// What is to be told of the query at hand.
    pub(super) account: Account,
    pub(super) tap: Option<Tap>,
    /// What was decided last.
    pub(super) decisions: Decisions,
    /// Tells questions in flight from those of a config before, whose views have the same numbers.
    pub(super) salt: u64,
}

/// The sections of the config that serving goes by.
#[derive(Clone, Copy, Debug)]
pub struct Sections<'a> {
    /// Limits of what is in flight.
    pub forward: &'a config::Forward,
    /// The apexes of all zones with upstreams of their own; the root may be among them.
    pub zones: &'a [NameBuf],
    /// Sizes of replies.
    pub udp: &'a config::Udp,
    /// Stale answers and failures.
    pub cache: &'a config::Cache,
    /// What can be switched off.
    pub optimizations: config::Optimizations,
}

impl<P> Core<P> {
    /// Joins the parts.
    #[must_use]
    pub fn new(
        policy: Arc<Policy>,
        shard: Shard,
        sections: Sections<'_>,
        counters: Arc<ServingCounters>,
    ) -> Self {
        let is_followed = counters.filter.follow(list_names(&policy));
        assert!(is_followed, "nobody reads the counters of a core that is being made");
        let core = Self {
            policy,
            rate: None,
            shard: shard
                .divided_at(sections.zones)
                .with_hot_segment(sections.optimizations.hot_cache),
            waiting: Waiting::new(sections.forward),
            counters,
            limits: reply::Limits::new(sections.udp),
            failures: Failures::new(sections.cache.failure_ttl_max),
            outbox: Outbox::new(0),
            stale_after: sections.cache.stale_after,
            folding: folding_of(sections.optimizations),
            is_copying: !sections.optimizations.zero_copy_parsing,
            key: Key::default(),
            account: Account::default(),
            tap: None,
            decisions: Decisions::new(0, 0),
            salt: 0,
        };
        core.tell_optimizations();
        core
    }

    /// The same, with `peers` other cores beside it.
    #[must_use]
    pub fn among(mut self, peers: usize) -> Self {
        self.outbox = Outbox::new(peers);
        self
    }

    /// The same, with clients limited to what `rate` grants them.
    #[must_use]
    pub fn limited(mut self, rate: Option<RateLimiter>) -> Self {
        self.rate = rate;
        self
    }

    /// The same, telling `tap` of its queries.
    #[must_use]
    pub fn tapped(mut self, tap: Option<Tap>) -> Self {
        self.tap = tap;
        self
    }

    /// The same, noting in `decisions` what it decides.
    #[must_use]
    pub fn recorded(mut self, decisions: Decisions) -> Self {
        self.decisions = decisions;
        self
    }

    /// What was decided last.
    #[must_use]
    pub const fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// Goes by `policy` from now on. What the cache holds is the truth of upstreams, so nothing of it has to go. `false` while
    /// somebody reads what is counted of the lists, which are others now: all is as it was.
    pub fn go_by(&mut self, policy: Arc<Policy>) -> bool {
        let is_same = match (self.policy.filtering(), policy.filtering()) {
            (Some(own), Some(other)) => own.is_numbered_as(other),
            (None, None) => true,
            _ => false,
        };
        if !is_same && !self.counters.filter.follow(list_names(&policy)) {
            return false;
        }
        self.policy = policy;
        self.tell_optimizations();
        true
    }

    /// Has the counters show what this core goes by.
    fn tell_optimizations(&self) {
        let in_use = [
            !self.is_copying,
            self.folding != Folding::WORDS,
            self.shard.has_hot_segment(),
            self.policy.is_pre_filtered(),
        ];
        for (gauge, is_on) in self.counters.optimizations.iter().zip(in_use) {
            gauge.set(u64::from(is_on));
        }
    }

    /// Goes by other `sections` from now on, as far as they can change while queries come: sizes of replies, bounds of the
    /// cache, zones with upstreams of their own. What is in flight keeps its bounds.
    pub fn adopt(&mut self, sections: Sections<'_>) {
        self.shard.adopt(sections.cache);
        self.shard.divide_at(sections.zones);
        self.limits = reply::Limits::new(sections.udp);
        self.failures.adopt(sections.cache.failure_ttl_max);
        self.stale_after = sections.cache.stale_after;
        self.folding = folding_of(sections.optimizations);
        self.is_copying = !sections.optimizations.zero_copy_parsing;
        self.shard.keep_hot_segment(sections.optimizations.hot_cache);
        self.tell_optimizations();
    }

    /// Limits clients to what `rate` grants them, from now on.
    pub fn limit(&mut self, rate: Option<RateLimiter>) {
        self.rate = rate;
    }

    /// Fetches from memory what answering `messages` will need, all at once, so that each does not wait for its own.
    ///
    /// Worth nothing while the cache fits the processor's, and then does nothing, nor while queries are to be copied before they
    /// are looked at. Looks at [`FORESEEN_MAX`] at most.
    pub fn foresee<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) {
        if !self.shard.is_large() || self.is_copying {
            return;
        }
        let mut hashes = [0; FORESEEN_MAX];
        let mut count = 0;
        let queries = messages.filter_map(|message| Query::parse(message).ok());
        for (hash, query) in hashes.iter_mut().zip(queries) {
            self.key.set(&query, ROOT_VIEW, self.folding);
            *hash = self.shard.hash(self.key.as_bytes());
            count += 1;
        }
        self.shard.fetch(&hashes[..count]);
    }

    /// Begins to resolve the question of `message`, a query without a client, unless it is known or being asked.
    pub fn warm(&mut self, message: &[u8], now: Now) -> Warmth {
        let Ok(query) = Query::parse(message) else { return Warmth::Known };
        self.key.set(&query, ROOT_VIEW, self.folding);
        if self.policy.holds(self.key.folded_name(), query.qtype) {
            return Warmth::Known;
        }
        if let Explanation::Fresh(_) | Explanation::Denied(_) =
            self.shard.explain(&mut self.key, now.cache)
        {
            return Warmth::Known;
        }
        let hash = self.shard.hash(self.key.as_bytes());
        if self.waiting.holds(hash ^ self.salt, self.key.as_bytes()) {
            return Warmth::Known;
        }
        self.ask_ahead(hash, &query, now).map_or(Warmth::Busy, Warmth::Ask)
    }

    /// Answers one message from what this core already holds.
    ///
    /// Fills `out` and returns `Reply(len)`, or `Drop`, or `Miss` when somebody must be asked. Never blocks, reads the
    /// clock or, but for a miss, allocates: every transport calls it in place.
    #[inline]
    pub fn answer(&mut self, message: &[u8], client: Client, now: Now, out: &mut [u8]) -> Verdict {
        let verdict = if self.is_copying {
            self.find_copied(message, client, now, out)
        } else {
            self.find(message, || Query::parse(message), client, now, out)
        };
        let is_noted = if self.account.is_plain() {
            self.decisions.is_due()
        } else {
            self.account.how != Some(How::Refused) || self.decisions.is_refusal_due(now.cache)
        };
        if self.tap.is_none() && !is_noted {
            return verdict;
        }
        self.tell_now((verdict, is_noted), message, client, now, out)
    }

    /// As [`Core::find`], from a query that holds nothing of its message.
    #[cold]
    fn find_copied(&mut self, message: &[u8], client: Client, now: Now, out: &mut [u8]) -> Verdict {
        let mut copy = None;
        let place = &mut copy;
        let verdict = self.find(
            message,
            move || {
                let copy = place.insert(CopiedQuery::read(message)).as_ref();
                copy.map(CopiedQuery::view).map_err(|&malformed| malformed)
            },
            client,
            now,
            out,
        );
        if copy.is_some() {
            self.counters.copied.bump();
        }
        verdict
    }

    /// `read` takes `message` apart, unless its client is over its limit and gets nothing.
    #[inline(always)]
    fn find<'m>(
        &mut self,
        message: &[u8],
        read: impl FnOnce() -> Result<Query<'m>, Malformed>,
        client: Client,
        now: Now,
        out: &mut [u8],
    ) -> Verdict {
        let asker = client.asker(&self.policy);
        self.account = Account { group: asker.place.group, ..Account::default() };
        if let Some(excess) = self.charge(client, asker, now) {
            self.counters.query(client.transport, None);
            return self.answer_excess(excess, (message, read), client, now, out);
        }
        let query = match read() {
            Ok(query) => query,
            Err(malformed) => {
                self.counters.query(client.transport, None);
                return reply::reject(malformed, message, asker.is_served, &self.counters, out);
            }
        };
        self.counters.query(client.transport, Some(query.qtype));
        let reply = reply::Reply { query: &query, client, limits: self.limits };
        self.key.set(&query, asker.place.view, self.folding);
        self.account.how = Some(How::Local);
        let mut is_allowed = false;
        match self.policy.rule(&query, self.key.folded_name(), asker, now.cache) {
            Ruling::Pass => {}
            Ruling::Allow(list) => {
                self.counters.filter.allowed(list);
                is_allowed = true;
            }
            Ruling::Block(blocked) => {
                self.counters.filter.blocked(blocked.list);
                self.account.block(blocked.list, Some(blocked.ede));
                let written = reply.write_blocked(blocked, now, &self.counters, out);
                return written.unwrap_or_else(|other| self.follow(reply, other, now, out));
            }
            Ruling::Refuse(rcode, ede) => {
                self.account.refuse(rcode.0, ede);
                let refusal = AnswerBuf::empty(rcode);
                let refusal = refusal.view(now.cache);
                return reply.write(&refusal, ede, now, &self.counters, out);
            }
            Ruling::Answer(local) => {
                self.counters.local.bump();
                return reply.write(&local, None, now, &self.counters, out);
            }
            Ruling::Made(local) => {
                self.counters.local.bump();
                return reply.write(&local.view(now.cache), None, now, &self.counters, out);
            }
            Ruling::Follow(detour) => {
                self.counters.local.bump();
                return self.follow(reply, Elsewhere { detour, ede: None, list: None }, now, out);
            }
        }
        self.answer_from_cache(reply, asker, is_allowed, now, out)
    }

    /// Answers from the cache, whose key is set, or opens a ticket. `is_allowed` says that lists have no objections.
    #[inline(always)]
    fn answer_from_cache(
        &mut self,
        reply: reply::Reply<'_, '_>,
        asker: Asker,
        is_allowed: bool,
        now: Now,
        out: &mut [u8],
    ) -> Verdict {
        let query = reply.query;
        self.account.how = Some(How::Cache);
        match self.shard.lookup(&mut self.key, now) {
            Lookup::Fresh { answer, is_due } => {
                if !is_allowed
                    && let Some(blocked) = self.policy.objection(query, asker, &answer, now.cache)
                {
                    self.counters.filter.blocked_answer(blocked.list);
                    self.account.block(blocked.list, Some(blocked.ede));
                    let written = reply.write_blocked(blocked, now, &self.counters, out);
                    return written.unwrap_or_else(|other| self.follow(reply, other, now, out));
                }
                self.counters.hits.bump();
                let reason = Policy::reason(&answer);
                if reason.is_some() {
                    self.account.ede = reason;
                }
                let verdict = reply.write(&answer, reason, now, &self.counters, out);
                if is_due { self.refresh(verdict, query, now) } else { verdict }
            }
            Lookup::Denied(answer) => {
                self.counters.hits.bump();
                reply.write(&answer, None, now, &self.counters, out)
            }
            Lookup::Stale(_) => self.answer_late(reply, now, out),
            Lookup::Absent => {
                let hash = self.shard.hash(self.key.as_bytes());
                if let Some(reason) = self.failures.recent(hash, now.cache) {
                    self.counters.failures_cached.bump();
                    let failure = AnswerBuf::empty(Rcode::SERVFAIL);
                    let ede = Some(Ede::CACHED_ERROR.with_text(reason));
                    self.account.ede = ede;
                    return reply.write(&failure.view(now.cache), ede, now, &self.counters, out);
                }
                self.counters.misses.bump();
                Verdict::Miss(Ticket::open(query, &self.key, reply.client, None))
            }
        }
    }

    /// Charges `client` for a message, if it is served at all; says what becomes of it when that is too much.
    #[inline]
    fn charge(&mut self, client: Client, asker: Asker, now: Now) -> Option<Excess> {
        let rate = self.rate.as_mut().filter(|_| asker.is_served)?;
        let excess = rate.charge(client.address, client.transport, now.monotonic);
        self.counters.rate_forgotten.set(rate.forgotten());
        excess
    }

    /// For the question with this key, to which only a stale answer is there: whether it is vain to ask, because that has just
    /// failed or is slow, and whether the client has to wait for what comes of it.
    pub(super) fn prospects(&self, key: &Key, now: Now) -> (bool, bool) {
        let key = key.as_bytes();
        let hash = self.shard.hash(key);
        let is_vain = self.failures.recent(hash, now.cache).is_some()
            || self.waiting.is_slow(hash ^ self.salt, key);
        (is_vain, !is_vain && !self.stale_after.is_zero())
    }

    /// When only a stale answer is there: somebody is asked first, unless that is known to be vain or slow (RFC 8767 §5).
    #[cold]
    fn answer_late(&mut self, reply: reply::Reply<'_, '_>, now: Now, out: &mut [u8]) -> Verdict {
        let (is_vain, must_wait) = self.prospects(&self.key, now);
        if must_wait {
            self.counters.misses.bump();
            let patience = Some(self.stale_after);
            return Verdict::Miss(Ticket::open(reply.query, &self.key, reply.client, patience));
        }
        let Lookup::Stale(answer) = self.shard.lookup(&mut self.key, now) else {
            unreachable!("nothing has changed since it was found");
        };
        let asker = reply.client.asker(&self.policy);
        if let Some(blocked) = self.policy.late_objection(reply.query, asker, &answer, now.cache) {
            self.counters.filter.blocked_answer(blocked.list);
            self.account.block(blocked.list, Some(blocked.ede));
            let written = reply.write_blocked(blocked, now, &self.counters, out);
            return written.unwrap_or_else(|other| self.follow(reply, other, now, out));
        }
        self.account.how = Some(How::Stale);
        self.account.ede = Some(reply::stale_ede(&answer));
        let verdict = reply.write_stale(&answer, &self.counters, out);
        if is_vain { verdict } else { self.refresh(verdict, reply.query, now) }
    }

    /// Has the question of `query` resolved anew, unless it is already, or too many are.
    #[cold]
    pub(super) fn refresh(&mut self, verdict: Verdict, query: &Query<'_>, now: Now) -> Verdict {
        let Verdict::Reply(len) = verdict else { return verdict };
        let hash = self.shard.hash(self.key.as_bytes());
        if self.failures.recent(hash, now.cache).is_some() {
            return verdict;
        }
        match self.ask_ahead(hash, query, now) {
            Some(asking) => Verdict::Refresh(len, asking),
            None => verdict,
        }
    }

    /// Begins the question of `query` for which nobody waits, unless it has begun, or there is no room.
    fn ask_ahead(&mut self, hash: u64, query: &Query<'_>, now: Now) -> Option<Box<Asking>> {
        let place = hash ^ self.salt;
        let eviction = self.waiting.begin_ahead(place, self.key.as_bytes())?;
        self.counters.refreshes.bump();
        self.count_in_flight();
        Some(Asking::ahead(query, &self.key, (hash, place), now, self.stale_after, eviction))
    }

    /// Lets `work` change what this core holds, and counts what is there then.
    pub fn change_shard<T>(&mut self, work: impl FnOnce(&mut Shard) -> T) -> T {
        let outcome = work(&mut self.shard);
        self.count_shard();
        outcome
    }

    /// What this core counts.
    #[must_use]
    pub fn counters(&self) -> &ServingCounters {
        &self.counters
    }

    /// What this core holds, for the control plane and for tests.
    #[must_use]
    pub const fn shard(&self) -> &Shard {
        &self.shard
    }
}

fn folding_of(optimizations: config::Optimizations) -> Folding {
    let vectors = if optimizations.simd { Folding::vectors() } else { None };
    vectors.unwrap_or(Folding::WORDS)
}

/// What the operator calls the lists of `policy`, by number.
fn list_names(policy: &Policy) -> Vec<&'static str> {
    policy.filtering().map(Filtering::list_names).unwrap_or_default()
}

#[cfg(test)]
mod tests;
