//! Queries written down: a thread empties the queues of all cores and packs what is in them into blocks, from which it counts
//! what is seen most; the store takes them as they are, and dnstap's receivers get frames. Each of those has a thread of its own.
//! Nobody waits for anybody: what one is too slow for is left out there, and counted.

mod drain;
mod frames;
mod names;
mod outlet;
mod search;
mod store;

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ahash::RandomState;

pub use self::search::{
    Filter, Found, Look, NameFilter, ROWS_MAX, SEARCH_MAX, Stored, look, search,
};
pub use self::store::{Unusable, probe};

use self::drain::{Drain, FRAMES_BYTES, Frames, PAUSE_MIN, Packing, Way};
use self::names::Names;
use self::outlet::{Outlet, Target};
use self::store::Store;
use crate::config;
use crate::observe::log::{
    BLOCK_BYTES_MAX, Consumer, Encoder, Hitter, LogCounters, Octets, Packed, Packer, Sketch, merge,
};
use crate::policy::Published;
use crate::wire::Name;

/// Batches of frames that wait for each receiver of dnstap.
const BATCHES_WAITING: usize = 16;

/// Blocks that wait for the store, and most that it takes at a time.
const BLOCKS_WAITING: usize = 8;
const BLOCKS_TAKEN: usize = 8;

/// Pause before the store is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// How often the store looks for what is too old while nobody asks.
const LOOK: Duration = Duration::from_secs(10);

/// How long the end of a node waits for what was asked last to be written down.
const END_MAX: Duration = Duration::from_secs(3);

/// Bytes that all of this takes beside the queues of the cores, at most.
#[must_use]
pub fn bytes(query_log: &config::QueryLog, dnstap: &config::Dnstap, cores: usize) -> usize {
    /// SQLite's own, its page cache, and the blocks that are not yet full.
    const STORE_BYTES: usize = 16 << 20;
    /// A counter with a name of a common length, its places in the heap and in the table.
    const COUNTER_BYTES: usize = 256;
    /// Those that wait, are being written and have been handed back, and the one that is being filled.
    const BATCHES: usize = 2 * BATCHES_WAITING + 2;
    let blocks = STORE_BYTES + (BLOCKS_WAITING + BLOCKS_TAKEN + 2) * BLOCK_BYTES_MAX;
    let store = if query_log.path.is_some() { blocks } else { 0 };
    let queues =
        if is_on(query_log, dnstap) { query_log.queue_bytes.next_power_of_two() } else { 0 };
    let counters = Kind::ALL.len() * query_log.top * COUNTER_BYTES;
    let batches = Target::all(dnstap).len() * BATCHES * 2 * FRAMES_BYTES;
    store + batches + cores * (queues + counters)
}

/// Whether queries are written down anywhere.
#[must_use]
pub const fn is_on(query_log: &config::QueryLog, dnstap: &config::Dnstap) -> bool {
    query_log.path.is_some() || query_log.top > 0 || dnstap.is_on()
}

/// Which messages the receivers of dnstap want.
#[must_use]
pub const fn octets(dnstap: &config::Dnstap) -> Octets {
    let is_on = dnstap.is_on();
    Octets { queries: is_on && dnstap.queries, replies: is_on && dnstap.responses }
}

/// What is counted of what is seen most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Names asked for.
    Names,
    /// Clients.
    Clients,
    /// Names that lists blocked.
    Blocked,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Names, Self::Clients, Self::Blocked];
}

/// Something that was seen often of late.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Often {
    /// A name in lower case, or an address.
    pub what: String,
    /// How often, at most: recent queries weigh more.
    pub count: u64,
    /// By how much that may be too high.
    pub error: u64,
}

/// A sketch of each kind.
type Sketches = [Sketch; Kind::ALL.len()];

/// What the threads need to know.
#[derive(Debug)]
pub struct Setup {
    /// `[query_log]`.
    pub query_log: config::QueryLog,
    /// `[dnstap]`.
    pub dnstap: config::Dnstap,
    /// `node.listen`.
    pub listeners: Vec<SocketAddr>,
    /// The policy in force, for the names of groups and lists.
    pub published: Arc<Published>,
    /// The queues, by core, and what is counted of them.
    pub cores: Vec<(Consumer, Arc<LogCounters>)>,
}

/// The threads that write queries down.
#[derive(Debug)]
pub struct Recorder {
    store: Option<PathBuf>,
    sketches: Arc<Mutex<Sketches>>,
    is_counting: bool,
    is_ending: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Recorder {
    /// Opens the store and starts the threads.
    ///
    /// # Errors
    /// Words for the operator: the store is not ours, or there are no threads.
    pub fn begin(setup: Setup) -> Result<Self, BeginError> {
        let Setup { query_log, dnstap, listeners, published, cores } = setup;
        let is_ending = Arc::<AtomicBool>::default();
        let mut threads = Vec::new();
        let mut start = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name.into()).spawn(work);
            spawned.map(|thread| threads.push(thread)).map_err(BeginError::Thread)
        };
        let mut stored = None;
        if let Some(path) = &query_log.path {
            let unusable = |cause| BeginError::Store { path: path.clone(), cause };
            let store = Store::open(path, &query_log).map_err(unusable)?;
            let (sender, blocks) = sync_channel(BLOCKS_WAITING);
            let is_ending = Arc::clone(&is_ending);
            start("query-store", Box::new(move || keep(store, &blocks, &is_ending)))?;
            stored = Some(sender);
        }
        let mut ways = Vec::new();
        for target in Target::all(&dnstap) {
            let (frames, batches) = sync_channel(BATCHES_WAITING);
            let (back, spare) = sync_channel(BATCHES_WAITING);
            let is_ending = Arc::clone(&is_ending);
            let outlet = Outlet::new(target, back);
            start("dnstap", Box::new(move || outlet.run(&batches, &is_ending)))?;
            ways.push(Way { frames, spare });
        }
        // All cores' counters stand together: that errs less than as many apart.
        let counters_max = query_log.top * cores.len().max(1);
        let sketches = Arc::new(Mutex::new(Kind::ALL.map(|_| Sketch::new(counters_max))));
        let counts = (query_log.top > 0).then(|| Arc::clone(&sketches));
        let counters: Vec<_> = cores.iter().map(|(_, counters)| Arc::clone(counters)).collect();
        let frames = Frames::new(counters.clone());
        let packing = (stored.is_some() || counts.is_some()).then(|| {
            let packer = Packer::new(query_log.anonymize, RandomState::new());
            Packing::new(packer, counters, stored, counts, query_log.sample.into())
        });
        let version = concat!("heimdall-uring ", env!("CARGO_PKG_VERSION"));
        let identity = dnstap.identity.clone().unwrap_or_else(host_name);
        let drain = Drain {
            encoder: Encoder::new(&identity, version, listeners.clone(), dnstap.anonymize),
            octets: octets(&dnstap),
            names: Names::new(published, listeners),
            packing,
            ways,
            frames,
        };
        let ending = Arc::clone(&is_ending);
        start("query-log", Box::new(move || drain.run(cores, &ending)))?;
        let is_counting = query_log.top > 0;
        let (store, threads) = (query_log.path, Mutex::new(threads));
        Ok(Self { store, sketches, is_counting, is_ending, threads })
    }

    /// The `n` that were seen most of late, by all cores together, most first. Empty unless they are counted; what was seen
    /// within the last second may be missing.
    #[must_use]
    pub fn top(&self, kind: Kind, n: usize) -> Vec<Often> {
        // A copy, so that nobody waits while it is put in order.
        let copy = locked(&self.sketches)[kind as usize].clone();
        merge([&copy], n).iter().map(|hitter| often(kind, hitter)).collect()
    }

    /// Whether what is seen most is counted.
    #[must_use]
    pub const fn counts(&self) -> bool {
        self.is_counting
    }

    /// Where queries are stored, if they are: what [`search`] takes.
    #[must_use]
    pub fn store(&self) -> Option<&Path> {
        self.store.as_deref()
    }

    /// Ends the threads, once the cores are done: what waits is written, if that does not take too long.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::Release);
        let end = monotonic() + END_MAX;
        let threads = std::mem::take(&mut *locked(&self.threads));
        while monotonic() < end && threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(PAUSE_MIN);
        }
        if threads.iter().any(|thread| !thread.is_finished()) {
            tracing::warn!("query log: what was asked last is not written down");
        }
    }
}

/// Why queries cannot be written down.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The file of the config cannot be the store.
    #[error("query_log.path: {}: {cause}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: Unusable,
    },
    /// The system grants no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under the lock leaves it half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn often(kind: Kind, hitter: &Hitter) -> Often {
    let what = match kind {
        Kind::Names | Kind::Blocked => {
            Name::parse(&hitter.key).map_or_else(|_| String::new(), |name| name.to_string())
        }
        Kind::Clients => {
            let octets: [u8; 16] = hitter.key.first_chunk().copied().unwrap_or_default();
            Ipv6Addr::from(octets).to_canonical().to_string()
        }
    };
    Often { what, count: hitter.count, error: hitter.error }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "control reads the clock for its own pauses")]
fn monotonic() -> Instant {
    Instant::now()
}

/// The thread of the store: blocks that wait go into one transaction, and what is too old or too much leaves behind them.
fn keep(mut store: Store, blocks: &Receiver<Packed>, is_ending: &AtomicBool) {
    let mut is_complaining = false;
    loop {
        let (waiting, is_last) = gather(blocks);
        while let Err(trouble) = store.keep(&waiting, now_ms()) {
            if !std::mem::replace(&mut is_complaining, true) {
                tracing::warn!("query log: {trouble}; it is tried again");
            }
            if is_ending.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(RETRY);
        }
        if std::mem::take(&mut is_complaining) {
            tracing::info!("query log: queries are stored again");
        }
        if is_last {
            return;
        }
    }
}

/// Blocks to be stored together; and whether there will be no more.
fn gather(blocks: &Receiver<Packed>) -> (Vec<Packed>, bool) {
    match blocks.recv_timeout(LOOK) {
        Ok(first) => {
            let more = blocks.try_iter().take(BLOCKS_TAKEN - 1);
            (std::iter::once(first).chain(more).collect(), false)
        }
        Err(RecvTimeoutError::Timeout) => (Vec::new(), false),
        Err(RecvTimeoutError::Disconnected) => (Vec::new(), true),
    }
}

fn now_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "control reads the clock for what is too old")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
