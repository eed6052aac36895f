//! An upstream that speaks DNS over TLS (RFC 7858), and ends its connections as it is told.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::certificates::Certified;
use crate::client::framed;
use crate::message;
use crate::ports;

/// How often the server's threads look whether it is over.
const TICK: Duration = Duration::from_millis(10);

/// How long a server that is about to reset waits for a query that it leaves unread.
const MORE_QUERIES_WAIT: Duration = Duration::from_millis(100);

/// When a connection ends, the first being 0. By default when the client closes it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Conduct {
    /// Tidily, so long after the last query.
    pub(crate) idle: Option<Duration>,
    /// By a reset after so many answers, with queries unread.
    pub(crate) reset_after: Option<usize>,
    /// How many connections are reset; all others last.
    pub(crate) resets: usize,
}

/// What the server has seen.
#[derive(Debug, Default)]
struct Seen {
    queries: Mutex<Vec<Vec<u8>>>,
    accepted: AtomicUsize,
    ended: AtomicUsize,
    is_over: AtomicBool,
}

/// The server; its threads end when it is dropped.
pub(crate) struct Dot {
    pub(crate) address: SocketAddr,
    config: Arc<ServerConfig>,
    conduct: Conduct,
    seen: Arc<Seen>,
    listening: Option<JoinHandle<()>>,
}

impl Dot {
    /// Serves an address of its own.
    pub(crate) fn start(certified: &Certified) -> Self {
        Self::start_at(ports::own(), certified, Conduct::default())
    }

    pub(crate) fn start_at(address: SocketAddr, certified: &Certified, conduct: Conduct) -> Self {
        let (config, seen) = (certified.server_config(), Arc::default());
        let mut server = Self { address, config, conduct, seen, listening: None };
        server.listen();
        server
    }

    fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (config, conduct) = (Arc::clone(&self.config), self.conduct);
        let seen = Arc::clone(&self.seen);
        self.listening =
            Some(std::thread::spawn(move || serve(&listener, &config, conduct, &seen)));
    }

    /// Ends all connections and takes no more.
    pub(crate) fn stop(&mut self) {
        self.seen.is_over.store(true, Ordering::Relaxed);
        if let Some(listening) = self.listening.take() {
            listening.join().unwrap();
        }
    }

    /// Serves again, with the same sessions, after [`Self::stop`].
    pub(crate) fn resume(&mut self) {
        self.seen.is_over.store(false, Ordering::Relaxed);
        self.listen();
    }

    /// All queries so far.
    pub(crate) fn queries(&self) -> Vec<Vec<u8>> {
        self.seen.queries.lock().unwrap().clone()
    }

    /// How many queries came so far.
    pub(crate) fn count(&self) -> usize {
        self.seen.queries.lock().unwrap().len()
    }

    /// Connections so far, of whatever end.
    pub(crate) fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::Relaxed)
    }

    /// Of these, how many are over.
    pub(crate) fn ended(&self) -> usize {
        self.seen.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Dot {
    fn drop(&mut self) {
        self.seen.is_over.store(true, Ordering::Relaxed);
    }
}

fn serve(listener: &TcpListener, config: &Arc<ServerConfig>, conduct: Conduct, seen: &Arc<Seen>) {
    let mut conversations = Vec::new();
    while !seen.is_over.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(TICK);
            continue;
        };
        let mut conduct = conduct;
        if seen.accepted.fetch_add(1, Ordering::Relaxed) >= conduct.resets {
            conduct.reset_after = None;
        }
        let (config, seen) = (Arc::clone(config), Arc::clone(seen));
        conversations.push(std::thread::spawn(move || {
            converse(stream, config, conduct, &seen);
            seen.ended.fetch_add(1, Ordering::Relaxed);
        }));
    }
    conversations.into_iter().for_each(|conversation| conversation.join().unwrap());
}

fn converse(stream: TcpStream, config: Arc<ServerConfig>, conduct: Conduct, seen: &Seen) {
    stream.set_nonblocking(false).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(TICK)).unwrap();
    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let (mut unread, mut chunk) = (Vec::new(), [0; 4096]);
    let (mut answered, mut heard) = (0, Instant::now());
    while !seen.is_over.load(Ordering::Relaxed) {
        match tls.read(&mut chunk) {
            Ok(1..) if tls.conn.alpn_protocol() != Some(b"dot") => panic!("no DNS over TLS"),
            Ok(0) => return,
            Ok(len) => unread.extend(&chunk[..len]),
            Err(error) if is_timeout(error.kind()) => {
                if conduct.idle.is_some_and(|idle| answered > 0 && heard.elapsed() >= idle) {
                    break;
                }
                continue;
            }
            // The client will have none of it.
            Err(_) => return,
        }
        heard = Instant::now();
        while let Some(query) = take_message(&mut unread) {
            let answer = message::address(&query, 300, [192, 0, 2, 1]);
            seen.queries.lock().unwrap().push(query);
            if conduct.reset_after == Some(answered) {
                return reset(tls.sock);
            }
            // The client may be gone already.
            let _ = tls.write_all(&framed(&answer));
            answered += 1;
        }
    }
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The first whole message of `unread`, which leaves it.
fn take_message(unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = 2 + usize::from(u16::from_be_bytes(*unread.first_chunk()?));
    (unread.len() >= len).then(|| unread.drain(..len).skip(2).collect())
}

/// Closes a socket in whose buffer there is something: the kernel then resets the connection.
fn reset(socket: TcpStream) {
    socket.set_read_timeout(Some(MORE_QUERIES_WAIT)).unwrap();
    // Without another query it is just an untidy end.
    let _ = socket.peek(&mut [0]);
}
