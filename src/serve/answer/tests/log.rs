//! What the query log is told of each query.

use super::lists::{KID, cloaked, listing, wait};
use super::*;
use crate::config::ListAnswer;
use crate::observe::log::{Consumer, Entry, LogCounters, Octets, Tap, queue};

const ALL: Octets = Octets { queries: true, replies: true };

/// `core`, and what it tells.
fn tapped(core: Core<u32>, octets: Octets, sample: u32) -> (Core<u32>, Consumer) {
    let (producer, consumer) = queue(1 << 16);
    let tap = Tap::new(producer, Arc::<LogCounters>::default(), octets, sample);
    (core.tapped(Some(tap)), consumer)
}

/// What was told: how, by which list, RCODE, name, milliseconds, and the lengths of both messages.
fn told(consumer: &mut Consumer) -> Vec<String> {
    let mut all = Vec::new();
    consumer.drain(|record| {
        let entry = Entry::read(record).unwrap();
        let qname = Name::parse(entry.qname).unwrap();
        assert_eq!((entry.qtype, entry.transport), (1, Transport::Udp));
        assert!(entry.reply.is_empty() || entry.reply.len() == usize::from(entry.reply_len));
        let number =
            |number: Option<u32>| number.map_or_else(|| "-".into(), |number| number.to_string());
        let Entry { how, list, rcode, query, reply, .. } = entry;
        let (list, rcode) = (number(list.map(u32::from)), number(rcode.map(u32::from)));
        let millis = number(entry.latency_us.map(|us| us / 1_000));
        let (how, query, reply) = (how.name(), query.len(), reply.len());
        all.push(format!("{how} {list} {rcode} {qname} {millis} {query}+{reply}"));
    });
    all
}

fn later(seconds: u64) -> Now {
    let monotonic = crate::time::Monotonic::from_nanos(seconds * 1_000_000_000);
    Now { monotonic, ..at(seconds) }
}

#[test]
fn each_query_is_told_once_when_it_is_over() {
    let (mut core, mut log) = tapped(core(), ALL, 1);
    let message = query(1, "WWW.example.");
    let mut first = asking(&mut core, &message, 1).unwrap();
    assert!(asking(&mut core, &query(2, "www.example."), 2).is_none());
    assert!(told(&mut log).is_empty(), "they wait");
    let outcome = Ok(answer(&first, 1));
    core.finish(&mut first, outcome, later(2), &mut [0; 4096], |_, _| {});
    let lengths = format!("{}+{}", message.len(), message.len() + 16);
    let expected = ["WWW.example.", "www.example."];
    let expected = expected.map(|name| format!("forwarded - 0 {name} 2000 {lengths}"));
    assert_eq!(told(&mut log), expected);
    replied(&mut core, &message, at(3)).unwrap();
    assert_eq!(told(&mut log), [format!("cache - 0 WWW.example. - {lengths}")]);
    let stranger = Client { address: [8, 8, 8, 8].into(), ..CLIENT };
    let mut out = [0; 512];
    core.answer(&message, stranger, at(3), &mut out);
    let told = told(&mut log);
    assert!(told.len() == 1 && told[0].starts_with("refused - 5 WWW.example. - "), "{told:?}");
}

#[test]
fn what_is_no_query_is_not_told_and_extended_codes_are_whole() {
    let (mut core, mut log) = tapped(core(), Octets::default(), 1);
    let mut out = [0; 512];
    let whole = query(1, "www.example.");
    for message in [&whole[..20], &whole[..5], &[0xFF; 40]] {
        core.answer(message, CLIENT, at(0), &mut out);
    }
    assert!(told(&mut log).is_empty());
    let mut versioned = with_opt(whole, 1232);
    let version = versioned.len() - 5;
    versioned[version] = 1;
    core.answer(&versioned, CLIENT, at(0), &mut out);
    assert_eq!(told(&mut log), ["refused - 16 www.example. - 0+0"]);
}

#[test]
fn blocked_queries_and_answers_name_their_list() {
    let core = listing("||ads.example^\n||tracker.example^", ListAnswer::Nxdomain);
    let (mut core, mut log) = tapped(core, Octets::default(), 1);
    let mut out = [0; 512];
    core.answer(&query(1, "x.ads.example."), KID, at(10), &mut out);
    let mut asking = wait(&mut core, "shop.example.", KID, 1).unwrap();
    let outcome = Ok(cloaked(&asking));
    core.finish(&mut asking, outcome, at(10), &mut [0; 4096], |_, _| {});
    core.answer(&query(2, "shop.example."), KID, at(10), &mut out);
    let names = ["x.ads.example. -", "shop.example. 0", "shop.example. -"];
    assert_eq!(told(&mut log), names.map(|name| format!("blocked 0 3 {name} 0+0")));
}

#[test]
fn silence_is_told_and_groups_may_keep_to_themselves() {
    let core =
        listing("$TTL 60\n@ SOA . . 1 1 1 1 1\ndrop.example CNAME rpz-drop.", ListAnswer::Nxdomain);
    let (mut core, mut log) = tapped(core, Octets::default(), 1);
    let mut out = [0; 512];
    let verdict = core.answer(&query(1, "drop.example."), KID, at(10), &mut out);
    assert!(matches!(verdict, Verdict::Drop));
    assert_eq!(told(&mut log), ["blocked 0 - drop.example. - 0+0"]);
    let quiet = config::Group { name: config::DEFAULT_GROUP.into(), ..config::Group::default() };
    let listeners = ["127.0.0.1:53".parse().unwrap()];
    let policy =
        Policy::clone(&core.policy).grouped(crate::policy::Groups::new(&[quiet], &listeners));
    core.go_by(Arc::new(policy));
    let stranger = Client { address: [8, 8, 8, 8].into(), ..CLIENT };
    core.answer(&query(1, "www.example."), stranger, at(10), &mut out);
    assert!(told(&mut log).is_empty());
}

#[test]
fn sampled_queries_are_told_from_end_to_end() {
    let (mut core, mut log) = tapped(core(), Octets::default(), 2);
    let mut first = asking(&mut core, &query(1, "a.example."), 1).unwrap();
    asking(&mut core, &query(1, "b.example."), 1).unwrap();
    asking(&mut core, &query(1, "c.example."), 1).unwrap();
    let outcome = Ok(answer(&first, 1));
    core.finish(&mut first, outcome, at(0), &mut [0; 4096], |_, _| {});
    let mut eldest = asking(&mut core, &query(1, "b.example."), 1).is_none();
    eldest &= asking(&mut core, &query(1, "c.example."), 1).is_none();
    assert!(eldest);
    assert_eq!(told(&mut log).len(), 1, "a; b is passed over, c still waits");
}
