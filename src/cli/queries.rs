//! `heimdall-uring queries FILE`: what stands in a store of queries, for people, for spreadsheets and for other programs. Reads the file
//! itself, with or without a node that writes it.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use thiserror::Error;

use super::search::{PAGE, Printer, Search};
use crate::control::log::{self, Filter, NameFilter, Stored, Unusable, look};

/// Which store, which of its queries, and how they are shown.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The store: `query_log.path` of the node
    file: PathBuf,
    #[command(flatten)]
    search: Search,
    /// One JSON document with a query in each line
    #[arg(long)]
    json: bool,
}

/// Why there is nothing to show, or not all of it.
#[derive(Debug, Error)]
pub(super) enum QueriesError {
    /// It is no store.
    #[error("{}: {cause}", path.display())]
    Unusable { path: PathBuf, cause: Unusable },
    /// There is none.
    #[error("{}: there is no such file", path.display())]
    Absent { path: PathBuf },
    /// SQLite does not read it.
    #[error("{}: {cause}", path.display())]
    Sqlite { path: PathBuf, cause: rusqlite::Error },
    /// Something was passed over.
    #[error("{}: some of it is broken and was passed over", path.display())]
    Broken { path: PathBuf },
}

/// Prints what `arguments` ask for, newest first.
///
/// # Errors
/// [`QueriesError`].
pub(super) fn run(arguments: &Arguments) -> Result<(), QueriesError> {
    let Arguments { file: path, search, json } = arguments;
    if !path.exists() {
        return Err(QueriesError::Absent { path: path.clone() });
    }
    log::probe(path).map_err(|cause| QueriesError::Unusable { path: path.clone(), cause })?;
    let printer = Printer::new(search.form(*json), io::stdout().lock());
    if print(path, search, printer)? {
        Ok(())
    } else {
        Err(QueriesError::Broken { path: path.clone() })
    }
}

/// Prints page after page, at least one, until that fails: a closed pipe is the reader's choice. Says whether all was readable.
fn print(
    path: &Path,
    search: &Search,
    mut printer: Printer<impl io::Write>,
) -> Result<bool, QueriesError> {
    let mut filter = filter(search);
    let mut is_whole = true;
    loop {
        let left = search.wanted().saturating_sub(printer.printed());
        let limit = left.min(PAGE);
        let found = look(path, &filter, usize::try_from(limit).unwrap_or(usize::MAX))
            .map_err(|cause| QueriesError::Sqlite { path: path.to_owned(), cause })?;
        is_whole &= found.broken == 0;
        let queries: Vec<Value> = found.queries.iter().map(Stored::to_json).collect();
        if printer.page(&queries).is_err() {
            return Ok(is_whole);
        }
        // What took too long for one look is gone through in several.
        let count = found.queries.len() as u64;
        let last = found.queries.last().filter(|_| count >= limit).map(|last| last.id);
        let next = found.resume.or(last);
        if next.is_none() || count >= left {
            // What is written is the reader's affair.
            let _ = printer.end(next, is_whole);
            return Ok(is_whole);
        }
        filter.before = next;
    }
}

fn filter(search: &Search) -> Filter {
    let Search { name, under, client, group, answer, list, qtype, rcode, since, until, .. } =
        search;
    let contains = name.clone().map(NameFilter::Contains);
    let millis = |seconds: u64| i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
    Filter {
        name: contains.or_else(|| under.clone().map(NameFilter::Within)),
        client: *client,
        group: group.clone(),
        how: *answer,
        list: list.clone(),
        qtype: qtype.map(|qtype| qtype.0),
        rcode: rcode.map(|rcode| rcode.0),
        since_ms: since.map(millis),
        until_ms: until.map(millis),
        before: search.before.map(|id| i64::try_from(id).unwrap_or(i64::MAX)),
    }
}
