//! Lists of names as the node keeps them: from files and servers, over restarts, on SIGHUP; told by its log and counters.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::certificates::Authority;
use crate::http::post;
use crate::node::{Node, Setup, eventually};
use crate::ports::{self, Directory};

/// A server of one list, which can be changed and taken off the network.
struct Web {
    address: SocketAddr,
    text: Arc<Mutex<String>>,
    is_down: Arc<AtomicBool>,
}

impl Web {
    fn start(text: &str) -> Self {
        Self::serve(text, ports::own(), None)
    }

    fn serve(text: &str, address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let web =
            Self { address, text: Arc::new(Mutex::new(text.to_owned())), is_down: Arc::default() };
        let (text, is_down) = (Arc::clone(&web.text), Arc::clone(&web.is_down));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_down.load(Ordering::Relaxed) {
                    continue;
                }
                let text = text.lock().unwrap().clone();
                match &tls {
                    None => respond(stream, &text),
                    Some(tls) => {
                        let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
                        respond(
                            StreamOwned::<ServerConnection, TcpStream>::new(connection, stream),
                            &text,
                        );
                    }
                }
            }
        });
        web
    }

    fn change(&self, text: &str) {
        text.clone_into(&mut self.text.lock().unwrap());
    }
}

/// Answers one request; its validator is the length of the text.
fn respond(stream: impl Read + Write, text: &str) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if !matches!(reader.read_line(&mut head), Ok(1..)) {
            return;
        }
    }
    let etag = format!("\"{}\"", text.len());
    let is_known = head.contains(&etag);
    let (status, body) = if is_known { ("304 Not Modified", "") } else { ("200 OK", text) };
    let len = body.len();
    // A client that has gone is its own affair.
    let _ = write!(
        reader.get_mut(),
        "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nETag: {etag}\r\nConnection: close\r\n\r\n{body}"
    );
    let _ = reader.get_mut().flush();
}

/// The config of a node whose lists are kept in `directory`.
fn kept(directory: &Directory, lists: &str) -> String {
    format!("[filter]\ndirectory = '{}'\n{lists}", directory.path().join("lists").display())
}

fn rules(node: &Node, list: &str) -> u64 {
    node.counters().sum("dns_list_rules", &format!("\"{list}\""))
}

fn looks(node: &Node, list: &str, outcome: &str) -> u64 {
    let labels = format!("list=\"{list}\",outcome=\"{outcome}\"");
    node.counters().sum("dns_list_looks_total", &labels)
}

#[test]
fn lists_are_in_force_from_the_start_and_read_again_on_sighup() {
    let directory = Directory::create();
    let ads =
        directory.write("ads", "0.0.0.0 ads.example\n0.0.0.0 b.example\nno list line at all\n");
    let web = Web::start("||tracker.example^\n");
    let lists = format!(
        "[[list]]\nname = 'ads'\nfile = '{}'\n[[list]]\nname = 'web'\nurl = 'http://me:secret@{}/x?key=secret'\n",
        ads.display(),
        web.address
    );
    let node = Setup::new().config(&lists).start();
    node.wait_for_line("list \"ads\": 2 rules, 1 bad lines (line 3: ");
    node.wait_for_line("list \"web\": 1 rules, 0 bad lines");
    node.wait_for_line("lists: 3 names, ");
    assert_eq!((rules(&node, "ads"), rules(&node, "web")), (2, 1));
    let counters = node.counters();
    assert_eq!(counters.sum("dns_filter_names", ""), 3);
    assert!(counters.sum("dns_filter_image_bytes", "") > 0);
    assert!(counters.sum("dns_list_confirmed_timestamp_seconds", "web") > 1_700_000_000);
    directory.write("ads", "0.0.0.0 ads.example\n");
    web.change("||tracker.example^\n||c.example^\n");
    node.signal("HUP");
    node.wait_for_line("list \"web\": 2 rules");
    assert_eq!((rules(&node, "ads"), rules(&node, "web")), (1, 2));
    node.signal("HUP");
    node.wait_for_count("dns_filter_reloads_total", 2);
    eventually("a look without a change", || (looks(&node, "web", "unchanged") == 1).then_some(()));
    assert_eq!((looks(&node, "ads", "changed"), looks(&node, "ads", "unchanged")), (1, 1));
    assert_eq!(node.counters().sum("dns_filter_published_total", ""), 3);
    directory.write("ads", "<html>\n");
    node.signal("HUP");
    node.wait_for_line("holds no rule: nothing is listed by it");
    assert!(!node.log().contains("secret"), "{}", node.log());
}

#[test]
fn restart_has_the_lists_at_once_with_the_network_down() {
    let directory = Directory::create();
    let web = Web::start("||tracker.example^\n||b.example^\n");
    let list = format!("[[list]]\nname = 'web'\nurl = 'http://{}/'\n", web.address);
    let config = kept(&directory, &list);
    let mut node = Setup::new().config(&config).start();
    node.wait_for_line("lists: 2 names, ");
    node.signal("TERM");
    assert!(node.wait_for_exit().success());
    web.is_down.store(true, Ordering::Relaxed);
    let node = Setup::new().config(&config).start();
    node.wait_for_line("bytes, from the image of before");
    assert_eq!(rules(&node, "web"), 2);
    assert_eq!(node.counters().sum("dns_filter_builds_total", ""), 0);
    node.signal("HUP");
    node.wait_for_line("the copy of before stays in force (failure 1 in a row)");
    assert_eq!((rules(&node, "web"), looks(&node, "web", "failed")), (2, 1));
}

#[test]
fn node_serves_before_its_lists_are_there() {
    // Accepts and says nothing.
    let silent = TcpListener::bind(ports::own()).unwrap();
    let list =
        format!("[[list]]\nname = 'web'\nurl = 'http://{}/'\n", silent.local_addr().unwrap());
    let node = Setup::new().config(&list).config("[filter]\ndownload_timeout = '60s'").start();
    assert_eq!((rules(&node, "web"), looks(&node, "web", "failed")), (0, 0));
}

#[test]
fn server_of_a_list_must_be_one_for_which_the_system_vouches() {
    let (authority, stranger) = (Authority::create(), Authority::called("else"));
    let address = ports::own();
    let certified = authority.certify(&[&address.ip().to_string()]);
    let mut tls = (*certified.server_config()).clone();
    tls.alpn_protocols.clear();
    let web = Web::serve("||tracker.example^\n", address, Some(Arc::new(tls)));
    let list = format!("[[list]]\nname = 'web'\nurl = 'https://{}/'\n", web.address);
    let trusting = |authority: &Authority| {
        let roots = authority.roots().to_str().unwrap().to_owned();
        Setup::new().config(&list).environment("SSL_CERT_FILE", &roots).start()
    };
    trusting(&authority).wait_for_line("list \"web\": 1 rules");
    let line = trusting(&stranger).wait_for_line("none of its rules is in force (failure 1");
    assert!(line.contains("certificate"), "{line}");
}

#[test]
fn check_refuses_lists_that_are_not_there_and_a_node_serves_without_them() {
    let directory = Directory::create();
    let path = directory.path().join("ads");
    let list = format!("[[list]]\nname = 'ads'\nfile = '{}'\n", path.display());
    let web = "[[list]]\nname = 'web'\nurl = 'http://192.0.2.1/'\n";
    let config = kept(&directory, &format!("{web}{list}"));
    let missing = format!("list \"ads\": {}: No such file", path.display());
    let mut check = Setup::new().config(&config).argument("--check").spawn();
    assert_eq!(check.wait_for_exit().code(), Some(2), "{}", check.log());
    let said = check.wait_for_line(&missing);
    assert!(said.contains("node.toml:6: ") && !check.log().contains("web"), "{}", check.log());
    assert!(!directory.path().join("lists").exists(), "a check leaves nothing behind");
    let api = ports::own();
    let node =
        Setup::new().api(api).config("[api]\ntoken = '0123456789abcdef'").config(&list).start();
    node.wait_for_line("none of its rules is in force (failure 1 in a row)");
    let reload = || {
        let headers = ["Authorization: Bearer 0123456789abcdef", "Content-Type: application/json"];
        post(api, "/api/v1/reload", &headers, "{}").json()["warnings"].clone()
    };
    let told = reload();
    assert!(told[0].as_str().is_some_and(|told| told.contains(&missing)), "{told}");
    assert!(node.wait_for_line("WARN reload: ").contains(&missing));
    directory.write("ads", "ads.example\n");
    assert_eq!(reload(), serde_json::json!([]));
    let text = Setup::new().config(&config).argument("--check").printed();
    assert!(text.contains("lists:     \"web\" from http://192.0.2.1/"), "{text}");
    assert!(
        text.contains("list \"web\": from http://192.0.2.1/, not downloaded by a check"),
        "{text}"
    );
    assert!(text.contains("list \"ads\": 1 rules, 0 bad lines"), "{text}");
}

#[test]
fn sighup_without_lists_changes_nothing() {
    let node = Setup::new().start();
    node.signal("HUP");
    node.wait_for_line("reload: nothing to apply");
}
