//! `[rate]`: how much one client may ask.

use ipnet::IpNet;

/// `[rate]`: a token bucket per client, transport and core.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Queries that a client's bucket gains per second; zero means no limit.
    pub queries_per_second: u32,
    /// Queries that it holds at most; as many as it gains in a second, if not set.
    pub burst: Option<u32>,
    /// Of how many queries over the limit one gets an empty reply with TC; zero means none.
    pub slip: u32,
    /// Leading bits of an IPv4 address that make a client.
    pub ipv4_prefix: u8,
    /// Leading bits of an IPv6 address that make a client.
    pub ipv6_prefix: u8,
    /// Prefixes that are never limited.
    pub allow: Vec<IpNet>,
    /// Buckets per core.
    pub clients_max: usize,
}

impl Rate {
    /// Whether anybody is limited.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.queries_per_second > 0
    }

    /// Queries that a bucket holds at most.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst.unwrap_or(self.queries_per_second).max(1)
    }
}

impl Default for Rate {
    /// Off: behind one address may sit a person, an office or another resolver, and only the operator knows which.
    fn default() -> Self {
        let loopback = ["127.0.0.0/8", "::1/128"];
        let allow = loopback.iter().map(|text| text.parse().expect("the table holds prefixes"));
        Self {
            queries_per_second: 0,
            burst: None,
            slip: 2,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            allow: allow.collect(),
            clients_max: 16_384,
        }
    }
}
