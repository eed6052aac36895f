//! How the cache survives a restart: all cores read their shares before the first answer, and walk their shards for the
//! writer while they serve. The data plane never waits for the file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use glommio::timer::Timer;

use super::NodeError;
use super::steering::Owners;
use super::worker::Worker;
use crate::cache::snapshot::{BLOCK_BYTES_MAX, Block, Step};
use crate::cache::{Origins, Shard};
use crate::config;
use crate::control::snapshot::{Content, Found, LAST_ROUND, Piece, Writer, seconds};
use crate::observe::SnapshotCounters;
use crate::time::{CacheTime, Monotonic};
use crate::upstream::MonotonicClock;

/// Blocks per core that may wait for the disk.
const BLOCKS_WAITING: usize = 4;

/// Bytes per core while a snapshot is written: the blocks that wait and the one being filled.
pub(super) const BYTES: usize = (BLOCKS_WAITING + 1) * BLOCK_BYTES_MAX;

/// How often a worker looks whether a snapshot is asked for.
const LOOK: Duration = Duration::from_secs(1);

/// How long a worker that serves lets others have the core after each step of its walk, which takes some fifty
/// microseconds (benches/snapshot.rs).
const STEP_PAUSE: Duration = Duration::from_micros(200);

/// Steps between two pauses once nobody is served any more.
const STEPS_LAST: u32 = 64;

/// How long a worker waits for the disk before it tries again to hand a block over.
const DISK_PAUSE: Duration = Duration::from_millis(2);

/// Time that a node gets beyond its drain to write the last snapshot.
pub(super) const LAST_WRITE_MAX: Duration = Duration::from_secs(20);

/// What the main thread and all workers share about the file.
pub(super) struct Snapshots {
    path: PathBuf,
    interval: Duration,
    /// Whose answers the next file holds.
    origins: Arc<Mutex<Origins>>,
    cores: usize,
    /// Until all cores have read their shares.
    found: Mutex<Option<Arc<Found>>>,
    reading: Reading,
    pieces: SyncSender<Piece>,
    /// The round that is asked for.
    asked: AtomicU64,
    /// The newest round that a core has begun, and when the first did.
    begun: Mutex<(u64, CacheTime)>,
    /// The round that is over.
    settled: Arc<AtomicU64>,
    /// When a round was asked for last, in nanoseconds of the process.
    asked_at: AtomicU64,
    counters: Arc<SnapshotCounters>,
}

/// The common fate of all shares: one that cannot be trusted spoils the others.
struct Reading {
    all_read: Barrier,
    problem: OnceLock<String>,
    kept: AtomicU64,
    untimely: AtomicU64,
    strayed: AtomicU64,
    crowded: AtomicU64,
}

impl Snapshots {
    /// Finds the snapshot to start with, if there is one, and starts the thread that writes the next ones, which calls
    /// `when_over` after the last.
    ///
    /// `None` without a path.
    ///
    /// # Errors
    /// [`NodeError::System`] without a thread.
    pub(super) fn begin(
        section: &config::Snapshot,
        cache: &config::Cache,
        forward: &config::Forward,
        cores: usize,
        when_over: impl FnOnce() + Send + 'static,
    ) -> Result<Option<Self>, NodeError> {
        let Some(path) = section.path.clone() else { return Ok(None) };
        let origins = Arc::new(Mutex::new(Origins::new(&forward.zones)));
        let known = Origins::new(&forward.zones);
        let found = Found::open(&path, cache, &known).unwrap_or_else(|unusable| {
            ignore(&path, &unusable.to_string());
            None
        });
        let (pieces, received) = sync_channel(BLOCKS_WAITING * cores);
        let (counters, settled) = (Arc::<SnapshotCounters>::default(), Arc::default());
        let sections = u32::try_from(cores).unwrap_or(u32::MAX);
        let writer = Writer::new(
            path.clone(),
            sections,
            Arc::clone(&origins),
            Arc::clone(&counters),
            Arc::clone(&settled),
        );
        let thread = std::thread::Builder::new().name("snapshot".into());
        let spawned = thread.spawn(move || {
            writer.run(&received);
            when_over();
        });
        spawned.map_err(|cause| NodeError::System { what: "cannot start a thread", cause })?;
        let reading = Reading {
            all_read: Barrier::new(cores),
            problem: OnceLock::new(),
            kept: AtomicU64::new(0),
            untimely: AtomicU64::new(0),
            strayed: AtomicU64::new(0),
            crowded: AtomicU64::new(0),
        };
        Ok(Some(Self {
            path,
            interval: section.interval,
            origins,
            cores,
            found: Mutex::new(found.map(Arc::new)),
            reading,
            pieces,
            asked: AtomicU64::new(0),
            begun: Mutex::default(),
            settled,
            asked_at: AtomicU64::new(0),
            counters,
        }))
    }

    /// From the next file on answers come from the upstreams of `forward`.
    pub(super) fn adopt(&self, forward: &config::Forward) {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        *origins = Origins::new(&forward.zones);
    }

    /// What the writer counts.
    pub(super) fn counters(&self) -> Arc<SnapshotCounters> {
        Arc::clone(&self.counters)
    }

    /// Reads the share of `core` into the shard of `worker`, and waits until all cores have read theirs.
    ///
    /// Where names have owners, that is what lies under its own, in all shares.
    pub(super) fn restore(
        &self,
        core: usize,
        worker: &Worker,
        owners: &Owners,
        clock: MonotonicClock,
    ) {
        let Some(found) = self.locked().as_ref().map(Arc::clone) else { return };
        let begun = clock.monotonic();
        let Reading { all_read, problem, kept, untimely, strayed, crowded } = &self.reading;
        let cores = self.cores;
        let restored = worker.change_shard(|shard, now| {
            if owners.are_kept() {
                found.restore_those(shard, now, |name| owners.owns(core, name))
            } else {
                found.restore(core, cores, shard, now)
            }
        });
        match restored {
            Ok(share) => {
                kept.fetch_add(share.kept, Ordering::Relaxed);
                untimely.fetch_add(share.untimely, Ordering::Relaxed);
                strayed.fetch_add(share.strayed, Ordering::Relaxed);
                crowded.fetch_add(share.crowded, Ordering::Relaxed);
                worker.note_restored(share.kept);
            }
            Err(unusable) => {
                // Whoever comes first tells it for all.
                let _ = problem.set(unusable.to_string());
            }
        }
        let is_teller = all_read.wait().is_leader();
        if problem.get().is_some() {
            worker.change_shard(|shard, _| shard.empty());
            worker.note_restored(0);
        }
        if is_teller {
            // Closed, or the disk would keep it beside the next one.
            self.locked().take();
            self.tell(worker, found.created(), clock.monotonic().since(begun));
        }
    }

    fn locked(&self) -> MutexGuard<'_, Option<Arc<Found>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, worker: &Worker, created: CacheTime, took: Duration) {
        let Reading { problem, kept, untimely, strayed, crowded, .. } = &self.reading;
        if let Some(problem) = problem.get() {
            ignore(&self.path, problem);
            return;
        }
        let [kept, untimely, strayed, crowded] =
            [kept, untimely, strayed, crowded].map(|count| count.load(Ordering::Relaxed));
        let age = worker.change_shard(|_, now| now.seconds_since(created));
        tracing::info!(
            "snapshot {}: {kept} entries of {age} s ago restored in {}, {untimely} left out by \
             their time, {strayed} because others are asked for such names now, {crowded} for want \
             of room",
            self.path.display(),
            seconds(took)
        );
    }

    /// Asks all workers for a snapshot.
    pub(super) fn ask(&self, now: Monotonic) {
        self.asked_at.store(now.as_nanos(), Ordering::Relaxed);
        let round = self.asked.load(Ordering::Relaxed);
        if self.settled.load(Ordering::Acquire) < round {
            let path = self.path.display();
            tracing::warn!("snapshot {path}: one is being written already");
            return;
        }
        self.asked.store(round + 1, Ordering::Release);
    }

    /// Asks all workers for a snapshot when it is time.
    pub(super) fn tick(&self, now: Monotonic) {
        let since = now.since(Monotonic::from_nanos(self.asked_at.load(Ordering::Relaxed)));
        if !self.interval.is_zero() && since >= self.interval {
            self.ask(now);
        }
    }

    /// Walks the shard of `worker` whenever it is asked for, for ever.
    pub(super) async fn follow(&self, core: usize, worker: &Worker) {
        let mut done = 0;
        loop {
            Timer::new(LOOK).await;
            let asked = self.asked.load(Ordering::Acquire);
            if asked > done {
                done = asked;
                self.walk(core, worker, asked, true).await;
            }
        }
    }

    /// The snapshot after the last answer.
    pub(super) async fn walk_last(&self, core: usize, worker: &Worker) {
        self.walk(core, worker, LAST_ROUND, false).await;
    }

    /// Sends all entries of this core to the writer; while it is serving, it leaves the core to others most of the time.
    async fn walk(&self, core: usize, worker: &Worker, round: u64, is_serving: bool) {
        let begin = |shard: &mut Shard, now| {
            let begun = self.begin_round(round, now)?;
            Some((shard.walk(begun), begun))
        };
        let Some((mut walk, begun)) = worker.change_shard(begin) else { return };
        let core = u32::try_from(core).unwrap_or(u32::MAX);
        let piece = |content| Piece { round, core, begun, content };
        let mut block = Block::default();
        let mut steps = 0_u32;
        loop {
            let content = match worker.change_shard(|shard, _| shard.walk_on(&mut walk, &mut block))
            {
                Step::More => None,
                Step::Full => Some(Content::Block(std::mem::take(&mut block))),
                Step::Done => Some(Content::End),
                Step::Flushed => Some(Content::InVain),
            };
            let is_over = matches!(content, Some(Content::End | Content::InVain));
            if let Some(content) = content {
                self.send(piece(content)).await;
            }
            if is_over {
                return;
            }
            steps += 1;
            if is_serving || steps.is_multiple_of(STEPS_LAST) {
                Timer::new(STEP_PAUSE).await;
            }
        }
    }

    /// As of when `round` is taken; the same for all cores, or one would keep what another had replaced. `None` when a later
    /// round has begun.
    fn begin_round(&self, round: u64, now: CacheTime) -> Option<CacheTime> {
        let mut newest = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.0 < round {
            *newest = (round, now);
        }
        (newest.0 == round).then_some(newest.1)
    }

    /// Hands `piece` to the writer as soon as that has room.
    async fn send(&self, mut piece: Piece) {
        loop {
            match self.pieces.try_send(piece) {
                // Without a writer the last round is over.
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => piece = back,
            }
            Timer::new(DISK_PAUSE).await;
        }
    }
}

fn ignore(path: &Path, problem: &str) {
    tracing::warn!("snapshot {}: ignored, the cache starts empty: {problem}", path.display());
}
