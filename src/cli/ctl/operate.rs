//! What is switched by hand, and queries that were written down: what the command line says becomes requests.

use std::io::{self, Read as _};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tracing::Level;

use super::super::search::{PAGE, Printer, Search};
use super::client::{Client, Failure};
use super::{CtlError, show, with_query};
use crate::control::api::NAMES_MAX;
use crate::node::log::say;

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
            Some(part) if bytes + more <= PART_BYTES_MAX && part.len() < NAMES_MAX => {
                part.push(name)
            }
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

/// Prints the queries that are looked for, page by page. What names no group or list is told on standard error, or is the error where
/// nothing is found.
pub(super) fn queries(client: &Client, search: &Search, is_json: bool) -> Result<(), CtlError> {
    let mut printer = Printer::new(search.form(is_json), io::stdout().lock());
    let (mut before, mut is_whole, mut is_warned) = (search.before, true, false);
    loop {
        let left = search.wanted().saturating_sub(printer.printed());
        let limit = left.min(PAGE);
        let told = client.get(&path_of(search, before, limit))?;
        let found: Vec<Value> = show::list(&told["queries"]).cloned().collect();
        is_whole &= told["broken"].as_u64().unwrap_or_default() == 0;
        let next = told["next"].as_i64();
        let unknown: Vec<String> = show::list(&told["unknown"]).map(show::text).collect();
        let unknown = (!unknown.is_empty()).then(|| unknown.join("; "));
        let is_printed = printer.page(&found);
        if let Some(unknown) = unknown.as_ref().filter(|_| !is_warned && printer.printed() > 0) {
            is_warned = true;
            say(Level::WARN, &format!("heimdall-uring: {unknown}: these are from before\n"));
        }
        if is_printed.is_err() {
            return Ok(());
        }
        if next.is_none() || found.len() as u64 >= left {
            let is_empty = printer.printed() == 0;
            // What is written is the reader's affair.
            let _ = printer.end(next, is_whole);
            return match unknown.filter(|_| is_empty) {
                Some(unknown) => Err(CtlError::Unknown(unknown)),
                None if is_whole => Ok(()),
                None => Err(CtlError::Broken),
            };
        }
        before = next.and_then(|next| u64::try_from(next).ok());
    }
}

/// What the API is asked for a page.
fn path_of(search: &Search, before: Option<u64>, limit: u64) -> String {
    let Search { name, under, client, group, answer, list, qtype, rcode, since, until, .. } =
        search;
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let members = [
        ("name", name.clone()),
        ("under", under.clone()),
        ("client", client.map(|client| client.to_string())),
        ("group", group.clone()),
        ("answer", answer.map(|answer| answer.name().to_owned())),
        ("list", list.clone()),
        ("type", qtype.map(|qtype| qtype.to_string())),
        ("rcode", rcode.map(|rcode| rcode.to_string())),
        ("since", number(*since)),
        ("until", number(*until)),
        ("before", number(before)),
        ("limit", number(Some(limit))),
    ];
    let members: Vec<(&str, Option<&str>)> =
        members.iter().map(|(name, text)| (*name, text.as_deref())).collect();
    with_query("/api/v1/queries", &members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::log::How;
    use crate::wire::Rcode;

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
        let short = super::parts(&["a.b"; 2_500]);
        assert_eq!(short.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
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
        assert_eq!(path_of(&Search::default(), None, 5), "/api/v1/queries?limit=5");
        let some = Search {
            name: Some("a b".into()),
            client: "2001:db8::1".parse().ok(),
            answer: Some(How::Blocked),
            rcode: Some(Rcode(11)),
            since: Some(995),
            ..Search::default()
        };
        let expected = "/api/v1/queries?name=a%20b&client=2001%3Adb8%3A%3A1&answer=blocked&rcode=RCODE11&since=995&before=7&limit=9";
        assert_eq!(path_of(&some, Some(7), 9), expected);
    }
}
