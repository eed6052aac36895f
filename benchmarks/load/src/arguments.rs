//! What the command line asks for, checked.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use ipnet::IpNet;

use crate::pace::Arrivals;
use crate::questions::{Domains, Wanted};

/// Asks a DNS server and tells how long its answers took.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// The server: an address, with a port unless it is 53, or 853 with --proto dot
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    server: String,
    /// What questions are asked over; the certificate of a TLS server is not looked at
    #[arg(long, value_enum, default_value_t = Transport::Udp)]
    proto: Transport,
    /// Questions per second; 0 keeps --window of them open and asks as fast as answers come
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    qps: u64,
    /// How long to ask, such as 500ms, 30s or 10m
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration)]
    duration: Duration,
    /// How long to ask before anything counts
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = duration)]
    warm_up: Duration,
    /// How long an answer may take; later ones are lost
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = duration)]
    timeout: Duration,
    /// Which names are asked for
    #[arg(long, value_enum, default_value_t = Domains::Hot)]
    domains: Domains,
    /// How many different names there are; by default 1000, and 100000 for zipf and mix
    #[arg(long, value_name = "N")]
    names: Option<u32>,
    /// The exponent of zipf and mix: the greater, the more often popular names are asked for
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    exponent: f64,
    /// Ask the lines of this file instead, a name and a type each, as dnsperf reads them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["domains", "names"])]
    file: Option<PathBuf>,
    /// The names of `blocked` and of a part of `mix`, one per line; by default adNNNNNNNN.blocked.test
    #[arg(long, value_name = "FILE")]
    blocked: Option<PathBuf>,
    /// How questions follow each other
    #[arg(long, value_enum, default_value_t = Arrivals::Even)]
    arrivals: Arrivals,
    /// Open questions with --qps 0
    #[arg(long, default_value_t = 1000, value_name = "N")]
    window: u32,
    /// Addresses to ask from: the first --clients of this prefix. All of it must be local: 127.0.0.0/8 is
    #[arg(long, value_name = "PREFIX")]
    from: Option<IpNet>,
    /// How many addresses of --from ask
    #[arg(long, default_value_t = 10_000, value_name = "N", requires = "from")]
    clients: u32,
    /// Source ports of each thread, or connections: by default 16, and 100 over streams
    #[arg(long, value_name = "N")]
    ports: Option<u16>,
    /// CPUs to ask from, a thread on each, such as 1 or 2,3
    #[arg(long, value_delimiter = ',', value_name = "CPUS")]
    cpus: Vec<usize>,
    /// Sizes of answers that are said to be welcome (EDNS); 0 asks without EDNS
    #[arg(long, default_value_t = 1232, value_name = "BYTES")]
    edns: u16,
    /// What random choices begin with
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// A process of this machine whose CPU time is told per answer: the server's
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// No line per second on stderr
    #[arg(long)]
    quiet: bool,
    /// Ask nobody: print so many of the questions, as --file and dnsperf read them
    #[arg(long, value_name = "N", conflicts_with = "json")]
    print: Option<u32>,
}

/// What carries questions.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Transport {
    /// Datagrams.
    Udp,
    /// Connections that stay open.
    Tcp,
    /// The same, over TLS.
    Dot,
}

impl Transport {
    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Dot => "dot",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) server: SocketAddr,
    pub(crate) transport: Transport,
    /// `None`: as many as [`Plan::window`] allows.
    pub(crate) qps: Option<u64>,
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) timeout: Duration,
    pub(crate) wanted: Wanted,
    pub(crate) arrivals: Arrivals,
    pub(crate) window: u32,
    pub(crate) from: Option<(IpNet, u32)>,
    /// Source ports or connections of each thread.
    pub(crate) lanes: u16,
    /// `None`: wherever the system puts the thread.
    pub(crate) cpus: Vec<Option<usize>>,
    pub(crate) seed: u64,
    pub(crate) server_pid: Option<u32>,
    pub(crate) is_json: bool,
    pub(crate) is_quiet: bool,
    /// How many questions are printed instead of asked.
    pub(crate) print: Option<u32>,
}

const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
const QPS_MAX: u64 = 100_000_000;
const WINDOW_MAX: u64 = 500_000;
const NAMES_MAX: u32 = 10_000_000;
const LANES_MAX: u16 = 4096;
const CPUS_MAX: usize = 256;

impl Arguments {
    /// Checks them.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn plan(self) -> Result<Plan, String> {
        let transport = self.proto;
        let server = server(&self.server, if transport == Transport::Dot { 853 } else { 53 })?;
        let lanes = self.ports.unwrap_or(if transport == Transport::Udp { 16 } else { 100 });
        within("--qps", self.qps, 0, QPS_MAX)?;
        within("--ports", u64::from(lanes), 1, u64::from(LANES_MAX))?;
        within("--window", u64::from(self.window), 1, WINDOW_MAX)?;
        if self.duration.is_zero() || self.duration > DURATION_MAX {
            return Err("--duration: expected more than 0 and up to 24h".to_owned());
        }
        if self.timeout.is_zero() || self.timeout > TIMEOUT_MAX {
            return Err("--timeout: expected more than 0 and up to 30s".to_owned());
        }
        if !(self.exponent.is_finite() && (0.0..=10.0).contains(&self.exponent)) {
            return Err("--exponent: expected 0 to 10".to_owned());
        }
        let names = self.names.unwrap_or_else(|| self.domains.usual_count());
        within("--names", u64::from(names), 1, u64::from(NAMES_MAX))?;
        let mut cpus: Vec<Option<usize>> = self.cpus.into_iter().map(Some).collect();
        if cpus.len() > CPUS_MAX {
            return Err(format!("--cpus: expected {CPUS_MAX} at most"));
        }
        if cpus.is_empty() {
            cpus.push(None);
        }
        let wanted = Wanted {
            domains: self.domains,
            count: names,
            exponent: self.exponent,
            file: self.file,
            blocked: self.blocked,
            edns: self.edns,
        };
        Ok(Plan {
            from: sources(self.from, self.clients, server)?,
            server,
            transport,
            qps: (self.qps > 0).then_some(self.qps),
            duration: self.duration,
            warm_up: self.warm_up,
            timeout: self.timeout,
            wanted,
            arrivals: self.arrivals,
            window: self.window,
            lanes,
            cpus,
            seed: self.seed,
            server_pid: self.server_pid,
            is_json: self.json,
            is_quiet: self.quiet,
            print: self.print,
        })
    }
}

fn within(flag: &str, value: u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(format!("{flag} {value}: expected {least} to {most}"))
    }
}

fn server(text: &str, port: u16) -> Result<SocketAddr, String> {
    let whole = text.parse::<SocketAddr>().ok();
    let bare = || text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port));
    whole.or_else(bare).ok_or_else(|| {
        format!(
            "--server {text}: expected an address such as 192.0.2.1, 192.0.2.1:5353 or [::1]:53"
        )
    })
}

/// The prefix and how many of its addresses ask.
fn sources(
    from: Option<IpNet>,
    clients: u32,
    server: SocketAddr,
) -> Result<Option<(IpNet, u32)>, String> {
    let Some(from) = from else { return Ok(None) };
    if from.addr().is_ipv4() != server.is_ipv4() {
        return Err(format!("--from {from}: not of the server's address family"));
    }
    let bits = u32::from(from.max_prefix_len() - from.prefix_len()).min(31);
    within("--clients", u64::from(clients), 1, 1 << bits)?;
    Ok(Some((from.trunc(), clients)))
}

/// A number and its unit: `ms`, `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let milliseconds = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a time such as 500ms, 30s or 10m".to_owned()),
    };
    let count = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(milliseconds));
    count
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a whole number and its unit".to_owned())
}

impl Domains {
    /// How many names there are when nothing is said.
    const fn usual_count(self) -> u32 {
        match self {
            Self::Hot | Self::Unique | Self::Blocked => 1_000,
            Self::Zipf | Self::Mix => 100_000,
        }
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("heimdall-load").chain(line.split_whitespace());
        Arguments::try_parse_from(words).map_err(|error| error.to_string())?.plan()
    }

    #[test]
    fn server_may_come_without_port() {
        assert_eq!(plan("--server 192.0.2.1").unwrap().server, "192.0.2.1:53".parse().unwrap());
        assert_eq!(plan("--server [::1]:5353").unwrap().server, "[::1]:5353".parse().unwrap());
        let dot = plan("--server ::1 --proto dot").unwrap();
        assert_eq!((dot.server.port(), dot.lanes), (853, 100));
        assert!(plan("--server example.org").unwrap_err().contains("expected an address"));
    }

    #[test]
    fn mistakes_name_the_flag_and_what_is_allowed() {
        for (line, part) in [
            ("--server ::1 --duration 0s", "--duration"),
            ("--server ::1 --duration 3", "30s"),
            ("--server ::1 --ports 0", "--ports 0: expected 1 to 4096"),
            ("--server ::1 --from 127.0.0.0/8", "address family"),
            (
                "--server 127.0.0.1 --from 127.1.0.0/24 --clients 257",
                "--clients 257: expected 1 to 256",
            ),
            ("--server ::1 --window 0", "--window 0"),
            ("--server ::1 --exponent nan", "--exponent"),
        ] {
            let mistake = plan(line).unwrap_err();
            assert!(mistake.contains(part), "{line}: {mistake}");
        }
    }

    #[test]
    fn no_rate_is_a_window() {
        assert_eq!(plan("--server ::1 --qps 0").unwrap().qps, None);
        assert_eq!(plan("--server ::1 --duration 2m").unwrap().duration, Duration::from_secs(120));
    }
}
