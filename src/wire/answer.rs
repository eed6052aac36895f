//! An answer at rest: the records behind the question in wire form, with a table of where their TTLs stand.
//!
//! Compression pointers in the body count from the front of the message and may point into the question, so a body fits
//! every query for the same name, whatever its casing. Cache entries, local data and fresh answers all have this form.

use super::encode::{Encoder, Full};
use super::name::{Name, NameBuf};
use super::rdata::{self, RdataError};
use super::response::{Record, Response, Section};
use super::{Class, Flags, HEADER_BYTES, Header, MESSAGE_BYTES_MAX, Rcode, Rtype};
use crate::time::CacheTime;

/// A pointer to the first name of a message: the question's.
const QUESTION_POINTER: u16 = 0xC00C;

/// Octets between where a record's TTL begins and its data.
const TTL_AND_LENGTH_BYTES: usize = 6;

/// Octets of a question behind its name: type and class.
const QUESTION_TAIL_BYTES: usize = 4;

const _: () = assert!(QUESTION_POINTER & 0x3FFF == 12 && HEADER_BYTES == 12);

/// What stands in a reply's header and where the body may be cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shape {
    /// The RCODE; only its four header bits are kept.
    pub rcode: Rcode,
    /// AA and AD as the answer deserves them.
    pub flags: u16,
    /// Records in the answer, authority and additional section.
    pub counts: [u16; 3],
    /// Bytes of answer and authority section: what may not be left out without TC (RFC 2181 §9).
    pub essential_bytes: u16,
}

impl Shape {
    /// Whether it says that the name asked for does not exist, without any alias on the way (RFC 2308 §2.1): it then
    /// holds for all types, and for all names below (RFC 8020 §2).
    #[must_use]
    pub fn is_denial(&self) -> bool {
        let [answers, ..] = self.counts;
        self.rcode == Rcode::NXDOMAIN && answers == 0
    }
}

/// A view of an answer at rest.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Header fields and borders.
    pub shape: Shape,
    /// The three sections, one after the other.
    pub body: &'a [u8],
    /// Offsets of all TTL fields in `body`, as little-endian pairs of octets.
    pub ttls: &'a [u8],
    /// When the TTLs were what they say.
    pub stored: CacheTime,
}

impl<'a> Answer<'a> {
    /// The type of the first record of the answer section: not the one asked for where an alias leads elsewhere.
    #[inline]
    #[must_use]
    pub fn first_type(&self) -> Option<Rtype> {
        let [answers, ..] = self.shape.counts;
        let pair = self.ttls.first_chunk().filter(|_| answers > 0)?;
        let type_at = usize::from(u16::from_le_bytes(*pair)).checked_sub(4)?;
        self.body.get(type_at..)?.first_chunk().map(|octets| Rtype(u16::from_be_bytes(*octets)))
    }

    /// The records of the answer section.
    pub fn records(&self) -> impl Iterator<Item = AnswerRecord<'a>> + use<'a> {
        let ([answers, ..], body) = (self.shape.counts, self.body);
        let offsets = self.ttls.as_chunks().0.iter().take(usize::from(answers));
        offsets.filter_map(move |pair| {
            let ttl_at = usize::from(u16::from_le_bytes(*pair));
            let fixed = body.get(ttl_at.checked_sub(4)?..)?;
            let ([t0, t1, _, _, _, _, _, _, l0, l1], rest) = fixed.split_first_chunk()?;
            let rdata = rest.get(..usize::from(u16::from_be_bytes([*l0, *l1])))?;
            let rtype = Rtype(u16::from_be_bytes([*t0, *t1]));
            Some(AnswerRecord { rtype, rdata, body, rdata_at: ttl_at + TTL_AND_LENGTH_BYTES })
        })
    }
}

/// A record of an answer at rest.
#[derive(Clone, Copy, Debug)]
pub struct AnswerRecord<'a> {
    /// Its type.
    pub rtype: Rtype,
    /// Its data as it lies there: names in it may be compressed.
    pub rdata: &'a [u8],
    body: &'a [u8],
    rdata_at: usize,
}

impl AnswerRecord<'_> {
    /// The name that its data begin with; `qname` is the name of the question that the answer is for.
    #[must_use]
    pub fn name_in(&self, qname: Name<'_>) -> Option<NameBuf> {
        let question = qname.as_bytes();
        let body_at = HEADER_BYTES + question.len() + QUESTION_TAIL_BYTES;
        // As if the message were there: offsets count from its front.
        let rest_at = |at: usize| match at.checked_sub(body_at) {
            Some(at) => self.body.get(at..),
            None => question.get(at.checked_sub(HEADER_BYTES)?..),
        };
        NameBuf::gather(body_at + self.rdata_at, rest_at).ok()
    }
}

/// An answer that owns its bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AnswerBuf {
    /// Header fields and borders.
    pub shape: Shape,
    /// As in [`Answer::body`].
    pub body: Box<[u8]>,
    /// As in [`Answer::ttls`].
    pub ttls: Box<[u8]>,
    /// How long the answer may be reused, in seconds; zero is for those who wait now only.
    pub lifetime: u32,
}

impl AnswerBuf {
    /// An answer without records and without a lifetime.
    #[must_use]
    pub fn empty(rcode: Rcode) -> Self {
        let shape = Shape { rcode, flags: 0, counts: [0; 3], essential_bytes: 0 };
        Self { shape, body: Box::default(), ttls: Box::default(), lifetime: 0 }
    }

    /// As [`Shape::is_denial`].
    #[must_use]
    pub fn is_denial(&self) -> bool {
        self.shape.is_denial()
    }

    /// Type and RDATA of each record of the answer section.
    pub fn answers(&self) -> impl Iterator<Item = (Rtype, &[u8])> {
        self.view(CacheTime::default()).records().map(|record| (record.rtype, record.rdata))
    }

    /// Views the answer as of `stored`.
    #[must_use]
    pub fn view(&self, stored: CacheTime) -> Answer<'_> {
        Answer { shape: self.shape, body: &self.body, ttls: &self.ttls, stored }
    }
}

/// Builds the body of an answer to one question, section by section.
#[derive(Debug)]
pub struct AnswerBuilder {
    encoder: Encoder,
    body_at: usize,
    shape: Shape,
    ttls: Vec<u8>,
    section: Section,
    lifetime: u32,
}

impl AnswerBuilder {
    /// Begins an answer to `qname`, `qtype`, `qclass`.
    ///
    /// # Errors
    /// [`Full`]; cannot happen for a parsed name.
    pub fn new(qname: Name<'_>, qtype: Rtype, qclass: Class, rcode: Rcode) -> Result<Self, Full> {
        let header = Header { id: 0, flags: Flags(0), counts: [0; 4] };
        let mut encoder = Encoder::new(header, MESSAGE_BYTES_MAX);
        encoder.question(qname, qtype, qclass)?;
        if rcode == Rcode::NXDOMAIN {
            // A denial is kept for names below, too (RFC 8020 §2): it must not point into its question.
            encoder.stop_compressing();
        }
        let body_at = encoder.len();
        let shape = Shape { rcode, flags: 0, counts: [0; 3], essential_bytes: 0 };
        let section = Section::Answer;
        Ok(Self { encoder, body_at, shape, ttls: Vec::new(), section, lifetime: u32::MAX })
    }

    /// Sets AA or AD.
    pub fn set_flags(&mut self, flags: u16) {
        self.shape.flags |= flags;
    }

    /// Copies `record` of `response` into `section` with `ttl`, which also bounds the answer's lifetime.
    ///
    /// # Errors
    /// [`RdataError`]; the builder must then be thrown away.
    ///
    /// # Panics
    /// When sections are not filled in order.
    pub fn copy(
        &mut self,
        section: Section,
        response: &Response<'_>,
        record: &Record,
        ttl: u32,
    ) -> Result<(), RdataError> {
        self.open(section);
        let ttl_at = rdata::copy_record(&mut self.encoder, response, record, ttl)?;
        Ok(self.close(section, ttl_at, ttl)?)
    }

    /// Writes a record with RDATA that holds no names (or only plain ones) into `section`.
    ///
    /// # Errors
    /// [`Full`]; the builder must then be thrown away.
    ///
    /// # Panics
    /// When sections are not filled in order.
    pub fn write(
        &mut self,
        section: Section,
        owner: Name<'_>,
        rtype: Rtype,
        class: Class,
        ttl: u32,
        rdata: &[u8],
    ) -> Result<(), Full> {
        self.open(section);
        let (ttl_at, open) = self.encoder.begin_record(owner, rtype, class, ttl)?;
        self.encoder.bytes(rdata)?;
        self.encoder.end_rdata(open)?;
        self.close(section, ttl_at, ttl)
    }

    /// Writes an answer record whose owner is the question's name, whatever that will be: the body then fits every name.
    ///
    /// # Errors
    /// [`Full`]; the builder must then be thrown away.
    pub fn write_for_question(
        &mut self,
        rtype: Rtype,
        class: Class,
        ttl: u32,
        rdata: &[u8],
    ) -> Result<(), Full> {
        self.write_pointing(Section::Answer, rtype, class, ttl, rdata)
    }

    /// Writes an SOA record into the authority section whose owner is the question's name, whatever that will be.
    ///
    /// # Errors
    /// [`Full`]; the builder must then be thrown away.
    pub fn write_soa_for_question(&mut self, ttl: u32, rdata: &[u8]) -> Result<(), Full> {
        self.write_pointing(Section::Authority, Rtype::SOA, Class::IN, ttl, rdata)
    }

    fn write_pointing(
        &mut self,
        section: Section,
        rtype: Rtype,
        class: Class,
        ttl: u32,
        rdata: &[u8],
    ) -> Result<(), Full> {
        self.open(section);
        self.encoder.u16(QUESTION_POINTER)?;
        let (ttl_at, open) = self.encoder.begin_record_body(rtype, class, ttl)?;
        self.encoder.bytes(rdata)?;
        self.encoder.end_rdata(open)?;
        self.close(section, ttl_at, ttl)
    }

    /// Writes a record of class IN without any compression: the body then fits every question.
    ///
    /// # Errors
    /// [`Full`]; the builder must then be thrown away.
    ///
    /// # Panics
    /// When sections are not filled in order.
    pub fn write_plain(
        &mut self,
        section: Section,
        owner: Name<'_>,
        rtype: Rtype,
        ttl: u32,
        rdata: &[u8],
    ) -> Result<(), Full> {
        self.open(section);
        self.encoder.bytes(owner.as_bytes())?;
        let (ttl_at, open) = self.encoder.begin_record_body(rtype, Class::IN, ttl)?;
        self.encoder.bytes(rdata)?;
        self.encoder.end_rdata(open)?;
        self.close(section, ttl_at, ttl)
    }

    /// Makes all that is written so far essential, the additional section too: what does not fit as a whole is cut as a
    /// whole, with TC (RFC 9471 §3.1).
    pub fn require_all(&mut self) {
        let len = self.encoder.len() - self.body_at;
        self.shape.essential_bytes = u16::try_from(len).unwrap_or(u16::MAX);
    }

    /// The finished answer. Without any record its lifetime is zero.
    #[must_use]
    pub fn finish(self) -> AnswerBuf {
        let is_empty = self.ttls.is_empty();
        let message = self.encoder.into_message();
        AnswerBuf {
            shape: self.shape,
            body: message.get(self.body_at..).unwrap_or_default().into(),
            ttls: self.ttls.into(),
            lifetime: if is_empty { 0 } else { self.lifetime },
        }
    }

    fn open(&mut self, section: Section) {
        assert!(section >= self.section, "sections are filled in order");
        self.section = section;
    }

    fn close(&mut self, section: Section, ttl_at: usize, ttl: u32) -> Result<(), Full> {
        let offset = u16::try_from(ttl_at - self.body_at).map_err(|_| Full)?;
        self.ttls.extend(offset.to_le_bytes());
        self.lifetime = self.lifetime.min(ttl);
        let [answers, authorities, additional] = &mut self.shape.counts;
        let count = match section {
            Section::Answer => answers,
            Section::Authority => authorities,
            Section::Additional => additional,
        };
        *count = count.checked_add(1).ok_or(Full)?;
        if section != Section::Additional {
            let end = self.encoder.len() - self.body_at;
            self.shape.essential_bytes = u16::try_from(end).map_err(|_| Full)?;
        }
        Ok(())
    }
}

const _: () = assert!(MESSAGE_BYTES_MAX - HEADER_BYTES <= u16::MAX as usize, "offsets fit 16 bits");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NameBuf;

    #[test]
    fn body_knows_its_ttls_sections_and_lifetime() {
        let qname = NameBuf::from_text("www.example.").unwrap();
        let name = qname.as_name();
        let mut builder = AnswerBuilder::new(name, Rtype::A, Class::IN, Rcode::NOERROR).unwrap();
        let mut write = |section, ttl| {
            builder.write(section, name, Rtype::A, Class::IN, ttl, &[192, 0, 2, 1]).unwrap();
        };
        write(Section::Answer, 300);
        write(Section::Answer, 60);
        write(Section::Additional, 90);
        let answer = builder.finish();
        assert_eq!(answer.shape.counts, [2, 0, 1]);
        assert_eq!((answer.lifetime, answer.shape.essential_bytes), (60, 32));
        let offsets: Vec<u16> =
            answer.ttls.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
        assert_eq!(offsets, [6, 22, 38]);
        assert_eq!(answer.body[22..26], 60u32.to_be_bytes());
        let address: &[u8] = &[192, 0, 2, 1];
        assert_eq!(answer.answers().collect::<Vec<_>>(), [(Rtype::A, address); 2]);
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn sections_out_of_order_are_our_own_mistake() {
        let mut builder =
            AnswerBuilder::new(Name::ROOT, Rtype::A, Class::IN, Rcode::NOERROR).unwrap();
        for section in [Section::Authority, Section::Answer] {
            let _ = builder.write(section, Name::ROOT, Rtype::A, Class::IN, 1, &[0; 4]);
        }
    }

    #[test]
    fn answer_without_records_has_no_lifetime() {
        let builder = AnswerBuilder::new(Name::ROOT, Rtype::A, Class::IN, Rcode::NXDOMAIN).unwrap();
        assert_eq!(builder.finish(), AnswerBuf::empty(Rcode::NXDOMAIN));
    }
}
