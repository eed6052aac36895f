//! The function in Rust, the program by an interpreter, and the kernel: three that must agree.
#![expect(clippy::disallowed_types, reason = "the group under test is plain sockets")]

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::assemble::{GIVE_BACK, code};
use super::interpret::run;
use super::*;
use crate::sys::sockopt::{UdpSettings, bind_udp};

/// Numbers without a pattern that a test could trip over; the same in every run.
fn key(seed: u64) -> Key {
    let mut state = seed;
    Key::new([0; KEY_WORDS].map(|_: u32| {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed >> 32) as u32
    }))
}

/// A query for a name of `labels`, with `rest` behind its question.
fn query(labels: &[Vec<u8>], rest: &[u8]) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label);
    }
    message.extend([0, 0, 1, 0, 1]);
    message.extend(rest);
    message
}

fn named(name: &str) -> Vec<u8> {
    let labels: Vec<Vec<u8>> = name.split('.').map(|label| label.as_bytes().to_vec()).collect();
    query(&labels, &[])
}

fn expected(key: &Key, cores: u16, spread: &[u32], datagram: &[u8]) -> u32 {
    match key.hash(datagram) {
        Some(hash) if !spread.contains(&hash) => owner(hash, cores).into(),
        _ => GIVE_BACK,
    }
}

/// Labels that are names, or too long for one.
fn labels() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let label = |octets, most: usize| prop::collection::vec(octets, 1..=most);
    prop_oneof![
        4 => prop::collection::vec(label(97u8..=122, 12), 0..6),
        1 => prop::collection::vec(label(0..=255, 63), 0..6),
        1 => prop::collection::vec(label(0..=255, 3), 30..45),
    ]
}

/// Queries, whole, cut short, or with an octet that is something else.
fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    let damage = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    let rest = prop::collection::vec(any::<u8>(), 0..40);
    (labels(), rest, damage, cut).prop_map(|(labels, rest, damage, cut)| {
        let mut message = query(&labels, &rest);
        if let Some((at, octet)) = damage {
            let at = at.index(message.len());
            message[at] = octet;
        }
        if let Some(cut) = cut {
            message.truncate(cut.index(message.len() + 1));
        }
        message
    })
}

proptest! {
    #[test]
    fn program_is_the_function(
        datagram in datagrams(),
        seed in any::<u64>(),
        cores in 1u16..=300,
        is_hot in any::<bool>(),
    ) {
        let key = key(seed);
        let spread: Vec<u32> = key.hash(&datagram).filter(|_| is_hot).into_iter().collect();
        let program = by_qname(&key, cores, &spread);
        prop_assert_eq!(run(&program, &datagram, 0), expected(&key, cores, &spread, &datagram));
        let glimpse = &datagram[..datagram.len().min(GLIMPSE_BYTES)];
        prop_assert_eq!(key.hash(glimpse), key.hash(&datagram));
    }

    #[test]
    fn case_and_what_follows_the_name_do_not_count(
        labels in prop::collection::vec(prop::collection::vec(33u8..=126, 1..=20), 1..8),
        rest in prop::collection::vec(any::<u8>(), 0..60),
        rtype in any::<[u8; 4]>(),
    ) {
        let key = key(7);
        let lower: Vec<Vec<u8>> = labels.iter().map(|label| label.to_ascii_lowercase()).collect();
        let mut other = query(&lower, &rest);
        let at = other.len() - rest.len() - 4;
        other[at..at + 4].copy_from_slice(&rtype);
        prop_assert_eq!(key.hash(&other), key.hash(&query(&labels, &[])));
        prop_assert!(key.hash(&other).is_some());
        prop_assert_eq!(key.hash(&other), key.hash_name(&other[12..at]));
    }
}

/// Sockets that share an address, in their order.
fn group(address: &str, count: usize) -> Vec<(OwnedFd, UdpSocket)> {
    let settings = UdpSettings { is_shared: true, buffer_bytes: Some(1 << 20) };
    let mut address: SocketAddr = address.parse().unwrap();
    let bind = |_| {
        let bound = bind_udp(address, settings).unwrap();
        address = bound.address;
        let socket = UdpSocket::from(bound.fd.try_clone().unwrap());
        (bound.fd, socket)
    };
    (0..count).map(bind).collect()
}

/// Where a datagram that `client` sends arrives.
fn arrival(group: &[(OwnedFd, UdpSocket)], client: &UdpSocket, datagram: &[u8]) -> usize {
    client.send(datagram).unwrap();
    let mut buf = [0; 2048];
    // Over loopback a datagram is there when it has been sent.
    let mut arrivals = (0..group.len()).filter(|&at| group[at].1.recv(&mut buf).is_ok());
    let first = arrivals.next().expect("it arrives somewhere");
    assert_eq!(arrivals.next(), None);
    first
}

fn client(group: &[(OwnedFd, UdpSocket)]) -> UdpSocket {
    let server = group[0].1.local_addr().unwrap();
    let client = UdpSocket::bind(SocketAddr::new(server.ip(), 0)).unwrap();
    client.connect(server).unwrap();
    client
}

#[test]
fn kernel_does_what_the_function_says() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = datagrams();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        if UdpSocket::bind(address).is_err() {
            continue; // a machine without IPv6
        }
        let group = group(address, 8);
        let client = client(&group);
        let by_flow = arrival(&group, &client, b"");
        let (key, hot) = (key(1), named("hot.example.net"));
        let spread = [key.hash(&hot).unwrap()];
        by_qname(&key, 8, &spread).attach(group[3].0.as_fd()).unwrap();
        assert_eq!(arrival(&group, &client, &hot), by_flow);
        let mut chosen = [0; 9];
        for _ in 0..2_000 {
            let datagram = strategy.new_tree(&mut runner).unwrap().current();
            let index = expected(&key, 8, &spread, &datagram);
            chosen[index.min(8) as usize] += 1;
            let expected = if index == GIVE_BACK { by_flow } else { index as usize };
            assert_eq!(arrival(&group, &client, &datagram), expected, "{datagram:?}");
        }
        assert!(chosen.iter().all(|&count| count > 50), "{chosen:?}");
        Program::by_flow().attach(group[0].0.as_fd()).unwrap();
        assert_eq!(arrival(&group, &client, &named("other.example.net")), by_flow);
    }
}

#[test]
fn kernel_sends_what_a_cpu_handles_to_its_worker() {
    let cpus = core_affinity::get_core_ids().unwrap();
    let group = group("127.0.0.1:0", 8);
    let client = client(&group);
    let count = cpus.iter().map(|core| core.id).max().unwrap() + 1;
    // No two neighbours have the same worker, and the order is none that a hash would have.
    let workers: Vec<u16> = (0u16..).take(count).map(|cpu| 7 - cpu % 8).collect();
    by_cpu(&workers).attach(group[0].0.as_fd()).unwrap();
    for core in cpus {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(core_affinity::set_for_current(core));
                for _ in 0..20 {
                    let worker = usize::from(workers[core.id]);
                    assert_eq!(arrival(&group, &client, b"anything"), worker, "{core:?}");
                }
            });
        });
    }
}

/// How many of `names` each of eight cores owns.
fn shares(names: impl Iterator<Item = String>) -> [u32; 8] {
    let (key, mut shares) = (key(3), [0; 8]);
    for name in names {
        shares[usize::from(owner(key.hash(&named(&name)).unwrap(), 8))] += 1;
    }
    shares
}

#[test]
fn names_spread_evenly_whatever_they_have_in_common() {
    let long = "a-label-that-all-of-these-names-have-in-common.and-another-one-of-them";
    let nibbles = |n: u32| -> String {
        format!("{n:032x}").chars().rev().map(|it| format!("{it}.")).collect()
    };
    let sets: [(&str, &dyn Fn(u32) -> String); 6] = [
        ("numbers in front", &|n| format!("host{n}.example.com")),
        ("numbers behind", &|n| format!("www.example.host{n}")),
        ("a long common end", &|n| format!("{n:05}.{long}.{long}.example.org")),
        ("a long common beginning", &|n| format!("{long}.{long}.x{n:05}")),
        ("letters of two kinds", &|n| format!("{n:016b}.zone.test").replace('1', "i")),
        ("reverse names of IPv6", &|n| nibbles(n) + "ip6.arpa"),
    ];
    for (what, name) in sets {
        let shares = shares((0..16_000).map(name));
        // 2 000 each; by pure chance, one of all these would be off by a tenth once in 10 000 keys.
        assert!(shares.iter().all(|share| (1_800..2_200).contains(share)), "{what}: {shares:?}");
    }
}

#[test]
fn program_is_short_enough_for_every_kernel_that_we_run_on() {
    // What the kernel makes of an instruction at most (net/core/filter.c: bpf_convert_filter), in its own of eight octets each.
    let made = |step: &Instruction| match step.code {
        code::LOAD_WORD | code::LOAD_HALF => 14,
        code::LOAD_WORD_AT_X | code::LOAD_OCTET_AT_X => 9,
        _ => 1,
    };
    // 20 480 octets are allowed before Linux 6.9; the program's head takes some of them.
    let allowed = 20_480 / 8 - 16;
    let longest = by_qname(&key(0), u16::MAX, &[1; SPREAD_MAX]);
    assert!(longest.instructions().iter().map(made).sum::<usize>() <= allowed);
    let scattered: Vec<u16> = (0..1_000u16).map(|cpu| cpu * 7 % 1_000).collect();
    assert!(by_cpu(&scattered).instructions().iter().map(made).sum::<usize>() <= 4_096);
}
