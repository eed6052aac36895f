//! Who is asked, when a second one is asked, too, and who asks in the background.

use super::*;
use crate::config::File;
use crate::resolve::health::Reason;
use crate::resolve::ports::Doubt;

fn after(millis: u64) -> Act {
    Act::Say(millis, good())
}

fn with_policy(scripts: Vec<Vec<Act>>, selection: Selection) -> Bench {
    Bench::with(scripts, |forward| forward.root.selection = selection)
}

/// Who is asked first in each of `count` questions.
fn firsts(bench: &Bench, count: usize) -> Vec<usize> {
    let first = |_| {
        assert!(bench.resolve().is_ok());
        bench.asked()[0]
    };
    (0..count).map(first).collect()
}

/// Lets the background have `duration`.
fn probe_for(bench: &Bench, duration: Duration) {
    bench.world.time.run(async {
        let mut probing = pin!(bench.forwarder.probe(&bench.world, || {}));
        let mut end = pin!(bench.world.time.sleep(duration));
        poll_fn(|cx| {
            assert!(probing.as_mut().poll(cx).is_pending());
            end.as_mut().poll(cx)
        })
        .await;
    });
}

/// As many questions as make an upstream's habits known.
fn warm(bench: &Bench) {
    firsts(bench, 40);
}

#[test]
fn late_answer_is_still_welcome() {
    let bench = Bench::new(vec![vec![after(1_500)], vec![Act::Silence]]);
    assert!(bench.resolve().is_ok(), "later than an attempt, not than the question");
    assert_eq!(bench.elapsed(), Duration::from_millis(1_500));
}

#[test]
fn slow_upstream_alone_is_never_a_dead_one() {
    let bench = Bench::new(vec![vec![after(700)]]);
    for _ in 0..20 {
        assert!(bench.resolve().is_ok());
    }
    assert!(bench.forwarder.take_changes().is_empty());
}

#[test]
fn retry_comes_as_soon_as_the_usual_time_is_well_over() {
    let script = [vec![after(10); 40], vec![Act::Silence, after(10)]].concat();
    let bench = Bench::new(vec![script]);
    warm(&bench);
    bench.world.time.pass(Duration::from_secs(1));
    let before = bench.elapsed();
    assert!(bench.resolve().is_ok());
    let elapsed = bench.elapsed().saturating_sub(before);
    assert_eq!(elapsed, Duration::from_millis(110), "not the whole of {ATTEMPT:?}");
}

#[test]
fn second_upstream_is_asked_when_the_first_is_later_than_mostly() {
    let first = [vec![after(10); 40], vec![after(90)]].concat();
    let bench = Bench::new(vec![first, vec![after(1)]]);
    warm(&bench);
    let before = bench.elapsed();
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.asked(), [0, 1]);
    let elapsed = bench.elapsed().saturating_sub(before);
    assert!(elapsed < Duration::from_millis(30), "{elapsed:?}");
    assert_eq!(bench.forwarder.count().hedges.value(), 1);
}

#[test]
fn hedges_stay_within_their_share() {
    // One in four is late: more than there is to spend.
    let quarter = [vec![after(10); 3], vec![after(60)]].concat();
    let bench = Bench::new(vec![times(500, &quarter), vec![after(1)]]);
    for _ in 0..2_000 {
        assert!(bench.resolve().is_ok());
    }
    let hedges = bench.forwarder.count().hedges.value();
    let most = 2_000 * 5 / 100 + u64::from(HEDGES_SAVED_MAX);
    assert!((60..=most).contains(&hedges), "{hedges} of {most}");
    assert_eq!(bench.asked().len() as u64, 2_000 + hedges);
}

#[test]
fn hedging_can_be_switched_off() {
    let quarter = [vec![after(10); 3], vec![after(60)]].concat();
    let bench =
        Bench::with(vec![times(50, &quarter), vec![after(1)]], |forward| forward.hedge_percent = 0);
    for _ in 0..200 {
        assert!(bench.resolve().is_ok());
    }
    assert_eq!(bench.asked(), [0; 200]);
}

#[test]
fn resting_upstream_is_no_hedge() {
    let first = [vec![after(10); 60], vec![after(90)]].concat();
    let bench = Bench::new(vec![first, vec![Act::Silence]]);
    warm(&bench);
    let (server, now) = (bench.forwarder.server(1), bench.world.time.now());
    for _ in 0..2 {
        server.health(|health| health.unreachable(now));
    }
    bench.asked();
    firsts(&bench, 21);
    assert!(bench.asked().is_empty());
    assert_eq!(bench.forwarder.count().hedges.value(), 0);
}

#[test]
fn fastest_finds_the_quick_one_and_looks_after_the_others() {
    let scripts = vec![vec![after(80)], vec![after(4)], vec![after(40)]];
    let bench = with_policy(scripts, Selection::Fastest);
    firsts(&bench, 100);
    let asked = firsts(&bench, 3_000);
    let counts = [0, 1, 2].map(|place| asked.iter().filter(|&&first| first == place).count());
    // A third of the draws leaves the quickest out, and then the second takes it.
    assert!(counts[1] > 1_800 && counts[1] < 2_300, "{counts:?}");
    assert!(counts[2] > counts[0] && counts[0] > 0, "{counts:?}");
}

#[test]
fn two_alike_share_the_questions() {
    let bench = with_policy(vec![vec![after(5)], vec![after(5)]], Selection::Fastest);
    let asked = firsts(&bench, 1_000);
    let first = asked.iter().filter(|&&first| first == 0).count();
    assert!((300..700).contains(&first), "{first}");
}

#[test]
fn upstream_that_has_become_quick_is_found_again() {
    let scripts = vec![[vec![after(50); 2], vec![after(1)]].concat(), vec![after(10)]];
    let bench = with_policy(scripts, Selection::Fastest);
    let asked = firsts(&bench, 5_000);
    let late = asked[4_000..].iter().filter(|&&first| first == 0).count();
    assert!(late > 900, "{late} of the last 1000");
}

#[test]
fn round_robin_takes_turns_and_leaves_out_who_rests() {
    let scripts = vec![vec![after(1)], vec![says(Rcode::SERVFAIL)], vec![after(1)]];
    let bench = with_policy(scripts, Selection::RoundRobin);
    assert_eq!(firsts(&bench, 6), [0, 1, 2, 0, 1, 2]);
    firsts(&bench, 6);
    assert_eq!(firsts(&bench, 4), [2, 0, 2, 0]);
}

#[test]
fn probe_brings_a_dead_upstream_back_without_a_client() {
    let first = [vec![Act::Silence; 3], vec![after(1)]].concat();
    let bench = Bench::with(vec![first, vec![after(1)]], |forward| forward.probe = true);
    firsts(&bench, 2);
    let rests = |length| Change::Rests { reason: Reason::Silence, length };
    let address = bench.forwarder.server(0).upstream.clone();
    let two = Duration::from_secs(2);
    assert_eq!(bench.forwarder.take_changes(), [(address.clone(), rests(two))]);
    assert_eq!(firsts(&bench, 3), [1, 1, 1]);
    bench.world.pass(Duration::from_secs(10));
    assert_eq!(firsts(&bench, 3), [1, 1, 1], "clients' questions do not try it");
    bench.asked();
    probe_for(&bench, Duration::from_secs(20));
    assert_eq!(bench.asked(), [0, 0], "one in vain, one answered, and then no more");
    assert_eq!(bench.forwarder.take_changes(), [(address, Change::Returned)]);
    assert_eq!(firsts(&bench, 3), [0, 0, 0]);
    assert_eq!(bench.forwarder.count().probes.value(), 2);
}

#[test]
fn nothing_is_asked_in_the_background_while_nobody_rests_or_when_told_so() {
    for (probe, script) in [(true, vec![after(1)]), (false, vec![Act::Silence; 2])] {
        let bench = Bench::with(vec![script], |forward| forward.probe = probe);
        let _ = bench.resolve();
        let _ = bench.resolve();
        let asked = bench.asked().len();
        probe_for(&bench, Duration::from_secs(60));
        assert!(asked > 0);
        assert!(bench.asked().is_empty());
    }
}

#[test]
fn closest_zone_decides_whom_a_question_goes_to() {
    let scripts = vec![vec![after(1)]; 3];
    let bench = Bench::with(scripts, |forward| {
        let mut upstreams = std::mem::take(&mut forward.root.upstreams).into_iter();
        let mut zone = |apex: &str| {
            let text = format!("[[forward]]\nzone = \"{apex}\"\nupstreams = [\"192.0.2.9\"]");
            let file = File { name: "zone", text: &text };
            let mut zone = config::Config::load(Some(file), [], &[]).unwrap().forward.zones;
            zone[0].upstreams = upstreams.next().into_iter().collect();
            zone.remove(0)
        };
        forward.zones = vec![zone("corp.example"), zone("lab.Corp.example")];
        forward.root.upstreams = upstreams.collect();
    });
    for (qname, place) in [
        ("www.example.", 2),
        ("xcorp.example.", 2),
        ("CORP.example.", 0),
        ("host.corp.example.", 0),
        ("lab.corp.example.", 1),
        ("a.b.lab.corp.EXAMPLE.", 1),
    ] {
        let query = client(qname, Rtype::A, false);
        let question = Question::of(&Query::parse(&query).unwrap());
        // The answer is to another name, but who was asked for it is what counts.
        let _ = bench.world.time.run(bench.forwarder.resolve(&bench.world, ROOT_VIEW, &question));
        assert_eq!(bench.asked()[0], place, "{qname}");
    }
}

#[test]
fn view_stands_in_the_place_of_the_root_and_of_no_zone() {
    let scripts = vec![vec![after(1)]; 4];
    let bench = Bench::with(scripts, |forward| {
        let text = "[[forward]]\nzone = \"corp.example\"\nupstreams = [\"192.0.2.9\"]";
        let file = File { name: "zone", text };
        forward.zones = config::Config::load(Some(file), [], &[]).unwrap().forward.zones;
        let mut upstreams = std::mem::take(&mut forward.root.upstreams).into_iter();
        let mut own = || ForwardZone {
            upstreams: upstreams.next().into_iter().collect(),
            ..ForwardZone::default()
        };
        forward.zones[0].upstreams = own().upstreams;
        forward.views = vec![own(), own()];
        forward.root.upstreams = own().upstreams;
    });
    for (qname, view, place) in [
        ("www.example.", ROOT_VIEW, 3),
        ("www.example.", 1, 1),
        ("www.example.", 2, 2),
        ("host.corp.example.", ROOT_VIEW, 0),
        ("host.corp.example.", 1, 0),
        ("Corp.example.", 2, 0),
    ] {
        let query = client(qname, Rtype::A, false);
        let question = Question::of(&Query::parse(&query).unwrap());
        let _ = bench.world.time.run(bench.forwarder.resolve(&bench.world, view, &question));
        assert_eq!(bench.asked()[0], place, "{qname} in view {view}");
    }
}

#[test]
fn upstream_over_its_bound_loses_the_oldest_to_the_next_upstream() {
    let bench = Bench::with(vec![vec![Act::Silence], vec![after(1)]], |forward| {
        forward.upstream_inflight_max = 2;
    });
    let query = client("www.example.", Rtype::A, false);
    let question = Question::of(&Query::parse(&query).unwrap());
    let ended = RefCell::new(Vec::new());
    let asks = (0..3).map(async |number| {
        assert!(bench.forwarder.resolve(&bench.world, ROOT_VIEW, &question).await.is_ok());
        ended.borrow_mut().push((number, bench.elapsed()));
    });
    bench.world.time.run(join_all(asks.collect()));
    let ended = ended.take();
    assert_eq!(ended[0], (0, Duration::from_millis(1)), "the first gave way to the third");
    assert!(ended[1].1 > ATTEMPT && ended[2].1 > ATTEMPT, "{ended:?}");
}

#[test]
fn opportunistic_upstream_is_asked_in_clear_when_tls_fails() {
    let opportunistic = |is_opportunistic| {
        let bench = Bench::with(vec![vec![after(1)]; 54], |forward| {
            let authentication =
                config::Authentication { is_opportunistic, ..config::Authentication::default() };
            let protocol = config::Protocol::Tls(authentication);
            // The port is the index of a script, and 53 that of cleartext.
            let address = SocketAddr::from(([192, 0, 2, 1], 7));
            forward.root.upstreams = vec![Upstream { address, protocol }];
        });
        bench.stream(7, Act::Fail(ExchangeError::Unreachable));
        (bench.resolve(), bench.world.asked.take())
    };
    let (outcome, asked) = opportunistic(true);
    assert!(outcome.is_ok());
    assert_eq!(asked, [(7, true, true), (53, false, true)]);
    let (outcome, asked) = opportunistic(false);
    assert_eq!((outcome, asked), (Err(Failure::Unreachable), vec![(7, true, true); 3]));
}

#[test]
fn doubtful_datagrams_lead_to_a_stream() {
    for doubt in [Doubt::Flood, Doubt::Casing] {
        let bench = Bench::new(vec![vec![Act::Fail(ExchangeError::Doubtful(doubt))]]);
        bench.stream(0, after(1));
        assert!(bench.resolve().is_ok());
        assert_eq!(bench.world.asked.take(), [(0, false, true), (0, true, true)]);
    }
}

#[test]
fn upstream_that_never_answered_is_tried_by_one_question_at_a_time() {
    let bench = with_policy(vec![vec![Act::Silence], vec![after(1)]], Selection::Fastest);
    let query = client("www.example.", Rtype::A, false);
    let question = Question::of(&Query::parse(&query).unwrap());
    // Until one of them has asked the good one, nobody knows better.
    firsts(&bench, 1);
    bench.asked();
    let asks = (0..100).map(async |number| {
        bench.world.time.sleep(Duration::from_millis(number)).await;
        assert!(bench.forwarder.resolve(&bench.world, ROOT_VIEW, &question).await.is_ok());
    });
    bench.world.time.run(join_all(asks.collect()));
    let silent = bench.asked().iter().filter(|&&place| place == 0).count();
    assert!(silent <= 2, "{silent}");
}

#[test]
fn cleartext_where_tls_fails_is_not_had_beyond_the_budget() {
    let bench = Bench::with(vec![vec![says(Rcode::SERVFAIL)]; 54], |forward| {
        let is_opportunistic = true;
        let authentication =
            config::Authentication { is_opportunistic, ..config::Authentication::default() };
        let last = forward.root.upstreams.drain(EXCHANGES_MAX - 1..).next().unwrap();
        let protocol = config::Protocol::Tls(authentication);
        forward.root.upstreams.push(Upstream { protocol, ..last });
    });
    bench.stream(EXCHANGES_MAX - 1, Act::Fail(ExchangeError::Unreachable));
    for _ in 0..3 {
        assert_eq!(bench.resolve(), Err(Failure::Servfail));
        assert_eq!(bench.asked(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
    assert!(bench.forwarder.take_changes().is_empty(), "it was not tried in every way");
}

#[test]
fn upstream_that_is_not_asked_early_keeps_its_turn() {
    let script = [vec![after(10); 40], vec![Act::Silence]].concat();
    let bench = Bench::with(vec![script, vec![after(1)]], |forward| forward.hedge_percent = 0);
    warm(&bench);
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.asked(), [0, 1]);
    assert_eq!(bench.forwarder.count().hedges.value(), 0);
}

#[test]
fn short_rest_ends_in_time_beside_a_long_one() {
    let unreachable = Act::Fail(ExchangeError::Unreachable);
    let second = vec![unreachable.clone(), unreachable, after(1)];
    let bench = Bench::with(vec![vec![Act::Silence], second, vec![after(1)]], |forward| {
        forward.probe = true;
    });
    let long = bench.forwarder.server(0);
    for _ in 0..8 {
        long.health(|health| health.unreachable(bench.world.time.now()));
        bench.world.pass(Duration::from_secs(60));
        long.health(|health| health.take_try(bench.world.time.now()));
    }
    let query = client("www.example.", Rtype::A, false);
    let question = Question::of(&Query::parse(&query).unwrap());
    bench.world.time.run(async {
        let mut probing = pin!(bench.forwarder.probe(&bench.world, || {}));
        let mut asking = pin!(async {
            bench.world.time.sleep(Duration::from_secs(1)).await;
            for _ in 0..2 {
                assert!(bench.forwarder.resolve(&bench.world, ROOT_VIEW, &question).await.is_ok());
            }
            bench.world.time.sleep(Duration::from_secs(3)).await;
        });
        poll_fn(|cx| {
            assert!(probing.as_mut().poll(cx).is_pending());
            asking.as_mut().poll(cx)
        })
        .await;
    });
    assert_eq!(bench.asked(), [1, 2, 1, 2, 1], "the last one is a probe");
    let address = bench.forwarder.server(1).upstream.clone();
    assert_eq!(bench.forwarder.take_changes()[1..], [(address, Change::Returned)]);
}

#[test]
fn slow_stream_after_a_cut_answer_is_waited_for() {
    let bench = Bench::with(vec![vec![truncated()]], |forward| {
        forward.deadline = Duration::from_secs(5);
    });
    bench.stream(0, after(2_200));
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.elapsed(), Duration::from_millis(2_201));
}

#[test]
fn refused_probe_ends_a_rest_for_silence() {
    let script = vec![Act::Silence, Act::Silence, says(Rcode::REFUSED), after(1)];
    let bench = Bench::with(vec![script, vec![after(1)]], |forward| forward.probe = true);
    firsts(&bench, 2);
    assert_eq!(firsts(&bench, 1), [1]);
    probe_for(&bench, Duration::from_secs(5));
    bench.asked();
    assert_eq!(firsts(&bench, 2), [0, 0]);
}

#[test]
fn without_probes_a_resting_upstream_is_tried_before_all_others() {
    let scripts = vec![vec![after(1)], times(2, &[Act::Silence]), vec![after(1)]];
    let bench = with_policy(scripts, Selection::Ordered);
    let (server, now) = (bench.forwarder.server(1), bench.world.time.now());
    for _ in 0..2 {
        server.health(|health| health.unreachable(now));
    }
    assert_eq!(firsts(&bench, 2), [0, 0]);
    bench.world.pass(Duration::from_secs(3));
    assert_eq!(firsts(&bench, 3), [1, 0, 0]);
}

#[test]
fn silent_probe_keeps_no_other_waiting() {
    let scripts = vec![vec![Act::Silence], vec![Act::Silence, after(1)]];
    let bench = Bench::with(scripts, |forward| forward.probe = true);
    let now = bench.world.time.now();
    for place in 0..2 {
        let server = bench.forwarder.server(place);
        server.health(|health| health.unreachable(now));
        server.health(|health| health.unreachable(now.after(Duration::from_millis(10))));
    }
    bench.world.scripts.borrow_mut()[1].pop_front();
    probe_for(&bench, Duration::from_millis(2_100));
    assert_eq!(bench.asked(), [0, 1]);
    let address = bench.forwarder.server(1).upstream.clone();
    assert_eq!(bench.forwarder.take_changes(), [(address, Change::Returned)]);
}
