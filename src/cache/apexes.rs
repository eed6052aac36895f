//! Where a denial ends: names at and below an apex are asked of other servers than those above, so what is said above
//! holds for none of them (CVE-2026-44687 is about a denial that did).

use ahash::RandomState;
use hashbrown::HashSet;

use super::key::labels;
use crate::wire::{Name, NameBuf};

/// The apexes of all zones that have servers of their own, the root's apart.
#[derive(Debug)]
pub(super) struct Apexes {
    /// In lower case, in wire form.
    names: HashSet<Box<[u8]>, RandomState>,
    /// Bit `n` is set when one of them has `n` labels: other ancestors need no look-up.
    depths: u128,
}

impl Apexes {
    /// Those of `zones`, with keyed hashes by `hasher`. The root has everything below it anyway.
    pub(super) fn new(zones: &[NameBuf], hasher: &RandomState) -> Self {
        let mut names = HashSet::with_hasher(hasher.clone());
        let mut depths = 0;
        for zone in zones.iter().filter(|zone| !zone.as_name().is_root()) {
            let mut zone = zone.clone();
            zone.make_lower();
            let name = zone.as_name().as_bytes();
            depths |= 1 << labels(name);
            names.insert(name.into());
        }
        Self { names, depths }
    }

    /// How many labels the apex of the innermost zone has that holds `name`, which is in lower case and wire form: what is
    /// said of names with fewer says nothing about this one. 0 for the root zone.
    #[inline]
    pub(super) fn floor(&self, name: &[u8]) -> u32 {
        if self.depths == 0 { 0 } else { self.innermost(name) }
    }

    #[cold]
    fn innermost(&self, name: &[u8]) -> u32 {
        let Ok(name) = Name::parse(name) else { return 0 };
        let mut depth = labels(name.as_bytes());
        for suffix in name.suffixes() {
            if self.depths >> depth & 1 != 0 && self.names.contains(suffix.as_bytes()) {
                return depth;
            }
            depth = depth.saturating_sub(1);
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).unwrap()
    }

    fn floors(zones: &[&str], names: &[&str]) -> Vec<u32> {
        let zones: Vec<_> = zones.iter().map(|zone| name(zone)).collect();
        let apexes = Apexes::new(&zones, &RandomState::with_seeds(1, 2, 3, 4));
        names.iter().map(|text| apexes.floor(name(text).as_name().as_bytes())).collect()
    }

    #[test]
    fn innermost_zone_counts() {
        let zones = ["corp.example.", "lab.CORP.example", "a.b.c.d.", "."];
        let names = [
            "example.",
            "corp.example.",
            "xcorp.example.",
            "host.corp.example.",
            "lab.corp.example.",
            "x.y.lab.corp.example.",
            "b.c.d.",
            "x.a.b.c.d.",
            ".",
        ];
        assert_eq!(floors(&zones, &names), [0, 2, 0, 2, 3, 3, 0, 4, 0]);
    }

    #[test]
    fn deepest_name_has_a_floor() {
        let longest = "a.".repeat(127);
        assert_eq!(floors(&[&longest], &[&longest, &"a.".repeat(126)]), [127, 0]);
        assert_eq!(floors(&["a."], &[&longest]), [1]);
    }

    #[test]
    fn without_zones_there_is_no_floor() {
        assert_eq!(floors(&[], &["a.example.", "."]), [0, 0]);
        assert_eq!(floors(&["."], &["a.example.", "."]), [0, 0]);
    }
}
