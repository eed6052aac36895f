//! What the API says, for people.

pub(super) mod lists;
pub(in crate::cli) mod queries;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::table::{Side, Table, age, bytes, grouped, seconds};

/// What stands where nothing is known.
pub(super) const NOTHING: &str = "-";

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// `text` without what would end a line or command a terminal: some of what a node tells it was told by others.
pub(super) fn tamed(text: &str) -> String {
    let is_wild = |letter: &char| {
        letter.is_control()
            || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    let mut tame = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_wild(&letter) {
            tame.extend(letter.escape_default());
        } else {
            tame.push(letter);
        }
    }
    tame
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) => tamed(text),
        other => other.to_string(),
    }
}

fn count(value: &Value) -> String {
    value.as_u64().map_or_else(|| NOTHING.to_owned(), grouped)
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| NOTHING.to_owned(), |share| format!("{:.1} %", 100.0 * share))
}

/// A time in seconds since 1970, as the clock on the wall shows it.
fn time(value: &Value) -> String {
    let stamp = value.as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok());
    stamp.map_or_else(|| NOTHING.to_owned(), |stamp| local(stamp, 0))
}

/// As [`time`], of milliseconds, to the millisecond.
fn time_of_millis(value: &Value) -> String {
    let stamp = value.as_i64().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    stamp.map_or_else(|| NOTHING.to_owned(), |stamp| local(stamp, 3))
}

fn local(stamp: Timestamp, digits: usize) -> String {
    let local = TimeZone::system().to_datetime(stamp);
    format!("{} {:.digits$}", local.date(), local.time())
}

/// Bytes, as [`bytes`] writes them.
fn size(value: &Value) -> String {
    value.as_u64().map_or_else(|| NOTHING.to_owned(), bytes)
}

/// Lines with a head each.
fn lines(lines: &[(&str, String)]) -> String {
    let wide = lines.iter().map(|(head, _)| head.chars().count()).max().unwrap_or_default() + 2;
    lines.iter().map(|(head, text)| format!("{:<wide$}{text}\n", format!("{head}:"))).collect()
}

/// What a reload has come to.
pub(super) fn reload(told: &Value) -> String {
    let applied: Vec<String> = list(&told["applied"]).map(text).collect();
    let applied =
        if applied.is_empty() { "nothing differs".to_owned() } else { applied.join(", ") };
    let later = list(&told["needs_restart"]).map(|later| {
        let [key, wanted, in_force] = ["key", "wanted", "in_force"].map(|part| text(&later[part]));
        ("at restart", format!("{key} = {wanted}; {in_force} stays until then"))
    });
    let warnings = list(&told["warnings"]).map(|warning| ("warning", text(warning)));
    let all: Vec<_> = std::iter::once(("applied", applied)).chain(later).chain(warnings).collect();
    lines(&all)
}

/// How datagrams find their cores.
fn steering(told: &Value) -> String {
    let why = told["why"].as_str().map(|why| format!(" ({why})"));
    let count = told["spread"].as_u64().filter(|&count| count > 0);
    let spread = count.map(|count| format!("; {count} hot name(s) spread over all cores"));
    text(&told["mode"]) + &why.unwrap_or_default() + &spread.unwrap_or_default()
}

/// How many upstreams there are, and are of no or little use.
fn upstream_figures(told: &Value) -> String {
    let [count, down, slow] = ["count", "down", "slow"].map(|key| told[key].as_u64());
    match (count, down, slow) {
        (Some(count), Some(0), Some(0)) => format!("{count}, none down or slow"),
        (Some(count), Some(down), Some(slow)) => format!("{count}, {down} down, {slow} slow"),
        _ => "a core does not tell".to_owned(),
    }
}

/// Which core owns a name, where cores own names.
pub(super) fn owner(told: &Value) -> Option<String> {
    let by = "datagrams for the name go";
    match (told["owner"].as_u64(), &told["spread"]) {
        (Some(core), _) => Some(format!("core {core}: {by} there (node.steering = \"qname\")")),
        (None, Value::Bool(true)) => {
            Some(format!("all cores: {by} to each of them, because it is too hot for one"))
        }
        (None, _) => None,
    }
}

/// What runs.
pub(super) fn status(told: &Value) -> String {
    let joined = |value: &Value| {
        let all: Vec<String> = list(value).map(text).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    let core = |core: &Value| {
        let node = core["numa"].as_u64().map(|node| format!(", node {node}"));
        format!("{} on CPU {}{}", core["core"], core["cpu"], node.unwrap_or_default())
    };
    let cores: Vec<String> = list(&told["cores"]).map(core).collect();
    let switches = told["optimizations"].as_object().into_iter().flatten();
    let switches: Vec<String> = switches
        .map(|(name, is_on)| format!("{name} {}", if *is_on == true { "on" } else { "off" }))
        .collect();
    lines(&[
        ("version", text(&told["version"])),
        ("up for", age(told["uptime_seconds"].as_u64().unwrap_or_default())),
        ("listens on", joined(&told["listen"])),
        ("cores", cores.join("; ")),
        ("memory", text(&told["memory"])),
        ("I/O", text(&told["io"])),
        ("steering", steering(&told["steering"])),
        ("upstreams", upstream_figures(&told["upstreams"])),
        ("does without", joined(&told["fallbacks"])),
        ("switched", switches.join(", ")),
        ("log level", text(&told["log_level"])),
        ("blocking", lists::blocking(&told["blocking"])),
    ])
}

/// What it does and has done.
pub(super) fn stats(told: &Value) -> String {
    let (recent, total) = (&told["recent"], &told["total"]);
    let spread = |value: &Value| {
        let at = |name: &str| value[name].as_f64().map_or_else(|| NOTHING.to_owned(), seconds);
        format!("{} / {} / {}", at("p50"), at("p95"), at("p99"))
    };
    let imbalance = recent["imbalance"].as_f64().map(|times| format!("{times:.2}"));
    let responses = told["responses"].as_object().into_iter().flatten();
    let responses: Vec<String> = responses
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(rcode, number)| format!("{rcode} {}", count(number)))
        .collect();
    let now = recent["seconds"].as_f64().unwrap_or_default();
    let mut text = format!("Last {now:.0} s\n");
    text += &lines(&[
        ("queries per second", text_of_rate(&recent["queries_per_second"])),
        ("hit rate", percent(&recent["hit_rate"])),
        ("hits within (50/95/99 %)", spread(&recent["hit_seconds"])),
        ("misses within (50/95/99 %)", spread(&recent["miss_seconds"])),
        ("busiest core by the mean", imbalance.unwrap_or_else(|| NOTHING.to_owned())),
        ("dropped by the kernel", count(&recent["kernel_drops"])),
    ]);
    text += "\nSince the start\n";
    text += &lines(&[
        ("queries", count(&total["queries"])),
        ("hits, misses", format!("{}, {}", count(&total["hits"]), count(&total["misses"]))),
        ("hit rate", percent(&total["hit_rate"])),
        ("blocked", count(&total["blocked"])),
        ("stale, local", format!("{}, {}", count(&total["stale"]), count(&total["local"]))),
        ("not answered", count(&total["failures"])),
        ("replies", if responses.is_empty() { NOTHING.to_owned() } else { responses.join(", ") }),
        ("cache", format!("{} entries, {}", count(&total["entries"]), size(&total["bytes"]))),
        ("evicted", count(&total["evictions"])),
        ("in flight", count(&total["in_flight"])),
        ("dropped by the kernel", count(&total["kernel_drops"])),
    ]);
    text + "\n" + &cores(told)
}

fn text_of_rate(rate: &Value) -> String {
    rate.as_f64().map_or_else(|| NOTHING.to_owned(), |rate| format!("{rate:.1}"))
}

/// The figures of each core.
fn cores(told: &Value) -> String {
    let mut table = Table::new(&[
        ("core", Side::Right),
        ("q/s", Side::Right),
        ("queries", Side::Right),
        ("hit rate", Side::Right),
        ("entries", Side::Right),
        ("cache", Side::Right),
        ("in flight", Side::Right),
        ("kernel drops", Side::Right),
    ]);
    for (core, rate) in list(&told["cores"]).zip(list(&told["recent"]["cores"])) {
        table.row(vec![
            text(&core["core"]),
            text_of_rate(rate),
            count(&core["queries"]),
            percent(&core["hit_rate"]),
            count(&core["entries"]),
            size(&core["bytes"]),
            count(&core["in_flight"]),
            count(&core["kernel_drops"]),
        ]);
    }
    table.to_string()
}

/// What each core knows of each upstream.
pub(super) fn upstreams(told: &Value) -> String {
    let mut table = Table::new(&[
        ("upstream", Side::Left),
        ("core", Side::Right),
        ("state", Side::Left),
        ("usual time", Side::Right),
        ("in flight", Side::Right),
    ]);
    for upstream in list(&told["upstreams"]) {
        for core in list(&upstream["cores"]) {
            let rest = core["rest_seconds"].as_f64().unwrap_or_default();
            let state = match core["rests_for"].as_str() {
                Some(reason) => format!("asked last, for {reason}, {rest:.0} s more"),
                None if core["in_clear"] == true => "well, but in clear: no TLS".to_owned(),
                None if core["rtt_ms"].is_null() => "not asked yet".to_owned(),
                None => "well".to_owned(),
            };
            let usual = core["rtt_ms"].as_f64().map(|ms| seconds(ms / 1_000.0));
            table.row(vec![
                text(&upstream["upstream"]),
                text(&core["core"]),
                state,
                usual.unwrap_or_else(|| NOTHING.to_owned()),
                count(&core["in_flight"]),
            ]);
        }
    }
    table.to_string()
}

/// What each cache would answer.
pub(super) fn lookup(told: &Value) -> String {
    let mut table = Table::new(&[
        ("core", Side::Right),
        ("view", Side::Right),
        ("would answer", Side::Left),
        ("entry", Side::Left),
        ("RCODE", Side::Left),
        ("TTL", Side::Right),
        ("segment", Side::Left),
        ("asked", Side::Right),
        ("bytes", Side::Right),
    ]);
    for core in list(&told["cores"]) {
        let entry = &core["entry"];
        let outcome = match core["outcome"].as_str().unwrap_or_default() {
            "fresh" => "yes".to_owned(),
            "denied" => "yes: the name does not exist".to_owned(),
            "stale" => "if no upstream does: it is stale".to_owned(),
            "useless" => format!("no: it is {}", text(&entry["state"])),
            _ => "no: nothing is known".to_owned(),
        };
        let of = if entry.is_null() {
            NOTHING.to_owned()
        } else {
            let rtype = entry["type"].as_str().unwrap_or("all types");
            format!("{} {rtype}", text(&entry["name"]))
        };
        table.row(vec![
            text(&core["core"]),
            text(&core["view"]),
            outcome,
            of,
            text(&entry["rcode"]),
            text(&entry["ttl"]),
            text(&entry["segment"]),
            text(&entry["accesses"]),
            text(&entry["bytes"]),
        ]);
    }
    let owner = owner(told).map(|owner| format!("Owner: {owner}.\n")).unwrap_or_default();
    format!(
        "{table}{owner}What the caches hold; local data, lists and overrides are asked before them.\n"
    )
}

/// The config in force, as a file; line by line, so that none of it commands the terminal.
pub(super) fn config(told: &Value) -> String {
    let lines = told["toml"].as_str().unwrap_or_default().lines();
    lines.map(|line| tamed(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_is_said_nothing_breaks() {
        for told in
            [Value::Null, json!([]), json!({ "cores": 1 }), json!({ "cores": [null, 1, {}] })]
        {
            for show in [status, stats, upstreams, lookup, config, lists::lists] {
                show(&told);
            }
            queries::queries(std::slice::from_ref(&told));
            for show in [lists::list, lists::override_of, lists::lifted, lists::pause] {
                show(&told);
            }
        }
    }

    #[test]
    fn nothing_that_is_told_commands_the_terminal() {
        let wild = "\u{1b}]0;x\u{7}\r\nforged: line\u{9b}2J\u{202e}";
        let list = json!({ "name": wild, "source": wild, "state": wild, "error": wild });
        let told = json!({ "lists": [list], "overrides": [{ "name": wild, "action": wild }] });
        let shown = lists::lists(&told);
        let is_tame = |letter: char| !letter.is_control() && letter != '\u{202e}';
        assert!(shown.chars().all(|letter| is_tame(letter) || letter == '\n'), "{shown:?}");
        assert!(!shown.lines().any(|line| line.starts_with("forged")), "{shown}");
        assert!(shown.contains("\\u{1b}]0;x"), "{shown}");
    }

    #[test]
    fn upstreams_say_how_they_are() {
        let core = |rests: Value, rtt: Value| json!({ "core": 0, "rests_for": rests, "rest_seconds": 3.6, "rtt_ms": rtt, "in_flight": 2, "in_clear": false });
        let cores = [
            core(json!("silence"), json!(12.5)),
            core(Value::Null, Value::Null),
            core(Value::Null, json!(0.25)),
        ];
        let shown =
            upstreams(&json!({ "upstreams": [{ "upstream": "192.0.2.1:53", "cores": cores }] }));
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: Vec<String> = shown.lines().skip(1).map(words).collect();
        assert_eq!(
            shown,
            [
                "192.0.2.1:53 0 asked last, for silence, 4 s more 12.5 ms 2",
                "192.0.2.1:53 0 not asked yet - 2",
                "192.0.2.1:53 0 well 250 us 2",
            ]
        );
    }
}
