//! From the sections of the config to the look-up tables of all local names. Asked at the start; at work only for names below
//! a DNAME, whose answers cannot be made ahead.

use std::sync::Arc;

use super::apexes::{self, Apexes, LOCAL_ZONE, key_of};
use super::compile::Compiler;
use super::endings::Endings;
use super::hosts;
use super::records::{self, Mistake};
use super::rewrite;
use super::special::{self, Kind, Special};
use super::world::{Contents, World};
use super::zone;
use super::{Held, Local, LocalData, LocalError, Sections, Wants};
use crate::config;
use crate::wire::encode::Full;
use crate::wire::{Name, Rtype};

/// What an answer must not be.
const TOO_LONG: &str = "an answer would exceed 65535 bytes";

impl LocalData {
    /// Compiles everything; gives what is to be told to the operator beside it.
    ///
    /// # Errors
    /// [`LocalError`] for the first zone or rewrite that is broken, named twice, or in the way of another one.
    pub fn compile(sections: &Sections<'_>) -> Result<(Self, Vec<String>), LocalError> {
        let (apexes, mut keys) = apexes::of_sections(sections.zones)?;
        let rewrites = rewrite::read(sections.rewrites, &keys)?;
        let specials = special::zones(sections.special, &keys, sections.forward);
        let upstreams = apexes::of_upstreams(&specials, &keys, sections.forward);
        let is_held = |name: &[u8]| {
            let Ok(name) = Name::parse(name) else { return false };
            rewrites.single.contains_key(name.as_bytes())
                || name.suffixes().any(|part| keys.contains(part.as_bytes()))
        };
        let (hosts, complaints) = hosts::text::read(sections.hosts, sections.hosts_files, is_held);
        keys.extend(specials.iter().map(|special| key_of(special.apex.as_name())));
        keys.extend(upstreams.iter().map(|&apex| key_of(apex)));
        let hosts = Arc::new(hosts);
        let mut world = World { hosts: Arc::clone(&hosts), ..World::default() };
        for (section, apex) in sections.zones.iter().zip(&apexes) {
            world.insert(contents(section, apex.as_name(), Kind::Whole)?);
        }
        for Special { zone, apex, kind } in &specials {
            world.insert(contents(zone, apex.as_name(), *kind)?);
        }
        for &apex in &upstreams {
            world.leave_to_upstreams(apex);
        }
        keys.extend(rewrites.single.keys().chain(rewrites.below.keys()).cloned());
        (world.single, world.below) = (rewrites.single, rewrites.below);
        let mut data = Self { endings: Endings::new(&keys), ..Self::default() };
        data.fill(&world, sections)?;
        data.depths = depths(&keys);
        data.zones.extend(upstreams.iter().map(|&apex| (key_of(apex), Held::Upstreams)));
        data.hosts = hosts;
        data.specials = specials.iter().map(|special| key_of(special.apex.as_name())).collect();
        if world.has_dnames() {
            data.world = Some(Box::new(world));
        }
        Ok((data, complaints))
    }

    /// Compiles all zones and rewrites of `world`.
    fn fill(&mut self, world: &World, sections: &Sections<'_>) -> Result<(), LocalError> {
        let compiler = Compiler { world };
        for contents in world.zones() {
            let apex = contents.apex.as_name();
            let zone = compiler.zone(contents).map_err(|Full| {
                let mut known = sections.zones.iter();
                let section =
                    known.find(|section| section.zone.eq_ignore_ascii_case(&apex.to_string()));
                LocalError {
                    what: LOCAL_ZONE,
                    place: section.map_or_else(String::new, |section| section.place.clone()),
                    zone: apex.to_string(),
                    problem: TOO_LONG.to_owned(),
                }
            })?;
            self.zones.insert(key_of(apex), Held::Zone(zone));
        }
        let tables =
            [(&world.single, &mut self.single, false), (&world.below, &mut self.below, true)];
        for (from, to, is_below) in tables {
            for (key, sets) in from {
                // Names below are many: their answers are written as a wildcard's.
                let owner = if is_below { [b"\x01*", key.as_ref()].concat() } else { key.to_vec() };
                let name = Name::parse(&owner).unwrap_or(Name::ROOT);
                let node = compiler.node(name, sets, None).map_err(|Full| LocalError {
                    what: rewrite::WHAT,
                    place: String::new(),
                    zone: name.to_string(),
                    problem: TOO_LONG.to_owned(),
                })?;
                to.insert(key.clone(), node);
            }
        }
        Ok(())
    }

    /// What there is for `qtype` at `folded`, a name below a DNAME.
    #[cold]
    pub(super) fn redirected(
        &self,
        folded: &[u8],
        qtype: Rtype,
        wants: Wants,
    ) -> Option<Local<'_>> {
        let world = self.world.as_ref()?;
        let compiler = Compiler { world };
        // What is too long for an answer stays unanswered here.
        match compiler.redirected(Name::parse(folded).ok()?, qtype).ok()? {
            zone::Held::Answer(answer) => Some(Local::Made(Box::new(answer))),
            zone::Held::Follow(beyond) if wants.recursion => {
                Some(Local::FollowMade(Box::new(beyond.detour)))
            }
            zone::Held::Follow(beyond) => {
                let zone::Beyond { detour, alone } = *beyond;
                let alone =
                    alone.map(|alone| alone.signed.filter(|_| wants.dnssec).unwrap_or(alone.plain));
                Some(Local::Made(Box::new(alone.unwrap_or(detour.links))))
            }
        }
    }
}

/// Reads one zone.
fn contents(
    section: &config::LocalZone,
    apex: Name<'_>,
    kind: Kind,
) -> Result<Contents, LocalError> {
    let records = records::read(section, apex).map_err(|Mistake { line, problem }| LocalError {
        what: LOCAL_ZONE,
        place: section.place_of(line),
        zone: section.zone.clone(),
        problem,
    })?;
    Ok(Contents::new(apex, kind, records))
}

/// Which numbers of labels the names of `keys` have.
fn depths(keys: &Apexes) -> u128 {
    let names = keys.iter().filter_map(|key| Name::parse(key).ok());
    names.fold(0, |depths, name| depths | 1 << name.labels().count())
}
