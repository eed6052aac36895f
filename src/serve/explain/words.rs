//! The steps in words.

use std::fmt::Write as _;

use super::{Explained, Fate, Stage, Tracer, is_by_rule};
use crate::cache::{Explanation, Inspection, Segment, State};
use crate::config::{Group, OVERRIDES_NAME, Period, ROOT_VIEW};
use crate::observe::log::How;
use crate::observe::{OVERRIDES, Transport};
use crate::policy::filter::{Reach, Trigger, Verb};
use crate::policy::local::{Source, Wants};
use crate::policy::{Action, Balance, Blocked, Listed, Membership, Part, Policy, Ruling};
use crate::time::CacheTime;
use crate::wire::{Answer, Ede, Flags, Header, Name, Query, Rcode};

/// Lists that are named where many have something to say.
const NAMED_MAX: usize = 8;

impl<P> Tracer<'_, P> {
    pub(super) fn tell_access(&mut self) {
        let address = self.client.address.to_canonical();
        let prefix = self.core.policy.admitting(address);
        let text = match prefix {
            Some(prefix) if self.asker.is_served => {
                format!("{address} is served, by {prefix} of acl.allow")
            }
            _ => format!("{address} is in no prefix of acl.allow"),
        };
        let outcome = if self.asker.is_served { "served" } else { "refused" };
        self.tell(Stage::Access, outcome, text);
    }

    pub(super) fn tell_group(&mut self) {
        let policy = &self.core.policy;
        let membership = policy.membership(self.client.address, self.client.listener);
        let place = self.asker.place;
        let mut text = match membership {
            Some(membership) => member(&membership),
            None => "in no group".to_owned(),
        };
        if place.view == ROOT_VIEW {
            text += "; asks the upstreams of [forward]";
        } else {
            let _ = write!(
                text,
                "; has upstreams of its own, and answers with them (view {})",
                place.view
            );
        }
        if let Some(filtering) = policy.filtering() {
            let in_force = filtering.in_force(place.group);
            let numbered = (0..=u8::MAX).zip(filtering.lists());
            let (now, not): (Vec<_>, Vec<_>) =
                numbered.partition(|(number, _)| in_force.contains(*number));
            let names = |lists: &[(u8, &crate::config::List)]| {
                let names: Vec<&str> = lists.iter().map(|(_, list)| list.name.as_str()).collect();
                some_of(&names)
            };
            let _ = write!(text, "; lists that count now: {}", names(&now));
            if !not.is_empty() {
                let _ = write!(text, "; not now: {}", names(&not));
            }
            let disabled: Vec<&String> = policy.switches().disabled.iter().collect();
            if !disabled.is_empty() {
                let _ = write!(text, "; disabled by hand: {}", some_of(&disabled));
            }
            if let Some(Membership { section, .. }) = membership {
                text += &hours(section);
            }
        }
        let outcome = if place.group == 0 { "default" } else { "member" };
        self.tell(Stage::Group, outcome, text);
    }

    /// What `ruling` over the question goes by.
    pub(super) fn tell_question(&mut self, query: &Query<'_>, ruling: &Ruling<'_>) {
        if !self.asker.is_served {
            return;
        }
        if is_by_rule(query) {
            let text = format!(
                "answered by rule, whatever the name: class {}, type {}",
                query.qclass.0, query.qtype
            );
            return self.tell(Stage::Question, "rule", text);
        }
        let recursion = query.header.flags.has(Flags::RD);
        let wants = Wants { recursion, dnssec: query.wants_dnssec() };
        self.tell_source(query, wants);
        if matches!(ruling, Ruling::Answer(_) | Ruling::Made(_) | Ruling::Follow(_)) {
            return;
        }
        self.tell_lists(query);
        if matches!(ruling, Ruling::Refuse(..)) {
            let text = "recursion is not wanted (RD=0): only local data is told".to_owned();
            self.tell(Stage::Question, "refused", text);
        }
    }

    /// Which data of the operator's is about the question whose key is set.
    pub(super) fn tell_source(&mut self, query: &Query<'_>, wants: Wants) {
        let folded = self.key.folded_name();
        let found = self.core.policy.source(folded, query.qtype, wants);
        let (outcome, text) = match found {
            None => ("none", "no local data has the name".to_owned()),
            Some((source, at)) => {
                let owner = Policy::owner(folded, at);
                let owner = owner.map_or_else(String::new, |owner| owner.as_name().to_string());
                local(source, &owner)
            }
        };
        self.tell(Stage::Local, outcome, text);
    }

    /// What lists say of the name whose key is set.
    pub(super) fn tell_lists(&mut self, query: &Query<'_>) {
        let policy = &self.core.policy;
        if policy.switches().is_paused {
            let text = "blocking is paused by hand: neither lists nor overrides are asked";
            return self.tell(Stage::Lists, "paused", text.to_owned());
        }
        let folded = self.key.folded_name();
        if let Some(held) = policy.switches().overrides.as_ref().and_then(|all| all.find(folded)) {
            let (outcome, word) = match held.action {
                Action::Allow => ("allowed", "allowed"),
                Action::Block => ("blocked", "blocked"),
            };
            let reach = if held.is_subtree { ", there or with all names below one" } else { "" };
            let text = format!("{word} by hand{reach} (override), whatever lists say");
            return self.tell(Stage::Lists, outcome, text);
        }
        if policy.filtering().is_none() {
            return;
        }
        let (deciding, others) = policy.listed(folded, query.qtype, self.asker, self.now.cache);
        let told = |it: &Listed| {
            let list = policy.list_name(it.list).unwrap_or_default();
            format!("list \"{list}\" ({})", rule(it, folded))
        };
        let named = |is_in_force: bool| -> Vec<String> {
            others.iter().filter(|it| it.is_in_force == is_in_force).map(told).collect()
        };
        let (outranked, elsewhere) = (named(true), named(false));
        let is_stream = self.asker.is_stream;
        let (outcome, mut text) = match &deciding {
            None => ("unlisted", "no list that counts here has the name".to_owned()),
            Some(it) if is_free(it, is_stream) => ("allowed", format!("allowed by {}", told(it))),
            Some(it) => ("blocked", format!("blocked by {}", told(it))),
        };
        if !outranked.is_empty() {
            let _ = write!(text, ", which comes before {}", some_of(&outranked));
        }
        if !elsewhere.is_empty() {
            let _ = write!(text, "; does not count here now: {}", some_of(&elsewhere));
        }
        self.tell(Stage::Lists, outcome, text);
    }

    /// Why a list objects to an answer.
    pub(super) fn tell_objection(
        &mut self,
        query: &Query<'_>,
        answer: &Answer<'_>,
        blocked: &Blocked<'_>,
    ) {
        let policy = &self.core.policy;
        let mut because: Vec<String> = Vec::new();
        policy.listed_parts(query, self.asker, answer, self.now.cache, |part, it| {
            if it.list == blocked.list {
                because.push(match part {
                    Part::Name(name) => format!(
                        "it leads to {name} ({})",
                        rule(&it, &name.as_bytes().to_ascii_lowercase())
                    ),
                    Part::Address(address) => format!("it has the address {address}"),
                });
            }
        });
        let list = policy.list_name(blocked.list).unwrap_or_default();
        let text = match blocked.list {
            OVERRIDES => "it leads to a name that is blocked by hand (override)".to_owned(),
            _ => format!("list \"{list}\" objects to the answer: {}", some_of(&because)),
        };
        self.tell(Stage::Answer, "blocked", text);
    }

    pub(super) fn tell_in_flight(&mut self) {
        let core = self.core;
        let key = self.key.as_bytes();
        let place = core.shard.hash(key) ^ core.salt;
        let (outcome, text) =
            match (core.waiting.holds(place, key), core.waiting.is_slow(place, key)) {
                (false, _) => ("no", "nobody is asking for it"),
                (true, false) => {
                    ("yes", "is being asked already: this client waits with the others")
                }
                (true, true) => ("slow", "is being asked already, and takes long"),
            };
        self.tell(Stage::InFlight, outcome, text.to_owned());
    }

    pub(super) fn into_explained(self, fate: Fate) -> Explained {
        let Self { core, client, account, asked, steps, .. } = self;
        let header = match &fate {
            Fate::Reply(reply) => Header::read(reply),
            Fate::Drop | Fate::Limited | Fate::Wait(..) => None,
        };
        let rcode =
            header.map(|header| Rcode(u16::from(account.rcode_high) << 4 | header.flags.0 & 0xF));
        let list = account.list.and_then(|list| core.policy.list_name(list));
        let mut verdict = match &fate {
            Fate::Limited if client.transport == Transport::Tcp => {
                "refused: over the rate limit".to_owned()
            }
            Fate::Limited => "over the rate limit: dropped, or told to come over TCP".to_owned(),
            Fate::Wait(name, _) => format!("upstreams are asked for {}", name.as_name()),
            Fate::Drop => match list {
                Some(list) => format!("gets no reply, as list \"{list}\" wants it"),
                None => "gets no reply".to_owned(),
            },
            Fate::Reply(_) => answered(account.how, account.ede, list),
        };
        if let Some(rcode) = rcode {
            let _ = write!(verdict, ": {}", rcode.mnemonic());
        }
        if header.is_some_and(|header| header.flags.has(Flags::TC)) {
            verdict += ", cut: to be had over TCP";
        }
        Explained { steps, fate, account, rcode, list, asked, verdict }
    }
}

/// The verdict over a query that is answered at once.
fn answered(how: Option<How>, ede: Option<Ede>, list: Option<&str>) -> String {
    let said = ede.map(|ede| ede.text).filter(|text| !text.is_empty());
    match (how, said) {
        (Some(How::Blocked), _) if list == Some(OVERRIDES_NAME) => "blocked by hand".to_owned(),
        (Some(How::Blocked), _) => format!("blocked by list \"{}\"", list.unwrap_or_default()),
        (Some(How::Refused), Some(said)) => format!("refused ({said})"),
        (Some(How::Refused), None) => "refused".to_owned(),
        (Some(How::Stale), _) => "answered from the cache, past its lifetime".to_owned(),
        (Some(How::Local), None) => "answered from local data".to_owned(),
        (_, Some(said)) if ede.is_some_and(|ede| ede.code == Ede::CACHED_ERROR.code) => {
            format!("fails as it did a moment ago ({said})")
        }
        (_, Some(said)) => format!("answered from the cache ({said})"),
        (_, None) => "answered from the cache".to_owned(),
    }
}

/// Whether a list frees the name by its rule.
const fn is_free(it: &Listed, is_stream: bool) -> bool {
    matches!(it.verb, Verb::Allow) || (matches!(it.verb, Verb::TcpOnly) && is_stream)
}

/// A rule: its owner, what it covers, what it wants.
fn rule(it: &Listed, folded: &[u8]) -> String {
    let owner = match it.trigger {
        Trigger::Client => "this client".to_owned(),
        Trigger::Qname | Trigger::Nsdname => {
            let owner = Policy::owner(folded, it.owner_at);
            let owner = owner.map_or_else(String::new, |owner| owner.as_name().to_string());
            match it.reach {
                Reach::Exact => owner,
                Reach::Below => format!("all below {owner}"),
                Reach::AtAndBelow => format!("{owner} and all below"),
            }
        }
    };
    let verb = match it.verb {
        Verb::Block => "block",
        Verb::Allow => "allow",
        Verb::Nxdomain => "NXDOMAIN",
        Verb::Nodata => "NODATA",
        Verb::Drop => "drop",
        Verb::TcpOnly => "TCP only",
        Verb::Local => "own records",
    };
    let important = if it.is_important { ", important" } else { "" };
    format!("{owner}: {verb}{important}")
}

fn local(source: Source, owner: &str) -> (&'static str, String) {
    match source {
        Source::Hosts => ("hosts", format!("a hosts file has {owner}")),
        Source::Rewrite => ("rewrite", format!("[[rewrite]] has {owner}")),
        Source::RewriteBelow => ("rewrite", format!("[[rewrite]] has *.{owner}")),
        Source::Zone => ("zone", format!("[[local]] zone {owner} has the name")),
        Source::Special => {
            ("special", format!("{owner} is a special name, answered here ([special])"))
        }
        Source::Upstreams => ("none", format!("{owner} has upstreams of its own")),
    }
}

/// Whose a client is, and why.
fn member(membership: &Membership<'_>) -> String {
    let Membership { section, prefix, listener } = membership;
    let mut text = format!("in group \"{}\"", section.name);
    if let Some(prefix) = prefix {
        let _ = write!(text, ", by {prefix}");
    }
    if let Some(listener) = listener {
        let _ = write!(text, ", at listener {listener}");
    }
    if section.is_default() {
        text += ", like all who are in no other";
    }
    text
}

/// At which hours lists count for a group.
fn hours(section: &Group) -> String {
    let told = |period: &Period| {
        let at = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let Period { lists, days, from_minute, to_minute } = period;
        let names: Vec<&str> = lists.iter().map(String::as_str).collect();
        format!("; by schedule: {} {days} {}-{}", some_of(&names), at(*from_minute), at(*to_minute))
    };
    section.periods.iter().map(told).collect()
}

/// What a client may still ask.
pub(super) fn balance(balance: Balance) -> (&'static str, String) {
    match balance {
        Balance::Unlimited(Some(prefix)) => {
            ("unlimited", format!("not limited, by {prefix} of rate.allow"))
        }
        Balance::Unlimited(None) => ("unlimited", "not limited".to_owned()),
        Balance::Left(0) => ("limited", "over the limit on this core".to_owned()),
        Balance::Left(left) => ("within", format!("may ask {left} more at once on this core")),
    }
}

/// What the cache holds for a question about `qname`.
pub(super) fn found(
    found: &Explanation<'_>,
    qname: Name<'_>,
    now: CacheTime,
) -> (&'static str, String) {
    let told = |it: &Inspection<'_>| {
        let segment = match it.segment {
            Segment::Probation => "on probation",
            Segment::Protected => "protected",
            Segment::Hot => "hot",
        };
        let rcode = it.answer.shape.rcode.mnemonic();
        format!(
            "{rcode}, TTL {}, {segment}, asked for {} times",
            it.expiry.seconds_since(now),
            it.accesses
        )
    };
    match found {
        Explanation::Fresh(it) => ("fresh", format!("holds it: {}", told(it))),
        Explanation::Denied(it) if it.key.name.is_same(qname) => {
            ("denied", format!("knows that the name does not exist: {}", told(it)))
        }
        Explanation::Denied(it) => {
            ("denied", format!("knows that {} above it does not exist: {}", it.key.name, told(it)))
        }
        Explanation::Stale(it) => {
            let age = now.seconds_since(it.expiry);
            (
                "stale",
                format!(
                    "holds it, {age} s past its lifetime: {}",
                    it.answer.shape.rcode.mnemonic()
                ),
            )
        }
        Explanation::Useless(it) if it.state == State::Flushed => {
            ("useless", "held it, but it was flushed".to_owned())
        }
        Explanation::Useless(_) => {
            ("useless", "holds it, but too long past its lifetime".to_owned())
        }
        Explanation::Absent => ("absent", "knows nothing of it".to_owned()),
    }
}

/// Those texts, or the first of them and how many more there are.
fn some_of(texts: &[impl AsRef<str>]) -> String {
    let named: Vec<&str> = texts.iter().take(NAMED_MAX).map(AsRef::as_ref).collect();
    match texts.len().saturating_sub(NAMED_MAX) {
        _ if texts.is_empty() => "none".to_owned(),
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
