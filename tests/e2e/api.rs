//! The HTTP API: what it tells and does, whom it refuses, and that whoever misuses it harms nobody.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::client::exchange;
use crate::http::{bare, get, over_socket, post, raw};
use crate::message::{self, A, NOERROR, query};
use crate::node::{Node, PATIENCE, Setup, allowed_cpus, eventually};
use crate::ports::{self, Directory};
use crate::scripted::{Scripted, Step};

const TOKEN: &str = "0123456789abcdef";
const BEARER: &str = "Authorization: Bearer 0123456789abcdef";
const JSON: &str = "Content-Type: application/json";
const FLUSH: &str = "/api/v1/cache/flush";
const LOOKUP: &str = "/api/v1/cache/lookup?name=name.test";

fn upstream() -> Scripted {
    Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
    })
}

/// A node whose API asks for a token.
fn guarded(upstream: &Scripted) -> (Node, SocketAddr) {
    let api = ports::own();
    let setup = Setup::new().upstream(upstream.address).api(api);
    (setup.config(&format!("[api]\ntoken = \"{TOKEN}\"")).start(), api)
}

/// A node whose API anybody on loopback may look at.
fn open(upstream: &Scripted) -> (Node, SocketAddr) {
    let api = ports::own();
    (Setup::new().upstream(upstream.address).api(api).start(), api)
}

fn outcomes(api: SocketAddr) -> Vec<String> {
    let found = get(api, LOOKUP, &[BEARER]).json();
    let cores = found["cores"].as_array().unwrap().iter();
    cores.map(|core| core["outcome"].as_str().unwrap().to_owned()).collect()
}

fn is_served(node: &Node) {
    assert_eq!(exchange(node.address, &query(9, "name.test", A)).rcode(), NOERROR);
}

#[test]
fn every_documented_path_answers_as_documented() {
    let upstream = upstream();
    let (api, directory) = (ports::own(), Directory::create());
    let config = format!(
        "[api]\ntoken = \"{TOKEN}\"\n[query_log]\ntop = 10\npath = '{}'",
        directory.path().join("queries.sqlite").display()
    );
    let node = Setup::new().upstream(upstream.address).api(api).config(&config).start();
    is_served(&node);
    let document = get(api, "/api/v1/openapi.json", &[BEARER]).json();
    assert_eq!(document["openapi"], "3.0.3");
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let Some(operation) = operations.get("get") else { continue };
        if path.ends_with("/live") {
            continue;
        }
        let is_about_a_name = path.ends_with("/lookup") || path.ends_with("/explain");
        let query = if is_about_a_name { "?name=name.test" } else { "" };
        let reply = get(api, &format!("{path}{query}"), &[BEARER]);
        assert_eq!(reply.status, 200, "{path}");
        let content = &operation["responses"]["200"]["content"];
        let media = reply.header("content-type").unwrap();
        let schema = &content[media]["schema"];
        assert!(schema.is_object(), "{path}: {media} in {content}");
        if let Some(members) = schema["required"].as_array() {
            let body = reply.json();
            let told: Vec<&String> = body.as_object().unwrap().keys().collect();
            assert_eq!(members.iter().collect::<Vec<_>>(), told, "{path}");
            for (name, value) in body.as_object().unwrap() {
                let form = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "boolean",
                    Value::Number(_) => "integer",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                };
                let property = &schema["properties"][name];
                let is_so =
                    property["type"] == form || (value.is_null() && property["nullable"] == true);
                assert!(is_so, "{path}: {name}: {form}, {property}");
            }
        }
        asked += 1;
    }
    assert!(asked >= 12, "{asked}");
}

#[test]
fn status_and_stats_tell_what_runs_and_what_it_did() {
    let upstream = upstream();
    let (node, api) = open(&upstream);
    is_served(&node);
    is_served(&node);
    let status = get(api, "/api/v1/status", &[]).json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["listen"], json!([node.address.to_string()]));
    assert_eq!((&status["io"], &status["optimizations"]["simd"]), (&json!("uring"), &json!(true)));
    let stats = get(api, "/api/v1/stats", &[]).json();
    let total = &stats["total"];
    assert_eq!(
        (&total["queries"], &total["hits"], &total["misses"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!((&total["hit_rate"], &stats["responses"]["NOERROR"]), (&json!(0.5), &json!(2)));
    assert_eq!(stats["cores"][0]["entries"], 1);
    let upstreams = get(api, "/api/v1/upstreams", &[]).json();
    let state = &upstreams["upstreams"][0];
    assert_eq!(state["upstream"], upstream.address.to_string());
    assert!(state["cores"][0]["rtt_ms"].as_f64().unwrap() > 0.0, "{state}");
}

#[test]
fn config_is_told_without_secrets() {
    let upstream = upstream();
    let (node, api) = guarded(&upstream);
    let reply = get(api, "/api/v1/config", &[BEARER]);
    assert_eq!(reply.json()["config"]["listen"], format!("{} (UDP and TCP)", node.address));
    assert!(reply.body.contains("who has the token may do everything"), "{}", reply.body);
    assert!(!reply.body.contains(TOKEN) && !node.log().contains(TOKEN));
}

#[test]
fn flush_reaches_all_cores_and_the_upstream_is_asked_again() {
    let upstream = upstream();
    let cpus = allowed_cpus();
    let cores: Vec<String> = cpus.iter().take(2).map(ToString::to_string).collect();
    let api = ports::own();
    let setup = Setup::new().upstream(upstream.address).api(api).cores(&cores.join(","));
    let node = setup.config(&format!("[api]\ntoken = \"{TOKEN}\"")).start();
    let all_know = || {
        is_served(&node);
        outcomes(api).iter().all(|outcome| outcome == "fresh").then_some(())
    };
    eventually("all cores know the name", all_know);
    for body in [
        r#"{"name": "name.test"}"#,
        r#"{"name": "TEST.", "subtree": true}"#,
        r#"{"name": "name.test", "type": "A"}"#,
        r#"{"type": "A"}"#,
        r#"{"all": true}"#,
    ] {
        eventually("all cores know the name", all_know);
        let before = upstream.count("name.test.");
        let reply = post(api, FLUSH, &[BEARER, JSON], body);
        assert_eq!(reply.status, 200, "{body}: {}", reply.body);
        eventually("no core knows the name", || {
            outcomes(api).iter().all(|outcome| outcome != "fresh").then_some(())
        });
        is_served(&node);
        assert!(upstream.count("name.test.") > before, "{body}");
    }
    eventually("all cores know the name", all_know);
    let others = post(api, FLUSH, &[BEARER, JSON], r#"{"name": "ame.test", "subtree": true}"#);
    assert_eq!(others.json()["flushed"], "ame.test and below");
    assert!(outcomes(api).iter().all(|outcome| outcome == "fresh"));
}

#[test]
fn dump_streams_what_lies_under_a_name_up_to_its_limit() {
    let upstream = upstream();
    let (node, api) = guarded(&upstream);
    for number in 0..50 {
        exchange(node.address, &query(1, &format!("host{number}.site.test"), A));
    }
    exchange(node.address, &query(1, "other.test", A));
    let lines = |query: &str| {
        let reply = get(api, &format!("/api/v1/cache/dump{query}"), &[BEARER]);
        let lines: Vec<Value> =
            reply.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines
    };
    let mut all: Vec<Value> = lines("").iter().map(|line| line["name"].clone()).collect();
    all.sort_by_key(ToString::to_string);
    all.dedup();
    assert_eq!(all.len(), 51);
    assert_eq!(lines("?under=SITE.test").len(), 50);
    assert_eq!(lines("?under=site.test&limit=7").len(), 7);
    let [line] = &lines("?under=other.test")[..] else { panic!("one entry") };
    assert_eq!(
        (&line["type"], &line["state"], &line["rcode"]),
        (&json!("A"), &json!("fresh"), &json!("NOERROR"))
    );
    assert!(line["ttl"].as_u64().unwrap() <= 300 && line["core"] == 0, "{line}");
}

#[test]
fn without_the_token_nothing_is_told_or_done() {
    let upstream = upstream();
    let (node, api) = guarded(&upstream);
    is_served(&node);
    let wrong = ["Authorization: Bearer 0123456789abcdeF", "Authorization: Basic Og==", "X: y"];
    for header in wrong {
        for path in ["/metrics", "/api/v1/status", "/api/v1/config", LOOKUP, "/nowhere"] {
            let reply = get(api, path, &[header]);
            assert_eq!(reply.status, 401, "{header} {path}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
        assert_eq!(post(api, FLUSH, &[header, JSON], r#"{"all": true}"#).status, 401);
    }
    assert_eq!(outcomes(api), ["fresh"]);
    assert_eq!(get(api, "/metrics", &[BEARER]).status, 200);
}

#[test]
fn loopback_without_a_token_sees_figures_and_commands_nothing() {
    let upstream = upstream();
    let (node, api) = open(&upstream);
    is_served(&node);
    for path in [
        LOOKUP,
        "/api/v1/cache/dump",
        "/api/v1/config",
        "/api/v1/lists",
        "/api/v1/queries",
        "/api/v1/top",
        "/api/v1/explain?name=name.test",
        "/api/v1/decisions",
    ] {
        assert_eq!(get(api, path, &[]).status, 403, "{path}");
    }
    for (path, body) in [
        (FLUSH, r#"{"all": true}"#),
        ("/api/v1/snapshot", "{}"),
        ("/api/v1/reload", "{}"),
        ("/api/v1/log-level", r#"{"level": "error"}"#),
        ("/api/v1/lists/disable", r#"{"list": "ads"}"#),
        ("/api/v1/lists/enable", r#"{"list": "ads"}"#),
        ("/api/v1/lists/refresh", "{}"),
        ("/api/v1/overrides/add", r#"{"name": "name.test", "action": "block"}"#),
        ("/api/v1/overrides/remove", r#"{"name": "name.test"}"#),
        ("/api/v1/blocking/pause", "{}"),
        ("/api/v1/blocking/resume", "{}"),
    ] {
        assert_eq!(post(api, path, &[JSON], body).status, 403, "{path}");
    }
    assert_eq!(get(api, "/api/v1/log-level", &[]).json()["level"], "info");
    for strange in
        ["Host: evil.example", "Origin: http://evil.example", "Sec-Fetch-Site: cross-site"]
    {
        assert_eq!(get(api, "/api/v1/status", &[strange]).status, 403, "{strange}");
    }
    assert_eq!(get(api, "/api/v1/status", &["Host: 127.0.0.1:8053"]).status, 200);
    is_served(&node);
    assert_eq!(upstream.count("name.test."), 1, "nothing was flushed");
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let upstream = upstream();
    let (_node, api) = guarded(&upstream);
    let refused = |reply: crate::http::Reply| {
        (reply.status, reply.json()["error"].as_str().unwrap().to_owned())
    };
    for (path, status, words) in [
        ("/api/v1/cache/lookup", 400, "name is missing: expected a domain name"),
        ("/api/v1/cache/lookup?name=a..b", 400, "is no domain name"),
        ("/api/v1/cache/lookup?name=a&type=NONE", 400, "is no record type"),
        (
            "/api/v1/cache/lookup?name=a&nmae=b",
            400,
            "unknown parameter \"nmae\"; known: name, type",
        ),
        ("/api/v1/cache/lookup?name=%zz", 400, "not well encoded"),
        ("/api/v1/cache/dump?limit=0", 400, "limit: expected a number from 1 to 10000000"),
        ("/api/v1/status?x=1", 400, "unknown parameter \"x\"; known: none"),
        ("/api/v1/../../etc/passwd", 404, "no such path"),
        ("/api/v1/%73tatus", 404, "no such path"),
        ("//metrics", 404, "no such path"),
        ("/metrics/", 404, "no such path"),
        ("/metrics%00", 404, "no such path"),
        (FLUSH, 405, "does not take that method"),
    ] {
        let (seen, text) = refused(get(api, path, &[BEARER]));
        assert!(seen == status && text.contains(words), "{path}: {seen} {text}");
    }
    for (media, body, status, words) in [
        (JSON, "{}", 400, "say one of these: name"),
        (JSON, "[]", 400, "must be a JSON object"),
        (JSON, "{", 400, "is no JSON"),
        (JSON, r#"{"name": 1}"#, 400, "name: expected a domain name"),
        (
            "Content-Type: text/plain",
            r#"{"all": true}"#,
            415,
            "expected Content-Type: application/json",
        ),
    ] {
        let (seen, text) = refused(post(api, FLUSH, &[BEARER, media], body));
        assert!(seen == status && text.contains(words), "{body}: {seen} {text}");
    }
}

#[test]
fn head_is_answered_as_get_without_a_body() {
    let upstream = upstream();
    let (_node, api) = guarded(&upstream);
    let asked = |method: &str, path: &str| bare(api, method, path, &[BEARER]);
    for path in ["/", "/page.js", "/api/v1/openapi.json", "/api/v1/log-level", "/nowhere"] {
        let (head, whole) = (asked("HEAD", path), asked("GET", path));
        assert_eq!((head.status, head.body.as_str()), (whole.status, ""), "{path}");
        for field in ["content-type", "content-length", "etag"] {
            assert_eq!(head.header(field), whole.header(field), "{path}: {field}");
        }
    }
    assert_eq!(asked("HEAD", "/api/v1/cache/dump").body, "");
    assert_eq!(asked("HEAD", FLUSH).status, 405);
    assert_eq!(asked("PUT", "/api/v1/status").header("allow"), Some("GET, HEAD"));
}

#[test]
fn oversized_and_broken_requests_are_refused() {
    let upstream = upstream();
    let (node, api) = guarded(&upstream);
    let head = format!("POST {FLUSH} HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\n");
    let large = format!("{head}Content-Length: 1000000\r\n\r\n");
    assert_eq!(raw(api, large.as_bytes()).unwrap().status, 413);
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(3));
    if let Some(reply) = raw(api, chunked.as_bytes()) {
        assert_eq!(reply.status, 413);
    }
    let field = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let fields = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1_000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
    for request in [
        field,
        fields,
        long,
        "\u{16}\u{3}\u{1}".into(),
        "GET\r\n\r\n".into(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
    ] {
        if let Some(reply) = raw(api, request.as_bytes()) {
            assert!((400..500).contains(&reply.status), "{}", reply.status);
        }
    }
    assert_eq!(get(api, "/api/v1/status", &[BEARER]).status, 200);
    is_served(&node);
    assert_eq!(upstream.count("name.test."), 1);
}

#[test]
fn slow_clients_are_given_up_and_crowds_leave_the_node_alone() {
    let upstream = upstream();
    let (node, api) = guarded(&upstream);
    let mut slow: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(api).unwrap()).collect();
    for stream in &mut slow {
        // Some are closed by now, for want of room.
        let _ = stream.write_all(b"GET /metr");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    is_served(&node);
    for stream in &mut slow {
        // The end, or a reset, but no endless wait.
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    let text = get(api, "/metrics", &[BEARER]).body;
    let refused = text.lines().find_map(|line| line.strip_prefix("api_connections_refused_total "));
    assert!(refused.unwrap().parse::<u64>().unwrap() > 0, "{refused:?}");
    is_served(&node);
}

#[test]
fn client_that_takes_no_replies_is_given_up() {
    let upstream = upstream();
    let (node, api) = guarded(&upstream);
    let mut stream = TcpStream::connect(api).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n\r\n");
    let error = loop {
        if let Err(error) = stream.write_all(request.as_bytes()) {
            break error;
        }
    };
    // The node's doing, not that of our own patience.
    assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
    assert_eq!(get(api, "/api/v1/status", &[BEARER]).status, 200);
    is_served(&node);
}

#[test]
fn unix_socket_serves_whoever_may_open_it_and_goes_with_the_node() {
    let directory = Directory::create();
    let socket: PathBuf = directory.path().join("api.sock");
    let place = format!("unix:{}", socket.display());
    let upstream = upstream();
    let start = || Setup::new().upstream(upstream.address).api(&place).start();
    let mut node = start();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    is_served(&node);
    let reply = over_socket(&socket, "POST", FLUSH, &[JSON], r#"{"all": true}"#);
    assert_eq!(reply.json()["flushed"], "everything");
    assert_eq!(over_socket(&socket, "GET", "/metrics", &["Host: anything"], "").status, 200);
    let mut second = Setup::new().api(&place).spawn();
    assert_eq!(second.wait_for_exit().code(), Some(2));
    assert!(second.log().contains("api.listen: cannot listen on unix:"), "{}", second.log());
    assert_eq!(over_socket(&socket, "GET", "/metrics", &[], "").status, 200);
    node.signal("TERM");
    assert!(node.wait_for_exit().success());
    assert!(!socket.exists());
    drop(start());
    assert!(socket.exists(), "killed, it leaves its socket");
    let _node = start();
    assert_eq!(over_socket(&socket, "GET", "/metrics", &[], "").status, 200);
}

#[test]
fn tls_is_all_that_is_spoken_where_a_certificate_is_set() {
    let authority = Authority::create();
    let api = ports::own();
    let certified = authority.certify(&[&api.ip().to_string()]);
    let [key, certificate] = authority.files(&certified);
    let keys = format!(
        "[api]\ntoken = \"{TOKEN}\"\ncertificate = \"{}\"\nkey = \"{}\"",
        certificate.display(),
        key.display()
    );
    let _node = Setup::new().api(api).config(&keys).start();
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-no_ign_eof",
            "-verify_return_error",
            "-connect",
            &api.to_string(),
            "-CAfile",
        ])
        .arg(authority.roots())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request =
        format!("GET /api/v1/status HTTP/1.1\r\nHost: x\r\n{BEARER}\r\nConnection: close\r\n\r\n");
    let mut input = client.stdin.take().unwrap();
    input.write_all(request.as_bytes()).unwrap();
    let mut said = String::new();
    client.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    drop(input);
    client.wait().unwrap();
    assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
    assert!(raw(api, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").is_none());
}

#[test]
fn log_level_follows_the_command() {
    let upstream = upstream();
    let (node, api) = guarded(&upstream);
    let set = |level: &str| {
        post(api, "/api/v1/log-level", &[BEARER, JSON], &json!({ "level": level }).to_string())
    };
    let flush =
        |name: &str| post(api, FLUSH, &[BEARER, JSON], &json!({ "name": name }).to_string()).status;
    assert_eq!(flush("first.test"), 200);
    node.wait_for_line("flushed by command: first.test");
    assert_eq!(set("error").json()["level"], "error");
    assert_eq!(get(api, "/api/v1/log-level", &[BEARER]).json()["level"], "error");
    assert_eq!(flush("second.test"), 200);
    assert_eq!(set("info").status, 200);
    assert_eq!(flush("third.test"), 200);
    node.wait_for_line("flushed by command: third.test");
    assert!(!node.log().contains("second.test"), "{}", node.log());
    assert_eq!(set("loud").status, 400);
}

#[test]
fn snapshot_is_written_when_it_is_asked_for() {
    let upstream = upstream();
    let (_node, api) = guarded(&upstream);
    assert_eq!(post(api, "/api/v1/snapshot", &[BEARER, JSON], "").status, 409);
    let directory = Directory::create();
    let path = directory.path().join("cache");
    let keys = format!("[cache]\nsnapshot = {path:?}\n[api]\ntoken = \"{TOKEN}\"");
    let api = ports::own();
    let node = Setup::new().upstream(upstream.address).api(api).config(&keys).start();
    assert!(!path.exists());
    assert_eq!(post(api, "/api/v1/snapshot", &[BEARER, JSON], "").json()["asked"], true);
    eventually("a snapshot", || path.exists().then_some(()));
    node.wait_for_line("snapshot ");
}

#[test]
fn reload_tells_what_it_has_put_in_force() {
    let api = ports::own();
    let base = format!("[api]\ntoken = \"{TOKEN}\"\n");
    let node = Setup::new().upstream(upstream().address).api(api).config(&base).start();
    let reload = || post(api, "/api/v1/reload", &[BEARER, JSON], "");
    assert_eq!(reload().json()["applied"], json!([]));
    node.reconfigure(&format!(
        "{base}[cache]\nprefetch = false\nhot = 11\n[identity]\nid = 'here'\n"
    ));
    let told = reload().json();
    assert_eq!(told["applied"], json!(["cache", "identity"]));
    assert_eq!(told["needs_restart"][0]["key"], "cache.hot");
    let status = get(api, "/api/v1/status", &[BEARER]).json();
    assert_eq!(status["optimizations"]["prefetch"], false);
    node.reconfigure("[acl]\nallow = 'nobody'\n");
    let refused = reload();
    assert_eq!(refused.status, 409);
    assert!(refused.json()["error"].as_str().unwrap().contains("acl.allow"), "the key is named");
    let metrics = get(api, "/metrics", &[BEARER]);
    assert!(metrics.body.contains("dns_config_reloads_total{outcome=\"refused\"} 1\n"));
}

#[test]
fn live_events_come_second_by_second() {
    let upstream = upstream();
    let (_node, api) = open(&upstream);
    let mut stream = TcpStream::connect(api).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    eventually("two events", || {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        (text.matches("\"queries_per_second\":").count() >= 2).then_some(())
    });
    assert!(text.contains("content-type: text/event-stream\r\n"), "{text}");
}

#[test]
fn live_events_carry_what_is_seen_most_for_those_alone_who_may_see_it() {
    let upstream = upstream();
    let keys = "[query_log]\ntop = 9\n";
    for (keys, header, is_told) in [
        (format!("{keys}[api]\ntoken = \"{TOKEN}\""), BEARER, true),
        (keys.to_owned(), "X: y", false),
    ] {
        let api = ports::own();
        let node = Setup::new().upstream(upstream.address).api(api).config(&keys).start();
        is_served(&node);
        let mut stream = TcpStream::connect(api).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        eventually("events", || {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            let events = text.matches("\"queries_per_second\":").count();
            let wanted = if is_told { text.contains("\"key\":\"name.test\"") } else { events >= 3 };
            wanted.then_some(())
        });
        assert_eq!(text.contains("127.0.0.1") || text.contains("name.test"), is_told, "{text}");
    }
}

#[test]
fn mistakes_in_the_config_are_told_before_anything_is_served() {
    let cases = [
        ("192.0.2.1:8053", "", "is reached by others: it needs api.token"),
        (
            "127.0.0.1:8053",
            "[api]\ntoken_file = \"/nonexistent/token\"",
            "api.token_file: /nonexistent/token: ",
        ),
        (
            "127.0.0.1:8053",
            "[api]\ncertificate = \"/nonexistent/cert\"\nkey = \"/nonexistent/key\"",
            "api.certificate: /nonexistent/cert: ",
        ),
        (
            "unix:/nonexistent/api.sock",
            "",
            "api.listen: cannot listen on unix:/nonexistent/api.sock: ",
        ),
    ];
    for (listen, keys, words) in cases {
        for check in [true, false] {
            let mut setup = Setup::new().api(listen).config(keys);
            if check {
                setup = setup.argument("--check");
            }
            let mut node = setup.spawn();
            assert_eq!(node.wait_for_exit().code(), Some(2), "{listen}");
            assert!(node.log().contains(words), "{}", node.log());
        }
    }
}

#[test]
fn renewed_token_and_certificate_are_taken_up_by_a_reload_and_said() {
    let upstream = upstream();
    let (directory, api) = (Directory::create(), ports::own());
    let (old, new) = (Authority::create(), Authority::create());
    let put = |authority: &Authority, token: &str| {
        let [key, certificate] = authority.files(&authority.certify(&["127.0.0.1"]));
        std::fs::copy(certificate, directory.path().join("cert.pem")).unwrap();
        std::fs::copy(key, directory.path().join("key.pem")).unwrap();
        directory.write("token", token);
        // What the node must show, for `ctl`.
        std::fs::read_to_string(directory.path().join("cert.pem")).unwrap()
    };
    let first_shown = directory.write("old.pem", &put(&old, TOKEN));
    let place = directory.path().display();
    let config = format!(
        "[api]\ntoken_file = '{place}/token'\ncertificate = '{place}/cert.pem'\nkey = '{place}/key.pem'\n"
    );
    let node = Setup::new().upstream(upstream.address).api(api).config(&config).start();
    let told = |certificate: &PathBuf, token: &str| {
        let token = directory.write("shown", token);
        let mut command = Command::new(env!("CARGO_BIN_EXE_heimdall-uring"));
        command.args(["ctl", "--api", &api.to_string(), "--token-file", token.to_str().unwrap()]);
        command.args(["--certificate", certificate.to_str().unwrap(), "status"]);
        command.output().unwrap().status.success()
    };
    assert!(told(&first_shown, TOKEN) && !told(&first_shown, "fedcba9876543210"));
    let line = node.reload();
    assert!(line.ends_with("reload: nothing to apply"), "{line}");
    let second_shown = directory.write("new.pem", &put(&new, "fedcba9876543210"));
    assert!(told(&first_shown, TOKEN), "not before it is asked for");
    let line = node.reload();
    assert!(line.ends_with("reload: applied api"), "{line}");
    node.wait_for_line("api: from now on it goes by another token and another certificate");
    assert!(
        told(&second_shown, "fedcba9876543210")
            && !told(&second_shown, TOKEN)
            && !told(&first_shown, "fedcba9876543210")
    );
    directory.write("token", "short");
    let line = node.reload();
    assert!(line.contains("reload refused") && line.contains("api.token_file"), "{line}");
    assert!(told(&second_shown, "fedcba9876543210"));
}

#[test]
fn live_events_end_when_their_token_is_exchanged() {
    let (directory, api, upstream) = (Directory::create(), ports::own(), upstream());
    let file = directory.write("token", TOKEN);
    let config = format!("[api]\ntoken_file = '{}'\n", file.display());
    let node = Setup::new().upstream(upstream.address).api(api).config(&config).start();
    let mut stream = TcpStream::connect(api).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("data: ") {
        let count = stream.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    // The same token again ends nothing.
    node.reload();
    let count = stream.read(&mut buffer).unwrap();
    assert!(count > 0 && !buffer[..count].ends_with(b"0\r\n\r\n"));
    directory.write("token", "fedcba9876543210");
    node.reload();
    let mut last = Vec::new();
    eventually("the last chunk", || {
        let count = stream.read(&mut buffer).unwrap();
        last.extend_from_slice(&buffer[..count]);
        (count == 0 || last.ends_with(b"0\r\n\r\n")).then_some(())
    });
    assert_eq!(get(api, "/api/v1/live", &[BEARER]).status, 401);
}

#[test]
fn names_are_told_in_one_form() {
    let upstream = upstream();
    let (node, api) = guarded(&upstream);
    assert_eq!(exchange(node.address, &query(9, "WWW.Name.test", A)).rcode(), NOERROR);
    let told = |path: &str| {
        let reply = get(api, &format!("/api/v1/{path}"), &[BEARER]);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.json()
    };
    let explained = told("explain?name=WWW.name.TEST.");
    let looked_up = told("cache/lookup?name=WWW.name.TEST.");
    let decided = told("decisions?name=www.name.test");
    let entry = looked_up["cores"].as_array().unwrap().iter().map(|core| &core["entry"]);
    let entry = entry.filter(|entry| !entry.is_null()).map(|entry| &entry["name"]);
    let names = [&explained["name"], &looked_up["name"], &decided["decisions"][0]["name"]];
    let names: Vec<_> = names.into_iter().chain(entry).collect();
    assert!(names.len() > 3 && names.iter().all(|name| **name == "www.name.test"), "{names:?}");
    let dump = get(api, "/api/v1/cache/dump", &[BEARER]).body;
    assert!(dump.contains("\"name\":\"www.name.test\""), "{dump}");
}
