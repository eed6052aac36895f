//! Hot path. From an answer to the bytes of one client's reply; hits, misses, local data and refusals all pass here.

use super::answer::{Client, Verdict};
use crate::config;
use crate::observe::{ServingCounters, Transport};
use crate::time::Now;
use crate::wire::patch::{self, Aging, Framing};
use crate::wire::{
    Answer, CLASSIC_UDP_BYTES, Ede, Flags, HEADER_BYTES, Header, MESSAGE_BYTES_MAX, Malformed,
    Query, Rcode,
};

/// TTL of stale answers, in seconds (RFC 8767 §4).
pub(super) const STALE_TTL: u32 = 30;

/// What those are told who get an answer past its lifetime.
const PAST_LIFETIME: &str = "past its lifetime: no upstream has answered yet";

/// How large replies may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    udp_bytes_max: u16,
}

impl Limits {
    pub(super) const fn new(udp: &config::Udp) -> Self {
        Self { udp_bytes_max: udp.reply_bytes_max }
    }

    /// Longest reply to `query` over `transport`, in bytes (RFC 6891 §6.2.3 to §6.2.5).
    fn bytes(self, query: &Query<'_>, transport: Transport) -> usize {
        match (transport, query.edns) {
            (Transport::Tcp, _) => MESSAGE_BYTES_MAX,
            (Transport::Udp, None) => CLASSIC_UDP_BYTES.min(self.udp_bytes_max).into(),
            (Transport::Udp, Some(edns)) => {
                edns.payload_bytes.max(CLASSIC_UDP_BYTES).min(self.udp_bytes_max).into()
            }
        }
    }
}

/// A reply about to be written.
#[derive(Clone, Copy)]
pub(super) struct Reply<'a, 'm> {
    pub(super) query: &'a Query<'m>,
    pub(super) client: Client,
    pub(super) limits: Limits,
}

/// How old the answer is that a client gets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Age {
    /// It counts; with this said beside it.
    Fresh(Option<Ede>),
    /// Past its lifetime.
    Stale,
}

impl Age {
    /// What is said beside `answer`.
    pub(super) const fn ede(self, answer: &Answer<'_>) -> Option<Ede> {
        match self {
            Self::Fresh(own) => own,
            Self::Stale => Some(stale_ede(answer)),
        }
    }

    /// The same, with `ede` where nothing is said.
    pub(super) fn or_ede(self, ede: Option<Ede>) -> Self {
        match self {
            Self::Fresh(own) => Self::Fresh(own.or(ede)),
            Self::Stale => Self::Stale,
        }
    }
}

impl Reply<'_, '_> {
    /// Writes `answer` as [`Reply::write`] or [`Reply::write_stale`].
    pub(super) fn tell(
        self,
        answer: &Answer<'_>,
        age: Age,
        now: Now,
        counters: &ServingCounters,
        out: &mut [u8],
    ) -> Verdict {
        match age {
            Age::Fresh(ede) => self.write(answer, ede, now, counters, out),
            Age::Stale => self.write_stale(answer, counters, out),
        }
    }

    /// Writes `answer` into `out` and counts it.
    #[inline]
    pub(super) fn write(
        self,
        answer: &Answer<'_>,
        ede: Option<Ede>,
        now: Now,
        counters: &ServingCounters,
        out: &mut [u8],
    ) -> Verdict {
        let aging = Aging::By(now.cache.seconds_since(answer.stored));
        self.write_aged(answer, aging, ede, counters, out)
    }

    /// As [`Reply::write`], for an answer past its lifetime, and says so.
    pub(super) fn write_stale(
        self,
        answer: &Answer<'_>,
        counters: &ServingCounters,
        out: &mut [u8],
    ) -> Verdict {
        counters.stale.bump();
        let ede = Some(stale_ede(answer));
        self.write_aged(answer, Aging::To(STALE_TTL), ede, counters, out)
    }

    #[inline]
    fn write_aged(
        self,
        answer: &Answer<'_>,
        aging: Aging,
        ede: Option<Ede>,
        counters: &ServingCounters,
        out: &mut [u8],
    ) -> Verdict {
        let framing = Framing {
            limit: self.limits.bytes(self.query, self.client.transport),
            payload_bytes: self.limits.udp_bytes_max,
            ede,
        };
        let Some(len) = patch::reply(self.query, answer, aging, framing, out) else {
            counters.dropped.bump();
            return Verdict::Drop;
        };
        counters.response(answer.shape.rcode);
        if Header::read(out).is_some_and(|header| header.flags.has(Flags::TC)) {
            counters.truncated.bump();
        }
        Verdict::Reply(len)
    }
}

/// What those are told who get `answer` past its lifetime (RFC 8914 §4.4, §4.20).
pub(super) const fn stale_ede(answer: &Answer<'_>) -> Ede {
    match answer.shape.rcode {
        Rcode::NXDOMAIN => Ede::STALE_NXDOMAIN,
        _ => Ede::STALE_ANSWER,
    }
    .with_text(PAST_LIFETIME)
}

/// Answers what is no query: FORMERR where a header can be trusted, NOTIMP for other opcodes, else silence. Strangers are
/// refused before anything is said about their message.
pub(super) fn reject(
    malformed: Malformed,
    message: &[u8],
    is_served: bool,
    counters: &ServingCounters,
    out: &mut [u8],
) -> Verdict {
    counters.fault(malformed);
    let rcode = match malformed {
        Malformed::Short | Malformed::Response => None,
        _ if !is_served => Some(Rcode::REFUSED),
        Malformed::Opcode(_) => Some(Rcode::NOTIMP),
        Malformed::Truncated
        | Malformed::QuestionCount(_)
        | Malformed::RecordCount
        | Malformed::Name(_)
        | Malformed::Question
        | Malformed::Record
        | Malformed::TwoOpts
        | Malformed::Opt(_)
        | Malformed::TrailingBytes => Some(Rcode::FORMERR),
    };
    let header = Header::read(message.get(..HEADER_BYTES).unwrap_or_default());
    let (Some(rcode), Some(header)) = (rcode, header) else {
        counters.dropped.bump();
        return Verdict::Drop;
    };
    match patch::bare(header.id, header.flags, rcode, out) {
        Some(len) => {
            counters.response(rcode);
            Verdict::Reply(len)
        }
        None => Verdict::Drop,
    }
}
