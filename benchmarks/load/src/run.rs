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
use crate::report::{Results, Tally, Usage};
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
    // What is wrong with it is said before anything is asked.
    usage_until_now(plan)?;
    let start = now() + HEAD_START;
    let (seconds, told) = mpsc::channel();
    let mut usage = None;
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
        usage = watch(plan, &told, start + plan.warm_up)?;
        let mut all = Tally::default();
        for thread in threads {
            all.add(&thread.join().map_err(|_| "a thread has panicked".to_owned())??);
        }
        Ok::<_, String>(all)
    })?;
    Ok(Results { plan: plan.clone(), tally, usage })
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
    // An asker is made before the start: its books take milliseconds to lay out.
    if plan.transport == Transport::Udp {
        let door = Datagrams::open(plan).map_err(|cause| format!("cannot open a ring: {cause}"))?;
        let asker = Asker::new(plan, questions, door, number, start);
        thread::sleep(start.saturating_duration_since(now()));
        asker.run(seconds)
    } else {
        let asker = Asker::new(plan, questions, Streams::open(plan, number)?, number, start);
        thread::sleep(start.saturating_duration_since(now()));
        asker.run(seconds)
    }
}

/// Tells each second until all threads are done; what the server has used from `measured` on for as long as questions count.
fn watch(
    plan: &Plan,
    told: &mpsc::Receiver<Tally>,
    measured: Instant,
) -> Result<Option<Usage>, String> {
    let mut progress = Progress::new(plan);
    listen(told, measured, &mut progress);
    let before = usage_until_now(plan)?;
    let from = now();
    listen(told, measured + plan.duration, &mut progress);
    let after = usage_until_now(plan)?;
    let wall = now() - from;
    while let Ok(second) = told.recv() {
        progress.tell(&second);
    }
    Ok(after
        .zip(before)
        .map(|(after, before)| Usage { cpu_ns: after.saturating_sub(before), wall }))
}

/// Tells seconds until `limit`, or until all threads are done.
fn listen(told: &mpsc::Receiver<Tally>, limit: Instant, progress: &mut Progress) {
    while let Ok(second) = told.recv_timeout(limit.saturating_duration_since(now())) {
        progress.tell(&second);
    }
}

/// CPU time that the server has used so far.
fn usage_until_now(plan: &Plan) -> Result<Option<u64>, String> {
    plan.server_pid.map(cpu::time_ns).transpose()
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
