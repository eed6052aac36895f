//! Would a node start? Everything that serving does before its first answer, on a worker of its own, without taking an
//! address or a query from a node that runs.

use std::net::SocketAddr;

use super::memory::{self, Plan};
use super::placement::{self, Seat};
use super::topology::Topology;
use super::warm::WarmList;
use super::{NodeError, claim, hosts, limits, pin, queries, start, steering, tuning};
use crate::config::Config;
use crate::control::{self, api, schedule};
use crate::net::udp::{Plane, Setup};

/// What a check found.
#[derive(Debug)]
pub struct Checked {
    /// What stands in the lists.
    pub lists: Vec<String>,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// How the memory is split.
    pub memory: Plan,
    /// What a glance at the machine's tuning shows.
    pub tuning: String,
    /// How datagrams would find their cores.
    pub steering: String,
}

/// Checks local zones, hosts files, cores, memory, limits and addresses, and makes one worker's executor, ring and buffers.
///
/// That an address is in use is a warning: the config of a node that serves is checked beside it.
///
/// # Errors
/// [`NodeError`] for what would keep the node from starting, and for files of lists that cannot be read: they would not.
pub fn check(config: &Config) -> Result<Checked, NodeError> {
    let (local, complaints, _) = hosts::local(config)?;
    start::trust_of(&config.forward)?;
    let seats = placement::choose(&Topology::detect(), &config.node.cores)?;
    let warm_list = WarmList::read(&config.cache, seats.len())?;
    let memory = Plan::new(config, seats.len(), warm_list.bytes() + local.hosts_bytes())?;
    let granted = limits::prepare(config, seats.len())?;
    let mut config = config.clone();
    config.forward.sockets = granted.upstream_sockets;
    let mut warnings = granted.warnings;
    warnings.extend(memory::warnings(&memory));
    warnings.extend(warm_list.complaints);
    warnings.extend(complaints);
    for &address in &config.node.listen {
        warnings.extend(probe(address)?);
    }
    warnings.extend(start::unwritable(&config.snapshot));
    queries::check(config.query_log.path.as_deref())?;
    warnings.extend(queries::unusable(&config.dnstap));
    warnings.extend(control::lists::warning(&config.filter, &config.lists));
    let lists = control::lists::contents(&config.filter, &config.lists)?;
    warnings.extend(schedule::warning(&config.groups).or_else(schedule::misnamed));
    warnings.extend(api::check(&config.api)?);
    warnings.extend(api::exposed(&config.api));
    if let Some(seat) = seats.first() {
        warnings.extend(try_worker(seat, &config)?);
    }
    let steering = steering::foretell(&config.node, &seats);
    let tuning = tuning::glance(&config, &seats);
    Ok(Checked { lists, warnings, memory, steering, tuning })
}

/// Binds `address` as a node would before it shares it among its cores, and lets it go at once.
fn probe(address: SocketAddr) -> Result<Option<String>, NodeError> {
    match claim::ensure_free(address) {
        Err(refusal) if claim::is_in_use(&refusal) => {
            let protocol = if matches!(refusal, NodeError::Udp { .. }) { "UDP" } else { "TCP" };
            Ok(Some(format!(
                "{protocol} {address} is in use: a node could not start while its present user runs"
            )))
        }
        outcome => outcome.map(|()| None),
    }
}

/// Makes what a worker on `seat` needs, but for its listeners, and gives what the kernel refused and it can do without.
fn try_worker(seat: &Seat, config: &Config) -> Result<Vec<String>, NodeError> {
    let core = seat.core;
    let make = || {
        let mut warnings = pin::settle(seat);
        let executor = start::executor(seat)?;
        let upstream_max = start::upstream_sockets_max(config);
        let setup = Setup { listen: &[], ..Setup::new(&config.node, &config.udp, upstream_max) };
        let plane = executor.run(async { Plane::open(&setup).map(|plane| texts(&plane)) });
        warnings.extend(plane.map_err(|cause| NodeError::Udp { core, cause })?);
        Ok(warnings)
    };
    // A thread of its own: it is pinned, and its ring belongs to it.
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new().spawn_scoped(scope, make);
        let thread =
            spawned.map_err(|cause| NodeError::System { what: "cannot start a thread", cause })?;
        thread.join().unwrap_or_else(|_| {
            Err(NodeError::Worker { core, cause: "it panicked while it was tried".to_owned() })
        })
    })
}

fn texts(plane: &Plane) -> Vec<String> {
    plane.fallbacks().iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sockopt::{UdpSettings, bind_udp};

    fn config(address: SocketAddr) -> Config {
        let mut config = Config::default();
        config.node.listen = vec![address];
        config.udp.receive_buffers = 64;
        config
    }

    #[test]
    fn address_in_use_is_a_warning_and_a_foreign_one_an_error() {
        let settings = UdpSettings { is_shared: true, buffer_bytes: None };
        let bound = bind_udp("127.0.0.1:0".parse().unwrap(), settings).unwrap();
        let said = |warnings: &[String]| warnings.iter().any(|text| text.contains("is in use"));
        assert!(said(&check(&config(bound.address)).unwrap().warnings));
        let address = bound.address;
        drop(bound);
        assert!(!said(&check(&config(address)).unwrap().warnings));
        let foreign = check(&config("192.0.2.1:20399".parse().unwrap())).unwrap_err().to_string();
        assert!(foreign.contains("192.0.2.1:20399"), "{foreign}");
    }
}
