//! `[[group]]`: clients for whom other lists, other upstreams or another way of logging hold than for all.

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::{ForwardZone, ROOT_VIEW};

/// Most groups of a node beside the default one: they are told apart by one octet.
pub const GROUPS_MAX: usize = 255;

/// The name of the group for clients that are in no other.
pub const DEFAULT_GROUP: &str = "default";

/// One group of clients.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Group {
    /// What the operator calls it; no two have one name.
    pub name: String,
    /// Where its clients are; none for everywhere.
    pub clients: Vec<IpNet>,
    /// The listeners, of `node.listen`, that they ask; none for all.
    pub listeners: Vec<SocketAddr>,
    /// The lists that always count for them, by name; if not set, all that are in none of the periods.
    pub lists: Option<Vec<String>>,
    /// Lists that count for them at times, beside the above.
    pub periods: Vec<Period>,
    /// Who is asked for them, if not those of `[forward]`. Zones of `[[forward]]` hold for them, too. Never set for the
    /// default group.
    pub forward: Option<ForwardZone>,
    /// Whether their queries are logged.
    pub log: bool,
    /// Where the config names it: `file:line`.
    pub place: String,
}

impl Group {
    /// What the groups are called, the default one first.
    #[must_use]
    pub fn names(groups: &[Self]) -> Vec<String> {
        let name =
            |group: Option<&Self>| group.map_or(DEFAULT_GROUP, |group| &group.name).to_owned();
        Self::in_order(groups).map(name).collect()
    }

    /// Whether it holds for those who are in no other group.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT_GROUP
    }

    /// All groups in the order of their numbers: the default one, which may not be written down, then the others as they
    /// stand in the config.
    pub fn in_order(groups: &[Self]) -> impl Iterator<Item = Option<&Self>> {
        let default = groups.iter().find(|group| group.is_default());
        let others = groups.iter().filter(|group| !group.is_default());
        std::iter::once(default).chain(others.map(Some))
    }

    /// The upstreams that groups have of their own, in the order of the config; those that several have stand once, so that
    /// these share what they say. The first is the view with the number 1.
    #[must_use]
    pub fn views(groups: &[Self]) -> Vec<&ForwardZone> {
        let mut views = Vec::new();
        for own in groups.iter().filter_map(|group| group.forward.as_ref()) {
            if !views.contains(&own) {
                views.push(own);
            }
        }
        views
    }

    /// The number of its view, of `views`, which are those of all groups.
    ///
    /// # Panics
    /// When its own upstreams are not among them.
    #[must_use]
    pub fn view(&self, views: &[&ForwardZone]) -> u8 {
        let Some(own) = &self.forward else { return ROOT_VIEW };
        let place = views.iter().position(|view| *view == own);
        let number = place.and_then(|place| u8::try_from(place + 1).ok());
        number.expect("the upstreams of each group are among those of all")
    }
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

/// The days of the week as they are written, Monday first.
pub(super) const DAY_NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

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

/// As the config would have it: `mon, wed-fri`; `daily` for all.
impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("daily");
        }
        let is_in = |day: usize| day < DAY_NAMES.len() && self.0 >> day & 1 != 0;
        let begins = |&day: &usize| is_in(day) && (day == 0 || !is_in(day - 1));
        for (number, first) in (0..DAY_NAMES.len()).filter(begins).enumerate() {
            let last = (first..).take_while(|&day| is_in(day)).last().unwrap_or(first);
            f.write_str(if number > 0 { ", " } else { "" })?;
            f.write_str(DAY_NAMES[first])?;
            if last > first {
                write!(f, "-{}", DAY_NAMES[last])?;
            }
        }
        Ok(())
    }
}
