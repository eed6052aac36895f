//! Opening the plane's sockets, and what to tell the operator when that fails.

use std::io;
use std::net::SocketAddr;

use crate::config;
use crate::net::bind::explain;
use crate::sys::sockopt::{self, Bound, UdpSettings};

/// Why a data plane could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A listener could not be bound.
    #[error("node.listen: cannot listen on UDP {address}: {}", explain(*.address, .cause))]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The buffers could not be mapped.
    #[error(
        "cannot map the datagram buffers: {cause}; lower udp.receive_buffers or udp.send_buffers"
    )]
    Memory {
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The ring could not be opened.
    #[error("cannot open an io_uring: {}", explain_ring(.cause))]
    Ring {
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

fn explain_ring(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            "permission denied; see sysctl kernel.io_uring_disabled and the sandbox's seccomp filter".to_owned()
        }
        io::ErrorKind::OutOfMemory => "out of locked memory; raise LimitMEMLOCK (ulimit -l)".to_owned(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => {
            "the kernel is too old; multishot receives need Linux 6.0".to_owned()
        }
        _ => cause.to_string(),
    }
}

/// Binds one of the core's listeners.
///
/// # Errors
/// [`OpenError::Listen`].
pub(super) fn bind_listener(address: SocketAddr, udp: &config::Udp) -> Result<Bound, OpenError> {
    let settings = UdpSettings { is_shared: true, buffer_bytes: Some(udp.socket_buffer_bytes) };
    sockopt::bind_udp(address, settings).map_err(|cause| OpenError::Listen { address, cause })
}

/// Checks that no other process serves `address`. Without this a second node would share the address with the first
/// (`SO_REUSEPORT` lets it) and take half of its queries.
///
/// # Errors
/// [`OpenError::Listen`].
pub fn ensure_free(address: SocketAddr) -> Result<(), OpenError> {
    let settings = UdpSettings { is_shared: false, buffer_bytes: None };
    let bound = sockopt::bind_udp(address, settings);
    bound.map(drop).map_err(|cause| OpenError::Listen { address, cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::errno;

    #[test]
    fn errors_name_the_address_and_what_to_do() {
        let udp = config::Udp::default();
        let foreign = "192.0.2.1:20290".parse().unwrap();
        let error = bind_listener(foreign, &udp).unwrap_err();
        assert_eq!(
            error.to_string(),
            "node.listen: cannot listen on UDP 192.0.2.1:20290: no interface of this machine has it"
        );
    }

    #[test]
    fn machine_without_ipv6_says_so() {
        let cause = io::Error::from_raw_os_error(errno::EAFNOSUPPORT);
        let error = OpenError::Listen { address: "[::1]:53".parse().unwrap(), cause };
        assert_eq!(
            error.to_string(),
            "node.listen: cannot listen on UDP [::1]:53: this machine has no IPv6; leave the address out of node.listen"
        );
    }

    #[test]
    fn kernel_before_multishot_receives_is_named() {
        let cause = io::Error::from(io::ErrorKind::Unsupported);
        let error = OpenError::Ring { cause }.to_string();
        assert!(error.ends_with("multishot receives need Linux 6.0"), "{error}");
    }

    #[test]
    fn a_taken_address_is_said_to_be_in_use() {
        let alone = UdpSettings { is_shared: false, buffer_bytes: None };
        let taken = sockopt::bind_udp("127.0.0.1:0".parse().unwrap(), alone).unwrap();
        let error = bind_listener(taken.address, &config::Udp::default()).unwrap_err();
        assert!(error.to_string().ends_with("in use by another process"), "{error}");
    }

    #[test]
    fn address_of_a_node_that_shares_among_its_cores_is_not_free() {
        let first = bind_listener("127.0.0.1:0".parse().unwrap(), &config::Udp::default()).unwrap();
        assert!(ensure_free(first.address).is_err());
        let address = first.address;
        drop(first);
        assert!(ensure_free(address).is_ok());
    }
}
