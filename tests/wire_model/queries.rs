//! Queries: what the oracles write we read alike; what is broken for one is broken for all, or the reason stands here.

use domain::base::Message;
use domain::base::iana::{Class as DomainClass, Rtype as DomainRtype};
use domain::base::message_builder::MessageBuilder;
use domain::base::name::Name as DomainName;
use domain::base::opt::UnknownOptData;
use heimdall_uring::wire::edns::EdnsError;
use heimdall_uring::wire::{CopiedQuery, Edns, Flags, Malformed, NameError, Query};
use hickory_proto::op::{Edns as HickoryEdns, Message as HickoryMessage, Query as HickoryQuery};
use hickory_proto::rr::{DNSClass, Name as HickoryName, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};
use proptest::collection::vec;
use proptest::prelude::*;

use super::budget;
use super::messages::{damaged, damages, name, wire};
use super::oracle::{Content, domain_reads, domain_reads_but_for_options, hickory_wire};

/// Why one side refuses a query that the other reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Difference {
    /// We refuse what is no ordinary query: QR, opcode, TC, or counts (RFC 1035 §4.1.1, RFC 9619 §4). Oracles read
    /// any message.
    NoQuery,
    /// We refuse a compressed question: before it stands only the header, where no name is (RFC 1035 §4.1.4).
    CompressedQuestion,
    /// We refuse an OPT whose owner is not the root octet itself (RFC 6891 §6.1.2: "MUST be 0"). `domain` never looks.
    OwnedOpt,
    /// We refuse a second OPT (RFC 6891 §6.1.1). `domain` takes the first.
    TwoOpts,
    /// We refuse more options than anyone sends: a bound on work.
    ManyOptions,
    /// We refuse an option that the end of its record cuts (RFC 6891 §6.1.2), and so does `domain`. `hickory-proto`
    /// leaves it out.
    CutOption,
    /// We refuse octets behind the last record, as Unbound and Knot do. The oracles ignore them.
    TrailingBytes,
    /// Oracles read records beside OPT in the additional section. We only step over them: they say nothing to us.
    UnreadRecord,
    /// `hickory-proto` reads inside of options. We step over them: what is unknown is ignored (RFC 6891 §6.1.2).
    UnreadOption,
}

/// What all three make of `message`; a difference that has no reason fails.
fn compare(message: &[u8]) -> Vec<Difference> {
    let ours = Query::parse(message);
    assert_copied_alike(message);
    let mut differences = Vec::new();
    let theirs = domain_reads(message);
    match (&ours, &theirs) {
        (Ok(query), Some(content)) => assert_same(query, content),
        (Err(malformed), Some(content)) => differences.push(why_refused(*malformed, content)),
        (Ok(query), None) => differences.push(why_taken(query)),
        (Err(_), None) => {}
    }
    let theirs = HickoryMessage::from_vec(message);
    match (&ours, &theirs) {
        (Ok(query), Ok(content)) => assert_same_as_hickory(query, content),
        (Err(malformed), Ok(content)) => {
            differences.push(why_refused_hickory(*malformed, message, content));
        }
        (Ok(query), Err(error)) => differences.push(why_taken_hickory(query, error)),
        (Err(_), Err(_)) => {}
    }
    differences
}

/// The checking reader comes to the same result, whatever it is.
pub(super) fn assert_copied_alike(message: &[u8]) {
    let viewed = Query::parse(message).map(|query| format!("{query:?}"));
    let copied = CopiedQuery::read(message).map(|query| format!("{:?}", query.view()));
    assert_eq!(viewed, copied, "{message:02x?}");
}

fn why_refused(malformed: Malformed, content: &Content) -> Difference {
    let flags = Flags(content.flags);
    let compressed = Difference::CompressedQuestion;
    let (difference, is_so) = match malformed {
        Malformed::Response => (Difference::NoQuery, flags.has(Flags::QR)),
        Malformed::Opcode(opcode) => (Difference::NoQuery, opcode != 0 && opcode == flags.opcode()),
        Malformed::Truncated => (Difference::NoQuery, flags.has(Flags::TC)),
        Malformed::QuestionCount(count) => {
            (Difference::NoQuery, count != 1 && usize::from(count) == content.questions.len())
        }
        Malformed::RecordCount => {
            let outside = content.lines.iter().map(|line| line.section);
            let outside = outside.chain(content.opts.iter().map(|opt| opt.section));
            let records = content.lines.len() + content.opts.len();
            (Difference::NoQuery, outside.min() < Some(2) || records > 4)
        }
        Malformed::Name(NameError::Pointer) => (compressed, content.is_question_compressed),
        Malformed::Record => {
            (Difference::OwnedOpt, content.opts.iter().any(|opt| !opt.is_root_owned))
        }
        Malformed::TwoOpts => (Difference::TwoOpts, content.opts.len() > 1),
        Malformed::Opt(EdnsError::Option) => {
            (Difference::ManyOptions, content.opts.iter().any(|opt| opt.options > Some(64)))
        }
        Malformed::TrailingBytes => (Difference::TrailingBytes, content.trailing > 0),
        Malformed::Short
        | Malformed::Name(_)
        | Malformed::Question
        | Malformed::Opt(EdnsError::Truncated) => (Difference::NoQuery, false),
    };
    assert!(is_so, "{malformed:?}, but domain reads {content:?}");
    difference
}

fn why_taken(query: &Query<'_>) -> Difference {
    assert!(has_other_records(query), "domain refuses {query:?}");
    Difference::UnreadRecord
}

fn has_other_records(query: &Query<'_>) -> bool {
    query.header.counts[3] > u16::from(query.edns.is_some())
}

fn why_refused_hickory(
    malformed: Malformed,
    message: &[u8],
    content: &HickoryMessage,
) -> Difference {
    match malformed {
        Malformed::Opt(EdnsError::Option) if domain_reads(message).is_none() => {
            assert!(content.edns.is_some(), "{content:?}");
            Difference::CutOption
        }
        other => {
            let domain = domain_reads_but_for_options(message);
            let content = domain.unwrap_or_else(|| panic!("{other:?}, but only hickory reads it"));
            why_refused(other, &content)
        }
    }
}

fn why_taken_hickory(query: &Query<'_>, error: &DecodeError) -> Difference {
    if has_other_records(query) {
        return Difference::UnreadRecord;
    }
    assert!(query.edns.is_some(), "hickory refuses {query:?}: {error}");
    Difference::UnreadOption
}

fn assert_same(query: &Query<'_>, content: &Content) {
    assert_eq!((query.header.id, query.header.flags.0), (content.id, content.flags));
    let question = (query.qname.as_bytes().to_vec(), query.qtype.0, query.qclass.0);
    assert_eq!(content.questions, [question]);
    assert_eq!(content.trailing, 0);
    let edns = content.opts.first().map(|opt| {
        let [extended_rcode, version, high, _] = opt.ttl.to_be_bytes();
        let wants_dnssec = high & 0x80 != 0;
        Edns { payload_bytes: opt.payload_bytes, version, extended_rcode, wants_dnssec }
    });
    assert_eq!(query.edns, edns);
}

fn assert_same_as_hickory(query: &Query<'_>, content: &HickoryMessage) {
    let flags = query.header.flags;
    assert_eq!(query.header.id, content.metadata.id);
    assert_eq!(flags.has(Flags::RD), content.metadata.recursion_desired);
    assert_eq!(flags.has(Flags::AD), content.metadata.authentic_data);
    assert_eq!(flags.has(Flags::CD), content.metadata.checking_disabled);
    let [question] = &content.queries[..] else { panic!("{:?}", content.queries) };
    assert_eq!(query.qname.as_bytes(), hickory_wire(&question.name));
    assert_eq!(query.qtype.0, u16::from(question.query_type));
    assert_eq!(query.qclass.0, u16::from(question.query_class));
    assert_eq!(query.edns.is_some(), content.edns.is_some());
    if let Some((ours, theirs)) = query.edns.zip(content.edns.as_ref()) {
        // It raises small sizes to 512 as it reads; we do that where the limit is used (RFC 6891 §6.2.3).
        assert_eq!(ours.payload_bytes.max(512), theirs.max_payload());
        assert_eq!(ours.version, theirs.version());
        assert_eq!(ours.wants_dnssec, theirs.flags().dnssec_ok);
    }
}

/// Codes and data of EDNS options.
type Options = Vec<(u16, Vec<u8>)>;

/// What a client asks.
#[derive(Clone, Debug)]
struct Asked {
    id: u16,
    has_rd: bool,
    has_cd: bool,
    qname: Vec<u8>,
    qtype: u16,
    qclass: u16,
    /// Payload size, DO, options.
    opt: Option<(u16, bool, Options)>,
}

fn asked() -> impl Strategy<Value = Asked> {
    // Codes from 65001 on are for local use: no oracle looks inside.
    let options = vec((65_001..65_535u16, vec(any::<u8>(), 0..20)), 0..4);
    let opt = proptest::option::of((any::<u16>(), any::<bool>(), options));
    let qclass = prop_oneof![4 => Just(1u16), 1 => proptest::sample::select(vec![3, 4, 255])];
    (any::<u16>(), any::<[bool; 2]>(), name(), any::<u16>(), qclass, opt).prop_map(
        |(id, [has_rd, has_cd], qname, qtype, qclass, opt)| Asked {
            id,
            has_rd,
            has_cd,
            qname,
            qtype,
            qclass,
            opt,
        },
    )
}

fn as_domain_asks(asked: &Asked) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    let header = builder.header_mut();
    header.set_id(asked.id);
    header.set_rd(asked.has_rd);
    header.set_cd(asked.has_cd);
    let mut question = builder.question();
    let qname = DomainName::from_octets(&asked.qname[..]).unwrap();
    let qtype = DomainRtype::from_int(asked.qtype);
    question.push((qname, qtype, DomainClass::from_int(asked.qclass))).unwrap();
    let mut additional = question.additional();
    if let Some((payload_bytes, wants_dnssec, options)) = &asked.opt {
        let written = additional.opt(|opt| {
            opt.set_udp_payload_size(*payload_bytes);
            opt.set_dnssec_ok(*wants_dnssec);
            for (code, data) in options {
                opt.push(&UnknownOptData::new((*code).into(), &data[..]).unwrap())?;
            }
            Ok(())
        });
        written.unwrap();
    }
    additional.finish()
}

fn as_hickory_asks(asked: &Asked) -> Vec<u8> {
    let mut message = HickoryMessage::query();
    message.metadata.id = asked.id;
    message.metadata.recursion_desired = asked.has_rd;
    message.metadata.checking_disabled = asked.has_cd;
    let qname = HickoryName::read(&mut BinDecoder::new(&asked.qname)).unwrap();
    let mut query = HickoryQuery::query(qname, RecordType::from(asked.qtype));
    query.set_query_class(DNSClass::from(asked.qclass));
    message.add_query(query);
    if let Some((payload_bytes, wants_dnssec, options)) = &asked.opt {
        let mut edns = HickoryEdns::new();
        edns.set_max_payload(*payload_bytes).set_version(0).set_dnssec_ok(*wants_dnssec);
        for (code, data) in options {
            let option = hickory_proto::rr::rdata::opt::EdnsOption::Unknown(*code, data.clone());
            edns.options_mut().insert(option);
        }
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn assert_says(message: &[u8], asked: &Asked) {
    let query = Query::parse(message).unwrap();
    assert_eq!((query.header.id, query.qname.as_bytes()), (asked.id, &asked.qname[..]));
    assert_eq!((query.qtype.0, query.qclass.0), (asked.qtype, asked.qclass));
    assert_eq!(query.header.flags.has(Flags::RD), asked.has_rd);
    assert_eq!(query.is_checking_disabled(), asked.has_cd);
    let opt = asked
        .opt
        .as_ref()
        .map(|(payload_bytes, wants_dnssec, _)| ((*payload_bytes).max(512), *wants_dnssec));
    let read = query.edns.map(|edns| (edns.payload_bytes.max(512), edns.wants_dnssec));
    assert_eq!(read, opt);
    assert!(Message::from_octets(message).unwrap().sole_question().is_ok());
}

const HEADER: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00";
const QUESTION: &[u8] = b"\x03WwW\x07example\x00\x00\x1c\x00\x01";
const OPT: &[u8] = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";

fn built(change: &[(usize, u8)], parts: &[&[u8]]) -> Vec<u8> {
    let mut message = [HEADER, &parts.concat()].concat();
    for &(at, octet) in change {
        message[at] = octet;
    }
    message
}

#[test]
fn each_difference_has_its_message() {
    let address = b"\xC0\x0C\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x01\x02\x03\x04";
    let short_address = b"\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x01\x01";
    let dangling = b"\xC0\xFF\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x01\x02\x03\x04";
    let opt_at = |pointer: &[u8]| [pointer, &OPT[1..]].concat();
    let subnet = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x05\x00\x08\x00\x01\x09";
    let cut = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x06\xFD\xE9\x00\x03\x01\x02";
    let mut many = OPT.to_vec();
    many[9..].copy_from_slice(&260u16.to_be_bytes());
    for _ in 0..65 {
        many.extend(b"\xFD\xE9\x00\x00");
    }
    use Difference::{
        CompressedQuestion, CutOption, ManyOptions, NoQuery, OwnedOpt, TrailingBytes, TwoOpts,
        UnreadOption, UnreadRecord,
    };
    let both = |difference| vec![difference; 2];
    for (message, expected) in [
        (built(&[(2, 0x81)], &[QUESTION]), both(NoQuery)),
        (built(&[(2, 0x20)], &[QUESTION]), both(NoQuery)),
        (built(&[(2, 0x03)], &[QUESTION]), both(NoQuery)),
        (built(&[(5, 0)], &[]), both(NoQuery)),
        (built(&[(5, 2)], &[QUESTION, QUESTION]), both(NoQuery)),
        (built(&[(7, 1)], &[QUESTION, address]), both(NoQuery)),
        (built(&[(11, 5)], &[QUESTION, &address.repeat(5)]), both(NoQuery)),
        (built(&[], &[b"\xC0\x04\x00\x01\x00\x01"]), both(CompressedQuestion)),
        (built(&[], &[b"\x01a\xC0\x07\x00\x01\x00\x01"]), both(CompressedQuestion)),
        (built(&[(11, 1)], &[QUESTION, b"\x01a", OPT]), vec![OwnedOpt]),
        (built(&[(11, 1)], &[QUESTION, &opt_at(b"\xC0\x18")]), both(OwnedOpt)),
        (built(&[(11, 2)], &[QUESTION, OPT, OPT]), vec![TwoOpts]),
        (built(&[(11, 1)], &[QUESTION, &many]), both(ManyOptions)),
        (built(&[(11, 1)], &[QUESTION, cut]), vec![CutOption]),
        (built(&[], &[QUESTION, b"\x00"]), both(TrailingBytes)),
        (built(&[(11, 1)], &[QUESTION, dangling]), both(UnreadRecord)),
        (built(&[(11, 1)], &[QUESTION, short_address]), vec![UnreadRecord]),
        (built(&[(11, 1)], &[QUESTION, subnet]), vec![UnreadOption]),
        (built(&[(11, 2)], &[QUESTION, OPT, address]), vec![]),
        // Two reasons at once: QR, and an option that only hickory forgives.
        (built(&[(2, 0x81), (11, 1)], &[QUESTION, cut]), vec![NoQuery]),
        ([HEADER, &wire("a.example"), b"\x00\x01\x00\x01"].concat(), vec![]),
    ] {
        assert_eq!(compare(&message), expected, "{}", message.escape_ascii());
    }
}

proptest! {
    #![proptest_config(budget(1_500))]

    #[test]
    fn what_the_oracles_ask_is_what_we_read(asked in asked()) {
        for message in [as_domain_asks(&asked), as_hickory_asks(&asked)] {
            assert_says(&message, &asked);
            prop_assert_eq!(compare(&message), []);
        }
    }

    #[test]
    fn damaged_queries_differ_for_known_reasons(asked in asked(), damages in damages()) {
        compare(&damaged(&as_domain_asks(&asked), &damages));
    }

    #[test]
    fn random_octets_differ_for_known_reasons(
        octets in vec(any::<u8>(), 0..64),
        additional in 0..3u8,
    ) {
        compare(&octets);
        let mut header = HEADER.to_vec();
        header[11] = additional;
        compare(&[&header[..], &octets].concat());
        compare(&[&header[..], QUESTION, &octets].concat());
    }
}
