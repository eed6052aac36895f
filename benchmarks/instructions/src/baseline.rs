//! Counts and what they were taken with, as a file that people read in a diff.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::environment::Environment;
use crate::problem::Problem;

/// Instructions per operation of each case, in the order of the cases.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Baseline {
    pub(crate) environment: Environment,
    pub(crate) counts: Vec<(String, f64)>,
}

impl Baseline {
    /// The count of a case.
    pub(crate) fn count(&self, case: &str) -> Option<f64> {
        self.counts.iter().find(|(name, _)| name == case).map(|(_, count)| *count)
    }

    pub(crate) fn read(path: &Path) -> Result<Self, Problem> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| Problem::File(path.into(), error))?;
        Self::parse(path, &text)
    }

    /// Reads `text`, which stands in `path`.
    fn parse(path: &Path, text: &str) -> Result<Self, Problem> {
        let flaw = |what: String| Problem::Baseline(path.into(), what);
        let whole: Value = serde_json::from_str(text).map_err(|error| flaw(error.to_string()))?;
        let object = |name: &str| {
            let found = whole.get(name).and_then(Value::as_object).cloned();
            found.ok_or_else(|| flaw(format!("no object \"{name}\"")))
        };
        let environment = Environment(object("environment")?);
        let counts = object("instructions")?.into_iter().map(|(name, count)| {
            let count = count.as_f64().filter(|count| *count > 0.0);
            let count = count.ok_or_else(|| flaw(format!("\"{name}\" has no count above 0")))?;
            Ok((name, count))
        });
        Ok(Self { environment, counts: counts.collect::<Result<_, Problem>>()? })
    }

    fn text(&self) -> String {
        let counts = self.counts.iter().map(|(name, count)| (name.clone(), Value::from(*count)));
        let whole = json!({
            "environment": self.environment.0,
            "instructions": Map::from_iter(counts),
        });
        format!("{whole:#}\n")
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Problem> {
        std::fs::write(path, self.text()).map_err(|error| Problem::File(path.into(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let environment = Map::from_iter([("rustc".to_owned(), Value::from("rustc 1.95.0"))]);
        let written = Baseline {
            environment: Environment(environment),
            counts: vec![("parse/plain".to_owned(), 101.5), ("hit".to_owned(), 700.0)],
        };
        assert_eq!(Baseline::parse(Path::new("a.json"), &written.text()).unwrap(), written);
    }

    #[test]
    fn a_count_of_nothing_is_no_baseline() {
        for text in [
            "",
            "{}",
            r#"{"environment": {}, "instructions": {"hit": 0}}"#,
            r#"{"environment": {}, "instructions": {"hit": "700"}}"#,
        ] {
            assert!(Baseline::parse(Path::new("a.json"), text).is_err(), "{text}");
        }
    }
}
