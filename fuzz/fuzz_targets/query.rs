//! The query path: any datagram, through `serve::Core`, hit and miss.
#![no_main]

mod bodies {
    pub(crate) mod check;
    pub(crate) mod query;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::query::run(data));
