//! Hot path. What a client may have: whether it may ask at all, and what the operator answers in the world's stead.

pub mod acl;
pub mod detour;
mod explain;
pub mod filter;
pub mod filtering;
pub mod groups;
pub mod identity;
mod interned;
pub mod local;
pub mod outcome;
pub mod overrides;
mod parts;
mod presentation;
pub mod published;
pub mod rate;
pub mod rebinding;
pub mod schedule;

use std::net::IpAddr;
use std::sync::Arc;

pub use acl::Acl;
pub use detour::Detour;
pub use filtering::{Filtering, Judgement, Listed, Part, Subject};
pub use groups::{Groups, Membership, Place};
pub use identity::Identity;
pub use local::{HostsFile, Local, LocalData, LocalError};
pub use outcome::{Blocked, Outcome};
pub use overrides::{Action, OVERRIDES_MAX, Override, Overrides, Switches};
pub use published::Published;
pub use rate::{Balance, Excess, RateLimiter};
pub use rebinding::Rebinding;

use crate::config;
use crate::observe::OVERRIDES;
use crate::time::CacheTime;
use crate::wire::{Answer, AnswerBuf, Class, Ede, Flags, Name, NameBuf, Query, Rcode, Rtype};

/// What refused clients are told (RFC 8914 §4.19, §4.21, §4.22). No words about this site: strangers read them, too.
const STRANGER: &str = "this client is not served";
const UNTOLD: &str = "the operator does not tell";
const NO_RECURSION: &str = "recursion was not asked for";
const NO_TRANSFERS: &str = "no zone transfers";
const NO_SUCH_TYPE: &str = "no questions of this type";
const NO_SUCH_CLASS: &str = "no questions of this class";

/// What the policy says to a query.
#[derive(Debug)]
pub enum Ruling<'a> {
    /// Nothing: look further.
    Pass,
    /// As [`Ruling::Pass`]; and the list with this number frees the answer, too ([`Policy::objection`]).
    Allow(u8),
    /// This code, for this reason.
    Refuse(Rcode, Option<Ede>),
    /// The operator's own answer.
    Answer(Answer<'a>),
    /// As [`Ruling::Answer`], made for this query alone.
    Made(Box<AnswerBuf>),
    /// What another name has.
    Follow(Box<Detour>),
    /// A list objects.
    Block(Blocked<'a>),
}

impl<'a> Ruling<'a> {
    /// What becomes of what the operator has for a query.
    fn of(local: Local<'a>) -> Self {
        match local {
            Local::Answer(answer) => Self::Answer(answer),
            Local::Made(answer) => Self::Made(answer),
            Local::Follow(detour) => Self::Follow(detour.boxed()),
            Local::FollowMade(detour) => Self::Follow(detour),
        }
    }
}

/// Whose question it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Asker {
    /// The client's address.
    pub address: IpAddr,
    /// Where it stands.
    pub place: Place,
    /// It came over a stream: its address is no forgery.
    pub is_stream: bool,
    /// What [`Policy::serves`] says of the address.
    pub is_served: bool,
}

/// Everything that rules over queries; immutable, shared by all cores, replaced as a whole.
#[derive(Clone, Debug)]
pub struct Policy {
    acl: Acl,
    identity: Identity,
    local: Arc<LocalData>,
    groups: Groups,
    filtering: Option<Arc<Filtering>>,
    switches: Switches,
    /// Lists are asked without the filter before their tables.
    is_exact: bool,
    rebinding: Rebinding,
    any: AnswerBuf,
    generation: u64,
}

impl Policy {
    /// Joins the parts.
    #[must_use]
    pub fn new(acl: Acl, identity: Identity, local: LocalData) -> Self {
        Self {
            acl,
            identity,
            local: Arc::new(local),
            groups: Groups::default(),
            filtering: None,
            switches: Switches::default(),
            is_exact: false,
            rebinding: Rebinding::default(),
            any: local::any_answer(),
            generation: 0,
        }
    }

    /// The same, of the config with this number: whoever goes by it goes by the other sections of that config, too.
    #[must_use]
    pub fn of_generation(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// The number of the config that it belongs to; that of the start is 0.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The groups of clients.
    #[must_use]
    pub const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The same, with clients in `groups`.
    #[must_use]
    pub fn grouped(mut self, groups: Groups) -> Self {
        self.groups = groups;
        self
    }

    /// The same, with names blocked and allowed as `filtering` says, but for lists that the operator has disabled.
    #[must_use]
    pub fn filtered(mut self, filtering: Option<Arc<Filtering>>) -> Self {
        self.filtering = filtering.map(|filtering| {
            let disabled = filtering.numbers(&self.switches.disabled);
            let is_so = disabled == filtering.disabled();
            if is_so { filtering } else { Arc::new(filtering.without(disabled)) }
        });
        self
    }

    /// The same, with what the operator has switched by hand.
    #[must_use]
    pub fn switched(mut self, switches: Switches) -> Self {
        self.switches = switches;
        let filtering = self.filtering.take();
        self.filtered(filtering)
    }

    /// What the operator has switched by hand.
    #[must_use]
    pub const fn switches(&self) -> &Switches {
        &self.switches
    }

    /// The same, with the filter before the tables of lists, or without it.
    #[must_use]
    pub const fn pre_filtered(mut self, is_on: bool) -> Self {
        self.is_exact = !is_on;
        self
    }

    /// Whether the filter before the tables of lists is asked.
    #[must_use]
    pub const fn is_pre_filtered(&self) -> bool {
        !self.is_exact
    }

    /// The same, with `rebinding` for the answers of upstreams.
    #[must_use]
    pub fn against(mut self, rebinding: Rebinding) -> Self {
        self.rebinding = rebinding;
        self
    }

    /// What is to be stored and told instead of `answer`, which an upstream gave for `query`; `None` when nothing is
    /// wrong with it. `folded` is the query's name in lower case.
    #[must_use]
    pub fn replacement(
        &self,
        query: &Query<'_>,
        folded: &[u8],
        answer: &AnswerBuf,
    ) -> Option<AnswerBuf> {
        if query.qclass != Class::IN {
            return None;
        }
        self.rebinding.replacement(Name::parse(folded).ok()?, query.qtype, answer)
    }

    /// Why an answer of the cache is what it is, if a replacement is kept there.
    #[inline]
    #[must_use]
    pub fn reason(answer: &Answer<'_>) -> Option<Ede> {
        (answer.shape.flags & Flags::AA != 0).then_some(rebinding::WITHHELD)
    }

    /// Whether a client at `address` is served at all.
    #[must_use]
    pub fn serves(&self, address: IpAddr) -> bool {
        self.acl.allows(address)
    }

    /// Where the client at `address` stands who asked the listener with this number.
    #[inline]
    #[must_use]
    pub fn place(&self, address: IpAddr, listener: u16) -> Place {
        self.groups.place(address, listener)
    }

    /// Whether queries of clients of `group` are logged.
    #[inline]
    #[must_use]
    pub fn logs(&self, group: u8) -> bool {
        self.groups.logs(group)
    }

    /// What the operator calls a group.
    #[must_use]
    pub fn group_name(&self, group: u8) -> Option<&'static str> {
        self.groups.name(group)
    }

    /// What the operator calls a list.
    #[must_use]
    pub fn list_name(&self, list: u8) -> Option<&'static str> {
        match list {
            OVERRIDES => Some(config::OVERRIDES_NAME),
            list => self.filtering.as_ref()?.list_name(list),
        }
    }

    /// The lists in force, if there are any.
    #[must_use]
    pub fn filtering(&self) -> Option<&Filtering> {
        self.filtering.as_deref()
    }

    /// What lists object to in `answer`, the true one to `query` that `asker` would get.
    ///
    /// Not for answers to what [`Policy::rule`] allows.
    #[inline]
    #[must_use]
    pub fn objection(
        &self,
        query: &Query<'_>,
        asker: Asker,
        answer: &Answer<'_>,
        now: CacheTime,
    ) -> Option<Blocked<'_>> {
        if self.switches.is_paused {
            return None;
        }
        let overrides = self.switches.overrides.as_deref();
        match &self.filtering {
            Some(filtering) => filtering.object(query, answer, self.subject(asker, now), overrides),
            None => overrides?.object(query, answer, now),
        }
    }

    /// What the operator and his lists say to `query`, whose name is `folded`; the operator's own word comes first.
    #[inline]
    fn judgement(
        &self,
        query: &Query<'_>,
        folded: &[u8],
        asker: Asker,
        now: CacheTime,
    ) -> Judgement<'_> {
        if self.switches.is_paused {
            return Judgement::Unlisted;
        }
        if let Some(overrides) = &self.switches.overrides
            && let Some(judgement) = overrides.judge(folded, query.qtype, now)
        {
            return judgement;
        }
        match &self.filtering {
            Some(filtering) => filtering.judge(query, folded, self.subject(asker, now)),
            None => Judgement::Unlisted,
        }
    }

    /// What lists object to in the name of `query`, which is `folded`, if `asker` asked for it.
    #[must_use]
    pub fn judge(
        &self,
        query: &Query<'_>,
        folded: &[u8],
        asker: Asker,
        now: CacheTime,
    ) -> Option<Blocked<'_>> {
        match self.judgement(query, folded, asker, now) {
            Judgement::Blocked(blocked) => Some(blocked),
            Judgement::Unlisted | Judgement::Allowed(_) => None,
        }
    }

    /// As [`Policy::objection`], for an answer to a question that was asked a while ago: whether that is allowed or blocked
    /// is looked up anew.
    #[must_use]
    pub fn late_objection(
        &self,
        query: &Query<'_>,
        asker: Asker,
        answer: &Answer<'_>,
        now: CacheTime,
    ) -> Option<Blocked<'_>> {
        let may_object = match (&self.filtering, &self.switches.overrides) {
            (Some(filtering), _) => filtering.may_object(query, answer),
            (None, Some(_)) => filtering::leads_on(query, answer),
            (None, None) => false,
        };
        if !may_object || query.qclass != Class::IN {
            return None;
        }
        let mut folded = NameBuf::new(query.qname);
        folded.make_lower();
        match self.judgement(query, folded.as_name().as_bytes(), asker, now) {
            Judgement::Allowed(_) => None,
            Judgement::Blocked(blocked) => Some(blocked),
            Judgement::Unlisted => self.objection(query, asker, answer, now),
        }
    }

    #[inline]
    fn subject(&self, asker: Asker, now: CacheTime) -> Subject<'_> {
        let Asker { address, place: Place { group, .. }, is_stream, .. } = asker;
        let name = self.groups.name(group);
        Subject { address, group, name, is_stream, now, is_exact: self.is_exact }
    }

    /// Whether the answer to `qtype` at the name that is `folded` (lower case, wire form) is the operator's own: nobody
    /// else is asked.
    #[must_use]
    pub fn holds(&self, folded: &[u8], qtype: Rtype) -> bool {
        let wants = local::Wants { recursion: true, dnssec: false };
        self.local(folded, qtype, wants, CacheTime::default()).is_some()
    }

    /// What the operator has for `qtype` at the name that is `folded`; `now` becomes the time of answers, which have no age.
    #[inline]
    #[must_use]
    pub fn local(
        &self,
        folded: &[u8],
        qtype: Rtype,
        wants: local::Wants,
        now: CacheTime,
    ) -> Option<Local<'_>> {
        self.local.lookup(folded, qtype, wants, now)
    }

    /// Rules over `query` from `asker`. `folded` is the query's name in lower case; `now` becomes the time of local
    /// answers, which have no age.
    #[inline]
    pub fn rule(
        &self,
        query: &Query<'_>,
        folded: &[u8],
        asker: Asker,
        now: CacheTime,
    ) -> Ruling<'_> {
        if !asker.is_served {
            return Ruling::Refuse(Rcode::REFUSED, Some(Ede::PROHIBITED.with_text(STRANGER)));
        }
        if query.edns.is_some_and(|edns| edns.version > 0) {
            return Ruling::Refuse(Rcode::BADVERS, None);
        }
        if query.qclass != Class::IN || is_meta(query.qtype) {
            return self.rule_special(query, now);
        }
        let recursion = query.header.flags.has(Flags::RD);
        let wants = local::Wants { recursion, dnssec: query.wants_dnssec() };
        if let Some(local) = self.local(folded, query.qtype, wants, now) {
            return Ruling::of(local);
        }
        let judgement = self.judgement(query, folded, asker, now);
        if let Judgement::Blocked(blocked) = judgement {
            return Ruling::Block(blocked);
        }
        if !recursion {
            // Answers from the cache would tell one client what others asked (as Unbound's `allow` refuses).
            return Ruling::Refuse(
                Rcode::REFUSED,
                Some(Ede::NOT_AUTHORITATIVE.with_text(NO_RECURSION)),
            );
        }
        match judgement {
            Judgement::Allowed(list) => Ruling::Allow(list),
            Judgement::Unlisted | Judgement::Blocked(_) => Ruling::Pass,
        }
    }

    fn rule_special(&self, query: &Query<'_>, now: CacheTime) -> Ruling<'_> {
        match (query.qclass, query.qtype) {
            (Class::CH, _) => match self.identity.lookup(query.qname, query.qtype) {
                Some(answer) => Ruling::Answer(answer.view(now)),
                None => Ruling::Refuse(Rcode::REFUSED, Some(Ede::PROHIBITED.with_text(UNTOLD))),
            },
            (Class::IN, Rtype::ANY) => Ruling::Answer(self.any.view(now)),
            (Class::IN, Rtype::AXFR | Rtype::IXFR) => {
                Ruling::Refuse(Rcode::REFUSED, Some(Ede::NOT_SUPPORTED.with_text(NO_TRANSFERS)))
            }
            (Class::IN, Rtype::MAILA | Rtype::MAILB | Rtype::TKEY) => {
                Ruling::Refuse(Rcode::NOTIMP, Some(Ede::NOT_SUPPORTED.with_text(NO_SUCH_TYPE)))
            }
            (Class::IN, _) => Ruling::Refuse(Rcode::FORMERR, None),
            _ => Ruling::Refuse(Rcode::REFUSED, Some(Ede::NOT_SUPPORTED.with_text(NO_SUCH_CLASS))),
        }
    }
}

/// Types that name no data: 0 is reserved, 41 is OPT, 249 to 255 are question-only or for transactions
/// (RFC 6895 §3.1). Other numbers of that range are unknown types like all others.
#[must_use]
pub const fn is_meta(qtype: Rtype) -> bool {
    matches!(qtype.0, 0 | 41 | 249..=255)
}

#[cfg(test)]
mod tests;
