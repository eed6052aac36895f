//! Streams to simulated upstreams: one connection for each, which may be refused, bring nothing, or break at any point.
//! What it does bring is what the server that was asked has said.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::network::Network;
use super::server::StreamHabit;
use super::trace::{Event, Fault};
use crate::config::{Protocol, Upstream};
use crate::resolve::exchange;
use crate::resolve::ports::ExchangeError;

/// What a lost segment costs until it is sent again.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// A connection, and who waits on it.
#[derive(Debug, Default)]
pub(super) struct Connection {
    is_established: Cell<bool>,
    is_broken: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Connection {
    fn break_off(&self) {
        self.is_broken.set(true);
        self.wakers.take().into_iter().for_each(Waker::wake);
    }

    async fn broken(&self) {
        poll_fn(|cx| {
            if self.is_broken.get() {
                return Poll::Ready(());
            }
            self.wakers.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A place among the exchanges under way.
struct Seat<'a>(&'a Cell<usize>);

impl<'a> Seat<'a> {
    fn take(open: &'a Cell<usize>) -> Self {
        open.set(open.get() + 1);
        Self(open)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Network {
    /// One exchange over the connection to `upstream`.
    pub(super) async fn converse(
        &self,
        upstream: &Upstream,
        query: &[u8],
    ) -> Result<Vec<u8>, ExchangeError> {
        let _seat = Seat::take(&self.streams_open);
        let connection =
            Rc::clone(self.connections.borrow_mut().entry(upstream.address).or_default());
        let mut exchange = pin!(self.exchange(&connection, upstream, query));
        let mut broken = pin!(connection.broken());
        let outcome = poll_fn(|cx| match exchange.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => broken.as_mut().poll(cx).map(|()| Err(ExchangeError::Unreachable)),
        });
        let outcome = outcome.await;
        match &outcome {
            Ok(message) => self.note(Event::StreamArrived, message),
            Err(_) => {
                connection.break_off();
                let mut connections = self.connections.borrow_mut();
                if connections.get(&upstream.address).is_some_and(|it| Rc::ptr_eq(it, &connection))
                {
                    connections.remove(&upstream.address);
                }
            }
        }
        outcome
    }

    async fn exchange(
        &self,
        connection: &Connection,
        upstream: &Upstream,
        query: &[u8],
    ) -> Result<Vec<u8>, ExchangeError> {
        let place = self.place_of(upstream.address);
        let is_tls = matches!(upstream.protocol, Protocol::Tls(_));
        let habit = match self.scenario.roles[place].has_tls {
            false if is_tls => StreamHabit::Refuses,
            _ => self.traits(place).streams,
        };
        if !connection.is_established.get() {
            self.there_and_back(place).await;
            self.reach(place).await?;
            match habit {
                StreamHabit::Refuses => {
                    self.tally.strike(Fault::StreamRefused);
                    return Err(ExchangeError::Unreachable);
                }
                StreamHabit::Hangs => {
                    self.tally.strike(Fault::StreamHung);
                    return std::future::pending().await;
                }
                StreamHabit::Works | StreamHabit::Breaks(_) => {}
            }
            if is_tls {
                self.there_and_back(place).await;
            }
            connection.is_established.set(true);
        }
        if let StreamHabit::Breaks(permille) = habit
            && self.strikes(Fault::StreamBroken, permille)
        {
            self.time.sleep(self.chance.millis(0, 50)).await;
            return Err(ExchangeError::Unreachable);
        }
        self.segment(place).await;
        self.reach(place).await?;
        let now = self.time.now();
        let message = self.traits(place).answer(query, (now, true), &self.chance, &self.tally);
        self.segment(place).await;
        // What does not answer the query ends the connection.
        exchange::answers(query, &message).then_some(message).ok_or(ExchangeError::Unreachable)
    }

    async fn there_and_back(&self, place: usize) {
        self.segment(place).await;
        self.segment(place).await;
    }

    /// One way of what is sent again when it gets lost.
    async fn segment(&self, place: usize) {
        let link = self.traits(place).link;
        while self.strikes(Fault::Lost, link.losses) {
            self.time.sleep(RETRANSMISSION).await;
        }
        self.time.sleep(link.delay(&self.chance, &self.tally)).await;
    }

    /// Waits for ever for one who is dead.
    async fn reach(&self, place: usize) -> Result<(), ExchangeError> {
        match self.traits(place).outage(self.time.now()) {
            None => Ok(()),
            Some(outage) if outage.is_refused => {
                self.tally.strike(Fault::Refused);
                Err(ExchangeError::Unreachable)
            }
            Some(_) => {
                self.tally.strike(Fault::Silence);
                std::future::pending().await
            }
        }
    }
}
