//! Which rule of which list says what of a name, or of a part of an answer, for people. Asks the same matcher as serving does,
//! list by list.

use std::net::IpAddr;

use super::{Asker, Decision, Filtering, Lists, Subject, Verb};
use crate::policy::filter::{Reach, Trigger};
use crate::wire::{Answer, Name, Query, Rtype};

/// What one list says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listed {
    /// The number of the list.
    pub list: u8,
    /// What is to happen.
    pub verb: Verb,
    /// Whether the rule is important.
    pub is_important: bool,
    /// Which names the rule covers, seen from its owner.
    pub reach: Reach,
    /// What the owner is compared with.
    pub trigger: Trigger,
    /// Where the owner begins in the name.
    pub owner_at: usize,
    /// Whether the list counts now for the client's group.
    pub is_in_force: bool,
}

/// A part of an answer that lists have an opinion of.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Where an alias, or a service, leads; or a server of the zone.
    Name(Name<'a>),
    /// An address.
    Address(IpAddr),
}

impl Filtering {
    /// The rule that decides over `qtype` at the name that is `folded`, and what the other lists say, those that count now
    /// before those that do not.
    #[must_use]
    pub fn explain(
        &self,
        folded: &[u8],
        qtype: Rtype,
        subject: Subject<'_>,
    ) -> (Option<Listed>, Vec<Listed>) {
        let asker = self.asker(qtype, subject);
        let in_force = *asker.lists;
        let deciding = self.decide(folded, qtype, subject).map(|it| Listed::of(&it, true));
        let numbers = (0..=u8::MAX).take(self.lists.len());
        let of_one = |number| {
            let lists = Lists::from_iter([number]);
            let asker = Asker { lists: &lists, ..asker };
            let decision = self.decide_for(self.matcher(subject), folded, &asker)?;
            Some(Listed::of(&decision, in_force.contains(number)))
        };
        let is_other = |it: &Listed| deciding.is_none_or(|deciding| deciding.list != it.list);
        let mut others: Vec<Listed> = numbers.filter_map(of_one).filter(is_other).collect();
        others.sort_by_key(|it| !it.is_in_force);
        (deciding, others)
    }

    /// Tells `note` of the parts of `answer` that lists have an opinion of, in the order in which they are looked at.
    pub fn explain_objection(
        &self,
        query: &Query<'_>,
        answer: &Answer<'_>,
        subject: Subject<'_>,
        mut note: impl FnMut(Part<'_>, Listed),
    ) {
        if self.may_object(query, answer) {
            let note = |part: Part<'_>, it: &Decision<'_>| note(part, Listed::of(it, true));
            let _ = self.object_to_parts(query, answer, subject, None, note);
        }
    }

    /// The lists that count now for the clients of `group`, by number.
    #[must_use]
    pub fn in_force(&self, group: u8) -> Lists {
        *self.asked.get(usize::from(group)).unwrap_or(&self.asked[0])
    }
}

impl Listed {
    fn of(decision: &Decision<'_>, is_in_force: bool) -> Self {
        let Decision { list, verb, is_important, reach, owner_at, .. } = *decision;
        let trigger = decision.trigger();
        Self { list, verb, is_important, reach, trigger, owner_at, is_in_force }
    }
}
