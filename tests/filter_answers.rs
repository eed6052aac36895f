//! Every syntax of lists with every answer, for clients whom the list concerns and for others: what goes out of the core.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ahash::RandomState;
use heimdall_uring::cache::Shard;
use heimdall_uring::config::{self, Config, Group, List, ListAnswer, ListKind, ListSource};
use heimdall_uring::observe::Transport;
use heimdall_uring::policy::filter::syntax::{self, Syntax};
use heimdall_uring::policy::filter::{Compiler, Image, Kind, Lists, Rule};
use heimdall_uring::policy::{Acl, Filtering, Groups, Identity, LocalData, Policy};
use heimdall_uring::serve::{Client, Core, Sections, Verdict};
use heimdall_uring::time::{CacheTime, Now};
use heimdall_uring::wire::{Class, Encoder, Flags, Header, NameBuf, Response, Rtype};

/// A list with one name in each syntax: the first for blocking, the second for allowing it.
const SYNTAXES: [(Syntax, &str, &str); 5] = [
    (Syntax::Hosts, "0.0.0.0 ads.example", "0.0.0.0 ads.example"),
    (Syntax::Domains, "ads.example", "ads.example"),
    (Syntax::Adblock, "||ads.example^", "@@||ads.example^"),
    (Syntax::Dnsmasq, "local=/ads.example/", "local=/ads.example/"),
    (
        Syntax::Rpz,
        "$TTL 60\n@ SOA . . 1 1 1 1 1\nads.example CNAME .",
        "$TTL 60\n@ SOA . . 1 1 1 1 1\nads.example CNAME rpz-passthru.",
    ),
];

/// Each answer, and what it is for A, AAAA and TXT: RCODE, then types and data.
fn answers() -> [(ListAnswer, [&'static str; 3]); 6] {
    let text = "[rebinding]\nallow = ['wall.example']";
    let config = Config::load(Some(config::File { name: "t", text }), Vec::new(), &[]).unwrap();
    let wall = config.rebinding.allow[0].clone();
    let own = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    [
        (ListAnswer::Nxdomain, ["NXDOMAIN SOA"; 3]),
        (ListAnswer::Nodata, ["NOERROR SOA"; 3]),
        (ListAnswer::ZeroIp, ["NOERROR A 0.0.0.0", "NOERROR AAAA ::", "NOERROR SOA"]),
        (ListAnswer::Refused, ["REFUSED"; 3]),
        (
            ListAnswer::Addresses(own.to_vec()),
            ["NOERROR A 192.0.2.7", "NOERROR AAAA 2001:db8::7", "NOERROR SOA"],
        ),
        (ListAnswer::Alias(wall), ["asks for wall.example."; 3]),
    ]
}

fn core(syntax: Syntax, kind: ListKind, text: &str, answer: &ListAnswer) -> Core<()> {
    let mut compiler = Compiler::new([3; 16]);
    let number_of = match kind {
        ListKind::Block => Kind::Block,
        ListKind::Allow => Kind::Allow,
    };
    let mut take = |rule: &Rule<'_>| compiler.add(1, number_of, rule).is_ok();
    let report = syntax::read(text.as_bytes(), syntax, &mut take);
    assert_eq!((report.rules, report.bad.count), (1, 0), "{text}");
    if kind == ListKind::Allow {
        // What is allowed there would be blocked here.
        let mut take = |rule: &Rule<'_>| compiler.add(0, Kind::Block, rule).is_ok();
        syntax::read(b"||ads.example^", Syntax::Adblock, &mut take);
    }
    let image = Image::open(compiler.finish(0).unwrap().into()).unwrap();
    let list = |name: &str, kind| {
        let source = ListSource::File("/list".into());
        let list = List::new(name.into(), source, String::new());
        List { kind, answer: answer.clone(), ttl: 30, ..list }
    };
    let lists = [list("base", ListKind::Block), list("tested", kind)];
    let group = |name: &str, third: u8| Group {
        name: name.into(),
        clients: vec![format!("127.0.{third}.0/24").parse().unwrap()],
        listeners: Vec::new(),
        lists: None,
        periods: Vec::new(),
        forward: None,
        log: true,
        place: String::new(),
    };
    let groups =
        Groups::new(&[group("all", 1), group("base alone", 2)], &[([127, 0, 0, 1], 53).into()]);
    let sets = [Lists::default(), Lists::from_iter([0, 1]), Lists::from_iter([0])];
    let filtering = Filtering::new(image, &lists, Box::new(sets));
    let acl = Acl::new(&config::Acl::default());
    let policy =
        Policy::new(acl, Identity::new(&config::Identity::default()), LocalData::default())
            .grouped(groups)
            .filtered(Some(Arc::new(filtering)));
    let config = Config::default();
    let shard = Shard::new(&config.cache, 2 << 20, RandomState::with_seeds(1, 2, 3, 4));
    let sections = Sections {
        forward: &config.forward,
        zones: &[],
        udp: &config.udp,
        cache: &config.cache,
        optimizations: config.optimizations,
    };
    Core::new(Arc::new(policy), shard, sections, Arc::default())
}

/// What a client of the group with this number gets.
fn told(core: &mut Core<()>, name: &str, qtype: Rtype, group: u8) -> String {
    let header = Header { id: 1, flags: Flags(Flags::RD), counts: [1, 0, 0, 0] };
    let mut encoder = Encoder::new(header, 512);
    let qname = NameBuf::from_text(name).unwrap();
    encoder.question(qname.as_name(), qtype, Class::IN).unwrap();
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, group, 1));
    let client = Client { address, port: 4_000, listener: 0, transport: Transport::Udp };
    let now = Now { cache: CacheTime::from_millis(1_000), ..Now::default() };
    let mut out = [0; 4096];
    let len = match core.answer(&encoder.into_message(), client, now, &mut out) {
        Verdict::Reply(len) => len,
        Verdict::Miss(ticket) => {
            let heimdall_uring::serve::Admission::Ask(asking) =
                core.admit(ticket, (), now, &mut out, |(), _| {})
            else {
                panic!("nobody else asks");
            };
            let asked = format!("asks for {}", asking.query().qname);
            let mut asking = asking;
            core.evict(&mut asking, now, &mut out, |(), _| {});
            return asked;
        }
        verdict => panic!("{verdict:?}"),
    };
    let response = Response::parse(&out[..len]).unwrap();
    let mut text = response.header.flags.rcode().mnemonic().to_owned();
    for record in &response.records {
        let rdata = &out[record.rdata_at..record.rdata_at + record.rdata_len];
        let _ = match record.rtype {
            Rtype::A => write!(text, " A {}", Ipv4Addr::from(<[u8; 4]>::try_from(rdata).unwrap())),
            Rtype::AAAA => {
                let octets = <[u8; 16]>::try_from(rdata).unwrap();
                write!(text, " AAAA {}", std::net::Ipv6Addr::from(octets))
            }
            Rtype::SOA => write!(text, " SOA"),
            other => write!(text, " {}", other.0),
        };
    }
    text
}

#[test]
fn blocking_list_answers_in_every_syntax_as_it_is_told_and_only_for_its_group() {
    for (syntax, text, _) in SYNTAXES {
        for (answer, expected) in answers() {
            let mut core = core(syntax, ListKind::Block, text, &answer);
            // A policy zone says itself what its names get.
            let expected = if syntax == Syntax::Rpz { ["NXDOMAIN SOA"; 3] } else { expected };
            for (qtype, expected) in [Rtype::A, Rtype::AAAA, Rtype::TXT].into_iter().zip(expected) {
                let got = told(&mut core, "Ads.example.", qtype, 1);
                assert_eq!(got, expected, "{syntax:?} {answer:?} {qtype:?}");
                for group in [0, 2] {
                    let asked = told(&mut core, "Ads.example.", qtype, group);
                    assert_eq!(asked, "asks for Ads.example.", "{syntax:?} {answer:?} {qtype:?}");
                }
                assert_eq!(told(&mut core, "example.", qtype, 1), "asks for example.");
            }
        }
    }
}

#[test]
fn allowance_frees_in_every_syntax_and_only_for_its_group() {
    for (syntax, blocking, allowing) in SYNTAXES {
        for (kind, text) in [(ListKind::Allow, blocking), (ListKind::Allow, allowing)] {
            for (answer, expected) in answers() {
                let mut core = core(syntax, kind, text, &answer);
                let free = told(&mut core, "ads.example.", Rtype::A, 1);
                assert_eq!(free, "asks for ads.example.", "{syntax:?} {answer:?}");
                let held = told(&mut core, "ads.example.", Rtype::A, 2);
                assert_eq!(held, expected[0], "{syntax:?} {answer:?}");
                let other = told(&mut core, "ads.example.", Rtype::A, 0);
                assert_eq!(other, "asks for ads.example.", "{syntax:?} {answer:?}");
            }
        }
    }
}
