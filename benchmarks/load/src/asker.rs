//! One thread's work: sends what is due, takes in what has come, gives up what is too late, without waiting for anybody.

use std::net::IpAddr;
use std::sync::mpsc::Sender as Channel;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::arguments::Plan;
use crate::door::{Arrival, Door, Refusal};
use crate::flights::{Flight, Flights};
use crate::pace::Pace;
use crate::questions::{Questions, Walk};
use crate::report::Tally;
use crate::sources;

/// Questions sent before answers are looked at again.
const BATCH: usize = 64;

/// Gaps longer than this are slept through while nothing is under way, but for the end of them.
const NAP_MIN: Duration = Duration::from_micros(100);

const SECOND_NS: u64 = 1_000_000_000;

/// Questions that may be open in all on each thread.
const OPEN_MAX: usize = 1 << 20;

/// Where one thread stands.
pub(crate) struct Asker<'a, D> {
    door: D,
    pace: Option<Pace>,
    window: u64,
    end_ns: u64,
    turn: usize,
    rng: Rng,
    plan: &'a Plan,
    books: Books<'a>,
}

/// What is open and what became of the rest.
struct Books<'a> {
    walk: Walk<'a>,
    lanes: Vec<Flights>,
    open: u64,
    start: Instant,
    measured_from_ns: u64,
    /// Of the time that counts, and of the second under way.
    tally: Tally,
    second: Tally,
}

impl<'a, D: Door> Asker<'a, D> {
    /// Thread `thread` of those in `plan`, through its own `door`. Times count from `start`.
    pub(crate) fn new(
        plan: &'a Plan,
        questions: &'a Questions,
        door: D,
        thread: u32,
        start: Instant,
    ) -> Self {
        let threads = u32::try_from(plan.cpus.len()).unwrap_or(1);
        let share = f64::from(threads);
        #[expect(clippy::cast_precision_loss, reason = "a rate is below 2^53")]
        let pace = plan.qps.map(|qps| {
            let offset = f64::from(thread) / share;
            Pace::new(qps as f64 / share, offset, plan.arrivals, plan.seed ^ u64::from(thread))
        });
        let room = (OPEN_MAX / door.lanes()).next_power_of_two().min(1 << 16);
        let measured_from_ns = nanoseconds(plan.warm_up);
        let books = Books {
            walk: Walk::new(questions, thread, threads),
            // First IDs apart from each other, so that an answer on the wrong lane is told from the right one.
            lanes: (0..door.lanes())
                .scan(0u16, |id, _| Some(std::mem::replace(id, id.wrapping_add(257))))
                .map(|id| Flights::new(id, room))
                .collect(),
            open: 0,
            start,
            measured_from_ns,
            tally: Tally::default(),
            second: Tally::default(),
        };
        Self {
            door,
            pace,
            window: u64::from(plan.window.div_ceil(threads)),
            end_ns: measured_from_ns + nanoseconds(plan.duration),
            turn: 0,
            rng: Rng::with_seed(plan.seed.wrapping_add(u64::from(thread))),
            plan,
            books,
        }
    }

    /// Asks until the time is over and everything is answered or lost. Each second's tally goes to `seconds`.
    ///
    /// # Errors
    /// What the system refuses, in words.
    pub(crate) fn run(mut self, seconds: &Channel<Tally>) -> Result<Tally, String> {
        let mut next_second_ns = SECOND_NS;
        loop {
            let now_ns = nanoseconds(self.books.start.elapsed());
            self.send_due(now_ns)?;
            if self.books.open == 0 && self.is_over(now_ns) {
                break;
            }
            let books = &mut self.books;
            let is_busy = self.door.turn(&mut |lane, arrival| books.take(lane, &arrival))?;
            if now_ns >= next_second_ns {
                next_second_ns = now_ns - now_ns % SECOND_NS + SECOND_NS;
                // Whoever has stopped to listen misses nothing.
                let _ = seconds.send(std::mem::take(&mut self.books.second));
            }
            if !is_busy {
                self.books.expire(now_ns.saturating_sub(nanoseconds(self.plan.timeout)));
                self.rest(now_ns);
            }
        }
        self.books.tally.troubles = self.door.troubles();
        Ok(self.books.tally)
    }

    /// Whether no question is due any more.
    fn is_over(&self, now_ns: u64) -> bool {
        self.pace.as_ref().map_or(now_ns, Pace::next_ns) >= self.end_ns
    }

    /// Sends the questions that were due by `now_ns`. Those that had no room before come late, and count as that.
    fn send_due(&mut self, now_ns: u64) -> Result<(), String> {
        for _ in 0..BATCH {
            let due_ns = match &self.pace {
                Some(pace) if pace.next_ns() <= now_ns => pace.next_ns(),
                None if self.books.open < self.window => now_ns,
                _ => return Ok(()),
            };
            if due_ns >= self.end_ns || !self.send(due_ns, now_ns)? {
                return Ok(());
            }
            if let Some(pace) = &mut self.pace {
                pace.advance();
            }
        }
        Ok(())
    }

    /// Sends a question that was due at `due_ns` on the first lane that has room; `false` when none has.
    fn send(&mut self, due_ns: u64, now_ns: u64) -> Result<bool, String> {
        let from = self.source();
        let books = &mut self.books;
        for _ in 0..books.lanes.len() {
            self.turn = (self.turn + 1) % books.lanes.len();
            let Some(id) = books.lanes[self.turn].vacancy() else { continue };
            let (walk, mut number) = (&mut books.walk, 0);
            let sent = self.door.send(self.turn, from, |room| {
                let len;
                (len, number) = walk.next(id, room);
                len
            });
            match sent {
                Ok(()) => {
                    books.begin(self.turn, Flight { due_ns, number }, now_ns);
                    return Ok(true);
                }
                Err(Refusal::Full) => {}
                Err(Refusal::Broken(cause)) => return Err(cause),
            }
        }
        Ok(false)
    }

    fn source(&mut self) -> Option<IpAddr> {
        let (prefix, clients) = self.plan.from?;
        Some(sources::address(prefix, self.rng.u32(0..clients)))
    }

    /// Sleeps when nothing can happen before the next question: an answer would have to wait for the end of a nap.
    fn rest(&self, now_ns: u64) {
        let Some(pace) = self.pace.as_ref().filter(|_| self.books.open == 0) else { return };
        let gap = Duration::from_nanos(pace.next_ns().min(self.end_ns).saturating_sub(now_ns));
        if gap > NAP_MIN {
            std::thread::sleep(gap - NAP_MIN);
        }
    }
}

impl Books<'_> {
    fn begin(&mut self, lane: usize, flight: Flight, now_ns: u64) {
        self.lanes[lane].begin(flight);
        self.open += 1;
        let lag_ns = now_ns.saturating_sub(flight.due_ns);
        self.second.ask(lag_ns);
        if self.is_counted(flight) {
            self.tally.ask(lag_ns);
        }
    }

    const fn is_counted(&self, flight: Flight) -> bool {
        flight.due_ns >= self.measured_from_ns
    }

    fn take(&mut self, lane: usize, arrival: &Arrival<'_>) {
        match arrival {
            Arrival::Answer(response) => self.take_answer(lane, response),
            Arrival::Unsent(id) => {
                self.tally.unsent += 1;
                if let Some(flight) = self.lanes[lane].at(*id) {
                    self.lanes[lane].end(*id);
                    self.lose(flight);
                }
            }
            Arrival::Closed => self.expire_lane(lane, u64::MAX),
        }
    }

    fn take_answer(&mut self, lane: usize, response: &[u8]) {
        let flights = &mut self.lanes[lane];
        let id = response.first_chunk::<2>().map(|&id| u16::from_be_bytes(id));
        let flight = id.and_then(|id| Some((id, flights.at(id)?)));
        let Some((id, flight)) =
            flight.filter(|(_, flight)| self.walk.is_of(flight.number, response))
        else {
            self.tally.unexpected += 1;
            return;
        };
        flights.end(id);
        self.open -= 1;
        let latency_ns = nanoseconds(self.start.elapsed()).saturating_sub(flight.due_ns);
        self.second.answer(latency_ns, response);
        if self.is_counted(flight) {
            self.tally.answer(latency_ns, response);
        }
    }

    /// Gives up what was due before `limit_ns`.
    fn expire(&mut self, limit_ns: u64) {
        (0..self.lanes.len()).for_each(|lane| self.expire_lane(lane, limit_ns));
    }

    fn expire_lane(&mut self, lane: usize, limit_ns: u64) {
        while let Some(flight) = self.lanes[lane].expire(limit_ns) {
            self.lose(flight);
        }
    }

    fn lose(&mut self, flight: Flight) {
        self.open -= 1;
        self.second.lost += 1;
        if self.is_counted(flight) {
            self.tally.lost += 1;
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
