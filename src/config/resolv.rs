//! The system's own upstreams: `nameserver` lines of resolv.conf(5).

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::value::flaw;

/// Most characters of a line that is passed over which are repeated.
const WORD_CHARS_MAX: usize = 80;

/// What a file says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NameServers {
    /// In order, each once.
    pub servers: Vec<SocketAddr>,
    /// `nameserver` lines that name none, each with its number and the reason.
    pub passed_over: Vec<String>,
}

/// Reads the name servers. `interface` gives the number of a network interface, of which addresses with a scope may have
/// the name.
#[must_use]
pub fn name_servers(text: &str, interface: impl Fn(&str) -> Option<u32>) -> NameServers {
    let mut read = NameServers::default();
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let word = words.next().unwrap_or_default();
        match server(word, &interface) {
            Ok(server) if read.servers.contains(&server) => {}
            Ok(server) => read.servers.push(server),
            Err(why) => {
                let word: String = word.chars().take(WORD_CHARS_MAX).collect();
                read.passed_over.push(format!("line {number}: \"{word}\" is {why}"));
            }
        }
    }
    read
}

fn server(word: &str, interface: impl Fn(&str) -> Option<u32>) -> Result<SocketAddr, &'static str> {
    let address = match word.split_once('%') {
        None => SocketAddr::new(word.parse::<IpAddr>().map_err(|_| "no address")?, 53),
        Some((address, scope)) => {
            let address: Ipv6Addr = address.parse().map_err(|_| "no address")?;
            let scope = scope.parse().ok().or_else(|| interface(scope));
            let scope = scope.ok_or("on an interface that this machine does not have")?;
            SocketAddrV6::new(address, 53, 0, scope).into()
        }
    };
    if address.ip().is_unspecified() {
        return Err("no address of a server");
    }
    flaw(address).map_or(Ok(address), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_in_order_and_the_rest_is_told() {
        let text = "# generated\nsearch example.\nnameserver 192.0.2.1\n\
            nameserver 2001:db8::1 trailing\n  nameserver\t192.0.2.2\nnameserver 192.0.2.1\n\
            nameserver\nnameserver dns.example\nnameservers 192.0.2.9\n;nameserver 192.0.2.8\n\
            nameserver fe80::1%3\nnameserver fe80::1%eth0\nnameserver 0.0.0.0\noptions edns0\n\
            nameserver fe80::1%eth9\nnameserver fe80::1";
        let read = name_servers(text, |name| (name == "eth0").then_some(7));
        let servers: Vec<String> = read.servers.iter().map(ToString::to_string).collect();
        let expected = [
            "192.0.2.1:53",
            "[2001:db8::1]:53",
            "192.0.2.2:53",
            "[fe80::1%3]:53",
            "[fe80::1%7]:53",
        ];
        assert_eq!(servers, expected);
        let told: Vec<&str> = read.passed_over.iter().map(String::as_str).collect();
        assert_eq!(
            told,
            [
                "line 7: \"\" is no address",
                "line 8: \"dns.example\" is no address",
                "line 13: \"0.0.0.0\" is no address of a server",
                "line 15: \"fe80::1%eth9\" is on an interface that this machine does not have",
                "line 16: \"fe80::1\" is link-local without its interface's number, such as fe80::1%2",
            ]
        );
    }

    #[test]
    fn empty_file_names_nobody() {
        assert_eq!(name_servers("", |_| None), NameServers::default());
    }
}
