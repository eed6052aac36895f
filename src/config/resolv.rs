//! The system's own upstreams: `nameserver` lines of resolv.conf(5).

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// Reads the name servers, in order, each once. Lines that say something else, or nothing, are passed over, as the C
/// library does; a scope must be a number, since only the system knows interface names.
#[must_use]
pub fn name_servers(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let server = words.next().and_then(server);
        if let Some(server) = server.filter(|server| !servers.contains(server)) {
            servers.push(server);
        }
    }
    servers
}

fn server(word: &str) -> Option<SocketAddr> {
    let address = match word.split_once('%') {
        None => SocketAddr::new(word.parse::<IpAddr>().ok()?, 53),
        Some((address, scope)) => {
            SocketAddrV6::new(address.parse().ok()?, 53, 0, scope.parse().ok()?).into()
        }
    };
    (!address.ip().is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_in_order_and_the_rest_is_passed_over() {
        let text = "# generated\nsearch example.\nnameserver 192.0.2.1\n\
            nameserver 2001:db8::1 trailing\n  nameserver\t192.0.2.2\nnameserver 192.0.2.1\n\
            nameserver\nnameserver dns.example\nnameservers 192.0.2.9\n;nameserver 192.0.2.8\n\
            nameserver fe80::1%3\nnameserver fe80::1%eth0\nnameserver 0.0.0.0\noptions edns0";
        let servers: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53", "[fe80::1%3]:53"];
        assert_eq!(servers, expected);
    }

    #[test]
    fn empty_file_names_nobody() {
        assert_eq!(name_servers(""), []);
    }
}
