//! Hot path. Where a core leaves what it has to tell of its queries.

use std::cell::Cell;
use std::sync::Arc;

use super::super::text::{Exposition, Kind};
use super::super::{Counter, Gauge};
use super::entry::Entry;
use super::queue::Producer;

/// Which messages are wanted beside what is told of them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Octets {
    /// Queries as they came.
    pub queries: bool,
    /// Replies as they went.
    pub replies: bool,
}

/// What is counted of one core's log. Each counter says who writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LogCounters {
    /// Records without room in the queue; written by the core.
    pub queue_dropped: Counter,
    /// Records that the writer of the store was too slow for; written by the thread that empties the queues.
    pub store_dropped: Counter,
    /// Frames that their receiver was too slow for, or not there; written by the same thread.
    pub dnstap_dropped: Counter,
    /// Records taken out of the queue; written by the same thread.
    pub records: Counter,
    /// Bytes that waited in the queue when it was looked at last; written by the same thread.
    pub queue_bytes: Gauge,
}

impl LogCounters {
    /// Writes all counters of `core`.
    pub fn expose(&self, core: usize, out: &mut Exposition) {
        let core = core.to_string();
        for (place, count) in [
            ("queue", &self.queue_dropped),
            ("store", &self.store_dropped),
            ("dnstap", &self.dnstap_dropped),
        ] {
            let (name, help) =
                ("storage_queries_dropped_total", "Queries missing in the query log");
            let labels = [("place", place), ("core", core.as_str())];
            out.sample(Kind::Counter, name, help, &labels, count.value());
        }
        let labels = [("core", core.as_str())];
        let (name, help) = ("storage_queries_total", "Queries taken over by the query log");
        out.sample(Kind::Counter, name, help, &labels, self.records.value());
        let (name, help) = ("storage_queue_bytes", "Bytes that wait for the query log");
        out.sample(Kind::Gauge, name, help, &labels, self.queue_bytes.value());
    }
}

/// One core's way to the log.
#[derive(Debug)]
pub struct Tap {
    producer: Producer,
    counters: Arc<LogCounters>,
    octets: Octets,
    sample: u32,
    /// Queries until the next one that is told.
    left: Cell<u32>,
}

impl Tap {
    /// One of `sample` queries is told through `producer`, with the messages that `octets` names.
    #[must_use]
    pub fn new(
        producer: Producer,
        counters: Arc<LogCounters>,
        octets: Octets,
        sample: u32,
    ) -> Self {
        Self { producer, counters, octets, sample, left: Cell::new(0) }
    }

    /// Which messages are wanted.
    #[inline]
    #[must_use]
    pub const fn octets(&self) -> Octets {
        self.octets
    }

    /// Whether the query at hand is one of those that are told; to be asked once for each.
    #[inline]
    #[must_use]
    pub fn is_due(&self) -> bool {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                false
            }
            None => {
                self.left.set(self.sample.saturating_sub(1));
                true
            }
        }
    }

    /// Tells `entry`, without the messages that are not wanted.
    pub fn tell(&self, entry: &Entry<'_>) {
        let query = if self.octets.queries { entry.query } else { &[] };
        let reply = if self.octets.replies { entry.reply } else { &[] };
        let entry = Entry { query, reply, ..*entry };
        if !self.producer.push(&entry.parts(&entry.head())) {
            self.counters.queue_dropped.bump();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::ENTRY;
    use super::super::queue::queue;
    use super::*;

    #[test]
    fn what_is_not_wanted_stays_behind_and_what_does_not_fit_is_counted() {
        let (producer, mut consumer) = queue(256);
        let counters = Arc::<LogCounters>::default();
        let octets = Octets { queries: false, replies: true };
        let tap = Tap::new(producer, Arc::clone(&counters), octets, 1);
        let entry = Entry { query: b"query", reply: b"reply", ..ENTRY };
        (0..4).for_each(|_| tap.tell(&entry));
        let mut seen = 0;
        consumer.drain(|record| {
            seen += 1;
            assert_eq!(Entry::read(record), Some(Entry { query: b"", ..entry }));
        });
        assert_eq!((seen, counters.queue_dropped.value()), (3, 1));
    }

    #[test]
    fn one_of_so_many_queries_is_due() {
        for sample in [1, 3, 10] {
            let (producer, _consumer) = queue(64);
            let tap = Tap::new(producer, Arc::default(), Octets::default(), sample);
            let due = (0..30).filter(|_| tap.is_due()).count();
            assert_eq!(due, 30 / usize::try_from(sample).unwrap());
        }
    }
}
