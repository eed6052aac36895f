//! `[[group]]` tables: which clients a group has, and what holds for them.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Source, find, misshapen, nearest, plain, shortened, unknown};
use crate::config::group::DAY_NAMES;
use crate::config::{
    Config, ConfigError, Days, GROUPS_MAX, Group, Period, Value, upstream, value as read,
};

/// Keys of a `[[group]]` table.
const KEYS: [&str; 9] = [
    "name",
    "clients",
    "listeners",
    "lists",
    "schedule",
    "upstreams",
    "policy",
    "attempt_timeout",
    "log",
];

/// Those of them that are read as `[forward]` reads them.
const FORWARD_KEYS: [&str; 3] = ["upstreams", "policy", "attempt_timeout"];

/// Keys of a `[[group.schedule]]` table.
const SCHEDULE_KEYS: [&str; 3] = ["lists", "days", "hours"];

/// Longest name, in characters: it stands in logs and counters.
const NAME_CHARS_MAX: usize = 64;

/// What the keys take.
const NAME: &str = "a text of 1 to 64 characters such as \"kids\"";
const CLIENTS: &str = "prefixes such as [\"192.0.2.0/24\", \"2001:db8::1\"], each once, without bits behind the prefix";
const LISTENERS: &str = "addresses of node.listen with their ports, each once, such as [\"127.0.0.1:53\", \"[::1]:53\"]";
const LIST_NAMES: &str = "names of [[list]] tables, each once, such as [\"ads\", \"games\"]";
const LOG: &str = "true or false";
const SCHEDULE: &str = "[[group.schedule]] tables";
const DAYS: &str = "\"all\", a day, a range of days such as \"mon-fri\", or a list of them such as [\"mon\", \"sat-sun\"], each day once";
const HOURS: &str = "two times of day from 00:00 to 24:00, not the same, such as \"08:00-18:00\" or, into the next day, \"21:30-07:00\"";

const DAY_MINUTES: u16 = 24 * 60;

impl Config {
    /// Reads one `[[group]]` table.
    pub(super) fn read_group(
        &mut self,
        file: &Source<'_>,
        table: &Spanned<DeValue<'_>>,
    ) -> Result<(), ConfigError> {
        let place = file.place(table.span().start);
        let DeValue::Table(keys) = table.get_ref() else {
            return Err(misshapen(&place, "group"));
        };
        let group = Reader { file, table: "group" }.group(keys, place)?;
        if self.groups.iter().any(|known| known.name == group.name) {
            let Group { name, place, .. } = group;
            return Err(ConfigError::Conflict(format!(
                "{place}: group.name: {name:?} stands twice"
            )));
        }
        self.groups.push(group);
        Ok(())
    }
}

/// What no group can see alone; for when everything is loaded.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let others: Vec<&Group> = config.groups.iter().filter(|group| !group.is_default()).collect();
    if let Some(Group { place, .. }) = others.get(GROUPS_MAX) {
        let problem =
            format!("{place}: more than {GROUPS_MAX} [[group]] tables beside \"default\"");
        return Err(ConfigError::Conflict(problem));
    }
    for group in &config.groups {
        check_members(group)?;
        check_patience(config, group)?;
        check_names(config, group)?;
    }
    for (number, group) in others.iter().enumerate() {
        if let Some(problem) = others[..number].iter().find_map(|first| clash(first, group)) {
            return Err(ConfigError::Conflict(format!("{}: {problem}", group.place)));
        }
    }
    Ok(())
}

/// Whether it is clear who is in `group`.
fn check_members(group: &Group) -> Result<(), ConfigError> {
    let Group { name, clients, listeners, forward, place, .. } = group;
    let problem = if !group.is_default() {
        let has_nobody = clients.is_empty() && listeners.is_empty();
        has_nobody.then_some("needs clients or listeners: nobody would be in it")
    } else if !clients.is_empty() || !listeners.is_empty() {
        Some("takes neither clients nor listeners: it holds for all who are in no other group")
    } else if forward.is_some() {
        Some("takes no upstreams: those of [forward] hold for all who are in no other group")
    } else {
        None
    };
    problem.map_or(Ok(()), |problem| {
        Err(ConfigError::Conflict(format!("{place}: group {name:?} {problem}")))
    })
}

/// Whether the upstreams of `group` may take as long as they are granted.
fn check_patience(config: &Config, group: &Group) -> Result<(), ConfigError> {
    let Group { name, place, forward, .. } = group;
    let (own, all) = (forward.as_ref().map(|own| own.attempt_timeout), config.forward.deadline);
    match own {
        Some(own) if own > all => Err(ConfigError::Conflict(format!(
            "{place}: group.attempt_timeout = {own:?} of group {name:?} is above forward.deadline = {all:?}"
        ))),
        _ => Ok(()),
    }
}

/// Whether there are the listeners and lists that `group` names.
fn check_names(config: &Config, group: &Group) -> Result<(), ConfigError> {
    let missing = |what, name: String, known: Vec<String>| {
        let suggestion = nearest(&name, known.iter().map(String::as_str))
            .map(|near| format!(" (did you mean \"{near}\"?)"));
        let allowed = if known.is_empty() {
            "none, there is no [[list]]".to_owned()
        } else {
            known.join(", ")
        };
        let suggestion = suggestion.unwrap_or_default();
        Err(ConfigError::Unknown { place: group.place.clone(), what, name, suggestion, allowed })
    };
    let listen = &config.node.listen;
    if let Some(stray) = group.listeners.iter().find(|&listener| !listen.contains(listener)) {
        let known = listen.iter().map(ToString::to_string).collect();
        return missing(
            "listener of a group (node.listen has none such)",
            stray.to_string(),
            known,
        );
    }
    let scheduled = group.periods.iter().flat_map(|period| &period.lists);
    let is_known = |name: &str| config.lists.iter().any(|list| list.name == name);
    match group.lists.iter().flatten().chain(scheduled).find(|name| !is_known(name)) {
        Some(stray) => {
            let known = config.lists.iter().map(|list| list.name.clone()).collect();
            missing("list of a group", stray.clone(), known)
        }
        None => Ok(()),
    }
}

/// What nobody could tell two groups apart by: the same prefix, or none, at the same listeners.
fn clash(first: &Group, second: &Group) -> Option<String> {
    let listeners = |group: &Group| group.listeners.iter().copied().collect::<BTreeSet<_>>();
    if listeners(first) != listeners(second) {
        return None;
    }
    let (name, other) = (&second.name, &first.name);
    if first.clients.is_empty() && second.clients.is_empty() {
        return Some(format!(
            "group {name:?} has the same listeners as group {other:?}, and neither has clients"
        ));
    }
    let prefix = second.clients.iter().find(|prefix| first.clients.contains(prefix))?;
    Some(format!(
        "group.clients: {prefix} of group {name:?} stands in group {other:?} with the same listeners, too"
    ))
}

/// Reads tables of one kind.
#[derive(Clone, Copy)]
struct Reader<'a> {
    file: &'a Source<'a>,
    /// What its keys are called by in errors.
    table: &'static str,
}

impl Reader<'_> {
    fn group(self, keys: &DeTable<'_>, place: String) -> Result<Group, ConfigError> {
        let mut group = Group { log: true, place, ..Group::default() };
        // The keys that a group shares with `[forward]` are read as that table's, into a config of its own.
        let mut scratch = Config::default();
        let mut stray = None;
        for (name, value) in keys {
            let word = self.word(name, &KEYS)?;
            match word {
                "name" => group.name = self.take(word, value, NAME, group_name)?,
                "clients" => group.clients = self.list(word, value, CLIENTS, read::prefix)?,
                "listeners" => {
                    group.listeners = self.list(word, value, LISTENERS, read::listener)?;
                }
                "lists" => group.lists = Some(self.lists(word, value)?),
                "schedule" => group.periods = self.schedule(value)?,
                "log" => group.log = self.take(word, value, LOG, Value::switch)?,
                _ => {
                    self.forward(word, value, &mut scratch)?;
                    stray = stray.or_else(|| Some((word, value.span().start)));
                }
            }
        }
        if group.name.is_empty() {
            let (place, key) = (group.place, "group.name".into());
            return Err(ConfigError::Value { place, key, value: "\"\"".into(), expected: NAME });
        }
        let zone = scratch.forward.root;
        match stray {
            Some((word, at)) if zone.upstreams.is_empty() => {
                let place = self.file.place(at);
                let problem = format!("group.{word} is for a group with upstreams of its own");
                return Err(ConfigError::Conflict(format!("{place}: {problem}")));
            }
            Some(_) => group.forward = Some(zone),
            None => {}
        }
        Ok(group)
    }

    fn schedule(self, tables: &Spanned<DeValue<'_>>) -> Result<Vec<Period>, ConfigError> {
        let fail = |value| Err(self.refused("schedule", value, None, SCHEDULE));
        let DeValue::Array(items) = tables.get_ref() else { return fail(tables) };
        let reader = Self { table: "group.schedule", ..self };
        let mut periods = Vec::with_capacity(items.len());
        for item in items {
            let DeValue::Table(keys) = item.get_ref() else { return fail(item) };
            periods.push(reader.period(keys, self.file.place(item.span().start))?);
        }
        Ok(periods)
    }

    fn period(self, keys: &DeTable<'_>, place: String) -> Result<Period, ConfigError> {
        let mut period =
            Period { lists: Vec::new(), days: Days::ALL, from_minute: 0, to_minute: 0 };
        for (name, value) in keys {
            let word = self.word(name, &SCHEDULE_KEYS)?;
            match word {
                "lists" => period.lists = self.lists(word, value)?,
                "days" => period.days = self.take(word, value, DAYS, days)?,
                _ => {
                    let hours = self.take(word, value, HOURS, |value| hours(value.text()?))?;
                    (period.from_minute, period.to_minute) = hours;
                }
            }
        }
        let problem = match (period.lists.is_empty(), keys.len()) {
            (true, _) => "needs lists",
            (false, 1) => "needs days or hours: what always counts stands in group.lists",
            (false, _) => return Ok(period),
        };
        Err(ConfigError::Conflict(format!("{place}: a [[group.schedule]] table {problem}")))
    }

    /// The key that `name` is, if it is one of `known`.
    fn word<'w>(
        self,
        name: &Spanned<impl AsRef<str>>,
        known: &[&'w str],
    ) -> Result<&'w str, ConfigError> {
        let written = name.get_ref().as_ref();
        known.iter().copied().find(|key| *key == written).ok_or_else(|| {
            let names: Vec<String> = known.iter().map(|&key| key.to_owned()).collect();
            let place = self.file.place(name.span().start);
            unknown(place, "key", &format!("{}.{written}", self.table), &names)
        })
    }

    /// One value.
    fn take<T>(
        self,
        word: &str,
        value: &Spanned<DeValue<'_>>,
        expected: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let taken = read(&plain(value, self.file));
        taken.ok_or_else(|| self.refused(word, value, None, expected))
    }

    /// A list of at least one item; a mistake names the one item.
    fn list<T: Ord>(
        self,
        word: &str,
        value: &Spanned<DeValue<'_>>,
        expected: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        let written = plain(value, self.file);
        written
            .list(&read)
            .ok_or_else(|| self.refused(word, value, fault(&written, read), expected))
    }

    /// Names of lists; there may be none.
    fn lists(self, word: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, ConfigError> {
        match plain(value, self.file) {
            Value::List(items) if items.is_empty() => Ok(Vec::new()),
            _ => self.list(word, value, LIST_NAMES, |name| Some(name.to_owned())),
        }
    }

    /// A key that `[forward]` has, too.
    fn forward(
        self,
        word: &str,
        value: &Spanned<DeValue<'_>>,
        scratch: &mut Config,
    ) -> Result<(), ConfigError> {
        debug_assert!(FORWARD_KEYS.contains(&word));
        let key = find("forward", word).expect("the keys of groups are among those of [forward]");
        let here = || self.file.place(value.span().start);
        scratch.set(key, &plain(value, self.file), here).map_err(|error| match error {
            ConfigError::Value { place, value, expected, .. } => {
                ConfigError::Value { place, key: format!("group.{word}"), value, expected }
            }
            other => other,
        })
    }

    /// The error for a value that its key does not take; `fault` names the part that is wrong.
    fn refused(
        self,
        word: &str,
        value: &Spanned<DeValue<'_>>,
        fault: Option<String>,
        expected: &'static str,
    ) -> ConfigError {
        ConfigError::Value {
            place: self.file.place(value.span().start),
            key: format!("{}.{word}", self.table),
            value: fault.unwrap_or_else(|| shortened(&plain(value, self.file).to_string())),
            expected,
        }
    }
}

/// The first item of a list that `read` does not take, or that stands twice.
fn fault<T: Ord>(value: &Value, read: impl Fn(&str) -> Option<T>) -> Option<String> {
    let items = value.items()?;
    let mut seen = BTreeSet::new();
    let (number, item) = items
        .iter()
        .enumerate()
        .find(|(_, item)| !read(item).is_some_and(|taken| seen.insert(taken)))?;
    let why = if read(item).is_some() {
        ": it stands twice".to_owned()
    } else {
        upstream::flaw_of(item).map(|flaw| format!(": {flaw}")).unwrap_or_default()
    };
    Some(format!("{} (entry {}{why})", shortened(&format!("{item:?}")), number + 1))
}

fn group_name(value: &Value) -> Option<String> {
    let name = value.text()?;
    let is_fit = (1..=NAME_CHARS_MAX).contains(&name.chars().count())
        && name.trim() == name
        && !name.contains(char::is_control);
    is_fit.then(|| name.to_owned())
}

/// `all`, `mon`, `mon-fri`, or a list of the latter two, no day twice.
fn days(value: &Value) -> Option<Days> {
    if value.text() == Some("all") {
        return Some(Days::ALL);
    }
    let day = |name: &str| DAY_NAMES.iter().position(|known| *known == name);
    let mut set = 0;
    for item in value.items()? {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (mut at, last) = (day(first)?, day(last)?);
        loop {
            if set >> at & 1 != 0 {
                return None;
            }
            set |= 1 << at;
            if at == last {
                break;
            }
            at = (at + 1) % DAY_NAMES.len();
        }
    }
    (set != 0).then_some(Days(set))
}

/// `08:00-18:00`, in minutes after midnight; an end at or before the beginning is on the next day, and 24:00 is the
/// beginning of that.
fn hours(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute_of_day(from.trim())?, minute_of_day(to.trim())?);
    (from < DAY_MINUTES && from != to).then_some((from, to % DAY_MINUTES))
}

fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str, most: usize| {
        let is_plain =
            (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        is_plain.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = (number(hour, 2)?, number(minute, 2).filter(|_| minute.len() == 2)?);
    let sum = 60 * hour + minute;
    (minute < 60 && sum <= DAY_MINUTES).then_some(sum)
}

#[cfg(test)]
mod tests;
