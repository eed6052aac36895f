//! Why the policy says what it says, for people. The verdicts are those of the functions that serving calls; here is what they
//! go by.

use std::net::IpAddr;

use ipnet::IpNet;

use super::filtering::{Listed, Part};
use super::groups::Membership;
use super::local::{Source, Wants};
use super::{Asker, Policy};
use crate::time::CacheTime;
use crate::wire::{Answer, NameBuf, Query, Rtype};

impl Policy {
    /// The prefix that lets a client in; `None` when it is not served.
    #[must_use]
    pub fn admitting(&self, address: IpAddr) -> Option<IpNet> {
        self.acl.prefix_of(address)
    }

    /// Why a client stands where it stands; `None` when it is in no group that is written down.
    #[must_use]
    pub fn membership(&self, address: IpAddr, listener: u16) -> Option<Membership<'_>> {
        self.groups.membership(address, listener)
    }

    /// What the operator's answer to `qtype` at the name that is `folded` comes from, and where in the name its owner or apex
    /// begins; `None` when no data of his is about it.
    #[must_use]
    pub fn source(&self, folded: &[u8], qtype: Rtype, wants: Wants) -> Option<(Source, usize)> {
        let mut source = None;
        let note = |found, at| source = Some((found, at));
        let answer = self.local.lookup_noting(folded, qtype, wants, CacheTime::default(), note);
        answer.and(source)
    }

    /// The rule that decides over a question, and what the other lists say.
    #[must_use]
    pub fn listed(
        &self,
        folded: &[u8],
        qtype: Rtype,
        asker: Asker,
        now: CacheTime,
    ) -> (Option<Listed>, Vec<Listed>) {
        let Some(filtering) = &self.filtering else { return (None, Vec::new()) };
        filtering.explain(folded, qtype, self.subject(asker, now))
    }

    /// Tells `note` of the parts of `answer` that lists have an opinion of.
    pub fn listed_parts(
        &self,
        query: &Query<'_>,
        asker: Asker,
        answer: &Answer<'_>,
        now: CacheTime,
        note: impl FnMut(Part<'_>, Listed),
    ) {
        if let Some(filtering) = &self.filtering {
            filtering.explain_objection(query, answer, self.subject(asker, now), note);
        }
    }

    /// The name that is `folded`, from the octet `at` on.
    #[must_use]
    pub fn owner(folded: &[u8], at: usize) -> Option<NameBuf> {
        let part = folded.get(at..)?;
        crate::wire::Name::parse(part).ok().map(NameBuf::new)
    }
}
