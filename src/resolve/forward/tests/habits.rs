//! What upstreams cannot do, and what they give: EDNS, casing, cookies.

use super::*;
use crate::resolve::ports::Doubt;
use crate::wire::{options, options::COOKIE};

fn old(rcode: Rcode) -> Reply {
    Reply { has_opt: false, ..Reply::new(rcode) }
}

fn plain() -> Act {
    Act::Say(1, Reply { has_opt: false, ..good() })
}

/// Whether each query since the last call had EDNS.
fn edns_of(bench: &Bench) -> Vec<bool> {
    bench.world.asked.take().into_iter().map(|(_, _, has_edns)| has_edns).collect()
}

#[test]
fn upstream_that_choked_three_times_is_asked_without_edns_for_an_hour() {
    let choking = [Act::Say(1, old(Rcode::FORMERR)), plain()];
    let script = [times(3, &choking), vec![plain(); 2], choking.to_vec()].concat();
    let bench = Bench::new(vec![script]);
    for _ in 0..3 {
        assert!(bench.resolve().is_ok());
        assert_eq!(edns_of(&bench), [true, false]);
    }
    for _ in 0..2 {
        assert!(bench.resolve().is_ok());
        assert_eq!(edns_of(&bench), [false]);
    }
    bench.world.pass(Duration::from_secs(3_601));
    assert!(bench.resolve().is_ok());
    assert_eq!(edns_of(&bench), [true, false], "it may have been mended");
}

#[test]
fn forged_formerr_does_not_take_edns_from_one_that_speaks_it() {
    let bench = Bench::new(vec![vec![Act::Say(1, good()), Act::Say(1, old(Rcode::FORMERR))]]);
    bench.stream(0, Act::Say(1, good()));
    assert!(bench.resolve().is_ok());
    for _ in 0..10 {
        bench.world.asked.take();
        assert!(bench.resolve().is_ok());
        assert_eq!(bench.world.asked.take(), [(0, false, true), (0, true, true)]);
    }
}

#[test]
fn names_go_out_in_random_casing_and_answers_show_nothing_of_it() {
    let bench = Bench::new(vec![vec![Act::Say(1, good())]]);
    for _ in 0..4 {
        assert!(bench.resolve().is_ok());
    }
    let queries = bench.world.queries.take();
    let names: std::collections::BTreeSet<_> = queries.iter().map(|query| &query[12..25]).collect();
    assert!(names.len() > 1, "{names:?}");
    let flat = Bench::with(vec![vec![Act::Say(1, good())]], |forward| {
        forward.case_randomization = false;
    });
    assert!(flat.resolve().is_ok());
    assert_eq!(&flat.world.queries.take()[0][12..25], b"\x03www\x07example\0");
}

#[test]
fn upstream_that_changes_casing_and_has_no_streams_is_believed_after_three_times() {
    let doubt = Act::Fail(ExchangeError::Doubtful(Doubt::Casing));
    let script = [times(3, &[doubt, Act::Say(1, good())]), vec![Act::Say(1, good())]].concat();
    let bench = Bench::new(vec![script]);
    bench.stream(0, Act::Fail(ExchangeError::Unreachable));
    for _ in 0..3 {
        assert!(bench.resolve().is_ok());
        assert_eq!(bench.asked(), [0, 0, 0]);
    }
    bench.world.queries.take();
    for _ in 0..3 {
        assert!(bench.resolve().is_ok());
        assert_eq!(bench.asked(), [0]);
    }
    let queries = bench.world.queries.take();
    assert!(queries.iter().all(|query| &query[12..25] == b"\x03www\x07example\0"));
}

/// An upstream that gives cookies, made of what the client sent and of a part of its own.
fn with_cookie(server_part: &'static [u8]) -> Act {
    Act::Bake(Reply { has_opt: false, ..good() }, server_part)
}

fn cookies_of(bench: &Bench) -> Vec<Vec<u8>> {
    let queries = bench.world.queries.take();
    queries.iter().map(|query| options::option(query, COOKIE).unwrap_or_default().into()).collect()
}

#[test]
fn servers_part_of_the_cookie_comes_back_with_the_next_query() {
    let bench = Bench::new(vec![vec![with_cookie(b"server-1"), with_cookie(b"server-2")]]);
    for _ in 0..3 {
        assert!(bench.resolve().is_ok());
    }
    let cookies = cookies_of(&bench);
    assert_eq!(cookies.iter().map(Vec::len).collect::<Vec<_>>(), [8, 16, 16]);
    assert!(cookies.iter().all(|cookie| cookie[..8] == cookies[0][..8]));
    assert_eq!((&cookies[1][8..], &cookies[2][8..]), (&b"server-1"[..], &b"server-2"[..]));
}

#[test]
fn answer_without_the_cookie_that_is_due_is_fetched_over_a_stream() {
    let bench = Bench::new(vec![vec![with_cookie(b"server-1"), Act::Say(1, good())]]);
    bench.stream(0, with_cookie(b"server-1"));
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.asked(), [0]);
    for _ in 0..3 {
        assert!(bench.resolve().is_ok());
        assert_eq!(bench.world.asked.take(), [(0, false, true), (0, true, true)]);
    }
    // Over the stream it turns out that it gives none any more.
    bench.world.streams.borrow_mut()[0].clear();
    bench.stream(0, Act::Say(1, good()));
    assert!(bench.resolve().is_ok());
    bench.asked();
    assert!(bench.resolve().is_ok());
    assert_eq!(bench.world.asked.take(), [(0, false, true)]);
}

#[test]
fn badcookie_is_asked_again_with_the_new_one_and_then_over_a_stream() {
    let refusal = || Act::Bake(Reply { has_opt: false, ..Reply::new(Rcode(7)) }, b"server-1");
    let bench = Bench::new(vec![vec![refusal(), with_cookie(b"server-1")]]);
    assert!(bench.resolve().is_ok());
    assert_eq!(cookies_of(&bench).iter().map(Vec::len).collect::<Vec<_>>(), [8, 16]);
    bench.asked();
    let stubborn = Bench::new(vec![vec![refusal()]]);
    stubborn.stream(0, refusal());
    assert_eq!(stubborn.resolve(), Err(Failure::Code));
    assert_eq!(stubborn.asked(), [0, 0, 0], "two datagrams and a stream, no loop");
}

#[test]
fn cookies_can_be_switched_off() {
    let bench = Bench::with(vec![vec![Act::Say(1, good())]], |forward| forward.cookies = false);
    assert!(bench.resolve().is_ok());
    assert_eq!(cookies_of(&bench), [b""]);
}

#[test]
fn upstream_that_stops_giving_cookies_and_has_no_streams_is_believed_after_three_times() {
    let bench = Bench::new(vec![vec![with_cookie(b"server-1"), Act::Say(1, good())]]);
    bench.stream(0, Act::Fail(ExchangeError::Unreachable));
    for _ in 0..5 {
        assert!(bench.resolve().is_ok());
    }
    // One datagram at first, then three with a vain stream behind each of them but the last, and no more doubt.
    assert_eq!(bench.asked(), [vec![0], vec![0; 7], vec![0; 3]].concat());
}

#[test]
fn upstream_that_forgets_edns_and_has_no_streams_is_asked_without() {
    let forgets =
        [vec![Act::Say(1, good())], times(3, &[Act::Say(1, old(Rcode::FORMERR)), plain()])];
    let bench = Bench::new(vec![forgets.concat()]);
    bench.stream(0, Act::Fail(ExchangeError::Unreachable));
    for _ in 0..4 {
        assert!(bench.resolve().is_ok());
    }
    assert_eq!(edns_of(&bench).len(), 1 + 3 * 3, "a datagram, a vain stream, a datagram without");
}

#[test]
fn answers_in_between_clear_an_upstream_of_suspicion() {
    let doubt = || Act::Fail(ExchangeError::Doubtful(Doubt::Casing));
    let script = times(6, &[doubt(), Act::Say(1, good()), Act::Say(1, good())]);
    let bench = Bench::new(vec![script]);
    bench.stream(0, Act::Fail(ExchangeError::Unreachable));
    for _ in 0..12 {
        bench.world.queries.take();
        assert!(bench.resolve().is_ok());
        let first = bench.world.queries.take().remove(0);
        assert_ne!(&first[12..25], b"\x03www\x07example\0", "it is still asked in random casing");
    }
}
