//! How long do a million answers take from the cache to the bytes of a snapshot, and back, on one core?
//!
//! `cargo bench --bench snapshot`. In memory: what a disk adds is the disk's. Restoring includes all checks.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use heimdall_uring::cache::snapshot::{Block, Contents, Flaw, Framer, Step};
use heimdall_uring::cache::{Key, Origins, Shard};
use heimdall_uring::config;
use heimdall_uring::time::{CacheTime, Now};
use heimdall_uring::wire::answer::AnswerBuilder;
use heimdall_uring::wire::response::Section;
use heimdall_uring::wire::{Class, NameBuf, Rcode, Rtype};

const MILLION: u64 = 1_000_000;

fn at(seconds: u64) -> Now {
    Now { cache: CacheTime::from_millis(seconds * 1_000), ..Now::default() }
}

fn shard() -> Shard {
    // Drawn anew: a restarted node hashes differently.
    Shard::new(&config::Cache::default(), 256 << 20, ahash::RandomState::new())
}

/// A shard with the addresses of a million names of some thirty octets.
fn filled() -> Shard {
    let mut shard = shard();
    for number in 0..MILLION {
        let text = format!("host{number:07}.site{:03}.example.com.", number % 997);
        let name = NameBuf::from_text(&text).unwrap();
        let name = name.as_name();
        let mut builder = AnswerBuilder::new(name, Rtype::A, Class::IN, Rcode::NOERROR).unwrap();
        builder.write(Section::Answer, name, Rtype::A, Class::IN, 3_600, &[192, 0, 2, 1]).unwrap();
        let mut key = Key::plain(name, Rtype::A);
        shard.insert(&mut key, &builder.finish(), at(0).cache, at(0));
    }
    shard
}

fn written(shard: &Shard, file: &mut Vec<u8>) {
    let (mut framer, head) = Framer::begin(1, at(1).cache, &Origins::default());
    file.clear();
    file.extend(head);
    let (mut walk, mut block) = (shard.walk(at(1).cache), Block::default());
    loop {
        match shard.walk_on(&mut walk, &mut block) {
            Step::More => {}
            Step::Full => {
                let block = std::mem::take(&mut block);
                file.extend(framer.block(0, &block));
                file.extend(block.bytes());
            }
            Step::Done => break,
            Step::Flushed => panic!("nothing is flushed"),
        }
    }
    file.extend(framer.end());
}

fn restored(file: &[u8], mut shard: Shard) -> Shard {
    let read = |at: u64, buffer: &mut [u8]| {
        let at = usize::try_from(at).unwrap();
        buffer.copy_from_slice(&file[at..at + buffer.len()]);
        Ok::<(), Flaw>(())
    };
    let contents = Contents::survey(file.len() as u64, read).unwrap();
    let restored = shard.restore(&contents, 0, 1, at(2).cache, read).unwrap();
    assert_eq!(restored.kept, MILLION);
    shard
}

fn snapshot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("1 million names");
    group.sample_size(10);
    let filled = filled();
    let mut file = Vec::new();
    group.bench_function("write", |bencher| bencher.iter(|| written(&filled, &mut file)));
    written(&filled, &mut file);
    // The shard goes out with the result: giving its memory back is not part of it.
    group.bench_function("restore", |bencher| {
        bencher.iter_batched(shard, |shard| restored(&file, shard), BatchSize::PerIteration);
    });
    let (mut walk, mut block) = (filled.walk(at(1).cache), Block::default());
    group.bench_function("one step of the walk", |bencher| {
        bencher.iter(|| match filled.walk_on(&mut walk, &mut block) {
            Step::More => {}
            Step::Full => block = Block::default(),
            Step::Done => walk = filled.walk(at(1).cache),
            Step::Flushed => panic!("nothing is flushed"),
        });
    });
    group.finish();
}

criterion_group!(benches, snapshot);
criterion_main!(benches);
