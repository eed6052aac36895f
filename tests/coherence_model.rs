//! Several cores, a world that changes, and messages that are late: after a message round no core answers from its cache
//! with older data than another has served before it. Cores, outboxes and notices are the real ones; time, world and
//! mailboxes are made here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ahash::RandomState;
use heimdall_uring::cache::{Batch, Flush, Key, Scope, Shard};
use heimdall_uring::config;
use heimdall_uring::observe::Transport;
use heimdall_uring::policy::{Acl, Identity, LocalData, Policy};
use heimdall_uring::serve::{Admission, Asking, Client, Core, Sections, Verdict};
use heimdall_uring::time::{CacheTime, Now};
use heimdall_uring::wire::answer::AnswerBuilder;
use heimdall_uring::wire::response::Section;
use heimdall_uring::wire::{
    AnswerBuf, Class, Encoder, Flags, Header, NameBuf, Rcode, Response, Rtype,
};

const CORES: usize = 4;
const NAMES: u64 = 12;
const STEPS: u32 = 60_000;
const TTL: u32 = 300;
const CLIENT: Client = Client {
    address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    port: 4_000,
    listener: 0,
    transport: Transport::Udp,
};

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }
}

/// A question on its way: the core that asks, the name, the version that the world had when it was asked.
struct Flight {
    core: usize,
    name: u64,
    version: u32,
    asking: Box<Asking>,
}

struct Simulation {
    dice: Dice,
    cores: Vec<Core<()>>,
    /// Batches on their way, by sender and receiver.
    mail: HashMap<(usize, usize), VecDeque<Batch>>,
    flights: Vec<Flight>,
    /// The version of each name in the world; odd ones deny it.
    world: Vec<u32>,
    /// The highest version that some core has served, and what of it all messages were delivered about.
    served: Vec<u32>,
    settled: Vec<u32>,
    now: u64,
    hits: u64,
    /// Hits that were older than they should be, by a core that has given way often enough.
    insisted: u64,
    questions: u64,
}

fn core(hasher: &RandomState, peers: usize) -> Core<()> {
    let policy = Policy::new(
        Acl::new(&config::Acl::default()),
        Identity::new(&config::Identity::default()),
        LocalData::default(),
    );
    let cache = config::Cache { prefetch: false, ..Default::default() };
    let (forward, udp) = (config::Forward::default(), config::Udp::default());
    let optimizations = config::Optimizations::default();
    let sections =
        Sections { forward: &forward, zones: &[], udp: &udp, cache: &cache, optimizations };
    let shard = Shard::new(&cache, 4 << 20, hasher.clone());
    Core::new(Arc::new(policy), shard, sections, Arc::default()).among(peers)
}

/// Every third name lies below another one.
fn name(number: u64) -> String {
    match number % 3 {
        2 => format!("sub.name{}.test.", number - 1),
        _ => format!("name{number}.test."),
    }
}

fn query(number: u64) -> Vec<u8> {
    let header = Header { id: 7, flags: Flags(Flags::RD), counts: [1, 0, 0, 0] };
    let mut encoder = Encoder::new(header, 512);
    let name = NameBuf::from_text(&name(number)).unwrap();
    encoder.question(name.as_name(), Rtype::A, Class::IN).unwrap();
    encoder.into_message()
}

/// Version `version` of a name: an address, or for odd versions its denial.
fn answer(asking: &Asking, version: u32) -> AnswerBuf {
    let query = asking.query();
    let is_denial = version % 2 == 1;
    let rcode = if is_denial { Rcode::NXDOMAIN } else { Rcode::NOERROR };
    let mut builder = AnswerBuilder::new(query.qname, query.qtype, query.qclass, rcode).unwrap();
    if is_denial {
        let mut soa = vec![0; 2];
        soa.extend(version.to_be_bytes());
        soa.extend([0; 16]);
        let section = Section::Authority;
        builder.write(section, query.qname, Rtype::SOA, Class::IN, TTL, &soa).unwrap();
    } else {
        let rdata = version.to_be_bytes();
        builder.write(Section::Answer, query.qname, Rtype::A, Class::IN, TTL, &rdata).unwrap();
    }
    builder.finish()
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self::of(CORES, seed)
    }

    fn of(cores: usize, seed: u64) -> Self {
        let hasher = RandomState::with_seeds(seed, 2, 3, 4);
        let names = usize::try_from(NAMES).unwrap();
        Self {
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            cores: (0..cores).map(|_| core(&hasher, cores - 1)).collect(),
            mail: HashMap::new(),
            flights: Vec::new(),
            world: vec![0; names],
            served: vec![0; names],
            settled: vec![0; names],
            now: 1 << 40,
            hits: 0,
            insisted: 0,
            questions: 0,
        }
    }

    fn now(&self) -> Now {
        Now { cache: CacheTime::from_millis(self.now), ..Now::default() }
    }

    /// A client asks. What the cache answers must not be older than what was settled.
    fn ask(&mut self, core: usize, name: u64) {
        let (now, mut out) = (self.now(), [0; 1232]);
        let node = &mut self.cores[core];
        match node.answer(&query(name), CLIENT, now, &mut out) {
            Verdict::Reply(len) => self.check(core, name, &out[..len]),
            Verdict::Miss(ticket) => {
                if let Admission::Ask(asking) = node.admit(ticket, (), now, &mut out, |(), _| {}) {
                    self.questions += 1;
                    let version = self.world[usize::try_from(name).unwrap()];
                    self.flights.push(Flight { core, name, version, asking });
                }
            }
            Verdict::Refresh(..) | Verdict::Drop => panic!("neither hit nor miss"),
        }
    }

    fn check(&mut self, core: usize, name: u64, reply: &[u8]) {
        let response = Response::parse(reply).unwrap();
        let record = response.records[0];
        let rdata = response.rdata(&record);
        let at = if record.rtype == Rtype::SOA { 2 } else { 0 };
        let version = u32::from_be_bytes(rdata[at..at + 4].try_into().unwrap());
        self.hits += 1;
        let place = usize::try_from(name).unwrap();
        let owner = response.owner(&record).unwrap().as_name().to_string();
        if owner != self::name(name) {
            // Denied by the name above: that one must be denied still, as far as is settled.
            let above = place - 1;
            assert!(version >= self.settled[above], "{owner}: {version} after {above}");
            assert!(self.settled[place] == 0 || version % 2 == 1);
            return;
        }
        let settled = self.settled[place];
        if version < settled {
            // Only where the name has changed so often within its lifetime that the core has stopped giving way.
            let key = Key::plain(response.question.unwrap().qname, Rtype::A);
            let insists = self.cores[core].shard().is_settled(&key, self.now().cache);
            assert!(insists, "{owner}: {version} after {settled}");
            self.insisted += 1;
        }
        self.served[place] = self.served[place].max(version);
    }

    /// An answer arrives, possibly after the world has moved on.
    fn land(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let place = self.dice.index(self.flights.len());
        let mut flight = self.flights.swap_remove(place);
        let now = self.now();
        let answer = answer(&flight.asking, flight.version);
        let mut sent = 0;
        let core = &mut self.cores[flight.core];
        core.finish(&mut flight.asking, Ok(answer), now, &mut [0; 1232], |(), _| sent += 1);
        assert!(sent > 0);
        let served = &mut self.served[usize::try_from(flight.name).unwrap()];
        *served = flight.version.max(*served);
    }

    /// A core packs what it has to say and hands some of it to the mail.
    fn post(&mut self, core: usize) {
        let (now, cores) = (self.now().cache, self.cores.len());
        let outbox = self.cores[core].outbox();
        outbox.pack(now);
        for peer in 0..cores - 1 {
            let receiver = (core + 1 + peer) % cores;
            while let Some(batch) = outbox.take(peer) {
                self.mail.entry((core, receiver)).or_default().push_back(batch);
            }
        }
    }

    fn deliver(&mut self, sender: usize, receiver: usize) -> bool {
        let now = self.now();
        let batch = self.mail.get_mut(&(sender, receiver)).and_then(VecDeque::pop_front);
        let Some(batch) = batch else { return false };
        self.cores[receiver].hear(&batch, now);
        true
    }

    /// Everything said is heard by all.
    fn round(&mut self) {
        for sender in 0..self.cores.len() {
            self.post(sender);
            for receiver in 0..self.cores.len() {
                while self.deliver(sender, receiver) {}
            }
        }
        self.settled.clone_from(&self.served);
    }

    fn flush(&mut self) {
        let core = self.dice.index(CORES);
        let number = self.dice.below(NAMES);
        let name = NameBuf::from_text(&name(number)).unwrap();
        let flush = match self.dice.below(4) {
            0 => Flush::All,
            1 => Flush::Type(Rtype::A),
            2 => Flush::Names { name, scope: Scope::Subtree, rtype: None },
            _ => Flush::Names { name, scope: Scope::Exact, rtype: Some(Rtype::A) },
        };
        let now = self.now();
        self.cores[core].flush(flush, now);
    }

    fn step(&mut self, change_one_in: u64) {
        let core = self.dice.index(CORES);
        let name = self.dice.below(NAMES);
        match self.dice.below(100) {
            0..55 => self.ask(core, name),
            55..75 => self.land(),
            75..80 => self.now += self.dice.below(3_000),
            80..85 => self.post(core),
            85..95 => {
                let receiver = self.dice.index(CORES);
                self.deliver(core, receiver);
            }
            95..97 => self.round(),
            97 => {
                let now = self.now();
                self.cores[core].sweep(now);
            }
            98 if self.dice.below(10) == 0 => self.flush(),
            _ => {
                if self.dice.below(change_one_in) == 0 {
                    // From denied to another address, or from an address to another or to nothing.
                    let place = usize::try_from(name).unwrap();
                    let step = 1 + u32::try_from(self.dice.below(2)).unwrap();
                    self.world[place] += step;
                }
            }
        }
    }
}

#[test]
fn after_a_round_no_core_answers_with_older_data_than_another_has_served() {
    for seed in 1..9 {
        let mut simulation = Simulation::new(seed);
        for _ in 0..STEPS {
            simulation.step(40);
        }
        let Simulation { hits, insisted, .. } = simulation;
        assert!(hits > u64::from(STEPS) / 4, "seed {seed}: {hits} hits");
        assert!(insisted < hits / 100, "seed {seed}: {insisted} of {hits} hits too old");
    }
}

#[test]
fn name_that_changes_with_every_answer_does_not_make_the_cores_chase_each_other() {
    let mut simulation = Simulation::new(77);
    let mut version = 0;
    for _ in 0..2_000 {
        for core in 0..CORES {
            simulation.ask(core, 0);
        }
        while let Some(mut flight) = simulation.flights.pop() {
            version += 2;
            let (now, answer) = (simulation.now(), answer(&flight.asking, version));
            let core = &mut simulation.cores[flight.core];
            core.finish(&mut flight.asking, Ok(answer), now, &mut [0; 1232], |(), _| {});
        }
        for sender in 0..CORES {
            simulation.post(sender);
            for receiver in 0..CORES {
                while simulation.deliver(sender, receiver) {}
            }
        }
        simulation.now += 100;
    }
    // 200 s, less than one lifetime: without the bound each of the 2 000 turns would ask four times.
    assert!(simulation.questions <= 5 * 4, "{} questions", simulation.questions);
}

/// Upstream questions of `cores` cores for one name whose answer is one of `variants`, at random, over 100 s in which a
/// client asks every core all the time, answers take 15 to 25 ms, and notices one more.
fn questions_for_rotating_data(cores: usize, variants: u64) -> u64 {
    let mut simulation = Simulation::of(cores, 7);
    let mut due = Vec::new();
    for _ in 0..100_000 {
        simulation.now += 1;
        for core in 0..cores {
            if simulation.dice.below(2) == 0 {
                simulation.ask(core, 0);
            }
        }
        for flight in std::mem::take(&mut simulation.flights) {
            due.push((simulation.now + 15 + simulation.dice.below(10), flight));
        }
        let (landed, waiting) = due.into_iter().partition(|(at, _)| *at <= simulation.now);
        due = waiting;
        let landed: Vec<(u64, Flight)> = landed;
        for (_, mut flight) in landed {
            let version = 2 * u32::try_from(simulation.dice.below(variants)).unwrap();
            let (now, answer) = (simulation.now(), answer(&flight.asking, version));
            let core = &mut simulation.cores[flight.core];
            core.finish(&mut flight.asking, Ok(answer), now, &mut [0; 1232], |(), _| {});
        }
        for sender in 0..cores {
            for receiver in 0..cores {
                while simulation.deliver(sender, receiver) {}
            }
            simulation.post(sender);
        }
    }
    simulation.questions
}

#[test]
fn many_cores_out_of_step_do_not_chase_each_other_either() {
    for (cores, variants) in [(2, 8), (8, 8), (16, 3)] {
        let questions = questions_for_rotating_data(cores, variants);
        // One lifetime has not passed: a first question, and one for each round.
        assert!(questions <= 5 * cores as u64, "{cores} cores: {questions} questions");
    }
}

#[test]
fn what_was_asked_for_before_a_flush_elsewhere_does_not_survive_it() {
    let mut simulation = Simulation::new(5);
    simulation.ask(1, 0);
    simulation.now += 10;
    let name = NameBuf::from_text(&name(0)).unwrap();
    let now = simulation.now();
    simulation.cores[0].flush(Flush::Names { name, scope: Scope::Exact, rtype: None }, now);
    simulation.now += 1;
    simulation.land();
    simulation.now += 1;
    simulation.round();
    let before = simulation.questions;
    simulation.ask(1, 0);
    assert_eq!(simulation.questions, before + 1);
}

#[test]
fn flush_on_one_core_is_heard_by_all() {
    let mut simulation = Simulation::new(5);
    for core in 0..CORES {
        simulation.ask(core, 0);
        simulation.land();
    }
    simulation.round();
    let name = NameBuf::from_text(&name(0)).unwrap();
    let now = simulation.now();
    let flush = Flush::Names { name, scope: Scope::Exact, rtype: None };
    simulation.cores[2].flush(flush, now);
    simulation.round();
    simulation.now += 1;
    let before = simulation.questions;
    for core in 0..CORES {
        simulation.ask(core, 0);
    }
    assert_eq!(simulation.questions - before, CORES as u64);
}
