//! Lists read for a check, as a node would read them.

use super::{first, text};
use crate::config;
use crate::policy::filter::Rule;
use crate::policy::filter::syntax;

/// What stands in `lists`, a line for each, for a check: files are read as a node would read them, and nothing is downloaded.
#[must_use]
pub fn contents(filter: &config::Filter, lists: &[config::List]) -> Vec<String> {
    let told = |list: &config::List| {
        let config::ListSource::File(path) = &list.source else {
            return Some(format!(
                "list {:?}: from {}, not downloaded by a check",
                list.name, list.source
            ));
        };
        // What cannot be opened is a warning.
        let (file, signature) = text::open(path).ok()?;
        let likely = usize::try_from(signature.bytes).unwrap_or(usize::MAX);
        let octets = match text::read(file, likely, filter.list_bytes_max) {
            Ok(octets) => octets,
            Err(error) => return Some(format!("list {:?}: {}: {error}", list.name, list.source)),
        };
        let syntax = text::syntax_of(&octets, list.syntax);
        let report = syntax::read(&octets, syntax, &mut |_: &Rule<'_>| true);
        Some(format!(
            "list {:?}: {} rules, {} bad lines{}, {} lines skipped{}, {} bytes, from {}",
            list.name,
            report.rules,
            report.bad.count,
            first(&report.bad),
            report.skipped.count,
            first(&report.skipped),
            octets.len(),
            list.source
        ))
    };
    lists.iter().filter_map(told).collect()
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
        let told = contents(&config::Filter::default(), &[list]);
        std::fs::remove_file(&place).unwrap();
        let [told] = &told[..] else { panic!("{told:?}") };
        assert!(told.starts_with("list \"ads\": 1 rules, 1 bad lines (line 2: "), "{told}");
        assert!(told.contains(", 1 lines skipped (line 3: "), "{told}");
    }
}
