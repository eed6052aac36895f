//! The process: starts or says why not, drains, tells its supervisor, uses its cores.

use std::fs::Permissions;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::client::{Datagrams, Stream, dig};
use crate::message::{self, A, NOERROR, query};
use crate::node::{Node, PATIENCE, Setup, allowed_cpus, eventually};
use crate::ports::{self, Directory};
use crate::scripted::{Scripted, Step};

const LOCAL: &str = "[[local]]\nzone = \"local.test.\"\nrecords = \"www 60 A 192.0.2.1\"";

/// Answers after a second.
fn slow_upstream() -> Scripted {
    Scripted::start(|asked| {
        let answer = message::address(&asked.message, 300, [192, 0, 2, 1]);
        vec![Step::After(Duration::from_secs(1), answer)]
    })
}

fn drains_on(signal: &str) {
    let upstream = slow_upstream();
    let patient = "[forward]\nattempt_timeout = \"5s\"\ndeadline = \"8s\"";
    let mut node = Setup::new().upstream(upstream.address).config(patient).start();
    let socket = Datagrams::to(node.address);
    let mut stream = Stream::connect(node.address);
    socket.send(&query(1, "datagram.test", A));
    stream.send(&query(2, "stream.test", A));
    upstream.wait_for("datagram.test.");
    upstream.wait_for("stream.test.");
    node.signal(signal);
    let reply = socket.receive();
    assert_eq!((reply.id, reply.rcode()), (1, NOERROR));
    let reply = stream.receive().expect("a query in flight is answered before the end");
    assert_eq!((reply.id, reply.rcode()), (2, NOERROR));
    assert!(node.wait_for_exit().success());
    // The counters are printed at exit, too.
    assert!(node.log().contains("dns_queries_total{"), "{}", node.log());
}

#[test]
fn sigterm_answers_what_is_in_flight_and_exits_with_zero() {
    drains_on("TERM");
}

#[test]
fn sigint_answers_what_is_in_flight_and_exits_with_zero() {
    drains_on("INT");
}

#[test]
fn drain_ends_in_time_when_an_upstream_keeps_silent() {
    let upstream = Scripted::start(|_| vec![]);
    let waits = "[node]\ndrain = \"1s\"\n[forward]\nattempt_timeout = \"20s\"\ndeadline = \"25s\"";
    let mut node = Setup::new().upstream(upstream.address).config(waits).start();
    Datagrams::to(node.address).send(&query(1, "name.test", A));
    upstream.wait_for("name.test.");
    node.signal("TERM");
    assert!(node.wait_for_exit().success());
}

#[test]
fn second_signal_ends_a_drain_at_once() {
    let upstream = Scripted::start(|_| vec![]);
    let waits = "[node]\ndrain = \"60s\"\n[forward]\nattempt_timeout = \"20s\"\ndeadline = \"25s\"";
    let mut node = Setup::new().upstream(upstream.address).config(waits).start();
    Datagrams::to(node.address).send(&query(1, "name.test", A));
    upstream.wait_for("name.test.");
    node.signal("TERM");
    node.wait_for_line("stopping");
    node.signal("TERM");
    // Sooner than the drain would: `PATIENCE` is shorter.
    node.wait_for_exit();
}

#[test]
fn quickstart_config_answers_its_own_zone_offline() {
    let node = Setup::new().config(include_str!("../../deploy/quickstart.toml")).start();
    assert_eq!(dig(node.address, "hello.heimdall.test").rdata("A"), ["192.0.2.53"]);
    let readme = include_str!("../../README.md");
    assert!(readme.contains("dig @127.0.0.1 -p 5353 hello.heimdall.test"));
}

fn fails_to_start(mut node: Node, must_say: &str) {
    let status = node.wait_for_exit();
    let log = node.log();
    assert_eq!(
        status.code(),
        Some(1),
        "what the system refuses is no mistake of the config:\n{log}"
    );
    assert!(log.contains(must_say), "the message does not name {must_say}:\n{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn address_taken_by_another_program_is_named() {
    let address = ports::own();
    let _taken = UdpSocket::bind(address).unwrap();
    fails_to_start(Setup::new().listen(address).spawn(), &address.to_string());
    let api = ports::own();
    let _taken = TcpListener::bind(api).unwrap();
    let said = format!("api.listen: cannot listen on {api}");
    fails_to_start(Setup::new().api(api).spawn(), &said);
    let address = ports::own();
    let _taken = TcpListener::bind(address).unwrap();
    let sentence = format!("TCP {address}: the address is in use by another process");
    fails_to_start(Setup::new().listen(address).spawn(), &sentence);
}

#[test]
fn second_node_does_not_share_the_address_of_the_first() {
    let first = Setup::new().config(LOCAL).start();
    fails_to_start(Setup::new().listen(first.address).spawn(), &first.address.to_string());
    assert_eq!(dig(first.address, "www.local.test").status, "NOERROR");
}

#[test]
fn foreign_address_is_named() {
    let address = "192.0.2.1:20400";
    fails_to_start(Setup::new().listen(address.parse().unwrap()).spawn(), address);
}

#[test]
fn restart_on_the_same_address_succeeds_at_once() {
    for backend in ["uring", "mmsg"] {
        let address = ports::own();
        for signal in ["TERM", "KILL", "TERM", "KILL", "TERM"] {
            let setup = Setup::new().listen(address).config(LOCAL).argument("--io");
            let mut node = setup.argument(backend).start();
            assert_eq!(dig(address, "www.local.test").status, "NOERROR");
            node.signal(signal);
            node.wait_for_exit();
        }
    }
}

#[test]
fn few_descriptors_leave_room_for_tcp_or_are_refused() {
    let upstream = Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
    });
    let node = Setup::new().upstream(upstream.address).descriptors(64).start();
    assert!(node.log().contains("forward.sockets is lowered from 128 to 22"), "{}", node.log());
    let socket = Datagrams::to(node.address);
    for id in 0..200 {
        assert_eq!(socket.exchange(&query(id, &format!("name{id}.test"), A)).rcode(), NOERROR);
    }
    let reply = Stream::connect(node.address).exchange(&query(1, "stream.test", A));
    assert_eq!(reply.rcode(), NOERROR);
    fails_to_start(Setup::new().descriptors(40).spawn(), "only 40 descriptors are allowed, 50 are");
}

/// The operator has something to mend, and is told where.
pub(crate) fn rejects(setup: Setup, must_say: &[&str]) {
    let mut node = setup.spawn();
    assert_eq!(node.wait_for_exit().code(), Some(2));
    for part in must_say {
        assert!(node.log().contains(part), "no `{part}` in:\n{}", node.log());
    }
}

#[test]
fn operators_mistakes_exit_with_two_and_say_where() {
    rejects(Setup::new().argument("--no-such-flag"), &["--no-such-flag"]);
    rejects(Setup::new().argument("--io").argument("smoke"), &["smoke", "uring", "mmsg"]);
    rejects(Setup::new().cores("zero"), &["zero"]);
    rejects(Setup::new().cores("9999"), &["9999"]);
    rejects(Setup::new().listen("224.0.0.1:53".parse().unwrap()), &["--listen", "multicast"]);
    rejects(
        Setup::new().config("[cache]\nsize = \"2 gigs\""),
        &["node.toml:2", "cache.size", "2 gigs"],
    );
    rejects(Setup::new().config("[cache]\n\nsizes = 1"), &["node.toml:3", "sizes"]);
    rejects(Setup::new().config("[cache\n"), &["node.toml:1"]);
    rejects(
        Setup::new().config("[query_log]\npath = \"/nowhere/at/all/queries.sqlite\""),
        &["query_log.path", "/nowhere/at/all"],
    );
    let broken_zone = "[[local]]\nzone = \"local.test.\"\nrecords = \"www A no-address\"";
    rejects(Setup::new().config(broken_zone), &["node.toml:", "local.test."]);
    let environment = Setup::new().environment("HEIMDALL_CACHE_SIZE", "2 gigs");
    rejects(environment, &["HEIMDALL_CACHE_SIZE", "2 gigs"]);
}

#[test]
fn check_says_yes_or_no_and_serves_nothing() {
    let address = ports::own();
    let plan = Setup::new().listen(address).config(LOCAL).argument("--check").printed();
    assert!(plan.contains(&address.to_string()) && plan.contains("config is good"), "{plan}");
    let tuning = plan.lines().last().unwrap();
    assert!(tuning.starts_with("tuning: ") && tuning.contains("tuning/playbook check"), "{plan}");
    // Nothing listens there now, and a node may.
    assert!(UdpSocket::bind(address).is_ok());
    rejects(Setup::new().config("[cache]\nsize = -1").argument("--check"), &["node.toml:2"]);
}

#[test]
fn check_sees_what_the_machine_refuses_and_leaves_a_running_node_alone() {
    let foreign = "192.0.2.1:20400";
    let check = |address| Setup::new().listen(address).argument("--check");
    fails_to_start(check(foreign.parse().unwrap()).spawn(), foreign);
    let node = Setup::new().config(LOCAL).start();
    let plan = check(node.address).printed();
    assert!(plan.contains(&format!("warning: UDP {} is in use", node.address)), "{plan}");
    assert_eq!(dig(node.address, "www.local.test").status, "NOERROR");
}

#[test]
fn environment_overrides_the_config_file() {
    let upstream = Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 100_000, [192, 0, 2, 1]))]
    });
    let setup = Setup::new().upstream(upstream.address).config("[cache]\nttl_max = 600");
    let node = setup.environment("HEIMDALL_CACHE_TTL_MAX", "77").start();
    assert_eq!(dig(node.address, "name.test A").answer[0].ttl, 77);
}

#[test]
fn variables_of_others_do_not_stop_it() {
    let node = Setup::new()
        .config(LOCAL)
        .environment("HEIMDALL_URING_SERVICE_HOST", "10.96.0.10")
        .environment("HEIMDALL_URING_PORT_53_UDP", "udp://10.96.0.10:53")
        .environment("HEIMDALL_CACHE_SIZ", "1GiB")
        .start();
    let log = node.log();
    assert!(
        log.contains("\"HEIMDALL_CACHE_SIZ\"") && log.contains("\"HEIMDALL_CACHE_SIZE\""),
        "{log}"
    );
    assert!(!log.contains("HEIMDALL_URING"), "{log}");
}

/// A row of the topology report: CPU, core, package, NUMA node, whether it is allowed, its worker.
fn topology_rows(report: &str) -> Vec<Vec<String>> {
    let rows =
        report.lines().skip_while(|line| !line.trim_start().starts_with("CPU  core")).skip(1);
    let rows = rows.take_while(|line| !line.is_empty());
    rows.map(|row| row.split_whitespace().map(str::to_owned).collect()).collect()
}

/// What the kernel says of `cpu`; `None` where a sandbox hides it.
fn kernel_says(cpu: &str, what: &str) -> Option<String> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/{what}");
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

#[test]
fn topology_is_what_the_kernel_says_with_the_chosen_cpu() {
    let allowed = allowed_cpus();
    let chosen = allowed.last().unwrap().to_string();
    let report = Setup::new().cores(&chosen).argument("--print-topology").printed();
    let rows = topology_rows(&report);
    let numbers: Vec<usize> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{report}");
    assert!(allowed.iter().all(|cpu| numbers.contains(cpu)), "{report}");
    for row in &rows {
        let [cpu, core, package, node, is_allowed, worker] = &row[..] else { panic!("{report}") };
        let may_be_used = allowed.contains(&cpu.parse().unwrap());
        assert_eq!(is_allowed == "yes", may_be_used, "CPU {cpu}\n{report}");
        assert_eq!(worker, if *cpu == chosen { "0" } else { "-" }, "CPU {cpu}\n{report}");
        for other in &rows {
            for (known, file, column) in
                [(core, "core_cpus_list", 1), (package, "package_cpus_list", 2)]
            {
                let same = (kernel_says(cpu, file), kernel_says(&other[0], file));
                if let (Some(of_cpu), Some(of_other)) = same {
                    let are_one = *known == other[column];
                    assert_eq!(are_one, of_cpu == of_other, "{file} of {cpu}, {other:?}\n{report}");
                }
            }
        }
        let of_node = format!("/sys/devices/system/node/node{node}/cpu{cpu}");
        let has_nodes = std::path::Path::new("/sys/devices/system/node/node0").exists();
        assert!(!has_nodes || std::path::Path::new(&of_node).exists(), "{of_node}\n{report}");
    }
    let distinct = |column: usize| {
        rows.iter().map(|row| &row[column]).collect::<std::collections::BTreeSet<_>>().len()
    };
    let machine = format!(
        "machine: {} package(s), {} NUMA node(s), {} core(s), {} CPU(s), {} allowed",
        distinct(2),
        distinct(3),
        distinct(1),
        rows.len(),
        allowed.len()
    );
    assert!(report.starts_with(&machine), "{machine}\n{report}");
    assert!(report.contains(&format!("worker 0 on CPU {chosen}: asked for\n")), "{report}");
    assert_eq!(report.matches("\n  worker ").count(), 1, "{report}");
}

#[test]
fn topology_gives_each_physical_core_one_worker() {
    let report = Setup::new().cores("auto").argument("--print-topology").printed();
    let rows = topology_rows(&report);
    let mut cores: Vec<_> =
        rows.iter().filter(|row| row[5] != "-").map(|row| row[1].as_str()).collect();
    let workers = cores.len();
    cores.sort_unstable();
    cores.dedup();
    assert_eq!(cores.len(), workers, "{report}");
    let with_allowed: std::collections::BTreeSet<_> =
        rows.iter().filter(|row| row[4] == "yes").map(|row| row[1].as_str()).collect();
    // A quota pays for fewer.
    let is_whole = report.contains("cgroup v2 quota: none");
    assert!(workers >= 1 && (!is_whole || workers == with_allowed.len()), "{report}");
}

#[test]
fn supervisor_hears_ready_watchdog_and_stopping() {
    let directory = Directory::create();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hears = |part: &str| {
        let mut buf = [0; 1024];
        eventually(part, || {
            let len = socket.recv(&mut buf).expect("the supervisor hears something");
            std::str::from_utf8(&buf[..len]).unwrap().contains(part).then_some(())
        });
    };
    let setup = Setup::new().config(LOCAL).environment("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut node = setup.environment("WATCHDOG_USEC", "500000").start();
    hears("READY=1");
    hears("WATCHDOG=1");
    hears("WATCHDOG=1");
    node.signal("HUP");
    // Both in one message, or the manager cannot tell which reload it is.
    hears("RELOADING=1\nMONOTONIC_USEC=");
    hears("READY=1\nSTATUS=serving on 1 core(s); reload: nothing to apply");
    assert_eq!(dig(node.address, "www.local.test").status, "NOERROR");
    node.signal("TERM");
    hears("STOPPING=1");
    assert!(node.wait_for_exit().success());
}

#[test]
fn all_cores_answer() {
    let cpus = allowed_cpus();
    let [first, second, ..] = cpus.as_slice() else {
        return eprintln!("only one CPU is allowed here: there is nothing to spread over");
    };
    for backend in ["uring", "mmsg"] {
        let setup = Setup::new().cores(&format!("{first},{second}")).config(LOCAL);
        let node = setup.argument("--io").argument(backend).start();
        // 64 source ports: that all fall to one core happens once in 2^63 runs.
        for id in 0..64 {
            let reply = Datagrams::to(node.address).exchange(&query(id, "www.local.test", A));
            assert_eq!(reply.rcode(), NOERROR);
            let reply = Stream::connect(node.address).exchange(&query(id, "www.local.test", A));
            assert_eq!(reply.rcode(), NOERROR);
        }
        let counters = node.counters();
        let mut total = 0;
        for proto in ["udp", "tcp"] {
            for core in [0, 1] {
                let label = format!("proto=\"{proto}\",core=\"{core}\"");
                let queries = counters.sum("dns_queries_total", &label);
                assert!(queries > 0, "{backend}: {label} answered nothing");
                total += queries;
            }
        }
        assert_eq!(total, 128, "{backend}");
    }
}

#[test]
fn check_reads_lists_looks_at_dnstap_and_knows_the_time_zones() {
    let directory = Directory::create();
    let list = directory.write("ads", "||ads.example^\nads..example\nads.example##.banner\n");
    let config = format!(
        "[[list]]\nname = 'ads'\nfile = '{}'\nsyntax = 'adblock'\n[[list]]\nname = 'far'\nurl = 'https://lists.example/x'\n\
         [dnstap]\nfile = '/nowhere/at/all'\nsocket = '/nowhere/socket'\n",
        list.display()
    );
    let setup = Setup::new().config(&config).argument("--check");
    let plan = setup.environment("TZ", "Nowhere/City").printed();
    for part in [
        "list \"ads\": 1 rules, 1 bad lines (line 2: ",
        ", 1 lines skipped (line 3: ",
        "list \"far\": from https://lists.example/x, not downloaded by a check",
        "warning: dnstap.file: /nowhere/at/all: ",
        "warning: dnstap.socket: /nowhere/socket: ",
        "warning: TZ = \"Nowhere/City\" is no time zone that is known here: ",
        "config is good",
    ] {
        assert!(plan.contains(part), "no `{part}` in:\n{plan}");
    }
    let plan = Setup::new().argument("--check").environment("TZ", "UTC").printed();
    assert!(!plan.contains("TZ ="), "{plan}");
}

#[test]
fn token_that_every_user_may_read_is_warned_of() {
    let directory = Directory::create();
    let file = directory.write("token", "0123456789abcdef");
    let config = format!("[api]\ntoken_file = '{}'\n", file.display());
    let put = |mode| {
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    };
    let setup = || Setup::new().api(ports::own()).config(&config);
    put(0o644);
    let warning =
        format!("api.token_file: {}: every user of this machine may read it", file.display());
    let plan = setup().argument("--check").printed();
    assert!(plan.contains(&format!("warning: {warning} (mode 0644)")), "{plan}");
    let node = setup().start();
    node.wait_for_line(&warning);
    node.reload();
    node.wait_for_line(&format!("reload: {warning}"));
    put(0o600);
    assert!(!setup().argument("--check").printed().contains(&warning));
}
