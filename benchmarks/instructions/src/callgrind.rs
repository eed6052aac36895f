//! One run of all cases under callgrind, and what it counted.
//!
//! Plain valgrind, without a harness between: it comes as a package of the distribution and needs no second program of a matching
//! version of its own. One function, [`counted_here`], is the window: callgrind counts while it runs, and writes a file whenever it returns.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::baseline::Baseline;
use crate::cases::{CASES, OPERATIONS};
use crate::environment::Environment;
use crate::problem::Problem;

/// How many runs this process has begun.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// Runs `work`, and is what callgrind counts in, known to it by its name.
#[inline(never)]
pub(crate) fn counted_here(work: &mut dyn FnMut()) {
    work();
    // Something behind the call, or it would be a jump, and there would be no return to see.
    std::hint::black_box(());
}

/// Counts all cases, each with so many percent more work than it says.
pub(crate) fn measure(slow_down_percent: u32) -> Result<Baseline, Problem> {
    if cfg!(debug_assertions) {
        return Err(Problem::Debug);
    }
    // Several may run at a time.
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let name = format!("heimdall-instructions-{}-{run}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let file = |error| Problem::File(directory.clone(), error);
    std::fs::create_dir_all(&directory).map_err(file)?;
    let measured = measure_in(&directory, slow_down_percent);
    std::fs::remove_dir_all(&directory).map_err(file)?;
    measured
}

fn measure_in(directory: &Path, slow_down_percent: u32) -> Result<Baseline, Problem> {
    let out = directory.join("counts");
    let own = std::env::current_exe().map_err(|error| Problem::File("itself".into(), error))?;
    let mut command = Command::new("valgrind");
    // What is in the environment lies on the stack, and may choose what the C library does.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    // The allocator gives memory back to the kernel by the clock, unless it never does.
    command.env("MIMALLOC_PURGE_DELAY", "-1");
    command.args(["--tool=callgrind", "--quiet", "--collect-atstart=no"]);
    command.args(["--toggle-collect=*counted_here", "--dump-after=*counted_here"]);
    command.arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(own).arg("--run").args(["--slow-down", &slow_down_percent.to_string()]);
    let output = command.output().map_err(|error| Problem::Start("valgrind", error))?;
    if !output.status.success() {
        return Err(Problem::Run(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let processor = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let counts = (1..).zip(&CASES).map(|(part, case)| {
        // The return from each case ends one part, in the order of the cases.
        let instructions = total(&directory.join(format!("counts.{part}")))?;
        let per_operation = instructions as f64 / OPERATIONS as f64;
        Ok((case.name.to_owned(), (per_operation * 10.0).round() / 10.0))
    });
    let counts = counts.collect::<Result<_, Problem>>()?;
    Ok(Baseline { environment: Environment::of_this_run(&processor)?, counts })
}

/// What callgrind says was executed while one case ran.
fn total(path: &PathBuf) -> Result<u64, Problem> {
    let text = std::fs::read_to_string(path).map_err(|error| Problem::File(path.into(), error))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|total| total.trim().parse().ok());
    total.filter(|total| *total > 0).ok_or_else(|| Problem::Count(path.into()))
}
