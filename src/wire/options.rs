//! The options of a message's OPT record (RFC 6891 §6.1.2), found without reading the message as a whole.

use super::reader::Reader;
use super::{HEADER_BYTES, Header, Rtype};

/// COOKIE (RFC 7873 §4).
pub const COOKIE: u16 = 10;

/// edns-tcp-keepalive (RFC 7828 §3.1).
pub const TCP_KEEPALIVE: u16 = 11;

/// Padding (RFC 7830 §3).
pub const PADDING: u16 = 12;

/// The value of the first option with that `code`, if the message has an OPT record and that has it.
///
/// Reads no further than it must; what is broken before gives `None`.
#[must_use]
pub fn option(message: &[u8], code: u16) -> Option<&[u8]> {
    let mut reader = Reader::new(opt(message)?, 0);
    while !reader.is_at_end() {
        let found = reader.u16()?;
        let len = reader.u16()?;
        let value = reader.bytes(usize::from(len))?;
        if found == code {
            return Some(value);
        }
    }
    None
}

/// Whether the message has an OPT record.
#[must_use]
pub fn has_opt(message: &[u8]) -> bool {
    opt(message).is_some()
}

/// The RDATA of the OPT record.
fn opt(message: &[u8]) -> Option<&[u8]> {
    /// Class and TTL, which an OPT record uses for its own.
    const FIXED_BYTES: usize = 6;
    let [questions, answers, authorities, additional] = Header::read(message)?.counts;
    if additional == 0 {
        return None;
    }
    let mut reader = Reader::new(message, HEADER_BYTES);
    for _ in 0..questions {
        reader.skip_name().ok()?;
        reader.bytes(4)?;
    }
    let records = u32::from(answers) + u32::from(authorities) + u32::from(additional);
    for _ in 0..records {
        reader.skip_name().ok()?;
        let rtype = Rtype(reader.u16()?);
        reader.bytes(FIXED_BYTES)?;
        let len = reader.u16()?;
        let rdata = reader.bytes(usize::from(len))?;
        if rtype == Rtype::OPT {
            return Some(rdata);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x01\
        \x03www\x07example\x00\x00\x01\x00\x01\
        \xC0\x0C\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\xC0\x00\x02\x01\
        \x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x0e\
        \x00\x0b\x00\x02\x00\x64\x00\x0a\x00\x04abcd";

    #[test]
    fn options_are_found_by_their_code() {
        assert_eq!(option(MESSAGE, TCP_KEEPALIVE), Some(&[0, 100][..]));
        assert_eq!(option(MESSAGE, COOKIE), Some(&b"abcd"[..]));
        assert_eq!(option(MESSAGE, PADDING), None);
    }

    #[test]
    fn cut_messages_hold_nothing_and_do_not_panic() {
        for len in 0..MESSAGE.len() {
            assert_eq!(option(&MESSAGE[..len], COOKIE), None, "{len}");
        }
    }
}
