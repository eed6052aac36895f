//! Names that mean nothing to the world's servers, or something else on every site: zones that are there without being
//! written into the config, so that such questions leak to nobody. Anything that the operator says of a name counts more.

use super::Apexes;
use crate::config;
use crate::wire::{Name, NameBuf, Rcode};

/// This machine, under every name below the apex (RFC 6761 §6.3).
const LOOPBACK: &str =
    "@ 10800 A 127.0.0.1\n@ 10800 AAAA ::1\n* 10800 A 127.0.0.1\n* 10800 AAAA ::1\n";

/// The zones of RFC 6303 §4 that do not come in rows.
const REVERSE: [&str; 17] = [
    "10.in-addr.arpa.",
    "168.192.in-addr.arpa.",
    "0.in-addr.arpa.",
    "127.in-addr.arpa.",
    "254.169.in-addr.arpa.",
    "2.0.192.in-addr.arpa.",
    "100.51.198.in-addr.arpa.",
    "113.0.203.in-addr.arpa.",
    "255.255.255.255.in-addr.arpa.",
    "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa.",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa.",
    "d.f.ip6.arpa.",
    "8.e.f.ip6.arpa.",
    "9.e.f.ip6.arpa.",
    "a.e.f.ip6.arpa.",
    "b.e.f.ip6.arpa.",
    "8.b.d.0.1.0.0.2.ip6.arpa.",
];

/// What is answered for the names of a zone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Kind {
    /// What its records say. The zone may be the top of what is known of these names.
    #[default]
    Whole,
    /// As [`Kind::Whole`], but what its parent says of its keys (DS, at the apex) is asked there: who validates needs the
    /// proof that the zone is not signed (RFC 8375 §4).
    Child,
    /// NODATA for names without records (RFC 9462 §6.4), and as [`Kind::Child`].
    Silent,
    /// NXDOMAIN for all names, the apex too.
    Denied,
}

impl Kind {
    /// What is said of a name that has no records.
    pub(super) const fn missing(self) -> Rcode {
        match self {
            Self::Whole | Self::Child | Self::Denied => Rcode::NXDOMAIN,
            Self::Silent => Rcode::NOERROR,
        }
    }

    /// Whether DS records of the apex are asked of the parent.
    pub(super) const fn has_parent(self) -> bool {
        matches!(self, Self::Child | Self::Silent)
    }
}

/// A zone to be compiled.
#[derive(Debug)]
pub(super) struct Special {
    pub(super) zone: config::LocalZone,
    pub(super) apex: NameBuf,
    pub(super) kind: Kind,
}

/// The zones that `section` leaves switched on.
///
/// Left out are those that the operator answers or forwards as a whole: whose apex is one of `local` or has upstreams of
/// its own in `forward`, or is below such a one.
pub(super) fn zones(
    section: config::Special,
    local: &Apexes,
    forward: &config::Forward,
) -> Vec<Special> {
    let mut wanted: Vec<(String, Kind, String)> = Vec::new();
    let denied = |name: &str| (name.to_owned(), Kind::Denied, soa(name));
    let served = |name: &str, kind| (name.to_owned(), kind, soa(name) + &server(name));
    for (is_on, name) in [
        (section.invalid, "invalid."),
        (section.test, "test."),
        (section.onion, "onion."),
        (section.alt, "alt."),
    ] {
        wanted.extend(is_on.then(|| denied(name)));
    }
    if section.localhost {
        wanted.push(("localhost.".to_owned(), Kind::Whole, soa("localhost.") + LOOPBACK));
    }
    for (is_on, name, kind) in [
        (section.home_arpa, "home.arpa.", Kind::Child),
        (section.resolver_arpa, "resolver.arpa.", Kind::Silent),
    ] {
        wanted.extend(is_on.then(|| served(name, kind)));
    }
    if section.reverse {
        wanted.extend(reverse_apexes().map(|apex| {
            let (name, kind, records) = served(&apex, Kind::Child);
            (name, kind, records + loopback_name(&apex))
        }));
    }
    let zones = wanted.into_iter().filter_map(|(zone, kind, records)| {
        let apex = NameBuf::from_text(&zone).expect("the table holds names");
        let place = "built-in".to_owned();
        let zone = config::LocalZone { zone, records, place };
        let is_free = !is_held(apex.as_name(), local, forward);
        is_free.then_some(Special { zone, apex, kind })
    });
    zones.collect()
}

/// The SOA of an empty zone (RFC 6303 §3).
fn soa(apex: &str) -> String {
    format!("@ 10800 SOA {apex} nobody.invalid. 1 3600 1200 604800 10800\n")
}

/// Its name server, which is nobody but the zone itself (RFC 6303 §3).
fn server(apex: &str) -> String {
    format!("@ 10800 NS {apex}\n")
}

/// Whether the operator answers for `apex`: by a zone of his own, or by upstreams for it, there or above.
fn is_held(apex: Name<'_>, local: &Apexes, forward: &config::Forward) -> bool {
    let is_local = apex.suffixes().any(|part| local.contains(part.as_bytes()));
    let mut forwarded = forward.zones.iter().flat_map(|zone| &zone.apexes);
    is_local || forwarded.any(|zone| apex.is_within(zone.as_name()))
}

fn reverse_apexes() -> impl Iterator<Item = String> {
    let private = (16..=31).map(|octet| format!("{octet}.172.in-addr.arpa."));
    // 100.64.0.0/10, shared by customers of one carrier (RFC 7793 §2).
    let shared = (64..=127).map(|octet| format!("{octet}.100.in-addr.arpa."));
    REVERSE.into_iter().map(str::to_owned).chain(private).chain(shared)
}

/// The name of the loopback addresses, which is the same everywhere.
fn loopback_name(apex: &str) -> &'static str {
    match apex {
        "127.in-addr.arpa." => "1.0.0 10800 PTR localhost.\n",
        _ if apex.starts_with("1.0.0.0.0.") => "@ 10800 PTR localhost.\n",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
