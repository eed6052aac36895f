//! What counts depend on beside our own sources. Where it differs, they are not comparable.

use std::process::Command;

use serde_json::{Map, Value};

use crate::problem::Problem;

/// Features by which code chooses its way at run time, as far as callgrind shows them to it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn processor() -> String {
    let features = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    let there = features.into_iter().filter_map(|(name, is_there)| is_there.then_some(name));
    there.collect::<Vec<_>>().join(" ")
}

/// No choice is made at run time elsewhere.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn processor() -> String {
    String::new()
}

/// What the counts were taken with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Environment(pub(crate) Map<String, Value>);

impl Environment {
    /// Where this program runs now; `processor` is what it saw under callgrind.
    pub(crate) fn of_this_run(processor: &str) -> Result<Self, Problem> {
        let libc = said("getconf", &["GNU_LIBC_VERSION"])?;
        let parts = [
            ("rustc", env!("BUILT_BY").to_owned()),
            ("target", env!("BUILT_FOR").to_owned()),
            ("target_features", env!("BUILT_WITH").to_owned()),
            ("rustflags", env!("BUILT_UNDER").to_owned()),
            ("codegen_units", env!("BUILT_IN").to_owned()),
            ("processor", processor.to_owned()),
            ("libc", libc),
            ("cc", said("cc", &["--version"])?),
            ("valgrind", said("valgrind", &["--version"])?),
        ];
        let parts = parts.map(|(name, value)| (name.to_owned(), Value::String(value)));
        Ok(Self(parts.into_iter().collect()))
    }

    /// Why counts from here and from `other` are not comparable.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let names = self.0.keys().chain(other.0.keys().filter(|name| !self.0.contains_key(*name)));
        let text = |of: &Self, name: &str| match of.0.get(name).and_then(Value::as_str) {
            Some("") | None => "nothing".to_owned(),
            Some(text) => text.to_owned(),
        };
        let mut differing = names.filter(|name| self.0.get(*name) != other.0.get(*name));
        let name = differing.next()?;
        Some(format!("{name} was {}, here it is {}", text(self, name), text(other, name)))
    }
}

/// The first line that a program says.
fn said(program: &'static str, arguments: &[&str]) -> Result<String, Problem> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| Problem::Start(program, error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(rustc: &str) -> Environment {
        Environment(Map::from_iter([("rustc".to_owned(), Value::from(rustc))]))
    }

    #[test]
    fn another_compiler_is_named() {
        let difference = environment("rustc 1.95.0").difference(&environment("rustc 1.96.0"));
        assert_eq!(difference.unwrap(), "rustc was rustc 1.95.0, here it is rustc 1.96.0");
        assert_eq!(environment("rustc 1.95.0").difference(&environment("rustc 1.95.0")), None);
    }

    #[test]
    fn what_only_one_side_knows_is_a_difference() {
        let mut other = environment("rustc 1.95.0");
        other.0.insert("libc".to_owned(), Value::from("glibc 2.36"));
        let difference = environment("rustc 1.95.0").difference(&other);
        assert_eq!(difference.unwrap(), "libc was nothing, here it is glibc 2.36");
    }
}
