//! Messages for the tests of this room, record by record.

use crate::wire::response::Section;
use crate::wire::{
    Class, Edns, Encoder, Flags, Header, NameBuf, Query, Rcode, Response, Rtype, edns::OPT_BYTES,
};

const NSEC_BITMAP: &[u8] = b"\x00\x01\x40";

/// A client's query for `qname`.
pub(super) fn client(qname: &str, qtype: Rtype, wants_dnssec: bool) -> Vec<u8> {
    let header = Header { id: 7, flags: Flags(Flags::RD), counts: [1, 0, 0, 1] };
    let mut encoder = Encoder::new(header, 512);
    encoder.question(name(qname).as_name(), qtype, Class::IN).unwrap();
    encoder.bytes(&opt(wants_dnssec)).unwrap();
    encoder.into_message()
}

pub(super) fn name(text: &str) -> NameBuf {
    NameBuf::from_text(text).unwrap()
}

fn opt(wants_dnssec: bool) -> [u8; OPT_BYTES] {
    let edns = Edns { payload_bytes: 1232, version: 0, extended_rcode: 0, wants_dnssec };
    let mut bytes = [0; OPT_BYTES];
    edns.write(None, &mut bytes).unwrap();
    bytes
}

/// A record as a test thinks of it.
#[derive(Clone, Debug)]
pub(super) struct Rr {
    pub(super) owner: String,
    pub(super) rtype: Rtype,
    pub(super) ttl: u32,
    pub(super) rdata: Vec<u8>,
}

pub(super) fn rr(owner: &str, rtype: Rtype, ttl: u32, rdata: &[u8]) -> Rr {
    Rr { owner: owner.to_owned(), rtype, ttl, rdata: rdata.to_vec() }
}

pub(super) fn a(owner: &str, ttl: u32, last: u8) -> Rr {
    rr(owner, Rtype::A, ttl, &[192, 0, 2, last])
}

/// CNAME, DNAME or NS.
pub(super) fn pointer(owner: &str, rtype: Rtype, ttl: u32, target: &str) -> Rr {
    rr(owner, rtype, ttl, name(target).as_name().as_bytes())
}

pub(super) fn soa(owner: &str, ttl: u32, minimum: u32) -> Rr {
    let mut rdata = vec![0, 0];
    for field in [1, 2, 3, 4, minimum] {
        rdata.extend(u32::to_be_bytes(field));
    }
    rr(owner, Rtype::SOA, ttl, &rdata)
}

pub(super) fn nsec(owner: &str, next: &str) -> Rr {
    rr(owner, Rtype::NSEC, 3600, &[name(next).as_name().as_bytes(), NSEC_BITMAP].concat())
}

pub(super) fn rrsig(owner: &str, covers: Rtype, ttl: u32, signer: &str) -> Rr {
    let fixed = [&covers.0.to_be_bytes()[..], &[8; 16]].concat();
    let rdata = [&fixed, name(signer).as_name().as_bytes(), b"signature"].concat();
    rr(owner, Rtype::RRSIG, ttl, &rdata)
}

/// An upstream's response in the making.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) flags: u16,
    pub(super) rcode: Rcode,
    pub(super) sections: [Vec<Rr>; 3],
    pub(super) has_opt: bool,
}

impl Reply {
    pub(super) fn new(rcode: Rcode) -> Self {
        Self { flags: Flags::RA, rcode, sections: Default::default(), has_opt: true }
    }

    /// The records of the answer section.
    pub(super) fn answer(mut self, records: &[Rr]) -> Self {
        self.sections[0] = records.to_vec();
        self
    }

    /// The records of the authority section.
    pub(super) fn authority(mut self, records: &[Rr]) -> Self {
        self.sections[1] = records.to_vec();
        self
    }

    /// The records of the additional section.
    pub(super) fn additional(mut self, records: &[Rr]) -> Self {
        self.sections[2] = records.to_vec();
        self
    }

    /// The response to `query`, with its ID and question.
    pub(super) fn to(&self, query: &[u8]) -> Vec<u8> {
        let query = Query::parse(query).unwrap();
        let [answers, authorities, additional] =
            self.sections.each_ref().map(|records| u16::try_from(records.len()).unwrap());
        let additional = additional + u16::from(self.has_opt);
        let echoed = query.header.flags.0 & (Flags::RD | Flags::CD);
        let flags = Flags::QR | echoed | self.flags | self.rcode.0;
        let counts = [1, answers, authorities, additional];
        let header = Header { id: query.header.id, flags: Flags(flags), counts };
        let mut encoder = Encoder::new(header, 65_535);
        encoder.question(query.qname, query.qtype, query.qclass).unwrap();
        for Rr { owner, rtype, ttl, rdata } in self.sections.iter().flatten() {
            let owner = name(owner);
            let (_, open) = encoder.begin_record(owner.as_name(), *rtype, Class::IN, *ttl).unwrap();
            encoder.bytes(rdata).unwrap();
            encoder.end_rdata(open).unwrap();
        }
        if self.has_opt {
            encoder.bytes(&opt(query.wants_dnssec())).unwrap();
        }
        encoder.into_message()
    }
}

/// The records of one section as text: `owner type ttl`, RDATA left out.
pub(super) fn listing(message: &[u8], section: Section) -> Vec<String> {
    let response = Response::parse(message).unwrap();
    let line = |record: &crate::wire::Record| {
        let owner = response.owner(record).unwrap();
        format!("{} {} {}", owner.as_name(), record.rtype.0, record.ttl)
    };
    response.section(section).map(line).collect()
}
