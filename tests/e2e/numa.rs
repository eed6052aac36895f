//! Where the memory of workers lies, by the kernel's own books of the running binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::client::Datagrams;
use crate::message::{A, NOERROR, query};
use crate::node::{Node, Setup, allowed_cpus};

const LOCAL: &str = "[[local]]\nzone = \"local.test.\"\nrecords = \"* 60 A 192.0.2.1\"\n";

/// The numbers of a list such as `0-3,8`; none where there is no such file.
fn numbers(path: &str) -> Vec<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let ranges = text.trim().split(',').filter(|range| !range.is_empty()).map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<u32>().unwrap()..=last.parse().unwrap()
    });
    ranges.flatten().collect()
}

/// The nodes of this machine that have memory, and CPUs that the test may use.
fn usable_nodes() -> Vec<u32> {
    let allowed = allowed_cpus();
    let mut nodes = numbers("/sys/devices/system/node/has_memory");
    nodes.retain(|node| {
        let cpus = numbers(&format!("/sys/devices/system/node/node{node}/cpulist"));
        cpus.iter().any(|&cpu| allowed.contains(&(cpu as usize)))
    });
    nodes
}

/// The policies by which pages are placed, as they hold for one thread, and all pages of the process by node.
#[derive(Debug)]
struct Books {
    policies: Vec<String>,
    pages: BTreeMap<u32, u64>,
}

impl Books {
    /// As the kernel shows them to `task`; `None` where a sandbox hides them.
    fn of(task: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(task.join("numa_maps")).ok()?;
        let mut books = Self { policies: Vec::new(), pages: BTreeMap::new() };
        for line in text.lines() {
            // One policy has a blank in its name.
            let line = line.replace("prefer (many)", "prefer");
            let mut words = line.split(' ').skip(1);
            // Text and data of files are shared by all; the rest is the process's own.
            if line.contains(" file=") {
                continue;
            }
            books.policies.push(words.next()?.to_owned());
            for word in words {
                let Some((node, count)) = word.strip_prefix('N').and_then(|it| it.split_once('='))
                else {
                    continue;
                };
                *books.pages.entry(node.parse().ok()?).or_default() += count.parse::<u64>().ok()?;
            }
        }
        (!books.policies.is_empty()).then_some(books)
    }
}

/// The workers' threads, by name.
fn workers(node: &Node) -> BTreeMap<String, PathBuf> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.id())).unwrap();
    let named = tasks.map(|task| {
        let path = task.unwrap().path();
        (std::fs::read_to_string(path.join("comm")).unwrap().trim().to_owned(), path)
    });
    named.filter(|(name, _)| name.starts_with("core-")).collect()
}

#[test]
fn memory_of_each_worker_is_bound_to_its_node_and_lies_there() {
    let nodes = usable_nodes();
    let Some(&first) = nodes.first() else {
        return eprintln!(
            "the kernel tells nothing of NUMA nodes here: there is nothing to look at"
        );
    };
    if nodes.len() == 1 {
        eprintln!(
            "this machine has one NUMA node: all pages have to lie there, and that is all that can be seen"
        );
    }
    for &own in &nodes {
        let node = Setup::new().cores(&format!("numa:{own}")).config(LOCAL).start();
        let line = node.wait_for_line("serving");
        for id in 0..64 {
            let name = format!("name{id}.local.test");
            assert_eq!(Datagrams::to(node.address).exchange(&query(id, &name, A)).rcode(), NOERROR);
        }
        let workers = workers(&node);
        assert!(line.contains(&format!("on {} core(s)", workers.len())), "{line}");
        let is_refused = node.log().contains("memory could not be bound");
        for (worker, task) in workers {
            let Some(books) = Books::of(&task) else {
                return eprintln!("{worker}: the sandbox hides its numa_maps");
            };
            let bound = [format!("bind:{own}"), format!("prefer:{own}")];
            let is_bound = |policy: &String| bound.contains(policy);
            assert!(is_refused || books.policies.iter().any(is_bound), "{worker}: {books:?}");
            let all: u64 = books.pages.values().sum();
            let local = books.pages.get(&own).copied().unwrap_or(0);
            // Beside the workers' memory there is what the main thread has read and compiled.
            assert!(all > 0 && (nodes.len() > 1 || local == all), "{worker}: {books:?}");
            assert!(is_refused || 10 * local >= 9 * all, "{worker}: {books:?}");
        }
    }
    // By default nothing is bound where there is only one node.
    let node = Setup::new().config(LOCAL).start();
    let books = workers(&node).values().next().and_then(|task| Books::of(task));
    if let (1, Some(books)) = (nodes.len(), books) {
        assert!(books.policies.iter().all(|policy| policy.starts_with("default")), "{books:?}");
        assert_eq!(books.pages.keys().collect::<Vec<_>>(), [&first]);
    }
}
