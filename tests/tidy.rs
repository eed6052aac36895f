//! The rules of the house that a program can check: who may name whom, sizes, names, hot files, the root, the documents.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file, tests included.
const FILE_LINES_MAX: usize = 700;

/// Rooms and the rooms they may name.
const MAY_NAME: [(&str, &[&str]); 14] = [
    ("time", &[]),
    ("wire", &["time"]),
    ("observe", &["wire", "time"]),
    ("config", &["wire", "time"]),
    ("cache", LEAVES),
    ("policy", LEAVES),
    ("resolve", &["wire", "time", "config", "observe", "cache"]),
    ("serve", &["wire", "time", "config", "observe", "cache", "policy", "resolve"]),
    ("sys", &[]),
    ("net", &["sys", "time", "config", "observe"]),
    ("upstream", &["wire", "time", "config", "observe", "sys", "net", "resolve"]),
    ("node", ALL),
    ("cli", ALL),
    ("main", ALL),
];

const LEAVES: &[&str] = &["wire", "time", "config", "observe"];

const ALL: &[&str] = &[
    "time", "wire", "observe", "config", "cache", "policy", "resolve", "serve", "sys", "net",
    "upstream", "node", "cli",
];

/// Crates of the edge and the rooms that may name them.
const CRATES: [(&str, &[&str]); 10] = [
    ("glommio", &["net", "upstream", "node"]),
    ("io_uring", &["sys"]),
    ("libc", &["sys"]),
    ("futures_lite", &["net", "upstream", "node"]),
    ("hwlocality", &["node"]),
    ("core_affinity", &["node"]),
    ("sd_notify", &["node"]),
    ("signal_hook", &["node"]),
    ("clap", &["cli"]),
    ("mimalloc", &["main"]),
];

/// What may lie at the root.
const ROOT: [&str; 18] = [
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "benchmarks",
    "deploy",
    "docs",
    "fuzz",
    "scripts",
    "src",
    "tests",
];

/// Words that say nothing, or tell a history.
const BANNED_FILES: [&str; 8] =
    ["utils", "util", "common", "helpers", "misc", "types", "manager", "_v2"];

const BANNED_NAMES: [&str; 8] =
    ["fn get_", "fn fast_", "fn new_", "fn old_", "_v2(", "optimized_", "Manager ", "Helper "];

/// What a hot file must not do outside its tests.
const COLD: [&str; 7] =
    ["format!(", ".clone()", "Vec::new(", "vec![", "println!", "SystemTime", "Mutex"];

/// Hot files that open, close or sleep beside their hot part, and what of the list they do there.
const EXCUSED: [(&str, &[&str]); 5] = [
    ("src/cache/slab.rs", &["vec![", "Vec::new("]),
    ("src/policy/mod.rs", &[]),
    ("src/policy/local/mod.rs", &[".clone()"]),
    ("src/node/worker.rs", &["vec!["]),
    ("src/net/udp/mod.rs", &[]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust sources below `folder`, by path from the root.
fn sources(folder: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

/// The code of a source: no comments, no tests.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_test(name: &str) -> bool {
    name.ends_with("/tests.rs")
}

fn room(name: &str) -> &str {
    let inner = name.strip_prefix("src/").unwrap();
    inner.split(['/', '.']).next().unwrap()
}

#[test]
fn rooms_name_only_the_rooms_below_them() {
    let rooms: BTreeMap<&str, &[&str]> = MAY_NAME.into_iter().collect();
    for (name, text) in sources("src").iter().filter(|(name, _)| !is_test(name)) {
        let room = room(name);
        if room == "lib" {
            continue;
        }
        let allowed = rooms.get(room).unwrap_or_else(|| panic!("{name}: room {room} is unknown"));
        let code = code(text);
        for other in ALL.iter().filter(|other| **other != room && !allowed.contains(other)) {
            let named = code.contains(&format!("crate::{other}::"))
                || code.contains(&format!("use crate::{other};"));
            assert!(!named, "{name}: {room} may not name {other}");
        }
        for (library, homes) in CRATES {
            let named = code.contains(&format!("{library}::"));
            assert!(!named || homes.contains(&room), "{name}: {room} may not name {library}");
        }
    }
}

#[test]
fn files_are_short_open_with_their_purpose_and_are_reached() {
    let sources = sources("src");
    let all: String = sources.values().map(String::as_str).collect();
    for (name, text) in &sources {
        assert!(text.starts_with("//!"), "{name}: opens without a purpose");
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{name}: {lines} lines");
        let stem = Path::new(name).file_stem().unwrap().to_str().unwrap();
        let module = match stem {
            "lib" | "main" => continue,
            "mod" => Path::new(name).parent().unwrap().file_name().unwrap().to_str().unwrap(),
            stem => stem,
        };
        assert!(all.contains(&format!("mod {module};")), "{name}: nobody declares it");
    }
}

#[test]
fn names_say_what_things_are() {
    for (name, text) in sources("src") {
        let stem = Path::new(&name).file_stem().unwrap().to_str().unwrap();
        assert!(
            !BANNED_FILES.iter().any(|word| stem.contains(word)),
            "{name}: a name without meaning"
        );
        for word in BANNED_NAMES {
            assert!(!code(&text).contains(word), "{name}: `{word}`");
        }
    }
}

#[test]
fn nothing_is_silenced_or_postponed() {
    for (name, text) in sources("src").into_iter().chain(sources("tests")).chain(sources("benches"))
    {
        if name == "tests/tidy.rs" {
            continue;
        }
        for word in
            ["todo!(", "unimplemented!(", "FIXME", "TODO", "#[ignore", "dead_code", "allow("]
        {
            assert!(!text.contains(word), "{name}: `{word}`");
        }
    }
}

#[test]
fn hot_files_do_nothing_that_costs() {
    let excused: BTreeMap<&str, &[&str]> = EXCUSED.into_iter().collect();
    let mut count = 0;
    for (name, text) in sources("src") {
        if !text.starts_with("//! Hot path.") {
            continue;
        }
        count += 1;
        let excuses = excused.get(name.as_str()).copied().unwrap_or_default();
        for word in COLD.iter().filter(|word| !excuses.contains(word)) {
            assert!(!code(&text).contains(word), "{name}: `{word}` in a hot file");
        }
    }
    assert!(count >= 10, "{count} hot files");
}

#[test]
fn unsafe_code_lives_in_sys_alone() {
    for (name, text) in sources("src") {
        let is_unsafe = code(&text).contains("unsafe {") || code(&text).contains("unsafe fn");
        assert!(!is_unsafe || name.starts_with("src/sys/"), "{name}: unsafe outside sys");
        if is_unsafe {
            assert!(text.contains("//! * I1:"), "{name}: no numbered invariants");
        }
    }
}

#[test]
fn root_is_a_table_of_contents() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_known =
            ROOT.contains(&name.as_str()) || ["target", ".git", "tuning"].contains(&&*name);
        assert!(is_known, "{name} has no place at the root");
    }
}

#[test]
fn conformance_table_names_tests_that_exist() {
    let table = fs::read_to_string(root().join("docs/CONFORMANCE.md")).unwrap();
    let tests: String = sources("src").values().chain(sources("tests").values()).cloned().collect();
    let mut count = 0;
    for row in table.lines().filter(|line| line.starts_with("| RFC") || line.starts_with("| draft"))
    {
        let cell = row.split('|').nth(4).unwrap_or_else(|| panic!("no test cell: {row}"));
        for test in cell.split('`').skip(1).step_by(2) {
            assert!(tests.contains(&format!("fn {test}(")), "no test `{test}`: {row}");
            count += 1;
        }
    }
    assert!(count > 30, "{count} tests are named");
}
