//! Hot path. The table: a stem for every few names, and behind it the page with these names.
//!
//! No load waits for another within a page, and nothing branches on what the names are: which one it is nobody can foresee, a
//! processor least of all.

use super::hash::Suffixes;
use super::layout::{BUNDLE_BYTES, STEM_BYTES, STEM_WORDS, u32_at};

const START_AT: usize = 8 * STEM_WORDS;
const DISTANCES_AT: usize = START_AT + 4;

/// Slots that are compared at a time; few pages have more.
const STRIDE: usize = 16;

/// What marks a tag whose name has a bundle of its own before it, rather than the common one.
const OWN: u8 = 0x80;

const ONES: u128 = u128::MAX / 0xFF;

/// A stem as it lies in an image: a cache line that says for six words of the filter what is in them and where their pages are.
#[derive(Clone, Copy)]
pub(super) struct Stem<'a>(pub(super) &'a [u8; STEM_BYTES]);

impl Stem<'_> {
    #[inline]
    pub(super) fn word(self, nth: usize) -> u64 {
        self.0.as_chunks().0.get(nth % 8).map_or(0, |word| u64::from_le_bytes(*word))
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

    /// Looks for the name that the last `len` octets of `name` are, root included.
    #[inline]
    pub(super) fn find(self, tag: u8, name: &Suffixes<'_>, len: usize) -> Option<Found> {
        let (tag, owner_len) = (tag & !OWN, u8::try_from(len - 1).ok()?);
        let (mut first, mut before) = (0, 2 * self.count);
        while first < self.count {
            let tags = sixteen(self.rest, first)?;
            let lens = sixteen(self.rest, self.count + first)?;
            let mut same = same(tags, tag, lens, owner_len);
            while same != 0 {
                let bit = same.trailing_zeros() & !7;
                same &= !(0xFF << bit);
                let at = before + size(tags, lens, bit);
                let is_own = tags[bit as usize / 8 % STRIDE] & OWN != 0;
                // Behind the last name others than tags are compared.
                if first + (bit as usize / 8) < self.count
                    && let found @ Some(_) = self.verify(at, is_own, name, len)
                {
                    return found;
                }
            }
            before += size(tags, lens, 128);
            first += STRIDE;
        }
        None
    }

    #[inline]
    fn verify(self, at: usize, is_own: bool, name: &Suffixes<'_>, len: usize) -> Option<Found> {
        let mut rest = self.rest.get(at..)?;
        let mut bundle = None;
        if is_own {
            let (head, behind) = rest.split_first_chunk::<BUNDLE_BYTES>()?;
            (bundle, rest) = (Some(u32::from_le_bytes(*head)), behind);
        }
        name.begin(len, rest).then_some(Found { bundle })
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

/// The sixteen octets from `at` on. Behind every page there are so many.
#[inline]
fn sixteen(bytes: &[u8], at: usize) -> Option<&[u8; STRIDE]> {
    bytes.get(at..)?.first_chunk()
}

/// The octets where both are the same, all their bits set.
#[inline]
fn same(tags: &[u8; STRIDE], tag: u8, lens: &[u8; STRIDE], len: u8) -> u128 {
    let is_same = |slot: usize| (tags[slot] & !OWN == tag) & (lens[slot] == len);
    u128::from_le_bytes(std::array::from_fn(|slot| if is_same(slot) { 0xFF } else { 0 }))
}

/// The octets that the names with these tags and lengths take, bundles included: those before a bit.
#[inline]
fn size(tags: &[u8; STRIDE], lens: &[u8; STRIDE], bit: u32) -> usize {
    let earlier = !u128::MAX.checked_shl(bit).unwrap_or(0);
    let own = (u128::from_le_bytes(*tags) & earlier) >> 7 & ONES;
    octet_sum(u128::from_le_bytes(*lens) & earlier) + BUNDLE_BYTES * octet_sum(own)
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
    use super::super::{
        hash::{Key, Room},
        layout::TAIL_BYTES,
    };
    use super::*;

    #[test]
    fn names_are_found_on_pages_of_every_size() {
        let names: Vec<_> = (1..255_usize).map(|len| vec![b'x'; len]).collect();
        let key = Key::of([7; 16]);
        let find = |page: Page<'_>, tag, name: &[u8]| {
            let name = [name, &[0]].concat();
            let mut room = Room::default();
            page.find(tag, &Suffixes::of(key, &name, &mut room), name.len())
        };
        for count in 1..=254 {
            // Lengths and tags repeat; some have a bundle.
            let entry = |slot: usize| {
                let bundle = slot.is_multiple_of(3).then_some(u32::try_from(slot).unwrap());
                (u8::try_from(slot % 200).unwrap(), bundle, names[253 - slot].as_slice())
            };
            let mut bytes = Vec::new();
            Page::write(&(0..count).map(entry).collect::<Vec<_>>(), &mut bytes).unwrap();
            let end = bytes.len();
            for behind in [TAIL_BYTES, 40] {
                bytes.resize(end + behind, 0xFF);
                let page = Page::read(&bytes).unwrap();
                assert_eq!((page.check(|_| true), page.count()), (Some(end), count));
                for slot in 0..count {
                    let (tag, bundle, name) = entry(slot);
                    assert_eq!(find(page, tag, name), Some(Found { bundle }), "{slot} of {count}");
                    assert_eq!(find(page, tag ^ 1, name), None);
                    for at in [0, name.len() / 2, name.len() - 1] {
                        let mut other = name.to_vec();
                        other[at] = b'y';
                        assert_eq!(find(page, tag, &other), None);
                    }
                }
            }
        }
    }

    #[test]
    fn octets_are_summed() {
        assert_eq!(octet_sum(u128::MAX), 16 * 255);
        assert_eq!(octet_sum(0x0102 << 100), 0x30);
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
