//! What is switched by hand, and queries that were written down: what the command line says becomes a request.

use std::io::{self, Read as _};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::client::{Client, Failure};
use super::{CtlError, encoded, show};

/// What a time takes.
const TIME: &str =
    "a time ago such as 10m, a local time such as 2026-11-21T17:00, or seconds since 1970";

/// What stands for names on standard input.
const STDIN: &str = "-";

/// Longest standard input that is read, in bytes: all names that may be overridden, as long as they may be.
const STDIN_BYTES_MAX: u64 = 16 << 20;

/// What standard input takes.
const NAMES: &str = "names on standard input, one in a line, 16 MiB at most";

/// Bytes of names in one request: half of what a body may have.
const PART_BYTES_MAX: usize = 32 << 10;

/// What is done with lists.
#[derive(Debug, Subcommand)]
pub(super) enum ListCommand {
    /// Have a list count again
    Enable {
        /// Its name
        list: String,
    },
    /// Have a list count for nobody
    Disable {
        /// Its name
        list: String,
        /// For so long, such as 30s, 10m, 2h or 7d; else until it is enabled
        #[arg(long, value_name = "TIME")]
        r#for: Option<String>,
    },
    /// Have the source of a list looked at now, or of all
    Refresh {
        /// Its name
        list: Option<String>,
    },
}

/// A name that is overridden.
#[derive(Args, Debug)]
pub(super) struct OverrideArguments {
    /// The name; - for those on standard input, one in a line
    name: String,
    /// And all names below it
    #[arg(long)]
    subtree: bool,
    /// For so long, such as 30s, 10m, 2h or 7d; else until it is lifted
    #[arg(long, value_name = "TIME")]
    r#for: Option<String>,
}

/// Which queries are looked for.
#[derive(Args, Debug)]
pub(super) struct Search {
    /// Names that contain this
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// This name and those below it
    #[arg(long, value_name = "NAME")]
    under: Option<String>,
    /// Of this client
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// Of clients of this group
    #[arg(long)]
    group: Option<String>,
    /// By where the answer came from: cache, stale, local, blocked, forwarded, refused, dropped
    #[arg(long, value_name = "FROM")]
    answer: Option<String>,
    /// That this list decided; "overrides" for what is blocked by hand
    #[arg(long)]
    list: Option<String>,
    /// For this record type
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// With this RCODE, such as NXDOMAIN
    #[arg(long)]
    rcode: Option<String>,
    /// Not before: 10m ago, a local time such as 2026-11-21T17:00, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before, likewise
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Before the query with this number: the next page
    #[arg(long, value_name = "ID")]
    before: Option<u64>,
    /// Queries at most
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
}

type Show = fn(&Value) -> String;

/// An object with those of `members` that there are.
fn object(members: [(&str, Option<Value>); 4]) -> Value {
    let there = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect::<Map<_, _>>())
}

/// Shows lists, or does something with them.
pub(super) fn lists(
    client: &Client,
    command: Option<&ListCommand>,
) -> Result<(Value, Show), Failure> {
    let text = |text: &String| Some(Value::from(text.as_str()));
    let body = |list: Option<&String>, length: Option<&String>| {
        object([
            ("list", list.and_then(text)),
            ("for", length.and_then(text)),
            ("", None),
            ("", None),
        ])
    };
    let post = |path: &str, body: &Value, show: Show| Ok((client.post(path, body)?, show));
    match command {
        None => Ok((client.get("/api/v1/lists")?, show::lists::lists)),
        Some(ListCommand::Enable { list }) => {
            post("/api/v1/lists/enable", &body(Some(list), None), show::lists::list)
        }
        Some(ListCommand::Disable { list, r#for }) => {
            let body = body(Some(list), r#for.as_ref());
            post("/api/v1/lists/disable", &body, show::lists::list)
        }
        Some(ListCommand::Refresh { list }) => {
            let show: Show = |_| "being looked at; the log says what came of it\n".to_owned();
            post("/api/v1/lists/refresh", &body(list.as_ref(), None), show)
        }
    }
}

/// Blocks or allows a name.
pub(super) fn add_override(
    client: &Client,
    action: &str,
    said: &OverrideArguments,
) -> Result<(Value, Show), CtlError> {
    let body = object([
        ("action", Some(action.into())),
        ("subtree", said.subtree.then_some(Value::Bool(true))),
        ("for", said.r#for.as_deref().map(Value::from)),
        ("", None),
    ]);
    let told = of_each(client, "/api/v1/overrides/add", &said.name, body)?;
    Ok((told, show::lists::override_of))
}

/// Takes back what was said of a name.
pub(super) fn lift(client: &Client, name: &str) -> Result<(Value, Show), CtlError> {
    let told = of_each(client, "/api/v1/overrides/remove", name, json!({}))?;
    Ok((told, show::lists::lifted))
}

/// What comes of a POST of `body` about the name that is `said`, or about all on standard input if that is `-`. These go in several
/// requests if they must; what comes of those is put together.
fn of_each(client: &Client, path: &str, said: &str, mut body: Value) -> Result<Value, CtlError> {
    if said != STDIN {
        body["name"] = said.into();
        return Ok(client.post(path, &body)?);
    }
    let mut text = String::new();
    let read = io::stdin().take(STDIN_BYTES_MAX + 1).read_to_string(&mut text);
    let names = names(&text);
    if read.is_err() || text.len() as u64 > STDIN_BYTES_MAX || names.is_empty() {
        let value = format!("{} names", names.len());
        return Err(CtlError::Usage { flag: STDIN, value, expected: NAMES });
    }
    let mut all = Value::Null;
    for part in parts(&names) {
        body["names"] = json!(part);
        all = joined(all, client.post(path, &body)?);
    }
    Ok(all)
}

/// The words of all lines, up to where a `#` begins a remark.
fn names(text: &str) -> Vec<&str> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.flat_map(str::split_whitespace).collect()
}

/// `names` in parts that a request has room for.
fn parts<'n>(names: &[&'n str]) -> Vec<Vec<&'n str>> {
    let mut parts: Vec<Vec<&str>> = Vec::new();
    let mut bytes = 0;
    for name in names {
        // Quotes, a comma, and backslashes twice.
        let more = 2 * name.len() + 3;
        match parts.last_mut() {
            Some(part) if bytes + more <= PART_BYTES_MAX => part.push(name),
            _ => {
                parts.push(vec![name]);
                bytes = 0;
            }
        }
        bytes += more;
    }
    parts
}

/// What two replies say: arrays one behind the other, the worse of whether it is kept and how many cores are late.
fn joined(first: Value, mut second: Value) -> Value {
    let Value::Object(first) = first else { return second };
    for (key, before) in first {
        let after = &mut second[&key];
        match (before, &mut *after) {
            (Value::Array(mut before), Value::Array(more)) => {
                before.append(more);
                *more = before;
            }
            (Value::Bool(before), Value::Bool(_)) if key == "kept" && !before => {
                *after = before.into();
            }
            (Value::Bool(true), Value::Bool(_)) if key == "removed" => *after = true.into(),
            (Value::Number(before), Value::Number(now))
                if key == "late" && before.as_u64() > now.as_u64() =>
            {
                *after = before.into();
            }
            _ => {}
        }
    }
    second["name"] = Value::Null;
    second
}

/// Pauses blocking.
pub(super) fn pause(client: &Client, length: Option<&str>) -> Result<(Value, Show), Failure> {
    let body = length.map_or_else(|| json!({}), |length| json!({ "for": length }));
    Ok((client.post("/api/v1/blocking/pause", &body)?, show::lists::pause))
}

/// Has blocking go on.
pub(super) fn resume(client: &Client) -> Result<(Value, Show), Failure> {
    Ok((client.post("/api/v1/blocking/resume", &json!({}))?, show::lists::pause))
}

/// Looks for queries.
pub(super) fn queries(client: &Client, search: &Search) -> Result<(Value, Show), CtlError> {
    let path = format!("/api/v1/queries{}", search.query(now())?);
    Ok((client.get(&path)?, show::queries::queries))
}

impl Search {
    /// The query of the URL.
    fn query(&self, now: u64) -> Result<String, CtlError> {
        let time = |flag: &'static str, text: &Option<String>| {
            let Some(text) = text else { return Ok(None) };
            let seconds = seconds(text, now).ok_or_else(|| CtlError::Usage {
                flag,
                value: text.clone(),
                expected: TIME,
            })?;
            Ok::<_, CtlError>(Some(seconds.to_string()))
        };
        let word = |text: &Option<String>| text.as_ref().map(|text| text.to_ascii_lowercase());
        let mnemonic = |text: &Option<String>| text.as_ref().map(|text| text.to_ascii_uppercase());
        let members = [
            ("name", self.name.clone()),
            ("under", self.under.clone()),
            ("client", self.client.clone()),
            ("group", self.group.clone()),
            ("answer", word(&self.answer)),
            ("list", self.list.clone()),
            ("type", self.r#type.clone()),
            ("rcode", mnemonic(&self.rcode)),
            ("since", time("--since", &self.since)?),
            ("until", time("--until", &self.until)?),
            ("before", self.before.map(|id| id.to_string())),
            ("limit", self.limit.map(|limit| limit.to_string())),
        ];
        let there = members.into_iter().filter_map(|(name, text)| Some((name, text?)));
        let parts: Vec<String> =
            there.map(|(name, text)| format!("{name}={}", encoded(&text))).collect();
        Ok(if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) })
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the command line is the edge")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What `text` means, in seconds since 1970.
fn seconds(text: &str, now: u64) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    if let Ok(local) = text.parse::<DateTime>() {
        let zoned = TimeZone::system().to_zoned(local).ok()?;
        return u64::try_from(zoned.timestamp().as_second()).ok();
    }
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    now.checked_sub(number.parse::<u64>().ok()?.checked_mul(scale)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_a_while_ago_a_point_or_a_local_time() {
        assert_eq!(seconds("10m", 10_000), Some(9_400));
        assert_eq!(seconds("2h", 10_000), Some(2_800));
        assert_eq!(seconds("1700000000", 10_000), Some(1_700_000_000));
        let local = seconds("2026-11-21T17:00", 10_000).unwrap();
        // Whatever the time zone, it is within a day of that in UTC.
        assert!(local.abs_diff(1_795_280_400) <= 86_400, "{local}");
        for bad in ["", "m", "yesterday", "9h", "99999999999999999999d", "10x", "1\u{b5}"] {
            assert_eq!(seconds(bad, 10_000), None, "{bad}");
        }
    }

    #[test]
    fn names_are_read_line_by_line_and_sent_in_parts() {
        let text = "a.example\n\n# remark\n b.example # another\r\nc.example d.example";
        assert_eq!(names(text), ["a.example", "b.example", "c.example", "d.example"]);
        let long = "x".repeat(200);
        let many = vec![long.as_str(); 1_000];
        let parts = parts(&many);
        assert!(parts.len() > 1);
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), 1_000);
        for part in parts {
            assert!(json!(part).to_string().len() <= PART_BYTES_MAX);
        }
    }

    #[test]
    fn replies_are_put_together_and_the_worse_counts() {
        let reply = |name: &str, kept: bool, late: u64, removed: bool| json!({ "name": name, "names": [name], "kept": kept, "late": late, "removed": removed });
        let all = joined(Value::Null, reply("a", false, 2, true));
        let all = joined(all, reply("b", true, 1, false));
        let expected =
            json!({ "name": null, "names": ["a", "b"], "kept": false, "late": 2, "removed": true });
        assert_eq!(all, expected);
    }

    #[test]
    fn search_says_what_was_said_and_nothing_else() {
        let nothing = Search {
            name: None,
            under: None,
            client: None,
            group: None,
            answer: None,
            list: None,
            r#type: None,
            rcode: None,
            since: None,
            until: None,
            before: None,
            limit: None,
        };
        assert_eq!(nothing.query(1).unwrap(), "");
        let some = Search {
            name: Some("a b".into()),
            answer: Some("Blocked".into()),
            rcode: Some("nxdomain".into()),
            since: Some("5s".into()),
            limit: Some(7),
            ..nothing
        };
        let query = some.query(1_000).unwrap();
        assert_eq!(query, "?name=a%20b&answer=blocked&rcode=NXDOMAIN&since=995&limit=7");
        let wrong = Search { since: Some("noon".into()), ..some };
        assert!(wrong.query(1).unwrap_err().is_usage());
    }
}
