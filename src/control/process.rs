//! What the kernel says of the process as a whole, under the names that Prometheus' own clients use.

use std::fs;

use crate::observe::{Exposition, Kind};

/// Ticks per second in `/proc` (`USER_HZ`, fixed by the kernel's interface to user space).
const TICKS_PER_SECOND: f64 = 100.0;

/// Fields of `/proc/self/stat` behind the name of the program, counted from 0 (proc(5)).
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const START_TICKS: usize = 19;
const VIRTUAL_BYTES: usize = 20;

/// Writes what can be read; a sandbox may hide some of it.
pub fn expose(out: &mut Exposition) {
    if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
        let booted = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
        expose_stat(&stat, booted, out);
    }
    if let Some(bytes) =
        fs::read_to_string("/proc/self/status").ok().and_then(|text| resident(&text))
    {
        let (name, help) = ("process_resident_memory_bytes", "Resident memory");
        out.sample(Kind::Gauge, name, help, &[], bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // Less the one that lists them.
        let count = open.count().saturating_sub(1) as u64;
        out.sample(Kind::Gauge, "process_open_fds", "Open descriptors", &[], count);
    }
    if let Some(most) = fs::read_to_string("/proc/self/limits").ok().and_then(|text| fds_max(&text))
    {
        out.sample(Kind::Gauge, "process_max_fds", "Descriptors that may be open", &[], most);
    }
}

fn expose_stat(stat: &str, booted: Option<f64>, out: &mut Exposition) {
    // The name stands in parentheses, and may hold some itself.
    let Some((_, fields)) = stat.rsplit_once(')') else { return };
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |place: usize| fields.get(place)?.parse::<f64>().ok();
    if let (Some(user), Some(system)) = (field(USER_TICKS), field(SYSTEM_TICKS)) {
        let (name, help) = ("process_cpu_seconds_total", "Time on CPUs, user and system");
        out.real(Kind::Counter, name, help, &[], (user + system) / TICKS_PER_SECOND);
    }
    if let (Some(start), Some(booted)) = (field(START_TICKS), booted) {
        let (name, help) = ("process_start_time_seconds", "Start of the process since the epoch");
        out.real(Kind::Gauge, name, help, &[], booted + start / TICKS_PER_SECOND);
    }
    if let Some(bytes) = fields.get(VIRTUAL_BYTES).and_then(|field| field.parse().ok()) {
        let (name, help) = ("process_virtual_memory_bytes", "Virtual memory");
        out.sample(Kind::Gauge, name, help, &[], bytes);
    }
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

fn fds_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Format;

    #[test]
    fn name_of_the_program_does_not_move_the_fields() {
        let mut out = Exposition::default();
        let stat = "7 (a) b (c) S 1 1 1 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 5 0 1000 4096 33";
        expose_stat(stat, Some(1_000_000.0), &mut out);
        let text = out.finish(Format::Classic);
        for line in [
            "process_cpu_seconds_total 2\n",
            "process_start_time_seconds 1000010\n",
            "process_virtual_memory_bytes 4096\n",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
        expose_stat("garbage", None, &mut Exposition::default());
        expose_stat("7 (x) S", None, &mut Exposition::default());
    }

    #[test]
    fn own_process_tells_all() {
        let mut out = Exposition::default();
        expose(&mut out);
        let text = out.finish(Format::Classic);
        for name in [
            "cpu_seconds_total",
            "start_time_seconds",
            "resident_memory_bytes",
            "open_fds",
            "max_fds",
        ] {
            assert!(text.contains(&format!("\nprocess_{name} ")), "no {name} in {text}");
        }
    }
}
