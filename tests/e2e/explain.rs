//! `ctl explain` and `ctl decisions` at the real binary: why a name gets the answer that it gets, before it is asked for and after.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::client::Datagrams;
use crate::message::{self, A, Message, opt, query_with};
use crate::node::{Clock, Node, Setup, allowed_cpus, eventually};
use crate::ports::{self, Directory};
use crate::scripted::{Scripted, Step};

const PROGRAM: &str = env!("CARGO_BIN_EXE_heimdall-uring");
const TOKEN: &str = "0123456789abcdef";

/// A client of the group "kids", and one of none.
const KID: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);
const NOBODYS: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Whom kids ask, and nobody answers there.
const SILENT: &str = "127.0.0.99:9";

/// A node that can be asked why.
struct Explained {
    node: Node,
    upstream: Scripted,
    is_up: Arc<AtomicBool>,
    clock: Clock,
    api: SocketAddr,
    directory: Directory,
}

impl Explained {
    fn start(keys: &str, cores: Option<&str>) -> Self {
        let (api, directory, clock) = (ports::own(), Directory::create(), Clock::new());
        let is_up = Arc::new(AtomicBool::new(true));
        let switch = Arc::clone(&is_up);
        let upstream = Scripted::start(move |asked| {
            if !switch.load(Ordering::Acquire) {
                return vec![];
            }
            vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
        });
        let ads = directory.write("ads", "||ads.example^\n");
        let fine = directory.write("fine", "fine.ads.example\n");
        let text = format!(
            "[api]\nlisten = \"{api}\"\ntoken = \"{TOKEN}\"\n\
             [forward]\nattempt_timeout = '50ms'\ndeadline = '200ms'\n\
             [acl]\nallow = ['127.0.0.0/8']\n\
             [[list]]\nname = 'ads'\nfile = '{}'\n\
             [[list]]\nname = 'fine'\nfile = '{}'\nkind = 'allow'\n\
             [[group]]\nname = 'kids'\nclients = '{KID}'\nlists = []\nupstreams = '{SILENT}'\nattempt_timeout = '50ms'\n\
             [[local]]\nzone = 'corp.test.'\nrecords = 'www A 192.0.2.7'\n{keys}",
            ads.display(),
            fine.display()
        );
        let setup = Setup::new().upstream(upstream.address).config(&text);
        let setup = match cores {
            Some(cores) => setup.cores(cores),
            None => setup,
        };
        let node = setup.api(api).environment("DNS_TEST_CLOCK", &clock.path()).start();
        directory.write("ctl.toml", &format!("[api]\nlisten = \"{api}\"\ntoken = \"{TOKEN}\"\n"));
        Self { node, upstream, is_up, clock, api, directory }
    }

    /// Exit code, standard output and standard error of `ctl` with `arguments`.
    fn ctl(&self, arguments: &[&str]) -> (i32, String, String) {
        let config = self.directory.path().join("ctl.toml");
        let mut command = Command::new(PROGRAM);
        command.arg("ctl").arg("--config").arg(config).args(arguments).stdin(Stdio::null());
        let output = command.env_remove("HEIMDALL_API_LISTEN").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn prints(&self, arguments: &[&str]) -> String {
        let (code, out, error) = self.ctl(arguments);
        assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}: {out}");
        out
    }

    /// What `ctl explain` prints, for the client at `client`.
    fn explains(&self, name: &str, client: &str) -> String {
        self.prints(&["explain", name, "--client", client])
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.prints(&[arguments, &["--json"]].concat())).unwrap()
    }

    fn asks(&self, client: Ipv4Addr, name: &str) -> Message {
        let message = query_with(7, name, A, &[opt(1232, 0, 0, &[])]);
        Datagrams::from(client, self.node.address).exchange(&message)
    }
}

/// `text` holds all of `parts`.
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn each_reason_is_told_before_anybody_asks() {
    let explained = Explained::start("", None);
    let nobodys = NOBODYS.to_string();
    for (name, client, parts) in [
        (
            "x.ads.example",
            nobodys.as_str(),
            &[
                "access     127.0.0.1 is served, by 127.0.0.0/8 of acl.allow",
                "lists      blocked by list \"ads\" (ads.example. and all below: block)",
                "verdict    blocked by list \"ads\": NOERROR",
            ][..],
        ),
        (
            "fine.ads.example",
            &nobodys,
            &[
                "allowed by list \"fine\" (fine.ads.example.: allow), which comes before list \"ads\"",
                "cache      knows nothing of it",
                "verdict    upstreams are asked for fine.ads.example., ",
            ],
        ),
        (
            "www.corp.test",
            &nobodys,
            &["[[local]] zone corp.test.", "verdict    answered from local data: NOERROR"],
        ),
        ("none.corp.test", &nobodys, &["verdict    answered from local data: NXDOMAIN"]),
        (
            "www.example",
            "192.0.2.200",
            &[
                "192.0.2.200 is in no prefix of acl.allow",
                "verdict    refused (this client is not served): REFUSED",
            ],
        ),
        (
            "ads.example",
            "127.0.0.7",
            &[
                "in group \"kids\", by 127.0.0.7/32; has upstreams of its own",
                "no list that counts here has the name; does not count here now: list \"ads\"",
                "no [[forward]] zone; the better of two drawn at random, best first: 127.0.0.99:9 (not asked yet)",
                "127.0.0.99:9 first",
            ],
        ),
    ] {
        assert_says(&explained.explains(name, client), parts);
    }
    assert!(explained.upstream.asked().is_empty(), "nobody was asked");
    assert_eq!(explained.node.counters().sum("dns_queries_total", ""), 0);
    let told = explained.json(&["explain", "x.ads.example", "AAAA", "--transport", "tcp"]);
    let core = &told["cores"][0];
    assert_eq!(
        [&told["type"], &told["transport"], &core["answer"], &core["list"], &core["rcode"]],
        ["AAAA", "tcp", "blocked", "ads", "NOERROR"]
    );
    let (code, _, error) = explained.ctl(&["explain", "a.example", "--listener", "127.0.0.1:1"]);
    assert!(code == 1 && error.contains("listener: expected one of 127."), "{error}");
    let (code, _, error) = explained.ctl(&["explain", "a.example", "--client", "me"]);
    assert!(code == 1 && error.contains("client: expected an IP address"), "{error}");
    let other = ["--api", &explained.api.to_string(), "explain", "a.example"];
    let output = Command::new(PROGRAM).arg("ctl").args(other).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "without a token");
}

#[test]
fn cache_failure_and_age_are_told_and_so_is_what_was_decided() {
    let explained = Explained::start("", None);
    let nobodys = NOBODYS.to_string();
    explained.asks(NOBODYS, "name.test");
    let shown = explained.explains("NAME.test", &nobodys);
    assert_says(
        &shown,
        &[
            "cache      holds it: NOERROR, TTL ",
            "verdict    answered from the cache: NOERROR",
            "Last decisions about the name",
            &explained.upstream.address.to_string(),
        ],
    );
    // The same question of another view is another one.
    assert_says(&explained.explains("name.test", "127.0.0.7"), &["cache      knows nothing of it"]);
    assert_eq!(explained.asks(KID, "gone.test").extended_error(), Some(22));
    assert_says(
        &explained.explains("gone.test", "127.0.0.7"),
        &["SERVFAIL", "127.0.0.99:9", "no upstream"],
    );
    explained.is_up.store(false, Ordering::Release);
    explained.clock.set(301);
    eventually("a stale answer", || {
        explained.asks(NOBODYS, "name.test").extended_error().filter(|&code| code == 3)
    });
    assert_says(
        &explained.explains("name.test", &nobodys),
        &["past its lifetime: NOERROR", "stale"],
    );
    explained.asks(NOBODYS, "x.ads.example");
    explained.asks(NOBODYS, "www.corp.test");
    let told = explained.json(&["decisions", "--under", "ads.example"]);
    let [blocked] = &told["decisions"].as_array().unwrap()[..] else { panic!("{told}") };
    let of = |key: &str| blocked[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        ["name", "type", "client", "answer", "list", "rcode", "reason"].map(of),
        ["x.ads.example", "A", "127.0.0.1", "blocked", "ads", "NOERROR", "ads"]
    );
    assert!(blocked["group"].is_null() && blocked["upstream"].is_null(), "{blocked}");
    let of_kid = explained.json(&["decisions", "--client", "127.0.0.7"]);
    let [failed] = &of_kid["decisions"].as_array().unwrap()[..] else { panic!("{of_kid}") };
    assert_eq!(
        [&failed["group"], &failed["rcode"], &failed["upstream"]],
        ["kids", "SERVFAIL", SILENT]
    );
    assert_eq!(failed["ede"], 22);
    assert!(failed["latency_us"].as_u64().unwrap() > 0);
    let one = explained.json(&["decisions", "--limit", "1"]);
    assert_eq!(one["decisions"][0]["name"], "www.corp.test", "the newest");
    assert_says(&explained.prints(&["decisions"]), &["www.corp.test", "blocked", "forwarded"]);
}

#[test]
fn what_one_core_of_two_holds_is_told_core_by_core() {
    let cpus = allowed_cpus();
    let [first, second] = cpus[..2] else { panic!("two CPUs") };
    let explained = Explained::start("", Some(&format!("{first},{second}")));
    explained.asks(NOBODYS, "name.test");
    let told = explained.json(&["explain", "name.test"]);
    let answers: Vec<&str> = told["cores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|core| core["answer"].as_str().unwrap())
        .collect();
    let holder = answers.iter().position(|answer| *answer == "cache").unwrap();
    assert_eq!(answers[1 - holder], "forwarded");
    let shown = explained.explains("name.test", "127.0.0.1");
    assert_says(
        &shown,
        &[
            "access     127.0.0.1 is served",
            &format!("core {holder}: holds it: NOERROR"),
            &format!("core {}: knows nothing of it", 1 - holder),
            &format!("core {holder}: answered from the cache: NOERROR"),
        ],
    );
    let told = explained.json(&["decisions", "--name", "name.test"]);
    assert_eq!(told["decisions"][0]["core"], holder);
}

#[test]
fn nothing_is_remembered_where_that_is_off_or_a_group_wants_it_so() {
    let explained = Explained::start("[explain]\ndecisions = 0\n", None);
    explained.asks(NOBODYS, "www.corp.test");
    assert_eq!(explained.json(&["decisions"])["decisions"], Value::Array(Vec::new()));
    let quiet = "[[group]]\nname = 'quiet'\nclients = '127.0.0.8'\nlog = false\n";
    let explained = Explained::start(quiet, None);
    explained.asks(Ipv4Addr::new(127, 0, 0, 8), "www.corp.test");
    explained.asks(NOBODYS, "none.corp.test");
    let told = explained.json(&["decisions"]);
    let [only] = &told["decisions"].as_array().unwrap()[..] else { panic!("{told}") };
    assert_eq!(only["name"], "none.corp.test");
}

#[test]
fn core_that_owns_a_name_is_named() {
    let cpus = allowed_cpus();
    let Some([first, second]) = cpus.first_chunk() else { return };
    let explained =
        Explained::start("[node]\nsteering = 'qname'\n", Some(&format!("{first},{second}")));
    for name in ["a.test", "B.test.", "c.test", "d.test", "e.test", "f.test"] {
        let asked = explained.json(&["explain", name]);
        let owner = asked["owner"].as_u64().unwrap();
        // A datagram goes there.
        let queries = || {
            [0, 1].map(|core| {
                explained
                    .node
                    .counters()
                    .sum("dns_queries_total", &format!("proto=\"udp\",core=\"{core}\""))
            })
        };
        let before = queries();
        let client = Datagrams::to(explained.node.address);
        client.exchange(&query_with(7, name.trim_end_matches('.'), A, &[opt(1232, 0, 0, &[])]));
        let seen = queries();
        assert_eq!(
            seen[usize::try_from(owner).unwrap()],
            before[usize::try_from(owner).unwrap()] + 1,
            "{name}"
        );
        let cached = explained.json(&["cache", name]);
        assert_eq!((&cached["owner"], &cached["spread"]), (&asked["owner"], &false.into()));
        for command in ["explain", "cache"] {
            let shown = explained.prints(&[command, name]);
            assert!(
                shown.contains(&format!("core {owner}: datagrams for the name go there")),
                "{shown}"
            );
        }
    }
}

#[test]
fn names_without_a_core_of_their_own_have_no_owner() {
    let explained = Explained::start("", None);
    for command in ["explain", "cache"] {
        assert!(explained.json(&[command, "a.test"])["owner"].is_null());
        assert!(!explained.prints(&[command, "a.test"]).to_lowercase().contains("owner"));
    }
}
