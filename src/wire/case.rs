//! Hot path. Lower-casing of names (RFC 4343 §3: only the ASCII letters fold), eight bytes at a time.
//!
//! Length octets pass unharmed: at most 63, they lie below `A`. So whole names fold in one sweep, label by label or not.

use super::simd::Vectors;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// How names are folded: by words on every machine, by vectors where the processor has them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Folding(Kernel);

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Kernel {
    #[default]
    Words,
    Vectors(Vectors),
}

impl Folding {
    /// Eight octets at a time.
    pub const WORDS: Self = Self(Kernel::Words);

    /// The widest vectors of this processor; `None` when it has none that we know.
    #[must_use]
    pub fn vectors() -> Option<Self> {
        Vectors::detect().map(|vectors| Self(Kernel::Vectors(vectors)))
    }

    /// Copies `source` into the front of `target` in lower case. Copies what fits when `target` is shorter.
    #[inline]
    pub fn lower_into(self, source: &[u8], target: &mut [u8]) {
        match self.0 {
            Kernel::Words => lower_into(source, target),
            Kernel::Vectors(vectors) => vectors.lower_into(source, target),
        }
    }
}

impl std::fmt::Display for Folding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kernel::Words => "words",
            Kernel::Vectors(_) => "avx2",
        })
    }
}

/// Folds eight octets at once.
#[must_use]
pub const fn lower_word(word: u64) -> u64 {
    let low_bits = word & !HIGH;
    // Bit 7 of each octet: set from 'A' upward, and set again above 'Z'; their difference marks the capitals.
    let from_a = low_bits.wrapping_add(ONES * (0x80 - b'A' as u64));
    let above_z = low_bits.wrapping_add(ONES * (0x7F - b'Z' as u64));
    let capitals = (from_a ^ above_z) & !word & HIGH;
    word | (capitals >> 2)
}

/// Copies `source` into the front of `target` in lower case. Copies what fits when `target` is shorter.
pub fn lower_into(source: &[u8], target: &mut [u8]) {
    let (words, tail) = source.as_chunks::<8>();
    let (target_words, target_tail) = target.as_chunks_mut::<8>();
    for (from, to) in words.iter().zip(target_words.iter_mut()) {
        *to = lower_word(u64::from_le_bytes(*from)).to_le_bytes();
    }
    let rest = target_words.as_flattened_mut().get_mut(words.len() * 8..).unwrap_or_default();
    for (from, to) in tail.iter().zip(rest.iter_mut().chain(target_tail)) {
        *to = from.to_ascii_lowercase();
    }
}

/// Whether two octet strings are equal but for the case of ASCII letters.
#[must_use]
pub fn equal_folded(left: &[u8], right: &[u8]) -> bool {
    let (left_words, left_tail) = left.as_chunks::<8>();
    let (right_words, right_tail) = right.as_chunks::<8>();
    left.len() == right.len()
        && left_words
            .iter()
            .zip(right_words)
            .all(|(l, r)| lower_word(u64::from_le_bytes(*l)) == lower_word(u64::from_le_bytes(*r)))
        && left_tail.eq_ignore_ascii_case(right_tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_folds_exactly_the_ascii_capitals() {
        for octet in 0..=255u8 {
            let word = u64::from_le_bytes([octet; 8]);
            assert_eq!(lower_word(word).to_le_bytes(), [octet.to_ascii_lowercase(); 8], "{octet}");
        }
    }

    #[test]
    fn every_length_agrees_with_the_scalar_twin() {
        let source: Vec<u8> = (0..=255u8).rev().collect();
        for length in 0..source.len() {
            for start in 0..8.min(source.len() - length) {
                let part = &source[start..start + length];
                for spare in [0, 1, 9] {
                    let mut target = vec![0xEE; length + spare];
                    lower_into(part, &mut target);
                    assert_eq!(target[..length], part.to_ascii_lowercase());
                    assert!(target[length..].iter().all(|&octet| octet == 0xEE));
                }
                assert!(equal_folded(part, &part.to_ascii_uppercase()));
            }
        }
    }

    #[test]
    fn short_target_takes_what_fits() {
        let mut target = [0; 11];
        lower_into(b"WWW.EXAMPLE.COM", &mut target);
        assert_eq!(&target, b"www.example");
    }

    #[test]
    fn one_differing_octet_is_noticed_anywhere() {
        for at in 0..20 {
            let mut other = [b'a'; 20];
            other[at] = b'b';
            assert!(!equal_folded(&[b'A'; 20], &other));
        }
        assert!(!equal_folded(b"a", b"ab"));
    }
}
