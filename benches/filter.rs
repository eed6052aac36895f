//! What does the filter cost: to read and compile a list, in memory, and per name looked up, listed or not?
//!
//! `cargo bench --bench filter`. First a table for 10 000, 500 000, 1 000 000 and 5 000 000 names: the fastest of seven builds, and of a
//! hundred short runs of look-ups, one after the other. On a machine with other work these are the ones that were not
//! disturbed. Then the filter alone beside a binary fuse filter; then criterion over a million.
//! `FILTER_STRANGERS=10000000` looks up so many names that are not listed, and fails if one is taken for listed. Names are
//! made up, with lengths and depths as block lists have them.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking, and prints"
)]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group};
use heimdall_uring::policy::filter::syntax::{self, Syntax};
use heimdall_uring::policy::filter::{Asker, Compiler, Image, Kind, Lists, Rule};
use heimdall_uring::wire::{NameBuf, Rtype};
use xorf::{BinaryFuse8, Filter as _};

const WORDS: [&str; 32] = [
    "ad", "ads", "track", "metric", "pixel", "stat", "click", "banner", "cdn", "static", "media",
    "data", "event", "log", "beacon", "shop", "news", "play", "game", "cloud", "mail", "web",
    "app", "api", "img", "edge", "push", "tag", "sync", "bid", "video", "host",
];

const ENDINGS: [&str; 12] =
    ["com", "net", "org", "io", "de", "co.uk", "ru", "info", "com.br", "xyz", "top", "online"];

/// Look-ups per run: some milliseconds.
const LOOKUPS: usize = 20_000;

/// Hashes that are asked for in vain, to learn how many pass.
const STRANGERS: u64 = 1_000_000;

/// Names that they are drawn for.
const DRAWN: u64 = 100_000;

/// Names that are asked for again and again, and answered from the cache: what looking them up adds to that.
const HOT: u64 = 10_000;

/// SplitMix64: the same names in every run.
fn mixed(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

/// A name of two to four labels, some twenty octets; different for different numbers.
fn name(kind: char, number: u64) -> String {
    let random = mixed(number);
    let pick = |shift: u32, words: &[&'static str]| {
        words[usize::try_from(random >> shift).unwrap() % words.len()]
    };
    let (first, second, ending) = (pick(0, &WORDS), pick(8, &WORDS), pick(16, &ENDINGS));
    match random >> 24 & 7 {
        0..=2 => format!("{first}{second}{number:x}{kind}.{ending}"),
        3..=5 => format!("{first}.{second}{number:x}{kind}.{ending}"),
        _ => format!("{first}-{}.{second}.{number:x}{kind}.{ending}", random >> 40 & 15),
    }
}

fn list(count: u64) -> String {
    (0..count).map(|number| format!("||{}^\n", name('x', number))).collect()
}

fn compiled(text: &str) -> Vec<u8> {
    let mut compiler = Compiler::new(*b"a key of a bench");
    let report = syntax::read(text.as_bytes(), Syntax::Adblock, &mut |rule: &Rule<'_>| {
        compiler.add(0, Kind::Block, rule).is_ok()
    });
    assert_eq!((report.bad.count, report.skipped.count), (0, 0));
    compiler.finish(0).unwrap()
}

fn folded(text: &str) -> NameBuf {
    NameBuf::from_text(text).unwrap()
}

fn asker() -> Asker<'static> {
    let address = [192, 0, 2, 1].into();
    Asker { lists: &Lists::ALL, qtype: Rtype::A, address, name: None }
}

/// Names to ask for, one behind the other in memory: as warm as the datagrams of a batch, which the kernel has just written.
struct Questions {
    octets: Vec<u8>,
    ends: Vec<u32>,
}

impl Questions {
    /// `count` names drawn at random from the first `among` of a kind.
    fn of(kind: char, count: u64, among: u64) -> Self {
        let mut questions = Self { octets: Vec::new(), ends: Vec::new() };
        for at in 0..count {
            let plain = name(kind, mixed(at) % among);
            // `www.` before every second one, as clients ask.
            let text = if at.is_multiple_of(2) { format!("www.{plain}") } else { plain };
            questions.octets.extend(folded(&text).as_name().as_bytes());
            questions.ends.push(questions.octets.len().try_into().unwrap());
        }
        questions
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.octets[start as usize..end as usize])
    }
}

/// The fastest of a hundred runs, in nanoseconds per look-up: short ones, so that some are not interrupted.
fn fastest_ns(mut run: impl FnMut()) -> f64 {
    let runs = (0..100).map(|_| {
        let begun = Instant::now();
        run();
        begun.elapsed().as_secs_f64() * 1e9 / LOOKUPS as f64
    });
    runs.fold(f64::INFINITY, f64::min)
}

fn ns_per_lookup(image: &Image<Vec<u8>>, questions: &Questions, is_listed: bool) -> f64 {
    let asker = asker();
    let mut names = questions.iter().cycle();
    fastest_ns(|| {
        let hits = names.by_ref().take(LOOKUPS).filter(|name| {
            let matcher = image.matcher();
            black_box(matcher.decide(name, &asker)).is_some()
        });
        assert_eq!(hits.count(), if is_listed { LOOKUPS } else { 0 });
    })
}

fn ms<T>(run: impl FnOnce() -> T) -> (f64, T) {
    let begun = Instant::now();
    let result = run();
    (begun.elapsed().as_secs_f64() * 1e3, result)
}

fn figures(count: u64) {
    let text = list(count);
    let (mut build_ms, mut bytes) = ms(|| compiled(&text));
    for _ in 0..6 {
        let (again_ms, again) = ms(|| compiled(&text));
        (build_ms, bytes) = (build_ms.min(again_ms), again);
    }
    let (open_ms, image) = ms(|| Image::open(bytes).unwrap());
    let footprint = image.footprint();
    assert_eq!(footprint.names, count);
    let per_name = |bytes: usize| bytes as f64 / count as f64;
    let hot = ns_per_lookup(&image, &Questions::of('y', HOT, count), false);
    let unlisted = ns_per_lookup(&image, &Questions::of('y', DRAWN, count), false);
    let listed = ns_per_lookup(&image, &Questions::of('x', DRAWN, count), true);
    println!(
        "| {count} | {build_ms:.0} | {open_ms:.1} | {:.2} | {:.1} | {hot:.0} | {unlisted:.0} | {listed:.0} |",
        per_name(footprint.hot_bytes),
        per_name(footprint.bytes),
    );
}

/// The filter in front of the table alone, over hashes that are ready: blocks of one word, as in an image, or a binary fuse filter.
fn filters(count: u64) {
    let listed: Vec<u64> = (0..count).map(mixed).collect();
    let strangers: Vec<u64> = (count..count + STRANGERS).map(|at| mixed(mixed(at))).collect();
    let row = |what: &str, bits: f64, holds: &dyn Fn(u64) -> bool| {
        assert!(listed.iter().all(|&hash| holds(hash)));
        let passed = strangers.iter().filter(|&&hash| holds(hash)).count();
        let passed = passed as f64 * 100.0 / STRANGERS as f64;
        println!("| {count} | {what} | {bits:.1} | {passed:.2} |");
    };
    let words = usize::try_from(count).unwrap() / 6;
    let place = |hash: u64| usize::try_from((u128::from(hash) * words as u128) >> 64).unwrap();
    let bits = |hash: u64| (0..4).fold(0_u64, |bits, nth| bits | 1 << (hash >> (6 * nth) & 63));
    let mut bloom = vec![0_u64; words];
    listed.iter().for_each(|&hash| bloom[place(hash)] |= bits(hash));
    let in_bloom = |hash: u64| bloom[place(hash)] & bits(hash) == bits(hash);
    let (fuse_ms, fuse) = ms(|| BinaryFuse8::try_from(listed.as_slice()).unwrap());
    let bits_per_name = |bytes: usize| bytes as f64 * 8.0 / count as f64;
    row("blocks of one word", bits_per_name(words * 8), &in_bloom);
    row("binary fuse 8", bits_per_name(fuse.len()), &|hash| fuse.contains(&hash));
    let mut runs = strangers.chunks(LOOKUPS).cycle();
    let mut passed = 0;
    let mut time = |count_in: &dyn Fn(&[u64]) -> usize| {
        fastest_ns(|| passed += runs.next().map_or(0, count_in))
    };
    let bloom_ns = time(&|hashes| hashes.iter().filter(|&&hash| in_bloom(hash)).count());
    let fuse_ns = time(&|hashes| hashes.iter().filter(|hash| fuse.contains(hash)).count());
    black_box(passed);
    println!(
        "{bloom_ns:.1} and {fuse_ns:.1} ns per stranger; the latter takes {fuse_ms:.0} ms to build"
    );
}

/// Looks up names that are not listed, as many as the environment says.
fn strangers() {
    let Ok(count) = std::env::var("FILTER_STRANGERS") else { return };
    let count: u64 = count.parse().unwrap();
    let image = Image::open(compiled(&list(1_000_000))).unwrap();
    let (matcher, asker) = (image.matcher(), asker());
    let taken = (0..count).filter(|&number| {
        matcher.decide(folded(&name('y', number)).as_name().as_bytes(), &asker).is_some()
    });
    assert_eq!(taken.count(), 0, "names that are not listed pass");
    println!("{count} names that are not listed passed a list of 1000000");
}

fn a_million_names(criterion: &mut Criterion) {
    let image = Image::open(compiled(&list(1_000_000))).unwrap();
    let mut group = criterion.benchmark_group("1 million names");
    for (what, kind) in [("unlisted", 'y'), ("listed", 'x')] {
        let questions = Questions::of(kind, DRAWN, 1_000_000);
        let mut names = questions.iter().cycle();
        let asker = asker();
        group.bench_function(what, |bencher| {
            bencher.iter(|| {
                image.matcher().decide(black_box(names.next().unwrap()), &asker).is_some()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, a_million_names);

fn main() {
    println!(
        "| names | read and compile, ms | open, ms | hot, B/name | all, B/name | unlisted and hot, ns | unlisted, ns | listed, ns |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    [10_000, 500_000, 1_000_000, 5_000_000].into_iter().for_each(figures);
    println!("\n| names | filter | bits/name | strangers that pass, % |\n|---|---|---|---|");
    [1_000_000, 5_000_000].into_iter().for_each(filters);
    strangers();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
