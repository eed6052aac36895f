//! Is an answer at rest what it says? For those that come from outside, a file for instance: what passes is a body that
//! [`super::answer::AnswerBuilder`] could have written, so that no reply made of it can be broken.

use super::answer::Answer;
use super::name::NameBuf;
use super::reader::Reader;
use super::response::{Question, Record, Section};
use super::{Class, HEADER_BYTES, MESSAGE_BYTES_MAX, Rtype, rdata};

/// Stands where a reply's header will be. As a label it is a pointer to behind itself, so no name can lead there.
const NO_NAME: u8 = 0xFF;

/// Checks answers one after the other; keeps the memory that it needs for it.
#[derive(Debug, Default)]
pub struct Examiner {
    message: Vec<u8>,
}

impl Examiner {
    /// The smallest TTL of `answer` to `question` in seconds, if the answer is sound: records as many as it counts, each
    /// whole, TTLs where its table says, the border of what may be cut where it says, names that can be read, and nothing
    /// behind the last record. An answer without records is not.
    ///
    /// `is_plain` says that the body must fit other questions, too: no name may be compressed.
    pub fn least_ttl(
        &mut self,
        question: &Question<'_>,
        answer: &Answer<'_>,
        is_plain: bool,
    ) -> Option<u32> {
        let message = &mut self.message;
        message.clear();
        message.extend([NO_NAME; HEADER_BYTES]);
        message.extend(question.qname.as_bytes());
        message.extend(question.qtype.0.to_be_bytes());
        message.extend(question.qclass.0.to_be_bytes());
        let body_at = message.len();
        message.extend(answer.body);
        if message.len() > MESSAGE_BYTES_MAX {
            return None;
        }
        let mut reader = Reader::new(message, body_at);
        let mut ttls = answer.ttls.as_chunks().0.iter();
        let mut least = None;
        for (section, count) in [Section::Answer, Section::Authority, Section::Additional]
            .into_iter()
            .zip(answer.shape.counts)
        {
            for _ in 0..count {
                let (ttl_at, record) = read_record(message, &mut reader, section, is_plain)?;
                let stated = usize::from(u16::from_le_bytes(*ttls.next()?));
                let is_sound = stated == ttl_at - body_at
                    && i32::try_from(record.ttl).is_ok()
                    && rdata::is_own(message, &record, is_plain);
                if !is_sound {
                    return None;
                }
                least = Some(least.map_or(record.ttl, |least: u32| least.min(record.ttl)));
            }
            let end = reader.offset() - body_at;
            if section == Section::Authority && end != usize::from(answer.shape.essential_bytes) {
                return None;
            }
        }
        if reader.is_at_end() && ttls.next().is_none() { least } else { None }
    }
}

/// The record at `reader`, and where its TTL stands. OPT is none: every reply has its own.
fn read_record(
    message: &[u8],
    reader: &mut Reader<'_>,
    section: Section,
    is_plain: bool,
) -> Option<(usize, Record)> {
    let owner_at = reader.offset();
    let (owner, next) = NameBuf::expand(message, owner_at).ok()?;
    let is_allowed = !is_plain || owner.is_spelled_in(next - owner_at);
    reader.bytes(next - owner_at)?;
    let rtype = Rtype(reader.u16()?);
    let class = Class(reader.u16()?);
    let ttl_at = reader.offset();
    let ttl = reader.u32()?;
    let rdata_len = usize::from(reader.u16()?);
    let rdata_at = reader.offset();
    reader.bytes(rdata_len)?;
    let record = Record { section, owner_at, rtype, class, ttl, rdata_at, rdata_len };
    (is_allowed && rtype != Rtype::OPT).then_some((ttl_at, record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::CacheTime;
    use crate::wire::answer::{AnswerBuf, AnswerBuilder};
    use crate::wire::{Name, Rcode};

    fn question(name: &NameBuf) -> Question<'_> {
        Question { qname: name.as_name(), qtype: Rtype::MX, qclass: Class::IN }
    }

    /// An MX of the name itself, its SOA, and an address in the additional section.
    fn answer(rcode: Rcode) -> (NameBuf, AnswerBuf) {
        let name = NameBuf::from_text("www.example.").unwrap();
        let mut builder = AnswerBuilder::new(name.as_name(), Rtype::MX, Class::IN, rcode).unwrap();
        let owner = name.as_name();
        let mx = [&[0, 10][..], owner.as_bytes()].concat();
        builder.write(Section::Answer, owner, Rtype::MX, Class::IN, 300, &mx).unwrap();
        let soa = [&[0; 2][..], &[7; 20]].concat();
        let apex = owner.parent().unwrap();
        builder.write(Section::Authority, apex, Rtype::SOA, Class::IN, 60, &soa).unwrap();
        let address = [192, 0, 2, 1];
        builder.write(Section::Additional, owner, Rtype::A, Class::IN, 90, &address).unwrap();
        (name, builder.finish())
    }

    fn least_ttl(name: &NameBuf, answer: &AnswerBuf, is_plain: bool) -> Option<u32> {
        let view = answer.view(CacheTime::default());
        Examiner::default().least_ttl(&question(name), &view, is_plain)
    }

    #[test]
    fn what_the_builder_wrote_is_sound() {
        let (name, compressed) = answer(Rcode::NOERROR);
        assert_eq!(least_ttl(&name, &compressed, false), Some(60));
        assert_eq!(least_ttl(&name, &compressed, true), None, "its owners are pointers");
        let (name, plain) = answer(Rcode::NXDOMAIN);
        assert_eq!(least_ttl(&name, &plain, true), Some(60));
        assert_eq!(least_ttl(&name, &AnswerBuf::empty(Rcode::NOERROR), false), None);
    }

    #[test]
    fn numbers_that_do_not_fit_the_body_are_seen() {
        let (name, good) = answer(Rcode::NOERROR);
        let changes: [fn(&mut AnswerBuf); 9] = [
            |answer| answer.shape.counts = [2, 1, 0],
            |answer| answer.shape.counts = [1, 1, 2],
            |answer| answer.shape.counts = [1, 1, 0],
            |answer| answer.shape.essential_bytes += 1,
            |answer| answer.ttls[0] += 1,
            |answer| answer.ttls = answer.ttls[2..].into(),
            |answer| answer.ttls = [&answer.ttls[..], &[0, 0]].concat().into(),
            |answer| answer.body = answer.body[1..].into(),
            |answer| answer.body = [&answer.body[..], &[0]].concat().into(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut bad = good.clone();
            change(&mut bad);
            assert_eq!(least_ttl(&name, &bad, false), None, "change {number}");
        }
    }

    #[test]
    fn names_must_lead_somewhere_and_never_into_the_header() {
        let (name, good) = answer(Rcode::NOERROR);
        for target in (0..12).chain([30, 300]) {
            let mut bad = good.clone();
            bad.body[..2].copy_from_slice(&(0xC000u16 | target).to_be_bytes());
            assert_eq!(least_ttl(&name, &bad, false), None, "pointer to {target}");
        }
    }

    #[test]
    fn opt_and_giant_ttls_are_refused() {
        let (name, good) = answer(Rcode::NOERROR);
        let mut opt = good.clone();
        opt.body[2..4].copy_from_slice(&Rtype::OPT.0.to_be_bytes());
        let mut endless = good;
        endless.body[6] |= 0x80;
        for bad in [opt, endless] {
            assert_eq!(least_ttl(&name, &bad, false), None);
        }
    }

    #[test]
    fn name_of_a_service_must_be_spelled_out() {
        let name = NameBuf::from_text("www.example.").unwrap();
        let sound = |target: &[u8]| {
            let mut builder =
                AnswerBuilder::new(Name::ROOT, Rtype::MX, Class::IN, Rcode::NOERROR).unwrap();
            let rdata = [&[0; 6][..], target].concat();
            let section = Section::Answer;
            builder.write(section, name.as_name(), Rtype(33), Class::IN, 9, &rdata).unwrap();
            let root = NameBuf::new(Name::ROOT);
            least_ttl(&root, &builder.finish(), false) == Some(9)
        };
        assert!(sound(b"\x01a\x00"));
        assert!(!sound(b"\xC0\x11"));
    }
}
