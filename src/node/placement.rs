//! Which CPUs get a worker, and why. Pure: machines in, seats out.

use std::collections::BTreeSet;

use thiserror::Error;

use super::topology::{Cpu, Topology};
use crate::config::CoreSelection;

/// A worker's place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seat {
    /// Index of the worker, from zero.
    pub core: usize,
    /// The logical CPU it is pinned to.
    pub cpu: usize,
    /// The NUMA node its memory is bound to; `None` on machines with one, unless that was asked for by number.
    pub numa_node: Option<u32>,
    /// Why this CPU, for `--print-topology`.
    pub reason: String,
}

/// Why a selection cannot be had.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum PlacementError {
    /// A CPU is missing or forbidden.
    #[error("node.cores (--cores): CPU {cpu} {problem}; the process may use {allowed}")]
    Cpu {
        /// The CPU asked for.
        cpu: usize,
        /// What is the matter with it.
        problem: &'static str,
        /// What may be used.
        allowed: String,
    },
    /// A NUMA node is missing or has no CPU that may be used.
    #[error(
        "node.cores (--cores): NUMA node {node} has no CPU that the process may use; nodes that have: {nodes}"
    )]
    Numa {
        /// The node asked for.
        node: u32,
        /// Nodes that would do.
        nodes: String,
    },
    /// The process may use no CPU at all.
    #[error("the process may use no CPU: check its affinity mask and cpuset cgroup")]
    NoCpu,
}

/// Chooses seats on `topology`.
///
/// # Errors
/// [`PlacementError`].
pub fn choose(topology: &Topology, selection: &CoreSelection) -> Result<Vec<Seat>, PlacementError> {
    let (cpus, reason) = match selection {
        CoreSelection::Auto => (automatic(topology)?, "lowest allowed CPU of its physical core"),
        CoreSelection::Numa(node) => {
            (of_node(topology, *node)?, "lowest allowed CPU of its physical core on the node")
        }
        CoreSelection::Cpus(numbers) => (exactly(topology, numbers)?, "asked for"),
    };
    // Where there is one node, memory cannot lie elsewhere, and nothing is bound unless it is asked for.
    let is_bound = topology.numa_nodes() > 1 || matches!(selection, CoreSelection::Numa(_));
    let seats = cpus.iter().enumerate().map(|(core, cpu)| {
        let sibling = cpus[..core].iter().find(|other| other.core == cpu.core);
        let reason = match sibling {
            Some(other) => format!(
                "{reason}; shares a physical core with CPU {}: the two slow each other down",
                other.number
            ),
            None => reason.to_owned(),
        };
        let numa_node = is_bound.then_some(cpu.numa_node);
        Seat { core, cpu: cpu.number, numa_node, reason }
    });
    Ok(seats.collect())
}

/// One CPU per physical core, as many as the quota pays for.
fn automatic(topology: &Topology) -> Result<Vec<Cpu>, PlacementError> {
    let mut cpus = one_per_core(topology.cpus.iter().filter(|cpu| cpu.is_allowed));
    if let Some(quota) = topology.quota {
        cpus.truncate(paid_for(quota));
    }
    if cpus.is_empty() { Err(PlacementError::NoCpu) } else { Ok(cpus) }
}

/// Whole CPUs that a quota pays for, rounded up, at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive, rounded number; `as` saturates"
)]
fn paid_for(quota: f64) -> usize {
    (quota.ceil() as usize).max(1)
}

fn of_node(topology: &Topology, node: u32) -> Result<Vec<Cpu>, PlacementError> {
    let allowed = || topology.cpus.iter().filter(|cpu| cpu.is_allowed);
    let cpus = one_per_core(allowed().filter(|cpu| cpu.numa_node == node));
    if cpus.is_empty() {
        let nodes: BTreeSet<u32> = allowed().map(|cpu| cpu.numa_node).collect();
        let nodes = list(nodes.into_iter().map(|node| node as usize));
        return Err(PlacementError::Numa { node, nodes });
    }
    Ok(cpus)
}

fn exactly(topology: &Topology, numbers: &[usize]) -> Result<Vec<Cpu>, PlacementError> {
    let find = |&number: &usize| {
        let fail = |problem| PlacementError::Cpu {
            cpu: number,
            problem,
            allowed: list(topology.allowed()),
        };
        let known = topology.cpus.iter().find(|cpu| cpu.number == number);
        match known {
            None => Err(fail("does not exist or is offline")),
            Some(cpu) if !cpu.is_allowed => {
                Err(fail("is outside the process's affinity mask or cpuset"))
            }
            Some(cpu) => Ok(*cpu),
        }
    };
    numbers.iter().map(find).collect()
}

fn one_per_core<'a>(cpus: impl Iterator<Item = &'a Cpu>) -> Vec<Cpu> {
    let mut taken = BTreeSet::new();
    cpus.filter(|cpu| taken.insert(cpu.core)).copied().collect()
}

fn list(numbers: impl Iterator<Item = usize>) -> String {
    let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
    if numbers.is_empty() { "none".to_owned() } else { numbers.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two packages of eight cores with two siblings each, numbered as Linux does: siblings sixteen apart.
    fn two_sockets() -> Topology {
        let cpu = |number| Cpu {
            number,
            core: number % 16,
            package: number % 16 / 8,
            numa_node: u32::from(number % 16 >= 8),
            is_allowed: true,
        };
        Topology { cpus: (0..32).map(cpu).collect(), ..Topology::default() }
    }

    fn forbid(topology: &mut Topology, forbidden: &[usize]) {
        for cpu in &mut topology.cpus {
            cpu.is_allowed &= !forbidden.contains(&cpu.number);
        }
    }

    fn cpus(topology: &Topology, selection: &CoreSelection) -> Vec<usize> {
        choose(topology, selection).unwrap().iter().map(|seat| seat.cpu).collect()
    }

    #[test]
    fn auto_takes_one_cpu_per_physical_core() {
        let mut machine = two_sockets();
        assert_eq!(cpus(&machine, &CoreSelection::Auto), (0..16).collect::<Vec<_>>());
        forbid(&mut machine, &[0, 1, 2]);
        let chosen = cpus(&machine, &CoreSelection::Auto);
        assert_eq!(chosen.len(), 16, "their siblings 16, 17 and 18 take over");
        assert!(chosen.contains(&16) && !chosen.contains(&0));
    }

    #[test]
    fn quota_caps_auto_but_not_an_explicit_choice() {
        let mut machine = two_sockets();
        for (quota, workers) in [(0.2, 1), (1.0, 1), (1.5, 2), (99.0, 16)] {
            machine.quota = Some(quota);
            assert_eq!(cpus(&machine, &CoreSelection::Auto).len(), workers, "{quota}");
        }
        machine.quota = Some(1.0);
        assert_eq!(cpus(&machine, &CoreSelection::Cpus(vec![3, 1])), [3, 1]);
    }

    #[test]
    fn numa_node_gives_its_own_cores_and_memory() {
        let machine = two_sockets();
        let seats = choose(&machine, &CoreSelection::Numa(1)).unwrap();
        assert!(seats.iter().all(|seat| (8..16).contains(&seat.cpu) && seat.numa_node == Some(1)));
        let error = choose(&machine, &CoreSelection::Numa(7)).unwrap_err().to_string();
        assert!(error.contains("node 7") && error.contains("0,1"), "{error}");
    }

    #[test]
    fn single_core_machine_has_no_node_to_bind_to_unless_it_is_named() {
        let mut machine = two_sockets();
        machine.cpus.truncate(1);
        let seats = choose(&machine, &CoreSelection::Auto).unwrap();
        assert_eq!((seats.len(), seats[0].numa_node), (1, None));
        let seats = choose(&machine, &CoreSelection::Numa(0)).unwrap();
        assert_eq!((seats.len(), seats[0].numa_node), (1, Some(0)));
    }

    #[test]
    fn missing_and_forbidden_cpus_are_named() {
        let mut machine = two_sockets();
        machine.cpus.truncate(4);
        forbid(&mut machine, &[2]);
        for (asked, problem) in [(9, "does not exist"), (2, "is outside the process's affinity")] {
            let error = choose(&machine, &CoreSelection::Cpus(vec![0, asked])).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(&format!("CPU {asked} {problem}")), "{error}");
            assert!(error.ends_with("may use 0,1,3"), "{error}");
        }
        forbid(&mut machine, &[0, 1, 3]);
        assert_eq!(choose(&machine, &CoreSelection::Auto), Err(PlacementError::NoCpu));
    }

    #[test]
    fn siblings_are_pointed_out() {
        let machine = two_sockets();
        let seats = choose(&machine, &CoreSelection::Cpus(vec![0, 16])).unwrap();
        assert!(seats[1].reason.contains("shares a physical core with CPU 0"));
    }
}
