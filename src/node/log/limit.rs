//! A bound on lines: so many a second from each place in the code; what is beyond is counted, and the count told.

use std::collections::HashMap;
use std::time::Duration;

use tracing::callsite::Identifier;

use super::form::Record;
use crate::time::Monotonic;

/// Lines of one place that are told within [`PERIOD`]: more than there are keys that a reload may have to name one by one.
pub(super) const LINES_MAX: u32 = 64;

/// How long they are counted.
pub(super) const PERIOD: Duration = Duration::from_secs(1);

/// Characters that are repeated of a line that was held back.
const SAMPLE_CHARS: usize = 120;

/// What has come from each place of late.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    places: HashMap<Identifier, Window>,
    /// Places from which lines are held back now.
    holding: usize,
}

#[derive(Debug)]
struct Window {
    since: Monotonic,
    told: u32,
    held_back: u64,
    /// The first that was held back.
    sample: Option<Record>,
}

impl Limiter {
    /// Whether `record` from `place` is told at `now`, and what is to be told before it.
    pub(super) fn admit(
        &mut self,
        place: Identifier,
        record: &Record,
        now: Monotonic,
    ) -> (bool, Option<Record>) {
        let fresh = || Window { since: now, told: 0, held_back: 0, sample: None };
        let window = self.places.entry(place).or_insert_with(fresh);
        let mut summary = None;
        if now.since(window.since) >= PERIOD {
            summary = window.summary();
            self.holding -= usize::from(summary.is_some());
            *window = fresh();
        }
        if window.told < LINES_MAX {
            window.told += 1;
            return (true, summary);
        }
        if window.sample.is_none() {
            self.holding += 1;
            window.sample = Some(record.clone());
        }
        window.held_back += 1;
        (false, summary)
    }

    /// Whether any lines are held back.
    pub(super) const fn is_holding(&self) -> bool {
        self.holding > 0
    }

    /// What was held back in periods that are over at `now`; all of it without one.
    pub(super) fn overdue(&mut self, now: Option<Monotonic>) -> Vec<Record> {
        let is_over = |window: &Window| now.is_none_or(|now| now.since(window.since) >= PERIOD);
        let windows = self.places.values_mut().filter(|window| is_over(window));
        let told: Vec<Record> = windows.filter_map(Window::summary).collect();
        self.holding -= told.len();
        told
    }
}

impl Window {
    /// What is told of those that were held back, once.
    fn summary(&mut self) -> Option<Record> {
        let mut record = self.sample.take()?;
        let count = std::mem::take(&mut self.held_back);
        let sample: String = record.message.chars().take(SAMPLE_CHARS).collect();
        record.message = format!("… and {count} more such as: {sample}");
        record.fields.clear();
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;
    use tracing::callsite::Callsite as _;

    use super::*;

    fn place() -> Identifier {
        let site = tracing::callsite!(
            name: "here",
            kind: tracing::metadata::Kind::EVENT,
            fields: message
        );
        site.metadata().callsite()
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_nanos(millis * 1_000_000)
    }

    fn record(number: u32) -> Record {
        Record::new(Level::WARN, "room", format!("line {number}"))
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted_and_told_with_the_next_or_by_and_by() {
        let mut limiter = Limiter::default();
        let place = place();
        for number in 0..LINES_MAX + 37 {
            let (is_told, summary) = limiter.admit(place.clone(), &record(number), at(1));
            assert_eq!((is_told, summary.is_none()), (number < LINES_MAX, true), "{number}");
        }
        assert!(limiter.is_holding() && limiter.overdue(Some(at(1_000))).is_empty());
        let (is_told, summary) = limiter.admit(place.clone(), &record(1), at(1_001));
        let said = summary.unwrap().message;
        assert_eq!((is_told, said.as_str()), (true, "… and 37 more such as: line 64"));
        assert!(!limiter.is_holding());
        for number in 0..LINES_MAX {
            limiter.admit(place.clone(), &record(number), at(1_002));
        }
        let told = limiter.overdue(Some(at(2_002)));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].message, "… and 1 more such as: line 63");
        assert_eq!((told[0].level, limiter.is_holding()), (Level::WARN, false));
        assert!(limiter.overdue(None).is_empty());
    }
}
