//! CPU time that another process has had, by the scheduler's own account.

use std::fs;

/// Nanoseconds that all threads of `process` have run that are still there.
///
/// # Errors
/// What could not be read, in words.
pub(crate) fn time_ns(process: u32) -> Result<u64, String> {
    let tasks = format!("/proc/{process}/task");
    let cannot = |cause: std::io::Error| format!("--server-pid {process}: {cause}");
    let mut sum = 0;
    for task in fs::read_dir(&tasks).map_err(cannot)? {
        let Ok(text) = fs::read_to_string(task.map_err(cannot)?.path().join("schedstat")) else {
            // It has just ended.
            continue;
        };
        let first = text.split_ascii_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        sum += first.ok_or_else(|| format!("--server-pid {process}: its schedstat has no time"))?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_grows_and_that_of_nobody_is_told_plainly() {
        let before = time_ns(std::process::id()).unwrap();
        let mut sum = 0u64;
        while time_ns(std::process::id()).unwrap() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(time_ns(u32::MAX).unwrap_err().contains("--server-pid"));
    }
}
