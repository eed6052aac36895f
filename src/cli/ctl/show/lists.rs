//! Lists, overrides and the pause of blocking, for people.

use serde_json::Value;

use super::super::table::{Side, Table};
use super::{NOTHING, count, list as items, text, time};

/// Names that are told one by one although their own word was taken back.
const STILL_SHOWN: usize = 10;

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

/// What is to be known of a command: cores that are late, and whether it will survive a restart.
fn reservations(told: &Value) -> String {
    let late = match told["late"].as_u64() {
        None | Some(0) => String::new(),
        Some(late) => format!("{late} core(s) do not go by it yet: they will when they can\n"),
    };
    late + unkept(told)
}

/// One name, or how many.
fn names(told: &Value, key: &str) -> String {
    let names: Vec<String> = items(&told[key]).map(text).collect();
    match &names[..] {
        [] => text(&told["name"]),
        [name] => name.clone(),
        names => format!("{} names", names.len()),
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
    let paused = || format!("PAUSED {}; then ", until_resumed(&told["paused_until"]));
    if told["paused"] == true { paused() + &figures } else { figures }
}

/// All lists, and what is switched by hand.
pub(in crate::cli::ctl) fn lists(told: &Value) -> String {
    let mut shown = sources(told);
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
        shown += &format!("\nBlocking is paused {}.\n", until_resumed(&told["paused_until"]));
    }
    shown + unkept_overrides(told)
}

/// The lists of the config, and those that are disabled although it has them no more.
fn sources(told: &Value) -> String {
    let columns = [
        ("list", Side::Left),
        ("state", Side::Left),
        ("action", Side::Left),
        ("rules", Side::Right),
        ("bad", Side::Right),
        ("skipped", Side::Right),
        ("hits", Side::Right),
        ("as of", Side::Left),
        ("next look", Side::Left),
        ("source", Side::Left),
    ];
    let mut table = Table::new(&columns);
    let disabled = |one: &Value| match &one["enabled_again_at"] {
        Value::Null => "disabled".to_owned(),
        again => format!("disabled until {}", time(again)),
    };
    for one in items(&told["lists"]) {
        let is_disabled = one["enabled"] == false;
        table.row(vec![
            text(&one["name"]),
            if is_disabled { disabled(one) } else { text(&one["state"]) },
            text(&one["action"]),
            count(&one["rules"]),
            count(&one["bad"]),
            count(&one["skipped"]),
            count(&one["hits"]),
            time(&one["loaded_at"]),
            time(&one["next_at"]),
            text(&one["source"]),
        ]);
    }
    for one in items(&told["not_in_config"]) {
        let mut row =
            vec![text(&one["name"]), format!("{}, {}", disabled(one), text(&one["state"]))];
        row.resize(columns.len(), NOTHING.to_owned());
        table.row(row);
    }
    table.to_string()
}

/// The same of what is switched by hand, if anything is.
fn unkept_overrides(told: &Value) -> &'static str {
    let is_disabled = |list: &Value| list["enabled"] == false;
    let is_any = told["paused"] == true
        || items(&told["overrides"]).next().is_some()
        || items(&told["lists"]).chain(items(&told["not_in_config"])).any(is_disabled);
    match (is_any, unkept(told)) {
        (false, _) | (_, "") => "",
        _ => {
            "\nWhat is switched by hand is not kept over a restart: filter.directory names no place for it, or it cannot be written.\n"
        }
    }
}

/// Until when blocking is paused.
fn until_resumed(value: &Value) -> String {
    if value.is_null() {
        "for good: until `ctl resume`".to_owned()
    } else {
        format!("until {}", time(value))
    }
}

/// A list that was switched.
pub(in crate::cli::ctl) fn list(told: &Value) -> String {
    let name = text(&told["list"]);
    let fate = match told["enabled"] == true {
        true if told["in_config"] == false => {
            "is not in the config; once it is, it counts".to_owned()
        }
        true => "counts".to_owned(),
        false => format!("counts for nobody {}", until(&told["enabled_again_at"])),
    };
    format!("{name} {fate}\n{}", reservations(told))
}

/// Names that are overridden.
pub(in crate::cli::ctl) fn override_of(told: &Value) -> String {
    let below = if told["subtree"] == true { " and all below" } else { "" };
    let verb = if told["action"] == "allow" { "allowed" } else { "blocked" };
    let until = until(&told["expires_at"]);
    let local = match items(&told["local"]).next() {
        None => String::new(),
        Some(_) => format!(
            "no effect on {}: local zones, hosts files, rewrites and special names are asked before\n",
            names(told, "local")
        ),
    };
    format!("{}{below}: {verb} {until}\n{local}{}", names(told, "names"), reservations(told))
}

/// Names that are not any more.
pub(in crate::cli::ctl) fn lifted(told: &Value) -> String {
    let missing = items(&told["missing"]).count();
    let still = still(told);
    let fate = if still.is_empty() { "lists decide again" } else { "lifted" };
    let lifted = match told["removed"] == true {
        true if missing == 0 => format!("{}: {fate}\n", names(told, "names")),
        true => {
            let count = items(&told["names"]).count().saturating_sub(missing);
            format!("{count} names: {fate}; {missing} were not overridden\n")
        }
        false => return format!("{}: was not overridden\n{still}", names(told, "names")),
    };
    lifted + &still + &reservations(told)
}

/// Names for which lists do not decide, because of what is said of a name above them.
fn still(told: &Value) -> String {
    let mut shown = String::new();
    for one in items(&told["still"]).take(STILL_SHOWN) {
        let verb = if one["action"] == "allow" { "allowed" } else { "blocked" };
        shown += &format!(
            "{} is still {verb}, by {} and all below\n",
            text(&one["name"]),
            text(&one["by"])
        );
    }
    match items(&told["still"]).count().saturating_sub(STILL_SHOWN) {
        0 => shown,
        more => shown + &format!("and so are {more} more\n"),
    }
}

/// Blocking that was paused or resumed.
pub(in crate::cli::ctl) fn pause(told: &Value) -> String {
    match told["paused"] == true {
        true => {
            let until = until_resumed(&told["paused_until"]);
            format!("blocking is paused {until}\n{}", reservations(told))
        }
        false => format!("blocking goes on\n{}", reservations(told)),
    }
}
