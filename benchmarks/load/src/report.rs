//! What was found, as a table for people and as JSON for scripts.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::arguments::Plan;
use crate::door::Troubles;

/// What one thread, or all, have seen.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Questions sent.
    pub(crate) asked: u64,
    /// Questions that were due and not sent before the end; not among those asked.
    pub(crate) unasked: u64,
    /// Questions that were answered in time.
    pub(crate) answered: u64,
    /// Those that were not.
    pub(crate) lost: u64,
    /// Answers that came in time while questions counted, whichever they answer.
    pub(crate) arrived: u64,
    /// Questions whose answer came after the timeout, before the run was over; among the lost.
    pub(crate) late: u64,
    /// Questions that the system would not send; among the lost.
    pub(crate) unsent: u64,
    /// Messages that answer nothing that was asked of late: a second time, or something else.
    pub(crate) unexpected: u64,
    /// What went wrong on our own side.
    pub(crate) troubles: Troubles,
    /// Answers with TC.
    pub(crate) truncated: u64,
    /// Answers by RCODE.
    pub(crate) rcodes: [u64; 16],
    /// From when a question was due to its answer, in nanoseconds; of lost ones to the end of the timeout.
    latency: Histogram<u64>,
    /// From when a question was due to when it was sent.
    lag: Histogram<u64>,
}

/// The longest time that is told apart from longer ones.
const LONGEST_NS: u64 = 60_000_000_000;

const QUANTILES: [(&str, f64); 5] =
    [("P50", 0.5), ("P90", 0.9), ("P95", 0.95), ("P99", 0.99), ("P99.9", 0.999)];

impl Default for Tally {
    fn default() -> Self {
        let empty = || {
            Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds and digits are in range")
        };
        Self {
            asked: 0,
            unasked: 0,
            answered: 0,
            lost: 0,
            arrived: 0,
            late: 0,
            unsent: 0,
            unexpected: 0,
            troubles: Troubles::default(),
            truncated: 0,
            rcodes: [0; 16],
            latency: empty(),
            lag: empty(),
        }
    }
}

impl Tally {
    /// A question was sent, this much later than it was due.
    pub(crate) fn ask(&mut self, lag_ns: u64) {
        self.asked += 1;
        self.lag.saturating_record(lag_ns.max(1));
    }

    /// `response` came, this much later than its question was due.
    pub(crate) fn answer(&mut self, latency_ns: u64, response: &[u8]) {
        self.answered += 1;
        self.latency.saturating_record(latency_ns.max(1));
        if let Some(&[flags, codes]) = response.get(2..4).and_then(|flags| flags.first_chunk()) {
            self.truncated += u64::from(flags >> 1 & 1);
            self.rcodes[usize::from(codes & 15)] += 1;
        }
    }

    /// A question was given up, this much later than it was due: at least so long its answer took.
    pub(crate) fn lose(&mut self, latency_ns: u64) {
        self.lost += 1;
        self.latency.saturating_record(latency_ns.max(1));
    }

    /// Adds what another thread has seen.
    pub(crate) fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.unasked += other.unasked;
        self.answered += other.answered;
        self.lost += other.lost;
        self.arrived += other.arrived;
        self.late += other.late;
        self.unsent += other.unsent;
        self.unexpected += other.unexpected;
        self.troubles.dropped += other.troubles.dropped;
        self.troubles.starved += other.troubles.starved;
        self.troubles.reopened += other.troubles.reopened;
        self.truncated += other.truncated;
        for (own, others) in self.rcodes.iter_mut().zip(other.rcodes) {
            *own += others;
        }
        self.latency += &other.latency;
        self.lag += &other.lag;
    }

    /// P50, P90, P95, P99 and P99.9 of the latency, in nanoseconds, lost questions among them.
    pub(crate) fn percentiles(&self) -> [u64; 5] {
        QUANTILES.map(|(_, quantile)| self.latency.value_at_quantile(quantile))
    }
}

/// A run and its outcome.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) plan: Plan,
    pub(crate) tally: Tally,
    /// What the server has used while questions counted.
    pub(crate) usage: Option<Usage>,
}

/// CPU time of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_ns: u64,
    /// In this time.
    pub(crate) wall: Duration,
}

/// From so many questions in a thousand on that were not asked, the generator is not up to the rate.
const UNASKED_PER_MILLE_MAX: u64 = 1;

#[expect(clippy::cast_precision_loss, reason = "figures for people, with a few digits")]
impl Results {
    fn loss_percent(&self) -> f64 {
        self.tally.lost as f64 * 100.0 / self.tally.asked.max(1) as f64
    }

    /// Answers per second of the time in which questions counted: what came after it is none of its rate.
    fn rate(&self) -> f64 {
        self.tally.arrived as f64 / self.plan.duration.as_secs_f64()
    }

    /// The server's CPU time per answer, and how many CPUs that was.
    fn cpu(&self) -> Option<(f64, f64)> {
        let usage = self.usage?;
        let cpus = usage.cpu_ns as f64 / usage.wall.as_nanos().max(1) as f64;
        Some((usage.cpu_ns as f64 / self.tally.arrived.max(1) as f64, cpus))
    }

    /// What is to be said of a run that asked less than it was to, if it did so by more than a hiccup at its end.
    pub(crate) fn shortfall(&self) -> Option<String> {
        let Tally { asked, unasked, .. } = self.tally;
        let due = asked + unasked;
        (unasked * 1_000 > due * UNASKED_PER_MILLE_MAX).then(|| {
            format!(
                "of {} questions that were due, {} were not asked before the end: this is not what --qps {} would show",
                grouped(due),
                grouped(unasked),
                self.plan.qps.unwrap_or_default(),
            )
        })
    }

    /// Lines for people.
    pub(crate) fn to_table(&self) -> String {
        let tally = &self.tally;
        let mut lines = vec![
            ("Questions", grouped(tally.asked)),
            ("Answered", grouped(tally.answered)),
            ("Lost", self.lost()),
            ("Answers per second", format!("{:.0}", self.rate())),
        ];
        for ((name, _), nanoseconds) in QUANTILES.iter().zip(tally.percentiles()) {
            lines.push((name, duration(nanoseconds)));
        }
        lines.push(("Longest", duration(tally.latency.max())));
        lines.push(("Mean", duration(whole(tally.latency.mean()))));
        if let Some((per_answer, cpus)) = self.cpu() {
            lines.push(("Server's CPU per answer", format!("{per_answer:.0} ns ({cpus:.2} CPUs)")));
        }
        lines.push(("RCODEs", self.rcodes()));
        let lag = tally.lag.value_at_quantile(0.999);
        lines.push(("Sent late, P99.9", duration(lag)));
        for (name, count) in [
            ("Due and not asked", tally.unasked),
            ("Answered too late", tally.late),
            ("Truncated", tally.truncated),
            ("Unexpected", tally.unexpected),
            ("Not sent", tally.unsent),
            ("Dropped here", tally.troubles.dropped),
            ("Without buffer here", tally.troubles.starved),
            ("Connections lost", tally.troubles.reopened),
        ] {
            if count > 0 {
                lines.push((name, grouped(count)));
            }
        }
        let lines = lines.iter().map(|(name, value)| format!("{name:<24} {value}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn lost(&self) -> String {
        let lost = format!("{} ({:.4} %)", grouped(self.tally.lost), self.loss_percent());
        if self.tally.lost == 0 {
            return lost;
        }
        let timeout = u64::try_from(self.plan.timeout.as_nanos()).unwrap_or(u64::MAX);
        format!("{lost}; below, each took {}", duration(timeout))
    }

    fn rcodes(&self) -> String {
        let seen = self.seen_rcodes().map(|(name, count)| format!("{name} {}", grouped(count)));
        seen.collect::<Vec<_>>().join(", ")
    }

    fn seen_rcodes(&self) -> impl Iterator<Item = (String, u64)> {
        const NAMES: [&str; 6] =
            ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
        let named = self.tally.rcodes.iter().enumerate();
        named.filter(|&(_, &count)| count > 0).map(|(code, &count)| {
            (NAMES.get(code).map_or_else(|| format!("RCODE{code}"), |&name| name.to_owned()), count)
        })
    }

    /// One object; times are microseconds, CPU time nanoseconds.
    pub(crate) fn to_json(&self) -> String {
        let tally = &self.tally;
        let micros = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let latency = QUANTILES
            .iter()
            .zip(tally.percentiles())
            .map(|((name, _), value)| (name.to_lowercase(), json!(micros(value))));
        let mut latency: Map<String, Value> = latency.collect();
        latency.insert("mean".to_owned(), json!(tally.latency.mean() / 1e3));
        latency.insert("max".to_owned(), json!(micros(tally.latency.max())));
        let rcodes = self.seen_rcodes().map(|(name, count)| (name, json!(count)));
        let wanted = &self.plan.wanted;
        json!({
            "server": self.plan.server.to_string(),
            "protocol": self.plan.transport.name(),
            "domains": wanted.file.as_ref().map_or_else(
                || wanted.domains.name(), |file| file.display().to_string()),
            "qps_asked_for": self.plan.qps,
            "seconds": self.plan.duration.as_secs_f64(),
            "clients": self.plan.from.map_or(1, |(_, clients)| clients),
            "threads": self.plan.cpus.len(),
            "asked": tally.asked,
            "unasked": tally.unasked,
            "answered": tally.answered,
            "lost": tally.lost,
            "late": tally.late,
            "loss_percent": self.loss_percent(),
            "answers_per_second": self.rate(),
            "latency_us": latency,
            "sent_late_us_p99.9": micros(tally.lag.value_at_quantile(0.999)),
            "rcodes": rcodes.collect::<Map<_, _>>(),
            "truncated": tally.truncated,
            "unexpected": tally.unexpected,
            "unsent": tally.unsent,
            "dropped_here": tally.troubles.dropped,
            "starved_here": tally.troubles.starved,
            "connections_lost": tally.troubles.reopened,
            "server_cpu_ns_per_answer": self.cpu().map(|(per_answer, _)| per_answer),
            "server_cpus": self.cpu().map(|(_, cpus)| cpus),
        })
        .to_string()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a mean of positive times is one"
)]
fn whole(time: f64) -> u64 {
    time as u64
}

/// `1 234 567`.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds with a unit that fits.
#[expect(clippy::cast_precision_loss, reason = "four digits are told")]
pub(crate) fn duration(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000_000 => format!("{:.1} µs", nanoseconds as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", nanoseconds as f64 / 1e6),
        _ => format!("{:.2} s", nanoseconds as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_easily() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(duration(12_340), "12.3 µs");
        assert_eq!(duration(12_340_000), "12.34 ms");
        assert_eq!(duration(2_500_000_000), "2.50 s");
    }

    #[test]
    fn tallies_add_up() {
        let mut all = Tally::default();
        let response = [0, 0, 0x82, 0x83];
        for latency_ns in [1_000, 2_000, 3_000, 4_000] {
            let mut one = Tally::default();
            one.ask(10);
            one.answer(latency_ns, &response);
            all.add(&one);
        }
        assert_eq!((all.asked, all.answered, all.truncated, all.rcodes[3]), (4, 4, 4, 4));
        let [p50, .., p999] = all.percentiles();
        assert!(p50.abs_diff(2_000) <= 2 && p999.abs_diff(4_000) <= 4, "{p50} {p999}");
    }

    #[test]
    fn lost_questions_took_until_they_were_given_up() {
        let mut tally = Tally::default();
        for number in 0..1_000 {
            tally.ask(10);
            if number % 500 == 0 {
                tally.lose(2_000_000_000);
            } else {
                tally.answer(1_000, &[]);
            }
        }
        let [.., p99, p999] = tally.percentiles();
        assert!(p99 <= 1_001 && p999 >= 2_000_000_000, "{p99} {p999}");
    }
}
