//! Control messages of `recvmsg` and `sendmsg`: packet info, the receive-queue drop count, reports of the network; read and
//! built as bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Room for everything our sockets ask the kernel to attach: packet info of either family and a drop count.
pub const RECEIVE_CONTROL_BYTES: usize = 64;
/// Room for everything the kernel attaches to an entry of the error queue: the report, who made it, packet info.
pub const ERROR_CONTROL_BYTES: usize = 128;
/// Room for packet info of either family on a send.
pub const SEND_CONTROL_BYTES: usize = 40;

/// Bytes of a `sock_extended_err`, before the address of who reports.
const ERROR_BYTES: usize = size_of::<libc::sock_extended_err>();
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

const _: () = assert!(
    HEADER_BYTES
        + (ERROR_BYTES + size_of::<libc::sockaddr_in6>()).next_multiple_of(ALIGN)
        + HEADER_BYTES
        + PKTINFO_V6_BYTES
        <= ERROR_CONTROL_BYTES
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

/// An ICMP or ICMPv6 error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Icmp {
    /// Whether it is of ICMPv6.
    pub is_v6: bool,
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
}

impl Icmp {
    /// Whether it says that what is sent there does not arrive: unreachable, or forbidden on the way.
    ///
    /// Too big, expired on its way, a wrong header, a route given by the sender: these say nothing about the receiver.
    #[must_use]
    pub const fn is_dead_end(self) -> bool {
        // Destination Unreachable without 4 (fragmentation needed), 5 (source route failed), 8 (obsolete), 14 and 15
        // (precedence): RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1.
        let is_v4 = !self.is_v6 && self.kind == 3 && matches!(self.code, 0..=3 | 6 | 7 | 9..=13);
        // Destination Unreachable: RFC 4443 §3.1.
        let is_v6 = self.is_v6 && self.kind == 1;
        is_v4 || is_v6
    }
}

/// Finds what a router or host reported among the control messages of an entry of the error queue.
#[must_use]
pub fn parse_icmp(mut control: &[u8]) -> Option<Icmp> {
    while let Some((level, kind, payload, rest)) = next(control) {
        let origin = match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_RECVERR) => Some(libc::SO_EE_ORIGIN_ICMP),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => Some(libc::SO_EE_ORIGIN_ICMP6),
            _ => None,
        };
        // errno (4 bytes), origin, type, code
        if let Some(&[_, _, _, _, from, kind, code]) = payload.first_chunk()
            && origin == Some(from)
        {
            return Some(Icmp { is_v6: from == libc::SO_EE_ORIGIN_ICMP6, kind, code });
        }
        control = rest;
    }
    None
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
    fn report_of_the_network_is_found_and_one_of_the_kernel_is_not() {
        let error = |origin| [111, 0, 0, 0, origin, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut bytes = message(libc::IPPROTO_IP, libc::IP_PKTINFO, &[0; PKTINFO_V4_BYTES]);
        assert_eq!(parse_icmp(&bytes), None);
        bytes.extend(message(libc::IPPROTO_IP, libc::IP_RECVERR, &error(libc::SO_EE_ORIGIN_ICMP)));
        assert_eq!(parse_icmp(&bytes), Some(Icmp { is_v6: false, kind: 3, code: 3 }));
        let v6 = error(libc::SO_EE_ORIGIN_ICMP6);
        let v6 = message(libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &v6);
        assert_eq!(parse_icmp(&v6), Some(Icmp { is_v6: true, kind: 3, code: 3 }));
        let local = error(libc::SO_EE_ORIGIN_LOCAL);
        assert_eq!(parse_icmp(&message(libc::IPPROTO_IP, libc::IP_RECVERR, &local)), None);
    }

    #[test]
    fn only_what_speaks_of_the_receiver_is_a_dead_end() {
        let dead_ends = |is_v6, kind| {
            (0..=u8::MAX).filter(move |&code| Icmp { is_v6, kind, code }.is_dead_end())
        };
        assert_eq!(Vec::from_iter(dead_ends(false, 3)), [0, 1, 2, 3, 6, 7, 9, 10, 11, 12, 13]);
        assert_eq!(dead_ends(true, 1).count(), 256);
        // Source quench, redirect, time exceeded, parameter problem; too big and so on.
        assert!([4, 5, 11, 12].into_iter().all(|kind| dead_ends(false, kind).count() == 0));
        assert!([2, 3, 4].into_iter().all(|kind| dead_ends(true, kind).count() == 0));
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
            let _ = (parse(&bytes), parse_icmp(&bytes));
        }

        #[test]
        fn a_cut_message_says_nothing(cut in 0usize..HEADER_BYTES + PKTINFO_V6_BYTES) {
            let built = SendControl::from_local("2001:db8::1".parse().unwrap());
            prop_assert_eq!(parse(&built.as_bytes()[..cut]), Attached::default());
        }
    }
}
