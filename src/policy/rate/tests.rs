//! Buckets against a naive model, floods of strangers, prefixes, what is said over the limit.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::*;

const UDP: Transport = Transport::Udp;
const TCP: Transport = Transport::Tcp;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = NANOS_PER_SECOND;

fn section(queries_per_second: u32, burst: u32) -> config::Rate {
    let allow = Vec::new();
    config::Rate { queries_per_second, burst: Some(burst), allow, ..Default::default() }
}

fn limiter(section: &config::Rate) -> RateLimiter {
    RateLimiter::new(section, RandomState::with_seeds(1, 2, 3, 4)).unwrap()
}

fn at(nanos: u64) -> Monotonic {
    Monotonic::from_nanos(nanos)
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0A00_0000 + number).into()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// How many of `count` queries at one moment are within the limit.
fn granted(limiter: &mut RateLimiter, client: IpAddr, count: usize, nanos: u64) -> usize {
    (0..count).filter(|_| limiter.charge(client, UDP, at(nanos)).is_none()).count()
}

/// Buckets as a textbook has them: tokens that come back with time, for ever and for everybody.
struct Naive {
    token: u128,
    capacity: u128,
    /// Tokens, in nanoseconds of their coming back, and when that was.
    buckets: HashMap<(IpAddr, bool), (u128, u64)>,
}

impl Naive {
    fn new(section: &config::Rate) -> Self {
        let token = u128::from(SECOND / u64::from(section.queries_per_second));
        let capacity = token * u128::from(section.burst());
        Self { token, capacity, buckets: HashMap::new() }
    }

    fn grants(&mut self, client: IpAddr, transport: Transport, nanos: u64) -> bool {
        let fresh = (self.capacity, nanos);
        let (tokens, seen) = self.buckets.entry((client, transport == TCP)).or_insert(fresh);
        *tokens = (*tokens + u128::from(nanos - *seen)).min(self.capacity);
        *seen = nanos;
        let is_granted = *tokens >= self.token;
        if is_granted {
            *tokens -= self.token;
        }
        is_granted
    }
}

/// Pauses of all sizes, and none.
fn pauses() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        0..2_000u64,
        0..20 * MILLISECOND,
        0..5 * SECOND,
        Just(MILLISECOND),
        Just(SECOND / 3),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn buckets_grant_exactly_what_the_naive_ones_do(
        rate in prop_oneof![Just(1u32), Just(3), Just(1_000), 1..1_000_000u32],
        burst in prop_oneof![Just(1u32), 1..10u32, Just(1_000_000)],
        start in any::<u32>(),
        steps in proptest::collection::vec((0..24u32, any::<bool>(), pauses(), 1..6usize), 1..200),
    ) {
        let section = section(rate, burst);
        let (mut limiter, mut naive) = (limiter(&section), Naive::new(&section));
        let mut now = u64::from(start);
        for (client, is_stream, pause, repeats) in steps {
            now += pause;
            let (client, transport) = (v4(client), if is_stream { TCP } else { UDP });
            for _ in 0..repeats {
                let is_granted = limiter.charge(client, transport, at(now)).is_none();
                assert_eq!(is_granted, naive.grants(client, transport, now), "{client} {now}");
            }
        }
        assert_eq!(limiter.forgotten(), 0);
    }

    /// In a table with far too few buckets.
    #[test]
    fn whoever_has_kept_within_the_limit_is_granted_whatever_others_do(
        steps in proptest::collection::vec((0..600u32, pauses(), 1..4usize), 1..500),
    ) {
        let section = config::Rate { clients_max: 64, ..section(100, 2) };
        let (mut limiter, mut naive) = (limiter(&section), Naive::new(&section));
        let mut now = 0;
        let mut offenders = std::collections::HashSet::new();
        for (client, pause, repeats) in steps {
            now += pause / 64;
            let client = v4(client);
            for _ in 0..repeats {
                let is_granted = limiter.charge(client, UDP, at(now)).is_none();
                if !naive.grants(client, UDP, now) {
                    offenders.insert(client);
                }
                assert!(is_granted || offenders.contains(&client), "{client} {now}");
            }
        }
    }
}

#[test]
fn burst_is_granted_at_once_and_then_a_query_each_time_a_token_is_back() {
    let mut limiter = limiter(&section(1_000, 5));
    let client = v4(1);
    assert_eq!(granted(&mut limiter, client, 50, SECOND), 5, "the clock stands still");
    assert_eq!(granted(&mut limiter, client, 1, SECOND + MILLISECOND - 1), 0);
    assert_eq!(granted(&mut limiter, client, 2, SECOND + MILLISECOND), 1);
    assert_eq!(granted(&mut limiter, client, 9, SECOND + 4 * MILLISECOND), 3);
    assert_eq!(granted(&mut limiter, client, 9, 3_600 * SECOND), 5, "no more than a full one");
}

#[test]
fn rate_holds_over_a_long_time_and_also_where_a_token_is_no_whole_nanosecond() {
    for rate in [3, 7, 1_000, 70_000] {
        let mut limiter = limiter(&section(rate, 10));
        let steps = 80_000;
        let tick = 2 * SECOND / steps;
        // 80 000 per second: more than any of these rates allows.
        let granted: usize =
            (0..steps).map(|step| granted(&mut limiter, v4(1), 2, step * tick)).sum();
        let due = 2 * u64::from(rate);
        let most = due + 10 + due / 10_000;
        assert!((due..=most).contains(&(granted as u64)), "{rate}: {granted}");
    }
}

#[test]
fn clock_that_goes_back_costs_no_more_than_an_empty_bucket() {
    let mut limiter = limiter(&section(10, 2));
    assert_eq!(granted(&mut limiter, v4(1), 3, 1_000 * SECOND), 2);
    assert_eq!(granted(&mut limiter, v4(1), 1, 0), 0);
    let mut early = self::limiter(&section(10, 2));
    assert_eq!(granted(&mut early, v4(1), 1, 1_000 * SECOND), 1);
    assert_eq!(granted(&mut early, v4(1), 1, 0), 0, "taken for an empty one");
    assert_eq!(granted(&mut early, v4(1), 9, 200 * MILLISECOND), 2);
    assert_eq!(early.charge(v4(1), UDP, at(u64::MAX)), None, "and the end of the clock is no end");
}

#[test]
fn limited_client_stays_limited_while_a_million_strangers_pass() {
    let section = config::Rate { clients_max: 1_024, ..section(100, 20) };
    let mut limiter = limiter(&section);
    let (heavy, honest) = (v4(1), v4(2));
    let (mut now, mut taken, mut sent) = (0, 0, 0);
    for stranger in 0..1_000_000 {
        // 50 000 strangers per second; of the heavy client 1 000 queries, of the honest one 50.
        now += SECOND / 50_000;
        limiter.charge(v4(1_000 + stranger), UDP, at(now));
        if stranger % 50 == 0 {
            sent += 1;
            taken += granted(&mut limiter, heavy, 1, now);
        }
        if stranger % 1_000 == 0 {
            assert_eq!(granted(&mut limiter, honest, 1, now), 1, "{stranger}");
        }
    }
    let seconds = 20;
    assert_eq!(sent, 1_000 * seconds);
    assert!((100 * seconds..=100 * seconds + 20).contains(&taken), "{taken} of {sent}");
    assert!(limiter.forgotten() > 0, "the table was full");
    assert_eq!(limiter.sets.len() * size_of::<Set>(), bytes(&section), "and did not grow");
}

#[test]
fn bucket_that_is_full_again_makes_room_unnoticed() {
    let section = config::Rate { clients_max: 64, ..section(100, 20) };
    let mut limiter = limiter(&section);
    for client in 0..10_000 {
        assert_eq!(limiter.charge(v4(client), UDP, at(u64::from(client) * 10 * MILLISECOND)), None);
    }
    assert_eq!(limiter.forgotten(), 0);
    for client in 0..1_000 {
        limiter.charge(v4(client), UDP, at(200 * SECOND));
    }
    assert!(limiter.forgotten() > 900, "{}", limiter.forgotten());
}

#[test]
fn ipv6_hosts_of_a_64_share_a_bucket_and_ipv4_hosts_do_not() {
    let mut limiter = limiter(&section(1, 2));
    let mut ask = |text: &str| limiter.charge(address(text), UDP, at(0)).is_none();
    assert!(ask("2001:db8::1") && ask("2001:db8::ffff:ffff:ffff:ffff"));
    assert!(!ask("2001:db8:0:0:1::"));
    assert!(ask("2001:db8:0:1::1"), "the neighbouring network");
    assert!(ask("192.0.2.1") && ask("::ffff:192.0.2.1"), "one client in two kinds of clothing");
    assert!(!ask("192.0.2.1") && ask("192.0.2.0"));
}

#[test]
fn widths_of_prefixes_are_those_of_the_config() {
    let (ipv4_prefix, ipv6_prefix) = (24, 128);
    let mut limiter = limiter(&config::Rate { ipv4_prefix, ipv6_prefix, ..section(1, 1) });
    let mut ask = |text: &str| limiter.charge(address(text), UDP, at(0)).is_none();
    assert!(ask("192.0.2.1") && !ask("192.0.2.255") && ask("192.0.3.1"));
    assert!(ask("2001:db8::1") && !ask("2001:db8::1") && ask("2001:db8::2"));
    for (bits, mask) in [(0, 0), (1, 1 << 127), (128, u128::MAX)] {
        assert_eq!(leading(bits), mask);
    }
}

#[test]
fn prefixes_of_the_list_are_not_limited_and_take_no_bucket() {
    let allow = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let mut limiter = limiter(&config::Rate { allow, ..section(1, 1) });
    for text in ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8:7::1"] {
        assert_eq!(granted(&mut limiter, address(text), 100, 0), 100, "{text}");
    }
    assert!(limiter.sets.iter().flat_map(|set| set.0).all(|bucket| bucket.full_at == 0));
    assert_eq!(granted(&mut limiter, address("192.0.3.7"), 100, 0), 1);
    let by_default = RateLimiter::new(
        &config::Rate { queries_per_second: 1, ..Default::default() },
        RandomState::with_seeds(1, 2, 3, 4),
    );
    let mut by_default = by_default.unwrap();
    assert_eq!(granted(&mut by_default, Ipv6Addr::LOCALHOST.into(), 100, 0), 100);
}

#[test]
fn every_nth_datagram_over_the_limit_slips_and_streams_are_refused() {
    for (slip, expected) in [
        (0, [Excess::Drop; 6]),
        (1, [Excess::Slip; 6]),
        (2, [Excess::Drop, Excess::Slip, Excess::Drop, Excess::Slip, Excess::Drop, Excess::Slip]),
        (3, [Excess::Drop, Excess::Drop, Excess::Slip, Excess::Drop, Excess::Drop, Excess::Slip]),
    ] {
        let mut limiter = limiter(&config::Rate { slip, ..section(1, 1) });
        for client in [v4(1), v4(2)] {
            assert_eq!(limiter.charge(client, UDP, at(0)), None);
            assert_eq!([(); 6].map(|()| limiter.charge(client, UDP, at(0)).unwrap()), expected);
        }
        assert_eq!(limiter.charge(v4(1), TCP, at(0)), None, "datagrams do not use up its streams");
        assert_eq!(limiter.charge(v4(1), TCP, at(0)), Some(Excess::Refuse));
    }
}

#[test]
fn without_a_rate_there_is_no_table() {
    let off = config::Rate::default();
    assert!(RateLimiter::new(&off, RandomState::with_seeds(1, 2, 3, 4)).is_none());
    assert_eq!(bytes(&off), 0);
    assert_eq!(bytes(&section(1, 1)), 16_384 * 16);
}
