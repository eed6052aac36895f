//! Lists looked at for an operator who asks whether his config is right, as a node would read them.

use std::fmt::Display;

use thiserror::Error;

use super::{first, text};
use crate::config;
use crate::policy::filter::Rule;
use crate::policy::filter::syntax;

/// Files of lists that cannot be read, each with place, list, path and what the system says.
///
/// A node starts all the same, and looks at them again and again: a list that comes late is better than no answers.
#[derive(Debug, Error)]
#[error("{}", .0.join("\n"))]
pub struct Unreadable(Vec<String>);

/// What stands in `lists`, a line for each, for a check: files are read as a node would read them, and nothing is downloaded.
///
/// # Errors
/// [`Unreadable`].
pub fn contents(
    filter: &config::Filter,
    lists: &[config::List],
) -> Result<Vec<String>, Unreadable> {
    let (mut told, mut mistakes) = (Vec::new(), Vec::new());
    for list in lists {
        match content(filter, list) {
            Ok(line) => told.push(line),
            Err(error) => mistakes.push(mistake(list, &error)),
        }
    }
    if mistakes.is_empty() { Ok(told) } else { Err(Unreadable(mistakes)) }
}

fn content(filter: &config::Filter, list: &config::List) -> Result<String, text::Unreadable> {
    let config::List { name, source, .. } = list;
    let config::ListSource::File(path) = source else {
        return Ok(format!("list {name:?}: from {source}, not downloaded by a check"));
    };
    let (file, signature) = text::open(path)?;
    let likely = usize::try_from(signature.bytes).unwrap_or(usize::MAX);
    let octets = text::read(file, likely, filter.list_bytes_max)?;
    let syntax = text::syntax_of(&octets, list.syntax);
    let report = syntax::read(&octets, syntax, &mut |_: &Rule<'_>| true);
    Ok(format!(
        "list {name:?}: {} rules, {} bad lines{}, {} lines skipped{}, {} bytes, from {source}",
        report.rules,
        report.bad.count,
        first(&report.bad),
        report.skipped.count,
        first(&report.skipped),
        octets.len(),
    ))
}

/// The files among `lists` that cannot be opened, a line for each; for a node that runs, whose lists are read behind that.
#[must_use]
pub fn unopened(lists: &[config::List]) -> Vec<String> {
    let told = |list: &config::List| match &list.source {
        config::ListSource::File(path) => text::open(path).err().map(|error| mistake(list, &error)),
        config::ListSource::Url(_) => None,
    };
    lists.iter().filter_map(told).collect()
}

fn mistake(config::List { place, name, source, .. }: &config::List, error: &dyn Display) -> String {
    format!("{place}: list {name:?}: {source}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_what_is_wrong_with_them_is_told() {
        let place = std::env::temp_dir().join(format!("heimdall-{}-contents", std::process::id()));
        std::fs::write(&place, "||ads.example^\nads..example\nads.example##.banner\n").unwrap();
        let mut list =
            config::List::new("ads".into(), config::ListSource::File(place.clone()), String::new());
        list.syntax = Some(config::ListSyntax::Adblock);
        let told = contents(&config::Filter::default(), std::slice::from_ref(&list)).unwrap();
        let short = config::Filter { list_bytes_max: 10, ..config::Filter::default() };
        let too_long = contents(&short, &[list]).unwrap_err().to_string();
        std::fs::remove_file(&place).unwrap();
        assert!(
            too_long.contains("list \"ads\"") && too_long.contains("list_bytes_max"),
            "{too_long}"
        );
        let [told] = &told[..] else { panic!("{told:?}") };
        assert!(told.starts_with("list \"ads\": 1 rules, 1 bad lines (line 2: "), "{told}");
        assert!(told.contains(", 1 lines skipped (line 3: "), "{told}");
    }

    #[test]
    fn all_files_that_cannot_be_read_are_told_and_urls_are_no_mistake() {
        let list = |name: &str, source| {
            config::List::new(name.into(), source, format!("node.toml:{}", name.len()))
        };
        let file = |path: &str| config::ListSource::File(path.into());
        let lists = [
            list("a", file("/nowhere/a.txt")),
            list("bb", config::ListSource::Url("http://lists.example/b".into())),
            list("ccc", file("/")),
        ];
        let filter = config::Filter::default();
        let told = "node.toml:1: list \"a\": /nowhere/a.txt: No such file or directory (os error 2)\n\
            node.toml:3: list \"ccc\": /: it is no regular file";
        assert_eq!(contents(&filter, &lists).unwrap_err().to_string(), told);
        assert_eq!(unopened(&lists).join("\n"), told);
        assert_eq!(contents(&filter, &lists[1..2]).unwrap().len(), 1);
        assert!(unopened(&lists[1..2]).is_empty());
    }
}
