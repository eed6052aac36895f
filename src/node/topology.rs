//! What the machine is made of, as plain values: packages, NUMA nodes, cores, SMT siblings, caches, and what of it the
//! process may use.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::LazyLock;

use hwlocality::object::attributes::ObjectAttributes;
use hwlocality::object::types::ObjectType;

use super::cgroup;
use super::placement::Seat;

/// One logical CPU.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cpu {
    /// The system's number.
    pub number: usize,
    /// The physical core it belongs to; siblings share it.
    pub core: usize,
    /// The package (socket).
    pub package: usize,
    /// The NUMA node whose memory is local to it.
    pub numa_node: u32,
    /// Whether the process may run on it (affinity mask and cpuset cgroup).
    pub is_allowed: bool,
}

/// A cache and the CPUs that share it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cache {
    /// `L1d`, `L2`, `L3`.
    pub level: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
    /// The CPUs that share it.
    pub cpus: Vec<usize>,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// All CPUs by number.
    pub cpus: Vec<Cpu>,
    /// Caches, the small ones first.
    pub caches: Vec<Cache>,
    /// CPUs' worth of time that the process's cgroup (v2) may use; `None` without a quota.
    pub quota: Option<f64>,
    /// What could not be found out.
    pub warnings: Vec<String>,
}

impl Topology {
    /// Looks at the machine. Where hwloc fails, the affinity mask alone has to do, with a warning.
    #[must_use]
    pub fn detect() -> Self {
        let allowed = core_affinity::get_core_ids().unwrap_or_default();
        let allowed: BTreeSet<usize> = allowed.into_iter().map(|core| core.id).collect();
        let mut topology = match hwloc() {
            Ok(hwloc) => Self::from_hwloc(hwloc, &allowed),
            Err(error) => Self::flat(&allowed, format!("hwloc fails ({error}): siblings unknown")),
        };
        topology.quota = cgroup::quota();
        topology
    }

    fn from_hwloc(hwloc: &hwlocality::Topology, allowed: &BTreeSet<usize>) -> Self {
        let mut topology = Self::default();
        for unit in hwloc.objects_with_type(ObjectType::PU) {
            let Some(number) = unit.os_index() else { continue };
            let index_of = |kind| unit.first_ancestor_with_type(kind).map(|up| up.logical_index());
            let numa_node = unit.nodeset().and_then(|nodes| nodes.first_set());
            topology.cpus.push(Cpu {
                number,
                core: index_of(ObjectType::Core).unwrap_or(number),
                package: index_of(ObjectType::Package).unwrap_or(0),
                numa_node: numa_node
                    .map_or(0, |node| u32::try_from(usize::from(node)).unwrap_or(0)),
                is_allowed: allowed.contains(&number),
            });
        }
        topology.cpus.sort_by_key(|cpu| cpu.number);
        for (level, kind) in
            [("L1d", ObjectType::L1Cache), ("L2", ObjectType::L2Cache), ("L3", ObjectType::L3Cache)]
        {
            for cache in hwloc.objects_with_type(kind) {
                let Some(ObjectAttributes::Cache(attributes)) = cache.attributes() else {
                    continue;
                };
                let cpus = cache.cpuset().map(|set| set.iter_set().map(usize::from).collect());
                topology.caches.push(Cache {
                    level,
                    bytes: attributes.size().map_or(0, u64::from),
                    cpus: cpus.unwrap_or_default(),
                });
            }
        }
        topology
    }

    fn flat(allowed: &BTreeSet<usize>, warning: String) -> Self {
        let cpu =
            |&number| Cpu { number, core: number, package: 0, numa_node: 0, is_allowed: true };
        Self { cpus: allowed.iter().map(cpu).collect(), warnings: vec![warning], ..Self::default() }
    }

    /// Numbers of the CPUs that the process may use.
    pub fn allowed(&self) -> impl Iterator<Item = usize> {
        self.cpus.iter().filter(|cpu| cpu.is_allowed).map(|cpu| cpu.number)
    }

    /// How many NUMA nodes have CPUs.
    #[must_use]
    pub fn numa_nodes(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.numa_node).collect::<BTreeSet<u32>>().len()
    }
}

/// What hwloc knows of the machine: discovered once for all who ask, because that reads hundreds of files. Which CPUs the process may
/// use is asked for apart, each time.
///
/// # Errors
/// hwloc's, in words.
pub(super) fn hwloc() -> Result<&'static hwlocality::Topology, &'static str> {
    static MACHINE: LazyLock<Result<hwlocality::Topology, String>> =
        LazyLock::new(|| hwlocality::Topology::new().map_err(|error| error.to_string()));
    MACHINE.as_ref().map_err(String::as_str)
}

/// The machine and the chosen seats, as a text for people.
#[must_use]
pub fn report(topology: &Topology, seats: &[Seat]) -> String {
    let mut text = String::new();
    let count = |of: fn(&Cpu) -> usize| topology.cpus.iter().map(of).collect::<BTreeSet<_>>().len();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "machine: {} package(s), {} NUMA node(s), {} core(s), {} CPU(s), {} allowed",
        count(|cpu| cpu.package),
        topology.numa_nodes(),
        count(|cpu| cpu.core),
        topology.cpus.len(),
        topology.allowed().count(),
    );
    let quota = topology.quota.map_or_else(|| "none".to_owned(), |cpus| format!("{cpus:.2} CPUs"));
    let _ = writeln!(text, "cgroup v2 quota: {quota}");
    for warning in &topology.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let _ = writeln!(text, "\n CPU  core  package  node  allowed  worker");
    for cpu in &topology.cpus {
        let seat = seats.iter().find(|seat| seat.cpu == cpu.number);
        let worker = seat.map_or_else(|| "-".to_owned(), |seat| seat.core.to_string());
        let allowed = if cpu.is_allowed { "yes" } else { "no" };
        let Cpu { number, core, package, numa_node, .. } = cpu;
        let _ = writeln!(
            text,
            "{number:>4}  {core:>4}  {package:>7}  {numa_node:>4}  {allowed:>7}  {worker:>6}"
        );
    }
    let _ = writeln!(text, "\ncaches:");
    for cache in &topology.caches {
        let Cache { level, bytes, cpus } = cache;
        let _ = writeln!(text, "  {level:<4} {:>7} KiB  CPUs {}", bytes / 1024, ranges(cpus));
    }
    let _ = writeln!(text, "\nworkers:");
    for seat in seats {
        let _ = writeln!(text, "  worker {} on CPU {}: {}", seat.core, seat.cpu, seat.reason);
    }
    text
}

/// `0-3,8` for 0, 1, 2, 3 and 8.
fn ranges(numbers: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let runs = runs.into_iter().map(|(first, last)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    });
    runs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cpus_that_the_process_may_use() {
        let topology = Topology::detect();
        assert!(topology.allowed().count() > 0, "{topology:?}");
        assert!(topology.warnings.is_empty(), "{:?}", topology.warnings);
    }

    #[test]
    fn machine_is_discovered_once_for_all_threads() {
        let found = std::thread::spawn(hwloc).join().unwrap().unwrap();
        assert!(std::ptr::eq(found, hwloc().unwrap()));
    }

    #[test]
    fn neighbours_are_written_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(ranges(&[]), "");
    }
}
