//! The file in which the cache survives a restart. It is replaced whole or not at all. Whatever fails is reported and never
//! stops a node; a file that cannot be trusted to the last bit is not used at all.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::files::{self, Distrust, Placed};
use crate::cache::snapshot::{Block, Contents, Flaw, Framer, MAGIC};
use crate::cache::{Origins, Restored, Shard};
use crate::config;
use crate::observe::SnapshotCounters;
use crate::time::CacheTime;
use crate::wire::Name;

/// The round that ends with the node.
pub const LAST_ROUND: u64 = u64::MAX;

/// Why a snapshot is not used.
#[derive(Debug, Error)]
pub enum Unusable {
    /// What stands in it.
    #[error("{0}")]
    Flaw(#[from] Flaw),
    /// Where it stands, and whose it is.
    #[error("{0}")]
    Distrust(#[from] Distrust),
    /// The system does not give it.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A snapshot that was found whole, as far as its frame tells.
#[derive(Debug)]
pub struct Found {
    file: File,
    contents: Contents,
}

impl Found {
    /// Opens the snapshot at `path`, whose entries may live as long as `section` says and must come from those whom
    /// `origins` name; `None` when there is none.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn open(
        path: &Path,
        section: &config::Cache,
        origins: &Origins,
    ) -> Result<Option<Self>, Unusable> {
        let Some((file, meta)) = files::open(path)? else { return Ok(None) };
        let contents = Contents::survey(meta.len(), read_from(&file))?;
        let contents = contents.capped(section).only_of(origins);
        Ok(Some(Self { file, contents }))
    }

    /// When it was written.
    #[must_use]
    pub const fn created(&self) -> CacheTime {
        self.contents.created()
    }

    /// Reads the share of `core` among `cores` into `shard`, as of `now`. May be called for all cores at once.
    ///
    /// # Errors
    /// [`Unusable`]: all shards must forget what they have taken in.
    pub fn restore(
        &self,
        core: usize,
        cores: usize,
        shard: &mut Shard,
        now: CacheTime,
    ) -> Result<Restored, Unusable> {
        shard.restore(&self.contents, core, cores, now, read_from(&self.file))
    }

    /// Reads what lies under names that `are_ours` into `shard`, of all shares.
    ///
    /// # Errors
    /// As those of [`Self::restore`].
    pub fn restore_those(
        &self,
        shard: &mut Shard,
        now: CacheTime,
        are_ours: impl Fn(Name<'_>) -> bool,
    ) -> Result<Restored, Unusable> {
        shard.restore_those(&self.contents, (0, 1), now, are_ours, read_from(&self.file))
    }
}

fn read_from(file: &File) -> impl FnMut(u64, &mut [u8]) -> Result<(), Unusable> {
    |at, buffer| Ok(file.read_exact_at(buffer, at)?)
}

/// Says whether a snapshot could be written to `path`.
///
/// # Errors
/// What the system says.
pub fn probe(path: &Path) -> io::Result<()> {
    files::probe(path, &MAGIC)
}

/// What a core has for the writer.
#[derive(Debug)]
pub struct Piece {
    /// The snapshot that it belongs to; a later one supersedes those before.
    pub round: u64,
    /// Whose.
    pub core: u32,
    /// As of when.
    pub begun: CacheTime,
    /// What.
    pub content: Content,
}

/// The content of a [`Piece`].
#[derive(Debug)]
pub enum Content {
    /// Some of the core's entries.
    Block(Block),
    /// That was all of this core.
    End,
    /// This core's part was in vain, and so is the whole.
    InVain,
}

/// Joins the pieces of all cores to files, one after the other.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    cores: u32,
    /// Of the config in force.
    origins: Arc<Mutex<Origins>>,
    counters: Arc<SnapshotCounters>,
    /// The newest round that is over, well or not.
    settled: Arc<AtomicU64>,
    /// The newest round that was heard of.
    newest: u64,
    open: Option<Unfinished>,
}

impl Writer {
    /// A writer of snapshots of `cores` cores to `path`, whose answers come from `origins`. It tells by `settled` which round is over.
    #[must_use]
    pub const fn new(
        path: PathBuf,
        cores: u32,
        origins: Arc<Mutex<Origins>>,
        counters: Arc<SnapshotCounters>,
        settled: Arc<AtomicU64>,
    ) -> Self {
        Self { path, cores, origins, counters, settled, newest: 0, open: None }
    }

    /// Writes what comes, until the last round is over or nobody sends any more.
    pub fn run(mut self, pieces: &Receiver<Piece>) {
        while self.settled.load(Ordering::Relaxed) != LAST_ROUND
            && let Ok(piece) = pieces.recv()
        {
            self.take(piece);
        }
    }

    fn take(&mut self, piece: Piece) {
        if piece.round > self.newest {
            if self.open.take().is_some() {
                self.counters.abandoned.bump();
            }
            self.newest = piece.round;
            let origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match Unfinished::begin(&self.path, self.cores, piece.begun, &origins) {
                Ok(open) => self.open = Some(open),
                Err(error) => self.fail(&error),
            }
        }
        // Late pieces of a round that is over are dropped.
        let Some(open) = self.open.as_mut().filter(|_| piece.round == self.newest) else { return };
        let outcome = match piece.content {
            Content::Block(block) => open.append(piece.core, &block),
            Content::End => {
                open.ended += 1;
                if open.ended < self.cores { Ok(()) } else { self.finish() }
            }
            Content::InVain => {
                self.counters.abandoned.bump();
                tracing::info!("{}: given up, something was flushed meanwhile", self.title());
                self.settle();
                Ok(())
            }
        };
        if let Err(error) = outcome {
            self.fail(&error);
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let (entries, took) = (open.framer.entries(), open.since.elapsed());
        let Placed { bytes, doubt } = open.finish()?;
        self.counters.written.bump();
        let title = self.title();
        tracing::info!("{title}: {entries} entries, {bytes} bytes written in {}", seconds(took));
        if let Some(error) = doubt {
            tracing::warn!(
                "{title}: its directory cannot be synced: {error}; the file is replaced, but what \
                 was there before may be back if the machine stops now"
            );
        }
        self.settle();
        Ok(())
    }

    fn fail(&mut self, error: &io::Error) {
        self.counters.failed.bump();
        tracing::error!(
            "{}: cannot be written: {error}; what was there before stays",
            self.title()
        );
        self.settle();
    }

    fn settle(&mut self) {
        self.open = None;
        self.settled.store(self.newest, Ordering::Release);
    }

    fn title(&self) -> String {
        format!("snapshot {}", self.path.display())
    }
}

/// A duration for people.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}

/// A snapshot being written.
#[derive(Debug)]
struct Unfinished {
    file: files::Unfinished,
    framer: Framer,
    /// Cores that have sent all they have.
    ended: u32,
    since: Instant,
}

impl Unfinished {
    fn begin(target: &Path, cores: u32, begun: CacheTime, origins: &Origins) -> io::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "how long writing takes is told")]
        let since = Instant::now();
        let (framer, head) = Framer::begin(cores, begun, origins);
        let mut file = files::Unfinished::begin(target, &MAGIC)?;
        file.append(&head)?;
        Ok(Self { file, framer, ended: 0, since })
    }

    fn append(&mut self, core: u32, block: &Block) -> io::Result<()> {
        self.file.append(&self.framer.block(core, block))?;
        self.file.append(block.bytes())
    }

    fn finish(mut self) -> io::Result<Placed> {
        let end = self.framer.clone().end();
        self.file.append(&end)?;
        self.file.place()
    }
}

#[cfg(test)]
mod tests;
