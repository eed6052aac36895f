//! Whose answers a snapshot holds: which zones had upstreams of their own when it was written, and which. What they said
//! must not be taken for the word of those who are asked today.
//!
//! Upstreams of the root count as one: recursive resolvers of the one public name space, which change with the network
//! that a machine happens to be in.

use std::collections::BTreeMap;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

use crate::config::{FILE_BYTES_MAX, ForwardZone};
use crate::wire::Name;

/// Bytes of a zone in a snapshot: the fingerprints of its apex and of its upstreams.
pub(super) const ZONE_BYTES: usize = 16;

/// More zones than a config can name: each takes a quoted letter and a comma.
pub(super) const ZONES_MAX: usize = FILE_BYTES_MAX / 4;

/// The upstreams of all zones that have their own, by fingerprints, which every build of this program computes alike.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Origins(BTreeMap<u64, u64>);

impl Origins {
    /// Those of a config.
    #[must_use]
    pub fn new(zones: &[ForwardZone]) -> Self {
        let mut origins = BTreeMap::new();
        for zone in zones {
            // Whom, not in which order and how patiently.
            let mut upstreams: Vec<String> =
                zone.upstreams.iter().map(ToString::to_string).collect();
            upstreams.sort_unstable();
            let upstreams = fingerprint(upstreams.join(" ").as_bytes());
            for apex in &zone.apexes {
                origins.insert(fingerprint(apex.as_name().as_bytes()), upstreams);
            }
        }
        Self(origins)
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.0.len()).expect("a config has a bound")
    }

    /// As they stand in a snapshot.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let pairs = self.0.iter().flat_map(|(apex, upstreams)| [apex, upstreams]);
        pairs.flat_map(|fingerprint| fingerprint.to_le_bytes()).collect()
    }

    /// What [`Self::to_bytes`] gave; `None` when it cannot have given `bytes`.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (zones, []) = bytes.as_chunks::<ZONE_BYTES>() else { return None };
        let mut origins = BTreeMap::new();
        for zone in zones {
            let (apex, upstreams) = zone.split_first_chunk().expect("a zone is two fingerprints");
            let upstreams = *upstreams.first_chunk().expect("a zone is two fingerprints");
            let apex = u64::from_le_bytes(*apex);
            if origins.last_key_value().is_some_and(|(&before, _)| before >= apex) {
                return None;
            }
            origins.insert(apex, u64::from_le_bytes(upstreams));
        }
        Some(Self(origins))
    }

    /// Whether `name`, which is in lower case, is asked of the same upstreams here and there.
    pub(super) fn agree(&self, other: &Self, name: Name<'_>) -> bool {
        self.upstreams(name) == other.upstreams(name)
    }

    /// Those of the innermost zone that holds `name`; `None` are the root's.
    fn upstreams(&self, name: Name<'_>) -> Option<u64> {
        if self.0.is_empty() {
            return None;
        }
        name.suffixes().find_map(|part| self.0.get(&fingerprint(part.as_bytes())).copied())
    }
}

/// Not keyed: whoever chooses the zones of a node can do as he likes anyway.
fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, File};
    use crate::wire::NameBuf;

    fn origins(zones: &[(&str, &str)]) -> Origins {
        let mut text = String::new();
        for (zone, upstreams) in zones {
            text += &format!("[[forward]]\nzone = {zone}\nupstreams = {upstreams}\n");
        }
        let file = Some(File { name: "node.toml", text: &text });
        Origins::new(&Config::load(file, Vec::new(), &[]).unwrap().forward.zones)
    }

    /// Which of some names are asked of the same upstreams in both.
    fn agreed(before: &Origins, after: &Origins) -> Vec<&'static str> {
        let names = ["example.", "corp.example.", "xcorp.example.", "a.lab.corp.example."];
        let is_same =
            |name: &&str| before.agree(after, NameBuf::from_text(name).unwrap().as_name());
        names.into_iter().filter(is_same).collect()
    }

    #[test]
    fn names_agree_where_the_innermost_zone_has_the_same_upstreams() {
        let none = Origins::default();
        let corp = origins(&[("'Corp.Example'", "['10.0.0.1', 'tcp://10.0.0.2']")]);
        let turned = origins(&[("'corp.example.'", "['tcp://10.0.0.2', '10.0.0.1:53']")]);
        assert_eq!(corp, turned);
        let other = origins(&[("'corp.example'", "['10.0.0.1']")]);
        for (before, after) in [(&none, &corp), (&corp, &none), (&corp, &other)] {
            assert_eq!(agreed(before, after), ["example.", "xcorp.example."]);
        }
        let zones = [
            ("['corp.example', 'c.test']", "['10.0.0.1']"),
            ("'lab.corp.example'", "['10.0.0.7']"),
        ];
        assert_eq!(
            agreed(&other, &origins(&zones)),
            ["example.", "corp.example.", "xcorp.example."]
        );
        let zones = ["'corp.example'", "'lab.corp.example'"].map(|zone| (zone, "['10.0.0.1']"));
        assert_eq!(
            agreed(&other, &origins(&zones)).len(),
            4,
            "the same, though in a zone of its own"
        );
    }

    #[test]
    fn fingerprints_are_the_same_in_every_build() {
        // Computed by another implementation of SipHash-2-4 with a key of zeros.
        assert_eq!(fingerprint(b""), 0x1E92_4B9D_7377_00D7);
        assert_eq!(fingerprint(b"corp.example"), 0xFB97_44C9_C6E7_CF93);
    }

    #[test]
    fn octets_come_back_and_others_are_refused() {
        for zones in
            [&[][..], &[("'a.test'", "['10.0.0.1']"), ("['b.test', 'c.test']", "['10.0.0.2']")]]
        {
            let origins = origins(zones);
            let bytes = origins.to_bytes();
            assert_eq!(bytes.len(), origins.0.len() * ZONE_BYTES);
            assert_eq!(Origins::of_bytes(&bytes), Some(origins));
        }
        assert_eq!(Origins::of_bytes(&[1; 15]), None);
        assert_eq!(Origins::of_bytes(&[1; 32]), None, "one apex twice");
        assert_eq!(Origins::of_bytes(&[[2; 16], [1; 16]].concat()), None, "not in order");
    }
}
