//! Hot path. Answers a query from what this core already holds, or opens a ticket for it.

use std::net::IpAddr;
use std::sync::Arc;

use super::miss::{Ticket, Waiting};
use super::reply;
use crate::cache::{Key, Lookup, Shard};
use crate::observe::{ServingCounters, Transport};
use crate::policy::{Policy, Ruling};
use crate::time::Now;
use crate::wire::{AnswerBuf, Query};

/// The only client group so far; the key has room for more.
pub(super) const DEFAULT_GROUP: u8 = 0;

/// Who asks, and over what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Client {
    /// The client's address.
    pub address: IpAddr,
    /// How the query came and the reply goes.
    pub transport: Transport,
}

/// What becomes of a message.
#[derive(Debug)]
pub enum Verdict {
    /// This many bytes of the buffer are the reply.
    Reply(usize),
    /// Nothing is sent.
    Drop,
    /// Somebody must be asked: hand the ticket to [`Core::admit`].
    Miss(Box<Ticket>),
}

/// The serving half of one core. `P` is the way back to a client, whatever the transport makes of it.
#[derive(Debug)]
pub struct Core<P> {
    pub(super) policy: Arc<Policy>,
    pub(super) shard: Shard,
    pub(super) waiting: Waiting<P>,
    pub(super) counters: Arc<ServingCounters>,
    pub(super) limits: reply::Limits,
    key: Key,
}

impl<P> Core<P> {
    /// Joins the parts.
    #[must_use]
    pub fn new(
        policy: Arc<Policy>,
        shard: Shard,
        forward: &crate::config::Forward,
        udp: &crate::config::Udp,
        counters: Arc<ServingCounters>,
    ) -> Self {
        let limits = reply::Limits::new(udp);
        let waiting = Waiting::new(forward);
        Self { policy, shard, waiting, counters, limits, key: Key::default() }
    }

    /// Answers one message from what this core already holds.
    ///
    /// Fills `out` and returns `Reply(len)`, or `Drop`, or `Miss` when somebody must be asked. Never blocks, reads the
    /// clock or, but for a miss, allocates: every transport calls it in place.
    pub fn answer(&mut self, message: &[u8], client: Client, now: Now, out: &mut [u8]) -> Verdict {
        self.counters.query(client.transport);
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(malformed) => return reply::reject(malformed, message, &self.counters, out),
        };
        let reply = reply::Reply { query: &query, client, limits: self.limits };
        self.key.set(&query, DEFAULT_GROUP);
        match self.policy.rule(&query, self.key.folded_name(), client.address, now.cache) {
            Ruling::Pass => {}
            Ruling::Refuse(rcode, ede) => {
                let refusal = AnswerBuf::empty(rcode);
                let refusal = refusal.view(now.cache);
                return reply.write(&refusal, ede, now, &self.counters, out);
            }
            Ruling::Answer(local) => {
                self.counters.local.bump();
                return reply.write(&local, None, now, &self.counters, out);
            }
        }
        match self.shard.lookup(&self.key, now) {
            Lookup::Fresh(answer) => {
                self.counters.hits.bump();
                reply.write(&answer, None, now, &self.counters, out)
            }
            Lookup::Absent => {
                self.counters.misses.bump();
                Verdict::Miss(Ticket::open(&query, &self.key, client))
            }
        }
    }

    /// What this core holds, for the control plane and for tests.
    #[must_use]
    pub const fn shard(&self) -> &Shard {
        &self.shard
    }
}

#[cfg(test)]
mod tests;
