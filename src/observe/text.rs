//! The text expositions of metrics, families in order of first mention, samples together: OpenMetrics 1.0 for scrapers that
//! ask for it, Prometheus' own format 0.0.4 for all others and for people.

use std::fmt::{Display, Write as _};

use super::durations::{BOUNDS, Spread};

/// What a metric family is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// In which form families are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Classic,
    /// OpenMetrics 1.0.
    Open,
}

impl Format {
    /// What HTTP calls it.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Ends of names that are units.
const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

/// What ends the name of a counter's sample.
const TOTAL: &str = "_total";

/// Collects samples from many cores and rooms, then prints family by family.
#[derive(Debug, Default)]
pub struct Exposition {
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    kind: &'static str,
    name: &'static str,
    help: &'static str,
    samples: String,
}

impl Exposition {
    /// Adds one sample to the family `name`.
    pub fn sample(
        &mut self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: u64,
    ) {
        self.add(kind, name, help, labels, value);
    }

    /// The same for what is no whole number; `value` must be finite.
    pub fn real(
        &mut self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        self.add(kind, name, help, labels, value);
    }

    /// Adds a histogram of durations to the family `name`.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        spread: &Spread,
    ) {
        let samples = self.family("histogram", name, help);
        let mut below = 0;
        let bounds = BOUNDS.iter().map(|bound| bound.as_secs_f64().to_string());
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(spread.counts) {
            below += count;
            let labels = [labels, &[("le", bound.as_str())]].concat();
            write_sample(samples, &format!("{name}_bucket"), &labels, below);
        }
        write_sample(samples, &format!("{name}_sum"), labels, spread.sum.as_secs_f64());
        write_sample(samples, &format!("{name}_count"), labels, below);
    }

    fn add(
        &mut self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) {
        debug_assert_eq!(kind == Kind::Counter, name.ends_with(TOTAL), "{name}");
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        write_sample(self.family(kind, name, help), name, labels, value);
    }

    fn family(
        &mut self,
        kind: &'static str,
        name: &'static str,
        help: &'static str,
    ) -> &mut String {
        // Most often the last one, or the one that stands behind it.
        let place = self.families.iter().rposition(|family| family.name == name);
        let place = place.unwrap_or_else(|| {
            self.families.push(Family { kind, name, help, samples: String::new() });
            self.families.len() - 1
        });
        &mut self.families[place].samples
    }

    /// The whole text in `format`.
    #[must_use]
    pub fn finish(self, format: Format) -> String {
        let mut text = String::new();
        for Family { kind, name, help, samples } in self.families {
            let plain = name.strip_suffix(TOTAL).unwrap_or(name);
            // Writing to a string cannot fail.
            let _ = match format {
                Format::Classic => {
                    write!(
                        text,
                        "# HELP {name} {}\n# TYPE {name} {kind}\n",
                        help.replace('\\', r"\\")
                    )
                }
                Format::Open => {
                    let unit = UNITS.iter().find(|&&unit| {
                        plain.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'))
                    });
                    let unit =
                        unit.map(|unit| format!("# UNIT {plain} {unit}\n")).unwrap_or_default();
                    let help = escape(help);
                    write!(text, "# TYPE {plain} {kind}\n{unit}# HELP {plain} {help}\n")
                }
            };
            text.push_str(&samples);
        }
        if format == Format::Open {
            text.push_str("# EOF\n");
        }
        text
    }
}

fn write_sample(samples: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    samples.push_str(name);
    for (index, (label, text)) in labels.iter().enumerate() {
        samples.push(if index == 0 { '{' } else { ',' });
        // Writing to a string cannot fail.
        let _ = write!(samples, "{label}=\"{}\"", escape(text));
    }
    let close = if labels.is_empty() { "" } else { "}" };
    let _ = writeln!(samples, "{close} {value}");
}

fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::durations::Durations;
    use super::*;

    fn example() -> Exposition {
        let mut out = Exposition::default();
        out.sample(Kind::Counter, "a_total", "A", &[("core", "0")], 1);
        out.sample(Kind::Gauge, "b_bytes", "B \"b\"", &[], 2);
        out.sample(Kind::Counter, "a_total", "A", &[("core", "1"), ("name", "x\"y")], 3);
        out.real(Kind::Gauge, "c_seconds", "C", &[], 0.000_25);
        out
    }

    #[test]
    fn samples_of_one_family_stand_together() {
        assert_eq!(
            example().finish(Format::Classic),
            "# HELP a_total A\n# TYPE a_total counter\na_total{core=\"0\"} 1\n\
             a_total{core=\"1\",name=\"x\\\"y\"} 3\n# HELP b_bytes B \"b\"\n# TYPE b_bytes gauge\n\
             b_bytes 2\n# HELP c_seconds C\n# TYPE c_seconds gauge\nc_seconds 0.00025\n"
        );
    }

    #[test]
    fn open_metrics_name_counters_without_total_say_units_and_end() {
        assert_eq!(
            example().finish(Format::Open),
            "# TYPE a counter\n# HELP a A\na_total{core=\"0\"} 1\n\
             a_total{core=\"1\",name=\"x\\\"y\"} 3\n\
             # TYPE b_bytes gauge\n# UNIT b_bytes bytes\n# HELP b_bytes B \\\"b\\\"\nb_bytes 2\n\
             # TYPE c_seconds gauge\n# UNIT c_seconds seconds\n# HELP c_seconds C\n\
             c_seconds 0.00025\n# EOF\n"
        );
    }

    #[test]
    fn buckets_add_up_and_the_last_one_is_the_count() {
        let durations = Durations::default();
        durations.note(Duration::from_micros(2), 3);
        durations.note(Duration::from_secs(60), 1);
        let mut spread = Spread::default();
        spread.add(&durations);
        let mut out = Exposition::default();
        out.histogram("d_seconds", "D", &[("cache", "hit")], &spread);
        let text = out.finish(Format::Classic);
        assert!(text.starts_with("# HELP d_seconds D\n# TYPE d_seconds histogram\n"), "{text}");
        for line in [
            "d_seconds_bucket{cache=\"hit\",le=\"0.000001\"} 0\n",
            "d_seconds_bucket{cache=\"hit\",le=\"0.0000025\"} 3\n",
            "d_seconds_bucket{cache=\"hit\",le=\"10\"} 3\n",
            "d_seconds_bucket{cache=\"hit\",le=\"+Inf\"} 4\n",
            "d_seconds_sum{cache=\"hit\"} 60.000006\n",
            "d_seconds_count{cache=\"hit\"} 4\n",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
    }
}
