//! The source ports that queries to upstreams may leave from: all above the servers' own, but for those that the operator
//! keeps for others and those that networks filter.

use std::collections::BTreeSet;

use super::ChaCha;

/// Lowest source port: the whole range above the servers' own ports (RFC 5452 §9.2, RFC 6056 §3.2).
const PORT_MIN: u16 = 1_024;

/// Ports that networks like to filter because of what usually speaks there: SSDP, mDNS, memcached.
const PORTS_SHUNNED: [u16; 3] = [1_900, 5_353, 11_211];

/// Fewer ports than this are too easily guessed: a forger then has less than 13 bits to hit besides the ID's 16.
const PORTS_MIN: usize = 8_192;

/// The ports to draw from, the same for all cores.
#[derive(Debug)]
pub struct SourcePorts {
    ports: Box<[u16]>,
    is_reservation_ignored: bool,
}

impl SourcePorts {
    /// All ports but the `reserved` ones, written as in `net.ipv4.ip_local_reserved_ports`: numbers and ranges with commas
    /// between them. What is written otherwise reserves nothing.
    ///
    /// A reservation that leaves too few ports to hide among is ignored.
    #[must_use]
    pub fn avoiding(reserved: &str) -> Self {
        let taken: BTreeSet<u16> =
            reserved.split(',').filter_map(range).flat_map(|(first, last)| first..=last).collect();
        let all = || (PORT_MIN..=u16::MAX).filter(|port| !PORTS_SHUNNED.contains(port));
        let ports: Box<[u16]> = all().filter(|port| !taken.contains(port)).collect();
        if ports.len() < PORTS_MIN {
            return Self { ports: all().collect(), is_reservation_ignored: true };
        }
        Self { ports, is_reservation_ignored: false }
    }

    /// What the operator should know about them.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.is_reservation_ignored.then(|| {
            format!(
                "net.ipv4.ip_local_reserved_ports is ignored: it leaves fewer than {PORTS_MIN} source ports, which could be guessed"
            )
        })
    }

    /// One of them, all equally likely.
    pub(super) fn draw(&self, entropy: &ChaCha) -> u16 {
        self.ports[entropy.below(self.ports.len())]
    }
}

/// Reads `3000` or `3000-3010`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_reservation_all_but_the_shunned_are_there() {
        for reserved in ["", "\n", "nonsense", "1-", "-1", "70000"] {
            let ports = SourcePorts::avoiding(reserved);
            assert_eq!(ports.ports.len(), 65_536 - 1_024 - PORTS_SHUNNED.len(), "{reserved:?}");
            assert_eq!(ports.warning(), None);
        }
    }

    #[test]
    fn reserved_ports_are_never_drawn() {
        let ports = SourcePorts::avoiding("80,3000-3002,1024,40000-65535\n");
        for port in [80, 1_024, 3_000, 3_001, 3_002, 40_000, 65_535, 5_353] {
            assert!(!ports.ports.contains(&port), "{port}");
        }
        for port in [1_025, 2_999, 3_003, 39_999] {
            assert!(ports.ports.contains(&port), "{port}");
        }
        let entropy = ChaCha::from_seed([1; 32]);
        for _ in 0..10_000 {
            let port = ports.draw(&entropy);
            assert!((1_025..40_000).contains(&port) && !(3_000..=3_002).contains(&port));
        }
    }

    #[test]
    fn reservation_that_leaves_too_few_is_ignored_with_a_warning() {
        let ports = SourcePorts::avoiding("1-65535");
        assert!(ports.ports.len() > 60_000);
        assert!(ports.warning().unwrap().contains("ip_local_reserved_ports"));
    }
}
