//! The form of a line: text for people or JSON for programs, with a time or, for the journal, with a priority. Whatever stands
//! in a message, a line is one line.

use std::fmt::{Debug, Display, Write as _};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::config::LogFormat;

/// What is to be told.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) level: Level,
    /// The room that tells it.
    pub(super) target: &'static str,
    pub(super) message: String,
    pub(super) fields: Map<String, Value>,
}

impl Record {
    /// What `event` says.
    pub(super) fn of(event: &Event<'_>) -> Self {
        let meta = event.metadata();
        let mut record = Self::new(*meta.level(), meta.target(), String::new());
        event.record(&mut record);
        record
    }

    pub(super) fn new(level: Level, target: &'static str, message: String) -> Self {
        Self { level, target, message, fields: Map::new() }
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields.insert(field.name().to_owned(), format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.fields.insert(field.name().to_owned(), value.into());
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
}

/// Where lines go, and so what has to stand in them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Form {
    pub(super) format: LogFormat,
    pub(super) is_coloured: bool,
    /// The journal keeps the time itself, and takes the level from a prefix (sd-daemon(3)).
    pub(super) is_for_journal: bool,
}

impl Form {
    /// `record` as a line with its end, told at `time` (RFC 3339).
    pub(super) fn line(self, record: &Record, time: &str) -> String {
        let mut line = String::new();
        if self.is_for_journal {
            line = format!("<{}>", priority(record.level));
        }
        match self.format {
            LogFormat::Json => line += &json(record, time),
            LogFormat::Text => self.write_text(record, time, &mut line),
        }
        line.push('\n');
        line
    }

    fn write_text(self, record: &Record, time: &str, line: &mut String) {
        let Record { level, message, fields, .. } = record;
        let mut put = |text: &dyn Display| {
            // Strings take whatever is written.
            let _ = write!(line, "{text}");
        };
        if !self.is_for_journal {
            if self.is_coloured {
                put(&format_args!("\x1b[2m{time}\x1b[0m {}{level:>5}\x1b[0m ", colour(*level)));
            } else {
                put(&format_args!("{time} {level:>5} "));
            }
        }
        put(&tamed(message));
        for (name, value) in fields {
            match value {
                Value::String(text) => put(&format_args!(" {name}={}", tamed(text))),
                value => put(&format_args!(" {name}={value}")),
            }
        }
    }
}

/// The time in UTC, as RFC 3339 has it.
pub(super) fn time() -> String {
    let mut text = String::new();
    // A string takes it.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

fn json(record: &Record, time: &str) -> String {
    let Record { level, target, message, fields } = record;
    let mut all = Map::new();
    all.insert("time".to_owned(), time.into());
    all.insert("level".to_owned(), level.as_str().to_lowercase().into());
    all.insert("target".to_owned(), (*target).into());
    all.insert("message".to_owned(), message.as_str().into());
    if !fields.is_empty() {
        all.insert("fields".to_owned(), Value::Object(fields.clone()));
    }
    let mut line = String::new();
    for letter in Value::Object(all).to_string().chars() {
        // Some readers take these for the end of a line; outside of texts there are none.
        if matches!(letter, '\u{7F}'..='\u{9F}' | '\u{2028}' | '\u{2029}') {
            let _ = write!(line, "\\u{:04x}", u32::from(letter));
        } else {
            line.push(letter);
        }
    }
    line
}

/// `text` without what would end a line or command a terminal.
fn tamed(text: &str) -> String {
    let is_wild = |letter: char| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}');
    let mut tame = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_wild(letter) {
            tame.extend(letter.escape_default());
        } else {
            tame.push(letter);
        }
    }
    tame
}

/// The level as syslog has it.
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

const fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG | Level::TRACE => "\x1b[34m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-21T00:00:00.000000Z";

    const HOSTILE: &str =
        "a\nb\r\u{1b}[2J\"\\\u{0}\u{85}\u{9b}\u{2028}\u{2029}{\"level\":\"error\"}";

    fn form(format: LogFormat, is_for_journal: bool) -> Form {
        Form { format, is_coloured: false, is_for_journal }
    }

    fn record() -> Record {
        let mut record = Record::new(Level::WARN, "room", HOSTILE.to_owned());
        record.fields.insert("name".to_owned(), HOSTILE.into());
        record.fields.insert("count".to_owned(), 7.into());
        record
    }

    #[test]
    fn json_is_one_line_that_reads_back_whatever_stands_in_it() {
        for is_for_journal in [false, true] {
            let line = form(LogFormat::Json, is_for_journal).line(&record(), TIME);
            let rest = if is_for_journal { line.strip_prefix("<4>").unwrap() } else { &line };
            let rest = rest.strip_suffix('\n').unwrap();
            assert!(!rest.chars().any(|letter| letter.is_control() || letter == '\u{2028}'));
            let read: Value = serde_json::from_str(rest).unwrap();
            assert_eq!(
                read,
                serde_json::json!({
                    "time": TIME, "level": "warn", "target": "room", "message": HOSTILE,
                    "fields": { "name": HOSTILE, "count": 7 },
                })
            );
        }
    }

    #[test]
    fn text_is_one_line_without_commands_to_the_terminal() {
        let line = form(LogFormat::Text, false).line(&record(), TIME);
        let start = format!("{TIME}  WARN a\\nb\\r\\u{{1b}}[2J\"");
        assert!(line.starts_with(&start), "{line}");
        assert!(line.ends_with(" count=7\n"), "{line}");
        assert_eq!(line.chars().filter(|letter| letter.is_control()).count(), 1);
        let journal = form(LogFormat::Text, true).line(&record(), TIME);
        assert!(journal.starts_with("<4>a\\nb"), "{journal}");
        let coloured = Form { is_coloured: true, ..form(LogFormat::Text, false) };
        assert!(coloured.line(&record(), TIME).contains("\x1b[33m WARN\x1b[0m a"));
    }

    #[test]
    fn time_is_of_rfc_3339() {
        let time = time();
        assert!(time.ends_with('Z') && time.get(4..5) == Some("-"), "{time}");
        time.parse::<jiff::Timestamp>().unwrap();
    }
}
