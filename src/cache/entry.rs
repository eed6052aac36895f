//! Hot path. An entry as it lies in memory: a head of numbers, the key, the TTL offsets, the body.
//!
//! What lookup and eviction read stands in front, in the cache line that they have to fetch anyway; nothing about an
//! entry is kept anywhere else but its place in the index.

use super::key::{CLASS_BYTES, Key, KeyParts, OTHER_CLASS, TAIL_BYTES};
use super::segment::Segment;
use crate::time::CacheTime;
use crate::wire::answer::Shape;
use crate::wire::{Answer, AnswerBuf, Flags, Rcode};

/// Octets of every head: mark 1 · name length 1 · traits 1 · stored 6 · lifetime 3 · body length 2.
pub(super) const HEAD_BYTES: usize = 14;

/// Octets behind the head when only one section holds records, at most 255: their number.
const PLAIN_BYTES: usize = 1;

/// Octets behind the head otherwise: three counts, and where the body may be cut.
const FULL_BYTES: usize = 8;

/// Longest lifetime that the head has room for, in seconds: 194 days. TTLs beyond count down, but end then.
const LIFETIME_MAX: u32 = (1 << 24) - 1;

/// By how much the clock may be set back without making entries useless.
pub(super) const AHEAD_MILLIS_MAX: u64 = 2_000;

/// How often an entry was asked for lately saturates here.
pub(super) const ACCESSES_MAX: u8 = 7;

/// The octet of an entry that changes while it lies: who keeps it, how often it was asked for, what became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Mark(u8);

impl Mark {
    const ACCESSES: u8 = ACCESSES_MAX;
    const SEGMENT_SHIFT: u32 = 3;
    const SEGMENT: u8 = 0b0001_1000;
    const REFRESHING: u8 = 0b0010_0000;
    const DEAD: u8 = 0b0100_0000;

    pub(super) const fn new(segment: u8, accesses: u8) -> Self {
        Self(segment << Self::SEGMENT_SHIFT | accesses & Self::ACCESSES)
    }

    /// Which queue holds the entry, as a number below four.
    pub(super) const fn segment(self) -> u8 {
        (self.0 & Self::SEGMENT) >> Self::SEGMENT_SHIFT
    }

    pub(super) const fn accesses(self) -> u8 {
        self.0 & Self::ACCESSES
    }

    pub(super) const fn is_dead(self) -> bool {
        self.0 & Self::DEAD != 0
    }

    /// Whether its refreshment has been asked for.
    pub(super) const fn is_refreshing(self) -> bool {
        self.0 & Self::REFRESHING != 0
    }

    /// The mark with which the entry survives a restart: where it stood and how often it was asked for.
    pub(super) const fn at_rest(self) -> Self {
        Self(self.0 & (Self::SEGMENT | Self::ACCESSES))
    }

    /// Whether it is a mark at rest, of a segment that there is.
    pub(super) const fn is_at_rest(self) -> bool {
        self.0 == self.at_rest().0 && self.segment() <= Segment::Hot.number()
    }

    /// The mark of the same entry in another segment.
    pub(super) const fn moved(self, segment: u8, accesses: u8) -> Self {
        Self(Self::new(segment, accesses).0 | self.0 & (Self::REFRESHING | Self::DEAD))
    }
}

/// The mark of the entry at the front of `bytes`.
#[inline]
pub(super) const fn mark(bytes: &[u8]) -> Mark {
    Mark(bytes[0])
}

/// The key of the entry at the front of `bytes`.
#[inline]
pub(super) fn key_of(bytes: &[u8]) -> &[u8] {
    let shape_bytes = if bytes[2] & FORM == FORM_FULL { FULL_BYTES } else { PLAIN_BYTES };
    let key = &bytes[HEAD_BYTES + shape_bytes..];
    &key[..key_len(usize::from(bytes[1]), key)]
}

/// Whether the entry at the front of `bytes` denies a whole name.
#[inline]
pub(super) fn is_denial(bytes: &[u8]) -> bool {
    KeyParts::denies(&key_of(bytes)[usize::from(bytes[1])..])
}

/// The view that the entry at the front of `bytes` is for.
#[inline]
pub(super) fn view(bytes: &[u8]) -> u8 {
    KeyParts::view_of(&key_of(bytes)[usize::from(bytes[1])..])
}

/// When the entry at the front of `bytes` was stored.
#[inline]
pub(super) fn stored(bytes: &[u8]) -> CacheTime {
    let [s0, s1, s2, s3, s4, s5] = *bytes[3..].first_chunk().expect("the head holds a time");
    CacheTime::from_millis(u64::from_le_bytes([s0, s1, s2, s3, s4, s5, 0, 0]))
}

/// Whether the entry at the front of `bytes` was stored later than `now`, by more than a small correction of the clock: its
/// age cannot be known then, so it must not be used.
#[inline]
pub(super) fn is_ahead_of(bytes: &[u8], now: CacheTime) -> bool {
    stored(bytes).as_millis() > now.as_millis().saturating_add(AHEAD_MILLIS_MAX)
}

/// How long the entry at the front of `bytes` is fresh after it was stored, in seconds.
#[inline]
pub(super) const fn lifetime(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[9], bytes[10], bytes[11], 0])
}

/// When the entry at the front of `bytes` ceases to be fresh.
#[inline]
pub(super) fn expiry(bytes: &[u8]) -> CacheTime {
    stored(bytes).after_seconds(lifetime(bytes))
}

/// Notes one more access to the entry at the front of `bytes`, up to `max`, which is at most [`ACCESSES_MAX`].
pub(super) const fn touch(bytes: &mut [u8], max: u8) {
    // Saturated marks are not written: hot lines stay clean.
    if bytes[0] & Mark::ACCESSES < max {
        bytes[0] += 1;
    }
}

/// Marks the entry at the front of `bytes` as of no more use.
pub(super) const fn kill(bytes: &mut [u8]) {
    bytes[0] |= Mark::DEAD;
}

/// Marks the entry at the front of `bytes` as being refreshed.
pub(super) const fn note_refreshing(bytes: &mut [u8]) {
    bytes[0] |= Mark::REFRESHING;
}

/// Gives the entry at the front of `bytes` a new mark.
pub(super) const fn set_mark(bytes: &mut [u8], mark: Mark) {
    bytes[0] = mark.0;
}

/// Bits of the traits octet above the RCODE.
const AA: u8 = 0x10;
const AD: u8 = 0x20;
const FORM: u8 = 0xC0;
/// All records stand in the answer section.
const FORM_ANSWERS: u8 = 0x00;
/// All records stand in the authority section.
const FORM_AUTHORITY: u8 = 0x40;
const FORM_FULL: u8 = 0x80;

/// An entry in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) mark: Mark,
    pub(super) key: &'a [u8],
    pub(super) answer: Answer<'a>,
}

impl<'a> Entry<'a> {
    /// Octets that `answer` under `key` takes.
    pub(super) fn len_of(key: &Key, answer: &AnswerBuf) -> usize {
        let shape_bytes = if form(answer) == FORM_FULL { FULL_BYTES } else { PLAIN_BYTES };
        HEAD_BYTES + shape_bytes + key.as_bytes().len() + answer.ttls.len() + answer.body.len()
    }

    /// Views the entry at the front of `bytes`, which [`write`] put there.
    #[inline(always)]
    pub(super) fn view(bytes: &'a [u8]) -> Self {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().expect("an entry has a head");
        let traits = head[2];
        let body_len = usize::from(u16::from_le_bytes([head[12], head[13]]));
        let (counts, essential, rest) = read_counts(traits, rest);
        let key_len = key_len(usize::from(head[1]), rest);
        let (key, rest) = rest.split_at(key_len);
        let records: usize = counts.into_iter().map(usize::from).sum();
        let (ttls, rest) = rest.split_at(2 * records);
        let body = &rest[..body_len];
        let mut flags = 0;
        if traits & AA != 0 {
            flags |= Flags::AA;
        }
        if traits & AD != 0 {
            flags |= Flags::AD;
        }
        let essential_bytes = essential.unwrap_or_else(|| body_bytes(body));
        let rcode = Rcode(u16::from(traits & 0x0F));
        let shape = Shape { rcode, flags, counts, essential_bytes };
        let answer = Answer { shape, body, ttls, stored: stored(head) };
        Self { mark: mark(head), key, answer }
    }

    /// Octets of the entry.
    pub(super) const fn len(&self) -> usize {
        let shape_bytes = match self.shape_form() {
            FORM_FULL => FULL_BYTES,
            _ => PLAIN_BYTES,
        };
        HEAD_BYTES + shape_bytes + self.key.len() + self.answer.ttls.len() + self.answer.body.len()
    }

    /// The entry at the front of `bytes`, which may be anything, with its octets; `None` when its lengths lead beyond them,
    /// or it is not in the form that [`write`] would choose. Nothing else about it is known.
    pub(super) fn measure(bytes: &'a [u8]) -> Option<(&'a [u8], Self)> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let form = head[2] & FORM;
        let shape_bytes = match form {
            FORM_FULL => FULL_BYTES,
            FORM_ANSWERS | FORM_AUTHORITY => PLAIN_BYTES,
            _ => return None,
        };
        let (shape, rest) = rest.split_at_checked(shape_bytes)?;
        let (counts, ..) = read_counts(head[2], shape);
        let records: usize = counts.into_iter().map(usize::from).sum();
        let name_len = usize::from(head[1]);
        rest.get(..name_len + TAIL_BYTES)?;
        let body_len = usize::from(u16::from_le_bytes([head[12], head[13]]));
        let len = HEAD_BYTES + shape_bytes + key_len(name_len, rest) + 2 * records + body_len;
        let bytes = bytes.get(..len)?;
        let entry = Self::view(bytes);
        (entry.shape_form() == form).then_some((bytes, entry))
    }

    const fn shape_form(&self) -> u8 {
        form_of(&self.answer.shape, self.answer.body.len())
    }
}

fn body_bytes(body: &[u8]) -> u16 {
    u16::try_from(body.len()).unwrap_or(u16::MAX)
}

fn key_len(name_len: usize, key: &[u8]) -> usize {
    let bits = key[name_len + TAIL_BYTES - 1];
    let class_bytes = if bits & OTHER_CLASS == 0 { 0 } else { CLASS_BYTES };
    name_len + TAIL_BYTES + class_bytes
}

#[inline]
fn read_counts(traits: u8, rest: &[u8]) -> ([u16; 3], Option<u16>, &[u8]) {
    match traits & FORM {
        FORM_ANSWERS => ([u16::from(rest[0]), 0, 0], None, &rest[1..]),
        FORM_AUTHORITY => ([0, u16::from(rest[0]), 0], None, &rest[1..]),
        _ => {
            let (full, rest) =
                rest.split_first_chunk::<FULL_BYTES>().expect("a full shape follows the head");
            let pair = |at: usize| u16::from_le_bytes([full[at], full[at + 1]]);
            ([pair(0), pair(2), pair(4)], Some(pair(6)), rest)
        }
    }
}

fn form(answer: &AnswerBuf) -> u8 {
    form_of(&answer.shape, answer.body.len())
}

/// Only one section with at most 255 records, and nothing that could be cut off, makes a plain form.
const fn form_of(shape: &Shape, body_len: usize) -> u8 {
    if shape.essential_bytes as usize != body_len {
        return FORM_FULL;
    }
    match shape.counts {
        [0..=255, 0, 0] => FORM_ANSWERS,
        [0, 0..=255, 0] => FORM_AUTHORITY,
        _ => FORM_FULL,
    }
}

/// Writes an entry to the front of `bytes`.
///
/// # Panics
/// When `bytes` is shorter than [`Entry::len_of`].
pub(super) fn write(
    mark: Mark,
    key: &Key,
    answer: &AnswerBuf,
    stored: CacheTime,
    bytes: &mut [u8],
) {
    let shape = &answer.shape;
    let form = form(answer);
    let name_len = u8::try_from(key.folded_name().len()).expect("names are at most 255 octets");
    let mut traits = form | shape.rcode.header_bits();
    if shape.flags & Flags::AA != 0 {
        traits |= AA;
    }
    if shape.flags & Flags::AD != 0 {
        traits |= AD;
    }
    bytes[..3].copy_from_slice(&[mark.0, name_len, traits]);
    bytes[3..9].copy_from_slice(&stored.as_millis().to_le_bytes()[..6]);
    bytes[9..12].copy_from_slice(&answer.lifetime.min(LIFETIME_MAX).to_le_bytes()[..3]);
    bytes[12..HEAD_BYTES].copy_from_slice(&body_bytes(&answer.body).to_le_bytes());
    let [answers, authorities, additional] = shape.counts;
    let pairs = [answers, authorities, additional, shape.essential_bytes].map(u16::to_le_bytes);
    let plain = [pairs[0][0] | pairs[1][0]];
    let counts = if form == FORM_FULL { pairs.as_flattened() } else { &plain };
    let mut at = HEAD_BYTES;
    for part in [counts, key.as_bytes(), &answer.ttls, &answer.body] {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
}

/// Ends the lifetime of the entry at the front of `bytes` at `end`, if it would end later.
pub(super) fn shorten(bytes: &mut [u8], end: CacheTime) {
    let lifetime = lifetime(bytes).min(end.seconds_since(stored(bytes)));
    bytes[9..12].copy_from_slice(&lifetime.to_le_bytes()[..3]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::answer::AnswerBuilder;
    use crate::wire::response::Section;
    use crate::wire::{Class, NameBuf, Rtype};

    fn answer(counts: [usize; 3]) -> AnswerBuf {
        let name = NameBuf::from_text("x.example.").unwrap();
        let name = name.as_name();
        let mut builder = AnswerBuilder::new(name, Rtype::A, Class::IN, Rcode::NXDOMAIN).unwrap();
        builder.set_flags(Flags::AD);
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        for (section, count) in sections.into_iter().zip(counts) {
            for _ in 0..count {
                builder.write(section, name, Rtype::A, Class::IN, 7, &[1, 2, 3, 4]).unwrap();
            }
        }
        builder.finish()
    }

    #[test]
    fn every_form_comes_back_as_it_was_written() {
        let name = NameBuf::from_text("www.example.").unwrap();
        let key = Key::plain(name.as_name(), Rtype::A);
        for counts in [[1, 0, 0], [255, 0, 0], [256, 0, 0], [0, 1, 0], [2, 1, 3], [0, 0, 1]] {
            let answer = answer(counts);
            let mut bytes = vec![0xAA; Entry::len_of(&key, &answer) + 9];
            let stored = CacheTime::from_millis(1_795_000_000_123);
            write(Mark::new(2, 5), &key, &answer, stored, &mut bytes);
            let entry = Entry::view(&bytes);
            assert_eq!(entry.len(), bytes.len() - 9, "{counts:?}");
            assert_eq!(entry.key, key.as_bytes());
            assert_eq!(entry.answer.shape, answer.shape, "{counts:?}");
            assert_eq!((entry.answer.body, entry.answer.ttls), (&*answer.body, &*answer.ttls));
            assert_eq!((entry.answer.stored, lifetime(&bytes)), (stored, 7));
            assert_eq!((entry.mark.segment(), entry.mark.accesses()), (2, 5));
        }
    }

    #[test]
    fn common_answer_has_fifteen_octets_of_overhead() {
        let name = NameBuf::from_text("www.example.").unwrap();
        let key = Key::plain(name.as_name(), Rtype::A);
        let answer = answer([1, 0, 0]);
        let rest = key.as_bytes().len() + answer.ttls.len() + answer.body.len();
        assert_eq!(Entry::len_of(&key, &answer) - rest, 15);
    }

    #[test]
    fn lifetime_is_shortened_but_never_prolonged() {
        let name = NameBuf::from_text("www.example.").unwrap();
        let key = Key::plain(name.as_name(), Rtype::A);
        let answer = answer([1, 0, 0]);
        let mut bytes = vec![0; Entry::len_of(&key, &answer)];
        write(Mark::new(0, 0), &key, &answer, CacheTime::from_millis(1000), &mut bytes);
        for (end, expected) in [(60_000, 7), (4_500, 3), (5_500, 3), (500, 0)] {
            shorten(&mut bytes, CacheTime::from_millis(end));
            assert_eq!(lifetime(&bytes), expected, "{end}");
        }
    }

    #[test]
    fn accesses_saturate_and_marks_do_not_disturb_each_other() {
        let mut bytes = [0; 1];
        set_mark(&mut bytes, Mark::new(1, 0));
        note_refreshing(&mut bytes);
        for _ in 0..20 {
            touch(&mut bytes, 3);
        }
        let mark = Mark(bytes[0]);
        assert_eq!((mark.accesses(), mark.segment()), (3, 1));
        assert!(mark.is_refreshing() && !mark.is_dead());
        kill(&mut bytes);
        assert!(Mark(bytes[0]).is_dead());
    }
}
