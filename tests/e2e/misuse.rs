//! The API misused: paths and requests that want to slip past it, bytes that drip in for ever. Refused or closed, while clients
//! of the API and of the DNS side are served.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::client::exchange;
use crate::http::{get, post, raw};
use crate::message::{self, A, NOERROR, query};
use crate::node::{Node, PATIENCE, Setup, eventually};
use crate::ports;
use crate::scripted::{Scripted, Step};

const BEARER: &str = "Authorization: Bearer 0123456789abcdef";
const JSON: &str = "Content-Type: application/json";
const SECRET: &str = "/api/v1/config";

fn start(keys: &str) -> (Scripted, Node, SocketAddr) {
    let upstream = Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
    });
    let api = ports::own();
    let node = Setup::new().upstream(upstream.address).api(api).config(keys).start();
    (upstream, node, api)
}

fn guarded() -> (Scripted, Node, SocketAddr) {
    start("[api]\ntoken = \"0123456789abcdef\"")
}

fn is_served(node: &Node) {
    assert_eq!(exchange(node.address, &query(9, "name.test", A)).rcode(), NOERROR);
}

/// Ways to write a path that somebody might take for `/api/v1/config`.
const TRICKS: [&str; 22] = [
    "//api/v1/config",
    "/api//v1/config",
    "/./api/v1/config",
    "/api/v1/./config",
    "/api/v1/../v1/config",
    "/metrics/../api/v1/config",
    "/..//api/v1/config",
    "/%2e%2e/api/v1/config",
    "/api/v1/%2e/config",
    "/api%2fv1%2fconfig",
    "/api/v1/confi%67",
    "/%61pi/v1/config",
    "/api/v1/config%00",
    "/api/v1/config%20",
    "/api/v1/config%3f",
    "/api/v1/config/",
    "/api/v1/config/.",
    "/api/v1/config;x=1",
    "/api/v1/config.json",
    "/API/V1/CONFIG",
    "/api\\v1\\config",
    "/api/v1/config/../../../etc/passwd",
];

#[test]
fn no_other_spelling_of_a_path_leads_past_the_guard() {
    let (_upstream, node, api) = guarded();
    let (_other, _open_node, open) = start("");
    let long = format!("/{}", "a/".repeat(4_000));
    let longer = format!("{SECRET}?{}", "x=y&".repeat(3_000));
    for path in TRICKS.into_iter().chain([long.as_str()]) {
        for (place, header, statuses) in [
            (api, "X: y", &[400, 401][..]),
            (api, BEARER, &[400, 404]),
            (open, "X: y", &[400, 404]),
        ] {
            let reply = get(place, path, &[header]);
            assert!(statuses.contains(&reply.status), "{path} {header}: {}", reply.status);
            assert!(!reply.body.contains("listen"), "{path}: {}", reply.body);
        }
    }
    assert_eq!(get(api, &longer, &["X: y"]).status, 401);
    assert_eq!(get(api, &longer, &[BEARER]).status, 400);
    assert_eq!(get(api, SECRET, &[BEARER]).status, 200);
    is_served(&node);
}

#[test]
fn host_of_an_absolute_form_counts_and_other_forms_are_nothing() {
    let (_upstream, _node, api) = guarded();
    let (_other, node, open) = start("");
    let asked = |place: SocketAddr, line: &str, headers: &str| {
        let request =
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        raw(place, request.as_bytes()).map(|reply| reply.status)
    };
    let secret = format!("GET http://localhost{SECRET}");
    assert_eq!(asked(api, &secret, ""), Some(401));
    assert_eq!(asked(api, &secret, &format!("{BEARER}\r\n")), Some(200));
    assert_eq!(asked(open, &secret, ""), Some(403));
    // HEAD is let in where GET is.
    assert_eq!(asked(api, &secret.replace("GET", "HEAD"), ""), Some(401));
    // What leads a browser here by a name of somebody else says so in one place or the other.
    assert_eq!(asked(open, "GET http://localhost/api/v1/status", ""), Some(200));
    assert_eq!(asked(open, "GET http://evil.example/api/v1/status", ""), Some(403));
    assert_eq!(asked(open, "GET http://user@evil.example:80/api/v1/status", ""), Some(403));
    for line in
        ["OPTIONS *", "CONNECT localhost:80", "TRACE /metrics", "PUT /metrics", "DELETE /metrics"]
    {
        for place in [api, open] {
            let status = asked(place, line, "").unwrap_or(400);
            assert!((400..500).contains(&status), "{line}: {status}");
        }
    }
    is_served(&node);
}

#[test]
fn tokens_that_are_nearly_right_open_nothing_however_many_come() {
    let (_upstream, node, api) = guarded();
    let token = "0123456789abcdef";
    let near = [
        format!("Authorization: Bearer {}", &token[..15]),
        format!("Authorization: Bearer {token}0"),
        format!("Authorization: Bearer {token} {token}"),
        format!("Authorization: Bearer \"{token}\""),
        format!("Authorization: Basic {token}"),
        format!("Authorization: {token}"),
        format!("Authorization: Bearer x\r\n{BEARER}"),
        format!("X-Authorization: Bearer {token}"),
        format!("Cookie: token={token}"),
        "Authorization: ".to_owned(),
        format!("Authorization: Bearer {}", "a".repeat(8_000)),
    ];
    for header in &near {
        assert_eq!(get(api, SECRET, &[header]).status, 401, "{header}");
        assert_eq!(post(api, "/api/v1/blocking/pause", &[header, JSON], "{}").status, 401);
    }
    assert_eq!(get(api, &format!("{SECRET}?token={token}"), &[]).status, 401);
    for number in 0..200 {
        let header = format!("Authorization: Bearer {number:016}");
        assert_eq!(get(api, SECRET, &[&header]).status, 401);
    }
    is_served(&node);
    assert_eq!(get(api, "/api/v1/lists", &[BEARER]).json()["paused"], false);
}

#[test]
fn request_within_a_request_is_not_carried_out() {
    let (_upstream, node, api) = guarded();
    let inner = format!(
        "POST /api/v1/blocking/pause HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let outer = |fields: &str, body: &str| {
        format!(
            "POST /api/v1/cache/flush HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{JSON}\r\n{fields}\r\n\r\n{body}"
        )
    };
    for request in [
        outer("Content-Length: 4\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{inner}")),
        outer("Content-Length: 0\r\nContent-Length: 400", &inner),
        outer(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            &format!("0\r\n\r\n{inner}"),
        ),
        outer("Content-Length: +0", &inner),
        outer("Content-Length: 18446744073709551616", &inner),
        outer("Transfer-Encoding: xchunked", &inner),
        outer("X: y\r\n Folded: z", ""),
    ] {
        let status = raw(api, request.as_bytes()).map_or(400, |reply| reply.status);
        assert!((400..500).contains(&status), "{request}: {status}");
    }
    assert_eq!(get(api, "/api/v1/lists", &[BEARER]).json()["paused"], false);
    is_served(&node);
}

#[test]
fn bodies_that_are_too_much_are_refused_at_every_command() {
    let (_upstream, node, api) = guarded();
    let document = get(api, "/api/v1/openapi.json", &[BEARER]).json();
    let deep = format!("{{\"name\": {}1{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let name = format!("{{\"name\": \"{}\", \"action\": \"block\"}}", "a.".repeat(20_000));
    let huge = format!("{{\"x\": \"{}\"}}", "a".repeat(70_000));
    let mut commands = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        if operations.get("post").is_none() {
            continue;
        }
        commands += 1;
        for (body, status) in [(&deep, 400), (&name, 400), (&huge, 413)] {
            assert_eq!(post(api, path, &[BEARER, JSON], body).status, status, "{path}");
        }
        let stated = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nContent-Length: 9999999999\r\n\r\n"
        );
        assert_eq!(raw(api, stated.as_bytes()).unwrap().status, 413, "{path}");
    }
    assert!(commands >= 10, "{commands}");
    is_served(&node);
}

#[test]
fn clients_whose_bytes_drip_are_given_up_while_others_are_served() {
    let (_upstream, node, api) = guarded();
    let body = format!(
        "POST /api/v1/blocking/pause HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nContent-Length: 60000\r\n\r\n"
    );
    // Fewer than there is room for, so that others find a place.
    let mut dripping: Vec<(TcpStream, bool)> = Vec::new();
    for number in 0..28 {
        let mut stream = TcpStream::connect(api).unwrap();
        let begun = if number % 2 == 0 { body.as_str() } else { "GET /metrics HTTP/1.1\r\nX: " };
        stream.write_all(begun.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        dripping.push((stream, false));
    }
    let mut served = 0;
    eventually("all that drip are given up", || {
        for (stream, is_over) in dripping.iter_mut().filter(|(_, is_over)| !is_over) {
            let mut buffer = [0; 512];
            let is_written = stream.write_all(b" ").is_ok();
            // What comes back is a refusal, or the end.
            *is_over = match stream.read(&mut buffer) {
                Ok(0) => true,
                Ok(_) => false,
                Err(error) => !is_written || error.kind() != ErrorKind::WouldBlock,
            };
        }
        is_served(&node);
        assert_eq!(get(api, "/api/v1/status", &[BEARER]).status, 200);
        served += 1;
        std::thread::sleep(Duration::from_millis(100));
        dripping.iter().all(|(_, is_over)| *is_over).then_some(())
    });
    assert!(served > 1, "others were served meanwhile");
    assert_eq!(get(api, "/api/v1/lists", &[BEARER]).json()["paused"], false);
    let text = get(api, "/metrics", &[BEARER]).body;
    assert!(text.contains("api_connections_refused_total 0\n"), "there was room for all");
}

#[test]
fn crowd_of_dripping_clients_leaves_the_dns_side_alone_and_the_api_comes_back() {
    let (_upstream, node, api) = guarded();
    let mut crowd: Vec<TcpStream> = (0..120).filter_map(|_| TcpStream::connect(api).ok()).collect();
    for stream in &mut crowd {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(b"POST /api/v1/blocking/pause HTTP/1.1\r\nHost: x\r\nContent-Len");
    }
    for _ in 0..50 {
        is_served(&node);
    }
    eventually("the API has room again", || {
        let request = format!(
            "GET /api/v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{BEARER}\r\n\r\n"
        );
        raw(api, request.as_bytes()).filter(|reply| reply.status == 200)
    });
    is_served(&node);
}
