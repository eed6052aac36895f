//! From text to sections: file first, then environment, then flags; each later one wins.

mod groups;
mod lists;
mod places;
mod rewrite;

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::places::Places;
use super::keys::{KEYS, Key, LISTS, SECRET};
use super::{
    Config, ConfigError, ForwardZone, Group, LocalFile, LocalZone, Value, environment, forward,
    upstream,
};

/// Largest config file that is read, in bytes: local zones may be long, but not endless.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// Time beyond the resolution's own deadline that a stream's query has to be answered.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// Most of a cache that may be on probation or hot, in percent.
const SEGMENTS_PERCENT_MAX: u8 = 90;

/// Most characters of a value that an error repeats.
const VALUE_CHARS_MAX: usize = 120;

/// Keys of a `[[forward]]` table with a zone of its own.
const ZONE_KEYS: [&str; 4] = ["zone", "upstreams", "policy", "attempt_timeout"];

/// What `zone` in such a table takes.
const ZONE_EXPECTED: &str = "a domain name below the root or a prefix such as \"corp.example\" or \"10.0.0.0/8\", or a list of them, each once";

/// Keys of a `[[local]]` table.
const LOCAL_KEYS: [&str; 3] = ["zone", "records", "file"];

/// What they take.
const ZONE_NAME: &str = "a domain name such as \"corp.example.\"";
const ZONE_RECORDS: &str = "records in zone-file syntax, in \"\"\"three quotes\"\"\"";
const ZONE_FILE: &str = "the absolute path of a zone file such as \"/etc/heimdall-uring/lab.zone\"";

/// A config file.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its name, for error messages.
    pub name: &'a str,
    /// What stands in it.
    pub text: &'a str,
}

/// A command line flag that sets a key.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag as written, for error messages.
    pub flag: &'static str,
    /// The table of the key.
    pub table: &'static str,
    /// The name of the key.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
}

impl Config {
    /// The defaults, changed by `file`, then by those of the `environment`'s variables that belong to a key, then by
    /// `flags`. Of other variables [`stray_variables`](super::stray_variables) tells.
    ///
    /// # Errors
    /// [`ConfigError`] for the first mistake; nothing is half-applied.
    pub fn load(
        file: Option<File<'_>>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let (mut config, mut places) = (Self::default(), Places::default());
        if let Some(file) = file {
            config.read_file(file, None, &mut places)?;
        }
        for (variable, text) in environment {
            if let Some(key) = environment::key_of(&variable) {
                let place = format!("environment: {variable}");
                config.set(key, &Value::Text(text), || place.clone())?;
                places.note(key, place);
            }
        }
        for Flag { flag, table, name, value } in flags {
            let key = find(table, name).expect("flags name keys of the table");
            config.set(key, value, || (*flag).to_owned())?;
            places.note(key, (*flag).to_owned());
        }
        config.forward.views = Group::views(&config.groups).into_iter().cloned().collect();
        config.check(&places)?;
        config.tcp.answer_timeout = config.forward.deadline + ANSWER_GRACE;
        Ok(config)
    }

    fn set(
        &mut self,
        key: &Key,
        value: &Value,
        place: impl FnOnce() -> String,
    ) -> Result<(), ConfigError> {
        (key.set)(self, value).ok_or_else(|| ConfigError::Value {
            place: place(),
            key: format!("{}.{}", key.table, key.name),
            value: self.fault(key, value).unwrap_or_else(|| shortened(&value.to_string())),
            expected: key.expected,
        })
    }

    /// What is wrong with a list that `key` has refused: the first item that it does not take, or has taken before.
    fn fault(&self, key: &Key, value: &Value) -> Option<String> {
        if SECRET == (key.table, key.name) && value.text().is_some() {
            return Some("(not shown)".to_owned());
        }
        let items = value.items().filter(|_| LISTS.contains(&(key.table, key.name)))?;
        let takes = |part: &[&str]| {
            let list = Value::List(part.iter().map(|&item| item.to_owned()).collect());
            (key.set)(&mut self.clone(), &list).is_some()
        };
        // The longest beginning that is taken; what is refused stays so with more items behind it.
        let lengths: Vec<usize> = (1..=items.len()).collect();
        let taken = lengths.partition_point(|&len| takes(&items[..len]));
        let item = items.get(taken)?;
        let why = if takes(&[item]) {
            ": it stands twice".to_owned()
        } else {
            upstream::flaw_of(item).map(|flaw| format!(": {flaw}")).unwrap_or_default()
        };
        Some(format!("{} (entry {}{why})", shortened(&format!("{item:?}")), taken + 1))
    }

    /// The defaults with what stands in one table of the file and in its variables, whatever mistakes the other tables hold: for
    /// whoever asks a node that runs by a config that is being edited.
    ///
    /// # Errors
    /// [`ConfigError`], of that table, or of a file that is no TOML.
    pub fn load_table(
        table: &str,
        file: Option<File<'_>>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(file) = file {
            config.read_file(file, Some(table), &mut Places::default())?;
        }
        for (variable, text) in environment {
            if let Some(key) = environment::key_of(&variable).filter(|key| key.table == table) {
                let place = || format!("environment: {variable}");
                config.set(key, &Value::Text(text), place)?;
            }
        }
        Ok(config)
    }

    /// Takes in what stands in `file`; in `only` that table, if one is named. Notes in `places` where each key stands.
    fn read_file(
        &mut self,
        file: File<'_>,
        only: Option<&str>,
        places: &mut Places,
    ) -> Result<(), ConfigError> {
        if file.text.len() > FILE_BYTES_MAX {
            return Err(ConfigError::Syntax {
                place: file.name.to_owned(),
                problem: format!("longer than {FILE_BYTES_MAX} bytes"),
            });
        }
        let file = &Source::new(file);
        let document = DeTable::parse(file.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let problem = error.message().to_owned() + &file.key_hint(at) + forward_hint(file.text);
            ConfigError::Syntax { place: file.place(at), problem }
        })?;
        for (table, content) in document.get_ref() {
            if only.is_some_and(|only| only != table.get_ref().as_ref()) {
                continue;
            }
            let place = || file.place(table.span().start);
            match (table.get_ref().as_ref(), content.get_ref()) {
                ("forward", DeValue::Array(tables)) => self.read_forward(file, tables, places)?,
                ("list", DeValue::Array(tables)) => self.read_lists(file, tables)?,
                (name @ ("local" | "rewrite" | "group"), DeValue::Array(tables)) => {
                    for table in tables {
                        match name {
                            "local" => self.read_local(file, table)?,
                            "rewrite" => self.read_rewrite(file, table)?,
                            _ => self.read_group(file, table)?,
                        }
                    }
                }
                (name @ ("list" | "group" | "local" | "rewrite"), _) => {
                    return Err(misshapen(&place(), name));
                }
                (name, DeValue::Table(keys)) if KEYS.iter().any(|key| key.table == name) => {
                    self.read_table(file, name, keys, places)?;
                }
                (name, _) if KEYS.iter().any(|key| key.table == name) => {
                    let problem = format!("{}: {name} is written as a [{name}] table", place());
                    return Err(ConfigError::Conflict(problem));
                }
                (name, content) => return Err(no_table(place(), name, content)),
            }
        }
        Ok(())
    }

    fn read_table(
        &mut self,
        file: &Source<'_>,
        table: &str,
        keys: &DeTable<'_>,
        places: &mut Places,
    ) -> Result<(), ConfigError> {
        for (name, value) in keys {
            let Some(key) = find(table, name.get_ref()) else {
                let of_table = KEYS.iter().filter(|key| key.table == table);
                let mut names: Vec<String> = of_table.map(|key| key.name.to_owned()).collect();
                if table == "forward" {
                    names.push("zone".into());
                }
                let place = file.place(name.span().start);
                let written = format!("{table}.{}", name.get_ref());
                if let Some((_, known)) = ELSEWHERE.iter().find(|(other, _)| *other == written) {
                    let problem = format!("{place}: {written} is called {known}");
                    return Err(ConfigError::Conflict(problem));
                }
                return Err(unknown(place, "key", &written, &names));
            };
            let place = || file.place(value.span().start);
            self.set(key, &plain(value, file), place)?;
            places.note(key, place());
        }
        Ok(())
    }

    /// Reads `[[forward]]` tables: those with a zone, and at most one without, which is what `[forward]` alone would be.
    fn read_forward(
        &mut self,
        file: &Source<'_>,
        tables: &[Spanned<DeValue<'_>>],
        places: &mut Places,
    ) -> Result<(), ConfigError> {
        let mut has_root = false;
        for table in tables {
            let place = || file.place(table.span().start);
            let syntax = |problem: &str| ConfigError::Conflict(format!("{}: {problem}", place()));
            let DeValue::Table(keys) = table.get_ref() else {
                return Err(syntax(
                    "forwarding is written as a [forward] table or [[forward]] tables",
                ));
            };
            if keys.contains_key("zone") {
                let zone = read_zone(file, keys)?;
                let is_known =
                    |apex| self.forward.zones.iter().any(|known| known.apexes.contains(apex));
                if let Some(apex) = zone.apexes.iter().find(|apex| is_known(apex)) {
                    return Err(syntax(&format!("forward.zone: {} stands twice", apex.as_name())));
                }
                self.forward.zones.push(zone);
                places.note_zone(place());
            } else if std::mem::replace(&mut has_root, true) {
                return Err(syntax("only one [[forward]] table may be without a zone"));
            } else {
                self.read_table(file, "forward", keys, places)?;
            }
        }
        Ok(())
    }

    /// Reads one `[[local]]` table.
    fn read_local(
        &mut self,
        file: &Source<'_>,
        zone: &Spanned<DeValue<'_>>,
    ) -> Result<(), ConfigError> {
        let place = file.place(zone.span().start);
        let DeValue::Table(keys) = zone.get_ref() else { return Err(misshapen(&place, "local")) };
        let (mut apex, mut records, mut path) = (String::new(), None, None);
        for (name, value) in keys {
            let word = name.get_ref().as_ref();
            let written = plain(value, file);
            let (is_taken, expected) = match word {
                "zone" => (written.text().map(|text| text.clone_into(&mut apex)), ZONE_NAME),
                "records" => {
                    let text = written.text().map(str::to_owned);
                    let place = text.as_ref().map(|text| file.place_of_lines(value, text));
                    records = text.zip(place);
                    (records.is_some().then_some(()), ZONE_RECORDS)
                }
                "file" => {
                    path = written.path();
                    (path.is_some().then_some(()), ZONE_FILE)
                }
                other => {
                    let place = file.place(name.span().start);
                    let names = LOCAL_KEYS.map(str::to_owned);
                    return Err(unknown(place, "key", &format!("local.{other}"), &names));
                }
            };
            if is_taken.is_none() {
                let place = file.place(value.span().start);
                let (key, value) = (format!("local.{word}"), shortened(&written.to_string()));
                return Err(ConfigError::Value { place, key, value, expected });
            }
        }
        if apex.is_empty() {
            let (key, value) = ("local.zone".into(), "\"\"".into());
            return Err(ConfigError::Value { place, key, value, expected: ZONE_NAME });
        }
        match (records, path) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::Conflict(format!(
                    "{place}: local.records and local.file: a local zone has either records or a file, not both"
                )));
            }
            (None, Some(path)) => self.local_files.push(LocalFile { zone: apex, path, place }),
            (records, None) => {
                let (records, place) = records.unwrap_or_else(|| (String::new(), place));
                self.local.push(LocalZone { zone: apex, records, place });
            }
        }
        Ok(())
    }

    /// What no key can see alone; `places` says where each was set.
    fn check(&self, places: &Places) -> Result<(), ConfigError> {
        let conflict =
            |keys: &[&str], text: String| Err(ConfigError::Conflict(places.before(keys) + &text));
        let Self { cache, forward, .. } = self;
        if cache.probation_percent + cache.hot_percent > SEGMENTS_PERCENT_MAX {
            let text = format!(
                "cache.probation = {} and cache.hot = {} are together more than {SEGMENTS_PERCENT_MAX} percent: \
                 nothing would be left for what is neither",
                cache.probation_percent, cache.hot_percent
            );
            return conflict(&["cache.probation", "cache.hot"], text);
        }
        if cache.ttl_min > cache.ttl_max {
            let text = format!(
                "cache.ttl_min = {} is above cache.ttl_max = {}",
                cache.ttl_min, cache.ttl_max
            );
            return conflict(&["cache.ttl_min", "cache.ttl_max"], text);
        }
        if let Some((keys, flaw)) = self.api.flaw() {
            return conflict(keys, flaw);
        }
        let text = |zone: &ForwardZone| {
            format!(
                "forward.attempt_timeout = {:?} is above forward.deadline = {:?}",
                zone.attempt_timeout, forward.deadline
            )
        };
        if forward.root.attempt_timeout > forward.deadline {
            return conflict(&["forward.attempt_timeout", "forward.deadline"], text(&forward.root));
        }
        let is_over = |zone: &ForwardZone| zone.attempt_timeout > forward.deadline;
        if let Some(number) = forward.zones.iter().position(is_over) {
            let text = places.before_zone(number) + &text(&forward.zones[number]);
            return Err(ConfigError::Conflict(text));
        }
        groups::check(self)?;
        self.check_lists(places)
    }
}

/// A file being read.
struct Source<'a> {
    name: &'a str,
    text: &'a str,
    /// Where each line begins; searched, because a long file asks for many places.
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    fn new(file: File<'a>) -> Self {
        let File { name, text } = file;
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { name, text, lines: std::iter::once(0).chain(ends).collect() }
    }

    /// `file:line` of an offset in the text.
    fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.name, self.lines.partition_point(|&start| start <= offset))
    }

    /// The key of the line with this offset, in brackets, if it has one: what the parser says does not name it.
    fn key_hint(&self, offset: usize) -> String {
        let line = self.lines.partition_point(|&start| start <= offset);
        let start = line.checked_sub(1).and_then(|line| self.lines.get(line)).copied();
        let text = start.and_then(|start| self.text.get(start..)).unwrap_or_default();
        let key = text.lines().next().and_then(|text| text.split_once('='));
        let is_key = |key: &&str| {
            let is_word = |octet: u8| octet.is_ascii_alphanumeric() || b"_-.".contains(&octet);
            !key.is_empty() && key.bytes().all(is_word)
        };
        let key = key.map(|(key, _)| key.trim()).filter(is_key);
        key.map(|key| format!(" (at {})", shortened(key))).unwrap_or_default()
    }

    /// Where the first line of a text value stands, as [`LocalZone::place`] wants it.
    fn place_of_lines(&self, value: &Spanned<DeValue<'_>>, text: &str) -> String {
        let start = value.span().start;
        let written = self.text.get(value.span()).unwrap_or_default();
        // A line end right behind the opening quotes is no part of the text (TOML 1.0, "String").
        let body = written.trim_start_matches(['"', '\'']).trim_start_matches('\r');
        let has_head = written.len() > 5 && body.starts_with('\n');
        let lines = written.matches('\n').count() - usize::from(has_head);
        if lines == text.matches('\n').count() {
            self.place(start + if has_head { written.len() - body.len() + 1 } else { 0 })
        } else {
            format!("{}: records", self.place(start))
        }
    }
}

/// What to do about a file that has both forms of the table, which TOML does not allow; nothing for all others.
fn forward_hint(text: &str) -> &'static str {
    let has = |header: &str| text.lines().any(|line| line.trim() == header);
    if has("[forward]") && has("[[forward]]") {
        " (beside [[forward]] tables with a zone, [forward] is written as [[forward]] without one)"
    } else {
        ""
    }
}

/// The beginning of a long value.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

fn find(table: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.table == table && key.name == name)
}

fn plain(value: &Spanned<DeValue<'_>>, file: &Source<'_>) -> Value {
    let as_written = || {
        let text = file.text.get(value.span()).unwrap_or_default();
        Value::Other(text.chars().take(60).collect())
    };
    match value.get_ref() {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| as_written(), Value::Integer),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.clone().into_owned()),
                _ => None,
            });
            texts.collect::<Option<Vec<String>>>().map_or_else(as_written, Value::List)
        }
        _ => as_written(),
    }
}

fn read_zone(file: &Source<'_>, keys: &DeTable<'_>) -> Result<ForwardZone, ConfigError> {
    // The keys that a zone shares with `[forward]` are read as that table's, into a config of its own.
    let mut scratch = Config::default();
    let mut apexes = None;
    for (name, value) in keys {
        let here = || file.place(value.span().start);
        let word = name.get_ref().as_ref();
        if !ZONE_KEYS.contains(&word) {
            let names = ZONE_KEYS.map(str::to_owned);
            let place = file.place(name.span().start);
            return Err(unknown(place, "key of a zone", &format!("forward.{word}"), &names));
        }
        let value = plain(value, file);
        match find("forward", word) {
            Some(key) => scratch.set(key, &value, here)?,
            None => {
                let listed = value.list(forward::apexes).map(|lists| lists.concat());
                apexes = Some(listed.ok_or_else(|| ConfigError::Value {
                    place: here(),
                    key: "forward.zone".into(),
                    value: shortened(&value.to_string()),
                    expected: ZONE_EXPECTED,
                })?);
            }
        }
    }
    let zone = scratch.forward.root;
    let apexes = apexes.unwrap_or_default();
    if zone.upstreams.is_empty() {
        let place = keys.values().next().map_or(0, |value| value.span().start);
        let problem = "a [[forward]] table with a zone needs upstreams of its own";
        return Err(ConfigError::Conflict(format!("{}: {problem}", file.place(place))));
    }
    Ok(ForwardZone { apexes, ..zone })
}

/// What is said of a table that has to be one of several and is written otherwise.
fn misshapen(place: &str, table: &str) -> ConfigError {
    let what = match table {
        "list" => "lists",
        "group" => "groups of clients",
        "local" => "local zones",
        _ => "rewrites",
    };
    ConfigError::Conflict(format!("{place}: {what} are written as [[{table}]] tables"))
}

/// What is said of a table that there is not, or of a key that stands in none.
fn no_table(place: String, name: &str, content: &DeValue<'_>) -> ConfigError {
    let is_table = |item: &Spanned<DeValue<'_>>| matches!(item.get_ref(), DeValue::Table(_));
    let is_key = match content {
        DeValue::Table(_) => false,
        DeValue::Array(items) => !items.first().is_some_and(is_table),
        _ => true,
    };
    let homes: Vec<String> =
        KEYS.iter().filter(|key| key.name == name).map(|key| format!("[{}]", key.table)).collect();
    if is_key && !homes.is_empty() {
        let homes = homes.join(" or ");
        return ConfigError::Conflict(format!(
            "{place}: {name} stands in no table; it belongs to {homes}"
        ));
    }
    let mut tables: Vec<String> = KEYS.iter().map(|key| key.table.to_owned()).collect();
    tables.dedup();
    tables.extend(["local", "group", "list", "rewrite"].map(str::to_owned));
    unknown(place, "table", name, &tables)
}

/// Switches that are looked for among the optimizations, and where they are.
const ELSEWHERE: [(&str, &str); 3] = [
    ("optimizations.io", "node.io"),
    ("optimizations.nxdomain_cut", "cache.nxdomain_cut"),
    ("optimizations.prefetch", "cache.prefetch"),
];

fn unknown(place: String, what: &'static str, name: &str, allowed: &[String]) -> ConfigError {
    let last = name.rsplit('.').next().unwrap_or(name);
    let suggestion = nearest(last, allowed.iter().map(String::as_str))
        .map(|known| format!(" (did you mean \"{known}\"?)"));
    ConfigError::Unknown {
        place,
        what,
        name: name.chars().take(80).collect(),
        suggestion: suggestion.unwrap_or_default(),
        allowed: allowed.join(", "),
    }
}

/// The one of `known` that `word` may have been meant for: not more than a quarter of it differs, and one letter.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let nearest = known.min_by_key(|known| distance(word, known))?;
    (distance(word, nearest) <= 1 + word.len() / 4).then_some(nearest)
}

/// Edits between two words (Levenshtein); long words are far from everything.
fn distance(left: &str, right: &str) -> usize {
    const WORD_MAX: usize = 64;
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len() > WORD_MAX || right.len() > WORD_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, l) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, r) in right.iter().enumerate() {
            let cost = diagonal + usize::from(l != r);
            diagonal = row[at + 1];
            row[at + 1] = cost.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests;
