//! From a miss to everybody's reply: tickets, who waits for what, and the end of a resolution.

use std::collections::VecDeque;
use std::time::Duration;

use super::answer::{Client, Core, Verdict};
use super::detour::Way;
use super::log::{Arrival, Late};
use super::reply::{Age, Reply};
use super::tell::Teller;
use crate::cache::{Insertion, Key, Lookup};
use crate::observe::Via;
use crate::observe::log::{Account, How};
use crate::resolve::{Elsewhere, Ended, Eviction, Inflight, Joined};
use crate::time::{CacheTime, Monotonic, Now};
use crate::wire::{AnswerBuf, Ede, Query, QueryBuf, Rcode};

/// What clients are told for whom there is no room (RFC 8914 §4.24).
const TOO_MANY_QUESTIONS: &str = "too many questions in flight";
const TOO_MANY_WAITERS: &str = "too many clients wait";
const MADE_ROOM: &str = "made room for newer questions";

/// A query that the cache could not answer, with all that a later reply needs.
#[derive(Debug)]
pub struct Ticket {
    query: QueryBuf,
    key: Key,
    client: Client,
    patience: Option<Duration>,
    /// The client asked for another name, and was led to this one.
    way: Option<Box<Way>>,
    pub(super) arrival: Arrival,
}

impl Ticket {
    /// A ticket for `query`, to which a client was led by `way`.
    pub(super) fn open_by(
        way: Box<Way>,
        query: &Query<'_>,
        key: &Key,
        client: Client,
        patience: Option<Duration>,
    ) -> Box<Self> {
        let ticket = Self::open(query, key, client, patience);
        Box::new(Self { way: Some(way), ..*ticket })
    }

    pub(super) fn open(
        query: &Query<'_>,
        key: &Key,
        client: Client,
        patience: Option<Duration>,
    ) -> Box<Self> {
        let (query, key) = (QueryBuf::new(query), key.clone());
        let arrival = Arrival::default();
        Box::new(Self { query, key, client, patience, way: None, arrival })
    }
}

/// A question that somebody must now resolve and end with [`Core::finish`] or [`Core::evict`].
#[derive(Debug)]
pub struct Asking {
    key: Key,
    hash: u64,
    /// Under which it is in flight.
    place: u64,
    query: QueryBuf,
    begun: CacheTime,
    patience: Option<Duration>,
    eviction: Eviction,
    /// The upstream that answered or failed last.
    via: Option<Via>,
}

impl Asking {
    /// A question for which nobody waits yet; those who will, wait no longer than `patience` for more than a stale answer.
    pub(super) fn ahead(
        query: &Query<'_>,
        key: &Key,
        (hash, place): (u64, u64),
        now: Now,
        patience: Duration,
        eviction: Eviction,
    ) -> Box<Self> {
        let (key, query) = (key.clone(), QueryBuf::new(query));
        let patience = Some(patience).filter(|patience| !patience.is_zero());
        let (begun, via) = (now.cache, None);
        Box::new(Self { key, hash, place, query, begun, patience, eviction, via })
    }

    /// The query of the first who asked: name, type, class, DO and CD are those of all who wait.
    #[must_use]
    pub fn query(&self) -> Query<'_> {
        self.query.view()
    }

    /// The view of all who wait: whose upstreams are to be asked.
    #[must_use]
    pub fn view(&self) -> u8 {
        self.key.view()
    }

    /// Each time so long has passed, those who wait are to get a stale answer by [`Core::answer_stale`]; `None` when there
    /// will be none.
    #[must_use]
    pub const fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// Notes which upstream answered, or failed last.
    pub const fn note_via(&mut self, via: Option<Via>) {
        self.via = via;
    }

    /// Comes true when the question has to make room for newer ones: it then ends with [`Core::evict`].
    pub fn evicted(&self) -> Eviction {
        self.eviction.clone()
    }
}

/// What became of a ticket.
#[derive(Debug)]
pub enum Admission {
    /// Resolve this.
    Ask(Box<Asking>),
    /// The same question is being resolved; the reply will come with its end.
    Joined,
    /// Too much is being resolved: this many bytes of the buffer are the refusal, 0 for none.
    Refused(usize),
}

/// One client that waits.
#[derive(Debug)]
pub(super) struct Waiter<P> {
    query: QueryBuf,
    pub(super) client: Client,
    pub(super) path: P,
    pub(super) way: Option<Box<Way>>,
    /// When its query came.
    pub(super) since: Monotonic,
    pub(super) arrival: Arrival,
}

impl<P> Waiter<P> {
    /// The query that it sent.
    pub(super) fn own_query(&self) -> Query<'_> {
        self.way.as_ref().map_or(&self.query, |way| &way.query).view()
    }
}

/// A client that waits for another question from now on: hand the ticket to [`Core::admit`].
#[derive(Debug)]
pub struct Onward<P> {
    /// What is to be resolved for it.
    pub ticket: Box<Ticket>,
    /// The way back to it.
    pub path: P,
}

/// All that wait on one core.
pub(super) type Waiting<P> = Inflight<Waiter<P>>;

/// Why a question could not be resolved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unresolved {
    /// What clients are told.
    pub ede: Ede,
    /// It failed for want of room here: that says nothing about the question, and is not remembered.
    pub is_ours: bool,
}

impl<P> Core<P> {
    /// Lets the client behind `ticket` wait for its answer, which will go to `path`.
    ///
    /// Refusals are written to `out`. A client that has to make room gets its reply through `send`.
    pub fn admit(
        &mut self,
        ticket: Box<Ticket>,
        path: P,
        now: Now,
        out: &mut [u8],
        send: impl FnOnce(&P, &[u8]),
    ) -> Admission {
        let Ticket { query, key, client, patience, way, mut arrival } = *ticket;
        let since = now.monotonic;
        arrival.begin(since);
        let waiter = Waiter { query: query.clone(), client, path, way, since, arrival };
        let hash = self.shard.hash(key.as_bytes());
        let place = hash ^ self.salt;
        let joined = self.waiting.join(place, key.as_bytes(), waiter);
        self.count_in_flight();
        match joined {
            Joined::First(eviction) => {
                let begun = now.cache;
                let via = None;
                let asking = Asking { key, hash, place, query, begun, patience, eviction, via };
                Admission::Ask(Box::new(asking))
            }
            Joined::Waiting => {
                self.counters.coalesced.bump();
                Admission::Joined
            }
            Joined::InPlaceOf(oldest) => {
                self.counters.coalesced.bump();
                let verdict = self.refuse(&oldest, TOO_MANY_WAITERS, now, out);
                send(&oldest.path, written(&verdict, out));
                Admission::Joined
            }
            Joined::TooManyQuestions(waiter) => {
                refused(&self.refuse(&waiter, TOO_MANY_QUESTIONS, now, out))
            }
            Joined::TooManyWaiters(waiter) => {
                refused(&self.refuse(&waiter, TOO_MANY_WAITERS, now, out))
            }
        }
    }

    /// Tells a client that there is no room for it.
    #[cold]
    fn refuse(&self, waiter: &Waiter<P>, text: &'static str, now: Now, out: &mut [u8]) -> Verdict {
        self.counters.overload.bump();
        let group = self.policy.place(waiter.client.address, waiter.client.listener).group;
        let ede = Some(Ede::NETWORK_ERROR.with_text(text));
        let account = Account { how: Some(How::Refused), group, ede, ..Account::default() };
        let refusal = AnswerBuf::empty(Rcode::SERVFAIL);
        let query = waiter.own_query();
        let reply = Reply { query: &query, client: waiter.client, limits: self.limits };
        let verdict = reply.write(&refusal.view(now.cache), ede, now, &self.counters, out);
        self.late(now).tell(account, waiter, written(&verdict, out));
        verdict
    }

    /// Gives all who wait for `asking` a stale answer, if there is one; the resolution goes on. Those come back for whom
    /// another question has to be resolved.
    pub fn answer_stale(
        &mut self,
        asking: &mut Asking,
        now: Now,
        out: &mut [u8],
        mut send: impl FnMut(&P, &[u8]),
    ) -> Vec<Onward<P>> {
        let Lookup::Stale(answer) = self.shard.lookup(&mut asking.key, now) else {
            return Vec::new();
        };
        let waiters = self.waiting.give_up_waiting(asking.place, asking.key.as_bytes());
        let teller = Teller {
            policy: &self.policy,
            counters: &self.counters,
            limits: self.limits,
            asked: asking.query.view(),
            how: How::Stale,
            log: Late {
                tap: self.tap.as_ref(),
                decisions: &self.decisions,
                policy: &self.policy,
                via: None,
                now,
            },
            now,
        };
        let led = teller.tell_all(waiters, &answer, Age::Stale, out, &mut send);
        self.lead(led, now, out, &mut send)
    }

    /// Ends a resolution: stores the answer and replies to all who waited, through `send`, one by one.
    ///
    /// `send` gets an empty reply for a client to whom nothing can be sent. Those come back for whom another question has to
    /// be resolved.
    pub fn finish(
        &mut self,
        asking: &mut Asking,
        outcome: Result<AnswerBuf, Unresolved>,
        now: Now,
        out: &mut [u8],
        send: impl FnMut(&P, &[u8]),
    ) -> Vec<Onward<P>> {
        let ended = self.end(asking);
        let (answer, ede) = match outcome {
            Ok(answer) => {
                let answer = self.vet(asking, answer);
                self.keep(asking, &answer, ended.elsewhere, now);
                (answer, None)
            }
            Err(unresolved) => {
                self.note_failure(asking, unresolved, now);
                (AnswerBuf::empty(Rcode::SERVFAIL), Some(unresolved.ede))
            }
        };
        self.reply_to(ended.waiters, asking, (answer, ede), now, out, send)
    }

    /// Ends a resolution that has to make room for newer questions ([`Asking::evicted`]): all who waited get a stale answer,
    /// if there is one, through `send`. That says nothing about the question, and is not remembered.
    pub fn evict(
        &mut self,
        asking: &mut Asking,
        now: Now,
        out: &mut [u8],
        send: impl FnMut(&P, &[u8]),
    ) -> Vec<Onward<P>> {
        self.counters.evicted_questions.bump();
        let ended = self.end(asking);
        let ede = Ede::NETWORK_ERROR.with_text(MADE_ROOM);
        let outcome = (AnswerBuf::empty(Rcode::SERVFAIL), Some(ede));
        self.reply_to(ended.waiters, asking, outcome, now, out, send)
    }

    fn end(&mut self, asking: &Asking) -> Ended<Waiter<P>> {
        let ended = self.waiting.finish(asking.place, asking.key.as_bytes());
        self.count_in_flight();
        ended
    }

    /// Replies to `waiters` with the answer or, where it has an error beside it, with something better that is known.
    fn reply_to(
        &mut self,
        waiters: VecDeque<Waiter<P>>,
        asking: &mut Asking,
        (answer, ede): (AnswerBuf, Option<Ede>),
        now: Now,
        out: &mut [u8],
        mut send: impl FnMut(&P, &[u8]),
    ) -> Vec<Onward<P>> {
        // What failed may be known by now from elsewhere, or from before.
        let known = match ede {
            Some(_) => self.shard.lookup(&mut asking.key, now),
            None => Lookup::Absent,
        };
        let (answer, age, how) = match known {
            Lookup::Stale(stale) => (stale, Age::Stale, How::Stale),
            Lookup::Fresh { answer, .. } | Lookup::Denied(answer) => {
                (answer, Age::Fresh(None), How::Cache)
            }
            Lookup::Absent => (answer.view(now.cache), Age::Fresh(ede), How::Forwarded),
        };
        let teller = Teller {
            policy: &self.policy,
            counters: &self.counters,
            limits: self.limits,
            asked: asking.query.view(),
            how,
            log: Late {
                tap: self.tap.as_ref(),
                decisions: &self.decisions,
                policy: &self.policy,
                via: asking.via,
                now,
            },
            now,
        };
        let led = teller.tell_all(waiters, &answer, age, out, &mut send);
        self.lead(led, now, out, &mut send)
    }

    /// Questions being resolved now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// The answer that may be kept and told: `answer`, or what the policy puts in its place.
    fn vet(&self, asking: &Asking, answer: AnswerBuf) -> AnswerBuf {
        let folded = asking.key.folded_name();
        match self.policy.replacement(&asking.query.view(), folded, &answer) {
            Some(replacement) => {
                self.counters.rebindings.bump();
                replacement
            }
            None => answer,
        }
    }

    fn keep(&mut self, asking: &mut Asking, answer: &AnswerBuf, elsewhere: Elsewhere, now: Now) {
        self.failures.forget(asking.hash);
        if self.is_outdated(&asking.key, answer, elsewhere, now) {
            self.shard.remove(&asking.key);
        } else if self.shard.insert(&mut asking.key, answer, asking.begun, now) == Insertion::Stored
        {
            self.counters.inserts.bump();
        }
        self.count_shard();
    }

    fn note_failure(&mut self, asking: &Asking, unresolved: Unresolved, now: Now) {
        self.counters.failures.bump();
        if !unresolved.is_ours {
            self.failures.note(asking.hash, unresolved.ede.text, now.cache);
        }
    }

    pub(super) fn count_in_flight(&self) {
        let count = self.waiting.len() as u64;
        self.counters.in_flight.set(count);
        if count > self.counters.in_flight_peak.value() {
            self.counters.in_flight_peak.set(count);
        }
    }

    pub(super) fn count_shard(&self) {
        let tally = self.shard.tally();
        for (gauge, count) in [
            (&self.counters.evictions, tally.evictions),
            (&self.counters.expirations, tally.expirations),
            (&self.counters.returns, tally.returns),
            (&self.counters.promotions, tally.promotions),
            (&self.counters.flushed, tally.flushed),
            (&self.counters.superseded, tally.superseded),
            (&self.counters.entries, self.shard.len() as u64),
            (&self.counters.cache_bytes, self.shard.bytes() as u64),
        ] {
            gauge.set(count);
        }
    }
}

fn refused(verdict: &Verdict) -> Admission {
    match verdict {
        Verdict::Reply(len) => Admission::Refused(*len),
        Verdict::Refresh(..) | Verdict::Drop | Verdict::Miss(_) => Admission::Refused(0),
    }
}

/// The bytes that go out; none when nothing can be sent.
pub(super) fn written<'o>(verdict: &Verdict, out: &'o [u8]) -> &'o [u8] {
    match verdict {
        Verdict::Reply(len) | Verdict::Refresh(len, _) => &out[..*len],
        Verdict::Drop | Verdict::Miss(_) => &[],
    }
}
