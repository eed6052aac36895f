//! A whole run: the threads, the seconds told while they ask, and what they found together.

use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use heimdall_uring::wire::Query;

use crate::arguments::{Plan, Transport};
use crate::asker::Asker;
use crate::cpu;
use crate::progress::Progress;
use crate::questions::{QUESTION_BYTES_MAX, Questions, Walk};
use crate::report::{Results, Tally};
use crate::stream::Streams;
use crate::udp::Datagrams;

/// Time for all threads to open their sockets before the first question is due.
const HEAD_START: Duration = Duration::from_millis(200);

/// Does what `plan` says.
///
/// # Errors
/// What the system refuses or a file lacks, in words.
pub(crate) fn run(plan: &Plan) -> Result<Results, String> {
    let questions = Questions::new(&plan.wanted, plan.seed, salt())?;
    let cpu_at_first = plan.server_pid.map(cpu::time_ns).transpose()?;
    let start = now() + HEAD_START;
    let (seconds, told) = mpsc::channel();
    let mut cpu_ns = None;
    let tally = thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(&plan.cpus)
            .map(|(number, &cpu)| {
                let seconds = seconds.clone();
                let questions = &questions;
                scope.spawn(move || ask(plan, questions, (number, cpu), start, &seconds))
            })
            .collect();
        drop(seconds);
        let measured = start + plan.warm_up;
        cpu_ns = watch(plan, &told, measured, cpu_at_first)?;
        let mut all = Tally::default();
        for thread in threads {
            all.add(&thread.join().map_err(|_| "a thread has panicked".to_owned())??);
        }
        Ok::<_, String>(all)
    })?;
    Ok(Results { plan: plan.clone(), tally, cpu_ns })
}

/// Prints the first `count` questions of the only thread, a name and a type in each line.
///
/// # Errors
/// What a file lacks, or that nothing could be written, in words.
pub(crate) fn print(plan: &Plan, count: u32, mut out: impl Write) -> Result<(), String> {
    let questions = Questions::new(&plan.wanted, plan.seed, salt())?;
    let mut walk = Walk::new(&questions, 0, 1);
    let mut message = [0; QUESTION_BYTES_MAX];
    let cannot = |cause: std::io::Error| format!("cannot print questions: {cause}");
    for _ in 0..count {
        let (len, _) = walk.next(0, &mut message);
        let query = Query::parse(&message[..len])
            .map_err(|error| format!("cannot read a question of our own: {error:?}"))?;
        writeln!(out, "{} {}", query.qname, query.qtype).map_err(cannot)?;
    }
    out.flush().map_err(cannot)
}

fn ask(
    plan: &Plan,
    questions: &Questions,
    (number, cpu): (u32, Option<usize>),
    start: Instant,
    seconds: &mpsc::Sender<Tally>,
) -> Result<Tally, String> {
    if let Some(id) = cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err(format!("--cpus {id}: not a CPU that this process may use"));
    }
    let wait = || thread::sleep(start.saturating_duration_since(now()));
    if plan.transport == Transport::Udp {
        let door = Datagrams::open(plan).map_err(|cause| format!("cannot open a ring: {cause}"))?;
        wait();
        Asker::new(plan, questions, door, number, start).run(seconds)
    } else {
        let door = Streams::open(plan, number)?;
        wait();
        Asker::new(plan, questions, door, number, start).run(seconds)
    }
}

/// Tells each second until all threads are done; the CPU time of the server from `measured` on to the last answer.
fn watch(
    plan: &Plan,
    told: &mpsc::Receiver<Tally>,
    measured: Instant,
    at_first: Option<u64>,
) -> Result<Option<u64>, String> {
    let mut progress = Progress::new(plan);
    let mut before = at_first;
    let mut is_measured = false;
    loop {
        let left = measured.saturating_duration_since(now());
        let wait = if is_measured { Duration::from_secs(3_600) } else { left };
        match told.recv_timeout(wait) {
            Ok(second) => progress.tell(&second),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if !is_measured {
                    before = plan.server_pid.map(cpu::time_ns).transpose()?;
                    is_measured = true;
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let after = plan.server_pid.map(cpu::time_ns).transpose()?;
    Ok(after.zip(before).map(|(after, before)| after.saturating_sub(before)))
}

#[expect(clippy::disallowed_methods, reason = "a load generator goes by real time")]
fn now() -> Instant {
    Instant::now()
}

/// What tells the fresh names of this run from those of others.
#[expect(clippy::disallowed_methods, reason = "the time of the start is of this run alone")]
fn salt() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or_default()
}
