//! The HTTP API: everything that an operator sees of a node that runs, and the few things that may be commanded. One thread of
//! its own, which no core waits for. What comes in is as hostile as a datagram: bounded in size, time and number.

mod actions;
mod blocking;
mod cache;
mod connection;
mod credentials;
mod explain;
mod guard;
mod listen;
mod names;
mod openapi;
mod page;
mod parameters;
mod queries;
mod rates;
mod reply;
mod routes;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, io};

use serde_json::Value;
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

pub use self::credentials::{Credentials, Papers, token_of};
use self::guard::Guard;
use self::listen::Listening;
use self::page::Page;
use self::queries::Most;
use self::rates::Rates;
pub use self::routes::NAMES_MAX;
use super::desk::Desk;
use super::log::Recorder;
use super::switches::{self, Switchboard};
use crate::config::{self, ApiListen, LogLevel};
use crate::observe::{Counter, Exposition, Kind, ListCounters, ServingCounters};
use crate::time::CacheTime;
use crate::wire::NameBuf;

/// What one connection takes beside its reply: request, body, TLS.
const CONNECTION_BYTES: usize = 112 << 10;

/// The longest reply, which is all counters: its text for one core, with room for some upstreams.
const CORE_TEXT_BYTES: usize = 20 << 10;

/// Bytes of memory that the API of a node with so many cores takes at most.
#[must_use]
pub fn bytes_max(section: &config::Api, cores: usize) -> usize {
    match section.listen {
        ApiListen::Off => 0,
        ApiListen::Tcp(_) | ApiListen::Unix(_) => {
            connection::CONNECTIONS_MAX * (CONNECTION_BYTES + cores * CORE_TEXT_BYTES)
                + rates::bytes_max(cores)
                + switches::BYTES_MAX
        }
    }
}

/// Why there is no API.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The address or the socket cannot be had.
    #[error("api.listen: cannot listen on {place}: {cause}")]
    Listen {
        /// Where.
        place: String,
        /// What the system says.
        cause: io::Error,
    },
    /// The token cannot be read.
    #[error("api.token_file: {path}: {cause}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// TLS cannot be offered.
    #[error("{key}: {path}: {cause}")]
    Tls {
        /// Which key of the config.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The system grants no thread.
    #[error("api: no thread to serve it: {0}")]
    Thread(io::Error),
}

impl ApiError {
    /// Whether somebody else has the place.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Listen { cause, .. } if cause.kind() == io::ErrorKind::AddrInUse)
    }
}

/// What a node is, from the start or a reload to the next reload.
#[derive(Clone, Debug)]
pub struct About {
    /// What each core is.
    pub cores: Vec<AboutCore>,
    /// Where clients ask.
    pub listen: Vec<String>,
    /// How the memory is split.
    pub memory: String,
    /// Bytes that the caches of all cores may take together.
    pub cache_bytes_max: usize,
    /// How datagrams cross the kernel's door, and what it could not do as asked.
    pub io: &'static str,
    /// What the kernel refused and the node does without.
    pub fallbacks: Vec<String>,
    /// What can be switched off, and whether it is on.
    pub optimizations: Vec<(&'static str, bool)>,
    /// The config in force, section by section, in words.
    pub config: Vec<(&'static str, String)>,
    /// The same as a file that would be read again, without secrets.
    pub toml: String,
    /// The names of the groups of clients.
    pub groups: Vec<String>,
}

/// How datagrams find their cores.
#[derive(Clone, Debug)]
pub struct Steered {
    /// In one word: `cpu`, `flow` or `qname`.
    pub mode: &'static str,
    /// Why, where that does not stand in the config.
    pub why: Option<String>,
    /// How many names are too hot for one core and go to all. Which, the log tells: names are about people, and this is not.
    pub spread: usize,
}

/// Where datagrams for a name go, where each name has its core.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// To this one.
    Core(usize),
    /// To all: the name is too hot for one.
    All,
}

impl Owner {
    /// What two members of a reply say of it: the core, and whether the name is spread over all.
    const fn told(owner: Option<Self>) -> (Option<usize>, bool) {
        match owner {
            Some(Self::Core(core)) => (Some(core), false),
            Some(Self::All) => (None, true),
            None => (None, false),
        }
    }
}

/// What a reload has come to: a report, or the mistake in the config for which nothing has changed.
pub type Reloaded = Result<Value, String>;

/// What one core is.
#[derive(Clone, Copy, Debug)]
pub struct AboutCore {
    /// The logical CPU.
    pub cpu: usize,
    /// The NUMA node, if the machine tells.
    pub numa: Option<u32>,
}

/// What has come of asking one upstream since the start.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Its name, as in the config.
    pub upstream: String,
    /// Answers that were of use.
    pub useful: u64,
    /// Useless answers, and attempts to reach it that failed.
    pub failed: u64,
    /// Attempts that were waited for in vain.
    pub late: u64,
    /// Queries over TCP or TLS.
    pub stream_queries: u64,
    /// Of these, on a connection that an earlier one had opened.
    pub stream_queries_reusing: u64,
    /// Connections made.
    pub streams_opened: u64,
}

/// The node as the API sees it. No method waits for a core.
pub trait Node: Send + Sync + 'static {
    /// What it is now.
    fn about(&self) -> Arc<About>;
    /// What the cores count of their serving, in their order.
    fn serving(&self) -> Vec<&ServingCounters>;
    /// How datagrams find their cores now.
    fn steering(&self) -> Steered;
    /// Which core datagrams for `name` go to, where that depends on the name.
    fn owner(&self, name: &NameBuf) -> Option<Owner>;
    /// Datagrams that the kernel dropped before each core saw them.
    fn kernel_drops(&self) -> Vec<u64>;
    /// What has come of asking each upstream, all cores together.
    fn upstream_tallies(&self) -> Vec<Tally>;
    /// Writes all counters of the node.
    fn expose(&self, out: &mut Exposition);
    /// Where requests to each core are handed in.
    fn desks(&self) -> &[Desk];
    /// The time on the cache clock.
    fn now(&self) -> CacheTime;
    /// What is switched by hand.
    fn switchboard(&self) -> &Switchboard;
    /// Whether local data (zones, hosts files, rewrites, special names) answer for the addresses of `name`: lists and overrides are not
    /// asked then.
    fn holds(&self, name: &NameBuf) -> bool;
    /// The lists of the config in force, and what is counted of each, once it is kept.
    fn lists(&self) -> Vec<(config::List, Option<Arc<ListCounters>>)>;
    /// Has the list with this name looked at, or all of them.
    fn refresh_lists(&self, one: Option<&str>);
    /// What writes queries down, if anything does.
    fn recorder(&self) -> Option<&Recorder>;
    /// Has a snapshot written; `false` when the config names no file for it.
    fn snapshot(&self) -> bool;
    /// Has the config read anew, and told what came of it; `false` when a reload waits already.
    fn reload(&self, back: oneshot::Sender<Reloaded>) -> bool;
    /// How much is logged now.
    fn log_level(&self) -> LogLevel;
    /// Changes how much is logged.
    fn set_log_level(&self, level: LogLevel);
}

/// The API, listening but not yet serving.
pub struct Api {
    runtime: Runtime,
    listening: Listening,
    guard: Guard,
    credentials: Credentials,
    page: Option<Page>,
    counters: Arc<ApiCounters>,
    served: Served,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("listening", &self.listening).finish_non_exhaustive()
    }
}

/// What the thread that serves shares with the tasks of its connections.
struct Shared {
    node: Arc<dyn Node>,
    guard: Guard,
    /// The dashboard, where it is wanted.
    page: Option<Page>,
    counters: Arc<ApiCounters>,
    rates: Rates,
    since: Instant,
    /// One dump at a time.
    dumping: Arc<Semaphore>,
    /// One change of what is switched by hand at a time.
    switching: Arc<Semaphore>,
    /// One question explained at a time: each takes every core a while.
    explaining: Semaphore,
    /// So many searches of the query log at a time.
    searching: Arc<Semaphore>,
    /// What is seen most, as it was told last.
    most: Most,
}

/// What the API counts of itself. Its thread alone writes.
#[derive(Debug, Default)]
pub struct ApiCounters {
    /// Replies by their first digit: 2xx, 4xx, 5xx.
    replies: [Counter; 3],
    /// Connections closed at once for want of room.
    refused: Counter,
}

impl ApiCounters {
    fn note(&self, status: u16) {
        let place = match status {
            ..400 => 0,
            400..500 => 1,
            _ => 2,
        };
        self.replies[place].bump();
    }

    /// Writes all counters.
    pub fn expose(&self, out: &mut Exposition) {
        for (code, count) in ["2xx", "4xx", "5xx"].into_iter().zip(&self.replies) {
            let (name, help) = ("api_requests_total", "Requests to the API, by the reply's status");
            out.sample(Kind::Counter, name, help, &[("code", code)], count.value());
        }
        let (name, help) = ("api_connections_refused_total", "Connections to the API without room");
        out.sample(Kind::Counter, name, help, &[], self.refused.value());
    }
}

impl Api {
    /// Reads token and certificate and listens; `None` when that is off.
    ///
    /// # Errors
    /// [`ApiError`], with the key at fault.
    pub fn open(section: &config::Api) -> Result<Option<Self>, ApiError> {
        if section.listen == ApiListen::Off {
            return Ok(None);
        }
        let credentials = Credentials::read(section)?;
        let guard = Guard::new(credentials.clone(), &section.listen);
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(ApiError::Thread)?;
        let entered = runtime.enter();
        let listening = Listening::open(&section.listen)
            .map_err(|cause| ApiError::Listen { place: section.listen.to_string(), cause })?;
        drop(entered);
        let served = Served { socket: listening.socket_path() };
        let page = section.page.then(Page::new);
        Ok(Some(Self {
            runtime,
            listening,
            guard,
            credentials,
            page,
            counters: Arc::default(),
            served,
        }))
    }

    /// What requests are checked by, and what shows that it is this node; shared, so that it can be exchanged.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// What it counts of itself.
    #[must_use]
    pub fn counters(&self) -> Arc<ApiCounters> {
        Arc::clone(&self.counters)
    }

    /// Serves `node` on a thread of its own for as long as the process lives, or until `Served` goes.
    ///
    /// # Errors
    /// [`ApiError::Thread`].
    pub fn serve(self, node: Arc<dyn Node>) -> Result<Served, ApiError> {
        let Self { runtime, listening, guard, credentials, page, counters, served } = self;
        let shared = Arc::new(Shared {
            node,
            guard,
            page,
            counters,
            rates: Rates::default(),
            since: Instant::now(),
            dumping: Arc::new(Semaphore::new(1)),
            switching: Arc::new(Semaphore::new(1)),
            explaining: Semaphore::new(1),
            searching: Arc::new(Semaphore::new(queries::SEARCHES_MAX)),
            most: Most::default(),
        });
        let keeper = Arc::clone(&shared);
        let run = move || {
            runtime.spawn(async move { keeper.rates.keep(&*keeper.node).await });
            runtime.block_on(connection::accept_all(&listening, &credentials, &shared));
        };
        let thread = std::thread::Builder::new().name("api".into());
        thread.spawn(run).map_err(ApiError::Thread)?;
        Ok(served)
    }
}

/// An API that has a place; its socket file goes with this.
#[derive(Debug)]
pub struct Served {
    socket: Option<PathBuf>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(path) = &self.socket {
            // Whoever removed it before was right.
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether an API could be had, without taking its address; what an operator should know otherwise.
///
/// # Errors
/// [`ApiError`], as of [`Api::open`].
pub fn check(section: &config::Api) -> Result<Option<String>, ApiError> {
    Credentials::read(section)?;
    let in_use = |cause: &io::Error| cause.kind() == io::ErrorKind::AddrInUse;
    match listen::probe(&section.listen) {
        Err(cause) if in_use(&cause) => Ok(Some(format!(
            "api.listen: {} is in use: a node could not start while its present user runs",
            section.listen
        ))),
        Err(cause) => Err(ApiError::Listen { place: section.listen.to_string(), cause }),
        Ok(()) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("heimdall-api-{}-{name}", std::process::id()))
    }

    #[test]
    fn api_that_never_served_leaves_no_socket() {
        let path = place("socket");
        let listen = ApiListen::Unix(path.clone());
        let api = Api::open(&config::Api { listen, ..config::Api::default() }).unwrap();
        assert!(path.exists());
        drop(api);
        assert!(!path.exists());
        let off = config::Api { listen: ApiListen::Off, ..config::Api::default() };
        assert!(Api::open(&off).unwrap().is_none() && bytes_max(&off, 8) == 0);
    }

    #[test]
    fn token_is_one_line_of_its_file_and_nothing_else() {
        let path = place("token");
        let section = config::Api { token_file: Some(path.clone()), ..config::Api::default() };
        for (text, is_token) in [
            ("0123456789abcdef\n", true),
            ("  0123456789abcdef  \r\n", true),
            ("", false),
            ("short\n", false),
            ("0123456789abcdef\n0123456789abcdef\n", false),
            ("0123456789abcd\u{e9}f", false),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(token_of(&section).is_ok(), is_token, "{text:?}");
        }
        fs::write(&path, "x".repeat(10_000)).unwrap();
        assert!(token_of(&section).is_err(), "too long for a token");
        fs::remove_file(&path).unwrap();
        assert!(token_of(&section).unwrap_err().to_string().starts_with("api.token_file: "));
    }
}
