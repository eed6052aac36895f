//! What those get who ask for a blocked name: made ready for each list, or out of the records that a rule brings.

use std::net::IpAddr;

use super::detour::Detour;
use super::filter::{Decision, LocalRecord};
use super::interned::interned;
use crate::config::{self, ListAnswer, ListReason};
use crate::time::CacheTime;
use crate::wire::answer::AnswerBuilder;
use crate::wire::encode::Full;
use crate::wire::{Answer, AnswerBuf, Class, Ede, Flags, Name, Query, Rcode, Rtype};

/// A question that a list objects to.
#[derive(Debug)]
pub struct Blocked<'a> {
    /// The number of the list.
    pub list: u8,
    /// What the client is told beside the answer: the list's name.
    pub ede: Ede,
    /// What the client gets.
    pub outcome: Outcome<'a>,
}

/// What becomes of a question that a list objects to.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// This answer, which the list has ready.
    Answer(Answer<'a>),
    /// This answer, made for the question.
    Made(Box<AnswerBuf>),
    /// What another name has.
    Follow(Box<Detour>),
    /// REFUSED.
    Refuse,
    /// No reply at all.
    Drop,
    /// An empty reply with TC.
    Truncate,
}

/// What one list has ready.
#[derive(Debug)]
pub(super) struct Manner {
    /// What the operator calls it.
    pub(super) name: &'static str,
    pub(super) ede: Ede,
    /// For A, AAAA and all other types.
    own: [Ready; 3],
    nxdomain: AnswerBuf,
    nodata: AnswerBuf,
}

/// One ready answer.
#[derive(Debug)]
enum Ready {
    Answer(AnswerBuf),
    Follow(Box<Detour>),
    Refuse,
}

impl Manner {
    /// Makes ready what `list` answers.
    pub(super) fn new(list: &config::List) -> Self {
        let name = interned(&list.name);
        let ede = match list.reason {
            ListReason::Blocked => Ede::BLOCKED,
            ListReason::Filtered => Ede::FILTERED,
        };
        let negative = |rcode| negative(rcode, list.ttl).expect("an empty message has room");
        let ready = |rtype| ready(list, rtype).expect("an empty message has room");
        Self {
            name,
            ede: ede.with_text(name),
            own: [Rtype::A, Rtype::AAAA, Rtype(0)].map(ready),
            nxdomain: negative(Rcode::NXDOMAIN),
            nodata: negative(Rcode::NOERROR),
        }
    }

    /// What the list's own answer to `qtype` is.
    #[inline]
    pub(super) fn own(&self, qtype: Rtype, now: CacheTime) -> Outcome<'_> {
        let place = match qtype {
            Rtype::A => 0,
            Rtype::AAAA => 1,
            _ => 2,
        };
        match &self.own[place] {
            Ready::Answer(answer) => Outcome::Answer(answer.view(now)),
            Ready::Follow(detour) => Outcome::Follow(detour.clone()),
            Ready::Refuse => Outcome::Refuse,
        }
    }

    pub(super) fn nxdomain(&self, now: CacheTime) -> Outcome<'_> {
        Outcome::Answer(self.nxdomain.view(now))
    }

    pub(super) fn nodata(&self, now: CacheTime) -> Outcome<'_> {
        Outcome::Answer(self.nodata.view(now))
    }

    /// The answer out of the records of `decision`: those of the type asked for, else where an alias leads, else nothing.
    #[cold]
    pub(super) fn local(
        &self,
        decision: &Decision<'_>,
        query: &Query<'_>,
        now: CacheTime,
    ) -> Outcome<'_> {
        let alias = decision.records().find(|record| record.rtype == Rtype::CNAME);
        let made = match alias {
            Some(alias) if query.qtype != Rtype::CNAME => follow(&alias, query.qname),
            _ => made(decision.records(), query),
        };
        made.unwrap_or_else(|| self.nodata(now))
    }
}

/// What is ready for questions of type `rtype`; 0 stands for all but addresses.
fn ready(list: &config::List, rtype: Rtype) -> Result<Ready, Full> {
    let addresses = |addresses: &[IpAddr]| {
        let mut builder = begin(Rcode::NOERROR)?;
        let mut is_empty = true;
        for address in addresses {
            let octets = match address {
                IpAddr::V4(v4) if rtype == Rtype::A => v4.octets().to_vec(),
                IpAddr::V6(v6) if rtype == Rtype::AAAA => v6.octets().to_vec(),
                _ => continue,
            };
            is_empty = false;
            builder.write_for_question(rtype, Class::IN, list.ttl, &octets)?;
        }
        if is_empty { negative(Rcode::NOERROR, list.ttl) } else { Ok(builder.finish()) }
    };
    const UNSPECIFIED: [IpAddr; 2] =
        [IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)];
    Ok(match &list.answer {
        ListAnswer::Nxdomain => Ready::Answer(negative(Rcode::NXDOMAIN, list.ttl)?),
        ListAnswer::Nodata => Ready::Answer(negative(Rcode::NOERROR, list.ttl)?),
        ListAnswer::ZeroIp => Ready::Answer(addresses(&UNSPECIFIED)?),
        ListAnswer::Addresses(own) => Ready::Answer(addresses(own)?),
        ListAnswer::Refused => Ready::Refuse,
        ListAnswer::Alias(target) => {
            Ready::Follow(Box::new(Detour::to(target.as_name(), list.ttl)?))
        }
    })
}

fn begin(rcode: Rcode) -> Result<AnswerBuilder, Full> {
    // It is for every name: all owners point to the question.
    let mut builder = AnswerBuilder::new(Name::ROOT, Rtype::A, Class::IN, rcode)?;
    builder.set_flags(Flags::AA);
    Ok(builder)
}

/// NXDOMAIN or NODATA with an SOA at the name asked for, so that it is kept for `ttl` seconds (RFC 2308 §5).
fn negative(rcode: Rcode, ttl: u32) -> Result<AnswerBuf, Full> {
    let mut builder = begin(rcode)?;
    builder.write_soa_for_question(ttl, &soa(ttl))?;
    Ok(builder.finish())
}

/// MNAME `.`, RNAME `nobody.invalid.`, serial and timers, and how long to keep a denial: there is no zone to be asked about.
pub(super) fn soa(minimum: u32) -> Vec<u8> {
    const FIXED: &[u8] =
        b"\0\x06nobody\x07invalid\0\0\0\0\x01\0\0\x0E\x10\0\0\x04\xB0\0\x09\x3A\x80";
    [FIXED, &minimum.to_be_bytes()].concat()
}

/// The way to where a rule's alias leads, if it leads anywhere.
fn follow(alias: &LocalRecord<'_>, qname: Name<'_>) -> Option<Outcome<'static>> {
    let detour = Detour::to(alias.target(qname)?.as_name(), alias.ttl).ok()?;
    Some(Outcome::Follow(Box::new(detour)))
}

/// The records of the type asked for, as an answer.
fn made<'r>(
    records: impl Iterator<Item = LocalRecord<'r>>,
    query: &Query<'_>,
) -> Option<Outcome<'static>> {
    let mut builder = begin(Rcode::NOERROR).ok()?;
    let mut is_empty = true;
    for record in records.filter(|record| record.rtype == query.qtype) {
        let LocalRecord { rtype, ttl, rdata } = record;
        builder.write_for_question(rtype, Class::IN, ttl, rdata).ok()?;
        is_empty = false;
    }
    (!is_empty).then(|| Outcome::Made(Box::new(builder.finish())))
}
