//! The addresses that ask.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The address with this number in `prefix`.
pub(crate) fn address(prefix: IpNet, number: u32) -> IpAddr {
    match prefix {
        IpNet::V4(net) => IpAddr::V4(Ipv4Addr::from_bits(net.network().to_bits() | number)),
        IpNet::V6(net) => {
            IpAddr::V6(Ipv6Addr::from_bits(net.network().to_bits() | u128::from(number)))
        }
    }
}

/// What to do where the kernel lets nobody send from such an address.
pub(crate) fn advice(prefix: IpNet) -> String {
    format!(
        "the system does not send from addresses of {prefix}; `ip route add local {prefix} dev lo` makes them local"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_prefix_in_order() {
        let v4 = "127.64.0.0/16".parse().unwrap();
        assert_eq!(address(v4, 0), IpAddr::from([127, 64, 0, 0]));
        assert_eq!(address(v4, 9_999), IpAddr::from([127, 64, 39, 15]));
        let v6 = "fd00:1::/64".parse().unwrap();
        assert_eq!(address(v6, 65_537), "fd00:1::1:1".parse::<IpAddr>().unwrap());
    }
}
