//! What lists object to, and what those get who ask for it.

use super::super::filter::syntax::{self, Syntax};
use super::super::filter::{Compiler, Kind, Rule};
use super::super::overrides::Override;
use super::super::{Acl, Asker as Client, Identity, LocalData, Policy, Switches};
use super::*;
use crate::config::{List, ListAnswer, ListKind, ListReason, ListSource};
use crate::wire::answer::AnswerBuilder;
use crate::wire::response::Section;
use crate::wire::{
    AnswerBuf, Class, Ede, Encoder, Flags, Header, Name, NameBuf, Rcode, Response, patch,
};

fn list(name: &str, answer: ListAnswer) -> List {
    let source = ListSource::File("/list".into());
    List { answer, ttl: 30, ..List::new(name.into(), source, String::new()) }
}

/// All `lists` with their texts; every group has all of them.
fn filtering(lists: &[(List, Syntax, &str)]) -> Filtering {
    let mut compiler = Compiler::new([7; 16]);
    for (number, (list, syntax, text)) in (0..).zip(lists) {
        let kind = match list.kind {
            ListKind::Block => Kind::Block,
            ListKind::Allow => Kind::Allow,
        };
        let mut take = |rule: &Rule<'_>| compiler.add(number, kind, rule).is_ok();
        let report = syntax::read(text.as_bytes(), *syntax, &mut take);
        assert_eq!(report.bad.count, 0, "{text}");
    }
    let image = Image::open(Bytes::from(compiler.finish(0).unwrap())).unwrap();
    let lists: Vec<List> = lists.iter().map(|(list, ..)| list.clone()).collect();
    Filtering::new(image, &lists, Box::new([Lists::ALL]))
}

fn message(name: &str, qtype: Rtype) -> Vec<u8> {
    let header = Header { id: 1, flags: Flags(Flags::RD), counts: [1, 0, 0, 0] };
    let mut encoder = Encoder::new(header, 512);
    let name = NameBuf::from_text(name).unwrap();
    encoder.question(name.as_name(), qtype, Class::IN).unwrap();
    encoder.into_message()
}

const SUBJECT: Subject<'static> = Subject {
    address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    group: 0,
    name: None,
    is_stream: false,
    now: CacheTime::from_millis(5_000),
    is_exact: false,
};

/// An answer's records: RCODE, then types and data of answer and authority section.
fn shown(query: &Query<'_>, answer: &Answer<'_>) -> String {
    let mut out = [0; 2_048];
    let framing = patch::Framing { limit: 2_048, payload_bytes: 1_232, ede: None };
    let age = patch::Aging::By(0);
    let len = patch::reply(query, answer, age, framing, &mut out).unwrap();
    let response = Response::parse(&out[..len]).unwrap();
    let records = response.records.iter().map(|record| {
        let (owner, _) = NameBuf::expand(&out, record.owner_at).unwrap();
        assert!(owner.as_name().is_same(query.qname), "{owner:?}");
        let rdata = &out[record.rdata_at..record.rdata_at + record.rdata_len];
        let data = match rdata.len() {
            4 => std::net::Ipv4Addr::from(<[u8; 4]>::try_from(rdata).unwrap()).to_string(),
            16 => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(rdata).unwrap()).to_string(),
            _ => String::new(),
        };
        format!(" {} {} {data}", record.rtype.0, record.ttl).trim_end().to_owned()
    });
    answer.shape.rcode.mnemonic().to_owned() + &records.collect::<String>()
}

fn outcome(query: &Query<'_>, blocked: &Blocked<'_>) -> String {
    match &blocked.outcome {
        Outcome::Answer(answer) => shown(query, answer),
        Outcome::Made(answer) => shown(query, &answer.view(SUBJECT.now)),
        Outcome::Follow(detour) => format!("-> {:?}", detour.target),
        Outcome::Refuse => "REFUSED".into(),
        Outcome::Drop => "drop".into(),
        Outcome::Truncate => "TC".into(),
    }
}

fn judged(filtering: &Filtering, name: &str, qtype: Rtype) -> String {
    let message = message(name, qtype);
    let query = Query::parse(&message).unwrap();
    let folded = query.qname.as_bytes().to_ascii_lowercase();
    match filtering.judge(&query, &folded, SUBJECT) {
        Judgement::Unlisted => "-".into(),
        Judgement::Allowed(list) => format!("allowed by {list}"),
        Judgement::Blocked(blocked) => outcome(&query, &blocked),
    }
}

#[test]
fn each_list_answers_in_its_own_way() {
    let alias = config::Config::load(
        Some(config::File { name: "t", text: "[rebinding]\nallow = ['Wall.example']" }),
        Vec::new(),
        &[],
    );
    let alias = alias.unwrap().rebinding.allow.remove(0);
    let addresses = ["192.0.2.7", "192.0.2.8", "2001:db8::7"].map(|text| text.parse().unwrap());
    let ways = [
        (ListAnswer::Nxdomain, ["NXDOMAIN 6 30"; 3]),
        (ListAnswer::Nodata, ["NOERROR 6 30"; 3]),
        (ListAnswer::ZeroIp, ["NOERROR 1 30 0.0.0.0", "NOERROR 28 30 ::", "NOERROR 6 30"]),
        (ListAnswer::Refused, ["REFUSED"; 3]),
        (
            ListAnswer::Addresses(addresses.to_vec()),
            ["NOERROR 1 30 192.0.2.7 1 30 192.0.2.8", "NOERROR 28 30 2001:db8::7", "NOERROR 6 30"],
        ),
        (
            ListAnswer::Addresses(addresses[2..].to_vec()),
            ["NOERROR 6 30", "NOERROR 28 30 2001:db8::7", "NOERROR 6 30"],
        ),
        (ListAnswer::Alias(alias), ["-> wall.example."; 3]),
    ];
    for (answer, expected) in ways {
        let filtering = filtering(&[(list("ads", answer), Syntax::Domains, "ads.example")]);
        let types = [Rtype::A, Rtype::AAAA, Rtype::HTTPS];
        assert_eq!(types.map(|qtype| judged(&filtering, "aDs.Example.", qtype)), expected);
        assert_eq!(judged(&filtering, "example.", Rtype::A), "-");
    }
}

#[test]
fn client_is_told_which_list_objects_and_why() {
    let own = List { reason: ListReason::Filtered, ..list("mine", ListAnswer::Nodata) };
    let lists = [
        (list("theirs", ListAnswer::Nodata), Syntax::Domains, "a.example"),
        (own, Syntax::Domains, "b.example"),
    ];
    let filtering = filtering(&lists);
    for (name, code, text) in [("a.example.", 15, "theirs"), ("b.example.", 17, "mine")] {
        let message = message(name, Rtype::A);
        let query = Query::parse(&message).unwrap();
        let Judgement::Blocked(blocked) = filtering.judge(&query, query.qname.as_bytes(), SUBJECT)
        else {
            panic!("{name} is listed")
        };
        assert_eq!(blocked.ede, Ede { code, text });
    }
    assert_eq!(filtering.list_names(), ["theirs", "mine"]);
}

#[test]
fn policy_zones_say_themselves_what_their_names_get() {
    let zone = "$TTL 60\n@ SOA . . 1 1 1 1 1\n\
        gone.example CNAME .\nempty.example CNAME *.\nfree.gone.example CNAME rpz-passthru.\n\
        hush.example CNAME rpz-drop.\nstream.example CNAME rpz-tcp-only.\n\
        own.example A 192.0.2.1\nled.example CNAME wall.test.\n*.inner.example CNAME *.garden.test.\n";
    let filtering = filtering(&[(list("rpz", ListAnswer::ZeroIp), Syntax::Rpz, zone)]);
    for (name, qtype, expected) in [
        ("gone.example.", Rtype::A, "NXDOMAIN 6 30"),
        ("empty.example.", Rtype::A, "NOERROR 6 30"),
        ("free.gone.example.", Rtype::A, "allowed by 0"),
        ("hush.example.", Rtype::A, "drop"),
        ("stream.example.", Rtype::A, "TC"),
        ("own.example.", Rtype::A, "NOERROR 1 60 192.0.2.1"),
        ("own.example.", Rtype::AAAA, "NOERROR 6 30"),
        ("led.example.", Rtype::A, "-> wall.test."),
        ("Www.Inner.example.", Rtype::TXT, "-> www.inner.example.garden.test."),
    ] {
        assert_eq!(judged(&filtering, name, qtype), expected, "{name}");
    }
    // The target would be longer than a name may be: the question is answered, and not by a broken name.
    let label = "x".repeat(63);
    let long = [&label[..], &label, &label, &label[..40], "inner.example."].join(".");
    assert_eq!(judged(&filtering, &long, Rtype::A), "NOERROR 6 30");
}

/// The answer `qname CNAME www.Tracker.example`, then `www.tracker.example A 192.0.2.66`.
fn cloaked(qname: Name<'_>) -> AnswerBuf {
    let mut builder = AnswerBuilder::new(qname, Rtype::A, Class::IN, Rcode::NOERROR).unwrap();
    let target = NameBuf::from_text("www.Tracker.example.").unwrap();
    let target = target.as_name();
    let class = Class::IN;
    let rdata = target.as_bytes();
    builder.write(Section::Answer, qname, Rtype::CNAME, class, 60, rdata).unwrap();
    builder.write(Section::Answer, target, Rtype::A, class, 60, &[192, 0, 2, 66]).unwrap();
    builder.finish()
}

fn objection(filtering: &Filtering, answer: impl Fn(Name<'_>) -> AnswerBuf) -> Option<String> {
    let message = message("shop.example.", Rtype::A);
    let query = Query::parse(&message).unwrap();
    let answer = answer(query.qname);
    let blocked = filtering.object(&query, &answer.view(SUBJECT.now), SUBJECT, None)?;
    Some(outcome(&query, &blocked))
}

#[test]
fn alias_to_a_blocked_name_is_found() {
    let of = |text| filtering(&[(list("ads", ListAnswer::ZeroIp), Syntax::Adblock, text)]);
    let zero = Some("NOERROR 1 30 0.0.0.0".to_owned());
    assert_eq!(objection(&of("||tracker.example^"), cloaked), zero);
    assert_eq!(objection(&of("||other.example^"), cloaked), None);
    assert_eq!(objection(&of("||tracker.example^\n@@||www.tracker.example^"), cloaked), None);
}

#[test]
fn addresses_in_answers_are_found_and_only_where_lists_name_some() {
    let zone = "$TTL 60\n@ SOA . . 1 1 1 1 1\n32.66.2.0.192.rpz-ip CNAME .\n";
    let of = |zone| filtering(&[(list("rpz", ListAnswer::ZeroIp), Syntax::Rpz, zone)]);
    assert_eq!(objection(&of(zone), cloaked).as_deref(), Some("NXDOMAIN 6 30"));
    let other = zone.replace("32.66", "32.67");
    assert_eq!(objection(&of(&other), cloaked), None);
}

#[test]
fn client_may_be_what_a_policy_zone_is_about() {
    let zone = "$TTL 60\n@ SOA . . 1 1 1 1 1\nname.example CNAME .\n\
        32.1.0.0.127.rpz-client-ip CNAME rpz-passthru.\n";
    let of = |zone: &str| filtering(&[(list("rpz", ListAnswer::ZeroIp), Syntax::Rpz, zone)]);
    assert_eq!(judged(&of(zone), "name.example.", Rtype::A), "allowed by 0");
    let other = zone.replace("32.1.0", "32.2.0");
    assert_eq!(judged(&of(&other), "name.example.", Rtype::A), "NXDOMAIN 6 30");
}

#[test]
fn client_comes_before_names_of_his_zone_and_ranks_as_its_rules_do_among_others() {
    let client = "$TTL 60\n@ SOA . . 1 1 1 1 1\n32.1.0.0.127.rpz-client-ip CNAME rpz-passthru.\n";
    let zero = "NOERROR 1 30 0.0.0.0";
    for (rule, expected) in [("||imp.bad^$important", zero), ("||imp.bad^", "allowed by 1")] {
        let lists = [
            (list("ads", ListAnswer::ZeroIp), Syntax::Adblock, rule),
            (list("rpz", ListAnswer::ZeroIp), Syntax::Rpz, client),
        ];
        assert_eq!(judged(&filtering(&lists), "imp.bad.", Rtype::A), expected, "{rule}");
    }
    let zone = "$TTL 60\n@ SOA . . 1 1 1 1 1\nimp.bad CNAME .\n";
    let lists = [
        (list("first", ListAnswer::ZeroIp), Syntax::Rpz, zone),
        (list("second", ListAnswer::ZeroIp), Syntax::Rpz, client),
    ];
    assert_eq!(judged(&filtering(&lists), "imp.bad.", Rtype::A), "NXDOMAIN 6 30");
}

#[test]
fn zone_that_wants_streams_leaves_them_to_other_lists() {
    let zone =
        "$TTL 60\n@ SOA . . 1 1 1 1 1\nads.tc CNAME rpz-tcp-only.\nfree.tc CNAME rpz-tcp-only.\n";
    let lists = [
        (list("rpz", ListAnswer::ZeroIp), Syntax::Rpz, zone),
        (list("ads", ListAnswer::Nodata), Syntax::Domains, "ads.tc"),
    ];
    let filtering = filtering(&lists);
    for (name, expected) in [("ads.tc.", "NOERROR 6 30"), ("free.tc.", "-")] {
        assert_eq!(judged(&filtering, name, Rtype::A), "TC");
        let message = message(name, Rtype::A);
        let query = Query::parse(&message).unwrap();
        let subject = Subject { is_stream: true, ..SUBJECT };
        let told = match filtering.judge(&query, query.qname.as_bytes(), subject) {
            Judgement::Blocked(blocked) => outcome(&query, &blocked),
            Judgement::Unlisted | Judgement::Allowed(_) => "-".into(),
        };
        assert_eq!(told, expected, "{name}");
    }
}

/// An answer of one type with these data.
fn holding(rtype: Rtype, rdata: &'static [&'static [u8]]) -> impl Fn(Name<'_>) -> AnswerBuf {
    move |qname| {
        let mut builder = AnswerBuilder::new(qname, rtype, Class::IN, Rcode::NOERROR).unwrap();
        for rdata in rdata {
            builder.write(Section::Answer, qname, rtype, Class::IN, 60, rdata).unwrap();
        }
        builder.finish()
    }
}

#[test]
fn longest_prefix_among_the_addresses_of_an_answer_decides() {
    let zone = "$TTL 60\n@ SOA . . 1 1 1 1 1\n\
        32.7.7.88.192.rpz-ip CNAME rpz-passthru.\n24.0.7.88.192.rpz-ip CNAME .\n";
    let filtering = filtering(&[(list("rpz", ListAnswer::ZeroIp), Syntax::Rpz, zone)]);
    const ORDERS: [&[&[u8]]; 2] =
        [&[&[192, 88, 7, 8], &[192, 88, 7, 7]], &[&[192, 88, 7, 7], &[192, 88, 7, 8]]];
    for rdata in ORDERS {
        assert_eq!(objection(&filtering, holding(Rtype::A, rdata)), None);
    }
    let alone = holding(Rtype::A, &[&[192, 88, 7, 8]]);
    assert_eq!(objection(&filtering, alone).as_deref(), Some("NXDOMAIN 6 30"));
}

#[test]
fn targets_and_hints_of_service_bindings_are_looked_at() {
    let names = filtering(&[(list("ads", ListAnswer::Nodata), Syntax::Domains, "tracker.bad")]);
    let zone = "$TTL 60\n@ SOA . . 1 1 1 1 1\n24.0.7.88.192.rpz-ip CNAME .\n";
    let addresses = filtering(&[(list("rpz", ListAnswer::Nodata), Syntax::Rpz, zone)]);
    let nodata = Some("NOERROR 6 30".to_owned());
    for rtype in [Rtype::HTTPS, Rtype::SVCB] {
        // `0 Tracker.bad.`, then `1 . ipv4hint=192.88.7.8`, then `1 .`.
        let alias = holding(rtype, &[b"\0\0\x07Tracker\x03bad\0"]);
        let hint = holding(rtype, &[b"\0\x01\0\0\x04\0\x04\xC0\x58\x07\x08"]);
        let plain = holding(rtype, &[b"\0\x01\0"]);
        assert_eq!(objection(&names, &alias), nodata);
        assert_eq!(objection(&addresses, &hint).as_deref(), Some("NXDOMAIN 6 30"));
        assert_eq!((objection(&names, &hint), objection(&names, &plain)), (None, None));
    }
}

#[test]
fn group_has_its_own_lists() {
    let lists = [
        (list("ads", ListAnswer::Nodata), Syntax::Domains, "ads.example"),
        (list("games", ListAnswer::Nodata), Syntax::Domains, "games.example"),
    ];
    let filtering = filtering(&lists);
    let groups = [Lists::from_iter([0]), Lists::from_iter([0, 1]), Lists::default()];
    let filtering = filtering.regrouped(Box::new(groups));
    let is_blocked = |name: &str, group| {
        let name = NameBuf::from_text(name).unwrap();
        let subject = Subject { group, ..SUBJECT };
        filtering.decide(name.as_name().as_bytes(), Rtype::A, subject).is_some()
    };
    assert_eq!(
        [0, 1, 2, 9].map(|group| is_blocked("ads.example.", group)),
        [true, true, false, true]
    );
    assert_eq!(
        [0, 1, 2, 9].map(|group| is_blocked("games.example.", group)),
        [false, true, false, false]
    );
}

#[test]
fn disabled_list_is_not_asked_whatever_schedules_and_reloads_say() {
    let lists = [
        (list("ads", ListAnswer::Nodata), Syntax::Domains, "a.example"),
        (list("more", ListAnswer::Nxdomain), Syntax::Domains, "a.example\nb.example"),
    ];
    let filtering = filtering(&lists);
    let names: BTreeSet<String> = ["ads".to_owned(), "gone".to_owned()].into();
    let disabled = filtering.numbers(&names);
    let without = filtering.without(disabled);
    assert_eq!(without.groups(), filtering.groups(), "schedules see what they said");
    for filtering in [&without, &without.regrouped(Box::new([Lists::ALL]))] {
        assert_eq!(filtering.disabled(), disabled);
        assert_eq!(judged(filtering, "a.example.", Rtype::A), "NXDOMAIN 6 30");
    }
    let again = without.without(Lists::default());
    assert_eq!(judged(&again, "a.example.", Rtype::A), "NOERROR 6 30");
    let policy = policy_with(filtering, Switches { disabled: names.into(), ..Switches::default() });
    let asked = |policy: &Policy, name: &str| {
        let message = message(name, Rtype::A);
        let query = Query::parse(&message).unwrap();
        let folded = query.qname.as_bytes().to_ascii_lowercase();
        let blocked = policy.judge(&query, &folded, ASKER, SUBJECT.now);
        blocked.map(|blocked| blocked.list)
    };
    assert_eq!(asked(&policy, "a.example."), Some(1));
    let paused = policy.clone().switched(Switches { is_paused: true, ..Switches::default() });
    assert_eq!(asked(&paused, "a.example."), None);
    let back = paused.switched(Switches::default());
    assert_eq!(asked(&back, "a.example."), Some(0), "who switches back gets all of it");
}

const ASKER: Client = Client {
    address: SUBJECT.address,
    place: crate::policy::Place { group: 0, view: 0 },
    is_stream: false,
    is_served: true,
};

/// A policy with nothing but lists and what is switched by hand.
fn policy_with(filtering: Filtering, switches: Switches) -> Policy {
    let config = config::Config::default();
    let identity = Identity::new(&config.identity);
    let policy = Policy::new(Acl::new(&config.acl), identity, LocalData::default());
    policy.switched(switches).filtered(Some(Arc::new(filtering)))
}

#[test]
fn override_comes_before_lists_on_the_way_of_an_alias() {
    let lists = [(list("ads", ListAnswer::Nodata), Syntax::Domains, "listed.example")];
    let filtering = filtering(&lists);
    let message = message("www.example.", Rtype::A);
    let query = Query::parse(&message).unwrap();
    let (first, second) = ("listed.example", "other.example");
    let mut builder = AnswerBuilder::new(query.qname, Rtype::A, Class::IN, Rcode::NOERROR).unwrap();
    for target in [first, second] {
        let target = NameBuf::from_text(target).unwrap();
        let rdata = target.as_name().as_bytes();
        builder.write_for_question(Rtype::CNAME, Class::IN, 60, rdata).unwrap();
    }
    let answer = builder.finish();
    let objected = |said: &[(&str, Action)]| {
        let names: Vec<NameBuf> =
            said.iter().map(|(name, _)| NameBuf::from_text(name).unwrap()).collect();
        let held = said.iter().map(|&(_, action)| Override { action, is_subtree: false });
        let overrides = Overrides::new(names.iter().map(NameBuf::as_name).zip(held));
        let with_lists =
            filtering.object(&query, &answer.view(SUBJECT.now), SUBJECT, Some(&overrides));
        let alone = overrides.object(&query, &answer.view(SUBJECT.now), SUBJECT.now);
        [with_lists, alone].map(|blocked| blocked.map(|blocked| blocked.list))
    };
    let by_hand = Some(crate::observe::OVERRIDES);
    assert_eq!(objected(&[]), [Some(0), None]);
    assert_eq!(objected(&[(first, Action::Allow)]), [None, None]);
    assert_eq!(objected(&[(first, Action::Block)]), [by_hand, by_hand]);
    // What stands before on the way decides.
    assert_eq!(objected(&[(second, Action::Allow)]), [Some(0), None]);
    assert_eq!(objected(&[(first, Action::Allow), (second, Action::Block)]), [None, None]);
    assert_eq!(objected(&[(second, Action::Block)]), [Some(0), by_hand]);
}
