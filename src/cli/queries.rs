//! `heimdall-uring queries FILE`: what stands in a store of queries, for people, for spreadsheets and for other programs. Reads the file
//! itself, with or without a node that writes it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use thiserror::Error;

use crate::control::log::{self, Filter, NameFilter, ROWS_MAX, Stored, Unusable, look};
use crate::observe::log::How;
use crate::wire::{Rcode, Rtype};

/// Which queries, and how they are shown.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The store: `query_log.path` of the node
    file: PathBuf,
    /// Only names that contain this text
    #[arg(long, value_name = "TEXT", conflicts_with = "under")]
    name: Option<String>,
    /// Only this name and those below it
    #[arg(long, value_name = "NAME")]
    under: Option<String>,
    /// Only this client; its network's address where clients are anonymous
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Only clients of this group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Only answers from there: cache, stale, local, blocked, forwarded, refused or dropped
    #[arg(long, value_name = "WORD", value_parser = answer)]
    answer: Option<How>,
    /// Only what this list decided
    #[arg(long, value_name = "NAME")]
    list: Option<String>,
    /// Only this type, such as AAAA or TYPE65
    #[arg(long = "type", value_name = "TYPE", value_parser = rtype)]
    qtype: Option<u16>,
    /// Only this RCODE, as a number
    #[arg(long, value_name = "NUMBER")]
    rcode: Option<u16>,
    /// Not before this time, such as 2026-01-31T08:00:00Z, or seconds since the epoch
    #[arg(long, value_name = "TIME", value_parser = millis)]
    since: Option<i64>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = millis)]
    until: Option<i64>,
    /// How many at most, the newest ones; 0: all
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: u64,
    /// One JSON object in a line
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Comma-separated values (RFC 4180) under a head
    #[arg(long)]
    csv: bool,
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

impl QueriesError {
    /// Whether the operator has to name another file.
    pub(super) const fn is_usage(&self) -> bool {
        match self {
            Self::Unusable { .. } | Self::Absent { .. } => true,
            Self::Sqlite { .. } | Self::Broken { .. } => false,
        }
    }
}

/// Prints what `arguments` ask for, newest first.
///
/// # Errors
/// [`QueriesError`].
pub(super) fn run(arguments: &Arguments) -> Result<(), QueriesError> {
    let path = &arguments.file;
    if !path.exists() {
        return Err(QueriesError::Absent { path: path.clone() });
    }
    log::probe(path).map_err(|cause| QueriesError::Unusable { path: path.clone(), cause })?;
    let mut out = io::stdout().lock();
    let mut is_first = true;
    let is_whole = each_page(path, arguments, |page| {
        let mut text = String::new();
        if std::mem::take(&mut is_first) {
            text.push_str(head(arguments));
        }
        page.iter().for_each(|query| show(arguments, query, &mut text));
        out.write_all(text.as_bytes())
    })?;
    if is_whole { Ok(()) } else { Err(QueriesError::Broken { path: path.clone() }) }
}

/// Hands page after page to `print`, at least one, until that fails: a closed pipe is the reader's choice. Says whether all was readable.
fn each_page(
    path: &Path,
    arguments: &Arguments,
    mut print: impl FnMut(&[Stored]) -> io::Result<()>,
) -> Result<bool, QueriesError> {
    let mut filter = filter(arguments);
    let mut left = if arguments.limit == 0 { u64::MAX } else { arguments.limit };
    let mut is_whole = true;
    loop {
        let limit = usize::try_from(left).unwrap_or(ROWS_MAX).min(ROWS_MAX);
        let found = look(path, &filter, limit)
            .map_err(|cause| QueriesError::Sqlite { path: path.to_owned(), cause })?;
        is_whole &= found.broken == 0;
        if print(&found.queries).is_err() {
            return Ok(is_whole);
        }
        left -= found.queries.len() as u64;
        // What took too long for one look is gone through in several.
        let next = found.resume.or_else(|| found.queries.last().map(|last| last.id));
        match next {
            Some(next) if left > 0 => filter.before = Some(next),
            _ => return Ok(is_whole),
        }
    }
}

fn filter(arguments: &Arguments) -> Filter {
    let contains = arguments.name.clone().map(NameFilter::Contains);
    Filter {
        name: contains.or_else(|| arguments.under.clone().map(NameFilter::Within)),
        client: arguments.client,
        group: arguments.group.clone(),
        how: arguments.answer,
        list: arguments.list.clone(),
        qtype: arguments.qtype,
        rcode: arguments.rcode,
        since_ms: arguments.since,
        until_ms: arguments.until,
        before: None,
    }
}

const fn head(arguments: &Arguments) -> &'static str {
    if arguments.csv {
        "id,time_ms,name,type,client,port,transport,listener,group,answer,list,rcode,latency_us,bytes\r\n"
    } else {
        ""
    }
}

/// Appends `query` as a line.
fn show(arguments: &Arguments, query: &Stored, out: &mut String) {
    let qtype = Rtype(query.qtype).to_string();
    // Writing to a string cannot fail.
    let _ = if arguments.json {
        let query = json!({
            "id": query.id, "time_ms": query.time_ms, "name": query.name, "type": qtype,
            "client": query.client, "port": query.port, "transport": query.transport,
            "listener": query.listener, "group": query.group, "answer": query.how,
            "list": query.list, "rcode": query.rcode, "latency_us": query.latency_us,
            "bytes": query.bytes,
        });
        writeln!(out, "{query}")
    } else if arguments.csv {
        let number = |number: Option<u32>| number.map_or_else(String::new, |own| own.to_string());
        let fields = [
            query.id.to_string(),
            query.time_ms.to_string(),
            query.name.clone(),
            qtype,
            query.client.clone(),
            query.port.to_string(),
            query.transport.clone(),
            query.listener.clone(),
            query.group.clone(),
            query.how.clone(),
            query.list.clone().unwrap_or_default(),
            number(query.rcode.map(u32::from)),
            number(query.latency_us),
            query.bytes.to_string(),
        ];
        write!(out, "{}\r\n", fields.map(|field| quoted(&field)).join(","))
    } else {
        let time = Timestamp::from_millisecond(query.time_ms)
            .map_or_else(|_| query.time_ms.to_string(), |time| format!("{time:.3}"));
        let rcode = query.rcode.map_or_else(|| "no reply".to_owned(), rcode_name);
        let list = query.list.as_ref().map_or_else(String::new, |list| format!(" ({list})"));
        writeln!(
            out,
            "{time}  {} {}  {} {qtype}  {}{list}  {rcode}",
            query.client, query.transport, query.name, query.how
        )
    };
}

fn rcode_name(rcode: u16) -> String {
    match Rcode(rcode) {
        Rcode::NOERROR => "NOERROR".to_owned(),
        Rcode::FORMERR => "FORMERR".to_owned(),
        Rcode::SERVFAIL => "SERVFAIL".to_owned(),
        Rcode::NXDOMAIN => "NXDOMAIN".to_owned(),
        Rcode::NOTIMP => "NOTIMP".to_owned(),
        Rcode::REFUSED => "REFUSED".to_owned(),
        Rcode(other) => format!("RCODE{other}"),
    }
}

/// A field as RFC 4180 §2 has it.
fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

fn answer(text: &str) -> Result<How, String> {
    let words = How::ALL.map(|(_, name)| name).join(", ");
    How::named(text).ok_or_else(|| format!("expected one of {words}"))
}

fn rtype(text: &str) -> Result<u16, String> {
    let rtype = Rtype::from_text(text).map(|rtype| rtype.0);
    rtype.ok_or_else(|| "expected a type such as AAAA or TYPE65".to_owned())
}

fn millis(text: &str) -> Result<i64, String> {
    let expected = || "expected a time such as 2026-01-31T08:00:00Z, or seconds since the epoch";
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(seconds.saturating_mul(1_000));
    }
    let time = text.parse::<Timestamp>();
    time.map(Timestamp::as_millisecond).map_err(|_| expected().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_csv_are_quoted_where_they_must_be() {
        assert_eq!(quoted("a.test"), "a.test");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"no\""), "\"say \"\"no\"\"\"");
    }

    #[test]
    fn times_are_instants_or_seconds() {
        assert_eq!(millis("1970-01-01T00:01:00Z"), Ok(60_000));
        assert_eq!(millis("60"), Ok(60_000));
        assert!(millis("yesterday").unwrap_err().contains("expected a time"));
    }

    #[test]
    fn words_that_are_none_are_refused() {
        assert_eq!(answer("blocked"), Ok(How::Blocked));
        assert!(answer("other").unwrap_err().contains("cache, stale"));
        assert_eq!(rtype("type65"), Ok(65));
        assert!(rtype("none").is_err());
    }
}
