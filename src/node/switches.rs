//! What can be switched off, for the log, `--check` and the status.

use crate::config::{Config, IoBackend, Optimizations};

/// What can be switched off, and whether it is on.
pub(super) fn of(config: &Config) -> Vec<(&'static str, bool)> {
    let Optimizations { zero_copy_parsing, simd, hot_cache, filter_pre_filter } =
        config.optimizations;
    vec![
        ("zero_copy_parsing", zero_copy_parsing),
        ("simd", simd),
        ("hot_cache", hot_cache),
        ("filter_pre_filter", filter_pre_filter),
        ("prefetch", config.cache.prefetch),
        ("nxdomain_cut", config.cache.nxdomain_cut),
    ]
}

/// The same in words, for `--check` and the log, with the way of the datagrams.
pub(crate) fn told(config: &Config) -> String {
    let io = match config.node.io {
        IoBackend::Uring => "uring",
        IoBackend::Mmsg => "mmsg",
    };
    let word = |is_on| if is_on { "on" } else { "off" };
    let told = of(config).into_iter();
    let told = told.map(|(name, is_on)| format!("{name} {}", word(is_on)));
    told.chain([format!("io {io}")]).collect::<Vec<_>>().join(", ")
}
