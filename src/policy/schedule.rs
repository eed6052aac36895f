//! Which lists count for whom at what time of the week. No clock: the time that the clock on the wall shows is handed in.

use std::collections::BTreeSet;

use super::filter::Lists;
use crate::config::{self, Days, Group};

const DAY_MINUTES: u16 = 24 * 60;
const WEEK_MINUTES: u16 = 7 * DAY_MINUTES;

/// A minute of the week, as the clock on the wall shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LocalMinute {
    /// From Monday, 0.
    weekday: u8,
    /// After midnight.
    minute: u16,
}

impl LocalMinute {
    /// The minute of a day of the week, which is counted from Monday, 0.
    #[must_use]
    pub const fn new(weekday: u8, minute: u16) -> Self {
        assert!(weekday < 7 && minute < DAY_MINUTES);
        Self { weekday, minute }
    }

    const fn of_week(self) -> u16 {
        self.weekday as u16 * DAY_MINUTES + self.minute
    }

    /// The one so many minutes later, on a clock that nobody sets.
    #[must_use]
    pub fn after(self, minutes: u16) -> Self {
        let sum = (u32::from(self.of_week()) + u32::from(minutes)) % u32::from(WEEK_MINUTES);
        let sum = u16::try_from(sum).expect("a week has fewer minutes");
        let weekday = u8::try_from(sum / DAY_MINUTES).expect("a week has seven days");
        Self::new(weekday, sum % DAY_MINUTES)
    }
}

/// Which of `lists` count for each of `groups` at a time; the first set is that of the default group, the others follow in the
/// order of the config. For more than one question: [`Schedule`].
#[must_use]
pub fn in_force(groups: &[Group], lists: &[config::List], at: LocalMinute) -> Box<[Lists]> {
    Schedule::new(groups, lists).in_force(at)
}

/// The lists of all groups through the week.
#[derive(Clone, Debug)]
pub struct Schedule(Box<[Week]>);

/// The lists of one group.
#[derive(Clone, Debug)]
struct Week {
    always: Lists,
    at_times: Vec<Span>,
}

/// A time at which lists count.
#[derive(Clone, Debug)]
struct Span {
    lists: Vec<u8>,
    /// Where it begins, in minutes of the week, once per day on which it does.
    begins: Vec<u16>,
    /// How long it lasts: a day at most.
    minutes: u16,
}

impl Schedule {
    /// That of the groups of a config, which names no list that it has not.
    #[must_use]
    pub fn new(groups: &[Group], lists: &[config::List]) -> Self {
        Self(Group::in_order(groups).map(|group| Week::new(group, lists)).collect())
    }

    /// Whether some list counts at times only.
    #[must_use]
    pub fn has_times(&self) -> bool {
        self.0.iter().any(|week| !week.at_times.is_empty())
    }

    /// Which lists count at a time, by group.
    #[must_use]
    pub fn in_force(&self, at: LocalMinute) -> Box<[Lists]> {
        self.0.iter().map(|week| week.in_force(at.of_week())).collect()
    }

    /// In how many minutes that changes next, on a clock that nobody sets; `None` if it never does.
    #[must_use]
    pub fn next_change(&self, at: LocalMinute) -> Option<u16> {
        let spans = self.0.iter().flat_map(|week| &week.at_times);
        let edges = spans.flat_map(Span::edges);
        let from_here = edges.map(|edge| (edge + WEEK_MINUTES - at.of_week()) % WEEK_MINUTES);
        let later: BTreeSet<u16> = from_here.filter(|&minutes| minutes > 0).collect();
        let now = self.in_force(at);
        later.into_iter().find(|&minutes| self.in_force(at.after(minutes)) != now)
    }
}

impl Week {
    fn new(group: Option<&Group>, lists: &[config::List]) -> Self {
        let numbered = |is_wanted: &dyn Fn(&str) -> bool| -> Vec<u8> {
            let all = lists.iter().zip(0..=u8::MAX);
            all.filter(|(list, _)| is_wanted(&list.name)).map(|(_, number)| number).collect()
        };
        let Some(group) = group else {
            return Self {
                always: numbered(&|_| true).into_iter().collect(),
                at_times: Vec::new(),
            };
        };
        let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
        let is_timed = |name: &str| group.periods.iter().any(|period| has(&period.lists, name));
        let always = match &group.lists {
            Some(names) => numbered(&|name| has(names, name)),
            None => numbered(&|name| !is_timed(name)),
        };
        let span = |period: &config::Period| {
            let minutes = (period.to_minute + DAY_MINUTES - period.from_minute) % DAY_MINUTES;
            Span {
                lists: numbered(&|name| has(&period.lists, name)),
                begins: begins(period.days, period.from_minute),
                minutes: if minutes == 0 { DAY_MINUTES } else { minutes },
            }
        };
        let at_times = group.periods.iter().map(span).collect();
        Self { always: always.into_iter().collect(), at_times }
    }

    fn in_force(&self, minute: u16) -> Lists {
        let mut lists = self.always;
        for span in self.at_times.iter().filter(|span| span.covers(minute)) {
            span.lists.iter().for_each(|&list| lists.insert(list));
        }
        lists
    }
}

impl Span {
    fn covers(&self, minute: u16) -> bool {
        let since = |begin: u16| (minute + WEEK_MINUTES - begin) % WEEK_MINUTES;
        self.begins.iter().any(|&begin| since(begin) < self.minutes)
    }

    /// The minutes of the week at which it begins or is over.
    fn edges(&self) -> impl Iterator<Item = u16> {
        let ends = |begin| [begin, (begin + self.minutes) % WEEK_MINUTES];
        self.begins.iter().copied().flat_map(ends)
    }
}

/// The minutes of the week that are `from_minute` minutes into one of `days`.
fn begins(days: Days, from_minute: u16) -> Vec<u16> {
    let days = (0..7).filter(|&day| days.contains(day));
    days.map(|day| u16::from(day) * DAY_MINUTES + from_minute).collect()
}

#[cfg(test)]
mod tests;
