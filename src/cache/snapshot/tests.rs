//! From shards to a file and back, and every way in which the file may be broken. Whole files in memory;
//! `control::snapshot` has the real ones.

use ahash::RandomState;

use super::*;
use crate::cache::invalidate::Flush;
use crate::cache::key::Key;
use crate::cache::origins::Origins;
use crate::cache::restore::Restored;
use crate::cache::shard::Lookup;
use crate::config;
use crate::time::Now;
use crate::wire::answer::AnswerBuilder;
use crate::wire::response::Section;
use crate::wire::{AnswerBuf, Class, NameBuf, Rcode, Rtype};

const BYTES: usize = 4 << 20;

fn shard(bytes: usize) -> Shard {
    // Another key of the hash each time, as in another process.
    Shard::new(&config::Cache::default(), bytes, RandomState::new())
}

fn at(seconds: u64) -> Now {
    Now { cache: CacheTime::from_millis(seconds * 1000), ..Now::default() }
}

fn key(name: &str) -> Key {
    Key::plain(NameBuf::from_text(name).unwrap().as_name(), Rtype::A)
}

/// The key of the same question in a view.
fn key_in(view: u8, name: &str) -> Key {
    let key = key(name);
    let mut bytes = key.as_bytes().to_vec();
    bytes[key.folded_name().len() + 2] = view;
    Key::of_bytes(&bytes).unwrap()
}

/// An answer with so many records per section.
fn answer(name: &str, rcode: Rcode, ttl: u32, counts: [u8; 3]) -> AnswerBuf {
    let name = NameBuf::from_text(name).unwrap();
    let name = name.as_name();
    let mut builder = AnswerBuilder::new(name, Rtype::A, Class::IN, rcode).unwrap();
    let sections = [Section::Answer, Section::Authority, Section::Additional];
    for (section, count) in sections.into_iter().zip(counts) {
        for last in 0..count {
            builder.write(section, name, Rtype::A, Class::IN, ttl, &[192, 0, 2, last]).unwrap();
        }
    }
    builder.finish()
}

fn put(shard: &mut Shard, name: &str, ttl: u32, now: Now) {
    let answer = answer(name, Rcode::NOERROR, ttl, [1, 0, 0]);
    shard.insert(&mut key(name), &answer, now.cache, now);
}

fn found(shard: &mut Shard, name: &str, now: Now) -> &'static str {
    match shard.lookup(&mut key(name), now) {
        Lookup::Fresh { .. } => "fresh",
        Lookup::Denied(_) => "denied",
        Lookup::Stale(_) => "stale",
        Lookup::Absent => "absent",
    }
}

/// The snapshot of all `shards`, one section each.
fn written(shards: &[&Shard], now: Now) -> Vec<u8> {
    written_of(shards, now, &Origins::default())
}

/// The same, of answers that come from `origins`.
fn written_of(shards: &[&Shard], now: Now, origins: &Origins) -> Vec<u8> {
    let sections = u32::try_from(shards.len()).unwrap();
    let (mut framer, mut file) = Framer::begin(sections, now.cache, origins);
    for (section, shard) in (0..).zip(shards) {
        let mut walk = shard.walk(now.cache);
        let mut block = Block::default();
        loop {
            match shard.walk_on(&mut walk, &mut block) {
                Step::More => {}
                Step::Full => {
                    let block = std::mem::take(&mut block);
                    file.extend(framer.block(section, &block));
                    file.extend(block.bytes());
                }
                Step::Done => break,
                Step::Flushed => panic!("nothing is flushed"),
            }
        }
    }
    file.extend(framer.end());
    file
}

fn reader(file: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<(), Flaw> {
    |at, buffer| {
        let at = usize::try_from(at).unwrap();
        buffer.copy_from_slice(&file[at..at + buffer.len()]);
        Ok(())
    }
}

/// Takes in the share of one core.
fn restore(file: &[u8], shard: &mut Shard, share: [usize; 2], now: Now) -> Result<Restored, Flaw> {
    let contents = Contents::survey(file.len() as u64, reader(file))?;
    shard.restore(&contents, share[0], share[1], now.cache, reader(file))
}

/// All cores of a restarted node.
fn restarted(file: &[u8], cores: usize, now: Now) -> Vec<Shard> {
    let start = |core| {
        let mut shard = shard(BYTES);
        restore(file, &mut shard, [core, cores], now).unwrap();
        shard
    };
    (0..cores).map(start).collect()
}

/// A shard with an entry of every form, and what it must answer.
fn every_form() -> (Shard, Vec<(Key, AnswerBuf)>) {
    let mut shard = shard(BYTES);
    let mut held = Vec::new();
    for (number, counts) in
        [[1, 0, 0], [255, 0, 0], [0, 1, 0], [1, 2, 0], [2, 1, 3], [0, 0, 1]].into_iter().enumerate()
    {
        let name = format!("form{number}.example.");
        let answer = answer(&name, Rcode::NOERROR, 300, counts);
        shard.insert(&mut key(&name), &answer, at(9).cache, at(9));
        held.push((key(&name), answer));
    }
    let denial = answer("gone.example.", Rcode::NXDOMAIN, 300, [0, 1, 0]);
    shard.insert(&mut key("gone.example."), &denial, at(9).cache, at(9));
    held.push((key("below.gone.example."), denial));
    let alias = answer("alias.example.", Rcode::NXDOMAIN, 300, [1, 1, 0]);
    shard.insert(&mut key("alias.example."), &alias, at(9).cache, at(9));
    held.push((key("alias.example."), alias));
    (shard, held)
}

fn assert_holds(shard: &mut Shard, held: &[(Key, AnswerBuf)]) {
    for (key, answer) in held {
        let mut key = key.clone();
        let (Lookup::Fresh { answer: found, .. } | Lookup::Denied(found)) =
            shard.lookup(&mut key, at(20))
        else {
            panic!("{key:?} is lost");
        };
        assert_eq!((found.shape, found.stored), (answer.shape, at(9).cache), "{key:?}");
        assert_eq!((found.body, found.ttls), (&*answer.body, &*answer.ttls), "{key:?}");
    }
}

#[test]
fn every_form_of_entry_comes_back_as_it_was() {
    let (shard, held) = every_form();
    let file = written(&[&shard], at(10));
    let mut shards = restarted(&file, 1, at(20));
    assert_eq!(shards[0].len(), held.len());
    assert_holds(&mut shards[0], &held);
    assert_eq!(found(&mut shards[0], "form0.example.", at(308)), "fresh");
    assert_eq!(found(&mut shards[0], "form0.example.", at(309)), "stale", "it ends when it would");
}

#[test]
fn sections_are_dealt_to_however_many_cores_there_are() {
    let names = |core: usize| (0..40).map(move |number| format!("n{number}.core{core}."));
    for (before, after) in [(1, 2), (2, 1), (2, 3), (3, 2), (5, 2)] {
        let mut shards: Vec<Shard> = (0..before).map(|_| shard(BYTES)).collect();
        for (core, shard) in shards.iter_mut().enumerate() {
            names(core).for_each(|name| put(shard, &name, 300, at(0)));
        }
        let file = written(&shards.iter().collect::<Vec<_>>(), at(1));
        let mut shards = restarted(&file, after, at(2));
        for core in 0..before {
            for name in names(core) {
                let holders = shards.iter_mut().map(|shard| found(shard, &name, at(2)));
                let holders = holders.filter(|found| *found == "fresh").count();
                let at_least = (after / before).max(1);
                assert!(holders >= at_least, "{name}: {holders} of {before} to {after}");
            }
        }
        assert!(shards.iter().all(|shard| !shard.is_empty()), "{before} to {after}");
    }
}

#[test]
fn denial_that_comes_back_reaches_no_further_than_zones_of_today() {
    let mut shard = shard(BYTES);
    let denial = answer("example.", Rcode::NXDOMAIN, 300, [0, 1, 0]);
    shard.insert(&mut key("example."), &denial, at(10).cache, at(10));
    assert_eq!(found(&mut shard, "host.corp.example.", at(10)), "denied");
    let file = written(&[&shard], at(11));
    let zone = NameBuf::from_text("corp.example.").unwrap();
    let mut divided = self::shard(BYTES).divided_at(&[zone]);
    assert_eq!(restore(&file, &mut divided, [0, 1], at(12)).unwrap().kept, 1);
    assert_eq!(found(&mut divided, "host.corp.example.", at(12)), "absent");
    assert_eq!(found(&mut divided, "other.example.", at(12)), "denied");
}

/// The origins of a node with a zone of its own, or without.
fn origins(corp: Option<&str>) -> Origins {
    let zone =
        |upstream| format!("[[forward]]\nzone = \"corp.example\"\nupstreams = [\"{upstream}\"]");
    let text = corp.map(zone).unwrap_or_default();
    let file = Some(config::File { name: "node.toml", text: &text });
    Origins::new(&config::Config::load(file, Vec::new(), &[]).unwrap().forward.zones)
}

#[test]
fn only_answers_of_those_who_are_asked_today_come_back() {
    let (none, corp) = (origins(None), origins(Some("10.0.0.1")));
    let other = origins(Some("10.0.0.2"));
    let mut shard = shard(BYTES);
    put(&mut shard, "www.example.", 300, at(10));
    put(&mut shard, "host.corp.example.", 300, at(10));
    let denial = answer("corp.example.", Rcode::NXDOMAIN, 300, [0, 1, 0]);
    shard.insert(&mut key("corp.example."), &denial, at(10).cache, at(10));
    for (before, after, kept) in [
        (&none, &none, 3),
        (&corp, &corp, 3),
        (&none, &corp, 1),
        (&corp, &none, 1),
        (&corp, &other, 1),
    ] {
        let file = written_of(&[&shard], at(11), before);
        let contents = Contents::survey(file.len() as u64, reader(&file)).unwrap().only_of(after);
        let mut back = self::shard(BYTES);
        let now = at(12);
        let restored = back.restore::<Flaw>(&contents, 0, 1, now.cache, reader(&file)).unwrap();
        assert_eq!((restored.kept, restored.strayed), (kept, 3 - kept));
        assert_eq!(found(&mut back, "www.example.", now), "fresh");
        let is_kept = kept == 3;
        assert_eq!(found(&mut back, "host.corp.example.", now) == "fresh", is_kept);
        assert_eq!(found(&mut back, "corp.example.", now) == "denied", is_kept);
    }
}

#[test]
fn what_is_over_or_not_yet_is_left_out() {
    let mut shard = shard(BYTES);
    put(&mut shard, "over.", 5, at(100));
    put(&mut shard, "lasts.", 300, at(100));
    put(&mut shard, "over-by-then.", 60, at(100));
    let file = written(&[&shard], at(110));
    let mut shard = self::shard(BYTES);
    let restored = restore(&file, &mut shard, [0, 1], at(160)).unwrap();
    assert_eq!(restored, Restored { kept: 1, untimely: 1, ..Restored::default() });
    assert_eq!(found(&mut shard, "lasts.", at(160)), "fresh");
    let mut shard = self::shard(BYTES);
    let restored = restore(&file, &mut shard, [0, 1], at(99)).unwrap();
    assert_eq!(restored, Restored { untimely: 2, ..Restored::default() }, "the clock was set back");
}

#[test]
fn what_comes_in_during_the_walk_is_left_out() {
    let mut shard = shard(BYTES);
    put(&mut shard, "before.", 300, at(0));
    let mut walk = shard.walk(at(1).cache);
    put(&mut shard, "meanwhile.", 300, at(1));
    let mut block = Block::default();
    while shard.walk_on(&mut walk, &mut block) != Step::Done {}
    assert_eq!(block.entries, 1);
}

#[test]
fn what_is_for_other_views_is_neither_written_nor_believed() {
    let mut shard = shard(BYTES);
    put(&mut shard, "root.", 300, at(0));
    let own = answer("own.", Rcode::NOERROR, 300, [1, 0, 0]);
    shard.insert(&mut key_in(1, "own."), &own, at(0).cache, at(0));
    let mut walk = shard.walk(at(1).cache);
    let mut block = Block::default();
    while shard.walk_on(&mut walk, &mut block) != Step::Done {}
    assert_eq!(block.entries, 1);
    assert_eq!(
        restore(&written_block(&block), &mut self::shard(BYTES), [0, 1], at(2)).unwrap().kept,
        1
    );
    // Name and tail stand behind a head of 15 octets.
    let view_at = 15 + key("root.").folded_name().len() + 2;
    assert_eq!(block.bytes[view_at], 0);
    block.bytes[view_at] = 1;
    let mut shard = self::shard(BYTES);
    assert_eq!(restore(&written_block(&block), &mut shard, [0, 1], at(2)), Err(Flaw::Entry));
    assert!(shard.is_empty());
}

/// A snapshot of one block.
fn written_block(block: &Block) -> Vec<u8> {
    let (mut framer, mut file) = Framer::begin(1, at(1).cache, &Origins::default());
    file.extend(framer.block(0, block));
    file.extend(block.bytes());
    file.extend(framer.end());
    file
}

#[test]
fn flush_ends_the_walk_and_what_it_forbids_is_left_out() {
    let mut shard = shard(BYTES);
    put(&mut shard, "a.", 300, at(0));
    put(&mut shard, "b.", 300, at(0));
    let mut walk = shard.walk(at(1).cache);
    let name = NameBuf::from_text("a.").unwrap();
    let flush = Flush::Names { name, scope: crate::cache::invalidate::Scope::Exact, rtype: None };
    shard.flush(flush, at(2).cache);
    assert_eq!(shard.walk_on(&mut walk, &mut Block::default()), Step::Flushed);
    let mut shards = restarted(&written(&[&shard], at(3)), 1, at(4));
    assert_eq!(found(&mut shards[0], "a.", at(4)), "absent");
    assert_eq!(found(&mut shards[0], "b.", at(4)), "fresh");
}

#[test]
fn smaller_memory_takes_the_most_valuable() {
    let mut large = shard(8 << 20);
    let mut asked = Vec::new();
    for number in 0..150_000 {
        let name = format!("host{number}.example.");
        put(&mut large, &name, 3600, at(0));
        if number % 50 == 0 {
            found(&mut large, &name, at(1));
            asked.push(name);
        }
    }
    let is_above = |shard: &Shard, name: &str| {
        let place = shard.place_of(&key(name))?;
        Some(entry::mark(shard.slab.entry(place)).segment() > Segment::Probation.number())
    };
    let valuable = asked.iter().filter(|name| is_above(&large, name) == Some(true));
    let valuable: Vec<&String> = valuable.collect();
    assert!(valuable.len() > 500, "{}", valuable.len());
    let file = written(&[&large], at(2));
    let mut small = shard(2 << 20);
    let restored = restore(&file, &mut small, [0, 1], at(2)).unwrap();
    assert!(restored.crowded > 0 && restored.kept > 10_000, "{restored:?}");
    assert_eq!(restored.kept, small.len() as u64);
    assert_eq!(small.tally(), crate::cache::Tally::default(), "nothing had to leave");
    assert!(small.bytes() <= 2 << 20);
    for name in valuable {
        assert_eq!(is_above(&small, name), Some(true), "{name}");
    }
    put(&mut small, "another.", 60, at(3));
    assert_eq!(found(&mut small, "another.", at(3)), "fresh", "and goes on as usual");
}

#[test]
fn what_is_there_already_stays_unless_it_is_older() {
    let mut before = shard(BYTES);
    put(&mut before, "a.", 300, at(10));
    let file = written(&[&before], at(11));
    for (stored, kept) in [(5, 1), (10, 0), (15, 0)] {
        let mut shard = shard(BYTES);
        put(&mut shard, "a.", 300, at(stored));
        let restored = restore(&file, &mut shard, [0, 1], at(20)).unwrap();
        assert_eq!((restored.kept, restored.known, shard.len()), (kept, 1 - kept, 1), "{stored}");
        let end = at(300 + stored.max(10));
        assert_eq!(found(&mut shard, "a.", end), "stale");
    }
}

#[test]
fn walk_takes_small_steps_and_blocks_have_a_bound() {
    let mut shard = shard(16 << 20);
    for number in 0..50_000 {
        put(&mut shard, &format!("host{number}.example."), 3600, at(0));
    }
    let mut walk = shard.walk(at(1).cache);
    let (mut block, mut steps, mut entries) = (Block::default(), 0, 0);
    loop {
        let before = block.bytes.len();
        let step = shard.walk_on(&mut walk, &mut block);
        assert!(block.bytes.len() - before <= PAGE_BYTES && block.bytes.len() <= BLOCK_BYTES_MAX);
        steps += 1;
        match step {
            Step::More => {}
            Step::Full => entries += std::mem::take(&mut block).entries,
            Step::Done => break,
            Step::Flushed => panic!("nothing is flushed"),
        }
    }
    assert_eq!(entries, 50_000);
    assert!(steps > 40, "{steps}");
}

#[test]
fn every_cut_and_every_flipped_bit_is_refused() {
    let (shard, held) = every_form();
    let file = written_of(&[&shard], at(10), &origins(Some("10.0.0.1")));
    let mut empty = self::shard(BYTES);
    let mut refused = |bytes: &[u8]| {
        let outcome = restore(bytes, &mut empty, [0, 1], at(20));
        assert!(empty.is_empty(), "all entries stand in one block");
        outcome.expect_err("a broken file is refused")
    };
    for len in 0..file.len() {
        let flaw = refused(&file[..len]);
        assert!(matches!(flaw, Flaw::Torn | Flaw::Foreign), "{len}: {flaw:?}");
    }
    for bit in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(&flipped);
    }
    for tail in [&b"\0"[..], &file] {
        refused(&[&file[..], tail].concat());
    }
    let mut shards = restarted(&file, 1, at(20));
    assert_holds(&mut shards[0], &held);
}

#[test]
fn flaws_have_their_names() {
    let file = written(&[&every_form().0], at(10));
    let flaw = |at: usize, value: u8| {
        let mut bytes = file.clone();
        bytes[at] ^= value;
        restore(&bytes, &mut shard(BYTES), [0, 1], self::at(20)).unwrap_err()
    };
    assert_eq!(flaw(0, 1), Flaw::Foreign);
    assert_eq!(flaw(8, 3), Flaw::Version(1), "from before zones had upstreams of their own");
    assert_eq!(flaw(24, 1), Flaw::Frame, "a zone that is none");
    assert_eq!(flaw(27, 0x80), Flaw::Frame);
    assert_eq!(flaw(HEAD_BYTES + FRAME_BYTES, 1), Flaw::Checksum);
    assert_eq!(flaw(HEAD_BYTES + 4, 1), Flaw::Frame);
    assert_eq!(flaw(file.len() - 1, 1), Flaw::Checksum);
}

/// What a file says whose checksums are right but one of whose octets is not.
#[test]
fn entry_that_the_cache_could_not_have_held_spoils_the_file() {
    let (shard, _) = every_form();
    let file = written(&[&shard], at(10));
    let contents = Contents::survey(file.len() as u64, reader(&file)).unwrap();
    let [framed] = contents.blocks[..] else { panic!("a small file has one block") };
    let from = usize::try_from(framed.at).unwrap();
    let block = &file[from..from + framed.len];
    let mut refused = 0;
    for at_byte in 0..block.len() {
        let mut bytes = block.to_vec();
        bytes[at_byte] ^= 0x80;
        let block = Block { segment: framed.segment, entries: framed.entries, bytes };
        let (mut framer, head) = Framer::begin(1, at(10).cache, &Origins::default());
        let forged = [&head[..], &framer.block(0, &block), &block.bytes, &framer.end()].concat();
        let mut shard = self::shard(BYTES);
        match restore(&forged, &mut shard, [0, 1], at(20)) {
            Err(flaw) => {
                assert_eq!(flaw, Flaw::Entry, "{at_byte}");
                refused += 1;
            }
            // An octet of an address or of a time says nothing wrong.
            Ok(restored) => assert_eq!(restored.kept, shard.len() as u64),
        }
    }
    assert!(refused > block.len() / 3, "{refused} of {}", block.len());
}

#[test]
fn what_comes_back_lives_no_longer_than_the_limits_of_today() {
    let mut before = shard(BYTES);
    put(&mut before, "long.", 5_000, at(100));
    put(&mut before, "short.", 160, at(100));
    let mut keep = |name: &str, rcode, counts: [u8; 2]| {
        let name = NameBuf::from_text(name).unwrap();
        let name = name.as_name();
        let mut builder = AnswerBuilder::new(name, Rtype::A, Class::IN, rcode).unwrap();
        let target = [192, 0, 2, 1];
        for _ in 0..counts[0] {
            builder.write(Section::Answer, name, Rtype::A, Class::IN, 5_000, &target).unwrap();
        }
        let rtype = if counts[1] > 0 { Rtype::SOA } else { Rtype::TXT };
        let rdata: &[u8] = if counts[1] > 0 { &[0; 22] } else { &[1, b'x'] };
        builder.write(Section::Authority, name, rtype, Class::IN, 4_000, rdata).unwrap();
        let mut key = Key::plain(name, Rtype::A);
        before.insert(&mut key, &builder.finish(), at(100).cache, at(100));
    };
    keep("denied.", Rcode::NXDOMAIN, [0, 1]);
    keep("alias-of-denied.", Rcode::NOERROR, [1, 1]);
    keep("proven.", Rcode::NOERROR, [1, 0]);
    let file = written(&[&before], at(110));
    let section = config::Cache { ttl_max: 100, negative_ttl_max: 40, ..Default::default() };
    let contents = Contents::survey(file.len() as u64, reader(&file)).unwrap().capped(&section);
    let mut after = shard(BYTES);
    let restored = after.restore::<Flaw>(&contents, 0, 1, at(150).cache, reader(&file)).unwrap();
    assert_eq!(restored.kept, 5);
    // Seconds beyond 150, and the TTLs as of when the entry was stored, 50 s before.
    for (name, left, ttls) in [
        ("long.", 100, &[150][..]),
        ("short.", 100, &[150]),
        ("denied.", 40, &[90]),
        ("alias-of-denied.", 40, &[150, 90]),
        ("proven.", 100, &[150, 150]),
    ] {
        let (Lookup::Fresh { answer, .. } | Lookup::Denied(answer)) =
            after.lookup(&mut key(name), at(149 + left))
        else {
            panic!("{name} is over too soon");
        };
        let read = |pair: &[u8; 2]| {
            let at = usize::from(u16::from_le_bytes(*pair));
            u32::from_be_bytes(*answer.body[at..].first_chunk().unwrap())
        };
        assert_eq!(answer.ttls.as_chunks().0.iter().map(read).collect::<Vec<_>>(), ttls, "{name}");
        assert_eq!(found(&mut after, name, at(150 + left)), "stale", "{name}");
    }
    // What was capped is a sound snapshot again.
    let again = written(&[&after], at(151));
    assert_eq!(restore(&again, &mut shard(BYTES), [0, 1], at(152)).unwrap().kept, 5);
}
