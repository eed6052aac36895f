//! heimdall-uring: a DNS resolver for bare-metal Linux, one glommio executor, raw ring and cache shard per core.
//!
//! The core (`time config observe wire cache policy resolve serve sim`) has no I/O and no clock and builds alone with
//! `--no-default-features`; the edge (`sys net upstream mesh control node cli`) joins it to the kernel. See docs/ARCHITECTURE.md.

pub mod cache;
pub mod config;
pub mod observe;
pub mod policy;
pub mod resolve;
pub mod serve;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod time;
pub mod wire;

#[cfg(feature = "node")]
pub mod cli;
#[cfg(feature = "node")]
pub mod control;
#[cfg(feature = "node")]
pub mod mesh;
#[cfg(feature = "node")]
pub mod net;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "node")]
pub mod sys;
#[cfg(feature = "node")]
pub mod upstream;
