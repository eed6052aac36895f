//! `[query_log]` and `[dnstap]`: where queries are written down.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `[query_log]`: the store that can be searched, and what all ways of writing queries down have in common.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueryLog {
    /// The SQLite file; without one nothing is stored.
    pub path: Option<PathBuf>,
    /// Older queries leave the store.
    pub retention: Duration,
    /// The oldest queries leave the store when it needs more bytes than this.
    pub bytes_max: usize,
    /// Clients are stored, and counted, by their network only.
    pub anonymize: bool,
    /// Of how many queries one is written down, anywhere.
    pub sample: u32,
    /// Counters per core for each of the names, clients and blocked names that are seen most; zero means none.
    pub top: usize,
    /// Bytes per core for queries that wait to be written down.
    pub queue_bytes: usize,
}

/// `[dnstap]`: queries for other programs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dnstap {
    /// A Unix socket to connect to.
    pub socket: Option<PathBuf>,
    /// An address to connect to over TCP.
    pub tcp: Option<SocketAddr>,
    /// A file to write.
    pub file: Option<PathBuf>,
    /// What the node calls itself; its host's name if not set.
    pub identity: Option<String>,
    /// Queries are told.
    pub queries: bool,
    /// Replies are told.
    pub responses: bool,
    /// Clients are told by their network only.
    pub anonymize: bool,
}

impl Dnstap {
    /// Whether anybody is told.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        let is_taken = self.socket.is_some() || self.tcp.is_some() || self.file.is_some();
        is_taken && (self.queries || self.responses)
    }
}

impl Default for QueryLog {
    fn default() -> Self {
        Self {
            path: None,
            retention: Duration::from_secs(168 * 3_600),
            bytes_max: 1 << 30,
            anonymize: false,
            sample: 1,
            top: 0,
            queue_bytes: 4 << 20,
        }
    }
}

impl Default for Dnstap {
    fn default() -> Self {
        Self {
            socket: None,
            tcp: None,
            file: None,
            identity: None,
            queries: true,
            responses: true,
            anonymize: false,
        }
    }
}
