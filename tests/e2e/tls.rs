//! Upstreams over TLS, and over TCP that stays open: who is asked and who is not, and that nothing is lost with a
//! connection.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::certificates::{Authority, Certified, NAME};
use crate::client::{Datagrams, dig, exchange};
use crate::dot::{Conduct, Dot};
use crate::message::{self, A, Message, NOERROR, SERVFAIL, query, query_with};
use crate::node::{Counters, Node, Setup, eventually};
use crate::ports::{self, Directory};
use crate::process::rejects;
use crate::scripted::{Scripted, Step};
use crate::upstream::Unbound;

const NO_REACHABLE_AUTHORITY: u16 = 22;
const TCP_KEEPALIVE: u16 = 11;
const PADDING: u16 = 12;
const OPENED: &str = "dns_upstream_connections_opened_total";
const OVER_TLS: &str = "transport=\"tls\"";

/// Those who start together ask at most this many questions at a time, so that a datagram's way has room for all.
const AT_A_TIME: u16 = 100;

fn named(server: &Dot) -> String {
    format!("tls://{}#{NAME}", server.address)
}

fn pinned(server: &Dot, pin: &str) -> String {
    format!("tls://{}?pin={pin}", server.address)
}

/// Asks with EDNS, so that extended errors can be told.
fn ask(node: &Node, qname: &str) -> Message {
    exchange(node.address, &query_with(5, qname, A, &[message::opt(1232, 0, 0, &[])]))
}

/// Asks for `count` names that nobody has asked for, many at a time; all are answered.
fn ask_many(node: &Node, label: &str, count: u16) {
    let socket = Datagrams::to(node.address);
    for begin in (0..count).step_by(AT_A_TIME.into()) {
        let ids = begin..count.min(begin + AT_A_TIME);
        for id in ids.clone() {
            socket.send(&query(id, &format!("{label}{id}.test"), A));
        }
        for _ in ids {
            let reply = socket.receive();
            assert_eq!((reply.rcode(), reply.counts[1]), (NOERROR, 1), "{}", reply.qname);
        }
    }
}

fn over_tls(counters: &Counters, name: &str) -> u64 {
    counters.sum(name, OVER_TLS)
}

#[test]
fn upstream_with_the_right_certificate_answers() {
    let authority = Authority::create();
    let address = ports::own();
    let right = authority.certify(&[NAME, &address.ip().to_string()]);
    let server = Dot::start_at(address, &right, Conduct::default());
    let foreign = Authority::create();
    let by_root = authority.config();
    for (upstream, config) in [
        (named(&server), by_root.clone()),
        (format!("tls://{address}#{}", NAME.to_uppercase()), by_root.clone()),
        (format!("tls://{address}"), by_root),
        // Neither needs a root that vouches for it.
        (pinned(&server, &right.pin()), foreign.config()),
        (pinned(&server, &right.pin()), String::new()),
        (format!("tls://{address}?opportunistic"), foreign.config()),
    ] {
        let before = server.count();
        let node = Setup::new().upstream(&upstream).config(&config).start();
        assert_eq!(dig(node.address, "www.test A").rdata("A"), ["192.0.2.1"], "{upstream}");
        assert_eq!(server.count(), before + 1, "{upstream}");
        assert_eq!(over_tls(&node.counters(), OPENED), 1, "{upstream}");
    }
}

/// Someone with a wrong certificate gets no query, and the operator hears why.
fn refuses(certified: &Certified, query_part: &str, config: &str, cause: &str) {
    let server = Dot::start(certified);
    let upstream = format!("tls://{}{query_part}", server.address);
    let node = Setup::new().upstream(&upstream).config(config).start();
    for qname in ["a.test", "b.test"] {
        let reply = ask(&node, qname);
        assert_eq!(reply.rcode(), SERVFAIL, "{upstream} {cause}");
        assert_eq!(reply.extended_error(), Some(NO_REACHABLE_AUTHORITY), "{upstream} {cause}");
    }
    let line = node.wait_for_line("certificate refused");
    let told = upstream.split('?').next().unwrap();
    assert!(line.contains(told) && line.contains(cause), "no `{told}` and `{cause}` in: {line}");
    let counters = node.counters();
    assert!(counters.sum("dns_upstream_handshakes_failed_total", "cause=\"certificate\"") >= 1);
    assert_eq!(over_tls(&counters, OPENED), 0);
    assert!(server.accepted() >= 1, "nobody was there");
    assert_eq!(server.count(), 0, "{upstream} {cause}");
}

#[test]
fn upstream_with_a_wrong_certificate_gets_no_query() {
    let (authority, stranger) = (Authority::create(), Authority::called("stranger"));
    let namesake = Authority::create();
    let config = authority.config();
    let by_name = format!("#{NAME}");
    refuses(&authority.certify(&["other.example"]), &by_name, &config, "not valid for name");
    refuses(&authority.certify(&[NAME]), "", &config, "not valid for name");
    refuses(&authority.certify(&["192.0.2.1"]), "", &config, "not valid for name");
    refuses(&stranger.certify(&[NAME]), &by_name, &config, "no root that is trusted");
    refuses(&namesake.certify(&[NAME]), &by_name, &config, "none of the roots that are trusted");
    refuses(&authority.certify_formerly(&[NAME]), &by_name, &config, "expired");
}

#[test]
fn upstream_with_another_key_than_the_pinned_gets_no_query() {
    let authority = Authority::create();
    let (right, other) = (authority.certify(&[NAME]), authority.certify(&[NAME]));
    let part = format!("?pin={}#{NAME}", right.pin());
    let server = Dot::start(&other);
    let upstream = format!("tls://{}{part}", server.address);
    let node = Setup::new().upstream(upstream).config(&authority.config()).start();
    assert_eq!(ask(&node, "a.test").extended_error(), Some(NO_REACHABLE_AUTHORITY));
    let line = node.wait_for_line("its key is none of those pinned");
    assert!(line.contains(&format!("tls://{}?pin=", server.address)), "{line}");
    assert_eq!(server.count(), 0);
}

#[test]
fn impostor_beside_a_sound_upstream_costs_no_client_its_answer() {
    let (authority, stranger) = (Authority::create(), Authority::create());
    for policy in ["fastest", "ordered", "round-robin"] {
        let impostor = Dot::start(&stranger.certify(&[NAME]));
        let sound = Dot::start(&authority.certify(&[NAME]));
        let config = format!("{}\npolicy = \"{policy}\"", authority.config());
        let setup = Setup::new().upstream(named(&impostor)).upstream(named(&sound));
        let node = setup.config(&config).start();
        ask_many(&node, "name", 200);
        assert_eq!(impostor.count(), 0, "{policy}");
        assert!(sound.count() >= 200, "{policy}");
    }
}

#[test]
fn hundreds_of_queries_share_one_connection_and_all_are_padded() {
    let authority = Authority::create();
    let server = Dot::start(&authority.certify(&[NAME]));
    let node = Setup::new().upstream(named(&server)).config(&authority.config()).start();
    ask_many(&node, "a", 500);
    // And one that is too long for the first block.
    let long = format!("{0}.{0}.test", "x".repeat(60));
    assert_eq!(ask(&node, &long).rcode(), NOERROR);
    assert_eq!(server.accepted(), 1);
    let queries = server.queries();
    assert_eq!(queries.len(), 501);
    for bytes in &queries {
        let asked = Message::parse(bytes);
        assert_eq!(bytes.len() % 128, 0, "{}", asked.qname);
        assert!(asked.option(PADDING).is_some_and(|zeros| zeros.iter().all(|&octet| octet == 0)));
        assert_eq!(asked.option(TCP_KEEPALIVE), Some(&[][..]));
    }
    assert_eq!(queries.last().unwrap().len(), 256);
    let counters = node.counters();
    assert_eq!(over_tls(&counters, "dns_upstream_queries_total"), 501);
    assert_eq!(over_tls(&counters, "dns_upstream_queries_reusing_total"), 500);
    assert_eq!(over_tls(&counters, OPENED), 1);
    assert_eq!(over_tls(&counters, "dns_upstream_stream_queries_total"), 501);
    assert_eq!(over_tls(&counters, "dns_upstream_stream_queries_reusing_total"), 500);
    assert_eq!(over_tls(&counters, "dns_upstream_streams_opened_total"), 1);
    assert_eq!(counters.sum("dns_upstream_queries_total", "transport=\"udp\""), 0);
}

#[test]
fn tcp_upstream_gets_no_datagram_and_one_connection() {
    let answering = || {
        Scripted::start(|it| vec![Step::Reply(message::address(&it.message, 300, [192, 0, 2, 1]))])
    };
    let (over_tcp, over_udp) = (answering(), answering());
    let node = Setup::new().upstream(format!("tcp://{}", over_tcp.address)).start();
    ask_many(&node, "a", 300);
    let asked = over_tcp.asked();
    assert_eq!(asked.len(), 300);
    assert!(asked.iter().all(|asked| asked.is_tcp && asked.from == asked_first(&over_tcp)));
    for asked in &asked {
        let asked = Message::parse(&asked.message);
        assert_eq!((asked.option(TCP_KEEPALIVE), asked.option(PADDING)), (Some(&[][..]), None));
    }
    let node = Setup::new().upstream(over_udp.address).start();
    ask_many(&node, "a", 100);
    for asked in over_udp.asked() {
        assert!(!asked.is_tcp);
        let asked = Message::parse(&asked.message);
        assert_eq!((asked.option(TCP_KEEPALIVE), asked.option(PADDING)), (None, None));
    }
}

fn asked_first(server: &Scripted) -> std::net::SocketAddr {
    server.asked()[0].from
}

#[test]
fn session_is_taken_up_again_after_the_server_has_closed() {
    let authority = Authority::create();
    let conduct = Conduct { idle: Some(Duration::from_millis(30)), ..Conduct::default() };
    let server = Dot::start_at(ports::own(), &authority.certify(&[NAME]), conduct);
    let node = Setup::new().upstream(named(&server)).config(&authority.config()).start();
    for number in 0..5 {
        // Some of them meet the end of the connection halfway.
        assert_eq!(ask(&node, &format!("n{number}.test")).rcode(), NOERROR);
        eventually("the end", || (server.ended() > number).then_some(()));
    }
    let counters = node.counters();
    let opened = over_tls(&counters, OPENED);
    assert!(opened >= 5, "{opened}");
    assert_eq!(counters.sum("dns_upstream_handshakes_resumed_total", ""), opened - 1);
}

#[test]
fn query_on_a_connection_that_is_just_being_closed_is_sent_again() {
    let authority = Authority::create();
    let idle = Duration::from_millis(20);
    let conduct = Conduct { idle: Some(idle), ..Conduct::default() };
    let server = Dot::start_at(ports::own(), &authority.certify(&[NAME]), conduct);
    let node = Setup::new().upstream(named(&server)).config(&authority.config()).start();
    for number in 0..60 {
        assert_eq!(ask(&node, &format!("n{number}.test")).rcode(), NOERROR, "{number}");
        // About when the server closes, a little earlier or later.
        std::thread::sleep(idle + Duration::from_micros(number % 20 * 1_000));
    }
    assert!(server.accepted() > 1);
}

#[test]
fn reset_in_the_middle_loses_no_query() {
    let authority = Authority::create();
    let conduct = Conduct { reset_after: Some(40), resets: 1, ..Conduct::default() };
    let server = Dot::start_at(ports::own(), &authority.certify(&[NAME]), conduct);
    let node = Setup::new().upstream(named(&server)).config(&authority.config()).start();
    // The connection carries an answer before the others come: its server is known to work.
    assert_eq!(ask(&node, "first.test").rcode(), NOERROR);
    ask_many(&node, "a", 400);
    let counters = node.counters();
    assert_eq!((server.accepted(), over_tls(&counters, OPENED)), (2, 2));
    assert!(over_tls(&counters, "dns_upstream_queries_resent_total") >= 1);
}

#[test]
fn only_upstream_that_resets_each_connection_after_one_answer_answers_all() {
    let authority = Authority::create();
    let conduct = Conduct { reset_after: Some(1), resets: usize::MAX, ..Conduct::default() };
    let server = Dot::start_at(ports::own(), &authority.certify(&[NAME]), conduct);
    let node = Setup::new().upstream(named(&server)).config(&authority.config()).start();
    ask_many(&node, "a", 100);
    assert!(server.accepted() >= 100);
}

#[test]
fn upstream_that_resets_every_connection_costs_no_client_its_answer() {
    let authority = Authority::create();
    let certified = authority.certify(&[NAME]);
    let conduct = Conduct { reset_after: Some(25), resets: usize::MAX, ..Conduct::default() };
    let broken = Dot::start_at(ports::own(), &certified, conduct);
    let sound = Dot::start(&certified);
    let config = format!("{}\npolicy = \"round-robin\"", authority.config());
    let setup = Setup::new().upstream(named(&broken)).upstream(named(&sound));
    let node = setup.config(&config).start();
    ask_many(&node, "a", 600);
    assert!(broken.accepted() > 1, "it was asked once only");
}

/// What clients have seen who ask without a pause.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    answered: AtomicUsize,
    failed: AtomicUsize,
}

impl Load {
    /// One client among several, with names of its own.
    fn run(&self, node: &Node, client: usize) {
        let socket = Datagrams::to(node.address);
        let mut number = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            let reply = socket.exchange(&query(7, &format!("n{number}.c{client}.test"), A));
            let is_good = reply.rcode() == NOERROR && reply.counts[1] == 1;
            let count = if is_good { &self.answered } else { &self.failed };
            count.fetch_add(1, Ordering::Relaxed);
            number += 1;
        }
    }
}

#[test]
fn upstreams_restarted_in_turn_under_load_cost_no_client_its_answer() {
    let authority = Authority::create();
    let certified = authority.certify(&[NAME]);
    let mut servers = [Dot::start(&certified), Dot::start(&certified)];
    let setup = Setup::new().upstream(named(&servers[0])).upstream(named(&servers[1]));
    let node = setup.config(&authority.config()).start();
    let load = Load::default();
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (load, node) = (&load, &node);
            scope.spawn(move || load.run(node, client));
        }
        for restarted in [0, 1, 0, 1] {
            let busy = |server: &Dot| {
                let enough = server.count() + 50;
                eventually("queries", || (server.count() >= enough).then_some(()));
            };
            busy(&servers[restarted]);
            servers[restarted].stop();
            busy(&servers[1 - restarted]);
            servers[restarted].resume();
            // The other goes only when this one is asked again.
            busy(&servers[restarted]);
        }
        load.is_over.store(true, Ordering::Relaxed);
    });
    let counts = [&load.failed, &load.answered].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts[0], 0, "of {}", counts[1]);
    assert!(counts[1] > 400);
}

#[test]
fn roots_and_names_that_are_none_are_refused_at_start_and_by_the_check() {
    let directory = Directory::create();
    let path = directory.path().join("roots.pem");
    let config = format!("[forward]\ntls_roots = \"{}\"", path.display());
    let strict = || Setup::new().upstream("tls://192.0.2.1#dns.example").config(&config);
    let place = path.to_str().unwrap();
    let refused = |must_say: &[&str]| {
        rejects(strict(), must_say);
        rejects(strict().argument("--check"), must_say);
    };
    refused(&[place, "No such file", "expected certificates of roots in PEM"]);
    for (content, cause) in [
        ("", "no certificate in it"),
        ("no certificate\n", "no certificate in it"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "certificate 1 is no root",
        ),
    ] {
        std::fs::write(&path, content).unwrap();
        refused(&[place, cause, "expected certificates of roots in PEM"]);
    }
    let unnamed = || Setup::new().upstream("tls://192.0.2.1#-.example");
    let must_say = ["tls://192.0.2.1:853#-.example", "expected a host name such as"];
    rejects(unnamed(), &must_say);
    rejects(unnamed().argument("--check"), &must_say);
    rejects(Setup::new().upstream("tls://192.0.2.1?pin=AAAA"), &["--upstream", "pin=AAAA"]);
    // Who needs no root does not miss the file.
    let pinned = format!("tls://192.0.2.1?pin={}", Authority::create().certify(&[NAME]).pin());
    let plan = Setup::new().upstream(&pinned).config(&config).argument("--check").printed();
    assert!(plan.contains("config is good"), "{plan}");
}

#[test]
fn real_server_is_asked_over_tls() {
    let authority = Authority::create();
    let certified = authority.certify(&[NAME]);
    let unbound = Unbound::start(&authority.files(&certified));
    let upstream = format!("tls://{}#{NAME}", unbound.address);
    let node = Setup::new().upstream(upstream).config(&authority.config()).start();
    assert_eq!(dig(node.address, "www.example.test A").rdata("A"), ["192.0.2.1"]);
    assert_eq!(dig(node.address, "no.example.test A").status, "NXDOMAIN");
    assert_eq!(dig(node.address, "+tcp big.example.test TXT").rdata("TXT").len(), 30);
    for number in 0..100 {
        assert_eq!(ask(&node, &format!("n{number}.wild.test")).rcode(), NOERROR);
    }
    let counters = node.counters();
    assert_eq!(over_tls(&counters, "dns_upstream_queries_total"), 103);
    assert_eq!(over_tls(&counters, OPENED), 1);
}
