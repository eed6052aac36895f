//! Hot path. One local zone, compiled: ready answers for every name and type in it.

use std::collections::HashMap;

use ahash::RandomState;

use super::{Local, Wants};
use crate::policy::Detour;
use crate::time::CacheTime;
use crate::wire::{AnswerBuf, Name, Rtype};

/// What is answered for one owner.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) answers: Vec<(Rtype, Held)>,
    /// For all types not in `answers`, if it is not just NODATA.
    pub(super) others: Option<Held>,
    /// The owner is delegated: what those get who ask for something else than `answers`, there and below.
    pub(super) referral: Option<Referral>,
    /// Names below are led elsewhere.
    pub(super) is_dname: bool,
}

/// What is kept for a question.
#[derive(Debug)]
pub(super) enum Held {
    /// All of the answer.
    Answer(AnswerBuf),
    /// The way to a name that others know.
    Follow(Box<Beyond>),
}

/// An alias to a name that is not the operator's own.
#[derive(Debug)]
pub(super) struct Beyond {
    pub(super) detour: Detour,
    /// For those who do not want it followed, when that is not just the links.
    pub(super) alone: Option<Referral>,
}

/// What is said of names that are delegated, perhaps behind an alias.
#[derive(Debug)]
pub(super) struct Referral {
    /// To those who do not want DNSSEC.
    pub(super) plain: AnswerBuf,
    /// With the DS records, if the child has any (RFC 4035 §3.1.4).
    pub(super) signed: Option<AnswerBuf>,
}

impl Referral {
    /// The one that is wanted.
    pub(super) fn answer(&self, wants: Wants) -> &AnswerBuf {
        self.signed.as_ref().filter(|_| wants.dnssec).unwrap_or(&self.plain)
    }
}

/// What a zone has for a question.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// This.
    Held(&'a Held),
    /// This negative answer.
    Negative(&'a AnswerBuf),
    /// The name is delegated; those who ask without recursion get this.
    Referral(&'a Referral),
    /// The name lies below a DNAME.
    Redirected,
    /// It is for the parent to say.
    Parent,
}

impl Beyond {
    /// What a client gets.
    pub(super) fn local(&self, wants: Wants, now: CacheTime) -> Local<'_> {
        if wants.recursion {
            return Local::Follow(&self.detour);
        }
        let alone = self.alone.as_ref().map(|alone| alone.answer(wants));
        Local::Answer(alone.unwrap_or(&self.detour.links).view(now))
    }
}

impl Node {
    /// What is kept for `qtype`.
    #[inline]
    pub(super) fn held(&self, qtype: Rtype) -> Option<&Held> {
        let exact = self.answers.iter().find(|(rtype, _)| *rtype == qtype);
        exact.map(|(_, held)| held).or(self.others.as_ref())
    }
}

/// A compiled zone.
#[derive(Debug)]
pub(super) struct Zone {
    /// By folded owner. Empty non-terminals (RFC 4592 §2.2.2) have a node without answers; below cuts there is none.
    nodes: HashMap<Box<[u8]>, Node, RandomState>,
    nodata: AnswerBuf,
    /// For names that the zone lacks.
    missing: AnswerBuf,
    /// Whether DS records of the apex are asked of the parent.
    has_parent: bool,
}

impl Zone {
    /// A zone without names.
    pub(super) fn empty(nodata: AnswerBuf, missing: AnswerBuf, has_parent: bool) -> Self {
        Self { nodes: HashMap::default(), nodata, missing, has_parent }
    }

    pub(super) fn insert(&mut self, owner: Name<'_>, node: Node) {
        self.nodes.insert(owner.as_bytes().into(), node);
    }

    /// What there is for the folded `qname`, whose part from `apex_at` on is this zone's apex.
    pub(super) fn lookup(&self, qname: &[u8], apex_at: usize, qtype: Rtype) -> Found<'_> {
        if self.has_parent && qtype == Rtype::DS && apex_at == 0 {
            return Found::Parent;
        }
        if let Some(node) = self.nodes.get(qname) {
            return self.at(node, qtype);
        }
        let mut at = 0;
        while at < apex_at {
            at += 1 + usize::from(qname[at]);
            let Some(encloser) = self.nodes.get(&qname[at..]) else { continue };
            if let Some(referral) = &encloser.referral {
                return Found::Referral(referral);
            }
            if encloser.is_dname {
                return Found::Redirected;
            }
            // The closest encloser's wildcard, or nothing (RFC 4592 §3.3.1).
            let mut wildcard = [0; 257];
            let len = 2 + qname.len() - at;
            wildcard[..2].copy_from_slice(b"\x01*");
            wildcard[2..len].copy_from_slice(&qname[at..]);
            let node = self.nodes.get(&wildcard[..len]);
            return node.map_or(Found::Negative(&self.missing), |node| self.at(node, qtype));
        }
        Found::Negative(&self.missing)
    }

    /// The DS records of the folded `name`, if it is delegated here.
    pub(super) fn ds(&self, name: &[u8]) -> Option<&Held> {
        let node = self.nodes.get(name).filter(|node| node.referral.is_some())?;
        node.held(Rtype::DS)
    }

    fn at<'a>(&'a self, node: &'a Node, qtype: Rtype) -> Found<'a> {
        match (node.held(qtype), &node.referral) {
            (Some(held), _) => Found::Held(held),
            (None, Some(referral)) => Found::Referral(referral),
            (None, None) => Found::Negative(&self.nodata),
        }
    }
}

#[cfg(test)]
mod authority_tests;
#[cfg(test)]
mod tests;
