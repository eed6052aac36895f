//! Lists, overrides and the pause of blocking, for people.

use serde_json::Value;

use super::super::table::{Side, Table};
use super::{NOTHING, count, list as items, text, time};

/// Until when something holds.
fn until(value: &Value) -> String {
    if value.is_null() {
        "until told otherwise".to_owned()
    } else {
        format!("until {}", time(value))
    }
}

/// What is to be known where nothing survives a restart.
fn unkept(told: &Value) -> &'static str {
    if told["kept"] == false {
        "not kept over a restart: filter.directory names no place for it, or it cannot be written\n"
    } else {
        ""
    }
}

/// What blocking is like, in one line; for what the API says of it in figures.
pub(super) fn blocking(told: &Value) -> String {
    let figures = format!(
        "{} of {} lists, {} rules, {} overrides",
        text(&told["lists_enabled"]),
        text(&told["lists"]),
        count(&told["rules"]),
        count(&told["overrides"])
    );
    let paused = || format!("PAUSED {}; then ", until(&told["paused_until"]));
    if told["paused"] == true { paused() + &figures } else { figures }
}

/// All lists, and what is switched by hand.
pub(in crate::cli::ctl) fn lists(told: &Value) -> String {
    let mut table = Table::new(&[
        ("list", Side::Left),
        ("state", Side::Left),
        ("action", Side::Left),
        ("rules", Side::Right),
        ("skipped", Side::Right),
        ("hits", Side::Right),
        ("as of", Side::Left),
        ("next look", Side::Left),
        ("source", Side::Left),
    ]);
    for one in items(&told["lists"]) {
        let again = &one["enabled_again_at"];
        let state = match one["enabled"] == false && !again.is_null() {
            true => format!("disabled until {}", time(again)),
            false => text(&one["state"]),
        };
        table.row(vec![
            text(&one["name"]),
            state,
            text(&one["action"]),
            count(&one["rules"]),
            count(&one["skipped"]),
            count(&one["hits"]),
            time(&one["loaded_at"]),
            time(&one["next_at"]),
            text(&one["source"]),
        ]);
    }
    let mut shown = table.to_string();
    for one in items(&told["lists"]).filter(|one| !one["error"].is_null()) {
        shown += &format!("{}: {}\n", text(&one["name"]), text(&one["error"]));
    }
    if items(&told["overrides"]).next().is_some() {
        let mut table = Table::new(&[
            ("override", Side::Left),
            ("action", Side::Left),
            ("below", Side::Left),
            ("until", Side::Left),
        ]);
        for one in items(&told["overrides"]) {
            let below = if one["subtree"] == true { "too" } else { NOTHING };
            table.row(vec![
                text(&one["name"]),
                text(&one["action"]),
                below.to_owned(),
                time(&one["expires_at"]),
            ]);
        }
        shown += &format!("\n{table}");
    }
    if told["paused"] == true {
        shown += &format!("\nBlocking is paused {}.\n", until(&told["paused_until"]));
    }
    shown
}

/// A list that was switched.
pub(in crate::cli::ctl) fn list(told: &Value) -> String {
    let name = text(&told["list"]);
    let fate = match told["enabled"] == true {
        true => "counts".to_owned(),
        false => format!("counts for nobody {}", until(&told["enabled_again_at"])),
    };
    format!("{name} {fate}\n{}", unkept(told))
}

/// A name that is overridden.
pub(in crate::cli::ctl) fn override_of(told: &Value) -> String {
    let below = if told["subtree"] == true { " and all below" } else { "" };
    let verb = if told["action"] == "allow" { "allowed" } else { "blocked" };
    let until = until(&told["expires_at"]);
    format!("{}{below}: {verb} {until}\n{}", text(&told["name"]), unkept(told))
}

/// A name that is not any more.
pub(in crate::cli::ctl) fn lifted(told: &Value) -> String {
    let name = text(&told["name"]);
    match told["removed"] == true {
        true => format!("{name}: lists decide again\n{}", unkept(told)),
        false => format!("{name}: was not overridden\n"),
    }
}

/// Blocking that was paused or resumed.
pub(in crate::cli::ctl) fn pause(told: &Value) -> String {
    match told["paused"] == true {
        true => {
            format!("blocking is paused {}\n{}", until(&told["paused_until"]), unkept(told))
        }
        false => format!("blocking goes on\n{}", unkept(told)),
    }
}
