//! The snapshot file: any bytes, and entries under checksums that are right, into a shard and out as replies.
#![no_main]

mod bodies {
    pub(crate) mod check;
    pub(crate) mod snapshot;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::snapshot::run(data));
