//! What is asked of this program.

use std::path::PathBuf;

use crate::default_baseline;
use crate::problem::Problem;

/// Most that `--slow-down` takes: cases prepare twice the work at most.
const SLOW_DOWN_PERCENT_MAX: u32 = 100;

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Task {
    /// All cases, one after the other; under callgrind.
    Run,
    /// Measure and compare.
    Check,
    /// Measure and write the baseline.
    Accept,
    /// Check, and show that the comparison finds what it should.
    Prove,
}

/// The command line.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Arguments {
    pub(crate) task: Task,
    pub(crate) baseline: PathBuf,
    /// How much more than it says each case does, in percent.
    pub(crate) slow_down_percent: u32,
}

impl Arguments {
    /// Reads them, the program's name left out.
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Problem> {
        let mut read =
            Self { task: Task::Check, baseline: default_baseline().into(), slow_down_percent: 0 };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--run" => read.task = Task::Run,
                "--check" => read.task = Task::Check,
                "--accept" => read.task = Task::Accept,
                "--prove" => read.task = Task::Prove,
                "--baseline" => {
                    read.baseline = words.next().ok_or(Problem::Argument(word))?.into();
                }
                "--slow-down" => read.slow_down_percent = percent(words.next(), word)?,
                _ => return Err(Problem::Argument(word)),
            }
        }
        Ok(read)
    }
}

fn percent(word: Option<String>, option: String) -> Result<u32, Problem> {
    let number = word.and_then(|word| word.parse().ok());
    number.filter(|percent| *percent <= SLOW_DOWN_PERCENT_MAX).ok_or(Problem::Argument(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments, Problem> {
        Arguments::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn nothing_asked_for_is_a_check_against_the_committed_baseline() {
        let read = read("").unwrap();
        assert_eq!(read.task, Task::Check);
        assert_eq!(read.baseline, default_baseline());
    }

    #[test]
    fn options_are_read_in_any_order() {
        let read = read("--slow-down 5 --prove --baseline other.json").unwrap();
        assert_eq!(read.task, Task::Prove);
        assert_eq!((read.slow_down_percent, read.baseline), (5, "other.json".into()));
    }

    #[test]
    fn what_is_no_option_or_no_percentage_is_refused() {
        for line in ["--quick", "--baseline", "--slow-down", "--slow-down 101", "--slow-down -1"] {
            assert!(matches!(read(line), Err(Problem::Argument(_))), "{line}");
        }
    }
}
