//! The upstream path: any message as an upstream's answer, through `resolve::scrub`, the cache and a reply.
#![no_main]

mod bodies {
    pub(crate) mod check;
    pub(crate) mod upstream;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::upstream::run(data));
