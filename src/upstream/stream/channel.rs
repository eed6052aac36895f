//! The octets of one connection to an upstream: in clear, or through TLS (RFC 7858).

use std::io::{self, Read, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_lite::future::{or, poll_fn};
use futures_lite::{AsyncRead as _, AsyncWrite as _};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use rustls::{CertificateError, ClientConnection, HandshakeKind};

use crate::sys::sockopt::acknowledge_at_once;

/// For the connect and the handshake together: a second and its first retransmission, then some.
const OPENING_MAX: Duration = Duration::from_secs(3);

/// Reads of a TLS connection that bring no octet of DNS, before others have their turn.
const BARREN_READS_MAX: usize = 8;

/// Why a connection could not be opened.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nobody there, or not in time.
    Connect,
    /// The certificate or the key is not the upstream's.
    Certificate(CertificateError),
    /// The handshake failed, or did not end in time.
    Handshake,
}

/// An open connection.
#[derive(Debug)]
pub(super) enum Channel {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Secured(Box<Secured>),
}

impl Channel {
    /// Connects to `address`; speaks TLS if there is a `session` for it.
    pub(super) async fn open(
        address: SocketAddr,
        session: Option<ClientConnection>,
    ) -> Result<Self, Fault> {
        let mut alarm = Timer::new(OPENING_MAX);
        let connect = async {
            let tcp = TcpStream::connect(address).await.map_err(|_| Fault::Connect)?;
            // Queries are queued and written together; what is written shall not wait for acknowledgements.
            tcp.set_nodelay(true).map_err(|_| Fault::Connect)?;
            Ok(tcp)
        };
        let late = async {
            (&mut alarm).await;
            Err(Fault::Connect)
        };
        let tcp = or(connect, late).await?;
        let Some(tls) = session else { return Ok(Self::Plain(tcp)) };
        let mut secured = Box::new(Secured { tcp, tls });
        let late = async {
            alarm.await;
            Err(Fault::Handshake)
        };
        or(poll_fn(|cx| secured.poll_handshake(cx)), late).await?;
        Ok(Self::Secured(secured))
    }

    /// Lets the upstream know at once that what it has sent has arrived: many keep the next answer back until then.
    pub(super) fn acknowledge(&self) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Secured(secured) => &secured.tcp,
        };
        // Only a broken socket refuses, and the next read tells that.
        let _ = acknowledge_at_once(tcp);
    }

    /// Whether the handshake took up an earlier session.
    pub(super) fn is_resumed(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secured(secured) => secured.tls.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// Reads once; 0 is the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Secured(secured) => secured.poll_read(cx, buf),
        }
    }

    /// Writes some of `octets`, which are then under way or wait for [`Self::poll_flush`].
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, octets),
            Self::Secured(secured) => secured.poll_write(cx, octets),
        }
    }

    /// Sends what an earlier write or TLS itself has left.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Secured(secured) => secured.poll_flush(cx),
        }
    }

    /// Says goodbye, as far as that is possible at once.
    pub(super) fn hang_up(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Secured(secured) => {
                secured.tls.send_close_notify();
                // What the socket does not take now, it would not have taken from a broken connection either.
                let _ = secured.poll_flush(&mut nobody);
                &mut secured.tcp
            }
        };
        // Not left to the drop: a poll that the ring still holds would delay the FIN. Fails only on a broken socket.
        let _ = Pin::new(tcp).poll_close(&mut nobody);
    }
}

/// TLS and what it runs over.
#[derive(Debug)]
pub(super) struct Secured {
    tcp: TcpStream,
    tls: ClientConnection,
}

impl Secured {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            ready!(self.poll_flush(cx)).map_err(|_| Fault::Handshake)?;
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            let count = ready!(self.poll_receive(cx)).map_err(|_| Fault::Handshake)?;
            if let Err(error) = self.tls.process_new_packets() {
                // Tells the upstream why, if the socket takes it.
                let _ = self.poll_flush(cx);
                return Poll::Ready(Err(match error {
                    rustls::Error::InvalidCertificate(cause) => Fault::Certificate(cause),
                    _ => Fault::Handshake,
                }));
            }
            if count == 0 {
                return Poll::Ready(Err(Fault::Handshake));
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        for _ in 0..BARREN_READS_MAX {
            match self.tls.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
            ready!(self.poll_receive(cx))?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        Poll::Ready(self.tls.writer().write(octets))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut socket = Socket { tcp: &mut self.tcp, cx };
            if ready!(pending(self.tls.write_tls(&mut socket)))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads octets of TLS once; 0 is the end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        pending(self.tls.read_tls(&mut Socket { tcp: &mut self.tcp, cx }))
    }
}

/// A socket as TLS wants it: it says that it would block, and wakes the task later.
struct Socket<'a, 'b> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Read for Socket<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.tcp).poll_read(self.cx, buf))
    }
}

impl io::Write for Socket<'_, '_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.tcp).poll_write(self.cx, octets))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocking(outcome: Poll<io::Result<usize>>) -> io::Result<usize> {
    match outcome {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn pending(outcome: io::Result<usize>) -> Poll<io::Result<usize>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        outcome => Poll::Ready(outcome),
    }
}
