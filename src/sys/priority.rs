//! Threads that give way to all others (setpriority(2)).
//!
//! Invariants:
//! * I1: setpriority takes numbers alone and writes to no memory of ours.

/// The least of all claims to a CPU.
const NICENESS_MAX: i32 = 19;

/// Lets the calling thread, and no other, run only when there is little else to do. A wish: a kernel that refuses it changes
/// nothing but speed.
pub fn give_way() {
    // SAFETY: the call takes numbers (I1); 0 is the calling thread (setpriority(2), "C library/kernel differences").
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS_MAX) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn niceness() -> i32 {
        // Field 19 of proc_pid_stat(5), of the thread; the second one, in brackets, may hold blanks.
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        rest.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn only_the_calling_thread_gives_way() {
        let before = niceness();
        let inside = std::thread::spawn(|| {
            give_way();
            niceness()
        });
        assert_eq!(inside.join().unwrap(), NICENESS_MAX);
        assert_eq!(niceness(), before);
    }
}
