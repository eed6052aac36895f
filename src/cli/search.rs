//! Queries that were written down, looked for from a shell: the flags and the output that `ctl queries` and `queries FILE` share.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::SystemTime;

use clap::Args;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::ctl::show::queries as table;
use crate::observe::log::How;
use crate::wire::{Rcode, Rtype};

/// Most queries of one page: as many as the API gives at a time.
pub(super) const PAGE: u64 = 1_000;

/// What a time takes.
const TIME: &str = "expected a time ago such as 10m, a local time such as 2026-11-21T17:00, an instant such as \
    2026-11-21T16:00:00Z, or seconds since 1970";

/// Which queries are looked for, newest first.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Search {
    /// Only names that contain this text
    #[arg(long, value_name = "TEXT", conflicts_with = "under")]
    pub(super) name: Option<String>,
    /// Only this name and those below it
    #[arg(long, value_name = "NAME")]
    pub(super) under: Option<String>,
    /// Only this client; its network's address where clients are anonymous
    #[arg(long, value_name = "ADDRESS")]
    pub(super) client: Option<IpAddr>,
    /// Only clients of this group
    #[arg(long, value_name = "NAME")]
    pub(super) group: Option<String>,
    /// Only answers from there: cache, stale, local, blocked, forwarded, refused or dropped
    #[arg(long, value_name = "WORD", value_parser = answer)]
    pub(super) answer: Option<How>,
    /// Only what this list decided; "overrides" for what is blocked by hand
    #[arg(long, value_name = "NAME")]
    pub(super) list: Option<String>,
    /// Only this type, such as AAAA or TYPE65
    #[arg(long = "type", value_name = "TYPE", value_parser = rtype)]
    pub(super) qtype: Option<Rtype>,
    /// Only this RCODE, such as NXDOMAIN or 3
    #[arg(long, value_name = "RCODE", value_parser = rcode)]
    pub(super) rcode: Option<Rcode>,
    /// Not before: 10m ago, a local time such as 2026-11-21T17:00, an instant such as 2026-11-21T16:00:00Z, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(super) since: Option<u64>,
    /// Before, likewise
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(super) until: Option<u64>,
    /// Before the query with this number: the next page
    #[arg(long, value_name = "ID")]
    pub(super) before: Option<u64>,
    /// How many at most; 0: all
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub(super) limit: u64,
    /// Comma-separated values (RFC 4180) under a head
    #[arg(long, conflicts_with = "json")]
    pub(super) csv: bool,
}

/// How queries are shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// For people, page by page.
    Table,
    /// One document.
    Json,
    /// For spreadsheets.
    Csv,
}

impl Search {
    /// How what is found is to be shown.
    pub(super) const fn form(&self, is_json: bool) -> Form {
        match (is_json, self.csv) {
            (true, _) => Form::Json,
            (false, true) => Form::Csv,
            (false, false) => Form::Table,
        }
    }

    /// How many are wanted.
    pub(super) const fn wanted(&self) -> u64 {
        if self.limit == 0 { u64::MAX } else { self.limit }
    }
}

/// Columns of CSV, which are members of a query as the API tells it.
const COLUMNS: [&str; 14] = [
    "id",
    "time_ms",
    "name",
    "type",
    "client",
    "port",
    "transport",
    "listener",
    "group",
    "answer",
    "list",
    "rcode",
    "latency_us",
    "bytes",
];

/// Prints queries as they come.
#[derive(Debug)]
pub(super) struct Printer<W> {
    form: Form,
    out: W,
    pages: u64,
    printed: u64,
}

impl<W: Write> Printer<W> {
    pub(super) const fn new(form: Form, out: W) -> Self {
        Self { form, out, pages: 0, printed: 0 }
    }

    /// How many queries were printed.
    pub(super) const fn printed(&self) -> u64 {
        self.printed
    }

    /// Prints a page of queries as the API tells them; there must be one, if only an empty one.
    ///
    /// # Errors
    /// That of the output: a closed pipe is the reader's choice.
    pub(super) fn page(&mut self, queries: &[Value]) -> io::Result<()> {
        let is_first = self.pages == 0;
        self.pages += 1;
        let mut text = String::new();
        match self.form {
            // Behind the first page there may turn out to be nothing more.
            Form::Table if is_first || !queries.is_empty() => text = table::queries(queries),
            Form::Table => {}
            Form::Json => {
                text.push_str(if is_first { "{\"queries\":[" } else { "" });
                for (number, query) in (self.printed..).zip(queries) {
                    text.push_str(if number == 0 { "\n" } else { ",\n" });
                    text.push_str(&query.to_string());
                }
            }
            Form::Csv => {
                if is_first {
                    text = COLUMNS.join(",") + "\r\n";
                }
                queries.iter().for_each(|query| text.push_str(&row(query)));
            }
        }
        self.printed += queries.len() as u64;
        self.out.write_all(text.as_bytes())
    }

    /// Ends it: `next` is where more may be found, unless everything was gone through; `is_whole` says that nothing was passed over.
    ///
    /// # Errors
    /// As of [`Printer::page`].
    pub(super) fn end(mut self, next: Option<i64>, is_whole: bool) -> io::Result<()> {
        let text = match (self.form, next) {
            (Form::Json, _) => {
                let (next, whole) = (json!(next), json!(is_whole));
                format!("\n],\"next\":{next},\"whole\":{whole}}}\n")
            }
            (Form::Table, Some(next)) => format!("More: --before {next}\n"),
            (Form::Table, None) | (Form::Csv, _) => String::new(),
        };
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush())
    }
}

fn row(query: &Value) -> String {
    let field = |column: &&str| match &query[*column] {
        Value::Null => String::new(),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    };
    COLUMNS.iter().map(field).collect::<Vec<_>>().join(",") + "\r\n"
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
    How::named(&text.to_ascii_lowercase()).ok_or_else(|| format!("expected one of {words}"))
}

fn rtype(text: &str) -> Result<Rtype, String> {
    Rtype::from_text(text).ok_or_else(|| "expected a type such as AAAA or TYPE65".to_owned())
}

fn rcode(text: &str) -> Result<Rcode, String> {
    let number = || text.parse().ok().filter(|number| *number <= Rcode::MAX.0).map(Rcode);
    let rcode = Rcode::from_text(text).or_else(number);
    rcode.ok_or_else(|| "expected an RCODE such as NXDOMAIN, RCODE11 or 11".to_owned())
}

fn seconds(text: &str) -> Result<u64, String> {
    #[expect(clippy::disallowed_methods, reason = "the command line is the edge")]
    let now = SystemTime::now();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    moment(text, now).ok_or_else(|| TIME.to_owned())
}

/// What `text` means, in seconds since 1970.
fn moment(text: &str, now: u64) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let whole = |instant: Timestamp| u64::try_from(instant.as_second()).ok();
    if let Ok(instant) = text.parse::<Timestamp>() {
        return whole(instant);
    }
    if let Ok(local) = text.parse::<DateTime>() {
        return whole(TimeZone::system().to_zoned(local).ok()?.timestamp());
    }
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let scale = match unit {
        "s" => SignedDuration::from_secs(1),
        "m" => SignedDuration::from_mins(1),
        "h" => SignedDuration::from_hours(1),
        "d" => SignedDuration::from_hours(24),
        _ => return None,
    };
    let scale = u64::try_from(scale.as_secs()).ok()?;
    now.checked_sub(number.parse::<u64>().ok()?.checked_mul(scale)?)
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
    fn time_is_a_while_ago_a_point_an_instant_or_a_local_time() {
        assert_eq!(moment("10m", 10_000), Some(9_400));
        assert_eq!(moment("2h", 10_000), Some(2_800));
        assert_eq!(moment("1700000000", 10_000), Some(1_700_000_000));
        assert_eq!(moment("1970-01-01T00:01:00Z", 10_000), Some(60));
        assert_eq!(moment("1970-01-01T01:01:00.9+01:00", 10_000), Some(60));
        let local = moment("2026-11-21T17:00", 10_000).unwrap();
        // Whatever the time zone, it is within a day of that in UTC.
        assert!(local.abs_diff(1_795_280_400) <= 86_400, "{local}");
        for bad in ["", "m", "yesterday", "9h", "99999999999999999999d", "10x", "1\u{b5}"] {
            assert_eq!(moment(bad, 10_000), None, "{bad}");
        }
    }

    #[test]
    fn words_are_read_and_what_is_none_is_refused() {
        assert_eq!(answer("Blocked"), Ok(How::Blocked));
        assert!(answer("other").unwrap_err().contains("cache, stale"));
        assert_eq!(rtype("type65"), Ok(Rtype(65)));
        assert!(rtype("none").is_err());
        for text in ["NXDOMAIN", "nxdomain", "3", "rcode3"] {
            assert_eq!(rcode(text), Ok(Rcode::NXDOMAIN), "{text}");
        }
        assert_eq!(rcode("11"), Ok(Rcode(11)));
        for bad in ["", "NX", "4096", "-1", "RCODE", "RCODE4096"] {
            assert!(rcode(bad).is_err(), "{bad}");
        }
    }

    /// What is printed of these pages.
    fn printed(form: Form, pages: &[&[Value]], next: Option<i64>) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(form, &mut out);
        pages.iter().for_each(|page| printer.page(page).unwrap());
        printer.end(next, true).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pages_make_one_document_and_one_sheet() {
        let query = |id: u64| json!({ "id": id, "name": "a,b", "rcode": "NXDOMAIN", "list": null });
        let (first, second) = ([query(9), query(8)], [query(7)]);
        let json = printed(Form::Json, &[&first, &second, &[]], Some(7));
        let told: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(told["queries"], json!([query(9), query(8), query(7)]));
        assert_eq!((&told["next"], &told["whole"]), (&json!(7), &json!(true)));
        assert_eq!(json.lines().count(), 5, "one query in a line: {json}");
        let none: Value = serde_json::from_str(&printed(Form::Json, &[&[]], None)).unwrap();
        assert_eq!(none, json!({ "queries": [], "next": null, "whole": true }));
        let csv = printed(Form::Csv, &[&first, &second], None);
        assert!(csv.starts_with("id,time_ms,name,") && csv.matches("id,").count() == 1, "{csv}");
        assert!(csv.contains("\r\n7,,\"a,b\",,,,,,,,,NXDOMAIN,,\r\n"), "{csv}");
        let table = printed(Form::Table, &[&first, &[]], Some(8));
        assert_eq!(table.lines().count(), 4, "a head, two queries, and where more are: {table}");
        assert!(table.ends_with("More: --before 8\n"), "{table}");
    }
}
