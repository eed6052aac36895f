//! A compiled zone against what a client would see.

use super::super::records::folded;
use super::super::{Local, LocalData, Wants};
use crate::config;
use crate::time::CacheTime;
use crate::wire::patch::{self, Framing};
use crate::wire::{Class, Encoder, Flags, Header, NameBuf, Query, Rcode, Response, Rtype};

const RECORDS: &str = r#"
$TTL 3600
@        SOA ns hostmaster 1 3600 600 86400 300
         NS  ns
ns       A   192.0.2.53
www  60  A   192.0.2.1
www  30  A   192.0.2.2
www      TXT "a \"quoted\" text"
alias    CNAME WWW
outside  CNAME example.net.
hop      CNAME outside
*.cout   CNAME example.net.
loop     CNAME loop2
loop2    CNAME loop
a.b.c    AAAA 2001:db8::1
*.wild   A   192.0.2.9
*.cwild  CNAME www
gone     CNAME nowhere
below    CNAME x.www
towild   CNAME Some.Name.wild
*.dead   CNAME nowhere
toent    CNAME b.c
tochild  CNAME host.child
"#;

fn section(records: &str) -> config::LocalZone {
    config::LocalZone {
        zone: "Corp.Example.".into(),
        records: records.into(),
        place: "test.toml:7".into(),
    }
}

/// What a client reads for `name` and `qtype`: RCODE and "owner type rdata-length ttl" per record.
fn ask(name: &str, qtype: Rtype) -> Option<(Rcode, Vec<String>)> {
    let child =
        config::LocalZone { zone: "child.corp.example.".into(), ..section("host A 192.0.2.7") };
    ask_of(&[section(RECORDS), child], name, qtype)
}

fn ask_of(
    sections: &[config::LocalZone],
    name: &str,
    qtype: Rtype,
) -> Option<(Rcode, Vec<String>)> {
    let data = LocalData::new(sections).unwrap();
    told(&data, name, qtype, false).map(|(rcode, records, _)| (rcode, records))
}

/// As [`ask_of`], with the target that the node would have to ask for.
fn told(
    data: &LocalData,
    name: &str,
    qtype: Rtype,
    wants_recursion: bool,
) -> Option<(Rcode, Vec<String>, Option<String>)> {
    let name = NameBuf::from_text(name).unwrap();
    let header = Header { id: 1, flags: Flags(0), counts: [1, 0, 0, 0] };
    let mut encoder = Encoder::new(header, 512);
    encoder.question(name.as_name(), qtype, Class::IN).unwrap();
    let message = encoder.into_message();
    let query = Query::parse(&message).unwrap();
    let now = CacheTime::default();
    let wants = Wants { recursion: wants_recursion, dnssec: true };
    let local = data.lookup(&folded(query.qname), qtype, wants, now)?;
    let mut target = None;
    let answer = match &local {
        Local::Answer(answer) => *answer,
        Local::Made(answer) => answer.view(now),
        Local::Follow(detour) => {
            target = Some(detour.target.as_name().to_string());
            detour.links.view(now)
        }
        Local::FollowMade(detour) => detour.links.view(now),
    };
    let mut out = [0; 1232];
    let framing = Framing { limit: 1232, payload_bytes: 1232, ede: None };
    let len = patch::reply(&query, &answer, patch::Aging::By(0), framing, &mut out).unwrap();
    let response = Response::parse(&out[..len]).unwrap();
    let lines = response.records.iter().map(|record| {
        let owner = response.owner(record).unwrap();
        format!("{:?} {} {} {}", owner, record.rtype.0, record.rdata_len, record.ttl)
    });
    Some((response.rcode(), lines.collect(), target))
}

#[test]
fn name_and_type_give_the_whole_rrset_with_one_ttl() {
    let (rcode, records) = ask("WWW.corp.example", Rtype::A).unwrap();
    assert_eq!(rcode, Rcode::NOERROR);
    assert_eq!(records, ["WWW.corp.example. 1 4 30", "WWW.corp.example. 1 4 30"]);
}

#[test]
fn other_zones_are_not_ours() {
    for name in ["example.", "badcorp.example.", "corp.example.net.", "."] {
        assert!(ask(name, Rtype::A).is_none(), "{name}");
    }
}

#[test]
fn missing_type_is_nodata_and_missing_name_is_nxdomain_both_with_soa() {
    for (name, rcode) in [
        ("www.corp.example.", Rcode::NOERROR),
        ("b.c.corp.example.", Rcode::NOERROR),
        ("nothing.corp.example.", Rcode::NXDOMAIN),
        ("x.www.corp.example.", Rcode::NXDOMAIN),
    ] {
        let (seen, records) = ask(name, Rtype::MX).unwrap();
        assert_eq!(seen, rcode, "{name}");
        assert_eq!(records.len(), 1);
        assert!(records[0].to_lowercase().starts_with("corp.example. 6 "), "{records:?}");
        assert!(records[0].ends_with(" 300"), "{records:?}");
    }
}

#[test]
fn alias_is_followed_within_the_zone() {
    let (_, records) = ask("alias.corp.example.", Rtype::A).unwrap();
    assert_eq!(records.len(), 3, "{records:?}");
    assert!(records[0].starts_with("alias.corp.example. 5 "));
    assert!(records[1].starts_with("www.corp.example. 1 4 "));
    let (_, records) = ask("alias.corp.example.", Rtype::CNAME).unwrap();
    assert_eq!(records.len(), 1);
}

#[test]
fn end_of_an_alias_without_data_decides_as_if_it_had_been_asked_for() {
    for (name, rcode) in [
        ("alias.corp.example.", Rcode::NOERROR),
        ("toent.corp.example.", Rcode::NOERROR),
        ("towild.corp.example.", Rcode::NOERROR),
        ("gone.corp.example.", Rcode::NXDOMAIN),
        ("below.corp.example.", Rcode::NXDOMAIN),
        ("any.dead.corp.example.", Rcode::NXDOMAIN),
    ] {
        let (seen, records) = ask(name, Rtype::MX).unwrap();
        assert_eq!((seen, records.len()), (rcode, 2), "{name}: {records:?}");
        assert!(records[0].starts_with(&format!("{name} 5 ")), "{records:?}");
        assert!(records[1].to_lowercase().starts_with("corp.example. 6 "), "{records:?}");
        assert!(records[1].ends_with(" 300"), "{records:?}");
    }
}

#[test]
fn alias_is_followed_to_a_wildcard() {
    let (rcode, records) = ask("towild.corp.example.", Rtype::A).unwrap();
    assert_eq!((rcode, records.len()), (Rcode::NOERROR, 2), "{records:?}");
    assert_eq!(records[1], "some.name.wild.corp.example. 1 4 3600");
}

#[test]
fn alias_out_of_all_zones_is_to_be_followed_unless_recursion_is_not_wanted() {
    let data = LocalData::new(&[section(RECORDS)]).unwrap();
    let first = |name: &str| format!("{name} 5 ");
    for (name, target) in [
        ("outside.corp.example.", "example.net."),
        ("hop.corp.example.", "example.net."),
        ("a.cout.corp.example.", "example.net."),
    ] {
        for wants_recursion in [true, false] {
            let (rcode, records, seen) = told(&data, name, Rtype::A, wants_recursion).unwrap();
            assert_eq!(rcode, Rcode::NOERROR);
            assert!(records[0].starts_with(&first(name)), "{records:?}");
            assert_eq!(records.len(), if name.starts_with("hop") { 2 } else { 1 });
            assert_eq!(seen.as_deref(), wants_recursion.then_some(target));
        }
        let (_, records, seen) = told(&data, name, Rtype::CNAME, true).unwrap();
        assert_eq!((records.len(), seen), (1, None), "the alias itself was asked for");
    }
}

#[test]
fn alias_into_another_zone_is_followed_there() {
    let (rcode, records) = ask("tochild.corp.example.", Rtype::A).unwrap();
    assert_eq!((rcode, records.len()), (Rcode::NOERROR, 2), "{records:?}");
    assert!(records[1].starts_with("host.child.corp.example. 1 4 "), "{records:?}");
}

#[test]
fn alias_loop_ends() {
    let (rcode, records) = ask("loop.corp.example.", Rtype::A).unwrap();
    assert_eq!((rcode, records.len()), (Rcode::NOERROR, 2));
}

#[test]
fn wildcard_answers_in_the_name_that_was_asked() {
    let (_, records) = ask("any.thing.wild.corp.example.", Rtype::A).unwrap();
    assert_eq!(records, ["any.thing.wild.corp.example. 1 4 3600"]);
    let (rcode, _) = ask("wild.corp.example.", Rtype::A).unwrap();
    assert_eq!(rcode, Rcode::NOERROR);
    let (_, records) = ask("a.longer.name.cwild.corp.example.", Rtype::A).unwrap();
    assert_eq!(records.len(), 3, "{records:?}");
    assert!(records[1].starts_with("www.corp.example. 1 4 "), "{records:?}");
}

#[test]
fn owner_and_defaults_carry_over_from_entry_to_entry() {
    let records =
        "$TTL 77\n$ORIGIN sub.corp.example.\nwww A 192.0.2.1\n  \n  TXT ( \"a\"\n\n \"b\" )\n";
    for (rtype, len) in [(Rtype::A, 4), (Rtype::TXT, 4)] {
        let (_, answers) = ask_of(&[section(records)], "www.sub.corp.example.", rtype).unwrap();
        assert_eq!(answers, [format!("www.sub.corp.example. {} {len} 77", rtype.0)]);
    }
}

#[test]
fn at_sign_is_the_origin_in_rdata_too() {
    let records = "@ 60 SOA @ @ 1 2 3 4 5\n@ 60 MX 10 @\nwww 60 CNAME @\n@ 60 TXT @\n\
                   $ORIGIN sub.corp.example.\n_s._tcp 60 SRV 1 2 3 @\n";
    for (name, rtype, rdata_len) in [
        ("corp.example.", Rtype::SOA, 2 * 14 + 20),
        ("corp.example.", Rtype::MX, 2 + 14),
        ("www.corp.example.", Rtype::CNAME, 14),
        ("corp.example.", Rtype::TXT, 2),
        ("_s._tcp.sub.corp.example.", Rtype(33), 6 + 18),
    ] {
        let (_, answers) = ask_of(&[section(records)], name, rtype).unwrap();
        assert_eq!(answers, [format!("{name} {} {rdata_len} 60", rtype.0)]);
    }
    let (rcode, answers) = ask_of(&[section(records)], "www.corp.example.", Rtype::MX).unwrap();
    assert_eq!((rcode, answers.len()), (Rcode::NOERROR, 2), "the alias leads to the apex");
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (records, line, part) in [
        ("www A 300.1.1.1", 7, "expected IPv4 address"),
        ("www A 300.1.1.1\nok A 192.0.2.1", 7, "expected IPv4 address"),
        ("ok A 192.0.2.1\n\n; www\nwww BAD x\nok A 192.0.2.1", 10, "type"),
        ("ok A 192.0.2.1\nwww.other. A 192.0.2.1\n", 8, "www.other. lies outside the zone"),
        ("@ SOA ns host ( 1 ; (\n 2 3 )\n 4 5\nwww CNAME a\nwww A x", 7, "unexpected end"),
        ("@ SOA ns host ( 1 ; (\n 2 3\n 4 5 )\nwww TXT \"(\"\nwww A x", 11, "IPv4"),
        ("www CNAME a\nok A 192.0.2.1\nwww A 192.0.2.1\nok A 192.0.2.2", 9, "CNAME and other data"),
        ("@ SOA a b 1 2 3 4 5\nok A 192.0.2.1\n@ SOA a b 2 2 3 4 5\n", 9, "two SOA"),
        ("\n$INCLUDE other", 8, "$INCLUDE is not offered"),
        ("old DNAME www\nold DNAME ok", 8, "old.corp.example. has two DNAME records"),
        ("old DNAME www\nx.y.old A 192.0.2.1", 8, "x.y.old.corp.example. lies below a DNAME"),
        ("*.old DNAME www", 7, "is a wildcard with a DNAME, which is not offered"),
        ("*.sub NS ns", 7, "is a wildcard with NS records, which means nothing"),
        ("sub NS ns\nsub DNAME www", 8, "has a DNAME and is delegated"),
        ("ok A 192.0.2.1\nwww TXT ( \"a\"\n", 8, "a parenthesis is not closed"),
        ("www TXT \"a\nok A 192.0.2.1\n", 7, "a quoted text is not closed in its line"),
        ("ok A 192.0.2.1\nwww TXT a\\\n", 8, "a backslash escapes nothing"),
    ] {
        let error = LocalData::new(&[section(records)]).unwrap_err().to_string();
        let start = format!("test.toml:{line}: local zone \"Corp.Example.\": ");
        assert!(error.starts_with(&start), "{records:?}: {error}");
        assert!(error.contains(part), "{error}");
    }
    let twice = LocalData::new(&[section(""), section("")]).unwrap_err().to_string();
    assert!(twice.contains("defined twice"), "{twice}");
}
