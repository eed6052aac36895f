//! What is true of each name of a simulated world, and whether an answer says just that.
//!
//! The truth follows from the name alone, so nobody has to keep it: `w7.alias.example.` has an alias, `w7.large.example.` more
//! data than a datagram takes. What forgers and liars say stands in no truth: see [`FORGED`].

use super::message::Rr;
use super::trace::Trace;
use crate::wire::response::Section;
use crate::wire::{
    AnswerBuf, Class, Encoder, Flags, Header, MESSAGE_BYTES_MAX, Name, NameBuf, Rcode, Response,
    Rtype,
};

/// The address that forgers and liars give. No name truly has it (RFC 5737 §3).
pub(super) const FORGED: [u8; 4] = [203, 0, 113, 66];

/// The zone that has upstreams of its own.
pub(super) const CORP: &str = "corp.example.";

/// How long all true records live, in seconds.
const TTL: u32 = 300;

/// Octets of a large answer's text strings: eight of them are more than our payload size.
const STRING_BYTES: u8 = 200;

/// What a name has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// One address.
    Address,
    /// One to three aliases, and an address at their end.
    Alias,
    /// It does not exist.
    Missing,
    /// It exists, without what is asked for.
    Empty,
    /// Text that does not fit into a datagram.
    Large,
}

impl Kind {
    /// All kinds.
    pub(super) const ALL: [Self; 5] =
        [Self::Address, Self::Alias, Self::Missing, Self::Empty, Self::Large];

    const fn label(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Alias => "alias",
            Self::Missing => "missing",
            Self::Empty => "empty",
            Self::Large => "large",
        }
    }

    /// The type to ask such a name for.
    #[must_use]
    pub(super) const fn qtype(self) -> Rtype {
        match self {
            Self::Large => Rtype::TXT,
            Self::Address | Self::Alias | Self::Missing | Self::Empty => Rtype::A,
        }
    }

    fn of(name: Name<'_>) -> Self {
        let second = name.labels().nth(1).unwrap_or_default();
        let is_it = |kind: &Self| second.eq_ignore_ascii_case(kind.label().as_bytes());
        Self::ALL.into_iter().find(is_it).unwrap_or(Self::Address)
    }
}

/// The name with that number of a kind, within [`CORP`] or without.
#[must_use]
pub(super) fn name(number: usize, kind: Kind, is_corp: bool) -> NameBuf {
    let zone = if is_corp { CORP } else { "example." };
    // Clients spell names as they like.
    let letter = if number.is_multiple_of(3) { 'W' } else { 'w' };
    named(&format!("{letter}{number}.{}.{zone}", kind.label()))
}

/// Whether `name` lies in the zone that has upstreams of its own.
#[must_use]
pub(super) fn is_corp(name: Name<'_>) -> bool {
    name.is_within(named(CORP).as_name())
}

pub(super) fn named(text: &str) -> NameBuf {
    NameBuf::from_text(text).expect("the names of the simulation are names")
}

/// What is true.
#[derive(Debug)]
pub(super) struct Truth {
    /// Whether the name exists.
    pub(super) rcode: Rcode,
    /// The answer section.
    pub(super) answer: Vec<Rr>,
    /// The authority section: the SOA of what is not there.
    pub(super) authority: Vec<Rr>,
}

impl Truth {
    /// The truth about `qname` and `qtype`.
    #[must_use]
    pub(super) fn of(qname: Name<'_>, qtype: Rtype) -> Self {
        let mut lower = NameBuf::new(qname);
        lower.make_lower();
        let name = lower.as_name();
        let zone = if is_corp(name) { CORP } else { "example." };
        let true_is = |answer| Self { rcode: Rcode::NOERROR, answer, authority: Vec::new() };
        if qtype == Rtype::SOA {
            return true_is(vec![soa(lower)]);
        }
        let nothing = |rcode| Self { rcode, answer: Vec::new(), authority: vec![soa(named(zone))] };
        match Kind::of(name) {
            Kind::Missing => nothing(Rcode::NXDOMAIN),
            Kind::Empty => nothing(Rcode::NOERROR),
            Kind::Address => true_is(vec![address(lower)]),
            Kind::Large => true_is(vec![text(lower)]),
            Kind::Alias => true_is(aliases(lower, zone)),
        }
    }

    /// Why `answer` is not the whole truth about the question and nothing but it.
    #[must_use]
    pub(super) fn belies(
        &self,
        answer: &AnswerBuf,
        qname: Name<'_>,
        qtype: Rtype,
    ) -> Option<String> {
        let Some(message) = message(answer, qname, qtype) else {
            return Some("it does not fit into a message".to_owned());
        };
        let response = match Response::parse(&message) {
            Ok(response) => response,
            Err(error) => return Some(format!("it cannot be read: {error:?}")),
        };
        if answer.shape.rcode != self.rcode {
            return Some(format!("{:?} instead of {:?}", answer.shape.rcode, self.rcode));
        }
        let sections = [
            (Section::Answer, &self.answer),
            (Section::Authority, &self.authority),
            (Section::Additional, &Vec::new()),
        ];
        sections.into_iter().find_map(|(section, expected)| {
            let seen: Option<Vec<_>> =
                response.section(section).map(|record| Rr::read(&response, record)).collect();
            let is_same = seen.as_ref().is_some_and(|seen| Rr::are_same(seen, expected));
            (!is_same).then(|| format!("{section:?}: {seen:?} instead of {expected:?}"))
        })
    }
}

/// `answer` as a message of its own.
fn message(answer: &AnswerBuf, qname: Name<'_>, qtype: Rtype) -> Option<Vec<u8>> {
    let [answers, authorities, additional] = answer.shape.counts;
    let flags = Flags(Flags::QR | answer.shape.rcode.0 & 0x0F);
    let header = Header { id: 0, flags, counts: [1, answers, authorities, additional] };
    let mut encoder = Encoder::new(header, MESSAGE_BYTES_MAX);
    encoder.question(qname, qtype, Class::IN).ok()?;
    encoder.bytes(&answer.body).ok()?;
    Some(encoder.into_message())
}

fn hash(name: &NameBuf) -> u64 {
    let mut hash = Trace::default();
    hash.bytes(name.as_name().as_bytes());
    hash.value()
}

fn soa(owner: NameBuf) -> Rr {
    let mut rdata = vec![0, 0];
    for field in [1u32, 2, 3, 4, 60] {
        rdata.extend(field.to_be_bytes());
    }
    Rr { owner, rtype: Rtype::SOA, ttl: TTL, rdata }
}

fn address(owner: NameBuf) -> Rr {
    let [first, second, third, ..] = hash(&owner).to_be_bytes();
    Rr { owner, rtype: Rtype::A, ttl: TTL, rdata: vec![10, first, second, third] }
}

fn text(owner: NameBuf) -> Rr {
    let string = |octet: u8| [vec![STRING_BYTES], vec![octet; usize::from(STRING_BYTES)]].concat();
    let rdata = hash(&owner).to_be_bytes().into_iter().flat_map(string).collect();
    Rr { owner, rtype: Rtype::TXT, ttl: TTL, rdata }
}

fn aliases(first: NameBuf, zone: &str) -> Vec<Rr> {
    let hash = hash(&first);
    let mut records = Vec::new();
    let mut owner = first;
    for step in 0..=hash % 3 {
        let target = named(&format!("t{step}-{hash:x}.address.{zone}"));
        let rdata = target.as_name().as_bytes().to_vec();
        records.push(Rr { owner, rtype: Rtype::CNAME, ttl: TTL, rdata });
        owner = target;
    }
    records.push(address(owner));
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::resolve::exchange::{Form, Question, query};
    use crate::resolve::scrub;
    use crate::sim::message::Reply;

    fn scrubbed(kind: Kind, reply: impl FnOnce(&Truth) -> Reply) -> Option<String> {
        let name = name(5, kind, true);
        let question = Question {
            qname: name.as_name(),
            qtype: kind.qtype(),
            qclass: Class::IN,
            wants_dnssec: false,
            is_checking_disabled: false,
        };
        let truth = Truth::of(name.as_name(), kind.qtype());
        let asked = query(&question, Form { id: 1, edns: None }).unwrap();
        let message = reply(&truth).to(&asked);
        let answer = scrub::scrub(&message, &question, &config::Cache::default()).unwrap();
        truth.belies(&answer, name.as_name(), kind.qtype())
    }

    #[test]
    fn honest_answers_are_the_truth() {
        for kind in Kind::ALL {
            assert_eq!(scrubbed(kind, Reply::honest), None, "{kind:?}");
        }
    }

    #[test]
    fn forged_data_is_told_apart() {
        for kind in [Kind::Address, Kind::Alias, Kind::Missing, Kind::Empty, Kind::Large] {
            let name = name(5, kind, true);
            let said = scrubbed(kind, |_| Reply::forged(name.as_name(), kind.qtype()));
            assert!(said.is_some(), "{kind:?}");
        }
    }

    #[test]
    fn names_show_whose_they_are() {
        assert!(is_corp(name(1, Kind::Large, true).as_name()));
        assert!(!is_corp(name(1, Kind::Large, false).as_name()));
    }
}
