//! Where zones begin: those of the config, and forward zones within special names. Read once, at the start.

use std::collections::HashSet;

use ahash::RandomState;

use super::LocalError;
use super::special::Special;
use crate::config;
use crate::wire::{Name, NameBuf};

/// The folded wire forms of all apexes.
pub(super) type Apexes = HashSet<Box<[u8]>, RandomState>;

/// What an error calls a `[[local]]` table.
pub(super) const LOCAL_ZONE: &str = "local zone";

/// The apexes of `sections`, in order and as a set.
pub(super) fn of_sections(
    sections: &[config::LocalZone],
) -> Result<(Vec<NameBuf>, Apexes), LocalError> {
    let fail = |section: &config::LocalZone, problem: &str| LocalError {
        what: LOCAL_ZONE,
        place: section.place.clone(),
        zone: section.zone.clone(),
        problem: problem.into(),
    };
    let mut apexes = Vec::with_capacity(sections.len());
    let mut keys = Apexes::default();
    for section in sections {
        let apex = NameBuf::from_text(&section.zone)
            .map_err(|_| fail(section, "is not a domain name such as \"corp.example.\""))?;
        if !keys.insert(key_of(apex.as_name())) {
            return Err(fail(section, "is defined twice: join the two"));
        }
        apexes.push(apex);
    }
    Ok((apexes, keys))
}

/// The apexes of forward zones within `specials`. One that is also within a zone of `local` is answered there.
pub(super) fn of_upstreams<'f>(
    specials: &[Special],
    local: &Apexes,
    forward: &'f config::Forward,
) -> Vec<Name<'f>> {
    let apexes = forward.zones.iter().flat_map(|zone| &zone.apexes).map(config::Apex::as_name);
    let is_local = |apex: Name<'_>| apex.suffixes().any(|part| local.contains(part.as_bytes()));
    let is_special =
        |apex: Name<'_>| specials.iter().any(|special| apex.is_within(special.apex.as_name()));
    apexes.filter(|&apex| is_special(apex) && !is_local(apex)).collect()
}

/// The folded wire form of `apex`.
pub(super) fn key_of(apex: Name<'_>) -> Box<[u8]> {
    apex.as_bytes().to_ascii_lowercase().into()
}
