//! One query to one upstream: writing it, and knowing its answer from all else that arrives.

use super::cookie;
use crate::wire::edns::OPT_BYTES;
use crate::wire::encode::Full;
use crate::wire::{
    CLASSIC_UDP_BYTES, Class, Edns, Encoder, Flags, HEADER_BYTES, Header, Name, Query, Rcode,
    Response, Rtype, case, name, options,
};

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

/// What a query carries beside its question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form<'c> {
    /// The message ID.
    pub id: u16,
    /// What its OPT record says; without one for servers that choke on it.
    pub edns: Option<Extensions<'c>>,
}

/// The options of a query's OPT record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extensions<'c> {
    /// Our cookie, and behind it the server's if it has given one (RFC 7873 §4).
    pub cookie: Option<&'c [u8]>,
    /// The server may say how long it keeps an idle connection (RFC 7828 §3.2.1). For streams only.
    pub asks_keepalive: bool,
    /// The length is to tell nothing about the name (RFC 8467 §4.1). For encrypted streams only.
    pub is_padded: bool,
}

/// Lengths of padded queries are multiples of this (RFC 8467 §4.1).
const PADDED_BYTES: usize = 128;

/// Octets of an option's code and length.
const OPTION_HEAD_BYTES: usize = 4;

/// Writes the query for `question`, with or without EDNS (RFC 6891 §6.2.2 wants both at hand).
///
/// # Errors
/// [`Full`]; cannot happen for a parsed name.
pub fn query(question: &Question<'_>, form: Form<'_>) -> Result<Vec<u8>, Full> {
    let checking = if question.is_checking_disabled { Flags::CD } else { 0 };
    let counts = [1, 0, 0, u16::from(form.edns.is_some())];
    let header = Header { id: form.id, flags: Flags(Flags::RD | checking), counts };
    let mut encoder = Encoder::new(header, usize::from(CLASSIC_UDP_BYTES));
    // Its one name has nothing to be compressed against.
    encoder.stop_compressing();
    encoder.question(question.qname, question.qtype, question.qclass)?;
    if let Some(options) = form.edns {
        write_opt(&mut encoder, question.wants_dnssec, options)?;
    }
    Ok(encoder.into_message())
}

fn write_opt(
    encoder: &mut Encoder,
    wants_dnssec: bool,
    options: Extensions<'_>,
) -> Result<(), Full> {
    let edns = Edns { payload_bytes: PAYLOAD_BYTES, version: 0, extended_rcode: 0, wants_dnssec };
    let mut opt = [0; OPT_BYTES];
    edns.write(None, &mut opt).ok_or(Full)?;
    let cookie = options.cookie.map_or(0, |cookie| OPTION_HEAD_BYTES + cookie.len());
    let keepalive = if options.asks_keepalive { OPTION_HEAD_BYTES } else { 0 };
    let plain = encoder.len() + OPT_BYTES + cookie + keepalive + OPTION_HEAD_BYTES;
    let padding = plain.next_multiple_of(PADDED_BYTES) - plain;
    let padded = if options.is_padded { OPTION_HEAD_BYTES + padding } else { 0 };
    let len = u16::try_from(cookie + keepalive + padded).map_err(|_| Full)?;
    let [.., high, low] = &mut opt;
    [*high, *low] = len.to_be_bytes();
    encoder.bytes(&opt)?;
    let mut option = |code: u16, value: &[u8]| {
        encoder.u16(code)?;
        encoder.u16(u16::try_from(value.len()).map_err(|_| Full)?)?;
        encoder.bytes(value)
    };
    if let Some(cookie) = options.cookie {
        option(options::COOKIE, cookie)?;
    }
    if options.asks_keepalive {
        option(options::TCP_KEEPALIVE, &[])?;
    }
    if options.is_padded {
        option(options::PADDING, [0; PADDED_BYTES].get(..padding).ok_or(Full)?)?;
    }
    Ok(())
}

/// Puts the letters of the question's name into a casing that `bits` draws: who has not seen the query cannot repeat it
/// (draft-vixie-dnsext-dns0x20). Sixteen letters take one draw.
pub fn mix_casing(query: &mut [u8], mut bits: impl FnMut() -> u16) {
    const LOWER: u8 = 0x20;
    let Ok(end) = name::skip(query, HEADER_BYTES) else { return };
    let (mut drawn, mut left) = (0, 0);
    for octet in query.get_mut(HEADER_BYTES..end).unwrap_or_default() {
        // Length octets are below the letters.
        if !octet.is_ascii_alphabetic() {
            continue;
        }
        if left == 0 {
            (drawn, left) = (bits(), u16::BITS);
        }
        *octet = if drawn & 1 == 0 { *octet & !LOWER } else { *octet | LOWER };
        drawn >>= 1;
        left -= 1;
    }
}

/// Gives the name in the question of `message` the casing of `qname` again: names that are compressed into it, and so what
/// is kept and passed on, then show nothing of the casing that was drawn.
pub fn restore_casing(message: &mut [u8], qname: Name<'_>) {
    let qname = qname.as_bytes();
    let Some(repeated) = message.get_mut(HEADER_BYTES..HEADER_BYTES + qname.len()) else { return };
    if case::equal_folded(repeated, qname) {
        repeated.copy_from_slice(qname);
    }
}

/// What a message is to a query.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Judgement {
    /// Its answer.
    Answer,
    /// As that, but the name is in another casing: a server that does not keep it, or one who could not see it.
    OtherCasing,
    /// Nothing.
    Foreign(Mismatch),
}

/// Why a message with a query's ID is nothing to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mismatch {
    /// It is no response, or has another question.
    Question,
    /// It carries a cookie that is not ours (RFC 7873 §5.3).
    Cookie,
}

/// What `message` is to `query`: its answer has the same ID, is a response, and repeats the question (RFC 5452 §4.2,
/// §4.3) and our cookie, if it has any.
///
/// A server that refuses may leave the question out; that is an answer only if it carries no more than an OPT record.
#[must_use]
pub fn judge(query: &[u8], message: &[u8]) -> Judgement {
    let foreign = Judgement::Foreign(Mismatch::Question);
    let (Some(asked), Some(header)) = (Header::read(query), Header::read(message)) else {
        return foreign;
    };
    if header.id != asked.id || !header.flags.has(Flags::QR) || header.flags.opcode() != 0 {
        return foreign;
    }
    let judgement = match header.counts {
        [0, 0, 0, 0] if message.len() == HEADER_BYTES && is_refusal(header.flags.rcode()) => {
            Judgement::Answer
        }
        [0, 0, 0, 1] if is_refusal(header.flags.rcode()) && has_opt(message) => Judgement::Answer,
        [1, ..] => match (question_bytes(query), question_bytes(message)) {
            (Some(asked), Some(repeated)) if asked == repeated => Judgement::Answer,
            // Type and class hold no letters that could fold wrongly only because the lengths agree first.
            (Some((name, tail)), Some((repeated, repeated_tail)))
                if tail == repeated_tail && case::equal_folded(name, repeated) =>
            {
                Judgement::OtherCasing
            }
            _ => foreign,
        },
        _ => foreign,
    };
    if judgement != foreign && has_foreign_cookie(query, message) {
        return Judgement::Foreign(Mismatch::Cookie);
    }
    judgement
}

/// Whether `message` answers `query`, over a path where nobody can forge: the casing does not matter there.
#[must_use]
pub fn answers(query: &[u8], message: &[u8]) -> bool {
    matches!(judge(query, message), Judgement::Answer | Judgement::OtherCasing)
}

fn has_opt(message: &[u8]) -> bool {
    Response::parse(message).is_ok_and(|response| response.edns.is_some())
}

/// Whether both carry cookies, and not the same client's.
fn has_foreign_cookie(query: &[u8], message: &[u8]) -> bool {
    let Some(sent) = options::option(query, options::COOKIE) else { return false };
    let Some(back) = options::option(message, options::COOKIE) else { return false };
    sent.get(..cookie::CLIENT_BYTES) != back.get(..cookie::CLIENT_BYTES)
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

    fn built(name: &str, with_edns: bool) -> Vec<u8> {
        let name = NameBuf::from_text(name).unwrap();
        let question = Question {
            qname: name.as_name(),
            qtype: Rtype::A,
            qclass: Class::IN,
            wants_dnssec: true,
            is_checking_disabled: true,
        };
        let edns = with_edns.then(Extensions::default);
        query(&question, Form { id: 0xBEEF, edns }).unwrap()
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

    /// A query and its answer, with these cookies.
    fn judged(sent: &[u8], back: &[u8]) -> Judgement {
        let name = NameBuf::from_text("www.example.").unwrap();
        let question = Question {
            qname: name.as_name(),
            qtype: Rtype::A,
            qclass: Class::IN,
            wants_dnssec: false,
            is_checking_disabled: false,
        };
        let with = |cookie| {
            let edns = Some(Extensions { cookie: Some(cookie), ..Extensions::default() });
            query(&question, Form { id: 1, edns }).unwrap()
        };
        judge(&with(sent), &reply_to(&with(back)))
    }

    #[test]
    fn foreign_cookie_makes_an_answer_foreign() {
        assert_eq!(judged(b"ourclien", b"ourclienserverpart"), Judgement::Answer);
        assert_eq!(judged(b"ourclienoldserver", b"ourcliennewserver"), Judgement::Answer);
        for foreign in [&b"ourcliex"[..], b"ourclie", b""] {
            let cookie = Judgement::Foreign(Mismatch::Cookie);
            assert_eq!(judged(b"ourclien", foreign), cookie, "{foreign:?}");
        }
    }

    #[test]
    fn casing_is_mixed_and_must_come_back() {
        let mut query = built("www.example-7.", true);
        mix_casing(&mut query, || 0b0101_0101_0101_0101);
        assert_eq!(&query[HEADER_BYTES..][..15], b"\x03wWw\x09ExAmPlE-7\0");
        assert_eq!(judge(&query, &reply_to(&query)), Judgement::Answer);
        let flat = reply_to(&built("www.example-7.", true));
        assert_eq!(judge(&query, &flat), Judgement::OtherCasing);
        assert!(answers(&query, &flat), "over a stream nobody can forge");
        let mut draws = 0;
        mix_casing(&mut built("a234567890123456789012345678901234567890.bb.", false), || {
            draws += 1;
            0
        });
        assert_eq!(draws, 1, "digits take no bits");
    }

    #[test]
    fn casing_is_restored_where_the_name_is_repeated() {
        let plain = reply_to(&built("Www.Example.", true));
        let mut mixed = plain.clone();
        mix_casing(&mut mixed, || 0xAAAA);
        assert_ne!(mixed, plain);
        restore_casing(&mut mixed, NameBuf::from_text("Www.Example.").unwrap().as_name());
        assert_eq!(mixed, plain);
        let mut short = plain[..HEADER_BYTES + 4].to_vec();
        restore_casing(&mut short, NameBuf::from_text("www.other.").unwrap().as_name());
        assert_eq!(short, plain[..HEADER_BYTES + 4]);
    }

    #[test]
    fn padded_queries_have_few_lengths() {
        let padded = |name: &str| {
            let name = NameBuf::from_text(name).unwrap();
            let question = Question {
                qname: name.as_name(),
                qtype: Rtype::A,
                qclass: Class::IN,
                wants_dnssec: false,
                is_checking_disabled: false,
            };
            let edns =
                Some(Extensions { is_padded: true, asks_keepalive: true, ..Extensions::default() });
            let query = query(&question, Form { id: 1, edns }).unwrap();
            assert_eq!(options::option(&query, options::TCP_KEEPALIVE), Some(&[][..]));
            assert!(Query::parse(&query).is_ok());
            query.len()
        };
        assert_eq!([padded("a."), padded("a-longer-name.example.")], [128, 128]);
        assert_eq!(padded(&"abcdefghi.".repeat(10)), 256);
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
