//! `wire` against two oracles that share no code with it: `domain` and `hickory-proto`.
//!
//! Both must read what we read and say the same about it. Where they and we disagree about a message, the kind of
//! disagreement stands in a table with its reason; one that is in no table fails. The budget is fixed and so is the
//! seed; `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask for more and for others.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "wire_model/copies.rs"]
mod copies;
#[path = "wire_model/messages.rs"]
mod messages;
#[path = "wire_model/names.rs"]
mod names;
#[path = "wire_model/oracle.rs"]
mod oracle;
#[path = "wire_model/queries.rs"]
mod queries;
#[path = "wire_model/responses.rs"]
mod responses;

use proptest::test_runner::{Config, RngSeed};

/// The configuration of one property that is tried `cases` times.
fn budget(cases: u32) -> Config {
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(0xD5);
    }
    config
}
