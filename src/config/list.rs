//! `[filter]` and `[[list]]`: lists of names that are blocked or allowed, and what those get who ask for them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Apex, forward};

/// Most lists of a node: they are told apart by one octet, of which one value is for what the operator overrides by hand.
pub const LISTS_MAX: usize = 255;

/// What stands in the place of a list's name where the operator's own word has decided, not a list; no list is called so.
pub const OVERRIDES_NAME: &str = "overrides";

/// Longest URL that is taken, in bytes; servers mostly take 8 000.
const URL_BYTES_MAX: usize = 2_048;

/// As many texts of the longest list that may be have room in [`Filter::bytes`].
pub(super) const TEXTS: usize = 4;

/// `[filter]`: what all lists have in common.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    /// Where downloaded lists and the compiled image survive a restart; an absolute path. Without one nothing is kept.
    pub directory: Option<PathBuf>,
    /// How often a list is looked at anew, if it does not say itself; zero means at the start and on command only.
    pub refresh: Duration,
    /// Longest list that is read, in bytes, after decompression.
    pub list_bytes_max: usize,
    /// How long one download may take.
    pub download_timeout: Duration,
    /// Bytes that all lists may take together: the image in force, and what it takes to make the next.
    pub bytes: usize,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            directory: None,
            refresh: Duration::from_secs(24 * 3_600),
            list_bytes_max: 64 << 20,
            download_timeout: Duration::from_secs(60),
            bytes: 512 << 20,
        }
    }
}

/// `[[list]]`: one list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct List {
    /// What the operator calls it; no two have one name.
    pub name: String,
    /// Where it is.
    pub source: ListSource,
    /// Whether its names are blocked or allowed.
    pub kind: ListKind,
    /// How it is written; found out if not set.
    pub syntax: Option<ListSyntax>,
    /// What those get who ask for a name that it blocks without saying more.
    pub answer: ListAnswer,
    /// How long they may keep that, in seconds.
    pub ttl: u32,
    /// What they are told beside it.
    pub reason: ListReason,
    /// How often it is looked at anew; [`Filter::refresh`] if not set.
    pub refresh: Option<Duration>,
    /// Where the config names it: `file:line`.
    pub place: String,
}

impl List {
    /// A list of which nothing more is said.
    #[must_use]
    pub const fn new(name: String, source: ListSource, place: String) -> Self {
        Self {
            name,
            source,
            kind: ListKind::Block,
            syntax: None,
            answer: ListAnswer::ZeroIp,
            ttl: 10,
            reason: ListReason::Blocked,
            refresh: None,
            place,
        }
    }

    /// The number of the list with this name among `lists`.
    #[must_use]
    pub fn number(lists: &[Self], name: &str) -> Option<u8> {
        lists.iter().position(|list| list.name == name).and_then(|number| number.try_into().ok())
    }
}

/// Where a list is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListSource {
    /// In a file of this machine, an absolute path.
    File(PathBuf),
    /// At this URL, `http` or `https`.
    Url(String),
}

/// For the operator; without what of a URL is a secret.
impl fmt::Display for ListSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(&without_secrets(url)),
        }
    }
}

/// A URL without its password, and without what stands behind `?`, which may be one.
pub(super) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(_, host)| ("…@", host));
    let query = if query.is_empty() { "" } else { "?…" };
    let colon = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{colon}{user}{host}{path}{query}")
}

/// Whether lists can be downloaded from `text`: `http` or `https`, a host, perhaps with user, password and port.
pub(super) fn is_url(text: &str) -> bool {
    let schemes = ["http://", "https://"];
    let Some(rest) = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((inner, port)) if inner.parse::<std::net::Ipv6Addr>().is_ok() => (inner, port),
        Some(_) => return false,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    text.len() <= URL_BYTES_MAX
        && text.bytes().all(|octet| octet.is_ascii_graphic())
        && !host.is_empty()
        && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// `nxdomain`, `nodata`, `zero_ip`, `refused`, `ip:` and addresses, or `cname:` and a name.
pub(super) fn answer(text: &str) -> Option<ListAnswer> {
    if let Some(addresses) = text.strip_prefix("ip:") {
        let addresses = addresses.split(',').map(|address| address.trim().parse().ok());
        return addresses.collect::<Option<Vec<IpAddr>>>().map(ListAnswer::Addresses);
    }
    if let Some(name) = text.strip_prefix("cname:") {
        let is_name = name.parse::<IpAddr>().is_err() && !name.contains('/');
        let alias = forward::apexes(name).filter(|_| is_name)?.pop();
        return alias.map(ListAnswer::Alias);
    }
    match text {
        "nxdomain" => Some(ListAnswer::Nxdomain),
        "nodata" => Some(ListAnswer::Nodata),
        "zero_ip" => Some(ListAnswer::ZeroIp),
        "refused" => Some(ListAnswer::Refused),
        _ => None,
    }
}

/// Whether a list blocks or allows what it names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ListKind {
    /// Its rules mean what they say.
    Block,
    /// Whatever its rules say, they allow.
    Allow,
}

/// How a list is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ListSyntax {
    /// As in /etc/hosts.
    Hosts,
    /// One name per line.
    Domains,
    /// Rules of ad blockers, as far as they are about names.
    Adblock,
    /// `address=/name/` and its like.
    Dnsmasq,
    /// A response policy zone.
    Rpz,
}

/// What those get who ask for a blocked name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListAnswer {
    /// The name does not exist.
    Nxdomain,
    /// The name exists, without data.
    Nodata,
    /// The unspecified address.
    ZeroIp,
    /// REFUSED.
    Refused,
    /// These addresses; never empty.
    Addresses(Vec<IpAddr>),
    /// What another name has.
    Alias(Apex),
}

/// Why a name is blocked, in the words of RFC 8914.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ListReason {
    /// The operator wants it so (§4.16).
    Blocked,
    /// The client wants it so (§4.18).
    Filtered,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_http_with_a_host() {
        for good in [
            "http://a",
            "https://lists.example:8443/a.txt?x#y",
            "http://[2001:db8::1]:80/",
            "https://me:pass@lists.example/",
        ] {
            assert!(is_url(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "http://",
            "http:///a",
            "http://:80/",
            "ftp://a/",
            "file:///a",
            "http://a:0/",
            "http://a:x/",
            "http://a b/",
            "http://[::1",
            "http://[x]/",
            "http://\u{FC}/",
            "HTTP//a",
        ] {
            assert!(!is_url(bad), "{bad}");
        }
        assert!(!is_url(&format!("http://a/{}", "x".repeat(URL_BYTES_MAX))));
    }

    #[test]
    fn secrets_of_urls_are_left_out() {
        for (url, shown) in [
            ("https://a.example/x.txt", "https://a.example/x.txt"),
            ("https://me:p@ss@a.example:1/x@y?key=1", "https://…@a.example:1/x@y?…"),
            ("me:secret@a", "…@a"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
