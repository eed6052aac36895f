//! Queries out of the store, newest first, for whoever asks: beside the thread that writes, which waits for no reader.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, params_from_iter};

use crate::observe::log::How;

/// How long a search may take: what is found by then is given.
pub const SEARCH_MAX: Duration = Duration::from_secs(5);

/// Most queries that are given at a time.
pub const ROWS_MAX: usize = 10_000;

/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;

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

/// What a search found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Newest first.
    pub queries: Vec<Stored>,
    /// It went through all there is, or found as many as were wanted.
    pub is_whole: bool,
}

/// Finds up to `limit` queries in the store at `path` that `filter` means, newest first.
///
/// # Errors
/// SQLite's.
pub fn search(path: &Path, filter: &Filter, limit: usize) -> rusqlite::Result<Found> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    let end = monotonic() + SEARCH_MAX;
    connection.progress_handler(STEPS, Some(move || monotonic() >= end))?;
    let mut found = Found { queries: Vec::new(), is_whole: true };
    match collect(&connection, filter, limit.min(ROWS_MAX), &mut found.queries) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            found.is_whole = false;
            Ok(found)
        }
        outcome => outcome.map(|()| found),
    }
}

#[expect(clippy::disallowed_methods, reason = "control reads the clock to end what takes long")]
fn monotonic() -> Instant {
    Instant::now()
}

fn collect(
    connection: &Connection,
    filter: &Filter,
    limit: usize,
    found: &mut Vec<Stored>,
) -> rusqlite::Result<()> {
    let (conditions, mut values) = conditions(connection, filter)?;
    let ids = format!("SELECT id FROM query WHERE {conditions} ORDER BY id DESC LIMIT ?");
    values.push(Value::from(i64::try_from(limit).unwrap_or(i64::MAX)));
    let mut ids = connection.prepare(&ids)?;
    let mut ids = ids.query(params_from_iter(values))?;
    let mut whole = connection.prepare(
        "SELECT id, time, name, type, client, port, transport, listener, team, answer, list, rcode, latency, bytes
         FROM queries WHERE id = ?",
    )?;
    while let Some(id) = ids.next()? {
        let id: i64 = id.get(0)?;
        found.push(whole.query_row([id], stored)?);
    }
    Ok(())
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        id: row.get(0)?,
        time_ms: row.get(1)?,
        name: row.get(2)?,
        qtype: row.get(3)?,
        client: row.get(4)?,
        port: row.get(5)?,
        transport: row.get(6)?,
        listener: row.get(7)?,
        group: row.get(8)?,
        how: row.get(9)?,
        list: row.get(10)?,
        rcode: row.get(11)?,
        latency_us: row.get(12)?,
        bytes: row.get(13)?,
    })
}

/// What `filter` means, as conditions on the table of queries with the values in them.
fn conditions(connection: &Connection, filter: &Filter) -> rusqlite::Result<(String, Vec<Value>)> {
    const LABELLED: &str = "(SELECT id FROM label WHERE text = ?)";
    let mut conditions = vec!["1".to_owned()];
    let mut values = Vec::new();
    let mut add = |condition: String, value: Value| {
        conditions.push(condition);
        values.push(value);
    };
    if let Some(since) = filter.since_ms {
        add("id >= ?".into(), first_from(connection, since.saturating_sub(DISORDER_MS))?.into());
        add("time >= ?".into(), since.into());
    }
    if let Some(until) = filter.until_ms {
        add("id <= ?".into(), first_from(connection, until.saturating_add(DISORDER_MS))?.into());
        add("time < ?".into(), until.into());
    }
    if let Some(before) = filter.before {
        add("id < ?".into(), before.into());
    }
    let labels = [
        ("team", filter.group.clone()),
        ("list", filter.list.clone()),
        ("how", filter.how.map(|how| how.name().to_owned())),
    ];
    for (column, label) in labels {
        if let Some(label) = label {
            add(format!("{column} = {LABELLED}"), label.into());
        }
    }
    for (column, number) in [("type", filter.qtype), ("rcode", filter.rcode)] {
        if let Some(number) = number {
            add(format!("{column} = ?"), i64::from(number).into());
        }
    }
    if let Some(client) = filter.client {
        let client = client.to_canonical().to_string();
        add("client = (SELECT id FROM client WHERE text = ?)".into(), client.into());
    }
    match &filter.name {
        Some(NameFilter::Contains(text)) => add(
            "name IN (SELECT id FROM name WHERE instr(text, ?))".into(),
            text.to_ascii_lowercase().into(),
        ),
        Some(NameFilter::Within(text)) => {
            let text = text.to_ascii_lowercase();
            let apex = text.trim_end_matches('.');
            // All names end in the root.
            if !apex.is_empty() {
                let below = "SELECT id FROM name, (SELECT ? AS apex) \
                    WHERE substr('.' || text, -length(apex)) = apex";
                add(format!("name IN ({below})"), format!(".{apex}").into());
            }
        }
        None => {}
    }
    Ok((conditions.join(" AND "), values))
}

/// The number of the first query that came at `time` or later, or the one after the last: found by halving, as numbers grow with
/// the time.
fn first_from(connection: &Connection, time: i64) -> rusqlite::Result<i64> {
    let ends = "SELECT coalesce(min(id), 0), coalesce(max(id), -1) + 1 FROM query";
    let (mut low, mut high): (i64, i64) =
        connection.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut at = connection.prepare("SELECT time FROM query WHERE id >= ? ORDER BY id LIMIT 1")?;
    while low < high {
        let middle = low + (high - low) / 2;
        let then: i64 = at.query_row([middle], |row| row.get(0))?;
        if then < time {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
