//! Where each key was set: for mistakes that show only when everything is loaded.

use std::collections::BTreeMap;

use crate::config::keys::Key;

/// Where each key was set last.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By `table.key`.
    keys: BTreeMap<String, String>,
    /// Those of `[[forward]]` tables with a zone, in their order.
    zones: Vec<String>,
}

impl Places {
    /// Notes that `key` was set at `place`.
    pub(super) fn note(&mut self, key: &Key, place: String) {
        self.keys.insert(format!("{key:?}"), place);
    }

    /// Notes where the next zone stands.
    pub(super) fn note_zone(&mut self, place: String) {
        self.zones.push(place);
    }

    /// The place of the first of `keys` that was set at all, as it stands before a message.
    pub(super) fn before(&self, keys: &[&str]) -> String {
        let place = keys.iter().find_map(|&key| self.keys.get(key));
        place.map(|place| format!("{place}: ")).unwrap_or_default()
    }

    /// The place of the zone with this number, likewise.
    pub(super) fn before_zone(&self, number: usize) -> String {
        self.zones.get(number).map(|place| format!("{place}: ")).unwrap_or_default()
    }
}
