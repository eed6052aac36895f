//! Values as operators write them: sizes, durations, counts, addresses, lists.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::{CoreSelection, IoBackend, LogLevel, Steering};

/// A value before its key has looked at it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// A string; from the environment and from flags everything is one.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A list of strings.
    List(Vec<String>),
    /// Anything else, as it was written.
    Other(String),
}

/// As the operator would write it.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::List(items) => write!(f, "{items:?}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl Value {
    /// A string.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An absolute path.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.text().map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// A switch.
    pub(super) fn switch(&self) -> Option<bool> {
        match self {
            Self::Text(text) | Self::Other(text) => text.parse().ok(),
            Self::Integer(_) | Self::List(_) => None,
        }
    }

    /// A whole number within `range`.
    pub(super) fn count<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Option<T> {
        let number = match self {
            Self::Integer(number) => u64::try_from(*number).ok()?,
            Self::Text(text) => text.parse().ok()?,
            _ => return None,
        };
        range.contains(&number).then_some(number).and_then(|number| T::try_from(number).ok())
    }

    /// As [`Value::count`], or `auto` for none.
    pub(super) fn count_or_auto(&self, range: RangeInclusive<u64>) -> Option<Option<u32>> {
        if self.text() == Some("auto") { Some(None) } else { self.count(range).map(Some) }
    }

    /// A power of two within `range`.
    pub(super) fn power_of_two(&self, range: RangeInclusive<u64>) -> Option<u16> {
        self.count(range).filter(|number: &u16| number.is_power_of_two())
    }

    /// A number of bytes within `range`: an integer, or a number with `KiB`, `MiB`, `GiB` or `TiB`.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Option<usize> {
        let units =
            [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];
        let bytes = match self {
            Self::Integer(number) => u64::try_from(*number).ok()?,
            Self::Text(text) => scaled(text, &units).or_else(|| text.parse().ok())?,
            _ => return None,
        };
        range.contains(&bytes).then_some(bytes).and_then(|bytes| usize::try_from(bytes).ok())
    }

    /// As [`Value::size`], or `auto` for none.
    pub(super) fn size_or_auto(&self, range: RangeInclusive<u64>) -> Option<Option<usize>> {
        if self.text() == Some("auto") { Some(None) } else { self.size(range).map(Some) }
    }

    /// A duration within `range` of milliseconds: a number with `us`, `ms`, `s`, `m` or `h`.
    pub(super) fn duration(&self, range: RangeInclusive<u64>) -> Option<Duration> {
        let units = [
            ("us", 1),
            ("ms", 1_000),
            ("s", 1_000_000),
            ("m", 60_000_000),
            ("h", 3_600_000_000u64),
        ];
        let micros = scaled(self.text()?, &units)?;
        let bounds = range.start().saturating_mul(1_000)..=range.end().saturating_mul(1_000);
        bounds.contains(&micros).then(|| Duration::from_micros(micros))
    }

    /// How often something is looked at anew: from a minute to a year, or zero for never.
    pub(super) fn refresh(&self) -> Option<Duration> {
        self.duration(0..=0).or_else(|| self.duration(60_000..=8_760 * 3_600_000))
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Option<Vec<&str>> {
        match self {
            Self::List(items) => Some(items.iter().map(String::as_str).collect()),
            Self::Text(text) => Some(text.split(',').map(str::trim).collect()),
            Self::Integer(_) | Self::Other(_) => None,
        }
    }

    /// A list of at least one item, each read by `read`, none twice. From the environment: separated by commas.
    pub(super) fn list<T: Ord>(&self, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let items: Vec<T> = self.items()?.into_iter().map(read).collect::<Option<_>>()?;
        let is_unique = items.iter().collect::<BTreeSet<&T>>().len() == items.len();
        (is_unique && !items.is_empty()).then_some(items)
    }

    /// As [`Value::list`], but the list may be empty.
    pub(super) fn list_or_none<T: Ord>(&self, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        match self {
            Self::List(items) if items.is_empty() => Some(Vec::new()),
            _ => self.list(read),
        }
    }
}

/// `number unit` with a unit of the table, with or without a space; whole numbers only.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| unit.trim_start() == *name)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// A listener: address and port, which must not be 0.
pub(super) fn listener(text: &str) -> Option<SocketAddr> {
    let address = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
    address.filter(|&address| flaw(address).is_none())
}

/// Why nobody can listen on `address` or be asked there, whatever the machine.
pub(super) fn flaw(address: SocketAddr) -> Option<&'static str> {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_broadcast() => Some("the broadcast address"),
        _ if address.ip().is_multicast() => Some("a multicast address"),
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            Some("an IPv4-mapped address: write it as IPv4")
        }
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            Some("link-local without its interface's number, such as fe80::1%2")
        }
        _ => None,
    }
}

/// A prefix, or an address that stands for itself. Bits behind the prefix must be zero.
pub(super) fn prefix(text: &str) -> Option<IpNet> {
    let plain = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let net =
        text.parse::<IpNet>().ok().filter(|net| net.addr() == net.network()).or_else(plain)?;
    // Clients that come so are told by their IPv4 addresses.
    let mapped = match net {
        IpNet::V6(net) => net.addr().to_ipv4_mapped().zip(net.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    match mapped {
        Some((address, bits)) => Ipv4Net::new(address, bits).ok().map(IpNet::V4),
        None => Some(net),
    }
}

/// `auto`, `numa:0`, or CPUs as `0-15` and `0,2,4-7`.
pub(super) fn cores(text: &str) -> Option<CoreSelection> {
    /// More CPUs than Linux knows (CONFIG_NR_CPUS ends at 8 192).
    const CPU_MAX: usize = 8_191;
    if text == "auto" {
        return Some(CoreSelection::Auto);
    }
    if let Some(node) = text.strip_prefix("numa:") {
        return node.parse().ok().map(CoreSelection::Numa);
    }
    let mut cpus = Vec::new();
    let mut seen = BTreeSet::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > CPU_MAX {
            return None;
        }
        for cpu in first..=last {
            if !seen.insert(cpu) {
                return None;
            }
            cpus.push(cpu);
        }
    }
    Some(CoreSelection::Cpus(cpus))
}

/// The word for none, or the absolute path of a file.
#[expect(
    clippy::option_option,
    reason = "the outer one says whether it is such a value, the inner one is the value"
)]
pub(super) fn file_or(text: &str, none: &str) -> Option<Option<PathBuf>> {
    if text == none {
        return Some(None);
    }
    let path = PathBuf::from(text);
    let is_file = path.is_absolute() && path.file_name().is_some() && !text.ends_with(['/', '.']);
    (is_file && !text.contains('\0')).then_some(Some(path))
}

/// `off` for none, or an address with a port, which must not be 0.
#[expect(
    clippy::option_option,
    reason = "the outer one says whether it is such a value, the inner one is the value"
)]
pub(super) fn address_or_off(text: &str) -> Option<Option<SocketAddr>> {
    if text == "off" { Some(None) } else { listener(text).map(Some) }
}

/// `uring` or `mmsg`.
pub(super) fn io_backend(text: &str) -> Option<IoBackend> {
    match text {
        "uring" => Some(IoBackend::Uring),
        "mmsg" => Some(IoBackend::Mmsg),
        _ => None,
    }
}

/// `auto`, `cpu`, `flow` or `qname`.
pub(super) fn steering(text: &str) -> Option<Steering> {
    let all = [Steering::Auto, Steering::Cpu, Steering::Flow, Steering::Qname];
    all.into_iter().find(|steering| steering.as_text() == text)
}

/// `error`, `warn`, `info` or `debug`.
pub(super) fn log_level(text: &str) -> Option<LogLevel> {
    LogLevel::from_text(text)
}

#[cfg(test)]
mod tests {
    use super::super::upstream;
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn sizes_and_durations_need_their_unit_and_range() {
        let size = |value: Value| value.size(1 << 20..=1 << 30);
        assert_eq!(size(text("64MiB")), Some(64 << 20));
        assert_eq!(size(text("64 MiB")), Some(64 << 20));
        assert_eq!(size(Value::Integer(2 << 20)), Some(2 << 20));
        for bad in ["2 gigs", "64M", "MiB", "-1MiB", "1.5MiB", "2GiB", "1KiB", "99999999999TiB", ""]
        {
            assert_eq!(size(text(bad)), None, "{bad}");
        }
        let duration = |value: &str| text(value).duration(0..=60_000);
        assert_eq!(duration("250us"), Some(Duration::from_micros(250)));
        assert_eq!(duration("1m"), Some(Duration::from_secs(60)));
        for bad in ["5", "61s", "2h", "s", "1 minute"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn cores_are_lists_ranges_nodes_or_auto() {
        assert_eq!(cores("auto"), Some(CoreSelection::Auto));
        assert_eq!(cores("numa:1"), Some(CoreSelection::Numa(1)));
        assert_eq!(cores("0,2,4-6"), Some(CoreSelection::Cpus(vec![0, 2, 4, 5, 6])));
        for bad in ["", "all", "3-1", "0,0", "0-2,1", "0-", "numa:", "numa:x", "0-9999999", "-1"] {
            assert_eq!(cores(bad), None, "{bad}");
        }
    }

    #[test]
    fn files_are_off_or_have_an_absolute_path() {
        assert_eq!(file_or("off", "off"), Some(None));
        assert_eq!(file_or("/var/cache/x", "off"), Some(Some(PathBuf::from("/var/cache/x"))));
        for bad in ["", "on", "cache", "./cache", "/", "/var/", "/var/..", "/var/.", "/a\0b"] {
            assert_eq!(file_or(bad, "off"), None, "{bad}");
        }
    }

    #[test]
    fn addresses_may_be_off() {
        assert_eq!(address_or_off("off"), Some(None));
        assert_eq!(address_or_off("[::1]:6000"), Some("[::1]:6000".parse().ok()));
        for bad in ["", "on", "127.0.0.1", "127.0.0.1:0", "host:6000"] {
            assert_eq!(address_or_off(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_that_nobody_has_are_told_apart() {
        for (bad, why) in [
            ("255.255.255.255", "broadcast"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("::ffff:192.0.2.1", "IPv4-mapped"),
            ("fe80::1", "link-local"),
        ] {
            let with_port =
                if bad.contains(':') { format!("[{bad}]:53") } else { format!("{bad}:53") };
            assert_eq!(listener(&with_port), None, "{bad}");
            assert!(upstream::flaw_of(&with_port).unwrap().contains(why), "{bad}");
        }
        for good in ["0.0.0.0:53", "[::]:53", "[fe80::1%2]:53", "127.0.0.1:53"] {
            assert!(listener(good).is_some(), "{good}");
            assert_eq!(upstream::flaw_of(good), None, "{good}");
        }
    }

    #[test]
    fn prefixes_must_be_exact_and_addresses_stand_for_themselves() {
        assert_eq!(prefix("10.0.0.0/8"), "10.0.0.0/8".parse().ok());
        assert_eq!(prefix("::1"), "::1/128".parse().ok());
        assert_eq!(prefix("::ffff:10.0.0.0/104"), "10.0.0.0/8".parse().ok());
        assert_eq!(prefix("::ffff:10.0.0.1"), "10.0.0.1/32".parse().ok());
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "lan", ""] {
            assert_eq!(prefix(bad), None, "{bad}");
        }
    }

    #[test]
    fn lists_hold_no_item_twice_and_come_from_text_too() {
        assert_eq!(text("127.0.0.1:53, [::1]:53").list(listener).map(|list| list.len()), Some(2));
        for bad in ["127.0.0.1:53,127.0.0.1:53", "127.0.0.1:0", "127.0.0.1", ""] {
            assert_eq!(text(bad).list(listener), None, "{bad}");
        }
        assert_eq!(Value::List(Vec::new()).list(listener), None);
        assert_eq!(Value::List(Vec::new()).list_or_none(prefix), Some(Vec::new()));
    }
}
