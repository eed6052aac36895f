//! What is explained is what is done: every kind of name, client, transport, type and age, explained and then answered.

use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::cache::Shard;
use crate::config::{self, Config};
use crate::observe::{Exposition, Format, Transport};
use crate::policy::filter::syntax::{self, Syntax};
use crate::policy::filter::{Compiler, Image, Kind, Rule};
use crate::policy::schedule::{self, LocalMinute};
use crate::policy::{
    Acl, Action, Filtering, Groups, HostsFile, Identity, LocalData, Override, Overrides,
    RateLimiter, Rebinding, Switches, local,
};
use crate::serve::{Admission, Asking, Sections, Unresolved};
use crate::time::CacheTime;
use crate::wire::answer::AnswerBuilder;
use crate::wire::response::Section;
use crate::wire::{Encoder, Header};

const CONFIG: &str = "
[identity]
version = '1'
[rebinding]
protect = true
[[local]]
zone = 'corp.test.'
records = '''
@ SOA ns host 1 2 3 4 5
www A 192.0.2.1
out CNAME kept.example.
in CNAME www
'''
[[rewrite]]
name = '*.apps.test'
to = '192.0.2.1'
[[rewrite]]
name = 'old.example'
to = 'ads.example.'
[[rewrite]]
name = 'mall.example'
to = 'shop.example.'
[[rewrite]]
name = 'alias.example'
to = 'kept.example.'
[[rewrite]]
name = 'vain.example'
to = 'bad.example.'
[[rewrite]]
name = 'nowhere.example'
to = 'a.no.example.'
[[rewrite]]
name = 'intern.example'
to = 'in.corp.test.'
[[rewrite]]
name = 'ring.example'
to = 'ring.test.example.'
[[rewrite]]
name = 'ring.test.example'
to = 'ring.example.'
[[rewrite]]
name = 'hushed.example'
to = 'hush.example.'
[[rewrite]]
name = 'gated.example'
to = 'gate.example.'
[[list]]
name = 'ads'
file = '/ads'
[[list]]
name = 'fine'
file = '/fine'
kind = 'allow'
[[list]]
name = 'zone'
file = '/zone'
[[list]]
name = 'gate'
file = '/gate'
answer = 'cname:wall.example'
[[list]]
name = 'deny'
file = '/deny'
answer = 'refused'
[[list]]
name = 'strict'
file = '/strict'
answer = 'nxdomain'
[[group]]
name = 'free'
clients = '127.0.0.6'
lists = []
[[group]]
name = 'kids'
clients = '127.0.0.7'
[[group]]
name = 'lab'
clients = '127.0.0.8'
lists = ['ads']
upstreams = '192.0.2.9'
[[group]]
name = 'night'
clients = '127.0.0.9'
lists = ['ads']
[[group.schedule]]
lists = ['strict']
days = 'mon'
hours = '20:00-06:00'
[[group]]
name = 'default'
lists = ['ads', 'fine', 'zone', 'gate', 'deny']
";

/// What the lists hold, in their order.
const LISTS: [&str; 6] = [
    "||ads.example^\n||tracker.example^\n@@||good.ads.example^\n||fine.example^",
    "fine.ads.example\nfine.example",
    "$TTL 60\n@ SOA . . 1 1 1 1 1\nhush.example CNAME rpz-drop.\nstream.example CNAME rpz-tcp-only.\n\
     own.example A 192.0.2.77\n32.66.2.0.192.rpz-ip CNAME .\n",
    "||gate.example^",
    "||deny.example^",
    "||example^\n",
];

const NAMES: [&str; 37] = [
    "www.example.",
    "Kept.example.",
    "ads.example.",
    "X.ads.example.",
    "fine.ads.example.",
    "a.fine.ads.example.",
    "good.ads.example.",
    "fine.example.",
    "hush.example.",
    "stream.example.",
    "own.example.",
    "no.example.",
    "a.No.example.",
    "shop.example.",
    "six.example.",
    "old.example.",
    "mall.example.",
    "alias.example.",
    "vain.example.",
    "nowhere.example.",
    "intern.example.",
    "ring.example.",
    "hushed.example.",
    "gate.example.",
    "gated.example.",
    "deny.example.",
    "bad.example.",
    "busy.example.",
    "inner.example.",
    "nas.home.",
    "www.corp.test.",
    "out.corp.test.",
    "none.corp.test.",
    "x.apps.test.",
    "x.onion.",
    "1.0.0.127.in-addr.arpa.",
    "version.bind.",
];

/// One of no group, of each group, and one who is not served.
const CLIENTS: [[u8; 4]; 6] =
    [[127, 0, 0, 1], [127, 0, 0, 6], [127, 0, 0, 7], [127, 0, 0, 8], [127, 0, 0, 9], [8, 8, 8, 8]];

fn client(address: [u8; 4], transport: Transport) -> Client {
    Client { address: IpAddr::from(address), port: 4_000, listener: 0, transport }
}

fn at(seconds: u64) -> Now {
    Now { cache: CacheTime::from_millis(seconds * 1000), ..Now::default() }
}

/// A query: with EDNS if `payload_bytes` are not 0.
fn query(name: &str, qtype: Rtype, qclass: Class, flags: u16, payload_bytes: u16) -> Vec<u8> {
    let additional = u16::from(payload_bytes > 0);
    let header = Header { id: 7, flags: Flags(flags), counts: [1, 0, 0, additional] };
    let mut encoder = Encoder::new(header, 512);
    let name = NameBuf::from_text(name).unwrap();
    encoder.question(name.as_name(), qtype, qclass).unwrap();
    let mut message = encoder.into_message();
    if payload_bytes > 0 {
        message.extend([0, 0, 41]);
        message.extend(payload_bytes.to_be_bytes());
        message.extend([0; 6]);
    }
    message
}

fn core(minute: LocalMinute) -> Core<()> {
    let file = config::File { name: "t", text: CONFIG };
    let config = Config::load(Some(file), Vec::new(), &[]).unwrap();
    let mut compiler = Compiler::new([1; 16]);
    for (number, (list, text)) in (0..).zip(config.lists.iter().zip(LISTS)) {
        let kind = match list.kind {
            config::ListKind::Block => Kind::Block,
            config::ListKind::Allow => Kind::Allow,
        };
        let syntax = match text {
            text if text.starts_with("$TTL") => Syntax::Rpz,
            text if text.contains('^') => Syntax::Adblock,
            _ => Syntax::Domains,
        };
        let mut take = |rule: &Rule<'_>| compiler.add(number, kind, rule).is_ok();
        assert_eq!(syntax::read(text.as_bytes(), syntax, &mut take).bad.count, 0);
    }
    let image = Image::open(compiler.finish(0).unwrap().into()).unwrap();
    let in_force = schedule::in_force(&config.groups, &config.lists, minute);
    let hosts = HostsFile { place: String::new(), text: b"192.0.2.2 nas.home".to_vec() };
    let sections = local::Sections {
        zones: &config.local,
        special: config.special,
        forward: &config.forward,
        rewrites: &config.rewrites,
        hosts: &config.hosts,
        hosts_files: &[hosts],
    };
    let local = LocalData::compile(&sections).unwrap().0;
    let policy = Policy::new(Acl::new(&config.acl), Identity::new(&config.identity), local)
        .against(Rebinding::new(&config.rebinding, &config.forward))
        .grouped(Groups::new(&config.groups, &config.node.listen))
        .filtered(Some(Arc::new(Filtering::new(image, &config.lists, in_force))));
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    let shard = Shard::new(&config.cache, 1 << 20, hasher);
    let sections = Sections {
        forward: &config.forward,
        zones: &[],
        udp: &config.udp,
        cache: &config.cache,
        optimizations: config.optimizations,
    };
    Core::new(Arc::new(policy), shard, sections, Arc::default())
}

fn ask(core: &mut Core<()>, name: &str, address: [u8; 4], now: Now) -> Option<Box<Asking>> {
    let (message, mut out) = (query(name, Rtype::A, Class::IN, Flags::RD, 1232), [0; 4096]);
    let Verdict::Miss(ticket) =
        core.answer(&message, client(address, Transport::Udp), now, &mut out)
    else {
        return None;
    };
    match core.admit(ticket, (), now, &mut out, |(), _| {}) {
        Admission::Ask(asking) => Some(asking),
        Admission::Joined | Admission::Refused(_) => None,
    }
}

/// Has the client at `address` ask for `name`, which has these records.
fn fill(core: &mut Core<()>, name: &str, address: [u8; 4], records: &[(&str, Rtype, &[u8])]) {
    let mut asking = ask(core, name, address, at(0)).unwrap();
    let query = asking.query();
    let rcode = if records.is_empty() { Rcode::NXDOMAIN } else { Rcode::NOERROR };
    let mut builder = AnswerBuilder::new(query.qname, query.qtype, query.qclass, rcode).unwrap();
    if records.is_empty() {
        let soa = [&[0, 0][..], &[0; 16], &300_u32.to_be_bytes()].concat();
        let zone = NameBuf::from_text("example.").unwrap();
        let section = Section::Authority;
        builder.write(section, zone.as_name(), Rtype::SOA, Class::IN, 300, &soa).unwrap();
    }
    for (owner, rtype, rdata) in records {
        let owner = NameBuf::from_text(owner).unwrap();
        builder.write(Section::Answer, owner.as_name(), *rtype, Class::IN, 300, rdata).unwrap();
    }
    core.finish(&mut asking, Ok(builder.finish()), at(0), &mut [0; 4096], |(), _| {});
}

/// A core that has been at work for a while.
fn busy(minute: LocalMinute) -> Core<()> {
    let mut core = core(minute);
    let free = [127, 0, 0, 6];
    for address in [free, [127, 0, 0, 8]] {
        fill(&mut core, "kept.example.", address, &[("kept.example.", Rtype::A, &[192, 0, 2, 1])]);
        fill(&mut core, "no.example.", address, &[]);
        let target = NameBuf::from_text("www.tracker.example.").unwrap();
        let alias = ("shop.example.", Rtype::CNAME, target.as_name().as_bytes());
        let there = ("www.tracker.example.", Rtype::A, &[192, 0, 2, 9][..]);
        fill(&mut core, "shop.example.", address, &[alias, there]);
    }
    let listed = ("six.example.", Rtype::A, &[192, 0, 2, 66][..]);
    fill(&mut core, "six.example.", free, &[listed]);
    fill(&mut core, "ads.example.", free, &[("ads.example.", Rtype::A, &[192, 0, 2, 3])]);
    fill(&mut core, "wall.example.", free, &[("wall.example.", Rtype::A, &[192, 0, 2, 4])]);
    fill(&mut core, "inner.example.", free, &[("inner.example.", Rtype::A, &[10, 0, 0, 1])]);
    core
}

/// Lets the questions for some names fail at `now`, and begins another.
fn trouble(core: &mut Core<()>, now: Now) {
    let failure =
        Unresolved { ede: Ede::NO_REACHABLE_AUTHORITY.with_text("nobody"), is_ours: false };
    for name in ["bad.example.", "shop.example.", "six.example."] {
        if let Some(mut asking) = ask(core, name, [127, 0, 0, 6], now) {
            core.finish(&mut asking, Err(failure), now, &mut [0; 4096], |(), _| {});
        }
    }
    ask(core, "busy.example.", [127, 0, 0, 6], now).unwrap();
}

fn counters(core: &Core<()>) -> String {
    let mut out = Exposition::default();
    core.counters().expose(0, &mut out);
    core.counters().filter.expose(0, &mut out);
    out.finish(Format::Classic)
}

/// What the cache holds, and how often it was asked for.
fn entries(core: &Core<()>, now: Now) -> Vec<(String, u8, bool)> {
    let (mut all, mut next) = (Vec::new(), Some(0));
    while let Some(at) = next {
        next = core.shard.visit(at, now.cache, |it| {
            all.push((it.key.name.to_string(), it.accesses, it.is_refreshing));
        });
    }
    all
}

/// Explains `message`, then has it answered: both must come to the same. Gives the verdict's word.
fn compare(core: &mut Core<()>, message: &[u8], client: Client, now: Now) -> &'static str {
    // One in so many: their text takes longer than all else.
    let is_plain = message.len().is_multiple_of(4);
    let state = |core: &Core<()>| is_plain.then(|| (counters(core), entries(core, now)));
    let before = state(core);
    let explained = core.explain(message, client, now).unwrap();
    assert_eq!(state(core), before, "{explained:?}");
    let mut out = [0; 4096];
    let verdict = core.answer(message, client, now, &mut out);
    let in_flight = explained.steps.iter().rfind(|step| step.stage == Stage::InFlight);
    match (verdict, &explained.fate) {
        (Verdict::Reply(len) | Verdict::Refresh(len, _), Fate::Reply(reply)) => {
            assert_eq!(&out[..len], reply, "{explained:?}");
            assert_eq!(core.account, explained.account, "{explained:?}");
            let rcode = Header::read(reply).unwrap().flags.rcode();
            assert_eq!(rcode.0 & 0xF, explained.rcode.unwrap().0 & 0xF);
        }
        (Verdict::Drop, Fate::Drop) => assert_eq!(core.account, explained.account),
        (Verdict::Miss(ticket), Fate::Wait(name, view)) => {
            let is_asked = in_flight.is_some_and(|step| step.outcome != "no");
            match core.admit(ticket, (), now, &mut out, |(), _| {}) {
                Admission::Ask(mut asking) => {
                    assert!(asking.query().qname.is_same(name.as_name()), "{explained:?}");
                    assert!(asking.view() == *view && !is_asked, "{explained:?}");
                    core.evict(&mut asking, now, &mut out, |(), _| {});
                }
                Admission::Joined => assert!(is_asked, "{explained:?}"),
                Admission::Refused(_) => panic!("there is room"),
            }
        }
        (verdict, fate) => panic!("{verdict:?} is no {fate:?}: {explained:?}"),
    }
    explained.answer()
}

/// Names that are blocked and allowed by hand, and a list that is disabled.
fn switches(is_paused: bool) -> Switches {
    let names = ["kept.example.", "ads.example.", "hush.example.", "www.tracker.example."];
    let names = names.map(|name| NameBuf::from_text(name).unwrap());
    let held = [
        (Action::Block, false),
        (Action::Allow, true),
        (Action::Allow, false),
        (Action::Block, true),
    ];
    let held = held.map(|(action, is_subtree)| Override { action, is_subtree });
    let overrides = Overrides::new(names.iter().map(NameBuf::as_name).zip(held));
    let disabled = ["deny".to_owned()].into_iter().collect();
    Switches { overrides: Some(Arc::new(overrides)), disabled: Arc::new(disabled), is_paused }
}

/// Types, classes, flags and sizes of what is asked.
const KINDS: [(Rtype, Class, u16, u16); 9] = [
    (Rtype::A, Class::IN, Flags::RD, 1232),
    (Rtype::A, Class::IN, Flags::RD, 0),
    (Rtype::AAAA, Class::IN, Flags::RD, 1232),
    (Rtype::CNAME, Class::IN, Flags::RD, 1232),
    (Rtype::A, Class::IN, 0, 1232),
    (Rtype::TXT, Class::CH, Flags::RD, 1232),
    (Rtype::ANY, Class::IN, Flags::RD, 1232),
    (Rtype::AXFR, Class::IN, Flags::RD, 1232),
    (Rtype::PTR, Class::IN, Flags::RD | Flags::CD, 1232),
];

#[test]
fn whatever_is_explained_is_what_happens_and_explaining_changes_nothing() {
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    let (noon, night) = (LocalMinute::new(0, 12 * 60), LocalMinute::new(0, 22 * 60));
    // While entries are fresh, past their lifetime, and long after it; with names that are overridden, and while paused.
    for (minute, seconds, switches) in [
        (noon, 10, None),
        (night, 400, None),
        (noon, 400, Some(switches(false))),
        (noon, 10, Some(switches(false))),
        (noon, 10, Some(switches(true))),
        (night, 200_000, None),
    ] {
        let mut core = busy(minute);
        if let Some(switches) = switches {
            core.go_by(Arc::new(core.policy.as_ref().clone().switched(switches)));
        }
        let now = at(seconds);
        trouble(&mut core, now);
        for address in CLIENTS {
            for name in NAMES {
                for (qtype, qclass, flags, payload_bytes) in KINDS {
                    let message = query(name, qtype, qclass, flags, payload_bytes);
                    for transport in [Transport::Udp, Transport::Tcp] {
                        if transport == Transport::Tcp && qtype != Rtype::A {
                            continue;
                        }
                        let word = compare(&mut core, &message, client(address, transport), now);
                        *seen.entry(word).or_default() += 1;
                    }
                }
            }
        }
    }
    // Each way is gone by many.
    for how in [How::Cache, How::Stale, How::Local, How::Blocked, How::Forwarded, How::Refused] {
        assert!(seen.get(how.name()).is_some_and(|&count| count > 8), "{how:?}: {seen:?}");
    }
}

/// What is said of the stages of a question for A at `name`, and the verdict.
fn said(core: &Core<()>, name: &str, address: [u8; 4], now: Now) -> String {
    let message = query(name, Rtype::A, Class::IN, Flags::RD, 1232);
    let explained = core.explain(&message, client(address, Transport::Udp), now).unwrap();
    let steps =
        explained.steps.iter().map(|step| format!("{}: {}\n", step.stage.name(), step.text));
    steps.collect::<String>() + &explained.verdict
}

/// Names, clients, and what is said of them while all is fresh.
const WORDS: &[(&str, [u8; 4], &[&str])] = &[
    (
        "a.example.",
        [8, 8, 8, 8],
        &[
            "access: 8.8.8.8 is in no prefix of acl.allow",
            "refused (this client is not served): REFUSED",
        ],
    ),
    (
        "a.example.",
        CLIENTS[0],
        &[
            "127.0.0.1 is served, by 127.0.0.0/8 of acl.allow",
            "group: in group \"default\", like all who are in no other; asks the upstreams of [forward]; lists that count now: ads, fine, zone, gate, deny; not now: strict\n",
            "local: no local data has the name",
            "lists: no list that counts here has the name; does not count here now: list \"strict\" (example. and all below: block)",
            "cache: knows nothing of it",
            "in flight: nobody is asking for it",
            "upstreams are asked for a.example.",
        ],
    ),
    (
        "a.example.",
        CLIENTS[2],
        &[
            "in group \"kids\", by 127.0.0.7/32",
            "blocked by list \"strict\" (example. and all below: block)",
            "blocked by list \"strict\": NXDOMAIN",
        ],
    ),
    (
        "a.example.",
        CLIENTS[4],
        &["not now: fine, zone, gate, deny, strict; by schedule: strict mon 20:00-06:00"],
    ),
    (
        "x.ads.example.",
        CLIENTS[3],
        &[
            "has upstreams of its own, and answers with them (view 1)",
            "blocked by list \"ads\" (ads.example. and all below: block); does not count here now: list \"strict\"",
            "blocked by list \"ads\": NOERROR",
        ],
    ),
    (
        "fine.ads.example.",
        CLIENTS[0],
        &[
            "allowed by list \"fine\" (fine.ads.example.: allow), which comes before list \"ads\" (ads.example. and all below: block); does not count",
        ],
    ),
    (
        "kept.example.",
        CLIENTS[0],
        &[
            "cache: holds it: NOERROR, TTL 290, on probation, asked for 0 times",
            "answered from the cache: NOERROR",
        ],
    ),
    (
        "b.a.no.example.",
        CLIENTS[0],
        &[
            "knows that no.example. above it does not exist: NXDOMAIN, TTL 290",
            "answered from the cache: NXDOMAIN",
        ],
    ),
    (
        "shop.example.",
        CLIENTS[0],
        &[
            "answer: list \"ads\" objects to the answer: it leads to www.tracker.example. (tracker.example. and all below: block)",
            "blocked by list \"ads\": NOERROR",
        ],
    ),
    (
        "six.example.",
        CLIENTS[0],
        &[
            "list \"zone\" objects to the answer: it has the address 192.0.2.66",
            "blocked by list \"zone\": NXDOMAIN",
        ],
    ),
    (
        "bad.example.",
        CLIENTS[0],
        &[
            "failure: failed a moment ago: nobody",
            "fails as it did a moment ago (nobody): SERVFAIL",
        ],
    ),
    ("busy.example.", CLIENTS[0], &["is being asked already: this client waits with the others"]),
    (
        "inner.example.",
        CLIENTS[0],
        &["answered from the cache (private address for a public name): NOERROR"],
    ),
    (
        "nas.home.",
        CLIENTS[0],
        &["local: a hosts file has nas.home.", "answered from local data: NOERROR"],
    ),
    (
        "none.corp.test.",
        CLIENTS[0],
        &["[[local]] zone corp.test. has the name", "answered from local data: NXDOMAIN"],
    ),
    ("x.apps.test.", CLIENTS[0], &["[[rewrite]] has *.apps.test."]),
    ("x.onion.", CLIENTS[0], &["onion. is a special name, answered here ([special])"]),
    (
        "mall.example.",
        CLIENTS[0],
        &[
            "[[rewrite]] has mall.example.\ndetour: leads to shop.example.\nlocal: no local data has the name\nlists: no list",
            "objects to the answer",
            "blocked by list \"ads\"",
        ],
    ),
    ("ring.example.", CLIENTS[0], &["[[rewrite]] has ring.example."]),
    ("hush.example.", CLIENTS[0], &["gets no reply, as list \"zone\" wants it"]),
    (
        "stream.example.",
        CLIENTS[0],
        &[
            "(stream.example.: TCP only)",
            "blocked by list \"zone\": NOERROR, cut: to be had over TCP",
        ],
    ),
    (
        "gate.example.",
        CLIENTS[0],
        &["blocked by list \"gate\"", "leads to wall.example.", "cache: holds it"],
    ),
];

#[test]
fn each_step_is_told_in_words() {
    let mut core = busy(LocalMinute::new(0, 12 * 60));
    trouble(&mut core, at(10));
    for &(name, address, words) in WORDS {
        let told = said(&core, name, address, at(10));
        for part in words {
            assert!(told.contains(part), "{name}: {part}\n{told}");
        }
    }
    for (seconds, words) in [
        (400, "holds it, 100 s past its lifetime: NOERROR"),
        (200_000, "holds it, but too long past its lifetime"),
    ] {
        assert!(said(&core, "kept.example.", CLIENTS[0], at(seconds)).contains(words));
    }
}

#[test]
fn what_is_switched_by_hand_is_told() {
    let policy = |core: &Core<()>, is_paused| {
        Arc::new(core.policy.as_ref().clone().switched(switches(is_paused)))
    };
    let mut core = busy(LocalMinute::new(0, 12 * 60));
    core.go_by(policy(&core, false));
    for (name, words) in [
        (
            "x.ads.example.",
            "lists: allowed by hand, there or with all names below one (override), whatever lists say",
        ),
        ("kept.example.", "blocked by hand: NOERROR"),
        ("shop.example.", "answer: it leads to a name that is blocked by hand (override)"),
        ("deny.example.", "disabled by hand: deny"),
    ] {
        let told = said(&core, name, CLIENTS[0], at(10));
        assert!(told.contains(words), "{name}: {words}\n{told}");
    }
    core.go_by(policy(&core, true));
    let told = said(&core, "x.ads.example.", CLIENTS[0], at(10));
    assert!(told.contains("lists: blocking is paused by hand"), "{told}");
}

#[test]
fn limit_is_told_without_a_charge() {
    let rate = config::Rate { queries_per_second: 1, allow: Vec::new(), ..config::Rate::default() };
    let hasher = ahash::RandomState::with_seeds(5, 6, 7, 8);
    let mut core = core(LocalMinute::new(0, 0)).limited(RateLimiter::new(&rate, hasher));
    let burst = u64::from(rate.burst());
    let message = query("nas.home.", Rtype::A, Class::IN, Flags::RD, 1232);
    let kid = client(CLIENTS[2], Transport::Udp);
    for asked in 0..=burst {
        for _ in 0..3 {
            let told = said(&core, "nas.home.", CLIENTS[2], at(0));
            let left = burst - asked;
            let words = match left {
                0 => "over the rate limit: dropped, or told to come over TCP".to_owned(),
                left => format!("rate: may ask {left} more at once on this core"),
            };
            assert!(told.contains(&words), "{asked}: {told}");
        }
        let mut out = [0; 512];
        let verdict = core.answer(&message, kid, at(0), &mut out);
        assert_eq!(matches!(verdict, Verdict::Reply(_)), asked < burst);
    }
}
