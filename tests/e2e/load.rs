//! A short run under load: nothing is lost at a rate that any machine bears.

use std::process::Command;

use crate::client::dig;
use crate::node::{Node, Setup};
use crate::ports::Directory;
use crate::upstream::Nsd;

const QUESTIONS: &str = "www.example.test A\nwww.example.test AAAA\nexample.test MX\n\
    alias.example.test A\ntext.example.test TXT\nno.example.test A\n";

/// Runs dnsperf and gives what it printed.
fn dnsperf(node: &Node, arguments: &[&str]) -> String {
    let directory = Directory::create();
    let questions = directory.write("questions", QUESTIONS);
    let (ip, port) = (node.address.ip().to_string(), node.address.port().to_string());
    let mut command = Command::new("dnsperf");
    command.args(["-s", &ip, "-p", &port, "-l", "2", "-Q", "2000", "-d"]).arg(questions);
    let output = command.args(arguments).output().unwrap_or_else(|error| {
        panic!("dnsperf does not start ({error}): run scripts/setup --tests")
    });
    String::from_utf8(output.stdout).unwrap()
}

fn count(report: &str, what: &str) -> u64 {
    let line = report.lines().find_map(|line| line.trim().strip_prefix(what));
    let line = line.unwrap_or_else(|| panic!("no `{what}` in:\n{report}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn nothing_is_lost_from_cache_at_a_moderate_rate() {
    let nsd = Nsd::start();
    for backend in ["uring", "mmsg"] {
        let node = Setup::new().upstream(nsd.address).argument("--io").argument(backend).start();
        for question in QUESTIONS.lines() {
            dig(node.address, question);
        }
        let report = dnsperf(&node, &["-c", "4"]);
        assert!(count(&report, "Queries sent:") > 1000, "{report}");
        assert_eq!(count(&report, "Queries lost:"), 0, "{backend}\n{report}");
    }
}

#[test]
fn nothing_is_lost_over_tcp_at_a_moderate_rate() {
    let nsd = Nsd::start();
    let node = Setup::new().upstream(nsd.address).start();
    let report = dnsperf(&node, &["-m", "tcp", "-c", "4"]);
    assert!(count(&report, "Queries sent:") > 1000, "{report}");
    assert_eq!(count(&report, "Queries lost:"), 0, "{report}");
}
