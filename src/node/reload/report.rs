//! What a reload has come to, for people and for programs.

use std::fmt;

use serde_json::{Value, json};

use crate::control::api::Reloaded;

/// What a reload has come to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Why nothing has changed: the error that the same config would give at a start.
    pub error: Option<String>,
    /// The sections that differed and are in force now.
    pub applied: Vec<&'static str>,
    /// Those that did not differ.
    pub unchanged: Vec<&'static str>,
    /// What takes effect at the next start.
    pub needs_restart: Vec<Later>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// A key that cannot change while a node runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Later {
    /// Which, as `table.key`.
    pub key: &'static str,
    /// The value in force, which stays.
    pub in_force: String,
    /// The one of the config.
    pub wanted: String,
}

impl fmt::Display for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, in_force, wanted } = self;
        write!(f, "{key} = {wanted} takes effect at the next start; {in_force} stays in force")
    }
}

impl Report {
    /// A reload that changed nothing, for this reason.
    #[must_use]
    pub fn refused(error: String) -> Self {
        Self { error: Some(error), ..Self::default() }
    }

    /// What has happened, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        match (&self.error, &self.applied[..]) {
            (Some(error), _) => format!("reload refused, nothing has changed: {error}"),
            (None, []) => "reload: nothing to apply".to_owned(),
            (None, applied) => format!("reload: applied {}", applied.join(", ")),
        }
    }

    /// The report for programs.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub(super) fn told(self) -> Reloaded {
        if let Some(error) = self.error {
            return Err(error);
        }
        let later = |later: &Later| {
            let Later { key, in_force, wanted } = later;
            json!({ "key": key, "in_force": in_force, "wanted": wanted })
        };
        let needs_restart: Vec<Value> = self.needs_restart.iter().map(later).collect();
        Ok(json!({
            "applied": self.applied,
            "unchanged": self.unchanged,
            "needs_restart": needs_restart,
            "warnings": self.warnings,
        }))
    }
}

/// The summary, and a line for all else.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.summary())?;
        for later in &self.needs_restart {
            write!(f, "\n{later}")?;
        }
        for warning in &self.warnings {
            write!(f, "\nwarning: {warning}")?;
        }
        if !self.unchanged.is_empty() {
            write!(f, "\nunchanged: {}", self.unchanged.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let later =
            Later { key: "node.io", in_force: "\"uring\"".into(), wanted: "\"mmsg\"".into() };
        Report {
            error: None,
            applied: vec!["acl", "local"],
            unchanged: vec!["log"],
            needs_restart: vec![later],
            warnings: vec!["two\nlines".into()],
        }
    }

    #[test]
    fn text_has_a_line_for_each_thing_to_know() {
        assert_eq!(
            report().to_string(),
            "reload: applied acl, local\nnode.io = \"mmsg\" takes effect at the next start; \"uring\" stays in \
             force\nwarning: two\nlines\nunchanged: log"
        );
        let refused = Report::refused("node.toml:1: bad".into());
        assert_eq!(refused.to_string(), "reload refused, nothing has changed: node.toml:1: bad");
        assert_eq!(Report::default().to_string(), "reload: nothing to apply");
    }

    #[test]
    fn programs_get_all_of_it() {
        assert_eq!(
            report().told(),
            Ok(json!({
                "applied": ["acl", "local"],
                "unchanged": ["log"],
                "needs_restart": [
                    { "key": "node.io", "in_force": "\"uring\"", "wanted": "\"mmsg\"" },
                ],
                "warnings": ["two\nlines"],
            }))
        );
        assert_eq!(Report::refused("bad".into()).told(), Err("bad".to_owned()));
    }
}
