//! Queries written down: a thread empties the queues of all cores, counts what is seen most, and hands what is left to the
//! store and to the receivers of dnstap, each of which has a thread of its own. Nobody waits for anybody: what one is too
//! slow for is left out there, and counted.

mod frames;
mod names;
mod outlet;
mod search;
mod store;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use self::search::{Filter, Found, NameFilter, ROWS_MAX, SEARCH_MAX, Stored, search};
pub use self::store::{Unusable, probe};

use self::names::Names;
use self::outlet::{Outlet, Target};
use self::store::{SHRINK_STEP, Store};
use crate::config;
use crate::observe::log::{
    Consumer, Encoder, Entry, Hitter, How, LogCounters, Octets, Sketch, Told, anonymous, merge,
};
use crate::policy::Published;
use crate::wire::{Name, NameBuf};

/// How often the queues are looked at: while there is much to do, and at least.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(40);

/// Bytes of a batch from which on it is handed on.
const BATCH_BYTES: usize = 64 << 10;

/// Batches that wait for the store, and for each receiver of dnstap.
const BATCHES_WAITING: usize = 64;

/// How long queries wait to be stored together, and how many batches at most.
const COMMIT: Duration = Duration::from_millis(500);
const COMMIT_BATCHES_MAX: usize = 32;

/// Pause before the store is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// How often counts of what is seen most are halved.
const AGING: Duration = Duration::from_secs(600);

/// How long the end of a node waits for what was asked last to be written down.
const END_MAX: Duration = Duration::from_secs(3);

/// Bytes that all of this takes beside the queues of the cores, at most.
#[must_use]
pub fn bytes(query_log: &config::QueryLog, dnstap: &config::Dnstap, cores: usize) -> usize {
    /// SQLite's own, its page cache, and the dictionaries.
    const STORE_BYTES: usize = 24 << 20;
    /// A counter with a name of a common length, its places in the heap and in the table.
    const COUNTER_BYTES: usize = 256;
    let waiting = (BATCHES_WAITING + COMMIT_BATCHES_MAX) * 2 * BATCH_BYTES;
    let store = if query_log.path.is_some() { STORE_BYTES + waiting } else { 0 };
    let queues =
        if is_on(query_log, dnstap) { query_log.queue_bytes.next_power_of_two() } else { 0 };
    let counters = Kind::ALL.len() * query_log.top * COUNTER_BYTES;
    store + Target::all(dnstap).len() * waiting + cores * (queues + counters)
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

/// The sketches of one core.
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
    sketches: Arc<Vec<Mutex<Sketches>>>,
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
        let own_names = || Names::new(Arc::clone(&published), listeners.clone());
        let mut stored = None;
        if let Some(path) = &query_log.path {
            let unusable = |cause| BeginError::Store { path: path.clone(), cause };
            let store = Store::open(path, &query_log).map_err(unusable)?;
            let (sender, batches) = sync_channel(BATCHES_WAITING);
            let (names, is_ending) = (own_names(), Arc::clone(&is_ending));
            start("query-store", Box::new(move || keep(store, names, &batches, &is_ending)))?;
            stored = Some(sender);
        }
        let mut outlets = Vec::new();
        for target in Target::all(&dnstap) {
            let (sender, batches) = sync_channel(BATCHES_WAITING);
            let is_ending = Arc::clone(&is_ending);
            start("dnstap", Box::new(move || Outlet::new(target).run(&batches, &is_ending)))?;
            outlets.push(sender);
        }
        let fresh = || Mutex::new(Kind::ALL.map(|_| Sketch::new(query_log.top)));
        let sketches = Arc::new(cores.iter().map(|_| fresh()).collect::<Vec<_>>());
        let version = concat!("heimdall-uring ", env!("CARGO_PKG_VERSION"));
        let identity = dnstap.identity.clone().unwrap_or_else(host_name);
        let drain = Drain {
            encoder: Encoder::new(&identity, version, listeners.clone(), dnstap.anonymize),
            octets: octets(&dnstap),
            names: own_names(),
            sample: query_log.sample.into(),
            counts: (query_log.top > 0).then(|| Arc::clone(&sketches)),
            is_anonymous: query_log.anonymize,
            stored,
            outlets,
            frame: Vec::new(),
        };
        let ending = Arc::clone(&is_ending);
        start("query-log", Box::new(move || drain.run(cores, &ending)))?;
        let is_counting = query_log.top > 0;
        let (store, threads) = (query_log.path, Mutex::new(threads));
        Ok(Self { store, sketches, is_counting, is_ending, threads })
    }

    /// The `n` that were seen most of late, by all cores together, most first. Empty unless they are counted.
    #[must_use]
    pub fn top(&self, kind: Kind, n: usize) -> Vec<Often> {
        let copies: Vec<Sketch> =
            self.sketches.iter().map(|core| locked(core)[kind as usize].clone()).collect();
        merge(&copies, n).iter().map(|hitter| often(kind, hitter)).collect()
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

/// The thread that empties the queues.
struct Drain {
    encoder: Encoder,
    octets: Octets,
    names: Names,
    /// How many queries each one that is told stands for.
    sample: u64,
    counts: Option<Arc<Vec<Mutex<Sketches>>>>,
    is_anonymous: bool,
    stored: Option<SyncSender<Vec<u8>>>,
    outlets: Vec<SyncSender<Vec<u8>>>,
    frame: Vec<u8>,
}

/// What has been taken out of one core's queue, and goes on as a whole.
#[derive(Default)]
struct Load {
    bare: Vec<u8>,
    entries: u64,
    frames: Vec<u8>,
    frame_count: u64,
}

impl Drain {
    fn run(mut self, mut cores: Vec<(Consumer, Arc<LogCounters>)>, is_ending: &AtomicBool) {
        let (mut pause, mut aged) = (PAUSE_MAX, monotonic());
        loop {
            // Seen before the queues are looked at: what is in them then is the rest.
            let is_last = is_ending.load(Ordering::Acquire);
            self.names.take_up();
            let mut is_busy = false;
            for (number, (consumer, counters)) in cores.iter_mut().enumerate() {
                let waiting = consumer.waiting_bytes();
                counters.queue_bytes.set(waiting as u64);
                is_busy |= waiting > consumer.capacity_bytes() / 16;
                self.empty(number, consumer, counters);
            }
            if is_last {
                return;
            }
            if monotonic() - aged >= AGING {
                aged = monotonic();
                self.age();
            }
            pause = if is_busy { PAUSE_MIN } else { (2 * pause).min(PAUSE_MAX) };
            std::thread::sleep(pause);
        }
    }

    fn age(&self) {
        for core in self.counts.iter().flat_map(|counts| counts.iter()) {
            locked(core).iter_mut().for_each(Sketch::age);
        }
    }

    /// Takes all out of the queue of core `number` that is in it now.
    fn empty(&mut self, number: usize, consumer: &mut Consumer, counters: &LogCounters) {
        let counts = self.counts.clone();
        let mut sketches = counts.as_ref().map(|counts| locked(&counts[number]));
        let mut load = Load::default();
        consumer.drain(|record| {
            let Some(entry) = Entry::read(record) else { return };
            counters.records.bump();
            if let Some(sketches) = &mut sketches {
                self.count(&entry, sketches);
            }
            self.load(&entry, &mut load);
            if load.bare.len() >= BATCH_BYTES || load.frames.len() >= BATCH_BYTES {
                self.hand_on(std::mem::take(&mut load), counters);
            }
        });
        self.hand_on(load, counters);
    }

    fn count(&self, entry: &Entry<'_>, sketches: &mut Sketches) {
        let Ok(name) = Name::parse(entry.qname) else { return };
        let mut name = NameBuf::new(name);
        name.make_lower();
        let name = name.as_name().as_bytes();
        let address = if self.is_anonymous { anonymous(entry.address) } else { entry.address };
        let client = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let [names, clients, blocked] = sketches;
        names.add(name, self.sample);
        clients.add(&client.octets(), self.sample);
        if entry.how == How::Blocked {
            blocked.add(name, self.sample);
        }
    }

    fn load(&mut self, entry: &Entry<'_>, load: &mut Load) {
        if self.stored.is_some() {
            entry.append_bare(&mut load.bare);
            load.entries += 1;
        }
        if self.outlets.is_empty() {
            return;
        }
        let list = entry.list.map(|list| self.names.list(list));
        let wanted = [
            (Told::Query, self.octets.queries),
            (Told::Response, self.octets.replies && entry.rcode.is_some()),
        ];
        for (told, _) in wanted.into_iter().filter(|(_, is_wanted)| *is_wanted) {
            self.encoder.encode(told, entry, list.as_deref(), &mut self.frame);
            frames::append(&self.frame, &mut load.frames);
            load.frame_count += 1;
        }
    }

    fn hand_on(&self, load: Load, counters: &LogCounters) {
        if load.entries > 0
            && let Some(stored) = &self.stored
            && stored.try_send(load.bare).is_err()
        {
            counters.store_dropped.add(load.entries);
        }
        if load.frame_count > 0 {
            for outlet in &self.outlets {
                if outlet.try_send(load.frames.clone()).is_err() {
                    counters.dnstap_dropped.add(load.frame_count);
                }
            }
        }
    }
}

/// The thread of the store: many batches in one transaction, and what is too old or too much leaves between them.
fn keep(mut store: Store, mut names: Names, batches: &Receiver<Vec<u8>>, is_ending: &AtomicBool) {
    let mut is_complaining = false;
    loop {
        let (pending, is_last) = gather(batches);
        names.take_up();
        while let Err(error) = tidy(&mut store, &pending, &names) {
            if !std::mem::replace(&mut is_complaining, true) {
                tracing::warn!("query log: {error}; it is tried again");
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

/// Batches to be stored together; and whether there will be no more.
fn gather(batches: &Receiver<Vec<u8>>) -> (Vec<Vec<u8>>, bool) {
    let mut pending = Vec::new();
    let end = monotonic() + COMMIT;
    while pending.len() < COMMIT_BATCHES_MAX {
        match batches.recv_timeout(end.saturating_duration_since(monotonic())) {
            Ok(batch) => pending.push(batch),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return (pending, true),
        }
    }
    (pending, false)
}

fn tidy(store: &mut Store, pending: &[Vec<u8>], names: &Names) -> rusqlite::Result<()> {
    if !pending.is_empty() {
        store.write(pending, names)?;
    }
    #[expect(clippy::disallowed_methods, reason = "control reads the clock for what is too old")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    // More may leave than has come, so that there is an end to it.
    let written: usize = pending.iter().map(Vec::len).sum();
    let steps = 2 + 2 * written / (48 * SHRINK_STEP);
    for _ in 0..steps {
        if !store.shrink(now_ms)? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
