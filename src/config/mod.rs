//! What the operator asked for, as checked, immutable sections. No I/O: text comes in, sections or errors go out.
//!
//! Each room takes its own section (`Shard::new(&config::Cache)`), never the whole config. `keys` is the one table of
//! what can be set; files, environment and flags all go through it.

mod api;
mod environment;
mod error;
mod explain;
mod forward;
mod group;
mod keys;
mod list;
mod load;
mod query_log;
mod rate;
pub mod resolv;
mod rewrite;
mod upstream;
mod value;
mod written;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use api::{Api, ApiListen, Token};
pub use environment::stray_variables;
pub use error::ConfigError;
pub use explain::Explain;
pub use forward::{Apex, Forward, ForwardZone, ROOT_VIEW, Selection};
pub use group::{DEFAULT_GROUP, Days, GROUPS_MAX, Group, Period};
pub use keys::{KEYS, Key};
pub use list::{
    Filter, LISTS_MAX, List, ListAnswer, ListKind, ListReason, ListSource, ListSyntax,
    OVERRIDES_NAME,
};
pub use load::{FILE_BYTES_MAX, File, Flag};
pub use query_log::{Dnstap, QueryLog};
pub use rate::Rate;
pub use rewrite::{Hosts, Rewrite, RewriteTarget};
pub use upstream::{Authentication, PIN_BYTES, Protocol, Upstream};
pub use value::Value;

/// Everything a node needs to know before it starts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Config {
    /// Cores, I/O backend, how long a drain may take.
    pub node: Node,
    /// Addresses and sizes of the UDP data plane.
    pub udp: Udp,
    /// Limits of the TCP listeners.
    pub tcp: Tcp,
    /// The cache shards.
    pub cache: Cache,
    /// Where the cache survives a restart.
    pub snapshot: Snapshot,
    /// Who may ask.
    pub acl: Acl,
    /// How much a client may ask.
    pub rate: Rate,
    /// Whom we ask, how long we wait.
    pub forward: Forward,
    /// What CHAOS questions learn about us.
    pub identity: Identity,
    /// Zones answered from the config itself.
    pub local: Vec<LocalZone>,
    /// Zones whose records stand in files of their own; whoever may reads them and adds the zones to `local`.
    pub local_files: Vec<LocalFile>,
    /// Names from hosts files.
    pub hosts: Hosts,
    /// Single names that mean something else.
    pub rewrites: Vec<Rewrite>,
    /// Names that never leave the node unless the operator says so.
    pub special: Special,
    /// Which addresses upstreams may give to public names.
    pub rebinding: Rebinding,
    /// What all lists have in common.
    pub filter: Filter,
    /// Names that are blocked or allowed.
    pub lists: Vec<List>,
    /// Clients for whom something else holds than for all.
    pub groups: Vec<Group>,
    /// What is stored of queries.
    pub query_log: QueryLog,
    /// Who is told of queries.
    pub dnstap: Dnstap,
    /// What is remembered of decisions.
    pub explain: Explain,
    /// What can be switched off.
    pub optimizations: Optimizations,
    /// Where an operator asks and commands the node.
    pub api: Api,
    /// How much is logged.
    pub log: Log,
}

/// Which logical CPUs get a worker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CoreSelection {
    /// One per physical core that the process may use.
    Auto,
    /// Exactly these logical CPUs, in this order, without duplicates.
    Cpus(Vec<usize>),
    /// One per physical core of this NUMA node (the OS's number).
    Numa(u32),
}

/// How datagrams cross the kernel's door.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IoBackend {
    /// Multishot `recvmsg` into provided buffers and `send` on a raw ring.
    Uring,
    /// `recvmmsg` and `sendmmsg`, with a ring only for readiness.
    Mmsg,
}

/// Which core gets a datagram.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Steering {
    /// By CPU where each network queue has its own worker, by flow elsewhere.
    #[default]
    Auto,
    /// The core on whose CPU the kernel handles it.
    Cpu,
    /// By the kernel's hash of addresses and ports.
    Flow,
    /// The core that owns the name it asks for.
    Qname,
}

impl Steering {
    /// As it is written in the config.
    #[must_use]
    pub const fn as_text(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Flow => "flow",
            Self::Qname => "qname",
        }
    }
}

/// `[node]`: the process as a whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// Which CPUs get a worker.
    pub cores: CoreSelection,
    /// Addresses served over UDP and TCP alike. Never empty.
    pub listen: Vec<SocketAddr>,
    /// I/O backend of the UDP data plane.
    pub io: IoBackend,
    /// Which core gets a datagram.
    pub steering: Steering,
    /// By name: from how uneven on, busiest core by the mean of all in percent, the hottest names are spread over all cores; zero
    /// means never.
    pub spread_above_percent: u16,
    /// How long an idle worker polls its ring before it sleeps; zero means never.
    pub spin_before_sleep: Duration,
    /// How long a drain waits for answers in flight.
    pub drain: Duration,
    /// Bytes for everything; what the parts need with [`CACHE_BYTES_DEFAULT`], if not set.
    pub memory: Option<usize>,
}

/// `[udp]`: the datagram plane of one core.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Udp {
    /// Largest reply we send over UDP, whatever the client offers, in bytes (RFC 9715 §3.2).
    pub reply_bytes_max: u16,
    /// Receive buffers per core; a power of two.
    pub receive_buffers: u16,
    /// Send buffers per core; replies beyond wait for none and are dropped and counted.
    pub send_buffers: u16,
    /// `SO_RCVBUF` and `SO_SNDBUF` asked for on each listener, in bytes.
    pub socket_buffer_bytes: usize,
}

/// `[tcp]`: limits that keep stream clients cheap (RFC 7766 §6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tcp {
    /// Open connections per listener and core; at the limit the longest idle one is closed for a newcomer.
    pub connections_max: usize,
    /// Open connections of one client address per core; more are closed at once.
    pub connections_per_client_max: usize,
    /// Queries of one connection being resolved at a time; more wait unread in the kernel.
    pub pipeline_max: usize,
    /// A connection without a complete query for this long is closed.
    pub idle_timeout: Duration,
    /// A client that takes neither a kilobyte nor all of what waits for it in this time is closed.
    pub write_timeout: Duration,
    /// A connection whose query stays without an answer for this long is given up. No key of its own: it follows
    /// `forward.deadline`, by which every query is answered.
    pub answer_timeout: Duration,
    /// Reply bytes held per connection; at the limit we stop reading from it.
    pub output_bytes_max: usize,
}

/// Bytes of the cache when neither it nor the whole node's memory is stated.
pub const CACHE_BYTES_DEFAULT: usize = 256 << 20;

/// `[cache]`: one shard per core.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cache {
    /// Bytes for all shards together, index and metadata included; what the other parts leave, if not set.
    pub bytes: Option<usize>,
    /// TTLs below are raised to this, in seconds.
    pub ttl_min: u32,
    /// TTLs above are cut to this, in seconds.
    pub ttl_max: u32,
    /// Negative answers live at most this long, in seconds (RFC 2308 §5).
    pub negative_ttl_max: u32,
    /// Failures are remembered at most this long; the first time for a second (RFC 9520 §3.2).
    pub failure_ttl_max: Duration,
    /// What is known not to exist has nothing below it (RFC 8020).
    pub nxdomain_cut: bool,
    /// How long answers past their lifetime are kept for want of better ones (RFC 8767); zero means never.
    pub stale_max: Duration,
    /// How long a client waits before it gets a stale answer (RFC 8767 §5).
    pub stale_after: Duration,
    /// Popular answers are refreshed in the last tenth of their life.
    pub prefetch: bool,
    /// Share of the memory for entries that nobody asked for twice, at the start, in percent.
    pub probation_percent: u8,
    /// Share of the memory for entries asked for most, in percent.
    pub hot_percent: u8,
    /// Accesses that make an entry hot.
    pub hot_after: u8,
    /// A file with names to resolve after the start.
    pub warm_up: Option<PathBuf>,
    /// How many questions of it are asked per second, by all cores together.
    pub warm_up_rate: u32,
}

impl Cache {
    /// [`Cache::stale_max`] in seconds.
    #[must_use]
    pub fn stale_seconds(&self) -> u32 {
        u32::try_from(self.stale_max.as_secs()).unwrap_or(u32::MAX)
    }
}

/// The snapshot keys of `[cache]`: the file from which a node starts with what it knew before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// An absolute path; without one nothing is written or read.
    pub path: Option<PathBuf>,
    /// How often it is written beside the end and on command; zero means never.
    pub interval: Duration,
}

/// `[acl]`: whose queries are answered; all others get REFUSED.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Acl {
    /// Prefixes that may ask.
    pub allow: Vec<IpNet>,
}

/// `[identity]`: answers to CHAOS TXT questions; what is not set is REFUSED.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// For `version.bind` and `version.server`.
    pub version: Option<String>,
    /// For `id.server` and `hostname.bind` (RFC 4892 §2).
    pub id: Option<String>,
}

/// `[[local]]`: a zone whose records stand in the config.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalZone {
    /// Apex of the zone, in presentation form with the final dot.
    pub zone: String,
    /// Records in zone-file syntax (RFC 1035 §5); relative names are below `zone`.
    pub records: String,
    /// Where the first line of `records` stands, for error messages: `file:line`. No number at its end says that the
    /// lines of the text are not lines of the file (it was written with escapes).
    pub place: String,
}

/// `[[local]]` with `file`: a zone whose records stand in a file of their own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalFile {
    /// Apex of the zone, as in [`LocalZone::zone`].
    pub zone: String,
    /// The file, an absolute path.
    pub path: PathBuf,
    /// Where the config names it: `file:line`.
    pub place: String,
}

impl LocalFile {
    /// The zone with `records`, the text of the file.
    #[must_use]
    pub fn with_records(self, records: String) -> LocalZone {
        let place = self.first_line();
        LocalZone { zone: self.zone, records, place }
    }

    /// Where the records begin.
    fn first_line(&self) -> String {
        format!("{}:1", self.path.display())
    }
}

/// `[special]`: which of the names that mean nothing to the world's servers are answered here. What is switched off is
/// forwarded like any other name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Special {
    /// `localhost.` and the names below: this machine (RFC 6761 §6.3).
    pub localhost: bool,
    /// `invalid.`: never exists (RFC 6761 §6.4).
    pub invalid: bool,
    /// `test.`: does not exist unless the operator makes it (RFC 6761 §6.2).
    pub test: bool,
    /// `onion.`: for Tor alone (RFC 7686 §2).
    pub onion: bool,
    /// `alt.`: not for DNS (RFC 9476 §2).
    pub alt: bool,
    /// `home.arpa.`: the home's own names (RFC 8375 §4).
    pub home_arpa: bool,
    /// `resolver.arpa.`: about whoever is asked (RFC 9462 §6.4).
    pub resolver_arpa: bool,
    /// The addresses of private, shared, link-local, loopback and documentation networks (RFC 6303 §4, RFC 7793 §2).
    pub reverse: bool,
}

impl Special {
    /// None of them.
    pub const NONE: Self = Self {
        localhost: false,
        invalid: false,
        test: false,
        onion: false,
        alt: false,
        home_arpa: false,
        resolver_arpa: false,
        reverse: false,
    };
}

impl Default for Special {
    fn default() -> Self {
        Self {
            localhost: true,
            invalid: true,
            test: true,
            onion: true,
            alt: true,
            home_arpa: true,
            resolver_arpa: true,
            reverse: true,
        }
    }
}

/// `[rebinding]`: protection from public names that lead to private addresses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rebinding {
    /// Such answers are withheld.
    pub protect: bool,
    /// Zones whose names may have any address, beside those of `[[forward]]` tables.
    pub allow: Vec<Apex>,
}

/// `[optimizations]`: what can be switched off, to compare or to be safe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Optimizations {
    /// Queries are viewed in place instead of being copied by the checking reader.
    pub zero_copy_parsing: bool,
    /// Names are folded by vectors where the processor has them.
    pub simd: bool,
    /// Answers that are asked for often go to a segment of their own.
    pub hot_cache: bool,
    /// Names are looked for in the lists' tables only where a filter says that they may be there.
    pub filter_pre_filter: bool,
}

impl Default for Optimizations {
    fn default() -> Self {
        Self { zero_copy_parsing: true, simd: true, hot_cache: true, filter_pre_filter: true }
    }
}

impl LocalZone {
    /// Where a line of `records` stands, counted from 1: `file:line`.
    #[must_use]
    pub fn place_of(&self, line: usize) -> String {
        let split = self.place.rsplit_once(':');
        match split.and_then(|(file, first)| Some((file, first.parse::<usize>().ok()?))) {
            Some((file, first)) => format!("{file}:{}", first + line.saturating_sub(1)),
            None => format!("{}, line {line}", self.place),
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogLevel {
    /// Only what stops the node.
    Error,
    /// And what an operator should mend.
    Warn,
    /// And what the node does in the large.
    Info,
    /// And single decisions.
    Debug,
}

impl LogLevel {
    /// All, from the least to the most that is logged.
    pub const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// Its word.
    #[must_use]
    pub const fn as_text(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The level of this word.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_text() == text)
    }
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object in each line.
    Json,
}

impl LogFormat {
    /// Its word.
    #[must_use]
    pub const fn as_text(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The format of this word.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Text, Self::Json].into_iter().find(|format| format.as_text() == text)
    }
}

/// `[log]`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Log {
    /// How its lines look.
    pub format: LogFormat,
    /// The least important level that is printed.
    pub level: LogLevel,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            cores: CoreSelection::Auto,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 5353))],
            io: IoBackend::Uring,
            steering: Steering::Auto,
            spread_above_percent: 125,
            spin_before_sleep: Duration::ZERO,
            drain: Duration::from_secs(2),
            memory: None,
        }
    }
}

impl Default for Udp {
    fn default() -> Self {
        Self {
            reply_bytes_max: 1232,
            receive_buffers: 1024,
            send_buffers: 1024,
            socket_buffer_bytes: 4 << 20,
        }
    }
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_client_max: 128,
            pipeline_max: 64,
            idle_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(10),
            output_bytes_max: 128 << 10,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            bytes: None,
            ttl_min: 0,
            ttl_max: 86_400,
            negative_ttl_max: 3_600,
            failure_ttl_max: Duration::from_secs(30),
            nxdomain_cut: true,
            stale_max: Duration::from_secs(86_400),
            stale_after: Duration::from_millis(1_800),
            prefetch: true,
            probation_percent: 20,
            hot_percent: 10,
            hot_after: 3,
            warm_up: None,
            warm_up_rate: 100,
        }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { path: None, interval: Duration::from_secs(600) }
    }
}

impl Default for Acl {
    /// Loopback, private, shared and link-local ranges: a fresh node is never an open resolver.
    fn default() -> Self {
        const PRIVATE: [&str; 9] = [
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
        ];
        let allow = PRIVATE.iter().map(|text| text.parse().expect("the table holds prefixes"));
        Self { allow: allow.collect() }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info }
    }
}
