//! Names that the operator has stand for others: the client gets the alias, and behind it what the other name has.

use super::answer::{Client, Core, Verdict};
use super::blocked::Elsewhere;
use super::miss::Ticket;
use super::reply::{Age, Reply, STALE_TTL};
use crate::cache::Lookup;
use crate::observe::ServingCounters;
use crate::policy::local::Wants;
use crate::policy::{Blocked, Detour, Local, Policy};
use crate::time::Now;
use crate::wire::answer::AnswerBuilder;
use crate::wire::edns::OPT_BYTES;
use crate::wire::patch::{self, Aging, Framing};
use crate::wire::response::Section;
use crate::wire::{
    Answer, AnswerBuf, Ede, Flags, HEADER_BYTES, MESSAGE_BYTES_MAX, Query, QueryBuf, Rcode,
    Response, Rtype,
};

/// Most aliases of the operator's own that are followed one behind the other; beyond are circles.
pub(super) const DETOURS_MAX: usize = 8;

/// What a client that was led elsewhere is told before the answer from there.
#[derive(Debug)]
pub(super) struct Way {
    /// The query of the client: the one that is resolved is about another name.
    pub(super) query: QueryBuf,
    pub(super) links: AnswerBuf,
    /// What the client is told beside it, where a list leads there.
    pub(super) ede: Option<Ede>,
    /// The list that wants it so.
    pub(super) list: Option<u8>,
}

impl Way {
    /// Whether a list leads there: then lists have no say in what is there.
    pub(super) const fn is_of_a_list(&self) -> bool {
        self.ede.is_some()
    }

    /// The whole answer for the client: the aliases, then `answer`, which is for `asked`. Its TTLs are those at `now`.
    ///
    /// `None` when that is too long for a message.
    pub(super) fn join(
        &self,
        asked: &Query<'_>,
        answer: &Answer<'_>,
        aging: Aging,
    ) -> Option<AnswerBuf> {
        let own = self.query.view();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let aliases = rendered(&own, &self.links.view(answer.stored), Aging::By(0), &mut first)?;
        let there = rendered(asked, answer, aging, &mut second)?;
        let rcode = answer.shape.rcode;
        let mut builder = AnswerBuilder::new(own.qname, own.qtype, own.qclass, rcode).ok()?;
        builder.set_flags(self.links.shape.flags & Flags::AA);
        for response in [&aliases, &there] {
            for record in response.section(Section::Answer) {
                builder.copy(Section::Answer, response, record, record.ttl).ok()?;
            }
        }
        for section in [Section::Authority, Section::Additional] {
            for record in there.section(section) {
                builder.copy(section, &there, record, record.ttl).ok()?;
            }
        }
        Some(builder.finish())
    }
}

/// `answer` as a message again, so that its names can be read.
fn rendered<'m>(
    query: &Query<'_>,
    answer: &Answer<'_>,
    aging: Aging,
    message: &'m mut Vec<u8>,
) -> Option<Response<'m>> {
    let room = HEADER_BYTES + query.question().len() + answer.body.len() + OPT_BYTES;
    message.resize(room.min(MESSAGE_BYTES_MAX), 0);
    let framing = Framing { limit: MESSAGE_BYTES_MAX, payload_bytes: 0, ede: None };
    let len = patch::reply(query, answer, aging, framing, message)?;
    message.truncate(len);
    Response::parse(message).ok()
}

impl<P> Core<P> {
    /// Answers `reply`'s query by what the name has that `elsewhere` leads to, if that is known here; else asks for it.
    #[cold]
    pub(super) fn follow(
        &mut self,
        reply: Reply<'_, '_>,
        elsewhere: Elsewhere,
        now: Now,
        out: &mut [u8],
    ) -> Verdict {
        self.counters.detours.bump();
        let Elsewhere { detour, ede, list } = elsewhere;
        let Detour { links, target } = *detour;
        list.into_iter().for_each(|list| self.account.block(list, ede));
        let is_resolved = reply.query.header.flags.has(Flags::RD);
        if reply.query.qtype == Rtype::CNAME || !is_resolved {
            return reply.write(&links.view(now.cache), ede, now, &self.counters, out);
        }
        let mut way = Box::new(Way { query: QueryBuf::new(reply.query), links, ede, list });
        let mut asked = QueryBuf::renamed(reply.query, target.as_name());
        let view = self.policy.place(reply.client.address, reply.client.listener).view;
        for _ in 0..DETOURS_MAX {
            let query = asked.view();
            self.key.set(&query, view, self.folding);
            let wants = Wants { recursion: true, dnssec: query.wants_dnssec() };
            let local = self.policy.local(self.key.folded_name(), query.qtype, wants, now.cache);
            let further = match local {
                None => return self.follow_abroad(reply, way, &query, now, out),
                Some(Local::Answer(answer)) => {
                    let age = Age::Fresh(None);
                    return reply.arrive(&way, (&query, &answer), age, now, &self.counters, out);
                }
                Some(Local::Made(answer)) => {
                    let (answer, age) = (answer.view(now.cache), Age::Fresh(None));
                    return reply.arrive(&way, (&query, &answer), age, now, &self.counters, out);
                }
                Some(Local::Follow(detour)) => detour.clone(),
                Some(Local::FollowMade(detour)) => *detour,
            };
            let links = further.links.view(now.cache);
            let Some(links) = way.join(&query, &links, Aging::By(0)) else { break };
            way.links = links;
            asked = QueryBuf::renamed(reply.query, further.target.as_name());
        }
        // In circles: the client gets as much of it as was followed.
        reply.write(&way.links.view(now.cache), ede, now, &self.counters, out)
    }

    /// The name that the client is led to is none of the operator's: it comes out of the cache, or from upstreams.
    fn follow_abroad(
        &mut self,
        reply: Reply<'_, '_>,
        way: Box<Way>,
        query: &Query<'_>,
        now: Now,
        out: &mut [u8],
    ) -> Verdict {
        if let Some(blocked) = self.objection_to_target(reply.client, &way, query, now) {
            let (list, ede) = (blocked.list, Some(blocked.ede));
            let verdict = reply.write_blocked_led(blocked, now, &self.counters, out);
            self.account.block(list, ede);
            return verdict;
        }
        let found = match self.shard.lookup(&mut self.key, now) {
            Lookup::Fresh { answer, is_due } => Some((answer, is_due)),
            Lookup::Denied(answer) => Some((answer, false)),
            Lookup::Stale(_) => return self.follow_late(reply, way, query, now, out),
            Lookup::Absent => None,
        };
        if let Some((answer, is_due)) = found {
            if !way.is_of_a_list() {
                let asker = reply.client.asker(&self.policy);
                let blocked = self.policy.late_objection(query, asker, &answer, now.cache);
                if let Some(blocked) = blocked {
                    let (list, ede) = (blocked.list, Some(blocked.ede));
                    self.counters.filter.blocked_answer(list);
                    let verdict = reply.write_blocked_led(blocked, now, &self.counters, out);
                    self.account.block(list, ede);
                    return verdict;
                }
            }
            self.counters.hits.bump();
            let age = Age::Fresh(Policy::reason(&answer));
            let verdict = reply.arrive(&way, (query, &answer), age, now, &self.counters, out);
            return if is_due { self.refresh(verdict, query, now) } else { verdict };
        }
        let hash = self.shard.hash(self.key.as_bytes());
        if let Some(reason) = self.failures.recent(hash, now.cache) {
            self.counters.failures_cached.bump();
            let ede = Some(Ede::CACHED_ERROR.with_text(reason));
            self.account.ede = ede;
            let failure = AnswerBuf::empty(Rcode::SERVFAIL);
            return reply.write(&failure.view(now.cache), ede, now, &self.counters, out);
        }
        self.counters.misses.bump();
        Verdict::Miss(Ticket::open_by(way, query, &self.key, reply.client, None))
    }

    /// As `answer_late`, for a client that is led to the question of `query`.
    fn follow_late(
        &mut self,
        reply: Reply<'_, '_>,
        way: Box<Way>,
        query: &Query<'_>,
        now: Now,
        out: &mut [u8],
    ) -> Verdict {
        let (is_vain, must_wait) = self.prospects(&self.key, now);
        if must_wait {
            self.counters.misses.bump();
            let patience = Some(self.stale_after);
            return Verdict::Miss(Ticket::open_by(way, query, &self.key, reply.client, patience));
        }
        let Lookup::Stale(answer) = self.shard.lookup(&mut self.key, now) else {
            unreachable!("nothing has changed since it was found");
        };
        let age = Age::Stale;
        let verdict = reply.arrive(&way, (query, &answer), age, now, &self.counters, out);
        if is_vain { verdict } else { self.refresh(verdict, query, now) }
    }

    /// What lists object to in the name of `query`, to which a client is led; nothing where a list itself leads there.
    fn objection_to_target(
        &self,
        client: Client,
        way: &Way,
        query: &Query<'_>,
        now: Now,
    ) -> Option<Blocked<'_>> {
        if way.is_of_a_list() {
            return None;
        }
        let asker = client.asker(&self.policy);
        let blocked = self.policy.judge(query, self.key.folded_name(), asker, now.cache)?;
        self.counters.filter.blocked(blocked.list);
        Some(blocked)
    }
}

impl Reply<'_, '_> {
    /// Writes what a client gets that the operator leads to a name to which a list objects. Where that list leads elsewhere,
    /// too, the client gets nothing from there: one way is enough.
    pub(super) fn write_blocked_led(
        self,
        blocked: Blocked<'_>,
        now: Now,
        counters: &ServingCounters,
        out: &mut [u8],
    ) -> Verdict {
        self.write_blocked(blocked, now, counters, out).unwrap_or_else(|elsewhere| {
            let links = elsewhere.detour.links.view(now.cache);
            self.write(&links, elsewhere.ede, now, counters, out)
        })
    }

    /// Writes the aliases of `way`, and behind them `answer`, which is for `asked`.
    pub(super) fn arrive(
        self,
        way: &Way,
        (asked, answer): (&Query<'_>, &Answer<'_>),
        age: Age,
        now: Now,
        counters: &ServingCounters,
        out: &mut [u8],
    ) -> Verdict {
        let aging = match age {
            Age::Fresh(_) => Aging::By(now.cache.seconds_since(answer.stored)),
            Age::Stale => Aging::To(STALE_TTL),
        };
        let rcodes = [Rcode::NOERROR, Rcode::NXDOMAIN, Rcode::YXDOMAIN];
        let is_told = rcodes.contains(&answer.shape.rcode);
        let joined = if is_told { way.join(asked, answer, aging) } else { None };
        let joined = joined.unwrap_or_else(|| AnswerBuf::empty(Rcode::SERVFAIL));
        let joined = joined.view(now.cache);
        match (age, way.ede) {
            // There is room for one: that a list is at work says more than that its answer is old.
            (Age::Stale, Some(_)) => {
                counters.stale.bump();
                self.write(&joined, way.ede, now, counters, out)
            }
            (Age::Fresh(None), _) => self.write(&joined, way.ede, now, counters, out),
            (Age::Fresh(_), _) | (Age::Stale, None) => self.tell(&joined, age, now, counters, out),
        }
    }
}
