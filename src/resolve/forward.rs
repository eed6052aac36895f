//! Forwarding: one question to the upstreams, in the operator's order, until one answers or the time is up.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use super::exchange::{self, Question};
use super::health::{Change, Health};
use super::ports::{Clock, Entropy, ExchangeError, Transport};
use super::scrub::{self, Unusable};
use crate::config;
use crate::time::{Deadline, Monotonic};
use crate::wire::{AnswerBuf, Ede, Rcode};

/// Exchanges with upstreams for one question, whatever their number: datagrams, repetitions without EDNS, and streams
/// all count. A budget against amplification.
const EXCHANGES_MAX: usize = 8;

/// A stream may take this many times the patience of a datagram: it has a handshake before it.
const STREAM_PATIENCE: u32 = 2;

/// Rounds through the silent upstreams when another has already failed: one lost datagram is forgiven, but a failure
/// that is known must not wait for the deadline.
const ROUNDS_AFTER_FAILURE: usize = 2;

/// Changes of upstreams that wait to be told. They are few: each begins or ends a rest of seconds.
const CHANGES_MAX: usize = 64;

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// No upstream answered in time.
    NobodyAnswered,
    /// There is no way to any upstream.
    Unreachable,
    /// Nothing could be sent: our own sockets or buffers were exhausted.
    Exhausted,
    /// An answer came back cut, and could not be had over a stream.
    Stream,
    /// An upstream says SERVFAIL.
    Servfail,
    /// An upstream says REFUSED.
    Refused,
    /// An upstream says FORMERR, NOTIMP, YXDOMAIN or another code that is no answer.
    Code,
    /// An upstream gave a referral: it does not recurse.
    Lame,
    /// An upstream's answer was broken, or did not belong to the question.
    Unusable,
}

impl Failure {
    /// What clients are told (RFC 8914 §4.23, §4.24).
    #[must_use]
    pub const fn ede(self) -> Ede {
        let text = match self {
            Self::NobodyAnswered => {
                return Ede::NO_REACHABLE_AUTHORITY.with_text("no upstream answered in time");
            }
            Self::Unreachable => {
                return Ede::NO_REACHABLE_AUTHORITY.with_text("no upstream can be reached");
            }
            Self::Exhausted => "no room to ask upstream",
            Self::Stream => "answer was cut and could not be had over TCP",
            Self::Servfail => "upstream says SERVFAIL",
            Self::Refused => "upstream says REFUSED",
            Self::Code => "upstream answers with an error code",
            Self::Lame => "upstream is not a recursive resolver",
            Self::Unusable => "upstream's answer is malformed",
        };
        Ede::NETWORK_ERROR.with_text(text)
    }
}

impl Failure {
    /// Whether this speaks against the upstream as a whole. Want of room is ours, and where only streams fail, small
    /// answers are as good as any.
    const fn is_the_upstreams(self) -> bool {
        match self {
            Self::Servfail | Self::Refused | Self::Code | Self::Lame | Self::Unusable => true,
            Self::NobodyAnswered | Self::Unreachable | Self::Exhausted | Self::Stream => false,
        }
    }

    /// Whether an upstream, or we, have had a say: then the silent ones need not be waited for until the deadline.
    const fn is_known(self) -> bool {
        !matches!(self, Self::NobodyAnswered | Self::Unreachable)
    }
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Rcode(Rcode::SERVFAIL) => Self::Servfail,
            Unusable::Rcode(Rcode::REFUSED) => Self::Refused,
            Unusable::Rcode(_) | Unusable::Edns => Self::Code,
            Unusable::Referral => Self::Lame,
            Unusable::Malformed(_)
            | Unusable::Truncated
            | Unusable::OtherQuestion
            | Unusable::AliasChain
            | Unusable::Contradiction
            | Unusable::Records => Self::Unusable,
        }
    }
}

/// Forwards questions to the upstreams of the config; one per core.
#[derive(Debug)]
pub struct Forwarder {
    section: config::Forward,
    caps: config::Cache,
    health: RefCell<Health>,
    changes: RefCell<Vec<(SocketAddr, Change)>>,
}

impl Forwarder {
    /// A forwarder that trusts all upstreams until they fail. `caps` bounds the TTLs of answers.
    #[must_use]
    pub fn new(section: &config::Forward, caps: config::Cache) -> Self {
        let health = RefCell::new(Health::new(section.upstreams.len()));
        Self { section: section.clone(), caps, health, changes: RefCell::default() }
    }

    /// What has become of upstreams since this was last asked, oldest first.
    #[must_use]
    pub fn take_changes(&self) -> Vec<(SocketAddr, Change)> {
        self.changes.take()
    }

    fn note(&self, place: usize, change: Option<Change>) {
        let mut changes = self.changes.borrow_mut();
        if let Some(change) = change.filter(|_| changes.len() < CHANGES_MAX) {
            changes.push((self.section.upstreams[place], change));
        }
    }

    fn note_silence(&self, place: usize, now: Monotonic) {
        let change = self.health.borrow_mut().timed_out(place, now);
        self.note(place, change);
    }

    /// Resolves `question`.
    ///
    /// Upstreams are asked in order, those that have been silent or failing last; those that were silent are asked again until the deadline,
    /// or once more when another has failed. One that said something, however useless, or that cannot be reached, is not
    /// asked a second time.
    /// No question costs more than [`EXCHANGES_MAX`] exchanges. While others wait for their turn, each gets no more than an equal share of the time left.
    ///
    /// # Errors
    /// [`Failure`] of the last upstream that said anything; [`Failure::NobodyAnswered`] if none did, and
    /// [`Failure::Unreachable`] if none could even be asked.
    pub async fn resolve<W>(&self, world: &W, question: &Question<'_>) -> Result<AnswerBuf, Failure>
    where
        W: Transport + Clock + Entropy,
    {
        let begin = world.monotonic();
        let deadline = Deadline::after(begin, self.section.deadline);
        let mut candidates = self.health.borrow_mut().order(begin);
        let mut failure = Failure::Unreachable;
        let mut left = EXCHANGES_MAX;
        let mut rounds = 0;
        let mut failed = Vec::new();
        while !candidates.is_empty() {
            if rounds >= ROUNDS_AFTER_FAILURE && failure.is_known() {
                return Err(failure);
            }
            rounds += 1;
            let mut silent = Vec::new();
            for (done, &place) in candidates.iter().enumerate() {
                if left == 0 || deadline.remaining(world.monotonic()).is_none() {
                    return Err(failure);
                }
                let sharers = (candidates.len() - done).min(left);
                let mut turn = Turn { place, deadline, sharers, exchanges_left: &mut left };
                match self.ask(world, question, &mut turn).await {
                    Ok(answer) => {
                        self.praise(place, &failed, world.monotonic());
                        return Ok(answer);
                    }
                    Err(Failure::NobodyAnswered) => {
                        silent.push(place);
                        if !failure.is_known() {
                            failure = Failure::NobodyAnswered;
                        }
                    }
                    // Another try would fail as soon.
                    Err(Failure::Unreachable) => {}
                    Err(said) => {
                        failure = said;
                        if said.is_the_upstreams() {
                            failed.push(place);
                        }
                    }
                }
            }
            candidates = silent;
        }
        Err(failure)
    }

    /// Upstream `useful` has answered what the `failed` ones could not.
    fn praise(&self, useful: usize, failed: &[usize], now: Monotonic) {
        let mut health = self.health.borrow_mut();
        self.note(useful, health.answered(useful));
        failed.iter().for_each(|&place| self.note(place, health.failed(place, now)));
    }

    /// Asks one upstream, with EDNS and, should it choke on that, without.
    async fn ask<W>(
        &self,
        world: &W,
        question: &Question<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<AnswerBuf, Failure>
    where
        W: Transport + Clock + Entropy,
    {
        match self.attempt(world, question, true, turn).await? {
            // Once, and not remembered: a forged FORMERR must not switch EDNS off for others (CVE-2026-52690).
            Err(Unusable::Edns) if *turn.exchanges_left > 0 => {
                Ok(self.attempt(world, question, false, turn).await??)
            }
            outcome => Ok(outcome?),
        }
    }

    /// One query over UDP, and over TCP when the response was cut (RFC 7766 §5).
    async fn attempt<W>(
        &self,
        world: &W,
        question: &Question<'_>,
        with_edns: bool,
        turn: &mut Turn<'_>,
    ) -> Result<Result<AnswerBuf, Unusable>, Failure>
    where
        W: Transport + Clock + Entropy,
    {
        let upstream: SocketAddr = self.section.upstreams[turn.place];
        let query = |id| exchange::query(question, id, with_edns).map_err(|_| Failure::Exhausted);
        turn.spend();
        let now = world.monotonic();
        let patience = turn.patience(now, self.section.attempt_timeout);
        let until = Deadline::after(now, patience);
        let datagram = match world.datagram(upstream, &query(world.u16())?, until).await {
            Ok(datagram) => datagram,
            Err(ExchangeError::Exhausted) => return Err(Failure::Exhausted),
            Err(ExchangeError::Unreachable) => {
                self.note_silence(turn.place, world.monotonic());
                return Err(Failure::Unreachable);
            }
            Err(ExchangeError::TimedOut) => {
                // What the client's deadline cuts short says nothing about the upstream.
                if patience >= self.least_fair_patience() {
                    self.note_silence(turn.place, world.monotonic());
                }
                return Err(Failure::NobodyAnswered);
            }
        };
        self.health.borrow_mut().spoke(turn.place);
        let scrubbed = scrub::scrub(&datagram, question, &self.caps);
        if scrubbed != Err(Unusable::Truncated) {
            return Ok(scrubbed);
        }
        if *turn.exchanges_left == 0 {
            return Err(Failure::Stream);
        }
        turn.spend();
        let now = world.monotonic();
        let patience = self.section.attempt_timeout.saturating_mul(STREAM_PATIENCE);
        let until = Deadline::after(now, turn.patience(now, patience));
        let message = world.stream(upstream, &query(world.u16())?, until).await;
        match message {
            Ok(message) => Ok(scrub::scrub(&message, question, &self.caps)),
            Err(ExchangeError::Exhausted) => Err(Failure::Exhausted),
            // Datagrams work, so the upstream is not silent and keeps its place.
            Err(ExchangeError::TimedOut | ExchangeError::Unreachable) => Err(Failure::Stream),
        }
    }

    /// The least patience whose end is held against an upstream: half of what each would get if all were silent. Not
    /// the whole, because alarms come late and what they take is missing from the next one's share.
    fn least_fair_patience(&self) -> Duration {
        let share = part(self.section.deadline, self.section.upstreams.len().min(EXCHANGES_MAX));
        self.section.attempt_timeout.min(share) / 2
    }
}

/// One upstream's turn within a question.
#[derive(Debug)]
struct Turn<'a> {
    /// Index of the upstream.
    place: usize,
    /// The question's.
    deadline: Deadline,
    /// Upstreams that share the time left, this one included.
    sharers: usize,
    /// Of [`EXCHANGES_MAX`], for the whole question.
    exchanges_left: &'a mut usize,
}

impl Turn<'_> {
    /// An exchange begins.
    const fn spend(&mut self) {
        *self.exchanges_left = self.exchanges_left.saturating_sub(1);
    }

    /// How long one exchange may wait from `now` on: not longer than `most`, and never so long that nothing is left for
    /// those whose turn is yet to come.
    fn patience(&self, now: Monotonic, most: Duration) -> Duration {
        let left = self.deadline.remaining(now).unwrap_or_default();
        most.min(part(left, self.sharers))
    }
}

/// `whole` in `count` equal parts.
fn part(whole: Duration, count: usize) -> Duration {
    whole / u32::try_from(count.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
