//! docs/CONFIGURATION.md is true: every key stands there with its default and variable, and its example loads.

use heimdall_uring::config::{Config, File, KEYS};
use heimdall_uring::node::reload::fixed_keys;

const DOC: &str = include_str!("../docs/CONFIGURATION.md");

#[test]
fn every_key_is_documented_with_default_expectation_and_variable() {
    for key in KEYS {
        let section = DOC.split("\n## ").find(|part| part.starts_with(&format!("[{}]", key.table)));
        let section = section.unwrap_or_else(|| panic!("no section for [{}]", key.table));
        let row = section.lines().find(|line| line.starts_with(&format!("| `{}` |", key.name)));
        let row = row.unwrap_or_else(|| panic!("no row for {key:?}"));
        for part in [key.default, key.expected, &key.variable()] {
            assert!(row.contains(part), "{key:?}: the row lacks {part}: {row}");
        }
    }
}

#[test]
fn keys_that_need_a_restart_are_marked_and_listed_and_no_others() {
    const OPERATIONS: &str = include_str!("../docs/OPERATIONS.md");
    let section = OPERATIONS.split("\n## ").find(|part| part.starts_with("Reload\n")).unwrap();
    for key in KEYS {
        let name = format!("{}.{}", key.table, key.name);
        let is_fixed = fixed_keys().any(|fixed| fixed == name);
        let row = DOC.lines().find(|line| line.ends_with(&format!("| `{}` |", key.variable())));
        assert_eq!(row.unwrap().contains(" † |"), is_fixed, "{name}");
        let is_listed =
            section.contains(&format!("`{name}`,")) || section.contains(&format!("`{name}`."));
        assert_eq!(is_listed, is_fixed, "{name}");
    }
}

#[test]
fn no_row_documents_what_does_not_exist() {
    let rows = DOC.lines().filter(|line| line.starts_with("| `") && line.contains("HEIMDALL_"));
    assert_eq!(rows.count(), KEYS.len());
}

#[test]
fn example_of_the_document_loads() {
    let section = DOC.split("\n## Example\n").nth(1).unwrap();
    let example = section.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let example = example.unwrap();
    let config = Config::load(Some(File { name: "example", text: example }), [], &[]).unwrap();
    assert_eq!(config.forward.root.upstreams.len(), 2);
    heimdall_uring::policy::LocalData::new(&config.local).unwrap();
}

#[test]
fn quickstart_serves_where_ipv6_is_off() {
    let text = include_str!("../deploy/quickstart.toml");
    let config = Config::load(Some(File { name: "quickstart", text }), [], &[]).unwrap();
    assert_eq!(config.node.listen, ["127.0.0.1:5353".parse().unwrap()]);
}
