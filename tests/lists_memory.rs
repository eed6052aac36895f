//! What lists take in memory stays within `filter.memory`, whatever their rules consist of: a counting allocator watches lists
//! being compiled, at the start and beside an image in force.
#![cfg(feature = "node")]
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;

use heimdall_uring::config::{self, Filter, List, ListSource, ListSyntax};
use heimdall_uring::control::lists::{Keeper, Order, Setup};
use heimdall_uring::policy::filter::Lists;
use heimdall_uring::policy::{Acl, Identity, LocalData, Policy, Published};
use heimdall_uring::time::CacheTime;

/// Remembers how much was allocated at most.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged; only two numbers are touched beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(held, Relaxed);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `block` came from `alloc` above with the same layout, so from the system allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// `filter.memory`.
const BYTES: usize = 16 << 20;

/// What threads, channels and the log take beside.
const BESIDE: usize = 64 << 10;

/// Length of a list.
const LIST_BYTES: usize = 4 << 20;

/// A list of lines, each made of its number.
fn list(line: impl Fn(u32, &mut String)) -> String {
    let mut text = String::with_capacity(LIST_BYTES + 4_096);
    for number in 0.. {
        line(number, &mut text);
        text.push('\n');
        if text.len() >= LIST_BYTES {
            break;
        }
    }
    text
}

/// The lines of a list that is larger than the memory.
type Line = fn(u32, &mut String);

const LISTS: [(&str, ListSyntax, Line); 12] = [
    ("names", ListSyntax::Adblock, |number, out| write!(out, "||n{number}.test^").unwrap()),
    ("long names", ListSyntax::Domains, |number, out| {
        write!(out, "{}.{}.n{number}.test", "a".repeat(63), "b".repeat(63)).unwrap();
    }),
    ("one exception", ListSyntax::Adblock, |number, out| {
        write!(out, "||n{number}.test^$denyallow=a{number}.test").unwrap();
    }),
    ("many exceptions", ListSyntax::Adblock, |number, out| {
        write!(out, "||n{number}.test^$denyallow=a{number}.test").unwrap();
        (0..99).for_each(|other| write!(out, "|x{number}-{other}.test").unwrap());
    }),
    ("clients at addresses", ListSyntax::Adblock, |number, out| {
        let [_, a, b, c] = number.to_be_bytes();
        write!(out, "||n{number}.test^$client=10.{a}.{b}.{c}").unwrap();
    }),
    ("clients by name", ListSyntax::Adblock, |number, out| {
        write!(out, "||n{number}.test^$client=c{number}|d{number}").unwrap();
    }),
    ("types", ListSyntax::Adblock, |number, out| {
        write!(
            out,
            "||n{number}.test^$dnstype=TYPE{}|TYPE{}",
            1_000 + number % 50_000,
            1_000 + number / 7 % 50_000
        )
        .unwrap();
    }),
    ("aliases", ListSyntax::Adblock, |number, out| {
        write!(out, "||n{number}.test^$dnsrewrite=a{number}.test").unwrap();
    }),
    ("taken back", ListSyntax::Adblock, |number, out| {
        write!(out, "||n{}.test^$denyallow=a{}.test", number / 2, number / 2).unwrap();
        out.push_str(if number % 2 == 0 { ",badfilter" } else { "" });
    }),
    ("hosts", ListSyntax::Hosts, |number, out| {
        let [_, a, b, c] = number.to_be_bytes();
        write!(out, "10.{a}.{b}.{c} n{number}").unwrap();
    }),
    ("networks", ListSyntax::Rpz, |number, out| {
        let [_, a, b, c] = number.to_be_bytes();
        write!(out, "32.{c}.{b}.{a}.10.rpz-ip A 10.{a}.{b}.{c}").unwrap();
    }),
    ("records", ListSyntax::Rpz, |number, out| {
        let [_, a, b, c] = number.to_be_bytes();
        write!(out, "n{number} A 10.{a}.{b}.{c}\n A 11.{a}.{b}.{c}").unwrap();
    }),
];

#[test]
fn lists_stay_within_their_memory_whatever_they_consist_of() {
    let directory = std::env::temp_dir().join(format!("heimdall-memory-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    for (what, syntax, line) in LISTS {
        let path = directory.join("list");
        std::fs::write(&path, list(line)).unwrap();
        let source = ListSource::File(path.clone());
        let list = List { syntax: Some(syntax), ..List::new("a".into(), source, String::new()) };
        let filter = Filter { bytes: BYTES, list_bytes_max: 2 * LIST_BYTES, ..Filter::default() };
        let setup = Setup {
            filter,
            lists: vec![list],
            groups: Box::new([Lists::ALL]),
            draw: || Ok(*b"sixteen octets.."),
            clock: CacheTime::default,
        };
        let acl = Acl::new(&config::Acl::default());
        let identity = Identity::new(&config::Identity::default());
        let policy = Policy::new(acl, identity, LocalData::default());
        let published = Arc::new(Published::new(policy));
        let before = HELD.load(Relaxed);
        MOST.store(before, Relaxed);
        let keeper = Keeper::begin(setup, published).unwrap();
        let counters = keeper.counters();
        let rules = counters.lists()[0].rules.value();
        assert!(rules > 100 && counters.lists()[0].left_out_lines.value() > 100, "{what}: {rules}");
        assert_eq!(counters.lists()[0].skipped_lines.value(), 0, "{what}");
        // The image lies in memory of its own, which the allocator does not see.
        let image_bytes = usize::try_from(counters.image_bytes.value()).unwrap();
        let most = MOST.load(Relaxed) - before;
        assert!(most + image_bytes <= BYTES + BESIDE, "{what}: {most} and {image_bytes}");
        // The next one, beside the one in force.
        let mut text = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut text, b"; more\n").unwrap();
        MOST.store(HELD.load(Relaxed), Relaxed);
        let (orders, received) = channel();
        orders.send(Order::Refresh).unwrap();
        drop(orders);
        keeper.run(&received);
        assert_eq!((counters.built.value(), counters.failed.value()), (2, 0), "{what}");
        assert!(counters.lists()[0].rules.value().abs_diff(rules) <= 1, "{what}");
        let most = MOST.load(Relaxed) - before;
        assert!(most + image_bytes <= BYTES + BESIDE, "{what}: {most} and {image_bytes}, again");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
