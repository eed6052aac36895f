//! What an oracle says about a message, in a form that can be compared.

use domain::base::Message;
use domain::base::iana::Rtype as DomainRtype;
use domain::base::message::RecordSection;
use domain::base::name::{FlattenInto, Name as DomainName, ParsedName, ToName};
use domain::base::opt::{AllOptData, Opt};
use domain::base::rdata::ComposeRecordData;
use domain::base::record::ParsedRecord;
use domain::rdata::AllRecordData;
use hickory_proto::op::Message as HickoryMessage;
use hickory_proto::rr::Name as HickoryName;

/// One record: section, owner and type and class, TTL, RDATA with expanded names in canonical form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Line {
    pub(crate) section: usize,
    pub(crate) owner: Vec<u8>,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    /// `None` when the oracle does not take the RDATA for what its type demands.
    pub(crate) rdata: Option<Vec<u8>>,
}

/// An OPT record: where, and what it says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OptLine {
    pub(crate) section: usize,
    /// Its owner is the root, and written as the one octet that it should be.
    pub(crate) is_root_owned: bool,
    pub(crate) payload_bytes: u16,
    pub(crate) ttl: u32,
    /// Number of its options; `None` when they do not tile it.
    pub(crate) options: Option<usize>,
}

/// All that `domain` reads in one message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Content {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// Names as written, type, class.
    pub(crate) questions: Vec<(Vec<u8>, u16, u16)>,
    pub(crate) is_question_compressed: bool,
    pub(crate) lines: Vec<Line>,
    pub(crate) opts: Vec<OptLine>,
    /// Octets behind the last record.
    pub(crate) trailing: usize,
}

/// Reads all of `message` with `domain`; `None` when it is not well-formed. Only the RDATA of OPT must be right.
pub(crate) fn domain_reads(message: &[u8]) -> Option<Content> {
    let content = domain_reads_but_for_options(message)?;
    content.opts.iter().all(|opt| opt.options.is_some()).then_some(content)
}

/// As [`domain_reads`], but an OPT record may hold anything.
pub(crate) fn domain_reads_but_for_options(message: &[u8]) -> Option<Content> {
    let parsed = Message::from_octets(message).ok()?;
    let header = parsed.header();
    let mut content = Content {
        id: header.id(),
        flags: u16::from_be_bytes([message[2], message[3]]),
        questions: Vec::new(),
        is_question_compressed: false,
        lines: Vec::new(),
        opts: Vec::new(),
        trailing: 0,
    };
    let mut questions = parsed.question();
    let mut start = 12;
    for question in questions.by_ref() {
        let question = question.ok()?;
        let name = question.qname().to_vec().into_octets();
        content.questions.push((name, question.qtype().to_int(), question.qclass().to_int()));
    }
    for (name, ..) in &content.questions {
        content.is_question_compressed |= message.get(start..start + name.len()) != Some(name);
        start += name.len() + 4;
    }
    let mut section = questions.answer().ok()?;
    for number in 0.. {
        let mut start = section.pos();
        while let Some(record) = section.next() {
            let is_root_owned = message.get(start) == Some(&0);
            read_record(&mut content, number, is_root_owned, &record.ok()?)?;
            start = section.pos();
        }
        content.trailing = message.len() - section.pos();
        match next(section)? {
            Some(following) => section = following,
            None => break,
        }
    }
    Some(content)
}

type Section<'a> = RecordSection<'a, &'a [u8]>;

#[expect(
    clippy::option_option,
    reason = "outside: is it well-formed; inside: is there another section"
)]
fn next<'a>(section: RecordSection<'a, &'a [u8]>) -> Option<Option<Section<'a>>> {
    section.next_section().ok()
}

fn read_record(
    content: &mut Content,
    section: usize,
    is_root_owned: bool,
    record: &ParsedRecord<'_, &[u8]>,
) -> Option<()> {
    let owner: DomainName<Vec<u8>> = record.owner().flatten_into();
    let (rtype, class, ttl) = (record.rtype(), record.class().to_int(), record.ttl().as_secs());
    if rtype == DomainRtype::OPT {
        let opt = record.to_record::<Opt<_>>().ok().flatten();
        let count = |opt: &Opt<_>| opt.iter::<AllOptData<_, _>>().count();
        let options = opt.map(|record| count(record.data()));
        content.opts.push(OptLine { section, is_root_owned, payload_bytes: class, ttl, options });
        return Some(());
    }
    let typed = record.to_any_record::<AllRecordData<_, ParsedName<_>>>();
    let rdata = typed.ok().map(|record| {
        let mut canonical = Vec::new();
        record.data().compose_canonical_rdata(&mut canonical).unwrap();
        canonical
    });
    let owner = owner.into_octets().to_ascii_lowercase();
    let ttl = honest_ttl(ttl);
    content.lines.push(Line { section, owner, rtype: rtype.to_int(), class, ttl, rdata });
    Some(())
}

/// A TTL with the top bit set counts as zero (RFC 2181 §8).
pub(crate) fn honest_ttl(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

/// The wire form of a name of `hickory-proto`.
pub(crate) fn hickory_wire(name: &HickoryName) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.iter() {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend(label);
    }
    wire.push(0);
    wire
}

/// The records that `hickory-proto` reads, with honest TTLs; equality there ignores the case of names.
pub(crate) fn hickory_records(message: &HickoryMessage) -> Vec<hickory_proto::rr::Record> {
    let mut records: Vec<_> = message.all_sections().cloned().collect();
    for record in &mut records {
        record.ttl = honest_ttl(record.ttl);
    }
    records
}
