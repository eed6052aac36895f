//! Hot path. What lists say now: whose lists count for which group of clients, and what those get who ask for a blocked
//! name. Asked of each question, and of the names and addresses in its answer.

mod explain;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::filter::{Asker, Decision, Image, Lists, Matcher, Verb};
use super::outcome::{Blocked, Manner, Outcome};
use super::overrides::{Action, Overrides};
use super::parts;
use crate::config;
use crate::time::CacheTime;
use crate::wire::answer::AnswerRecord;
use crate::wire::{Answer, Name, NameBuf, Query, Rtype};
pub use explain::{Listed, Part};

/// The lists in force; immutable, shared by all cores, replaced as a whole.
#[derive(Debug)]
pub struct Filtering {
    image: Image<Bytes>,
    /// The lists of the image, by number.
    lists: Arc<[config::List]>,
    /// How each list answers, by its number.
    manners: Box<[Manner]>,
    /// Which lists count by their schedules, by group.
    groups: Box<[Lists]>,
    /// The lists that the operator has disabled.
    disabled: Lists,
    /// Which lists are asked, by group: those of `groups` that are not disabled.
    asked: Box<[Lists]>,
    /// Some rule is about addresses, of clients or in answers.
    watches_addresses: bool,
}

/// Who asks, as far as lists care.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The client's address.
    pub address: IpAddr,
    /// The number of its group.
    pub group: u8,
    /// What the operator calls that.
    pub name: Option<&'a str>,
    /// It came over a stream, which is all that some rules ask for.
    pub is_stream: bool,
    /// When: ready answers have no age.
    pub now: CacheTime,
    /// His names are looked for in the table, whatever the filter before it says.
    pub is_exact: bool,
}

/// What lists say to a question.
#[derive(Debug)]
pub enum Judgement<'a> {
    /// Nothing.
    Unlisted,
    /// The list with this number allows it: nor are the aliases of its answer looked at.
    Allowed(u8),
    /// A list objects.
    Blocked(Blocked<'a>),
}

impl Filtering {
    /// Joins `image`, in which list number *n* is `lists[n]`, with the sets of lists that count now for each group; the group
    /// with the number 0 is the default one.
    ///
    /// # Panics
    /// When there are more lists than an image can tell apart, or no group.
    #[must_use]
    pub fn new(image: Image<Bytes>, lists: &[config::List], groups: Box<[Lists]>) -> Self {
        assert!(lists.len() <= config::LISTS_MAX && !groups.is_empty());
        let watches_addresses = image.has_networks();
        let manners = lists.iter().map(Manner::new).collect();
        let (disabled, asked) = (Lists::default(), groups.clone());
        let lists = lists.into();
        Self { image, lists, manners, groups, disabled, asked, watches_addresses }
    }

    /// The same lists, other sets of them in force.
    #[must_use]
    pub fn regrouped(&self, groups: Box<[Lists]>) -> Self {
        self.with(groups, self.disabled)
    }

    /// The same lists, of which those in `disabled`, and no others, count for nobody.
    #[must_use]
    pub fn without(&self, disabled: Lists) -> Self {
        self.with(self.groups.iter().copied().collect(), disabled)
    }

    fn with(&self, groups: Box<[Lists]>, disabled: Lists) -> Self {
        let asked = groups.iter().map(|lists| lists.except(disabled)).collect();
        let same = Self::new(Image::clone(&self.image), &self.lists, groups);
        Self { disabled, asked, ..same }
    }

    /// The lists that count for nobody because the operator wants it so.
    #[must_use]
    pub const fn disabled(&self) -> Lists {
        self.disabled
    }

    /// The numbers of those lists whose names are among `names`.
    #[must_use]
    pub fn numbers(&self, names: &BTreeSet<String>) -> Lists {
        let numbered = (0..=u8::MAX).zip(&*self.lists);
        numbered.filter(|(_, list)| names.contains(&list.name)).map(|(number, _)| number).collect()
    }

    /// The lists that the image was made of, by number.
    #[must_use]
    pub fn lists(&self) -> &[config::List] {
        &self.lists
    }

    /// Which lists count now by their schedules, by group; those that the operator has disabled are among them.
    #[must_use]
    pub fn groups(&self) -> &[Lists] {
        &self.groups
    }

    /// Whether its lists are those of `other`, by name and number.
    #[must_use]
    pub fn is_numbered_as(&self, other: &Self) -> bool {
        let names = self.lists.iter().map(|list| &list.name);
        names.eq(other.lists.iter().map(|list| &list.name))
    }

    /// What the operator calls the lists, by number.
    #[must_use]
    pub fn list_names(&self) -> Vec<&'static str> {
        self.manners.iter().map(|manner| manner.name).collect()
    }

    /// What the operator calls the list with this number.
    #[must_use]
    pub fn list_name(&self, list: u8) -> Option<&'static str> {
        self.manners.get(usize::from(list)).map(|manner| manner.name)
    }

    /// The rule that decides over `qtype` at the name that is `folded`, if there is one: for the client himself, or for the
    /// name.
    #[must_use]
    pub fn decide(
        &self,
        folded: &[u8],
        qtype: Rtype,
        subject: Subject<'_>,
    ) -> Option<Decision<'_>> {
        let asker = self.asker(qtype, subject);
        let matcher = self.matcher(subject);
        let found = self.decide_for(matcher, folded, &asker);
        // Whom a zone wants to come over a stream has come over one: then the other lists decide.
        match found {
            Some(decision) if decision.verb == Verb::TcpOnly && subject.is_stream => {
                self.decide_without(matcher, folded, &asker, decision.list)
            }
            _ => found,
        }
    }

    #[inline]
    fn decide_for<'s>(
        &self,
        matcher: Matcher<'s>,
        folded: &[u8],
        asker: &Asker<'_>,
    ) -> Option<Decision<'s>> {
        let named = matcher.decide(folded, asker);
        if !self.watches_addresses {
            return named;
        }
        match (matcher.decide_client(asker), named) {
            (Some(client), Some(named)) => {
                Some(if named.outranks(&client) { named } else { client })
            }
            (client, named) => client.or(named),
        }
    }

    #[cold]
    fn decide_without<'s>(
        &self,
        matcher: Matcher<'s>,
        folded: &[u8],
        asker: &Asker<'_>,
        list: u8,
    ) -> Option<Decision<'s>> {
        let mut lists = *asker.lists;
        lists.remove(list);
        let mut found = self.decide_for(matcher, folded, &Asker { lists: &lists, ..*asker })?;
        while found.verb == Verb::TcpOnly {
            lists.remove(found.list);
            found = self.decide_for(matcher, folded, &Asker { lists: &lists, ..*asker })?;
        }
        Some(found)
    }

    /// What lists say to `query`, whose name is `folded` (lower case, wire form).
    #[inline]
    #[must_use]
    pub fn judge(&self, query: &Query<'_>, folded: &[u8], subject: Subject<'_>) -> Judgement<'_> {
        match self.decide(folded, query.qtype, subject) {
            None => Judgement::Unlisted,
            Some(decision) => match self.outcome(&decision, query, subject) {
                Some(outcome) => Judgement::Blocked(self.blocked(&decision, outcome)),
                None => Judgement::Allowed(decision.list),
            },
        }
    }

    /// What lists object to in `answer`, which is true but leads through a blocked alias or to a blocked address (and
    /// whose question they did not allow). What `overrides` say of an alias comes before what lists do.
    #[inline]
    #[must_use]
    pub fn object<'f>(
        &'f self,
        query: &Query<'_>,
        answer: &Answer<'_>,
        subject: Subject<'_>,
        overrides: Option<&'f Overrides>,
    ) -> Option<Blocked<'f>> {
        if self.may_object(query, answer) {
            self.object_to_parts(query, answer, subject, overrides, |_, _| {})
        } else {
            None
        }
    }

    /// Whether there is something in `answer` that lists may object to.
    #[inline]
    #[must_use]
    pub fn may_object(&self, query: &Query<'_>, answer: &Answer<'_>) -> bool {
        leads_on(query, answer) || (self.watches_addresses && answer.first_type().is_some())
    }

    fn object_to_parts<'f>(
        &'f self,
        query: &Query<'_>,
        answer: &Answer<'_>,
        subject: Subject<'_>,
        overrides: Option<&'f Overrides>,
        mut note: impl FnMut(Part<'_>, &Decision<'_>),
    ) -> Option<Blocked<'f>> {
        let (matcher, asker) = (self.matcher(subject), self.asker(query.qtype, subject));
        let mut addressed: Option<Decision<'_>> = None;
        for record in answer.records() {
            if record.rtype == Rtype::NS
                && let Some(server) = name_in(&record, query.qname)
                && let Some(decision) = matcher.decide_nsdname(server.as_name().as_bytes(), &asker)
            {
                note(Part::Name(server.as_name()), &decision);
                return self.objection_of(&decision, query, subject);
            }
            if let Some(target) = target_of(&record, query.qname) {
                let folded = target.as_name().as_bytes();
                if let Some(overrides) = overrides
                    && let Some(held) = overrides.find(folded)
                {
                    let is_blocked = held.action == Action::Block;
                    return is_blocked.then(|| overrides.blocked(query.qtype, subject.now));
                }
                let decision = matcher.decide(folded, &asker);
                // What is allowed is so with everything behind it.
                if let Some(decision) = decision {
                    note(Part::Name(target.as_name()), &decision);
                    return self.objection_of(&decision, query, subject);
                }
            }
            if self.watches_addresses {
                for address in addresses(record.rtype, record.rdata) {
                    let found = matcher.decide_address(address, &asker);
                    if let Some(found) = &found {
                        note(Part::Address(address), found);
                    }
                    addressed = first_of(addressed, found);
                }
            }
        }
        self.objection_of(&addressed?, query, subject)
    }

    fn objection_of(
        &self,
        decision: &Decision<'_>,
        query: &Query<'_>,
        subject: Subject<'_>,
    ) -> Option<Blocked<'_>> {
        let outcome = self.outcome(decision, query, subject)?;
        Some(self.blocked(decision, outcome))
    }

    #[inline]
    fn matcher(&self, subject: Subject<'_>) -> Matcher<'_> {
        self.image.matcher().exact(subject.is_exact)
    }

    #[inline]
    fn asker<'s>(&'s self, qtype: Rtype, subject: Subject<'s>) -> Asker<'s> {
        let Subject { address, group, name, .. } = subject;
        // Who came with a group that was there a moment ago gets the default one's lists.
        let lists = self.asked.get(usize::from(group)).unwrap_or(&self.asked[0]);
        Asker { lists, qtype, address, name }
    }

    fn blocked<'s>(&'s self, decision: &Decision<'_>, outcome: Outcome<'s>) -> Blocked<'s> {
        let list = decision.list;
        let ede = self.manners[usize::from(list)].ede;
        Blocked { list, ede, outcome }
    }

    /// What the client gets instead of the world's answer; `None` when it may have that.
    #[inline]
    fn outcome(
        &self,
        decision: &Decision<'_>,
        query: &Query<'_>,
        Subject { is_stream, now, .. }: Subject<'_>,
    ) -> Option<Outcome<'_>> {
        let manner = self.manners.get(usize::from(decision.list))?;
        Some(match decision.verb {
            Verb::Block => manner.own(query.qtype, now),
            Verb::Nxdomain => manner.nxdomain(now),
            Verb::Nodata => manner.nodata(now),
            Verb::Drop => Outcome::Drop,
            Verb::TcpOnly if is_stream => return None,
            Verb::TcpOnly => Outcome::Truncate,
            Verb::Local => manner.local(decision, query, now),
            Verb::Allow => return None,
        })
    }
}

/// Whether `answer` leads from the name that `query` asks for to others.
#[inline]
pub(super) fn leads_on(query: &Query<'_>, answer: &Answer<'_>) -> bool {
    answer.first_type().is_some_and(|first| {
        first != query.qtype
            || matches!(first, Rtype::CNAME | Rtype::NS | Rtype::SVCB | Rtype::HTTPS)
    })
}

/// Where `record`, in an answer about `qname`, leads as an alias or to a service; in lower case.
pub(super) fn target_of(record: &AnswerRecord<'_>, qname: Name<'_>) -> Option<NameBuf> {
    match record.rtype {
        Rtype::CNAME => name_in(record, qname),
        Rtype::SVCB | Rtype::HTTPS => {
            let mut target = NameBuf::new(parts::service_target(record.rdata)?);
            target.make_lower();
            Some(target)
        }
        _ => None,
    }
}

/// The name that is the data of `record`, in lower case.
fn name_in(record: &AnswerRecord<'_>, qname: Name<'_>) -> Option<NameBuf> {
    let mut name = record.name_in(qname)?;
    name.make_lower();
    Some(name)
}

/// The addresses that a record leads to.
fn addresses(rtype: Rtype, rdata: &[u8]) -> impl Iterator<Item = IpAddr> {
    let own = matches!(rtype, Rtype::A | Rtype::AAAA).then(|| parts::address(rdata)).flatten();
    let is_service = matches!(rtype, Rtype::SVCB | Rtype::HTTPS);
    own.into_iter().chain(parts::hints(if is_service { rdata } else { &[] }))
}

/// Of two decisions over addresses the one that counts: of equals that of the longer prefix.
fn first_of<'a>(held: Option<Decision<'a>>, found: Option<Decision<'a>>) -> Option<Decision<'a>> {
    match (held, found) {
        (Some(held), Some(found)) => {
            let is_equal = !held.outranks(&found) && !found.outranks(&held);
            let is_nearer = is_equal && found.owner_at < held.owner_at;
            Some(if found.outranks(&held) || is_nearer { found } else { held })
        }
        (held, found) => held.or(found),
    }
}

#[cfg(test)]
mod tests;
