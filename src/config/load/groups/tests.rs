//! Groups as operators write them, right and wrong.

use super::super::places::Places;
use super::*;
use crate::config::{File, List, ListAnswer, ListKind, ListReason, ListSource, ROOT_VIEW};

const LISTEN: &str = "[node]\nlisten = ['127.0.0.1:53', '127.0.0.1:5300', '192.168.9.1:53']\n";

/// Loads `text`, behind which are lists with these names; line 1 is the first of `text`.
fn load(text: &str) -> Result<Config, ConfigError> {
    let text = format!("{text}\n{LISTEN}");
    let (mut config, mut places) = (Config::default(), Places::default());
    config.read_file(File { name: "node.toml", text: &text }, None, &mut places)?;
    config.lists = ["ads", "games", "oisd.big", "adult", "video"].map(list).to_vec();
    config.forward.views = Group::views(&config.groups).into_iter().cloned().collect();
    config.check(&places)?;
    Ok(config)
}

fn list(name: &str) -> List {
    List {
        name: name.to_owned(),
        source: ListSource::File("/tmp/list".into()),
        kind: ListKind::Block,
        syntax: None,
        answer: ListAnswer::Nxdomain,
        ttl: 60,
        reason: ListReason::Blocked,
        refresh: None,
        place: "node.toml:1".into(),
    }
}

fn error(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn group_has_all_that_is_written() {
    let config = load(
        "[[group]]\nname = 'kids'\nclients = ['192.168.7.0/24', '2001:db8::1']\n\
         listeners = ['127.0.0.1:5300']\nlists = ['ads']\nlog = false\n\
         upstreams = ['192.0.2.1', 'tls://192.0.2.2#dns.example']\npolicy = 'ordered'\nattempt_timeout = '1s'\n\
         [[group.schedule]]\nlists = ['games']\ndays = 'mon-fri'\nhours = '08:00-18:00'\n\
         [[group.schedule]]\nlists = ['games', 'oisd.big']\nhours = '21:30-7:05'\n",
    );
    let config = config.unwrap();
    let [kids] = &config.groups[..] else { panic!("{config:?}") };
    assert_eq!((kids.name.as_str(), kids.place.as_str(), kids.log), ("kids", "node.toml:1", false));
    assert_eq!(kids.clients[1], "2001:db8::1/128".parse().unwrap());
    assert_eq!(kids.listeners, ["127.0.0.1:5300".parse().unwrap()]);
    assert_eq!(kids.lists.as_deref(), Some(&["ads".to_owned()][..]));
    let own = kids.forward.as_ref().unwrap();
    assert_eq!((own.upstreams.len(), own.attempt_timeout.as_secs()), (2, 1));
    let [work, night] = &kids.periods[..] else { panic!("{kids:?}") };
    assert_eq!((work.days, work.from_minute, work.to_minute), (Days(0b1_1111), 480, 1080));
    assert_eq!((night.days, night.from_minute, night.to_minute), (Days::ALL, 1290, 425));
    assert_eq!((night.lists.len(), config.forward.views.len()), (2, 1));
}

#[test]
fn what_is_left_out_is_what_holds_for_all() {
    let config = load("[[group]]\nname = 'a'\nclients = '192.0.2.1'\n").unwrap();
    let group = &config.groups[0];
    assert!(group.log && group.lists.is_none() && group.periods.is_empty());
    assert!(group.listeners.is_empty() && group.forward.is_none());
    assert_eq!(group.view(&Group::views(&config.groups)), ROOT_VIEW);
}

#[test]
fn example_of_the_document_loads() {
    let doc = include_str!("../../../../docs/CONFIGURATION.md");
    let section = doc.split("\n## [[group]]\n").nth(1).unwrap();
    let example = section.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let config = load(example.unwrap()).unwrap();
    assert_eq!((config.groups.len(), config.groups[0].periods.len()), (2, 2));
    assert_eq!(config.groups[0].periods[1].days, Days(0b100_1111));
}

#[test]
fn default_group_is_number_0_wherever_it_stands() {
    let names = |text: &str| {
        let config = load(text).unwrap();
        let numbered = Group::in_order(&config.groups);
        numbered
            .map(|group| group.map_or_else(String::new, |group| group.name.clone()))
            .collect::<Vec<_>>()
    };
    let others = "[[group]]\nname = 'a'\nclients = '192.0.2.1'\n[[group]]\nname = 'b'\nclients = '192.0.2.2'\n";
    assert_eq!(names(others), ["", "a", "b"]);
    assert_eq!(
        names(&format!("{others}[[group]]\nname = 'default'\nlists = []\n")),
        ["default", "a", "b"]
    );
    assert_eq!(names(""), [""]);
}

#[test]
fn groups_with_the_same_upstreams_share_a_view() {
    let group = |name: &str, upstream: &str| {
        format!("[[group]]\nname = '{name}'\nclients = '{name}'\nupstreams = '{upstream}'\n")
    };
    let text = group("192.0.2.1", "192.0.2.53")
        + &group("192.0.2.2", "192.0.2.54")
        + &group("192.0.2.3", "192.0.2.53")
        + "[[group]]\nname = 'd'\nclients = '192.0.2.4'\n";
    let config = load(&text).unwrap();
    let views = Group::views(&config.groups);
    let views: Vec<u8> = config.groups.iter().map(|group| group.view(&views)).collect();
    assert_eq!(views, [1, 2, 1, 0]);
    assert_eq!(config.forward.all_upstreams().count(), 2);
}

#[test]
fn mistakes_name_place_key_value_and_what_is_allowed() {
    for (keys, said) in [
        ("clients = '192.0.2.1'", "node.toml:1: group.name = \"\": expected a text of 1 to 64"),
        ("name = ' a'", "node.toml:2: group.name = \" a\": expected a text"),
        (
            "name = 'a'\nclients = ['10.0.0.1/8']",
            "node.toml:3: group.clients = \"10.0.0.1/8\" (entry 1)",
        ),
        (
            "name = 'a'\nclients = ['::1', '::1/128']",
            "\"::1/128\" (entry 2: it stands twice): expected prefixes",
        ),
        (
            "name = 'a'\nclient = '::1'",
            "node.toml:3: unknown key \"group.client\" (did you mean \"clients\"?)",
        ),
        (
            "name = 'a'\nlisteners = ['127.0.0.1']",
            "node.toml:3: group.listeners = \"127.0.0.1\" (entry 1)",
        ),
        ("name = 'a'\nlog = 'maybe'", "node.toml:3: group.log = \"maybe\": expected true or false"),
        (
            "name = 'a'\nupstreams = ['x']",
            "node.toml:3: group.upstreams = \"x\" (entry 1): expected addresses",
        ),
        (
            "name = 'a'\npolicy = 'first'",
            "node.toml:3: group.policy = \"first\": expected \"fastest\"",
        ),
        (
            "name = 'a'\npolicy = 'ordered'",
            "node.toml:3: group.policy is for a group with upstreams",
        ),
        (
            "name = 'a'\nlists = ['adds']\nclients = '::1'",
            "unknown list of a group \"adds\" (did you mean \"ads\"?); allowed: ads, games, oisd.big, ",
        ),
        (
            "name = 'a'\nlisteners = ['127.0.0.1:54']",
            "\"127.0.0.1:54\" (did you mean \"127.0.0.1:53\"?); allowed: 127.0.0.1:53, 127.0.0.1:5300",
        ),
        ("name = 'a'", "node.toml:1: group \"a\" needs clients or listeners"),
        (
            "name = 'default'\nclients = '::1'",
            "group \"default\" takes neither clients nor listeners",
        ),
        ("name = 'default'\nupstreams = '192.0.2.1'", "group \"default\" takes no upstreams"),
        (
            "name = 'a'\nclients = '::1'\nupstreams = '192.0.2.1'\nattempt_timeout = '6s'",
            "node.toml:1: group.attempt_timeout = 6s of group \"a\" is above forward.deadline = 5s",
        ),
        (
            "name = 'a'\nschedule = 'mon'",
            "node.toml:3: group.schedule = \"mon\": expected [[group.schedule]]",
        ),
    ] {
        let message = error(&format!("[[group]]\n{keys}\n"));
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn mistakes_in_schedules_name_place_key_value_and_what_is_allowed() {
    let client = "clients = '192.0.2.1'\n";
    for (keys, said) in [
        ("days = 'all'", "node.toml:4: a [[group.schedule]] table needs lists"),
        ("lists = ['ads']", "node.toml:4: a [[group.schedule]] table needs days or hours"),
        (
            "lists = ['ads']\ndays = 'monday'",
            "node.toml:6: group.schedule.days = \"monday\": expected \"all\"",
        ),
        (
            "lists = ['ads']\nhours = '8-18'",
            "node.toml:6: group.schedule.hours = \"8-18\": expected two times",
        ),
        ("lists = ['ads']\nhour = '08:00-18:00'", "(did you mean \"hours\"?)"),
        ("lists = ['add']\nhours = '08:00-18:00'", "unknown list of a group \"add\""),
    ] {
        let message =
            error(&format!("[[group]]\nname = 'a'\n{client}[[group.schedule]]\n{keys}\n"));
        assert!(message.contains(said), "{message}");
    }
    assert!(error("group = 5").contains("[[group]] tables"));
    assert!(error("[group]\nname = 'a'").contains("[[group]] tables"));
}

#[test]
fn groups_that_nobody_could_tell_apart_are_refused() {
    let two = |first: &str, second: &str| {
        load(&format!("[[group]]\nname = 'a'\n{first}\n[[group]]\nname = 'b'\n{second}\n"))
    };
    for (first, second) in [
        ("clients = ['192.0.2.0/24', '::1']", "clients = ['::1/128']"),
        (
            "clients = '::1'\nlisteners = ['127.0.0.1:53', '127.0.0.1:5300']",
            "clients = '::1'\nlisteners = ['127.0.0.1:5300', '127.0.0.1:53']",
        ),
        ("listeners = ['127.0.0.1:53']", "listeners = ['127.0.0.1:53']"),
    ] {
        let message = two(first, second).unwrap_err().to_string();
        assert!(message.contains("group \"b\"") && message.contains("group \"a\""), "{message}");
        assert!(message.contains("node.toml:"), "{message}");
    }
    for (first, second) in [
        ("clients = '192.0.2.0/24'", "clients = '192.0.2.0/25'"),
        ("clients = '::1'\nlisteners = ['127.0.0.1:53']", "clients = '::1'"),
        ("listeners = ['127.0.0.1:53']", "listeners = ['127.0.0.1:5300']"),
    ] {
        assert!(two(first, second).is_ok(), "{first} {second}");
    }
    let message =
        error("[[group]]\nname = 'a'\nclients = '::1'\n[[group]]\nname = 'a'\nclients = '::2'");
    assert!(message.starts_with("node.toml:4: group.name: \"a\" stands twice"), "{message}");
}

#[test]
fn there_is_an_end_to_groups() {
    let group =
        |number: usize| format!("[[group]]\nname = '{number}'\nclients = '2001:db8::{number:x}'\n");
    let many = |count: usize| (0..count).map(group).collect::<String>();
    assert!(load(&format!("{}[[group]]\nname = 'default'\n", many(GROUPS_MAX))).is_ok());
    assert!(
        error(&many(GROUPS_MAX + 1)).ends_with("more than 255 [[group]] tables beside \"default\"")
    );
}

#[test]
fn days_are_single_ones_and_ranges_around_the_week() {
    let text = |text: &str| days(&Value::Text(text.into())).map(|days| days.0);
    assert_eq!(text("all"), Some(0x7F));
    assert_eq!(text("wed"), Some(0b100));
    assert_eq!(text("mon-fri"), Some(0b1_1111));
    assert_eq!(text("sat-mon"), Some(0b110_0001));
    let list = |items: &[&str]| {
        days(&Value::List(items.iter().map(|&item| item.to_owned()).collect())).map(|days| days.0)
    };
    assert_eq!(list(&["mon", "sat-sun"]), Some(0b110_0001));
    for bad in [&[][..], &["mon", "mon"], &["mon-wed", "tue"], &["mon-"], &["all", "mon"], &["Mon"]]
    {
        assert_eq!(list(bad), None, "{bad:?}");
    }
}

#[test]
fn hours_may_pass_midnight_and_end_at_it() {
    for (text, expected) in [
        ("08:00-18:00", Some((480, 1080))),
        ("8:00-9:30", Some((480, 570))),
        ("22:00-06:00", Some((1320, 360))),
        ("18:00-24:00", Some((1080, 0))),
        ("00:00-24:00", Some((0, 0))),
        ("00:00-00:01", Some((0, 1))),
        ("24:00-06:00", None),
        ("08:00-08:00", None),
        ("08:60-09:00", None),
        ("24:01-01:00", None),
        ("08:0-09:00", None),
        ("-08:00-09:00", None),
        ("08:00", None),
        ("+8:00-09:00", None),
        ("", None),
    ] {
        assert_eq!(hours(text), expected, "{text}");
    }
}
