//! One query to an upstream over TCP (RFC 1035 §4.2.2, RFC 7766): a connection per exchange, bounded in number and time.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::net::TcpStream;

use crate::observe::UpstreamCounters;
use crate::resolve::exchange;
use crate::resolve::ports::ExchangeError;

/// Connections under way per core. Only truncated answers need one, so more is an attack or a broken upstream.
const STREAMS_MAX: usize = 256;

/// Streams to upstreams.
#[derive(Debug)]
pub(super) struct Streams {
    open: Cell<usize>,
    counters: Arc<UpstreamCounters>,
}

impl Streams {
    pub(super) fn new(counters: Arc<UpstreamCounters>) -> Self {
        Self { open: Cell::new(0), counters }
    }

    /// As [`crate::resolve::ports::Transport::stream`].
    pub(super) async fn exchange(
        &self,
        upstream: SocketAddr,
        query: &[u8],
    ) -> Result<Vec<u8>, ExchangeError> {
        if self.open.get() >= STREAMS_MAX {
            self.counters.exhausted.bump();
            return Err(ExchangeError::Exhausted);
        }
        self.counters.streams.bump();
        let _seat = Seat::take(&self.open);
        let talked = converse(upstream, query).await;
        let outcome = talked.map_err(|_| ExchangeError::Unreachable).and_then(|message| {
            exchange::answers(query, &message).then_some(message).ok_or(ExchangeError::Unreachable)
        });
        if outcome.is_ok() {
            self.counters.responses.bump()
        } else {
            self.counters.unreachable.bump()
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
