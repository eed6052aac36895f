//! A received datagram as a view of the buffer in which the kernel laid it down.

use std::net::SocketAddr;

use super::address;
use super::cmsg::{self, Attached, RECEIVE_CONTROL_BYTES};

/// Room for the sender's address; a little more than either form needs, so that what follows stays aligned.
pub const NAME_BYTES: usize = 32;
/// The same, as a `socklen_t`.
pub(super) const NAME_LEN: libc::socklen_t = 32;
/// Bytes before the payload in a buffer filled by a multishot receive: header, name, control.
pub const PREFIX_BYTES: usize = HEADER_BYTES + NAME_BYTES + RECEIVE_CONTROL_BYTES;

/// `struct io_uring_recvmsg_out`: name, control and payload length, flags; four `u32`.
const HEADER_BYTES: usize = 16;
const _: () = assert!(NAME_BYTES >= address::ADDRESS_BYTES_MAX && PREFIX_BYTES.is_multiple_of(16));
const _: () = assert!(NAME_LEN as usize == NAME_BYTES);

/// One datagram and what the kernel said about it.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The sender; `None` when the kernel gave no Internet address.
    pub from: Option<SocketAddr>,
    /// The address it was sent to, the socket's drop count.
    pub attached: Attached,
    /// Its bytes.
    pub payload: &'a [u8],
    /// Whether bytes are missing from the end of `payload`.
    pub is_truncated: bool,
}

impl<'a> Datagram<'a> {
    /// Reads a buffer filled by a multishot receive; `None` when it cannot be one.
    #[must_use]
    #[inline]
    pub fn parse(filled: &'a [u8]) -> Option<Self> {
        let (header, rest) = filled.split_first_chunk::<HEADER_BYTES>()?;
        let (name, rest) = rest.split_first_chunk::<NAME_BYTES>()?;
        let (control, payload) = rest.split_first_chunk::<RECEIVE_CONTROL_BYTES>()?;
        let [name_len, control_len, payload_len, flags] = words(header);
        let name = name.get(..usize_of(name_len)).unwrap_or(name);
        let control = control.get(..usize_of(control_len)).unwrap_or(control);
        Some(Self {
            from: address::parse(name),
            attached: cmsg::parse(control),
            payload: payload.get(..usize_of(payload_len)).unwrap_or(payload),
            is_truncated: flags & TRUNCATED != 0 || usize_of(payload_len) > payload.len(),
        })
    }
}

/// A datagram that the kernel would not send.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Its bytes.
    pub datagram: &'a [u8],
    /// Where it was to go.
    pub to: Option<SocketAddr>,
    /// Why.
    pub errno: i32,
}

const TRUNCATED: u32 = libc::MSG_TRUNC.unsigned_abs();

fn words(header: &[u8; HEADER_BYTES]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(header.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

const fn usize_of(word: u32) -> usize {
    word as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_buffer_is_read_within_bounds(
            words: [u32; 4], rest in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let mut buffer: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            buffer.extend(rest);
            match Datagram::parse(&buffer) {
                Some(datagram) => prop_assert!(datagram.payload.len() + PREFIX_BYTES <= buffer.len()),
                None => prop_assert!(buffer.len() < PREFIX_BYTES),
            }
        }
    }

    #[test]
    fn a_payload_longer_than_the_buffer_is_truncated() {
        let mut buffer: Vec<u8> = [16u32, 0, 9, 0].iter().flat_map(|w| w.to_ne_bytes()).collect();
        buffer.resize(PREFIX_BYTES + 4, 7);
        let datagram = Datagram::parse(&buffer).unwrap();
        assert!(datagram.is_truncated);
        assert_eq!(datagram.payload, [7; 4]);
    }
}
