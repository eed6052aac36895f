//! `[hosts]` and `[[rewrite]]`: single names that the node answers itself.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::wire::NameBuf;

/// TTL of what is said of single names, in seconds: who changes a file or the config does not wait for long.
pub(super) const SINGLE_TTL_DEFAULT: u32 = 60;

/// `[hosts]`: names and addresses from hosts files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hosts {
    /// The files, absolute paths.
    pub files: Vec<PathBuf>,
    /// TTL of their answers, in seconds.
    pub ttl: u32,
    /// Whether addresses lead back to their names.
    pub ptr: bool,
}

impl Default for Hosts {
    fn default() -> Self {
        Self { files: Vec::new(), ttl: SINGLE_TTL_DEFAULT, ptr: true }
    }
}

/// `[[rewrite]]`: a name that means something else.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rewrite {
    /// The name as written, or `*.` and a name below which all are meant.
    pub name: String,
    /// What it means.
    pub to: RewriteTarget,
    /// TTL of the answers, in seconds.
    pub ttl: u32,
    /// Where it stands, for error messages: `file:line`.
    pub place: String,
}

/// What a rewritten name means.
#[derive(Clone, Debug)]
pub enum RewriteTarget {
    /// These addresses, at least one.
    Addresses(Vec<IpAddr>),
    /// What another name means.
    Name(Box<NameBuf>),
}

impl PartialEq for RewriteTarget {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Addresses(left), Self::Addresses(right)) => left == right,
            (Self::Name(left), Self::Name(right)) => left.as_name().is_same(right.as_name()),
            _ => false,
        }
    }
}

impl Eq for RewriteTarget {}

impl RewriteTarget {
    /// Reads one name, or addresses, each once.
    pub(super) fn read(items: &[&str]) -> Option<Self> {
        if let [name] = items
            && name.parse::<IpAddr>().is_err()
        {
            let target = NameBuf::from_text(name).ok()?;
            let is_name = |label: &[u8]| !label.iter().all(u8::is_ascii_digit) && label != b"*";
            // A number at the end would be an address that is none.
            let is_sound = target.as_name().labels().last().is_some_and(is_name);
            let has_blank = name.contains(char::is_whitespace);
            return (is_sound && !has_blank).then(|| Self::Name(Box::new(target)));
        }
        let mut addresses = Vec::with_capacity(items.len());
        for item in items {
            let address: IpAddr = item.parse().ok()?;
            if addresses.contains(&address) {
                return None;
            }
            addresses.push(address);
        }
        (!addresses.is_empty()).then_some(Self::Addresses(addresses))
    }
}
