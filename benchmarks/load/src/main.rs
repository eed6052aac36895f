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

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Arguments;

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
    match run::run(&plan) {
        Ok(results) => {
            let text = if plan.is_json { results.to_json() } else { results.to_table() };
            let written = writeln!(std::io::stdout().lock(), "{text}");
            ExitCode::from(u8::from(written.is_err() || results.tally.answered == 0))
        }
        Err(cause) => {
            complain(&cause);
            ExitCode::FAILURE
        }
    }
}

fn complain(text: &str) {
    // Nobody is there to be told that this could not be written.
    let _ = writeln!(std::io::stderr().lock(), "heimdall-load: {text}");
}
