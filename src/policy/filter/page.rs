//! Hot path. The table: a stem for every few names, and behind it the page with these names.
//!
//! No load waits for another within a page, and nothing branches on what the names are: which one it is nobody can foresee, a
//! processor least of all.

use super::layout::{BUNDLE_BYTES, STEM_BYTES, STEM_WORDS, u32_at, u64_at};

const START_AT: usize = 8 * STEM_WORDS;
const DISTANCES_AT: usize = START_AT + 4;

/// Slots that are compared at a time; few pages have more.
const STRIDE: usize = 16;

/// What marks a tag whose name has a bundle of its own before it, rather than the common one.
const OWN: u8 = 0x80;

const ONES: u128 = u128::MAX / 0xFF;
const HIGH: u128 = ONES * 0x80;

/// A stem as it lies in an image: a cache line that says for six words of the filter what is in them and where their pages are.
#[derive(Clone, Copy)]
pub(super) struct Stem<'a>(pub(super) &'a [u8; STEM_BYTES]);

impl Stem<'_> {
    #[inline]
    pub(super) fn word(self, nth: usize) -> u64 {
        u64_at(self.0, 8 * nth)
    }

    /// Where the page of a word begins.
    #[inline]
    pub(super) fn page_at(self, nth: usize) -> usize {
        let distances = self.0.get(DISTANCES_AT..).unwrap_or_default().as_chunks::<2>().0;
        let distance = distances.get(nth).map_or(0, |distance| u16::from_le_bytes(*distance));
        u32_at(self.0, START_AT) as usize + usize::from(distance)
    }

    /// A stem of these words and the places of their pages; `None` when these lie too far apart.
    pub(super) fn write(words: &[u64], pages: &[usize]) -> Option<[u8; STEM_BYTES]> {
        let mut stem = [0; STEM_BYTES];
        for (to, word) in stem.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let start = *pages.first()?;
        stem[START_AT..DISTANCES_AT].copy_from_slice(&u32::try_from(start).ok()?.to_le_bytes());
        for (to, page) in stem[DISTANCES_AT..].chunks_exact_mut(2).zip(pages) {
            to.copy_from_slice(&u16::try_from(page - start).ok()?.to_le_bytes());
        }
        Some(stem)
    }
}

/// The names of one word.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    /// Tags, lengths, names, and what follows the page.
    rest: &'a [u8],
    count: usize,
}

/// A name on a page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Found {
    /// The bundle that stands before it, if it has one of its own.
    pub(super) bundle: Option<u32>,
}

impl<'a> Page<'a> {
    /// The page at the front of `bytes`.
    #[inline]
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&count, rest) = bytes.split_first()?;
        Some(Self { rest, count: count.into() })
    }

    /// Looks for a name.
    #[inline]
    pub(super) fn find(self, tag: u8, owner: &[u8]) -> Option<Found> {
        let len = u8::try_from(owner.len()).ok()?;
        let mut before = 0;
        for first in (0..self.count).step_by(STRIDE) {
            let in_use = u128::MAX >> (8 * STRIDE.saturating_sub(self.count - first));
            let tags = sixteen(self.rest.get(first..)?) & in_use;
            let lens = sixteen(self.rest.get(self.count + first..)?) & in_use;
            let other_tags = (tags & !HIGH) ^ (ONES * u128::from(tag & !OWN));
            let other = other_tags | (lens ^ (ONES * u128::from(len)));
            let mut same = zeroes(other) & in_use;
            while same != 0 {
                let slot = same.trailing_zeros() & !7;
                same &= same - 1;
                let earlier = (1 << slot) - 1;
                let at = before + size(tags & earlier, lens & earlier);
                let is_own = tags >> slot & u128::from(OWN) != 0;
                if let found @ Some(_) = self.verify(at, is_own, owner) {
                    return found;
                }
            }
            before += size(tags, lens);
        }
        None
    }

    #[inline]
    fn verify(self, at: usize, is_own: bool, owner: &[u8]) -> Option<Found> {
        let mut rest = self.rest.get(2 * self.count + at..)?;
        let mut bundle = None;
        if is_own {
            let (head, behind) = rest.split_first_chunk::<BUNDLE_BYTES>()?;
            (bundle, rest) = (Some(u32::from_le_bytes(*head)), behind);
        }
        (rest.get(..owner.len())? == owner).then_some(Found { bundle })
    }

    /// How many octets the page has, and whether `is_bundle` holds for the bundles on it; `None` if it is no page.
    pub(super) fn check(self, is_bundle: impl Fn(u32) -> bool) -> Option<usize> {
        let (tags, rest) = self.rest.split_at_checked(self.count)?;
        let (lens, names) = rest.split_at_checked(self.count)?;
        let mut at = 0;
        for (tag, len) in tags.iter().zip(lens) {
            if tag & OWN != 0 {
                let bundle = names.get(at..at + BUNDLE_BYTES)?;
                at += BUNDLE_BYTES;
                if !is_bundle(u32_at(bundle, 0)) {
                    return None;
                }
            }
            at += usize::from(*len);
        }
        (self.count > 0 && at <= names.len()).then_some(1 + 2 * self.count + at)
    }

    /// How many names it has.
    pub(super) const fn count(self) -> usize {
        self.count
    }

    /// Writes a page: of tag, bundle of its own, and octets of each name; `None` when there are too many.
    pub(super) fn write(names: &[(u8, Option<u32>, &[u8])], out: &mut Vec<u8>) -> Option<()> {
        out.push(u8::try_from(names.len()).ok()?);
        let own = |bundle: &Option<u32>| if bundle.is_some() { OWN } else { 0 };
        out.extend(names.iter().map(|(tag, bundle, _)| (tag & !OWN) | own(bundle)));
        for (_, _, name) in names {
            out.push(u8::try_from(name.len()).ok()?);
        }
        for (_, bundle, name) in names {
            out.extend(bundle.iter().flat_map(|bundle| bundle.to_le_bytes()));
            out.extend(*name);
        }
        Some(())
    }
}

/// The first sixteen octets; zeroes where there are fewer.
#[inline]
fn sixteen(bytes: &[u8]) -> u128 {
    let Some(sixteen) = bytes.first_chunk() else {
        let mut padded = [0; STRIDE];
        padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        return u128::from_le_bytes(padded);
    };
    u128::from_le_bytes(*sixteen)
}

/// The highest bit of every octet that is zero.
#[inline]
const fn zeroes(octets: u128) -> u128 {
    !(((octets & !HIGH) + !HIGH) | octets) & HIGH
}

/// The octets that the names with these tags and lengths take, bundles included.
#[inline]
const fn size(tags: u128, lens: u128) -> usize {
    octet_sum(lens) + (tags & HIGH).count_ones() as usize * BUNDLE_BYTES
}

/// The sum of sixteen octets.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
const fn octet_sum(octets: u128) -> usize {
    const EVEN: u128 = u128::MAX / 0xFFFF * 0xFF;
    let pairs = (octets & EVEN) + (octets >> 8 & EVEN);
    let lanes = pairs as u64 + (pairs >> 64) as u64;
    (lanes.wrapping_mul(0x0001_0001_0001_0001) >> 48) as usize
}

const _: () = assert!(DISTANCES_AT + 2 * STEM_WORDS == STEM_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_on_pages_of_every_size() {
        let names: Vec<_> = (0..255_usize).map(|len| vec![b'x'; len]).collect();
        for count in 1..=255 {
            // Lengths and tags repeat; some have a bundle.
            let entry = |slot: usize| {
                let bundle = slot.is_multiple_of(3).then_some(u32::try_from(slot).unwrap());
                (u8::try_from(slot % 200).unwrap(), bundle, names[254 - slot].as_slice())
            };
            let mut bytes = Vec::new();
            Page::write(&(0..count).map(entry).collect::<Vec<_>>(), &mut bytes).unwrap();
            let end = bytes.len();
            for behind in [0, 40] {
                bytes.resize(end + behind, 0xFF);
                let page = Page::read(&bytes).unwrap();
                assert_eq!((page.check(|_| true), page.count()), (Some(end), count));
                for slot in 0..count {
                    let (tag, bundle, name) = entry(slot);
                    assert_eq!(page.find(tag, name), Some(Found { bundle }), "{slot} of {count}");
                    assert_eq!(page.find(tag ^ 1, name), None);
                    let mut other = name.to_vec();
                    if let Some(last) = other.last_mut() {
                        *last = b'y';
                        assert_eq!(page.find(tag, &other), None);
                    }
                }
            }
        }
    }

    #[test]
    fn octets_are_summed_and_zeroes_found() {
        assert_eq!(octet_sum(u128::MAX), 16 * 255);
        assert_eq!(octet_sum(0x0102 << 100), 0x30);
        assert_eq!(zeroes(u128::MAX), 0);
        for place in 0..16 {
            let octets = [(0, 0x80), (1, 0), (0x7F, 0), (0x80, 0), (0xFF, 0)];
            for (octet, high) in octets {
                let others = ONES & !(0xFF << (8 * place));
                assert_eq!(zeroes(others | octet << (8 * place)), high << (8 * place));
            }
        }
    }

    #[test]
    fn stems_say_where_pages_are() {
        let pages = [70_000, 70_000, 70_001, 70_900, 135_535, 135_535];
        let stem = Stem::write(&[1, 2, 3, 4, 5, 6], &pages).unwrap();
        for (nth, page) in pages.into_iter().enumerate() {
            assert_eq!((Stem(&stem).word(nth), Stem(&stem).page_at(nth)), (nth as u64 + 1, page));
        }
        assert_eq!(Stem::write(&[0; 6], &[0, 0, 0, 0, 0, 65_536]), None);
    }
}
