//! Hot path. A rule without its owner, as it lies in an image.

use super::layout::{RULE_BYTES, u32_at};
use super::rule::{Kind, Reach, Rule, Trigger, Verb};
use crate::wire::Rtype;

const REACH: u8 = 0b0000_0011;
const IMPORTANT: u8 = 0b0000_0100;
const ZONED: u8 = 0b0000_1000;
const NSDNAME: u8 = 0b0001_0000;
const CLIENT: u8 = 0b0010_0000;
const REWRITE: u8 = 0b0100_0000;
const CANCELS: u8 = 0b1000_0000;

/// Twenty octets that say everything but whom a rule is about.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct StoredRule {
    pub(super) list: u8,
    verb: u8,
    bits: u8,
    class: u8,
    /// Where among the extras; 0 for none.
    pub(super) types: u32,
    pub(super) clients: u32,
    pub(super) record: u32,
    pub(super) except: u32,
}

/// How high a rule ranks: 6 in an allow list; 5 rewrite to another name or to none, 4 to records; 3 important allowance; 2 important
/// block; 1 allowance; 0 block.
pub(super) const fn class(rule: &StoredRule) -> u8 {
    rule.class
}

impl StoredRule {
    pub(super) fn of(list: u8, kind: Kind, rule: &Rule<'_>) -> Self {
        let verb = if kind == Kind::Allow { Verb::Allow } else { rule.verb };
        let is_allow = verb == Verb::Allow;
        let is_rewrite = rule.is_rewrite && kind == Kind::Block;
        let to_records = rule.record.is_some_and(|record| record.rtype != Rtype::CNAME);
        let class = match (kind, is_rewrite, rule.is_important) {
            (Kind::Allow, _, _) => 6,
            (Kind::Block, true, _) => 5 - u8::from(to_records || verb == Verb::Nodata),
            (Kind::Block, false, true) => 2 + u8::from(is_allow),
            (Kind::Block, false, false) => u8::from(is_allow),
        };
        let mut bits = match rule.reach {
            Reach::Exact => 0,
            Reach::Below => 1,
            Reach::AtAndBelow => 2,
        };
        bits |= if rule.is_important { IMPORTANT } else { 0 };
        bits |= if rule.is_zoned { ZONED } else { 0 };
        bits |= match rule.trigger {
            Trigger::Qname => 0,
            Trigger::Nsdname => NSDNAME,
            Trigger::Client => CLIENT,
        };
        bits |= if is_rewrite { REWRITE } else { 0 };
        bits |= if rule.cancels { CANCELS } else { 0 };
        let verb = match verb {
            Verb::Block => 0,
            Verb::Allow => 1,
            Verb::Nxdomain => 2,
            Verb::Nodata => 3,
            Verb::Drop => 4,
            Verb::TcpOnly => 5,
            Verb::Local => 6,
        };
        Self { list, verb, bits, class, types: 0, clients: 0, record: 0, except: 0 }
    }

    pub(super) fn to_bytes(self) -> [u8; RULE_BYTES] {
        let mut bytes = [0; RULE_BYTES];
        bytes[..4].copy_from_slice(&[self.list, self.verb, self.bits, self.class]);
        for (target, number) in
            bytes[4..].chunks_exact_mut(4).zip([self.types, self.clients, self.record, self.except])
        {
            target.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    #[inline]
    pub(super) fn of_bytes(bytes: &[u8; RULE_BYTES]) -> Self {
        let [list, verb, bits, class, ..] = *bytes;
        Self {
            list,
            verb,
            bits,
            class,
            types: u32_at(bytes, 4),
            clients: u32_at(bytes, 8),
            record: u32_at(bytes, 12),
            except: u32_at(bytes, 16),
        }
    }

    /// Whether every field has a meaning.
    pub(super) const fn is_sound(&self) -> bool {
        self.verb <= 6
            && self.class <= 6
            && self.bits & REACH <= 2
            && self.bits & (NSDNAME | CLIENT) != NSDNAME | CLIENT
            && (self.record == 0 || self.has_record())
    }

    pub(super) const fn has_record(&self) -> bool {
        matches!(self.verb(), Verb::Local)
    }

    pub(super) const fn verb(&self) -> Verb {
        match self.verb {
            0 => Verb::Block,
            1 => Verb::Allow,
            2 => Verb::Nxdomain,
            3 => Verb::Nodata,
            4 => Verb::Drop,
            5 => Verb::TcpOnly,
            _ => Verb::Local,
        }
    }

    pub(super) const fn reach(&self) -> Reach {
        match self.bits & REACH {
            0 => Reach::Exact,
            1 => Reach::Below,
            _ => Reach::AtAndBelow,
        }
    }

    pub(super) const fn trigger(&self) -> Trigger {
        match self.bits & (NSDNAME | CLIENT) {
            0 => Trigger::Qname,
            NSDNAME => Trigger::Nsdname,
            _ => Trigger::Client,
        }
    }

    pub(super) const fn is_important(&self) -> bool {
        self.bits & IMPORTANT != 0
    }

    pub(super) const fn is_zoned(&self) -> bool {
        self.bits & ZONED != 0
    }

    pub(super) const fn is_rewrite(&self) -> bool {
        self.bits & REWRITE != 0
    }

    pub(super) const fn cancels(&self) -> bool {
        self.bits & CANCELS != 0
    }

    /// The rule without its list.
    pub(super) const fn in_any_list(&self) -> Self {
        Self { list: 0, ..*self }
    }

    /// The rule that this one takes back, in whatever list that stands; `None` if it takes none back.
    pub(super) const fn taken_back(&self) -> Option<Self> {
        let taken = Self { bits: self.bits & !CANCELS, ..self.in_any_list() };
        if self.cancels() { Some(taken) } else { None }
    }

    /// Whether both are one rule but for their records.
    pub(super) fn is_same_but_for_record(&self, other: &Self) -> bool {
        Self { record: 0, ..*self } == Self { record: 0, ..*other }
    }
}
