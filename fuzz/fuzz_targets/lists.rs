//! Block lists: any text in any syntax, compiled, and every rule found again.
#![no_main]

mod bodies {
    pub(crate) mod lists;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::lists::run(data));
