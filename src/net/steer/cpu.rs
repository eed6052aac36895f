//! By CPU: a datagram goes to the worker of the CPU that the kernel handles it on.

use super::Program;
use super::assemble::{Assembler, GIVE_BACK, code};

/// Where the kernel tells the CPU that runs the program: `SKF_AD_OFF + SKF_AD_CPU` (linux/filter.h).
pub(super) const CPU: u32 = 0xFFFF_F000 + 36;

/// CPUs in a row whose workers stand in a row, too, or are one and the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Run {
    first: u32,
    worker: u32,
    /// The next CPU's worker is the next one; otherwise it is the same.
    ascends: bool,
}

impl Run {
    fn holds(self, cpu: u32, worker: u32) -> bool {
        self.worker + if self.ascends { cpu - self.first } else { 0 } == worker
    }
}

/// Sends what CPU `n` handles to worker `workers[n]`; the kernel spreads what other CPUs handle.
#[must_use]
pub fn by_cpu(workers: &[u16]) -> Program {
    let mut program = Assembler::default();
    if workers.is_empty() {
        return Program::by_flow();
    }
    program.put(code::LOAD_WORD, CPU);
    let beyond = program.label();
    program.jump_if(code::IF_AT_LEAST, u32::try_from(workers.len()).unwrap_or(u32::MAX), beyond);
    search(&mut program, &runs(workers));
    program.place(beyond);
    program.put(code::RETURN, GIVE_BACK);
    program.finish()
}

fn runs(workers: &[u16]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (cpu, worker) in (0..).zip(workers.iter().map(|&worker| u32::from(worker))) {
        let Some(last) = runs.last_mut() else {
            runs.push(Run { first: cpu, worker, ascends: false });
            continue;
        };
        // What a run of one does becomes known with its second member.
        let is_second = cpu == last.first + 1;
        if is_second && worker == last.worker + 1 {
            last.ascends = true;
        } else if !last.holds(cpu, worker) {
            runs.push(Run { first: cpu, worker, ascends: false });
        }
    }
    runs
}

/// Finds the run of the CPU in A by halves, and ends the program.
fn search(program: &mut Assembler, runs: &[Run]) {
    match runs {
        [] => {}
        [Run { worker, ascends: false, .. }] => program.put(code::RETURN, *worker),
        [Run { first, worker, ascends: true }] => {
            program.put(code::SUBTRACT, *first);
            program.put(code::ADD, *worker);
            program.put(code::RETURN_A, 0);
        }
        _ => {
            let (lower, upper) = runs.split_at(runs.len() / 2);
            let is_upper = program.label();
            program.jump_if(code::IF_AT_LEAST, upper[0].first, is_upper);
            search(program, lower);
            program.place(is_upper);
            search(program, upper);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::interpret::run;
    use super::*;

    #[test]
    fn every_cpu_leads_to_its_worker_and_strangers_are_given_back() {
        let shuffled: Vec<u16> = (0..512u16).map(|cpu| cpu * 77 % 256).collect();
        let halves: Vec<u16> = (0..64).chain(0..64).collect();
        let tables: [&[u16]; 6] = [&[0], &[0, 1], &[1, 0], &[3, 3, 3, 1, 2, 3], &halves, &shuffled];
        for workers in tables {
            let program = by_cpu(workers);
            for (cpu, &worker) in (0..).zip(workers) {
                let chosen = run(&program, &[], cpu);
                assert_eq!(chosen, u32::from(worker), "CPU {cpu} of {workers:?}");
            }
            let stranger = u32::try_from(workers.len()).unwrap();
            assert_eq!(run(&program, &[], stranger), GIVE_BACK);
        }
    }

    #[test]
    fn neighbours_cost_a_handful_of_instructions() {
        let workers: Vec<u16> = (0..128).collect();
        assert!(by_cpu(&workers).instructions().len() <= 8);
        assert_eq!(by_cpu(&[]), Program::by_flow());
    }
}
