//! One thread's work: sends what is due, takes in what has come, gives up what is too late, without waiting for anybody.

use std::net::IpAddr;
use std::sync::mpsc::Sender as Channel;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::arguments::Plan;
use crate::door::{Arrival, Door, Refusal, Troubles};
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

/// How often questions are looked for that have waited too long.
const EXPIRY_NS: u64 = 1_000_000;

/// Questions that may be open in all on each thread.
const OPEN_MAX: usize = 1 << 20;

/// Where one thread stands.
pub(crate) struct Asker<'a, D> {
    door: D,
    pace: Option<Pace>,
    window: u64,
    /// What went wrong before anything counted; `None` as long as nothing does.
    troubles_before: Option<Troubles>,
    next_expiry_ns: u64,
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
    timeout_ns: u64,
    measured_from_ns: u64,
    end_ns: u64,
    /// Of the time that counts, and of the second under way.
    tally: Tally,
    /// `None` when nobody is told.
    second: Option<Tally>,
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
            timeout_ns: nanoseconds(plan.timeout),
            measured_from_ns,
            end_ns: measured_from_ns + nanoseconds(plan.duration),
            tally: Tally::default(),
            second: (!plan.is_quiet).then(Tally::default),
        };
        Self {
            door,
            pace,
            window: u64::from(share_of(plan.window, thread, threads)),
            troubles_before: None,
            next_expiry_ns: 0,
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
            if self.troubles_before.is_none() && now_ns >= self.books.measured_from_ns {
                self.begin_measurement();
            }
            self.send_due(now_ns)?;
            if self.books.open == 0 && self.is_over(now_ns) {
                break;
            }
            let books = &mut self.books;
            let is_busy = self.door.turn(&mut |lane, arrival| books.take(lane, &arrival))?;
            if now_ns >= self.next_expiry_ns {
                self.next_expiry_ns = now_ns + EXPIRY_NS;
                books.expire(now_ns.saturating_sub(books.timeout_ns));
            }
            if now_ns >= next_second_ns {
                next_second_ns = now_ns - now_ns % SECOND_NS + SECOND_NS;
                if let Some(second) = &mut books.second {
                    // Whoever has stopped to listen misses nothing.
                    let _ = seconds.send(std::mem::take(second));
                }
            }
            if !is_busy {
                self.rest(now_ns);
            }
        }
        let mut tally = self.books.tally;
        tally.unasked = self.pace.map_or(0, |pace| pace.left_before(self.books.end_ns));
        tally.troubles = self.door.troubles().since(self.troubles_before.unwrap_or_default());
        Ok(tally)
    }

    /// From here on things count. What was to be asked earlier and was not never is: it would only hold up what counts.
    fn begin_measurement(&mut self) {
        self.troubles_before = Some(self.door.troubles());
        if let Some(pace) = &mut self.pace {
            pace.skip_to(self.books.measured_from_ns);
        }
    }

    /// Whether no question is sent any more.
    fn is_over(&self, now_ns: u64) -> bool {
        self.pace.as_ref().map_or(now_ns, |pace| pace.next_ns().max(now_ns)) >= self.books.end_ns
    }

    /// Sends the questions that were due by `now_ns`, unless time is up. Those that had no room before come late, and count as that.
    fn send_due(&mut self, now_ns: u64) -> Result<(), String> {
        if now_ns >= self.books.end_ns {
            return Ok(());
        }
        for _ in 0..BATCH {
            let due_ns = match &self.pace {
                Some(pace) if pace.next_ns() <= now_ns => pace.next_ns(),
                None if self.books.open < self.window => now_ns,
                _ => return Ok(()),
            };
            if !self.send(due_ns, now_ns)? {
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
                    books.begin(self.turn, Flight { due_ns, sent_ns: now_ns, number });
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
        let gap =
            Duration::from_nanos(pace.next_ns().min(self.books.end_ns).saturating_sub(now_ns));
        if gap > NAP_MIN {
            std::thread::sleep(gap - NAP_MIN);
        }
    }
}

impl Books<'_> {
    fn begin(&mut self, lane: usize, flight: Flight) {
        self.lanes[lane].begin(flight);
        self.open += 1;
        let lag_ns = flight.sent_ns.saturating_sub(flight.due_ns);
        self.note(flight, |tally| tally.ask(lag_ns));
    }

    /// Writes `what` became of `flight` down where it belongs.
    fn note(&mut self, flight: Flight, what: impl Fn(&mut Tally)) {
        if let Some(second) = &mut self.second {
            what(second);
        }
        if flight.due_ns >= self.measured_from_ns {
            what(&mut self.tally);
        }
    }

    fn take(&mut self, lane: usize, arrival: &Arrival<'_>) {
        match arrival {
            Arrival::Answer(response) => self.take_answer(lane, response),
            Arrival::Unsent(id) => self.take_back(lane, *id),
            Arrival::Closed => self.expire_lane(lane, u64::MAX),
        }
    }

    fn take_answer(&mut self, lane: usize, response: &[u8]) {
        let now_ns = nanoseconds(self.start.elapsed());
        let flights = &mut self.lanes[lane];
        let id = response.first_chunk::<2>().map(|&id| u16::from_be_bytes(id));
        let flight = id.and_then(|id| Some((id, flights.at(id)?)));
        let Some((id, flight)) =
            flight.filter(|(_, flight)| self.walk.is_of(flight.number, response))
        else {
            return self.take_stray(lane, response, now_ns);
        };
        flights.end(id);
        if now_ns.saturating_sub(flight.sent_ns) > self.timeout_ns {
            self.lose(flight);
            self.note(flight, |tally| tally.late += 1);
            return;
        }
        self.open -= 1;
        if (self.measured_from_ns..self.end_ns).contains(&now_ns) {
            self.tally.arrived += 1;
        }
        let latency_ns = now_ns.saturating_sub(flight.due_ns);
        self.note(flight, |tally| tally.answer(latency_ns, response));
    }

    /// An answer to a question that was given up, or to none.
    fn take_stray(&mut self, lane: usize, response: &[u8], now_ns: u64) {
        let flights = &mut self.lanes[lane];
        if let Some(&id) = response.first_chunk::<2>()
            && let id = u16::from_be_bytes(id)
            && let Some(flight) = flights.expired(id)
            && self.walk.is_of(flight.number, response)
        {
            flights.forget(id);
            self.note(flight, |tally| tally.late += 1);
        } else if now_ns >= self.measured_from_ns {
            self.tally.unexpected += 1;
        }
    }

    /// A question that was not sent after all.
    fn take_back(&mut self, lane: usize, id: u16) {
        let flights = &mut self.lanes[lane];
        let flight = if let Some(flight) = flights.at(id) {
            flights.end(id);
            self.lose(flight);
            flight
        } else if let Some(flight) = flights.expired(id) {
            flights.forget(id);
            flight
        } else {
            return;
        };
        self.note(flight, |tally| tally.unsent += 1);
    }

    /// Gives up what was sent before `limit_ns`.
    fn expire(&mut self, limit_ns: u64) {
        (0..self.lanes.len()).for_each(|lane| self.expire_lane(lane, limit_ns));
    }

    fn expire_lane(&mut self, lane: usize, limit_ns: u64) {
        while let Some(flight) = self.lanes[lane].expire(limit_ns) {
            self.lose(flight);
        }
    }

    /// What is lost counts as if it had been answered when it was given up, at the earliest.
    fn lose(&mut self, flight: Flight) {
        self.open -= 1;
        let latency_ns = (flight.sent_ns + self.timeout_ns).saturating_sub(flight.due_ns);
        self.note(flight, |tally| tally.lose(latency_ns));
    }
}

/// What one of `threads` has to do so that all do `whole`.
const fn share_of(whole: u32, thread: u32, threads: u32) -> u32 {
    whole / threads + (thread < whole % threads) as u32
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::arguments::tests::plan;

    /// Answers each question some time after it was asked, and always has something to do.
    struct Busy {
        delay: Duration,
        held: Vec<(Instant, Vec<u8>)>,
        troubles: Troubles,
    }

    impl Busy {
        fn new(delay: Duration) -> Self {
            Self { delay, held: Vec::new(), troubles: Troubles::default() }
        }
    }

    impl Door for Busy {
        fn lanes(&self) -> usize {
            1
        }

        fn send(
            &mut self,
            _: usize,
            _: Option<IpAddr>,
            write: impl FnOnce(&mut [u8]) -> usize,
        ) -> Result<(), Refusal> {
            let mut message = vec![0; 512];
            let len = write(&mut message);
            message.truncate(len);
            message[2] |= 0x80;
            self.held.push((now(), message));
            Ok(())
        }

        fn turn(&mut self, take: &mut impl FnMut(usize, Arrival<'_>)) -> Result<bool, String> {
            let is_due = |held: &(Instant, Vec<u8>)| held.0.elapsed() >= self.delay;
            let due = self.held.iter().take_while(|held| is_due(held)).count();
            self.held.drain(..due).for_each(|(_, message)| take(0, Arrival::Answer(&message)));
            Ok(true)
        }

        fn troubles(&self) -> Troubles {
            self.troubles
        }
    }

    #[expect(clippy::disallowed_methods, reason = "an asker goes by real time")]
    fn now() -> Instant {
        Instant::now()
    }

    fn run(line: &str, door: Busy) -> Tally {
        let plan = plan(line).unwrap();
        let questions = Questions::new(&plan.wanted, 1, 1).unwrap();
        Asker::new(&plan, &questions, door, 0, now()).run(&mpsc::channel().0).unwrap()
    }

    /// Has `test` look at an asker that began a minute ago and has sent what one batch holds.
    fn look(line: &str, test: impl FnOnce(Asker<'_, Busy>, Vec<Vec<u8>>)) {
        let plan = plan(&format!("--quiet --qps 1000000 {line}")).unwrap();
        let questions = Questions::new(&plan.wanted, 1, 1).unwrap();
        let start = now().checked_sub(Duration::from_secs(60)).unwrap();
        let mut asker = Asker::new(&plan, &questions, Busy::new(Duration::ZERO), 0, start);
        asker.send_due(nanoseconds(start.elapsed()).min(asker.books.end_ns - 1)).unwrap();
        let answers = asker.door.held.drain(..).map(|(_, message)| message).collect();
        test(asker, answers);
    }

    #[test]
    fn late_answers_are_lost_though_no_turn_is_idle() {
        let line = "--qps 1000 --warm-up 0s --duration 100ms --timeout 20ms";
        let tally = run(line, Busy::new(Duration::from_millis(60)));
        assert_eq!((tally.answered, tally.asked + tally.unasked), (0, 100));
        assert_eq!((tally.lost, tally.unexpected), (tally.asked, 0));
        assert!((1..=tally.asked).contains(&tally.late), "{}", tally.late);
        assert!(tally.percentiles()[0] >= 20_000_000);
    }

    #[test]
    fn what_the_asker_is_late_is_not_the_servers_timeout() {
        look("--warm-up 0s --duration 1h --timeout 30s", |mut asker, answers| {
            answers.iter().for_each(|answer| asker.books.take(0, &Arrival::Answer(answer)));
            let tally = &asker.books.tally;
            assert_eq!((tally.answered, tally.arrived, tally.lost), (64, 64, 0));
            assert!(tally.percentiles()[0] > 50_000_000_000);
        });
    }

    #[test]
    fn answers_after_the_end_are_none_of_its_rate() {
        look("--warm-up 0s --duration 10s --timeout 30s", |mut asker, answers| {
            // As if it had been sent just now.
            let flight = Flight { due_ns: 0, sent_ns: 60_000_000_000, number: 0 };
            let mut answer = answers[0].clone();
            let books = &mut asker.books;
            books.expire(u64::MAX);
            let id = books.lanes[0].vacancy().unwrap();
            answer[..2].copy_from_slice(&id.to_be_bytes());
            let number = (0..1_000).find(|&number| books.walk.is_of(number, &answer)).unwrap();
            books.begin(0, Flight { number, ..flight });
            books.take(0, &Arrival::Answer(&answer));
            assert_eq!((books.tally.answered, books.tally.arrived, books.open), (1, 0, 0));
        });
    }

    #[test]
    fn what_goes_wrong_before_anything_counts_does_not_count() {
        for (warm_up, counted) in [("1h", 0), ("0s", 1)] {
            let line = format!("--warm-up {warm_up} --duration 1h --timeout 30s");
            look(&line, |mut asker, answers| {
                let books = &mut asker.books;
                let id = |answer: &[u8]| u16::from_be_bytes([answer[0], answer[1]]);
                books.take(0, &Arrival::Unsent(id(&answers[0])));
                books.take(0, &Arrival::Answer(&answers[0]));
                books.expire(u64::MAX);
                books.take(0, &Arrival::Answer(&answers[1]));
                books.take(0, &Arrival::Unsent(id(&answers[2])));
                let Tally { unsent, unexpected, late, lost, .. } = books.tally;
                assert_eq!((unsent, unexpected, late), (2 * counted, counted, counted));
                assert_eq!((lost, books.open), (64 * counted, 0));
            });
        }
    }

    #[test]
    fn measurement_begins_with_clean_books() {
        look("--warm-up 30s --duration 1h --timeout 30s", |mut asker, _| {
            asker.door.troubles.dropped = 3;
            asker.begin_measurement();
            asker.door.troubles.dropped = 5;
            let before = asker.troubles_before.unwrap();
            assert_eq!(asker.door.troubles().since(before).dropped, 2);
            assert_eq!(asker.pace.unwrap().next_ns(), 30_000_000_000);
        });
    }

    #[test]
    fn nothing_is_sent_once_time_is_up() {
        look("--warm-up 0s --duration 10s", |mut asker, _| {
            asker.send_due(10_000_000_000).unwrap();
            assert!(asker.door.held.is_empty() && asker.is_over(10_000_000_000));
            assert_eq!(asker.pace.unwrap().left_before(10_000_000_000), 9_999_936);
        });
    }

    #[test]
    fn window_is_what_all_threads_have_open() {
        let plan = plan("--qps 0 --window 100 --cpus 0,1,2").unwrap();
        let questions = Questions::new(&plan.wanted, 1, 1).unwrap();
        let window =
            |thread| Asker::new(&plan, &questions, Busy::new(Duration::ZERO), thread, now()).window;
        assert_eq!((0..3).map(window).sum::<u64>(), 100);
    }
}
