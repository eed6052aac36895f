//! What has become slower, what faster: counts beside those of a baseline.

use std::fmt::{self, Display, Formatter, Write as _};

use crate::baseline::Baseline;

/// What became of one case.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Same,
    Slower,
    Faster,
    /// The baseline does not know it.
    Added,
    /// It is in the baseline alone.
    Gone,
}

#[derive(Debug)]
struct Line {
    case: String,
    before: Option<f64>,
    now: Option<f64>,
    change: Change,
}

/// All cases of a baseline and of a measurement.
#[derive(Debug)]
pub(crate) struct Report {
    lines: Vec<Line>,
    tolerance_percent: f64,
}

impl Report {
    /// Compares; a case has changed when it is off by more than `tolerance_percent`.
    pub(crate) fn of(baseline: &Baseline, measured: &Baseline, tolerance_percent: f64) -> Self {
        let mut lines: Vec<_> = measured
            .counts
            .iter()
            .map(|(case, now)| Line::of(case, baseline.count(case), Some(*now), tolerance_percent))
            .collect();
        let gone = baseline.counts.iter().filter(|(case, _)| measured.count(case).is_none());
        lines.extend(
            gone.map(|(case, before)| Line::of(case, Some(*before), None, tolerance_percent)),
        );
        Self { lines, tolerance_percent }
    }

    /// Nothing is slower, and each case has something to be compared with.
    pub(crate) fn is_good(&self) -> bool {
        self.lines.iter().all(|line| matches!(line.change, Change::Same | Change::Faster))
    }

    /// As in the baseline, all of it.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.lines.iter().all(|line| line.change == Change::Same)
    }

    /// How many are slower.
    pub(crate) fn slower(&self) -> usize {
        self.lines.iter().filter(|line| line.change == Change::Slower).count()
    }
}

impl Line {
    fn of(case: &str, before: Option<f64>, now: Option<f64>, tolerance_percent: f64) -> Self {
        let change = match (before, now) {
            (Some(before), Some(now)) => {
                let off_percent = (now / before - 1.0) * 100.0;
                if off_percent > tolerance_percent {
                    Change::Slower
                } else if off_percent < -tolerance_percent {
                    Change::Faster
                } else {
                    Change::Same
                }
            }
            (None, _) => Change::Added,
            (_, None) => Change::Gone,
        };
        Self { case: case.to_owned(), before, now, change }
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:<28} {:>10} {:>10} {:>7}", "instructions", "before", "now", "ratio")?;
        let number =
            |count: Option<f64>| count.map_or_else(|| "-".into(), |count| format!("{count:.1}"));
        for Line { case, before, now, change } in &self.lines {
            let ratio = before
                .zip(*now)
                .map_or_else(|| "-".into(), |(old, new)| format!("{:.3}", new / old));
            let (before, now) = (number(*before), number(*now));
            write!(out, "{case:<28} {before:>10} {now:>10} {ratio:>7}")?;
            let limit = self.tolerance_percent;
            match change {
                Change::Same => writeln!(out)?,
                Change::Slower => writeln!(out, "  SLOWER by more than {limit} %")?,
                Change::Faster => {
                    writeln!(out, "  faster by more than {limit} %: refresh the baseline")?;
                }
                Change::Added => writeln!(out, "  NOT IN THE BASELINE")?,
                Change::Gone => writeln!(out, "  NO LONGER MEASURED")?,
            }
        }
        Ok(())
    }
}

/// The counts alone.
pub(crate) fn table(measured: &Baseline) -> String {
    let mut text = format!("{:<28} {:>10}\n", "instructions", "now");
    for (case, count) in &measured.counts {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{case:<28} {count:>10.1}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    fn baseline(counts: &[(&str, f64)]) -> Baseline {
        let counts = counts.iter().map(|(case, count)| ((*case).to_owned(), *count)).collect();
        Baseline { environment: Environment(serde_json::Map::new()), counts }
    }

    fn compared(before: f64, now: f64) -> Report {
        Report::of(&baseline(&[("hit", before)]), &baseline(&[("hit", now)]), 2.0)
    }

    #[test]
    fn five_percent_more_fails_and_says_what_was_and_what_is() {
        let report = compared(1_000.0, 1_050.0);
        assert!(!report.is_good());
        assert_eq!(report.slower(), 1);
        let text = report.to_string();
        let line = text.lines().nth(1).unwrap();
        for part in ["hit", "1000.0", "1050.0", "1.050", "SLOWER by more than 2 %"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn less_than_two_percent_either_way_passes_without_a_word() {
        for now in [981.0, 1_000.0, 1_019.0] {
            assert!(compared(1_000.0, now).is_unchanged(), "{now}");
        }
    }

    #[test]
    fn five_percent_less_passes_and_asks_for_a_baseline() {
        let report = compared(1_000.0, 950.0);
        assert!(report.is_good() && !report.is_unchanged());
        assert!(report.to_string().contains("refresh the baseline"));
    }

    #[test]
    fn a_case_without_anything_to_compare_with_fails() {
        let report = Report::of(&baseline(&[]), &baseline(&[("hit", 1.0)]), 2.0);
        assert!(!report.is_good() && report.to_string().contains("NOT IN THE BASELINE"));
        let report = Report::of(&baseline(&[("hit", 1.0)]), &baseline(&[]), 2.0);
        assert!(!report.is_good() && report.to_string().contains("NO LONGER MEASURED"));
    }
}
