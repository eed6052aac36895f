//! Hot path. A quick look at the end of a name: most names share their last octets with no apex, and need no look-up.

use super::Apexes;

/// Bits of the filter; a power of two.
const BITS: usize = 1_024;

/// The last octets of all apexes, as a filter with false alarms and no misses.
#[derive(Debug)]
pub(super) struct Endings {
    /// How many octets are compared: as many as all apexes have.
    len: Len,
    bits: [u64; BITS / 64],
}

#[derive(Clone, Copy, Debug)]
enum Len {
    Eight,
    Four,
    /// Some apex is so short that every name has to be looked up.
    None,
}

impl Endings {
    /// A filter for `apexes`, in lower case.
    pub(super) fn new(apexes: &Apexes) -> Self {
        let len = match apexes.iter().map(|apex| apex.len()).min() {
            Some(8..) => Len::Eight,
            Some(4..) => Len::Four,
            _ => Len::None,
        };
        let mut endings = Self { len, bits: [0; BITS / 64] };
        for apex in apexes {
            if let Some(bit) = endings.bit(apex) {
                endings.bits[bit / 64] |= 1 << (bit % 64);
            }
        }
        endings
    }

    /// Whether some apex may be at the end of the name `folded`.
    #[inline]
    pub(super) fn may_end(&self, folded: &[u8]) -> bool {
        match (self.len, self.bit(folded)) {
            (Len::None, _) => true,
            (Len::Eight | Len::Four, Some(bit)) => self.bits[bit / 64] >> (bit % 64) & 1 != 0,
            // Shorter than any apex.
            (Len::Eight | Len::Four, None) => false,
        }
    }

    #[inline]
    fn bit(&self, name: &[u8]) -> Option<usize> {
        let ending = match self.len {
            Len::Eight => u64::from_le_bytes(*name.last_chunk()?),
            Len::Four => u32::from_le_bytes(*name.last_chunk()?).into(),
            Len::None => return None,
        };
        // Fibonacci hashing: the upper bits depend on all octets.
        let mixed = ending.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - BITS.ilog2());
        usize::try_from(mixed).ok()
    }
}

impl Default for Endings {
    fn default() -> Self {
        Self { len: Len::Eight, bits: [0; BITS / 64] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endings(apexes: &[&[u8]]) -> Endings {
        Endings::new(&apexes.iter().map(|&apex| apex.into()).collect())
    }

    #[test]
    fn names_within_an_apex_are_never_missed() {
        for apexes in [
            &[b"\x04corp\x07example\0".as_slice(), b"\x04home\x04arpa\0"] as &[&[u8]],
            &[b"\x04corp\x07example\0", b"\x04test\0"],
            &[b"\x01a\0", b"\x04test\0"],
            &[b"\0"],
        ] {
            let endings = endings(apexes);
            for apex in apexes {
                assert!(endings.may_end(apex));
                assert!(endings.may_end(&[b"\x03www", *apex].concat()));
            }
        }
    }

    #[test]
    fn most_other_names_are_passed_over() {
        let endings = endings(&[b"\x04corp\x07example\0", b"\x04home\x04arpa\0"]);
        let alarms = (0..10_000u32).filter(|number| {
            let name = [b"\x0A", format!("{number:010}").as_bytes(), b"\0"].concat();
            endings.may_end(&name)
        });
        assert!(alarms.count() < 100);
        assert!(!endings.may_end(b"\x03com\0") && !Endings::default().may_end(b"\x03com\0"));
    }
}
