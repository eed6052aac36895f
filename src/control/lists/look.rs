//! One look at one list: whether its source has something else than before, and where its text comes from.

use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use super::copies::Copy;
use super::download::{Fetched, Validators};
use super::text::{self, Signature, Unreadable};
use super::{Keeper, monotonic, wall};
use crate::config::{List, ListSource};

/// What a list is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Material {
    /// There is none.
    Nothing,
    /// A file of the operator in this state.
    File(Signature),
    /// A copy of what was downloaded, of this length and with this checksum.
    Copy(usize, u32),
}

impl Material {
    const fn of(copy: &Copy) -> Self {
        Self::Copy(copy.bytes, copy.checksum)
    }
}

/// What the operator's file at `path` is, and its text or why that cannot be had.
#[expect(clippy::type_complexity, reason = "three fates: no file, a file of no use, a text")]
fn read_file(
    path: &Path,
    bytes_max: usize,
) -> Result<Option<(Material, Result<Vec<u8>, String>)>, String> {
    let (file, signature) = text::open(path).map_err(|error| error.to_string())?;
    let likely = usize::try_from(signature.bytes).unwrap_or(usize::MAX);
    let text = match text::read(file, likely, bytes_max) {
        Err(Unreadable::Io(error)) => return Err(error.to_string()),
        text => text.map_err(|error| error.to_string()),
    };
    Ok(Some((Material::File(signature), text)))
}

/// The roots that this system trusts, if any list is downloaded.
pub(super) fn roots(lists: &[List]) -> Vec<CertificateDer<'static>> {
    if !lists.iter().any(|list| matches!(list.source, ListSource::Url(_))) {
        return Vec::new();
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        tracing::warn!(
            "lists: this system has no root certificates ({}): nothing can be downloaded over https; install some \
             (Debian: ca-certificates)",
            causes.join("; ")
        );
    }
    found.certs
}

impl Keeper {
    /// What there is of each list on this machine; and when it is looked at next.
    pub(super) fn survey(&mut self) -> Vec<Material> {
        (0..self.lists.len()).map(|number| self.survey_one(number)).collect()
    }

    fn survey_one(&mut self, number: usize) -> Material {
        let now = monotonic();
        match self.lists[number].source.clone() {
            ListSource::File(path) => match text::open(&path) {
                Ok((_, signature)) => {
                    self.confirm(number, wall(), Duration::ZERO);
                    Material::File(signature)
                }
                Err(error) => {
                    self.fail(number, &error);
                    Material::Nothing
                }
            },
            ListSource::Url(url) => {
                let found = self.copies.find(&self.lists[number], &url);
                let copy = found.unwrap_or_else(|useless| {
                    let name = &self.lists[number].name;
                    tracing::warn!("list {name:?}: its copy is of no use: {useless}");
                    None
                });
                let Some(copy) = copy else {
                    self.schedule.at_once(number, now);
                    return Material::Nothing;
                };
                // A clock that was set back makes it no younger than now.
                let age = wall().duration_since(copy.confirmed).unwrap_or_default();
                self.confirm(number, copy.confirmed, age);
                let list = &self.lists[number];
                if list.refresh.unwrap_or(self.filter.refresh).is_zero() {
                    self.schedule.at_once(number, now);
                }
                Material::of(&copy)
            }
        }
    }

    /// Looks whether the source of a list has something else than what the image in force was made of.
    pub(super) fn look(&mut self, number: usize) -> bool {
        let present = match self.lists[number].source.clone() {
            ListSource::File(path) => match text::open(&path) {
                Ok((_, signature)) => Material::File(signature),
                Err(error) => {
                    self.fail(number, &error);
                    return self.made_of[number] != Material::Nothing;
                }
            },
            ListSource::Url(url) => match self.ask(number, &url) {
                Ok(material) => material,
                Err(problem) => {
                    self.fail(number, &problem);
                    return false;
                }
            },
        };
        self.confirm(number, wall(), Duration::ZERO);
        let is_changed = present != self.made_of[number];
        let counters = &self.list_counters[number];
        if is_changed {
            counters.changed.bump()
        } else {
            counters.unchanged.bump()
        }
        is_changed
    }

    /// Asks the server for a list, and keeps what it sends if that can be one.
    fn ask(&mut self, number: usize, url: &str) -> Result<Material, String> {
        let list = &self.lists[number];
        let copy = self.copies.find(list, url).ok().flatten();
        let is_used = copy.as_ref().is_some_and(|copy| Material::of(copy) == self.made_of[number]);
        // One that was never read, or in vain, may be torn: the list is asked for as a whole.
        let copy = copy.filter(|_| is_used);
        let known = copy.as_ref().map(|copy| copy.validators.clone());
        let fetched = self.downloader.fetch(url, &known.unwrap_or_default());
        match (fetched.map_err(|error| error.to_string())?, copy) {
            (Fetched::Unchanged, Some(copy)) => {
                self.note_confirmed(number, url);
                Ok(Material::of(&copy))
            }
            (Fetched::Unchanged, None) => {
                Err("the server says that nothing has changed".to_owned())
            }
            (Fetched::Text(octets, validators), copy) => {
                text::judge(&octets, list.syntax).map_err(|suspicion| suspicion.to_string())?;
                self.keep(number, url, &octets, validators, copy.as_ref())
            }
        }
    }

    fn keep(
        &mut self,
        number: usize,
        url: &str,
        octets: &[u8],
        validators: Validators,
        copy: Option<&Copy>,
    ) -> Result<Material, String> {
        let is_known = |copy: &&Copy| {
            copy.bytes == octets.len()
                && copy.checksum == crc32fast::hash(octets)
                && copy.validators == validators
        };
        if let Some(copy) = copy.filter(is_known) {
            self.note_confirmed(number, url);
            return Ok(Material::of(copy));
        }
        let list = &self.lists[number];
        let kept = self.copies.keep(list, url, octets, validators, wall());
        let (copy, doubt) = kept.map_err(|error| format!("its copy cannot be written: {error}"))?;
        if let Some(error) = doubt {
            let name = &list.name;
            tracing::warn!("list {name:?}: the directory of its copy cannot be synced: {error}");
        }
        // One that is written but not believed would be asked for again and again.
        match self.copies.find(list, url) {
            Ok(Some(found)) if Material::of(&found) == Material::of(&copy) => {
                Ok(Material::of(&copy))
            }
            Ok(_) => Err("its copy is not what was written".to_owned()),
            Err(useless) => Err(format!("its copy is of no use: {useless}")),
        }
    }

    fn note_confirmed(&mut self, number: usize, url: &str) {
        let list = &self.lists[number];
        if let Err(error) = self.copies.confirm(list, url, wall()) {
            tracing::warn!("list {:?}: when it was confirmed cannot be noted: {error}", list.name);
        }
    }

    /// What a list is made of on this machine, and its text if that can be read.
    pub(super) fn text(&self, number: usize) -> Option<(Material, Option<Vec<u8>>)> {
        let (list, bytes_max) = (&self.lists[number], self.filter.list_bytes_max);
        let outcome = match &list.source {
            ListSource::File(path) => read_file(path, bytes_max),
            ListSource::Url(url) => {
                let found =
                    self.copies.text(list, url, bytes_max).map_err(|useless| useless.to_string());
                found.map(|found| found.map(|(copy, text)| (Material::of(&copy), Ok(text))))
            }
        };
        let problem = match outcome {
            Ok(None) => return None,
            Ok(Some((material, Ok(text)))) => return Some((material, Some(text))),
            // The same file will be as long the next time.
            Ok(Some((material, Err(problem)))) => (Some(material), problem),
            Err(problem) => (None, problem),
        };
        let (material, problem) = problem;
        // What the look before has told is not told again.
        if !self.schedule.is_failing(number) {
            self.list_counters[number].failed.bump();
            self.list_counters[number].note_problem(Some(problem.clone()));
            let List { name, source, .. } = list;
            tracing::error!(
                "list {name:?}: {source}: cannot be read, none of its rules is in force: {problem}"
            );
        }
        material.map(|material| (material, None))
    }

    /// Has those lists downloaded soon whose copy turned out to be of no use.
    pub(super) fn mend(&mut self) {
        for number in 0..self.lists.len() {
            let is_lost = self.made_of[number] == Material::Nothing;
            let is_copy = matches!(self.lists[number].source, ListSource::Url(_));
            if !is_lost || !is_copy || self.schedule.is_failing(number) {
                continue;
            }
            if self.image.is_none() {
                self.schedule.at_once(number, monotonic());
            } else {
                // It was downloaded a moment ago: a disk that breaks what it is given is not to have servers asked for ever.
                self.schedule.failed(number, monotonic());
            }
        }
    }

    /// Notes that a list is what its source had `age` ago.
    fn confirm(&mut self, number: usize, when: SystemTime, age: Duration) {
        let since = when.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.list_counters[number].confirmed.set(since.as_secs());
        self.list_counters[number].note_problem(None);
        if self.schedule.confirmed(number, monotonic(), age) > 0 {
            tracing::info!("list {:?}: can be had again", self.lists[number].name);
        }
    }

    /// Notes that a list could not be had, and tells it the first time, the second, the fourth and so on, and whenever somebody
    /// has asked for the look.
    fn fail(&mut self, number: usize, problem: &dyn Display) {
        self.list_counters[number].failed.bump();
        self.list_counters[number].note_problem(Some(problem.to_string()));
        let count = self.schedule.failed(number, monotonic());
        if !count.is_power_of_two() && !self.asked_for.contains(&number) {
            return;
        }
        let List { name, source, .. } = &self.lists[number];
        let rest = match (source, &self.made_of[number]) {
            (_, Material::Nothing) => "none of its rules is in force",
            (ListSource::File(_), _) => "its rules go out of force",
            (ListSource::Url(_), _) => "the copy of before stays in force",
        };
        tracing::warn!("list {name:?}: {source}: {problem}; {rest} (failure {count} in a row)");
    }
}
