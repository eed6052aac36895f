//! For tests: a server of lists on a loopback address, and a directory that goes away.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A directory that is removed with this value.
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    pub(super) fn create(name: &str) -> Self {
        let name = format!("heimdall-lists-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file, by a rename, and gives its path.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let (path, beside) = (self.0.join(name), self.0.join("beside"));
        std::fs::write(&beside, content).unwrap();
        std::fs::rename(beside, &path).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What stays behind lies in the system's temporary directory and harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a server sends for the head of a request.
pub(super) type Script = dyn Fn(&str, &mut dyn Write) + Send + Sync;

/// A server that answers each connection's first request.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts one that speaks in clear.
    pub(super) fn start(script: impl Fn(&str, &mut dyn Write) + Send + Sync + 'static) -> Self {
        Self::listen(None, Arc::new(script))
    }

    /// Starts one.
    pub(super) fn listen(tls: Option<Arc<ServerConfig>>, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, script, tls) = (Arc::clone(&seen), Arc::clone(&script), tls.clone());
                std::thread::spawn(move || match tls {
                    None => answer(stream, &seen, &*script),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).unwrap();
                        answer(StreamOwned::new(connection, stream), &seen, &*script);
                    }
                });
            }
        });
        Self { address, heads }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The heads of all requests.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn answer(stream: impl Read + Write, seen: &Mutex<Vec<String>>, script: &Script) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if !matches!(reader.read_line(&mut head), Ok(1..)) {
            return;
        }
    }
    seen.lock().unwrap().push(head.clone());
    script(&head, reader.get_mut());
}

/// Sends a whole response. Nobody may listen any more.
pub(super) fn respond(out: &mut dyn Write, status: &str, headers: &str, body: &[u8]) {
    let len = body.len();
    let _ = write!(
        out,
        "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n{headers}\r\n"
    );
    let _ = out.write_all(body);
    let _ = out.flush();
}
