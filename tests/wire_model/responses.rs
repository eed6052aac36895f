//! Responses: every record that the oracles write is found; what is broken for one is broken for all, or the reason
//! stands here.

use heimdall_uring::wire::response::Section;
use heimdall_uring::wire::{Flags, NameError, Response, ResponseError};
use hickory_proto::op::Message as HickoryMessage;
use hickory_proto::serialize::binary::DecodeError;
use proptest::collection::vec;
use proptest::prelude::*;

use super::budget;
use super::messages::{
    as_domain_writes, as_hickory_writes, damaged, damages, name, plain_response, specs, wire,
};
use super::oracle::{
    Content, domain_reads, domain_reads_but_for_options, hickory_wire, honest_ttl,
};

/// QR, RD, RA.
const FLAGS: u16 = 0x8180;

/// An OPT with DO and no options.
const OPT: &[u8] = b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00";

/// Why one side refuses a response that the other reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Difference {
    /// We refuse what is no ordinary response: QR, opcode (RFC 1035 §4.1.1).
    NoResponse,
    /// We refuse two questions (RFC 9619 §4).
    QuestionCount,
    /// We refuse a compressed question: before it stands only the header, where no name is (RFC 1035 §4.1.4).
    CompressedQuestion,
    /// We, like `hickory-proto`, refuse a pointer into its own name: it must lead to a prior name (RFC 1035 §4.1.4).
    /// `domain` wants it to lead backwards only.
    OwnName,
    /// We refuse more pointers than a name has labels; `domain` follows 255, `hickory-proto` any number.
    ManyPointers,
    /// We refuse OPT where it may not stand, and a second one (RFC 6891 §6.1.1). `domain` leaves that to its user.
    MisplacedOpt,
    /// We refuse more options than anyone sends: a bound on work.
    ManyOptions,
    /// We refuse an option that the end of its record cuts (RFC 6891 §6.1.2). `hickory-proto` leaves it out.
    CutOption,
    /// `hickory-proto` reads inside of options. We step over them: what is unknown is ignored (RFC 6891 §6.1.2).
    UnreadOption,
    /// `hickory-proto` reads all RDATA at once. We, like `domain`, read it when it is used: see `copies`.
    UnreadRdata,
    /// `hickory-proto` refuses a label that reaches into the name before it. No harm comes of it: names still end.
    Overlap,
    /// `hickory-proto` wants SIG and TSIG in the additional section only. For us they are records like others.
    Signature,
}

fn compare(message: &[u8]) -> Vec<Difference> {
    let ours = Response::parse(message);
    let mut differences = Vec::new();
    let theirs = domain_reads(message);
    match (&ours, &theirs) {
        (Ok(response), Some(content)) => assert_same(response, content),
        (Err(error), Some(content)) => differences.push(why_refused(*error, content, message)),
        (Ok(response), None) => panic!("domain refuses {response:?}"),
        (Err(_), None) => {}
    }
    match (&ours, &HickoryMessage::from_vec(message)) {
        (Ok(response), Ok(content)) => assert_same_as_hickory(response, content),
        (Err(ResponseError::Opt), Ok(content)) if theirs.is_none() => {
            assert!(content.edns.is_some(), "{content:?}");
            differences.push(Difference::CutOption);
        }
        (Err(error), Ok(_)) => {
            let content = domain_reads_but_for_options(message);
            let content = content.unwrap_or_else(|| panic!("{error:?}, but only hickory reads it"));
            differences.push(why_refused(*error, &content, message));
        }
        (Ok(response), Err(error)) => differences.push(why_taken(response, error)),
        (Err(_), Err(_)) => {}
    }
    differences
}

fn why_refused(error: ResponseError, content: &Content, message: &[u8]) -> Difference {
    let flags = Flags(content.flags);
    let hickory = || HickoryMessage::from_vec(message).err();
    let (difference, is_so) = match error {
        ResponseError::Query => (Difference::NoResponse, !flags.has(Flags::QR)),
        ResponseError::Opcode => (Difference::NoResponse, flags.opcode() != 0),
        ResponseError::QuestionCount => (Difference::QuestionCount, content.questions.len() > 1),
        ResponseError::Question => (Difference::CompressedQuestion, content.is_question_compressed),
        ResponseError::Owner(NameError::Pointer) => match hickory() {
            Some(error) => {
                let is_pointer = matches!(error, DecodeError::PointerNotPriorToLabel { .. });
                (Difference::OwnName, is_pointer || has_earlier_fault(message))
            }
            None => (Difference::ManyPointers, true),
        },
        ResponseError::Opt if content.opts.iter().any(|opt| opt.options > Some(64)) => {
            (Difference::ManyOptions, true)
        }
        ResponseError::Opt => {
            let is_misplaced = content.opts.iter().any(|opt| opt.section < 2 || !opt.is_root_owned);
            (Difference::MisplacedOpt, is_misplaced || content.opts.len() > 1)
        }
        ResponseError::Short | ResponseError::Owner(_) | ResponseError::Record => {
            (Difference::NoResponse, false)
        }
    };
    assert!(is_so, "{error:?}, but an oracle reads {content:?}");
    difference
}

/// Whether `hickory-proto` stumbles before it comes to the record whose owner we refuse.
fn has_earlier_fault(message: &[u8]) -> bool {
    let mut counts = [0; 4];
    for (slot, pair) in counts.iter_mut().zip(message[4..12].as_chunks::<2>().0) {
        *slot = u16::from_be_bytes(*pair);
    }
    // The longest front part that we read, with the counts that make it whole.
    let mut fronts = (0..3)
        .rev()
        .flat_map(|section| (0..counts[section + 1]).rev().map(move |count| (section, count)));
    fronts.any(|(section, count)| {
        let mut front = message.to_vec();
        front[6 + 2 * section..12].fill(0);
        front[6 + 2 * section..][..2].copy_from_slice(&count.to_be_bytes());
        Response::parse(&front).is_ok() && HickoryMessage::from_vec(&front).is_err()
    })
}

fn why_taken(response: &Response<'_>, error: &DecodeError) -> Difference {
    if matches!(error, DecodeError::LabelOverlapsWithOther { .. }) {
        return Difference::Overlap;
    }
    // The same message with all records of an unknown type: now their RDATA is opaque to it as well.
    let opaque = without_types(response);
    let (is_opaque_read, has_empty) = match HickoryMessage::from_vec(&opaque) {
        Ok(_) => (true, false),
        Err(DecodeError::InvalidEmptyRecord) => (false, true),
        Err(DecodeError::LabelOverlapsWithOther { .. }) => return Difference::Overlap,
        Err(_) => (false, false),
    };
    if matches!(error, DecodeError::RecordNotInAdditionalSection(_)) && is_opaque_read {
        return Difference::Signature;
    }
    if is_opaque_read || has_empty && response.records.iter().any(|record| record.rdata_len == 0) {
        return Difference::UnreadRdata;
    }
    assert!(response.edns.is_some(), "hickory refuses {response:?}: {error}");
    Difference::UnreadOption
}

fn without_types(response: &Response<'_>) -> Vec<u8> {
    let mut message = response.message().to_vec();
    for record in &response.records {
        message[record.rdata_at - 10..][..2].copy_from_slice(&65_280u16.to_be_bytes());
    }
    message
}

fn section_number(section: Section) -> usize {
    [Section::Answer, Section::Authority, Section::Additional]
        .iter()
        .position(|&each| each == section)
        .unwrap()
}

fn assert_same(response: &Response<'_>, content: &Content) {
    assert_eq!((response.header.id, response.header.flags.0), (content.id, content.flags));
    let question = response
        .question
        .map(|question| (question.qname.as_bytes().to_vec(), question.qtype.0, question.qclass.0));
    assert_eq!(Vec::from_iter(question), content.questions);
    assert_eq!(response.records.len(), content.lines.len());
    for (record, line) in response.records.iter().zip(&content.lines) {
        let mut owner = response.owner(record).unwrap();
        owner.make_lower();
        assert_eq!(section_number(record.section), line.section);
        assert_eq!(owner.as_name().as_bytes(), line.owner);
        assert_eq!((record.rtype.0, record.class.0), (line.rtype, line.class));
        assert_eq!(record.ttl, line.ttl);
        let has_target = matches!(record.rtype.0, 2 | 5 | 12 | 39);
        if let Some(rdata) = line.rdata.as_ref().filter(|_| has_target) {
            let target = response.target(record).map(|mut target| {
                target.make_lower();
                target.as_name().as_bytes().to_vec()
            });
            // Pointers into their own name: see `Difference::OwnName`.
            assert!(target.as_ref() == Ok(rdata) || target == Err(NameError::Pointer));
        }
    }
    let opt = content.opts.first();
    assert_eq!(response.edns.map(|edns| edns.payload_bytes), opt.map(|opt| opt.payload_bytes));
    let extended = opt.map_or(0, |opt| u16::from(opt.ttl.to_be_bytes()[0]) << 4);
    assert_eq!(response.rcode().0, content.flags & 0x0F | extended);
}

fn assert_same_as_hickory(response: &Response<'_>, content: &HickoryMessage) {
    let theirs: Vec<_> = content.all_sections().collect();
    assert_eq!(response.records.len(), theirs.len());
    for (record, theirs) in response.records.iter().zip(theirs) {
        let owner = response.owner(record).unwrap();
        assert_eq!(owner.as_name().as_bytes(), hickory_wire(&theirs.name));
        assert_eq!(record.rtype.0, u16::from(theirs.record_type()));
        assert_eq!(record.class.0, u16::from(theirs.dns_class));
        assert_eq!(record.ttl, honest_ttl(theirs.ttl));
    }
    assert_eq!(response.header.id, content.metadata.id);
    let edns = response.edns.zip(content.edns.as_ref());
    assert_eq!(response.edns.is_some(), content.edns.is_some());
    assert!(edns.is_none_or(|(ours, theirs)| ours.wants_dnssec == theirs.flags().dnssec_ok));
}

#[test]
fn each_difference_has_its_message() {
    use Difference::{
        CompressedQuestion, CutOption, ManyOptions, ManyPointers, MisplacedOpt, NoResponse,
        Overlap, OwnName, QuestionCount, Signature, UnreadOption, UnreadRdata,
    };
    let header = |flags: u16, counts: [u16; 4]| {
        [&[0, 7], &flags.to_be_bytes()[..], counts.map(u16::to_be_bytes).as_flattened()].concat()
    };
    let question = [&wire("www.example")[..], b"\x00\x01\x00\x01"].concat();
    let message = |counts: [u16; 4], records: &[u8]| {
        [&header(FLAGS, counts)[..], &question, records].concat()
    };
    let of = |owner: &[u8], rtype: u8, rdata: &[u8]| {
        let len = u8::try_from(rdata.len()).unwrap();
        [owner, &[0, rtype, 0, 1, 0, 0, 0, 9, 0, len], rdata].concat()
    };
    let opt = |options: &[u8]| {
        let len = u16::try_from(options.len()).unwrap().to_be_bytes();
        [&OPT[..9], &len, options].concat()
    };
    let address = of(b"\xC0\x0C", 1, &[192, 0, 2, 1]);
    // 130 pointers, each to the one before; the first to the question.
    let first = 12 + question.len() + 11;
    let mut chain = vec![0xC0, 0x0C];
    for link in 0..130 {
        chain.extend((0xC000 | u16::try_from(first + 2 * link).unwrap()).to_be_bytes());
    }
    let mut pointers = [b"\0\xFF\0\0\x01\0\0\0\0".as_slice(), &[1, 6], &chain].concat();
    let last = (0xC000 | u16::try_from(first + 260).unwrap()).to_be_bytes();
    pointers.extend(of(&last, 1, &[1, 2, 3, 4]));
    // The last octet of the first RDATA is the length of a label that reaches into the second record.
    let overlap = [of(b"\xC0\x0C", 1, &[1, 2, 3, 4]), of(b"\xC0\x2C", 1, &[0; 4])].concat();
    let both = |difference| vec![difference; 2];
    for (message, expected) in [
        ([header(0x0100, [1, 0, 0, 0]), question.clone()].concat(), both(NoResponse)),
        ([header(0xA000, [1, 0, 0, 0]), question.clone()].concat(), both(NoResponse)),
        (message([2, 0, 0, 0], &question), both(QuestionCount)),
        (
            [&header(FLAGS, [1, 0, 0, 0])[..], b"\xC0\x04\0\x01\0\x01"].concat(),
            both(CompressedQuestion),
        ),
        (message([1, 1, 0, 0], &of(b"\x03\x01a\x00\xC0\x1E", 1, &[0; 4])), vec![OwnName]),
        (message([1, 2, 0, 0], &pointers), both(ManyPointers)),
        (message([1, 1, 0, 0], OPT), vec![MisplacedOpt]),
        (message([1, 0, 0, 2], &[OPT, OPT].concat()), vec![MisplacedOpt]),
        (message([1, 0, 0, 1], &[b"\x01a", OPT].concat()), vec![MisplacedOpt]),
        (message([1, 0, 0, 1], &opt(&b"\xFD\xE9\0\0".repeat(65))), both(ManyOptions)),
        (message([1, 0, 0, 1], &opt(b"\xFD\xE9\x00\x03\x01\x02")), vec![CutOption]),
        (message([1, 0, 0, 1], &opt(b"\x00\x08\x00\x01\x09")), vec![UnreadOption]),
        (message([1, 1, 0, 0], &of(b"\xC0\x0C", 1, &[1, 2, 3])), vec![UnreadRdata]),
        (message([1, 1, 0, 0], &of(b"\xC0\x0C", 5, b"")), vec![UnreadRdata]),
        (message([1, 2, 0, 0], &overlap), vec![Overlap]),
        (message([1, 1, 0, 0], &of(b"\x00", 24, &[0; 30])), vec![Signature]),
        (message([1, 1, 0, 0], &[&address[..], b"behind"].concat()), vec![]),
        (message([1, 1, 0, 1], &[&address[..], OPT].concat()), vec![]),
        // Two reasons at once: QR, and an option that only hickory forgives.
        (
            [&header(0x0100, [1, 0, 0, 1])[..], &question, &opt(b"\xFD\xE9\x00\x03\x01\x02")]
                .concat(),
            vec![NoResponse],
        ),
        (header(FLAGS | 5, [0; 4]), vec![]),
    ] {
        assert_eq!(compare(&message), expected, "{}", message.escape_ascii());
    }
}

proptest! {
    #![proptest_config(budget(600))]

    #[test]
    fn what_the_oracles_write_is_what_we_read(
        qname in name(),
        qtype in any::<u16>(),
        specs in specs(),
        has_opt in any::<bool>(),
    ) {
        let opt = if has_opt { OPT } else { b"" };
        let plain = plain_response(FLAGS, &qname, qtype, &specs, opt);
        let reference = domain_reads(&plain).unwrap();
        // `domain` is given no OPT: its typed copy has another way to write one.
        let bare = plain_response(FLAGS, &qname, qtype, &specs, b"");
        for message in [as_domain_writes(&bare), as_hickory_writes(&plain), plain] {
            let response = Response::parse(&message).unwrap();
            prop_assert_eq!(response.records.len(), specs.len());
            prop_assert_eq!(domain_reads(&message).unwrap().lines, reference.lines.clone());
            prop_assert_eq!(compare(&message), []);
        }
    }

    #[test]
    fn damaged_responses_differ_for_known_reasons(
        qname in name(),
        specs in specs(),
        damages in damages(),
    ) {
        let plain = plain_response(FLAGS, &qname, 1, &specs, OPT);
        compare(&damaged(&plain, &damages));
        compare(&damaged(&as_hickory_writes(&plain), &damages));
    }

    #[test]
    fn random_octets_differ_for_known_reasons(
        octets in vec(any::<u8>(), 0..80),
        counts in vec(0..3u8, 4),
    ) {
        compare(&octets);
        let counts: Vec<u8> = counts.iter().flat_map(|&count| [0, count]).collect();
        compare(&[&[0, 7, 0x81, 0x80], &counts[..], &octets].concat());
    }
}
