//! Ties a worker's thread to its CPU, and its memory to the CPU's NUMA node before the first touch.

use core_affinity::CoreId;
use hwlocality::memory::binding::{MemoryBindingFlags, MemoryBindingPolicy};
use hwlocality::memory::nodeset::NodeSet;

use super::placement::Seat;
use super::topology::hwloc;

/// Pins the calling thread. What the system refuses comes back as warnings: the node then runs, only slower.
pub(super) fn settle(seat: &Seat) -> Vec<String> {
    let mut warnings = Vec::new();
    if !core_affinity::set_for_current(CoreId { id: seat.cpu }) {
        warnings.push(format!("worker {} could not be pinned to CPU {}", seat.core, seat.cpu));
    }
    if let Some(node) = seat.numa_node
        && let Err(problem) = bind_memory(node)
    {
        warnings.push(format!(
            "worker {}: memory could not be bound to NUMA node {node}: {problem}",
            seat.core
        ));
    }
    warnings
}

fn bind_memory(node: u32) -> Result<(), String> {
    let mut nodes = NodeSet::new();
    let index = hwlocality::bitmap::BitmapIndex::try_from(node as usize);
    nodes.set(index.map_err(|error| error.to_string())?);
    // Not strict: a full node must not kill a worker, it makes it slower.
    hwloc()?
        .bind_memory(&nodes, MemoryBindingPolicy::Bind, MemoryBindingFlags::THREAD)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::topology::Topology;

    fn seat(cpu: usize, numa_node: Option<u32>) -> Seat {
        Seat { core: 0, cpu, numa_node, reason: String::new() }
    }

    #[test]
    fn pinned_thread_may_run_on_its_cpu_alone() {
        let cpu = Topology::detect().allowed().last().unwrap();
        let seen = std::thread::spawn(move || {
            assert_eq!(settle(&seat(cpu, None)), Vec::<String>::new());
            core_affinity::get_core_ids().unwrap().iter().map(|core| core.id).collect::<Vec<_>>()
        });
        assert_eq!(seen.join().unwrap(), [cpu]);
    }

    #[test]
    fn memory_of_a_pinned_thread_is_bound_to_its_node() {
        let topology = Topology::detect();
        let cpu = topology.cpus.iter().find(|cpu| cpu.is_allowed).copied().unwrap();
        std::thread::spawn(move || {
            settle(&seat(cpu.number, Some(cpu.numa_node)));
            // Linux lets one look: 1 is MPOL_PREFERRED, 2 is MPOL_BIND, and the kernel names the nodes.
            let maps = std::fs::read_to_string("/proc/thread-self/numa_maps").unwrap_or_default();
            let bound = format!("bind:{}", cpu.numa_node);
            let is_bound = maps.contains(&bound) || maps.contains("prefer");
            assert!(is_bound || maps.is_empty(), "no mapping is bound: {maps}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn missing_cpu_is_a_warning() {
        let warnings = std::thread::spawn(|| settle(&seat(1_000, None))).join().unwrap();
        assert_eq!(warnings, ["worker 0 could not be pinned to CPU 1000"]);
    }
}
