//! The command line: arguments become a config and one call. Nothing here knows how a node works.

mod ctl;
mod generate;
mod plan;
mod queries;
mod search;

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use thiserror::Error;

use crate::config::{
    self, Config, ConfigError, FILE_BYTES_MAX, File, Flag, Upstream, Value,
    resolv::{self, NameServers},
};
use crate::control::log::BeginError;
use crate::node::reload::Reading;
use crate::node::{self, NodeError, log};
use crate::sys::interfaces;

/// Where the system keeps its own upstreams.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Exit code for what the operator must mend.
const EXIT_USAGE: u8 = 2;

/// Exit code of a node that could not start or had to stop.
const EXIT_FAILURE: u8 = 1;

/// A DNS resolver: one executor, one io_uring and one cache shard per core.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// CPUs that get a worker: "auto", "numa:0", "0-15" or "0,2,4-7" [default: one per physical core]
    #[arg(long, value_name = "CPUS")]
    cores: Option<String>,
    /// Config file (TOML); see docs/CONFIGURATION.md
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to serve over UDP and TCP; may be repeated; replaces those of the config
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<String>,
    /// Resolver to forward to: ADDRESS[:PORT], tcp://ADDRESS or tls://ADDRESS#NAME (all forms: docs/CONFIGURATION.md);
    /// may be repeated; replaces those of the config [default: /etc/resolv.conf]
    #[arg(long, value_name = "UPSTREAM")]
    upstream: Vec<String>,
    /// Memory for everything: "auto" or a size such as "2GiB" [default: a cache of 256 MiB and what the rest needs]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// How datagrams cross the kernel's door: "uring" or "mmsg"
    #[arg(long, value_name = "BACKEND")]
    io: Option<String>,
    /// Check config, addresses, limits and kernel, print what would run, and exit
    #[arg(long)]
    check: bool,
    /// Print the machine and the chosen CPUs, and exit
    #[arg(long)]
    print_topology: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What else the program does than to serve.
#[derive(Debug, Subcommand)]
enum Command {
    /// Ask and command a node that runs
    Ctl(Box<ctl::Arguments>),
    /// Print what stands in a store of queries
    Queries(Box<queries::Arguments>),
    /// Print completions for a shell, or a manual page
    #[command(hide = true)]
    Generate {
        /// Which
        what: generate::What,
    },
}

const EXAMPLES: &str = "\
Examples:
  heimdall-uring --listen 127.0.0.1:5353
  heimdall-uring --cores 0-15 --listen 0.0.0.0:53 --listen [::]:53 --upstream 192.0.2.1
  heimdall-uring --config /etc/heimdall-uring/node.toml --check
  heimdall-uring ctl stats
  heimdall-uring queries /var/lib/heimdall-uring/queries.sqlite --under example.com

Every key of the config can be set by a variable: HEIMDALL_CACHE_SIZE=2GiB sets cache.size.
Flags win over variables, variables over the file.
Signals: SIGTERM and SIGINT drain and exit, SIGHUP reads the config anew,
SIGUSR1 prints all counters, SIGUSR2 writes the cache to its snapshot file.";

/// What keeps a command from being carried out.
#[derive(Debug, Error)]
enum Refusal {
    #[error("--config {path}: {cause}")]
    Unreadable { path: String, cause: io::Error },
    #[error("{place}: local.file = \"{path}\": {cause}")]
    ZoneFile { place: String, path: String, cause: io::Error },
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error(
        "no upstream: --upstream, HEIMDALL_FORWARD_UPSTREAMS and forward.upstreams are not set, and {RESOLV_CONF} {0}"
    )]
    NoUpstream(String),
    #[error(
        "upstream {upstream} is this node itself (it listens on {listen}): questions would run in circles"
    )]
    AsksItself { upstream: SocketAddr, listen: SocketAddr },
    #[error("{0}")]
    Node(#[from] NodeError),
    #[error("{0}")]
    Ctl(#[from] ctl::CtlError),
    #[error("{0}")]
    Queries(#[from] queries::QueriesError),
}

impl Refusal {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Ctl(error) if !error.is_usage() => EXIT_FAILURE,
            Self::Queries(_) => EXIT_FAILURE,
            Self::Ctl(_) => EXIT_USAGE,
            Self::Node(
                NodeError::Local(_)
                | NodeError::Hosts(_)
                | NodeError::Placement(_)
                | NodeError::Api(_)
                | NodeError::Memory(_)
                | NodeError::Trust(_)
                | NodeError::WarmUp(_)
                | NodeError::QueryLog(BeginError::Store { .. }),
            ) => EXIT_USAGE,
            Self::Node(_) => EXIT_FAILURE,
            Self::Unreadable { .. }
            | Self::ZoneFile { .. }
            | Self::Config(_)
            | Self::NoUpstream(_)
            | Self::AsksItself { .. } => EXIT_USAGE,
        }
    }
}

/// Runs the program with the process's own arguments and environment.
#[must_use]
pub fn run() -> ExitCode {
    let code = match carry_out(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            log::say(tracing::Level::ERROR, &format!("heimdall-uring: {refusal}\n"));
            ExitCode::from(refusal.exit_code())
        }
    };
    log::flush();
    code
}

fn carry_out(arguments: Arguments) -> Result<(), Refusal> {
    match arguments.command {
        Some(Command::Ctl(arguments)) => return ctl::run(&arguments),
        Some(Command::Queries(arguments)) => return Ok(queries::run(&arguments)?),
        Some(Command::Generate { what }) => {
            generate::print(what);
            return Ok(());
        }
        None => {}
    }
    let Reading { config, upstream_source, warnings } = assemble(&arguments)?;
    if arguments.print_topology {
        print(&node::topology_report(&config.node.cores)?);
        return Ok(());
    }
    if arguments.check {
        let checked = node::check(&config)?;
        let warnings = warnings.into_iter().chain(checked.warnings);
        let machine = node::topology_report(&config.node.cores)?;
        let warnings: String = warnings.map(|text| format!("warning: {text}\n")).collect();
        let plan = plan::describe(&config, &upstream_source, &checked.memory);
        let steering = format!("here:      datagrams find their cores by {}\n", checked.steering);
        let lists: String = checked.lists.iter().map(|text| format!("{text}\n")).collect();
        let tuning = checked.tuning;
        print(&format!(
            "{plan}{steering}\n{machine}\n{lists}{warnings}config is good\ntuning: {tuning}\n"
        ));
        return Ok(());
    }
    log_to_stderr(config.log)?;
    warnings.iter().for_each(|warning| tracing::warn!(target: log::REPORT, "{warning}"));
    let source = move || assemble(&arguments).map_err(|refusal| refusal.to_string());
    let reading = Reading { config, upstream_source, warnings };
    Ok(node::serve(reading, Box::new(source), plan::lines)?)
}

/// The config from all sources.
fn assemble(arguments: &Arguments) -> Result<Reading, Refusal> {
    let text = match &arguments.config {
        None => None,
        Some(path) => {
            let name = path.display().to_string();
            let text = read_bounded(path)
                .map_err(|cause| Refusal::Unreadable { path: name.clone(), cause })?;
            Some((name, text))
        }
    };
    let file = text.as_ref().map(|(name, text)| File { name, text });
    let environment = environment();
    let mut warnings = config::stray_variables(&environment);
    let mut config = Config::load(file, environment, &flags(arguments))?;
    for file in config.local_files.clone() {
        let records = read_bounded(&file.path).map_err(|cause| Refusal::ZoneFile {
            place: file.place.clone(),
            path: file.path.display().to_string(),
            cause,
        })?;
        config.local.push(file.with_records(records));
    }
    let mut source = "flag, environment or config".to_owned();
    if config.forward.root.upstreams.is_empty() && !arguments.print_topology {
        let (servers, passed_over) = system_upstreams()?;
        config.forward.root.upstreams = servers.into_iter().map(Upstream::udp).collect();
        warnings.extend(passed_over);
        RESOLV_CONF.clone_into(&mut source);
    }
    // A sandbox may hide the interfaces; loopback and stated addresses are compared all the same.
    refuse_circles(&config, &interfaces::addresses().unwrap_or_default())?;
    Ok(Reading { config, upstream_source: source, warnings })
}

/// The variables of the process.
fn environment() -> Vec<(String, String)> {
    let all = std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    });
    all.collect()
}

/// Reads a text file, but never more than a config may have: `--config` may name a device without end.
fn read_bounded(path: &Path) -> io::Result<String> {
    #[expect(clippy::disallowed_methods, reason = "the command line is the edge")]
    let file = std::fs::File::open(path)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn flags(arguments: &Arguments) -> Vec<Flag> {
    let text = |text: &Option<String>| text.clone().map(Value::Text);
    let list = |items: &Vec<String>| (!items.is_empty()).then(|| Value::List(items.clone()));
    let all = [
        ("--cores", "node", "cores", text(&arguments.cores)),
        ("--io", "node", "io", text(&arguments.io)),
        ("--memory", "node", "memory", text(&arguments.memory)),
        ("--listen", "node", "listen", list(&arguments.listen)),
        ("--upstream", "forward", "upstreams", list(&arguments.upstream)),
    ];
    let given = all
        .into_iter()
        .filter_map(|(flag, table, name, value)| Some(Flag { flag, table, name, value: value? }));
    given.collect()
}

/// The servers of the system, and warnings about lines that name none.
fn system_upstreams() -> Result<(Vec<SocketAddr>, Vec<String>), Refusal> {
    let text = read_bounded(Path::new(RESOLV_CONF))
        .map_err(|cause| Refusal::NoUpstream(format!("cannot be read: {cause}")))?;
    let NameServers { servers, passed_over } = resolv::name_servers(&text, interfaces::number);
    if servers.is_empty() {
        let lines = passed_over.iter().map(|line| format!("; {line}"));
        return Err(Refusal::NoUpstream(format!("names no server{}", lines.collect::<String>())));
    }
    let warn = |line| format!("{RESOLV_CONF}, {line}: the line is passed over");
    Ok((servers, passed_over.into_iter().map(warn).collect()))
}

/// Refuses upstreams that are this node's own listeners. `own` are the addresses of the machine's interfaces, at all of
/// which a wildcard listens.
fn refuse_circles(config: &Config, own: &BTreeSet<IpAddr>) -> Result<(), Refusal> {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
    let listeners: BTreeSet<SocketAddr> = config.node.listen.iter().copied().map(plain).collect();
    for upstream in config.forward.all_upstreams().map(|upstream| upstream.address) {
        let ip = upstream.ip();
        let any: IpAddr = match ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let any = SocketAddr::new(any, upstream.port());
        let is_ours = ip.is_loopback() || own.contains(&ip);
        let listen = [Some(plain(upstream)), is_ours.then_some(any)];
        let circle = listen.into_iter().flatten().find(|address| listeners.contains(address));
        if let Some(listen) = circle {
            return Err(Refusal::AsksItself { upstream, listen });
        }
    }
    Ok(())
}

fn print(text: &str) {
    // A closed pipe is the reader's choice.
    let _ = io::stdout().write_all(text.as_bytes());
}

fn log_to_stderr(section: config::Log) -> Result<(), NodeError> {
    log::start().map_err(|cause| NodeError::System { what: "cannot start a thread", cause })?;
    log::begin(section, io::stderr().is_terminal());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str, upstream: &str) -> Config {
        let mut config = Config::default();
        config.node.listen = vec![listen.parse().unwrap()];
        config.forward.root.upstreams = vec![Upstream::udp(upstream.parse().unwrap())];
        config
    }

    #[test]
    fn arguments_are_well_formed() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn endless_file_is_cut_before_it_fills_the_memory() {
        let error = read_bounded(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.to_string(), "longer than 16777216 bytes");
    }

    #[test]
    fn node_never_asks_itself() {
        let own = ["127.0.0.1", "192.168.7.5", "2001:db8::5"].map(|ip| ip.parse().unwrap());
        let refuse = |listen, upstream| refuse_circles(&config(listen, upstream), &own.into());
        for (listen, upstream) in [
            ("127.0.0.1:53", "127.0.0.1:53"),
            ("0.0.0.0:53", "127.0.0.53:53"),
            ("[::]:53", "[::1]:53"),
            ("192.168.7.5:53", "192.168.7.5:53"),
            ("0.0.0.0:53", "192.168.7.5:53"),
            ("[::]:53", "[2001:db8::5]:53"),
        ] {
            assert!(refuse(listen, upstream).is_err(), "{listen} {upstream}");
        }
        for (listen, upstream) in [
            ("127.0.0.1:5353", "127.0.0.1:53"),
            ("127.0.0.1:53", "127.0.0.53:53"),
            ("0.0.0.0:53", "192.0.2.1:53"),
            ("[::]:53", "127.0.0.1:53"),
            ("127.0.0.1:53", "192.168.7.5:53"),
            ("0.0.0.0:53", "192.168.7.5:5300"),
            ("[::]:53", "192.168.7.5:53"),
            ("0.0.0.0:53", "192.168.7.6:53"),
        ] {
            assert!(refuse(listen, upstream).is_ok(), "{listen} {upstream}");
        }
    }
}
