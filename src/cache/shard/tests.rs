//! The shard on its own; tests/cache_model.rs holds it against a model.

use super::super::coherence::Notice;
use super::super::inspect::Explanation;
use super::super::invalidate::{Flush, Scope};
use super::*;
use crate::wire::answer::AnswerBuilder;
use crate::wire::response::Section;
use crate::wire::{Class, NameBuf, Rcode, Rtype};

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

fn denial(name: &str, ttl: u32) -> AnswerBuf {
    let name = NameBuf::from_text(name).unwrap();
    let name = name.as_name();
    let mut builder = AnswerBuilder::new(name, Rtype::A, Class::IN, Rcode::NXDOMAIN).unwrap();
    builder.write(Section::Authority, name, Rtype::SOA, Class::IN, ttl, &[0; 22]).unwrap();
    builder.finish()
}

fn shard(bytes: usize) -> Shard {
    with(config::Cache::default(), bytes)
}

fn with(section: config::Cache, bytes: usize) -> Shard {
    Shard::new(&section, bytes, RandomState::with_seeds(1, 2, 3, 4))
}

fn at(seconds: u64) -> Now {
    at_millis(seconds * 1000)
}

fn at_millis(millis: u64) -> Now {
    Now { cache: CacheTime::from_millis(millis), ..Now::default() }
}

fn put(shard: &mut Shard, name: &str, answer: &AnswerBuf, now: Now) -> Insertion {
    shard.insert(&mut key(name), answer, now.cache, now)
}

/// What a lookup finds, in a word.
fn found(shard: &mut Shard, name: &str, now: Now) -> &'static str {
    match shard.lookup(&mut key(name), now) {
        Lookup::Fresh { is_due: false, .. } => "fresh",
        Lookup::Fresh { is_due: true, .. } => "due",
        Lookup::Denied(_) => "denied",
        Lookup::Stale(_) => "stale",
        Lookup::Absent => "absent",
    }
}

#[test]
fn answer_comes_back_as_it_was_stored() {
    let mut shard = shard(1 << 20);
    let stored = answer(7, 300, 40);
    assert_eq!(put(&mut shard, "a.example.", &stored, at(5)), Insertion::Stored);
    let mut asked = key("A.exAmple.");
    let Lookup::Fresh { answer: found, .. } = shard.lookup(&mut asked, at(6)) else {
        panic!("absent")
    };
    assert_eq!((found.shape, found.body, found.ttls), (stored.shape, &*stored.body, &*stored.ttls));
    assert_eq!(found.stored, at(5).cache);
    assert!(matches!(shard.lookup(&mut key("b.example."), at(6)), Lookup::Absent));
}

#[test]
fn lifetime_ends_to_the_millisecond_and_the_stale_window_too() {
    let mut shard = shard(1 << 20);
    put(&mut shard, "a.example.", &answer(7, 10, 0), at(100));
    let over = 110_000 + 86_400_000;
    for (millis, expected) in
        [(109_999, "fresh"), (110_000, "stale"), (over - 1, "stale"), (over, "absent")]
    {
        assert_eq!(found(&mut shard, "a.example.", at_millis(millis)), expected, "{millis}");
    }
}

#[test]
fn what_was_stored_in_the_future_is_of_no_use() {
    let mut shard = shard(1 << 20);
    put(&mut shard, "a.example.", &answer(7, 300, 0), at(100_000));
    put(&mut shard, "no.example.", &denial("no.example.", 300), at(100_000));
    assert_eq!(found(&mut shard, "a.example.", at_millis(99_998_000)), "fresh", "a correction");
    for name in ["a.example.", "no.example.", "sub.no.example."] {
        assert_eq!(found(&mut shard, name, at_millis(99_997_999)), "absent", "{name}");
    }
    put(&mut shard, "a.example.", &answer(8, 300, 0), at(10_000));
    assert_eq!(found(&mut shard, "a.example.", at(10_150)), "fresh");
    assert_eq!(found(&mut shard, "a.example.", at(10_300)), "stale");
}

#[test]
fn clock_set_back_does_not_leave_flushes_in_force() {
    for flush in [Flush::All, Flush::Type(Rtype::A)] {
        let mut shard = shard(1 << 20);
        put(&mut shard, "old.", &answer(7, 300, 0), at(100_000));
        shard.flush(flush, at(100_000).cache);
        while shard.sweep(at(50_000).cache) {}
        assert_eq!(put(&mut shard, "a.", &answer(7, 300, 0), at(50_000)), Insertion::Flushed);
        assert_eq!(put(&mut shard, "a.", &answer(7, 300, 0), at(50_001)), Insertion::Stored);
        assert_eq!(found(&mut shard, "a.", at(50_001)), "fresh");
        assert_eq!(found(&mut shard, "old.", at(50_001)), "absent");
        let late = at(100_000).cache;
        let outcome = shard.insert(&mut key("b."), &answer(7, 300, 0), late, at(50_002));
        assert_eq!(outcome, Insertion::Flushed, "asked for before the clock was set back");
    }
}

#[test]
fn of_two_stale_answers_the_later_one_counts() {
    let mut shard = shard(1 << 20);
    put(&mut shard, "a.example.", &answer(7, 60, 0), at(0));
    let mut other = Key::plain(NameBuf::from_text("a.example.").unwrap().as_name(), Rtype::MX);
    shard.insert(&mut other, &denial("a.example.", 60), at(100).cache, at(100));
    let Lookup::Stale(stale) = shard.lookup(&mut key("a.example."), at(200)) else { panic!() };
    assert_eq!(stale.shape.rcode, Rcode::NXDOMAIN);
}

#[test]
fn name_that_exists_has_ancestors_that_exist() {
    let mut shard = shard(1 << 20);
    put(&mut shard, "no.example.", &denial("no.example.", 300), at(0));
    put(&mut shard, "other.", &denial("other.", 300), at(0));
    put(&mut shard, "sub.deep.no.example.", &answer(7, 300, 0), at(1));
    assert_eq!(found(&mut shard, "no.example.", at(1)), "absent");
    assert_eq!(found(&mut shard, "x.other.", at(1)), "denied");
    assert_eq!(shard.denials, 1);
}

#[test]
fn without_a_stale_window_nothing_is_stale() {
    let section = config::Cache { stale_max: std::time::Duration::ZERO, ..Default::default() };
    let mut shard = with(section, 1 << 20);
    put(&mut shard, "a.example.", &answer(7, 10, 0), at(100));
    assert_eq!(found(&mut shard, "a.example.", at(110)), "absent");
}

#[test]
fn popular_answer_is_due_once_in_its_last_tenth() {
    let mut shard = shard(1 << 20);
    put(&mut shard, "popular.", &answer(7, 100, 0), at(0));
    put(&mut shard, "brief.", &answer(7, 9, 0), at(0));
    for name in ["popular.", "brief."] {
        assert_eq!(found(&mut shard, name, at(0)), "fresh");
    }
    assert_eq!(found(&mut shard, "popular.", at_millis(89_999)), "fresh");
    assert_eq!(found(&mut shard, "popular.", at(90)), "due");
    assert_eq!(found(&mut shard, "popular.", at(90)), "fresh", "said once");
    assert_eq!(found(&mut shard, "brief.", at_millis(8_500)), "fresh", "too short a life");
    put(&mut shard, "popular.", &answer(7, 100, 0), at(95));
    assert_eq!(found(&mut shard, "popular.", at(190)), "due", "popular still, and anew");
}

#[test]
fn answer_asked_for_once_is_not_due_and_prefetch_can_be_switched_off() {
    let mut on = shard(1 << 20);
    put(&mut on, "a.", &answer(7, 100, 0), at(0));
    assert_eq!(found(&mut on, "a.", at(95)), "fresh");
    let mut off = with(config::Cache { prefetch: false, ..Default::default() }, 1 << 20);
    put(&mut off, "a.", &answer(7, 100, 0), at(0));
    for _ in 0..3 {
        assert_eq!(found(&mut off, "a.", at(95)), "fresh");
    }
}

#[test]
fn denial_holds_for_all_types_and_all_names_below_until_it_is_over() {
    let mut shard = shard(1 << 20);
    put(&mut shard, "old.no.example.", &answer(1, 300, 0), at(0));
    put(&mut shard, "no.example.", &denial("no.example.", 60), at(0));
    for name in ["no.example.", "a.no.example.", "b.a.no.example."] {
        assert_eq!(found(&mut shard, name, at(59)), "denied", "{name}");
    }
    for name in ["example.", "xno.example.", "other.example."] {
        assert_eq!(found(&mut shard, name, at(59)), "absent", "{name}");
    }
    assert_eq!(found(&mut shard, "old.no.example.", at(59)), "fresh", "what is known stays");
    let mut other_type =
        Key::plain(NameBuf::from_text("no.example.").unwrap().as_name(), Rtype::MX);
    assert!(matches!(shard.lookup(&mut other_type, at(1)), Lookup::Denied(_)));
    assert_eq!(found(&mut shard, "no.example.", at(60)), "stale");
    assert_eq!(found(&mut shard, "a.no.example.", at(60)), "absent", "stale denials cut nothing");
    put(&mut shard, "no.example.", &answer(1, 300, 0), at(61));
    assert_eq!(found(&mut shard, "no.example.", at(61)), "fresh");
    assert!(matches!(shard.lookup(&mut other_type, at(61)), Lookup::Absent));
    assert_eq!(shard.denials, 0);
}

#[test]
fn views_know_nothing_of_each_other() {
    let mut shard = shard(1 << 20);
    for view in [0, 1] {
        let address = u32::from(view) + 7;
        shard.insert(
            &mut key_in(view, "a.no.example."),
            &answer(address, 60, 0),
            at(0).cache,
            at(0),
        );
    }
    shard.insert(&mut key_in(1, "no.example."), &denial("no.example.", 60), at(2).cache, at(2));
    let mut word = |view, name: &str, now| match shard.lookup(&mut key_in(view, name), now) {
        Lookup::Fresh { answer, .. } => format!("{}", answer.body.last().unwrap()),
        Lookup::Denied(_) => "denied".to_owned(),
        Lookup::Stale(_) => "stale".to_owned(),
        Lookup::Absent => "absent".to_owned(),
    };
    assert_eq!([0, 1, 2].map(|view| word(view, "a.no.example.", at(3))), ["7", "8", "absent"]);
    assert_eq!(
        [0, 1, 2].map(|view| word(view, "no.example.", at(3))),
        ["absent", "denied", "absent"]
    );
    assert_eq!(
        [0, 1, 2].map(|view| word(view, "b.no.example.", at(3))),
        ["absent", "denied", "absent"]
    );
    assert_eq!(
        [0, 1, 2].map(|view| word(view, "a.no.example.", at(70))),
        ["stale", "stale", "absent"]
    );
}

#[test]
fn what_another_core_got_in_one_view_says_nothing_about_others() {
    let (mut here, mut there) = (shard(1 << 20), shard(1 << 20));
    for view in [0, 1] {
        here.insert(&mut key_in(view, "a."), &answer(7, 300, 0), at(0).cache, at(0));
    }
    let news = answer(8, 300, 0);
    there.insert(&mut key_in(1, "a."), &news, at(1).cache, at(1));
    let notice = there.notice(&key_in(1, "a."), &news, at(1).cache);
    let Some(Notice::Stored(stored)) = notice else { panic!("{notice:?}") };
    here.heed(&stored, at(2).cache);
    let is_fresh =
        |view| matches!(here.lookup(&mut key_in(view, "a."), at(2)), Lookup::Fresh { .. });
    assert_eq!([0, 1].map(is_fresh), [true, false]);
}

/// Names below `corp.example.` and `lab.corp.example.` are asked of servers of their own.
fn divided() -> Shard {
    let zones = ["corp.example.", "LAB.corp.example."];
    shard(1 << 20).divided_at(&zones.map(|zone| NameBuf::from_text(zone).unwrap()))
}

#[test]
fn denial_above_a_zone_says_nothing_about_the_names_in_it() {
    let mut shard = divided();
    put(&mut shard, "example.", &denial("example.", 60), at(0));
    for name in ["corp.example.", "host.corp.example.", "host.lab.corp.example."] {
        assert_eq!(found(&mut shard, name, at(1)), "absent", "{name}");
        assert!(matches!(shard.explain(&mut key(name), at(1).cache), Explanation::Absent));
    }
    for name in ["example.", "other.example.", "xcorp.example.", "corp.other.example."] {
        assert_eq!(found(&mut shard, name, at(1)), "denied", "{name}");
    }
}

#[test]
fn denial_within_a_zone_holds_below_itself_up_to_the_next_zone() {
    let mut shard = divided();
    put(&mut shard, "a.corp.example.", &denial("a.corp.example.", 60), at(0));
    assert_eq!(found(&mut shard, "b.a.corp.example.", at(1)), "denied");
    assert_eq!(found(&mut shard, "b.corp.example.", at(1)), "absent");
    put(&mut shard, "corp.example.", &denial("corp.example.", 60), at(0));
    assert_eq!(found(&mut shard, "b.corp.example.", at(1)), "denied", "its own apex");
    assert_eq!(found(&mut shard, "lab.corp.example.", at(1)), "absent");
    put(&mut shard, "a.lab.corp.example.", &denial("a.lab.corp.example.", 60), at(0));
    assert_eq!(found(&mut shard, "b.a.lab.corp.example.", at(1)), "denied");
    assert_eq!(found(&mut shard, "b.lab.corp.example.", at(1)), "absent");
}

#[test]
fn name_that_exists_in_a_zone_says_nothing_about_those_above() {
    let mut shard = divided();
    for name in ["example.", "corp.example.", "a.lab.corp.example."] {
        put(&mut shard, name, &denial(name, 60), at(0));
    }
    put(&mut shard, "b.a.lab.corp.example.", &answer(1, 60, 0), at(0));
    assert_eq!(found(&mut shard, "a.lab.corp.example.", at(1)), "absent");
    for name in ["corp.example.", "example.", "host.corp.example."] {
        assert_eq!(found(&mut shard, name, at(1)), "denied", "{name}");
    }
}

#[test]
fn cut_can_be_switched_off_but_the_name_itself_stays_denied() {
    let mut shard = with(config::Cache { nxdomain_cut: false, ..Default::default() }, 1 << 20);
    put(&mut shard, "no.example.", &denial("no.example.", 60), at(0));
    assert_eq!(found(&mut shard, "no.example.", at(1)), "denied");
    assert_eq!(found(&mut shard, "a.no.example.", at(1)), "absent");
}

#[test]
fn newer_answer_replaces_the_older_even_when_it_cannot_stay() {
    let mut shard = shard(1 << 20);
    for (version, padding) in [(1, 0), (2, 500), (3, 500), (4, 0)] {
        put(&mut shard, "a.example.", &answer(version, 300, padding), at(0));
        assert_eq!(shard.len(), 1);
        let mut key = key("a.example.");
        let Lookup::Fresh { answer, .. } = shard.lookup(&mut key, at(1)) else { panic!("absent") };
        assert_eq!(answer.body[12..16], version.to_be_bytes());
    }
    let outcome = put(&mut shard, "a.example.", &answer(5, 0, 0), at(3));
    assert_eq!((outcome, shard.len()), (Insertion::NotCacheable, 0));
    assert_eq!(found(&mut shard, "a.example.", at(3)), "absent");
}

#[test]
fn full_shard_stays_within_its_bytes_and_keeps_what_is_asked_for() {
    let bytes = 2 << 20;
    let mut shard = shard(bytes);
    put(&mut shard, "favourite.example.", &answer(1, 3600, 0), at(0));
    for number in 0..100_000 {
        put(&mut shard, &format!("host{number}.example."), &answer(number, 3600, 0), at(0));
        assert_eq!(found(&mut shard, "favourite.example.", at(1)), "fresh", "{number}");
        assert!(shard.bytes() <= bytes, "{} of {bytes}", shard.bytes());
    }
    assert!(shard.len() > 20_000, "{}", shard.len());
    assert_eq!(shard.tally().evictions + shard.len() as u64, 100_001);
}

#[test]
fn what_is_asked_for_often_becomes_hot_under_pressure() {
    let mut shard = shard(2 << 20);
    for number in 0..100_000 {
        let name = format!("host{number}.example.");
        put(&mut shard, &name, &answer(number, 3600, 0), at(0));
        found(&mut shard, &name, at(1));
        put(&mut shard, "favourite.example.", &answer(1, 3600, 0), at(0));
        for _ in 0..3 {
            assert_eq!(found(&mut shard, "favourite.example.", at(1)), "fresh", "{number}");
        }
    }
    let place = shard.place_of(&key("favourite.example.")).unwrap();
    let segment = entry::mark(shard.slab.entry(place)).segment();
    assert_eq!(Segment::of(segment), Segment::Hot);
}

#[test]
fn scan_does_not_wash_out_what_is_used() {
    let mut shard = shard(2 << 20);
    let names: Vec<String> = (0..5_000).map(|number| format!("used{number}.example.")).collect();
    for name in &names {
        put(&mut shard, name, &answer(1, 3600, 0), at(0));
        found(&mut shard, name, at(0));
        found(&mut shard, name, at(0));
    }
    for number in 0..60_000 {
        put(&mut shard, &format!("scan{number}.example."), &answer(1, 3600, 0), at(0));
    }
    let kept = names.iter().filter(|name| found(&mut shard, name, at(0)) == "fresh").count();
    assert!(kept > 4_500, "{kept} of 5000");
}

#[test]
fn name_that_returns_soon_needs_not_prove_itself_again() {
    let mut shard = shard(2 << 20);
    let begin = shard.probation_share();
    for number in 0..60_000 {
        put(&mut shard, &format!("host{number}.example."), &answer(1, 3600, 0), at(0));
    }
    let gone = (0..60_000).rev().map(|number| format!("host{number}.example."));
    let gone = gone.filter(|name| shard.place_of(&key(name)).is_none()).take(1).next().unwrap();
    // Some strangers are taken for names that return.
    let returns = shard.tally().returns;
    assert!(returns < 60, "{returns}");
    put(&mut shard, &gone, &answer(1, 3600, 0), at(0));
    let place = shard.place_of(&key(&gone)).unwrap();
    let segment = entry::mark(shard.slab.entry(place)).segment();
    assert_eq!((Segment::of(segment), shard.tally().returns), (Segment::Protected, returns + 1));
    assert!(shard.probation_share() > begin);
}

#[test]
fn giant_answer_is_refused_and_harms_nothing() {
    let mut shard = shard(2 << 20);
    put(&mut shard, "a.example.", &answer(1, 60, 0), at(0));
    let giant = answer(1, 60, 65_470);
    assert_eq!(put(&mut shard, "b.example.", &giant, at(0)), Insertion::TooLarge);
    for number in 0..300 {
        let large = answer(1, 60, 65_000);
        assert_eq!(put(&mut shard, &format!("c{number}."), &large, at(0)), Insertion::Stored);
    }
    assert!(!shard.remove(&key("b.example.")) && shard.remove(&key("c299.")));
    assert_eq!(found(&mut shard, "c298.", at(1)), "fresh");
}

#[test]
fn what_is_over_makes_room_without_a_word() {
    let section = config::Cache { stale_max: std::time::Duration::ZERO, ..Default::default() };
    let mut shard = with(section, 2 << 20);
    for number in 0..60_000 {
        let now = at(number / 100);
        put(&mut shard, &format!("host{number}.example."), &answer(1, 1, 0), now);
    }
    let tally = shard.tally();
    assert!(tally.expirations > 20_000 && tally.evictions == 0, "{tally:?}");
}

#[test]
fn flush_holds_at_once_and_the_sweep_ends() {
    let mut shard = shard(4 << 20);
    for number in 0..5_000 {
        put(&mut shard, &format!("host{number}.example."), &answer(1, 3600, 0), at(0));
        put(&mut shard, &format!("host{number}.other."), &answer(1, 3600, 0), at(0));
    }
    let name = NameBuf::from_text("example.").unwrap();
    let flush = Flush::Names { name, scope: Scope::Subtree, rtype: None };
    shard.flush(flush, at(1).cache);
    assert_eq!(found(&mut shard, "host7.example.", at(1)), "absent");
    assert_eq!(found(&mut shard, "host7.other.", at(1)), "fresh");
    let late = shard.insert(&mut key("host7.example."), &answer(1, 60, 0), at(1).cache, at(2));
    assert_eq!(late, Insertion::Flushed, "asked for before the flush");
    assert_eq!(put(&mut shard, "host7.example.", &answer(1, 60, 0), at(2)), Insertion::Stored);
    let steps = (0..1_000).take_while(|_| shard.sweep(at(2).cache)).count();
    assert_eq!((steps, shard.len()), (shard.index.segments(), 5_001));
    assert_eq!(shard.tally().flushed, 4_999, "one was overwritten first");
    assert_eq!(found(&mut shard, "host7.example.", at(3)), "fresh");
}

#[test]
fn too_many_flushes_become_one_of_everything() {
    let mut shard = shard(4 << 20);
    put(&mut shard, "a.", &answer(1, 3600, 0), at(0));
    for number in 0..65 {
        assert_eq!(found(&mut shard, "a.", at(0)), "fresh", "{number}");
        let name = NameBuf::from_text(&format!("b{number}.")).unwrap();
        shard.flush(Flush::Names { name, scope: Scope::Exact, rtype: None }, at(0).cache);
    }
    assert!(shard.is_empty());
}

#[test]
fn hot_segment_that_is_switched_off_empties_and_fills_again() {
    let mut shard = shard(2 << 20);
    let bytes = |shard: &Shard| shard.queues[usize::from(Segment::Hot.number())].bytes();
    let press = |shard: &mut Shard, round: u32| {
        for number in 0..60_000 {
            // Asked for once, it comes to the protected segment, so that others have to leave that.
            let name = format!("host{round}-{number}.example.");
            put(shard, &name, &answer(1, 3600, 0), at(0));
            found(shard, &name, at(1));
            let name = format!("used{}.example.", number % 3_000);
            put(shard, &name, &answer(1, 3600, 0), at(0));
            for _ in 0..4 {
                assert_eq!(found(shard, &name, at(1)), "fresh");
            }
        }
    };
    press(&mut shard, 0);
    let promoted = shard.tally().promotions;
    assert!(bytes(&shard) > PAGE_BYTES && promoted > 1_000, "{promoted}");
    shard.keep_hot_segment(false);
    press(&mut shard, 1);
    assert!(bytes(&shard) <= PAGE_BYTES, "a page that is still open is all that is left");
    assert_eq!(shard.tally().promotions, promoted);
    shard.keep_hot_segment(true);
    press(&mut shard, 2);
    assert!(bytes(&shard) > PAGE_BYTES && shard.tally().promotions > promoted);
}
