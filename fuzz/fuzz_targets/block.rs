//! A block of the query store: any bytes, under a checksum that is right or not, opened, read and packed anew.
#![no_main]

mod bodies {
    pub(crate) mod block;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::block::run(data));
