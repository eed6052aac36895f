//! Hot path. Who may ask: sorted, disjoint address ranges, one binary search per query.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config;

/// The clients that are served.
#[derive(Clone, Debug)]
pub struct Acl {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
    /// As the operator wrote them, for people.
    prefixes: Box<[IpNet]>,
}

impl Acl {
    /// Compiles the section; overlapping and touching prefixes become one range.
    #[must_use]
    pub fn new(section: &config::Acl) -> Self {
        let v4 = section.allow.iter().filter_map(|prefix| match prefix {
            IpNet::V4(net) => Some((u32::from(net.network()), u32::from(net.broadcast()))),
            IpNet::V6(_) => None,
        });
        let v6 = section.allow.iter().filter_map(|prefix| match prefix {
            IpNet::V6(net) => Some((u128::from(net.network()), u128::from(net.broadcast()))),
            IpNet::V4(_) => None,
        });
        let prefixes = section.allow.clone().into();
        Self { v4: merged(v4.collect()), v6: merged(v6.collect()), prefixes }
    }

    /// Whether `client` is served. IPv4 addresses in IPv6 clothing count as IPv4.
    #[inline]
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        match client.to_canonical() {
            IpAddr::V4(address) => contains(&self.v4, u32::from(address)),
            IpAddr::V6(address) => contains(&self.v6, u128::from(address)),
        }
    }

    /// The longest prefix of the operator's that holds `client`.
    #[must_use]
    pub fn prefix_of(&self, client: IpAddr) -> Option<IpNet> {
        let client = client.to_canonical();
        let holding = self.prefixes.iter().filter(|prefix| prefix.contains(&client));
        holding.max_by_key(|prefix| prefix.prefix_len()).copied()
    }
}

fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some(open) if first <= open.1 => open.1 = open.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out.into()
}

fn contains<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|&(first, _)| first <= address);
    behind > 0 && address <= ranges[behind - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(prefixes: &[&str]) -> Acl {
        let allow = prefixes.iter().map(|text| text.parse().unwrap()).collect();
        Acl::new(&config::Acl { allow })
    }

    fn allows(acl: &Acl, address: &str) -> bool {
        acl.allows(address.parse().unwrap())
    }

    #[test]
    fn default_serves_loopback_and_private_ranges_only() {
        let acl = Acl::new(&config::Acl::default());
        for address in ["127.9.9.9", "10.0.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1"] {
            assert!(allows(&acl, address), "{address}");
            assert!(allows(&acl, &format!("::ffff:{address}")), "{address}");
            assert!(acl.prefix_of(address.parse().unwrap()).is_some(), "{address}");
        }
        for address in ["::1", "fd00::1", "fe80::1"] {
            assert!(allows(&acl, address), "{address}");
        }
        for address in ["8.8.8.8", "172.32.0.0", "192.167.255.255", "2001:db8::1", "::2", "0.0.0.0"]
        {
            assert!(!allows(&acl, address), "{address}");
        }
    }

    #[test]
    fn overlapping_prefixes_in_any_order_are_one_range() {
        let acl = acl(&["192.0.2.128/25", "192.0.2.0/24", "192.0.2.5/32", "198.51.100.7/32"]);
        assert_eq!(acl.v4.len(), 2);
        let prefix = |text: &str| acl.prefix_of(text.parse().unwrap()).map(|net| net.to_string());
        assert_eq!(prefix("192.0.2.5").unwrap(), "192.0.2.5/32");
        assert_eq!(prefix("::ffff:192.0.2.200").unwrap(), "192.0.2.128/25");
        assert_eq!(prefix("192.0.3.0"), None);
        assert!(allows(&acl, "192.0.2.255") && allows(&acl, "198.51.100.7"));
        assert!(!allows(&acl, "192.0.3.0") && !allows(&acl, "198.51.100.8"));
    }

    #[test]
    fn empty_list_serves_nobody_and_zero_prefixes_everybody() {
        assert!(!allows(&acl(&[]), "127.0.0.1"));
        let open = acl(&["0.0.0.0/0", "::/0"]);
        assert!(allows(&open, "255.255.255.255") && allows(&open, "ffff::"));
    }
}
