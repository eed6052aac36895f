//! Hot path. A client's query, viewed in place: header, question, EDNS. Nothing is copied, nothing is checked twice.

use super::edns::{Edns, EdnsError};
use super::name::{Name, NameError};
use super::reader::Reader;
use super::{Class, Flags, HEADER_BYTES, Header, Rtype};

/// Octets of a question after its name: type and class.
const TYPE_AND_CLASS_BYTES: usize = 4;

/// Additional records accepted in a query: OPT and a signature, with room to spare.
const ADDITIONAL_MAX: u16 = 4;

/// Why a message is not a query that can be answered. One variant, one counter, one fate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Malformed {
    /// Fewer octets than a header: silence.
    Short,
    /// A response (QR=1): silence, or two servers would talk for ever.
    Response,
    /// An opcode other than QUERY: NOTIMP.
    Opcode(u8),
    /// TC is set in a query: FORMERR.
    Truncated,
    /// Not exactly one question: FORMERR.
    QuestionCount(u16),
    /// Answer or authority records in a query, or too many additional ones: FORMERR.
    RecordCount,
    /// The question's name is broken or compressed: FORMERR.
    Name(NameError),
    /// The message ends inside the question: FORMERR.
    Question,
    /// An additional record is broken: FORMERR.
    Record,
    /// A second OPT record (RFC 6891 §6.1.1): FORMERR.
    TwoOpts,
    /// The OPT record is broken: FORMERR.
    Opt(EdnsError),
    /// Octets after the last record: FORMERR.
    TrailingBytes,
}

/// A well-formed query with one question.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The header.
    pub header: Header,
    /// Name, type and class as the client wrote them (its 0x20 casing is echoed).
    question: &'a [u8],
    /// The name asked for.
    pub qname: Name<'a>,
    /// The type asked for.
    pub qtype: Rtype,
    /// The class asked in.
    pub qclass: Class,
    /// What the OPT record says, if there is one.
    pub edns: Option<Edns>,
}

impl<'a> Query<'a> {
    /// Views `message` as a query.
    ///
    /// # Errors
    /// [`Malformed`].
    // Returned through memory, it would be read back in other widths than it was written in, which stalls: 18 of 80 ns.
    #[inline(always)]
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let Some(header) = Header::read(message) else { return Err(Malformed::Short) };
        check_header(&header)?;
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let qname = Name::parse(body).map_err(Malformed::Name)?;
        let question_len = qname.as_bytes().len() + TYPE_AND_CLASS_BYTES;
        let (question, rest) = body.split_at_checked(question_len).ok_or(Malformed::Question)?;
        let &[t0, t1, c0, c1] = question.last_chunk().ok_or(Malformed::Question)?;
        let [_, _, _, additional] = header.counts;
        let edns = read_additional(rest, additional)?;
        Ok(Self {
            header,
            question,
            qname,
            qtype: Rtype(u16::from_be_bytes([t0, t1])),
            qclass: Class(u16::from_be_bytes([c0, c1])),
            edns,
        })
    }

    /// The query of a `question` section that was read before.
    pub(super) fn of_checked(header: Header, question: &'a [u8], edns: Option<Edns>) -> Self {
        let qname_len = question.len() - TYPE_AND_CLASS_BYTES;
        let (qname, rest) = question.split_at(qname_len);
        let pair = |at| rest.get(at..).and_then(|rest| rest.first_chunk()).copied();
        let pair = |at| u16::from_be_bytes(pair(at).unwrap_or_default());
        Self {
            header,
            question,
            qname: Name::of_checked(qname),
            qtype: Rtype(pair(0)),
            qclass: Class(pair(2)),
            edns,
        }
    }

    /// A copy that outlives the message.
    #[must_use]
    pub fn into_owned(self) -> QueryBuf {
        QueryBuf::new(&self)
    }

    /// The question section as the client wrote it.
    #[must_use]
    pub const fn question(&self) -> &'a [u8] {
        self.question
    }

    /// Whether the client takes DNSSEC records (RFC 3225 §3).
    #[must_use]
    pub fn wants_dnssec(&self) -> bool {
        self.edns.is_some_and(|edns| edns.wants_dnssec)
    }

    /// Whether the client does its own validation (RFC 4035 §3.2.2).
    #[must_use]
    pub const fn is_checking_disabled(&self) -> bool {
        self.header.flags.has(Flags::CD)
    }
}

/// A query that outlives its datagram: while its question is being resolved.
#[derive(Clone, Debug)]
pub struct QueryBuf {
    header: Header,
    question: Box<[u8]>,
    edns: Option<Edns>,
}

impl QueryBuf {
    /// Copies what a reply needs.
    #[must_use]
    pub fn new(query: &Query<'_>) -> Self {
        Self { header: query.header, question: query.question.into(), edns: query.edns }
    }

    /// `query`, asked for another name.
    #[must_use]
    pub fn renamed(query: &Query<'_>, qname: Name<'_>) -> Self {
        let [t0, t1] = query.qtype.0.to_be_bytes();
        let [c0, c1] = query.qclass.0.to_be_bytes();
        let question = [qname.as_bytes(), &[t0, t1, c0, c1]].concat().into();
        Self { header: query.header, question, edns: query.edns }
    }

    /// The query as it was parsed.
    #[must_use]
    pub fn view(&self) -> Query<'_> {
        Query::of_checked(self.header, &self.question, self.edns)
    }
}

fn check_header(header: &Header) -> Result<(), Malformed> {
    let flags = header.flags;
    if flags.has(Flags::QR) {
        return Err(Malformed::Response);
    }
    if flags.opcode() != 0 {
        return Err(Malformed::Opcode(flags.opcode()));
    }
    if flags.has(Flags::TC) {
        return Err(Malformed::Truncated);
    }
    let [questions, answers, authorities, additional] = header.counts;
    if questions != 1 {
        return Err(Malformed::QuestionCount(questions));
    }
    if answers != 0 || authorities != 0 || additional > ADDITIONAL_MAX {
        return Err(Malformed::RecordCount);
    }
    Ok(())
}

/// Reads the records behind the question, of which only OPT says something to us.
fn read_additional(rest: &[u8], count: u16) -> Result<Option<Edns>, Malformed> {
    let mut reader = Reader::new(rest, 0);
    let mut edns = None;
    for _ in 0..count {
        let is_root_owned = rest.get(reader.offset()) == Some(&0);
        reader.skip_name().map_err(|_| Malformed::Record)?;
        let rtype = Rtype(reader.u16().ok_or(Malformed::Record)?);
        if rtype != Rtype::OPT {
            reader.bytes(6).ok_or(Malformed::Record)?;
            let len = reader.u16().ok_or(Malformed::Record)?;
            reader.bytes(usize::from(len)).ok_or(Malformed::Record)?;
            continue;
        }
        if !is_root_owned {
            return Err(Malformed::Record);
        }
        let opt = Edns::read(&mut reader).map_err(Malformed::Opt)?;
        if edns.replace(opt).is_some() {
            return Err(Malformed::TwoOpts);
        }
    }
    if reader.is_at_end() { Ok(edns) } else { Err(Malformed::TrailingBytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00";
    const QUESTION: &[u8] = b"\x03WwW\x07example\x00\x00\x1c\x00\x01";
    const OPT: &[u8] = b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00";

    fn message(change: impl FnOnce(&mut Vec<u8>), parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = [HEADER, &parts.concat()].concat();
        change(&mut bytes);
        bytes
    }

    fn fault(change: impl FnOnce(&mut Vec<u8>), parts: &[&[u8]]) -> Malformed {
        Query::parse(&message(change, parts)).unwrap_err()
    }

    #[test]
    fn plain_query_is_viewed_in_place() {
        let bytes = message(|_| {}, &[QUESTION]);
        let query = Query::parse(&bytes).unwrap();
        assert_eq!(query.header.id, 0x1234);
        assert_eq!(query.qname.to_string(), "WwW.example.");
        assert_eq!((query.qtype, query.qclass), (Rtype::AAAA, Class::IN));
        assert_eq!(query.question(), QUESTION);
        assert_eq!(query.edns, None);
    }

    #[test]
    fn opt_record_is_understood() {
        let bytes = message(|bytes| bytes[11] = 1, &[QUESTION, OPT]);
        let query = Query::parse(&bytes).unwrap();
        assert!(query.wants_dnssec());
        assert_eq!(query.edns.unwrap().payload_bytes, 1232);
    }

    #[test]
    fn kept_query_is_the_same_query() {
        let bytes = message(|bytes| bytes[11] = 1, &[QUESTION, OPT]);
        let query = Query::parse(&bytes).unwrap();
        let kept = QueryBuf::new(&query);
        let view = kept.view();
        assert_eq!(format!("{view:?}"), format!("{query:?}"));
    }

    #[test]
    fn every_shorter_message_is_refused_without_panic() {
        let bytes = message(|bytes| bytes[11] = 1, &[QUESTION, OPT]);
        for len in 0..bytes.len() {
            assert!(Query::parse(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn header_faults_have_their_names() {
        assert_eq!(Query::parse(&HEADER[..11]).unwrap_err(), Malformed::Short);
        assert_eq!(fault(|bytes| bytes[2] |= 0x80, &[QUESTION]), Malformed::Response);
        assert_eq!(fault(|bytes| bytes[2] |= 0x28, &[QUESTION]), Malformed::Opcode(5));
        assert_eq!(fault(|bytes| bytes[2] |= 0x02, &[QUESTION]), Malformed::Truncated);
        assert_eq!(fault(|bytes| bytes[5] = 0, &[]), Malformed::QuestionCount(0));
        assert_eq!(fault(|bytes| bytes[5] = 2, &[QUESTION]), Malformed::QuestionCount(2));
        assert_eq!(fault(|bytes| bytes[7] = 1, &[QUESTION]), Malformed::RecordCount);
        assert_eq!(fault(|bytes| bytes[10] = 9, &[QUESTION]), Malformed::RecordCount);
    }

    #[test]
    fn body_faults_have_their_names() {
        let nothing = |_: &mut Vec<u8>| {};
        let pointer = Malformed::Name(NameError::Pointer);
        assert_eq!(fault(nothing, &[b"\xC0\x0C\x00\x01\x00\x01"]), pointer);
        assert_eq!(fault(nothing, &[b"\x01a\x00\x00\x01\x00"]), Malformed::Question);
        assert_eq!(fault(nothing, &[QUESTION, b"x"]), Malformed::TrailingBytes);
        let additional = |count| move |bytes: &mut Vec<u8>| bytes[11] = count;
        assert_eq!(fault(additional(2), &[QUESTION, OPT, OPT]), Malformed::TwoOpts);
        assert_eq!(fault(additional(1), &[QUESTION, b"\x01a", OPT]), Malformed::Record);
        assert_eq!(fault(additional(1), &[QUESTION]), Malformed::Record);
    }
}
