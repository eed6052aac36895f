//! What the query log and the flight recorder are told: of each query once, when its client has been answered or passed over for good.

use super::answer::{Client, Core, Verdict};
use super::miss::{Waiter, written};
use crate::observe::log::{Account, Entry, How, Tap};
use crate::observe::{Decision, Decisions, Via};
use crate::policy::Policy;
use crate::time::{CacheTime, Monotonic, Now};
use crate::wire::{HEADER_BYTES, Header, Name};

/// What is kept of a query's arrival while its client waits.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrival {
    /// When it came; not known before it waits.
    since: Option<Monotonic>,
    /// Whether the query log will be told.
    is_told: bool,
    /// The message, if that is to be told, too.
    message: Box<[u8]>,
}

impl Arrival {
    /// It came at `now`, unless it has been waiting for another question.
    pub(super) fn begin(&mut self, now: Monotonic) {
        self.since.get_or_insert(now);
    }
}

/// Tells of those who waited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late<'a> {
    pub(super) tap: Option<&'a Tap>,
    pub(super) decisions: &'a Decisions,
    pub(super) policy: &'a Policy,
    /// The upstream that answered or failed last.
    pub(super) via: Option<Via>,
    pub(super) now: Now,
}

impl Late<'_> {
    /// Tells that `waiter` got `reply`, which is empty when it got none.
    pub(super) fn tell<P>(self, account: Account, waiter: &Waiter<P>, reply: &[u8]) {
        let (query, Arrival { since, is_told, message }) = (waiter.own_query(), &waiter.arrival);
        let taken = self.now.monotonic.since(since.unwrap_or(self.now.monotonic));
        let latency_us = u32::try_from(taken.as_micros()).unwrap_or(u32::MAX - 1);
        let now = self.now.cache.as_millis();
        let begun = now.saturating_sub(u64::from(latency_us / 1_000));
        let asked = Asked {
            time: CacheTime::from_millis(begun),
            latency_us: Some(latency_us),
            client: waiter.client,
            qname: query.qname.as_bytes(),
            qtype: query.qtype.0,
            message,
            via: self.via,
        };
        let tap = self.tap.filter(|_| *is_told);
        asked.tell(account, self.policy, reply, (tap, Some(self.decisions)));
    }
}

/// A query that is over.
struct Asked<'a> {
    time: CacheTime,
    latency_us: Option<u32>,
    client: Client,
    qname: &'a [u8],
    qtype: u16,
    message: &'a [u8],
    via: Option<Via>,
}

impl Asked<'_> {
    fn tell(
        &self,
        account: Account,
        policy: &Policy,
        reply: &[u8],
        (tap, decisions): (Option<&Tap>, Option<&Decisions>),
    ) {
        let Account { how: Some(how), list, group, rcode_high, ede } = account else { return };
        if !policy.logs(group) {
            return;
        }
        let header = Header::read(reply);
        let rcode = header.map(|header| u16::from(rcode_high) << 4 | header.flags.0 & 0xF);
        // Silence that a list wants is the list's work.
        let how = if rcode.is_none() && how != How::Blocked { How::Dropped } else { how };
        let Self { time, latency_us, client, qname, qtype, .. } = *self;
        let Client { address, port, listener, transport } = client;
        let address = address.to_canonical();
        if let Some(decisions) = decisions {
            let (group, list) =
                (policy.group_name(group), list.and_then(|it| policy.list_name(it)));
            let via = self.via.filter(|_| how == How::Forwarded);
            decisions.note(&Decision {
                time,
                latency_us,
                address,
                listener,
                transport,
                group,
                how,
                list,
                rcode,
                ede,
                via,
                qname,
                qtype,
            });
        }
        let Some(tap) = tap else { return };
        tap.tell(&Entry {
            time,
            latency_us,
            address,
            port,
            listener,
            transport,
            group,
            how,
            list,
            rcode,
            qname,
            qtype,
            reply_len: u16::try_from(reply.len()).unwrap_or(u16::MAX),
            query: self.message,
            reply,
        });
    }
}

impl<P> Core<P> {
    /// Tells of those who have waited until now, for what was known here.
    pub(super) fn late(&self, now: Now) -> Late<'_> {
        let (tap, policy) = (self.tap.as_ref(), &*self.policy);
        Late { tap, decisions: &self.decisions, policy, via: None, now }
    }

    /// Tells of `message` if `verdict` ends it, else remembers when it came. `is_noted` says whether the flight recorder wants
    /// it.
    #[inline(never)]
    pub(super) fn tell_now(
        &self,
        (mut verdict, is_noted): (Verdict, bool),
        message: &[u8],
        client: Client,
        now: Now,
        out: &[u8],
    ) -> Verdict {
        if self.account.how.is_none() {
            return verdict;
        }
        let tap = self.tap.as_ref().filter(|tap| tap.is_due());
        if let Verdict::Miss(ticket) = &mut verdict {
            if let Some(tap) = tap {
                let message = if tap.octets().queries { message.into() } else { Box::default() };
                ticket.arrival = Arrival { since: Some(now.monotonic), is_told: true, message };
            }
            return verdict;
        }
        let decisions = is_noted.then_some(&self.decisions);
        if tap.is_none() && decisions.is_none() {
            return verdict;
        }
        // It was parsed as a query before: the name is whole, and the type stands behind it.
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let qname = Name::parse(body).map_or(&[][..], Name::as_bytes);
        let qtype = body.get(qname.len()..).and_then(|rest| rest.first_chunk());
        let asked = Asked {
            time: now.cache,
            latency_us: None,
            client,
            qname,
            qtype: qtype.map_or(0, |octets| u16::from_be_bytes(*octets)),
            message,
            via: None,
        };
        asked.tell(self.account, &self.policy, written(&verdict, out), (tap, decisions));
        verdict
    }
}
