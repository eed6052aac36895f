//! One run: questions at their times, upstreams, forgers and the background, until all is over; and what came of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::chance::Chance;
use super::network::{Core, Network, Sent};
use super::scenario::{Duty, Scenario};
use super::trace::{Event, Fault, Tally};
use super::truth::{self, Kind, Truth};
use crate::config::{self, ROOT_VIEW};
use crate::observe::ForwardCounters;
use crate::resolve::exchange::Question;
use crate::resolve::{Change, CookieSecret, Failure, Forwarder};
use crate::time::Monotonic;
use crate::wire::{Class, NameBuf, Rtype};

/// What became of a question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The truth.
    True,
    /// Something else.
    Untrue(String),
    /// No answer.
    Failed(Failure),
    /// Nobody wanted the answer any more.
    Abandoned,
}

/// A question and its fate.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The name.
    pub qname: NameBuf,
    /// The type.
    pub qtype: Rtype,
    /// It lies in the zone that has upstreams of its own.
    pub is_corp: bool,
    /// The view of the client.
    pub view: u8,
    /// The task that asks.
    pub task: u64,
    /// When it was asked.
    pub begun: Monotonic,
    /// When it was over, and how; `None` if it never was.
    pub ended: Option<(Monotonic, Outcome)>,
}

/// An upstream's rest began or ended.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// When.
    pub at: Monotonic,
    /// Which server of the scenario.
    pub place: usize,
    /// What.
    pub change: Change,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// All questions, by number.
    pub asked: Vec<Asked>,
    /// All queries, by time.
    pub sent: Vec<Sent>,
    /// Rests of upstreams, by time.
    pub turns: Vec<Turn>,
    /// Second upstreams asked early.
    pub hedges: u64,
    /// Resting upstreams asked in the background.
    pub probes: u64,
    /// Datagrams that were in flight when all questions were over.
    pub left_in_flight: usize,
    /// Streams that were.
    pub left_streams: usize,
    /// When the run was over.
    pub end: Monotonic,
    /// What struck.
    pub tally: Tally,
    /// A hash over everything that happened.
    pub trace: u64,
}

/// Runs a scenario.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    let chance = Chance::from_seed(scenario.seed);
    let network = Rc::new(Network::new(scenario, &chance));
    let section = scenario.forward();
    let counters = Forwarder::counters(&section);
    let secret = CookieSecret::new(
        (u128::from(chance.bits()) << 64 | u128::from(chance.bits())).to_be_bytes(),
    );
    let cache = config::Cache::default();
    let forwarder = Rc::new(Forwarder::new(&section, cache, &secret, Arc::clone(&counters)));
    let prober = probe(&network, &forwarder);
    for flood in &scenario.floods {
        network.tasks.spawn(Rc::clone(&network).flood(*flood));
    }
    let asked = Rc::new(RefCell::new(Vec::new()));
    ask_all(&network, &forwarder, &asked, &chance);
    let turns = RefCell::new(Vec::new());
    let note_turns = || {
        for (upstream, change) in forwarder.take_changes() {
            let address = upstream.address;
            if matches!(change, Change::InClear | Change::Encrypted) {
                continue;
            }
            let place = network.place_of(address);
            turns.borrow_mut().push(Turn { at: network.time.now(), place, change });
        }
    };
    let end = Monotonic::default().after(scenario.span + scenario.deadline);
    network.tasks.run(&network.time, end, note_turns);
    network.tasks.cancel(prober);
    let report = report(&network, &counters, asked.take(), turns.take());
    // Tasks hold the network that holds them.
    network.tasks.clear();
    report
}

fn probe(network: &Rc<Network>, forwarder: &Rc<Forwarder>) -> u64 {
    let (core, forwarder) = (Core(Rc::clone(network)), Rc::clone(forwarder));
    network.tasks.spawn(async move { forwarder.probe(&core, || {}).await })
}

/// Lets each question be asked at its time, now and then several at once.
fn ask_all(
    network: &Rc<Network>,
    forwarder: &Rc<Forwarder>,
    asked: &Rc<RefCell<Vec<Asked>>>,
    chance: &Chance,
) {
    let scenario = &network.scenario;
    let span_ms = u64::try_from(scenario.span.as_millis()).unwrap_or(u64::MAX);
    let mut at = Duration::ZERO;
    for number in 0..scenario.questions {
        if !chance.hits(scenario.bursts) {
            at = chance.millis(0, span_ms);
        }
        let (kind, is_corp) = (chance.pick(&Kind::ALL), chance.hits(300));
        let has_own = scenario.has(Duty::View) && chance.hits(500);
        let view = if has_own { 1 } else { ROOT_VIEW };
        let asker = Asker {
            network: Rc::clone(network),
            forwarder: Rc::clone(forwarder),
            asked: Rc::clone(asked),
            number,
            view,
            patience: chance.hits(scenario.abandons).then(|| chance.millis(0, 500)),
        };
        let task = network.tasks.spawn(asker.ask(at));
        asked.borrow_mut().push(Asked {
            qname: truth::name(number, kind, is_corp),
            qtype: kind.qtype(),
            is_corp,
            view,
            task,
            begun: Monotonic::default(),
            ended: None,
        });
    }
}

struct Asker {
    network: Rc<Network>,
    forwarder: Rc<Forwarder>,
    asked: Rc<RefCell<Vec<Asked>>>,
    number: usize,
    /// The client's.
    view: u8,
    /// After how long the answer is not wanted any more.
    patience: Option<Duration>,
}

impl Asker {
    async fn ask(self, at: Duration) {
        let Self { network, forwarder, asked, number, view, patience } = self;
        network.time.sleep(at).await;
        let begun = network.time.now();
        let (qname, qtype) = {
            let mut asked = asked.borrow_mut();
            asked[number].begun = begun;
            (asked[number].qname.clone(), asked[number].qtype)
        };
        network.note(Event::Begun, qname.as_name().as_bytes());
        let question = Question {
            qname: qname.as_name(),
            qtype,
            qclass: Class::IN,
            wants_dnssec: false,
            is_checking_disabled: false,
        };
        let core = Core(Rc::clone(&network));
        let resolving = forwarder.resolve(&core, view, &question);
        let outcome = match super::time::within(&network.time, patience, resolving).await {
            None => {
                network.tally.strike(Fault::Abandoned);
                Outcome::Abandoned
            }
            Some(Err(failure)) => Outcome::Failed(failure),
            Some(Ok(answer)) => {
                let truth = Truth::of(question.qname, qtype);
                truth.belies(&answer, question.qname, qtype).map_or(Outcome::True, Outcome::Untrue)
            }
        };
        network.note(Event::Ended, format!("{number} {outcome:?}").as_bytes());
        asked.borrow_mut()[number].ended = Some((network.time.now(), outcome));
    }
}

fn report(
    network: &Network,
    counters: &ForwardCounters,
    asked: Vec<Asked>,
    turns: Vec<Turn>,
) -> Report {
    Report {
        asked,
        sent: network.sent.take(),
        turns,
        hedges: counters.hedges.value(),
        probes: counters.probes.value(),
        left_in_flight: network.flights.len(),
        left_streams: network.streams_open.get(),
        end: network.time.now(),
        tally: network.tally.clone(),
        trace: network.trace_value(),
    }
}

impl Report {
    /// Exchanges that one task has cost.
    #[must_use]
    pub fn exchanges(&self, task: u64) -> usize {
        self.sent.iter().filter(|sent| sent.task == task).count()
    }

    /// Questions that got no answer, or not the truth, abandoned ones apart.
    #[must_use]
    pub fn failures(&self) -> usize {
        let is_failure = |asked: &&Asked| {
            matches!(asked.ended, None | Some((_, Outcome::Failed(_) | Outcome::Untrue(_))))
        };
        self.asked.iter().filter(is_failure).count()
    }

    /// Queries to one server within a time, in seconds.
    #[must_use]
    pub fn sent_to(&self, place: usize, seconds: std::ops::Range<u64>) -> Vec<Sent> {
        let is_within = |sent: &&Sent| seconds.contains(&(sent.at.as_nanos() / 1_000_000_000));
        let to_it = self.sent.iter().filter(|sent| sent.place == place);
        to_it.filter(is_within).copied().collect()
    }
}
