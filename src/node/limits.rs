//! What the machine grants: raised where we may, named where the operator must.

use std::io;

use thiserror::Error;

use crate::config::Config;
use crate::sys::rlimit::Resource;
use crate::sys::uring;
use crate::upstream;

/// glommio refuses to start below this many bytes of lockable memory.
const LOCKED_BYTES_MIN: u64 = 512 << 10;

/// Descriptors beside sockets: rings, eventfds, logs, connections of the API, with room.
const DESCRIPTORS_BASE: u64 = 64;

/// Rings, eventfds and the like per worker.
const DESCRIPTORS_PER_WORKER: u64 = 24;

/// Descriptors that a node cannot do without: of the process, of each worker (7 eventfds, 4 rings, and some for
/// streams to upstreams and sockets being replaced), and for streams of clients at each listener.
const PROCESS_MIN: u64 = 16;
const WORKER_MIN: u64 = 16;
const STREAMS_MIN: u64 = 8;

/// Fewer source ports than these, per family, are too easily guessed; unless the operator asks for fewer.
const UPSTREAM_SOCKETS_MIN: u64 = 8;

/// What a node may use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Granted {
    /// What stays too low, for the operator.
    pub(super) warnings: Vec<String>,
    /// `forward.sockets`, or as many as there are descriptors for.
    pub(super) upstream_sockets: usize,
}

/// A limit that no node can live with.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Refusal {
    /// io_uring is switched off.
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled = {0}): sysctl -w kernel.io_uring_disabled=0"
    )]
    UringDisabled(String),
    /// io_uring is refused to this process.
    #[error(
        "io_uring is refused ({0}), by a seccomp filter as a rule: run a container with deploy/container/seccomp.json (--security-opt seccomp=FILE), let a unit's SystemCallFilter= have io_uring_setup, io_uring_enter and io_uring_register; or kernel.io_uring_disabled is 1: sysctl -w kernel.io_uring_disabled=0"
    )]
    UringRefused(String),
    /// Too little lockable memory.
    #[error(
        "only {0} bytes may be locked, {LOCKED_BYTES_MIN} are needed: LimitMEMLOCK=8M in the systemd unit, or ulimit -l 8192"
    )]
    LockedMemory(u64),
    /// Too few descriptors.
    #[error(
        "only {granted} descriptors are allowed, {needed} are the least for {workers} worker(s) with these listeners: LimitNOFILE={wanted} in the systemd unit, or ulimit -n {wanted}"
    )]
    Descriptors {
        /// In force.
        granted: u64,
        /// The least.
        needed: u64,
        /// What lets all limits of the config be reached.
        wanted: u64,
        /// Workers.
        workers: usize,
    },
}

/// Raises limits for `workers` workers and says what there is.
///
/// # Errors
/// [`Refusal`].
pub(super) fn prepare(config: &Config, workers: usize) -> Result<Granted, Refusal> {
    let disabled = read_sysctl("/proc/sys/kernel/io_uring_disabled");
    // 1 lets privileged processes in; whether we are one, the ring itself says.
    if disabled.as_deref() == Some("2") {
        return Err(Refusal::UringDisabled("2".to_owned()));
    }
    // glommio would panic, and not say why.
    uring::try_open().or_else(unless_refused)?;
    if let Ok(locked) = Resource::LockedMemory.limit()
        && locked.soft < LOCKED_BYTES_MIN
    {
        return Err(Refusal::LockedMemory(locked.soft));
    }
    let descriptors = Resource::Descriptors.raise().or_else(|_| Resource::Descriptors.limit());
    let granted = descriptors.map_or(u64::MAX, |limit| limit.soft);
    let rmem_max = read_sysctl("/proc/sys/net/core/rmem_max");
    let rmem_max = rmem_max.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    grant(config, workers, granted, rmem_max)
}

/// Passes over what does not mean that this process may have no ring: who opens the real ones can say more of it.
fn unless_refused(cause: io::Error) -> Result<(), Refusal> {
    match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
            Err(Refusal::UringRefused(cause.to_string()))
        }
        _ => Ok(()),
    }
}

/// Ports that the operator keeps for others (`net.ipv4.ip_local_reserved_ports`, which rules IPv6 too); empty where
/// nobody says.
pub(super) fn reserved_ports() -> String {
    read_sysctl("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default()
}

fn grant(
    config: &Config,
    workers: usize,
    descriptors: u64,
    rmem_max: u64,
) -> Result<Granted, Refusal> {
    let mut warnings = Vec::new();
    let count = workers as u64;
    let listeners = config.node.listen.len() as u64;
    let asked = config.forward.sockets as u64;
    let streams = listeners * config.tcp.connections_max as u64;
    let to_upstreams = upstream::connections_max(&config.forward) as u64;
    let per_worker = DESCRIPTORS_PER_WORKER + 2 * listeners + 2 * asked + streams + to_upstreams;
    let wanted = DESCRIPTORS_BASE + count * per_worker;
    let least = WORKER_MIN + 2 * listeners + streams.min(listeners * STREAMS_MIN);
    let families = families(config);
    let with_sockets = |sockets| PROCESS_MIN + count * (least + families * sockets);
    let needed = with_sockets(asked.min(UPSTREAM_SOCKETS_MIN));
    if descriptors < needed {
        return Err(Refusal::Descriptors { granted: descriptors, needed, wanted, workers });
    }
    let room = (descriptors - with_sockets(0)) / (count * families).max(1);
    let sockets = asked.min(room);
    if sockets < asked {
        warnings.push(format!(
            "{descriptors} descriptors are allowed: forward.sockets is lowered from {asked} to {sockets}, so that TCP has room, and source ports are easier to guess; LimitNOFILE={wanted} lets everything in"
        ));
    } else if descriptors < wanted {
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
    let upstream_sockets = usize::try_from(sockets).unwrap_or(config.forward.sockets);
    Ok(Granted { warnings, upstream_sockets })
}

/// Address families of the upstreams: each has sockets of its own.
fn families(config: &Config) -> u64 {
    let has =
        |is_v4| config.forward.all_upstreams().any(|upstream| upstream.address.is_ipv4() == is_v4);
    u64::from(has(true)) + u64::from(has(false))
}

fn read_sysctl(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Upstream;
    use crate::sys::errno;

    fn config() -> Config {
        let mut config = Config::default();
        config.forward.sockets = 128;
        config.forward.root.upstreams = vec![Upstream::udp("192.0.2.1:53".parse().unwrap())];
        config
    }

    #[test]
    fn what_is_too_low_comes_with_the_command_that_mends_it() {
        let warnings =
            |descriptors, rmem_max| grant(&config(), 2, descriptors, rmem_max).unwrap().warnings;
        assert_eq!(warnings(u64::MAX, u64::MAX), Vec::<String>::new());
        let tight = warnings(1024, 212_992);
        assert_eq!(tight.len(), 2);
        assert!(tight[0].contains("LimitNOFILE=2"), "{tight:?}");
        assert!(tight[1].ends_with("sysctl -w net.core.rmem_max=4194304"), "{tight:?}");
    }

    #[test]
    fn connections_to_upstreams_are_part_of_the_limit_that_is_advised() {
        let advised = |config: &Config| {
            let Granted { warnings, .. } = grant(config, 2, 1024, u64::MAX).unwrap();
            let (_, number) = warnings[0].rsplit_once("LimitNOFILE=").unwrap();
            number.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let mut more = config();
        more.forward.root.upstreams.push(Upstream::udp("192.0.2.2:53".parse().unwrap()));
        assert_eq!(advised(&more) - advised(&config()), 2 * 4);
    }

    #[test]
    fn few_descriptors_lower_the_pool_and_very_few_are_refused() {
        let granted = grant(&config(), 1, 64, u64::MAX).unwrap();
        assert_eq!(granted.upstream_sockets, 22);
        assert!(granted.warnings[0].contains("lowered from 128 to 22"), "{granted:?}");
        let refusal = grant(&config(), 1, 49, u64::MAX).unwrap_err();
        assert!(
            refusal.to_string().contains("only 49 descriptors are allowed, 50 are"),
            "{refusal}"
        );
        assert_eq!(grant(&config(), 1, 50, u64::MAX).unwrap().upstream_sockets, 8);
        let mut both = config();
        both.forward.root.upstreams.push(Upstream::udp("[2001:db8::1]:53".parse().unwrap()));
        assert_eq!(grant(&both, 1, 64, u64::MAX).unwrap().upstream_sockets, 11);
    }

    #[test]
    fn refused_rings_are_told_from_rings_that_fail() {
        for errno in [errno::EPERM, errno::EACCES] {
            let refusal = unless_refused(io::Error::from_raw_os_error(errno)).unwrap_err();
            assert!(refusal.to_string().contains("deploy/container/seccomp.json"), "{refusal}");
        }
        assert!(unless_refused(io::ErrorKind::Unsupported.into()).is_err());
        assert_eq!(unless_refused(io::Error::from_raw_os_error(errno::ENOMEM)), Ok(()));
    }

    #[test]
    fn this_machine_can_run_a_node() {
        prepare(&config(), 1).unwrap();
    }
}
