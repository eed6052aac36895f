//! One query to one upstream: writing it, and knowing its answer from all else that arrives.

use crate::wire::{
    CLASSIC_UDP_BYTES, Class, Edns, Encoder, Flags, Header, Name, Query, Rcode, Response, Rtype,
    case, name,
};
use crate::wire::{HEADER_BYTES, encode::Full};

/// The UDP payload size that we offer upstreams, in bytes: answers of this size are never fragmented (RFC 9715 §3.2).
const PAYLOAD_BYTES: u16 = 1232;

/// What is asked, the same for all clients who wait for it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The name.
    pub qname: Name<'a>,
    /// The type.
    pub qtype: Rtype,
    /// The class.
    pub qclass: Class,
    /// DNSSEC records are wanted (DO).
    pub wants_dnssec: bool,
    /// The client validates itself (CD).
    pub is_checking_disabled: bool,
}

impl<'a> Question<'a> {
    /// What `query` asks.
    #[must_use]
    pub fn of(query: &Query<'a>) -> Self {
        Self {
            qname: query.qname,
            qtype: query.qtype,
            qclass: query.qclass,
            wants_dnssec: query.wants_dnssec(),
            is_checking_disabled: query.is_checking_disabled(),
        }
    }
}

/// Writes the query for `question` with the given ID, with or without EDNS (RFC 6891 §6.2.2 wants both at hand).
///
/// # Errors
/// [`Full`]; cannot happen for a parsed name.
pub fn query(question: &Question<'_>, id: u16, with_edns: bool) -> Result<Vec<u8>, Full> {
    let checking = if question.is_checking_disabled { Flags::CD } else { 0 };
    let counts = [1, 0, 0, u16::from(with_edns)];
    let header = Header { id, flags: Flags(Flags::RD | checking), counts };
    let mut encoder = Encoder::new(header, usize::from(CLASSIC_UDP_BYTES));
    encoder.question(question.qname, question.qtype, question.qclass)?;
    if with_edns {
        let edns = Edns {
            payload_bytes: PAYLOAD_BYTES,
            version: 0,
            extended_rcode: 0,
            wants_dnssec: question.wants_dnssec,
        };
        let mut opt = [0; 16];
        let len = edns.write(None, &mut opt).ok_or(Full)?;
        encoder.bytes(opt.get(..len).ok_or(Full)?)?;
    }
    Ok(encoder.into_message())
}

/// Whether `message` answers `query`: the same ID, a response, and the same question (RFC 5452 §4.2, §4.3).
///
/// A server that refuses may leave the question out; that is an answer only if it carries no more than an OPT record.
#[must_use]
pub fn answers(query: &[u8], message: &[u8]) -> bool {
    let (Some(asked), Some(header)) = (Header::read(query), Header::read(message)) else {
        return false;
    };
    if header.id != asked.id || !header.flags.has(Flags::QR) || header.flags.opcode() != 0 {
        return false;
    }
    if header.counts == [0; 4] {
        return message.len() == HEADER_BYTES && is_refusal(header.flags.rcode());
    }
    if header.counts == [0, 0, 0, 1] {
        let has_opt = Response::parse(message).is_ok_and(|response| response.edns.is_some());
        return has_opt && is_refusal(header.flags.rcode());
    }
    let question = question_bytes(query);
    let [questions, ..] = header.counts;
    questions == 1
        && question.is_some()
        && question.zip(question_bytes(message)).is_some_and(|(asked, repeated)| {
            // Type and class hold no letters that could fold wrongly only because the lengths agree first.
            let (asked_name, asked_tail) = asked;
            let (name, tail) = repeated;
            asked_tail == tail && case::equal_folded(asked_name, name)
        })
}

/// Not what a server could say without having understood the question.
const fn is_refusal(rcode: Rcode) -> bool {
    !matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
}

/// Name and the octets of type and class of a message's question.
fn question_bytes(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let name_end = name::skip(message, HEADER_BYTES).ok()?;
    let name = message.get(HEADER_BYTES..name_end)?;
    Some((name, message.get(name_end..name_end + 4)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NameBuf;
    use crate::wire::edns::OPT_BYTES;

    fn built(name: &str, with_edns: bool) -> Vec<u8> {
        let name = NameBuf::from_text(name).unwrap();
        let question = Question {
            qname: name.as_name(),
            qtype: Rtype::A,
            qclass: Class::IN,
            wants_dnssec: true,
            is_checking_disabled: true,
        };
        query(&question, 0xBEEF, with_edns).unwrap()
    }

    fn reply_to(query: &[u8]) -> Vec<u8> {
        let mut reply = query.to_vec();
        reply[2] |= 0x80;
        reply
    }

    #[test]
    fn query_carries_question_rd_ad_cd_and_do() {
        let bytes = built("www.example.", true);
        let query = Query::parse(&bytes).unwrap();
        assert_eq!(query.header.flags.0, Flags::RD | Flags::CD);
        assert!(query.wants_dnssec());
        assert_eq!(query.edns.unwrap().payload_bytes, 1232);
        assert!(Query::parse(&built("www.example.", false)).unwrap().edns.is_none());
    }

    #[test]
    fn only_the_asked_question_with_the_asked_id_is_an_answer() {
        let query = built("www.example.", true);
        assert!(answers(&query, &reply_to(&query)));
        assert!(answers(&query, &reply_to(&built("WWW.Example.", true))));
        assert!(!answers(&query, &query));
        assert!(!answers(&query, &reply_to(&built("www.exbmple.", true))));
        for (at, octet) in [(0, 0), (1, 0), (5, 0), (5, 2), (2, 0xA9), (12, 4)] {
            let mut reply = reply_to(&query);
            reply[at] = octet;
            assert!(!answers(&query, &reply), "octet {at}");
        }
        let type_at = 12 + 13;
        for at in type_at..type_at + 4 {
            let mut reply = reply_to(&query);
            reply[at] ^= 0x20;
            assert!(!answers(&query, &reply), "octet {at}");
        }
    }

    #[test]
    fn bare_header_is_an_answer_only_as_an_error() {
        let query = built("www.example.", true);
        let mut reply = reply_to(&query)[..HEADER_BYTES].to_vec();
        reply[4..].fill(0);
        assert!(!answers(&query, &reply));
        reply[3] = 1;
        assert!(answers(&query, &reply));
        reply.push(0);
        assert!(!answers(&query, &reply));
        reply.pop();
        reply[3] = 3;
        assert!(!answers(&query, &reply));
    }

    #[test]
    fn opt_record_may_accompany_an_error_without_question() {
        let query = built("www.example.", true);
        let opt = query.len() - OPT_BYTES;
        let mut reply = [&reply_to(&query)[..HEADER_BYTES], &query[opt..]].concat();
        reply[5] = 0;
        assert!(!answers(&query, &reply));
        reply[3] = 1;
        assert!(answers(&query, &reply));
        reply[HEADER_BYTES + 2] = 1;
        assert!(!answers(&query, &reply), "not an OPT record");
    }

    #[test]
    fn garbage_is_no_answer() {
        let query = built("www.example.", true);
        let reply = reply_to(&query);
        for len in 0..12 + 13 + 4 {
            assert!(!answers(&query, &reply[..len]), "{len}");
        }
    }
}
