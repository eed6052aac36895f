//! One request over HTTP to the API of a node: a connection, a reply, and the end. Blocks; everything has its bound.
#![expect(clippy::disallowed_types, reason = "the command line is the edge")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::show::tamed;
use super::tls;
use crate::config::{ApiListen, Token};

/// Longest reply that is read, in bytes.
const REPLY_BYTES_MAX: u64 = 64 << 20;

/// Where a node is asked, and with what.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) place: ApiListen,
    pub(super) token: Option<Token>,
    /// A PEM file with the certificate that the node must show over TLS.
    pub(super) certificate: Option<std::path::PathBuf>,
    /// How long a connection may take, and each wait for the node.
    pub(super) patience: Duration,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(in crate::cli) enum Failure {
    /// The API is off.
    #[error("api.listen is \"off\": a node with this config cannot be asked")]
    Off,
    /// Nobody is there, or what is there does not answer.
    #[error("{place}: {cause} (is it that node's api.listen? --config or --api names another)")]
    Unreachable {
        /// Where.
        place: String,
        /// What the system says.
        cause: io::Error,
    },
    /// It takes its time.
    #[error(
        "{place}: no answer within {patience:?}: the node is busy, or something else listens there; its log may say more, and \
         --timeout SECONDS waits longer"
    )]
    Late {
        /// Where.
        place: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The node does not want to.
    #[error("the node refuses: {text} (status {status})")]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// Its words.
        text: String,
    },
    /// That is no node.
    #[error("{place}: what answers there is no API of this program")]
    Strange {
        /// Where.
        place: String,
    },
}

/// Anything that bytes go through.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

impl Client {
    /// What the node says to a GET of `path`.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json(&self.send("GET", path, None)?)
    }

    /// What it says to a POST of `body`.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json(&self.send("POST", path, Some(body.to_string()))?)
    }

    /// The text that a GET of `path` gives.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn text(&self, path: &str) -> Result<String, Failure> {
        self.send("GET", path, None)
    }

    fn json(&self, body: &str) -> Result<Value, Failure> {
        serde_json::from_str(body).map_err(|_| self.strange())
    }

    fn strange(&self) -> Failure {
        Failure::Strange { place: self.place.to_string() }
    }

    /// What a refusal of the system comes to.
    fn unreachable(&self, cause: io::Error) -> Failure {
        let place = self.place.to_string();
        match cause.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Failure::Late { place, patience: self.patience }
            }
            _ => Failure::Unreachable { place, cause },
        }
    }

    fn send(&self, method: &str, path: &str, body: Option<String>) -> Result<String, Failure> {
        let unreachable = |cause| self.unreachable(cause);
        let mut wire = self.connect()?;
        let request = self.request(method, path, body);
        wire.write_all(request.as_bytes()).and_then(|()| wire.flush()).map_err(unreachable)?;
        let mut reply = Vec::new();
        match wire.take(REPLY_BYTES_MAX).read_to_end(&mut reply) {
            // An end of TLS without its farewell; the length tells whether all is there.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            outcome => {
                outcome.map_err(unreachable)?;
            }
        }
        let (status, body) = taken_apart(&reply).ok_or_else(|| self.strange())?;
        if status == 200 {
            return Ok(body.to_owned());
        }
        let told: Value = serde_json::from_str(body).map_err(|_| self.strange())?;
        let text = tamed(told["error"].as_str().ok_or_else(|| self.strange())?);
        Err(Failure::Refused { status, text })
    }

    fn request(&self, method: &str, path: &str, body: Option<String>) -> String {
        let mut text =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        if let Some(token) = &self.token {
            text.push_str("Authorization: Bearer ");
            text.push_str(token.as_text());
            text.push_str("\r\n");
        }
        let Some(body) = body else { return text + "\r\n" };
        let length = body.len();
        text + &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    fn connect(&self) -> Result<Box<dyn Wire>, Failure> {
        let unreachable = |cause| self.unreachable(cause);
        let patience = Some(self.patience);
        match &self.place {
            ApiListen::Off => Err(Failure::Off),
            ApiListen::Unix(path) => {
                let stream = unix(path, self.patience).map_err(unreachable)?;
                stream.set_read_timeout(patience).map_err(unreachable)?;
                stream.set_write_timeout(patience).map_err(unreachable)?;
                Ok(Box::new(stream))
            }
            ApiListen::Tcp(address) => {
                let stream = tcp(reachable(*address), self.patience).map_err(unreachable)?;
                match &self.certificate {
                    None => Ok(Box::new(stream)),
                    Some(path) => Ok(Box::new(tls::over(stream, path).map_err(unreachable)?)),
                }
            }
        }
    }
}

/// On a thread of its own, because a connection to a socket with a full queue waits without an end.
fn unix(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let (sender, connected) = channel();
    let path = path.to_owned();
    // Nobody may be left to take it.
    std::thread::Builder::new().spawn(move || drop(sender.send(UnixStream::connect(path))))?;
    connected.recv_timeout(patience).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn tcp(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// Where to knock when a node listens at `address`: loopback, if that is everywhere.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Status and body of a reply, if it is one and whole.
fn taken_apart(reply: &[u8]) -> Option<(u16, &str)> {
    let text = std::str::from_utf8(reply).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    (length == Some(body.len())).then_some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_is_taken_whole_or_not_at_all() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(taken_apart(whole.as_bytes()), Some((200, "{}")));
        for broken in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
            "HTTP/1.1 2\r\nContent-Length: 2\r\n\r\n{}",
            "SSH-2.0-x\r\n\r\n",
        ] {
            assert_eq!(taken_apart(broken.as_bytes()), None, "{broken}");
        }
        assert_eq!(taken_apart(b"HTTP/1.1 \xff\r\n\r\n"), None);
    }

    #[test]
    fn node_that_listens_everywhere_is_asked_on_loopback() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(at("[::]:1"), "[::1]:1");
        assert_eq!(at("192.0.2.1:1"), "192.0.2.1:1");
    }
}
