//! Schedules in force: local time by the system's time zone, and a policy whose groups have the lists that count now. Reads no
//! clock: the time is handed in.

use std::sync::{Arc, Weak};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::{Group, List};
use crate::policy::filter::Lists;
use crate::policy::schedule::{LocalMinute, Schedule};
use crate::policy::{Policy, Published};
use crate::time::CacheTime;

/// What the clock on the wall shows at a time: where `TZ` or else `/etc/localtime` says, in UTC where neither does. A change
/// of them is noticed within minutes.
#[must_use]
pub fn local_minute(at: CacheTime) -> LocalMinute {
    minute_in(&TimeZone::system(), at)
}

/// What the time zone is called, for people.
#[must_use]
pub fn zone_name() -> String {
    let zone = TimeZone::system();
    match zone.iana_name() {
        Some(name) if !zone.is_unknown() => name.to_owned(),
        None => "a time zone without a name".to_owned(),
        Some(_) => "UTC, as the system has no time zone".to_owned(),
    }
}

/// A warning when the time zone is not known, and a schedule asks for it.
#[must_use]
pub fn warning(groups: &[Group]) -> Option<String> {
    if groups.iter().all(|group| group.periods.is_empty()) {
        return None;
    }
    let cause = TimeZone::try_system().err()?;
    Some(format!(
        "schedules of groups go by UTC: the time zone of the system is not known: {cause}"
    ))
}

/// A warning when `TZ` names no time zone that is known here: schedules, which there may be later, would go by UTC.
#[must_use]
pub fn misnamed() -> Option<String> {
    let name = std::env::var_os("TZ")?;
    let cause = TimeZone::try_system().err()?;
    Some(format!("TZ = {name:?} is no time zone that is known here: {cause}"))
}

fn minute_in(zone: &TimeZone, at: CacheTime) -> LocalMinute {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    let local = zone.to_datetime(Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX));
    let small = |number: i8| u8::try_from(number).expect("parts of a date are not negative");
    let minute = 60 * u16::from(small(local.hour())) + u16::from(small(local.minute()));
    LocalMinute::new(small(local.weekday().to_monday_zero_offset()), minute)
}

/// Which of `lists` count at a time for the `groups` of a config, by group.
#[must_use]
pub fn in_force(groups: &[Group], lists: &[List], at: CacheTime) -> Box<[Lists]> {
    Schedule::new(groups, lists).in_force(local_minute(at))
}

/// Which lists count when, for the groups and lists of the policy in force.
#[derive(Clone, Debug, Default)]
pub struct Timetable {
    /// And the policy that it was made for.
    schedule: Option<(Weak<Policy>, Schedule)>,
}

impl Timetable {
    /// The schedule of `policy`.
    fn follow(&mut self, policy: &Arc<Policy>) -> &Schedule {
        // As long as it is held weakly, no other policy gets its place.
        let own = Arc::downgrade(policy);
        let known = self.schedule.take().filter(|(known, _)| known.ptr_eq(&own));
        let (_, schedule) = self.schedule.insert(known.unwrap_or_else(|| {
            let lists = policy.filtering().map_or(&[][..], |filtering| filtering.lists());
            (own, Schedule::new(policy.groups().sections(), lists))
        }));
        schedule
    }

    /// Replaces the policy if other lists count `at` that time than it says; to be called every second or so, because nobody
    /// tells when the clock or the time zone is set. Cheap while nothing changes.
    pub fn apply(&mut self, at: CacheTime, published: &Published) {
        if self.follow(&published.current().1).has_times() {
            self.apply_at(local_minute(at), published);
        }
    }

    fn apply_at(&mut self, at: LocalMinute, published: &Published) {
        let (_, policy) = published.current();
        let schedule = self.follow(&policy);
        let wanted = schedule.in_force(at);
        let Some(filtering) = policy.filtering() else { return };
        let changed = filtering.groups().iter().zip(&wanted).filter(|(old, new)| old != new);
        let changed = changed.count();
        if changed == 0 {
            return;
        }
        published.replace(|current| {
            let filtering = current.filtering().filter(|_| std::ptr::eq(current, &*policy));
            match filtering {
                Some(filtering) => {
                    current.clone().filtered(Some(Arc::new(filtering.regrouped(wanted))))
                }
                // Other lists or groups have come into force meanwhile: the next look is for them.
                None => current.clone(),
            }
        });
        match schedule.next_change(at) {
            Some(minutes) => {
                let (hours, minutes) = (minutes / 60, minutes % 60);
                tracing::info!(
                    "other lists count for {changed} group(s), by schedule; next change in {hours} h {minutes} min"
                );
            }
            None => tracing::info!("other lists count for {changed} group(s), by schedule"),
        }
    }
}

#[cfg(test)]
mod tests;
