//! Hot path. What makes two questions the same: name without case, type, class, the view (whose upstreams are asked), and
//! the bits that change what an answer holds.
//!
//! The name stands first, so that the key of an ancestor is the end of its descendant's key.

use crate::config::ROOT_VIEW;
use crate::wire::case::Folding;
use crate::wire::name::NAME_BYTES_MAX;
use crate::wire::{Class, Name, Query, Rtype};

/// Longest key: a name, type, view, bits, and a class that is not IN.
pub const KEY_BYTES_MAX: usize = NAME_BYTES_MAX + TAIL_BYTES + CLASS_BYTES;

/// Octets behind the name: type, view, bits.
pub(super) const TAIL_BYTES: usize = 4;

/// Where the view stands among them.
const VIEW_AT: usize = 2;

/// Octets behind those when the class is not IN.
pub(super) const CLASS_BYTES: usize = 2;

/// The client wants DNSSEC records.
const DO: u8 = 1;

/// The client validates itself.
const CD: u8 = 2;

/// The class stands at the end; without it, it is IN.
pub(super) const OTHER_CLASS: u8 = 4;

/// The denial of a whole name, whatever the type (RFC 2308 §5, RFC 8020 §2). No query sets it, not even one for type 0.
const DENIAL: u8 = 8;

/// A key under construction or in use; one per core, overwritten by every query.
#[derive(Clone)]
pub struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    len: usize,
    name_len: usize,
}

impl Default for Key {
    fn default() -> Self {
        Self { bytes: [0; KEY_BYTES_MAX], len: 0, name_len: 0 }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.as_bytes().escape_ascii())
    }
}

impl Key {
    /// The key of `query` from a client of that view.
    pub fn set(&mut self, query: &Query<'_>, view: u8, folding: Folding) {
        let bits =
            u8::from(query.wants_dnssec()) * DO + u8::from(query.is_checking_disabled()) * CD;
        self.set_parts(query.qname, query.qtype, query.qclass, view, bits, folding);
    }

    /// The key of a plain question, as a client without wishes in the view of the root would ask it.
    #[must_use]
    pub fn plain(qname: Name<'_>, qtype: Rtype) -> Self {
        Self::plain_in(ROOT_VIEW, qname, qtype)
    }

    /// As [`Key::plain`], of a client of that view.
    #[must_use]
    pub fn plain_in(view: u8, qname: Name<'_>, qtype: Rtype) -> Self {
        let mut key = Self::default();
        key.set_parts(qname, qtype, Class::IN, view, 0, Folding::WORDS);
        key
    }

    /// The key whose octets these are; `None` when they are none, or those of a denial.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let parts = KeyParts::of(bytes).filter(|parts| parts.qtype.is_some())?;
        let mut key =
            Self { len: bytes.len(), name_len: parts.name.as_bytes().len(), ..Self::default() };
        key.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(key)
    }

    /// The name in lower case, in wire form.
    #[must_use]
    pub fn folded_name(&self) -> &[u8] {
        &self.bytes[..self.name_len]
    }

    /// The view: whose upstreams are asked.
    #[must_use]
    pub fn view(&self) -> u8 {
        KeyParts::view_of(&self.bytes[self.name_len..])
    }

    /// The key as octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Runs `work` with the key under which the denial of the whole name would lie.
    pub(super) fn as_denial<T>(&mut self, work: impl FnOnce(&Self) -> T) -> T {
        let at = self.name_len;
        let tail: [u8; TAIL_BYTES] = *self.bytes[at..].first_chunk().expect("a key holds its tail");
        let [_, _, view, bits] = tail;
        self.bytes[at..at + TAIL_BYTES].copy_from_slice(&[0, 0, view, bits | DENIAL]);
        let outcome = work(self);
        self.bytes[at..at + TAIL_BYTES].copy_from_slice(&tail);
        outcome
    }

    /// The keys of the same question for each proper ancestor of the name but the root, the nearest first.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = &[u8]> {
        let key = self.as_bytes();
        let parent = |at: &usize| {
            let next = at + 1 + usize::from(*key.get(*at)?);
            (*key.get(next)? != 0).then_some(next)
        };
        let starts = std::iter::successors(Some(0), parent).skip(1);
        starts.map(|start| &key[start..])
    }

    fn set_parts(
        &mut self,
        qname: Name<'_>,
        qtype: Rtype,
        qclass: Class,
        view: u8,
        bits: u8,
        folding: Folding,
    ) {
        let name = qname.as_bytes();
        folding.lower_into(name, &mut self.bytes);
        self.name_len = name.len();
        let [t0, t1] = qtype.0.to_be_bytes();
        let is_other = qclass != Class::IN;
        let bits = if is_other { bits | OTHER_CLASS } else { bits };
        self.len = name.len() + TAIL_BYTES;
        self.bytes[name.len()..self.len].copy_from_slice(&[t0, t1, view, bits]);
        if is_other {
            self.bytes[self.len..self.len + CLASS_BYTES].copy_from_slice(&qclass.0.to_be_bytes());
            self.len += CLASS_BYTES;
        }
    }
}

/// How many labels the name at the front of `key` has, the root's left out: 127 at most.
pub(super) fn labels(key: &[u8]) -> u32 {
    let next = |at: &usize| Some(*at + 1 + usize::from(key[*at])).filter(|&next| key[next] != 0);
    let labels = std::iter::successors(Some(0).filter(|_| key[0] != 0), next);
    u32::try_from(labels.count()).expect("names are short")
}

/// What a key says, taken apart for people and for other rooms.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a> {
    /// The name, in lower case.
    pub name: Name<'a>,
    /// The type; `None` for the denial of the whole name.
    pub qtype: Option<Rtype>,
    /// The class.
    pub qclass: Class,
    /// The view: whose upstreams are asked.
    pub view: u8,
    /// For clients that want DNSSEC records.
    pub wants_dnssec: bool,
    /// For clients that validate themselves.
    pub is_checking_disabled: bool,
}

impl<'a> KeyParts<'a> {
    /// Takes `key` apart, if it is one that a [`Key`] can be: in lower case, without bits that mean nothing, the class
    /// only where it is not IN, no type beside a denial.
    pub(super) fn of_own(key: &'a [u8]) -> Option<Self> {
        let parts = Self::of(key)?;
        let bits = *key.get(parts.name.as_bytes().len() + TAIL_BYTES - 1)?;
        let type_bytes = key.get(parts.name.as_bytes().len()..)?.first_chunk::<2>()?;
        let is_own = bits & !(DO | CD | OTHER_CLASS | DENIAL) == 0
            && (bits & OTHER_CLASS != 0) == (parts.qclass != Class::IN)
            && (parts.qtype.is_some() || *type_bytes == [0; 2])
            && !parts.name.as_bytes().iter().any(u8::is_ascii_uppercase);
        is_own.then_some(parts)
    }

    /// Whether a key's octets behind its name are those of a denial.
    #[inline]
    pub(super) const fn denies(tail: &[u8]) -> bool {
        tail[TAIL_BYTES - 1] & DENIAL != 0
    }

    /// The view that a key's octets behind its name say.
    #[inline]
    pub(super) const fn view_of(tail: &[u8]) -> u8 {
        tail[VIEW_AT]
    }

    /// Takes `key` apart; `None` when it is none.
    #[must_use]
    pub fn of(key: &'a [u8]) -> Option<Self> {
        let name = Name::parse(key).ok()?;
        let (&[t0, t1, view, bits], rest) =
            key.get(name.as_bytes().len()..)?.split_first_chunk()?;
        let qclass = match (bits & OTHER_CLASS != 0, rest) {
            (false, []) => Class::IN,
            (true, &[c0, c1]) => Class(u16::from_be_bytes([c0, c1])),
            _ => return None,
        };
        let rtype = Rtype(u16::from_be_bytes([t0, t1]));
        Some(Self {
            name,
            qtype: (bits & DENIAL == 0).then_some(rtype),
            qclass,
            view,
            wants_dnssec: bits & DO != 0,
            is_checking_disabled: bits & CD != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NameBuf;

    fn key(name: &str, qtype: Rtype, view: u8, bits: u8) -> Key {
        let mut key = Key::default();
        let name = NameBuf::from_text(name).unwrap();
        key.set_parts(name.as_name(), qtype, Class::IN, view, bits, Folding::WORDS);
        key
    }

    #[test]
    fn case_does_not_matter_and_everything_else_does() {
        let base = key("www.example.", Rtype::A, 0, 0).as_bytes().to_vec();
        assert_eq!(base, key("WwW.eXample.", Rtype::A, 0, 0).as_bytes());
        let chaos = {
            let mut key = Key::default();
            let name = NameBuf::from_text("www.example.").unwrap();
            key.set_parts(name.as_name(), Rtype::A, Class::CH, 0, 0, Folding::WORDS);
            key
        };
        for other in [
            key("ww.example.", Rtype::A, 0, 0),
            key("www.example.", Rtype::AAAA, 0, 0),
            key("www.example.", Rtype::A, 1, 0),
            key("www.example.", Rtype::A, 0, DO),
            key("www.example.", Rtype::A, 0, CD),
            chaos,
        ] {
            assert_ne!(base, other.as_bytes());
        }
    }

    #[test]
    fn longer_key_leaves_nothing_behind() {
        let mut key = Key::default();
        for text in ["a.very.long.name.example.", "b."] {
            let name = NameBuf::from_text(text).unwrap();
            key.set_parts(name.as_name(), Rtype::A, Class::IN, 0, 0, Folding::WORDS);
        }
        assert_eq!(key.as_bytes(), b"\x01b\x00\x00\x01\x00\x00");
    }

    #[test]
    fn ancestors_have_the_keys_they_would_have_by_themselves() {
        let base = key("a.b.example.", Rtype::A, 0, DO);
        let expected = [key("b.example.", Rtype::A, 0, DO), key("example.", Rtype::A, 0, DO)];
        let expected: Vec<&[u8]> = expected.iter().map(Key::as_bytes).collect();
        assert_eq!(base.ancestors().collect::<Vec<_>>(), expected);
        assert_eq!(key("example.", Rtype::A, 0, 0).ancestors().count(), 0);
        assert_eq!(key(".", Rtype::A, 0, 0).ancestors().count(), 0);
    }

    #[test]
    fn denial_is_no_key_that_a_query_has() {
        let mut base = key("www.example.", Rtype::A, 3, CD);
        let before = base.as_bytes().to_vec();
        let denial = base.as_denial(|key| key.as_bytes().to_vec());
        assert_eq!(base.as_bytes(), before);
        let mut other = key("www.example.", Rtype::AAAA, 3, CD);
        assert_eq!(other.as_denial(|key| key.as_bytes().to_vec()), denial);
        assert_ne!(key("www.example.", Rtype(0), 3, CD).as_bytes(), denial);
        assert_eq!(KeyParts::of(&denial).unwrap().qtype, None);
    }

    #[test]
    fn key_comes_back_from_its_octets() {
        let mut base = key("www.example.", Rtype::AAAA, 7, DO);
        let again = Key::of_bytes(base.as_bytes()).unwrap();
        assert_eq!((again.as_bytes(), again.folded_name()), (base.as_bytes(), base.folded_name()));
        assert_eq!((base.view(), again.view()), (7, 7));
        assert!(base.as_denial(|key| Key::of_bytes(key.as_bytes())).is_none());
    }

    #[test]
    fn key_that_no_query_makes_is_not_our_own() {
        let base = key("a.example.", Rtype::A, 0, DO);
        assert!(KeyParts::of_own(base.as_bytes()).is_some());
        let end = base.as_bytes().len();
        for (at, value) in [(1, b'A'), (end - 1, 16), (end - 1, DENIAL), (end - 1, OTHER_CLASS)] {
            let mut other = base.as_bytes().to_vec();
            other[at] = value;
            assert!(KeyParts::of_own(&other).is_none(), "{value} at {at}");
        }
        let mut with_class = base.as_bytes().to_vec();
        with_class[end - 1] = OTHER_CLASS;
        with_class.extend([0, 1]);
        assert!(KeyParts::of(&with_class).is_some() && KeyParts::of_own(&with_class).is_none());
    }

    #[test]
    fn parts_are_those_it_was_made_of() {
        let base = key("www.example.", Rtype::AAAA, 7, DO);
        let parts = KeyParts::of(base.as_bytes()).unwrap();
        assert_eq!(parts.name.to_string(), "www.example.");
        assert_eq!((parts.qtype, parts.qclass), (Some(Rtype::AAAA), Class::IN));
        assert_eq!((parts.view, parts.wants_dnssec, parts.is_checking_disabled), (7, true, false));
        for len in 0..base.as_bytes().len() {
            assert!(KeyParts::of(&base.as_bytes()[..len]).is_none(), "{len}");
        }
    }
}
