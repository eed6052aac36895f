//! What the main thread does while the workers serve: signals, heartbeats, the drain, and the end. A state machine
//! without threads or clocks; [`super::start`] feeds it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::log;
use crate::time::{Deadline, Monotonic};

/// A worker whose heartbeat stands still for this long is reported.
const STALL_REPORTED: Duration = Duration::from_secs(10);

/// A worker whose heartbeat stands still for this long takes the process down: better none than a silent dead core.
const STALL_FATAL: Duration = Duration::from_secs(30);

/// The main thread looks several times a second. Not having looked for this long, it stood still itself: the process was
/// stopped, the machine suspended or starved, and the heartbeats of that time say nothing. Shorter than
/// [`STALL_REPORTED`], so that a pause too short to be noticed is no stall either.
const STANDSTILL: Duration = Duration::from_secs(5);
const _: () = assert!(STANDSTILL.as_secs() < STALL_REPORTED.as_secs());

/// Time that the workers get beyond the drain itself to close their sockets.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// One worker's sign of life, in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Heartbeat(AtomicU64);

impl Heartbeat {
    pub(super) fn beat(&self, now: Monotonic) {
        self.0.store(now.as_nanos(), Relaxed);
    }

    fn last(&self) -> Monotonic {
        Monotonic::from_nanos(self.0.load(Relaxed))
    }
}

/// What the main thread learns.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Event {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGUSR1.
    Dump,
    /// SIGUSR2.
    Save,
    /// SIGHUP.
    Reload,
    /// The last snapshot is written, or cannot be.
    Saved,
    /// A worker returned.
    Ended {
        /// Which.
        core: usize,
        /// Why, if not because it was told to.
        problem: Option<String>,
    },
    /// Time has passed.
    Tick,
}

/// What the main thread must do.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// Tell the workers and the service manager that we stop.
    Drain,
    /// Print the counters.
    Dump,
    /// Write a snapshot of the cache.
    Save,
    /// Read the config anew.
    Reload,
    /// All workers are well: tell the watchdog.
    Ping,
    /// Say this to the operator.
    Warn(String),
    /// All is done: leave with success.
    Leave,
    /// Leave at once with failure, saying why.
    Die {
        /// The worker at fault.
        core: usize,
        /// What happened.
        problem: String,
    },
}

/// The state of the process.
#[derive(Debug)]
pub(super) struct Supervisor<'a> {
    heartbeats: &'a [Heartbeat],
    running: usize,
    /// Whether a last snapshot is still to come.
    is_saving: bool,
    drain: Duration,
    drained_by: Option<Deadline>,
    reported: Vec<bool>,
    looked: Option<Monotonic>,
    /// What the heartbeats were before says nothing.
    judges_since: Monotonic,
}

impl<'a> Supervisor<'a> {
    pub(super) fn new(heartbeats: &'a [Heartbeat], drain: Duration) -> Self {
        let reported = vec![false; heartbeats.len()];
        Self {
            heartbeats,
            running: heartbeats.len(),
            is_saving: false,
            drain,
            drained_by: None,
            reported,
            looked: None,
            judges_since: Monotonic::default(),
        }
    }

    /// Lets the last snapshot take `patience` beyond the drain.
    pub(super) fn and_save(self, patience: Duration) -> Self {
        Self { is_saving: true, drain: self.drain + patience, ..self }
    }

    /// Takes note of `event` and says what to do, in order.
    pub(super) fn handle(&mut self, event: Event, now: Monotonic) -> Vec<Order> {
        let mut orders = Vec::new();
        let unseen = self.looked.replace(now).map(|looked| now.since(looked));
        if let Some(unseen) = unseen.filter(|&unseen| unseen >= STANDSTILL) {
            self.judges_since = now;
            let seconds = unseen.as_secs();
            orders.push(Order::Warn(format!("the whole process stood still for {seconds} s")));
        }
        orders.append(&mut self.decide(event, now));
        orders
    }

    fn decide(&mut self, event: Event, now: Monotonic) -> Vec<Order> {
        match event {
            Event::Stop if self.drained_by.is_some() => {
                vec![
                    Order::Warn("asked twice to stop: answers in flight are lost".into()),
                    Order::Leave,
                ]
            }
            Event::Stop => {
                self.drained_by = Some(Deadline::after(now, self.drain + DRAIN_GRACE));
                vec![Order::Drain]
            }
            Event::Dump => vec![Order::Dump],
            Event::Ended { core, problem: Some(problem) } => vec![Order::Die { core, problem }],
            Event::Ended { core, problem: None } if self.drained_by.is_none() => {
                vec![Order::Die { core, problem: "it ended without being told to".into() }]
            }
            Event::Ended { problem: None, .. } => {
                self.running -= 1;
                self.leave_when_done()
            }
            Event::Save if self.drained_by.is_some() => Vec::new(),
            Event::Save => vec![Order::Save],
            Event::Reload if self.drained_by.is_some() => Vec::new(),
            Event::Reload => vec![Order::Reload],
            Event::Saved => {
                self.is_saving = false;
                self.leave_when_done()
            }
            Event::Tick => self.tick(now),
        }
    }

    fn leave_when_done(&self) -> Vec<Order> {
        let is_done = self.running == 0 && !self.is_saving && self.drained_by.is_some();
        if is_done { vec![Order::Leave] } else { Vec::new() }
    }

    fn tick(&mut self, now: Monotonic) -> Vec<Order> {
        if let Some(deadline) = self.drained_by {
            if deadline.remaining(now).is_some() {
                return Vec::new();
            }
            let late = match self.running {
                0 => "the last snapshot was not written in time; the one before stays".to_owned(),
                running => format!("{running} worker(s) did not drain in time"),
            };
            return vec![Order::Warn(late), Order::Leave];
        }
        let mut orders = Vec::new();
        for (core, heartbeat) in self.heartbeats.iter().enumerate() {
            let silence = now.since(heartbeat.last().max(self.judges_since));
            if silence >= STALL_FATAL {
                let problem = format!("it has not moved for {} s", silence.as_secs());
                return vec![Order::Die { core, problem }];
            }
            let is_stalled = silence >= STALL_REPORTED;
            if is_stalled && !self.reported[core] {
                let seconds = silence.as_secs();
                orders.push(Order::Warn(format!("core {core} has not moved for {seconds} s")));
            }
            self.reported[core] = is_stalled;
        }
        if !self.reported.contains(&true) {
            orders.push(Order::Ping);
        }
        orders
    }
}

/// Makes every panic fatal to the process, with core and place: never a silent dead core, nor one that waits for
/// somebody to read why.
pub(super) fn make_panics_fatal() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = thread.name().unwrap_or("a nameless thread");
        let trace = Backtrace::capture();
        let trace = match trace.status() {
            BacktraceStatus::Captured => format!("{trace}\n"),
            _ => String::new(),
        };
        let text = format!("heimdall-uring: {place} died: {panic}; the node stops\n{trace}");
        log::say(tracing::Level::ERROR, &text);
        log::flush();
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::default().after(Duration::from_secs(seconds))
    }

    fn hearts(count: usize) -> Vec<Heartbeat> {
        (0..count).map(|_| Heartbeat::default()).collect()
    }

    fn ended(core: usize) -> Event {
        Event::Ended { core, problem: None }
    }

    #[test]
    fn config_is_read_anew_when_asked_but_not_during_the_drain() {
        let hearts = hearts(1);
        let mut supervisor = Supervisor::new(&hearts, Duration::from_secs(2));
        assert_eq!(supervisor.handle(Event::Reload, at(1)), [Order::Reload]);
        supervisor.handle(Event::Stop, at(1));
        assert_eq!(supervisor.handle(Event::Reload, at(1)), []);
    }

    #[test]
    fn drain_ends_when_the_last_worker_has() {
        let hearts = hearts(2);
        let mut supervisor = Supervisor::new(&hearts, Duration::from_secs(2));
        assert_eq!(supervisor.handle(Event::Stop, at(0)), [Order::Drain]);
        assert_eq!(supervisor.handle(ended(1), at(1)), []);
        assert_eq!(supervisor.handle(Event::Tick, at(1)), []);
        assert_eq!(supervisor.handle(ended(0), at(1)), [Order::Leave]);
    }

    #[test]
    fn drain_that_takes_too_long_is_cut_off_and_so_is_an_impatient_operator() {
        let hearts = hearts(1);
        let mut supervisor = Supervisor::new(&hearts, Duration::from_secs(2));
        supervisor.handle(Event::Stop, at(0));
        assert_eq!(supervisor.handle(Event::Tick, at(2)), []);
        let orders = supervisor.handle(Event::Tick, at(3));
        assert!(matches!(orders[..], [Order::Warn(_), Order::Leave]), "{orders:?}");
        let orders = supervisor.handle(Event::Stop, at(1));
        assert!(matches!(orders[..], [Order::Warn(_), Order::Leave]), "{orders:?}");
    }

    #[test]
    fn node_leaves_when_the_last_snapshot_is_written_or_is_too_late() {
        let hearts = hearts(1);
        let start = || {
            let mut supervisor =
                Supervisor::new(&hearts, Duration::from_secs(2)).and_save(Duration::from_secs(5));
            assert_eq!(supervisor.handle(Event::Save, at(0)), [Order::Save]);
            assert_eq!(supervisor.handle(Event::Stop, at(0)), [Order::Drain]);
            assert_eq!(supervisor.handle(Event::Save, at(0)), [], "the last one is under way");
            assert_eq!(supervisor.handle(ended(0), at(1)), []);
            supervisor
        };
        assert_eq!(start().handle(Event::Saved, at(2)), [Order::Leave]);
        let mut late = start();
        assert_eq!(late.handle(Event::Tick, at(4)), []);
        assert_eq!(late.handle(Event::Tick, at(7)), []);
        let orders = late.handle(Event::Tick, at(8));
        let [Order::Warn(warning), Order::Leave] = &orders[..] else { panic!("{orders:?}") };
        assert!(warning.contains("snapshot"), "{warning}");
    }

    #[test]
    fn worker_that_ends_by_itself_takes_the_process_down() {
        for problem in [None, Some("ring broke".to_owned())] {
            let hearts = hearts(2);
            let mut supervisor = Supervisor::new(&hearts, Duration::ZERO);
            let orders = supervisor.handle(Event::Ended { core: 1, problem }, at(0));
            assert!(matches!(orders[..], [Order::Die { core: 1, .. }]), "{orders:?}");
        }
    }

    /// What `supervisor` orders at each second of `range`, the first core alone being well.
    fn orders(
        supervisor: &mut Supervisor<'_>,
        range: std::ops::RangeInclusive<u64>,
    ) -> Vec<(u64, Order)> {
        let mut given = Vec::new();
        for second in range {
            supervisor.heartbeats[0].beat(at(second));
            let orders = supervisor.handle(Event::Tick, at(second));
            given.extend(orders.into_iter().map(|order| (second, order)));
        }
        given.retain(|(_, order)| *order != Order::Ping);
        given
    }

    #[test]
    fn stalled_worker_is_reported_once_stops_the_pings_and_is_fatal_in_the_end() {
        let hearts = hearts(2);
        let mut supervisor = Supervisor::new(&hearts, Duration::ZERO);
        assert_eq!(orders(&mut supervisor, 0..=9), []);
        assert_eq!(supervisor.handle(Event::Tick, at(9)), [Order::Ping]);
        let given = orders(&mut supervisor, 10..=29);
        assert!(matches!(given[..], [(10, Order::Warn(_))]), "{given:?}");
        assert_eq!(supervisor.handle(Event::Tick, at(29)), []);
        let given = orders(&mut supervisor, 30..=30);
        assert!(matches!(given[..], [(30, Order::Die { core: 1, .. })]), "{given:?}");
    }

    #[test]
    fn pause_of_the_whole_process_is_held_against_no_worker() {
        let hearts = hearts(2);
        let mut supervisor = Supervisor::new(&hearts, Duration::ZERO);
        assert_eq!(orders(&mut supervisor, 0..=4), []);
        let given = supervisor.handle(Event::Tick, at(44));
        assert!(matches!(&given[..], [Order::Warn(said), Order::Ping] if said.contains("40 s")));
        // One that stays dead after the pause is still found out, by the same terms.
        let given = orders(&mut supervisor, 45..=74);
        let [(54, Order::Warn(_)), (74, Order::Die { core: 1, .. })] = &given[..] else {
            panic!("{given:?}")
        };
    }

    #[test]
    fn worker_that_moves_again_is_forgiven() {
        let hearts = hearts(2);
        let mut supervisor = Supervisor::new(&hearts, Duration::ZERO);
        assert_eq!(orders(&mut supervisor, 0..=15).len(), 1);
        hearts[1].beat(at(16));
        hearts[0].beat(at(16));
        assert_eq!(supervisor.handle(Event::Tick, at(17)), [Order::Ping]);
        assert_eq!(supervisor.handle(Event::Dump, at(17)), [Order::Dump]);
    }

    /// Panics on a worker's thread when it is run by the test below, in a process of its own.
    #[test]
    fn panic_of_a_worker_takes_the_process_down() {
        const MARK: &str = "HEIMDALL_TEST_PANIC";
        if std::env::var_os(MARK).is_some() {
            make_panics_fatal();
            let worker = std::thread::Builder::new().name("core-7".into());
            let _ = worker.spawn(|| panic!("on purpose")).unwrap().join();
            return; // reached only if the panic stayed silent
        }
        let name = "node::supervise::tests::panic_of_a_worker_takes_the_process_down";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(MARK, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(!child.status.success(), "{said}");
        assert!(said.contains("core-7") && said.contains("on purpose"), "{said}");
    }
}
