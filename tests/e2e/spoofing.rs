//! A forger who knows more than one ever would: the address of the upstream, every source port and every name in flight. He
//! only has to guess the ID and the casing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::client::Datagrams;
use crate::message::{self, A, NOERROR, query};
use crate::node::Setup;
use crate::scripted::{Scripted, Step};

const FORGED: u64 = 1_000_000;

/// Queries that are open at a time, and that the forger aims at.
const OPEN: u16 = 64;

const TRUTH: [u8; 4] = [192, 0, 2, 1];
const LIE: [u8; 4] = [203, 0, 113, 66];

/// SplitMix64: guesses that repeat from run to run.
struct Guesses(u64);

impl Guesses {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }
}

/// Sends `FORGED` lies from the upstream's own address to the ports of the latest queries.
fn spray(upstream: &Scripted, sent: &AtomicU64) {
    let mut guesses = Guesses(1);
    let mut targets = Vec::new();
    while sent.load(Ordering::Relaxed) < FORGED {
        // Now and then he looks which ports and names are in flight.
        let latest = upstream.latest(OPEN.into());
        if !latest.is_empty() {
            targets = latest;
        }
        for _ in 0..200 {
            let Some(target) = targets.get(usize::try_from(guesses.next() % 64).unwrap()) else {
                continue;
            };
            let mut lie = message::address(&target.message, 300, LIE);
            let guess = guesses.next().to_be_bytes();
            lie[..2].copy_from_slice(&guess[..2]);
            let mut casing = guesses.next();
            for octet in &mut lie[13..] {
                if !octet.is_ascii_alphabetic() {
                    break;
                }
                *octet = *octet & 0xDF | u8::try_from(casing & 1).unwrap() << 5;
                casing >>= 1;
            }
            upstream.send(&lie, target.from);
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn none_of_a_million_forged_answers_is_accepted() {
    // Datagrams are answered late, so that the forger has time; streams at once.
    let upstream = Scripted::start(|asked| {
        let answer = message::address(&asked.message, 300, TRUTH);
        if asked.is_tcp {
            vec![Step::Reply(answer)]
        } else {
            vec![Step::After(Duration::from_millis(300), answer)]
        }
    });
    let config = "[forward]\nsockets = 128\nattempt_timeout = \"10s\"\ndeadline = \"20s\"";
    let node = Setup::new().upstream(upstream.address).config(config).start();
    let sent = AtomicU64::new(0);
    let asked = thread::scope(|scope| {
        scope.spawn(|| spray(&upstream, &sent));
        let client = Datagrams::to(node.address);
        let mut asked = 0u64;
        while sent.load(Ordering::Relaxed) < FORGED {
            for id in 0..OPEN {
                let qname = format!("abcdefghijklmnopqrst-{asked}-{id}.test");
                client.send(&query(id, &qname, A));
            }
            let replies = (0..OPEN).map(|_| client.receive());
            for reply in replies {
                assert_eq!(reply.rcode(), NOERROR);
                let told: BTreeSet<_> = reply.records.iter().map(|it| it.rdata.clone()).collect();
                assert_eq!(told, BTreeSet::from([TRUTH.to_vec()]), "{}", reply.qname);
            }
            asked += 1;
        }
        asked
    });
    let counters = node.counters();
    assert!(asked > 1, "only {asked} rounds");
    assert!(counters.sum("dns_upstream_mismatches_total", "wrong=\"id\"") > FORGED / 1_000);
    assert!(counters.sum("dns_upstream_floods_total", "") > 0);
    assert!(counters.sum("dns_upstream_doubtful_total", "") > 0);
}
