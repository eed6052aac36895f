//! `[filter]` and `[[list]]`: lists of names that are blocked or allowed, and what those get who ask for them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Apex;

/// Most lists of a node: they are told apart by one octet.
pub const LISTS_MAX: usize = 256;

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
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            directory: None,
            refresh: Duration::from_secs(24 * 3_600),
            list_bytes_max: 256 << 20,
            download_timeout: Duration::from_secs(60),
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

/// Where a list is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListSource {
    /// In a file of this machine, an absolute path.
    File(PathBuf),
    /// At this URL, `http` or `https`.
    Url(String),
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
