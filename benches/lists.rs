//! What does it take to put lists in force, in time and memory, and do huge pages pay for the look-ups?
//!
//! `cargo bench --bench lists`, or with `LISTS_NAMES=5000000`. The list is a file of so many made-up names; memory is the peak of
//! what the process holds (`VmHWM`), above what it held before. Look-ups are of names drawn at random, one after the
//! other; the best of nine rounds, in CPU time.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking, and prints"
)]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock and files")]

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use heimdall_uring::config::{self, Filter, List, ListSource};
use heimdall_uring::control::lists::{Keeper, Setup};
use heimdall_uring::policy::filter::{Asker, Image, Lists};
use heimdall_uring::policy::{Acl, Identity, LocalData, Policy, Published};
use heimdall_uring::sys::frozen::Frozen;
use heimdall_uring::wire::{NameBuf, Rtype};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOOKUPS: usize = 2_000_000;
const ROUNDS: usize = 9;

/// SplitMix64: the same names in every run.
fn mixed(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

/// A name of some twenty octets.
fn name(kind: char, number: u64) -> String {
    let random = mixed(number);
    format!("{:x}{kind}.{:05x}-ads.example", random >> 32, number)
}

/// A line of /proc/self/status, in bytes.
fn memory(line: &str) -> usize {
    memory_of("/proc/self/status", line)
}

fn memory_of(path: &str, line: &str) -> usize {
    let status = std::fs::read_to_string(path).unwrap();
    let text = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    1024 * text.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
}

fn published() -> Arc<Published> {
    let acl = Acl::new(&config::Acl::default());
    let identity = Identity::new(&config::Identity::default());
    Arc::new(Published::new(Policy::new(acl, identity, LocalData::default())))
}

fn begin(directory: &Path, list: &Path) -> (Keeper, Duration) {
    let source = ListSource::File(list.to_owned());
    let filter = Filter {
        directory: Some(directory.to_owned()),
        list_bytes_max: 1 << 30,
        bytes: 16 << 30,
        ..Filter::default()
    };
    let lists = vec![List::new("ads".into(), source, String::new())];
    let setup = Setup {
        filter,
        lists,
        groups: Box::new([Lists::ALL]),
        draw: || Ok(*b"a key of a bench"),
        clock: heimdall_uring::time::CacheTime::default,
    };
    let start = Instant::now();
    let keeper = Keeper::begin(setup, published()).unwrap();
    (keeper, start.elapsed())
}

/// Nanoseconds that this thread has had a CPU: others may want it, too.
fn cpu_ns() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// Nanoseconds per look-up in one round.
fn look_up(image: &[u8], questions: &[NameBuf], is_listed: bool) -> f64 {
    let image = Image::open(image).unwrap();
    let address = [192, 0, 2, 1].into();
    let asker = Asker { lists: &Lists::ALL, qtype: Rtype::A, address, name: None };
    let matcher = image.matcher();
    let start = cpu_ns();
    for question in questions {
        let decision = matcher.decide(black_box(question.as_name().as_bytes()), &asker);
        assert_eq!(decision.is_some(), is_listed);
    }
    (cpu_ns() - start) / questions.len() as f64
}

fn main() {
    let names: u64 = std::env::var("LISTS_NAMES").map_or(1_000_000, |text| text.parse().unwrap());
    let root = std::env::temp_dir().join(format!("heimdall-lists-bench-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let (directory, list) = (root.join("kept"), root.join("ads"));
    let mut file = std::io::BufWriter::new(File::create(&list).unwrap());
    (0..names).for_each(|number| writeln!(file, "||{}^", name('x', number)).unwrap());
    drop(file);
    let text_bytes = std::fs::metadata(&list).unwrap().len();
    let before = memory("VmRSS:");
    let (keeper, built) = begin(&directory, &list);
    let peak = memory("VmHWM:") - before;
    let image_bytes = keeper.counters().image_bytes.value();
    drop(keeper);
    let (keeper, found) = begin(&directory, &list);
    assert_eq!(keeper.counters().built.value(), 0);
    println!(
        "{names} names, {text_bytes} bytes of text: in force after {built:.3?} (image of {image_bytes} bytes), peak {peak} \
         bytes, {} per name without the text; after a restart {found:.3?}",
        (peak - usize::try_from(text_bytes).unwrap()) / usize::try_from(names).unwrap()
    );
    let image = File::open(directory.join("image")).unwrap();
    let len = usize::try_from(image.metadata().unwrap().len()).unwrap();
    let whole = std::fs::read(directory.join("image")).unwrap();
    let hot_bytes = Image::open(&whole).unwrap().footprint().hot_bytes;
    let ask = |kind| -> Vec<NameBuf> {
        let numbers = (0..LOOKUPS).map(|number| mixed(number as u64) % names);
        numbers.map(|number| NameBuf::from_text(&name(kind, number)).unwrap()).collect()
    };
    let (listed, strangers) = (ask('x'), ask('y'));
    let ways = [
        ("vector", None),
        ("file in pages of 4 KiB", Some(Frozen::mapped(&image, len, 0).unwrap())),
        ("front in huge pages", Some(Frozen::mapped(&image, len, hot_bytes).unwrap())),
        ("all in huge pages", Some(Frozen::copied(&whole).unwrap())),
    ];
    println!("{} bytes in huge pages", memory_of("/proc/self/smaps_rollup", "AnonHugePages:"));
    let mut best = [[f64::INFINITY; 2]; 4];
    // In turns, so that what else the machine does falls on all of them.
    for _ in 0..ROUNDS {
        for ((_, frozen), [hit, miss]) in ways.iter().zip(&mut best) {
            let bytes = frozen.as_ref().map_or(whole.as_slice(), AsRef::as_ref);
            *hit = hit.min(look_up(bytes, &listed, true));
            *miss = miss.min(look_up(bytes, &strangers, false));
        }
    }
    for ((way, _), [hit, miss]) in ways.iter().zip(best) {
        println!("{way}: listed {hit:.0} ns, not listed {miss:.0} ns");
    }
    std::fs::remove_dir_all(root).unwrap();
}
