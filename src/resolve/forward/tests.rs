//! Forwarding among scripted upstreams, on a clock that only moves when somebody waits.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::config::{ROOT_VIEW, Selection};
use crate::resolve::exchange;
use crate::resolve::fixture::{Reply, a, client, pointer, soa};
use crate::resolve::ports::{Casing, ExchangeError};
use crate::sim::Time;
use crate::wire::{Flags, Query, Rcode, options};

mod choice;
mod habits;

const ATTEMPT: Duration = Duration::from_millis(400);
const WHOLE: Duration = Duration::from_millis(2000);

/// A message and how it is altered on its way.
type Forgery = (Reply, fn(&mut Vec<u8>));

/// What an upstream does with one query.
#[derive(Clone)]
enum Act {
    /// Answers after this many milliseconds.
    Say(u64, Reply),
    /// Answers after a millisecond, with an OPT record of the query's cookie and this server's part. What stands in the
    /// header of the reply as RCODE 7 becomes BADCOOKIE.
    Bake(Reply, &'static [u8]),
    /// Sends these messages one after the other.
    Spray(Vec<Forgery>),
    /// Nothing comes.
    Silence,
    /// The stream or socket fails at once.
    Fail(ExchangeError),
}

/// Upstreams that follow a script, on a clock that moves only when everybody waits.
#[derive(Default)]
struct World {
    time: Time,
    scripts: RefCell<Vec<VecDeque<Act>>>,
    streams: RefCell<Vec<VecDeque<Act>>>,
    /// Which upstream was asked, over a stream or not, with EDNS or not.
    asked: RefCell<Vec<(usize, bool, bool)>>,
    /// The queries themselves.
    queries: RefCell<Vec<Vec<u8>>>,
    next_id: Cell<u16>,
}

impl World {
    fn pass(&self, duration: Duration) {
        self.time.pass(duration);
    }

    async fn act(&self, act: Act, query: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        match act {
            Act::Say(millis, reply) => {
                self.time.sleep(Duration::from_millis(millis)).await;
                Ok(reply.to(query))
            }
            Act::Bake(reply, server_part) => {
                self.time.sleep(Duration::from_millis(1)).await;
                Ok(baked(&reply, query, server_part))
            }
            Act::Spray(messages) => {
                let altered = messages.iter().map(|(reply, change)| {
                    let mut message = reply.to(query);
                    change(&mut message);
                    message
                });
                let mut accepted = altered.filter(|message| exchange::answers(query, message));
                match accepted.next() {
                    Some(message) => Ok(message),
                    None => std::future::pending().await,
                }
            }
            Act::Fail(error) => Err(error),
            Act::Silence => std::future::pending().await,
        }
    }

    async fn meet(
        &self,
        upstream: SocketAddr,
        query: &[u8],
        is_stream: bool,
    ) -> Result<Vec<u8>, ExchangeError> {
        let index = usize::from(upstream.port());
        let has_edns = Query::parse(query).unwrap().edns.is_some();
        self.asked.borrow_mut().push((index, is_stream, has_edns));
        self.queries.borrow_mut().push(query.to_vec());
        let scripts = if is_stream { &self.streams } else { &self.scripts };
        let act = {
            let script = &mut scripts.borrow_mut()[index];
            // The last act is repeated.
            if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
        };
        self.act(act.unwrap_or(Act::Silence), query).await
    }
}

impl Transport for World {
    async fn datagram(
        &self,
        upstream: SocketAddr,
        query: &[u8],
        _: Casing,
    ) -> Result<Vec<u8>, ExchangeError> {
        self.meet(upstream, query, false).await
    }

    async fn stream(&self, upstream: &Upstream, query: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        self.meet(upstream.address, query, true).await
    }
}

impl Clock for World {
    fn monotonic(&self) -> Monotonic {
        self.time.now()
    }

    async fn sleep(&self, duration: Duration) {
        self.time.sleep(duration).await;
    }
}

impl Entropy for World {
    fn u16(&self) -> u16 {
        self.next_id.set(self.next_id.get().wrapping_add(40_503));
        self.next_id.get()
    }
}

/// `reply` to `query` with a cookie.
fn baked(reply: &Reply, query: &[u8], server_part: &[u8]) -> Vec<u8> {
    let mut message = reply.to(query);
    let sent = options::option(query, options::COOKIE).unwrap_or_default();
    let cookie = [&sent[..8.min(sent.len())], server_part].concat();
    let len = u16::try_from(cookie.len()).unwrap();
    // 7 in the header and 1 above it make 23.
    let extended = u8::from(message[3] & 0xF == 7);
    message.extend([0, 0, 41, 4, 208, extended, 0, 0, 0]);
    message.extend((len + 4).to_be_bytes());
    message.extend(options::COOKIE.to_be_bytes());
    message.extend(len.to_be_bytes());
    message.extend(cookie);
    message[11] += 1;
    message
}

struct Bench {
    world: World,
    forwarder: Forwarder,
}

impl Bench {
    /// One upstream per script; its port is its index. They are asked in order.
    fn new(scripts: Vec<Vec<Act>>) -> Self {
        Self::with_patience(ATTEMPT, scripts)
    }

    fn with_patience(attempt_timeout: Duration, scripts: Vec<Vec<Act>>) -> Self {
        Self::with(scripts, |forward| forward.root.attempt_timeout = attempt_timeout)
    }

    /// As [`Bench::new`], with other settings.
    fn with(scripts: Vec<Vec<Act>>, change: impl FnOnce(&mut config::Forward)) -> Self {
        let world = World::default();
        let upstreams = (0..scripts.len())
            .map(|index| SocketAddr::from(([192, 0, 2, 1], u16::try_from(index).unwrap())));
        let mut forward = config::Forward { deadline: WHOLE, probe: false, ..Default::default() };
        forward.root.upstreams = upstreams.map(Upstream::udp).collect();
        forward.root.selection = Selection::Ordered;
        forward.root.attempt_timeout = ATTEMPT;
        change(&mut forward);
        world.streams.replace(vec![VecDeque::new(); scripts.len()]);
        world.scripts.replace(scripts.into_iter().map(VecDeque::from).collect());
        let counters = Forwarder::counters(&forward);
        let secret = CookieSecret::new([5; 16]);
        let forwarder = Forwarder::new(&forward, config::Cache::default(), &secret, counters);
        Self { world, forwarder }
    }

    fn resolve(&self) -> Result<AnswerBuf, Failure> {
        let query = client("www.example.", Rtype::A, false);
        let question = Question::of(&Query::parse(&query).unwrap());
        self.world.time.run(self.forwarder.resolve(&self.world, ROOT_VIEW, &question))
    }

    fn stream(&self, index: usize, act: Act) {
        self.world.streams.borrow_mut()[index].push_back(act);
    }

    /// Who was asked since the last call, by datagram or stream alike.
    fn asked(&self) -> Vec<usize> {
        self.world.asked.take().into_iter().map(|(index, _, _)| index).collect()
    }

    fn elapsed(&self) -> Duration {
        self.world.time.now().since(Monotonic::default())
    }
}

fn good() -> Reply {
    Reply::new(Rcode::NOERROR).answer(&[a("www.example.", 60, 1)])
}

/// A script that repeats `acts`.
fn times(count: usize, acts: &[Act]) -> Vec<Act> {
    std::iter::repeat_n(acts, count).flatten().cloned().collect()
}

fn says(rcode: Rcode) -> Act {
    Act::Say(1, Reply::new(rcode))
}

fn truncated() -> Act {
    let mut reply = Reply::new(Rcode::NOERROR);
    reply.flags |= Flags::TC;
    Act::Say(1, reply)
}

#[test]
fn first_upstream_answers_and_no_other_is_asked() {
    let bench = Bench::new(vec![vec![Act::Say(5, good())], vec![Act::Say(5, good())]]);
    let answer = bench.resolve().unwrap();
    assert_eq!((answer.shape.counts, answer.lifetime), ([1, 0, 0], 60));
    assert_eq!(bench.asked(), [0]);
    assert_eq!(bench.elapsed(), Duration::from_millis(5));
}

#[test]
fn truncation_leads_to_a_stream_of_the_same_upstream() {
    let bench = Bench::new(vec![vec![truncated()], vec![Act::Say(1, good())]]);
    bench.stream(0, Act::Say(1, good()));
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.world.asked.take(), [(0, false, true), (0, true, true)]);
}

#[test]
fn broken_stream_leads_to_the_next_upstream_and_leaves_the_first_its_place() {
    let bench = Bench::new(vec![vec![truncated()], vec![Act::Say(1, good())]]);
    bench.stream(0, Act::Fail(ExchangeError::Unreachable));
    for _ in 0..4 {
        assert!(bench.resolve().is_ok());
        assert_eq!(bench.asked(), [0, 0, 1]);
    }
}

#[test]
fn no_stream_anywhere_is_a_network_error() {
    let bench = Bench::new(vec![vec![truncated()]]);
    bench.stream(0, Act::Silence);
    assert_eq!(bench.resolve(), Err(Failure::Stream));
    assert!(bench.elapsed() <= WHOLE);
}

#[test]
fn silent_upstream_costs_one_attempt_and_the_second_answers() {
    let bench = Bench::new(vec![vec![Act::Silence], vec![Act::Say(5, good())]]);
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.asked(), [0, 1]);
    assert_eq!(bench.elapsed(), ATTEMPT + Duration::from_millis(5));
}

#[test]
fn lost_datagram_is_sent_again_in_the_second_round() {
    let bench = Bench::new(vec![vec![Act::Silence, Act::Say(5, good())], vec![Act::Silence]]);
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.asked(), [0, 1, 0]);
}

#[test]
fn all_silent_ends_at_the_deadline_with_ede_22() {
    let bench = Bench::new(vec![vec![Act::Silence], vec![Act::Silence]]);
    let failure = bench.resolve().unwrap_err();
    assert_eq!((failure, failure.ede().code), (Failure::NobodyAnswered, 22));
    // What is left after two rounds is too little for two whole attempts, and shared.
    assert_eq!(bench.asked(), [0, 1, 0, 1, 0, 1]);
    assert_eq!(bench.elapsed(), WHOLE);
}

#[test]
fn exchanges_are_bounded_however_long_the_deadline() {
    let bench = Bench::with(vec![vec![Act::Silence]], |forward| forward.deadline = 100 * ATTEMPT);
    assert_eq!(bench.resolve(), Err(Failure::NobodyAnswered));
    assert_eq!(bench.asked().len(), EXCHANGES_MAX);
    assert_eq!(bench.elapsed(), 100 * ATTEMPT, "the last answer may come yet");
}

#[test]
fn failing_upstream_is_passed_over_and_not_asked_twice() {
    for rcode in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::FORMERR, Rcode::NOTIMP] {
        let bench = Bench::new(vec![vec![says(rcode)], vec![Act::Silence, Act::Say(1, good())]]);
        assert!(bench.resolve().is_ok(), "{rcode:?}");
        assert_eq!(bench.asked(), [0, 1, 1]);
    }
}

#[test]
fn upstream_that_always_fails_is_asked_last_and_comes_back() {
    for rcode in [Rcode::SERVFAIL, Rcode::REFUSED] {
        let failing = vec![says(rcode); 5];
        let scripts =
            vec![[failing, vec![Act::Say(1, good())]].concat(), vec![Act::Say(1, good())]];
        let bench = Bench::new(scripts);
        let ask = || {
            assert!(bench.resolve().is_ok());
            bench.asked()
        };
        for _ in 0..4 {
            assert_eq!(ask(), [0, 1]);
        }
        assert_eq!(ask(), [1]);
        bench.world.pass(Duration::from_secs(3));
        assert_eq!(ask(), [0, 1], "one question tries it, in vain");
        assert_eq!(ask(), [1]);
        bench.world.pass(Duration::from_secs(5));
        assert_eq!(ask(), [0]);
        assert_eq!(ask(), [0]);
    }
}

#[test]
fn question_that_nobody_can_answer_is_not_the_first_upstreams_fault() {
    let bench = Bench::new(vec![vec![says(Rcode::SERVFAIL)]; 2]);
    for _ in 0..10 {
        assert_eq!(bench.resolve(), Err(Failure::Servfail));
        assert_eq!(bench.asked(), [0, 1]);
    }
}

#[test]
fn lame_and_malformed_answers_lead_to_the_next_upstream() {
    let referral =
        Reply::new(Rcode::NOERROR).authority(&[pointer("example.", Rtype::NS, 60, "ns.example.")]);
    let looped = Reply::new(Rcode::NOERROR).answer(&[pointer(
        "www.example.",
        Rtype::CNAME,
        60,
        "www.example.",
    )]);
    let scripts =
        vec![vec![Act::Say(1, referral)], vec![Act::Say(1, looped)], vec![Act::Say(1, good())]];
    let bench = Bench::new(scripts);
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.asked(), [0, 1, 2]);
}

#[test]
fn when_all_fail_the_failure_has_ede_23_and_wins_over_silence() {
    let bench = Bench::new(vec![vec![says(Rcode::SERVFAIL)], vec![says(Rcode::SERVFAIL)]]);
    let failure = bench.resolve().unwrap_err();
    assert_eq!((failure, failure.ede().code), (Failure::Servfail, 23));
    assert_eq!(bench.asked(), [0, 1]);
    let bench = Bench::new(vec![vec![says(Rcode::REFUSED)], vec![Act::Silence]]);
    assert_eq!(bench.resolve(), Err(Failure::Refused));
}

#[test]
fn exhausted_sockets_are_not_the_upstreams_fault() {
    let bench = Bench::new(vec![vec![Act::Fail(ExchangeError::Exhausted)]; 2]);
    for _ in 0..5 {
        assert_eq!(bench.resolve(), Err(Failure::Exhausted));
        assert_eq!(bench.asked(), [0, 1], "each in its place, once");
    }
}

#[test]
fn unreachable_upstream_costs_no_time_and_rests() {
    let unreachable = || vec![Act::Fail(ExchangeError::Unreachable)];
    let bench = Bench::new(vec![unreachable(), vec![Act::Say(5, good())]]);
    for asked in [[0, 1].as_slice(), &[0, 1], &[1]] {
        assert!(bench.resolve().is_ok());
        assert_eq!(bench.asked(), asked);
    }
    assert_eq!(bench.elapsed(), Duration::from_millis(15));
    let bench = Bench::new(vec![unreachable(), unreachable()]);
    let failure = bench.resolve().unwrap_err();
    assert_eq!((failure, failure.ede().code), (Failure::Unreachable, 22));
    // After a moment, and another one, both are tried again.
    assert_eq!(bench.asked(), [0, 1, 0, 1, 0, 1]);
    assert_eq!(bench.elapsed(), Duration::from_millis(360));
}

#[test]
fn upstreams_that_were_out_of_reach_for_a_moment_lose_no_question() {
    let moment = || vec![Act::Fail(ExchangeError::Unreachable), Act::Say(5, good())];
    let bench = Bench::new(vec![moment(), moment()]);
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.asked(), [0, 1, 0]);
    let bench = Bench::new(vec![moment(), vec![Act::Silence]]);
    assert!(bench.resolve().is_ok(), "beside a silent one, too");
    assert_eq!(bench.asked(), [0, 1, 0]);
    let unreachable = vec![Act::Fail(ExchangeError::Unreachable)];
    let bench = Bench::with(vec![unreachable], |forward| forward.deadline = ATTEMPT / 2);
    assert_eq!(bench.resolve(), Err(Failure::Unreachable));
    assert_eq!(bench.elapsed(), ATTEMPT / 2, "no pause is longer than the question");
}

#[test]
fn silent_upstream_beside_an_unreachable_one_has_the_whole_deadline() {
    for place in 0..2 {
        let silent = vec![Act::Silence];
        let mut scripts = vec![vec![Act::Fail(ExchangeError::Unreachable)], silent];
        scripts.swap(0, place);
        let bench = Bench::new(scripts);
        assert_eq!(bench.resolve(), Err(Failure::NobodyAnswered));
        assert_eq!(bench.elapsed(), WHOLE);
    }
}

#[test]
fn forged_datagrams_are_passed_over_until_the_right_one_comes() {
    let forged = Reply::new(Rcode::NOERROR).answer(&[a("www.example.", 9, 66)]);
    let wrong_id: fn(&mut Vec<u8>) = |message| message[1] ^= 1;
    let wrong_question: fn(&mut Vec<u8>) = |message| message[13] = b'x';
    let right: fn(&mut Vec<u8>) = |_| {};
    let spray =
        Act::Spray(vec![(forged.clone(), wrong_id), (forged, wrong_question), (good(), right)]);
    let bench = Bench::new(vec![vec![spray]]);
    assert_eq!(bench.resolve().unwrap().lifetime, 60);
    assert_eq!(bench.asked(), [0]);
}

#[test]
fn upstream_that_chokes_on_edns_is_asked_once_without() {
    for rcode in [Rcode::FORMERR, Rcode::NOTIMP] {
        let old = Reply { has_opt: false, ..Reply::new(rcode) };
        let plain = Reply { has_opt: false, ..good() };
        let bench = Bench::new(vec![vec![Act::Say(1, old), Act::Say(1, plain)]]);
        assert!(bench.resolve().is_ok());
        assert_eq!(bench.world.asked.take(), [(0, false, true), (0, false, false)]);
    }
    let stubborn = Reply { has_opt: false, ..Reply::new(Rcode::FORMERR) };
    let bench = Bench::new(vec![vec![Act::Say(1, stubborn)]]);
    assert_eq!(bench.resolve(), Err(Failure::Code));
    assert_eq!(bench.asked(), [0, 0]);
}

#[test]
fn dead_upstream_is_remembered_and_comes_back() {
    let dead = vec![Act::Silence; 3];
    let bench =
        Bench::new(vec![[dead, vec![Act::Say(1, good())]].concat(), vec![Act::Say(1, good())]]);
    let ask = || {
        assert!(bench.resolve().is_ok());
        bench.asked()
    };
    assert_eq!(ask(), [0, 1]);
    assert_eq!(ask(), [0, 1]);
    // It rests now.
    assert_eq!(ask(), [1]);
    assert_eq!(ask(), [1]);
    bench.world.pass(Duration::from_secs(3));
    // One question probes it, in vain; the next does not.
    assert_eq!(ask(), [0, 1]);
    assert_eq!(ask(), [1]);
    bench.world.pass(Duration::from_secs(5));
    // It is back.
    assert_eq!(ask(), [0]);
    assert_eq!(ask(), [0]);
}

#[test]
fn attempt_cut_short_by_the_deadline_says_nothing_about_the_upstream() {
    // Late datagrams and silent streams of the first two leave the third less than half of its due.
    let late = |millis| match truncated() {
        Act::Say(_, reply) => Act::Say(millis, reply),
        other => other,
    };
    let scripts = vec![vec![late(590)], vec![late(460)], vec![Act::Silence]];
    let bench = Bench::with_patience(Duration::from_millis(600), scripts);
    for index in 0..2 {
        bench.stream(index, Act::Silence);
    }
    for _ in 0..3 {
        assert_eq!(bench.resolve(), Err(Failure::Stream));
        assert_eq!(bench.asked(), [0, 0, 1, 1, 2]);
    }
}

#[test]
fn patience_as_long_as_the_deadline_leaves_time_for_the_others() {
    let scripts = vec![vec![Act::Silence], vec![Act::Say(5, good())]];
    let bench = Bench::with_patience(WHOLE, scripts);
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.elapsed(), WHOLE / 2 + Duration::from_millis(5));
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.asked(), [0, 1, 0, 1]);
    // Its silence counts although it got less than the config's patience.
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.asked(), [1]);
}

#[test]
fn silent_stream_leaves_time_for_the_others() {
    let scripts = vec![vec![truncated()], vec![Act::Say(1, good())]];
    let bench = Bench::with_patience(WHOLE, scripts);
    bench.stream(0, Act::Silence);
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.asked(), [0, 0, 1]);
}

#[test]
fn negative_answers_are_answers() {
    let reply = Reply::new(Rcode::NXDOMAIN).authority(&[soa("example.", 60, 30)]);
    let bench = Bench::new(vec![vec![Act::Say(1, reply)], vec![Act::Say(1, good())]]);
    let answer = bench.resolve().unwrap();
    assert_eq!((answer.shape.rcode, answer.lifetime), (Rcode::NXDOMAIN, 30));
    assert_eq!(bench.asked(), [0]);
}

#[test]
fn many_failing_upstreams_cost_bounded_exchanges() {
    let bench = Bench::new(vec![vec![says(Rcode::SERVFAIL)]; 50]);
    assert_eq!(bench.resolve(), Err(Failure::Servfail));
    assert_eq!(bench.asked().len(), EXCHANGES_MAX);
}

#[test]
fn streams_and_repetitions_without_edns_count_as_exchanges() {
    let bench = Bench::new(vec![vec![truncated()]; 50]);
    for index in 0..50 {
        bench.stream(index, Act::Fail(ExchangeError::Unreachable));
    }
    assert_eq!(bench.resolve(), Err(Failure::Stream));
    assert_eq!(bench.asked().len(), EXCHANGES_MAX);
    let old = || vec![Act::Say(1, Reply { has_opt: false, ..Reply::new(Rcode::FORMERR) })];
    let mut scripts = vec![vec![says(Rcode::SERVFAIL)]];
    scripts.resize_with(50, old);
    let bench = Bench::new(scripts);
    assert_eq!(bench.resolve(), Err(Failure::Code));
    assert_eq!(bench.asked(), [0, 1, 1, 2, 2, 3, 3, 4]);
    let bench = Bench::new(
        vec![vec![says(Rcode::SERVFAIL)]; 7].into_iter().chain([vec![truncated()]]).collect(),
    );
    assert_eq!(bench.resolve(), Err(Failure::Stream));
    assert_eq!(bench.asked(), [0, 1, 2, 3, 4, 5, 6, 7], "no exchange is left for a stream");
}

#[test]
fn each_failure_is_told_by_its_own_cause() {
    let yxdomain = Rcode(6);
    for (rcode, failure, text) in [
        (Rcode::SERVFAIL, Failure::Servfail, "upstream says SERVFAIL"),
        (Rcode::REFUSED, Failure::Refused, "upstream says REFUSED"),
        (yxdomain, Failure::Code, "upstream answers with an error code"),
    ] {
        let bench = Bench::new(vec![vec![says(rcode)]]);
        let seen = bench.resolve().unwrap_err();
        assert_eq!((seen, seen.ede().text), (failure, text));
    }
    let bench = Bench::new(vec![vec![truncated()]]);
    bench.stream(0, Act::Fail(ExchangeError::Exhausted));
    assert_eq!(bench.resolve(), Err(Failure::Exhausted));
}

#[test]
fn resting_upstreams_are_asked_when_there_are_no_others() {
    let bench = Bench::new(vec![[vec![Act::Silence; 5], vec![Act::Say(1, good())]].concat()]);
    assert_eq!(bench.resolve(), Err(Failure::NobodyAnswered));
    assert!(bench.resolve().is_ok());
}

#[test]
fn known_failure_does_not_wait_for_the_dead_until_the_deadline() {
    let bench = Bench::new(vec![vec![Act::Silence], vec![says(Rcode::SERVFAIL)]]);
    assert_eq!(bench.resolve(), Err(Failure::Servfail));
    assert_eq!(bench.asked(), [0, 1, 0]);
}
