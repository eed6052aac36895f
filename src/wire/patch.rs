//! Hot path. One client's reply out of an answer at rest: header, the client's own question, the body with aged TTLs, OPT.

use super::answer::{Answer, Shape};
use super::edns::{Ede, Edns};
use super::{Flags, HEADER_BYTES, Header, Query, Rcode};

/// How the reply to one query is limited and what is said beside the answer.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    /// Longest reply in bytes, OPT included.
    pub limit: usize,
    /// UDP payload size that we offer in our OPT, in bytes.
    pub payload_bytes: u16,
    /// Why the answer is what it is; only sent to clients that speak EDNS.
    pub ede: Option<Ede>,
}

/// Flag bits that a reply takes over from its query (RFC 1035 §4.1.1, RFC 6840 §5.6).
const ECHOED: u16 = Flags::RD | Flags::CD;

/// What the TTLs of an answer at rest become in a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Aging {
    /// Less by so many seconds, never below zero.
    By(u32),
    /// All the same, in seconds: the answer is stale, and they have run out (RFC 8767 §4).
    To(u32),
}

/// Writes the reply to `query` out of `answer`, with TTLs by `aging`, and gives its length.
///
/// What does not fit is left out by whole sections: first the additional one, which nobody asked for, without a word
/// (RFC 2181 §9); then all records, with TC set. Header, question and OPT always stay (RFC 6891 §7).
///
/// `None` when those three alone exceed the limit or `out`: nothing can be sent.
pub fn reply(
    query: &Query<'_>,
    answer: &Answer<'_>,
    aging: Aging,
    framing: Framing,
    out: &mut [u8],
) -> Option<usize> {
    let limit = framing.limit.min(out.len());
    let out = out.get_mut(..limit)?;
    let question = query.question();
    let (header, rest) = out.split_first_chunk_mut::<HEADER_BYTES>()?;
    let (question_out, rest) = rest.split_at_mut_checked(question.len())?;
    question_out.copy_from_slice(question);
    let opt_bytes = opt_len(query, framing.ede);
    let (kept, counts, tc) = fit(&answer.shape, answer.body, rest.len(), opt_bytes);
    let (body, tail) = rest.split_at_mut_checked(kept.len())?;
    body.copy_from_slice(kept);
    age_ttls(body, answer.ttls, aging);
    let opt_len = match query.edns {
        Some(edns) => our_opt(edns, answer.shape.rcode, framing).write(framing.ede, tail)?,
        None => 0,
    };
    let [answers, authorities, additional] = counts;
    let additional = additional + u16::from(query.edns.is_some());
    let flags = reply_flags(query, &answer.shape) | tc;
    *header = Header {
        id: query.header.id,
        flags: Flags(flags),
        counts: [1, answers, authorities, additional],
    }
    .to_bytes();
    Some(HEADER_BYTES + question.len() + kept.len() + opt_len)
}

/// Writes a reply that is only a header: for messages whose question cannot be trusted.
///
/// `None` when `out` has no room for it.
pub fn bare(id: u16, query_flags: Flags, rcode: Rcode, out: &mut [u8]) -> Option<usize> {
    let opcode = query_flags.0 & 0x7800;
    let flags = Flags::QR | opcode | query_flags.0 & ECHOED | u16::from(rcode.header_bits());
    let header = Header { id, flags: Flags(flags), counts: [0; 4] };
    out.first_chunk_mut().map(|first| {
        *first = header.to_bytes();
        HEADER_BYTES
    })
}

/// Changes the TTLs at `offsets` in `body` by `aging`.
///
/// TTLs are aged in the copy, never in the slab: two clients of one batch may read the same entry.
pub fn age_ttls(body: &mut [u8], offsets: &[u8], aging: Aging) {
    if aging == Aging::By(0) {
        return;
    }
    for pair in offsets.as_chunks().0 {
        let at = usize::from(u16::from_le_bytes(*pair));
        // Offsets behind the kept part belong to sections that were left out.
        let Some(field) = body.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) else {
            return;
        };
        let ttl = match aging {
            Aging::By(age) => u32::from_be_bytes(*field).saturating_sub(age),
            Aging::To(ttl) => ttl,
        };
        *field = ttl.to_be_bytes();
    }
}

fn reply_flags(query: &Query<'_>, shape: &Shape) -> u16 {
    // AD only to those who showed that they understand it (RFC 6840 §5.7).
    let understands_ad = query.header.flags.has(Flags::AD) || query.wants_dnssec();
    let ours = if understands_ad { shape.flags } else { shape.flags & !Flags::AD };
    let echoed = query.header.flags.0 & ECHOED;
    // Without OPT the low bits of an extended RCODE would lie: those of BADVERS say NOERROR.
    let is_told_whole = shape.rcode.extended_bits() == 0 || query.edns.is_some();
    let rcode = if is_told_whole { shape.rcode } else { Rcode::SERVFAIL };
    Flags::QR | Flags::RA | echoed | ours | u16::from(rcode.header_bits())
}

/// The part of `body` that fits `room` with `opt_bytes` behind it, its record counts, and TC if records had to go.
fn fit<'a>(
    shape: &Shape,
    body: &'a [u8],
    room: usize,
    opt_bytes: usize,
) -> (&'a [u8], [u16; 3], u16) {
    let room = room.saturating_sub(opt_bytes);
    if body.len() <= room {
        return (body, shape.counts, 0);
    }
    let [answers, authorities, _] = shape.counts;
    match body.get(..usize::from(shape.essential_bytes)) {
        Some(essential) if essential.len() <= room => (essential, [answers, authorities, 0], 0),
        _ => (&[], [0; 3], Flags::TC),
    }
}

fn opt_len(query: &Query<'_>, ede: Option<Ede>) -> usize {
    // The error's text may be dropped by `Edns::write`, its code stays.
    let ede_bytes = if ede.is_some() { 6 } else { 0 };
    if query.edns.is_some() { super::edns::OPT_BYTES + ede_bytes } else { 0 }
}

const fn our_opt(client: Edns, rcode: Rcode, framing: Framing) -> Edns {
    Edns {
        payload_bytes: framing.payload_bytes,
        version: 0,
        extended_rcode: rcode.extended_bits(),
        wants_dnssec: client.wants_dnssec,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::CacheTime;
    use crate::wire::answer::{AnswerBuf, AnswerBuilder};
    use crate::wire::response::Section;
    use crate::wire::{Class, Response, Rtype};

    const QUERY: &[u8] = b"\xAB\xCD\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\
        \x03wWw\x07example\x00\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00";
    const WIDE: Framing = Framing { limit: 4096, payload_bytes: 1232, ede: None };

    fn plain_query() -> Vec<u8> {
        let mut bytes = QUERY[..QUERY.len() - 11].to_vec();
        bytes[11] = 0;
        bytes
    }

    fn answer(addresses: u8, glue: u8) -> AnswerBuf {
        let query = Query::parse(QUERY).unwrap();
        let name = query.qname;
        let mut builder = AnswerBuilder::new(name, Rtype::A, Class::IN, Rcode::NOERROR).unwrap();
        for octet in 0..addresses {
            let rdata = [192, 0, 2, octet];
            builder.write(Section::Answer, name, Rtype::A, Class::IN, 300, &rdata).unwrap();
        }
        for _ in 0..glue {
            builder.write(Section::Additional, name, Rtype::A, Class::IN, 300, &[0; 4]).unwrap();
        }
        builder.set_flags(Flags::AD);
        builder.finish()
    }

    fn replied(query: &[u8], answer: &AnswerBuf, age: u32, framing: Framing) -> Vec<u8> {
        let mut out = [0; 4096];
        let query = Query::parse(query).unwrap();
        let view = answer.view(CacheTime::default());
        let len = reply(&query, &view, Aging::By(age), framing, &mut out).unwrap();
        out[..len].to_vec()
    }

    #[test]
    fn reply_keeps_id_casing_and_rd_and_ages_every_ttl() {
        let bytes = replied(QUERY, &answer(3, 1), 100, WIDE);
        let response = Response::parse(&bytes).unwrap();
        assert_eq!(response.header.id, 0xABCD);
        assert_eq!(response.header.flags.0, Flags::QR | Flags::RD | Flags::RA);
        assert_eq!(response.question.unwrap().qname.to_string(), "wWw.example.");
        assert_eq!(response.records.len(), 4);
        assert!(response.records.iter().all(|record| record.ttl == 200));
        assert_eq!(response.edns.unwrap().payload_bytes, 1232);
    }

    #[test]
    fn client_without_edns_gets_no_opt() {
        let bytes = replied(&plain_query(), &answer(1, 0), 0, WIDE);
        assert_eq!(Response::parse(&bytes).unwrap().edns, None);
    }

    #[test]
    fn additional_records_go_first_and_silently() {
        let answer = answer(3, 60);
        let bytes = replied(QUERY, &answer, 5, Framing { limit: 512, ..WIDE });
        let response = Response::parse(&bytes).unwrap();
        assert!(!response.header.flags.has(Flags::TC));
        assert_eq!(response.header.counts, [1, 3, 0, 1]);
        assert!(response.records.iter().all(|record| record.ttl == 295));
    }

    #[test]
    fn answer_that_does_not_fit_leaves_only_question_and_opt_with_tc() {
        let answer = answer(60, 0);
        let whole = replied(QUERY, &answer, 0, WIDE).len();
        let exact = replied(QUERY, &answer, 0, Framing { limit: whole, ..WIDE });
        assert!(!Response::parse(&exact).unwrap().header.flags.has(Flags::TC));
        let cut = replied(QUERY, &answer, 0, Framing { limit: whole - 1, ..WIDE });
        let response = Response::parse(&cut).unwrap();
        assert!(response.header.flags.has(Flags::TC));
        assert_eq!(response.header.counts, [1, 0, 0, 1]);
        assert!(response.edns.is_some());
    }

    #[test]
    fn nothing_is_sent_when_not_even_the_question_fits() {
        let query = Query::parse(QUERY).unwrap();
        let answer = answer(0, 0);
        let view = answer.view(CacheTime::default());
        for len in 0..QUERY.len() {
            let mut out = vec![0; len];
            assert_eq!(reply(&query, &view, Aging::By(0), WIDE, &mut out), None, "{len}");
        }
        let mut out = [0; QUERY.len()];
        assert_eq!(reply(&query, &view, Aging::By(0), WIDE, &mut out), Some(QUERY.len()));
    }

    #[test]
    fn ad_is_for_those_who_ask() {
        let mut asks = plain_query();
        asks[3] |= 0x20;
        let answer = answer(1, 0);
        let has_ad = |query: &[u8]| {
            let bytes = replied(query, &answer, 0, WIDE);
            Response::parse(&bytes).unwrap().header.flags.has(Flags::AD)
        };
        assert!(!has_ad(&plain_query()));
        assert!(has_ad(&asks));
    }

    #[test]
    fn ttl_never_goes_below_zero() {
        let bytes = replied(QUERY, &answer(1, 0), 301, WIDE);
        assert_eq!(Response::parse(&bytes).unwrap().records[0].ttl, 0);
    }

    #[test]
    fn stale_ttls_are_all_the_same() {
        let mut body = *b"\x00\x00\x00\x07\x00\x01\x00\x00";
        age_ttls(&mut body, &[0, 0, 4, 0], Aging::To(30));
        assert_eq!(body, *b"\x00\x00\x00\x1e\x00\x00\x00\x1e");
    }

    #[test]
    fn extended_rcode_and_error_reach_the_opt() {
        let ede = Some(Ede::NOT_SUPPORTED);
        let bytes = replied(QUERY, &AnswerBuf::empty(Rcode::BADVERS), 0, Framing { ede, ..WIDE });
        let response = Response::parse(&bytes).unwrap();
        assert_eq!(response.rcode(), Rcode::BADVERS);
        assert!(bytes.ends_with(&[0, 15, 0, 2, 0, 21]));
    }

    #[test]
    fn extended_rcode_is_a_failure_to_clients_without_edns() {
        let bytes = replied(&plain_query(), &AnswerBuf::empty(Rcode::BADVERS), 0, WIDE);
        assert_eq!(Response::parse(&bytes).unwrap().rcode(), Rcode::SERVFAIL);
    }

    #[test]
    fn bare_reply_echoes_id_opcode_and_rd() {
        let mut out = [0; 12];
        assert_eq!(bare(7, Flags(0x2900), Rcode::NOTIMP, &mut out), Some(12));
        assert_eq!(out, *b"\x00\x07\xA9\x04\0\0\0\0\0\0\0\0");
        assert_eq!(bare(7, Flags(0), Rcode::FORMERR, &mut [0; 11]), None);
    }
}
