//! The process: which cores, how they start together, what ends them. Joins `net` to `serve` in [`worker`].

mod cgroup;
mod check;
mod claim;
mod clock;
mod desk;
pub mod hosts;
pub mod limits;
mod lists;
pub mod log;
pub mod memory;
mod notify;
mod panel;
mod pin;
pub mod placement;
mod queries;
pub mod reload;
mod snapshot;
mod start;
mod steering;
mod succession;
mod supervise;
pub(crate) mod switches;
pub mod topology;
mod tuning;
mod vigil;
pub mod warm;
mod worker;

use std::net::SocketAddr;

pub use check::{Checked, check};
pub use start::serve;
use thiserror::Error;

use self::placement::PlacementError;
use crate::config::CoreSelection;
use crate::control::api::ApiError;
use crate::control::log::BeginError;
use crate::net::bind::explain;
use crate::net::udp::OpenError;
use crate::policy::LocalError;
use crate::upstream::TrustError;

/// Why a node cannot start or had to stop, in words for the operator.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The cores asked for cannot be had.
    #[error("{0}")]
    Placement(#[from] PlacementError),
    /// A local zone in the config is broken.
    #[error("{0}")]
    Local(#[from] LocalError),
    /// A hosts file cannot be read.
    #[error("{0}")]
    Hosts(#[from] hosts::Unreadable),
    /// Files of lists cannot be read: a check says so, a node starts without them.
    #[error("{0}")]
    Lists(#[from] crate::control::lists::Unreadable),
    /// The machine refuses what every node needs.
    #[error("{0}")]
    Limits(#[from] limits::Refusal),
    /// Queries cannot be written down.
    #[error("{0}")]
    QueryLog(#[from] BeginError),
    /// The warm-up list cannot be read.
    #[error("{0}")]
    WarmUp(#[from] warm::Unreadable),
    /// Upstreams cannot be authenticated.
    #[error("{0}")]
    Trust(#[from] TrustError),
    /// The API cannot be had.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// The memory does not suffice.
    #[error("{0}")]
    Memory(#[from] memory::TooLittle),
    /// The datagram plane of a core could not be opened.
    #[error("core {core}: {cause}")]
    Udp {
        /// The worker.
        core: usize,
        /// What was refused.
        #[source]
        cause: OpenError,
    },
    /// A stream listener could not be opened.
    #[error("core {core}: node.listen: cannot listen on TCP {address}: {}", explain(*.address, .cause))]
    Tcp {
        /// The worker.
        core: usize,
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        cause: std::io::Error,
    },
    /// A worker's thread, executor or ring failed.
    #[error("core {core} died: {cause}")]
    Worker {
        /// The worker.
        core: usize,
        /// What happened.
        cause: String,
    },
    /// Signals or the entropy of the kernel cannot be had.
    #[error("{what}: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        #[source]
        cause: std::io::Error,
    },
}

impl NodeError {
    /// Whether the operator must mend the config or what it names, rather than the machine: the same attempt would fail for ever.
    #[must_use]
    pub fn is_mistake(&self) -> bool {
        match self {
            Self::Placement(PlacementError::Cpu { .. } | PlacementError::Numa { .. })
            | Self::Local(_)
            | Self::Hosts(_)
            | Self::Lists(_)
            | Self::QueryLog(BeginError::Store { .. })
            | Self::WarmUp(_)
            | Self::Trust(_)
            | Self::Memory(_) => true,
            Self::Api(error) => error.is_mistake(),
            Self::Placement(PlacementError::NoCpu)
            | Self::Limits(_)
            | Self::QueryLog(BeginError::Thread(_))
            | Self::Udp { .. }
            | Self::Tcp { .. }
            | Self::Worker { .. }
            | Self::System { .. } => false,
        }
    }
}

/// The machine and the cores that `selection` gets on it, as a text for people.
///
/// # Errors
/// [`NodeError::Placement`] when the selection cannot be had.
pub fn topology_report(selection: &CoreSelection) -> Result<String, NodeError> {
    let topology = topology::Topology::detect();
    let seats = placement::choose(&topology, selection)?;
    Ok(topology::report(&topology, &seats))
}
