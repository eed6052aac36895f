//! How many instructions do the steps of a hit and of a miss take, and are they more than they were?
//!
//! `scripts/check_performance.sh` builds and starts this. It runs itself under callgrind, where a count is the same on a busy machine
//! and on a quiet one, and compares with `benchmarks/baseline.json`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the table is what this program is for; a broken case fails by panicking"
)]

mod arguments;
mod baseline;
mod callgrind;
mod cases;
mod compare;
mod environment;
#[path = "../../../benches/dns_performance/material.rs"]
mod material;
mod problem;

use std::path::Path;
use std::process::ExitCode;
use std::thread;

use arguments::{Arguments, Task};
use baseline::Baseline;
use compare::Report;
use problem::Problem;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much more than in the baseline a step may take, in percent, before the check fails; and how much less, before it asks for a
/// new baseline. What another order of functions in the program does to inlining stays below.
const TOLERANCE_PERCENT: f64 = 2.0;

/// How far two runs of the same program may be apart, in percent: some tables have keys that are drawn at random.
const REPEATABLE_PERCENT: f64 = 0.5;

/// What `--prove` slows every step down by, in percent.
const SLOWDOWN_PERCENT: u32 = 5;

const ACCEPT_HINT: &str =
    "To take these counts as the new baseline: scripts/check_performance.sh --accept";

fn main() -> ExitCode {
    let outcome =
        Arguments::read(std::env::args().skip(1)).and_then(|arguments| match arguments.task {
            Task::Run => {
                cases::run(arguments.slow_down_percent);
                Ok(true)
            }
            Task::Check { is_strict } => check(&arguments, is_strict),
            Task::Accept => accept(&arguments),
            Task::Prove => prove(&arguments),
        });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("check_performance: {problem}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing takes more than the baseline allows.
fn check(arguments: &Arguments, is_strict: bool) -> Result<bool, Problem> {
    let baseline = Baseline::read(&arguments.baseline)?;
    Ok(hold(arguments, &baseline, &callgrind::measure(arguments.slow_down_percent)?, is_strict))
}

/// Compares `measured` with `baseline` and says so.
fn hold(arguments: &Arguments, baseline: &Baseline, measured: &Baseline, is_strict: bool) -> bool {
    if let Some(difference) = baseline.environment.difference(&measured.environment) {
        print!("{}", compare::table(measured));
        println!("Not compared with {}: {difference}.", arguments.baseline.display());
        println!("{ACCEPT_HINT}");
        return !is_strict;
    }
    let report = Report::of(baseline, measured, TOLERANCE_PERCENT);
    print!("{report}");
    if !report.is_unchanged() {
        println!("{ACCEPT_HINT}");
    }
    report.is_good()
}

/// Writes what is measured down as the new baseline.
fn accept(arguments: &Arguments) -> Result<bool, Problem> {
    let measured = callgrind::measure(0)?;
    print!("{}", compare::table(&measured));
    measured.write(&arguments.baseline)?;
    println!("Written to {}.", arguments.baseline.display());
    Ok(true)
}

/// Checks, and whether the check can be relied upon: the same program gives the same counts, and a slower one fails in every step.
fn prove(arguments: &Arguments) -> Result<bool, Problem> {
    let baseline = Baseline::read(&arguments.baseline)?;
    // At a time, on as many CPUs as there are: counts do not mind.
    let (first, again, slowed) = thread::scope(|scope| {
        let again = scope.spawn(|| callgrind::measure(0));
        let slowed = scope.spawn(|| callgrind::measure(SLOWDOWN_PERCENT));
        (callgrind::measure(0), again.join().unwrap(), slowed.join().unwrap())
    });
    let (first, again, slowed) = (first?, again?, slowed?);
    let is_good = hold(arguments, &baseline, &first, false);
    let again = Report::of(&first, &again, REPEATABLE_PERCENT);
    if !again.is_unchanged() {
        print!("{again}");
        println!("Two runs of one program are more than {REPEATABLE_PERCENT} % apart.");
        return Ok(false);
    }
    let slowed = Report::of(&first, &slowed, TOLERANCE_PERCENT);
    let noticed = slowed.slower();
    if noticed != cases::CASES.len() {
        print!("{slowed}");
        println!("{SLOWDOWN_PERCENT} % more work was not noticed in every step.");
        return Ok(false);
    }
    println!(
        "Two runs agree to within {REPEATABLE_PERCENT} %; {SLOWDOWN_PERCENT} % more work fails in all {noticed} steps."
    );
    Ok(is_good)
}

/// Where the baseline is unless `--baseline` says otherwise; the script starts this at the root.
fn default_baseline() -> &'static Path {
    Path::new("benchmarks/baseline.json")
}
