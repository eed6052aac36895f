//! Hot path. Lower-casing by vectors: 32 or 16 octets at a time, the last ones overlapping, so that no octet goes alone.
//!
//! The kernel is plain code that the compiler turns into AVX2; only the step into it is unsafe.
//! * I1: A [`Vectors`] exists only after the processor was asked for AVX2.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "a function for AVX2 may only be called where there is AVX2")
)]

use super::case;

/// Proof that this processor has the vectors that the kernel needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Vectors(());

impl Vectors {
    /// Asks the processor.
    pub(super) fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            return Some(Self(()));
        }
        None
    }

    /// As [`case::lower_into`].
    #[inline]
    #[cfg(target_arch = "x86_64")]
    pub(super) fn lower_into(self, source: &[u8], target: &mut [u8]) {
        // SAFETY: `self` says that there is AVX2 (I1).
        unsafe { lower_avx2(source, target) }
    }

    /// As [`case::lower_into`].
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn lower_into(self, source: &[u8], target: &mut [u8]) {
        case::lower_into(source, target);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn lower_avx2(source: &[u8], target: &mut [u8]) {
    let Some(target) = target.get_mut(..source.len()) else {
        return case::lower_into(source, target);
    };
    match source.len() {
        32.. => lower_blocks::<4, 32>(source, target),
        16.. => lower_blocks::<2, 16>(source, target),
        _ => case::lower_into(source, target),
    }
}

/// Folds `source`, of at least `BYTES` octets, into `target` of the same length.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn lower_blocks<const WORDS: usize, const BYTES: usize>(source: &[u8], target: &mut [u8]) {
    const { assert!(WORDS * 8 == BYTES) };
    let (blocks, _) = source.as_chunks::<BYTES>();
    let (target_blocks, _) = target.as_chunks_mut::<BYTES>();
    for (from, to) in blocks.iter().zip(target_blocks) {
        lower_block::<WORDS, BYTES>(from, to);
    }
    let last = source.last_chunk().zip(target.last_chunk_mut());
    if let Some((from, to)) = last {
        lower_block::<WORDS, BYTES>(from, to);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn lower_block<const WORDS: usize, const BYTES: usize>(from: &[u8; BYTES], to: &mut [u8; BYTES]) {
    let words: [u64; WORDS] = std::array::from_fn(|at| {
        u64::from_le_bytes(from.as_chunks().0.get(at).copied().unwrap_or_default())
    });
    let folded = words.map(|word| case::lower_word(word).to_le_bytes());
    to.copy_from_slice(folded.as_flattened());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_alignment_agrees_with_the_scalar_twin() {
        let Some(vectors) = Vectors::detect() else { return };
        let source: Vec<u8> =
            (0..600).map(|number: u32| number.to_le_bytes()[0].wrapping_mul(7)).collect();
        for len in 0..=300 {
            for start in 0..33 {
                let source = &source[start..start + len];
                for room in [len, len + 5, len / 2] {
                    let (mut ours, mut theirs) = (vec![0x55; room], vec![0x55; room]);
                    vectors.lower_into(source, &mut ours);
                    case::lower_into(source, &mut theirs);
                    assert_eq!(ours, theirs, "{len} octets from {start} into {room}");
                }
            }
        }
    }
}
