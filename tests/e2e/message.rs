//! DNS messages by hand: for what no well-behaved program sends, and to look at replies octet by octet.
//!
//! Deliberately not the product's own `wire`: a mistake there must not hide itself here.

pub(crate) const A: u16 = 1;
pub(crate) const SOA: u16 = 6;
pub(crate) const TXT: u16 = 16;
pub(crate) const OPT: u16 = 41;

pub(crate) const NOERROR: u16 = 0;
pub(crate) const FORMERR: u16 = 1;
pub(crate) const SERVFAIL: u16 = 2;
pub(crate) const NXDOMAIN: u16 = 3;
pub(crate) const NOTIMP: u16 = 4;
pub(crate) const REFUSED: u16 = 5;

/// QR, TC and RD in the flags word.
pub(crate) const QR: u16 = 0x8000;
pub(crate) const TC: u16 = 0x0200;
pub(crate) const RD: u16 = 0x0100;

/// The wire form of `name`.
pub(crate) fn name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A header.
pub(crate) fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let [questions, answers, authorities, additional] = counts;
    let words = [id, flags, questions, answers, authorities, additional];
    words.into_iter().flat_map(u16::to_be_bytes).collect()
}

/// A question in class IN.
pub(crate) fn question(qname: &str, qtype: u16) -> Vec<u8> {
    [name(qname), qtype.to_be_bytes().into(), vec![0, 1]].concat()
}

/// A plain query with RD.
pub(crate) fn query(id: u16, qname: &str, qtype: u16) -> Vec<u8> {
    [header(id, RD, [1, 0, 0, 0]), question(qname, qtype)].concat()
}

/// An OPT record. `flags` is the low half of its TTL (DO is 0x8000).
pub(crate) fn opt(payload_bytes: u16, version: u8, flags: u16, options: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0, 41];
    record.extend(payload_bytes.to_be_bytes());
    record.extend([0, version]);
    record.extend(flags.to_be_bytes());
    record.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    record.extend(options);
    record
}

/// A query with `additional` records behind it.
pub(crate) fn query_with(id: u16, qname: &str, qtype: u16, additional: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(additional.len()).unwrap();
    let mut message = [header(id, RD, [1, 0, 0, count]), question(qname, qtype)].concat();
    message.extend(additional.concat());
    message
}

/// A record in class IN.
pub(crate) fn record(owner: &str, rtype: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let mut bytes = name(owner);
    bytes.extend(rtype.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend(u16::try_from(rdata.len()).unwrap().to_be_bytes());
    bytes.extend(rdata);
    bytes
}

/// A SOA record.
pub(crate) fn soa(owner: &str, ttl: u32, minimum: u32) -> Vec<u8> {
    let mut rdata = [name("ns.test"), name("hostmaster.test")].concat();
    for number in [1, 7200, 3600, 1_209_600, minimum] {
        rdata.extend(u32::to_be_bytes(number));
    }
    record(owner, SOA, ttl, &rdata)
}

/// The response to `query`: its ID and question, `flags` beside QR and RCODE, and these records.
pub(crate) fn response(
    query: &[u8],
    flags: u16,
    answers: &[Vec<u8>],
    authorities: &[Vec<u8>],
) -> Vec<u8> {
    let asked = Message::parse(query);
    let count = |records: &[Vec<u8>]| u16::try_from(records.len()).unwrap();
    let counts = [1, count(answers), count(authorities), 0];
    let flags = QR | 0x0080 | asked.flags & RD | flags;
    [header(asked.id, flags, counts), asked.question, answers.concat(), authorities.concat()]
        .concat()
}

/// The answer to an address question: one address, `ttl` seconds.
pub(crate) fn address(query: &[u8], ttl: u32, address: [u8; 4]) -> Vec<u8> {
    let owner = Message::parse(query).qname;
    response(query, NOERROR, &[record(&owner, A, ttl, &address)], &[])
}

/// A record as it was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    /// 1 answer, 2 authority, 3 additional.
    pub(crate) section: usize,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) rdata: Vec<u8>,
}

/// A message that was read to its last octet; whatever does not fit fails the test.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) counts: [u16; 4],
    /// The question section as it stands.
    pub(crate) question: Vec<u8>,
    /// The name asked for, as written; empty without a question.
    pub(crate) qname: String,
    pub(crate) records: Vec<Record>,
}

impl Message {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let counts = [word(4), word(6), word(8), word(10)];
        let mut at = 12;
        let mut qname = String::new();
        for _ in 0..counts[0] {
            qname = read_name(bytes, at);
            at = skip_name(bytes, at) + 4;
        }
        let question = bytes[12..at].to_vec();
        let mut records = Vec::new();
        for (section, &count) in counts.iter().enumerate().skip(1) {
            for _ in 0..count {
                at = skip_name(bytes, at);
                let ttl = u32::from(word(at + 4)) << 16 | u32::from(word(at + 6));
                let end = at + 10 + usize::from(word(at + 8));
                let rdata = bytes[at + 10..end].to_vec();
                let (rtype, class) = (word(at), word(at + 2));
                records.push(Record { section, rtype, class, ttl, rdata });
                at = end;
            }
        }
        assert_eq!(at, bytes.len(), "octets behind the last record of {bytes:02x?}");
        Self { id: word(0), flags: word(2), counts, question, qname, records }
    }

    /// RCODE, extended by OPT if there is one.
    pub(crate) fn rcode(&self) -> u16 {
        let high = self.opt().map_or(0, |opt| opt.ttl >> 24);
        u16::try_from(high << 4).unwrap() | self.flags & 0xF
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.flags & TC != 0
    }

    pub(crate) fn opt(&self) -> Option<&Record> {
        self.records.iter().find(|record| record.rtype == OPT)
    }

    /// What the EDNS option `code` holds, if there is one.
    pub(crate) fn option(&self, code: u16) -> Option<&[u8]> {
        let mut options = self.opt()?.rdata.as_slice();
        while let [c0, c1, l0, l1, rest @ ..] = options {
            let len = usize::from(u16::from_be_bytes([*l0, *l1]));
            if u16::from_be_bytes([*c0, *c1]) == code {
                return Some(&rest[..len]);
            }
            options = &rest[len..];
        }
        None
    }

    /// INFO-CODE of the extended error, if there is one (RFC 8914 §2).
    pub(crate) fn extended_error(&self) -> Option<u16> {
        let error = self.option(15)?;
        Some(u16::from_be_bytes([error[0], error[1]]))
    }
}

fn skip_name(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes[at] {
            0 => return at + 1,
            pointer if pointer >= 0xC0 => return at + 2,
            len => at += 1 + usize::from(len),
        }
    }
}

fn read_name(bytes: &[u8], mut at: usize) -> String {
    let mut text = String::new();
    while bytes[at] != 0 {
        let len = usize::from(bytes[at]);
        text.push_str(std::str::from_utf8(&bytes[at + 1..=at + len]).unwrap());
        text.push('.');
        at += 1 + len;
    }
    text
}
