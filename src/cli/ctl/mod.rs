//! `heimdall-uring ctl`: a node that runs, asked and commanded over its API. Knows the API and nothing of what stands
//! behind it.

mod client;
mod explain;
mod operate;
pub(super) mod show;
mod table;
mod tls;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use thiserror::Error;

use self::client::{Client, Failure};
use self::operate::{ListCommand, OverrideArguments};
use super::search::Search;
use super::{Refusal, read_bounded};
use crate::config::{ApiListen, LogLevel};
use crate::config::{Config, File};
use crate::control::api::{ApiError, token_of};

/// How often `top` looks.
const TOP_PERIOD: Duration = Duration::from_secs(1);

/// How many names and clients `top` shows.
const TOP_ROWS: usize = 10;

/// Clears a terminal and goes to its first place.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Where the node is, and what it is asked.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Config file of the node: [api] says where it is asked, and with what token
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where the node is asked instead: ADDRESS:PORT or unix:/PATH
    #[arg(long, value_name = "PLACE", global = true)]
    api: Option<String>,
    /// File with the token instead
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// PEM file with the certificate that the node must show: TLS
    #[arg(long, value_name = "FILE", global = true)]
    certificate: Option<PathBuf>,
    /// Seconds that the node is waited for
    #[arg(long, value_name = "SECONDS", global = true, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,
    /// Print what the node says as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What runs: version, cores, memory, I/O, what is switched on
    Status,
    /// Queries, hits, latency, caches, core by core
    Stats,
    /// The same, anew every second, with the names and clients that are seen most
    Top,
    /// What each core knows of each upstream
    Upstreams,
    /// Lists, names that are overridden, and what is paused
    Lists {
        #[command(subcommand)]
        what: Option<ListCommand>,
    },
    /// Block a name, whatever lists say
    Block(OverrideArguments),
    /// Allow a name, whatever lists say
    Allow(OverrideArguments),
    /// Take back that a name is blocked or allowed by hand: lists decide again
    #[command(visible_aliases = ["unblock", "unallow"])]
    Lift {
        /// The name; - for those on standard input, one in a line
        name: String,
    },
    /// Have nothing blocked for a while: neither lists nor overrides are asked
    Pause {
        /// For so long, such as 30s, 10m, 2h or 7d; without one for good, until `ctl resume`
        #[arg(value_name = "TIME")]
        r#for: Option<String>,
    },
    /// Have blocking go on
    Resume,
    /// Queries that were written down, newest first
    Queries(Box<Search>),
    /// The config in force as a file, without secrets
    Config,
    /// All counters, as a scraper sees them
    Metrics,
    /// What each core's cache holds, for each view; local data, lists and overrides are asked before it
    Cache {
        /// The owner name
        name: String,
        /// The record type
        #[arg(default_value = "A")]
        r#type: String,
    },
    /// What would become of a question, step by step, on each core, and what became of the last ones
    Explain {
        /// The name asked for
        name: String,
        /// The record type
        #[arg(default_value = "A")]
        r#type: String,
        /// Who would ask; 127.0.0.1 if not said
        #[arg(long, value_name = "ADDRESS")]
        client: Option<String>,
        /// How it would ask: udp or tcp
        #[arg(long, value_name = "TRANSPORT")]
        transport: Option<String>,
        /// Which listener it would ask, as node.listen has it; the first if not said
        #[arg(long, value_name = "ADDRESS:PORT")]
        listener: Option<String>,
    },
    /// The last decisions of all cores, newest first: plain hits by samples, everything else
    Decisions {
        /// About this name
        #[arg(long)]
        name: Option<String>,
        /// About this name and those below it
        #[arg(long, value_name = "NAME")]
        under: Option<String>,
        /// Of this client
        #[arg(long, value_name = "ADDRESS")]
        client: Option<String>,
        /// So many at most
        #[arg(long, value_name = "NUMBER")]
        limit: Option<u64>,
    },
    /// Forget answers on all cores: of a name, of a type, or all
    #[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["name", "type", "all"])))]
    Flush {
        /// The owner name
        name: Option<String>,
        /// And all names below it
        #[arg(long, requires = "name")]
        subtree: bool,
        /// Only answers of this type, and denials
        #[arg(long, value_name = "TYPE")]
        r#type: Option<String>,
        /// Everything
        #[arg(long, conflicts_with_all = ["name", "type"])]
        all: bool,
    },
    /// Write the cache to its snapshot file
    Snapshot,
    /// Read the config anew, and put in force what differs and can change
    Reload,
    /// How much is logged, or how much is to be: error, warn, info, debug
    LogLevel {
        /// The least important level
        level: Option<String>,
    },
}

/// Why a command was not carried out.
#[derive(Debug, Error)]
pub(super) enum CtlError {
    /// The node is not there, or refuses.
    #[error("{0}")]
    Failure(#[from] Failure),
    /// The token cannot be read.
    #[error("{0}")]
    Token(#[from] ApiError),
    /// Nothing is found, and nothing has the name that was searched for.
    #[error("{0}")]
    Unknown(String),
    /// Some of what is stored cannot be read.
    #[error("some of the node's store of queries is broken and was passed over")]
    Broken,
    /// What was said on the command line.
    #[error("{flag} {value}: expected {expected}")]
    Usage {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
}

impl CtlError {
    /// Whether the operator has to say something else.
    pub(super) const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Usage { .. } | Self::Unknown(_) | Self::Token(_) | Self::Failure(Failure::Off)
        )
    }
}

/// Carries out what `arguments` say.
///
/// # Errors
/// [`Refusal`], from the config or from the node.
pub(super) fn run(arguments: &Arguments) -> Result<(), Refusal> {
    let client = client_of(arguments)?;
    if matches!(arguments.command, Command::Top) {
        return Ok(watch(&client)?);
    }
    if let Command::Queries(search) = &arguments.command {
        return Ok(operate::queries(&client, search, arguments.json)?);
    }
    print(&answer(arguments, &client)?);
    Ok(())
}

fn print(text: &str) {
    // A closed pipe is the reader's choice.
    let _ = io::stdout().write_all(text.as_bytes());
}

/// What the node says, in the form that is asked for.
fn answer(arguments: &Arguments, client: &Client) -> Result<String, CtlError> {
    type Show = fn(&Value) -> String;
    let get = |path: &str, show: Show| Ok::<_, Failure>((client.get(path)?, show));
    let (told, show) = match &arguments.command {
        Command::Status => get("/api/v1/status", show::status)?,
        Command::Stats => get("/api/v1/stats", show::stats)?,
        // They print as they go.
        Command::Top | Command::Queries(_) => return Ok(String::new()),
        Command::Upstreams => get("/api/v1/upstreams", show::upstreams)?,
        Command::Lists { what } => operate::lists(client, what.as_ref())?,
        Command::Block(said) => operate::add_override(client, "block", said)?,
        Command::Allow(said) => operate::add_override(client, "allow", said)?,
        Command::Lift { name } => operate::lift(client, name)?,
        Command::Pause { r#for } => operate::pause(client, r#for.as_deref())?,
        Command::Resume => operate::resume(client)?,
        Command::Config => get("/api/v1/config", show::config)?,
        Command::Metrics => return Ok(client.text("/metrics")?),
        Command::Cache { name, r#type } => {
            let path =
                format!("/api/v1/cache/lookup?name={}&type={}", encoded(name), encoded(r#type));
            get(&path, show::lookup)?
        }
        Command::Explain { name, r#type, client, transport, listener } => {
            let path = with_query(
                "/api/v1/explain",
                &[
                    ("name", Some(name)),
                    ("type", Some(r#type)),
                    ("client", client.as_deref()),
                    ("transport", transport.as_deref()),
                    ("listener", listener.as_deref()),
                ],
            );
            get(&path, explain::explain)?
        }
        Command::Decisions { name, under, client, limit } => {
            let limit = limit.map(|limit| limit.to_string());
            let path = with_query(
                "/api/v1/decisions",
                &[
                    ("name", name.as_deref()),
                    ("under", under.as_deref()),
                    ("client", client.as_deref()),
                    ("limit", limit.as_deref()),
                ],
            );
            get(&path, explain::decisions)?
        }
        Command::Flush { name, subtree, r#type, all } => {
            let body = what_to_flush(name.as_deref(), *subtree, r#type.as_deref(), *all);
            let show: Show = |told| format!("flushed {}\n", show::text(&told["flushed"]));
            (client.post("/api/v1/cache/flush", &body)?, show)
        }
        Command::Snapshot => {
            let show: Show =
                |_| "the snapshot is being written; the log says when it is done\n".to_owned();
            (client.post("/api/v1/snapshot", &json!({}))?, show)
        }
        Command::Reload => (client.post("/api/v1/reload", &json!({}))?, show::reload as Show),
        Command::LogLevel { level } => {
            let show: Show = |told| format!("{}\n", show::text(&told["level"]));
            match level {
                None => get("/api/v1/log-level", show)?,
                Some(level) => {
                    let level = level_of(level)?;
                    (client.post("/api/v1/log-level", &json!({ "level": level.as_text() }))?, show)
                }
            }
        }
    };
    Ok(if arguments.json { format!("{told:#}\n") } else { show(&told) })
}

fn level_of(text: &str) -> Result<LogLevel, CtlError> {
    LogLevel::from_text(text).ok_or_else(|| CtlError::Usage {
        flag: "log-level",
        value: text.to_owned(),
        expected: "error, warn, info or debug",
    })
}

fn what_to_flush(name: Option<&str>, is_subtree: bool, rtype: Option<&str>, is_all: bool) -> Value {
    let mut body = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(key.to_owned(), value);
        }
    };
    put("name", name.map(Value::from));
    put("subtree", is_subtree.then_some(Value::Bool(true)));
    put("type", rtype.map(Value::from));
    put("all", is_all.then_some(Value::Bool(true)));
    Value::Object(body)
}

/// Shows the figures again and again, until nobody takes them.
///
/// # Errors
/// When the node does not answer any more.
fn watch(client: &Client) -> Result<(), CtlError> {
    loop {
        let told = client.get("/api/v1/stats")?;
        let most = most(client)?;
        let figures = show::stats(&told);
        let text = format!("{CLEAR}{}  (Ctrl-C ends)\n\n{figures}\n{most}", client.place);
        let mut out = io::stdout();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        std::thread::sleep(TOP_PERIOD);
    }
}

/// What is seen most, or why that is not told.
fn most(client: &Client) -> Result<String, Failure> {
    let mut kinds = Vec::new();
    for of in ["names", "clients", "blocked"] {
        match client.get(&format!("/api/v1/top?of={of}&limit={TOP_ROWS}")) {
            Ok(told) => kinds.push((of, told["top"].as_array().cloned().unwrap_or_default())),
            Err(Failure::Refused { text, .. }) => {
                return Ok(format!("no names and clients: {text}\n"));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(show::queries::most(&kinds))
}

/// Where the node is, by the command line, the environment and the config.
fn client_of(arguments: &Arguments) -> Result<Client, Refusal> {
    let mut section = section_of(arguments)?;
    if let Some(place) = &arguments.api {
        section.listen = ApiListen::from_text(place).ok_or_else(|| CtlError::Usage {
            flag: "--api",
            value: place.clone(),
            expected: "ADDRESS:PORT or unix:/PATH",
        })?;
    }
    if arguments.token_file.is_some() {
        section.token = None;
        section.token_file.clone_from(&arguments.token_file);
    }
    let token = token_of(&section).map_err(CtlError::from)?;
    let certificate = arguments.certificate.clone().or(section.certificate);
    let patience = Duration::from_secs(arguments.timeout);
    Ok(Client { place: section.listen, token, certificate, patience })
}

/// Where packages put the config of a machine's node.
const PACKAGED: &str = "/etc/heimdall-uring/heimdall-uring.toml";

/// `[api]` of the config: the one that is named, or that of a package when nothing says where the node is. Mistakes elsewhere
/// in it are the node's to tell.
fn section_of(arguments: &Arguments) -> Result<crate::config::Api, Refusal> {
    let is_said = arguments.api.is_some() || std::env::var_os("HEIMDALL_API_LISTEN").is_some();
    let packaged = Path::new(PACKAGED);
    let usual = (!is_said && packaged.is_file()).then_some(packaged);
    let text = match arguments.config.as_deref().or(usual) {
        None => None,
        Some(path) => {
            let name = path.display().to_string();
            let text = read_bounded(path)
                .map_err(|cause| Refusal::Unreadable { path: name.clone(), cause })?;
            Some((name, text))
        }
    };
    let file = text.as_ref().map(|(name, text)| File { name, text });
    let environment = super::environment();
    Ok(Config::load_table("api", file, environment)?.api)
}

/// `path` with those of `parameters` that are said.
fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let said = parameters.iter().filter_map(|(key, value)| Some((key, (*value)?)));
    let said: Vec<String> = said.map(|(key, value)| format!("{key}={}", encoded(value))).collect();
    format!("{path}?{}", said.join("&"))
}

/// For a query string: what is no letter, digit, `-`, `.` or `_` as its octets (RFC 3986 §2.1).
fn encoded(text: &str) -> String {
    let encode = |octet: u8| match octet {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(octet).to_string()
        }
        _ => format!("%{octet:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_whatever_is_in_them() {
        assert_eq!(encoded("a-b_c.example."), "a-b_c.example.");
        assert_eq!(encoded("a b&c=d\\046\u{e9}"), "a%20b%26c%3Dd%5C046%C3%A9");
    }

    #[test]
    fn flush_says_only_what_was_said() {
        assert_eq!(what_to_flush(None, false, None, true), json!({ "all": true }));
        let body = json!({ "name": "a", "subtree": true, "type": "A" });
        assert_eq!(what_to_flush(Some("a"), true, Some("A"), false), body);
    }
}
