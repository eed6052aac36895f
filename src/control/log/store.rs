//! The store of queries: an SQLite file, written by one thread in transactions of many queries. Names, clients and labels stand
//! once each, in dictionaries; queries point to them.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, params};
use thiserror::Error;

use super::names::Names;
use crate::config;
use crate::observe::Transport;
use crate::observe::log::{Entry, anonymous};
use crate::wire::{Name, NameBuf};

/// Queries that leave in one call of [`Store::shrink`].
pub(super) const SHRINK_STEP: usize = 5_000;

/// What our files say of themselves: `hdUQ`.
const APPLICATION: i32 = 0x6864_5551;

/// The form of the tables.
const FORM: i32 = 1;

/// Entries of a dictionary that are kept in memory.
const KNOWN_MAX: usize = 50_000;

/// How far what a dictionary says of an entry's last use may lag behind.
const USE_LAG_MS: i64 = 60_000;

/// Pages that are given back to the file system at a time.
const PAGES: u32 = 512;

/// How long somebody else may have the file for himself.
const BUSY: Duration = Duration::from_millis(250);

const SCHEMA: &str = "
    PRAGMA page_size = 8192;
    PRAGMA auto_vacuum = INCREMENTAL;
    BEGIN;
    CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, used INTEGER NOT NULL);
    CREATE TABLE client (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, used INTEGER NOT NULL);
    CREATE TABLE label (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, used INTEGER NOT NULL);
    CREATE TABLE query (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,
        name INTEGER NOT NULL,
        type INTEGER NOT NULL,
        client INTEGER NOT NULL,
        port INTEGER NOT NULL,
        transport INTEGER NOT NULL,
        listener INTEGER NOT NULL,
        team INTEGER NOT NULL,
        how INTEGER NOT NULL,
        list INTEGER,
        rcode INTEGER,
        latency INTEGER,
        bytes INTEGER NOT NULL
    );
    CREATE VIEW queries AS
        SELECT query.id AS id, time, name.text AS name, type, client.text AS client, port,
            iif(transport = 0, 'udp', 'tcp') AS transport, listener.text AS listener,
            team.text AS team, answer.text AS answer, list.text AS list, rcode, latency, bytes
        FROM query
            JOIN name ON name.id = query.name
            JOIN client ON client.id = query.client
            JOIN label AS listener ON listener.id = query.listener
            JOIN label AS team ON team.id = query.team
            JOIN label AS answer ON answer.id = query.how
            LEFT JOIN label AS list ON list.id = query.list;
    COMMIT;
";

const INSERT: &str = "INSERT INTO query
    (time, name, type, client, port, transport, listener, team, how, list, rcode, latency, bytes)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Why a file cannot be the store.
#[derive(Debug, Error)]
pub enum Unusable {
    /// It is not ours to change.
    #[error("there is a file that is no store of queries; it is not touched")]
    Foreign,
    /// Another version wrote it.
    #[error("it has form {0}, this program writes form {FORM}; move it away to begin anew")]
    Form(i32),
    /// The system does not give it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// SQLite does not give it.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// Says what is wrong with the store at `path`, without making one.
///
/// # Errors
/// [`Unusable`].
pub fn probe(path: &Path) -> Result<(), Unusable> {
    if exists(path)? {
        return Ok(());
    }
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let meta = fs::metadata(directory)?;
    if meta.is_dir() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotADirectory).into()) }
}

/// Whether there is a store at `path`; an empty file is none yet.
fn exists(path: &Path) -> Result<bool, Unusable> {
    /// Where the header of an SQLite file has the two numbers (fileformat2, "The Database Header").
    const FORM_AT: usize = 60;
    const APPLICATION_AT: usize = 68;
    #[expect(clippy::disallowed_methods, reason = "control opens files")]
    let mut file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        outcome => outcome?,
    };
    let mut header = [0; 100];
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.read_exact(&mut header).map_err(|_| Unusable::Foreign)?;
    let number = |at: usize| {
        header
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |octets| i32::from_be_bytes(*octets))
    };
    if !header.starts_with(b"SQLite format 3\0") || number(APPLICATION_AT) != APPLICATION {
        return Err(Unusable::Foreign);
    }
    if number(FORM_AT) == FORM { Ok(true) } else { Err(Unusable::Form(number(FORM_AT))) }
}

/// One of the dictionaries.
#[derive(Debug)]
struct Dictionary {
    find: String,
    insert: String,
    touch: String,
    /// Numbers and last uses of those met of late.
    known: HashMap<Box<[u8]>, (i64, i64)>,
}

impl Dictionary {
    fn new(table: &str) -> Self {
        Self {
            find: format!("SELECT id, used FROM {table} WHERE text = ?"),
            insert: format!("INSERT INTO {table} (text, used) VALUES (?, ?)"),
            touch: format!("UPDATE {table} SET used = ? WHERE id = ?"),
            known: HashMap::new(),
        }
    }

    /// The number of what is known in memory as `key` and in the file as `text`.
    fn number(
        &mut self,
        transaction: &Transaction<'_>,
        key: &[u8],
        time: i64,
        text: impl FnOnce() -> String,
    ) -> rusqlite::Result<i64> {
        let known = self.known.get(key).copied();
        let (id, used) = match known {
            Some(known) => known,
            None => self.look_up(transaction, time, &text())?,
        };
        let is_outdated = used + USE_LAG_MS <= time;
        if is_outdated {
            transaction.prepare_cached(&self.touch)?.execute(params![time, id])?;
        }
        if known.is_none() || is_outdated {
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            self.known.insert(key.into(), (id, used.max(if is_outdated { time } else { used })));
        }
        Ok(id)
    }

    fn look_up(
        &self,
        transaction: &Transaction<'_>,
        time: i64,
        text: &str,
    ) -> rusqlite::Result<(i64, i64)> {
        let mut find = transaction.prepare_cached(&self.find)?;
        let mut rows = find.query([text])?;
        if let Some(row) = rows.next()? {
            return Ok((row.get(0)?, row.get(1)?));
        }
        transaction.prepare_cached(&self.insert)?.execute(params![text, time])?;
        Ok((transaction.last_insert_rowid(), time))
    }
}

/// The file, open to be written.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    clients: Dictionary,
    names: Dictionary,
    labels: Dictionary,
    retention_ms: i64,
    bytes_max: i64,
    is_anonymous: bool,
}

impl Store {
    /// Opens the store at `path`, or makes it.
    ///
    /// # Errors
    /// [`Unusable`].
    pub(super) fn open(path: &Path, section: &config::QueryLog) -> Result<Self, Unusable> {
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
        let [clients, names, labels] = ["client", "name", "label"].map(Dictionary::new);
        Ok(Self {
            connection,
            clients,
            names,
            labels,
            retention_ms: i64::try_from(section.retention.as_millis()).unwrap_or(i64::MAX),
            bytes_max: i64::try_from(section.bytes_max).unwrap_or(i64::MAX),
            is_anonymous: section.anonymize,
        })
    }

    /// Stores the entries of `batches`, all or none; bare ones, one behind the other.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn write(&mut self, batches: &[Vec<u8>], names: &Names) -> rusqlite::Result<()> {
        let outcome = self.write_all(batches, names);
        if outcome.is_err() {
            // What was rolled back has other numbers the next time.
            for dictionary in [&mut self.clients, &mut self.names, &mut self.labels] {
                dictionary.known.clear();
            }
        }
        outcome
    }

    fn write_all(&mut self, batches: &[Vec<u8>], names: &Names) -> rusqlite::Result<()> {
        let Self { connection, clients, names: qnames, labels, is_anonymous, .. } = self;
        let transaction = connection.transaction()?;
        for batch in batches {
            let mut rest = batch.as_slice();
            while let Some(entry) = Entry::read(rest) {
                rest = rest.get(entry.bare_len()..).unwrap_or_default();
                let time = i64::try_from(entry.time.as_millis()).unwrap_or(i64::MAX);
                let qname =
                    Name::parse(entry.qname).map_or_else(|_| NameBuf::new(Name::ROOT), lower);
                let qname = qname.as_name();
                let name = qnames.number(&transaction, qname.as_bytes(), time, || text(qname))?;
                let address = if *is_anonymous { anonymous(entry.address) } else { entry.address };
                let address = address.to_string();
                let client =
                    clients.number(&transaction, address.as_bytes(), time, || address.clone())?;
                let mut label = |text: &str| {
                    labels.number(&transaction, text.as_bytes(), time, || text.to_owned())
                };
                let port = if *is_anonymous { 0 } else { entry.port };
                let list = entry.list.map(|list| label(&names.list(list))).transpose()?;
                transaction.prepare_cached(INSERT)?.execute(params![
                    time,
                    name,
                    entry.qtype,
                    client,
                    port,
                    u8::from(entry.transport == Transport::Tcp),
                    label(&names.listener(entry.listener))?,
                    label(&names.group(entry.group))?,
                    label(entry.how.name())?,
                    list,
                    entry.rcode,
                    entry.latency_us,
                    entry.reply_len,
                ])?;
            }
        }
        transaction.commit()
    }

    /// Lets some of what is too old or too much go; `true` when there may be more of it.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn shrink(&mut self, now_ms: i64) -> rusqlite::Result<bool> {
        let oldest: Option<i64> =
            self.connection.query_row("SELECT min(id) FROM query", [], |row| row.get(0))?;
        let Some(oldest) = oldest else { return Ok(false) };
        let limit = now_ms.saturating_sub(self.retention_ms);
        let is_full = self.used_bytes()? > self.bytes_max;
        let limit = if is_full { i64::MAX } else { limit };
        let transaction = self.connection.transaction()?;
        let gone = transaction
            .prepare_cached("DELETE FROM query WHERE id < ? AND time < ?")?
            .execute(params![oldest.saturating_add_unsigned(SHRINK_STEP as u64), limit])?;
        if gone == 0 {
            return Ok(false);
        }
        let rest = "SELECT time FROM query WHERE id = (SELECT min(id) FROM query)";
        let rest: Option<i64> = transaction.query_row(rest, [], |row| row.get(0)).optional()?;
        let kept_from = forget_unused(&transaction, rest.unwrap_or(now_ms))?;
        transaction.commit()?;
        for dictionary in [&mut self.clients, &mut self.names, &mut self.labels] {
            dictionary.known.retain(|_, (_, used)| *used >= kept_from);
        }
        self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        Ok(true)
    }

    /// Bytes in use, of the file and of what is not yet in it.
    fn used_bytes(&self) -> rusqlite::Result<i64> {
        let pragma = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get(0));
        let (pages, free, size): (i64, i64, i64) =
            (pragma("page_count")?, pragma("freelist_count")?, pragma("page_size")?);
        Ok((pages - free).saturating_mul(size))
    }
}

/// Lets some entries of dictionaries go to which no query from `oldest` on points: their last use lies further back than it may lag.
/// Gives the time from which on all are still there.
fn forget_unused(transaction: &Transaction<'_>, oldest: i64) -> rusqlite::Result<i64> {
    // Queries do not stand strictly in the order of their times: those that waited long came earlier.
    const DISORDER_MS: i64 = 60_000;
    let limit = oldest.saturating_sub(USE_LAG_MS + DISORDER_MS);
    for table in ["name", "client", "label"] {
        let delete = format!(
            "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE used < ? ORDER BY id LIMIT ?)"
        );
        transaction
            .prepare_cached(&delete)?
            .execute(params![limit, i64::try_from(SHRINK_STEP).unwrap_or(i64::MAX)])?;
    }
    Ok(limit)
}

/// Makes an empty store at `path`: beside it first, so that what is there is whole.
fn create(path: &Path) -> Result<(), Unusable> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    // Nobody but the owner learns what others asked.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let connection = Connection::open_with_flags(&beside, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.execute_batch(SCHEMA)?;
    connection.pragma_update(None, "user_version", FORM)?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.close().map_err(|(_, error)| error)?;
    fs::rename(&beside, path)?;
    Ok(())
}

fn lower(name: Name<'_>) -> NameBuf {
    let mut name = NameBuf::new(name);
    name.make_lower();
    name
}

/// A name as it stands in the store: in lower case, without its final dot.
fn text(name: Name<'_>) -> String {
    let text = name.to_string();
    if name.is_root() { text } else { text.trim_end_matches('.').to_owned() }
}

#[cfg(test)]
mod tests;
