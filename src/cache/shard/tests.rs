//! The shard on its own; tests/cache_model.rs holds it against a model.

use super::*;
use crate::wire::answer::AnswerBuilder;
use crate::wire::response::Section;
use crate::wire::{Class, Encoder, Flags, Header, NameBuf, Query, Rtype};

fn key(name: &str) -> Key {
    let header = Header { id: 0, flags: Flags(0), counts: [1, 0, 0, 0] };
    let mut encoder = Encoder::new(header, 512);
    let name = NameBuf::from_text(name).unwrap();
    encoder.question(name.as_name(), Rtype::A, Class::IN).unwrap();
    let message = encoder.into_message();
    let mut key = Key::default();
    key.set(&Query::parse(&message).unwrap(), 0);
    key
}

fn answer(address: u32, ttl: u32, padding: usize) -> AnswerBuf {
    let qname = NameBuf::from_text("x.example.").unwrap();
    let name = qname.as_name();
    let mut builder = AnswerBuilder::new(name, Rtype::A, Class::IN, Rcode::NOERROR).unwrap();
    let rdata = address.to_be_bytes();
    builder.write(Section::Answer, name, Rtype::A, Class::IN, ttl, &rdata).unwrap();
    if padding > 0 {
        let text = vec![0; padding];
        builder.write(Section::Additional, name, Rtype::TXT, Class::IN, ttl, &text).unwrap();
    }
    builder.finish()
}

fn shard(bytes: usize) -> Shard {
    Shard::new(bytes, RandomState::with_seeds(1, 2, 3, 4))
}

fn at(seconds: u64) -> Now {
    Now { cache: CacheTime::from_millis(seconds * 1000), ..Now::default() }
}

#[test]
fn answer_comes_back_as_it_was_stored() {
    let mut shard = shard(1 << 20);
    let stored = answer(7, 300, 40);
    assert_eq!(shard.insert(&key("a.example."), &stored, at(5)), Insertion::Stored);
    let mut asked = key("A.exAmple.");
    let Lookup::Fresh(found) = shard.lookup(&asked, at(6)) else { panic!("absent") };
    assert_eq!((found.shape, found.body, found.ttls), (stored.shape, &*stored.body, &*stored.ttls));
    assert_eq!(found.stored, at(5).cache);
    asked = key("b.example.");
    assert!(matches!(shard.lookup(&asked, at(6)), Lookup::Absent));
}

#[test]
fn lifetime_ends_to_the_millisecond() {
    let mut shard = shard(1 << 20);
    let key = key("a.example.");
    shard.insert(&key, &answer(7, 10, 0), at(100));
    let last = CacheTime::from_millis(109_999);
    assert!(matches!(shard.lookup(&key, Now { cache: last, ..at(0) }), Lookup::Fresh(_)));
    assert!(matches!(shard.lookup(&key, at(110)), Lookup::Absent));
}

#[test]
fn newer_answer_replaces_the_older_even_when_it_cannot_stay() {
    let mut shard = shard(1 << 20);
    let key = key("a.example.");
    shard.insert(&key, &answer(1, 300, 0), at(0));
    shard.insert(&key, &answer(2, 300, 500), at(1));
    assert_eq!(shard.len(), 1);
    let Lookup::Fresh(found) = shard.lookup(&key, at(2)) else { panic!("absent") };
    assert_eq!(found.body[12..16], 2u32.to_be_bytes());
    assert_eq!(shard.insert(&key, &answer(3, 0, 0), at(3)), Insertion::NotCacheable);
    assert!(matches!(shard.lookup(&key, at(3)), Lookup::Absent));
}

#[test]
fn full_shard_stays_within_its_bytes_and_keeps_what_is_asked_for() {
    let bytes = 1 << 20;
    let mut shard = shard(bytes);
    let favourite = key("favourite.example.");
    shard.insert(&favourite, &answer(1, 3600, 0), at(0));
    for number in 0..50_000 {
        let key = key(&format!("host{number}.example."));
        shard.insert(&key, &answer(number, 3600, 0), at(0));
        assert!(matches!(shard.lookup(&favourite, at(1)), Lookup::Fresh(_)), "{number}");
    }
    assert!(shard.bytes() <= bytes, "{} of {bytes}", shard.bytes());
    assert!(shard.len() > 5_000, "{}", shard.len());
    assert_eq!(shard.evictions() + shard.len() as u64, 50_001);
}

#[test]
fn giant_answer_is_refused_and_harms_nothing() {
    let mut shard = shard(1 << 20);
    shard.insert(&key("a.example."), &answer(1, 60, 0), at(0));
    let giant = answer(1, 60, 65_460);
    assert_eq!(shard.insert(&key("b.example."), &giant, at(0)), Insertion::TooLarge);
    assert!(matches!(shard.lookup(&key("a.example."), at(1)), Lookup::Fresh(_)));
    assert!(!shard.remove(&key("b.example.")) && shard.remove(&key("a.example.")));
    assert!(shard.is_empty());
}
