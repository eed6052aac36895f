//! The store of queries: an SQLite file with a row per block, written by one thread. SQLite sees to it that the file is whole after
//! a crash and that readers see whole transactions; what a block is, says `observe::log::block`.

mod file;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ahash::RandomState;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, params};
use thiserror::Error;

pub use self::file::{Unusable, probe};
use self::file::{beside, create, exists};
use crate::config;
use crate::control::files;
use crate::observe::log::{Block, Packed, Packer, RECORDS_MAX};

/// Blocks with fewer queries are put together with those that follow.
const SMALL_RECORDS: usize = RECORDS_MAX / 2;

/// Most small blocks that wait to be put together.
const SMALL_MAX: usize = 64;

/// Most time between the first and the last query of a block that was put together: blocks leave as a whole.
const SPAN_MS: i64 = 60_000;

/// Blocks that may leave in one go, beside twice as many as have come, so that there is an end to it.
const LEAVE_MIN: usize = 8;

/// Free pages that are kept for what comes next, at least; and beside that one in so many of all.
const FREE_PAGES_MIN: i64 = 1_024;
const FREE_PART: i64 = 8;

/// Pages that are given back to the file system at a time.
const PAGES: u32 = 512;

/// How long somebody else may have the file for himself.
const BUSY: Duration = Duration::from_millis(250);

const INSERT: &str =
    "INSERT INTO block (id, records, earliest, latest, facts, octets) VALUES (?, ?, ?, ?, ?, ?)";

/// Why queries are not stored at present.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    /// There is no file to write, or not ours.
    #[error("{}: {cause}", path.display())]
    Unusable {
        path: PathBuf,
        #[source]
        cause: Unusable,
    },
    /// SQLite says no: the disk is full, or somebody has the file for himself.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// The store, open to be written.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    /// `None` while the file is gone and there is no other one yet.
    open: Option<Opened>,
    retention_ms: i64,
    bytes_max: i64,
    /// What keeps other nodes away.
    _claim: File,
}

/// The file.
#[derive(Debug)]
struct Opened {
    connection: Connection,
    /// Which file it is.
    inode: (u64, u64),
    /// Number of the last query.
    last: i64,
    /// Blocks at the end that are small.
    small: Vec<Small>,
}

/// A block that may be put together with its neighbours.
#[derive(Clone, Debug)]
struct Small {
    last: i64,
    packed: Packed,
}

impl Store {
    /// Opens the store at `path`, or makes it, for this process alone.
    ///
    /// # Errors
    /// [`Unusable`].
    pub(super) fn open(path: &Path, section: &config::QueryLog) -> Result<Self, Unusable> {
        // A file that cannot be the store is told of first.
        exists(path)?;
        let claim = files::claim(&beside(path, "lock"))?;
        Ok(Self {
            path: path.to_owned(),
            open: Some(Opened::open(path, 0)?),
            retention_ms: i64::try_from(section.retention.as_millis()).unwrap_or(i64::MAX),
            bytes_max: i64::try_from(section.bytes_max).unwrap_or(i64::MAX),
            _claim: claim,
        })
    }

    /// Stores `blocks`, all or none, and lets go what is too old or too much at `now_ms`.
    ///
    /// # Errors
    /// [`Trouble`]; nothing is stored then.
    pub(super) fn keep(&mut self, blocks: &[Packed], now_ms: i64) -> Result<(), Trouble> {
        self.find()?;
        let Some(open) = &mut self.open else { return Ok(()) };
        open.write(blocks)?;
        let limit = now_ms.saturating_sub(self.retention_ms);
        // What is written is stored, whatever becomes of the rest: that is tried again with the next blocks.
        for _ in 0..LEAVE_MIN + 2 * blocks.len() {
            match open.shrink(limit, self.bytes_max) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!("query log: old queries stay for now: {error}");
                    break;
                }
            }
        }
        Ok(())
    }

    /// Sees to it that the file under our name is the one that is open.
    fn find(&mut self) -> Result<(), Trouble> {
        if self.open.as_ref().is_some_and(|open| inode(&self.path).ok() == Some(open.inode)) {
            return Ok(());
        }
        let mut last = 0;
        if let Some(Opened { connection, last: own, .. }) = self.open.take() {
            last = own;
            tracing::warn!(
                "query log: {}: somebody has taken the file away; a fresh one is begun",
                self.path.display()
            );
            // What is in the journal belongs into the file that was taken away, before there is another one: SQLite does not
            // see to that by itself when it closes a file that has lost its name.
            let last_words = connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
                .and_then(|_| connection.close().map_err(|(_, error)| error));
            if let Err(error) = last_words {
                tracing::warn!("query log: the file that was taken away: {error}");
            }
        }
        let opened = Opened::open(&self.path, last);
        let opened =
            opened.map_err(|cause| Trouble::Unusable { path: self.path.clone(), cause })?;
        self.open = Some(opened);
        Ok(())
    }
}

impl Opened {
    /// Numbers go on behind `last`, or behind those of the file.
    fn open(path: &Path, last: i64) -> Result<Self, Unusable> {
        if !exists(path)? {
            create(path)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(32);
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
        let newest: Option<i64> =
            connection.query_row("SELECT max(id) FROM block", [], |row| row.get(0))?;
        let last = newest.unwrap_or(0).max(last);
        Ok(Self { connection, inode: inode(path)?, last, small: Vec::new() })
    }

    fn write(&mut self, blocks: &[Packed]) -> rusqlite::Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        let mut last = self.last;
        let mut small = self.small.clone();
        for packed in blocks {
            let ends_row = small.first().is_some_and(|first| {
                let records: usize = small.iter().map(|block| block.packed.records).sum();
                small.len() >= SMALL_MAX
                    || records + packed.records > RECORDS_MAX
                    || millis(packed.end_ms) - millis(first.packed.begin_ms) > SPAN_MS
            });
            if ends_row {
                put_together(&transaction, &small)?;
                small.clear();
            }
            last += records(packed);
            insert(&transaction, last, packed)?;
            if packed.records < SMALL_RECORDS {
                small.push(Small { last, packed: packed.clone() });
            } else {
                // What lies before it and what comes behind it are no neighbours.
                put_together(&transaction, &small)?;
                small.clear();
            }
        }
        transaction.commit()?;
        (self.last, self.small) = (last, small);
        Ok(())
    }

    /// Lets the oldest block go if its queries are all older than `limit_ms`, or there are more than `bytes_max`; `true` when one
    /// has gone.
    fn shrink(&mut self, limit_ms: i64, bytes_max: i64) -> rusqlite::Result<bool> {
        let oldest = "SELECT id, records, latest FROM block ORDER BY id LIMIT 1";
        let oldest: Option<(i64, i64, i64)> = self
            .connection
            .prepare_cached(oldest)?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((id, records, latest)) = oldest else { return Ok(false) };
        let is_empty = records == 0;
        if !is_empty && latest >= limit_ms && self.used_bytes()? <= bytes_max {
            return Ok(false);
        }
        if id < self.last {
            self.connection.prepare_cached("DELETE FROM block WHERE id = ?")?.execute([id])?;
        } else if is_empty {
            return Ok(false);
        } else {
            // The newest one stays without its queries, so that their numbers are not used again.
            let empty = "UPDATE block SET records = 0, facts = x'', octets = x'' WHERE id = ?";
            self.connection.prepare_cached(empty)?.execute([id])?;
        }
        self.small.retain(|block| block.last > id);
        self.give_back()?;
        Ok(true)
    }

    /// Gives free pages back to the file system, if there are many more than what comes next will take.
    fn give_back(&self) -> rusqlite::Result<()> {
        let (pages, free) = (self.pragma("page_count")?, self.pragma("freelist_count")?);
        if free > FREE_PAGES_MIN && free > pages / FREE_PART {
            self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        }
        Ok(())
    }

    /// Bytes in use, of the file and of what is not yet in it.
    fn used_bytes(&self) -> rusqlite::Result<i64> {
        let pages = self.pragma("page_count")? - self.pragma("freelist_count")?;
        Ok(pages.saturating_mul(self.pragma("page_size")?))
    }

    fn pragma(&self, name: &str) -> rusqlite::Result<i64> {
        self.connection.pragma_query_value(None, name, |row| row.get(0))
    }
}

fn insert(transaction: &Transaction<'_>, last: i64, packed: &Packed) -> rusqlite::Result<()> {
    transaction.prepare_cached(INSERT)?.execute(params![
        last,
        records(packed),
        millis(packed.begin_ms),
        millis(packed.end_ms),
        packed.facts,
        packed.octets,
    ])?;
    Ok(())
}

/// Makes one block of neighbours, if they have room in one.
fn put_together(transaction: &Transaction<'_>, small: &[Small]) -> rusqlite::Result<()> {
    let [first, .., last] = small else { return Ok(()) };
    let mut packer = Packer::new(false, RandomState::new());
    for Small { packed, .. } in small {
        let is_taken = Block::open(&packed.octets).is_ok_and(|block| packer.append(&block));
        if !is_taken {
            return Ok(());
        }
    }
    transaction
        .prepare_cached("DELETE FROM block WHERE id BETWEEN ? AND ?")?
        .execute([first.last, last.last])?;
    insert(transaction, last.last, &packer.packed())
}

fn records(packed: &Packed) -> i64 {
    i64::try_from(packed.records).unwrap_or(i64::MAX)
}

fn millis(time_ms: u64) -> i64 {
    i64::try_from(time_ms).unwrap_or(i64::MAX)
}

/// Which file stands at `path`.
fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests;
