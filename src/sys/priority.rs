//! Threads that give way to all others (sched_setscheduler(2), setpriority(2)).
//!
//! Invariants:
//! * I1: setpriority takes numbers alone and writes to no memory of ours.
//! * I2: sched_setscheduler reads a parameter that lives as long as the call, and writes to no memory of ours.

/// The least of all claims to a CPU.
const NICENESS_MAX: i32 = 19;

/// Lets the calling thread, and no other, run only when there is little else to do, and stop at once when there is more. A wish: a
/// kernel that refuses it changes nothing but speed.
pub fn give_way() {
    // A thread that is merely nice runs to the end of its slice, some milliseconds, while a core's worker waits.
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter lives until the call returns (I2); 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameter) };
    // SAFETY: the call takes numbers (I1); 0 is the calling thread (setpriority(2), "C library/kernel differences").
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS_MAX) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Niceness and scheduling policy of the calling thread: fields 19 and 41 of proc_pid_stat(5).
    fn claim() -> [i32; 2] {
        // The second field, in brackets, may hold blanks.
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        [16, 38].map(|field| rest.split(' ').nth(field).unwrap().parse().unwrap())
    }

    #[test]
    fn only_the_calling_thread_gives_way() {
        let before = claim();
        let inside = std::thread::spawn(|| {
            give_way();
            claim()
        });
        assert_eq!(inside.join().unwrap(), [NICENESS_MAX, libc::SCHED_IDLE]);
        assert_eq!(claim(), before);
    }
}
