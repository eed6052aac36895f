//! Metrics: what scrapers read, and that it is true.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::certificates::Authority;
use crate::client::{Datagrams, exchange};
use crate::dot::Dot;
use crate::http::get;
use crate::message::{self, A, query};
use crate::node::{Node, Setup, eventually};
use crate::ports;
use crate::scripted::{Scripted, Step};

/// A node with an upstream that answers, and its API.
fn node() -> (Scripted, Node, SocketAddr) {
    let upstream = Scripted::start(|asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
    });
    let api = ports::own();
    let node = Setup::new().upstream(upstream.address).api(api).start();
    (upstream, node, api)
}

fn scrape(api: SocketAddr) -> String {
    get(api, "/metrics", &[]).body
}

/// The sum of all samples of `name` whose labels contain `label`.
fn sum(text: &str, name: &str, label: &str) -> f64 {
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        let (family, labels) = sample.split_once('{').unwrap_or((sample, ""));
        (family == name && labels.contains(label)).then(|| value.parse::<f64>().unwrap())
    });
    let samples: Vec<f64> = samples.collect();
    assert!(!samples.is_empty(), "no sample of {name} with {label:?} in {text}");
    samples.iter().sum()
}

#[test]
fn metrics_are_clean_by_promtools_own_rules() {
    let (_upstream, node, api) = node();
    exchange(node.address, &query(1, "name.test", A));
    let reply = get(api, "/metrics", &[]);
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        return eprintln!("promtool is not installed here (scripts/setup --tests)");
    };
    promtool.stdin.take().unwrap().write_all(reply.body.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn open_metrics_are_told_apart_by_the_accept_header_and_say_each_family_once() {
    let (_upstream, _node, api) = node();
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
    let reply = get(api, "/metrics", &[accept]);
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(reply.header("content-type"), Some(media));
    assert!(reply.body.ends_with("\n# EOF\n"));
    let mut families: Vec<&str> =
        reply.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let told = families.len();
    assert!(told > 80, "{told}");
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), told);
    assert!(reply.body.contains("# TYPE dns_queries counter\n"), "{}", reply.body);
    assert!(reply.body.contains("# UNIT dns_query_duration_seconds seconds\n"), "{}", reply.body);
}

#[test]
fn queries_are_counted_by_type_and_never_uncounted_by_a_scrape() {
    let (_upstream, node, api) = node();
    const TXT: u16 = 16;
    exchange(node.address, &query(1, "name.test", A));
    exchange(node.address, &query(2, "name.test", A));
    exchange(node.address, &query(3, "name.test", TXT));
    exchange(node.address, &query(4, "name.test", 65_280));
    let count = |rtype: &str| {
        sum(&scrape(api), "dns_queries_total", &format!("proto=\"udp\",type=\"{rtype}\""))
    };
    for _ in 0..2 {
        assert_eq!((count("A"), count("TXT"), count("other"), count("none")), (2.0, 1.0, 1.0, 0.0));
    }
    Datagrams::to(node.address).send(&[0; 5]);
    eventually("a message that asks for nothing", || (count("none") == 1.0).then_some(()));
    let text = scrape(api);
    assert_eq!(sum(&text, "dns_queries_total", ""), 5.0);
    assert_eq!(text.matches("heimdall_build_info{version=\"").count(), 1);
}

#[test]
fn durations_of_misses_are_noted_one_by_one_and_of_hits_by_samples() {
    const HITS: u16 = 1_000;
    let (_upstream, node, api) = node();
    let client = Datagrams::to(node.address);
    client.exchange(&query(0, "name.test", A));
    for id in 1..=HITS {
        client.exchange(&query(id, "name.test", A));
    }
    let text = scrape(api);
    let name = "dns_query_duration_seconds_count";
    assert_eq!(sum(&text, name, "cache=\"miss\""), 1.0);
    assert!(sum(&text, "dns_query_duration_seconds_sum", "cache=\"miss\"") > 0.0);
    // A gap is 33 to 95 queries long, and a sample counts 64.
    let hits = sum(&text, name, "cache=\"hit\"");
    assert!((640.0..=2_000.0).contains(&hits) && hits % 64.0 == 0.0, "{hits}");
    let all = sum(&text, "dns_query_duration_seconds_bucket", "cache=\"hit\",le=\"+Inf\"");
    assert_eq!(all, hits);
    assert!(sum(&text, "dns_cache_hit_rate", "") > 0.99);
    assert!(sum(&text, "process_cpu_seconds_total", "") >= 0.0);
    assert!(sum(&text, "dns_upstream_rtt_seconds", "protocol=\"udp\"") > 0.0);
}

#[test]
fn both_doors_show_the_same_families() {
    let (_upstream, node, api) = node();
    exchange(node.address, &query(1, "name.test", A));
    let scraped = scrape(api);
    node.counters();
    let log = node.log();
    for family in scraped.lines().filter(|line| line.starts_with("# TYPE ")) {
        assert!(log.lines().any(|line| line == family), "{family}");
    }
}

/// The names in the table of counters, as docs/OPERATIONS.md has them.
fn documented() -> Vec<&'static str> {
    const OPERATIONS: &str = include_str!("../../docs/OPERATIONS.md");
    let section = OPERATIONS.split("\n## ").find(|part| part.starts_with("Counters\n")).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let names = names.map(|name| name.split('{').next().unwrap());
    names.filter(|name| name.contains('_')).collect()
}

#[test]
fn every_counter_is_in_the_document_and_the_document_has_no_other() {
    let directory = ports::Directory::create();
    let place = directory.path().display();
    let list = directory.write("ads", "||ads.example^\n");
    let config = format!(
        "[cache]\nsnapshot = '{place}/cache'\n[[list]]\nname = 'ads'\nfile = '{}'\n\
         [query_log]\npath = '{place}/queries'\ntop = 10\n[rate]\nqueries_per_second = 1000\n",
        list.display()
    );
    let authority = Authority::create();
    let certified = authority.certify(&["x.example"]);
    let upstream = Dot::start(&certified);
    let (api, place) = (ports::own(), upstream.address);
    let config = format!("{config}[forward]\ntls_roots = '{}'\n", authority.roots().display());
    let setup = Setup::new().upstream(format!("tls://{place}#x.example")).config(&config);
    let node = setup.api(api).start();
    exchange(node.address, &query(1, "name.test", A));
    eventually("the list", || scrape(api).contains("dns_list_rules").then_some(()));
    exchange(node.address, &query(1, "ads.example", A));
    let page = scrape(api);
    let families: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let documented = documented();
    assert!(families.len() > 80 && documented.len() > 80);
    let missing: Vec<_> = families.iter().filter(|name| !documented.contains(name)).collect();
    assert!(missing.is_empty(), "not in the table of docs/OPERATIONS.md: {missing:?}");
    let unknown: Vec<_> = documented.iter().filter(|name| !families.contains(name)).collect();
    assert!(unknown.is_empty(), "in the table, and not on the page: {unknown:?}\n{page}");
}
