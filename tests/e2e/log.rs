//! The log as programs and the journal read it: every line whole, whatever stands in it, and no more of them than can be read.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use serde_json::Value;

use crate::node::{Setup, eventually, signal_to};
use crate::ports::Directory;

/// Variables that are no keys: a warning each, all from one place of the program.
const STRAYS: usize = 80;

/// Lists of one rule: a line each when they come into force, all from one place.
const LISTS: usize = 200;

fn is_of_rfc_3339(time: &str) -> bool {
    let form = "0000-00-00T00:00:00.000000Z";
    let fits = |(form, letter): (char, char)| match form {
        '0' => letter.is_ascii_digit(),
        other => letter == other,
    };
    time.len() == form.len() && form.chars().zip(time.chars()).all(fits)
}

#[test]
fn json_is_an_object_in_each_line_from_the_start_to_the_end() {
    let json = "[log]\nformat = 'json'\n";
    let mut node = Setup::new().config(json).start();
    node.reconfigure(&format!("{json}[cache]\nsize = \"a\\nb\\u001B[2J\\\"}}\\u2028c\"\n"));
    node.signal("HUP");
    let refused = node.wait_for_line("reload refused");
    let refused: Value = serde_json::from_str(&refused).unwrap();
    assert_eq!(refused["level"], "error");
    assert!(refused["message"].as_str().unwrap().contains("cache.size"), "{refused}");
    node.signal("USR1");
    node.wait_for_line("dns_cache_hits_total");
    node.signal("TERM");
    node.wait_for_exit();
    let log = node.log();
    let mut seen = 0;
    for line in log.lines() {
        let told: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(is_of_rfc_3339(told["time"].as_str().unwrap()), "{line}");
        assert!(["error", "warn", "info", "debug"].contains(&told["level"].as_str().unwrap()));
        assert!(told["target"].as_str().unwrap().starts_with("heimdall_uring::"), "{line}");
        assert!(!told["message"].as_str().unwrap().is_empty(), "{line}");
        seen += 1;
    }
    assert!(seen > 50, "{log}");
}

#[test]
fn format_changes_while_the_node_runs() {
    let node = Setup::new().start();
    let text = node.wait_for_line("serving");
    assert!(is_of_rfc_3339(text.split(' ').next().unwrap()) && text.contains("  INFO "), "{text}");
    let line = node.reload_with("[log]\nformat = 'json'\n");
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(told["message"], "reload: applied log");
    let line = node.reload_with("[log]\nformat = 'text'\n");
    assert!(line.ends_with(" INFO reload: applied log"), "{line}");
}

/// How many lines are told of `log` with `mark` in them, and of how many more only the number is.
fn told_and_held_back(log: &str, mark: &str) -> (usize, usize) {
    let (mut told, mut held_back) = (0, 0);
    for line in log.lines().filter(|line| line.contains(mark)) {
        let more = line.split_once("… and ").and_then(|(_, rest)| rest.split_once(" more such as"));
        match more {
            Some((number, _)) => held_back += number.parse::<usize>().unwrap(),
            None => told += 1,
        }
    }
    (told, held_back)
}

#[test]
fn more_lines_of_one_place_than_can_be_read_are_counted_in_both_formats() {
    for format in ["text", "json"] {
        let directory = Directory::create();
        let mut config = format!("[log]\nformat = '{format}'\n");
        for number in 0..LISTS {
            let path = directory.write(&format!("list-{number}"), "||ads.example^\n");
            config += &format!("[[list]]\nname = 'l{number}'\nfile = '{}'\n", path.display());
        }
        let node = Setup::new().config(&config).start();
        // However many seconds they are spread over: each line is told or counted, and nothing twice.
        let (told, held_back) = eventually("all lines are told or counted", || {
            let (told, held_back) = told_and_held_back(&node.log(), " rules, 0 bad lines");
            (told + held_back >= LISTS).then_some((told, held_back))
        });
        assert_eq!(told + held_back, LISTS, "{}", node.log());
        if format == "json" {
            let log = node.log();
            let summaries = log.lines().filter(|line| line.contains("more such as"));
            for summary in summaries {
                assert_eq!(serde_json::from_str::<Value>(summary).unwrap()["level"], "info");
            }
        }
    }
}

#[test]
fn warnings_of_a_start_are_all_told() {
    let mut setup = Setup::new();
    for number in 0..STRAYS {
        setup = setup.environment(&format!("HEIMDALL_STRAY_{number:02}"), "1");
    }
    let node = setup.start();
    assert_eq!(told_and_held_back(&node.log(), "HEIMDALL_STRAY_"), (STRAYS, 0), "{}", node.log());
}

#[test]
fn journal_gets_priorities_and_has_the_time_itself() {
    for (format, start) in [("text", "<6>serving"), ("json", "<6>{\"time\":")] {
        let directory = Directory::create();
        let path = directory.write("journal", "");
        let file = File::options().append(true).open(&path).unwrap();
        let meta = file.metadata().unwrap();
        let mut setup = Setup::new()
            .config(&format!("[log]\nformat = '{format}'\n"))
            .environment("JOURNAL_STREAM", &format!("{}:{}", meta.dev(), meta.ino()));
        let mut command = setup.command(&directory);
        let mut child = command.stdout(Stdio::null()).stderr(file).spawn().unwrap();
        let log = eventually("a node that serves", || {
            let log = std::fs::read_to_string(&path).unwrap();
            log.contains("serving on").then_some(log)
        });
        signal_to(&child, "TERM");
        child.wait().unwrap();
        assert!(log.lines().any(|line| line.starts_with(start)), "{log}");
        assert!(
            log.lines().all(|line| line.starts_with("<6>") || line.starts_with("<4>")),
            "{log}"
        );
    }
}
