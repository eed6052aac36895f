//! The binary under test as a child process: started on free addresses, watched through its log, stopped, killed on drop.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::ports::{self, Directory};

/// Longest wait for anything that must happen. Generous: the machine may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The log is complete when it was still for this long after a counter dump began (which is a single write).
const DUMP_QUIET: Duration = Duration::from_millis(100);

/// An upstream address where nobody is.
const NOBODY: &str = "127.0.0.1:1";

/// Waits until `condition` gives a value, asking again and again.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The CPUs that this process may use.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let ranges = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    });
    ranges.flatten().collect()
}

/// Sends a signal: `TERM`, `INT`, `USR1`.
pub(crate) fn signal_to(child: &Child, signal: &str) {
    let kill = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
}

/// What a node is started with.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    listen: Vec<SocketAddr>,
    upstreams: Vec<String>,
    config: String,
    cores: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    descriptors: Option<u32>,
    has_upstreams: bool,
    api: Option<String>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Serves `address` instead of one of its own.
    pub(crate) fn listen(mut self, address: SocketAddr) -> Self {
        self.listen.push(address);
        self
    }

    /// Forwards to `upstream`: an address, or more as in the config.
    pub(crate) fn upstream(mut self, upstream: impl ToString) -> Self {
        self.upstreams.push(upstream.to_string());
        self
    }

    /// Forwards to whom the config or the environment names.
    pub(crate) fn upstreams_elsewhere(mut self) -> Self {
        self.has_upstreams = true;
        self
    }

    /// Appends to the config file.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// Serves the API at `place`, as in the config.
    pub(crate) fn api(mut self, place: impl ToString) -> Self {
        self.api = Some(place.to_string());
        self
    }

    pub(crate) fn cores(mut self, cores: &str) -> Self {
        self.cores = Some(cores.into());
        self
    }

    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Allows it no more descriptors.
    pub(crate) fn descriptors(mut self, count: u32) -> Self {
        self.descriptors = Some(count);
        self
    }

    /// Starts the node and waits until it serves.
    pub(crate) fn start(self) -> Node {
        let node = self.spawn();
        node.wait_for_line("serving");
        node
    }

    /// Starts the node and does not wait.
    pub(crate) fn spawn(mut self) -> Node {
        let directory = Directory::create();
        let command = self.command(&directory);
        Node::spawn(command, self.listen[0], directory)
    }

    /// Runs a command that ends by itself and gives what it printed; it must succeed.
    pub(crate) fn printed(mut self) -> String {
        let output = self.command(&Directory::create()).output().expect("the binary starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The command that starts it, with its config in `directory`.
    pub(crate) fn command(&mut self, directory: &Directory) -> Command {
        if self.listen.is_empty() {
            self.listen.push(ports::own());
        }
        if self.upstreams.is_empty() && !self.has_upstreams {
            self.upstreams.push(NOBODY.to_owned());
        }
        let cores = self.cores.take().unwrap_or_else(|| {
            // One worker, so that a second query finds what the first one left; tests side by side take turns.
            let cpus = allowed_cpus();
            cpus[usize::from(self.listen[0].port()) % cpus.len()].to_string()
        });
        const PROGRAM: &str = env!("CARGO_BIN_EXE_heimdall-uring");
        // What confines the node (`TEST_UNDER=scripts/under-filter`), gets the program and its arguments.
        let under = std::env::var("TEST_UNDER").ok();
        let mut words: Vec<&str> = under.iter().map(String::as_str).chain([PROGRAM]).collect();
        let limit =
            self.descriptors.map(|count| format!("ulimit -n {count} && exec \"$0\" \"$@\""));
        if let Some(limit) = &limit {
            words.splice(0..0, ["sh", "-c", limit]);
        }
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.arg("--config").arg(directory.write("node.toml", &self.config));
        command.args(["--cores", &cores]);
        for address in &self.listen {
            command.args(["--listen", &address.to_string()]);
        }
        for upstream in &self.upstreams {
            command.args(["--upstream", upstream]);
        }
        // The zones of these tests are below `test.` and come from upstreams.
        command.env("HEIMDALL_SPECIAL_TEST", "false");
        // Nodes run side by side: no two may have the default address.
        command.env("HEIMDALL_API_LISTEN", self.api.as_deref().unwrap_or("off"));
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    is_closed: bool,
}

/// What the node has written to stderr so far.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

impl Log {
    /// Waits until `found` gives something, the log ends or `patience` is over.
    fn wait<T>(
        &self,
        patience: Duration,
        mut found: impl FnMut(&[String]) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + patience;
        let mut guard = self.lines.lock().unwrap();
        loop {
            if let Some(value) = found(&guard.lines) {
                return Some(value);
            }
            let left = end.checked_duration_since(Instant::now()).filter(|_| !guard.is_closed)?;
            guard = self.changed.wait_timeout(guard, left).unwrap().0;
        }
    }
}

/// A running (or just ended) node.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    log: Arc<Log>,
    /// The first address it serves.
    pub(crate) address: SocketAddr,
    directory: Directory,
}

impl Node {
    fn spawn(mut command: Command, address: SocketAddr, directory: Directory) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env("NO_COLOR", "1");
        let mut child = command.spawn().expect("the binary starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Log::default());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                writer.lines.lock().unwrap().lines.push(line);
                writer.changed.notify_all();
            }
            writer.lines.lock().unwrap().is_closed = true;
            writer.changed.notify_all();
        });
        Self { child, log, address, directory }
    }

    /// Waits for a log line that contains `part`.
    pub(crate) fn wait_for_line(&self, part: &str) -> String {
        let found = |lines: &[String]| lines.iter().find(|line| line.contains(part)).cloned();
        let line = self.log.wait(PATIENCE, found);
        line.unwrap_or_else(|| panic!("no line of the log says `{part}`"))
    }

    /// Puts `toml` in the place of its config file.
    pub(crate) fn reconfigure(&self, toml: &str) {
        self.directory.write("node.toml", toml);
    }

    /// Has it read its config anew and gives the line that says what came of it.
    pub(crate) fn reload(&self) -> String {
        let start = self.log.lines.lock().unwrap().lines.len();
        self.signal("HUP");
        let is_outcome = |line: &&String| {
            ["reload: applied", "reload: nothing", "reload refused"]
                .iter()
                .any(|outcome| line.contains(outcome))
        };
        let found = |lines: &[String]| lines[start..].iter().find(is_outcome).cloned();
        self.log.wait(PATIENCE, found).expect("a reload ends")
    }

    /// Puts `toml` in force, or as much of it as can be.
    pub(crate) fn reload_with(&self, toml: &str) -> String {
        self.reconfigure(toml);
        self.reload()
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().unwrap().lines.join("\n")
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident bytes of the process, without the program itself.
    pub(crate) fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        1024 * line.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    }

    /// Sends a signal: `TERM`, `INT`, `USR1`.
    pub(crate) fn signal(&self, signal: &str) {
        signal_to(&self.child, signal);
    }

    /// Waits for the end of the process.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        let status = eventually("exit", || self.child.try_wait().unwrap());
        // The pipe may still hold the last words.
        self.log.wait(PATIENCE, |_| None::<()>);
        status
    }

    /// Asks for the counters and waits for all of them.
    pub(crate) fn counters(&self) -> Counters {
        let start = self.log.lines.lock().unwrap().lines.len();
        self.signal("USR1");
        let has_begun = |lines: &[String]| {
            lines[start..].iter().any(|line| line.starts_with("dns_queries_total")).then_some(())
        };
        self.log.wait(PATIENCE, has_begun).expect("SIGUSR1 prints the counters");
        let mut seen = 0;
        loop {
            let grown = |lines: &[String]| (lines.len() > seen).then_some(lines.len());
            match self.log.wait(DUMP_QUIET, grown) {
                Some(count) => seen = count,
                None => return Counters::read(&self.log.lines.lock().unwrap().lines[start..]),
            }
        }
    }

    /// Waits until the sum of `name` over all samples is at least `count`.
    pub(crate) fn wait_for_count(&self, name: &str, count: u64) {
        eventually(&format!("{name} >= {count}"), || {
            (self.counters().sum(name, "") >= count).then_some(())
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the node at {} ---\n{}\n---", self.address, self.log());
        }
        // Fails only when it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A counter dump: samples in the order they were printed.
#[derive(Debug)]
pub(crate) struct Counters(Vec<(String, u64)>);

impl Counters {
    fn read(lines: &[String]) -> Self {
        let samples = lines.iter().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// The sum of all samples of the family `name` that have each label of `label` (separated by commas; empty: all).
    pub(crate) fn sum(&self, name: &str, label: &str) -> u64 {
        let is_asked = |sample: &str| {
            let (family, labels) = sample.split_once('{').unwrap_or((sample, ""));
            family == name && label.split(',').all(|part| labels.contains(part))
        };
        let samples: Vec<_> = self.0.iter().filter(|(sample, _)| is_asked(sample)).collect();
        assert!(!samples.is_empty(), "no counter {name} with {label:?} in {:#?}", self.0);
        samples.iter().map(|(_, value)| value).sum()
    }
}

/// The cache clock of a node, moved by hand through `DNS_TEST_CLOCK`.
#[derive(Debug)]
pub(crate) struct Clock(Directory);

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = Self(Directory::create());
        clock.set(0);
        clock
    }

    /// The value for the environment variable.
    pub(crate) fn path(&self) -> String {
        self.0.path().join("offset").to_str().unwrap().into()
    }

    /// Moves the clock to `seconds` ahead of the wall clock.
    pub(crate) fn set(&self, seconds: i64) {
        // Renamed into place: the node never reads half a number.
        let fresh = self.0.write("offset.fresh", &format!("{seconds}\n"));
        std::fs::rename(fresh, self.path()).unwrap();
    }
}
