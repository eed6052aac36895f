//! Which core gets a datagram, by real packets: each way on two workers, changed while the node serves, and what becomes of a name
//! that is too hot for one core.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::Datagrams;
use crate::message::{self, A, NOERROR, TXT, opt, query, query_with};
use crate::node::{Counters, Node, Setup, allowed_cpus, eventually};
use crate::ports::Directory;
use crate::process::rejects;
use crate::scripted::{Scripted, Step};

const LOCAL: &str =
    "[[local]]\nzone = \"local.test.\"\nrecords = \"*.local.test. 60 A 192.0.2.1\"\n";

/// Two CPUs that the test may use; `None`, which is told, where there is one.
fn two_cpus() -> Option<[usize; 2]> {
    let cpus = allowed_cpus();
    let two = cpus.first_chunk().copied();
    if two.is_none() {
        eprintln!("only one CPU is allowed here: there is nothing to steer to");
    }
    two
}

fn steered(mode: &str, [first, second]: [usize; 2]) -> Setup {
    let setup = Setup::new().cores(&format!("{first},{second}"));
    setup.config(&format!("[node]\nsteering = \"{mode}\"\n{LOCAL}"))
}

/// Datagrams that came to each core.
fn loads(counters: &Counters) -> [u64; 2] {
    [0, 1].map(|core| counters.sum("dns_queries_total", &format!("proto=\"udp\",core=\"{core}\"")))
}

fn since(now: [u64; 2], before: [u64; 2]) -> [u64; 2] {
    [now[0] - before[0], now[1] - before[1]]
}

/// A loopback address for each number.
fn source(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 91, high, low)
}

#[test]
fn by_name_each_answer_is_fetched_and_kept_by_one_core() {
    let Some(cpus) = two_cpus() else { return };
    let upstream = Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
    });
    for backend in ["uring", "mmsg"] {
        let setup = steered("qname", cpus).upstream(upstream.address);
        let node = setup.argument("--io").argument(backend).start();
        node.wait_for_line("datagrams find their cores by qname");
        for round in 0..5_u16 {
            for number in 0..100 {
                // Neither casing nor what stands behind the question counts.
                let name = format!("name{number}.{backend}.test");
                let name = if round % 2 == 0 { name } else { name.to_uppercase() };
                let cookie = [&[0, 10, 0, 8][..], &[round.to_be_bytes()[1] * 41; 8]].concat();
                let message = match round {
                    0 | 1 => query(number, &name, A),
                    _ => query_with(number, &name, A, &[opt(1232, 0, 0, &cookie)]),
                };
                let client = Datagrams::from(source(100 * round + number), node.address);
                assert_eq!(client.exchange(&message).rcode(), NOERROR, "{name}");
            }
        }
        let counters = node.counters();
        assert_eq!(counters.sum("dns_cache_misses_total", ""), 100, "{backend}");
        assert_eq!(counters.sum("dns_cache_hits_total", ""), 400, "{backend}");
        // Under a random key, one core owns fewer than 20 of 100 names once in a billion runs.
        for load in loads(&counters) {
            assert!(load >= 100 && load.is_multiple_of(5), "{backend}: {load} of 500");
        }
        // Whatever it is asked for, the name's core answers.
        let before = loads(&counters);
        for rtype in 0..20 {
            Datagrams::to(node.address).exchange(&query(7, "name0.local.test", TXT + rtype));
        }
        let change = since(loads(&node.counters()), before);
        assert!(change == [20, 0] || change == [0, 20], "{backend}: {change:?}");
    }
}

#[test]
fn by_flow_clients_spread_one_name_over_both_cores() {
    let Some(cpus) = two_cpus() else { return };
    // On loopback there are no queues whose interrupts could tell: that is what "auto" comes to.
    for mode in ["flow", "auto"] {
        let node = steered(mode, cpus).start();
        node.wait_for_line("datagrams find their cores by flow");
        for number in 0..200 {
            let client = Datagrams::from(source(number), node.address);
            assert_eq!(client.exchange(&query(number, "a.local.test", A)).rcode(), NOERROR);
        }
        let loads = loads(&node.counters());
        assert_eq!(loads[0] + loads[1], 200);
        // As above: once in a billion runs.
        assert!(loads.iter().all(|&load| load >= 55), "{mode}: {loads:?}");
    }
}

#[test]
fn by_cpu_a_datagram_stays_on_the_cpu_that_it_came_to() {
    let Some([first, second]) = two_cpus() else { return };
    // The other way round than any default.
    let cpus = [second, first];
    let node = steered("cpu", cpus).start();
    for (worker, cpu) in cpus.into_iter().enumerate() {
        let before = loads(&node.counters());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // What is sent over loopback is received on the sender's CPU.
                assert!(core_affinity::set_for_current(core_affinity::CoreId { id: cpu }));
                for number in 0..50 {
                    let client = Datagrams::from(source(number), node.address);
                    let reply =
                        client.exchange(&query(number, &format!("n{number}.local.test"), A));
                    assert_eq!(reply.rcode(), NOERROR);
                }
            });
        });
        let mut expected = [0, 0];
        expected[worker] = 50;
        assert_eq!(since(loads(&node.counters()), before), expected, "sent on CPU {cpu}");
    }
}

#[test]
fn another_way_comes_into_force_with_a_reload() {
    let Some(cpus) = two_cpus() else { return };
    let node = steered("flow", cpus).start();
    let ask = |count: u16| {
        let before = loads(&node.counters());
        for number in 0..count {
            let client = Datagrams::from(source(number), node.address);
            assert_eq!(client.exchange(&query(number, "a.local.test", A)).rcode(), NOERROR);
        }
        since(loads(&node.counters()), before)
    };
    let by_name = format!("[node]\nsteering = \"qname\"\n{LOCAL}");
    let by_flow = format!("[node]\nsteering = \"flow\"\n{LOCAL}");
    for _ in 0..2 {
        assert!(ask(60).iter().all(|&load| load > 0));
        let said = node.reload_with(&by_name);
        assert!(said.contains("applied node"), "{said}");
        assert!(ask(60).contains(&60));
        node.reload_with(&by_flow);
    }
    rejects(Setup::new().config("[node]\nsteering = \"fast\""), &["node.toml:2", "\"qname\""]);
    rejects(Setup::new().config("[node]\nspread_above = 90"), &["node.toml:2", "105 to 1000"]);
}

#[test]
fn what_survives_a_restart_and_what_is_warmed_up_lies_with_its_owner() {
    let Some(cpus) = two_cpus() else { return };
    let upstream = Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
    });
    let directory = Directory::create();
    let names: Vec<String> = (0..60).map(|number| format!("name{number}.test")).collect();
    let list = directory
        .write("names", &names.iter().map(|name| format!("{name} A\n")).collect::<String>());
    let warm = format!("[cache]\nwarm_up = {list:?}\nwarm_up_rate = 1000\n");
    let snapshot = directory.path().join("cache");
    let kept = format!("[cache]\nsnapshot = {snapshot:?}\nsnapshot_interval = \"0s\"\n");
    let ask_all = |node: &Node| {
        for (number, name) in (0..).zip(&names) {
            let client = Datagrams::from(source(number), node.address);
            assert_eq!(client.exchange(&query(number, name, A)).rcode(), NOERROR, "{name}");
        }
        node.counters().sum("dns_cache_misses_total", "")
    };
    let node = steered("qname", cpus).config(&warm).upstream(upstream.address).start();
    eventually("all answers", || {
        (node.counters().sum("dns_cache_inserts_total", "") == 60).then_some(())
    });
    assert_eq!(ask_all(&node), 0, "each name was warmed up where it is asked for");
    drop(node);
    let mut node = steered("qname", cpus).config(&kept).upstream(upstream.address).start();
    assert_eq!(ask_all(&node), 60);
    // A snapshot holds what was stored before its millisecond.
    std::thread::sleep(Duration::from_millis(5));
    node.signal("TERM");
    assert!(node.wait_for_exit().success());
    // Its upstream is gone, and the names have other owners.
    let node = steered("qname", cpus).config(&kept).start();
    assert_eq!(ask_all(&node), 0);
    assert_eq!(node.counters().sum("dns_cache_entries", ""), 60);
}

#[test]
fn check_says_which_way_it_would_be() {
    let check = |mode: &str, cores: &str| {
        let config = format!("[node]\nsteering = \"{mode}\"");
        Setup::new().config(&config).cores(cores).argument("--check").printed()
    };
    let plan = check("qname", &allowed_cpus()[0].to_string());
    assert!(plan.contains("by flow: there is one core"), "{plan}");
    let Some([first, second]) = two_cpus() else { return };
    let both = format!("{first},{second}");
    assert!(check("auto", &both).contains("by flow: all listeners are on loopback"));
    let plan = check("qname", &both);
    assert!(plan.contains("steering:  qname; the hottest names are spread"), "{plan}");
    assert!(plan.contains("find their cores by qname\n"), "{plan}");
}

/// Asks for `names` again and again from 64 ports, until `is_over`.
fn ask_on_and_on(server: SocketAddr, names: &[String], is_over: &AtomicBool) {
    let open = |number| {
        let socket = UdpSocket::bind((source(number), 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        socket
    };
    let sockets: Vec<UdpSocket> = (0..64).map(open).collect();
    let messages: Vec<Vec<u8>> = names.iter().map(|name| query(1, name, A)).collect();
    let mut messages = messages.iter().cycle();
    let mut buf = [0; 512];
    while !is_over.load(Ordering::Relaxed) {
        for (socket, message) in sockets.iter().zip(&mut messages) {
            socket.send(message).unwrap();
        }
        for socket in &sockets {
            // What is lost is not missed.
            let _ = socket.recv(&mut buf);
        }
    }
}

/// Has `names` asked for while `meanwhile` looks on.
fn under_load(node: &Node, names: &[String], meanwhile: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| ask_on_and_on(node.address, names, &is_over));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn name_too_hot_for_one_core_goes_to_both_until_it_has_cooled_down() {
    let Some(cpus) = two_cpus() else { return };
    let node = steered("qname", cpus).start();
    let spread = || node.counters().sum("dns_steering_spread_names", "");
    let many: Vec<String> = (0..400).map(|number| format!("n{number}.local.test")).collect();
    let mut hot = many[..100].to_vec();
    hot.extend(vec!["Hot.local.test".to_owned(); 300]);
    under_load(&node, &hot, || {
        eventually("the hot name is spread", || (spread() == 1).then_some(()));
        let line = node.wait_for_line("goes to all cores");
        assert!(line.contains("steering: hot.local.test. is "), "{line}");
    });
    // One client per source port: both cores get some.
    let before = loads(&node.counters());
    for number in 0..100 {
        Datagrams::from(source(number), node.address).exchange(&query(1, "hot.local.test", A));
    }
    assert!(since(loads(&node.counters()), before).iter().all(|&load| load >= 15));
    under_load(&node, &many, || {
        eventually("the name returns", || (spread() == 0).then_some(()));
    });
    node.wait_for_line("hot.local.test. goes to one core again");
    let before = loads(&node.counters());
    for number in 0..60 {
        Datagrams::from(source(number), node.address).exchange(&query(1, "hot.local.test", A));
    }
    assert!(since(loads(&node.counters()), before).contains(&60));
    let counters = node.counters();
    assert_eq!(counters.sum("dns_steering_spreads_total", ""), 1);
    assert_eq!(counters.sum("dns_steering_returns_total", ""), 1);
    assert_eq!(counters.sum("dns_steering_refusals_total", ""), 0);
}
