//! From a miss to everybody's reply: tickets, who waits for what, and the end of a resolution.

use super::answer::{Client, Core, Verdict};
use super::reply::Reply;
use crate::cache::{Insertion, Key};
use crate::resolve::{Inflight, Joined};
use crate::time::Now;
use crate::wire::{AnswerBuf, Ede, Query, QueryBuf, Rcode};

/// A query that the cache could not answer, with all that a later reply needs.
#[derive(Debug)]
pub struct Ticket {
    query: QueryBuf,
    key: Key,
    client: Client,
}

impl Ticket {
    pub(super) fn open(query: &Query<'_>, key: &Key, client: Client) -> Box<Self> {
        Box::new(Self { query: QueryBuf::new(query), key: key.clone(), client })
    }
}

/// A question that somebody must now resolve and end with [`Core::finish`].
#[derive(Debug)]
pub struct Asking {
    key: Key,
    query: QueryBuf,
}

impl Asking {
    /// The query of the first who asked: name, type, class, DO and CD are those of all who wait.
    #[must_use]
    pub fn query(&self) -> Query<'_> {
        self.query.view()
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
    client: Client,
    path: P,
}

/// All that wait on one core.
pub(super) type Waiting<P> = Inflight<Waiter<P>>;

/// The answer to a question that could not be resolved, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unresolved(pub Ede);

impl<P> Core<P> {
    /// Lets the client behind `ticket` wait for its answer, which will go to `path`.
    ///
    /// Refusals are written to `out`.
    pub fn admit(&mut self, ticket: Box<Ticket>, path: P, now: Now, out: &mut [u8]) -> Admission {
        let Ticket { query, key, client } = *ticket;
        let waiter = Waiter { query: query.clone(), client, path };
        let (waiter, ede) = match self.waiting.join(key.as_bytes(), waiter) {
            Joined::First => return Admission::Ask(Box::new(Asking { key, query })),
            Joined::Waiting => {
                self.counters.coalesced.bump();
                return Admission::Joined;
            }
            Joined::TooManyQuestions(waiter) => {
                (waiter, Ede::NETWORK_ERROR.with_text("too many questions in flight"))
            }
            Joined::TooManyWaiters(waiter) => {
                (waiter, Ede::NETWORK_ERROR.with_text("too many clients wait for this answer"))
            }
        };
        self.counters.overload.bump();
        let refusal = AnswerBuf::empty(Rcode::SERVFAIL);
        match self.write(&waiter, &refusal, Some(ede), now, out) {
            Verdict::Reply(len) => Admission::Refused(len),
            Verdict::Drop | Verdict::Miss(_) => Admission::Refused(0),
        }
    }

    /// Ends a resolution: stores the answer and replies to all who waited, through `send`, one by one.
    ///
    /// `send` gets an empty reply for a client to whom nothing can be sent.
    pub fn finish(
        &mut self,
        asking: &Asking,
        outcome: Result<AnswerBuf, Unresolved>,
        now: Now,
        out: &mut [u8],
        mut send: impl FnMut(&P, &[u8]),
    ) {
        let waiters = self.waiting.finish(asking.key.as_bytes());
        let (answer, ede) = match outcome {
            Ok(answer) => (answer, None),
            Err(Unresolved(ede)) => {
                self.counters.failures.bump();
                (AnswerBuf::empty(Rcode::SERVFAIL), Some(ede))
            }
        };
        if self.shard.insert(&asking.key, &answer, now) == Insertion::Stored {
            self.counters.inserts.bump();
            self.counters.evictions.set(self.shard.evictions());
        }
        self.counters.entries.set(self.shard.len() as u64);
        self.counters.cache_bytes.set(self.shard.bytes() as u64);
        for waiter in waiters {
            match self.write(&waiter, &answer, ede, now, out) {
                Verdict::Reply(len) => send(&waiter.path, &out[..len]),
                Verdict::Drop | Verdict::Miss(_) => send(&waiter.path, &[]),
            }
        }
    }

    /// Questions being resolved now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    fn write(
        &self,
        waiter: &Waiter<P>,
        answer: &AnswerBuf,
        ede: Option<Ede>,
        now: Now,
        out: &mut [u8],
    ) -> Verdict {
        let query = waiter.query.view();
        let reply = Reply { query: &query, client: waiter.client, limits: self.limits };
        reply.write(&answer.view(now.cache), ede, now, &self.counters, out)
    }
}
