//! Which worker a CPU's datagrams go to when the CPU has none of its own.

use crate::node::placement::Seat;
use crate::node::topology::{Cpu, Topology};

/// For each CPU up to the last one of `topology`, the worker on it, or one of the nearest: on the same physical core, behind the same
/// last cache, on the same NUMA node, anywhere. Those that are equally near take turns.
pub(super) fn workers(topology: &Topology, seats: &[Seat]) -> Vec<u16> {
    let seated = |seat: &Seat| topology.cpus.iter().find(|cpu| cpu.number == seat.cpu);
    let last = topology.cpus.iter().map(|cpu| cpu.number).max().unwrap_or(0);
    let mut turn = 0;
    let nearest = (0..=last).map(|number| {
        if let Some(seat) = seats.iter().find(|seat| seat.cpu == number) {
            return seat.core;
        }
        let cpu = topology.cpus.iter().find(|cpu| cpu.number == number);
        let distances = seats.iter().map(|seat| match (cpu, seated(seat)) {
            (Some(cpu), Some(other)) => (distance(topology, cpu, other), seat.core),
            _ => (FARTHEST, seat.core),
        });
        let distances: Vec<(u8, usize)> = distances.collect();
        let least = distances.iter().map(|&(distance, _)| distance).min();
        let near = distances.iter().filter(|(distance, _)| Some(*distance) == least);
        let near: Vec<usize> = near.map(|&(_, core)| core).collect();
        turn += 1;
        near.get(turn % near.len().max(1)).copied().unwrap_or(0)
    });
    nearest.map(|core| u16::try_from(core).unwrap_or(u16::MAX)).collect()
}

const FARTHEST: u8 = 3;

fn distance(topology: &Topology, cpu: &Cpu, other: &Cpu) -> u8 {
    let shares_cache = || {
        let last = topology.caches.iter().filter(|cache| cache.level == "L3");
        last.clone()
            .any(|cache| cache.cpus.contains(&cpu.number) && cache.cpus.contains(&other.number))
    };
    if cpu.core == other.core {
        0
    } else if shares_cache() {
        1
    } else if cpu.numa_node == other.numa_node {
        2
    } else {
        FARTHEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::topology::Cache;

    /// Two nodes of two caches with two physical cores each; siblings eight apart.
    fn machine() -> Topology {
        let cpu = |number| Cpu {
            number,
            core: number % 8,
            package: 0,
            numa_node: u32::from(number % 8 >= 4),
            is_allowed: true,
        };
        let cache = |first: usize| Cache {
            level: "L3",
            bytes: 1 << 20,
            cpus: vec![first, first + 1, first + 8, first + 9],
        };
        let caches = [0, 2, 4, 6].map(cache).to_vec();
        Topology { cpus: (0..16).map(cpu).collect(), caches, ..Topology::default() }
    }

    fn seats(cpus: &[usize]) -> Vec<Seat> {
        let seat = |(core, &cpu)| Seat { core, cpu, numa_node: None, reason: String::new() };
        cpus.iter().enumerate().map(seat).collect()
    }

    #[test]
    fn sibling_comes_before_cache_before_node() {
        let nearest = workers(&machine(), &seats(&[0, 2, 4]));
        assert_eq!((nearest[0], nearest[2], nearest[4]), (0, 1, 2));
        assert_eq!((nearest[8], nearest[10], nearest[12]), (0, 1, 2), "siblings");
        assert_eq!((nearest[1], nearest[9], nearest[3]), (0, 0, 1), "the same cache");
        assert_eq!((nearest[6], nearest[7], nearest[15]), (2, 2, 2), "the same node");
    }

    #[test]
    fn those_equally_far_take_turns() {
        let nearest = workers(&machine(), &seats(&[0, 1]));
        let far: Vec<u16> = [4, 5, 6, 7, 12, 13, 14, 15].map(|cpu| nearest[cpu]).to_vec();
        assert_eq!(far.iter().filter(|&&worker| worker == 0).count(), 4, "{far:?}");
    }

    #[test]
    fn machine_that_is_not_known_has_workers_all_the_same() {
        assert_eq!(workers(&Topology::default(), &seats(&[0])), [0]);
    }
}
