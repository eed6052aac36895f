//! What the process's cgroup grants (cgroup v2 only): time and memory.

use std::path::PathBuf;

/// Where cgroup v2 is mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// CPUs' worth of time: the smallest quota of the process's own cgroup and those above it.
pub(super) fn quota() -> Option<f64> {
    values("cpu.max").iter().filter_map(|text| parse_quota(text)).reduce(f64::min)
}

/// Bytes of memory: the smallest limit of the process's own cgroup and those above it.
pub(super) fn memory() -> Option<u64> {
    // Without a limit the file says `max`, which is no number.
    values("memory.max").iter().filter_map(|text| text.trim().parse().ok()).min()
}

/// What `file` says in the process's own cgroup and those above it.
fn values(file: &str) -> Vec<String> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Vec::new();
    };
    let mut folder = PathBuf::from(ROOT);
    folder.push(path.trim_start_matches('/'));
    let folders = folder.ancestors().take_while(|folder| folder.starts_with(ROOT));
    folders.filter_map(|folder| std::fs::read_to_string(folder.join(file)).ok()).collect()
}

/// CPUs' worth of time in `quota period`, both in microseconds; `None` for `max`.
fn parse_quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_is_a_share_of_its_period() {
        assert_eq!(parse_quota("150000 100000\n"), Some(1.5));
        for text in ["max 100000", "", "1", "0 100000", "100000 0"] {
            assert_eq!(parse_quota(text), None, "{text}");
        }
    }
}
