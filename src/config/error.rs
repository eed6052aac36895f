//! What an operator did wrong, and what would be right.

use thiserror::Error;

/// Why a config cannot be used. Each message names the place, the key, the value, and what is allowed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ConfigError {
    /// The file is no TOML.
    #[error("{place}: not valid TOML: {problem}")]
    Syntax {
        /// `file:line`.
        place: String,
        /// What the parser says.
        problem: String,
    },
    /// A key or table that does not exist.
    #[error("{place}: unknown {what} \"{name}\"{suggestion}; allowed: {allowed}")]
    Unknown {
        /// `file:line`.
        place: String,
        /// `key` or `table`.
        what: &'static str,
        /// The name as written.
        name: String,
        /// The name that may have been meant, with its introduction; may be empty.
        suggestion: String,
        /// All names that would do.
        allowed: String,
    },
    /// A value that its key does not take.
    #[error("{place}: {key} = {value}: expected {expected}")]
    Value {
        /// `file:line`, a variable or a flag.
        place: String,
        /// The key with its table.
        key: String,
        /// The value as written.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Conflict(String),
}
