//! An upstream's message, checked as a whole and indexed record by record.

use super::edns::Edns;
use super::name::{Name, NameBuf, NameError};
use super::reader::Reader;
use super::{Class, Flags, HEADER_BYTES, Header, Rcode, Rtype};

/// Why a message is not a response that can be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ResponseError {
    /// Fewer octets than a header.
    Short,
    /// A query (QR=0).
    Query,
    /// An opcode other than QUERY.
    Opcode,
    /// More than one question.
    QuestionCount,
    /// A broken or compressed name in the question, or the message ends inside it.
    Question,
    /// The owner of a record is broken.
    Owner(NameError),
    /// The message ends inside a record.
    Record,
    /// A second OPT record, one outside the additional section, one with an owner, or a broken one.
    Opt,
}

/// The sections that hold records (RFC 1035 §4.1).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Section {
    /// What was asked for.
    Answer,
    /// Who knows, or why there is nothing.
    Authority,
    /// What may help.
    Additional,
}

/// Where one record stands in its message, and its fixed fields.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record {
    /// The section it stands in.
    pub section: Section,
    /// Offset of its owner name.
    pub owner_at: usize,
    /// Its type.
    pub rtype: Rtype,
    /// Its class.
    pub class: Class,
    /// Its TTL in seconds; with the top bit set it counts as zero (RFC 2181 §8).
    pub ttl: u32,
    /// Offset of its RDATA.
    pub rdata_at: usize,
    /// Length of its RDATA in bytes.
    pub rdata_len: usize,
}

/// The question that a response repeats.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The name.
    pub qname: Name<'a>,
    /// The type.
    pub qtype: Rtype,
    /// The class.
    pub qclass: Class,
}

/// A response whose every record lies within its bounds.
#[derive(Clone, Debug)]
pub struct Response<'a> {
    message: &'a [u8],
    /// The header.
    pub header: Header,
    /// The question; servers that refuse leave it out now and then.
    pub question: Option<Question<'a>>,
    /// All records but OPT, in order.
    pub records: Vec<Record>,
    /// What the OPT record says, if there is one.
    pub edns: Option<Edns>,
}

impl<'a> Response<'a> {
    /// Checks and indexes `message`. Octets behind the last record are ignored.
    ///
    /// # Errors
    /// [`ResponseError`].
    pub fn parse(message: &'a [u8]) -> Result<Self, ResponseError> {
        let header = Header::read(message).ok_or(ResponseError::Short)?;
        if !header.flags.has(Flags::QR) {
            return Err(ResponseError::Query);
        }
        if header.flags.opcode() != 0 {
            return Err(ResponseError::Opcode);
        }
        let [questions, answers, authorities, additional] = header.counts;
        let mut reader = Reader::new(message, HEADER_BYTES);
        let question = match questions {
            0 => None,
            1 => Some(read_question(message, &mut reader).ok_or(ResponseError::Question)?),
            _ => return Err(ResponseError::QuestionCount),
        };
        // Each record takes at least eleven octets, so the message's length bounds the index.
        let mut response = Self { message, header, question, records: Vec::new(), edns: None };
        let sections = [
            (Section::Answer, answers),
            (Section::Authority, authorities),
            (Section::Additional, additional),
        ];
        for (section, count) in sections {
            for _ in 0..count {
                response.read_record(section, &mut reader)?;
            }
        }
        Ok(response)
    }

    /// The whole message, for what points into it.
    #[must_use]
    pub const fn message(&self) -> &'a [u8] {
        self.message
    }

    /// The RCODE with its extended bits.
    #[must_use]
    pub fn rcode(&self) -> Rcode {
        let low = self.header.flags.rcode();
        self.edns.map_or(low, |edns| edns.rcode(low))
    }

    /// The records of one section.
    pub fn section(&self, section: Section) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.section == section)
    }

    /// The owner of `record`, expanded.
    ///
    /// # Errors
    /// [`NameError`] for a record of another message.
    pub fn owner(&self, record: &Record) -> Result<NameBuf, NameError> {
        NameBuf::expand(self.message, record.owner_at).map(|(name, _)| name)
    }

    /// The RDATA of `record` as it stands in the message.
    #[must_use]
    pub fn rdata(&self, record: &Record) -> &'a [u8] {
        self.message.get(record.rdata_at..record.rdata_at + record.rdata_len).unwrap_or_default()
    }

    /// The name at the front of `record`'s RDATA (CNAME, NS, DNAME …), expanded.
    ///
    /// # Errors
    /// [`NameError`]; [`NameError::Truncated`] when it leaves the RDATA.
    pub fn target(&self, record: &Record) -> Result<NameBuf, NameError> {
        let (name, end) = NameBuf::expand(self.message, record.rdata_at)?;
        if end == record.rdata_at + record.rdata_len { Ok(name) } else { Err(NameError::Truncated) }
    }

    fn read_record(
        &mut self,
        section: Section,
        reader: &mut Reader<'a>,
    ) -> Result<(), ResponseError> {
        let owner_at = reader.offset();
        let (owner, next) =
            NameBuf::expand(self.message, owner_at).map_err(ResponseError::Owner)?;
        *reader = Reader::new(self.message, next);
        let rtype = Rtype(reader.u16().ok_or(ResponseError::Record)?);
        if rtype == Rtype::OPT {
            let opt = Edns::read(reader).map_err(|_| ResponseError::Opt)?;
            let is_misplaced = section != Section::Additional || !owner.as_name().is_root();
            if is_misplaced || self.edns.replace(opt).is_some() {
                return Err(ResponseError::Opt);
            }
            return Ok(());
        }
        let class = Class(reader.u16().ok_or(ResponseError::Record)?);
        let ttl = reader.u32().ok_or(ResponseError::Record)?;
        let rdata_len = usize::from(reader.u16().ok_or(ResponseError::Record)?);
        let rdata_at = reader.offset();
        reader.bytes(rdata_len).ok_or(ResponseError::Record)?;
        let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
        self.records.push(Record { section, owner_at, rtype, class, ttl, rdata_at, rdata_len });
        Ok(())
    }
}

fn read_question<'a>(message: &'a [u8], reader: &mut Reader<'a>) -> Option<Question<'a>> {
    let qname = Name::parse(message.get(reader.offset()..)?).ok()?;
    reader.bytes(qname.as_bytes().len())?;
    Some(Question { qname, qtype: Rtype(reader.u16()?), qclass: Class(reader.u16()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"\x12\x34\x81\x80\x00\x01\x00\x02\x00\x00\x00\x01\
        \x03www\x07example\x00\x00\x01\x00\x01\
        \xC0\x0C\x00\x05\x00\x01\x00\x00\x0e\x10\x00\x06\x03cdn\xC0\x10\
        \xC0\x29\x00\x01\x00\x01\xFF\xFF\xFF\xFF\x00\x04\xC0\x00\x02\x01\
        \x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";

    #[test]
    fn records_are_indexed_and_names_expanded() {
        let response = Response::parse(MESSAGE).unwrap();
        assert_eq!(response.question.unwrap().qname.to_string(), "www.example.");
        let [cname, address] = response.records[..] else { panic!("{:?}", response.records) };
        assert_eq!(response.target(&cname).unwrap().as_name().to_string(), "cdn.example.");
        assert_eq!(response.owner(&address).unwrap().as_name().to_string(), "cdn.example.");
        assert_eq!(response.rdata(&address), [192, 0, 2, 1]);
        assert_eq!(response.edns.unwrap().payload_bytes, 1232);
        assert_eq!(response.section(Section::Answer).count(), 2);
    }

    #[test]
    fn ttl_with_the_top_bit_is_zero() {
        assert_eq!(Response::parse(MESSAGE).unwrap().records[1].ttl, 0);
    }

    #[test]
    fn every_shorter_message_is_refused_without_panic() {
        for len in 0..MESSAGE.len() {
            assert!(Response::parse(&MESSAGE[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn opt_outside_the_additional_section_is_refused() {
        let mut bytes = MESSAGE.to_vec();
        (bytes[7], bytes[11]) = (3, 0);
        assert_eq!(Response::parse(&bytes).unwrap_err(), ResponseError::Opt);
    }

    #[test]
    fn extended_rcode_joins_both_halves() {
        let mut bytes = MESSAGE.to_vec();
        let len = bytes.len();
        bytes[len - 6] = 1;
        assert_eq!(Response::parse(&bytes).unwrap().rcode(), Rcode::BADVERS);
    }
}
