//! The datagram buffers of one core: one mapping, cut into pools. No bytes are copied or read here.

use std::io;
use std::rc::Rc;

use crate::config;
use crate::sys::datagram::PREFIX_BYTES;
use crate::sys::mmap::Map;
use crate::sys::pool::{Pool, stride};

/// Largest datagram taken in. Queries are far smaller, and we advertise 1232 to upstreams (RFC 9715 §3.2).
const DATAGRAM_BYTES_MAX: usize = RECEIVE_SLOT_BYTES - PREFIX_BYTES;

const RECEIVE_SLOT_BYTES: usize = 2048;
const _: () = assert!(DATAGRAM_BYTES_MAX >= 1232);

/// Our own queries are at most this long: header, name, type and class, OPT with room for options.
const QUERY_BYTES_MAX: usize = 512;

/// Buffers provided to the kernel for answers of upstreams, apart from those for clients' queries: a flood of queries
/// must not keep answers out.
const fn upstream_buffers(receive_buffers: u16) -> u16 {
    if receive_buffers >= 16 { receive_buffers / 2 } else { receive_buffers }
}

/// Bytes of one core's buffers.
#[must_use]
pub fn bytes(udp: &config::Udp) -> usize {
    lens(udp).iter().sum()
}

/// Bytes of each pool: of clients' datagrams, of upstreams', of what we send.
fn lens(udp: &config::Udp) -> [usize; 3] {
    let upstream_buffers = upstream_buffers(udp.receive_buffers);
    [
        stride(RECEIVE_SLOT_BYTES) * usize::from(udp.receive_buffers),
        stride(RECEIVE_SLOT_BYTES) * usize::from(upstream_buffers),
        stride(send_slot_bytes(udp)) * usize::from(udp.send_buffers.max(1)),
    ]
}

fn send_slot_bytes(udp: &config::Udp) -> usize {
    usize::from(udp.reply_bytes_max).max(QUERY_BYTES_MAX)
}

/// One core's buffers.
#[derive(Debug)]
pub(super) struct Arena {
    /// For datagrams from clients.
    pub(super) receive: Rc<Pool>,
    /// For datagrams from upstreams.
    pub(super) upstream: Rc<Pool>,
    /// For everything we send.
    pub(super) send: Rc<Pool>,
}

impl Arena {
    /// Maps the buffers and touches them on the calling thread, so that they lie on its NUMA node.
    ///
    /// # Errors
    /// The kernel's, when memory runs out.
    pub(super) fn new(udp: &config::Udp) -> io::Result<Self> {
        let receive_buffers = udp.receive_buffers;
        let upstream_buffers = upstream_buffers(receive_buffers);
        let send_buffers = udp.send_buffers.max(1);
        let send_slot_bytes = send_slot_bytes(udp);
        let lens = lens(udp);
        let too_small = || io::Error::from(io::ErrorKind::OutOfMemory);
        let [receive, upstream, send] =
            Map::anonymous(lens.iter().sum())?.split(lens).ok_or_else(too_small)?;
        let pool = |region, bytes, count| Pool::new(region, bytes, count).ok_or_else(too_small);
        Ok(Self {
            receive: pool(receive, RECEIVE_SLOT_BYTES, receive_buffers)?,
            upstream: pool(upstream, RECEIVE_SLOT_BYTES, upstream_buffers)?,
            send: pool(send, send_slot_bytes, send_buffers)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_have_the_configured_counts() {
        let udp = config::Udp { receive_buffers: 64, send_buffers: 10, ..Default::default() };
        let arena = Arena::new(&udp).unwrap();
        assert_eq!((arena.receive.count(), arena.upstream.count()), (64, 32));
        assert_eq!((arena.send.count(), arena.send.slot_bytes()), (10, 1232));
    }

    #[test]
    fn buffers_take_what_the_operations_document_says() {
        let receive = stride(RECEIVE_SLOT_BYTES);
        let of_upstreams = receive * usize::from(upstream_buffers(1024)) / 1024;
        assert_eq!((receive + of_upstreams, receive, of_upstreams), (3168, 2112, 1056));
        let send = stride(usize::from(config::Udp::default().reply_bytes_max));
        assert_eq!(send, 1344);
        assert_eq!(1024 * (3168 + send) / 100_000, 46, "4.6 MB by default");
    }
}
