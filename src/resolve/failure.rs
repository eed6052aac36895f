//! Why a question got no answer, and what clients are told of it.

use super::scrub::Unusable;
use crate::wire::{Ede, Rcode};

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// No upstream answered in time.
    NobodyAnswered,
    /// There is no way to any upstream.
    Unreachable,
    /// Nothing could be sent: our own sockets or buffers were exhausted.
    Exhausted,
    /// It had to make room for newer questions.
    Displaced,
    /// An answer came back cut, and could not be had over a stream.
    Stream,
    /// An answer may have been forged, and could not be had over a stream.
    Doubtful,
    /// An upstream says SERVFAIL.
    Servfail,
    /// An upstream says REFUSED.
    Refused,
    /// An upstream says FORMERR, NOTIMP, YXDOMAIN or another code that is no answer.
    Code,
    /// An upstream gave a referral: it does not recurse.
    Lame,
    /// An upstream's answer was broken, or did not belong to the question.
    Unusable,
}

impl Failure {
    /// What clients are told (RFC 8914 §4.23, §4.24).
    #[must_use]
    pub const fn ede(self) -> Ede {
        let text = match self {
            Self::NobodyAnswered => {
                return Ede::NO_REACHABLE_AUTHORITY.with_text("no upstream answered in time");
            }
            Self::Unreachable => {
                return Ede::NO_REACHABLE_AUTHORITY.with_text("no upstream can be reached");
            }
            Self::Exhausted => "no room to ask upstream",
            Self::Displaced => "made room for newer questions",
            Self::Stream => "answer was cut and could not be had over TCP",
            Self::Doubtful => "answer may be forged and could not be had over TCP",
            Self::Servfail => "upstream says SERVFAIL",
            Self::Refused => "upstream says REFUSED",
            Self::Code => "upstream answers with an error code",
            Self::Lame => "upstream is not a recursive resolver",
            Self::Unusable => "upstream's answer is malformed",
        };
        Ede::NETWORK_ERROR.with_text(text)
    }
}

impl Failure {
    /// Whether this speaks against the upstream as a whole. Want of room is ours, and where only streams fail, small
    /// answers are as good as any.
    pub(super) const fn is_the_upstreams(self) -> bool {
        match self {
            Self::Servfail | Self::Refused | Self::Code | Self::Lame | Self::Unusable => true,
            Self::NobodyAnswered
            | Self::Unreachable
            | Self::Exhausted
            | Self::Displaced
            | Self::Stream
            | Self::Doubtful => false,
        }
    }

    /// Whether an upstream, or we, have had a say: then the silent ones need not be waited for until the deadline.
    pub(super) const fn is_known(self) -> bool {
        !matches!(self, Self::NobodyAnswered | Self::Unreachable)
    }

    /// Whether it failed for want of room here: that says nothing about the question.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Exhausted | Self::Displaced)
    }
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Rcode(Rcode::SERVFAIL) => Self::Servfail,
            Unusable::Rcode(Rcode::REFUSED) => Self::Refused,
            Unusable::Rcode(_) | Unusable::Edns => Self::Code,
            Unusable::Referral => Self::Lame,
            Unusable::Malformed(_)
            | Unusable::Truncated
            | Unusable::OtherQuestion
            | Unusable::AliasChain
            | Unusable::Contradiction
            | Unusable::Records => Self::Unusable,
        }
    }
}
