//! Messages of simulated servers and forgers, record by record.

use super::truth::{FORGED, Truth};
use crate::wire::edns::OPT_BYTES;
use crate::wire::{
    Class, Edns, Encoder, Flags, HEADER_BYTES, Header, MESSAGE_BYTES_MAX, Name, NameBuf, Query,
    Rcode, Record, Response, Rtype, options,
};

/// The UDP payload size that simulated servers offer.
const PAYLOAD_BYTES: u16 = 1_232;

/// A record; names in its RDATA are plain.
#[derive(Clone, Debug)]
pub(super) struct Rr {
    /// Whose it is.
    pub(super) owner: NameBuf,
    /// Its type.
    pub(super) rtype: Rtype,
    /// How long it lives, in seconds.
    pub(super) ttl: u32,
    /// What it says.
    pub(super) rdata: Vec<u8>,
}

impl Rr {
    /// Takes a record out of a message; `None` when it cannot be read.
    pub(super) fn read(response: &Response<'_>, record: &Record) -> Option<Self> {
        let owner = response.owner(record).ok()?;
        let rdata = match record.rtype {
            Rtype::CNAME | Rtype::DNAME | Rtype::NS => {
                response.target(record).ok()?.as_name().as_bytes().to_vec()
            }
            Rtype::SOA => soa_rdata(response, record)?,
            _ => response.rdata(record).to_vec(),
        };
        Some(Self { owner, rtype: record.rtype, ttl: record.ttl, rdata })
    }

    /// Whether both say the same, TTLs apart.
    pub(super) fn are_same(left: &[Self], right: &[Self]) -> bool {
        left.len() == right.len()
            && left.iter().zip(right).all(|(left, right)| {
                left.owner.as_name().is_same(right.owner.as_name())
                    && left.rtype == right.rtype
                    && left.rdata == right.rdata
            })
    }
}

/// Both names of an SOA expanded, and what is behind them.
fn soa_rdata(response: &Response<'_>, record: &Record) -> Option<Vec<u8>> {
    let message = response.message();
    let (primary, next) = NameBuf::expand(message, record.rdata_at).ok()?;
    let (person, next) = NameBuf::expand(message, next).ok()?;
    let rest = message.get(next..record.rdata_at + record.rdata_len)?;
    Some([primary.as_name().as_bytes(), person.as_name().as_bytes(), rest].concat())
}

/// An OPT record.
#[derive(Clone, Debug, Default)]
pub(super) struct Opt {
    /// Its cookie option.
    pub(super) cookie: Option<Vec<u8>>,
}

/// A response in the making.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// Header flags beside QR, RD and CD.
    pub(super) flags: u16,
    /// The RCODE.
    pub(super) rcode: Rcode,
    /// Answer, authority and additional section.
    pub(super) sections: [Vec<Rr>; 3],
    /// The OPT record.
    pub(super) opt: Option<Opt>,
    /// Records that the header claims beyond those that are there.
    pub(super) missing: u16,
}

impl Reply {
    /// Nothing but a code.
    pub(super) fn bare(rcode: Rcode) -> Self {
        let sections = Default::default();
        Self { flags: Flags::RA, rcode, sections, opt: None, missing: 0 }
    }

    /// The truth.
    pub(super) fn honest(truth: &Truth) -> Self {
        let sections = [truth.answer.clone(), truth.authority.clone(), Vec::new()];
        Self { sections, ..Self::bare(truth.rcode) }
    }

    /// What a forger wants to be believed.
    pub(super) fn forged(qname: Name<'_>, qtype: Rtype) -> Self {
        let rdata = match qtype {
            Rtype::TXT => b"\x06forged".to_vec(),
            Rtype::SOA => [&[0, 0][..], &[0x66; 20]].concat(),
            _ => FORGED.to_vec(),
        };
        let record = Rr { owner: NameBuf::new(qname), rtype: qtype, ttl: 86_400, rdata };
        let sections = [vec![record], Vec::new(), Vec::new()];
        Self { sections, ..Self::bare(Rcode::NOERROR) }
    }

    /// The response to `query`, with its ID, and its question in its casing.
    ///
    /// # Panics
    /// When `query` is none: the forwarder has written it.
    pub(super) fn to(&self, query: &[u8]) -> Vec<u8> {
        let query = Query::parse(query).expect("our own queries can be read");
        let [answers, authorities, additional] = self.sections.each_ref().map(|records| {
            u16::try_from(records.len()).expect("the messages of the simulation are small")
        });
        let additional = additional + u16::from(self.opt.is_some());
        let echoed = query.header.flags.0 & (Flags::RD | Flags::CD);
        let flags = Flags::QR | echoed | self.flags | u16::from(self.rcode.header_bits());
        let counts = [1, answers + self.missing, authorities, additional];
        let header = Header { id: query.header.id, flags: Flags(flags), counts };
        let mut encoder = Encoder::new(header, MESSAGE_BYTES_MAX);
        let written = encoder.question(query.qname, query.qtype, query.qclass).and_then(|()| {
            for Rr { owner, rtype, ttl, rdata } in self.sections.iter().flatten() {
                let owner = owner.as_name();
                let (_, open) = encoder.begin_record(owner, *rtype, Class::IN, *ttl)?;
                encoder.bytes(rdata)?;
                encoder.end_rdata(open)?;
            }
            match &self.opt {
                Some(opt) => encoder.bytes(&opt.bytes(self.rcode)),
                None => Ok(()),
            }
        });
        written.expect("the messages of the simulation are small");
        encoder.into_message()
    }
}

impl Opt {
    fn bytes(&self, rcode: Rcode) -> Vec<u8> {
        let edns = Edns {
            payload_bytes: PAYLOAD_BYTES,
            version: 0,
            extended_rcode: rcode.extended_bits(),
            wants_dnssec: false,
        };
        let mut opt = vec![0; OPT_BYTES];
        edns.write(None, &mut opt).expect("the buffer is made for it");
        let Some(cookie) = &self.cookie else { return opt };
        let len = u8::try_from(cookie.len()).expect("cookies have forty octets at most");
        opt.truncate(OPT_BYTES - 2);
        let [code_high, code_low] = options::COOKIE.to_be_bytes();
        opt.extend([0, len + 4, code_high, code_low, 0, len]);
        opt.extend(cookie);
        opt
    }
}

/// Gives `message` another ID.
pub(super) fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.first_chunk_mut() {
        *field = id.to_be_bytes();
    }
}

/// Turns the casing of the first letter of the question's name; `false` when it has none.
pub(super) fn turn_casing(message: &mut [u8]) -> bool {
    const LOWER: u8 = 0x20;
    let letters = message.iter_mut().skip(HEADER_BYTES).take_while(|octet| **octet != 0);
    let first = letters.into_iter().find(|octet| octet.is_ascii_alphabetic());
    first.map(|letter| *letter ^= LOWER).is_some()
}

/// Lowers the name in the question.
pub(super) fn lower_casing(message: &mut [u8]) {
    let name = message.iter_mut().skip(HEADER_BYTES).take_while(|octet| **octet != 0);
    name.for_each(|octet| octet.make_ascii_lowercase());
}
