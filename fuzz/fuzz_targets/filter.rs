//! The filter image: any bytes, under a checksum that is right or not, opened and asked.
#![no_main]

mod bodies {
    pub(crate) mod filter;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::filter::run(data));
