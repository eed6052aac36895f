//! The twelve octets at the front of every message (RFC 1035 §4.1.1).

use super::{HEADER_BYTES, Rcode};

/// The second pair of header octets: QR, opcode, AA, TC, RD, RA, AD, CD and the low bits of the RCODE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flags(pub u16);

impl Flags {
    /// This is a response.
    pub const QR: u16 = 0x8000;
    /// Authoritative answer.
    pub const AA: u16 = 0x0400;
    /// Truncated.
    pub const TC: u16 = 0x0200;
    /// Recursion desired.
    pub const RD: u16 = 0x0100;
    /// Recursion available.
    pub const RA: u16 = 0x0080;
    /// Authentic data (RFC 4035 §3.1.6, RFC 6840 §5.7).
    pub const AD: u16 = 0x0020;
    /// Checking disabled (RFC 4035 §3.1.6).
    pub const CD: u16 = 0x0010;

    /// Whether all of `bits` are set.
    #[must_use]
    pub const fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }

    /// The four bits of the opcode.
    #[must_use]
    pub const fn opcode(self) -> u8 {
        (self.0 >> 11 & 0x0F) as u8
    }

    /// The four header bits of the RCODE.
    #[must_use]
    pub const fn rcode(self) -> Rcode {
        Rcode(self.0 & 0x0F)
    }
}

/// A decoded header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Query identifier.
    pub id: u16,
    /// Flags, opcode and RCODE.
    pub flags: Flags,
    /// Entries of the question, answer, authority and additional section, as the header claims.
    pub counts: [u16; 4],
}

impl Header {
    /// Reads the header of `message`; `None` when it is shorter than one.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = message.first_chunk()?;
        let &[a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        let pair = |high, low| u16::from_be_bytes([high, low]);
        Some(Self {
            id: pair(a, b),
            flags: Flags(pair(c, d)),
            counts: [pair(e, f), pair(g, h), pair(i, j), pair(k, l)],
        })
    }

    /// The header as it stands on the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [a, b] = self.id.to_be_bytes();
        let [c, d] = self.flags.0.to_be_bytes();
        let [[e, f], [g, h], [i, j], [k, l]] = self.counts.map(u16::to_be_bytes);
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_a_round_trip() {
        let header = Header { id: 0xBEEF, flags: Flags(0x8583), counts: [1, 2, 3, 4] };
        assert_eq!(Header::read(&header.to_bytes()), Some(header));
        assert_eq!(header.flags.rcode(), Rcode::NXDOMAIN);
        assert!(header.flags.has(Flags::QR | Flags::AA));
    }

    #[test]
    fn eleven_octets_are_no_header() {
        assert_eq!(Header::read(&[0; 11]), None);
    }

    #[test]
    fn opcode_is_read_from_its_four_bits() {
        assert_eq!(Flags(0x2800).opcode(), 5);
        assert_eq!(Flags(0x87FF).opcode(), 0);
    }
}
