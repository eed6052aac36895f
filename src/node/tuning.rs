//! What a check sees of the machine's tuning at a glance, in one line; `tuning/playbook` sees all of it.

use super::placement::Seat;
use crate::config::Config;
use crate::sys::rlimit::Resource;

/// What the systemd unit grants, and the playbook wants.
const LOCKED_BYTES_WANTED: u64 = 8 << 20;

/// What could be better, and the command that says all of it.
pub(super) fn glance(config: &Config, seats: &[Seat]) -> String {
    let locked = Resource::LockedMemory.limit().map_or(u64::MAX, |limit| limit.soft);
    let cpus: Vec<usize> = seats.iter().map(|seat| seat.cpu).collect();
    said(config, &cpus, locked, &|path| std::fs::read_to_string(path).ok())
}

/// The same of a machine whose files `read` gives.
fn said(
    config: &Config,
    cpus: &[usize],
    locked: u64,
    read: &dyn Fn(&str) -> Option<String>,
) -> String {
    let mut better = Vec::new();
    let asked = config.udp.socket_buffer_bytes as u64;
    for name in ["rmem_max", "wmem_max"] {
        let text = read(&format!("/proc/sys/net/core/{name}"));
        let most = text.and_then(|text| text.trim().parse::<u64>().ok());
        if let Some(most) = most.filter(|most| *most < asked) {
            better.push(format!("net.core.{name} is {most}, {asked} wanted"));
        }
    }
    if locked < LOCKED_BYTES_WANTED {
        better.push(format!("{locked} bytes may be locked, {LOCKED_BYTES_WANTED} wanted"));
    }
    for cpu in cpus {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        let governor = read(&path).map(|text| text.trim().to_owned());
        if let Some(governor) = governor.filter(|governor| governor != "performance") {
            // One is enough to look closer.
            better.push(format!("the governor of CPU {cpu} is {governor}, performance wanted"));
            break;
        }
    }
    let found = if better.is_empty() {
        "socket buffers, locked memory and governor are as wanted".to_owned()
    } else {
        better.join("; ")
    };
    let cores: Vec<String> = cpus.iter().map(ToString::to_string).collect();
    format!("{found}; the whole of it: tuning/playbook check --cores {}", cores.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_better_is_named_once_with_the_command_for_these_cores() {
        let slow = |path: &str| match path {
            "/proc/sys/net/core/rmem_max" => Some("212992\n".to_owned()),
            "/proc/sys/net/core/wmem_max" => Some("8388608\n".to_owned()),
            path if path.contains("cpufreq") => Some("powersave\n".to_owned()),
            _ => None,
        };
        assert_eq!(
            said(&Config::default(), &[2, 3], 512 << 10, &slow),
            "net.core.rmem_max is 212992, 4194304 wanted; 524288 bytes may be locked, 8388608 wanted; \
             the governor of CPU 2 is powersave, performance wanted; \
             the whole of it: tuning/playbook check --cores 2,3"
        );
    }

    #[test]
    fn machine_that_shows_nothing_is_not_complained_of() {
        let line = said(&Config::default(), &[0], u64::MAX, &|_| None);
        assert_eq!(
            line,
            "socket buffers, locked memory and governor are as wanted; \
             the whole of it: tuning/playbook check --cores 0"
        );
    }
}
