//! Lists in, decisions out.

use std::net::IpAddr;

use super::syntax::{self, Syntax};
use super::*;
use crate::wire::{NameBuf, Rtype};

/// An image of lists with the numbers 0, 1, …
fn image(lists: &[(Kind, Syntax, &str)]) -> Image<Vec<u8>> {
    let mut compiler = Compiler::new(*b"sixteen octets..");
    for (list, (kind, syntax, text)) in (0..).zip(lists) {
        let report = syntax::read(text.as_bytes(), *syntax, &mut |rule: &Rule<'_>| {
            compiler.add(list, *kind, rule).is_ok()
        });
        assert_eq!((report.bad.count, report.skipped.count), (0, 0), "{report:?}");
    }
    Image::open(compiler.finish(7).unwrap()).unwrap()
}

fn folded(name: &str) -> Vec<u8> {
    NameBuf::from_text(name).unwrap().as_name().as_bytes().to_ascii_lowercase()
}

/// One who asks for an address, by all lists.
const ASKER: Asker<'static> = Asker {
    lists: &Lists::ALL,
    qtype: Rtype::A,
    address: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)),
    name: None,
};

/// The decision in short: list and verb.
fn decided(image: &Image<Vec<u8>>, name: &str) -> Option<(u8, Verb)> {
    let decision = image.matcher().decide(&folded(name), &ASKER)?;
    Some((decision.list, decision.verb))
}

use Kind::{Allow as ALLOW, Block as BLOCK};
use Syntax::{Adblock, Domains, Rpz};

/// Reads a list into a compiler, and gives what was found.
fn compile(compiler: &mut Compiler, text: &str) -> syntax::Report {
    syntax::read(text.as_bytes(), syntax::detect(text.as_bytes()), &mut |rule: &Rule<'_>| {
        compiler.add(0, BLOCK, rule).is_ok()
    })
}

#[test]
fn owner_has_no_more_rules_than_can_be_weighed() {
    let limit = compile::RULES_PER_OWNER_MAX;
    let lines = |line: fn(usize) -> String| -> String { (0..1_000).map(line).collect() };
    for text in [
        lines(|nth| format!("||com^$client=10.0.{}.{}\n", nth / 256, nth % 256)),
        lines(|nth| format!("||com^$denyallow=a{nth}.com\n")),
        lines(|nth| format!("||com^$dnstype=TYPE{}\n", 1_000 + nth)),
        lines(|nth| format!("||com^$dnsrewrite=a{nth}.test\n")),
        lines(|nth| format!("32.2.2.0.192.rpz-ip A 10.0.{}.{}\n", nth / 256, nth % 256)),
        lines(|nth| format!("* A 10.0.{}.{}\n", nth / 256, nth % 256)),
    ] {
        let syntax = if text.starts_with("||") { Adblock } else { Rpz };
        let mut compiler = Compiler::new([3; 16]);
        let mut refused = Vec::new();
        syntax::read(text.as_bytes(), syntax, &mut |rule: &Rule<'_>| {
            let outcome = compiler.add(0, BLOCK, rule);
            refused.extend(outcome.err());
            outcome.is_ok()
        });
        assert_eq!(refused, vec![CompileError::Owner; 1_000 - limit], "{text:.40}");
        // Those without conditions, and other names, are taken as before.
        assert_eq!(compile(&mut compiler, "||com^\n||net^$client=10.0.0.1\n").rules, 2);
        let image = Image::open(compiler.finish(0).unwrap()).unwrap();
        assert!(decided(&image, "x.com").is_some());
    }
}

#[test]
fn image_with_too_many_rules_of_one_owner_is_refused() {
    let line = |nth: usize| {
        let [a, b] = [nth / 64 / 256, nth / 64 % 256];
        format!("||n{}.test^$client=10.{a}.{b}.{}\n", nth / 64, nth % 64)
    };
    let text: String = (0..300 * 64).map(line).collect();
    let mut compiler = Compiler::new([3; 16]);
    assert_eq!(compile(&mut compiler, &text).left_out.count, 0);
    let mut bytes = compiler.finish(0).unwrap();
    let parts = layout::Head::read(&bytes).unwrap().parts().unwrap();
    assert!(Image::open(bytes.clone()).is_ok());
    // All rules to the last bundle, and none to those before.
    let ends = parts.bundles.start..parts.bundles.end - 4;
    bytes[ends].fill(0);
    let checksum = crc32fast::hash(&bytes[layout::COVERED_AT..]);
    bytes[12..layout::COVERED_AT].copy_from_slice(&checksum.to_le_bytes());
    assert!(parts.rules.len() / layout::RULE_BYTES > compile::BUNDLE_RULES_MAX);
    assert_eq!(Image::open(bytes).err(), Some(Flaw::Structure));
}

#[test]
fn reach_says_which_names_are_covered() {
    let text = "||at-and-below.example^\n|exact.example^\n*.below.example";
    let image = image(&[(BLOCK, Adblock, text)]);
    for (name, is_covered) in [
        ("at-and-below.example", true),
        ("x.at-and-below.example", true),
        ("y.x.at-and-below.example", true),
        ("exact.example", true),
        ("x.exact.example", false),
        ("below.example", false),
        ("x.below.example", true),
        ("example", false),
        ("", false),
        ("notexact.example", false),
    ] {
        assert_eq!(decided(&image, name).is_some(), is_covered, "{name}");
    }
}

#[test]
fn classes_outrank_nearness_and_nearness_the_lists_number() {
    let decided = |lists: &[(Kind, Syntax, &str)], name| decided(&image(lists), name);
    let ads = "ads.example.org";
    let (block, near) = ("||example.org^", "||ads.example.org^");
    // Allowance over block, however near that is.
    let allow = (BLOCK, Adblock, "@@||example.org^");
    assert_eq!(decided(&[(BLOCK, Adblock, near), allow], ads), Some((1, Verb::Allow)));
    // Important block over allowance, important allowance over that, an allow list's line over all blocks.
    let important = (BLOCK, Adblock, "||example.org^$important");
    assert_eq!(decided(&[allow, important], ads), Some((1, Verb::Block)));
    let freed = (BLOCK, Adblock, "@@||example.org^$important");
    assert_eq!(decided(&[important, freed], ads), Some((1, Verb::Allow)));
    let listed = (ALLOW, Domains, "ads.example.org");
    assert_eq!(decided(&[important, listed], ads), Some((1, Verb::Allow)));
    // The nearest of a class; then the first list.
    let lists = [(BLOCK, Adblock, block), (BLOCK, Adblock, near), (BLOCK, Adblock, near)];
    assert_eq!(decided(&lists, ads), Some((1, Verb::Block)));
    assert_eq!(decided(&lists, "example.org"), Some((0, Verb::Block)));
}

#[test]
fn decision_says_where_the_owner_begins() {
    let image = image(&[(BLOCK, Adblock, "||example.org^$important")]);
    let name = folded("a.bc.example.org");
    let decision = image.matcher().decide(&name, &ASKER).unwrap();
    assert_eq!(&name[decision.owner_at..], folded("example.org"));
    assert!(decision.is_important && decision.reach == Reach::AtAndBelow);
}

#[test]
fn only_lists_types_and_clients_that_are_meant_count() {
    let text = "||t.example^$dnstype=AAAA\n||c.example^$client=10.0.0.0/8|tv";
    let image = image(&[(BLOCK, Adblock, text), (BLOCK, Adblock, "||x.example^")]);
    let matcher = image.matcher();
    let is_blocked = |name: &str, asker: Asker<'_>| matcher.decide(&folded(name), &asker).is_some();
    let first = Lists::from_iter([0]);
    assert!(is_blocked("x.example", ASKER));
    assert!(!is_blocked("x.example", Asker { lists: &first, ..ASKER }));
    assert!(!is_blocked("t.example", ASKER));
    assert!(is_blocked("t.example", Asker { qtype: Rtype::AAAA, lists: &first, ..ASKER }));
    assert!(is_blocked("c.example", ASKER));
    let stranger = Asker { address: [192, 0, 2, 1].into(), ..ASKER };
    assert!(!is_blocked("c.example", stranger));
    assert!(is_blocked("c.example", Asker { name: Some("tv"), ..stranger }));
}

#[test]
fn policy_zones_speak_by_their_nearest_owner_and_in_order() {
    let first = "$TTL 9\n*.example CNAME rpz-passthru.\nbad.example CNAME .\n";
    let second = "$TTL 9\n*.example CNAME *.\n*.other CNAME rpz-drop.\n";
    let zones = [(BLOCK, Rpz, first), (BLOCK, Rpz, second)];
    let image = image(&zones);
    assert_eq!(decided(&image, "bad.example"), Some((0, Verb::Nxdomain)));
    assert_eq!(decided(&image, "good.example"), Some((0, Verb::Allow)));
    assert_eq!(decided(&image, "x.bad.example"), Some((0, Verb::Allow)));
    assert_eq!(decided(&image, "x.other"), Some((1, Verb::Drop)));
}

#[test]
fn what_a_policy_zone_says_is_weighed_with_the_rest() {
    let zone = (BLOCK, Rpz, "$TTL 9\nx.example CNAME rpz-passthru.\ny.example CNAME .\n");
    let image = image(&[(BLOCK, Domains, "x.example"), zone, (BLOCK, Adblock, "@@||y.example^")]);
    assert_eq!(decided(&image, "x.example"), Some((1, Verb::Allow)));
    assert_eq!(decided(&image, "y.example"), Some((2, Verb::Allow)));
}

#[test]
fn local_data_comes_with_all_its_records() {
    let zone = "$TTL 9\nx.example A 192.0.2.1\nx.example A 192.0.2.2\nx.example MX 5 m.\n\
        *.x.example A 192.0.2.3\n";
    let image = image(&[(BLOCK, Rpz, zone), (BLOCK, Rpz, "$TTL 9\nx.example A 192.0.2.4\n")]);
    let rdata = |name: &str| -> Vec<Vec<u8>> {
        let decision = image.matcher().decide(&folded(name), &ASKER).unwrap();
        assert_eq!(decision.verb, Verb::Local);
        decision.records().map(|record| record.rdata.to_vec()).collect()
    };
    let expected = [b"\xC0\0\x02\x01".as_slice(), b"\xC0\0\x02\x02", b"\0\x05\x01m\0"];
    assert_eq!(rdata("x.example"), expected);
    assert_eq!(rdata("y.x.example"), [b"\xC0\0\x02\x03"]);
}

#[test]
fn answers_are_judged_by_addresses_and_servers() {
    let zone = "$TTL 9\n24.0.2.0.192.rpz-ip CNAME .\n32.7.2.0.192.rpz-ip CNAME rpz-passthru.\n\
        32.zz.db8.2001.rpz-ip CNAME rpz-drop.\n*.evil.example.rpz-nsdname CNAME *.\n";
    let image = image(&[(BLOCK, Rpz, zone), (BLOCK, Adblock, "||198.51.100.1^")]);
    let matcher = image.matcher();
    let verb = |address: &str| {
        let decision = matcher.decide_address(address.parse().unwrap(), &ASKER)?;
        Some(decision.verb)
    };
    assert_eq!(verb("192.0.2.1"), Some(Verb::Nxdomain));
    assert_eq!(verb("192.0.2.7"), Some(Verb::Allow));
    assert_eq!(verb("::ffff:192.0.2.7"), Some(Verb::Allow));
    assert_eq!(verb("192.0.3.1"), None);
    assert_eq!(verb("2001:db8::1"), Some(Verb::Drop));
    assert_eq!(verb("2001:db9::1"), None);
    assert_eq!(verb("198.51.100.1"), Some(Verb::Block));
    let server = folded("ns.evil.example");
    assert_eq!(matcher.decide_nsdname(&server, &ASKER).unwrap().verb, Verb::Nodata);
    assert!(matcher.decide(&server, &ASKER).is_none());
}

#[test]
fn rewrites_come_before_rules_and_records_of_one_name_together() {
    let text = "@@||x.example^$important\n||x.example^$dnsrewrite=192.0.2.1\n\
        ||x.example^$dnsrewrite=192.0.2.2\n||x.example^\n\
        ||y.example^$dnsrewrite=192.0.2.3\n||y.example^$dnsrewrite=z.example\n\
        ||w.example^$dnsrewrite=NXDOMAIN\n@@||w.example^$dnsrewrite\n||w.example^\n\
        ||i.example^$dnsrewrite=NXDOMAIN,important\n@@||i.example^$dnsrewrite";
    let with = image(&[(BLOCK, Adblock, text)]);
    let records = |name: &str| {
        let decision = with.matcher().decide(&folded(name), &ASKER).unwrap();
        decision.records().map(|record| record.rdata.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(records("a.x.example"), [[192, 0, 2, 1], [192, 0, 2, 2]]);
    assert_eq!(records("y.example"), [b"\x01z\x07example\0"]);
    assert_eq!(decided(&with, "w.example"), Some((0, Verb::Block)));
    assert_eq!(decided(&with, "i.example"), Some((0, Verb::Nxdomain)));
    // An allow list comes before all.
    let allow = (ALLOW, Domains, "y.example");
    let listed = image(&[(BLOCK, Adblock, text), allow]);
    assert_eq!(decided(&listed, "y.example"), Some((1, Verb::Allow)));
    // A name is not rewritten to itself.
    let circle = image(&[(BLOCK, Adblock, "||x.example^$dnsrewrite=www.x.example")]);
    assert_eq!(decided(&circle, "x.example"), Some((0, Verb::Local)));
    assert_eq!(decided(&circle, "www.x.example"), None);
}

#[test]
fn rules_are_taken_back_in_all_lists_of_their_kind() {
    let first = "||x.example^\n||x.example^$important\n||y.example^$dnstype=A\n|z.example^";
    let second = "||x.example^$badfilter\n||y.example^$badfilter\n||z.example^$badfilter\n\
        ||alone.example^$badfilter\n@@||x.example^$badfilter";
    let allow = (ALLOW, Domains, "z.example");
    let lists = image(&[(BLOCK, Adblock, first), (BLOCK, Adblock, second), allow]);
    let decision = lists.matcher().decide(&folded("x.example"), &ASKER).unwrap();
    assert!(decision.is_important);
    // Neither of these is the same rule.
    assert_eq!(decided(&lists, "y.example"), Some((0, Verb::Block)));
    assert_eq!(decided(&lists, "z.example"), Some((2, Verb::Allow)));
    assert_eq!(decided(&lists, "alone.example"), None);
    let only = image(&[(BLOCK, Adblock, "||x.example^\n||x.example^$badfilter")]);
    assert_eq!(decided(&only, "x.example"), None);
}

#[test]
fn excepted_names_and_those_below_them_are_not_covered() {
    let text = "||bad^$denyallow=good.bad|fine.bad\n*$denyallow=bad|example";
    let image = image(&[(BLOCK, Adblock, text)]);
    for (name, is_covered) in
        [("bad", true), ("x.bad", true), ("good.bad", false), ("x.fine.bad", false)]
    {
        assert_eq!(decided(&image, name).is_some(), is_covered, "{name}");
    }
    assert!(decided(&image, "x.other").is_some() && decided(&image, "x.example").is_none());
}

#[test]
fn clients_are_judged_by_their_address() {
    let zone = "$TTL 9\n8.0.0.0.10.rpz-client-ip CNAME rpz-drop.\n\
        32.1.0.0.10.rpz-client-ip CNAME rpz-passthru.\n24.0.2.0.192.rpz-ip CNAME .\n";
    let image = image(&[(BLOCK, Rpz, zone)]);
    let verb = |address: &str| {
        let asker = Asker { address: address.parse().unwrap(), ..ASKER };
        Some(image.matcher().decide_client(&asker)?.verb)
    };
    assert_eq!(verb("10.0.0.9"), Some(Verb::Drop));
    assert_eq!(verb("::ffff:10.0.0.9"), Some(Verb::Drop));
    assert_eq!(verb("10.0.0.1"), Some(Verb::Allow));
    assert_eq!(verb("192.0.2.1"), None);
    let address = [10, 0, 0, 9].into();
    assert!(image.matcher().decide_address(address, &ASKER).is_none());
}

#[test]
fn rule_for_the_root_covers_everything() {
    let image = image(&[(BLOCK, Syntax::Dnsmasq, "address=/#/\nserver=/good.example/#")]);
    for name in ["", "x", "a.b.c.d.example"] {
        assert_eq!(decided(&image, name), Some((0, Verb::Block)), "{name}");
    }
    assert_eq!(decided(&image, "a.good.example"), Some((0, Verb::Allow)));
}

#[test]
fn image_without_rules_decides_nothing() {
    let image = image(&[]);
    assert_eq!((image.stamp(), image.footprint().names), (7, 0));
    assert!(decided(&image, "a.example").is_none());
    assert!(image.matcher().decide_address([192, 0, 2, 1].into(), &ASKER).is_none());
}

#[test]
fn what_is_no_folded_name_decides_nothing_and_does_no_harm() {
    let image = image(&[(BLOCK, Adblock, "||example^"), (BLOCK, Syntax::Dnsmasq, "address=/#/")]);
    let matcher = image.matcher();
    let overlong = [b"\x3F".repeat(500).as_slice(), b"\0"].concat();
    for octets in
        [b"".as_slice(), b"\x07exam", b"\x07example", b"\xFFx\0", b"\x3Fx", &overlong, &[1; 400]]
    {
        assert!(matcher.decide(octets, &ASKER).is_none(), "{}", octets.escape_ascii());
    }
    // The longest name there is, and one with the most labels.
    let label = "a".repeat(63);
    let long = format!("{label}.{label}.{label}.{}.example", "a".repeat(53));
    assert!(decided(&image, &long).is_some());
    assert!(decided(&image, &format!("{}example", "a.".repeat(123))).is_some());
}

#[test]
fn flipped_or_missing_octets_of_an_image_are_noticed() {
    let good = image(&[(BLOCK, Adblock, "||x.example^$dnstype=A\n||192.0.2.1^\n||y.example^")]);
    let bytes = good.bytes().to_vec();
    for len in 0..bytes.len() {
        assert!(Image::open(&bytes[..len]).is_err(), "{len}");
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert!(Image::open(flipped).is_err(), "{at}");
    }
}

#[test]
fn a_million_names_that_are_not_listed_pass() {
    let mut compiler = Compiler::new([3; 16]);
    let name = |kind: &str, number: u32| {
        let third = number.wrapping_mul(0x9E37_79B9);
        folded(&format!("{third:x}.{kind}{}.example", number % 5_000))
    };
    for number in 0..50_000 {
        let wire = name("listed", number);
        let owner = Owner::Name(crate::wire::Name::parse(&wire).unwrap());
        let (types, clients) = (&TypeSet::default(), &ClientSet::default());
        let rule = Rule {
            owner,
            trigger: Trigger::Qname,
            reach: Reach::AtAndBelow,
            verb: Verb::Block,
            record: None,
            is_important: false,
            is_zoned: false,
            is_rewrite: false,
            cancels: false,
            except: &[],
            types,
            clients,
        };
        compiler.add(0, Kind::Block, &rule).unwrap();
    }
    let image = Image::open(compiler.finish(0).unwrap()).unwrap();
    let matcher = image.matcher();
    assert!((0..50_000).all(|number| matcher.decide(&name("listed", number), &ASKER).is_some()));
    let other = |number| matcher.decide(&name("listen", number), &ASKER).is_none();
    assert!((0..1_000_000).all(other));
}

#[test]
fn without_the_filter_the_table_is_asked_and_with_it_only_what_it_knows() {
    let image = image(&[(BLOCK, Adblock, "||ads.example^\n||other.example^$client=10.0.0.1")]);
    let names = ["ads.example", "x.ads.example", "other.example", "fine.example", "."];
    let decided = |image: &Image<Vec<u8>>, is_exact| {
        let matcher = image.matcher().exact(is_exact);
        names.map(|name| matcher.decide(&folded(name), &ASKER).map(|decision| decision.verb))
    };
    let block = Some(Verb::Block);
    assert_eq!(decided(&image, false), [block, block, block, None, None]);
    assert_eq!(decided(&image, true), decided(&image, false));
    // A filter that knows nobody: whoever asks it finds nothing, whoever goes past it finds all.
    let blind = image.without_filter();
    assert_eq!(decided(&blind, false), [None; 5]);
    assert_eq!(decided(&blind, true), decided(&image, false));
}
