//! Queries that were written down, and what is seen most, for people.

use serde_json::Value;

use super::super::table::{Side, Table, grouped, seconds};
use super::{NOTHING, text, time_of_millis};

/// Queries, newest first.
pub(in crate::cli) fn queries(told: &[Value]) -> String {
    let mut table = Table::new(&[
        ("time", Side::Left),
        ("client", Side::Left),
        ("name", Side::Left),
        ("type", Side::Left),
        ("answer", Side::Left),
        ("list", Side::Left),
        ("RCODE", Side::Left),
        ("took", Side::Right),
        ("over", Side::Left),
        ("group", Side::Left),
    ]);
    for query in told {
        let took = query["latency_us"].as_f64().map(|us| seconds(us / 1e6));
        table.row(vec![
            time_of_millis(&query["time_ms"]),
            text(&query["client"]),
            text(&query["name"]),
            text(&query["type"]),
            text(&query["answer"]),
            text(&query["list"]),
            text(&query["rcode"]),
            took.unwrap_or_else(|| NOTHING.to_owned()),
            text(&query["transport"]),
            text(&query["group"]),
        ]);
    }
    table.to_string()
}

/// Three lists of what is seen most, side by side.
pub(in crate::cli::ctl) fn most(kinds: &[(&str, Vec<Value>)]) -> String {
    let head: Vec<(&str, Side)> =
        kinds.iter().flat_map(|&(of, _)| [(of, Side::Left), ("about", Side::Right)]).collect();
    let mut table = Table::new(&head);
    let rows = kinds.iter().map(|(_, top)| top.len()).max().unwrap_or_default();
    for row in 0..rows {
        let cells = kinds.iter().flat_map(|(_, top)| match top.get(row) {
            Some(one) => {
                let count = one["count"].as_u64().map_or_else(|| NOTHING.to_owned(), grouped);
                [text(&one["key"]), count]
            }
            None => [String::new(), String::new()],
        });
        table.row(cells.collect());
    }
    table.to_string()
}
