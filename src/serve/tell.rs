//! One answer to all who wait for it, each by its own query and its own group's lists.

use std::collections::VecDeque;

use super::answer::{Core, Verdict};
use super::blocked::Elsewhere;
use super::log::Late;
use super::miss::{Onward, Waiter, written};
use super::reply::{Age, Limits, Reply};
use crate::observe::ServingCounters;
use crate::observe::log::{Account, How};
use crate::policy::Policy;
use crate::time::Now;
use crate::wire::{Answer, Query};

/// What the replies to all who wait for a question have in common.
pub(super) struct Teller<'a> {
    pub(super) policy: &'a Policy,
    pub(super) counters: &'a ServingCounters,
    pub(super) limits: Limits,
    /// The question that was resolved.
    pub(super) asked: Query<'a>,
    /// Where the answer comes from.
    pub(super) how: How,
    pub(super) log: Late<'a>,
    pub(super) now: Now,
}

/// A client that is to get what another name has.
pub(super) type Led<P> = (Waiter<P>, Elsewhere);

impl Teller<'_> {
    /// Replies to `waiters` through `send`; those come back who are to be led to another name.
    pub(super) fn tell_all<P>(
        &self,
        waiters: VecDeque<Waiter<P>>,
        answer: &Answer<'_>,
        age: Age,
        out: &mut [u8],
        send: &mut impl FnMut(&P, &[u8]),
    ) -> Vec<Led<P>> {
        let mut led = Vec::new();
        for waiter in waiters {
            let group = self.policy.place(waiter.client.address, waiter.client.listener).group;
            let mut account = Account { how: Some(self.how), group, ..Account::default() };
            match self.tell(&waiter, answer, age, &mut account, out) {
                Ok(verdict) => {
                    self.counters.miss_durations.note(self.now.monotonic.since(waiter.since), 1);
                    self.log.tell(account, &waiter, written(&verdict, out));
                    send(&waiter.path, written(&verdict, out));
                }
                Err(elsewhere) => led.push((waiter, elsewhere)),
            }
        }
        led
    }

    fn tell<P>(
        &self,
        waiter: &Waiter<P>,
        answer: &Answer<'_>,
        age: Age,
        account: &mut Account,
        out: &mut [u8],
    ) -> Result<Verdict, Elsewhere> {
        let Self { policy, counters, limits, ref asked, now, .. } = *self;
        let query = waiter.own_query();
        let reply = Reply { query: &query, client: waiter.client, limits };
        let age = age.or_ede(Policy::reason(answer));
        account.ede = age.ede(answer);
        if let Some(way) = &waiter.way {
            way.list.into_iter().for_each(|list| account.block(list, way.ede));
        }
        let is_free = waiter.way.as_ref().is_some_and(|way| way.is_of_a_list());
        if !is_free {
            let asker = waiter.client.asker(policy);
            if let Some(blocked) = policy.late_objection(asked, asker, answer, now.cache) {
                counters.filter.blocked_answer(blocked.list);
                account.block(blocked.list, Some(blocked.ede));
                return reply.write_blocked(blocked, now, counters, out);
            }
        }
        Ok(match &waiter.way {
            Some(way) => reply.arrive(way, (asked, answer), age, now, counters, out),
            None => reply.tell(answer, age, now, counters, out),
        })
    }
}

impl<P> Core<P> {
    /// Leads clients to another name: replies with what that has, where it is known; the others come back.
    pub(super) fn lead(
        &mut self,
        led: Vec<Led<P>>,
        now: Now,
        out: &mut [u8],
        send: &mut impl FnMut(&P, &[u8]),
    ) -> Vec<Onward<P>> {
        let mut onward = Vec::new();
        for (waiter, elsewhere) in led {
            let query = waiter.own_query();
            let reply = Reply { query: &query, client: waiter.client, limits: self.limits };
            let group = self.policy.place(waiter.client.address, waiter.client.listener).group;
            self.account = Account { how: Some(How::Local), group, ..Account::default() };
            match self.follow(reply, elsewhere, now, out) {
                Verdict::Miss(mut ticket) => {
                    ticket.arrival = waiter.arrival;
                    onward.push(Onward { ticket, path: waiter.path });
                }
                verdict => {
                    self.late(now).tell(self.account, &waiter, written(&verdict, out));
                    send(&waiter.path, written(&verdict, out));
                }
            }
        }
        onward
    }
}
