//! Where the memory of workers lies, by the kernel's own books of the running binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::client::Datagrams;
use crate::message::{A, NOERROR, address, query};
use crate::node::{Node, Setup, allowed_cpus};
use crate::scripted::{Scripted, Step};

/// A worker's cache, at least: a size that no other block of memory has.
const SHARD_MIB: usize = 61;

/// The numbers of a list such as `0-3,8`; none where there is no such file.
fn numbers(path: &str) -> Vec<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let ranges = text.trim().split(',').filter(|range| !range.is_empty()).map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<u32>().unwrap()..=last.parse().unwrap()
    });
    ranges.flatten().collect()
}

/// The nodes of this machine that have memory, and CPUs that the test may use; these.
fn usable_nodes() -> BTreeMap<u32, Vec<u32>> {
    let allowed = allowed_cpus();
    let nodes = numbers("/sys/devices/system/node/has_memory").into_iter().map(|node| {
        let mut cpus = numbers(&format!("/sys/devices/system/node/node{node}/cpulist"));
        cpus.retain(|&cpu| allowed.contains(&(cpu as usize)));
        (node, cpus)
    });
    nodes.filter(|(_, cpus)| !cpus.is_empty()).collect()
}

/// What the kernel's books tell a thread of one mapping.
#[derive(Debug)]
struct Mapping {
    bytes: usize,
    /// The policy by which the thread gets pages of it.
    policy: String,
    /// Its pages by node.
    pages: BTreeMap<u32, u64>,
}

impl Mapping {
    /// The anonymous mappings as the kernel shows them to `task`; `None` where a sandbox hides them.
    fn all(task: &Path) -> Option<Vec<Self>> {
        let read = |file| std::fs::read_to_string(task.join(file)).ok();
        let place = |text: &str| usize::from_str_radix(text, 16).ok();
        let (maps, books) = (read("maps")?, read("numa_maps")?);
        // The books know no sizes.
        let ends: BTreeMap<usize, usize> = maps
            .lines()
            .filter_map(|line| {
                let (start, end) = line.split(' ').next()?.split_once('-')?;
                Some((place(start)?, place(end)?))
            })
            .collect();
        let anonymous = books.lines().filter(|line| !line.contains(" file="));
        let mappings: Vec<Self> = anonymous
            .filter_map(|line| {
                // One policy has a blank in its name.
                let line = line.replace("prefer (many)", "prefer");
                let mut words = line.split(' ');
                let start = place(words.next()?)?;
                let bytes = ends.get(&start)? - start;
                let policy = words.next()?.to_owned();
                let pages = words.filter_map(|word| {
                    let (node, count) = word.strip_prefix('N')?.split_once('=')?;
                    Some((node.parse().ok()?, count.parse().ok()?))
                });
                Some(Self { bytes, policy, pages: pages.collect() })
            })
            .collect();
        (!mappings.is_empty()).then_some(mappings)
    }

    /// The node of its pages. One that is full for a moment lets others lend a few.
    fn mostly_on(&self) -> u32 {
        let all: u64 = self.pages.values().sum();
        let most = self.pages.iter().find(|(_, count)| all < 2 * **count);
        *most.unwrap_or_else(|| panic!("on no node are most of its pages: {self:?}")).0
    }

    /// Whether a thread that sees it so takes its pages from `node`.
    fn is_bound_to(&self, node: u32) -> bool {
        self.policy == format!("bind:{node}") || self.policy == format!("prefer:{node}")
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

/// Starts a node on `cores` with a cache of `total_mib`, and makes it remember something.
fn started(cores: &str, total_mib: usize, upstream: &Scripted) -> Node {
    // Each large block of memory in a mapping of its own.
    let setup = Setup::new().environment("MIMALLOC_ARENA_RESERVE", "0");
    let size = format!("[cache]\nsize = \"{total_mib}MiB\"");
    let node = setup.config(&size).cores(cores).upstream(upstream.address).start();
    for id in 0..64 {
        let name = format!("name{id}.test");
        assert_eq!(Datagrams::to(node.address).exchange(&query(id, &name, A)).rcode(), NOERROR);
    }
    node
}

/// Holds the cache of each worker against the NUMA node in `homes`, told by the worker's name; false where a sandbox hides it.
fn are_at_home(node: &Node, total_mib: usize, homes: &BTreeMap<String, u32>) -> bool {
    let workers = workers(node);
    assert!(workers.keys().eq(homes.keys()), "{workers:?}, not {homes:?}");
    let is_refused = node.log().contains("memory could not be bound");
    let shard_bytes = (total_mib << 20) / workers.len();
    let mut expected: Vec<u32> = homes.values().copied().collect();
    expected.sort_unstable();
    for (worker, task) in workers {
        let Some(mut caches) = Mapping::all(&task) else {
            eprintln!("{worker}: the sandbox hides its memory");
            return false;
        };
        // The index of a shard lies beside its entries.
        caches.retain(|mapping| (shard_bytes * 9 / 10..=shard_bytes).contains(&mapping.bytes));
        assert_eq!(caches.len(), homes.len(), "one for each worker: {caches:?}");
        let is_bound = caches.iter().all(|cache| cache.is_bound_to(homes[&worker]));
        assert!(is_refused || is_bound, "{worker}: {caches:?}");
        // Pages lie where they lie, whoever looks: the caches on as many nodes, each as often, as the workers.
        let mut owners: Vec<u32> = caches.iter().map(Mapping::mostly_on).collect();
        owners.sort_unstable();
        assert!(is_refused || owners == expected, "{owners:?}, not {expected:?}: {caches:?}");
    }
    true
}

#[test]
fn cache_of_each_worker_is_bound_to_its_node_and_lies_there() {
    let nodes = usable_nodes();
    let Some((&first, _)) = nodes.first_key_value() else {
        return eprintln!(
            "the kernel tells nothing of NUMA nodes here: there is nothing to look at"
        );
    };
    let upstream =
        Scripted::start(|asked| vec![Step::Reply(address(&asked.message, 300, [192, 0, 2, 1]))]);
    for (&own, cpus) in &nodes {
        let total_mib = SHARD_MIB * cpus.len();
        let node = started(&format!("numa:{own}"), total_mib, &upstream);
        let homes: BTreeMap<String, u32> = workers(&node).into_keys().map(|it| (it, own)).collect();
        let said = node.wait_for_line("serving");
        assert!(said.contains(&format!("on {} core(s)", homes.len())), "{said}");
        if !are_at_home(&node, total_mib, &homes) {
            return;
        }
    }
    // One worker on each node; where there is only one, nothing is bound unless it is asked for.
    let cores: Vec<String> = nodes.values().map(|cpus| cpus[0].to_string()).collect();
    let total_mib = SHARD_MIB * cores.len();
    let node = started(&cores.join(","), total_mib, &upstream);
    if nodes.len() > 1 {
        let homes = nodes.keys().enumerate().map(|(core, &own)| (format!("core-{core}"), own));
        assert!(are_at_home(&node, total_mib, &homes.collect()));
        return;
    }
    eprintln!(
        "this machine has one NUMA node: all pages have to lie there, and that a worker's cache lies with it, and not with \
         another, cannot be seen"
    );
    for mapping in workers(&node).values().filter_map(|task| Mapping::all(task)).flatten() {
        assert!(mapping.policy.starts_with("default"), "{mapping:?}");
        assert!(mapping.pages.keys().all(|node| *node == first), "{mapping:?}");
    }
}
