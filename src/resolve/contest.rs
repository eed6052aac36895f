//! One question and all who are asked it: who is next, how long one waits for whom, and who wins.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::attempt::{Lap, part};
use super::exchange::Question;
use super::failure::Failure;
use super::forward::{EXCHANGES_MAX, Forwarder};
use super::ports::{Clock, Entropy, Transport};
use super::zones::Group;
use crate::observe::Via;
use crate::time::{Deadline, Monotonic};
use crate::wire::AnswerBuf;

/// Rounds through the silent upstreams when another has already failed: one lost datagram is forgiven, but a failure
/// that is known must not wait for the deadline.
const ROUNDS_AFTER_FAILURE: u32 = 2;

/// Rounds through upstreams none of which can be reached: a connection that was reset, or a link that comes up, may be
/// there again in a moment; who is gone keeps nobody waiting for long.
const ROUNDS_UNREACHABLE: u32 = 3;

/// The pause before the second of them, doubled before the third: longer than a broken connection's back-off begins
/// with.
const PAUSE_UNREACHABLE: Duration = Duration::from_millis(120);

/// Attempts of one question that are open at a time. An answer that comes after three newer attempts have begun is hardly
/// worth the memory that waiting for it takes.
const OPEN_MAX: usize = 4;

/// A question on its way.
pub(super) struct Contest<'a, W> {
    forwarder: &'a Forwarder,
    world: &'a W,
    question: &'a Question<'a>,
    group: &'a Group,
    begun: Monotonic,
    deadline: Deadline,
    /// Exchanges left.
    budget: &'a Cell<usize>,
    /// Who has had the last word.
    speaker: &'a Cell<Option<Via>>,
    /// Whose turn is yet to come in this round.
    waiting: VecDeque<usize>,
    runners: Vec<Runner<'a>>,
    rounds: u32,
    /// Who was silent or could not be reached in this round, and gets another chance in the next.
    again: Vec<usize>,
    /// What is to be told if nobody wins.
    failure: Failure,
    /// Who has failed for a reason of its own.
    failed: Vec<usize>,
    /// A second one has been asked only because the first was later than usual, or must not be.
    is_hedged: bool,
}

/// One upstream that is being asked.
struct Runner<'a> {
    place: usize,
    lap: Rc<Lap>,
    /// Its answer is waited for no longer, though still welcome.
    is_overdue: bool,
    attempt: Pin<Box<dyn Future<Output = Result<AnswerBuf, Failure>> + 'a>>,
}

/// What happens next.
enum Event {
    /// A runner has come to an end.
    Ended(usize, Result<AnswerBuf, Failure>),
    /// It is time to look at the clock.
    Alarm,
}

impl<'a, W: Transport + Clock + Entropy> Contest<'a, W> {
    pub(super) fn new(
        forwarder: &'a Forwarder,
        world: &'a W,
        question: &'a Question<'a>,
        group: &'a Group,
        (budget, speaker): (&'a Cell<usize>, &'a Cell<Option<Via>>),
    ) -> Self {
        let begin = world.monotonic();
        Self {
            forwarder,
            world,
            question,
            group,
            begun: begin,
            deadline: Deadline::after(begin, forwarder.section.deadline),
            budget,
            speaker,
            waiting: forwarder.order(group, world, begin).into(),
            runners: Vec::new(),
            rounds: 1,
            again: Vec::new(),
            failure: Failure::Unreachable,
            failed: Vec::new(),
            is_hedged: false,
        }
    }

    pub(super) async fn run(mut self) -> Result<AnswerBuf, Failure> {
        let mut now = self.begun;
        loop {
            if self.deadline.remaining(now).is_none() {
                return Err(self.failure);
            }
            if self.is_nobody_reached() {
                self.pause(now).await;
                now = self.world.monotonic();
            }
            if self.runners.iter().all(|runner| runner.is_overdue) && !self.start_next(now) {
                // Those who are overdue may answer yet, unless somebody has already said that it is vain.
                let is_vain = self.failure.is_known() && !self.is_stream_awaited();
                if self.runners.is_empty() || is_vain {
                    return Err(self.failure);
                }
            }
            match self.next_event(now).await {
                Event::Ended(index, Ok(answer)) => {
                    self.win(index);
                    return Ok(answer);
                }
                Event::Ended(index, Err(failure)) => self.drop_out(index, failure),
                Event::Alarm => self.look_at_the_clock(),
            }
            now = self.world.monotonic();
        }
    }

    /// Whether somebody has answered and is only to repeat it over a stream.
    fn is_stream_awaited(&self) -> bool {
        self.runners.iter().any(|runner| runner.lap.has_spoken())
    }

    /// Whether a round has ended in which nobody was reached, and another may bring more.
    fn is_nobody_reached(&self) -> bool {
        self.failure == Failure::Unreachable
            && !self.again.is_empty()
            && self.runners.is_empty()
            && self.waiting.is_empty()
            && self.budget.get() > 0
    }

    /// Lets some time pass before the next such round, if there is one.
    async fn pause(&mut self, now: Monotonic) {
        if self.rounds < ROUNDS_UNREACHABLE {
            let left = self.deadline.remaining(now).unwrap_or_default();
            self.world.sleep((PAUSE_UNREACHABLE * (1 << (self.rounds - 1))).min(left)).await;
        } else {
            self.again.clear();
        }
    }

    /// Starts the next one; `false` when there is none left to ask.
    fn start_next(&mut self, now: Monotonic) -> bool {
        if self.waiting.is_empty() {
            self.begin_round();
        }
        if self.budget.get() == 0 {
            return false;
        }
        let Some(place) = self.waiting.pop_front() else { return false };
        self.start(place, now);
        true
    }

    /// Those who are silent get another chance: a datagram may have been lost.
    fn begin_round(&mut self) {
        if self.rounds >= ROUNDS_AFTER_FAILURE && self.failure.is_known() {
            return;
        }
        self.waiting.extend(self.again.drain(..));
        self.rounds += 1;
    }

    fn start(&mut self, place: usize, now: Monotonic) {
        let (forwarder, world, question) = (self.forwarder, self.world, self.question);
        let (budget, patience) = (self.budget, self.group.patience);
        let server = forwarder.server(place);
        if self.speaker.get().is_none() {
            self.speaker.set(Some(server.via()));
        }
        let wanted = server.rtt(|rtt| rtt.retry(patience));
        let wanted = wanted.saturating_mul(1 << (self.rounds - 1).min(16)).min(patience);
        let sharers = (self.waiting.len() + 1).min(budget.get());
        let lap = Rc::new(Lap::new(self.deadline, sharers, now, wanted));
        let own = Rc::clone(&lap);
        let attempt = Box::pin(async move {
            forwarder.attempt(world, server, question, &own, budget, patience).await
        });
        if self.runners.len() == OPEN_MAX
            && let Some(oldest) = self.runners.iter().position(|runner| runner.is_overdue)
        {
            self.runners.remove(oldest);
        }
        self.runners.push(Runner { place, lap, is_overdue: false, attempt });
    }

    /// Waits for the next end of a runner, or until somebody is late.
    async fn next_event(&mut self, now: Monotonic) -> Event {
        let ends =
            self.runners.iter().filter(|runner| !runner.is_overdue).map(|runner| runner.lap.end());
        let hedge = self.hedge_at();
        let end = self.deadline.remaining(now).map_or(now, |left| now.after(left));
        let alarm_at = ends.chain(hedge).min().unwrap_or(end).min(end);
        let mut alarm = pin!(self.world.sleep(alarm_at.since(now)));
        let runners = &mut self.runners;
        poll_fn(|cx| {
            for (index, runner) in runners.iter_mut().enumerate() {
                if let Poll::Ready(outcome) = runner.attempt.as_mut().poll(cx) {
                    return Poll::Ready(Event::Ended(index, outcome));
                }
            }
            alarm.as_mut().poll(cx).map(|()| Event::Alarm)
        })
        .await
    }

    /// When a second upstream is to be asked because the first is later than it mostly is; `None` when that is out of the
    /// question: there is no other that is awake, or one has been asked already.
    fn hedge_at(&self) -> Option<Monotonic> {
        let [first] = &self.runners[..] else { return None };
        let other = *self.waiting.front().filter(|_| !self.is_hedged && self.budget.get() > 0)?;
        if first.is_overdue || self.forwarder.server(other).health(|health| health.is_resting()) {
            return None;
        }
        let late = self.forwarder.server(first.place).rtt(|rtt| rtt.late())?;
        Some(first.lap.begun().after(late))
    }

    fn look_at_the_clock(&mut self) {
        let now = self.world.monotonic();
        if self.hedge_at().is_some_and(|at| now >= at) {
            self.is_hedged = true;
            // Who is not asked early for want of savings keeps its turn.
            if self.forwarder.pay_hedge()
                && let Some(place) = self.waiting.pop_front()
            {
                self.forwarder.count().hedges.bump();
                self.start(place, now);
            }
        }
        for index in 0..self.runners.len() {
            let runner = &mut self.runners[index];
            if !runner.is_overdue && now >= runner.lap.end() {
                runner.is_overdue = true;
                if runner.lap.has_spoken() {
                    self.failure = Failure::Stream;
                } else {
                    if !self.failure.is_known() {
                        self.failure = Failure::NobodyAnswered;
                    }
                    let (place, begun) = (runner.place, runner.lap.begun());
                    self.again.push(place);
                    self.note_silence(place, begun, now);
                }
            }
        }
    }

    /// Somebody has failed.
    fn drop_out(&mut self, index: usize, failure: Failure) {
        let Runner { place, is_overdue, .. } = self.runners.remove(index);
        if is_overdue && failure == Failure::Displaced {
            // It was hardly waited for any more.
            return;
        }
        let (forwarder, now) = (self.forwarder, self.world.monotonic());
        self.again.retain(|&other| other != place);
        let server = forwarder.server(place);
        self.speaker.set(Some(server.via()));
        forwarder.count_server(place).failed();
        if failure == Failure::Unreachable {
            self.again.push(place);
            // Cleartext has not been tried, or was the last that could be: nothing is held against it.
            if server.upstream.is_opportunistic() && self.budget.get() == 0 {
                return;
            }
            let change = server.health(|health| health.unreachable(now));
            forwarder.note(server, change);
            return;
        }
        self.failure = failure;
        if failure.is_the_upstreams() {
            self.failed.push(place);
            forwarder.note(server, server.spoke());
        }
    }

    /// Somebody has answered what others could not, or later.
    fn win(&mut self, index: usize) {
        let forwarder = self.forwarder;
        let winner = self.runners.swap_remove(index);
        let server = forwarder.server(winner.place);
        self.speaker.set(Some(server.via()));
        forwarder.note(server, server.answered());
        let rtt_us = server.rtt(|rtt| rtt.smoothed_us()).unwrap_or_default();
        forwarder.count_server(winner.place).answered(rtt_us);
        for &place in &self.failed {
            let (server, now) = (forwarder.server(place), self.world.monotonic());
            forwarder.note(server, server.health(|health| health.failed(now)));
        }
        if self.is_hedged {
            for loser in self.runners.iter().filter(|loser| !loser.is_overdue) {
                forwarder.server(loser.place).rtt(|rtt| rtt.note_late());
            }
        }
    }

    fn note_silence(&self, place: usize, begun: Monotonic, now: Monotonic) {
        let server = self.forwarder.server(place);
        self.forwarder.count_server(place).late();
        let patience = self.fair_patience();
        let change = server.health(|health| health.late(begun, now, patience));
        self.forwarder.note(server, change);
    }

    /// How long nothing must have been heard of an upstream before that is held against it: half of what each would get
    /// if all were silent. Not the whole, because alarms come late and what they take is missing from the next one's
    /// share.
    fn fair_patience(&self) -> Duration {
        let sharers = self.group.members.len().min(EXCHANGES_MAX);
        self.group.patience.min(part(self.forwarder.section.deadline, sharers)) / 2
    }
}
