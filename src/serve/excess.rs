//! What clients get that ask more than they may: silence, a hint to come over TCP, or a refusal.

use super::answer::{Client, Core, Verdict};
use super::reply::{self, Reply};
use crate::policy::Excess;
use crate::time::Now;
use crate::wire::{AnswerBuf, Ede, Malformed, Query, Rcode};

/// What refused clients are told (RFC 8914 §4.19).
const TOO_MANY_QUERIES: &str = "too many queries from this client";

impl<P> Core<P> {
    /// Deals with a message over its client's limit, which is read only if there may be a reply. Of datagrams that are no query
    /// none gets one.
    #[cold]
    pub(super) fn answer_excess<'m>(
        &mut self,
        excess: Excess,
        (message, read): (&[u8], impl FnOnce() -> Result<Query<'m>, Malformed>),
        client: Client,
        now: Now,
        out: &mut [u8],
    ) -> Verdict {
        let verdict = match excess {
            Excess::Drop => self.drop_excess(),
            Excess::Slip => self.slip(read(), client, now, out),
            Excess::Refuse => self.refuse_excess(message, read(), client, now, out),
        };
        let counter = match (&verdict, excess) {
            (Verdict::Reply(_), Excess::Slip) => &self.counters.rate_slipped,
            (Verdict::Reply(_), Excess::Refuse) => &self.counters.rate_refused,
            _ => &self.counters.rate_dropped,
        };
        counter.bump();
        verdict
    }

    fn drop_excess(&self) -> Verdict {
        self.counters.dropped.bump();
        Verdict::Drop
    }

    /// No larger than the query but for OPT, so that it is of no use to one who forges addresses.
    fn slip(
        &mut self,
        query: Result<Query<'_>, Malformed>,
        client: Client,
        now: Now,
        out: &mut [u8],
    ) -> Verdict {
        let Ok(query) = query else { return self.drop_excess() };
        self.account.refuse(Rcode::NOERROR.0, Some(Ede::PROHIBITED.with_text(TOO_MANY_QUERIES)));
        let reply = Reply { query: &query, client, limits: self.limits };
        reply.write_cut(None, now, &self.counters, out)
    }

    fn refuse_excess(
        &mut self,
        message: &[u8],
        query: Result<Query<'_>, Malformed>,
        client: Client,
        now: Now,
        out: &mut [u8],
    ) -> Verdict {
        let query = match query {
            Ok(query) => query,
            Err(malformed) => {
                return reply::reject(malformed, message, false, &self.counters, out);
            }
        };
        let ede = Some(Ede::PROHIBITED.with_text(TOO_MANY_QUERIES));
        self.account.refuse(Rcode::REFUSED.0, ede);
        let refusal = AnswerBuf::empty(Rcode::REFUSED);
        let reply = Reply { query: &query, client, limits: self.limits };
        reply.write(&refusal.view(now.cache), ede, now, &self.counters, out)
    }
}
