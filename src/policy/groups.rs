//! Hot path. Which group a client belongs to: per listener one table of address ranges, one binary search per query.

mod claims;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::interned::interned;
use crate::config;
use claims::{Claim, ranges};

/// Where a client stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// Its group; 0 is the default one.
    pub group: u8,
    /// Whose answers it gets: clients with the same upstreams share them. 0 are those of `[forward]`.
    pub view: u8,
}

/// All groups, compiled.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// By listener; empty when all clients stand in one place.
    tables: Box<[Table]>,
    default: Place,
    /// What the operator calls each group; the default one has no name unless he gave it lists or upstreams.
    names: Box<[Option<&'static str>]>,
    /// Those whose queries are not logged.
    unlogged: Box<[u8]>,
    /// As the operator wrote them.
    sections: Arc<[config::Group]>,
    /// Those of the config, by number.
    listeners: Arc<[SocketAddr]>,
}

/// Why a client stands where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Membership<'a> {
    /// Its group, as the operator wrote it.
    pub section: &'a config::Group,
    /// The prefix of the group that holds the client, if it names any.
    pub prefix: Option<IpNet>,
    /// The listener that was asked, if the group names any.
    pub listener: Option<SocketAddr>,
}

/// Who is who at one listener: from each address on, up to the next one.
#[derive(Clone, Debug, Default)]
struct Table {
    v4: Box<[(u32, Place)]>,
    v6: Box<[(u128, Place)]>,
}

impl Groups {
    /// Compiles the groups of the config for `listeners`, those of `config::Node`.
    ///
    /// A client belongs to that one of the groups which name its listener (or none) whose prefix around the client is the
    /// longest; of equals to one that names listeners, then to the first. Who is in none belongs to the default group.
    #[must_use]
    pub fn new(sections: &[config::Group], listeners: &[SocketAddr]) -> Self {
        let mut numbered = Vec::with_capacity(sections.len());
        let (mut next, views) = (1_usize, config::Group::views(sections));
        for section in sections {
            let is_default = section.name == config::DEFAULT_GROUP;
            let group = if is_default { 0 } else { next };
            let group = u8::try_from(group).expect("a config has few groups");
            next += usize::from(!is_default);
            numbered.push((section, Place { group, view: section.view(&views) }));
        }
        let default = numbered.iter().find(|(_, place)| place.group == 0);
        let default = default.map_or_else(Place::default, |(_, place)| *place);
        let mut names = vec![None; next].into_boxed_slice();
        for (section, place) in &numbered {
            names[usize::from(place.group)] = Some(interned(&section.name));
        }
        let unlogged = numbered.iter().filter(|(section, _)| !section.log);
        let unlogged = unlogged.map(|(_, place)| place.group).collect();
        numbered.retain(|(_, place)| place.group != 0);
        let tables = if numbered.is_empty() {
            Box::default()
        } else {
            listeners.iter().map(|listener| Table::new(&numbered, listener, default)).collect()
        };
        let (sections, listeners) = (sections.into(), listeners.into());
        Self { tables, default, names, unlogged, sections, listeners }
    }

    /// Where the client at `address` stands who asked the listener with this number. IPv4 addresses in IPv6 clothing count
    /// as IPv4.
    #[inline]
    #[must_use]
    pub fn place(&self, address: IpAddr, listener: u16) -> Place {
        match self.tables.get(usize::from(listener)) {
            None => self.default,
            Some(table) => table.find(address).unwrap_or(self.default),
        }
    }

    /// Why the client at `address` stands where [`Groups::place`] says; `None` when it is in no group that is written down.
    #[must_use]
    pub fn membership(&self, address: IpAddr, listener: u16) -> Option<Membership<'_>> {
        let number = self.place(address, listener).group;
        let section = config::Group::in_order(&self.sections).nth(number.into()).flatten()?;
        let address = address.to_canonical();
        let holding = section.clients.iter().filter(|prefix| prefix.contains(&address));
        let prefix = holding.max_by_key(|prefix| prefix.prefix_len()).copied();
        let asked = self.listeners.get(usize::from(listener)).copied();
        let listener = asked.filter(|asked| section.listeners.contains(asked));
        Some(Membership { section, prefix, listener })
    }

    /// The address of a listener.
    #[must_use]
    pub fn listener(&self, number: u16) -> Option<SocketAddr> {
        self.listeners.get(usize::from(number)).copied()
    }

    /// Whether queries of a group are logged.
    #[inline]
    #[must_use]
    pub fn logs(&self, group: u8) -> bool {
        !self.unlogged.contains(&group)
    }

    /// The groups as the operator wrote them.
    #[must_use]
    pub fn sections(&self) -> &[config::Group] {
        &self.sections
    }

    /// What the operator calls a group.
    #[must_use]
    pub fn name(&self, group: u8) -> Option<&'static str> {
        *self.names.get(usize::from(group))?
    }
}

impl Table {
    fn new(groups: &[(&config::Group, Place)], listener: &SocketAddr, default: Place) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (at, (section, _)) in groups.iter().enumerate() {
            if !section.listeners.is_empty() && !section.listeners.contains(listener) {
                continue;
            }
            let everywhere = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
            let clients: &[IpNet] =
                if section.clients.is_empty() { &everywhere } else { &section.clients };
            for client in clients {
                let (side, first, last) = match client {
                    IpNet::V4(net) => {
                        let ends = [net.network(), net.broadcast()];
                        let [first, last] = ends.map(|end| u128::from(u32::from(end)));
                        (&mut v4, first, last)
                    }
                    IpNet::V6(net) => (&mut v6, net.network().into(), net.broadcast().into()),
                };
                side.push(Claim {
                    bits: client.prefix_len(),
                    names_listeners: !section.listeners.is_empty(),
                    earlier: std::cmp::Reverse(at),
                    first,
                    last,
                });
            }
        }
        let place = |claim: &Claim| groups[claim.earlier.0].1;
        let v4 = ranges(v4, place, default);
        // What begins behind the last address is nowhere.
        let narrow = |(first, place)| Some((u32::try_from(first).ok()?, place));
        Self {
            v4: v4.into_iter().filter_map(narrow).collect(),
            v6: ranges(v6, place, default).into(),
        }
    }

    #[inline]
    fn find(&self, address: IpAddr) -> Option<Place> {
        match address.to_canonical() {
            IpAddr::V4(address) => find(&self.v4, u32::from(address)),
            IpAddr::V6(address) => find(&self.v6, u128::from(address)),
        }
    }
}

#[inline]
fn find<T: Ord + Copy>(ranges: &[(T, Place)], address: T) -> Option<Place> {
    let behind = ranges.partition_point(|&(first, _)| first <= address);
    ranges.get(behind.checked_sub(1)?).map(|&(_, place)| place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTENERS: [&str; 2] = ["127.0.0.1:53", "127.0.0.2:53"];

    fn listeners() -> Vec<SocketAddr> {
        LISTENERS.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn group(
        name: &str,
        clients: &[&str],
        listeners: &[&str],
        has_upstreams: bool,
    ) -> config::Group {
        config::Group {
            name: name.into(),
            clients: clients.iter().map(|text| text.parse().unwrap()).collect(),
            listeners: listeners.iter().map(|text| text.parse().unwrap()).collect(),
            lists: None,
            periods: Vec::new(),
            forward: has_upstreams.then(|| upstream(name)),
            log: true,
            place: String::new(),
        }
    }

    /// An upstream that depends on the first letter of the name.
    fn upstream(name: &str) -> config::ForwardZone {
        let address = SocketAddr::from(([192, 0, 2, name.as_bytes()[0]], 53));
        let upstreams = vec![config::Upstream::udp(address)];
        config::ForwardZone { upstreams, ..config::ForwardZone::default() }
    }

    #[test]
    fn groups_with_the_same_upstreams_stand_in_one_view() {
        let sections = [
            group("a1", &["10.0.0.0/8"], &[], true),
            group("b", &["10.1.0.0/16"], &[], true),
            group("a2", &["10.2.0.0/16"], &[], true),
            group("none", &["10.3.0.0/16"], &[], false),
        ];
        let groups = Groups::new(&sections, &listeners());
        let addresses = ["10.0.0.1", "10.1.0.1", "10.2.0.1", "10.3.0.1"];
        assert_eq!(places(&groups, &addresses), [(1, 1), (2, 2), (3, 1), (4, 0)]);
    }

    #[test]
    fn last_of_as_many_groups_as_there_may_be_has_its_number() {
        let sections: Vec<_> = (0..config::GROUPS_MAX)
            .map(|number| {
                group(&format!("g{number}"), &[&format!("10.0.0.{number}/32")], &[], false)
            })
            .collect();
        let groups = Groups::new(&sections, &listeners());
        assert_eq!(
            places(&groups, &["10.0.0.0", "10.0.0.254", "10.0.0.255"]),
            [(1, 0), (255, 0), (0, 0)]
        );
        assert_eq!(groups.name(255), Some("g254"));
    }

    fn places(groups: &Groups, addresses: &[&str]) -> Vec<(u8, u8)> {
        let place = |text: &&str| groups.place(text.parse().unwrap(), 0);
        addresses.iter().map(place).map(|place| (place.group, place.view)).collect()
    }

    #[test]
    fn longest_prefix_says_whose_a_client_is() {
        let groups = Groups::new(
            &[
                group("home", &["192.168.0.0/16", "fd00::/8"], &[], false),
                group("kids", &["192.168.7.0/24", "fd00:7::/32"], &[], true),
                group("mine", &["192.168.7.9/32", "0.0.0.0/0"], &[], false),
            ],
            &listeners(),
        );
        let addresses = [
            "192.168.1.1",
            "192.168.6.255",
            "192.168.7.0",
            "192.168.7.8",
            "192.168.7.9",
            "192.168.7.10",
            "192.168.8.0",
            "::ffff:192.168.7.1",
            "fd00:7::1",
            "fd00:8::1",
            "fe00::",
            "255.255.255.255",
        ];
        let expected = [
            (1, 0),
            (1, 0),
            (2, 1),
            (2, 1),
            (3, 0),
            (2, 1),
            (1, 0),
            (2, 1),
            (2, 1),
            (1, 0),
            (0, 0),
            (3, 0),
        ];
        assert_eq!(places(&groups, &addresses), expected);
        assert_eq!((groups.name(2), groups.name(0), groups.name(9)), (Some("kids"), None, None));
    }

    #[test]
    fn queries_of_some_groups_are_not_logged() {
        let quiet = |name, clients: &[&str]| config::Group {
            log: false,
            ..group(name, clients, &[], false)
        };
        let sections = [group("open", &["10.0.0.0/8"], &[], false), quiet("shy", &["10.1.0.0/16"])];
        let groups = Groups::new(&sections, &listeners());
        assert_eq!([0, 1, 2, 3].map(|number| groups.logs(number)), [true, true, false, true]);
        let groups = Groups::new(&[quiet(config::DEFAULT_GROUP, &[])], &listeners());
        assert!(!groups.logs(0));
        assert!(Groups::default().logs(0));
    }

    #[test]
    fn default_group_is_for_all_others_and_may_have_upstreams() {
        let sections = [
            group("kids", &["10.0.0.0/8"], &[], true),
            group(config::DEFAULT_GROUP, &[], &[], true),
            group("lab", &["10.1.0.0/16"], &[], true),
        ];
        let groups = Groups::new(&sections, &listeners());
        assert_eq!(
            places(&groups, &["10.0.0.1", "192.0.2.1", "10.1.0.1"]),
            [(1, 1), (0, 2), (2, 3)]
        );
        let alone = Groups::new(&sections[1..2], &listeners());
        assert_eq!(places(&alone, &["10.0.0.1"]), [(0, 1)]);
    }

    #[test]
    fn listener_decides_between_equals_and_excludes_others() {
        let groups = Groups::new(
            &[
                group("net", &["10.0.0.0/8"], &[], false),
                group("port", &["10.0.0.0/8"], &LISTENERS[..1], false),
                group("second", &[], &LISTENERS[1..], false),
            ],
            &listeners(),
        );
        let place = |text: &str, listener| groups.place(text.parse().unwrap(), listener).group;
        assert_eq!([place("10.0.0.1", 0), place("10.0.0.1", 1)], [2, 1]);
        assert_eq!(
            [place("192.0.2.1", 0), place("192.0.2.1", 1), place("2001:db8::1", 1)],
            [0, 3, 3]
        );
    }

    proptest! {
        #[test]
        fn ranges_say_what_a_search_through_all_groups_says(
            prefixes in prop::collection::vec((0..64_u32, 26..=32_u8, 0..3_u8), 0..12),
            asked in 0..80_u32,
            listener in 0..2_u16,
        ) {
            let sections: Vec<_> = prefixes.iter().enumerate().map(|(number, &(host, bits, at))| {
                let net = Ipv4Net::new((0x0A00_0000 | host).into(), bits).unwrap().trunc();
                let at = LISTENERS.get(usize::from(at)).map_or(&[][..], std::slice::from_ref);
                group(&format!("g{number}"), &[&net.to_string()], at, false)
            }).collect();
            let address = IpAddr::from((0x0A00_0000_u32 | asked).to_be_bytes());
            let holds = |section: &config::Group| {
                let bits = section.clients[0].contains(&address).then_some(section.clients[0].prefix_len());
                let at = &listeners()[usize::from(listener)];
                bits.filter(|_| section.listeners.is_empty() || section.listeners.contains(at))
            };
            let best = sections.iter().enumerate().filter_map(|(number, section)| {
                Some((holds(section)?, !section.listeners.is_empty(), std::cmp::Reverse(number)))
            }).max();
            let expected = best.map_or(0, |(_, _, number)| u8::try_from(number.0 + 1).unwrap());
            let groups = Groups::new(&sections, &listeners());
            prop_assert_eq!(groups.place(address, listener).group, expected);
            let membership = groups.membership(address, listener);
            prop_assert_eq!(membership.map(|it| it.section), best.map(|(_, _, number)| &sections[number.0]));
            prop_assert_eq!(membership.map(|it| it.prefix), best.map(|(_, _, number)| Some(sections[number.0].clients[0])));
            prop_assert_eq!(membership.map(|it| it.listener.is_some()), best.map(|(_, is_named, _)| is_named));
        }
    }
}
