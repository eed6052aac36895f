//! A small HTTP client that says exactly what a test tells it to, over TCP or a Unix socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::node::PATIENCE;

/// A reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Header fields, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn read(mut bytes: Vec<u8>) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let body = bytes.split_off(end + 4);
        let head = String::from_utf8(bytes).unwrap();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let fields = lines.filter_map(|line| line.split_once(": "));
        let headers: Vec<(String, String)> =
            fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let is_chunked =
            headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = if is_chunked { joined(&body) } else { body };
        Some(Self { status, headers, body: String::from_utf8(body).unwrap() })
    }
}

/// The content of a chunked body.
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let length = std::str::from_utf8(&body[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        content.extend_from_slice(&body[end + 2..][..length]);
        body = &body[end + 2 + length + 2..];
    }
    content
}

/// Sends `request` as it is and reads until the node closes; `None` when that was no reply.
pub(crate) fn raw(address: SocketAddr, request: &[u8]) -> Option<Reply> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    over(stream, request)
}

/// The same over any stream. What cannot be written may have been answered already.
fn over(mut stream: impl Read + Write, request: &[u8]) -> Option<Reply> {
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    // A reset, too, is an end.
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    Reply::read(bytes)
}

/// The text of a request that ends its connection.
fn request(method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        text.push_str("Host: localhost\r\n");
    }
    for header in headers {
        text.push_str(&format!("{header}\r\n"));
    }
    if method == "POST" {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text + "\r\n" + body
}

/// What the API at `address` says to a request without a body.
pub(crate) fn bare(address: SocketAddr, method: &str, path: &str, headers: &[&str]) -> Reply {
    raw(address, request(method, path, headers, "").as_bytes()).expect("a reply")
}

/// What it says to a GET.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &[&str]) -> Reply {
    bare(address, "GET", path, headers)
}

/// What it says to a POST.
pub(crate) fn post(address: SocketAddr, path: &str, headers: &[&str], body: &str) -> Reply {
    raw(address, request("POST", path, headers, body).as_bytes()).expect("a reply")
}

/// What an API at a Unix socket says.
pub(crate) fn over_socket(
    socket: &Path,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> Reply {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    over(stream, request(method, path, headers, body).as_bytes()).expect("a reply")
}
