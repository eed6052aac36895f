//! Lists through the week: by hand, and against a model that walks it minute by minute.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

use super::*;
use crate::config::{List, ListAnswer, ListKind, ListReason, ListSource, Period};

const NAMES: [&str; 4] = ["ads", "games", "video", "adult"];

fn lists() -> Vec<List> {
    let list = |name: &str| List {
        name: name.to_owned(),
        source: ListSource::File("/tmp/list".into()),
        kind: ListKind::Block,
        syntax: None,
        answer: ListAnswer::Nxdomain,
        ttl: 60,
        reason: ListReason::Blocked,
        refresh: None,
        place: String::new(),
    };
    NAMES.map(list).to_vec()
}

fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(|&name| name.to_owned()).collect()
}

/// A period of `games`.
fn games(days: u8, from_minute: u16, to_minute: u16) -> Period {
    Period { lists: names(&["games"]), days: Days(days), from_minute, to_minute }
}

fn group(lists: Option<&[&str]>, periods: Vec<Period>) -> Group {
    Group { name: "kids".into(), lists: lists.map(names), periods, ..Group::default() }
}

/// The names of the lists that count for the group beside the default one.
fn told(group: &Group, at: LocalMinute) -> Vec<&'static str> {
    let sets = in_force(std::slice::from_ref(group), &lists(), at);
    assert_eq!(sets.len(), 2);
    let counts = |place: &usize| sets[1].contains(u8::try_from(*place).unwrap());
    (0..NAMES.len()).filter(counts).map(|place| NAMES[place]).collect()
}

fn at(weekday: u8, hour: u16, minute: u16) -> LocalMinute {
    LocalMinute::new(weekday, 60 * hour + minute)
}

fn has_games(group: &Group, at: LocalMinute) -> bool {
    told(group, at).contains(&"games")
}

#[test]
fn all_lists_count_where_none_are_named_but_those_with_times() {
    let monday = at(0, 12, 0);
    assert_eq!(told(&group(None, Vec::new()), monday), NAMES);
    assert_eq!(told(&group(Some(&[]), Vec::new()), monday), [""; 0]);
    assert_eq!(told(&group(Some(&["video"]), Vec::new()), monday), ["video"]);
    let evening = group(None, vec![games(0x7F, 1200, 1320)]);
    assert_eq!(told(&evening, monday), ["ads", "video", "adult"]);
    assert_eq!(told(&evening, at(0, 20, 0)), NAMES);
    let both = group(Some(&["games"]), vec![games(0x7F, 1200, 1320)]);
    assert_eq!(told(&both, monday), ["games"], "what always counts needs no time");
}

#[test]
fn default_group_comes_first_and_has_all_lists_where_it_is_not_written() {
    let lists = lists();
    let all: Lists = (0..4).collect();
    let others = vec![group(Some(&["ads"]), Vec::new()), group(Some(&[]), Vec::new())];
    let ads: Lists = [0].into_iter().collect();
    let at = at(0, 0, 0);
    assert_eq!(*in_force(&others, &lists, at), [all, ads, Lists::default()]);
    let named = Group { name: "default".into(), ..group(Some(&[]), Vec::new()) };
    let groups = [others, vec![named]].concat();
    assert_eq!(*in_force(&groups, &lists, at), [Lists::default(), ads, Lists::default()]);
    assert_eq!(*in_force(&[], &lists, at), [all]);
}

#[test]
fn period_holds_from_its_first_minute_up_to_its_last() {
    let work = group(None, vec![games(0b1_1111, 480, 1080)]);
    for (weekday, hour, minute, expected) in [
        (0, 7, 59, false),
        (0, 8, 0, true),
        (4, 17, 59, true),
        (4, 18, 0, false),
        (5, 12, 0, false),
        (6, 12, 0, false),
    ] {
        assert_eq!(has_games(&work, at(weekday, hour, minute)), expected, "{weekday} {hour}");
    }
}

#[test]
fn period_over_midnight_belongs_to_the_day_on_which_it_begins() {
    let friday_night = group(None, vec![games(0b1_0000, 1320, 360)]);
    for (weekday, hour, expected) in
        [(4, 5, false), (4, 22, true), (5, 5, true), (5, 6, false), (5, 22, false), (6, 3, false)]
    {
        assert_eq!(has_games(&friday_night, at(weekday, hour, 0)), expected, "{weekday} {hour}");
    }
    let sunday_night = group(None, vec![games(0b100_0000, 1320, 360)]);
    assert!(has_games(&sunday_night, at(6, 23, 0)) && has_games(&sunday_night, at(0, 5, 59)));
    assert!(!has_games(&sunday_night, at(0, 6, 0)) && !has_games(&sunday_night, at(6, 5, 0)));
}

#[test]
fn equal_ends_are_a_whole_day() {
    let monday = group(None, vec![games(1, 0, 0)]);
    assert!(has_games(&monday, at(0, 0, 0)) && has_games(&monday, at(0, 23, 59)));
    assert!(!has_games(&monday, at(1, 0, 0)) && !has_games(&monday, at(6, 23, 59)));
    let schedule = Schedule::new(&[monday], &lists());
    assert_eq!(schedule.next_change(at(0, 0, 0)), Some(DAY_MINUTES));
}

#[test]
fn next_change_is_one_that_makes_a_difference() {
    let next = |periods, at| Schedule::new(&[group(None, periods)], &lists()).next_change(at);
    assert_eq!(next(vec![games(0b1_1111, 480, 1080)], at(0, 7, 0)), Some(60));
    assert_eq!(next(vec![games(0b1_1111, 480, 1080)], at(0, 8, 0)), Some(600));
    assert_eq!(next(vec![games(0b1_1111, 480, 1080)], at(4, 18, 0)), Some(62 * 60));
    // The second goes on where the first ends.
    let halves = vec![games(1, 480, 720), games(1, 720, 1080)];
    assert_eq!(next(halves, at(0, 8, 0)), Some(600));
    assert_eq!(next(vec![games(0x7F, 0, 0)], at(3, 3, 3)), None, "always");
    assert_eq!(next(Vec::new(), at(0, 0, 0)), None);
}

fn period() -> impl Strategy<Value = Period> {
    let lists = vec(0..NAMES.len(), 1..3);
    let edge = || 0..DAY_MINUTES;
    (lists, any::<u8>(), edge(), edge()).prop_map(|(lists, days, from_minute, to_minute)| Period {
        lists: lists.into_iter().map(|place| NAMES[place].to_owned()).collect(),
        days: Days(days & 0x7F),
        from_minute,
        to_minute,
    })
}

/// Whether `list` counts in each minute of the week, found by walking through each period from each day on which it begins.
fn walked(group: &Group, list: &str) -> Vec<bool> {
    let is_named = |lists: &[String]| lists.iter().any(|name| name == list);
    let is_timed = group.periods.iter().any(|period| is_named(&period.lists));
    let always = group.lists.as_ref().map_or(!is_timed, |lists| is_named(lists));
    let mut week = vec![always; usize::from(WEEK_MINUTES)];
    for period in group.periods.iter().filter(|period| is_named(&period.lists)) {
        for day in (0..7).filter(|&day| period.days.contains(day)) {
            let mut clock = period.from_minute;
            let mut minute = usize::from(day) * 1440 + usize::from(clock);
            loop {
                week[minute] = true;
                minute = (minute + 1) % week.len();
                clock = (clock + 1) % DAY_MINUTES;
                if clock == period.to_minute {
                    break;
                }
            }
        }
    }
    week
}

proptest! {
    #[test]
    fn week_is_what_a_walk_through_it_finds(
        always in proptest::option::of(vec(0..NAMES.len(), 0..3)),
        periods in vec(period(), 0..4),
        start in 0..WEEK_MINUTES,
    ) {
        let always = always.map(|places| places.into_iter().map(|place| NAMES[place].to_owned()).collect());
        let group = Group { name: "kids".into(), lists: always, periods, ..Group::default() };
        let weeks = NAMES.map(|name| walked(&group, name));
        let schedule = Schedule::new(&[group], &lists());
        let monday = LocalMinute::new(0, 0);
        for minute in 0..WEEK_MINUTES {
            let found = schedule.in_force(monday.after(minute))[1];
            for (number, week) in (0..).zip(&weeks) {
                prop_assert_eq!(found.contains(number), week[usize::from(minute)], "{} at {}", number, minute);
            }
        }
        let at = |minute: u16| {
            let place = usize::from((minute + start) % WEEK_MINUTES);
            weeks.iter().map(|week| week[place]).collect::<Vec<_>>()
        };
        let change = (1..WEEK_MINUTES).find(|&minutes| at(minutes) != at(0));
        prop_assert_eq!(schedule.next_change(monday.after(start)), change);
    }
}
