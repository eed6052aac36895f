//! The file in which the cache survives a restart. It is replaced whole or not at all: written beside its place under
//! another name, synced, renamed. Whatever fails is reported and never stops a node; a file that cannot be trusted to the
//! last bit is not used at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::cache::snapshot::{Block, Contents, Flaw, Framer, MAGIC};
use crate::cache::{Origins, Restored, Shard};
use crate::config;
use crate::observe::SnapshotCounters;
use crate::sys::{errno, file};
use crate::time::CacheTime;

/// The round that ends with the node.
pub const LAST_ROUND: u64 = u64::MAX;

/// Permission bits by which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;

/// Who may do everything anyway.
const ROOT: u32 = 0;

/// Why a snapshot is not used.
#[derive(Debug, Error)]
pub enum Unusable {
    /// What stands in it.
    #[error("{0}")]
    Flaw(#[from] Flaw),
    /// The system does not give it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A directory, a device, a pipe.
    #[error("it is no regular file")]
    NotAFile,
    /// Whoever wrote it may have put answers into it.
    #[error("it belongs to another user (uid {0})")]
    Foreign(u32),
    /// Whoever may write to it may put answers into the cache.
    #[error("others than its owner may write to it (mode {0:o})")]
    Exposed(u32),
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
        let file = match file::open_warily(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(errno::ELOOP) => {
                return Err(Unusable::NotAFile);
            }
            file => file?,
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(Unusable::NotAFile);
        }
        trust(meta.uid(), meta.mode(), file::effective_user())?;
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
}

/// Refuses the file of `owner` with `mode` unless only `user` or root can have written it.
const fn trust(owner: u32, mode: u32, user: u32) -> Result<(), Unusable> {
    if owner != user && owner != ROOT {
        return Err(Unusable::Foreign(owner));
    }
    if mode & OTHERS_WRITE != 0 {
        return Err(Unusable::Exposed(mode & 0o777));
    }
    Ok(())
}

fn read_from(file: &File) -> impl FnMut(u64, &mut [u8]) -> Result<(), Unusable> {
    |at, buffer| Ok(file.read_exact_at(buffer, at)?)
}

/// Says whether a snapshot could be written to `path`.
///
/// # Errors
/// What the system says.
pub fn probe(path: &Path) -> io::Result<()> {
    refuse_others(path)?;
    // Not the name under which a node that runs may be writing now.
    let probe = beside(path, &format!("check-{}", std::process::id()));
    create(&probe)?;
    fs::remove_file(probe)
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
    origins: Origins,
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
        origins: Origins,
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
            match Unfinished::begin(&self.path, self.cores, piece.begun, &self.origins) {
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
        let Written { bytes, doubt } = open.finish(&self.path, sync_directory)?;
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

/// A snapshot in its place.
#[derive(Debug)]
struct Written {
    bytes: u64,
    /// Why the disk may not know its place yet.
    doubt: Option<io::Error>,
}

/// A snapshot being written, under another name; that is removed unless the snapshot is finished.
#[derive(Debug)]
struct Unfinished {
    file: File,
    path: PathBuf,
    framer: Framer,
    /// Cores that have sent all they have.
    ended: u32,
    since: Instant,
}

impl Unfinished {
    fn begin(target: &Path, cores: u32, begun: CacheTime, origins: &Origins) -> io::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "how long writing takes is told")]
        let since = Instant::now();
        refuse_others(target)?;
        let path = beside(target, "tmp");
        // What a killed node has left.
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let (framer, head) = Framer::begin(cores, begun, origins);
        let mut unfinished = Self { file: create(&path)?, path, framer, ended: 0, since };
        unfinished.file.write_all(&head)?;
        Ok(unfinished)
    }

    fn append(&mut self, core: u32, block: &Block) -> io::Result<()> {
        self.file.write_all(&self.framer.block(core, block))?;
        self.file.write_all(block.bytes())
    }

    /// Puts it in its place, and has `sync` make that last.
    ///
    /// # Errors
    /// What the system says: the place is as it was. Once the file is there, a failure is only a doubt.
    fn finish(
        mut self,
        target: &Path,
        sync: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Written> {
        let end = self.framer.clone().end();
        self.file.write_all(&end)?;
        self.file.sync_all()?;
        let bytes = self.file.metadata()?.len();
        fs::rename(&self.path, target)?;
        Ok(Written { bytes, doubt: sync(target).err() })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename there is nothing under this name; whatever stays is removed when the next one begins.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the name of `target` last.
fn sync_directory(target: &Path) -> io::Result<()> {
    let Some(directory) = target.parent() else { return Ok(()) };
    #[expect(clippy::disallowed_methods, reason = "control opens the files of a node")]
    File::open(directory)?.sync_all()
}

/// Refuses a place where something stands that we did not write: the rename would put a snapshot even in the place of
/// `/dev/null`, or of a file that the operator named by mistake.
fn refuse_others(path: &Path) -> io::Result<()> {
    let Ok(meta) = fs::metadata(path) else { return Ok(()) };
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut head = [0; MAGIC.len()];
    let len = usize::try_from(meta.len()).unwrap_or(usize::MAX).min(head.len());
    let file = file::open_warily(path).map_err(|error| match error.raw_os_error() {
        Some(errno::ELOOP) => io::Error::other("it is no regular file"),
        _ => error,
    })?;
    file.read_exact_at(&mut head[..len], 0)?;
    if MAGIC.starts_with(&head[..len]) {
        Ok(())
    } else {
        Err(io::Error::other("a file stands there that is no snapshot of this program: move it"))
    }
}

/// A file of this user alone that did not exist before.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// `path` with an ending added.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests;
