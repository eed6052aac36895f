//! Zone files and hosts files of the operator: any text is read or refused, and what was read is answered.
#![no_main]

mod bodies {
    pub(crate) mod check;
    pub(crate) mod local;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::local::run(data));
