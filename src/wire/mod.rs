//! What the bytes of a DNS message say. Leaf room: no I/O, no clock, no unsafe; hostile bytes never meet `[i]`.
//!
//! Reading: [`Query`] views a client's datagram, [`Response`] an upstream's message. Writing: [`Encoder`] builds answer
//! bodies with name compression, [`Answer`] is such a body at rest, [`patch`] turns it into one client's reply.
#![deny(clippy::indexing_slicing)]

pub mod answer;
pub mod case;
pub mod copied;
pub mod edns;
pub mod encode;
pub mod examine;
pub mod header;
pub mod name;
pub mod options;
pub mod patch;
pub mod query;
pub mod rdata;
pub mod reader;
pub mod response;
mod rtype;
mod simd;

pub use answer::{Answer, AnswerBuf};
pub use copied::CopiedQuery;
pub use edns::{Ede, Edns};
pub use encode::Encoder;
pub use header::{Flags, Header};
pub use name::{Name, NameBuf, NameError};
pub use query::{Malformed, Query, QueryBuf};
pub use response::{Record, Response, ResponseError};

/// Length of the fixed header (RFC 1035 §4.1.1).
pub const HEADER_BYTES: usize = 12;

/// Largest UDP message without EDNS (RFC 1035 §4.2.1).
pub const CLASSIC_UDP_BYTES: u16 = 512;

/// Largest DNS message: the TCP length prefix has 16 bits (RFC 1035 §4.2.2).
pub const MESSAGE_BYTES_MAX: usize = 65_535;

/// A resource record type (RFC 1035 §3.2.2). Unknown ones are as good as known ones (RFC 3597 §2).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Rtype(pub u16);

#[expect(missing_docs, reason = "the names are those of the IANA registry")]
impl Rtype {
    pub const A: Self = Self(1);
    pub const NS: Self = Self(2);
    pub const CNAME: Self = Self(5);
    pub const SOA: Self = Self(6);
    pub const PTR: Self = Self(12);
    pub const HINFO: Self = Self(13);
    pub const MX: Self = Self(15);
    pub const TXT: Self = Self(16);
    pub const AAAA: Self = Self(28);
    pub const SRV: Self = Self(33);
    pub const DNAME: Self = Self(39);
    pub const OPT: Self = Self(41);
    pub const DS: Self = Self(43);
    pub const RRSIG: Self = Self(46);
    pub const NSEC: Self = Self(47);
    pub const NSEC3: Self = Self(50);
    pub const SVCB: Self = Self(64);
    pub const HTTPS: Self = Self(65);
    pub const TKEY: Self = Self(249);
    pub const TSIG: Self = Self(250);
    pub const IXFR: Self = Self(251);
    pub const AXFR: Self = Self(252);
    pub const MAILB: Self = Self(253);
    pub const MAILA: Self = Self(254);
    pub const ANY: Self = Self(255);
}

/// A class (RFC 1035 §3.2.4).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Class(pub u16);

#[expect(missing_docs, reason = "the names are those of the IANA registry")]
impl Class {
    pub const IN: Self = Self(1);
    pub const CH: Self = Self(3);
    pub const ANY: Self = Self(255);
}

/// A response code of up to 12 bits: four in the header, eight in the OPT record (RFC 6891 §6.1.3).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Rcode(pub u16);

#[expect(missing_docs, reason = "the names are those of the IANA registry")]
impl Rcode {
    pub const NOERROR: Self = Self(0);
    pub const FORMERR: Self = Self(1);
    pub const SERVFAIL: Self = Self(2);
    pub const NXDOMAIN: Self = Self(3);
    pub const NOTIMP: Self = Self(4);
    pub const REFUSED: Self = Self(5);
    pub const YXDOMAIN: Self = Self(6);
    pub const BADVERS: Self = Self(16);
    pub const BADCOOKIE: Self = Self(23);
}

impl Rcode {
    /// The highest one there can be.
    pub const MAX: Self = Self(0x0FFF);

    /// The one of this mnemonic, or of `RCODE` with a number, in either case.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let known = [
            Self::NOERROR,
            Self::FORMERR,
            Self::SERVFAIL,
            Self::NXDOMAIN,
            Self::NOTIMP,
            Self::REFUSED,
            Self::YXDOMAIN,
            Self::BADVERS,
        ];
        let upper = text.to_ascii_uppercase();
        let number = || {
            let digits = upper.strip_prefix("RCODE")?;
            let is_number =
                !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit());
            let number = digits.parse().ok().filter(|_| is_number)?;
            Some(Self(number)).filter(|rcode| rcode.0 <= Self::MAX.0)
        };
        known.into_iter().find(|rcode| rcode.mnemonic() == upper).or_else(number)
    }

    /// The four bits that stand in the header.
    #[must_use]
    pub const fn header_bits(self) -> u8 {
        (self.0 & 0x0F) as u8
    }

    /// The eight bits that stand in the OPT record.
    #[must_use]
    pub const fn extended_bits(self) -> u8 {
        (self.0 >> 4 & 0xFF) as u8
    }

    /// The registry's mnemonic; `OTHER` for codes that a resolver never sends.
    #[must_use]
    pub const fn mnemonic(self) -> &'static str {
        match self {
            Self::NOERROR => "NOERROR",
            Self::FORMERR => "FORMERR",
            Self::SERVFAIL => "SERVFAIL",
            Self::NXDOMAIN => "NXDOMAIN",
            Self::NOTIMP => "NOTIMP",
            Self::REFUSED => "REFUSED",
            Self::YXDOMAIN => "YXDOMAIN",
            Self::BADVERS => "BADVERS",
            _ => "OTHER",
        }
    }
}

/// The mnemonic, or `RCODE` with the number where there is none.
impl std::fmt::Display for Rcode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.mnemonic() {
            "OTHER" => write!(f, "RCODE{}", self.0),
            mnemonic => f.write_str(mnemonic),
        }
    }
}
