//! `[forward]` and `[[forward]]`: whom we ask for which names, how we choose among them, and what that may cost.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::Upstream;
use crate::wire::{Name, NameBuf};

/// The view of all whose group has no upstreams of its own.
pub const ROOT_VIEW: u8 = 0;

/// `[forward]`: the recursive resolvers that questions are forwarded to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forward {
    /// For all names that none of `zones` holds. Without upstreams only until the system's own have been looked up.
    pub root: ForwardZone,
    /// Zones with upstreams of their own.
    pub zones: Vec<ForwardZone>,
    /// What groups of clients have in place of the root: the view with the number *n* is `views[n - 1]`. None twice.
    pub views: Vec<ForwardZone>,
    /// How long a client's question may take in all.
    pub deadline: Duration,
    /// Of a hundred questions, how many may be asked of a second upstream because the first is later than it mostly is.
    pub hedge_percent: u8,
    /// Upstreams that rest are asked in the background whether they are back.
    pub probe: bool,
    /// Names are sent in random casing, which only the one who was asked can repeat.
    pub case_randomization: bool,
    /// DNS cookies are sent and expected back (RFC 7873).
    pub cookies: bool,
    /// The certificates that TLS upstreams are judged by, as PEM; the system's if not set.
    pub tls_roots: Option<PathBuf>,
    /// UDP sockets (random source ports) per core and address family.
    pub sockets: usize,
    /// Questions being resolved per core; beyond, the oldest yield.
    pub inflight_max: usize,
    /// Queries under way to one upstream per core; beyond, the oldest yield.
    pub upstream_inflight_max: usize,
    /// Clients waiting for one question; beyond, the oldest yield.
    pub waiters_max: usize,
}

/// The apex of a zone that has upstreams of its own, in lower case.
#[derive(Clone, Eq, Ord, PartialEq, PartialOrd)]
pub struct Apex(Box<[u8]>);

impl Apex {
    fn new(mut name: NameBuf) -> Self {
        name.make_lower();
        Self(name.as_name().as_bytes().into())
    }

    /// The name.
    #[must_use]
    pub fn as_name(&self) -> Name<'_> {
        Name::parse(&self.0).expect("it was a name when it came in")
    }
}

impl std::fmt::Debug for Apex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.as_name())
    }
}

/// Names that go to the same upstreams.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ForwardZone {
    /// The names at and below which it holds; none for the root.
    pub apexes: Vec<Apex>,
    /// Who is asked.
    pub upstreams: Vec<Upstream>,
    /// Who of them first.
    pub selection: Selection,
    /// Longest wait before somebody else is asked, too.
    pub attempt_timeout: Duration,
}

/// Which upstream a question goes to first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Selection {
    /// Of two drawn at random the one that is faster and has less to do.
    Fastest,
    /// The first that is of use, in the order of the config.
    Ordered,
    /// One after the other.
    RoundRobin,
}

impl Forward {
    /// All zones, the root first, and the views at the end.
    pub fn all_zones(&self) -> impl Iterator<Item = &ForwardZone> {
        std::iter::once(&self.root).chain(&self.zones).chain(&self.views)
    }

    /// All upstreams of all zones; one that serves several zones comes several times.
    pub fn all_upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.all_zones().flat_map(|zone| &zone.upstreams)
    }
}

impl Default for Forward {
    fn default() -> Self {
        Self {
            root: ForwardZone::default(),
            zones: Vec::new(),
            views: Vec::new(),
            deadline: Duration::from_secs(5),
            hedge_percent: 5,
            probe: true,
            case_randomization: true,
            cookies: true,
            tls_roots: None,
            sockets: 128,
            inflight_max: 4096,
            upstream_inflight_max: 4096,
            waiters_max: 4096,
        }
    }
}

impl Default for ForwardZone {
    fn default() -> Self {
        Self {
            apexes: Vec::new(),
            upstreams: Vec::new(),
            selection: Selection::Fastest,
            attempt_timeout: Duration::from_millis(800),
        }
    }
}

/// `fastest`, `ordered` or `round-robin`.
pub(super) fn selection(text: &str) -> Option<Selection> {
    match text {
        "fastest" => Some(Selection::Fastest),
        "ordered" => Some(Selection::Ordered),
        "round-robin" => Some(Selection::RoundRobin),
        _ => None,
    }
}

/// The apexes that one text stands for: a domain name with or without its final dot, or the prefix or address whose reverse
/// zones are meant.
pub(super) fn apexes(text: &str) -> Option<Vec<Apex>> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    if let Some(prefix) = text.parse::<IpNet>().ok().or_else(address) {
        return reverse_zones(prefix);
    }
    // A wildcard would be a label like any other, and so would what is no ASCII.
    let is_plain = text.is_ascii() && !text.contains('*');
    let name = NameBuf::from_text(text).ok().filter(|name| is_plain && !name.as_name().is_root());
    name.map(|name| vec![Apex::new(name)])
}

/// The zones of the addresses in `prefix` (RFC 1035 §3.5, RFC 3596 §2.5): one where it ends with a label, up to 128 where it
/// does not.
fn reverse_zones(prefix: IpNet) -> Option<Vec<Apex>> {
    if prefix.addr() != prefix.network() || prefix.prefix_len() == 0 {
        return None;
    }
    let bits_per_label = if prefix.addr().is_ipv4() { 8 } else { 4 };
    let whole = prefix.prefix_len().next_multiple_of(bits_per_label);
    prefix.subnets(whole).ok()?.map(|part| reverse_zone(part).map(Apex::new)).collect()
}

/// The zone of the addresses in `prefix`, which ends with a label.
fn reverse_zone(prefix: IpNet) -> Option<NameBuf> {
    let (labels, bits_per_label, suffix): (Vec<String>, u8, _) = match prefix.addr() {
        IpAddr::V4(v4) => {
            (v4.octets().iter().map(ToString::to_string).collect(), 8, "in-addr.arpa.")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 0xF]);
            (nibbles.map(|nibble| format!("{nibble:x}")).collect(), 4, "ip6.arpa.")
        }
    };
    let count = usize::from(prefix.prefix_len() / bits_per_label);
    let reversed = labels.iter().take(count).rev().map(|label| format!("{label}."));
    NameBuf::from_text(&(reversed.collect::<String>() + suffix)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        let apexes = apexes(text)?;
        let names: Vec<String> = apexes.iter().map(|apex| format!("{apex:?}")).collect();
        Some(names.join(" "))
    }

    #[test]
    fn apexes_are_names_or_prefixes() {
        for (text, expected) in [
            ("Corp.Example", "corp.example."),
            ("corp.example.", "corp.example."),
            ("10.in-addr.arpa", "10.in-addr.arpa."),
            ("10.0.0.0/8", "10.in-addr.arpa."),
            ("192.168.7.0/24", "7.168.192.in-addr.arpa."),
            ("192.0.2.1/32", "1.2.0.192.in-addr.arpa."),
            ("2001:db8::/32", "8.b.d.0.1.0.0.2.ip6.arpa."),
            ("fd00::/8", "d.f.ip6.arpa."),
            ("192.0.2.1", "1.2.0.192.in-addr.arpa."),
            ("192.168.6.0/23", "6.168.192.in-addr.arpa. 7.168.192.in-addr.arpa."),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn prefix_between_labels_stands_for_several_zones() {
        let zones = apexes("172.16.0.0/12").unwrap();
        assert_eq!((zones.len(), format!("{:?}", zones[15])), (16, "31.172.in-addr.arpa.".into()));
        assert_eq!(apexes("fc00::/7").unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_zone_of_its_own_is_refused() {
        for bad in ["", ".", "a..b", "*.a", "bücher.example", "10.0.0.1/8", "0.0.0.0/0"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}
