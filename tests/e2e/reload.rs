//! The config read anew on SIGHUP: what is put in force, what stays, and that no query is lost meanwhile.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::client::{Datagrams, Stream, exchange};
use crate::message::{self, A, Message, NOERROR, NXDOMAIN, REFUSED, query};
use crate::node::{Node, Setup, allowed_cpus, eventually};
use crate::ports::Directory;
use crate::scripted::{Gate, Scripted, Step};

const GUEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// An upstream all of whose names have one address.
fn answering(last: u8) -> Scripted {
    Scripted::start(move |asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, last]))]
    })
}

fn forward(upstream: SocketAddr) -> String {
    format!("[forward]\nupstreams = '{upstream}'\n")
}

fn ask(node: &Node, qname: &str) -> Message {
    exchange(node.address, &query(7, qname, A))
}

fn ask_from(node: &Node, client: Ipv4Addr, qname: &str) -> Message {
    Datagrams::from(client, node.address).exchange(&query(7, qname, A))
}

/// The last octet of the address in a reply.
fn last(reply: &Message) -> u8 {
    *reply.records[0].rdata.last().unwrap()
}

/// A node whose upstreams stand in its config alone.
fn start(config: &str) -> Node {
    Setup::new().upstreams_elsewhere().config(config).start()
}

#[test]
fn policy_is_in_force_when_the_reload_is_over() {
    let upstream = answering(1);
    let base = forward(upstream.address);
    let node = start(&base);
    assert_eq!(last(&ask(&node, "www.local.example")), 1);
    assert_eq!(ask_from(&node, GUEST, "a.example").rcode(), NOERROR);

    let line = node.reload_with(&format!(
        "{base}[acl]\nallow = ['127.0.0.0/8']\n[[local]]\nzone = 'local.example.'\nrecords = 'www A 192.0.2.77'\n"
    ));
    assert!(line.ends_with("reload: applied acl, local"), "{line}");
    assert_eq!(last(&ask(&node, "www.local.example")), 77);

    let line = node.reload_with(&format!(
        "{base}[acl]\nallow = ['{}/32']\n[[rewrite]]\nname = 'a.example'\nto = '192.0.2.78'\n",
        node.address.ip()
    ));
    assert!(line.ends_with("reload: applied acl, local, rewrite"), "{line}");
    assert_eq!(ask_from(&node, GUEST, "a.example").rcode(), REFUSED);
    let own = match node.address.ip() {
        std::net::IpAddr::V4(own) => own,
        std::net::IpAddr::V6(_) => unreachable!("tests listen on IPv4"),
    };
    assert_eq!(last(&ask_from(&node, own, "a.example")), 78);
    // It was answered from the cache before the zone came, and is again.
    assert_eq!(last(&ask_from(&node, own, "www.local.example")), 1);

    let line = node.reload_with(&base);
    assert!(line.ends_with("reload: applied acl, rewrite"), "{line}");
    assert_eq!(last(&ask_from(&node, GUEST, "a.example")), 1);
    let line = node.reload();
    assert!(line.ends_with("reload: nothing to apply"), "{line}");
    assert_eq!(node.counters().sum("dns_config_reloads_total", "applied"), 4);
}

#[test]
fn file_beside_the_config_that_has_changed_is_read_anew() {
    let directory = Directory::create();
    let hosts = directory.write("hosts", "192.0.2.5 host.example\n");
    let zone = directory.write("zone", "www A 192.0.2.6\n");
    let config = format!(
        "[hosts]\nfiles = ['{}']\n[[local]]\nzone = 'zone.example.'\nfile = '{}'\n",
        hosts.display(),
        zone.display()
    );
    let node = Setup::new().config(&config).start();
    let told =
        |node: &Node| ["host.example", "www.zone.example"].map(|qname| last(&ask(node, qname)));
    assert_eq!(told(&node), [5, 6]);
    directory.write("hosts", "192.0.2.15 host.example\n");
    directory.write("zone", "www A 192.0.2.16\n");
    let line = node.reload();
    assert!(line.ends_with("reload: applied local, hosts"), "{line}");
    assert_eq!(told(&node), [15, 16]);
}

#[test]
fn other_upstreams_are_asked_and_what_is_in_flight_ends_with_the_old_ones() {
    let gate = Gate::default();
    let held = gate.clone();
    let first = Scripted::start(move |asked| {
        vec![Step::When(held.clone(), message::address(&asked.message, 300, [192, 0, 2, 1]))]
    });
    let second = answering(2);
    let node = start(&(forward(first.address) + "attempt_timeout = '20s'\ndeadline = '30s'\n"));
    let waiting = Datagrams::to(node.address);
    waiting.send(&query(7, "slow.example", A));
    first.wait_for("slow.example.");
    let line = node.reload_with(&forward(second.address));
    assert!(line.ends_with("reload: applied forward"), "{line}");
    assert_eq!(last(&ask(&node, "other.example")), 2);
    gate.open();
    assert_eq!(last(&waiting.receive()), 1);
    assert_eq!((first.count("other.example."), second.count("slow.example.")), (0, 0));
    let counters = node.counters();
    let label = format!("upstream=\"{}\"", second.address);
    assert!(counters.sum("dns_upstream_attempts_total", &label) >= 1);
}

#[test]
fn zone_that_goes_to_others_is_asked_for_anew_and_other_names_stay_cached() {
    let (root, corp) = (answering(1), answering(2));
    let base = forward(root.address);
    let node = start(&base);
    assert_eq!([last(&ask(&node, "a.corp.example")), last(&ask(&node, "b.example"))], [1, 1]);
    let zone = format!("[[forward]]\nzone = 'corp.example'\nupstreams = '{}'\n", corp.address);
    let line = node.reload_with(&format!("[[forward]]\nupstreams = '{}'\n{zone}", root.address));
    assert!(line.ends_with("reload: applied forward"), "{line}");
    assert_eq!([last(&ask(&node, "a.corp.example")), last(&ask(&node, "b.example"))], [2, 1]);
    assert_eq!(root.count("b.example."), 1);
    node.reload_with(&base);
    assert_eq!(last(&ask(&node, "a.corp.example")), 1);
    assert_eq!(corp.count("a.corp.example."), 1);
}

#[test]
fn protection_from_rebinding_holds_for_what_is_cached_already() {
    let private = Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 168, 0, 1]))]
    });
    let base = forward(private.address);
    let node = start(&base);
    assert_eq!(ask(&node, "evil.example").records.len(), 1);
    let line = node.reload_with(&(base + "[rebinding]\nprotect = true\n"));
    assert!(line.ends_with("reload: applied rebinding"), "{line}");
    assert!(ask(&node, "evil.example").records.iter().all(|record| record.rtype != A));
}

#[test]
fn groups_with_upstreams_of_their_own_come_change_places_and_go() {
    let (root, kids, guests) = (answering(1), answering(2), answering(3));
    let base = forward(root.address);
    let group = |name: &str, client: &str, upstream: &Scripted| {
        format!(
            "[[group]]\nname = '{name}'\nclients = '{client}'\nupstreams = '{}'\n",
            upstream.address
        )
    };
    let kids = group("kids", "127.0.0.8", &kids);
    let guests = group("guests", "127.0.0.9", &guests);
    let node = start(&base);
    let told = |node: &Node| {
        [Ipv4Addr::new(127, 0, 0, 8), GUEST, Ipv4Addr::new(127, 0, 0, 7)]
            .map(|client| last(&ask_from(node, client, "www.example")))
    };
    for (config, expected) in [
        (base.clone(), [1, 1, 1]),
        (format!("{base}{kids}{guests}"), [2, 3, 1]),
        (format!("{base}{guests}{kids}"), [2, 3, 1]),
        (format!("{base}{guests}"), [1, 3, 1]),
        (base.clone(), [1, 1, 1]),
    ] {
        node.reload_with(&config);
        assert_eq!(told(&node), expected, "{config}");
    }
}

#[test]
fn lists_come_and_go_and_each_keeps_its_own_counts() {
    let directory = Directory::create();
    let list = |name: &str| {
        let path = directory.write(name, &format!("{name}.example\n"));
        format!("[[list]]\nname = '{name}'\nfile = '{}'\nanswer = 'nxdomain'\n", path.display())
    };
    let upstream = answering(1);
    let base = forward(upstream.address);
    let (ads, games) = (list("ads"), list("games"));
    let node = start(&base);
    let blocked = |qname: &str, is_blocked: bool| {
        let expected = if is_blocked { NXDOMAIN } else { NOERROR };
        let is_so = || (ask(&node, qname).rcode() == expected).then_some(());
        eventually(&format!("{qname} is blocked: {is_blocked}"), is_so);
    };
    let hits = |list: &str| {
        node.counters()
            .sum("dns_filter_hits_total", &format!("list=\"{list}\",outcome=\"blocked\""))
    };
    let line = node.reload_with(&format!("{base}{ads}"));
    assert!(line.ends_with("reload: applied list"), "{line}");
    blocked("ads.example", true);
    let before = hits("ads");
    assert!(before >= 1);
    // What had the number 0 has the number 1 now.
    node.reload_with(&format!("{base}{games}{ads}"));
    blocked("games.example", true);
    blocked("ads.example", true);
    assert_eq!((hits("ads"), hits("games")), (before + 1, 1));
    node.reload_with(&format!("{base}{games}"));
    blocked("ads.example", false);
    blocked("games.example", true);
    node.reload_with(&base);
    blocked("games.example", false);
}

#[test]
fn limits_switches_and_the_level_of_the_log_change_while_it_runs() {
    let upstream = answering(1);
    let base = forward(upstream.address);
    let node = start(&base);
    assert_eq!(ask(&node, "a.example").records[0].ttl, 300);
    let config = format!(
        "{base}[cache]\nttl_max = 60\n[identity]\nid = 'here'\n[rate]\nqueries_per_second = 1\nburst = 1\nallow = []\nslip = 1\n\
         [tcp]\nidle_timeout = '100ms'\n[log]\nlevel = 'warn'\n[optimizations]\nsimd = false\n"
    );
    node.reconfigure(&config);
    node.signal("HUP");
    eventually("the limit", || ask(&node, "a.example").is_truncated().then_some(()));
    node.reconfigure(&format!("{base}[cache]\nttl_max = 60\n[tcp]\nidle_timeout = '100ms'\n"));
    let line = node.reload();
    assert!(line.ends_with("reload: applied rate, identity, optimizations, log"), "{line}");
    assert_eq!(ask(&node, "fresh.example").records[0].ttl, 60);
    let mut stream = Stream::connect(node.address);
    assert_eq!(stream.exchange(&query(7, "a.example", A)).rcode(), NOERROR);
    assert!(stream.receive().is_none(), "it is closed as idle, long before the default of 10 s");
}

#[test]
fn mistake_changes_nothing_and_is_told_as_at_a_start() {
    let upstream = answering(1);
    let base = forward(upstream.address);
    let node = start(&base);
    for (config, problem) in [
        (
            format!("{base}[acl]\nallow = []\n[cache]\nttl_max = 0\n"),
            "node.toml:6: cache.ttl_max = 0: expected ",
        ),
        (format!("{base}[acl]\nallow = []\n["), "node.toml:5: "),
        (
            format!(
                "{base}[acl]\nallow = []\n[[local]]\nzone = 'a.example.'\nrecords = 'nonsense'\n"
            ),
            "node.toml:7",
        ),
        (
            format!("{base}[acl]\nallow = []\n[hosts]\nfiles = ['/nowhere/hosts']\n"),
            "hosts.files: /nowhere/hosts: ",
        ),
        (
            format!("[forward]\nupstreams = '{}'\n[acl]\nallow = []\n", node.address),
            "is this node itself",
        ),
    ] {
        let line = node.reload_with(&config);
        assert!(line.contains("reload refused, nothing has changed: "), "{line}");
        assert!(line.contains(problem), "{line}");
        assert_eq!(ask(&node, "a.example").rcode(), NOERROR, "{config}");
    }
    assert_eq!(node.counters().sum("dns_config_reloads_total", "refused"), 5);
    let line = node.reload_with(&format!("{base}[acl]\nallow = []\n"));
    assert!(line.ends_with("reload: applied acl"), "{line}");
    assert_eq!(ask(&node, "a.example").rcode(), REFUSED);
}

#[test]
fn what_needs_a_restart_is_named_with_both_values_and_the_rest_applied() {
    let node = Setup::new().config("").start();
    let line = node.reload_with(
        "[node]\ndrain = '3s'\n[cache]\nsize = '64MiB'\nttl_max = 60\n[tcp]\nconnections_max = 7\n[forward]\nsockets = 9\n",
    );
    assert!(line.ends_with("reload: applied cache"), "{line}");
    for warning in [
        "node.drain = 3s takes effect at the next start; 2s stays in force",
        "cache.size = 67108864 bytes takes effect at the next start; \"auto\" stays in force",
        "tcp.connections_max = 7 takes effect at the next start; 1024 stays in force",
        "forward.sockets = 9 takes effect at the next start; 128 stays in force",
    ] {
        let line = node.wait_for_line(warning);
        assert!(line.contains("WARN"), "{line}");
    }
}

#[test]
fn flags_and_variables_win_over_the_file_at_a_reload_as_at_the_start() {
    let (flagged, written) = (answering(1), answering(2));
    let setup = Setup::new().upstream(flagged.address).environment("HEIMDALL_CACHE_TTL_MAX", "60");
    let node = setup.start();
    let line = node.reload_with(&format!(
        "[node]\nlisten = '127.0.0.1:1'\n[cache]\nttl_max = 7\nttl_min = 5\n{}",
        forward(written.address)
    ));
    assert!(line.ends_with("reload: applied cache"), "{line}");
    let reply = ask(&node, "a.example");
    assert_eq!((last(&reply), reply.records[0].ttl), (1, 60));
    assert!(!node.log().contains("takes effect at the next start"), "{}", node.log());
}

#[test]
fn reloads_asked_for_in_a_row_find_the_last_config() {
    let node = Setup::new().config("").start();
    let local = |last: u8| {
        format!("[[local]]\nzone = 'local.example.'\nrecords = 'www A 192.0.2.{last}'\n")
    };
    for last in 1..=50 {
        node.reconfigure(&local(last));
        node.signal("HUP");
    }
    eventually("the last config", || {
        let reply = ask(&node, "www.local.example");
        (reply.records.first().and_then(|record| record.rdata.last()) == Some(&50)).then_some(())
    });
}

/// Two configs that differ in everything that is asked below, and what a client is told by each.
struct Alternating {
    configs: [String; 2],
    _upstreams: [Scripted; 3],
    _directory: Directory,
}

impl Alternating {
    fn new() -> Self {
        let upstreams = [1, 2, 3].map(answering);
        let directory = Directory::create();
        let list = |name: &str, blocked: &str| {
            let path = directory.write(name, &format!("{blocked}\n"));
            format!("[[list]]\nname = '{name}'\nfile = '{}'\nanswer = 'nxdomain'\n", path.display())
        };
        let lists = [list("even", "even.list.example"), list("odd", "odd.list.example")];
        let config = |turn: usize| {
            let forward = forward(upstreams[turn].address);
            let acl = ["['127.0.0.0/8']", "['127.64.0.0/10', '127.0.0.1', '127.0.0.8']"][turn];
            let local = 100 + turn;
            let group = format!(
                "[[group]]\nname = 'kids'\nclients = '127.0.0.8'\nupstreams = '{}'\n",
                upstreams[2 - 2 * turn].address
            );
            format!(
                "{forward}[acl]\nallow = {acl}\n[[local]]\nzone = 'local.example.'\nrecords = 'www A 192.0.2.{local}'\n{}{group}",
                lists[turn]
            )
        };
        let configs = [config(0), config(1)];
        Self { configs, _upstreams: upstreams, _directory: directory }
    }

    /// Waits until everything of one turn is in force.
    fn is_in_force(node: &Node, turn: usize, round: usize) {
        assert_eq!(usize::from(last(&ask(node, "www.local.example"))), 100 + turn);
        let expected = [NOERROR, REFUSED][turn];
        assert_eq!(ask_from(node, GUEST, "www.local.example").rcode(), expected);
        assert_eq!(usize::from(last(&ask(node, &format!("fresh{round}.example")))), 1 + turn);
        let kid = ask_from(node, Ipv4Addr::new(127, 0, 0, 8), &format!("kid{round}.example"));
        assert_eq!(usize::from(last(&kid)), 3 - 2 * turn);
        let [blocked, free] = [["even", "odd"], ["odd", "even"]][turn];
        let rcode = |name: &str| ask(node, &format!("{name}.list.example")).rcode();
        eventually("the list", || (rcode(blocked) == NXDOMAIN).then_some(()));
        assert_eq!(rcode(free), NOERROR);
    }
}

/// Asks one question after the other until told to stop; gives how many, each of which got its reply.
fn load(node: SocketAddr, client: Ipv4Addr, number: usize, is_over: &AtomicBool) -> u64 {
    let socket = Datagrams::from(client, node);
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        let id = (count % 60_000) as u16;
        // One of four is in no cache.
        let qname = match count % 4 {
            0 => format!("n{count}.t{number}.example"),
            1 => "www.local.example".to_owned(),
            2 => "even.list.example".to_owned(),
            _ => "hot.example".to_owned(),
        };
        let reply = socket.exchange(&query(id, &qname, A));
        assert_eq!(reply.id, id, "a reply to each question, before the next is asked");
        assert!([NOERROR, NXDOMAIN].contains(&reply.rcode()), "{qname}: {}", reply.rcode());
        count += 1;
    }
    count
}

#[test]
fn no_query_is_lost_while_configs_alternate_under_load() {
    const ROUNDS: usize = 20;
    let alternating = Alternating::new();
    let cpus: Vec<String> = allowed_cpus().iter().take(2).map(ToString::to_string).collect();
    let setup = Setup::new().upstreams_elsewhere().cores(&cpus.join(","));
    let node = setup.config(&alternating.configs[0]).start();
    let (is_over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..3_usize {
            let client = Ipv4Addr::new(127, 0, 0, [1, 8, 1][number]);
            let (is_over, asked, address) = (&is_over, &asked, node.address);
            scope.spawn(move || {
                asked.fetch_add(load(address, client, number, is_over), Ordering::Relaxed);
            });
        }
        for round in 0..ROUNDS {
            let turn = (round + 1) % 2;
            let line = node.reload_with(&alternating.configs[turn]);
            assert!(line.contains("reload: applied acl, forward, local, list, group"), "{line}");
            Alternating::is_in_force(&node, turn, round);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked > ROUNDS as u64, "{asked} questions");
    let reloads = node.counters().sum("dns_config_reloads_total", "applied");
    assert_eq!(reloads, ROUNDS as u64);
}

#[test]
fn nobody_joins_a_question_of_a_view_that_means_others_now() {
    let gate = Gate::default();
    let held = gate.clone();
    let slow = Scripted::start(move |asked| {
        vec![Step::When(held.clone(), message::address(&asked.message, 300, [192, 0, 2, 2]))]
    });
    let (root, quick) = (answering(1), answering(3));
    let patient = "attempt_timeout = '20s'\ndeadline = '30s'\n";
    let config = |upstream: &Scripted| {
        format!(
            "{}{patient}[[group]]\nname = 'guests'\nclients = '{GUEST}'\nupstreams = '{}'\n",
            forward(root.address),
            upstream.address
        )
    };
    let node = start(&config(&slow));
    let waiting = Datagrams::from(GUEST, node.address);
    waiting.send(&query(7, "www.example", A));
    slow.wait_for("www.example.");
    let line = node.reload_with(&config(&quick));
    assert!(line.ends_with("reload: applied group"), "{line}");
    assert_eq!(last(&ask_from(&node, GUEST, "www.example")), 3);
    gate.open();
    assert_eq!(last(&waiting.receive()), 2);
    // What came from those of before was not kept.
    assert_eq!(last(&ask_from(&node, GUEST, "www.example")), 3);
}
