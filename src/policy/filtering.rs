//! Hot path. What lists say now: whose lists count for which group of clients, and what those get who ask for a blocked
//! name. Asked of each question, and of the names and addresses in its answer.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::filter::{Asker, Decision, Image, Lists, Matcher, Verb};
use super::outcome::{Blocked, Manner, Outcome};
use super::parts;
use crate::config;
use crate::time::CacheTime;
use crate::wire::{Answer, NameBuf, Query, Rtype};

/// The lists in force; immutable, shared by all cores, replaced as a whole.
#[derive(Debug)]
pub struct Filtering {
    image: Image<Bytes>,
    /// The lists of the image, by number.
    lists: Arc<[config::List]>,
    /// How each list answers, by its number.
    manners: Box<[Manner]>,
    /// Which lists count, by group.
    groups: Box<[Lists]>,
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
        Self { image, lists: lists.into(), manners, groups, watches_addresses }
    }

    /// The same lists, other sets of them in force.
    #[must_use]
    pub fn regrouped(&self, groups: Box<[Lists]>) -> Self {
        Self::new(Image::clone(&self.image), &self.lists, groups)
    }

    /// The lists that the image was made of, by number.
    #[must_use]
    pub fn lists(&self) -> &[config::List] {
        &self.lists
    }

    /// Which lists count now, by group.
    #[must_use]
    pub fn groups(&self) -> &[Lists] {
        &self.groups
    }

    /// What the operator calls the lists, by number.
    #[must_use]
    pub fn list_names(&self) -> Vec<&'static str> {
        self.manners.iter().map(|manner| manner.name).collect()
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
    /// whose question they did not allow).
    #[inline]
    #[must_use]
    pub fn object(
        &self,
        query: &Query<'_>,
        answer: &Answer<'_>,
        subject: Subject<'_>,
    ) -> Option<Blocked<'_>> {
        if self.may_object(query, answer) {
            self.object_to_parts(query, answer, subject)
        } else {
            None
        }
    }

    /// Whether there is something in `answer` that lists may object to.
    #[inline]
    #[must_use]
    pub fn may_object(&self, query: &Query<'_>, answer: &Answer<'_>) -> bool {
        answer.first_type().is_some_and(|first| {
            first != query.qtype
                || matches!(first, Rtype::CNAME | Rtype::NS | Rtype::SVCB | Rtype::HTTPS)
                || self.watches_addresses
        })
    }

    fn object_to_parts(
        &self,
        query: &Query<'_>,
        answer: &Answer<'_>,
        subject: Subject<'_>,
    ) -> Option<Blocked<'_>> {
        let (matcher, asker) = (self.matcher(subject), self.asker(query.qtype, subject));
        let mut addressed: Option<Decision<'_>> = None;
        for record in answer.records() {
            let target = match record.rtype {
                Rtype::CNAME | Rtype::NS => record.name_in(query.qname),
                Rtype::SVCB | Rtype::HTTPS => parts::service_target(record.rdata).map(NameBuf::new),
                _ => None,
            };
            if let Some(mut target) = target {
                target.make_lower();
                let folded = target.as_name().as_bytes();
                let decision = match record.rtype {
                    Rtype::NS => matcher.decide_nsdname(folded, &asker),
                    _ => matcher.decide(folded, &asker),
                };
                // What is allowed is so with everything behind it.
                if let Some(decision) = decision {
                    return self.objection_of(&decision, query, subject);
                }
            }
            if self.watches_addresses {
                for address in addresses(record.rtype, record.rdata) {
                    let found = matcher.decide_address(address, &asker);
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
        let lists = self.groups.get(usize::from(group)).unwrap_or(&self.groups[0]);
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
