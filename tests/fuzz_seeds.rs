//! Every seed of the fuzz targets, through the same code that the fuzzer runs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

#[path = "../fuzz/fuzz_targets/bodies/block.rs"]
mod block;
#[path = "../fuzz/fuzz_targets/bodies/check.rs"]
mod check;
#[path = "../fuzz/fuzz_targets/bodies/filter.rs"]
mod filter;
#[path = "../fuzz/fuzz_targets/bodies/lists.rs"]
mod lists;
#[path = "../fuzz/fuzz_targets/bodies/local.rs"]
mod local;
#[path = "../fuzz/fuzz_targets/bodies/query.rs"]
mod query;
#[path = "../fuzz/fuzz_targets/bodies/snapshot.rs"]
mod snapshot;
#[path = "../fuzz/fuzz_targets/bodies/upstream.rs"]
mod upstream;

fn run_seeds(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        run(&seed);
        // Every cut and every flipped octet, too: a small fuzzer that needs no nightly toolchain.
        for at in 0..seed.len() {
            run(&seed[..at]);
            for flip in [0x01, 0x80, 0xFF] {
                let mut flipped = seed.clone();
                flipped[at] ^= flip;
                run(&flipped);
            }
        }
        count += 1;
    }
    assert!(count >= 10, "{count} seeds in {}", folder.display());
}

#[test]
fn seeds_of_the_query_path_pass() {
    run_seeds("query", query::run);
}

#[test]
fn seeds_of_the_upstream_path_pass() {
    run_seeds("upstream", upstream::run);
}

#[test]
fn seeds_of_the_snapshot_pass() {
    run_seeds("snapshot", snapshot::run);
    // Most of them are good files, with entries that reach a reply.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/snapshot");
    let seeds = std::fs::read_dir(folder).unwrap();
    let seeds = seeds.map(|seed| std::fs::read(seed.unwrap().path()).unwrap());
    let asked_for = seeds.map(|seed| snapshot::entries_asked_for(&seed)).sum::<usize>();
    assert!(asked_for >= 15, "{asked_for}");
}

#[test]
fn seeds_of_the_list_readers_pass() {
    run_seeds("lists", lists::run);
    // Each of them has rules, so the cuts and flips above fall among such.
    let seeds = seeds("lists").into_iter();
    assert!(seeds.map(|seed| lists::rules(&seed)).all(|rules| rules > 0));
}

#[test]
fn seeds_of_local_names_pass() {
    run_seeds("local", local::run);
    let answered = seeds("local").iter().filter(|seed| local::answered(seed) > 0).count();
    assert!(answered >= 10, "{answered}");
}

#[test]
fn seeds_of_the_filter_image_pass() {
    run_seeds("filter", filter::run);
    let opened = seeds("filter").iter().filter(|seed| filter::opened(seed)).count();
    assert!(opened >= 10, "{opened}");
}

#[test]
fn seeds_of_stored_blocks_pass() {
    run_seeds("block", block::run);
    let rows = seeds("block").iter().map(|seed| block::rows(seed)).sum::<usize>();
    assert!(rows >= 60, "{rows}");
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let seeds = std::fs::read_dir(folder).unwrap();
    seeds.map(|seed| std::fs::read(seed.unwrap().path()).unwrap()).collect()
}
