//! A cursor over one message that never leaves it.

use super::name::{self, NameError};

/// Reads a message front to back. Every step that would leave the message gives `None`.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Begins at offset `at` of `message`.
    #[must_use]
    pub const fn new(message: &'a [u8], at: usize) -> Self {
        Self { message, at }
    }

    /// Offset of the next octet.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.at
    }

    /// Whether the message ends here.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.at >= self.message.len()
    }

    /// The next octet.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        let octet = *self.message.get(self.at)?;
        self.at += 1;
        Some(octet)
    }

    /// The next two octets, most significant first.
    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        let chunk = self.message.get(self.at..)?.first_chunk::<2>()?;
        self.at += 2;
        Some(u16::from_be_bytes(*chunk))
    }

    /// The next four octets, most significant first.
    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        let chunk = self.message.get(self.at..)?.first_chunk::<4>()?;
        self.at += 4;
        Some(u32::from_be_bytes(*chunk))
    }

    /// The next `len` octets.
    #[inline]
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    /// Steps over a possibly compressed name, without following pointers.
    ///
    /// # Errors
    /// As [`name::skip`].
    pub fn skip_name(&mut self) -> Result<(), NameError> {
        self.at = name::skip(self.message, self.at)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_gives_nothing_and_moves_nothing() {
        let mut reader = Reader::new(&[1, 2, 3], 0);
        assert_eq!(reader.u32(), None);
        assert_eq!(reader.u16(), Some(0x0102));
        assert_eq!(reader.bytes(2), None);
        assert_eq!(reader.bytes(usize::MAX), None);
        assert_eq!(reader.u8(), Some(3));
        assert!(reader.is_at_end());
        assert_eq!(reader.u8(), None);
    }
}
