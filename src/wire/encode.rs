//! Writing messages, with name compression (RFC 1035 §4.1.4). Off the hot path: hits copy what was written once.

use super::case;
use super::name::{NAME_BYTES_MAX, Name};
use super::{Class, HEADER_BYTES, Header, Rtype};

/// Name suffixes remembered as targets. Bounds the work per name; an answer rarely has twenty (CVE-2024-8508 was this
/// search without a bound).
const SUFFIXES_MAX: usize = 64;

/// Labels of the longest name, the root's included.
const LABELS_MAX: usize = NAME_BYTES_MAX.div_ceil(2);

/// Pointers have 14 bits.
const POINTER_MAX: usize = 0x3FFF;

/// The message would be longer than allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

/// Appends to one message.
#[derive(Debug)]
pub struct Encoder {
    message: Vec<u8>,
    limit: usize,
    /// The question's, as a rule; most names of a message are the same.
    first: Option<FirstName>,
    /// Of all names but the first, unless it had to be compared in parts, too.
    suffixes: Vec<Suffix>,
    is_compressing: bool,
}

/// The first name of a message, which stands there in full.
#[derive(Clone, Copy, Debug)]
struct FirstName {
    at: u16,
    len: u16,
    /// Whether [`Encoder::suffixes`] has it.
    is_listed: bool,
}

#[derive(Debug)]
struct Suffix {
    /// Folded checksum, so that most candidates are dismissed by one comparison.
    sum: u32,
    at: u16,
}

/// Where the length field of an RDATA under construction stands.
#[derive(Debug)]
#[must_use = "the RDATA's length is written by `end_rdata`"]
pub struct OpenRdata {
    length_at: usize,
}

impl Encoder {
    /// Begins a message of at most `limit` bytes with `header`, whose counts the caller keeps right.
    #[must_use]
    pub fn new(header: Header, limit: usize) -> Self {
        let mut message = Vec::with_capacity(limit.min(1232));
        message.extend(header.to_bytes());
        let limit = limit.min(super::MESSAGE_BYTES_MAX);
        Self { message, limit, first: None, suffixes: Vec::new(), is_compressing: true }
    }

    /// Bytes written so far, header included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.message.len()
    }

    /// Whether nothing but the header is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.message.len() == HEADER_BYTES
    }

    /// The message.
    #[must_use]
    pub fn into_message(self) -> Vec<u8> {
        self.message
    }

    /// Appends a question.
    ///
    /// # Errors
    /// [`Full`].
    pub fn question(&mut self, qname: Name<'_>, qtype: Rtype, qclass: Class) -> Result<(), Full> {
        self.name(qname)?;
        self.u16(qtype.0)?;
        self.u16(qclass.0)
    }

    /// Appends a record up to its RDATA and gives the offset of its TTL with the open RDATA.
    ///
    /// # Errors
    /// [`Full`].
    pub fn begin_record(
        &mut self,
        owner: Name<'_>,
        rtype: Rtype,
        class: Class,
        ttl: u32,
    ) -> Result<(usize, OpenRdata), Full> {
        self.name(owner)?;
        self.begin_record_body(rtype, class, ttl)
    }

    /// As [`Encoder::begin_record`], for an owner that the caller has written.
    ///
    /// # Errors
    /// [`Full`].
    pub fn begin_record_body(
        &mut self,
        rtype: Rtype,
        class: Class,
        ttl: u32,
    ) -> Result<(usize, OpenRdata), Full> {
        self.u16(rtype.0)?;
        self.u16(class.0)?;
        let ttl_at = self.message.len();
        self.bytes(&ttl.to_be_bytes())?;
        let length_at = self.message.len();
        self.u16(0)?;
        Ok((ttl_at, OpenRdata { length_at }))
    }

    /// Closes an RDATA: writes its length.
    ///
    /// # Errors
    /// [`Full`] when it is longer than its length field can say.
    pub fn end_rdata(&mut self, open: OpenRdata) -> Result<(), Full> {
        let start = open.length_at + 2;
        let len = u16::try_from(self.message.len() - start).map_err(|_| Full)?;
        let field = self.message.get_mut(open.length_at..start).ok_or(Full)?;
        field.copy_from_slice(&len.to_be_bytes());
        Ok(())
    }

    /// Appends octets as they are.
    ///
    /// # Errors
    /// [`Full`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Full> {
        if self.message.len() + bytes.len() > self.limit {
            return Err(Full);
        }
        self.message.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends two octets, most significant first.
    ///
    /// # Errors
    /// [`Full`].
    pub fn u16(&mut self, value: u16) -> Result<(), Full> {
        self.bytes(&value.to_be_bytes())
    }

    /// Writes names in full from here on, so that what follows does not depend on what stands before.
    pub const fn stop_compressing(&mut self) {
        self.is_compressing = false;
    }

    /// Appends `name`, compressed against the names before it.
    ///
    /// # Errors
    /// [`Full`].
    pub fn name(&mut self, name: Name<'_>) -> Result<(), Full> {
        if !self.is_compressing {
            return self.bytes(name.as_bytes());
        }
        if name.is_root() {
            return self.bytes(&[0]);
        }
        let Some(first) = self.first else { return self.first_name(name) };
        if self.is_first(name, first) {
            return self.u16(0xC000 | first.at);
        }
        if !first.is_listed {
            self.list(first);
        }
        for (suffix, sum) in name.suffixes().zip(checksums(name)) {
            if suffix.is_root() {
                break;
            }
            if let Some(at) = self.find(suffix, sum) {
                return self.u16(0xC000 | at);
            }
            let here = self.message.len();
            if here <= POINTER_MAX && self.suffixes.len() < SUFFIXES_MAX {
                let at = u16::try_from(here).map_err(|_| Full)?;
                self.suffixes.push(Suffix { sum, at });
            }
            let label_len = first_label_bytes(suffix);
            self.bytes(suffix.as_bytes().get(..label_len).unwrap_or_default())?;
        }
        self.bytes(&[0])
    }

    /// Appends the name that others are compared with; its checksums wait until they are needed.
    fn first_name(&mut self, name: Name<'_>) -> Result<(), Full> {
        let here = self.message.len();
        self.bytes(name.as_bytes())?;
        if here <= POINTER_MAX {
            let [at, len] = [here, name.as_bytes().len()].map(u16::try_from);
            let (at, len) = (at.map_err(|_| Full)?, len.map_err(|_| Full)?);
            self.first = Some(FirstName { at, len, is_listed: false });
        }
        Ok(())
    }

    /// Whether `name` is the first one. Length octets are below all letters, so folding leaves them as they are.
    fn is_first(&self, name: Name<'_>, first: FirstName) -> bool {
        self.message
            .get(usize::from(first.at)..usize::from(first.at) + usize::from(first.len))
            .is_some_and(|written| case::equal_folded(written, name.as_bytes()))
    }

    /// Puts the first name and its ancestors among the suffixes.
    fn list(&mut self, first: FirstName) {
        self.first = Some(FirstName { is_listed: true, ..first });
        let start = usize::from(first.at);
        let written = self.message.get(start..start + usize::from(first.len));
        let Some(name) = written.and_then(|written| Name::parse(written).ok()) else { return };
        let mut at = first.at;
        for (suffix, sum) in name.suffixes().zip(checksums(name)) {
            if suffix.is_root()
                || usize::from(at) > POINTER_MAX
                || self.suffixes.len() == SUFFIXES_MAX
            {
                return;
            }
            self.suffixes.push(Suffix { sum, at });
            at += u16::try_from(first_label_bytes(suffix)).unwrap_or(u16::MAX);
        }
    }

    fn find(&self, suffix: Name<'_>, sum: u32) -> Option<u16> {
        let candidates = self.suffixes.iter().filter(|known| known.sum == sum);
        candidates.map(|known| known.at).find(|&at| self.stands_at(suffix, usize::from(at)))
    }

    /// Whether the name written at `at` is `suffix`. Our own pointers lead backwards, so the walk ends.
    fn stands_at(&self, suffix: Name<'_>, at: usize) -> bool {
        let mut at = at;
        for label in suffix.labels() {
            at = self.behind_pointers(at);
            let end = at + 1 + label.len();
            let is_same = self.message.get(at).is_some_and(|&len| usize::from(len) == label.len())
                && self
                    .message
                    .get(at + 1..end)
                    .is_some_and(|written| case::equal_folded(written, label));
            if !is_same {
                return false;
            }
            at = end;
        }
        self.message.get(self.behind_pointers(at)) == Some(&0)
    }

    fn behind_pointers(&self, at: usize) -> usize {
        let mut at = at;
        while let Some(&[high @ 0xC0..=0xFF, low]) =
            self.message.get(at..).and_then(|rest| rest.first_chunk())
        {
            at = usize::from(u16::from_be_bytes([high & 0x3F, low]));
        }
        at
    }
}

/// Octets of the first label of `name`, its length octet included.
fn first_label_bytes(name: Name<'_>) -> usize {
    name.as_bytes().first().map_or(0, |&len| 1 + usize::from(len))
}

/// Checksums of the folded `name` and of its ancestors, in the order of [`Name::suffixes`]: only a filter, the names
/// themselves decide.
///
/// FNV-1a, fed label by label from the root: one pass makes all of them, so 127 labels cost no more than 255 octets.
fn checksums(name: Name<'_>) -> [u32; LABELS_MAX] {
    let (mut lengths, mut sums) = ([0u8; LABELS_MAX], [0; LABELS_MAX]);
    let mut count = 0;
    for (slot, label) in lengths.iter_mut().zip(name.labels()) {
        *slot = u8::try_from(label.len()).unwrap_or_default();
        count += 1;
    }
    let mut sum: u32 = 0x811C_9DC5;
    // From the last label to the first, without the root's length octet at the end.
    let mut rest = name.as_bytes().split_last().map_or(&[][..], |(_, rest)| rest);
    for (slot, &len) in sums.iter_mut().zip(&lengths).take(count).rev() {
        let (before, label) = rest.split_at(rest.len().saturating_sub(usize::from(len)));
        for octet in label {
            sum = (sum ^ u32::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0193);
        }
        // Label borders count, or "ab.c" and "a.bc" would be alike.
        sum = (sum ^ 0xFF).wrapping_mul(0x0100_0193);
        *slot = sum;
        rest = before.split_last().map_or(&[][..], |(_, rest)| rest);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Flags, NameBuf};

    const HEADER: Header = Header { id: 0, flags: Flags(0), counts: [0; 4] };

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).unwrap()
    }

    #[test]
    fn repeated_names_become_pointers_and_expand_to_themselves() {
        let mut encoder = Encoder::new(HEADER, 512);
        let names =
            ["www.Example.com.", "example.COM.", "a.www.example.com.", ".", "a.www.example.com."];
        let mut starts = Vec::new();
        for text in names {
            starts.push(encoder.len());
            encoder.name(name(text).as_name()).unwrap();
        }
        let message = encoder.into_message();
        for (text, start) in names.iter().zip(&starts) {
            let (expanded, _) = NameBuf::expand(&message, *start).unwrap();
            assert!(expanded.as_name().is_same(name(text).as_name()), "{text}");
        }
        assert_eq!(starts[2] - starts[1], 2);
        assert_eq!(message.len() - starts[4], 2);
    }

    #[test]
    fn suffixes_have_the_checksums_of_the_same_names_on_their_own() {
        let long = "x.".repeat(127);
        for text in [".", "www.Example.com.", "a.b.c.d.example.", &long] {
            let whole = name(text);
            let sums = checksums(whole.as_name());
            for (suffix, sum) in whole.as_name().suffixes().zip(sums) {
                let lower = name(&suffix.to_string().to_ascii_lowercase());
                assert_eq!(sum, checksums(lower.as_name())[0], "{suffix}");
            }
        }
        let first = |text| checksums(name(text).as_name())[0];
        assert_ne!(first("ab.c."), first("a.bc."));
        assert_ne!(first("a.example."), first("b.example."));
    }

    #[test]
    fn limit_holds_to_the_byte() {
        let mut encoder = Encoder::new(HEADER, HEADER_BYTES + 5);
        encoder.name(name("abc.").as_name()).unwrap();
        assert_eq!(encoder.bytes(&[1]), Err(Full));
        assert_eq!(encoder.len(), HEADER_BYTES + 5);
    }

    #[test]
    fn more_names_than_the_table_holds_are_written_all_the_same() {
        let mut encoder = Encoder::new(HEADER, 65_535);
        let mut written = Vec::new();
        for number in 0..300 {
            let text = format!("host{number}.zone{}.example.", number % 90);
            written.push((encoder.len(), text.clone()));
            encoder.name(name(&text).as_name()).unwrap();
        }
        let message = encoder.into_message();
        for (start, text) in written {
            let (expanded, _) = NameBuf::expand(&message, start).unwrap();
            assert_eq!(expanded.as_name().to_string(), text);
        }
    }

    #[test]
    fn names_beyond_the_reach_of_pointers_are_spelled_out() {
        let mut encoder = Encoder::new(HEADER, 65_535);
        encoder.bytes(&vec![0; 0x4000]).unwrap();
        let first = encoder.len();
        encoder.name(name("far.example.").as_name()).unwrap();
        let second = encoder.len();
        encoder.name(name("far.example.").as_name()).unwrap();
        assert_eq!(second - first, encoder.len() - second);
    }
}
