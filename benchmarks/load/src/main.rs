//! heimdall-load: asks a DNS server at a steady rate, from many addresses, and tells how long its answers took.
//!
//! Questions leave when their time has come, whether earlier ones were answered or not (an open loop), and a latency counts from
//! that time: a server that stalls cannot hold back the questions that would show it. One thread per CPU, which shares
//! nothing with the others: [`asker`] is its loop, through a [`door`] of datagrams ([`udp`], on a ring) or of streams ([`stream`]).

mod arguments;
mod asker;
mod certificate;
mod cpu;
mod door;
mod flights;
mod pace;
mod progress;
mod questions;
mod report;
mod run;
mod sources;
mod stream;
mod udp;

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::{Arguments, Plan};
use crate::report::Results;

/// Wrong arguments, as other programs have it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let plan = match Arguments::parse().plan() {
        Ok(plan) => plan,
        Err(mistake) => {
            complain(&mistake);
            return ExitCode::from(USAGE);
        }
    };
    let stdout = std::io::stdout().lock();
    let outcome = match plan.print {
        Some(count) => run::print(&plan, count, BufWriter::new(stdout)).map(|()| ExitCode::SUCCESS),
        None => run::run(&plan).map(|results| tell(&plan, &results, stdout)),
    };
    outcome.unwrap_or_else(|cause| {
        complain(&cause);
        ExitCode::FAILURE
    })
}

/// Writes what was found; a failure when that is nothing.
fn tell(plan: &Plan, results: &Results, mut out: impl Write) -> ExitCode {
    let text = if plan.is_json { results.to_json() } else { results.to_table() };
    let written = writeln!(out, "{text}");
    ExitCode::from(u8::from(written.is_err() || results.tally.answered == 0))
}

fn complain(text: &str) {
    // Nobody is there to be told that this could not be written.
    let _ = writeln!(std::io::stderr().lock(), "heimdall-load: {text}");
}
