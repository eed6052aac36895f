//! Hot path. A quick look at the end of a name: most names share their last octets with no apex, and need no look-up.

use super::Apexes;

/// Bits of the filter; a power of two.
const BITS: usize = 1_024;

/// The last octets of all apexes, as a filter with false alarms and no misses.
#[derive(Debug, Default)]
pub(super) struct Endings {
    /// Of apexes of eight octets and more, the last eight: most have company at the end of their names.
    long: Bits,
    /// Of shorter ones the last four.
    short: Bits,
    /// Some apex is still shorter: every name has to be looked up.
    is_any: bool,
}

/// One bit for each ending, drawn by its octets.
#[derive(Debug, Default)]
struct Bits([u64; BITS / 64]);

impl Endings {
    /// A filter for `apexes`, in lower case.
    pub(super) fn new(apexes: &Apexes) -> Self {
        let mut endings = Self::default();
        for apex in apexes {
            if let Some(ending) = apex.last_chunk() {
                endings.long.set(u64::from_le_bytes(*ending));
            } else if let Some(ending) = apex.last_chunk() {
                endings.short.set(u32::from_le_bytes(*ending).into());
            } else {
                endings.is_any = true;
            }
        }
        endings
    }

    /// Whether some apex may be at the end of the name `folded`.
    #[inline]
    pub(super) fn may_end(&self, folded: &[u8]) -> bool {
        let is_near = if let Some(ending) = folded.last_chunk() {
            let ending = u64::from_le_bytes(*ending);
            self.long.has(ending) | self.short.has(ending >> 32)
        } else {
            let ending = folded.last_chunk().map(|ending| u32::from_le_bytes(*ending));
            ending.is_some_and(|ending| self.short.has(ending.into()))
        };
        is_near | self.is_any
    }
}

impl Bits {
    fn set(&mut self, ending: u64) {
        let bit = Self::place(ending);
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    #[inline]
    fn has(&self, ending: u64) -> bool {
        let bit = Self::place(ending);
        self.0[bit / 64] >> (bit % 64) & 1 != 0
    }

    /// Fibonacci hashing: the upper bits depend on all octets.
    #[inline]
    fn place(ending: u64) -> usize {
        let mixed = ending.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - BITS.ilog2());
        usize::try_from(mixed).unwrap_or_default()
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
            &[b"\x03alt\0", b"\x05onion\0", b"\x04home\x04arpa\0"],
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

    #[test]
    fn short_apex_does_not_make_all_names_under_the_others_top_worth_a_look() {
        let endings = endings(&[b"\x03alt\0", b"\x03lab\x04corp\x07example\0"]);
        assert!(endings.may_end(b"\x03www\x03lab\x04corp\x07example\0"));
        assert!(endings.may_end(b"\x03alt\0") && endings.may_end(b"\x03www\x03alt\0"));
        assert!(!endings.may_end(b"\x03www\x06sample\0"));
        assert!(!endings.may_end(b"\x03ple\0"));
    }
}
