//! The shard against a model that forgets nothing: whatever the shard serves, the model must hold, and as long as nothing
//! had to make room, the shard must serve whatever the model holds. Now and then it survives a restart as a snapshot.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use ahash::RandomState;
use heimdall_uring::cache::snapshot::{Block, Contents, Flaw, Framer, Step};
use heimdall_uring::cache::{Flush, Insertion, Key, Lookup, Origins, Scope, Shard};
use heimdall_uring::config;
use heimdall_uring::time::{CacheTime, Now};
use heimdall_uring::wire::answer::AnswerBuilder;
use heimdall_uring::wire::response::Section;
use heimdall_uring::wire::{AnswerBuf, Class, NameBuf, Rcode, Rtype};

/// Steps of one run. With all runs below: two million.
const STEPS: u32 = 250_000;

const STALE_SECONDS: u64 = 600;

/// What was stored so much later than now is of no use.
const AHEAD_MILLIS: u64 = 2_000;

/// Types whose RDATA may be anything.
const TYPES: [Rtype; 3] = [Rtype::TXT, Rtype(65_280), Rtype(65_281)];

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// A name as its labels, the topmost first.
type Labels = Vec<u8>;

#[derive(Clone, Debug)]
struct Held {
    version: u32,
    stored: u64,
    lifetime: u64,
}

impl Held {
    fn is_fresh(&self, now: u64) -> bool {
        now < self.stored + self.lifetime * 1000 && self.stored <= now + AHEAD_MILLIS
    }

    fn is_stale(&self, now: u64) -> bool {
        !self.is_fresh(now)
            && now < self.stored + (self.lifetime + STALE_SECONDS) * 1000
            && self.stored <= now + AHEAD_MILLIS
    }
}

/// Apexes of zones with servers of their own, the topmost label first.
const APEXES: [&[u8]; 3] = [&[1], &[1, 2, 3], &[2, 0]];

/// Labels of the innermost apex that `name` lies at or below: denials of names with fewer say nothing about it.
fn floor(name: &Labels) -> usize {
    let above = APEXES.iter().filter(|apex| name.starts_with(apex));
    above.map(|apex| apex.len()).max().unwrap_or(0)
}

/// What was stored last under each name and type, and the denials of whole names.
#[derive(Default)]
struct Model {
    answers: HashMap<(Labels, Rtype), Held>,
    denials: HashMap<Labels, Held>,
}

/// What may be served, and how.
#[derive(Debug, Eq, PartialEq)]
enum Served {
    Fresh(u32),
    Denied(u32),
    Stale(u32),
    Nothing,
}

impl Model {
    fn lookup(&self, name: &Labels, rtype: Rtype, now: u64) -> Served {
        let exact = self.answers.get(&(name.clone(), rtype));
        let own = self.denials.get(name);
        if let Some(held) = exact.filter(|held| held.is_fresh(now)) {
            return Served::Fresh(held.version);
        }
        let cuts = (floor(name).max(1)..=name.len())
            .rev()
            .filter_map(|len| self.denials.get(&name[..len]));
        if let Some(held) = cuts.into_iter().find(|held| held.is_fresh(now)) {
            return Served::Denied(held.version);
        }
        let stale = [exact, own].into_iter().flatten().filter(|held| held.is_stale(now));
        match stale.max_by_key(|held| held.stored) {
            Some(held) => Served::Stale(held.version),
            None => Served::Nothing,
        }
    }

    fn insert(&mut self, name: &Labels, rtype: Rtype, is_denial: bool, held: Held) {
        let key = (name.clone(), rtype);
        if is_denial {
            self.answers.remove(&key);
            self.denials.remove(name);
            if held.lifetime > 0 {
                self.denials.insert(name.clone(), held);
            }
            return;
        }
        // What exists has ancestors that exist, as far as its own servers know.
        let floor = floor(name);
        self.denials.retain(|denied, _| denied.len() < floor || !name.starts_with(denied));
        self.answers.remove(&key);
        if held.lifetime > 0 {
            self.answers.insert(key, held);
        }
    }

    fn flush(&mut self, is_covered: impl Fn(&Labels, Option<Rtype>) -> bool, until: u64) {
        self.answers
            .retain(|(name, rtype), held| held.stored > until || !is_covered(name, Some(*rtype)));
        self.denials.retain(|name, held| held.stored > until || !is_covered(name, None));
    }
}

fn name_buf(labels: &Labels) -> NameBuf {
    let text: String = labels.iter().rev().map(|label| format!("n{label}.")).collect();
    NameBuf::from_text(&text).unwrap()
}

fn answer(name: &NameBuf, rtype: Rtype, is_denial: bool, held: &Held, len: usize) -> AnswerBuf {
    let rcode = if is_denial { Rcode::NXDOMAIN } else { Rcode::NOERROR };
    let section = if is_denial { Section::Authority } else { Section::Answer };
    let mut builder = AnswerBuilder::new(name.as_name(), rtype, Class::IN, rcode).unwrap();
    let mut rdata = held.version.to_be_bytes().to_vec();
    rdata.resize(4 + len, 0);
    let ttl = u32::try_from(held.lifetime).unwrap();
    builder.write(section, name.as_name(), rtype, Class::IN, ttl, &rdata).unwrap();
    builder.finish()
}

/// The version at the front of the only record's RDATA.
fn version(body: &[u8], ttls: &[u8]) -> u32 {
    let ttl_at = usize::from(u16::from_le_bytes([ttls[0], ttls[1]]));
    u32::from_be_bytes(body[ttl_at + 6..ttl_at + 10].try_into().unwrap())
}

fn empty_shard(seed: u64, is_hot: bool) -> Shard {
    let section = config::Cache {
        stale_max: std::time::Duration::from_secs(STALE_SECONDS),
        ..Default::default()
    };
    let zones = APEXES.map(|apex| name_buf(&apex.to_vec()));
    Shard::new(&section, 1 << 20, RandomState::with_seeds(seed, 2, 3, 4))
        .divided_at(&zones)
        .with_hot_segment(is_hot)
}

/// The snapshot of `shard`.
fn written(shard: &Shard, now: CacheTime) -> Vec<u8> {
    let (mut framer, head) = Framer::begin(1, now, &Origins::default());
    let (mut file, mut walk, mut block) = (head, shard.walk(now), Block::default());
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
    file
}

struct Run {
    dice: Dice,
    shard: Shard,
    model: Model,
    now: u64,
    version: u32,
    /// The latest moment of a flush.
    flushed_until: u64,
    /// Longest RDATA.
    len_max: u64,
    seed: u64,
    /// There is a hot segment.
    is_hot: bool,
    /// Entries that moved there, before the last restart.
    promoted: u64,
    /// Entries that had to make room or were left behind, before the last restart.
    lost: u64,
}

impl Run {
    fn new(seed: u64, len_max: u64) -> Self {
        let shard = empty_shard(seed, true);
        let dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        Self {
            dice,
            shard,
            model: Model::default(),
            now: 1 << 40,
            version: 0,
            flushed_until: 0,
            len_max,
            seed,
            is_hot: true,
            promoted: 0,
            lost: 0,
        }
    }

    fn now(&self) -> Now {
        Now { cache: CacheTime::from_millis(self.now), ..Now::default() }
    }

    fn name(&mut self) -> Labels {
        let depth = 1 + self.dice.below(4);
        (0..depth).map(|_| u8::try_from(self.dice.below(4)).unwrap()).collect()
    }

    fn step(&mut self) {
        let name = self.name();
        let rtype = TYPES[usize::try_from(self.dice.below(3)).unwrap()];
        match self.dice.below(1000) {
            0..600 => self.look_up(&name, rtype),
            600..900 => self.insert(&name, rtype),
            900..960 => self.now += self.dice.below(20_000),
            960..968 => self.now -= self.dice.below(5_000),
            968..970 => self.now -= self.dice.below(400_000),
            970..974 => self.now += self.dice.below(4_000_000),
            974..982 => {
                let key = Key::plain(name_buf(&name).as_name(), rtype);
                self.shard.remove(&key);
                self.model.answers.remove(&(name, rtype));
            }
            982..984 => self.flush(name, rtype),
            984 if self.dice.one_in(20) => self.restart(),
            _ => {
                self.shard.sweep(self.now().cache);
            }
        }
    }

    /// What is fresh comes back in a shard with another hash; flushes in force are forgotten with what they forbid.
    fn restart(&mut self) {
        self.now += 1;
        let file = written(&self.shard, self.now().cache);
        let tally = self.shard.tally();
        self.shard = empty_shard(self.dice.below(1 << 30), self.is_hot);
        let read = |at: u64, buffer: &mut [u8]| {
            let at = usize::try_from(at).unwrap();
            buffer.copy_from_slice(&file[at..at + buffer.len()]);
            Ok::<(), Flaw>(())
        };
        let contents = Contents::survey(file.len() as u64, read).unwrap();
        let restored = self.shard.restore(&contents, 0, 1, self.now().cache, read).unwrap();
        assert_eq!((restored.untimely, restored.known), (0, 0), "seed {}", self.seed);
        self.promoted += tally.promotions;
        self.lost += tally.evictions + tally.expirations + restored.crowded;
        let now = self.now;
        let survives = |held: &Held| held.stored < now && held.is_fresh(now);
        self.model.answers.retain(|_, held| survives(held));
        self.model.denials.retain(|_, held| survives(held));
    }

    fn insert(&mut self, name: &Labels, rtype: Rtype) {
        self.version += 1;
        let is_denial = self.dice.one_in(12);
        let lifetime = if self.dice.one_in(20) { 0 } else { self.dice.below(300) };
        let held = Held { version: self.version, stored: self.now, lifetime };
        let len = usize::try_from(self.dice.below(self.len_max)).unwrap();
        let owner = name_buf(name);
        let answer = answer(&owner, rtype, is_denial, &held, len);
        let mut key = Key::plain(owner.as_name(), rtype);
        let begun = CacheTime::from_millis(self.now);
        let outcome = self.shard.insert(&mut key, &answer, begun, self.now());
        let expected = if lifetime == 0 { Insertion::NotCacheable } else { Insertion::Stored };
        // A flush "until" a later time than now, before the clock was set back, turns it away.
        if outcome == Insertion::Flushed {
            assert!(
                self.now <= self.flushed_until,
                "seed {}: nothing was flushed since",
                self.seed
            );
            self.model.insert(name, rtype, is_denial, Held { lifetime: 0, ..held });
            return;
        }
        assert_eq!(outcome, expected, "seed {}", self.seed);
        self.model.insert(name, rtype, is_denial, held);
    }

    fn look_up(&mut self, name: &Labels, rtype: Rtype) {
        let owner = name_buf(name);
        let mut key = Key::plain(owner.as_name(), rtype);
        let now = self.now();
        let served = match self.shard.lookup(&mut key, now) {
            Lookup::Fresh { answer, .. } => Served::Fresh(version(answer.body, answer.ttls)),
            Lookup::Denied(answer) => Served::Denied(version(answer.body, answer.ttls)),
            Lookup::Stale(answer) => Served::Stale(version(answer.body, answer.ttls)),
            Lookup::Absent => Served::Nothing,
        };
        let expected = self.model.lookup(name, rtype, self.now);
        let tally = self.shard.tally();
        // While the clock is behind a flush, what is stored may be taken for what was there before it.
        let is_doubtful = self.now <= self.flushed_until || self.is_doubtful(name, rtype);
        if self.lost + tally.evictions + tally.expirations == 0 && !is_doubtful {
            assert_eq!(served, expected, "seed {}: {name:?} {rtype:?}", self.seed);
            return;
        }
        // Something had to go: what is served must still be the model's, if of the next best kind.
        let exact = self.model.answers.get(&(name.clone(), rtype)).map(|held| held.version);
        let is_known = match served {
            Served::Fresh(version) => expected == Served::Fresh(version),
            Served::Denied(version) => (floor(name).max(1)..=name.len()).any(|len| {
                let held = self.model.denials.get(&name[..len]);
                held.is_some_and(|held| held.version == version && held.is_fresh(self.now))
            }),
            Served::Stale(version) => {
                let own = self.model.denials.get(name).map(|held| held.version);
                exact == Some(version) || own == Some(version)
            }
            Served::Nothing => true,
        };
        assert!(is_known, "seed {}: {served:?} instead of {expected:?}", self.seed);
    }

    /// Whether something about the name was stored while the clock was behind a flush.
    fn is_doubtful(&self, name: &Labels, rtype: Rtype) -> bool {
        let exact = self.model.answers.get(&(name.clone(), rtype));
        let denials = (1..=name.len()).filter_map(|len| self.model.denials.get(&name[..len]));
        exact.into_iter().chain(denials).any(|held| held.stored <= self.flushed_until)
    }

    fn flush(&mut self, name: Labels, rtype: Rtype) {
        let now = self.now;
        self.flushed_until = self.flushed_until.max(now);
        let only = self.dice.one_in(2).then_some(rtype);
        let owner = name_buf(&name);
        let is_of = |of: Option<Rtype>| only.is_none() || of.is_none() || of == only;
        let flush = match self.dice.below(10) {
            0 => {
                self.model.flush(|_, _| true, u64::MAX);
                Flush::All
            }
            1 => {
                self.model.flush(|_, of| of.is_none_or(|of| of == rtype), now);
                Flush::Type(rtype)
            }
            2..6 => {
                self.model.flush(|other, of| other.starts_with(&name) && is_of(of), now);
                Flush::Names { name: owner, scope: Scope::Subtree, rtype: only }
            }
            _ => {
                self.model.flush(|other, of| *other == name && is_of(of), now);
                Flush::Names { name: owner, scope: Scope::Exact, rtype: only }
            }
        };
        self.shard.flush(flush, self.now().cache);
    }
}

fn run(seeds: std::ops::Range<u64>, len_max: u64) -> u64 {
    let mut evictions = 0;
    for seed in seeds {
        let mut run = Run::new(seed, len_max);
        for _ in 0..STEPS {
            run.step();
        }
        evictions += run.lost + run.shard.tally().evictions;
    }
    evictions
}

/// What shards keep, in two halves of each run, with the hot segment as `halves` say; gives entries lost and promoted by half.
fn run_switched(seeds: std::ops::Range<u64>, halves: [bool; 2]) -> (u64, [u64; 2]) {
    let (mut lost, mut promoted) = (0, [0; 2]);
    for seed in seeds {
        let mut run = Run::new(seed, 9_000);
        for (half, is_hot) in halves.into_iter().enumerate() {
            let before = run.promoted + run.shard.tally().promotions;
            run.is_hot = is_hot;
            run.shard.keep_hot_segment(is_hot);
            for _ in 0..STEPS / 2 {
                run.step();
            }
            promoted[half] += run.promoted + run.shard.tally().promotions - before;
        }
        lost += run.lost + run.shard.tally().evictions;
    }
    (lost, promoted)
}

#[test]
fn shard_is_as_true_without_its_hot_segment_and_while_that_is_switched() {
    let (lost, promoted) = run_switched(9..11, [false, false]);
    assert!(lost > 15_000, "many had to make room: {lost}");
    assert_eq!(promoted, [0, 0]);
    let (_, promoted) = run_switched(11..13, [true, false]);
    assert!(promoted[0] > 0 && promoted[1] == 0, "{promoted:?}");
    let (_, promoted) = run_switched(13..15, [false, true]);
    assert!(promoted[0] == 0 && promoted[1] > 0, "{promoted:?}");
}

#[test]
fn shard_with_room_serves_exactly_what_the_model_holds() {
    assert_eq!(run(1..5, 20), 0, "there was room for all");
}

#[test]
fn full_shard_serves_nothing_that_the_model_does_not_hold() {
    let evictions = run(5..9, 9_000);
    assert!(evictions > 30_000, "many had to make room: {evictions}");
}
