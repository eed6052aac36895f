//! The text exposition of metrics (Prometheus text format 0.0.4): families in order of first mention, samples together.

use std::fmt::Write as _;

/// What a metric family is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// Collects samples from many cores and rooms, then prints family by family.
#[derive(Debug, Default)]
pub struct Exposition {
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    kind: Kind,
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
        let place = self.families.iter().position(|family| family.name == name);
        let place = place.unwrap_or_else(|| {
            self.families.push(Family { kind, name, help, samples: String::new() });
            self.families.len() - 1
        });
        let samples = &mut self.families[place].samples;
        samples.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            samples.push(if index == 0 { '{' } else { ',' });
            // Writing to a string cannot fail.
            let _ = write!(samples, "{label}=\"{}\"", escape(text));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(samples, "{close} {value}");
    }

    /// The whole text.
    #[must_use]
    pub fn finish(self) -> String {
        let mut text = String::new();
        for Family { kind, name, help, samples } in self.families {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        }
        text
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_family_stand_together() {
        let mut out = Exposition::default();
        out.sample(Kind::Counter, "a_total", "A", &[("core", "0")], 1);
        out.sample(Kind::Gauge, "b", "B", &[], 2);
        out.sample(Kind::Counter, "a_total", "A", &[("core", "1"), ("name", "x\"y")], 3);
        assert_eq!(
            out.finish(),
            "# HELP a_total A\n# TYPE a_total counter\na_total{core=\"0\"} 1\n\
             a_total{core=\"1\",name=\"x\\\"y\"} 3\n# HELP b B\n# TYPE b gauge\nb 2\n"
        );
    }
}
