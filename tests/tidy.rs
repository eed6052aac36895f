//! The rules of the house that a program can check: who names whom, sizes, names, hot files, citations, the root.
//!
//! Reads the sources as text. Where a rule and a good idea disagree, change the rule here, in the same commit.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Longest source file, in lines, tests included: beyond it nobody reads it in one sitting.
const LINES_MAX: usize = 700;

/// What may lie at the root, beside dotfiles and what the build leaves there.
const ROOT: [&str; 14] = [
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "src",
    "benches",
    "benchmarks",
    "tuning",
    "scripts",
    "docs",
    "deploy",
    "tests",
    "fuzz",
];

/// Who may name whom within the package. `node`, `cli`, `main` and `lib` may name all.
const ROOMS: [(&str, &[&str]); 14] = [
    ("time", &[]),
    ("wire", &["time"]),
    ("config", &["time", "wire"]),
    ("observe", &["time", "wire"]),
    ("cache", &["time", "wire", "config", "observe"]),
    ("policy", &["time", "wire", "config", "observe"]),
    ("resolve", &["time", "wire", "config", "observe", "cache"]),
    ("serve", &["time", "wire", "config", "observe", "policy", "cache", "resolve"]),
    ("sim", &["time", "wire", "config", "observe", "resolve", "serve"]),
    ("sys", &[]),
    ("net", &["sys", "time", "config", "observe"]),
    ("upstream", &["time", "wire", "config", "observe", "sys", "net", "resolve"]),
    ("mesh", &["cache"]),
    (
        "control",
        &[
            "time", "wire", "config", "observe", "policy", "cache", "resolve", "serve", "sim",
            "mesh", "sys",
        ],
    ),
];

/// Rooms that join the others, and are free to name them and every crate.
const JOINERS: [&str; 4] = ["node", "cli", "main", "lib"];

/// Crates that live in some rooms only.
const CRATES: [(&str, &[&str]); 32] = [
    ("toml", &["config"]),
    ("hdrhistogram", &["observe"]),
    ("hashbrown", &["cache", "policy", "resolve", "observe"]),
    ("crc32fast", &["cache", "policy", "control", "observe"]),
    ("ahash", &["cache", "policy", "resolve", "upstream", "observe", "control"]),
    ("domain", &["policy", "resolve"]),
    ("idna", &["policy"]),
    ("bytes", &["policy", "control"]),
    ("siphasher", &["cache", "resolve", "control"]),
    ("libc", &["sys"]),
    ("io_uring", &["sys"]),
    ("glommio", &["net", "upstream", "mesh"]),
    ("futures_lite", &["net", "upstream", "mesh"]),
    ("rustls", &["net", "upstream", "control"]),
    ("rustls_native_certs", &["upstream", "control"]),
    ("ring", &["upstream"]),
    ("getrandom", &["upstream"]),
    ("rand_chacha", &["upstream"]),
    ("jiff", &["control"]),
    ("ureq", &["control"]),
    ("flate2", &["control"]),
    ("tokio", &["control"]),
    ("tokio_rustls", &["control"]),
    ("hyper", &["control"]),
    ("hyper_util", &["control"]),
    ("serde_json", &["control"]),
    ("rusqlite", &["control"]),
    ("tracing", &["net", "upstream", "mesh", "control"]),
    ("clap", &[]),
    ("hwlocality", &[]),
    ("core_affinity", &[]),
    ("mimalloc", &[]),
];

/// Names of rooms and files that say nothing: a thing without a room is a thing not yet understood.
const VAGUE_FILES: [&str; 8] =
    ["util", "utils", "common", "helper", "helpers", "misc", "types", "stuff"];

/// Beginnings of names that compare with another version, which git remembers, or say nothing.
const VAGUE_PREFIXES: [&str; 8] =
    ["get_", "fast_", "new_", "old_", "optimized_", "unified_", "simple_", "enhanced_"];

/// Not in a hot file, tests, constructors and async functions apart: allocation, suspension, dynamic dispatch, logging.
const COLD: [&str; 7] =
    ["format!", ".clone()", "Box::new", "Vec::new", ".await", "dyn ", "tracing::"];

/// A source file as text.
struct Source {
    /// Relative to the root.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The room it belongs to: `net` for `src/net/udp/mod.rs`, `time` for `src/time.rs`.
    fn room(&self) -> &str {
        let room = self.path.components().nth(1).unwrap().as_os_str().to_str().unwrap();
        room.strip_suffix(".rs").unwrap_or(room)
    }

    fn is_product(&self) -> bool {
        self.path.starts_with("src")
    }

    /// Lines with their numbers, without comments; tests (own files, or the end of a file) only if wanted.
    fn code(&self, with_tests: bool) -> Vec<(usize, &str)> {
        if !with_tests && self.path.ends_with("tests.rs") {
            return Vec::new();
        }
        let lines = (1..).zip(self.text.lines());
        let lines = lines.take_while(|(_, line)| with_tests || !line.starts_with("#[cfg(test)]"));
        lines.map(|(number, line)| (number, before_comment(line))).collect()
    }

    fn at(&self, number: usize, what: &str) -> String {
        format!("{}:{number}: {what}", self.path.display())
    }
}

/// The part of a line before `//`; one that follows a colon is taken for part of an address.
fn before_comment(line: &str) -> &str {
    let mut comments = line.match_indices("//").map(|(at, _)| at);
    let comment = comments.find(|&at| !line[..at].ends_with(':'));
    comment.map_or(line, |at| &line[..at])
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read_tree(directory: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.ends_with("target") {
            read_tree(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push(Source { path: path.strip_prefix(root()).unwrap().into(), text });
        }
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for directory in ["src", "tests", "benches", "benchmarks", "fuzz"] {
        read_tree(&root().join(directory), &mut found);
    }
    assert!(found.len() > 10, "the sources are not where they were");
    found
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|letter| !is_word(letter)).filter(|word| !word.is_empty())
}

/// First path segments behind `crate::`, one or a braced list.
fn rooms_named(line: &str) -> Vec<&str> {
    let mut rooms = Vec::new();
    for (at, mark) in line.match_indices("crate::") {
        let rest = &line[at + mark.len()..];
        match rest.strip_prefix('{') {
            Some(list) => rooms.extend(list.split(',').filter_map(|item| words(item).next())),
            None => rooms.extend(words(rest).next()),
        }
    }
    rooms
}

/// Whether `line` uses the crate `name`: as the first segment of a path.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = &line[..at];
        !before.ends_with(is_word) && !before.ends_with("::")
    })
}

fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn rooms_name_only_whom_they_may() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.is_product()) {
        let room = source.room();
        if JOINERS.contains(&room) {
            continue;
        }
        let Some((_, allowed)) = ROOMS.iter().find(|(known, _)| *known == room) else {
            complaints.push(source.at(1, "is in a room that the table does not know"));
            continue;
        };
        for (number, line) in source.code(false) {
            for named in rooms_named(line) {
                let is_room =
                    ROOMS.iter().any(|(known, _)| *known == named) || JOINERS.contains(&named);
                if is_room && named != room && !allowed.contains(&named) {
                    complaints.push(source.at(number, &format!("`{room}` may not name `{named}`")));
                }
            }
            for (name, homes) in CRATES {
                if names_crate(line, name) && !homes.contains(&room) {
                    complaints.push(source.at(number, &format!("`{room}` may not use `{name}`")));
                }
            }
        }
    }
    report(&complaints);
}

#[test]
fn every_source_file_is_reached() {
    let sources = sources();
    let mut reached = BTreeSet::new();
    let mut waiting = vec![PathBuf::from("src/lib.rs"), PathBuf::from("src/main.rs")];
    while let Some(path) = waiting.pop() {
        let Some(source) = sources.iter().find(|source| source.path == path) else { continue };
        let stem = path.file_stem().unwrap();
        let is_directory = ["lib", "main", "mod"].iter().any(|name| stem == *name);
        let folder =
            path.parent().unwrap().join(if is_directory { Path::new("") } else { Path::new(stem) });
        for (_, line) in source.code(true) {
            let declared = line.trim().strip_suffix(';').and_then(|line| line.rsplit_once("mod "));
            if let Some((_, module)) = declared {
                waiting.push(folder.join(format!("{module}.rs")));
                waiting.push(folder.join(module).join("mod.rs"));
            }
        }
        reached.insert(path);
    }
    let lost =
        sources.iter().filter(|source| source.is_product() && !reached.contains(&source.path));
    report(&lost.map(|source| source.at(1, "no `mod` leads here")).collect::<Vec<_>>());
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut complaints = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            complaints.push(source.at(lines, "is too long: a file that needs a map is two files"));
        }
        let text = source.text.trim_start_matches("#![no_main]\n");
        if !text.starts_with("//! ") {
            complaints.push(source.at(1, "does not begin with //!"));
        }
        let parts = source.path.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs"));
        if parts.into_iter().any(|part| VAGUE_FILES.contains(&part)) {
            complaints.push(source.at(1, "has a name that says nothing"));
        }
    }
    report(&complaints);
}

#[test]
fn names_do_not_compare_with_other_versions() {
    const DEFINING: [&str; 9] =
        ["fn", "struct", "enum", "trait", "mod", "const", "static", "type", "let"];
    let is_vague = |name: &str| {
        // `get_mut` beside `get` is the standard library's own pair.
        let snake =
            name != "get_mut" && VAGUE_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let versioned =
            ["_v1", "_v2", "_v3", "V2", "V3", "_new", "_old"].iter().any(|end| name.ends_with(end));
        snake || versioned || name.ends_with("Manager") || name.ends_with("Helper")
    };
    let mut complaints = Vec::new();
    for source in sources() {
        for (number, line) in source.code(true) {
            let line: Vec<_> = words(line).filter(|word| *word != "mut").collect();
            for pair in
                line.windows(2).filter(|pair| DEFINING.contains(&pair[0]) && is_vague(pair[1]))
            {
                complaints.push(source.at(number, &format!("`{}` is no name", pair[1])));
            }
        }
    }
    report(&complaints);
}

#[test]
fn hot_files_do_nothing_slow() {
    let mut complaints = Vec::new();
    let sources = sources();
    let hot: Vec<_> =
        sources.iter().filter(|source| source.text.starts_with("//! Hot path.")).collect();
    assert!(!hot.is_empty(), "no file says that it is hot");
    for source in hot {
        // Constructors run before the first packet and async functions after the hit path has passed the query on:
        // skipped up to the brace that stands as deep as their `fn`.
        let mut skipped_to = None;
        for (number, line) in source.code(false) {
            if skipped_to.is_none() && (line.contains("fn new(") || line.contains("async fn ")) {
                skipped_to = Some(format!("{}}}", &line[..line.len() - line.trim_start().len()]));
            }
            if skipped_to.as_deref() == Some(line) {
                skipped_to = None;
            }
            let slow =
                COLD.iter().find(|slow| line.contains(**slow) && !line.contains("async move {"));
            if let (None, Some(slow)) = (&skipped_to, slow) {
                complaints.push(source.at(number, &format!("`{slow}` on the hot path")));
            }
        }
    }
    report(&complaints);
}

#[test]
fn nothing_is_left_for_later() {
    // In pieces, so that this file does not find itself.
    let banned = [
        ["todo", "!("],
        ["unimplemented", "!("],
        ["TO", "DO"],
        ["FIX", "ME"],
        ["#[ign", "ore"],
        ["dead_", "code"],
        ["all", "ow("],
    ]
    .map(|pieces| pieces.concat());
    let mut complaints = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            for found in banned.iter().filter(|text| line.contains(text.as_str())) {
                complaints.push(source.at(number, &format!("`{found}` does not land")));
            }
        }
    }
    report(&complaints);
}

#[test]
fn unsafe_code_lives_in_sys_and_numbers_its_invariants() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.is_product()) {
        let is_unsafe = |line: &str| line.contains("unsafe {") || line.contains("unsafe fn");
        let Some((number, _)) = source.code(false).into_iter().find(|(_, line)| is_unsafe(line))
        else {
            continue;
        };
        if source.room() != "sys" && !source.path.ends_with("wire/simd.rs") {
            complaints.push(source.at(number, "unsafe code outside `sys` and `wire::simd`"));
        } else if !source.text.contains("//! * I1:") {
            complaints.push(source.at(1, "no numbered invariants"));
        }
    }
    report(&complaints);
}

#[test]
fn rfcs_are_cited_in_one_form() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            let comment = &line[before_comment(line).len()..];
            for (at, _) in comment.match_indices("RFC") {
                let rest = &comment[at + 3..];
                let number_and_more = rest.strip_prefix(' ').unwrap_or("");
                let tail =
                    number_and_more.trim_start_matches(|letter: char| letter.is_ascii_digit());
                let is_other_word = rest.starts_with(|letter: char| letter.is_alphabetic());
                let is_number = tail.len() < number_and_more.len();
                let tail = tail.trim_start_matches([',', ' ']).to_lowercase();
                let is_worded = tail.starts_with("section") || tail.starts_with("sec.");
                if !is_other_word && (!is_number || is_worded) {
                    complaints.push(source.at(number, "cite as `RFC 2308 §5`"));
                }
            }
        }
    }
    report(&complaints);
}

#[test]
fn root_is_a_table_of_contents() {
    let entries = std::fs::read_dir(root()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let strangers = names.filter(|name| {
        !name.starts_with('.') && name != "target" && !ROOT.contains(&name.as_str())
    });
    report(&strangers.map(|name| format!("{name} has no place at the root")).collect::<Vec<_>>());
}

/// The backticked words of a table cell.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn conformance_table_names_code_and_tests_that_exist() {
    let table = std::fs::read_to_string(root().join("docs/CONFORMANCE.md")).unwrap();
    let sources = sources();
    let mut complaints = Vec::new();
    let mut rows = 0;
    for (number, line) in (1..).zip(table.lines()) {
        let cells: Vec<_> = line.trim_matches('|').split('|').collect();
        let [section, _, code, tests] = cells.as_slice() else { continue };
        if !section.trim().starts_with("RFC ") {
            continue;
        }
        rows += 1;
        for path in quoted(code).filter(|path| !root().join("src").join(path).exists()) {
            complaints.push(format!("docs/CONFORMANCE.md:{number}: no file {path}"));
        }
        assert!(quoted(tests).next().is_some(), "docs/CONFORMANCE.md:{number}: no test");
        for test in quoted(tests) {
            let definition = format!("fn {test}()");
            if !sources.iter().any(|source| source.text.contains(&definition)) {
                complaints.push(format!("docs/CONFORMANCE.md:{number}: no test {test}"));
            }
        }
    }
    assert!(rows > 0, "the table is not where it was");
    report(&complaints);
}
