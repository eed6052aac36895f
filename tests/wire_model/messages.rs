//! Messages to compare: plain ones written octet by octet, the same as the oracles write them, and damaged ones.

use domain::base::iana::{Opcode, Rcode};
use domain::base::message_builder::{MessageBuilder, TreeCompressor};
use domain::base::name::ParsedName;
use domain::base::record::ParsedRecord;
use domain::base::{Message, Record};
use domain::rdata::AllRecordData;
use hickory_proto::op::Message as HickoryMessage;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A record before it is written: section, owner, type, TTL, RDATA without compression.
pub(crate) type Spec = (usize, Vec<u8>, u16, u32, Vec<u8>);

/// Wire form of dotted text without escapes.
pub(crate) fn wire(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> = labels
        .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat())
        .collect();
    wire.push(0);
    wire
}

/// Names that share suffixes, with capitals, odd octets and the root among them.
pub(crate) fn name() -> impl Strategy<Value = Vec<u8>> {
    let label = prop_oneof![
        8 => select(vec!["www", "WWW", "a", "ns1", "_tcp", "Mail", "x-1"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..6),
        1 => vec(any::<u8>(), 63),
    ];
    let zone =
        select(vec!["example.com", "EXAMPLE.com", "example.net", "com", "sub.example.com", ""]);
    (vec(label, 0..3), zone).prop_map(|(labels, zone)| {
        let front = labels.iter().flat_map(|label| {
            let len = u8::try_from(label.len()).unwrap();
            std::iter::once(len).chain(label.iter().copied())
        });
        front.chain(wire(zone)).collect()
    })
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
        .prop_map(|octets| [vec![u8::try_from(octets.len()).unwrap()], octets].concat())
}

fn lead<const N: usize>(name: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (any::<[u8; N]>(), name).prop_map(|(lead, name)| [&lead[..], &name].concat())
}

fn rrsig() -> impl Strategy<Value = Vec<u8>> {
    (lead::<18>(name()), vec(any::<u8>(), 64))
        .prop_map(|(front, signature)| [front, signature].concat())
}

fn naptr() -> impl Strategy<Value = Vec<u8>> {
    let flags = select(vec![&b"\x01s"[..], b"\x01U", b"\0"]);
    (any::<[u8; 4]>(), flags, text(), text(), name()).prop_map(
        |(lead, flags, services, regexp, target)| {
            [&lead[..], flags, &services, &regexp, &target].concat()
        },
    )
}

fn svcb() -> impl Strategy<Value = Vec<u8>> {
    // Priority 1 and up: alpn and port; 0 is an alias and has no parameters.
    (name(), any::<bool>()).prop_map(|(target, is_alias)| {
        let parameters = &b"\x00\x01\x00\x03\x02h2\x00\x03\x00\x02\x01\xBB"[..];
        let (priority, parameters) = if is_alias { (0, &b""[..]) } else { (1, parameters) };
        [&[0, priority], &target[..], parameters].concat()
    })
}

fn rdata() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let of = |rtype: u16| move |rdata: Vec<u8>| (rtype, rdata);
    let soa = (name(), name(), any::<[u8; 20]>())
        .prop_map(|(mname, rname, numbers)| [&mname[..], &rname, &numbers].concat());
    let caa = text().prop_map(|value| [&b"\x00\x05issue"[..], &value[1..]].concat());
    prop_oneof![
        any::<[u8; 4]>().prop_map(|rdata| (1, rdata.to_vec())),
        any::<[u8; 16]>().prop_map(|rdata| (28, rdata.to_vec())),
        select(vec![2u16, 5, 12, 39]).prop_flat_map(move |rtype| name().prop_map(of(rtype))),
        soa.prop_map(of(6)),
        lead::<2>(name()).prop_map(of(15)),
        vec(text(), 1..4).prop_map(|texts| (16, texts.concat())),
        lead::<6>(name()).prop_map(of(33)),
        naptr().prop_map(of(35)),
        rrsig().prop_map(of(46)),
        vec(any::<u8>(), 36).prop_map(of(43)),
        caa.prop_map(of(257)),
        select(vec![64u16, 65]).prop_flat_map(move |rtype| svcb().prop_map(of(rtype))),
        vec(any::<u8>(), 1..30).prop_map(of(65280)),
    ]
}

/// Records in the order of their sections.
pub(crate) fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let ttl = prop_oneof![4 => 0..100_000u32, 1 => any::<u32>()];
    let spec = (0..3usize, name(), rdata(), ttl)
        .prop_map(|(section, owner, (rtype, rdata), ttl)| (section, owner, rtype, ttl, rdata));
    vec(spec, 0..9).prop_map(|mut specs| {
        specs.sort_by_key(|spec| spec.0);
        specs
    })
}

/// A response without any compression.
pub(crate) fn plain_response(
    flags: u16,
    qname: &[u8],
    qtype: u16,
    specs: &[Spec],
    opt: &[u8],
) -> Vec<u8> {
    let mut counts = [1u16, 0, 0, u16::from(!opt.is_empty())];
    let mut body = [qname, &qtype.to_be_bytes(), &[0, 1]].concat();
    for (section, owner, rtype, ttl, rdata) in specs {
        counts[section + 1] += 1;
        body.extend(owner);
        body.extend(rtype.to_be_bytes());
        body.extend([0, 1]);
        body.extend(ttl.to_be_bytes());
        body.extend(u16::try_from(rdata.len()).unwrap().to_be_bytes());
        body.extend(rdata);
    }
    let counts = counts.map(u16::to_be_bytes);
    [&[0x12, 0x34], &flags.to_be_bytes()[..], counts.as_flattened(), &body, opt].concat()
}

/// `plain` as `domain` writes it, with compression.
pub(crate) fn as_domain_writes(plain: &[u8]) -> Vec<u8> {
    let parsed = Message::from_octets(plain).unwrap();
    let target = TreeCompressor::new(Vec::new());
    let mut builder = MessageBuilder::from_target(target).unwrap();
    let header = parsed.header();
    *builder.header_mut() = header;
    assert_eq!((header.opcode(), header.rcode()), (Opcode::QUERY, Rcode::NOERROR));
    let mut question = builder.question();
    question.push(parsed.sole_question().unwrap()).unwrap();
    let mut answer = question.answer();
    for record in parsed.answer().unwrap() {
        answer.push(typed(record.unwrap())).unwrap();
    }
    let mut authority = answer.authority();
    for record in parsed.authority().unwrap() {
        authority.push(typed(record.unwrap())).unwrap();
    }
    let mut additional = authority.additional();
    for record in parsed.additional().unwrap() {
        additional.push(typed(record.unwrap())).unwrap();
    }
    additional.finish().into_target()
}

type Name<'a> = ParsedName<&'a [u8]>;

fn typed<'a>(
    record: ParsedRecord<'a, &'a [u8]>,
) -> Record<Name<'a>, AllRecordData<&'a [u8], Name<'a>>> {
    record.into_any_record().expect("right RDATA")
}

/// `plain` as `hickory-proto` writes it, with compression.
pub(crate) fn as_hickory_writes(plain: &[u8]) -> Vec<u8> {
    HickoryMessage::from_vec(plain).expect("right RDATA").to_vec().unwrap()
}

/// One thing that may happen to a message on its way from an attacker.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    /// An octet becomes another.
    Set(Index, u8),
    /// Two octets become a compression pointer to somewhere.
    Point(Index, Index),
    /// The message ends early.
    Cut(Index),
    /// Octets stand twice.
    Repeat(Index, u8),
    /// Octets are lost.
    Lose(Index, u8),
    /// Something stands behind the end.
    Append(Vec<u8>),
}

impl Damage {
    fn apply(&self, message: &mut Vec<u8>) {
        if message.is_empty() {
            return;
        }
        let len = message.len();
        match self {
            Self::Set(at, octet) => message[at.index(len)] = *octet,
            Self::Point(at, target) => {
                let (at, target) = (at.index(len), target.index(len.min(0x4000)));
                let pointer = (0xC000 | u16::try_from(target).unwrap()).to_be_bytes();
                for (slot, octet) in message.iter_mut().skip(at).zip(pointer) {
                    *slot = octet;
                }
            }
            Self::Cut(at) => message.truncate(at.index(len)),
            Self::Repeat(at, count) => {
                let at = at.index(len);
                let end = len.min(at + usize::from(*count));
                let part = message[at..end].to_vec();
                message.splice(at..at, part);
            }
            Self::Lose(at, count) => {
                let at = at.index(len);
                message.drain(at..len.min(at + usize::from(*count)));
            }
            Self::Append(octets) => message.extend(octets),
        }
    }
}

/// Up to four kinds of damage, most often in the header's counts or near names.
pub(crate) fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let octet = prop_oneof![
        3 => any::<u8>(),
        2 => select(vec![0u8, 1, 2, 12, 41, 63, 64, 0x80, 0xC0, 0xFF]),
    ];
    let damage = prop_oneof![
        6 => (any::<Index>(), octet).prop_map(|(at, octet)| Damage::Set(at, octet)),
        3 => (any::<Index>(), any::<Index>()).prop_map(|(at, to)| Damage::Point(at, to)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => (any::<Index>(), 1..20u8).prop_map(|(at, count)| Damage::Repeat(at, count)),
        1 => (any::<Index>(), 1..20u8).prop_map(|(at, count)| Damage::Lose(at, count)),
        1 => vec(any::<u8>(), 1..12).prop_map(Damage::Append),
    ];
    vec(damage, 0..5)
}

/// `message` after all `damages`.
pub(crate) fn damaged(message: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut message = message.to_vec();
    for damage in damages {
        damage.apply(&mut message);
    }
    message
}
