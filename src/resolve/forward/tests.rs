//! Forwarding in a scripted world whose clock only moves when an exchange says so.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::resolve::ports::ExchangeError;
use crate::wire::{Class, Flags, Header, NameBuf, Query, Rtype};

/// What the next exchange brings.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// An A record, over UDP or TCP.
    Answer,
    /// TC over UDP.
    Cut,
    /// This RCODE and nothing else.
    Rcode(u16),
    /// FORMERR to queries with EDNS, an answer to others.
    ChokesOnEdns,
    /// Silence until the deadline.
    Silence,
    /// A refused connection.
    Unreachable,
}

/// A world of scripted upstreams, numbered by the last octet of their address.
struct Script {
    now: Cell<Monotonic>,
    events: RefCell<VecDeque<Event>>,
    /// "udp 1" for an exchange with the first upstream, and so on.
    log: RefCell<Vec<String>>,
    after_script: Event,
}

impl Script {
    fn new(events: &[Event], after_script: Event) -> Self {
        Self {
            now: Cell::default(),
            events: RefCell::new(events.iter().copied().collect()),
            log: RefCell::default(),
            after_script,
        }
    }

    fn exchange(
        &self,
        transport: &str,
        upstream: SocketAddr,
        query: &[u8],
        deadline: Deadline,
    ) -> Result<Vec<u8>, ExchangeError> {
        self.log.borrow_mut().push(format!("{transport} {}", upstream.port()));
        let event = self.events.borrow_mut().pop_front().unwrap_or(self.after_script);
        let has_edns = Query::parse(query).unwrap().edns.is_some();
        let (rcode, flags) = match event {
            Event::Silence => {
                let left = deadline.remaining(self.now.get()).unwrap();
                self.pass(left);
                return Err(ExchangeError::TimedOut);
            }
            Event::Unreachable => return Err(ExchangeError::Unreachable),
            Event::Answer => (0, 0),
            Event::Cut => (0, Flags::TC),
            Event::ChokesOnEdns => (u16::from(has_edns), 0),
            Event::Rcode(rcode) => (rcode, 0),
        };
        self.pass(Duration::from_millis(1));
        Ok(reply(query, rcode, flags))
    }

    fn pass(&self, time: Duration) {
        self.now.set(self.now.get().after(time));
    }

    fn log(&self) -> Vec<String> {
        self.log.take()
    }
}

fn reply(query: &[u8], rcode: u16, flags: u16) -> Vec<u8> {
    let view = Query::parse(query).unwrap();
    let mut encoder = crate::wire::Encoder::new(
        Header {
            id: view.header.id,
            flags: Flags(Flags::QR | flags | rcode),
            counts: [1, u16::from(rcode == 0), 0, 0],
        },
        512,
    );
    encoder.question(view.qname, view.qtype, view.qclass).unwrap();
    if rcode == 0 {
        let (_, open) = encoder.begin_record(view.qname, view.qtype, Class::IN, 60).unwrap();
        encoder.bytes(&[192, 0, 2, 1]).unwrap();
        encoder.end_rdata(open).unwrap();
    }
    encoder.into_message()
}

impl Transport for Script {
    fn datagram(
        &self,
        upstream: SocketAddr,
        query: &[u8],
        deadline: Deadline,
    ) -> impl Future<Output = Result<Vec<u8>, ExchangeError>> {
        std::future::ready(self.exchange("udp", upstream, query, deadline))
    }

    fn stream(
        &self,
        upstream: SocketAddr,
        query: &[u8],
        deadline: Deadline,
    ) -> impl Future<Output = Result<Vec<u8>, ExchangeError>> {
        std::future::ready(self.exchange("tcp", upstream, query, deadline))
    }
}

impl Clock for Script {
    fn monotonic(&self) -> Monotonic {
        self.now.get()
    }
}

impl Entropy for Script {
    fn u16(&self) -> u16 {
        4 // chosen by fair dice roll: the script does not look at IDs
    }
}

fn forwarder(upstreams: u16) -> Forwarder {
    let section = config::Forward {
        upstreams: (1..=upstreams).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect(),
        attempt_timeout: Duration::from_millis(400),
        deadline: Duration::from_secs(5),
        sockets: 1,
        inflight_max: 1,
        waiters_max: 1,
    };
    Forwarder::new(&section, config::Cache::default())
}

fn resolve(forwarder: &Forwarder, world: &Script) -> Result<AnswerBuf, Failure> {
    let name = NameBuf::from_text("www.example.").unwrap();
    let question = Question {
        qname: name.as_name(),
        qtype: Rtype::A,
        qclass: Class::IN,
        wants_dnssec: false,
        is_checking_disabled: false,
    };
    let resolution = pin!(forwarder.resolve(world, &question));
    match resolution.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("scripted exchanges never wait"),
    }
}

#[test]
fn first_upstream_answers() {
    let world = Script::new(&[Event::Answer], Event::Silence);
    assert_eq!(resolve(&forwarder(2), &world).unwrap().shape.counts, [1, 0, 0]);
    assert_eq!(world.log(), ["udp 1"]);
}

#[test]
fn cut_answer_is_asked_again_over_tcp() {
    let world = Script::new(&[Event::Cut, Event::Answer], Event::Silence);
    assert!(resolve(&forwarder(2), &world).is_ok());
    assert_eq!(world.log(), ["udp 1", "tcp 1"]);
}

#[test]
fn silent_and_failing_upstreams_are_followed_by_the_next() {
    for event in
        [Event::Silence, Event::Unreachable, Event::Rcode(2), Event::Rcode(5), Event::Rcode(23)]
    {
        let world = Script::new(&[event, Event::Answer], Event::Silence);
        assert!(resolve(&forwarder(2), &world).is_ok(), "{event:?}");
        assert_eq!(world.log(), ["udp 1", "udp 2"], "{event:?}");
    }
}

#[test]
fn server_older_than_edns_is_asked_without() {
    let world = Script::new(&[Event::ChokesOnEdns, Event::ChokesOnEdns], Event::Silence);
    assert!(resolve(&forwarder(2), &world).is_ok());
    assert_eq!(world.log(), ["udp 1", "udp 1"]);
}

#[test]
fn silence_everywhere_ends_in_time_and_says_so() {
    let world = Script::new(&[], Event::Silence);
    assert_eq!(resolve(&forwarder(3), &world), Err(Failure::NobodyAnswered));
    assert!(world.now.get() <= Monotonic::default().after(Duration::from_secs(5)));
    assert_eq!(Failure::NobodyAnswered.ede().code, 22);
    let asked = world.log();
    assert_eq!(&asked[..4], ["udp 1", "udp 2", "udp 3", "udp 1"]);
}

#[test]
fn errors_everywhere_end_after_bounded_attempts() {
    let world = Script::new(&[], Event::Rcode(2));
    assert_eq!(resolve(&forwarder(50), &world), Err(Failure::NothingUsable));
    assert_eq!(world.log().len(), ATTEMPTS_MAX);
    assert_eq!(Failure::NothingUsable.ede().code, 23);
}

#[test]
fn dead_upstream_stops_costing_time_and_comes_back_by_itself() {
    let forwarder = forwarder(2);
    let mut script = Vec::new();
    for _ in 0..FAILURES_TO_SUSPEND {
        script.extend([Event::Silence, Event::Answer]);
    }
    let world = Script::new(&script, Event::Answer);
    for _ in 0..FAILURES_TO_SUSPEND {
        resolve(&forwarder, &world).unwrap();
    }
    world.log();
    resolve(&forwarder, &world).unwrap();
    assert_eq!(world.log(), ["udp 2"], "the dead one is asked last");
    world.pass(PAUSE_MIN);
    resolve(&forwarder, &world).unwrap();
    assert_eq!(world.log(), ["udp 1"], "after the pause one query probes it");
    resolve(&forwarder, &world).unwrap();
    assert_eq!(world.log(), ["udp 1"], "it is back");
}

#[test]
fn failed_probe_lengthens_the_pause() {
    let forwarder = forwarder(2);
    let mut script = Vec::new();
    for _ in 0..=FAILURES_TO_SUSPEND {
        script.extend([Event::Silence, Event::Answer]);
    }
    let world = Script::new(&script, Event::Answer);
    for _ in 0..FAILURES_TO_SUSPEND {
        resolve(&forwarder, &world).unwrap();
    }
    world.pass(PAUSE_MIN);
    resolve(&forwarder, &world).unwrap();
    world.log();
    world.pass(PAUSE_MIN);
    resolve(&forwarder, &world).unwrap();
    assert_eq!(world.log(), ["udp 2"]);
    world.pass(PAUSE_MIN);
    resolve(&forwarder, &world).unwrap();
    assert_eq!(world.log(), ["udp 1"]);
}

#[test]
fn all_paused_upstreams_are_still_asked() {
    let forwarder = forwarder(1);
    let world = Script::new(&[Event::Silence; 3], Event::Answer);
    assert!(resolve(&forwarder, &world).is_err());
    assert!(resolve(&forwarder, &world).is_ok());
}
