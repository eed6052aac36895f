//! Groups of clients with upstreams of their own: who is asked for whom, and that what these say is told to nobody else.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::{Datagrams, Stream, exchange};
use crate::message::{self, A, Message, NOERROR, NXDOMAIN, SERVFAIL, query};
use crate::node::{Clock, Node, Setup, eventually};
use crate::ports::{self, Directory};
use crate::scripted::{Gate, Scripted, Step};

/// Clients: of no group, of one, and of another.
const NOBODYS: Ipv4Addr = Ipv4Addr::LOCALHOST;
const KIDS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const GUESTS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

fn answering(last: u8) -> Scripted {
    Scripted::start(move |asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, last]))]
    })
}

/// Says that nothing exists.
fn denying() -> Scripted {
    Scripted::start(|asked| {
        let soa = message::soa("example", 300, 300);
        vec![Step::Reply(message::response(&asked.message, NXDOMAIN, &[], &[soa]))]
    })
}

/// A group of one client with an upstream of its own.
fn group(name: &str, client: Ipv4Addr, upstream: SocketAddr) -> String {
    format!("[[group]]\nname = '{name}'\nclients = '{client}'\nupstreams = '{upstream}'\n")
}

fn ask(node: &Node, client: Ipv4Addr, qname: &str) -> Message {
    Datagrams::from(client, node.address).exchange(&query(7, qname, A))
}

/// The last octet of the address that a client is told.
fn told(node: &Node, client: Ipv4Addr, qname: &str) -> u8 {
    *ask(node, client, qname).records[0].rdata.last().unwrap()
}

#[test]
fn client_is_told_what_the_upstreams_of_its_group_say() {
    let (root, kids, guests) = (answering(1), answering(2), answering(3));
    let config = group("kids", KIDS, kids.address) + &group("guests", GUESTS, guests.address);
    let node = Setup::new().upstream(root.address).config(&config).start();
    // The second time from the cache.
    for _ in 0..2 {
        for (client, last) in [(KIDS, 2), (NOBODYS, 1), (GUESTS, 3)] {
            assert_eq!(told(&node, client, "www.example"), last, "{client}");
        }
    }
    for upstream in [&root, &kids, &guests] {
        assert_eq!(upstream.count("www.example."), 1);
    }
}

#[test]
fn groups_with_the_same_upstreams_share_answers_and_others_do_not() {
    let (root, both) = (answering(1), answering(2));
    let config = group("kids", KIDS, both.address) + &group("guests", GUESTS, both.address);
    let node = Setup::new().upstream(root.address).config(&config).start();
    assert_eq!([told(&node, KIDS, "a.example"), told(&node, GUESTS, "a.example")], [2, 2]);
    assert_eq!(both.count("a.example."), 1);
    assert_eq!(told(&node, NOBODYS, "a.example"), 1);
}

#[test]
fn zone_with_upstreams_of_its_own_holds_for_every_group() {
    let (root, kids, corp) = (answering(1), answering(2), answering(3));
    let zone = format!("[[forward]]\nzone = 'corp.example'\nupstreams = '{}'\n", corp.address);
    let config = zone + &group("kids", KIDS, kids.address);
    let node = Setup::new().upstream(root.address).config(&config).start();
    for client in [KIDS, NOBODYS] {
        assert_eq!(told(&node, client, "host.corp.example"), 3, "{client}");
    }
    assert_eq!(told(&node, KIDS, "www.example"), 2);
}

#[test]
fn listener_says_whose_a_client_is_too() {
    for backend in ["uring", "mmsg"] {
        let (root, guests) = (answering(1), answering(2));
        let listen = [ports::own(), ports::own()];
        let config = format!(
            "[[group]]\nname = 'guests'\nlisteners = '{}'\nupstreams = '{}'\n",
            listen[1], guests.address
        );
        let setup = Setup::new().listen(listen[0]).listen(listen[1]).upstream(root.address);
        let _node = setup.config(&config).argument("--io").argument(backend).start();
        for (listener, last) in [(listen[1], 2), (listen[0], 1), (listen[1], 2)] {
            let reply = exchange(listener, &query(7, "www.example", A));
            assert_eq!(reply.records[0].rdata, [192, 0, 2, last], "{backend}");
            let mut stream = Stream::connect(listener);
            stream.send(&query(7, "www.example", A));
            assert_eq!(stream.receive().unwrap().records[0].rdata, [192, 0, 2, last], "{backend}");
        }
    }
}

#[test]
fn denials_and_failures_of_one_group_are_not_those_of_others() {
    let (root, kids) = (answering(1), denying());
    let silent = ports::own();
    let config = group("kids", KIDS, kids.address) + &group("guests", GUESTS, silent);
    let node = Setup::new().upstream(root.address).config(&config).start();
    let rcodes = |qname| [KIDS, GUESTS, NOBODYS].map(|client| ask(&node, client, qname).rcode());
    assert_eq!(rcodes("example"), [NXDOMAIN, SERVFAIL, NOERROR]);
    // What does not exist has nothing below it, for those to whom that was said.
    assert_eq!(rcodes("www.example"), [NXDOMAIN, SERVFAIL, NOERROR]);
    assert_eq!(kids.count("www.example."), 0);
    assert_eq!(rcodes("example"), [NXDOMAIN, SERVFAIL, NOERROR]);
}

#[test]
fn answers_in_flight_are_not_shared_between_groups() {
    let gate = Gate::default();
    let held = |last| {
        let gate = gate.clone();
        Scripted::start(move |asked| {
            vec![Step::When(gate.clone(), message::address(&asked.message, 300, [192, 0, 2, last]))]
        })
    };
    let (root, kids) = (held(1), held(2));
    let config = group("kids", KIDS, kids.address);
    let node = Setup::new().upstream(root.address).config(&config).start();
    let clients = [KIDS, NOBODYS, KIDS].map(|client| Datagrams::from(client, node.address));
    clients.iter().for_each(|client| client.send(&query(7, "www.example", A)));
    node.wait_for_count("dns_coalesced_total", 1);
    gate.open();
    let lasts = clients.map(|client| client.receive().records[0].rdata[3]);
    assert_eq!(lasts, [2, 1, 2]);
    assert_eq!((root.count("www.example."), kids.count("www.example.")), (1, 1));
}

#[test]
fn stale_answer_of_another_group_is_no_answer() {
    let clock = Clock::new();
    let root = answering(1);
    let config = group("kids", KIDS, ports::own());
    let setup = Setup::new().upstream(root.address).config(&config);
    let node = setup.environment("DNS_TEST_CLOCK", &clock.path()).start();
    assert_eq!(told(&node, NOBODYS, "www.example"), 1);
    clock.set(400);
    assert_eq!(ask(&node, KIDS, "www.example").rcode(), SERVFAIL);
}

#[test]
fn snapshot_keeps_what_the_upstreams_of_forward_said() {
    let directory = Directory::create();
    let snapshot = directory.path().join("cache");
    let (root, kids) = (answering(1), answering(2));
    let config = format!(
        "[cache]\nsnapshot = '{}'\nsnapshot_interval = '0s'\n{}",
        snapshot.display(),
        group("kids", KIDS, kids.address)
    );
    let start = || Setup::new().upstream(root.address).config(&config).start();
    let mut node = start();
    assert_eq!([told(&node, NOBODYS, "www.example"), told(&node, KIDS, "www.example")], [1, 2]);
    // A snapshot holds what was stored before its millisecond; the last answer may have come in this one.
    std::thread::sleep(Duration::from_millis(5));
    node.signal("TERM");
    assert!(node.wait_for_exit().success());
    let node = start();
    assert_eq!([told(&node, NOBODYS, "www.example"), told(&node, KIDS, "www.example")], [1, 2]);
    assert_eq!((root.count("www.example."), kids.count("www.example.")), (1, 2));
}

#[test]
fn check_tells_the_groups_and_what_is_wrong_with_them() {
    let listen = ports::own();
    let config = group("kids", KIDS, "192.0.2.53:53".parse().unwrap());
    let printed = Setup::new().listen(listen).config(&config).argument("--check").printed();
    assert!(printed.contains("default: all others; all lists\n"), "{printed}");
    let line = "kids: 127.0.0.2/32; all lists; asks 192.0.2.53:53; fastest, 800ms per attempt\n";
    assert!(printed.contains(line), "{printed}");
    let wrong = "[[group]]\nname = 'guests'\nlisteners = '127.0.0.1:54'\n";
    let mut node = Setup::new().listen(listen).config(wrong).spawn();
    assert_eq!(node.wait_for_exit().code(), Some(2));
    let log = node.log();
    assert!(log.contains("node.toml:1: unknown listener of a group"), "{log}");
    assert!(
        log.contains("\"127.0.0.1:54\"") && log.contains(&format!("allowed: {listen}")),
        "{log}"
    );
}

/// How far the clock is to be moved for a time of day in UTC, within the next 24 hours.
fn offset_to(hour: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    (hour * 3_600 - now).rem_euclid(24 * 3_600)
}

#[test]
fn list_counts_for_a_group_while_the_clock_says_so() {
    let directory = Directory::create();
    let list = directory.write("games", "game.example\n");
    let clock = Clock::new();
    clock.set(offset_to(7));
    let root = answering(1);
    // It is two hours later there than in UTC.
    let config = format!(
        "[[list]]\nname = 'games'\nfile = '{}'\n\
         [[group]]\nname = 'default'\nlists = []\n\
         [[group]]\nname = 'kids'\nclients = '{KIDS}'\n\
         [[group.schedule]]\nlists = ['games']\nhours = '10:00-18:00'\n",
        list.display()
    );
    let setup = Setup::new().upstream(root.address).config(&config);
    let node =
        setup.environment("DNS_TEST_CLOCK", &clock.path()).environment("TZ", "LOC-2").start();
    assert_eq!(told(&node, KIDS, "game.example"), 1, "nine o'clock");
    for (hour, last) in [(11, 0), (17, 1), (9, 0)] {
        clock.set(offset_to(hour));
        eventually("other lists counting", || {
            (told(&node, KIDS, "game.example") == last).then_some(())
        });
        assert_eq!(told(&node, NOBODYS, "game.example"), 1);
        assert_eq!(told(&node, KIDS, "other.example"), 1);
    }
}
