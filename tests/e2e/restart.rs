//! What survives a restart: the cache, by its snapshot file, and nothing of a file that cannot be trusted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::{Datagrams, Stream, exchange};
use crate::message::{self, A, NOERROR, SERVFAIL, query};
use crate::node::{Clock, Node, Setup, allowed_cpus, eventually};
use crate::ports::Directory;
use crate::scripted::{Scripted, Step};

/// Whoever has no answer at hand says so soon.
const HASTY: &str = "[forward]\nattempt_timeout = \"50ms\"\ndeadline = \"200ms\"";

/// A directory with the place of a snapshot in it, and the config that names it.
struct Kept {
    directory: Directory,
    path: PathBuf,
}

impl Kept {
    fn create() -> Self {
        let directory = Directory::create();
        let path = directory.path().join("cache");
        Self { directory, path }
    }

    fn setup(&self) -> Setup {
        let path = self.path.to_str().unwrap();
        let keys = format!("[cache]\nsnapshot = \"{path}\"\nsnapshot_interval = \"0s\"\n{HASTY}");
        Setup::new().config(&keys)
    }

    /// A node whose upstream answers.
    fn first(&self) -> (Scripted, Node) {
        let upstream = Scripted::start(|asked| {
            vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
        });
        let node = self.setup().upstream(upstream.address).start();
        (upstream, node)
    }

    /// A node whose upstream is gone.
    fn second(&self) -> Node {
        self.setup().start()
    }
}

/// The config of a zone that is asked of `upstream`.
fn corp(upstream: &Scripted) -> String {
    format!("[[forward]]\nzone = \"corp.example\"\nupstreams = [\"{}\"]", upstream.address)
}

/// RCODE and TTL of the first record.
fn ask(node: &Node, qname: &str) -> (u16, Option<u32>) {
    let reply = exchange(node.address, &query(9, qname, A));
    (reply.rcode(), reply.records.first().map(|record| record.ttl))
}

fn is_answered(node: &Node, qname: &str) -> bool {
    matches!(ask(node, qname), (NOERROR, Some(1..=300)))
}

fn stop(mut node: Node) -> String {
    // A snapshot holds what was stored before its millisecond; the last answer may have come in this one.
    std::thread::sleep(Duration::from_millis(5));
    node.signal("TERM");
    assert!(node.wait_for_exit().success());
    node.log()
}

#[test]
fn restart_keeps_the_answers_when_the_upstream_is_gone() {
    let kept = Kept::create();
    let (_upstream, node) = kept.first();
    for name in ["a.test", "b.test"] {
        assert_eq!(ask(&node, name), (NOERROR, Some(300)));
    }
    assert!(stop(node).contains("2 entries"));
    let node = kept.second();
    assert!(is_answered(&node, "a.test") && is_answered(&node, "b.test"));
    assert_eq!(ask(&node, "c.test").0, SERVFAIL);
    let counters = node.counters();
    assert_eq!(counters.sum("dns_cache_restored_total", ""), 2);
    assert_eq!(counters.sum("dns_cache_hits_total", ""), 2);
    // And once more: what was restored is written again.
    stop(node);
    assert!(is_answered(&kept.second(), "a.test"));
}

#[test]
fn entries_past_their_lifetime_stay_behind() {
    let kept = Kept::create();
    let (_upstream, node) = kept.first();
    assert!(is_answered(&node, "a.test"));
    stop(node);
    let clock = Clock::new();
    for (seconds, expected) in [(200, NOERROR), (301, SERVFAIL), (-100, SERVFAIL)] {
        clock.set(seconds);
        let before = std::fs::read(&kept.path).unwrap();
        let node = kept.setup().environment("DNS_TEST_CLOCK", &clock.path()).start();
        assert_eq!(ask(&node, "a.test").0, expected, "{seconds} s later");
        stop(node);
        std::fs::write(&kept.path, before).unwrap();
    }
}

#[test]
fn sigusr2_writes_the_file_and_a_killed_node_leaves_it() {
    let kept = Kept::create();
    let (_upstream, mut node) = kept.first();
    assert!(is_answered(&node, "a.test"));
    node.signal("USR2");
    node.wait_for_line("1 entries");
    assert_eq!(node.counters().sum("dns_cache_snapshots_total", "written"), 1);
    assert!(is_answered(&node, "b.test"));
    node.signal("KILL");
    node.wait_for_exit();
    let node = kept.second();
    assert!(is_answered(&node, "a.test"));
    assert_eq!(ask(&node, "b.test").0, SERVFAIL, "it came after the snapshot");
}

#[test]
fn snapshot_is_written_at_intervals() {
    let kept = Kept::create();
    let path = kept.path.to_str().unwrap();
    let keys = format!("[cache]\nsnapshot = \"{path}\"\nsnapshot_interval = \"1s\"");
    let node = Setup::new().config(&keys).start();
    node.wait_for_count("dns_cache_snapshots_total", 2);
    assert!(node.counters().sum("dns_cache_snapshots_total", "written") >= 2);
    assert!(kept.path.exists());
}

#[test]
fn node_killed_in_the_middle_of_writing_leaves_the_file_of_before() {
    let kept = Kept::create();
    let (_upstream, mut node) = kept.first();
    let mut stream = Stream::connect(node.address);
    for number in 0..5_000 {
        stream.exchange(&query(number, &format!("host{number}.site.test"), A));
    }
    node.signal("USR2");
    node.wait_for_line("5000 entries");
    let under_way = kept.directory.path().join("cache.tmp");
    node.signal("USR2");
    let mut looks = 0;
    // Finer than `eventually` looks: writing takes some milliseconds.
    while !under_way.exists() && looks < 5_000 {
        std::thread::sleep(Duration::from_micros(500));
        looks += 1;
    }
    node.signal("KILL");
    node.wait_for_exit();
    let node = kept.second();
    assert!(node.log().contains("5000 entries"), "{}", node.log());
    assert!(is_answered(&node, "host4999.site.test"));
    assert!(stop(node).contains("5000 entries"), "what was left half-written is no obstacle");
    assert!(!under_way.exists());
}

fn serves_without(kept: &Kept, reason: &str) {
    let node =
        kept.setup().config("[[local]]\nzone = \"local.test.\"\nrecords = \"www A 192.0.2.1\"");
    let node = node.start();
    let line = node.wait_for_line("ignored");
    assert!(line.contains(reason) && line.contains("cache"), "no `{reason}` in {line}");
    assert_eq!(ask(&node, "www.local.test").0, NOERROR);
    assert_eq!(ask(&node, "a.test").0, SERVFAIL, "nothing of it is used");
    assert_eq!(node.counters().sum("dns_cache_entries", ""), 0);
}

#[test]
fn file_that_is_torn_foreign_or_flipped_is_reported_and_the_node_serves() {
    let kept = Kept::create();
    let (_upstream, node) = kept.first();
    assert!(is_answered(&node, "a.test"));
    stop(node);
    let good = std::fs::read(&kept.path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        bytes
    };
    // As it was before zones could have upstreams of their own: without the number of them.
    let mut former = [&good[..24], &good[28..]].concat();
    former[8] = 1;
    let name = good.windows(7).position(|part| part == b"\x01a\x04test").unwrap();
    for (content, reason) in [
        (good[..good.len() - 7].to_vec(), "torn"),
        (Vec::new(), "no snapshot"),
        (b"<html>not a cache at all</html>".repeat(100), "no snapshot"),
        (flipped(8), "version 6"),
        (former, "version 1"),
        (flipped(name + 1), "checksum"),
        (flipped(good.len() - 3), "checksum"),
    ] {
        std::fs::write(&kept.path, content).unwrap();
        serves_without(&kept, reason);
    }
    std::fs::remove_file(&kept.path).unwrap();
    std::fs::create_dir(&kept.path).unwrap();
    serves_without(&kept, "no regular file");
}

#[test]
fn answers_of_others_than_are_asked_today_stay_behind() {
    let answering = || {
        Scripted::start(|asked| {
            vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
        })
    };
    let kept = Kept::create();
    let (one, other, root) = (answering(), answering(), answering());
    let names = ["corp.example", "host.corp.example", "www.example"];
    let path = kept.path.to_str().unwrap();
    let keys = format!("[cache]\nsnapshot = \"{path}\"\nsnapshot_interval = \"0s\"");
    let ask_all = |zone: &str, upstream: &Scripted| {
        let setup = Setup::new().config(&keys).upstream(upstream.address).config(zone);
        let node = setup.start();
        for name in names {
            assert!(is_answered(&node, name), "{name}");
        }
        let restored = node.counters().sum("dns_cache_restored_total", "");
        stop(node);
        restored
    };
    assert_eq!(ask_all("", &root), 0);
    assert_eq!(ask_all(&corp(&one), &root), 1, "the zone is new");
    assert_eq!(one.asked().len(), 2);
    assert_eq!(ask_all(&corp(&one), &answering()), 3, "the root's may change");
    assert_eq!(ask_all(&corp(&other), &root), 1, "the zone's may not");
    assert_eq!(ask_all("", &root), 1, "the zone is gone");
    let asked = |server: &Scripted| server.asked().len();
    assert_eq!([asked(&root), asked(&one), asked(&other)], [5, 2, 2]);
}

/// Asks for each name over sockets of many ports, which the kernel deals to all cores.
fn is_answered_everywhere(node: &Node, names: &[String]) -> bool {
    (0..12).all(|_| {
        let socket = Datagrams::to(node.address);
        names.iter().all(|name| socket.exchange(&query(5, name, A)).rcode() == NOERROR)
    })
}

#[test]
fn another_number_of_cores_finds_the_same_answers() {
    let cpus = allowed_cpus();
    let cores = |count: usize| {
        let cpus = cpus.iter().take(count).map(ToString::to_string);
        cpus.collect::<Vec<_>>().join(",")
    };
    let names: Vec<String> = (0..20).map(|number| format!("n{number}.test")).collect();
    for (before, after) in [(1, 2), (2, 1)] {
        let kept = Kept::create();
        let (upstream, node) = kept.first();
        stop(node);
        let node = kept.setup().upstream(upstream.address).cores(&cores(before)).start();
        assert!(is_answered_everywhere(&node, &names));
        stop(node);
        let node = kept.setup().cores(&cores(after)).start();
        assert!(is_answered_everywhere(&node, &names), "{before} to {after}:\n{}", node.log());
    }
}

fn checked(path: &Path) -> String {
    let keys = format!("[cache]\nsnapshot = \"{}\"", path.display());
    Setup::new().config(&keys).argument("--check").printed()
}

#[test]
fn file_that_cannot_be_written_is_told_before_and_stops_nobody() {
    let kept = Kept::create();
    let good = checked(&kept.path);
    assert!(good.contains(kept.path.to_str().unwrap()) && !good.contains("cannot be written"));
    let lost = kept.directory.path().join("nowhere/cache");
    assert!(checked(&lost).contains("warning: cache.snapshot"), "{}", checked(&lost));
    let keys = format!("[cache]\nsnapshot = \"{}\"", lost.display());
    let node = Setup::new().config(&keys).start();
    node.wait_for_line("cache.snapshot");
    node.signal("USR2");
    node.wait_for_count("dns_cache_snapshots_total", 1);
    assert!(stop(node).contains("cannot be written"));
}

#[test]
fn sigusr2_without_a_file_is_a_warning() {
    let node = Setup::new().start();
    node.signal("USR2");
    node.wait_for_line("names no file");
    eventually("an answer", || Some(ask(&node, "a.test")).filter(|reply| reply.0 == SERVFAIL));
}
