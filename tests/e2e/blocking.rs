//! What an operator switches by hand: names blocked and allowed, lists disabled, all blocking paused; at once, for a time, over a
//! restart and a reload.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::client::Datagrams;
use crate::http::{Reply, get, post};
use crate::message::{self, A, Message, NOERROR, query_with};
use crate::node::{Clock, Node, Setup, eventually};
use crate::ports::{self, Directory};
use crate::scripted::{Scripted, Step};

const TOKEN: &str = "[api]\ntoken = \"0123456789abcdef\"\n";
const BEARER: &str = "Authorization: Bearer 0123456789abcdef";
const JSON: &str = "Content-Type: application/json";
const CNAME: u16 = 5;

/// A node with two lists, asked by tests and commanded over its API.
struct Operated {
    node: Node,
    api: SocketAddr,
    clock: Clock,
    directory: Directory,
    upstream: Scripted,
}

/// Has an address for every name; those below `shop.test` lead through `cloaked.test`.
fn upstream() -> Scripted {
    Scripted::start(|asked| {
        let qname = asked.qname();
        if !qname.ends_with("shop.test.") {
            return vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))];
        }
        let target = message::name("cloaked.test");
        let alias = message::record(&qname, CNAME, 300, &target);
        let address = message::record("cloaked.test", A, 300, &[192, 0, 2, 1]);
        vec![Step::Reply(message::response(&asked.message, NOERROR, &[alias, address], &[]))]
    })
}

impl Operated {
    fn start() -> Self {
        let (directory, clock, upstream) = (Directory::create(), Clock::new(), upstream());
        let (node, api) = Self::node(&Self::config(&directory), &clock, &upstream);
        Self { node, api, clock, directory, upstream }
    }

    fn config(directory: &Directory) -> String {
        let ads = directory.write("ads", "||ads.test^\n||both.test^\n");
        let games = directory.write("games", "||games.test^\n||both.test^\n");
        format!(
            "{TOKEN}[filter]\ndirectory = '{}'\n[query_log]\npath = '{}'\ntop = 100\n\
             [[list]]\nname = 'ads'\nfile = '{}'\n[[list]]\nname = 'games'\nfile = '{}'\nanswer = 'nxdomain'\n",
            directory.path().join("lists").display(),
            directory.path().join("queries.sqlite").display(),
            ads.display(),
            games.display()
        )
    }

    fn node(config: &str, clock: &Clock, upstream: &Scripted) -> (Node, SocketAddr) {
        let api = ports::own();
        let setup = Setup::new().upstream(upstream.address).api(api).config(config);
        (setup.environment("DNS_TEST_CLOCK", &clock.path()).start(), api)
    }

    /// Ends the node, and starts it anew with what it has left.
    fn restart(&mut self) {
        self.node.signal("TERM");
        assert!(self.node.wait_for_exit().success());
        let config = Self::config(&self.directory);
        (self.node, self.api) = Self::node(&config, &self.clock, &self.upstream);
    }

    fn switches(&self) -> PathBuf {
        self.directory.path().join("lists/switches")
    }

    fn command(&self, path: &str, body: &Value) -> Reply {
        post(self.api, &format!("/api/v1/{path}"), &[BEARER, JSON], &body.to_string())
    }

    /// What a command that succeeds says.
    fn commanded(&self, path: &str, body: &Value) -> Value {
        let reply = self.command(path, body);
        assert_eq!(reply.status, 200, "{path} {body}: {}", reply.body);
        reply.json()
    }

    fn told(&self, path: &str) -> Value {
        let reply = get(self.api, &format!("/api/v1/{path}"), &[BEARER]);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.json()
    }

    fn ask(&self, qname: &str) -> Message {
        let message = query_with(7, qname, A, &[message::opt(1232, 0, 0, &[])]);
        Datagrams::from(Ipv4Addr::LOCALHOST, self.node.address).exchange(&message)
    }

    /// Which of `names` are blocked.
    fn blocked<'n>(&self, names: &[&'n str]) -> Vec<&'n str> {
        let is_blocked = |qname: &&&str| self.ask(qname).extended_error() == Some(15);
        names.iter().filter(is_blocked).copied().collect()
    }

    fn hits(&self, labels: &str) -> u64 {
        self.node.counters().sum("dns_filter_hits_total", labels)
    }
}

#[test]
fn override_comes_before_lists_and_is_taken_back() {
    let operated = Operated::start();
    let names = ["ads.test", "x.ads.test", "news.test", "x.news.test"];
    assert_eq!(operated.blocked(&names), ["ads.test", "x.ads.test"]);
    let add = |body| operated.commanded("overrides/add", &body);
    let told = add(json!({ "name": "ADS.test.", "action": "allow", "subtree": true }));
    let expected = json!({
        "name": "ads.test", "names": ["ads.test"], "action": "allow", "subtree": true, "expires_at": null,
        "local": [], "kept": true, "late": 0,
    });
    assert_eq!(told, expected);
    add(json!({ "name": "news.test", "action": "block" }));
    assert_eq!(operated.blocked(&names), ["news.test"]);
    let reply = operated.ask("news.test");
    assert_eq!(reply.option(15).unwrap(), b"\0\x0foverrides");
    assert_eq!(reply.records.first().unwrap().rdata, [0; 4]);
    // A name near by has its own word.
    add(json!({ "name": "x.ads.test", "action": "block" }));
    assert_eq!(operated.blocked(&names), ["x.ads.test", "news.test"]);
    assert!(operated.hits("list=\"overrides\",outcome=\"blocked\"") >= 3);
    assert!(operated.hits("list=\"overrides\",outcome=\"allowed\"") >= 3);
    let lists = operated.told("lists");
    assert_eq!(lists["overrides"].as_array().unwrap().len(), 3);
    assert_eq!(operated.told("status")["blocking"]["overrides"], 3);
    for name in names {
        operated.commanded("overrides/remove", &json!({ "name": name }));
    }
    let again = operated.commanded("overrides/remove", &json!({ "name": "news.test" }));
    assert_eq!(again["removed"], false);
    assert_eq!(operated.blocked(&names), ["ads.test", "x.ads.test"]);
}

#[test]
fn override_counts_for_aliases_in_answers() {
    let operated = Operated::start();
    let names = ["a.shop.test", "b.shop.test"];
    assert!(operated.blocked(&names).is_empty());
    operated.commanded("overrides/add", &json!({ "name": "cloaked.test", "action": "block" }));
    // From the cache, and from upstreams.
    assert_eq!(operated.blocked(&["a.shop.test", "c.shop.test"]), ["a.shop.test", "c.shop.test"]);
    operated.commanded("overrides/add", &json!({ "name": "a.shop.test", "action": "allow" }));
    operated.commanded("overrides/add", &json!({ "name": "d.shop.test", "action": "allow" }));
    let names = ["a.shop.test", "b.shop.test", "d.shop.test"];
    assert_eq!(operated.blocked(&names), ["b.shop.test"]);
}

#[test]
fn what_would_match_nothing_is_refused_and_says_what_is_allowed() {
    let operated = Operated::start();
    for name in ["*.ads.test", "https://ads.test/x", "ads.test:443", "192.0.2.1", "2001:db8::1"] {
        for body in [json!({ "name": name }), json!({ "names": ["good.test", name] })] {
            let mut body = body;
            body["action"] = json!("block");
            let reply = operated.command("overrides/add", &body);
            assert_eq!(reply.status, 400, "{body}");
            let error = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(error.contains(&format!("{name:?} is a")), "{error}");
            assert!(error.contains("--subtree") && error.contains("and below"), "{error}");
        }
    }
    assert_eq!(operated.told("lists")["overrides"], json!([]), "all or none");
    // Whoever means the octet says so; and what was overridden before can be lifted.
    operated.commanded("overrides/add", &json!({ "name": "\\*.ads.test", "action": "block" }));
    let lifted = operated.commanded("overrides/remove", &json!({ "name": "*.ads.test" }));
    assert_eq!(lifted["removed"], true);
}

#[test]
fn what_is_said_for_a_time_ends_with_it() {
    let operated = Operated::start();
    let names = ["ads.test", "games.test", "news.test"];
    let add = |body| operated.commanded("overrides/add", &body);
    let told = add(json!({ "name": "news.test", "action": "block", "for": "10m" }));
    let end = told["expires_at"].as_u64().unwrap();
    assert!(end > 1_700_000_000, "{end}");
    operated.commanded("lists/disable", &json!({ "list": "games", "for": "20m" }));
    operated.commanded("blocking/pause", &json!({ "for": "5m" }));
    assert!(operated.blocked(&names).is_empty());
    let lists = operated.told("lists");
    assert_eq!((&lists["paused"], lists["paused_until"].is_u64()), (&json!(true), true));
    assert_eq!(operated.node.counters().sum("dns_blocking_paused", ""), 1);
    operated.clock.set(301);
    operated.node.wait_for_line("blocking goes on: the pause is over");
    assert_eq!(operated.blocked(&names), ["ads.test", "news.test"]);
    operated.clock.set(601);
    operated.node.wait_for_line("override of news.test. is over");
    assert_eq!(operated.blocked(&names), ["ads.test"]);
    operated.clock.set(1_201);
    operated.node.wait_for_line("list \"games\" is enabled again");
    let reply = operated.ask("games.test");
    assert_eq!(reply.rcode(), 3);
    let lists = operated.told("lists");
    assert_eq!((&lists["paused"], &lists["overrides"]), (&json!(false), &json!([])));
}

#[test]
fn pause_holds_for_overrides_too_and_resume_ends_it() {
    let operated = Operated::start();
    operated.commanded("overrides/add", &json!({ "name": "news.test", "action": "block" }));
    let names = ["ads.test", "news.test"];
    assert_eq!(operated.blocked(&names), names);
    let told = operated.commanded("blocking/pause", &json!({}));
    assert_eq!(told, json!({ "paused": true, "paused_until": null, "kept": true, "late": 0 }));
    assert!(operated.blocked(&names).is_empty());
    assert_eq!(operated.told("status")["blocking"]["paused"], true);
    operated.commanded("blocking/resume", &json!({}));
    assert_eq!(operated.blocked(&names), names);
}

#[test]
fn disabled_list_counts_for_nobody_until_it_is_enabled_and_reloads_leave_it_so() {
    let operated = Operated::start();
    let lists = operated.told("lists");
    let [ads, games] = &lists["lists"].as_array().unwrap()[..] else { panic!("{lists}") };
    assert_eq!(
        (&ads["name"], &ads["rules"], &ads["enabled"]),
        (&json!("ads"), &json!(2), &json!(true))
    );
    assert_eq!((&games["state"], &games["error"]), (&json!("in force"), &json!(null)));
    assert!(ads["source"].as_str().unwrap().ends_with("/ads"), "{ads}");
    let names = ["ads.test", "games.test"];
    assert_eq!(operated.ask("both.test").rcode(), NOERROR);
    let built = operated.node.counters().sum("dns_filter_builds_total", "");
    operated.commanded("lists/disable", &json!({ "list": "ads" }));
    // The other list answers in its own way, and no image was made anew.
    assert_eq!(
        (operated.blocked(&names), operated.ask("both.test").rcode()),
        (vec!["games.test"], 3)
    );
    assert_eq!(operated.node.counters().sum("dns_filter_builds_total", ""), built);
    let lists = operated.told("lists");
    assert_eq!(
        (&lists["lists"][0]["state"], &lists["lists"][1]["hits"]),
        (&json!("disabled"), &json!(2))
    );
    let config = Operated::config(&operated.directory);
    operated.node.reload_with(&format!("{config}[identity]\nid = 'x'\n"));
    operated.directory.write("games", "||games.test^\n||more.test^\n");
    operated.node.reload();
    operated.node.wait_for_line("list \"games\": 2 rules");
    eventually("the new rule", || (operated.ask("more.test").rcode() == 3).then_some(()));
    assert_eq!(operated.blocked(&names), ["games.test"]);
    operated.commanded("lists/enable", &json!({ "list": "ads" }));
    assert_eq!(operated.blocked(&names), names);
    operated.commanded("lists/disable", &json!({ "list": "games", "for": "1h" }));
    assert_eq!(operated.told("lists")["not_in_config"], json!([]));
    let (without, _) = config.rsplit_once("[[list]]").unwrap();
    operated.node.reload_with(without);
    let lists = operated.told("lists");
    let [gone] = &lists["not_in_config"].as_array().unwrap()[..] else { panic!("{lists}") };
    assert_eq!(
        (&gone["name"], &gone["state"], gone["enabled_again_at"].is_u64()),
        (&json!("games"), &json!("not in the config"), true)
    );
    assert_eq!(lists["lists"].as_array().unwrap().len(), 1);
    let enabled = operated.commanded("lists/enable", &json!({ "list": "games" }));
    assert_eq!((&enabled["enabled"], &enabled["in_config"]), (&json!(true), &json!(false)));
    assert_eq!(operated.told("lists")["not_in_config"], json!([]));
    assert_eq!(operated.command("lists/enable", &json!({ "list": "games" })).status, 404);
    operated.node.reload_with(&config);
    let unknown = operated.command("lists/disable", &json!({ "list": "nonsense" }));
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("there are: \\\"ads\\\", \\\"games\\\""), "{}", unknown.body);
}

#[test]
fn one_list_is_looked_at_when_told() {
    let operated = Operated::start();
    operated.directory.write("ads", "||fresh.test^\nads..test\n||a/b\nads.test##.banner\n");
    operated.commanded("lists/refresh", &json!({ "list": "ads" }));
    operated.node.wait_for_line("list \"ads\": 1 rules");
    eventually("the fresh rule", || (!operated.blocked(&["fresh.test"]).is_empty()).then_some(()));
    let ads = &operated.told("lists")["lists"][0];
    assert_eq!((&ads["bad"], &ads["skipped"]), (&json!(1), &json!(2)), "{ads}");
    let looks = |list: &str| {
        operated.node.counters().sum("dns_list_looks_total", &format!("list=\"{list}\""))
    };
    assert_eq!((looks("ads"), looks("games")), (1, 0));
    operated.directory.write("games", "||fresher.test^\n||freshest.test^\n||x.test^\n");
    operated.commanded("lists/refresh", &json!({}));
    operated.node.wait_for_line("list \"games\": 3 rules");
    for outcome in
        ["\"ads\": looked at as asked: unchanged", "\"games\": looked at as asked: changed"]
    {
        operated.node.wait_for_line(outcome);
    }
    std::fs::remove_file(operated.directory.path().join("games")).unwrap();
    for failure in 1..=3 {
        operated.commanded("lists/refresh", &json!({ "list": "games" }));
        operated.node.wait_for_line(&format!("(failure {failure} in a row)"));
    }
    assert_eq!(operated.command("lists/refresh", &json!({ "list": "none" })).status, 404);
}

#[test]
fn what_is_switched_survives_a_restart_and_a_broken_file_does_not_stop_the_node() {
    let mut operated = Operated::start();
    let names = ["ads.test", "games.test", "news.test", "gone.test"];
    let add = |operated: &Operated, body| operated.commanded("overrides/add", &body);
    add(&operated, json!({ "name": "news.test", "action": "block" }));
    add(&operated, json!({ "name": "gone.test", "action": "block", "for": "1m" }));
    operated.commanded("lists/disable", &json!({ "list": "ads" }));
    assert_eq!(operated.blocked(&names), ["games.test", "news.test", "gone.test"]);
    operated.clock.set(61);
    operated.restart();
    // From the first answer on.
    assert_eq!(operated.blocked(&names), ["games.test", "news.test"]);
    assert_eq!(operated.told("lists")["overrides"].as_array().unwrap().len(), 1);
    let mut text = std::fs::read_to_string(operated.switches()).unwrap();
    text = text.replace("news", "nows");
    operated.directory.write("lists/switches", &text);
    operated.restart();
    operated.node.wait_for_line("its checksum does not match; nothing is switched by hand");
    assert_eq!(operated.blocked(&names), ["ads.test", "games.test"]);
    assert!(operated.switches().with_extension("bad").exists());
    operated.commanded("blocking/pause", &json!({}));
    operated.restart();
    assert!(operated.blocked(&names).is_empty());
    operated.node.wait_for_line("blocking paused until told otherwise");
}

#[test]
fn without_a_directory_it_is_said_that_nothing_is_kept() {
    let (api, upstream) = (ports::own(), upstream());
    let node = Setup::new().upstream(upstream.address).api(api).config(TOKEN).start();
    let body = r#"{"name": "news.test", "action": "block"}"#;
    let reply = post(api, "/api/v1/overrides/add", &[BEARER, JSON], body);
    assert_eq!((reply.status, &reply.json()["kept"]), (200, &json!(false)));
    let asked = query_with(7, "news.test", A, &[message::opt(1232, 0, 0, &[])]);
    let blocked = Datagrams::from(Ipv4Addr::LOCALHOST, node.address).exchange(&asked);
    assert_eq!(blocked.extended_error(), Some(15), "a node without lists blocks, too");
    for (path, body, status) in
        [("lists/enable", r#"{"list": "ads"}"#, 404), ("lists/refresh", "{}", 409)]
    {
        let reply = post(api, &format!("/api/v1/{path}"), &[BEARER, JSON], body);
        assert_eq!(reply.status, status, "{path}");
    }
    for path in ["queries", "top"] {
        let reply = get(api, &format!("/api/v1/{path}"), &[BEARER]);
        assert!(reply.status == 409 && reply.body.contains("query_log."), "{path}: {}", reply.body);
    }
}

#[test]
fn blocked_overrides_are_found_in_the_query_log_and_among_the_most_blocked() {
    let operated = Operated::start();
    operated.commanded("overrides/add", &json!({ "name": "news.test", "action": "block" }));
    for qname in ["news.test", "news.test", "ads.test", "free.test"] {
        operated.ask(qname);
    }
    let queries = |query: &str| operated.told(&format!("queries?{query}"));
    let all = eventually("all queries are stored", || {
        let all = queries("");
        (all["queries"].as_array().unwrap().len() == 4).then_some(all)
    });
    assert_eq!((&all["next"], &all["whole"]), (&json!(null), &json!(true)));
    let found = queries("list=overrides");
    let [newest, oldest] = &found["queries"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!(
        (&newest["name"], &newest["answer"], &newest["type"], &newest["rcode"], &newest["client"]),
        (
            &json!("news.test"),
            &json!("blocked"),
            &json!("A"),
            &json!("NOERROR"),
            &json!("127.0.0.1")
        )
    );
    assert!(newest["id"].as_i64() > oldest["id"].as_i64());
    for (query, count) in [
        ("name=EWS.", 2),
        ("under=test", 4),
        ("under=news.test", 2),
        ("client=127.0.0.1", 4),
        ("client=127.0.0.9", 0),
        ("answer=forwarded", 1),
        ("answer=blocked&list=ads", 1),
        ("type=AAAA", 0),
        ("rcode=NXDOMAIN", 0),
        ("group=default", 4),
        ("until=1", 0),
        ("since=1", 4),
    ] {
        assert_eq!(queries(query)["queries"].as_array().unwrap().len(), count, "{query}");
    }
    let first = queries("limit=3");
    let next = first["next"].as_i64().unwrap();
    assert_eq!(queries(&format!("limit=3&before={next}"))["queries"].as_array().unwrap().len(), 1);
    let top = |of: &str| operated.told(&format!("top?of={of}"))["top"].clone();
    let expected = json!([
        { "key": "news.test", "count": 2, "error": 0 },
        { "key": "ads.test", "count": 1, "error": 0 },
    ]);
    assert_eq!(top("blocked"), expected);
    assert_eq!(top("clients"), json!([{ "key": "127.0.0.1", "count": 4, "error": 0 }]));
    assert_eq!(top("names").as_array().unwrap().len(), 3);
    assert_eq!(operated.told("top?limit=1")["top"], json!([expected[0]]));
}
