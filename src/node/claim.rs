//! Are the addresses free? Asked before the first listener is opened, because listeners of one user may share an address
//! in silence (`SO_REUSEPORT`).

use std::io;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use super::NodeError;
use crate::config;
use crate::control::api::Api;
use crate::net::udp::{self, OpenError};
use crate::sys::listen;
use crate::time::Deadline;
use crate::upstream::MonotonicClock;

/// How long an address in use is waited for. The kernel holds the sockets of an ended process until its rings are torn
/// down: some 40 ms after a parent has reaped it, longer on a busy machine, so a restart would find them taken.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is asked for anew.
const STEP: Duration = Duration::from_millis(10);

/// Waits until every address can be bound by us alone.
///
/// # Errors
/// [`NodeError`]: one is in use for longer than a process takes to go, or cannot be bound at all.
pub(super) fn all(addresses: &[SocketAddr]) -> Result<(), NodeError> {
    let clock = MonotonicClock::start();
    let deadline = Deadline::after(clock.monotonic(), PATIENCE);
    let mut is_said = false;
    for &address in addresses {
        while let Err(refusal) = ensure_free(address) {
            if !is_in_use(&refusal) || deadline.remaining(clock.monotonic()).is_none() {
                return Err(refusal);
            }
            if !is_said {
                tracing::info!("{refusal}; waiting up to {PATIENCE:?} for it");
                is_said = true;
            }
            sleep(STEP);
        }
    }
    Ok(())
}

/// The API at its place, which is waited for as the addresses of the listeners are.
///
/// # Errors
/// [`NodeError::Api`].
pub(super) fn api(section: &config::Api) -> Result<Option<Api>, NodeError> {
    let clock = MonotonicClock::start();
    let deadline = Deadline::after(clock.monotonic(), PATIENCE);
    let mut is_said = false;
    loop {
        let refusal = match Api::open(section) {
            Err(refusal) if refusal.is_in_use() => refusal,
            outcome => return Ok(outcome?),
        };
        if deadline.remaining(clock.monotonic()).is_none() {
            return Err(refusal.into());
        }
        if !is_said {
            tracing::info!("{refusal}; waiting up to {PATIENCE:?} for it");
            is_said = true;
        }
        sleep(STEP);
    }
}

/// Binds `address` for UDP and TCP, as nobody else then can, and lets it go at once.
pub(super) fn ensure_free(address: SocketAddr) -> Result<(), NodeError> {
    udp::ensure_free(address).map_err(|cause| NodeError::Udp { core: 0, cause })?;
    let free = listen::ensure_free(address);
    free.map_err(|cause| NodeError::Tcp { core: 0, address, cause })
}

/// Whether somebody else has the address.
pub(super) fn is_in_use(refusal: &NodeError) -> bool {
    let (NodeError::Udp { cause: OpenError::Listen { cause, .. }, .. }
    | NodeError::Tcp { cause, .. }) = refusal
    else {
        return false;
    };
    cause.kind() == io::ErrorKind::AddrInUse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sockopt::{UdpSettings, bind_udp};

    #[test]
    fn address_that_is_let_go_in_time_is_waited_for() {
        let alone = UdpSettings { is_shared: false, buffer_bytes: None };
        let bound = bind_udp("127.0.0.1:0".parse().unwrap(), alone).unwrap();
        let address = bound.address;
        assert!(is_in_use(&ensure_free(address).unwrap_err()));
        let holder = std::thread::spawn(move || {
            sleep(10 * STEP);
            drop(bound);
        });
        all(&[address]).unwrap();
        holder.join().unwrap();
    }

    #[test]
    fn place_of_the_api_is_waited_for_too() {
        let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = bound.local_addr().unwrap();
        let section =
            config::Api { listen: config::ApiListen::Tcp(address), ..config::Api::default() };
        assert!(Api::open(&section).unwrap_err().is_in_use());
        let holder = std::thread::spawn(move || {
            sleep(10 * STEP);
            drop(bound);
        });
        assert!(api(&section).unwrap().is_some());
        holder.join().unwrap();
    }

    #[test]
    fn foreign_address_is_not_waited_for() {
        let refusal = all(&["192.0.2.1:20391".parse().unwrap()]).unwrap_err();
        assert!(!is_in_use(&refusal), "{refusal}");
    }
}
