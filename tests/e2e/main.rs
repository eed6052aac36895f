//! The real binary, asked by independent software (dig, kdig, dnsperf) over real sockets, forwarding to a real NSD or Unbound.
//!
//! What these cannot do (silence, lies, delays) a scripted upstream does. Every test starts its own node on loopback
//! addresses of its own, so they run side by side; waits are bounded and wait for events, never for time to pass.
//! `scripts/setup --tests` installs the programs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_types, reason = "clients and upstreams of the test are plain sockets")]
#![expect(clippy::disallowed_methods, reason = "bounded waits need a clock")]

mod access;
mod api;
mod authority;
mod blocking;
mod cache;
mod certificates;
mod client;
mod ctl;
mod dot;
mod edns;
mod explain;
mod filter;
mod flood;
mod forward;
mod groups;
mod hosts;
mod http;
mod lists;
mod load;
mod log;
mod malformed;
mod message;
mod metrics;
mod misuse;
mod node;
mod numa;
mod ports;
mod process;
mod queries;
mod questions;
mod rate;
mod rebinding;
mod reload;
mod restart;
mod scripted;
mod special;
mod spoofing;
mod stale;
mod stderr;
mod steering;
mod switches;
mod tcp;
mod tls;
mod upstream;
mod zones;
