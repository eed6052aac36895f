//! Domain names on the wire: views of plain names, expansion of compressed ones (RFC 1035 §3.1, §4.1.4).

use super::case;

/// Longest name in wire form, root label included (RFC 1035 §3.1).
pub const NAME_BYTES_MAX: usize = 255;

/// Longest label (RFC 1035 §2.3.4).
pub const LABEL_BYTES_MAX: u8 = 63;

/// Pointers followed within one name. 127 labels are the most a name can have; beyond are attacks.
const POINTERS_MAX: usize = 127;

/// Why octets are not a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameError {
    /// The message ends inside the name.
    Truncated,
    /// More than 255 octets.
    TooLong,
    /// A label type other than 00 and 11 (RFC 6891 §5).
    LabelType,
    /// A compression pointer where none may stand, or one that does not point backwards.
    Pointer,
}

/// A plain (uncompressed) name in wire form, with the root label at its end.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// The root.
    pub const ROOT: Name<'static> = Name(&[0]);

    /// Views the name at the front of `bytes`.
    ///
    /// # Errors
    /// [`NameError`]; a compression pointer is an error here.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NameError> {
        let mut at = 0;
        loop {
            let Some(&len) = bytes.get(at) else { return Err(NameError::Truncated) };
            at += 1 + usize::from(len);
            if len == 0 {
                return bytes.get(..at).map(Name).ok_or(NameError::Truncated);
            }
            if len > LABEL_BYTES_MAX {
                return Err(not_a_length(len));
            }
            if at >= NAME_BYTES_MAX {
                return Err(NameError::TooLong);
            }
        }
    }

    /// Views octets that were parsed as a name before.
    pub(super) const fn of_checked(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The wire form, root label included.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether this is the root.
    #[must_use]
    pub const fn is_root(self) -> bool {
        self.0.len() == 1
    }

    /// The name without its first label; `None` for the root.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        let (&len, rest) = self.0.split_first()?;
        if len == 0 {
            return None;
        }
        rest.get(usize::from(len)..).map(Name)
    }

    /// The name and all its ancestors, the root last.
    pub fn suffixes(self) -> impl Iterator<Item = Name<'a>> {
        std::iter::successors(Some(self), |name| name.parent())
    }

    /// The labels from left to right, without the root.
    pub fn labels(self) -> impl Iterator<Item = &'a [u8]> {
        self.suffixes().filter_map(|name| {
            let (&len, rest) = name.0.split_first()?;
            if len == 0 { None } else { rest.get(..usize::from(len)) }
        })
    }

    /// Whether both are the same name (RFC 4343 §3).
    #[must_use]
    pub fn is_same(self, other: Name<'_>) -> bool {
        case::equal_folded(self.0, other.0)
    }

    /// Whether this name is `ancestor` or lies below it.
    #[must_use]
    pub fn is_within(self, ancestor: Name<'_>) -> bool {
        self.suffixes().any(|suffix| suffix.is_same(ancestor))
    }
}

/// Presentation form (RFC 1035 §5.1, RFC 4343 §2.1): absolute, with escapes.
impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(octet))?;
                    }
                    0x21..=0x7E => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

/// An owned plain name, without a heap block.
#[derive(Clone)]
pub struct NameBuf {
    bytes: [u8; NAME_BYTES_MAX],
    len: u8,
}

impl NameBuf {
    /// Copies `name`.
    #[must_use]
    pub fn new(name: Name<'_>) -> Self {
        let mut buf = Self::empty();
        // A parsed name is never longer than the buffer, so the push cannot fail.
        let _ = buf.push(name.as_bytes());
        buf
    }

    const fn empty() -> Self {
        Self { bytes: [0; NAME_BYTES_MAX], len: 0 }
    }

    /// Reads an absolute or relative name in plain presentation form; every name is taken as absolute.
    ///
    /// Escapes are `\.`, `\\` and `\DDD` (RFC 1035 §5.1).
    ///
    /// # Errors
    /// [`NameError::TooLong`] for a name or label that is too long, [`NameError::LabelType`] for an empty label or a
    /// broken escape.
    pub fn from_text(text: &str) -> Result<Self, NameError> {
        let mut buf = Self::empty();
        let mut label = Vec::with_capacity(usize::from(LABEL_BYTES_MAX));
        let mut rest = if text == "." { "" } else { text }.bytes();
        let mut is_open = false;
        while let Some(octet) = rest.next() {
            is_open = true;
            match octet {
                b'.' => {
                    buf.push_label(&label)?;
                    label.clear();
                    is_open = false;
                }
                b'\\' => label.push(unescape(&mut rest).ok_or(NameError::LabelType)?),
                other => label.push(other),
            }
        }
        if is_open {
            buf.push_label(&label)?;
        }
        buf.push(&[0])?;
        Ok(buf)
    }

    /// Expands the possibly compressed name at offset `at` of `message`, and gives the offset after it.
    ///
    /// Each pointer must lead to before the part of the name it ends, so loops cannot be built.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn expand(message: &[u8], at: usize) -> Result<(Self, usize), NameError> {
        let end = skip(message, at)?;
        Ok((Self::gather(at, |at| message.get(at..))?, end))
    }

    /// Expands the possibly compressed name at offset `at` of a message that need not lie in one piece: `rest_at` gives the
    /// octets of the piece from an offset on.
    ///
    /// As [`NameBuf::expand`]; a run of labels lies within one piece.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn gather<'m>(
        at: usize,
        rest_at: impl Fn(usize) -> Option<&'m [u8]>,
    ) -> Result<Self, NameError> {
        let mut buf = Self::empty();
        let mut segment_start = at;
        for _ in 0..=POINTERS_MAX {
            let rest = rest_at(segment_start).ok_or(NameError::Truncated)?;
            let end = plain_run(rest, 0)?;
            buf.push(rest.get(..end).ok_or(NameError::Truncated)?)?;
            match *rest.get(end).ok_or(NameError::Truncated)? {
                0 => {
                    buf.push(&[0])?;
                    return Ok(buf);
                }
                high => {
                    let low = *rest.get(end + 1).ok_or(NameError::Truncated)?;
                    let target = usize::from(u16::from_be_bytes([high & 0x3F, low]));
                    if target >= segment_start {
                        return Err(NameError::Pointer);
                    }
                    segment_start = target;
                }
            }
        }
        Err(NameError::Pointer)
    }

    /// Whether a name that took up `len` octets where it was expanded stood there without a pointer: what a pointer
    /// stands for is a root label, or at least three octets, and never the two that it takes itself.
    #[must_use]
    pub fn is_spelled_in(&self, len: usize) -> bool {
        usize::from(self.len) == len
    }

    /// The name.
    #[must_use]
    pub fn as_name(&self) -> Name<'_> {
        Name(self.bytes.get(..usize::from(self.len)).unwrap_or(&[0]))
    }

    /// Folds the name to lower case (RFC 4034 §6.2).
    pub fn make_lower(&mut self) {
        self.bytes.make_ascii_lowercase();
    }

    fn push(&mut self, part: &[u8]) -> Result<(), NameError> {
        let start = usize::from(self.len);
        let end = start + part.len();
        let target = self.bytes.get_mut(start..end).ok_or(NameError::TooLong)?;
        target.copy_from_slice(part);
        self.len = u8::try_from(end).map_err(|_| NameError::TooLong)?;
        Ok(())
    }

    fn push_label(&mut self, label: &[u8]) -> Result<(), NameError> {
        match u8::try_from(label.len()) {
            Ok(0) => Err(NameError::LabelType),
            Ok(len @ 1..=LABEL_BYTES_MAX) => {
                self.push(&[len])?;
                self.push(label)
            }
            _ => Err(NameError::TooLong),
        }
    }
}

impl std::fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.as_name())
    }
}

/// Steps over the possibly compressed name at `at`, without following pointers, and gives the offset after it.
///
/// # Errors
/// [`NameError`].
pub fn skip(message: &[u8], at: usize) -> Result<usize, NameError> {
    let end = plain_run(message, at)?;
    let last = if message.get(end) == Some(&0) { end + 1 } else { end + 2 };
    if last <= message.len() { Ok(last) } else { Err(NameError::Truncated) }
}

/// The offset of the root label or pointer that ends the run of plain labels at `at`.
fn plain_run(message: &[u8], at: usize) -> Result<usize, NameError> {
    let mut end = at;
    loop {
        match *message.get(end).ok_or(NameError::Truncated)? {
            0 | 0xC0..=0xFF => return Ok(end),
            len if len > LABEL_BYTES_MAX => return Err(NameError::LabelType),
            len => end += 1 + usize::from(len),
        }
        if end - at >= NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
    }
}

const fn not_a_length(octet: u8) -> NameError {
    if octet >= 0xC0 { NameError::Pointer } else { NameError::LabelType }
}

/// The octet behind a backslash.
fn unescape(rest: &mut std::str::Bytes<'_>) -> Option<u8> {
    let first = rest.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let digits = [first, rest.next()?, rest.next()?];
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).unwrap()
    }

    #[test]
    fn text_and_wire_agree() {
        assert_eq!(name("www.Example.").as_name().as_bytes(), b"\x03www\x07Example\x00");
        assert_eq!(name("www.Example").as_name().to_string(), "www.Example.");
        assert_eq!(name(".").as_name().as_bytes(), b"\0");
        assert_eq!(name(r"a\.b.\000c").as_name().to_string(), r"a\.b.\000c.");
    }

    #[test]
    fn bad_text_is_refused() {
        for text in ["a..b", "..", ".a", r"a\", r"a\25", r"a\999", &"a".repeat(64)] {
            assert!(NameBuf::from_text(text).is_err(), "{text}");
        }
        assert!(NameBuf::from_text(&"a.".repeat(127)).is_ok());
        assert_eq!(NameBuf::from_text(&"a.".repeat(128)).unwrap_err(), NameError::TooLong);
    }

    #[test]
    fn plain_view_stops_at_the_root_and_refuses_pointers() {
        assert_eq!(Name::parse(b"\x01a\x00rest").unwrap().as_bytes(), b"\x01a\x00");
        assert_eq!(Name::parse(b"\x01a\xC0\x0C").unwrap_err(), NameError::Pointer);
        assert_eq!(Name::parse(b"\x41a").unwrap_err(), NameError::LabelType);
        assert_eq!(Name::parse(b"\x05abc").unwrap_err(), NameError::Truncated);
        assert_eq!(Name::parse(b"").unwrap_err(), NameError::Truncated);
    }

    #[test]
    fn name_of_255_octets_is_the_longest() {
        let mut wire = Vec::new();
        for len in [63, 63, 63, 61] {
            wire.push(len);
            wire.extend(std::iter::repeat_n(b'x', usize::from(len)));
        }
        wire.push(0);
        assert_eq!(wire.len(), 255);
        assert_eq!(Name::parse(&wire).unwrap().as_bytes().len(), 255);
        assert_eq!(NameBuf::expand(&wire, 0).unwrap().1, 255);
        wire.splice(0..1, [1, b'y', 63]);
        assert_eq!(Name::parse(&wire).unwrap_err(), NameError::TooLong);
        assert_eq!(NameBuf::expand(&wire, 0).unwrap_err(), NameError::TooLong);
    }

    #[test]
    fn expansion_follows_pointers_backwards_only() {
        let message = b"\x07example\x00\x03www\xC0\x00\xC0\x09\xC0\x0F\xC0\x14";
        let (www, next) = NameBuf::expand(message, 9).unwrap();
        assert_eq!((www.as_name().to_string().as_str(), next), ("www.example.", 15));
        let (pointer_to_pointer, next) = NameBuf::expand(message, 17).unwrap();
        assert_eq!((pointer_to_pointer.as_name().to_string().as_str(), next), ("www.example.", 19));
        assert_eq!(NameBuf::expand(message, 19).unwrap_err(), NameError::Pointer);
        assert_eq!(NameBuf::expand(b"\xC0\x00", 0).unwrap_err(), NameError::Pointer);
        assert_eq!(NameBuf::expand(b"\x01a\xC0\x00", 0).unwrap_err(), NameError::Pointer);
    }

    #[test]
    fn pointer_into_the_middle_of_its_own_name_is_refused() {
        assert_eq!(NameBuf::expand(b"\x03abc\x01d\xC0\x04", 0).unwrap_err(), NameError::Pointer);
    }

    #[test]
    fn ancestry_ignores_case_and_respects_label_borders() {
        let zone = name("Example.COM");
        assert!(name("a.b.example.com").as_name().is_within(zone.as_name()));
        assert!(name("example.com").as_name().is_within(zone.as_name()));
        assert!(!name("badexample.com").as_name().is_within(zone.as_name()));
        assert!(!name("com").as_name().is_within(zone.as_name()));
        assert_eq!(name("a.b.c").as_name().labels().count(), 3);
    }
}
