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

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// Nothing takes more than it may.
    Good,
    /// Something does.
    Slower,
    /// The baseline was counted under other circumstances and says nothing here.
    Incomparable,
}

impl Verdict {
    const fn is_good_if(is_good: bool) -> Self {
        if is_good { Self::Good } else { Self::Slower }
    }

    /// The script goes by these; 2 is what cannot be measured at all.
    fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Good => 0,
            Self::Slower => 1,
            Self::Incomparable => 3,
        })
    }
}

fn main() -> ExitCode {
    let outcome =
        Arguments::read(std::env::args().skip(1)).and_then(|arguments| match arguments.task {
            Task::Run => {
                cases::run(arguments.slow_down_percent);
                Ok(Verdict::Good)
            }
            Task::Check => check(&arguments),
            Task::Accept => accept(&arguments),
            Task::Prove => prove(&arguments),
        });
    outcome.map_or_else(
        |problem| {
            eprintln!("check_performance: {problem}");
            ExitCode::from(2)
        },
        Verdict::code,
    )
}

/// Whether nothing takes more than the baseline allows.
fn check(arguments: &Arguments) -> Result<Verdict, Problem> {
    let baseline = Baseline::read(&arguments.baseline)?;
    Ok(hold(arguments, &baseline, &callgrind::measure(arguments.slow_down_percent)?))
}

/// Compares `measured` with `baseline` and says so.
fn hold(arguments: &Arguments, baseline: &Baseline, measured: &Baseline) -> Verdict {
    if let Some(difference) = baseline.environment.difference(&measured.environment) {
        print!("{}", compare::table(measured));
        println!("Not compared with {}: {difference}.", arguments.baseline.display());
        return Verdict::Incomparable;
    }
    let report = Report::of(baseline, measured, TOLERANCE_PERCENT);
    print!("{report}");
    if !report.is_unchanged() {
        println!("{ACCEPT_HINT}");
    }
    Verdict::is_good_if(report.is_good())
}

/// Writes what is measured down as the new baseline.
fn accept(arguments: &Arguments) -> Result<Verdict, Problem> {
    let measured = callgrind::measure(0)?;
    print!("{}", compare::table(&measured));
    measured.write(&arguments.baseline)?;
    println!("Written to {}.", arguments.baseline.display());
    Ok(Verdict::Good)
}

/// Checks, and whether the check can be relied upon: the same program gives the same counts, and a slower one fails in every step.
fn prove(arguments: &Arguments) -> Result<Verdict, Problem> {
    let baseline = Baseline::read(&arguments.baseline)?;
    // At a time, on as many CPUs as there are: counts do not mind.
    let (first, again, slowed) = thread::scope(|scope| {
        let again = scope.spawn(|| callgrind::measure(0));
        let slowed = scope.spawn(|| callgrind::measure(SLOWDOWN_PERCENT));
        (callgrind::measure(0), again.join().unwrap(), slowed.join().unwrap())
    });
    let (first, again, slowed) = (first?, again?, slowed?);
    let verdict = hold(arguments, &baseline, &first);
    let again = Report::of(&first, &again, REPEATABLE_PERCENT);
    if !again.is_unchanged() {
        print!("{again}");
        println!("Two runs of one program are more than {REPEATABLE_PERCENT} % apart.");
        return Ok(Verdict::Slower);
    }
    let slowed = Report::of(&first, &slowed, TOLERANCE_PERCENT);
    let noticed = slowed.slower();
    if noticed != cases::CASES.len() {
        print!("{slowed}");
        println!("{SLOWDOWN_PERCENT} % more work was not noticed in every step.");
        return Ok(Verdict::Slower);
    }
    println!(
        "Two runs agree to within {REPEATABLE_PERCENT} %; {SLOWDOWN_PERCENT} % more work fails in all {noticed} steps."
    );
    Ok(verdict)
}

/// Where the baseline is unless `--baseline` says otherwise; the script starts this at the root.
fn default_baseline() -> &'static Path {
    Path::new("benchmarks/baseline.json")
}
