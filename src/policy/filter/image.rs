//! An image as it lies in a file or in memory: checked once, then read as often as wanted.

use super::compile::BUNDLE_RULES_MAX;
use super::extras;
use super::layout::{
    COVERED_AT, Flaw, Head, NETWORK_BYTES, Parts, RULE_BYTES, STEM_BYTES, STEM_WORDS, TAIL_BYTES,
    u32_at,
};
use super::matcher::Matcher;
use super::page::{Page, Stem};
use super::stored::StoredRule;
use crate::wire::Rtype;

/// An image that was checked: over a vector, or over a file that is mapped and does not change.
#[derive(Clone, Debug)]
pub struct Image<B> {
    bytes: B,
    head: Head,
    parts: Parts,
    /// Of every length, root included: -1 if some name has it, else 0. Masks, as the matcher wants them.
    lengths: [i8; 256],
}

/// What an image takes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Footprint {
    /// Names, each once.
    pub names: u64,
    /// Bytes that the look-up of an unlisted name may touch: head and stems.
    pub hot_bytes: usize,
    /// The whole image.
    pub bytes: usize,
}

impl<B: AsRef<[u8]>> Image<B> {
    /// Checks `bytes` from end to end: checksum, and that all parts fit each other.
    ///
    /// The checksum finds what disks and crashes do. Whoever forges it can have an image answer wrongly, but not have a
    /// look-up panic, loop, or read what lies beyond.
    ///
    /// # Errors
    /// [`Flaw`].
    pub fn open(bytes: B) -> Result<Self, Flaw> {
        let image = bytes.as_ref();
        let head = Head::read(image)?;
        if crc32fast::hash(&image[COVERED_AT..]) != u32_at(image, 12) {
            return Err(Flaw::Checksum);
        }
        let parts = head.parts().filter(|parts| parts.pages.end == image.len());
        let parts = parts.ok_or(Flaw::Structure)?;
        let lengths =
            std::array::from_fn(|len| -i8::from(head.lengths[len / 64] >> (len % 64) & 1 != 0));
        let opened = Self { bytes, head, parts, lengths };
        if opened.is_sound() { Ok(opened) } else { Err(Flaw::Structure) }
    }

    /// What the compiler was given to keep.
    #[must_use]
    pub const fn stamp(&self) -> u64 {
        self.head.stamp
    }

    /// The bytes themselves: to be written to a file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// What it takes.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            names: self.head.names,
            hot_bytes: self.parts.stems.end,
            bytes: self.parts.pages.end,
        }
    }

    /// Whether any rule is about addresses in answers.
    #[must_use]
    pub const fn has_networks(&self) -> bool {
        self.head.networks > 0
    }

    /// The part that answers questions; cheap to make, for a batch or for one.
    #[inline]
    #[must_use]
    pub fn matcher(&self) -> Matcher<'_> {
        Matcher::of(self.bytes.as_ref(), &self.head, &self.parts, &self.lengths)
    }

    /// How many names the pages hold; `None` unless these follow each other without gap, one for each word with anything in it.
    fn names_placed(&self, is_bundle: impl Fn(u32) -> bool) -> Option<u64> {
        let bytes = self.bytes.as_ref();
        let pages = bytes.get(self.parts.pages.clone())?;
        let (stems, _) = bytes.get(self.parts.stems.clone())?.as_chunks::<STEM_BYTES>();
        let (mut count, mut at) = (0, 0);
        for stem in stems.iter().map(Stem) {
            for nth in 0..STEM_WORDS {
                if stem.page_at(nth) != at {
                    return None;
                }
                if stem.word(nth) != 0 {
                    let page = Page::read(pages.get(at..)?)?;
                    at += page.check(&is_bundle)?;
                    count += page.count() as u64;
                }
            }
        }
        (at + TAIL_BYTES == pages.len()).then_some(count)
    }

    /// The same with a filter that holds nothing, which no compiler makes.
    #[cfg(test)]
    pub(super) fn without_filter(&self) -> Image<Vec<u8>> {
        let mut bytes = self.bytes().to_vec();
        for stem in bytes[self.parts.stems.clone()].chunks_exact_mut(STEM_BYTES) {
            stem[..8 * STEM_WORDS].fill(0);
        }
        Image { bytes, head: self.head, parts: self.parts.clone(), lengths: self.lengths }
    }

    fn is_sound(&self) -> bool {
        let bytes = self.bytes.as_ref();
        let part = |range: &std::ops::Range<usize>| bytes.get(range.clone()).unwrap_or_default();
        let is_bundle = |bundle: u32| bundle < self.head.bundles;
        self.head.stems > 0
            && self.head.root.is_none_or(is_bundle)
            && are_bundles_sound(part(&self.parts.bundles), self.head.rules)
            && are_rules_sound(part(&self.parts.rules), part(&self.parts.extras))
            && are_networks_sound(part(&self.parts.networks), is_bundle)
            && (self.head.names == 0 || is_bundle(self.head.common))
            && self.names_placed(is_bundle) == Some(self.head.names)
    }
}

/// Whether bundles follow each other from the first rule to the last, none of them too large.
fn are_bundles_sound(bundles: &[u8], rules: u32) -> bool {
    let (ends, _) = bundles.as_chunks::<4>();
    ends.is_sorted_by_key(|end| u32::from_le_bytes(*end))
        && ends.first() == Some(&[0; 4])
        && ends.last() == Some(&rules.to_le_bytes())
        && ends.array_windows().all(|[start, end]| {
            (u32::from_le_bytes(*end) - u32::from_le_bytes(*start)) as usize <= BUNDLE_RULES_MAX
        })
}

fn are_rules_sound(rules: &[u8], extras: &[u8]) -> bool {
    let at = |place: u32| extras.get(place as usize..).unwrap_or_default();
    rules.as_chunks::<RULE_BYTES>().0.iter().all(|bytes| {
        let rule = StoredRule::of_bytes(bytes);
        let any = std::net::Ipv4Addr::UNSPECIFIED.into();
        rule.is_sound()
            && (rule.types == 0 || extras::has_type(at(rule.types), Rtype::A).is_some())
            && (rule.clients == 0 || extras::has_client(at(rule.clients), any, None).is_some())
            && (rule.except == 0 || extras::has_name(at(rule.except), &[]).is_some())
            && (rule.record == 0 || extras::read_record(at(rule.record)).is_some())
    })
}

fn are_networks_sound(networks: &[u8], is_bundle: impl Fn(u32) -> bool) -> bool {
    let (networks, _) = networks.as_chunks::<NETWORK_BYTES>();
    let order = |network: &[u8; NETWORK_BYTES]| {
        let address = network.first_chunk().map_or(0, |address| u128::from_be_bytes(*address));
        (network[16], address)
    };
    networks.is_sorted_by_key(order)
        && networks.iter().all(|network| network[16] <= 128 && is_bundle(u32_at(network, 20)))
}
