//! Options of a message's OPT record (RFC 6891 §6.1.2), found without taking the message apart.

use super::edns::OPTIONS_MAX;
use super::reader::Reader;
use super::{HEADER_BYTES, Header, Rtype};

/// Option code of DNS cookies (RFC 7873 §4).
pub const COOKIE: u16 = 10;

/// Option code of edns-tcp-keepalive (RFC 7828 §3.1).
pub const TCP_KEEPALIVE: u16 = 11;

/// Option code of padding (RFC 7830 §3).
pub const PADDING: u16 = 12;

/// The octets of the first option `code` in the OPT record of `message`.
///
/// Reads each record's frame once and nothing of its contents, allocates nothing. `None` as well for a message that
/// breaks off before its OPT record ends.
#[must_use]
pub fn option(message: &[u8], code: u16) -> Option<&[u8]> {
    Options::of(message)?.find(|&(found, _)| found == code).map(|(_, octets)| octets)
}

/// Whether `message` has an OPT record.
#[must_use]
pub fn has_opt(message: &[u8]) -> bool {
    Options::of(message).is_some()
}

/// The options of one OPT record, each as code and octets, [`OPTIONS_MAX`] at most; ends at the first broken one.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Options<'a> {
    /// The options of the first OPT record in the additional section of `message`.
    #[must_use]
    pub fn of(message: &'a [u8]) -> Option<Self> {
        let [questions, answers, authorities, additional] = Header::read(message)?.counts;
        let mut reader = Reader::new(message, HEADER_BYTES);
        for _ in 0..questions {
            reader.skip_name().ok()?;
            reader.u32()?;
        }
        for _ in 0..u32::from(answers) + u32::from(authorities) {
            record(&mut reader)?;
        }
        for _ in 0..additional {
            let owner = reader.offset();
            let (rtype, octets) = record(&mut reader)?;
            if rtype == Rtype::OPT && message.get(owner) == Some(&0) {
                return Some(Self { reader: Reader::new(octets, 0), left: OPTIONS_MAX });
            }
        }
        None
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let code = self.reader.u16()?;
        let len = self.reader.u16()?;
        Some((code, self.reader.bytes(usize::from(len))?))
    }
}

/// Type and RDATA of the next record.
fn record<'a>(reader: &mut Reader<'a>) -> Option<(Rtype, &'a [u8])> {
    reader.skip_name().ok()?;
    let rtype = Rtype(reader.u16()?);
    // Class and TTL.
    reader.bytes(6)?;
    let len = reader.u16()?;
    Some((rtype, reader.bytes(usize::from(len))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A response with a record of each section before its OPT record, which has these options.
    fn message(options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x01\x00\x02".to_vec();
        message.extend(b"\x01a\x00\x00\x01\x00\x01");
        for rtype in [1, 2, 16] {
            message.extend([0xC0, 12, 0, rtype, 0, 1, 0, 0, 0, 9, 0, 4, 0, 11, 0, 0]);
        }
        message.extend(b"\x00\x00\x29\x04\xD0\x00\x00\x00\x00");
        let rdata: Vec<u8> =
            options.iter().flat_map(|(code, octets)| written(*code, octets)).collect();
        message.extend(u16::try_from(rdata.len()).unwrap().to_be_bytes());
        message.extend(rdata);
        message
    }

    fn written(code: u16, octets: &[u8]) -> Vec<u8> {
        let len = u16::try_from(octets.len()).unwrap();
        [&code.to_be_bytes(), &len.to_be_bytes(), octets].concat()
    }

    #[test]
    fn option_is_found_behind_records_and_other_options() {
        let whole = message(&[(10, b"cookie!!"), (11, &[1, 44]), (11, &[9, 9]), (12, &[])]);
        assert_eq!(option(&whole, 10), Some(&b"cookie!!"[..]));
        assert_eq!(option(&whole, TCP_KEEPALIVE), Some(&[1, 44][..]), "the first one");
        assert_eq!(option(&whole, 12), Some(&[][..]));
        assert_eq!(option(&whole, 15), None);
        assert_eq!(option(&message(&[]), 10), None);
    }

    #[test]
    fn opt_record_elsewhere_or_with_an_owner_is_none() {
        let options: [(u16, &[u8]); 1] = [(10, &[1])];
        let mut whole = message(&options);
        whole[9] = 2;
        whole[11] = 1;
        assert!(option(&whole, 10).is_some(), "three records before the additional section");
        whole[9] = 3;
        whole[11] = 0;
        assert_eq!(option(&whole, 10), None, "in the authority section");
        let mut whole = message(&options);
        let owner = whole.len() - 16;
        assert_eq!(whole[owner..owner + 3], [0, 0, 41]);
        whole.splice(owner..=owner, [1, b'x', 0]);
        assert_eq!(option(&whole, 10), None, "with an owner");
    }

    #[test]
    fn message_cut_anywhere_has_no_option_behind_the_cut() {
        let whole = message(&[(10, &[7; 8]), (11, &[0, 1])]);
        for len in 0..whole.len() {
            assert_eq!(option(&whole[..len], 11), None, "{len}");
        }
    }

    #[test]
    fn option_that_leaves_the_record_ends_the_list() {
        let mut whole = message(&[(10, &[7; 8]), (11, &[0, 1])]);
        let length_of_first = whole.len() - 6 - 9;
        assert_eq!(whole[length_of_first], 8);
        whole[length_of_first] = 200;
        assert_eq!(option(&whole, 10), None);
        assert_eq!(option(&whole, 11), None);
    }

    #[test]
    fn flood_of_options_is_not_read_to_its_end() {
        let mut flood: Vec<(u16, &[u8])> = vec![(1, &[]); OPTIONS_MAX];
        flood.push((11, &[0, 1]));
        assert_eq!(option(&message(&flood), 11), None);
        assert_eq!(option(&message(&flood[1..]), 11), Some(&[0, 1][..]));
    }
}
