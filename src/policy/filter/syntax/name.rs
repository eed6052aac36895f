//! Names as lists write them: letters, digits, hyphens and underscores; other letters by their form for the DNS (UTS 46).

use super::Finding;
use crate::wire::Name;
use crate::wire::name::{LABEL_BYTES_MAX, NAME_BYTES_MAX};

/// Longest text of a name with other letters: four octets each, and there are fewer than octets of the result.
const UNICODE_BYTES_MAX: usize = 1_024;

/// What each octet becomes: 0 for those that names in lists do not have.
const FOLDED: [u8; 256] = {
    let mut table = [0; 256];
    let mut octet = 0_u8;
    while octet < 128 {
        let folded = octet.to_ascii_lowercase();
        if matches!(folded, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') {
            table[octet as usize] = folded;
        }
        octet += 1;
    }
    table
};

/// A folded name in wire form.
pub(super) struct Folded {
    bytes: [u8; NAME_BYTES_MAX + 1],
    len: usize,
}

impl Folded {
    /// Reads `text`; a dot at its end changes nothing.
    pub(super) fn read(text: &[u8]) -> Result<Self, Finding> {
        let mut folded = Self { bytes: [0; NAME_BYTES_MAX + 1], len: 0 };
        if text.is_ascii() {
            folded.fill(text)?;
            return Ok(folded);
        }
        let text = std::str::from_utf8(text).map_err(|_| Finding::Unicode)?;
        if text.len() > UNICODE_BYTES_MAX {
            return Err(Finding::Unicode);
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| Finding::Unicode)?;
        folded.fill(ascii.as_bytes())?;
        Ok(folded)
    }

    pub(super) fn name(&self) -> Result<Name<'_>, Finding> {
        Name::parse(&self.bytes[..self.len]).map_err(|_| Finding::Name)
    }

    fn fill(&mut self, text: &[u8]) -> Result<(), Finding> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        // One octet for the first length, one for the root.
        if text.is_empty() || text.len() + 2 > NAME_BYTES_MAX {
            return Err(Finding::Name);
        }
        let (mut len_at, mut has_letter) = (0, false);
        for (at, &octet) in (1..).zip(text) {
            let folded = FOLDED[usize::from(octet)];
            self.bytes[at] = folded;
            has_letter |= folded > b'9';
            if octet == b'.' {
                self.close(len_at, at)?;
                (len_at, has_letter) = (at, false);
            } else if folded == 0 {
                return Err(Finding::Name);
            }
        }
        let end = text.len() + 1;
        self.close(len_at, end)?;
        // No top-level domain is a number (RFC 3696 §2): this is an address, or a slip.
        if !has_letter {
            return Err(Finding::Name);
        }
        self.bytes[end] = 0;
        self.len = end + 1;
        Ok(())
    }

    /// Writes the length of the label between the octet at `len_at` and `end`.
    fn close(&mut self, len_at: usize, end: usize) -> Result<(), Finding> {
        let len = u8::try_from(end - len_at - 1).map_err(|_| Finding::Name)?;
        if len == 0 || len > LABEL_BYTES_MAX {
            return Err(Finding::Name);
        }
        self.bytes[len_at] = len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, Finding> {
        let folded = Folded::read(text.as_bytes())?;
        Ok(folded.name()?.to_string())
    }

    #[test]
    fn names_are_folded_and_checked() {
        assert_eq!(read("WWW.Example.COM").unwrap(), "www.example.com.");
        assert_eq!(read("_dmarc.x-1.example.").unwrap(), "_dmarc.x-1.example.");
        for bad in ["", ".", "a..b", ".a", "a b", "a/b", "*.a", "192.0.2.1", "a.1", "a\0b"] {
            assert_eq!(read(bad), Err(Finding::Name), "{bad}");
        }
    }

    #[test]
    fn longest_label_and_name_are_read_and_longer_ones_are_not() {
        let label = "a".repeat(63);
        assert!(read(&label).is_ok());
        assert_eq!(read(&"a".repeat(64)), Err(Finding::Name));
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert!(read(&longest).is_ok());
        assert_eq!(read(&format!("{longest}a")), Err(Finding::Name));
        assert_eq!(read(&"ä".repeat(2_000)), Err(Finding::Unicode));
    }

    #[test]
    fn other_letters_take_their_form_for_the_dns() {
        assert_eq!(read("Bücher.example").unwrap(), "xn--bcher-kva.example.");
        assert_eq!(read("例え.テスト").unwrap(), "xn--r8jz45g.xn--zckzah.");
        assert_eq!(read("a\u{2}ä.example"), Err(Finding::Name));
        assert_eq!(Folded::read(b"\xFF.example").err(), Some(Finding::Unicode));
    }
}
