//! One query to an upstream over TCP (RFC 1035 §4.2.2, RFC 7766): a connection per exchange, bounded in number and time.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_lite::future::or;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::net::TcpStream;
use glommio::timer::Timer;

use super::MonotonicClock;
use crate::observe::UpstreamCounters;
use crate::resolve::exchange;
use crate::resolve::ports::ExchangeError;
use crate::time::Deadline;

/// Connections under way per core. Only truncated answers need one, so more is an attack or a broken upstream.
const STREAMS_MAX: usize = 256;

/// Streams to upstreams.
#[derive(Debug)]
pub(super) struct Streams {
    clock: MonotonicClock,
    open: Cell<usize>,
    counters: Arc<UpstreamCounters>,
}

impl Streams {
    pub(super) fn new(clock: MonotonicClock, counters: Arc<UpstreamCounters>) -> Self {
        Self { clock, open: Cell::new(0), counters }
    }

    /// As [`crate::resolve::ports::Transport::stream`].
    pub(super) async fn exchange(
        &self,
        upstream: SocketAddr,
        query: &[u8],
        deadline: Deadline,
    ) -> Result<Vec<u8>, ExchangeError> {
        if self.open.get() >= STREAMS_MAX {
            self.counters.exhausted.bump();
            return Err(ExchangeError::Exhausted);
        }
        let left = deadline.remaining(self.clock.monotonic()).ok_or(ExchangeError::TimedOut)?;
        self.counters.streams.bump();
        let _seat = Seat::take(&self.open);
        let talk = async {
            let talked = converse(upstream, query).await;
            talked.map_err(|_| ExchangeError::Unreachable)
        };
        let alarm = async {
            Timer::new(left).await;
            Err(ExchangeError::TimedOut)
        };
        let outcome = match or(talk, alarm).await {
            Ok(message) if exchange::answers(query, &message) => Ok(message),
            Ok(_) => {
                self.counters.wrong_question.bump();
                Err(ExchangeError::Unreachable)
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(_) => self.counters.responses.bump(),
            Err(ExchangeError::TimedOut) => self.counters.timeouts.bump(),
            Err(ExchangeError::Unreachable) => self.counters.unreachable.bump(),
            Err(ExchangeError::Exhausted) => self.counters.exhausted.bump(),
        }
        outcome
    }
}

/// A place among [`STREAMS_MAX`], given back when the exchange ends, however it ends.
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

async fn converse(upstream: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await.map_err(io::Error::from)?;
    stream.set_nodelay(true).map_err(io::Error::from)?;
    let len = u16::try_from(query.len()).map_err(io::Error::other)?;
    let framed = [&len.to_be_bytes(), query].concat();
    stream.write_all(&framed).await?;
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    let len = u16::from_be_bytes(len);
    // Memory grows with what arrives, not with what is announced.
    let mut message = Vec::new();
    stream.take(u64::from(len)).read_to_end(&mut message).await?;
    if message.len() < usize::from(len) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Duration;

    use glommio::LocalExecutor;

    use super::*;

    const QUERY: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";

    /// What an exchange with a server that sends `parts` one by one, then closes, comes to.
    fn exchanged(parts: Vec<Vec<u8>>, patience: Duration) -> Result<Vec<u8>, ExchangeError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; QUERY.len() + 2];
            stream.read_exact(&mut asked).unwrap();
            assert_eq!(&asked[2..], QUERY);
            for part in &parts {
                stream.write_all(part).unwrap();
            }
            // Until the client hangs up, unless there is nothing to wait for.
            if parts.is_empty() {
                let _ = stream.read(&mut asked);
            }
        });
        let outcome = LocalExecutor::default().run(async {
            let clock = MonotonicClock::start();
            let streams = Streams::new(clock, Arc::default());
            let deadline = Deadline::after(clock.monotonic(), patience);
            let outcome = streams.exchange(upstream, QUERY, deadline).await;
            assert_eq!(streams.open.get(), 0);
            outcome
        });
        server.join().unwrap();
        outcome
    }

    fn reply() -> Vec<u8> {
        let mut reply = QUERY.to_vec();
        reply[2] |= 0x80;
        reply
    }

    #[test]
    fn reply_in_pieces_is_put_together() {
        let len = u8::try_from(QUERY.len()).unwrap();
        let (front, back) = (reply()[..5].to_vec(), reply()[5..].to_vec());
        let outcome = exchanged(vec![vec![0], vec![len], front, back], Duration::from_secs(10));
        assert_eq!(outcome, Ok(reply()));
    }

    #[test]
    fn early_end_and_foreign_reply_are_failures() {
        let patience = Duration::from_secs(10);
        let outcome = exchanged(vec![vec![0, 99, 1, 2]], patience);
        assert_eq!(outcome, Err(ExchangeError::Unreachable));
        // What came would do, but more was announced.
        let outcome = exchanged(vec![vec![0, 99], reply()], patience);
        assert_eq!(outcome, Err(ExchangeError::Unreachable));
        let mut foreign = reply();
        foreign[0] ^= 1;
        let len = u8::try_from(foreign.len()).unwrap();
        let outcome = exchanged(vec![vec![0, len], foreign], patience);
        assert_eq!(outcome, Err(ExchangeError::Unreachable));
    }

    #[test]
    fn silent_server_costs_no_more_than_the_deadline() {
        let outcome = exchanged(Vec::new(), Duration::from_millis(50));
        assert_eq!(outcome, Err(ExchangeError::TimedOut));
    }

    #[test]
    fn nobody_listening_is_unreachable() {
        let upstream = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let outcome = LocalExecutor::default().run(async {
            let clock = MonotonicClock::start();
            let deadline = Deadline::after(clock.monotonic(), Duration::from_secs(10));
            Streams::new(clock, Arc::default()).exchange(upstream, QUERY, deadline).await
        });
        assert_eq!(outcome, Err(ExchangeError::Unreachable));
    }
}
