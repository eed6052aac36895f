//! What is counted: the steps of a hit and of a miss, each over many names, from one fixed state.
//!
//! Whatever a step needs is made ready before; a step that leaves something behind has new names for each of its operations.

use std::hint::black_box;

use ahash::RandomState;
use heimdall_uring::cache::{Key, Lookup, Shard};
use heimdall_uring::config;
use heimdall_uring::policy::filter::{Asker, Image, Lists};
use heimdall_uring::resolve::exchange::Question;
use heimdall_uring::resolve::scrub::scrub;
use heimdall_uring::serve::{Admission, Core, Verdict};
use heimdall_uring::wire::answer::AnswerBuilder;
use heimdall_uring::wire::response::Section;
use heimdall_uring::wire::{
    AnswerBuf, Class, Encoder, Flags, Header, NameBuf, Query, Rcode, Rtype,
};

use crate::callgrind::counted_here;
use crate::environment;
use crate::material::{
    CLIENT, Filled, answer, blocked_name, filled, key_of, list, listing, name, now, query,
};

/// How often each step is done, unless it is slowed down: enough that the way there and back does not show.
pub(crate) const OPERATIONS: usize = 1_000;

/// Names in the cache, or on the list, from which they are drawn.
const NAMES: usize = 4_000;

/// Numbers of names that are not in the cache.
const ABSENT: usize = 1_000_000;

/// Octets of a shard that has been full long before the first operation.
const SHARD_BYTES: usize = 1 << 20;

/// More names than such a shard holds.
const SHARD_NAMES: usize = 12_000;

/// A step.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Makes ready what does it so many times.
    prepare: fn(usize) -> Box<dyn FnMut()>,
}

/// All of them, in the order in which they run.
pub(crate) const CASES: [Case; 15] = [
    Case { name: "parse/plain", prepare: |count| parse(count, false) },
    Case { name: "parse/edns", prepare: |count| parse(count, true) },
    Case { name: "parse/response", prepare: parse_response },
    Case { name: "hit/whole", prepare: |count| hit(count, filled(NAMES)) },
    Case { name: "hit/foreseen", prepare: hit_foreseen },
    Case { name: "hit/beside a list", prepare: hit_beside_list },
    Case { name: "miss/lookup", prepare: miss_lookup },
    Case { name: "miss/whole", prepare: miss },
    Case { name: "insert/room", prepare: |count| insert(count, 256 << 20, NAMES) },
    Case { name: "insert/full", prepare: |count| insert(count, SHARD_BYTES, SHARD_NAMES) },
    Case { name: "filter/listed", prepare: |count| filter(count, true) },
    Case { name: "filter/unlisted", prepare: |count| filter(count, false) },
    Case { name: "filter/blocked reply", prepare: blocked_reply },
    Case { name: "encode/answer", prepare: encode },
    Case { name: "encode/truncated", prepare: truncate },
];

/// Does them all, with `slow_down_percent` more operations than the counts are divided by, and says on what.
pub(crate) fn run(slow_down_percent: u32) {
    println!("{}", environment::processor());
    let count = OPERATIONS + OPERATIONS * slow_down_percent as usize / 100;
    for case in &CASES {
        let mut work = (case.prepare)(count);
        counted_here(&mut *work);
        // The memory of a cache, given back, would have to be zeroed for the next one, and under callgrind that takes seconds.
        std::mem::forget(work);
    }
}

/// One of the names, at random but always the same.
fn drawn(turn: usize) -> usize {
    turn.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(20) % NAMES
}

fn parse(count: usize, with_edns: bool) -> Box<dyn FnMut()> {
    let messages: Vec<_> = (0..count).map(|turn| query(&name(drawn(turn)), with_edns)).collect();
    Box::new(move || {
        for message in &messages {
            black_box(Query::parse(black_box(message)).unwrap());
        }
    })
}

/// What an upstream says to `message`: one address, the owner as a pointer to the question.
fn response(message: &[u8]) -> Vec<u8> {
    let query = Query::parse(message).unwrap();
    let flags = Flags(Flags::QR | Flags::RD | Flags::RA);
    let header = Header { id: 7, flags, counts: [1, 1, 0, 0] };
    let mut encoder = Encoder::new(header, 512);
    encoder.question(query.qname, query.qtype, query.qclass).unwrap();
    encoder.bytes(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4, 192, 0, 2, 1]).unwrap();
    encoder.into_message()
}

fn scrubbed(message: &[u8], response: &[u8], caps: &config::Cache) -> AnswerBuf {
    scrub(response, &Question::of(&Query::parse(message).unwrap()), caps).unwrap()
}

fn parse_response(count: usize) -> Box<dyn FnMut()> {
    let messages = (0..count).map(|turn| query(&name(drawn(turn)), true));
    let dialogues: Vec<_> = messages.map(|message| (response(&message), message)).collect();
    let caps = config::Cache::default();
    Box::new(move || {
        for (response, message) in &dialogues {
            black_box(scrubbed(message, black_box(response), &caps));
        }
    })
}

/// Answers `messages` and expects a reply to each.
fn reply_to<'m>(core: &mut Core<()>, messages: impl Iterator<Item = &'m Vec<u8>>, out: &mut [u8]) {
    for message in messages {
        let verdict = core.answer(black_box(message), CLIENT, now(), out);
        assert!(matches!(verdict, Verdict::Reply(_)), "not answered from memory");
    }
}

fn hit(count: usize, filled: Filled) -> Box<dyn FnMut()> {
    let Filled { mut core, queries, order } = filled;
    let mut out = vec![0; 1232];
    Box::new(move || {
        let asked = order.iter().take(count).map(|&number| &queries[number]);
        reply_to(&mut core, asked, &mut out);
    })
}

/// In batches, as the node takes datagrams from the ring.
fn hit_foreseen(count: usize) -> Box<dyn FnMut()> {
    let Filled { mut core, queries, order } = filled(NAMES);
    let mut out = vec![0; 1232];
    Box::new(move || {
        for batch in order[..count].chunks(32) {
            let asked = batch.iter().map(|&number| &queries[number]);
            core.foresee(asked.clone().map(Vec::as_slice));
            reply_to(&mut core, asked, &mut out);
        }
    })
}

fn hit_beside_list(count: usize) -> Box<dyn FnMut()> {
    let mut filled = filled(NAMES);
    filled.core.go_by(listing(NAMES));
    hit(count, filled)
}

fn miss_lookup(count: usize) -> Box<dyn FnMut()> {
    let mut shard = shard(256 << 20, NAMES);
    let mut keys: Vec<Key> = (0..count).map(|turn| key_of(ABSENT + turn)).collect();
    Box::new(move || {
        for key in &mut keys {
            assert!(matches!(black_box(shard.lookup(key, now())), Lookup::Absent));
        }
    })
}

/// All that a core does for a forwarded question, the upstream's response at hand.
fn miss(count: usize) -> Box<dyn FnMut()> {
    let Filled { mut core, .. } = filled(NAMES);
    let messages = (0..count).map(|turn| query(&name(ABSENT + turn), true));
    let dialogues: Vec<_> = messages.map(|message| (response(&message), message)).collect();
    let caps = config::Cache::default();
    let mut out = vec![0; 1232];
    Box::new(move || {
        for (response, message) in &dialogues {
            let Verdict::Miss(ticket) = core.answer(black_box(message), CLIENT, now(), &mut out)
            else {
                panic!("answered from memory")
            };
            let admission = core.admit(ticket, (), now(), &mut out, |(), _| {});
            let Admission::Ask(mut asking) = admission else { panic!("not to be asked") };
            let found = scrubbed(message, black_box(response), &caps);
            let onward = core.finish(&mut asking, Ok(found), now(), &mut out, |(), reply| {
                assert!(!black_box(reply).is_empty());
            });
            assert!(onward.is_empty());
        }
    })
}

/// A shard of `bytes` that has learnt `count` names.
fn shard(bytes: usize, count: usize) -> Shard {
    let hasher = RandomState::with_seeds(1, 2, 3, 4);
    let mut shard = Shard::new(&config::Cache::default(), bytes, hasher);
    for number in 0..count {
        let answer = answer(&query(&name(number), true));
        shard.insert(&mut key_of(number), &answer, now().cache, now());
    }
    shard
}

fn insert(count: usize, bytes: usize, resident: usize) -> Box<dyn FnMut()> {
    let mut shard = shard(bytes, resident);
    let fresh = answer(&query(&name(0), true));
    let mut keys: Vec<Key> = (0..count).map(|turn| key_of(ABSENT + turn)).collect();
    Box::new(move || {
        for key in &mut keys {
            black_box(shard.insert(key, black_box(&fresh), now().cache, now()));
        }
    })
}

fn filter(count: usize, is_listed: bool) -> Box<dyn FnMut()> {
    let image = Image::open(list(NAMES)).unwrap();
    let text = move |turn| {
        let number = drawn(turn);
        let plain = if is_listed { format!("{}.", blocked_name(number)) } else { name(number) };
        // As clients ask.
        if turn % 2 == 0 { format!("www.{plain}") } else { plain }
    };
    let names = (0..count).map(|turn| NameBuf::from_text(&text(turn)).unwrap());
    let names: Vec<_> = names.collect();
    let address = CLIENT.address;
    Box::new(move || {
        let asker = Asker { lists: &Lists::ALL, qtype: Rtype::A, address, name: None };
        for name in &names {
            let matcher = image.matcher();
            let found = matcher.decide(black_box(name.as_name().as_bytes()), &asker);
            assert_eq!(black_box(found).is_some(), is_listed);
        }
    })
}

fn blocked_reply(count: usize) -> Box<dyn FnMut()> {
    let mut filled = filled(1);
    filled.core.go_by(listing(NAMES));
    let queries = (0..NAMES).map(|number| query(&format!("{}.", blocked_name(number)), true));
    filled.queries = queries.collect();
    filled.order = (0..count).map(drawn).collect();
    hit(count, filled)
}

/// An answer of `addresses` to `message`.
fn addresses(message: &[u8], addresses: u8) -> AnswerBuf {
    let query = Query::parse(message).unwrap();
    let mut builder =
        AnswerBuilder::new(query.qname, query.qtype, query.qclass, Rcode::NOERROR).unwrap();
    for last in 0..addresses {
        let rdata = [192, 0, 2, last];
        builder.write(Section::Answer, query.qname, Rtype::A, Class::IN, 3_600, &rdata).unwrap();
    }
    builder.finish()
}

fn encode(count: usize) -> Box<dyn FnMut()> {
    let messages: Vec<_> = (0..count).map(|turn| query(&name(drawn(turn)), true)).collect();
    Box::new(move || {
        for message in &messages {
            black_box(addresses(black_box(message), 4));
        }
    })
}

/// A hit whose answer is longer than the client takes: sixty addresses to one who has no EDNS.
fn truncate(count: usize) -> Box<dyn FnMut()> {
    let Filled { mut core, .. } = filled(1);
    let mut out = vec![0; 1232];
    let message = query("many.example.com.", false);
    let Verdict::Miss(ticket) = core.answer(&message, CLIENT, now(), &mut out) else {
        panic!("answered from memory")
    };
    let admission = core.admit(ticket, (), now(), &mut out, |(), _| {});
    let Admission::Ask(mut asking) = admission else { panic!("not to be asked") };
    core.finish(&mut asking, Ok(addresses(&message, 60)), now(), &mut out, |(), reply| {
        assert!(Header::read(reply).unwrap().flags.has(Flags::TC));
    });
    Box::new(move || reply_to(&mut core, std::iter::repeat_n(&message, count), &mut out))
}
