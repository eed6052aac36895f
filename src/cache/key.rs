//! Hot path. What makes two questions the same: name without case, type, class, client group, and the bits that change
//! what an answer holds.

use crate::wire::{Class, Name, Query, Rtype, case};

/// Longest key: a name, type, class, group and bits.
pub const KEY_BYTES_MAX: usize = 255 + TAIL_BYTES;

const TAIL_BYTES: usize = 6;

/// The client wants DNSSEC records.
const DO: u8 = 1;

/// The client validates itself.
const CD: u8 = 2;

/// A key under construction or in use; one per core, overwritten by every query.
#[derive(Clone)]
pub struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    len: usize,
}

impl Default for Key {
    fn default() -> Self {
        Self { bytes: [0; KEY_BYTES_MAX], len: 0 }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.as_bytes().escape_ascii())
    }
}

impl Key {
    /// The key of `query` from a client of `group`.
    pub fn set(&mut self, query: &Query<'_>, group: u8) {
        let bits =
            u8::from(query.wants_dnssec()) * DO + u8::from(query.is_checking_disabled()) * CD;
        self.set_parts(query.qname, query.qtype, query.qclass, group, bits);
    }

    /// The name in lower case, in wire form.
    #[must_use]
    pub fn folded_name(&self) -> &[u8] {
        &self.bytes[..self.len.saturating_sub(TAIL_BYTES)]
    }

    /// The key as octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn set_parts(&mut self, qname: Name<'_>, qtype: Rtype, qclass: Class, group: u8, bits: u8) {
        let name = qname.as_bytes();
        case::lower_into(name, &mut self.bytes);
        let [t0, t1] = qtype.0.to_be_bytes();
        let [c0, c1] = qclass.0.to_be_bytes();
        self.len = name.len() + TAIL_BYTES;
        self.bytes[name.len()..self.len].copy_from_slice(&[t0, t1, c0, c1, group, bits]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NameBuf;

    fn key(name: &str, qtype: Rtype, group: u8, bits: u8) -> Vec<u8> {
        let mut key = Key::default();
        let name = NameBuf::from_text(name).unwrap();
        key.set_parts(name.as_name(), qtype, Class::IN, group, bits);
        key.as_bytes().to_vec()
    }

    #[test]
    fn case_does_not_matter_and_everything_else_does() {
        let base = key("www.example.", Rtype::A, 0, 0);
        assert_eq!(base, key("WwW.eXample.", Rtype::A, 0, 0));
        for other in [
            key("ww.example.", Rtype::A, 0, 0),
            key("www.example.", Rtype::AAAA, 0, 0),
            key("www.example.", Rtype::A, 1, 0),
            key("www.example.", Rtype::A, 0, DO),
            key("www.example.", Rtype::A, 0, CD),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn longer_key_leaves_nothing_behind() {
        let mut key = Key::default();
        for text in ["a.very.long.name.example.", "b."] {
            let name = NameBuf::from_text(text).unwrap();
            key.set_parts(name.as_name(), Rtype::A, Class::IN, 0, 0);
        }
        assert_eq!(key.as_bytes(), b"\x01b\x00\x00\x01\x00\x01\x00\x00");
    }
}
