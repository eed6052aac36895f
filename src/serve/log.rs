//! What the query log is told: of each query once, when its client has been answered or passed over for good.

use super::answer::{Client, Core, Verdict};
use super::miss::{Waiter, written};
use crate::observe::log::{Account, Entry, How, Tap};
use crate::policy::Policy;
use crate::time::{CacheTime, Monotonic, Now};
use crate::wire::{HEADER_BYTES, Header, Name};

/// What is kept of a query's arrival while its client waits.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrival {
    /// When it came.
    since: Monotonic,
    /// Whether it will be told.
    is_told: bool,
    /// The message, if that is to be told, too.
    message: Box<[u8]>,
}

/// Tells of those who waited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late<'a> {
    pub(super) tap: Option<&'a Tap>,
    pub(super) policy: &'a Policy,
    pub(super) now: Now,
}

impl Late<'_> {
    /// Tells that `waiter` got `reply`, which is empty when it got none.
    pub(super) fn tell<P>(self, account: Account, waiter: &Waiter<P>, reply: &[u8]) {
        let Some(tap) = self.tap.filter(|_| waiter.arrival.is_told) else { return };
        let (query, Arrival { since, message, .. }) = (waiter.own_query(), &waiter.arrival);
        let taken = self.now.monotonic.since(*since);
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
        };
        asked.tell(account, self.policy, reply, tap);
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
}

impl Asked<'_> {
    fn tell(&self, account: Account, policy: &Policy, reply: &[u8], tap: &Tap) {
        let Account { how: Some(how), list, group, rcode_high } = account else { return };
        if !policy.logs(group) {
            return;
        }
        let header = Header::read(reply);
        let rcode = header.map(|header| u16::from(rcode_high) << 4 | header.flags.0 & 0xF);
        // Silence that a list wants is the list's work.
        let how = if rcode.is_none() && how != How::Blocked { How::Dropped } else { how };
        tap.tell(&Entry {
            time: self.time,
            latency_us: self.latency_us,
            address: self.client.address.to_canonical(),
            port: self.client.port,
            listener: self.client.listener,
            transport: self.client.transport,
            group,
            how,
            list,
            rcode,
            qname: self.qname,
            qtype: self.qtype,
            reply_len: u16::try_from(reply.len()).unwrap_or(u16::MAX),
            query: self.message,
            reply,
        });
    }
}

impl<P> Core<P> {
    /// Tells of `message` if `verdict` ends it, else remembers when it came.
    #[inline(never)]
    pub(super) fn tell_now(
        &self,
        mut verdict: Verdict,
        message: &[u8],
        client: Client,
        now: Now,
        out: &[u8],
    ) -> Verdict {
        let Some(tap) = self.tap.as_ref().filter(|_| self.account.how.is_some()) else {
            return verdict;
        };
        if !tap.is_due() {
            return verdict;
        }
        if let Verdict::Miss(ticket) = &mut verdict {
            let message = if tap.octets().queries { message.into() } else { Box::default() };
            ticket.arrival = Arrival { since: now.monotonic, is_told: true, message };
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
        };
        asked.tell(self.account, &self.policy, written(&verdict, out), tap);
        verdict
    }
}
