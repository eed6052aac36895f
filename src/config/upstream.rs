//! Whom we ask and how: an upstream as the operator writes it, `192.0.2.1`, `tcp://192.0.2.1:5300` or
//! `tls://192.0.2.1#dns.example`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::value::flaw;

/// Bytes of a pin: SHA-256 of a public key with its algorithm (SubjectPublicKeyInfo; RFC 7858 §4.2).
pub const PIN_BYTES: usize = 32;

/// The port of DNS over UDP and TCP.
const PORT: u16 = 53;

/// The port of DNS over TLS (RFC 7858 §3.1).
const TLS_PORT: u16 = 853;

/// Most pins of one upstream: the present key, the next one, and some more.
const PINS_MAX: usize = 8;

/// Longest name of a certificate, as of any host.
const NAME_BYTES_MAX: usize = 253;

/// A server that we send queries to.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Upstream {
    /// Where it is.
    pub address: SocketAddr,
    /// How it is spoken to.
    pub protocol: Protocol,
}

/// How an upstream is spoken to.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// Datagrams, and TCP for what does not fit.
    Udp,
    /// TCP only.
    Tcp,
    /// TLS only, unless it is opportunistic.
    Tls(Authentication),
}

impl Protocol {
    /// Its name in metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls(_) => "tls",
        }
    }
}

/// How an upstream proves over TLS that it is the right one (RFC 8310 §5).
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Authentication {
    /// The name that is sent as SNI, and that its certificate must carry unless it is known by its key (`pins`) or by
    /// nothing (`is_opportunistic`). Without one the certificate must carry the address.
    pub name: Option<String>,
    /// If not empty, its key must be one of these, and then who signed the certificate does not matter.
    pub pins: Vec<[u8; PIN_BYTES]>,
    /// Any certificate will do, and where TLS cannot be had, UDP and TCP on port 53: protects from listeners only.
    pub is_opportunistic: bool,
}

impl Upstream {
    /// An upstream for datagrams.
    #[must_use]
    pub const fn udp(address: SocketAddr) -> Self {
        Self { address, protocol: Protocol::Udp }
    }

    /// Where the same server is asked without TLS.
    #[must_use]
    pub const fn plain_address(&self) -> SocketAddr {
        let mut address = self.address;
        if matches!(self.protocol, Protocol::Tls(_)) {
            address.set_port(PORT);
        }
        address
    }

    /// Whether cleartext may be tried where TLS fails.
    #[must_use]
    pub const fn is_opportunistic(&self) -> bool {
        matches!(self.protocol, Protocol::Tls(Authentication { is_opportunistic: true, .. }))
    }

    /// Reads `[udp://|tcp://|tls://]ADDRESS[:PORT][?OPTION[&OPTION…]][#NAME]`; options and name are for TLS.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("udp", text));
        let (rest, name) = match rest.split_once('#') {
            Some((rest, name)) => (rest, Some(name)),
            None => (rest, None),
        };
        let (place, options) = match rest.split_once('?') {
            Some((place, options)) => (place, Some(options)),
            None => (rest, None),
        };
        let port = if scheme == "tls" { TLS_PORT } else { PORT };
        let address = with_or_without_port(place, port)?;
        if address.ip().is_unspecified() || flaw(address).is_some() {
            return None;
        }
        let protocol = match scheme {
            "udp" if name.is_none() && options.is_none() => Protocol::Udp,
            "tcp" if name.is_none() && options.is_none() => Protocol::Tcp,
            "tls" => Protocol::Tls(authentication(name, options)?),
            _ => return None,
        };
        Some(Self { address, protocol })
    }
}

/// As the operator would write it, but for the pins: the first octets of the first, in hexadecimal.
impl Upstream {
    /// As it is written in the config, with all of its pins.
    pub(super) fn to_text(&self) -> String {
        let mut text = match &self.protocol {
            Protocol::Tls(Authentication { pins, .. }) if !pins.is_empty() => {
                let pins: Vec<String> = pins.iter().map(pin_text).collect();
                format!("tls://{}?pin={}", self.address, pins.join(","))
            }
            _ => return self.to_string(),
        };
        if let Protocol::Tls(Authentication { name: Some(name), .. }) = &self.protocol {
            text.push('#');
            text.push_str(name);
        }
        text
    }
}

/// A pin in base64 (RFC 4648 §4).
fn pin_text(pin: &[u8; PIN_BYTES]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let of_three = |three: &[u8]| {
        let mut bits = [0; 4];
        bits[1..][..three.len()].copy_from_slice(three);
        let bits = u32::from_be_bytes(bits);
        let digit = |place: usize| match place <= three.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]),
            false => '=',
        };
        [0, 1, 2, 3].map(digit)
    };
    pin.chunks(3).flat_map(of_three).collect()
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Authentication { name, pins, is_opportunistic } = match &self.protocol {
            Protocol::Udp => return write!(f, "{}", self.address),
            Protocol::Tcp => return write!(f, "tcp://{}", self.address),
            Protocol::Tls(authentication) => authentication,
        };
        write!(f, "tls://{}", self.address)?;
        if *is_opportunistic {
            f.write_str("?opportunistic")?;
        }
        if let Some([a, b, c, d, ..]) = pins.first() {
            // Enough to tell two upstreams apart.
            write!(f, "?pin={a:02x}{b:02x}{c:02x}{d:02x}...")?;
        }
        name.as_ref().map_or(Ok(()), |name| write!(f, "#{name}"))
    }
}

fn authentication(name: Option<&str>, options: Option<&str>) -> Option<Authentication> {
    let mut read = Authentication::default();
    if let Some(name) = name {
        read.name = Some(name.trim_end_matches('.').to_lowercase()).filter(|name| is_host(name));
        read.name.as_ref()?;
    }
    for option in options.into_iter().flat_map(|options| options.split('&')) {
        match option.split_once('=') {
            None if option == "opportunistic" => read.is_opportunistic = true,
            Some(("pin", pins)) => {
                for pin in pins.split(',') {
                    read.pins.push(pin_of(pin)?);
                }
            }
            _ => return None,
        }
    }
    // Opportunistic means that nobody is turned away: pins would say otherwise.
    let contradicts = read.is_opportunistic && !read.pins.is_empty();
    (!contradicts && read.pins.len() <= PINS_MAX).then_some(read)
}

fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet))
    };
    name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label)
}

/// Base64 (RFC 4648 §4) of exactly [`PIN_BYTES`], with its padding.
fn pin_of(text: &str) -> Option<[u8; PIN_BYTES]> {
    const TEXT_BYTES: usize = 44;
    let digits = text.strip_suffix('=').filter(|_| text.len() == TEXT_BYTES)?;
    let mut bits: u32 = 0;
    let mut held = 0;
    let mut pin = Vec::with_capacity(PIN_BYTES);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            let [.., octet] = (bits >> held).to_be_bytes();
            pin.push(octet);
        }
    }
    // The last digit holds two bits more than the pin.
    (bits & 0b11 == 0).then_some(pin)?.try_into().ok()
}

fn with_or_without_port(text: &str, port: u16) -> Option<SocketAddr> {
    let with_port = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    let plain = || Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, port));
    // A scope is understood within brackets only.
    let bracketed = || format!("[{text}]:{port}").parse().ok();
    let in_brackets = || format!("{text}:{port}").parse().ok().filter(|_| text.starts_with('['));
    with_port.or_else(plain).or_else(bracketed).or_else(in_brackets)
}

/// Why the address in `text` serves nobody, whatever the machine.
pub(super) fn flaw_of(text: &str) -> Option<&'static str> {
    let place = text.split_once("://").map_or(text, |(_, rest)| rest);
    let place = place.split(['?', '#']).next().unwrap_or(place);
    with_or_without_port(place, PORT).and_then(flaw)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn shown(text: &str) -> Option<String> {
        Upstream::parse(text).map(|upstream| upstream.to_string())
    }

    #[test]
    fn address_may_leave_port_and_protocol_out() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("udp://192.0.2.1:5300", "192.0.2.1:5300"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5300", "[2001:db8::1]:5300"),
            ("fe80::1%3", "[fe80::1%3]:53"),
            ("[fe80::1%3]:5300", "[fe80::1%3]:5300"),
            ("tcp://192.0.2.1", "tcp://192.0.2.1:53"),
            ("tls://192.0.2.1", "tls://192.0.2.1:853"),
            ("tls://192.0.2.1#DNS.example.", "tls://192.0.2.1:853#dns.example"),
            ("tls://[2001:db8::1]:8853#a.b", "tls://[2001:db8::1]:8853#a.b"),
            ("tls://192.0.2.1?opportunistic", "tls://192.0.2.1:853?opportunistic"),
            (
                &format!("tls://192.0.2.1?pin={PIN},{PIN}#a.b"),
                "tls://192.0.2.1:853?pin=e3b0c442...#a.b",
            ),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_upstream_is_refused() {
        for bad in [
            "",
            "dns.example",
            "192.0.2.1:0",
            "192.0.2.1:x",
            "0.0.0.0",
            "::",
            "tls://",
            "https://192.0.2.1",
            "udp://192.0.2.1#name",
            "192.0.2.1#name",
            "tcp://192.0.2.1?opportunistic",
            "tls://192.0.2.1#",
            "tls://192.0.2.1#a..b",
            "tls://192.0.2.1#a b",
            "tls://192.0.2.1?",
            "tls://192.0.2.1?pin=",
            "tls://192.0.2.1?pin=AAAA",
            "tls://192.0.2.1?verify=no",
            "tls://dns.example#dns.example",
        ] {
            assert_eq!(shown(bad), None, "{bad}");
        }
        assert_eq!(shown(&format!("tls://192.0.2.1?opportunistic&pin={PIN}")), None);
    }

    #[test]
    fn pins_are_read_octet_by_octet() {
        let upstream = Upstream::parse(&format!("tls://192.0.2.1?pin={PIN},{PIN}#a")).unwrap();
        let Protocol::Tls(authentication) = upstream.protocol else { panic!("no TLS") };
        // SHA-256 of nothing.
        let [first, .., last] = authentication.pins[0];
        assert_eq!((authentication.pins.len(), first, last), (2, 0xE3, 0x55));
        let spoilt = PIN.replace("FU=", "FV=");
        assert_eq!(shown(&format!("tls://192.0.2.1?pin={spoilt}")), None, "bits beyond the end");
        assert_eq!(shown(&format!("tls://192.0.2.1?pin={}", &PIN[..43])), None);
    }

    #[test]
    fn opportunistic_is_asked_without_tls_on_port_53() {
        let upstream = Upstream::parse("tls://192.0.2.1:8853?opportunistic").unwrap();
        assert!(upstream.is_opportunistic());
        assert_eq!(upstream.plain_address().to_string(), "192.0.2.1:53");
        assert!(!Upstream::parse("tls://192.0.2.1").unwrap().is_opportunistic());
    }

    #[test]
    fn addresses_that_nobody_has_are_told_apart() {
        for (bad, why) in [
            ("255.255.255.255", "broadcast"),
            ("tcp://224.0.0.1", "multicast"),
            ("tls://ff02::1#name", "multicast"),
            ("::ffff:192.0.2.1", "IPv4-mapped"),
            ("fe80::1", "link-local"),
        ] {
            assert_eq!(shown(bad), None, "{bad}");
            assert!(flaw_of(bad).unwrap().contains(why), "{bad}");
        }
    }
}
