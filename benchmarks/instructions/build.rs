//! Tells the program what it was built with: counts of different compilers are not comparable.

use std::env;
use std::process::Command;

fn main() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    let told = |name| env::var(name).unwrap_or_default();
    println!("cargo::rustc-env=BUILT_BY={version}");
    println!("cargo::rustc-env=BUILT_FOR={}", told("TARGET"));
    println!("cargo::rustc-env=BUILT_WITH={}", told("CARGO_CFG_TARGET_FEATURE"));
    // Flags are apart by a control character.
    let flags = told("CARGO_ENCODED_RUSTFLAGS").replace('\u{1f}', " ");
    println!("cargo::rustc-env=BUILT_UNDER={flags}");
    // Of the profile, only what scripts/check_performance.sh sets is to be seen from here.
    println!("cargo::rustc-env=BUILT_IN={}", told("CARGO_PROFILE_RELEASE_CODEGEN_UNITS"));
    println!("cargo::rerun-if-env-changed=CARGO_PROFILE_RELEASE_CODEGEN_UNITS");
    println!("cargo::rerun-if-changed=build.rs");
}
