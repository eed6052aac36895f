//! The clock on the wall in zones that set it, and a policy that follows it.

use bytes::Bytes;

use super::*;
use crate::config::{self, Days, ListAnswer, ListKind, ListReason, ListSource, Period};
use crate::policy::filter::{Compiler, Image};
use crate::policy::{Acl, Filtering, Groups, Identity, LocalData, Policy};

/// Clocks go forward on the last Sunday of March at 2:00, back on that of October at 3:00.
const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

const MINUTE_MILLIS: u64 = 60_000;

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
        place: String::new(),
    }
}

/// The default group, for which `games` count on some days from one minute up to another.
fn games(days: u8, from_minute: u16, to_minute: u16) -> Group {
    let period = Period { lists: vec!["games".into()], days: Days(days), from_minute, to_minute };
    Group { name: config::DEFAULT_GROUP.into(), periods: vec![period], ..Group::default() }
}

fn time(text: &str) -> CacheTime {
    let millis = text.parse::<Timestamp>().unwrap().as_millisecond();
    CacheTime::from_millis(millis.try_into().unwrap())
}

/// For how many minutes of the 24 hours from `begin` on games count, in a zone.
fn minutes(group: &Group, zone: &str, begin: &str) -> usize {
    let (zone, begin) = (TimeZone::posix(zone).unwrap(), time(begin).as_millis());
    let at = |minute: u64| CacheTime::from_millis(begin + minute * MINUTE_MILLIS);
    let schedule = Schedule::new(std::slice::from_ref(group), &[list("ads"), list("games")]);
    let counts = |&minute: &u64| schedule.in_force(minute_in(&zone, at(minute)))[0].contains(1);
    (0..24 * 60).filter(counts).count()
}

#[test]
fn clock_on_the_wall_knows_zones_and_leap_days() {
    let berlin = TimeZone::posix(BERLIN).unwrap();
    for (at, weekday, minute) in [
        ("2024-02-29T23:30:00Z", 4, 30),
        ("2024-02-28T22:59:59Z", 2, 23 * 60 + 59),
        ("2023-02-28T23:00:00Z", 2, 0),
        ("2026-07-01T12:00:30Z", 2, 14 * 60),
        ("1970-01-01T00:00:00Z", 3, 60),
    ] {
        assert_eq!(minute_in(&berlin, time(at)), LocalMinute::new(weekday, minute), "{at}");
    }
    let far = minute_in(&TimeZone::UTC, CacheTime::from_millis(u64::MAX));
    assert_eq!(far, minute_in(&TimeZone::UTC, CacheTime::from_millis(u64::MAX - 1)));
    let kathmandu = TimeZone::posix("<+0545>-5:45").unwrap();
    assert_eq!(
        minute_in(&kathmandu, time("2026-07-01T12:00:00Z")),
        LocalMinute::new(2, 17 * 60 + 45)
    );
}

#[test]
fn hours_away_from_the_change_are_whole_on_days_of_change() {
    let work = games(0x7F, 8 * 60, 18 * 60);
    for day in ["2026-03-28T23:00:00Z", "2026-10-24T22:00:00Z", "2026-06-30T22:00:00Z"] {
        assert_eq!(minutes(&work, BERLIN, day), 600, "{day}");
    }
}

#[test]
fn hour_that_is_left_out_is_missing_and_one_that_comes_twice_counts_twice() {
    let night = games(0x7F, 22 * 60, 6 * 60);
    let within = games(0x7F, 2 * 60 + 15, 2 * 60 + 45);
    // 24 hours from noon to noon of the clock, but for the hour.
    let [spring, autumn, summer] =
        ["2026-03-28T11:00:00Z", "2026-10-24T10:00:00Z", "2026-07-01T10:00:00Z"];
    assert_eq!(minutes(&night, BERLIN, spring), 7 * 60);
    assert_eq!(minutes(&night, BERLIN, autumn), 9 * 60);
    assert_eq!(minutes(&night, BERLIN, summer), 8 * 60);
    assert_eq!(minutes(&within, BERLIN, spring), 0);
    assert_eq!(minutes(&within, BERLIN, autumn), 60);
    assert_eq!(minutes(&within, BERLIN, summer), 30);
}

#[test]
fn night_over_a_change_belongs_to_the_day_on_which_it_begins() {
    let saturday = games(1 << 5, 22 * 60, 6 * 60);
    assert_eq!(minutes(&saturday, BERLIN, "2026-03-28T11:00:00Z"), 7 * 60);
    assert_eq!(minutes(&saturday, BERLIN, "2026-03-29T11:00:00Z"), 0);
}

fn published(sections: &[Group]) -> Published {
    let image = Compiler::new(*b"sixteen octets..").finish(7).unwrap();
    let image = Image::open(Bytes::from(image)).unwrap();
    let config = config::Config::default();
    let (acl, identity) = (Acl::new(&config.acl), Identity::new(&config.identity));
    let groups = Box::new([[0].into_iter().collect()]);
    let filtering = Filtering::new(image, &[list("ads"), list("games")], groups);
    let policy = Policy::new(acl, identity, LocalData::default());
    let policy = policy.grouped(Groups::new(sections, &[]));
    Published::new(policy.filtered(Some(Arc::new(filtering))))
}

fn counts_games(published: &Published) -> bool {
    published.current().1.filtering().unwrap().groups()[0].contains(1)
}

#[test]
fn policy_follows_the_clock_and_is_left_alone_between() {
    let (mut timetable, published) = (Timetable::default(), published(&[games(0x7F, 480, 1080)]));
    for (minute, is_counted, epoch) in [
        (479, false, 0),
        (480, true, 1),
        (481, true, 1),
        (1079, true, 1),
        (1080, false, 2),
        (0, false, 2),
    ] {
        timetable.apply_at(LocalMinute::new(0, minute), &published);
        assert_eq!((counts_games(&published), published.epoch()), (is_counted, epoch), "{minute}");
    }
}

#[test]
fn policy_that_others_replace_is_mended() {
    let sections = [games(0x7F, 480, 1080)];
    let (mut timetable, published) = (Timetable::default(), published(&sections));
    let noon = LocalMinute::new(0, 720);
    timetable.apply_at(noon, &published);
    let late = self::published(&sections).current().1;
    published.replace(|_| Policy::clone(&late));
    assert!(!counts_games(&published));
    timetable.apply_at(noon, &published);
    assert!(counts_games(&published));
}

#[test]
fn without_lists_or_times_nothing_is_replaced() {
    let at = time("2026-07-01T12:00:00Z");
    let without_times = published(&[]);
    let mut timetable = Timetable::default();
    timetable.apply(at, &without_times);
    assert_eq!(without_times.epoch(), 0);
    let without_lists = published(&[games(0x7F, 0, 0)]);
    without_lists.replace(|policy| policy.clone().filtered(None));
    timetable.apply(at, &without_lists);
    assert_eq!(without_lists.epoch(), 1);
}

#[test]
fn other_groups_are_followed_as_soon_as_they_are_in_force() {
    let published = published(&[]);
    let mut timetable = Timetable::default();
    let noon = LocalMinute::new(0, 720);
    timetable.apply_at(noon, &published);
    assert!(counts_games(&published), "who has no group has all lists");
    let at_night = Groups::new(&[games(0x7F, 1_320, 360)], &[]);
    published.replace(|policy| policy.clone().grouped(at_night.clone()));
    timetable.apply_at(noon, &published);
    assert!(!counts_games(&published));
    timetable.apply_at(LocalMinute::new(0, 1_330), &published);
    assert!(counts_games(&published));
}
