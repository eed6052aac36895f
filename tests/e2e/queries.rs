//! Queries written down: dnstap as Debian's own readers understand it, the store as `heimdall-uring queries` and SQLite's own client
//! read it, and a node that answers whatever becomes of both.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::client::{Datagrams, dig, exchange};
use crate::message::{self, A, query};
use crate::node::{Node, Setup, eventually, signal_to};
use crate::ports::{self, Directory};
use crate::scripted::{Scripted, Step};

const DROPPED: &str = "storage_queries_dropped_total";

fn upstream() -> Scripted {
    Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
    })
}

/// What blocks `ads.test`.
fn list(directory: &Directory) -> String {
    let path = directory.write("ads.txt", "||ads.test^\n");
    format!("[[list]]\nname = \"ads\"\nfile = \"{}\"\nanswer = \"nxdomain\"\n", path.display())
}

/// Asks what the tests look for: a miss, a hit over TCP, and what is blocked.
fn ask(node: &Node) {
    dig(node.address, "WWW.name.test A");
    dig(node.address, "+tcp www.name.test A");
    assert_eq!(dig(node.address, "x.ads.test AAAA").status, "NXDOMAIN");
}

fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("scripts/setup --tests");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn dnstap_read(path: &Path) -> String {
    printed("dnstap-read", &["-p", path.to_str().unwrap()])
}

fn sqlite(path: &Path, statement: &str) -> String {
    printed("sqlite3", &["-readonly", path.to_str().unwrap(), statement])
}

/// What `heimdall-uring queries` prints of the store at `path`.
fn queries(path: &Path, arguments: &[&str]) -> String {
    let path = path.to_str().unwrap();
    printed(env!("CARGO_BIN_EXE_heimdall-uring"), &[&["queries", path][..], arguments].concat())
}

/// How many queries are stored.
fn count(path: &Path) -> u64 {
    let count = sqlite(path, "SELECT coalesce(sum(records), 0) FROM block");
    count.trim().parse().unwrap()
}

fn stop(mut node: Node) {
    node.signal("TERM");
    assert!(node.wait_for_exit().success());
}

/// The lines of dnstap-read that tell of messages, without their time.
fn told(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.contains(" CQ ") || line.contains(" CR "));
    let words = lines.map(|line| line.split_whitespace().skip(2).collect::<Vec<_>>());
    words
        .map(|words| format!("{} {} {}", words[0], words[words.len() - 3], words[words.len() - 1]))
        .collect()
}

#[test]
fn dnstap_file_tells_each_query_and_reply() {
    let (upstream, directory) = (upstream(), Directory::create());
    let path = directory.path().join("queries.dnstap");
    let config = format!(
        "[dnstap]\nfile = \"{}\"\nidentity = \"here\"\n{}",
        path.display(),
        list(&directory)
    );
    let node = Setup::new().upstream(upstream.address).config(&config).start();
    ask(&node);
    stop(node);
    let text = dnstap_read(&path);
    let expected = [
        "CQ UDP WWW.name.test/IN/A",
        "CR UDP WWW.name.test/IN/A",
        "CQ TCP www.name.test/IN/A",
        "CR TCP www.name.test/IN/A",
        "CQ UDP x.ads.test/IN/AAAA",
        "CR UDP x.ads.test/IN/AAAA",
    ];
    assert_eq!(told(&text), expected, "{text}");
    assert!(text.contains("192.0.2.1") && text.contains("status: NXDOMAIN"), "{text}");
    let yaml = printed("dnstap-read", &["-y", path.to_str().unwrap()]);
    assert!(yaml.contains("identity: here") && yaml.contains("version: heimdall-uring "), "{yaml}");
}

/// `fstrm_capture` at a socket or port, writing to a file.
struct Capture {
    child: Child,
    path: PathBuf,
}

impl Capture {
    fn start(directory: &Directory, name: &str, arguments: &[&str]) -> Self {
        let path = directory.path().join(name);
        let child = Command::new("fstrm_capture")
            .args(["-t", "protobuf:dnstap.Dnstap", "-w", path.to_str().unwrap()])
            .args(arguments)
            .stderr(Stdio::null())
            .spawn()
            .expect("scripts/setup --tests");
        Self { child, path }
    }

    /// What it has received, once it has ended.
    fn received(mut self) -> String {
        signal_to(&self.child, "INT");
        assert!(self.child.wait().unwrap().success());
        dnstap_read(&self.path)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn receivers_of_dnstap_may_come_late_and_come_back() {
    let (upstream, directory) = (upstream(), Directory::create());
    let (socket, tcp) = (directory.path().join("dnstap.sock"), ports::own());
    let socket = socket.to_str().unwrap().to_owned();
    let config = format!("[dnstap]\nsocket = \"{socket}\"\ntcp = \"{tcp}\"\nqueries = false");
    let node = Setup::new().upstream(upstream.address).config(&config).start();
    dig(node.address, "a.test A");
    node.wait_for_line(&format!("dnstap: {socket}: "));
    let (host, port) = (tcp.ip().to_string(), tcp.port().to_string());
    let unix = Capture::start(&directory, "unix", &["-u", &socket]);
    let stream = Capture::start(&directory, "tcp", &["-a", &host, "-p", &port]);
    node.wait_for_line(&format!("dnstap: {socket}: there again"));
    node.wait_for_line(&format!("dnstap: {tcp}: there again"));
    dig(node.address, "b.test A");
    // The node waits for the receiver's word at its end: by then all is there.
    stop(node);
    for capture in [unix, stream] {
        assert_eq!(told(&capture.received()), ["CR UDP a.test/IN/A", "CR UDP b.test/IN/A"]);
    }
}

#[test]
fn store_has_what_was_asked_and_goes_on_after_a_kill() {
    let (upstream, directory) = (upstream(), Directory::create());
    let path = directory.path().join("queries.sqlite");
    let config = format!("[query_log]\npath = \"{}\"\n{}", path.display(), list(&directory));
    let start = || Setup::new().upstream(upstream.address).config(&config).start();
    let node = start();
    ask(&node);
    eventually("three queries are stored", || (count(&path) == 3).then_some(()));
    node.signal("KILL");
    drop(node);
    let node = start();
    dig(node.address, "last.test A");
    stop(node);
    // Newest first: number, name, type, client, transport, listener, group, answer, list, RCODE.
    let text = queries(&path, &["--csv"]);
    let mut rows: Vec<Vec<&str>> =
        text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    rows.reverse();
    let told = |row: &Vec<&str>| {
        let timed = if row[12].is_empty() { "at once" } else { "timed" };
        [row[0], row[2], row[3], row[6], row[8], row[9], row[10], row[11], timed].join("|")
    };
    assert!(rows.iter().all(|row| row[4].starts_with("127.")), "{text}");
    assert_eq!(
        rows.iter().map(told).collect::<Vec<_>>(),
        [
            "1|www.name.test|A|udp|default|forwarded||NOERROR|timed",
            "2|www.name.test|A|tcp|default|cache||NOERROR|at once",
            "3|x.ads.test|AAAA|udp|default|blocked|ads|NXDOMAIN|at once",
            "4|last.test|A|udp|default|forwarded||NOERROR|timed",
        ]
    );
    let blocked = queries(&path, &["--json", "--under", "ADS.test", "--answer", "blocked"]);
    assert!(blocked.starts_with("{\"queries\":[\n{\"id\":3,"), "{blocked}");
    assert!(blocked.contains("\"list\":\"ads\",\"rcode\":\"NXDOMAIN\","), "{blocked}");
    assert!(blocked.ends_with("}\n],\"next\":null,\"whole\":true}\n"), "{blocked}");
    let people = queries(&path, &["--limit", "1"]);
    let words: Vec<&str> = people.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words[3..8], ["last.test", "A", "forwarded", "-", "NOERROR"], "{people}");
    assert_eq!(sqlite(&path, "PRAGMA integrity_check"), "ok\n");
}

#[test]
fn node_answers_while_nobody_can_write() {
    /// Queries before the counters are looked at, and that are under way at a time.
    const ROUND: u64 = 8_192;
    const WINDOW: u64 = 64;
    let (upstream, directory) = (upstream(), Directory::create());
    let path = directory.path().join("queries.sqlite");
    // A receiver that never takes anything, nor says a word.
    let socket = directory.path().join("silent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let config = format!(
        "[query_log]\npath = \"{}\"\n[dnstap]\nsocket = \"{}\"\n{}",
        path.display(),
        socket.display(),
        list(&directory)
    );
    let node = Setup::new().upstream(upstream.address).config(&config).start();
    let mut locker = Command::new("sqlite3")
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/setup --tests");
    let mut orders = locker.stdin.take().unwrap();
    std::io::Write::write_all(&mut orders, b"BEGIN IMMEDIATE;\nSELECT 'mine';\n").unwrap();
    let mut word = [0; 5];
    std::io::Read::read_exact(locker.stdout.as_mut().unwrap(), &mut word).unwrap();
    assert_eq!(&word, b"mine\n");
    let client = Datagrams::to(node.address);
    let long = format!("{0}.{0}.{0}.ads.test", "x".repeat(63));
    let mut asked = 0_u64;
    eventually("something is dropped at both places", || {
        for _ in 0..ROUND / WINDOW {
            // Long names that differ fill a block soonest.
            let numbers = asked..asked + WINDOW;
            numbers.for_each(|number| client.send(&query(9, &format!("{number}.{long}"), A)));
            (0..WINDOW).for_each(|_| drop(client.receive_bytes()));
            asked += WINDOW;
        }
        let counters = node.counters();
        let dropped = |place: &str| counters.sum(DROPPED, &format!("place=\"{place}\""));
        assert_eq!(counters.sum("dns_queries_total", ""), asked, "all were answered");
        (dropped("store") > 0 && dropped("dnstap") > 0).then_some(())
    });
    drop(orders);
    assert!(locker.wait().unwrap().success());
    node.wait_for_line("queries are stored again");
    let counters = node.counters();
    let lost = counters.sum(DROPPED, "place=\"store\"") + counters.sum(DROPPED, "place=\"queue\"");
    stop(node);
    assert_eq!(count(&path) + lost, asked);
}

#[test]
fn file_of_somebody_else_stops_the_start_and_stays_as_it_is() {
    let directory = Directory::create();
    let path = directory.write("letter", "dear friend");
    let config = format!("[query_log]\npath = \"{}\"", path.display());
    let mut node = Setup::new().config(&config).spawn();
    assert!(!node.wait_for_exit().success());
    let log = node.log();
    assert!(log.contains("query_log.path: ") && log.contains("is not touched"), "{log}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "dear friend");
}

#[test]
fn two_nodes_are_told_apart_and_a_file_that_is_taken_away_is_begun_anew() {
    let (upstream, directory) = (upstream(), Directory::create());
    let path = directory.path().join("queries.sqlite");
    let config = format!("[query_log]\npath = \"{}\"", path.display());
    let node = Setup::new().upstream(upstream.address).config(&config).start();
    let mut second = Setup::new().upstream(upstream.address).config(&config).spawn();
    assert!(!second.wait_for_exit().success());
    assert!(second.log().contains("query_log.path: "), "{}", second.log());
    assert!(second.log().contains("another node that runs"), "{}", second.log());
    dig(node.address, "before.test A");
    eventually("the first query is stored", || (count(&path) == 1).then_some(()));
    let away = directory.path().join("away.sqlite");
    std::fs::rename(&path, &away).unwrap();
    dig(node.address, "after.test A");
    node.wait_for_line("somebody has taken the file away");
    stop(node);
    assert!(queries(&away, &[]).contains(" before.test "));
    let fresh = queries(&path, &[]);
    assert!(fresh.contains(" after.test ") && !fresh.contains(" before.test "), "{fresh}");
    let none = Command::new(env!("CARGO_BIN_EXE_heimdall-uring"))
        .args(["queries", "/nowhere/queries.sqlite"])
        .output()
        .unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("there is no such file"));
}

#[test]
fn groups_that_are_not_logged_leave_no_trace() {
    let (upstream, directory) = (upstream(), Directory::create());
    let path = directory.path().join("queries.sqlite");
    let config = format!(
        "[query_log]\npath = \"{}\"\n[[group]]\nname = \"default\"\nlog = false",
        path.display()
    );
    let node = Setup::new().upstream(upstream.address).config(&config).start();
    exchange(node.address, &query(9, "name.test", A));
    stop(node);
    assert_eq!(count(&path), 0);
}
