//! Why nothing could be measured.

use std::io;
use std::path::PathBuf;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// An argument that there is not.
    #[error(
        "{0}: expected --check, --accept or --prove, --baseline FILE, --slow-down PERCENT (0 to 100)"
    )]
    Argument(String),
    /// A build whose counts say nothing.
    #[error("built without optimizations: build with --release")]
    Debug,
    /// A program that cannot be started.
    #[error("cannot start {0}: {1} (scripts/setup --tests)")]
    Start(&'static str, io::Error),
    /// Callgrind has failed, or the program below it.
    #[error("the run under callgrind failed:\n{0}")]
    Run(String),
    /// Counts that are not there.
    #[error("callgrind has written no count of instructions to {0}")]
    Count(PathBuf),
    /// A file that cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// A baseline that is none.
    #[error("{0}: {1}: written by scripts/check_performance.sh --accept?")]
    Baseline(PathBuf, String),
}
