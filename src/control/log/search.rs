//! Queries out of the store, newest first, for whoever asks: beside the thread that writes, which waits for no reader.

mod wanted;

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde_json::{Value, json};

use self::wanted::Wanted;
use crate::observe::Transport;
use crate::observe::log::{Block, How, Row};
use crate::wire::{Name, Rcode, Rtype};

/// How long a search may take: what is found by then is given.
pub const SEARCH_MAX: Duration = Duration::from_secs(5);

/// Most queries that are given at a time.
pub const ROWS_MAX: usize = 10_000;

/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 100;

/// How far queries may stand from where their time would have them, in milliseconds.
const DISORDER_MS: i64 = 60_000;

/// Which names are meant; letters of either case are the same.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NameFilter {
    /// Those that contain this text.
    Contains(String),
    /// This name and all below it.
    Within(String),
}

/// Which queries are meant: all that have each of what is set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    /// By name.
    pub name: Option<NameFilter>,
    /// The client's address; its network's where clients are anonymous.
    pub client: Option<IpAddr>,
    /// The client's group.
    pub group: Option<String>,
    /// Where the answer came from.
    pub how: Option<How>,
    /// The list that decided it.
    pub list: Option<String>,
    /// The type asked for.
    pub qtype: Option<u16>,
    /// The RCODE.
    pub rcode: Option<u16>,
    /// Not before this, in milliseconds since the epoch.
    pub since_ms: Option<i64>,
    /// Before this, likewise.
    pub until_ms: Option<i64>,
    /// Before the query with this number: the next page.
    pub before: Option<i64>,
}

/// A query as it is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// Its number; later ones have higher numbers.
    pub id: i64,
    /// When it came, in milliseconds since the epoch.
    pub time_ms: i64,
    /// The name asked for, in lower case, without final dot.
    pub name: String,
    /// The type asked for.
    pub qtype: u16,
    /// The client.
    pub client: String,
    /// Its port; 0 where clients are anonymous.
    pub port: u16,
    /// `udp` or `tcp`.
    pub transport: String,
    /// The listener that was asked.
    pub listener: String,
    /// The client's group.
    pub group: String,
    /// Where the answer came from: the name of a [`How`].
    pub how: String,
    /// The list that decided it.
    pub list: Option<String>,
    /// The RCODE; `None` without a reply.
    pub rcode: Option<u16>,
    /// How long the answer took, in microseconds, where that is known.
    pub latency_us: Option<u32>,
    /// Length of the reply, in bytes.
    pub bytes: u32,
}

impl Stored {
    /// It for programs, the same wherever it is told.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "time_ms": self.time_ms,
            "name": self.name,
            "type": Rtype(self.qtype).to_string(),
            "client": self.client,
            "port": self.port,
            "transport": self.transport,
            "listener": self.listener,
            "group": self.group,
            "answer": self.how,
            "list": self.list,
            "rcode": self.rcode.map(|rcode| Rcode(rcode).to_string()),
            "latency_us": self.latency_us,
            "bytes": self.bytes,
        })
    }
}

/// What a search found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Newest first.
    pub queries: Vec<Stored>,
    /// It went through all there is, or found as many as were wanted.
    pub is_whole: bool,
}

/// What a look at the store found, for whoever goes through all of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Look {
    /// Newest first.
    pub queries: Vec<Stored>,
    /// Where the next look goes on if this one ran out of time: its [`Filter::before`].
    pub resume: Option<i64>,
    /// Blocks that were passed over because they cannot be read.
    pub broken: u64,
}

/// Finds up to `limit` queries in the store at `path` that `filter` means, newest first.
///
/// A block that is broken is passed over; what is found is not whole then.
///
/// # Errors
/// SQLite's.
pub fn search(path: &Path, filter: &Filter, limit: usize) -> rusqlite::Result<Found> {
    let Look { queries, resume, broken } = look(path, filter, limit)?;
    Ok(Found { queries, is_whole: resume.is_none() && broken == 0 })
}

/// The same, with what it takes to go on.
///
/// # Errors
/// SQLite's.
pub fn look(path: &Path, filter: &Filter, limit: usize) -> rusqlite::Result<Look> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    let end = monotonic() + SEARCH_MAX;
    connection.progress_handler(STEPS, Some(move || monotonic() >= end))?;
    let mut found = Look::default();
    let mut next = filter.before.unwrap_or(i64::MAX);
    // One view of the file from the first block to the last.
    let transaction = connection.transaction()?;
    match collect(&transaction, filter, limit.min(ROWS_MAX), &mut next, &mut found) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            found.resume = Some(next);
            Ok(found)
        }
        outcome => outcome.map(|()| found),
    }
}

#[expect(clippy::disallowed_methods, reason = "control reads the clock to end what takes long")]
fn monotonic() -> Instant {
    Instant::now()
}

/// Puts what it finds into `found`; before each block, `next` says where whoever goes on begins. SQLite ends it when the time is over.
fn collect(
    connection: &Connection,
    filter: &Filter,
    limit: usize,
    next: &mut i64,
    found: &mut Look,
) -> rusqlite::Result<()> {
    let Some(wanted) = Wanted::new(filter) else { return Ok(()) };
    let (lowest, highest) = bounds(connection, filter)?;
    // The facts of each block first: its octets are read only if they may hold what is wanted.
    let mut blocks = connection.prepare(
        "SELECT id, records, earliest, latest, facts FROM block
         WHERE id BETWEEN ? AND ? AND records > 0 ORDER BY id DESC",
    )?;
    let mut octets = connection.prepare("SELECT octets FROM block WHERE id = ?")?;
    let mut blocks = blocks.query([lowest, highest])?;
    while let Some(row) = blocks.next()? {
        if found.queries.len() >= limit {
            return Ok(());
        }
        let (last, records): (i64, i64) = (row.get(0)?, row.get(1)?);
        *next = filter.before.unwrap_or(i64::MAX).min(last + 1);
        let (earliest, latest): (i64, i64) = (row.get(2)?, row.get(3)?);
        let is_in_time = filter.since_ms.is_none_or(|since| latest >= since)
            && filter.until_ms.is_none_or(|until| earliest < until);
        let facts = row.get_ref(4)?;
        if !is_in_time || !wanted.may_be_in(facts.as_blob().unwrap_or_default()) {
            continue;
        }
        let mut octets = octets.query([last])?;
        let Some(row) = octets.next()? else { continue };
        let octets = row.get_ref(0)?;
        let block = octets.as_blob().ok().and_then(|octets| Block::open(octets).ok());
        let is_told = |block: &Block<'_>| i64::try_from(block.len()).ok() == Some(records);
        match block.filter(is_told) {
            Some(block) => {
                wanted.find(&block, last - records + 1, limit, &mut found.queries);
            }
            None => found.broken += 1,
        }
    }
    Ok(())
}

/// The numbers of the first and the last block in which there may be what `filter` means.
fn bounds(connection: &Connection, filter: &Filter) -> rusqlite::Result<(i64, i64)> {
    let (mut lowest, mut highest) = (0, i64::MAX);
    if let Some(since) = filter.since_ms {
        lowest = first_block(connection, "latest", since.saturating_sub(DISORDER_MS))?;
    }
    if let Some(until) = filter.until_ms {
        highest = first_block(connection, "earliest", until.saturating_add(DISORDER_MS))?;
    }
    if let Some(before) = filter.before {
        // The block that holds the one before it is the first that ends there or later.
        let holds = "SELECT min(id) FROM block WHERE id >= ?";
        let holds: Option<i64> =
            connection.query_row(holds, [before.saturating_sub(1)], |row| row.get(0))?;
        highest = highest.min(holds.unwrap_or(i64::MAX));
    }
    Ok((lowest, highest))
}

/// The number of the first block whose time in `column` is `time` or later, or one behind the last: found by halving, as numbers grow
/// with the time.
fn first_block(connection: &Connection, column: &str, time: i64) -> rusqlite::Result<i64> {
    let ends = "SELECT coalesce(min(id), 0), coalesce(max(id), -1) + 1 FROM block";
    let (mut low, mut high): (i64, i64) =
        connection.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let at = format!("SELECT id, {column} FROM block WHERE id >= ? ORDER BY id LIMIT 1");
    let mut at = connection.prepare(&at)?;
    while low < high {
        let middle = low + (high - low) / 2;
        let (id, then): (i64, i64) =
            at.query_row([middle], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if then < time {
            low = id + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn stored(id: i64, row: &Row<'_>) -> Stored {
    let transport = match row.transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
    };
    Stored {
        id,
        time_ms: i64::try_from(row.time_ms).unwrap_or(i64::MAX),
        name: text(row.name.name()),
        qtype: row.qtype,
        client: row.client.to_string(),
        port: row.port,
        transport: transport.to_owned(),
        listener: row.listener.to_owned(),
        group: row.group.to_owned(),
        how: row.how.name().to_owned(),
        list: row.list.map(str::to_owned),
        rcode: row.rcode,
        latency_us: row.latency_us,
        bytes: row.reply_len.into(),
    }
}

/// A name as a search tells it: without its final dot.
fn text(name: Name<'_>) -> String {
    let text = name.to_string();
    text.strip_suffix('.')
        .filter(|bare| !bare.is_empty())
        .map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests;
