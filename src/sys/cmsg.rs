//! Control messages of `recvmsg` and `sendmsg`: packet info and the receive-queue drop count, read and built as bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Room for everything our sockets ask the kernel to attach: packet info of either family and a drop count.
pub const RECEIVE_CONTROL_BYTES: usize = 64;
/// Room for packet info of either family on a send.
pub const SEND_CONTROL_BYTES: usize = 40;

const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
const ALIGN: usize = size_of::<usize>();
const PKTINFO_V4_BYTES: usize = size_of::<libc::in_pktinfo>();
const PKTINFO_V6_BYTES: usize = size_of::<libc::in6_pktinfo>();
const _: () =
    assert!(HEADER_BYTES == 2 * size_of::<usize>(), "length, level, type on a 64-bit target");
const _: () = assert!(HEADER_BYTES + PKTINFO_V6_BYTES <= SEND_CONTROL_BYTES);
const _: () = assert!(
    (HEADER_BYTES + PKTINFO_V6_BYTES).next_multiple_of(ALIGN) + HEADER_BYTES + ALIGN
        <= RECEIVE_CONTROL_BYTES
);

/// What the kernel said about a datagram beside its bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Attached {
    /// The address the datagram was sent to.
    pub local: Option<IpAddr>,
    /// Datagrams the socket has dropped since it was opened, for want of buffer space (`SO_RXQ_OVFL`); wraps.
    pub drops: Option<u32>,
}

/// Reads control messages; what is cut off or unknown is skipped.
#[must_use]
pub fn parse(mut control: &[u8]) -> Attached {
    let mut attached = Attached::default();
    while let Some((level, kind, payload, rest)) = next(control) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // ifindex, spec_dst (the address to answer from), addr
                let octets: Option<[u8; 4]> = payload.get(4..8).and_then(|b| b.try_into().ok());
                attached.local = octets.map(|octets| Ipv4Addr::from(octets).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let octets: Option<[u8; 16]> = payload.first_chunk().copied();
                attached.local = octets.map(|octets| Ipv6Addr::from(octets).into());
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                attached.drops = payload.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
            }
            _ => {}
        }
        control = rest;
    }
    attached
}

/// Splits off the first control message: level, type, payload, what follows.
fn next(control: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let len = usize::from_ne_bytes(*control.first_chunk()?);
    let level = i32::from_ne_bytes(*control.get(ALIGN..)?.first_chunk()?);
    let kind = i32::from_ne_bytes(*control.get(ALIGN + 4..)?.first_chunk()?);
    let payload = control.get(HEADER_BYTES..len)?;
    let rest = control.get(len.checked_next_multiple_of(ALIGN)?..).unwrap_or_default();
    Some((level, kind, payload, rest))
}

/// Control data for one send, aligned as the kernel wants it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct SendControl {
    bytes: [u8; SEND_CONTROL_BYTES],
    len: usize,
}

impl SendControl {
    /// No control data.
    pub const EMPTY: Self = Self { bytes: [0; SEND_CONTROL_BYTES], len: 0 };

    /// Packet info that makes a datagram leave from `local`; the route chooses the interface.
    #[must_use]
    pub fn from_local(local: IpAddr) -> Self {
        let mut control = Self::EMPTY;
        match local {
            IpAddr::V4(v4) => {
                control.put_header(PKTINFO_V4_BYTES, libc::IPPROTO_IP, libc::IP_PKTINFO);
                control.bytes[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                control.put_header(PKTINFO_V6_BYTES, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
                control.bytes[HEADER_BYTES..HEADER_BYTES + 16].copy_from_slice(&v6.octets());
            }
        }
        control
    }

    fn put_header(&mut self, payload_bytes: usize, level: i32, kind: i32) {
        let len = HEADER_BYTES + payload_bytes;
        self.bytes[..ALIGN].copy_from_slice(&len.to_ne_bytes());
        self.bytes[ALIGN..ALIGN + 4].copy_from_slice(&level.to_ne_bytes());
        self.bytes[ALIGN + 4..HEADER_BYTES].copy_from_slice(&kind.to_ne_bytes());
        self.len = len.next_multiple_of(ALIGN);
    }

    /// The control messages.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(level: i32, kind: i32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (HEADER_BYTES + payload.len()).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        bytes
    }

    #[test]
    fn what_is_built_for_a_v6_reply_is_read_back() {
        let local: IpAddr = "fe80::7".parse().unwrap();
        assert_eq!(parse(SendControl::from_local(local).as_bytes()).local, Some(local));
    }

    #[test]
    fn what_is_built_for_a_v4_reply_is_read_back() {
        let local: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(parse(SendControl::from_local(local).as_bytes()).local, Some(local));
    }

    #[test]
    fn drop_count_is_found_behind_an_unknown_message() {
        let mut bytes = message(libc::SOL_SOCKET, 77, &[1, 2, 3]);
        bytes.extend(message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &9u32.to_ne_bytes()));
        assert_eq!(parse(&bytes), Attached { local: None, drops: Some(9) });
    }

    #[test]
    fn a_message_shorter_than_its_header_ends_the_list() {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend(message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &9u32.to_ne_bytes()));
        assert_eq!(parse(&bytes), Attached::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_cut_message_says_nothing(cut in 0usize..HEADER_BYTES + PKTINFO_V6_BYTES) {
            let built = SendControl::from_local("2001:db8::1".parse().unwrap());
            prop_assert_eq!(parse(&built.as_bytes()[..cut]), Attached::default());
        }
    }
}
