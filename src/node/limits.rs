//! What the machine grants: raised where we may, named where the operator must.

use thiserror::Error;

use crate::config::Config;
use crate::sys::rlimit::Resource;

/// glommio refuses to start below this many bytes of lockable memory.
const LOCKED_BYTES_MIN: u64 = 512 << 10;

/// Descriptors beside sockets: rings, eventfds, logs, with room.
const DESCRIPTORS_BASE: u64 = 64;

/// Rings, eventfds and the like per worker.
const DESCRIPTORS_PER_WORKER: u64 = 24;

/// A limit that no node can live with.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Refusal {
    /// io_uring is switched off.
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled = {0}): sysctl -w kernel.io_uring_disabled=0"
    )]
    UringDisabled(String),
    /// Too little lockable memory.
    #[error(
        "only {0} bytes may be locked, {LOCKED_BYTES_MIN} are needed: LimitMEMLOCK=8M in the systemd unit, or ulimit -l 8192"
    )]
    LockedMemory(u64),
}

/// Raises limits for `workers` workers and gives warnings about what stays too low.
///
/// # Errors
/// [`Refusal`].
pub(super) fn prepare(config: &Config, workers: usize) -> Result<Vec<String>, Refusal> {
    let disabled = read_sysctl("/proc/sys/kernel/io_uring_disabled");
    // 1 lets privileged processes in; whether we are one, the ring itself will say.
    if disabled.as_deref() == Some("2") {
        return Err(Refusal::UringDisabled("2".to_owned()));
    }
    if let Ok(locked) = Resource::LockedMemory.limit()
        && locked.soft < LOCKED_BYTES_MIN
    {
        return Err(Refusal::LockedMemory(locked.soft));
    }
    let descriptors = Resource::Descriptors.raise().or_else(|_| Resource::Descriptors.limit());
    let granted = descriptors.map_or(u64::MAX, |limit| limit.soft);
    let rmem_max = read_sysctl("/proc/sys/net/core/rmem_max");
    let rmem_max = rmem_max.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    Ok(warnings(config, workers, granted, rmem_max))
}

/// Ports that the operator keeps for others (`net.ipv4.ip_local_reserved_ports`, which rules IPv6 too); empty where
/// nobody says.
pub(super) fn reserved_ports() -> String {
    read_sysctl("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default()
}

fn warnings(config: &Config, workers: usize, descriptors: u64, rmem_max: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    let listeners = config.node.listen.len() as u64;
    let upstream = 2 * config.forward.sockets as u64;
    let streams = listeners * config.tcp.connections_max as u64;
    let per_worker = DESCRIPTORS_PER_WORKER + 2 * listeners + upstream + streams;
    let wanted = DESCRIPTORS_BASE + workers as u64 * per_worker;
    if descriptors < wanted {
        warnings.push(format!(
            "{descriptors} descriptors are allowed, full TCP listeners need {wanted}: LimitNOFILE={wanted}"
        ));
    }
    let asked = config.udp.socket_buffer_bytes as u64;
    if rmem_max < asked {
        warnings.push(format!(
            "socket buffers may be capped at {rmem_max} bytes, {asked} are asked for: sysctl -w net.core.rmem_max={asked}"
        ));
    }
    warnings
}

fn read_sysctl(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config() -> Config {
        let forward = config::Forward { sockets: 128, ..Default::default() };
        Config { forward, ..Default::default() }
    }

    #[test]
    fn what_is_too_low_comes_with_the_command_that_mends_it() {
        let generous = warnings(&config(), 2, u64::MAX, u64::MAX);
        assert_eq!(generous, Vec::<String>::new());
        let tight = warnings(&config(), 2, 1024, 212_992);
        assert_eq!(tight.len(), 2);
        assert!(tight[0].contains("LimitNOFILE=2"), "{tight:?}");
        assert!(tight[1].ends_with("sysctl -w net.core.rmem_max=4194304"), "{tight:?}");
    }

    #[test]
    fn this_machine_can_run_a_node() {
        prepare(&config(), 1).unwrap();
    }
}
