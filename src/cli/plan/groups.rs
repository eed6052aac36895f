//! Groups of clients in words: who is in them, what holds for them.

use crate::config::{Config, DEFAULT_GROUP, Group, Period};

/// One group per line, the default one first.
pub(super) fn told(config: &Config) -> Vec<String> {
    let told = |group: Option<&Group>| match group {
        Some(group) => one(group),
        None => format!("{DEFAULT_GROUP}: all others; all lists"),
    };
    Group::in_order(&config.groups).map(told).collect()
}

fn one(group: &Group) -> String {
    let Group { name, clients, listeners, lists, periods, forward, log, place: _ } = group;
    let mut who = Vec::new();
    if !clients.is_empty() {
        who.push(joined(clients));
    }
    if !listeners.is_empty() {
        who.push(format!("asking {}", joined(listeners)));
    }
    let who = if who.is_empty() { "all others".to_owned() } else { who.join(" ") };
    let always = match lists {
        Some(lists) if lists.is_empty() => "no lists".to_owned(),
        Some(lists) => format!("lists {}", lists.join(", ")),
        None if periods.is_empty() => "all lists".to_owned(),
        None => "all lists but those with times".to_owned(),
    };
    let mut parts = vec![format!("{name}: {who}"), always];
    parts.extend(periods.iter().map(period));
    parts.extend(forward.as_ref().map(|own| format!("asks {}", super::zone(own))));
    if !log {
        parts.push("not logged".to_owned());
    }
    parts.join("; ")
}

/// Which lists count when.
fn period(period: &Period) -> String {
    let Period { lists, days, from_minute, to_minute } = period;
    let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    let lists = lists.join(", ");
    let hours = if from_minute == to_minute {
        String::new()
    } else {
        format!(" {}-{}", clock(*from_minute), clock(*to_minute))
    };
    format!("{lists} {days}{hours}")
}

fn joined(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Days, ForwardZone, Upstream};

    #[test]
    fn groups_say_who_is_in_them_and_what_holds() {
        let mut config = Config::default();
        assert_eq!(told(&config), ["default: all others; all lists"]);
        let games = |days, from_minute, to_minute| Period {
            lists: vec!["games".into(), "video".into()],
            days: Days(days),
            from_minute,
            to_minute,
        };
        let kids = Group {
            name: "kids".into(),
            clients: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::1/128".parse().unwrap()],
            listeners: vec!["127.0.0.1:53".parse().unwrap()],
            periods: vec![games(0b1_1111, 480, 1080), games(0b110_0101, 0, 0)],
            forward: Some(ForwardZone {
                upstreams: vec![Upstream::udp("192.0.2.53:53".parse().unwrap())],
                ..ForwardZone::default()
            }),
            ..Group::default()
        };
        let default = Group {
            name: "default".into(),
            lists: Some(Vec::new()),
            log: true,
            ..Group::default()
        };
        config.groups = vec![kids, default];
        assert_eq!(
            told(&config),
            [
                "default: all others; no lists",
                "kids: 192.0.2.0/24, 2001:db8::1/128 asking 127.0.0.1:53; all lists but those with times; \
                 games, video mon-fri 08:00-18:00; games, video mon, wed, sat-sun; \
                 asks 192.0.2.53:53; fastest, 800ms per attempt; not logged",
            ]
        );
    }
}
