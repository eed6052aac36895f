//! What became of the lists: one block per node, written by the thread that keeps them.

use std::sync::{Arc, Mutex, PoisonError};

use super::text::{Exposition, Kind};
use super::{Counter, Gauge};

/// The counters of one list.
#[derive(Debug, Default)]
pub struct ListCounters {
    name: String,
    /// Rules of it that are in force.
    pub rules: Gauge,
    /// Lines that could not be read.
    pub bad_lines: Gauge,
    /// Lines that mean nothing here.
    pub skipped_lines: Gauge,
    /// Lines for which there was no room.
    pub left_out_lines: Gauge,
    /// Length of its text.
    pub bytes: Gauge,
    /// When it was last known to be what its source has, in seconds since 1970; 0 for never.
    pub confirmed: Gauge,
    /// Times that it was looked at and had changed.
    pub changed: Counter,
    /// Times that it was looked at and had not.
    pub unchanged: Counter,
    /// Times that it could not be had.
    pub failed: Counter,
    /// When it is looked at next, in seconds since 1970; 0 for when told only.
    pub due: Gauge,
    /// Why it could not be had the last time, if so.
    problem: Mutex<Option<String>>,
}

/// The counters of all lists.
#[derive(Debug, Default)]
pub struct FilterCounters {
    /// By list, in the order of the config.
    lists: Mutex<Vec<Arc<ListCounters>>>,
    /// Names in the image in force.
    pub names: Gauge,
    /// Bytes of it.
    pub image_bytes: Gauge,
    /// Images that were built.
    pub built: Counter,
    /// Images that could not be built.
    pub failed: Counter,
    /// How long the last one took, in microseconds.
    pub build_us: Gauge,
    /// Times that other lists came into force.
    pub published: Counter,
    /// Times that the operator had all lists looked at.
    pub asked: Counter,
}

impl ListCounters {
    /// The name of the list.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Notes why the list could not be had, or that it could.
    pub fn note_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Why the list could not be had the last time, if so.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn expose(&self, out: &mut Exposition) {
        let Self { name, rules, bad_lines, skipped_lines, .. } = self;
        let Self { left_out_lines, bytes, confirmed, .. } = self;
        let labels = [("list", name.as_str())];
        for (family, help, value) in [
            ("dns_list_rules", "Rules of a list that are in force", rules),
            ("dns_list_bad_lines", "Lines of a list that could not be read", bad_lines),
            ("dns_list_skipped_lines", "Lines of a list that mean nothing here", skipped_lines),
            (
                "dns_list_left_out_lines",
                "Lines of a list for which there was no room",
                left_out_lines,
            ),
            ("dns_list_bytes", "Length of a list", bytes),
            (
                "dns_list_confirmed_timestamp_seconds",
                "When a list was last known to be what its source has",
                confirmed,
            ),
        ] {
            out.sample(Kind::Gauge, family, help, &labels, value.value());
        }
        let Self { changed, unchanged, failed, .. } = self;
        for (outcome, count) in [("changed", changed), ("unchanged", unchanged), ("failed", failed)]
        {
            let labels = [("list", name.as_str()), ("outcome", outcome)];
            let family = "dns_list_looks_total";
            out.sample(
                Kind::Counter,
                family,
                "Looks at the source of a list",
                &labels,
                count.value(),
            );
        }
    }
}

impl FilterCounters {
    /// For lists with these names.
    #[must_use]
    pub fn of(names: impl IntoIterator<Item = String>) -> Self {
        let counters = Self::default();
        counters.follow(names);
        counters
    }

    /// The counters of lists with these names, which are kept from now on, in the same order. What was counted of one that
    /// stays goes on.
    pub fn follow(&self, names: impl IntoIterator<Item = String>) -> Vec<Arc<ListCounters>> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let list = |name: String| {
            let known = lists.iter().find(|list| list.name == name).map(Arc::clone);
            known.unwrap_or_else(|| Arc::new(ListCounters { name, ..ListCounters::default() }))
        };
        *lists = names.into_iter().map(list).collect();
        lists.clone()
    }

    /// The counters of the lists that are kept, in the order of the config.
    #[must_use]
    pub fn lists(&self) -> Vec<Arc<ListCounters>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes all counters.
    pub fn expose(&self, out: &mut Exposition) {
        const GAUGE: Kind = Kind::Gauge;
        const COUNTER: Kind = Kind::Counter;
        self.lists().iter().for_each(|list| list.expose(out));
        for (outcome, count) in [("built", &self.built), ("failed", &self.failed)] {
            let (family, help) =
                ("dns_filter_builds_total", "Images of all lists that were to be built");
            out.sample(COUNTER, family, help, &[("outcome", outcome)], count.value());
        }
        for (kind, family, help, value) in [
            (GAUGE, "dns_filter_names", "Names in the image in force", self.names.value()),
            (
                GAUGE,
                "dns_filter_image_bytes",
                "Bytes of the image in force",
                self.image_bytes.value(),
            ),
            (
                GAUGE,
                "dns_filter_build_microseconds",
                "How long the last image took to build",
                self.build_us.value(),
            ),
            (
                COUNTER,
                "dns_filter_published_total",
                "Times that other lists came into force",
                self.published.value(),
            ),
            (
                COUNTER,
                "dns_filter_reloads_total",
                "Times that the operator had all lists looked at",
                self.asked.value(),
            ),
        ] {
            out.sample(kind, family, help, &[], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Format;

    #[test]
    fn every_list_has_its_samples() {
        let counters = FilterCounters::of(["ads".to_owned(), "o\"urs".to_owned()]);
        counters.lists()[0].rules.set(3);
        counters.lists()[1].failed.bump();
        counters.names.set(2);
        let mut out = Exposition::default();
        counters.expose(&mut out);
        let text = out.finish(Format::Classic);
        for line in [
            "dns_list_rules{list=\"ads\"} 3",
            "dns_list_rules{list=\"o\\\"urs\"} 0",
            "dns_list_looks_total{list=\"o\\\"urs\",outcome=\"failed\"} 1",
            "dns_filter_names 2",
            "dns_filter_builds_total{outcome=\"built\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
        }
    }
}
