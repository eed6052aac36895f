//! Forwarding: one question to the upstreams, in the operator's order, until one answers or the time is up.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use super::exchange::{self, Question};
use super::ports::{Clock, Entropy, Transport};
use super::scrub::{self, Unusable};
use crate::config;
use crate::time::{Deadline, Monotonic};
use crate::wire::{AnswerBuf, Ede, Rcode};

/// Times that the list of upstreams is gone through for one question. Each round waits twice as long per attempt.
const ROUNDS_MAX: u32 = 3;

/// Attempts for one question, whatever the number of upstreams: a budget against amplification.
const ATTEMPTS_MAX: usize = 12;

/// Failures in a row after which an upstream is asked last.
const FAILURES_TO_SUSPEND: u32 = 3;

/// First pause of an upstream that fails; it doubles with each failed probe.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest such pause: after it a real query tries the upstream again.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// No upstream answered in time.
    NobodyAnswered,
    /// Upstreams answered, but with nothing that can be used.
    NothingUsable,
}

impl Failure {
    /// What clients are told (RFC 8914 §4.23, §4.24).
    #[must_use]
    pub const fn ede(self) -> Ede {
        match self {
            Self::NobodyAnswered => {
                Ede::NO_REACHABLE_AUTHORITY.with_text("no upstream answered in time")
            }
            Self::NothingUsable => {
                Ede::NETWORK_ERROR.with_text("upstreams answered with errors only")
            }
        }
    }
}

/// How an upstream has done lately.
#[derive(Clone, Copy, Debug, Default)]
struct Health {
    failures: u32,
    /// Until then others are asked first.
    paused_until: Monotonic,
}

/// What became of one attempt.
enum Attempt {
    Answer(AnswerBuf),
    /// The upstream is alive, but this brought nothing.
    Useless,
    /// Nothing came.
    Silent,
}

/// Forwards questions to the upstreams of the config; one per core.
#[derive(Debug)]
pub struct Forwarder {
    section: config::Forward,
    caps: config::Cache,
    health: RefCell<Vec<Health>>,
}

impl Forwarder {
    /// A forwarder that trusts all upstreams until they fail. `caps` bounds the TTLs of answers.
    #[must_use]
    pub fn new(section: &config::Forward, caps: config::Cache) -> Self {
        let health = RefCell::new(vec![Health::default(); section.upstreams.len()]);
        Self { section: section.clone(), caps, health }
    }

    /// Resolves `question`.
    ///
    /// # Errors
    /// [`Failure`] once all upstreams failed or the deadline has passed.
    pub async fn resolve<W>(&self, world: &W, question: &Question<'_>) -> Result<AnswerBuf, Failure>
    where
        W: Transport + Clock + Entropy,
    {
        let deadline = Deadline::after(world.monotonic(), self.section.deadline);
        let mut attempts = 0;
        let mut failure = Failure::NobodyAnswered;
        for round in 0..ROUNDS_MAX {
            let patience = self.section.attempt_timeout.saturating_mul(1 << round);
            for place in self.order(world.monotonic()) {
                let now = world.monotonic();
                if attempts == ATTEMPTS_MAX || deadline.remaining(now).is_none() {
                    return Err(failure);
                }
                attempts += 1;
                let limits = Limits { whole: deadline, attempt: deadline.at_most(now, patience) };
                let upstream = self.section.upstreams[place];
                let attempt = self.attempt(world, upstream, question, limits).await;
                self.note(place, !matches!(attempt, Attempt::Silent), world.monotonic());
                match attempt {
                    Attempt::Answer(answer) => return Ok(answer),
                    Attempt::Useless => failure = Failure::NothingUsable,
                    Attempt::Silent => {}
                }
            }
        }
        Err(failure)
    }

    /// The upstreams in the order of the config, those that keep failing behind the others.
    fn order(&self, now: Monotonic) -> Vec<usize> {
        let mut health = self.health.borrow_mut();
        let (mut ready, paused): (Vec<usize>, Vec<usize>) =
            (0..health.len()).partition(|&place| health[place].paused_until <= now);
        for &place in &ready {
            if health[place].failures >= FAILURES_TO_SUSPEND {
                // This query is the probe; until it is back, the others go round.
                health[place].paused_until = now.after(self.section.attempt_timeout * 2);
            }
        }
        ready.extend(paused);
        ready
    }

    fn note(&self, place: usize, is_alive: bool, now: Monotonic) {
        let health = &mut self.health.borrow_mut()[place];
        if is_alive {
            *health = Health::default();
            return;
        }
        health.failures = health.failures.saturating_add(1);
        if let Some(excess) = health.failures.checked_sub(FAILURES_TO_SUSPEND) {
            let pause = PAUSE_MIN.saturating_mul(1 << excess.min(16)).min(PAUSE_MAX);
            health.paused_until = now.after(pause);
        }
    }

    async fn attempt<W>(
        &self,
        world: &W,
        upstream: SocketAddr,
        question: &Question<'_>,
        limits: Limits,
    ) -> Attempt
    where
        W: Transport + Clock + Entropy,
    {
        for with_edns in [true, false] {
            let Ok(query) = exchange::query(question, world.u16(), with_edns) else {
                return Attempt::Useless;
            };
            match self.exchange(world, upstream, &query, question, limits).await {
                Ok(answer) => return Attempt::Answer(answer),
                // The server may be older than EDNS (RFC 6891 §6.2.2).
                Err(Fault::Unusable(Unusable::Rcode(Rcode::FORMERR | Rcode::NOTIMP)))
                    if with_edns => {}
                Err(Fault::Unusable(_)) => return Attempt::Useless,
                Err(Fault::Silent) => return Attempt::Silent,
            }
        }
        Attempt::Useless
    }

    /// One query over UDP, and over TCP when the answer was cut (RFC 7766 §5).
    async fn exchange<W: Transport>(
        &self,
        world: &W,
        upstream: SocketAddr,
        query: &[u8],
        question: &Question<'_>,
        limits: Limits,
    ) -> Result<AnswerBuf, Fault> {
        let datagram = world.datagram(upstream, query, limits.attempt).await;
        let datagram = datagram.map_err(|_| Fault::Silent)?;
        let scrubbed = scrub::scrub(&datagram, question, &self.caps);
        if scrubbed != Err(Unusable::Truncated) {
            return scrubbed.map_err(Fault::Unusable);
        }
        let message = world.stream(upstream, query, limits.whole).await;
        let message = message.map_err(|_| Fault::Silent)?;
        scrub::scrub(&message, question, &self.caps).map_err(Fault::Unusable)
    }
}

/// Until when an attempt over UDP and the whole resolution may take.
#[derive(Clone, Copy)]
struct Limits {
    whole: Deadline,
    attempt: Deadline,
}

enum Fault {
    Silent,
    Unusable(Unusable),
}

#[cfg(test)]
mod tests;
