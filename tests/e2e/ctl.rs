//! `heimdall-uring ctl`: the node asked and commanded from a shell.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::certificates::Authority;
use crate::client::{Datagrams, exchange};
use crate::message::{self, A, NOERROR, query};
use crate::node::{Node, Setup, eventually};
use crate::ports::{self, Directory};
use crate::scripted::{Scripted, Step};

const PROGRAM: &str = env!("CARGO_BIN_EXE_heimdall-uring");
const TOKEN: &str = "0123456789abcdef";

/// Exit code, standard output and standard error of `ctl` with `arguments`.
fn ctl(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("ctl").args(arguments).stdin(Stdio::null()).env_remove("HEIMDALL_API_LISTEN");
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn upstream() -> Scripted {
    Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
    })
}

/// A node with a token, its API, and a config by which `ctl` finds it.
struct Commanded {
    upstream: Scripted,
    node: Node,
    api: SocketAddr,
    directory: Directory,
}

impl Commanded {
    fn start(keys: &str) -> Self {
        let (upstream, api, directory) = (upstream(), ports::own(), Directory::create());
        let text = format!("[api]\nlisten = \"{api}\"\ntoken = \"{TOKEN}\"\n{keys}");
        directory.write("node.toml", &text);
        let node = Setup::new().upstream(upstream.address).api(api).config(&text).start();
        Self { upstream, node, api, directory }
    }

    fn config(&self) -> String {
        self.directory.path().join("node.toml").to_str().unwrap().to_owned()
    }

    /// What a command that succeeds prints.
    fn prints(&self, arguments: &[&str]) -> String {
        let config = self.config();
        let (code, out, error) = ctl(&[&["--config", &config], arguments].concat());
        assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}: {out}");
        out
    }

    fn asks(&self) {
        let reply = exchange(self.node.address, &query(9, "name.test", A));
        assert_eq!(reply.rcode(), NOERROR);
    }
}

#[test]
fn every_look_has_a_table_and_json() {
    let commanded = Commanded::start("");
    commanded.asks();
    commanded.asks();
    for (command, words) in [
        (&["status"][..], "listens on:"),
        (&["status"], "upstreams:    1, none down or slow\n"),
        (&["stats"], "hit rate:"),
        (&["upstreams"], "well"),
        (&["config"], "\n[forward]\nupstreams = [\"127."),
        (&["cache", "name.test"], "yes"),
        (&["cache", "NAME.test.", "aaaa"], "no: nothing is known"),
        (&["log-level"], "info"),
    ] {
        let shown = commanded.prints(command);
        assert!(shown.contains(words), "{command:?}: {shown}");
        let json = commanded.prints(&[command, &["--json"]].concat());
        let told: Value =
            serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
        assert!(told.is_object());
    }
    let json: Value = serde_json::from_str(&commanded.prints(&["--json", "stats"])).unwrap();
    assert_eq!(json["total"]["queries"], 2);
    let metrics = commanded.prints(&["metrics"]);
    assert!(metrics.contains("\ndns_cache_hits_total{core=\"0\"} 1\n"), "{metrics}");
}

#[test]
fn lists_and_names_are_switched_from_a_shell() {
    let files = Directory::create();
    let ads = files.write("ads", "||ads.test^\n");
    let lists = format!("[[list]]\nname = 'ads'\nfile = '{}'\n", ads.display());
    let commanded = Commanded::start(&lists);
    let shown = commanded.prints(&["lists"]);
    assert!(shown.contains("in force") && shown.contains("/ads"), "{shown}");
    for (arguments, words) in [
        (
            &["block", "News.test", "--subtree"][..],
            "news.test and all below: blocked until told otherwise",
        ),
        (&["allow", "ads.test", "--for", "10m"], "ads.test: allowed until 2"),
        (&["lists", "disable", "ads"], "ads counts for nobody until told otherwise"),
        (&["pause", "10m"], "blocking is paused until 2"),
    ] {
        let shown = commanded.prints(arguments);
        assert!(shown.starts_with(words), "{arguments:?}: {shown}");
        assert!(shown.contains("not kept over a restart"), "there is no directory: {shown}");
    }
    let shown = commanded.prints(&["lists"]);
    for words in ["disabled", "news.test", "Blocking is paused until 2", "not kept over a restart"]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let status = commanded.prints(&["status"]);
    assert!(
        status.contains("PAUSED until 2") && status.contains("0 of 1 lists, 0 rules, 2 overrides"),
        "{status}"
    );
    assert!(commanded.prints(&["resume"]).starts_with("blocking goes on\n"));
    assert!(commanded.prints(&["lists", "enable", "ads"]).starts_with("ads counts\n"));
    assert!(commanded.prints(&["lists", "refresh"]).contains("being looked at"));
    exchange(commanded.node.address, &query(9, "x.news.test", A));
    let stats = commanded.prints(&["stats"]);
    assert!(
        stats.lines().any(|line| line.starts_with("blocked:") && line.ends_with(" 1")),
        "{stats}"
    );
    assert!(commanded.prints(&["lift", "news.test"]).starts_with("news.test: lists decide again"));
    assert_eq!(commanded.prints(&["unblock", "news.test"]), "news.test: was not overridden\n");
    let told: Value = serde_json::from_str(&commanded.prints(&["lists", "--json"])).unwrap();
    assert_eq!(told["overrides"][0]["name"], "ads.test");
    for arguments in
        [&["pause", "soon"][..], &["block", "a..b"], &["lists", "disable", "none"], &["queries"]]
    {
        let config = commanded.config();
        let (code, _, error) = ctl(&[&["--config", &config], arguments].concat());
        assert!(code == 1 && error.contains("the node refuses: "), "{arguments:?}: {error}");
    }
}

#[test]
fn names_are_blocked_and_lifted_from_standard_input() {
    let commanded = Commanded::start("[[rewrite]]\nname = 'corp.test'\nto = '192.0.2.9'\n");
    let many: String =
        (0..3_000).map(|number| format!("n{number}.bulk.test # {number}\n")).collect();
    let prints = |arguments: &[&str], input: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["ctl", "--config", &commanded.config()]).args(arguments);
        command.env_remove("HEIMDALL_API_LISTEN").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        // A program that does not read is seen by what it prints.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, shown) = prints(&["block", "-", "--for", "1h"], &many);
    assert!(code == Some(0) && shown.starts_with("3000 names: blocked until 2"), "{shown}");
    let told: Value = serde_json::from_str(&commanded.prints(&["lists", "--json"])).unwrap();
    assert_eq!(told["overrides"].as_array().unwrap().len(), 3_000);
    let (_, shown) = prints(&["lift", "-"], "n1.bulk.test\nother.test\nN2.bulk.test.\n");
    assert!(shown.starts_with("2 names: lists decide again; 1 were not overridden\n"), "{shown}");
    assert_eq!(prints(&["block", "-"], "# nothing\n").0, Some(2));
    let (code, shown) = prints(&["block", "-"], "good.test\nb..ad.test\n");
    assert_eq!((code, shown.as_str()), (Some(1), ""), "all or nothing");
    assert_eq!(commanded.prints(&["lift", "good.test"]), "good.test: was not overridden\n");
    let shown = commanded.prints(&["block", "corp.test"]);
    assert!(shown.contains("no effect on corp.test: local zones"), "{shown}");
    assert!(
        commanded.prints(&["pause"]).starts_with("blocking is paused for good: until `ctl resume`")
    );
}

#[test]
fn queries_are_found_from_a_shell() {
    let directory = Directory::create();
    let path = directory.path().join("queries.sqlite");
    let commanded =
        Commanded::start(&format!("[query_log]\npath = '{}'\ntop = 9\n", path.display()));
    commanded.asks();
    let found = |arguments: &[&str]| {
        let all = [&["queries", "--json"], arguments].concat();
        let told: Value = serde_json::from_str(&commanded.prints(&all)).unwrap();
        told["queries"].as_array().unwrap().len()
    };
    eventually("the query is stored", || (found(&[]) == 1).then_some(()));
    for (arguments, count) in [
        (&["--name", "AME.t"][..], 1),
        (&["--under", "test", "--type", "A", "--rcode", "noerror"], 1),
        (&["--client", "127.0.0.9"], 0),
        (&["--answer", "Forwarded", "--since", "1h"], 1),
        (&["--until", "1h"], 0),
        (&["--list", "overrides", "--group", "default"], 0),
        (&["--rcode", "3"], 0),
    ] {
        assert_eq!(found(arguments), count, "{arguments:?}");
    }
    let shown = commanded.prints(&["queries", "--limit", "1"]);
    assert!(shown.contains("name.test") && shown.contains("forwarded"), "{shown}");
    assert!(shown.contains("More: --before "), "a full page may not be the last: {shown}");
    let (code, _, error) = ctl(&["--config", &commanded.config(), "queries", "--since", "noon"]);
    assert!(
        code == 2 && error.contains("'noon' for '--since <TIME>': expected a time ago such as 10m"),
        "{error}"
    );
}

#[test]
fn queries_are_told_the_same_by_the_node_and_by_its_file() {
    let directory = Directory::create();
    let path = directory.path().join("queries.sqlite");
    let commanded = Commanded::start(&format!("[query_log]\npath = '{}'\n", path.display()));
    // More than the API gives at a time.
    let client = Datagrams::to(commanded.node.address);
    for number in 0..1_100_u16 {
        client.exchange(&query(number, &format!("n{}.name.test", number % 50), A));
    }
    let total = || {
        let all = commanded.prints(&["queries", "--limit", "0", "--json"]);
        let told: Value = serde_json::from_str(&all).unwrap();
        told["queries"].as_array().unwrap().len()
    };
    eventually("all are stored", || (total() == 1_100).then_some(()));
    let file = path.to_str().unwrap();
    for flags in [
        &[][..],
        &["--json"],
        &["--csv", "--limit", "0"],
        &["--limit", "1050", "--json"],
        &["--limit", "1050"],
        &["--rcode", "noerror", "--answer", "Cache", "--since", "1h", "--under", "NAME.test"],
        &["--rcode", "0", "--since", "2026-01-31T08:00:00Z", "--type", "a", "--limit", "3"],
        &["--before", "500", "--name", "n7.", "--client", "127.0.0.1", "--csv"],
        &["--rcode", "RCODE11", "--json"],
    ] {
        let by_node = commanded.prints(&[&["queries"][..], flags].concat());
        let mut by_file = Command::new(PROGRAM);
        let by_file = by_file.args(["queries", file]).args(flags).output().unwrap();
        assert_eq!(String::from_utf8(by_file.stdout).unwrap(), by_node, "{flags:?}");
        assert!(by_file.status.success() && !by_node.is_empty(), "{flags:?}");
    }
}

#[test]
fn search_for_what_nothing_is_called_by_says_so() {
    let directory = Directory::create();
    let path = directory.path().join("queries.sqlite");
    let log = format!("[query_log]\npath = '{}'\n", path.display());
    let group =
        |name: &str| format!("{log}[[group]]\nname = '{name}'\nclients = ['127.0.0.0/8']\n");
    let commanded = Commanded::start(&group("kids"));
    commanded.asks();
    let config = commanded.config();
    let search = |flags: &[&str]| ctl(&[&["--config", &config, "queries"], flags].concat());
    eventually("the query is stored", || {
        search(&["--group", "kids"]).1.contains("name.test").then_some(())
    });
    for (flags, words) in [
        (["--group", "kisd"], "no group is called \"kisd\" in the config in force"),
        (["--list", "ads"], "no list is called \"ads\" in the config in force"),
    ] {
        let (code, _, error) = search(&flags);
        assert!(code == 2 && error.contains(words), "{flags:?}: {code} {error}");
    }
    // What is called otherwise by now is found all the same.
    let text = format!("[api]\nlisten = \"{}\"\ntoken = \"{TOKEN}\"\n", commanded.api);
    commanded.node.reconfigure(&(text + &group("children")));
    commanded.prints(&["reload"]);
    let (code, shown, error) = search(&["--group", "kids"]);
    assert!(code == 0 && shown.contains("name.test"), "{code} {shown}");
    assert!(
        error.contains("no group is called \"kids\" in the config in force: these are"),
        "{error}"
    );
}

#[test]
fn config_in_force_is_a_config() {
    let directory = Directory::create();
    let zone = directory.write("lab.zone", "www A 192.0.2.1\n");
    let commanded = Commanded::start(&format!(
        "[[local]]\nzone = \"corp.test.\"\nrecords = \"\"\"\nwww A 192.0.2.1\n*.x TXT \"a \\\"b\\\"\"\n\"\"\"\n\
         [[local]]\nzone = \"lab.test.\"\nfile = \"{}\"\n",
        zone.display()
    ));
    let shown = commanded.prints(&["config"]);
    assert!(!shown.contains(TOKEN) && shown.contains("# token is set, and secret"), "{shown}");
    assert!(shown.contains(&format!("file = \"{}\"", zone.display())), "{shown}");
    let path = directory.write("shown.toml", &shown);
    let checked = Command::new(PROGRAM).arg("--config").arg(path).arg("--check").output().unwrap();
    let errors = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{errors}\n{shown}");
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(text.contains("corp.test., lab.test.") && text.contains("config is good"), "{text}");
}

#[test]
fn status_tells_of_upstreams_that_are_of_no_use() {
    let commanded = Commanded::start("[forward]\nattempt_timeout = '50ms'\ndeadline = '200ms'\n");
    commanded.asks();
    let silent = Scripted::start(|_| vec![]);
    let text = format!(
        "[api]\nlisten = \"{}\"\ntoken = \"{TOKEN}\"\n[forward]\nattempt_timeout = '50ms'\ndeadline = '200ms'\n\
         [[group]]\nname = 'kids'\nclients = ['127.0.0.0/8']\nupstreams = ['{}']\nattempt_timeout = '50ms'\n",
        commanded.api, silent.address
    );
    commanded.node.reconfigure(&text);
    commanded.prints(&["reload"]);
    let status =
        || -> Value { serde_json::from_str(&commanded.prints(&["status", "--json"])).unwrap() };
    eventually("the silent one is down", || {
        let client = Datagrams::to(commanded.node.address);
        client.send(&query(7, "other.test", A));
        let told = status();
        (told["upstreams"] == serde_json::json!({ "count": 2, "down": 1, "slow": 0 })).then_some(())
    });
    let shown = commanded.prints(&["status"]);
    assert!(shown.contains("upstreams:    2, 1 down, 0 slow\n"), "{shown}");
}

#[test]
fn cache_is_shown_for_every_view() {
    let other = upstream();
    let group = format!(
        "[[group]]\nname = 'kids'\nclients = '127.0.0.2'\nupstreams = ['{}']\n",
        other.address
    );
    let commanded = Commanded::start(&group);
    commanded.asks();
    let told: Value =
        serde_json::from_str(&commanded.prints(&["cache", "name.test", "--json"])).unwrap();
    let outcomes: Vec<_> = told["cores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|core| (core["view"].as_u64(), core["outcome"].as_str()))
        .collect();
    assert_eq!(outcomes, [(Some(0), Some("fresh")), (Some(1), Some("absent"))]);
    let from_kids = Datagrams::from([127, 0, 0, 2].into(), commanded.node.address);
    assert_eq!(from_kids.exchange(&query(9, "name.test", A)).rcode(), NOERROR);
    let shown = commanded.prints(&["cache", "name.test"]);
    assert_eq!(shown.matches(" yes ").count(), 2, "{shown}");
    assert!(shown.contains("local data, lists and overrides are asked before them"), "{shown}");
}

#[test]
fn flush_and_log_level_are_carried_out() {
    let commanded = Commanded::start("");
    commanded.asks();
    assert_eq!(
        commanded.prints(&["flush", "name.test", "--type", "AAAA"]),
        "flushed name.test, type AAAA\n"
    );
    commanded.asks();
    assert_eq!(commanded.upstream.count("name.test."), 1);
    assert_eq!(commanded.prints(&["flush", "test", "--subtree"]), "flushed test and below\n");
    commanded.asks();
    assert_eq!(commanded.upstream.count("name.test."), 2);
    assert_eq!(commanded.prints(&["flush", "--all"]), "flushed everything\n");
    commanded.asks();
    assert_eq!(commanded.upstream.count("name.test."), 3);
    assert_eq!(commanded.prints(&["log-level", "debug"]), "debug\n");
    assert_eq!(commanded.prints(&["log-level"]), "debug\n");
}

#[test]
fn reload_says_what_is_in_force_and_what_is_not() {
    let commanded = Commanded::start("");
    assert_eq!(commanded.prints(&["reload"]), "applied: nothing differs\n");
    let text = format!(
        "[api]\nlisten = \"{}\"\ntoken = \"{TOKEN}\"\n[cache]\nhot = 11\n[log]\nlevel = 'debug'\n",
        commanded.api
    );
    commanded.node.reconfigure(&text);
    let shown = commanded.prints(&["reload"]);
    assert!(shown.starts_with("applied:    log\nat restart: cache.hot = 11; 10 stays"), "{shown}");
    // A mistake outside [api] keeps nobody from asking the node, which tells it.
    let broken = text + "[nonsense]\n";
    commanded.node.reconfigure(&broken);
    commanded.directory.write("node.toml", &broken);
    assert!(commanded.prints(&["status"]).contains("listens on:"));
    let (code, _, error) = ctl(&["--config", &commanded.config(), "reload"]);
    assert!(code == 1 && error.contains("nonsense"), "{error}");
}

#[test]
fn exit_codes_tell_a_mistake_from_a_refusal() {
    let commanded = Commanded::start("");
    let (config, api) = (commanded.config(), commanded.api.to_string());
    let wrong = commanded.directory.write("wrong", "0123456789abcdeX\n");
    let wrong = wrong.to_str().unwrap();
    let nobody = ports::own().to_string();
    let off = commanded.directory.write("off.toml", "[api]\nlisten = \"off\"\n");
    for (arguments, code, words) in [
        (&["--api", &api, "status"][..], 1, "a token is needed"),
        (
            &["--api", &api, "--token-file", wrong, "status"],
            1,
            "the node refuses: wrong token (status 401)",
        ),
        (&["--api", &nobody, "status"], 1, "Connection refused"),
        (&["--api", "unix:/nonexistent/sock", "status"], 1, "unix:/nonexistent/sock: "),
        (&["--config", &config, "snapshot"], 1, "cache.snapshot names no file"),
        (&["--config", &config, "cache", "a..b"], 1, "is no domain name"),
        (&["--config", &config, "flush"], 2, "--all"),
        (&["--config", &config, "flush", "--all", "name.test"], 2, "cannot be used with"),
        (&["--config", &config, "log-level", "loud"], 2, "expected error, warn, info or debug"),
        (&["--config", "/nonexistent", "status"], 2, "--config /nonexistent: "),
        (&["--config", off.to_str().unwrap(), "status"], 2, "cannot be asked"),
        (&["--api", "nonsense", "status"], 2, "expected ADDRESS:PORT"),
        (
            &["--api", &api, "--token-file", "/nonexistent", "status"],
            2,
            "api.token_file: /nonexistent: ",
        ),
        (&["nonsense"], 2, "unrecognized subcommand"),
    ] {
        let (seen, out, error) = ctl(arguments);
        assert!(
            seen == code && error.contains(words) && out.is_empty(),
            "{arguments:?}: {seen} {error}"
        );
        assert!(!error.contains(TOKEN));
    }
}

#[test]
fn top_shows_the_figures_anew_until_the_node_is_gone() {
    let commanded = Commanded::start("");
    let mut command = Command::new(PROGRAM);
    command.args(["ctl", "--config", &commanded.config(), "top"]).env_remove("HEIMDALL_API_LISTEN");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut top = command.spawn().unwrap();
    // Open to the end: a closed one would be a reason to leave, too.
    let mut out = BufReader::new(top.stdout.take().unwrap());
    let lines = out.by_ref().lines().map_while(Result::ok);
    let shown = lines.filter(|line| line.starts_with("queries per second:")).take(2).count();
    assert_eq!(shown, 2);
    drop(commanded.node);
    let output = top.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&commanded.api.to_string()), "{error}");
}

#[test]
fn top_shows_who_asks_most_or_why_it_does_not() {
    let counting = Commanded::start("[query_log]\ntop = 9\n");
    counting.asks();
    let silent = Commanded::start("");
    for (commanded, words) in [
        (&counting, &["names", "name.test", "127.0.0.1"][..]),
        (&silent, &["no names and clients: query_log.top is 0 in the config"]),
    ] {
        let mut command = Command::new(PROGRAM);
        command.args(["ctl", "--config", &commanded.config(), "top"]);
        command.env_remove("HEIMDALL_API_LISTEN").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut top = command.spawn().unwrap();
        let mut lines = BufReader::new(top.stdout.take().unwrap()).lines().map_while(Result::ok);
        for words in words {
            assert!(lines.any(|line| line.contains(words)), "{words}");
        }
        top.kill().unwrap();
        top.wait().unwrap();
    }
}

#[test]
fn node_is_found_at_its_socket_without_a_token() {
    let directory = Directory::create();
    let place = format!("unix:{}", directory.path().join("api.sock").display());
    let _node = Setup::new().api(&place).start();
    let (code, out, error) = ctl(&["--api", &place, "flush", "--all"]);
    assert_eq!((code, out.as_str(), error.as_str()), (0, "flushed everything\n", ""));
}

#[test]
fn node_is_known_over_tls_by_the_certificate_in_its_config_and_by_no_other() {
    let authority = Authority::create();
    let certified = authority.certify(&["api.example"]);
    let [key, certificate] = authority.files(&certified);
    let keys = format!("certificate = {certificate:?}\nkey = {key:?}\n");
    let commanded = Commanded::start(&keys);
    assert!(commanded.prints(&["status"]).contains("version:"));
    let other = Directory::create();
    let other = other.write("other.pem", &std::fs::read_to_string(authority.roots()).unwrap());
    let (code, _, error) =
        ctl(&["--config", &commanded.config(), "--certificate", other.to_str().unwrap(), "status"]);
    assert!(code == 1 && error.contains("another certificate"), "{error}");
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    for what in ["bash", "fish", "zsh", "man", "man-ctl"] {
        let output = Command::new(PROGRAM).args(["generate", what]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.len() > 500, "{what}");
        let commands: &[&str] =
            if what == "man" { &["ctl"] } else { &["flush", "upstreams", "snapshot"] };
        for command in commands {
            assert!(text.contains(command), "{what} lacks {command}");
        }
    }
}

#[test]
fn node_that_does_not_answer_in_time_is_told_with_what_to_do() {
    let address = ports::own();
    let silent = std::net::TcpListener::bind(address).unwrap();
    let (code, _, error) = ctl(&["--api", &address.to_string(), "--timeout", "1", "status"]);
    assert_eq!(code, 1);
    assert!(error.contains(&format!("{address}: no answer within 1s: ")), "{error}");
    assert!(error.contains("--timeout SECONDS"), "{error}");
    drop(silent);
    let (code, _, error) = ctl(&["--timeout", "0", "status"]);
    assert!(code == 2 && error.contains("--timeout"), "{error}");
}

#[test]
fn broken_name_is_told_in_words() {
    let node = Commanded::start("");
    let config = node.config();
    for (name, words) in [("a..example", "a label is empty"), (&"a".repeat(64), "63 octets")] {
        let (code, _, error) = ctl(&["--config", &config, "cache", name]);
        assert!(code == 1 && error.contains(words), "{error}");
        assert!(!error.contains("LabelType"), "{error}");
    }
}
