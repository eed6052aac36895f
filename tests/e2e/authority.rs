//! A local zone beside NSD with the same zone file: whoever asks without recursion gets the same from both.

use std::net::SocketAddr;
use std::process::Command;

use crate::client::{Printed, Reply, Stream, dig};
use crate::message::{self, REFUSED, query};
use crate::node::{Node, Setup};
use crate::ports::Directory;
use crate::scripted::{Scripted, Step};
use crate::upstream::Nsd;

const APEX: &str = "site.example.";

const IXFR: u16 = 251;
const AXFR: u16 = 252;

const RECORDS: &str = r#"
$TTL 300
@            3600 SOA ns hostmaster 1 7200 3600 1209600 60
@            NS    ns
@            NS    ns.sub
@            MX    10 mail
@            MX    20 mail.example.net.
@            TXT   "v=spf1 -all" "second; string"
@            CAA   0 issue "ca.example.net"
ns           A     192.0.2.53
ns           AAAA  2001:db8::53
mail         A     192.0.2.25
mail         MX    5 ns
mail         MX    6 ns.sub
www      60  A     192.0.2.1
www      60  A     192.0.2.2
www          AAAA  2001:db8::1
_http._tcp   SRV   0 0 80 www
_http._tcp   SRV   0 0 80 ns.sub
a.b.c        A     192.0.2.3
alias        CNAME hop
hop          CNAME www
dangling     CNAME nothing
toent        CNAME b.c
towild       CNAME some.name.wild
out          CNAME www.example.net.
tosub        CNAME www.sub
*.wild       A     192.0.2.99
*.wild       MX    10 mail
host.wild    TXT   "below a wildcard"
*.cwild      CNAME www
*.dead       CNAME nothing
*.b.wild     AAAA  2001:db8::99
sub          NS    ns.sub
sub          NS    ns.example.net.
sub          DS    1 13 2 0000000000000000000000000000000000000000000000000000000000000000
ns.sub       A     192.0.2.54
deep.x       NS    ns.deep.x
ns.deep.x    A     192.0.2.55
plain        NS    ns.example.net.
old          DNAME new
old          TXT   "moved"
host.new     A     192.0.2.7
al.new       CNAME host
away         DNAME example.net.
todname      CNAME host.old
unknown      TYPE65280 \# 4 0A000001
svc          HTTPS 1 . alpn=h2
"#;

/// Labels that stand before the names of the zone, to find what is below and beside them.
const PREFIXES: [&str; 5] = ["", "x.", "x.y.", "*.", "host."];

const TYPES: [&str; 14] = [
    "A",
    "AAAA",
    "NS",
    "SOA",
    "MX",
    "TXT",
    "CNAME",
    "DNAME",
    "SRV",
    "DS",
    "CAA",
    "HTTPS",
    "PTR",
    "TYPE65280",
];

/// All owners of the zone, and names beside them.
fn names() -> Vec<String> {
    let owners = RECORDS.lines().filter_map(|line| line.split_whitespace().next());
    let owners = owners.filter(|owner| !owner.starts_with('$'));
    let mut bases: Vec<String> = owners.map(str::to_owned).collect();
    bases.extend(["nothing", "c", "b.c", "x", "_tcp", "wild", "WWW", "b.wild"].map(str::to_owned));
    bases.sort_unstable();
    bases.dedup();
    let mut names = Vec::new();
    for base in bases {
        for prefix in PREFIXES {
            names.push(match base.as_str() {
                "@" => format!("{prefix}{APEX}"),
                base => format!("{prefix}{base}.{APEX}"),
            });
        }
    }
    names
}

/// Asks all `questions` with one dig.
fn ask_all(
    server: SocketAddr,
    directory: &Directory,
    questions: &[String],
    wish: &str,
) -> Vec<Reply> {
    let file = directory.write("questions", &(questions.join("\n") + "\n"));
    let mut command = Command::new("dig");
    command.arg("-r").arg(format!("@{}", server.ip())).args(["-p", &server.port().to_string()]);
    command.args(["+norecurse", "+nocookie", wish, "+time=20", "+tries=1", "-f"]).arg(file);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let replies = text.split(";; Got answer:").skip(1).map(|reply| Reply::read(reply.to_owned()));
    replies.collect()
}

/// The records of a section in an order of our own, with the case of names left out.
fn sorted(section: &[Printed]) -> Vec<String> {
    let text = |record: &Printed| {
        let Printed { owner, ttl, rtype, rdata } = record;
        format!("{owner} {ttl} {rtype} {rdata}").to_lowercase()
    };
    let mut records: Vec<String> = section.iter().map(text).collect();
    records.sort_unstable();
    records
}

/// What of an authority section both must give: NSD adds the zone's NS records to every positive answer, we do not; we tell who
/// wants DNSSEC of DS records at a cut, NSD does so in zones that are signed.
fn needed_authority(reply: &Reply) -> Vec<String> {
    let is_courtesy =
        |record: &Printed| record.owner == APEX && record.rtype == "NS" || record.rtype == "DS";
    let needed = reply.authority.iter().filter(|record| !is_courtesy(record)).cloned();
    sorted(&needed.collect::<Vec<_>>())
}

/// And of its additional section: addresses of hosts that other needed records name.
fn needed_additional(reply: &Reply) -> Vec<String> {
    let authority = reply.authority.iter().filter(|record| record.owner != APEX);
    let named: Vec<&str> =
        reply.answer.iter().chain(authority).map(|record| record.rdata.as_str()).collect();
    let is_named = |record: &Printed| named.iter().any(|rdata| rdata.ends_with(&record.owner));
    let needed = reply.additional.iter().filter(|record| is_named(record)).cloned();
    sorted(&needed.collect::<Vec<_>>())
}

/// What both do not agree on.
fn compare(questions: &[String], theirs: &[Reply], ours: &[Reply]) -> Vec<String> {
    let mut differences = Vec::new();
    for (question, (nsd, own)) in questions.iter().zip(theirs.iter().zip(ours)) {
        let expected = (
            &nsd.status,
            nsd.has("aa"),
            sorted(&nsd.answer),
            needed_authority(nsd),
            needed_additional(nsd),
        );
        let seen = (
            &own.status,
            own.has("aa"),
            sorted(&own.answer),
            needed_authority(own),
            sorted(&own.additional),
        );
        if expected != seen {
            differences.push(format!("{question}\n  NSD  {expected:?}\n  ours {seen:?}"));
        }
    }
    differences
}

/// A node with the zone in a file.
fn node(directory: &Directory, upstream: SocketAddr) -> Node {
    let path = directory.write("site.zone", RECORDS);
    let config = format!("[[local]]\nzone = '{APEX}'\nfile = '{}'", path.display());
    Setup::new().upstream(upstream).config(&config).start()
}

fn silent() -> Scripted {
    Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [198, 51, 100, 1]))]
    })
}

#[test]
fn zone_is_answered_as_an_authoritative_server_answers_it() {
    let directory = Directory::create();
    let nsd = Nsd::serving(APEX, &format!("$ORIGIN {APEX}{RECORDS}"));
    let upstream = silent();
    let node = node(&directory, upstream.address);
    let mut questions = Vec::new();
    for name in names() {
        questions.extend(TYPES.map(|qtype| format!("{name} {qtype}")));
    }
    let mut differences = Vec::new();
    for wish in ["+nodnssec", "+dnssec"] {
        let [theirs, ours] =
            [nsd.address, node.address].map(|server| ask_all(server, &directory, &questions, wish));
        assert_eq!((theirs.len(), ours.len()), (questions.len(), questions.len()));
        differences.extend(compare(&questions, &theirs, &ours));
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        questions.len(),
        differences.join("\n")
    );
    assert_eq!(upstream.asked().len(), 0, "nobody else was asked");
}

#[test]
fn names_below_a_cut_are_forwarded_when_recursion_is_wanted_and_zones_are_not_given_away() {
    let directory = Directory::create();
    let upstream = silent();
    let node = node(&directory, upstream.address);
    let below = dig(node.address, "host.sub.site.example A");
    assert_eq!((below.rdata("A"), below.has("aa")), (vec!["198.51.100.1"], false));
    assert_eq!(upstream.count("host.sub.site.example."), 1);
    let referral = dig(node.address, "+norecurse host.sub.site.example A");
    assert_eq!((referral.answer.len(), referral.authority.len()), (0, 2));
    assert!(!referral.has("aa"));
    let any = dig(node.address, "+norecurse +notcp site.example ANY");
    assert_eq!(any.rdata("HINFO"), ["\"RFC8482\" \"\""]);
    for qtype in [AXFR, IXFR] {
        let refused = Stream::connect(node.address).exchange(&query(1, "site.example", qtype));
        assert_eq!((refused.rcode(), refused.records.len()), (REFUSED, 0), "{qtype}");
    }
}
