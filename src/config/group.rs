//! `[[group]]`: clients for whom other lists, other upstreams or another way of logging hold than for all.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::ForwardZone;

/// Most groups of a node: they are told apart by one octet.
pub const GROUPS_MAX: usize = 255;

/// The name of the group for clients that are in no other.
pub const DEFAULT_GROUP: &str = "default";

/// One group of clients.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Group {
    /// What the operator calls it; no two have one name.
    pub name: String,
    /// Where its clients are; none for everywhere.
    pub clients: Vec<IpNet>,
    /// The listeners, of `node.listen`, that they ask; none for all.
    pub listeners: Vec<SocketAddr>,
    /// The lists that always count for them, by name; all lists if not set.
    pub lists: Option<Vec<String>>,
    /// Lists that count for them at times, beside the above.
    pub periods: Vec<Period>,
    /// Who is asked for them, if not those of `[forward]`. Zones of `[[forward]]` hold for them, too.
    pub forward: Option<ForwardZone>,
    /// Whether their queries are logged.
    pub log: bool,
    /// Where the config names it: `file:line`.
    pub place: String,
}

/// When some lists count.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Period {
    /// The lists, by name.
    pub lists: Vec<String>,
    /// On which days of the week it begins.
    pub days: Days,
    /// When it begins, in minutes after local midnight.
    pub from_minute: u16,
    /// When it ends, likewise; not later than it begins: on the next day.
    pub to_minute: u16,
}

/// A set of days of the week: bit 0 is Monday.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Days(pub u8);

impl Days {
    /// All seven.
    pub const ALL: Self = Self(0x7F);

    /// Whether the day is in it, which is counted from Monday, 0.
    #[must_use]
    pub const fn contains(self, weekday: u8) -> bool {
        self.0 >> weekday & 1 != 0
    }
}
