//! What would become of a query, step by step, for people. Nothing is counted, charged, touched or asked.
//!
//! The order of the steps is that of [`Core::answer`], and each verdict comes from the function that serving calls, down to the
//! bytes of the reply; the tests hold the two together.

mod words;

use super::answer::{Client, Core, Verdict};
use super::blocked::Elsewhere;
use super::detour::{DETOURS_MAX, Way};
use super::reply::{Age, Reply, stale_ede};
use crate::cache::{Explanation, Inspection, Key};
use crate::observe::ServingCounters;
use crate::observe::log::{Account, How};
use crate::policy::local::Wants;
use crate::policy::{Asker, Balance, Blocked, Detour, Local, Policy, Ruling};
use crate::time::Now;
use crate::wire::patch::Aging;
use crate::wire::{
    Answer, AnswerBuf, Class, Ede, Flags, MESSAGE_BYTES_MAX, Malformed, NameBuf, Query, QueryBuf,
    Rcode, Rtype,
};

/// What a step is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Whether the client is served.
    Access,
    /// How much it may still ask.
    Rate,
    /// Where it stands, and which lists count there now.
    Group,
    /// Questions that are answered by rule, whatever the name.
    Question,
    /// The operator's own data.
    Local,
    /// What lists say of the name.
    Lists,
    /// The name that the client is led to.
    Detour,
    /// What the cache holds.
    Cache,
    /// What lists say of the answer.
    Answer,
    /// Whether it failed a moment ago.
    Failure,
    /// Whether it is being asked.
    InFlight,
    /// Who is asked.
    Upstreams,
}

impl Stage {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Rate => "rate",
            Self::Group => "group",
            Self::Question => "question",
            Self::Local => "local",
            Self::Lists => "lists",
            Self::Detour => "detour",
            Self::Cache => "cache",
            Self::Answer => "answer",
            Self::Failure => "failure",
            Self::InFlight => "in flight",
            Self::Upstreams => "upstreams",
        }
    }
}

/// One step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// What it is about.
    pub stage: Stage,
    /// What came of it, in a word for programs.
    pub outcome: &'static str,
    /// The same for people.
    pub text: String,
}

/// What the client gets.
#[derive(Clone, Debug)]
pub enum Fate {
    /// This, at once.
    Reply(Vec<u8>),
    /// Nothing.
    Drop,
    /// It is over its limit: nothing is looked up for it.
    Limited,
    /// What comes of the question for this name, to clients of this view.
    Wait(Box<NameBuf>, u8),
}

/// What would become of a query.
#[derive(Clone, Debug)]
pub struct Explained {
    /// How it comes to that.
    pub steps: Vec<Step>,
    /// What the client gets.
    pub fate: Fate,
    /// What is told of it.
    pub account: Account,
    /// The RCODE of a reply.
    pub rcode: Option<Rcode>,
    /// What the operator calls the list that decides.
    pub list: Option<&'static str>,
    /// The question that upstreams are or would be asked, if it comes to them: its name and view.
    pub asked: Option<(NameBuf, u8)>,
    /// All in one line.
    pub verdict: String,
}

impl<P> Core<P> {
    /// Says what would become of `message` now.
    ///
    /// # Errors
    /// [`Malformed`]: it is no query.
    pub fn explain(
        &self,
        message: &[u8],
        client: Client,
        now: Now,
    ) -> Result<Explained, Malformed> {
        let query = Query::parse(message)?;
        let asker = client.asker(&self.policy);
        let mut tracer = Tracer {
            core: self,
            client,
            asker,
            now,
            counters: ServingCounters::default(),
            out: vec![0; MESSAGE_BYTES_MAX],
            key: Key::default(),
            account: Account { group: asker.place.group, ..Account::default() },
            asked: None,
            steps: Vec::new(),
        };
        let fate = tracer.trace(&query);
        Ok(tracer.into_explained(fate))
    }
}

impl Explained {
    /// Where the answer comes from, in the word of the query log; `forwarded` while upstreams are asked.
    #[must_use]
    pub fn answer(&self) -> &'static str {
        match &self.fate {
            Fate::Wait(..) => How::Forwarded.name(),
            Fate::Limited => How::Refused.name(),
            Fate::Reply(_) | Fate::Drop => self.account.how.map_or("", How::name),
        }
    }
}

/// A query on its way.
struct Tracer<'c, P> {
    core: &'c Core<P>,
    client: Client,
    asker: Asker,
    now: Now,
    /// For the functions that count; nobody reads them.
    counters: ServingCounters,
    out: Vec<u8>,
    key: Key,
    /// As serving keeps it.
    account: Account,
    asked: Option<(NameBuf, u8)>,
    steps: Vec<Step>,
}

impl<'c, P> Tracer<'c, P> {
    fn tell(&mut self, stage: Stage, outcome: &'static str, text: String) {
        self.steps.push(Step { stage, outcome, text });
    }

    fn trace(&mut self, query: &Query<'_>) -> Fate {
        self.tell_access();
        if self.is_limited() {
            return Fate::Limited;
        }
        self.tell_group();
        let core = self.core;
        self.key.set(query, self.asker.place.view, core.folding);
        self.account.how = Some(How::Local);
        let ruling = core.policy.rule(query, self.key.folded_name(), self.asker, self.now.cache);
        self.tell_question(query, &ruling);
        let mut is_allowed = false;
        match ruling {
            Ruling::Pass => {}
            Ruling::Allow(_) => is_allowed = true,
            Ruling::Block(blocked) => return self.block(query, blocked),
            Ruling::Refuse(rcode, ede) => {
                self.account.refuse(rcode.0, ede);
                return self.write(query, &AnswerBuf::empty(rcode).view(self.now.cache), ede);
            }
            Ruling::Answer(local) => return self.write(query, &local, None),
            Ruling::Made(local) => return self.write(query, &local.view(self.now.cache), None),
            Ruling::Follow(detour) => {
                return self.follow(query, Elsewhere { detour, ede: None, list: None });
            }
        }
        self.account.how = Some(How::Cache);
        self.answer_from_cache(query, is_allowed)
    }

    /// Whether the client may not ask now, for it has asked too much.
    fn is_limited(&mut self) -> bool {
        let Client { address, transport, .. } = self.client;
        let rate = self.core.rate.as_ref().filter(|_| self.asker.is_served);
        let Some(rate) = rate else { return false };
        let balance = rate.balance(address, transport, self.now.monotonic);
        let (outcome, text) = words::balance(balance);
        self.tell(Stage::Rate, outcome, text);
        balance == Balance::Left(0)
    }

    fn answer_from_cache(&mut self, query: &Query<'_>, is_allowed: bool) -> Fate {
        let (core, cache) = (self.core, self.now.cache);
        match self.look_up(query) {
            Explanation::Fresh(Inspection { answer, .. }) => {
                if !is_allowed
                    && let Some(blocked) = core.policy.objection(query, self.asker, &answer, cache)
                {
                    self.tell_objection(query, &answer, &blocked);
                    return self.block(query, blocked);
                }
                let reason = Policy::reason(&answer);
                self.account.ede = reason;
                self.write(query, &answer, reason)
            }
            Explanation::Denied(Inspection { answer, .. }) => self.write(query, &answer, None),
            Explanation::Stale(Inspection { answer, .. }) => self.answer_late(query, &answer),
            Explanation::Useless(_) | Explanation::Absent => self.miss(query, query),
        }
    }

    fn answer_late(&mut self, query: &Query<'_>, answer: &Answer<'_>) -> Fate {
        let (core, cache) = (self.core, self.now.cache);
        if self.must_wait() {
            return self.wait(query);
        }
        if let Some(blocked) = core.policy.late_objection(query, self.asker, answer, cache) {
            self.tell_objection(query, answer, &blocked);
            return self.block(query, blocked);
        }
        self.account.how = Some(How::Stale);
        self.account.ede = Some(stale_ede(answer));
        let verdict = self.reply(query).write_stale(answer, &self.counters, &mut self.out);
        self.sent(&verdict)
    }

    /// What comes of a question to which nothing is known; `query` is the client's, `asked` the one that is looked up.
    fn miss(&mut self, query: &Query<'_>, asked: &Query<'_>) -> Fate {
        let core = self.core;
        let hash = core.shard.hash(self.key.as_bytes());
        let Some(reason) = core.failures.recent(hash, self.now.cache) else {
            return self.wait(asked);
        };
        let ede = Some(Ede::CACHED_ERROR.with_text(reason));
        self.account.ede = ede;
        self.tell(Stage::Failure, "recent", format!("failed a moment ago: {reason}"));
        self.write(query, &AnswerBuf::empty(Rcode::SERVFAIL).view(self.now.cache), ede)
    }

    fn wait(&mut self, asked: &Query<'_>) -> Fate {
        self.tell_in_flight();
        Fate::Wait(Box::new(NameBuf::new(asked.qname)), self.asker.place.view)
    }

    /// Whether an upstream is asked before a stale answer is given.
    fn must_wait(&mut self) -> bool {
        let (is_vain, must_wait) = self.core.prospects(&self.key, self.now);
        if is_vain {
            let text = "to ask upstreams is vain or slow, as has just shown".to_owned();
            self.tell(Stage::Failure, "vain", text);
        }
        must_wait
    }

    fn follow(&mut self, query: &Query<'_>, elsewhere: Elsewhere) -> Fate {
        let Elsewhere { detour, ede, list } = elsewhere;
        let Detour { links, target } = *detour;
        list.into_iter().for_each(|list| self.account.block(list, ede));
        self.tell(Stage::Detour, "led", format!("leads to {}", target.as_name()));
        if query.qtype == Rtype::CNAME || !query.header.flags.has(Flags::RD) {
            return self.write(query, &links.view(self.now.cache), ede);
        }
        let mut way = Way { query: QueryBuf::new(query), links, ede, list };
        let mut asked = QueryBuf::renamed(query, target.as_name());
        for _ in 0..DETOURS_MAX {
            let next = asked.view();
            let core = self.core;
            self.key.set(&next, self.asker.place.view, core.folding);
            let wants = Wants { recursion: true, dnssec: next.wants_dnssec() };
            let folded = self.key.folded_name();
            let local = core.policy.local(folded, next.qtype, wants, self.now.cache);
            self.tell_source(&next, wants);
            let further = match local {
                None => return self.follow_abroad(query, &way, &next),
                Some(Local::Answer(answer)) => {
                    return self.arrive(query, &way, (&next, &answer), Age::Fresh(None));
                }
                Some(Local::Made(answer)) => {
                    let answer = answer.view(self.now.cache);
                    return self.arrive(query, &way, (&next, &answer), Age::Fresh(None));
                }
                Some(Local::Follow(detour)) => detour.clone(),
                Some(Local::FollowMade(detour)) => *detour,
            };
            self.tell(Stage::Detour, "led", format!("leads to {}", further.target.as_name()));
            let joined = way.join(&next, &further.links.view(self.now.cache), Aging::By(0));
            let Some(links) = joined else { break };
            way.links = links;
            asked = QueryBuf::renamed(query, further.target.as_name());
        }
        self.tell(Stage::Detour, "circle", "in circles, or too far: it ends here".to_owned());
        self.write(query, &way.links.view(self.now.cache), ede)
    }

    fn follow_abroad(&mut self, query: &Query<'_>, way: &Way, next: &Query<'_>) -> Fate {
        let (core, cache, asker) = (self.core, self.now.cache, self.asker);
        if !way.is_of_a_list() {
            self.tell_lists(next);
            let folded = self.key.folded_name();
            if let Some(blocked) = core.policy.judge(next, folded, asker, cache) {
                return self.block_led(query, blocked);
            }
        }
        let (answer, age) = match self.look_up(next) {
            Explanation::Fresh(Inspection { answer, .. })
            | Explanation::Denied(Inspection { answer, .. }) => {
                (answer, Age::Fresh(Policy::reason(&answer)))
            }
            Explanation::Stale(_) if self.must_wait() => return self.wait(next),
            Explanation::Stale(Inspection { answer, .. }) => (answer, Age::Stale),
            Explanation::Useless(_) | Explanation::Absent => return self.miss(query, next),
        };
        if !way.is_of_a_list()
            && matches!(age, Age::Fresh(_))
            && let Some(blocked) = core.policy.late_objection(next, asker, &answer, cache)
        {
            self.tell_objection(next, &answer, &blocked);
            return self.block_led(query, blocked);
        }
        self.arrive(query, way, (next, &answer), age)
    }

    fn block(&mut self, query: &Query<'_>, blocked: Blocked<'c>) -> Fate {
        self.account.block(blocked.list, Some(blocked.ede));
        let (now, reply) = (self.now, self.reply(query));
        match reply.write_blocked(blocked, now, &self.counters, &mut self.out) {
            Ok(verdict) => self.sent(&verdict),
            Err(elsewhere) => self.follow(query, elsewhere),
        }
    }

    fn block_led(&mut self, query: &Query<'_>, blocked: Blocked<'c>) -> Fate {
        self.account.block(blocked.list, Some(blocked.ede));
        let (now, reply) = (self.now, self.reply(query));
        let verdict = reply.write_blocked_led(blocked, now, &self.counters, &mut self.out);
        self.sent(&verdict)
    }

    fn arrive(
        &mut self,
        query: &Query<'_>,
        way: &Way,
        there: (&Query<'_>, &Answer<'_>),
        age: Age,
    ) -> Fate {
        let (now, reply) = (self.now, self.reply(query));
        let verdict = reply.arrive(way, there, age, now, &self.counters, &mut self.out);
        self.sent(&verdict)
    }

    fn write(&mut self, query: &Query<'_>, answer: &Answer<'_>, ede: Option<Ede>) -> Fate {
        let (now, reply) = (self.now, self.reply(query));
        let verdict = reply.write(answer, ede, now, &self.counters, &mut self.out);
        self.sent(&verdict)
    }

    const fn reply<'q, 'm>(&self, query: &'q Query<'m>) -> Reply<'q, 'm> {
        Reply { query, client: self.client, limits: self.core.limits }
    }

    fn sent(&self, verdict: &Verdict) -> Fate {
        match verdict {
            Verdict::Reply(len) | Verdict::Refresh(len, _) => Fate::Reply(self.out[..*len].into()),
            Verdict::Drop | Verdict::Miss(_) => Fate::Drop,
        }
    }

    /// What a look-up of the key would find.
    fn look_up(&mut self, query: &Query<'_>) -> Explanation<'c> {
        let core = self.core;
        self.asked = Some((NameBuf::new(query.qname), self.asker.place.view));
        let found = core.shard.explain(&mut self.key, self.now.cache);
        let (outcome, text) = words::found(&found, query.qname, self.now.cache);
        self.tell(Stage::Cache, outcome, text);
        found
    }
}

/// Whether no data of the operator's and no list is asked about `query`: what it gets is a matter of its class and type.
fn is_by_rule(query: &Query<'_>) -> bool {
    query.edns.is_some_and(|edns| edns.version > 0)
        || query.qclass != Class::IN
        || crate::policy::is_meta(query.qtype)
}

#[cfg(test)]
mod tests;
