//! A zone answered as its authoritative server would: delegations, DNAME, addresses beside names.

use super::super::{Local, LocalData, Wants};
use crate::config;
use crate::time::CacheTime;
use crate::wire::patch::{self, Aging, Framing};
use crate::wire::{Class, Encoder, Flags, Header, NameBuf, Query, Rcode, Response, Rtype};

const RECORDS: &str = "
$TTL 300
@         SOA ns hostmaster 1 3600 600 86400 60
          NS  ns
          NS  ns.sub
          MX  10 mail
          MX  20 mail.sub
ns        A   192.0.2.53
mail      A   192.0.2.25
mail      AAAA 2001:db8::25
_s._tcp   SRV 0 0 80 mail
sub       NS  ns.sub
          NS  ns.other
          DS  1 13 2 0000000000000000000000000000000000000000000000000000000000000000
ns.sub    A   192.0.2.54
other     NS  ns.example.net.
ns.other  A   192.0.2.55
tosub     CNAME www.sub
toother   CNAME other
old       DNAME new
old       A   192.0.2.60
host.new  A   192.0.2.61
gone      DNAME example.net.
todname   CNAME host.old
";

struct Seen {
    rcode: Rcode,
    is_authoritative: bool,
    is_truncated: bool,
    /// \"owner type\" of each record, by section.
    sections: [Vec<String>; 3],
    target: Option<String>,
}

fn data() -> LocalData {
    data_of(RECORDS)
}

fn data_of(records: &str) -> LocalData {
    let zone = config::LocalZone {
        zone: "corp.example.".into(),
        records: records.into(),
        place: "test:1".into(),
    };
    LocalData::new(&[zone]).unwrap()
}

fn ask(data: &LocalData, name: &str, qtype: Rtype, wants_recursion: bool) -> Option<Seen> {
    ask_within(data, name, qtype, wants_recursion, 1232)
}

fn ask_within(
    data: &LocalData,
    name: &str,
    qtype: Rtype,
    wants_recursion: bool,
    limit: usize,
) -> Option<Seen> {
    let name = NameBuf::from_text(name).unwrap();
    let header = Header { id: 1, flags: Flags(0), counts: [1, 0, 0, 0] };
    let mut encoder = Encoder::new(header, 512);
    encoder.question(name.as_name(), qtype, Class::IN).unwrap();
    let message = encoder.into_message();
    let query = Query::parse(&message).unwrap();
    let now = CacheTime::default();
    let wants = Wants { recursion: wants_recursion, dnssec: true };
    let local = data.lookup(name.as_name().as_bytes(), qtype, wants, now)?;
    let (answer, target) = match &local {
        Local::Answer(answer) => (*answer, None),
        Local::Made(answer) => (answer.view(now), None),
        Local::Follow(way) => (way.links.view(now), Some(way.target.as_name().to_string())),
        Local::FollowMade(way) => (way.links.view(now), Some(way.target.as_name().to_string())),
    };
    let mut out = [0; 1232];
    let framing = Framing { limit, payload_bytes: 1232, ede: None };
    let len = patch::reply(&query, &answer, Aging::By(0), framing, &mut out).unwrap();
    let response = Response::parse(&out[..len]).unwrap();
    let records = response.records.iter();
    let mut lines =
        records.map(|record| format!("{:?} {}", response.owner(record).unwrap(), record.rtype.0));
    let sections = [1, 2, 3].map(|section| {
        let count = response.header.counts[section];
        lines.by_ref().take(count.into()).collect()
    });
    Some(Seen {
        rcode: response.rcode(),
        is_authoritative: response.header.flags.has(Flags::AA),
        is_truncated: response.header.flags.has(Flags::TC),
        sections,
        target,
    })
}

#[test]
fn names_at_and_below_a_cut_get_a_referral_with_glue() {
    let data = data();
    for (name, qtype) in [
        ("sub.corp.example.", Rtype::A),
        ("sub.corp.example.", Rtype::NS),
        ("ns.sub.corp.example.", Rtype::A),
        ("a.b.sub.corp.example.", Rtype::MX),
        ("a.b.sub.corp.example.", Rtype::DS),
    ] {
        let seen = ask(&data, name, qtype, false).unwrap();
        assert_eq!((seen.rcode, seen.is_authoritative), (Rcode::NOERROR, false), "{name}");
        let [answer, authority, additional] = seen.sections;
        assert_eq!(answer, [""; 0]);
        let cut = "sub.corp.example.";
        assert_eq!(authority, [format!("{cut} 2"), format!("{cut} 2"), format!("{cut} 43")]);
        // A server below another cut is a sibling: its glue may come along.
        assert_eq!(additional, ["ns.sub.corp.example. 1", "ns.other.corp.example. 1"]);
        assert!(ask(&data, name, qtype, true).is_none(), "recursion is for the forwarders");
    }
}

#[test]
fn ds_is_beside_a_referral_for_those_who_want_dnssec() {
    let data = data();
    let name = NameBuf::from_text("www.sub.corp.example.").unwrap();
    let count = |dnssec| {
        let wants = Wants { recursion: false, dnssec };
        let now = CacheTime::default();
        let local = data.lookup(name.as_name().as_bytes(), Rtype::A, wants, now);
        let Some(Local::Answer(referral)) = local else { panic!("{local:?}") };
        referral.shape.counts[1]
    };
    assert_eq!((count(false), count(true)), (2, 3));
}

#[test]
fn ds_of_a_cut_is_the_parents() {
    let data = data();
    for wants_recursion in [true, false] {
        let signed = ask(&data, "sub.corp.example.", Rtype::DS, wants_recursion).unwrap();
        assert!(signed.is_authoritative);
        assert_eq!(signed.sections[0], ["sub.corp.example. 43"]);
        let unsigned = ask(&data, "other.corp.example.", Rtype::DS, wants_recursion).unwrap();
        assert!(unsigned.is_authoritative && unsigned.sections[0].is_empty());
        assert_eq!(unsigned.sections[1], ["corp.example. 6"]);
        let alias = ask(&data, "toother.corp.example.", Rtype::DS, wants_recursion).unwrap();
        assert_eq!((alias.sections[0].len(), alias.sections[1].len()), (1, 1));
    }
}

#[test]
fn ds_of_a_zone_whose_parent_is_here_too_is_the_parents() {
    let zone = |zone: &str, records: &str| config::LocalZone {
        zone: zone.into(),
        records: records.into(),
        place: String::new(),
    };
    let child = zone("sub.corp.example.", "@ 60 SOA a b 1 2 3 4 5\nwww 60 A 192.0.2.9");
    let data = LocalData::new(&[zone("corp.example.", RECORDS), child]).unwrap();
    let ds = ask(&data, "sub.corp.example.", Rtype::DS, true).unwrap();
    assert_eq!(ds.sections[0], ["sub.corp.example. 43"]);
    let www = ask(&data, "www.sub.corp.example.", Rtype::A, false).unwrap();
    assert!(www.is_authoritative && www.sections[0] == ["www.sub.corp.example. 1"]);
    let alias = ask(&data, "tosub.corp.example.", Rtype::A, true).unwrap();
    assert_eq!((alias.sections[0].len(), alias.target), (2, None), "followed into the child");
}

#[test]
fn referral_whose_glue_does_not_fit_is_truncated() {
    let mut records = RECORDS.to_owned();
    for host in 0..40 {
        records += &format!("wide NS ns{host}.wide\nns{host}.wide A 192.0.2.{host}\n");
        records += &format!("far NS ns{host}.far.example.net.\n");
    }
    let data = data_of(&records);
    let glued = ask_within(&data, "x.wide.corp.example.", Rtype::A, false, 512).unwrap();
    assert!(glued.is_truncated);
    let seen = ask_within(&data, "x.sub.corp.example.", Rtype::A, false, 512).unwrap();
    assert!(!seen.is_truncated);
}

#[test]
fn alias_below_a_cut_is_followed_or_comes_with_the_referral() {
    let data = data();
    let seen = ask(&data, "tosub.corp.example.", Rtype::A, true).unwrap();
    assert_eq!(seen.target.as_deref(), Some("www.sub.corp.example."));
    assert_eq!((seen.sections[0].len(), seen.sections[1].len()), (1, 0));
    let seen = ask(&data, "tosub.corp.example.", Rtype::A, false).unwrap();
    assert!(seen.is_authoritative && seen.target.is_none());
    assert_eq!(seen.sections[0], ["tosub.corp.example. 5"]);
    assert_eq!(seen.sections[1].len(), 3);
    assert_eq!(seen.sections[2].len(), 2);
}

#[test]
fn addresses_of_named_hosts_come_along() {
    let data = data();
    for (name, qtype, additional) in [
        ("corp.example.", Rtype::NS, &["ns.sub.corp.example. 1", "ns.corp.example. 1"][..]),
        ("corp.example.", Rtype::MX, &["mail.corp.example. 1", "mail.corp.example. 28"]),
        ("_s._tcp.corp.example.", Rtype::SRV, &["mail.corp.example. 1", "mail.corp.example. 28"]),
    ] {
        let seen = ask(&data, name, qtype, true).unwrap();
        assert_eq!(seen.sections[2], additional, "{name} {qtype:?}");
        assert!(seen.sections[1].is_empty());
    }
}

#[test]
fn dname_leads_all_names_below_it_elsewhere() {
    let data = data();
    let seen = ask(&data, "host.old.corp.example.", Rtype::A, true).unwrap();
    assert!(seen.is_authoritative && seen.target.is_none());
    let chain = ["old.corp.example. 39", "host.old.corp.example. 5", "host.new.corp.example. 1"];
    assert_eq!(seen.sections[0], chain);
    let missing = ask(&data, "none.old.corp.example.", Rtype::A, true).unwrap();
    assert_eq!((missing.rcode, missing.sections[0].len()), (Rcode::NXDOMAIN, 2));
    assert_eq!(missing.sections[1], ["corp.example. 6"]);
    let nodata = ask(&data, "host.old.corp.example.", Rtype::MX, true).unwrap();
    assert_eq!((nodata.rcode, nodata.sections[1].len()), (Rcode::NOERROR, 1));
    let own = ask(&data, "old.corp.example.", Rtype::A, true).unwrap();
    assert_eq!(own.sections[0], ["old.corp.example. 1"]);
    let dname = ask(&data, "old.corp.example.", Rtype::DNAME, true).unwrap();
    assert_eq!(dname.sections[0], ["old.corp.example. 39"]);
    let cname = ask(&data, "host.old.corp.example.", Rtype::CNAME, true).unwrap();
    assert_eq!(cname.sections[0], ["old.corp.example. 39", "host.old.corp.example. 5"]);
    let alias = ask(&data, "todname.corp.example.", Rtype::A, true).unwrap();
    assert_eq!(alias.sections[0].len(), 4, "{:?}", alias.sections);
}

#[test]
fn dname_out_of_the_zone_is_to_be_followed() {
    let data = data();
    let seen = ask(&data, "a.b.gone.corp.example.", Rtype::A, true).unwrap();
    assert_eq!(seen.target.as_deref(), Some("a.b.example.net."));
    assert_eq!(seen.sections[0], ["gone.corp.example. 39", "a.b.gone.corp.example. 5"]);
    let seen = ask(&data, "a.b.gone.corp.example.", Rtype::A, false).unwrap();
    assert_eq!((seen.target, seen.sections[0].len()), (None, 2));
}

#[test]
fn name_that_grows_too_long_is_yxdomain() {
    let records = format!("{RECORDS}long DNAME {0}.{0}.{0}\n", "x".repeat(60));
    let data = data_of(&records);
    let seen = ask(&data, "short.long.corp.example.", Rtype::A, true).unwrap();
    assert_eq!(seen.rcode, Rcode::NXDOMAIN);
    let name = format!("{0}.{0}.long.corp.example.", "y".repeat(60));
    let seen = ask(&data, &name, Rtype::A, true).unwrap();
    assert_eq!((seen.rcode, seen.sections[0].len()), (Rcode::YXDOMAIN, 1));
}
