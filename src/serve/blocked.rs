//! What those get who ask for what a list blocks.

use super::answer::Verdict;
use super::reply::Reply;
use crate::observe::ServingCounters;
use crate::policy::{Blocked, Detour, Outcome};
use crate::time::Now;
use crate::wire::{Answer, AnswerBuf, Ede, Flags, Rcode};

/// Why there is no reply yet: the client is to get what another name has.
#[derive(Debug)]
pub(super) struct Elsewhere {
    pub(super) detour: Box<Detour>,
    pub(super) ede: Option<Ede>,
    /// The list that wants it so.
    pub(super) list: Option<u8>,
}

impl Reply<'_, '_> {
    /// Writes what a list wants the client to get, and counts it.
    ///
    /// # Errors
    /// [`Elsewhere`] when the name that the client is to be led to has to be looked up first.
    #[inline]
    pub(super) fn write_blocked(
        self,
        blocked: Blocked<'_>,
        now: Now,
        counters: &ServingCounters,
        out: &mut [u8],
    ) -> Result<Verdict, Elsewhere> {
        counters.blocked.bump();
        let ede = Some(blocked.ede);
        let write = |answer: &Answer<'_>, out| Ok(self.write(answer, ede, now, counters, out));
        match blocked.outcome {
            Outcome::Answer(answer) => write(&answer, out),
            Outcome::Made(answer) => write(&answer.view(now.cache), out),
            Outcome::Refuse => write(&AnswerBuf::empty(Rcode::REFUSED).view(now.cache), out),
            Outcome::Truncate => Ok(self.write_cut(ede, now, counters, out)),
            Outcome::Drop => {
                counters.dropped.bump();
                Ok(Verdict::Drop)
            }
            Outcome::Follow(detour) => Err(Elsewhere { detour, ede, list: Some(blocked.list) }),
        }
    }

    /// Writes an empty reply with TC: no larger than the query but for OPT.
    pub(super) fn write_cut(
        self,
        ede: Option<Ede>,
        now: Now,
        counters: &ServingCounters,
        out: &mut [u8],
    ) -> Verdict {
        let mut cut = AnswerBuf::empty(Rcode::NOERROR);
        cut.shape.flags = Flags::TC;
        self.write(&cut.view(now.cache), ede, now, counters, out)
    }
}
