//! Hot path. The flight recorder of one core: what it decided last, in memory that is set aside at the start.
//!
//! Plain hits are noted by samples, because they are many and alike, refusals so many a second and beyond that by samples, because
//! strangers can have as many as they like; everything else always. Who is noted overwrites the oldest.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};

use super::log::How;
use super::{Sampling, Transport};
use crate::time::CacheTime;
use crate::wire::Ede;
use crate::wire::name::NAME_BYTES_MAX;

/// Decisions that one step of a reader looks at: some ten microseconds.
pub const STEP: usize = 256;

/// Refusals of a second that are noted whatever else there is: a flood of them takes minutes to push out all else.
const REFUSALS_MAX: u32 = 4;

/// Who was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Via {
    /// The upstream.
    pub address: SocketAddr,
    /// How it is spoken to.
    pub protocol: &'static str,
}

/// What became of one query.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decision<'a> {
    /// When it came.
    pub time: CacheTime,
    /// How long the answer took, in microseconds; `None` when it was there within the batch.
    pub latency_us: Option<u32>,
    /// The client.
    pub address: IpAddr,
    /// The listener that it asked: the index in `config::Node::listen`.
    pub listener: u16,
    /// How the query came.
    pub transport: Transport,
    /// What the operator calls the client's group.
    pub group: Option<&'static str>,
    /// Where the answer came from.
    pub how: How,
    /// The list that decided it.
    pub list: Option<&'static str>,
    /// The RCODE; `None` without a reply.
    pub rcode: Option<u16>,
    /// What the client was told beside the answer, or would have been if it spoke EDNS.
    pub ede: Option<Ede>,
    /// The upstream that answered or failed last.
    pub via: Option<Via>,
    /// The name asked for, in wire form as the client wrote it.
    pub qname: &'a [u8],
    /// The type asked for.
    pub qtype: u16,
}

/// A decision and its name.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Without its name.
    decision: Decision<'static>,
    name: [u8; NAME_BYTES_MAX],
    name_len: u8,
}

/// Bytes that so many decisions take.
#[must_use]
pub const fn bytes(count: usize) -> usize {
    count * size_of::<Slot>()
}

/// The last decisions of one core.
#[derive(Debug)]
pub struct Decisions {
    slots: RefCell<Box<[Slot]>>,
    /// How many there have been.
    noted: Cell<u64>,
    sampling: Sampling,
    /// The second of the last refusal, and how many there have been in it.
    refusals: Cell<(u64, u32)>,
}

impl Decisions {
    /// Room for the last `count` of the core with this number; with 0 nothing is noted.
    #[must_use]
    pub fn new(count: usize, core: usize) -> Self {
        const EMPTY: Slot = Slot {
            decision: Decision {
                time: CacheTime::from_millis(0),
                latency_us: None,
                address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
                listener: 0,
                transport: Transport::Udp,
                group: None,
                how: How::Cache,
                list: None,
                rcode: None,
                ede: None,
                via: None,
                qname: &[],
                qtype: 0,
            },
            name: [0; NAME_BYTES_MAX],
            name_len: 0,
        };
        let slots = RefCell::new(vec![EMPTY; count].into_boxed_slice());
        let sampling = Sampling::new(u32::try_from(core).unwrap_or(u32::MAX));
        Self { slots, noted: Cell::new(0), sampling, refusals: Cell::default() }
    }

    /// Whether the plain hit at hand is one of those that are noted; to be asked once for each.
    #[inline]
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.sampling.is_due()
    }

    /// Whether the refusal at hand is noted; to be asked once for each.
    #[must_use]
    pub fn is_refusal_due(&self, at: CacheTime) -> bool {
        let second = at.as_millis() / 1_000;
        let (last, count) = self.refusals.get();
        let count = if second == last { count } else { 0 };
        self.refusals.set((second, count.saturating_add(1)));
        count < REFUSALS_MAX || self.sampling.is_due()
    }

    /// Notes `decision` in the place of the oldest.
    pub fn note(&self, decision: &Decision<'_>) {
        let mut slots = self.slots.borrow_mut();
        let noted = self.noted.get();
        let count = slots.len() as u64;
        let Some(place) = noted.checked_rem(count) else { return };
        let Some(slot) = usize::try_from(place).ok().and_then(|place| slots.get_mut(place)) else {
            return;
        };
        let qname = decision.qname.get(..NAME_BYTES_MAX).unwrap_or(decision.qname);
        slot.decision = Decision { qname: &[], ..*decision };
        slot.name[..qname.len()].copy_from_slice(qname);
        slot.name_len = u8::try_from(qname.len()).unwrap_or(u8::MAX);
        self.noted.set(noted + 1);
    }

    /// How many have been noted so far: what [`Decisions::visit`] begins with.
    #[must_use]
    pub const fn noted(&self) -> u64 {
        self.noted.get()
    }

    /// Shows `visit` up to [`STEP`] of those that were noted before the one with the number `before`, the newest first; gives
    /// where to go on, `None` at the oldest.
    pub fn visit(&self, before: u64, mut visit: impl FnMut(Decision<'_>)) -> Option<u64> {
        let slots = self.slots.borrow();
        let count = slots.len() as u64;
        let oldest = self.noted.get().saturating_sub(count);
        let first = before.saturating_sub(STEP as u64).max(oldest);
        for number in (first..before.min(self.noted.get())).rev() {
            let place = usize::try_from(number % count).unwrap_or_default();
            let Slot { decision, name, name_len } = &slots[place];
            visit(Decision { qname: &name[..usize::from(*name_len)], ..*decision });
        }
        Some(first).filter(|&first| first > oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECISION: Decision<'_> = Decision {
        time: CacheTime::from_millis(1),
        latency_us: Some(7),
        address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        listener: 1,
        transport: Transport::Tcp,
        group: Some("kids"),
        how: How::Blocked,
        list: Some("ads"),
        rcode: Some(3),
        ede: Some(Ede::BLOCKED.with_text("ads")),
        via: None,
        qname: b"\x01a\0",
        qtype: 28,
    };

    fn seen(decisions: &Decisions) -> Vec<u64> {
        let (mut seen, mut before) = (Vec::new(), Some(decisions.noted()));
        while let Some(at) = before {
            before = decisions.visit(at, |decision| {
                assert_eq!(Decision { time: DECISION.time, ..decision }, DECISION);
                seen.push(decision.time.as_millis());
            });
        }
        seen
    }

    #[test]
    fn last_decisions_are_kept_newest_first() {
        let decisions = Decisions::new(3 * STEP + 1, 0);
        assert_eq!(seen(&decisions), Vec::<u64>::new());
        for (noted, expected) in [(1, 1), (2, 2), (5_000, 3 * STEP as u64 + 1)] {
            while decisions.noted() < noted {
                let time = CacheTime::from_millis(decisions.noted());
                decisions.note(&Decision { time, ..DECISION });
            }
            let newest = noted - expected..noted;
            assert_eq!(seen(&decisions), newest.rev().collect::<Vec<_>>());
        }
    }

    #[test]
    fn flood_of_refusals_is_noted_by_samples() {
        let decisions = Decisions::new(1, 0);
        let due = |second: u64| {
            let at = CacheTime::from_millis(second * 1_000);
            (0..6_400).filter(|_| decisions.is_refusal_due(at)).count()
        };
        for second in [0, 1, 1_000] {
            // One in 64 beside those that always are.
            assert!((50..200).contains(&due(second)), "{second}");
        }
        let next = CacheTime::from_millis(2_000_000);
        let first: Vec<bool> = (0..4).map(|_| decisions.is_refusal_due(next)).collect();
        assert_eq!(first, [true; 4]);
    }

    #[test]
    fn what_was_overwritten_meanwhile_is_not_shown() {
        let decisions = Decisions::new(2 * STEP, 0);
        (0..2 * STEP).for_each(|_| decisions.note(&DECISION));
        let next = decisions.visit(decisions.noted(), |_| {}).unwrap();
        (0..2 * STEP).for_each(|_| decisions.note(&DECISION));
        assert_eq!(decisions.visit(next, |_| panic!("it is gone")), None);
    }

    #[test]
    fn longest_name_fits_and_no_room_means_no_notes() {
        let name = [b'a'; NAME_BYTES_MAX];
        let decisions = Decisions::new(1, 0);
        decisions.note(&Decision { qname: &name, ..DECISION });
        let mut len = 0;
        assert_eq!(decisions.visit(1, |decision| len = decision.qname.len()), None);
        assert_eq!(len, NAME_BYTES_MAX);
        let none = Decisions::new(0, 0);
        none.note(&DECISION);
        assert_eq!((none.noted(), none.visit(0, |_| panic!())), (0, None));
        // As the documents have it.
        assert_eq!((bytes(0), bytes(1)), (0, 424));
    }
}
