//! A line per second on stderr, while questions are asked.

use std::io::Write as _;

use crate::arguments::Plan;
use crate::report::{Tally, duration};

/// Seconds of several threads, put together.
#[derive(Debug)]
pub(crate) struct Progress {
    threads: usize,
    heard: usize,
    seconds: u32,
    all: Tally,
}

impl Progress {
    /// Of the threads of `plan`.
    pub(crate) fn new(plan: &Plan) -> Self {
        let threads = plan.cpus.len();
        Self { threads, heard: 0, seconds: 0, all: Tally::default() }
    }

    /// Takes one thread's second in; tells it when all have told theirs.
    pub(crate) fn tell(&mut self, second: &Tally) {
        self.all.add(second);
        self.heard += 1;
        if self.heard < self.threads {
            return;
        }
        self.heard = 0;
        self.seconds += 1;
        let all = std::mem::take(&mut self.all);
        let [p50, _, _, p99, p999] = all.percentiles().map(duration);
        // Nobody may read it.
        let _ = writeln!(
            std::io::stderr().lock(),
            "{:>5} s  {:>9} asked  {:>9} answered  {:>6} lost  P50 {p50}  P99 {p99}  P99.9 {p999}",
            self.seconds,
            all.asked,
            all.answered,
            all.lost,
        );
    }
}
