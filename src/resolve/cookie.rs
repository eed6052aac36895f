//! DNS cookies toward upstreams (RFC 7873, RFC 9018): what we send so that an answer shows who it comes from.

use std::hash::Hasher as _;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// Octets of the part that is ours (RFC 7873 §4).
pub(super) const CLIENT_BYTES: usize = 8;

/// Octets of the server's part, at least and at most.
const SERVER_BYTES: std::ops::RangeInclusive<usize> = 8..=32;

/// The secret from which the cookies of a process are made, the same on every core: an upstream, or who listens, must not
/// learn which core asks.
#[derive(Clone)]
pub struct CookieSecret([u8; 16]);

impl std::fmt::Debug for CookieSecret {
    /// Says nothing about it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieSecret")
    }
}

impl CookieSecret {
    /// A secret of these octets, which nobody may be able to guess.
    #[must_use]
    pub const fn new(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// Our part for one server in one period: it is told to no other (RFC 7873 §4.1, RFC 9018 §3).
    #[must_use]
    pub fn client_part(&self, server: IpAddr, period: u64) -> [u8; CLIENT_BYTES] {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        match server {
            IpAddr::V4(v4) => hasher.write(&v4.octets()),
            IpAddr::V6(v6) => hasher.write(&v6.octets()),
        }
        hasher.write(&period.to_be_bytes());
        hasher.finish().to_be_bytes()
    }
}

/// The cookie for one server: our part, and the server's once it has given one.
#[derive(Clone, Debug)]
pub(super) struct Cookie {
    octets: Vec<u8>,
}

impl Cookie {
    pub(super) fn new(client_part: [u8; CLIENT_BYTES]) -> Self {
        Self { octets: client_part.to_vec() }
    }

    /// As it is sent.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.octets
    }

    /// Whether the server has given its part.
    pub(super) fn is_whole(&self) -> bool {
        self.octets.len() > CLIENT_BYTES
    }

    /// Learns the server's part from the cookie of its answer; whether that has one.
    pub(super) fn learn(&mut self, back: &[u8]) -> bool {
        let Some((ours, server_part)) = back.split_at_checked(CLIENT_BYTES) else { return false };
        // What we sent may have become another one meanwhile.
        if *ours != self.octets[..CLIENT_BYTES] || !SERVER_BYTES.contains(&server_part.len()) {
            return false;
        }
        if self.octets[CLIENT_BYTES..] != *server_part {
            self.octets.truncate(CLIENT_BYTES);
            self.octets.extend_from_slice(server_part);
        }
        true
    }

    /// The server no longer gives cookies, as a stream has shown.
    pub(super) fn forget(&mut self) {
        self.octets.truncate(CLIENT_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_sees_its_own_part() {
        let secret = CookieSecret::new([7; 16]);
        let part = |text: &str| secret.client_part(text.parse().unwrap(), 0);
        assert_eq!(part("192.0.2.1"), part("192.0.2.1"));
        assert_ne!(part("192.0.2.1"), part("192.0.2.2"));
        assert_ne!(part("2001:db8::1"), part("2001:db8::2"));
        assert_ne!(part("192.0.2.1"), secret.client_part("192.0.2.1".parse().unwrap(), 1));
        assert_ne!(
            part("192.0.2.1"),
            CookieSecret::new([8; 16]).client_part("192.0.2.1".parse().unwrap(), 0)
        );
    }

    #[test]
    fn only_a_server_part_of_the_right_length_is_learnt() {
        let mut cookie = Cookie::new(*b"ourclien");
        for bad in [&b"ourclien"[..], b"ourclienshort", b"our", b"", &[1; 41]] {
            assert!(!cookie.learn(bad), "{bad:?}");
            assert_eq!(cookie.as_bytes(), b"ourclien");
        }
        assert!(cookie.learn(b"ourclienserver-1") && cookie.is_whole());
        assert!(cookie.learn(b"ourclienserver-22") && cookie.as_bytes() == b"ourclienserver-22");
        cookie.forget();
        assert!(!cookie.is_whole());
    }
}
