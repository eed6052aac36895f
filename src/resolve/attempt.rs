//! One upstream's attempt at a question: over datagrams or a stream, with EDNS and without, until it has said something
//! that can be judged.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use super::exchange::{self, Extensions, Form, Judgement, Question};
use super::forward::Failure;
use super::ports::{Casing, Clock, Doubt, Entropy, ExchangeError, Transport};
use super::scrub::{self, Unusable};
use super::server::Server;
use crate::config::{self, Protocol, Upstream};
use crate::time::{Deadline, Monotonic};
use crate::wire::{AnswerBuf, Rcode};

/// A stream may take this many times the patience of a datagram: it has a handshake before it.
const STREAM_PATIENCE: u32 = 2;

/// What holds for all attempts of a core.
#[derive(Debug)]
pub(super) struct Rules {
    /// Bounds of TTLs.
    pub(super) caps: config::Cache,
    /// Names are sent in random casing.
    pub(super) mixes_casing: bool,
    /// Cookies are sent.
    pub(super) has_cookies: bool,
}

/// How long an attempt may go on before somebody else is asked, too.
#[derive(Debug)]
pub(super) struct Lap {
    /// The question's.
    deadline: Deadline,
    /// Upstreams that share the time left, this one included.
    sharers: usize,
    begun: Cell<Monotonic>,
    patience: Cell<Duration>,
    has_spoken: Cell<bool>,
}

impl Lap {
    /// A lap from `now` on, of `wanted` at most: never so long that nothing is left for those whose turn is yet to come.
    pub(super) fn new(
        deadline: Deadline,
        sharers: usize,
        now: Monotonic,
        wanted: Duration,
    ) -> Self {
        let lap = Self {
            deadline,
            sharers,
            begun: Cell::new(now),
            patience: Cell::default(),
            has_spoken: Cell::new(false),
        };
        lap.renew(now, wanted);
        lap
    }

    fn renew(&self, now: Monotonic, wanted: Duration) {
        let left = self.deadline.remaining(now).unwrap_or_default();
        self.begun.set(now);
        self.patience.set(wanted.min(part(left, self.sharers)));
    }

    /// When the present exchange began.
    pub(super) const fn begun(&self) -> Monotonic {
        self.begun.get()
    }

    /// Whether the upstream has answered by datagram, and only a stream is waited for: it is not silent.
    pub(super) const fn has_spoken(&self) -> bool {
        self.has_spoken.get()
    }

    /// When it is over.
    pub(super) fn end(&self) -> Monotonic {
        self.begun.get().after(self.patience.get())
    }
}

/// `whole` in `count` equal parts.
pub(super) fn part(whole: Duration, count: usize) -> Duration {
    whole / u32::try_from(count.max(1)).unwrap_or(u32::MAX)
}

/// How the next datagram is to look.
#[derive(Clone, Copy, Debug)]
struct Way {
    has_edns: bool,
    mixes_casing: bool,
}

/// One upstream at one question.
#[derive(Debug)]
pub(super) struct Attempt<'a, W> {
    pub(super) world: &'a W,
    pub(super) rules: &'a Rules,
    pub(super) server: &'a Server,
    pub(super) question: &'a Question<'a>,
    pub(super) lap: &'a Lap,
    /// Exchanges left, for the whole question.
    pub(super) budget: &'a Cell<usize>,
    /// Longest wait for a datagram.
    pub(super) patience: Duration,
}

impl<W: Transport + Clock + Entropy> Attempt<'_, W> {
    /// Asks until there is something to tell.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn run(&self) -> Result<AnswerBuf, Failure> {
        let upstream = &self.server.upstream;
        if upstream.protocol == Protocol::Udp {
            return self.over_datagrams(upstream.address).await;
        }
        match self.over_stream(upstream).await {
            // RFC 8310 §5: encryption is a bonus, an answer is the duty.
            Err(Failure::Unreachable) if upstream.is_opportunistic() && self.has_budget() => {
                self.lap.renew(self.world.monotonic(), self.patience);
                let outcome = self.over_datagrams(self.server.plain.address).await;
                if outcome.is_ok() {
                    self.server.note_privacy(true);
                }
                outcome
            }
            outcome => {
                if outcome.is_ok() {
                    self.server.note_privacy(false);
                }
                outcome
            }
        }
    }

    async fn over_datagrams(&self, to: SocketAddr) -> Result<AnswerBuf, Failure> {
        // The lap has just begun: one look at the clock less for nearly every question.
        let mut sent = self.lap.begun();
        let mixes_casing = self.rules.mixes_casing && self.server.keeps_casing(sent);
        let mut way = Way { has_edns: self.server.reads_edns(sent), mixes_casing };
        let mut has_fallen_back = false;
        let mut has_been_refused = false;
        loop {
            let outcome = self.datagram(to, way, sent).await;
            let message = match outcome {
                Ok(message) => message,
                Err(ExchangeError::Exhausted) => return Err(Failure::Exhausted),
                Err(ExchangeError::Unreachable) => return Err(Failure::Unreachable),
                Err(ExchangeError::Doubtful(Doubt::Flood)) => {
                    return self.over_stream_after(Failure::Doubtful).await;
                }
                Err(ExchangeError::Doubtful(Doubt::Casing)) => {
                    match self.over_stream_after(Failure::Doubtful).await {
                        // It may be too old for either; three such answers in a row are believed.
                        Err(Failure::Doubtful) if way.mixes_casing && self.has_budget() => {
                            self.server.changed_casing(self.world.monotonic(), false);
                            way.mixes_casing = false;
                        }
                        outcome => return outcome,
                    }
                    sent = self.world.monotonic();
                    continue;
                }
            };
            self.server.note_edns(&message);
            if self.sends_cookie(way) && !self.server.heed_cookie(&message, false) {
                match self.over_stream_after(Failure::Doubtful).await {
                    // Another query, another port and ID: whoever forges must hit each time.
                    Err(Failure::Doubtful) if self.has_budget() => self.server.missed_cookie(),
                    outcome => return outcome,
                }
                sent = self.world.monotonic();
                continue;
            }
            match scrub::scrub(&message, self.question, &self.rules.caps) {
                Err(Unusable::Truncated) => return self.over_stream_after(Failure::Stream).await,
                // The cookie that it wants has come with its refusal (RFC 7873 §5.3).
                Err(Unusable::Rcode(Rcode::BADCOOKIE))
                    if !has_been_refused && self.has_budget() =>
                {
                    has_been_refused = true;
                }
                Err(Unusable::Rcode(Rcode::BADCOOKIE)) => {
                    return self.over_stream_after(Failure::Stream).await;
                }
                Err(Unusable::Edns) if way.has_edns && self.has_budget() => {
                    // From one that knows EDNS this is no word of its own.
                    if self.server.has_spoken_edns() {
                        match self.over_stream_after(Failure::Doubtful).await {
                            Err(Failure::Doubtful) if self.has_budget() => {
                                self.server.denied_edns();
                            }
                            outcome => return outcome,
                        }
                    }
                    (way.has_edns, has_fallen_back) = (false, true);
                }
                outcome => {
                    if outcome.is_ok() {
                        if has_fallen_back {
                            self.server.choked_on_edns(self.world.monotonic(), false);
                        }
                        self.server.did_well(way.has_edns, way.mixes_casing);
                    }
                    return Ok(outcome?);
                }
            }
            sent = self.world.monotonic();
        }
    }

    /// Fetches over a stream what a datagram could not bring, or not for certain (RFC 7766 §5); `why` is the failure when
    /// there is no stream.
    async fn over_stream_after(&self, why: Failure) -> Result<AnswerBuf, Failure> {
        if !self.has_budget() {
            return Err(why);
        }
        // Datagrams work, so the upstream is not silent and keeps its place.
        self.lap.has_spoken.set(true);
        self.over_stream(&self.server.plain).await.map_err(|failure| match failure {
            Failure::Unreachable => why,
            other => other,
        })
    }

    async fn over_stream(&self, upstream: &Upstream) -> Result<AnswerBuf, Failure> {
        let now = self.world.monotonic();
        let is_plain = upstream.protocol == Protocol::Udp;
        // On the way that datagrams take, the answer shows what the server does to casing; elsewhere nobody asks.
        let mixes_casing = is_plain && self.rules.mixes_casing && self.server.keeps_casing(now);
        let mut way = Way { has_edns: self.server.reads_edns(now), mixes_casing };
        let mut has_fallen_back = false;
        loop {
            let (message, is_other_casing) = match self.stream(upstream, way).await {
                Ok(exchanged) => exchanged,
                Err(ExchangeError::Exhausted) => return Err(Failure::Exhausted),
                Err(ExchangeError::Unreachable | ExchangeError::Doubtful(_)) => {
                    return Err(Failure::Unreachable);
                }
            };
            self.server.note_edns(&message);
            let now = self.world.monotonic();
            if is_plain && self.sends_cookie(way) {
                self.server.heed_cookie(&message, true);
            }
            if is_other_casing {
                self.server.changed_casing(now, true);
            }
            match scrub::scrub(&message, self.question, &self.rules.caps) {
                Err(Unusable::Edns) if way.has_edns && self.has_budget() => {
                    (way.has_edns, has_fallen_back) = (false, true);
                }
                outcome => {
                    if has_fallen_back && outcome.is_ok() {
                        self.server.choked_on_edns(now, true);
                    }
                    return Ok(outcome?);
                }
            }
        }
    }

    /// Sends one datagram, at the time `sent`, and gives what came back.
    async fn datagram(
        &self,
        to: SocketAddr,
        way: Way,
        sent: Monotonic,
    ) -> Result<Vec<u8>, ExchangeError> {
        let cookie = self.sends_cookie(way).then(|| self.server.cookie(sent));
        let options = Extensions { cookie: cookie.as_deref(), ..Extensions::default() };
        let query = self.query(way, options)?;
        self.spend();
        let casing = if way.mixes_casing { Casing::Drawn } else { Casing::Plain };
        let mut message = self.world.datagram(to, &query, casing).await?;
        self.heard_since(sent);
        exchange::restore_casing(&mut message, self.question.qname);
        Ok(message)
    }

    /// Asks once over a stream and gives what came back, and whether that had another casing.
    async fn stream(
        &self,
        upstream: &Upstream,
        way: Way,
    ) -> Result<(Vec<u8>, bool), ExchangeError> {
        let sent = self.world.monotonic();
        let is_encrypted = matches!(upstream.protocol, Protocol::Tls(_));
        let sends_cookie = upstream.protocol == Protocol::Udp && self.sends_cookie(way);
        let cookie = sends_cookie.then(|| self.server.cookie(sent));
        let cookie = cookie.as_deref();
        let options = Extensions { cookie, asks_keepalive: true, is_padded: is_encrypted };
        let query = self.query(way, options)?;
        self.spend();
        self.lap.renew(sent, self.patience.saturating_mul(STREAM_PATIENCE));
        let mut message = self.world.stream(upstream, &query).await?;
        if upstream.protocol == Protocol::Udp {
            // What a handshake takes says nothing about datagrams.
            self.server.was_heard();
        } else {
            self.heard_since(sent);
        }
        let is_other = exchange::judge(&query, &message) == Judgement::OtherCasing;
        exchange::restore_casing(&mut message, self.question.qname);
        Ok((message, is_other))
    }

    fn query(&self, way: Way, options: Extensions<'_>) -> Result<Vec<u8>, ExchangeError> {
        let form = Form { id: self.world.u16(), edns: way.has_edns.then_some(options) };
        let query = exchange::query(self.question, form);
        let mut query = query.map_err(|_| ExchangeError::Exhausted)?;
        if way.mixes_casing {
            exchange::mix_casing(&mut query, || self.world.u16());
        }
        Ok(query)
    }

    const fn sends_cookie(&self, way: Way) -> bool {
        way.has_edns && self.rules.has_cookies
    }

    fn heard_since(&self, sent: Monotonic) {
        let elapsed = self.world.monotonic().since(sent);
        self.server.rtt(|rtt| rtt.note(elapsed));
        self.server.was_heard();
    }

    const fn has_budget(&self) -> bool {
        self.budget.get() > 0
    }

    fn spend(&self) {
        self.budget.set(self.budget.get().saturating_sub(1));
    }
}
